//! What earlier processes left behind, made whole before a new chain begins.
//!
//! A crash may leave, at the end of the last chain only: part of a record; records that were written but not yet on disk,
//! in any mixture of old and new pages after a power cut; a segment without records. All of that was never durable, so it
//! is cut off, kept in a `.cut` file, and said. Anything else, or anything before a record known to have been durable, is
//! damage: recovery changes nothing and says where it is.

use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use super::{
    Damage, StoreError, checkpoints,
    cursor::Cursor,
    disk::FILE_MODE,
    frame::{FRAME_HEADER, FrameHeader},
    layout::{self, ChainDir, sync_dir},
    scan::{End, scan},
};
use crate::audit::{ChainId, Hash, chain::Head};

/// What was found, and what the new chain has to say about it.
#[derive(Debug, Default)]
pub struct Recovered {
    /// The chain before the new one.
    pub previous: Option<Previous>,
    /// Sessions that were opened and never closed, in the order of their ids.
    pub orphans: Vec<String>,
    /// What was cut off.
    pub cuts: Vec<Cut>,
    /// Place of the new chain.
    pub next_ordinal: u64,
    /// Chains to be marked once the orphans are closed.
    pub(crate) to_mark: Vec<ChainDir>,
}

/// The chain before the new one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Previous {
    /// Its end.
    pub head: Head,
    /// Root of the tree over its records; `None` where its first ones are not known.
    pub root: Option<Hash>,
    /// Its last signed checkpoint; empty where there is none.
    pub checkpoint: String,
    /// Whether its last record is a `shutdown`.
    pub clean: bool,
    /// Bytes cut off its end.
    pub torn_bytes: u64,
}

/// Bytes cut off a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// The chain.
    pub chain: ChainId,
    /// The segment.
    pub file: PathBuf,
    /// Where they began.
    pub offset: u64,
    /// How many there were.
    pub bytes: u64,
}

/// Makes ledger directory `dir` whole. `published` is how far Kafka has acknowledged. Needs the directory's lock.
///
/// # Errors
/// [`StoreError::Damaged`], with nothing changed in the damaged chain; [`StoreError::Io`]; [`StoreError::TooManyOpen`].
pub fn recover(dir: &Path, published: Option<Cursor>) -> Result<Recovered, StoreError> {
    let chains = layout::chains(dir).map_err(StoreError::io(dir))?;
    let mut found = Recovered {
        next_ordinal: chains.last().map_or(1, |last| last.ordinal + 1),
        ..Recovered::default()
    };
    let mut open = BTreeSet::new();
    let last_with_mark = chains.len().saturating_sub(1);
    for (index, chain) in chains.into_iter().enumerate() {
        if index != last_with_mark && chain.recovered().exists() {
            continue;
        }
        let floor = published
            .filter(|cursor| cursor.chain == chain.chain)
            .map_or(0, |cursor| cursor.seq);
        if let Some((previous, cut)) = recover_chain(&chain, floor, &mut open)? {
            found.previous = Some(previous);
            found.cuts.extend(cut);
            found.to_mark.push(chain);
        }
    }
    found.orphans = open.into_iter().collect();
    Ok(found)
}

/// Notes that the orphans of these chains are closed.
pub(crate) fn mark(chains: &[ChainDir]) -> Result<(), StoreError> {
    for chain in chains {
        let path = chain.recovered();
        File::create(&path)
            .and_then(|file| file.sync_all())
            .map_err(StoreError::io(&path))?;
        sync_dir(&chain.path).map_err(StoreError::io(&chain.path))?;
    }
    Ok(())
}

/// One chain; `None` where no record of it was ever durable, in which case its directory is removed.
fn recover_chain(
    dir: &ChainDir,
    published: u64,
    open: &mut BTreeSet<String>,
) -> Result<Option<(Previous, Option<Cut>)>, StoreError> {
    let signed = checkpoints::last(&dir.checkpoints()).map_err(StoreError::io(&dir.path))?;
    // INVARIANT: records are on disk before a checkpoint covers them or Kafka gets them.
    let durable = published.max(signed.as_ref().map_or(0, |(size, _)| *size));
    let scan = scan(dir, u64::MAX, open, |_, _, _| {})?;
    let size = scan.head.size;
    let cut = match scan.end {
        End::Clean => None,
        End::Torn(tail) => tail.file.map(|file| Cut {
            chain: dir.chain,
            file,
            offset: tail.offset,
            bytes: tail.torn,
        }),
        End::Damaged(damage) => {
            if size < durable || proven_durable(dir, &damage)? {
                return Err(StoreError::Damaged(Box::new(damage)));
            }
            let length = fs::metadata(&damage.file)
                .map_err(StoreError::io(&damage.file))?
                .len();
            let bytes = length.saturating_sub(damage.offset);
            Some(Cut {
                chain: dir.chain,
                file: damage.file,
                offset: damage.offset,
                bytes,
            })
        }
    };
    if size < durable {
        let what = format!("{durable} records were durable, {size} are there");
        let (file, offset) = cut.map_or((dir.path.clone(), 0), |cut| (cut.file, cut.offset));
        return Err(StoreError::Damaged(Box::new(Damage {
            file,
            offset,
            chain: dir.chain,
            seq: size,
            what,
        })));
    }
    if size == 0 {
        fs::remove_dir_all(&dir.path).map_err(StoreError::io(&dir.path))?;
        return Ok(None);
    }
    if let Some(cut) = &cut {
        cut_off(cut).map_err(StoreError::io(&cut.file))?;
        sync_dir(&dir.path).map_err(StoreError::io(&dir.path))?;
    }
    let previous = Previous {
        head: scan.head,
        root: Some(scan.tree.root()),
        checkpoint: signed.map(|(_, note)| note).unwrap_or_default(),
        clean: scan.clean,
        torn_bytes: cut.as_ref().map_or(0, |cut| cut.bytes),
    };
    Ok(Some((previous, cut)))
}

/// Whether anything after the damage shows that the damaged record was on disk: a later segment, or a later record that
/// was written when this one was already synced.
fn proven_durable(dir: &ChainDir, damage: &Damage) -> Result<bool, StoreError> {
    let segments = dir.segments().map_err(StoreError::io(&dir.path))?;
    let last = segments.last().map(|(_, path)| path);
    if last != Some(&damage.file) {
        return Ok(true);
    }
    let file = File::open(&damage.file).map_err(StoreError::io(&damage.file))?;
    later_synced(&file, damage).map_err(StoreError::io(&damage.file))
}

/// Looks for a whole frame header at every later byte; its checksum makes a chance find one in 2^32.
fn later_synced(file: &File, damage: &Damage) -> io::Result<bool> {
    let mut window = Vec::new();
    let mut at = damage.offset + 1;
    let mut chunk = vec![0; 1 << 20];
    loop {
        let read = file.read_at(&mut chunk, at)?;
        if read == 0 {
            return Ok(false);
        }
        at += read as u64;
        window.extend_from_slice(&chunk[..read]);
        for bytes in window.windows(FRAME_HEADER) {
            let Ok(bytes) = <&[u8; FRAME_HEADER]>::try_from(bytes) else {
                continue;
            };
            // The cheap half first: most windows are text, whose first bytes are no length.
            if u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) <= 1 << 20
                && let Some(header) = FrameHeader::read(bytes)
                && header.synced > damage.seq
            {
                return Ok(true);
            }
        }
        let keep = window.len().min(FRAME_HEADER - 1);
        window.drain(..window.len() - keep);
    }
}

/// Cuts the bytes off, keeping them beside. A crash after the copy cuts again, to the same effect.
fn cut_off(cut: &Cut) -> io::Result<()> {
    let mut kept = cut.file.as_os_str().to_owned();
    kept.push(format!(".{}.cut", cut.offset));
    let source = OpenOptions::new().read(true).write(true).open(&cut.file)?;
    let mut bytes = vec![
        0;
        usize::try_from(cut.bytes)
            .unwrap_or(usize::MAX)
            .min(64 << 20)
    ];
    source.read_exact_at(&mut bytes, cut.offset)?;
    let copy = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(FILE_MODE)
        .open(PathBuf::from(kept))?;
    copy.write_all_at(&bytes, 0)?;
    copy.sync_all()?;
    if cut.offset == 0 {
        // A segment that never had a whole header.
        return fs::remove_file(&cut.file);
    }
    source.set_len(cut.offset)?;
    source.sync_all()
}

#[cfg(test)]
mod tests;
