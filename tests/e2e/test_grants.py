"""Grants: short tokens for so many calls of so much, made by our token endpoint, used through real Envoy."""

import base64
import contextlib
import http.client
import json
import os
import socket
import sys
import time
import urllib.parse
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import openai
import pytest
from conftest import kind
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from stack import Gateway, Upstream, broker, config, wait_until
from stack.caller import call, prompt
from stack.countersign import run
from stack.proofs import ProofKey
from stack.upstream import chat
from test_approvals import Office
from test_control_topic import replicas  # noqa: F401: a fixture

ISSUER = "http://127.0.0.1:8480"
EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"


def keygen(out) -> str:
    made = run("keygen", "grants", "--out", out)
    assert made.returncode == 0, made.stderr
    return str(out)


def office(oidc, work) -> dict:
    """The usual gateway, where `openai` takes holders of grants and finance, and grants for gpt-4o need nobody's yes."""
    usual = config(oidc.issuer, work)
    usual["identity"]["issuers"][0]["person_claim"] = "email"
    usual["policies"].append({"name": "allow-granted", "when": "has(principal.grant)", "then": "allow"})
    usual["connections"][0]["policies"] = ["mask-personal", "allow-granted", "allow-finance"]
    usual["approvals"] = {"public_url": ISSUER}
    usual["access"] = {"approver": ["security"], "auditor": ["audit"], "admin": ["admins"]}
    usual["grants"] = {
        "issuer": ISSUER,
        "keys": [keygen(work / "grants.key")],
        "rules": [
            {"name": "engineers", "when": '"engineers" in principal.groups', "connections": ["openai"],
             "models": ["gpt-4o*"], "lifetime": "1h", "max_uses": 20_000},
            {"name": "contractors", "when": '"contractors" in principal.groups', "connections": ["openai"], "lifetime": "10m",
             "max_uses": 3, "require_approval": {"approvers": [{"group": "security"}], "reasons": ["a contractor"]}},
        ],
    }
    return usual


class Desk(Office):
    """A gateway that makes grants."""

    def post(self, path, fields, headers=None):
        connection = http.client.HTTPConnection(self.countersign.http, timeout=30)
        headers = {"content-type": "application/x-www-form-urlencoded", **(headers or {})}
        connection.request("POST", path, urllib.parse.urlencode(fields), headers)
        answer = connection.getresponse()
        text = answer.read()
        connection.close()
        return answer.status, json.loads(text) if text else None

    def read(self, path):
        connection = http.client.HTTPConnection(self.countersign.http, timeout=30)
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())

    def ask(self, token, headers=None, **details):
        details = {"type": "inference", "connection": "openai", **details}
        return self.post("/oauth2/token", {
            "grant_type": EXCHANGE, "subject_token": token, "subject_token_type": ACCESS_TOKEN,
            "authorization_details": json.dumps([details]),
        }, headers)

    def grant(self, token=None, **details) -> str:
        status, told = self.ask(token or self.token("erin", ["engineers"]), **details)
        assert status == 200, told
        return told["access_token"]

    def call(self, token, model="gpt-4o-mini"):
        return self.gateway.openai(token).chat.completions.create(model=model, messages=[{"role": "user", "content": "hello"}])

    def reload(self, config):
        """Puts a configuration into force."""
        def loads():
            return [record["config"]["accepted"] for record in self.countersign.records() if kind(record) == "config"]
        before = len(loads())
        self.countersign.write(config)
        wait_until("it is in force", lambda: loads()[before:] == [True])

    def told(self, action) -> list[dict]:
        return [record["grant"] for record in self.countersign.records() if kind(record) == "grant" and record["grant"]["action"] == action]


@pytest.fixture
def desk(oidc, tmp_path):
    with Upstream(chat("fine")) as upstream, Gateway(tmp_path, office(oidc, tmp_path), upstream.port) as gateway:
        yield Desk(gateway, oidc, upstream)


def unbase64(text) -> bytes:
    return base64.urlsafe_b64decode(text + "==")


def claims(token) -> dict:
    return json.loads(unbase64(token.split(".")[1]))


def test_who_asks_gets_a_token_for_what_they_asked_and_an_sdk_uses_it(desk):
    mine = desk.token("erin", ["engineers"])
    with pytest.raises(openai.PermissionDeniedError) as refused:
        desk.call(mine)
    assert refused.value.code == "no_policy_allows"

    status, told = desk.ask(mine, models=["gpt-4o-mini"], max_uses=2, expires_in=60, reason="incident 4711, SSN 536-22-8145")
    assert status == 200, told
    assert told["token_type"] == "Bearer" and told["expires_in"] == 60
    assert told["authorization_details"] == [
        {"type": "inference", "connection": "openai", "models": ["gpt-4o-mini"], "max_uses": 2}]
    grant = told["access_token"]
    assert claims(grant)["iss"] == ISSUER and claims(grant)["sub"] == "erin"

    for number in (1, 2):
        assert desk.call(grant).choices[0].message.content == "fine"
    with pytest.raises(openai.PermissionDeniedError) as refused:
        desk.call(grant)
    assert refused.value.code == "grant_used_up"
    assert len(desk.upstream.requests) == 2

    [issued] = desk.told("issued")
    assert issued["identity"]["subject"] == "erin" and issued["rule"] == "engineers" and issued["maxUses"] == 2
    assert issued["reason"] == "incident 4711, SSN [US_SSN]"
    opened = [record["opened"] for record in desk.countersign.records() if kind(record) == "opened"]
    assert [one["decision"]["grantUse"] for one in opened] == [1, 2]
    assert all(one["identity"]["grant"]["id"] == issued["id"] for one in opened)
    assert all(one["identity"]["subject"] == "erin" and one["identity"]["authMethod"] == "grant" for one in opened)
    assert grant.split(".")[2] not in json.dumps(desk.countersign.records())


def test_a_grant_is_for_nothing_else(desk):
    grant = desk.grant(models=["gpt-4o-mini"])
    with pytest.raises(openai.PermissionDeniedError) as refused:
        desk.call(grant, model="gpt-4o")
    assert refused.value.code == "grant_out_of_scope"
    # Nor for our own API, nor for another grant.
    status, told = desk.api("GET", "", grant)
    assert (status, told["error"]["code"]) == (401, "token_wrong_type")
    status, told = desk.ask(grant)
    assert (status, told["error"], told["code"]) == (400, "invalid_grant", "token_wrong_type")


@pytest.mark.parametrize(("who", "details", "error", "code"), [
    (("frank", ["finance"]), {}, "access_denied", "grant_not_allowed"),
    (("erin", ["engineers"]), {"models": ["o3"]}, "access_denied", "grant_not_allowed"),
    (("erin", ["engineers"]), {"expires_in": 3601}, "access_denied", "grant_not_allowed"),
    (("erin", ["engineers"]), {"not_before": 1}, "access_denied", "grant_bad_window"),
    (("erin", ["engineers"]), {"connection": "other"}, "access_denied", "grant_not_allowed"),
    (("erin", ["engineers"]), {"scope": "all"}, "invalid_authorization_details", "invalid_authorization_details"),
])
def test_what_no_rule_gives_is_refused_and_on_record(desk, who, details, error, code):
    status, told = desk.ask(desk.token(*who), **details)
    assert (status, told["error"], told["code"]) == (400, error, code)
    if error == "access_denied":
        [refused] = desk.told("refused")
        assert (refused["identity"]["subject"], refused["code"]) == (who[0], code)
    assert desk.told("issued") == []


def test_a_token_that_proves_nothing_gets_nothing(desk, oidc):
    for token, code in ((oidc.sign(exp=int(time.time()) - 300), "token_expired"), ("garbage", "token_not_jws"),
                        (oidc.token(resource="urn:other"), "audience_wrong")):
        status, told = desk.ask(token)
        assert (status, told["error"], told["code"]) == (400, "invalid_grant", code)
    assert desk.told("refused") == desk.told("issued") == []


def test_forms_that_are_none_are_refused(desk):
    fields = {"grant_type": EXCHANGE}
    for headers in ({"content-type": "application/json"}, {"content-encoding": "gzip"}):
        status, told = desk.post("/oauth2/token", fields, headers)
        assert (status, told["error"]) == (400, "invalid_request")
    status, told = desk.post("/oauth2/token", [("grant_type", EXCHANGE), ("grant_type", EXCHANGE)])
    assert (status, told["error"]) == (400, "invalid_request")
    status, told = desk.post("/oauth2/token", {"grant_type": "password", "username": "a", "password": "b"})
    assert (status, told["error"]) == (400, "unsupported_grant_type")
    status, told = desk.post("/oauth2/token", {"grant_type": EXCHANGE, "subject_token": "a" * 600_000})
    assert (status, told["error"]) == (400, "invalid_request")


def test_what_the_metadata_say_is_there_and_strangers_can_check_a_grant(desk):
    status, metadata = desk.read("/.well-known/oauth-authorization-server")
    assert status == 200 and metadata["issuer"] == ISSUER
    status, jwks = desk.read(metadata["jwks_uri"].removeprefix(ISSUER))
    assert status == 200
    signed, _, signature = desk.grant().rpartition(".")
    header = json.loads(unbase64(signed.split(".")[0]))
    assert header["alg"] == "EdDSA" and header["typ"] == "countersign-grant+jwt"
    [key] = [key for key in jwks["keys"] if key["kid"] == header["kid"]]
    # Raises where it is not signed by that key.
    Ed25519PublicKey.from_public_bytes(unbase64(key["x"])).verify(unbase64(signature), signed.encode())


def test_a_revoked_grant_counts_no_more_at_once_and_whoever_asks_is_told(desk):
    auditor = {"authorization": f"Bearer {desk.token('audrey', ['audit'])}"}
    grant, other = desk.grant(max_uses=5), desk.grant()
    desk.call(grant)
    status, told = desk.post("/oauth2/introspect", {"token": grant}, auditor)
    assert status == 200 and told["active"] and told["used"] == 1 and told["sub"] == "erin"
    # Who has no role is told nothing of others' grants.
    nobody = {"authorization": f"Bearer {desk.token('mallory', [])}"}
    assert desk.post("/oauth2/introspect", {"token": grant}, nobody)[0] == 403
    assert desk.post("/oauth2/introspect", {"token": grant})[0] == 401

    assert desk.post("/oauth2/revoke", {"token": grant})[0] == 200
    with pytest.raises(openai.AuthenticationError) as refused:
        desk.call(grant)
    assert refused.value.code == "grant_revoked"
    assert desk.post("/oauth2/introspect", {"token": grant}, auditor)[1] == {"active": False}
    assert desk.post("/oauth2/revoke", {"token": "garbage"})[0] == 200
    wait_until("the revocation is on record", lambda: desk.told("revoked"))

    # One that has not begun is revoked too, and saying it again adds nothing.
    later = desk.grant(not_before=int(time.time()) + 4)
    for _ in range(3):
        assert desk.post("/oauth2/revoke", {"token": later})[0] == 200
    wait_until("it would have begun", lambda: time.time() > claims(later)["nbf"])
    with pytest.raises(openai.AuthenticationError) as refused:
        desk.call(later)
    assert refused.value.code == "grant_revoked"
    wait_until("the second is on record", lambda: len(desk.told("revoked")) >= 2)
    assert len(desk.told("revoked")) == 2

    # By its id, for administrators.
    connection = http.client.HTTPConnection(desk.countersign.http, timeout=30)
    identity = claims(other)["jti"]
    for who, expected in (("sam", 403), ("root", 200)):
        groups = ["admins"] if who == "root" else ["security"]
        connection.request("DELETE", f"/api/v1/grants/{identity}", headers={"authorization": f"Bearer {desk.token(who, groups)}"})
        answer = connection.getresponse()
        answer.read()
        assert answer.status == expected
    with pytest.raises(openai.AuthenticationError):
        desk.call(other)
    wait_until("all are on record", lambda: len(desk.told("revoked")) == 3)
    assert desk.told("revoked")[2]["bySubject"] == "root"


def test_whoever_is_slow_keeps_no_grant_from_being_revoked(desk):
    grant = desk.grant()
    host, port = desk.countersign.http.split(":")
    with contextlib.ExitStack() as held:
        for _ in range(150):
            slow = held.enter_context(socket.create_connection((host, int(port)), 10))
            slow.sendall(b"POST /oauth2/revoke HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-www-form-urlencoded\r\ncontent-length: 100\r\n\r\n")
        assert desk.post("/oauth2/revoke", {"token": grant})[0] == 200
    with pytest.raises(openai.AuthenticationError) as refused:
        desk.call(grant)
    assert refused.value.code == "grant_revoked"



def test_a_grant_that_somebody_must_approve_is_made_once_they_have(desk):
    cora = desk.token("cora", ["contractors"])
    status, told = desk.ask(cora, max_uses=1, reason="fix the report")
    assert (status, told["error"]) == (400, "authorization_pending") and told["interval"] == 5
    # The same request again asks how it stands; another is another.
    assert desk.ask(cora, max_uses=1, reason="fix the report")[1]["approval"] == told["approval"]
    assert desk.ask(cora, max_uses=2, reason="fix the report")[1]["approval"] != told["approval"]
    status, shown = desk.api("GET", f"/{told['approval']}", desk.token("sam", ["security"]))
    assert status == 200 and shown["view"]["endpoint"] == "grant"
    assert "uses: 1" in shown["view"]["excerpt"] and "reason given: fix the report" in shown["view"]["excerpt"]
    # Not by herself, under whatever account.
    status, own = desk.decide(shown, who="cora-admin", groups=("security",), email="cora@example.com")
    assert (status, own["error"]["code"]) == (403, "own_request")
    assert desk.decide(shown)[0] == 200
    grant = desk.grant(cora, max_uses=1, reason="fix the report")
    desk.call(grant)
    [issued] = desk.told("issued")
    assert issued["approval"]["id"] == told["approval"] and issued["approval"]["state"] == "consumed"
    # One approval, one grant.
    assert desk.ask(cora, max_uses=1, reason="fix the report")[1]["error"] == "authorization_pending"


def test_a_grant_outlives_a_restart_and_so_does_what_was_used_of_it(desk):
    grant = desk.grant(max_uses=2)
    desk.call(grant)
    desk.countersign.kill()
    desk.countersign.start()
    wait_until("it serves again", lambda: desk.read("/readyz")[0] == 200)
    desk.call(grant)
    with pytest.raises(openai.PermissionDeniedError):
        desk.call(grant)


def test_keys_are_rotated_without_a_restart(desk, tmp_path):
    before = desk.grant()
    first_kid = json.loads(unbase64(before.split(".")[0]))["kid"]
    usual = desk.countersign.config
    old = usual["grants"]["keys"][0]
    new = keygen(tmp_path / "next.key")
    for keys, counts in (([old, new], True), ([new, old], True), ([new], False)):
        usual["grants"]["keys"] = keys
        desk.reload(usual)
        wait_until("these keys are published", lambda: len(desk.read("/oauth2/jwks")[1]["keys"]) == len(keys))
        if counts:
            desk.call(before)
        else:
            with pytest.raises(openai.AuthenticationError) as refused:
                desk.call(before)
            assert refused.value.code == "key_unknown"
        fresh = desk.grant()
        desk.call(fresh)
        header = json.loads(unbase64(fresh.split(".")[0]))
        assert header["kid"] == desk.read("/oauth2/jwks")[1]["keys"][0]["kid"], "the first key signs"
        assert (header["kid"] == first_kid) == (keys[0] == old)
    assert len(desk.read("/oauth2/jwks")[1]["keys"]) == 1


def test_a_key_that_is_replaced_in_its_file_is_gone(desk, tmp_path):
    before = desk.grant()
    kid = desk.read("/oauth2/jwks")[1]["keys"][0]["kid"]
    os.replace(keygen(tmp_path / "another.key"), desk.countersign.config["grants"]["keys"][0])
    wait_until("the new key is published", lambda: desk.read("/oauth2/jwks")[1]["keys"][0]["kid"] != kid)
    with pytest.raises(openai.AuthenticationError) as refused:
        desk.call(before)
    assert refused.value.code == "key_unknown"
    desk.call(desk.grant())


def test_without_grants_there_is_no_endpoint(oidc, tmp_path):
    with Upstream(chat("fine")) as upstream, Gateway(tmp_path, config(oidc.issuer, tmp_path), upstream.port) as gateway:
        desk = Desk(gateway, oidc, upstream)
        for path in ("/oauth2/token", "/oauth2/revoke"):
            assert desk.post(path, {})[0] == 404
        assert desk.read("/oauth2/jwks")[0] == 404


def shell(desk, *arguments, token, **options):
    """`countersign token` as somebody's shell runs it."""
    environment = {**os.environ, "COUNTERSIGN_TOKEN": token, "COUNTERSIGN_URL": f"http://{desk.countersign.http}"}
    return run("token", *arguments, env=environment, **options)


def test_a_shell_gets_a_grant_and_runs_a_program_with_it(desk, tmp_path):
    erin = desk.token("erin", ["engineers"])
    made = shell(desk, "--connection", "openai", "--max-uses", "1", "--expires-in", "10m", token=erin)
    assert made.returncode == 0, made.stderr
    assert claims(made.stdout.strip())["authorization_details"][0]["max_uses"] == 1
    desk.call(made.stdout.strip())
    told = shell(desk, "--connection", "openai", "--json", token=erin)
    assert json.loads(told.stdout)["token_type"] == "Bearer"

    program = tmp_path / "program.py"
    program.write_text("import openai, sys\n"
                       f"client = openai.OpenAI(base_url={desk.gateway.url!r}, max_retries=0)\n"
                       "print(client.chat.completions.create(model='gpt-4o', messages=[{'role': 'user', 'content': 'hi'}])"
                       ".choices[0].message.content)\nsys.exit(7)\n")
    ran = shell(desk, "--connection", "openai", "--", sys.executable, str(program), token=erin)
    assert (ran.returncode, ran.stdout.strip()) == (7, "fine"), ran.stderr
    named = shell(desk, "--connection", "openai", "--env", "A", "--env", "B", "--", "/bin/sh", "-c",
                  'test -n "$A" && test "$A" = "$B" && test -z "$OPENAI_API_KEY" && test -z "$COUNTERSIGN_TOKEN"', token=erin)
    assert named.returncode == 0, named.stderr

    refused = shell(desk, "--connection", "openai", "--model", "o3", token=erin)
    assert refused.returncode == 1 and "grant_not_allowed" in refused.stderr
    stale = shell(desk, "--connection", "openai", token=desk.oidc.sign(exp=int(time.time()) - 300))
    assert stale.returncode == 3 and "token_expired" in stale.stderr
    missing = shell(desk, "--connection", "openai", "--", str(tmp_path / "none"), token=erin)
    assert missing.returncode == 2 and "cannot run" in missing.stderr


def test_a_shell_waits_for_whoever_must_approve(desk):
    cora = desk.token("cora", ["contractors"])
    early = shell(desk, "--connection", "openai", "--no-wait", token=cora)
    assert early.returncode == 1 and "approval_required" in early.stderr
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(shell, desk, "--connection", "openai", "--reason", "another", token=cora)
        approval = desk.wait_for(2)[0]  # the newest
        assert desk.decide(approval)[0] == 200
        made = waiting.result(60)
    assert made.returncode == 0, made.stderr
    assert approval["id"] in made.stderr
    desk.call(made.stdout.strip())


def test_of_ten_thousand_uses_at_once_on_three_replicas_one_counts(kafka, replicas, upstream, tmp_path):
    """Over real Kafka and real Envoy."""
    uses = 10_000
    key = keygen(tmp_path / "grants.key")

    def with_grants(usual):
        rule = {"name": "engineers", "when": '"engineers" in principal.groups', "connections": ["openai"], "lifetime": "1h"}
        usual["grants"] = {"issuer": ISSUER, "keys": [key], "rules": [rule]}
        usual["policies"].append({"name": "allow-granted", "when": "has(principal.grant)", "then": "allow"})
        usual["connections"][0]["policies"] = ["allow-granted"]

    offices = replicas(kafka, change=with_grants)
    desks = [Desk(one.gateway, one.oidc, one.upstream) for one in offices]
    grant = desks[0].grant(max_uses=1)
    with ThreadPoolExecutor(48) as pool:
        replies = list(pool.map(lambda n: call(desks[n % 3].url, grant, prompt("hello"), seconds=60), range(uses)))
    codes = Counter(reply.status if reply.status != 403 else reply.code for reply in replies)
    assert codes == {200: 1, "grant_used_up": uses - 1}, codes
    assert len(upstream.requests) == 1
    # A grant that is revoked on one replica counts on none.
    other = desks[0].grant(max_uses=5)
    assert call(desks[1].url, other, prompt("hello")).status == 200
    began = time.monotonic()
    assert desks[2].post("/oauth2/revoke", {"token": other})[0] == 200
    for desk in desks:
        wait_until("it counts here no more", lambda: call(desk.url, other, prompt("hello")).code == "grant_revoked", 1)
    assert time.monotonic() - began < 3


def test_a_kafka_that_is_gone_lets_no_grant_be_used(tmp_path, replicas, upstream):
    key = keygen(tmp_path / "grants.key")

    def with_grants(usual):
        rule = {"name": "engineers", "when": '"engineers" in principal.groups', "connections": ["openai"], "lifetime": "1h"}
        usual["grants"] = {"issuer": ISSUER, "keys": [key], "rules": [rule]}
        usual["policies"].append({"name": "allow-granted", "when": "has(principal.grant)", "then": "allow"})
        usual["connections"][0]["policies"] = ["allow-granted"]

    with broker(tmp_path) as kafka:
        (one,) = replicas(kafka, names=("a",), change=with_grants)
        desk = Desk(one.gateway, one.oidc, one.upstream)
        grant = desk.grant(max_uses=5)
        assert call(desk.url, grant, prompt("hello")).status == 200
        kafka.stop()
        refused = call(desk.url, grant, prompt("hello"), seconds=60)
        assert refused.status == 503 and refused.code == "grants_unavailable", refused
        assert len(upstream.requests) == 1


# --- Bound to a key


def test_a_grant_that_is_bound_to_a_key_is_worth_nothing_without_it(oidc, tmp_path):
    usual = office(oidc, tmp_path)
    usual["connections"][0]["match"]["hosts"] = ["127.0.0.1"]
    with Upstream(chat("fine")) as upstream, Gateway(tmp_path, usual, upstream.port) as gateway:
        desk, key, thief = Desk(gateway, oidc, upstream), ProofKey(), ProofKey()
        here, path = f"{ISSUER}/oauth2/token", "/v1/chat/completions"
        erin = desk.token("erin", ["engineers"])
        proof = key.proof("POST", here)
        status, told = desk.ask(erin, {"dpop": proof}, max_uses=2)
        assert (status, told["token_type"]) == (200, "DPoP")
        grant = told["access_token"]
        assert claims(grant)["cnf"] == {"jkt": key.jkt}
        (issued,) = desk.told("issued")
        assert issued["boundTo"] == key.jkt

        # The proof was used, and one must be for our token endpoint.
        for wrong, code in [(proof, "proof_replayed"), (key.proof("POST", f"{ISSUER}/oauth2/other"), "proof_wrong_url"),
                            (key.proof("GET", here), "proof_wrong_method"), (key.proof("POST", here, iat=0), "proof_stale")]:
            status, told = desk.ask(erin, {"dpop": wrong})
            assert (status, told["error"], told["code"]) == (400, "invalid_dpop_proof", code)

        def use(by, scheme="DPoP", **changed):
            headers = {"authorization": f"{scheme} {grant}"}
            if by:
                headers["dpop"] = by.proof("POST", gateway.envoy.url + path, grant, **changed)
            reply = call(gateway.envoy.url, headers=headers, path=path)
            return reply.status, None if reply.status == 200 else reply.code

        assert use(None, "Bearer") == (401, "token_bound_to_key")
        assert use(None) == (401, "proof_missing")
        assert use(thief) == (401, "proof_wrong_key")
        assert use(key, ath=None) == (401, "proof_token_missing")
        assert upstream.requests == []
        # None of these was a use.
        assert [use(key), use(key), use(key)] == [(200, None), (200, None), (403, "grant_used_up")]

        # A token that is bound gets a grant for who has its key, and that grant is bound to it too.
        bound = desk.token("erin", ["engineers"], cnf={"jkt": key.jkt})
        for proof, error, code in [(None, "invalid_dpop_proof", "proof_missing"), (thief.proof("POST", here), "invalid_grant", "proof_wrong_key")]:
            status, told = desk.ask(bound, {"dpop": proof} if proof else None)
            assert (status, told["error"], told["code"]) == (400, error, code)
        status, told = desk.ask(bound, {"dpop": key.proof("POST", here)})
        assert (status, told["token_type"], claims(told["access_token"])["cnf"]) == (200, "DPoP", {"jkt": key.jkt})
        metadata = desk.read("/.well-known/oauth-authorization-server")[1]
        assert "ES256" in metadata["dpop_signing_alg_values_supported"]
