"""One path with a real model behind it: llama.cpp, a small Gemma, the official SDK."""

import pytest
from stack import RealModel
from stack.caller import prompt
from stack.model import says
from stack.upstream import relay

SAID = "Ada's number is 536-22-8145, and that is all."


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    with RealModel(tmp_path_factory.mktemp("model")) as running:
        yield running


def test_a_real_models_stream_is_masked_token_by_token(site, model):
    site.upstream.answer = relay(model.port, grammar=says(SAID))
    stream = site.openai(timeout=90).chat.completions.create(**prompt("Who is Ada? My card is 4111 1111 1111 1111.", stream=True))
    pieces = [event.choices[0].delta.content for event in stream if event.choices and event.choices[0].delta.content]
    assert "".join(pieces) == SAID.replace("536-22-8145", "[US_SSN]") and len(pieces) > 5
    assert "[CREDIT_CARD]" in site.upstream.last.json["messages"][0]["content"]


def test_a_real_models_document_is_masked_and_its_usage_recorded(site, model):
    site.upstream.answer = relay(model.port, grammar=says(SAID))
    answer = site.openai(timeout=90).chat.completions.with_raw_response.create(**prompt("Who is Ada?"))
    completion = answer.parse()
    assert completion.choices[0].message.content == SAID.replace("536-22-8145", "[US_SSN]")
    closed = site.records(answer.headers["countersign-session"])[-1]["closed"]
    assert int(closed["outputTokens"]) == completion.usage.completion_tokens > 5


def test_a_real_model_that_says_what_it_likes_comes_through(site, model):
    site.upstream.answer = relay(model.port)
    stream = site.openai(timeout=90).chat.completions.create(**prompt("Say hello.", stream=True, max_tokens=12, temperature=0))
    finish = [event.choices[0].finish_reason for event in stream if event.choices]
    assert finish[-1] in ("stop", "length")
