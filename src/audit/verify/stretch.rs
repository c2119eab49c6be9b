//! A run of records checked apart from those before it, so that several can be checked at once.
//!
//! What a stretch cannot say is what exactly is wrong: where one does not hold, its records are fed one by one, and there is
//! one place only that names faults.

use std::collections::BTreeMap;

use super::{examine, may_tell};
use crate::audit::{
    chain::{Hash, Head},
    record::Genesis,
    tree::{Commitment, Span},
};

/// A run of records that follow each other from a head that is yet to be compared with the chain's.
#[derive(Debug)]
pub struct Stretch {
    pub(super) start: Head,
    pub(super) head: Head,
    pub(super) tree: Span,
    /// The subtrees at each size that a checkpoint is of.
    pub(super) marks: BTreeMap<u64, Span>,
    pub(super) genesis: Option<Genesis>,
    /// Records that say something of the log itself.
    pub(super) telling: Vec<(u64, Vec<u8>)>,
}

impl Stretch {
    /// A stretch that is said to begin behind `start`.
    #[must_use]
    pub fn new(start: Head) -> Self {
        Self {
            start,
            head: start,
            tree: Span::new(start.size),
            marks: BTreeMap::new(),
            genesis: None,
            telling: Vec::new(),
        }
    }

    /// The record that is to come next, by its place.
    #[must_use]
    pub fn next_seq(&self) -> u64 {
        self.head.size
    }

    /// Takes the next record, as [`super::Verifier::record`] does; `false` where it does not follow or is not what was
    /// written. `is_mark` says whether a checkpoint is of the size reached.
    pub fn record(&mut self, seq: u64, bytes: &[u8], stored: Hash, is_mark: bool) -> bool {
        let chain = self.head.chain;
        let Ok((previous, hash)) = examine(chain, seq, bytes, Some(stored)) else {
            return false;
        };
        if seq != self.head.size || previous != self.head.hash {
            return false;
        }
        if seq == 0 {
            self.genesis = Genesis::read(bytes);
            if self.genesis.is_none() {
                return false;
            }
        }
        if may_tell(bytes) {
            self.telling.push((seq, bytes.to_vec()));
        }
        let leaf = Commitment {
            chain,
            seq,
            record_hash: hash,
            payload_hash: Hash::ZERO,
        };
        self.tree.push(&leaf.bytes());
        self.head = self.head.after(hash);
        if is_mark {
            self.marks.insert(self.head.size, self.tree.clone());
        }
        true
    }
}
