//! The control log of a single process: events in files of their own, each durable before anyone is told.
//!
//! ```text
//! control/00000000000000000000.log    frames: length (u32), CRC-32 (u32), time (i64, ns), events: length (u32), bytes
//! control/00000000000000001812.log    the next file, named for its first event            (numbers are big-endian)
//! ```
//!
//! What is appended together is one frame, and each frame is on disk before the next is written: so a bad frame with a good
//! one behind it is damage, and one at the very end was never acknowledged.
//!
//! Promises: [`ControlLog::append`] has all of a batch on disk on return, or none of it counts; places only grow, also over
//! a restart; the clock it stamps with never steps back. What a crash tore is cut off the end. Files whose last event is older than what anybody could still ask for are deleted.
//! Can miss: a hand that edits the file. It is the process's own memory; the evidence is the audit log.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use jiff::Timestamp;

use super::{
    StoreError,
    disk::{Disk, LogFile, RealDisk},
    layout::{create_private, sync_dir},
    lock::DirLock,
};
use crate::approval::Placed;

/// Where a new file is begun, in bytes.
const FILE_BYTES: u64 = 4 << 20;
/// Longest event, in bytes.
pub const MAX_EVENT: usize = 256 << 10;
/// Events older than this are of no use to anyone: the longest life of an approval, how long it is remembered, and a margin.
const KEPT: Duration = Duration::from_secs(3 * 86_400);
const HEADER: usize = 4 + 4 + 8;

/// The log, owned by one thread.
pub struct ControlLog {
    disk: Box<dyn Disk>,
    dir: PathBuf,
    file: Box<dyn LogFile>,
    /// Length of the file up to the end of the last event that counts.
    length: u64,
    /// Place of the next event.
    next: u64,
    last_time: Timestamp,
    /// Something beyond `length` may be there, or may not be on disk.
    unsure: bool,
    _lock: DirLock,
}

impl std::fmt::Debug for ControlLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ControlLog")
            .field("next", &self.next)
            .finish_non_exhaustive()
    }
}

impl ControlLog {
    /// Opens the log in `dir`, made where it is not there, and reads every event to `each`, in order.
    ///
    /// # Errors
    /// [`StoreError`]; [`StoreError::Io`] of kind `InvalidData` for damage anywhere but at the very end.
    pub fn open(dir: &Path, each: impl FnMut(Placed, &[u8])) -> Result<Self, StoreError> {
        Self::open_on(Box::new(RealDisk), dir, each)
    }

    pub(crate) fn open_on(
        disk: Box<dyn Disk>,
        dir: &Path,
        mut each: impl FnMut(Placed, &[u8]),
    ) -> Result<Self, StoreError> {
        create_private(dir).map_err(StoreError::io(dir))?;
        let lock = DirLock::take(dir)?;
        let files = files(dir).map_err(StoreError::io(dir))?;
        let (mut next, mut last_time) = (0, Timestamp::MIN);
        let last = files.len().saturating_sub(1);
        for (index, (first, path)) in files.iter().enumerate() {
            if index > 0 && *first != next {
                let gap = io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("event {next} should be the first here"),
                );
                return Err(StoreError::io(path)(gap));
            }
            next = *first;
            let bytes = fs::read(path).map_err(StoreError::io(path))?;
            let read = frames(&bytes, |at, event| {
                last_time = last_time.max(at);
                each(Placed { offset: next, at }, event);
                next += 1;
            });
            let rest = bytes.get(read + 1..).unwrap_or_default();
            if read < bytes.len() && (index != last || holds_a_frame(rest)) {
                let damage = io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("event {next} is damaged"),
                );
                return Err(StoreError::io(path)(damage));
            }
        }
        // Always a new file: what a crash tore off the last one's end stays where it can be looked at, and counts for nothing.
        if let Some((first, path)) = files.last()
            && *first == next
        {
            fs::remove_file(path).map_err(StoreError::io(path))?;
        } else if let Some((_, path)) = files.last() {
            cut_torn(path).map_err(StoreError::io(path))?;
        }
        let file = begin(disk.as_ref(), dir, next).map_err(StoreError::io(dir))?;
        Ok(Self {
            disk,
            dir: dir.to_owned(),
            file,
            length: 0,
            next,
            last_time,
            unsure: false,
            _lock: lock,
        })
    }

    /// Appends `events` at the time `now`: all of them are on disk on return, and each has the place that is returned.
    ///
    /// # Errors
    /// Those of the file system: none of them counts. One that could not be taken back may yet be there after a crash.
    pub fn append<'e>(
        &mut self,
        now: Timestamp,
        events: impl IntoIterator<Item = &'e [u8]>,
    ) -> io::Result<Vec<Placed>> {
        self.mend()?;
        if self.length >= FILE_BYTES {
            self.rotate(now)?;
        }
        let at = self.last_time.max(now);
        let (mut payload, mut placed) = (Vec::new(), Vec::new());
        for event in events {
            if event.len() > MAX_EVENT {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    "an event is too long",
                ));
            }
            write_length(&mut payload, event.len());
            payload.extend_from_slice(event);
            let offset = self.next + placed.len() as u64;
            placed.push(Placed { offset, at });
        }
        let bytes = frame(at, &payload);
        let written = self
            .file
            .write_at(&bytes, self.length)
            .and_then(|()| self.file.sync());
        if let Err(error) = written {
            self.unsure = true;
            // At once, so that a crash brings nothing back; where that fails, before the next.
            let _ = self.mend();
            return Err(error);
        }
        self.length += bytes.len() as u64;
        self.next += placed.len() as u64;
        self.last_time = at;
        Ok(placed)
    }

    /// Cuts off what a failed write may have left.
    fn mend(&mut self) -> io::Result<()> {
        if self.unsure {
            self.file.cut(self.length)?;
            self.file.sync()?;
            self.unsure = false;
        }
        Ok(())
    }

    fn rotate(&mut self, now: Timestamp) -> io::Result<()> {
        self.file = begin(self.disk.as_ref(), &self.dir, self.next)?;
        self.length = 0;
        // A file's events are all older than the first of the next.
        let files = files(&self.dir)?;
        for pair in files.windows(2) {
            let [(_, path), (_, following)] = pair else {
                break;
            };
            let first = first_time(following)?.unwrap_or(now);
            if now.duration_since(first) <= jiff::SignedDuration::try_from(KEPT).unwrap_or_default()
            {
                break;
            }
            fs::remove_file(path)?;
        }
        sync_dir(&self.dir)
    }
}

fn begin(disk: &dyn Disk, dir: &Path, next: u64) -> io::Result<Box<dyn LogFile>> {
    let mut file = disk.create(&dir.join(format!("{next:020}.log")))?;
    file.sync()?;
    disk.sync_dir(dir)?;
    Ok(file)
}

/// The files of the log by first event, in order.
fn files(dir: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let first = path.extension().filter(|end| *end == "log").and_then(|_| {
            let stem = path.file_stem()?.to_str()?;
            (stem.len() == 20).then(|| stem.parse::<u64>().ok())?
        });
        files.extend(first.map(|first| (first, path)));
    }
    files.sort();
    Ok(files)
}

fn write_length(to: &mut Vec<u8>, length: usize) {
    let length = u32::try_from(length).unwrap_or(u32::MAX);
    to.extend_from_slice(&length.to_be_bytes());
}

fn frame(at: Timestamp, payload: &[u8]) -> Vec<u8> {
    let nanoseconds = i64::try_from(at.as_nanosecond()).unwrap_or(i64::MAX);
    let time = nanoseconds.to_be_bytes();
    let mut bytes = Vec::with_capacity(HEADER + payload.len());
    write_length(&mut bytes, payload.len());
    bytes.extend_from_slice(&checksum(&time, payload).to_be_bytes());
    bytes.extend_from_slice(&time);
    bytes.extend_from_slice(payload);
    bytes
}

fn checksum(time: &[u8], payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(time);
    hasher.update(payload);
    hasher.finalize()
}

/// Reads whole frames; returns how many bytes they are.
fn frames(bytes: &[u8], mut each: impl FnMut(Timestamp, &[u8])) -> usize {
    let mut rest = bytes;
    while let Some((at, mut payload, after)) = first_frame(rest) {
        while let Some((event, more)) = prefixed(payload) {
            each(at, event);
            payload = more;
        }
        rest = after;
    }
    bytes.len() - rest.len()
}

/// Whether a frame begins anywhere in `bytes`: by chance, at one place in 2^32.
fn holds_a_frame(bytes: &[u8]) -> bool {
    (0..bytes.len()).any(|start| bytes.get(start..).and_then(first_frame).is_some())
}

/// Bytes with their length before them, and what follows.
fn prefixed(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    rest.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)
}

fn first_frame(bytes: &[u8]) -> Option<(Timestamp, &[u8], &[u8])> {
    let (header, rest) = bytes.split_first_chunk::<HEADER>()?;
    let (length, header) = header.split_first_chunk::<4>()?;
    let (crc, time) = header.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    let (payload, after) = rest.split_at_checked(length)?;
    let time: &[u8; 8] = time.try_into().ok()?;
    // An empty frame is never written; read from a hole of zeros its checksum could be right.
    let right = !payload.is_empty() && checksum(time, payload) == u32::from_be_bytes(*crc);
    let at = Timestamp::from_nanosecond(i128::from(i64::from_be_bytes(*time))).ok()?;
    right.then_some((at, payload, after))
}

fn first_time(path: &Path) -> io::Result<Option<Timestamp>> {
    let bytes = fs::read(path)?;
    Ok(first_frame(&bytes).map(|(at, ..)| at))
}

/// Cuts off what a crash tore, so that a later file may follow.
fn cut_torn(path: &Path) -> io::Result<()> {
    let bytes = fs::read(path)?;
    let whole = frames(&bytes, |_, _| {});
    if whole < bytes.len() {
        let file = fs::OpenOptions::new().write(true).open(path)?;
        file.set_len(whole as u64)?;
        file.sync_all()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
