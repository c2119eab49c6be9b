//! The ledger's handle: append a record, and know when it is durable.
//!
//! ```text
//! append --bounded queue--> writer thread --one write, one fdatasync a batch--> segments --> publisher thread --> Kafka
//!    ^                         |
//!    '------- receipt ---------'   only once durable as asked for
//! ```
//!
//! Promises: a receipt means the record is durable as its [`Durability`] says; a full queue, a full disk, a disk that fails
//! or hangs is an error with a stable code within the write deadline, and writing works again by itself once the disk
//! does. Never does: acknowledge a record that may be lost; lose the order of one chain. An append that failed, or whose
//! future was dropped, may still turn up in the log; the ledger then ends the session itself with a `closed` of outcome
//! `unknown`, so the caller must not.
//!
//! Dropping every handle without [`Ledger::shutdown`] ends the chain without a `shutdown` record: not clean, but whole.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, atomic::AtomicBool, mpsc},
    thread,
    time::{Duration, Instant},
};

use aws_lc_rs::rand;
use jiff::Timestamp;
use tokio::sync::{Semaphore, oneshot};

use crate::{
    audit::{
        ChainId, Durability, Receipt,
        chain::{MAX_POSITION_BYTES, MAX_RECORD_BYTES},
        note::{VerifierKey, valid_name},
        record::{Entry, Event},
    },
    kafka::{
        KafkaOptions,
        heir::{self, Estate, HeirError},
        publisher::{Prepared, Published, Publisher, PublisherError},
    },
    store::{
        self, StoreError,
        disk::{Disk, RealDisk},
        recover::Cut,
    },
};

pub mod holders;
mod queue;
pub mod retention;
mod room;
mod signing;
mod writer;

use holders::{Held, Holders, Webhook};
use queue::{Command, Commands, Ending, Item};
use retention::{Pruner, Relief, Retention, SweepError, Sweeper};
use writer::Writer;

/// How a ledger is kept. Start from [`LedgerOptions::new`].
#[derive(Clone, Debug)]
pub struct LedgerOptions {
    /// The directory; created where it is missing. One process at a time.
    pub dir: PathBuf,
    /// Name of the deployment: no spaces, slashes or plus signs.
    pub deployment: String,
    /// Name of this replica: likewise.
    pub replica: String,
    /// Version of the program, for the genesis record.
    pub build: String,
    /// The signing key's file; `None` keeps one in `dir`, drawn on the first start.
    pub signing_key: Option<PathBuf>,
    /// A segment is closed once it has this many bytes.
    pub segment_bytes: u64,
    /// Bytes the chains may take on disk; beyond, appends fail with `audit_full`.
    pub spool_cap_bytes: u64,
    /// How long the writer waits for more records to join a batch. Zero batches what queued up during the last sync.
    pub group_commit_delay: Duration,
    /// How long an append may take.
    pub write_deadline: Duration,
    /// A further file that every checkpoint is appended to: to be kept where whoever owns the log cannot change it.
    pub checkpoint_file: Option<PathBuf>,
    /// Holders outside that every checkpoint is posted to.
    pub webhooks: Vec<Webhook>,
    /// What may be deleted from the disk; `None` deletes nothing.
    pub retention: Option<Retention>,
    /// A checkpoint is signed after this many records.
    pub checkpoint_records: u64,
    /// And after this time, whether any record was written since or not.
    pub checkpoint_interval: Duration,
    /// Appends under way at once; more wait, up to the deadline.
    pub queue_records: usize,
    /// Bytes of appends under way at once; more wait, up to the deadline.
    pub queue_bytes: usize,
    /// How long shutdown waits for Kafka to take the rest.
    pub flush_timeout: Duration,
    /// Where to publish; `None` publishes nowhere.
    pub kafka: Option<KafkaOptions>,
}

impl LedgerOptions {
    /// The defaults: 64 MiB segments, 10 GiB cap, 5 s deadline, a checkpoint every 1,000 records or 10 s.
    #[must_use]
    pub fn new(
        dir: impl Into<PathBuf>,
        deployment: impl Into<String>,
        replica: impl Into<String>,
    ) -> Self {
        Self {
            dir: dir.into(),
            deployment: deployment.into(),
            replica: replica.into(),
            build: env!("CARGO_PKG_VERSION").to_owned(),
            signing_key: None,
            segment_bytes: 64 << 20,
            spool_cap_bytes: 10 << 30,
            group_commit_delay: Duration::ZERO,
            write_deadline: Duration::from_secs(5),
            checkpoint_file: None,
            webhooks: Vec::new(),
            retention: None,
            checkpoint_records: 1_000,
            checkpoint_interval: Duration::from_secs(10),
            queue_records: 4_096,
            queue_bytes: 64 << 20,
            flush_timeout: Duration::from_secs(5),
            kafka: None,
        }
    }
}

/// Why a ledger cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The publisher's options.
    #[error(transparent)]
    Kafka(#[from] PublisherError),
    /// What this replica wrote before cannot be told from the topic.
    #[error("taking over from the topic (audit.kafka.take_over): {0}")]
    Heir(#[from] HeirError),
    /// The first records could not be written.
    #[error("the first records of the new chain could not be written: {0}")]
    Begin(std::io::Error),
    /// No random numbers, or no thread, to be had.
    #[error("the system gave no {0}")]
    System(&'static str),
}

/// Why a record is not durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LedgerError {
    /// The disk, or what the ledger may take of it, is full.
    #[error("the audit log is full")]
    Full,
    /// The disk failed, or did not answer within the deadline.
    #[error("the audit log cannot be written")]
    Unavailable,
    /// The record is larger than 960 KiB.
    #[error("the record is too large for the audit log")]
    TooLarge,
    /// The ledger was shut down.
    #[error("the audit log is closed")]
    Closed,
}

impl LedgerError {
    /// Stable machine-readable code.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Full => "audit_full",
            Self::Unavailable | Self::Closed => "audit_unavailable",
            Self::TooLarge => "audit_too_large",
        }
    }
}

/// What opening found and did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opening {
    /// The new chain.
    pub chain: ChainId,
    /// The chain before it, where there is one.
    pub previous: Option<ChainId>,
    /// Whether that one ended with a `shutdown` record.
    pub previous_clean: bool,
    /// What a crash had torn and was cut off.
    pub cuts: Vec<Cut>,
    /// Sessions of earlier chains that were closed with outcome `unknown`.
    pub orphans_closed: usize,
    /// The key that signs the checkpoints.
    pub verifier: VerifierKey,
}

/// How full the ledger's share of the disk may be, in percent, before it says so (SP 800-53 AU-5(1)).
pub const ALARMS: [u8; 3] = [70, 85, 95];

/// How the ledger is doing, for readiness and metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerHealth {
    /// Why appends fail now; `None` while they work.
    pub trouble: Option<LedgerError>,
    /// Bytes the chains take on disk.
    pub spool_bytes: u64,
    /// Bytes they may take.
    pub cap_bytes: u64,
    /// The highest of [`ALARMS`] that is passed, in percent; 0 below all of them.
    pub alarm_percent: u8,
    /// Records in the current chain.
    pub records: u64,
    /// Of these, how many are on disk.
    pub synced: u64,
    /// How far publishing is; `None` without Kafka.
    pub published: Option<Published>,
    /// What those who hold checkpoints outside have.
    pub holders: Vec<Held>,
}

impl LedgerHealth {
    /// Whether appends work.
    #[must_use]
    pub fn writable(&self) -> bool {
        self.trouble.is_none()
    }
}

/// A handle to the ledger; clones share it.
#[derive(Clone)]
pub struct Ledger {
    inner: Arc<Inner>,
}

impl std::fmt::Debug for Ledger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ledger")
            .field("chain", &self.inner.opening.chain)
            .finish_non_exhaustive()
    }
}

struct Inner {
    commands: Commands,
    records: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    queue_bytes: usize,
    deadline: Duration,
    flush_timeout: Duration,
    opening: Opening,
    state: Arc<Mutex<LedgerHealth>>,
    publisher: Option<Publisher>,
    holders: Holders,
    pruner: Option<Pruner>,
}

impl Ledger {
    /// Opens the ledger: takes the directory's lock, makes whole what a crash has torn, begins a new chain that links to the
    /// last one, closes the sessions left open, starts the threads. Blocks on disk.
    ///
    /// # Errors
    /// [`OpenError`], worded for the operator; nothing was changed where it is damage.
    pub fn open(options: LedgerOptions) -> Result<Self, OpenError> {
        Self::open_on(options, || Box::new(RealDisk))
    }

    fn open_on(
        options: LedgerOptions,
        disk: impl Fn() -> Box<dyn Disk>,
    ) -> Result<Self, OpenError> {
        for name in [&options.deployment, &options.replica] {
            if !valid_name(name) || name.contains('/') {
                return Err(StoreError::BadName(name.clone()).into());
            }
        }
        // Before anything is written: a bad option must not leave a chain behind.
        let prepared = options
            .kafka
            .clone()
            .map(|kafka| Prepared::new(kafka, &options.replica))
            .transpose()?;
        let dir = options.dir.clone();
        store::layout::create_private(&dir).map_err(StoreError::io(&dir))?;
        let lock = store::lock::DirLock::take(&dir)?;
        let mut id = [0; 16];
        rand::fill(&mut id).map_err(|_| OpenError::System("random numbers"))?;
        let holders = Holders::start(options.checkpoint_file.clone(), options.webhooks.clone())?;
        let estate = match &options.kafka {
            Some(kafka) if kafka.take_over && has_no_chain(&dir)? => {
                heir::estate(kafka, &options.replica)?
            }
            _ => Estate::default(),
        };
        let (bell, rung) = mpsc::sync_channel(1);
        let relief = Relief {
            bell: bell.clone(),
            sweeps: Arc::default(),
            works: options.retention.is_some(),
        };
        let (writer, opening) = Writer::begin(
            &options,
            ChainId(id),
            lock,
            estate,
            holders.clone(),
            relief.clone(),
            &disk,
        )?;
        let (state, live) = (writer.state(), writer.live());
        let publisher = prepared
            .map(|prepared| {
                Publisher::start(prepared, &dir, &options.deployment, &options.replica, live)
            })
            .transpose()?;
        let (sender, queue) = mpsc::channel();
        let writing = thread::Builder::new()
            .name("ledger".to_owned())
            .spawn(move || writer.run(&queue))
            .map_err(|_| OpenError::System("thread"))?;
        let commands = Commands::new(sender, writing.thread().clone());
        let pruner = options.retention.clone().map(|retention| {
            let sweeper = Sweeper {
                dir: dir.clone(),
                live: ChainId(id),
                retention,
                holders: holders.clone(),
                publishes: options.kafka.is_some(),
                cap_bytes: options.spool_cap_bytes,
                commands: commands.clone(),
                gone: Mutex::new(0),
                sweeps: relief.sweeps,
            };
            Pruner::start(sweeper, bell, rung)
        });
        let inner = Inner {
            commands,
            records: Arc::new(Semaphore::new(options.queue_records)),
            bytes: Arc::new(Semaphore::new(options.queue_bytes)),
            queue_bytes: options.queue_bytes,
            deadline: options.write_deadline,
            flush_timeout: options.flush_timeout,
            opening,
            state,
            publisher,
            holders,
            pruner: pruner.transpose()?,
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// What opening found and did.
    #[must_use]
    pub fn opening(&self) -> &Opening {
        &self.inner.opening
    }

    /// Appends a record; returns once it is durable as asked for, or failed.
    ///
    /// # Errors
    /// As for [`append_all`](Self::append_all).
    pub async fn append(
        &self,
        entry: Entry,
        durability: Durability,
    ) -> Result<Receipt, LedgerError> {
        let receipts = self.append_all(vec![entry], durability).await?;
        receipts.into_iter().next().ok_or(LedgerError::Closed)
    }

    /// Appends records in their order, all or none of them; returns once they are durable as asked for, or failed.
    ///
    /// # Errors
    /// [`LedgerError`], at the latest when the write deadline has passed. The records may still turn up in the log: of an
    /// `opened` the ledger then writes the `closed` (outcome `unknown`) itself. It does so too where a `closed` failed, so
    /// that neither is to be repeated.
    pub async fn append_all(
        &self,
        entries: Vec<Entry>,
        durability: Durability,
    ) -> Result<Vec<Receipt>, LedgerError> {
        let mut unclaimed = Unclaimed::new(&self.inner.commands, &entries);
        let group = Group::new(entries)?;
        let queued = async {
            let inner = &self.inner;
            let room = group.bytes.min(inner.queue_bytes);
            let room = Arc::clone(&inner.bytes)
                .acquire_many_owned(u32::try_from(room).unwrap_or(u32::MAX))
                .await;
            let place = Arc::clone(&inner.records).acquire_owned().await;
            let (Ok(room), Ok(place)) = (room, place) else {
                return Err(LedgerError::Closed);
            };
            let (reply, receipts) = oneshot::channel();
            let item = Item {
                group,
                durability,
                written: Arc::clone(&unclaimed.written),
                reply,
                _room: [room, place],
            };
            let left = inner.commands.leave(Command::Append(item));
            let wake = left.map_err(|_| LedgerError::Closed)?;
            unclaimed.given();
            // What else runs now may have records too: to wake the writer costs as much as to write two.
            tokio::task::yield_now().await;
            drop(wake);
            // The writer drops a reply unanswered only when it ends.
            let receipts = receipts.await.map_err(|_| LedgerError::Closed)??;
            if let (Durability::Kafka, Some(last)) = (durability, receipts.last()) {
                match &inner.publisher {
                    Some(publisher) => publisher.acknowledged(last.seq + 1).await,
                    None => return Err(LedgerError::Unavailable),
                }
            }
            Ok(receipts)
        };
        let result = match tokio::time::timeout(self.inner.deadline, queued).await {
            Ok(result) => result,
            Err(_) => Err(LedgerError::Unavailable),
        };
        if result.is_ok() {
            unclaimed.claim();
        }
        result
    }

    /// Has a session closed, outcome `unknown`, whose `closed` could not be made ready to be appended.
    pub fn close(&self, session: String) {
        let written = Arc::new(AtomicBool::new(true));
        // Where the writer is gone the next start closes it.
        let _ = self
            .inner
            .commands
            .send(Command::Unclosed { session, written });
    }

    /// How the ledger is doing.
    #[must_use]
    pub fn health(&self) -> LedgerHealth {
        let mut health = self
            .inner
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        health.published = self.inner.publisher.as_ref().map(Publisher::published);
        health.holders = self.inner.holders.held();
        health
    }

    /// Resolves when every holder of checkpoints has the newest one, which may be never.
    pub async fn anchored(&self) {
        self.inner.holders.have_the_last().await;
    }

    /// Takes off the disk what retention lets go, at once; returns how many records went since the ledger was
    /// opened. Blocks on the disk.
    ///
    /// # Errors
    /// [`SweepError`]; what was done until then stays done.
    pub fn prune(&self) -> Result<u64, SweepError> {
        self.inner.pruner.as_ref().map_or(Ok(0), Pruner::sweep)
    }

    /// Ends the chain in good order: a `shutdown` record, a last checkpoint, and what Kafka takes within the flush
    /// timeout (the rest is published by the next start). Appends after this fail.
    ///
    /// # Errors
    /// [`LedgerError`] where the last records could not be made durable; the chain then counts as not clean.
    pub async fn shutdown(self, cut_sessions: u32) -> Result<(), LedgerError> {
        let (reply, done) = oneshot::channel();
        let inner = &self.inner;
        inner
            .commands
            .send(Command::Shutdown(Ending {
                cut_sessions,
                reply,
            }))
            .map_err(|_| LedgerError::Closed)?;
        let ended = match tokio::time::timeout(inner.deadline, done).await {
            Ok(Ok(ended)) => ended,
            Ok(Err(_)) => Err(LedgerError::Closed),
            Err(_) => Err(LedgerError::Unavailable),
        };
        if let Some(publisher) = &inner.publisher {
            publisher.stop(inner.flush_timeout);
            let done = publisher.finished();
            let _ = tokio::time::timeout(inner.flush_timeout * 2, done).await;
        }
        if ended.is_ok() {
            // The last checkpoint is what shows that nothing was taken off the end.
            let _ = tokio::time::timeout(inner.flush_timeout, inner.holders.have_the_last()).await;
        }
        ended
    }
}

fn has_no_chain(dir: &Path) -> Result<bool, StoreError> {
    let chains = store::layout::chains(dir).map_err(StoreError::io(dir))?;
    Ok(chains.is_empty())
}

/// What most records need, in bytes, so that few are moved while they are written.
const USUAL_RECORD: usize = 4096;

/// Records that are appended together.
struct Group {
    /// Their JSON.
    entries: Vec<Vec<u8>>,
    bytes: usize,
    /// The session that one of them closes.
    closes: Option<String>,
    /// Whether refusing them saves room for what is under way.
    begins_work: bool,
}

impl Group {
    fn new(entries: Vec<Entry>) -> Result<Self, LedgerError> {
        let mut group = Self {
            entries: Vec::with_capacity(entries.len()),
            bytes: 0,
            closes: None,
            begins_work: false,
        };
        for entry in entries {
            let mut json = Vec::with_capacity(USUAL_RECORD);
            serde_json::to_writer(&mut json, &entry).map_err(|_| LedgerError::TooLarge)?;
            if json.len() + MAX_POSITION_BYTES > MAX_RECORD_BYTES {
                return Err(LedgerError::TooLarge);
            }
            group.bytes += json.len();
            group.entries.push(json);
            match entry.event {
                Event::Closed(_) => group.closes = Some(entry.session),
                Event::Opened(_) | Event::Refused(_) | Event::Unauthenticated(_) => {
                    group.begins_work = true;
                }
                _ => {}
            }
        }
        Ok(group)
    }
}

/// Sees to it that a session is closed whose `opened` may be in the log although nobody was told so, or whose `closed` the
/// writer was never given: because appending it failed, took too long, or was given up.
struct Unclaimed<'a> {
    commands: &'a Commands,
    session: Option<String>,
    /// Whether it is in the log. Set by the writer when it put an `opened` there; where only a `closed` is appended, it is.
    written: Arc<AtomicBool>,
    /// Of a `closed` the writer itself takes care, once it was given it.
    closes: bool,
}

impl<'a> Unclaimed<'a> {
    fn new(commands: &'a Commands, entries: &[Entry]) -> Self {
        let session = |is_it: fn(&Event) -> bool| {
            let mut entries = entries.iter();
            let found = entries.find(|entry| is_it(&entry.event));
            found.map(|entry| entry.session.clone())
        };
        let opens = session(|event| matches!(event, Event::Opened(_)));
        let closes = opens.is_none();
        let written = Arc::new(AtomicBool::new(closes));
        Self {
            commands,
            session: opens.or_else(|| session(|event| matches!(event, Event::Closed(_)))),
            written,
            closes,
        }
    }

    /// The writer has the records.
    fn given(&mut self) {
        if self.closes {
            self.session = None;
        }
    }

    fn claim(&mut self) {
        self.session = None;
    }
}

impl Drop for Unclaimed<'_> {
    fn drop(&mut self) {
        if let Some(session) = self.session.take() {
            // Behind the append in the queue, so that the writer knows by then whether it wrote it.
            let written = Arc::clone(&self.written);
            let _ = self.commands.send(Command::Unclosed { session, written });
        }
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "the ledger's threads wait for the disk, in real time"
)]
fn now() -> Instant {
    Instant::now()
}

#[allow(
    clippy::disallowed_methods,
    reason = "a record says when it was written, which only its writer knows"
)]
fn wall() -> Timestamp {
    Timestamp::now()
}

#[cfg(test)]
mod tests;
