"""Writes docs/envoy-conformance.md from the table: `PYTHONPATH=tests .tools/venv/bin/python tests/e2e/envoy/page.py`, or `./dev conformance`."""

from __future__ import annotations

from stack import ROOT
from stack.envoy import versions
from table import GONE, GROUPS, ROWS, Row

PAGE = ROOT / "docs" / "envoy-conformance.md"

HEAD = """<!-- Written by `./dev conformance` from tests/e2e/envoy/table.py: change that. -->

# Conformance with Envoy

Every row below is a test that runs against Envoy {versions}, with `envoy/envoy.yaml` as it is shipped and a route a
situation added to it: `./dev test -k test_row`. **{oldest} is the oldest Envoy to run this with**: 1.36.4 crashes on an immediate response to an
HTTP/2 POST. Where Envoy is older, `countersign_envoy_outdated_total` counts its streams and the log says so once; Envoy tells its version by
three attributes that the shipped configuration asks for.

Of every row it is checked besides that no value that is to be masked reached the caller or the model server, that the caller's token did not
reach the model server, that what was opened on the record was closed once, and that no request was left in flight.

What this showed that is worth knowing:

- Allowed WebSockets work on 1.40.0 and 1.38.3. On 1.39.3 they hang: the caller gets no answer. Those that are refused are refused on all.
- An HTTP/1.1 upgrade to `h2c` is taken off by Envoy: what is left is an ordinary request. WebSockets arrive only where a route allows them.
- Envoy passes a `101` that nobody asked for, and what follows it: Countersign refuses it.
- A WebSocket whose last frame is sent right before the model server hangs up may lose that frame: Envoy resets the stream, with what is on its way.
  Servers that wait for the caller's goodbye are not affected. Its record says `cut_short` where a side just hung up, as most do.
- What a reset of the model server becomes depends on how far it came: an error of ours before the head of the answer left, a cut behind it.
  A document leaves only once it was seen whole, so half of one never does.
- Retries of Envoy's router happen behind the filter: one record, one approval used, as many tries as the route says. The record cannot tell how
  many; the shipped configuration has no `retry_policy`, and a caller's wish for retries is removed.
- A service that was stopped takes a request up when it goes on, although Envoy has long answered 500: its record says `opened` and
  `cut_short`, and nothing of it reached the model server.
- `completed` on record says that Envoy was given all of an answer, not that the caller has it: Envoy acknowledges nothing. A service that was
  stopped in a stream and goes on may still write it, although the caller was cut off.
- Modes of which Envoy's first message does not tell (headers or trailers skipped) cannot be told at the start. Skipped headers end in an error or
  in the guards; skipped trailers pass nothing that is governed, because trailers are refused in requests and removed from answers.
- HTTP/3 was not tried, nor were compressed gRPC messages.

"""


def words(function) -> str:
    return function.words


def seen(row: Row) -> str:
    """What the model server must see."""
    if not row.reached:
        return "nothing"
    times = "" if row.reached == 1 else f", {row.reached} times"
    return f"the request{times}" if row.whole else f"a part of the request{times}"


def ledger(row: Row) -> str:
    several = row.ledger if isinstance(row.ledger, tuple) else (row.ledger,)
    told = " or ".join(", ".join(one) if one else "nothing" for one in several)
    return told + (f"; {row.uses} use of the approval" if row.uses else "")


def more(row: Row) -> str:
    notes = ["the metric `countersign_envoy_misconfigured_total`"] if row.loud else []
    notes += [f"the service grows by less than {row.memory} MiB"] if row.memory else []
    return "".join(f"; {note}" for note in notes)


def page() -> str:
    *others, last = reversed(versions())
    out = [HEAD.format(versions=f"{', '.join(others)} and {last}", oldest=versions()[-1])]
    for group in GROUPS:
        out.append(f"## {group}\n\n| situation | request | model server | the caller gets | the model server sees | on record |\n|---|---|---|---|---|---|\n")
        for row in (row for row in ROWS if row.group == group):
            client = "(gone)" if row.client is GONE else row.client.words
            newest = "".join(f" (not on {version}: it hangs there)" for version in row.hangs)
            newest += " (on the newest only, unless `--long`)" if row.long else " (only with `--long`)" if row.longest else ""
            cells = [row.name + newest, words(row.call), words(row.model), client, seen(row), ledger(row) + more(row)]
            out.append("| " + " | ".join(cells) + " |\n")
        out.append("\n")
    return "".join(out).rstrip() + "\n"


if __name__ == "__main__":
    PAGE.write_text(page())
    print(f"wrote {PAGE.relative_to(ROOT)}: {len(ROWS)} rows")
