"""SAML: callers of a real identity provider (pysaml2) get grants for assertions, each once, and nobody else does."""

import http.server
import json
import shutil
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import openai
import pytest
from conftest import kind
from stack import Gateway, Upstream
from stack.saml import EMAIL, SamlIdp, make_key, parameter, xmlsec1
from stack.upstream import chat
from test_grants import ISSUER, Desk, office

pytestmark = pytest.mark.skipif(not shutil.which(xmlsec1()), reason="pysaml2 signs with Debian's xmlsec1: apt-get install xmlsec1")

BEARER = "urn:ietf:params:oauth:grant-type:saml2-bearer"
RECIPIENT = f"{ISSUER}/oauth2/token"
ENTITY = "https://idp.example/saml"


class Published:
    """Serves the metadata, and counts who asks."""

    def __init__(self, text: str):
        self.text, self.asked = text, 0
        published = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                published.asked += 1
                self.send_response(200)
                self.end_headers()
                self.wfile.write(published.text.encode())

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/metadata"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self):
        self.server.shutdown()
        self.server.server_close()


class SamlDesk(Desk):
    def __init__(self, gateway, oidc, upstream, idp, published):
        super().__init__(gateway, oidc, upstream)
        self.idp, self.published = idp, published

    def response(self, subject="erin", groups=("engineers",), recipient=RECIPIENT, **more) -> str:
        attributes = {"groups": list(groups), "mail": f"{subject}@example.com"}
        return self.idp.response(recipient, subject, attributes, **more)

    def show(self, document: str, **details):
        details = {"type": "inference", "connection": "openai", **details}
        return self.post("/oauth2/token", {
            "grant_type": BEARER, "assertion": parameter(document), "authorization_details": json.dumps([details])})

    def code(self, document: str) -> str:
        status, told = self.show(document)
        assert (status, told["error"]) == (400, "invalid_grant"), told
        return told["code"]


@contextmanager
def desk_of(oidc, tmp_path, issuers=True):
    idp = SamlIdp(*make_key(tmp_path), ENTITY)
    published = Published(idp.metadata())
    usual = office(oidc, tmp_path)
    if not issuers:
        del usual["identity"]["issuers"]
    usual["identity"]["saml"] = [{
        "entity_id": ENTITY, "metadata": {"url": published.url}, "audience": "urn:ai-gateway",
        # As pysaml2 names the attribute on the wire.
        "person_attribute": "urn:mace:dir:attribute-def:mail"}]
    with Upstream(chat("fine")) as upstream, Gateway(tmp_path, usual, upstream.port) as gateway:
        yield SamlDesk(gateway, oidc, upstream, idp, published)
    published.stop()


@pytest.fixture
def saml(oidc, tmp_path):
    with desk_of(oidc, tmp_path) as desk:
        yield desk


def test_assertions_alone_will_do(oidc, tmp_path):
    with desk_of(oidc, tmp_path, issuers=False) as saml:
        status, told = saml.show(saml.response(), models=["gpt-4o-mini"], max_uses=1)
        assert status == 200, told
        assert saml.call(told["access_token"]).choices[0].message.content == "fine"
        with pytest.raises(openai.AuthenticationError) as refused:
            saml.call(saml.token("erin", ["engineers"]))
        assert refused.value.code == "issuer_unknown"


def test_an_assertion_becomes_a_grant_that_an_sdk_uses_and_that_is_on_record(saml):
    status, told = saml.read("/.well-known/oauth-authorization-server")
    assert status == 200 and BEARER in told["grant_types_supported"]
    document = saml.response()
    status, told = saml.show(document, models=["gpt-4o-mini"], max_uses=1)
    assert status == 200, told
    assert saml.call(told["access_token"]).choices[0].message.content == "fine"
    [issued] = saml.told("issued")
    who = issued["identity"]
    assert (who["issuer"], who["subject"], who["groups"], who["authMethod"]) == (ENTITY, "erin", ["engineers"], "saml")
    [opened] = [record["opened"] for record in saml.countersign.records() if kind(record) == "opened"]
    assert opened["identity"]["grant"]["obtainedWith"] == "saml"
    # Names that another format gives count too.
    assert saml.show(saml.response("erin@example.com", name_format=EMAIL))[0] == 200
    # Nothing of the assertion is kept but its hash.
    assert "SignatureValue" not in json.dumps(saml.countersign.records())


def test_an_assertion_counts_once_however_many_show_it_at_the_same_time(saml):
    document = saml.response()
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: saml.show(document), range(64)))
    codes = Counter(told.get("code", "granted") for _, told in answers)
    assert codes == {"granted": 1, "saml_used": 63}, codes
    # After a crash too, and in another wrapping.
    saml.countersign.kill()
    saml.countersign.start()
    assert saml.code(document) == "saml_used"
    assert saml.code(document.replace("status:Success", "status:Responder")) == "saml_used"
    assert saml.show(saml.response())[0] == 200


def test_a_grant_that_waits_for_an_approval_is_asked_for_with_the_same_assertion(saml):
    document = saml.response("cora", ["contractors"])
    status, told = saml.show(document, max_uses=1)
    assert (status, told["error"]) == (400, "authorization_pending"), told
    approval = told["approval"]
    assert saml.show(document, max_uses=1)[1]["approval"] == approval
    [pending] = saml.wait_for()
    # The same human, by her other account.
    status, own = saml.decide(pending, who="cora-admin", email="cora@example.com")
    assert (status, own["error"]["code"]) == (403, "own_request")
    assert saml.decide(pending)[0] == 200
    status, told = saml.show(document, max_uses=1)
    assert status == 200, told
    saml.call(told["access_token"])
    # Used, it asks nobody for anything any more.
    assert saml.code(document) == "saml_used"
    assert not saml.pending()


def test_assertions_for_others_forged_ones_and_wrapped_ones_are_refused(saml, tmp_path):
    good = saml.response()
    assertion = good[good.index("<ns1:Assertion") : good.index("</ns1:Assertion>") + len("</ns1:Assertion>")]
    signature = assertion[assertion.index("<ns2:Signature ") : assertion.index("</ns2:Signature>") + len("</ns2:Signature>")]
    evil = assertion.replace(signature, "").replace(">erin<", ">mallory<").replace(' ID="', ' ID="evil-')
    mallory = SamlIdp(*make_key(tmp_path, "mallory"), ENTITY)
    stranger = SamlIdp(saml.idp.key, saml.idp.certificate, "https://evil.example")
    cases = {
        "saml_recipient_wrong": saml.response(recipient="https://other.example/acs"),
        "saml_audience_wrong": saml.response(audience="urn:other"),
        "saml_solicited": saml.response(in_response_to="id-1"),
        "saml_unsigned": saml.response(sign_assertion=False, sign_response=True),
        "saml_bad_digest": good.replace(">engineers<", ">admins<"),
        "saml_several_assertions": good.replace(assertion, evil + assertion),
        "saml_comment": good.replace(">erin<", ">er<!-- -->in<"),
        "saml_doctype": good.replace("<ns0:Response", '<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><ns0:Response', 1),
        "saml_bad_signature": mallory.response(RECIPIENT),
        "saml_issuer_unknown": stranger.response(RECIPIENT),
        "saml_no_assertion": "<x/>",
        "saml_not_xml": "no XML",
    }
    asked = saml.published.asked
    for code, document in cases.items():
        assert saml.code(document) == code
    assert saml.published.asked <= asked + 1, "a forged signature asks for the metadata once"
    status, told = saml.post("/oauth2/token", {"grant_type": BEARER, "assertion": "<x/>", "authorization_details": json.dumps(
        [{"type": "inference", "connection": "openai"}])})
    assert (status, told["code"]) == (400, "saml_not_base64url")
    assert not saml.told("issued")
    assert saml.show(good)[0] == 200, "none of these used up the good one"


def test_a_provider_changes_its_key_and_nobody_has_to_restart(saml, tmp_path):
    assert saml.show(saml.response())[0] == 200
    before, saml.idp = saml.idp, SamlIdp(*make_key(tmp_path, "next"), ENTITY)
    saml.published.text = saml.idp.metadata()
    assert saml.show(saml.response())[0] == 200, "the new key is asked for at once"
    assert saml.code(before.response(RECIPIENT)) == "saml_bad_signature"
    saml.published.text = saml.idp.metadata(valid_until="2026-01-01T00:00:00Z")
    saml.countersign.kill()
    saml.countersign.start()
    assert saml.code(saml.response()) == "saml_metadata_expired"


def test_where_no_provider_is_configured_assertions_are_no_grant_type(saml):
    usual = saml.countersign.config
    document = saml.response()
    del usual["identity"]["saml"]
    saml.reload(usual)
    status, told = saml.show(document)
    assert (status, told["error"]) == (400, "unsupported_grant_type"), told
    assert BEARER not in saml.read("/.well-known/oauth-authorization-server")[1]["grant_types_supported"]
