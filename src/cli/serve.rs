//! `countersign serve`: the filter and its HTTP endpoints.

use std::{path::PathBuf, process::ExitCode, thread::available_parallelism};

use clap::ValueHint;

use crate::app;

/// Serve: the ext_proc filter, the API for approvals, health and metrics. SIGTERM drains and stops, SIGHUP reads the configuration again.
///
/// The configuration is followed while serving: a new version that is valid is put into force for new requests, a faulty
/// one is refused and the old one stays. Logs go to stderr, as JSON unless that is a terminal; RUST_LOG sets the levels.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The configuration file.
    #[arg(long, value_name = "FILE", env = "COUNTERSIGN_CONFIG", value_hint = ValueHint::FilePath)]
    pub config: PathBuf,
    /// Threads that drive streams; half as many as there are cores by default, as Envoy and the ledger need some too. Large
    /// bodies have threads of their own.
    #[arg(long, value_name = "N", env = "COUNTERSIGN_THREADS", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
}

/// Runs the subcommand.
///
/// # Errors
/// Whatever keeps the service from starting or from ending in good order.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    crate::telemetry::start_logging();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(args.threads.map_or_else(workers, usize::from))
        .enable_all()
        .build()?;
    runtime.block_on(app::serve(&args.config))?;
    Ok(ExitCode::SUCCESS)
}

/// Half the cores. What a stream needs is little work in many steps, and each step that one thread hands to another costs
/// more than it saves (docs/performance.md).
fn workers() -> usize {
    available_parallelism().map_or(1, |cores| cores.get().div_ceil(2))
}
