//! What is kept of the records that a chain no longer has.
//!
//! Promises: with a stump the rest of a chain verifies as the whole did, against checkpoints of any later size; a stump
//! that a record in the log does not name is not believed. Cannot show: what the deleted records said.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{
    chain::{ChainId, Hash, Head},
    record::{Genesis, Pruned},
    tree::Frontier,
};

/// What the first member of a stump says it is.
pub const FORMAT: &str = "countersign/pruned/v1";

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
    replica: String,
    previous_chain: String,
    previous_size: String,
    previous_head: String,
    clean: bool,
    open: Vec<String>,
}

/// Not a stump, or one that contradicts itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is no file of the form `{FORMAT}`")]
pub struct NotAStump;

/// What is kept of a chain's first records.
#[derive(Clone, Debug, PartialEq)]
pub struct Stump {
    /// Where the rest of the chain begins: so many records are not there, and this is the hash of the last of them.
    pub head: Head,
    /// The tree over them.
    pub tree: Frontier,
    /// Of the chain's genesis, which is one of them: who wrote it and what it continues.
    pub genesis: Genesis,
    /// Whether the last of them is a `shutdown`.
    pub clean: bool,
    /// Sessions that they open and do not close.
    pub open: Vec<String>,
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
            replica: self.genesis.replica.clone(),
            previous_chain: self.genesis.previous_chain.clone(),
            previous_size: self.genesis.previous_size.to_string(),
            previous_head: self.genesis.previous_head.clone(),
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
        let written: Written = serde_json::from_slice(text).map_err(|_| NotAStump)?;
        let (size, previous_size) = (written.records.parse(), written.previous_size.parse());
        let (Ok(size), Ok(previous_size), true) = (size, previous_size, written.format == FORMAT)
        else {
            return Err(NotAStump);
        };
        let nodes: Option<Vec<Hash>> = written
            .frontier
            .iter()
            .map(|node| Hash::from_hex(node))
            .collect();
        let tree = nodes.and_then(|nodes| Frontier::from_nodes(size, nodes));
        let chain: ChainId = written.chain.parse().map_err(|_| NotAStump)?;
        let hash = Hash::from_hex(&written.head).ok_or(NotAStump)?;
        Ok(Self {
            head: Head { chain, size, hash },
            tree: tree.filter(|_| size > 0).ok_or(NotAStump)?,
            genesis: Genesis {
                replica: written.replica,
                previous_chain: written.previous_chain,
                previous_size,
                previous_head: written.previous_head,
                ..Genesis::default()
            },
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

/// SHA-256 of a stump's text, as the record that announces it has it.
#[must_use]
pub fn digest(text: &[u8]) -> Hash {
    Hash(Sha256::digest(text).into())
}
