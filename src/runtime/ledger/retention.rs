//! What may go from the disk, and when: whole segments, oldest first, and files of sealed payloads beside them.
//!
//! Promises: a segment goes only when it is older than the floor, when Kafka has acknowledged it (where there is a Kafka),
//! when every holder of checkpoints has one that covers it (where there are holders), and after a record that says so is
//! durable; damage never goes. Never does: hold up a write. Can miss: the moment a segment may go, by up to ten seconds.

use std::{
    io,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use jiff::Timestamp;

use super::{
    ALARMS, OpenError,
    holders::Holders,
    queue::{Command, Commands, Own},
    room::usable,
    wall,
};
use crate::{
    audit::{
        ChainId,
        chain::Position,
        record::{Entry, Event, Pruned},
    },
    store::{
        StoreError, cursor,
        layout::{self, ChainDir},
        prune,
        reader::{ChainReader, Step},
    },
};

/// What may be deleted from the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Records older than this go.
    pub age: Option<Duration>,
    /// Beyond this many bytes the oldest go: of the log, and of sealed payloads, each counted by itself.
    pub size: Option<u64>,
    /// No record younger than this goes.
    pub at_least: Duration,
    /// A ledger directory that segments are copied to before they go, and files of sealed payloads.
    pub archive: Option<PathBuf>,
    /// Bytes that sealed payloads may take; near it the oldest go.
    pub sealed_cap: Option<u64>,
}

mod sealed;

/// How often it is looked.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// And after trouble.
const AGAIN_AFTER: Duration = Duration::from_secs(10);
/// How long the ledger may take to write a record.
const RECORDED_WITHIN: Duration = Duration::from_secs(30);

/// A handle to the thread; dropping it ends the thread.
pub(super) struct Pruner {
    sweeper: Arc<Sweeper>,
    stop: Arc<AtomicBool>,
    bell: Bell,
}

/// Wakes the thread before it would look by itself.
pub(super) type Bell = mpsc::SyncSender<()>;

/// What the ledger's writer has of retention: a way to ask for room, and to see that it was looked for.
#[derive(Clone)]
pub(super) struct Relief {
    pub(super) bell: Bell,
    pub(super) sweeps: Arc<AtomicU64>,
    /// Whether anybody listens.
    pub(super) works: bool,
}

impl Relief {
    pub(super) fn ask(&self) {
        // Full: it was asked already.
        let _ = self.bell.try_send(());
    }

    /// The count of sweeps at which one that begins from now on is over.
    pub(super) fn after_the_next(&self) -> u64 {
        self.sweeps.load(Ordering::Acquire) + 2
    }

    pub(super) fn is_over(&self, sweeps: u64) -> bool {
        self.sweeps.load(Ordering::Acquire) >= sweeps
    }
}

impl Drop for Pruner {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        let _ = self.bell.try_send(());
    }
}

/// What sweeping needs to know and to reach.
pub(super) struct Sweeper {
    pub(super) dir: PathBuf,
    pub(super) live: ChainId,
    pub(super) retention: Retention,
    pub(super) holders: Holders,
    pub(super) publishes: bool,
    pub(super) cap_bytes: u64,
    pub(super) commands: Commands,
    /// One sweep at a time; the records that all of them took.
    pub(super) gone: Mutex<u64>,
    /// How many sweeps there were, for whoever waits for room.
    pub(super) sweeps: Arc<AtomicU64>,
}

/// Why a sweep ended early.
#[derive(Debug, thiserror::Error)]
pub enum SweepError {
    /// A segment that is to go is damaged, or cannot be read or deleted.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The directory cannot be read.
    #[error("the audit log's directory: {0}")]
    Io(#[from] io::Error),
    /// The ledger took no record, so nothing was deleted.
    #[error("that segments are to go could not be recorded")]
    Record,
}

/// Segments of one chain that may go by one rule.
#[derive(Debug)]
struct Due {
    chain: ChainDir,
    upto: u64,
    rule: String,
}

impl Pruner {
    pub(super) fn start(
        sweeper: Sweeper,
        bell: Bell,
        rung: mpsc::Receiver<()>,
    ) -> Result<Self, OpenError> {
        let sweeper = Arc::new(sweeper);
        let (stop, of_thread) = (Arc::new(AtomicBool::new(false)), Arc::clone(&sweeper));
        let stopped = Arc::clone(&stop);
        thread::Builder::new()
            .name("retention".to_owned())
            .spawn(move || {
                while !stopped.load(Ordering::Acquire) {
                    let wait = match of_thread.sweep() {
                        Ok(_) => LOOK_EVERY,
                        Err(error) => {
                            tracing::error!(%error, "old segments of the audit log cannot be taken off the disk");
                            AGAIN_AFTER
                        }
                    };
                    let _ = rung.recv_timeout(wait);
                }
            })
            .map_err(|_| OpenError::System("thread"))?;
        Ok(Self {
            sweeper,
            stop,
            bell,
        })
    }

    pub(super) fn sweep(&self) -> Result<u64, SweepError> {
        self.sweeper.sweep()
    }
}

impl Sweeper {
    /// Takes off the disk what may and is to go; returns how many records went since the start.
    fn sweep(&self) -> Result<u64, SweepError> {
        let mut gone = self.gone.lock().unwrap_or_else(PoisonError::into_inner);
        let mut swept = self.sweep_log(&mut gone);
        // Whatever became of the log's segments, and after whoever waits for their room was told. A file may take long to archive, so
        // the log is looked at between two of them.
        let discarded = loop {
            match self.discard(wall()) {
                Ok(true) if swept.is_ok() => swept = self.sweep_log(&mut gone),
                Ok(true) => {}
                Ok(false) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        swept.and(discarded).map(|()| *gone)
    }

    fn sweep_log(&self, gone: &mut u64) -> Result<(), SweepError> {
        let swept = loop {
            match self.due(wall()) {
                Ok(None) => break Ok(()),
                Ok(Some(due)) => match self.prune(&due) {
                    Ok(records) => *gone += records,
                    Err(error) => break Err(error),
                },
                Err(error) => break Err(error.into()),
            }
        };
        self.sweeps.fetch_add(1, Ordering::AcqRel);
        swept
    }

    /// The oldest segments of one chain that may go, and are to.
    fn due(&self, now: Timestamp) -> io::Result<Option<Due>> {
        let chains = layout::chains(&self.dir)?;
        let mut all: Vec<(&ChainDir, u64, PathBuf)> = Vec::new();
        for chain in &chains {
            let segments = chain.segments()?.into_iter();
            all.extend(segments.map(|(first, path)| (chain, first, path)));
        }
        let (mut bytes, cap) = (layout::bytes_on_disk(&self.dir)?, self.cap_bytes);
        // From the second alarm on, down to below the first.
        let pressing = bytes * 100 >= usable(cap) * u64::from(ALARMS[1]);
        let published = match self.publishes {
            true => Some(cursor::load(&self.dir)?),
            false => None,
        };
        let published = published.map(|cursor| {
            let cursor = cursor?;
            let at = chains.iter().find(|chain| chain.chain == cursor.chain)?;
            Some((at.ordinal, cursor.seq))
        });
        let covered = self.holders.covered();
        let mut due: Option<Due> = None;
        for pair in all.windows(2) {
            let [(chain, _, path), (next_chain, next_first, _)] = pair else {
                break;
            };
            // What follows was written later than the last of these.
            let age = match first_time(next_chain, *next_first)? {
                Some(time) => Duration::try_from(now.duration_since(time)).unwrap_or_default(),
                None => break,
            };
            if age < self.retention.at_least {
                break;
            }
            let rule = if let Some(most) = self.retention.age.filter(|most| age >= *most) {
                format!("age {}s", most.as_secs())
            } else if let Some(most) = self.retention.size.filter(|most| bytes > *most) {
                format!("size {most}")
            } else if pressing && bytes * 100 >= usable(cap) * u64::from(ALARMS[0]) {
                format!("cap {cap}")
            } else {
                break;
            };
            let upto = match chain.chain == next_chain.chain {
                true => *next_first,
                false => end_of(chain)?,
            };
            let is_published =
                published.is_none_or(|at| at.is_some_and(|at| at >= (chain.ordinal, upto)));
            let is_covered = covered.is_none_or(|records| match chain.chain == self.live {
                true => records >= upto,
                // The live chain's genesis commits to all before it.
                false => records > 0,
            });
            if !is_published || !is_covered {
                break;
            }
            match &mut due {
                Some(due) if due.chain.chain != chain.chain || due.rule != rule => break,
                Some(due) => due.upto = upto,
                None => {
                    due = Some(Due {
                        chain: (*chain).clone(),
                        upto,
                        rule,
                    });
                }
            }
            bytes = bytes.saturating_sub(path.metadata()?.len());
        }
        Ok(due)
    }

    /// A crash after any line of this leaves a log that verifies, and the next sweep does the rest.
    fn prune(&self, due: &Due) -> Result<u64, SweepError> {
        let before = prune::load(&due.chain)?.map_or(0, |(stump, _)| stump.head.size);
        let (stump, told) = prune::stump(&due.chain, due.upto)?;
        let mut rule = due.rule.clone();
        if let Some(to) = &self.retention.archive {
            prune::archive(&due.chain, due.upto, to)?;
            rule = format!("archive, {rule}");
        }
        let mut records = vec![Event::Pruned(stump.announce(before, &rule))];
        for told in told {
            if self.is_still_needed(&told, &due.chain)? {
                let rule = "restated".to_owned();
                records.push(Event::Pruned(Pruned { rule, ..told }));
            }
        }
        self.record(records)?;
        prune::fell(&due.chain, &stump)?;
        // The writer counts what is left.
        let _ = self.commands.send(Command::Recount);
        let records = due.upto - before;
        tracing::info!(chain = %due.chain.chain, records, upto = due.upto, rule, "pruned the audit log");
        Ok(records)
    }

    /// Whether a record that goes announces a stump that stays.
    fn is_still_needed(&self, told: &Pruned, going: &ChainDir) -> io::Result<bool> {
        for chain in layout::chains(&self.dir)? {
            if chain.chain != going.chain && chain.chain.to_string() == told.chain {
                let stump = prune::load(&chain)?;
                return Ok(stump.is_some_and(|(_, hash)| hash.to_string() == told.stump_sha256));
            }
        }
        Ok(false)
    }

    fn record(&self, events: Vec<Event>) -> Result<(), SweepError> {
        let entries = events.into_iter().map(|event| Entry {
            session: String::new(),
            event,
        });
        let (reply, done) = mpsc::sync_channel(1);
        let command = Command::Own(Own {
            entries: entries.collect(),
            reply,
        });
        self.commands
            .send(command)
            .map_err(|_| SweepError::Record)?;
        match done.recv_timeout(RECORDED_WITHIN) {
            Ok(Ok(())) => Ok(()),
            _ => Err(SweepError::Record),
        }
    }
}

/// When record `first` of a chain was written; `None` where it is not there yet.
fn first_time(chain: &ChainDir, first: u64) -> io::Result<Option<Timestamp>> {
    match ChainReader::from(chain.clone(), first).step()? {
        Step::Record(stored) => {
            let position = Position::read(&stored.bytes);
            Ok(position.and_then(|position| position.time.parse().ok()))
        }
        Step::End(_) => Ok(None),
        Step::Damaged(_) => Err(damaged(chain, first)),
    }
}

fn damaged(chain: &ChainDir, seq: u64) -> io::Error {
    let message = format!("chain {} is damaged at record {seq}: it stays", chain.chain);
    io::Error::new(io::ErrorKind::InvalidData, message)
}

/// Records in a chain that is no longer written. One that is damaged stays: what is behind the damage is in no record of
/// what was pruned.
fn end_of(chain: &ChainDir) -> io::Result<u64> {
    let mut reader = ChainReader::near(chain.clone(), u64::MAX)?;
    loop {
        match reader.step()? {
            Step::Record(_) => {}
            Step::End(tail) if tail.torn == 0 => return Ok(reader.next_seq()),
            Step::End(_) | Step::Damaged(_) => {
                return Err(damaged(chain, reader.next_seq()));
            }
        }
    }
}
