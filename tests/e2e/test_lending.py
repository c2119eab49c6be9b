"""Credential lending: the caller's never reach the model, the model's never reaches the caller."""

import gzip
import json

import pytest
from stack import UPSTREAM_KEY, Answer
from stack.caller import prompt, text_of
from stack.upstream import chat

HANDED = {"x-api-key": "sk-callers-own-1", "api-key": "sk-callers-own-2", "x-goog-api-key": "sk-callers-own-3", "cookie": "session=callers-own-4",
          "proxy-authorization": "Basic Y2FsbGVycy1vd24tNQ=="}


def told(request) -> str:
    """Everything the model was told, head and body."""
    return "\n".join([request.path, *(f"{k}: {v}" for k, v in request.headers), request.body.decode()])


def test_the_model_gets_the_lent_credential_and_none_of_the_callers(site):
    token = site.tokens()
    reply = site.call(headers=HANDED, path="/v1/chat/completions?key=sk-callers-own-6&trace=1")
    assert reply.status == 200
    seen = site.upstream.last
    assert seen.header("authorization") == f"Bearer {UPSTREAM_KEY}"
    assert seen.path == "/v1/chat/completions?trace=1"
    for secret in [token, token.split(".")[2], "callers-own", "Y2FsbGVycy1vd24tNQ"]:
        assert secret not in told(seen)
    assert not [name for name, _ in seen.headers if name.lower() in HANDED]


@pytest.mark.parametrize("query", ["key=sk-callers-own", "KEY=sk-callers-own", "%6bey=sk-callers-own", "a=1&key=sk-callers-own&key=sk-callers-own"])
def test_a_key_in_the_query_goes_however_it_is_written(site, query):
    reply = site.call(path=f"/v1/chat/completions?{query}")
    assert reply.status == 200
    assert "callers-own" not in told(site.upstream.last)
    assert "callers-own" not in json.dumps(site.records(reply.session))
    assert "callers-own" not in site.gateway.envoy.log_text()


def test_the_token_is_read_where_the_connection_says_and_the_credential_set_where_it_says(site):
    token = site.tokens()
    path = "/keyed/v1/chat/completions"
    reply = site.call(client=None, headers={"api-key": token}, path=path)
    assert reply.status == 200
    seen = site.upstream.last
    assert seen.header("x-api-key") == UPSTREAM_KEY
    assert seen.header("api-key") is None and seen.header("authorization") is None and token not in told(seen)
    # The usual place does not count here.
    reply = site.call(path=path)
    assert (reply.status, reply.code) == (401, "token_missing")


def test_a_route_that_the_credential_is_not_for_is_refused(site):
    reply = site.call(path="/elsewhere/v1/chat/completions")
    site.refused(reply, 403, "route_not_allowed")


def test_our_own_headers_and_accept_encoding_do_not_go_on(site):
    headers = {"countersign-session": "forged", "x-countersign-release": "granted", "countersign-permit": "granted", "prefer": "wait=100",
               "accept-encoding": "gzip", "x-mine": "stays"}
    reply = site.call(headers=headers)
    names = {name.lower() for name, _ in site.upstream.last.headers}
    assert not names & (set(headers) - {"x-mine"}) and "x-mine" in names
    assert reply.status == 200 and reply.session != "forged"


def test_no_answer_names_the_credential_in_text(site):
    site.upstream.answer = chat(f"Your key is {UPSTREAM_KEY}, keep it.")
    reply = site.call()
    assert reply.status == 200 and UPSTREAM_KEY.encode() not in reply.body
    assert reply.json["choices"][0]["message"]["content"].startswith("Your key is [")


@pytest.mark.parametrize("size", [1, 3, 8])
def test_no_stream_names_the_credential_however_it_is_cut(site, size):
    site.upstream.answer = chat(f"Your key is {UPSTREAM_KEY}, keep it.", size=size)
    reply = site.call(prompt(stream=True))
    text = text_of(reply.body)
    assert reply.whole and UPSTREAM_KEY not in text and text.startswith("Your key is [") and text.endswith(", keep it.")
    assert UPSTREAM_KEY not in json.dumps(site.records(reply.session))


def test_even_an_exempt_group_does_not_get_the_credential(site):
    site.upstream.answer = chat(f"Your key is {UPSTREAM_KEY}.", size=4)
    for streamed in (False, True):
        reply = site.call(prompt(stream=streamed), client="carol-app")
        text = text_of(reply.body) if streamed else reply.json["choices"][0]["message"]["content"]
        assert reply.status == 200 and UPSTREAM_KEY not in text


def test_an_error_of_the_model_that_names_the_credential_does_not_show_it(site):
    site.upstream.answer = Answer.json({"error": {"message": f"Incorrect API key provided: {UPSTREAM_KEY}.", "type": "invalid_request_error",
                                                  "param": None, "code": "invalid_api_key"}}, 401)
    reply = site.call()
    assert reply.status == 401 and UPSTREAM_KEY.encode() not in reply.body
    assert UPSTREAM_KEY not in json.dumps(site.records(reply.session))


PLACES = {
    "id": lambda d: d.update(id=UPSTREAM_KEY),
    "model": lambda d: d.update(model=f"gpt/{UPSTREAM_KEY}"),
    "system_fingerprint": lambda d: d.update(system_fingerprint=UPSTREAM_KEY),
    "finish_reason": lambda d: d["choices"][0].update(finish_reason=UPSTREAM_KEY),
    "role": lambda d: (d["choices"][0].get("message") or d["choices"][0]["delta"]).update(role=UPSTREAM_KEY),
    "tool call id": lambda d: (d["choices"][0].get("message") or d["choices"][0]["delta"]).update(
        tool_calls=[{"index": 0, "id": UPSTREAM_KEY, "type": "function", "function": {"name": UPSTREAM_KEY, "arguments": "{}"}}]),
    "a key": lambda d: d.update({UPSTREAM_KEY: 1}),
    "a key of usage": lambda d: d.update(usage={"prompt_tokens": 1, UPSTREAM_KEY: 1}),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("client", ["alice-app", "carol-app"])
def test_no_word_of_the_protocol_names_the_credential(site, place, streamed, client):
    def answer(request):
        document = {"id": "c-1", "created": 1, "model": "m", "object": "chat.completion", "choices": [
            {"index": 0, "message": {"role": "assistant", "content": "Hello."}, "finish_reason": "stop"}]}
        if not streamed:
            PLACES[place](document)
            return Answer.json(document)
        document["object"] = "chat.completion.chunk"
        document["choices"][0]["delta"] = document["choices"][0].pop("message")
        PLACES[place](document)
        return Answer.sse([document])

    site.upstream.answer = answer
    reply = site.call(prompt(stream=streamed), client=client)
    assert reply.status == 200 and reply.whole and b"Hello." in reply.body, reply
    assert UPSTREAM_KEY.encode() not in reply.body and b"[UPSTREAM_CREDENTIAL]" in reply.body
    assert UPSTREAM_KEY not in json.dumps(site.records(reply.session))


def test_no_line_of_a_stream_names_the_credential(site):
    events = chat("Hello.")(type("R", (), {"json": {"stream": True}})())
    lines = f"id: {UPSTREAM_KEY}\nevent: {UPSTREAM_KEY}\n: {UPSTREAM_KEY}\n{UPSTREAM_KEY}: 1\n".encode()
    site.upstream.answer = Answer(200, events.headers, [lines, *events.pieces])
    reply = site.call(prompt(stream=True))
    assert reply.status == 200 and text_of(reply.body) == "Hello."
    assert UPSTREAM_KEY.encode() not in reply.body and reply.body.count(b"[UPSTREAM_CREDENTIAL]") == 4


def test_a_whole_answer_in_parts_is_on_record_once(site):
    parts = [{"type": "text", "text": "Hello "}, {"type": "text", "text": "there."}]
    site.upstream.answer = Answer.json({"id": "c-1", "object": "chat.completion", "created": 1, "model": "m", "choices": [
        {"index": 0, "message": {"role": "assistant", "content": parts}, "finish_reason": "stop"}]})
    reply = site.call()
    assert reply.status == 200 and reply.json["choices"][0]["message"]["content"] == parts
    texts = [text for r in site.records(reply.session) if "delivered" in r for text in r["delivered"]["text"].values()]
    assert "".join(texts).count("there.") == 1


def test_no_header_of_an_answer_names_the_credential(site):
    whole = chat("Hello.")(type("R", (), {"json": {}})())
    site.upstream.answer = Answer(200, {**whole.headers, "x-debug": f"Bearer {UPSTREAM_KEY}", "x-echo": UPSTREAM_KEY, "x-fine": "yes"}, whole.pieces)
    reply = site.call()
    assert reply.status == 200 and reply.header("x-fine") == "yes"
    assert UPSTREAM_KEY not in json.dumps(reply.headers)
    site.upstream.answer = chat("Hello.")
    again = site.call(prompt(stream=True))
    assert UPSTREAM_KEY not in json.dumps(again.headers)


@pytest.mark.parametrize("encoding", ["gzip", "br", "identity, gzip"])
def test_a_compressed_answer_is_refused(site, encoding):
    body = gzip.compress(b'{"choices":[]}')
    site.upstream.answer = Answer(200, {"content-type": "application/json", "content-encoding": encoding}, [body])
    reply = site.call()
    assert (reply.status, reply.code) == (502, "encoded_response")
    assert body not in reply.body
    assert site.records(reply.session)[-1]["closed"]["outcome"] == "refused_response"


def test_a_redirect_of_the_model_is_not_followed_with_the_credential(site):
    site.upstream.answer = Answer(302, {"location": f"https://elsewhere.example/?key={UPSTREAM_KEY}", "content-type": "application/json"}, [b"{}"])
    reply = site.call()
    assert UPSTREAM_KEY not in json.dumps(reply.headers) and len(site.upstream.requests) == 1
