//! What verification found, in words for whoever has to act on it.

use std::fmt;

use super::super::{
    chain::ChainId,
    note::{NoteError, VerifierKey},
    record::Discarded,
};

/// Something wrong with the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The chain.
    pub chain: ChainId,
    /// The first record that is not as it was written.
    pub seq: u64,
    /// What is wrong.
    pub cause: Cause,
}

impl Fault {
    /// Whether the record at its place and those after it prove nothing; a checkpoint that is none says nothing of records.
    #[must_use]
    pub fn is_about_records(&self) -> bool {
        !matches!(self.cause, Cause::Checkpoint { .. })
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "chain {} record {}: {}",
            self.chain, self.seq, self.cause
        )
    }
}

/// What is wrong with a record or a chain.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Cause {
    /// The record's bytes or its stored hash were changed.
    #[error("altered: its hash is not the hash of its bytes")]
    Altered,
    /// What surrounds the record on disk does not check out.
    #[error("altered: {0}")]
    Damaged(String),
    /// The record is another's, moved here.
    #[error("altered: this is record {seq} of chain {chain}, moved here")]
    Moved {
        /// The chain it says it is of.
        chain: ChainId,
        /// The place it says it has.
        seq: u64,
    },
    /// The record fits its stored hash but not what was linked to or signed later.
    #[error("re-hashed: it is not the record that record {0} links to")]
    Relinked(u64),
    /// The chain holds together but is not what was signed.
    #[error(
        "re-hashed: a record from here on, and before record {size}, is not what the {holder} checkpoint of {size} records signed"
    )]
    Rehashed {
        /// Size of the checkpoint that does not fit.
        size: u64,
        /// Who held it.
        holder: &'static str,
    },
    /// The record is not there, later ones are.
    #[error("missing")]
    Missing,
    /// Records are not there, and what is kept of them is named by no record.
    #[error(
        "missing: the first {records} records are not there, and no record says that they were pruned"
    )]
    NotAnnounced {
        /// How many.
        records: u64,
    },
    /// The record is there twice; on a topic, twice with different bytes.
    #[error("duplicated")]
    Duplicated,
    /// The record is there, after later ones.
    #[error("out of order")]
    OutOfOrder,
    /// The chain ends before a checkpoint's size.
    #[error("truncated: missing, as are all after it, but a checkpoint covers {size} records")]
    Truncated {
        /// Size of the checkpoint.
        size: u64,
    },
    /// The chain does not end where its successor says it ended.
    #[error("missing: the next chain {successor} says that this one has {size} records")]
    ShorterThanLinked {
        /// The chain that continues this one.
        successor: ChainId,
        /// Records it says this chain has.
        size: u64,
    },
    /// The chain has more records than when its successor began.
    #[error("added: the next chain {successor} says that this one ends with the record before it")]
    LongerThanLinked {
        /// The chain that continues this one.
        successor: ChainId,
    },
    /// The chain's last record is not the one its successor names.
    #[error("re-hashed: the next chain {successor} names another last record")]
    HeadDiffers {
        /// The chain that continues this one.
        successor: ChainId,
    },
    /// The chain's tree is not the one its successor names, though its last record is: what stands for its pruned records is
    /// not what was written.
    #[error(
        "re-hashed: the next chain {successor} names another root of its tree, so what is kept of its pruned records is of others"
    )]
    RootDiffers {
        /// The chain that continues this one.
        successor: ChainId,
    },
    /// The whole chain is not there.
    #[error("chain missing: {0}")]
    ChainMissing(&'static str),
    /// The chain does not begin as chains do.
    #[error("altered: the first record of a chain must be its genesis")]
    NotGenesis,
    /// A checkpoint that no trusted key has signed.
    #[error("checkpoint of {size} records: {error}")]
    Checkpoint {
        /// The size it claims.
        size: u64,
        /// What is wrong with it.
        error: NoteError,
    },
}

/// What can be said of one chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainReport {
    /// The chain.
    pub chain: ChainId,
    /// The replica that wrote it, as its genesis says; empty where there is none.
    pub replica: String,
    /// Records checked.
    pub records: u64,
    /// Records before those that were deleted: by policy, as a record says, or listed as [`Report::expired`]: not there, and committed to all the same.
    pub pruned: u64,
    /// The chain's size up to which a checkpoint from outside proves it, directly or through a later chain's genesis.
    pub whole: u64,
}

/// The outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Every chain seen, by id.
    pub chains: Vec<ChainReport>,
    /// The faults, in the order they were found; at most one per chain and reason.
    pub faults: Vec<Fault>,
    /// Faults beyond those listed.
    pub more_faults: u64,
    /// Records that came again, byte for byte the same.
    pub repeats: u64,
    /// Checkpoints from outside that fit.
    pub anchors: u64,
    /// Checkpoints from inside that fit.
    pub checkpoints: u64,
    /// Checkpoints that came after the records they cover, or cover only pruned ones, so could not be compared.
    pub late_checkpoints: u64,
    /// Records that came again so late, and in so broken a run, that they could not be compared with the first ones.
    pub late_repeats: u64,
    /// Whether it was a topic that no longer begins where it was written from.
    pub begins_late: bool,
    /// Chains that such a topic no longer had the first of, or any.
    pub expired: Vec<Expired>,
    /// The newest sealed payloads of which a record says that they were deleted by a rule; one that a checkpoint covers.
    pub discarded: Option<Discarded>,
    /// The trusted keys: those given, and those they introduced.
    pub keys: Vec<VerifierKey>,
}

/// What a topic lacks of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expired {
    /// The chain.
    pub chain: ChainId,
    /// How many of its first records, at least.
    pub records: u64,
    /// Whether a record, covered by a checkpoint, says that the disk's copy of them was pruned. It does not say why the topic's went.
    pub pruned: bool,
}

/// The outcome in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Whole as far as the checkpoints from outside reach.
    Whole,
    /// Nothing contradicts itself, but no checkpoint from outside vouches for it.
    Unanchored,
    /// Nothing contradicts itself, but a topic no longer had all of it, and nothing proves why.
    Unprovable,
    /// At least one fault.
    Tampered,
}

impl Report {
    /// The outcome in a word.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        match (self.faults.is_empty(), self.anchors) {
            (false, _) => Verdict::Tampered,
            (true, _) if self.begins_late || !self.expired.is_empty() => Verdict::Unprovable,
            (true, 0) => Verdict::Unanchored,
            (true, _) => Verdict::Whole,
        }
    }

    /// Records checked in all chains.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.chains.iter().map(|chain| chain.records).sum()
    }
}
