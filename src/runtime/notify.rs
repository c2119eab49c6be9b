//! Messages to people's systems: webhooks signed as Standard Webhooks has it, and payloads that Slack and its like take.
//!
//! ```text
//! send ──> place? ──no──> dead letters (a file, bounded) ──full──> counted as lost
//!            └─yes─> try, wait, try … five times in about five minutes ──> taken | dead letters
//! ```
//!
//! Promises: [`Notifier::send`] never waits; a message has the same id in every attempt; one that no hook took is in the dead
//! letters or counted as lost. Never: follows a redirect, uses a proxy from the environment, carries text of a request or anything
//! that lets its reader decide. Can miss: order, and messages that were on their way when the process ended.

mod letters;
mod message;
mod signature;
#[cfg(test)]
pub(crate) mod tests;

use std::{
    fmt, io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use aws_lc_rs::rand;
use jiff::Timestamp;
use reqwest::{Client, StatusCode, header, redirect};
use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tracing::warn;
use url::Url;

use self::letters::{Letter, Letters};
pub use self::{
    message::{Message, is_obeyed, slack_text},
    signature::{BadSecret, SigningSecret},
};
use super::clock::Clock;
use crate::keys::in_words;

/// Messages on their way to one hook, those that wait for another attempt included. Beyond it, straight to the dead letters.
const ON_THEIR_WAY: usize = 1_000;
/// Attempts at one hook at a time.
const AT_ONCE: usize = 4;
/// How long one attempt may take.
const ATTEMPT: Duration = Duration::from_secs(10);
/// Waits between attempts, before chance moves them by a fifth at most: with the attempts about five minutes in all.
const BACK_OFF: [Duration; 4] = [
    Duration::from_secs(5),
    Duration::from_secs(20),
    Duration::from_secs(75),
    Duration::from_secs(200),
];

/// How a hook wants its messages.
#[derive(Clone, Debug)]
pub enum Form {
    /// <https://www.standardwebhooks.com>, signed with this secret (`v1`, HMAC-SHA-256).
    Standard(SigningSecret),
    /// What Slack's incoming webhooks take, and Mattermost's. The address is the secret.
    Slack,
}

/// Where messages go.
#[derive(Clone)]
pub struct Hook {
    /// What it is called in logs and metrics.
    pub name: String,
    /// Where to. Maybe a secret, so it is shown nowhere.
    pub url: Url,
    /// What is sent.
    pub form: Form,
}

impl fmt::Debug for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Hook").field(&self.name).finish()
    }
}

/// What became of messages since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Taken by a hook.
    pub taken: u64,
    /// Attempts that failed.
    pub failures: u64,
    /// Put into the dead letters.
    pub dead: u64,
    /// Neither taken nor kept.
    pub lost: u64,
    /// On their way.
    pub on_their_way: u64,
}

/// Sends messages. Cheap to clone; what is on its way goes on when it is dropped, until its runtime ends.
#[derive(Clone, Debug)]
pub struct Notifier(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    hooks: Vec<Arc<Served>>,
    letters: Letters,
    client: Client,
    clock: Clock,
    runtime: Handle,
}

/// A hook with what bounds it.
#[derive(Debug)]
struct Served {
    hook: Hook,
    places: Arc<Semaphore>,
    attempts: Semaphore,
    taken: AtomicU64,
    failures: AtomicU64,
}

impl Notifier {
    /// Serves `hooks` on the current runtime. Dead letters go to `letters`, or are lost where there is no such file.
    ///
    /// # Errors
    /// Where the file of dead letters cannot be opened, or TLS cannot be had.
    pub fn start(hooks: Vec<Hook>, letters: Option<PathBuf>, clock: Clock) -> io::Result<Self> {
        let client = Client::builder()
            .no_proxy()
            .redirect(redirect::Policy::none())
            .timeout(ATTEMPT)
            .user_agent(concat!("countersign/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(io::Error::other)?;
        let served = |hook| {
            Arc::new(Served {
                hook,
                places: Arc::new(Semaphore::new(ON_THEIR_WAY)),
                attempts: Semaphore::new(AT_ONCE),
                taken: AtomicU64::new(0),
                failures: AtomicU64::new(0),
            })
        };
        Ok(Self(Arc::new(Inner {
            hooks: hooks.into_iter().map(served).collect(),
            letters: Letters::open(letters)?,
            client,
            clock,
            runtime: Handle::try_current().map_err(io::Error::other)?,
        })))
    }

    /// Sends `message` to every hook. Never waits: what there is no place for is a dead letter.
    pub fn send(&self, message: Message) {
        let message = Arc::new(message);
        for served in &self.0.hooks {
            match Arc::clone(&served.places).try_acquire_owned() {
                Ok(place) => {
                    let (inner, served) = (Arc::clone(&self.0), Arc::clone(served));
                    let message = Arc::clone(&message);
                    self.0
                        .runtime
                        .spawn(async move { inner.deliver(&served, &message, place).await });
                }
                Err(_) => self
                    .0
                    .bury(served, &message, 0, "too many are on their way"),
            }
        }
    }

    /// What became of messages, all hooks together.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let sum = |of: fn(&Served) -> u64| self.0.hooks.iter().map(|served| of(served)).sum();
        let (dead, lost) = self.0.letters.counts();
        Counts {
            taken: sum(|served| served.taken.load(Relaxed)),
            failures: sum(|served| served.failures.load(Relaxed)),
            dead,
            lost,
            on_their_way: sum(|served| (ON_THEIR_WAY - served.places.available_permits()) as u64),
        }
    }
}

impl Inner {
    /// One message to one hook, to its end. `_place` is free again when it is over.
    async fn deliver(&self, served: &Served, message: &Message, _place: OwnedSemaphorePermit) {
        let mut waits = BACK_OFF.iter();
        for attempt in 1.. {
            let failure = match self.attempt(served, message).await {
                Ok(()) => {
                    served.taken.fetch_add(1, Relaxed);
                    return;
                }
                Err(failure) => failure,
            };
            let wait = waits.next().filter(|_| failure.may_pass());
            // Counted last: whoever sees it may rely on what comes next being settled.
            let due = wait.map(|wait| self.clock.monotonic() + jittered(*wait, chance()));
            served.failures.fetch_add(1, Relaxed);
            let hook = &served.hook.name;
            match due {
                Some(due) => {
                    warn!(hook, attempt, %failure, "a message was not taken and will be tried again");
                    self.clock.sleep_until(due).await;
                }
                None => return self.bury(served, message, attempt, &failure.to_string()),
            }
        }
    }

    async fn attempt(&self, served: &Served, message: &Message) -> Result<(), Failure> {
        // Never closed, so always given.
        let _turn = served.attempts.acquire().await;
        let hook = &served.hook;
        let request = self
            .client
            .post(hook.url.clone())
            .header(header::CONTENT_TYPE, "application/json");
        let request = match &hook.form {
            Form::Standard(secret) => {
                let body = message.standard();
                let seconds = self.clock.now().as_second();
                request
                    .header("webhook-id", message.id())
                    .header("webhook-timestamp", seconds)
                    .header(
                        "webhook-signature",
                        secret.sign(message.id(), seconds, body.as_bytes()),
                    )
                    .body(body)
            }
            Form::Slack => request.body(message.slack()),
        };
        let status = request.send().await?.status();
        match status.is_success() {
            true => Ok(()),
            false => Err(Failure::Status(status)),
        }
    }

    fn bury(&self, served: &Served, message: &Message, attempts: u32, cause: &str) {
        let hook = &served.hook.name;
        warn!(hook, attempts, cause, "a message is given up");
        self.letters.put(Letter {
            at: self.now(),
            hook: hook.clone(),
            id: message.id().to_owned(),
            attempts,
            cause: cause.to_owned(),
            message: message.standard(),
        });
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }
}

/// Why a hook did not take a message.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("the request failed: {0}")]
    Request(String),
    #[error("the answer has status {}", .0.as_u16())]
    Status(StatusCode),
}

impl Failure {
    /// Whether another attempt can do better. What a hook calls our fault stays it, unless the status itself is about time.
    fn may_pass(&self) -> bool {
        match self {
            Self::Request(_) => true,
            Self::Status(status) => {
                let about_time = [408, 409, 425, 429].contains(&status.as_u16());
                !status.is_client_error() || about_time
            }
        }
    }
}

impl From<reqwest::Error> for Failure {
    fn from(error: reqwest::Error) -> Self {
        Self::Request(in_words(error))
    }
}

/// `wait`, moved by up to a fifth either way, so that what failed together does not come again together. `chance` is from 0 to 255.
fn jittered(wait: Duration, chance: u8) -> Duration {
    wait * 4 / 5 + wait * 2 / 5 * u32::from(chance) / 255
}

fn chance() -> u8 {
    let mut byte = [128];
    // Without a random number it is the middle.
    let _ = rand::fill(&mut byte);
    byte[0]
}
