//! Reads a chain from disk, record by record, also while it is being written.
//!
//! Checks checksums and structure only: whether a record is what was written is for [`crate::audit::verify`] to say.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use super::{
    Damage,
    frame::{self, FRAME_HEADER, FrameHeader, SEGMENT_HEADER},
    layout::ChainDir,
};
use crate::audit::Hash;

/// A stored record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Its place, as its frame says.
    pub seq: u64,
    /// Its hash, as its frame says.
    pub record_hash: Hash,
    /// Records known to be on disk when it was written, as its frame says.
    pub synced: u64,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Where its frame begins in its segment.
    pub offset: u64,
}

/// What came next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A record.
    Record(Stored),
    /// No more for now: reading on later sees what was written since. Bytes after the last whole record, if any, are a
    /// write in progress, or one that a crash has torn.
    End(Tail),
    /// What is there cannot be read; there is no reading on.
    Damaged(Damage),
}

/// The end of a chain as it is on disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tail {
    /// The last segment; `None` where there is none.
    pub file: Option<PathBuf>,
    /// Where the next frame would begin.
    pub offset: u64,
    /// Bytes there that are no whole record.
    pub torn: u64,
}

/// Bytes read ahead.
const CHUNK: usize = 64 << 10;

/// Reads one chain.
#[derive(Debug)]
pub struct ChainReader {
    dir: ChainDir,
    segment: Option<Segment>,
    next_seq: u64,
    /// First record and length of the segment that was last when a reader of what is there now was made.
    until: Option<(u64, u64)>,
}

#[derive(Debug)]
struct Segment {
    path: PathBuf,
    first_seq: u64,
    file: File,
    /// Where the next frame begins.
    offset: u64,
    /// Bytes of the file from `offset` on.
    buffer: Vec<u8>,
    consumed: usize,
}

impl ChainReader {
    /// A reader at the beginning of a chain.
    #[must_use]
    pub fn new(dir: ChainDir) -> Self {
        Self {
            dir,
            segment: None,
            next_seq: 0,
            until: None,
        }
    }

    /// A reader that begins at record `seq`, which must be the first of a segment; earlier segments are passed over.
    #[must_use]
    pub fn from(dir: ChainDir, seq: u64) -> Self {
        Self {
            next_seq: seq,
            ..Self::new(dir)
        }
    }

    /// A reader of what a chain holds now: it ends there, however fast the chain grows.
    ///
    /// # Errors
    /// Those of reading the directory.
    pub fn until_now(dir: ChainDir) -> io::Result<Self> {
        Self::new(dir).ending_now()
    }

    /// The same reader, of what the chain holds now only.
    ///
    /// # Errors
    /// Those of reading the directory.
    pub fn ending_now(mut self) -> io::Result<Self> {
        let last = self.dir.segments()?.pop();
        self.until = last
            .map(|(first, path)| Ok::<_, io::Error>((first, path.metadata()?.len())))
            .transpose()?;
        Ok(self)
    }

    /// A reader that begins with the segment that holds record `seq`; earlier records of that segment come first.
    ///
    /// # Errors
    /// Those of reading the directory.
    pub fn near(dir: ChainDir, seq: u64) -> io::Result<Self> {
        let first = dir
            .segments()?
            .iter()
            .map(|(first, _)| *first)
            .take_while(|first| *first <= seq)
            .last();
        Ok(Self {
            dir,
            segment: None,
            next_seq: first.unwrap_or(0),
            until: None,
        })
    }

    /// The chain's directory.
    #[must_use]
    pub fn dir(&self) -> &ChainDir {
        &self.dir
    }

    /// The record after the last one read, by its place.
    #[must_use]
    pub fn next_seq(&self) -> u64 {
        self.next_seq
    }

    /// The segment being read.
    #[must_use]
    pub fn current_file(&self) -> Option<&Path> {
        self.segment.as_ref().map(|segment| segment.path.as_path())
    }

    /// Bytes of the segment being read that were not read yet.
    ///
    /// # Errors
    /// Those of the operating system.
    pub fn left_in_segment(&self) -> io::Result<u64> {
        let Some(segment) = &self.segment else {
            return Ok(0);
        };
        Ok(segment
            .file
            .metadata()?
            .len()
            .saturating_sub(segment.offset))
    }

    /// Reads on.
    ///
    /// # Errors
    /// Those of the operating system; reading on may succeed later.
    pub fn step(&mut self) -> io::Result<Step> {
        loop {
            let Some(segment) = &mut self.segment else {
                match self.open_next(None)? {
                    Opened::Yes => continue,
                    Opened::None(tail) => return Ok(Step::End(tail)),
                    Opened::Damaged(damage) => return Ok(Step::Damaged(damage)),
                }
            };
            if self
                .until
                .is_some_and(|until| (segment.first_seq, segment.offset) >= until)
            {
                return Ok(Step::End(Tail {
                    file: Some(segment.path.clone()),
                    offset: segment.offset,
                    torn: 0,
                }));
            }
            match segment.frame()? {
                Frame::Whole(stored) => {
                    self.next_seq = stored.seq.saturating_add(1);
                    return Ok(Step::Record(stored));
                }
                Frame::Bad(what) => return Ok(Step::Damaged(self.damage(&what))),
                Frame::Cut(torn) => {
                    let (first_seq, offset, path) =
                        (segment.first_seq, segment.offset, segment.path.clone());
                    // Records first, then the next segment: the writer makes them in that order, so look again for the
                    // former once the latter was seen.
                    if self.following(Some(first_seq))?.is_none() {
                        return Ok(Step::End(Tail {
                            file: Some(path),
                            offset,
                            torn,
                        }));
                    }
                    match self.segment.as_mut().map(Segment::frame).transpose()? {
                        Some(Frame::Whole(stored)) => {
                            self.next_seq = stored.seq.saturating_add(1);
                            return Ok(Step::Record(stored));
                        }
                        Some(Frame::Cut(0)) => match self.open_next(Some(first_seq))? {
                            Opened::Yes => {}
                            Opened::None(tail) => return Ok(Step::End(tail)),
                            Opened::Damaged(damage) => return Ok(Step::Damaged(damage)),
                        },
                        Some(Frame::Cut(_)) => {
                            return Ok(Step::Damaged(
                                self.damage("it is cut short, and another segment follows"),
                            ));
                        }
                        Some(Frame::Bad(what)) => return Ok(Step::Damaged(self.damage(&what))),
                        None => {}
                    }
                }
            }
        }
    }

    fn damage(&self, what: &str) -> Damage {
        let (file, offset) = match &self.segment {
            Some(segment) => (segment.path.clone(), segment.offset),
            None => (self.dir.path.clone(), 0),
        };
        Damage {
            file,
            offset,
            chain: self.dir.chain,
            seq: self.next_seq,
            what: what.to_owned(),
        }
    }

    /// The segment after the one that begins at `current`, or the first one at or after where reading begins.
    fn following(&self, current: Option<u64>) -> io::Result<Option<(u64, PathBuf)>> {
        // Nearly always it begins with the next record, and the directory need not be listed.
        let next = self.dir.segment(self.next_seq);
        if current.is_some_and(|current| current < self.next_seq) && next.exists() {
            return Ok(Some((self.next_seq, next)));
        }
        let wanted = |first: u64| current.map_or(first >= self.next_seq, |current| first > current);
        Ok(self
            .dir
            .segments()?
            .into_iter()
            .find(|(first, _)| wanted(*first)))
    }

    fn is_last(&self, first_seq: u64) -> io::Result<bool> {
        Ok(self
            .dir
            .segments()?
            .last()
            .is_none_or(|(last, _)| *last <= first_seq))
    }

    /// Opens the [`following`](Self::following) segment.
    fn open_next(&mut self, current: Option<u64>) -> io::Result<Opened> {
        let Some((first_seq, path)) = self.following(current)? else {
            return Ok(Opened::None(Tail::default()));
        };
        let file = File::open(&path)?;
        let length = file.metadata()?.len();
        let damage = |what: &str, seq| {
            let file = path.clone();
            Ok(Opened::Damaged(Damage {
                file,
                offset: 0,
                chain: self.dir.chain,
                seq,
                what: what.to_owned(),
            }))
        };
        let mut header = [0; SEGMENT_HEADER];
        if length < SEGMENT_HEADER as u64 {
            if !self.is_last(first_seq)? {
                return damage("the segment's header is cut short", self.next_seq);
            }
            return Ok(Opened::None(Tail {
                file: Some(path),
                offset: 0,
                torn: length,
            }));
        }
        file.read_exact_at(&mut header, 0)?;
        match frame::read_segment_header(&header) {
            Err(_)
                if length == SEGMENT_HEADER as u64
                    && header == [0; SEGMENT_HEADER]
                    && self.is_last(first_seq)? =>
            {
                return Ok(Opened::None(Tail {
                    file: Some(path),
                    offset: 0,
                    torn: length,
                }));
            }
            Err(what) => return damage(what, self.next_seq),
            Ok(head) if head.chain != self.dir.chain => {
                return damage(
                    &format!("the segment is one of chain {}, moved here", head.chain),
                    self.next_seq,
                );
            }
            Ok(head) if head.size != first_seq => {
                return damage(
                    "the segment's name is not that of its first record",
                    self.next_seq,
                );
            }
            Ok(_) => {}
        }
        let offset = SEGMENT_HEADER as u64;
        self.segment = Some(Segment {
            path,
            first_seq,
            file,
            offset,
            buffer: Vec::new(),
            consumed: 0,
        });
        Ok(Opened::Yes)
    }
}

/// The record whose frame begins at byte `offset` of a segment; `None` where no whole frame does.
///
/// # Errors
/// Those of opening and reading the file.
pub fn record_at(segment: &Path, offset: u64) -> io::Result<Option<Stored>> {
    let mut segment = Segment {
        path: segment.to_owned(),
        first_seq: 0,
        file: File::open(segment)?,
        offset,
        buffer: Vec::new(),
        consumed: 0,
    };
    match segment.frame()? {
        Frame::Whole(stored) => Ok(Some(stored)),
        Frame::Cut(_) | Frame::Bad(_) => Ok(None),
    }
}

enum Opened {
    Yes,
    None(Tail),
    Damaged(Damage),
}

enum Frame {
    Whole(Stored),
    /// Fewer bytes than a frame: this many.
    Cut(u64),
    Bad(String),
}

impl Segment {
    fn frame(&mut self) -> io::Result<Frame> {
        let available = self.fill(FRAME_HEADER)?;
        if available.len() < FRAME_HEADER {
            let torn = available.len() as u64;
            self.forget();
            return Ok(Frame::Cut(torn));
        }
        let mut header = [0; FRAME_HEADER];
        header.copy_from_slice(&available[..FRAME_HEADER]);
        let Some(header) = FrameHeader::read(&header) else {
            return self.zeros_or("its header does not match its checksum");
        };
        let whole = FRAME_HEADER + header.length;
        let available = self.fill(whole)?;
        if available.len() < whole {
            let torn = available.len() as u64;
            self.forget();
            return Ok(Frame::Cut(torn));
        }
        let bytes = available[FRAME_HEADER..whole].to_vec();
        if crc32fast::hash(&bytes) != header.crc {
            self.forget();
            return Ok(Frame::Bad(
                "its bytes do not match their checksum".to_owned(),
            ));
        }
        let offset = self.offset;
        self.offset += whole as u64;
        self.consumed += whole;
        let FrameHeader {
            seq,
            record_hash,
            synced,
            ..
        } = header;
        Ok(Frame::Whole(Stored {
            seq,
            record_hash,
            synced,
            bytes,
            offset,
        }))
    }

    /// A file that grew before its bytes were written, which a power cut can leave, is zeros to its end.
    fn zeros_or(&mut self, what: &str) -> io::Result<Frame> {
        let length = self.file.metadata()?.len();
        let (mut at, mut chunk) = (self.offset, vec![0; CHUNK]);
        self.forget();
        while at < length {
            let read = self.file.read_at(&mut chunk, at)?;
            if read == 0 {
                break;
            }
            if chunk[..read].iter().any(|byte| *byte != 0) {
                return Ok(Frame::Bad(what.to_owned()));
            }
            at += read as u64;
        }
        Ok(Frame::Cut(length.saturating_sub(self.offset)))
    }

    /// The bytes from `offset` on: at least `wanted` of them, unless the file ends before.
    fn fill(&mut self, wanted: usize) -> io::Result<&[u8]> {
        if self.buffer.len() - self.consumed < wanted {
            self.buffer.drain(..self.consumed);
            self.consumed = 0;
            let mut have = self.buffer.len();
            self.buffer.resize(have + wanted.max(CHUNK), 0);
            while have < wanted {
                match self
                    .file
                    .read_at(&mut self.buffer[have..], self.offset + have as u64)?
                {
                    0 => break,
                    read => have += read,
                }
            }
            self.buffer.truncate(have);
        }
        Ok(&self.buffer[self.consumed..])
    }

    /// Drops what was read ahead, since a writer may cut it off and write something else there.
    fn forget(&mut self) {
        self.buffer.clear();
        self.consumed = 0;
    }
}
