//! What goes from the disk by a rule, and what stays.

use super::*;
use crate::store::frame::{FRAME_HEADER, SEGMENT_HEADER};

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
    let whole = std::fs::read(&last).unwrap();
    options.retention = retention(Some(0), None);
    // Its last record, and the first one, by whose time it is judged.
    for at in [whole.len() - 5, SEGMENT_HEADER + FRAME_HEADER + 5] {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        std::fs::write(&last, &bytes).unwrap();
        let ledger = Ledger::open(options.clone()).unwrap();
        let told = ledger.prune().unwrap_err().to_string();
        assert!(told.contains("damaged at record"), "{told}");
        assert_eq!(std::fs::read(&last).unwrap(), bytes);
        ledger.shutdown(0).await.unwrap();
    }
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
