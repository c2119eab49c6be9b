"""The OpenID provider (npm oidc-provider, certified) that issues the callers' tokens."""

from __future__ import annotations

import base64
import html
import json
import re
import time
import urllib.parse
import urllib.request
from pathlib import Path

from .process import TOOLS, Process

AUDIENCE = "urn:ai-gateway"

CLIENTS = {
    "alice-app": {"groups": ["finance"], "department": "fin"},
    "bob-app": {"groups": ["interns"]},
    "carol-app": {"groups": ["finance", "fraud"]},
    "sre-app": {"groups": ["sre"]},
    "nobody-app": {},
    "gateway": {},  # asks about opaque tokens
}


class OidcProvider(Process):
    """`token(client)` is an access token as a program of that name would get it.

    The port and the keys survive `stop` and `start`, so that an outage can be tested.
    """

    name = "oidc"

    def __init__(self, work, clients: dict[str, dict] = CLIENTS, ttl: int = 300, audience: str = AUDIENCE, name: str = "oidc"):
        self.name = name
        super().__init__(work)
        self.clients, self.ttl, self.audience = clients, ttl, audience
        self.port = 0
        self.issuer = ""

    def command(self):
        return ["node", "--input-type=module", "-"]

    def directory(self):
        return TOOLS / "node"

    def stdin(self):
        return open(Path(__file__).with_name("oidc.mjs"), "rb")

    def environment(self):
        return {
            "PORT": str(self.port),
            "KEYS": str((self.work / f"{self.name}-keys.json").resolve()),
            "CLIENTS": json.dumps(self.clients),
            "AUDIENCE": self.audience,
            "TTL": str(self.ttl),
        }

    def is_ready(self):
        said = re.search(r"^ready (http://127\.0\.0\.1:(\d+))$", self.log_text(), re.MULTILINE)
        if said:
            self.issuer, self.port = said[1], int(said[2])
        return said

    def token(self, client: str = "alice-app", resource: str | None = None, proof: str | None = None) -> str:
        """With a DPoP proof for `{issuer}/token`, the token is bound to its key."""
        form = {"grant_type": "client_credentials", "scope": "chat"}
        if resource:
            form["resource"] = resource
        headers = {**self._as(client), **({"dpop": proof} if proof else {})}
        return json.loads(self._post("/token", form, headers))["access_token"]

    def opaque_token(self, client: str = "alice-app", audience: str | None = None, **more) -> str:
        """A token that says nothing itself."""
        return self.token(client, f"{audience or self.audience}:opaque", **more)

    def revoke(self, token: str, client: str = "alice-app"):
        self._post("/token/revocation", {"token": token}, self._as(client))

    def rotate(self, keep: bool = True, alg: str = "RS256") -> str:
        """Signs with a new key from now on; the old ones stay published unless `keep` is false."""
        return self._post(f"/control/rotate?keep={str(keep).lower()}&alg={alg}").decode()

    def set_ttl(self, seconds: int):
        """How long the tokens issued from now on are valid."""
        self.ttl = seconds
        self._post(f"/control/ttl?seconds={seconds}")

    def sign(self, header: dict | None = None, stolen: bool = True, **changed) -> str:
        """alice's token with claims changed (`None` leaves one out), signed with the provider's key or, not `stolen`, with another under its name."""
        now = int(time.time())
        said = {"iss": self.issuer, "sub": "alice-app", "aud": self.audience, "iat": now, "exp": now + 300, "groups": ["finance"], **changed}
        wanted = {"header": header or {}, "claims": {k: v for k, v in said.items() if v is not None}, "stolen": stolen}
        return self._post("/control/sign", json.dumps(wanted).encode()).decode()

    def sign_in(self, address: str, who: str, agrees: bool = True) -> str:
        """Fills in the provider's pages from `address` on as a person with a browser would, and returns the last one's text; `sam+security` is sam
        of that group."""
        browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
        page = browser.open(address, timeout=10)
        for _ in range(8):
            text = page.read().decode()
            form = re.search(r"<form[^>]*>.*?</form>", text, re.DOTALL)
            if not form:
                return text
            fields = {}
            for field in re.findall(r"<input[^>]*>", form[0]):
                said = dict(re.findall(r'(\w+)="([^"]*)"', field))
                if "name" in said:
                    fields[said["name"]] = html.unescape(said.get("value", ""))
            action = re.search(r'action="([^"]*)"', form[0])
            target = urllib.parse.urljoin(page.url, html.unescape(action[1]) if action else "")
            if fields.get("prompt") == "login":
                fields |= {"login": who, "password": "any"}
            elif "prompt" not in fields:
                fields["confirm"] = "yes"  # the code is the one that the terminal shows
            elif not agrees:
                return browser.open(f"{target}/abort", timeout=10).read().decode()
            page = browser.open(target, urllib.parse.urlencode(fields).encode(), timeout=10)
        raise AssertionError(f"the pages of {address} have no end")

    def _as(self, client: str) -> dict[str, str]:
        return {"authorization": "Basic " + base64.b64encode(f"{client}:s3cret".encode()).decode()}

    def _post(self, path: str, form: dict | bytes | None = None, headers: dict | None = None) -> bytes:
        data = form if isinstance(form, bytes) else urllib.parse.urlencode(form or {}).encode()
        request = urllib.request.Request(self.issuer + path, data, headers or {}, method="POST")
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.read()


def claims(token: str) -> dict:
    """The claims of a JWT, not verified."""
    payload = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
