use std::io::ErrorKind;

use super::*;
use crate::{
    audit::{
        ChainId,
        record::{Entry, Event, Genesis},
        verify::{Order, Report, Verdict, Verifier},
    },
    store::{
        disk::faulty::Faults,
        reader::{ChainReader, Step},
    },
};

struct Bench {
    _dir: tempfile::TempDir,
    chain: ChainDir,
    faults: Faults,
    wal: Wal,
}

fn bench(segment_bytes: u64) -> Bench {
    let dir = crate::store::testing::dir();
    let chain = ChainDir::new(dir.path(), 1, ChainId([7; 16]));
    std::fs::create_dir_all(&chain.path).unwrap();
    let faults = Faults::default();
    let wal = Wal::create(faults.disk(), chain.clone(), segment_bytes).unwrap();
    let mut bench = Bench {
        _dir: dir,
        chain,
        faults,
        wal,
    };
    let genesis = Entry {
        session: String::new(),
        event: Event::Genesis(Genesis::default()),
    };
    bench
        .append(&[&serde_json::to_string(&genesis).unwrap()])
        .unwrap();
    bench
}

impl Bench {
    fn append(&mut self, entries: &[&str]) -> io::Result<Vec<Receipt>> {
        let time = "2026-11-22T00:00:00Z".parse().unwrap();
        let stamp = Stamp {
            time,
            monotonic_ns: 0,
            replica: "a",
        };
        let entries: Vec<_> = entries
            .iter()
            .map(|entry| (stamp, entry.as_bytes()))
            .collect();
        let mut receipts = Vec::new();
        self.wal.append(&entries, &mut receipts)?;
        Ok(receipts)
    }

    /// What a reader finds: sound, and these entries in this order.
    fn holds(&self, expected: &[&str]) -> Report {
        let mut reader = ChainReader::new(self.chain.clone());
        let mut verifier = Verifier::new(Order::Strict, Vec::new());
        let mut found = Vec::new();
        loop {
            match reader.step().unwrap() {
                Step::Record(stored) => {
                    verifier.record(
                        self.chain.chain,
                        stored.seq,
                        &stored.bytes,
                        Some(stored.record_hash),
                    );
                    let text = String::from_utf8(stored.bytes).unwrap();
                    found.push(text.split_once(r#""replica":"a","#).unwrap().1.to_owned());
                }
                Step::End(tail) => {
                    assert_eq!(tail.torn, 0);
                    break;
                }
                Step::Damaged(damage) => panic!("{damage}"),
            }
        }
        let expected: Vec<&str> = expected
            .iter()
            .map(|entry| entry.strip_prefix('{').unwrap())
            .collect();
        assert_eq!(found[1..], expected);
        let report = verifier.finish();
        assert_eq!(report.verdict(), Verdict::Unanchored, "{:?}", report.faults);
        assert_eq!(report.records(), self.wal.head().size);
        report
    }
}

const ONE: &str = r#"{"session":"1"}"#;
const TWO: &str = r#"{"session":"22"}"#;
const THREE: &str = r#"{"session":"333"}"#;
const FOUR: &str = r#"{"session":"4444"}"#;

#[test]
fn receipts_name_what_a_reader_finds_across_segments() {
    let mut bench = bench(200);
    let mut receipts = bench.append(&[ONE, TWO]).unwrap();
    receipts.extend(bench.append(&[THREE]).unwrap());
    receipts.extend(bench.append(&[FOUR]).unwrap());
    bench.holds(&[ONE, TWO, THREE, FOUR]);
    assert_eq!(
        receipts
            .iter()
            .map(|receipt| receipt.seq)
            .collect::<Vec<_>>(),
        [1, 2, 3, 4]
    );
    assert_eq!(receipts[3].record_hash, bench.wal.head().hash);
    assert!(bench.chain.segments().unwrap().len() >= 3);
    let mut near = ChainReader::near(bench.chain.clone(), 3).unwrap();
    assert!(
        matches!(near.step().unwrap(), Step::Record(stored) if stored.seq > 0 && stored.seq <= 3)
    );
}

#[test]
fn a_failed_write_leaves_none_of_its_batch_however_much_of_it_was_written() {
    for partly in [0, 1, 59, 60, 61, 300, 10_000] {
        let mut bench = bench(1 << 20);
        bench.append(&[ONE]).unwrap();
        bench.faults.write(Some((ErrorKind::StorageFull, partly)));
        assert_eq!(
            bench.append(&[TWO, THREE]).unwrap_err().kind(),
            ErrorKind::StorageFull
        );
        bench.holds(&[ONE]);
        bench.faults.write(None);
        bench.append(&[FOUR]).unwrap();
        bench.holds(&[ONE, FOUR]);
    }
}

#[test]
fn nothing_is_written_behind_a_torn_frame_that_cannot_be_cut_off() {
    let mut bench = bench(1 << 20);
    bench.faults.write(Some((ErrorKind::Other, 30)));
    bench.faults.cut(Some(ErrorKind::Other));
    bench.append(&[ONE]).unwrap_err();
    bench.faults.write(None);
    bench.append(&[TWO]).unwrap_err();
    bench.wal.sync().unwrap_err();
    bench.faults.cut(None);
    bench.append(&[THREE]).unwrap();
    bench.holds(&[THREE]);
}

#[test]
fn after_a_failed_sync_everything_not_on_disk_is_written_again() {
    let mut bench = bench(1 << 20);
    bench.append(&[ONE]).unwrap();
    bench.wal.sync().unwrap();
    bench.append(&[TWO, THREE]).unwrap();
    bench.faults.sync(Some(ErrorKind::Other));
    bench.wal.sync().unwrap_err();
    assert_eq!(bench.wal.synced(), 2);
    // Still failing: nothing may be added behind what is in doubt.
    bench.append(&[FOUR]).unwrap_err();
    bench.faults.sync(None);
    bench.wal.sync().unwrap();
    assert_eq!(bench.wal.synced(), 4);
    bench.append(&[FOUR]).unwrap();
    bench.holds(&[ONE, TWO, THREE, FOUR]);
}

#[test]
fn a_segment_that_cannot_be_begun_holds_up_writing_and_leaves_no_hole() {
    let mut bench = bench(100);
    for fault in [ErrorKind::StorageFull, ErrorKind::Other] {
        bench.faults.create(Some(fault));
        assert_eq!(bench.append(&[ONE]).unwrap_err().kind(), fault);
        bench.faults.create(None);
    }
    // The file is made, its header is not written.
    bench.faults.write(Some((ErrorKind::StorageFull, 10)));
    bench.append(&[ONE]).unwrap_err();
    bench.faults.write(None);
    bench.append(&[TWO]).unwrap();
    bench.append(&[THREE]).unwrap();
    bench.holds(&[TWO, THREE]);
}

#[test]
fn a_reader_that_keeps_up_sees_every_record_once() {
    let mut bench = bench(150);
    let mut reader = ChainReader::new(bench.chain.clone());
    let mut seen = Vec::new();
    for round in 0..10 {
        loop {
            match reader.step().unwrap() {
                Step::Record(stored) => seen.push(stored.seq),
                Step::End(tail) => break assert_eq!(tail.torn, 0),
                Step::Damaged(damage) => panic!("{damage}"),
            }
        }
        assert_eq!(seen.len(), 1 + round);
        bench.append(&[ONE]).unwrap();
    }
    assert_eq!(seen, (0..10).collect::<Vec<_>>());
}
