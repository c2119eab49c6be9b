"""Finding and replaying sessions from the shell, on a log that a gateway wrote and while it writes."""

import json
import os
import shutil
import signal
import subprocess
import time

import pytest
from stack import Gateway, Upstream, config, wait_until
from stack.caller import call, events, prompt
from stack.countersign import binary, run
from stack.upstream import Answer, chat, chunk

ANSWER = "Her number is 536-22-8145, and the moon is blue tonight. " * 4


def sessions(directory, *filters, code=0) -> list[dict]:
    done = run("sessions", "--dir", directory, "--json", *filters)
    assert done.returncode == code, done
    return [json.loads(line) for line in done.stdout.splitlines()]


def replayed(directory, session, *options) -> list[dict]:
    done = run("replay", session, "--dir", directory, "--json", *options)
    assert done.returncode == 0, done
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def logged(oidc, tokens, tmp_path_factory):
    """A gateway's log over two runs; sessions by what they are."""
    work = tmp_path_factory.mktemp("sessions")
    with Upstream(chat(ANSWER, size=9, delay=0.02)) as upstream, Gateway(work, config(oidc.issuer, work), upstream.port) as gateway:
        url, made = gateway.envoy.url, {}
        made["plain"] = call(url, tokens(), prompt("What about the étude? My number is 536-22-8145.")).session
        made["denied"] = call(url, tokens("bob-app"), prompt("let me in")).session
        gateway.countersign.stop()
        gateway.countersign.start()
        began = time.monotonic()
        streamed = call(url, tokens(), prompt("And as a stream?", stream=True))
        made["streamed"], made["took"] = streamed.session, time.monotonic() - began
        made["text"] = "".join(c["delta"].get("content") or "" for e in events(streamed.body) if e != "[DONE]" for c in e["choices"])
        made["large"] = call(url, tokens(), prompt("word " * 60_000 + "needle")).session
        gateway.countersign.stop()
        yield gateway.countersign.audit, made


def test_sessions_are_found_by_what_is_known_of_them(logged):
    directory, made = logged
    rows = sessions(directory)
    assert [row["session"] for row in rows] == [made["large"], made["streamed"], made["denied"], made["plain"]], "newest first"
    assert all(row["verified"] for row in rows)
    denied = rows[2]
    assert (denied["verdict"], denied["outcome"], denied["code"], denied["status"]) == ("deny", "refused", "policy_denied", 403)
    found = {name: made[name] for name in ("plain", "denied", "streamed", "large")}
    for filters, expected in [
        (["--principal", rows[3]["principal"]], ["large", "streamed", "plain"]),
        (["--group", "interns"], ["denied"]),
        (["--connection", "openai", "--verdict", "allow"], ["large", "streamed", "plain"]),
        (["--connection", "elsewhere"], []),
        (["--model", "gpt-4*", "--limit", "2"], ["large", "streamed"]),
        (["--entity", "US_SSN", "--outcome", "completed", "--text", "étude"], ["plain"]),
        (["--text", "etude"], ["plain"]),
        (["--text", '"moon is blue"', "--text-does-not-exist"], None),
        (["--text", '"moon is blue" stream'], ["streamed"]),
        (["--text", "needle"], ["large"]),
        (["--text", "536-22-8145"], []),
        (["--since", "1h"], ["large", "streamed", "denied", "plain"]),
        (["--until", "1h"], []),
        (["--since", rows[1]["time"]], ["large", "streamed"]),
    ]:
        if expected is None:
            assert run("sessions", "--dir", directory, *filters).returncode == 2
            continue
        assert [row["session"] for row in sessions(directory, *filters)] == [found[name] for name in expected], filters


def test_a_table_is_plain_where_nobody_sees_colours(logged):
    directory, made = logged
    done = run("sessions", "--dir", directory)
    assert done.returncode == 0 and "\x1b" not in done.stdout
    lines = done.stdout.splitlines()
    assert len(lines) == 5 and made["denied"] in lines[3] and "deny policy_denied" in lines[3] and "US_SSN" in lines[4]
    nobody = run("sessions", "--dir", directory, "--principal", "nobody")
    assert nobody.returncode == 0 and nobody.stdout == "" and "no session" in nobody.stderr


def test_a_session_is_replayed_as_it_was_recorded(logged):
    directory, made = logged
    first, begun, *pieces, closed = replayed(directory, made["streamed"])
    assert (first["kind"], first["verified"], begun["kind"], closed["kind"]) == ("session", True, "opened", "closed")
    assert begun["decision"]["verdict"] == "allow" and json.loads(begun["request"]["body"])["stream"] is True
    shown = "".join(piece["text"] for piece in pieces)
    assert shown == made["text"] == ANSWER.replace("536-22-8145", "[US_SSN]")
    times = [piece["at_ms"] for piece in pieces]
    assert times == sorted(times) and len(set(times)) > 5, "a stream has its own pace"
    assert times[-1] - times[0] > 200 and times[-1] <= closed["closed"]["durationMs"] <= made["took"] * 1000 + 50
    # A record of several: the prompt comes whole.
    _, begun, *_ = replayed(directory, made["large"])
    assert json.loads(begun["request"]["body"])["messages"][0]["content"] == "word " * 60_000 + "needle" and not begun["prompt_cut"]
    records = [json.loads(line) for line in run("tail", "--dir", directory, "--format", "json").stdout.splitlines()]
    assert all(len(json.dumps(record)) < 256 << 10 for record in records)
    (refused,) = [line for line in replayed(directory, made["denied"]) if line["kind"] == "refused"]
    assert (refused["status"], refused["decision"]["code"]) == (403, "policy_denied")


def test_the_pace_is_the_original_one_or_a_multiple_of_it(logged):
    directory, made = logged
    lasts = replayed(directory, made["streamed"])[-1]["closed"]["durationMs"] / 1000
    took = {}
    for speed in ("0", "1", "10"):
        began = time.monotonic()
        done = run("replay", made["streamed"], "--dir", directory, "--speed", speed)
        took[speed] = time.monotonic() - began
        assert done.returncode == 0 and ANSWER.replace("536-22-8145", "[US_SSN]") in done.stdout and "\x1b" not in done.stdout
        for part in ("prompt (masked", "decision allow by mask-personal, allow-finance", "closed completed 200", "transaction "):
            assert part in done.stdout, done.stdout
    assert took["1"] >= lasts, (took, lasts)
    assert took["10"] >= lasts / 10


def test_an_interrupted_replay_ends_at_once_and_says_so(logged):
    directory, made = logged
    with subprocess.Popen([binary(), "replay", made["streamed"], "--dir", directory, "--speed", "0.01"], stdout=subprocess.PIPE) as process:
        seen = b""
        while b"answer" not in seen:
            seen += os.read(process.stdout.fileno(), 65536)
        process.send_signal(signal.SIGINT)
        rest = process.stdout.read()
        assert process.wait(10) == 130 and (seen + rest).endswith(b"\n")


def test_what_does_not_verify_is_not_shown_unless_asked_for(logged, tmp_path):
    directory, made = logged
    copy = tmp_path / "audit"
    shutil.copytree(directory, copy)
    assert len(sessions(copy)) == 4
    chain = sorted((copy / "chains").iterdir())[1]
    (segment,) = chain.glob("*.seg")
    data = segment.read_bytes()
    segment.write_bytes(data.replace(b"And as a stream?", b"And as a dream??", 1))
    done = run("sessions", "--dir", copy, "--json")
    assert done.returncode == 1 and "altered" in done.stderr and "--unverified" in done.stderr
    shown = [json.loads(line)["session"] for line in done.stdout.splitlines()]
    assert set(shown) <= {made["denied"], made["plain"]} and made["streamed"] not in shown
    marked = sessions(copy, "--unverified")
    assert made["plain"] in {row["session"] for row in marked if row["verified"]}
    refused = run("replay", made["streamed"], "--dir", copy)
    assert refused.returncode == 1 and refused.stdout == "" and "does not verify" in refused.stderr
    assert run("replay", made["plain"], "--dir", copy).returncode == 0, "this one does"
    assert run("index", "--dir", copy).returncode == 1
    segment.write_bytes(data)
    assert len(sessions(copy)) == 4 and run("index", "--dir", copy).returncode == 0


def test_a_directory_that_may_not_be_written_to_has_its_index_elsewhere(logged, tmp_path):
    directory, made = logged
    copy = tmp_path / "audit"
    shutil.copytree(directory, copy, ignore=shutil.ignore_patterns("index.sqlite*"))
    index = tmp_path / "index"
    assert len(sessions(copy, "--index", index)) == 4
    assert not list(copy.glob("index*")) and index.stat().st_mode & 0o777 == 0o600
    notes = tmp_path / "notes"
    notes.write_text("not yours")
    refused = run("sessions", "--dir", copy, "--index", notes)
    assert refused.returncode == 2 and "no index of countersign" in refused.stderr and notes.read_text() == "not yours"
    missing = run("sessions", "--dir", tmp_path / "nowhere")
    assert missing.returncode == 2 and "cannot be read" in missing.stderr
    absent = run("replay", "no-such-session", "--dir", copy, "--index", index)
    assert absent.returncode == 2 and "is not in" in absent.stderr


def test_a_log_is_searched_while_it_is_written(gateway, upstream, tokens):
    running = gateway()
    upstream.answer = Answer.sse([chunk({"content": "half an answer "}), chunk({"content": "and the rest"}), chunk({}, finish="stop")])
    directory = running.countersign.audit
    for n in range(5):
        reply = call(running.envoy.url, tokens(), prompt(f"question{n}", stream=True))
        (row,) = sessions(directory, "--text", f"question{n} rest")
        assert (row["session"], row["outcome"], row["verified"]) == (reply.session, "completed", True)


def test_what_was_pruned_is_out_of_the_index_and_the_rest_is_found(gateway, tokens, tmp_path):
    running = gateway(audit={"segment": "1MiB", "checkpoint_file": str(tmp_path / "kept"), "retention": {"size": "1MiB", "at_least": "0s"}})
    directory = running.countersign.audit
    made = [call(running.envoy.url, tokens(), prompt(f"question{n} " + "x" * 200_000)).session for n in range(12)]
    assert len(sessions(directory)) == 12
    running.countersign.stop()
    running.countersign.start()
    wait_until("old segments went", lambda: list(directory.glob("chains/*/pruned")), 60)
    running.countersign.stop()
    left = [row["session"] for row in sessions(directory)]
    assert made[-1] in left and made[0] not in left and left == [session for session in reversed(made) if session in left]
    assert sessions(directory, "--text", "question0") == [] and len(sessions(directory, "--text", "question11")) == 1
    assert run("index", "--dir", directory).returncode == 0
    assert [row["session"] for row in sessions(directory)] == left


def test_help_says_that_looking_leaves_no_trace():
    for command in ("sessions", "replay"):
        help_text = " ".join(run(command, "--help").stdout.split())
        assert "not recorded" in help_text and "only when it is done through the gateway" in help_text
