//! Asking an issuer about a token that says nothing itself (RFC 7662).
//!
//! Promises: at most [`MAX_IN_FLIGHT`] questions at a time, each bounded in time and its answer in bytes; no redirect is followed
//! and no proxy of the environment is used, so tokens and the client's secret go where the configuration says and nowhere else;
//! whatever is no answer is a failure, never a yes. While the issuer cannot be reached it is asked once per
//! [`Timing::retry_first`].
//!
//! Never: remembers an answer (`runtime::authenticator` does), shows a token or the secret in an error or a log.
//!
//! Can miss: that strangers make up tokens to have the issuer asked; only the number of questions at a time is bounded.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use reqwest::{Client, header::HeaderValue};
use tokio::sync::{Mutex, Semaphore, SemaphorePermit};
use url::{Url, form_urlencoded};

use super::{
    ask::{self, AskError},
    fetch::{self, FetchError},
    jwks::{SourceError, Timing},
    oauth2,
    secret::{SecretError, SecretSource},
};
use crate::{identity::Introspected, runtime::clock::Clock};

/// Most questions under way to one issuer. Whoever comes then waits for a turn, as long as for an answer.
pub const MAX_IN_FLIGHT: usize = 32;
/// The largest answer that is read.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// Where an issuer is asked about tokens, and as whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IntrospectionSource {
    /// `https`, or `http` on loopback. None: as the issuer's discovery document says (RFC 8414).
    pub url: Option<String>,
    /// The name of the client that asks.
    pub client_id: String,
    /// Its secret, read for each question.
    pub client_secret: SecretSource,
}

/// Why there is no answer, for the log.
#[derive(Debug, thiserror::Error)]
enum Unanswered {
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error(transparent)]
    Ask(#[from] AskError),
    #[error("the discovery document names no `introspection_endpoint`")]
    NoEndpoint,
    #[error(transparent)]
    Secret(#[from] SecretError),
    #[error("the client's secret cannot be read")]
    SecretGone,
    #[error(transparent)]
    NotAnIntrospection(#[from] crate::identity::NotAnIntrospection),
}

/// Asks one issuer.
#[derive(Debug)]
pub struct Introspector {
    issuer: String,
    source: IntrospectionSource,
    /// The one that the configuration names.
    endpoint: Option<Url>,
    /// The one that was discovered, and when. Held across the fetch, so that there is one at a time.
    discovered: Mutex<Option<(Url, Duration)>>,
    client: Client,
    timing: Timing,
    clock: Clock,
    turns: Semaphore,
    /// Until when it is taken for out of reach, and until when failures are not logged again; milliseconds of the monotonic clock.
    away_until: AtomicU64,
    quiet_until: AtomicU64,
    /// When the last answer came, by the same clock.
    answered_at: AtomicU64,
    asked: AtomicU64,
    failed: AtomicU64,
    answers: AtomicBool,
}

impl Introspector {
    /// One for `issuer`; asks nothing yet.
    ///
    /// # Errors
    /// [`SourceError`] for an address that is not allowed.
    pub fn new(
        issuer: &str,
        source: IntrospectionSource,
        timing: Timing,
        clock: Clock,
    ) -> Result<Self, SourceError> {
        let endpoint = source.url.as_deref().map(fetch::address).transpose()?;
        if endpoint.is_none() {
            fetch::discovery_document(issuer, false)?;
        }
        Ok(Self {
            issuer: issuer.to_owned(),
            source,
            endpoint,
            discovered: Mutex::default(),
            client: ask::builder()
                .build()
                .map_err(|error| SourceError::Client(error.to_string()))?,
            timing,
            clock,
            turns: Semaphore::new(MAX_IN_FLIGHT),
            away_until: AtomicU64::new(0),
            quiet_until: AtomicU64::new(0),
            answered_at: AtomicU64::new(0),
            asked: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            answers: AtomicBool::new(true),
        })
    }

    /// Questions asked, and how many of them brought no answer.
    #[must_use]
    pub fn questions(&self) -> (u64, u64) {
        (self.asked.load(Relaxed), self.failed.load(Relaxed))
    }

    /// Whether it answered when it was last asked something that it takes; so it is taken for before it ever was.
    #[must_use]
    pub fn answers(&self) -> bool {
        self.answers.load(Relaxed)
    }

    /// Waits for leave to ask, at most [`Timing::timeout`]; none where that is over or the issuer is out of reach. Whoever waited
    /// looks first whether another's answer will do. Cancellation-safe.
    pub async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        let turn = tokio::time::timeout(self.timing.timeout, self.turns.acquire()).await;
        // Looked at behind the wait: those who waited for it need not find it out each for themselves.
        (self.now() >= self.away_until.load(Relaxed)).then(|| turn.ok()?.ok())?
    }

    /// Asks about `token`; none where no answer came, which is logged. Takes at most [`Timing::timeout`]. Cancellation-safe.
    pub async fn ask(&self, turn: SemaphorePermit<'_>, token: &str) -> Option<Introspected> {
        let asked_at = self.now();
        let answer = tokio::time::timeout(self.timing.timeout, self.question(token)).await;
        drop(turn);
        self.asked.fetch_add(1, Relaxed);
        let answer = answer.unwrap_or(Err(FetchError::TimedOut.into()));
        // A 400 is about what was asked, which a stranger may have made up, and says nothing of who was asked.
        if !matches!(answer, Err(Unanswered::Fetch(FetchError::Status(400)))) {
            self.answers.store(answer.is_ok(), Relaxed);
        }
        let error = match answer {
            Ok(answer) => {
                self.answered_at.store(self.now(), Relaxed);
                return Some(answer);
            }
            Err(error) => error,
        };
        self.failed.fetch_add(1, Relaxed);
        let retry = self.now() + millis(self.timing.retry_first);
        // Only where nobody can be asked: what a made-up token brought, be it that the connection was cut, must not keep others from
        // asking. Nothing in all the time that an answer may take is about more than one token, unless others had theirs meanwhile.
        let away = match error {
            Unanswered::Fetch(FetchError::Unreachable(_))
            | Unanswered::Ask(AskError::Unreachable(_)) => true,
            Unanswered::Fetch(FetchError::TimedOut) => self.answered_at.load(Relaxed) <= asked_at,
            _ => false,
        };
        if away {
            self.away_until.store(retry, Relaxed);
        }
        if self.quiet_until.fetch_max(retry, Relaxed) <= self.now() {
            tracing::warn!(issuer = self.issuer, %error, "cannot ask the issuer about tokens");
        }
        None
    }

    fn now(&self) -> u64 {
        millis(self.clock.monotonic())
    }

    async fn question(&self, token: &str) -> Result<Introspected, Unanswered> {
        let endpoint = self.endpoint().await?;
        let credentials = self.credentials().await?;
        // RFC 7662, 2.1. The token is a secret too, but one that its sender gave away.
        let form = form_urlencoded::Serializer::new(String::new())
            .append_pair("token", token)
            .append_pair("token_type_hint", "access_token")
            .finish();
        let question = self
            .client
            .post(endpoint)
            .header("content-type", "application/x-www-form-urlencoded")
            .header("authorization", credentials)
            .body(form);
        match ask::ask(question, MAX_ANSWER_BYTES).await? {
            (200, answer) => Ok(Introspected::parse(&answer)?),
            (status, _) => Err(FetchError::Status(status).into()),
        }
    }

    async fn endpoint(&self) -> Result<Url, Unanswered> {
        if let Some(endpoint) = &self.endpoint {
            return Ok(endpoint.clone());
        }
        let mut discovered = self.discovered.lock().await;
        let now = self.clock.monotonic();
        if let Some((endpoint, at)) = &*discovered
            && now < *at + self.timing.refresh_every
        {
            return Ok(endpoint.clone());
        }
        let fetched = fetch::introspection_endpoint(&self.client, &self.issuer).await;
        let endpoint = match (fetched, &*discovered) {
            (Ok(endpoint), _) => endpoint.ok_or(Unanswered::NoEndpoint)?,
            // Where it was asked before it can be asked still: that it is gone, it would say itself.
            (Err(_), Some((known, _))) => known.clone(),
            (Err(error), None) => return Err(error.into()),
        };
        *discovered = Some((endpoint.clone(), now));
        Ok(endpoint)
    }

    async fn credentials(&self) -> Result<HeaderValue, Unanswered> {
        let source = self.source.client_secret.clone();
        let secret = tokio::task::spawn_blocking(move || source.read())
            .await
            .map_err(|_| Unanswered::SecretGone)??;
        let basic = oauth2::basic(&self.source.client_id, &secret);
        ask::header(&basic).ok_or(Unanswered::SecretGone)
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
