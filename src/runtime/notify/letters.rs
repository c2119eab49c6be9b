//! Dead letters: what no hook took, a JSON line each, in a file that only its owner reads.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc::{self, Receiver, SyncSender},
    },
    thread,
};

use jiff::Timestamp;
use serde_json::{json, value::RawValue};
use tracing::error;

/// Most bytes of the file; what does not fit is lost, and counted: the first that failed tell more than the last.
const MAX_FILE: u64 = 16 << 20;
/// Letters waiting to be written.
const WAITING: usize = 1_000;

/// One message that was given up.
#[derive(Debug)]
pub(super) struct Letter {
    pub(super) at: Timestamp,
    pub(super) hook: String,
    pub(super) id: String,
    pub(super) attempts: u32,
    pub(super) cause: String,
    /// As JSON.
    pub(super) message: String,
}

/// Where they are put. Written by a thread of its own, so that a slow disk keeps nobody waiting; dropping it ends the thread once
/// all that was put is written.
#[derive(Debug)]
pub(super) struct Letters {
    queue: Option<SyncSender<Letter>>,
    counts: Arc<(AtomicU64, AtomicU64)>,
}

impl Letters {
    pub(super) fn open(path: Option<PathBuf>) -> io::Result<Self> {
        let counts: Arc<(AtomicU64, AtomicU64)> = Arc::default();
        let Some(path) = path else {
            return Ok(Self {
                queue: None,
                counts,
            });
        };
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(&path)?;
        let (queue, letters) = mpsc::sync_channel(WAITING);
        let counted = Arc::clone(&counts);
        thread::Builder::new()
            .name("dead-letters".to_owned())
            .spawn(move || write_all(file, &letters, &counted))?;
        Ok(Self {
            queue: Some(queue),
            counts,
        })
    }

    /// Keeps `letter`, or counts it as lost.
    pub(super) fn put(&self, letter: Letter) {
        let kept = self
            .queue
            .as_ref()
            .is_some_and(|queue| queue.try_send(letter).is_ok());
        if !kept {
            self.counts.1.fetch_add(1, Relaxed);
        }
    }

    /// How many were written, and how many lost.
    pub(super) fn counts(&self) -> (u64, u64) {
        (self.counts.0.load(Relaxed), self.counts.1.load(Relaxed))
    }
}

fn write_all(mut file: File, letters: &Receiver<Letter>, counts: &(AtomicU64, AtomicU64)) {
    let mut told = false;
    while let Ok(letter) = letters.recv() {
        match write(&mut file, &letter) {
            Ok(()) => counts.0.fetch_add(1, Relaxed),
            Err(cause) => {
                if !told {
                    error!(%cause, "dead letters cannot be kept any more; they are only counted");
                    told = true;
                }
                counts.1.fetch_add(1, Relaxed)
            }
        };
    }
}

fn write(file: &mut File, letter: &Letter) -> io::Result<()> {
    let mut line = json!({
        "at": letter.at.to_string(),
        "hook": letter.hook,
        "id": letter.id,
        "attempts": letter.attempts,
        "cause": letter.cause,
        "message": serde_json::from_str::<&RawValue>(&letter.message)?,
    })
    .to_string();
    line.push('\n');
    if file.metadata()?.len() + line.len() as u64 > MAX_FILE {
        return Err(io::Error::other("the file of dead letters is full"));
    }
    file.write_all(line.as_bytes())
}
