"""What Countersign costs beside a no-op ext_proc service: the same requests through the same Envoy, in turns within one run.

Machines are shared, so only what stands beside each other in one run means something. Each run is checked: what the model server,
the callers and the service counted must fit. Writes target/loadtest/report.json, report.md and plots.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import shutil
import statistics
import sys
import threading
import time
from pathlib import Path

import flame
from parts import FIFTEEN, ROOT, Countersign, Envoy, Model, Noop, Row, Wrong, bare, counted, drive, fdatasync, quiet, request, rss, settings
from plots import write_plots
from report import write_markdown

from stack import OidcProvider, broker, wait_until  # noqa: E402 (parts sets the path)
from stack.countersign import run as offline  # noqa: E402

BARS = {  # what is aimed at, as a ratio to the no-op service
    "spool": {"connections": [16, 64], "throughput": 0.85, "p50": 1.25, "p99": 1.5, "cpu_per_request": 1.8},
    "disk": {"connections": [256], "throughput": 0.75},
}
ADDED_P50 = 2.5  # of `disk`, one caller, in fdatasyncs
FIRST_EVENT_US = 1000  # p99 over the no-op's
# What is no more than noise: between events, over the same number of requests again, and per byte of a larger body.
GAP, FLAT, LINEAR = 1.05, 1.05, 1.2

# Each row does what the one before does, and one thing more. A caller is always known, and a record always written:
# there is no configuration without.
FEATURES = {
    "identity": {"policies": 1, "detectors": [], "payload": "omit"},
    "policy": {"detectors": [], "payload": "omit"},
    "masking": {"payload": "omit"},
    "spool": {},
    "disk": {"durability": "disk"},
    "kafka-publish": {"kafka": True},
    "kafka": {"kafka": True, "durability": "kafka"},
}


class Bench:
    """The parts that all rows share."""

    def __init__(self, stack: contextlib.ExitStack, options):
        self.stack, self.options = stack, options
        self.work = options.out / "work"
        shutil.rmtree(options.out, ignore_errors=True)
        self.work.mkdir(parents=True)
        self.model = stack.enter_context(Model(self.work))
        self.oidc = stack.enter_context(OidcProvider(self.work, ttl=86400))
        self.token = self.oidc.token("alice-app")
        self.kafka = None
        if options.kafka:
            self.kafka = stack.enter_context(broker(self.work))
        self.began = time.monotonic()

    def say(self, text: str):
        print(f"[{time.monotonic() - self.began:5.0f} s] {text}", file=sys.stderr)

    def request(self, **how) -> bytes:
        return request(self.token, **how)

    def without(self, stack) -> Row:
        work = self.fresh("none")
        return Row("none", stack.enter_context(Envoy(work, self.model.port, change=bare)))

    def noop(self, stack) -> Row:
        work = self.fresh("noop")
        service = stack.enter_context(Noop(work))
        return Row("noop", stack.enter_context(Envoy(work, self.model.port, service.socket, change=quiet)), service)

    def ours(self, stack, name: str, *, kafka: bool = False, **how) -> Row:
        work = self.fresh(name)
        made = settings(self.oidc.issuer, work, kafka=self.kafka.address if kafka else None, **how)
        if kafka:
            topics = {"topic": f"{name}-audit", "checkpoint_topic": f"{name}-checkpoints"}
            made["audit"]["kafka"] |= topics
            for topic in topics.values():
                self.kafka.create_topic(topic)
        service = stack.enter_context(Countersign(work, made))
        envoy = stack.enter_context(Envoy(work, self.model.port, service.socket, change=quiet))
        return Row(name, envoy, service, masks=how.get("detectors") != [])

    def fresh(self, name: str) -> Path:
        work = self.work / name
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        return work

    def turns(self, rows: list[Row], text: bytes, *, rounds: int, warm: float = 0.3, **how) -> dict[str, dict]:
        """Rows in turns, medians of so many rounds; the order is turned round each time, so that none always follows the same."""
        runs: dict[str, list[dict]] = {row.name: [] for row in rows}
        for row in rows:
            drive(row, self.model, text, connections=how["connections"], seconds=warm)
        for n in range(rounds):
            for row in (rows if n % 2 == 0 else rows[::-1]):
                runs[row.name].append(drive(row, self.model, text, **how))
        return {name: summary(of) for name, of in runs.items()}


def summary(runs: list[dict]) -> dict:
    """Medians over rounds, and the least and most of the throughput."""
    def median(value):
        return statistics.median(value(run) for run in runs)

    return {
        "rps": median(lambda r: r["rps"]), "rps_least": min(r["rps"] for r in runs), "rps_most": max(r["rps"] for r in runs),
        **{name: median(lambda r: r["latency_us"][name[:3]]) for name in ("p50_us", "p90_us", "p99_us")},
        "first_p50_us": median(lambda r: r["first_us"]["p50"]), "first_p99_us": median(lambda r: r["first_us"]["p99"]),
        "gap_p50_us": median(lambda r: r["gap_us"]["p50"]), "gap_p99_us": median(lambda r: r["gap_us"]["p99"]),
        "service_cpu_us": median(lambda r: r["service_cpu_us"]), "envoy_cpu_us": median(lambda r: r["envoy_cpu_us"]),
        "service_rss": max(r["service_rss"] for r in runs), "envoy_rss": max(r["envoy_rss"] for r in runs),
        "requests": sum(r["requests"] for r in runs),
    }


def ratios(ours: dict, noop: dict) -> dict:
    return {"throughput": ours["rps"] / noop["rps"], "p50": ours["p50_us"] / noop["p50_us"], "p99": ours["p99_us"] / noop["p99_us"],
            "cpu_per_request": ours["service_cpu_us"] / noop["service_cpu_us"]}


def measure_features(bench: Bench, report: dict):
    """Every row at 16 callers; the rows of the bars at more and fewer."""
    options = bench.options
    with contextlib.ExitStack() as stack:
        rows = [bench.without(stack), bench.noop(stack)]
        for name, how in FEATURES.items():
            if not how.get("kafka") or bench.kafka:
                rows.append(bench.ours(stack, name, **how))
        by_connections = report["rows"] = {}
        text = bench.request()
        disk: list[float] = []
        for connections in options.connections:
            chosen = rows if connections == 16 else [r for r in rows if r.name in ("none", "noop", "spool", "disk")]
            disk += fdatasync(bench.work, 50)
            bench.say(f"{len(chosen)} rows, {connections} callers")
            by_connections[str(connections)] = bench.turns(chosen, text, rounds=options.rounds, connections=connections, seconds=options.seconds)
            disk += fdatasync(bench.work, 50)
        report["fdatasync_us"] = {"p50": statistics.median(disk) * 1e6, "p99": sorted(disk)[int(len(disk) * 0.99)] * 1e6, "rounds": len(disk)}
        measure_sse(bench, report, rows)
        if options.flame:
            draw_flame(bench, next(row for row in rows if row.name == "spool"))
        verify(bench, report, [row for row in rows if row.ours])


def draw_flame(bench: Bench, row: Row):
    """Beside a run of its own: sampling costs."""
    data = bench.work / "perf.data"
    bench.say("a flame graph")
    sampling = flame.record(row.service.pid, 5, data)
    drive(row, bench.model, bench.request(), connections=16, seconds=5.5)
    sampling.wait(60)
    flame.write_flame(flame.folded(data), bench.options.out / "flame.svg", "countersign, durability spool, 16 callers")


def measure_sse(bench: Bench, report: dict, rows: list[Row]):
    chosen = [row for row in rows if row.name in ("none", "noop", "spool", "disk")]
    events, apart = 40, 20_000
    bench.say(f"event streams, {events} events {apart // 1000} ms apart")
    text = bench.request(answer=f"sse:{events}:{apart}")
    for row in chosen:
        row.streams = True
    # What is planted stands in the prompt only: a stream of words has nothing to mask.
    found = bench.turns(chosen, text, rounds=bench.options.rounds, connections=4, seconds=bench.options.seconds + 1)
    noop = found["noop"]
    report["sse"] = {"events": events, "apart_us": apart, "connections": 4, "rows": found,
                     "held_back": held_back(bench, next(row for row in chosen if row.name == "spool"), events),
                     "first_event_over_noop_p99_us": {n: found[n]["first_p99_us"] - noop["first_p99_us"] for n in ("spool", "disk")}}
    for row in chosen:
        row.streams = False


def held_back(bench: Bench, row: Row, events: int) -> dict:
    """Characters the model had said and the caller had not, at each event but the last; five characters are a token here."""
    import socket

    seen: list[int] = []
    with socket.create_connection(("127.0.0.1", row.envoy.port), 10) as connection:
        connection.sendall(bench.request(answer=f"sse:{events}:20000"))
        data, told, arrived = b"", 0, 0
        while b"[DONE]" not in data[-4096:] and (piece := connection.recv(1 << 16)):
            data += piece
            for _ in range(data.count(b"\n\n") - arrived):
                arrived += 1
            words = data.count(b'"content":"')
            told = sum(len(part.split(b'"', 1)[0]) for part in data.split(b'"content":"')[1:])
            if 0 < words and arrived < events:
                seen.append(max(5 * min(arrived, events) - told, 0))
    if not seen:
        raise Wrong("no event came before the last one")
    return {"characters_mean": statistics.mean(seen), "characters_most": max(seen), "tokens_mean": statistics.mean(seen) / 5, "tokens_most": max(seen) / 5}


def verify(bench: Bench, report: dict, rows: list[Row]):
    """The logs verify, and the topics hold what the logs hold."""
    report["verified"] = {}
    for row in rows:
        facts = {"records": counted(row.service)["records"]}
        if row.name.startswith("kafka"):
            wait_until(f"{row.name}: all is published", lambda: counted(row.service)["lag"] == 0, 120, 0.2)
            facts["published"] = on_topic(bench.kafka.address, f"{row.name}-audit")
            if facts["published"] < facts["records"]:
                raise Wrong(f"{row.name}: {facts} on the topic")
        row.service.stop()
        done = offline("verify", "--dir", row.service.audit, seconds=600)
        if done.returncode != 0:
            raise Wrong(f"{row.name}: {done.stdout}{done.stderr}")
        report["verified"][row.name] = facts


def on_topic(brokers: str, topic: str) -> int:
    """Messages in all partitions."""
    from confluent_kafka import Consumer, TopicPartition

    consumer = Consumer({"bootstrap.servers": brokers, "group.id": "count"})
    try:
        partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
        marks = [consumer.get_watermark_offsets(TopicPartition(topic, p), timeout=10) for p in partitions]
        return sum(high - low for low, high in marks)
    finally:
        consumer.close()


def measure_curves(bench: Bench, report: dict):
    quick = bench.options.quick
    curves = report["curves"] = {}
    seconds = 0.3 if quick else 1.5
    with contextlib.ExitStack() as stack:
        rows = [bench.noop(stack), bench.ours(stack, "spool")]
        sizes = [1 << 10, 1 << 14, 1 << 18] if quick else [1 << 10, 1 << 12, 1 << 14, 1 << 16, 1 << 18, 1 << 20, 1 << 22, 20 << 20]
        sizes = [size for size in sizes if size <= bench.options.largest]
        bench.say("body sizes")
        curves["body_bytes"] = {size: bench.turns(rows, bench.request(size=size, answer=f"json:{size}"), rounds=1 if quick else 2, warm=0.1,
                                                  connections=4 if size < 1 << 20 else 1, seconds=seconds) for size in sizes}
        bench.say("callers")
        counts = [1, 16, 128] if quick else [1, 4, 16, 64, 256, 1024]
        curves["connections"] = {n: bench.turns(rows, bench.request(), rounds=1 if quick else 2, connections=n, seconds=seconds) for n in counts}
        bench.say("lengths of streams")
        lengths = [10, 100, 1000] if quick else [10, 100, 1_000, 10_000]
        for row in rows:
            row.streams = True
        curves["stream_events"] = {n: bench.turns(rows, bench.request(answer=f"sse:{n}:0"), rounds=1 if quick else 2, warm=0.1, connections=4, seconds=seconds)
                                   for n in lengths}
        measure_memory(bench, report, rows[1])
    bench.say("policies and detectors")
    variants = {("policies", n): {"policies": n} for n in ([2, 10, 100] if quick else [2, 10, 100, 1000])}
    variants |= {("policies_over_100_connections", n): {"policies": n, "connections": 100} for n in ([100] if quick else [1000])}
    kinds = entities()
    steps = [0, 1, 15] if quick else [0, 1, 5, 15, 30, len(kinds)]
    variants |= {("detectors", n): {"detectors": [*FIFTEEN, *(k for k in kinds if k not in FIFTEEN)][:n]} for n in steps}
    with contextlib.ExitStack() as stack:
        rows = [bench.ours(stack, f"{kind}-{n}", **how) for (kind, n), how in variants.items()]
        found = bench.turns(rows, bench.request(), rounds=1 if quick else 4, connections=16, seconds=seconds)
    for kind, n in variants:
        curves.setdefault(kind, {})[n] = {"spool": found[f"{kind}-{n}"]}


def entities() -> list[str]:
    """The built-in detectors, by the table of docs/detectors.md."""
    import re

    rows = re.findall(r"^\| ((?:`[A-Z_]+`(?:, )?)+)(?: \(optional\))? \|", (ROOT / "docs/detectors.md").read_text(), re.MULTILINE)
    names = dict.fromkeys(name for row in rows for name in re.findall(r"`([A-Z_]+)`", row))
    return [name for name in names if name != "UPSTREAM_CREDENTIAL"]


def measure_memory(bench: Bench, report: dict, row: Row):
    """What the service holds with 1,024 streams open at once, and whether requests leave something behind."""
    streams = 128 if bench.options.quick else 1024
    bench.say(f"memory: {streams} streams")
    idle = rss(row.service)
    most, stop = [idle], threading.Event()

    def watch():
        while not stop.wait(0.05):
            most[0] = max(most[0], rss(row.service))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    drive(row, bench.model, bench.request(answer="sse:8:500000"), connections=streams, seconds=0.5)
    stop.set()
    thread.join()
    row.streams = False
    report["memory"] = {"before": idle, "streams": streams, "most_with_streams": most[0], "after_requests": []}
    # The same number of requests again and again: where nothing is left behind it stays as it is.
    count = bench.options.requests
    bench.say(f"memory: {count} requests")
    for _ in range(5):
        drive(row, bench.model, bench.request(), connections=64, seconds=3600, requests=count // 5)
        report["memory"]["after_requests"].append(rss(row.service))


def conclude(report: dict):
    """Ratios to the no-op service, and which of the targets are met."""
    rows = report["rows"]
    report["ratio_to_noop"], report["targets"] = {}, []

    def target(what: str, found: float, wanted: float, at_least: bool = False):
        report["targets"].append({"what": what, "found": found, "wanted": wanted, "met": found >= wanted if at_least else found <= wanted})

    for name, bar in BARS.items():
        each = {n: ratios(rows[str(n)][name], rows[str(n)]["noop"]) for n in map(int, rows)}
        at = [each[n] for n in bar["connections"] if n in each]
        worst = {key: (min if key == "throughput" else max)(one[key] for one in at) for key in at[0]}
        report["ratio_to_noop"][name] = {**worst, "by_connections": each}
        for key, wanted in bar.items():
            if key != "connections":
                target(f"{name}: {key}", worst[key], wanted, key == "throughput")
    if "1" in rows:
        added = rows["1"]["disk"]["p50_us"] - rows["1"]["noop"]["p50_us"]
        report["disk_added_p50_in_fdatasyncs"] = added / report["fdatasync_us"]["p50"]
        target("disk, one caller: added p50 in fdatasyncs", report["disk_added_p50_in_fdatasyncs"], ADDED_P50)
    target("event streams, spool: first event over no-op, p99, µs", report["sse"]["first_event_over_noop_p99_us"]["spool"], FIRST_EVENT_US)
    gaps = {name: report["sse"]["rows"][name]["gap_p99_us"] for name in ("spool", "noop")}
    target("event streams, spool: p99 between events, of the no-op's", gaps["spool"] / gaps["noop"], GAP)
    after = report["memory"]["after_requests"]
    target("memory after the last fifth of the requests, of the second's", after[-1] / after[1], FLAT)
    sizes = report["curves"]["body_bytes"]
    per_byte = {int(size): of["spool"]["service_cpu_us"] / int(size) for size, of in sizes.items()}
    large = [size for size in per_byte if size >= 1 << 18]
    target("processor time per byte of the largest body, of one of 256 KiB", per_byte[max(large)] / per_byte[min(large)], LINEAR)
    target("memory with streams open, MiB", report["memory"]["most_with_streams"] / (1 << 20), 150)
    policies = {kind: {int(n): of["spool"]["service_cpu_us"] for n, of in report["curves"][kind].items()} for kind in
                ("policies", "policies_over_100_connections")}
    chain, spread = policies["policies"], policies["policies_over_100_connections"]
    report["policy_cost"] = {"ns_per_rule": (chain[max(chain)] - chain[10]) / (max(chain) - 10) * 1e3,
                             "over_100_connections_of_ten": spread[max(spread)] / chain[10]}
    target("policies over 100 connections, CPU of ten policies", report["policy_cost"]["over_100_connections_of_ten"], 1.2)


def main() -> int:
    options = argparse.ArgumentParser(prog="./dev bench load", description=__doc__.splitlines()[0])
    options.add_argument("--quick", action="store_true", help="a minute: every part and every check, but no figure to rely on")
    options.add_argument("--rounds", type=int, help="how often each row is measured (default 4)")
    options.add_argument("--seconds", type=float, help="length of one measurement (default 2)")
    options.add_argument("--connections", type=int, nargs="+", help="concurrent callers of the rows (default 1 16 64 256)")
    options.add_argument("--requests", type=int, help="requests after which memory is looked at (default 60,000)")
    options.add_argument("--largest", type=int, default=20 << 20, help="largest body of the curve, in bytes (default 20 MiB)")
    options.add_argument("--no-kafka", dest="kafka", action="store_false", help="without a broker and its rows")
    options.add_argument("--only-rows", action="store_true", help="without curves, to compare two builds; writes no report")
    options.add_argument("--flame", action="store_true", help="also draw where the service's processor time goes; needs perf")
    options.add_argument("--out", type=Path, default=ROOT / "target/loadtest", help="where the report goes; emptied first (default target/loadtest)")
    options = options.parse_args()
    usual = (1, 0.4, [1, 16, 64, 256], 2_000) if options.quick else (4, 2.0, [1, 16, 64, 256], 60_000)
    for name, value in zip(("rounds", "seconds", "connections", "requests"), usual):
        if getattr(options, name) is None:
            setattr(options, name, value)

    report = {"machine": platform.platform(), "cores": os.cpu_count(), "quick": options.quick, "rounds": options.rounds, "seconds": options.seconds,
              "command": " ".join(["./dev bench load", *sys.argv[1:]]), "load_before": os.getloadavg()[0]}
    try:
        with contextlib.ExitStack() as stack:
            bench = Bench(stack, options)
            measure_features(bench, report)
            if options.only_rows:
                print(json.dumps({n: {row: {k: round(v) for k, v in of.items()} for row, of in rows.items()} for n, rows in report["rows"].items()}, indent=1))
                return 0
            measure_curves(bench, report)
    except Wrong as error:
        print(f"the run is worthless: {error}", file=sys.stderr)
        return 1
    finally:
        # Logs are large and are not looked at again.
        for audit in options.out.glob("work/*/audit"):
            shutil.rmtree(audit)
    conclude(report)
    (options.out / "report.json").write_text(json.dumps(report, indent=1) + "\n")
    write_markdown(report, options.out / "report.md")
    write_plots(report, options.out)
    print((options.out / "report.md").read_text())
    return 0


if __name__ == "__main__":
    sys.exit(main())
