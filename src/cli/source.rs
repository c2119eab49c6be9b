//! Where `verify` and `tail` read from.

use std::{collections::BTreeMap, path::PathBuf};

use clap::Args;

use crate::{
    audit::{AUDIT_TOPIC, CHECKPOINT_TOPIC},
    kafka::KafkaOptions,
};

/// A ledger directory or a topic.
#[derive(Args, Debug)]
pub struct SourceArgs {
    /// The ledger's directory, or a copy of it; it may be being written.
    #[arg(long, value_name = "DIR", conflicts_with = "brokers")]
    pub dir: Option<PathBuf>,
    /// Kafka brokers, `host:port`, separated by commas.
    #[arg(long, value_name = "BROKERS")]
    pub brokers: Option<String>,
    /// The topic of the records.
    #[arg(long, default_value = AUDIT_TOPIC, requires = "brokers")]
    pub topic: String,
    /// The topic of the signed checkpoints.
    #[arg(long, default_value = CHECKPOINT_TOPIC, requires = "brokers")]
    pub checkpoint_topic: String,
    /// A librdkafka property, such as `security.protocol=SASL_SSL`; may be repeated.
    #[arg(long = "kafka-property", value_name = "NAME=VALUE", value_parser = property, requires = "brokers")]
    pub properties: Vec<(String, String)>,
}

/// Which of the two.
#[derive(Debug)]
pub enum Source {
    /// A directory.
    Dir(PathBuf),
    /// A topic.
    Topic(KafkaOptions),
}

impl SourceArgs {
    /// Which of the two was given.
    ///
    /// # Errors
    /// Where none was.
    pub fn source(self) -> anyhow::Result<Source> {
        match (self.dir, self.brokers) {
            (_, Some(brokers)) => Ok(Source::Topic(KafkaOptions {
                brokers,
                topic: self.topic,
                checkpoint_topic: self.checkpoint_topic,
                take_over: false,
                extra: self.properties.into_iter().collect::<BTreeMap<_, _>>(),
            })),
            (Some(dir), None) => Ok(Source::Dir(dir)),
            (None, None) => anyhow::bail!("say where the log is: --dir DIR or --brokers BROKERS"),
        }
    }
}

fn property(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("expected `name=value`")?;
    Ok((name.to_owned(), value.to_owned()))
}
