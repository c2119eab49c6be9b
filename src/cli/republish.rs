//! `countersign republish`: the log sent to Kafka once more.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context;
use clap::Args;

use crate::{
    app,
    audit::ChainId,
    config,
    kafka::publisher::{From, Prepared, republish},
};

/// Send the audit log to Kafka once more, for brokers that lost what they had acknowledged.
///
/// It may be run while the gateway is. Consumers drop what they have seen; `countersign verify --brokers` then says whether
/// the topic is as it was.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  countersign republish --config /etc/countersign.yaml --all")]
pub struct RepublishArgs {
    /// The gateway's configuration file: its section `audit` says where the log and the brokers are.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// All that the directory has.
    #[arg(long, required_unless_present = "from")]
    all: bool,
    /// From this record on, and later chains whole.
    #[arg(long, value_name = "SEQ", conflicts_with = "all")]
    from: Option<u64>,
    /// The chain that SEQ is of; default: the newest.
    #[arg(long, value_name = "ID", requires = "from")]
    chain: Option<ChainId>,
}

/// Runs the subcommand.
///
/// # Errors
/// Where the configuration is faulty or names no brokers, the log cannot be read, or Kafka does not take it.
pub fn run(args: &RepublishArgs) -> anyhow::Result<ExitCode> {
    let config = config::load_with_builtins(&args.config)?;
    let options = app::ledger_options(&config)?;
    let kafka = options
        .kafka
        .context("the configuration names no brokers (`audit.kafka`)")?;
    let from = match args.from {
        Some(seq) => From::Record(args.chain, seq),
        None => From::Beginning,
    };
    let prepared = Prepared::new(kafka, &options.replica)?;
    let sent = republish(
        prepared,
        &options.dir,
        &options.deployment,
        &options.replica,
        from,
    )?;
    eprintln!(
        "kafka has acknowledged {} records of {} chains",
        sent.records, sent.chains
    );
    Ok(ExitCode::SUCCESS)
}
