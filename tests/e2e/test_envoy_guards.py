"""The guards in envoy.yaml, against a service that ends its stream early and cleanly.

Envoy takes a clean end for "nothing more to say" and would pass the rest ungoverned. The stand-in below
is as small as a service can be: it writes the few protobuf bytes of its answers by hand.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from stack import ROOT, Answer, Envoy, Upstream, wait_until

SECRET = "536-22-8145"


# --- protobuf by hand: envoy.service.ext_proc.v3.ProcessingResponse ---


def message(number: int, *parts: bytes) -> bytes:
    body = b"".join(parts)
    size, length = b"", len(body)
    while length > 127:
        size, length = size + bytes([length & 127 | 128]), length >> 7
    return bytes([number << 3 | 2]) + size + bytes([length]) + body


def varint(number: int, value: int) -> bytes:
    assert value < 128
    return bytes([number << 3, value])


def metadata(key: str, value: str) -> bytes:
    """dynamic_metadata: {countersign: {key: value}}"""

    def entry(name: str, value: bytes) -> bytes:
        return message(1, message(1, name.encode()), message(2, value))

    return message(8, entry("countersign", message(5, entry(key, message(3, value.encode())))))


PERMIT, RELEASE = metadata("permit", "granted"), metadata("release", "granted")
REQUEST_HEADERS, RESPONSE_HEADERS = message(1), message(2)
TRAILERS = {5: message(5), 6: message(6)}


def body(number: int, data: bytes, end: bool) -> bytes:
    """{request_body|response_body: {response: {body_mutation: {streamed_response: {body, end_of_stream}}}}}"""
    streamed = message(3, message(1, data), varint(2, 1) if end else b"")
    return message(number, message(1, message(3, streamed)))


def refusal(status: bytes, text: bytes) -> bytes:
    """immediate_response: {status: {code}, body}"""
    return message(7, message(1, b"\x08" + status), message(3, text))


class Service:
    """`behave(kind, request)` is called with every message of Envoy's and yields answers; returning "end" ends the stream OK."""

    def __init__(self, behave):
        self.directory = tempfile.TemporaryDirectory(prefix="cs-")
        self.socket = Path(self.directory.name) / "ext_proc.sock"
        self.seen: list[tuple[int, bytes]] = []

        def process(requests, _context):
            for request in requests:
                number = request[0] >> 3
                self.seen.append((number, request))
                for answer in behave(number, request):
                    if answer == "end":
                        return
                    if answer == "error":
                        _context.abort(grpc.StatusCode.INTERNAL, "no")
                    yield answer

        handler = grpc.stream_stream_rpc_method_handler(process)
        self.server = grpc.server(ThreadPoolExecutor(16))
        self.server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(
            "envoy.service.ext_proc.v3.ExternalProcessor", {"Process": handler})])
        self.server.add_insecure_port(f"unix:{self.socket}")

    def __enter__(self):
        self.server.start()
        return self

    def __exit__(self, *_):
        self.server.stop(0).wait()
        self.directory.cleanup()


def body_of(request: bytes) -> tuple[bytes, bool]:
    """The data and end flag of an HttpBody message (fields 4 and 5 of ProcessingRequest hold one)."""
    fields, at = {}, 0
    inner, _ = length_delimited(request, 1)
    while at < len(inner):
        number, kind, at = inner[at] >> 3, inner[at] & 7, at + 1
        if kind == 2:
            fields[number], at = length_delimited(inner, at)
        else:
            fields[number], at = inner[at], at + 1
    return fields.get(1, b""), bool(fields.get(2, 0))


def length_delimited(data: bytes, at: int) -> tuple[bytes, int]:
    length = shift = 0
    while True:
        byte, at = data[at], at + 1
        length |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return data[at : at + length], at + length


def governs(number, request):
    """A service that lets everything through, properly."""
    if number == 2:
        yield REQUEST_HEADERS + PERMIT
    elif number == 3:
        yield RESPONSE_HEADERS + RELEASE
    elif number in (4, 5):
        yield body(number - 1, *body_of(request))
    elif number in (6, 7):
        yield TRAILERS[number - 1]


def but(**changes):
    """`governs`, with what happens at some messages replaced."""
    kinds = {"request_headers": 2, "response_headers": 3, "request_body": 4, "response_body": 5}
    table = {kinds[name]: answers for name, answers in changes.items()}

    def behave(number, request):
        yield from table[number] if number in table else governs(number, request)

    return behave


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


def test_a_failing_service_gives_500_and_nothing_of_the_model(through, model):
    envoy, _ = through(but(response_headers=["error"]))
    status, _, text = call(envoy)
    assert status == 500 and SECRET.encode() not in text


def test_no_service_gives_500_and_the_model_sees_nothing(tmp_path, model):
    with Envoy(tmp_path, model.port) as envoy:
        status, _, _ = call(envoy)
    assert status == 500 and model.requests == []


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
