//! The control log, live: events go in, come back in the order of the log, and are folded into one register.
//!
//! ```text
//!  append(event) -> backend (files here, or a Kafka topic) -> durable -> fold, in the log's order -> fate of the event
//!                                                                 |
//!                                                                 +-> whoever waits for that approval
//!                                                                 +-> what is to be put on record: own events that count
//! ```
//!
//! Promises: an event's fate is told from the fold, never guessed; what could not be written, or was not seen to come back,
//! is an error, and whoever asked must not act on it. While the log cannot be read or written nothing is released.
//! Bounds: [`MAX_UNRECORDED`] events that are not on record yet; beyond it nothing new is taken.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak, mpsc},
    thread,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, oneshot, watch};
use uuid::Uuid;

use crate::{
    approval::{
        Approval, Digest, Envelope, Event, Fate, Id, Ignored, MAX_APPROVALS, Placed, Register,
        State, Unreadable, is_timely,
    },
    kafka::control::{ControlOptions, ControlTopic, ControlTopicError, Sink},
    runtime::clock::Clock,
    store::{
        StoreError,
        control::{ControlLog, MAX_EVENT},
    },
};

/// Events of our own that are not on record yet, at most.
const MAX_UNRECORDED: usize = 20_000;
/// Events written in one go, at most.
const MAX_BATCH: usize = 256;
/// How long an event may take to be durable and to come back.
const WITHIN: Duration = Duration::from_secs(10);

/// Why an event has no fate that could be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// The log cannot be written or read now.
    #[error("the control log cannot be reached")]
    Unreachable,
    /// It was sent and did not come back in time: it may yet count, so whoever asked must take it for spent.
    #[error("the control log did not answer in time")]
    Unknown,
    /// An event of a newer version is in the log.
    #[error("the control log has events of a newer version: upgrade this replica")]
    Newer,
    /// The event is longer than the log takes.
    #[error("an event is longer than the control log takes")]
    TooLarge,
    /// Too much that happened is not on record yet.
    #[error("too many events of the control log wait to be put on record")]
    Behind,
}

impl ControlError {
    /// The stable code.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Unreachable | Self::Unknown => "approvals_unavailable",
            Self::Newer => "approvals_outdated",
            Self::TooLarge => "approval_too_large",
            Self::Behind => "approvals_behind",
        }
    }
}

/// An event of our own that counts and is to be put on record.
#[derive(Clone, Debug)]
pub struct Happened {
    /// Its place in the log.
    pub placed: Placed,
    /// Its nonce: names it in the record, should it be told twice.
    pub nonce: String,
    /// The event.
    pub event: Event,
    /// The approval with it, where it is about one.
    pub approval: Option<Arc<Approval>>,
}

/// Messages that nobody who counts has signed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Forged {
    /// How many since the start.
    pub count: u64,
    /// Place of the last.
    pub last: u64,
}

/// A handle to the control log; clones share it.
#[derive(Clone)]
pub struct Control(Arc<Shared>);

struct Shared {
    folded: Mutex<Folded>,
    backend: Backend,
    replica: String,
    clock: Clock,
    /// Something is to be put on record.
    happened: Notify,
    /// The log's name, and the file where it is kept how far that has come.
    log: String,
    recorded: PathBuf,
}

enum Backend {
    /// The thread that owns the files.
    Local(mpsc::Sender<Command>),
    /// A topic that other replicas write to as well; there from when it was opened.
    Topic(Box<OnceLock<ControlTopic>>),
}

enum Command {
    Append(Job),
    /// The last: told once the files are let go of.
    Stop(oneshot::Sender<()>),
}

/// Whoever waits for an event to come back; waits no more when dropped.
struct Waits<'s>(&'s Shared, String);

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.folded().awaited.remove(&self.1);
    }
}

/// What is to be appended, and whom to tell what became of it.
struct Job {
    envelope: Envelope,
    reply: oneshot::Sender<Result<Fate, ControlError>>,
}

#[derive(Default)]
struct Folded {
    register: Register,
    /// Whoever waits for an approval to change. An entry goes with the last who waits.
    watched: HashMap<Id, watch::Sender<Arc<Approval>>>,
    /// Whoever waits for an event to come back, by its nonce. Bounded by who asks.
    awaited: HashMap<String, oneshot::Sender<Result<Fate, ControlError>>>,
    forged: Forged,
    /// Own events that count and are not on record yet, in the log's order.
    unrecorded: VecDeque<Happened>,
    /// How far events are on record.
    recorded: Recorded,
    /// The log is not the one they were recorded from.
    is_another: bool,
    trouble: Option<ControlError>,
    /// Whether others write to the log too.
    shared: bool,
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Control")
            .field("replica", &self.0.replica)
            .finish_non_exhaustive()
    }
}

impl Control {
    /// Opens the control log of a single process in `dir` and folds what is in it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn open(dir: &Path, replica: &str, clock: Clock) -> Result<Self, StoreError> {
        let recorded = dir.join("recorded");
        let fold = |recorded: Recorded| {
            let mut folded = Folded {
                recorded,
                ..Folded::default()
            };
            let log = ControlLog::open(dir, |placed, bytes| {
                folded.take(placed, bytes, replica);
            })?;
            Ok::<_, StoreError>((folded, log))
        };
        let (mut folded, mut log) = fold(Recorded::read(&recorded, FILES))?;
        if folded.is_another {
            drop(log);
            (folded, log) = fold(Recorded::default())?;
        }
        let (jobs, queue) = mpsc::channel();
        let shared = Arc::new(Shared {
            folded: Mutex::new(folded),
            backend: Backend::Local(jobs),
            replica: replica.to_owned(),
            clock,
            happened: Notify::new(),
            log: FILES.to_owned(),
            recorded,
        });
        let weak = Arc::downgrade(&shared);
        let started = thread::Builder::new()
            .name("control".to_owned())
            .spawn(move || write(log, &queue, &weak));
        started.map_err(StoreError::io(dir))?;
        Ok(Self(shared))
    }

    /// Opens the control log that several replicas share; until all that is in it is folded it is unreachable. Blocks on the network.
    ///
    /// # Errors
    /// [`ControlTopicError`].
    pub fn join(
        options: &ControlOptions,
        dir: &Path,
        clock: Clock,
    ) -> Result<Self, ControlTopicError> {
        let recorded = dir.join("recorded");
        let log = options.log();
        let folded = Folded {
            recorded: Recorded::read(&recorded, &log),
            trouble: Some(ControlError::Unreachable),
            shared: true,
            ..Folded::default()
        };
        let now = clock.now();
        let shared = Arc::new(Shared {
            folded: Mutex::new(folded),
            backend: Backend::Topic(Box::default()),
            replica: options.replica.clone(),
            clock,
            happened: Notify::new(),
            log,
            recorded,
        });
        let topic = ControlTopic::open(options, now, Arc::new(Followed(Arc::downgrade(&shared))))?;
        if let Backend::Topic(place) = &shared.backend {
            let _ = place.set(topic);
        }
        Ok(Self(shared))
    }

    /// Messages in the log that nobody who counts has signed.
    #[must_use]
    pub fn forged(&self) -> Forged {
        self.0.folded().forged
    }

    /// Appends `event` and tells what became of it.
    ///
    /// # Errors
    /// [`ControlError`]: then nobody may act as if it counted, and nobody as if it did not.
    pub async fn append(&self, event: Event) -> Result<Fate, ControlError> {
        {
            let folded = self.0.folded();
            folded.usable()?;
            if folded.unrecorded.len() >= MAX_UNRECORDED {
                return Err(ControlError::Behind);
            }
        }
        let envelope = Envelope {
            nonce: Uuid::new_v4().to_string(),
            replica: self.0.replica.clone(),
            at: self.0.clock.now(),
            event,
        };
        if envelope.to_bytes().len() > MAX_EVENT {
            return Err(ControlError::TooLarge);
        }
        let (reply, fate) = oneshot::channel();
        let _waits = match &self.0.backend {
            Backend::Local(jobs) => {
                jobs.send(Command::Append(Job { envelope, reply }))
                    .map_err(|_| ControlError::Unreachable)?;
                None
            }
            Backend::Topic(topic) => {
                let topic = topic.get().ok_or(ControlError::Unreachable)?;
                let nonce = envelope.nonce.clone();
                // Before it is sent: it may come back at once.
                self.0.folded().awaited.insert(nonce.clone(), reply);
                let waits = Waits(&self.0, nonce);
                topic
                    .send(&envelope)
                    .map_err(|_| ControlError::Unreachable)?;
                Some(waits)
            }
        };
        match tokio::time::timeout(WITHIN, fate).await {
            Ok(Ok(fate)) => fate,
            Ok(Err(_)) => Err(ControlError::Unreachable),
            Err(_) => {
                // Slow, or not the log that was followed: that is looked at.
                if let Backend::Topic(topic) = &self.0.backend
                    && let Some(topic) = topic.get()
                {
                    topic.suspect();
                }
                Err(ControlError::Unknown)
            }
        }
    }

    /// Lets go of the log; nothing can be appended any more, through whatever handle.
    pub async fn close(self) {
        let (reply, closed) = oneshot::channel();
        let Backend::Local(jobs) = &self.0.backend else {
            return;
        };
        if jobs.send(Command::Stop(reply)).is_ok() {
            let _ = closed.await;
        }
    }

    /// Whether events can be trusted to be written and read now, as far as is known.
    ///
    /// # Errors
    /// [`ControlError`] where not.
    pub fn usable(&self) -> Result<(), ControlError> {
        self.0.folded().usable()
    }

    /// The approval `id`.
    #[must_use]
    pub fn approval(&self, id: &Id) -> Option<Arc<Approval>> {
        self.0.folded().register.approval(id).cloned()
    }

    /// What an identical request would join now.
    #[must_use]
    pub fn for_request(&self, request: &Digest) -> Option<Arc<Approval>> {
        let now = self.0.clock.now();
        self.0.folded().register.for_request(request, now).cloned()
    }

    /// What `look` makes of all approvals that are remembered; nothing is folded meanwhile.
    pub fn look<T>(&self, look: impl FnOnce(&Register) -> T) -> T {
        look(&self.0.folded().register)
    }

    /// How many are pending.
    #[must_use]
    pub fn pending(&self) -> u32 {
        self.0.folded().register.pending()
    }

    /// Events that count and are not on record yet.
    #[must_use]
    pub fn unrecorded(&self) -> usize {
        self.0.folded().unrecorded.len()
    }

    /// Whether the grant of this id was revoked.
    ///
    /// # Errors
    /// [`ControlError`] where that cannot be known now.
    pub fn is_revoked(&self, grant: &str) -> Result<bool, ControlError> {
        let folded = self.0.folded();
        folded.usable()?;
        Ok(folded.register.is_revoked(grant))
    }

    /// The approval as it changes; `None` where there is none of this id.
    #[must_use]
    pub fn watch(&self, id: &Id) -> Option<watch::Receiver<Arc<Approval>>> {
        let mut folded = self.0.folded();
        let approval = folded.register.approval(id)?.clone();
        folded
            .watched
            .retain(|_, sender| sender.receiver_count() > 0);
        let sender = folded
            .watched
            .entry(id.clone())
            .or_insert_with(|| watch::channel(approval).0);
        Some(sender.subscribe())
    }

    /// The oldest own events that are not on record, at most `most`; waits until there is one.
    pub async fn happened(&self, most: usize) -> Vec<Happened> {
        loop {
            let told = self.0.happened.notified();
            {
                let folded = self.0.folded();
                if !folded.unrecorded.is_empty() {
                    return folded.unrecorded.iter().take(most).cloned().collect();
                }
            }
            told.await;
        }
    }

    /// Notes that these, the oldest of them, are on record now. After a crash that was not noted they are told again.
    pub fn recorded(&self, told: &[Happened]) {
        let mut folded = self.0.folded();
        let mut last = None;
        for one in told {
            // Read anew meanwhile, what waits may be something else; then it is told again.
            let same = |next: &Happened| next.nonce == one.nonce;
            match folded.unrecorded.front().is_some_and(same) {
                true => last = folded.unrecorded.pop_front(),
                false => break,
            }
        }
        if let Some(last) = last {
            folded.recorded = Recorded {
                log: self.0.log.clone(),
                to: last.placed.offset + 1,
                last: last.nonce,
            };
            let recorded = folded.recorded.clone();
            drop(folded);
            if let Err(error) = recorded.write(&self.0.recorded) {
                tracing::warn!(%error, "how far approvals are on record could not be noted; they may be recorded twice");
            }
        }
    }

    /// Says of what has run out by the clock here that it has, so that it is on record and whoever waits is told.
    /// By the log's own time it may not have: then it is said again later.
    pub async fn expire(&self) -> Result<usize, ControlError> {
        let now = self.0.clock.now();
        let over: Vec<Id> = {
            let folded = self.0.folded();
            let live = |approval: &&Arc<Approval>| {
                matches!(approval.state, State::Pending | State::Approved)
                    && approval.state_at(now) == State::Expired
            };
            let over = folded.register.iter().filter(live);
            over.map(|approval| approval.asked.id.clone()).collect()
        };
        let mut said = 0;
        for id in over {
            let stop = crate::approval::Stop { id, by: None };
            if let Fate::Counts(_) = self.append(Event::Expired(stop)).await? {
                said += 1;
            }
        }
        Ok(said)
    }
}

impl Shared {
    fn folded(&self) -> MutexGuard<'_, Folded> {
        self.folded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next event of the log.
    fn take(&self, placed: Placed, bytes: &[u8]) -> Option<(String, Fate)> {
        let told = self.folded().take(placed, bytes, &self.replica);
        self.happened.notify_one();
        told
    }
}

/// Follows a topic for as long as somebody holds the register.
struct Followed(Weak<Shared>);

impl Sink for Followed {
    fn take(&self, placed: Placed, bytes: &[u8]) -> bool {
        let Some(shared) = self.0.upgrade() else {
            return true;
        };
        if let Some((nonce, fate)) = shared.take(placed, bytes)
            && let Some(reply) = shared.folded().awaited.remove(&nonce)
        {
            let _ = reply.send(Ok(fate));
        }
        !std::mem::take(&mut shared.folded().is_another)
    }

    fn reset(&self, end: u64) {
        if let Some(shared) = self.0.upgrade() {
            let mut folded = shared.folded();
            folded.register = Register::default();
            folded.unrecorded.clear();
            if folded.recorded.to > end {
                // Another log than the one that was recorded from.
                folded.recorded = Recorded::default();
            }
            folded.trouble = Some(ControlError::Unreachable);
        }
    }

    fn current(&self, current: bool) {
        if let Some(shared) = self.0.upgrade() {
            let mut folded = shared.folded();
            if folded.trouble != Some(ControlError::Newer) {
                folded.trouble = (!current).then_some(ControlError::Unreachable);
            }
        }
    }

    fn forged(&self, offset: u64) {
        if let Some(shared) = self.0.upgrade() {
            let mut folded = shared.folded();
            folded.forged.count += 1;
            folded.forged.last = offset;
            drop(folded);
            tracing::error!(
                offset,
                "a message of the control log is signed by nobody who counts, and is ignored"
            );
        }
    }
}

impl Folded {
    fn usable(&self) -> Result<(), ControlError> {
        self.trouble.map_or(Ok(()), Err)
    }

    /// Folds the next event; its nonce and what became of it.
    fn take(&mut self, placed: Placed, bytes: &[u8], replica: &str) -> Option<(String, Fate)> {
        let envelope = match Envelope::read(bytes) {
            Ok(envelope) => envelope,
            // Copied to the log long after, it says nothing of the replicas there are.
            Err(Unreadable::Newer(at)) if self.shared && !is_timely(at, placed.at) => return None,
            Err(Unreadable::Newer(_)) => {
                // From here on this replica does not know what the others know.
                self.trouble = Some(ControlError::Newer);
                return None;
            }
            Err(Unreadable::Garbage) => {
                tracing::error!(
                    offset = placed.offset,
                    "an event of the control log cannot be read and counts for nothing"
                );
                return None;
            }
        };
        if self.recorded.is_refuted_by(placed, &envelope.nonce) {
            // What was passed over as recorded was another log's.
            self.recorded = Recorded::default();
            self.is_another = true;
        }
        // In files of our own nobody else writes, and the clock may have been anything.
        if self.shared && !is_timely(envelope.at, placed.at) {
            tracing::error!(
                offset = placed.offset,
                replica = envelope.replica,
                "an event of the control log is not of its time and counts for nothing"
            );
            return Some((envelope.nonce, Fate::Ignored(Ignored::Untimely)));
        }
        let fate = self.register.apply(placed, &envelope.event);
        let approval = match &fate {
            Fate::Counts(approval) => Some(approval.clone()),
            // A use is on record with the session that it is for.
            Fate::Joins(_) | Fate::Used(_) | Fate::Revoked(_) | Fate::Ignored(_) => None,
        };
        if let Some(approval) = &approval
            && let Some(watched) = self.watched.get(&approval.asked.id)
        {
            watched.send_replace(approval.clone());
        }
        let told = approval.is_some() || matches!(fate, Fate::Revoked(_));
        if told && envelope.replica == replica && placed.offset >= self.recorded.to {
            self.unrecorded.push_back(Happened {
                placed,
                nonce: envelope.nonce.clone(),
                event: envelope.event,
                approval,
            });
        }
        Some((envelope.nonce, fate))
    }
}

/// The thread that owns the files: what comes together is written together, then folded, then told.
fn write(mut log: ControlLog, queue: &mpsc::Receiver<Command>, shared: &Weak<Shared>) {
    let mut stopped = None;
    while stopped.is_none()
        && let Ok(first) = queue.recv()
    {
        let (mut jobs, mut next) = (Vec::new(), Some(first));
        while let Some(command) = next.take() {
            match command {
                Command::Append(job) => jobs.push(job),
                Command::Stop(reply) => {
                    stopped = Some(reply);
                    break;
                }
            }
            if jobs.len() < MAX_BATCH {
                next = queue.try_recv().ok();
            }
        }
        let Some(shared) = shared.upgrade() else {
            break;
        };
        // Nobody may wait any more; then nobody is sure that it counts, and it need not.
        jobs.retain(|job| !job.reply.is_closed());
        if jobs.is_empty() {
            continue;
        }
        let events: Vec<Vec<u8>> = jobs.iter().map(|job| job.envelope.to_bytes()).collect();
        let placed = log.append(shared.clock.now(), events.iter().map(Vec::as_slice));
        let placed = match placed {
            Ok(placed) => placed,
            Err(error) => {
                tracing::error!(%error, "the control log cannot be written; nothing that needs an approval is released until it can");
                for job in jobs {
                    let _ = job.reply.send(Err(ControlError::Unreachable));
                }
                continue;
            }
        };
        for ((job, placed), bytes) in jobs.into_iter().zip(placed).zip(&events) {
            let fate = match shared.take(placed, bytes) {
                Some((_, fate)) => Ok(fate),
                None => Err(ControlError::Newer),
            };
            let _ = job.reply.send(fate);
        }
    }
    // Whoever is told may open the files again.
    drop(log);
    if let Some(reply) = stopped {
        let _ = reply.send(());
    }
}

/// How far own events are on record, and of which log: another one's are not, at whatever places they stand.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
struct Recorded {
    /// The log's name.
    log: String,
    /// Events before this place are on record.
    to: u64,
    /// The nonce of the one right before it.
    last: String,
}

/// The name of a log in files: its place says which it is.
const FILES: &str = "files";

impl Recorded {
    /// What the file at `path` says of this log. Where it cannot be read, or speaks of another, everything is told again.
    fn read(path: &Path, log: &str) -> Self {
        let text = std::fs::read(path).unwrap_or_default();
        let read: Option<Self> = serde_json::from_slice(&text).ok();
        read.filter(|read| read.log == log).unwrap_or_default()
    }

    fn write(&self, path: &Path) -> std::io::Result<()> {
        let new = path.with_extension("new");
        std::fs::write(&new, serde_json::to_vec(self)?)?;
        std::fs::rename(&new, path)
    }

    /// Whether another event stands where the last one on record stood.
    fn is_refuted_by(&self, placed: Placed, nonce: &str) -> bool {
        placed.offset + 1 == self.to && self.last != nonce
    }
}

// What waits for a decision is bounded by what can be pending.
const _: () = assert!(MAX_UNRECORDED <= MAX_APPROVALS);

#[cfg(test)]
mod tests;
