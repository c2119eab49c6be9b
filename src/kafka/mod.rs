//! Kafka: publishing the log and reading it back, the control log that replicas share, and alerts.

use std::{collections::BTreeMap, fmt};

use crate::audit::{AUDIT_TOPIC, CHECKPOINT_TOPIC};

pub mod alerts;
pub mod control;
pub mod heir;
pub mod publisher;
pub mod reader;
mod said;
pub mod sealed;

/// How to reach Kafka.
#[derive(Clone, PartialEq, Eq)]
pub struct KafkaOptions {
    /// `host:port`, several separated by commas.
    pub brokers: String,
    /// Topic of the records.
    pub topic: String,
    /// Topic of the checkpoints.
    pub checkpoint_topic: String,
    /// Whether a start in an empty directory reads the topic for what this replica wrote before, and goes on behind that.
    pub take_over: bool,
    /// Further librdkafka properties, such as `security.protocol` and `sasl.mechanism`. May hold secrets.
    pub extra: BTreeMap<String, String>,
}

impl KafkaOptions {
    /// The default topics on these brokers.
    #[must_use]
    pub fn new(brokers: impl Into<String>) -> Self {
        Self {
            brokers: brokers.into(),
            topic: AUDIT_TOPIC.to_owned(),
            checkpoint_topic: CHECKPOINT_TOPIC.to_owned(),
            take_over: false,
            extra: BTreeMap::new(),
        }
    }
}

impl fmt::Debug for KafkaOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let extra: Vec<&String> = self.extra.keys().collect();
        f.debug_struct("KafkaOptions")
            .field("brokers", &self.brokers)
            .field("topic", &self.topic)
            .field("checkpoint_topic", &self.checkpoint_topic)
            .field("take_over", &self.take_over)
            .field("extra", &extra)
            .finish()
    }
}
