"""A caller that speaks HTTP/2 with prior knowledge."""

from __future__ import annotations

import socket

import h2.config
import h2.connection
import h2.events

from .caller import Reply


class Http2:
    """A connection with prior knowledge, many requests on it. Not for several threads."""

    def __init__(self, url: str):
        host, port = url.removeprefix("http://").split(":")
        self.socket = socket.create_connection((host, int(port)), 20)
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        self.h2.initiate_connection()
        self.replies: dict[int, Reply] = {}
        self.ended: set[int] = set()
        self.flush()

    def flush(self):
        self.socket.sendall(self.h2.data_to_send())

    def send(self, body: bytes, headers: dict, trailers: dict | None = None, path="/v1/chat/completions", method="POST") -> int:
        stream = self.h2.get_next_available_stream_id()
        head = [(":method", method), (":path", path), (":scheme", "http"), (":authority", "gateway"), *headers.items()]
        self.h2.send_headers(stream, head, end_stream=not body and not trailers)
        for at in range(0, len(body), 16384):
            while self.h2.local_flow_control_window(stream) < 16384:
                self.flush()
                self.take()
            piece = body[at : at + 16384]
            self.h2.send_data(stream, piece, end_stream=at + len(piece) == len(body) and not trailers)
        if trailers:
            self.h2.send_headers(stream, list(trailers.items()), end_stream=True)
        self.flush()
        return stream

    def take(self):
        data = self.socket.recv(65536)
        assert data, "the connection was closed"
        for event in self.h2.receive_data(data):
            if isinstance(event, h2.events.ResponseReceived):
                headers = dict(event.headers)
                self.replies[event.stream_id] = Reply(int(headers.pop(":status")), list(headers.items()))
            elif isinstance(event, h2.events.DataReceived):
                self.replies[event.stream_id].body += event.data
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, h2.events.StreamEnded):
                self.ended.add(event.stream_id)
            elif isinstance(event, h2.events.StreamReset):
                self.ended.add(event.stream_id)
                self.replies.setdefault(event.stream_id, Reply(0)).whole = False
        self.flush()

    def answer(self, stream: int) -> Reply:
        while stream not in self.ended:
            self.take()
        return self.replies[stream]
