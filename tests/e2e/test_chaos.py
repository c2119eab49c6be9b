"""Everything at once goes wrong, and one checker compares what callers got, what the model saw and what the log holds."""

import contextlib
import hashlib
import itertools
import json
import random
import re
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest
from conftest import kind
from stack import UPSTREAM_KEY, Gateway, Upstream, broker, wait_until
from stack.between import FAULTS, Between
from stack.caller import call, prompt
from stack.countersign import run
from stack.envoy import http_manager, point
from stack.upstream import Answer, chat
from test_approvals import Office, office
from test_fail_closed import on_a_small_disk
from test_kafka import CHECKPOINTS, TOPIC

# Masked on its way to the model; in an answer; and in a prompt what makes it ask for an approval.
EMPLOYEE, CARD, SSN = "EMP-482913", "4111 1111 1111 1111", "536-22-8145"
MARK = re.compile(r'"content": "([^|]*)\|')
KINDS = ("json", "sse", "intern", "stranger", "risky", "hopeless")


@dataclass
class Sent:
    """A request, and what became of it."""

    kind: str
    mark: str
    token: str | None
    status: int = 0
    body: bytes = b""
    whole: bool = False
    session: str = ""


@dataclass
class World:
    """Who calls, and what was said to whom."""

    office: Office
    chance: random.Random
    sent: list[Sent] = field(default_factory=list)
    # Marks that a person said yes to, or tried to.
    approved: set[str] = field(default_factory=set)
    over: threading.Event = field(default_factory=threading.Event)
    kinds: tuple[str, ...] = KINDS

    def answered(self, kind: str) -> int:
        """How many of a kind were answered in full."""
        return sum(one.status == 200 and one.whole and one.kind == kind for one in self.sent)

    def flow(self, name: str):
        tokens = {"intern": self.office.token("bob", ["interns"]), "stranger": None}
        usual = self.office.token("alice")
        for n in itertools.count():
            if self.over.is_set():
                return
            kind = self.kinds[n % len(self.kinds)]
            one = Sent(kind, f"{kind}-{name}-{n}-", tokens.get(kind, usual))
            self.sent.append(one)
            secret = SSN if kind in ("risky", "hopeless") else ""
            text = f"{one.mark}| {EMPLOYEE} {secret} {'x' * self.chance.choice([0, 100, 70_000])}"
            with contextlib.suppress(OSError, EOFError):
                reply = call(self.office.url, one.token, prompt(text, stream=kind == "sse"), seconds=3)
                one.status, one.body, one.whole = reply.status, reply.body, reply.whole
                one.session = reply.header("countersign-session") or ""

    def decide(self):
        """Somebody says yes to what is risky, and no to what is hopeless."""
        while not self.over.is_set():
            with contextlib.suppress(OSError, AssertionError, json.JSONDecodeError):
                for one in self.office.pending():
                    _, shown = self.office.api("GET", f"/{one['id']}", self.office.token("sam", ["security"]))
                    text = json.dumps(shown["shown"] if "shown" in shown else shown)
                    mark = next((sent.mark for sent in reversed(self.sent) if sent.mark in text), None)
                    if mark and mark.startswith("risky"):
                        self.approved.add(mark)
                        self.office.decide(shown)
                    elif mark:
                        self.office.decide(shown, "deny")
            self.over.wait(0.02)

    @contextlib.contextmanager
    def going_on(self, callers: int = 4):
        with ThreadPoolExecutor(callers + 1) as pool:
            going = [pool.submit(self.flow, name) for name in "abcdefgh"[:callers]] + [pool.submit(self.decide)]
            try:
                yield
            finally:
                self.over.set()
                for one in going:
                    one.result(60)


def nothing_got_by(world: World, upstream: Upstream, records: list[dict], cut: bool = False):
    """Nothing ungoverned reached the model or a caller, and the log tells of all that did. With `cut`, somebody between Envoy and the service
    ended streams cleanly, which Envoy takes for the end of the body: the model may then have seen less than is on record, never more."""
    opened, ended, seen = {}, {}, []
    for record in records:
        if kind(record) == "opened":
            opened[record["session"]] = record["opened"]
        elif kind(record) == "closed":
            ended.setdefault(record["session"], []).append(record["closed"]["outcome"])
    of_mark = {}
    for session, one in opened.items():
        # Of a large body the record holds the beginning.
        of_mark.setdefault(MARK.search(one["request"]["body"])[1], []).append(one)
    tokens = {one.token.encode() for one in world.sent if one.token}
    for request in upstream.requests:
        everything = b"\n".join([request.body, *(value.encode() for _, value in request.headers)])
        assert not any(token in everything for token in tokens), "a caller's token reached the model"
        assert request.header("authorization") == f"Bearer {UPSTREAM_KEY}", "a request was not governed"
        for secret in (EMPLOYEE, SSN):
            assert secret.encode() not in request.body, "text reached the model that was to be masked"
        found = MARK.search(request.body.decode(errors="replace"))
        if not found and (cut or not request.complete):
            assert len(request.body) < 200, "whose is it?"
            continue
        mark = found[1]
        seen.append(mark)
        what = mark.split("-")[0]
        assert what in ("json", "sse") or what == "risky" and mark in world.approved, f"{mark} reached the model"
        assert mark in of_mark, f"{mark} reached the model and is on no record"
        (record,) = of_mark[mark]
        if not request.complete:
            continue
        same = record["request"]["forwardedSha256"] == hashlib.sha256(request.body).hexdigest()
        less = cut and record["request"]["body"].encode().startswith(request.body)
        assert same or less, f"{mark} is on record otherwise than it was forwarded"
    assert len(seen) == len(set(seen)), "a request reached the model twice"
    for one in world.sent:
        for secret in (CARD, UPSTREAM_KEY):
            assert secret not in told(one.body), f"{one.mark} was told what was to be masked"
    for one in world.sent:
        if one.status == 200:
            assert one.kind in ("json", "sse", "risky"), f"{one.mark} was answered"
            assert one.session in opened, f"{one.mark} was answered, and in full or not, that is on no record"
        if one.status == 200 and one.whole:
            assert ended.get(one.session) == ["completed"], f"{one.mark} was answered in full and is on record as {ended.get(one.session)}"
    assert set(opened) == set(ended), "what was opened is closed"
    assert all(len(outcomes) == 1 for outcomes in ended.values()), "closed once"


def told(body: bytes) -> str:
    """All of an answer, and of a stream its text strung together, as far as it came."""
    text = body.decode(errors="replace")
    for line in text.splitlines():
        with contextlib.suppress(ValueError, LookupError, TypeError):
            text += json.loads(line.removeprefix("data: "))["choices"][0]["delta"].get("content", "")
    return text


def answers(request):
    mark = MARK.search(request.body.decode())
    if not mark:
        return Answer.json({"error": "there is no prompt"}, 400)
    # Events that come one by one: what is behind a fault is still on its way.
    return chat(f"{mark[1]} {CARD} and {UPSTREAM_KEY}, and so on", size=3, delay=0.002)(request)


def settings(oidc, work, **more) -> dict:
    usual = {**office(oidc, work, max_hold="2s"), **more}
    (masks,) = (policy for policy in usual["policies"] if policy["name"] == "mask-personal")
    assert "CREDIT_CARD" in masks["then"]["mask"]["response"]["detectors"]
    return usual


def something_to_compare(world: World) -> bool:
    return world.answered("json") > 20 and world.answered("sse") > 20 and world.answered("risky") > 0


def at_the_end(world: World, gateway: Gateway, upstream: Upstream, cut: bool = False):
    """It works again by itself; then it is stopped, and all is compared."""
    token = world.office.token("alice")

    def works():
        with contextlib.suppress(OSError):
            return call(gateway.envoy.url, token, prompt("json-end-| hello"), seconds=5).status == 200

    wait_until("it works again", works, 30, every=0.2)
    upstream.requests[:] = [one for one in upstream.requests if b"json-end-|" not in one.body]
    assert gateway.countersign.stop() == 0
    nothing_got_by(world, upstream, gateway.countersign.records(), cut)
    done = gateway.countersign.verify()
    assert done.returncode == 0, done.stdout + done.stderr
    # There was something to compare.
    assert something_to_compare(world), {what: world.answered(what) for what in KINDS}
    assert any(one.kind == "stranger" and one.status == 401 for one in world.sent)


@pytest.mark.timeout(1200)
def test_the_process_is_killed_and_stopped_and_the_disk_fills_and_the_broker_goes(request, oidc, tmp_path):
    rounds = 150 if request.config.getoption("--long") else 15
    chance = random.Random(7)
    with broker(tmp_path) as kafka, Upstream(answers) as upstream:
        for topic in (TOPIC, CHECKPOINTS):
            kafka.create_topic(topic)
        usual = settings(oidc, tmp_path, audit={"kafka": {"brokers": [kafka.address]}})
        with Gateway(tmp_path, usual, upstream.port) as gateway:
            service = on_a_small_disk(gateway)
            world = World(Office(gateway, oidc, upstream), chance)

            def a_moment(seconds: float):
                # Not a wait for anything: a moment drawn by chance.
                time.sleep(seconds * chance.random())

            def killed():
                service.kill()
                service.start()

            def frozen():
                service.signal(signal.SIGSTOP)
                a_moment(3)
                service.signal(signal.SIGCONT)

            def full():
                service.fill()
                a_moment(0.5)
                service.free()

            def without_a_broker():
                kafka.kill()
                a_moment(1)
                kafka.start()

            faults = [killed, killed, frozen, full, full]
            if hasattr(kafka, "_format"):
                faults.append(without_a_broker)  # one that keeps what it has
            with world.going_on():
                for n in range(rounds):
                    before = len(upstream.requests)
                    upstream.wait_for(before + chance.randrange(3, 12), 30)
                    faults[n % len(faults)]()
                wait_until("there is something to compare", lambda: something_to_compare(world), 60, every=0.2)
            at_the_end(world, gateway, upstream)
            if without_a_broker in faults:
                service.start()
                count = len(service.records())

                def all_there():
                    done = run("verify", "--brokers", kafka.address, "--json")
                    return done.returncode == 0 and json.loads(done.stdout)["records"] >= count

                wait_until("every record is on the topic", all_there, 60, every=0.5)


@pytest.mark.timeout(1200)
def test_streams_are_cut_ended_stalled_and_delayed_at_any_message(request, oidc, tmp_path):
    seconds = 180 if request.config.getoption("--long") else 20
    chance = random.Random(11)
    calm = threading.Event()

    def plan():
        if calm.is_set() or chance.random() < 0.5:
            return None
        return chance.choice(FAULTS), chance.randrange(8)

    with Upstream(answers) as upstream:
        gateway = Gateway(tmp_path, settings(oidc, tmp_path), upstream.port)
        with Between(gateway.countersign.socket, plan) as between:
            gateway.envoy = type(gateway.envoy)(tmp_path, upstream.port, between.socket)
            with gateway:
                world = World(Office(gateway, oidc, upstream), chance)
                with world.going_on(8):
                    end = time.monotonic() + seconds

                    def enough():
                        return time.monotonic() > end and all(between.done[fault] >= 5 for fault in FAULTS) and something_to_compare(world)

                    wait_until("enough went wrong", enough, 4 * seconds, every=0.2)
                    calm.set()
                    well = len(world.sent)
                    wait_until("what comes then is served", lambda: any(one.status == 200 and one.kind == "sse" for one in world.sent[well:]), 30)
                at_the_end(world, gateway, upstream, cut=True)


PHASES = {"request_headers", "authenticated", "request_body", "asked", "held", "claimed", "recorded", "response_headers", "response_body"}


@pytest.mark.timeout(600)
def test_a_panic_at_any_phase(oidc, tmp_path):
    with Upstream(answers) as upstream:
        gateway = Gateway(tmp_path, settings(oidc, tmp_path), upstream.port)
        gateway.countersign.panic_every = 60
        with gateway:
            world = World(Office(gateway, oidc, upstream), random.Random(3))

            def everywhere():
                found = set(re.findall(r"injected (before|behind) (\w+)", gateway.countersign.log_text()))
                return found >= {(when, phase) for when in ("before", "behind") for phase in PHASES} and something_to_compare(world)

            with world.going_on(8):
                wait_until("there was a panic at each phase", everywhere, 300, every=0.5)
            at_the_end(world, gateway, upstream)


def test_the_checker_sees_what_gets_by(oidc, tmp_path):
    """Without the guards in Envoy's configuration a clean end passes everything on; the checker must say so."""

    def unguarded(envoy):
        manager = http_manager(envoy)
        keep = ("countersign", "envoy.filters.http.ext_proc", "envoy.filters.http.router")
        manager["http_filters"] = [one for one in manager["http_filters"] if one["name"] in keep]
        point(envoy, "countersign", {"pipe": {"path": str(between.socket)}})

    for at, what, kinds in ((0, "token", KINDS), (2, "in full", KINDS), (5, "to be masked", ("sse",))):
        work = tmp_path / str(at)
        work.mkdir()
        with Upstream(answers) as upstream:
            gateway = Gateway(work, settings(oidc, work), upstream.port)
            with Between(gateway.countersign.socket, lambda at=at: ("clean_end", at), released_too=True) as between:
                gateway.envoy = type(gateway.envoy)(work, upstream.port, between.socket, unguarded)
                with gateway:
                    world = World(Office(gateway, oidc, upstream), random.Random(1), kinds=kinds)
                    with world.going_on(1):
                        wait_until("something went by", lambda: len(world.sent) > 2, 20)
                    gateway.countersign.stop()
                    with pytest.raises(AssertionError, match=what):
                        nothing_got_by(world, upstream, gateway.countersign.records())
