//! Records into tables.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::{IndexError, int, session, update};
use crate::{
    audit::{
        chain::Position,
        proof,
        record::{Closed, Decision, Endpoint, Entry, Event, Identity, RequestRecord},
        replay::Prompt,
    },
    store::{layout::ChainDir, reader::Stored},
};

/// Most of an answer that can be found by its words, in bytes.
const MAX_ANSWER: usize = 4 << 20;

/// Records of one transaction, and whose words have to be looked at again.
#[derive(Default)]
pub(super) struct Batch {
    records: usize,
    touched: BTreeSet<i64>,
}

/// What the first record of a session says, permitted or refused.
struct First<'a> {
    identity: &'a Identity,
    endpoint: &'a Endpoint,
    request: &'a RequestRecord,
    decision: &'a Decision,
}

impl Batch {
    pub(super) fn len(&self) -> usize {
        self.records
    }

    /// Takes a record in. What no event is known of counts for its session all the same.
    pub(super) fn take(
        &mut self,
        all: &Transaction<'_>,
        chain: i64,
        segment: u64,
        stored: &Stored,
    ) -> Result<(), IndexError> {
        self.records += 1;
        let entry = serde_json::from_slice::<Entry>(&stored.bytes).ok();
        let name = match &entry {
            Some(entry) => entry.session.clone(),
            None => proof::session(&stored.bytes).unwrap_or_default(),
        };
        if name.is_empty() {
            return Ok(());
        }
        let time = Position::read(&stored.bytes).map_or("", |position| position.time);
        let session = session_id(all, &name, time)?;
        self.touched.insert(session);
        all.prepare_cached(
            "INSERT OR REPLACE INTO records (session, chain, seq, hash, segment, offset) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?
        .execute(params![
            session,
            chain,
            int(stored.seq),
            stored.record_hash.0.as_slice(),
            int(segment),
            int(stored.offset)
        ])?;
        match entry.map(|entry| entry.event) {
            Some(Event::Opened(opened)) => {
                let first = First {
                    identity: &opened.identity,
                    endpoint: &opened.endpoint,
                    request: &opened.request,
                    decision: &opened.decision,
                };
                begin(all, session, &first)
            }
            Some(Event::Refused(refused)) => {
                let first = First {
                    identity: &refused.identity,
                    endpoint: &refused.endpoint,
                    request: &refused.request,
                    decision: &refused.decision,
                };
                begin(all, session, &first)?;
                all.prepare_cached(
                    "UPDATE sessions SET outcome = 'refused', code = ?2, status = ?3 WHERE id = ?1",
                )?
                .execute(params![
                    session,
                    refused.decision.code,
                    refused.status
                ])?;
                Ok(())
            }
            Some(Event::Closed(closed)) => end(all, session, &closed),
            Some(Event::Erased(_)) => {
                all.prepare_cached("UPDATE sessions SET erased = 1 WHERE id = ?1")?
                    .execute([session])?;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Looks at the words of every session that a record was taken of.
    pub(super) fn finish(
        self,
        all: &Transaction<'_>,
        dir: &Path,
        chain: &ChainDir,
    ) -> Result<(), IndexError> {
        for session in self.touched {
            let (prompt, answer) = words(all, dir, session).map_err(IndexError::io(&chain.path))?;
            all.prepare_cached("DELETE FROM texts WHERE rowid = ?1")?
                .execute([session])?;
            if !prompt.is_empty() || !answer.is_empty() {
                all.prepare_cached(
                    "INSERT INTO texts (rowid, prompt, answer) VALUES (?1, ?2, ?3)",
                )?
                .execute(params![session, prompt, answer])?;
            }
        }
        Ok(())
    }
}

fn session_id(all: &Transaction<'_>, name: &str, time: &str) -> Result<i64, IndexError> {
    let known: Option<i64> = all
        .prepare_cached("SELECT id FROM sessions WHERE session = ?1")?
        .query_row([name], |row| row.get(0))
        .optional()?;
    if let Some(id) = known {
        return Ok(id);
    }
    all.prepare_cached("INSERT INTO sessions (session, time) VALUES (?1, ?2)")?
        .execute([name, time])?;
    Ok(all.last_insert_rowid())
}

fn begin(all: &Transaction<'_>, session: i64, first: &First<'_>) -> Result<(), IndexError> {
    all.prepare_cached(
        "UPDATE sessions SET connection = ?2, issuer = ?3, subject = ?4, model = ?5, verdict = ?6, policies = ?7, payload = ?8
         WHERE id = ?1",
    )?
    .execute(params![
        session,
        first.endpoint.connection,
        first.identity.issuer,
        first.identity.subject,
        first.request.model,
        first.decision.verdict,
        first.decision.policies.join(" "),
        first.request.payload
    ])?;
    for group in &first.identity.groups {
        all.prepare_cached("INSERT OR IGNORE INTO groups (session, name) VALUES (?1, ?2)")?
            .execute(params![session, group])?;
    }
    entities(all, session, "request", &first.request.findings)
}

fn end(all: &Transaction<'_>, session: i64, closed: &Closed) -> Result<(), IndexError> {
    all.prepare_cached(
        "UPDATE sessions SET outcome = ?2, code = ?3, status = ?4, answered = ?5, duration_ms = ?6 WHERE id = ?1",
    )?
    .execute(params![
        session,
        closed.outcome,
        closed.code,
        closed.status,
        closed.model,
        closed.duration_ms
    ])?;
    entities(all, session, "response", &closed.findings)
}

fn entities(
    all: &Transaction<'_>,
    session: i64,
    side: &'static str,
    found: &BTreeMap<String, u32>,
) -> Result<(), IndexError> {
    for (name, n) in found {
        all.prepare_cached(&format!(
            "INSERT INTO entities (session, name, {side}) VALUES (?1, ?2, ?3)
             ON CONFLICT (session, name) DO UPDATE SET {side} = ?3"
        ))?
        .execute(params![session, name, n])?;
    }
    Ok(())
}

/// What can be found of a session: of its prompt every value, of its answer every channel's text.
fn words(db: &Connection, dir: &Path, session: i64) -> std::io::Result<(String, String)> {
    let located = session::located(db, session).map_err(std::io::Error::other)?;
    let (mut prompt, mut answer) = (Prompt::default(), BTreeMap::<String, String>::new());
    let mut room = MAX_ANSWER;
    for at in &located {
        let path = update::segment_path(dir, at.ordinal, at.chain, at.segment);
        let Some(stored) = crate::store::reader::record_at(&path, at.offset)? else {
            continue;
        };
        match serde_json::from_slice::<Entry>(&stored.bytes).map(|entry| entry.event) {
            Ok(Event::Opened(opened)) => prompt.begin(&opened.request),
            Ok(Event::Refused(refused)) => prompt.begin(&refused.request),
            Ok(Event::Delivered(delivered)) if delivered.of_request => prompt.go_on(&delivered),
            Ok(Event::Delivered(delivered)) => {
                for (channel, text) in delivered.text {
                    let text = &text[..text.floor_char_boundary(room)];
                    room -= text.len();
                    answer.entry(channel).or_default().push_str(text);
                }
            }
            _ => {}
        }
    }
    let prompt: Vec<String> = prompt.values().into_iter().map(|(_, text)| text).collect();
    let answer: Vec<String> = answer.into_values().collect();
    Ok((prompt.join("\n"), answer.join("\n")))
}
