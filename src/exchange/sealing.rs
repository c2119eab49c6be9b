//! What is sealed of one exchange: the bodies as they were received, but for the credential that is lent.
//!
//! Can miss: the lent credential where an upstream repeats it escaped, or in pieces with something between them. Whoever holds
//! an auditor's key reads it there; nobody else does.

use secrecy::ExposeSecret;

use super::rules::Connection;
use crate::audit::{
    record::Sealed,
    seal::{Frame, Part, Sealer, Seed},
};

/// What stands for the lent credential in what is sealed.
const REDACTED: &[u8] = b"[CREDENTIAL]";

/// The sealed side of a session.
pub(super) struct Sealing {
    sealer: Sealer,
    redactor: Redactor,
    /// The answer as received and not sealed yet.
    received: Vec<u8>,
    frames: Vec<Frame>,
    failed: bool,
}

impl Sealing {
    /// `None` where `connection` seals nothing, or nothing can be sealed for want of a seed.
    pub(super) fn new(session: &str, seed: Option<&Seed>, connection: &Connection) -> Option<Self> {
        let secret = connection
            .credential
            .as_ref()
            .map(|lent| lent.secret.expose_secret().as_bytes().to_vec());
        Some(Self {
            sealer: Sealer::new(session, seed?, &connection.auditors)?,
            redactor: Redactor {
                secret: secret.unwrap_or_default(),
                held: Vec::new(),
            },
            received: Vec::new(),
            frames: Vec::new(),
            failed: false,
        })
    }

    /// Bytes in memory.
    pub(super) fn memory(&self) -> usize {
        let frames: usize = self.frames.iter().map(|frame| frame.body.len()).sum();
        self.received.len() + self.redactor.held.len() + frames
    }

    /// Seals the request's body.
    pub(super) fn request(&mut self, body: &[u8]) -> Option<Sealed> {
        let mut text = Vec::with_capacity(body.len());
        self.redactor.push(body, &mut text);
        self.redactor.finish(&mut text);
        self.seal(Part::Request, &text)
    }

    /// A piece of the answer arrived.
    pub(super) fn received(&mut self, bytes: &[u8]) {
        self.redactor.push(bytes, &mut self.received);
    }

    /// Seals what arrived of the answer since the last call; with `end`, all that is left. `None` where there is nothing.
    pub(super) fn answer(&mut self, end: bool) -> Option<Sealed> {
        if end {
            self.redactor.finish(&mut self.received);
        }
        if self.received.is_empty() {
            return None;
        }
        let text = std::mem::take(&mut self.received);
        self.seal(Part::Answer, &text)
    }

    fn seal(&mut self, part: Part, text: &[u8]) -> Option<Sealed> {
        match self.sealer.seal(part, text) {
            Some((sealed, frames)) => {
                self.frames.extend(frames);
                Some(sealed)
            }
            None => {
                self.failed = true;
                None
            }
        }
    }

    /// What must be kept before the next record is written.
    pub(super) fn take_frames(&mut self) -> Vec<Frame> {
        std::mem::take(&mut self.frames)
    }

    /// Whether something could not be sealed.
    pub(super) fn has_failed(&self) -> bool {
        self.failed
    }
}

/// Replaces a secret in bytes that come in pieces; an empty one is nowhere.
struct Redactor {
    secret: Vec<u8>,
    /// What could be the secret's beginning: less than its length.
    held: Vec<u8>,
}

impl Redactor {
    fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        if self.secret.is_empty() {
            return out.extend_from_slice(bytes);
        }
        self.held.extend_from_slice(bytes);
        let mut from = 0;
        for at in memchr::memmem::find_iter(&self.held, &self.secret) {
            out.extend_from_slice(&self.held[from..at]);
            out.extend_from_slice(REDACTED);
            from = at + self.secret.len();
        }
        let until = from.max(self.held.len().saturating_sub(self.secret.len() - 1));
        out.extend_from_slice(&self.held[from..until]);
        self.held.drain(..until);
    }

    fn finish(&mut self, out: &mut Vec<u8>) {
        out.append(&mut self.held);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_replaced_however_the_bytes_are_cut() {
        let whole = b"a sk-123 b sk-sk-123sk-12 3sk-123";
        for cut in 1..whole.len() {
            let mut redactor = Redactor {
                secret: b"sk-123".to_vec(),
                held: Vec::new(),
            };
            let mut out = Vec::new();
            for piece in whole.chunks(cut) {
                redactor.push(piece, &mut out);
                assert!(redactor.held.len() < 6);
            }
            redactor.finish(&mut out);
            let expected = "a [CREDENTIAL] b sk-[CREDENTIAL]sk-12 3[CREDENTIAL]";
            assert_eq!(String::from_utf8(out).unwrap(), expected, "{cut}");
        }
    }
}
