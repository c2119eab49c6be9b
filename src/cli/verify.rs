//! `countersign verify`: is the log what was written?
//!
//! Exit code 0: nothing is wrong, and the output says how far a checkpoint from outside vouches for that. 1: something is,
//! and the first bad record of every chain is named. 2: it could not be checked, or a topic no longer has all of it.

use std::{
    collections::BTreeSet, fs, io::IsTerminal, num::NonZeroUsize, path::Path, path::PathBuf,
    process::ExitCode,
};

use anyhow::{Context, bail};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use super::{
    source::{Source, SourceArgs},
    terminal::{counted, one_line},
};
use crate::{
    audit::{
        chain::{Head, Position},
        checkpoint::notes,
        note::VerifierKey,
        verify::{
            ChainReport, Expired, Holder, Late, Order, Report, Verdict, Verifier, partition_of,
        },
    },
    kafka::{KafkaOptions, reader::TopicReader},
    store::{
        check::{self, Reading},
        layout,
        lock::DirLock,
    },
};

/// Checks the audit log: every record, link and checkpoint.
#[derive(Args, Debug)]
pub struct VerifyArgs {
    #[command(flatten)]
    source: SourceArgs,
    /// A proof that `countersign proof` wrote, instead of a log.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["dir", "brokers", "checkpoint"])]
    proof: Option<PathBuf>,
    /// A file of signed checkpoints that was kept outside; without one the log is at best "consistent, unanchored". May be
    /// repeated.
    #[arg(long, value_name = "FILE")]
    checkpoint: Vec<PathBuf>,
    /// A file of public keys, one a line, that checkpoints must be signed with. May be repeated.
    #[arg(long, value_name = "FILE")]
    trust: Vec<PathBuf>,
    /// A directory that segments were archived to: they are read before what the log still has.
    #[arg(long, value_name = "DIR", requires = "dir")]
    archive: Option<PathBuf>,
    /// Segments checked at once; default: one for each processor.
    #[arg(long, value_name = "N")]
    threads: Option<NonZeroUsize>,
    /// Print the outcome as JSON.
    #[arg(long)]
    json: bool,
}

/// What was checked, with what the reader noticed besides.
#[derive(Debug)]
struct Checked {
    report: Report,
    notices: Vec<String>,
}

/// Runs the subcommand.
///
/// # Errors
/// Where the log, a checkpoint file or a key file cannot be read: the exit code for that is 2.
pub fn run(args: VerifyArgs) -> anyhow::Result<ExitCode> {
    if let Some(file) = &args.proof {
        return Ok(proof::check(file, &args.trust, args.json));
    }
    match check(args) {
        Ok((checked, json)) => {
            print(&checked, json);
            Ok(ExitCode::from(match checked.report.verdict() {
                Verdict::Whole | Verdict::Unanchored => 0,
                Verdict::Tampered => 1,
                Verdict::Unprovable => 2,
            }))
        }
        Err(error) => {
            eprintln!("countersign verify: {error:#}");
            Ok(ExitCode::from(2))
        }
    }
}

fn check(args: VerifyArgs) -> anyhow::Result<(Checked, bool)> {
    let trusted = keys(&args.trust)?;
    let outside = outside(&args.checkpoint)?;
    let begin = |order| -> anyhow::Result<Verifier> {
        let mut verifier = Verifier::new(order, trusted.clone());
        for note in &outside {
            verifier.checkpoint(note, Holder::Outside)?;
        }
        Ok(verifier)
    };
    let mut checked = match args.source.source()? {
        Source::Topic(options) => check_topic(begin(Order::Resent)?, &options)?,
        Source::Dir(dir) => {
            let live = DirLock::is_held(&dir);
            let archive = args.archive.as_deref();
            let checked = check_dir(begin(Order::Strict)?, &dir, archive, args.threads)?;
            if live && checked.report.verdict() == Verdict::Tampered {
                // A write that failed is cut off and written over; whoever read it in between saw what never was.
                check_dir(begin(Order::Strict)?, &dir, archive, args.threads)?
            } else {
                checked
            }
        }
    };
    if trusted.is_empty() && (checked.report.anchors > 0 || checked.report.checkpoints > 0) {
        checked
            .notices
            .push("signatures of checkpoints were not looked at: no --trust was given".to_owned());
    }
    if let Some(gone) = &checked.report.discarded {
        checked.notices.push(format!(
            "what was sealed until {} is not on the disk any more, as a record says (rule: {})",
            one_line(&gone.until),
            one_line(&gone.rule)
        ));
    }
    Ok((checked, args.json))
}

fn check_dir(
    mut verifier: Verifier,
    dir: &Path,
    archive: Option<&Path>,
    threads: Option<NonZeroUsize>,
) -> anyhow::Result<Checked> {
    let unreadable = || format!("`{}` cannot be read", dir.display());
    if layout::chains(dir).with_context(unreadable)?.is_empty() && archive.is_none() {
        bail!(
            "`{}` holds no chains; is it a ledger directory?",
            dir.display()
        );
    }
    let archived = archive.map_or(Ok(0), layout::bytes_on_disk)?;
    let progress = bar(
        layout::bytes_on_disk(dir)? + archived,
        "{bytes} of {total_bytes}, {bytes_per_sec}, {eta} left",
    );
    let reading = Reading {
        threads: threads
            .or_else(|| std::thread::available_parallelism().ok())
            .unwrap_or(NonZeroUsize::MIN),
        archive,
        progress: &|bytes| progress.inc(bytes),
    };
    let notices = check::feed(&mut verifier, dir, &reading).with_context(unreadable)?;
    progress.finish_and_clear();
    Ok(Checked {
        report: verifier.finish(),
        notices,
    })
}

fn check_topic(mut verifier: Verifier, options: &KafkaOptions) -> anyhow::Result<Checked> {
    let mut notices = Vec::new();
    let mut foreign = 0_u64;
    // The checkpoints' end is taken first: records are published before the checkpoints that cover them.
    match TopicReader::open(options, &options.checkpoint_topic) {
        Ok(mut reader) => {
            while let Some(message) = reader.next_until_end()? {
                let note = String::from_utf8_lossy(&message.bytes);
                match (verifier.checkpoint(&note, Holder::Inside), message.chain) {
                    (Ok(()), _) => {}
                    (Err(error), Some(chain)) => verifier.bad_checkpoint(chain, error),
                    (Err(_), None) => foreign += 1,
                }
            }
        }
        Err(error) => notices.push(format!("no checkpoints were read from kafka: {error}")),
    }
    let mut reader = TopicReader::open(options, &options.topic)?;
    let progress = bar(
        u64::try_from(reader.left())?,
        "{pos} of {len} records, {per_sec}, {eta} left",
    );
    // Where partitions were added, or somebody else wrote, the key does not tell where a chain was.
    let mut elsewhere = false;
    let mut begun = BTreeSet::new();
    while let Some(message) = reader.next_until_end()? {
        progress.inc(1);
        if let (Some(chain), Some(at)) = (message.chain, Position::read(&message.bytes))
            && reader.shortened().contains(&message.place.0)
            && begun.insert(chain)
            && at.seq > 0
        {
            verifier.begins_at(Head {
                chain,
                size: at.seq,
                hash: at.previous,
            });
        }
        match (message.chain, message.seq) {
            (Some(chain), Some(seq)) => {
                elsewhere |= partition(message.place.0) != partition_of(chain, reader.partitions());
                verifier.record(chain, seq, &message.bytes, message.record_hash)
            }
            _ => foreign += 1,
        }
    }
    progress.finish_and_clear();
    let late: BTreeSet<u32> = reader.shortened().iter().map(|id| partition(*id)).collect();
    verifier.begins_late(match late.is_empty() {
        true => Late::Nowhere,
        false if elsewhere => Late::Somewhere,
        false => Late::In {
            partitions: reader.partitions(),
            late,
        },
    });
    let report = verifier.finish();
    if report.late_repeats > 0 {
        notices.push(format!(
            "{} records came again too late to be compared with the first ones, which stand",
            report.late_repeats
        ));
    }
    if foreign > 0 {
        notices.push(format!(
            "{foreign} messages are no records of any chain and were passed over"
        ));
    }
    Ok(Checked { report, notices })
}

/// A partition's number; librdkafka's are never negative.
fn partition(id: i32) -> u32 {
    u32::try_from(id).unwrap_or(u32::MAX)
}

pub(super) fn keys(files: &[PathBuf]) -> anyhow::Result<Vec<VerifierKey>> {
    let mut keys = Vec::new();
    for file in files {
        let text = fs::read_to_string(file)
            .with_context(|| format!("`{}` cannot be read", file.display()))?;
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            keys.push(
                line.parse()
                    .with_context(|| format!("`{}`", file.display()))?,
            );
        }
        if keys.is_empty() {
            bail!("`{}` holds no key", file.display());
        }
    }
    Ok(keys)
}

pub(super) fn outside(files: &[PathBuf]) -> anyhow::Result<Vec<String>> {
    let mut all = Vec::new();
    for file in files {
        let text = fs::read_to_string(file)
            .with_context(|| format!("`{}` cannot be read", file.display()))?;
        let before = all.len();
        all.extend(notes(&text).map(str::to_owned));
        if all.len() == before {
            bail!("`{}` holds no signed checkpoint", file.display());
        }
    }
    Ok(all)
}

fn bar(length: u64, template: &str) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template(&format!("verifying {{bar:30}} {template}"));
    ProgressBar::new(length).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

fn print(checked: &Checked, json: bool) {
    let Checked { report, notices } = checked;
    if json {
        println!("{:#}", as_json(report, notices));
        return;
    }
    for fault in &report.faults {
        println!("{}", one_line(&fault.to_string()));
    }
    if report.more_faults > 0 {
        println!("and {} more faults", report.more_faults);
    }
    for chain in &report.chains {
        println!(
            "chain {} of `{}`: {} records, {}{}",
            chain.chain,
            one_line(&chain.replica),
            chain.records,
            match chain.pruned {
                0 => String::new(),
                gone if report
                    .expired
                    .iter()
                    .any(|lacks| lacks.chain == chain.chain) =>
                {
                    format!("{gone} before them gone, ")
                }
                pruned => format!("{pruned} before them pruned, "),
            },
            extent(chain, report)
        );
    }
    for Expired {
        chain,
        records,
        pruned,
    } in &report.expired
    {
        println!(
            "chain {chain}: {records} records are before what the topic begins with: deleted by Kafka's retention, or by whoever may; \
             {}not provable",
            match pruned {
                true => "a record says the disk's copy was pruned; ",
                false => "",
            }
        );
    }
    if report.begins_late && report.expired.is_empty() {
        println!(
            "the topic no longer begins where it was written from, and nothing tells what it held: not provable"
        );
    }
    for notice in notices {
        println!("note: {notice}");
    }
    println!("{}", summary(report));
}

/// How far a chain is vouched for.
fn extent(chain: &ChainReport, report: &Report) -> String {
    if report.faults.iter().any(|fault| fault.chain == chain.chain) {
        return "NOT as written".to_owned();
    }
    match chain.whole {
        0 => "consistent, unanchored".to_owned(),
        whole if whole == chain.records + chain.pruned => {
            format!("whole up to record {}", whole - 1)
        }
        whole => format!("whole up to record {}, consistent beyond it", whole - 1),
    }
}

fn summary(report: &Report) -> String {
    let records = counted(report.records(), "record");
    let chains = counted(report.chains.len() as u64, "chain");
    match report.verdict() {
        Verdict::Tampered => {
            let faults = report.faults.len() as u64 + report.more_faults;
            format!("TAMPERED: {} in {chains}", counted(faults, "fault"))
        }
        Verdict::Unprovable => format!(
            "not provable: {records} in {chains} are consistent, and the topic has no longer all; check the ledger's \
             directory"
        ),
        Verdict::Unanchored => {
            format!(
                "consistent, unanchored: {records} in {chains}; give a --checkpoint kept outside to know more"
            )
        }
        Verdict::Whole => {
            let whole = |chain: &ChainReport| chain.whole.saturating_sub(chain.pruned);
            let whole: u64 = report.chains.iter().map(whole).sum();
            format!(
                "whole: {whole} of {records} in {chains} are vouched for by a checkpoint from outside"
            )
        }
    }
}

fn as_json(report: &Report, notices: &[String]) -> serde_json::Value {
    let chains: Vec<_> = report
        .chains
        .iter()
        .map(|chain| {
            json!({
                "chain": chain.chain.to_string(),
                "replica": chain.replica,
                "records": chain.records,
                "pruned_records": chain.pruned,
                "whole_records": chain.whole,
            })
        })
        .collect();
    let expired: Vec<_> = report
        .expired
        .iter()
        .map(|lacks| json!({"chain": lacks.chain.to_string(), "records": lacks.records, "disk_pruned": lacks.pruned}))
        .collect();
    let faults: Vec<_> = report
        .faults
        .iter()
        .map(|fault| json!({"chain": fault.chain.to_string(), "seq": fault.seq, "cause": fault.cause.to_string()}))
        .collect();
    json!({
        "verdict": match report.verdict() {
            Verdict::Whole => "whole",
            Verdict::Unanchored => "consistent, unanchored",
            Verdict::Unprovable => "not provable",
            Verdict::Tampered => "tampered",
        },
        "records": report.records(),
        "chains": chains,
        "expired": expired,
        "faults": faults,
        "more_faults": report.more_faults,
        "repeats": report.repeats,
        "outside_checkpoints": report.anchors,
        "inside_checkpoints": report.checkpoints,
        "notices": notices,
    })
}

mod proof;
#[cfg(test)]
mod tests;
