"""The report of a load test for people: tables in Markdown."""

from __future__ import annotations

from pathlib import Path


def write_markdown(report: dict, file: Path):
    lines = ["# Load test", "", f"`{report['command']}`, {report['cores']} cores shared with the callers, the model server and whatever else ran "
             f"(load {report['load_before']:.1f} before). Medians of {report['rounds']} rounds of {report['seconds']:g} s in turns.", ""]
    if report["quick"]:
        lines += ["**A quick run: it shows that everything works, and no figure of it means anything.**", ""]
    lines += ["## Targets", "", *table(["target", "found", "wanted", ""], [
        [t["what"], f"{t['found']:.2f}", f"{t['wanted']:g}", "met" if t["met"] else "**missed**"] for t in report["targets"]])]
    lines += ["", f"fdatasync of 4 KiB in the same run: p50 {report['fdatasync_us']['p50']:.0f} µs, p99 {report['fdatasync_us']['p99']:.0f} µs.", ""]
    for connections, rows in report["rows"].items():
        lines += [f"## {connections} callers, 2 KB each way", "", *rows_table(rows), ""]
    sse = report["sse"]
    lines += [f"## Event streams: {sse['connections']} callers, {sse['events']} events {sse['apart_us'] / 1000:g} ms apart", "", *table(
        ["row", "first p50 ms", "first p99 ms", "between p50 ms", "between p99 ms", "service CPU µs an answer"],
        [[name, ms(row["first_p50_us"]), ms(row["first_p99_us"]), ms(row["gap_p50_us"]), ms(row["gap_p99_us"]), f"{row['service_cpu_us']:.0f}"]
         for name, row in sse["rows"].items()])]
    held = sse["held_back"]
    lines += ["", f"Held back after an event: {held['characters_mean']:.1f} characters in the mean, {held['characters_most']} at most "
              f"({held['tokens_mean']:.2f} and {held['tokens_most']:.1f} tokens of five characters).", ""]
    for name, curve in report["curves"].items():
        lines += [f"## By {name.replace('_', ' ')}", "", *curve_table(name, curve), ""]
    cost = report["policy_cost"]
    lines += [f"One rule of a chain: {cost['ns_per_rule']:.0f} ns. Policies over 100 connections: {cost['over_100_connections_of_ten']:.2f} of ten policies.", ""]
    memory = report["memory"]
    lines += ["## Memory", "", f"{mib(memory['before'])} before, {mib(memory['most_with_streams'])} with {memory['streams']} streams at once; after each fifth of the "
              f"requests: {', '.join(mib(size) for size in memory['after_requests'])}.", ""]
    file.write_text("\n".join(lines))


def rows_table(rows: dict) -> list[str]:
    noop = rows["noop"]
    return table(["row", "requests/s", "of no-op", "p50 ms", "p90 ms", "p99 ms", "service CPU µs", "of no-op", "Envoy CPU µs", "service RSS"], [
        [name, f"{row['rps']:.0f}", f"{row['rps'] / noop['rps']:.2f}", ms(row["p50_us"]), ms(row["p90_us"]), ms(row["p99_us"]),
         f"{row['service_cpu_us']:.0f}", f"{row['service_cpu_us'] / noop['service_cpu_us']:.2f}", f"{row['envoy_cpu_us']:.0f}", mib(row["service_rss"])]
        for name, row in rows.items()])


def curve_table(name: str, curve: dict) -> list[str]:
    rows = []
    for at, of in curve.items():
        for row, found in of.items():
            rows.append([str(at), row, f"{found['rps']:.1f}", ms(found["p50_us"]), ms(found["p99_us"]), f"{found['service_cpu_us']:.0f}",
                         f"{found['envoy_cpu_us']:.0f}", mib(found["service_rss"])])
    return table([name.replace("_", " "), "row", "requests/s", "p50 ms", "p99 ms", "service CPU µs", "Envoy CPU µs", "service RSS"], rows)


def table(head: list[str], rows: list[list[str]]) -> list[str]:
    return ["| " + " | ".join(head) + " |", "|" + "|".join(["---", *["---:"] * (len(head) - 1)]) + "|", *("| " + " | ".join(row) + " |" for row in rows)]


def ms(us: float) -> str:
    return f"{us / 1000:.2f}"


def mib(size: int) -> str:
    return f"{size / (1 << 20):.0f} MiB"
