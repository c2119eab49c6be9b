//! The keys in a provider's metadata (SAML metadata, 2.4.1.1), and in certificates that the operator pins.
//!
//! A certificate is a wrapping for a key here (SAML V2.0 Metadata Interoperability Profile, 2.6.1): who signed it, for whom,
//! and until when, is not looked at. What makes a key count is where the document came from, or the pinned key that signed
//! it, and its `validUntil`.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jiff::Timestamp;
use roxmltree::Node;
use serde_json::{Value, json};

use super::{
    super::{KeySet, KeySetError},
    SamlError, assertion, dsig,
    xml::{self, attribute, is, named},
};

/// The largest metadata document that is looked at: 256 KiB. One provider's has some ten; that of a federation has
/// thousands of providers and is no place to trust one of them from.
pub const MAX_METADATA_BYTES: usize = 256 * 1024;
/// Most certificates, of a provider or of a file. Each may cost one verification per assertion.
const MAX_CERTIFICATES: usize = 8;

const METADATA: &str = "urn:oasis:names:tc:SAML:2.0:metadata";
const DSIG: &str = "http://www.w3.org/2000/09/xmldsig#";

/// Why metadata, or a file of certificates, is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MetadataError {
    /// Not XML that is let in.
    #[error("the metadata cannot be read ({})", .0.code())]
    Xml(SamlError),
    /// Not an `EntityDescriptor` with an `IDPSSODescriptor` for SAML 2.0.
    #[error("the metadata is not that of one SAML 2.0 identity provider")]
    NotProvider,
    /// It is another entity's.
    #[error("the metadata is that of another entity")]
    WrongEntity,
    /// A pinned certificate should have signed it and did not.
    #[error("the metadata is not signed by the pinned certificate ({})", .0.code())]
    Signature(SamlError),
    /// `validUntil` is no instant.
    #[error("the `validUntil` of the metadata is not a time")]
    ValidUntil,
    /// No certificate, or too many, or one that is none.
    #[error("there must be 1 to 8 X.509 certificates for signing")]
    Certificates,
    /// No certificate's key is fit to be used.
    #[error("no certificate has a key that can be used: RSA of 2048 bits or more, P-256 or P-384")]
    NoKeys,
}

/// The keys that `entity_id`'s metadata says it signs with. With `pinned`, one of those keys must have signed the document,
/// and what is read is what was signed.
///
/// # Errors
/// [`MetadataError`], one variant per cause.
pub fn metadata(
    document: &[u8],
    entity_id: &str,
    pinned: Option<&KeySet>,
) -> Result<KeySet, MetadataError> {
    let document =
        xml::parse_with_comments(document, MAX_METADATA_BYTES).map_err(MetadataError::Xml)?;
    let root = document.root_element();
    let Some(pinned) = pinned else {
        return provider(root, entity_id);
    };
    let id = attribute(root, "ID").ok_or(MetadataError::Signature(SamlError::Unsigned))?;
    let signed = dsig::proved(root, id, pinned).map_err(MetadataError::Signature)?;
    let signed = xml::parse_text(&signed).map_err(MetadataError::Xml)?;
    provider(signed.root_element(), entity_id)
}

/// The keys of the certificates in a PEM file (RFC 7468).
///
/// # Errors
/// [`MetadataError::Certificates`] and [`MetadataError::NoKeys`].
pub fn certificates(pem: &str) -> Result<KeySet, MetadataError> {
    let blocks = pem.split("-----BEGIN CERTIFICATE-----").skip(1);
    let keys = blocks.map(|block| {
        let (text, _) = block.split_once("-----END CERTIFICATE-----")?;
        public_key(&dsig::unwrapped_base64(text)?)
    });
    key_set(keys)
}

fn provider(root: Node<'_, '_>, entity_id: &str) -> Result<KeySet, MetadataError> {
    if !is(root, METADATA, "EntityDescriptor") {
        return Err(MetadataError::NotProvider);
    }
    if attribute(root, "entityID") != Some(entity_id) {
        return Err(MetadataError::WrongEntity);
    }
    let speaks = |role: &Node<'_, '_>| {
        attribute(*role, "protocolSupportEnumeration").is_some_and(|protocols| {
            protocols
                .split_ascii_whitespace()
                .any(|protocol| protocol == super::PROTOCOL)
        })
    };
    let role = named(root, METADATA, "IDPSSODescriptor")
        .find(speaks)
        .ok_or(MetadataError::NotProvider)?;
    let signing = named(role, METADATA, "KeyDescriptor")
        .filter(|key| attribute(*key, "use").is_none_or(|used| used == "signing"));
    let found = signing
        .flat_map(|key| named(key, DSIG, "KeyInfo"))
        .flat_map(|info| named(info, DSIG, "X509Data"))
        .flat_map(|data| named(data, DSIG, "X509Certificate"));
    let keys = key_set(found.map(|certificate| public_key(&dsig::base64(certificate)?)))?;
    Ok(keys.until(
        valid_until(root)?
            .into_iter()
            .chain(valid_until(role)?)
            .min(),
    ))
}

fn valid_until(node: Node<'_, '_>) -> Result<Option<Timestamp>, MetadataError> {
    attribute(node, "validUntil")
        .map(assertion::instant)
        .transpose()
        .map_err(|_| MetadataError::ValidUntil)
}

/// The keys as a key set, under the rules that hold for an issuer's JWKS.
fn key_set(keys: impl Iterator<Item = Option<Value>>) -> Result<KeySet, MetadataError> {
    let keys: Vec<Value> = keys
        .take(MAX_CERTIFICATES + 1)
        .collect::<Option<_>>()
        .ok_or(MetadataError::Certificates)?;
    if keys.is_empty() || keys.len() > MAX_CERTIFICATES {
        return Err(MetadataError::Certificates);
    }
    let document = json!({ "keys": keys }).to_string();
    let set = KeySet::parse(document.as_bytes()).map_err(|error| match error {
        KeySetError::TooLarge
        | KeySetError::NotJwks
        | KeySetError::TooManyKeys
        | KeySetError::PrivateKey => MetadataError::Certificates,
    })?;
    match set.is_empty() {
        true => Err(MetadataError::NoKeys),
        false => Ok(set),
    }
}

/// The key of an X.509 certificate (RFC 5280, 4.1) as a JWK; one of a type that is not supported as a JWK without a type,
/// which is skipped. Any version: Keycloak's are of version 1.
fn public_key(certificate: &[u8]) -> Option<Value> {
    let (certificate, after) = der(0x30, certificate)?;
    let (mut rest, _) = der(0x30, certificate)?;
    if let Some((_version, after)) = der(0xa0, rest) {
        rest = after;
    }
    // Serial number, signature algorithm, issuer, validity, subject.
    for tag in [0x02, 0x30, 0x30, 0x30, 0x30] {
        (_, rest) = der(tag, rest)?;
    }
    let (info, _) = der(0x30, rest)?;
    let (algorithm, rest) = der(0x30, info)?;
    let (bits, _) = der(0x03, rest)?;
    let key = bits.strip_prefix(&[0])?;
    let (oid, parameters) = der(0x06, algorithm)?;
    if !after.is_empty() {
        return None;
    }
    let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let point = |half: usize| {
        let (x, y) = key.strip_prefix(&[4])?.split_at_checked(half)?;
        Some((text(x), text(y)))
    };
    match oid {
        RSA => {
            let (key, _) = der(0x30, key)?;
            let (n, rest) = der(0x02, key)?;
            let (e, _) = der(0x02, rest)?;
            Some(json!({"kty": "RSA", "n": text(n), "e": text(e)}))
        }
        EC => match der(0x06, parameters)?.0 {
            P256 => point(32).map(|(x, y)| json!({"kty": "EC", "crv": "P-256", "x": x, "y": y})),
            P384 => point(48).map(|(x, y)| json!({"kty": "EC", "crv": "P-384", "x": x, "y": y})),
            _ => Some(json!({})),
        },
        _ => Some(json!({})),
    }
}

/// `rsaEncryption` (RFC 8017, A.1).
const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1];
/// `id-ecPublicKey` (RFC 5480, 2.1.1).
const EC: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1];
/// `secp256r1` (RFC 5480, 2.1.1.1).
const P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7];
/// `secp384r1` (RFC 5480, 2.1.1.1).
const P384: &[u8] = &[0x2b, 0x81, 4, 0, 0x22];

/// The contents of the DER value with that tag that `bytes` begins with, and what follows it.
fn der(tag: u8, bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let rest = bytes.strip_prefix(&[tag])?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x83 => {
            let (length, rest) = rest.split_at_checked(usize::from(first - 0x80))?;
            let length = length
                .iter()
                .fold(0, |sum, byte| sum << 8 | usize::from(*byte));
            (length, rest)
        }
        _ => return None,
    };
    rest.split_at_checked(length)
}
