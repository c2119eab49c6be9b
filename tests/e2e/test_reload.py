"""A configuration changes while requests flow: new requests obey the new one, running ones the old, and both are on record."""

import contextlib
import copy
import json
import signal
import threading

import pytest
from conftest import kind
from stack import wait_until
from stack.caller import begin, call, finish, prompt, read_until, text_of
from stack.upstream import chat, paused

SSN = "536-22-8145"


def loads(countersign) -> list[dict]:
    return [record["config"] for record in countersign.records() if kind(record) == "config"]


def put(countersign, change):
    """Writes the changed configuration and waits until what became of it is on record."""
    before = len(loads(countersign))
    fresh = copy.deepcopy(countersign.config)
    change(fresh)
    countersign.write(fresh)
    countersign.signal(signal.SIGHUP)
    return wait_until("the new configuration is on record", lambda: loads(countersign)[before:], 20)[-1]


def without_masks(config):
    config["connections"][0]["policies"] = ["block-interns", "allow-finance"]
    config["policies"] = [policy for policy in config["policies"] if policy["name"] != "mask-personal"]


def nobody(config):
    config["policies"][-1]["when"] = '"board" in principal.groups'


@pytest.fixture
def go_on():
    event = threading.Event()
    yield event
    event.set()


def test_new_requests_obey_the_new_policy_and_a_running_stream_the_old(gateway, upstream, tokens, go_on):
    running = gateway()
    upstream.answer = paused(f"First {SSN}, ", go_on, f"then {SSN}.")
    with contextlib.closing(begin(running.envoy.url, tokens(), prompt(stream=True))) as connection:
        response = connection.getresponse()
        got = read_until(response, b"First")
        assert put(running.countersign, without_masks)["accepted"] is True
        upstream.answer = chat(f"It is {SSN}.")
        # Recorded before it is in force: the very next request may still be under the old one.
        wait_until("new requests are not masked any more", lambda: SSN.encode() in call(running.envoy.url, tokens()).body)
        go_on.set()
        rest = finish(response)
    assert text_of(got + rest.body) == "First [US_SSN], then [US_SSN]."
    digests = [record["opened"]["decision"]["policyDigest"] for record in running.countersign.records() if kind(record) == "opened"]
    accepted = [load["digest"] for load in loads(running.countersign) if load["accepted"]]
    assert len(accepted) == 2 and digests[0] == accepted[0] and digests[-1] == accepted[1]


def test_a_policy_that_closes_a_door_closes_it_without_a_restart(gateway, upstream, tokens):
    running = gateway()
    upstream.answer = chat("Hello.")
    assert call(running.envoy.url, tokens()).status == 200
    put(running.countersign, nobody)
    reply = wait_until("the door is closed", lambda: (r := call(running.envoy.url, tokens())).status == 403 and r)
    assert reply.code == "no_policy_allows"


@pytest.mark.parametrize("spoil, faults", [
    (lambda c: c["policies"][0].update(when="principal.gruops =="), 1),
    (lambda c: (c.update(polices=[]), c["connections"][0].update(dialekt="openai")), 2),
    (lambda c: (c["connections"][0].update(dialect="openia"), c["policies"][1]["then"]["mask"]["request"].update(detectors=["CREDIT_CRAD"])), 2),
    (lambda c: c["connections"][0]["credential"].update(file="/nowhere/at/all"), 1),
], ids=["condition", "unknown-keys", "unknown-names", "missing-credential"])
def test_a_faulty_file_is_refused_on_record_and_the_old_one_stays(gateway, upstream, tokens, spoil, faults):
    running = gateway()
    upstream.answer = chat(f"It is {SSN}.")
    first_config = copy.deepcopy(running.countersign.config)
    (first,) = loads(running.countersign)
    refused = put(running.countersign, spoil)
    assert refused.get("accepted", False) is False and refused["faults"] >= faults
    assert refused["inForce"] == first["digest"] != refused["digest"]
    reply = call(running.envoy.url, tokens())
    assert reply.status == 200 and b"[US_SSN]" in reply.body
    assert running.countersign.metrics()['countersign_config_loads_total{result="rejected"}'] == 1

    def mend(config):
        config.clear()
        config.update(first_config)

    assert put(running.countersign, mend)["accepted"] is True
    accepted = [load.get("accepted", False) for load in loads(running.countersign)]
    assert accepted == [True, False, True], "what was never in force is on record as refused, and as nothing else"


def test_a_file_that_is_no_yaml_is_refused(gateway, upstream, tokens):
    running = gateway()
    upstream.answer = chat("Hello.")
    running.countersign.file.write_text("connections: [")
    running.countersign.signal(signal.SIGHUP)
    wait_until("the refusal is on record", lambda: not loads(running.countersign)[-1].get("accepted"), 20)
    assert call(running.envoy.url, tokens()).status == 200


def test_a_file_that_goes_away_changes_nothing(gateway, upstream, tokens):
    running = gateway()
    upstream.answer = chat("Hello.")
    running.countersign.file.unlink()
    running.countersign.signal(signal.SIGHUP)
    wait_until("it noticed", lambda: "cannot be read" in running.countersign.log_text())
    assert call(running.envoy.url, tokens()).status == 200 and len(loads(running.countersign)) == 1


def test_a_changed_upstream_key_is_lent_from_then_on(gateway, upstream, tokens):
    running = gateway()
    upstream.answer = chat("Hello.")
    assert call(running.envoy.url, tokens()).status == 200
    fresh = "sk-upstream-fresh-0815"
    key = running.countersign.work / "upstream.key"
    key.with_suffix(".new").write_text(fresh + "\n")
    key.with_suffix(".new").chmod(0o600)
    key.with_suffix(".new").replace(key)

    def lent():
        call(running.envoy.url, tokens())
        return upstream.last.header("authorization") == f"Bearer {fresh}"

    wait_until("the fresh key is lent", lent)
    # What is looked for in answers is the key that is lent now.
    upstream.answer = chat(f"It is {fresh}.")
    assert fresh.encode() not in call(running.envoy.url, tokens()).body
    assert fresh not in running.countersign.log_text() and fresh not in json.dumps(running.countersign.records())


def test_terms_added_to_a_dictionary_are_masked_from_then_on(gateway, upstream, tokens):
    running = gateway()
    terms = running.countersign.work / "projects.txt"
    terms.write_text("Blue Heron\n")

    def with_projects(config):
        config["dictionaries"] = [{"entity": "PROJECT", "file": str(terms)}]
        for policy in config["policies"]:
            if policy["name"] == "mask-personal":
                policy["then"]["mask"]["response"]["detectors"].append("PROJECT")

    assert put(running.countersign, with_projects)["accepted"] is True
    upstream.answer = chat("Blue Heron, Red Kite.")

    def says(text):
        return lambda: text in call(running.envoy.url, tokens()).body

    wait_until("the first list is in force", says(b"[PROJECT], Red Kite."))
    terms.write_text("Blue Heron\nRed Kite\n")
    wait_until("the second list is in force", says(b"[PROJECT], [PROJECT]."))
    # What cannot be used changes nothing, and is said once.
    terms.write_text("\n")
    wait_until("it noticed", lambda: "what was in force stays" in running.countersign.log_text())
    assert says(b"[PROJECT], [PROJECT].")()
