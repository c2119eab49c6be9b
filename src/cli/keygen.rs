//! `countersign keygen`: keys, each in a file of its own.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context;
use clap::{Args, Subcommand};

use crate::store::keyfile;

/// Draws a key and writes it to a file of mode 0600, with the public half beside it.
#[derive(Args, Debug)]
pub struct KeygenArgs {
    #[command(subcommand)]
    kind: Kind,
}

#[derive(Debug, Subcommand)]
enum Kind {
    /// The key that signs checkpoints of the audit log.
    Signing {
        /// The file to write; it must not exist. The public half goes to `<FILE>.pub`.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        /// The key's name in signatures: `countersign/<deployment>/<replica>` by convention.
        #[arg(long, default_value = "countersign")]
        name: String,
    },
}

/// Runs the subcommand.
///
/// # Errors
/// Where the file exists or cannot be written, or the name cannot be a key's.
pub fn run(args: KeygenArgs) -> anyhow::Result<ExitCode> {
    let Kind::Signing { out, name } = args.kind;
    let key = keyfile::create(&out, &name).context("no key was made")?;
    println!("{}", key.verifier());
    eprintln!(
        "wrote {} (keep it secret) and {}",
        out.display(),
        keyfile::public_path(&out).display()
    );
    Ok(ExitCode::SUCCESS)
}
