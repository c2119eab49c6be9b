//! Which approvals a list shows: newest first, page by page.

use std::{fmt, str::FromStr, sync::Arc};

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::approval::{Approval, Id, State};

/// Most approvals on one page.
pub const MAX_LIMIT: usize = 1_000;
/// Approvals on one page where nobody says.
pub const LIMIT: usize = 100;

/// What a query says.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Query {
    /// Only those in this state.
    state: Option<State>,
    /// Only those of this connection.
    connection: Option<String>,
    /// Only those of the caller with this subject (`sub`).
    caller: Option<String>,
    /// At most so many; 100 where it is left out.
    #[schemars(range(min = 1, max = MAX_LIMIT))]
    limit: Option<usize>,
    /// `next` of the page before.
    #[schemars(regex(pattern = "^[0-9]{1,19}\\.[A-Za-z0-9-]{1,64}$"))]
    cursor: Option<String>,
}

/// Why a query says nothing that can be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadQuery {
    #[error("`limit` must be from 1 to {MAX_LIMIT}")]
    Limit,
    #[error("`cursor` must be `next` of the page before")]
    Cursor,
}

/// Which approvals are wanted.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Filter {
    /// In this state.
    pub state: Option<State>,
    /// Of this connection.
    pub connection: Option<String>,
    /// Of the caller with this subject.
    pub caller: Option<String>,
    /// Behind this one, where a page was shown already.
    pub after: Option<Cursor>,
    /// At most so many.
    pub limit: usize,
}

impl TryFrom<Query> for Filter {
    type Error = BadQuery;

    fn try_from(query: Query) -> Result<Self, BadQuery> {
        let limit = query.limit.unwrap_or(LIMIT);
        if !(1..=MAX_LIMIT).contains(&limit) {
            return Err(BadQuery::Limit);
        }
        Ok(Self {
            state: query.state,
            connection: query.connection,
            caller: query.caller,
            after: query.cursor.map(|cursor| cursor.parse()).transpose()?,
            limit,
        })
    }
}

/// Some approvals, newest first.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// The approvals.
    pub approvals: Vec<Arc<Approval>>,
    /// Where the next page begins, where there is one.
    pub next: Option<Cursor>,
}

impl Filter {
    /// The newest of `all` that are wanted, as they are at `now`. Costs one look at each, and sorts no more than one page.
    pub fn page<'a>(
        &self,
        all: impl IntoIterator<Item = &'a Arc<Approval>>,
        now: Timestamp,
    ) -> Page {
        let mut wanted: Vec<&Arc<Approval>> = all
            .into_iter()
            .filter(|approval| self.wants(approval, now))
            .collect();
        let newer = |a: &&Arc<Approval>, b: &&Arc<Approval>| place(b).cmp(&place(a));
        let more = wanted.len() > self.limit;
        if more {
            wanted.select_nth_unstable_by(self.limit, newer);
            wanted.truncate(self.limit);
        }
        wanted.sort_unstable_by(newer);
        let next = wanted.last().filter(|_| more).map(|last| Cursor::of(last));
        Page {
            approvals: wanted.into_iter().cloned().collect(),
            next,
        }
    }

    fn wants(&self, approval: &Approval, now: Timestamp) -> bool {
        let asked = &approval.asked;
        self.state
            .is_none_or(|state| state == approval.state_at(now))
            && (self.connection.as_ref()).is_none_or(|name| *name == asked.view.connection)
            && (self.caller.as_ref()).is_none_or(|name| *name == asked.caller.subject)
            && (self.after.as_ref())
                .is_none_or(|after| place(approval) < (after.nanoseconds, &after.id))
    }
}

fn place(approval: &Approval) -> (i128, &Id) {
    (approval.asked_at.as_nanosecond(), &approval.asked.id)
}

/// A place in the order of all approvals: when it was asked, and where that is the same, its id. Neither ever changes, so pages
/// neither repeat nor leave out what is there all the while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    nanoseconds: i128,
    id: Id,
}

impl Cursor {
    fn of(approval: &Approval) -> Self {
        Self {
            nanoseconds: approval.asked_at.as_nanosecond(),
            id: approval.asked.id.clone(),
        }
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.nanoseconds, self.id)
    }
}

impl FromStr for Cursor {
    type Err = BadCursor;

    fn from_str(text: &str) -> Result<Self, BadCursor> {
        let (nanoseconds, id) = text.split_once('.').ok_or(BadCursor)?;
        let digits = (1..=19).contains(&nanoseconds.len())
            && nanoseconds.bytes().all(|b| b.is_ascii_digit());
        let nanoseconds = nanoseconds.parse().ok().filter(|_| digits);
        Ok(Self {
            nanoseconds: nanoseconds.ok_or(BadCursor)?,
            id: Id::new(id).ok_or(BadCursor)?,
        })
    }
}

/// Text that is no cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a cursor")]
pub struct BadCursor;

impl From<BadCursor> for BadQuery {
    fn from(_: BadCursor) -> Self {
        Self::Cursor
    }
}
