//! The thread that owns the chain.

use std::{
    collections::VecDeque,
    io,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use jiff::Timestamp;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::{ALARMS, Group, LedgerError, LedgerHealth, LedgerOptions, OpenError, Opening};
use crate::{
    audit::{
        ChainId, Durability, Receipt,
        chain::Stamp,
        checkpoint::Checkpoint,
        note::SigningKey,
        record::{Closed, Entry, Event, Genesis, Shutdown},
    },
    kafka::publisher::Live,
    store::{
        StoreError,
        checkpoints::{self, CheckpointFile},
        cursor,
        disk::Disk,
        frame::FRAME_HEADER,
        keyfile,
        layout::{self, ChainDir},
        lock::DirLock,
        recover::{self, Recovered},
        wal::Wal,
    },
};

/// What the handle asks for.
pub(super) enum Command {
    Append(Item),
    /// Nobody was told that this session's `opened` is in the log.
    Abandoned {
        session: String,
        written: Arc<AtomicBool>,
    },
    Shutdown(Ending),
}

/// How a chain is to end.
pub(super) struct Ending {
    pub(super) cut_sessions: u32,
    pub(super) reply: oneshot::Sender<Result<(), LedgerError>>,
}

/// Records to be appended.
pub(super) struct Item {
    pub(super) group: Group,
    pub(super) durability: Durability,
    /// Set once they are in the log, durable or not.
    pub(super) written: Arc<AtomicBool>,
    pub(super) reply: oneshot::Sender<Result<Vec<Receipt>, LedgerError>>,
    /// Their place in the queue, given back when they were dealt with.
    pub(super) _room: [OwnedSemaphorePermit; 2],
}

const MAX_BATCH_RECORDS: usize = 1_024;
const MAX_BATCH_BYTES: usize = 4 << 20;
/// `spool` promises 50 ms; the sync itself needs some of it.
const SPOOL_SYNC: Duration = Duration::from_millis(30);
/// How often a disk in trouble is tried again while nobody writes.
const PROBE: Duration = Duration::from_millis(250);
/// Room taken by a record besides its entry, at most on average.
const OVERHEAD: usize = FRAME_HEADER + 320;
/// Sessions the ledger must close itself, at most: as many as can have been in the queue. More are closed by the next
/// start, which finds them open.
const MAX_CLOSING: usize = 65_536;

impl Item {
    /// Bytes it will take on disk, about.
    fn on_disk(&self) -> u64 {
        (self.group.bytes + self.group.entries.len() * OVERHEAD) as u64
    }
}

/// What is dealt with in one go.
#[derive(Default)]
struct Batch {
    items: Vec<Item>,
    records: usize,
    bytes: usize,
    abandoned: Vec<(String, Arc<AtomicBool>)>,
    ending: Option<Ending>,
}

impl Batch {
    fn take(&mut self, command: Command) {
        match command {
            Command::Append(item) => {
                self.records += item.group.entries.len();
                self.bytes += item.group.bytes;
                self.items.push(item);
            }
            Command::Abandoned { session, written } => self.abandoned.push((session, written)),
            Command::Shutdown(ending) => self.ending = Some(ending),
        }
    }

    fn is_full(&self) -> bool {
        self.records >= MAX_BATCH_RECORDS || self.bytes >= MAX_BATCH_BYTES || self.ending.is_some()
    }
}

/// The owner of the chain.
pub(super) struct Writer {
    wal: Wal,
    disk: Box<dyn Disk>,
    dir: PathBuf,
    deployment: String,
    replica: String,
    key: SigningKey,
    checkpoints: CheckpointFile,
    checkpoint_file: Option<PathBuf>,
    checkpoint_records: u64,
    checkpoint_interval: Duration,
    group_commit_delay: Duration,
    /// Size and time of the last checkpoint.
    signed: (u64, Instant),
    opened_at: Instant,
    /// When the oldest record that is not on disk was written.
    unsynced_since: Option<Instant>,
    counted_at: Instant,
    probed_at: Instant,
    /// Sessions whose `opened` is in the log although its caller was told that it is not.
    closing: VecDeque<String>,
    state: Arc<Mutex<LedgerHealth>>,
    live: Arc<Live>,
    _lock: DirLock,
}

impl Writer {
    /// Recovers the directory and begins the new chain; on return its genesis and the closings of orphans are on disk.
    pub(super) fn begin(
        options: &LedgerOptions,
        chain: ChainId,
        lock: DirLock,
        disk: &dyn Fn() -> Box<dyn Disk>,
    ) -> Result<(Self, Opening), OpenError> {
        let dir = options.dir.clone();
        let key_path = options
            .signing_key
            .clone()
            .unwrap_or_else(|| dir.join("signing.key"));
        let key = keyfile::load_or_create(
            &key_path,
            &format!("countersign/{}/{}", options.deployment, options.replica),
        )?;
        let published = cursor::load(&dir).map_err(StoreError::io(&dir))?;
        let recovered = recover::recover(&dir, published)?;

        let chain_dir = ChainDir::new(&dir, recovered.next_ordinal, chain);
        layout::create_chain(&chain_dir.path).map_err(StoreError::io(&chain_dir.path))?;
        let chains = layout::chains_dir(&dir);
        layout::sync_dir(&chains)
            .and_then(|()| layout::sync_dir(&dir))
            .map_err(StoreError::io(&chains))?;
        let (files, begun) = (disk(), now());
        let checkpoints = CheckpointFile::create(files.as_ref(), &chain_dir.checkpoints())
            .map_err(OpenError::Begin)?;
        let wal =
            Wal::create(disk(), chain_dir, options.segment_bytes).map_err(OpenError::Begin)?;
        let health = LedgerHealth {
            trouble: None,
            spool_bytes: 0,
            cap_bytes: options.spool_cap_bytes,
            alarm_percent: 0,
            records: 0,
            synced: 0,
            published: None,
        };
        let mut writer = Self {
            wal,
            disk: files,
            dir,
            deployment: options.deployment.clone(),
            replica: options.replica.clone(),
            checkpoints,
            checkpoint_file: options.checkpoint_file.clone(),
            checkpoint_records: options.checkpoint_records.max(1),
            checkpoint_interval: options.checkpoint_interval,
            group_commit_delay: options.group_commit_delay,
            signed: (0, begun),
            opened_at: begun,
            unsynced_since: None,
            counted_at: begun,
            probed_at: begun,
            closing: VecDeque::new(),
            state: Arc::new(Mutex::new(health)),
            live: Arc::new(Live::new(chain)),
            _lock: lock,
            key,
        };
        writer
            .first_records(&recovered, &options.build)
            .map_err(OpenError::Begin)?;
        // A crash before this line closes them once more in the next chain's stead: the closings are read back, and what
        // they close is closed.
        recover::mark(&recovered.to_mark)?;
        writer.count_bytes();
        writer.publish_state();
        let opening = Opening {
            chain,
            previous: recovered
                .previous
                .as_ref()
                .map(|previous| previous.head.chain),
            previous_clean: recovered
                .previous
                .as_ref()
                .is_some_and(|previous| previous.clean),
            orphans_closed: recovered.orphans.len(),
            cuts: recovered.cuts,
            verifier: writer.key.verifier().clone(),
        };
        Ok((writer, opening))
    }

    pub(super) fn state(&self) -> Arc<Mutex<LedgerHealth>> {
        Arc::clone(&self.state)
    }

    pub(super) fn live(&self) -> Arc<Live> {
        Arc::clone(&self.live)
    }

    fn first_records(&mut self, recovered: &Recovered, build: &str) -> io::Result<()> {
        let mut genesis = Genesis {
            deployment: self.deployment.clone(),
            replica: self.replica.clone(),
            build: build.to_owned(),
            ..Genesis::default()
        };
        if let Some(previous) = &recovered.previous {
            genesis.previous_chain = previous.head.chain.to_string();
            genesis.previous_size = previous.head.size;
            genesis.previous_head = previous.head.hash.to_string();
            genesis.previous_checkpoint.clone_from(&previous.checkpoint);
            genesis.previous_clean = previous.clean;
            genesis.previous_torn_bytes = previous.torn_bytes;
        }
        self.write_own(&[Entry {
            session: String::new(),
            event: Event::Genesis(genesis),
        }])?;
        for sessions in recovered.orphans.chunks(MAX_BATCH_RECORDS) {
            let entries: Vec<Entry> = sessions
                .iter()
                .map(|session| closed_unknown(session))
                .collect();
            self.write_own(&entries)?;
        }
        self.wal.sync()
    }

    /// Runs until shut down, or until every handle is gone.
    pub(super) fn run(mut self, queue: &mpsc::Receiver<Command>) {
        loop {
            let mut batch = Batch::default();
            match queue.recv_timeout(self.until_due()) {
                Ok(command) => {
                    batch.take(command);
                    self.collect(queue, &mut batch);
                }
                Err(mpsc::RecvTimeoutError::Timeout) => {}
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    let _ = self.wal.sync().and_then(|()| self.checkpoint());
                    self.publish_state();
                    return;
                }
            }
            self.write(batch.items);
            for (session, written) in batch.abandoned {
                if written.load(Ordering::Acquire) {
                    self.must_close(Some(session));
                }
            }
            self.close_abandoned();
            self.tick();
            self.publish_state();
            if let Some(Ending {
                cut_sessions,
                reply,
            }) = batch.ending
            {
                let ended = self.end(cut_sessions);
                self.publish_state();
                // The lock first: whoever was told may open the directory again.
                drop(self);
                let _ = reply.send(ended);
                return;
            }
        }
    }

    /// Adds what is queued, and what comes within the group commit delay, up to the bounds of a batch.
    fn collect(&self, queue: &mpsc::Receiver<Command>, batch: &mut Batch) {
        let until = now() + self.group_commit_delay;
        while !batch.is_full() {
            let next = queue
                .try_recv()
                .or_else(|_| queue.recv_timeout(until.saturating_duration_since(now())));
            match next {
                Ok(command) => batch.take(command),
                Err(_) => return,
            }
        }
    }

    fn write(&mut self, items: Vec<Item>) {
        // For the others nobody waits any more, and nothing of them is in the log. How a session ended is worth writing
        // all the same.
        let items: Vec<Item> = items
            .into_iter()
            .filter(|item| !item.reply.is_closed() || item.group.closes.is_some())
            .collect();
        let items = self.refuse_beyond_cap(items);
        if items.is_empty() {
            return;
        }
        let stamp = stamp(&self.replica, (wall(), self.opened_at.elapsed()));
        let entries: Vec<_> = items
            .iter()
            .flat_map(|item| {
                item.group
                    .entries
                    .iter()
                    .map(|entry| (stamp, entry.as_slice()))
            })
            .collect();
        let mut receipts = Vec::with_capacity(entries.len());
        if let Err(error) = self
            .wal
            .append(&entries, &mut receipts)
            .map(|grown| self.grow(grown))
        {
            let error = self.failed("written", &error);
            return items.into_iter().for_each(|item| self.refuse(item, error));
        }
        self.unsynced_since.get_or_insert_with(now);
        // Before anyone is answered: whoever has a receipt must find it counted.
        self.publish_state();
        let mut receipts = receipts.into_iter();
        // Spool is acknowledged now, whatever the sync brings: the bytes are the operating system's.
        let mut to_sync = Vec::new();
        for item in items {
            item.written.store(true, Ordering::Release);
            let receipts: Vec<Receipt> = receipts.by_ref().take(item.group.entries.len()).collect();
            match item.durability {
                Durability::Spool => drop(item.reply.send(Ok(receipts))),
                // Kafka is sent only what is on disk.
                Durability::Disk | Durability::Kafka => to_sync.push((item.reply, receipts)),
            }
        }
        if to_sync.is_empty() && !self.wal.must_sync() {
            return self.works();
        }
        // What could not be synced stays in the chain, and the disk may yet keep it.
        let synced = self.sync();
        for (reply, receipts) in to_sync {
            let _ = reply.send(synced.map(|()| receipts));
        }
    }

    /// Answers for what is not in the log. How a session ended would be lost with it, so that it did end is noted.
    fn refuse(&mut self, item: Item, error: LedgerError) {
        self.must_close(item.group.closes);
        let _ = item.reply.send(Err(error));
    }

    fn must_close(&mut self, session: Option<String>) {
        if let Some(session) = session
            && self.closing.len() < MAX_CLOSING
        {
            self.closing.push_back(session);
        }
    }

    /// Closes the sessions that only the log believes to be open.
    fn close_abandoned(&mut self) {
        while !self.closing.is_empty() {
            let entries: Vec<Entry> = self
                .closing
                .iter()
                .take(MAX_BATCH_RECORDS)
                .map(|session| closed_unknown(session))
                .collect();
            if let Err(error) = self.write_own(&entries) {
                self.failed("written", &error);
                return;
            }
            self.closing.drain(..entries.len());
            self.unsynced_since.get_or_insert_with(now);
        }
    }

    /// Records of the ledger's own.
    fn write_own(&mut self, entries: &[Entry]) -> io::Result<()> {
        let json: Vec<Vec<u8>> = entries
            .iter()
            .map(serde_json::to_vec)
            .collect::<Result<_, _>>()?;
        let stamp = stamp(&self.replica, (wall(), self.opened_at.elapsed()));
        let entries: Vec<_> = json.iter().map(|entry| (stamp, entry.as_slice())).collect();
        let grown = self.wal.append(&entries, &mut Vec::new())?;
        self.grow(grown);
        Ok(())
    }

    /// Answers `audit_full` to what does not fit under the cap. The last sixteenth (16 MiB at most) is kept for what is
    /// under way, so that sessions that were let in can be closed.
    fn refuse_beyond_cap(&mut self, items: Vec<Item>) -> Vec<Item> {
        let cap = self.health().cap_bytes;
        let reserve = reserve(cap);
        let mut used = self.health().spool_bytes;
        let wanted: u64 = items.iter().map(Item::on_disk).sum();
        if used + wanted > cap - reserve && self.counted_at.elapsed() >= PROBE {
            // Someone may have made room since.
            used = self.count_bytes();
        }
        let mut fitting = Vec::with_capacity(items.len());
        for item in items {
            let limit = if item.group.begins_work {
                cap - reserve
            } else {
                cap
            };
            if used + item.on_disk() > limit {
                self.trouble(Some(LedgerError::Full));
                self.refuse(item, LedgerError::Full);
            } else {
                used += item.on_disk();
                fitting.push(item);
            }
        }
        fitting
    }

    /// What is due without anyone asking.
    fn tick(&mut self) {
        if self.health().trouble.is_some() && self.probed_at.elapsed() >= PROBE {
            self.probe();
        }
        if self
            .unsynced_since
            .is_some_and(|since| since.elapsed() >= SPOOL_SYNC)
        {
            let _ = self.sync();
        }
        let unsigned = self.wal.head().size - self.signed.0;
        let due = unsigned >= self.checkpoint_records
            || (unsigned > 0 && self.signed.1.elapsed() >= self.checkpoint_interval);
        if due && self.sync().is_ok() {
            // Tried again when the next is due: a checkpoint late is no reason to refuse traffic.
            if let Err(error) = self.checkpoint() {
                tracing::warn!(%error, "an audit checkpoint could not be written");
                self.signed.1 = now();
            }
        }
    }

    fn until_due(&self) -> Duration {
        let mut wait = Duration::from_secs(1);
        if self.wal.head().size > self.signed.0 {
            wait = wait.min(
                self.checkpoint_interval
                    .saturating_sub(self.signed.1.elapsed()),
            );
        }
        if let Some(since) = self.unsynced_since {
            wait = wait.min(SPOOL_SYNC.saturating_sub(since.elapsed()));
        }
        if self.health().trouble.is_some() {
            wait = wait.clamp(Duration::from_millis(10), PROBE);
        }
        wait
    }

    /// Whether the disk takes writes again, tried on a file of its own, so that readiness recovers without traffic.
    fn probe(&mut self) {
        self.probed_at = now();
        let path = self.dir.join("probe");
        let written = self.wal.repair().and_then(|()| {
            let mut file = self.disk.create(&path)?;
            file.write_at(&[0; 4096], 0)?;
            file.sync()?;
            file.cut(0)
        });
        self.count_bytes();
        if written.is_ok() {
            self.works();
            self.close_abandoned();
        }
    }

    fn sync(&mut self) -> Result<(), LedgerError> {
        match self.wal.sync() {
            Ok(()) => {
                self.unsynced_since = None;
                self.live.advance(self.wal.synced());
                self.works();
                Ok(())
            }
            Err(error) => Err(self.failed("synced", &error)),
        }
    }

    /// INVARIANT: everything it covers is on disk.
    fn checkpoint(&mut self) -> io::Result<()> {
        let head = self.wal.head();
        debug_assert_eq!(
            head.size,
            self.wal.synced(),
            "a checkpoint must not outlive what it covers"
        );
        if head.size == self.signed.0 {
            return Ok(());
        }
        let checkpoint = Checkpoint {
            deployment: self.deployment.clone(),
            chain: head.chain,
            size: head.size,
            root: self.wal.root(),
        };
        let note = checkpoint.sign(&self.key);
        let grown = self.checkpoints.append(&note)?;
        self.grow(grown);
        self.signed = (head.size, now());
        if let Some(path) = &self.checkpoint_file
            && let Err(error) = checkpoints::append_outside(path, &note)
        {
            // The next one covers what this one would have.
            tracing::warn!(%error, path = %path.display(), "a checkpoint could not be written outside");
        }
        self.live.wake();
        Ok(())
    }

    fn end(&mut self, cut_sessions: u32) -> Result<(), LedgerError> {
        self.close_abandoned();
        let entry = Entry {
            session: String::new(),
            event: Event::Shutdown(Shutdown { cut_sessions }),
        };
        self.write_own(&[entry])
            .map_err(|error| self.failed("written", &error))?;
        self.sync()?;
        self.checkpoint()
            .map_err(|error| self.failed("signed", &error))
    }

    fn failed(&self, what: &str, error: &io::Error) -> LedgerError {
        let kind = match error.kind() {
            io::ErrorKind::StorageFull
            | io::ErrorKind::QuotaExceeded
            | io::ErrorKind::FileTooLarge => LedgerError::Full,
            _ => LedgerError::Unavailable,
        };
        if self.health().trouble != Some(kind) {
            tracing::error!(%error, code = kind.code(), "the audit log cannot be {what}; requests are refused until it can");
        }
        self.trouble(Some(kind));
        kind
    }

    /// A write worked. At the cap that is no reason to let new work in.
    fn works(&self) {
        if self.at_cap() {
            return self.trouble(Some(LedgerError::Full));
        }
        if self.health().trouble.is_some() {
            tracing::info!("the audit log can be written again");
        }
        self.trouble(None);
    }

    fn at_cap(&self) -> bool {
        let health = self.health();
        health.spool_bytes + reserve(health.cap_bytes) + OVERHEAD as u64 >= health.cap_bytes
    }

    fn trouble(&self, trouble: Option<LedgerError>) {
        self.health().trouble = trouble;
    }

    fn grow(&self, bytes: u64) {
        self.health().spool_bytes += bytes;
        self.alarm();
    }

    /// Says so, once, where the log has grown over one of the alarms' marks or is below one again.
    fn alarm(&self) {
        let mut health = self.health();
        let usable = health.cap_bytes - reserve(health.cap_bytes);
        let percent = health.spool_bytes.saturating_mul(100) / usable.max(1);
        let passed = ALARMS.into_iter().rfind(|mark| percent >= u64::from(*mark));
        let before = std::mem::replace(&mut health.alarm_percent, passed.unwrap_or(0));
        let (now, bytes, cap) = (health.alarm_percent, health.spool_bytes, health.cap_bytes);
        drop(health);
        match now.cmp(&before) {
            std::cmp::Ordering::Greater if now == ALARMS[ALARMS.len() - 1] => {
                tracing::error!(
                    percent,
                    bytes,
                    cap,
                    "the audit log's share of the disk is all but full; at the cap requests are refused"
                );
            }
            std::cmp::Ordering::Greater => {
                tracing::warn!(
                    percent,
                    bytes,
                    cap,
                    "the audit log's share of the disk is filling up"
                );
            }
            std::cmp::Ordering::Less => {
                tracing::info!(
                    percent,
                    bytes,
                    cap,
                    "the audit log's share of the disk has room again"
                );
            }
            std::cmp::Ordering::Equal => {}
        }
    }

    fn count_bytes(&mut self) -> u64 {
        self.counted_at = now();
        if let Ok(bytes) = layout::bytes_on_disk(&self.dir) {
            self.health().spool_bytes = bytes;
        }
        self.alarm();
        self.health().spool_bytes
    }

    fn publish_state(&self) {
        self.live.advance(self.wal.synced());
        let mut health = self.health();
        health.records = self.wal.head().size;
        health.synced = self.wal.synced();
    }

    /// The shared state; held for a moment only, never across a write.
    fn health(&self) -> std::sync::MutexGuard<'_, LedgerHealth> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "this thread waits for the disk, in real time"
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

/// Room kept for sessions that were let in.
fn reserve(cap: u64) -> u64 {
    (cap / 16).min(16 << 20)
}

fn stamp(replica: &str, (time, since): (Timestamp, Duration)) -> Stamp<'_> {
    Stamp {
        time,
        monotonic_ns: u64::try_from(since.as_nanos()).unwrap_or(u64::MAX),
        replica,
    }
}

fn closed_unknown(session: &str) -> Entry {
    let closed = Closed {
        outcome: "unknown".to_owned(),
        ..Closed::default()
    };
    Entry {
        session: session.to_owned(),
        event: Event::Closed(Box::new(closed)),
    }
}
