use std::{fs::File, os::unix::fs::FileExt};

use clap::Parser;

use super::*;
use crate::{
    audit::{
        Durability, fixture,
        record::{Closed, Entry, Event},
        verify::Cause,
    },
    runtime::ledger::{Ledger, LedgerOptions},
    store::{
        reader::{ChainReader, Step},
        testing,
    },
};

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    args: VerifyArgs,
}

fn try_verify(args: &[&str]) -> anyhow::Result<Checked> {
    let cli = Cli::try_parse_from(["verify"].iter().chain(args))?;
    Ok(check(cli.args)?.0)
}

fn verify(dir: &Path, more: &[&str]) -> Checked {
    try_verify(&[&["--dir", dir.to_str().unwrap()], more].concat()).unwrap()
}

fn exit(dir: &str, more: &[&str]) -> ExitCode {
    let cli = Cli::try_parse_from(["verify", "--dir", dir].iter().chain(more)).unwrap();
    run(cli.args).unwrap()
}

/// A directory with `chains` runs of one replica, each of genesis, `records` and shutdown.
fn made(chains: usize, records: usize, segment_bytes: u64) -> tempfile::TempDir {
    let dir = testing::dir();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    for _ in 0..chains {
        let mut options = LedgerOptions::new(dir.path(), "demo", "a");
        options.segment_bytes = segment_bytes;
        runtime.block_on(async {
            let ledger = Ledger::open(options).unwrap();
            for n in 0..records {
                let closed = Closed {
                    outcome: "completed".into(),
                    ..Closed::default()
                };
                let entry = Entry {
                    session: format!("s-{n}"),
                    event: Event::Closed(Box::new(closed)),
                };
                ledger.append(entry, Durability::Disk).await.unwrap();
            }
            ledger.shutdown(0).await.unwrap();
        });
    }
    dir
}

fn key_of(dir: &Path) -> String {
    dir.join("signing.key.pub").to_str().unwrap().to_owned()
}

/// A copy of the newest chain's checkpoints, kept outside.
fn keep_checkpoints(dir: &Path) -> tempfile::NamedTempFile {
    let kept = tempfile::NamedTempFile::new().unwrap();
    let chain = layout::chains(dir).unwrap().pop().unwrap();
    fs::copy(chain.checkpoints(), kept.path()).unwrap();
    kept
}

#[test]
fn a_sound_directory_is_unanchored_alone_and_whole_against_a_checkpoint_kept_outside() {
    let dir = made(2, 5, 1_000);
    let alone = verify(dir.path(), &[]);
    assert_eq!(alone.report.verdict(), Verdict::Unanchored);
    assert!(summary(&alone.report).starts_with("consistent, unanchored: 14 records in 2 chains"));
    assert!(!summary(&alone.report).contains("whole"));
    let (kept, key) = (keep_checkpoints(dir.path()), key_of(dir.path()));
    let kept = kept.path().to_str().unwrap();
    let checked = verify(dir.path(), &["--checkpoint", kept, "--trust", &key]);
    assert_eq!(checked.report.verdict(), Verdict::Whole);
    assert_eq!(checked.notices, Vec::<String>::new());
    let chain = &checked.report.chains[0];
    assert_eq!(extent(chain, &checked.report), "whole up to record 6");
    let json = as_json(&checked.report, &checked.notices);
    assert_eq!(
        (json["verdict"].as_str(), json["records"].as_u64()),
        (Some("whole"), Some(14))
    );
    let unsigned = verify(dir.path(), &["--checkpoint", kept]);
    assert!(unsigned.notices[0].contains("signatures of checkpoints were not looked at"));
}

#[test]
fn every_flipped_bit_of_a_log_is_found_at_the_right_record() {
    assert!(flip(made(1, 2, 900).path(), 0, 1) > 8_000);
    // Of a longer one, those a prime apart.
    assert!(flip(made(1, 198, 20_000).path(), 0, 211) > 2_000);
}

#[test]
#[ignore = "minutes; ./dev test --long"]
fn long_every_flipped_bit_of_200_records_is_found_at_the_right_record() {
    let log = made(1, 198, 20_000);
    let threads = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let flips = std::thread::scope(|scope| {
        let flipping = (0..threads).map(|thread| {
            let copy = testing::dir();
            copy_all(log.path(), copy.path());
            scope.spawn(move || flip(copy.path(), thread, threads))
        });
        let flipping: Vec<_> = flipping.collect();
        let flips = flipping
            .into_iter()
            .map(|flipping| flipping.join().unwrap());
        flips.sum::<usize>()
    });
    assert!(flips > 400_000);
    println!("{flips} bits flipped, each found at its record");
}

fn copy_all(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (path, to) = {
            let entry = entry.unwrap();
            (entry.path(), to.join(entry.file_name()))
        };
        match path.is_dir() {
            true => copy_all(&path, &to),
            false => _ = fs::copy(&path, &to).unwrap(),
        }
    }
}

/// Flips every `step`th bit of a log from the `first` on, one at a time; how many were flipped, each of them found at its record.
fn flip(dir: &Path, first: usize, step: usize) -> usize {
    let chain = layout::chains(dir).unwrap().remove(0);
    let segments = chain.segments().unwrap();
    assert!(segments.len() >= 2);
    // Which record each byte belongs to; of a segment's header, its first.
    let mut owners: Vec<Vec<u64>> = segments
        .iter()
        .map(|(first, path)| {
            vec![*first; usize::try_from(fs::metadata(path).unwrap().len()).unwrap()]
        })
        .collect();
    let mut reader = ChainReader::new(chain.clone());
    while let Step::Record(stored) = reader.step().unwrap() {
        let at = segments
            .iter()
            .rposition(|(first, _)| *first <= stored.seq)
            .unwrap();
        owners[at][usize::try_from(stored.offset).unwrap()..].fill(stored.seq);
    }
    let mut flips = 0;
    for ((_, path), owners) in segments.iter().zip(&owners) {
        let file = File::options().write(true).open(path).unwrap();
        let bytes = fs::read(path).unwrap();
        for flipped in (first..bytes.len() * 8).step_by(step) {
            let (at, bit) = (flipped / 8, flipped % 8);
            file.write_all_at(&[bytes[at] ^ (1 << bit)], at as u64)
                .unwrap();
            let report = verify(dir, &[]).report;
            assert_eq!(
                report.faults.len(),
                1,
                "byte {at} bit {bit}: {:?}",
                report.faults
            );
            assert_eq!(
                report.faults[0].seq, owners[at],
                "byte {at} bit {bit}: {}",
                report.faults[0]
            );
            flips += 1;
            file.write_all_at(&bytes[at..=at], at as u64).unwrap();
        }
    }
    assert_eq!(verify(dir, &[]).report.verdict(), Verdict::Unanchored);
    flips
}

#[test]
fn dropped_tails_segments_and_chains_are_found() {
    let dir = made(3, 9, 1_500);
    let kept = keep_checkpoints(dir.path());
    let kept = ["--checkpoint", kept.path().to_str().unwrap()];
    let chains = layout::chains(dir.path()).unwrap();
    let only = |more: &[&str]| {
        let report = verify(dir.path(), more).report;
        assert_eq!(report.faults.len(), 1, "{:?}", report.faults);
        report.faults[0].clone()
    };
    let aside = testing::dir();
    let hide = |path: &Path| fs::rename(path, aside.path().join("hidden")).unwrap();
    let restore = |path: &Path| fs::rename(aside.path().join("hidden"), path).unwrap();

    // A segment from the middle, and the last one.
    let segments = chains[2].segments().unwrap();
    let (missing, path) = &segments[1];
    hide(path);
    let fault = only(&[]);
    assert_eq!(
        (fault.chain, fault.seq, fault.cause),
        (chains[2].chain, *missing, Cause::Missing)
    );
    restore(path);
    let (missing, path) = segments.last().unwrap();
    hide(path);
    let fault = only(&[]);
    assert_eq!(
        (fault.seq, fault.cause),
        (*missing, Cause::Truncated { size: 11 }),
        "by its own checkpoints"
    );
    // Even if those go too.
    fs::rename(chains[2].checkpoints(), aside.path().join("checkpoints")).unwrap();
    assert_eq!(
        verify(dir.path(), &[]).report.verdict(),
        Verdict::Unanchored
    );
    assert_eq!(only(&kept).cause, Cause::Truncated { size: 11 });
    restore(path);

    // Whole chains.
    for (index, cause) in [
        (1, "a later chain continues it"),
        (2, "a checkpoint names it"),
    ] {
        hide(&chains[index].path);
        let fault = only(&kept);
        assert_eq!(
            (fault.chain, fault.cause),
            (chains[index].chain, Cause::ChainMissing(cause))
        );
        restore(&chains[index].path);
    }
    assert_eq!(verify(dir.path(), &kept).report.verdict(), Verdict::Whole);
}

#[test]
fn a_segment_moved_to_another_chain_is_found() {
    let dir = made(2, 3, 1 << 20);
    let chains = layout::chains(dir.path()).unwrap();
    fs::copy(chains[0].segment(0), chains[1].segment(0)).unwrap();
    let faults = verify(dir.path(), &[]).report.faults;
    assert_eq!((faults[0].chain, faults[0].seq), (chains[1].chain, 0));
    assert!(
        faults[0].cause.to_string().contains("moved here"),
        "{}",
        faults[0]
    );
}

#[test]
fn a_log_being_written_verifies_and_a_torn_end_is_no_tampering() {
    let dir = made(1, 3, 1 << 20);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let mut options = LedgerOptions::new(dir.path(), "demo", "a");
    (options.segment_bytes, options.checkpoint_records) = (5_000, 7);
    let ledger = Ledger::open(options).unwrap();
    let writing = runtime.spawn({
        let ledger = ledger.clone();
        async move {
            for _ in 0..2_000 {
                let event = Event::Closed(Box::default());
                ledger
                    .append(
                        Entry {
                            session: "s".into(),
                            event,
                        },
                        Durability::Spool,
                    )
                    .await
                    .unwrap();
            }
        }
    });
    let mut looks = 0;
    while !writing.is_finished() {
        let report = verify(dir.path(), &[]).report;
        assert_eq!(report.verdict(), Verdict::Unanchored, "{:?}", report.faults);
        looks += 1;
    }
    assert!(looks > 1, "it was verified while it was being written");
    runtime.block_on(writing).unwrap();
    runtime.block_on(ledger.shutdown(0)).unwrap();

    let (_, last) = layout::chains(dir.path())
        .unwrap()
        .pop()
        .unwrap()
        .segments()
        .unwrap()
        .pop()
        .unwrap();
    let bytes = fs::read(&last).unwrap();
    fs::write(&last, [bytes.as_slice(), &bytes[72..100]].concat()).unwrap();
    let checked = verify(dir.path(), &[]);
    assert_eq!(checked.report.verdict(), Verdict::Unanchored);
    assert!(
        checked.notices[0].starts_with("28 bytes at the end"),
        "{:?}",
        checked.notices
    );
}

#[test]
fn exit_codes_tell_sound_from_tampered_from_unreadable() {
    let dir = made(1, 3, 1 << 20);
    let path = dir.path().to_str().unwrap();
    assert_eq!(exit(path, &[]), ExitCode::SUCCESS);
    assert_eq!(exit(path, &["--json"]), ExitCode::SUCCESS);
    let nothing = testing::dir();
    assert_eq!(
        exit(nothing.path().to_str().unwrap(), &[]),
        ExitCode::from(2)
    );
    assert_eq!(
        exit(path, &["--checkpoint", "/nonexistent"]),
        ExitCode::from(2)
    );
    assert_eq!(
        exit(path, &["--trust", &format!("{path}/lock")]),
        ExitCode::from(2)
    );
    // A checkpoint by somebody else's key.
    let other = testing::dir();
    let trust = other.path().join("other.pub");
    fs::write(&trust, fixture::key(9).verifier().to_string()).unwrap();
    assert_eq!(
        exit(path, &["--trust", trust.to_str().unwrap()]),
        ExitCode::from(1)
    );
    assert!(try_verify(&[]).is_err(), "it says that it must know where");
    assert!(Cli::try_parse_from(["verify", "--dir", "a", "--brokers", "b"]).is_err());
}
