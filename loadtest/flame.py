"""Where the service's processor time goes, as a flame graph: perf's stacks, folded and drawn."""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from pathlib import Path
from xml.sax.saxutils import escape

WIDTH, ROW, LEAST = 1200, 16, 0.004  # what has less than this share is left out
HERTZ, STACK = 999, 16384


def record(pid: int, seconds: float, out: Path) -> subprocess.Popen:
    """Begins to sample all threads of a process; ends by itself."""
    return subprocess.Popen(["perf", "record", "-q", "-F", str(HERTZ), "--call-graph", f"dwarf,{STACK}", "-o", str(out), "-p", str(pid), "--", "sleep", str(seconds)],
                            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def folded(data: Path) -> Counter:
    """How often each stack was seen, outermost first, the thread's name before all."""
    text = subprocess.run(["perf", "script", "-i", str(data), "--no-inline", "-F", "comm,ip,sym"], capture_output=True, text=True, check=True,
                          stdin=subprocess.DEVNULL).stdout
    stacks: Counter = Counter()
    for block in text.split("\n\n"):
        lines = block.strip("\n").splitlines()
        if not lines:
            continue
        frames = [plain(line.split(None, 1)[1]) for line in lines[1:] if len(line.split(None, 1)) == 2]
        stacks[(lines[0].strip(), *reversed(frames))] += 1
    return stacks


def plain(symbol: str) -> str:
    """A symbol without its hash and without types that only repeat what is called."""
    symbol = re.sub(r"::h[0-9a-f]{16}$", "", symbol)
    return re.sub(r"<impl .*? as (.*?)>", r"\1", symbol)


def write_flame(stacks: Counter, file: Path, title: str):
    """Draws them: width is time, what calls stands below."""
    total = sum(stacks.values())
    tree: dict = {}
    for stack, count in stacks.items():
        at = tree
        for frame in stack:
            node = at.setdefault(frame, [0, {}])
            node[0] += count
            at = node[1]
    boxes: list[tuple[int, float, float, str]] = []

    def place(nodes: dict, depth: int, left: float):
        for name, (count, below) in sorted(nodes.items()):
            if count / total < LEAST:
                continue
            boxes.append((depth, left, count / total, name))
            place(below, depth + 1, left)
            left += count / total

    place(tree, 0, 0.0)
    height = (max((box[0] for box in boxes), default=0) + 2) * ROW + 10
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="monospace" font-size="10">',
             f'<rect width="{WIDTH}" height="{height}" fill="white"/><text x="4" y="14" font-size="12">{escape(title)}, {total} samples</text>']
    for depth, left, share, name in boxes:
        x, y, width = left * WIDTH, height - (depth + 1) * ROW, share * WIDTH
        room = int(width / 6.2)
        ours = "#f0a35e" if "countersign" in name else "#d9d4c5"
        label = f'<text x="2" y="11">{escape(name[:room])}</text>' if room > 3 else ""
        parts.append(f'<g transform="translate({x:.1f} {y})"><rect width="{max(width - 0.5, 0.5):.1f}" height="{ROW - 1}" fill="{ours}"/>'
                     f"<title>{escape(name[:160])}: {100 * share:.1f} %</title>{label}</g>")
    file.write_text("\n".join([*parts, "</svg>", ""]))
