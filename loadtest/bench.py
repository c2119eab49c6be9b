"""What Countersign adds to Envoy: the same requests through Envoy without the filter and with it, in turns.

Everything runs on this machine and shares its cores, so only the difference means something. The model
server is a second Envoy that answers at once with a fixed 2 KB completion. Results: target/bench/e2e.json.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
os.environ.setdefault("COUNTERSIGN_BIN", str(ROOT / "target/release/countersign"))
sys.path.insert(0, str(ROOT / "tests"))

from stack import Countersign, Envoy, OidcProvider, config  # noqa: E402
from stack.envoy import http_manager, without_filter  # noqa: E402

TEXT = ("The quarterly figures are in line with what was expected. " * 40)[:1700]
ANSWER = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1700000000, "model": "gpt-4o-mini",
          "choices": [{"index": 0, "message": {"role": "assistant", "content": TEXT}, "finish_reason": "stop"}],
          "usage": {"prompt_tokens": 400, "completion_tokens": 400, "total_tokens": 800}}
REQUEST = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": TEXT}]}

SCRIPT = """
wrk.method = "POST"
wrk.body = io.open(os.getenv("BODY")):read("*a")
wrk.headers["content-type"] = "application/json"
wrk.headers["authorization"] = "Bearer " .. os.getenv("TOKEN")
function done(summary, latency, _)
  local e = summary.errors
  io.write(string.format('RESULT {"requests": %d, "seconds": %f, "p50_us": %d, "p99_us": %d, "errors": %d}\\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50), latency:percentile(99),
    e.connect + e.read + e.write + e.status + e.timeout))
end
"""


def model(manager_config: dict):
    """Turns the configuration into one that answers everything by itself."""
    without_filter(manager_config)
    manager = http_manager(manager_config)
    manager.pop("access_log")
    host = manager["route_config"]["virtual_hosts"][0]
    host["routes"] = [{"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": {"inline_string": json.dumps(ANSWER)}},
                       "response_headers_to_add": [{"header": {"key": "content-type", "value": "application/json"},
                                                    "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}]}]


def quiet(manager_config: dict):
    http_manager(manager_config).pop("access_log")


def bare(manager_config: dict):
    without_filter(manager_config)
    quiet(manager_config)


def wrk(url: str, connections: int, seconds: int, work: Path, token: str) -> dict:
    done = subprocess.run(
        ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s", "-s", str(work / "post.lua"), f"{url}/v1/chat/completions"],
        env={**os.environ, "BODY": str(work / "body.json"), "TOKEN": token},
        capture_output=True, text=True, timeout=seconds + 60, stdin=subprocess.DEVNULL, check=True)
    result = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("RESULT "))[7:])
    if result["errors"] or not result["requests"]:
        raise SystemExit(f"the run is worthless, some requests failed: {result}")
    return {"rps": result["requests"] / result["seconds"], "p50_us": result["p50_us"], "p99_us": result["p99_us"]}


def main() -> int:
    options = argparse.ArgumentParser(prog="./dev bench", description=__doc__.splitlines()[0])
    options.add_argument("--rounds", type=int, default=3, help="how often each of the two is measured (default 3)")
    options.add_argument("--seconds", type=int, default=5, help="length of one measurement (default 5)")
    options.add_argument("--connections", type=int, nargs="+", default=[1, 16], help="concurrent callers (default 1 16)")
    options.add_argument("--durability", nargs="+", default=["disk", "spool"], choices=["disk", "spool"],
                         help="what to measure with (default disk spool)")
    options = options.parse_args()
    if not shutil.which("wrk"):
        raise SystemExit("wrk is missing: apt-get install wrk")

    work = ROOT / "target/bench"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    (work / "post.lua").write_text(SCRIPT)
    (work / "body.json").write_text(json.dumps(REQUEST))

    with contextlib.ExitStack() as stack:
        upstream = stack.enter_context(Envoy(work, 9, change=model, name="model"))
        oidc = stack.enter_context(OidcProvider(work, ttl=3600))
        envoys = {"without": stack.enter_context(Envoy(work, upstream.port, change=bare, name="envoy-without"))}
        for durability in options.durability:
            (work / durability).mkdir()
            settings = config(oidc.issuer, work)
            settings["connections"][0]["durability"] = durability
            countersign = stack.enter_context(Countersign(work / durability, settings))
            envoys[durability] = stack.enter_context(
                Envoy(work, upstream.port, countersign.socket, change=quiet, name=f"envoy-{durability}"))
        token = oidc.token("alice-app")

        results = []
        for connections in options.connections:
            runs: dict[str, list[dict]] = {name: [] for name in envoys}
            for envoy in envoys.values():
                wrk(envoy.url, connections, 1, work, token)  # warm
            for round_ in range(options.rounds):
                for name, envoy in envoys.items():
                    print(f"\r{connections} callers, round {round_ + 1}/{options.rounds}, {name} … ", end="", file=sys.stderr)
                    runs[name].append(wrk(envoy.url, connections, options.seconds, work, token))
            print("\r" + " " * 60 + "\r", end="", file=sys.stderr)
            medians = {name: {key: statistics.median(r[key] for r in rs) for key in rs[0]} for name, rs in runs.items()}
            results.append({"connections": connections, "runs": runs, "median": medians,
                            "added_p50_us": {name: medians[name]["p50_us"] - medians["without"]["p50_us"] for name in options.durability}})

    print(f"{'callers':>8} {'filter':>8} {'requests/s':>11} {'p50 ms':>8} {'p99 ms':>8} {'added p50':>10}")
    for result in results:
        for name, m in result["median"].items():
            added = f"{result['added_p50_us'][name] / 1000:.2f} ms" if name in result["added_p50_us"] else ""
            print(f"{result['connections']:>8} {name:>8} {m['rps']:>11.0f} {m['p50_us'] / 1000:>8.2f} {m['p99_us'] / 1000:>8.2f} {added:>10}")
    out = work / "e2e.json"
    out.write_text(json.dumps({"machine": platform.platform(), "cores": os.cpu_count(), "body_bytes": len(json.dumps(REQUEST)),
                               "rounds": options.rounds, "seconds": options.seconds, "results": results}, indent=1) + "\n")
    print(f"medians of {options.rounds} interleaved rounds of {options.seconds} s; details in {out.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
