//! Reads the topics back, from their beginning.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use rdkafka::{
    ClientConfig, Message as _, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer as _},
    error::{KafkaError, RDKafkaErrorCode},
    message::Headers as _,
};

use super::{KafkaOptions, said::Said};
use crate::audit::{ChainId, Hash, chain::Position};

/// Why a topic cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The client library.
    #[error("kafka: {0}")]
    Kafka(KafkaError),
    /// None of the brokers answered.
    #[error(
        "no broker at {0} answered within {1} seconds: see that one runs there, and that what `--kafka-property` says of TLS and SASL is right"
    )]
    Unreachable(String, u64),
    /// The topic does not exist, or may not be read.
    #[error("there is no topic `{0}`, or it may not be read")]
    NoTopic(String),
    /// Nothing came although the topic has more.
    #[error("kafka sent nothing for {0} seconds, {1} messages are still to come")]
    Silent(u64, i64),
}

// By hand: what the library says is part of the message, and not its cause too.
impl From<KafkaError> for ReadError {
    fn from(error: KafkaError) -> Self {
        Self::Kafka(error)
    }
}

/// A message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Partition and offset.
    pub place: (i32, i64),
    /// The key, if it is a chain id.
    pub chain: Option<ChainId>,
    /// The record's place in its chain, as the headers say, or else as the value says.
    pub seq: Option<u64>,
    /// The record's hash, as the headers say.
    pub record_hash: Option<Hash>,
    /// The value.
    pub bytes: Vec<u8>,
}

/// How long a broker may send nothing although there is more.
const SILENCE: Duration = Duration::from_secs(30);
/// How long it may take to answer a question.
const ANSWER: Duration = Duration::from_secs(10);

/// Reads one topic from its beginning to the end it had when reading began, and further if asked to.
pub struct TopicReader {
    consumer: BaseConsumer<Said>,
    /// The end each partition had, and how far reading is.
    partitions: BTreeMap<i32, (i64, i64)>,
    /// Those that do not begin with offset 0 any more.
    shortened: BTreeSet<i32>,
}

impl std::fmt::Debug for TopicReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TopicReader")
            .field("partitions", &self.partitions)
            .finish_non_exhaustive()
    }
}

impl TopicReader {
    /// A reader of `topic`. Blocks on the network.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn open(options: &KafkaOptions, topic: &str) -> Result<Self, ReadError> {
        let mut config = ClientConfig::new();
        // No group is joined and nothing is committed: reading the evidence leaves no trace on the brokers.
        config
            .set("group.id", "countersign-verify")
            .set("enable.auto.commit", "false");
        config
            .set("auto.offset.reset", "error")
            .set("allow.auto.create.topics", "false");
        for (name, value) in &options.extra {
            config.set(name, value);
        }
        config.set("bootstrap.servers", &options.brokers);
        let consumer: BaseConsumer<Said> = config.create_with_context(Said("reader"))?;
        let metadata = consumer.fetch_metadata(Some(topic), ANSWER);
        let metadata = metadata.map_err(|error| match error.rdkafka_error_code() {
            Some(
                RDKafkaErrorCode::BrokerTransportFailure | RDKafkaErrorCode::OperationTimedOut,
            ) => ReadError::Unreachable(options.brokers.clone(), ANSWER.as_secs()),
            _ => error.into(),
        })?;
        let found = metadata
            .topics()
            .iter()
            .find(|found| found.name() == topic && found.error().is_none());
        let ids: Vec<i32> = found
            .map(|found| found.partitions().iter().map(|part| part.id()).collect())
            .unwrap_or_default();
        if ids.is_empty() {
            return Err(ReadError::NoTopic(topic.to_owned()));
        }
        let (mut partitions, mut from) = (BTreeMap::new(), TopicPartitionList::new());
        let mut shortened = BTreeSet::new();
        for id in ids {
            let (low, high) = consumer.fetch_watermarks(topic, id, ANSWER)?;
            partitions.insert(id, (high, low));
            if low > 0 {
                shortened.insert(id);
            }
            from.add_partition_offset(topic, id, Offset::Offset(low))?;
        }
        consumer.assign(&from)?;
        Ok(Self {
            consumer,
            partitions,
            shortened,
        })
    }

    /// The partitions of which messages from the beginning were deleted, by the broker's retention or by whoever may.
    #[must_use]
    pub fn shortened(&self) -> &BTreeSet<i32> {
        &self.shortened
    }

    /// How many partitions there are.
    #[must_use]
    pub fn partitions(&self) -> u32 {
        u32::try_from(self.partitions.len()).unwrap_or(u32::MAX)
    }

    /// Messages from the beginning to the end seen at the start, and those read of them.
    #[must_use]
    pub fn left(&self) -> i64 {
        self.partitions
            .values()
            .map(|(end, at)| (end - at).max(0))
            .sum()
    }

    /// The next message; `None` once the end seen at the start is reached.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn next_until_end(&mut self) -> Result<Option<Message>, ReadError> {
        let mut silent = Duration::ZERO;
        let step = Duration::from_millis(200);
        while self.left() > 0 {
            if let Some(message) = self.next_within(step)? {
                let (end, _) = self
                    .partitions
                    .get(&message.place.0)
                    .copied()
                    .unwrap_or((0, 0));
                // Newer than the end seen: for another time.
                if message.place.1 < end {
                    return Ok(Some(message));
                }
                continue;
            }
            silent += step;
            if silent >= SILENCE {
                return Err(ReadError::Silent(silent.as_secs(), self.left()));
            }
        }
        Ok(None)
    }

    /// The next message if one comes within `at_most`.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn next_within(&mut self, at_most: Duration) -> Result<Option<Message>, ReadError> {
        let Some(message) = self.consumer.poll(at_most) else {
            self.skip_unread();
            return Ok(None);
        };
        let message = message?;
        let place = (message.partition(), message.offset());
        if let Some((_, at)) = self.partitions.get_mut(&place.0) {
            *at = place.1 + 1;
        }
        let header = |name: &str| {
            let headers = message.headers()?;
            let found = headers.iter().find(|header| header.key == name)?;
            std::str::from_utf8(found.value?).ok().map(str::to_owned)
        };
        let bytes = message.payload().unwrap_or_default().to_vec();
        let chain = message
            .key()
            .and_then(|key| std::str::from_utf8(key).ok()?.parse().ok());
        let by_header = header("ce_id").and_then(|id| id.rsplit_once('/')?.1.parse().ok());
        let seq = by_header.or_else(|| Position::read(&bytes).map(|position| position.seq));
        let record_hash = header("ce_recordhash").and_then(|hash| Hash::from_hex(&hash));
        Ok(Some(Message {
            place,
            chain,
            seq,
            record_hash,
            bytes,
        }))
    }

    /// Offsets without a message (a transaction's marks, compaction) are passed without being seen.
    fn skip_unread(&mut self) {
        let Ok(positions) = self.consumer.position() else {
            return;
        };
        for position in positions.elements() {
            if let (Some((_, at)), Offset::Offset(offset)) = (
                self.partitions.get_mut(&position.partition()),
                position.offset(),
            ) {
                *at = (*at).max(offset);
            }
        }
    }
}
