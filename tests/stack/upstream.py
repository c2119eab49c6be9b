"""A small model server that remembers exactly what reached it and answers what a test tells it to."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Callable, Iterable, Union

from .process import wait_until


@dataclass
class Request:
    """One request as it arrived; header names keep the case and order they came in."""

    method: str
    path: str
    headers: list[tuple[str, str]]
    body: bytes
    complete: bool = True  # false when the connection ended inside the body

    def header(self, name: str) -> str | None:
        """The one value of a header; None when absent. Raises when it came twice."""
        values = [v for k, v in self.headers if k.lower() == name.lower()]
        assert len(values) < 2, f"`{name}` came {len(values)} times"
        return values[0] if values else None

    @property
    def json(self):
        return json.loads(self.body)


# A piece of an answer's body: bytes leave at once, a number waits that many seconds, an Event until it is set.
Piece = Union[bytes, float, threading.Event]


@dataclass
class Answer:
    """What to answer. The body's pieces are sent one by one, each as a chunk of its own."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    pieces: Iterable[Piece] = ()
    break_off: bool = False  # close the connection after the last piece, without the end of the body

    @staticmethod
    def json(value, status: int = 200) -> "Answer":
        return Answer(status, {"content-type": "application/json"}, [json.dumps(value).encode()])

    @staticmethod
    def sse(events: Iterable[str | dict], cut: int = 0, delay: float = 0.0, done: bool = True, break_off: bool = False) -> "Answer":
        """Server-sent events. `cut` > 0 ignores their borders and cuts the bytes every `cut` of them."""
        texts = [e if isinstance(e, str) else json.dumps(e) for e in events] + (["[DONE]"] if done else [])
        whole = [f"data: {t}\n\n".encode() for t in texts]
        if cut:
            stream = b"".join(whole)
            whole = [stream[i : i + cut] for i in range(0, len(stream), cut)]
        pieces: list[Piece] = []
        for chunk in whole:
            pieces += [chunk, delay] if delay else [chunk]
        return Answer(200, {"content-type": "text/event-stream"}, pieces, break_off)


def chat(text: str, size: int = 7, cut: int = 0, delay: float = 0.0, model: str = "gpt-4o-mini") -> Callable[[Request], Answer]:
    """Answers chat completions with `text`: whole, or in deltas of `size` characters where the caller asked to stream."""

    def answer(request: Request) -> Answer:
        base = {"id": "chatcmpl-1", "created": 1700000000, "model": model, "system_fingerprint": "fp_1"}
        if not request.json.get("stream"):
            message = {"role": "assistant", "content": text}
            return Answer.json({**base, "object": "chat.completion",
                                "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
                                "usage": {"prompt_tokens": 9, "completion_tokens": 12, "total_tokens": 21}})
        base["object"] = "chat.completion.chunk"
        deltas = [{"role": "assistant", "content": ""}] + [{"content": text[i : i + size]} for i in range(0, len(text), size)]
        events = [{**base, "choices": [{"index": 0, "delta": d, "finish_reason": None}]} for d in deltas]
        events.append({**base, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
        return Answer.sse(events, cut, delay)

    return answer


def chunk(delta: dict, index: int = 0, finish: str | None = None, model: str = "gpt-4o-mini") -> dict:
    """One event of a streamed chat completion."""
    return {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1700000000, "model": model,
            "choices": [{"index": index, "delta": delta, "finish_reason": finish}]}


def paused(before: str, until: threading.Event, after: str = " The end.") -> Answer:
    """A stream that says `before`, waits for `until`, then says `after` and ends."""
    head = Answer.sse([chunk({"role": "assistant", "content": ""}), chunk({"content": before})], done=False)
    tail = Answer.sse([chunk({"content": after}), chunk({}, finish="stop")])
    return Answer(200, head.headers, [*head.pieces, until, *tail.pieces])


def relay(port: int, prefix: str = "", **more) -> Callable[[Request], Answer]:
    """Passes JSON requests, with the fields of `more` added and without the path's `prefix`, on to the server at this loopback port,
    and its answers back as they come."""

    def answer(request: Request) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        hop = {"host", "connection", "transfer-encoding", "content-length", "accept-encoding"}
        headers = {k: v for k, v in request.headers if k.lower() not in hop}
        connection.request(request.method, request.path.removeprefix(prefix), json.dumps({**request.json, **more}), headers)
        response = connection.getresponse()

        def pieces():
            while piece := response.read1(65536):
                yield piece
            connection.close()

        return Answer(response.status, {"content-type": response.getheader("content-type", "")}, pieces())

    return answer


class Server(ThreadingHTTPServer):
    """One that does not leave connections waiting when hundreds come at once: with more than are listened for, the kernel drops some, and
    they are heard of again after seconds, or never."""

    request_queue_size = 1024


class Upstream:
    """`requests` is what arrived; `answer` is an `Answer`, or makes one from the request."""

    def __init__(self, answer: Answer | Callable[[Request], Answer] = Answer(200)):
        self.answer = answer
        self.requests: list[Request] = []

    def start(self):
        upstream = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            server_version = "recorder"

            def setup(self):
                super().setup()
                self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                upstream._connections.add(self.connection)

            def finish(self):
                upstream._connections.discard(self.connection)
                try:
                    super().finish()
                except OSError:
                    pass  # the other side is gone

            def log_message(self, *_):
                pass

            def parse_request(self):
                if not super().parse_request():
                    return False
                setattr(self, f"do_{self.command}", self.serve)
                return True

            def serve(self):
                body, complete = self.read_body()
                request = Request(self.command, self.path, self.headers.items(), body, complete)
                upstream.requests.append(request)
                if not complete:
                    self.close_connection = True
                    return
                answer = upstream.answer(request) if callable(upstream.answer) else upstream.answer
                try:
                    self.write(answer)
                except OSError:
                    self.close_connection = True  # the caller hung up

            def read_body(self) -> tuple[bytes, bool]:
                if "chunked" not in self.headers.get("transfer-encoding", "").lower():
                    want = int(self.headers.get("content-length", 0))
                    body = self.rfile.read(want)
                    return body, len(body) == want
                body = b""
                while True:
                    size = self.rfile.readline()
                    if not size.strip():
                        return body, False
                    length = int(size.split(b";")[0], 16)
                    data = self.rfile.read(length + 2)
                    if len(data) != length + 2:
                        return body + data, False
                    if length == 0:
                        return body, True
                    body += data[:-2]

            def write(self, answer: Answer):
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                if answer.status in (204, 304) or self.command == "HEAD":
                    self.end_headers()
                    return
                self.send_header("transfer-encoding", "chunked")
                self.end_headers()
                for piece in answer.pieces:
                    if isinstance(piece, bytes):
                        self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
                    elif isinstance(piece, threading.Event):
                        piece.wait(30)
                    else:
                        upstream._closing.wait(piece)
                if answer.break_off:
                    self.close_connection = True
                else:
                    self.wfile.write(b"0\r\n\r\n")

        self._closing = threading.Event()
        self._connections: set[socket.socket] = set()
        self._server = Server(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    @property
    def last(self) -> Request:
        return self.requests[-1]

    def wait_for(self, count: int, seconds: float = 10.0) -> list[Request]:
        wait_until(f"{count} requests reached the upstream", lambda: len(self.requests) >= count, seconds)
        return self.requests

    def stop(self):
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()
        for connection in list(self._connections):  # those kept alive too: a stopped server answers nobody
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.stop()
