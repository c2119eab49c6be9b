//! Publishes the log to Kafka, in order, at least once.
//!
//! Promises: every durable record reaches the topic, however long the brokers are away; the cursor moves only over a
//! contiguous prefix that Kafka has acknowledged; nothing waits for it but the disk's cap. Never does: trust a flush or a
//! producer's queue: what was not acknowledged is read from the log again. After a failed delivery the producer is thrown
//! away and everything from the cursor is sent again, so consumers drop the (chain, seq) they have seen. A checkpoint is
//! sent once all it covers was acknowledged.
//!
//! Messages: key is the chain id in hex, value the record's bytes verbatim (or the signed note), headers those of the
//! CloudEvents Kafka binding in binary mode.

use std::{
    path::Path,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use rdkafka::{ClientConfig, producer::BaseProducer};
use tokio::sync::watch;

use super::KafkaOptions;
use crate::audit::ChainId;

mod republish;
mod run;

pub use republish::{From, RepublishError, Republished, republish};
use run::{Kept, Run};

/// Properties our promises rest on.
const OURS: [&str; 7] = [
    "bootstrap.servers",
    "acks",
    "request.required.acks",
    "enable.idempotence",
    "max.in.flight",
    "max.in.flight.requests.per.connection",
    "transactional.id",
];

/// Why the publisher cannot start.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublisherError {
    /// A property that the publisher's promises rest on.
    #[error("the kafka property `{0}` is countersign's own and cannot be set")]
    Ours(String),
    /// What the client library says of the options.
    #[error("kafka options: {0}")]
    Options(String),
    /// No thread to be had.
    #[error("the system gave no thread")]
    Thread,
}

/// How far the chain being written is on disk.
#[derive(Debug)]
pub struct Live {
    chain: ChainId,
    synced: AtomicU64,
    /// The last checkpoint signed anew over records that one in the log's own file covers: sent once, where it can be.
    idle: Mutex<Option<String>>,
    woken: Mutex<bool>,
    wake: Condvar,
}

impl Live {
    /// A chain of which nothing is on disk yet.
    #[must_use]
    pub fn new(chain: ChainId) -> Self {
        Self {
            chain,
            synced: AtomicU64::new(0),
            idle: Mutex::new(None),
            woken: Mutex::new(false),
            wake: Condvar::new(),
        }
    }

    /// The first `synced` records are on disk.
    pub fn advance(&self, synced: u64) {
        if self.synced.swap(synced, Ordering::Release) != synced {
            self.wake();
        }
    }

    /// A checkpoint was signed of a log that has not grown.
    pub fn idle(&self, note: String) {
        *lock(&self.idle) = Some(note);
        self.wake();
    }

    /// There is something to look at.
    pub fn wake(&self) {
        *lock(&self.woken) = true;
        self.wake.notify_one();
    }

    fn synced(&self) -> u64 {
        self.synced.load(Ordering::Acquire)
    }

    fn wait(&self, at_most: Duration) {
        let woken = lock(&self.woken);
        let waited = self
            .wake
            .wait_timeout_while(woken, at_most, |woken| !*woken);
        *waited.map_or_else(|poisoned| poisoned.into_inner().0, |(woken, _)| woken) = false;
    }
}

/// How far publishing is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Published {
    /// Records on disk that Kafka has not acknowledged.
    pub lag_records: u64,
    /// Age of the oldest of them.
    pub oldest_unacked_age: Option<Duration>,
    /// Producers thrown away after a failure.
    pub restarts: u64,
    /// The last failure, until the next success; of the client library's wording.
    pub error: Option<String>,
}

#[derive(Debug, Default)]
struct Status {
    published: Published,
    /// Records of the live chain that were acknowledged, and of older ones those that were not.
    acknowledged: watch::Sender<u64>,
    older: u64,
    oldest: Option<Timestamp>,
    stop_at: Option<Instant>,
}

/// Options that the client library accepts.
#[derive(Debug)]
pub struct Prepared {
    options: KafkaOptions,
    config: ClientConfig,
}

impl Prepared {
    /// Checks the options; does not look whether a broker answers.
    ///
    /// # Errors
    /// [`PublisherError::Ours`], [`PublisherError::Options`].
    pub fn new(options: KafkaOptions, replica: &str) -> Result<Self, PublisherError> {
        let config = config(&options, replica)?;
        // Made and dropped: whether the library takes them.
        let tried: Result<BaseProducer, _> = config.create();
        tried.map_err(|error| PublisherError::Options(error.to_string()))?;
        Ok(Self { options, config })
    }
}

/// A handle to the publisher's thread.
#[derive(Debug)]
pub struct Publisher {
    status: Arc<Mutex<Status>>,
    live: Arc<Live>,
    finished: watch::Receiver<()>,
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.stop(Duration::ZERO);
    }
}

impl Publisher {
    /// Starts publishing the chains of ledger directory `dir`, from where the last process was. That no broker answers is
    /// no error.
    ///
    /// # Errors
    /// [`PublisherError::Thread`].
    pub fn start(
        prepared: Prepared,
        dir: &Path,
        deployment: &str,
        replica: &str,
        live: Arc<Live>,
    ) -> Result<Self, PublisherError> {
        let status = Arc::new(Mutex::new(Status::default()));
        let (finish, finished) = watch::channel(());
        let source = format!("countersign/{deployment}/{replica}");
        let mut run = Run::new(
            prepared,
            dir.to_owned(),
            source,
            Arc::clone(&live),
            Arc::clone(&status),
            Kept::File,
        );
        thread::Builder::new()
            .name("publisher".to_owned())
            .spawn(move || {
                run.run();
                drop(finish);
            })
            .map_err(|_| PublisherError::Thread)?;
        Ok(Self {
            status,
            live,
            finished,
        })
    }

    /// How far publishing is.
    #[must_use]
    pub fn published(&self) -> Published {
        let status = lock(&self.status);
        let mut published = status.published.clone();
        published.lag_records = status.older
            + self
                .live
                .synced()
                .saturating_sub(*status.acknowledged.borrow());
        published.oldest_unacked_age = status.oldest.map(|oldest| {
            Duration::try_from(wall().duration_since(oldest)).unwrap_or(Duration::ZERO)
        });
        published
    }

    /// Resolves when Kafka has acknowledged the first `records` of the live chain; never, where it will not.
    pub async fn acknowledged(&self, records: u64) {
        let mut acknowledged = lock(&self.status).acknowledged.subscribe();
        if acknowledged
            .wait_for(|so_far| *so_far >= records)
            .await
            .is_err()
        {
            std::future::pending().await
        }
    }

    /// Asks it to end as soon as everything on disk was acknowledged, after `at_most` in any case.
    pub fn stop(&self, at_most: Duration) {
        lock(&self.status).stop_at = Some(now() + at_most);
        self.live.wake();
    }

    /// Resolves when it has ended.
    pub async fn finished(&self) {
        let mut finished = self.finished.clone();
        while finished.changed().await.is_ok() {}
    }
}

pub(super) fn config(
    options: &KafkaOptions,
    replica: &str,
) -> Result<ClientConfig, PublisherError> {
    let mut config = ClientConfig::new();
    for (name, value) in [
        ("delivery.timeout.ms", "120000"),
        ("queue.buffering.max.messages", "10000"),
        ("linger.ms", "5"),
        ("compression.type", "lz4"),
        ("partitioner", "murmur2"),
        ("reconnect.backoff.max.ms", "1000"),
    ] {
        config.set(name, value);
    }
    config.set("client.id", format!("countersign-{replica}"));
    for (name, value) in &options.extra {
        if OURS.contains(&name.as_str()) {
            return Err(PublisherError::Ours(name.clone()));
        }
        config.set(name, value);
    }
    config.set("bootstrap.servers", &options.brokers);
    config.set("acks", "all");
    config.set("enable.idempotence", "true");
    config.set("max.in.flight", "5");
    Ok(config)
}

#[allow(
    clippy::disallowed_methods,
    reason = "this thread waits for the network, in real time"
)]
fn now() -> Instant {
    Instant::now()
}

#[allow(
    clippy::disallowed_methods,
    reason = "how old the oldest record is, and when a checkpoint was sent"
)]
fn wall() -> Timestamp {
    Timestamp::now()
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
