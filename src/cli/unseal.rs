//! `countersign unseal`: a session's originals, for whoever holds an auditor's key.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write},
    num::NonZeroUsize,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use jiff::{SignedDuration, Timestamp};

use super::{
    index::IndexedDir,
    terminal::{is_closed_pipe, one_line},
};
use crate::{
    audit::{
        chain::Position,
        record::{Discarded, Entry, Erased, Event, Sealed},
        seal::{AuditorSecret, FrameKind, Opener, Part, UnsealError},
        verify::{Order, Verifier},
    },
    index::{Index, Session},
    store::{
        check::{self, Reading},
        sealed::{self, Seen},
    },
};

/// Read a session's originals with an auditor's key: the request and the answer, byte for byte as they were received.
///
/// Only payloads `sealed` and `masked+sealed` have them. The session's records must verify, and what is unsealed must be what they
/// commit to. Exit code 0: read; 1: something is not as it was written; 2: it cannot be read: not sealed, not to this key, or erased.
///
/// Who holds the key and may read the directory leaves no trace: this command is not recorded. Looking is recorded only when it is
/// done through the gateway.
#[derive(Args, Debug)]
#[command(
    after_help = "Example:\n  countersign unseal 0192f3a1-… --dir /var/lib/countersign --key lena.key --part request | jq"
)]
pub struct UnsealArgs {
    /// The session's id, as in the header `countersign-session`.
    session: String,
    #[command(flatten)]
    at: IndexedDir,
    /// The auditor's key, as `countersign keygen auditor` made it.
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// What to write to standard output.
    #[arg(long, value_enum, default_value_t = Which::Both)]
    part: Which,
    /// Where sealed payloads are. Default: `sealed` in the ledger's directory.
    #[arg(long, value_name = "DIR")]
    sealed: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Which {
    /// The request, a line break, the answer.
    Both,
    Request,
    Answer,
}

/// Runs the subcommand.
///
/// # Errors
/// Where the session, its payload or the key cannot be read.
pub fn run(args: &UnsealArgs) -> anyhow::Result<ExitCode> {
    let secret = key(&args.key)?;
    let index = args.at.open(false)?;
    let Some(session) = index.session(&args.session)? else {
        bail!(
            "session `{}` is not in `{}`",
            args.session,
            args.at.dir.display()
        );
    };
    if !session.verified {
        for fault in index.faults() {
            eprintln!("countersign unseal: {fault}");
        }
        eprintln!(
            "countersign unseal: session `{}` does not verify",
            args.session
        );
        return Ok(ExitCode::FAILURE);
    }
    let told = Told::read(&index, &session)?;
    let default = sealed::sealed_dir(&args.at.dir);
    let store = Store::find(args.sealed.as_deref().unwrap_or(&default), &args.session)?;
    if store.keys.is_none()
        && let Some(begun) = told.begun
        && let Some(gone) = discarded(&args.at.dir, begun)?
    {
        bail!(
            "its sealed payload is not on this disk any more, as a record says: what was sealed until {} went by rule `{}`; \
             --sealed says where it was archived to",
            one_line(&gone.until),
            one_line(&gone.rule)
        );
    }
    let opener = store.opener(&args.session, &secret, told.erased.as_ref())?;
    match write(args.part, &told, &store, &opener) {
        Err(Failure::Unseal(error)) => {
            eprintln!("countersign unseal: {error}");
            Ok(ExitCode::FAILURE)
        }
        Err(Failure::Other(error)) if is_closed_pipe(&error) => Ok(ExitCode::SUCCESS),
        Err(Failure::Other(error)) => Err(error),
        Ok(()) => Ok(ExitCode::SUCCESS),
    }
}

fn key(path: &Path) -> anyhow::Result<AuditorSecret> {
    let named = || format!("key file `{}`", path.display());
    let mode = fs::metadata(path).with_context(named)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        bail!(
            "{} is readable by others (mode {mode:03o}); run `chmod 600` on it",
            named()
        );
    }
    fs::read_to_string(path)
        .with_context(named)?
        .parse()
        .with_context(named)
}

/// How long before its record something may have been sealed.
const SEALED_BEFORE: SignedDuration = SignedDuration::from_secs(1);

/// What the log says of the discarding of what was sealed for a record of this time, in a record that a checkpoint covers.
fn discarded(dir: &Path, begun: Timestamp) -> anyhow::Result<Option<Discarded>> {
    let mut verifier = Verifier::new(Order::Strict, Vec::new());
    let reading = Reading {
        threads: NonZeroUsize::MIN,
        archive: None,
        progress: &|_| {},
    };
    check::feed(&mut verifier, dir, &reading)?;
    let newest = verifier.finish().discarded;
    Ok(newest.filter(|gone| {
        let until = gone.until.parse::<Timestamp>();
        until.is_ok_and(|until| until.duration_since(begun) > -SEALED_BEFORE)
    }))
}

/// What the records say of the sealed payload.
#[derive(Default)]
struct Told {
    parts: Vec<(Part, Sealed)>,
    erased: Option<Erased>,
    /// When its first record was written.
    begun: Option<Timestamp>,
}

impl Told {
    fn read(index: &Index, session: &Session) -> anyhow::Result<Self> {
        let mut told = Self::default();
        for at in &session.records {
            let bytes = index.read(at)?.with_context(|| {
                format!(
                    "record {} of chain {} is not as it was verified",
                    at.seq, at.chain
                )
            })?;
            let at = Position::read(&bytes).and_then(|at| at.time.parse().ok());
            told.begun = told.begun.or(at);
            let Ok(entry) = serde_json::from_slice::<Entry>(&bytes) else {
                continue;
            };
            let (part, sealed) = match entry.event {
                Event::Opened(opened) => (Part::Request, opened.request.sealed),
                Event::Refused(refused) => (Part::Request, refused.request.sealed),
                Event::Delivered(delivered) => (Part::Answer, delivered.sealed),
                Event::Closed(closed) => (Part::Answer, closed.sealed),
                Event::Erased(erased) => {
                    told.erased = Some(erased);
                    continue;
                }
                _ => continue,
            };
            told.parts.extend(sealed.map(|sealed| (part, sealed)));
        }
        if told.parts.is_empty() {
            bail!(
                "the session has nothing sealed: its payload is neither `sealed` nor `masked+sealed`"
            );
        }
        Ok(told)
    }
}

/// Where the session's frames are.
#[derive(Default)]
struct Store {
    keys: Option<(PathBuf, Seen)>,
    pieces: BTreeMap<u32, (PathBuf, Seen)>,
}

impl Store {
    fn find(dir: &Path, session: &str) -> anyhow::Result<Self> {
        let mut found = Self::default();
        sealed::visit(dir, |seen, file| {
            if seen.session == session {
                let place = (file.to_owned(), seen.clone());
                match seen.kind {
                    FrameKind::Piece(n) => _ = found.pieces.insert(n, place),
                    FrameKind::Keys | FrameKind::Erased => found.keys = Some(place),
                }
            }
            true
        })
        .with_context(|| format!("`{}`", dir.display()))?;
        Ok(found)
    }

    fn opener(
        &self,
        session: &str,
        secret: &AuditorSecret,
        erased: Option<&Erased>,
    ) -> anyhow::Result<Opener> {
        let gone = |kind| matches!(kind, FrameKind::Erased);
        match (&self.keys, erased) {
            (Some((_, seen)), Some(erased)) if gone(seen.kind) => bail!(
                "it was erased, asked for by {}: {}",
                erased.asked_by,
                erased.reason
            ),
            (Some((_, seen)), None) if gone(seen.kind) => {
                bail!("its keys were destroyed, and no record says why")
            }
            (None, _) => {
                bail!("its sealed payload is not there; --sealed says where it was moved to")
            }
            (Some((file, seen)), erased) => {
                if let Some(erased) = erased {
                    eprintln!(
                        "its erasure is on record ({}) but not carried out yet",
                        erased.reason
                    );
                }
                let frame = sealed::read(file, seen)?.context("its wrapped keys were altered")?;
                Ok(Opener::new(session, &frame.body, secret)?)
            }
        }
    }

    fn piece(&self, n: u32) -> Result<Option<Vec<u8>>, Failure> {
        let Some((file, seen)) = self.pieces.get(&n) else {
            return Ok(None);
        };
        let frame = sealed::read(file, seen).map_err(anyhow::Error::from)?;
        // Where its checksum is wrong, so is what the record commits to.
        Ok(Some(frame.map(|frame| frame.body).unwrap_or_default()))
    }
}

/// Why reading stopped.
enum Failure {
    Unseal(UnsealError),
    Other(anyhow::Error),
}

impl From<UnsealError> for Failure {
    fn from(error: UnsealError) -> Self {
        Self::Unseal(error)
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Other(error)
    }
}

fn write(which: Which, told: &Told, store: &Store, opener: &Opener) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    let mut answered = false;
    for (part, sealed) in &told.parts {
        let wanted = match which {
            Which::Both => true,
            Which::Request => *part == Part::Request,
            Which::Answer => *part == Part::Answer,
        };
        if !wanted {
            continue;
        }
        let text = opener.open(*part, sealed, |n| store.piece(n))?;
        if which == Which::Both && *part == Part::Answer && !answered {
            out.write_all(b"\n").map_err(anyhow::Error::from)?;
            answered = true;
        }
        out.write_all(&text).map_err(anyhow::Error::from)?;
    }
    Ok(out.flush().map_err(anyhow::Error::from)?)
}

#[cfg(test)]
#[allow(
    clippy::disallowed_methods,
    reason = "files have the time of the machine that the test runs on"
)]
mod tests {
    use std::{
        fs::File,
        time::{Duration, SystemTime},
    };

    use super::*;
    use crate::{
        audit::seal::Frame,
        runtime::ledger::{Ledger, LedgerOptions, retention::Retention},
        store::testing,
    };

    #[tokio::test(flavor = "multi_thread")]
    async fn what_a_rule_took_is_told_from_what_was_never_there() {
        let dir = testing::dir();
        let of_session = |session: &str| Frame {
            session: session.into(),
            kind: FrameKind::Keys,
            body: b"wrapped".to_vec(),
        };
        let sealed = sealed::sealed_dir(dir.path());
        for session in ["gone", "newest"] {
            let mut writer = sealed::Writer::open(&sealed, 1 << 20).unwrap();
            writer.append([&of_session(session)]).unwrap();
        }
        let (_, first) = sealed::files(&sealed).unwrap().swap_remove(0);
        let long_ago = SystemTime::now() - Duration::from_secs(3 * 3_600);
        let file = File::options().write(true).open(first).unwrap();
        file.set_modified(long_ago).unwrap();
        let begun = Timestamp::try_from(long_ago).unwrap();
        assert!(Store::find(&sealed, "gone").unwrap().keys.is_some());

        let mut options = LedgerOptions::new(dir.path(), "demo", "a");
        options.retention = Some(Retention {
            age: Some(Duration::from_secs(2 * 3_600)),
            size: None,
            at_least: Duration::ZERO,
            archive: None,
            sealed_cap: None,
        });
        let ledger = Ledger::open(options).unwrap();
        ledger.prune().unwrap();
        ledger.shutdown(0).await.unwrap();
        assert!(Store::find(&sealed, "gone").unwrap().keys.is_none());
        assert!(Store::find(&sealed, "newest").unwrap().keys.is_some());
        let told = discarded(dir.path(), begun).unwrap().unwrap();
        assert_eq!((told.first, told.last, &*told.rule), (1, 1, "age 7200s"));
        // What was sealed later than all that went did not go.
        let later = begun + SignedDuration::from_mins(5);
        assert_eq!(discarded(dir.path(), later).unwrap(), None);
    }
}
