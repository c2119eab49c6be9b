#![allow(
    clippy::disallowed_methods,
    reason = "tests wait for threads and processes, in real time"
)]

use std::collections::BTreeMap;

use rdkafka::{
    mocking::MockCluster,
    producer::DefaultProducerContext,
    types::{RDKafkaApiKey, RDKafkaRespErr},
};

use super::*;
use crate::{
    audit::{
        Durability,
        record::{Closed, Entry, Event},
        verify::{Holder, Order, Report, Verdict, Verifier},
    },
    kafka::reader::{Message, TopicReader},
    runtime::ledger::{Ledger, LedgerError, LedgerOptions},
    store::{cursor, layout, testing},
};

type Cluster = MockCluster<'static, DefaultProducerContext>;

fn cluster() -> (Cluster, KafkaOptions) {
    let cluster = Cluster::new(1).unwrap();
    let mut options = KafkaOptions::new(cluster.bootstrap_servers());
    cluster.create_topic(&options.topic, 3, 1).unwrap();
    cluster
        .create_topic(&options.checkpoint_topic, 1, 1)
        .unwrap();
    options.extra = BTreeMap::from([
        ("reconnect.backoff.ms".into(), "10".into()),
        ("reconnect.backoff.max.ms".into(), "50".into()),
    ]);
    (cluster, options)
}

fn ledger(dir: &Path, kafka: &KafkaOptions) -> Ledger {
    let mut options = LedgerOptions::new(dir, "demo", "a");
    options.kafka = Some(kafka.clone());
    options.checkpoint_interval = Duration::from_millis(20);
    options.segment_bytes = 10_000;
    Ledger::open(options).unwrap()
}

async fn append(ledger: &Ledger, count: usize) {
    for n in 0..count {
        let event = Event::Closed(Box::new(Closed {
            outcome: "completed".into(),
            ..Closed::default()
        }));
        let entry = Entry {
            session: format!("s-{n}"),
            event,
        };
        ledger.append(entry, Durability::Spool).await.unwrap();
    }
}

async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(
            start.elapsed() < Duration::from_secs(60),
            "never came: {what}"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn published(ledger: &Ledger) -> Published {
    ledger.health().published.unwrap()
}

async fn until_all_published(ledger: &Ledger) {
    until("all is published", || {
        let health = ledger.health();
        health.synced == health.records
            && health
                .published
                .is_some_and(|published| published.lag_records == 0)
    })
    .await;
}

async fn messages(kafka: &KafkaOptions, topic: &str) -> Vec<Message> {
    let (kafka, topic) = (kafka.clone(), topic.to_owned());
    tokio::task::spawn_blocking(move || {
        let mut reader = TopicReader::open(&kafka, &topic).unwrap();
        let mut messages = Vec::new();
        while let Some(message) = reader.next_until_end().unwrap() {
            messages.push(message);
        }
        messages
    })
    .await
    .unwrap()
}

async fn verify(kafka: &KafkaOptions) -> Report {
    let mut verifier = Verifier::new(Order::Resent, Vec::new());
    for message in messages(kafka, &kafka.checkpoint_topic).await {
        verifier
            .checkpoint(std::str::from_utf8(&message.bytes).unwrap(), Holder::Inside)
            .unwrap();
    }
    for message in messages(kafka, &kafka.topic).await {
        verifier.record(
            message.chain.unwrap(),
            message.seq.unwrap(),
            &message.bytes,
            message.record_hash,
        );
    }
    verifier.finish()
}

fn assert_sound(report: &Report, records: u64) {
    assert_eq!(report.verdict(), Verdict::Unanchored, "{:?}", report.faults);
    assert_eq!(report.records(), records);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_reaches_the_topic_verbatim_in_order_with_its_checkpoints() {
    let ((_cluster, kafka), dir) = (cluster(), testing::dir());
    let ledger = ledger(dir.path(), &kafka);
    append(&ledger, 99).await;
    ledger.shutdown(0).await.unwrap();
    let report = verify(&kafka).await;
    assert_sound(&report, 101);
    assert!(report.checkpoints >= 1);
    let messages = messages(&kafka, &kafka.topic).await;
    let seqs: Vec<u64> = messages
        .iter()
        .map(|message| message.seq.unwrap())
        .collect();
    assert_eq!(seqs, (0..101).collect::<Vec<_>>());
    assert!(
        messages
            .iter()
            .all(|message| message.place.0 == messages[0].place.0),
        "one chain, one partition"
    );
    assert!(messages.iter().all(|message| message.record_hash.is_some()));
    let path = layout::chains(dir.path()).unwrap()[0].checkpoints();
    let last = crate::store::checkpoints::last(&path).unwrap().unwrap();
    let published = self::messages(&kafka, &kafka.checkpoint_topic)
        .await
        .pop()
        .unwrap();
    assert_eq!(String::from_utf8(published.bytes).unwrap(), last.1);
    assert_eq!(cursor::load(dir.path()).unwrap().unwrap().seq, 101);
}

#[tokio::test(flavor = "multi_thread")]
async fn brokers_that_are_away_block_nothing_and_lose_nothing() {
    let ((cluster, kafka), dir) = (cluster(), testing::dir());
    cluster.broker_down(1).unwrap();
    let ledger = ledger(dir.path(), &kafka);
    append(&ledger, 50).await;
    until("the lag shows", || published(&ledger).lag_records == 51).await;
    until("the oldest is seen", || {
        published(&ledger).oldest_unacked_age.is_some()
    })
    .await;
    cluster.broker_up(1).unwrap();
    until_all_published(&ledger).await;
    cluster.broker_down(1).unwrap();
    append(&ledger, 50).await;
    cluster.broker_up(1).unwrap();
    until_all_published(&ledger).await;
    assert_eq!(published(&ledger).oldest_unacked_age, None);
    assert_sound(&verify(&kafka).await, 101);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_asked_to_be_on_kafka_is_there_when_it_is_acknowledged() {
    let ((cluster, kafka), dir) = (cluster(), testing::dir());
    let ledger = ledger(dir.path(), &kafka);
    let entry = |n: u32| Entry {
        session: format!("s-{n}"),
        event: Event::Closed(Box::default()),
    };
    for n in 0..20 {
        let receipt = ledger.append(entry(n), Durability::Kafka).await.unwrap();
        let there = messages(&kafka, &kafka.topic).await;
        assert!(there.iter().any(|m| m.seq == Some(receipt.seq)), "{n}");
    }
    cluster.broker_down(1).unwrap();
    let (lost, kept) = tokio::join!(
        ledger.append(entry(100), Durability::Kafka),
        ledger.append(entry(101), Durability::Disk)
    );
    assert_eq!(lost, Err(LedgerError::Unavailable));
    assert!(
        kept.is_ok(),
        "who asked for the disk does not wait for Kafka"
    );
    cluster.broker_up(1).unwrap();
    until_all_published(&ledger).await;
    assert!(ledger.append(entry(102), Durability::Kafka).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn records_that_time_out_are_sent_again_from_the_log() {
    let ((cluster, mut kafka), dir) = (cluster(), testing::dir());
    kafka
        .extra
        .insert("delivery.timeout.ms".into(), "2000".into());
    cluster.broker_down(1).unwrap();
    let ledger = ledger(dir.path(), &kafka);
    append(&ledger, 30).await;
    until("a delivery fails", || published(&ledger).restarts > 0).await;
    append(&ledger, 30).await;
    cluster.broker_up(1).unwrap();
    until_all_published(&ledger).await;
    assert_sound(&verify(&kafka).await, 61);
    assert_eq!(published(&ledger).error, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fatal_error_is_survived_by_a_new_producer() {
    let ((cluster, kafka), dir) = (cluster(), testing::dir());
    let ledger = ledger(dir.path(), &kafka);
    append(&ledger, 10).await;
    until_all_published(&ledger).await;
    // An idempotent producer cannot go on after this one.
    let fatal = RDKafkaRespErr::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER;
    cluster.request_errors(RDKafkaApiKey::Produce, &[fatal; 3]);
    append(&ledger, 40).await;
    until("a producer is thrown away", || {
        published(&ledger).restarts > 0
    })
    .await;
    until_all_published(&ledger).await;
    assert_sound(&verify(&kafka).await, 51);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_waits_until_all_it_covers_was_acknowledged() {
    let (cluster, dir) = (Cluster::new(2).unwrap(), testing::dir());
    let mut kafka = KafkaOptions::new(cluster.bootstrap_servers());
    // Records go to a broker that is away, checkpoints to one that is there.
    cluster.create_topic(&kafka.topic, 1, 1).unwrap();
    cluster.create_topic(&kafka.checkpoint_topic, 1, 1).unwrap();
    cluster.partition_leader(&kafka.topic, 0, Some(2)).unwrap();
    cluster
        .partition_leader(&kafka.checkpoint_topic, 0, Some(1))
        .unwrap();
    cluster.broker_down(2).unwrap();
    for (name, value) in [
        ("reconnect.backoff.ms", "10"),
        ("reconnect.backoff.max.ms", "50"),
        ("delivery.timeout.ms", "2000"),
    ] {
        kafka.extra.insert(name.into(), value.into());
    }
    let ledger = ledger(dir.path(), &kafka);
    append(&ledger, 10).await;
    let path = layout::chains(dir.path()).unwrap()[0].checkpoints();
    let signed = || crate::store::checkpoints::last(&path).unwrap().is_some();
    until("a checkpoint is signed", signed).await;
    until("deliveries fail", || published(&ledger).restarts > 0).await;
    assert!(messages(&kafka, &kafka.checkpoint_topic).await.is_empty());
    cluster.broker_up(2).unwrap();
    until_all_published(&ledger).await;
    ledger.shutdown(0).await.unwrap();
    let report = verify(&kafka).await;
    assert_sound(&report, 12);
    assert!(report.checkpoints > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_process_goes_on_where_kafka_had_acknowledged_and_sends_old_chains_first() {
    let ((cluster, kafka), dir) = (cluster(), testing::dir());
    let first = ledger(dir.path(), &kafka);
    append(&first, 20).await;
    until_all_published(&first).await;
    cluster.broker_down(1).unwrap();
    append(&first, 20).await;
    let begun = Instant::now();
    first.shutdown(0).await.unwrap();
    assert!(
        begun.elapsed() < Duration::from_secs(20),
        "shutdown waits no longer than it was told"
    );
    cluster.broker_up(1).unwrap();
    let second = ledger(dir.path(), &kafka);
    append(&second, 5).await;
    until_all_published(&second).await;
    let report = verify(&kafka).await;
    assert_sound(&report, 42 + 6);
    assert!(
        report.repeats <= 20,
        "what was acknowledged is not sent again"
    );
    second.shutdown(0).await.unwrap();
    assert_sound(&verify(&kafka).await, 42 + 7);
}

#[test]
fn what_the_promises_rest_on_cannot_be_configured_away() {
    for name in ["acks", "enable.idempotence", "bootstrap.servers"] {
        let mut options = KafkaOptions::new("localhost:1");
        options.extra.insert(name.into(), "0".into());
        assert_eq!(
            config(&options, "a").unwrap_err(),
            PublisherError::Ours(name.into())
        );
    }
    let mut options = KafkaOptions::new("localhost:1");
    options
        .extra
        .insert("sasl.password".into(), "hunter2".into());
    assert!(!format!("{options:?}").contains("hunter2"));
}
