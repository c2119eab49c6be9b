"""The live API held against the OpenAPI document that it gives out itself, by schemathesis: with what the document allows, with what it
does not, without the token, and operation after operation."""

import subprocess
import urllib.request

from stack.process import TOOLS
from test_grants import keygen

OPERATIONS = 6


def test_the_api_does_what_its_document_says(gateway, tokens, tmp_path):
    # One role each would do as well: every status that the document names is an answer, and nothing else is.
    grants = {"issuer": "https://gateway.example", "keys": [keygen(tmp_path / "grants.key")],
              "rules": [{"name": "all", "when": "true", "connections": ["openai"]}]}
    running = gateway(access={"auditor": ["sre"], "approver": ["sre"], "admin": ["sre"]}, approvals={}, grants=grants).countersign
    base, authorization = f"http://{running.http}", f"Bearer {tokens('sre-app')}"
    # From a file, because an operation that gives out the document it is read from is otherwise left out.
    document = running.work / "openapi.json"
    request = urllib.request.Request(f"{base}/api/v1/openapi.json", headers={"authorization": authorization})
    with urllib.request.urlopen(request, timeout=10) as answer:
        document.write_bytes(answer.read())
    config = running.work / "schemathesis.toml"
    config.write_text("[generation]\nmax-examples = 40\ndeterministic = true\n")
    # `use_after_free` would have what was deleted gone; a cancelled approval is still there to be looked at, by design.
    done = subprocess.run(
        [TOOLS / "venv/bin/schemathesis", "--config-file", config, "run", document, "--url", base,
         "--header", f"Authorization: {authorization}", "--checks", "all",
         "--exclude-checks", "use_after_free", "--no-color"],
        cwd=running.work, capture_output=True, text=True, timeout=170, stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert f"{OPERATIONS} selected / {OPERATIONS} total" in done.stdout, done.stdout[-4000:]
