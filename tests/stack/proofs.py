"""What callers prove possession with: keys that make DPoP proofs, and client certificates of an authority of their own."""

from __future__ import annotations

import base64
import datetime
import hashlib
import ipaddress
import json
import ssl
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID


def b64(value) -> str:
    """base64url without padding, of bytes or of JSON."""
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class ProofKey:
    """A caller's key on P-256, and the proofs it makes (RFC 9449)."""

    def __init__(self):
        self.key = ec.generate_private_key(ec.SECP256R1())
        public = self.key.public_key().public_numbers()
        self.jwk = {"crv": "P-256", "kty": "EC", "x": b64(public.x.to_bytes(32)), "y": b64(public.y.to_bytes(32))}
        # RFC 7638: the members in order, without blanks.
        self.jkt = b64(hashlib.sha256(json.dumps(self.jwk, separators=(",", ":"), sort_keys=True).encode()).digest())

    def proof(self, method: str, url: str, token: str | None = None, header: dict | None = None, **changed) -> str:
        """A proof of this moment. `header` and `changed` replace members; `None` leaves one out."""
        claims = {"jti": str(uuid.uuid4()), "htm": method, "htu": url, "iat": int(time.time())}
        if token is not None:
            claims["ath"] = b64(hashlib.sha256(token.encode()).digest())
        parts = [{"typ": "dpop+jwt", "alg": "ES256", "jwk": self.jwk, **(header or {})}, {**claims, **changed}]
        signed = ".".join(b64({k: v for k, v in part.items() if v is not None}) for part in parts)
        r, s = decode_dss_signature(self.key.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{signed}.{b64(r.to_bytes(32) + s.to_bytes(32))}"


@dataclass
class Identity:
    """A certificate and its key, as files."""

    certificate: Path
    key: Path
    digest: bytes

    @property
    def x5t(self) -> str:
        """Its thumbprint as a token's `cnf` has it (RFC 8705)."""
        return b64(self.digest)


class Authority:
    """Issues certificates that last an hour."""

    def __init__(self, work: Path, name: str):
        self.work, self.name = work, name
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = self._sign(self._subject, self._key, [(x509.BasicConstraints(ca=True, path_length=0), True)])
        self.file = work / f"{name}.pem"
        self.file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def _sign(self, subject, key, extensions, seconds: float = 3600, since: float = -3600) -> x509.Certificate:
        now = datetime.datetime.now(datetime.timezone.utc)
        good = [now + datetime.timedelta(seconds=of) for of in (since, seconds)]
        builder = x509.CertificateBuilder(self._subject, subject, key.public_key(), x509.random_serial_number(), *good)
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical)
        return builder.sign(self._key, hashes.SHA256())

    def issue(self, name: str, *, uri: str | None = None, dns: str | None = None, server: bool = False, seconds: float = 3600,
              since: float = -3600) -> Identity:
        """A certificate `CN=name,O=Example` with these further names, in that order, good from and until so many seconds from now."""
        key = ec.generate_private_key(ec.SECP256R1())
        # As they stand in a certificate: Envoy writes them the other way round.
        subject = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Example"), x509.NameAttribute(NameOID.COMMON_NAME, name)])
        names = [x509.UniformResourceIdentifier(uri)] if uri else []
        names += [x509.DNSName(dns)] if dns else []
        names += [x509.IPAddress(ipaddress.ip_address("127.0.0.1"))] if server else []
        usage = ExtendedKeyUsageOID.SERVER_AUTH if server else ExtendedKeyUsageOID.CLIENT_AUTH
        extensions = [(x509.ExtendedKeyUsage([usage]), False)]
        if names:
            extensions.append((x509.SubjectAlternativeName(names), False))
        certificate = self._sign(subject, key, extensions, seconds, since)
        files = self.work / f"{self.name}-{name}.pem", self.work / f"{self.name}-{name}.key"
        files[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        files[1].write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
        files[1].chmod(0o600)
        return Identity(*files, digest=certificate.fingerprint(hashes.SHA256()))

    def client(self, identity: Identity | None = None) -> ssl.SSLContext:
        """How a caller connects who trusts this authority, with a certificate of theirs or without."""
        context = ssl.create_default_context(cafile=str(self.file))
        # Python 3.13 asks of an authority more than this one says of itself.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        if identity:
            context.load_cert_chain(identity.certificate, identity.key)
        return context


def asks_for_certificates(server: Identity, trusted: Path):
    """A change of Envoy's configuration: callers speak TLS, and their certificate, where they show one, is one of `trusted`'s."""

    def change(config: dict):
        chain = config["static_resources"]["listeners"][0]["filter_chains"][0]
        chain["transport_socket"] = {
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
                "require_client_certificate": False,
                "common_tls_context": {
                    "tls_certificates": [{"certificate_chain": {"filename": str(server.certificate)}, "private_key": {"filename": str(server.key)}}],
                    "validation_context": {"trusted_ca": {"filename": str(trusted)}},
                },
            },
        }

    return change
