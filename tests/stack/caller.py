"""A caller that can say exactly which bytes it sends, for what no SDK would send."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import ssl
from dataclasses import dataclass, field


@dataclass
class Reply:
    """An answer; `whole` is false where the connection ended before the answer did."""

    status: int
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""
    whole: bool = True

    def header(self, name: str) -> str | None:
        found = [value for key, value in self.headers if key.lower() == name]
        assert len(found) < 2, f"`{name}` came {len(found)} times"
        return found[0] if found else None

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def code(self) -> str | None:
        """The stable code of a refusal in OpenAI's shape, after a look at that shape."""
        error = self.json["error"]
        assert set(error) == {"message", "type", "param", "code"} and error["message"], error
        assert self.header("content-type") == "application/json"
        return error["code"]

    @property
    def session(self) -> str:
        return self.header("countersign-session")


def prompt(text: str = "Hello", model: str = "gpt-4o-mini", **more) -> dict:
    """A chat completion as the SDKs send it."""
    return {"model": model, "messages": [{"role": "user", "content": text}], **more}


def call(url: str, token: str | None = None, body: bytes | dict | None = None, headers: dict | list | None = None, method: str = "POST",
         path: str = "/v1/chat/completions", seconds: float = 30, tls: ssl.SSLContext | None = None) -> Reply:
    """One request on a connection of its own. `headers` may repeat a name, as a list of pairs; a `None` in a dict leaves a usual one out.
    With `tls`, over it."""
    with contextlib.closing(begin(url, token, body, headers, method, path, seconds, tls)) as connection:
        return finish(connection.getresponse())


def begin(url, token=None, body=None, headers=None, method="POST", path="/v1/chat/completions", seconds=30, tls=None) -> http.client.HTTPConnection:
    """Sends the request; the caller reads the answer."""
    body = prompt() if body is None else body
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    usual = {"content-type": "application/json", "content-length": str(len(data))}
    if token is not None:
        usual["authorization"] = f"Bearer {token}"
    if isinstance(headers, list):
        said = [*usual.items(), *headers]
    else:
        said = [(k, v) for k, v in {**usual, **(headers or {})}.items() if v is not None]
    host = url.removeprefix("http://")
    connection = http.client.HTTPSConnection(host, timeout=seconds, context=tls) if tls else http.client.HTTPConnection(host, timeout=seconds)
    connection.putrequest(method, path, skip_accept_encoding=True)
    for name, value in said:
        connection.putheader(name, value)
    connection.endheaders(data)
    return connection


def finish(response: http.client.HTTPResponse) -> Reply:
    """Reads the answer to its end, or as far as it comes."""
    parts, whole = [], True
    try:
        while part := response.read1(65536):
            parts.append(part)
    except (http.client.HTTPException, ConnectionError):
        whole = False
    return Reply(response.status, response.getheaders(), b"".join(parts), whole)


def read_until(response: http.client.HTTPResponse, wanted: bytes) -> bytes:
    """What came until `wanted` was in it."""
    got = b""
    while wanted not in got:
        piece = response.read1(65536)
        assert piece, got
        got += piece
    return got


def raw(url: str, data: bytes, seconds: float = 30) -> bytes:
    """Sends these bytes and reads until the other side closes."""
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), seconds) as connection:
        connection.sendall(data)
        parts = []
        with contextlib.suppress(ConnectionResetError):
            while part := connection.recv(65536):
                parts.append(part)
        return b"".join(parts)


def events(body: bytes) -> list:
    """The data of an event stream's events, parsed where it is JSON."""
    found = []
    for event in body.decode().split("\n\n"):
        if event.startswith("data: "):
            data = event.removeprefix("data: ")
            found.append(data if data == "[DONE]" else json.loads(data))
    return found


def text_of(body: bytes) -> str:
    """What the deltas of an event stream say together."""
    deltas = [choice["delta"].get("content") or "" for event in events(body) if event != "[DONE]" for choice in event.get("choices", [])]
    return "".join(deltas)
