"""A stand-in for the service, as small as one can be: it writes the few protobuf bytes of its answers by hand.

For what the real one never does, such as ending its stream early and cleanly.
"""

from __future__ import annotations

import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc

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
