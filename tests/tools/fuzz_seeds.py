"""Inputs for the fuzz targets to begin with: transcripts, requests and examples of the tests, in fuzz/corpus/."""

import hashlib
import itertools
import json
import pathlib
import re

ROOT = pathlib.Path(__file__).resolve().parents[2]
DIALECTS = 8  # dialect::all()
ENDPOINTS = 4  # the most that one has
TYPES = 5  # of fuzz_targets/response.rs
SIGNED = 2  # of the three: refused answers are not read far

REQUESTS = [
    {"model": "m", "messages": [{"role": "user", "content": "card 4111 1111 1111 1111"},
                                {"role": "user", "content": [{"type": "text", "text": "a@b.co"}]},
                                {"role": "tool", "tool_call_id": "1", "content": "{\"ssn\":\"123-45-6789\"}"}]},
    {"model": "m", "max_tokens": 9, "system": "s", "messages": [
        {"role": "assistant", "content": [{"type": "tool_use", "id": "1", "name": "f", "input": {"a": "x@y.co"}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "1", "content": "10.0.0.1"}]}]},
    {"contents": [{"role": "user", "parts": [{"text": "ssn 123456789"}, {"functionResponse": {"name": "f", "response": {"a": 1}}}]}]},
    {"model": "m", "prompt": ["one", "123-45-6789"], "input": "text", "suffix": "x"},
    {"model": "m", "input": [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "a@b.co"}]},
                             {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{\"a\":\"a@b.co\"}"}]},
]


def keep(target: str, data: bytes) -> None:
    folder = ROOT / "fuzz/corpus" / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / hashlib.sha1(data).hexdigest()).write_bytes(data)


def main() -> None:
    texts = [re.split("^======== .*\n", path.read_text("utf-8"), flags=re.M)[1] for path in ROOT.glob("tests/transcripts/*/*.txt")]
    for where in itertools.product(range(DIALECTS), range(ENDPOINTS)):
        for kind, text in itertools.product(range(TYPES), texts):
            for signed in range(SIGNED):
                if len(text) < 6000:
                    keep("response", bytes([*where, TYPES * signed + kind, 5]) + text.encode())
        for request in REQUESTS:
            keep("request", bytes(where) + json.dumps(request).encode())
    examples = re.findall(r"^\| `[A-Z_]+`.*\| `([^|]*)` \|$", (ROOT / "docs/detectors.md").read_text("utf-8"), flags=re.M)
    for example in examples:
        keep("masker", b"\x05is " + example.encode() + b" \\n%20" + example.encode())


main()
