//! One session's records, read from the log where the index says they are, and compared with what was verified there.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension};

use super::{Index, IndexError, uint, update};
use crate::{
    audit::{
        ChainId, Hash,
        chain::{Position, record_hash},
    },
    store::reader,
};

/// Where a record stands, and the hash it had when it was verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Located {
    /// Its chain.
    pub chain: ChainId,
    /// The chain's place among the starts of its replica.
    pub ordinal: u64,
    /// Its place in the chain.
    pub seq: u64,
    pub(super) hash: Hash,
    pub(super) segment: u64,
    pub(super) offset: u64,
}

/// A session's records.
#[derive(Clone, Debug)]
pub struct Session {
    /// Where they are, in the order they were written.
    pub records: Vec<Located>,
    /// Whether the log verifies as far as they reach.
    pub verified: bool,
}

impl Index {
    /// Where the records of a session are; `None` where it is not in the log.
    ///
    /// # Errors
    /// [`IndexError::Sqlite`].
    pub fn session(&self, session: &str) -> Result<Option<Session>, IndexError> {
        let id: Option<i64> = self
            .db
            .query_row(
                "SELECT id FROM sessions WHERE session = ?1",
                [session],
                |row| row.get(0),
            )
            .optional()?;
        let Some(id) = id else { return Ok(None) };
        let records = located(&self.db, id)?;
        let bad = |at: &Located| {
            let mut faults = self.faults.iter().filter(|fault| fault.is_about_records());
            faults.any(|fault| fault.chain == at.chain && fault.seq <= at.seq)
        };
        let verified = !records.iter().any(bad);
        Ok(Some(Session { records, verified }))
    }

    /// The bytes of a record; `None` where they are not those that were indexed.
    ///
    /// # Errors
    /// [`IndexError::Io`].
    pub fn read(&self, at: &Located) -> Result<Option<Vec<u8>>, IndexError> {
        let path = update::segment_path(&self.dir, at.ordinal, at.chain, at.segment);
        let stored = reader::record_at(&path, at.offset).map_err(IndexError::io(&path))?;
        Ok(stored.map(|stored| stored.bytes).filter(|bytes| {
            Position::read(bytes).is_some_and(|position| {
                let (chain, seq) = (position.chain, position.seq);
                (chain, seq) == (at.chain, at.seq)
                    && record_hash(chain, seq, position.previous, bytes) == at.hash
            })
        }))
    }

    /// The ledger directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

pub(super) fn located(db: &Connection, session: i64) -> Result<Vec<Located>, rusqlite::Error> {
    let mut select = db.prepare_cached(
        "SELECT c.chain, c.ordinal, r.seq, r.hash, r.segment, r.offset FROM records r JOIN chains c ON c.id = r.chain
         WHERE r.session = ?1 ORDER BY c.ordinal, r.seq",
    )?;
    let mut rows = select.query([session])?;
    let mut located = Vec::new();
    while let Some(row) = rows.next()? {
        let (chain, hash): (String, Vec<u8>) = (row.get(0)?, row.get(3)?);
        if let (Ok(chain), Ok(hash)) = (chain.parse(), hash.try_into()) {
            located.push(Located {
                chain,
                ordinal: uint(row.get(1)?),
                seq: uint(row.get(2)?),
                hash: Hash(hash),
                segment: uint(row.get(4)?),
                offset: uint(row.get(5)?),
            });
        }
    }
    Ok(located)
}
