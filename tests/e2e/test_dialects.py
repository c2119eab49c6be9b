"""Every provider's protocol, with the provider's own SDK as the caller: values are masked both ways, however the answer is cut."""

import json

import anthropic
import ollama
import openai
import pytest
from stack import UPSTREAM_KEY, ModelSim, Upstream
from stack.caller import call
from stack.config import config
from stack.gateway import Gateway
from stack.upstream import Answer, relay

CARD, SSN = "4111 1111 1111 1111", "536-22-8145"
SAID = f"Her card is {CARD} and her number {SSN}. That is all."
MASKED = "Her card is [CREDIT_CARD] and her number [US_SSN]. That is all."
ASKED = f"Who has {SSN}?"

# name, path prefix, dialect, endpoints, the header its SDK sends the caller's token in, the one its model expects the key in
PROVIDERS = [
    ("anthropic", "/anthropic/v1", "anthropic", ["messages", "count_tokens"], "authorization", "x-api-key"),
    ("openai", "/openai/v1", "openai", ["chat_completions", "completions", "embeddings", "responses"], "authorization", "authorization"),
    ("ollama", "/ollama", "ollama", ["chat", "generate"], "authorization", "authorization"),
    ("gemini", "/gemini/v1beta", "gemini", ["generate_content", "stream_generate_content"], "x-goog-api-key", "x-goog-api-key"),
    ("json", "/json", "json", ["any"], "authorization", "authorization"),
    ("text", "/text", "text", ["any"], "authorization", "authorization"),
]


@pytest.fixture(scope="module")
def providers(tmp_path_factory, oidc):
    work = tmp_path_factory.mktemp("dialects")
    usual = config(oidc.issuer, work)
    (base,) = usual["connections"]
    usual["connections"] = [
        {**base, "name": name, "match": {"path_prefix": prefix}, "dialect": dialect, "endpoints": endpoints, "token": token,
         "credential": {**base["credential"], "header": key, "format": "Bearer {}" if key == "authorization" else "{}"},
         "policies": ["mask-personal", "allow-all"]}
        for name, prefix, dialect, endpoints, token, key in PROVIDERS
    ]
    usual["policies"] = [usual["policies"][1], {"name": "allow-all", "when": "true", "then": "allow"}]
    with Upstream() as upstream, Gateway(work / "gateway", usual, upstream.port) as gateway:
        yield gateway, upstream


@pytest.fixture(scope="module", params=[1, 2, 3, 7])
def simulator(request, tmp_path_factory):
    """aimock, cutting its deltas every so many characters."""
    fixtures = [{"match": {"userMessage": "Who"}, "response": {"content": SAID}},
                {"match": {"userMessage": "Pay"}, "response": {"toolCalls": [{"name": "pay", "arguments": json.dumps({"card": CARD, "to": "Ada"})}]}}]
    with ModelSim(tmp_path_factory.mktemp("sim"), fixtures, chunk=request.param) as running:
        yield running


@pytest.fixture
def through(providers, simulator, tokens):
    """`through("/anthropic")` relays to the simulator; returns the base URL, a token and the requests the model saw."""
    gateway, upstream = providers

    def start(prefix):
        upstream.requests.clear()
        upstream.answer = relay(simulator.port, prefix)
        return gateway.envoy.url + prefix, tokens(), upstream.requests

    return start


def recorded(gateway, session):
    return [record for record in gateway.countersign.records() if record.get("session") == session]


def check_request(requests):
    """What the model was told: masked, with the lent key and not the caller's."""
    (seen,) = requests
    assert SSN not in seen.body.decode() and "[US_SSN]" in seen.body.decode()
    assert UPSTREAM_KEY in json.dumps(seen.headers)
    return seen


# --- Anthropic ---


def claude(through):
    url, token, requests = through("/anthropic")
    return anthropic.Anthropic(api_key=token, base_url=url, max_retries=0, timeout=20), requests


def question(text=ASKED, **more):
    return {"model": "claude-opus-4-5", "max_tokens": 100, "messages": [{"role": "user", "content": text}], **more}


def test_anthropic_messages_are_masked_as_a_stream(through):
    client, requests = claude(through)
    with client.messages.stream(**question()) as stream:
        pieces = list(stream.text_stream)
        final = stream.get_final_message()
    assert "".join(pieces) == MASKED and len(pieces) > 3
    assert final.content[0].text == MASKED and final.stop_reason == "end_turn"
    check_request(requests)


def test_anthropic_messages_are_masked_whole(through):
    client, requests = claude(through)
    message = client.messages.create(**question(system="You know Ada."))
    assert message.content[0].text == MASKED
    check_request(requests)


def test_anthropic_tool_input_stays_json_however_it_is_cut(through):
    client, _ = claude(through)
    tools = [{"name": "pay", "description": "Pay somebody", "input_schema": {"type": "object"}}]
    with client.messages.stream(**question("Pay Ada", tools=tools)) as stream:
        final = stream.get_final_message()
    (use,) = [block for block in final.content if block.type == "tool_use"]
    assert use.input == {"card": "[CREDIT_CARD]", "to": "Ada"}


def test_anthropic_refusals_are_anthropics(providers, tokens):
    gateway, upstream = providers
    client = anthropic.Anthropic(api_key="not-a-token", base_url=gateway.envoy.url + "/anthropic", max_retries=0)
    with pytest.raises(anthropic.AuthenticationError) as refused:
        client.messages.create(**question())
    assert refused.value.body["type"] == "error" and refused.value.body["error"]["type"] == "authentication_error"


def test_an_anthropic_answer_of_no_known_shape_is_refused(providers, tokens):
    gateway, upstream = providers
    upstream.answer = Answer.json({"odd": SSN})
    reply = call(gateway.envoy.url, tokens(), question(), {}, path="/anthropic/v1/messages")
    assert reply.status == 502 and SSN.encode() not in reply.body
    assert recorded(gateway, reply.session)[-1]["closed"]["outcome"] == "refused_response"


# --- OpenAI, beside chat completions ---


def gpt(through):
    url, token, requests = through("/openai")
    return openai.OpenAI(api_key=token, base_url=url + "/v1", max_retries=0, timeout=20), requests


def test_openai_responses_are_masked_as_a_stream_in_every_event_that_tells_the_text(through):
    client, requests = gpt(through)
    with client.responses.stream(model="gpt-4o-mini", input=ASKED) as stream:
        events = list(stream)
        final = stream.get_final_response()
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert "".join(deltas) == MASKED and len(deltas) > 3
    assert final.output_text == MASKED
    told = "".join(event.model_dump_json(warnings=False) for event in events)
    assert CARD not in told and SSN not in told
    check_request(requests)


def test_openai_responses_are_masked_whole(through):
    client, requests = gpt(through)
    assert client.responses.create(model="gpt-4o-mini", input=[{"role": "user", "content": ASKED}]).output_text == MASKED
    check_request(requests)


def test_openai_function_calls_of_a_response_stay_json_however_they_are_cut(through):
    client, _ = gpt(through)
    tools = [{"type": "function", "name": "pay", "parameters": {"type": "object"}}]
    with client.responses.stream(model="gpt-4o-mini", input="Pay Ada", tools=tools) as stream:
        final = stream.get_final_response()
    (call_,) = [item for item in final.output if item.type == "function_call"]
    assert json.loads(call_.arguments) == {"card": "[CREDIT_CARD]", "to": "Ada"}


def test_openai_embeddings_never_see_the_value(through):
    client, requests = gpt(through)
    vectors = client.embeddings.create(model="text-embedding-3-small", input=[ASKED, "plain"], encoding_format="float").data
    assert len(vectors) == 2 and len(vectors[0].embedding) > 1
    check_request(requests)


def test_openai_legacy_completions_are_masked(providers, tokens):
    gateway, upstream = providers
    client = openai.OpenAI(api_key=tokens(), base_url=gateway.envoy.url + "/openai/v1", max_retries=0)
    base = {"id": "cmpl-1", "object": "text_completion", "created": 1700000000, "model": "gpt-3.5-turbo-instruct"}
    upstream.requests.clear()
    upstream.answer = Answer.json({**base, "choices": [{"index": 0, "text": SAID, "logprobs": None, "finish_reason": "stop"}]})
    assert client.completions.create(model="gpt-3.5-turbo-instruct", prompt=ASKED).choices[0].text == MASKED
    check_request(upstream.requests)
    pieces = [{**base, "choices": [{"index": 0, "text": SAID[i : i + 3], "logprobs": None, "finish_reason": None}]} for i in range(0, len(SAID), 3)]
    upstream.answer = Answer.sse([*pieces, {**base, "choices": [{"index": 0, "text": "", "logprobs": None, "finish_reason": "stop"}]}])
    said = client.completions.create(model="gpt-3.5-turbo-instruct", prompt=ASKED, stream=True)
    assert "".join(event.choices[0].text for event in said) == MASKED


# --- Ollama ---


def llama(through):
    url, token, requests = through("/ollama")
    return ollama.Client(host=url, headers={"authorization": f"Bearer {token}"}, timeout=20), requests


def test_ollama_chat_is_masked_as_a_stream(through):
    client, requests = llama(through)
    pieces = [part.message.content for part in client.chat(model="llama3", messages=[{"role": "user", "content": ASKED}], stream=True)]
    assert "".join(pieces) == MASKED and len(pieces) > 3
    check_request(requests)


def test_ollama_chat_and_generate_are_masked_whole(through):
    client, requests = llama(through)
    assert client.chat(model="llama3", messages=[{"role": "user", "content": ASKED}]).message.content == MASKED
    check_request(requests)
    requests.clear()
    assert client.generate(model="llama3", prompt=ASKED).response == MASKED
    check_request(requests)


def test_ollama_generate_is_masked_as_a_stream(through):
    client, _ = llama(through)
    assert "".join(part.response for part in client.generate(model="llama3", prompt=ASKED, stream=True)) == MASKED


# --- Gemini ---


def gemini_text(documents):
    return "".join(p.get("text", "") for d in documents for c in d.get("candidates", []) for p in c.get("content", {}).get("parts", []))


def test_gemini_is_masked_whole_and_as_a_stream(through):
    url, token, requests = through("/gemini")
    body = {"contents": [{"role": "user", "parts": [{"text": ASKED}]}]}
    headers = {"x-goog-api-key": token}
    whole = call(url.removesuffix("/gemini"), None, body, headers, path="/gemini/v1beta/models/gemini-2.5-flash:generateContent")
    assert whole.status == 200 and gemini_text([whole.json]) == MASKED, whole
    check_request(requests)
    streamed = call(url.removesuffix("/gemini"), None, body, headers, path="/gemini/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse")
    events = [json.loads(line[6:]) for line in streamed.body.decode().splitlines() if line.startswith("data: ")]
    assert streamed.whole and gemini_text(events) == MASKED and len(events) > 3


def test_the_model_in_geminis_path_is_what_policy_and_record_see(providers, tokens):
    gateway, upstream = providers
    upstream.requests.clear()
    upstream.answer = Answer.json({"candidates": [{"content": {"role": "model", "parts": [{"text": "Hi."}]}, "finishReason": "STOP", "index": 0}]})
    reply = call(gateway.envoy.url, None, {"contents": [{"parts": [{"text": "hi"}]}]}, {"x-goog-api-key": tokens()},
                 path="/gemini/v1beta/models/gemini-2.5-pro:generateContent")
    assert reply.status == 200, reply
    assert recorded(gateway, reply.session)[0]["opened"]["request"]["model"] == "gemini-2.5-pro"


# --- any JSON, any text ---


def test_json_of_no_provider_is_masked_in_every_string(providers, tokens):
    gateway, upstream = providers
    upstream.requests.clear()
    upstream.answer = Answer.json({"deep": [{"er": SAID}], "n": 1.50})
    reply = call(gateway.envoy.url, tokens(), {"any": {"thing": [ASKED]}, CARD: 1}, path="/json/whatever")
    assert reply.status == 200 and reply.json == {"deep": [{"er": MASKED}], "n": 1.5}, reply
    assert CARD.encode() not in check_request(upstream.requests).body


def test_plain_text_is_masked_however_it_is_cut(providers, tokens):
    gateway, upstream = providers
    upstream.requests.clear()
    upstream.answer = Answer(200, {"content-type": "text/plain; charset=utf-8"}, [SAID[i : i + 3].encode() for i in range(0, len(SAID), 3)])
    reply = call(gateway.envoy.url, tokens(), ASKED.encode(), {"content-type": "text/plain"}, path="/text/whatever")
    assert (reply.status, reply.whole, reply.body.decode()) == (200, True, MASKED), reply
    check_request(upstream.requests)


# --- fields by JSONPath, keys as context, parts that are taken out ---


@pytest.fixture(scope="module")
def chosen(tmp_path_factory, oidc):
    """Connections that name fields, choose fields, and strip what no detector can look into."""
    work = tmp_path_factory.mktemp("fields")
    usual = config(oidc.issuer, work)
    (base,) = usual["connections"]
    kinds = [("json", "json", ["any"], {}), ("some", "json", ["any"], {"fields": ["$..note", "$.rows[1:].text"]}),
             ("openai", "openai", ["chat_completions"], {"unscanned": "strip"}), ("anthropic", "anthropic", ["messages"], {}),
             ("claude", "anthropic", ["messages"], {"signed": "strip"})]
    usual["connections"] = [{**base, "name": name, "match": {"path_prefix": f"/{name}"}, "dialect": dialect, "endpoints": endpoints,
                             "policies": ["mask-personal", "allow-all"], **more} for name, dialect, endpoints, more in kinds]
    masks = {"detectors": ["CREDIT_CARD", "US_SSN", "CUSTOMER_ID"], "operator": "replace"}
    usual["policies"] = [{"name": "mask-personal", "when": "true", "then": {"mask": {"request": masks, "response": masks}}},
                         {"name": "allow-all", "when": "true", "then": "allow"}]
    usual["detectors"] += [{"entity": "CUSTOMER_ID", "json_path": "$..customer.id"}, {"entity": "CASE", "json_path": "$.case"}]
    with Upstream() as upstream, Gateway(work / "gateway", usual, upstream.port) as gateway:
        yield gateway, upstream


def ask(chosen, token, path, body, answer):
    gateway, upstream = chosen
    upstream.requests.clear()
    upstream.answer = answer
    reply = call(gateway.envoy.url, token, body, path=path)
    assert reply.status == 200 and reply.whole, reply
    return reply, upstream.requests[0].json, recorded(gateway, reply.session)


def test_a_field_named_by_its_path_is_masked_whole_both_ways_and_never_on_record(chosen, tokens):
    body = {"customer": {"id": "anything at all", "name": "Ada"}, "case": {"number": "X-77"}, "rows": [{"customer": {"id": 7}}]}
    reply, seen, records = ask(chosen, tokens(), "/json/x", body, Answer.json(body))
    masked = {"customer": {"id": "[CUSTOMER_ID]", "name": "Ada"}, "case": {"number": "X-77"}, "rows": [{"customer": {"id": "[CUSTOMER_ID]"}}]}
    assert seen == masked and reply.json == masked
    request = records[0]["opened"]["request"]
    assert request["findings"] == {"CASE": 1, "CUSTOMER_ID": 2} and request["masked"] == {"CUSTOMER_ID": "replace"}
    told = json.dumps(records)
    assert "anything" not in told and "X-77" not in told and "[CASE]" in told


def test_of_chosen_fields_only_those_are_looked_into(chosen, tokens):
    body = {"note": SSN, "other": SSN, "rows": [{"text": SSN}, {"text": SSN, "note": SSN}]}
    reply, seen, records = ask(chosen, tokens(), "/some/x", body, Answer.json(body))
    masked = {"note": "[US_SSN]", "other": SSN, "rows": [{"text": SSN}, {"text": "[US_SSN]", "note": "[US_SSN]"}]}
    assert seen == masked and reply.json == masked
    assert records[0]["opened"]["request"]["unscanned"] == ["not_selected"]


def test_a_key_says_what_its_value_is(chosen, tokens):
    """Nine digits are a number like any other, unless something says what they are."""
    body = {"ssn": "536228145", "order": "536228145", "people": [{"ssn": 536228145}]}
    reply, seen, records = ask(chosen, tokens(), "/json/x", body, Answer.json(body))
    masked = {"ssn": "[US_SSN]", "order": "536228145", "people": [{"ssn": "[US_SSN]"}]}
    assert seen == masked and reply.json == masked
    assert records[0]["opened"]["request"]["findings"] == {"US_SSN": 2}
    pieces = [json.dumps({"ssn": "536228145", "n": "536228145"})[i : i + 3] for i in range(0, 42, 3)]
    events = [{"type": "content_block_start", "index": 0, "content_block": {"type": "tool_use", "id": "t", "name": "f", "input": {}}}]
    events += [{"type": "content_block_delta", "index": 0, "delta": {"type": "input_json_delta", "partial_json": piece}} for piece in pieces]
    events += [{"type": "content_block_stop", "index": 0}, {"type": "message_stop"}]
    reply, _, records = ask(chosen, tokens(), "/anthropic/messages", question("hi"), Answer.sse(events, done=False))
    said = [json.loads(line[6:]) for line in reply.body.decode().splitlines() if line.startswith("data: ")]
    arguments = "".join(event["delta"]["partial_json"] for event in said if "delta" in event)
    assert json.loads(arguments) == {"ssn": "[US_SSN]", "n": "536228145"}
    assert "ssn" in json.dumps(records)


def test_what_no_detector_can_look_into_is_taken_out_where_it_is_to_be(chosen, tokens):
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": [image, {"type": "text", "text": ASKED}, image]}]}
    answer = {"object": "chat.completion", "choices": [{"index": 0, "message": {"role": "assistant", "content": "ok"}, "finish_reason": "stop"}]}
    _, seen, records = ask(chosen, tokens(), "/openai/chat/completions", body, Answer.json(answer))
    assert seen["messages"][0]["content"] == [{"type": "text", "text": "Who has [US_SSN]?"}]
    assert records[0]["opened"]["request"]["unscanned"] == ["image_url"]


def test_what_is_signed_is_taken_out_of_an_answer_where_it_is_to_be(chosen, tokens):
    """The block behind the thinking moves up."""
    block = [{"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": "", "signature": ""}},
             {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "Hm."}},
             {"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "EqQB"}},
             {"type": "content_block_stop", "index": 0}]
    text = [{"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": ""}},
            {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": SAID}},
            {"type": "content_block_stop", "index": 1}]
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude", "content": [], "stop_reason": None, "stop_sequence": None,
               "usage": {"input_tokens": 3, "output_tokens": 1}}
    end = [{"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None}, "usage": {"output_tokens": 9}}, {"type": "message_stop"}]
    events = [{"type": "message_start", "message": message}, *block, *text, *end]
    reply, _, records = ask(chosen, tokens(), "/claude/messages", question("hi"), Answer.sse(events, done=False))
    assert b"Hm." not in reply.body and b"EqQB" not in reply.body
    said = [json.loads(line[6:]) for line in reply.body.decode().splitlines() if line.startswith("data: ")]
    assert "".join(event["delta"].get("text", "") for event in said if event["type"] == "content_block_delta") == MASKED
    assert {event["index"] for event in said if "index" in event} == {0}
    closed = records[-1]["closed"]
    assert (closed["unscanned"], closed["stripped"]) == (["signed"], ["signed"])
    assert closed["outcome"] == "completed" and "Hm." not in json.dumps(records)

    whole = {**message, "content": [{"type": "redacted_thinking", "data": "EmwK"}, {"type": "text", "text": SAID}], "stop_reason": "end_turn"}
    reply, _, records = ask(chosen, tokens(), "/claude/messages", question("hi"), Answer.json(whole))
    assert reply.json["content"] == [{"type": "text", "text": MASKED}]
    assert records[-1]["closed"]["stripped"] == ["encrypted"]
