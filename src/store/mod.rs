//! The write-ahead log on disk.
//!
//! ```text
//! <dir>/lock                             held by the one process that writes
//!       signing.key  signing.key.pub     made on the first start unless another key is configured
//!       published                        how far Kafka has acknowledged
//!       chains/00000001-<chain id>/      one per start, in order
//!              00000000000000000000.seg  segments, named by their first record
//!              checkpoints               signed notes, one after the other
//!              recovered                 a later start has closed this chain's open sessions
//!              pruned                    what is kept of segments that were taken off the disk
//!       erase/                           erasures that were asked for
//!       sealed/                          sealed payloads, where a connection asks for them
//! ```
//!
//! Promises: what was acknowledged as durable is there after a crash; a failed write leaves no hole and no torn record in
//! the middle. Never does: change a record once written; destroy bytes when it cuts what a crash has torn (they are kept
//! in a `.cut` file beside). Can miss: that a disk acknowledged a sync it did not do.

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

use crate::audit::{chain::ChainId, note::NoteError, seal::KeyError};

pub mod check;
pub mod checkpoints;
pub mod control;
pub mod cursor;
pub(crate) mod disk;
pub mod erasures;
pub mod frame;
pub mod keyfile;
pub mod layout;
pub mod lock;
pub mod prune;
pub mod reader;
pub mod recover;
mod scan;
pub mod sealed;
#[cfg(test)]
pub(crate) mod testing;
pub(crate) mod wal;

/// Why a ledger directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process writes there.
    #[error(
        "`{0}` is in use by another countersign process; give each replica a directory of its own"
    )]
    Locked(PathBuf),
    /// The operating system refused.
    #[error("`{path}`: {source}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// A record that was durable is not as it was written.
    #[error("{0}")]
    Damaged(Box<Damage>),
    /// The key file is not one, or others can read it.
    #[error("key file `{path}`: {fault}")]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        fault: KeyFault,
    },
    /// A name that cannot stand in a checkpoint's origin or a key's name.
    #[error(
        "the name `{0}` must not be empty nor contain spaces, slashes, plus signs or control characters"
    )]
    BadName(String),
    /// More sessions were open when the process died than recovery will hold in memory.
    #[error("more than {0} sessions were open at once; this cannot be a log of this program")]
    TooManyOpen(usize),
}

/// What is wrong with a key file.
#[derive(Debug, thiserror::Error)]
pub enum KeyFault {
    /// Not a key.
    #[error(transparent)]
    Form(#[from] NoteError),
    /// Not an auditor's key.
    #[error(transparent)]
    Auditor(#[from] KeyError),
    /// Readable by others.
    #[error("readable by others (mode {0:03o}); run `chmod 600` on it")]
    Mode(u32),
    /// Not the key that signed the log so far, and nothing introduces it.
    #[error(
        "the log was signed by `{signer}` so far, and nothing introduces this key as its successor, so nobody who trusts the \
         old one could verify what comes; make one that is introduced with `countersign keygen signing --replaces OLD.key \
         --out NEW.key`; where the old key is lost, move the log's directory aside and begin a new log"
    )]
    Stranger {
        /// Name and id of the key that signed.
        signer: String,
    },
    /// No random numbers to be had.
    #[error("the system's random number generator failed")]
    Random,
}

impl StoreError {
    pub(crate) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, source }
    }
}

/// Where stored bytes are not what was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The file.
    pub file: PathBuf,
    /// Byte in it where the record (or the file's header) begins.
    pub offset: u64,
    /// The chain.
    pub chain: ChainId,
    /// The record that should be there.
    pub seq: u64,
    /// What is wrong.
    pub what: String,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // <dir>/chains/<chain>/<segment>
        let dir = self.file.ancestors().nth(3).unwrap_or(&self.file).display();
        write!(
            f,
            "`{}` is damaged at byte {}, where record {} of chain {} should be: {}; this record was durable, so a crash does \
             not explain it; run `countersign verify --dir {dir}` to see the extent, and to start on a new log beside the \
             damaged one `mv {dir} {dir}.damaged`",
            self.file.display(),
            self.offset,
            self.seq,
            self.chain,
            self.what
        )
    }
}
