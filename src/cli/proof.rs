//! `countersign proof`: one session's records with the proof that they are in the log.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, bail};
use clap::Args;
use memchr::memmem;
use serde::Deserialize;

use super::verify::outside;
use crate::{
    audit::{
        Hash,
        chain::Head,
        checkpoint::{Checkpoint, notes},
        proof::{self, FORMAT, MAX_RECORDS, Proof, Proven, Prover},
        record::Rotated,
        tree::{Commitment, Frontier},
    },
    store::{
        checkpoints,
        layout::{self, ChainDir},
        prune,
        reader::Step,
    },
};

/// Write a small file that proves a session's records are in the log, for somebody who may not see the rest of it.
///
/// It holds the records byte for byte, the path of each to the root of the log's tree, and the checkpoint signed over that
/// root: `countersign verify --proof` and `examples/verify/verify.py` check it with nothing but the public key.
#[derive(Args, Debug)]
#[command(
    after_help = "Example:\n  countersign proof 0192f3a1-… --dir /var/lib/countersign --out session.proof.json"
)]
pub struct ProofCommand {
    /// The session's id, as in the header `countersign-session`.
    session: String,
    /// The ledger's directory, or a copy of it; it may be being written.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// A file of signed checkpoints kept outside: the proof then rests on one of them. May be repeated.
    #[arg(long, value_name = "FILE")]
    checkpoint: Vec<PathBuf>,
    /// Where to write it; default: standard output.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Runs the subcommand.
///
/// # Errors
/// Where the log cannot be read or does not hold together, the session is not in it, or no checkpoint covers it yet.
pub fn run(args: &ProofCommand) -> anyhow::Result<ExitCode> {
    let proof = prove(&args.session, &args.dir, &outside(&args.checkpoint)?)?;
    let mut text = serde_json::to_string_pretty(&proof)?;
    text.push('\n');
    match &args.out {
        Some(file) => {
            fs::write(file, text)
                .with_context(|| format!("`{}` cannot be written", file.display()))?;
            eprintln!("wrote {}: {} records", file.display(), proof.records.len());
        }
        None => std::io::stdout()
            .write_all(text.as_bytes())
            .context("cannot write")?,
    }
    Ok(ExitCode::SUCCESS)
}

fn prove(session: &str, dir: &Path, outside: &[String]) -> anyhow::Result<Proof> {
    let chains =
        layout::chains(dir).with_context(|| format!("`{}` cannot be read", dir.display()))?;
    let mut proof = Proof {
        format: FORMAT.to_owned(),
        session: session.to_owned(),
        checkpoints: Vec::new(),
        records: Vec::new(),
        introductions: Vec::new(),
    };
    for chain in chains {
        let mut found = Vec::new();
        let mut introductions = Vec::new();
        let (pruned, size) = each_record(&chain, u64::MAX, |leaf, bytes| {
            introductions.extend(rotated(bytes));
            if proof::session(bytes).as_deref() == Some(session) {
                found.push((leaf.seq, String::from_utf8_lossy(bytes).into_owned()));
            }
        })?;
        if proof.records.len() + found.len() > MAX_RECORDS {
            bail!("the session has more than {MAX_RECORDS} records");
        }
        let Some((last, _)) = found.last() else {
            continue;
        };
        let (note, checkpoint) = covering(&chain, *last, size, outside)?;
        for statement in introductions {
            if !proof.introductions.contains(&statement) {
                proof.introductions.push(statement);
            }
        }
        let wanted = found.iter().map(|(seq, _)| *seq);
        let mut prover = Prover::after(&pruned, checkpoint.size, wanted);
        each_record(&chain, checkpoint.size, |leaf, _| prover.push(leaf))?;
        let mut paths = prover.paths();
        proof
            .records
            .extend(found.into_iter().map(|(seq, record)| Proven {
                record,
                payload_hash: String::new(),
                path: paths.remove(&seq).unwrap_or_default(),
            }));
        proof.checkpoints.push(note);
    }
    if proof.records.is_empty() {
        bail!("session `{session}` is not in `{}`", dir.display());
    }
    // What does not hold is not handed out.
    proof
        .check(&[])
        .context("the log does not hold together: run `countersign verify`")?;
    Ok(proof)
}

/// The statements by which keys introduced one another, where a record tells of them.
fn rotated(record: &[u8]) -> Vec<String> {
    #[derive(Default, Deserialize)]
    struct Told {
        rotated: Option<Rotated>,
    }
    if memmem::find(record, br#","rotated":{"#).is_none() {
        return Vec::new();
    }
    let told: Told = serde_json::from_slice(record).unwrap_or_default();
    told.rotated
        .map(|told| told.introductions)
        .unwrap_or_default()
}

/// Goes through the first `until` records of a chain that were not pruned; the tree over those that were, and how many there
/// are in all.
fn each_record(
    chain: &ChainDir,
    until: u64,
    mut visit: impl FnMut(&Commitment, &[u8]),
) -> anyhow::Result<(Frontier, u64)> {
    let (stump, reader) = prune::begin(chain.clone())?;
    let mut reader = reader.ending_now()?;
    let (mut head, pruned) = stump.map_or_else(
        || (Head::empty(chain.chain), Frontier::default()),
        |(stump, _)| (stump.head, stump.tree),
    );
    while head.size < until {
        let stored = match reader
            .step()
            .with_context(|| format!("`{}`", chain.path.display()))?
        {
            Step::Record(stored) => stored,
            Step::End(_) => break,
            Step::Damaged(damage) => bail!(
                "{} (`{}`, byte {}): run `countersign verify`",
                damage.what,
                damage.file.display(),
                damage.offset
            ),
        };
        let record_hash = head.hash_next(&stored.bytes);
        let leaf = Commitment {
            chain: chain.chain,
            seq: head.size,
            record_hash,
            payload_hash: Hash::ZERO,
        };
        visit(&leaf, &stored.bytes);
        head = head.after(record_hash);
    }
    Ok((pruned, head.size))
}

/// The checkpoint the proof rests on: one from outside where one covers record `last`, else the newest beside the log.
fn covering(
    chain: &ChainDir,
    last: u64,
    size: u64,
    outside: &[String],
) -> anyhow::Result<(String, Checkpoint)> {
    let inside = checkpoints::read(&chain.checkpoints())?;
    let newest = |notes: &mut dyn Iterator<Item = &str>| {
        notes
            .filter_map(|note| Some((note.to_owned(), Checkpoint::read_unchecked(note).ok()?)))
            .filter(|(_, at)| at.chain == chain.chain && at.size > last && at.size <= size)
            .max_by_key(|(_, at)| at.size)
    };
    newest(&mut outside.iter().map(String::as_str))
        .or_else(|| newest(&mut notes(&inside)))
        .with_context(|| {
            format!("no checkpoint covers record {last} of chain {} yet: one is signed within 10 seconds", chain.chain)
        })
}
