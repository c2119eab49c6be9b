//! Signed notes (<https://c2sp.org/signed-note>) with Ed25519, and the key forms that go with them.
//!
//! ```text
//! text, ending in a newline
//! <empty line>
//! — key name base64(key id || signature)
//! ```
//! The public half is written `name+keyid+base64(0x01 || key)`, the private half `PRIVATE+KEY+name+keyid+base64(0x01 || seed)`,
//! which are the forms every other tool of this family reads.

use std::{fmt, str::FromStr};

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use base64::{Engine, engine::general_purpose::STANDARD};
use sha2::{Digest, Sha256};

/// The signature type identifier of Ed25519 in the specification.
const ED25519_TYPE: u8 = 1;
const PRIVATE_PREFIX: &str = "PRIVATE+KEY+";
/// The em dash and space a signature line starts with.
const SIGNATURE_START: &str = "\u{2014} ";
/// Signatures looked at in one note; the specification asks for at least 16.
const MAX_SIGNATURES: usize = 100;

/// What is wrong with a note or a key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// Not of the form of a signed note.
    #[error("not a signed note")]
    Malformed,
    /// None of its signatures is by a trusted key.
    #[error("not signed by a trusted key")]
    Untrusted,
    /// A signature that names a trusted key is not by it.
    #[error("the signature by `{0}` is wrong")]
    WrongSignature(String),
    /// Not a key in its textual form.
    #[error("not a key: expected `name+keyid+base64`")]
    BadKey,
    /// A key name with a space, a plus or a control character, or an empty one.
    #[error("a key name must not be empty nor contain spaces, plus signs or control characters")]
    BadName,
}

/// Whether `name` may name a key: not empty, without spaces, plus signs and control characters.
#[must_use]
pub fn valid_name(name: &str) -> bool {
    !name.is_empty() && !name.contains(|c: char| c.is_whitespace() || c.is_control() || c == '+')
}

/// The public half: checks signatures.
#[derive(Clone, PartialEq, Eq)]
pub struct VerifierKey {
    name: String,
    id: u32,
    public: [u8; 32],
}

impl VerifierKey {
    fn new(name: &str, public: [u8; 32]) -> Self {
        Self {
            name: name.to_owned(),
            id: key_id(name, &public),
            public,
        }
    }

    /// The key's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}+{:08x}+{}",
            self.name,
            self.id,
            encode_key(&self.public)
        )
    }
}

impl fmt::Debug for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for VerifierKey {
    type Err = NoteError;

    fn from_str(text: &str) -> Result<Self, NoteError> {
        let (name, id, public) = parse_key(text.trim())?;
        let key = Self::new(name, public);
        if key.id != id {
            Err(NoteError::BadKey)
        } else {
            Ok(key)
        }
    }
}

/// The private half: signs. Its `Debug` shows the public half only.
#[derive(Clone)]
pub struct SigningKey {
    pair: Ed25519KeyPair,
    public: VerifierKey,
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.public)
    }
}

impl SigningKey {
    /// The key of a 32-byte seed, which whoever draws it must draw from a good source of randomness.
    ///
    /// # Errors
    /// [`NoteError::BadName`]; [`NoteError::BadKey`] where the cryptographic library refuses the seed.
    pub fn from_seed(name: &str, seed: &[u8; 32]) -> Result<Self, NoteError> {
        if !valid_name(name) {
            return Err(NoteError::BadName);
        }
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_| NoteError::BadKey)?;
        let public = pair
            .public_key()
            .as_ref()
            .try_into()
            .map_err(|_| NoteError::BadKey)?;
        Ok(Self {
            pair,
            public: VerifierKey::new(name, public),
        })
    }

    /// The public half.
    #[must_use]
    pub fn verifier(&self) -> &VerifierKey {
        &self.public
    }

    /// The textual form of the key of `seed`: a secret.
    ///
    /// # Errors
    /// As [`SigningKey::from_seed`].
    pub fn encode(name: &str, seed: &[u8; 32]) -> Result<String, NoteError> {
        let key = Self::from_seed(name, seed)?;
        Ok(format!(
            "{PRIVATE_PREFIX}{name}+{:08x}+{}",
            key.public.id,
            encode_key(seed)
        ))
    }

    /// Signs `text`, which must end in a newline: the whole note.
    #[must_use]
    pub fn sign(&self, text: &str) -> String {
        let mut signature = self.public.id.to_be_bytes().to_vec();
        signature.extend_from_slice(self.pair.sign(text.as_bytes()).as_ref());
        format!(
            "{text}\n{SIGNATURE_START}{} {}\n",
            self.public.name,
            STANDARD.encode(signature)
        )
    }
}

impl FromStr for SigningKey {
    type Err = NoteError;

    fn from_str(text: &str) -> Result<Self, NoteError> {
        let rest = text
            .trim()
            .strip_prefix(PRIVATE_PREFIX)
            .ok_or(NoteError::BadKey)?;
        let (name, id, seed) = parse_key(rest)?;
        let key = Self::from_seed(name, &seed)?;
        if key.public.id != id {
            Err(NoteError::BadKey)
        } else {
            Ok(key)
        }
    }
}

/// The text of a note, its signatures unchecked: for a holder who compares what the text says with what they kept.
///
/// # Errors
/// [`NoteError::Malformed`].
pub fn text(note: &str) -> Result<&str, NoteError> {
    split(note).map(|(text, _)| text)
}

/// The text of a note that one of `trusted` has signed.
///
/// # Errors
/// [`NoteError::Malformed`]; [`NoteError::WrongSignature`] where a signature names a trusted key and is not by it;
/// [`NoteError::Untrusted`] where none names a trusted key.
pub fn open<'a>(note: &'a str, trusted: &[VerifierKey]) -> Result<&'a str, NoteError> {
    let (text, signatures) = split(note)?;
    let mut signed = false;
    for line in signatures.lines() {
        let (name, id, signature) = parse_signature(line).ok_or(NoteError::Malformed)?;
        let Some(key) = trusted.iter().find(|key| key.name == name && key.id == id) else {
            continue;
        };
        UnparsedPublicKey::new(&ED25519, key.public)
            .verify(text.as_bytes(), &signature)
            .map_err(|_| NoteError::WrongSignature(name.to_owned()))?;
        signed = true;
    }
    if signed {
        Ok(text)
    } else {
        Err(NoteError::Untrusted)
    }
}

/// Who signed a note, as far as it says so itself: `name+keyid` of each signature.
#[must_use]
pub fn signers(note: &str) -> Vec<String> {
    let signatures = split(note).map_or("", |(_, signatures)| signatures);
    let signers = signatures.lines().filter_map(parse_signature);
    signers
        .map(|(name, id, _)| format!("{name}+{id:08x}"))
        .collect()
}

/// Text (with its newline) and signature lines, divided at the last empty line.
fn split(note: &str) -> Result<(&str, &str), NoteError> {
    if note.contains(|c: char| c < ' ' && c != '\n') {
        return Err(NoteError::Malformed);
    }
    let at = note.rfind("\n\n").ok_or(NoteError::Malformed)?;
    let (text, signatures) = (&note[..=at], &note[at + 2..]);
    if !signatures.ends_with('\n') || signatures.lines().count() > MAX_SIGNATURES {
        return Err(NoteError::Malformed);
    }
    if signatures
        .lines()
        .any(|line| parse_signature(line).is_none())
    {
        return Err(NoteError::Malformed);
    }
    Ok((text, signatures))
}

fn parse_signature(line: &str) -> Option<(&str, u32, Vec<u8>)> {
    let (name, encoded) = line.strip_prefix(SIGNATURE_START)?.split_once(' ')?;
    let bytes = STANDARD.decode(encoded).ok()?;
    let (id, signature) = bytes.split_first_chunk::<4>()?;
    (valid_name(name) && !signature.is_empty())
        .then(|| (name, u32::from_be_bytes(*id), signature.to_vec()))
}

fn key_id(name: &str, public: &[u8; 32]) -> u32 {
    let mut hasher = Sha256::new();
    hasher.update(name.as_bytes());
    hasher.update([b'\n', ED25519_TYPE]);
    hasher.update(public);
    let hash: [u8; 32] = hasher.finalize().into();
    u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]])
}

fn encode_key(bytes: &[u8; 32]) -> String {
    let mut typed = vec![ED25519_TYPE];
    typed.extend_from_slice(bytes);
    STANDARD.encode(typed)
}

fn parse_key(text: &str) -> Result<(&str, u32, [u8; 32]), NoteError> {
    let mut parts = text.splitn(3, '+');
    let (Some(name), Some(id), Some(encoded)) = (parts.next(), parts.next(), parts.next()) else {
        return Err(NoteError::BadKey);
    };
    if !valid_name(name) || id.len() != 8 {
        return Err(NoteError::BadKey);
    }
    let id = u32::from_str_radix(id, 16).map_err(|_| NoteError::BadKey)?;
    let typed = STANDARD.decode(encoded).map_err(|_| NoteError::BadKey)?;
    match typed.split_first() {
        Some((&ED25519_TYPE, key)) => {
            Ok((name, id, key.try_into().map_err(|_| NoteError::BadKey)?))
        }
        _ => Err(NoteError::BadKey),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of Go's `golang.org/x/mod/sumdb/note` package.
    const GO_VERIFIER: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
    const GO_SIGNER: &str =
        "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz";
    const GO_NOTE: &str = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n\n\u{2014} PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";

    #[test]
    fn keys_and_note_of_the_go_implementation_are_byte_for_byte_ours() {
        let signer: SigningKey = GO_SIGNER.parse().unwrap();
        assert_eq!(signer.verifier().to_string(), GO_VERIFIER);
        let text = open(GO_NOTE, &[GO_VERIFIER.parse().unwrap()]).unwrap();
        assert_eq!(signer.sign(text), GO_NOTE);
    }

    #[test]
    fn a_note_counts_only_with_a_right_signature_by_a_trusted_key() {
        let trusted: VerifierKey = GO_VERIFIER.parse().unwrap();
        let other = SigningKey::from_seed("PeterNeumann", &[7; 32]).unwrap();
        assert_eq!(open(GO_NOTE, &[]), Err(NoteError::Untrusted));
        assert_eq!(
            open(GO_NOTE, std::slice::from_ref(other.verifier())),
            Err(NoteError::Untrusted)
        );
        let altered = GO_NOTE.replacen("answer", "Answer", 1);
        assert_eq!(
            open(&altered, std::slice::from_ref(&trusted)),
            Err(NoteError::WrongSignature("PeterNeumann".into()))
        );
        // A witness's signature beside ours neither helps nor hurts.
        let with_witness = format!(
            "{GO_NOTE}{}",
            other.sign("x\n").split_once("\n\n").unwrap().1
        );
        assert!(open(&with_witness, &[trusted]).is_ok());
    }

    /// The crate `signed_note` shares no code with this.
    #[test]
    fn another_implementation_signs_the_same_and_believes_the_same() {
        use signed_note::{Note, StandardSigner, StandardVerifier, VerifierList};

        for n in 0..20 {
            let secret = SigningKey::encode("countersign/demo/a", &[n; 32]).unwrap();
            let ours: SigningKey = secret.parse().unwrap();
            let text = format!("countersign/demo/{n}\n{n}\nAAAA\ntime x\n");
            let mut theirs = Note::new(text.as_bytes(), &[]).unwrap();
            theirs
                .add_sigs(&[&StandardSigner::new(&secret).unwrap()])
                .unwrap();
            let signed = ours.sign(&text);
            assert_eq!(theirs.to_bytes(), signed.as_bytes());
            let known = |key: &SigningKey| {
                let verifier = StandardVerifier::new(&key.verifier().to_string()).unwrap();
                VerifierList::new(vec![Box::new(verifier)])
            };
            let read = Note::from_bytes(signed.as_bytes()).unwrap();
            assert!(read.verify(&known(&ours)).is_ok());
            let other = SigningKey::from_seed("countersign/demo/a", &[n + 1; 32]).unwrap();
            assert!(read.verify(&known(&other)).is_err());
            let changed = signed.replacen("demo", "dem0", 1);
            let changed = Note::from_bytes(changed.as_bytes()).unwrap();
            assert!(changed.verify(&known(&ours)).is_err());
        }
    }

    #[test]
    fn what_is_not_a_note_is_not_read_as_one() {
        let trusted: VerifierKey = GO_VERIFIER.parse().unwrap();
        for bad in [
            "",
            "text\n",
            "text\n\n",
            "text\n\n- PeterNeumann x08go/ZJ\n",
            GO_NOTE.trim_end(),
            &GO_NOTE.replacen("problem,", "problem,\r", 1),
            &GO_NOTE.replacen("PeterNeumann ", "Peter+Neumann ", 1),
        ] {
            assert_eq!(
                open(bad, std::slice::from_ref(&trusted)),
                Err(NoteError::Malformed),
                "{bad:?}"
            );
        }
    }

    #[test]
    fn a_key_with_the_wrong_id_or_type_is_refused_and_debug_keeps_the_secret() {
        assert!(
            GO_VERIFIER
                .replace("c74f20a3", "c74f20a4")
                .parse::<VerifierKey>()
                .is_err()
        );
        assert!(
            GO_VERIFIER
                .replace("+ARpc", "+BRpc")
                .parse::<VerifierKey>()
                .is_err()
        );
        assert!("PRIVATE+KEY+x".parse::<SigningKey>().is_err());
        let signer: SigningKey = GO_SIGNER.parse().unwrap();
        assert!(!format!("{signer:?}").contains("EKFALVFGyNhPJEMzD1QIDr"));
        assert!(matches!(
            SigningKey::from_seed("a b", &[0; 32]),
            Err(NoteError::BadName)
        ));
    }
}
