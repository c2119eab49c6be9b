"""What is promised of Envoy and Countersign together: one row a situation, run against every release of Envoy that we stand for.

Of every row it is checked besides: no value that is to be masked reaches caller or model, what was opened on the record is closed
once, and no request is left in flight. `python tests/e2e/envoy/page.py` writes docs/envoy-conformance.md from this table.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass
from typing import Callable

from calls import *  # noqa: F403
from calls import DOCUMENT, EVENTS, HALF, MASKED
from stack.standin import REQUEST_HEADERS, RESPONSE_HEADERS, refusal
from stack.wire import DONE, JSON, SSE, event


@dataclass(frozen=True)
class Gets:
    """What the caller must see; one of several statuses where it depends on timing, and then nothing is said of its end."""

    status: int | tuple[int, ...]
    code: str = ""
    text: str = ""
    whole: bool = True

    @property
    def words(self) -> str:
        several = self.status if isinstance(self.status, tuple) else (self.status,)
        status = " or ".join(str(one) if one else "a closed connection" for one in several)
        said = [f"`{self.code}`"] if self.code else []
        said += [f"“{self.text}”"] if self.text else []
        said += [] if self.whole else ["cut off, and seen to be" if len(several) == 1 else "it may be cut off"]
        return ", ".join([status, *said])


GONE = None  # the caller went away
NOTHING: list[str] = []


def completed(outcome: str = "completed") -> list[str]:
    return ["opened", f"closed: {outcome}"]


def refused(code: str) -> list[str]:
    return [f"refused: {code}"]


@dataclass(frozen=True)
class Row:
    group: str
    name: str
    call: Callable
    model: Callable
    client: Gets | None
    reached: int  # requests whose head reached the model server
    ledger: list[str] | tuple[list[str], ...]  # or one of these, where it depends on timing
    loud: bool = False  # `countersign_envoy_misconfigured_total` must count it
    whole: bool = True  # what reached the model server did so to its end
    memory: int = 0  # the most the service may grow by, in MiB
    long: bool = False  # only on the newest Envoy, unless --long
    longest: bool = False  # only with --long
    uses: int = 0  # uses of approvals on record
    stand_in: bool = False  # the service is one that governs nothing
    hangs: tuple[str, ...] = ()  # releases on which the caller gets no answer at all
    unseen: bool = False  # nothing behind the head is governed, and the record says so


OK = Gets(200, text=MASKED)
ONCE = completed()

FRAMING = [
    ("a length", plain, usual, OK, 1, ONCE),
    ("chunked", chunks("chunked", asked()), usual, OK, 1, ONCE),
    ("chunked in many pieces", chunks("chunked, a chunk a byte", *(asked()[n : n + 1] for n in range(len(asked())))), usual, OK, 1, ONCE),
    ("an empty chunked body", chunks("chunked, no chunk"), usual, Gets(400, "empty_body"), 0, refused("empty_body")),
    ("no body", without_body("a POST of length 0", "POST", content_length=0), usual, Gets(400, "empty_body"), 0, refused("empty_body")),
    ("trailers of HTTP/1.1", chunks("chunked, with a trailer", asked(), end=b"0\r\nx-model: other\r\n\r\n"), usual,
     Gets(400, "request_trailers"), 0, refused("request_trailers")),
    ("HTTP/1.0", old, usual, OK, 1, ONCE),
    ("100-continue", continues, usual, OK, 1, ONCE),
    ("HTTP/2, the end on a DATA frame", http2("one DATA frame with the end", asked()), usual, OK, 1, ONCE),
    ("HTTP/2, the end on an empty DATA frame", http2("DATA, then an empty one with the end", asked(), b""), usual, OK, 1, ONCE),
    ("HTTP/2, the end on the headers", http2("headers with the end"), usual, Gets(400, "empty_body"), 0, refused("empty_body")),
    ("HTTP/2, the end as trailers", http2("DATA, then trailers", asked(), {"x-model": "other"}), usual,
     Gets(400, "request_trailers"), 0, refused("request_trailers")),
    ("HEAD", without_body("HEAD", "HEAD"), usual, Gets(403), 0, refused("endpoint_not_allowed")),
    ("a GET where there is none", without_body("GET", "GET"), usual, Gets(403, "endpoint_not_allowed"), 0, refused("endpoint_not_allowed")),
    ("CONNECT", http2("CONNECT", method="CONNECT"), usual, Gets((0, 400, 403, 404), whole=False), 0, NOTHING),
    ("an upgrade to HTTP/2", without_body("`upgrade: h2c`", "GET", host="upgrades.test", connection="upgrade, http2-settings", upgrade="h2c",
                                         http2_settings="AAMAAABkAAQAAP__"), usual, Gets(403, "endpoint_not_allowed"), 0,
     refused("endpoint_not_allowed")),
    ("a compressed body, gzip", post("`content-encoding: gzip`", gzip.compress(asked()), content_encoding="gzip"), usual,
     Gets(415, "encoded_request"), 0, refused("encoded_request")),
    ("a compressed body, br", post("`content-encoding: br`", asked(), content_encoding="br"), usual,
     Gets(415, "encoded_request"), 0, refused("encoded_request")),
]

ANSWERS = [
    ("an answer of a length", plain, usual, OK, 1, ONCE),
    ("a chunked answer", plain, answers("answers in two chunks", JSON + b"transfer-encoding: chunked\r\n\r\n", DOCUMENT[:HALF], DOCUMENT[HALF:],
                                        chunked=True, end=b"0\r\n\r\n"), OK, 1, ONCE),
    ("an answer of HTTP/1.0, ended by the connection", plain, answers("answers over HTTP/1.0", b"HTTP/1.0 200 OK\r\ncontent-type: application/json\r\n\r\n",
                                                                      DOCUMENT), OK, 1, ONCE),
    ("trailers of HTTP/1.1", plain, answers("answers chunked, with a trailer", JSON + b"transfer-encoding: chunked\r\n\r\n", DOCUMENT, chunked=True,
                                            end=b"0\r\nx-secret: 536-22-8145\r\n\r\n"), OK, 1, ONCE),
    ("events", streamed, sse, OK, 1, ONCE),
    ("more behind the last event", streamed, answers("goes on behind `[DONE]`", SSE, *EVENTS, DONE, event("and 536-22-8145"), chunked=True, end=b"0\r\n\r\n"),
     OK, 1, ONCE),
    ("the end on the headers", plain, answers("answers with length 0", sized(JSON, b"")), Gets(200), 1, ONCE),
    ("204", plain, answers("answers 204", b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n"), Gets(204), 1, ONCE),
    ("304", plain, answers("answers 304", b"HTTP/1.1 304 Not Modified\r\nconnection: close\r\n\r\n"), Gets(304), 1, ONCE),
    ("an early 100 and 103", plain, answers("says 100 and 103 first", b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n"
                                            + sized(JSON, DOCUMENT), DOCUMENT), OK, 1, ONCE),
    ("HTTP/2, the end on a DATA frame", at("http2"), http2_answers("HTTP/2: one DATA frame with the end", 200, {"content-type": "application/json"}, DOCUMENT),
     OK, 1, ONCE),
    ("HTTP/2, the end on an empty DATA frame", at("http2"), http2_answers("HTTP/2: DATA, then an empty one with the end", 200,
                                                                         {"content-type": "application/json"}, DOCUMENT, b""), OK, 1, ONCE),
    ("HTTP/2, the end on the headers", at("http2"), http2_answers("HTTP/2: headers with the end", 200, {"content-type": "application/json"},
                                                                 ends_on_headers=True), Gets(200), 1, ONCE),
    ("HTTP/2, the end as trailers", at("http2"), http2_answers("HTTP/2: DATA, then trailers", 200, {"content-type": "application/json"}, DOCUMENT,
                                                              {"x-secret": "536-22-8145"}), OK, 1, ONCE),
    ("a gRPC error in headers only", at("http2"), http2_answers("HTTP/2: `grpc-status` in headers with the end", 200,
                                                               {"content-type": "application/grpc", "grpc-status": "7"}, ends_on_headers=True),
     Gets(200), 1, ONCE),
    ("a compressed answer, gzip", plain, packed("gzip", DOCUMENT), Gets(502, "encoded_response"), 1, completed("refused_response")),
    ("a compressed answer, br", plain, packed("br", DOCUMENT), Gets(502, "encoded_response"), 1, completed("refused_response")),
    ("an answer that switches protocols unasked", plain, answers("answers 101", b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n",
                                                                b"536-22-8145"), Gets(502, "unknown_response_shape"), 1, completed("refused_response")),
]

SOCKETS = [
    ("refused where no policy says so", websocket("`upgrade: websocket`", path="/v1/realtime"), accepts, Gets(403, "upgrade_refused"), 0, NOTHING),
    ("refused where the caller may not", websocket("`upgrade: websocket`, by an intern", who=("bob", "interns")), accepts,
     Gets(403, "policy_denied"), 0, refused("policy_denied")),
    ("refused where masking is owed", websocket("`upgrade: websocket`, where a policy masks", path="/owing/v1/realtime"), accepts,
     Gets(403, "upgrade_unseen"), 0, refused("upgrade_unseen")),
    ("frames both ways where a policy says so", websocket("`upgrade: websocket`, then frames", path="/socket/v1/realtime"), accepts,
     Gets(101), 1, completed("cut_short"), {"unseen": True, "hangs": ("1.39.3",)}),
    ("a model server that declines", websocket("`upgrade: websocket`", path="/socket/v1/realtime"), answers("answers with a document", sized(JSON, DOCUMENT), DOCUMENT),
     Gets((403, 502)), 1, completed("refused_response"), {"hangs": ("1.39.3",)}),
    ("frames before the switch", websocket("`upgrade: websocket`, and at once another request", path="/socket/v1/realtime", early=True), thinks,
     Gets(403, "upgrade_refused"), 0, (refused("upgrade_refused"), completed("refused_response"))),
    ("an ordinary request where sockets are allowed", post("a POST", path="/socket/v1/chat/completions"), usual, OK, 1, ONCE),
]

SIZES = [
    ("20 MB of prompt", large("20 MB", 20_000_000), usual, OK, 1, ONCE),
    ("a prompt over the bound", large("300 MB, over the bound of 24 MiB", 300_000_000), usual, Gets(413, "request_too_large"), 0,
     refused("request_too_large"), {"memory": 150}),
    ("20 MB of answer", post("a POST", path="/big/v1/chat/completions"), answers("answers 20 MB", sized(JSON, document("All work. " * 2_000_000 + ANSWERED)),
                                                          document("All work. " * 2_000_000 + ANSWERED)), OK, 1, ONCE),
    ("an answer over the bound", post("a POST", path="/big/v1/chat/completions"), answers("answers 26 MB", sized(JSON, document("All work. " * 2_600_000)),
                                                                   document("All work. " * 2_600_000)),
     Gets(502, "response_too_large"), 1, completed("refused_response")),
    ("a stream without end", reads_slowly, streams("says 30 MB in events", 30_000_000), Gets(200), 1, ONCE, {"memory": 100, "long": True}),
    ("a stream of 300 MB", reads_slowly, streams("says 300 MB in events", 300_000_000), Gets(200), 1, ONCE, {"memory": 100, "longest": True}),
]

ABORTS = [
    ("at once", leaves("hangs up before it said anything", "connect"), usual, GONE, 0, NOTHING),
    ("in the head", leaves("hangs up in its head", "head"), usual, GONE, 0, NOTHING),
    ("behind the head", leaves("hangs up before its body", "before-body"), usual, GONE, 0, refused("caller_gone")),
    ("in the body", leaves("hangs up in its body", "body"), usual, GONE, 0, refused("caller_gone")),
    ("while it is held", leaves("hangs up while somebody must approve", "hold"), usual, GONE, 0, refused("caller_gone")),
    ("while the model thinks", leaves("hangs up while the model thinks", "thinking"), thinks, GONE, 1, completed("cut_short")),
    ("in a document", leaves("hangs up while half of the answer came", "answer"),
     pauses("says half a document, and waits", DOCUMENT[:HALF], head=JSON + b"transfer-encoding: chunked\r\n\r\n"), GONE, 1, completed("cut_short")),
    ("in a stream", leaves("hangs up in the stream", "stream"), pauses("begins to speak, and waits", *EVENTS[:2]), GONE, 1, completed("cut_short")),
]

RESETS = [
    ("at once", plain, resets("resets the connection", "connect"), Gets((502, 503)), 0, completed("refused_response")),
    ("behind the head", plain, resets("resets behind the head", "head"), Gets((502, 503)), 1, completed("refused_response"), {"whole": False}),
    ("in the request's body", large("10 MB", 10_000_000), resets("resets in the body", "body"), Gets((500, 502, 503)), 1,
     (completed("refused_response"), completed("cut_short")), {"whole": False}),
    ("behind the request", plain, resets("resets behind the request", "request"), Gets((502, 503)), 1, completed("refused_response")),
    ("behind the answer's head", plain, resets("resets behind its head", "response-head"), Gets((0, 502, 503), whole=False), 1, completed("cut_short")),
    ("in a document", plain, resets("resets in the document", "document"), Gets((0, 502, 503), whole=False), 1, completed("cut_short")),
    ("in a stream", streamed, resets("resets in the stream", "stream"), Gets(200, whole=False), 1, completed("cut_short")),
    ("behind the last event", streamed, resets("resets behind `[DONE]`", "terminal"), Gets(200, whole=False), 1, completed()),
    ("HTTP/2, in a document", at("http2"), http2_answers("HTTP/2: resets in the document", 200, {"content-type": "application/json"}, DOCUMENT[:HALF],
                                                        resets=True), Gets((0, 502, 503), whole=False), 1, completed("cut_short")),
]

RETRIES = [
    ("after an error", at("retries"), fails_first("answers 503 twice, then well", 2, "503"), OK, 3, ONCE),
    ("after a reset", at("retries"), fails_first("resets twice, then answers", 2, "reset"), OK, 3, ONCE),
    ("that all fail", at("retries"), fails_first("answers 503", 9, "503"), Gets(503), 3, completed("upstream_error")),
    ("of what was approved", held("is approved, over the route `retries`", "retries"), fails_first("answers 503 twice, then well", 2, "503"), OK, 3,
     ONCE, {"uses": 1}),
    ("none by default", plain, fails_first("answers 503 once", 1, "503"), Gets(503), 1, completed("upstream_error")),
]

TIMEOUTS = [
    ("while it is held", at("idle", body=asked(model="gpt-approve")), usual, Gets(504, "request_timeout"), 0, refused("request_timeout")),
    ("while the body is awaited", chunks("half a body, and waits", asked()[:40], end=b"", host="idle.test"), usual, Gets(504, "request_timeout"), 0, refused("request_timeout")),
    ("while the model thinks", at("idle"), thinks, Gets(504, "upstream_error"), 1, completed("refused_response")),
    ("in a stream", at("idle", stream=True), pauses("begins to speak, and waits", *EVENTS[:2]), Gets(200, whole=False), 1, completed("cut_short")),
]

NOT_SERVED = Gets(500)
MODES = [(f"mode {name}", at(name), usual, NOT_SERVED, 0, NOTHING, {"loud": True}) for name in (
    "request-none", "request-streamed", "request-buffered", "request-partial", "response-none", "response-streamed", "response-buffered",
    "response-partial", "headers-only")] + [
    ("mode no-request-headers", at("no-request-headers"), usual, Gets((403, 500)), 0, NOTHING),
    ("mode no-response-headers", at("no-response-headers"), usual, Gets((500, 502), whole=False), 1, completed("protocol_error")),
    ("request trailers skipped", http2("HTTP/2: DATA, then trailers, over the route `no-request-trailers`", asked(), {"x-model": "other"},
                                       host="no-request-trailers.test"), usual, Gets(504, "request_timeout"), 0, (refused("request_timeout"), NOTHING)),
    ("response trailers skipped", at("no-response-trailers"), answers("answers chunked, with a trailer", JSON + b"transfer-encoding: chunked\r\n\r\n",
                                                                     DOCUMENT, chunked=True, end=b"0\r\nx-secret: 1\r\n\r\n"), OK, 1, ONCE),
    ("observability", post("a POST over a listener whose filter only watches", listener="watching"), usual, Gets(403), 0, NOTHING, {"loud": True}),
    ("the filter disabled by the route", at("disabled"), usual, Gets(403), 0, NOTHING),
    ("`failure_mode_allow` by the route, nobody there", at("lenient"), usual, Gets((403, 500)), 0, NOTHING),
    ("a service by the route that is not there", at("nobody"), usual, Gets(500), 0, NOTHING),
    ("a cluster by the route that is unknown", at("unknown-service"), usual, Gets(500), 0, NOTHING),
]

FAILURES = [
    ("an error before an answer", stand_in("a stand-in: an error at the request's headers", request_headers=["error"]), sse, Gets(500), 0, NOTHING),
    ("an error at the body", stand_in("a stand-in: an error at the request's body", request_headers=[], request_body=["error"]), sse, Gets(500), 0, NOTHING),
    ("an error at the answer's headers", stand_in("a stand-in: an error at the answer's headers", response_headers=["error"]), sse, Gets(500), 1, NOTHING),
    ("a clean end before an answer", stand_in("a stand-in: a clean end at the request's headers", request_headers=["end"]), sse, Gets(403), 0, NOTHING),
    ("a clean end while the headers are withheld", stand_in("a stand-in: a clean end at the body", request_headers=[], request_body=["end"]), sse, Gets(403), 0, NOTHING),
    ("no permit", stand_in("a stand-in: an answer without a permit", request_headers=[REQUEST_HEADERS]), sse, Gets(403), 0, NOTHING),
    ("a clean end at the answer's headers", stand_in("a stand-in: a clean end at the answer's headers", response_headers=["end"]), sse,
     Gets(502, "response_not_governed"), 1, NOTHING),
    ("a clean end while the answer's headers are withheld", stand_in("a stand-in: a clean end at the answer's body", response_headers=[], response_body=["end"]), sse,
     Gets(502, "response_not_governed"), 1, NOTHING),
    ("no release", stand_in("a stand-in: an answer without a release", response_headers=[RESPONSE_HEADERS]), sse, Gets(502, "response_not_governed"), 1, NOTHING),
    ("an error in a stream", stand_in("a stand-in: an error at the answer's body", response_body=["error"]), sse, Gets((200, 500), whole=False), 1, NOTHING),
    ("a refusal at the headers", stand_in("a stand-in: a 403 at the request's headers", request_headers=[refusal(b"\x93\x03", b"{}")]), sse, Gets(403), 0, NOTHING),
    ("the service is down", service_is("a POST while the service is down", "down"), usual, Gets(500), 0, NOTHING),
    ("the next request after a restart", plain, usual, OK, 1, ONCE),
    ("the service is stopped", service_is("a POST while the service is stopped", "stopped"), usual, Gets(500), 0,
     (NOTHING, completed("cut_short"), refused("caller_gone"))),
    ("killed in a stream", in_mid_stream("a stream in which the service is killed", signal.SIGKILL),
     pauses("speaks, and goes on when the service is gone", event("Begun: 536-22-"), after=(event("8145"), DONE)), Gets(200, text="Begun: ", whole=False), 1,
     completed("unknown")),
    ("stopped in a stream", in_mid_stream("a stream in which the service is stopped", signal.SIGSTOP),
     pauses("speaks, and goes on when the service is stopped", event("Begun: 536-22-"), after=(event("8145"), DONE)),
     Gets(200, text="Begun: ", whole=False), 1, (completed("cut_short"), completed())),
    ("more streams than the breaker takes", second, thinks, Gets(500), 1, ONCE),
]

GROUPS = {
    "Requests": FRAMING, "Answers": ANSWERS, "WebSockets": SOCKETS, "Large bodies": SIZES, "The caller hangs up": ABORTS, "The model server resets": RESETS,
    "Envoy tries again": RETRIES, "Time runs out": TIMEOUTS, "Envoy does not send everything": MODES, "The service fails": FAILURES,
}


def rows() -> list[Row]:
    found = []
    for group, lines in GROUPS.items():
        for name, call, model, client, reached, ledger, *more in lines:
            more = {"stand_in": call.words.startswith("a stand-in"), **(more[0] if more else {})}
            found.append(Row(group, name, call, model, client, reached, ledger, **more))
    return found


ROWS = rows()
