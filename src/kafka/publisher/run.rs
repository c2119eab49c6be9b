//! The publisher's thread: one chain after the other, from the log to the producer, and the cursor behind what came back.

use std::{
    borrow::Cow,
    collections::{BTreeMap, VecDeque},
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use rdkafka::{
    ClientConfig, ClientContext,
    config::{FromClientConfigAndContext, RDKafkaLogLevel},
    error::KafkaError,
    message::{DeliveryResult, Header, OwnedHeaders},
    producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer},
    types::RDKafkaErrorCode,
};
use serde::de::IgnoredAny;

use super::{Live, Prepared, Status, lock, now, wall};
use crate::{
    audit::{
        chain::Position,
        checkpoint::{Checkpoint, notes},
    },
    kafka::{KafkaOptions, said},
    store::{
        cursor::{self, Cursor},
        layout::{self, ChainDir},
        reader::{ChainReader, Step, Stored},
    },
};

/// What its client is called in the log.
const CLIENT: &str = "records";
/// Messages given to the producer and not acknowledged, at most: what its queue holds.
const MAX_FLIGHTS: usize = 10_000;
/// And their bytes.
const MAX_FLIGHT_BYTES: usize = 32 << 20;
/// How often a checkpoint is looked for while records are under way.
const NOTE_EVERY: Duration = Duration::from_millis(20);
/// How long to wait for a report or a record before everything is looked at again.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How often the cursor is written while it moves.
const CURSOR_EVERY: Duration = Duration::from_secs(1);
/// Wait before a new producer after a failure: the first, doubling up to the last.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// What a delivery report is about.
#[derive(Clone, Copy, Debug)]
pub(super) enum Sent {
    Record(u64),
    /// A checkpoint that ends at this byte of its file.
    Checkpoint(u64),
}

/// Collects delivery reports and wakes whoever reads them. Shared with the producer, so that reports made while that is
/// dropped are still read.
#[derive(Clone, Debug)]
pub(super) struct Deliveries {
    reports: Arc<Mutex<Vec<Report>>>,
    live: Arc<Live>,
}

pub(super) type Report = (Sent, Result<(), KafkaError>);

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        said::log(CLIENT, level, facility, text);
    }

    fn error(&self, _: KafkaError, reason: &str) {
        said::error(CLIENT, reason);
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = Box<Sent>;

    fn delivery(&self, result: &DeliveryResult<'_>, sent: Box<Sent>) {
        let result = result
            .as_ref()
            .map(|_| ())
            .map_err(|(error, _)| error.clone());
        lock(&self.reports).push((*sent, result));
        self.live.wake();
    }
}

/// With a thread of its own that polls: `poll` takes all the time it is given, whatever comes meanwhile, so that whoever
/// waits for an acknowledgement would wait for that too.
type Producer = ThreadedProducer<Deliveries>;

fn producer(config: &ClientConfig, live: &Arc<Live>) -> Result<Producer, KafkaError> {
    let deliveries = Deliveries {
        reports: Arc::default(),
        live: Arc::clone(live),
    };
    Producer::from_config_and_context(config, deliveries)
}

/// Where the cursor is between passes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kept {
    /// In its file, for the next process.
    File,
    /// Here only.
    Memory(Cursor),
}

/// The thread's state.
pub(super) struct Run {
    kept: Kept,
    producer: Option<Producer>,
    config: ClientConfig,
    options: KafkaOptions,
    dir: PathBuf,
    source: String,
    live: Arc<Live>,
    status: Arc<Mutex<Status>>,
    back_off: Duration,
    /// Of a chain that another process is writing: no record beyond is sent.
    pub(super) limit: u64,
}

/// A record given to the producer.
struct Flight {
    seq: u64,
    bytes: usize,
    time: Option<Timestamp>,
    acknowledged: bool,
}

/// One chain being published by one producer.
pub(super) struct Pass {
    pub(super) dir: ChainDir,
    reader: ChainReader,
    pub(super) cursor: Cursor,
    written: Cursor,
    written_at: Instant,
    /// Read, but the producer's queue was full.
    pending: Option<Stored>,
    flights: VecDeque<Flight>,
    flight_bytes: usize,
    checkpoint: bool,
    /// When a checkpoint was last looked for.
    noted_at: Option<Instant>,
    /// Records in older chains after this one.
    later: u64,
    ended: bool,
}

pub(super) enum Outcome {
    /// All of the chain is acknowledged, and it is not the live one.
    Done,
    Stop,
    Failed(String),
}

impl Run {
    pub(super) fn new(
        prepared: Prepared,
        dir: PathBuf,
        source: String,
        live: Arc<Live>,
        status: Arc<Mutex<Status>>,
        kept: Kept,
    ) -> Self {
        let Prepared { options, config } = prepared;
        Self {
            kept,
            producer: None,
            config,
            options,
            dir,
            source,
            live,
            status,
            back_off: BACK_OFF.0,
            limit: u64::MAX,
        }
    }

    pub(super) fn run(&mut self) {
        while !self.stopping() {
            match self.next_pass() {
                Ok(Some(mut pass)) => {
                    let outcome = self.publish(&mut pass);
                    let stop = matches!(outcome, Outcome::Stop);
                    self.settle(&mut pass, outcome);
                    if stop {
                        return;
                    }
                }
                Ok(None) => return,
                Err(error) => self.failed(&error.to_string()),
            }
        }
    }

    /// The pass that begins at the cursor: in its chain if there is more of it, else in the one after.
    pub(super) fn next_pass(&self) -> io::Result<Option<Pass>> {
        let chains = layout::chains(&self.dir)?;
        let stored = match self.kept {
            Kept::File => cursor::load(&self.dir)?,
            Kept::Memory(cursor) => Some(cursor),
        };
        let at =
            stored.and_then(|cursor| chains.iter().position(|chain| chain.chain == cursor.chain));
        let Some(dir) = chains.get(at.unwrap_or(0)).cloned() else {
            return Ok(None);
        };
        let cursor = match (at, stored) {
            (Some(_), Some(cursor)) => cursor,
            _ => Cursor {
                chain: dir.chain,
                seq: 0,
                checkpoint_bytes: 0,
            },
        };
        let mut later = 0;
        for chain in chains
            .iter()
            .skip(at.unwrap_or(0) + 1)
            .filter(|chain| chain.chain != self.live.chain)
        {
            later += size(chain)?;
        }
        Ok(Some(Pass {
            reader: ChainReader::near(dir.clone(), cursor.seq)?,
            dir,
            cursor,
            written: cursor,
            written_at: now(),
            pending: None,
            flights: VecDeque::new(),
            flight_bytes: 0,
            checkpoint: false,
            noted_at: None,
            later,
            ended: false,
        }))
    }

    pub(super) fn publish(&mut self, pass: &mut Pass) -> Outcome {
        let producer = match self
            .producer
            .take()
            .map_or_else(|| producer(&self.config, &self.live), Ok)
        {
            Ok(producer) => producer,
            Err(error) => return Outcome::Failed(error.to_string()),
        };
        let outcome = loop {
            let sent = match self.fill(pass, &producer) {
                Ok(sent) => sent,
                Err(error) => break Outcome::Failed(error),
            };
            let busy = !pass.flights.is_empty() || pass.checkpoint;
            let moved = match self.reports(pass, &producer) {
                Ok(moved) => moved,
                Err(error) => break Outcome::Failed(error),
            };
            if let Some((code, reason)) = producer.client().fatal_error() {
                break Outcome::Failed(format!("{code}: {reason}"));
            }
            self.show(pass);
            self.keep(pass, false);
            // Nothing was under way before the reports were read either, so what was acknowledged has let go all it held back.
            if pass.ended && !busy && !sent {
                if pass.dir.chain != self.live.chain {
                    break Outcome::Done;
                }
                if self.wants_stop() {
                    break Outcome::Stop;
                }
                self.live.wait(Duration::from_millis(500));
            } else if !sent && !moved {
                self.live.wait(LOOK_EVERY);
            }
            if self.stopping() {
                break Outcome::Stop;
            }
        };
        if matches!(outcome, Outcome::Done) {
            self.producer = Some(producer);
        } else {
            // Its queue goes with it; what it had delivered by then still counts.
            let context = producer.client().context().clone();
            drop(producer);
            let reports = std::mem::take(&mut *lock(&context.reports));
            for (sent, result) in reports {
                if result.is_ok() {
                    pass.delivered(sent);
                }
            }
        }
        outcome
    }

    /// Whether there is a next chain.
    pub(super) fn settle(&mut self, pass: &mut Pass, outcome: Outcome) -> bool {
        self.show(pass);
        self.keep(pass, true);
        match outcome {
            Outcome::Stop => {}
            Outcome::Failed(error) => self.failed(&error),
            Outcome::Done => {
                let next = layout::chains(&self.dir).ok().and_then(|chains| {
                    chains
                        .into_iter()
                        .find(|chain| chain.ordinal > pass.dir.ordinal)
                });
                if let Some(next) = next {
                    pass.cursor = Cursor {
                        chain: next.chain,
                        seq: 0,
                        checkpoint_bytes: 0,
                    };
                    self.keep(pass, true);
                    return true;
                }
            }
        }
        false
    }

    /// Gives the producer what it takes; whether it took anything.
    fn fill(&self, pass: &mut Pass, producer: &Producer) -> Result<bool, String> {
        let mut sent = self.send_checkpoint(pass, producer)?;
        let limit = if pass.dir.chain == self.live.chain {
            self.live.synced()
        } else {
            self.limit
        };
        while pass.flights.len() < MAX_FLIGHTS && pass.flight_bytes < MAX_FLIGHT_BYTES {
            let Some(stored) = self.next_record(pass, limit)? else {
                break;
            };
            if !self.send(pass, producer, &stored)? {
                pass.pending = Some(stored);
                break;
            }
            sent = true;
        }
        Ok(sent)
    }

    fn next_record(&self, pass: &mut Pass, limit: u64) -> Result<Option<Stored>, String> {
        if let Some(stored) = pass.pending.take() {
            return Ok(Some(stored));
        }
        pass.ended = true;
        while pass.reader.next_seq() < limit {
            match pass.reader.step().map_err(|error| error.to_string())? {
                Step::Record(stored) if stored.seq < pass.cursor.seq => {}
                Step::Record(stored) => {
                    pass.ended = false;
                    return Ok(Some(stored));
                }
                Step::End(_) => break,
                Step::Damaged(damage) => {
                    // Whoever verifies the topic will miss the rest of this chain, which is the truth; the chains after
                    // it are not held up.
                    tracing::error!(%damage, "a chain cannot be published any further");
                    lock(&self.status).published.error = Some(damage.to_string());
                    break;
                }
            }
        }
        Ok(None)
    }

    /// Whether the producer took the record.
    fn send(&self, pass: &mut Pass, producer: &Producer, stored: &Stored) -> Result<bool, String> {
        let position = Position::read(&stored.bytes);
        let time = position.map_or("", |position| position.time);
        let key = pass.dir.chain.to_string();
        let headers = self
            .headers(
                &format!("{key}/{}", stored.seq),
                &kind(&stored.bytes),
                time,
                "application/json",
            )
            .insert(Header {
                key: "ce_recordhash",
                value: Some(&stored.record_hash.to_string()),
            });
        let record =
            BaseRecord::with_opaque_to(&self.options.topic, Box::new(Sent::Record(stored.seq)))
                .key(&key)
                .payload(&stored.bytes)
                .headers(headers);
        if !taken(producer.send(record).map_err(|(error, _)| error))? {
            return Ok(false);
        }
        pass.flight_bytes += stored.bytes.len();
        pass.flights.push_back(Flight {
            seq: stored.seq,
            bytes: stored.bytes.len(),
            time: time.parse().ok(),
            acknowledged: false,
        });
        Ok(true)
    }

    /// Sends the next checkpoint, one at a time, once all it covers was acknowledged.
    fn send_checkpoint(&self, pass: &mut Pass, producer: &Producer) -> Result<bool, String> {
        // What is under way comes before it in any case; once nothing is, it is looked for without fail.
        let recently = pass.noted_at.is_some_and(|at| at.elapsed() < NOTE_EVERY);
        if pass.checkpoint || recently && !pass.flights.is_empty() {
            return Ok(false);
        }
        pass.noted_at = Some(now());
        let path = pass.dir.checkpoints();
        let from = pass.cursor.checkpoint_bytes;
        let found = note_after(&path, from).map_err(|error| error.to_string())?;
        let idle = || {
            let live = pass.dir.chain == self.live.chain;
            live.then(|| lock(&self.live.idle).take().map(|note| (note, from)))?
        };
        let Some((note, end)) = found.or_else(idle) else {
            return Ok(false);
        };
        let covered = Checkpoint::read_unchecked(&note).map(|checkpoint| checkpoint.size);
        if covered.as_ref().is_ok_and(|size| *size > pass.cursor.seq) {
            return Ok(false);
        }
        let key = pass.dir.chain.to_string();
        let id = format!("{key}/checkpoint/{}", covered.unwrap_or(0));
        let headers = self.headers(
            &id,
            "countersign.checkpoint.v1",
            &format!("{:.9}", wall()),
            "text/plain",
        );
        let record = BaseRecord::with_opaque_to(
            &self.options.checkpoint_topic,
            Box::new(Sent::Checkpoint(end)),
        )
        .key(&key)
        .payload(&note)
        .headers(headers);
        pass.checkpoint = taken(producer.send(record).map_err(|(error, _)| error))?;
        Ok(pass.checkpoint)
    }

    fn headers(&self, id: &str, kind: &str, time: &str, content_type: &str) -> OwnedHeaders {
        [
            ("ce_specversion", "1.0"),
            ("ce_id", id),
            ("ce_source", self.source.as_str()),
            ("ce_type", kind),
            ("ce_time", time),
            ("content-type", content_type),
        ]
        .into_iter()
        .fold(
            OwnedHeaders::new_with_capacity(7),
            |headers, (key, value)| {
                headers.insert(Header {
                    key,
                    value: Some(value),
                })
            },
        )
    }

    /// Takes what was reported; whether anything was.
    fn reports(&mut self, pass: &mut Pass, producer: &Producer) -> Result<bool, String> {
        let reports = std::mem::take(&mut *lock(&producer.client().context().reports));
        let moved = !reports.is_empty();
        let mut failure = None;
        for (sent, result) in reports {
            match result {
                Ok(()) => {
                    pass.delivered(sent);
                    self.back_off = BACK_OFF.0;
                    lock(&self.status).published.error = None;
                }
                Err(error) => failure = failure.or(Some(error.to_string())),
            }
        }
        failure.map_or(Ok(moved), Err)
    }

    fn failed(&mut self, error: &str) {
        tracing::warn!(
            error,
            "publishing to kafka failed; sending again from the last acknowledged record"
        );
        {
            let mut status = lock(&self.status);
            status.published.restarts += 1;
            status.published.error = Some(error.to_owned());
        }
        let until = now() + self.back_off;
        while now() < until && !self.stopping() {
            self.live.wait(until.saturating_duration_since(now()));
        }
        self.back_off = (self.back_off * 2).min(BACK_OFF.1);
    }

    fn show(&self, pass: &Pass) {
        let mut status = lock(&self.status);
        if pass.dir.chain == self.live.chain {
            status.older = 0;
            // Whoever waits is woken only where it moved.
            status.acknowledged.send_if_modified(|so_far| {
                std::mem::replace(so_far, pass.cursor.seq) != pass.cursor.seq
            });
        } else {
            let unacknowledged = pass.reader.next_seq().saturating_sub(pass.cursor.seq);
            status.older = unacknowledged + pass.later;
        }
        status.oldest = pass.flights.front().and_then(|flight| flight.time);
    }

    /// Writes the cursor if it has moved. Failing that is no harm: the next process sends more again.
    fn keep(&mut self, pass: &mut Pass, at_once: bool) {
        if pass.cursor == pass.written || !(at_once || pass.written_at.elapsed() >= CURSOR_EVERY) {
            return;
        }
        pass.written_at = now();
        if let Kept::Memory(cursor) = &mut self.kept {
            *cursor = pass.cursor;
            pass.written = pass.cursor;
            return;
        }
        match cursor::store(&self.dir, &pass.cursor) {
            Ok(()) => pass.written = pass.cursor,
            Err(error) => tracing::warn!(%error, "the publisher's cursor could not be written"),
        }
    }

    fn wants_stop(&self) -> bool {
        lock(&self.status).stop_at.is_some()
    }

    fn stopping(&self) -> bool {
        lock(&self.status).stop_at.is_some_and(|at| now() >= at)
    }
}

impl Pass {
    /// A delivery report: the cursor moves over the acknowledged records at the front, never past a gap.
    fn delivered(&mut self, sent: Sent) {
        match sent {
            Sent::Checkpoint(end) => {
                self.cursor.checkpoint_bytes = end;
                self.checkpoint = false;
            }
            Sent::Record(seq) => {
                if let Ok(index) = self.flights.binary_search_by_key(&seq, |flight| flight.seq) {
                    self.flights[index].acknowledged = true;
                }
                while self
                    .flights
                    .front()
                    .is_some_and(|flight| flight.acknowledged)
                {
                    let Some(flight) = self.flights.pop_front() else {
                        break;
                    };
                    self.flight_bytes -= flight.bytes;
                    self.cursor.seq = flight.seq + 1;
                }
            }
        }
    }
}

/// A full queue is no failure.
fn taken(sent: Result<(), KafkaError>) -> Result<bool, String> {
    match sent {
        Ok(()) => Ok(true),
        Err(KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull)) => Ok(false),
        Err(error) => Err(error.to_string()),
    }
}

/// The first whole note after byte `from` of a checkpoint file, and where it ends.
fn note_after(path: &Path, from: u64) -> io::Result<Option<(String, u64)>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = vec![0; 8 << 10];
    let read = file.read_at(&mut bytes, from)?;
    let text = String::from_utf8_lossy(&bytes[..read]);
    let Some(note) = notes(&text).next() else {
        return Ok(None);
    };
    let start = text.find(note).unwrap_or(0);
    Ok(Some((note.to_owned(), from + (start + note.len()) as u64)))
}

/// The CloudEvents type of a record: `countersign.audit.v1.` and its event's name, which is what it has beside its position.
fn kind(record: &[u8]) -> String {
    const POSITION: [&str; 7] = [
        "chain",
        "seq",
        "prevHash",
        "time",
        "monotonicNs",
        "replica",
        "session",
    ];
    let members: BTreeMap<Cow<'_, str>, IgnoredAny> =
        serde_json::from_slice(record).unwrap_or_default();
    let mut events = members
        .keys()
        .filter(|name| !POSITION.contains(&name.as_ref()));
    let name = events.next().map_or("unknown", Cow::as_ref);
    format!("countersign.audit.v1.{name}")
}

/// Records in a chain, from its last segment.
fn size(dir: &ChainDir) -> io::Result<u64> {
    let mut reader = ChainReader::near(dir.clone(), u64::MAX)?;
    while let Step::Record(_) = reader.step()? {}
    Ok(reader.next_seq())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{audit::ChainId, store::testing};

    #[test]
    fn every_kind_of_record_has_its_type() {
        let samples = include_str!("../../../proto/countersign/audit/v1/samples.jsonl");
        let kinds: Vec<String> = samples.lines().map(|line| kind(line.as_bytes())).collect();
        for name in ["genesis", "opened", "erased", "discarded"] {
            let kind = format!("countersign.audit.v1.{name}");
            assert!(kinds.contains(&kind), "{kinds:?}");
        }
        let different: std::collections::BTreeSet<_> = kinds.iter().collect();
        assert_eq!(different.len(), kinds.len());
        assert_eq!(kind(b"{}"), "countersign.audit.v1.unknown");
    }

    #[test]
    fn the_cursor_never_passes_a_gap() {
        let dir = testing::dir();
        let chain = ChainDir::new(dir.path(), 1, ChainId([1; 16]));
        let cursor = Cursor {
            chain: chain.chain,
            seq: 5,
            checkpoint_bytes: 0,
        };
        let mut pass = Pass {
            reader: ChainReader::new(chain.clone()),
            dir: chain,
            cursor,
            written: cursor,
            written_at: now(),
            pending: None,
            flights: VecDeque::new(),
            flight_bytes: 0,
            checkpoint: false,
            noted_at: None,
            later: 0,
            ended: false,
        };
        for seq in 5..9 {
            pass.flights.push_back(Flight {
                seq,
                bytes: 1,
                time: None,
                acknowledged: false,
            });
            pass.flight_bytes += 1;
        }
        for (delivered, cursor) in [(6, 5), (8, 5), (5, 7), (7, 9)] {
            pass.delivered(Sent::Record(delivered));
            assert_eq!(pass.cursor.seq, cursor, "after {delivered}");
        }
        assert_eq!(pass.flight_bytes, 0);
    }
}
