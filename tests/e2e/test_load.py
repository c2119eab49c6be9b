"""The load test itself: every part of it runs, every run is checked, and the report has what it promises."""

import json
import os
import subprocess
import sys

import pytest
from stack import ROOT
from stack.countersign import binary


@pytest.mark.long
@pytest.mark.timeout(600)
def test_the_load_test_runs_and_reports(tmp_path):
    env = {**os.environ, "COUNTERSIGN_BIN": str(binary()), "LOADTEST_BIN": os.environ.get("LOADTEST_BIN", str(ROOT / "target/debug/loadtest"))}
    out = tmp_path / "out"
    done = subprocess.run([sys.executable, ROOT / "loadtest/load.py", "--quick", "--out", out], env=env, capture_output=True, text=True,
                          timeout=570, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr[-4000:]

    report = json.loads((out / "report.json").read_text())
    assert set(report["rows"]) == {"1", "16", "64", "256"}
    assert set(report["rows"]["16"]) >= {"none", "noop", "identity", "policy", "masking", "spool", "disk", "kafka-publish", "kafka"}
    for name, connections in (("spool", "16"), ("spool", "64"), ("disk", "256")):
        ratio = report["ratio_to_noop"][name]
        assert set(ratio["by_connections"][connections]) == {"throughput", "p50", "p99", "cpu_per_request"}
        assert all(ratio[key] > 0 for key in ratio["by_connections"][connections])
    assert report["fdatasync_us"]["p50"] > 0 and report["disk_added_p50_in_fdatasyncs"] > 0
    assert set(report["curves"]) == {"body_bytes", "connections", "stream_events", "policies", "policies_over_100_connections", "detectors"}
    # What was recorded and published is what the runs say: the bench itself ends where a count differs.
    facts = report["verified"]
    for name, row in report["rows"]["16"].items():
        if name not in ("none", "noop"):
            assert facts[name]["records"] >= 2 * row["requests"]
    assert facts["kafka"]["published"] >= facts["kafka"]["records"]
    assert report["sse"]["rows"]["spool"]["gap_p50_us"] > 0
    for plot in ("body_bytes", "connections", "stream_events", "policies", "detectors"):
        assert (out / f"{plot}.svg").read_text().startswith("<svg")
    assert "## Targets" in (out / "report.md").read_text()
