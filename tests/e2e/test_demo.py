"""The demo, as somebody new starts it: every step shows what it promises, and Ctrl-C leaves nothing behind."""

import os
import signal
import subprocess
import sys

import pytest
from stack import ROOT, wait_until
from stack.countersign import binary

DEMO = ROOT / "tests" / "stack" / "demo.py"


def processes(work) -> list[str]:
    """The command lines of those that name the directory."""
    listed = subprocess.run(["ps", "-wwe", "-o", "args="], capture_output=True, text=True, check=True)
    return [line for line in listed.stdout.splitlines() if str(work) in line]


@pytest.fixture
def demo(tmp_path):
    """`demo(*options)` starts one: the process, its log, and the directory it works in."""
    running = []

    def start(*options):
        log, work = tmp_path / "demo.log", tmp_path / "work"
        command = [sys.executable, "-u", DEMO, "--dir", work, *options]
        env = {**os.environ, "COUNTERSIGN_BIN": str(binary()), "TERM": "dumb"}
        # Whoever runs the tests in the background has Ctrl-C ignored, which is passed on.
        running.append(subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, stdout=log.open("wb"), stderr=subprocess.STDOUT,
                                        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)))
        return running[-1], log, work

    yield start
    for process in running:
        process.kill()
        process.wait()


@pytest.mark.timeout(180)
def test_every_step_shows_what_it_promises_and_ctrl_c_ends_it_all(demo):
    process, log, work = demo("--keep")
    wait_until("it came to its end", lambda: process.poll() is not None or "Still running, until Ctrl-C" in log.read_text(), 150)
    said = log.read_text()
    assert "All 7 steps showed what they promise." in said, said
    assert len(processes(work)) > 2, "the demo's own, Countersign and Envoy"
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 0, log.read_text()
    assert processes(work) == []


@pytest.mark.timeout(120)
def test_ctrl_c_on_the_way_ends_it_too(demo):
    process, log, work = demo()
    wait_until("Countersign is up", lambda: process.poll() is not None or "1. A call without a token" in log.read_text(), 90)
    assert processes(work), log.read_text()
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130, log.read_text()
    assert "interrupted; everything is stopped" in log.read_text()
    assert processes(work) == []
