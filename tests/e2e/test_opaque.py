"""Tokens that say nothing themselves: the certified provider is asked about them (RFC 7662)."""

import contextlib
import hashlib
import http.server
import json
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from stack import Gateway, OidcProvider, config, wait_until
from stack.caller import call, prompt
from stack.proofs import ProofKey
from stack.upstream import chat


def asking(issuer: str, work, secret: str = "s3cret", **more) -> dict:
    """The usual configuration, with the provider asked about opaque tokens."""
    file = work / "client.secret"
    file.write_text(secret + "\n")
    usual = config(issuer, work)
    (trusted,) = usual["identity"]["issuers"]
    trusted["introspection"] = {"client_id": "gateway", "client_secret": {"file": str(file)}, **more}
    return usual


@pytest.fixture
def desk(tmp_path, oidc, upstream):
    upstream.answer = chat("Hello.")
    with Gateway(tmp_path, asking(oidc.issuer, tmp_path), upstream.port) as running:
        yield running


def counted(gateway, issuer: str) -> dict[str, float]:
    """What the metrics say of the issuer, by name."""
    samples = {name: value for name, value in gateway.countersign.metrics().items() if name.startswith("countersign_issuer_") and issuer in name}
    return {name.removeprefix("countersign_issuer_").split("{")[0].removesuffix("_total"): value for name, value in samples.items()}


def test_an_opaque_token_names_its_caller_to_policy_and_record(desk, oidc, upstream):
    token = oidc.opaque_token()
    assert "." not in token
    assert call(desk.envoy.url, token).status == 200
    assert call(desk.envoy.url, token).status == 200
    denied = call(desk.envoy.url, oidc.opaque_token("bob-app"))
    assert (denied.status, denied.code) == (403, "policy_denied")
    assert len(upstream.requests) == 2
    assert all(token not in json.dumps(dict(request.headers)) for request in upstream.requests), "the caller's token went upstream"
    identity = next(record["opened"]["identity"] for record in desk.countersign.records() if "opened" in record)
    assert (identity["authMethod"], identity["issuer"], identity["subject"], identity["groups"]) == ("oidc_introspection", oidc.issuer, "alice-app", ["finance"])
    assert identity["tokenHash"] == hashlib.sha256(token.encode()).hexdigest()
    assert token not in json.dumps(desk.countersign.records())
    said = counted(desk, oidc.issuer)
    assert (said["tokens_accepted"], said["tokens_accepted_from_memory"], said["introspections"], said["introspection_failures"]) == (3, 1, 2, 0)


class Slow(http.server.BaseHTTPRequestHandler):
    """An issuer that thinks about every token until it is told to go on."""

    go_on = threading.Event()

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.go_on.wait(10)
        self.send_response(200)
        self.send_header("content-length", "17")
        self.end_headers()
        with contextlib.suppress(ConnectionError):
            self.wfile.write(b'{"active": false}')

    def log_message(self, *_):
        pass


def test_strangers_whose_tokens_are_asked_about_leave_room_for_callers(tmp_path, oidc, upstream):
    upstream.answer = chat("Hello.")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Slow)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    asked = asking(oidc.issuer, tmp_path, url=f"http://127.0.0.1:{server.server_port}/introspect")
    asked["limits"] = {"memory": "6MiB", "request_body": "1MiB", "response_body": "1MiB"}
    long = json.dumps(prompt("x" * 600_000)).encode()
    try:
        with Gateway(tmp_path, asked, upstream.port) as gateway, ThreadPoolExecutor(8) as pool:
            url, token = gateway.envoy.url, oidc.token()
            assert call(url, token).status == 200
            strangers = [pool.submit(call, url, f"made-up-{n}", long) for n in range(8)]
            held = lambda: gateway.countersign.metrics()["countersign_held_bytes"]  # noqa: E731
            wait_until("they hold what they may", lambda: held() > 600_000)
            for _ in range(20):
                assert call(url, token, prompt("y" * 100_000)).status == 200
            assert 600_000 < held() <= 1 << 20
            Slow.go_on.set()
            assert {stranger.result(30).status for stranger in strangers} == {401}
    finally:
        server.shutdown()
        server.server_close()


def test_signed_tokens_of_the_same_issuer_are_not_asked_about(desk, oidc):
    assert call(desk.envoy.url, oidc.token()).status == 200
    said = counted(desk, oidc.issuer)
    assert (said["tokens_accepted"], said["introspections"], said["available"], said["keys"]) == (1, 0, 1, 1)
    assert said["keys_age_seconds"] < 300 and said["key_fetches"] == 1 and said["key_fetch_failures"] == 0


def test_made_up_revoked_and_foreign_tokens_are_401(desk, oidc, upstream):
    revoked = oidc.opaque_token()
    oidc.revoke(revoked)
    for token, code in [("made-up", "token_inactive"), (revoked, "token_inactive"), (oidc.opaque_token(audience="urn:other"), "audience_wrong")]:
        for _ in range(2):
            reply = call(desk.envoy.url, token)
            assert (reply.status, reply.code) == (401, code)
            assert 'error="invalid_token"' in reply.header("www-authenticate")
    assert upstream.requests == []
    said = counted(desk, oidc.issuer)
    assert (said["tokens_refused"], said["introspections"]) == (6, 3), "a refusal is remembered for a while"


def test_an_opaque_token_that_is_bound_to_a_key_counts_with_its_proof_only(tmp_path, oidc, upstream):
    upstream.answer = chat("Hello.")
    usual = asking(oidc.issuer, tmp_path)
    usual["connections"][0]["match"]["hosts"] = ["127.0.0.1"]  # a proof is for a host, so it must be known
    with Gateway(tmp_path, usual, upstream.port) as running:
        key, url = ProofKey(), running.envoy.url
        token = oidc.opaque_token(proof=key.proof("POST", f"{oidc.issuer}/token"))
        bearer = call(url, token)
        assert (bearer.status, bearer.code) == (401, "token_bound_to_key")
        without = call(url, headers=[("authorization", f"DPoP {token}")])
        assert (without.status, without.code) == (401, "proof_missing")
        assert upstream.requests == []
        proof = key.proof("POST", f"{url}/v1/chat/completions", token)
        assert call(url, headers=[("authorization", f"DPoP {token}"), ("DPoP", proof)]).status == 200


def test_an_issuer_without_algorithms_is_asked_about_every_token(tmp_path, oidc, upstream):
    upstream.answer = chat("Hello.")
    usual = asking(oidc.issuer, tmp_path)
    del usual["identity"]["issuers"][0]["algorithms"]
    with Gateway(tmp_path, usual, upstream.port) as running:
        assert call(running.envoy.url, oidc.opaque_token()).status == 200
        # This provider answers no question about signed tokens, so it says nothing good of them, however well they are signed.
        reply = call(running.envoy.url, oidc.token())
        assert (reply.status, reply.code) == (503, "issuer_unavailable")
        said = counted(running, oidc.issuer)
        assert (said["available"], said["keys"], said["key_fetches"]) == (1, 0, 0)
        assert (said["introspections"], said["introspection_failures"]) == (2, 1)
    assert len(upstream.requests) == 1


def test_where_no_issuer_is_asked_an_opaque_token_is_no_token(gateway, oidc, upstream):
    reply = call(gateway().envoy.url, oidc.opaque_token())
    assert (reply.status, reply.code) == (401, "token_not_jws")
    assert upstream.requests == []


def test_a_wrong_secret_is_503_and_stands_in_no_log(tmp_path, oidc, upstream):
    with Gateway(tmp_path, asking(oidc.issuer, tmp_path, secret="wr0ng-canary"), upstream.port) as running:
        token = oidc.opaque_token()
        reply = call(running.envoy.url, token)
        assert (reply.status, reply.code) == (503, "issuer_unavailable") and reply.header("retry-after")
        said = counted(running, oidc.issuer)
        assert (said["introspections"], said["introspection_failures"]) == (1, 1)
        log = running.countersign.log_text()
        assert "cannot ask the issuer about tokens" in log
        assert "canary" not in log and token not in log
        # The right one, once it is there, is used without a restart.
        (tmp_path / "client.secret").write_text("s3cret\n")
        wait_until("the new secret is used", lambda: call(running.envoy.url, token).status in (200, 502), 30, every=0.5)
        assert len(upstream.requests) >= 1


def test_a_provider_that_goes_away_is_503_and_comes_back_by_itself(tmp_path, upstream):
    upstream.answer = chat("Hello.")
    provider = OidcProvider(tmp_path).start()
    try:
        with Gateway(tmp_path, asking(provider.issuer, tmp_path), upstream.port) as running:
            remembered, token = provider.opaque_token(), provider.opaque_token()
            assert call(running.envoy.url, remembered).status == 200
            provider.stop()
            reply = call(running.envoy.url, token)
            assert (reply.status, reply.code) == (503, "issuer_unavailable")
            assert call(running.envoy.url, remembered).status == 200, "for a minute it is remembered"
            provider.start()
            fresh = provider.opaque_token()
            wait_until("it is asked again", lambda: call(running.envoy.url, fresh).status == 200, 30, every=0.5)
    finally:
        provider.stop()
