#![allow(
    clippy::disallowed_methods,
    reason = "tests wait for threads and processes, in real time"
)]

mod failing;
mod pruning;

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufRead, BufReader, ErrorKind},
    process::{Command as Process, Stdio},
    time::Instant,
};

use super::*;
use crate::{
    audit::{
        checkpoint::Checkpoint,
        record::{Closed, Delivered},
        verify::Verdict,
    },
    store::{
        disk::faulty::Faults,
        testing::{self, records, verify},
    },
};

fn opened(session: &str) -> Entry {
    Entry {
        session: session.into(),
        event: Event::Opened(Box::default()),
    }
}

fn closed(session: &str) -> Entry {
    let closed = Closed {
        outcome: "completed".into(),
        ..Closed::default()
    };
    Entry {
        session: session.into(),
        event: Event::Closed(Box::new(closed)),
    }
}

fn options(dir: &Path) -> LedgerOptions {
    LedgerOptions::new(dir, "demo", "a")
}

/// Waits for what another thread will bring about; fails loudly rather than forever.
async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "never came: {what}"
        );
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Every session of the log was opened and closed exactly once.
fn assert_all_closed_once(dir: &Path) {
    let mut open = BTreeMap::<String, (u32, u32)>::new();
    for (_, _, entry) in records(dir) {
        let counts = open.entry(entry.session).or_default();
        match entry.event {
            Event::Opened(_) => counts.0 += 1,
            Event::Closed(_) => counts.1 += 1,
            _ => {}
        }
    }
    open.remove("");
    for (session, counts) in open {
        assert_eq!(counts, (1, 1), "{session}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_many_callers_append_at_once_is_one_sound_chain() {
    let dir = testing::dir();
    let mut options = options(dir.path());
    (options.segment_bytes, options.checkpoint_records) = (20_000, 50);
    let ledger = Ledger::open(options).unwrap();
    let tasks: Vec<_> = (0..200)
        .map(|n| {
            let ledger = ledger.clone();
            tokio::spawn(async move {
                let durability = if n % 2 == 0 {
                    Durability::Disk
                } else {
                    Durability::Spool
                };
                let first = ledger
                    .append(opened(&format!("s-{n}")), durability)
                    .await
                    .unwrap();
                let second = ledger
                    .append(closed(&format!("s-{n}")), durability)
                    .await
                    .unwrap();
                assert!(first.seq < second.seq);
                [first, second]
            })
        })
        .collect();
    let mut receipts = Vec::new();
    for task in tasks {
        receipts.extend(task.await.unwrap());
    }
    ledger.clone().shutdown(0).await.unwrap();
    let report = verify(dir.path());
    assert_eq!(
        (report.verdict(), report.records()),
        (Verdict::Unanchored, 402)
    );
    assert!(report.checkpoints >= 2, "{}", report.checkpoints);
    let found: BTreeMap<u64, String> = records(dir.path())
        .into_iter()
        .map(|(seq, hash, _)| (seq, hash))
        .collect();
    for receipt in &receipts {
        assert_eq!(found[&receipt.seq], receipt.record_hash.to_string());
    }
    assert_eq!(
        receipts
            .iter()
            .map(|receipt| receipt.seq)
            .collect::<BTreeSet<_>>()
            .len(),
        400
    );
    assert_all_closed_once(dir.path());
    assert_eq!(
        ledger.append(opened("late"), Durability::Disk).await,
        Err(LedgerError::Closed)
    );
}

#[tokio::test]
async fn a_shutdown_is_the_last_record_is_covered_by_a_checkpoint_and_the_next_start_says_clean() {
    let dir = testing::dir();
    let ledger = Ledger::open(options(dir.path())).unwrap();
    let chain = ledger.opening().chain;
    ledger
        .append(opened("s-1"), Durability::Disk)
        .await
        .unwrap();
    ledger
        .append(closed("s-1"), Durability::Disk)
        .await
        .unwrap();
    ledger.shutdown(3).await.unwrap();
    let all = records(dir.path());
    assert!(matches!(&all[3].2.event, Event::Shutdown(shutdown) if shutdown.cut_sessions == 3));
    let path = store::layout::chains(dir.path()).unwrap()[0].checkpoints();
    let (size, note) = store::checkpoints::last(&path).unwrap().unwrap();
    assert_eq!(size, 4);

    let ledger = Ledger::open(options(dir.path())).unwrap();
    let opening = ledger.opening();
    assert_eq!(
        (
            opening.previous,
            opening.previous_clean,
            opening.orphans_closed
        ),
        (Some(chain), true, 0)
    );
    assert_ne!(opening.chain, chain);
    let Event::Genesis(genesis) = records(dir.path())[4].2.event.clone() else {
        panic!("no genesis")
    };
    assert_eq!(genesis.previous_chain, chain.to_string());
    assert_eq!((genesis.previous_size, genesis.previous_clean), (4, true));
    assert_eq!(
        (genesis.previous_head, genesis.previous_checkpoint),
        (all[3].1.clone(), note)
    );
}

#[tokio::test]
async fn the_directory_has_one_owner() {
    let dir = testing::dir();
    let _ledger = Ledger::open(options(dir.path())).unwrap();
    let error = Ledger::open(options(dir.path())).unwrap_err();
    assert!(
        matches!(error, OpenError::Store(StoreError::Locked(_))),
        "{error}"
    );
    assert!(
        error
            .to_string()
            .contains("in use by another countersign process")
    );
}

#[tokio::test]
async fn sessions_left_open_are_closed_by_the_next_start() {
    let dir = testing::dir();
    let ledger = Ledger::open(options(dir.path())).unwrap();
    for session in ["s-1", "s-2", "s-3"] {
        ledger
            .append(opened(session), Durability::Disk)
            .await
            .unwrap();
    }
    ledger
        .append(closed("s-2"), Durability::Disk)
        .await
        .unwrap();
    drop(ledger);
    until("the lock is free", || {
        !store::lock::DirLock::is_held(dir.path())
    })
    .await;
    let ledger = Ledger::open(options(dir.path())).unwrap();
    assert_eq!(
        (
            ledger.opening().orphans_closed,
            ledger.opening().previous_clean
        ),
        (2, false)
    );
    let unknown = records(dir.path())
        .into_iter()
        .filter(|(_, _, entry)| matches!(&entry.event, Event::Closed(closed) if closed.outcome == "unknown"))
        .count();
    assert_eq!(unknown, 2);
    assert_all_closed_once(dir.path());
    ledger.shutdown(0).await.unwrap();
    assert_eq!(
        Ledger::open(options(dir.path()))
            .unwrap()
            .opening()
            .orphans_closed,
        0
    );
}

#[tokio::test]
async fn an_idle_ledger_signs_what_was_written() {
    let dir = testing::dir();
    let mut options = options(dir.path());
    options.checkpoint_interval = Duration::from_millis(50);
    let ledger = Ledger::open(options).unwrap();
    ledger.append(closed("s"), Durability::Spool).await.unwrap();
    let path = store::layout::chains(dir.path()).unwrap()[0].checkpoints();
    let signed = || {
        store::checkpoints::last(&path)
            .unwrap()
            .map(|(size, _)| size)
    };
    until("a checkpoint of both records", || signed() == Some(2)).await;
    assert_eq!(ledger.health().synced, 2);
}

#[tokio::test]
async fn a_log_that_does_not_grow_is_signed_again_for_those_outside() {
    let (dir, outside) = (testing::dir(), testing::dir());
    let kept = outside.path().join("kept");
    let mut options = options(dir.path());
    options.checkpoint_interval = Duration::from_millis(20);
    options.checkpoint_file = Some(kept.clone());
    let ledger = Ledger::open(options).unwrap();
    ledger.append(closed("s"), Durability::Disk).await.unwrap();
    let count = |path: &Path, size: u64| {
        let text = store::checkpoints::read(path).unwrap();
        let sizes = crate::audit::checkpoint::notes(&text)
            .map(|note| Checkpoint::read_unchecked(note).unwrap().size);
        sizes.filter(|found| *found == size).count()
    };
    until("it is signed again and again", || count(&kept, 2) >= 4).await;
    let inside = store::layout::chains(dir.path()).unwrap()[0].checkpoints();
    assert_eq!(count(&inside, 2), 1, "the log itself keeps one");
    ledger.shutdown(0).await.unwrap();
    assert!(count(&kept, 3) >= 1, "the last one is held before it ends");
    assert_eq!(verify(dir.path()).verdict(), Verdict::Unanchored);
}

/// What a holder is told, and what it answers next.
#[derive(Clone, Default)]
struct Witness {
    told: Arc<Mutex<Vec<(String, String)>>>,
    answers: Arc<Mutex<Vec<u16>>>,
}

impl Witness {
    /// Where it listens.
    async fn serve(&self) -> url::Url {
        use axum::{Router, http, routing::post};
        let witness = self.clone();
        let take = move |headers: http::HeaderMap, body: String| async move {
            let token = headers
                .get("authorization")
                .map_or("", |token| token.to_str().unwrap());
            witness.told.lock().unwrap().push((token.to_owned(), body));
            let answer = witness.answers.lock().unwrap().pop().unwrap_or(204);
            if answer == 0 {
                std::future::pending::<()>().await;
            }
            http::StatusCode::from_u16(answer).unwrap()
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let app = Router::new().route("/checkpoints", post(take));
        tokio::spawn(async move { axum::serve(listener, app).await });
        format!("http://{at}/checkpoints?of=us").parse().unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn webhooks_hold_what_they_took_and_one_that_hangs_holds_nobody_up() {
    let dir = testing::dir();
    let (good, hanging) = (Witness::default(), Witness::default());
    // From the last: refused twice, then taken.
    good.answers.lock().unwrap().extend([204, 500, 302]);
    hanging.answers.lock().unwrap().extend([0; 100]);
    let mut options = options(dir.path());
    (options.checkpoint_records, options.flush_timeout) = (5, Duration::from_secs(3));
    for (witness, token) in [(&good, Some("sesame".into())), (&hanging, None)] {
        let url = witness.serve().await;
        options.webhooks.push(Webhook { url, token });
    }
    let ledger = Ledger::open(options).unwrap();
    let key = ledger.opening().verifier.clone();
    let begun = Instant::now();
    for n in 0..50 {
        let entry = closed(&format!("s-{n}"));
        ledger.append(entry, Durability::Disk).await.unwrap();
    }
    assert!(begun.elapsed() < Duration::from_secs(4), "no append waited");
    let held = |index: usize| ledger.health().holders[index].clone();
    until("the newest is held", || held(0).records >= 50).await;
    assert_eq!((held(0).failures, held(1).records), (2, 0));
    assert!(held(0).holder.ends_with("/checkpoints"), "{:?}", held(0));
    ledger.shutdown(0).await.unwrap();
    let told = good.told.lock().unwrap();
    assert!(told.len() < 15, "a newer one stands for those before it");
    let last = told.last().unwrap();
    let checkpoint = Checkpoint::open(&last.1, &[key]).unwrap();
    assert_eq!((checkpoint.size, last.0.as_str()), (52, "Bearer sesame"));
    assert!(told.iter().all(|(token, _)| token == "Bearer sesame"));
    assert_eq!(hanging.told.lock().unwrap()[0].0, "");
}

#[tokio::test]
async fn a_name_that_cannot_stand_in_a_checkpoint_is_refused() {
    let dir = testing::dir();
    for name in ["", "a b", "a+b", "a/b", "a\n"] {
        let error = Ledger::open(LedgerOptions::new(dir.path(), "demo", name)).unwrap_err();
        assert!(
            matches!(error, OpenError::Store(StoreError::BadName(_))),
            "{name:?}"
        );
    }
}

/// Not a test of its own: the process that `an_acknowledged_record_survives_kill_9` kills.
#[test]
#[ignore = "the child process of another test"]
fn child_that_writes_until_it_is_killed() {
    let Ok(dir) = std::env::var("LEDGER_TEST_DIR") else {
        return;
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut options = options(Path::new(&dir));
        (options.segment_bytes, options.checkpoint_records) = (50_000, 100);
        let ledger = Ledger::open(options).unwrap();
        let round = ledger.opening().chain;
        let tasks: Vec<_> = (0..4)
            .map(|task| {
                let ledger = ledger.clone();
                tokio::spawn(async move {
                    let durability = if task < 2 {
                        Durability::Disk
                    } else {
                        Durability::Spool
                    };
                    for n in 0_u64.. {
                        let session = format!("{round}-{task}-{n}");
                        for entry in [opened(&session), closed(&session)] {
                            let receipt = ledger.append(entry, durability).await.unwrap();
                            println!("ack {} {}", receipt.seq, receipt.record_hash);
                        }
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
    });
}

#[test]
fn an_acknowledged_record_survives_kill_9() {
    let dir = testing::dir();
    for kill_after in [1, 7, 150, 400, 901] {
        let mut child = Process::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "runtime::ledger::tests::child_that_writes_until_it_is_killed",
            ])
            .args(["--ignored", "--nocapture", "--test-threads", "1"])
            .env("LEDGER_TEST_DIR", dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut acknowledged = Vec::new();
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            let line = line.unwrap();
            // A line cut short by the kill is no acknowledgement that anyone received.
            if let Some([seq, hash]) = line
                .split_once("ack ")
                .map(|(_, ack)| ack.split(' ').collect::<Vec<_>>())
                .as_deref()
                && hash.len() == 64
            {
                acknowledged.push((seq.parse::<u64>().unwrap(), (*hash).to_owned()));
            }
            if acknowledged.len() == kill_after {
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        assert!(acknowledged.len() >= kill_after);
        let chain = store::layout::chains(dir.path()).unwrap().pop().unwrap();
        let recovered = store::recover::recover(dir.path(), None).unwrap();
        assert_eq!(recovered.previous.unwrap().head.chain, chain.chain);
        let all: BTreeSet<_> = records(dir.path())
            .into_iter()
            .map(|(seq, hash, _)| (seq, hash))
            .collect();
        for (seq, hash) in acknowledged {
            assert!(
                all.contains(&(seq, hash)),
                "record {seq} was acknowledged and is not there"
            );
        }
    }
    let ledger = Ledger::open(options(dir.path())).unwrap();
    drop(ledger);
    assert_eq!(verify(dir.path()).verdict(), Verdict::Unanchored);
    assert_all_closed_once(dir.path());
}
