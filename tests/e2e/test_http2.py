"""Callers that speak HTTP/2, and bodies that are large."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from stack import wait_until
from stack.caller import begin, prompt, read_until, text_of
from stack.http2 import Http2
from stack.upstream import chat, paused

SSN = "536-22-8145"


@pytest.fixture
def http2(site):
    connection = Http2(site.url)
    connection.usual = {"content-type": "application/json", "authorization": f"Bearer {site.tokens()}"}
    yield connection
    connection.socket.close()


def test_an_http2_caller_gets_a_masked_document_and_a_masked_stream(site, http2):
    site.upstream.answer = chat(f"It is {SSN}.", size=2)
    whole = http2.answer(http2.send(json.dumps(prompt("4111 1111 1111 1111")).encode(), http2.usual))
    assert (whole.status, whole.json["choices"][0]["message"]["content"]) == (200, "It is [US_SSN].")
    assert site.upstream.last.json["messages"][0]["content"] == "[CREDIT_CARD]"
    streamed = http2.answer(http2.send(json.dumps(prompt(stream=True)).encode(), http2.usual))
    assert streamed.whole and text_of(streamed.body) == "It is [US_SSN]." and streamed.body.endswith(b"data: [DONE]\n\n")


def test_request_trailers_are_refused(site, http2):
    reply = http2.answer(http2.send(json.dumps(prompt()).encode(), http2.usual, trailers={"x-model": "gpt-5-pro"}))
    assert (reply.status, reply.code) == (400, "request_trailers") and site.upstream.requests == []


def test_a_known_callers_request_trailers_are_on_record(site, http2):
    for _ in range(20):
        reply = http2.answer(http2.send(json.dumps(prompt()).encode(), http2.usual, trailers={"x-model": "gpt-5-pro"}))
        site.refused(reply, 400, "request_trailers")


def test_requests_on_one_connection_are_each_their_own(site, http2):
    good, bad = json.dumps(prompt()).encode(), {**http2.usual, "authorization": "Bearer garbage"}
    streams = [http2.send(good, http2.usual if n % 2 == 0 else bad) for n in range(20)]
    replies = [http2.answer(stream) for stream in streams]
    assert [reply.status for reply in replies] == [200, 401] * 10
    assert len(site.upstream.requests) == 10
    assert len({reply.session for reply in replies}) == 20


def test_a_refusal_does_not_wait_for_the_rest_of_a_body(site, http2):
    stream = http2.h2.get_next_available_stream_id()
    head = {":method": "POST", ":path": "/v1/chat/completions", ":scheme": "http", ":authority": "g", **http2.usual, "authorization": "Bearer garbage"}
    http2.h2.send_headers(stream, list(head.items()))
    http2.h2.send_data(stream, b"{")
    http2.flush()
    assert http2.answer(stream).status == 401


def test_a_head_request_is_refused_without_a_body(site, http2):
    reply = http2.answer(http2.send(b"", http2.usual, method="HEAD"))
    assert (reply.status, reply.body) == (403, b"") and site.upstream.requests == []


def test_connect_is_refused(site, http2):
    stream = http2.h2.get_next_available_stream_id()
    http2.h2.send_headers(stream, [(":method", "CONNECT"), (":authority", "gateway:80"), ("authorization", http2.usual["authorization"])])
    http2.flush()
    assert http2.answer(stream).status in (0, 400, 403, 404, 405) and site.upstream.requests == []


def test_a_prompt_of_5_mb_is_masked_and_arrives_whole(site, http2):
    filler = "All work and no play makes a dull day. " * 25_000
    text = "".join(f"{filler[:1_000_000]} card 4111 1111 1111 1111, " for _ in range(5))
    for reply in [site.call(prompt(text)), http2.answer(http2.send(json.dumps(prompt(text)).encode(), http2.usual))]:
        assert reply.status == 200
        arrived = site.upstream.last
        assert arrived.complete and arrived.json["messages"][0]["content"] == text.replace("4111 1111 1111 1111", "[CREDIT_CARD]")
    records = site.records(reply.session)
    body = records[0]["opened"]["request"]["body"] + "".join(r["delivered"]["text"]["body"] for r in records if r.get("delivered", {}).get("ofRequest"))
    assert body.encode() == site.upstream.last.body, "the record has all of it, in parts"
    assert max(len(json.dumps(record)) for record in records) < 1 << 20


def test_an_answer_of_3_mb_is_masked_and_arrives_whole(site):
    text = "".join(f"{'Nothing to see here. ' * 5_000} {SSN} " for _ in range(30))
    site.upstream.answer = chat(text)
    reply = site.call()
    assert reply.status == 200 and reply.json["choices"][0]["message"]["content"] == text.replace(SSN, "[US_SSN]")


def test_a_long_stream_is_masked_and_recorded_whole(site):
    text = "".join(f"{n}: nothing but words and {SSN}. " for n in range(3_000))
    site.upstream.answer = chat(text, size=40)
    reply = site.call(prompt(stream=True))
    expected = text.replace(SSN, "[US_SSN]")
    assert reply.whole and text_of(reply.body) == expected
    told = "".join(r["delivered"]["text"].get("0.content", "") for r in site.records(reply.session) if "delivered" in r)
    assert told == expected


def test_many_callers_at_once_each_get_their_own(site):
    site.upstream.answer = lambda request: chat(f"You said {request.json['messages'][0]['content']}, {SSN}.", size=3)(request)

    def one(n):
        reply = site.call(prompt(f"number {n}", stream=n % 2 == 0))
        return text_of(reply.body) if n % 2 == 0 else reply.json["choices"][0]["message"]["content"]

    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(one, range(100))) == [f"You said number {n}, [US_SSN]." for n in range(100)]
    assert site.countersign.verify().returncode == 0


def test_a_caller_who_hangs_up_mid_stream_ends_the_session_and_the_models_work(site):
    go_on = threading.Event()
    site.upstream.answer = paused("Once upon a time ", go_on)
    connection = begin(site.url, site.tokens(), prompt(stream=True))
    response = connection.getresponse()
    read_until(response, b"Once")
    session = response.getheader("countersign-session")
    response.close()
    connection.close()
    closed = wait_until("the session is closed", lambda: [r for r in site.records(session) if "closed" in r])[0]["closed"]
    go_on.set()
    assert closed["outcome"] != "completed"
