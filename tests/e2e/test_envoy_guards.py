"""The guards in envoy.yaml, against a service that ends its stream early and cleanly.

Envoy takes a clean end for "nothing more to say" and would pass the rest ungoverned. What the guards do on each release of
Envoy is in the table of envoy/; here marks are forged as well.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest
from stack import ROOT, Answer, Envoy, Upstream, wait_until
from stack.standin import REQUEST_HEADERS, RESPONSE_HEADERS, Service, but, governs, metadata, refusal

SECRET = "536-22-8145"


def call(envoy: Envoy, path="/v1/chat/completions", headers=()):
    """Status, headers and body of a POST, however it ends; status 0 for a connection closed without an answer."""
    request = urllib.request.Request(envoy.url + path, b'{"model":"m"}', {"content-type": "application/json", **dict(headers)})
    try:
        with urllib.request.urlopen(request, timeout=15) as answer:
            return answer.status, dict(answer.headers), answer.read()
    except urllib.error.HTTPError as error:
        return error.code, dict(error.headers), error.read()
    except (urllib.error.URLError, ConnectionResetError):
        return 0, {}, b""


@pytest.fixture
def model():
    events = [{"choices": [{"delta": {"content": f"number {SECRET}"}}]}] * 5
    forged = {"x-countersign-local-reply": "1", "x-countersign-release": "granted"}
    with Upstream(lambda _: Answer(200, {"content-type": "text/event-stream", **forged}, Answer.sse(events, delay=0.01).pieces)) as upstream:
        yield upstream


@pytest.fixture
def through(tmp_path, model):
    """Calls the model through Envoy and a service that behaves as told."""
    parts = []

    def start(behave, change=None):
        service = Service(behave).__enter__()
        envoy = Envoy(tmp_path, model.port, service.socket, change).start()
        parts.extend([envoy, service])
        return envoy, service

    yield start
    envoys = [part for part in parts if isinstance(part, Envoy)]
    assert [envoy.stop() for envoy in envoys] == [0] * len(envoys), "Envoy did not end cleanly"
    for part in parts:
        part.__exit__()


def test_a_governed_answer_passes_and_no_mark_leaves_envoy(through, model):
    envoy, _ = through(governs)
    status, headers, text = call(envoy)
    assert status == 200 and text.count(SECRET.encode()) == 5
    assert not [name for name in headers if name.startswith("x-countersign") and name != "x-countersign-release"]
    assert "x-envoy-upstream-service-time" not in headers


@pytest.mark.parametrize("behave, why", [
    (but(request_headers=["end"]), "before the answer to the headers"),
    (but(request_headers=[], request_body=["end"]), "while the answer to the headers was withheld"),
    (but(request_headers=[REQUEST_HEADERS]), "no permit at all"),
    (but(request_headers=[REQUEST_HEADERS + metadata("permit", "denied")]), "another permit"),
], ids=lambda x: x.replace(" ", "-") if isinstance(x, str) else "")
def test_a_request_without_a_permit_never_reaches_the_model(through, model, behave, why):
    envoy, _ = through(behave)
    status, _, text = call(envoy, headers={"x-countersign-permit": "granted"})
    assert status == 403, (why, text)
    assert model.requests == []


@pytest.mark.parametrize("behave, why", [
    (but(response_headers=["end"]), "at the headers"),
    (but(response_headers=[], response_body=["end"]), "while the answer to the headers was withheld"),
    (but(response_headers=[RESPONSE_HEADERS]), "no release at all"),
], ids=lambda x: x.replace(" ", "-") if isinstance(x, str) else "")
def test_an_answer_that_was_not_released_is_replaced_whole(through, model, behave, why):
    envoy, _ = through(behave)
    status, headers, text = call(envoy)
    assert status == 502, why
    assert SECRET.encode() not in text and b"[DONE]" not in text
    assert json.loads(text)["error"]["code"] == "response_not_governed"
    assert headers["content-type"] == "application/json" and "x-countersign-local-reply" not in headers


def test_a_refusal_of_the_service_keeps_its_status_and_text(through, model):
    envoy, _ = through(but(request_headers=[refusal(b"\x93\x03", b'{"error":"no"}')]))
    status, headers, text = call(envoy)
    assert (status, text) == (403, b'{"error":"no"}')
    assert "x-countersign-local-reply" not in headers
    assert model.requests == []


def test_a_refusal_of_the_response_keeps_its_status_and_text(through, model):
    envoy, _ = through(but(response_headers=[refusal(b"\xf6\x03", b'{"error":"too much"}')]))
    status, _, text = call(envoy)
    assert (status, text) == (502, b'{"error":"too much"}')


def test_a_model_server_that_is_away_gives_503(through, model):
    envoy, _ = through(governs, lambda config: config["static_resources"]["clusters"][0]["load_assignment"]["endpoints"].clear())
    assert call(envoy)[0] == 503


def test_the_service_sees_where_the_request_will_go(through, model):
    envoy, service = through(governs)
    call(envoy)
    first = service.seen[0][1]
    for attribute in [b"envoy.filters.http.ext_proc", b"xds.route_name", b"xds.cluster_name", b"source.address"]:
        assert attribute in first, attribute


def test_a_callers_control_headers_do_nothing(through, model):
    model.answer = Answer(503)
    envoy, _ = through(governs)
    status, _, _ = call(envoy, headers={"x-envoy-retry-on": "5xx", "x-envoy-max-retries": "3",
                                        "x-envoy-upstream-rq-timeout-ms": "1", "X-Envoy-Decorator-Operation": "x"})
    assert status == 503
    assert len(model.requests) == 1
    assert not [name for name, _ in model.last.headers if name.lower().startswith("x-envoy")]


@pytest.mark.parametrize("path, headers, statuses", [
    ("/v1%2Fchat/completions", {}, {400}),
    ("/v1%5cchat/completions", {}, {400}),
    # Envoy often closes the connection before its own 400 has come back from the service; nothing passes either way.
    ("/v1/chat/completions", {"x_api_key": "k"}, {0, 400}),
])
def test_what_could_be_read_in_two_ways_is_refused(through, model, path, headers, statuses):
    envoy, service = through(governs)
    assert call(envoy, path, headers)[0] in statuses
    assert model.requests == []
    # The service is shown Envoy's own answer and never a request: a stream may begin with response headers.
    assert not [number for number, _ in service.seen if number in (2, 4)]


def test_a_path_is_settled_before_anyone_reads_it(through, model):
    envoy, service = through(governs)
    assert call(envoy, "//v1/x/..//chat/completions?key=hidden")[0] == 200
    assert model.last.path == "/v1/chat/completions?key=hidden"
    assert b"/v1/chat/completions" in service.seen[0][1]
    logged = wait_until("the request is logged", envoy.access_log)[-1]
    assert logged["path"] == "/v1/chat/completions" and "hidden" not in envoy.log_text()


def test_a_frozen_service_is_given_up_in_seconds_and_taken_back_when_it_thaws(tmp_path, model):
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "tests")}
    with subprocess.Popen([sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment) as service:
        with Envoy(tmp_path, model.port, service.stdout.readline().strip()) as envoy:
            assert call(envoy)[0] == 200
            service.send_signal(signal.SIGSTOP)
            began = time.monotonic()
            assert call(envoy)[0] == 500
            assert time.monotonic() - began < 5
            assert len(model.requests) == 1
            service.send_signal(signal.SIGCONT)
            assert call(envoy)[0] == 200
        service.stdin.close()


def test_a_request_may_be_held_for_longer_than_a_frozen_service_would_be(through, model):
    release = threading.Event()

    def hold(number, request):
        release.wait(20)
        yield from governs(number, request)

    # The service answers HTTP/2 pings meanwhile; one that does not is given up after two seconds.
    envoy, _ = through(hold)
    with ThreadPoolExecutor(1) as pool:
        held = pool.submit(call, envoy)
        with pytest.raises(TimeoutError):
            held.result(4)
        release.set()
        assert held.result(15)[0] == 200


if __name__ == "__main__":
    with Service(governs) as standin:
        print(standin.socket, flush=True)
        sys.stdin.read()
