"""`countersign mask` and `countersign detect`: what the gateway would do, on standard input and output."""

import json
import os
import subprocess

import pytest
import yaml
from stack.countersign import binary, run

SSN, CARD, MAIL = "536-22-8145", "4111 1111 1111 1111", "ada@example.com"
TEXT = f"Ada ({MAIL}) pays with {CARD}; her number is {SSN}. Grüße, 你好 😀\n"
MASKED = "Ada ([EMAIL_ADDRESS]) pays with [CREDIT_CARD]; her number is [US_SSN]. Grüße, 你好 😀\n"
REQUEST = json.dumps({"model": "m", "messages": [{"role": "user", "content": TEXT}]}, ensure_ascii=False)
CHUNKS = "".join("data: " + json.dumps({"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {"content": TEXT[i : i + 4]}}]}) + "\n\n"
                 for i in range(0, len(TEXT), 4)) + "data: [DONE]\n\n"


def text_of(stream):
    events = [json.loads(line[6:]) for line in stream.splitlines() if line.startswith("data: {")]
    return "".join(event["choices"][0]["delta"]["content"] for event in events)


@pytest.mark.parametrize("chunk", [None, 1, 2, 3, 7, 1000])
def test_the_output_is_the_same_however_the_input_is_cut(chunk):
    cut = ["--chunk", chunk] if chunk else []
    assert run("mask", *cut, input=TEXT).stdout == MASKED
    body = run("mask", "--dialect", "openai", *cut, input=REQUEST).stdout
    assert json.loads(body)["messages"][0]["content"] == MASKED
    stream = run("mask", "--dialect", "openai", *cut, input=CHUNKS).stdout
    assert text_of(stream) == MASKED and stream.endswith("data: [DONE]\n\n")


def test_detect_counts_characters():
    lines = json.dumps({"id": "a", "text": TEXT}) + "\n" + json.dumps({"id": 2, "text": "nothing here"}) + "\n"
    found = [json.loads(line) for line in run("detect", input=lines).stdout.splitlines()]
    assert [f["id"] for f in found] == ["a", 2] and found[1]["findings"] == []
    assert [(f["entity"], TEXT[f["start"] : f["end"]]) for f in found[0]["findings"]] == [
        ("EMAIL_ADDRESS", MAIL), ("CREDIT_CARD", CARD), ("US_SSN", SSN)]


def test_one_entity_and_another_operator(tmp_path):
    assert run("mask", "--entity", "US_SSN", "--operator", "keep-last4", input=TEXT).stdout == TEXT.replace(SSN, "***-**-8145")
    unknown = run("mask", "--entity", "US_SNS", input=TEXT)
    assert unknown.returncode == 2 and "US_SNS" in unknown.stderr and unknown.stdout == ""
    assert run("keygen", "masking", "--out", tmp_path / "key").returncode == 0
    tokens = run("mask", "--operator", "tokenize", "--key-file", tmp_path / "key", input=TEXT).stdout
    assert SSN not in tokens and run("unmask", "--key-file", tmp_path / "key", input=tokens).stdout == TEXT
    keyless = run("mask", "--operator", "hash", input=TEXT)
    assert keyless.returncode == 2 and "--key-file" in keyless.stderr


def test_a_configurations_own_detectors_look_too(tmp_path, oidc):
    from stack.config import config

    file = tmp_path / "countersign.yaml"
    file.write_text(yaml.safe_dump({**config(oidc.issuer, tmp_path), "audit": {"dir": str(tmp_path / "audit")}}))
    assert run("mask", "--config", file, input="I am EMP-123456.").stdout == "I am [EMPLOYEE_ID]."


def test_a_configurations_fields_are_masked_whole(tmp_path, oidc):
    from stack.config import config

    usual = config(oidc.issuer, tmp_path)
    usual["detectors"] += [{"entity": "CUSTOMER_ID", "json_path": "$..customer['id']"}, {"entity": "NOTE", "json_path": "$.note"}]
    file = tmp_path / "countersign.yaml"
    file.write_text(yaml.safe_dump({**usual, "audit": {"dir": str(tmp_path / "audit")}}))
    body = {"customer": {"id": {"a": 1}}, "note": "x", "ssn": "536228145", "n": "536228145"}
    masked = json.loads(run("mask", "--dialect", "json", "--config", file, input=json.dumps(body)).stdout)
    assert masked == {"customer": {"id": "[CUSTOMER_ID]"}, "note": "[NOTE]", "ssn": "[US_SSN]", "n": "536228145"}
    one = run("mask", "--dialect", "json", "--config", file, "--entity", "NOTE", input=json.dumps(body)).stdout
    assert json.loads(one) == {**body, "note": "[NOTE]"}
    usual["detectors"][-1]["json_path"] = "$.rows[?@.x > 1]"
    file.write_text(yaml.safe_dump({**usual, "audit": {"dir": str(tmp_path / "audit")}}))
    checked = run("check", "--config", file)
    assert checked.returncode != 0 and "detectors[2].json_path: filters are not supported, at character 8" in checked.stderr + checked.stdout


@pytest.mark.parametrize("arguments, said", [
    (["--dialect", "openai"], "shape"),
    (["--dialect", "opnai"], "there are"),
    (["--dialect", "openai", "--endpoint", "chat"], "there are"),
    (["--chunk", "0"], "--chunk"),
])
def test_what_cannot_be_masked_is_refused_and_not_shown(arguments, said):
    done = run("mask", *arguments, input=json.dumps({"odd": SSN}))
    assert done.returncode == 2 and SSN not in done.stdout + done.stderr and said in done.stderr, done


def test_a_reader_that_goes_away_ends_it_quietly():
    with subprocess.Popen([binary(), "mask"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        running.stdout.close()
        try:
            running.stdin.write(TEXT.encode() * 20_000)
            running.stdin.close()
        except BrokenPipeError:
            pass
        assert b"panicked" not in running.stderr.read()
        assert running.wait(20) != 0


def peak(arguments, piece: bytes, times: int) -> int:
    """Peak memory in KiB of the program on `times` copies of `piece`; its output is counted and thrown away."""
    with subprocess.Popen([binary(), *arguments], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as running:
        for _ in range(times):
            running.stdin.write(piece)
        running.stdin.close()
        _, status, used = os.wait4(running.pid, 0)
        running.returncode = os.waitstatus_to_exitcode(status)
    assert running.returncode == 0
    return used.ru_maxrss


@pytest.mark.parametrize("arguments, piece", [
    (["mask"], TEXT.encode() * 500),
    (["mask", "--dialect", "openai"], CHUNKS.removesuffix("data: [DONE]\n\n").encode() * 20),
    (["detect"], (json.dumps({"id": 1, "text": TEXT}) + "\n").encode() * 500),
])
def test_memory_stays_flat_however_long_the_input_is(arguments, piece):
    short, long = peak(arguments, piece, 15), peak(arguments, piece, 300)
    assert long < short + 8 * 1024, f"{short} KiB for 1, {long} KiB for 20 times as much"
