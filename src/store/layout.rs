//! Which files are where in a ledger directory.

use std::{
    fs::{self, DirBuilder},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use crate::audit::ChainId;

/// A chain's directory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ChainDir {
    /// Place among the starts of this replica, from 1.
    pub ordinal: u64,
    /// The chain.
    pub chain: ChainId,
    /// The directory.
    pub path: PathBuf,
}

impl ChainDir {
    /// Where a chain of this place and id is kept in ledger directory `dir`.
    #[must_use]
    pub fn new(dir: &Path, ordinal: u64, chain: ChainId) -> Self {
        Self {
            ordinal,
            chain,
            path: chains_dir(dir).join(format!("{ordinal:08}-{chain}")),
        }
    }

    /// The file of its signed checkpoints.
    #[must_use]
    pub fn checkpoints(&self) -> PathBuf {
        self.path.join("checkpoints")
    }

    /// The mark that a later start has closed its open sessions.
    #[must_use]
    pub fn recovered(&self) -> PathBuf {
        self.path.join("recovered")
    }

    /// What is kept of its pruned records.
    #[must_use]
    pub fn pruned(&self) -> PathBuf {
        self.path.join("pruned")
    }

    /// The segment that begins with record `first_seq`.
    #[must_use]
    pub fn segment(&self, first_seq: u64) -> PathBuf {
        self.path.join(format!("{first_seq:020}.seg"))
    }

    /// Its segments by first record, in order.
    ///
    /// # Errors
    /// Those of reading the directory.
    pub fn segments(&self) -> io::Result<Vec<(u64, PathBuf)>> {
        let mut segments = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let path = entry?.path();
            let first_seq = path.extension().filter(|end| *end == "seg").and_then(|_| {
                let stem = path.file_stem()?.to_str()?;
                (stem.len() == 20).then(|| stem.parse::<u64>().ok())?
            });
            if let Some(first_seq) = first_seq {
                segments.push((first_seq, path));
            }
        }
        segments.sort();
        Ok(segments)
    }
}

/// Makes `dir`, and what is missing above it, for its owner only. One that is there keeps its mode: whom else the log is
/// open to is the operator's choice.
///
/// # Errors
/// Those of making directories.
pub fn create_private(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

/// Makes the directory of a chain, open to whom the ledger's directory lets in and its group.
///
/// # Errors
/// Those of making directories.
pub fn create_chain(chain: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o750).create(chain)
}

/// The directory of all chains of ledger directory `dir`.
#[must_use]
pub fn chains_dir(dir: &Path) -> PathBuf {
    dir.join("chains")
}

/// The chains of ledger directory `dir`, oldest first; what is not named like one is passed over.
///
/// # Errors
/// Those of reading the directory; a directory without chains has none, and is no error.
pub fn chains(dir: &Path) -> io::Result<Vec<ChainDir>> {
    let entries = match fs::read_dir(chains_dir(dir)) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound && dir.is_dir() => {
            return Ok(Vec::new());
        }
        Err(error) => return Err(error),
    };
    let mut chains = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let parsed = path
            .file_name()
            .and_then(|name| name.to_str())
            .and_then(|name| name.split_once('-'));
        if let Some((ordinal, chain)) = parsed
            && let (Ok(ordinal), Ok(chain)) = (ordinal.parse(), chain.parse())
        {
            chains.push(ChainDir {
                ordinal,
                chain,
                path,
            });
        }
    }
    chains.sort();
    Ok(chains)
}

/// Bytes of all files of all chains.
///
/// # Errors
/// Those of reading the directories.
pub fn bytes_on_disk(dir: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for chain in chains(dir)? {
        for entry in fs::read_dir(&chain.path)? {
            bytes += entry?.metadata()?.len();
        }
    }
    Ok(bytes)
}

/// Makes a directory's entries durable.
///
/// # Errors
/// Those of opening and syncing it.
pub fn sync_dir(path: &Path) -> io::Result<()> {
    fs::File::open(path)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_directory_we_make_is_its_owners_and_one_that_is_there_stays_as_it_is() {
        let outer = tempfile::tempdir().unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let fresh = outer.path().join("a/b");
        create_private(&fresh).unwrap();
        assert_eq!(mode(&fresh), 0o700);
        let shared = outer.path().join("shared");
        fs::create_dir(&shared).unwrap();
        fs::set_permissions(&shared, fs::Permissions::from_mode(0o2750)).unwrap();
        create_private(&shared).unwrap();
        assert_eq!(mode(&shared), 0o750);
    }
}
