//! An issuer's public keys, kept current.
//!
//! ```text
//! timer ───┐                       ┌─> current keys (epoch moves on when a key is gone)
//! asked ───┴─> one task: fetch ────┤
//! (unknown kid, rate-limited)      └─> attempts: what those who asked wait for
//! ```
//!
//! Promises: one fetch at a time, whoever asks; tokens with unknown key ids cause at most one fetch that brings nothing new
//! per [`Timing::unknown_key_interval`], however many come; keys outlive a dead issuer by [`Timing::stale_grace`] and no longer;
//! nothing here stops the service.
//!
//! Never: follows a redirect to another origin, uses a proxy from the environment, reads more than the bounds of
//! [`KeySet`], believes a discovery document of another issuer.
//!
//! Can miss: a key that was published and used within one interval after a fetch brought nothing new; its tokens are
//! refused until the interval is over.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
use reqwest::Client;
use tokio::sync::{Notify, watch};
use tokio_util::task::AbortOnDropHandle;

use super::fetch::{self, FetchError, Source};
use crate::{
    identity::{KeySet, token_hash},
    runtime::clock::Clock,
};

/// Most key ids that are remembered as unknown, per issuer. Beyond, the rate limit alone protects the issuer.
const MAX_UNKNOWN_KIDS: usize = 1024;

/// How often within [`Timing::unknown_key_interval`] other keys make the next question come early.
const MAX_EARLY: u32 = 3;

/// Where an issuer's keys are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// In the issuer's discovery document (OIDC Discovery 1.0), which must name the same issuer.
    Discovery {
        /// Allows plaintext HTTP to hosts other than loopback.
        insecure: bool,
    },
    /// At a URL of their own.
    Url {
        /// `https`, or `http` on loopback.
        url: String,
        /// Allows plaintext HTTP to hosts other than loopback.
        insecure: bool,
    },
    /// In a file, read again every [`Timing::file_every`].
    File(PathBuf),
    /// In the SAML metadata of the issuer, which is an entity there.
    #[cfg(feature = "saml")]
    Metadata {
        /// Where the metadata is.
        at: Place,
        /// A file of certificates (PEM) of which one must have signed it, where being there is not enough. Read again with it.
        signed_by: Option<PathBuf>,
    },
}

/// Where a document is.
#[cfg(feature = "saml")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// At a URL: `https`, or `http` on loopback.
    Url(String),
    /// In a file.
    File(PathBuf),
}

/// Why a source of keys cannot be used at all: a fault of the configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// Not an absolute http or https URL, or one with a query where none may be.
    #[error("is not an http or https URL")]
    NotAUrl,
    /// Plaintext to another machine.
    #[error("is not https, and not on loopback")]
    Plaintext,
    /// A user name or password in the URL.
    #[error("holds credentials")]
    Credentials,
    /// The TLS client cannot be built; mostly a machine without root certificates.
    #[error("cannot be asked: {0}")]
    Client(String),
}

/// How often, how long, how patient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Between two fetches over HTTP, when all is well.
    pub refresh_every: Duration,
    /// Between two readings of a file.
    pub file_every: Duration,
    /// Least time from a fetch that unknown key ids caused, and that brought no new key, to the next.
    pub unknown_key_interval: Duration,
    /// How long a key id that a fresh set did not have is taken for unknown without asking again.
    pub unknown_key_memory: Duration,
    /// How long keys stay good after the refresh that failed was due.
    pub stale_grace: Duration,
    /// Wait before the first retry of a failed fetch; doubled for each further one.
    pub retry_first: Duration,
    /// Longest wait before a retry.
    pub retry_most: Duration,
    /// Longest a fetch may take, discovery included.
    pub timeout: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            refresh_every: Duration::from_secs(300),
            file_every: Duration::from_secs(5),
            unknown_key_interval: Duration::from_secs(10),
            unknown_key_memory: Duration::from_secs(30),
            stale_grace: Duration::from_secs(3600),
            retry_first: Duration::from_secs(1),
            retry_most: Duration::from_secs(60),
            timeout: Duration::from_secs(5),
        }
    }
}

/// A set of keys as it is current.
#[derive(Debug)]
pub struct Current {
    /// The keys.
    pub keys: KeySet,
    /// Moves on whenever a key is gone from the set: what was proved in an older epoch has to be proved again.
    pub epoch: u64,
}

/// The keys of one issuer, kept current by a task that ends when this is dropped.
#[derive(Debug)]
pub struct Jwks {
    shared: Arc<Shared>,
    _task: AbortOnDropHandle<()>,
}

#[derive(Debug)]
struct Shared {
    issuer: String,
    source: Source,
    client: Client,
    timing: Timing,
    clock: Clock,
    current: ArcSwapOption<Current>,
    /// When the last good fetch ended, in milliseconds of the monotonic clock.
    fetched_at: AtomicU64,
    attempts: watch::Sender<Attempts>,
    ask: Notify,
    /// A lock, held for a few instructions and never across an await: its parts must change together.
    unknown: Mutex<Unknown>,
    failed: AtomicU64,
}

/// Fetches that have ended.
#[derive(Clone, Copy, Debug, Default)]
struct Attempts {
    all: u64,
    /// Those that someone asked for.
    asked: u64,
    /// Whether the last one brought keys.
    good: bool,
}

/// What keeps strangers' key ids from becoming load on the issuer.
#[derive(Debug, Default)]
struct Unknown {
    /// When the last fetch was asked for; not where it brought other keys.
    asked_at: Option<Duration>,
    /// When and how often fetches that were asked for brought other keys, within one [`Timing::unknown_key_interval`].
    changed: (Duration, u32),
    /// Whether that fetch has yet to end.
    in_flight: bool,
    /// Until when a key id (hashed: a stranger chose its length) is taken for unknown.
    kids: HashMap<[u8; 32], Duration>,
}

impl Jwks {
    /// Starts keeping the keys of `issuer` current; the first fetch starts at once. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// [`SourceError`] for a source that is not allowed. A source that does not answer is no error: it is tried again.
    pub fn new(
        issuer: &str,
        source: &KeySource,
        timing: Timing,
        clock: Clock,
    ) -> Result<Self, SourceError> {
        let shared = Arc::new(Shared {
            issuer: issuer.to_owned(),
            source: Source::new(issuer, source)?,
            client: fetch::client()?,
            timing,
            clock,
            current: ArcSwapOption::empty(),
            fetched_at: AtomicU64::new(0),
            attempts: watch::Sender::new(Attempts::default()),
            ask: Notify::new(),
            unknown: Mutex::default(),
            failed: AtomicU64::new(0),
        });
        let task = AbortOnDropHandle::new(tokio::spawn(keep_current(Arc::clone(&shared))));
        Ok(Self {
            shared,
            _task: task,
        })
    }

    /// Whether the other keeps the keys of the same issuer, from the same place.
    #[must_use]
    pub fn is_like(&self, other: &Self) -> bool {
        (&self.shared.issuer, &self.shared.source) == (&other.shared.issuer, &other.shared.source)
    }

    /// The keys, unless there are none yet or they are older than their grace.
    #[must_use]
    pub fn current(&self) -> Option<Arc<Current>> {
        let current = self.shared.current.load_full()?;
        (self.age() <= self.shared.every() + self.shared.timing.stale_grace).then_some(current)
    }

    /// Time since the last good fetch. Meaningless before the first.
    #[must_use]
    pub fn age(&self) -> Duration {
        let fetched_at = Duration::from_millis(self.shared.fetched_at.load(Relaxed));
        self.shared.clock.monotonic().saturating_sub(fetched_at)
    }

    /// Fetches that ended, and how many of them failed.
    #[must_use]
    pub fn fetches(&self) -> (u64, u64) {
        (
            self.shared.attempts.borrow().all,
            self.shared.failed.load(Relaxed),
        )
    }

    /// Waits until `fetches` fetches have ended since the start, however they ended. Cancellation-safe.
    pub async fn fetched(&self, fetches: u64) {
        // The sender lives in `shared`, which `self` holds: this cannot fail.
        let _ = self
            .shared
            .attempts
            .subscribe()
            .wait_for(|attempts| attempts.all >= fetches)
            .await;
    }

    /// Asks for newer keys because a token names `kid`, which the current set lacks, and waits for the fetch to end. Says
    /// whether one was made or joined; `false` at once where the rate limit or an earlier answer forbids asking.
    ///
    /// Cancellation-safe: the fetch goes on in the task that owns it. Waits at most a second longer than
    /// [`Timing::timeout`].
    pub async fn refresh_for(&self, kid: Option<&str>) -> bool {
        let shared = &self.shared;
        let mut attempts = shared.attempts.subscribe();
        let kid = token_hash(kid.unwrap_or(""));
        let Some(ticket) = shared.may_ask(&kid) else {
            return false;
        };
        let patience = shared.timing.timeout + Duration::from_secs(1);
        let ended = tokio::time::timeout(
            patience,
            attempts.wait_for(|attempts| attempts.asked >= ticket),
        )
        .await;
        let Ok(Ok(attempts)) = ended.map(|ended| ended.map(|attempts| *attempts)) else {
            return false;
        };
        attempts.good
    }

    /// Remembers that a fresh set does not have `kid`, so that the same token does not cause the next fetch too.
    pub fn remember_unknown(&self, kid: Option<&str>) {
        let now = self.shared.clock.monotonic();
        let mut unknown = self.shared.lock();
        if unknown.kids.len() >= MAX_UNKNOWN_KIDS {
            unknown.kids.retain(|_, until| *until > now);
        }
        if unknown.kids.len() < MAX_UNKNOWN_KIDS {
            unknown.kids.insert(
                token_hash(kid.unwrap_or("")),
                now + self.shared.timing.unknown_key_memory,
            );
        }
    }

    /// Waits for the very first fetch where it has not ended; otherwise asks for one, within the rate limit.
    pub async fn wait_for_any(&self) {
        if self.shared.attempts.borrow().all == 0 {
            let patience = self.shared.timing.timeout + Duration::from_secs(1);
            let _ = tokio::time::timeout(patience, self.fetched(1)).await;
        } else {
            self.refresh_for(None).await;
        }
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, Unknown> {
        // Nothing can panic while it is held; should it, the numbers in it are still whole.
        self.unknown.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn every(&self) -> Duration {
        match self.source.is_file() {
            true => self.timing.file_every,
            false => self.timing.refresh_every,
        }
    }

    /// The number of the asked-for fetch to wait for, if asking is allowed now.
    fn may_ask(&self, kid: &[u8; 32]) -> Option<u64> {
        let now = self.clock.monotonic();
        let mut unknown = self.lock();
        if unknown.kids.get(kid).is_some_and(|until| *until > now) {
            return None;
        }
        let ticket = self.attempts.borrow().asked + 1;
        if unknown.in_flight {
            return Some(ticket);
        }
        if unknown
            .asked_at
            .is_some_and(|at| now < at + self.timing.unknown_key_interval)
        {
            return None;
        }
        unknown.asked_at = Some(now);
        unknown.in_flight = true;
        self.ask.notify_one();
        Some(ticket)
    }

    async fn fetch(&self) -> Result<KeySet, FetchError> {
        tokio::time::timeout(self.timing.timeout, self.source.fetch(&self.client))
            .await
            .unwrap_or(Err(FetchError::TimedOut))
    }

    fn accept(&self, keys: KeySet) {
        let millis = u64::try_from(self.clock.monotonic().as_millis()).unwrap_or(u64::MAX);
        self.fetched_at.store(millis, Relaxed);
        let old = self.current.load_full();
        let (kept, same, as_long, epoch) = match &old {
            Some(old) => {
                let kept = old.keys.is_kept_by(&keys);
                let same = kept && keys.is_kept_by(&old.keys);
                let as_long = old.keys.valid_until() == keys.valid_until();
                (kept, same, as_long, old.epoch)
            }
            None => (true, false, false, 0),
        };
        if same && as_long {
            return;
        }
        if same {
            self.current.store(Some(Arc::new(Current { keys, epoch })));
            return;
        }
        for skipped in keys.skipped() {
            tracing::debug!(
                issuer = self.issuer,
                index = skipped.index,
                reason = skipped.reason,
                "key not used"
            );
        }
        tracing::info!(issuer = self.issuer, ?keys, removed = !kept, "keys changed");
        self.current.store(Some(Arc::new(Current {
            keys,
            epoch: epoch + u64::from(!kept),
        })));
        let mut unknown = self.lock();
        unknown.kids.clear();
        // The limit is for questions that bring nothing: an issuer that rotates again at once is asked again at once. But not for ever, as
        // the servers of one that is rotating may disagree.
        let now = self.clock.monotonic();
        if now >= unknown.changed.0 + self.timing.unknown_key_interval {
            unknown.changed = (now, 0);
        }
        if unknown.changed.1 < MAX_EARLY {
            unknown.changed.1 += 1;
            unknown.asked_at = None;
        }
    }
}

/// The task: fetches when it is time or when asked, one at a time.
async fn keep_current(shared: Arc<Shared>) {
    let mut due = Duration::ZERO;
    let mut failures = 0u32;
    loop {
        let asked = tokio::select! {
            () = shared.clock.sleep_until(due) => false,
            () = shared.ask.notified() => true,
        };
        let fetched = shared.fetch().await;
        let good = fetched.is_ok();
        let wait = match fetched {
            Ok(keys) => {
                shared.accept(keys);
                failures = 0;
                shared.every()
            }
            Err(error) => {
                shared.failed.fetch_add(1, Relaxed);
                failures = failures.saturating_add(1);
                let wait = back_off(failures, &shared.timing);
                tracing::warn!(issuer = shared.issuer, %error, retry_in = ?wait, "cannot fetch the issuer's keys");
                wait
            }
        };
        due = shared.clock.monotonic() + wait;
        // Under the lock, so that nobody joins a fetch that has ended.
        let mut unknown = shared.lock();
        unknown.in_flight &= !asked;
        shared.attempts.send_modify(|attempts| {
            attempts.all += 1;
            attempts.asked += u64::from(asked);
            attempts.good = good;
        });
    }
}

fn back_off(failures: u32, timing: &Timing) -> Duration {
    let doubled = 2u32.saturating_pow(failures.saturating_sub(1));
    timing
        .retry_first
        .saturating_mul(doubled)
        .min(timing.retry_most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_back_off_to_a_minute_and_stay_there() {
        let waits: Vec<u64> = [1, 2, 3, 4, 5, 6, 7, 8, 40, u32::MAX]
            .map(|n| back_off(n, &Timing::default()).as_secs())
            .to_vec();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60, 60, 60]);
    }
}
