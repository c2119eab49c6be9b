//! What librdkafka says of its connections, as lines of our log.

use rdkafka::{
    client::ClientContext, config::RDKafkaLogLevel, consumer::ConsumerContext, error::KafkaError,
    message::DeliveryResult, producer::ProducerContext,
};

/// A client whose words are logged under what it is for. Reports of deliveries are not looked at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Said(pub(super) &'static str);

impl ClientContext for Said {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        log(self.0, level, facility, text);
    }

    fn error(&self, _: KafkaError, reason: &str) {
        error(self.0, reason);
    }
}

impl ConsumerContext for Said {}

impl ProducerContext for Said {
    type DeliveryOpaque = ();

    fn delivery(&self, _: &DeliveryResult<'_>, (): ()) {}
}

/// A line of its log.
pub(super) fn log(client: &'static str, level: RDKafkaLogLevel, facility: &str, text: &str) {
    match level {
        RDKafkaLogLevel::Emerg
        | RDKafkaLogLevel::Alert
        | RDKafkaLogLevel::Critical
        | RDKafkaLogLevel::Error => tracing::error!(client, facility, "kafka: {text}"),
        RDKafkaLogLevel::Warning => tracing::warn!(client, facility, "kafka: {text}"),
        RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => {
            tracing::info!(client, facility, "kafka: {text}");
        }
        RDKafkaLogLevel::Debug => tracing::debug!(client, facility, "kafka: {text}"),
    }
}

/// What is wrong with its connections; it tries again by itself.
pub(super) fn error(client: &'static str, reason: &str) {
    tracing::error!(client, "kafka: {reason}");
}
