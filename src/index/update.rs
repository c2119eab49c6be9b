//! Following the log: what is new is verified and taken in, chain by chain.

use std::{
    collections::BTreeSet,
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use rusqlite::{OptionalExtension, Transaction, params};

use super::{Index, IndexError, int, take, uint};
use crate::{
    audit::{
        ChainId, Hash,
        chain::Head,
        checkpoint::notes,
        record::Genesis,
        tree::Frontier,
        verify::{Fault, Holder, Order, Verifier},
    },
    store::{
        checkpoints,
        layout::{self, ChainDir},
        lock::DirLock,
        prune,
        reader::{ChainReader, Step},
    },
};

/// Records taken in by one transaction, at most.
const BATCH: usize = 8_192;

/// A segment as it was when it was read: whoever writes to it afterwards changes one of these (the time of change is the
/// kernel's and cannot be set back).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) first: u64,
    length: u64,
    modified: i64,
    changed: i64,
}

/// A place in a chain from which reading can go on.
#[derive(Clone)]
struct Edge {
    head: Head,
    tree: Frontier,
}

/// What is indexed of a chain.
struct Known {
    id: i64,
    end: Edge,
    /// The start of its last segment, which may have grown since.
    last: Edge,
    genesis: Option<Genesis>,
    segments: Vec<Seen>,
}

impl Index {
    /// Brings the index up to date.
    pub(super) fn update(&mut self, progress: &mut dyn FnMut(u64)) -> Result<(), IndexError> {
        let live = DirLock::is_held(&self.dir);
        let (mut faults, continued) = self.pass(progress)?;
        let bad: BTreeSet<ChainId> = faults.iter().map(|fault| fault.chain).collect();
        if !bad.is_empty() && (live || !bad.is_disjoint(&continued)) {
            // Read from the beginning, a fault has its exact place; and of a log being written, a write that failed and
            // was cut off again is not seen twice.
            for chain in bad {
                self.forget(chain)?;
            }
            faults = self.pass(progress)?.0;
        }
        self.keep_faults(&faults)?;
        self.faults = faults;
        Ok(())
    }

    /// Follows every chain: what is wrong, and of which chains that is not exact because they were not read once and whole.
    fn pass(
        &mut self,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(Vec<Fault>, BTreeSet<ChainId>), IndexError> {
        let chains = layout::chains(&self.dir).map_err(IndexError::io(&self.dir))?;
        self.forget_others(&chains)?;
        let mut verifier = Verifier::new(Order::Strict, Vec::new());
        let mut continued = BTreeSet::new();
        for chain in &chains {
            if !self.follow(&mut verifier, chain, progress)? {
                continued.insert(chain.chain);
            }
        }
        Ok((verifier.finish().faults, continued))
    }

    fn keep_faults(&mut self, faults: &[Fault]) -> Result<(), IndexError> {
        let all = self.db.transaction()?;
        all.execute("DELETE FROM faults", [])?;
        for fault in faults {
            if fault.is_about_records() {
                all.execute(
                    "INSERT INTO faults (chain, seq, cause) VALUES (?1, ?2, ?3)",
                    params![
                        fault.chain.to_string(),
                        int(fault.seq),
                        fault.cause.to_string()
                    ],
                )?;
            }
        }
        all.commit()?;
        Ok(())
    }

    /// Takes out chains that are no longer in the directory, and those that had a fault.
    fn forget_others(&mut self, chains: &[ChainDir]) -> Result<(), IndexError> {
        let there: BTreeSet<ChainId> = chains.iter().map(|chain| chain.chain).collect();
        let names = |sql: &str| -> Result<BTreeSet<ChainId>, IndexError> {
            let mut select = self.db.prepare(sql)?;
            let names = select.query_map([], |row| row.get::<_, String>(0))?;
            let names = names.collect::<Result<Vec<_>, _>>()?;
            Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
        };
        let mut gone = names("SELECT chain FROM faults")?;
        gone.extend(names("SELECT chain FROM chains")?.difference(&there));
        for chain in gone {
            self.forget(chain)?;
        }
        Ok(())
    }

    fn forget(&mut self, chain: ChainId) -> Result<(), IndexError> {
        let all = self.db.transaction()?;
        forget(&all, chain)?;
        all.commit()?;
        Ok(())
    }

    /// Verifies and takes in what is new of a chain; whether all of it was read, and once.
    fn follow(
        &mut self,
        verifier: &mut Verifier,
        chain: &ChainDir,
        progress: &mut dyn FnMut(u64),
    ) -> Result<bool, IndexError> {
        // Before any record is read: what is written meanwhile is then seen as a change next time.
        let segments = segments(chain).map_err(IndexError::io(&chain.path))?;
        let start = start(chain).map_err(IndexError::io(&chain.path))?;
        self.forget_before(chain.chain, start.0.head.size)?;
        let known = self.known(chain.chain)?;
        match known {
            Some(known) if known.segments == segments => {
                verifier.resume(known.end.head, known.end.tree, known.genesis);
                return Ok(false);
            }
            Some(known) if known.can_go_on(&segments) => {
                if self.take_in(verifier, chain, Ok(known), &segments, progress)? {
                    return Ok(false);
                }
                // What was read last time is not what is there now: all of it again. Faults may be told twice.
                self.forget(chain.chain)?;
                self.take_in(verifier, chain, Err(start), &segments, progress)?;
                return Ok(false);
            }
            Some(_) => self.forget(chain.chain)?,
            None => {}
        }
        self.take_in(verifier, chain, Err(start), &segments, progress)?;
        Ok(true)
    }

    /// Takes out records that the chain no longer has, because they were pruned.
    fn forget_before(&mut self, chain: ChainId, first: u64) -> Result<(), IndexError> {
        let gone: bool = self.db.query_row(
            "SELECT EXISTS (SELECT 1 FROM segments s JOIN chains c ON c.id = s.chain WHERE c.chain = ?1 AND s.first < ?2)",
            params![chain.to_string(), int(first)],
            |row| row.get(0),
        )?;
        if !gone {
            return Ok(());
        }
        let all = self.db.transaction()?;
        for (table, place) in [("records", "seq"), ("segments", "first")] {
            all.execute(
                &format!(
                    "DELETE FROM {table} WHERE {place} < ?2 AND chain = (SELECT id FROM chains WHERE chain = ?1)"
                ),
                params![chain.to_string(), int(first)],
            )?;
        }
        forget_empty(&all)?;
        all.commit()?;
        Ok(())
    }

    /// Reads a chain from the start of its last known segment on, or else from its first record that is there; false where what
    /// is known is no longer so.
    fn take_in(
        &mut self,
        verifier: &mut Verifier,
        chain: &ChainDir,
        known: Result<Known, (Edge, Option<Genesis>)>,
        segments: &[Seen],
        progress: &mut dyn FnMut(u64),
    ) -> Result<bool, IndexError> {
        let io = |error| IndexError::io(&chain.path)(error);
        let (known, mut last, genesis) = match known {
            Ok(known) => {
                let (last, genesis) = (known.last.clone(), known.genesis.clone());
                (Some(known), last, genesis)
            }
            Err((start, genesis)) => (None, start, genesis),
        };
        verifier.resume(last.head, last.tree.clone(), genesis);
        for note in notes(&checkpoints::read(&chain.checkpoints()).map_err(io)?) {
            if let Err(error) = verifier.checkpoint(note, Holder::Inside) {
                verifier.bad_checkpoint(chain.chain, error);
            }
        }
        let id = match &known {
            Some(known) => known.id,
            None => {
                self.db.execute(
                    "INSERT INTO chains (chain, ordinal, size, head, tree, last_size, last_head, last_tree)
                     VALUES (?1, ?2, 0, x'', x'', 0, x'', x'')",
                    params![chain.chain.to_string(), int(chain.ordinal)],
                )?;
                self.db.last_insert_rowid()
            }
        };
        let until = known.as_ref().map_or(0, |known| known.end.head.size);
        let mut reader = ChainReader::near(chain.clone(), last.head.size)
            .and_then(ChainReader::ending_now)
            .map_err(io)?;
        let mut segment = last.head.size;
        let mut ended = false;
        while !ended {
            let mut batch = take::Batch::default();
            let all = self.db.transaction()?;
            while batch.len() < BATCH {
                match reader.step().map_err(io)? {
                    Step::Record(stored) => {
                        if segments.iter().any(|seen| seen.first == stored.seq) {
                            segment = stored.seq;
                            if let Some((head, tree, _)) = verifier.edge(chain.chain)
                                && head.size == stored.seq
                            {
                                let tree = tree.clone();
                                last = Edge { head, tree };
                            }
                        }
                        progress(stored.bytes.len() as u64);
                        let hash = Some(stored.record_hash);
                        verifier.record(chain.chain, stored.seq, &stored.bytes, hash);
                        if stored.seq >= until {
                            batch.take(&all, id, segment, &stored)?;
                        } else if stored.seq + 1 == until
                            && known.as_ref().map(|known| known.end.head.hash) != hash
                        {
                            return Ok(false);
                        }
                    }
                    Step::End(_) => {
                        ended = true;
                        break;
                    }
                    Step::Damaged(damage) => {
                        verifier.damaged(chain.chain, damage.seq, damage.what);
                        // What stands behind it proves nothing, but whoever asks for it may see it.
                        let Some(next) = segments.iter().find(|seen| seen.first > damage.seq)
                        else {
                            ended = true;
                            break;
                        };
                        reader = ChainReader::near(chain.clone(), next.first)
                            .and_then(ChainReader::ending_now)
                            .map_err(io)?;
                    }
                }
            }
            batch.finish(&all, &self.dir, chain)?;
            if ended {
                keep(&all, id, verifier, chain.chain, &last, segments)?;
            }
            all.commit()?;
        }
        let size = verifier.edge(chain.chain).map_or(0, |(head, ..)| head.size);
        Ok(size >= until)
    }

    fn known(&self, chain: ChainId) -> Result<Option<Known>, IndexError> {
        let edge = |size: i64, hash: Vec<u8>, tree: Vec<u8>| {
            let hash = Hash(hash.try_into().ok()?);
            let nodes = tree
                .chunks(32)
                .map(|node| Some(Hash(node.try_into().ok()?)))
                .collect::<Option<Vec<_>>>()?;
            let size = uint(size);
            Some(Edge {
                head: Head { chain, size, hash },
                tree: Frontier::from_nodes(size, nodes)?,
            })
        };
        let found = self
            .db
            .query_row(
                "SELECT id, size, head, tree, last_size, last_head, last_tree, genesis FROM chains WHERE chain = ?1",
                [chain.to_string()],
                |row| {
                    let end = edge(row.get(1)?, row.get(2)?, row.get(3)?);
                    let last = edge(row.get(4)?, row.get(5)?, row.get(6)?);
                    Ok((row.get::<_, i64>(0)?, end, last, row.get::<_, Option<String>>(7)?))
                },
            )
            .optional()?;
        let Some((id, end, last, genesis)) = found else {
            return Ok(None);
        };
        let mut select = self.db.prepare(
            "SELECT first, length, modified, changed FROM segments WHERE chain = ?1 ORDER BY first",
        )?;
        let segments = select
            .query_map([id], |row| {
                Ok(Seen {
                    first: uint(row.get(0)?),
                    length: uint(row.get(1)?),
                    modified: row.get(2)?,
                    changed: row.get(3)?,
                })
            })?
            .collect::<Result<_, _>>()?;
        // An interrupted run leaves a chain without its edges: nothing to go on from, so it counts as touched.
        let empty = || Edge {
            head: Head::empty(chain),
            tree: Frontier::default(),
        };
        let whole = end.is_some() && last.is_some();
        Ok(Some(Known {
            id,
            end: end.unwrap_or_else(empty),
            last: last.unwrap_or_else(empty),
            genesis: genesis.and_then(|json| serde_json::from_str(&json).ok()),
            segments: if whole { segments } else { Vec::new() },
        }))
    }
}

impl Known {
    /// Whether all but its last segment are untouched, and that one is still there.
    fn can_go_on(&self, now: &[Seen]) -> bool {
        let Some((last, closed)) = self.segments.split_last() else {
            return false;
        };
        now.starts_with(closed)
            && now
                .get(closed.len())
                .is_some_and(|seen| seen.first == last.first && seen.length >= last.length)
            && self.last.head.size == last.first
    }
}

/// Where a chain's records begin: at the first, or behind those that were pruned. Whether the pruning was announced, as it must
/// be, is for `countersign verify` to say: it vouches for records that are not there.
fn start(chain: &ChainDir) -> io::Result<(Edge, Option<Genesis>)> {
    let empty = || Edge {
        head: Head::empty(chain.chain),
        tree: Frontier::default(),
    };
    match prune::load(chain) {
        Ok(Some((stump, _))) => {
            let (head, tree) = (stump.head, stump.tree);
            Ok((Edge { head, tree }, Some(stump.first.into_genesis())))
        }
        Ok(None) => Ok((empty(), None)),
        // Then records are missing, and that is told.
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Ok((empty(), None)),
        Err(error) => Err(error),
    }
}

fn segments(chain: &ChainDir) -> io::Result<Vec<Seen>> {
    let seen = |(first, path): (u64, PathBuf)| {
        let found = fs::metadata(path)?;
        Ok(Seen {
            first,
            length: found.len(),
            modified: found.mtime() * 1_000_000_000 + found.mtime_nsec(),
            changed: found.ctime() * 1_000_000_000 + found.ctime_nsec(),
        })
    };
    chain.segments()?.into_iter().map(seen).collect()
}

fn keep(
    all: &Transaction<'_>,
    id: i64,
    verifier: &Verifier,
    chain: ChainId,
    last: &Edge,
    segments: &[Seen],
) -> Result<(), IndexError> {
    let Some((head, tree, genesis)) = verifier.edge(chain) else {
        return Ok(());
    };
    let nodes = |tree: &Frontier| {
        tree.nodes()
            .iter()
            .flat_map(|node| node.0)
            .collect::<Vec<u8>>()
    };
    let genesis = genesis.and_then(|genesis| serde_json::to_string(genesis).ok());
    all.execute(
        "UPDATE chains SET size = ?2, head = ?3, tree = ?4, last_size = ?5, last_head = ?6, last_tree = ?7, genesis = ?8
         WHERE id = ?1",
        params![
            id,
            int(head.size),
            head.hash.0.as_slice(),
            nodes(tree),
            int(last.head.size),
            last.head.hash.0.as_slice(),
            nodes(&last.tree),
            genesis
        ],
    )?;
    all.execute("DELETE FROM segments WHERE chain = ?1", [id])?;
    for seen in segments {
        all.execute(
            "INSERT INTO segments (chain, first, length, modified, changed) VALUES (?1, ?2, ?3, ?4, ?5)",
            params![id, int(seen.first), int(seen.length), seen.modified, seen.changed],
        )?;
    }
    Ok(())
}

/// Takes a chain out, with the sessions that have no records elsewhere.
fn forget(db: &rusqlite::Connection, chain: ChainId) -> Result<(), IndexError> {
    let id: Option<i64> = db
        .query_row(
            "SELECT id FROM chains WHERE chain = ?1",
            [chain.to_string()],
            |row| row.get(0),
        )
        .optional()?;
    let Some(id) = id else { return Ok(()) };
    db.execute("DELETE FROM records WHERE chain = ?1", [id])?;
    db.execute("DELETE FROM segments WHERE chain = ?1", [id])?;
    db.execute("DELETE FROM chains WHERE id = ?1", [id])?;
    forget_empty(db)
}

/// Takes out the sessions that have no records any more.
fn forget_empty(db: &rusqlite::Connection) -> Result<(), IndexError> {
    let gone = "SELECT id FROM sessions WHERE id NOT IN (SELECT session FROM records)";
    for (table, key) in [
        ("texts", "rowid"),
        ("groups", "session"),
        ("entities", "session"),
    ] {
        db.execute(&format!("DELETE FROM {table} WHERE {key} IN ({gone})"), [])?;
    }
    db.execute(
        "DELETE FROM sessions WHERE id NOT IN (SELECT session FROM records)",
        [],
    )?;
    Ok(())
}

/// The segment of a chain in ledger directory `dir`, as the index names it.
pub(super) fn segment_path(dir: &Path, ordinal: u64, chain: ChainId, first: u64) -> PathBuf {
    ChainDir::new(dir, ordinal, chain).segment(first)
}
