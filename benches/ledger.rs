//! `./dev bench ledger`: how fast the log is written and verified, each beside the least that could do it, in the same run.
//!
//! Appending is compared with a bare loop that writes the same bytes in the same batches and calls fdatasync after each;
//! verifying with one SHA-256 over the same files. Ratios hold on any machine; the figures beside them are this one's.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a benchmark measures real time, and ends where something fails"
)]

use std::{
    fs::{self, File},
    io::{Read, Write},
    num::NonZeroUsize,
    path::Path,
    time::{Duration, Instant},
};

use countersign::{
    audit::{
        Durability,
        record::{Entry, Event, Opened},
        verify::{Order, Verdict, Verifier},
    },
    runtime::ledger::{Ledger, LedgerOptions},
    store::{
        check::{self, Reading},
        frame::FRAME_HEADER,
        layout,
        reader::{ChainReader, Step},
    },
};
use sha2::{Digest, Sha256};

/// Sessions that write at once, and what each writes in a round.
const CALLERS: usize = 256;
const EACH: usize = 400;
const ROUNDS: usize = 3;
/// Records of the log that is verified.
const VERIFIED: usize = 120_000;
/// Bytes of text in a record.
const TEXT: usize = 1_000;

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    // On the disk that is built on: a directory in memory has no fdatasync.
    let work = Path::new(env!("CARGO_TARGET_TMPDIR")).join("ledger");
    println!("{CALLERS} callers at once, records of about {TEXT} bytes\n");
    println!(
        "append, durability disk                      records/s   fdatasync   of the bare loop"
    );
    let mut ratios = Vec::new();
    for _ in 0..ROUNDS {
        let _ = fs::remove_dir_all(&work);
        fs::create_dir_all(&work).unwrap();
        let took = append(&runtime, &work.join("log"), CALLERS, EACH, Durability::Disk);
        let batches = batches(&work.join("log"));
        let bare = bare(&work.join("bare"), &batches);
        let count = (CALLERS * EACH) as f64;
        ratios.push(bare.as_secs_f64() / took.as_secs_f64());
        println!(
            "  the ledger                               {:>11.0} {:>11}   {:>15.2}",
            count / took.as_secs_f64(),
            batches.len(),
            ratios[ratios.len() - 1]
        );
        println!(
            "  the same bytes in the same batches       {:>11.0} {:>11}",
            count / bare.as_secs_f64(),
            batches.len()
        );
    }
    ratios.sort_by(f64::total_cmp);
    println!("  median {:.2}; wanted: 0.8\n", ratios[ratios.len() / 2]);

    let _ = fs::remove_dir_all(&work);
    fs::create_dir_all(&work).unwrap();
    let log = work.join("log");
    append(
        &runtime,
        &log,
        CALLERS,
        VERIFIED / CALLERS,
        Durability::Spool,
    );
    println!("verify                                            MB/s   of one SHA-256, per thread");
    let mut ratios = Vec::new();
    let all = std::thread::available_parallelism().unwrap();
    for _ in 0..ROUNDS {
        let (bytes, raw) = hash(&log);
        let mb = bytes as f64 / 1e6;
        println!(
            "  SHA-256 over the same files              {:>11.0}",
            mb / raw.as_secs_f64()
        );
        for threads in [NonZeroUsize::MIN, all] {
            let took = verify(&log, threads);
            let ratio = raw.as_secs_f64() / took.as_secs_f64() / threads.get() as f64;
            if threads == NonZeroUsize::MIN {
                ratios.push(ratio);
            }
            println!(
                "  countersign verify --threads {threads:<11} {:>11.0} {ratio:>9.2}",
                mb / took.as_secs_f64()
            );
        }
    }
    ratios.sort_by(f64::total_cmp);
    println!(
        "  median with one thread {:.2}; wanted: 0.5",
        ratios[ratios.len() / 2]
    );
    let _ = fs::remove_dir_all(&work);
}

fn entry(n: usize) -> Entry {
    let mut opened = Opened::default();
    // Words that differ, as prompts do; no compression is measured.
    opened.request.body = (0..TEXT / 8)
        .map(|word| format!("{:07x} ", (n * 31 + word) * 2_654_435_761 % (1 << 28)))
        .collect();
    Entry {
        session: format!("0192f3a1-0000-7000-8000-{n:012}"),
        event: Event::Opened(Box::new(opened)),
    }
}

/// How long so many callers take to append, each waiting for its record before the next.
fn append(
    runtime: &tokio::runtime::Runtime,
    dir: &Path,
    callers: usize,
    each: usize,
    durability: Durability,
) -> Duration {
    runtime.block_on(async {
        let ledger = Ledger::open(LedgerOptions::new(dir, "bench", "a")).unwrap();
        let entries: Vec<Vec<Entry>> = (0..callers)
            .map(|caller| (0..each).map(|n| entry(caller * each + n)).collect())
            .collect();
        let begun = Instant::now();
        let tasks: Vec<_> = entries
            .into_iter()
            .map(|entries| {
                let ledger = ledger.clone();
                tokio::spawn(async move {
                    for entry in entries {
                        ledger.append(entry, durability).await.unwrap();
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        let took = begun.elapsed();
        ledger.shutdown(0).await.unwrap();
        took
    })
}

/// The sizes of the batches that were synced together: a frame says how many records were on disk when it was written.
fn batches(dir: &Path) -> Vec<usize> {
    let mut batches: Vec<(u64, usize)> = Vec::new();
    let mut reader = ChainReader::new(layout::chains(dir).unwrap().remove(0));
    while let Step::Record(stored) = reader.step().unwrap() {
        let bytes = FRAME_HEADER + stored.bytes.len();
        match batches.last_mut() {
            Some((synced, size)) if *synced == stored.synced => *size += bytes,
            _ => batches.push((stored.synced, bytes)),
        }
    }
    batches.into_iter().map(|(_, size)| size).collect()
}

fn bare(path: &Path, batches: &[usize]) -> Duration {
    let bytes = vec![0x61; batches.iter().copied().max().unwrap_or(0)];
    let mut file = File::create(path).unwrap();
    let begun = Instant::now();
    for size in batches {
        file.write_all(&bytes[..*size]).unwrap();
        file.sync_data().unwrap();
    }
    begun.elapsed()
}

fn hash(dir: &Path) -> (u64, Duration) {
    let mut buffer = vec![0; 1 << 20];
    let (mut bytes, mut hash) = (0, Sha256::new());
    let begun = Instant::now();
    for chain in layout::chains(dir).unwrap() {
        for (_, path) in chain.segments().unwrap() {
            let mut file = File::open(path).unwrap();
            loop {
                let read = file.read(&mut buffer).unwrap();
                if read == 0 {
                    break;
                }
                hash.update(&buffer[..read]);
                bytes += read as u64;
            }
        }
    }
    std::hint::black_box(hash.finalize());
    (bytes, begun.elapsed())
}

fn verify(dir: &Path, threads: NonZeroUsize) -> Duration {
    let begun = Instant::now();
    let mut verifier = Verifier::new(Order::Strict, Vec::new());
    let reading = Reading {
        threads,
        archive: None,
        progress: &|_| {},
    };
    check::feed(&mut verifier, dir, &reading).unwrap();
    let report = verifier.finish();
    assert_eq!(report.verdict(), Verdict::Unanchored);
    begun.elapsed()
}
