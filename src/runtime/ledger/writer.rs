//! The thread that owns the chain.

use std::{
    collections::VecDeque,
    io,
    path::PathBuf,
    sync::{Arc, Mutex, atomic::Ordering, mpsc},
    time::{Duration, Instant},
};

use jiff::Timestamp;

use super::{
    LedgerError, LedgerHealth, now,
    queue::{self, Batch, Command, Ending, Item, MAX_BATCH_RECORDS, Own},
    retention::Relief,
    room::Room,
    signing::Signer,
    wall,
};
use crate::{
    audit::{
        Durability, Receipt,
        chain::Stamp,
        record::{Closed, Entry, Event, Shutdown},
    },
    kafka::publisher::Live,
    store::{disk::Disk, lock::DirLock, wal::Wal},
};

mod begin;

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
    pub(super) fn state(&self) -> Arc<Mutex<LedgerHealth>> {
        self.room.state()
    }

    pub(super) fn live(&self) -> Arc<Live> {
        Arc::clone(&self.live)
    }

    /// Runs until shut down, or until every handle is gone.
    pub(super) fn run(mut self, commands: &mpsc::Receiver<Command>) {
        loop {
            let mut batch = Batch::default();
            match queue::receive(commands, now() + self.until_due()) {
                Ok(command) => {
                    batch.take(command);
                    self.collect(commands, &mut batch);
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
            for Own { entries, reply } in batch.own {
                // What they say counts once a checkpoint covers it.
                let written = self.write_durably(&entries).and_then(|()| {
                    self.checkpoint()
                        .map_err(|error| self.room.failed("signed", &error))
                });
                let _ = reply.send(written);
            }
            for (session, written) in batch.unclosed {
                if written.load(Ordering::Acquire) {
                    self.must_close(Some(session));
                }
            }
            self.close_unclosed();
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
    fn collect(&self, commands: &mpsc::Receiver<Command>, batch: &mut Batch) {
        let until = now() + self.group_commit_delay;
        while !batch.is_full() {
            match queue::receive(commands, until) {
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
    fn close_unclosed(&mut self) {
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
            self.close_unclosed();
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
        self.close_unclosed();
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
