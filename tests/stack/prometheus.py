"""Prometheus, of Debian's package: it scrapes, evaluates rules, and its promtool checks and tests them."""

from __future__ import annotations

import json
import shutil
import subprocess
import urllib.parse
from pathlib import Path

import yaml

from .process import TOOLS, Process, fetch, free_port


def program(name: str) -> Path | None:
    """Where `prometheus` or `promtool` is; None where `./dev setup` could not bring it and nobody else has."""
    ours = TOOLS / "prometheus" / "usr" / "bin" / name
    found = ours if ours.exists() else shutil.which(name)
    return Path(found) if found else None


def promtool(*arguments) -> subprocess.CompletedProcess:
    return subprocess.run([program("promtool"), *map(str, arguments)], capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)


class Prometheus(Process):
    """Scrapes `target` every second, as the job `countersign`, under these rules."""

    name = "prometheus"

    def __init__(self, work, target: str, rules: Path):
        super().__init__(work)
        self.address = f"127.0.0.1:{free_port()}"
        self.file = self.work / "prometheus.yaml"
        self.file.write_text(yaml.safe_dump({
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(rules)],
            "scrape_configs": [{"job_name": "countersign", "static_configs": [{"targets": [target]}]}],
        }))

    def command(self):
        return [program("prometheus"), f"--config.file={self.file}", f"--web.listen-address={self.address}",
                f"--storage.tsdb.path={self.work / 'tsdb'}", "--log.level=warn"]

    def is_ready(self):
        return fetch(f"http://{self.address}/-/ready")[0] == 200

    def get(self, path: str, **query) -> dict | list:
        status, body = fetch(f"http://{self.address}/api/v1/{path}?{urllib.parse.urlencode(query)}", 10)
        answer = json.loads(body)
        assert status == 200 and answer["status"] == "success", (path, query, answer)
        return answer["data"]

    def query(self, expression: str) -> list[dict]:
        return self.get("query", query=expression)["result"]
