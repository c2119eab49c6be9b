//! A provider for tests: assertions right, or wrong in any way, signed by keys that are there.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use sha2::{Digest, Sha256};

use super::{NameFormat, Rules, c14n, xml};
use crate::identity::testing::Signer;

pub(crate) const ENTITY: &str = "https://idp.example/saml";
pub(crate) const AUDIENCE: &str = "https://gateway.example";
pub(crate) const RECIPIENT: &str = "https://gateway.example/oauth2/token";
/// The id of [`assertion`].
pub(crate) const ID: &str = "_a1";

pub(crate) fn rules() -> Rules {
    Rules {
        entity_id: ENTITY.to_owned(),
        audiences: vec!["other".to_owned(), AUDIENCE.to_owned()],
        recipients: vec![RECIPIENT.to_owned()],
        name_formats: vec![NameFormat::Persistent, NameFormat::Email],
        groups_attribute: Some("groups".to_owned()),
        person_attribute: None,
        claims: vec!["department".to_owned(), "absent".to_owned()],
        clock_skew: Duration::from_secs(30),
    }
}

/// An assertion that passes at [`now`](crate::identity::testing::now) (2030-03-17T17:46:40Z) once it is signed.
pub(crate) fn assertion() -> String {
    format!(
        r#"<saml:Assertion xmlns:saml="urn:oasis:names:tc:SAML:2.0:assertion" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" ID="{ID}" IssueInstant="2030-03-17T17:46:30Z" Version="2.0">
  <saml:Issuer>{ENTITY}</saml:Issuer>
  <saml:Subject>
    <saml:NameID Format="urn:oasis:names:tc:SAML:2.0:nameid-format:persistent">alice</saml:NameID>
    <saml:SubjectConfirmation Method="urn:oasis:names:tc:SAML:2.0:cm:bearer"><saml:SubjectConfirmationData NotOnOrAfter="2030-03-17T17:51:40Z" Recipient="{RECIPIENT}"/></saml:SubjectConfirmation>
  </saml:Subject>
  <saml:Conditions NotBefore="2030-03-17T17:46:30Z" NotOnOrAfter="2030-03-17T17:56:40Z"><saml:AudienceRestriction><saml:Audience>{AUDIENCE}</saml:Audience></saml:AudienceRestriction></saml:Conditions>
  <saml:AuthnStatement AuthnInstant="2030-03-17T17:40:00Z" SessionIndex="1"><saml:AuthnContext><saml:AuthnContextClassRef>urn:oasis:names:tc:SAML:2.0:ac:classes:Password</saml:AuthnContextClassRef></saml:AuthnContext></saml:AuthnStatement>
  <saml:AttributeStatement>
    <saml:Attribute Name="groups"><saml:AttributeValue xsi:type="xs:string">staff</saml:AttributeValue><saml:AttributeValue>ml</saml:AttributeValue></saml:Attribute>
    <saml:Attribute Name="department"><saml:AttributeValue>research</saml:AttributeValue></saml:Attribute>
    <saml:Attribute Name="mail"><saml:AttributeValue>Alice@Example.com</saml:AttributeValue></saml:Attribute>
  </saml:AttributeStatement>
</saml:Assertion>"#
    )
}

/// The canonical form of a document.
pub(crate) fn canonical(text: &str) -> String {
    c14n::exclusive(xml::parse_text(text).unwrap().root_element(), None, &[]).unwrap()
}

/// `SignedInfo` over the assertion [`ID`] with that canonical form.
pub(crate) fn signed_info(canonical: &str, method: &str) -> String {
    let digest = STANDARD.encode(Sha256::digest(canonical));
    format!(
        r##"<ds:SignedInfo xmlns:ds="http://www.w3.org/2000/09/xmldsig#"><ds:CanonicalizationMethod Algorithm="http://www.w3.org/2001/10/xml-exc-c14n#"></ds:CanonicalizationMethod><ds:SignatureMethod Algorithm="{method}"></ds:SignatureMethod><ds:Reference URI="#{ID}"><ds:Transforms><ds:Transform Algorithm="http://www.w3.org/2000/09/xmldsig#enveloped-signature"></ds:Transform><ds:Transform Algorithm="http://www.w3.org/2001/10/xml-exc-c14n#"></ds:Transform></ds:Transforms><ds:DigestMethod Algorithm="http://www.w3.org/2001/04/xmlenc#sha256"></ds:DigestMethod><ds:DigestValue>{digest}</ds:DigestValue></ds:Reference></ds:SignedInfo>"##
    )
}

/// The element `Signature` of a signer over a `SignedInfo` in its canonical form.
pub(crate) fn signature(info: &str, value: &[u8]) -> String {
    let value = STANDARD.encode(value);
    format!(
        r#"<ds:Signature xmlns:ds="http://www.w3.org/2000/09/xmldsig#">{info}<ds:SignatureValue>{value}</ds:SignatureValue></ds:Signature>"#
    )
}

pub(crate) const RSA_SHA256: &str = "http://www.w3.org/2001/04/xmldsig-more#rsa-sha256";

/// `unsigned` with `signature` where it belongs: behind the issuer.
pub(crate) fn with_signature(unsigned: &str, signature: &str) -> String {
    unsigned.replacen("</saml:Issuer>", &format!("</saml:Issuer>{signature}"), 1)
}

/// `unsigned`, signed under a `SignedInfo` that `change` was applied to.
pub(crate) fn signed_with(
    unsigned: &str,
    signer: &Signer,
    method: &str,
    change: impl Fn(String) -> String,
) -> String {
    let info = change(signed_info(&canonical(unsigned), method));
    let value = signer.sign(canonical(&info).as_bytes());
    with_signature(unsigned, &signature(&info, &value))
}

/// `unsigned`, signed as it should be.
pub(crate) fn signed(unsigned: &str, signer: &Signer) -> String {
    signed_with(unsigned, signer, RSA_SHA256, |info| info)
}

/// Metadata of [`ENTITY`] with these keys in certificates that say nothing else.
pub(crate) fn published(signers: &[&Signer]) -> String {
    let keys: String = signers
        .iter()
        .map(|signer| {
            let certificate = STANDARD.encode(certificate(signer));
            format!(
                r#"<md:KeyDescriptor use="signing"><ds:KeyInfo><ds:X509Data><ds:X509Certificate>{certificate}</ds:X509Certificate></ds:X509Data></ds:KeyInfo></md:KeyDescriptor>"#
            )
        })
        .collect();
    format!(
        r#"<md:EntityDescriptor xmlns:md="urn:oasis:names:tc:SAML:2.0:metadata" xmlns:ds="http://www.w3.org/2000/09/xmldsig#" entityID="{ENTITY}"><md:IDPSSODescriptor protocolSupportEnumeration="urn:oasis:names:tc:SAML:2.0:protocol">{keys}</md:IDPSSODescriptor></md:EntityDescriptor>"#
    )
}

/// An unsigned certificate of version 1 around an RSA key, as far as a reader of keys looks.
pub(crate) fn certificate(signer: &Signer) -> Vec<u8> {
    let rsa = [0x30, 11, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1];
    // `public_der` is RFC 8017's RSAPublicKey.
    let key = der(0x03, &[&[0], signer.public_der().as_slice()].concat());
    let info = der(0x30, &[rsa.as_slice(), &key].concat());
    let head = [2, 1, 1, 0x30, 0, 0x30, 0, 0x30, 0, 0x30, 0];
    der(0x30, &der(0x30, &[head.as_slice(), &info].concat()))
}

fn der(tag: u8, contents: &[u8]) -> Vec<u8> {
    let length = u16::try_from(contents.len()).unwrap().to_be_bytes();
    [&[tag, 0x82], length.as_slice(), contents].concat()
}
