"""A SAML identity provider: pysaml2, with Debian's xmlsec1 for its signatures."""

from __future__ import annotations

import base64
import shutil
import warnings
from dataclasses import dataclass, field
from pathlib import Path

AUDIENCE = "urn:ai-gateway"
PERSISTENT = "urn:oasis:names:tc:SAML:2.0:nameid-format:persistent"
EMAIL = "urn:oasis:names:tc:SAML:1.1:nameid-format:emailAddress"
PASSWORD = "urn:oasis:names:tc:SAML:2.0:ac:classes:Password"

# The party that assertions are for, as an IdP must know it.
PARTY = """<md:EntityDescriptor xmlns:md="urn:oasis:names:tc:SAML:2.0:metadata" entityID="{audience}">
<md:SPSSODescriptor protocolSupportEnumeration="urn:oasis:names:tc:SAML:2.0:protocol"><md:AssertionConsumerService
Binding="urn:oasis:names:tc:SAML:2.0:bindings:HTTP-POST" Location="{recipient}" index="0"/></md:SPSSODescriptor>
</md:EntityDescriptor>"""


def xmlsec1() -> str:
    return shutil.which("xmlsec1") or "/usr/bin/xmlsec1"


@dataclass
class SamlIdp:
    """`response(...)` is what the IdP would post to a service, with the assertion in it signed."""

    key: Path  # PEM
    certificate: Path  # PEM
    entity_id: str = "https://idp.example/saml"
    minutes: int = 5
    servers: dict = field(default_factory=dict)

    def server(self, audience: str, recipient: str):
        if (audience, recipient) not in self.servers:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                from saml2.config import IdPConfig
                from saml2.server import Server
            more = "http://www.w3.org/2001/04/xmldsig-more#"
            service = {
                "endpoints": {"single_sign_on_service": [
                    ("http://127.0.0.1/sso", "urn:oasis:names:tc:SAML:2.0:bindings:HTTP-POST")]},
                "signing_algorithm": more + "rsa-sha256",
                "digest_algorithm": "http://www.w3.org/2001/04/xmlenc#sha256",
                "policy": {"default": {
                    "lifetime": {"minutes": self.minutes}, "attribute_restrictions": None,
                    "name_form": "urn:oasis:names:tc:SAML:2.0:attrname-format:basic"}},
            }
            config = {
                "entityid": self.entity_id, "xmlsec_binary": xmlsec1(),
                "key_file": str(self.key), "cert_file": str(self.certificate), "service": {"idp": service},
                "metadata": {"inline": [PARTY.format(audience=audience, recipient=recipient)]},
            }
            self.servers[audience, recipient] = Server(config=IdPConfig().load(config))
        return self.servers[audience, recipient]

    def response(self, recipient: str, subject: str = "alice", attributes: dict | None = None, audience: str = AUDIENCE,
                 name_format: str = PERSISTENT, sign_assertion: bool = True, sign_response: bool = False,
                 in_response_to: str | None = None) -> str:
        from saml2.saml import NameID

        return str(self.server(audience, recipient).create_authn_response(
            attributes if attributes is not None else {"groups": ["finance"]}, in_response_to, recipient, audience,
            name_id=NameID(format=name_format, text=subject), sign_assertion=sign_assertion, sign_response=sign_response,
            authn={"class_ref": PASSWORD, "authn_auth": self.entity_id}))

    def metadata(self, valid_until: str = "") -> str:
        """The IdP's metadata, as pysaml2 writes it, with a `validUntil` where one is given."""
        from saml2.metadata import entity_descriptor

        text = str(entity_descriptor(self.server(AUDIENCE, "http://127.0.0.1/").config))
        return text.replace(" entityID=", f' validUntil="{valid_until}" entityID=', 1) if valid_until else text


def parameter(document: str) -> str:
    """As the `assertion` parameter carries it (RFC 7522, 2.1)."""
    return base64.urlsafe_b64encode(document.encode()).decode().rstrip("=")


def make_key(work: Path, name: str = "idp") -> tuple[Path, Path]:
    """A fresh key and a certificate for it, as files."""
    import datetime

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(65537, 2048)
    return write_key(work, name, key, x509, hashes, serialization, datetime)


def write_key(work: Path, name: str, key, x509, hashes, serialization, datetime) -> tuple[Path, Path]:
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    utc = datetime.timezone.utc
    certificate = (
        x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(key.public_key()).serial_number(1)
        .not_valid_before(datetime.datetime(2026, 1, 1, tzinfo=utc)).not_valid_after(datetime.datetime(2036, 1, 1, tzinfo=utc))
        .sign(key, hashes.SHA256()))
    pem, private = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    files = work / f"{name}.key.pem", work / f"{name}.pem"
    files[0].write_bytes(key.private_bytes(pem, private, serialization.NoEncryption()))
    files[1].write_bytes(certificate.public_bytes(pem))
    return files
