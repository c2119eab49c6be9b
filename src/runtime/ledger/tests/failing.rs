//! Disks that are full, fail or hang, and what is too large.

use super::*;

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
    // Three find a place in the queue, two do not; all are told in time.
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
async fn an_end_that_found_no_place_in_the_queue_is_made_up_for() {
    let dir = testing::dir();
    let faults = Faults::default();
    let mut options = options(dir.path());
    (options.write_deadline, options.queue_records) = (Duration::from_millis(300), 1);
    let ledger = Ledger::open_on(options, || faults.disk()).unwrap();
    for session in ["late", "left", "sealed"] {
        let opened = ledger.append(opened(session), Durability::Disk).await;
        opened.unwrap();
    }
    let (hangs, release) = faults.hang();
    let append = |entries: Vec<Entry>| {
        let ledger = ledger.clone();
        tokio::spawn(async move { ledger.append_all(entries, Durability::Disk).await })
    };
    let first = append(vec![opened("hung")]);
    tokio::task::spawn_blocking(move || hangs.recv().unwrap())
        .await
        .unwrap();
    let second = append(vec![opened("queued")]);
    until("the queue is full", || {
        ledger.inner.records.available_permits() == 0
    })
    .await;
    let late = append(vec![closed("late")]);
    // Nothing of this one is in the log, so nothing of it is made up for.
    let whole = append(vec![opened("whole"), closed("whole")]);
    let left = append(vec![closed("left")]);
    tokio::task::yield_now().await;
    left.abort();
    assert!(left.await.unwrap_err().is_cancelled());
    for told in [first, second, late, whole] {
        assert_eq!(told.await.unwrap(), Err(LedgerError::Unavailable));
    }
    ledger.close("sealed".to_owned());
    release.send(()).unwrap();
    until("appends work again", || ledger.health().writable()).await;
    ledger.shutdown(0).await.unwrap();
    assert_all_closed_once(dir.path());
    let records = records(dir.path());
    for session in ["late", "left", "sealed"] {
        let unknown = |entry: &Entry| {
            entry.session == session
                && matches!(&entry.event, Event::Closed(closed) if closed.outcome == "unknown")
        };
        assert!(
            records.iter().any(|(_, _, entry)| unknown(entry)),
            "{session}"
        );
    }
    assert!(records.iter().all(|(_, _, entry)| entry.session != "whole"));
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
    let closed_for = |session: &str, length: usize| {
        let closed = Closed {
            reason: "x".repeat(length),
            ..Closed::default()
        };
        Entry {
            session: session.into(),
            event: Event::Closed(Box::new(closed)),
        }
    };
    for session in ["too long", "just right"] {
        let opened = ledger.append(opened(session), Durability::Disk).await;
        opened.unwrap();
    }
    assert_eq!(
        ledger
            .append(closed_for("too long", MAX_RECORD_BYTES), Durability::Disk)
            .await,
        Err(LedgerError::TooLarge)
    );
    let most = closed_for("just right", MAX_RECORD_BYTES - 2_000);
    ledger.append(most, Durability::Disk).await.unwrap();
    ledger.shutdown(0).await.unwrap();
    // That it ended is on record, though not how.
    assert_all_closed_once(dir.path());
    assert_eq!(verify(dir.path()).verdict(), Verdict::Unanchored);
}
