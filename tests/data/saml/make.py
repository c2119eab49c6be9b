"""Writes the attack corpus: responses of a real IdP (pysaml2, xmlsec1), good ones and ones that somebody changed.

    PYTHONPATH=tests .tools/venv/bin/python tests/data/saml/make.py

Keys, ids and the time are fixed, so it writes the same bytes each time. `cases.json` says what each must lead to: the subject
and its groups, or the code of the refusal. Signatures that pysaml2 would not make are made here, over Python's own canonical
form, so the verifier's is held against two others.
"""

import base64
import datetime
import hashlib
import hmac
import itertools
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from xml.etree import ElementTree

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

from cryptography import x509  # noqa: E402
from cryptography.hazmat.primitives import hashes, serialization  # noqa: E402
from cryptography.hazmat.primitives.asymmetric import padding  # noqa: E402
from stack.saml import EMAIL, SamlIdp, write_key, xmlsec1  # noqa: E402

NOW = 1_900_000_000  # 2030-03-17T17:46:40Z
ENTITY, AUDIENCE = "https://idp.example/saml", "https://gateway.example"
RECIPIENT = "https://gateway.example/oauth2/token"
DSIG, EXCLUSIVE = "http://www.w3.org/2000/09/xmldsig#", "http://www.w3.org/2001/10/xml-exc-c14n#"
RSA_SHA256, SHA256 = "http://www.w3.org/2001/04/xmldsig-more#rsa-sha256", "http://www.w3.org/2001/04/xmlenc#sha256"

CASES: dict[str, dict] = {}


def case(name: str, document: str | bytes, code: str = "ok", **says) -> None:
    assert name not in CASES, name
    CASES[name] = {"code": code, **says}
    (HERE / "cases" / f"{name}.xml").write_bytes(document.encode() if isinstance(document, str) else document)


def freeze() -> None:
    """Stops pysaml2's clock and makes its ids predictable."""
    from saml2 import s_utils, time_util

    class Clock:
        def __getattr__(self, name):
            return getattr(time, name)

        def gmtime(self, at=None):
            return time.gmtime(NOW if at is None else at)

    class Datetime(datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return cls.fromtimestamp(NOW, datetime.timezone.utc)

        @classmethod
        def utcnow(cls):
            return cls.fromtimestamp(NOW, datetime.timezone.utc).replace(tzinfo=None)

    counter = itertools.count(1)
    time_util.time, time_util.datetime = Clock(), Datetime
    s_utils.rndstr = lambda size=16, alphabet="": f"{next(counter):0{size}d}"


def load(name: str):
    return serialization.load_der_private_key((HERE.parent / "jwt" / name).read_bytes(), None)


class Parts:
    """The pieces of one response, as text."""

    def __init__(self, response: str):
        self.response = response
        self.assertion = between(response, "<ns1:Assertion", "</ns1:Assertion>")
        self.signature = between(response, "<ns2:Signature ", "</ns2:Signature>")
        self.unsigned = self.assertion.replace(self.signature, "")
        self.evil = evil(self.unsigned)

    def with_assertions(self, text: str) -> str:
        return self.response.replace(self.assertion, text)


def between(text: str, start: str, end: str) -> str:
    at = text.index(start)
    return text[at : text.index(end, at) + len(end)]


def evil(assertion: str) -> str:
    """What the attacker would have the service read."""
    own = assertion.split('ID="', 1)[1].split('"', 1)[0]
    return assertion.replace(f'ID="{own}"', 'ID="evil"').replace(">alice<", ">mallory<").replace(">staff<", ">admin<")


def into(outer: str, tag: str, inner: str) -> str:
    """`inner` as the last child of `outer`, whose end tag is `tag`."""
    assert outer.endswith(tag)
    return outer[: -len(tag)] + inner + tag


def canonical(text: str) -> bytes:
    return ElementTree.canonicalize(text).encode()


def sign(unsigned: str, key, *, method: str = RSA_SHA256, digest: str = SHA256, hash=hashes.SHA256(), transforms: str | None = None,
         references: int = 1, uri: str | None = None, key_info: str = "", mac: bytes | None = None, value: bytes | None = None,
         digested: bytes | None = None, canonicalization: str = EXCLUSIVE) -> str:
    """A stand-alone assertion, signed by hand."""
    own = unsigned.split('ID="', 1)[1].split('"', 1)[0]
    algorithm = {"sha256": hashlib.sha256, "sha1": hashlib.sha1}["sha1" if digest.endswith("sha1") else "sha256"]
    summed = base64.b64encode(algorithm(canonical(unsigned) if digested is None else digested).digest()).decode()
    if transforms is None:
        transforms = f'<ds:Transform Algorithm="{DSIG}enveloped-signature"/><ds:Transform Algorithm="{EXCLUSIVE}"/>'
    reference = (f'<ds:Reference URI="{"#" + own if uri is None else uri}"><ds:Transforms>{transforms}</ds:Transforms>'
                 f'<ds:DigestMethod Algorithm="{digest}"/><ds:DigestValue>{summed}</ds:DigestValue></ds:Reference>')
    info = (f'<ds:SignedInfo xmlns:ds="{DSIG}"><ds:CanonicalizationMethod Algorithm="{canonicalization}"/>'
            f'<ds:SignatureMethod Algorithm="{method}"/>{reference * references}</ds:SignedInfo>')
    if value is None:
        message = canonical(info)
        value = hmac.digest(mac, message, "sha256") if mac else key.sign(message, padding.PKCS1v15(), hash)
    signature = (f'<ds:Signature xmlns:ds="{DSIG}">{info}<ds:SignatureValue>{base64.b64encode(value).decode()}</ds:SignatureValue>'
                 f"{key_info}</ds:Signature>")
    return unsigned.replace("</ns1:Issuer>", f"</ns1:Issuer>{signature}", 1)


def good(idp: SamlIdp, parts: Parts, alone: str) -> None:
    says = {"subject": "alice", "groups": ["staff", "ml"]}
    case("good-response", parts.response, **says)
    case("good-assertion-alone", alone, **says)
    both = idp.response(RECIPIENT, attributes={"groups": ["staff", "ml"]}, audience=AUDIENCE, sign_response=True)
    case("good-both-signed", both, **says)
    case("good-status-changed", parts.response.replace("status:Success", "status:Responder"), **says)
    case("good-email", idp.response(RECIPIENT, "alice@example.com", {}, AUDIENCE, EMAIL), subject="alice@example.com", groups=[])
    case("good-one-group", idp.response(RECIPIENT, attributes={"groups": "staff"}, audience=AUDIENCE), subject="alice", groups=["staff"])
    many = [f"group-{n:03}" for n in range(512)]
    case("good-512-groups", idp.response(RECIPIENT, attributes={"groups": many}, audience=AUDIENCE), subject="alice", groups=many)
    odd = ["a<b>&c", 'quo"te\'s', "Zoë — 日本語 𝛼", "a\tb"[0:1] + " b"]
    case("good-odd-characters", idp.response(RECIPIENT, "aé&<>\"'lice", {"groups": odd}, AUDIENCE),
         subject="aé&<>\"'lice", groups=odd)
    # Other spellings of what was signed: the canonical form is the same.
    own = parts.assertion.split(">", 1)[0]
    attributes = own.split(" ")[1:]
    case("good-attributes-in-another-order", parts.response.replace(own, " ".join(["<ns1:Assertion", *reversed(attributes)])), **says)
    case("good-other-quotes", parts.response.replace(own, own.replace('"', "'")), **says)
    case("good-character-references", parts.response.replace(">alice<", ">&#97;l&#x69;ce<"), **says)
    case("good-key-info-removed", parts.response.replace(between(parts.response, "<ns2:KeyInfo", "</ns2:KeyInfo>"), ""), **says)
    case("good-declaration", '<?xml version="1.0" encoding="UTF-8"?>\n' + alone, **says)
    case("good-byte-order-mark", b"\xef\xbb\xbf" + alone.encode(), **says)


def by_xmlsec1(key: Path) -> None:
    """Odd but good documents, canonicalized by xmlsec1: namespaces in every position, what is escaped, prefix lists."""
    for name, prefixes, wrap in [("plain", None, False), ("list", "xs xsi #default b", False), ("inside", None, True), ("inside-list", "xs b #default nobody", True)]:
        inclusive = f'<ec:InclusiveNamespaces xmlns:ec="{EXCLUSIVE}" PrefixList="{prefixes}"/>' if prefixes else ""
        document = f"""<s:Assertion xmlns:s="urn:oasis:names:tc:SAML:2.0:assertion" xmlns:xs="http://www.w3.org/2001/XMLSchema"
  xmlns:b="urn:b" xmlns:unused="urn:unused" Version="2.0"\tIssueInstant="2030-03-17T17:46:40Z" ID="_x">
  <s:Issuer>{ENTITY}</s:Issuer><ds:Signature xmlns:ds="{DSIG}"><ds:SignedInfo>
    <ds:CanonicalizationMethod Algorithm="{EXCLUSIVE}">{inclusive}</ds:CanonicalizationMethod>
    <ds:SignatureMethod Algorithm="{RSA_SHA256}"/>
    <ds:Reference URI="#_x"><ds:Transforms><ds:Transform Algorithm="{DSIG}enveloped-signature"/>
      <ds:Transform Algorithm="{EXCLUSIVE}">{inclusive}</ds:Transform></ds:Transforms>
      <ds:DigestMethod Algorithm="http://www.w3.org/2001/04/xmlenc#sha512"/><ds:DigestValue/></ds:Reference></ds:SignedInfo>
    <ds:SignatureValue/></ds:Signature>
  <Subject xmlns="urn:oasis:names:tc:SAML:2.0:assertion"><NameID Format="urn:oasis:names:tc:SAML:2.0:nameid-format:persistent"
    NameQualifier='{ENTITY}'>al&amp;i&lt;c&gt;e</NameID><s:SubjectConfirmation xmlns:s="urn:oasis:names:tc:SAML:2.0:assertion"
    Method="urn:oasis:names:tc:SAML:2.0:cm:bearer"><SubjectConfirmationData xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"
    b:z="1" a="2" b:a="&#9;&#10;&#13;&quot;&lt;&gt;' x" xml:lang="de" xmlns:b="urn:b2" xmlns:c="urn:a" c:y="" Recipient="{RECIPIENT}"
    NotOnOrAfter="2030-03-17T17:51:40Z" xsi:type="xs:any"><b:k xmlns:b="urn:b"/><b:k/><none xmlns=""><b:k b:k="v"/><in xmlns="urn:b"/>
      text&#13;
  with "quotes" and é日𝛼 ]]&gt;</none></SubjectConfirmationData></s:SubjectConfirmation></Subject>
  <s:Conditions><s:AudienceRestriction><s:Audience>{AUDIENCE}</s:Audience></s:AudienceRestriction></s:Conditions>
  <s:AttributeStatement><s:Attribute Name="groups"><s:AttributeValue xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"
    xsi:type="xs:string">staff</s:AttributeValue></s:Attribute></s:AttributeStatement>
</s:Assertion>"""
        if wrap:
            document = (f'<Response xmlns="urn:oasis:names:tc:SAML:2.0:protocol" xmlns:xsi="urn:not-xsi" xmlns:b="urn:b0" '
                        f'xml:lang="en" xml:space="preserve">{document}</Response>')
        with tempfile.NamedTemporaryFile("w", suffix=".xml") as template:
            template.write(document)
            template.flush()
            signed = subprocess.run([xmlsec1(), "--sign", "--privkey-pem", str(key), "--id-attr:ID",
                                     "urn:oasis:names:tc:SAML:2.0:assertion:Assertion", template.name], check=True, capture_output=True)
        case(f"good-xmlsec1-{name}", signed.stdout, subject="al&i<c>e", groups=["staff"])


def by_federation(metadata: str, key: Path) -> str:
    """Metadata signed as federations do, by a key that is not the IdP's."""
    template = (
        f'<ds:Signature xmlns:ds="{DSIG}"><ds:SignedInfo><ds:CanonicalizationMethod Algorithm="{EXCLUSIVE}"/>'
        f'<ds:SignatureMethod Algorithm="{RSA_SHA256}"/><ds:Reference URI="#_m"><ds:Transforms>'
        f'<ds:Transform Algorithm="{DSIG}enveloped-signature"/><ds:Transform Algorithm="{EXCLUSIVE}"/></ds:Transforms>'
        f'<ds:DigestMethod Algorithm="{SHA256}"/><ds:DigestValue/></ds:Reference></ds:SignedInfo><ds:SignatureValue/></ds:Signature>')
    head, rest = metadata.split(" entityID=", 1)
    attribute, rest = rest.split(">", 1)
    document = f'<!-- by hand -->{head} ID="_m" entityID={attribute}><!-- signed -->{template}{rest}'
    with tempfile.NamedTemporaryFile("w", suffix=".xml") as file:
        file.write(document)
        file.flush()
        return subprocess.run([xmlsec1(), "--sign", "--privkey-pem", str(key), "--id-attr:ID",
                               "urn:oasis:names:tc:SAML:2.0:metadata:EntityDescriptor", file.name],
                              check=True, capture_output=True).stdout.decode()


def wrapping(parts: Parts, response_signed: Parts, whole: str) -> None:
    """XSW1 to XSW8 of Somorovsky et al., "On Breaking SAML" (USENIX Security 2012), as SAML Raider makes them."""
    code = "saml_several_assertions"
    bare = whole.replace(response_signed.signature, "")
    forged = evil(bare.replace(between(bare, "<ns1:Assertion", "</ns1:Assertion>"), response_signed.evil.replace("evil", "evil-a")))
    forged = forged.replace("</ns1:Issuer>", f"</ns1:Issuer>{response_signed.signature}", 1)
    inner = bare.split("?>", 1)[-1].strip()
    case("xsw1", forged.replace("</ns2:Signature>", f"{inner}</ns2:Signature>", 1), code)
    case("xsw2", forged.replace(response_signed.signature, inner + response_signed.signature, 1), code)
    case("xsw3", parts.with_assertions(parts.evil + parts.assertion), code)
    case("xsw4", parts.with_assertions(into(parts.evil, "</ns1:Assertion>", parts.assertion)), code)
    signed_evil = evil(parts.assertion)
    case("xsw5", parts.with_assertions(signed_evil + parts.unsigned), code)
    case("xsw6", parts.with_assertions(signed_evil.replace("</ns2:Signature>", f"{parts.unsigned}</ns2:Signature>")), code)
    case("xsw7", parts.with_assertions(f"<ns0:Extensions>{parts.evil}</ns0:Extensions>{parts.assertion}"), code)
    held = f"<ns2:Object>{parts.unsigned}</ns2:Object></ns2:Signature>"
    case("xsw8", parts.with_assertions(signed_evil.replace("</ns2:Signature>", held)), code)
    # The same id twice, and the original out of sight in other places.
    same = parts.evil.replace('ID="evil"', parts.assertion.split("Version", 1)[1].split(" ")[1])
    case("xsw-same-id", parts.with_assertions(same + parts.assertion), "saml_duplicate_id")
    case("xsw-in-advice", parts.with_assertions(into(signed_evil, "</ns1:Assertion>", f"<ns1:Advice>{parts.unsigned}</ns1:Advice>")), code)
    case("xsw-in-status", parts.with_assertions(signed_evil).replace(
        "</ns0:Status>", f"<ns0:StatusDetail>{parts.unsigned}</ns0:StatusDetail></ns0:Status>"), code)
    case("xsw-in-attribute", parts.with_assertions(signed_evil.replace(">admin<", f">{parts.unsigned}<")), code)
    case("two-good-assertions", parts.with_assertions(parts.assertion + signed_evil.replace('Id="Signature', 'Id="Other')), code)
    # The only assertion refers to something else that is signed.
    case("signature-of-another-element", parts.with_assertions(signed_evil).replace(
        "<ns0:Status>", '<ns0:Extensions ID="' + parts.assertion.split(' ID="')[1].split('"')[0] + '"/><ns0:Status>'), "saml_wrong_reference")
    case("signature-beside-the-assertion", parts.with_assertions(parts.signature + parts.evil), "saml_unsigned")
    case("signature-in-extensions", parts.with_assertions(f"<ns0:Extensions>{parts.signature}</ns0:Extensions>{parts.unsigned}"), "saml_unsigned")
    case("signature-deeper-in-the-assertion", parts.with_assertions(parts.unsigned.replace(
        "<ns1:Subject>", f"<ns1:Advice>{parts.signature}</ns1:Advice><ns1:Subject>")), "saml_unsigned")


def signatures(idp: SamlIdp, parts: Parts, response_signed: Parts, key, other, certificate: Path) -> None:
    unsigned = parts.alone_unsigned
    case("unsigned", parts.with_assertions(parts.unsigned), "saml_unsigned")
    case("unsigned-assertion-in-signed-response", response_signed.response, "saml_unsigned")
    case("tampered-attribute", parts.response.replace(">staff<", ">admin<"), "saml_bad_digest")
    case("tampered-subject", parts.response.replace(">alice<", ">mallory<"), "saml_bad_digest")
    case("tampered-expiry", parts.response.replace("17:51:40Z", "18:51:40Z"), "saml_bad_digest")
    case("tampered-attribute-added", parts.response.replace(
        "<ns1:AttributeStatement>", '<ns1:AttributeStatement><ns1:Attribute Name="x"/>'), "saml_bad_digest")
    case("tampered-digest", parts.response.replace("<ns2:DigestValue>", "<ns2:DigestValue>AAAA"), "saml_bad_signature")
    case("tampered-signature", parts.response.replace("<ns2:SignatureValue>", "<ns2:SignatureValue>AAAA"), "saml_bad_signature")
    case("by-hand", sign(unsigned, key), subject="alice", groups=["staff", "ml"])

    public = key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    more = "http://www.w3.org/2001/04/xmldsig-more#"
    case("downgrade-rsa-sha1", sign(unsigned, key, method=DSIG + "rsa-sha1", hash=hashes.SHA1()), "saml_algorithm_refused")
    case("downgrade-digest-sha1", sign(unsigned, key, digest=DSIG + "sha1"), "saml_digest_refused")
    case("downgrade-hmac-with-public-key", sign(unsigned, None, method=more + "hmac-sha256", mac=public), "saml_algorithm_refused")
    case("downgrade-hmac-with-certificate", sign(unsigned, None, method=more + "hmac-sha256", mac=certificate.read_bytes()), "saml_algorithm_refused")
    case("downgrade-none", sign(unsigned, None, method="none", value=b"none"), "saml_algorithm_refused")
    case("downgrade-dsa", sign(unsigned, None, method=DSIG + "dsa-sha1", value=b"x" * 40), "saml_algorithm_refused")
    case("signature-empty", sign(unsigned, None, value=b"\0"), "saml_bad_signature")
    case("ecdsa-method-with-rsa-key", sign(unsigned, None, method=more + "ecdsa-sha256", value=b"\0" * 64), "saml_bad_signature")

    foreign = sign(unsigned, other)
    case("other-key", foreign, "saml_bad_signature")
    der = x509.load_pem_x509_certificate((certificate.parent / "mallory.pem").read_bytes()).public_bytes(serialization.Encoding.DER)
    shown = base64.b64encode(der).decode()
    case("other-key-with-its-certificate", sign(unsigned, other, key_info=(
        f"<ds:KeyInfo><ds:X509Data><ds:X509Certificate>{shown}</ds:X509Certificate></ds:X509Data></ds:KeyInfo>")), "saml_bad_signature")
    numbers = other.public_key().public_numbers()
    modulus = base64.b64encode(numbers.n.to_bytes(256, "big")).decode()
    case("other-key-with-its-value", sign(unsigned, other, key_info=(
        f"<ds:KeyInfo><ds:KeyValue><ds:RSAKeyValue><ds:Modulus>{modulus}</ds:Modulus><ds:Exponent>AQAB</ds:Exponent></ds:RSAKeyValue>"
        "</ds:KeyValue></ds:KeyInfo>")), "saml_bad_signature")
    case("other-key-to-be-fetched", sign(unsigned, other, key_info=(
        f'<ds:KeyInfo><ds:RetrievalMethod URI="http://127.0.0.1:9/key" Type="{DSIG}X509Data"/></ds:KeyInfo>')), "saml_bad_signature")
    case("other-key-under-a-good-name", sign(unsigned, other, key_info="<ds:KeyInfo><ds:KeyName>idp</ds:KeyName></ds:KeyInfo>"), "saml_bad_signature")

    enveloped = f'<ds:Transform Algorithm="{DSIG}enveloped-signature"/>'
    exclusive = f'<ds:Transform Algorithm="{EXCLUSIVE}"/>'
    xpath = ('<ds:Transform Algorithm="http://www.w3.org/TR/1999/REC-xpath-19991116"><ds:XPath>self::text()[. = "x"]</ds:XPath></ds:Transform>')
    xslt = ('<ds:Transform Algorithm="http://www.w3.org/TR/1999/REC-xslt-19991116"><xsl:stylesheet version="1.0" '
            'xmlns:xsl="http://www.w3.org/1999/XSL/Transform"><xsl:template match="/">x</xsl:template></xsl:stylesheet></ds:Transform>')
    filter2 = ('<ds:Transform Algorithm="http://www.w3.org/2002/06/xmldsig-filter2"><f:XPath xmlns:f="http://www.w3.org/2002/06/xmldsig-filter2" '
               'Filter="intersect">/x</f:XPath></ds:Transform>')
    for name, transforms in [
        ("xpath", enveloped + xpath + exclusive), ("xslt", enveloped + exclusive + xslt), ("filter2", filter2 + exclusive),
        ("none", ""), ("enveloped-only", enveloped), ("exclusive-only", exclusive), ("twice", enveloped + exclusive * 2),
        ("with-comments", enveloped + exclusive.replace("c14n#", "c14n#WithComments")),
        ("inclusive", enveloped + '<ds:Transform Algorithm="http://www.w3.org/TR/2001/REC-xml-c14n-20010315"/>'),
        ("base64", enveloped + f'<ds:Transform Algorithm="{DSIG}base64"/>'),
        ("other-order", exclusive + enveloped),
    ]:
        case(f"transforms-{name}", sign(unsigned, key, transforms=transforms), "saml_transform_refused")
    case("canonicalization-inclusive", sign(unsigned, key, canonicalization="http://www.w3.org/TR/2001/REC-xml-c14n-20010315"), "saml_canonicalization_refused")
    case("canonicalization-unknown", sign(unsigned, key, canonicalization="urn:identity"), "saml_canonicalization_refused")
    case("two-references", sign(unsigned, key, references=2), "saml_several_references")
    case("no-reference", sign(unsigned, key, references=0), "saml_signature_malformed")
    case("reference-to-the-document", sign(unsigned, key, uri=""), "saml_wrong_reference")
    case("reference-to-elsewhere", sign(unsigned, key, uri="http://127.0.0.1:9/"), "saml_wrong_reference")
    case("reference-to-a-file", sign(unsigned, key, uri="file:///etc/passwd"), "saml_wrong_reference")
    case("reference-by-xpointer", sign(unsigned, key, uri="#xpointer(/)"), "saml_wrong_reference")
    # CVE-2025-29774: two SignedInfo, of which one is verified and the other is read.
    info = between(parts.signature, "<ns2:SignedInfo", "</ns2:SignedInfo>")
    case("two-signed-infos", parts.response.replace(info, info + info), "saml_signature_malformed")
    case("two-signatures", parts.response.replace(parts.signature, parts.signature + parts.signature.replace('Id="Signature', 'Id="Other')), "saml_several_signatures")
    # CVE-2024-45409: a digest that is looked for by name, anywhere.
    case("digest-elsewhere", parts.response.replace(">staff<", ">admin<").replace("<ns0:Status>", (
        "<ns0:Extensions><ns2:DigestValue>" + base64.b64encode(hashlib.sha256(b"x").digest()).decode() + "</ns2:DigestValue></ns0:Extensions><ns0:Status>")), "saml_bad_digest")
    # CVE-2025-29775: a comment splits the digest.
    value = between(parts.signature, "<ns2:DigestValue>", "</ns2:DigestValue>")
    case("comment-in-digest", parts.response.replace(value, value.replace("Value>", "Value><!--AAAA-->", 1)), "saml_comment")


def markup(idp: SamlIdp, parts: Parts, alone: str) -> None:
    victim = idp.response(RECIPIENT, "admin@example.com.evil.example", {}, AUDIENCE, EMAIL)
    # Duo, 2018: the canonical form has no comment, so the signature holds, and many readers stop at the comment.
    case("comment-in-name-id", victim.replace("admin@example.com", "admin@example.com<!---->"), "saml_comment")
    case("processing-instruction-in-name-id", victim.replace("admin@example.com", "admin@example.com<?x?>"), "saml_processing_instruction")
    case("cdata-in-name-id", victim.replace("admin@example.com.evil.example", "admin@example.com<![CDATA[.evil.example]]>"), "saml_cdata")
    case("element-in-name-id", victim.replace("admin@example.com", "admin@example.com<b/>"), "saml_bad_digest")
    case("comment-in-attribute", parts.response.replace(">staff<", ">st<!-- -->aff<"), "saml_comment")
    case("comment-in-issuer", parts.response.replace("idp.example/saml<", "idp.example/<!-- -->saml<"), "saml_comment")
    case("comment-before", f"<!-- -->{alone}", "saml_comment")
    case("stylesheet", f'<?xml-stylesheet href="http://127.0.0.1:9/x"?>{alone}', "saml_processing_instruction")
    case("doctype", f"<!DOCTYPE x>{alone}", "saml_doctype")
    case("doctype-with-ids", f"<!DOCTYPE x [<!ATTLIST Assertion x ID #IMPLIED>]>{alone}", "saml_doctype")
    case("doctype-after-declaration", f'<?xml version="1.0"?>\n<!DOCTYPE x SYSTEM "http://127.0.0.1:9/x.dtd">{alone}', "saml_doctype")
    laughs = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
    case("entity-expansion", f'<!DOCTYPE x [<!ENTITY l0 "ha">{laughs}]>{alone}'.replace(">alice<", ">&l9;<"), "saml_doctype")
    case("entity-quadratic", f'<!DOCTYPE x [<!ENTITY a "{"a" * 20000}">]>{alone}'.replace(">alice<", f">{'&a;' * 5000}<"), "saml_doctype")
    case("entity-external", f'<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]>{alone}'.replace(">alice<", ">&e;<"), "saml_doctype")
    case("entity-external-url", f'<!DOCTYPE x [<!ENTITY e SYSTEM "http://127.0.0.1:9/x">]>{alone}'.replace(">alice<", ">&e;<"), "saml_doctype")
    case("entity-parameter", f'<!DOCTYPE x [<!ENTITY % p SYSTEM "http://127.0.0.1:9/x"> %p;]>{alone}', "saml_doctype")
    case("entity-undefined", alone.replace(">alice<", ">&alice;<"), "saml_not_xml")
    case("xinclude", alone.replace(">alice<", '><x:include xmlns:x="http://www.w3.org/2001/XInclude" href="file:///etc/passwd"/><'), "saml_bad_digest")
    case("utf-16", '<?xml version="1.0" encoding="UTF-16"?>'.encode("utf-16") + alone.encode("utf-16-le"), "saml_not_utf8")
    case("latin-1", f'<?xml version="1.0" encoding="ISO-8859-1"?>{alone}', "saml_not_utf8")
    case("utf-7", f'<?xml version="1.0" encoding="UTF-7"?>{alone}', "saml_not_utf8")
    case("xml-1.1", f'<?xml version="1.1"?>{alone}', "saml_not_utf8")
    case("invalid-utf-8", alone.encode().replace(b">alice<", b">al\xc0\xafice<"), "saml_not_utf8")
    case("nul", alone.replace(">alice<", ">al\0ice<"), "saml_not_xml")
    case("not-closed", alone[:-1], "saml_not_xml")
    case("twice", alone + alone, "saml_not_xml")
    case("text-behind", alone + "x", "saml_not_xml")
    case("not-xml", '{"assertion": true}', "saml_not_xml")


def namespaces(parts: Parts, alone: str) -> None:
    case("namespace-other-prefix", alone.replace("ns1:", "saml:").replace("xmlns:ns1", "xmlns:saml"), "saml_bad_digest")
    case("namespace-evil", alone.replace("urn:oasis:names:tc:SAML:2.0:assertion", "urn:evil"), "saml_no_assertion")
    case("namespace-evil-subject", alone.replace("<ns1:Subject>", '<ns1:Subject xmlns:ns1="urn:evil">'), "saml_bad_digest")
    case("namespace-redeclared-same", alone.replace("<ns1:Subject>", '<ns1:Subject xmlns:ns1="urn:oasis:names:tc:SAML:2.0:assertion">'), subject="alice", groups=["staff", "ml"])
    case("namespace-unused-added", alone.replace("<ns1:Subject>", '<ns1:Subject xmlns:evil="urn:evil">'), subject="alice", groups=["staff", "ml"])
    case("namespace-default-added", alone.replace("<ns1:Subject>", '<ns1:Subject xmlns="urn:evil">'), subject="alice", groups=["staff", "ml"])
    case("namespace-of-xml", alone.replace("<ns1:Subject>", '<ns1:Subject xmlns:xml="urn:evil">'), "saml_not_xml")
    case("namespace-of-signature", parts.response.replace('xmlns:ns2="http://www.w3.org/2000/09/xmldsig#"', 'xmlns:ns2="urn:x"'), "saml_unsigned")
    case("namespaced-id", alone.replace('<ns1:Assertion ', '<ns1:Assertion xmlns:x="urn:x" x:ID="evil" '), "saml_bad_digest")
    case("id-in-another-case", parts.response.replace("<ns1:Subject>", f'<ns1:Subject id="{parts.id}">'), "saml_duplicate_id")
    case("id-of-xml", parts.response.replace("<ns0:Status>", f'<ns0:Status xml:id="{parts.id}">'), "saml_duplicate_id")
    case("id-of-the-response", parts.response.replace(parts.response.split(' ID="')[1].split('"')[0], parts.id), "saml_duplicate_id")
    case("saml-1", alone.replace("SAML:2.0:assertion", "SAML:1.0:assertion"), "saml_no_assertion")


def contents(idp: SamlIdp, key) -> None:
    """Genuine assertions that are not for us, or not now."""
    def of(**changes) -> str:
        return idp.response(**{"recipient": RECIPIENT, "audience": AUDIENCE, "attributes": {"groups": ["staff", "ml"]}, **changes})

    case("wrong-audience", of(audience="https://other.example"), "saml_audience_wrong")
    case("wrong-recipient", of(recipient="https://other.example/acs"), "saml_recipient_wrong")
    case("solicited", of(in_response_to="id-request"), "saml_solicited")
    case("transient-name", of(name_format="urn:oasis:names:tc:SAML:2.0:nameid-format:transient"), "saml_name_format_refused")
    case("too-many-groups", of(attributes={"groups": [f"g{n}" for n in range(513)]}), "saml_groups_invalid")
    # A good signature, at another time.
    case("expired", of(), "saml_expired", now=NOW + 330)
    case("not-yet-valid", of(), "saml_issued_in_future", now=NOW - 31)
    case("within-the-skew", of(), now=NOW + 329, subject="alice", groups=["staff", "ml"])
    long = SamlIdp(idp.key, idp.certificate, ENTITY, minutes=241)
    case("lives-too-long", long.response(RECIPIENT, audience=AUDIENCE), "saml_lives_too_long")
    other = SamlIdp(idp.key, idp.certificate, "https://idp.example/other")
    case("other-issuer", other.response(RECIPIENT, audience=AUDIENCE), "saml_issuer_unknown")


def main() -> None:
    freeze()
    (HERE / "cases").mkdir(exist_ok=True)
    for old in (HERE / "cases").glob("*.xml"):
        old.unlink()
    with tempfile.TemporaryDirectory() as work:
        rest = x509, hashes, serialization, datetime
        key, other = load("rsa.pk8"), load("rsa-other.pk8")
        files = write_key(Path(work), "idp", key, *rest)
        write_key(Path(work), "mallory", other, *rest)
        idp = SamlIdp(*files, ENTITY)
        groups = {"groups": ["staff", "ml"]}
        parts = Parts(idp.response(RECIPIENT, attributes=groups, audience=AUDIENCE))
        parts.id = parts.assertion.split(' ID="')[1].split('"')[0]
        # An assertion alone has to carry the namespaces that it had from the response.
        head = " ".join(f'xmlns:{prefix}="{uri}"' for prefix, uri in [
            ("ns1", "urn:oasis:names:tc:SAML:2.0:assertion"), ("ns2", DSIG), ("xsi", "http://www.w3.org/2001/XMLSchema-instance")])
        alone = parts.assertion.replace("<ns1:Assertion ", f"<ns1:Assertion {head} ", 1)
        parts.alone_unsigned = alone.replace(parts.signature, "")
        whole = idp.response(RECIPIENT, attributes=groups, audience=AUDIENCE, sign_assertion=False, sign_response=True)
        response_signed = Parts(whole)
        federation = write_key(Path(work), "federation", other, *rest)
        (HERE / "metadata.xml").write_text(idp.metadata() + "\n")
        (HERE / "metadata-signed.xml").write_text(by_federation(idp.metadata(), federation[0]))
        for certificate in (files[1], federation[1]):
            (HERE / certificate.name).write_bytes(certificate.read_bytes())
        good(idp, parts, alone)
        by_xmlsec1(files[0])
        wrapping(parts, response_signed, whole)
        signatures(idp, parts, response_signed, key, other, files[1])
        markup(idp, parts, alone)
        namespaces(parts, alone)
        contents(idp, key)
    (HERE / "cases.json").write_text(json.dumps({"now": NOW, "cases": CASES}, indent=1, ensure_ascii=False) + "\n")
    print(f"{len(CASES)} cases")


if __name__ == "__main__":
    main()
