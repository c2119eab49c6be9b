//! `countersign keygen`: keys, each in a file of its own.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context;
use clap::{Args, Subcommand};
use jiff::SignedDuration;

use crate::{
    approval::signed::Certificate, grant::GrantKey, runtime::clock::Clock, store::keyfile,
};

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
    /// The root that certifies which replicas may write to a control log they share. Its public half goes into every replica's
    /// `approvals.kafka.root`; the key itself is best kept where no gateway runs.
    ControlRoot {
        /// The file to write; it must not exist. The public half goes to `<FILE>.pub`.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        /// The root's name.
        #[arg(long, default_value = "countersign/control")]
        name: String,
    },
    /// The key with which one replica writes to a control log it shares, and the root's certificate for it.
    Control {
        /// The file to write; it must not exist. The certificate goes to `<FILE>.certificate`.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        /// The root's key.
        #[arg(long, value_name = "ROOT")]
        root: PathBuf,
        /// The replica, as its `audit.replica` names it.
        #[arg(long, value_name = "NAME")]
        replica: String,
        /// Days until the certificate counts no more.
        #[arg(long, default_value_t = 398, value_parser = clap::value_parser!(u32).range(1..=3650))]
        days: u32,
    },
    /// The key that signs grants: Ed25519, in PKCS#8 PEM form. Replicas share it; its public half is published by the gateway.
    Grants {
        /// The file to write; it must not exist.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
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
        Kind::ControlRoot { out, name } => (out, name, None),
        Kind::Control {
            out,
            root,
            replica,
            days,
        } => return control(&out, &root, &replica, days),
        Kind::Grants { out } => {
            let (key, pem) = GrantKey::generate().context("no key was made")?;
            keyfile::write_private(&out, pem.trim_end()).context("no key was made")?;
            println!("{}", key.kid());
            eprintln!(
                "wrote {} (keep it secret); its id is the line above",
                out.display()
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

/// A replica's key and the root's certificate for it.
fn control(out: &Path, root: &Path, replica: &str, days: u32) -> anyhow::Result<ExitCode> {
    let root = keyfile::load(root).context("the root's key cannot be used")?;
    let key = keyfile::create(out, replica).context("no key was made")?;
    let until = Clock::system().now() + SignedDuration::from_hours(24 * i64::from(days));
    let certificate = Certificate {
        replica: replica.to_owned(),
        key: key.verifier().to_string(),
        until,
    };
    let mut path = out.as_os_str().to_owned();
    path.push(".certificate");
    let path = PathBuf::from(path);
    std::fs::write(&path, root.sign(&certificate.text()))
        .with_context(|| format!("cannot write `{}`", path.display()))?;
    println!("{}", root.verifier());
    eprintln!(
        "wrote {} (keep it secret) and {}, which counts until {until}; `approvals.kafka.root` is the line above",
        out.display(),
        path.display()
    );
    Ok(ExitCode::SUCCESS)
}
