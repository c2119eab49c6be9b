//! What tests of several modules need of a ledger directory.

use std::{num::NonZeroUsize, path::Path};

use super::{
    check::{self, Reading},
    layout,
    reader::{ChainReader, Step},
};
use crate::audit::{
    record::Entry,
    verify::{Order, Report, Verifier},
};

/// A directory in memory where there is such a thing, so that thousands of syncs take no time.
pub(crate) fn dir() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() {
        tempfile::tempdir_in(memory).unwrap()
    } else {
        tempfile::tempdir().unwrap()
    }
}

/// All records of a directory with their hashes, oldest first; panics on damage.
pub(crate) fn records(dir: &Path) -> Vec<(u64, String, Entry)> {
    let mut records = Vec::new();
    for chain in layout::chains(dir).unwrap() {
        let mut reader = ChainReader::new(chain);
        loop {
            match reader.step().unwrap() {
                Step::Record(stored) => {
                    let entry = serde_json::from_slice(&stored.bytes).unwrap();
                    records.push((stored.seq, stored.record_hash.to_string(), entry));
                }
                Step::End(_) => break,
                Step::Damaged(damage) => panic!("{damage}"),
            }
        }
    }
    records
}

/// Checks a directory against its own checkpoints, which must be signed by the key in it.
pub(crate) fn verify(dir: &Path) -> Report {
    let key = std::fs::read_to_string(dir.join("signing.key.pub")).unwrap();
    let mut verifier = Verifier::new(Order::Strict, vec![key.parse().unwrap()]);
    let reading = Reading {
        threads: NonZeroUsize::MIN,
        archive: None,
        progress: &|_| {},
    };
    check::feed(&mut verifier, dir, &reading).unwrap();
    verifier.finish()
}
