//! Keys of the operators that need one, all derived from a single secret.
//!
//! Promises: a key is derived per principal unless the deployment says otherwise, so that nobody can confirm a guess
//! about what another caller wrote by sending it and comparing stand-ins; the secret is wiped when let go and never
//! shows in `Debug`.

use std::fmt;

use aws_lc_rs::{
    aead::{AES_256_GCM_SIV, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    hmac,
};
use secrecy::{ExposeSecret, SecretString};
use thiserror::Error;

/// The shortest secret in bytes.
pub const MIN_KEY_BYTES: usize = 32;
/// What every derivation begins with, so that the secret could serve another purpose too.
const CONTEXT: &[u8] = b"countersign/mask/v1\0";
/// Letters of a hash: 64 bits.
const HASH_BYTES: usize = 8;
/// Letters of a vault's nonce: 32 bits, of which nobody without the key can guess one.
const NONCE_BYTES: usize = 4;

/// The secret a deployment masks with.
pub struct MaskingKey(SecretString);

/// A secret that is too short to be a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error(
    "a masking key has at least {MIN_KEY_BYTES} characters; `countersign keygen masking` makes one"
)]
pub struct ShortKey;

/// For whom stand-ins are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope<'a> {
    /// For everyone.
    Deployment,
    /// For one principal.
    Principal {
        /// `iss`.
        issuer: &'a str,
        /// `sub`.
        subject: &'a str,
    },
}

/// The keys of one [`Scope`].
pub struct Keys {
    hash: hmac::Key,
    tokens: LessSafeKey,
    vault: hmac::Key,
}

impl fmt::Debug for MaskingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MaskingKey")
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys")
    }
}

impl MaskingKey {
    /// A key from a secret of at least [`MIN_KEY_BYTES`].
    ///
    /// # Errors
    /// [`ShortKey`].
    pub fn new(secret: SecretString) -> Result<Self, ShortKey> {
        if secret.expose_secret().len() < MIN_KEY_BYTES {
            return Err(ShortKey);
        }
        Ok(Self(secret))
    }

    /// The keys of `scope`. `None` only if the cryptographic library refuses a key of the right length.
    #[must_use]
    pub fn keys(&self, scope: Scope<'_>) -> Option<Keys> {
        let tokens = self.derive("tokenize", scope);
        let tokens = UnboundKey::new(&AES_256_GCM_SIV, tokens.as_ref()).ok()?;
        let key = |purpose| hmac::Key::new(hmac::HMAC_SHA256, self.derive(purpose, scope).as_ref());
        Some(Keys {
            hash: key("hash"),
            tokens: LessSafeKey::new(tokens),
            vault: key("vault"),
        })
    }

    /// A key by one HMAC of the secret over what it is for: a single block of HKDF-Expand (RFC 5869, section 2.3).
    fn derive(&self, purpose: &str, scope: Scope<'_>) -> hmac::Tag {
        let root = hmac::Key::new(hmac::HMAC_SHA256, self.0.expose_secret().as_bytes());
        let mut mac = hmac::Context::with_key(&root);
        mac.update(CONTEXT);
        let mut field = |text: &str| {
            mac.update(&(text.len() as u64).to_be_bytes());
            mac.update(text.as_bytes());
        };
        field(purpose);
        if let Scope::Principal { issuer, subject } = scope {
            field(issuer);
            field(subject);
        }
        mac.sign()
    }
}

impl Keys {
    /// 16 letters that are the same for the same value.
    pub(super) fn hash(&self, entity: &str, value: &str) -> String {
        let mut mac = hmac::Context::with_key(&self.hash);
        mac.update(entity.as_bytes());
        mac.update(b"\0");
        mac.update(value.as_bytes());
        letters(mac.sign().as_ref().iter().take(HASH_BYTES))
    }

    /// What a vault's placeholders for the request `body` end in.
    pub(super) fn mark(&self, body: &[u8]) -> String {
        let tag = hmac::sign(&self.vault, body);
        letters(tag.as_ref().iter().take(NONCE_BYTES))
    }

    /// `[ENTITY~letters]`, from which [`value`](Self::value) has the value back.
    pub(super) fn token(&self, entity: &str, value: &str) -> Option<String> {
        let mut sealed = value.as_bytes().to_vec();
        self.tokens
            .seal_in_place_append_tag(nonce(), Aad::from(entity.as_bytes()), &mut sealed)
            .ok()?;
        Some(format!("[{entity}~{}]", letters(sealed.iter())))
    }

    /// The value that `letters` stand for, where they were made with these keys for this entity.
    pub(super) fn value(&self, entity: &str, letters: &str) -> Option<String> {
        let mut sealed = bytes(letters)?;
        let value = self
            .tokens
            .open_in_place(nonce(), Aad::from(entity.as_bytes()), &mut sealed)
            .ok()?;
        std::str::from_utf8(value).ok().map(str::to_owned)
    }
}

/// Always the same: GCM-SIV is made to withstand that, and gives away only which values are equal (RFC 8452, section 9).
fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; NONCE_LEN])
}

/// Two letters `a` to `p` for a byte.
fn letters<'b>(bytes: impl Iterator<Item = &'b u8>) -> String {
    bytes
        .flat_map(|byte| [byte >> 4, byte & 15])
        .map(|half| char::from(b'a' + half))
        .collect()
}

fn bytes(letters: &str) -> Option<Vec<u8>> {
    let half = |letter: u8| letter.checked_sub(b'a').filter(|half| *half < 16);
    let (pairs, rest) = letters.as_bytes().as_chunks::<2>();
    let byte = |[high, low]: &[u8; 2]| Some(half(*high)? << 4 | half(*low)?);
    rest.is_empty()
        .then(|| pairs.iter().map(byte).collect())
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(subject: &str) -> Keys {
        let key = MaskingKey::new("0123456789abcdef0123456789abcdef".into()).unwrap();
        let issuer = "https://idp.example";
        key.keys(Scope::Principal { issuer, subject }).unwrap()
    }

    #[test]
    fn a_secret_that_is_too_short_is_no_key() {
        assert_eq!(MaskingKey::new("x".repeat(31).into()).err(), Some(ShortKey));
    }

    #[test]
    fn what_one_caller_is_shown_says_nothing_of_what_another_is() {
        let (alice, bob) = (keys("alice"), keys("bob"));
        assert_eq!(
            alice.hash("US_SSN", "536-22-8714"),
            keys("alice").hash("US_SSN", "536-22-8714")
        );
        assert_ne!(
            alice.hash("US_SSN", "536-22-8714"),
            bob.hash("US_SSN", "536-22-8714")
        );
        assert_ne!(
            alice.hash("US_SSN", "536-22-8714"),
            alice.hash("US_ITIN", "536-22-8714")
        );
        assert_ne!(alice.token("E", "v"), bob.token("E", "v"));
        assert_ne!(alice.mark(b"body"), bob.mark(b"body"));
        // Where issuer ends and subject begins counts.
        let key = MaskingKey::new("k".repeat(32).into()).unwrap();
        let of = |issuer, subject| {
            key.keys(Scope::Principal { issuer, subject })
                .unwrap()
                .mark(b"")
        };
        assert_ne!(of("ab", "c"), of("a", "bc"));
    }

    #[test]
    fn a_token_opens_with_its_own_key_and_entity_only() {
        let alice = keys("alice");
        let token = alice.token("US_SSN", "536-22-8714 \u{e9}").unwrap();
        let inside = token
            .strip_prefix("[US_SSN~")
            .unwrap()
            .strip_suffix(']')
            .unwrap();
        assert!(inside.bytes().all(|b| b.is_ascii_lowercase()));
        assert_eq!(
            alice.value("US_SSN", inside).as_deref(),
            Some("536-22-8714 \u{e9}")
        );
        assert_eq!(alice.value("US_ITIN", inside), None);
        assert_eq!(keys("bob").value("US_SSN", inside), None);
        let altered = inside.replacen(
            &inside[..1],
            if inside.starts_with('a') { "b" } else { "a" },
            1,
        );
        assert_eq!(alice.value("US_SSN", &altered), None);
        for bad in ["", "a", "zz", "\u{e9}\u{e9}"] {
            assert_eq!(alice.value("US_SSN", bad), None);
        }
        let shown = format!(
            "{alice:?} {:?}",
            MaskingKey::new("s".repeat(32).into()).unwrap()
        );
        assert_eq!(shown, "Keys MaskingKey");
    }
}
