//! What is sealed of one exchange: the bodies as they were received, but for the connection's credentials.
//!
//! Can miss: a credential where an upstream repeats it escaped, or in pieces with something between them. Whoever holds
//! an auditor's key reads it there; nobody else does.

use secrecy::zeroize::Zeroizing;

use super::{lending::Guard, rules::Connection};
use crate::audit::{
    record::Sealed,
    seal::{Frame, Part, Sealer, Seed},
};

/// What stands for a credential in what is sealed.
const REDACTED: &[u8] = b"[CREDENTIAL]";

/// The sealed side of a session.
pub(super) struct Sealing {
    sealer: Sealer,
    redactors: Redactors,
    /// The answer as received and not sealed yet.
    received: Vec<u8>,
    frames: Vec<Frame>,
    failed: bool,
}

impl Sealing {
    /// `None` where `connection` seals nothing, or nothing can be sealed for want of a seed.
    pub(super) fn new(
        session: &str,
        seed: Option<&Seed>,
        connection: &Connection,
        guard: &Guard,
    ) -> Option<Self> {
        Some(Self {
            sealer: Sealer::new(session, seed?, &connection.auditors)?,
            redactors: Redactors(guard.exposed().map(Redactor::new).collect()),
            received: Vec::new(),
            frames: Vec::new(),
            failed: false,
        })
    }

    /// Bytes in memory.
    pub(super) fn memory(&self) -> usize {
        let frames: usize = self.frames.iter().map(|frame| frame.body.len()).sum();
        self.received.len() + self.redactors.held() + frames
    }

    /// Seals the request's body.
    pub(super) fn request(&mut self, body: &[u8]) -> Option<Sealed> {
        let mut text = Vec::with_capacity(body.len());
        self.redactors.push(body, &mut text);
        self.redactors.finish(&mut text);
        self.seal(Part::Request, &text)
    }

    /// A piece of the answer arrived.
    pub(super) fn received(&mut self, bytes: &[u8]) {
        self.redactors.push(bytes, &mut self.received);
    }

    /// Seals what arrived of the answer since the last call; with `end`, all that is left. `None` where there is nothing.
    pub(super) fn answer(&mut self, end: bool) -> Option<Sealed> {
        if end {
            self.redactors.finish(&mut self.received);
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

/// One for each secret, each reading what the one before it lets out.
struct Redactors(Vec<Redactor>);

impl Redactors {
    fn held(&self) -> usize {
        self.0.iter().map(|redactor| redactor.held.len()).sum()
    }

    fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        let Some((last, before)) = self.0.split_last_mut() else {
            return out.extend_from_slice(bytes);
        };
        let mut text = bytes.to_vec();
        for redactor in before {
            let read = std::mem::take(&mut text);
            redactor.push(&read, &mut text);
        }
        last.push(&text, out);
    }

    fn finish(&mut self, out: &mut Vec<u8>) {
        let mut rest = Vec::new();
        for redactor in &mut self.0 {
            let read = std::mem::take(&mut rest);
            redactor.push(&read, &mut rest);
            redactor.finish(&mut rest);
        }
        out.append(&mut rest);
    }
}

/// Replaces a secret in bytes that come in pieces.
struct Redactor {
    secret: Zeroizing<Vec<u8>>,
    /// What could be the secret's beginning: less than its length.
    held: Vec<u8>,
}

impl Redactor {
    fn new(secret: &str) -> Self {
        Self {
            secret: Zeroizing::new(secret.as_bytes().to_vec()),
            held: Vec::new(),
        }
    }

    fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        self.held.extend_from_slice(bytes);
        let mut from = 0;
        for at in memchr::memmem::find_iter(&self.held, &*self.secret) {
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
            let mut redactor = Redactor::new("sk-123");
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

    #[test]
    fn several_secrets_are_replaced_however_the_bytes_are_cut_and_the_longest_first() {
        let whole = b"a sk-123-long b sk-123 c key-9 sk-key-9 sk-12";
        for cut in 1..whole.len() {
            let secrets = ["sk-123-long", "sk-123", "key-9"];
            let mut redactors = Redactors(secrets.map(Redactor::new).into());
            let mut out = Vec::new();
            for piece in whole.chunks(cut) {
                redactors.push(piece, &mut out);
            }
            redactors.finish(&mut out);
            assert_eq!(redactors.held(), 0);
            let expected = "a [CREDENTIAL] b [CREDENTIAL] c [CREDENTIAL] sk-[CREDENTIAL] sk-12";
            assert_eq!(String::from_utf8(out).unwrap(), expected, "{cut}");
        }
    }
}
