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
pub mod record;
#[cfg(test)]
mod samples;
pub mod tree;
pub mod verify;

pub use chain::{ChainId, Hash, Receipt};
