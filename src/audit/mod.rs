//! Evidence: the record of a session, the chain that makes it tamper-evident, and the proofs drawn from it.
//!
//! ```text
//! Entry --json--> bytes --chain--> record hash --tree--> root --note--> signed checkpoint
//!                   '---------- stored verbatim, never serialised again ----------'
//! ```
//!
//! Promises: one changed, missing, repeated or moved record changes every later hash and every later root, so a checkpoint
//! kept outside finds it. Never does: read a file, a clock or a socket; trust what a record says of itself without
//! recomputing it. Can miss: records younger than the last checkpoint kept outside, when whoever owns host and key drops
//! them. The formats are described in `docs/audit-format.md`.

pub mod chain;
pub mod checkpoint;
#[cfg(test)]
pub(crate) mod fixture;
pub mod note;
pub mod proof;
pub mod record;
pub mod replay;
#[cfg(test)]
mod samples;
pub mod seal;
pub mod stump;
pub mod succession;
pub mod tree;
pub mod verify;

pub use chain::{ChainId, Hash, Receipt};

use sha2::{Digest, Sha256};

/// Topic of the records, unless the configuration says otherwise.
pub const AUDIT_TOPIC: &str = "countersign.audit.v1";
/// Topic of the signed checkpoints, unless the configuration says otherwise.
pub const CHECKPOINT_TOPIC: &str = "countersign.checkpoints.v1";

/// Topic of the sealed payloads, unless the configuration says otherwise.
pub const SEALED_TOPIC: &str = "countersign.sealed.v1";

/// What "durable" means for one append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// On disk: `fdatasync` has returned. Survives a power cut.
    Disk,
    /// Handed to the operating system; on disk within 50 ms. Survives the death of the process; a machine that dies can
    /// lose that much.
    Spool,
    /// On disk, and acknowledged by all in-sync replicas of Kafka (`acks=all`). Survives the loss of the machine and its disk.
    Kafka,
}

/// SHA-256 of `bytes`.
#[must_use]
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// SHA-256 of `bytes` in hex, as records carry digests.
#[must_use]
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex::encode(sha256(bytes))
}

/// The digest over a whole session: the request and the answer as they are on record, and how it ended.
///
/// SHA-256 of `"countersign/transaction/v1\0"`, then of each part its kind, its name and its text, each led by its length
/// as a 64-bit big-endian number, then of the status. Text is hashed in the order it was recorded.
#[derive(Clone, Debug)]
pub struct Transaction(Sha256);

impl Default for Transaction {
    fn default() -> Self {
        Self(Sha256::new_with_prefix(b"countersign/transaction/v1\0"))
    }
}

impl Transaction {
    /// Takes the request's body as recorded.
    pub fn request(&mut self, body: &[u8]) {
        self.part("request", "body", body);
    }

    /// Takes a piece of the answer's text as recorded.
    pub fn answer(&mut self, channel: &str, text: &[u8]) {
        self.part("answer", channel, text);
    }

    /// Takes what was sealed with them, as the record commits to it.
    pub fn sealed(&mut self, part: seal::Part, sealed: &record::Sealed) {
        self.part("sealed", part.name(), sealed.sha256.as_bytes());
    }

    /// The digest of all of it, in hex.
    #[must_use]
    pub fn finish(&self, status: u32) -> String {
        let mut hash = self.0.clone();
        hash.update(status.to_be_bytes());
        hex::encode(hash.finalize())
    }

    fn part(&mut self, kind: &str, name: &str, text: &[u8]) {
        for field in [kind.as_bytes(), name.as_bytes(), text] {
            self.0.update((field.len() as u64).to_be_bytes());
            self.0.update(field);
        }
    }
}
