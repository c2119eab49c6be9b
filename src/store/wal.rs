//! One chain being written.
//!
//! Promises: [`Wal::append`] adds all of a batch or none of it; after [`Wal::sync`] all of it survives a power cut. A
//! failed write is cut off again, a failed sync is written again (after one, Linux may have dropped the pages and call the
//! next sync a success), and until that works nothing else is written, so that the file never has a hole. What a failed
//! sync left unsure stays in the chain: its callers are told "failed", and it may turn up in the log.

use std::io;

use super::{
    disk::{Disk, LogFile},
    frame,
    layout::ChainDir,
};
use crate::audit::{
    Hash, Receipt,
    chain::{Head, Stamp, place_into},
    tree::{Commitment, Frontier},
};

/// The chain being written. Owned by one thread.
pub(crate) struct Wal {
    disk: Box<dyn Disk>,
    dir: ChainDir,
    segment_bytes: u64,
    file: Box<dyn LogFile>,
    /// Length of the segment up to the end of the last whole frame.
    length: u64,
    head: Head,
    tree: Frontier,
    /// Records known to survive a power cut.
    synced: u64,
    /// What was written since, to be written again should the sync fail. Bounded by [`Wal::must_sync`].
    unsynced: Vec<u8>,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Sound,
    /// Bytes beyond `length` must be cut off before anything is written.
    Cut,
    /// `unsynced` must be written again and synced before anything is written.
    Rewrite,
}

/// Bytes written after which a sync is due whatever the durability asked for.
const MAX_UNSYNCED: usize = 8 << 20;

impl Wal {
    /// Begins a chain in `dir`, which must exist and be empty.
    pub(crate) fn create(
        disk: Box<dyn Disk>,
        dir: ChainDir,
        segment_bytes: u64,
    ) -> io::Result<Self> {
        let head = Head::empty(dir.chain);
        let (file, length) = new_segment(disk.as_ref(), &dir, &head)?;
        Ok(Self {
            disk,
            dir,
            segment_bytes,
            file,
            length,
            head,
            tree: Frontier::default(),
            synced: 0,
            unsynced: Vec::new(),
            state: State::Sound,
        })
    }

    /// The chain's end, durable or not.
    pub(crate) fn head(&self) -> Head {
        self.head
    }

    /// The root of the tree over all records written.
    pub(crate) fn root(&self) -> Hash {
        self.tree.root()
    }

    /// Records known to survive a power cut.
    pub(crate) fn synced(&self) -> u64 {
        self.synced
    }

    /// Whether so much was written since the last sync that one is due.
    pub(crate) fn must_sync(&self) -> bool {
        self.unsynced.len() >= MAX_UNSYNCED
    }

    /// Whether the next batch begins a new segment.
    pub(crate) fn segment_is_full(&self) -> bool {
        self.length >= self.segment_bytes
    }

    /// Writes `entries` (each with its stamp) as the next records: all or none. Returns the bytes the log grew by.
    ///
    /// On an error none of them is in the chain; a crash before the next success may still bring some of them back.
    pub(crate) fn append(
        &mut self,
        entries: &[(Stamp<'_>, &[u8])],
        receipts: &mut Vec<Receipt>,
    ) -> io::Result<u64> {
        self.repair()?;
        let mut grown = 0;
        if self.segment_is_full() {
            grown += self.rotate()?;
        }
        let before = receipts.len();
        let (mut head, mut tree) = (self.head, self.tree.clone());
        let start = self.unsynced.len();
        let mut record = Vec::new();
        // A batch is written under one stamp, and its time is written once.
        let mut written: Option<(&Stamp<'_>, String)> = None;
        for (stamp, entry) in entries {
            let (_, stamp) = match written.take().filter(|(of, _)| *of == stamp) {
                Some(same) => written.insert(same),
                None => written.insert((stamp, stamp.written())),
            };
            record.clear();
            place_into(&mut record, &head, stamp, entry);
            let record_hash = head.hash_next(&record);
            let (chain, seq) = (head.chain, head.size);
            frame::write_frame(&mut self.unsynced, seq, record_hash, self.synced, &record);
            tree.push(
                &Commitment {
                    chain,
                    seq,
                    record_hash,
                    payload_hash: Hash::ZERO,
                }
                .bytes(),
            );
            receipts.push(Receipt {
                chain,
                seq,
                record_hash,
            });
            head = head.after(record_hash);
        }
        let frames = &self.unsynced[start..];
        if let Err(error) = self.file.write_at(frames, self.length) {
            receipts.truncate(before);
            self.unsynced.truncate(start);
            self.state = State::Cut;
            // At once, so that a crash brings nothing back; where it fails it is tried again before the next write.
            let _ = self.repair();
            return Err(error);
        }
        grown += frames.len() as u64;
        self.length += frames.len() as u64;
        (self.head, self.tree) = (head, tree);
        Ok(grown)
    }

    /// Makes all that was appended survive a power cut.
    pub(crate) fn sync(&mut self) -> io::Result<()> {
        self.repair()?;
        if self.synced == self.head.size {
            return Ok(());
        }
        if let Err(error) = self.file.sync() {
            self.state = State::Rewrite;
            return Err(error);
        }
        self.all_synced();
        Ok(())
    }

    /// Brings the file back to what the chain says it is, after a failure.
    pub(crate) fn repair(&mut self) -> io::Result<()> {
        match self.state {
            State::Sound => {}
            State::Cut => self.file.cut(self.length)?,
            State::Rewrite => {
                self.file.cut(self.length)?;
                self.file
                    .write_at(&self.unsynced, self.length - self.unsynced.len() as u64)?;
                self.file.sync()?;
                self.all_synced();
            }
        }
        self.state = State::Sound;
        Ok(())
    }

    /// Begins the next segment. The one before is durable first, so that a hole between segments cannot be.
    fn rotate(&mut self) -> io::Result<u64> {
        self.sync()?;
        (self.file, self.length) = new_segment(self.disk.as_ref(), &self.dir, &self.head)?;
        Ok(self.length)
    }

    fn all_synced(&mut self) {
        self.synced = self.head.size;
        self.unsynced.clear();
        // What a large batch took is not kept.
        self.unsynced.shrink_to(MAX_UNSYNCED);
    }
}

/// A crash after any line of this leaves a segment without records, which recovery removes.
fn new_segment(
    disk: &dyn Disk,
    dir: &ChainDir,
    head: &Head,
) -> io::Result<(Box<dyn LogFile>, u64)> {
    let mut file = disk.create(&dir.segment(head.size))?;
    let header = frame::segment_header(head);
    file.write_at(&header, 0)?;
    file.sync()?;
    disk.sync_dir(&dir.path)?;
    Ok((file, header.len() as u64))
}

#[cfg(test)]
mod tests;
