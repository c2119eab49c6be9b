//! Finding sessions.

use std::collections::BTreeMap;

use rusqlite::{params_from_iter, types::Value};
use serde::Serialize;

use super::{Index, IndexError, int};

/// What to look for: every condition that is given must hold; of several values of one, any.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// `sub` of the caller. Here and below a `*` at the end stands for anything.
    pub principal: Vec<String>,
    /// A group of the caller.
    pub group: Vec<String>,
    /// The connection.
    pub connection: Vec<String>,
    /// The model asked for, or the one that answered.
    pub model: Vec<String>,
    /// `allow` or `deny`.
    pub verdict: Vec<String>,
    /// How it ended: an outcome or a code.
    pub outcome: Vec<String>,
    /// An entity found in the prompt or the answer.
    pub entity: Vec<String>,
    /// RFC 3339 in UTC with nine fraction digits, as records carry it: not before this.
    pub since: Option<String>,
    /// And before this.
    pub until: Option<String>,
    /// Words that all stand in the prompt or the answer; in double quotes, side by side; with `*` at the end, beginnings.
    pub text: Option<String>,
    /// At most so many, the newest.
    pub limit: u32,
}

/// A session as a list shows it. What its caller or its model wrote in it is as recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Row {
    /// Its id.
    pub session: String,
    /// When its first record was written.
    pub time: String,
    /// Who asked.
    pub issuer: String,
    /// Who asked.
    pub principal: String,
    /// Groups of the caller.
    pub groups: Vec<String>,
    /// The connection.
    pub connection: String,
    /// The model asked for.
    pub model: String,
    /// The model that answered.
    pub model_answered: String,
    /// `allow` or `deny`.
    pub verdict: String,
    /// The policies that decided, in chain order.
    pub policies: Vec<String>,
    /// As `closed` says it, `refused`, or empty while it is open.
    pub outcome: String,
    /// Stable code of a refusal or failure.
    pub code: String,
    /// HTTP status of the answer.
    pub status: u32,
    /// From the request's headers to the last record.
    pub duration_ms: u32,
    /// What the record holds of the text.
    pub payload: String,
    /// Whether what was sealed of it is erased.
    pub erased: bool,
    /// Entities found in the prompt, how often.
    pub found_in_prompt: BTreeMap<String, u32>,
    /// Entities found in the answer, how often.
    pub found_in_answer: BTreeMap<String, u32>,
    /// Its records.
    pub records: u64,
    /// Whether the log verifies as far as they reach.
    pub verified: bool,
}

/// Conditions and their values, as they are put together.
#[derive(Default)]
struct Where {
    conditions: Vec<String>,
    values: Vec<Value>,
}

impl Where {
    fn add(&mut self, condition: &str, value: impl Into<Value>) {
        self.conditions.push(condition.to_owned());
        self.values.push(value.into());
    }

    /// Any of `wanted` in any of `columns`, inside of `around` where the columns are another table's.
    fn any(&mut self, columns: &[&str], wanted: &[String], around: Option<&str>) {
        if wanted.is_empty() {
            return;
        }
        let mut tests = Vec::new();
        for one in wanted {
            for column in columns {
                match one.strip_suffix('*') {
                    Some(start) => {
                        tests.push(format!("substr({column}, 1, length(?)) = ?"));
                        self.values
                            .extend([start.to_owned().into(), start.to_owned().into()]);
                    }
                    None => {
                        tests.push(format!("{column} = ?"));
                        self.values.push(one.clone().into());
                    }
                }
            }
        }
        let tests = format!("({})", tests.join(" OR "));
        self.conditions.push(match around {
            Some(table) => {
                format!("EXISTS (SELECT 1 FROM {table} x WHERE x.session = s.id AND {tests})")
            }
            None => tests,
        });
    }
}

impl Index {
    /// Gives `each` the sessions that `filter` finds, newest first, until it is false.
    ///
    /// # Errors
    /// [`IndexError::Sqlite`]; [`IndexError::NoWord`].
    pub fn find(
        &self,
        filter: &Filter,
        mut each: impl FnMut(Row) -> bool,
    ) -> Result<(), IndexError> {
        let mut wanted = Where::default();
        wanted.any(&["s.subject"], &filter.principal, None);
        wanted.any(&["x.name"], &filter.group, Some("groups"));
        wanted.any(&["s.connection"], &filter.connection, None);
        wanted.any(&["s.model", "s.answered"], &filter.model, None);
        wanted.any(&["s.verdict"], &filter.verdict, None);
        wanted.any(&["s.outcome", "s.code"], &filter.outcome, None);
        wanted.any(&["x.name"], &filter.entity, Some("entities"));
        if let Some(since) = &filter.since {
            wanted.add("s.time >= ?", since.clone());
        }
        if let Some(until) = &filter.until {
            wanted.add("s.time < ?", until.clone());
        }
        if let Some(text) = &filter.text {
            let text = match_expression(text).ok_or_else(|| IndexError::NoWord(text.clone()))?;
            wanted.add(
                "s.id IN (SELECT rowid FROM texts WHERE texts MATCH ?)",
                text,
            );
        }
        wanted.conditions.push("1".to_owned());
        wanted.values.push(int(filter.limit.into()).into());
        let mut select = self.db.prepare(&format!(
            "SELECT s.id, s.session, s.time, s.issuer, s.subject, s.connection, s.model, s.answered, s.verdict, s.policies,
                    s.outcome, s.code, s.status, s.duration_ms, s.payload, s.erased,
                    (SELECT count(*) FROM records r WHERE r.session = s.id),
                    NOT EXISTS (SELECT 1 FROM records r JOIN chains c ON c.id = r.chain JOIN faults f ON f.chain = c.chain
                                WHERE r.session = s.id AND r.seq >= f.seq)
             FROM sessions s WHERE {} ORDER BY s.time DESC, s.id DESC LIMIT ?",
            wanted.conditions.join(" AND ")
        ))?;
        let mut rows = select.query(params_from_iter(wanted.values))?;
        while let Some(row) = rows.next()? {
            let id: i64 = row.get(0)?;
            let policies: String = row.get(9)?;
            let (found_in_prompt, found_in_answer) = self.entities_of(id)?;
            let found = Row {
                session: row.get(1)?,
                time: row.get(2)?,
                issuer: row.get(3)?,
                principal: row.get(4)?,
                groups: self.groups_of(id)?,
                connection: row.get(5)?,
                model: row.get(6)?,
                model_answered: row.get(7)?,
                verdict: row.get(8)?,
                policies: policies.split_whitespace().map(str::to_owned).collect(),
                outcome: row.get(10)?,
                code: row.get(11)?,
                status: row.get(12)?,
                duration_ms: row.get(13)?,
                payload: row.get(14)?,
                erased: row.get(15)?,
                found_in_prompt,
                found_in_answer,
                records: super::uint(row.get(16)?),
                verified: row.get(17)?,
            };
            if !each(found) {
                break;
            }
        }
        Ok(())
    }

    fn groups_of(&self, session: i64) -> Result<Vec<String>, IndexError> {
        let mut select = self
            .db
            .prepare_cached("SELECT name FROM groups WHERE session = ?1 ORDER BY name")?;
        let groups = select.query_map([session], |row| row.get(0))?;
        Ok(groups.collect::<Result<_, _>>()?)
    }

    fn entities_of(&self, session: i64) -> Result<(Counts, Counts), IndexError> {
        let mut select = self
            .db
            .prepare_cached("SELECT name, request, response FROM entities WHERE session = ?1")?;
        let mut rows = select.query([session])?;
        let (mut prompt, mut answer) = (BTreeMap::new(), BTreeMap::new());
        while let Some(row) = rows.next()? {
            let name: String = row.get(0)?;
            for (side, n) in [(&mut prompt, row.get(1)?), (&mut answer, row.get(2)?)] {
                if n > 0 {
                    side.insert(name.clone(), n);
                }
            }
        }
        Ok((prompt, answer))
    }
}

/// How many values of each entity.
type Counts = BTreeMap<String, u32>;

/// FTS5's expression for what a person wrote: each word or phrase quoted, so that nothing in it is an operator; `None`
/// where it has no word.
fn match_expression(text: &str) -> Option<String> {
    let mut parts = Vec::new();
    for (n, part) in text.split('"').enumerate() {
        let quoted = n % 2 == 1;
        let words: Vec<&str> = if quoted {
            vec![part]
        } else {
            part.split_whitespace().collect()
        };
        for word in words {
            let (word, star) = match word.strip_suffix('*') {
                Some(start) if !quoted => (start, "*"),
                _ => (word, ""),
            };
            if word.chars().any(char::is_alphanumeric) {
                parts.push(format!("\"{word}\"{star}"));
            }
        }
    }
    (!parts.is_empty()).then(|| parts.join(" AND "))
}

#[cfg(test)]
mod tests {
    use super::match_expression;

    #[test]
    fn what_a_person_writes_is_never_an_operator() {
        let cases = [
            ("blue moon", Some(r#""blue" AND "moon""#)),
            (r#""blue moon" NOT"#, Some(r#""blue moon" AND "NOT""#)),
            ("prompt:x AND (", Some(r#""prompt:x" AND "AND""#)),
            ("mort*", Some(r#""mort"*"#)),
            ("* \" -", None),
            ("", None),
        ];
        for (text, expected) in cases {
            assert_eq!(match_expression(text).as_deref(), expected, "{text}");
        }
    }
}
