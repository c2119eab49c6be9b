//! The thread that keeps sealed payloads: frames of many sessions are synced together.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use tokio::sync::oneshot;

use super::ledger::LedgerError;
use crate::{
    audit::seal::Frame,
    store::sealed::{Writer, sealed_dir},
};

/// Frames written in one go, at most; and their bytes.
const MAX_BATCH: usize = 1_024;
const MAX_BATCH_BYTES: usize = 8 << 20;

enum Command {
    Keep(Vec<Frame>, oneshot::Sender<Result<(), LedgerError>>),
    Erase(String, oneshot::Sender<Result<usize, LedgerError>>),
}

/// A handle to the sealed payloads of a ledger directory; clones share it. The directory's lock is the ledger's: open that first.
/// Dropping the last one ends the thread.
#[derive(Clone, Debug)]
pub struct Seals {
    commands: mpsc::Sender<Command>,
    bytes: Arc<AtomicU64>,
    deadline: Duration,
}

impl Seals {
    /// Starts keeping sealed payloads in ledger directory `dir`, of at most `cap` bytes. A write may take as long as `deadline`.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn open(dir: &Path, cap: u64, deadline: Duration) -> std::io::Result<Self> {
        let writer = Writer::open(&sealed_dir(dir), cap)?;
        let bytes = Arc::new(AtomicU64::new(writer.bytes()));
        // Bounded by the byte budget of the exchanges, which counts what waits here.
        let (commands, queue) = mpsc::channel();
        let counted = bytes.clone();
        thread::Builder::new()
            .name("seals".to_owned())
            .spawn(move || run(writer, &queue, &counted))?;
        Ok(Self {
            commands,
            bytes,
            deadline,
        })
    }

    /// Bytes on disk.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Keeps frames: on return they are on disk.
    ///
    /// # Errors
    /// [`LedgerError::Full`], [`LedgerError::Unavailable`], at the latest when the deadline has passed; the frames may be there all
    /// the same, and mean nothing without a record.
    pub async fn keep(&self, frames: Vec<Frame>) -> Result<(), LedgerError> {
        self.ask(|reply| Command::Keep(frames, reply)).await
    }

    /// Destroys the wrapped keys of a session; how many frames of them there were.
    ///
    /// # Errors
    /// As for [`keep`](Self::keep): then it is to be done again.
    pub async fn erase(&self, session: String) -> Result<usize, LedgerError> {
        self.ask(|reply| Command::Erase(session, reply)).await
    }

    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<T, LedgerError>>) -> Command,
    ) -> Result<T, LedgerError> {
        let (reply, answer) = oneshot::channel();
        self.commands
            .send(command(reply))
            .map_err(|_| LedgerError::Closed)?;
        match tokio::time::timeout(self.deadline, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(LedgerError::Closed),
            Err(_) => Err(LedgerError::Unavailable),
        }
    }
}

fn run(mut writer: Writer, queue: &mpsc::Receiver<Command>, bytes: &AtomicU64) {
    while let Ok(first) = queue.recv() {
        let (mut batch, mut size, mut next) = (Vec::new(), 0, Some(first));
        let mut erasures = Vec::new();
        while let Some(command) = next {
            match command {
                // Nobody waits for it any more, and no record will tell of it.
                Command::Keep(_, reply) if reply.is_closed() => {}
                Command::Keep(frames, reply) => {
                    size += frames.iter().map(|frame| frame.body.len()).sum::<usize>();
                    batch.push((frames, reply));
                }
                Command::Erase(session, reply) => erasures.push((session, reply)),
            }
            let full = batch.len() >= MAX_BATCH || size >= MAX_BATCH_BYTES;
            next = if full { None } else { queue.try_recv().ok() };
        }
        if !batch.is_empty() {
            let kept = writer.append(batch.iter().flat_map(|(frames, _)| frames));
            let kept = kept.map_err(|error| failed(&error));
            bytes.store(writer.bytes(), Ordering::Relaxed);
            for (_, reply) in batch {
                let _ = reply.send(kept);
            }
        }
        // Behind what was kept: keys that were just written are destroyed too.
        for (session, reply) in erasures {
            let _ = reply.send(writer.erase(&session).map_err(|error| failed(&error)));
        }
    }
}

fn failed(error: &std::io::Error) -> LedgerError {
    tracing::error!(%error, "sealed payloads cannot be kept; requests that would be sealed are refused until they can");
    match error.kind() {
        std::io::ErrorKind::StorageFull
        | std::io::ErrorKind::QuotaExceeded
        | std::io::ErrorKind::FileTooLarge => LedgerError::Full,
        _ => LedgerError::Unavailable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{audit::seal::FrameKind, store::sealed};

    #[tokio::test]
    async fn what_many_keep_at_once_is_on_disk_when_they_are_told_so() {
        let dir = tempfile::tempdir().unwrap();
        let seals = Seals::open(dir.path(), 1 << 20, Duration::from_secs(5)).unwrap();
        let frame = |n: u32| Frame {
            session: format!("s-{n}"),
            kind: FrameKind::Keys,
            body: vec![n as u8; 100],
        };
        let many = (0..50).map(|n| seals.keep(vec![frame(n)]));
        assert!(
            futures::future::join_all(many)
                .await
                .iter()
                .all(Result::is_ok)
        );
        let mut seen = 0;
        sealed::visit(&sealed_dir(dir.path()), |_, _| {
            seen += 1;
            true
        })
        .unwrap();
        assert_eq!(seen, 50);
        assert_eq!(seals.erase("s-7".into()).await, Ok(1));
        assert_eq!(seals.erase("s-70".into()).await, Ok(0));
        let large = Frame {
            body: vec![0; 1 << 20],
            ..frame(1)
        };
        assert_eq!(seals.keep(vec![large]).await, Err(LedgerError::Full));
        assert_eq!(seals.keep(vec![frame(1)]).await, Ok(()), "and it recovers");
        assert!(seals.bytes() > 5_000);
    }
}
