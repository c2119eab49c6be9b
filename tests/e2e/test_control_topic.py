"""Several replicas, one control log on Kafka: one outcome each, the same on all, and nothing while it cannot be reached."""

import random
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest
from conftest import kind
from stack import Gateway, broker, wait_until
from stack.caller import call, prompt
from stack.countersign import run
from test_approvals import RISKY, Office, office

REPLICAS = ("a", "b", "c")


def certified(work, root, replica):
    """The key of a replica and the root's certificate for it."""
    key = work / f"control-{replica}-{uuid.uuid4().hex[:6]}.key"
    done = run("keygen", "control", "--out", key, "--root", root, "--replica", replica)
    assert done.returncode == 0, done.stderr
    return {"root": done.stdout.strip(), "key": str(key), "certificate": f"{key}.certificate"}


@pytest.fixture
def replicas(tmp_path, oidc, upstream):
    """`replicas(kafka)`: three gateways that share a control log."""
    running = []
    root = tmp_path / "root.key"
    assert run("keygen", "control-root", "--out", root).returncode == 0

    def start(kafka, names=REPLICAS, topic=None, change=None, **changed):
        topic = topic or f"control-{uuid.uuid4().hex}"
        offices = []
        for name in names:
            work = tmp_path / f"replica-{name}-{len(running)}"
            work.mkdir()
            usual = office(oidc, work, **changed)
            usual["approvals"]["kafka"] = {"topic": topic, "dev": True, **certified(work, root, name)}
            usual["audit"] = {"replica": name, "kafka": {"brokers": [kafka.address], "topic": f"audit-{topic}",
                                                         "checkpoint_topic": f"checkpoints-{topic}"}}
            if change:
                change(usual)
            gateway = Gateway(work, usual, upstream.port).start()
            running.append(gateway)
            offices.append(Office(gateway, oidc, upstream))
        return offices

    start.root = root
    yield start
    for gateway in running:
        gateway.stop()


def test_of_a_thousand_decisions_on_three_replicas_one_counts_and_all_agree(kafka, replicas, upstream):
    offices = replicas(kafka, wait="defer")
    chance = random.Random(5)
    alice = offices[0].token()
    texts = [f"{RISKY} number {n}" for n in range(100)]
    with ThreadPoolExecutor(8) as pool:
        asked = list(pool.map(lambda n: call(chance.choice(offices).url, alice, prompt(texts[n])), range(100)))
    assert {reply.status for reply in asked} == {403}
    ids = [reply.header("countersign-approval") for reply in asked]
    assert len(set(ids)) == 100
    found = wait_until("all see all", lambda: all(len(found := {one["id"]: one for one in desk.pending()}) == 100 for desk in offices) and found)
    sam = offices[0].token("sam", ["security"])
    shown = {id: chance.choice(offices).api("GET", f"/{id}", sam)[1] for id in found}
    people = [offices[0].token(f"person-{n}", ["security"]) for n in range(10)]

    def decide(n):
        approval, desk = shown[ids[n % 100]], chance.choice(offices)
        said = "approve" if (n * 7919) % 3 else "deny"
        body = {"decision": said, "binding": approval["binding"], "reason": f"decision {n}"}
        return approval["id"], said, desk.api("POST", f"/{approval['id']}/decision", people[n % 10], body)[0]

    order = list(range(1000))
    chance.shuffle(order)
    with ThreadPoolExecutor(12) as pool:
        done = list(pool.map(decide, order))
    counted = {}
    for id, said, status in done:
        assert status in (200, 403, 409), (id, status)
        if status == 200:
            assert id not in counted, f"two decisions on {id} count"
            counted[id] = {"approve": "approved", "deny": "denied"}[said]
    assert len(counted) == 100
    auditor = offices[0].token("ann", ["audit"])
    for desk in offices:
        listed = wait_until("it has seen all", lambda: (found := desk.api("GET", "?limit=1000", auditor)[1]["approvals"])
                            and all(one["state"] != "pending" for one in found) and found)
        assert {one["id"]: one["state"] for one in listed} == counted
    # Each approved request goes once, whichever replicas it is sent to.
    approved = [n for n in range(100) if counted[ids[n]] == "approved"][:20]
    with ThreadPoolExecutor(9) as pool:
        replies = list(pool.map(lambda pair: call(pair[1].url, alice, prompt(texts[pair[0]])).status, [(n, desk) for n in approved for desk in offices]))
    assert replies.count(200) == len(approved), replies
    assert len(upstream.requests) == len(approved)
    for desk in offices:
        assert desk.countersign.verify().returncode == 0


def test_a_kafka_that_stops_during_a_hold_releases_nothing_and_takes_nothing_new(tmp_path, replicas, upstream):
    with broker(tmp_path) as kafka:
        (desk,) = replicas(kafka, names=("a",), max_hold="10m")
        alice = desk.token()
        with ThreadPoolExecutor(1) as pool:
            held = pool.submit(call, desk.url, alice, prompt(RISKY), seconds=120)
            (approval,) = desk.wait_for()
            kafka.stop()
            assert desk.decide(approval)[0] == 503
            assert not held.done() or held.result().status == 503
            fresh = call(desk.url, alice, prompt(RISKY + " another"), seconds=60)
            assert fresh.status == 503, fresh
            assert upstream.requests == []
            kafka.start()
            wait_until("it can be reached again", lambda: desk.countersign.get("/readyz")[0] == 200, 60)
            # What was sent when the broker was away may have landed: the log says.
            status, seen = desk.api("GET", f"/{approval['id']}", alice)
            assert status == 200
            if seen["state"] == "pending":
                assert desk.decide(approval)[0] == 200
            held.result(120)
        wait_until("it goes", lambda: upstream.requests or call(desk.url, alice, prompt(RISKY)).status == 200)
        assert len(upstream.requests) == 1


def test_a_key_that_the_root_has_not_certified_is_refused_at_start_and_its_events_by_all(kafka, replicas, tmp_path):
    (desk,) = replicas(kafka, names=("a",), wait="defer")
    topic = desk.countersign.config["approvals"]["kafka"]["topic"]
    kafka.produce(topic, b"countersign/control/v1\n{}\n\nnot signed\n")
    wait_until("it is noticed", lambda: desk.countersign.metrics().get("countersign_control_forged_events_total") == 1)
    assert call(desk.url, desk.token(), prompt(RISKY)).status == 403
    stranger = tmp_path / "stranger.key"
    assert run("keygen", "control-root", "--out", stranger).returncode == 0
    other = certified(tmp_path, stranger, "a")
    desk.countersign.stop()
    desk.countersign.config["approvals"]["kafka"].update(key=other["key"], certificate=other["certificate"])
    desk.countersign.write()
    with pytest.raises(Exception, match="not signed by the pinned root"):
        desk.countersign.start()


def test_a_topic_that_cannot_keep_order_is_refused(kafka, replicas):
    topic = f"control-{uuid.uuid4().hex}"
    kafka.create_topic(topic, partitions=2)
    with pytest.raises(Exception, match="2 partitions and not 1"):
        replicas(kafka, names=("a",), topic=topic)


def test_a_topic_made_anew_is_read_anew_and_nothing_of_the_old_one_counts(kafka, replicas, upstream):
    (desk,) = replicas(kafka, names=("a",), wait="defer")
    alice = desk.token()
    for n in range(5):
        assert call(desk.url, alice, prompt(f"{RISKY} {n}")).status == 403
    first = desk.pending()[0]
    assert desk.decide(first)[0] == 200
    topic = desk.countersign.config["approvals"]["kafka"]["topic"]
    kafka.delete_topic(topic)
    kafka.create_topic(topic, **{"cleanup.policy": "delete", "message.timestamp.type": "LogAppendTime"})
    sam = desk.token("sam", ["security"])

    def anew():
        # 503 while the log is being read anew.
        status, listed = desk.api("GET", "?state=pending", sam)
        assert status in (200, 503), listed
        return status == 200 and listed["approvals"] == []

    wait_until("it starts anew", anew, 60)
    # What was approved in the log that is gone was approved nowhere.
    assert [call(desk.url, alice, prompt(f"{RISKY} {n}")).status for n in range(5)] == [403] * 5
    assert upstream.requests == []
