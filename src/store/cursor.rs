//! How far Kafka has acknowledged, in a file that is never ahead of the truth: after a crash it may be behind, and then
//! what was acknowledged since is sent again.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::layout::sync_dir;
use crate::audit::ChainId;

/// Everything before this was acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// The chain being published; all older ones are done.
    pub chain: ChainId,
    /// Its first record not acknowledged.
    pub seq: u64,
    /// Bytes of its checkpoint file that were acknowledged.
    pub checkpoint_bytes: u64,
}

#[derive(Deserialize, Serialize)]
struct Written {
    chain: String,
    seq: u64,
    checkpoint_bytes: u64,
}

/// The file in ledger directory `dir`.
#[must_use]
pub fn path(dir: &Path) -> PathBuf {
    dir.join("published")
}

/// Reads the cursor; `None` where there is none or it cannot be understood, which sends everything again.
///
/// # Errors
/// Those of reading the file.
pub fn load(dir: &Path) -> io::Result<Option<Cursor>> {
    let text = match fs::read(path(dir)) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let cursor = serde_json::from_slice::<Written>(&text)
        .ok()
        .and_then(|written| {
            let Written {
                chain,
                seq,
                checkpoint_bytes,
            } = written;
            Some(Cursor {
                chain: chain.parse().ok()?,
                seq,
                checkpoint_bytes,
            })
        });
    Ok(cursor)
}

/// Writes the cursor, whole or not at all.
///
/// # Errors
/// Those of writing the file.
pub fn store(dir: &Path, cursor: &Cursor) -> io::Result<()> {
    let Cursor {
        chain,
        seq,
        checkpoint_bytes,
    } = *cursor;
    let new = dir.join("published.new");
    let mut file = File::create(&new)?;
    file.write_all(&serde_json::to_vec(&Written {
        chain: chain.to_string(),
        seq,
        checkpoint_bytes,
    })?)?;
    file.sync_all()?;
    fs::rename(&new, path(dir))?;
    sync_dir(dir)
}
