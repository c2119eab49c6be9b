//! Takes the first segments of a chain off the disk, and keeps their stump.
//!
//! The order is the promise: a record that announces the stump is durable first, then the stump, then the segments go. A crash
//! in between leaves more than is needed, which reads as if nothing had been done, or done wholly; the next time does the rest.

use std::{
    collections::BTreeSet,
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use memchr::memmem;
use serde::Deserialize;

use super::{
    Damage, StoreError, checkpoints,
    layout::{self, ChainDir, sync_dir},
    reader::ChainReader,
    scan::{End, scan},
};
use crate::audit::{
    Hash,
    checkpoint::{Checkpoint, notes},
    record::Pruned,
    stump::{self, First, Stump},
};

/// The stump of a chain with the hash of its file; `None` where nothing was pruned.
///
/// # Errors
/// Those of reading the file; `InvalidData` where it is none.
pub fn load(dir: &ChainDir) -> io::Result<Option<(Stump, Hash)>> {
    let text = match fs::read(dir.pruned()) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let bad = |what| io::Error::new(io::ErrorKind::InvalidData, format!("`pruned`: {what}"));
    let found = Stump::read(&text).map_err(|error| bad(error.to_string()))?;
    if found.head.chain != dir.chain {
        return Err(bad("it is of another chain, moved here".to_owned()));
    }
    Ok(Some((found, stump::digest(&text))))
}

/// A reader at the first record of a chain that was not pruned, and the stump of those that were.
///
/// # Errors
/// As for [`load`].
pub fn begin(dir: ChainDir) -> io::Result<(Option<(Stump, Hash)>, ChainReader)> {
    let found = load(&dir)?;
    let reader = match &found {
        Some((stump, _)) => ChainReader::from(dir, stump.head.size),
        None => ChainReader::new(dir),
    };
    Ok((found, reader))
}

/// Reads the first `upto` records of a chain, which must end a segment: what is to be kept of them, and the announcements
/// among them, which go with them.
///
/// # Errors
/// [`StoreError`]; damage is not pruned, or nobody could ever find it.
pub(crate) fn stump(dir: &ChainDir, upto: u64) -> Result<(Stump, Vec<Pruned>), StoreError> {
    let before = load(dir).map_err(StoreError::io(&dir.path))?;
    let mut first = before.map(|(stump, _)| stump.first);
    let (mut open, mut told) = (BTreeSet::new(), Vec::new());
    let found = scan(dir, upto, &mut open, |tree, leaf, bytes| {
        if leaf.seq == 0 {
            first = First::read(bytes);
        } else if let Some(first) = &mut first {
            first.climb(tree, leaf);
        }
        if memmem::find(bytes, br#","pruned":{"#).is_some() {
            told.extend(pruned(bytes));
        }
    })?;
    let damage = |what: String| {
        StoreError::Damaged(Box::new(Damage {
            file: dir.path.clone(),
            offset: 0,
            chain: dir.chain,
            seq: found.head.size,
            what,
        }))
    };
    match (found.head.size == upto, found.end, first) {
        (true, _, Some(first)) => Ok((
            Stump {
                head: found.head,
                tree: found.tree,
                first,
                clean: found.clean,
                open: open.into_iter().collect(),
            },
            told,
        )),
        (_, End::Damaged(damage), _) => Err(StoreError::Damaged(Box::new(damage))),
        (false, ..) => Err(damage(format!("{upto} records should be there"))),
        (true, _, None) => Err(damage("the chain has no genesis".to_owned())),
    }
}

fn pruned(record: &[u8]) -> Option<Pruned> {
    #[derive(Deserialize)]
    struct Told {
        pruned: Option<Pruned>,
    }
    serde_json::from_slice::<Told>(record).ok()?.pruned
}

/// Puts the stump in place and deletes the segments it stands for.
///
/// # Errors
/// Those of the file system; doing it again does the rest.
pub(crate) fn fell(dir: &ChainDir, stump: &Stump) -> Result<(), StoreError> {
    write_whole(&dir.pruned(), stump.text().as_bytes()).map_err(StoreError::io(&dir.path))?;
    remove_before(dir, stump.head.size).map_err(StoreError::io(&dir.path))
}

/// Deletes the segments before record `upto`, oldest first, with what recovery cut off them.
pub(crate) fn remove_before(dir: &ChainDir, upto: u64) -> io::Result<()> {
    for (first, path) in dir.segments()? {
        if first >= upto {
            continue;
        }
        let name = path.file_name().unwrap_or_default().to_owned();
        for entry in fs::read_dir(&dir.path)? {
            let beside = entry?.path();
            let of_it = beside.file_name().is_some_and(|other| {
                let (other, name) = (other.as_encoded_bytes(), name.as_encoded_bytes());
                other.starts_with(name) && other.ends_with(b".cut")
            });
            if of_it {
                fs::remove_file(beside)?;
            }
        }
        fs::remove_file(path)?;
    }
    sync_dir(&dir.path)
}

/// Copies the segments before record `upto` below ledger directory `to`, with the checkpoints over them: a directory that
/// verifies by itself. Durable on return.
///
/// # Errors
/// Those of the file system; doing it again does the rest.
pub(crate) fn archive(dir: &ChainDir, upto: u64, to: &Path) -> Result<(), StoreError> {
    let into = ChainDir::new(to, dir.ordinal, dir.chain);
    let copied = || -> io::Result<()> {
        layout::create_private(to)?;
        layout::create_chain(&into.path)?;
        let here = into.segments()?;
        if let Some((stump, _)) = load(dir)?
            && here.is_empty()
        {
            // What came before was deleted, not archived: the archive begins where it ended.
            write_whole(&into.pruned(), stump.text().as_bytes())?;
        }
        for (first, path) in dir.segments()? {
            if first < upto {
                write_whole(&into.segment(first), &fs::read(path)?)?;
            }
        }
        let mut kept = String::new();
        for note in notes(&checkpoints::read(&dir.checkpoints())?) {
            if Checkpoint::read_unchecked(note).is_ok_and(|at| at.size <= upto) {
                kept.push_str(note);
                kept.push('\n');
            }
        }
        write_whole(&into.checkpoints(), kept.as_bytes())?;
        sync_dir(&layout::chains_dir(to))?;
        sync_dir(to)
    };
    copied().map_err(StoreError::io(&into.path))
}

/// Writes a file whole or not at all.
pub(super) fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(super::disk::FILE_MODE)
        .open(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    path.parent().map_or(Ok(()), sync_dir)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        audit::{
            chain::Stamp,
            record::{Entry, Event},
        },
        store::{disk::RealDisk, wal::Wal},
    };

    #[test]
    fn pruned_segment_by_segment_a_chain_keeps_what_pruning_it_at_once_would() {
        let dir = crate::store::testing::dir();
        let log = crate::audit::fixture::Log::new(0xa, 150, None);
        let chains = ["once", "often"].map(|name| {
            let chain = ChainDir::new(&dir.path().join(name), 1, log.head.chain);
            fs::create_dir_all(&chain.path).unwrap();
            let mut wal = Wal::create(Box::new(RealDisk), chain.clone(), 1_000).unwrap();
            let stamp = Stamp {
                time: "2026-11-22T00:00:00Z".parse().unwrap(),
                monotonic_ns: 0,
                replica: "a",
            };
            for (bytes, _) in &log.records {
                let entry: Entry = serde_json::from_slice(bytes).unwrap();
                let json = serde_json::to_vec(&entry).unwrap();
                wal.append(&[(stamp, &json)], &mut Vec::new()).unwrap();
            }
            chain
        });
        let [once, often] = &chains;
        let segments = once.segments().unwrap();
        assert!(segments.len() > 30);
        for (upto, _) in &segments[1..] {
            let (whole, _) = stump(once, *upto).unwrap();
            let (grown, _) = stump(often, *upto).unwrap();
            assert_eq!(grown, whole, "{upto}");
            fell(often, &grown).unwrap();
            assert_eq!(load(often).unwrap().unwrap().0, whole);
        }
        assert_eq!(often.segments().unwrap().len(), 1);
        // What begins with something else is no chain, and is not pruned.
        let other = ChainDir::new(&dir.path().join("other"), 1, log.head.chain);
        fs::create_dir_all(&other.path).unwrap();
        let mut wal = Wal::create(Box::new(RealDisk), other.clone(), 1_000).unwrap();
        let shutdown = Entry {
            session: String::new(),
            event: Event::Shutdown(Default::default()),
        };
        let stamp = Stamp {
            time: "2026-11-22T00:00:00Z".parse().unwrap(),
            monotonic_ns: 0,
            replica: "a",
        };
        let json = serde_json::to_vec(&shutdown).unwrap();
        wal.append(&[(stamp, &json)], &mut Vec::new()).unwrap();
        assert!(stump(&other, 1).is_err());
    }
}
