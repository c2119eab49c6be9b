//! Sealed payloads: originals encrypted so that auditors can read them and the gateway cannot.
//!
//! ```text
//! seed --> data key, salt --HPKE--> wrapped to each auditor      (beside the chain; destroyed by an erasure)
//!             |       '--HMAC(text)------.
//!             '--AES-256-GCM--> pieces   +--> commitment         (in the record)
//!                                 '--SHA-256-'
//! ```
//! Promises: once the seed is dropped, nobody without an auditor's key can read a piece; what is read back is what was sealed,
//! in the session and at the place it was sealed for. A record commits to the ciphertext and to a keyed hash, so that neither a
//! guess at the text can be confirmed from it, nor anything at all once the wrapped keys are gone. Never does: draw random
//! numbers; whoever gives a seed must have drawn it for this session alone. Cannot hide: how long a text is.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use sha2::{Digest, Sha256};

use super::record::Sealed;

mod hpke;
mod key;

pub use key::{AuditorKey, AuditorSecret, KeyError};

/// Most auditors' keys one payload is sealed to.
pub const MAX_AUDITORS: usize = 16;

/// Most text in one piece, in bytes: its frame stays under what a Kafka producer takes by default.
const PIECE: usize = 512 << 10;

/// The HPKE `info` of wrapped keys, before the session's id.
const INFO: &[u8] = b"countersign/seal/v1\0";

/// Bytes of one wrapped key: the auditor's key id, the encapsulated key, and data key and salt with their tag.
const WRAPPED: usize = 4 + 32 + 64 + 16;

/// 32 random bytes from which everything of one session is derived.
#[derive(Clone)]
pub struct Seed(pub [u8; 32]);

impl fmt::Debug for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seed")
    }
}

/// Which text is sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The request's body as it was received.
    Request,
    /// The answer's body as it was received.
    Answer,
}

impl Part {
    /// As it goes into every derivation.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Answer => "answer",
        }
    }
}

/// What is kept beside the chain, one after the other.
#[derive(Clone, PartialEq, Eq)]
pub struct Frame {
    /// The session.
    pub session: String,
    /// What it is.
    pub kind: FrameKind,
    /// The wrapped keys, or the piece's ciphertext.
    pub body: Vec<u8>,
}

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameKind {
    /// The data key and the salt, wrapped to each auditor.
    Keys,
    /// The same, destroyed: zeros.
    Erased,
    /// The piece of this number.
    Piece(u32),
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frame")
            .field("session", &self.session)
            .field("kind", &self.kind)
            .field("bytes", &self.body.len())
            .finish()
    }
}

/// Why something sealed cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnsealError {
    /// The key is none of those it was sealed to.
    #[error("it is not sealed to this key ({key:08x}) but to {sealed_to}")]
    OtherKey {
        /// The key's id.
        key: u32,
        /// The ids of the keys it is sealed to.
        sealed_to: String,
    },
    /// The wrapped key is not as it was written.
    #[error("the wrapped key was altered")]
    Keys,
    /// A piece is not there.
    #[error("piece {0} is not there")]
    Missing(u32),
    /// The ciphertext is not the one that the record commits to.
    #[error("the pieces from {0} on are not those that the record commits to")]
    Altered(u32),
    /// The ciphertext is right and what it says is not: who sealed it lied, or the key is another session's.
    #[error("what the pieces from {0} on say is not what the record commits to")]
    Contradicted(u32),
}

struct Keys {
    data: LessSafeKey,
    salt: [u8; 32],
}

impl Keys {
    fn new(both: &[u8; 64]) -> Option<Self> {
        let (data, salt) = both.split_at(32);
        Some(Self {
            data: LessSafeKey::new(UnboundKey::new(&AES_256_GCM, data).ok()?),
            salt: salt.try_into().ok()?,
        })
    }

    /// Never a bare hash: under a salt that nobody keeps but the auditors.
    fn commit(&self, part: Part, first: u32, text: &[u8]) -> String {
        let place = first.to_be_bytes();
        let domain: &[u8] = b"countersign/sealed/v1\0";
        hex::encode(hpke::mac(
            &self.salt,
            &[domain, part.name().as_bytes(), &place, text],
        ))
    }
}

/// Seals one session.
pub struct Sealer {
    session: String,
    keys: Keys,
    wrapped: Vec<u8>,
    ids: Vec<String>,
    next: u32,
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealer")
            .field("session", &self.session)
            .finish_non_exhaustive()
    }
}

impl Sealer {
    /// A sealer for `session`, to all of `auditors`. `None` where there are none, or one's key is none.
    #[must_use]
    pub fn new(session: &str, seed: &Seed, auditors: &[AuditorKey]) -> Option<Self> {
        if auditors.is_empty() || auditors.len() > MAX_AUDITORS {
            return None;
        }
        let derived = |what: &[u8], n: u8| {
            let domain: &[u8] = b"countersign/seal/v1\0";
            hpke::mac(&seed.0, &[domain, what, &[n]])
        };
        let mut both = [0; 64];
        both[..32].copy_from_slice(&derived(b"key", 0));
        both[32..].copy_from_slice(&derived(b"salt", 0));
        let mut wrapped = Vec::with_capacity(auditors.len() * WRAPPED);
        for (n, auditor) in (0..).zip(auditors) {
            let ephemeral = derived(b"ephemeral", n);
            let id = auditor.id().to_be_bytes();
            let (encapsulated, sealed) =
                hpke::seal(&auditor.public, &ephemeral, &info(session), &id, &both)?;
            wrapped.extend_from_slice(&id);
            wrapped.extend_from_slice(&encapsulated);
            wrapped.extend_from_slice(&sealed);
        }
        Some(Self {
            session: session.to_owned(),
            keys: Keys::new(&both)?,
            wrapped,
            ids: auditors
                .iter()
                .map(|auditor| format!("{:08x}", auditor.id()))
                .collect(),
            next: 0,
        })
    }

    /// Seals `text`: the commitment for the record, and the frames that must be kept before it is written; the session's first
    /// bring its wrapped keys. `None` where the cryptographic library fails or the pieces are too many to count.
    pub fn seal(&mut self, part: Part, text: &[u8]) -> Option<(Sealed, Vec<Frame>)> {
        let first = self.next;
        let mut frames = Vec::new();
        let mut keys = Vec::new();
        if first == 0 {
            keys.clone_from(&self.ids);
            frames.push(self.frame(FrameKind::Keys, self.wrapped.clone()));
        }
        let mut hash = Sha256::new();
        // Nothing is a piece too, so that its place is taken.
        let pieces = text.chunks(PIECE).chain(text.is_empty().then_some(&[][..]));
        for piece in pieces {
            let n = self.next;
            self.next = n.checked_add(1)?;
            let mut body = piece.to_vec();
            self.keys
                .data
                .seal_in_place_append_tag(
                    nonce(n),
                    Aad::from(aad(&self.session, part, n)),
                    &mut body,
                )
                .ok()?;
            hash.update(&body);
            frames.push(self.frame(FrameKind::Piece(n), body));
        }
        let sealed = Sealed {
            first,
            pieces: self.next - first,
            bytes: text.len() as u64,
            sha256: hex::encode(hash.finalize()),
            hmac: self.keys.commit(part, first, text),
            keys,
        };
        Some((sealed, frames))
    }

    fn frame(&self, kind: FrameKind, body: Vec<u8>) -> Frame {
        Frame {
            session: self.session.clone(),
            kind,
            body,
        }
    }
}

/// Reads what a [`Sealer`] sealed.
pub struct Opener {
    session: String,
    keys: Keys,
}

impl fmt::Debug for Opener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opener")
            .field("session", &self.session)
            .finish_non_exhaustive()
    }
}

impl Opener {
    /// An opener for `session`, from the body of its frame of keys.
    ///
    /// # Errors
    /// [`UnsealError::OtherKey`], [`UnsealError::Keys`].
    pub fn new(session: &str, wrapped: &[u8], secret: &AuditorSecret) -> Result<Self, UnsealError> {
        let own = secret.public().id().to_be_bytes();
        let mut others = Vec::new();
        for one in wrapped.chunks(WRAPPED) {
            let (Some(id), Some(encapsulated), Some(sealed)) =
                (one.get(..4), one.get(4..36), one.get(36..))
            else {
                return Err(UnsealError::Keys);
            };
            if id != own {
                others.push(hex::encode(id));
                continue;
            }
            let encapsulated = encapsulated.try_into().map_err(|_| UnsealError::Keys)?;
            let both = hpke::open(&secret.private, encapsulated, &info(session), id, sealed);
            let both: [u8; 64] = both
                .and_then(|both| both.try_into().ok())
                .ok_or(UnsealError::Keys)?;
            return Ok(Self {
                session: session.to_owned(),
                keys: Keys::new(&both).ok_or(UnsealError::Keys)?,
            });
        }
        Err(UnsealError::OtherKey {
            key: secret.public().id(),
            sealed_to: others.join(", "),
        })
    }

    /// The text that `sealed` commits to; `piece` gives a piece's ciphertext by its number.
    ///
    /// # Errors
    /// [`UnsealError`]: nothing of it is given out where not all of it is right.
    pub fn open<E: From<UnsealError>>(
        &self,
        part: Part,
        sealed: &Sealed,
        mut piece: impl FnMut(u32) -> Result<Option<Vec<u8>>, E>,
    ) -> Result<Vec<u8>, E> {
        let mut hash = Sha256::new();
        let mut text = Vec::new();
        let mut sound = true;
        for n in sealed.first..sealed.first.saturating_add(sealed.pieces) {
            let mut body = piece(n)?.ok_or(UnsealError::Missing(n))?;
            hash.update(&body);
            let aad = Aad::from(aad(&self.session, part, n));
            match self.keys.data.open_in_place(nonce(n), aad, &mut body) {
                Ok(opened) => text.extend_from_slice(opened),
                Err(_) => sound = false,
            }
        }
        if hex::encode(hash.finalize()) != sealed.sha256 {
            return Err(UnsealError::Altered(sealed.first).into());
        }
        if !sound || self.keys.commit(part, sealed.first, &text) != sealed.hmac {
            return Err(UnsealError::Contradicted(sealed.first).into());
        }
        Ok(text)
    }
}

/// INVARIANT: a data key is one session's, and no number comes twice in it.
fn nonce(n: u32) -> Nonce {
    let mut nonce = [0; 12];
    nonce[8..].copy_from_slice(&n.to_be_bytes());
    Nonce::assume_unique_for_key(nonce)
}

fn info(session: &str) -> Vec<u8> {
    [INFO, session.as_bytes()].concat()
}

fn aad(session: &str, part: Part, n: u32) -> Vec<u8> {
    let place = n.to_be_bytes();
    [
        INFO,
        session.as_bytes(),
        b"\0",
        part.name().as_bytes(),
        &place,
    ]
    .concat()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn auditor(n: u8) -> AuditorSecret {
        AuditorSecret::from_seed(&format!("auditor-{n}"), [n; 32]).unwrap()
    }

    type Sealing = (Sealed, Sealed, Vec<u8>, BTreeMap<u32, Vec<u8>>);

    fn sealed(request: &[u8], answer: &[u8]) -> Sealing {
        let auditors = [auditor(1).public().clone(), auditor(2).public().clone()];
        let mut sealer = Sealer::new("s-1", &Seed([9; 32]), &auditors).unwrap();
        let (first, mut frames) = sealer.seal(Part::Request, request).unwrap();
        let (second, more) = sealer.seal(Part::Answer, answer).unwrap();
        frames.extend(more);
        let keys = frames.remove(0);
        assert_eq!(keys.kind, FrameKind::Keys);
        let pieces = frames
            .into_iter()
            .map(|frame| match frame.kind {
                FrameKind::Piece(n) => (n, frame.body),
                other => panic!("{other:?}"),
            })
            .collect();
        (first, second, keys.body, pieces)
    }

    fn open(
        opener: &Opener,
        part: Part,
        sealed: &Sealed,
        pieces: &BTreeMap<u32, Vec<u8>>,
    ) -> Result<Vec<u8>, UnsealError> {
        opener.open(part, sealed, |n| Ok(pieces.get(&n).cloned()))
    }

    #[test]
    fn every_auditor_reads_what_was_sealed_and_nobody_else() {
        let request = vec![b'q'; PIECE * 2 + 1];
        let (first, second, keys, pieces) = sealed(&request, b"");
        assert_eq!(
            (first.first, first.pieces, first.bytes),
            (0, 3, request.len() as u64)
        );
        assert_eq!((second.first, second.pieces, second.keys.len()), (3, 1, 0));
        assert_eq!(first.keys.len(), 2);
        for n in [1, 2] {
            let opener = Opener::new("s-1", &keys, &auditor(n)).unwrap();
            assert_eq!(
                open(&opener, Part::Request, &first, &pieces).unwrap(),
                request
            );
            assert_eq!(open(&opener, Part::Answer, &second, &pieces).unwrap(), b"");
        }
        let stranger = Opener::new("s-1", &keys, &auditor(3)).map(drop);
        assert!(
            matches!(stranger, Err(UnsealError::OtherKey { sealed_to, .. }) if sealed_to == first.keys.join(", "))
        );
        let elsewhere = Opener::new("s-2", &keys, &auditor(1)).map(drop);
        assert_eq!(
            elsewhere,
            Err(UnsealError::Keys),
            "wrapped for one session alone"
        );
        let erased = Opener::new("s-1", &vec![0; keys.len()], &auditor(1)).map(drop);
        assert!(matches!(erased, Err(UnsealError::OtherKey { .. })));
    }

    #[test]
    fn nothing_is_read_that_the_record_does_not_commit_to() {
        let (first, second, keys, pieces) = sealed(b"the request", b"the answer");
        let opener = Opener::new("s-1", &keys, &auditor(1)).unwrap();
        let mut bad = pieces.clone();
        bad.get_mut(&0).unwrap()[3] ^= 1;
        assert_eq!(
            open(&opener, Part::Request, &first, &bad),
            Err(UnsealError::Altered(0))
        );
        bad.remove(&0);
        assert_eq!(
            open(&opener, Part::Request, &first, &bad),
            Err(UnsealError::Missing(0))
        );
        let mut lie = first.clone();
        lie.hmac = second.hmac.clone();
        assert_eq!(
            open(&opener, Part::Request, &lie, &pieces),
            Err(UnsealError::Contradicted(0))
        );
        assert_eq!(
            open(&opener, Part::Answer, &first, &pieces),
            Err(UnsealError::Contradicted(0))
        );
        let mut moved = pieces.clone();
        moved.insert(0, pieces[&1].clone());
        assert_eq!(
            open(&opener, Part::Request, &first, &moved),
            Err(UnsealError::Altered(0))
        );
    }

    #[test]
    fn a_guess_at_the_text_cannot_be_confirmed_from_the_record() {
        let auditors = [auditor(1).public().clone()];
        let commitment = |seed| {
            let mut sealer = Sealer::new("s-1", &Seed(seed), &auditors).unwrap();
            sealer.seal(Part::Request, b"yes").unwrap().0
        };
        let (one, other) = (commitment([1; 32]), commitment([2; 32]));
        assert!(one.sha256 != other.sha256 && one.hmac != other.hmac);
        let bare = hex::encode(Sha256::digest(b"yes"));
        assert!(one.sha256 != bare && one.hmac != bare);
        assert!(Sealer::new("s-1", &Seed([1; 32]), &[]).is_none());
    }
}
