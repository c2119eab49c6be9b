"""The curves of a load test as SVG, both axes logarithmic."""

from __future__ import annotations

import math
from pathlib import Path
from xml.sax.saxutils import escape

WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 640, 400, 70, 40, 20, 50
COLOURS = ["#4269d0", "#efb118", "#ff725c", "#6cc5b0", "#3ca951", "#97bbf5"]

PLOTS = {
    "body_bytes": ("CPU of the service per request by body size", "bytes each way", "µs", "service_cpu_us"),
    "connections": ("Requests per second by callers", "callers", "requests/s", "rps"),
    "stream_events": ("CPU of the service per answer by events", "events", "µs", "service_cpu_us"),
    "policies": ("CPU of the service per request by policies in one chain", "policies", "µs", "service_cpu_us"),
    "detectors": ("CPU of the service per request by detectors", "detectors, and one", "µs", "service_cpu_us"),
}


def write_plots(report: dict, out: Path):
    for name, (title, across, up, key) in PLOTS.items():
        series: dict[str, list[tuple[float, float]]] = {}
        for at, rows in report["curves"][name].items():
            for row, found in rows.items():
                # No logarithm has a place for 0 detectors.
                x = float(at) + (1 if name == "detectors" else 0)
                series.setdefault(row, []).append((x, max(found[key], 1e-3)))
        (out / f"{name}.svg").write_text(lines(title, across, up, series))


def lines(title: str, across: str, up: str, series: dict[str, list[tuple[float, float]]]) -> str:
    points = [point for of in series.values() for point in of]
    x, x_ticks = scale([p[0] for p in points], LEFT, WIDTH - RIGHT)
    y, y_ticks = scale([p[1] for p in points], HEIGHT - BOTTOM, TOP)
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">',
             f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
             text(WIDTH / 2, 20, title, "middle", 14), text(WIDTH / 2, HEIGHT - 10, across, "middle"), text(10, TOP - 10, up)]
    for tick in x_ticks:
        parts += [f'<path d="M{x(tick):.1f} {TOP}V{HEIGHT - BOTTOM}" stroke="#ddd"/>', text(x(tick), HEIGHT - BOTTOM + 16, short(tick), "middle")]
    for tick in y_ticks:
        parts += [f'<path d="M{LEFT} {y(tick):.1f}H{WIDTH - RIGHT}" stroke="#ddd"/>', text(LEFT - 6, y(tick) + 4, short(tick), "end")]
    for n, (name, of) in enumerate(series.items()):
        colour = COLOURS[n % len(COLOURS)]
        path = " ".join(f"{x(px):.1f},{y(py):.1f}" for px, py in sorted(of))
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x(px):.1f}" cy="{y(py):.1f}" r="3" fill="{colour}"><title>{px:g}: {py:.1f}</title></circle>' for px, py in of]
        parts += [f'<rect x="{LEFT + 10}" y="{TOP + 6 + 18 * n}" width="12" height="12" fill="{colour}"/>', text(LEFT + 28, TOP + 16 + 18 * n, name)]
    return "\n".join([*parts, "</svg>", ""])


def scale(values: list[float], low: float, high: float):
    """Where a value stands between two places, and the powers of ten around the values."""
    first, last = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    last = max(last, first + 1)
    return (lambda v: low + (math.log10(v) - first) / (last - first) * (high - low)), [10.0**n for n in range(first, last + 1)]


def short(value: float) -> str:
    for unit, name in ((1e6, "M"), (1e3, "k")):
        if value >= unit:
            return f"{value / unit:g} {name}"
    return f"{value:g}"


def text(x: float, y: float, what: str, anchor: str = "start", size: int = 12) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}">{escape(what)}</text>'
