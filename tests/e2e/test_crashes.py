"""The process dies, or the disk fails, at any moment: what happened is on record, and what is on record happened."""

import contextlib
import itertools
import random
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from conftest import kind
from stack import Failed, Gateway, Upstream, config, wait_until
from stack.caller import call, prompt
from stack.countersign import Countersign
from stack.upstream import chat

SSN = "536-22-8145"


def said(request) -> str:
    """What marks a request."""
    return request.json["messages"][0]["content"].split("|")[0]


def nothing_is_missing(countersign, upstream, answered: list[tuple[str, str]]):
    """All the model saw was opened, all that was answered was closed, all that was opened was closed once, and the log is as written."""
    records = countersign.records()
    opened, ended = {}, {}
    for record in records:
        if kind(record) == "opened":
            opened[record["session"]] = record["opened"]["request"]["body"]
        elif kind(record) == "closed":
            ended.setdefault(record["session"], []).append(record["closed"]["outcome"])
    bodies = "\n".join(opened.values())
    for request in upstream.requests:
        if request.complete:
            assert said(request) in bodies, "the model saw what is on no record"
    for session, marked in answered:
        assert marked in opened[session], (session, marked)
        assert ended[session] == ["completed"], (session, ended.get(session))
    assert set(opened) == set(ended) and all(len(outcomes) == 1 for outcomes in ended.values())
    done = countersign.verify()
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_kill_at_any_moment_under_load_loses_nothing_that_was_answered(request, gateway, upstream, tokens):
    kills = 200 if request.config.getoption("--long") else 20
    chance = random.Random(71)
    running = gateway(audit={"segment": "1MiB"})
    upstream.answer = lambda asked: chat(f"{said(asked)} {SSN}", size=2, delay=0.002)(asked)
    stop = threading.Event()

    def flow(name):
        whole = []
        for n in itertools.count():
            if stop.is_set():
                return whole
            with contextlib.suppress(OSError, EOFError):
                mark = f"request {name}-{n} "
                reply = call(running.envoy.url, tokens(), prompt(f"{mark}|{'x' * chance.randrange(20_000)}", stream=n % 2 == 0))
                assert SSN.encode() not in reply.body
                if reply.status == 200 and reply.whole:
                    whole.append((reply.session, mark))

    with ThreadPoolExecutor(4) as pool:
        flows = [pool.submit(flow, name) for name in "abcd"]
        for _ in range(kills):
            seen = len(upstream.requests)
            upstream.wait_for(seen + chance.randrange(1, 12), 30)
            # Not a wait for anything: a moment drawn by chance.
            time.sleep(chance.random() * 0.05)
            running.countersign.kill()
            running.countersign.start()
        upstream.wait_for(len(upstream.requests) + 8, 30)
        stop.set()
        answered = [pair for flow in flows for pair in flow.result(60)]
    assert running.countersign.stop() == 0
    assert len(answered) > kills
    nothing_is_missing(running.countersign, upstream, answered)


# Each call that the ledger writes with, how often about one thread makes it in a round, and what the kernel may say to it.
CALLS = {"pwrite64": 24, "fdatasync": 24, "fsync": 3, "ftruncate": 3, "openat": 24, "rename": 2}
FAULTS = [(call, error) for call in CALLS for error in ("ENOSPC", "EIO")]
SAID = {"ENOSPC": "os error 28", "EIO": "os error 5"}


class Injected(Countersign):
    """The service, with one system call of its life failing once per thread, at the `when`th time."""

    fault = None

    def command(self):
        if self.fault is None:
            return super().command()
        call, error, when = self.fault
        return ["strace", "-D", "-f", "-qq", "--seccomp-bpf", "-o", "/dev/null", "-e", f"trace={call}",
                "-e", f"inject={call}:error={error}:when={when}", *super().command()]


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
@pytest.mark.parametrize(("syscall", "error"), FAULTS)
def test_a_system_call_that_fails_once_has_no_effect_without_a_record_and_is_survived(
        request, syscall, error, oidc, tokens, tmp_path):
    chance = random.Random(f"{syscall} {error}")
    moments = range(1, CALLS[syscall] + 1)
    if not request.config.getoption("--long"):
        moments = sorted(chance.sample(moments, min(4, len(moments))))
    answered, refused = [], 0
    audit = {"segment": "1MiB"}
    if syscall == "rename":
        # It is what puts a stump in place.
        audit["retention"] = {"size": "1MiB", "at_least": "0s"}
    with Upstream(lambda asked: chat(f"{said(asked)} and so on")(asked)) as upstream:
        gateway = Gateway(tmp_path, config(oidc.issuer, tmp_path, audit=audit), upstream.port)
        service = gateway.countersign
        service.__class__ = Injected
        try:
            gateway.start()
            for when in moments:
                service.stop()
                service.fault = (syscall, error, when)
                try:
                    service.start()
                except Failed as failure:
                    # Where it fails before there is a log to write to, it does not start, and says why.
                    assert "error" in str(failure), failure
                    service.fault = None
                    service.start()
                for n in range(8):
                    mark = f"request {when}-{n} "
                    reply = call(gateway.envoy.url, tokens(), prompt(f"{mark}|{'x' * 180_000}"))
                    if reply.status == 200 and reply.whole:
                        answered.append((reply.session, mark))
                    else:
                        refused += 1
                        assert reply.status >= 500, reply
                wait_until("it recovers without a restart", lambda: call(gateway.envoy.url, tokens(), prompt("again |")).status == 200)
                assert service.get("/readyz")[0] == 200
            service.stop()
            if "retention" in audit:
                done = service.verify()
                assert done.returncode == 0 and "pruned" in done.stdout, done.stdout
            else:
                nothing_is_missing(service, upstream, answered)
            assert len(answered) > 8 * len(moments) // 2, (len(answered), refused)
            assert SAID[error] in service.log.read_text(), "it never failed"
        finally:
            gateway.stop()
