"""Tokens bound to a key (DPoP) or to a certificate, and callers known by their certificate: what a thief has is not enough."""

import hashlib
import json
import ssl
import time

import httpx
import openai
import pytest
from conftest import kind
from stack import Gateway, Upstream, config, wait_until
from stack.caller import call, prompt
from stack.envoy import http_filter
from stack.oidc import claims
from stack.proofs import Authority, ProofKey, asks_for_certificates
from stack.upstream import chat

PATH = "/v1/chat/completions"


def bound_config(oidc, work) -> dict:
    """The usual gateway under the host it is called by, and beside it a path under which any host would do."""
    usual = config(oidc.issuer, work)
    connection = usual["connections"][0]
    named = {**connection, "match": {"hosts": ["127.0.0.1"], "path_prefix": "/v1/"}}
    anywhere = {**connection, "name": "anywhere", "match": {"path_prefix": "/anywhere/v1"}}
    keyed = {**named, "name": "keyed", "match": {"hosts": ["127.0.0.1"], "path_prefix": "/keyed/v1"}, "token": "x-api-key"}
    usual["connections"] = [anywhere, keyed, named]
    return usual


class Caller:
    """Somebody with a key, and a token that a real provider bound to it."""

    def __init__(self, oidc, gateway, upstream):
        self.oidc, self.gateway, self.upstream = oidc, gateway, upstream
        self.url = gateway.envoy.url
        self.key = ProofKey()
        self.token = oidc.token(proof=self.key.proof("POST", f"{oidc.issuer}/token"))
        assert claims(self.token)["cnf"] == {"jkt": self.key.jkt}

    def proof(self, key=None, method="POST", path=PATH, **changed) -> str:
        return (key or self.key).proof(method, self.url + path, changed.pop("token", self.token), **changed)

    def call(self, *proofs, scheme="DPoP", token=None, path=PATH, body=None, more=()):
        headers = [("authorization", f"{scheme} {token or self.token}"), *(("DPoP", proof) for proof in proofs), *more]
        return call(self.url, headers=headers, path=path, body=body)


@pytest.fixture(scope="module")
def caller_of_all(work, oidc):
    folder = work / "bound"
    folder.mkdir()
    with Upstream() as upstream, Gateway(folder, bound_config(oidc, folder), upstream.port) as gateway:
        yield Caller(oidc, gateway, upstream)


@pytest.fixture
def caller(caller_of_all):
    caller_of_all.upstream.requests.clear()
    caller_of_all.upstream.answer = chat("Hello there.")
    return caller_of_all


def test_a_bound_token_goes_through_with_a_proof_and_the_proof_goes_no_further(caller):
    proof = caller.proof()
    reply = caller.call(proof)
    assert reply.status == 200, reply.body
    (seen,) = caller.upstream.requests
    names = {name.lower() for name, _ in seen.headers}
    assert "dpop" not in names, names
    everything = json.dumps(caller.gateway.countersign.records())
    for part in proof.split("."):
        assert part not in everything and part not in caller.gateway.countersign.log_text()
    (opened,) = [r["opened"] for r in caller.gateway.countersign.records() if r.get("session") == reply.session and kind(r) == "opened"]
    assert opened["identity"]["subject"] == "alice-app"
    assert opened["identity"]["tokenHash"] == hashlib.sha256(caller.token.encode()).hexdigest()
    # The token is remembered; every request still needs a proof of its own.
    assert [caller.call(caller.proof()).status for _ in range(3)] == [200] * 3
    assert caller.call().code == "proof_missing"


ATTACKS = {
    "replayed": (lambda c: (lambda proof: c.call(proof).status == 200 and c.call(proof))(c.proof()), 401, "proof_replayed"),
    "as-a-bearer-token": (lambda c: c.call(scheme="Bearer"), 401, "token_bound_to_key"),
    "as-a-bearer-token-with-its-proof": (lambda c: c.call(c.proof(), scheme="Bearer"), 401, "token_bound_to_key"),
    "without-a-proof": (lambda c: c.call(), 401, "proof_missing"),
    "two-proofs": (lambda c: c.call(c.proof(), c.proof()), 400, "proof_repeated"),
    "for-another-method": (lambda c: c.call(c.proof(method="GET")), 401, "proof_wrong_method"),
    "for-another-path": (lambda c: c.call(c.proof(path="/v1/models")), 401, "proof_wrong_url"),
    "for-another-host": (lambda c: c.call(c.proof(htu=f"https://evil.example{PATH}")), 401, "proof_wrong_url"),
    "for-another-port": (lambda c: c.call(c.proof(htu=f"http://127.0.0.1:1{PATH}")), 401, "proof_wrong_url"),
    "stale": (lambda c: c.call(c.proof(iat=int(time.time()) - 90)), 401, "proof_stale"),
    "of-the-future": (lambda c: c.call(c.proof(iat=int(time.time()) + 60)), 401, "proof_in_future"),
    "without-time": (lambda c: c.call(c.proof(iat=None)), 401, "proof_claims_invalid"),
    "of-the-thiefs-key": (lambda c: c.call(c.proof(key=ProofKey())), 401, "proof_wrong_key"),
    "with-the-callers-key-named": (lambda c: c.call(c.proof(key=ProofKey(), header={"jwk": c.key.jwk})), 401, "proof_bad_signature"),
    "giving-its-key-away": (lambda c: c.call(c.proof(header={"jwk": {**c.key.jwk, "d": "AAAA"}})), 401, "proof_key_private"),
    "unsigned": (lambda c: c.call(c.proof(header={"alg": "none"})), 401, "proof_algorithm_refused"),
    "symmetric": (lambda c: c.call(c.proof(header={"alg": "HS256"})), 401, "proof_algorithm_refused"),
    "of-another-type": (lambda c: c.call(c.proof(header={"typ": "JWT"})), 401, "proof_wrong_type"),
    "for-no-token": (lambda c: c.call(c.proof(token=None)), 401, "proof_token_missing"),
    "for-another-token": (lambda c: c.call(c.proof(token="another")), 401, "proof_wrong_token"),
    "malformed": (lambda c: c.call("a.b.c"), 401, "proof_malformed"),
    "under-any-host": (lambda c: c.call(c.proof(path="/anywhere" + PATH), path="/anywhere" + PATH), 401, "proof_host_unknown"),
    "an-unbound-token-as-bound": (lambda c: c.call(c.proof(token=c.oidc.token()), scheme="DPoP", token=c.oidc.token()), 401, "token_not_bound_to_key"),
    "bound-to-what-nobody-knows": (lambda c: c.call(scheme="Bearer", token=c.oidc.sign(cnf={"kid": "k"})), 401, "binding_unknown"),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_stolen_token_is_worth_nothing(caller, attack):
    go, status, code = ATTACKS[attack]
    reply = go(caller)
    assert (reply.status, reply.code) == (status, code)
    assert len(caller.upstream.requests) == (attack == "replayed")
    challenge = reply.header("www-authenticate")
    if code.startswith("proof_") and code not in ("proof_repeated", "proof_wrong_key"):
        assert challenge.startswith('DPoP realm="countersign", error="invalid_dpop_proof"') and 'algs="' in challenge
    elif code in ("token_bound_to_key", "proof_wrong_key"):
        assert challenge.startswith('DPoP realm="countersign", error="invalid_token"'), challenge


def test_headers_do_not_move_a_proof_to_another_address(caller):
    elsewhere = f"https://evil.example{PATH}"
    for name, value in [("x-forwarded-host", "evil.example"), ("x-forwarded-proto", "https"), ("forwarded", "host=evil.example;proto=https"),
                        ("x-original-url", elsewhere), ("x-envoy-original-path", elsewhere)]:
        reply = caller.call(caller.proof(htu=elsewhere), more=[(name, value)])
        assert (reply.status, reply.code) == (401, "proof_wrong_url"), name
    # A query is no part of a proof, escapes that are not needed mean nothing.
    assert caller.call(caller.proof(path=PATH + "?x=1")).status == 200
    assert caller.call(caller.proof(path="/v1/%63hat/completions")).status == 200
    assert caller.call(caller.proof(), path=PATH + "?api-version=1").status == 200


def test_where_a_token_has_a_header_of_its_own_the_proof_says_it_all(caller):
    path = "/keyed" + PATH
    proof = caller.proof(path=path)
    for proofs, status in [([proof], 200), ([proof], 401), ([], 401)]:
        headers = [("x-api-key", caller.token), *(("dpop", one) for one in proofs)]
        assert call(caller.url, headers=headers, path=path).status == status


def test_an_sdk_proves_its_token_by_its_http_client(caller):
    """docs/bound-tokens.md, as it stands there."""
    key, token = caller.key, caller.token

    class Dpop(httpx.Auth):
        def auth_flow(self, request):
            url = str(request.url.copy_with(query=None))
            request.headers["authorization"] = f"DPoP {token}"
            request.headers["dpop"] = key.proof(request.method, url, token)
            yield request

    with httpx.Client(auth=Dpop()) as client:
        sdk = openai.OpenAI(api_key="unused", base_url=caller.gateway.url, http_client=client, max_retries=0)
        for _ in range(2):
            assert sdk.chat.completions.create(**prompt()).choices[0].message.content == "Hello there."


def test_a_used_proof_stays_used_when_the_configuration_changes(gateway, oidc, tmp_path, upstream):
    running = gateway(**{"connections": bound_config(oidc, tmp_path)["connections"]})
    caller = Caller(oidc, running, upstream)
    proof = caller.proof()
    assert caller.call(proof).status == 200
    changed = json.loads(json.dumps(running.countersign.config))
    changed["identity"]["issuers"][0]["clock_skew"] = "5s"
    running.countersign.write(changed)
    wait_until("the change is in force", lambda: [r for r in running.countersign.records() if kind(r) == "config"][1:], 30)
    assert caller.call(caller.proof()).status == 200
    assert caller.call(proof).code == "proof_replayed"


def test_an_issuer_may_have_to_bind_its_tokens(gateway, oidc, tmp_path, upstream):
    strict = bound_config(oidc, tmp_path)
    strict["identity"]["issuers"][0]["require_bound_tokens"] = True
    running = gateway(identity=strict["identity"], connections=strict["connections"])
    caller = Caller(oidc, running, upstream)
    assert call(caller.url, oidc.token()).code == "token_not_bound"
    assert caller.call(caller.proof()).status == 200


def test_the_api_asks_for_proofs_under_the_address_that_is_configured(gateway, oidc, tmp_path, upstream):
    sections = bound_config(oidc, tmp_path)
    ask = {"approvers": [{"group": "security"}], "expires": "10m", "wait": "defer", "reasons": ["an SSN"]}
    sections["policies"].insert(0, {"name": "ask", "when": '"US_SSN" in findings', "then": {"require_approval": ask}})
    sections["connections"][-1] = {**sections["connections"][-1], "policies": ["ask", *sections["connections"][-1]["policies"]]}
    public = "http://127.0.0.1:8480/countersign"
    running = gateway(policies=sections["policies"], connections=sections["connections"], approvals={"public_url": public}, access={"admin": ["finance"]})
    caller = Caller(oidc, running, upstream)
    ours, path = f"http://{running.countersign.http}", "/api/v1/approvals"

    def api(proof, scheme="DPoP"):
        headers = {"authorization": f"{scheme} {caller.token}", "content-type": None, "dpop": proof}
        reply = call(ours, headers=headers, method="GET", path=path, body=b"")
        return reply.status, reply.json.get("error", {}).get("code")

    proof = caller.key.proof("GET", public + path, caller.token)
    assert api(proof) == (200, None)
    assert api(proof) == (401, "proof_replayed")
    assert api(caller.key.proof("GET", ours + path, caller.token)) == (401, "proof_wrong_url")
    assert api(None) == (401, "proof_missing")
    assert api(None, "Bearer") == (401, "token_bound_to_key")


# --- Certificates


SPIFFE = "spiffe://prod.example.org/ns/agents/sa/writer"


class Workloads:
    """A gateway that asks callers for certificates, the authority it trusts, and one it does not."""

    def __init__(self, oidc, work, upstream, change=None, issuers=True):
        self.trusted, self.stranger = Authority(work, "trusted"), Authority(work, "stranger")
        server = self.trusted.issue("server", server=True)
        sections = config(oidc.issuer, work)
        sections["identity"]["mtls"] = [
            {"spiffe": "spiffe://prod.example.org/*", "groups": ["finance"]},
            {"spiffe": "spiffe://prod.example.org/ns/interns/*", "groups": ["interns"]},
            {"dns": "batch.example.org", "groups": ["finance"]},
            {"subject": "CN=legacy,O=Example", "groups": ["finance"]},
        ]
        if not issuers:
            del sections["identity"]["issuers"]
        usual = sections["connections"][0]
        sections["connections"] = [
            {**usual, "name": "tokens", "match": {"hosts": ["127.0.0.1"], "path_prefix": "/tokens/v1"}},
            {**usual, "match": {"hosts": ["127.0.0.1"], "path_prefix": "/v1/"}, "certificate_alone": True},
        ]
        self.oidc, self.upstream = oidc, upstream
        tls = asks_for_certificates(server, self.trusted.file)

        def both(envoy):
            tls(envoy)
            if change:
                change(envoy)

        self.gateway = Gateway(work, sections, upstream.port, both)

    def call(self, identity=None, token=None, headers=None, path=PATH):
        return call(self.gateway.envoy.url, token, headers=headers, path=path, tls=self.trusted.client(identity))

    def identity(self, reply) -> dict:
        records = [r for r in self.gateway.countersign.records() if r.get("session") == reply.session]
        return records[0][kind(records[0])]["identity"]


@pytest.fixture(scope="module")
def workloads_of_all(work, oidc):
    folder = work / "workloads"
    folder.mkdir()
    with Upstream() as upstream:
        workloads = Workloads(oidc, folder, upstream)
        with workloads.gateway:
            workloads.writer = workloads.trusted.issue("writer", uri=SPIFFE)
            workloads.other = workloads.trusted.issue("other", uri="spiffe://other.example.org/ns/agents/sa/writer", dns="batch.example.org")
            yield workloads


@pytest.fixture
def workloads(workloads_of_all):
    workloads_of_all.upstream.requests.clear()
    workloads_of_all.upstream.answer = chat("Hello there.")
    return workloads_of_all


def test_a_workload_is_known_by_its_spiffe_id(workloads):
    reply = workloads.call(workloads.writer)
    assert reply.status == 200, reply.body
    identity = workloads.identity(reply)
    assert (identity["issuer"], identity["subject"]) == ("spiffe://prod.example.org", SPIFFE)
    assert (identity["groups"], identity["authMethod"]) == (["finance"], "mtls")
    assert identity["tokenHash"] == workloads.writer.digest.hex()
    # Policies see who it is like any other caller.
    intern = workloads.trusted.issue("intern", uri="spiffe://prod.example.org/ns/interns/sa/x")
    reply = workloads.call(intern)
    assert (reply.status, reply.code) == (403, "policy_denied")
    assert workloads.identity(reply)["groups"] == ["finance", "interns"]
    assert len(workloads.upstream.requests) == 1


def test_an_sdk_shows_a_certificate_and_no_key(workloads):
    """docs/bound-tokens.md, as it stands there."""
    tls = workloads.trusted.client(workloads.writer)
    url = workloads.gateway.url.replace("http:", "https:")

    class NoToken(httpx.Auth):
        def auth_flow(self, request):
            del request.headers["authorization"]
            yield request

    with httpx.Client(verify=tls, auth=NoToken()) as client:
        sdk = openai.OpenAI(api_key="unused", base_url=url, http_client=client, max_retries=0)
        assert sdk.chat.completions.create(**prompt()).choices[0].message.content == "Hello there."


def test_a_workload_is_known_by_a_dns_name_or_its_subject(workloads):
    for identity, issuer, subject in [
        (workloads.trusted.issue("batch", dns="batch.example.org"), "mtls:dns", "batch.example.org"),
        (workloads.trusted.issue("legacy"), "mtls:subject", "CN=legacy,O=Example"),
    ]:
        reply = workloads.call(identity)
        assert reply.status == 200, reply.body
        known = workloads.identity(reply)
        assert (known["issuer"], known["subject"]) == (issuer, subject)


def test_of_another_trust_domain_nobody_is_known(workloads):
    reply = workloads.call(workloads.other)
    assert (reply.status, reply.code) == (401, "certificate_unknown")
    assert workloads.call(workloads.trusted.issue("nobody")).code == "certificate_unknown"
    assert workloads.upstream.requests == []


@pytest.mark.parametrize("name", ["x-forwarded-client-cert", "x-client-cert", "ssl-client-cert", "x-forwarded-user"])
def test_a_header_is_no_certificate(workloads, name):
    forged = {name: f"By=spiffe://prod.example.org/gateway;Hash={workloads.writer.digest.hex()};URI={SPIFFE}"}
    assert workloads.call(headers=forged).code == "token_missing"
    assert workloads.call(workloads.other, headers=forged).code == "certificate_unknown"
    assert workloads.upstream.requests == []


def test_without_a_certificate_or_where_it_does_not_suffice_a_token_is_needed(workloads):
    assert workloads.call().code == "token_missing"
    assert workloads.call(workloads.writer, path="/tokens" + PATH).code == "token_missing"
    token = workloads.oidc.token()
    assert workloads.call(token=token).status == 200
    # A token that is shown counts, and must.
    reply = workloads.call(workloads.writer, token)
    assert reply.status == 200 and workloads.identity(reply)["subject"] == "alice-app"
    assert workloads.call(workloads.writer, "garbage").code == "token_not_jws"
    assert len(workloads.upstream.requests) == 2


def test_a_certificate_that_envoy_does_not_trust_gets_no_connection(workloads):
    forged = workloads.stranger.issue("writer", uri=SPIFFE)
    with pytest.raises((ssl.SSLError, ConnectionError)):
        workloads.call(forged)
    assert workloads.upstream.requests == []


@pytest.mark.parametrize("path", [PATH, "/tokens" + PATH], ids=["certificate-alone", "token-needed"])
def test_a_token_bound_to_a_certificate_counts_with_that_certificate_only(workloads, path):
    token = workloads.oidc.sign(cnf={"x5t#S256": workloads.writer.x5t})
    reply = workloads.call(workloads.writer, token, path=path)
    assert reply.status == 200, reply.body
    identity = workloads.identity(reply)
    assert (identity["subject"], identity["authMethod"]) == ("alice-app", "oidc_jwt")
    for other, code in [(workloads.other, "certificate_wrong"), (None, "certificate_missing")]:
        reply = workloads.call(other, token, path=path)
        assert (reply.status, reply.code) == (401, code)
    forged = {"x-forwarded-client-cert": f"Hash={workloads.writer.digest.hex()}"}
    assert workloads.call(None, token, headers=forged, path=path).code == "certificate_missing"
    assert len(workloads.upstream.requests) == 1


def test_over_tls_a_proof_is_for_https(workloads):
    key = ProofKey()
    token = workloads.oidc.token(proof=key.proof("POST", f"{workloads.oidc.issuer}/token"))
    here = workloads.gateway.envoy.url.replace("http:", "https:") + PATH
    reply = workloads.call(headers={"authorization": f"DPoP {token}", "dpop": key.proof("POST", here, token)})
    assert reply.status == 200, reply.body


def test_certificates_alone_will_do(oidc, tmp_path, upstream):
    upstream.answer = chat("Hello there.")
    workloads = Workloads(oidc, tmp_path, upstream, issuers=False)
    with workloads.gateway:
        writer = workloads.trusted.issue("writer", uri=SPIFFE)
        assert workloads.call(writer).status == 200
        reply = workloads.call(writer, oidc.token())
        assert (reply.status, reply.code) == (401, "issuer_unknown")


def test_a_workload_that_is_struck_from_the_configuration_is_known_no_more(oidc, tmp_path):
    with Upstream() as upstream:
        workloads = Workloads(oidc, tmp_path, upstream)
        with workloads.gateway:
            writer = workloads.trusted.issue("writer", uri=SPIFFE)
            assert workloads.call(writer).status == 200
            changed = json.loads(json.dumps(workloads.gateway.countersign.config))
            del changed["identity"]["mtls"][0]
            workloads.gateway.countersign.write(changed)
            def refused():
                reply = workloads.call(writer)
                return reply.status == 401 and reply.code == "certificate_unknown"

            wait_until("it is known no more", refused)


@pytest.mark.parametrize("left_out", ["connection.mtls", "connection.sha256_peer_certificate_digest"])
def test_what_envoy_does_not_say_is_not_guessed(oidc, tmp_path, upstream, left_out):
    def change(envoy):
        http_filter(envoy, "envoy.filters.http.ext_proc")["request_attributes"].remove(left_out)

    workloads = Workloads(oidc, tmp_path, upstream, change)
    with workloads.gateway:
        writer = workloads.trusted.issue("writer", uri=SPIFFE)
        assert workloads.call(writer).code == "token_missing"
        bound = oidc.sign(cnf={"x5t#S256": writer.x5t})
        assert workloads.call(writer, bound).code == "certificate_missing"
    assert upstream.requests == []
