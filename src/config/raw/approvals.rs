//! Approvals, the score and the time that ask for them, and who is told.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::Source;

/// An approval is owed, should the call be allowed further down.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct RequireApproval {
    /// Whose: seats that must all be filled, each by another person, none of them the caller.
    #[schemars(length(min = 1))]
    pub(in crate::config) approvers: Vec<Approvers>,
    /// How long a decision may take, and once it is there, the approved request may take to come. Default: 10m; 1s to 24h.
    pub(in crate::config) expires: Option<String>,
    /// How the caller waits. Default: hold.
    pub(in crate::config) wait: Option<Wait>,
    /// How long a request is held at most; then its caller gets a ticket. Default: 45s; 1s to 10m.
    pub(in crate::config) max_hold: Option<String>,
    /// What the approver is told, each one line of at most 200 characters. Default: the policy's name.
    #[serde(default)]
    pub(in crate::config) reasons: Vec<String>,
    /// Members of these groups may decide alone, loudly and with a reason. Default: nobody.
    #[serde(default)]
    pub(in crate::config) break_glass: Vec<String>,
    /// Whether an approval may be asked for where the request refers to what others can change meanwhile. Default: refuse.
    pub(in crate::config) mutable: Option<Mutable>,
}

/// So many different persons of one group.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Approvers {
    /// The group, as tokens name it.
    pub(in crate::config) group: String,
    /// How many of its members. Default: 1; 1 to 16.
    #[schemars(range(min = 1, max = 16))]
    pub(in crate::config) distinct: Option<u8>,
}

/// How the caller waits: the request is held until the decision, or they get a ticket at once, or as they prefer.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(in crate::config) enum Wait {
    Hold,
    Defer,
    Caller,
}

/// What becomes of requests that refer to what others can change: they are refused, or approvers are shown what they refer to.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(in crate::config) enum Mutable {
    Refuse,
    Allow,
}

/// What a request's `risk` is made of: the sum of these.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Risk {
    /// Score of each finding of an entity, of which ten count at most: 0 to 1000000. Default: 0.
    #[serde(default)]
    pub(in crate::config) entities: BTreeMap<String, u32>,
    /// Score of the model: that of the first entry that fits. Default: 0.
    #[serde(default)]
    pub(in crate::config) models: Vec<ModelRisk>,
    /// Score of each whole KiB of the request body: 0 to 1000000. Default: 0.
    #[schemars(range(max = 1_000_000))]
    pub(in crate::config) per_kib: Option<u32>,
    /// Score of offering tools to the model: 0 to 1000000. Default: 0.
    #[schemars(range(max = 1_000_000))]
    pub(in crate::config) tools: Option<u32>,
}

/// Models, and their score.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct ModelRisk {
    /// A name, `*` standing for any text; the case of letters does not count.
    pub(in crate::config) model: String,
    /// The score: 0 to 1000000.
    #[schemars(range(max = 1_000_000))]
    pub(in crate::config) score: u32,
}

/// Where approvals are kept, how many may wait, who may decide and who is told.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Approvals {
    /// Directory of the control log where there is no Kafka. Default: `control` in `audit.dir`.
    pub(in crate::config) dir: Option<String>,
    /// Requests held at one time; beyond it callers get a ticket. Default: 2000; 1 to 100000.
    #[schemars(range(min = 1, max = 100_000))]
    pub(in crate::config) max_holds: Option<u32>,
    /// Requests of one principal held at one time; beyond it they get a ticket. Default: 50; 1 to `max_holds`.
    #[schemars(range(min = 1, max = 100_000))]
    pub(in crate::config) max_holds_per_principal: Option<u32>,
    /// Approvals of one principal that are pending; beyond it 429. Default: 100; 1 to 25000.
    #[schemars(range(min = 1, max = 25_000))]
    pub(in crate::config) max_pending_per_principal: Option<u32>,
    /// How long ago an approver may have signed in. Default: 15m; 1s to 24h.
    pub(in crate::config) fresh: Option<String>,
    /// What says when they did. Default: auth_time.
    pub(in crate::config) fresh_from: Option<FreshFrom>,
    /// Where callers and approvers reach our API: an https URL, http on loopback only. Default: none, and links are left out.
    pub(in crate::config) public_url: Option<String>,
    /// The control log in Kafka, which replicas share. Needs `audit.kafka`. Default: none, and this replica is alone.
    pub(in crate::config) kafka: Option<ControlKafka>,
    /// Who is told of approvals. Messages carry no authority. Default: nobody.
    #[serde(default)]
    pub(in crate::config) webhooks: Vec<Webhook>,
}

/// What says when an approver signed in: `auth_time`; with `issued`, where a token has none, when it was issued.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::config) enum FreshFrom {
    AuthTime,
    Issued,
}

/// The control log in Kafka. Brokers and their settings are those of `audit.kafka`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct ControlKafka {
    /// The topic, of one partition. Default: countersign.control.v1.
    pub(in crate::config) topic: Option<String>,
    /// The root's verifier key, as text: whose certificates count. The same on every replica.
    pub(in crate::config) root: String,
    /// A file with this replica's signing key.
    pub(in crate::config) key: String,
    /// A file with the root's certificate of that key.
    pub(in crate::config) certificate: String,
    /// Accept a topic that could lose events, for trying out. Default: false.
    #[serde(default)]
    pub(in crate::config) dev: bool,
}

/// An address that is told.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Webhook {
    /// Where to: an https URL, http on loopback only.
    pub(in crate::config) url: String,
    /// What signs the message (Standard Webhooks). Required for the format `standard`; `slack` has no signature.
    pub(in crate::config) secret: Option<Source>,
    /// What the message looks like. Default: standard.
    pub(in crate::config) format: Option<WebhookFormat>,
}

/// `standard` is JSON, signed; `slack` is what incoming webhooks of Slack and alike take.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(in crate::config) enum WebhookFormat {
    Standard,
    Slack,
}

/// Who is told of what should not have happened.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Alerts {
    /// The topic where there is Kafka. Default: countersign.alerts.v1.
    pub(in crate::config) topic: Option<String>,
    /// Who is told. Default: nobody beside the topic.
    #[serde(default)]
    pub(in crate::config) webhooks: Vec<Webhook>,
    /// Alert when so much is masked in what one principal sends. Default: never.
    pub(in crate::config) masked_per_principal: Option<Masked>,
}

/// So many masked values within some time.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Masked {
    /// How many values: 1 to 1000000.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub(in crate::config) count: u32,
    /// Within what time. Default: 5m; 1s to 24h.
    pub(in crate::config) window: Option<String>,
}

/// Who may do what over our API, by the groups of their token. Whoever is in none of them sees only their own requests.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Access {
    /// May look at sessions and records. Default: nobody.
    #[serde(default)]
    pub(in crate::config) auditor: Vec<String>,
    /// May look at pending approvals; deciding takes a group that the approval asks for. Default: nobody.
    #[serde(default)]
    pub(in crate::config) approver: Vec<String>,
    /// May cancel approvals; decides on none by that. Default: nobody.
    #[serde(default)]
    pub(in crate::config) admin: Vec<String>,
    /// Issuers whose groups count at our API, for roles and for deciding. Default: all under `identity`.
    #[serde(default)]
    pub(in crate::config) issuers: Vec<String>,
    /// What a token must be for that is shown to our API; tokens that call models do not count there then. Default: what
    /// the issuer's `audience` says.
    #[schemars(length(min = 1))]
    pub(in crate::config) audience: Option<String>,
}
