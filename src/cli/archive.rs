//! `countersign archive`: old segments of a log that nobody writes now, moved to another directory.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::Context;
use clap::Args;
use tokio::time::timeout;

use crate::{
    app,
    config::{self, duration},
    runtime::ledger::{Ledger, retention::Retention},
};

/// Move old segments of the audit log to another directory, with the checkpoints over them, and old files of sealed payloads.
///
/// What is moved is a log of its own there, which `countersign verify --dir` checks; `verify --dir LOG --archive DIR` checks both
/// as one. What is left of the log verifies as pruned. It is for a log that no gateway writes now: a running one does the same
/// with `audit.retention.archive`.
#[derive(Args, Debug)]
#[command(
    after_help = "Example:\n  countersign archive --config /etc/countersign.yaml --to /mnt/archive --older-than 90d"
)]
pub struct ArchiveArgs {
    /// The gateway's configuration file: its section `audit` says where the log is and what must hold before segments go.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// The directory to move them to; made where it is missing.
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
    /// Move segments whose records are all older than this, as in `90d`, and sealed payloads that are.
    #[arg(long, value_name = "AGE", value_parser = duration)]
    older_than: Duration,
}

/// How long holders of checkpoints may take to get the newest one.
const HOLDERS: Duration = Duration::from_secs(10);

/// Runs the subcommand.
///
/// # Errors
/// Where the configuration is faulty, the log is in use or damaged, or the directory cannot be written.
pub fn run(args: &ArchiveArgs) -> anyhow::Result<ExitCode> {
    let config = config::load_with_builtins(&args.config)?;
    let mut options = app::ledger_options(&config)?;
    let at_least = options.retention.take().map(|retention| retention.at_least);
    let dir = options.dir.clone();
    options.retention = Some(Retention {
        age: Some(args.older_than),
        size: None,
        at_least: at_least.unwrap_or_default(),
        archive: Some(args.to.clone()),
        sealed_cap: None,
    });
    let ledger = Ledger::open(options).context(
        "the log cannot be opened; a running gateway archives by itself with `audit.retention.archive`",
    )?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    // Nothing goes that they have no checkpoint of; where one is away, nothing does.
    let _ = runtime.block_on(async { timeout(HOLDERS, ledger.anchored()).await });
    let moved = ledger.prune();
    runtime.block_on(ledger.shutdown(0))?;
    let records = moved.context("not all that is old was moved")?;
    eprintln!(
        "moved {records} records from {} to {}",
        dir.display(),
        args.to.display()
    );
    Ok(ExitCode::SUCCESS)
}
