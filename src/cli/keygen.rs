//! `countersign keygen`: keys, each in a file of its own.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context;
use clap::{Args, Subcommand};

use crate::store::keyfile;

/// Draw a key and write it to a file of mode 0600, with its public half beside it where it has one.
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
        /// The key it is to follow, which introduces it: whoever trusts that one will believe the new one. The statement goes
        /// to `<FILE>.introductions`; keep it beside the key. Name the new file as `audit.signing_key` and restart.
        #[arg(long, value_name = "OLD")]
        replaces: Option<PathBuf>,
    },
    /// The key with which an auditor reads sealed payloads. Only the public half goes to the gateway.
    Auditor {
        /// The file to write; it must not exist. The public half goes to `<FILE>.pub`.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        /// The auditor's name.
        #[arg(long, default_value = "auditor")]
        name: String,
    },
    /// The key that the masking operators hash, tokenize and vault use: 256 random bits.
    Masking {
        /// The file to write; it must not exist. There is no public half.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
}

/// Runs the subcommand.
///
/// # Errors
/// Where the file exists or cannot be written, or the name cannot be a key's.
pub fn run(args: KeygenArgs) -> anyhow::Result<ExitCode> {
    let (out, name, replaces) = match args.kind {
        Kind::Signing {
            out,
            name,
            replaces,
        } => (out, name, replaces),
        Kind::Auditor { out, name } => {
            let key = keyfile::create_auditor(&out, &name).context("no key was made")?;
            println!("{key}");
            eprintln!(
                "wrote {} (keep it secret, and away from the gateway) and {}",
                out.display(),
                keyfile::public_path(&out).display()
            );
            return Ok(ExitCode::SUCCESS);
        }
        Kind::Masking { out } => {
            keyfile::create_secret(&out).context("no key was made")?;
            eprintln!("wrote {} (keep it secret)", out.display());
            return Ok(ExitCode::SUCCESS);
        }
    };
    let made = match &replaces {
        Some(old) => keyfile::create_successor(&out, &name, old),
        None => keyfile::create(&out, &name),
    };
    let key = made.context("no key was made")?;
    println!("{}", key.verifier());
    eprintln!(
        "wrote {} (keep it secret) and {}",
        out.display(),
        keyfile::public_path(&out).display()
    );
    if replaces.is_some() {
        let file = keyfile::introductions_path(&out);
        eprintln!("and {}: keep it beside the key", file.display());
    }
    Ok(ExitCode::SUCCESS)
}
