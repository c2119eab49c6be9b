"""The example consumers: each record once, and an alarm where one is missing, changed or out of its chain."""

import json
import subprocess
import sys

import pytest
from confluent_kafka import Producer
from stack import ROOT, Gateway, Upstream, config, wait_until
from stack.caller import call, prompt
from stack.countersign import binary, run
from stack.upstream import chat

CONSUMERS = {
    "python": [sys.executable, ROOT / "examples/consume/consume.py"],
    "rust": [binary().parent / "examples/consume"],
}


def consume(which, kafka, topic):
    return subprocess.run([*map(str, CONSUMERS[which]), "--brokers", kafka.address, "--topic", topic, "--until-end"],
                          capture_output=True, text=True, timeout=60)


@pytest.fixture(scope="module")
def log(kafka, oidc, tokens, tmp_path_factory):
    """A log of two chains, its lines as they are on the topic, and the topic."""
    topic = "countersign.audit.v1.consumed"
    kafka.create_topic(topic, partitions=2)
    kafka.create_topic(f"{topic}.checkpoints")
    work = tmp_path_factory.mktemp("consumed")
    kafka_settings = {"brokers": [kafka.address], "topic": topic, "checkpoint_topic": f"{topic}.checkpoints"}
    with Upstream(chat("Hello there.")) as upstream, \
            Gateway(work, config(oidc.issuer, work, audit={"kafka": kafka_settings}), upstream.port) as gateway:
        for _ in range(2):
            for n in range(4):
                call(gateway.envoy.url, tokens(), prompt(f"question {n}"))
            gateway.countersign.stop()
            gateway.countersign.start()
        gateway.countersign.stop()
        lines = run("tail", "--dir", gateway.countersign.audit, "--format", "json").stdout.splitlines()
    wait_until("all of it is on the topic", lambda: len(kafka.consume(topic, len(lines))) == len(lines))
    return topic, lines


def produce(kafka, topic, lines):
    """Puts `lines` on a topic of their own, as a publisher that sends again would."""
    kafka.create_topic(topic, partitions=2)
    producer = Producer({"bootstrap.servers": kafka.address, "acks": "all"})
    for line in lines:
        producer.produce(topic, value=line.encode(), key=line[10:42].encode())
    producer.flush(20)


@pytest.mark.parametrize("which", CONSUMERS)
def test_each_record_comes_once(kafka, log, which):
    topic, lines = log
    done = consume(which, kafka, topic)
    assert (done.returncode, done.stderr) == (0, ""), done
    assert sorted(done.stdout.splitlines()) == sorted(lines)


@pytest.mark.parametrize("which", CONSUMERS)
def test_what_comes_again_is_dropped(kafka, log, which):
    _, lines = log
    topic = f"again.{which}"
    produce(kafka, topic, lines + lines[3:9] + lines)
    done = consume(which, kafka, topic)
    assert (done.returncode, done.stderr) == (0, ""), done
    assert sorted(done.stdout.splitlines()) == sorted(lines)


@pytest.mark.parametrize("which", CONSUMERS)
@pytest.mark.parametrize("what", ["GAP", "CHANGED", "BROKEN"])
def test_what_is_wrong_is_told(kafka, log, which, what):
    _, lines = log
    chain = json.loads(lines[0])["chain"]
    mine = [line for line in lines if json.loads(line)["chain"] == chain]
    changed = mine[4].replace('"replica":"', '"replica":"x')
    sent = {"GAP": mine[:4] + mine[5:], "CHANGED": [*mine[:6], changed, *mine[6:]], "BROKEN": [*mine[:4], changed, *mine[5:]]}[what]
    topic = f"wrong.{which}.{what}"
    produce(kafka, topic, sent)
    done = consume(which, kafka, topic)
    assert done.returncode == 1, done
    at = 4 if what == "CHANGED" else 5
    assert done.stderr.startswith(f"{what} chain {chain} record {at}: "), done.stderr
