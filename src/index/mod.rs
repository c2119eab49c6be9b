//! The search index over a ledger directory, in SQLite with FTS5.
//!
//! ```text
//! segments --verify--> records --> sessions, groups, entities, words      (index.sqlite)
//!                        '-- where each record stands and its hash: a session is read from the log, never from here
//! ```
//! Promises: it is a projection: whatever becomes of the file, it can be made again from the log; a record goes in only
//! through the verifier, and what that faults is known for every session. Segments that were touched since they were read
//! are read again. Never does: hold the text itself, only its words; change the log. Can miss: what was done to the log
//! together with the index file, and faults that only a checkpoint from outside shows: both are for `countersign verify`.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use rusqlite::{Connection, ErrorCode};

use crate::audit::verify::Fault;

mod query;
mod session;
mod take;
mod update;

#[cfg(test)]
mod tests;

pub use query::{Filter, Row};
pub use session::{Located, Session};

/// The index's name in a ledger directory.
pub const FILE: &str = "index.sqlite";

/// Marks the file as ours (SQLite's `application_id`).
const APPLICATION: u32 = 0x4353_4958;
/// Of the tables and of what is in them; another version is thrown away and built anew.
const VERSION: i64 = 2;

const SCHEMA: &str = "
CREATE TABLE chains (
    id INTEGER PRIMARY KEY, chain TEXT NOT NULL UNIQUE, ordinal INTEGER NOT NULL, size INTEGER NOT NULL,
    head BLOB NOT NULL, tree BLOB NOT NULL, genesis TEXT,
    last_size INTEGER NOT NULL, last_head BLOB NOT NULL, last_tree BLOB NOT NULL);
CREATE TABLE segments (
    chain INTEGER NOT NULL, first INTEGER NOT NULL, length INTEGER NOT NULL, modified INTEGER NOT NULL,
    changed INTEGER NOT NULL, PRIMARY KEY (chain, first)) WITHOUT ROWID;
CREATE TABLE faults (chain TEXT NOT NULL, seq INTEGER NOT NULL, cause TEXT NOT NULL);
CREATE TABLE sessions (
    id INTEGER PRIMARY KEY, session TEXT NOT NULL UNIQUE, time TEXT NOT NULL, connection TEXT NOT NULL DEFAULT '',
    issuer TEXT NOT NULL DEFAULT '', subject TEXT NOT NULL DEFAULT '', model TEXT NOT NULL DEFAULT '',
    answered TEXT NOT NULL DEFAULT '', verdict TEXT NOT NULL DEFAULT '', policies TEXT NOT NULL DEFAULT '',
    code TEXT NOT NULL DEFAULT '', outcome TEXT NOT NULL DEFAULT '', status INTEGER NOT NULL DEFAULT 0,
    duration_ms INTEGER NOT NULL DEFAULT 0, payload TEXT NOT NULL DEFAULT '', erased INTEGER NOT NULL DEFAULT 0);
CREATE INDEX sessions_time ON sessions (time);
CREATE INDEX sessions_subject ON sessions (subject);
CREATE TABLE groups (session INTEGER NOT NULL, name TEXT NOT NULL, PRIMARY KEY (session, name)) WITHOUT ROWID;
CREATE TABLE entities (
    session INTEGER NOT NULL, name TEXT NOT NULL, request INTEGER NOT NULL DEFAULT 0, response INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (session, name)) WITHOUT ROWID;
CREATE TABLE records (
    session INTEGER NOT NULL, chain INTEGER NOT NULL, seq INTEGER NOT NULL, hash BLOB NOT NULL, segment INTEGER NOT NULL,
    offset INTEGER NOT NULL, PRIMARY KEY (session, chain, seq)) WITHOUT ROWID;
CREATE VIRTUAL TABLE texts USING fts5 (
    prompt, answer, content='', contentless_delete=1, tokenize='unicode61 remove_diacritics 2');
";

/// Why the index cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// The operating system refused.
    #[error("`{path}`: {source}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// SQLite refused.
    #[error("the index cannot be used: {0}; `countersign index` builds it anew")]
    Sqlite(#[from] rusqlite::Error),
    /// The file is something else's.
    #[error("`{0}` is no index of countersign; name another file with --index")]
    Foreign(PathBuf),
    /// Not a search.
    #[error("`{0}` has no word to look for")]
    NoWord(String),
}

impl IndexError {
    pub(super) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, source }
    }

    /// Whether only building the file anew helps.
    fn is_corrupt(&self) -> bool {
        matches!(self, Self::Sqlite(error) if matches!(
            error.sqlite_error_code(),
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
        ))
    }
}

/// The index of one ledger directory, up to date as of when it was opened.
pub struct Index {
    db: Connection,
    dir: PathBuf,
    faults: Vec<Fault>,
    /// INVARIANT: held while the file is open: one process works with it at a time.
    _lock: File,
}

impl std::fmt::Debug for Index {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Index")
            .field("dir", &self.dir)
            .finish_non_exhaustive()
    }
}

/// How the index came to be as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Build {
    /// What there was, with what the log has gained.
    Continued,
    /// There was none, or one of another version, or a corrupt one, or it was asked for: built from the whole log.
    Anew,
}

impl Index {
    /// Opens the index of ledger directory `dir` in `file`, or in [`FILE`] there, and brings it up to date; with `anew` it is
    /// built from nothing, as it is where the file is missing, of another version or corrupt. Waits while another process
    /// works with it. `progress` hears of bytes read.
    ///
    /// # Errors
    /// [`IndexError`]; [`IndexError::Foreign`] where `file` is given and holds something else.
    pub fn open(
        dir: &Path,
        file: Option<&Path>,
        anew: bool,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(Self, Build), IndexError> {
        let path = file.map_or_else(|| dir.join(FILE), Path::to_owned);
        let lock = lock(&path)?;
        let usable = match kind(&path)? {
            Kind::Ours => !anew,
            Kind::Missing | Kind::Other if file.is_none() => false,
            Kind::Missing => false,
            Kind::Other => return Err(IndexError::Foreign(path)),
        };
        let begin = |usable: bool, lock: File| -> Result<Self, IndexError> {
            let db = if usable { open(&path)? } else { create(&path)? };
            Ok(Self {
                db,
                dir: dir.to_owned(),
                faults: Vec::new(),
                _lock: lock,
            })
        };
        let mut build = if usable {
            Build::Continued
        } else {
            Build::Anew
        };
        let again = lock.try_clone().map_err(IndexError::io(&path))?;
        let opened = begin(usable, lock).and_then(|mut index| {
            index.update(progress)?;
            Ok(index)
        });
        let index = match opened {
            Err(error) if usable && error.is_corrupt() => {
                build = Build::Anew;
                let mut index = begin(false, again)?;
                index.update(progress)?;
                index
            }
            opened => opened?,
        };
        Ok((index, build))
    }

    /// What does not verify, in the order it was found: as `countersign verify` says it without a checkpoint from outside.
    #[must_use]
    pub fn faults(&self) -> &[Fault] {
        &self.faults
    }
}

enum Kind {
    Missing,
    Ours,
    Other,
}

/// What stands at `path`, by SQLite's header (<https://www.sqlite.org/fileformat2.html#the_database_header>).
fn kind(path: &Path) -> Result<Kind, IndexError> {
    let mut header = Vec::new();
    match File::open(path) {
        Ok(file) => {
            file.take(100)
                .read_to_end(&mut header)
                .map_err(IndexError::io(path))?;
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Kind::Missing),
        Err(error) => return Err(IndexError::io(path)(error)),
    }
    let ours = header.starts_with(b"SQLite format 3\0")
        && header.get(68..72) == Some(APPLICATION.to_be_bytes().as_slice());
    Ok(match header.is_empty() {
        true => Kind::Missing,
        false if ours => Kind::Ours,
        false => Kind::Other,
    })
}

/// Beside the index, because the index itself is replaced.
fn lock(path: &Path) -> Result<File, IndexError> {
    let path = beside(path, ".lock");
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(IndexError::io(&path))?;
    file.lock().map_err(IndexError::io(&path))?;
    Ok(file)
}

fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    name.into()
}

/// The index that is there; an error that [`IndexError::is_corrupt`] where it is of another version.
fn open(path: &Path) -> Result<Connection, IndexError> {
    let db = Connection::open(path)?;
    let version: i64 = db.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if version != VERSION {
        return Err(IndexError::Sqlite(rusqlite::Error::SqliteFailure(
            rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_NOTADB),
            Some(format!("version {version}")),
        )));
    }
    Ok(db)
}

/// An empty index in the place of what is there. Its words are the log's, so its mode is 0600.
fn create(path: &Path) -> Result<Connection, IndexError> {
    for end in ["", "-wal", "-shm", "-journal"] {
        match fs::remove_file(beside(path, end)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(IndexError::io(path)(error));
            }
            _ => {}
        }
    }
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(IndexError::io(path))?;
    let mut db = Connection::open(path)?;
    db.pragma_update(None, "journal_mode", "wal")?;
    db.pragma_update(None, "synchronous", "normal")?;
    let all = db.transaction()?;
    all.pragma_update(None, "application_id", APPLICATION)?;
    all.pragma_update(None, "user_version", VERSION)?;
    all.execute_batch(SCHEMA)?;
    all.commit()?;
    Ok(db)
}

/// SQLite's integers are signed; places and sizes of a log never reach the other half.
fn int(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn uint(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}
