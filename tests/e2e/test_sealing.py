"""Payload modes against the real parts: who can read what is on record, and that erasing is for good."""

import hashlib
import json
import random
import shutil

import pytest
from conftest import kind
from stack import Gateway, Upstream, config, wait_until
from stack.caller import call, prompt
from stack.countersign import run
from stack.upstream import chat

SECRET = "Her number is 536-22-8145"
MODES = ["masked", "masked+sealed", "sealed", "omit"]


def modes(usual: dict, auditors: list) -> dict:
    """A connection per payload mode, under a path of its name."""
    connection = usual["connections"][0]
    usual["connections"] = [
        {**connection, "name": mode.replace('+', '-'), "payload": mode, "match": {"path_prefix": f"/{mode.replace('+', '-')}/v1"}} for mode in MODES
    ]
    usual["sealing"] = {"auditors": [str(key) for key in auditors]}
    return usual


def path(mode: str) -> str:
    return f"/{mode.replace('+', '-')}/v1/chat/completions"


def keygen(work, name):
    made = run("keygen", "auditor", "--out", work / f"{name}.key", "--name", name)
    assert made.returncode == 0, made
    assert (work / f"{name}.key").stat().st_mode & 0o777 == 0o600
    return work / f"{name}.key", work / f"{name}.key.pub"


def unseal(directory, session, key, *options):
    return run("unseal", session, "--dir", directory, "--key", key, *options)


class House:
    def __init__(self, gateway, upstream, keys, tokens):
        self.gateway, self.upstream, self.keys, self.tokens = gateway, upstream, keys, tokens
        self.directory = gateway.countersign.audit

    def call(self, mode, body=None, client="alice-app"):
        reply = call(self.gateway.envoy.url, self.tokens(client), body or prompt(SECRET), path=path(mode))
        return reply

    def records(self, session):
        return [record for record in self.gateway.countersign.records() if record.get("session") == session]


@pytest.fixture(scope="module")
def house(oidc, tokens, tmp_path_factory):
    work = tmp_path_factory.mktemp("sealing")
    keys = {name: keygen(work, name) for name in ("lena", "otto", "eve")}
    usual = modes(config(oidc.issuer, work), [keys["lena"][1], keys["otto"][1]])
    with Upstream(chat(f"{SECRET}.", size=5)) as upstream, Gateway(work, usual, upstream.port) as gateway:
        yield House(gateway, upstream, {name: private for name, (private, _) in keys.items()}, tokens)


@pytest.mark.parametrize("client", ["alice-app", "carol-app"])
@pytest.mark.parametrize("mode", MODES)
def test_each_mode_shows_what_it_says(house, mode, client):
    """Carol is exempt from masking: she and the model see originals, the record does not."""
    house.upstream.answer = chat(f"{SECRET}.", size=5)
    body = prompt(f"{SECRET}, remember", stream=True)
    reply = house.call(mode, body, client)
    assert reply.status == 200 and reply.whole
    records = house.records(reply.session)
    text = json.dumps(records)
    assert "536-22-8145" not in text
    opened = records[0]["opened"]["request"]
    assert opened["payload"] == mode
    readable = mode.startswith("masked")
    assert ("[US_SSN], remember" in opened["body"]) == readable and ("Her number" in text) == readable
    sealed = unseal(house.directory, reply.session, house.keys["lena"], "--part", "request")
    if "sealed" not in mode:
        assert sealed.returncode == 2 and "nothing sealed" in sealed.stderr
        return
    assert json.loads(sealed.stdout) == body
    answer = unseal(house.directory, reply.session, house.keys["otto"], "--part", "answer")
    assert answer.returncode == 0 and answer.stdout.endswith("data: [DONE]\n\n")
    told = "".join(json.loads(line[6:])["choices"][0]["delta"].get("content", "") for line in answer.stdout.splitlines() if line.startswith("data: {"))
    assert told == f"{SECRET}."
    both = unseal(house.directory, reply.session, house.keys["otto"])
    assert both.stdout == f"{json.dumps(body)}\n{answer.stdout}"
    stranger = unseal(house.directory, reply.session, house.keys["eve"])
    assert stranger.returncode == 2 and stranger.stdout == "" and "not sealed to this key" in stranger.stderr


def test_a_large_body_and_a_refused_one_are_sealed_whole(house):
    body = prompt("word " * 300_000)
    reply = house.call("sealed", body)
    assert reply.status == 200
    assert json.loads(unseal(house.directory, reply.session, house.keys["lena"], "--part", "request").stdout) == body
    refused = house.call("sealed", prompt("let me in"), "bob-app")
    assert refused.status == 403
    assert json.loads(unseal(house.directory, refused.session, house.keys["lena"]).stdout) == prompt("let me in")


def test_what_was_changed_beside_the_chain_is_not_given_out(house, tmp_path):
    reply = house.call("sealed")
    copy = tmp_path / "audit"
    shutil.copytree(house.directory, copy)
    files = sorted((copy / "sealed").glob("*.sealed"))
    whole = {file: file.read_bytes() for file in files}
    chance = random.Random(5)
    session = reply.session.encode()
    refused = 0
    for n in range(30):
        (file,) = [file for file in files if session in whole[file]]
        data = bytearray(whole[file])
        at = chance.choice([i for i in range(len(data)) if data.startswith(session, i)]) + len(session) + chance.randrange(40)
        data[at] ^= 1 << chance.randrange(8)
        file.write_bytes(data)
        done = unseal(copy, reply.session, house.keys["lena"], "--part", "request")
        assert done.returncode in (1, 2) and done.stdout == "" or json.loads(done.stdout) == prompt(SECRET), done
        refused += done.returncode != 0
        file.write_bytes(whole[file])
    assert refused > 5
    shutil.rmtree(copy / "sealed")
    gone = unseal(copy, reply.session, house.keys["lena"])
    assert gone.returncode == 2 and "not there" in gone.stderr
    assert run("verify", "--dir", copy).returncode == 0, "the chain is whole all the same"
    moved = unseal(copy, reply.session, house.keys["lena"], "--sealed", house.directory / "sealed")
    assert moved.returncode == 0


def test_an_erasure_is_for_good_and_every_proof_still_holds(house, tmp_path):
    kept, erased = house.call("masked+sealed").session, house.call("masked+sealed").session
    trust = house.directory / "signing.key.pub"

    def prove(session, name):
        wait_until("a checkpoint covers it", lambda: run("proof", session, "--dir", house.directory, "--out", tmp_path / name).returncode == 0, 20)
        return tmp_path / name

    before = prove(erased, "before")
    done = run("erase", erased, "--dir", house.directory, "--reason", "request 4711")
    assert done.returncode == 0 and "erased, and on record" in done.stderr, done
    records = house.records(erased)
    assert kind(records[-1]) == "erased" and records[-1]["erased"]["reason"] == "request 4711"
    for name in ("lena", "otto"):
        gone = unseal(house.directory, erased, house.keys[name])
        assert gone.returncode == 2 and gone.stdout == "" and "erased" in gone.stderr and "request 4711" in gone.stderr
    assert unseal(house.directory, kept, house.keys["lena"]).returncode == 0
    shown = run("replay", erased, "--dir", house.directory)
    assert shown.returncode == 0 and "erased" in shown.stdout and "request 4711" in shown.stdout
    (row,) = [json.loads(line) for line in run("sessions", "--dir", house.directory, "--json").stdout.splitlines() if erased in line]
    assert row["erased"] and row["verified"]
    for proof in (before, prove(erased, "after")):
        assert run("verify", "--proof", proof, "--trust", trust).returncode == 0
    assert run("verify", "--dir", house.directory, "--trust", trust).returncode == 0
    again = run("erase", erased, "--dir", house.directory, "--reason", "again")
    assert again.returncode == 0 and "already" in again.stderr and house.records(erased) == records


def test_what_cannot_be_erased_is_said_so(house):
    readable = house.call("masked").session
    done = run("erase", readable, "--dir", house.directory, "--reason", "r")
    assert done.returncode == 2 and "readable text cannot be erased" in done.stderr
    odd = run("erase", "../../etc", "--dir", house.directory, "--reason", "r")
    assert odd.returncode == 2 and "no session's id" in odd.stderr
    blank = run("erase", readable, "--dir", house.directory, "--reason", " ")
    assert blank.returncode == 2 and "reason" in blank.stderr


def test_an_erasure_asked_for_while_no_gateway_runs_is_carried_out_by_the_next(tmp_path, oidc, tokens):
    key, public = keygen(tmp_path, "lena")
    with Upstream(chat("yes")) as upstream, Gateway(tmp_path, modes(config(oidc.issuer, tmp_path), [public]), upstream.port) as gateway:
        session = call(gateway.envoy.url, tokens(), prompt("hello"), path=path("sealed")).session
        directory = gateway.countersign.audit
        gateway.countersign.stop()
        asked = run("erase", session, "--dir", directory, "--reason", "while away")
        assert asked.returncode == 1 and "when one starts" in asked.stderr
        assert unseal(directory, session, key).returncode == 0, "not yet"
        gateway.countersign.start()
        wait_until("it is erased", lambda: unseal(directory, session, key).returncode == 2, 20)
        assert not list((directory / "erase").iterdir())
        assert [kind(r) for r in gateway.countersign.records() if r.get("session") == session][-1] == "erased"


def test_without_room_for_what_is_sealed_requests_are_refused(tmp_path, oidc, tokens):
    _, public = keygen(tmp_path, "lena")
    usual = modes(config(oidc.issuer, tmp_path), [public])
    usual["sealing"]["cap"] = "1MiB"
    with Upstream(chat("yes")) as upstream, Gateway(tmp_path, usual, upstream.port) as gateway:
        large = prompt("x" * (2 << 20))
        reply = call(gateway.envoy.url, tokens(), large, path=path("sealed"))
        assert (reply.status, reply.code) == (503, "audit_full")
        assert upstream.requests == []
        assert call(gateway.envoy.url, tokens(), large, path=path("masked")).status == 200
        assert call(gateway.envoy.url, tokens(), prompt("hi"), path=path("sealed")).status == 200
        assert gateway.countersign.metrics()["countersign_sealed_bytes"] > 0


def test_what_was_sealed_goes_by_the_rule_and_is_said_to_be_gone(tmp_path, oidc, tokens):
    key, public = keygen(tmp_path, "lena")
    usual = modes(config(oidc.issuer, tmp_path), [public])
    archive = tmp_path / "archive"
    # More than the log itself has, which stays.
    usual["audit"] = {"retention": {"size": "1MiB", "at_least": "0s", "archive": str(archive)}}
    words = prompt("remember the old days " * 60_000)
    with Upstream(chat("Hello there.")) as upstream, Gateway(tmp_path, usual, upstream.port) as gateway:
        log = gateway.countersign.audit
        old = call(gateway.envoy.url, tokens(), words, path=path("sealed")).session
        gateway.countersign.stop()
        gateway.countersign.start()
        new = call(gateway.envoy.url, tokens(), prompt("and the new"), path=path("sealed")).session
        wait_until("the first file went", lambda: not (log / "sealed/00000001.sealed").exists(), 60)
        assert json.loads(unseal(log, new, key, "--part", "request").stdout) == prompt("and the new")
        gone = unseal(log, old, key)
        assert gone.returncode == 2 and "as a record says" in gone.stderr and "size 1048576" in gone.stderr, gone
        kept = unseal(log, old, key, "--sealed", archive / "sealed", "--part", "request")
        assert json.loads(kept.stdout) == words, kept.stderr
        later = call(gateway.envoy.url, tokens(), prompt("what comes"), path=path("sealed")).session
        gateway.countersign.stop()
        done = run("verify", "--dir", log)
        assert done.returncode == 0 and "note: what was sealed until" in done.stdout, done
        # Gone without a word is something else.
        for file in (log / "sealed").glob("*.sealed"):
            file.unlink()
        silent = unseal(log, later, key)
        assert silent.returncode == 2 and "as a record says" not in silent.stderr, silent


def canaries(count: int) -> list[str]:
    """Values that detectors know and that stand nowhere else: social security numbers of areas that were given out."""
    chance = random.Random(19)
    found = set()
    while len(found) < count:
        area, group, serial = chance.randrange(100, 660), chance.randrange(10, 99), chance.randrange(1000, 9999)
        found.add(f"{area}-{group}-{serial}")
    return sorted(found)


def look_for_canaries(tmp_path, oidc, tokens, kafka, count: int):
    """Sends them through prompts and answers in every mode, and looks through every sink."""
    key, public = keygen(tmp_path, "lena")
    usual = modes(config(oidc.issuer, tmp_path), [public])
    topic = f"canary-{count}"
    kafka.create_topic(topic)
    kafka.create_topic(f"{topic}-checkpoints")
    usual["audit"] = {"kafka": {"brokers": [kafka.address], "topic": topic, "checkpoint_topic": f"{topic}-checkpoints"}}
    secrets = canaries(count)
    per_call, sent = 25, {}
    with Upstream() as upstream, Gateway(tmp_path, usual, upstream.port) as gateway:
        upstream.answer = lambda request: chat(request.json["messages"][0]["content"], size=3)(request)
        for n, at in enumerate(range(0, count, per_call)):
            mine = secrets[at : at + per_call]
            text = " and ".join(f"the number {secret}" for secret in mine)
            # Carol is exempt: her prompts and answers go through unmasked.
            reply = call(gateway.envoy.url, tokens("carol-app"), prompt(text, stream=n % 2 == 0), path=path(MODES[n % 4]), seconds=60)
            assert reply.status == 200 and reply.whole and sum(secret.encode() in reply.body for secret in mine) >= (n % 2) * len(mine)
            sent[reply.session] = (MODES[n % 4], mine)
        metrics = gateway.countersign.get("/metrics")[1]
        directory = gateway.countersign.audit
        gateway.countersign.stop()
        logs = b"".join(file.read_bytes() for file in gateway.countersign.work.glob("*.log"))
        run("sessions", "--dir", directory)
        disk = {file: file.read_bytes() for file in directory.rglob("*") if file.is_file()}
        messages = [message.value() for message in kafka.consume(topic, len(gateway.countersign.records()), seconds=60)]
        sinks = {"metrics": metrics, "log": logs, "topic": b"\n".join(messages), **disk}
        assert len(messages) > 2 * len(sent) and logs and any("sealed" in str(name) for name in sinks)
        hits = [(name, secret) for name, data in sinks.items() for secret in secrets if secret.encode() in data]
        assert hits == []
        # They were there to be found: an auditor reads every one of those that were sealed.
        sealed = [(session, mine) for session, (mode, mine) in sent.items() if "sealed" in mode]
        for session, mine in sealed[:20]:
            original = unseal(directory, session, key, "--part", "request").stdout
            assert all(secret in original for secret in mine)


def test_a_thousand_canaries_are_in_no_sink(tmp_path, oidc, tokens, kafka):
    look_for_canaries(tmp_path, oidc, tokens, kafka, 1_000)


@pytest.mark.long
def test_ten_thousand_canaries_are_in_no_sink(tmp_path, oidc, tokens, kafka):
    look_for_canaries(tmp_path, oidc, tokens, kafka, 10_000)


def test_ciphertext_reaches_its_topic_and_the_keys_never_do(tmp_path, oidc, tokens, kafka):
    key, public = keygen(tmp_path, "lena")
    usual = modes(config(oidc.issuer, tmp_path), [public])
    usual["sealing"]["topic"] = "sealed-test"
    usual["audit"] = {"kafka": {"brokers": [kafka.address], "topic": "sealed-test-audit", "checkpoint_topic": "sealed-test-checkpoints"}}
    for topic in ("sealed-test", "sealed-test-audit", "sealed-test-checkpoints"):
        kafka.create_topic(topic)
    with Upstream(chat(f"{SECRET}.", size=5)) as upstream, Gateway(tmp_path, usual, upstream.port) as gateway:
        for n in range(6):
            body = prompt(f"{SECRET} {n} " + "word " * (200_000 if n == 3 else 1), stream=n % 2 == 0)
            assert call(gateway.envoy.url, tokens(), body, path=path(MODES[n % 4])).status == 200
            if n == 2:
                gateway.countersign.stop()
                gateway.countersign.start()
        committed = {}
        for record in gateway.countersign.records():
            for event in ("opened", "delivered", "closed"):
                told = record.get(event, {})
                sealed = told.get("request", told).get("sealed")
                if sealed:
                    committed.setdefault(record["session"], []).append(sealed)
        assert len(committed) == 3
        wanted = sum(sealed["pieces"] for told in committed.values() for sealed in told)
        pieces = {}
        for message in kafka.consume("sealed-test", wanted, seconds=60):
            headers = {name: value.decode() for name, value in message.headers()}
            session, piece = headers["ce_id"].split("/")
            assert message.key().decode() == session and headers["ce_type"] == "countersign.sealed.v1"
            pieces[session, int(piece)] = message.value()
        assert len(pieces) == wanted
        for session, told in committed.items():
            for sealed in told:
                whole = b"".join(pieces[session, n] for n in range(sealed["first"], sealed["first"] + sealed["pieces"]))
                assert hashlib.sha256(whole).hexdigest() == sealed["sha256"]
        # The wrapped keys, as they stand on disk behind the session's name: nowhere on the topic.
        disk = b"".join(file.read_bytes() for file in (gateway.countersign.audit / "sealed").glob("*.sealed"))
        for session in committed:
            at = disk.index(session.encode()) + len(session)
            wrapped = disk[at + 4 : at + 36]
            assert not any(wrapped in value for value in pieces.values())
