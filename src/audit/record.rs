//! The audit record as it is stored and published.
//!
//! The schema is `proto/countersign/audit/v1/audit.proto`; this is its proto3 JSON form (lowerCamelCase names, 64-bit
//! integers as strings, timestamps in RFC 3339), so that any protobuf JSON parser reads what is on the topic.
//! A record is serialised once, by the ledger as it appends; nothing ever re-serialises one to verify it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A record without the position in its chain, which only the ledger can give.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// The session this belongs to; empty for records about the gateway itself.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub session: String,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}

impl Entry {
    /// Bytes of callers' and models' text in it, for the byte budget.
    #[must_use]
    pub fn text_bytes(&self) -> usize {
        match &self.event {
            Event::Opened(opened) => opened.request.body.len(),
            Event::Refused(refused) => refused.request.body.len(),
            Event::Delivered(delivered) => delivered.text.values().map(String::len).sum(),
            _ => 0,
        }
    }
}

/// What happened: the `oneof event` of the schema.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Event {
    /// First record of a chain.
    Genesis(Genesis),
    /// A request was permitted and is about to be forwarded.
    Opened(Box<Opened>),
    /// A part of the answer was let out.
    Delivered(Delivered),
    /// The session is over.
    Closed(Box<Closed>),
    /// A request of a verified caller was refused before anything was forwarded.
    Refused(Box<Refused>),
    /// Requests refused before authentication since the last such record, counted.
    Unauthenticated(Unauthenticated),
    /// A configuration was loaded or rejected.
    Config(ConfigLoaded),
    /// The gateway stopped in good order; last record of a chain that ended clean.
    Shutdown(Shutdown),
    /// The first records of a chain were deleted from the disk, by a rule of the operator's.
    Pruned(Pruned),
    /// The key that signs from here on was introduced by the one before it.
    Rotated(Rotated),
    /// The keys of what was sealed of the session are about to be destroyed.
    Erased(Erased),
    /// Sealed payloads are about to be deleted from the disk, by a rule of the operator's.
    Discarded(Discarded),
    /// Something happened to an approval, or somebody tried to make it happen, or looked at it.
    Approval(Box<ApprovalEvent>),
    /// A grant was made, refused or revoked.
    Grant(Box<GrantEvent>),
}

/// Where a chain comes from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Genesis {
    /// Name of the deployment.
    pub deployment: String,
    /// Name of the replica.
    pub replica: String,
    /// The replica's previous chain, hex; empty where there is none.
    pub previous_chain: String,
    /// Number of records in the previous chain.
    #[serde(with = "decimal")]
    pub previous_size: u64,
    /// Hash of the previous chain's last record, hex.
    pub previous_head: String,
    /// Root of the tree over the previous chain's records, hex; empty where that is not known, as of a chain whose first
    /// records a topic no longer had.
    pub previous_root: String,
    /// The previous chain's last signed checkpoint, verbatim; empty where there is none.
    pub previous_checkpoint: String,
    /// Whether the previous chain ended with a `shutdown` record.
    pub previous_clean: bool,
    /// Bytes cut from the previous chain's end because a crash had torn them.
    #[serde(with = "decimal")]
    pub previous_torn_bytes: u64,
    /// Version of the program.
    pub build: String,
}

impl Genesis {
    /// Reads it from the record that it is; `None` of any other.
    #[must_use]
    pub fn read(record: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct First {
            genesis: Option<Genesis>,
        }
        serde_json::from_slice::<First>(record).ok()?.genesis
    }
}

/// The verified caller, as recorded.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Identity {
    /// `iss`.
    pub issuer: String,
    /// `sub`.
    pub subject: String,
    /// Values of the groups claim.
    pub groups: Vec<String>,
    /// Allow-listed claims.
    pub claims: BTreeMap<String, serde_json::Value>,
    /// `oidc_jwt`, `oidc_introspection` (an opaque token that its issuer was asked about), `grant`, `saml`, `mtls`.
    pub auth_method: String,
    /// SHA-256 of the token, or of the certificate where there is none, hex.
    pub token_hash: String,
    /// The grant that the caller came with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grant: Option<GrantHeld>,
}

/// The grant that a caller came with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GrantHeld {
    /// Its id.
    pub id: String,
    /// How often it can be used; 0 where that is not counted.
    pub max_uses: u32,
    /// The approval it was made under; empty where none was needed.
    pub approval: String,
    /// How the caller authenticated when it was made.
    pub obtained_with: String,
}

/// What was called.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Endpoint {
    /// Name of the connection.
    pub connection: String,
    /// `:authority`.
    pub authority: String,
    /// HTTP method.
    pub method: String,
    /// Path; a query is recorded masked.
    pub path: String,
    /// The dialect's endpoint name.
    pub endpoint: String,
    /// Envoy's route name.
    pub route: String,
    /// Envoy's cluster name.
    pub cluster: String,
    /// Peer address as Envoy saw it.
    pub source_address: String,
    /// W3C trace id, where the caller sent one.
    pub trace_id: String,
}

/// The request, as far as the payload mode lets it be readable.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RequestRecord {
    /// `masked`, `masked+sealed`, `sealed` or `omit`.
    pub payload: String,
    /// The masked body; empty with `sealed` and `omit`. A body over one record's size is continued in `body_parts` more records.
    pub body: String,
    /// Length of the body as received, in bytes.
    #[serde(with = "decimal")]
    pub bytes: u64,
    /// SHA-256 of the body as forwarded, hex. Only of bytes the record may show (masked); empty otherwise.
    pub forwarded_sha256: String,
    /// How often each entity was found.
    pub findings: BTreeMap<String, u32>,
    /// Entities masked in what was forwarded, each with its operator.
    pub masked: BTreeMap<String, String>,
    /// The model asked for.
    pub model: String,
    /// Whether a stream was asked for.
    pub stream: bool,
    /// Parts that no detector could look into, by kind.
    pub unscanned: Vec<String>,
    /// The body as it was received, sealed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sealed: Option<Sealed>,
}

/// What of the session's sealed payload belongs to this record. The ciphertext is kept beside the chain.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Sealed {
    /// The first piece of it, by its place among all of the session's, from 0.
    pub first: u32,
    /// How many pieces.
    pub pieces: u32,
    /// Length of the text in bytes.
    #[serde(with = "decimal")]
    pub bytes: u64,
    /// SHA-256 of the pieces' ciphertexts one after the other, hex.
    pub sha256: String,
    /// Keyed hash of the text, hex: HMAC-SHA-256 under a salt that is wrapped with the key and goes with it.
    pub hmac: String,
    /// Ids of the auditors' keys it is sealed to, hex; with the first piece only.
    pub keys: Vec<String>,
}

/// What policy decided.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Decision {
    /// `allow` or `deny`.
    pub verdict: String,
    /// Policies that decided, in chain order.
    pub policies: Vec<String>,
    /// SHA-256 of the configuration the decision was made under, hex.
    pub policy_digest: String,
    /// Stable code of the refusal, empty when allowed.
    pub code: String,
    /// The refusal's reason as told to the caller, empty when allowed.
    pub reason: String,
    /// Masking policies that would have applied and from which the caller is exempt, in chain order.
    pub exempt_from: Vec<String>,
    /// Conditions that could not be evaluated, and why.
    pub faults: Vec<String>,
    /// The approval that this was asked for or goes by.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub approval: Option<Approval>,
    /// Which use of the caller's grant this is, from 1; 0 where uses are not counted, or none was taken.
    #[serde(skip_serializing_if = "is_zero")]
    pub grant_use: u32,
}

/// An approval, as a decision that goes by it has it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Approval {
    /// Its id.
    pub id: String,
    /// `pending`, `approved`, `denied`, `expired`, `cancelled` or `consumed`.
    pub state: String,
    /// SHA-256 that names the request, hex.
    pub request_sha256: String,
    /// SHA-256 of what was decided on, hex.
    pub binding_sha256: String,
    /// The session that asked; another than this one where the request was repeated.
    pub asked_by_session: String,
    /// Why it was asked for.
    pub reasons: Vec<String>,
    /// Who decided.
    pub votes: Vec<ApprovalVote>,
}

/// One person's decision.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ApprovalVote {
    /// `iss` of who decided.
    pub issuer: String,
    /// `sub` of who decided.
    pub subject: String,
    /// Their groups, as far as they were asked for.
    pub groups: Vec<String>,
    /// `approve`, `break_glass` or `deny`.
    pub given: String,
    /// Why, as they said, masked.
    pub reason: String,
    /// When, by the control log's clock.
    pub time: String,
}

/// Something happened to an approval, or somebody tried to make it happen, or looked at it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ApprovalEvent {
    /// `asked`, `seen`, `voted`, `approved`, `denied`, `cancelled`, `expired`, `consumed`, or `rejected`: a decision that does
    /// not count.
    pub action: String,
    /// The approval with it.
    pub approval: Approval,
    /// Who did it; empty where time did.
    pub issuer: String,
    /// Who did it; empty where time did.
    pub subject: String,
    /// Stable code of why a decision does not count.
    pub code: String,
    /// The caller's `iss`; with `asked`.
    pub caller_issuer: String,
    /// The caller's `sub`; with `asked`.
    pub caller_subject: String,
    /// Seats to be filled, as `group: number`; with `asked`.
    pub seats: BTreeMap<String, u32>,
    /// Until when it can be decided, or used; by the control log's clock.
    pub until: String,
    /// Place of the event in the control log. Where a crash made it told twice, both records have the same.
    #[serde(with = "decimal")]
    pub control_offset: u64,
    /// The event's nonce in the control log; empty where there is no event there.
    pub control_nonce: String,
}

/// A grant was made, refused or revoked. That one was made is durable before its token leaves.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GrantEvent {
    /// `issued`, `refused` or `revoked`.
    pub action: String,
    /// Its id; empty where there is none.
    pub id: String,
    /// Whose it is or would be; with `issued` and `refused`.
    pub identity: Option<Identity>,
    /// The connection it is for.
    pub connection: String,
    /// Models it is for; any where none is listed.
    pub models: Vec<String>,
    /// Endpoints it is for; any of the connection's where none is listed.
    pub methods: Vec<String>,
    /// How often it can be used; 0 where that is not counted.
    pub max_uses: u32,
    /// From when it counts; RFC 3339.
    pub not_before: String,
    /// Until when; RFC 3339.
    pub until: String,
    /// The rule that it was made by.
    pub rule: String,
    /// Why, as the caller said, masked.
    pub reason: String,
    /// Thumbprint of the key it is bound to; empty where it is bound to none.
    pub bound_to: String,
    /// The approval that it was asked for or is made under.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub approval: Option<Approval>,
    /// Who revoked it; empty where its holder did.
    pub by_issuer: String,
    /// Who revoked it; empty where its holder did.
    pub by_subject: String,
    /// Stable code of a refusal.
    pub code: String,
    /// Place of the event in the control log; with `revoked`.
    #[serde(with = "decimal")]
    pub control_offset: u64,
    /// The event's nonce in the control log; with `revoked`.
    pub control_nonce: String,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// A request was permitted and is about to be forwarded. Durable before anything goes upstream.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Opened {
    /// Who.
    pub identity: Identity,
    /// What was called.
    pub endpoint: Endpoint,
    /// The request.
    pub request: RequestRecord,
    /// The decision.
    pub decision: Decision,
    /// Where the credential that was lent comes from (`file:…`, `env:…`, `vault:…`, `oauth2:…`); empty where none was.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub lent: String,
}

/// A request of a verified caller was refused before anything was forwarded.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Refused {
    /// Who.
    pub identity: Identity,
    /// What was called.
    pub endpoint: Endpoint,
    /// The request, as far as it was read.
    pub request: RequestRecord,
    /// The decision.
    pub decision: Decision,
    /// HTTP status of the refusal.
    pub status: u32,
}

/// Continues a body or an answer: what was let out since the previous such record.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Delivered {
    /// Position of this part among the session's parts, from 0.
    pub part: u32,
    /// Whether this continues the request's body (true) or the answer (false).
    pub of_request: bool,
    /// The masked text by channel (`0.content`), or under `body` for a part of a body.
    pub text: BTreeMap<String, String>,
    /// Milliseconds from the session's start, and bytes let out, for each piece in this part.
    pub timing: Vec<Timing>,
    /// The answer as it was received since the previous such record, sealed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sealed: Option<Sealed>,
}

/// When a piece of the answer was let out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Timing {
    /// Milliseconds since the request's headers arrived.
    pub at_ms: u32,
    /// Bytes let out.
    pub bytes: u32,
    /// Bytes of this session's recorded text that became known with it, in the order of its records.
    pub text: u32,
}

/// The session is over. Durable before the end of the stream is released.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Closed {
    /// `completed`; `upstream_error`, the answer was an error; `cut_short`, the caller or the upstream ended it before it
    /// was whole; `refused_response`; `shutdown`; `protocol_error` and `internal`, Envoy or we lost the thread; or
    /// `unknown`, the end was not seen (after a crash or a failing disk).
    pub outcome: String,
    /// HTTP status of the answer; 0 where none came.
    pub status: u32,
    /// Length of the answer as received, in bytes.
    #[serde(with = "decimal")]
    pub bytes: u64,
    /// Records of kind `delivered` in this session.
    pub parts: u32,
    /// How often each entity was found in the answer.
    pub findings: BTreeMap<String, u32>,
    /// Entities masked in the answer, each with its operator.
    pub masked: BTreeMap<String, String>,
    /// The model that answered.
    pub model: String,
    /// The provider's version mark of the model.
    pub system_fingerprint: String,
    /// The answer's id.
    pub response_id: String,
    /// Why each choice ended.
    pub finish_reasons: Vec<String>,
    /// Tokens of the prompt.
    #[serde(with = "decimal")]
    pub input_tokens: u64,
    /// Tokens of the answer.
    #[serde(with = "decimal")]
    pub output_tokens: u64,
    /// Parts that no detector could look into, by kind.
    pub unscanned: Vec<String>,
    /// What of these was taken out of the answer before it left, by kind.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub stripped: Vec<String>,
    /// Milliseconds from the request's headers to this record.
    pub duration_ms: u32,
    /// Stable code where the outcome is a refusal or a failure.
    pub code: String,
    /// What was wrong, worded for a person; empty where nothing was.
    pub reason: String,
    /// SHA-256 over the request and the answer as recorded, readable and sealed, hex.
    pub transaction_sha256: String,
    /// The rest of the answer as it was received, sealed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sealed: Option<Sealed>,
}

/// Requests refused before authentication, counted so that strangers cannot fill the disk.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Unauthenticated {
    /// Refusals by stable code.
    pub by_code: BTreeMap<String, u32>,
    /// Length of the window counted, in milliseconds.
    pub window_ms: u32,
}

/// A configuration was loaded or rejected.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConfigLoaded {
    /// SHA-256 of the file, hex.
    pub digest: String,
    /// Whether it is now in force.
    pub accepted: bool,
    /// Number of faults of a rejected file.
    pub faults: u32,
    /// SHA-256 of the file that stays in force when this one was rejected, hex.
    pub in_force: String,
}

/// The gateway stopped in good order.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Shutdown {
    /// Sessions that were closed by the shutdown rather than by their ends.
    pub cut_sessions: u32,
}

/// The first records of a chain were deleted from the disk. Durable before they are.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Pruned {
    /// The chain, hex.
    pub chain: String,
    /// The first record that goes now; those before it went earlier.
    #[serde(with = "decimal")]
    pub first: u64,
    /// Records of the chain that are not there from now on: its first ones.
    #[serde(with = "decimal")]
    pub records: u64,
    /// Root of the tree over them, hex.
    pub root: String,
    /// SHA-256 of the file `pruned` that is kept of them, hex.
    pub stump_sha256: String,
    /// Why: `age …`, `size …`, `cap`, `archive …`; or `restated`, since the record that said so goes itself.
    pub rule: String,
}

/// The key that signs this chain's checkpoints follows another.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Rotated {
    /// The key in force, as `name+id+base64`.
    pub key: String,
    /// The statements by which each key introduced the next, oldest first: signed notes.
    pub introductions: Vec<String>,
}

/// The keys of what was sealed of a session are about to be destroyed, its salt with them. Durable before they are.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Erased {
    /// Why, as whoever asked for it said.
    pub reason: String,
    /// Who asked, as the operating system knows them: `uid 1000`.
    pub asked_by: String,
}

/// Files of sealed payloads are about to be deleted from the disk, what they hold of sessions with them. Durable before they are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Discarded {
    /// Number of the first file that goes.
    #[serde(with = "decimal")]
    pub first: u64,
    /// Number of the last one.
    #[serde(with = "decimal")]
    pub last: u64,
    /// Their bytes.
    #[serde(with = "decimal")]
    pub bytes: u64,
    /// When the last of them was written to for the last time; RFC 3339. Nothing that was sealed later goes.
    pub until: String,
    /// Why: `age …`, `size …`, `cap …`, `archive, …`.
    pub rule: String,
}

/// 64-bit integers as decimal strings, as proto3 JSON writes them; numbers are read too.
mod decimal {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Text(String),
        Number(u64),
    }

    pub(super) fn serialize<S: Serializer>(value: &u64, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(value)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
        match Written::deserialize(from)? {
            Written::Text(text) => text.parse().map_err(D::Error::custom),
            Written::Number(number) => Ok(number),
        }
    }
}
