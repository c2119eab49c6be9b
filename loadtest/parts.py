"""What a load test runs on: the yardstick, the model server, the callers, and the rows that are compared."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
os.environ.setdefault("COUNTERSIGN_BIN", str(ROOT / "target/release/countersign"))
sys.path.insert(0, str(ROOT / "tests"))

from stack import Countersign, Envoy, config, wait_until  # noqa: E402
from stack.envoy import cluster, http_manager, without_filter  # noqa: E402
from stack.process import Process, fetch  # noqa: E402

BINARY = Path(os.environ.get("LOADTEST_BIN", ROOT / "target/release/loadtest"))
PLANTED = "536-22-8145"  # as in src/upstream.rs
PROSE = "The quarterly figures are in line with what was expected of them. "

# The detectors of the bars: those of `./dev bench masking`.
FIFTEEN = ["US_SSN", "CREDIT_CARD", "EMAIL_ADDRESS", "PHONE_NUMBER", "IBAN_CODE", "IP_ADDRESS", "AWS_ACCESS_KEY", "GITHUB_TOKEN",
           "OPENAI_KEY", "ANTHROPIC_KEY", "GOOGLE_API_KEY", "SLACK_TOKEN", "STRIPE_KEY", "JWT", "PRIVATE_KEY"]


class Noop(Process):
    """The no-op ext_proc service."""

    name = "noop"

    def __init__(self, work):
        super().__init__(work)
        self._short = Path(tempfile.mkdtemp(prefix="cs-"))
        self.socket = self._short / "noop.sock"

    def command(self):
        return [BINARY, "noop", self.socket]

    def is_ready(self):
        return "ready" in self.log_text()

    def __exit__(self, *error):
        super().__exit__(*error)
        shutil.rmtree(self._short, ignore_errors=True)


class Model(Process):
    """The model server that answers at once."""

    name = "model"

    def command(self):
        return [BINARY, "upstream"]

    def is_ready(self):
        said = re.search(r"^ready (\d+)$", self.log_text(), re.MULTILINE)
        self.port = int(said[1]) if said else 0
        return said

    def seen(self) -> dict:
        """What came since it was last asked."""
        return json.loads(fetch(f"http://127.0.0.1:{self.port}/seen", 30)[1])


def quiet(manager_config: dict):
    """Envoy without its access log, and with room for large bodies and many callers."""
    http_manager(manager_config).pop("access_log")
    for each in manager_config["static_resources"]["clusters"]:
        each["circuit_breakers"] = {"thresholds": [{"max_connections": 100000, "max_pending_requests": 100000, "max_requests": 100000}]}
    assert cluster(manager_config, "model")


def bare(manager_config: dict):
    without_filter(manager_config)
    quiet(manager_config)


def settings(issuer: str, work: Path, *, policies: int = 10, connections: int = 1, detectors: list[str] | None = None,
             payload: str = "masked", durability: str = "spool", kafka: str | None = None) -> dict:
    """The service's configuration: one policy that allows, behind others that do not apply; masking both ways where there are detectors."""
    made = config(issuer, work)
    usual = made["connections"][0]
    wanted = FIFTEEN if detectors is None else detectors
    tail = [{"name": "allow", "when": '"finance" in principal.groups && request.model == "gpt-4o-mini"', "then": {"allow": {}}}]
    if wanted:
        how = {"detectors": wanted, "operator": "replace"}
        tail.insert(0, {"name": "mask", "when": "true", "then": {"mask": {"request": how, "response": how}}})
    others = max(policies - len(tail), 0)
    rules = [{"name": f"deny-{n}", "when": f'"group-{n}" in principal.groups && request.model.startsWith("gpt-{n}")',
              "then": {"deny": {"reason": "not this model"}}} for n in range(others)]
    names = [rule["name"] for rule in rules]
    ours = names[:len(names) // connections]
    made["policies"] = rules + tail
    usual |= {"policies": [*ours, *(rule["name"] for rule in tail)], "payload": payload, "durability": durability}
    # The rest of the policies belong to connections that are looked at first, and are not this one.
    rest = names[len(ours):]
    others = [{**usual, "name": f"other-{n}", "match": {"hosts": [f"h{n}.example"], "path_prefix": "/v1/"},
               "policies": [*rest[n::connections - 1], *(rule["name"] for rule in tail)]} for n in range(connections - 1)]
    made["connections"] = [*others, usual]
    made["detectors"] = []
    made["limits"] = {"request_body": "64MiB", "response_body": "64MiB", "memory": "4GiB", "memory_per_principal": "4GiB", "streams": 8192, "streams_per_principal": 8192}
    if kafka:
        made["audit"] = {"kafka": {"brokers": [kafka]}}
    return made


@dataclass
class Row:
    """One configuration: an Envoy of its own, and the service it asks, if any."""

    name: str
    envoy: Envoy
    service: Process | None = None
    masks: bool = False
    streams: bool = False  # the answers are event streams, with nothing planted in them

    @property
    def ours(self) -> bool:
        return isinstance(self.service, Countersign)


def request(token: str, size: int = 2048, answer: str = "json:2048") -> bytes:
    """A whole HTTP/1.1 request with a body of about `size` bytes, one planted value in it."""
    stream = answer.startswith("sse")
    body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": f"It is {PLANTED}. "}], **({"stream": True} if stream else {})}
    room = max(size - len(json.dumps(body)), 0)
    body["messages"][0]["content"] += (PROSE * (room // len(PROSE) + 1))[:room]
    data = json.dumps(body).encode()
    head = (f"POST /v1/chat/completions HTTP/1.1\r\nhost: models.example\r\ncontent-type: application/json\r\nx-load: {answer}\r\n"
            f"authorization: Bearer {token}\r\ncontent-length: {len(data)}\r\n\r\n")
    return head.encode() + data


def cpu(process: Process | None) -> float:
    """Seconds of processor time it has had, of all its threads."""
    if process is None:
        return 0.0
    text = Path(f"/proc/{process.pid}/stat").read_text()
    user, system = text.rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def rss(process: Process | None, what: str = "VmRSS") -> int:
    """Bytes of memory it has."""
    if process is None:
        return 0
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(re.search(rf"^{what}:\s+(\d+) kB", status, re.MULTILINE)[1]) * 1024


def counted(service: Countersign) -> dict:
    """What the service itself has counted: records in the log, and values masked each way."""
    samples = service.metrics()
    masked = {way: sum(value for name, value in samples.items() if name.startswith("countersign_masked_values_total") and f'"{way}"' in name)
              for way in ("request", "response")}
    return {"records": samples["countersign_ledger_records"], "masked_request": masked["request"], "masked_response": masked["response"],
            "lag": samples.get("countersign_kafka_unacknowledged_records")}


class Wrong(Exception):
    """A run did not do what it says: its figures mean nothing."""


def drive(row: Row, model: Model, text: bytes, *, connections: int, seconds: float, requests: int = 0) -> dict:
    """One run of one row, held against what the model server, the callers and the service counted."""
    file = row.envoy.work / "request.bin"
    file.write_bytes(text)
    model.seen()
    before = counted(row.service) if row.ours else None
    spent = [cpu(row.envoy), cpu(row.service), cpu(model)]
    done = subprocess.run([BINARY, "drive", f"127.0.0.1:{row.envoy.port}", file, f"connections={connections}", f"seconds={seconds}",
                           f"requests={requests}"], capture_output=True, text=True, timeout=seconds + 120, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise Wrong(f"{row.name}: {done.stderr}")
    run = json.loads(done.stdout)
    if row.ours:
        # What is behind the last answer is the service's too.
        wait_until("no request is in flight", lambda: row.service.metrics()["countersign_streams"] == 0)
    spent = [after - was for after, was in zip([cpu(row.envoy), cpu(row.service), cpu(model)], spent)]
    check(row, run, model.seen(), before)
    events = re.search(rb"x-load: sse:(\d+)", text)
    if events and run["events"] < int(events[1]) * run["requests"]:
        raise Wrong(f"{row.name}: {run['events']} events in {run['requests']} streams of {int(events[1])}")
    count = run["requests"]
    run |= {"connections": connections, "rps": count / run["seconds"], "envoy_cpu_us": spent[0] / count * 1e6,
            "service_cpu_us": spent[1] / count * 1e6, "envoy_rss": rss(row.envoy), "service_rss": rss(row.service)}
    return run


def check(row: Row, run: dict, seen: dict, before: dict | None):
    """Whether everything that was asked was done, to each request."""
    count = run["requests"]
    wanted = {"failed": 0, "planted": 0 if row.masks or row.streams else count}
    told = {"failed": run["failed"], "planted": run["planted"]}
    wanted |= {"seen": count, "seen_planted": 0 if row.masks else count, "lent": count if row.ours else 0}
    told |= {"seen": seen["requests"], "seen_planted": seen["planted"], "lent": seen["lent"]}
    if before is not None:
        after = counted(row.service)
        told |= {name: after[name] - before[name] for name in ("masked_request", "masked_response")}
        wanted |= {"masked_request": count if row.masks else 0, "masked_response": count if row.masks and not row.streams else 0}
        # At least an `opened` and a `closed` of each; checkpoints are not counted here, `delivered` may be.
        recorded = after["records"] - before["records"]
        if recorded < 2 * count:
            raise Wrong(f"{row.name}: {recorded:g} records of {count} requests")
    if count == 0 or wanted != told:
        raise Wrong(f"{row.name}: wanted {wanted}, told {told}, statuses {run['statuses']}")


def fdatasync(directory: Path, rounds: int) -> list[float]:
    """How long appending 4 KiB and fdatasync take, in seconds."""
    took = []
    with tempfile.NamedTemporaryFile(dir=directory, buffering=0) as file:
        for _ in range(rounds):
            began = time.perf_counter()
            file.write(b"x" * 4096)
            os.fdatasync(file.fileno())
            took.append(time.perf_counter() - began)
    return took
