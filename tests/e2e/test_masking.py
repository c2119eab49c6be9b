"""What must not be seen is not seen: not by the model, not by the caller, not in the record; and everything else passes untouched."""

import json
import threading

import pytest
from conftest import kind
from stack import Answer, ModelSim
from stack.caller import events, prompt, text_of
from stack.upstream import chat, chunk, relay

CARD = "4111 1111 1111 1111"
SSN = "536-22-8145"
SAID = f"Ada's number is {SSN}, her card {CARD}; ask again."
MASKED = SAID.replace(SSN, "[US_SSN]").replace(CARD, "[CREDIT_CARD]")


def stream(site, text="Hello", client="alice-app", **options):
    """What the SDK's user reads, delta by delta."""
    answer = site.openai(client).chat.completions.create(**prompt(text, stream=True), **options)
    return [event.choices[0].delta.content for event in answer if event.choices and event.choices[0].delta.content]


# --- the prompt ---


def test_the_model_gets_the_prompt_masked_and_every_other_byte_as_it_was_sent(site):
    # Spaces, escapes, number forms, key order and an unknown member: all to arrive as they are.
    sent = ('{ "messages" :[{"role":"system","content":"Be \\u0062rief \\/ kind."},\n'
            ' {"content":"Card 4111 1111 1111 1111, staff EMP-123456, caf\\u00e9 \u2603","role":"user"}],\t"temperature":0.70, "seed":12345678901234567890,'
            '"metadata":{"team":"a b"},"model":"gpt-4o-mini"}').encode()
    reply = site.call(sent)
    assert reply.status == 200
    expected = sent.replace(b"4111 1111 1111 1111", b"[CREDIT_CARD]").replace(b"EMP-123456", b"[EMPLOYEE_ID]")
    # A string that is changed may be written anew; here its escapes must at least mean the same.
    arrived = site.upstream.last.body
    assert json.loads(arrived) == json.loads(expected)
    before, after = sent.split(b'"Card 4111 1111 1111 1111, staff EMP-123456, caf\\u00e9 \xe2\x98\x83"')
    assert arrived.startswith(before) and arrived.endswith(after)
    opened = site.records(reply.session)[0]["opened"]["request"]
    assert opened["findings"] == {"CREDIT_CARD": 1, "EMPLOYEE_ID": 1}
    assert opened["masked"] == {"CREDIT_CARD": "replace", "EMPLOYEE_ID": "replace"}
    assert opened["bytes"] == str(len(sent))


def test_a_prompt_with_nothing_to_mask_arrives_byte_for_byte(site):
    sent = b'{"model":"gpt-4o-mini",  "messages":[ {"role":"user","content":"\\u0048ello\\n"} ]}'
    assert site.call(sent).status == 200
    assert site.upstream.last.body == sent


def test_a_value_hidden_behind_escapes_is_found(site):
    hidden = "".join(f"\\u{ord(c):04x}" for c in CARD).encode()
    assert site.call(b'{"model":"gpt-4o-mini","messages":[{"role":"user","content":"' + hidden + b'"}]}').status == 200
    assert site.upstream.last.json["messages"][0]["content"] == "[CREDIT_CARD]"


def test_values_in_every_part_of_a_prompt_are_masked(site):
    body = {"model": "gpt-4o-mini", "user": f"u {SSN}", "metadata": {"note": CARD}, "messages": [
        {"role": "system", "content": f"system {CARD}"},
        {"role": "user", "name": "ada", "content": [{"type": "text", "text": f"a {CARD}"}, {"type": "text", "text": f"b {SSN}"}]},
        {"role": "assistant", "content": None, "tool_calls": [
            {"id": "c1", "type": "function", "function": {"name": "pay", "arguments": json.dumps({"card": CARD, "n": 1})}}]},
        {"role": "tool", "tool_call_id": "c1", "content": f"paid by {CARD}"}],
        "tools": [{"type": "function", "function": {"name": "pay", "description": f"like {CARD}", "parameters": {"type": "object"}}}]}
    assert site.call(body).status == 200
    arrived = site.upstream.last.json
    assert CARD not in json.dumps(arrived) and SSN not in json.dumps(arrived)
    assert json.loads(arrived["messages"][2]["tool_calls"][0]["function"]["arguments"]) == {"card": "[CREDIT_CARD]", "n": 1}
    assert arrived["messages"][1]["name"] == "ada" and arrived["tools"][0]["function"]["name"] == "pay"


def test_a_card_that_fails_its_checksum_is_no_card(site):
    assert site.call(prompt("order 4111 1111 1111 1112")).status == 200
    assert site.upstream.last.json["messages"][0]["content"] == "order 4111 1111 1111 1112"


# --- the answer, as one document ---


def test_a_json_answer_comes_back_masked_and_otherwise_as_it_was(site):
    site.upstream.answer = chat(SAID)
    reply = site.call(prompt())
    whole = chat(SAID)(site.upstream.last).pieces[0]
    assert reply.body == whole.replace(SAID.encode(), MASKED.encode())
    closed = site.records(reply.session)[-1]["closed"]
    assert closed["findings"] == {"US_SSN": 1, "CREDIT_CARD": 1} and closed["status"] == 200
    assert (closed["model"], closed["systemFingerprint"]) == ("gpt-4o-mini", "fp_1")
    assert (closed["inputTokens"], closed["outputTokens"], closed["finishReasons"]) == ("9", "12", ["stop"])


def test_the_sdk_reads_a_masked_answer(site):
    site.upstream.answer = chat(SAID)
    completion = site.openai().chat.completions.create(**prompt())
    assert completion.choices[0].message.content == MASKED and completion.usage.total_tokens == 21


def test_tool_call_arguments_of_an_answer_stay_json(site):
    arguments = json.dumps({"card": CARD, "note": f'say "{SSN}"\n', "n": 1.50})
    call = {"id": "call_1", "type": "function", "function": {"name": "pay", "arguments": arguments}}
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    site.upstream.answer = Answer.json({"id": "chatcmpl-1", "object": "chat.completion", "created": 1700000000, "model": "gpt-4o-mini",
                                        "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}]})
    got = site.openai().chat.completions.create(**prompt()).choices[0].message.tool_calls[0].function
    assert json.loads(got.arguments) == {"card": "[CREDIT_CARD]", "note": 'say "[US_SSN]"\n', "n": 1.5}


# --- the answer, as a stream ---


@pytest.fixture(scope="module", params=[1, 2, 3, 7])
def simulator(request, tmp_path_factory):
    """aimock, cutting its deltas every so many characters."""
    fixtures = [{"match": {"userMessage": "Who"}, "response": {"content": SAID}},
                {"match": {"userMessage": "Pay"}, "response": {"toolCalls": [{"name": "pay", "arguments": json.dumps({"card": CARD, "to": "Ada"})}]}}]
    with ModelSim(tmp_path_factory.mktemp("sim"), fixtures, chunk=request.param) as running:
        yield running


def test_a_simulated_stream_is_masked_however_it_is_cut(site, simulator):
    site.upstream.answer = relay(simulator.port)
    pieces = stream(site, "Who is Ada?")
    assert "".join(pieces) == MASKED
    assert len(pieces) > 3, "it still comes in pieces"


def test_simulated_tool_call_arguments_stay_json_however_they_are_cut(site, simulator):
    site.upstream.answer = relay(simulator.port)
    arguments = ""
    tools = [{"type": "function", "function": {"name": "pay", "parameters": {"type": "object"}}}]
    for event in site.openai().chat.completions.create(**prompt("Pay Ada"), tools=tools, stream=True):
        for call in (event.choices[0].delta.tool_calls or []) if event.choices else []:
            arguments += call.function.arguments or ""
    assert json.loads(arguments) == {"card": "[CREDIT_CARD]", "to": "Ada"}


@pytest.mark.parametrize("cut", [1, 2, 5, 64])
@pytest.mark.parametrize("size", [1, 7])
def test_a_stream_is_masked_the_same_wherever_its_bytes_are_cut(site, size, cut):
    site.upstream.answer = chat(SAID, size=size, cut=cut)
    reply = site.call(prompt(stream=True))
    assert (reply.status, reply.whole, text_of(reply.body)) == (200, True, MASKED)
    assert events(reply.body)[-1] == "[DONE]" and reply.header("content-type") == "text/event-stream"
    assert SSN.encode() not in reply.body


def test_two_choices_of_one_stream_do_not_mix(site):
    halves = [(0, SSN[:6]), (1, "call 536-2"), (0, SSN[6:] + " a"), (1, "x2-8145 b")]
    said = [chunk({"content": text}, index) for index, text in halves]
    site.upstream.answer = Answer.sse([*said, chunk({}, 0, "stop"), chunk({}, 1, "stop")])
    got = {0: "", 1: ""}
    for event in site.openai().chat.completions.create(**prompt(stream=True)):
        for choice in event.choices:
            got[choice.index] += choice.delta.content or ""
    assert got == {0: "[US_SSN] a", 1: "call 536-2x2-8145 b"}


def test_text_leaves_before_the_model_has_said_its_last(site):
    told = threading.Event()
    head = [chunk({"role": "assistant", "content": ""}), chunk({"content": "Once upon a time "}), chunk({"content": "there was "})]
    tail = [chunk({"content": "an end."}), chunk({}, finish="stop")]
    pieces = [*Answer.sse(head, done=False).pieces, told, *Answer.sse(tail).pieces]
    site.upstream.answer = Answer(200, {"content-type": "text/event-stream"}, pieces)
    got = ""
    # The model waits for the caller to have read: were anything held back until the end, this would time out.
    for event in site.openai(timeout=10).chat.completions.create(**prompt(stream=True)):
        got += event.choices[0].delta.content or ""
        if "there was" in got:
            assert not told.is_set() or "end" in got
            told.set()
    assert told.is_set() and got == "Once upon a time there was an end."


def test_what_may_be_the_start_of_a_secret_is_held_and_comes_with_what_clears_it(site):
    go_on = threading.Event()
    head = [chunk({"content": "Her number is "}), chunk({"content": "536-22-"})]
    tail = [chunk({"content": "x, no."}), chunk({}, finish="stop")]
    site.upstream.answer = Answer(200, {"content-type": "text/event-stream"},
                                  [*Answer.sse(head, done=False).pieces, go_on, *Answer.sse(tail).pieces])
    got = ""
    for event in site.openai(timeout=10).chat.completions.create(**prompt(stream=True)):
        got += event.choices[0].delta.content or ""
        if got.startswith("Her number is") and not go_on.is_set():
            assert "536" not in got
            go_on.set()
    assert got == "Her number is 536-22-x, no."


def test_a_value_at_the_very_end_of_a_stream_is_masked(site):
    site.upstream.answer = chat(f"It is {SSN}", size=3)
    assert "".join(stream(site)) == "It is [US_SSN]"


def test_a_stream_without_its_end_mark_is_passed_masked(site):
    # Some servers just close: what is held must come out, masked.
    site.upstream.answer = Answer.sse([chunk({"content": f"It is {SSN[:8]}"}), chunk({"content": SSN[8:]})], done=False)
    reply = site.call(prompt(stream=True))
    assert SSN.encode() not in reply.body and SSN[:8].encode() not in reply.body


def test_reasoning_and_refusals_and_logprobs_are_masked_too(site):
    said = [chunk({"reasoning_content": f"think {SSN[:4]}"}), chunk({"reasoning_content": f"{SSN[4:]} so"}),
            chunk({"refusal": f"no {CARD}"}),
            {**chunk({"content": CARD}), "choices": [{"index": 0, "delta": {"content": CARD}, "finish_reason": None,
                                                      "logprobs": {"content": [{"token": CARD, "logprob": -1, "bytes": list(CARD.encode()), "top_logprobs": []}]}}]},
            chunk({}, finish="stop")]
    site.upstream.answer = Answer.sse(said)
    reply = site.call(prompt(stream=True))
    assert reply.status == 200 and reply.whole
    assert CARD.encode() not in reply.body and SSN.encode() not in reply.body
    assert str(list(CARD.encode()))[1:-1].encode() not in reply.body, "the bytes of a token are its text"
    reasoning = "".join(c["delta"].get("reasoning_content") or "" for e in events(reply.body) if e != "[DONE]" for c in e["choices"])
    assert reasoning == "think [US_SSN] so"


# --- the record, and who may see more ---


def test_the_record_tells_the_stream_as_the_caller_read_it(site):
    site.upstream.answer = chat(SAID, size=4)
    reply = site.call(prompt(f"about {CARD}", stream=True))
    records = site.records(reply.session)
    kinds = [kind(record) for record in records]
    assert kinds[0] == "opened" and kinds[-1] == "closed" and set(kinds[1:-1]) == {"delivered"}
    told = "".join(record["delivered"]["text"].get("0.content", "") for record in records[1:-1] if not record["delivered"].get("ofRequest"))
    assert told == MASKED
    assert json.loads(records[0]["opened"]["request"]["body"])["messages"][0]["content"] == "about [CREDIT_CARD]"
    assert sum(t["bytes"] for r in records[1:-1] for t in r["delivered"]["timing"]) == len(reply.body)
    closed = records[-1]["closed"]
    assert closed["outcome"] == "completed" and closed["parts"] == len(kinds) - 2 and len(closed["transactionSha256"]) == 64


@pytest.mark.parametrize("streamed", [False, True])
def test_an_exempt_group_sees_originals_and_the_record_does_not(site, streamed):
    site.upstream.answer = chat(SAID, size=5)
    reply = site.call(prompt(f"Is {CARD} hers?", stream=streamed), client="carol-app")
    text = text_of(reply.body) if streamed else reply.json["choices"][0]["message"]["content"]
    assert text == SAID
    assert site.upstream.last.json["messages"][0]["content"] == f"Is {CARD} hers?"
    told = json.dumps(site.records(reply.session))
    assert CARD not in told and SSN not in told and "[CREDIT_CARD]" in told and "[US_SSN]" in told


def test_payload_omit_records_that_it_happened_and_no_text(site):
    site.upstream.answer = chat("A very particular sentence.")
    reply = site.call(prompt("An equally particular question"), path="/silent/v1/chat/completions")
    records = site.records(reply.session)
    assert reply.status == 200 and [kind(record) for record in records][-1] == "closed"
    assert "particular" not in json.dumps(records)
    assert records[0]["opened"]["request"]["payload"] == "omit"


def test_the_values_masked_are_counted(site):
    site.upstream.answer = chat(SAID)
    labels = 'connection="openai",direction="{}",entity="CREDIT_CARD"'
    names = ["countersign_masked_values_total{%s}" % labels.format(way) for way in ("request", "response")]
    before = [site.countersign.metrics().get(name, 0) for name in names]
    assert site.call(prompt(f"{CARD} and {CARD}")).status == 200
    after = [site.countersign.metrics()[name] for name in names]
    assert [b - a for a, b in zip(before, after)] == [2, 1]


@pytest.mark.parametrize("client", ["alice-app", "carol-app"])
def test_what_a_record_says_besides_the_text_is_masked_too(site, client):
    # Refused, because no policy allows such a model: what is on record is what the caller wrote.
    refused = site.call(prompt(model=f"gpt {CARD}"), client=client)
    assert refused.status == 403
    # Answered, by a model that puts a number where its name belongs.
    site.upstream.answer = chat("Hello.", model=f"gpt {CARD}")
    answered = site.call(client=client)
    assert answered.status == 200
    for reply in (refused, answered):
        assert CARD not in json.dumps(site.records(reply.session))


# --- errors of the model ---


def test_an_error_of_the_model_keeps_its_status_and_is_masked(site):
    site.upstream.answer = Answer.json({"error": {"message": f"no such card {CARD}", "type": "invalid_request_error", "param": None, "code": "x"}}, 400)
    reply = site.call(prompt())
    assert (reply.status, reply.json["error"]["message"]) == (400, "no such card [CREDIT_CARD]")
    assert site.records(reply.session)[-1]["closed"]["outcome"] == "upstream_error"


def test_an_answer_of_a_shape_nobody_knows_is_not_passed(site):
    for answer in [Answer(200, {"content-type": "text/html"}, [f"<p>{SSN}".encode()]),
                   Answer(200, {"content-type": "application/json"}, [f'{{"choices": [}} {SSN}'.encode()]),
                   Answer(200, {"content-type": "application/json"}, [f'["{SSN}"]'.encode()]),
                   Answer(500, {"content-type": "text/plain"}, [f"stack trace {SSN}".encode()])]:
        site.upstream.answer = answer
        reply = site.call(prompt())
        assert reply.status in (500, 502) and SSN.encode() not in reply.body, answer
        assert reply.code in ("unknown_response_shape", "upstream_error")
        assert site.records(reply.session)[-1]["closed"]["outcome"] == "refused_response"


def test_an_event_of_a_shape_nobody_knows_cuts_the_stream(site):
    site.upstream.answer = Answer.sse([chunk({"content": "Fine. "}), f'["{SSN}"]', chunk({"content": "more"})])
    reply = site.call(prompt(stream=True))
    assert not reply.whole and SSN.encode() not in reply.body and b"[DONE]" not in reply.body
    assert site.records(reply.session)[-1]["closed"]["outcome"] == "refused_response"


def test_an_answer_without_a_body_passes(site):
    site.upstream.answer = Answer(204)
    reply = site.call(prompt())
    assert (reply.status, reply.body) == (204, b"")
    assert site.records(reply.session)[-1]["closed"]["outcome"] == "completed"


def test_an_empty_finish_reason_ends_nothing_and_a_text_that_goes_on_behind_its_end_is_refused(site):
    def answer(reason):
        pieces = [chunk({"content": f"It is {SSN[:7]}"}, finish=reason), chunk({"content": f"{SSN[7:]} ok"}, finish=reason), chunk({}, finish="stop")]
        return Answer.sse(pieces)

    site.upstream.answer = answer("")
    assert "".join(stream(site)) == "It is [US_SSN] ok"
    site.upstream.answer = answer("stop")
    reply = site.call(prompt(stream=True))
    assert not reply.whole and b"unknown_response_shape" in reply.body and SSN[7:].encode() not in reply.body
