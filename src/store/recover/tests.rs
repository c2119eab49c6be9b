use std::os::unix::fs::FileExt;

use super::*;
use crate::{
    audit::{
        chain::Stamp,
        checkpoint::Checkpoint,
        fixture,
        record::{Closed, Entry, Event, Genesis, Opened, Shutdown},
    },
    store::{disk::RealDisk, frame::SEGMENT_HEADER, wal::Wal},
};

/// A chain of one segment: genesis, then `opened` and `closed` in turn, each synced when `synced` says so.
struct Made {
    dir: tempfile::TempDir,
    chain: ChainDir,
    /// Where each frame begins, and the end.
    frames: Vec<u64>,
}

fn entries(count: usize) -> Vec<Entry> {
    let mut entries = vec![Entry {
        session: String::new(),
        event: Event::Genesis(Genesis::default()),
    }];
    for n in 1..count {
        let session = format!("s-{:02}", (n - 1) / 2);
        let event = match n % 2 {
            1 => Event::Opened(Box::<Opened>::default()),
            _ => Event::Closed(Box::<Closed>::default()),
        };
        entries.push(Entry { session, event });
    }
    entries
}

fn made(entries: &[Entry], sync_each: bool) -> Made {
    let dir = crate::store::testing::dir();
    let chain = ChainDir::new(dir.path(), 1, ChainId([7; 16]));
    fs::create_dir_all(&chain.path).unwrap();
    let mut wal = Wal::create(Box::new(RealDisk), chain.clone(), 1 << 20).unwrap();
    let mut frames = vec![SEGMENT_HEADER as u64];
    for entry in entries {
        let time = "2026-11-22T00:00:00Z".parse().unwrap();
        let stamp = Stamp {
            time,
            monotonic_ns: 0,
            replica: "a",
        };
        let json = serde_json::to_vec(entry).unwrap();
        let grown = wal.append(&[(stamp, &json)], &mut Vec::new()).unwrap();
        frames.push(frames.last().unwrap() + grown);
        if sync_each {
            wal.sync().unwrap();
        }
    }
    Made { dir, chain, frames }
}

impl Made {
    fn recover(&self) -> Result<Recovered, StoreError> {
        recover(self.dir.path(), None)
    }

    fn segment(&self) -> File {
        File::options()
            .read(true)
            .write(true)
            .open(self.chain.segment(0))
            .unwrap()
    }

    fn sign(&self, size: u64) {
        let (deployment, chain, root) = (
            "demo".to_owned(),
            self.chain.chain,
            crate::audit::Hash([0; 32]),
        );
        let note = Checkpoint {
            deployment,
            chain,
            size,
            root,
        }
        .sign(&fixture::key(1));
        fs::write(self.chain.checkpoints(), format!("{note}\n")).unwrap();
    }
}

fn damage(result: Result<Recovered, StoreError>) -> Damage {
    match result {
        Err(StoreError::Damaged(damage)) => *damage,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_log_cut_at_every_byte_of_its_last_three_records_keeps_every_whole_record() {
    let count = 10;
    let whole = made(&entries(count), true);
    let bytes = fs::read(whole.chain.segment(0)).unwrap();
    for cut in whole.frames[count - 3]..=whole.frames[count] {
        let torn = made(&[], true);
        fs::write(
            torn.chain.segment(0),
            &bytes[..usize::try_from(cut).unwrap()],
        )
        .unwrap();
        let kept = whole.frames.iter().filter(|end| **end <= cut).count() as u64 - 1;
        let found = torn.recover().unwrap();
        let previous = found.previous.unwrap();
        assert_eq!(previous.head.size, kept, "cut at {cut}");
        let boundary = whole.frames[usize::try_from(kept).unwrap()];
        assert_eq!(previous.torn_bytes, cut - boundary);
        assert_eq!(found.cuts.len(), usize::from(cut > boundary));
        // Genesis, then opened, closed, opened, ...: one is open when an even number of records is left.
        assert_eq!(
            found.orphans.len(),
            usize::from(kept.is_multiple_of(2)),
            "cut at {cut}"
        );
        if let Some(cut_off) = found.cuts.first() {
            assert_eq!((cut_off.offset, cut_off.bytes), (boundary, cut - boundary));
            let mut kept_file = cut_off.file.clone().into_os_string();
            kept_file.push(format!(".{boundary}.cut"));
            let start = usize::try_from(boundary).unwrap();
            assert_eq!(
                fs::read(kept_file).unwrap(),
                bytes[start..usize::try_from(cut).unwrap()]
            );
        }
        // A second recovery finds nothing to do.
        let again = torn.recover().unwrap();
        assert_eq!(
            (again.cuts.len(), again.previous.unwrap().head),
            (0, previous.head)
        );
    }
}

#[test]
fn a_segment_without_a_whole_header_is_removed_and_a_chain_without_records_too() {
    for length in [0, 1, SEGMENT_HEADER as u64 - 1, SEGMENT_HEADER as u64] {
        let made = made(&[], true);
        made.segment().set_len(length).unwrap();
        let found = made.recover().unwrap();
        assert_eq!(found.previous, None, "{length}");
        assert!(!made.chain.path.exists());
        assert_eq!(found.next_ordinal, 2);
    }
}

#[test]
fn a_tail_of_zeros_is_a_torn_write() {
    let made = made(&entries(4), true);
    let end = *made.frames.last().unwrap();
    made.segment().set_len(end + 5_000).unwrap();
    let previous = made.recover().unwrap().previous.unwrap();
    assert_eq!((previous.head.size, previous.torn_bytes), (4, 5_000));
}

#[test]
fn a_durable_record_that_was_changed_stops_the_start_and_says_where() {
    let made = made(&entries(8), true);
    let offset = made.frames[3];
    for at in [offset, offset + 10, offset + 59, offset + 60, offset + 200] {
        let before = fs::read(made.chain.segment(0)).unwrap();
        let mut byte = [0];
        made.segment().read_exact_at(&mut byte, at).unwrap();
        made.segment().write_all_at(&[byte[0] ^ 4], at).unwrap();
        let found = damage(made.recover());
        assert_eq!((found.seq, found.offset), (3, offset), "byte {at}");
        let message = found.to_string();
        for part in [
            "00000000000000000000.seg",
            "record 3",
            "countersign verify --dir",
            "mv ",
        ] {
            assert!(message.contains(part), "{message}");
        }
        fs::write(made.chain.segment(0), before).unwrap();
    }
    assert!(made.recover().is_ok());
}

#[test]
fn records_that_never_reached_the_disk_may_be_torn_in_any_mixture() {
    // None was synced, as after a power cut in the middle of a batch: pages may be missing before ones that are there.
    let made = made(&entries(8), false);
    made.segment()
        .write_all_at(&[0; 100], made.frames[3] + 20)
        .unwrap();
    let previous = made.recover().unwrap().previous.unwrap();
    assert_eq!(previous.head.size, 3);
    assert_eq!(previous.torn_bytes, made.frames[8] - made.frames[3]);
}

#[test]
fn what_a_checkpoint_or_kafka_has_seen_was_durable() {
    let made = made(&entries(8), false);
    made.segment().set_len(made.frames[7] + 9).unwrap();
    let chain = made.chain.chain;
    let cursor = |seq| {
        Some(Cursor {
            chain,
            seq,
            checkpoint_bytes: 0,
        })
    };
    assert_eq!(damage(recover(made.dir.path(), cursor(8))).seq, 7);
    made.sign(8);
    assert_eq!(damage(made.recover()).seq, 7);
    made.sign(7);
    assert_eq!(
        recover(made.dir.path(), cursor(7))
            .unwrap()
            .previous
            .unwrap()
            .head
            .size,
        7
    );
}

#[test]
fn a_record_rewritten_with_its_checksums_is_not_taken_for_a_crash() {
    let original = made(&entries(6), false);
    let mut bytes = fs::read(original.chain.segment(0)).unwrap();
    let start = usize::try_from(original.frames[5]).unwrap();
    let mut record = bytes[start + FRAME_HEADER..].to_vec();
    let last = record.len() - 3;
    record[last] ^= 1;
    let header: [u8; FRAME_HEADER] = bytes[start..start + FRAME_HEADER].try_into().unwrap();
    let header = FrameHeader::read(&header).unwrap();
    bytes.truncate(start);
    super::super::frame::write_frame(
        &mut bytes,
        header.seq,
        header.record_hash,
        header.synced,
        &record,
    );
    fs::write(original.chain.segment(0), bytes).unwrap();
    let found = damage(original.recover());
    assert_eq!((found.seq, found.offset), (5, original.frames[5]));
}

#[test]
fn sessions_open_across_chains_are_found_until_they_were_closed() {
    let first = made(&entries(6), true); // s-02 is open
    let dir = first.dir.path();
    let found = first.recover().unwrap();
    assert_eq!(found.orphans, ["s-02"]);
    // The next process died before it had closed it, with one of its own open.
    let second = ChainDir::new(dir, found.next_ordinal, ChainId([8; 16]));
    fs::create_dir_all(&second.path).unwrap();
    let mut wal = Wal::create(Box::new(RealDisk), second.clone(), 1 << 20).unwrap();
    let mut push = |entry: &Entry| {
        let time = "2026-11-22T00:00:00Z".parse().unwrap();
        let stamp = Stamp {
            time,
            monotonic_ns: 0,
            replica: "a",
        };
        wal.append(
            &[(stamp, &serde_json::to_vec(entry).unwrap())],
            &mut Vec::new(),
        )
        .unwrap();
    };
    push(&entries(1)[0]);
    push(&Entry {
        session: "s-90".into(),
        event: Event::Opened(Box::default()),
    });
    let found = recover(dir, None).unwrap();
    assert_eq!(found.orphans, ["s-02", "s-90"]);
    assert_eq!(found.previous.as_ref().unwrap().head.chain, second.chain);
    assert!(!found.previous.as_ref().unwrap().clean);
    // The one after closed both and ended well.
    push(&Entry {
        session: "s-02".into(),
        event: Event::Closed(Box::default()),
    });
    push(&Entry {
        session: "s-90".into(),
        event: Event::Closed(Box::default()),
    });
    push(&Entry {
        session: String::new(),
        event: Event::Shutdown(Shutdown::default()),
    });
    let found = recover(dir, None).unwrap();
    assert!(found.orphans.is_empty());
    assert!(found.previous.as_ref().unwrap().clean);
    mark(&found.to_mark).unwrap();
    let again = recover(dir, None).unwrap();
    assert_eq!(again.previous, found.previous);
    assert_eq!(again.to_mark.len(), 1);
}
