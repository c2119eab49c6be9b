//! `countersign index`, and the index as `sessions` and `replay` open it.

use std::{
    io::IsTerminal,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, bail};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use crate::{
    index::{Build, Index},
    store::layout,
};

/// Build the index that `sessions` and `replay` look into anew, from the log.
///
/// There is no need to: they bring it up to date themselves, and build it where it is missing, corrupt or of another version.
/// Exit code 0: built, and the log verifies without a checkpoint from outside. 1: built, and it does not. 2: not built.
#[derive(Args, Debug)]
pub struct IndexArgs {
    #[command(flatten)]
    at: IndexedDir,
}

/// A ledger directory and its index.
#[derive(Args, Debug)]
pub struct IndexedDir {
    /// The ledger's directory, or a copy of it; it may be being written.
    #[arg(long, value_name = "DIR")]
    pub dir: PathBuf,
    /// Where the index is, for a directory that may not be written to. Default: `index.sqlite` in it. It holds the words of
    /// recorded text: keep it as the log is kept.
    #[arg(long, value_name = "FILE")]
    pub index: Option<PathBuf>,
}

/// Runs the subcommand.
///
/// # Errors
/// Where the log cannot be read or the index not be written.
pub fn run(args: &IndexArgs) -> anyhow::Result<ExitCode> {
    let index = args.at.open(true)?;
    for fault in index.faults() {
        eprintln!("countersign index: {fault}");
    }
    Ok(ExitCode::from(u8::from(!index.faults().is_empty())))
}

impl IndexedDir {
    /// The index, up to date.
    ///
    /// # Errors
    /// Where the log cannot be read or the index not be written.
    pub(super) fn open(&self, anew: bool) -> anyhow::Result<Index> {
        let bytes = bytes(&self.dir)?;
        let bar = bar(bytes);
        let opened = Index::open(&self.dir, self.index.as_deref(), anew, &mut |n| bar.inc(n));
        bar.finish_and_clear();
        let (index, build) = opened.context("the sessions cannot be looked up")?;
        if build == Build::Anew {
            eprintln!("indexed `{}`", self.dir.display());
        }
        Ok(index)
    }
}

fn bytes(dir: &Path) -> anyhow::Result<u64> {
    let chains =
        layout::chains(dir).with_context(|| format!("`{}` cannot be read", dir.display()))?;
    if chains.is_empty() {
        bail!(
            "`{}` holds no chains; is it a ledger directory?",
            dir.display()
        );
    }
    Ok(layout::bytes_on_disk(dir)?)
}

fn bar(length: u64) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template(
        "indexing {bar:30} {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left",
    );
    ProgressBar::new(length).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
