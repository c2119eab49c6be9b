//! Erasures that were asked for, as files in the ledger's directory: the process that owns the directory carries them out, so
//! that each chain keeps its one writer.
//!
//! ```text
//! <dir>/erase/<session>.asked      {"reason": …}; who owns the file asked for it
//!             <session>.recorded   the same, once it is on record: the keys are destroyed next, and the file goes
//!             <session>.refused    the session has nothing sealed
//! ```
//! A crash at any point leaves a file from which the next start goes on; at worst an erasure is recorded twice.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt, chown, fchown},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::layout::{create_private, sync_dir};

/// Longest reason, in bytes.
pub const MAX_REASON: usize = 1_000;
/// Longest file read for a request.
const MAX_FILE: u64 = 16 << 10;

/// How far an erasure is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Asked for.
    Asked,
    /// On record.
    Recorded,
    /// Nothing to erase.
    Refused,
}

impl Stage {
    fn name(self) -> &'static str {
        match self {
            Self::Asked => "asked",
            Self::Recorded => "recorded",
            Self::Refused => "refused",
        }
    }
}

/// An erasure that is to be carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Erasure {
    /// The session.
    pub session: String,
    /// How far it is.
    pub stage: Stage,
    /// Why.
    pub reason: String,
    /// The user id of who asked, as the file system has it.
    pub uid: u32,
}

#[derive(Serialize, Deserialize)]
struct Asked {
    reason: String,
}

/// Whether `session` can be a session's id, and so part of a file's name.
#[must_use]
pub fn is_session(session: &str) -> bool {
    (1..=64).contains(&session.len())
        && session
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

fn erase_dir(dir: &Path) -> PathBuf {
    dir.join("erase")
}

fn file(dir: &Path, session: &str, stage: Stage) -> PathBuf {
    erase_dir(dir).join(format!("{session}.{}", stage.name()))
}

/// Asks for an erasure, durably. `session` must be [one](is_session).
///
/// # Errors
/// Those of the file system.
pub fn ask(dir: &Path, session: &str, reason: &str) -> io::Result<()> {
    let owner = fs::metadata(dir)?;
    if !erase_dir(dir).exists() {
        create_private(&erase_dir(dir))?;
        chown(erase_dir(dir), Some(owner.uid()), Some(owner.gid()))?;
    }
    let asked = Asked {
        reason: reason.to_owned(),
    };
    // In one step: whoever looks meanwhile sees all of it or nothing.
    let fresh = erase_dir(dir).join(format!("{session}.new"));
    let mut new = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o640)
        .open(&fresh)?;
    // Who asks stays its owner, and whoever owns the log must be able to read it: root may ask for another user.
    fchown(&new, None, Some(owner.gid()))?;
    new.write_all(&serde_json::to_vec(&asked)?)?;
    new.sync_all()?;
    let _ = fs::remove_file(file(dir, session, Stage::Refused));
    fs::rename(fresh, file(dir, session, Stage::Asked))?;
    sync_dir(&erase_dir(dir))
}

/// What is asked for or begun; what is no request is passed over.
///
/// # Errors
/// Those of reading the directory; one that is missing holds nothing.
pub fn pending(dir: &Path) -> io::Result<Vec<Erasure>> {
    let entries = match fs::read_dir(erase_dir(dir)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut pending = Vec::new();
    for entry in entries {
        pending.extend(read(&entry?.path()));
    }
    pending.sort_by(|a, b| a.session.cmp(&b.session));
    Ok(pending)
}

fn read(path: &Path) -> Option<Erasure> {
    let name = path.file_name()?.to_str()?;
    let (session, stage) = name.rsplit_once('.')?;
    let stage = [Stage::Asked, Stage::Recorded]
        .into_iter()
        .find(|known| known.name() == stage)?;
    let file = File::open(path).ok()?;
    let uid = file.metadata().ok()?.uid();
    let mut text = Vec::new();
    file.take(MAX_FILE).read_to_end(&mut text).ok()?;
    let Asked { mut reason } = serde_json::from_slice(&text).ok()?;
    reason.truncate(reason.floor_char_boundary(MAX_REASON));
    is_session(session).then(|| Erasure {
        session: session.to_owned(),
        stage,
        reason,
        uid,
    })
}

/// How far the erasure of `session` is; `None` where none is under way.
#[must_use]
pub fn stage(dir: &Path, session: &str) -> Option<Stage> {
    [Stage::Asked, Stage::Recorded, Stage::Refused]
        .into_iter()
        .find(|stage| file(dir, session, *stage).exists())
}

/// Notes that an erasure is at another stage.
///
/// # Errors
/// Those of the file system.
pub fn advance(dir: &Path, erasure: &Erasure, to: Stage) -> io::Result<()> {
    let from = file(dir, &erasure.session, erasure.stage);
    fs::rename(from, file(dir, &erasure.session, to))?;
    sync_dir(&erase_dir(dir))
}

/// The erasure is done.
///
/// # Errors
/// Those of the file system.
pub fn done(dir: &Path, session: &str) -> io::Result<()> {
    fs::remove_file(file(dir, session, Stage::Recorded))?;
    sync_dir(&erase_dir(dir))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_erasure_goes_from_stage_to_stage() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(pending(dir.path()).unwrap(), []);
        ask(dir.path(), "s-1", "because").unwrap();
        fs::write(erase_dir(dir.path()).join("x.asked"), "no request").unwrap();
        fs::write(erase_dir(dir.path()).join("..asked"), r#"{"reason":"r"}"#).unwrap();
        let [asked] = pending(dir.path()).unwrap().try_into().unwrap();
        assert_eq!(
            (asked.session.as_str(), asked.reason.as_str()),
            ("s-1", "because")
        );
        assert_eq!(stage(dir.path(), "s-1"), Some(Stage::Asked));
        advance(dir.path(), &asked, Stage::Recorded).unwrap();
        let [recorded] = pending(dir.path()).unwrap().try_into().unwrap();
        assert_eq!(recorded.stage, Stage::Recorded);
        done(dir.path(), "s-1").unwrap();
        assert_eq!(
            (pending(dir.path()).unwrap(), stage(dir.path(), "s-1")),
            (vec![], None)
        );
        ask(dir.path(), "s-2", "r").unwrap();
        let [asked] = pending(dir.path()).unwrap().try_into().unwrap();
        advance(dir.path(), &asked, Stage::Refused).unwrap();
        assert_eq!(
            (pending(dir.path()).unwrap(), stage(dir.path(), "s-2")),
            (vec![], Some(Stage::Refused))
        );
    }

    #[test]
    fn a_name_leads_nowhere_else() {
        for bad in ["", "..", "a/b", "a.b", "a\0", &"a".repeat(65)] {
            assert!(!is_session(bad), "{bad}");
        }
        assert!(is_session("01a20325-7e08-7525-8507-c6cd95c1fa59"));
    }
}
