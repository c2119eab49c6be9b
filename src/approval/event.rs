//! What stands in the control log.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

use super::{Approver, Digest, Party, Requirement, Revoked, Use};

/// An approval's id: what a ticket shows.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Id(String);

impl Id {
    /// The id `text`; `None` where it is none of ours: 1 to 64 letters, digits and `-`.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        let right = (1..=64).contains(&text.len()) && text.bytes().all(plain);
        right.then(|| Self(text.to_owned()))
    }

    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One event. A type that a replica does not know stops its releases rather than letting folds diverge.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Event {
    /// A request needs an approval.
    Asked(Box<Asked>),
    /// Somebody decided.
    Decided(Box<Decided>),
    /// Nobody wants it any more.
    Cancelled(Stop),
    /// Time ran out. Says what the log's own time has decided already, so that it is said once.
    Expired(Stop),
    /// The approved request is about to be forwarded: no other may be, under this approval.
    Claimed(Claimed),
    /// A grant is about to be used.
    Used(Use),
    /// A grant counts for nothing any more.
    Revoked(Revoked),
}

/// A request needs an approval.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    /// The approval.
    pub id: Id,
    /// The request.
    pub request: Digest,
    /// The session that asked.
    pub session: String,
    /// The caller.
    pub caller: Party,
    /// What is asked for.
    pub requirement: Requirement,
    /// Most approvals the caller may have pending.
    pub most_pending: u32,
    /// What an approver sees.
    pub view: View,
}

/// What an approver sees of the request, already masked.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct View {
    /// The connection.
    pub connection: String,
    /// The endpoint as the dialect names it.
    pub endpoint: String,
    /// Method, host, path and query.
    pub target: String,
    /// The fields of the head that go upstream and may mean something there, as `name: value`, each cut where it is long.
    pub headers: Vec<String>,
    /// The model.
    pub model: String,
    /// Length of the body as received, in bytes.
    pub bytes: u64,
    /// The risk score.
    pub risk: i64,
    /// Whether tools are offered to the model.
    pub tools: bool,
    /// How often each entity was found.
    pub findings: BTreeMap<String, u64>,
    /// Masked text, around every finding; empty where the connection's payload mode keeps text out of records.
    pub excerpt: Vec<String>,
    /// Bytes of the masked request that the excerpt does not show.
    pub not_shown: u64,
    /// What the request refers to and whoever holds it may change.
    pub mutable: Vec<Mutable>,
}

/// Never its text.
impl fmt::Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("View")
            .field("connection", &self.connection)
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

/// Something outside the request's bytes that decides what it means.
#[derive(
    Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(deny_unknown_fields)]
pub struct Mutable {
    /// What kind: `previous_response_id`, `file_id`, `remote_image`, ….
    pub kind: String,
    /// Which, masked.
    pub name: String,
}

/// Somebody decided.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Decided {
    /// The approval.
    pub id: Id,
    /// What was decided on.
    pub binding: Digest,
    /// What was decided.
    pub given: Given,
    /// By whom.
    pub by: Approver,
    /// Why.
    pub reason: String,
}

/// A decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Given {
    /// Yes: fills a seat.
    Approve,
    /// Yes, alone.
    BreakGlass,
    /// No.
    Deny,
}

impl Given {
    /// As records and the API name it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Approve => "approve",
            Self::BreakGlass => "break_glass",
            Self::Deny => "deny",
        }
    }
}

/// The end of an approval that nobody decides.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stop {
    /// The approval.
    pub id: Id,
    /// Who stops it; nobody where time ran out.
    pub by: Option<Party>,
}

/// The approved request is about to be forwarded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Claimed {
    /// The approval.
    pub id: Id,
    /// What was approved, as computed again from the bytes about to be forwarded.
    pub binding: Digest,
    /// The session that forwards.
    pub session: String,
}
