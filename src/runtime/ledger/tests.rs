#![allow(
    clippy::disallowed_methods,
    reason = "tests wait for threads and processes, in real time"
)]

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
async fn a_full_disk_refuses_and_writing_comes_back_by_itself() {
    let dir = testing::dir();
    let faults = Faults::default();
    let ledger = Ledger::open_on(options(dir.path()), || faults.disk()).unwrap();
    for (kind, error) in [
        (ErrorKind::StorageFull, LedgerError::Full),
        (ErrorKind::Other, LedgerError::Unavailable),
    ] {
        faults.write(Some((kind, 70)));
        for durability in [Durability::Disk, Durability::Spool] {
            assert_eq!(
                ledger.append(opened("refused"), durability).await,
                Err(error)
            );
        }
        assert_eq!(ledger.health().trouble, Some(error));
        faults.write(None);
        // Nobody writes: readiness has to find out alone.
        until("the ledger is writable", || ledger.health().writable()).await;
        ledger
            .append(opened(&format!("{kind}")), Durability::Disk)
            .await
            .unwrap();
        ledger
            .append(closed(&format!("{kind}")), Durability::Disk)
            .await
            .unwrap();
    }
    ledger.shutdown(0).await.unwrap();
    assert_eq!(verify(dir.path()).verdict(), Verdict::Unanchored);
    assert!(
        records(dir.path())
            .iter()
            .all(|(_, _, entry)| entry.session != "refused")
    );
    assert_all_closed_once(dir.path());
}

#[tokio::test]
async fn a_failed_sync_fails_disk_but_keeps_what_spool_was_promised() {
    let dir = testing::dir();
    let faults = Faults::default();
    let ledger = Ledger::open_on(options(dir.path()), || faults.disk()).unwrap();
    faults.sync(Some(ErrorKind::Other));
    let spool = ledger
        .append(closed("spool"), Durability::Spool)
        .await
        .unwrap();
    assert_eq!(
        ledger.append(opened("disk"), Durability::Disk).await,
        Err(LedgerError::Unavailable)
    );
    faults.sync(None);
    until("the ledger is writable", || ledger.health().writable()).await;
    ledger.shutdown(0).await.unwrap();
    assert_eq!(verify(dir.path()).verdict(), Verdict::Unanchored);
    let all = records(dir.path());
    assert_eq!(
        all[usize::try_from(spool.seq).unwrap()].1,
        spool.record_hash.to_string()
    );
    // The `opened` that was reported as failed is in the log, so the ledger has closed it.
    let of_disk: Vec<_> = all
        .iter()
        .filter(|(_, _, entry)| entry.session == "disk")
        .collect();
    assert_eq!(of_disk.len(), 2, "{of_disk:?}");
    assert!(matches!(&of_disk[1].2.event, Event::Closed(closed) if closed.outcome == "unknown"));
}

#[tokio::test]
async fn a_disk_that_hangs_is_an_error_within_the_deadline_and_leaves_no_open_session() {
    let dir = testing::dir();
    let faults = Faults::default();
    let mut options = options(dir.path());
    (options.write_deadline, options.queue_records) = (Duration::from_millis(300), 3);
    let ledger = Ledger::open_on(options, || faults.disk()).unwrap();
    let (hangs, release) = faults.hang();
    let first = tokio::spawn({
        let ledger = ledger.clone();
        async move { ledger.append(opened("hung"), Durability::Disk).await }
    });
    tokio::task::spawn_blocking(move || hangs.recv().unwrap())
        .await
        .unwrap();
    // Two find a place in the queue, three do not; all are told in time.
    let start = Instant::now();
    let waiting: Vec<_> = (0..5)
        .map(|n| {
            let ledger = ledger.clone();
            tokio::spawn(async move {
                ledger
                    .append(opened(&format!("queued-{n}")), Durability::Disk)
                    .await
            })
        })
        .collect();
    for task in waiting {
        assert_eq!(task.await.unwrap(), Err(LedgerError::Unavailable));
    }
    assert_eq!(first.await.unwrap(), Err(LedgerError::Unavailable));
    assert!(start.elapsed() < Duration::from_secs(5));
    release.send(()).unwrap();
    until("appends work again", || {
        ledger.health().synced == ledger.health().records
    })
    .await;
    ledger
        .append(opened("after"), Durability::Disk)
        .await
        .unwrap();
    ledger
        .append(closed("after"), Durability::Disk)
        .await
        .unwrap();
    ledger.shutdown(0).await.unwrap();
    let sessions: BTreeSet<String> = records(dir.path())
        .into_iter()
        .map(|(_, _, entry)| entry.session)
        .collect();
    assert!(
        sessions.contains("hung"),
        "it was being written when its caller gave up"
    );
    assert!(
        !sessions.iter().any(|session| session.starts_with("queued")),
        "{sessions:?}"
    );
    assert_all_closed_once(dir.path());
    assert_eq!(verify(dir.path()).verdict(), Verdict::Unanchored);
}

#[tokio::test]
async fn a_caller_who_goes_away_while_its_record_is_written_leaves_no_open_session() {
    let dir = testing::dir();
    let faults = Faults::default();
    let ledger = Ledger::open_on(options(dir.path()), || faults.disk()).unwrap();
    let (hangs, release) = faults.hang();
    let gone = tokio::spawn({
        let ledger = ledger.clone();
        async move { ledger.append(opened("gone"), Durability::Disk).await }
    });
    tokio::task::spawn_blocking(move || hangs.recv().unwrap())
        .await
        .unwrap();
    gone.abort();
    assert!(gone.await.unwrap_err().is_cancelled());
    release.send(()).unwrap();
    ledger.shutdown(0).await.unwrap();
    assert_all_closed_once(dir.path());
    let of_gone = |(_, _, entry): &(u64, String, Entry)| entry.session == "gone";
    assert_eq!(
        records(dir.path())
            .iter()
            .filter(|one| of_gone(one))
            .count(),
        2
    );
}

#[tokio::test]
async fn records_appended_together_are_all_there_or_none() {
    let dir = testing::dir();
    let faults = Faults::default();
    let ledger = Ledger::open_on(options(dir.path()), || faults.disk()).unwrap();
    let part = || Entry {
        session: "s".into(),
        event: Event::Delivered(Delivered::default()),
    };
    faults.write(Some((ErrorKind::StorageFull, 1_000)));
    let failed = ledger
        .append_all(vec![opened("s"), part(), part()], Durability::Disk)
        .await;
    assert_eq!(failed, Err(LedgerError::Full));
    faults.write(None);
    until("the ledger is writable", || ledger.health().writable()).await;
    assert_eq!(records(dir.path()).len(), 1);
    let receipts = ledger
        .append_all(vec![opened("s"), part(), part()], Durability::Disk)
        .await
        .unwrap();
    assert_eq!(
        receipts
            .iter()
            .map(|receipt| receipt.seq)
            .collect::<Vec<_>>(),
        [1, 2, 3]
    );
    ledger.append(closed("s"), Durability::Disk).await.unwrap();
    ledger.shutdown(0).await.unwrap();
    assert_all_closed_once(dir.path());
    assert_eq!(verify(dir.path()).records(), 6);
}

#[tokio::test]
async fn an_end_that_could_not_be_written_is_written_when_it_can() {
    let dir = testing::dir();
    let faults = Faults::default();
    let ledger = Ledger::open_on(options(dir.path()), || faults.disk()).unwrap();
    ledger.append(opened("s"), Durability::Disk).await.unwrap();
    faults.write(Some((ErrorKind::Other, 0)));
    let failed = ledger.append(closed("s"), Durability::Disk).await;
    assert_eq!(failed, Err(LedgerError::Unavailable));
    faults.write(None);
    until("the end is written", || records(dir.path()).len() == 3).await;
    assert_all_closed_once(dir.path());
    let Event::Closed(end) = records(dir.path()).pop().unwrap().2.event else {
        panic!("no end")
    };
    assert_eq!(end.outcome, "unknown");
}

#[tokio::test]
async fn at_the_cap_new_work_is_refused_open_work_can_end_and_room_made_is_noticed() {
    let dir = testing::dir();
    let ledger = Ledger::open(options(dir.path())).unwrap();
    for n in 0..20 {
        ledger
            .append(closed(&format!("old-{n}")), Durability::Spool)
            .await
            .unwrap();
    }
    ledger.shutdown(0).await.unwrap();
    let old = store::layout::chains(dir.path()).unwrap().remove(0);

    let mut options = options(dir.path());
    options.spool_cap_bytes = 64 << 10;
    let ledger = Ledger::open(options).unwrap();
    let mut sessions = 0;
    let mut alarms = vec![ledger.health().alarm_percent];
    let refused = loop {
        let alarm = ledger.health().alarm_percent;
        if alarms.last() != Some(&alarm) {
            alarms.push(alarm);
        }
        match ledger
            .append(opened(&format!("s-{sessions}")), Durability::Spool)
            .await
        {
            Ok(_) => sessions += 1,
            Err(error) => break error,
        }
    };
    assert_eq!((refused, refused.code()), (LedgerError::Full, "audit_full"));
    assert!(sessions > 10);
    assert_eq!(alarms, [0, 70, 85, 95], "it says so before it refuses");
    ledger
        .append(closed("s-0"), Durability::Disk)
        .await
        .unwrap();
    let part = Event::Delivered(Delivered::default());
    ledger
        .append(
            Entry {
                session: "s-1".into(),
                event: part,
            },
            Durability::Disk,
        )
        .await
        .unwrap();
    assert!(ledger.health().spool_bytes <= 64 << 10);
    assert_eq!(ledger.health().trouble, Some(LedgerError::Full));
    assert_eq!(
        ledger.append(opened("s"), Durability::Disk).await,
        Err(LedgerError::Full)
    );

    std::fs::remove_dir_all(old.path).unwrap();
    until("the room is noticed", || ledger.health().writable()).await;
    assert!(ledger.health().alarm_percent < 95);
    ledger.append(opened("s"), Durability::Disk).await.unwrap();
}

#[tokio::test]
async fn a_record_beyond_the_limit_is_refused_and_harms_nobody() {
    let dir = testing::dir();
    let ledger = Ledger::open(options(dir.path())).unwrap();
    let large = Closed {
        reason: "x".repeat(MAX_RECORD_BYTES),
        ..Closed::default()
    };
    let entry = Entry {
        session: "s".into(),
        event: Event::Closed(Box::new(large)),
    };
    assert_eq!(
        ledger.append(entry, Durability::Disk).await,
        Err(LedgerError::TooLarge)
    );
    let most = Closed {
        reason: "x".repeat(MAX_RECORD_BYTES - 2_000),
        ..Closed::default()
    };
    let entry = Entry {
        session: "s".into(),
        event: Event::Closed(Box::new(most)),
    };
    ledger.append(entry, Durability::Disk).await.unwrap();
    assert_eq!(verify(dir.path()).records(), 2);
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

fn retention(age: Option<u64>, size: Option<u64>) -> Option<Retention> {
    Some(Retention {
        age: age.map(Duration::from_secs),
        size,
        at_least: Duration::ZERO,
        archive: None,
        sealed_cap: None,
    })
}

async fn append_closed(ledger: &Ledger, count: usize) {
    for n in 0..count {
        let entry = closed(&format!("s-{n}"));
        ledger.append(entry, Durability::Disk).await.unwrap();
    }
}

/// What is there and what was pruned, of a log that verifies.
fn extent(dir: &Path) -> (u64, u64) {
    let report = verify(dir);
    assert_eq!(report.verdict(), Verdict::Unanchored, "{:?}", report.faults);
    let pruned = report.chains.iter().map(|chain| chain.pruned).sum();
    (report.records(), pruned)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_old_goes_reads_as_pruned_and_the_next_start_still_closes_what_it_left_open() {
    let dir = testing::dir();
    let mut options = options(dir.path());
    (options.segment_bytes, options.retention) = (4_000, retention(Some(0), None));
    let first = Ledger::open(options.clone()).unwrap();
    first.append(opened("old"), Durability::Disk).await.unwrap();
    append_closed(&first, 60).await;
    first.prune().unwrap();
    let (there, pruned) = extent(dir.path());
    assert!(there < 30 && pruned > 30, "{there} {pruned}");
    append_closed(&first, 20).await;
    first.prune().unwrap();
    assert!(
        extent(dir.path()).1 > pruned,
        "again, behind the first stump"
    );
    drop(first);
    until("the lock is free", || {
        !store::lock::DirLock::is_held(dir.path())
    })
    .await;
    let second = Ledger::open(options.clone()).unwrap();
    assert_eq!(second.opening().orphans_closed, 1);
    append_closed(&second, 20).await;
    second.prune().unwrap();
    let report = verify(dir.path());
    assert_eq!(report.verdict(), Verdict::Unanchored, "{:?}", report.faults);
    let whole_chain = report.chains.iter().any(|chain| chain.records == 0);
    assert!(whole_chain, "all of the first chain went: {report:?}");
    // And the records that said so of the first chain go with the segments of the second: they are said again.
    append_closed(&second, 60).await;
    second.prune().unwrap();
    extent(dir.path());
    second.shutdown(0).await.unwrap();
    let third = Ledger::open(options).unwrap();
    third.prune().unwrap();
    third.shutdown(0).await.unwrap();
    extent(dir.path());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_chain_stays_with_what_is_behind_the_damage() {
    let dir = testing::dir();
    let mut options = options(dir.path());
    options.segment_bytes = 4_000;
    for _ in 0..2 {
        let ledger = Ledger::open(options.clone()).unwrap();
        append_closed(&ledger, 30).await;
        ledger.shutdown(0).await.unwrap();
    }
    let chain = store::layout::chains(dir.path()).unwrap().remove(0);
    let (_, last) = chain.segments().unwrap().pop().unwrap();
    let mut bytes = std::fs::read(&last).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&last, &bytes).unwrap();
    options.retention = retention(Some(0), None);
    let ledger = Ledger::open(options).unwrap();
    let told = ledger.prune().unwrap_err().to_string();
    assert!(told.contains("damaged at record"), "{told}");
    assert_eq!(std::fs::read(&last).unwrap(), bytes);
    ledger.shutdown(0).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_deleted_by_no_rule_is_missed() {
    let dir = testing::dir();
    let mut options = options(dir.path());
    (options.segment_bytes, options.retention) = (4_000, retention(None, Some(20_000)));
    let ledger = Ledger::open(options).unwrap();
    append_closed(&ledger, 90).await;
    ledger.prune().unwrap();
    assert!(extent(dir.path()).1 > 0);
    ledger.shutdown(0).await.unwrap();
    let (there, _) = extent(dir.path());
    assert!(there > 10, "the size's worth stays");
    let chain = store::layout::chains(dir.path()).unwrap().remove(0);
    let segments = chain.segments().unwrap();
    assert!(segments.len() >= 3);
    for (_, path) in &segments {
        let bytes = std::fs::read(path).unwrap();
        std::fs::remove_file(path).unwrap();
        assert_eq!(verify(dir.path()).verdict(), Verdict::Tampered, "{path:?}");
        std::fs::write(path, bytes).unwrap();
    }
    // A stump for one more segment, which holds together but which no record names.
    let (stump, _) = store::prune::stump(&chain, segments[1].0).unwrap();
    store::prune::fell(&chain, &stump).unwrap();
    let report = verify(dir.path());
    let cause = crate::audit::verify::Cause::NotAnnounced {
        records: segments[1].0,
    };
    assert_eq!(report.faults[0].cause, cause);
    std::fs::remove_file(chain.pruned()).unwrap();
    assert_eq!(verify(dir.path()).verdict(), Verdict::Tampered);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_goes_that_is_young_or_that_a_holder_has_no_checkpoint_of() {
    let (dir, outside) = (testing::dir(), testing::dir());
    let mut options = options(dir.path());
    (options.segment_bytes, options.retention) = (4_000, retention(Some(0), None));
    options.retention.as_mut().unwrap().at_least = Duration::from_secs(3600);
    let ledger = Ledger::open(options.clone()).unwrap();
    append_closed(&ledger, 60).await;
    assert_eq!(ledger.prune().unwrap(), 0, "too young");
    ledger.shutdown(0).await.unwrap();

    options.retention = retention(Some(0), None);
    let hanging = Witness::default();
    hanging.answers.lock().unwrap().extend([0; 100]);
    options.webhooks.push(Webhook {
        url: hanging.serve().await,
        token: None,
    });
    options.flush_timeout = Duration::from_millis(10);
    let ledger = Ledger::open(options.clone()).unwrap();
    append_closed(&ledger, 60).await;
    assert_eq!(
        ledger.prune().unwrap(),
        0,
        "nobody outside has a checkpoint"
    );
    ledger.shutdown(0).await.unwrap();

    options.webhooks.clear();
    options.checkpoint_file = Some(outside.path().join("kept"));
    let ledger = Ledger::open(options).unwrap();
    append_closed(&ledger, 60).await;
    until("segments end with a checkpoint", || {
        ledger.health().holders[0].records > 40
    })
    .await;
    ledger.prune().unwrap();
    assert!(extent(dir.path()).1 > 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn near_the_cap_the_oldest_go_before_anything_is_refused() {
    let dir = testing::dir();
    let mut options = options(dir.path());
    (options.segment_bytes, options.retention) = (20_000, retention(None, None));
    options.spool_cap_bytes = 400_000;
    let ledger = Ledger::open(options).unwrap();
    let mut sessions = 0;
    while ledger.health().records < 5_000 {
        for _ in 0..100 {
            let session = format!("s-{sessions}");
            let entry = opened(&session);
            ledger.append(entry, Durability::Disk).await.unwrap();
            let entry = closed(&session);
            ledger.append(entry, Durability::Disk).await.unwrap();
            sessions += 1;
        }
        assert!(ledger.health().writable());
        assert!(ledger.health().spool_bytes < 400_000);
    }
    ledger.shutdown(0).await.unwrap();
    let (there, pruned) = extent(dir.path());
    assert!(there < 1_500 && pruned > 3_500, "{there} {pruned}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_goes_to_the_archive_verifies_there_and_together_with_what_is_left() {
    let (dir, outer) = (testing::dir(), testing::dir());
    let to = outer.path().join("archive");
    let mut options = options(dir.path());
    (options.segment_bytes, options.retention) = (4_000, retention(Some(0), None));
    options.retention.as_mut().unwrap().archive = Some(to.clone());
    for _ in 0..3 {
        let ledger = Ledger::open(options.clone()).unwrap();
        for _ in 0..3 {
            append_closed(&ledger, 20).await;
            ledger.prune().unwrap();
        }
        ledger.shutdown(0).await.unwrap();
    }
    let (there, pruned) = extent(dir.path());
    assert!(pruned > 100);
    let key = dir.path().join("signing.key.pub");
    std::fs::copy(&key, to.join("signing.key.pub")).unwrap();
    assert_eq!(extent(&to), (pruned, 0), "the archive is a log of its own");
    assert!(verify(&to).checkpoints > 2);
    let chains = store::layout::chains(&to).unwrap();
    let mut verifier =
        crate::audit::verify::Verifier::new(crate::audit::verify::Order::Strict, Vec::new());
    let newest = store::layout::chains(dir.path()).unwrap().pop().unwrap();
    let (_, last) = store::checkpoints::last(&newest.checkpoints())
        .unwrap()
        .unwrap();
    verifier
        .checkpoint(&last, crate::audit::verify::Holder::Outside)
        .unwrap();
    let reading = store::check::Reading {
        threads: std::num::NonZeroUsize::new(3).unwrap(),
        archive: Some(&to),
        progress: &|_| {},
    };
    store::check::feed(&mut verifier, dir.path(), &reading).unwrap();
    let report = verifier.finish();
    assert_eq!(report.verdict(), Verdict::Whole, "{:?}", report.faults);
    assert_eq!(report.records(), there + pruned);
    assert!(
        report
            .chains
            .iter()
            .all(|chain| chain.pruned == 0 && chain.whole == chain.records)
    );
    assert_eq!(chains.len(), 3);
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
