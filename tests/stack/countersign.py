"""The service under test: the real binary, on a configuration written from a dict."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import yaml

from .process import ROOT, Process, fetch, free_port


def binary() -> Path:
    """`COUNTERSIGN_BIN`, or what `cargo build` made."""
    return Path(os.environ.get("COUNTERSIGN_BIN", ROOT / "target/debug/countersign"))


def run(*arguments, seconds: float = 60, **options) -> subprocess.CompletedProcess:
    """One of its offline commands, with output captured as text; `input` is what it reads."""
    if "input" not in options:
        options.setdefault("stdin", subprocess.DEVNULL)
    return subprocess.run([binary(), *map(str, arguments)], capture_output=True, text=True, timeout=seconds, **options)


class WrittenOut(yaml.SafeDumper):
    """Writes a value again where it stands again: the configuration knows no aliases."""

    def ignore_aliases(self, data):
        return True


class Countersign(Process):
    """`countersign serve`. `config` may leave `listen` and `audit.dir` out: they are filled in.

    The unix socket lives in a directory of its own with a short path (its length is limited to 107 bytes).
    """

    name = "countersign"

    def __init__(self, work, config: dict):
        super().__init__(work)
        self._short = Path(tempfile.mkdtemp(prefix="cs-"))
        self.socket = self._short / "ext_proc.sock"
        self.http = f"127.0.0.1:{free_port()}"
        self.config = {**config}
        self.config.setdefault("listen", {"ext_proc": f"unix:{self.socket}", "http": self.http})
        self.config["audit"] = {"dir": str(self.work / "audit"), **config.get("audit", {})}
        self.audit = Path(self.config["audit"]["dir"])
        self.file = self.work / "countersign.yaml"
        self.panic_every = 0
        self.write()

    def write(self, config: dict | None = None):
        """Writes the configuration file, in one step, as an editor or a mounted volume would."""
        if config is not None:
            self.config = config
        fresh = self.file.with_suffix(".new")
        fresh.write_text(yaml.dump(self.config, Dumper=WrittenOut, sort_keys=False))
        fresh.replace(self.file)

    def environment(self):
        return {"COUNTERSIGN_PANIC_EVERY": str(self.panic_every)} if self.panic_every else {}

    def command(self):
        return [binary(), "serve", "--config", self.file]

    def is_ready(self):
        return self.get("/readyz")[0] == 200

    def get(self, path: str) -> tuple[int, bytes]:
        return fetch(f"http://{self.http}{path}")

    def metrics(self) -> dict[str, float]:
        """Its Prometheus samples by name, labels included."""
        lines = self.get("/metrics")[1].decode().splitlines()
        pairs = (line.rsplit(" ", 1) for line in lines if line and not line.startswith("#"))
        return {name: float(value) for name, value in pairs}

    def records(self) -> list[dict]:
        """The audit records, oldest first."""
        done = run("tail", "--dir", self.audit, "--format", "json")
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    def verify(self, *options) -> subprocess.CompletedProcess:
        return run("verify", "--dir", self.audit, *options)

    def __exit__(self, *error):
        super().__exit__(*error)
        shutil.rmtree(self._short, ignore_errors=True)
