//! Auditors' keys, in their textual forms.

use std::{fmt, str::FromStr};

use base64::{Engine, engine::general_purpose::STANDARD};
use sha2::{Digest, Sha256};

use super::hpke;
use crate::audit::note::valid_name;

const PUBLIC: &str = "AUDITOR+";
const PRIVATE: &str = "PRIVATE+AUDITOR+";

/// Why a text is no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not of the form.
    #[error("not an auditor's key: `countersign keygen auditor` makes one")]
    Form,
    /// A name with a space, a plus or a control character, or an empty one.
    #[error("a key name must not be empty nor contain spaces, plus signs or control characters")]
    Name,
}

/// The public half, which payloads are sealed to: `AUDITOR+<name>+<id>+<base64>`.
#[derive(Clone, PartialEq, Eq)]
pub struct AuditorKey {
    name: String,
    id: u32,
    pub(super) public: [u8; 32],
}

impl AuditorKey {
    fn new(name: &str, public: [u8; 32]) -> Self {
        let mut hash = Sha256::new_with_prefix(b"countersign/auditor/v1\0");
        hash.update(name.as_bytes());
        hash.update(b"\n");
        hash.update(public);
        let hash = hash.finalize();
        Self {
            name: name.to_owned(),
            id: u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]]),
            public,
        }
    }

    /// What names it in records and in what is sealed to it.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.id
    }

    /// The key's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Display for AuditorKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = STANDARD.encode(self.public);
        write!(f, "{PUBLIC}{}+{:08x}+{key}", self.name, self.id)
    }
}

impl fmt::Debug for AuditorKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for AuditorKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let (name, id, public) = parse(text, PUBLIC)?;
        let key = Self::new(name, public);
        (key.id == id).then_some(key).ok_or(KeyError::Form)
    }
}

/// The private half, which only the auditor has. Its `Debug` shows the public half.
#[derive(Clone)]
pub struct AuditorSecret {
    pub(super) private: [u8; 32],
    public: AuditorKey,
}

impl AuditorSecret {
    /// The key of 32 random bytes.
    ///
    /// # Errors
    /// [`KeyError::Name`]; [`KeyError::Form`] where the cryptographic library refuses the bytes.
    pub fn from_seed(name: &str, seed: [u8; 32]) -> Result<Self, KeyError> {
        if !valid_name(name) {
            return Err(KeyError::Name);
        }
        let public = hpke::public(&seed).ok_or(KeyError::Form)?;
        Ok(Self {
            private: seed,
            public: AuditorKey::new(name, public),
        })
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> &AuditorKey {
        &self.public
    }

    /// The textual form: a secret.
    #[must_use]
    pub fn encode(&self) -> String {
        let AuditorKey { name, id, .. } = &self.public;
        format!("{PRIVATE}{name}+{id:08x}+{}", STANDARD.encode(self.private))
    }
}

impl fmt::Debug for AuditorSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AuditorSecret({})", self.public)
    }
}

impl FromStr for AuditorSecret {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let (name, id, private) = parse(text, PRIVATE)?;
        let key = Self::from_seed(name, private)?;
        (key.public.id == id).then_some(key).ok_or(KeyError::Form)
    }
}

fn parse<'t>(text: &'t str, prefix: &str) -> Result<(&'t str, u32, [u8; 32]), KeyError> {
    let parsed = || {
        let (name, rest) = text.trim().strip_prefix(prefix)?.split_once('+')?;
        let (id, key) = rest.split_once('+')?;
        let number = u32::from_str_radix(id, 16).ok()?;
        // One spelling: `A` would be a second form of `a`.
        let id = (format!("{number:08x}") == id).then_some(number)?;
        let key = STANDARD.decode(key).ok()?.try_into().ok()?;
        valid_name(name).then_some((name, id, key))
    };
    parsed().ok_or(KeyError::Form)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_read_back_and_one_changed_character_is_seen() {
        let secret = AuditorSecret::from_seed("lena@example", [7; 32]).unwrap();
        let (private, public) = (secret.encode(), secret.public().to_string());
        assert_eq!(
            private.parse::<AuditorSecret>().unwrap().public(),
            secret.public()
        );
        assert_eq!(
            format!("{public}\n").parse::<AuditorKey>().unwrap(),
            *secret.public()
        );
        assert!(!format!("{secret:?}").contains(&STANDARD.encode([7; 32])));
        for text in [&private, &public] {
            for at in 0..text.len() {
                let mut changed = text.clone().into_bytes();
                changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
                let changed = String::from_utf8(changed).unwrap();
                assert!(changed.parse::<AuditorKey>().is_err(), "{changed}");
                // Five bits of an X25519 key count for nothing (RFC 7748, section 5): it stays the same key.
                let other = changed.parse::<AuditorSecret>();
                assert!(
                    other.is_err() || other.is_ok_and(|same| same.public() == secret.public()),
                    "{changed}"
                );
            }
        }
        assert!(private.parse::<AuditorKey>().is_err() && public.parse::<AuditorSecret>().is_err());
        assert!(matches!(
            AuditorSecret::from_seed("a b", [7; 32]),
            Err(KeyError::Name)
        ));
    }
}
