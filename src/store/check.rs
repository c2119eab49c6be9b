//! Feeds a ledger directory to a verifier, its segments on several threads at once.
//!
//! Memory is bounded by the threads, whatever the log's size. Segments are checked apart and put together in their order; what
//! does not hold that way is read once more, record by record, so that the first bad record is named as it would be by one
//! thread.

use std::{
    collections::BTreeMap,
    fs::File,
    io,
    num::NonZeroUsize,
    os::unix::fs::FileExt,
    path::Path,
    sync::{
        Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use super::{
    checkpoints,
    frame::{self, SEGMENT_HEADER},
    layout::{self, ChainDir},
    prune,
    reader::{ChainReader, Step},
};
use crate::audit::{
    ChainId,
    chain::Head,
    checkpoint::notes,
    verify::{Holder, Stretch, Verifier},
};

/// Segments whose outcome may wait to be put together, for each thread.
const AHEAD: usize = 4;
/// Bytes read between two words of progress.
const STEP: u64 = 4 << 20;

/// How to read a directory.
pub struct Reading<'a> {
    /// Segments checked at once.
    pub threads: NonZeroUsize,
    /// Where segments were archived that the directory no longer has.
    pub archive: Option<&'a Path>,
    /// Told of bytes as they are checked.
    pub progress: &'a (dyn Fn(u64) + Sync),
}

impl std::fmt::Debug for Reading<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reading")
            .field("threads", &self.threads)
            .finish_non_exhaustive()
    }
}

/// Where a chain's records are, in their order: in the archive, then in the directory.
struct Chain {
    chain: ChainId,
    /// Each with the first record to be read there.
    parts: Vec<(ChainDir, u64)>,
    marks: Vec<u64>,
    is_last: bool,
}

/// A segment to be checked.
struct Job {
    chain: usize,
    part: usize,
    first: u64,
    /// The first record of the segment after it; none for the last one.
    end: Option<u64>,
}

/// Feeds all of `dir`; what there is to say besides, for a person.
///
/// # Errors
/// Those of reading the files.
pub fn feed(verifier: &mut Verifier, dir: &Path, reading: &Reading<'_>) -> io::Result<Vec<String>> {
    let mut chains = chains(dir, reading.archive)?;
    let mut jobs = Vec::new();
    for (index, chain) in chains.iter_mut().enumerate() {
        begin(verifier, chain)?;
        for (part, (dir, from)) in chain.parts.iter().enumerate() {
            let mut segments = dir.segments()?;
            // Left behind by a crash in the middle of pruning, or archived already.
            segments.retain(|(first, _)| first >= from);
            let ends = segments.iter().skip(1).map(|(first, _)| Some(*first));
            let ends = ends.chain([None]);
            jobs.extend(segments.iter().zip(ends).map(|((first, _), end)| Job {
                chain: index,
                part,
                first: *first,
                end,
            }));
        }
    }
    let mut notices = Vec::new();
    let mut serial = None;
    let board = Board::default();
    let feed = |verifier: &mut Verifier, notices: &mut Vec<String>| -> io::Result<()> {
        for (number, job) in jobs.iter().enumerate() {
            let found = board.take(number);
            if serial == Some(job.chain) {
                continue;
            }
            let chain = &chains[job.chain];
            if found.is_some_and(|stretch| verifier.stretch(stretch)) {
                continue;
            }
            // From here on record by record, to the end of the chain.
            serial = Some(job.chain);
            let rest = chain.parts.iter().enumerate().skip(job.part);
            for (part, (dir, from)) in rest {
                let from = if part == job.part { job.first } else { *from };
                one_by_one(verifier, chain, dir, from, notices, reading)?;
            }
        }
        Ok(())
    };
    thread::scope(|scope| {
        let mut feed = feed;
        for _ in 0..reading.threads.get().min(jobs.len()) {
            scope.spawn(|| {
                let limit = reading.threads.get() * AHEAD;
                while let Some(number) = board.next(jobs.len(), limit) {
                    let job = &jobs[number];
                    let chain = &chains[job.chain];
                    let found = stretch(chain, job, reading).ok().flatten();
                    board.put(number, found);
                }
            });
        }
        let fed = feed(verifier, &mut notices);
        board.close();
        fed
    })?;
    Ok(notices)
}

/// The chains of both places, oldest first.
fn chains(dir: &Path, archive: Option<&Path>) -> io::Result<Vec<Chain>> {
    let mut by_ordinal: BTreeMap<(u64, ChainId), Vec<(ChainDir, u64)>> = BTreeMap::new();
    for chain in archive.map_or(Ok(Vec::new()), layout::chains)? {
        if !chain.segments()?.is_empty() {
            let key = (chain.ordinal, chain.chain);
            by_ordinal.entry(key).or_default().push((chain, 0));
        }
    }
    for chain in layout::chains(dir)? {
        let parts = by_ordinal.entry((chain.ordinal, chain.chain)).or_default();
        let archived = parts.last().map(|(dir, _)| dir.segments()).transpose()?;
        let behind = archived.and_then(|segments| segments.last().map(|(first, _)| first + 1));
        parts.push((chain, behind.unwrap_or(0)));
    }
    let count = by_ordinal.len();
    let chains = by_ordinal.into_iter().enumerate();
    Ok(chains
        .map(|(index, ((_, chain), parts))| Chain {
            chain,
            parts,
            marks: Vec::new(),
            is_last: index + 1 == count,
        })
        .collect())
}

/// What is known of a chain before its records: checkpoints, and what stands for those that were pruned.
fn begin(verifier: &mut Verifier, chain: &mut Chain) -> io::Result<()> {
    for (dir, _) in &chain.parts {
        // First the checkpoints, then the records: of a log being written, the records then reach at least as far.
        for note in notes(&checkpoints::read(&dir.checkpoints())?) {
            if let Err(error) = verifier.checkpoint(note, Holder::Inside) {
                verifier.bad_checkpoint(chain.chain, error);
            }
        }
    }
    for (part, (dir, from)) in chain.parts.iter_mut().enumerate() {
        match prune::load(dir) {
            Ok(Some((stump, hash))) => {
                *from = stump.head.size.max(*from);
                if part == 0 {
                    verifier.pruned(&stump, hash);
                }
            }
            Ok(None) => {}
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                verifier.damaged(chain.chain, 0, error.to_string());
            }
            Err(error) => return Err(error),
        }
    }
    chain.marks = verifier.marks(chain.chain);
    Ok(())
}

/// The head a segment says it follows, and its records; `None` where it does not hold.
fn stretch(chain: &Chain, job: &Job, reading: &Reading<'_>) -> io::Result<Option<Stretch>> {
    let (dir, _) = &chain.parts[job.part];
    let mut header = [0; SEGMENT_HEADER];
    File::open(dir.segment(job.first))?.read_exact_at(&mut header, 0)?;
    let Ok(start) = frame::read_segment_header(&header) else {
        return Ok(None);
    };
    // The hash before a chain's first record is all zeros, whatever the header says.
    let start = if job.first == 0 {
        Head::empty(chain.chain)
    } else {
        start
    };
    let mut stretch = Stretch::new(start);
    let mut marks = chain.marks.iter().copied();
    let mut mark = marks.find(|mark| *mark > job.first);
    let mut reader = ChainReader::from(dir.clone(), job.first);
    if job.end.is_none() {
        reader = reader.ending_now()?;
    }
    let mut told = 0;
    while job.end.is_none_or(|end| reader.next_seq() < end) {
        let stored = match reader.step()? {
            Step::Record(stored) => stored,
            Step::End(tail) if tail.torn == 0 && job.end.is_none() => break,
            Step::End(_) | Step::Damaged(_) => return Ok(None),
        };
        let is_mark = mark == Some(stored.seq + 1);
        if is_mark {
            mark = marks.next();
        }
        if !stretch.record(stored.seq, &stored.bytes, stored.record_hash, is_mark) {
            return Ok(None);
        }
        told += stored.bytes.len() as u64;
        if told >= STEP {
            (reading.progress)(std::mem::take(&mut told));
        }
    }
    (reading.progress)(told);
    if job.end.is_some() && reader.left_in_segment()? > 0 {
        return Ok(None);
    }
    Ok(Some(stretch))
}

fn one_by_one(
    verifier: &mut Verifier,
    chain: &Chain,
    dir: &ChainDir,
    from: u64,
    notices: &mut Vec<String>,
    reading: &Reading<'_>,
) -> io::Result<()> {
    let mut reader = ChainReader::from(dir.clone(), from).ending_now()?;
    loop {
        match reader.step()? {
            Step::Record(stored) => {
                (reading.progress)(stored.bytes.len() as u64);
                let hash = Some(stored.record_hash);
                verifier.record(chain.chain, stored.seq, &stored.bytes, hash);
            }
            Step::End(tail) if tail.torn == 0 => return Ok(()),
            Step::End(tail) if chain.is_last => {
                notices.push(format!(
                    "{} bytes at the end are a write in progress, or torn by a crash",
                    tail.torn
                ));
                return Ok(());
            }
            Step::End(tail) => {
                let what = format!("{} bytes that are no record end the chain", tail.torn);
                verifier.damaged(chain.chain, reader.next_seq(), what);
                return Ok(());
            }
            Step::Damaged(damage) => {
                let file = damage.file.display();
                let place = format!("{} (`{file}`, byte {})", damage.what, damage.offset);
                verifier.damaged(chain.chain, damage.seq, place);
                return Ok(());
            }
        }
    }
}

/// What is done, to be put together in order.
#[derive(Default)]
struct Board {
    next: AtomicUsize,
    done: Mutex<Done>,
    moved: Condvar,
}

#[derive(Default)]
struct Done {
    found: BTreeMap<usize, Option<Stretch>>,
    taken: usize,
    closed: bool,
}

impl Board {
    /// The number of the next job; waits while too many wait to be put together.
    fn next(&self, jobs: usize, ahead: usize) -> Option<usize> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        if number >= jobs {
            return None;
        }
        let mut done = self.lock();
        while number >= done.taken + ahead && !done.closed {
            done = self.wait(done);
        }
        (!done.closed).then_some(number)
    }

    fn put(&self, number: usize, found: Option<Stretch>) {
        self.lock().found.insert(number, found);
        self.moved.notify_all();
    }

    fn take(&self, number: usize) -> Option<Stretch> {
        let mut done = self.lock();
        loop {
            if let Some(found) = done.found.remove(&number) {
                done.taken = number + 1;
                self.moved.notify_all();
                return found;
            }
            done = self.wait(done);
        }
    }

    /// Nothing more will be taken.
    fn close(&self) {
        self.lock().closed = true;
        self.moved.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Done> {
        self.done.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, done: MutexGuard<'a, Done>) -> MutexGuard<'a, Done> {
        self.moved
            .wait(done)
            .unwrap_or_else(PoisonError::into_inner)
    }
}
