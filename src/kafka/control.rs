//! The control log of several replicas: a topic with one partition, so that all of them see one order.
//!
//! Promises: only what a key certified by the pinned root has signed is an event, and every replica judges that alike; the log's
//! time is the broker's (`LogAppendTime`); a topic that cannot keep these promises is refused at start, with what is wrong
//! with it; an end that comes nearer, or a topic made anew, is read again from its beginning, and until then nothing counts as
//! known. Never: decides what an event means. A message that was sent may yet land although it was said to have failed: its
//! writer must take it for spent.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use rdkafka::{
    ClientConfig, Message as _, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication},
    consumer::{BaseConsumer, Consumer as _},
    error::{KafkaError, RDKafkaErrorCode},
    message::{Header, Headers as _, OwnedHeaders},
    producer::{BaseRecord, Producer as _, ThreadedProducer},
};

use super::{KafkaOptions, said::Said};
use crate::{
    approval::{
        Envelope, Placed,
        signed::{Certificate, event_in, text_of},
    },
    audit::note::{self, SigningKey, VerifierKey},
};

/// What its clients are called in the log.
const CLIENT: &str = "control log";
/// How long a broker may take to answer a question.
const ANSWER: Duration = Duration::from_secs(5);
/// How often it is looked whether the topic's end is where it should be.
const LOOK: Duration = Duration::from_secs(2);
/// How long one poll may take.
const POLL: Duration = Duration::from_millis(100);
/// How long a message may be on its way to the broker.
const SEND_MS: &str = "8000";
/// How far back is read: the longest life of an approval, twice, how long it is remembered, and a margin.
const BACK: Duration = Duration::from_secs(3 * 86_400);
/// The header that carries the certificate of the key that signed a message.
const CERTIFICATE_HEADER: &str = "certificate";

/// How the topic is reached, and by whom.
#[derive(Clone, Debug)]
pub struct ControlOptions {
    /// How Kafka is reached.
    pub kafka: KafkaOptions,
    /// The topic.
    pub topic: String,
    /// Whose certificates count.
    pub root: VerifierKey,
    /// What this replica signs with.
    pub key: SigningKey,
    /// The root's note about that key.
    pub certificate: String,
    /// The deployment's name.
    pub deployment: String,
    /// This replica's name.
    pub replica: String,
    /// Take a topic that could lose events, as on a laptop; made where there is none.
    pub dev: bool,
}

impl ControlOptions {
    /// The log's name.
    #[must_use]
    pub fn log(&self) -> String {
        format!("{} {}", self.deployment, self.topic)
    }
}

/// Who is told what stands in the log. Called from one thread, in the log's order.
pub trait Sink: Send + Sync + 'static {
    /// The next event. `false` where it shows that the log is not the one it was: it is then read anew.
    fn take(&self, placed: Placed, bytes: &[u8]) -> bool;
    /// All that was taken so far counts for nothing: the log, which ends at this place now, is read from its beginning.
    fn reset(&self, end: u64);
    /// Whether the log can be reached and all that was in it when reading began has been taken.
    fn current(&self, current: bool);
    /// A message at this place was signed by nobody who counts.
    fn forged(&self, offset: u64);
}

/// Why the topic cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ControlTopicError {
    /// The client library.
    #[error("kafka: {0}")]
    Kafka(#[from] KafkaError),
    /// The topic does not exist, or may not be read.
    #[error(
        "there is no topic `{0}`, or it may not be read: make it with one partition, `cleanup.policy=delete`, \
         `message.timestamp.type=LogAppendTime`, three replicas and `min.insync.replicas=2`, or say `dev: true` to have it made"
    )]
    NoTopic(String),
    /// The topic cannot keep the promises.
    #[error("the topic `{topic}` cannot carry approvals: {}", faults.join("; "))]
    Unfit {
        /// The topic.
        topic: String,
        /// What is wrong with it.
        faults: Vec<String>,
    },
    /// The certificate is not the root's, not this replica's, not this key's, or over.
    #[error("the certificate of this replica's key does not count: {0}")]
    Certificate(&'static str),
    /// The thread could not be started.
    #[error("a thread could not be started")]
    Thread,
}

/// A handle to the topic; dropping the last one ends the thread.
pub struct ControlTopic {
    producer: ThreadedProducer<Said>,
    topic: String,
    /// What is signed as the log's name.
    log: String,
    key: SigningKey,
    certificate: String,
    stop: Arc<AtomicBool>,
    suspected: Arc<AtomicBool>,
}

impl std::fmt::Debug for ControlTopic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ControlTopic")
            .field("topic", &self.topic)
            .finish_non_exhaustive()
    }
}

impl ControlTopic {
    /// Checks the topic and follows it from its beginning, telling `sink`. Blocks on the network.
    ///
    /// # Errors
    /// [`ControlTopicError`].
    pub fn open(
        options: &ControlOptions,
        now: Timestamp,
        sink: Arc<dyn Sink>,
    ) -> Result<Self, ControlTopicError> {
        check_certificate(options, now)?;
        let mut config = ClientConfig::new();
        for (name, value) in &options.kafka.extra {
            config.set(name, value);
        }
        config.set("bootstrap.servers", &options.kafka.brokers);
        let consumer: BaseConsumer<Said> = config
            .clone()
            .set("group.id", "countersign-control")
            .set("enable.auto.commit", "false")
            .set("auto.offset.reset", "error")
            .set("allow.auto.create.topics", "false")
            .set("isolation.level", "read_uncommitted")
            .set("fetch.wait.max.ms", "20")
            .set("fetch.error.backoff.ms", "20")
            .create_with_context(Said(CLIENT))?;
        check_topic(&consumer, &config, options)?;
        let producer = config
            .set("acks", "all")
            .set("enable.idempotence", "true")
            .set("linger.ms", "0")
            .set("message.timeout.ms", SEND_MS)
            .create_with_context(Said(CLIENT))?;
        let (stop, suspected) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
        // The same root may serve several deployments: what is signed for one log is nothing in another.
        let log = options.log();
        let mut follower = Follower {
            consumer,
            topic: options.topic.clone(),
            log: log.clone(),
            config: config.clone(),
            options: options.clone(),
            suspected: suspected.clone(),
            next: 0,
            end: 0,
            look_at: instant(),
            known: BTreeMap::new(),
            sink,
        };
        follower.begin()?;
        let stopped = stop.clone();
        thread::Builder::new()
            .name("control-topic".to_owned())
            .spawn(move || follower.run(&stopped))
            .map_err(|_| ControlTopicError::Thread)?;
        Ok(Self {
            producer,
            topic: options.topic.clone(),
            log,
            suspected,
            key: options.key.clone(),
            certificate: options.certificate.clone(),
            stop,
        })
    }

    /// Sends an event; what becomes of it is told by the log alone.
    ///
    /// # Errors
    /// Where it was not even taken in to be sent.
    pub fn send(&self, envelope: &Envelope) -> Result<(), KafkaError> {
        let message = self.key.sign(&text_of(&self.log, envelope));
        let certificate = Header {
            key: CERTIFICATE_HEADER,
            value: Some(&self.certificate),
        };
        let headers = OwnedHeaders::new().insert(certificate);
        let record: BaseRecord<'_, String, String> = BaseRecord::to(&self.topic)
            .partition(0)
            .key(&envelope.nonce)
            .payload(&message)
            .headers(headers);
        self.producer.send(record).map_err(|(error, _)| error)
    }
}

impl ControlTopic {
    /// What was sent did not come back: the topic may not be the one that is followed, so it is read anew.
    pub fn suspect(&self) {
        self.suspected.store(true, Ordering::Release);
    }
}

impl Drop for ControlTopic {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        // What is on its way is given a moment.
        let _ = self.producer.flush(Duration::from_secs(1));
    }
}

fn check_certificate(options: &ControlOptions, now: Timestamp) -> Result<(), ControlTopicError> {
    let root = std::slice::from_ref(&options.root);
    let text = note::open(&options.certificate, root)
        .map_err(|_| ControlTopicError::Certificate("it is not signed by the pinned root"))?;
    let certificate =
        Certificate::read(text).ok_or(ControlTopicError::Certificate("it is no certificate"))?;
    if certificate.replica != options.replica {
        return Err(ControlTopicError::Certificate("it is for another replica"));
    }
    if certificate.key != options.key.verifier().to_string() {
        return Err(ControlTopicError::Certificate("it is for another key"));
    }
    if certificate.until < now {
        return Err(ControlTopicError::Certificate("its time is over"));
    }
    Ok(())
}

fn check_topic(
    consumer: &BaseConsumer<Said>,
    config: &ClientConfig,
    options: &ControlOptions,
) -> Result<(), ControlTopicError> {
    let topic = &options.topic;
    let shape = || -> Result<Option<(usize, usize)>, KafkaError> {
        let metadata = consumer.fetch_metadata(Some(topic), ANSWER)?;
        let found = metadata
            .topics()
            .iter()
            .find(|found| found.name() == topic && found.error().is_none());
        Ok(found
            .filter(|found| !found.partitions().is_empty())
            .map(|found| {
                let replicas = found
                    .partitions()
                    .iter()
                    .map(|part| part.replicas().len())
                    .min();
                (found.partitions().len(), replicas.unwrap_or(0))
            }))
    };
    let admin: AdminClient<Said> = config.create_with_context(Said(CLIENT))?;
    let mut found = shape()?;
    if found.is_none() && options.dev {
        let new = NewTopic::new(topic, 1, TopicReplication::Fixed(1))
            .set("cleanup.policy", "delete")
            .set("message.timestamp.type", "LogAppendTime");
        let made = futures::executor::block_on(
            admin.create_topics([&new], &AdminOptions::new().request_timeout(Some(ANSWER))),
        )?;
        tracing::info!(
            topic,
            ?made,
            "made the control topic, as it is for development"
        );
        // The brokers tell one another of it in their own time.
        for _ in 0..50 {
            found = shape()?;
            if found.is_some() {
                break;
            }
            // Nothing is assigned yet: a wait that ends.
            let _ = consumer.poll(POLL);
        }
    }
    let (partitions, replicas) = found.ok_or_else(|| ControlTopicError::NoTopic(topic.clone()))?;
    let described = futures::executor::block_on(admin.describe_configs(
        [&ResourceSpecifier::Topic(topic)],
        &AdminOptions::new().request_timeout(Some(ANSWER)),
    ))?;
    let entries = described
        .into_iter()
        .flatten()
        .flat_map(|resource| resource.entries);
    let settings: BTreeMap<String, String> = entries
        .filter_map(|entry| Some((entry.name, entry.value?)))
        .collect();
    let faults = unfit(partitions, replicas, &settings, options.dev);
    if faults.is_empty() {
        Ok(())
    } else {
        Err(ControlTopicError::Unfit {
            topic: topic.clone(),
            faults,
        })
    }
}

/// What is wrong with a topic of this shape and these settings.
fn unfit(
    partitions: usize,
    replicas: usize,
    settings: &BTreeMap<String, String>,
    dev: bool,
) -> Vec<String> {
    let mut faults = Vec::new();
    let is = |name: &str| settings.get(name).map_or("", String::as_str);
    if partitions != 1 {
        faults.push(format!(
            "it has {partitions} partitions and not 1, so it has no one order"
        ));
    }
    if is("cleanup.policy") != "delete" {
        faults.push("`cleanup.policy` is not `delete`, so events vanish".to_owned());
    }
    if is("message.timestamp.type") != "LogAppendTime" {
        faults.push(
            "`message.timestamp.type` is not `LogAppendTime`, so deadlines are whoever's"
                .to_owned(),
        );
    }
    let retention: i64 = is("retention.ms").parse().unwrap_or(0);
    if retention != -1 && u64::try_from(retention).unwrap_or(0) < BACK.as_millis() as u64 {
        faults.push(format!("`retention.ms` is below {}", BACK.as_millis()));
    }
    if dev {
        return faults;
    }
    if replicas < 3 {
        faults.push(format!(
            "it has {replicas} replicas and not 3 (or say `dev: true`)"
        ));
    }
    if is("min.insync.replicas").parse::<u32>().unwrap_or(0) < 2 {
        faults.push("`min.insync.replicas` is below 2 (or say `dev: true`)".to_owned());
    }
    if is("unclean.leader.election.enable") == "true" {
        faults.push("`unclean.leader.election.enable` is on (or say `dev: true`)".to_owned());
    }
    faults
}

/// The thread that follows the topic.
struct Follower {
    consumer: BaseConsumer<Said>,
    topic: String,
    log: String,
    config: ClientConfig,
    options: ControlOptions,
    suspected: Arc<AtomicBool>,
    /// The next place to be read.
    next: i64,
    /// The topic's end when reading began: what was there then is known once this is reached.
    end: i64,
    look_at: Instant,
    /// Certificates that were checked, by their text: signatures cost more than the rest together. Bounded.
    known: BTreeMap<String, Certificate>,
    sink: Arc<dyn Sink>,
}

/// Longest certificate, in bytes.
const MAX_CERTIFICATE: usize = 4096;
/// Certificates remembered.
const MAX_KNOWN: usize = 256;

impl Follower {
    /// Reads from as far back as anything can matter.
    fn begin(&mut self) -> Result<(), KafkaError> {
        let (low, high) = self.consumer.fetch_watermarks(&self.topic, 0, ANSWER)?;
        // By the broker's clock, which stamped the messages; how far it is from ours is well within the margin.
        let back = i64::try_from(BACK.as_millis()).unwrap_or(i64::MAX);
        let now = wall().as_millisecond();
        let mut from = TopicPartitionList::new();
        from.add_partition_offset(
            &self.topic,
            0,
            Offset::Offset(now.saturating_sub(back).max(0)),
        )?;
        let found = self.consumer.offsets_for_times(from, ANSWER)?;
        let first = found
            .find_partition(&self.topic, 0)
            .map(|partition| partition.offset());
        let first = match first {
            Some(Offset::Offset(offset)) => offset.max(low),
            _ => high,
        };
        let mut assigned = TopicPartitionList::new();
        assigned.add_partition_offset(&self.topic, 0, Offset::Offset(first))?;
        self.consumer.assign(&assigned)?;
        (self.next, self.end) = (first, high);
        self.sink.reset(u64::try_from(high).unwrap_or(0));
        Ok(())
    }

    fn run(mut self, stop: &AtomicBool) {
        let (mut reached, mut broken) = (true, false);
        while !stop.load(Ordering::Acquire) {
            match self.consumer.poll(POLL) {
                Some(Ok(message)) => {
                    let message = message.detach();
                    self.next = message.offset() + 1;
                    self.message(&message);
                }
                Some(Err(KafkaError::MessageConsumption(
                    RDKafkaErrorCode::OffsetOutOfRange | RDKafkaErrorCode::AutoOffsetReset,
                ))) => {
                    tracing::error!(
                        topic = self.topic,
                        "the control topic is not the one it was; reading it anew"
                    );
                    broken = true;
                }
                Some(Err(error)) => {
                    tracing::warn!(%error, "the control topic");
                }
                None => {}
            }
            broken |= self.suspected.swap(false, Ordering::AcqRel);
            if broken || instant() >= self.look_at {
                (reached, broken) = self.look(broken);
                self.look_at = instant() + LOOK;
            }
            self.sink
                .current(reached && !broken && self.next >= self.end);
        }
    }

    /// Whether the topic can be reached, and whether it must be read anew. Where its end is nearer than what was read, it is
    /// another topic than it was.
    fn look(&mut self, anew: bool) -> (bool, bool) {
        let high = match self.consumer.fetch_watermarks(&self.topic, 0, ANSWER) {
            Ok((_, high)) => high,
            Err(error) => {
                tracing::warn!(%error, "the control topic cannot be reached");
                return (false, anew);
            }
        };
        if !anew && high >= self.next {
            return (true, false);
        }
        self.sink.current(false);
        // It may have been made anew, and otherwise.
        let checked = check_topic(&self.consumer, &self.config, &self.options);
        match checked.and_then(|()| Ok(self.begin()?)) {
            Ok(()) => (true, false),
            Err(error) => {
                tracing::warn!(%error, "the control topic cannot be read anew");
                (false, true)
            }
        }
    }

    fn message(&mut self, message: &rdkafka::message::OwnedMessage) {
        let offset = u64::try_from(message.offset()).unwrap_or(0);
        // Whoever writes may choose any time where the broker does not stamp.
        let at = match message.timestamp() {
            rdkafka::Timestamp::LogAppendTime(ms) => Timestamp::from_millisecond(ms).ok(),
            _ => None,
        };
        let event = at.and_then(|at| {
            let note = message
                .payload()
                .and_then(|bytes| std::str::from_utf8(bytes).ok())?;
            let certificate = self.certificate(message)?;
            let key: VerifierKey = certificate.key.parse().ok()?;
            let text = note::open(note, &[key]).ok()?;
            let bytes = event_in(&self.log, text)?;
            // A replica speaks for itself, and only as long as it may.
            let speaks = Envelope::read(bytes)
                .map_or(true, |envelope| envelope.replica == certificate.replica);
            (speaks && at <= certificate.until).then(|| (at, bytes.to_vec()))
        });
        match event {
            Some((at, bytes)) => {
                if !self.sink.take(Placed { offset, at }, &bytes) {
                    self.suspected.store(true, Ordering::Release);
                }
            }
            None => self.sink.forged(offset),
        }
    }

    /// The certificate that a message carries, where the root has signed it.
    fn certificate(&mut self, message: &rdkafka::message::OwnedMessage) -> Option<Certificate> {
        let headers = message.headers()?;
        let header = headers
            .iter()
            .find(|header| header.key == CERTIFICATE_HEADER)?;
        let text = header.value.filter(|text| text.len() <= MAX_CERTIFICATE)?;
        let text = std::str::from_utf8(text).ok()?;
        if let Some(known) = self.known.get(text) {
            return Some(known.clone());
        }
        let root = std::slice::from_ref(&self.options.root);
        let certificate = note::open(text, root).ok().and_then(Certificate::read)?;
        if self.known.len() >= MAX_KNOWN {
            self.known.clear();
        }
        self.known.insert(text.to_owned(), certificate.clone());
        Some(certificate)
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "a thread of its own, which no test paces"
)]
fn instant() -> Instant {
    Instant::now()
}

#[allow(
    clippy::disallowed_methods,
    reason = "how far back to read is asked for by the time of day"
)]
fn wall() -> Timestamp {
    Timestamp::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(changed: &[(&str, &str)]) -> BTreeMap<String, String> {
        let good = [
            ("cleanup.policy", "delete"),
            ("message.timestamp.type", "LogAppendTime"),
            ("retention.ms", "604800000"),
            ("min.insync.replicas", "2"),
            ("unclean.leader.election.enable", "false"),
        ];
        let all = good.iter().chain(changed);
        all.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn a_topic_that_cannot_keep_the_promises_is_told_what_is_wrong_with_it() {
        assert!(unfit(1, 3, &settings(&[]), false).is_empty());
        assert!(unfit(1, 3, &settings(&[("retention.ms", "-1")]), false).is_empty());
        // Never, not even for development.
        for (partitions, changed) in [
            (2, ("cleanup.policy", "delete")),
            (1, ("cleanup.policy", "compact")),
            (1, ("cleanup.policy", "compact,delete")),
            (1, ("message.timestamp.type", "CreateTime")),
            (1, ("retention.ms", "3600000")),
            (1, ("retention.ms", "nonsense")),
        ] {
            assert_eq!(
                unfit(partitions, 3, &settings(&[changed]), true).len(),
                1,
                "{changed:?}"
            );
        }
        for (replicas, changed) in [
            (1, ("cleanup.policy", "delete")),
            (3, ("min.insync.replicas", "1")),
            (3, ("unclean.leader.election.enable", "true")),
        ] {
            assert_eq!(
                unfit(1, replicas, &settings(&[changed]), false).len(),
                1,
                "{changed:?}"
            );
            assert!(unfit(1, replicas, &settings(&[changed]), true).is_empty());
        }
        assert_eq!(unfit(0, 0, &BTreeMap::new(), false).len(), 6);
    }

    #[test]
    fn a_certificate_counts_for_this_key_of_this_replica_in_its_time() {
        let (root, key) = (
            SigningKey::from_seed("root", &[1; 32]).unwrap(),
            SigningKey::from_seed("a", &[2; 32]).unwrap(),
        );
        let now: Timestamp = "2026-03-01T12:00:00Z".parse().unwrap();
        let certificate = Certificate {
            replica: "a".into(),
            key: key.verifier().to_string(),
            until: "2027-01-01T00:00:00Z".parse().unwrap(),
        };
        let check = |certificate: &Certificate, by: &SigningKey, now| {
            let options = ControlOptions {
                kafka: KafkaOptions::new("unused"),
                topic: "t".into(),
                root: root.verifier().clone(),
                key: key.clone(),
                certificate: by.sign(&certificate.text()),
                deployment: "d".into(),
                replica: "a".into(),
                dev: false,
            };
            check_certificate(&options, now).is_ok()
        };
        assert!(check(&certificate, &root, now));
        assert!(!check(&certificate, &key, now), "signed by itself");
        assert!(!check(
            &certificate,
            &root,
            "2028-01-01T00:00:00Z".parse().unwrap()
        ));
        let other = Certificate {
            replica: "b".into(),
            ..certificate.clone()
        };
        assert!(!check(&other, &root, now));
        let other = Certificate {
            key: root.verifier().to_string(),
            ..certificate
        };
        assert!(!check(&other, &root, now));
    }
}
