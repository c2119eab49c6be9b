"""A collector of traces: takes OTLP over HTTP and remembers every span."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest, ExportTraceServiceResponse

from .process import wait_until


@dataclass
class Span:
    """One span; ids in hex, times in seconds."""

    service: str
    name: str
    trace: str
    id: str
    parent: str
    start: float
    end: float
    attributes: dict
    status: tuple[int, str]


def plain(value):
    """An attribute's value as Python has it."""
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [plain(one) for one in value.array_value.values]
    return getattr(value, kind)


class Collector:
    """`url` is its address; `silent` lets it take a batch and never answer until `stop`; `status` is what it answers."""

    def __init__(self):
        self.spans: list[Span] = []
        self.bodies: list[bytes] = []
        self.headers: list[dict] = []
        self.status = 200
        self.silent = False
        self._stopped = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def read_chunk(self) -> bytes:
                chunk = self.rfile.read(int(self.rfile.readline(), 16))
                self.rfile.readline()
                return chunk

            def do_POST(self):
                if self.headers["transfer-encoding"] == "chunked":  # as Envoy sends its own
                    body = b"".join(iter(self.read_chunk, b""))
                else:
                    body = self.rfile.read(int(self.headers["content-length"]))
                if outer.silent:
                    outer._stopped.wait(60)
                assert self.path == "/v1/traces", self.path
                if outer.status == 200:
                    outer.take(body, dict(self.headers))
                answer = ExportTraceServiceResponse().SerializeToString()
                self.send_response(outer.status)
                self.send_header("content-type", "application/x-protobuf")
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def take(self, body: bytes, headers: dict):
        self.bodies.append(body)
        self.headers.append(headers)
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            named = {a.key: plain(a.value) for a in resource.resource.attributes}
            for scope in resource.scope_spans:
                for span in scope.spans:
                    self.spans.append(Span(
                        named.get("service.name", ""), span.name, span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex(),
                        span.start_time_unix_nano / 1e9, span.end_time_unix_nano / 1e9,
                        {a.key: plain(a.value) for a in span.attributes}, (span.status.code, span.status.message)))

    def of(self, session: str) -> tuple[Span, dict[str, list[Span]]]:
        """The span of a session, once it is here, and its children by name."""
        def whole():
            return [s for s in self.spans if s.attributes.get("countersign.session") == session]

        wait_until(f"the span of {session} is here", whole)
        (span,) = whole()
        children: dict[str, list[Span]] = {}
        for child in self.spans:
            if child.parent == span.id:
                children.setdefault(child.name, []).append(child)
        return span, children

    def stop(self):
        self._stopped.set()
        self._server.shutdown()
        self._server.server_close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()
