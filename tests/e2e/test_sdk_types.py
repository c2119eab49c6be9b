"""Every event, item and block that the providers' own SDKs know passes, with each of its texts masked.

The SDKs' types are walked, so that what a new release adds is asked about here before a user meets it: it is told apart in
the tables below, or it is a new name for something the dialect must learn.
"""

import datetime
import inspect
import json
import typing
from typing import Annotated, Literal, Union, get_args, get_origin

import pytest
from anthropic.types import Message, RawMessageStreamEvent
from anthropic.types.beta import BetaMessage, BetaRawMessageStreamEvent
from openai.types import Completion
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import BaseModel
from stack import Upstream
from stack.caller import call
from stack.config import config
from stack.gateway import Gateway
from stack.upstream import Answer

SSN = "536-22-8145"
TEXT = f"it is {SSN}."

# What no detector can look into passes as it came, and the record says so: bytes of media, and what is signed or encrypted.
OPAQUE = {"partial_image_b64", "encrypted_content", "encrypted_index", "encrypted_stdout", "fingerprint", "signature", "image_url", "file_data"}
OPAQUE_IN = {("ResponseAudioDeltaEvent", "delta"), ("ImageGenerationCall", "result"), ("RedactedThinkingBlock", "data"), ("BetaRedactedThinkingBlock", "data"),
             ("ChoiceDeltaAudio", "data"), ("ChatCompletionAudio", "data"), ("Base64PDFSource", "data"), ("BetaBase64PDFSource", "data"),
             ("InlineSkillSource", "data")}
# Members that tell apart what the dialect must know to find the text: a number says which text goes on.
NUMBERS = {int: 0, float: 0.5, bool: False, datetime.datetime: "2026-01-01T00:00:00Z", datetime.date: "2026-01-01"}
# Whole families an event can be of: each of them is an example of its own.
MANY = {"item", "part", "content_block", "delta", "citation", "annotation"}


def members(annotation):
    if get_origin(annotation) is Annotated:
        return members(get_args(annotation)[0])
    if get_origin(annotation) is Union or type(annotation).__name__ == "UnionType":
        return [member for argument in get_args(annotation) for member in members(argument)]
    return [annotation]


def is_model(kind):
    return inspect.isclass(kind) and issubclass(kind, BaseModel)


def name_of(field, key):
    return field.alias or key


def value(kind, owner, key, depth):
    """A value of one type; a string holds what must be masked."""
    if is_model(kind):
        return example(kind, depth + 1)
    if get_origin(kind) is Literal:
        return get_args(kind)[0]
    if get_origin(kind) is list:
        inner = members(get_args(kind)[0])
        return [value(one, owner, key, depth) for one in inner if one is not type(None)] if depth < 7 else []
    if get_origin(kind) is dict:
        return {"k": value(members(get_args(kind)[1])[0], owner, key, depth)}
    if kind in NUMBERS:
        return NUMBERS[kind]
    if kind is str:
        return "b3BhcXVl" if key in OPAQUE or (owner.__name__, key) in OPAQUE_IN else TEXT
    return {"k": TEXT}


def example(model, depth=0, **chosen):
    """A document of that type with every member it can have."""
    out = {}
    for key, field in model.model_fields.items():
        kinds = [kind for kind in members(field.annotation) if kind is not type(None)]
        if depth >= 7 and not field.is_required() or not kinds:
            continue
        known = [kind for kind in kinds if get_origin(kind) is Literal] if key == "model" else []
        out[name_of(field, key)] = chosen[key] if key in chosen else value((known or kinds)[0], model, key, depth)
    return out


def examples(union):
    """Each event of a union; where it tells of one of several things, each of those."""
    for model in members(union):
        many = [key for key in model.model_fields if key in MANY]
        kinds = [kind for kind in members(model.model_fields[many[0]].annotation) if is_model(kind)] if many else []
        if not kinds:
            yield model.__name__, example(model)
        for kind in kinds:
            yield f"{model.__name__}-{kind.__name__}", example(model, **{many[0]: example(kind, 1)})


@pytest.fixture(scope="module")
def site(tmp_path_factory, oidc):
    work = tmp_path_factory.mktemp("types")
    usual = config(oidc.issuer, work)
    (base,) = usual["connections"]
    usual["connections"] = [
        {**base, "name": dialect, "match": {"path_prefix": f"/{dialect}/v1"}, "dialect": dialect, "endpoints": endpoints, "policies": ["mask-personal", "allow-all"]}
        for dialect, endpoints in [("openai", ["chat_completions", "completions", "responses"]), ("anthropic", ["messages"])]
    ]
    usual["policies"] = [usual["policies"][1], {"name": "allow-all", "when": "true", "then": "allow"}]
    with Upstream() as upstream, Gateway(work / "gateway", usual, upstream.port) as gateway:
        yield gateway, upstream


QUESTIONS = {
    "/openai/v1/responses": {"model": "m", "input": "hi"},
    "/openai/v1/chat/completions": {"model": "m", "messages": [{"role": "user", "content": "hi"}]},
    "/openai/v1/completions": {"model": "m", "prompt": "hi"},
    "/anthropic/v1/messages": {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]},
}


class Asked:
    """Asks for answers one by one, and at the end looks at what is on record of all of them."""

    def __init__(self, site, token):
        (self.gateway, self.upstream), self.token, self.sessions, self.faults = site, token, {}, []

    def ask(self, path, answer, name):
        self.upstream.answer = answer
        reply = call(self.gateway.envoy.url, self.token, QUESTIONS[path], path=path)
        if not (reply.status == 200 and reply.whole):
            self.faults.append(f"{name} is refused: {reply.body[-300:]!r}")
        elif SSN.encode() in reply.body:
            at = reply.body.index(SSN.encode())
            self.faults.append(f"{name} is not masked: {reply.body[max(0, at - 200):at + 20]!r}")
        self.sessions[reply.session] = name

    def check(self):
        assert self.faults == [], "\n".join(self.faults)
        closed = {record["session"]: record["closed"]["outcome"] for record in self.gateway.countersign.records() if "closed" in record}
        assert {name: closed.get(session) for session, name in self.sessions.items() if closed.get(session) != "completed"} == {}


@pytest.fixture
def asked(site, tokens):
    asked = Asked(site, tokens())
    yield asked
    asked.check()


def test_every_event_of_the_responses_api_passes_masked(asked):
    end = {"type": "response.completed", "response": {"output": []}}
    seen = 0
    for name, event in examples(ResponseStreamEvent):
        last = event["type"] in ("response.completed", "response.failed", "response.incomplete")
        asked.ask("/openai/v1/responses", Answer.sse([event] if last else [event, end], done=False), name)
        seen += 1
    assert seen > 100


def anthropic_events(event):
    """What must stand around an event for it to be in its place."""
    start = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
    stop, end = {"type": "content_block_stop", "index": 0}, {"type": "message_stop"}
    kind = event["type"]
    if kind == "content_block_start":
        return [event, stop, end]
    if kind == "content_block_delta":
        if event["delta"]["type"] in ("thinking_delta", "signature_delta"):
            start["content_block"] = {"type": "thinking", "thinking": "", "signature": ""}
        return [start, event, stop, end]
    if kind == "content_block_stop":
        return [start, event, end]
    return [event] if kind == "message_stop" else [event, end]


@pytest.mark.parametrize("union", [RawMessageStreamEvent, BetaRawMessageStreamEvent], ids=["stable", "beta"])
def test_every_event_of_anthropics_messages_passes_masked(asked, union):
    seen = 0
    for name, event in examples(union):
        asked.ask("/anthropic/v1/messages", Answer.sse(anthropic_events(event), done=False), name)
        seen += 1
    assert seen > 20


@pytest.mark.parametrize("path, model", [
    ("/openai/v1/responses", Response),
    ("/openai/v1/chat/completions", ChatCompletion),
    ("/openai/v1/completions", Completion),
    ("/anthropic/v1/messages", Message),
    ("/anthropic/v1/messages", BetaMessage),
])
def test_every_member_of_an_answer_passes_masked(asked, path, model):
    asked.ask(path, Answer.json(example(model)), model.__name__)


def test_every_member_of_a_chunk_passes_masked(asked):
    chunk = example(ChatCompletionChunk)
    asked.ask("/openai/v1/chat/completions", Answer.sse([chunk]), "ChatCompletionChunk")
    asked.ask("/openai/v1/completions", Answer.sse([example(Completion)]), "Completion")


def test_the_examples_hold_what_must_be_masked():
    """A walk that fills in nothing would find nothing."""
    told = json.dumps([event for _, event in examples(ResponseStreamEvent)])
    assert told.count(SSN) > 500 and typing.get_origin(ResponseStreamEvent) is Annotated
