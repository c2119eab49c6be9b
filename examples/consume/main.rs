//! Reads Countersign's audit topic as a service would: each record once, in the order of its chain, with an alarm where one
//! is missing. `cargo run --example consume -- --brokers HOST:PORT [--topic T] [--until-end]`.
//!
//! The same as `consume.py` beside it: drops what it has seen by (chain, seq), prints each new record, and says GAP, CHANGED
//! or BROKEN on standard error. It uses the library for what a record's hash is, and rdkafka for the rest.

#![allow(
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "an example for the shell"
)]

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io::Write as _,
    process::ExitCode,
    time::Duration,
};

use anyhow::Context as _;
use clap::Parser;
use countersign::audit::{
    ChainId, Hash,
    chain::{Position, record_hash},
};
use rdkafka::{
    ClientConfig, Message as _, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer as _},
    error::KafkaError,
};

/// Hashes kept of each chain's last records, to tell a repeat from a forgery.
const KEPT: u64 = 10_000;

/// Print the audit topic's records, each once.
#[derive(Parser)]
struct Args {
    /// `host:port`, separated by commas.
    #[arg(long)]
    brokers: String,
    /// The topic.
    #[arg(long, default_value = "countersign.audit.v1")]
    topic: String,
    /// Stop at the end the topic has now; exit 1 if there was an alarm.
    #[arg(long)]
    until_end: bool,
}

/// What was seen of one chain.
#[derive(Default)]
struct Seen {
    next: u64,
    head: Hash,
    recent: BTreeMap<u64, Hash>,
}

enum Found {
    New,
    Repeat,
    Alarm(&'static str, String),
}

fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", &args.brokers)
        .set("group.id", "countersign-example-rust")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .create()?;
    let mut open = assign(&consumer, &args.topic)?;
    let mut chains: HashMap<ChainId, Seen> = HashMap::new();
    let mut alarms = 0;
    while !(args.until_end && open.is_empty()) {
        let message = match consumer.poll(Duration::from_secs(1)) {
            None => continue,
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                open.remove(&partition);
                continue;
            }
            Some(message) => message?,
        };
        let record = message.payload().unwrap_or_default();
        let Some(position) = Position::read(record) else {
            eprintln!("FOREIGN a message that is no record was passed over");
            continue;
        };
        let found = chains
            .entry(position.chain)
            .or_insert_with(|| Seen {
                next: position.seq,
                head: position.previous,
                recent: BTreeMap::new(),
            })
            .take(&position, record);
        if let Found::Alarm(what, why) = &found {
            alarms += 1;
            eprintln!(
                "{what} chain {} record {}: {why}",
                position.chain, position.seq
            );
        }
        if matches!(&found, Found::New | Found::Alarm("GAP" | "BROKEN", _)) {
            let mut out = std::io::stdout().lock();
            out.write_all(record)?;
            out.write_all(b"\n")?;
        }
    }
    Ok(ExitCode::from(u8::from(alarms > 0)))
}

/// Reads every partition from its beginning; which there are.
fn assign(consumer: &BaseConsumer, topic: &str) -> anyhow::Result<BTreeSet<i32>> {
    let metadata = consumer.fetch_metadata(Some(topic), Duration::from_secs(10))?;
    let partitions: BTreeSet<i32> = metadata
        .topics()
        .first()
        .context("there is no such topic")?
        .partitions()
        .iter()
        .map(rdkafka::metadata::MetadataPartition::id)
        .collect();
    anyhow::ensure!(!partitions.is_empty(), "there is no topic `{topic}`");
    let mut list = TopicPartitionList::new();
    for partition in &partitions {
        list.add_partition_offset(topic, *partition, Offset::Beginning)?;
    }
    consumer.assign(&list)?;
    Ok(partitions)
}

impl Seen {
    fn take(&mut self, position: &Position<'_>, record: &[u8]) -> Found {
        let seq = position.seq;
        let hash = record_hash(position.chain, seq, position.previous, record);
        if seq < self.next {
            return match self.recent.get(&seq) {
                Some(before) if *before != hash => {
                    Found::Alarm("CHANGED", "it came again with other bytes".into())
                }
                _ => Found::Repeat,
            };
        }
        let found = if seq > self.next {
            Found::Alarm(
                "GAP",
                format!("records {} to {} are missing", self.next, seq - 1),
            )
        } else if position.previous != self.head {
            Found::Alarm("BROKEN", "it does not follow the record before it".into())
        } else {
            Found::New
        };
        (self.next, self.head) = (seq + 1, hash);
        self.recent.insert(seq, hash);
        self.recent.remove(&seq.wrapping_sub(KEPT));
        found
    }
}
