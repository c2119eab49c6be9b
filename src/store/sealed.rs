//! Sealed payloads on disk, beside the chains.
//!
//! ```text
//! <dir>/sealed/00000001.sealed      one file per start, or per 64 MiB: "CSGNSEA1", then frames
//! frame   u32 length of the body | u8 kind | u8 length of the session | u32 piece | session | body | u32 CRC-32 of all before
//! kinds   1 wrapped keys   2 a piece's ciphertext   3 wrapped keys, destroyed: the body is zeros
//! ```
//! Promises: what [`Writer::append`] has taken is on disk; a frame that was never acknowledged ends its file, and the next file
//! begins a new one. An erasure overwrites the wrapped keys in their place. Cannot promise: that what lies under the file system
//! (snapshots, copies, worn flash cells) forgets them too.

use std::{
    collections::HashSet,
    fs::{self, File, OpenOptions},
    io::{self, BufReader, Read, Seek, SeekFrom},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::layout::{create_private, sync_dir};
use crate::audit::seal::{Frame, FrameKind};

mod discard;

pub(crate) use discard::{copy, remove};

const MAGIC: &[u8; 8] = b"CSGNSEA1";
const HEAD: usize = 10;
/// Longest body taken for one: over a piece with its tag, and over the keys of all auditors.
const MAX_BODY: usize = 1 << 20;
/// A file is closed once it has this many bytes.
const FILE_BYTES: u64 = 64 << 20;

/// Where sealed payloads are in a ledger directory.
#[must_use]
pub fn sealed_dir(dir: &Path) -> PathBuf {
    dir.join("sealed")
}

/// The files of a directory of sealed payloads, oldest first; none where there is no such directory.
///
/// # Errors
/// Those of reading it.
pub fn files(dir: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let number = path
            .file_name()
            .and_then(|name| name.to_str()?.strip_suffix(".sealed")?.parse().ok());
        if let Some(number) = number {
            files.push((number, path));
        }
    }
    files.sort();
    Ok(files)
}

/// Appends frames. One per directory, under the ledger's lock.
#[derive(Debug)]
pub struct Writer {
    dir: PathBuf,
    number: u64,
    file: Option<(File, u64)>,
    bytes: u64,
    cap: u64,
}

impl Writer {
    /// A writer to directory `dir`, which is made where it is missing, of at most `cap` bytes in all.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn open(dir: &Path, cap: u64) -> io::Result<Self> {
        create_private(dir)?;
        let files = files(dir)?;
        let bytes = length(&files)?;
        Ok(Self {
            dir: dir.to_owned(),
            number: files.last().map_or(0, |(number, _)| *number),
            file: None,
            bytes,
            cap,
        })
    }

    /// Bytes of all files.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Appends frames: on return all of them are on disk, or an error is told and none of them counts.
    ///
    /// # Errors
    /// [`io::ErrorKind::QuotaExceeded`] at the cap; those of the file system.
    pub fn append<'f>(&mut self, frames: impl IntoIterator<Item = &'f Frame>) -> io::Result<()> {
        let mut bytes = Vec::new();
        for frame in frames {
            encode(frame, &mut bytes);
        }
        if self.bytes + bytes.len() as u64 > self.cap {
            self.count()?;
        }
        if self.bytes + bytes.len() as u64 > self.cap {
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
        let written = self.write(&bytes);
        if written.is_err() {
            // Nobody knows what of it is there: the next write begins a file of its own, and readers stop at what is torn.
            self.file = None;
        }
        written
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self
            .file
            .as_ref()
            .is_none_or(|(_, length)| *length >= FILE_BYTES)
        {
            self.number += 1;
            let file = begin(&self.dir, self.number, sync_dir)?;
            // What went by a rule meanwhile makes room; the new file is counted too.
            self.file = Some((file, MAGIC.len() as u64));
            self.count()?;
        }
        let Some((file, length)) = &mut self.file else {
            return Err(io::ErrorKind::NotFound.into());
        };
        file.write_all_at(bytes, *length)?;
        file.sync_data()?;
        *length += bytes.len() as u64;
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    /// Somebody may have moved old files away.
    fn count(&mut self) -> io::Result<()> {
        self.bytes = length(&files(&self.dir)?)?;
        Ok(())
    }
}

/// The file of this number, durably there with nothing in it, or not at all: the next write begins another.
fn begin(dir: &Path, number: u64, sync: impl Fn(&Path) -> io::Result<()>) -> io::Result<File> {
    let path = dir.join(format!("{number:08}.sealed"));
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(super::disk::FILE_MODE)
        .open(&path)?;
    let begun = file
        .write_all_at(MAGIC, 0)
        .and_then(|()| file.sync_all())
        .and_then(|()| sync(dir));
    if let Err(error) = begun {
        let _ = fs::remove_file(&path);
        return Err(error);
    }
    Ok(file)
}

/// Bytes of files, of which some may have gone since they were listed.
fn length(files: &[(u64, PathBuf)]) -> io::Result<u64> {
    let mut bytes = 0;
    for (_, path) in files {
        bytes += match fs::metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            found => found?.len(),
        };
    }
    Ok(bytes)
}

/// Keeps erasures, and the taking away of files, in directory `dir` apart from each other until the result is dropped: a copy that is
/// archived has no keys that were reported destroyed. It waits for whoever has it, in any process.
///
/// # Errors
/// Those of the file system; [`io::ErrorKind::NotFound`] where there is no such directory.
pub(crate) fn hold(dir: &Path) -> io::Result<File> {
    let held = File::open(dir)?;
    held.lock()?;
    Ok(held)
}

/// Overwrites the wrapped keys of `session` in directory `dir`, on disk on return; how many frames of them there were, destroyed
/// before or now. It reads over every file and may take as long, beside a [`Writer`] that goes on; it waits while files are taken away.
/// A file stays as old as it was.
///
/// # Errors
/// Those of the file system; then it is to be done again.
pub fn erase(dir: &Path, session: &str) -> io::Result<usize> {
    let _held = match hold(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        held => held?,
    };
    let mut keys = 0;
    let mut failed = None;
    visit(dir, |at, frame| {
        if at.session != session || matches!(at.kind, FrameKind::Piece(_)) {
            return true;
        }
        keys += 1;
        // Also where it reads as erased: a crash or a failed sync may have left only the front of it so on disk.
        let mut bytes = Vec::new();
        let zeros = Frame {
            session: session.to_owned(),
            kind: FrameKind::Erased,
            body: vec![0; at.length],
        };
        encode(&zeros, &mut bytes);
        let written = OpenOptions::new().write(true).open(frame).and_then(|file| {
            // Its age is that of what was sealed, by which it goes.
            let modified = file.metadata()?.modified()?;
            file.write_all_at(&bytes, at.offset)?;
            file.set_modified(modified)?;
            file.sync_all()
        });
        failed = written.err();
        failed.is_none()
    })?;
    failed.map_or(Ok(keys), Err)
}

/// A frame that was seen, without its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The session.
    pub session: String,
    /// What it is.
    pub kind: FrameKind,
    /// Where it begins in its file.
    pub offset: u64,
    /// Length of its body.
    pub length: usize,
}

/// Shows every frame of directory `dir` with its file, until `each` is false; bodies are passed over unread. A file ends where it
/// holds no whole frame.
///
/// # Errors
/// Those of reading the files.
pub fn visit(dir: &Path, mut each: impl FnMut(&Seen, &Path) -> bool) -> io::Result<()> {
    for (_, path) in files(dir)? {
        match visit_one(&path, &mut each) {
            // Discarded meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Ok(true) => {}
            Ok(false) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The same of one file; whether `each` wants to see more.
fn visit_one(path: &Path, each: &mut impl FnMut(&Seen, &Path) -> bool) -> io::Result<bool> {
    let file = File::open(path)?;
    let end = file.metadata()?.len();
    let mut reader = BufReader::with_capacity(64 << 10, file);
    let mut offset = MAGIC.len() as u64;
    reader.seek(SeekFrom::Start(offset))?;
    while let Some(seen) = head(&mut reader, offset, end)? {
        if !each(&seen, path) {
            return Ok(false);
        }
        let past = seen.length as i64 + 4;
        reader.seek_relative(past)?;
        offset += (HEAD + seen.session.len()) as u64 + past as u64;
    }
    Ok(true)
}

/// How many of the files behind `file`, from the next one on, have pieces whose keys are in it.
///
/// # Errors
/// Those of reading the files.
pub(crate) fn goes_on_in(file: &Path, behind: &[(u64, PathBuf)]) -> io::Result<usize> {
    let mut keyed = HashSet::new();
    visit_one(file, &mut |seen, _| {
        if !matches!(seen.kind, FrameKind::Piece(_)) {
            keyed.insert(seen.session.clone());
        }
        true
    })?;
    let mut files = 0;
    for (_, path) in behind {
        let none = visit_one(path, &mut |seen, _| {
            !(matches!(seen.kind, FrameKind::Piece(_)) && keyed.contains(&seen.session))
        })?;
        if none {
            break;
        }
        files += 1;
    }
    Ok(files)
}

/// The head of the frame at `offset`; `None` where the file ends before the frame does, or no frame begins.
fn head(reader: &mut impl Read, offset: u64, end: u64) -> io::Result<Option<Seen>> {
    let mut head = [0; HEAD];
    if offset + HEAD as u64 > end {
        return Ok(None);
    }
    reader.read_exact(&mut head)?;
    let length = u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize;
    let piece = u32::from_be_bytes([head[6], head[7], head[8], head[9]]);
    let kind = match head[4] {
        1 => FrameKind::Keys,
        2 => FrameKind::Piece(piece),
        3 => FrameKind::Erased,
        _ => return Ok(None),
    };
    let whole = (HEAD + usize::from(head[5]) + length + 4) as u64;
    if length > MAX_BODY || offset + whole > end {
        return Ok(None);
    }
    let mut session = vec![0; usize::from(head[5])];
    reader.read_exact(&mut session)?;
    let Ok(session) = String::from_utf8(session) else {
        return Ok(None);
    };
    Ok(Some(Seen {
        session,
        kind,
        offset,
        length,
    }))
}

/// Whether the wrapped keys of `session` are there or destroyed; `None` where nothing of it is sealed.
///
/// # Errors
/// Those of reading the files.
pub fn keys_of(dir: &Path, session: &str) -> io::Result<Option<FrameKind>> {
    let mut found = None;
    visit(dir, |seen, _| {
        if seen.session == session && !matches!(seen.kind, FrameKind::Piece(_)) {
            found = Some(seen.kind);
        }
        // Keys that are there outweigh any that are not.
        found != Some(FrameKind::Keys)
    })?;
    Ok(found)
}

/// A place between two frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The file's number.
    number: u64,
    /// The byte in it.
    offset: u64,
}

impl Place {
    /// Whether all of the file of this number lies before it.
    #[must_use]
    pub fn is_past(self, number: u64) -> bool {
        self.number > number
    }
}

/// Pieces from a place on, until they have `most` bytes or more, and the place behind them. At the end of what can be read now, a later
/// call goes on there.
///
/// # Errors
/// Those of reading the files.
pub fn next(dir: &Path, from: Place, most: usize) -> io::Result<(Vec<Frame>, Place)> {
    let (mut pieces, mut bytes, mut at) = (Vec::new(), 0, from);
    let files = files(dir)?;
    let last = files.last().map_or(0, |(number, _)| *number);
    for (number, path) in files {
        if number < from.number {
            continue;
        }
        let begin = MAGIC.len() as u64;
        at = Place {
            number,
            offset: if number == from.number {
                from.offset.max(begin)
            } else {
                begin
            },
        };
        let file = File::open(&path)?;
        let end = file.metadata()?.len();
        let mut reader = BufReader::new(file);
        reader.seek(SeekFrom::Start(at.offset))?;
        while let Some(seen) = head(&mut reader, at.offset, end)? {
            let frame = read(&path, &seen)?;
            if frame.is_none() && number == last {
                // It may be being written.
                return Ok((pieces, at));
            }
            reader.seek_relative(seen.length as i64 + 4)?;
            at.offset += (HEAD + seen.session.len() + seen.length + 4) as u64;
            bytes += seen.length;
            pieces.extend(frame.filter(|frame| matches!(frame.kind, FrameKind::Piece(_))));
            if bytes >= most {
                return Ok((pieces, at));
            }
        }
    }
    Ok((pieces, at))
}

/// How far the pieces of `dir` were published.
///
/// # Errors
/// Those of reading the file; one that is missing or none says: nothing was.
pub fn published(dir: &Path) -> io::Result<Place> {
    match fs::read(dir.join("published")) {
        Ok(text) => Ok(serde_json::from_slice(&text).unwrap_or_default()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Place::default()),
        Err(error) => Err(error),
    }
}

/// Notes how far they were, never ahead of the truth.
///
/// # Errors
/// Those of the file system.
pub fn set_published(dir: &Path, place: Place) -> io::Result<()> {
    let fresh = dir.join("published.new");
    fs::write(&fresh, serde_json::to_vec(&place)?)?;
    fs::rename(fresh, dir.join("published"))
}

/// The frame at a place that [`visit`] has shown; `None` where its checksum is wrong.
///
/// # Errors
/// Those of reading the file.
pub fn read(file: &Path, at: &Seen) -> io::Result<Option<Frame>> {
    let mut bytes = vec![0; HEAD + at.session.len() + at.length + 4];
    File::open(file)?.read_exact_at(&mut bytes, at.offset)?;
    let body = HEAD + at.session.len()..bytes.len() - 4;
    let crc = crc32fast::hash(&bytes[..body.end]).to_be_bytes();
    Ok((bytes[body.end..] == crc).then(|| Frame {
        session: at.session.clone(),
        kind: at.kind,
        body: bytes[body].to_vec(),
    }))
}

fn encode(frame: &Frame, out: &mut Vec<u8>) {
    let start = out.len();
    let (kind, piece) = match frame.kind {
        FrameKind::Keys => (1, 0),
        FrameKind::Piece(piece) => (2, piece),
        FrameKind::Erased => (3, 0_u32),
    };
    debug_assert!(
        frame.body.len() <= MAX_BODY && frame.session.len() < 256,
        "the sealer's are not"
    );
    let session = &frame.session.as_bytes()[..frame.session.len().min(255)];
    out.extend_from_slice(
        &u32::try_from(frame.body.len())
            .unwrap_or(u32::MAX)
            .to_be_bytes(),
    );
    out.push(kind);
    out.push(u8::try_from(session.len()).unwrap_or(u8::MAX));
    out.extend_from_slice(&piece.to_be_bytes());
    out.extend_from_slice(session);
    out.extend_from_slice(&frame.body);
    let crc = crc32fast::hash(&out[start..]);
    out.extend_from_slice(&crc.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testing;

    fn frame(session: &str, kind: FrameKind, body: &[u8]) -> Frame {
        Frame {
            session: session.into(),
            kind,
            body: body.to_vec(),
        }
    }

    fn all(dir: &Path) -> Vec<Frame> {
        let mut frames = Vec::new();
        visit(dir, |seen, file| {
            frames.extend(read(file, seen).unwrap());
            true
        })
        .unwrap();
        frames
    }

    fn some() -> Vec<Frame> {
        vec![
            frame("s-1", FrameKind::Keys, b"wrapped keys of one"),
            frame("s-1", FrameKind::Piece(0), b"ciphertext"),
            frame("s-2", FrameKind::Keys, b"wrapped keys of two"),
            frame("s-2", FrameKind::Piece(0), b""),
            frame("s-1", FrameKind::Piece(1), &[7; 5_000]),
        ]
    }

    #[test]
    fn frames_read_back_over_several_starts_and_behind_what_a_crash_has_torn() {
        let dir = testing::dir();
        let mut expected = Vec::new();
        for start in 0..3 {
            let mut writer = Writer::open(dir.path(), 1 << 20).unwrap();
            writer.append(&some()).unwrap();
            expected.extend(some());
            assert_eq!(all(dir.path()), expected);
            // A torn write at the end, of any length.
            let (_, last) = files(dir.path()).unwrap().pop().unwrap();
            let length = fs::metadata(&last).unwrap().len();
            let mut torn = Vec::new();
            encode(&some()[0], &mut torn);
            let file = OpenOptions::new().write(true).open(&last).unwrap();
            for cut in 0..torn.len() {
                file.set_len(length).unwrap();
                file.write_all_at(&torn[..cut], length).unwrap();
                assert_eq!(
                    all(dir.path()).len(),
                    expected.len(),
                    "start {start}, cut {cut}"
                );
            }
        }
        assert_eq!(files(dir.path()).unwrap().len(), 3);
    }

    #[test]
    fn an_erasure_leaves_nothing_of_the_keys_and_all_of_the_rest() {
        let dir = testing::dir();
        let mut writer = Writer::open(dir.path(), 1 << 20).unwrap();
        writer.append(&some()).unwrap();
        let (before, size) = (all(dir.path()), writer.bytes());
        let (_, file) = files(dir.path()).unwrap().remove(0);
        let long_ago = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
        let opened = OpenOptions::new().write(true).open(&file).unwrap();
        opened.set_modified(long_ago).unwrap();
        assert_eq!(erase(dir.path(), "s-1").unwrap(), 1);
        assert_eq!(
            fs::metadata(&file).unwrap().modified().unwrap(),
            long_ago,
            "it is as old as before"
        );
        assert_eq!(
            erase(dir.path(), "s-1").unwrap(),
            1,
            "again, to the same effect"
        );
        assert_eq!(erase(dir.path(), "s-3").unwrap(), 0);
        let after = all(dir.path());
        assert_eq!((after.len(), writer.bytes()), (before.len(), size));
        assert_eq!(after[0], frame("s-1", FrameKind::Erased, &[0; 19]));
        assert_eq!(after[1..], before[1..]);
        let (_, file) = files(dir.path()).unwrap().remove(0);
        let bytes = fs::read(file).unwrap();
        assert!(
            !bytes
                .windows(19)
                .any(|window| window == b"wrapped keys of one")
        );
        assert!(
            bytes
                .windows(19)
                .any(|window| window == b"wrapped keys of two")
        );
    }

    /// The archive may have a copy from before an erasure, after a crash: then the erasure is carried out there too.
    #[test]
    fn a_copy_from_before_an_erasure_loses_the_keys_and_any_other_file_stays() {
        let (dir, outer) = (testing::dir(), testing::dir());
        let to = outer.path().join("a").join("b");
        let mut writer = Writer::open(dir.path(), 1 << 20).unwrap();
        writer.append(&some()).unwrap();
        let (_, file) = files(dir.path()).unwrap().remove(0);
        copy(std::slice::from_ref(&file), &to).unwrap();
        erase(dir.path(), "s-1").unwrap();
        copy(std::slice::from_ref(&file), &to).unwrap();
        let archived = to.join(file.file_name().unwrap());
        let erased = fs::read(&file).unwrap();
        assert_eq!(fs::read(&archived).unwrap(), erased);
        // A byte of a piece, or keys that the copy has no more but the file does: not this file.
        let mut other = erased.clone();
        *other.last_mut().unwrap() ^= 1;
        fs::write(&archived, &other).unwrap();
        let refused = copy(std::slice::from_ref(&file), &to).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&archived).unwrap(), other);
        fs::write(&archived, &erased).unwrap();
        erase(&to, "s-2").unwrap();
        assert!(copy(std::slice::from_ref(&file), &to).is_err());
    }

    #[test]
    fn an_erasure_waits_while_files_are_taken_away() {
        let dir = testing::dir();
        let mut writer = Writer::open(dir.path(), 1 << 20).unwrap();
        writer.append(&some()).unwrap();
        let held = hold(dir.path()).unwrap();
        let (done, is_done) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            scope.spawn(|| done.send(erase(dir.path(), "s-1").unwrap()));
            let other = File::open(dir.path()).unwrap();
            assert!(other.try_lock().is_err(), "it is held");
            assert_eq!(keys_of(dir.path(), "s-1").unwrap(), Some(FrameKind::Keys));
            assert!(is_done.try_recv().is_err());
            drop(held);
            assert_eq!(is_done.recv().unwrap(), 1);
        });
    }

    #[test]
    fn a_file_that_went_since_it_was_listed_counts_nothing() {
        let dir = testing::dir();
        let mut writer = Writer::open(dir.path(), 1 << 20).unwrap();
        writer.append(&some()).unwrap();
        let mut listed = files(dir.path()).unwrap();
        listed.push((9, dir.path().join("00000009.sealed")));
        assert_eq!(length(&listed).unwrap(), writer.bytes());
    }

    #[test]
    fn pieces_are_read_on_from_a_place_and_never_keys() {
        let dir = testing::dir();
        let mut place = published(dir.path()).unwrap();
        let mut seen = Vec::new();
        for _ in 0..3 {
            let mut writer = Writer::open(dir.path(), 1 << 20).unwrap();
            for _ in 0..2 {
                writer.append(&some()).unwrap();
                loop {
                    let (pieces, past) = next(dir.path(), place, 4_000).unwrap();
                    seen.extend(pieces);
                    if past == place {
                        break;
                    }
                    place = past;
                    set_published(dir.path(), place).unwrap();
                }
                assert_eq!(published(dir.path()).unwrap(), place);
            }
        }
        let expected: Vec<_> = all(dir.path())
            .into_iter()
            .filter(|frame| matches!(frame.kind, FrameKind::Piece(_)))
            .collect();
        assert_eq!(seen, expected);
        assert_eq!(seen.len(), 18);
    }

    #[test]
    fn a_file_that_could_not_be_begun_durably_is_not_there_and_the_next_one_is() {
        let dir = testing::dir();
        let mut writer = Writer::open(dir.path(), 1 << 20).unwrap();
        writer.append(&some()).unwrap();
        let full = |_: &Path| Err(io::ErrorKind::StorageFull.into());
        assert!(begin(dir.path(), 2, full).is_err());
        assert_eq!(files(dir.path()).unwrap().len(), 1);
        drop(begin(dir.path(), 2, sync_dir).unwrap());
        assert_eq!(all(dir.path()), some());
        assert_eq!(files(dir.path()).unwrap().len(), 2);
    }

    #[test]
    fn a_file_goes_on_in_those_behind_it_that_have_pieces_of_its_sessions() {
        let dir = testing::dir();
        let keys = |session| frame(session, FrameKind::Keys, b"keys");
        let piece = |session, n| frame(session, FrameKind::Piece(n), b"piece");
        for frames in [
            vec![keys("a"), piece("a", 0), keys("b"), piece("b", 0)],
            vec![piece("b", 1), keys("c"), piece("c", 0)],
            vec![piece("b", 2)],
            vec![keys("d"), piece("d", 0)],
            vec![piece("b", 3)],
        ] {
            let mut writer = Writer::open(dir.path(), 1 << 20).unwrap();
            writer.append(&frames).unwrap();
        }
        erase(dir.path(), "b").unwrap();
        let files = files(dir.path()).unwrap();
        let on: Vec<usize> = (0..5)
            .map(|at| goes_on_in(&files[at].1, &files[at + 1..]).unwrap())
            .collect();
        assert_eq!(on, [2, 0, 0, 0, 0]);
    }

    #[test]
    fn at_the_cap_nothing_is_taken_until_somebody_makes_room() {
        let dir = testing::dir();
        let mut writer = Writer::open(dir.path(), 6_000).unwrap();
        writer.append(&some()).unwrap();
        let refused = writer.append(&some()).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::QuotaExceeded);
        assert_eq!(all(dir.path()), some());
        let (_, old) = files(dir.path()).unwrap().remove(0);
        fs::remove_file(old).unwrap();
        let mut writer = Writer::open(dir.path(), 6_000).unwrap();
        writer.append(&some()).unwrap();
        assert_eq!(all(dir.path()), some());
    }

    #[test]
    fn a_changed_byte_is_seen_or_ends_the_file() {
        let dir = testing::dir();
        let mut writer = Writer::open(dir.path(), 1 << 20).unwrap();
        writer.append(&some()[..2]).unwrap();
        let (_, path) = files(dir.path()).unwrap().remove(0);
        let good = fs::read(&path).unwrap();
        for at in MAGIC.len()..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 4;
            fs::write(&path, &bad).unwrap();
            assert_ne!(all(dir.path()), some()[..2], "byte {at}");
        }
    }
}
