"""What could be read in two ways, or not at all, is refused: with a stable code, on record, and before anyone upstream sees it."""

import gzip
import json
import zlib

import openai
import pytest
from stack.caller import call, prompt, raw

GOOD = json.dumps(prompt())


def message(content: bytes) -> bytes:
    return b'{"model":"gpt-4o-mini","messages":[{"role":"user","content":' + content + b"}]}"


BODIES = {
    "nothing": (b"", "empty_body"),
    "not-json": (b"Hello", "invalid_json"),
    "cut-off": (GOOD[:-2].encode(), "truncated_json"),
    "two-documents": (GOOD.encode() * 2, "trailing_data"),
    "trailing-comma": (GOOD[:-1].encode() + b",}", "invalid_json"),
    "nan": (GOOD[:-1].encode() + b',"top_p":NaN}', "invalid_number"),
    "an-array": (b"[" + GOOD.encode() + b"]", "unknown_shape"),
    "a-string": (b'"Hello"', "unknown_shape"),
    "no-model": (b'{"messages":[{"role":"user","content":"Hello"}]}', "missing_model"),
    "a-model-that-is-no-name": (b'{"model":7,"messages":[{"role":"user","content":"Hello"}]}', "invalid_model"),
    "no-messages": (b'{"model":"gpt-4o-mini"}', "unknown_shape"),
    "duplicate-key": (b'{"model":"gpt-4o-mini","model":"gpt-5-pro","messages":[]}', "duplicate_key"),
    "duplicate-key-by-escape": (b'{"model":"gpt-4o-mini","mod\\u0065l":"gpt-5-pro","messages":[]}', "duplicate_key"),
    "duplicate-key-inside": (b'{"model":"gpt-4o-mini","messages":[{"role":"user","content":"a","content":"b"}]}', "duplicate_key"),
    "case-variant-key": (b'{"model":"gpt-4o-mini","Model":"gpt-5-pro","messages":[]}', "case_variant_key"),
    "case-variant-key-alone": (b'{"MODEL":"gpt-4o-mini","messages":[{"role":"user","content":"Hello"}]}', None),
    "invalid-utf8": (message(b'"\xff\xfe"'), "invalid_utf8"),
    "overlong-utf8": (message(b'"\xc0\xaf"'), "invalid_utf8"),
    "surrogate-in-utf8": (message(b'"\xed\xa0\x80"'), "invalid_utf8"),
    "lone-surrogate": (message(b'"\\ud800"'), None),
    "byte-order-mark": (b"\xef\xbb\xbf" + GOOD.encode(), None),
    "utf16": (GOOD.encode("utf-16"), None),
    "control-character": (message(b'"a\x01b"'), "control_character"),
    "bottomless": (b'{"a":' * 5000 + b"1" + b"}" * 5000, None),
    "stream-that-is-no-flag": (b'{"model":"gpt-4o-mini","stream":"yes","messages":[]}', "invalid_stream"),
}


@pytest.mark.parametrize("case", BODIES)
def test_a_body_that_is_not_what_it_should_be_is_400(site, case):
    body, code = BODIES[case]
    reply = site.call(body)
    assert reply.status == 400, reply
    site.refused(reply, 400, code or reply.code)
    assert reply.json["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize("content_type, code", [
    ("text/plain", "unsupported_content_type"), ("application/x-www-form-urlencoded", "unsupported_content_type"),
    ("application/json; charset=utf-16", "unsupported_content_type"), ("application/jsonp", "unsupported_content_type"),
    ("multipart/form-data; boundary=x", "unsupported_content_type"), (None, "missing_content_type"),
], ids=str)
def test_a_content_type_that_is_not_the_dialects_is_400(site, content_type, code):
    site.refused(site.call(headers={"content-type": content_type}), 400, code)


def test_two_content_types_are_refused(site):
    # Envoy makes one of them, with a comma: that is none we know.
    site.refused(site.call(headers=[("content-type", "text/plain")]), 400, "unsupported_content_type")
    site.refused(site.call(headers=[("content-type", "application/json")]), 400, "unsupported_content_type")


@pytest.mark.parametrize("encoding, pack", [("gzip", gzip.compress), ("deflate", zlib.compress), ("br", bytes), ("identity, gzip", gzip.compress)])
def test_a_compressed_body_is_415(site, encoding, pack):
    site.refused(site.call(pack(GOOD.encode()), headers={"content-encoding": encoding}), 415, "encoded_request")


def test_a_body_that_is_compressed_and_does_not_say_so_is_400(site):
    reply = site.call(gzip.compress(GOOD.encode()))
    site.refused(reply, 400, reply.code)


def test_a_body_over_the_cap_is_413_and_one_under_it_is_not(site):
    assert site.call(prompt("a" * (7 << 20))).status == 200
    site.upstream.requests.clear()
    site.refused(site.call(prompt("a" * (8 << 20))), 413, "request_too_large")


def test_the_sdk_raises_its_own_error_for_a_body_over_the_cap(site):
    with pytest.raises(openai.APIStatusError) as error:
        site.openai().chat.completions.create(**prompt("a" * (8 << 20)))
    assert (error.value.status_code, error.value.code) == (413, "request_too_large")


def test_the_sdk_raises_its_own_error_for_a_bad_request(site):
    with pytest.raises(openai.BadRequestError) as error:
        site.openai().chat.completions.create(**prompt(), extra_body={"MODEL": "gpt-5-pro"})
    assert error.value.code == "case_variant_key" and error.value.type == "invalid_request_error"
    assert site.upstream.requests == []


@pytest.mark.parametrize("query", ["model=gpt-5-pro", "MODEL=gpt-5-pro", "m%6fdel=gpt-5-pro", "a=1&model=gpt-4o-mini"])
def test_a_model_in_the_query_is_refused(site, query):
    site.refused(site.call(path=f"/v1/chat/completions?{query}"), 400, "conflicting_model")


def test_trailers_of_http_1_go_nowhere(site):
    # Envoy takes them off: what was decided on is what the model gets. Those of HTTP/2 are refused (test_http2.py).
    body = GOOD.encode()
    said = (b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\n"
            b"authorization: Bearer %s\r\ntransfer-encoding: chunked\r\ntrailer: x-model\r\n\r\n%x\r\n%s\r\n0\r\nx-model: gpt-5-pro\r\n\r\n"
            % (site.tokens().encode(), len(body), body))
    answer = raw(site.url, said)
    if answer.startswith(b"HTTP/1.1 200"):
        assert "gpt-5-pro" not in str(site.upstream.last) and site.upstream.last.body == body
    else:
        assert answer.startswith(b"HTTP/1.1 400") and site.upstream.requests == []


@pytest.mark.parametrize("path", ["/v1%2Fchat/completions", "/v1/chat%2fcompletions", "/v1%5Cchat/completions", "/v1/%2e%2e/v1%2fchat"])
def test_escaped_slashes_are_refused_by_envoy_and_seen_by_nobody(site, path):
    reply = site.call(path=path)
    assert reply.status == 400 and site.upstream.requests == []


@pytest.mark.parametrize("path, code", [
    ("/v1/chat/completion%C3%A9", "odd_path"), ("/v1/chat/completions%00", None), ("/v1/chat;x=1/completions", "odd_path"),
    ("/v1/chat/completions%3fmodel=x", "odd_path"), ("/v1/chat%20/completions", "odd_path"),
])
def test_a_path_with_a_second_reading_is_refused(site, path, code):
    reply = site.call(path=path)
    assert reply.status in (400, 403, 404) and site.upstream.requests == []
    if code:
        assert reply.code == code


@pytest.mark.parametrize("path", ["//v1//chat/completions", "/v1/./chat/completions", "/x/../v1/chat/completions", "/v1/chat/completion%73"])
def test_a_path_is_put_in_its_plain_form_before_anyone_decides(site, path):
    reply = site.call(path=path)
    # Envoy settles it: then what was decided on is what the model gets; else it is refused.
    if reply.status == 200:
        assert site.upstream.last.path == "/v1/chat/completions"
        assert site.records(reply.session)[0]["opened"]["endpoint"]["path"] == "/v1/chat/completions"
    else:
        assert reply.status in (400, 404) and site.upstream.requests == []


def test_a_path_that_leaves_its_connection_by_dots_is_decided_where_it_arrives(site):
    # "plain" lets everybody in; bob must not get from there to the connection that refuses him.
    reply = site.call(client="bob-app", path="/plain/v1/../../v1/chat/completions")
    assert reply.status in (400, 403) and site.upstream.requests == []


def test_a_header_with_an_underscore_is_refused(site):
    sent = (b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\nx_api_key: k\r\n"
            b"authorization: Bearer %s\r\ncontent-length: %d\r\n\r\n%s" % (site.tokens().encode(), len(GOOD), GOOD.encode()))
    answer = raw(site.url, sent)
    assert answer == b"" or answer.startswith(b"HTTP/1.1 400")
    assert site.upstream.requests == []


@pytest.mark.parametrize("headers", [
    b"connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n",
    b"connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n",
], ids=["websocket", "h2c"])
def test_an_upgrade_is_not_made(site, headers):
    sent = (b"GET /v1/chat/completions HTTP/1.1\r\nhost: x\r\n%sauthorization: Bearer %s\r\n\r\n" % (headers, site.tokens().encode()))
    host_answer = raw_head(site.url, sent)
    assert host_answer.split(b" ")[1] in (b"400", b"403"), host_answer
    assert b"101" not in host_answer.split(b"\r\n")[0] and site.upstream.requests == []


def raw_head(url: str, data: bytes) -> bytes:
    """The answer's head; the connection may stay open behind it."""
    import socket
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), 20) as connection:
        connection.sendall(data)
        got = b""
        while b"\r\n\r\n" not in got and (part := connection.recv(65536)):
            got += part
        return got


def test_smuggled_lengths_are_refused(site):
    sent = (b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\nauthorization: Bearer %s\r\n"
            b"content-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nGET /v1/models HTTP/1.1\r\nhost: x\r\n\r\n" % site.tokens().encode())
    raw_head(site.url, sent)
    assert site.upstream.requests == []


def test_content_that_cannot_be_looked_into_is_refused_by_default(site):
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
    body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": [{"type": "text", "text": "What is this?"}, image]}]}
    site.refused(site.call(body), 400, "unscannable_content")


def test_a_request_that_hangs_up_in_its_body_leaves_nothing(site):
    import socket
    from stack import wait_until
    before = site.countersign.metrics().get("countersign_streams", 0)
    host, port = site.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), 10) as connection:
        connection.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\nauthorization: Bearer %s\r\n"
                           b"content-length: 1000\r\n\r\n{" % site.tokens().encode())
        wait_until("the request is on its way", lambda: site.countersign.metrics()["countersign_streams"] > before)
    wait_until("the stream is over", lambda: site.countersign.metrics()["countersign_streams"] <= before)
    assert site.upstream.requests == []


def test_what_a_refusal_says_repeats_nothing_of_the_request(site):
    for body in [b'{"secret-key-xyzzy": ', message(b'"secret-xyzzy\xff"'), b'{"model":"gpt-4o-mini","a-xyzzy":1,"A-xyzzy":2,"messages":[]}']:
        reply = site.call(body)
        assert reply.status == 400 and b"xyzzy" not in reply.body, reply
        assert "xyzzy" not in json.dumps(site.records(reply.session))


def test_every_answer_names_its_session(site):
    replies = [site.call(), site.call(b"x"), site.call(client=None), site.call(path="/v2"), site.call(client="bob-app"),
               call(site.url, site.tokens(), prompt(stream=True))]
    sessions = [reply.session for reply in replies]
    assert all(sessions) and len(set(sessions)) == len(sessions)
