"""Who is told: signed webhooks of approvals, alerts to a webhook and to Kafka within a second, and the command line."""

import base64
import hashlib
import hmac
import json
import os
import shutil
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest
from stack import Gateway, Upstream, wait_until
from stack.caller import call, prompt
from stack.countersign import run
from stack.upstream import Answer
from test_approvals import RISKY, SSN, Office, office, office_of  # noqa: F401 (a fixture)
from test_control_topic import certified

SECRET = "whsec_" + base64.b64encode(b"0123456789abcdef0123456789abcdef").decode()


@pytest.fixture
def hooked(tmp_path, oidc, upstream, kafka):
    """An office whose approvals and alerts go to a hook, and alerts to a topic."""
    running = []
    topic = f"alerts-{uuid.uuid4().hex}"
    kafka.create_topic(topic)
    with Upstream(lambda request: Answer(204)) as hook:
        (tmp_path / "hook.secret").write_text(SECRET)
        told = {"url": f"http://127.0.0.1:{hook.port}/hook", "secret": {"file": str(tmp_path / "hook.secret")}, "format": "standard"}
        usual = office(oidc, tmp_path, wait="defer")
        usual["approvals"]["webhooks"] = [told, {"url": f"http://127.0.0.1:{hook.port}/slack", "format": "slack"}]
        usual["alerts"] = {"topic": topic, "webhooks": [told], "masked_per_principal": {"count": 3, "window": "5m"}}
        usual["audit"] = {"kafka": {"brokers": [kafka.address], "topic": f"audit-{topic}", "checkpoint_topic": f"checkpoints-{topic}"}}
        gateway = Gateway(tmp_path, usual, upstream.port).start()
        running.append(gateway)
        desk = Office(gateway, oidc, upstream)
        desk.hook, desk.alerts = hook, topic
        try:
            yield desk
        finally:
            gateway.stop()


def told(desk, kind: str) -> list[dict]:
    """The data of every message of a kind that came, each looked at for its signature."""
    found = []
    for request in list(desk.hook.requests):
        if request.path != "/hook":
            continue
        stamp, id = request.header("webhook-timestamp"), request.header("webhook-id")
        signed = f"{id}.{stamp}.".encode() + request.body
        right = hmac.new(base64.b64decode(SECRET.removeprefix("whsec_")), signed, hashlib.sha256).digest()
        assert request.header("webhook-signature") == f"v1,{base64.b64encode(right).decode()}"
        assert abs(time.time() - int(stamp)) < 60
        assert SSN not in request.body.decode() and "is that a problem" not in request.body.decode(), "a message holds text of the request"
        if request.json["type"] == kind:
            found.append(request.json["data"])
    return found


def test_people_hear_of_approvals_by_signed_webhooks_and_slack(hooked):
    reply = call(hooked.url, hooked.token(), prompt(RISKY))
    ticket = reply.header("countersign-approval")
    (asked,) = wait_until("they hear that it is asked", lambda: told(hooked, "approval.asked"))
    assert asked["approval"] == ticket and asked["url"].endswith(f"/api/v1/approvals/{ticket}")
    assert hooked.decide(hooked.pending()[0], "deny")[0] == 200
    (decided,) = wait_until("they hear that it is decided", lambda: told(hooked, "approval.decided"))
    assert decided["decision"] == "deny" and decided["decided_by"]["subject"] == "sam"
    slack = [request.json["text"] for request in hooked.hook.requests if request.path == "/slack"]
    assert slack and all(SSN not in text for text in slack)


def test_alerts_come_within_a_second_to_the_hook_and_the_topic(hooked, kafka):
    began = time.monotonic()
    assert call(hooked.url, hooked.token("ian", ["interns"]), prompt("hello")).status == 403
    wait_until("the hook hears of it", lambda: [alert for alert in told(hooked, "alert") if alert["rule"] == "denied"])
    assert time.monotonic() - began < 1.5, "it took more than a second"
    call(hooked.url, hooked.token(), prompt("cards 4111 1111 1111 1111, 5555 5555 5555 4444 and 3782 822463 10005"))
    wait_until("the masked alert", lambda: [alert for alert in told(hooked, "alert") if alert["rule"] == "masked"])
    call(hooked.url, hooked.token(), prompt(RISKY))
    assert hooked.decide(hooked.pending()[0], "break_glass", who="eve", groups=["incident"])[0] == 200
    wait_until("the glass", lambda: [alert for alert in told(hooked, "alert") if alert["rule"] == "break_glass"])
    rules = [json.loads(message.value())["rule"] for message in kafka.consume(hooked.alerts, 3)]
    assert rules == ["denied", "masked", "break_glass"]


def hook_of(tmp_path, hook):
    (tmp_path / "hook.secret").write_text(SECRET)
    return {"webhooks": [{"url": f"http://127.0.0.1:{hook.port}/hook", "secret": {"file": str(tmp_path / "hook.secret")}, "format": "standard"}]}


def alerted(desk, rule, severity):
    return [alert for alert in told(desk, "alert") if (alert["rule"], alert["severity"]) == (rule, severity)]


def test_a_log_in_trouble_is_an_alert_and_so_is_that_it_is_well_again(tmp_path, office_of, upstream):
    with Upstream(lambda request: Answer(204)) as hook:

        def more(usual):
            usual["alerts"] = hook_of(tmp_path, hook)
            usual["audit"] = {"segment": "1MiB", "spool_cap": "3MiB"}

        desk = office_of(upstream, more=more)
        desk.hook = hook
        old = min(desk.countersign.audit.glob("chains/*"))
        for length in [900_000, 300_000, 30_000, 3_000, 1]:
            wait_until("the log is full", lambda: call(desk.url, desk.token(), prompt("a" * length)).status == 503, 60)
        began = time.monotonic()
        wait_until("somebody is told", lambda: alerted(desk, "audit", "critical"), every=0.02)
        assert time.monotonic() - began < 1.5, "it took more than a second"
        assert not alerted(desk, "audit", "low")
        shutil.move(old, tmp_path / "archived")
        wait_until("it serves again", lambda: call(desk.url, desk.token()).status == 200, 60, every=0.2)
        wait_until("they are told that it is well again", lambda: alerted(desk, "audit", "low"))


def test_an_event_that_nobody_who_may_has_signed_is_an_alert(tmp_path, office_of, upstream, kafka):
    topic, root = f"control-{uuid.uuid4().hex}", tmp_path / "root.key"
    assert run("keygen", "control-root", "--out", root).returncode == 0
    with Upstream(lambda request: Answer(204)) as hook:

        def more(usual):
            usual["alerts"] = hook_of(tmp_path, hook)
            usual["approvals"]["kafka"] = {"topic": topic, "dev": True, **certified(tmp_path, root, "a")}
            usual["audit"] = {"replica": "a", "kafka": {"brokers": [kafka.address], "topic": f"audit-{topic}",
                                                        "checkpoint_topic": f"checkpoints-{topic}"}}

        desk = office_of(upstream, more=more)
        desk.hook = hook
        kafka.produce(topic, b"countersign/control/v1\n{}\n\nof a stranger\n")
        began = time.monotonic()
        (alert,) = wait_until("somebody is told", lambda: alerted(desk, "control_signature", "critical"), every=0.02)
        assert time.monotonic() - began < 1.5, "it took more than a second"
        assert "stranger" not in json.dumps(alert), "it holds what a stranger wrote"


def test_a_hook_that_is_away_delays_nobody(hooked):
    hooked.hook.answer = lambda request: Answer(500)
    began = time.monotonic()
    assert call(hooked.url, hooked.token(), prompt(RISKY)).status == 403
    assert time.monotonic() - began < 5


def test_the_command_line_lists_shows_and_decides(hooked):
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(call, hooked.url, hooked.token(), prompt(RISKY), {"prefer": "wait=20"})
        asked.result(30)

    def approvals(*arguments, who="sam", groups=("security",)):
        environment = {**os.environ, "COUNTERSIGN_TOKEN": hooked.token(who, list(groups)), "COUNTERSIGN_URL": f"http://{hooked.countersign.http}"}
        return run("approvals", *arguments, env=environment)

    (listed,) = [json.loads(line) for line in approvals("list", "--json").stdout.splitlines()]
    shown = approvals("show", listed["id"])
    assert shown.returncode == 0 and "[US_SSN]" in shown.stdout and SSN not in shown.stdout
    assert approvals("approve", listed["id"], "--yes", who="alice", groups=("finance", "security")).returncode == 1
    assert approvals("approve", listed["id"], "--yes", "--reason", "fine").returncode == 0
    assert call(hooked.url, hooked.token(), prompt(RISKY)).status == 200
    assert approvals("deny", listed["id"], "--yes", "--reason", "late").returncode == 1
