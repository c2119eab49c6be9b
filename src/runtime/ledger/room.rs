//! How much of the disk the log may take, how it is doing with it, and whether it can be written at all.

use std::{
    io,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::{ALARMS, LedgerError, LedgerHealth, now, retention::Relief};
use crate::store::{frame::FRAME_HEADER, layout};

/// Room taken by a record besides its entry, at most on average.
pub(super) const OVERHEAD: usize = FRAME_HEADER + 320;

pub(super) struct Room {
    dir: PathBuf,
    state: Arc<Mutex<LedgerHealth>>,
    counted_at: Instant,
    /// Asked for when an alarm's mark is passed: old segments may go.
    relief: Relief,
}

impl Room {
    pub(super) fn new(dir: PathBuf, cap_bytes: u64, relief: Relief) -> Self {
        let health = LedgerHealth {
            trouble: None,
            spool_bytes: 0,
            cap_bytes,
            alarm_percent: 0,
            records: 0,
            synced: 0,
            published: None,
            holders: Vec::new(),
        };
        Self {
            dir,
            state: Arc::new(Mutex::new(health)),
            counted_at: now(),
            relief,
        }
    }

    pub(super) fn state(&self) -> Arc<Mutex<LedgerHealth>> {
        Arc::clone(&self.state)
    }

    /// The shared state; held for a moment only, never across a write.
    pub(super) fn health(&self) -> MutexGuard<'_, LedgerHealth> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The last sixteenth (16 MiB at most) is kept for what is under way, so that sessions that were let in can be closed.
    /// What is used, and what may be used by new work and by all.
    pub(super) fn limits(&mut self, wanted: u64, count_every: Duration) -> (u64, u64, u64) {
        let cap = self.health().cap_bytes;
        let mut used = self.health().spool_bytes;
        if used + wanted > usable(cap) && self.counted_at.elapsed() >= count_every {
            // Someone may have made room since.
            used = self.count();
        }
        (used, usable(cap), cap)
    }

    pub(super) fn grow(&self, bytes: u64) {
        self.health().spool_bytes += bytes;
        self.alarm();
    }

    /// Counts what is on disk.
    pub(super) fn count(&mut self) -> u64 {
        self.counted_at = now();
        if let Ok(bytes) = layout::bytes_on_disk(&self.dir) {
            self.health().spool_bytes = bytes;
        }
        self.alarm();
        self.health().spool_bytes
    }

    pub(super) fn failed(&self, what: &str, error: &io::Error) -> LedgerError {
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

    /// A write worked. At the cap that is no reason to let new work in, and a reason to say so where nobody makes room: where
    /// retention does, what comes waits for it, and whoever waits too long is refused and says it.
    pub(super) fn works(&self) {
        if self.at_cap() {
            if !self.relief.works || self.in_trouble() {
                self.trouble(Some(LedgerError::Full));
            }
            return;
        }
        if self.health().trouble.is_some() {
            tracing::info!("the audit log can be written again");
        }
        self.trouble(None);
    }

    pub(super) fn trouble(&self, trouble: Option<LedgerError>) {
        self.health().trouble = trouble;
    }

    pub(super) fn in_trouble(&self) -> bool {
        self.health().trouble.is_some()
    }

    fn at_cap(&self) -> bool {
        let health = self.health();
        health.spool_bytes + OVERHEAD as u64 >= usable(health.cap_bytes)
    }

    /// Says so, once, where the log has grown over one of the alarms' marks or is below one again.
    fn alarm(&self) {
        let mut health = self.health();
        let percent = percent(&health);
        let passed = ALARMS.into_iter().rfind(|mark| percent >= u64::from(*mark));
        let before = std::mem::replace(&mut health.alarm_percent, passed.unwrap_or(0));
        let (now, bytes, cap) = (health.alarm_percent, health.spool_bytes, health.cap_bytes);
        drop(health);
        if now > before {
            self.relief.ask();
        }
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
}

/// Percent of what new work may take that is taken.
pub(super) fn percent(health: &LedgerHealth) -> u64 {
    health.spool_bytes.saturating_mul(100) / usable(health.cap_bytes).max(1)
}

/// What new work may take of `cap`.
pub(super) fn usable(cap: u64) -> u64 {
    cap - (cap / 16).min(16 << 20)
}
