//! Time. The only place that reads the clocks; everything else is told what time it is.
//!
//! Two kinds, which are never mixed: the wall clock ([`Clock::now`]) for what tokens and records say, which can jump;
//! and the time since start ([`Clock::monotonic`], [`Clock::sleep`]) for how long something took or may take.

use std::{sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use tokio::{sync::watch, time::Instant};

/// A source of time. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System { start: Instant },
    Manual(watch::Receiver<Reading>),
}

#[derive(Clone, Copy, Debug)]
struct Reading {
    wall: Timestamp,
    elapsed: Duration,
}

/// Moves a manual clock.
#[derive(Clone, Debug)]
pub struct Hand(Arc<watch::Sender<Reading>>);

impl Clock {
    /// The machine's clocks.
    #[must_use]
    #[allow(
        clippy::disallowed_methods,
        reason = "this is the place where the clocks are read"
    )]
    pub fn system() -> Self {
        Self(Source::System {
            start: Instant::now(),
        })
    }

    /// A clock that stands still at `start` until its hand is moved; for tests.
    #[must_use]
    pub fn manual(start: Timestamp) -> (Self, Hand) {
        let (hand, face) = watch::channel(Reading {
            wall: start,
            elapsed: Duration::ZERO,
        });
        (Self(Source::Manual(face)), Hand(Arc::new(hand)))
    }

    /// The instant by the wall clock.
    #[must_use]
    #[allow(
        clippy::disallowed_methods,
        reason = "this is the place where the clocks are read"
    )]
    pub fn now(&self) -> Timestamp {
        match &self.0 {
            Source::System { .. } => Timestamp::now(),
            Source::Manual(face) => face.borrow().wall,
        }
    }

    /// Time since the clock was made; never goes back.
    #[must_use]
    pub fn monotonic(&self) -> Duration {
        match &self.0 {
            Source::System { start } => start.elapsed(),
            Source::Manual(face) => face.borrow().elapsed,
        }
    }

    /// Waits until [`monotonic`](Self::monotonic) has reached `deadline`. Cancellation-safe.
    pub async fn sleep_until(&self, deadline: Duration) {
        match &self.0 {
            Source::System { start } => match start.checked_add(deadline) {
                Some(instant) => tokio::time::sleep_until(instant).await,
                None => std::future::pending().await,
            },
            Source::Manual(face) => {
                let mut face = face.clone();
                // A hand that is gone moves no more: the deadline is never reached.
                if face
                    .wait_for(|reading| reading.elapsed >= deadline)
                    .await
                    .is_err()
                {
                    std::future::pending().await
                }
            }
        }
    }
}

impl Hand {
    /// Lets time pass: both clocks go forward.
    pub fn advance(&self, by: Duration) {
        self.0.send_modify(|reading| {
            reading.elapsed = reading.elapsed.saturating_add(by);
            reading.wall = reading.wall.saturating_add(by).unwrap_or(Timestamp::MAX);
        });
    }

    /// Sets the wall clock forward or back, as an administrator or NTP would; no time passes.
    pub fn jump(&self, by: SignedDuration) {
        self.0.send_modify(|reading| {
            reading.wall = reading.wall.saturating_add(by).unwrap_or(reading.wall)
        });
    }
}
