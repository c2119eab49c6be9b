use super::*;
use crate::audit::{
    fixture::{Log, key},
    record::{Entry, Event},
    stump::{self, First},
    succession,
};

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

/// What pruning the first `count` records of `log` keeps, and the record that says so.
fn pruned(log: &Log, count: usize) -> (Stump, Entry) {
    let (mut head, mut tree) = (Head::empty(log.head.chain), Frontier::default());
    let mut first = First::read(&log.records[0].0).unwrap();
    for (_, record_hash) in &log.records[..count] {
        let leaf = Commitment {
            chain: head.chain,
            seq: head.size,
            record_hash: *record_hash,
            payload_hash: Hash::ZERO,
        };
        first.climb(&tree, &leaf);
        tree.push(&leaf.bytes());
        head = head.after(*record_hash);
    }
    let stump = Stump {
        head,
        tree,
        first,
        clean: false,
        open: vec!["s-1".into()],
    };
    let event = Event::Pruned(stump.announce(0, "age 1d"));
    let session = String::new();
    (stump, Entry { session, event })
}

/// The log without its first `count` records, with `stump` in their place.
fn verify_pruned(stump: &Stump, logs: &[(&Log, usize)], outside: &[String]) -> Report {
    verify_signed(stump, logs, outside, 0)
}

/// The same with checkpoints beside the log that do not cover each chain's last `unsigned` records.
fn verify_signed(
    stump: &Stump,
    logs: &[(&Log, usize)],
    outside: &[String],
    unsigned: u64,
) -> Report {
    let mut verifier = Verifier::new(Order::Strict, vec![key(1).verifier().clone()]);
    for (log, _) in logs {
        let signed = log.checkpoint(log.head.size - unsigned, &key(1));
        verifier.checkpoint(&signed, Holder::Inside).unwrap();
    }
    for note in outside {
        verifier.checkpoint(note, Holder::Outside).unwrap();
    }
    let text = stump.text();
    let read = Stump::read(text.as_bytes()).unwrap();
    assert_eq!(read.text(), text);
    verifier.pruned(&read, stump::digest(text.as_bytes()));
    for (log, from) in logs {
        for (seq, (bytes, hash)) in log.records.iter().enumerate().skip(*from) {
            verifier.record(log.head.chain, seq as u64, bytes, Some(*hash));
        }
    }
    verifier.finish()
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]

    /// For every cut, what a rule took away reads as pruned, by the same chain's record or by a later one's, and outside
    /// checkpoints go on vouching for what is left; without the record, or with another stump, it reads as missing.
    #[test]
    fn what_a_rule_took_is_pruned_and_what_anyone_else_took_is_missing(
        size in 3_u64..60, part in 0.0..1.0, again in proptest::bool::ANY,
    ) {
        let mut log = Log::new(0xa, size, None);
        let count = 1 + (part * (size - 1) as f64) as usize;
        let (stump, entry) = pruned(&log, count);
        let unannounced = log.clone();
        let mut other = Log::new(0xb, 4, Some(&log));
        if again {
            log.push(&entry);
        } else {
            other.push(&entry);
        }
        let logs: &[(&Log, usize)] = if again { &[(&log, count)] } else { &[(&log, count), (&other, 0)] };
        let report = verify_pruned(&stump, logs, &[]);
        assert_eq!(report.verdict(), Verdict::Unanchored, "{:?}", report.faults);
        let found = &report.chains[0];
        assert_eq!((found.pruned, found.records), (count as u64, log.head.size - count as u64));
        assert_eq!(found.replica, "a");
        // A checkpoint from before is of nothing that is left; any later one vouches for it.
        for (at, verdict) in [(count as u64 - 1, Verdict::Unanchored), (count as u64, Verdict::Whole), (log.head.size, Verdict::Whole)] {
            if at > 0 {
                let outside = [log.checkpoint(at, &key(1))];
                assert_eq!(verify_pruned(&stump, logs, &outside).verdict(), verdict, "{at}");
            }
        }
        // Anybody can append what no checkpoint covers.
        let report = verify_signed(&stump, logs, &[], 1);
        let cause = Cause::NotAnnounced { records: count as u64 };
        assert!(report.faults.iter().any(|fault| fault.cause == cause), "{:?}", report.faults);
        // Nobody said so.
        let cause = Cause::NotAnnounced { records: count as u64 };
        let report = verify_pruned(&stump, &[(&unannounced, count)], &[]);
        assert_eq!(only_fault(&report), (A, 0, cause.clone()));
        // Somebody else's stump, which holds together.
        let rewritten = unannounced.rewritten(0, |text| text.replace("\"replica\":\"a\"", "\"replica\":\"b\""));
        let (forged, _) = pruned(&rewritten, count);
        let logs: Vec<(&Log, usize)> = logs.to_vec();
        let report = verify_pruned(&forged, &logs, &[]);
        assert_eq!(report.verdict(), Verdict::Tampered);
        // More is gone than the rule took.
        if count + 1 < log.records.len() {
            let mut less = logs.clone();
            less[0].1 += 1;
            let report = verify_pruned(&stump, &less, &[]);
            assert_eq!((report.faults[0].seq, report.faults[0].cause.clone()), (count as u64, Cause::Missing));
        }
        // And nothing in its place.
        let mut verifier = Verifier::new(Order::Strict, Vec::new());
        for (seq, (bytes, hash)) in log.records.iter().enumerate().skip(count) {
            verifier.record(A, seq as u64, bytes, Some(*hash));
        }
        assert_eq!(only_fault(&verifier.finish()), (A, 0, Cause::Missing));
    }
}

/// What stands before a pruned chain is vouched for by whatever vouches for that chain: who has every key and leaves it out, or
/// puts another in its place, must forge the genesis in the stump, and so the tree over the pruned records.
#[test]
fn a_genesis_forged_in_a_stump_is_found_by_a_checkpoint_of_its_chain_or_of_a_later_one() {
    for count in 1..12 {
        let a = Log::new(0xa, 5, None);
        let b = Log::new(0xb, 12, Some(&a));
        let (honest, entry) = pruned(&b, count);
        let mut c = Log::new(0xc, 4, Some(&b));
        c.push(&entry);
        let whole = verify_pruned(
            &honest,
            &[(&a, 0), (&b, count), (&c, 0)],
            &[c.checkpoint(1, &key(1))],
        );
        assert_eq!(whole.verdict(), Verdict::Whole, "{:?}", whole.faults);
        let covered: Vec<u64> = whole.chains.iter().map(|chain| chain.whole).collect();
        assert_eq!(covered, [5, 12, 1]);
        // Left out as it is.
        let report = verify_pruned(&honest, &[(&b, count), (&c, 0)], &[]);
        assert_eq!(
            only_fault(&report).2,
            Cause::ChainMissing("a later chain continues it")
        );

        // The forged stump is of the first records of this one, with the links to what is left.
        let alone = b.rewritten(0, |text| {
            let [before, behind] = [a.head.chain.to_string(), String::new()];
            text.replace(&before, &behind)
        });
        let (mut forged, _) = pruned(&alone, count);
        forged.head = honest.head;
        let mut mixed = b.clone();
        mixed.records[..count].clone_from_slice(&alone.records[..count]);
        let forger = |c: &Log, outside: &[String]| {
            let mut c = c.clone();
            c.push(&Entry {
                session: String::new(),
                event: Event::Pruned(forged.announce(0, "age 1d")),
            });
            let mut verifier = Verifier::new(Order::Strict, vec![key(1).verifier().clone()]);
            for signed in [
                mixed.checkpoint(12, &key(1)),
                c.checkpoint(c.head.size, &key(1)),
            ] {
                verifier.checkpoint(&signed, Holder::Inside).unwrap();
            }
            for note in outside {
                verifier.checkpoint(note, Holder::Outside).unwrap();
            }
            let text = forged.text();
            verifier.pruned(
                &Stump::read(text.as_bytes()).unwrap(),
                stump::digest(text.as_bytes()),
            );
            for (log, from) in [(&mixed, count), (&c, 0)] {
                for (seq, (bytes, hash)) in log.records.iter().enumerate().skip(from) {
                    verifier.record(log.head.chain, seq as u64, bytes, Some(*hash));
                }
            }
            verifier.finish()
        };
        let cause = Cause::RootDiffers {
            successor: c.head.chain,
        };
        assert_eq!(only_fault(&forger(&c, &[])), (B, 0, cause));
        // Who brings the later chain in line as well has what a checkpoint outside says against them.
        let in_line = c.rewritten(0, |text| {
            text.replace(&b.tree.root().to_string(), &mixed_root(&mixed))
        });
        assert_eq!(forger(&in_line, &[]).verdict(), Verdict::Unanchored);
        let report = forger(&in_line, &[c.checkpoint(1, &key(1))]);
        assert_eq!(report.faults[0].chain, c.head.chain);
        let report = forger(&in_line, &[b.checkpoint(count as u64, &key(1))]);
        assert_eq!(report.faults[0].chain, B);
    }
}

fn mixed_root(log: &Log) -> String {
    let signed = log.checkpoint(log.records.len() as u64, &key(1));
    Checkpoint::read_unchecked(&signed)
        .unwrap()
        .root
        .to_string()
}

/// However often a chain is pruned, its stump is the one that pruning it once would have left.
#[test]
fn a_stump_grows_from_the_one_before_it() {
    let log = Log::new(0xa, 140, None);
    let mut grown = Stump::read(pruned(&log, 1).0.text().as_bytes()).unwrap();
    for count in 1..140 {
        let (whole, _) = pruned(&log, count);
        assert_eq!(
            Stump::read(whole.text().as_bytes()),
            Ok(whole.clone()),
            "{count}"
        );
        assert_eq!(grown, whole, "{count}");
        let leaf = Commitment {
            chain: A,
            seq: count as u64,
            record_hash: log.records[count].1,
            payload_hash: Hash::ZERO,
        };
        grown.first.climb(&grown.tree, &leaf);
        grown.tree.push(&leaf.bytes());
        grown.head = grown.head.after(leaf.record_hash);
    }
}

#[test]
fn a_stump_that_contradicts_itself_is_none() {
    let (stump, _) = pruned(&Log::new(0xa, 9, None), 5);
    let text = stump.text();
    let old = Stump::read(br#"{"format": "countersign/pruned/v1", "records": "5"}"#);
    assert_eq!(old, Err(stump::NotAStump::Old));
    assert!(old.unwrap_err().to_string().contains("verify it with"));
    for (from, to) in [
        ("pruned/v2", "pruned/v3"),
        ("monotonicNs", "monotonicMs"),
        ("\\\"replica\\\":\\\"a\\\"", "\\\"replica\\\":\\\"b\\\""),
        ("\"path\": [", "\"path\": [],\n  \"path\": ["),
        ("\"records\": \"5\"", "\"records\": \"4\""),
        ("\"records\": \"5\"", "\"records\": \"0\""),
        ("\"clean\"", "\"cleen\""),
    ] {
        let bad = text.replacen(from, to, 1);
        assert_ne!(bad, text);
        assert_eq!(
            Stump::read(bad.as_bytes()),
            Err(stump::NotAStump::Malformed),
            "{bad}"
        );
    }
}

/// Whatever a stretch is cut into, and whatever is wrong in it: it is taken where all is as one by one, or not at all.
#[test]
fn stretches_say_what_records_one_by_one_say() {
    let log = Log::new(0xa, 30, None);
    let outside = [log.checkpoint(7, &key(1)), log.checkpoint(30, &key(1))];
    let in_stretches = |log: &Log, cut: usize| {
        let mut verifier = Verifier::new(Order::Strict, vec![key(1).verifier().clone()]);
        for note in &outside {
            verifier.checkpoint(note, Holder::Outside).unwrap();
        }
        let marks = verifier.marks(A);
        let mut start = Head::empty(A);
        let mut taken = true;
        for range in [0..cut, cut..log.records.len()] {
            let mut stretch = Stretch::new(start);
            for seq in range {
                let (bytes, hash) = &log.records[seq];
                let is_mark = marks.contains(&(seq as u64 + 1));
                taken &= stretch.record(seq as u64, bytes, *hash, is_mark);
                start = start.after(*hash);
            }
            taken = taken && verifier.stretch(stretch);
        }
        (taken, verifier)
    };
    for cut in 0..=30 {
        let (taken, verifier) = in_stretches(&log, cut);
        assert!(taken, "{cut}");
        assert_eq!(verifier.finish(), verify(&[&log], &outside));
    }
    for at in 0..30 {
        let rewritten = log.rewritten(at, |text| text.replacen("05:27", "06:27", 1));
        for cut in [0, 5, 30] {
            assert!(
                !in_stretches(&rewritten, cut).0,
                "record {at} was rewritten"
            );
        }
    }
}

#[test]
fn a_key_that_follows_another_is_believed_through_its_record_alone() {
    let mut log = Log::new(0xa, 9, None);
    let statement = succession::introduce(&key(1), key(2).verifier());
    let event = Event::Rotated(Rotated {
        key: key(2).verifier().to_string(),
        introductions: vec![statement.clone()],
    });
    let before = log.clone();
    log.push(&Entry {
        session: String::new(),
        event,
    });
    let by = |log: &Log, n| verify(&[log], &[log.checkpoint(9, &key(n))]);
    assert_eq!(by(&log, 2).verdict(), Verdict::Whole);
    assert_eq!(by(&log, 2).keys.len(), 2);
    assert_eq!(only_fault(&by(&log, 3)).1, 9);
    let cause = Cause::Checkpoint {
        size: 9,
        error: NoteError::Untrusted,
    };
    assert_eq!(only_fault(&by(&before, 2)), (A, 9, cause));
}

#[test]
fn a_long_stretch_that_was_sent_again_is_proven_by_where_it_leads() {
    let log = Log::new(0xa, WINDOW as u64 + 50, None);
    let size = log.records.len();
    let all_then = |seqs: &[usize]| {
        let all: Vec<usize> = (0..size).chain(seqs.iter().copied()).collect();
        in_order(Order::Resent, &log, &all)
    };
    let told = |report: &Report| (report.verdict(), report.repeats, report.late_repeats);
    let whole: Vec<usize> = (0..size).collect();
    assert_eq!(
        told(&all_then(&whole)),
        (Verdict::Unanchored, size as u64, 0)
    );
    assert_eq!(told(&all_then(&whole[..9])), (Verdict::Unanchored, 0, 9));
    let broken = [&whole[..9], &whole[20..]].concat();
    assert_eq!(
        told(&all_then(&broken)),
        (Verdict::Unanchored, size as u64 - 20, 9)
    );
    // One that differs leads elsewhere.
    let mut verifier = Verifier::new(Order::Resent, Vec::new());
    feed(&mut verifier, &log);
    let other = log.rewritten(30, |text| text.replacen("05:27", "06:27", 1));
    for seq in 20..60 {
        let of = if seq < 50 { &other } else { &log };
        verifier.record(A, seq as u64, &of.records[seq].0, None);
    }
    assert_eq!(only_fault(&verifier.finish()), (A, 49, Cause::Duplicated));
}

/// A topic that begins late: the rest holds together, its end is still named, and nobody says "whole" or "tampered" of what is not
/// there: also where a record says that the disk's copy was pruned, which may go only because the topic has the other.
#[test]
fn what_a_topic_no_longer_has_is_not_provable_whatever_went_from_the_disk() {
    let a = Log::new(0xa, 30, None);
    let mut b = Log::new(0xb, 8, Some(&a));
    let (_, entry) = pruned(&a, 12);
    b.push(&entry);
    let check = |from: usize, logs: &[(&Log, usize)], change: &dyn Fn(&mut Verifier)| {
        let mut verifier = Verifier::new(Order::Resent, vec![key(1).verifier().clone()]);
        for (log, _) in logs {
            let signed = log.checkpoint(log.head.size, &key(1));
            verifier.checkpoint(&signed, Holder::Inside).unwrap();
        }
        verifier.begins_late(Late::Somewhere);
        for (log, first) in logs {
            if *first > 0 {
                let position = Position::read(&log.records[*first].0).unwrap();
                let (size, hash) = (position.seq, position.previous);
                let chain = log.head.chain;
                verifier.begins_at(Head { chain, size, hash });
            }
            for (seq, (bytes, _)) in log.records.iter().enumerate().skip(*first) {
                verifier.record(log.head.chain, seq as u64, bytes, None);
            }
        }
        change(&mut verifier);
        let report = verifier.finish();
        assert_eq!(report.chains[0].pruned, from as u64);
        report
    };
    let told = check(12, &[(&a, 12), (&b, 0)], &|_| {});
    let lacks = |chain, records, pruned| {
        let lacks = Expired {
            chain,
            records,
            pruned,
        };
        (Verdict::Unprovable, vec![lacks])
    };
    assert_eq!((told.verdict(), told.expired), lacks(A, 12, true));
    let more = check(13, &[(&a, 13), (&b, 0)], &|_| {});
    assert_eq!((more.verdict(), more.expired), lacks(A, 13, false));
    let alone = check(12, &[(&a, 12)], &|_| {});
    assert_eq!((alone.verdict(), alone.expired), lacks(A, 12, false));
    // None of it, and its successor is there from the beginning.
    let none = check(0, &[(&b, 0)], &|_| {});
    assert_eq!((none.verdict(), none.expired), lacks(A, 30, false));
    let mut all_told = Log::new(0xb, 8, Some(&a));
    all_told.push(&pruned(&a, 30).1);
    let none = check(0, &[(&all_told, 0)], &|_| {});
    assert_eq!((none.verdict(), none.expired), lacks(A, 30, true));
    // Nothing names what was there but the record, or nothing at all.
    let mut only_told = Log::new(0xb, 8, None);
    only_told.push(&pruned(&a, 30).1);
    let none = check(0, &[(&only_told, 0)], &|_| {});
    assert_eq!((none.verdict(), none.expired), lacks(A, 30, true));
    let mut emptied = Verifier::new(Order::Resent, Vec::new());
    emptied.begins_late(Late::Somewhere);
    let emptied = emptied.finish();
    assert_eq!(emptied.verdict(), Verdict::Unprovable);
    // What is left is still looked at: a changed record, one that is missing, an end that is cut off.
    let changed = a.rewritten(20, |text| text.replacen("05:27", "06:27", 1));
    let mut mixed = a.clone();
    mixed.records[20] = changed.records[20].clone();
    assert_eq!(
        only_fault(&check(12, &[(&mixed, 12), (&b, 0)], &|_| {})).1,
        20
    );
    let mut short = a.clone();
    short.records.truncate(25);
    let report = check(12, &[(&short, 12), (&b, 0)], &|_| {});
    assert_eq!(only_fault(&report), (A, 25, Cause::Truncated { size: 30 }));
    let late = check(12, &[(&a, 12), (&b, 0)], &|verifier| {
        verifier.record(A, 31, &b.records[3].0, None);
    });
    assert_eq!(late.verdict(), Verdict::Tampered);
    // A message that comes again from before is no tampering.
    let again = check(12, &[(&a, 12), (&b, 0)], &|verifier| {
        for seq in 5..14 {
            verifier.record(A, seq, &a.records[seq as usize].0, None);
        }
    });
    assert_eq!(again.verdict(), Verdict::Unprovable, "{:?}", again.faults);
}

/// Of two partitions one was shortened: what is gone from the other has not gone that way.
#[test]
fn a_chain_missing_from_a_partition_that_is_whole_is_missing() {
    let a = Log::new(0xa, 30, None);
    let b = Log::new(0xb, 8, Some(&a));
    let check = |late: u32| {
        let mut verifier = Verifier::new(Order::Resent, vec![key(1).verifier().clone()]);
        for log in [&a, &b] {
            let signed = log.checkpoint(log.head.size, &key(1));
            verifier.checkpoint(&signed, Holder::Inside).unwrap();
        }
        for (seq, (bytes, _)) in b.records.iter().enumerate() {
            verifier.record(B, seq as u64, bytes, None);
        }
        verifier.begins_late(Late::In {
            partitions: 5,
            late: [late].into(),
        });
        verifier.finish()
    };
    let its = partition_of(A, 5);
    assert_eq!(check(its).verdict(), Verdict::Unprovable);
    let gone = check((its + 1) % 5);
    let fault = only_fault(&gone);
    assert_eq!(fault.0, A);
    assert!(matches!(fault.2, Cause::ChainMissing(_)), "{fault:?}");
}

/// Whoever can write to the directory can append a record that no checkpoint covers.
#[test]
fn a_record_of_what_was_discarded_counts_only_under_a_checkpoint() {
    let mut log = Log::new(0xa, 8, None);
    let mut say = |until: &str| {
        let told = Discarded {
            until: until.to_owned(),
            ..Discarded::default()
        };
        log.push(&Entry {
            session: String::new(),
            event: Event::Discarded(told),
        });
        log.clone()
    };
    let covered = say("2026-01-01T00:00:00Z");
    let appended = say("2027-01-01T00:00:00Z");
    let told = |signed: Option<&Log>| {
        let mut verifier = Verifier::new(Order::Strict, vec![key(1).verifier().clone()]);
        if let Some(log) = signed {
            let signed = log.checkpoint(log.head.size, &key(1));
            verifier.checkpoint(&signed, Holder::Inside).unwrap();
        }
        for (seq, (bytes, _)) in appended.records.iter().enumerate() {
            verifier.record(A, seq as u64, bytes, None);
        }
        let report = verifier.finish();
        assert_eq!(report.faults, []);
        report.discarded.map(|told| told.until)
    };
    assert_eq!(told(None), None);
    assert_eq!(
        told(Some(&covered)).as_deref(),
        Some("2026-01-01T00:00:00Z")
    );
    assert_eq!(
        told(Some(&appended)).as_deref(),
        Some("2027-01-01T00:00:00Z")
    );
}
