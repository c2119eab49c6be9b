"""Evidence that leaves the house: proofs of single sessions, and a second verifier that shares no code with the first."""

import json
import random
import shutil
import subprocess
import sys

import pytest
from stack import ROOT, Gateway, Upstream, config
from stack.caller import call, prompt
from stack.countersign import run
from stack.upstream import chat

VERIFIER = ROOT / "examples/verify/verify.py"


def independent(*arguments):
    return subprocess.run([sys.executable, VERIFIER, *map(str, arguments)], capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def logged(oidc, tokens, tmp_path_factory):
    """A stopped gateway's log with a few sessions over three chains, and the sessions' ids."""
    work = tmp_path_factory.mktemp("proof")
    with Upstream(chat("Her number is 536-22-8145, " + "and so on. " * 50, size=9)) as upstream, \
            Gateway(work, config(oidc.issuer, work), upstream.port) as gateway:
        sessions = [call(gateway.envoy.url, tokens(), prompt(f"question {n}", stream=n % 2 == 0)).session for n in range(6)]
        gateway.countersign.stop()
        gateway.countersign.start()
        sessions += [call(gateway.envoy.url, tokens(), prompt(f"again {n}")).session for n in range(3)]
        gateway.countersign.stop()
        gateway.countersign.start()
        gateway.countersign.stop()
        return gateway.countersign.audit, sessions


def test_a_session_is_proven_with_the_public_key_alone(logged, tmp_path):
    directory, sessions = logged
    trust = directory / "signing.key.pub"
    for session in sessions:
        file = tmp_path / f"{session}.json"
        made = run("proof", session, "--dir", directory, "--out", file)
        assert made.returncode == 0, made
        proof = json.loads(file.read_text())
        kinds = [next(iter(set(json.loads(r["record"])) & {"opened", "delivered", "closed"})) for r in proof["records"]]
        assert kinds[0] == "opened" and kinds[-1] == "closed"
        assert all(len("".join(r["path"])) <= 2048 for r in proof["records"]), "a path is under a kilobyte"
        for checked in (run("verify", "--proof", file, "--trust", trust), independent("--proof", file, "--trust", trust)):
            assert checked.returncode == 0 and "proven" in checked.stdout, checked


def test_a_proof_that_was_touched_proves_nothing_to_either(logged, tmp_path):
    directory, sessions = logged
    trust = directory / "signing.key.pub"
    good = json.loads(run("proof", sessions[0], "--dir", directory).stdout)
    chance = random.Random(11)
    file = tmp_path / "proof.json"
    for n in range(60):
        bad = json.loads(json.dumps(good))
        proven = chance.choice(bad["records"])
        where = chance.choice(["record", "path", "checkpoints", "session"])
        if where == "record":
            at = chance.randrange(len(proven["record"]))
            proven["record"] = proven["record"][:at] + chr(ord(proven["record"][at]) ^ 1) + proven["record"][at + 1 :]
        elif where == "path":
            at = chance.randrange(len(proven["path"]))
            proven["path"][at] = ("0" if proven["path"][at][0] != "0" else "1") + proven["path"][at][1:]
        elif where == "checkpoints":
            note = bad["checkpoints"][0]
            at = chance.randrange(len(note) - 1)
            bad["checkpoints"][0] = note[:at] + chr(ord(note[at]) ^ 2) + note[at + 1 :]
        else:
            bad["session"] = sessions[1]
        if bad == good:
            continue
        file.write_text(json.dumps(bad))
        ours, theirs = run("verify", "--proof", file, "--trust", trust), independent("--proof", file, "--trust", trust)
        assert ours.returncode in (1, 2) and theirs.returncode in (1, 2), (where, ours, theirs)


def test_a_session_that_is_not_there_is_said_so(logged):
    missing = run("proof", "0192f3a1-0000-7000-8000-000000000000", "--dir", logged[0])
    assert missing.returncode == 2 and "is not in" in missing.stderr


def test_two_verifiers_agree_on_a_log_as_it_was_written(logged):
    directory, _ = logged
    trust = directory / "signing.key.pub"
    outside = directory.parent / "outside"
    outside.write_text("".join((chain / "checkpoints").read_text() for chain in sorted((directory / "chains").iterdir())))
    for more in ([], ["--trust", trust], ["--checkpoint", outside, "--trust", trust]):
        ours, theirs = run("verify", "--dir", directory, "--json", *more), independent("--dir", directory, "--json", *more)
        assert (ours.returncode, theirs.returncode) == (0, 0), (ours, theirs)
        mine, other = json.loads(ours.stdout), json.loads(theirs.stdout)
        assert mine["verdict"] == other["verdict"] == ("whole" if "--checkpoint" in more else "consistent, unanchored")
        extents = [{(c["chain"], c["records"], c["whole_records"]) for c in report["chains"]} for report in (mine, other)]
        assert extents[0] == extents[1] and len(extents[0]) == 3


def test_two_verifiers_agree_on_a_log_that_was_touched(logged, tmp_path):
    directory, _ = logged
    chance = random.Random(12)
    found = 0
    for n in range(40):
        copy = tmp_path / str(n)
        shutil.copytree(directory, copy)
        chain = chance.choice(sorted((copy / "chains").iterdir()))
        segment = chance.choice(sorted(chain.glob("*.seg")))
        data = bytearray(segment.read_bytes())
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        segment.write_bytes(data)
        ours, theirs = run("verify", "--dir", copy, "--json"), independent("--dir", copy, "--json")
        assert ours.returncode == theirs.returncode, (segment, ours.stdout, theirs.stdout)
        if ours.returncode == 1:
            found += 1
            place = {(f["chain"], f["seq"]) for f in json.loads(ours.stdout)["faults"]}
            assert place & {(f["chain"], f["seq"]) for f in json.loads(theirs.stdout)["faults"]}, (ours.stdout, theirs.stdout)
        shutil.rmtree(copy)
    assert found >= 30


def test_two_verifiers_agree_on_a_log_that_lacks_a_whole_chain(logged, tmp_path):
    directory, _ = logged
    copy = tmp_path / "log"
    shutil.copytree(directory, copy)
    gone = sorted((copy / "chains").iterdir())
    for n, chain in enumerate(gone):
        one = tmp_path / str(n)
        shutil.copytree(copy, one)
        shutil.rmtree(one / "chains" / chain.name)
        outside = tmp_path / f"outside-{n}"
        outside.write_text((chain / "checkpoints").read_text())
        # Nothing but a checkpoint from elsewhere tells of the newest.
        is_last = chain == gone[-1]
        for more, code in (([], 0 if is_last else 1), (["--checkpoint", outside], 1)):
            ours, theirs = run("verify", "--dir", one, "--json", *more), independent("--dir", one, "--json", *more)
            assert (ours.returncode, theirs.returncode) == (code, code), (chain, ours.stdout, theirs.stdout)
            if code:
                places = [{(f["chain"], f["seq"]) for f in json.loads(done.stdout)["faults"]} for done in (ours, theirs)]
                assert places[0] & places[1], places
