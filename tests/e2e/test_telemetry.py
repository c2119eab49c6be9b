"""Traces: what a collector is told of requests, what it never is, and that nobody waits for it."""

import secrets
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from stack import UPSTREAM_KEY, Gateway, config, free_port, wait_until
from stack.caller import call, prompt
from stack.collector import Collector
from stack.envoy import http_manager
from stack.upstream import chat
from test_approvals import RISKY, office_of  # noqa: F401

SSN = "536-22-8714"
CARD = "4111 1111 1111 1111"


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    """Batches leave soon; that the environment's word counts is seen by that."""
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")


@pytest.fixture
def collector():
    with Collector() as running:
        yield running


@pytest.fixture
def traced(gateway, collector):
    """A gateway that tells the collector: `traced(principals=True)`."""
    return lambda change=None, **more: gateway(change, telemetry={"otlp": {"endpoint": collector.url, **more}})


def spans_of(gateway, result: str) -> float:
    return gateway.countersign.metrics().get('countersign_trace_spans_total{result="%s"}' % result, 0)


def traceparent() -> tuple[str, str, str]:
    trace, span = secrets.token_hex(16), secrets.token_hex(8)
    return f"00-{trace}-{span}-01", trace, span


@pytest.mark.parametrize("stream", [False, True])
def test_a_request_is_a_span_in_the_callers_trace(traced, collector, tokens, upstream, stream):
    running = traced()
    upstream.answer = chat(f"Your number {SSN} is safe with me.")
    header, trace, span = traceparent()
    reply = call(running.envoy.url, tokens(), prompt(f"my card is {CARD}", stream=stream), {"traceparent": header})
    assert reply.status == 200
    whole, children = collector.of(reply.session)
    assert (whole.trace, whole.parent, whole.service) == (trace, span, "countersign")
    assert whole.name == "chat gpt-4o-mini"
    told = whole.attributes
    assert told["gen_ai.operation.name"] == "chat" and told["gen_ai.provider.name"] == "openai"
    assert told["gen_ai.request.model"] == told["gen_ai.response.model"] == "gpt-4o-mini"
    assert told["gen_ai.response.id"] == "chatcmpl-1" and told["gen_ai.response.finish_reasons"] == ["stop"]
    if not stream:
        assert (told["gen_ai.usage.input_tokens"], told["gen_ai.usage.output_tokens"]) == (9, 12)
    assert told["countersign.connection"] == "openai" and told["countersign.outcome"] == "completed"
    assert told["countersign.verdict"] == "allow" and told["countersign.policies"] == ["mask-personal", "allow-finance"]
    assert (told["countersign.masked.request.CREDIT_CARD"], told["countersign.masked.response.US_SSN"]) == (1, 1)
    assert told["http.response.status_code"] == 200 and "error.type" not in told and whole.status[0] != 2
    assert set(children) == {"identify", "decide", "mask_request", "record_opened", "upstream", "mask_answer", "record_closed"}
    for (child,) in children.values():
        assert child.trace == trace and whole.start <= child.start <= child.end <= whole.end
    # The record names the same trace.
    records = [r for r in running.countersign.records() if r.get("session") == reply.session and "opened" in r]
    assert records[0]["opened"]["endpoint"]["traceId"] == trace


def test_no_text_no_secret_and_no_name_is_in_any_span(traced, collector, tokens, upstream):
    running = traced()
    canary, model = f"canary{secrets.token_hex(8)}", f"gpt {SSN}"
    upstream.answer = chat(f"{canary} {SSN} {UPSTREAM_KEY}")
    token = tokens()
    replies = [
        call(running.envoy.url, token, prompt(f"{canary} {SSN}", user=canary), {"x-canary": canary}),
        call(running.envoy.url, token, prompt(f"{canary} {SSN}", stream=True)),
        call(running.envoy.url, token, prompt(canary, model=model)),
        call(running.envoy.url, token, b'{"model": "' + canary.encode()),
        call(running.envoy.url, token, prompt(canary), path=f"/v1/{canary}?key={canary}"),
        call(running.envoy.url, canary, prompt(canary)),
        call(running.envoy.url, tokens("bob-app"), prompt(canary)),
    ]
    assert [reply.status for reply in replies] == [200, 200, 403, 400, 403, 401, 403]
    for reply in replies:
        collector.of(reply.session)
    assert collector.of(replies[2].session)[0].attributes["gen_ai.request.model"] == "gpt [US_SSN]"
    told = b"".join(collector.bodies)
    for never in [canary, SSN, UPSTREAM_KEY, token, token.split(".")[2], "alice-app", "bob-app"]:
        assert never.encode() not in told, never


def test_callers_are_named_where_that_is_wanted(traced, collector, tokens, upstream):
    running = traced(principals=True)
    reply = call(running.envoy.url, tokens())
    assert collector.of(reply.session)[0].attributes["enduser.id"] == "alice-app"


def test_a_refusal_is_an_error_by_its_code(traced, collector, tokens):
    running = traced()
    for token, code, phases in [
        (tokens("bob-app"), "policy_denied", {"identify", "decide", "mask_request", "record_opened"}),
        (None, "token_missing", set()),
        ("a.b.c", "token_not_base64url", {"identify"}),
    ]:
        reply = call(running.envoy.url, token)
        whole, children = collector.of(reply.session)
        assert reply.code == code
        assert (whole.attributes["error.type"], whole.status) == (code, (2, code))
        assert whole.attributes["http.response.status_code"] == reply.status
        assert set(children) == phases
        assert len(whole.parent) == 0, "a trace of its own"


def test_a_held_request_shows_how_long_it_was_held(office_of, collector, upstream):  # noqa: F811
    desk = office_of(upstream, more=lambda usual: usual.update(telemetry={"otlp": {"endpoint": collector.url}}))
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(call, desk.url, desk.token(), prompt(RISKY))
        (approval,) = desk.wait_for()
        counted = desk.countersign.metrics()
        assert counted["countersign_holds"] == 1 and counted["countersign_holds_oldest_seconds"] > 0
        assert desk.decide(approval)[0] == 200
        reply = asked.result()
    assert reply.status == 200
    whole, children = collector.of(reply.session)
    (held,) = children["hold"]
    assert held.end - held.start > 0 and whole.attributes["countersign.verdict"] == "hold"
    assert len(children["decide"]) == 2 and len(children["claim"]) == 1
    after = desk.countersign.metrics()
    assert after["countersign_holds"] == 0 and after['countersign_holds_ended_total{outcome="approved"}'] == 1


def test_with_envoys_own_tracing_ours_stand_below_its_spans(traced, collector, tokens, upstream):
    def tracing(envoy):
        envoy["static_resources"]["clusters"].append({
            "name": "collector", "type": "STATIC", "load_assignment": {"cluster_name": "collector", "endpoints": [{"lb_endpoints": [
                {"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": collector.port}}}}]}]}})
        http_manager(envoy)["tracing"] = {"provider": {"name": "envoy.tracers.opentelemetry", "typed_config": {
            "@type": "type.googleapis.com/envoy.config.trace.v3.OpenTelemetryConfig", "service_name": "envoy",
            "http_service": {"http_uri": {"uri": f"{collector.url}/v1/traces", "cluster": "collector", "timeout": "1s"}}}}}

    running = traced(tracing)
    header, trace, span = traceparent()
    reply = call(running.envoy.url, tokens(), headers={"traceparent": header})
    whole, _ = collector.of(reply.session)
    wait_until("Envoy tells its own", lambda: any(s.service == "envoy" and s.id == whole.parent for s in collector.spans))
    assert whole.trace == trace and whole.parent != span
    # And where the caller traces nothing, Envoy begins the trace, which the record names too.
    reply = call(running.envoy.url, tokens())
    whole, _ = collector.of(reply.session)
    wait_until("Envoy tells its own", lambda: any(s.service == "envoy" and s.id == whole.parent for s in collector.spans))
    (opened,) = [r["opened"] for r in running.countersign.records() if r.get("session") == reply.session and "opened" in r]
    assert opened["endpoint"]["traceId"] == whole.trace


@pytest.mark.parametrize("away", ["gone", "silent", "refusing"])
def test_where_the_collector_is_away_no_request_waits_and_none_is_lost(gateway, collector, tokens, away):
    collector.silent, collector.status = away == "silent", 503 if away == "refusing" else 200
    url = f"http://127.0.0.1:{free_port()}" if away == "gone" else collector.url
    plain = gateway()
    running = gateway(telemetry={"otlp": {"endpoint": url}})

    def took(one) -> float:
        began = time.monotonic()
        with ThreadPoolExecutor(4) as pool:
            replies = list(pool.map(lambda _: call(one.envoy.url, tokens()), range(100)))
        assert [reply.status for reply in replies] == [200] * 100
        return time.monotonic() - began

    took(plain), took(running)
    without, with_it = took(plain), took(running)
    # A request that waited for the collector would take seconds.
    assert with_it < 3 * without + 2, (with_it, without)
    assert spans_of(running, "sent") == 0
    assert running.countersign.metrics()["countersign_ready"] == 1
    began = time.monotonic()
    assert running.countersign.stop() == 0
    assert time.monotonic() - began < 10
    closed = [r for r in running.countersign.records() if "closed" in r]
    assert len(closed) == 200 and all(r["closed"]["outcome"] == "completed" for r in closed)


def test_what_waits_is_sent_before_the_end_and_what_was_sent_is_counted(traced, collector, tokens, monkeypatch):
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "600000")
    running = traced()
    reply = call(running.envoy.url, tokens())
    wait_until("it waits", lambda: running.countersign.metrics()["countersign_trace_spans_waiting"] > 0)
    assert collector.spans == []
    assert running.countersign.stop() == 0
    collector.of(reply.session)


def test_what_was_sent_is_counted_and_secrets_of_the_collector_go_with_it(traced, collector, tokens, tmp_path, upstream):
    running = traced()
    reply = call(running.envoy.url, tokens())
    collector.of(reply.session)
    wait_until("it is counted", lambda: spans_of(running, "sent") == len(collector.spans))
    assert spans_of(running, "failed") == spans_of(running, "dropped") == 0


def test_without_a_collector_in_the_file_nothing_is_sent(gateway, collector, tokens, monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    running = gateway()
    assert call(running.envoy.url, tokens()).status == 200
    assert running.countersign.stop() == 0
    assert collector.spans == []
    # With the section, and no address in it, the environment's counts.
    running = gateway(telemetry={"otlp": {}})
    reply = call(running.envoy.url, tokens())
    collector.of(reply.session)
