//! `countersign erase`: a session's sealed originals become unreadable for good.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    thread,
    time::Duration,
};

use anyhow::{Context, bail};
use clap::Args;

use crate::{
    audit::seal::FrameKind,
    store::{
        erasures::{self, MAX_REASON, Stage},
        lock::DirLock,
        sealed,
    },
};

/// Destroy the keys of a session's sealed originals, so that nobody can read them any more.
///
/// The gateway that owns the directory does it, and puts it on record first, with the reason and with who asked; this command asks,
/// and waits for it. All proofs still verify: the log commits to ciphertext and to a keyed hash, and the key of both is what is
/// destroyed. What the record shows readable (`masked`, `masked+sealed`) is not touched, nor are copies of the directory made before.
///
/// Exit code 0: erased; 1: asked for, and carried out when the gateway that owns the directory runs; 2: neither.
#[derive(Args, Debug)]
#[command(
    after_help = "Example:\n  countersign erase 0192f3a1-… --dir /var/lib/countersign --reason 'request 4711 under Art. 17 GDPR'"
)]
pub struct EraseArgs {
    /// The session's id, as in the header `countersign-session`.
    session: String,
    /// The ledger's directory.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// Why: it goes on record.
    #[arg(long, value_name = "TEXT")]
    reason: String,
}

/// How long the gateway is waited for; it looks every second.
const PATIENCE: u32 = 300;
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Runs the subcommand.
///
/// # Errors
/// Where nothing of the session is sealed, or it cannot be asked for.
pub fn run(args: &EraseArgs) -> anyhow::Result<ExitCode> {
    let reason = args.reason.trim();
    if reason.is_empty() || reason.len() > MAX_REASON {
        bail!("a reason has 1 to {MAX_REASON} bytes");
    }
    let (dir, session) = (&args.dir, &args.session);
    match keys(dir, session)? {
        None => bail!(
            "session `{session}` has nothing sealed in `{}`; readable text cannot be erased",
            dir.display()
        ),
        Some(FrameKind::Erased) => {
            eprintln!("it is erased already");
            return Ok(ExitCode::SUCCESS);
        }
        Some(_) => {}
    }
    erasures::ask(dir, session, reason)
        .with_context(|| format!("it cannot be asked for in `{}`", dir.display()))?;
    if !DirLock::is_held(dir) {
        eprintln!(
            "asked for: no gateway runs on `{}` now; it is erased when one starts there",
            dir.display()
        );
        return Ok(ExitCode::FAILURE);
    }
    for _ in 0..PATIENCE {
        match erasures::stage(dir, session) {
            None if keys(dir, session)? == Some(FrameKind::Erased) => {
                eprintln!("erased, and on record");
                return Ok(ExitCode::SUCCESS);
            }
            Some(Stage::Refused) => {
                bail!("the gateway finds nothing sealed of session `{session}`")
            }
            _ => pause(),
        }
    }
    eprintln!("asked for: the gateway has not erased it yet; its log says why");
    Ok(ExitCode::FAILURE)
}

fn keys(dir: &Path, session: &str) -> anyhow::Result<Option<FrameKind>> {
    if !erasures::is_session(session) {
        bail!("`{session}` is no session's id");
    }
    sealed::keys_of(&sealed::sealed_dir(dir), session)
        .with_context(|| format!("`{}` cannot be read", dir.display()))
}

#[allow(
    clippy::disallowed_methods,
    reason = "another process is waited for, which tells by a file"
)]
fn pause() {
    thread::sleep(LOOK_EVERY);
}
