//! What is kept of the records that a chain no longer has.
//!
//! Promises: with a stump the rest of a chain verifies as the whole did, against checkpoints of any later size; its genesis, which
//! says what the chain continues, is under the same tree as all the others; a stump that a record in the log does not name is
//! not believed. Cannot show: what the deleted records said.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{
    chain::{ChainId, Hash, Head, Position, record_hash},
    record::{Genesis, Pruned},
    tree::{Commitment, Frontier, root_of_leaf},
};

/// What the first member of a stump says it is.
pub const FORMAT: &str = "countersign/pruned/v2";

/// The file `pruned` beside a chain's segments: one JSON object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Written {
    format: String,
    chain: String,
    /// Decimal, as 64-bit integers are everywhere in the log's JSON.
    records: String,
    head: String,
    frontier: Vec<String>,
    /// The record's bytes.
    genesis: String,
    path: Vec<String>,
    clean: bool,
    open: Vec<String>,
}

/// The form before, which kept no genesis that could be checked.
const OLD_FORMAT: &str = "countersign/pruned/v1";

/// No stump that can be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAStump {
    /// Not a stump, or one that contradicts itself.
    #[error("it is no file of the form `{FORMAT}`")]
    Malformed,
    /// One of a version before.
    #[error(
        "it is of the form `{OLD_FORMAT}`, whose genesis cannot be checked: keep this directory and verify it with the version \
         that pruned it, and begin a fresh one for this version"
    )]
    Old,
}

/// What is kept of a chain's first records.
#[derive(Clone, Debug, PartialEq)]
pub struct Stump {
    /// Where the rest of the chain begins: so many records are not there, and this is the hash of the last of them.
    pub head: Head,
    /// The tree over them.
    pub tree: Frontier,
    /// The first of them.
    pub first: First,
    /// Whether the last of them is a `shutdown`.
    pub clean: bool,
    /// Sessions that they open and do not close.
    pub open: Vec<String>,
}

/// A chain's genesis as it was written, and its path up to the root of the tree's largest perfect subtree: so nobody can put
/// another in its place who cannot also find another tree with the same root.
#[derive(Clone, Debug, PartialEq)]
pub struct First {
    record: String,
    genesis: Genesis,
    path: Vec<Hash>,
}

impl First {
    /// Begins with the chain's first record; `None` where it is no genesis.
    #[must_use]
    pub fn read(record: &[u8]) -> Option<Self> {
        Some(Self {
            genesis: Genesis::read(record)?,
            record: String::from_utf8(record.to_vec()).ok()?,
            path: Vec::new(),
        })
    }

    /// Goes on with the next record: its leaf, and the tree before it.
    pub fn climb(&mut self, tree: &Frontier, leaf: &Commitment) {
        self.path.extend(tree.right_half(&leaf.bytes()));
    }

    /// What it says: who wrote the chain, and what it continues.
    #[must_use]
    pub fn genesis(&self) -> &Genesis {
        &self.genesis
    }

    /// The same, kept.
    #[must_use]
    pub fn into_genesis(self) -> Genesis {
        self.genesis
    }

    /// Whether it is the first record under `tree`, which is over a chain of this id.
    fn is_under(&self, tree: &Frontier, chain: ChainId) -> bool {
        let bytes = self.record.as_bytes();
        let begins = Position::read(bytes)
            .is_some_and(|at| (at.chain, at.seq, at.previous) == (chain, 0, Hash::ZERO));
        let leaf = Commitment {
            chain,
            seq: 0,
            record_hash: record_hash(chain, 0, Hash::ZERO, bytes),
            payload_hash: Hash::ZERO,
        };
        let root = root_of_leaf(&leaf.bytes(), 0, tree.perfect(), &self.path);
        begins && root.is_some() && root.as_ref() == tree.nodes().first()
    }
}

impl Stump {
    /// The file's text.
    #[must_use]
    pub fn text(&self) -> String {
        let written = Written {
            format: FORMAT.to_owned(),
            chain: self.head.chain.to_string(),
            records: self.head.size.to_string(),
            head: self.head.hash.to_string(),
            frontier: self.tree.nodes().iter().map(Hash::to_string).collect(),
            genesis: self.first.record.clone(),
            path: self.first.path.iter().map(Hash::to_string).collect(),
            clean: self.clean,
            open: self.open.clone(),
        };
        let mut text = serde_json::to_string_pretty(&written).unwrap_or_default();
        let _ = writeln!(text);
        text
    }

    /// Reads the file's text.
    ///
    /// # Errors
    /// [`NotAStump`].
    pub fn read(text: &[u8]) -> Result<Self, NotAStump> {
        if is_old(text) {
            return Err(NotAStump::Old);
        }
        let written: Written = serde_json::from_slice(text).map_err(|_| NotAStump::Malformed)?;
        let size = written.records.parse().map_err(|_| NotAStump::Malformed)?;
        if written.format != FORMAT || size == 0 {
            return Err(NotAStump::Malformed);
        }
        let tree = hashes(&written.frontier).and_then(|nodes| Frontier::from_nodes(size, nodes));
        let tree = tree.ok_or(NotAStump::Malformed)?;
        let chain: ChainId = written.chain.parse().map_err(|_| NotAStump::Malformed)?;
        let hash = Hash::from_hex(&written.head).ok_or(NotAStump::Malformed)?;
        let first = First {
            path: hashes(&written.path).ok_or(NotAStump::Malformed)?,
            ..First::read(written.genesis.as_bytes()).ok_or(NotAStump::Malformed)?
        };
        if !first.is_under(&tree, chain) {
            return Err(NotAStump::Malformed);
        }
        Ok(Self {
            head: Head { chain, size, hash },
            tree,
            first,
            clean: written.clean,
            open: written.open,
        })
    }

    /// The record that makes it believed: records from `first` on go now, by `rule`.
    #[must_use]
    pub fn announce(&self, first: u64, rule: &str) -> Pruned {
        Pruned {
            chain: self.head.chain.to_string(),
            first,
            records: self.head.size,
            root: self.tree.root().to_string(),
            stump_sha256: digest(self.text().as_bytes()).to_string(),
            rule: rule.to_owned(),
        }
    }
}

fn is_old(text: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Form {
        format: String,
    }
    serde_json::from_slice(text).is_ok_and(|form: Form| form.format == OLD_FORMAT)
}

fn hashes(hex: &[String]) -> Option<Vec<Hash>> {
    hex.iter().map(|hash| Hash::from_hex(hash)).collect()
}

/// SHA-256 of a stump's text, as the record that announces it has it.
#[must_use]
pub fn digest(text: &[u8]) -> Hash {
    Hash(Sha256::digest(text).into())
}
