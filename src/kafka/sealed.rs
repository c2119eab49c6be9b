//! Sends sealed payloads to their topic, in the order they were kept, at least once.
//!
//! Promises: only ciphertext is sent, never wrapped keys, so that an erasure on the gateway's disk makes the topic's copies
//! unreadable too; the cursor moves over what Kafka has acknowledged. Never does: hold anything up: what is sealed waits on disk
//! while no broker answers. After a failed delivery the batch is sent again by a new producer, so consumers drop the (session,
//! piece) they have seen.
//!
//! Messages: key is the session, value the piece's ciphertext, headers those of the CloudEvents Kafka binding in binary mode.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use rdkafka::{
    ClientConfig, ClientContext,
    config::{FromClientConfigAndContext, RDKafkaLogLevel},
    error::KafkaError,
    message::{DeliveryResult, Header, OwnedHeaders},
    producer::{BaseProducer, BaseRecord, Producer as _, ProducerContext},
};

use super::{
    KafkaOptions,
    publisher::{self, PublisherError},
    said,
};
use crate::{
    audit::seal::{Frame, FrameKind},
    store::sealed,
};

/// What its client is called in the log.
const CLIENT: &str = "sealed payloads";
/// Bytes of ciphertext sent before all of it must be acknowledged.
const BATCH_BYTES: usize = 8 << 20;
/// How often the disk is looked at while nothing new is there.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Wait before a new producer after a failure.
const BACK_OFF: Duration = Duration::from_secs(1);
/// How long a batch is waited for; its delivery timeout is shorter.
const PATIENCE: Duration = Duration::from_secs(150);

/// A handle to the thread; dropping it ends the thread.
#[derive(Debug)]
pub struct SealedPublisher {
    stop: Arc<Stop>,
}

#[derive(Debug, Default)]
struct Stop {
    now: Mutex<bool>,
    told: std::sync::Condvar,
}

impl Stop {
    /// Waits; whether it is over.
    fn wait(&self, at_most: Duration) -> bool {
        let now = publisher::lock(&self.now);
        let waited = self.told.wait_timeout_while(now, at_most, |now| !*now);
        *waited.map_or_else(|poisoned| poisoned.into_inner().0, |(now, _)| now)
    }
}

impl Drop for SealedPublisher {
    fn drop(&mut self) {
        *publisher::lock(&self.stop.now) = true;
        self.stop.told.notify_all();
    }
}

impl SealedPublisher {
    /// Starts sending what is kept in `dir` to `topic`, from where the last process was. `source` is who sends. That no broker
    /// answers is no error.
    ///
    /// # Errors
    /// [`PublisherError`].
    pub fn start(
        options: &KafkaOptions,
        topic: &str,
        dir: &Path,
        replica: &str,
        source: String,
    ) -> Result<Self, PublisherError> {
        let config = publisher::config(options, replica)?;
        let stop = Arc::new(Stop::default());
        let run = Run {
            config,
            topic: topic.to_owned(),
            dir: dir.to_owned(),
            source,
            stop: stop.clone(),
        };
        thread::Builder::new()
            .name("sealed".to_owned())
            .spawn(move || run.run())
            .map_err(|_| PublisherError::Thread)?;
        Ok(Self { stop })
    }
}

/// Counts delivery reports.
#[derive(Clone, Debug, Default)]
struct Reports(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    delivered: AtomicUsize,
    failed: AtomicUsize,
}

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        said::log(CLIENT, level, facility, text);
    }

    fn error(&self, _: KafkaError, reason: &str) {
        said::error(CLIENT, reason);
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let count = match result {
            Ok(_) => &self.0.delivered,
            Err(_) => &self.0.failed,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }
}

struct Run {
    config: ClientConfig,
    topic: String,
    dir: PathBuf,
    source: String,
    stop: Arc<Stop>,
}

impl Run {
    fn run(self) {
        let mut troubled = false;
        loop {
            let pause = match self.send_all() {
                Ok(true) => LOOK_EVERY,
                Ok(false) => return,
                Err(error) => {
                    if !troubled {
                        tracing::warn!(%error, "sealed payloads cannot be sent to kafka; they wait on disk");
                    }
                    troubled = true;
                    BACK_OFF
                }
            };
            if troubled && pause == LOOK_EVERY {
                tracing::info!("sealed payloads are sent to kafka again");
                troubled = false;
            }
            if self.stop.wait(pause) {
                return;
            }
        }
    }

    /// Sends what is there; false where it is over.
    fn send_all(&self) -> Result<bool, String> {
        let mut at = sealed::published(&self.dir).map_err(|error| error.to_string())?;
        let mut producer = None;
        loop {
            let (frames, past) =
                sealed::next(&self.dir, at, BATCH_BYTES).map_err(|error| error.to_string())?;
            if past == at {
                return Ok(true);
            }
            if !frames.is_empty() {
                if producer.is_none() {
                    let context = Reports::default();
                    let made = BaseProducer::from_config_and_context(&self.config, context);
                    producer = Some(made.map_err(|error| error.to_string())?);
                }
                if let Some(producer) = &producer
                    && !self.send(producer, &frames)?
                {
                    return Ok(false);
                }
            }
            // A crash before this line sends the batch again.
            sealed::set_published(&self.dir, past).map_err(|error| error.to_string())?;
            at = past;
        }
    }

    /// Sends a batch and waits until all of it is acknowledged; false where it is over first.
    fn send(&self, producer: &BaseProducer<Reports>, frames: &[Frame]) -> Result<bool, String> {
        let counts = &producer.context().0;
        let before = counts.delivered.load(Ordering::Relaxed);
        let mut sent = 0;
        for frame in frames {
            let FrameKind::Piece(piece) = frame.kind else {
                continue;
            };
            let headers = self.headers(&frame.session, piece);
            let mut record = BaseRecord::<str, [u8]>::to(&self.topic)
                .key(frame.session.as_str())
                .payload(frame.body.as_slice())
                .headers(headers);
            while let Err((error, back)) = producer.send(record) {
                if error
                    != KafkaError::MessageProduction(rdkafka::types::RDKafkaErrorCode::QueueFull)
                {
                    return Err(error.to_string());
                }
                record = back;
                producer.poll(Duration::from_millis(50));
            }
            sent += 1;
        }
        let until = now() + PATIENCE;
        while counts.delivered.load(Ordering::Relaxed) - before < sent {
            producer.poll(Duration::from_millis(50));
            if counts.failed.load(Ordering::Relaxed) > 0 {
                return Err("a delivery failed".to_owned());
            }
            if now() > until {
                return Err("kafka did not acknowledge in time".to_owned());
            }
            if *publisher::lock(&self.stop.now) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn headers(&self, session: &str, piece: u32) -> OwnedHeaders {
        let id = format!("{session}/{piece}");
        [
            ("ce_specversion", "1.0"),
            ("ce_id", id.as_str()),
            ("ce_source", self.source.as_str()),
            ("ce_type", "countersign.sealed.v1"),
            ("content-type", "application/octet-stream"),
        ]
        .into_iter()
        .fold(OwnedHeaders::new(), |headers, (key, value)| {
            headers.insert(Header {
                key,
                value: Some(value),
            })
        })
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "this thread waits for the network, in real time"
)]
fn now() -> Instant {
    Instant::now()
}
