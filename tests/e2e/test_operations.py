"""What an operator sees: health, metrics, limits, checks; and that none of it shows what it must not."""

import contextlib
import json
import re
import shutil
import socket
import threading

import openai
import pytest
import yaml
from conftest import kind
from stack import ROOT, UPSTREAM_KEY, Answer, Gateway, Upstream, config, wait_until
from stack.caller import begin, call, finish, prompt, read_until
from stack.countersign import WrittenOut, run
from stack.upstream import chat, paused


@pytest.fixture
def go_on():
    event = threading.Event()
    yield event
    event.set()


def test_health_readiness_and_metrics(site):
    assert site.countersign.get("/healthz") == (200, b'{"status":"ok"}')
    assert site.countersign.get("/readyz") == (200, b'{"status":"ready"}')
    completed, refused = 'countersign_exchanges_total{connection="openai",outcome="completed"}', 'countersign_refusals_total{connection="openai",code="policy_denied"}'
    before = site.countersign.metrics()
    site.call()
    site.call(client="bob-app")
    site.call(client=None)
    wait_until("all streams are over", lambda: site.countersign.metrics()["countersign_streams"] == 0)
    after = site.countersign.metrics()
    assert after[completed] == before.get(completed, 0) + 1
    assert after[refused] == before.get(refused, 0) + 1
    assert after["countersign_ledger_writable"] == 1
    assert after["countersign_held_bytes"] == 0
    assert after["countersign_exchange_seconds_count"] >= before["countersign_exchange_seconds_count"] + 3


def test_metrics_are_what_prometheus_reads(site):
    text = site.countersign.get("/metrics")[1].decode()
    assert text.endswith("# EOF\n")
    for line in text.splitlines():
        assert line.startswith("# ") or re.fullmatch(r'[a-z_]+(\{([a-z_]+="[^"\n]*",?)*\})? [-+0-9.eEInfNa]+', line), line


def test_nothing_else_is_served_on_the_http_port(site):
    for path in ["/", "/api/v1/sessions", "/debug", "/metrics/../healthz"]:
        assert site.countersign.get(path)[0] in (404, 405), path


def test_who_begins_and_does_not_go_on_keeps_nobody_from_the_api(site):
    host, port = site.countersign.http.split(":")
    with contextlib.ExitStack() as held:
        # All of this machine, but of other addresses.
        begun = [held.enter_context(socket.create_connection((host, int(port)), 10, (f"127.0.0.{2 + turn % 8}", 0))) for turn in range(300)]
        for connection in begun:
            with contextlib.suppress(ConnectionError):
                connection.sendall(b"GET /healthz HTTP/1.1\r\nhost: x\r\nx-slow: ")
        assert site.countersign.get("/readyz") == (200, b'{"status":"ready"}')
        with contextlib.suppress(ConnectionError):
            assert begun[0].recv(1) == b"", "the oldest made room"
        begun[-1].sendall(b"1\r\n\r\n")
        assert begun[-1].recv(100).startswith(b"HTTP/1.1 200")


def test_one_principal_may_have_so_many_streams_and_another_still_gets_in(gateway, upstream, tokens, go_on):
    running = gateway(limits={"streams_per_principal": 2, "streams": 3})
    upstream.answer = lambda request: paused("Wait ", go_on) if request.json.get("stream") else chat("Hello.")(request)
    with contextlib.ExitStack() as stack:
        responses = []
        for _ in range(2):
            connection = stack.enter_context(contextlib.closing(begin(running.envoy.url, tokens(), prompt(stream=True))))
            responses.append(connection.getresponse())
            read_until(responses[-1], b"Wait")
        with pytest.raises(openai.RateLimitError) as error:
            running.openai(tokens()).chat.completions.create(**prompt())
        assert error.value.code == "too_many_streams" and error.value.response.headers["retry-after"]
        third = stack.enter_context(contextlib.closing(begin(running.envoy.url, tokens("carol-app"), prompt(stream=True))))
        read_until(third.getresponse(), b"Wait")
        full = call(running.envoy.url, tokens("sre-app"))
        assert (full.status, full.code) == (503, "overloaded")
        assert len(upstream.requests) == 3
        go_on.set()
        assert all(finish(response).whole for response in responses)
    wait_until("the places are free again", lambda: call(running.envoy.url, tokens()).status == 200)
    refused = [record["refused"]["decision"]["code"] for record in running.countersign.records() if kind(record) == "refused"]
    assert refused[:2] == ["too_many_streams", "overloaded"]


HELD = "countersign_held_bytes"


def test_all_bodies_together_have_a_bound(gateway, upstream, tokens):
    running = gateway(limits={"memory": "3MiB", "request_body": "1MiB", "response_body": "1MiB"})
    upstream.answer = chat("Hello.")
    half = json.dumps(prompt("a" * 700_000)).encode()
    host, port = running.envoy.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), 20) as slow:
        slow.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\nconnection: close\r\n"
                     b"authorization: Bearer %s\r\ncontent-length: %d\r\n\r\n%s" % (tokens().encode(), len(half), half[:-1]))
        wait_until("most of it is held", lambda: running.countersign.metrics()[HELD] > 600_000)
        # Deciding on it takes three times its size.
        reply = call(running.envoy.url, tokens("carol-app"), prompt("b" * 900_000))
        assert (reply.status, reply.code) == (503, "overloaded") and upstream.requests == []
        assert call(running.envoy.url, tokens(), prompt("small")).status == 200, "there is room for one that fits"
        slow.sendall(half[-1:])
        assert slow.recv(100).startswith(b"HTTP/1.1 200")
    wait_until("all is given back", lambda: running.countersign.metrics()[HELD] == 0)


def test_the_bodies_of_one_principal_leave_room_for_anothers(gateway, upstream, tokens):
    running = gateway(limits={"memory": "6MiB", "request_body": "1MiB", "response_body": "1MiB"})
    upstream.answer = chat("Hello.")
    body = json.dumps(prompt("a" * 900_000)).encode()
    host, port = running.envoy.url.removeprefix("http://").split(":")
    head = (b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\nconnection: close\r\n"
            b"authorization: Bearer %s\r\ncontent-length: %d\r\n\r\n" % (tokens().encode(), len(body)))
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(socket.create_connection((host, int(port)), 20)) for _ in range(2)]
        for connection in slow:
            connection.sendall(head + body[:-1])
        wait_until("most of both is held", lambda: running.countersign.metrics()[HELD] > 1_700_000)
        # Deciding on a third takes three times its size, and theirs are three bodies of six.
        reply = call(running.envoy.url, tokens(), prompt("b" * 900_000))
        assert (reply.status, reply.code) == (429, "too_many_streams") and upstream.requests == []
        assert call(running.envoy.url, tokens("carol-app"), prompt("b" * 900_000)).status == 200, "the others' half is free"
        assert call(running.envoy.url, tokens(), prompt("small")).status == 200, "there is room for one that fits"
    wait_until("all is given back", lambda: running.countersign.metrics()[HELD] == 0)
    assert call(running.envoy.url, tokens(), prompt("b" * 900_000)).status == 200


def test_an_answer_over_the_cap_is_not_passed(gateway, upstream, tokens):
    running = gateway(limits={"response_body": "64KiB"})
    upstream.answer = chat("a" * 200_000)
    reply = call(running.envoy.url, tokens())
    assert (reply.status, reply.code) == (502, "response_too_large") and b"aaaa" not in reply.body
    (closed,) = [record["closed"] for record in running.countersign.records() if kind(record) == "closed"]
    assert (closed["outcome"], closed["code"]) == ("refused_response", "response_too_large")


# --- secrets ---

CANARIES = {
    "card": "4111 1111 1111 1111", "ssn": "536-22-8145", "staff number": "EMP-471100", "email": "canary.mail@example.org",
    "aws key": "AKIAIOSFODNN7CANARY7", "card in the answer": "5555 5555 5555 4444", "ssn in the answer": "457-55-5462",
    "key of the caller": "sk-canary-callers-key", "cookie": "canary-cookie-value", "query key": "canary-query-key",
    "header": "canary-header-value", "upstream key": UPSTREAM_KEY,
}


def test_no_secret_is_in_any_sink(oidc, tokens, kafka, tmp_path):
    """Logs at their most talkative, metrics, the whole ledger directory, the topic, Envoy's log: none holds any canary."""
    topic = "canaries"
    kafka.create_topic(topic)

    def echoes(request):
        headers = [pair for pair in request.headers if pair[0] != "x-canary"]  # a word like any other, once a model says it
        said = json.dumps([headers, request.json])[:4000]
        return chat(f"{CANARIES['card in the answer']} {CANARIES['ssn in the answer']} {UPSTREAM_KEY} {said}", size=5)(request)

    settings = config(oidc.issuer, tmp_path, audit={"kafka": {"brokers": [kafka.address], "topic": topic}})
    text = " / ".join(CANARIES[name] for name in ["card", "ssn", "staff number", "email", "aws key"])
    headers = {"x-api-key": CANARIES["key of the caller"], "cookie": f"a={CANARIES['cookie']}", "x-canary": CANARIES["header"]}
    path = f"/v1/chat/completions?key={CANARIES['query key']}&note={CANARIES['ssn']}"
    with Upstream(echoes) as upstream, Gateway(tmp_path, settings, upstream.port) as running:
        used = [tokens("alice-app"), tokens("bob-app"), tokens("carol-app"), oidc.sign(stolen=False), oidc.sign(exp=1)]
        for token in used:
            for body in [prompt(text), prompt(text, stream=True), json.dumps(prompt(text))[:-1].encode()]:
                call(running.envoy.url, token, body, headers, path=path)
        upstream.answer = Answer(500, {"content-type": "text/plain"}, [text.encode()])
        call(running.envoy.url, tokens(), prompt(text))
        upstream.answer = Answer.sse([f'{{"odd": "{text}"}}'])
        call(running.envoy.url, tokens(), prompt(text, stream=True))
        metrics = running.countersign.get("/metrics")[1]
        running.countersign.write({**running.countersign.config, "policies": []})
        wait_until("the faulty configuration was seen", lambda: "is refused" in running.countersign.log_text())
        assert running.countersign.stop() == 0
        count = len(running.countersign.records())
        sinks = {
            "countersign's log": running.countersign.log.read_bytes(), "envoy's log": running.envoy.log.read_bytes(), "metrics": metrics,
            "the topic": b"".join(message.value() + repr((message.key(), message.headers())).encode() for message in kafka.consume(topic, count)),
            **{str(file): file.read_bytes() for file in running.countersign.audit.rglob("*") if file.is_file()},
        }
    secrets = {**CANARIES, **{f"token {n}": token.split(".")[2] for n, token in enumerate(used)}}
    # Where a value stands with its separators gone, it is no less told.
    secrets |= {f"bare {name}": re.sub(r"[ -]", "", CANARIES[name]) for name in ["card", "ssn", "card in the answer", "ssn in the answer"]}
    found = [(name, sink) for name, secret in secrets.items() for sink, data in sinks.items() if secret.encode() in data]
    assert found == []
    assert count > 20 and b"[CREDIT_CARD]" in sinks["the topic"], "there was something to find"


def test_debug_logs_show_no_more(oidc, tokens, tmp_path):
    settings = config(oidc.issuer, tmp_path)
    with Upstream(chat("The answer is canary-answer.", size=4)) as upstream:
        running = Gateway(tmp_path, settings, upstream.port)
        running.countersign.environment = lambda: {"RUST_LOG": "countersign=trace"}
        with running:
            token = tokens()
            for body in [prompt("canary-prompt"), prompt("canary-prompt", stream=True), b'{"canary-prompt":']:
                call(running.envoy.url, token, body, {"x-canary": "canary-header"})
            log = running.countersign.log_text()
    assert "exchange" in log
    for secret in ["canary", UPSTREAM_KEY, token, token.split(".")[2]]:
        assert secret not in log, secret


def test_a_log_line_names_the_session_its_outcome_and_no_caller_text(site):
    reply = site.call(client="bob-app")

    def line():
        lines = [json.loads(line) for line in site.countersign.log_text().splitlines() if reply.session in line]
        return [said["fields"] for said in lines if said["fields"].get("message") == "exchange"]

    (said,) = wait_until("it is logged", line)
    assert (said["outcome"], said["code"], said["status"], said["connection"]) == ("refused", "policy_denied", 403, "openai")


def test_files_of_the_ledger_are_for_their_owner_only(site):
    for file in [site.countersign.audit, site.countersign.socket, site.countersign.audit / "signing.key"]:
        assert file.stat().st_mode & 0o077 == 0, f"{file} has mode {file.stat().st_mode:o}"
    # Should the operator open the directory to a group, to that group only.
    for file in site.countersign.audit.rglob("*"):
        assert file.name.endswith(".pub") or file.stat().st_mode & 0o027 == 0, f"{file} has mode {file.stat().st_mode:o}"


# --- offline ---


def test_check_takes_the_shipped_examples(tmp_path):
    for name in ["examples/compose/countersign.yaml", "examples/countersign.yaml", "examples/full.yaml"]:
        done = run("check", "--config", ROOT / name, "--json")
        told = json.loads(done.stdout)
        # Files of another machine may be missing here; nothing else may be wrong.
        wrong = [fault for fault in told["faults"] if "/" not in json.dumps(fault) and "env" not in json.dumps(fault).lower()]
        assert wrong == [], (name, told)


def test_check_of_the_compose_example_with_its_secret_in_place(tmp_path):
    example = yaml.safe_load((ROOT / "examples/compose/countersign.yaml").read_text())
    shutil.copy(ROOT / "examples/compose/upstream.key", tmp_path / "upstream.key")
    (tmp_path / "upstream.key").chmod(0o600)
    for connection in example["connections"]:
        if "credential" in connection:
            connection["credential"]["file"] = str(tmp_path / "upstream.key")
    file = tmp_path / "countersign.yaml"
    file.write_text(yaml.safe_dump(example))
    done = run("check", "--config", file)
    assert done.returncode == 0 and "valid, sha256" in done.stdout, done.stderr


MISSPELT = {"block-intern": "block-interns", "CREDIT_CRAD": "CREDIT_CARD", "openia": "openai", "principal.gruops": "groups", "EMP-(": None}


def test_check_names_every_fault_with_its_line_and_a_suggestion(tmp_path, oidc):
    bad = config(oidc.issuer, tmp_path, audit={"dir": str(tmp_path / "audit")}, listen={"ext_proc": f"unix:{tmp_path}/s", "http": "127.0.0.1:0"})
    bad["connections"][0]["policies"] = ["block-intern", "mask-personal", "allow-finance"]
    bad["policies"][2]["when"] = "'x' in principal.gruops"
    bad["policies"][1]["then"]["mask"]["request"]["detectors"] = ["CREDIT_CRAD"]
    bad["detectors"][0]["regex"] = "EMP-(\\d{6}"
    bad["connections"].append({**bad["connections"][0], "name": "second", "match": {"path_prefix": "/second"}, "dialect": "openia",
                               "policies": ["mask-personal"]})
    told = checked(tmp_path, bad, len(MISSPELT))
    lines = (tmp_path / "bad.yaml").read_text().splitlines()
    for written, meant in MISSPELT.items():
        faults = [fault for fault in told if written in lines[fault["line"] - 1]]
        assert faults, f"no fault is at the line of `{written}`: {told}"
        assert meant is None or any(meant in json.dumps(fault) for fault in faults), faults


def test_check_names_every_unknown_key(tmp_path, oidc):
    bad = config(oidc.issuer, tmp_path, audit={"dir": str(tmp_path / "audit")}, polices=[])
    bad["connections"][0]["dialekt"] = "openai"
    bad["policies"][1]["then"]["mask"]["exempt_group"] = []
    told = checked(tmp_path, bad, 3)
    assert {fault["suggestion"] for fault in told} >= {"policies", "dialect", "exempt_groups"}


def checked(tmp_path, bad, at_least: int) -> list[dict]:
    file = tmp_path / "bad.yaml"
    file.write_text(yaml.dump(bad, Dumper=WrittenOut, sort_keys=False))
    done = run("check", "--config", file, "--json")
    told = json.loads(done.stdout)
    assert done.returncode == 1 and told["valid"] is False and len(told["faults"]) >= at_least, told
    text = run("check", "--config", file)
    assert text.returncode == 1 and text.stderr.count(f"{file}:") > len(told["faults"])
    return told["faults"]


def test_serve_refuses_a_bad_file_and_says_the_same(tmp_path):
    file = tmp_path / "bad.yaml"
    file.write_text("connections: []\n")
    done = run("serve", "--config", file)
    assert done.returncode != 0 and str(file) in done.stderr


def test_the_published_schema_takes_the_examples_and_refuses_an_unknown_key():
    import jsonschema
    schema = json.loads(run("schema").stdout)
    for name in ["examples/compose/countersign.yaml", "examples/countersign.yaml", "examples/full.yaml"]:
        example = yaml.safe_load((ROOT / name).read_text())
        jsonschema.validate(example, schema)
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**example, "polices": []}, schema)
