"""One child process: started, waited for, logged, and ended by its pid."""

from __future__ import annotations

import itertools
import os
import random
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import Callable, Sequence

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ROOT / ".tools"

# When we are killed outright, the kernel ends our children too.
_LEASH = ["setpriv", "--pdeathsig", "KILL", "--"] if shutil.which("setpriv") else []


class Failed(RuntimeError):
    """A part did not start, or ended by itself; the message carries the end of its log."""


def wait_until(what: str, ready: Callable[[], object], seconds: float = 20.0, every: float = 0.02):
    """Polls `ready` until it is truthy and returns that; raises `Failed` after the bound."""
    deadline = time.monotonic() + seconds
    while True:
        found = ready()
        if found:
            return found
        if time.monotonic() > deadline:
            raise Failed(f"not within {seconds:g} s: {what}")
        time.sleep(every)


# In an order of this process' own, each once before any comes again: who asks twice before either is bound gets two.
PORTS = itertools.cycle(random.sample(range(20_000, 32_000), 12_000))


def free_port() -> int:
    """A loopback port nobody listens on, outside the range the kernel gives to outgoing connections.

    Only for programs that cannot bind port 0 and say which they got. Another process can still take it
    first: `Process.start` notices, because then the child ends.
    """
    for port in itertools.islice(PORTS, 200):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue
    raise Failed("no free loopback port found")


def fetch(url: str, seconds: float = 2.0) -> tuple[int, bytes]:
    """Status and body of a GET; status 0 when nobody answered."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=seconds) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()
    except OSError:
        return 0, b""


class Process:
    """A part that is one child process. Subclasses say `command` and `is_ready`."""

    name = "process"
    start_bound = 20.0
    stop_bound = 10.0

    def __init__(self, work: Path | str):
        self.work = Path(work)
        self.work.mkdir(parents=True, exist_ok=True)
        self.log = self.work / f"{self.name}.log"
        self.child: subprocess.Popen | None = None

    # What a subclass says.

    def command(self) -> Sequence[str | Path]:
        raise NotImplementedError

    def is_ready(self) -> object:
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        return {}

    def directory(self) -> Path:
        return self.work

    def stdin(self):
        return subprocess.DEVNULL

    # What everyone gets.

    def start(self):
        self.launch()
        return self.wait_ready()

    def launch(self):
        """To be called by a thread that lives as long as the child: the leash is tied to the thread, not to the process."""
        assert self.child is None, f"{self.name} is running already"
        with open(self.log, "ab") as log:
            self._log_from = log.tell()
            self.child = subprocess.Popen(
                [*_LEASH, *map(str, self.command())],
                cwd=self.directory(),
                env={**os.environ, **self.environment()},
                stdin=self.stdin(),
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a Ctrl-C in the terminal is for us; we then stop the parts in order
            )

    def wait_ready(self):
        try:
            wait_until(f"{self.name} is ready", self._alive_and_ready, self.start_bound)
        except BaseException as error:
            self.kill()
            if isinstance(error, Failed):
                raise Failed(f"{error}\n--- end of {self.log}\n{self.log_tail()}") from None
            raise
        return self

    def _alive_and_ready(self):
        status = self.child.poll()
        if status is not None:
            raise Failed(f"{self.name} ended with {status} before it was ready")
        return self.is_ready()

    def stop(self) -> int | None:
        """SIGTERM, and SIGKILL when that does not help in time. Returns the exit status."""
        return self._end(signal.SIGTERM)

    def kill(self) -> int | None:
        """SIGKILL: what a crash looks like from outside."""
        return self._end(signal.SIGKILL)

    def _end(self, how: signal.Signals) -> int | None:
        child, self.child = self.child, None
        if child is None:
            return None
        if child.poll() is None:
            child.send_signal(how)
        try:
            return child.wait(self.stop_bound)
        except subprocess.TimeoutExpired:
            child.kill()
            return child.wait(self.stop_bound)

    def signal(self, number: int):
        self.child.send_signal(number)

    @property
    def pid(self) -> int:
        return self.child.pid

    def log_text(self) -> str:
        """What it said since it was last started."""
        with open(self.log, "rb") as log:
            log.seek(self._log_from)
            return log.read().decode(errors="replace")

    def log_tail(self, lines: int = 25) -> str:
        return "\n".join(self.log_text().splitlines()[-lines:])

    def __enter__(self):
        return self if self.child else self.start()

    def __exit__(self, *_):
        self.stop()
