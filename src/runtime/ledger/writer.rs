//! The thread that owns the chain.

use std::{
    collections::VecDeque,
    io,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use jiff::Timestamp;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::{
    Group, LedgerError, LedgerHealth, LedgerOptions, OpenError, Opening,
    holders::Holders,
    now,
    retention::Relief,
    room::{OVERHEAD, Room},
    signing::Signer,
    wall,
};
use crate::{
    audit::{
        ChainId, Durability, Receipt,
        chain::Stamp,
        record::{Closed, Entry, Event, Genesis, Rotated, Shutdown},
    },
    kafka::{heir::Estate, publisher::Live},
    store::{
        StoreError,
        checkpoints::CheckpointFile,
        cursor,
        disk::Disk,
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
    /// Records about the log itself; answered once they are on disk.
    Own {
        entries: Vec<Entry>,
        reply: mpsc::SyncSender<Result<(), LedgerError>>,
    },
    /// The disk holds less than it did.
    Recount,
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
/// How long retention may take to make room.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often what waits for it is looked at again.
const WAITING: Duration = Duration::from_millis(10);
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
    own: Vec<(Vec<Entry>, mpsc::SyncSender<Result<(), LedgerError>>)>,
    recount: bool,
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
            Command::Own { entries, reply } => self.own.push((entries, reply)),
            Command::Recount => self.recount = true,
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
    signer: Signer,
    room: Room,
    group_commit_delay: Duration,
    opened_at: Instant,
    /// When the oldest record that is not on disk was written.
    unsynced_since: Option<Instant>,
    probed_at: Instant,
    /// Sessions whose `opened` is in the log although its caller was told that it is not.
    closing: VecDeque<String>,
    /// What there is no room for before old segments were looked at; bounded by the queue.
    waiting: Vec<Item>,
    /// When the first of them came, and the count of sweeps they wait for.
    waiting_for: Option<(Instant, u64)>,
    relief: Relief,
    live: Arc<Live>,
    _lock: DirLock,
}

impl Writer {
    /// Recovers the directory and begins the new chain; on return its genesis and the closings of orphans are on disk.
    pub(super) fn begin(
        options: &LedgerOptions,
        chain: ChainId,
        lock: DirLock,
        estate: Estate,
        holders: Holders,
        relief: Relief,
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
        let mut recovered = recover::recover(&dir, published)?;
        if recovered.previous.is_none() {
            (recovered.previous, recovered.orphans) = (estate.previous, estate.orphans);
        }
        let introductions = keyfile::introductions(&key_path)?;
        keyfile::must_follow(&key_path, &key, &introductions, recovered.previous.as_ref())?;

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
        let mut writer = Self {
            wal,
            disk: files,
            room: Room::new(dir.clone(), options.spool_cap_bytes, relief.clone()),
            dir,
            deployment: options.deployment.clone(),
            replica: options.replica.clone(),
            signer: Signer::new(options, key, checkpoints, holders),
            group_commit_delay: options.group_commit_delay,
            opened_at: begun,
            unsynced_since: None,
            probed_at: begun,
            closing: VecDeque::new(),
            waiting: Vec::new(),
            waiting_for: None,
            relief,
            live: Arc::new(Live::new(chain)),
            _lock: lock,
        };
        writer
            .first_records(&recovered, &options.build, introductions)
            .map_err(OpenError::Begin)?;
        // A crash before this line closes them once more in the next chain's stead: the closings are read back, and what
        // they close is closed.
        recover::mark(&recovered.to_mark)?;
        // At once, since a checkpoint of this chain that is held outside covers all chains before it.
        if let Err(error) = writer.checkpoint() {
            tracing::warn!(%error, "an audit checkpoint could not be written");
        }
        writer.room.count();
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
            verifier: writer.signer.verifier().clone(),
        };
        Ok((writer, opening))
    }

    pub(super) fn state(&self) -> Arc<Mutex<LedgerHealth>> {
        self.room.state()
    }

    pub(super) fn live(&self) -> Arc<Live> {
        Arc::clone(&self.live)
    }

    fn first_records(
        &mut self,
        recovered: &Recovered,
        build: &str,
        introductions: Vec<String>,
    ) -> io::Result<()> {
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
        if !introductions.is_empty() {
            // In every chain, so that each verifies by itself, whatever was pruned.
            let rotated = Rotated {
                key: self.signer.verifier().to_string(),
                introductions,
            };
            self.write_own(&[Entry {
                session: String::new(),
                event: Event::Rotated(rotated),
            }])?;
        }
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
            if batch.recount {
                self.room.count();
                if self.room.health().trouble == Some(LedgerError::Full) {
                    self.room.works();
                }
            }
            self.write(batch.items);
            for (entries, reply) in batch.own {
                let _ = reply.send(self.write_durably(&entries));
            }
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
        let waited = std::mem::take(&mut self.waiting);
        let items: Vec<Item> = waited
            .into_iter()
            .chain(items)
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
            .map(|grown| self.room.grow(grown))
        {
            let error = self.room.failed("written", &error);
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
            return self.room.works();
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
                self.room.failed("written", &error);
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
        self.room.grow(grown);
        Ok(())
    }

    fn write_durably(&mut self, entries: &[Entry]) -> Result<(), LedgerError> {
        self.write_own(entries)
            .map_err(|error| self.room.failed("written", &error))?;
        self.sync()
    }

    /// Answers `audit_full` to what does not fit under the cap, once what may be pruned is.
    fn refuse_beyond_cap(&mut self, items: Vec<Item>) -> Vec<Item> {
        let wanted: u64 = items.iter().map(Item::on_disk).sum();
        let (mut used, for_new_work, cap) = self.room.limits(wanted, PROBE);
        let mut fitting = Vec::with_capacity(items.len());
        for item in items {
            let limit = if item.group.begins_work {
                for_new_work
            } else {
                cap
            };
            if used + item.on_disk() <= limit {
                used += item.on_disk();
                fitting.push(item);
            } else if self.may_wait() {
                self.waiting.push(item);
            } else {
                self.room.trouble(Some(LedgerError::Full));
                self.refuse(item, LedgerError::Full);
            }
        }
        if self.waiting.is_empty() {
            self.waiting_for = None;
        }
        fitting
    }

    /// Whether it is worth waiting for retention to make room: until it has looked for some, a second at most.
    fn may_wait(&mut self) -> bool {
        if !self.relief.works {
            return false;
        }
        let relief = &self.relief;
        let (since, sweeps) = *self.waiting_for.get_or_insert_with(|| {
            relief.ask();
            (now(), relief.after_the_next())
        });
        // The first may have been asked for while one was under way.
        relief.ask();
        !relief.is_over(sweeps) && since.elapsed() < PATIENCE
    }

    /// What is due without anyone asking.
    fn tick(&mut self) {
        if self.room.in_trouble() && self.probed_at.elapsed() >= PROBE {
            self.probe();
        }
        if self
            .unsynced_since
            .is_some_and(|since| since.elapsed() >= SPOOL_SYNC)
        {
            let _ = self.sync();
        }
        let due = self
            .signer
            .is_due(self.wal.head().size, self.wal.segment_is_full());
        if due
            && self.sync().is_ok()
            && let Err(error) = self.checkpoint()
        {
            tracing::warn!(%error, "an audit checkpoint could not be written");
            self.signer.put_off();
        }
    }

    fn until_due(&self) -> Duration {
        let mut wait = Duration::from_secs(1).min(self.signer.until_due());
        if let Some(since) = self.unsynced_since {
            wait = wait.min(SPOOL_SYNC.saturating_sub(since.elapsed()));
        }
        if !self.waiting.is_empty() {
            wait = wait.min(WAITING);
        }
        if self.room.in_trouble() {
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
        self.room.count();
        if written.is_ok() {
            self.room.works();
            self.close_abandoned();
        }
    }

    fn sync(&mut self) -> Result<(), LedgerError> {
        match self.wal.sync() {
            Ok(()) => {
                self.unsynced_since = None;
                self.live.advance(self.wal.synced());
                self.room.works();
                Ok(())
            }
            Err(error) => Err(self.room.failed("synced", &error)),
        }
    }

    fn checkpoint(&mut self) -> io::Result<()> {
        let head = self.wal.head();
        debug_assert_eq!(
            head.size,
            self.wal.synced(),
            "a checkpoint must not outlive what it covers"
        );
        let signed = self.signer.sign(&head, self.wal.root())?;
        match signed.grown {
            0 => self.live.idle(signed.note),
            grown => {
                self.room.grow(grown);
                self.live.wake();
            }
        }
        Ok(())
    }

    fn end(&mut self, cut_sessions: u32) -> Result<(), LedgerError> {
        self.close_abandoned();
        let entry = Entry {
            session: String::new(),
            event: Event::Shutdown(Shutdown { cut_sessions }),
        };
        self.write_durably(&[entry])?;
        self.checkpoint()
            .map_err(|error| self.room.failed("signed", &error))
    }

    fn publish_state(&self) {
        self.live.advance(self.wal.synced());
        let mut health = self.room.health();
        health.records = self.wal.head().size;
        health.synced = self.wal.synced();
    }
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
