//! What the handle asks of the writer, and how much of it is dealt with in one go.

use std::sync::{Arc, atomic::AtomicBool, mpsc};

use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::{Group, LedgerError, room::OVERHEAD};
use crate::audit::{Durability, Receipt, record::Entry};

/// What the handle asks for.
pub(super) enum Command {
    Append(Item),
    /// Nobody was told that this session's `opened` is in the log.
    Abandoned {
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
    pub(super) abandoned: Vec<(String, Arc<AtomicBool>)>,
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
            Command::Abandoned { session, written } => self.abandoned.push((session, written)),
            Command::Own(own) => self.own.push(own),
            Command::Recount => self.recount = true,
            Command::Shutdown(ending) => self.ending = Some(ending),
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.records >= MAX_BATCH_RECORDS || self.bytes >= MAX_BATCH_BYTES || self.ending.is_some()
    }
}
