"""How long it takes from a decision to the released request, beside the disk's own fdatasync (or a produce to Kafka) in the same run.

A request is held in real Envoy; an approver's decision is posted; the clock stops when the model server has the request. In the same
run, in the same directory, a bare loop appends 4 KiB and calls fdatasync.
"""

from __future__ import annotations

import argparse
import http.client
import json
import statistics
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from parts import ROOT, fdatasync

from stack import Gateway, OidcProvider, Upstream, broker, config, wait_until  # noqa: E402
from stack.caller import call, prompt  # noqa: E402
from stack.countersign import run  # noqa: E402
from stack.upstream import chat  # noqa: E402

SSN = "536-22-8145"


def settings(oidc, work: Path, kafka) -> dict:
    usual = config(oidc.issuer, work)
    rule = {"approvers": [{"group": "security"}], "wait": "hold", "max_hold": "1m"}
    usual["policies"].insert(0, {"name": "ask", "when": '"US_SSN" in findings', "then": {"require_approval": rule}})
    usual["connections"][0]["policies"].insert(0, "ask")
    usual["approvals"] = {"max_pending_per_principal": 20_000}
    usual["access"] = {"approver": ["security"]}
    if kafka:
        root, key = work / "root.key", work / "control.key"
        assert run("keygen", "control-root", "--out", root).returncode == 0
        done = run("keygen", "control", "--out", key, "--root", root, "--replica", "bench")
        assert done.returncode == 0, done.stderr
        usual["audit"] = {"replica": "bench", "kafka": {"brokers": [kafka.address], "topic": "bench-audit", "checkpoint_topic": "bench-checkpoints"}}
        usual["approvals"]["kafka"] = {"topic": "bench-control", "dev": True, "root": done.stdout.strip(), "key": str(key), "certificate": f"{key}.certificate"}
    return usual


def api(service, connection, method, path, token, body=None):
    headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
    connection.request(method, f"/api/v1/approvals{path}", json.dumps(body) if body else None, headers)
    answer = connection.getresponse()
    data = json.loads(answer.read())
    assert answer.status == 200, data
    return data


class Producing:
    """How long a produce takes: one after another, and one now and then, as the events of an approval come. A broker answers
    the first kind sooner: its threads are awake."""

    def __init__(self, kafka):
        from confluent_kafka import Producer

        self.producer = Producer({"bootstrap.servers": kafka.address, "acks": "all", "linger.ms": 0})
        kafka.create_topic("bench-yardstick")
        self.once()

    def once(self) -> float:
        began = time.perf_counter()
        self.producer.produce("bench-yardstick", b"x" * 1024)
        self.producer.flush(20)
        return time.perf_counter() - began

    def in_a_row(self, count: int) -> list[float]:
        return [self.once() for _ in range(count)][count // 10:]


def main() -> int:
    options = argparse.ArgumentParser(prog="./dev bench approvals", description=__doc__)
    options.add_argument("--rounds", type=int, default=60)
    options.add_argument("--kafka", action="store_true", help="the control log on Kafka, beside a produce round trip")
    options.add_argument("--pending", type=int, default=0, help="also list so many pending approvals")
    options.add_argument("--json", action="store_true")
    options = options.parse_args()
    arrived: list[float] = []

    def answer(request):
        arrived.append(time.perf_counter())
        return chat("fine")(request)

    with tempfile.TemporaryDirectory(dir=ROOT / "target") as directory:
        work = Path(directory)
        with OidcProvider(work, ttl=3600) as oidc, Upstream(answer) as upstream:
            kafka = broker(work).__enter__() if options.kafka else None
            try:
                with Gateway(work, settings(oidc, work, kafka), upstream.port) as gateway:
                    return measure(gateway, oidc, kafka, arrived, work, options)
            finally:
                if kafka:
                    kafka.__exit__(None, None, None)


def measure(gateway, oidc, kafka, arrived, work, options) -> int:
    service, url = gateway.countersign, gateway.envoy.url
    now = int(time.time())
    alice = oidc.sign(sub="alice", groups=["finance"])
    sam = oidc.sign(sub="sam", groups=["security"], auth_time=now)
    connection = http.client.HTTPConnection(service.http, timeout=60)
    connection.connect()
    took, yardstick, plain, now_and_then = [], [], [], []
    producing = Producing(kafka) if kafka else None
    with ThreadPoolExecutor(1) as pool:
        for n in range(options.rounds):
            held = pool.submit(call, url, alice, prompt(f"{SSN} number {n}"))
            listed = wait_until("it is held", lambda: api(service, connection, "GET", "?state=pending", sam)["approvals"], every=0.01)
            shown = api(service, connection, "GET", f"/{listed[0]['id']}", sam)
            before = len(arrived)
            began = time.perf_counter()
            api(service, connection, "POST", f"/{shown['id']}/decision", sam,
                {"decision": "approve", "binding": shown["binding"], "reason": "bench"})
            assert held.result(60).status == 200
            took.append(arrived[before] - began)
            before, began = len(arrived), time.perf_counter()
            assert call(url, alice, prompt(f"nothing risky, number {n}")).status == 200
            plain.append(arrived[before] - began)
            if not producing:
                yardstick += fdatasync(service.audit, 3)
                continue
            now_and_then.append(producing.once())
            if n % 10 == 0:
                yardstick += producing.in_a_row(20)
    release, unit = statistics.median(took), statistics.median(yardstick)
    # How long a request that needs no approval takes to the model server: Envoy, this gateway, one record, and this script.
    report = {"decision_to_release_p50_ms": release * 1000, "without_approval_p50_ms": statistics.median(plain) * 1000, "yardstick": "kafka produce" if kafka else "fdatasync of 4 KiB",
              "yardstick_p50_ms": unit * 1000, "ratio": release / unit, "rounds": options.rounds}
    if now_and_then:
        apart = statistics.median(now_and_then)
        report |= {"yardstick_apart_p50_ms": apart * 1000, "ratio_apart": release / apart}
    if options.pending:
        with ThreadPoolExecutor(8) as pool:
            codes = set(pool.map(lambda n: call(url, alice, prompt(f"{SSN} pending {n}"), {"prefer": "respond-async"}).status, range(options.pending)))
        assert codes == {202}, codes
        connection = http.client.HTTPConnection(service.http, timeout=60)
        pages, cursor, spent = 0, "", 0.0
        seen = 0
        while True:
            began = time.perf_counter()
            connection.request("GET", f"/api/v1/approvals?state=pending&limit=1000{cursor}", headers={"authorization": f"Bearer {sam}"})
            text = connection.getresponse().read()
            # What this script makes of it is not the gateway's time.
            spent += time.perf_counter() - began
            page = json.loads(text)
            pages, seen = pages + 1, seen + len(page["approvals"])
            if not page.get("next"):
                break
            cursor = f"&cursor={page['next']}"
        assert seen == options.pending, seen
        report |= {"pending": seen, "pages": pages, "list_ms": spent * 1000}
    if options.json:
        print(json.dumps(report))
    else:
        for name, value in report.items():
            print(f"{name:<28} {value:.3f}" if isinstance(value, float) else f"{name:<28} {value}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
