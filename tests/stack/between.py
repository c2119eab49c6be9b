"""Stands between Envoy and the service and does to their streams what a network, a proxy or a dying process could."""

from __future__ import annotations

import contextlib
import tempfile
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Callable

import grpc

METHOD = "/envoy.service.ext_proc.v3.ExternalProcessor/Process"
# What the first field of an answer is.
RESPONSE_HEADERS = 2
# How long a stalled stream stays one.
STALL = 20.0

# What becomes of a stream: nothing, or at its `at`th answer: a clean end (which Envoy takes for leave to go on), an error, an answer that is late,
# silence from then on; or Envoy's messages end behind the `at`th.
FAULTS = ("clean_end", "error", "late", "silence", "half_close")


class Between:
    """Passes every message on as it is. `plan()` says for each new stream `(fault, at)`, or `None`.

    A clean end comes before the answer's head was let out only, unless `released_too`: Envoy passes the rest of an answer on then, whoever
    ended the stream.
    """

    def __init__(self, service: Path, plan: Callable[[], tuple[str, int] | None], released_too: bool = False):
        self.released_too = released_too
        self.directory = tempfile.TemporaryDirectory(prefix="cs-")
        self.socket = Path(self.directory.name) / "between.sock"
        self.plan = plan
        self.done: Counter[str] = Counter()
        quick = [("grpc.default_authority", "localhost"), ("grpc.initial_reconnect_backoff_ms", 50), ("grpc.min_reconnect_backoff_ms", 50), ("grpc.max_reconnect_backoff_ms", 100),
                 ("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        self._channel = grpc.insecure_channel(f"unix:{service}", quick)
        self._server = grpc.server(ThreadPoolExecutor(64), options=quick)
        handler = grpc.stream_stream_rpc_method_handler(self._process)
        service_name, method = METHOD[1:].split("/")
        self._server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(service_name, {method: handler})])
        self._server.add_insecure_port(f"unix:{self.socket}")

    def _process(self, requests, context):
        fault, at = self.plan() or (None, 0)
        cut = fault == "half_close"

        def from_envoy():
            # Envoy ends its side in error where a stream was cut.
            with contextlib.suppress(grpc.RpcError):
                for n, request in enumerate(requests):
                    if cut and n > at:
                        self.done[fault] += 1
                        return
                    yield request

        answers = self._channel.stream_stream(METHOD)(from_envoy())
        gone = threading.Event()
        context.add_callback(answers.cancel)
        context.add_callback(gone.set)
        released = False
        try:
            for n, answer in enumerate(answers):
                if n == at and fault in ("clean_end", "error", "late", "silence"):
                    if fault == "clean_end" and (self.released_too or not released):
                        self.done[fault] += 1
                        return
                    if fault == "error":
                        self.done[fault] += 1
                        context.abort(grpc.StatusCode.INTERNAL, "cut")
                    if fault == "late":
                        self.done[fault] += 1
                        gone.wait(0.2)
                    if fault == "silence":
                        self.done[fault] += 1
                        gone.wait(STALL)
                        context.abort(grpc.StatusCode.UNAVAILABLE, "silent for too long")
                released |= answer[0] >> 3 == RESPONSE_HEADERS
                yield answer
        except grpc.RpcError as error:
            context.abort(error.code(), "the service")
        finally:
            answers.cancel()

    def __enter__(self):
        self._server.start()
        return self

    def __exit__(self, *_):
        self._server.stop(0).wait()
        self._channel.close()
        self.directory.cleanup()
