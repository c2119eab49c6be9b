"""Signing in from a terminal, with the certified provider's own pages: the device authorization grant (RFC 8628)."""

import os
import re
import subprocess

import pytest
from stack import Gateway, config, wait_until
from stack.countersign import binary, run
from stack.oidc import AUDIENCE, claims


@pytest.fixture
def gateway(tmp_path, oidc, upstream):
    usual = config(oidc.issuer, tmp_path)
    usual["approvals"] = {"public_url": "http://127.0.0.1:8480"}
    usual["access"] = {"approver": ["security"]}
    running = Gateway(tmp_path, usual, upstream.port).start()
    yield running
    running.stop()


@pytest.fixture
def home(tmp_path, gateway):
    """The environment of a person at a terminal."""
    away = ("COUNTERSIGN_TOKEN", "XDG_STATE_HOME")
    usual = {name: value for name, value in os.environ.items() if name not in away}
    return {**usual, "HOME": str(tmp_path), "XDG_STATE_HOME": str(tmp_path / "state"), "COUNTERSIGN_URL": f"http://{gateway.countersign.http}"}


def sign_in(oidc, home, work, who, agrees=True):
    """`approvals login`, and somebody who does what it says; how it ended, and what it said."""
    said = work / "login.log"
    command = [binary(), "approvals", "login", "--issuer", oidc.issuer, "--client-id", "terminal", "--resource", AUDIENCE, "--scope", "openid chat"]
    with open(said, "wb") as log:
        login = subprocess.Popen(command, env=home, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    try:
        address = wait_until("it says where to go", lambda: re.search(r"or to (\S+)", said.read_text()) or login.poll())
        assert not isinstance(address, int), said.read_text()
        oidc.sign_in(address[1], who, agrees)
        return login.wait(60), said.read_text()
    finally:
        login.kill()
        login.wait()


def test_who_signs_in_by_a_device_is_who_they_are_to_the_gateway(oidc, gateway, home, tmp_path):
    assert run("approvals", "list", env=home).returncode == 3, "nobody is signed in"
    code, said = sign_in(oidc, home, tmp_path, "sam+security")
    assert code == 0, said
    (kept,) = [file for file in (tmp_path / "state").rglob("*") if file.is_file()]
    assert kept.stat().st_mode & 0o077 == 0, "others can read the token"
    assert re.search(r"eyJ[\w-]+\.eyJ[\w-]+\.[\w-]+", kept.read_text()) and "eyJ" not in said
    token = re.search(r"eyJ[\w-]+\.eyJ[\w-]+\.[\w-]+", kept.read_text())[0]
    assert (claims(token)["sub"], claims(token)["aud"]) == ("sam+security", AUDIENCE)
    listed = run("approvals", "list", env=home)
    assert (listed.returncode, listed.stderr) == (0, "there are none\n"), listed
    # Somebody without the role is known, and may not.
    code, said = sign_in(oidc, home, tmp_path, "eve+finance")
    assert code == 0, said
    assert run("approvals", "list", env=home).returncode == 1


def test_who_does_not_agree_is_not_signed_in(oidc, gateway, home, tmp_path):
    code, said = sign_in(oidc, home, tmp_path, "sam+security", agrees=False)
    assert code != 0 and "refused" in said, said
    assert run("approvals", "list", env=home).returncode == 3
