"""A model server that does byte by byte what it is told: ends, breaks off and resets wherever a test wants it to."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
from dataclasses import dataclass, field
from typing import Callable

import h2.config
import h2.connection
import h2.events
import h2.exceptions


@dataclass
class Arrival:
    """One request as far as it came."""

    line: str
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytearray = field(default_factory=bytearray)
    length: int = 0  # of the body; counts also what was not kept
    whole: bool = False

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key.lower() == name), None)


def reset(connection: socket.socket):
    """Closes with RST rather than FIN."""
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


class Wire:
    """One connection of HTTP/1.1 that brought, or will bring, one request."""

    def __init__(self, connection: socket.socket, arrivals: list[Arrival]):
        self.socket, self.arrivals, self.got = connection, arrivals, b""
        self.arrival: Arrival | None = None

    def more(self) -> bool:
        part = self.socket.recv(1 << 18)
        self.got += part
        return bool(part)

    def until(self, mark: bytes) -> bytes:
        while mark not in self.got:
            if not self.more():
                raise ConnectionError("the connection ended")
        found, self.got = self.got.split(mark, 1)
        return found

    def exactly(self, length: int) -> bytes:
        while len(self.got) < length:
            if not self.more():
                raise ConnectionError("the connection ended")
        found, self.got = self.got[:length], self.got[length:]
        return found

    def head(self) -> Arrival:
        line, *fields = self.until(b"\r\n\r\n").decode("latin-1").split("\r\n")
        headers = [tuple(part.strip() for part in one.split(":", 1)) for one in fields]
        self.arrival = Arrival(line, headers)
        self.arrivals.append(self.arrival)
        return self.arrival

    def body(self, keep: int = 64 << 20, stop: int | None = None) -> Arrival:
        """Reads the body to its end, or until `stop` bytes came; remembers at most `keep` bytes of it."""
        seen = self.arrival or self.head()

        def take(data: bytes):
            seen.length += len(data)
            if len(seen.body) < keep:
                seen.body += data

        if "chunked" not in (seen.header("transfer-encoding") or ""):
            take(self.exactly(int(seen.header("content-length") or 0)))
            seen.whole = True
            return seen
        while stop is None or seen.length < stop:
            size = int(self.until(b"\r\n").split(b";")[0], 16)
            if size == 0:
                self.until(b"\r\n")
                seen.whole = True
                break
            take(self.exactly(size + 2)[:-2])
        return seen

    def send(self, data: bytes):
        self.socket.sendall(data)

    def chunk(self, data: bytes):
        self.send(b"%x\r\n%s\r\n" % (len(data), data))

    def reset(self):
        reset(self.socket)


class Model:
    """`play(wire)` is called once a connection; the connection is closed after it. `arrivals` is what came."""

    def __init__(self):
        self.play: Callable = lambda wire: None
        self.arrivals: list[Arrival] = []

    def wire(self, connection: socket.socket):
        return Wire(connection, self.arrivals)

    def start(self):
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def _accept(self):
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.settimeout(30)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket):
        with contextlib.closing(connection), contextlib.suppress(OSError, ValueError, h2.exceptions.ProtocolError):
            self.play(self.wire(connection))
            with contextlib.suppress(OSError):  # so that what is unread does not turn our FIN into a RST
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(65536):
                    pass

    def stop(self):
        self._listening.close()

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.stop()


class Http2Wire:
    """One connection of HTTP/2, and the first request on it."""

    def __init__(self, connection: socket.socket, arrivals: list[Arrival]):
        self.socket, self.arrivals, self.stream = connection, arrivals, 0
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="utf-8"))
        self.h2.initiate_connection()
        self.arrival: Arrival | None = None
        self.flush()

    def flush(self):
        self.socket.sendall(self.h2.data_to_send())

    def more(self):
        data = self.socket.recv(1 << 18)
        if not data:
            raise ConnectionError("the connection ended")
        for event in self.h2.receive_data(data):
            if isinstance(event, h2.events.RequestReceived) and not self.stream:
                headers = list(event.headers)
                self.stream, self.arrival = event.stream_id, Arrival(dict(headers)[":path"], headers)
                self.arrivals.append(self.arrival)
            elif isinstance(event, h2.events.DataReceived):
                self.arrival.body += event.data
                self.arrival.length += len(event.data)
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, h2.events.StreamEnded):
                self.arrival.whole = True
        self.flush()

    def head(self) -> Arrival:
        while not self.arrival:
            self.more()
        return self.arrival

    def body(self) -> Arrival:
        while not self.head().whole:
            self.more()
        return self.arrival

    def headers(self, status: int, fields: dict, end: bool = False):
        self.h2.send_headers(self.stream, [(":status", str(status)), *fields.items()], end_stream=end)
        self.flush()

    def data(self, data: bytes, end: bool = False):
        self.h2.send_data(self.stream, data, end_stream=end)
        self.flush()

    def trailers(self, fields: dict):
        self.h2.send_headers(self.stream, list(fields.items()), end_stream=True)
        self.flush()

    def reset(self):
        self.h2.reset_stream(self.stream, 2)
        self.flush()

    def close(self):
        """Says that it takes no other request on this connection."""
        self.h2.close_connection()
        self.flush()


class Http2Model(Model):
    def wire(self, connection: socket.socket):
        return Http2Wire(connection, self.arrivals)


def document(text: str) -> bytes:
    """A chat completion."""
    return json.dumps({"id": "chatcmpl-1", "object": "chat.completion", "created": 1700000000, "model": "gpt-4o-mini",
                       "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
                       "usage": {"prompt_tokens": 9, "completion_tokens": 12, "total_tokens": 21}}).encode()


def event(text: str = "", finish: str | None = None) -> bytes:
    """One event of a streamed chat completion."""
    return b"data: " + json.dumps({"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1700000000, "model": "gpt-4o-mini",
                                   "choices": [{"index": 0, "delta": {"content": text} if text else {}, "finish_reason": finish}]}).encode() + b"\n\n"


DONE = b"data: [DONE]\n\n"
JSON = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
SSE = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
