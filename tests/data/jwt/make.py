"""Tokens that attack, and the few good ones beside them, each with the code it must be answered with.

    python make.py           writes the files beside this one
    python make.py --check   says which of them are not what this script makes, and fails if any is

Every key is fixed (two RSA keys in files, the rest derived from their names), every signature is deterministic and time stands
still, so the files come out the same byte for byte. They are test keys: never let anything trust them.

A file is `{"about", "cases": [{"case", "token", "expect", "rules"?, "keys"?}]}`. `token` is a text, or a list of texts and of
`{"repeat", "times"}` where it is long. `expect` is `ok` or the exact code of the refusal. `rules` and `keys` name an entry of
setting.json; without them it is `usual`.
"""

import base64
import hashlib
import hmac
import json
import sys
from pathlib import Path

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, utils

HERE = Path(__file__).parent
ISSUER = "https://login.example/realms/a"
AUDIENCE = "countersign"
NOW = 1_900_000_000
LARGEST = 16 * 1024


def b64(data) -> str:
    data = data.encode() if isinstance(data, str) else data
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def written(value) -> str:
    """JSON as most issuers write it. A text is taken for JSON already."""
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))


# --- keys -------------------------------------------------------------------------------------------


class Key:
    """A signing key. `sign` makes JWS's form of a signature (RFC 7518, 3)."""

    def __init__(self, kid, alg, private):
        self.kid, self.alg, self.private = kid, alg, private

    def public(self):
        return self.private.public_key()

    def jwk(self, **more) -> dict:
        public = self.public()
        if self.alg.startswith("ES"):
            point = self.point()
            half = len(point) // 2
            jwk = {"kty": "EC", "crv": "P-256" if half == 32 else "P-384", "x": b64(point[:half]), "y": b64(point[half:])}
        elif self.alg == "EdDSA":
            jwk = {"kty": "OKP", "crv": "Ed25519", "x": b64(self.raw())}
        else:
            numbers = public.public_numbers()
            jwk = {"kty": "RSA", "n": b64(numbers.n.to_bytes(256, "big")), "e": b64(numbers.e.to_bytes(3, "big"))}
        return {**jwk, "kid": self.kid, **more}

    def point(self) -> bytes:
        return self.public().public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)[1:]

    def raw(self) -> bytes:
        return self.public().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)

    def spki(self, encoding) -> bytes:
        return self.public().public_bytes(encoding, serialization.PublicFormat.SubjectPublicKeyInfo)

    def integers(self, message: bytes) -> tuple[int, int]:
        algorithm = hashes.SHA384() if self.alg == "ES384" else hashes.SHA256()
        return utils.decode_dss_signature(self.private.sign(message, ec.ECDSA(algorithm, deterministic_signing=True)))

    def sign(self, message: bytes, alg: str | None = None) -> bytes:
        alg = alg or self.alg
        if alg.startswith("ES"):
            size = 48 if self.alg == "ES384" else 32
            return b"".join(n.to_bytes(size, "big") for n in self.integers(message))
        if alg == "EdDSA":
            return self.private.sign(message)
        if alg.startswith("PS"):
            return self.pss(message)
        return self.private.sign(message, padding.PKCS1v15(), hashes.SHA256())

    def pss(self, message: bytes) -> bytes:
        """RSASSA-PSS with SHA-512 (RFC 8017, 8.1), by hand because its salt must be the same every time."""
        numbers, hashed = self.private.private_numbers(), hashlib.sha512
        salt = hashed(b"salt" + message).digest()
        inner = hashed(bytes(8) + hashed(message).digest() + salt).digest()
        block = b"\x01" + salt
        room = 256 - 64 - 1
        block = bytes(room - len(block)) + block
        mask = b"".join(hashed(inner + n.to_bytes(4, "big")).digest() for n in range(4))[:room]
        masked = bytearray(a ^ b for a, b in zip(block, mask))
        masked[0] &= 0x7F
        encoded = int.from_bytes(bytes(masked) + inner + b"\xbc", "big")
        return pow(encoded, numbers.d, numbers.public_numbers.n).to_bytes(256, "big")


def derived(kid, alg, curve=None) -> Key:
    seed = hashlib.sha384(f"countersign test key {kid}".encode()).digest()
    if curve:
        return Key(kid, alg, ec.derive_private_key(int.from_bytes(seed[: curve.key_size // 8], "big") >> 1, curve))
    return Key(kid, alg, ed25519.Ed25519PrivateKey.from_private_bytes(seed[:32]))


def loaded(kid, alg, name) -> Key:
    return Key(kid, alg, serialization.load_der_private_key((HERE / name).read_bytes(), None))


P256 = derived("p256-1", "ES256", ec.SECP256R1())
SECOND = derived("p256-2", "ES256", ec.SECP256R1())
P384 = derived("p384-1", "ES384", ec.SECP384R1())
ED = derived("ed-1", "EdDSA")
RSA = loaded("rsa-1", "RS256", "rsa.pk8")
RSA_OTHER = loaded("rsa-1", "RS256", "rsa-other.pk8")
PSS = Key("rsa-1", "PS512", RSA.private)

# --- tokens -----------------------------------------------------------------------------------------

GONE = object()


def changed(members: dict, changes: dict) -> dict:
    return {name: value for name, value in {**members, **changes}.items() if value is not GONE}


def header(key=P256, **changes) -> dict:
    return changed({"alg": key.alg, "kid": key.kid, "typ": "at+jwt"}, changes)


def claims(**changes) -> dict:
    usual = {"iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "exp": NOW + 600, "nbf": NOW - 10, "iat": NOW - 10}
    return changed(usual, changes)


def first(members: dict, member: str) -> str:
    """These members with one more before them, written as it is."""
    return "{" + member + "," + written(members)[1:]


def input_of(head=None, said=None) -> str:
    return f"{b64(written(head if head is not None else header()))}.{b64(written(said if said is not None else claims()))}"


def joined(signing_input: str, signature: bytes) -> str:
    return f"{signing_input}.{b64(signature)}"


def signed(head=None, said=None, key=P256) -> str:
    """Rightly signed, whatever header and claims say."""
    signing_input = input_of(head if head is not None else header(key), said)
    return joined(signing_input, key.sign(signing_input.encode()))


def headed(**changes) -> str:
    return signed(header(**changes))


def claiming(**changes) -> str:
    return signed(None, claims(**changes))


def shown(value) -> str:
    """A value as a case's name shows it: short, and printable whatever it is."""
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:48] + f"... ({len(text)})"


class Cases:
    def __init__(self, about):
        self.about, self.cases = about, []

    def add(self, case, token, expect, **setting):
        self.cases.append({"case": case, "token": token, "expect": expect, **setting})

    def each(self, case, values, make, expect, **setting):
        for value in values:
            self.add(f"{case} {shown(value)}", make(value), expect, **setting)


# --- the cases --------------------------------------------------------------------------------------


def algorithms() -> Cases:
    cases = Cases("Who chooses the algorithm: the operator and the key, never the token (RFC 8725, 3.1 and 3.2).")
    for key in (RSA, PSS, P256, P384, ED):
        cases.add(f"good {key.alg}", signed(key=key), "ok")
    nones = ["none", "None", "NONE", "nOnE", "noNE", "", " none", "none ", "none\t", "null", "n\0one", "n\u043ene", "none\u200b", "\u2010", "plain"]
    for alg in nones:
        body = input_of({"alg": alg, "kid": "p256-1", "typ": "at+jwt"})
        cases.add(f"unsigned, alg {shown(alg)}", f"{body}.", "token_algorithm_refused")
        cases.add(f"half a signature, alg {shown(alg)}", f"{body}.AA", "token_algorithm_refused")
        cases.add(f"a real signature, alg {shown(alg)}", signed({"alg": alg, "kid": "p256-1"}), "token_algorithm_refused")
    cases.add("unsigned without a key id", f"{input_of({'alg': 'none'})}.", "token_algorithm_refused")
    cases.each("alg of a wrong type", [None, 0, True, ["ES256"], {}, {"name": "none"}], lambda alg: headed(alg=alg), "token_invalid_header")
    cases.add("no alg", headed(alg=GONE), "token_invalid_header")
    near = ["es256", "Es256", "ES256 ", " ES256", "ES256\0", "ES256K", "ES512", "RS1", "RSA1_5", "RS256,ES256", "EdDSA ", "Ed448", "Ed25519",
            "A128KW", "dir", "ES256-R", "SHA256withECDSA", "ECDSA"]
    cases.each("nearly an algorithm", near, lambda alg: headed(alg=alg), "token_algorithm_refused")
    for key in (RSA, P256, ED):
        secrets = {
            "SPKI in PEM": key.spki(serialization.Encoding.PEM),
            "SPKI in PEM, no newline at its end": key.spki(serialization.Encoding.PEM).rstrip(b"\n"),
            "SPKI in DER": key.spki(serialization.Encoding.DER),
            "the JWK": written(key.jwk()).encode(),
            "the JWKS": written({"keys": [key.jwk()]}).encode(),
            "x or n in base64url": key.jwk().get("x", key.jwk().get("n")).encode(),
            "nothing": b"",
        }
        for alg, digest in (("HS256", "sha256"), ("HS384", "sha384"), ("HS512", "sha512")):
            for what, secret in secrets.items():
                body = input_of({"alg": alg, "kid": key.kid, "typ": "at+jwt"})
                tag = hmac.digest(secret, body.encode(), digest)
                cases.add(f"{alg} keyed with {what} of {key.kid}", joined(body, tag), "token_algorithm_refused")
    cases.add("a good key, an algorithm that is not pinned", signed(), "token_algorithm_refused", rules="only_rs256")
    cases.add("the algorithm that is pinned", signed(key=RSA), "ok", rules="only_rs256")
    cases.add("PSS by the same key where only RS256 is pinned", signed(key=PSS), "token_algorithm_refused", rules="only_rs256")
    cases.add("no algorithm is pinned", signed(), "token_algorithm_refused", rules="no_algorithms")
    for alg, kid in (("RS256", "p256-1"), ("ES256", "rsa-1"), ("ES256", "p384-1"), ("ES384", "p256-1"), ("EdDSA", "p256-1"), ("ES256", "ed-1"), ("PS512", "ed-1")):
        cases.add(f"{alg} with the key {kid}", headed(alg=alg, kid=kid), "key_mismatch")
    cases.add("PS512 with a key that says RS256", signed(key=PSS), "key_mismatch", keys="declared_rs256")
    cases.add("RS256 with a key that says RS256", signed(key=RSA), "ok", keys="declared_rs256")
    body = input_of(header(RSA, alg="PS512"))
    cases.add("PS512 over a PKCS #1 signature", joined(body, RSA.sign(body.encode())), "token_bad_signature")
    body = input_of(header(RSA))
    cases.add("RS256 over a PSS signature", joined(body, RSA.pss(body.encode())), "token_bad_signature")
    return cases


def signatures() -> Cases:
    cases = Cases("A signature must be the named key's over these very bytes, in the one form JWS has for it.")
    good = signed()
    head, payload, signature = good.split(".")
    raw = base64.urlsafe_b64decode(signature + "==")
    r, s = raw[:32], raw[32:]
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    body = f"{head}.{payload}"
    n, zero = order.to_bytes(32, "big"), bytes(32)

    def bad(case, token):
        cases.add(case, token, "token_bad_signature")

    bad("claims of another token", f"{head}.{claiming(sub='mallory').split('.')[1]}.{signature}")
    bad("header of another token", f"{headed(typ='JWT').split('.')[0]}.{payload}.{signature}")
    bad("signature of another token", f"{body}.{claiming(sub='bob').split('.')[2]}")
    bad("a stranger's RSA key under the issuer's id", signed(key=RSA_OTHER))
    bad("another key of the issuer under this id", signed(header(P256), key=SECOND))
    bad("none at all", f"{body}.")
    bad("one byte", joined(body, b"\0"))
    bad("DER, as X.509 writes it", joined(body, utils.encode_dss_signature(int.from_bytes(r, "big"), int.from_bytes(s, "big"))))
    bad("r and s zero (CVE-2022-21449)", joined(body, zero + zero))
    bad("r zero", joined(body, zero + s))
    bad("s zero", joined(body, r + zero))
    bad("r the order", joined(body, n + s))
    bad("s the order", joined(body, r + n))
    bad("r and s the order", joined(body, n + n))
    bad("r one, s one", joined(body, (1).to_bytes(32, "big") * 2))
    bad("all ones", joined(body, b"\xff" * 64))
    bad("r and s change places", joined(body, s + r))
    bad("a byte short", joined(body, raw[:-1]))
    bad("a byte long", joined(body, raw + b"\0"))
    bad("a zero before each half", joined(body, b"\0" + r + b"\0" + s))
    bad("twice", joined(body, raw + raw))
    bad("a bit flipped in r", joined(body, bytes([raw[0] ^ 1]) + raw[1:]))
    bad("a bit flipped in s", joined(body, raw[:-1] + bytes([raw[-1] ^ 1])))
    # ECDSA has two signatures to each; RFC 7518 does not choose. It is the same statement by the same key.
    mirrored = (order - int.from_bytes(s, "big")).to_bytes(32, "big")
    cases.add("the other of ECDSA's two signatures", joined(body, r + mirrored), "ok")

    body = input_of(header(ED))
    raw = ED.sign(body.encode())
    ed_order = 2**252 + 27742317777372353535851937790883648493
    more = (int.from_bytes(raw[32:], "little") + ed_order).to_bytes(32, "little")
    bad("Ed25519 with s plus the order", joined(body, raw[:32] + more))
    bad("Ed25519 with R of small order and s zero", joined(body, b"\1" + bytes(63)))
    bad("Ed25519 a byte short", joined(body, raw[:-1]))
    bad("Ed25519 a bit flipped", joined(body, bytes([raw[0] ^ 1]) + raw[1:]))
    bad("Ed25519 all zero", joined(body, bytes(64)))

    body = input_of(header(RSA))
    raw = RSA.sign(body.encode())
    modulus = RSA.public().public_numbers().n
    number = int.from_bytes(raw, "big")
    bad("RSA signature plus the modulus", joined(body, (number + modulus).to_bytes(257, "big")))
    bad("RSA signature with a zero before it", joined(body, b"\0" + raw))
    bad("RSA zero", joined(body, bytes(256)))
    bad("RSA one", joined(body, (1).to_bytes(256, "big")))
    bad("RSA the modulus", joined(body, modulus.to_bytes(256, "big")))
    bad("RSA minus the signature", joined(body, (modulus - number).to_bytes(256, "big")))
    bad("RSA over SHA-1", joined(body, RSA.private.sign(body.encode(), padding.PKCS1v15(), hashes.SHA1())))
    bad("RSA over SHA-512", joined(body, RSA.private.sign(body.encode(), padding.PKCS1v15(), hashes.SHA512())))
    info = bytes.fromhex("3031300d060960864801650304020105000420") + hashlib.sha256(body.encode()).digest()
    for case, block in {
        "RSA padding of zeroes": b"\0\1" + bytes(256 - 3 - len(info)) + b"\0" + info,
        "RSA padding of type 2": b"\0\2" + b"\xff" * (256 - 3 - len(info)) + b"\0" + info,
        "RSA with room left behind the hash (CVE-2006-4339)": (b"\0\1" + b"\xff" * 8 + b"\0" + info).ljust(256, b"\0"),
        "RSA without the algorithm's name": b"\0\1" + b"\xff" * (256 - 3 - 32) + b"\0" + info[-32:],
    }.items():
        forged = pow(int.from_bytes(block, "big"), RSA.private.private_numbers().d, modulus).to_bytes(256, "big")
        bad(case, joined(body, forged))
    return cases


def keys() -> Cases:
    cases = Cases("Key ids are compared and nothing else; no key is tried that was not named, and none that the token brings.")
    injections = ["../../../../dev/null", "/etc/passwd", "/proc/self/environ", "file:///dev/null", "' OR '1'='1", "x' UNION SELECT 'AA==", "p256-1\0", "P256-1",
                  "p256-1 ", " p256-1", "p256-1\n", "", "http://127.0.0.1/key", "p256\u20101", "\uff50256-1", "*", "%70256-1", "p256-1;id", "$(id)", "{{7*7}}",
                  "__proto__", "constructor", "0", "-1", "keys[0]"]
    cases.each("key id", injections, lambda kid: headed(kid=kid), "key_unknown")
    cases.add("a key id of 10,000 bytes", headed(kid="k" * 10_000), "key_unknown")
    cases.each("key id of a wrong type", [None, 1, True, ["p256-1"], {}, {"$ne": ""}], lambda kid: headed(kid=kid), "token_invalid_header")
    bare = headed(kid=GONE)
    cases.add("no key id, one key", bare, "ok", keys="p256")
    cases.add("no key id, one key that fits", bare, "ok")
    cases.add("no key id, two keys that fit", bare, "key_ambiguous", keys="p256_both")
    cases.add("no key id, no key that fits", bare, "key_unknown", keys="rsa")
    cases.add("two keys under one id", signed(), "key_ambiguous", keys="twins")
    cases.add("the second of two keys under one id", signed(header(P256), key=SECOND), "key_ambiguous", keys="twins")
    cases.add("no keys at all", signed(), "key_unknown", keys="none")
    cases.add("a key published for encryption", signed(), "key_unknown", keys="for_encryption")
    cases.add("a key published for signing only", signed(), "key_unknown", keys="for_signing")
    bait = SECOND.jwk()
    for name, value in {
        "jwk": bait,
        "jwk of the issuer's own id": {**bait, "kid": "p256-1"},
        "jku": "https://attacker.example/jwks.json",
        "jku of the issuer with a user": "https://login.example@attacker.example/jwks.json",
        "x5u": "https://attacker.example/chain.pem",
        "x5c": ["MIIBszCCAVmgAwIBAgIUAAAA"],
        "x5t": "AAAA",
        "x5t#S256": b64(bytes(32)),
        "url": "https://attacker.example",
    }.items():
        more = {name.split(" ")[0]: value}
        cases.add(f"{name} on a token that the issuer signed", signed({**header(), **more}), "ok")
        cases.add(f"{name} for a forged token under the issuer's id", signed({**header(), **more}, key=SECOND), "token_bad_signature")
        cases.add(f"{name} for a forged token under its own id", signed({**header(SECOND), **more}, key=SECOND), "key_unknown")
        cases.add(f"{name} for a forged token without an id", signed({**header(SECOND, kid=GONE), **more}, key=SECOND), "token_bad_signature")
    return cases


def headers() -> Cases:
    cases = Cases("What the header may demand: nothing. What it may say it is: an access token.")
    cases.each("crit", [["b64"], ["exp"], ["http://example.com/UNDEFINED"], [], "exp", {}, None, 0, ["alg"], ["exp", "exp"]],
               lambda crit: headed(crit=crit), "token_critical_extension")
    cases.each("b64", [False, True, None, 0, "false"], lambda b64: headed(b64=b64), "token_unencoded_payload")
    cases.add("b64 and crit", headed(b64=False, crit=["b64"]), "token_critical_extension")
    raw = written(claims())
    body = f"{b64(written(header(b64=False, crit=['b64'])))}.{b64(raw)}"
    detached = body.split(".")[0].encode() + b"." + raw.encode()
    cases.add("signed over the payload unencoded, as RFC 7797 would", joined(body, P256.sign(detached)), "token_critical_extension")
    good = ["at+jwt", "AT+JWT", "At+Jwt", "application/at+jwt", "Application/AT+JWT", "JWT", "jwt", "application/jwt"]
    cases.each("typ", good, lambda typ: headed(typ=typ), "ok")
    cases.add("no typ", headed(typ=GONE), "ok")
    other = ["", "JOSE", "JOSE+JSON", "logout+jwt", "dpop+jwt", "id+jwt", "secevent+jwt", "at+jwt ", " at+jwt", "at+jwt;v=1", "application/application/jwt",
             "application/", "text/at+jwt", "JWE", "kb+jwt", "dc+sd-jwt", "token-introspection+jwt", "oauth-authz-req+jwt", "openid-federation+jwt",
             "client-authentication+jwt", "entity-statement+jwt", "a\u0308t+jwt", "at\u200b+jwt"]
    cases.each("typ", other, lambda typ: headed(typ=typ), "token_wrong_type")
    cases.each("typ of a wrong type", [1, None, True, ["at+jwt"], {}], lambda typ: headed(typ=typ), "token_invalid_header")
    for name, value in {"zip": "DEF", "enc": "A256GCM", "cty": "JWT", "iss": "https://evil.example", "epk": {}, "p2c": 2**31 - 1, "nonce": "n"}.items():
        cases.add(f"{name}, which nobody asks for", signed({**header(), name: value}), "ok")
    inner = signed()
    cases.add("a token in a token", joined(f"{b64(written(header(cty='JWT')))}.{b64(inner)}", P256.sign(f"{b64(written(header(cty='JWT')))}.{b64(inner)}".encode())), "token_not_json")
    return cases


def duplicates() -> Cases:
    cases = Cases("A member named twice: two readers, two meanings. Refused wherever it stands, however it is spelt.")
    for member in ['"alg":"none"', '"alg":"ES256"', '"kid":"p256-1"', r'"\u006bid":"p256-1"', r'"\u0061lg":"none"', '"typ":"JWT"', '"x":{"a":1,"a":1}', '"crit":[],"crit":["b64"]']:
        cases.add(f"in the header: {member}", signed(first(header(), member)), "token_duplicate_member")
    for member in ['"sub":"mallory"', '"sub":"alice"', r'"s\u0075b":"mallory"', '"exp":99999999999', '"aud":"other"', '"iss":"https://other.example"', '"x":{"a":1,"a":2}',
                   '"x":[[{"b":0,"b":0}]]', '"groups":["admin"],"groups":[]', '"nbf":0', '"act":{"sub":"a","sub":"b"}', '"\\ud83d\\ude00":1,"\U0001f600":2', '"":1,"":2']:
        cases.add(f"in the claims: {member}", signed(None, first(claims(), member)), "token_duplicate_member")
    # Names differ where bytes differ: these are other claims, and nobody reads them.
    for member in ['"SUB":"mallory"', '"sub ":"mallory"', '"\\u0000sub":"mallory"', '"Aud":"x"', '"e\\u0301":1,"\\u00e9":2']:
        cases.add(f"nearly the same name in the claims: {member}", signed(None, first(claims(), member)), "ok")
    return cases


def form() -> Cases:
    cases = Cases("Not a token at all, told apart before any cryptography: segments, base64url, JSON, depth, size.")
    good = signed()
    head, payload, signature = good.split(".")

    def with_head(data):
        return f"{b64(data)}.{payload}.{signature}"

    def with_payload(data):
        return f"{head}.{b64(data)}.{signature}"

    for case, token in {
        "nothing": "", "one segment": head, "two segments": f"{head}.{payload}", "four segments, the last empty": f"{good}.",
        "four segments, the first empty": f".{good}", "five segments, as JWE has": f"{good}.AA.AA", "two tokens": f"{good}.{good}",
        "JSON serialization": written({"payload": payload, "protected": head, "signature": signature}),
        "general JSON serialization": written({"payload": payload, "signatures": [{"protected": head, "signature": signature}]}),
        "dots only": "....", "an opaque token": "2YotnFZFEjr1zCsicMWpAA", "a macaroon": "MDAxY2xvY2F0aW9uIA", "a key of a provider": "sk-proj-abc123",
    }.items():
        cases.add(case, token, "token_not_jws")
    for case, token in {
        "three empty segments": "..", "an empty header": f".{payload}.{signature}", "an empty payload, detached (RFC 7515, appendix F)": f"{head}..{signature}",
        "header null": with_head("null"), "header a list": with_head('[{"alg":"ES256"}]'), "header a text": with_head('"ES256"'), "header empty text": with_head(" "),
        "header in XML": with_head("<alg>ES256</alg>"), "claims a text": with_payload('"text"'), "claims a number": with_payload("1"), "claims twice": with_payload("{} {}"),
        "claims with something behind them": with_payload(written(claims()) + "}"), "claims with a comma too many": with_payload('{"iss":"a",}'),
        "claims with a comment": with_payload('{"iss":"a"/**/}'), "claims in single quotes": with_payload("{'iss':'a'}"), "claims with a bare name": with_payload('{iss:"a"}'),
        "claims cut off": with_payload('{"iss":"a"'), "a NUL behind the claims": with_payload('{"iss":"a"}\0'), "a control character in a text": with_payload('{"iss":"a\nb"}'),
        "half a surrogate": with_payload('{"iss":"\\ud800"}'), "surrogates the wrong way round": with_payload('{"iss":"\\udc00\\ud800"}'),
        "header not UTF-8": with_head(b'{"alg":"ES256\xff"}'), "claims not UTF-8": with_payload(b'{"iss":"\xc3\x28"}'), "claims in overlong UTF-8": with_payload(b'{"iss":"\xc0\xaf"}'),
        "claims with a surrogate in UTF-8": with_payload(b'{"iss":"\xed\xa0\x80"}'), "claims beyond Unicode": with_payload(b'{"iss":"\xf4\x90\x80\x80"}'),
        "claims in Latin-1": with_payload(b'{"iss":"\xe9"}'), "a byte order mark before the header": with_head(b'\xef\xbb\xbf{"alg":"ES256"}'),
        "claims in UTF-16": with_payload('{"iss":"a"}'.encode("utf-16")), "claims in CBOR": with_payload(bytes.fromhex("a1636973736161")),
        "claims compressed": with_payload(bytes.fromhex("789cab56ca2c2e56b2524a54aa05001a0e0404")),
    }.items():
        cases.add(case, token, "token_not_json")
    for case, token in {
        "a space before": f" {good}", "a space behind": f"{good} ", "a newline behind": f"{good}\n", "a NUL behind": f"{good}\0", "a space inside": f"{head}. {payload}.{signature}",
        "a newline inside": f"{head}.{payload[:8]}\n{payload[8:]}.{signature}", "padding on the header": f"{head}=.{payload}.{signature}",
        "padding on the payload": f"{head}.{payload}=.{signature}", "padding on the signature": f"{head}.{payload}.{signature}==",
        "the other alphabet in the signature": f"{head}.{payload}.+/{signature}", "the other alphabet in the payload": f"{head}.{payload[:-4]}+/+/.{signature}",
        "a letter outside ASCII": f"{head}.{payload}.\u00e9{signature}", "a full-width letter": f"{head}.{payload}.\uff21{signature}", "percent signs": f"{head}.{payload}.%41{signature}",
        "a question mark (Wycheproof 372)": f"{head[:-1]}?{head[-1]}.{payload}.{signature}", "bits left over in the signature": f"{head}.{payload}.AB",
        "one letter": f"{head}.{payload}.A", "five letters": f"{head}.{payload}.AAAAA", "bits left over in the header": f"{head[:-1]}{chr(ord(head[-1]) + 1)}.{payload}.{signature}",
        "a stray text": "a.b.c", "a colon": f"{head}:.{payload}.{signature}",
    }.items():
        cases.add(case, token, "token_not_base64url")
    deep = '{"a":' + "[" * 16 + "1" + "]" * 16 + "}"
    for case, token in {
        "claims one list too deep": with_payload(deep), "claims of objects that never close": with_payload('{"a":' * 2000), "claims of lists that never close": with_payload("[" * 9000),
        "a header of lists that never close": with_head("[" * 9000), "a header one list too deep": with_head('{"x":' + "[" * 16 + "]" * 16 + "}"),
        "depth through objects and lists in turns": with_payload('{"a":[' * 8 + '{"b":1}' + "]}" * 8),
    }.items():
        cases.add(case, token, "token_too_deep")
    cases.add("claims as deep as may be", signed(None, first(claims(), '"x":' + "[" * 15 + "]" * 15)), "ok")
    for case, token in {
        "a byte too large": [{"repeat": "a", "times": LARGEST + 1}],
        "a megabyte of one letter": [{"repeat": "a", "times": 1 << 20}],
        "a megabyte of dots": [{"repeat": ".", "times": 1 << 20}],
        "a megabyte of segments": [{"repeat": "a.", "times": 1 << 19}],
        "a megabyte of header": [{"repeat": "A", "times": 1 << 20}, f".{payload}.{signature}"],
        "a megabyte of claims": [f"{head}.", {"repeat": "A", "times": 1 << 20}, f".{signature}"],
        "a megabyte of signature": [good, {"repeat": "A", "times": 1 << 20}],
        "a megabyte of brackets, encoded": [f"{head}.", {"repeat": b64("[[["), "times": 1 << 18}, f".{signature}"],
        "a megabyte outside ASCII": [{"repeat": "\u00e9", "times": 1 << 19}],
    }.items():
        cases.add(case, token, "token_too_large")
    room = LARGEST - len(claiming(pad=""))
    largest = claiming(pad="x" * (room * 3 // 4))
    assert LARGEST - 8 < len(largest) <= LARGEST
    # Its claims are one letter over and over, so the middle is told by a rule.
    body, tail = largest.rsplit(".", 1)
    at = body.index("eHh4" * 100)
    times = (len(body) - at) // 4
    while not body[at:].startswith("eHh4" * times):
        times -= 1
    cases.add("as large as may be", [body[:at], {"repeat": "eHh4", "times": times}, f"{body[at + 4 * times:]}.{tail}"], "ok")
    return cases


def issuers() -> Cases:
    cases = Cases("The issuer, byte for byte: what looks the same to a person is another.")
    for issuer in ["https://login.example/realms/a/", "https://login.example/realms/A", "https://login.example/realms/b", "https://login.example/realms/", "https://login.example",
                   "http://login.example/realms/a", "HTTPS://login.example/realms/a", "https://LOGIN.example/realms/a", "https://login.example:443/realms/a",
                   "https://login.example/realms/a#", "https://login.example/realms/a?", "https://login.example/realms/./a", "https://login.example//realms/a",
                   "https://login.example/realms/%61", "https://login.example./realms/a", "https://user@login.example/realms/a", "https://login.example@evil.example/realms/a",
                   "https://login.ex\u0430mple/realms/a", "https://login.example/realms/\u0251", "https://login\u2024example/realms/a", "https://login\uff0eexample/realms/a",
                   "https://l\u043egin.example/realms/a", "https://login.ex\u00e4mple/realms/a", "https://xn--lgin-5qa.example/realms/a", "https://login.examp\u200ble/realms/a",
                   "https://login.example/realms/a\u0301", "https://login.example/realms/a\0", "https://login.example/realms/a\0b", "\u202ehttps://login.example/realms/a",
                   " https://login.example/realms/a", "https://login.example/realms/a ", "https://login.example/realms/a\n", "\ufeffhttps://login.example/realms/a",
                   "https:\\\\login.example\\realms\\a", "https://evil.example/?https://login.example/realms/a", "https://login.example.evil.example/realms/a", "", "*", "null", "evil"]:
        cases.add(f"issuer {shown(issuer)}", claiming(iss=issuer), "issuer_unknown")
    cases.each("issuer of a wrong type", [None, 1, True, [ISSUER], {}, {"url": ISSUER}], lambda iss: claiming(iss=iss), "issuer_missing")
    cases.add("no issuer", claiming(iss=GONE), "issuer_missing")
    cases.add("the same bytes, escaped", signed(None, written(claims()).replace('"https://', r'"\u0068ttps:\/\/')), "ok")
    return cases


def audiences() -> Cases:
    cases = Cases("The audience: mandatory, ours, and of the two forms that RFC 7519, 4.1.3 knows.")
    cases.each("audience", [AUDIENCE, [AUDIENCE], ["x", AUDIENCE], ["other"], "other", [AUDIENCE, AUDIENCE]], lambda aud: claiming(aud=aud), "ok")
    cases.add("no audience", claiming(aud=GONE), "audience_missing")
    wrong = ["", [], "Countersign", "countersign ", " countersign", "countersign\0", "countersig", "countersignx", "x,countersign", "countersign other", "*", "c\u043euntersign",
             "https://countersign", ["x", "countersignx"], [""], [AUDIENCE.upper()], ["x"] * 500]
    cases.each("audience", wrong, lambda aud: claiming(aud=aud), "audience_wrong")
    invalid = [None, 1, True, {}, {AUDIENCE: True}, [[AUDIENCE]], [AUDIENCE, 1], [None, AUDIENCE], [AUDIENCE, {}], 0]
    cases.each("audience", invalid, lambda aud: claiming(aud=aud), "audience_invalid")
    cases.add("the client's id instead (azp)", claiming(aud=GONE, azp=AUDIENCE), "audience_missing")
    cases.add("no audience is configured", signed(), "audience_wrong", rules="no_audience")
    cases.add("the configured audience is empty", signed(), "audience_wrong", rules="empty_audience")
    cases.add("both are empty", claiming(aud=""), "audience_wrong", rules="no_audience")
    return cases


def times() -> Cases:
    cases = Cases("Instants: numbers of seconds inside the calendar (RFC 7519, 2), with half a minute for clocks that differ.")

    def at(name, text, expect):
        said = claims(**{name: GONE})
        cases.add(f"{name}: {text}", signed(None, first(said, f'"{name}":{text}')), expect)

    for name, (past, future, invalid) in {"exp": ("token_expired", "ok", "exp_invalid"), "nbf": ("ok", "token_not_yet_valid", "nbf_invalid"),
                                          "iat": ("ok", "token_issued_in_future", "iat_invalid")}.items():
        for text in ["0", "0.5", "-0.0", "1", f"{NOW - 31}", f"{NOW - 30 - 0.1}", "1e3"]:
            at(name, text, past)
        for text in [f"{NOW + 31}", f"{NOW + 31}.0", f"{NOW + 600}", f"{NOW + 600}.5", "1.9000006e9", "253402207200"]:
            at(name, text, future)
        for text in ["-1", "-0.5", "-1e9", "1e300", "1e18", "253402207201", f"{NOW}000", "9223372036854775807", "9223372036854775808", "18446744073709551615",
                     "99999999999999999999999", f'"{NOW + 600}"', '""', '"never"', '"2030-03-17T17:46:40Z"', f"[{NOW + 600}]", "[]", "null", "true", "false", "{}"]:
            at(name, text, invalid)
        for text in ["1e400", "-1e400", "NaN", "Infinity", "-Infinity", "0x7fffffff", f"0{NOW}", f"+{NOW}", f"{NOW}.", ".5", "1_900_000_000", f"{NOW}s", "0b1"]:
            at(name, text, "token_not_json")
    at("exp", f"{NOW - 29}", "ok")
    at("exp", f"{NOW - 30}", "token_expired")
    at("exp", f"{NOW - 30}.9", "token_expired")
    at("nbf", f"{NOW + 30}", "ok")
    at("nbf", f"{NOW + 29}.5", "ok")
    at("nbf", f"{NOW + 30}.5", "token_not_yet_valid")
    at("iat", f"{NOW + 30}", "ok")
    at("iat", f"{NOW + 30}.5", "ok")
    cases.add("no exp", claiming(exp=GONE), "exp_missing")
    cases.add("no nbf and no iat", claiming(nbf=GONE, iat=GONE), "ok")
    cases.add("an old iat with a good exp", claiming(iat=0), "ok")
    cases.add("nbf behind exp", claiming(nbf=NOW + 20, exp=NOW - 20), "ok")
    cases.add("exp 299 s ago, with all the skew there is", claiming(exp=NOW - 299), "ok", rules="endless_skew")
    cases.add("exp 300 s ago, with all the skew there is", claiming(exp=NOW - 300), "token_expired", rules="endless_skew")
    cases.each("auth_time", [NOW - 60, 0, NOW + 9999, NOW - 0.5], lambda at: claiming(auth_time=at), "ok")
    cases.each("auth_time", ["0", -1, 1e300, [NOW], True, {}, None], lambda at: claiming(auth_time=at), "auth_time_invalid")
    return cases


def kinds() -> Cases:
    cases = Cases("Tokens made for something else: ID, refresh, logout and event tokens.")
    cases.each("claim typ", ["Refresh", "Offline", "Logout"], lambda typ: claiming(typ=typ), "token_wrong_type")
    cases.add("a security event", claiming(events={}), "token_wrong_type")
    cases.add("a logout token", claiming(events={"http://schemas.openid.net/event/backchannel-logout": {}}, sid="s"), "token_wrong_type")
    cases.add("claim typ Bearer", claiming(typ="Bearer"), "ok")
    cases.add("what says at+jwt and has a nonce", claiming(nonce="n"), "ok")
    cases.add("what says at+jwt and ID", claiming(typ="ID"), "token_is_id_token")
    for name, value in {"nonce": "n", "at_hash": "h", "c_hash": "h", "s_hash": "h", "typ": "ID"}.items():
        for typ in ["JWT", GONE]:
            token = signed(header(typ=typ), claims(**{name: value}))
            called = "no typ" if typ is GONE else f"typ {typ}"
            cases.add(f"{called}, with {name}", token, "token_is_id_token")
            cases.add(f"{called}, with {name}, where ID tokens are allowed", token, "ok", rules="id_tokens")
    cases.add("a refresh token where ID tokens are allowed", claiming(typ="Refresh"), "token_wrong_type", rules="id_tokens")
    return cases


def subjects() -> Cases:
    cases = Cases("Who it is about: the subject, the groups, the person behind it, those who act through it.")
    cases.add("no subject", claiming(sub=GONE), "subject_missing")
    cases.each("subject", ["a", "a" * 255, "\u00e9|client credentials@x"], lambda sub: claiming(sub=sub), "ok")
    cases.each("subject", ["", "a" * 256, "\u00e9" * 128, "a\nb", "a\0", "\x7f", "\u0085", None, 1, [], {}, True], lambda sub: claiming(sub=sub), "subject_invalid")
    cases.each("groups", ["one", "", [], ["a b", "c,d"], ["g" * 256], [f"g{n}" for n in range(512)]], lambda groups: claiming(groups=groups), "ok")
    cases.each("groups", [None, 1, True, {"a": True}, [1], ["a", None], [["a"]], [""], ["g" * 257], "g" * 257, [f"g{n}" for n in range(513)]],
               lambda groups: claiming(groups=groups), "groups_invalid")
    cases.add("groups kept elsewhere", claiming(_claim_names={"groups": "src1"}), "groups_elsewhere")
    cases.add("something else kept elsewhere", claiming(_claim_names={"other": "src1"}), "ok")
    for text in ["null", "true", "{}", "1.5", "1e3", '""', '"  "', '["a@x",1.5]', '[["a@x"]]', "[null]", r'"a\u0000b"', r'"a\u001fb"', r'"a\nb"', json.dumps("x" * 257), written(["x"] * 17)]:
        token = signed(None, first(claims(), f'"email":{text}'))
        cases.add(f"person {text[:40]}", token, "person_invalid", rules="persons")
        cases.add(f"person {text[:40]}, where nobody asks", token, "ok")
    cases.add("owner empty", claiming(ext={"owner": ""}), "person_invalid", rules="persons")

    def chain(depth):
        return {"sub": "last"} if depth == 0 else {"sub": f"actor {depth}", "act": chain(depth - 1)}

    actors = [None, "robot", [], [{"sub": "robot"}], {}, 7, {"iss": ISSUER}, {"sub": ""}, {"sub": 7}, {"sub": "a\x1fb"}, {"sub": "x" * 256}, {"sub": "robot", "iss": None},
              {"sub": "robot", "iss": ""}, {"sub": "robot", "iss": "https://a\x1fb"}, {"sub": "robot", "iss": "x" * 257}, {"sub": "robot", "act": None},
              {"sub": "robot", "act": {"sub": "bob", "act": False}}, chain(8), chain(12)]
    cases.each("actor", actors, lambda act: claiming(act=act), "actor_invalid")
    cases.each("actor", [{"sub": "robot"}, {"sub": "robot", "iss": "https://other.example"}, chain(7)], lambda act: claiming(act=act), "ok")
    return cases


def addresses() -> dict:
    """Tokens with addresses in them. `{bait}` becomes the address of a live listener, which nobody may call; then they are signed."""
    cases = []
    own, theirs = written(header()), written(header(SECOND))
    bait = written(SECOND.jwk())
    for name, value in {"jku": '"{bait}/jwks.json"', "x5u": '"{bait}/chain.pem"', "jwk": f'{bait[:-1]},"jku":"{{bait}}/k"}}', "x5c": '["{bait}"]', "url": '"{bait}"', "iss": '"{bait}"',
                        "jwks_uri": '"{bait}"', "sector_identifier_uri": '"{bait}"'}.items():
        member = f'"{name}":{value}'
        for text, expect in ((own, "token_bad_signature"), (theirs, "key_unknown")):
            cases.append({"case": f"{name} in the header of {json.loads(text)['kid']}", "header": "{" + member + "," + text[1:], "claims": written(claims()), "expect": expect})
    cases.append({"case": "the key id is the address", "header": written(header(kid="{bait}/jwks.json")), "claims": written(claims()), "expect": "key_unknown"})
    cases.append({"case": "the issuer is the address", "header": theirs, "claims": written(claims(iss="{bait}")), "expect": "issuer_unknown"})
    for name in ("jwks_uri", "iss_uri", "_claim_sources"):
        said = claims(**{name: {"src1": {"endpoint": "{bait}/claims"}}, "_claim_names": {"groups": "src1"}})
        cases.append({"case": f"{name} in the claims", "header": own, "claims": written(said), "expect": "token_bad_signature"})
    return {"about": "Tokens that name an address. {bait} stands for a listener's; a key that is not the issuer's signs.", "cases": cases}


def rotations() -> dict:
    """What a caller sees while keys change. Steps: publish a key set (or a status), let seconds pass, or send a token."""

    def send(key, expect, **changes):
        return {"send": signed(None, claims(exp=NOW + 90_000, **changes), key), "expect": expect}

    stories = [
        ("a new key is fetched when it is first seen", [send(P256, "ok"), {"publish": "p256_both"}, send(SECOND, "ok"), send(P256, "ok")]),
        ("a key that is gone is gone from memory too", [send(P256, "ok"), {"publish": "p256_second"}, send(SECOND, "ok"), send(P256, "key_unknown")]),
        ("a withdrawn key counts until the next fetch and no longer", [send(P256, "ok"), {"publish": "p256_second"}, send(P256, "ok"), {"wait": 301}, send(P256, "key_unknown")]),
        ("a key under the id of another replaces it", [send(P256, "ok"), {"publish": "taken_over"}, {"wait": 301}, send(P256, "token_bad_signature")]),
        ("twins appear", [send(P256, "ok"), {"publish": "twins"}, {"wait": 301}, send(P256, "key_ambiguous")]),
        ("an emptied set refuses everyone", [send(P256, "ok"), {"publish": "none"}, {"wait": 301}, send(P256, "key_unknown")]),
        ("the issuer is away for half an hour", [send(P256, "ok"), {"status": 503}, {"wait": 1800}, send(P256, "ok"), send(SECOND, "key_unknown")]),
        ("the issuer is away for longer than its grace", [send(P256, "ok"), {"status": 503}, {"wait": 3901}, send(P256, "issuer_unavailable"), {"publish": "p256"}, {"wait": 61}, send(P256, "ok")]),
        ("rotation and back", [{"publish": "p256_second"}, {"wait": 301}, send(SECOND, "ok"), {"publish": "p256"}, {"wait": 301}, send(P256, "ok"), send(SECOND, "key_unknown")]),
        ("made-up key ids do not hide a rotation", [send(P256, "ok"), {"send": signed(header(kid="made-up"), claims(exp=NOW + 90_000)), "expect": "key_unknown"}, {"publish": "p256_both"},
                                                    {"wait": 11}, send(SECOND, "ok")]),
        ("a forged token brings no fetch and no harm", [send(P256, "ok"), {"send": signed(header(), claims(exp=NOW + 90_000), SECOND), "expect": "token_bad_signature"}, send(P256, "ok")]),
    ]
    return {"about": "Stories of keys that change. They begin with the key set p256; waits are in seconds.", "stories": [{"story": story, "steps": steps} for story, steps in stories]}


def setting() -> dict:
    sets = {
        "usual": [RSA.jwk(), P256.jwk(), P384.jwk(), ED.jwk()], "p256": [P256.jwk()], "p256_second": [SECOND.jwk()], "p256_both": [P256.jwk(), SECOND.jwk()], "rsa": [RSA.jwk()], "none": [],
        "declared_rs256": [RSA.jwk(alg="RS256")], "twins": [P256.jwk(), SECOND.jwk(kid="p256-1")], "taken_over": [SECOND.jwk(kid="p256-1")],
        "for_encryption": [P256.jwk(use="enc")], "for_signing": [P256.jwk(key_ops=["sign"])],
    }
    return {
        "about": "What the cases run under: the instant, and rules and key sets by name. `usual` are those of src/identity/testing.rs.",
        "now": NOW, "issuer": ISSUER,
        "rules": {"usual": {}, "only_rs256": {"algorithms": ["RS256"]}, "no_algorithms": {"algorithms": []}, "no_audience": {"audiences": []}, "empty_audience": {"audiences": [""]},
                  "id_tokens": {"allow_id_tokens": True}, "endless_skew": {"clock_skew_s": 2**63 - 1}, "persons": {"person_claim": "email", "owner_claim": "/ext/owner"}},
        "key_sets": {name: {"keys": keys} for name, keys in sets.items()},
    }


def lines(document: dict) -> str:
    """One case a line, so that a change of one is a change of one line."""
    parts = []
    for name, value in document.items():
        if isinstance(value, list):
            inner = ",\n".join("  " + json.dumps(one) for one in value)
            parts.append(f'"{name}": [\n{inner}\n]')
        elif isinstance(value, dict):
            inner = ",\n".join(f"  {json.dumps(key)}: {json.dumps(one)}" for key, one in value.items())
            parts.append(f'"{name}": {{\n{inner}\n}}')
        else:
            parts.append(f'"{name}": {json.dumps(value)}')
    return "{\n" + ",\n".join(parts) + "\n}\n"


def files() -> dict[str, str]:
    made = {f"{make.__name__}.json": make() for make in (algorithms, signatures, keys, headers, duplicates, form, issuers, audiences, times, kinds, subjects)}
    for name, cases in made.items():
        names = [case["case"] for case in cases.cases]
        assert len(names) == len(set(names)), (name, [n for n in names if names.count(n) > 1])
    documents = {name: {"about": cases.about, "cases": cases.cases} for name, cases in made.items()}
    documents |= {"addresses.json": addresses(), "rotations.json": rotations(), "setting.json": setting()}
    return {name: lines(document) for name, document in documents.items()}


def main() -> int:
    made = files()
    if sys.argv[1:] == ["--check"]:
        there = {path.name: path.read_text() for path in HERE.glob("*.json")}
        wrong = sorted(name for name in made.keys() | there.keys() if made.get(name) != there.get(name))
        print("\n".join(f"{name} is not what make.py makes" for name in wrong), end="")
        return 1 if wrong else 0
    for name, text in made.items():
        (HERE / name).write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
