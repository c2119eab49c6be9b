//! When checkpoints are due, and where they go: beside the log, and to those who hold them outside.

use std::{
    io,
    time::{Duration, Instant},
};

use super::{LedgerOptions, holders::Holders, now, wall};
use crate::{
    audit::{
        Hash,
        chain::Head,
        checkpoint::Checkpoint,
        note::{SigningKey, VerifierKey},
    },
    store::checkpoints::CheckpointFile,
};

pub(super) struct Signer {
    key: SigningKey,
    deployment: String,
    file: CheckpointFile,
    holders: Holders,
    every_records: u64,
    interval: Duration,
    /// Size and time of the last checkpoint.
    last: (u64, Instant),
}

/// A checkpoint that was signed.
pub(super) struct Signed {
    pub(super) note: String,
    /// Bytes the log's own file of checkpoints grew by: none where nothing was written since the last one, since the same
    /// root signed again proves nothing new to whoever owns the log.
    pub(super) grown: u64,
}

impl Signer {
    pub(super) fn new(
        options: &LedgerOptions,
        key: SigningKey,
        file: CheckpointFile,
        holders: Holders,
    ) -> Self {
        Self {
            key,
            deployment: options.deployment.clone(),
            file,
            holders,
            every_records: options.checkpoint_records.max(1),
            interval: options.checkpoint_interval,
            last: (0, now()),
        }
    }

    pub(super) fn verifier(&self) -> &VerifierKey {
        self.key.verifier()
    }

    /// Whether a checkpoint is due over a chain of `size` records: also where it has not grown, so that who holds them knows
    /// that it has not; and at the end of every segment, so that a segment can be handed over with one of its own.
    pub(super) fn is_due(&self, size: u64, segment_is_full: bool) -> bool {
        let unsigned = size - self.last.0;
        unsigned >= self.every_records
            || (segment_is_full && unsigned > 0)
            || self.last.1.elapsed() >= self.interval
    }

    /// Whether all of a chain of `size` records is signed.
    pub(super) fn covers(&self, size: u64) -> bool {
        self.last.0 == size
    }

    /// Time until the next is due by itself.
    pub(super) fn until_due(&self) -> Duration {
        self.interval.saturating_sub(self.last.1.elapsed())
    }

    /// Tries again only when the next is due: a checkpoint late is no reason to refuse traffic.
    pub(super) fn put_off(&mut self) {
        self.last.1 = now();
    }

    /// Signs what the tree is. INVARIANT: everything it covers is on disk.
    pub(super) fn sign(&mut self, head: &Head, root: Hash) -> io::Result<Signed> {
        let checkpoint = Checkpoint {
            deployment: self.deployment.clone(),
            chain: head.chain,
            size: head.size,
            root,
        };
        let note = checkpoint.sign_at(wall(), &self.key);
        let grown = match self.covers(head.size) {
            true => 0,
            false => self.file.append(&note)?,
        };
        self.last = (head.size, now());
        self.holders.offer(head.size, &note);
        Ok(Signed { note, grown })
    }
}
