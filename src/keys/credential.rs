//! An upstream's credential, kept current.
//!
//! ```text
//! timer ──> one task: fetch ──┬─> value, and until when it may be lent
//!            (retried)        └─> attempts: what those who wait for the first one wait for
//! ```
//!
//! Promises: one fetch at a time, however many requests there are; a value that was good stays until it expires, whatever becomes
//! of the fetches after it, and no longer; one that its server says is gone goes at once; nothing here stops the service, which
//! recovers by itself once the source does. No secret is in an error, in the log or in `Debug`.
//!
//! What "expires" means: a file's and a variable's value never does, Vault's does [`Vault::stale`](super::source::Vault::stale)
//! after the reading that failed was due, an access token does a little before its server says, so that it is still good when it
//! arrives.
//!
//! Can miss: a value that is revoked before its time; the upstream refuses it until the next fetch. Time that a suspended
//! machine did not see.

#[cfg(test)]
mod tests;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use secrecy::{ExposeSecret, SecretString};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use super::{
    ask::AskError,
    oauth2,
    secret::{SecretError, SecretSource},
    source::{CredentialSource, OAuth2, Vault},
    vault,
};
use crate::runtime::clock::Clock;

/// Why a fetch brought no credential, for the log. Never shows what came.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    #[error(transparent)]
    Secret(#[from] SecretError),
    #[error(transparent)]
    Ask(#[from] AskError),
    #[error("no whole answer came in time")]
    TimedOut,
    #[error("the answer has status {0}")]
    Status(u16),
    #[error("the login was answered with status {0}")]
    Login(u16),
    #[error("the answer is not Vault's for its key-value store, version 2")]
    NotVault,
    #[error("the secret is not there (any more)")]
    Gone,
    #[error("the secret has no such field")]
    NoField,
    #[error("the secret's field is not text")]
    NotText,
    #[error("the token endpoint refused: `{0}`")]
    OAuth2(&'static str),
    #[error("the answer is not a token's")]
    NotAToken,
    #[error("the token is not of the type `Bearer`")]
    NotBearer,
    #[error("what came is empty or has characters that cannot stand in a header")]
    NotHeaderSafe,
    #[error("reading it was given up on")]
    GivenUp,
}

/// How often, how long, how patient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Between two readings of a file.
    pub file_every: Duration,
    /// Wait before the first retry of a failed fetch; doubled for each further one.
    pub retry_first: Duration,
    /// Longest wait before a retry.
    pub retry_most: Duration,
    /// Longest a fetch may take, a login included.
    pub timeout: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            file_every: Duration::from_secs(1),
            retry_first: Duration::from_secs(1),
            retry_most: Duration::from_secs(30),
            timeout: Duration::from_secs(5),
        }
    }
}

/// A credential's value.
#[derive(Debug)]
pub struct Value {
    /// The secret. Can stand in a header as it is.
    pub secret: SecretString,
    /// Until when it may be lent, by the monotonic clock; always where it is `None`.
    pub until: Option<Duration>,
}

/// A credential, kept current by a task that ends when this is dropped.
pub struct Credential {
    shared: Arc<Shared>,
    _task: Option<AbortOnDropHandle<()>>,
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential")
            .field("name", &self.shared.name)
            .finish_non_exhaustive()
    }
}

struct Shared {
    name: String,
    clock: Clock,
    timing: Timing,
    value: watch::Sender<Option<Arc<Value>>>,
    /// Fetches that have ended.
    attempts: watch::Sender<u64>,
    failed: AtomicU64,
    /// When the last good fetch ended, in milliseconds of the monotonic clock.
    fetched_at: AtomicU64,
}

/// What is fetched, with what is kept between two fetches.
enum Fetcher {
    File(SecretSource),
    Vault(Box<Vault>, vault::Login),
    OAuth2(Box<OAuth2>),
}

/// What a fetch brought.
struct Fetched {
    value: Value,
    /// When the next one is due.
    next: Duration,
}

impl Credential {
    /// Starts keeping the credential at `source` current. A file and a variable are read now, blocking for as long as the disk
    /// does; a server is asked by the task. Must be called inside a tokio runtime, but for a variable.
    ///
    /// # Errors
    /// [`SecretError`] for a file or variable that cannot be read. A server that does not answer is no error: it is asked again.
    pub fn start(
        source: &CredentialSource,
        timing: Timing,
        clock: Clock,
    ) -> Result<Self, SecretError> {
        let (fetcher, value) = match source {
            CredentialSource::Plain(plain) => {
                let secret = plain.read()?;
                let value = Arc::new(Value {
                    secret,
                    until: None,
                });
                let follows = matches!(plain, SecretSource::File(_));
                let fetcher = follows.then(|| Fetcher::File(plain.clone()));
                (fetcher, Some(value))
            }
            CredentialSource::Vault(from) => {
                let login = vault::Login::default();
                (Some(Fetcher::Vault(from.clone(), login)), None)
            }
            CredentialSource::OAuth2(from) => (Some(Fetcher::OAuth2(from.clone())), None),
        };
        let there = value.is_some();
        let shared = Arc::new(Shared {
            name: source.to_string(),
            timing,
            value: watch::Sender::new(value),
            attempts: watch::Sender::new(u64::from(there)),
            failed: AtomicU64::new(0),
            fetched_at: AtomicU64::new(millis(clock.monotonic())),
            clock,
        });
        let due = match there {
            true => shared.clock.monotonic() + timing.file_every,
            false => Duration::ZERO,
        };
        let keep = |fetcher| tokio::spawn(keep_current(Arc::clone(&shared), fetcher, due));
        let task = fetcher.map(keep).map(AbortOnDropHandle::new);
        Ok(Self {
            shared,
            _task: task,
        })
    }

    /// Its source's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// The value, unless there is none yet, or none any more.
    #[must_use]
    pub fn current(&self) -> Option<Arc<Value>> {
        let now = self.shared.clock.monotonic();
        let value = self.shared.value.borrow().clone()?;
        value.until.is_none_or(|until| now < until).then_some(value)
    }

    /// The value as it changes; whether it has expired is for the reader to see.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<Option<Arc<Value>>> {
        self.shared.value.subscribe()
    }

    /// Fetches that ended, and how many of them failed.
    #[must_use]
    pub fn fetches(&self) -> (u64, u64) {
        let all = *self.shared.attempts.borrow();
        (all, self.shared.failed.load(Relaxed))
    }

    /// Time since the last good fetch, or since the start where there was none yet.
    #[must_use]
    pub fn age(&self) -> Duration {
        let fetched_at = Duration::from_millis(self.shared.fetched_at.load(Relaxed));
        self.shared.clock.monotonic().saturating_sub(fetched_at)
    }

    /// Waits until `fetches` fetches have ended since the start, however they ended. Cancellation-safe.
    pub async fn fetched(&self, fetches: u64) {
        let mut attempts = self.shared.attempts.subscribe();
        // The sender lives in `shared`, which `self` holds: this cannot fail.
        let _ = attempts.wait_for(|attempts| *attempts >= fetches).await;
    }
}

impl Fetcher {
    async fn fetch(&mut self, now: Duration, timing: &Timing) -> Result<Fetched, FetchError> {
        match self {
            Self::File(source) => Ok(Fetched {
                value: Value {
                    secret: read(source.clone()).await?,
                    until: None,
                },
                next: now + timing.file_every,
            }),
            Self::Vault(from, login) => {
                let secret = vault::fetch(from, login, now).await?;
                let next = now + from.refresh;
                let until = Some(next + from.stale);
                let value = Value { secret, until };
                Ok(Fetched { value, next })
            }
            Self::OAuth2(from) => {
                let (secret, good_for) = oauth2::fetch(from).await?;
                // What it was asked for counts from before it was: the answer took its time too.
                let (early, last) = (early(good_for), last(good_for));
                let until = Some(now + good_for.saturating_sub(last));
                let value = Value { secret, until };
                let next = now + good_for.saturating_sub(early);
                Ok(Fetched { value, next })
            }
        }
    }

    fn is_file(&self) -> bool {
        matches!(self, Self::File(_))
    }
}

/// How long before its end a token is fetched anew: long enough for a few tries.
fn early(good_for: Duration) -> Duration {
    (good_for / 2).min(Duration::from_secs(60))
}

/// How long before its end a token is lent for the last time: a request is put on record, which may take some seconds, and
/// travels before it is looked at.
fn last(good_for: Duration) -> Duration {
    (good_for / 4).min(Duration::from_secs(15))
}

/// Reads a file or variable off the threads that serve requests.
pub(super) async fn read(source: SecretSource) -> Result<SecretString, FetchError> {
    let reading = tokio::task::spawn_blocking(move || source.read());
    Ok(reading.await.map_err(|_| FetchError::GivenUp)??)
}

/// The task: fetches when it is time.
async fn keep_current(shared: Arc<Shared>, mut fetcher: Fetcher, mut due: Duration) {
    let timing = shared.timing;
    let mut failures = 0u32;
    loop {
        shared.clock.sleep_until(due).await;
        let now = shared.clock.monotonic();
        let fetching = fetcher.fetch(now, &timing);
        let fetched = tokio::time::timeout(timing.timeout, fetching).await;
        due = match fetched.unwrap_or(Err(FetchError::TimedOut)) {
            Ok(Fetched { value, next }) => {
                if failures > 0 {
                    tracing::info!(source = shared.name, "the credential can be had again");
                }
                failures = 0;
                shared.accept(value);
                next
            }
            Err(error) => {
                failures = failures.saturating_add(1);
                shared.failed.fetch_add(1, Relaxed);
                // A file is looked at again as soon as ever: that costs nothing, and nobody needs to be spared.
                let wait = match fetcher.is_file() {
                    true => timing.file_every,
                    false => back_off(failures, &timing),
                };
                if matches!(error, FetchError::Gone | FetchError::NoField) {
                    shared
                        .value
                        .send_if_modified(|value| value.take().is_some());
                }
                if failures == 1 || !fetcher.is_file() {
                    let good = shared.value.borrow().is_some();
                    tracing::warn!(source = shared.name, %error, retry_in = ?wait, still_good = good, "cannot fetch a credential");
                }
                shared.clock.monotonic() + wait
            }
        };
        shared.attempts.send_modify(|attempts| *attempts += 1);
    }
}

impl Shared {
    fn accept(&self, fresh: Value) {
        self.fetched_at
            .store(millis(self.clock.monotonic()), Relaxed);
        self.value.send_if_modified(|value| {
            let known = value.as_ref();
            let same = known
                .is_some_and(|known| known.secret.expose_secret() == fresh.secret.expose_secret());
            if !same {
                tracing::info!(source = self.name, "a credential is new");
            }
            let changed = !same || known.is_some_and(|known| known.until != fresh.until);
            if changed {
                *value = Some(Arc::new(fresh));
            }
            changed
        });
    }
}

fn back_off(failures: u32, timing: &Timing) -> Duration {
    let doubled = 2u32.saturating_pow(failures.saturating_sub(1));
    let wait = timing.retry_first.saturating_mul(doubled);
    wait.min(timing.retry_most)
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
