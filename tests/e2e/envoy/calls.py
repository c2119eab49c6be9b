"""How requests are made and answered in the table: each function's `words` is what the page says of it."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import json
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor

from rig import SSN, Rig
from stack import wait_until
from stack.caller import Reply, finish, prompt
from stack.http2 import Http2
from stack.standin import but
from stack.wire import DONE, JSON, SSE, document, event, reset

ASKED = f"My number is {SSN}."
ANSWERED = f"It is {SSN}."
MASKED = "It is [US_SSN]."
SECONDS = 30


def says(words: str):
    """Gives a function the words by which the page knows it."""

    def mark(function):
        function.words = words
        return function

    return mark


# --- callers ---


class Caller:
    """A connection of HTTP/1.x to Envoy."""

    def __init__(self, rig: Rig, listener: str = "callers"):
        self.rig = rig
        self.socket = socket.create_connection(("127.0.0.1", rig.envoy.ports[listener]), SECONDS)
        self.method = "POST"

    def head(self, host="callers.test", method="POST", path="/v1/chat/completions", version="1.1", token=True, behind=b"", **fields):
        self.method = method
        usual = {"host": host, "content-type": "application/json"}
        if token:
            usual["authorization"] = f"Bearer {self.rig.token()}"
        said = {**usual, **{name.replace("_", "-"): value for name, value in fields.items()}}
        lines = [f"{method} {path} HTTP/{version}", *(f"{name}: {value}" for name, value in said.items() if value is not None)]
        self.send("\r\n".join(lines).encode() + b"\r\n\r\n" + behind)

    def send(self, data: bytes):
        self.socket.sendall(data)

    def response(self) -> http.client.HTTPResponse:
        response = http.client.HTTPResponse(self.socket, method=self.method)
        response.begin()
        return response

    def reply(self) -> Reply:
        try:
            return finish(self.response())
        except (ConnectionError, http.client.RemoteDisconnected, http.client.BadStatusLine):
            return Reply(0, whole=False)

    def go(self):
        """Hangs up at once, without a goodbye."""
        reset(self.socket)


def asked(text: str = ASKED, **more) -> bytes:
    return json.dumps(prompt(text, **more)).encode()


def post(words="a POST with its length", body: bytes | None = None, stream=False, listener="callers", **head):
    """A whole request over HTTP/1.1."""

    def call(rig: Rig) -> Reply:
        data = asked(**({"stream": True} if stream else {})) if body is None else body
        caller = Caller(rig, listener)
        with contextlib.closing(caller.socket):
            caller.head(**{"content_length": len(data), **head})
            with contextlib.suppress(ConnectionError):
                caller.send(data)
            return caller.reply()

    return says(words)(call)


plain = post()
streamed = post("a POST that asks for a stream", stream=True)


def at(host: str, words: str | None = None, **more):
    return post(words or f"a POST over the route `{host}`", host=f"{host}.test", **more)


def chunks(words: str, *parts: bytes, end: bytes = b"0\r\n\r\n", **head):
    def call(rig: Rig) -> Reply:
        caller = Caller(rig)
        with contextlib.closing(caller.socket):
            caller.head(transfer_encoding="chunked", **head)
            for part in parts:
                caller.send(b"%x\r\n%s\r\n" % (len(part), part))
            caller.send(end)
            return caller.reply()

    return says(words)(call)


def without_body(words: str, method: str, **head):
    def call(rig: Rig) -> Reply:
        caller = Caller(rig)
        with contextlib.closing(caller.socket):
            caller.head(method=method, **head)
            return caller.reply()

    return says(words)(call)


@says("`expect: 100-continue`, the body once that came")
def continues(rig: Rig) -> Reply:
    data, caller = asked(), Caller(rig)
    with contextlib.closing(caller.socket):
        caller.head(content_length=len(data), expect="100-continue")
        first = b""
        while b"\r\n\r\n" not in first:
            first += caller.socket.recv(65536)
        assert first.startswith(b"HTTP/1.1 100"), first
        caller.send(data)
        return caller.reply()


@says("a POST over HTTP/1.0")
def old(rig: Rig) -> Reply:
    data, caller = asked(), Caller(rig)
    with contextlib.closing(caller.socket):
        caller.head(version="1.0", content_length=len(data))
        caller.send(data)
        return caller.reply()


def http2(words: str, *parts, method="POST", host="callers.test"):
    """Over HTTP/2. Parts: bytes are a DATA frame, a dict trailers; the last one ends the stream."""

    def call(rig: Rig) -> Reply:
        connection = Http2(rig.envoy.url)
        connection.socket.settimeout(SECONDS)
        with contextlib.closing(connection.socket):
            stream = connection.h2.get_next_available_stream_id()
            target = {":authority": host} if method == "CONNECT" else {":path": "/v1/chat/completions", ":scheme": "http", ":authority": host}
            head = {":method": method, **target, "content-type": "application/json", "authorization": f"Bearer {rig.token()}"}
            connection.h2.send_headers(stream, list(head.items()), end_stream=not parts)
            for n, part in enumerate(parts):
                last = n == len(parts) - 1
                if isinstance(part, dict):
                    connection.h2.send_headers(stream, list(part.items()), end_stream=True)
                else:
                    connection.h2.send_data(stream, part, end_stream=last)
                connection.flush()
            connection.flush()
            return connection.answer(stream)

    return says(words)(call)


# --- WebSockets (RFC 6455) ---

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="  # of that key: section 1.3


def frame(text: bytes, opcode: int = 1, mask: bytes = b"") -> bytes:
    """One short frame; those of a client are masked."""
    masked = bytes(byte ^ mask[n % 4] for n, byte in enumerate(text)) if mask else text
    return bytes([0x80 | opcode, (0x80 if mask else 0) | len(text)]) + mask + masked


def read_frame(exactly) -> tuple[int, bytes]:
    head = exactly(2)
    mask = exactly(4) if head[1] & 0x80 else b""
    text = exactly(head[1] & 0x7F)
    return head[0] & 15, bytes(byte ^ mask[n % 4] for n, byte in enumerate(text)) if mask else text


@says("accepts, and echoes frames until one says goodbye")
def accepts(wire):
    wire.head()
    wire.send(f"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: {ACCEPT}\r\n\r\n".encode())
    wire.send(frame(b"first word is mine"))
    while True:
        opcode, text = read_frame(wire.exactly)
        wire.arrival.body += text
        wire.send(frame(text, opcode))
        if opcode == 8:
            wire.arrival.whole = True
            while wire.more():  # the caller hangs up first
                pass
            return


def websocket(words: str, path="/socket/v1/realtime", who=("alice", "finance"), early=False):
    def call(rig: Rig) -> Reply:
        caller = Caller(rig)
        with contextlib.closing(caller.socket):
            caller.head(host="upgrades.test", method="GET", path=path, token=False, authorization=f"Bearer {rig.token(*who)}", connection="Upgrade",
                        upgrade="websocket", sec_websocket_version="13", sec_websocket_key=KEY,
                        behind=b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n" if early else b"")
            head = b""
            while b"\r\n\r\n" not in head:
                head += caller.socket.recv(1)
            if not head.startswith(b"HTTP/1.1 101"):
                return declined(caller, head)
            assert ACCEPT.encode() in head and b"countersign-session" in head
            with caller.socket.makefile("rb") as stream:
                assert read_frame(stream.read) == (1, b"first word is mine")
                for n in range(20):
                    said = f"number {n} is {SSN}".encode()
                    caller.send(frame(said, mask=b"abcd"))
                    assert read_frame(stream.read) == (1, said), "it passes as it is"
                caller.send(frame(b"\x03\xe8", 8, b"abcd"))
                assert read_frame(stream.read) == (8, b"\x03\xe8")
        rig.idle_soon()
        told = [record for record in rig.ledger.records[rig.mark:] if "opened" in record or "closed" in record]
        assert told[0]["opened"]["request"]["unscanned"] == ["websocket"] and not told[0]["opened"]["request"].get("body")
        return Reply(101)

    return says(words)(call)


def declined(caller: Caller, head: bytes) -> Reply:
    """The rest of an answer that is no switch."""
    status, *fields = head.decode().strip().split("\r\n")
    headers = [tuple(one.split(": ", 1)) for one in fields]
    length = int(dict(headers).get("content-length", 0))
    with caller.socket.makefile("rb") as stream:
        return Reply(int(status.split()[1]), headers, stream.read(length))


# --- callers who go away ---


def leaves(words: str, phase: str):
    """A caller who hangs up at `phase`."""

    def call(rig: Rig):
        data, caller = asked(stream=phase == "stream", model="gpt-approve" if phase == "hold" else "gpt-4o-mini"), Caller(rig)
        if phase == "connect":
            return caller.go()
        if phase == "head":
            caller.send(b"POST /v1/chat/completions HTTP/1.1\r\nhost: callers.test\r\n")
            return caller.go()
        caller.head(content_length=len(data))
        if phase != "before-body":
            caller.send(data[: len(data) // 2])
        if phase in ("before-body", "body"):
            wait_until("it is on its way", lambda: not rig.idle())
            wait_until("it is known who calls", lambda: rig.countersign.metrics()["countersign_streams"] == 1)
            time_to_know(rig)
            return caller.go()
        caller.send(data[len(data) // 2 :])
        if phase == "hold":
            rig.pending()
        elif phase == "thinking":
            wait_until("the model has it", lambda: rig.arrivals and rig.arrivals[0].whole)
        elif phase == "answer":
            wait_until("half of the answer left", lambda: rig.said.is_set())
        else:
            response = caller.response()
            got = b""
            while b"Begun" not in got:
                got += response.read1(65536)
        caller.go()
        return None

    return says(words)(call)


def time_to_know(rig: Rig):
    """Until the token of this request has been checked: that another one, sent later, is answered."""
    caller = Caller(rig)
    with contextlib.closing(caller.socket):
        caller.head(content_length=1, token=False)
        assert caller.reply().status == 401


# --- bodies that are large ---


def large(words: str, size: int, path: str = "/big/v1/chat/completions"):
    """A prompt of `size` bytes, sent as fast as Envoy takes it; what the service's memory grew by is kept on the rig."""

    def call(rig: Rig) -> Reply:
        head, tail = b'{"model":"gpt-4o-mini","messages":[{"role":"user","content":"', b'"}]}'
        caller, filler = Caller(rig), b"All work and no play makes a dull day. " * 25_000
        before, most = resident(rig.countersign.pid), 0
        with contextlib.closing(caller.socket):
            caller.head(path=path, content_length=len(head) + size + len(tail))
            with contextlib.suppress(ConnectionError):
                caller.send(head)
                left = size
                while left:
                    part = filler[:left]
                    caller.send(part)
                    left -= len(part)
                    most = max(most, resident(rig.countersign.pid))
                caller.send(tail)
            reply = caller.reply()
        rig.grew = max(most, resident(rig.countersign.pid)) - before
        return reply

    return says(words)(call)


@says("a POST that asks for a stream, and reads it slowly")
def reads_slowly(rig: Rig) -> Reply:
    data, caller = asked(stream=True), Caller(rig)
    before, most, got = resident(rig.countersign.pid), 0, 0
    with contextlib.closing(caller.socket):
        caller.head(path="/big/v1/chat/completions", content_length=len(data))
        caller.send(data)
        response, tail = caller.response(), b""
        while part := response.read1(1 << 20):
            assert SSN.encode() not in tail + part
            got, tail = got + len(part), (tail + part)[-200:]
            grown = resident(rig.countersign.pid)
            if grown > most:
                most = grown
            if got < 4 << 20:
                time.sleep(0.02)  # slower than the model: what it says must wait there
    rig.grew = most - before
    return Reply(response.status, response.getheaders(), tail, tail.endswith(DONE))


def resident(pid: int) -> int:
    """Bytes of its memory that are in RAM."""
    lines = open(f"/proc/{pid}/status").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) * 1024


# --- the service fails ---


def stand_in(words: str, **changes):
    """A POST while a stand-in for the service does something else at some messages than it should."""

    def call(rig: Rig) -> Reply:
        rig.behave = but(**changes)
        return at("standin", stream=True)(rig)

    return says(words)(call)


def service_is(words: str, how: str, host: str = "callers"):
    def call(rig: Rig) -> Reply:
        if how == "stopped":
            rig.countersign.signal(signal.SIGSTOP)
            try:
                return at(host)(rig)
            finally:
                rig.countersign.signal(signal.SIGCONT)
                wait_until("it serves again", lambda: without_body("", "POST", token=False, content_length=0)(rig).status == 401)
        rig.countersign.kill()
        try:
            return at(host)(rig)
        finally:
            rig.countersign.start()

    return says(words)(call)


def in_mid_stream(words: str, how: signal.Signals):
    """What becomes of a stream whose service gets this signal."""

    def call(rig: Rig) -> Reply:
        data, caller = asked(stream=True), Caller(rig)
        with contextlib.closing(caller.socket):
            caller.head(content_length=len(data))
            caller.send(data)
            response = caller.response()
            got = b""
            while b"Begun" not in got:
                got += response.read1(65536)
            if how == signal.SIGKILL:
                rig.countersign.kill()
            else:
                rig.countersign.signal(how)
            rig.go_on.set()
            rest = finish(response)
        if how == signal.SIGKILL:
            rig.countersign.start()
        else:
            rig.countersign.signal(signal.SIGCONT)
        return Reply(response.status, response.getheaders(), got + rest.body, rest.whole)

    return says(words)(call)


@says("a second POST while one is under way, over a cluster that takes one")
def second(rig: Rig) -> Reply:
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(at("tight"), rig)
        wait_until("the first is with the model", lambda: rig.arrivals)
        reply = at("tight")(rig)
        rig.go_on.set()
        assert first.result(SECONDS).status == 200
    return reply


# --- approvals ---


def held(words: str, host: str = "callers"):
    """A POST that somebody approves."""

    def call(rig: Rig) -> Reply:
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(at(host, body=asked(model="gpt-approve")), rig)
            rig.approve(rig.pending())
            return waiting.result(SECONDS)

    return says(words)(call)


# --- what the model server does ---


def answers(words: str, head: bytes, *parts: bytes, reads=True, chunked=False, end=b"", breaks=False):
    def play(wire):
        wire.body()
        wire.send(head)
        for part in parts:
            (wire.chunk if chunked else wire.send)(part)
        wire.send(end)
        if breaks:
            wire.reset()

    return says(words)(play)


def sized(head: bytes, body: bytes) -> bytes:
    return head + b"content-length: %d\r\nconnection: close\r\n\r\n" % len(body)


DOCUMENT = document(ANSWERED)
HALF = len(DOCUMENT) // 2
usual = answers("answers with its length", sized(JSON, DOCUMENT), DOCUMENT)
EVENTS = [event("Begun: "), event("It is 536-22-"), event("8145."), event(finish="stop")]
sse = answers("answers with events", SSE, *EVENTS, DONE, chunked=True, end=b"0\r\n\r\n")


def pauses(words: str, *before: bytes, after: tuple = (), head: bytes = SSE, end=b"0\r\n\r\n", breaks=False):
    """Says `before`, waits until the caller's side says to go on, says `after`."""

    def play(wire):
        wire.body()
        wire.send(head)
        for part in before:
            wire.chunk(part)
        wire.rig.said.set()
        wire.rig.go_on.wait(SECONDS)
        for part in after:
            wire.chunk(part)
        if breaks:
            wire.reset()
        else:
            wire.send(end)

    return says(words)(play)


@says("thinks")
def thinks(wire):
    wire.body()
    wire.rig.go_on.wait(SECONDS)
    usual_of(wire)


def usual_of(wire):
    wire.send(sized(JSON, DOCUMENT) + DOCUMENT)


def resets(words: str, phase: str):
    def play(wire):
        if phase == "connect":
            return wire.reset()
        if phase == "head":
            wire.head()
            return wire.reset()
        if phase == "body":
            wire.body(stop=100_000)
            return wire.reset()
        wire.body()
        if phase == "response-head":
            wire.send(sized(JSON, DOCUMENT))
        elif phase == "document":
            wire.send(sized(JSON, DOCUMENT) + DOCUMENT[:HALF])
        elif phase in ("stream", "terminal"):
            wire.send(SSE)
            for part in EVENTS[: 2 if phase == "stream" else 4]:
                wire.chunk(part)
            if phase == "terminal":
                wire.chunk(DONE)
            wire.rig.said.set()
            wire.rig.go_on.wait(0.2)
        wire.reset()

    return says(words)(play)


def http2_answers(words: str, status: int, fields: dict, *parts, ends_on_headers=False, resets=False):
    """Over HTTP/2. Parts as of `http2`."""

    def play(wire):
        wire.body()
        wire.headers(status, fields, end=ends_on_headers)
        for n, part in enumerate(parts):
            if isinstance(part, dict):
                wire.trailers(part)
            else:
                wire.data(part, end=n == len(parts) - 1 and not resets)
        if resets:
            wire.reset()
        wire.close()

    return says(words)(play)


def fails_first(words: str, times: int, how: str):
    """Fails the first `times` tries and answers the next one."""

    def play(wire):
        wire.body()
        if len(wire.arrivals) > times:
            usual_of(wire)
        elif how == "reset":
            wire.reset()
        else:
            wire.send(b"HTTP/1.1 503 Busy\r\ncontent-type: application/json\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}")

    return says(words)(play)


def streams(words: str, size: int):
    """A stream of about `size` bytes."""

    def play(wire):
        wire.body()
        wire.send(SSE)
        one = event("Nothing but words, one after the other, none of which is anybody's. " * 150) * 10
        for _ in range(max(1, size // len(one))):
            wire.chunk(one)
        wire.chunk(event(ANSWERED) + event(finish="stop") + DONE)
        wire.send(b"0\r\n\r\n")

    return says(words)(play)


def packed(encoding: str, body: bytes):
    data = gzip.compress(body) if encoding == "gzip" else body
    head = JSON + f"content-encoding: {encoding}\r\n".encode()
    return answers(f"answers in `{encoding}` although none was asked for", sized(head, data), data)
