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

/// Frames to keep, and whom to tell.
type Keep = (Vec<Frame>, oneshot::Sender<Result<(), LedgerError>>);

/// A handle to the sealed payloads of a ledger directory; clones share it. The directory's lock is the ledger's: open that first.
/// Dropping the last one ends the thread.
#[derive(Clone, Debug)]
pub struct Seals {
    queue: mpsc::Sender<Keep>,
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
        let (queue, kept) = mpsc::channel();
        let counted = bytes.clone();
        thread::Builder::new()
            .name("seals".to_owned())
            .spawn(move || run(writer, &kept, &counted))?;
        Ok(Self {
            queue,
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
        let (reply, answer) = oneshot::channel();
        self.queue
            .send((frames, reply))
            .map_err(|_| LedgerError::Closed)?;
        match tokio::time::timeout(self.deadline, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(LedgerError::Closed),
            Err(_) => Err(LedgerError::Unavailable),
        }
    }
}

fn run(mut writer: Writer, queue: &mpsc::Receiver<Keep>, bytes: &AtomicU64) {
    while let Ok(first) = queue.recv() {
        let (mut batch, mut size, mut next) = (Vec::new(), 0, Some(first));
        while let Some((frames, reply)) = next {
            // Nobody may wait for it any more, and then no record will tell of it.
            if !reply.is_closed() {
                size += frames.iter().map(|frame| frame.body.len()).sum::<usize>();
                batch.push((frames, reply));
            }
            let full = batch.len() >= MAX_BATCH || size >= MAX_BATCH_BYTES;
            next = if full { None } else { queue.try_recv().ok() };
        }
        if batch.is_empty() {
            continue;
        }
        let kept = writer.append(batch.iter().flat_map(|(frames, _)| frames));
        let kept = kept.map_err(|error| failed(&error));
        bytes.store(writer.bytes(), Ordering::Relaxed);
        for (_, reply) in batch {
            let _ = reply.send(kept);
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
        let large = Frame {
            body: vec![0; 1 << 20],
            ..frame(1)
        };
        assert_eq!(seals.keep(vec![large]).await, Err(LedgerError::Full));
        assert_eq!(seals.keep(vec![frame(1)]).await, Ok(()), "and it recovers");
        assert!(seals.bytes() > 5_000);
    }
}
