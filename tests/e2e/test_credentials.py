"""Upstream credentials from every source, while they rotate, expire, and cannot be had; and that nobody but the upstream ever sees one."""

import base64
import contextlib
import copy
import http.client
import itertools
import json
import re
import secrets
import signal
import threading
import time
import urllib.parse
from concurrent.futures import ThreadPoolExecutor

import pytest
from conftest import kind
from stack import UPSTREAM_KEY, Answer, Gateway, OidcProvider, Upstream, Vault, config, free_port, wait_until
from stack.caller import call, prompt, text_of
from stack.oidc import AUDIENCE, claims
from stack.upstream import chat
from test_approvals import RISKY, Office, office

PATH = "/v1/chat/completions"


@pytest.fixture(scope="module")
def vault(work):
    """One for the tests that only read, each at a path of its own."""
    with Vault(work) as running:
        yield running


def hold(path, text: str) -> dict:
    path.write_text(text + "\n")
    return {"file": str(path)}


def in_vault(vault, path: str, token: dict, **more) -> dict:
    return {"vault": {"address": vault.url, "path": path, "field": "key", "token": token, "refresh": "1s", **more}}


def by_oauth2(oidc, client: str, work, **more) -> dict:
    secret = hold(work / "client.secret", "s3cret")
    return {"oauth2": {"token_url": f"{oidc.issuer}/token", "client_id": client, "client_secret": secret, "scope": "chat", **more}}


@pytest.fixture
def lending(tmp_path, oidc, upstream):
    """A gateway that lends these: `lending(x={…})` has the connection `x` below `/x/v1`; without a name, the usual one."""
    started = []

    def start(**credentials):
        work = tmp_path / f"gateway-{len(started)}"
        work.mkdir()
        usual = config(oidc.issuer, work)
        (template,) = usual["connections"]
        usual["policies"].append({"name": "allow-all", "when": '"finance" in principal.groups', "then": {"allow": {}}})

        def connection(name, credential):
            path = "/v1" if name == "openai" else f"/{name}/v1"
            return {**template, "name": name, "match": {"path_prefix": path}, "policies": ["block-interns", "mask-personal", "allow-all"],
                    "credential": {"header": "authorization", **credential}}

        usual["connections"] = [connection(*entry) for entry in credentials.items()]
        running = Gateway(work, usual, upstream.port).start()
        started.append(running)
        return running

    yield start
    for running in started:
        running.stop()


def state(gateway, part: str) -> dict[str, float]:
    """A metric of every source, by the source's name."""
    found = {}
    for name, value in gateway.countersign.metrics().items():
        if name.split("{")[0].removesuffix("_total") == f"countersign_{part}":
            found[name.split('credential="')[1].split('"')[0]] = value
    return found


def lent(upstream) -> str:
    return upstream.last.header("authorization").removeprefix("Bearer ")


def test_a_credential_comes_from_each_source(tmp_path, lending, oidc, upstream, tokens, vault, monkeypatch):
    upstream.answer = chat("Hello.")
    monkeypatch.setenv("TEST_UPSTREAM_KEY", "sk-of-the-environment")
    vault.put("each/openai", key="sk-of-vault", other="sk-not-this-one")
    vault.trust(f"{oidc.issuer}/jwks", AUDIENCE, "each/openai")
    token = hold(tmp_path / "vault.token", vault.reader("each/openai"))
    hold(tmp_path / "pod.jwt", oidc.token("sre-app"))
    with Vault(tmp_path / "tls", tls=True) as secure:
        secure.put("each/openai", key="sk-of-vault-by-tls")
        by_tls = in_vault(secure, "each/openai", hold(tmp_path / "tls.token", secure.root), ca_file=str(secure.ca_file))
        by_login = in_vault(vault, "each/openai", token, login={"role": "gateway", "jwt_file": str(tmp_path / "pod.jwt")})
        del by_login["vault"]["token"]
        gateway = lending(
            file=hold(tmp_path / "upstream.key", "sk-of-a-file"),
            env={"env": "TEST_UPSTREAM_KEY"},
            vault=in_vault(vault, "each/openai", token),
            login=by_login,
            tls=by_tls,
            oauth2=by_oauth2(oidc, "sre-app", tmp_path),
        )
        expected = {"file": "sk-of-a-file", "env": "sk-of-the-environment", "vault": "sk-of-vault", "login": "sk-of-vault", "tls": "sk-of-vault-by-tls"}
        for name in [*expected, "oauth2"]:
            # The very first request: a start waits for the sources' first answers.
            reply = call(gateway.envoy.url, tokens(), path=f"/{name}{PATH}")
            assert reply.status == 200, (name, reply)
            if name in expected:
                assert lent(upstream) == expected[name], name
            else:
                said = claims(lent(upstream))
                assert (said["sub"], said["groups"], said["scope"]) == ("sre-app", ["sre"], "chat")
        assert set(state(gateway, "credential_usable").values()) == {1}
        # What is read with a token and after a login is the same secret, so it has one name.
        assert len(state(gateway, "credential_usable")) == 5
        assert sum(state(gateway, "credential_failures").values()) == 0


def test_an_untrusted_certificate_is_not_believed(tmp_path, lending, upstream, tokens):
    with Vault(tmp_path / "tls", tls=True) as secure:
        secure.put("openai", key="sk-of-vault")
        gateway = lending(openai=in_vault(secure, "openai", hold(tmp_path / "token", secure.root)))
        reply = call(gateway.envoy.url, tokens())
    assert (reply.status, reply.code) == (503, "credential_unavailable")
    assert "certificate" in gateway.countersign.log_text() and upstream.requests == []


class Flow:
    """Callers that ask again and again, each on connections of its own, until the end of the block; `replies` is what they got."""

    def __init__(self, url, token, bodies, path=PATH):
        self.replies, self._over = [], threading.Event()

        def ask(body):
            while not self._over.is_set():
                self.replies.append((body, call(url, token, body, path=path)))

        self._callers = [threading.Thread(target=ask, args=(body,)) for body in bodies]

    def __enter__(self):
        for caller in self._callers:
            caller.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        for caller in self._callers:
            caller.join(30)
            assert not caller.is_alive()


def test_a_key_rotates_in_vault_while_requests_flow(tmp_path, lending, upstream, tokens, vault):
    keys = [f"sk-rotation-{n}-{secrets.token_hex(6)}" for n in range(5)]
    seen = []

    def echo(request):
        key = request.header("authorization").removeprefix("Bearer ")
        seen.append(key)
        return chat(f"Your key is {key}, keep it.", size=5)(request)

    upstream.answer = echo
    vault.put("rotating", key=keys[0])
    gateway = lending(openai=in_vault(vault, "rotating", hold(tmp_path / "token", vault.reader("rotating"))))
    with Flow(gateway.envoy.url, tokens(), [prompt(stream=True), prompt()]) as flow:
        for key in keys:
            vault.put("rotating", key=key)
            wait_until("the new key is lent", lambda: key in seen[-1:], 20)
    assert len(flow.replies) > 10 and {reply.status for _, reply in flow.replies} == {200}
    # Whatever was lent is what was looked for, in every answer.
    for body, reply in flow.replies:
        text = text_of(reply.body) if body.get("stream") else reply.json["choices"][0]["message"]["content"]
        assert text == "Your key is [UPSTREAM_CREDENTIAL], keep it."
    assert seen == sorted(seen, key=keys.index) or len(set(seen)) == len(keys)
    assert "sk-rotation" not in json.dumps(gateway.countersign.records())


def test_tokens_expire_while_requests_flow(tmp_path, lending, upstream, tokens):
    with OidcProvider(tmp_path / "own", clients={"gateway": {}}, ttl=4) as provider:
        late, seen = [], set()

        def strict(request):
            token = request.header("authorization").removeprefix("Bearer ")
            seen.add(token)
            if claims(token)["exp"] <= time.time():
                late.append(token)
                return Answer.json({"error": {"message": "expired", "type": "auth", "param": None, "code": "expired"}}, 401)
            return chat("Hello.")(request)

        upstream.answer = strict
        gateway = lending(openai=by_oauth2(provider, "gateway", tmp_path))
        with Flow(gateway.envoy.url, tokens(), [prompt(), prompt()]) as flow:
            wait_until("five tokens were lent", lambda: len(seen) >= 5, 40)
        assert {reply.status for _, reply in flow.replies} == {200} and late == []
        # One at a time, however many ask: about as many fetches as tokens.
        (fetches,) = state(gateway, "credential_fetches").values()
        assert fetches <= len(seen) + 1

        # The server goes away: what there is is lent to its end and no longer, and comes back with the server.
        provider.stop()
        refused = wait_until("it is refused", lambda: (r := call(gateway.envoy.url, tokens())).status != 200 and r, 20)
        assert (refused.status, refused.code) == (503, "credential_unavailable") and late == []
        assert state(gateway, "credential_usable") == {name: 0 for name in state(gateway, "credential_usable")}
        provider.start()
        wait_until("it is lent again", lambda: call(gateway.envoy.url, tokens()).status == 200, 60)


def test_a_vault_that_is_down_at_the_start_holds_nobody_up(tmp_path, lending, upstream, tokens):
    upstream.answer = chat("Hello.")
    late = Vault(tmp_path / "late")
    gateway = lending(
        openai=in_vault(late, "openai", hold(tmp_path / "token", late.root)),
        file=hold(tmp_path / "upstream.key", "sk-of-a-file"),
    )
    reply = call(gateway.envoy.url, tokens(), prompt("my number is 536-22-8145"))
    assert (reply.status, reply.code, reply.header("retry-after")) == (503, "credential_unavailable", "1")
    assert upstream.requests == []
    (record,) = [r for r in gateway.countersign.records() if r.get("session") == reply.session]
    assert kind(record) == "refused" and record["refused"]["decision"]["code"] == "credential_unavailable"
    assert record["refused"]["request"]["findings"] == {"US_SSN": 1}
    # Who may not call learns nothing of it, and other connections are none the worse.
    assert call(gateway.envoy.url, tokens("bob-app")).code == "policy_denied"
    assert call(gateway.envoy.url, tokens(), path=f"/file{PATH}").status == 200
    with late:
        late.put("openai", key="sk-late")
        wait_until("it is lent", lambda: call(gateway.envoy.url, tokens()).status == 200, 60)
        assert lent(upstream) == "sk-late"
    # It is gone again: what was read goes on.
    failures = sum(state(gateway, "credential_failures").values())
    wait_until("it was asked in vain", lambda: sum(state(gateway, "credential_failures").values()) > failures)
    assert call(gateway.envoy.url, tokens()).status == 200 and lent(upstream) == "sk-late"
    assert gateway.countersign.verify().returncode == 0


def test_a_key_that_is_deleted_in_vault_is_lent_no_more(tmp_path, lending, upstream, tokens, vault):
    upstream.answer = chat("Hello.")
    vault.put("withdrawn", key="sk-withdrawn")
    gateway = lending(openai=in_vault(vault, "withdrawn", hold(tmp_path / "token", vault.root)))
    assert call(gateway.envoy.url, tokens()).status == 200
    vault.delete("withdrawn")
    reply = wait_until("it is refused", lambda: (r := call(gateway.envoy.url, tokens())).status == 503 and r)
    assert reply.code == "credential_unavailable"
    vault.put("withdrawn", key="sk-put-again")
    wait_until("it is lent again", lambda: call(gateway.envoy.url, tokens()).status == 200)
    assert lent(upstream) == "sk-put-again"


def test_models_of_one_connection_never_get_each_others_key(tmp_path, lending, upstream, tokens, vault):
    """Three sources that all rotate while eight callers ask for three models: every request carries a key of its own model."""
    pairs = []

    def note(request):
        pairs.append((request.json["model"], request.header("authorization").removeprefix("Bearer ")))
        return chat("Hello.", model=request.json["model"])(request)

    upstream.answer = note
    names = {"gpt-4o-mini": "own", "o3-pro": "file", "GPT-5": "vault", "gpt-4o": "own"}
    own, other = tmp_path / "own.key", tmp_path / "other.key"
    hold(own, "sk-own-0")
    hold(other, "sk-file-0")
    vault.put("models", key="sk-vault-0")
    in_the_vault = in_vault(vault, "models", hold(tmp_path / "token", vault.reader("models")))
    gateway = lending(openai={"file": str(own), "models": [
        {"models": ["o3*"], "file": str(other)},
        {"models": ["gpt-5", "gpt-5-*"], **in_the_vault},
    ]})
    bodies = [prompt(model=model, stream=stream) for model in names for stream in (False, True)]
    with Flow(gateway.envoy.url, tokens(), bodies) as flow:
        for n in range(1, 4):
            hold(own, f"sk-own-{n}")
            hold(other, f"sk-file-{n}")
            vault.put("models", key=f"sk-vault-{n}")
            for source in ("own", "file", "vault"):
                wait_until(f"key {n} of {source} is lent", lambda: any(key == f"sk-{source}-{n}" for _, key in pairs[-400:]), 30)
    assert {reply.status for _, reply in flow.replies} == {200}
    assert len(pairs) > 40 and {model for model, _ in pairs} == set(names)
    wrong = [(model, key) for model, key in pairs if not key.startswith(f"sk-{names[model]}-")]
    assert wrong == []


def test_a_reload_keeps_what_did_not_change(tmp_path, lending, oidc, upstream, tokens):
    upstream.answer = chat("Hello.")
    gateway = lending(openai=by_oauth2(oidc, "sre-app", tmp_path), other=hold(tmp_path / "other.key", "sk-other"))
    assert call(gateway.envoy.url, tokens()).status == 200
    before = lent(upstream)
    changed = copy.deepcopy(gateway.countersign.config)
    changed["connections"][0]["credential"]["models"] = [{"models": ["o3"], "file": str(tmp_path / "other.key")}]
    changed["connections"][1]["credential"] = {"header": "x-api-key", **by_oauth2(oidc, "nobody-app", tmp_path)}
    gateway.countersign.write(changed)
    gateway.countersign.signal(signal.SIGHUP)
    wait_until("the new credential is lent", lambda: call(gateway.envoy.url, tokens(), prompt(model="o3")).status == 200 and lent(upstream) == "sk-other")
    assert call(gateway.envoy.url, tokens()).status == 200 and lent(upstream) == before, "a good token was thrown away"
    # And the connection that changed its source was never without one.
    assert call(gateway.envoy.url, tokens(), path=f"/other{PATH}").status == 200
    assert claims(upstream.last.header("x-api-key"))["sub"] == "nobody-app"
    # What is not named any more is not measured any more, once its last request is over.
    assert "file:" + str(tmp_path / "other.key") in state(gateway, "credential_usable")
    fetches = state(gateway, "credential_fetches")
    assert [n for name, n in fetches.items() if name.startswith("oauth2:")] == [1, 1], fetches


def test_an_approval_outlives_the_rotation_of_its_key_but_not_another_key(tmp_path, oidc, upstream, vault):
    upstream.answer = chat("Hello.")
    vault.put("approved", key="sk-when-asked")
    usual = office(oidc, tmp_path)
    lent_now = {"header": "authorization", **in_vault(vault, "approved", hold(tmp_path / "token", vault.root))}
    usual["connections"][0]["credential"] = lent_now
    with Gateway(tmp_path, usual, upstream.port) as gateway, ThreadPoolExecutor(1) as pool:
        desk = Office(gateway, oidc, upstream)
        alice = desk.token()

        def ask(n: int):
            return pool.submit(call, desk.url, alice, prompt(f"{RISKY} {n}"))

        def until_lent(key: str | None):
            wait_until(f"{key} is lent", lambda: call(desk.url, alice).status == (200 if key else 503) and (not key or lent(upstream) == key))

        asked = ask(1)
        (approval,) = desk.wait_for()
        vault.put("approved", key="sk-when-released")
        until_lent("sk-when-released")
        assert desk.decide(approval)[0] == 200
        assert asked.result(30).status == 200 and lent(upstream) == "sk-when-released"

        # Withdrawn while it was decided: nothing goes, nothing is spent, and the same request goes once the key is there again.
        asked = ask(2)
        (approval,) = desk.wait_for()
        vault.delete("approved")
        until_lent(None)
        seen = len(upstream.requests)
        assert desk.decide(approval)[0] == 200
        reply = asked.result(30)
        assert (reply.status, reply.code) == (503, "credential_unavailable") and len(upstream.requests) == seen
        vault.put("approved", key="sk-again")
        until_lent("sk-again")
        assert ask(2).result(30).status == 200 and lent(upstream) == "sk-again"
        assert desk.pending() == []

        # Another secret was not what was approved.
        asked = ask(3)
        (approval,) = desk.wait_for()
        changed = copy.deepcopy(gateway.countersign.config)
        vault.put("another", key="sk-another")
        changed["connections"][0]["credential"]["vault"]["path"] = "another"
        gateway.countersign.write(changed)
        until_lent("sk-another")
        seen = len(upstream.requests)
        assert desk.decide(approval)[0] == 200
        reply = asked.result(30)
        assert (reply.status, reply.code) == (403, "approval_mismatch") and len(upstream.requests) == seen


ECHOES = {
    "a refusal": lambda secret: Answer.json({"errors": [f"permission denied for {secret}"], "error": secret}, 403),
    "an oauth2 error": lambda secret: Answer.json({"error": "invalid_client", "error_description": f"no client with {secret}"}, 401),
    "html": lambda secret: Answer(200, {"content-type": "text/html"}, [f"<html>{secret}</html>".encode()]),
    "a huge body": lambda secret: Answer(200, {"content-type": "application/json"}, [secret.encode() * 200_000]),
    "a redirect": lambda secret: Answer(302, {"location": f"http://127.0.0.1:1/{secret}"}),
    "a token of another type": lambda secret: Answer.json({"access_token": secret, "token_type": f"mac {secret}", "expires_in": secret}),
    "a value for no header": lambda secret: Answer.json({"data": {"data": {"key": f"{secret}\r\nx: y"}}, "access_token": f"{secret}\n", "token_type": "Bearer"}),
    "a field of another shape": lambda secret: Answer.json({"data": {"data": {"key": {secret: [secret]}}, secret: secret}}),
    "a header": lambda secret: Answer(500, {"x-echo": secret}),
    "an end too soon": lambda secret: Answer(200, {"content-type": "application/json"}, [f'{{"access_token":"{secret}'.encode()], break_off=True),
}


def sent(request) -> str:
    """The secret a source's server was asked with."""
    token = request.header("x-vault-token")
    if token:
        return token
    basic = request.header("authorization")
    if basic:
        return urllib.parse.unquote(base64.b64decode(basic.split()[1]).decode().split(":")[1])
    return urllib.parse.parse_qs(request.body.decode())["client_secret"][0]


def test_only_the_upstream_ever_sees_a_secret(tmp_path, lending, oidc, upstream, tokens, vault, monkeypatch):
    """A canary in every source, and servers that do their worst with it; then everything that was written or said is searched."""
    canaries = {name: f"canary-{name}-{secrets.token_hex(10)}" for name in [
        "file", "env", "vault-value", "oauth2-secret", "oauth2-post-secret", "oauth2-token", "echoed-vault-token", "echoed-client-secret"]}
    held = tmp_path / "held"  # the only place on disk where they may be
    held.mkdir()
    holds = {name: hold(held / name, value) for name, value in canaries.items()}
    monkeypatch.setenv("TEST_CANARY", canaries["env"])
    monkeypatch.setenv("RUST_LOG", "trace")  # whatever any part could ever tell
    vault.put("canary", key=canaries["vault-value"])
    canaries["vault-token"] = vault.reader("canary")
    holds["vault-token"] = hold(held / "vault-token", canaries["vault-token"])

    def issue(request):
        assert sent(request) in (canaries["oauth2-secret"], canaries["oauth2-post-secret"])
        return Answer.json({"access_token": canaries["oauth2-token"], "token_type": "Bearer", "expires_in": 4})

    echoes = itertools.cycle(ECHOES.values())
    told = []

    def echo(request):
        told.append(sent(request))
        return next(echoes)(sent(request))

    with Upstream(issue) as issuer, Upstream(echo) as bad:
        def token_of(server, secret, **more):
            return {"oauth2": {"token_url": f"http://127.0.0.1:{server.port}/token", "client_id": "c", "client_secret": holds[secret], **more}}

        class Bad:
            url = f"http://127.0.0.1:{bad.port}"

        gateway = lending(
            file=holds["file"], env={"env": "TEST_CANARY"},
            vault=in_vault(vault, "canary", holds["vault-token"]),
            oauth2=token_of(issuer, "oauth2-secret"),
            post=token_of(issuer, "oauth2-post-secret", auth="post"),
            badvault=in_vault(Bad, "canary", holds["echoed-vault-token"]),
            badoauth2=token_of(bad, "echoed-client-secret"),
        )
        good = {"file": "file", "env": "env", "vault": "vault-value", "oauth2": "oauth2-token", "post": "oauth2-token"}

        def parrot(request):
            key = request.header("authorization")
            whole = chat(f"You sent {key}.", size=5)(request)
            return Answer(whole.status, {**whole.headers, "x-echo": key}, whole.pieces)

        def failing(request):
            key = request.header("authorization")
            return Answer.json({"error": {"message": f"bad key {key}", "type": key, "param": None, "code": key}}, 401)

        replies = []
        for name, canary in good.items():
            for answer, body in [(parrot, prompt()), (parrot, prompt(stream=True)), (failing, prompt()), (parrot, prompt(f"I know it: {canaries[canary]}"))]:
                upstream.answer = answer
                reply = call(gateway.envoy.url, tokens(), body, path=f"/{name}{PATH}")
                assert reply.status == (401 if answer is failing else 200), (name, reply)
                assert lent(upstream) == canaries[canary]
                replies.append(reply)
        asked = len(upstream.requests)
        for name in ("badvault", "badoauth2"):
            reply = call(gateway.envoy.url, tokens(), path=f"/{name}{PATH}")
            assert (reply.status, reply.code) == (503, "credential_unavailable")
            replies.append(reply)
        wait_until("the bad servers have shown much of what they can", lambda: len(told) >= 8, 60)
        assert set(told) == {canaries["echoed-vault-token"], canaries["echoed-client-secret"]} and len(upstream.requests) == asked
        places = {path: gateway.countersign.get(path)[1] for path in ("/metrics", "/readyz", "/healthz")}
        # Once more, with panics at each phase, told with all their frames.
        gateway.countersign.stop()
        gateway.countersign.panic_every = 25
        monkeypatch.setenv("RUST_BACKTRACE", "full")
        gateway.countersign.start()
        upstream.answer = parrot
        phases = {"request_headers", "authenticated", "request_body", "recorded", "response_headers", "response_body"}

        def everywhere():
            for name in good:
                with contextlib.suppress(OSError, http.client.HTTPException):
                    replies.append(call(gateway.envoy.url, tokens(), prompt(stream=True), path=f"/{name}{PATH}"))
            found = set(re.findall(r"injected (?:before|behind) (\w+)", gateway.countersign.log_text()))
            return found >= phases and any(reply.status == 200 for reply in replies[-len(good):])

        wait_until("there was a panic at each phase", everywhere, 60)
        places["metrics behind panics"] = gateway.countersign.get("/metrics")[1]
        places["records"] = json.dumps(gateway.countersign.records()).encode()
        places["replies"] = repr(replies).encode()
        gateway.stop()
    for file in sorted(tmp_path.rglob("*")):
        if file.is_file() and held not in file.parents:
            places[str(file)] = file.read_bytes()
    assert any(name.endswith("countersign.log") for name in places) and any("/audit/" in name for name in places), sorted(places)
    log = places[next(name for name in places if name.endswith("countersign.log"))].decode()
    assert log.count("cannot fetch a credential") >= 8, "the log tells of the failures"
    found = [(name, place) for name, canary in canaries.items() for place, text in places.items()
             for shape in (canary.encode(), base64.b64encode(canary.encode())[:-4], canary.encode().hex().encode()) if shape in text]
    assert found == []
