use super::*;
use crate::audit::fixture::{Log, key};

const A: ChainId = ChainId([0xa; 16]);
const B: ChainId = ChainId([0xb; 16]);

fn feed(verifier: &mut Verifier, log: &Log) {
    for (seq, (bytes, hash)) in log.records.iter().enumerate() {
        verifier.record(log.head.chain, seq as u64, bytes, Some(*hash));
    }
}

fn verify(logs: &[&Log], outside: &[String]) -> Report {
    let mut verifier = Verifier::new(Order::Strict, vec![key(1).verifier().clone()]);
    for note in outside {
        verifier.checkpoint(note, Holder::Outside).unwrap();
    }
    logs.iter().for_each(|log| feed(&mut verifier, log));
    verifier.finish()
}

/// The records of `log` in another order, given by their numbers.
fn in_order(order: Order, log: &Log, seqs: &[usize]) -> Report {
    let mut verifier = Verifier::new(order, Vec::new());
    for seq in seqs {
        let (bytes, hash) = &log.records[*seq];
        verifier.record(log.head.chain, *seq as u64, bytes, Some(*hash));
    }
    verifier.finish()
}

fn only_fault(report: &Report) -> (ChainId, u64, Cause) {
    assert_eq!(report.verdict(), Verdict::Tampered);
    assert_eq!(report.faults.len(), 1, "{:?}", report.faults);
    let fault = report.faults[0].clone();
    (fault.chain, fault.seq, fault.cause)
}

#[test]
fn a_sound_log_is_unanchored_until_a_checkpoint_from_outside_vouches_for_it() {
    let log = Log::new(0xa, 40, None);
    assert_eq!(verify(&[&log], &[]).verdict(), Verdict::Unanchored);
    let report = verify(&[&log], &[log.checkpoint(30, &key(1))]);
    assert_eq!(report.verdict(), Verdict::Whole);
    assert_eq!((report.chains[0].records, report.chains[0].whole), (40, 30));
    assert_eq!(report.chains[0].replica, "a");
}

#[test]
fn an_outside_checkpoint_vouches_for_all_chains_before_it() {
    let first = Log::new(0xa, 9, None);
    let second = Log::new(0xb, 7, Some(&first));
    let report = verify(&[&first, &second], &[second.checkpoint(3, &key(1))]);
    assert_eq!(report.verdict(), Verdict::Whole);
    let whole: Vec<u64> = report.chains.iter().map(|chain| chain.whole).collect();
    assert_eq!(whole, [9, 3]);
}

#[test]
fn a_changed_record_is_named() {
    for at in 0..20 {
        let mut log = Log::new(0xa, 20, None);
        let last = log.records[at].0.len() - 2;
        log.records[at].0[last] ^= 1;
        assert_eq!(
            only_fault(&verify(&[&log], &[])),
            (A, at as u64, Cause::Altered)
        );
    }
}

#[test]
fn a_changed_record_whose_own_hash_was_brought_in_line_is_named() {
    let mut log = Log::new(0xa, 20, None);
    let rewritten = log.rewritten(7, |text| text.replace("opened", "0pened"));
    log.records[7] = rewritten.records[7].clone();
    assert_eq!(
        only_fault(&verify(&[&log], &[])),
        (A, 7, Cause::Relinked(8))
    );
}

#[test]
fn a_log_rewritten_with_every_key_is_found_by_a_checkpoint_kept_outside() {
    let log = Log::new(0xa, 40, None);
    let rewritten = log.rewritten(22, |text| text.replace("completed", "complete!"));
    // It holds together, and its own checkpoints can be signed again.
    assert_eq!(verify(&[&rewritten], &[]).verdict(), Verdict::Unanchored);
    let kept = [
        log.checkpoint(20, &key(1)),
        log.checkpoint(30, &key(1)),
        log.checkpoint(40, &key(1)),
    ];
    let mut verifier = Verifier::new(Order::Strict, Vec::new());
    for note in &kept {
        verifier.checkpoint(note, Holder::Outside).unwrap();
    }
    verifier
        .checkpoint(&rewritten.checkpoint(25, &key(1)), Holder::Inside)
        .unwrap();
    feed(&mut verifier, &rewritten);
    let cause = Cause::Rehashed {
        size: 30,
        holder: "outside",
    };
    assert_eq!(only_fault(&verifier.finish()), (A, 20, cause));
}

#[test]
fn dropped_records_are_named_in_the_middle_and_given_a_checkpoint_at_the_end() {
    let log = Log::new(0xa, 20, None);
    let without_7: Vec<usize> = (0..20).filter(|seq| *seq != 7).collect();
    assert_eq!(
        only_fault(&in_order(Order::Strict, &log, &without_7)),
        (A, 7, Cause::Missing)
    );
    assert_eq!(
        only_fault(&in_order(Order::Resent, &log, &without_7)),
        (A, 7, Cause::Missing)
    );
    let mut short = log.clone();
    short.records.truncate(15);
    assert_eq!(verify(&[&short], &[]).verdict(), Verdict::Unanchored);
    let report = verify(&[&short], &[log.checkpoint(18, &key(1))]);
    assert_eq!(only_fault(&report), (A, 15, Cause::Truncated { size: 18 }));
}

#[test]
fn repeated_and_misplaced_records_are_named_in_a_directory() {
    let log = Log::new(0xa, 6, None);
    let report = in_order(Order::Strict, &log, &[0, 1, 2, 2, 3]);
    assert_eq!(only_fault(&report), (A, 2, Cause::Duplicated));
    let report = in_order(Order::Strict, &log, &[0, 1, 3, 2, 4]);
    assert_eq!(only_fault(&report), (A, 2, Cause::OutOfOrder));
}

#[test]
fn a_topic_may_repeat_and_resend_but_not_differ() {
    let log = Log::new(0xa, 8, None);
    let report = in_order(Order::Resent, &log, &[0, 1, 2, 5, 6, 3, 4, 5, 6, 7, 0, 1]);
    assert_eq!(
        (report.verdict(), report.records(), report.repeats),
        (Verdict::Unanchored, 8, 4)
    );

    let other = log.rewritten(5, |text| text.replace("opened", "0pened"));
    for (before, after) in [(&log, &other), (&other, &log)] {
        let mut verifier = Verifier::new(Order::Resent, Vec::new());
        feed(&mut verifier, before);
        verifier.record(A, 5, &after.records[5].0, Some(after.records[5].1));
        assert_eq!(only_fault(&verifier.finish()), (A, 5, Cause::Duplicated));
    }
    // Twice and differing while its predecessor is still missing.
    let mut verifier = Verifier::new(Order::Resent, Vec::new());
    for log in [&log, &other] {
        verifier.record(A, 5, &log.records[5].0, None);
    }
    assert_eq!(only_fault(&verifier.finish()), (A, 5, Cause::Duplicated));
}

#[test]
fn a_topic_without_stored_hashes_is_still_held_together_by_the_links() {
    let log = Log::new(0xa, 8, None);
    let changed = log.rewritten(4, |text| text.replace("completed", "complete!"));
    let mut verifier = Verifier::new(Order::Resent, Vec::new());
    for (seq, (bytes, _)) in log.records.iter().enumerate() {
        let bytes = if seq == 4 {
            &changed.records[4].0
        } else {
            bytes
        };
        verifier.record(A, seq as u64, bytes, None);
    }
    assert_eq!(only_fault(&verifier.finish()), (A, 4, Cause::Relinked(5)));
}

#[test]
fn records_swapped_between_chains_or_places_are_named() {
    let (mut a, mut b) = (Log::new(0xa, 9, None), Log::new(0xb, 9, None));
    std::mem::swap(&mut a.records[4], &mut b.records[4]);
    let report = verify(&[&a, &b], &[]);
    let found: Vec<_> = report
        .faults
        .iter()
        .map(|fault| (fault.chain, fault.seq, fault.cause.clone()))
        .collect();
    assert_eq!(
        found,
        [
            (A, 4, Cause::Moved { chain: B, seq: 4 }),
            (B, 4, Cause::Moved { chain: A, seq: 4 })
        ]
    );

    let mut log = Log::new(0xa, 9, None);
    log.records.swap(3, 5);
    assert_eq!(
        only_fault(&verify(&[&log], &[])),
        (A, 3, Cause::Moved { chain: A, seq: 5 })
    );
}

#[test]
fn a_deleted_chain_is_missed_by_its_successor_or_by_a_checkpoint() {
    let first = Log::new(0xa, 5, None);
    let second = Log::new(0xb, 5, Some(&first));
    let report = verify(&[&second], &[]);
    assert_eq!(
        only_fault(&report),
        (A, 0, Cause::ChainMissing("a later chain continues it"))
    );
    let report = verify(&[&first], &[second.checkpoint(2, &key(1))]);
    assert_eq!(
        only_fault(&report),
        (B, 0, Cause::ChainMissing("a checkpoint names it"))
    );
}

#[test]
fn a_chain_must_end_as_its_successor_says() {
    let first = Log::new(0xa, 9, None);
    let second = Log::new(0xb, 5, Some(&first));
    let mut short = first.clone();
    short.records.truncate(6);
    let cause = Cause::ShorterThanLinked {
        successor: B,
        size: 9,
    };
    assert_eq!(only_fault(&verify(&[&short, &second], &[])), (A, 6, cause));
    let longer = Log::new(0xa, 12, None);
    let cause = Cause::LongerThanLinked { successor: B };
    assert_eq!(only_fault(&verify(&[&longer, &second], &[])), (A, 9, cause));
    let rewritten = first.rewritten(8, |text| text.replace("completed", "complete!"));
    let cause = Cause::HeadDiffers { successor: B };
    assert_eq!(
        only_fault(&verify(&[&rewritten, &second], &[])),
        (A, 8, cause)
    );
}

#[test]
fn a_chain_begins_with_its_genesis() {
    let log = Log::new(0xa, 3, None);
    let other = log.rewritten(0, |text| text.replace("genesis", "genesiS"));
    assert_eq!(
        only_fault(&verify(&[&other], &[])),
        (A, 0, Cause::NotGenesis)
    );
}

#[test]
fn a_checkpoint_counts_only_with_a_trusted_signature() {
    let log = Log::new(0xa, 9, None);
    let report = verify(&[&log], &[log.checkpoint(5, &key(2))]);
    let cause = Cause::Checkpoint {
        size: 5,
        error: NoteError::Untrusted,
    };
    assert_eq!(only_fault(&report), (A, 5, cause));
    // A right signature over another root.
    let other = log.rewritten(3, |text| text.replace("opened", "0pened"));
    let report = verify(&[&log], &[other.checkpoint(5, &key(1))]);
    assert_eq!(
        only_fault(&report),
        (
            A,
            0,
            Cause::Rehashed {
                size: 5,
                holder: "outside"
            }
        )
    );
}

#[test]
fn unreadable_storage_is_a_fault_of_the_record_that_should_be_there() {
    let log = Log::new(0xa, 9, None);
    let mut verifier = Verifier::new(Order::Strict, Vec::new());
    for (seq, (bytes, hash)) in log.records.iter().take(4).enumerate() {
        verifier.record(A, seq as u64, bytes, Some(*hash));
    }
    verifier.damaged(A, 4, "scratched".into());
    assert_eq!(
        only_fault(&verifier.finish()),
        (A, 4, Cause::Damaged("scratched".into()))
    );
}
