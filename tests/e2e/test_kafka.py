"""The audit topic: every record, in chain order, through outages, and readable without us."""

import contextlib
import json
import shutil
import sys
import threading
from collections import defaultdict

import pytest
from conftest import kind
from google.protobuf import json_format, message_factory
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from stack import ROOT, Gateway, Upstream, broker, config, wait_until
from stack.caller import begin, call, finish, prompt, text_of
from stack.countersign import run
from stack.kafka import KafkaCluster
from stack.process import TOOLS
from stack.upstream import chat

TOPIC, CHECKPOINTS = "countersign.audit.v1", "countersign.checkpoints.v1"
SSN, CARD = "536-22-8145", "4111 1111 1111 1111"


@pytest.fixture(scope="module")
def topic(kafka):
    kafka.create_topic(TOPIC, partitions=3)
    kafka.create_topic(CHECKPOINTS)
    return kafka


@pytest.fixture(scope="module")
def published(topic, oidc, tokens, tmp_path_factory):
    """A gateway that publishes, some traffic of every kind through it, and a restart: two chains."""
    work = tmp_path_factory.mktemp("published")
    settings = config(oidc.issuer, work, audit={"kafka": {"brokers": [topic.address]}})
    with Upstream(chat(f"Her number is {SSN}. ", size=3)) as upstream, Gateway(work, settings, upstream.port) as gateway:
        for _ in range(2):
            for body in [prompt(f"Pay with {CARD}"), prompt(stream=True), b"{", prompt(model="gpt-5-pro"), prompt("a" * 600_000)]:
                call(gateway.envoy.url, tokens(), body)
            call(gateway.envoy.url, "garbage")
            gateway.countersign.stop()
            gateway.countersign.start()
        gateway.countersign.stop()
        yield gateway


def chains(messages) -> dict[str, dict[int, bytes]]:
    """Each chain's records by their place, as a consumer keeps them that drops what it has seen. A repeat must be the same bytes, and the order dense."""
    found: dict[str, dict[int, bytes]] = defaultdict(dict)
    for message in messages:
        record = json.loads(message.value())
        place, records = int(record["seq"]), found[record["chain"]]
        assert place <= len(records), f"record {place} of {record['chain']} came after {len(records)}: a gap"
        assert records.setdefault(place, message.value()) == message.value(), "a repeat with other bytes"
    return found


def consume(kafka, countersign):
    """All of the topic, once it holds what the directory holds."""
    return kafka.consume(TOPIC, len(countersign.records()), seconds=60)


def test_every_record_is_on_the_topic_in_chain_order_byte_for_byte(topic, published):
    on_disk = defaultdict(list)
    for line in run("tail", "--dir", published.countersign.audit, "--format", "json").stdout.splitlines():
        on_disk[json.loads(line)["chain"]].append(line)
    found = chains(consume(topic, published.countersign))
    assert len(on_disk) == 3
    for chain, lines in on_disk.items():
        assert [found[chain][seq].decode() for seq in range(len(lines))] == lines


def test_a_message_carries_its_chain_as_key_and_cloudevents_headers(topic, published):
    seen = set()
    partitions = defaultdict(set)
    for message in consume(topic, published.countersign):
        record = json.loads(message.value())
        headers = {name: value.decode() for name, value in message.headers()}
        assert message.key().decode() == record["chain"]
        partitions[record["chain"]].add(message.partition())
        assert headers["ce_specversion"] == "1.0" and headers["content-type"].startswith("application/json")
        assert headers["ce_id"] and headers["ce_source"] and headers["ce_time"] == record["time"]
        assert kind(record) in headers["ce_type"]
        seen.add((headers["ce_source"], headers["ce_id"]))
        assert len(message.value()) < 1 << 20
    assert len(seen) == len(published.countersign.records()), "source and id name one event, as CloudEvents demands"
    assert all(len(where) == 1 for where in partitions.values()), "a chain is in one partition, or it has no order"


@pytest.fixture(scope="module")
def schema(tmp_path_factory):
    """`Record` of the published schema, as protoc and Python's protobuf understand it: none of our code."""
    from grpc_tools import protoc
    out = tmp_path_factory.mktemp("proto") / "audit.pb"
    import grpc_tools
    well_known = f"{grpc_tools.__path__[0]}/_proto"
    status = protoc.main(["protoc", f"-I{ROOT / 'proto'}", f"-I{well_known}", "--include_imports", f"--descriptor_set_out={out}",
                          "countersign/audit/v1/audit.proto"])
    assert status == 0
    pool = DescriptorPool()
    for file in FileDescriptorSet.FromString(out.read_bytes()).file:
        pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("countersign.audit.v1.Record"))


def test_every_record_parses_with_another_protobuf_implementation(topic, published, schema):
    kinds = set()
    for message in consume(topic, published.countersign):
        record = json_format.Parse(message.value().decode(), schema())  # an unknown field raises
        kinds.add(record.WhichOneof("event"))
        # Nothing is lost on the way through the schema: what it writes means what was read.
        again = json_format.MessageToDict(record)
        assert pruned(again) == pruned(json.loads(message.value())), message.value()
    assert kinds == {"genesis", "config", "opened", "delivered", "closed", "refused", "unauthenticated", "shutdown"}


def pruned(value):
    """Without what proto3 leaves out: zeros, empty texts and lists."""
    if isinstance(value, dict):
        kept = {name: pruned(inner) for name, inner in value.items() if name != "time"}
        return {name: inner for name, inner in kept.items() if inner not in ("", "0", 0, False, [], {}, None)}
    return [pruned(inner) for inner in value] if isinstance(value, list) else value


def test_the_topic_verifies_and_tails_like_the_directory(topic, published):
    done = run("verify", "--brokers", topic.address, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout)
    by_dir = json.loads(published.countersign.verify("--json").stdout)
    assert told["records"] == by_dir["records"] == len(published.countersign.records())
    assert {chain["chain"] for chain in told["chains"]} == {chain["chain"] for chain in by_dir["chains"]}
    lines = run("tail", "--brokers", topic.address, "--format", "json").stdout.splitlines()
    assert {(json.loads(line)["chain"], json.loads(line)["seq"]) for line in lines} == {
        (record["chain"], record["seq"]) for record in published.countersign.records()}


def test_against_a_checkpoint_kept_outside_the_log_is_whole(published, tmp_path):
    outside, key = kept_outside(published, tmp_path)
    done = published.countersign.verify("--checkpoint", outside, "--trust", key)
    assert done.returncode == 0 and "\nwhole: " in done.stdout, done.stdout


def kept_outside(published, tmp_path):
    """What somebody else keeps: the last chain's checkpoints, and the key they are signed with."""
    newest = sorted(published.countersign.audit.glob("chains/*/checkpoints"))[-1]
    return shutil.copy(newest, tmp_path / "outside"), shutil.copy(published.countersign.audit / "signing.key.pub", tmp_path / "key.pub")


def copied(published, tmp_path):
    return shutil.copytree(published.countersign.audit, tmp_path / "copy")


def test_one_changed_byte_is_found_and_its_record_is_named(published, tmp_path):
    copy = copied(published, tmp_path)
    record = next(record for record in published.countersign.records() if "[CREDIT_CARD]" in json.dumps(record))
    for segment in sorted(copy.glob("chains/*/*.seg")):
        data = bytearray(segment.read_bytes())
        if (at := data.find(b"[CREDIT_CARD]")) >= 0:
            data[at + 1] ^= 1
            segment.write_bytes(data)
            break
    done = run("verify", "--dir", copy)
    assert done.returncode == 1 and "TAMPERED" in done.stdout
    told = json.loads(run("verify", "--dir", copy, "--json").stdout)
    assert (told["faults"][0]["chain"], told["faults"][0]["seq"]) == (record["chain"], int(record["seq"]))


def test_a_shortened_log_is_found_against_the_checkpoint_and_only_then(published, tmp_path):
    outside, key = kept_outside(published, tmp_path)
    copy = copied(published, tmp_path)
    last = sorted(copy.glob("chains/*"))[-1]
    shutil.rmtree(last)
    assert run("verify", "--dir", copy).returncode == 0, "nothing inside can tell"
    done = run("verify", "--dir", copy, "--checkpoint", outside, "--trust", key)
    assert done.returncode == 1, done.stdout


def test_a_checkpoint_of_another_key_is_not_believed(published, tmp_path):
    outside, _ = kept_outside(published, tmp_path)
    other = tmp_path / "other.key"
    assert run("keygen", "signing", "--out", other).returncode == 0
    done = published.countersign.verify("--checkpoint", outside, "--trust", f"{other}.pub")
    assert done.returncode in (1, 2) and "whole: " not in done.stdout, done.stdout + done.stderr


def test_verify_cannot_tell_of_what_is_not_there(tmp_path):
    for nothing in [["--dir", tmp_path / "nowhere"], ["--dir", tmp_path]]:
        done = run("verify", *nothing)
        assert done.returncode == 2 and done.stderr.startswith("countersign verify: ")


@pytest.mark.long
def test_verify_cannot_tell_of_a_broker_that_is_away():
    assert run("verify", "--brokers", "127.0.0.1:1").returncode == 2


def test_an_outage_of_the_broker_loses_nothing_and_holds_nobody_up(oidc, tokens, tmp_path):
    with broker(tmp_path) as own:
        if not own.keeps_data:
            pytest.skip("the stand-in broker forgets what it holds: an outage cannot be told from a loss")
        own.create_topic(TOPIC)
        own.create_topic(CHECKPOINTS)
        settings = config(oidc.issuer, tmp_path, audit={"kafka": {"brokers": [own.address]}})
        with Upstream(chat(f"Her number is {SSN}.", size=3)) as upstream, Gateway(tmp_path, settings, upstream.port) as gateway:
            def ask(n):
                reply = call(gateway.envoy.url, tokens(), prompt(f"number {n}", stream=n % 2 == 0))
                assert reply.status == 200 and reply.whole
                return text_of(reply.body)

            ask(0)
            wait_until("the first records arrived", lambda: not lag(gateway), 30)
            own.kill()
            for n in range(1, 30):
                ask(n)
            assert lag(gateway) > 30, "the metric tells what waits"
            assert gateway.countersign.get("/readyz")[0] == 200
            # And one of us dies meanwhile: what it had not published is published by its successor.
            gateway.countersign.kill()
            gateway.countersign.start()
            ask(30)
            own.start()
            ask(31)
            wait_until("all is published", lambda: not lag(gateway), 90, every=0.2)
            assert gateway.countersign.stop() == 0
            records = gateway.countersign.records()
            # What the one that died had sent and had no answer to was sent again.
            found = chains(own.consume(TOPIC, own.size(TOPIC), seconds=60))
            assert {chain: len(places) for chain, places in found.items()} == {
                chain: sum(record["chain"] == chain for record in records) for chain in found}
            assert sum(map(len, found.values())) == len(records)
            done = run("verify", "--brokers", own.address)
            assert done.returncode == 0, done.stdout + done.stderr


def test_what_the_brokers_retention_took_is_neither_whole_nor_tampered(oidc, tokens, tmp_path):
    with broker(tmp_path) as own:
        if not own.keeps_data:
            pytest.skip("the stand-in broker has no retention")
        own.create_topic(TOPIC)
        own.create_topic(CHECKPOINTS)
        settings = config(oidc.issuer, tmp_path, audit={"kafka": {"brokers": [own.address]}})
        with Upstream(chat("Hello there.")) as upstream, Gateway(tmp_path, settings, upstream.port) as gateway:
            for _ in range(2):
                for n in range(3):
                    assert call(gateway.envoy.url, tokens(), prompt(f"number {n}")).status == 200
                gateway.countersign.stop()
                gateway.countersign.start()
            wait_until("all is published", lambda: not lag(gateway), 60, every=0.2)
            gateway.countersign.stop()
            records = gateway.countersign.records()
            chain = records[0]["chain"]
            size = sum(record["chain"] == chain for record in records)
            assert size > 5 and run("verify", "--brokers", own.address).returncode == 0
            for gone in (5, size):
                own.delete_before(TOPIC, gone)
                done = run("verify", "--brokers", own.address, "--json")
                told = json.loads(done.stdout)
                assert (done.returncode, told["verdict"], told["faults"]) == (2, "not provable", []), done
                assert told["expired"] == [{"chain": chain, "records": gone, "disk_pruned": False}]
                assert told["records"] == len(records) - gone
            assert "not provable" in run("verify", "--brokers", own.address).stdout


def lag(gateway) -> float:
    return gateway.countersign.metrics()["countersign_kafka_unacknowledged_records"]


def test_where_kafka_is_what_counts_nothing_goes_on_before_the_broker_has_it(oidc, tokens, tmp_path):
    with broker(tmp_path) as own:
        own.create_topic(TOPIC)
        own.create_topic(CHECKPOINTS)
        settings = config(oidc.issuer, tmp_path, audit={"kafka": {"brokers": [own.address]}})
        settings["connections"][0]["durability"] = "kafka"
        with Upstream(chat("Hello there.", size=3)) as upstream, Gateway(tmp_path, settings, upstream.port) as gateway:
            there_when_it_arrived = []
            upstream.answer = lambda request: (there_when_it_arrived.append(lag(gateway)), chat("Hello there.")(request))[1]
            for n in range(5):
                reply = call(gateway.envoy.url, tokens(), prompt(f"number {n}", stream=n % 2 == 0))
                assert reply.status == 200 and reply.whole
            assert there_when_it_arrived == [0] * 5, "`opened` was acknowledged before the model saw the request"
            assert lag(gateway) == 0, "and `closed` before the caller had the end"
            own.kill()
            upstream.requests.clear()
            refused = call(gateway.envoy.url, tokens(), prompt("while nobody answers"))
            assert (refused.status, refused.code) == (503, "audit_unavailable") and upstream.requests == []
            own.start()
            if not own.keeps_data:
                return  # the stand-in broker came back without its topics
            wait_until("it goes on by itself", lambda: call(gateway.envoy.url, tokens()).status == 200, 60)
            # What was refused was opened on disk: it is closed there too.
            (session,) = [[r for r in gateway.countersign.records() if r.get("session") == refused.session]]
            assert [kind(record) for record in session] == ["opened", "closed"]


@pytest.fixture
def own_topics(kafka, tmp_path):
    """Topics of this test's alone, and the settings for them."""
    name = tmp_path.name
    settings = {"brokers": [kafka.address], "topic": f"{name}.records", "checkpoint_topic": f"{name}.checkpoints"}
    kafka.create_topic(settings["topic"], partitions=2)
    kafka.create_topic(settings["checkpoint_topic"])
    return settings


def check(settings, *options):
    return run("verify", "--brokers", settings["brokers"][0], "--topic", settings["topic"],
               "--checkpoint-topic", settings["checkpoint_topic"], *options)


def test_a_topic_that_was_lost_is_filled_again(kafka, own_topics, oidc, tokens, tmp_path):
    settings = config(oidc.issuer, tmp_path, audit={"kafka": own_topics})
    with Upstream(chat("Hello there.")) as upstream, Gateway(tmp_path, settings, upstream.port) as gateway:
        countersign = gateway.countersign
        for _ in range(2):
            for n in range(5):
                call(gateway.envoy.url, tokens(), prompt(f"question {n}"))
            countersign.stop()
            countersign.start()
        call(gateway.envoy.url, tokens(), prompt("and one more"))
        countersign.stop()
        records = len(countersign.records())
        trust = countersign.audit / "signing.key.pub"
        assert check(own_topics, "--trust", trust).returncode == 0
        for topic in (own_topics["topic"], own_topics["checkpoint_topic"]):
            kafka.delete_topic(topic)
            kafka.create_topic(topic, partitions=2)
        # The gateway cannot know: it was acknowledged.
        countersign.start()
        call(gateway.envoy.url, tokens(), prompt("after the loss"))
        wait_until("what is new is there", lambda: not lag(gateway), 30)
        lost = check(own_topics, "--trust", trust)
        assert lost.returncode == 1 and "chain missing" in lost.stdout, lost
        done = run("republish", "--config", countersign.file, "--all")
        assert done.returncode == 0 and "of 4 chains" in done.stderr, done
        countersign.stop()
        again = run("republish", "--config", countersign.file, "--from", "2")
        assert again.returncode == 0 and "of 1 chains" in again.stderr, again
        whole = check(own_topics, "--trust", trust, "--json")
        told = json.loads(whole.stdout)
        assert whole.returncode == 0 and told["records"] == len(countersign.records()) > records, whole.stdout
        found = chains(kafka.consume(own_topics["topic"], told["records"] + told["repeats"], seconds=60))
        lines = run("tail", "--dir", countersign.audit, "--format", "json").stdout.splitlines()
        assert sorted(value.decode() for places in found.values() for value in places.values()) == sorted(lines)
        assert run("republish", "--config", countersign.file, "--from", "0", "--chain", "0" * 32).returncode == 2


def test_a_replica_whose_disk_died_is_followed_by_one_that_reads_the_topic(kafka, own_topics, oidc, tokens, tmp_path):
    key = tmp_path / "signing.key"
    assert run("keygen", "signing", "--out", key).returncode == 0
    audit = {"kafka": {**own_topics, "take_over": True}, "replica": "pod-0", "signing_key": str(key)}
    settings = config(oidc.issuer, tmp_path, audit=audit)
    settings["connections"][0]["durability"] = "kafka"
    go_on = threading.Event()
    with Upstream(chat("Hello there.")) as upstream, Gateway(tmp_path, settings, upstream.port) as gateway:
        countersign = gateway.countersign
        for n in range(3):
            assert call(gateway.envoy.url, tokens(), prompt(f"question {n}")).status == 200
        upstream.answer = lambda request: (go_on.wait(30), chat("Too late.")(request))[1]
        with contextlib.closing(begin(gateway.envoy.url, tokens(), prompt("the last one"))) as connection:
            upstream.wait_for(4)
            countersign.kill()
            shutil.rmtree(countersign.audit)
            go_on.set()
            assert finish(connection.getresponse()).status >= 500
        countersign.start()
        records = countersign.records()
        (closed,) = [record for record in records if "closed" in record]
        assert closed["closed"]["outcome"] == "unknown"
        genesis = records[0]["genesis"]
        assert genesis["previousChain"] and int(genesis["previousSize"]) >= 8 and not genesis["previousClean"]
        upstream.answer = chat("Back again.")
        assert call(gateway.envoy.url, tokens()).status == 200
        countersign.stop()
        done = check(own_topics, "--trust", f"{key}.pub", "--json")
        told = json.loads(done.stdout)
        assert done.returncode == 0 and len(told["chains"]) == 2, done.stdout
        everything = [json.loads(message.value()) for message in kafka.consume(own_topics["topic"], told["records"])]
        opened = [r["session"] for r in everything if "opened" in r]
        ended = [r["session"] for r in everything if "closed" in r]
        assert sorted(opened) == sorted(ended) and closed["session"] in opened and len(opened) == 5


@pytest.mark.long
@pytest.mark.timeout(600)
def test_three_brokers_one_killed_and_all_away_while_requests_flow(oidc, tokens, tmp_path):
    if not (TOOLS / "stamps" / "kafka").exists():
        pytest.skip("Apache Kafka is not installed here")
    with KafkaCluster(tmp_path) as cluster:
        cluster.create_topic(TOPIC, partitions=3)
        cluster.create_topic(CHECKPOINTS)
        settings = config(oidc.issuer, tmp_path, audit={"kafka": {"brokers": cluster.address.split(",")}})
        with Upstream(chat("Hello there.", size=3)) as upstream, Gateway(tmp_path, settings, upstream.port) as gateway:
            stop, answered = threading.Event(), []

            def flow():
                while not stop.is_set():
                    reply = call(gateway.envoy.url, tokens(), prompt(f"number {len(answered)}", stream=True))
                    assert reply.status == 200 and reply.whole
                    answered.append(reply.session)

            flowing = threading.Thread(target=flow)
            flowing.start()
            try:
                wait_until("it flows", lambda: len(answered) > 20, 60)
                cluster.nodes[0].kill()
                so_far = len(answered)
                wait_until("one less is no matter", lambda: len(answered) > so_far + 50, 60)
                wait_until("nor to what is published", lambda: lag(gateway) < 20, 60, every=0.2)
                cluster.kill()
                so_far = len(answered)
                wait_until("none at all holds nobody up", lambda: len(answered) > so_far + 500, 240)
                cluster.start()
            finally:
                stop.set()
                flowing.join(60)
            wait_until("all is published", lambda: not lag(gateway), 120, every=0.2)
            gateway.countersign.stop()
            records = gateway.countersign.records()
            assert {r["session"] for r in records if "closed" in r} == set(answered)
            done = run("verify", "--brokers", cluster.address, "--json")
            assert done.returncode == 0 and json.loads(done.stdout)["records"] == len(records), done.stdout
