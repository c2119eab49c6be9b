"""The live API held against the OpenAPI document that it gives out itself, by schemathesis: with what the document allows, with what it
does not, and without the token."""

import subprocess

from stack.process import TOOLS

# By role of the token: an approver, who may ask for everything, and somebody without any role, who sees refusals only.
ACCESS = {"auditor": ["sre"], "approver": ["finance"], "admin": ["sre"]}


def test_the_api_does_what_its_document_says(gateway, tokens):
    running = gateway(access=ACCESS)
    base = f"http://{running.countersign.http}"
    config = running.countersign.work / "schemathesis.toml"
    # Deciding and cancelling are tried on approvals that are not there: a 404 is as documented as a 200.
    config.write_text('[output.sanitization]\nenabled = true\n\n[generation]\nmax-examples = 40\ndeterministic = true\n')
    done = subprocess.run(
        [TOOLS / "venv/bin/schemathesis", "--config-file", config, "run", f"{base}/api/v1/openapi.json", "--url", base,
         "--header", f"Authorization: Bearer {tokens('sre-app')}", "--checks", "all", "--no-color"],
        cwd=running.countersign.work, capture_output=True, text=True, timeout=170, stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    # Nothing was left out: it ran, and on every operation.
    assert "5 selected / 5 total" in done.stdout, done.stdout[-4000:]
