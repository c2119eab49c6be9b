//! SAML 2.0 assertions as proof of identity, as a token endpoint takes them (RFC 7522).
//!
//! ```text
//! bytes ─read─> one assertion, where it stands ─verify(rules, keys, now)─> canonical form, signed ─> Principal
//!        │ strict XML, bounded               │ its own child signature       │ read again, and only that
//! ```
//!
//! Promises: a [`Verified`] comes only from an assertion that is the document, or the child of the response that is the
//! document, and the only assertion in it; whose own signature, by a key of the provider's metadata, covers all of it; of
//! the configured issuer, audience and recipient, inside its time. What is read is what was signed: the canonical bytes are
//! parsed again and nothing else is looked at. Every refusal is a [`SamlError`] with a code of its own, and none carries any
//! of the assertion.
//!
//! Never: finds anything by its id, believes a `KeyInfo`, a response's signature or status, decrypts, fetches, reads a
//! clock, accepts SHA-1, HMAC or no signature.
//!
//! Can miss: that an assertion was used before. The caller must claim [`Verified::id`] until [`Verified::claim_until`]
//! before the assertion brings anything. An assertion is good until it expires, whatever becomes of the account.

mod assertion;
mod c14n;
mod dsig;
mod error;
mod metadata;
mod rules;
mod xml;

use std::time::Duration;

use base64::{Engine as _, alphabet, engine};
use jiff::Timestamp;
use roxmltree::{Document, Node, NodeId};
use sha2::{Digest, Sha256};

pub use self::{
    error::SamlError,
    metadata::{MAX_METADATA_BYTES, MetadataError, certificates, metadata},
    rules::{NameFormat, Rules, UnknownNameFormat},
};
use super::{AuthMethod, KeySet, Principal};

/// The largest assertion, or response around it, that is looked at: 256 KiB.
pub const MAX_ASSERTION_BYTES: usize = 256 * 1024;
/// The longest that an assertion may still be good for, beside the clock skew: 4 hours. It bounds what has to be remembered
/// of used ones.
pub const MAX_LIFETIME: Duration = Duration::from_secs(4 * 3600);

/// The namespace of assertions.
const ASSERTION: &str = "urn:oasis:names:tc:SAML:2.0:assertion";
/// The namespace of responses.
const PROTOCOL: &str = "urn:oasis:names:tc:SAML:2.0:protocol";

/// RFC 7522, 2.1: base64url whose unused bits are zero; padding should not be there and may.
const BASE64URL: engine::GeneralPurpose = engine::GeneralPurpose::new(
    &alphabet::URL_SAFE,
    engine::GeneralPurposeConfig::new()
        .with_decode_padding_mode(engine::DecodePaddingMode::Indifferent),
);

/// A caller that an assertion proves, and what to claim so that it proves that once.
#[derive(Clone, Debug, PartialEq)]
pub struct Verified {
    /// The caller. Its `issuer` is the provider's entity id, its `token_hash` the SHA-256 of the document as it was given to
    /// [`read`], its `expires_at` the earliest end that the assertion names.
    pub principal: Principal,
    /// The assertion's id, unique among those of its issuer: at most 256 bytes of visible ASCII.
    pub id: String,
    /// Until when the use of the id must be remembered: its expiry and the clock skew. At most [`MAX_LIFETIME`] and twice
    /// [`MAX_CLOCK_SKEW`](super::MAX_CLOCK_SKEW) after the instant of verification.
    pub claim_until: Timestamp,
}

impl Verified {
    /// The name under which the assertion's one use is claimed: of issuer and id, of 69 bytes, and no grant's id.
    #[must_use]
    pub fn claim(&self) -> String {
        let name = super::account(&self.principal.issuer, &self.id);
        format!("saml:{}", hex::encode(Sha256::digest(name)))
    }
}

/// An assertion of which nothing is proved: enough to choose the rules and the keys, good for nothing else.
pub struct Unverified<'d> {
    /// SHA-256 of the document.
    hash: [u8; 32],
    document: Document<'d>,
    assertion: NodeId,
    issuer: String,
}

/// The bytes of an `assertion` parameter (RFC 7522, 2.1).
///
/// # Errors
/// [`SamlError::NotBase64Url`]; [`SamlError::TooLarge`] without decoding it.
pub fn decode(parameter: &str) -> Result<Vec<u8>, SamlError> {
    if parameter.len() > MAX_ASSERTION_BYTES / 3 * 4 + 4 {
        return Err(SamlError::TooLarge);
    }
    BASE64URL
        .decode(parameter)
        .map_err(|_| SamlError::NotBase64Url)
}

/// Reads an assertion, or a response that holds one, without proving anything.
///
/// # Errors
/// [`SamlError`] for a document that is not let in, or that is not one assertion with an id and an issuer.
pub fn read(document: &[u8]) -> Result<Unverified<'_>, SamlError> {
    let hash = Sha256::digest(document).into();
    let document = xml::parse(document, MAX_ASSERTION_BYTES)?;
    let assertion = only_assertion(document.root_element())?;
    assertion::id(assertion)?;
    let issuer = assertion::issuer(assertion)?.to_owned();
    let assertion = assertion.id();
    Ok(Unverified {
        hash,
        document,
        assertion,
        issuer,
    })
}

/// The assertion, by its place: the document's root, or a child of the response that is the root. There is no other
/// anywhere, so that no reader can take another for it.
fn only_assertion<'a, 'i>(root: Node<'a, 'i>) -> Result<Node<'a, 'i>, SamlError> {
    let encrypted = |node: &Node<'_, '_>| xml::is(*node, ASSERTION, "EncryptedAssertion");
    // Whatever namespace it is in: some reader might not look.
    let mut all = root
        .descendants()
        .filter(|node| node.is_element() && node.tag_name().name() == "Assertion");
    let Some(only) = all.next() else {
        return Err(match root.descendants().any(|node| encrypted(&node)) {
            true => SamlError::Encrypted,
            false => SamlError::NoAssertion,
        });
    };
    if all.next().is_some() {
        return Err(SamlError::SeveralAssertions);
    }
    let stands = only == root || xml::is(root, PROTOCOL, "Response") && only.parent() == Some(root);
    match stands && xml::is(only, ASSERTION, "Assertion") {
        true => Ok(only),
        false => Err(SamlError::NoAssertion),
    }
}

// Written by hand: what an assertion says is personal data, and whoever has it can use it.
impl std::fmt::Debug for Unverified<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Unverified")
            .field("issuer", &self.issuer)
            .finish_non_exhaustive()
    }
}

impl Unverified<'_> {
    /// The issuer the assertion claims.
    #[must_use]
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// Proves the assertion under the rules and the keys of its issuer at the instant `now`.
    ///
    /// The signature is checked before anything it covers, so what an error says of the contents is only ever told to
    /// someone who holds an assertion of the issuer's making.
    ///
    /// # Errors
    /// Every [`SamlError`] but those of [`read`]; [`SamlError::BadSignature`] is worth a retry with newer keys.
    pub fn verify(
        &self,
        rules: &Rules,
        keys: &KeySet,
        now: Timestamp,
    ) -> Result<Verified, SamlError> {
        if self.issuer != rules.entity_id {
            return Err(SamlError::UnknownIssuer);
        }
        if keys.valid_until().is_some_and(|until| now >= until) {
            return Err(SamlError::MetadataExpired);
        }
        let assertion = self
            .document
            .get_node(self.assertion)
            .ok_or(SamlError::NoAssertion)?;
        let signed = dsig::proved(assertion, assertion::id(assertion)?, keys)?;
        let signed = xml::parse_text(&signed)?;
        let accepted = assertion::accept(signed.root_element(), rules, now)?;
        let claim_until = accepted.expires_at.saturating_add(rules.skew());
        Ok(Verified {
            id: accepted.id,
            claim_until: claim_until.unwrap_or(Timestamp::MAX),
            principal: Principal {
                issuer: rules.entity_id.clone(),
                subject: accepted.subject,
                audiences: Vec::new(),
                groups: accepted.groups,
                claims: accepted.claims,
                auth_method: AuthMethod::Saml,
                token_hash: self.hash,
                expires_at: accepted.expires_at,
                authenticated_at: accepted.authenticated_at,
                issued_at: Some(accepted.issued_at),
                also: accepted.also,
                person_missing: accepted.person_missing,
                grant: None,
                bound: crate::identity::Bound::default(),
            },
        })
    }
}

/// Reads and proves an assertion of one issuer at the instant `now`.
///
/// # Errors
/// [`SamlError`], one variant per cause.
pub fn verify(
    document: &[u8],
    rules: &Rules,
    keys: &KeySet,
    now: Timestamp,
) -> Result<Verified, SamlError> {
    read(document)?.verify(rules, keys, now)
}

#[cfg(test)]
mod corpus;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
