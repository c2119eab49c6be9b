"""Every provider's protocol, with the provider's own SDK as the caller: values are masked both ways, however the answer is cut."""

import json

import anthropic
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
