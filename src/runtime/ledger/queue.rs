//! What the handle asks of the writer, how it is woken, and how much of it is dealt with in one go.

use std::{
    sync::{Arc, atomic::AtomicBool, mpsc},
    thread::{self, Thread},
    time::Instant,
};

use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::{Group, LedgerError, now, room::OVERHEAD};
use crate::audit::{Durability, Receipt, record::Entry};

/// What the handle asks for.
pub(super) enum Command {
    Append(Item),
    /// This session is to be closed if its `opened` is in the log: nobody else will.
    Unclosed {
        session: String,
        written: Arc<AtomicBool>,
    },
    /// Records about the log itself; answered once they are on disk.
    Own(Own),
    /// The disk holds less than it did.
    Recount,
    Shutdown(Ending),
}

/// Records about the log itself.
pub(super) struct Own {
    pub(super) entries: Vec<Entry>,
    pub(super) reply: mpsc::SyncSender<Result<(), LedgerError>>,
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

/// Where commands are left for the writer. Its channel wakes nobody; [`Wake`] does, so that several may be
/// left for one waking.
#[derive(Clone)]
pub(super) struct Commands {
    sender: mpsc::Sender<Command>,
    // Dropped behind the sender: the writer must see that nobody is left.
    wake: Wake,
}

/// Wakes the writer when it is dropped. That costs nothing where it is awake.
#[derive(Clone)]
pub(super) struct Wake(Thread);

impl Drop for Wake {
    fn drop(&mut self) {
        self.0.unpark();
    }
}

/// The writer is gone.
pub(super) struct Gone;

impl Commands {
    /// To the writer that receives on `writer`.
    pub(super) fn new(sender: mpsc::Sender<Command>, writer: Thread) -> Self {
        let wake = Wake(writer);
        Self { sender, wake }
    }

    /// Leaves a command and wakes the writer.
    pub(super) fn send(&self, command: Command) -> Result<(), Gone> {
        self.leave(command).map(drop)
    }

    /// Leaves a command; the writer is woken once what this returns is dropped.
    pub(super) fn leave(&self, command: Command) -> Result<Wake, Gone> {
        self.sender.send(command).map_err(|_| Gone)?;
        Ok(self.wake.clone())
    }
}

/// The next command, on the thread that is woken.
pub(super) fn receive(
    commands: &mpsc::Receiver<Command>,
    until: Instant,
) -> Result<Command, mpsc::RecvTimeoutError> {
    loop {
        match commands.try_recv() {
            Ok(command) => return Ok(command),
            Err(mpsc::TryRecvError::Disconnected) => {
                return Err(mpsc::RecvTimeoutError::Disconnected);
            }
            Err(mpsc::TryRecvError::Empty) => {}
        }
        let left = until.saturating_duration_since(now());
        if left.is_zero() {
            return Err(mpsc::RecvTimeoutError::Timeout);
        }
        // Woken since the look above: returns at once.
        thread::park_timeout(left);
    }
}

pub(super) const MAX_BATCH_RECORDS: usize = 1_024;
const MAX_BATCH_BYTES: usize = 4 << 20;

impl Item {
    /// Bytes it will take on disk, about.
    pub(super) fn on_disk(&self) -> u64 {
        (self.group.bytes + self.group.entries.len() * OVERHEAD) as u64
    }
}

/// What is dealt with in one go.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) items: Vec<Item>,
    pub(super) records: usize,
    pub(super) bytes: usize,
    pub(super) unclosed: Vec<(String, Arc<AtomicBool>)>,
    pub(super) own: Vec<Own>,
    pub(super) recount: bool,
    pub(super) ending: Option<Ending>,
}

impl Batch {
    pub(super) fn take(&mut self, command: Command) {
        match command {
            Command::Append(item) => {
                self.records += item.group.entries.len();
                self.bytes += item.group.bytes;
                self.items.push(item);
            }
            Command::Unclosed { session, written } => self.unclosed.push((session, written)),
            Command::Own(own) => self.own.push(own),
            Command::Recount => self.recount = true,
            Command::Shutdown(ending) => self.ending = Some(ending),
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.records >= MAX_BATCH_RECORDS || self.bytes >= MAX_BATCH_BYTES || self.ending.is_some()
    }
}
