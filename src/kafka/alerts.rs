//! Alerts to a topic. An alert is a copy of what the log will tell: one that cannot be sent is counted, and waits for nobody.

use rdkafka::{
    ClientConfig,
    error::KafkaError,
    producer::{BaseRecord, ThreadedProducer},
};

use super::{KafkaOptions, said::Said};

/// Alerts on their way, at most; the next is not taken.
const ON_THEIR_WAY: &str = "10000";

/// A producer for the topic of alerts.
pub struct AlertTopic {
    producer: ThreadedProducer<Said>,
    topic: String,
}

impl std::fmt::Debug for AlertTopic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("AlertTopic").field(&self.topic).finish()
    }
}

impl AlertTopic {
    /// A producer for `topic`. Does not wait for the brokers.
    ///
    /// # Errors
    /// Where the options are none that the client library takes.
    pub fn new(options: &KafkaOptions, topic: &str) -> Result<Self, KafkaError> {
        let mut config = ClientConfig::new();
        for (name, value) in &options.extra {
            config.set(name, value);
        }
        let producer = config
            .set("bootstrap.servers", &options.brokers)
            .set("acks", "all")
            .set("linger.ms", "0")
            .set("queue.buffering.max.messages", ON_THEIR_WAY)
            .create_with_context(Said("alerts"))?;
        Ok(Self {
            producer,
            topic: topic.to_owned(),
        })
    }

    /// Takes an alert as JSON, under its id, without waiting; false where it cannot.
    #[must_use]
    pub fn offer(&self, id: &str, alert: &str) -> bool {
        let record: BaseRecord<'_, str, str> = BaseRecord::to(&self.topic);
        self.producer.send(record.key(id).payload(alert)).is_ok()
    }
}
