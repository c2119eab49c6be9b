"""A walk through Countersign with real parts: what a caller sends, what the model sees, what the record says."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import openai

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from stack import UPSTREAM_KEY, Failed, Gateway, OidcProvider, RealModel, Upstream, broker, config, wait_until  # noqa: E402
from stack.countersign import run as countersign  # noqa: E402
from stack.model import says  # noqa: E402
from stack.upstream import chat, relay  # noqa: E402

CARD = "4111 1111 1111 1111"
SSN = "536-22-8145"
PROMPT = f"Please charge the card {CARD} for Ada."
ANSWER = f"Done. Ada's social security number is {SSN}, as you know."
TOPIC = "countersign.audit.v1"
CHECKPOINTS = "countersign.checkpoints.v1"

COLOUR = sys.stdout.isatty()


def paint(code: str, text: str) -> str:
    return f"\033[{code}m{text}\033[0m" if COLOUR else text


class Walk:
    """Prints the steps and remembers whether each showed what it promises."""

    def __init__(self):
        self.step_number = 0
        self.broken: list[str] = []

    def step(self, title: str, why: str = ""):
        self.step_number += 1
        print(f"\n{paint('1', f'{self.step_number}. {title}')}")
        if why:
            print(textwrap.indent(textwrap.fill(why, 100), "   "))

    def show(self, label: str, value: str):
        indent = "\n" + " " * 24
        lines = [part for line in value.splitlines() for part in textwrap.wrap(line, 110, break_on_hyphens=False)]
        print(f"   {paint('2', f'{label:<20}')} {indent.join(lines)}")

    def expect(self, holds: object, what: str):
        print(f"   {paint('32', 'ok ') if holds else paint('31;1', 'NOT')} {what}")
        if not holds:
            self.broken.append(f"step {self.step_number}: {what}")


def shown(path: Path) -> Path:
    return path.relative_to(ROOT) if path.is_relative_to(ROOT) else path


def starting(what: str):
    print(f"   {paint('2', 'starting')} {what}", flush=True)


def refused(client: openai.OpenAI, **request):
    """Status, code and text of a refusal, as the official SDK raises it; None when nothing was refused."""
    try:
        client.chat.completions.create(**request)
    except openai.APIStatusError as error:
        return error.status_code, error.code, (error.body or {}).get("message", error.message)
    return None


def prompt(text: str, model: str = "gpt-4o-mini", **more) -> dict:
    return {"model": model, "messages": [{"role": "user", "content": text}], **more}


def walk_requests(walk: Walk, gateway: Gateway, oidc: OidcProvider, model: Upstream):
    walk.step("A call without a token", "The SDK only got another base URL. Countersign asks who is calling before anything else.")
    said = refused(gateway.openai("unused"), **prompt("Hello", extra_headers={"Authorization": openai.Omit()}))
    walk.show("came back", f"{said[0]} {said[1]}: {said[2]}" if said else "an answer")
    walk.expect(said and said[0] == 401, "401, an error that the SDK understands")
    walk.expect(not model.requests, "the model saw nothing")

    walk.step("A call by someone who may not", "bob-app's token is genuine, but its group is `interns`.")
    said = refused(gateway.openai(oidc.token("bob-app")), **prompt("Hello"))
    walk.show("came back", f"{said[0]} {said[1]}: {said[2]}" if said else "an answer")
    walk.expect(said and said[0] == 403, "403, with the reason that the policy gives")
    walk.expect(not model.requests, "the model saw nothing")

    walk.step("A prompt with a card number, a streamed answer with a social security number",
              "alice-app is in `finance` and may use this model. Personal data is masked both ways, "
              "also where the answer brings it in pieces.")
    walk.show("alice sends", PROMPT)
    stream = gateway.openai(oidc.token("alice-app")).chat.completions.create(**prompt(PROMPT, stream=True))
    pieces = [event.choices[0].delta.content for event in stream if event.choices and event.choices[0].delta.content]
    seen = model.last
    walk.show("the model read", seen.json["messages"][0]["content"])
    walk.show("its credential", "the lent one" if seen.header("authorization") == f"Bearer {UPSTREAM_KEY}" else "another")
    walk.show("the model said", ANSWER)
    walk.show("alice received", paint("2", "|").join(pieces))
    walk.expect(CARD not in seen.body.decode() and "[CREDIT_CARD]" in seen.body.decode(), "the card number never reached the model")
    walk.expect(seen.header("authorization") == f"Bearer {UPSTREAM_KEY}", "the model got the lent credential, not alice's token")
    walk.expect("".join(pieces) == ANSWER.replace(SSN, "[US_SSN]"), "the social security number never reached alice, the rest is untouched")
    walk.expect(len(pieces) > 3, f"the answer came token by token, in {len(pieces)} pieces")


def walk_approval(walk: Walk, gateway: Gateway, oidc: OidcProvider, model: Upstream):
    walk.step("A request that somebody must countersign",
              "A social security number in a prompt needs somebody of `security`. The request waits; the caller's SDK waits with it.")
    url = f"http://{gateway.countersign.http}"
    now = int(time.time())
    tokens = {who: oidc.sign(sub=who, groups=groups, auth_time=now)
              for who, groups in {"alice-app": ["finance", "security"], "sam": ["security"]}.items()}

    def approvals(who: str, *arguments):
        return countersign("approvals", *arguments, "--url", url, env={**os.environ, "COUNTERSIGN_TOKEN": tokens[who]})

    before = len(model.requests)
    asked = prompt(f"Is {SSN} a valid number?")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(lambda: gateway.openai(tokens["alice-app"], timeout=60).chat.completions.create(**asked))
        listed = wait_until("it is pending", lambda: approvals("sam", "list", "--json").stdout.splitlines())
        approval = json.loads(listed[0])["id"]
        walk.show("sam looks at it", approvals("sam", "show", approval).stdout)
        walk.expect(len(model.requests) == before, "the model saw nothing yet")
        done = approvals("alice-app", "approve", approval, "--yes")
        walk.show("alice approves it", (done.stdout + done.stderr).strip())
        walk.expect(done.returncode != 0 and not waiting.done(), "refused: nobody approves their own request, whatever their groups")
        done = approvals("sam", "approve", approval, "--yes", "--reason", "a made-up number")
        walk.show("sam approves it", (done.stdout + done.stderr).strip())
        answer = waiting.result(60)
        walk.expect(done.returncode == 0 and answer.choices, "released, and answered")
    walk.expect("[US_SSN]" in model.last.body.decode(), "what the model read is what was approved: masked")
    with ThreadPoolExecutor(1) as pool:
        changed = prompt(f"Is {SSN} a valid number!")
        waiting = pool.submit(refused, gateway.openai(tokens["alice-app"], timeout=60, default_headers={"prefer": "wait=1"}), **changed)
        said = waiting.result(60)
    walk.show("one byte changed", f"{said[0]} {said[1]}: {said[2]}" if said else "an answer")
    walk.expect(said and said[1] == "approval_required", "another byte is another request: it needs an approval of its own")


def walk_records(walk: Walk, gateway: Gateway, work: Path, outside: Path):
    audit = gateway.countersign.audit
    walk.step("The record", "Written by the gateway, on disk before the request went on and before the answer ended.")

    def on_record():
        text = json.dumps(gateway.countersign.records())
        return text if "[US_SSN]" in text else None

    text = wait_until("the masked answer is on record", on_record)
    for line in countersign("tail", "--dir", audit).stdout.splitlines()[-4:]:
        walk.show("tail", line)
    walk.expect("[CREDIT_CARD]" in text and "[US_SSN]" in text, "it shows the masked prompt and the masked answer")
    walk.expect(not any(s in text for s in [CARD, SSN, UPSTREAM_KEY]), "it holds neither number, nor the credential")

    walk.step("Is it whole?", "Anyone can check the chain. Against a checkpoint that somebody else keeps, nobody can shorten it either.")
    done = gateway.countersign.verify()
    walk.show("verify", (done.stdout + done.stderr).strip())
    walk.expect(done.returncode == 0, "consistent")
    print("   waiting for a checkpoint: there is one every ten seconds …", flush=True)
    done = wait_until("a checkpoint covers the session", lambda: covered(gateway, outside), 30, every=0.5)
    walk.show("with a checkpoint", (done.stdout + done.stderr).strip())
    walk.expect(done.returncode == 0, "whole, as far as a checkpoint kept outside vouches for it")

    walk.step("What if someone changes one byte?", "In a copy of the ledger.")
    copy = work / "tampered"
    shutil.copytree(audit, copy)
    file, at = place_of(copy, b"[CREDIT_CARD]")
    if file:
        data = bytearray(file.read_bytes())
        data[at + 1] ^= 1
        file.write_bytes(data)
        walk.show("changed", f"one bit of `[CREDIT_CARD]`, at byte {at} of {file.name}")
    done = countersign("verify", "--dir", copy)
    walk.show("verify", (done.stdout + done.stderr).strip())
    walk.expect(file and done.returncode == 1, "found, and the record is named")


def covered(gateway: Gateway, outside: Path):
    """Takes the newest checkpoints outside; what verify says with them, once they vouch for every record or it finds a fault."""
    audit = gateway.countersign.audit
    newest = sorted(audit.glob("chains/*/checkpoints"))[-1:]
    if not newest or not newest[0].stat().st_size:
        return None
    shutil.copy(newest[0], outside)
    done = gateway.countersign.verify("--checkpoint", outside, "--trust", audit / "signing.key.pub")
    return done if done.returncode or ("whole" in done.stdout and "consistent" not in done.stdout) else None


def place_of(directory: Path, needle: bytes) -> tuple[Path | None, int]:
    """A file of the directory that holds these bytes, and where."""
    for file in sorted(directory.rglob("*")):
        if file.is_file() and (at := file.read_bytes().find(needle)) >= 0:
            return file, at
    return None, -1


def walk_topic(walk: Walk, gateway: Gateway, kafka):
    walk.step("The same records in Kafka", f"Consumed from `{TOPIC}` by another client.")
    count = len(gateway.countersign.records())
    messages = kafka.consume(TOPIC, count)
    for message in messages[:6]:
        headers = {name: value.decode() for name, value in message.headers() or []}
        walk.show(f"offset {message.offset()}", f"{headers.get('ce_type', '')} {message.value().decode()[:90]}…")
    walk.expect(len(messages) >= count, f"all {count} records are there")
    done = countersign("verify", "--brokers", kafka.address)
    walk.show("verify", (done.stdout + done.stderr).strip())
    walk.expect(done.returncode == 0, "the topic verifies like the directory")


def main() -> int:
    options = argparse.ArgumentParser(prog="./dev demo", description=__doc__)
    options.add_argument("--kafka", action="store_true", help="also start a Kafka broker and show the records in the topic")
    options.add_argument("--real-model", action="store_true", help="ask llama.cpp with a small real model instead of a stand-in")
    options.add_argument("--keep", action="store_true", help="leave everything running until Ctrl-C, with the addresses printed")
    options.add_argument("--dir", type=Path, help="a new directory for logs, configuration and ledger (.demo, emptied first)")
    options = options.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)

    work = options.dir.resolve() if options.dir else ROOT / ".demo"
    if not options.dir:
        shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    walk = Walk()
    with contextlib.ExitStack() as parts:
        print(paint("1", "Countersign, with real parts around it") + f"  (logs in {shown(work)}/)")
        starting("an OpenID provider")
        oidc = parts.enter_context(OidcProvider(work, ttl=3600))
        answer = chat(ANSWER, size=7, delay=0.03)
        if options.real_model:
            starting("a real model (llama.cpp, one thread)")
            real = parts.enter_context(RealModel(work))
            answer = relay(real.port, grammar=says(ANSWER))  # the grammar lets it say exactly this
        starting("a model server that shows us what reaches it")
        model = parts.enter_context(Upstream(answer))
        outside = work / "kept-outside" / "checkpoints"  # in life: on another machine
        outside.parent.mkdir()
        settings = config(oidc.issuer, work, audit={}, approvals={}, access={"approver": ["security"]})
        settings["policies"].insert(0, {"name": "ask-security", "when": '"US_SSN" in findings', "then": {"require_approval": {
            "approvers": [{"group": "security"}], "reasons": ["a social security number in the prompt"]}}})
        settings["connections"][0]["policies"].insert(0, "ask-security")
        if options.kafka:
            starting("a Kafka broker")
            kafka = parts.enter_context(broker(work))
            kafka.create_topic(TOPIC, partitions=3)
            kafka.create_topic(CHECKPOINTS)
            settings["audit"]["kafka"] = {"brokers": [kafka.address], "topic": TOPIC}
        starting("Countersign, and Envoy in front of it")
        gateway = parts.enter_context(Gateway(work, settings, model.port))

        walk_requests(walk, gateway, oidc, model)
        walk_approval(walk, gateway, oidc, model)
        walk_records(walk, gateway, work, outside)
        if options.kafka:
            walk_topic(walk, gateway, kafka)

        print()
        if walk.broken:
            print(paint("31;1", "Not everything was as it should be:"))
            print("\n".join(f"  {what}" for what in walk.broken))
        else:
            print(paint("32;1", f"All {walk.step_number} steps showed what they promise."))
        if options.keep:
            if options.real_model:
                model.answer = relay(real.port)  # from now on it says what it likes
            keep(gateway, oidc, work, kafka.address if options.kafka else None)
    return 1 if walk.broken else 0


def keep(gateway: Gateway, oidc: OidcProvider, work: Path, brokers: str | None):
    print(f"""
Still running, until Ctrl-C:
  the gateway        {gateway.url}
  Countersign        http://{gateway.countersign.http}   (/healthz /readyz /metrics)
  Envoy's admin page {gateway.envoy.admin}
  the issuer         {oidc.issuer}""" + (f"\n  Kafka              {brokers}" if brokers else "") + f"""
  a token            curl -s -u alice-app:s3cret -d 'grant_type=client_credentials&scope=chat' {oidc.issuer}/token
  configuration      {shown(gateway.countersign.file)}   (edit it: it is read again)
  the ledger         {shown(gateway.countersign.audit)}""", flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        threading.Event().wait()
    print("\nstopping")


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("\ninterrupted; everything is stopped", file=sys.stderr)
        sys.exit(130)
    except (Failed, subprocess.SubprocessError, OSError) as error:
        print(f"\nthe demo could not go on: {error}", file=sys.stderr)
        sys.exit(1)
