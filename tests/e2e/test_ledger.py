"""The ledger through the whole house: who holds its checkpoints, what becomes of old records, of keys, of a lost broker."""

import http.server
import json
import re
import shutil
import subprocess
import sys
import threading

import pytest
from stack import ROOT, wait_until
from stack.caller import call, prompt
from stack.countersign import run
from stack.upstream import chat


class Witness:
    """A holder outside: it keeps what it is sent, unless told to refuse."""

    def __init__(self):
        self.kept, self.refuse, witness = [], False, self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"])).decode()
                if not witness.refuse:
                    witness.kept.append((self.headers["authorization"], body))
                self.send_response(503 if witness.refuse else 200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/checkpoints"

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def witness():
    with Witness() as running:
        yield running


def test_what_a_witness_was_sent_vouches_for_the_log(gateway, witness, tokens, upstream, tmp_path):
    upstream.answer = chat("Hello there.")
    running = gateway(audit={"checkpoint_webhooks": [{"url": witness.url}]})
    for n in range(3):
        assert call(running.envoy.url, tokens(), prompt(f"question {n}")).status == 200
    age = "countersign_checkpoint_age_seconds{"
    assert any(name.startswith(age) and witness.url in name for name in running.countersign.metrics())
    wait_until("the log is signed although nobody asks", lambda: witness.kept, 30)
    known = len(witness.kept)
    wait_until("and again", lambda: len(witness.kept) > known, 30)
    witness.refuse = True
    assert call(running.envoy.url, tokens(), prompt("while it is away")).status == 200
    witness.refuse = False
    assert running.countersign.stop() == 0
    kept = tmp_path / "kept"
    kept.write_text("".join(note for _, note in witness.kept))
    key = running.countersign.audit / "signing.key.pub"
    done = run("verify", "--dir", running.countersign.audit, "--checkpoint", kept, "--trust", key)
    assert done.returncode == 0 and "\nwhole: " in done.stdout, done.stdout + done.stderr
    records = len(running.countersign.records())
    assert f"whole up to record {records - 1}\n" in done.stdout, "the last checkpoint reached it before the end"


def independent(*arguments):
    """The verifier in Python, which shares no code with ours."""
    command = [sys.executable, ROOT / "examples/verify/verify.py", *arguments, "--json"]
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=60)


def both(directory, *options):
    """The verdict, and what is there and gone, on which two verifiers agree."""
    ours, theirs = run("verify", "--dir", directory, "--json", *options), independent("--dir", directory, *options)
    assert ours.returncode == theirs.returncode, (ours.stdout, ours.stderr, theirs.stdout, theirs.stderr)
    told = [json.loads(done.stdout) for done in (ours, theirs)]
    assert told[0]["verdict"] == told[1]["verdict"]
    extents = [sorted((c["chain"], c["records"], c["pruned_records"]) for c in one["chains"]) for one in told]
    if told[0]["verdict"] != "tampered":
        assert extents[0] == extents[1]
    return told[0]["verdict"], sum(records for _, records, _ in extents[0]), sum(pruned for *_, pruned in extents[0])


def test_old_segments_go_as_the_rule_says_and_nobody_elses_hand_looks_like_it(gateway, tokens, upstream, tmp_path):
    upstream.answer = chat("and so on. " * 2_000)
    archive, kept = tmp_path / "archive", tmp_path / "kept"
    running = gateway(audit={"segment": "1MiB", "checkpoint_file": str(kept),
                             "retention": {"size": "1MiB", "at_least": "0s"}})
    sessions = [call(running.envoy.url, tokens(), prompt("x" * 200_000)).session for _ in range(12)]
    running.countersign.stop()
    # The next start looks at what is there.
    running.countersign.start()
    log = running.countersign.audit
    wait_until("old segments went", lambda: list(log.glob("chains/*/pruned")), 60)
    running.countersign.stop()
    trust = log / "signing.key.pub"
    verdict, there, gone = both(log, "--checkpoint", kept, "--trust", trust)
    assert verdict == "whole" and there and gone > 10, (verdict, there, gone)
    # What is left is proven as before; what went cannot be.
    file = tmp_path / "proof"
    assert run("proof", sessions[-1], "--dir", log, "--out", file).returncode == 0
    for done in (run("verify", "--proof", file, "--trust", trust), independent("--proof", file, "--trust", trust)):
        assert done.returncode == 0, done
    assert run("proof", sessions[0], "--dir", log).returncode == 2

    # The rest of the old chain is moved out; together it is all there.
    before = run("verify", "--dir", log).stdout
    moved = run("archive", "--config", running.countersign.file, "--to", archive, "--older-than", "0s")
    assert moved.returncode == 0 and re.search(r"moved [1-9]\d* records", moved.stderr), moved
    assert both(log, "--trust", trust)[0] == "consistent, unanchored"
    done = run("verify", "--dir", log, "--archive", archive, "--trust", trust, "--checkpoint", kept, "--json")
    told = json.loads(done.stdout)
    assert (done.returncode, told["verdict"]) == (0, "whole"), (before, done.stdout)
    assert sum(chain["pruned_records"] for chain in told["chains"]) == gone, "of what was archived nothing is gone"

    # Somebody else's hand.
    for what in ("a segment", "the stump", "another stump", "another genesis"):
        copy = shutil.copytree(log, tmp_path / what.replace(" ", "-"))
        if what == "a segment":
            sorted(copy.glob("chains/*/*.seg"))[0].unlink()
        else:
            (stump,) = sorted(copy.glob("chains/*/pruned"))[:1]
            text = stump.read_text()
            stump.unlink()
            if what == "another genesis":
                # Of a chain that nothing was before, so that whatever was can be left out.
                of_it = json.loads(text)
                of_it["genesis"] = of_it["genesis"].replace('"replica":"', '"replica":"x')
                stump.write_text(json.dumps(of_it))
            elif what == "another stump":
                stump.write_text(text.replace('"clean": false', '"clean":  false').replace('"clean": true', '"clean":  true'))
        assert both(copy)[0] == "tampered", what


def test_a_key_is_followed_by_one_that_it_introduced_and_by_no_other(gateway, tokens, upstream, tmp_path):
    upstream.answer = chat("Hello there.")
    running = gateway()
    countersign = running.countersign
    call(running.envoy.url, tokens())
    countersign.stop()
    log, old = countersign.audit, countersign.audit / "signing.key"
    trust = shutil.copy(log / "signing.key.pub", tmp_path / "trust")
    stranger, new = tmp_path / "stranger.key", tmp_path / "new.key"
    assert run("keygen", "signing", "--out", stranger).returncode == 0
    assert run("keygen", "signing", "--out", new, "--replaces", old).returncode == 0
    settings = countersign.config

    def with_key(path):
        countersign.write({**settings, "audit": {**settings["audit"], "signing_key": str(path)}})

    with_key(stranger)
    refused = run("serve", "--config", countersign.file)
    assert refused.returncode != 0 and "keygen signing --replaces" in refused.stderr, refused
    with_key(new)
    countersign.start()
    session = call(running.envoy.url, tokens()).session
    countersign.stop()
    newest = sorted(log.glob("chains/*/checkpoints"))[-1]
    for key in (trust, f"{new}.pub"):
        options = ["--trust", trust, "--trust", key, "--checkpoint", newest]
        assert both(log, *options)[0] == "whole"
    assert both(log, "--trust", f"{stranger}.pub")[0] == "tampered"
    assert both(log, "--trust", f"{new}.pub")[0] == "tampered", "it does not vouch for the one before it"
    # A proof leads from the old key to the new one by itself.
    proof = tmp_path / "proof"
    assert run("proof", session, "--dir", log, "--out", proof).returncode == 0
    for done in (run("verify", "--proof", proof, "--trust", trust), independent("--proof", proof, "--trust", trust)):
        assert done.returncode == 0, done
