"""docs/nist.md: every query on the page is run, on a log of real requests, and shows what its control's text says."""

import os
import re
import shutil
import subprocess

import pytest
from stack import ROOT, Gateway, Upstream, config, wait_until
from stack.caller import call, prompt
from stack.countersign import binary, run
from stack.upstream import chat

PAGE = (ROOT / "docs/nist.md").read_text()

# The controls of the evidence that Countersign gives, and what the query of each must show on the log below.
SHOWS = {
    "AU-2": ["opened", "refused", "config", "genesis", "unauthenticated", "erased"],
    "AU-3": ['"what":"chat_completions"', '"outcome":"deny"', '"source":"127.0.0.1', '"status":403'],
    "AU-3(1)": ['"found":{"US_SSN":1}', '"masked":{"US_SSN":"replace"}', '"systemFingerprint":"fp_1"'],
    "AU-5": ["countersign_ledger_writable", '"previousClean":true'],
    "AU-6": ["policy_denied", '"kind":"session"'],
    "AU-8": ["Z\t"],
    "AU-9": ['"verdict": "whole"'],
    "AU-9(3)": ["proven:"],
    "AU-11": ["from 20", "true"],
    "AU-12": ["sessions without an end: 0"],
    "AC-2": ["openai\t"],
    "AC-3": ['"verdict":"allow"', '"code":"policy_denied"', '"code":"no_policy_allows"'],
    "AC-3(2)": None,
    "AC-6": ["finance\tgpt-4o-mini\topenai", '"exemptFrom":["mask-personal"]'],
    "AC-6(9)": ['"accepted":true', '"accepted":false', '"started"', '"stopped":true', '"erased"'],
    "AC-17": ['"auth":"oidc_jwt"', '"via":"model"'],
    "SC-7": ["allow\t", "deny\t", "token_missing"],
    "SC-8": ["in force:"],
    "SC-13": ['"verdict": "whole"', '"keys":["'],
    "SI-7": ["0.1.0"],
    "CA-7": ["countersign_refusals_total", "policy_denied"],
    "IR-4": ['"US_SSN":1'],
    "IR-5": ["refused policy_denied"],
}
CONTROLS = {
    heading.split()[0]: (heading, body)
    for heading, body in re.findall(r"^### (.+?)\n(.*?)(?=^##|\Z)", PAGE, re.M | re.S)
}


@pytest.fixture(scope="module")
def evidence(oidc, tokens, tmp_path_factory):
    """The variables of the page, for a gateway that runs, was started twice, refused some and erased something."""
    if not (shutil.which("jq") and shutil.which("curl")):
        pytest.skip("the page's queries need jq and curl")
    work = tmp_path_factory.mktemp("nist")
    assert run("keygen", "auditor", "--out", work / "lena.key").returncode == 0
    kept = work / "witness"
    usual = config(oidc.issuer, work, audit={"checkpoint_file": str(kept)}, sealing={"auditors": [str(work / "lena.key.pub")]})
    connection = usual["connections"][0]
    usual["connections"] = [{**connection, "name": "sealed", "match": {"path_prefix": "/sealed/v1"}, "payload": "sealed"}, connection]
    with Upstream(chat("Her number is 536-22-8145.")) as upstream, Gateway(work, usual, upstream.port) as gateway:
        url, filter_service = gateway.envoy.url, gateway.countersign
        assert call(url, tokens(), prompt("mine is 536-22-8145")).status == 200
        filter_service.stop()
        filter_service.start()
        sealed = call(url, tokens(), prompt("hello"), path="/sealed/v1/chat/completions").session
        for client in ("alice-app", "carol-app"):
            assert call(url, tokens(client), prompt("and 536-22-8145")).status == 200
        assert call(url, tokens("bob-app"), prompt("let me in")).status == 403
        assert call(url, tokens(), prompt("hi", model="gpt-huge")).status == 403
        assert call(url, None, prompt("hi")).status == 401
        assert run("erase", sealed, "--dir", filter_service.audit, "--reason", "asked for").returncode == 0
        good = filter_service.file.read_text()
        filter_service.file.write_text("identity: nobody\n")
        wait_until("it is refused", lambda: any("config" in r and not r["config"]["accepted"] for r in filter_service.records()), 40)
        filter_service.file.write_text(good)
        wait_until("the good one is back", lambda: [r for r in filter_service.records() if "config" in r][-1]["config"]["accepted"], 40)
        wait_until("strangers are counted", lambda: any("unauthenticated" in r for r in filter_service.records()), 40)
        yield {
            "DIR": str(filter_service.audit), "KEPT": str(kept), "TRUST": str(filter_service.audit / "signing.key.pub"),
            "CONFIG": str(filter_service.file), "HTTP": filter_service.http,
        }


def test_the_page_has_every_control_and_says_of_each_what_it_does_not_show():
    assert set(CONTROLS) == set(SHOWS)
    for name, (heading, body) in CONTROLS.items():
        assert ("Not shown:" in body and "```sh" in body) == (SHOWS[name] is not None), name
    for word in ("satisf", "complian", "immutable", "FIPS", "AU-10 is"):
        assert word not in PAGE, word


@pytest.mark.parametrize("control", [name for name, shows in SHOWS.items() if shows])
def test_the_query_shows_it(evidence, control):
    _, body = CONTROLS[control]
    shown = ""
    for query in re.findall(r"```sh\n(.*?)```", body, re.S):
        path = f"{binary().parent}:{os.environ['PATH']}"
        done = subprocess.run(["bash", "-euo", "pipefail", "-c", query], env={**os.environ, **evidence, "PATH": path},
                              capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, (query, done)
        shown += done.stdout
    for part in SHOWS[control]:
        assert part in shown, (control, part, shown)
