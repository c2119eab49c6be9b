//! What was written: the file's own shape, key by key, before anything was understood.
//!
//! The JSON Schema is derived from these types, so their comments are what an editor shows. Unknown keys are refused.

mod approvals;
mod credential;
mod grants;
mod saml;
mod telemetry;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

pub(super) use approvals::{
    Access, Alerts, Approvals, ControlKafka, FreshFrom, Mutable, RequireApproval, Risk, Wait,
    Webhook, WebhookFormat,
};
pub(super) use credential::{ClientAuth, Credential, ModelCredential, OAuth2, VaultSecret};
pub(super) use grants::{GrantRule, Grants};
#[cfg(feature = "saml")]
pub(super) use saml::Metadata;
pub(super) use saml::Saml;
pub(super) use telemetry::{Otlp, Telemetry};

/// Configuration of Countersign.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "Countersign configuration")]
pub(super) struct File {
    /// Where the services listen.
    pub(super) listen: Option<Listen>,
    /// Bounds on memory and concurrency.
    pub(super) limits: Option<Limits>,
    /// Who may vouch for callers.
    pub(super) identity: Identity,
    /// What callers may reach, in the order they are matched: the first that matches is taken.
    #[schemars(length(min = 1))]
    pub(super) connections: Vec<Connection>,
    /// Named policies, from which connections build their chains.
    #[serde(default)]
    pub(super) policies: Vec<Policy>,
    /// Detectors of your own, beside the built-in ones.
    #[serde(default)]
    pub(super) detectors: Vec<Detector>,
    /// Lists of terms of your own, such as the names of projects or customers.
    #[serde(default)]
    pub(super) dictionaries: Vec<Dictionary>,
    /// Named groups of entities, usable wherever a list of detectors is asked for.
    #[serde(default)]
    pub(super) detector_groups: BTreeMap<String, Vec<String>>,
    /// What a request's `risk` is made of. Default: everything scores 0.
    pub(super) risk: Option<Risk>,
    /// Where the `time` of conditions is taken: an IANA name such as `Europe/Berlin`. Default: UTC.
    pub(super) time_zone: Option<String>,
    /// Where approvals are kept, how many may wait, who may decide and who is told. Required where a policy asks for one.
    pub(super) approvals: Option<Approvals>,
    /// Grants that our token endpoint makes. Default: none.
    pub(super) grants: Option<Grants>,
    /// Who is told of what should not have happened. Default: nobody.
    pub(super) alerts: Option<Alerts>,
    /// Who may do what over our API.
    pub(super) access: Option<Access>,
    /// The key of the operators `hash`, `tokenize` and `vault`.
    pub(super) masking: Option<Masking>,
    /// Whom originals are sealed to, for connections whose payload is `sealed` or `masked+sealed`.
    pub(super) sealing: Option<Sealing>,
    /// What is told of requests beside the log and the metrics.
    pub(super) telemetry: Option<Telemetry>,
    /// The ledger and where its records go.
    pub(super) audit: Audit,
}

/// The key of the operators `hash`, `tokenize` and `vault`: exactly one of `file` and `env`, at least 32 characters.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Masking {
    /// A file that holds it; `countersign keygen masking` makes one.
    pub(super) file: Option<String>,
    /// An environment variable that holds it.
    pub(super) env: Option<String>,
    /// For whom the same value has the same stand-in. Default: principal.
    pub(super) scope: Option<MaskingScope>,
}

/// Whom originals are sealed to.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Sealing {
    /// Files with auditors' public keys, one a line, as `countersign keygen auditor` makes them. Each alone can read what is sealed.
    #[schemars(length(min = 1))]
    pub(super) auditors: Vec<String>,
    /// Most that sealed payloads may take on disk; beyond it requests that would be sealed are refused with 503. Default: 10GiB.
    pub(super) cap: Option<Size>,
    /// The topic they are sent to where there is Kafka. Default: countersign.sealed.v1.
    pub(super) topic: Option<String>,
}

/// For whom the same value has the same stand-in.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum MaskingScope {
    /// For each principal by itself: nobody can confirm a guess about what another wrote.
    Principal,
    /// For all of the deployment: stand-ins can be joined across callers.
    Deployment,
}

/// Where the services listen.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Listen {
    /// The service Envoy calls. Default: `unix:/run/countersign/ext_proc.sock`.
    pub(super) ext_proc: Option<ExtProc>,
    /// API, health and metrics. Default: `127.0.0.1:8480`.
    pub(super) http: Option<Http>,
}

/// The service Envoy calls: `unix:PATH`, or a mapping.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum ExtProc {
    /// `unix:PATH` or `tcp:IP:PORT`.
    Address(String),
    /// An address with what it needs.
    Full(ExtProcFull),
}

/// An address with what it needs.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ExtProcFull {
    /// `unix:PATH` or `tcp:IP:PORT`.
    pub(super) address: String,
    /// Mode of the Unix socket: `"0600"` for its owner alone, `"0660"` for its group too. Default: `"0600"`.
    pub(super) mode: Option<SocketMode>,
    /// Certificates of the TCP listener, `client_ca` among them; Envoy must show one that it signed.
    pub(super) tls: Option<Tls>,
    /// Accept TCP without mutual TLS: whoever reaches the port can read lent credentials. Default: false.
    #[serde(default)]
    pub(super) insecure: bool,
}

/// Who may open the Unix socket.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
pub(super) enum SocketMode {
    /// Its owner alone.
    #[serde(rename = "0600")]
    Owner,
    /// Its owner and its group.
    #[serde(rename = "0660")]
    Group,
}

/// Certificates of a listener with TLS.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Tls {
    /// PEM file: the listener's certificate chain.
    pub(super) cert: String,
    /// PEM file: its private key.
    pub(super) key: String,
    /// PEM file: the authorities that sign client certificates. `ext_proc` cannot do without; on `http`, no certificate is asked for
    /// where there is none.
    pub(super) client_ca: Option<String>,
    /// Subject alternative names, DNS names or URIs such as `spiffe://example.org/envoy`, of which a client certificate must have one.
    /// Default: any certificate that `client_ca` signed will do.
    pub(super) client_names: Option<Vec<String>>,
}

/// API, health and metrics: `IP:PORT`, or a mapping.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum Http {
    /// `IP:PORT`.
    Address(String),
    /// An address with what it needs.
    Full(HttpFull),
}

/// An address with what it needs.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct HttpFull {
    /// `IP:PORT`.
    pub(super) address: String,
    /// Its certificates. Default: plain HTTP.
    pub(super) tls: Option<Tls>,
    /// Listen beyond loopback, without TLS. Default: false.
    #[serde(default)]
    pub(super) insecure: bool,
}

/// Where a secret is: exactly one of `file` and `env`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Source {
    /// A file that holds the secret and nothing else; one line break at its end is ignored.
    pub(super) file: Option<String>,
    /// Name of an environment variable that holds the secret.
    pub(super) env: Option<String>,
}

/// Bounds on memory and concurrency.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Limits {
    /// Largest request body; a larger one is refused with 413. Default: 10MiB; 1KiB to 1GiB.
    pub(super) request_body: Option<Size>,
    /// Largest answer that is not a stream; a larger one is refused with 502. Default: 32MiB; 1KiB to 1GiB.
    pub(super) response_body: Option<Size>,
    /// All bodies held at one time together; beyond it requests are refused with 503. Default: 512MiB; 1MiB to 1TiB.
    pub(super) memory: Option<Size>,
    /// All bodies of one principal held at one time together; beyond it 429. Default: half of `memory`, or three times the larger body; up to `memory`.
    pub(super) memory_per_principal: Option<Size>,
    /// Requests in flight; beyond it 503. Default: 4096; 1 to 1000000.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub(super) streams: Option<u32>,
    /// Requests in flight of one principal; beyond it 429. Default: 64; 1 to `streams`.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub(super) streams_per_principal: Option<u32>,
}

/// A number of bytes: a number, or a number with a unit such as `10MiB`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum Size {
    /// Bytes.
    Bytes(u64),
    /// A number with a unit: B, KiB, MiB, GiB, TiB.
    Text(String),
}

/// Who may vouch for callers.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Identity {
    /// Issuers of access tokens. Default: none, where `saml` with `grants`, or `mtls`, says who calls.
    #[serde(default)]
    pub(super) issuers: Vec<Issuer>,
    /// SAML identity providers, whose assertions our token endpoint takes. Default: none.
    #[serde(default)]
    pub(super) saml: Vec<Saml>,
    /// Callers who are known by the client certificate of their connection, on connections with `certificate_alone`. Default: none.
    #[serde(default)]
    pub(super) mtls: Vec<ClientCertificate>,
}

/// Callers who are known by a client certificate: exactly one of `spiffe`, `dns` and `subject`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ClientCertificate {
    /// A SPIFFE ID, or one that ends in `/*` for all below it.
    pub(super) spiffe: Option<String>,
    /// A DNS name; not of a certificate that carries a URI.
    pub(super) dns: Option<String>,
    /// The subject, as in `CN=batch,O=Example`; not of a certificate that carries a URI.
    pub(super) subject: Option<String>,
    /// The groups they are in. Default: none.
    #[serde(default)]
    pub(super) groups: Vec<String>,
    /// The human who owns them, a value like those of `person_claim`. Default: none.
    pub(super) owner: Option<String>,
}

/// An issuer of access tokens.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Issuer {
    /// The `iss` of its tokens, exactly as they carry it: an https URL.
    pub(super) issuer: String,
    /// The `aud` its tokens must carry: one, or a list of which one suffices.
    pub(super) audience: OneOrMany,
    /// Algorithms its tokens may be signed with; asymmetric ones only. Default: none, and it is asked about every token
    /// (`introspection`).
    #[serde(default)]
    #[schemars(length(min = 1))]
    pub(super) algorithms: Vec<String>,
    /// Its keys: a file or a URL. Default: discovered from the issuer; none where there are no `algorithms`.
    pub(super) jwks: Option<Jwks>,
    /// Take its opaque tokens too, and ask it about them (RFC 7662). At most one issuer: such a token does not say whose it is.
    pub(super) introspection: Option<Introspection>,
    /// The claim that lists the caller's groups: a name, or a JSON pointer such as `/realm_access/roles`.
    /// Default: `groups`.
    pub(super) groups_claim: Option<String>,
    /// Further claims that conditions may read and records carry. Default: none.
    #[serde(default)]
    pub(super) claims: Vec<String>,
    /// The claim that names the human behind the account, one its holder cannot choose: nobody approves their own request from
    /// another account. Default: none.
    pub(super) person_claim: Option<String>,
    /// The claim of a service account that names the human who owns it. Default: none.
    pub(super) owner_claim: Option<String>,
    /// Leeway for `exp` and `nbf`. Default: 30s; 0s to 5m.
    pub(super) clock_skew: Option<String>,
    /// Accept ID tokens in place of access tokens. Default: false.
    #[serde(default)]
    pub(super) allow_id_tokens: bool,
    /// Refuse its tokens that are not bound to a key (DPoP, RFC 9449) or certificate (RFC 8705) of their holder's. One that is
    /// bound counts together with that only, whatever this says. Default: false.
    #[serde(default)]
    pub(super) require_bound_tokens: bool,
}

/// One text, or a list of them.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum OneOrMany {
    /// One.
    One(String),
    /// Any of these.
    Many(Vec<String>),
}

/// Where an issuer's keys are: exactly one of `file` and `url`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Jwks {
    /// A JWK Set in a file.
    pub(super) file: Option<String>,
    /// A JWK Set at an https URL.
    pub(super) url: Option<String>,
}

/// Where an issuer is asked about opaque tokens, and as whom.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Introspection {
    /// An https URL. Default: as the issuer's discovery document says.
    pub(super) url: Option<String>,
    /// The client that asks, as the issuer knows it.
    pub(super) client_id: String,
    /// Its secret, sent by HTTP Basic.
    pub(super) client_secret: Source,
}

/// What callers may reach, and under which rules.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Connection {
    /// The name, as records show it: letters, digits, `.`, `_`, `-`; at most 64.
    pub(super) name: String,
    /// Which requests belong to it.
    #[serde(rename = "match")]
    pub(super) matches: Match,
    /// Envoy routes and clusters its credential may be lent to. Required where there is a credential.
    pub(super) lend_to: Option<LendTo>,
    /// The request header that carries the caller's token. Default: authorization.
    pub(super) token: Option<Token>,
    /// A client certificate of `identity.mtls` is enough where no token is sent. Default: false.
    #[serde(default)]
    pub(super) certificate_alone: bool,
    /// The provider's wire format, such as `openai`.
    pub(super) dialect: String,
    /// The dialect's endpoints that may be called.
    #[schemars(length(min = 1))]
    pub(super) endpoints: Vec<String>,
    /// The upstream's credential. Default: none is lent, and the caller's is removed all the same.
    pub(super) credential: Option<Credential>,
    /// The policy chain, in order. Its end denies.
    pub(super) policies: Vec<String>,
    /// What the record holds of prompts and answers. Default: masked.
    pub(super) payload: Option<Payload>,
    /// When a record counts as safe. Default: disk.
    pub(super) durability: Option<Durability>,
    /// What becomes of prompts with parts no detector can look into, such as images. Default: refuse.
    pub(super) unscanned: Option<Unscanned>,
    /// What becomes of prompts with parts that a provider has signed or encrypted; where it is written, of answers
    /// too. Default: what `unscanned` says, of prompts only.
    pub(super) signed: Option<Unscanned>,
    /// Fields that are looked into: JSONPaths for the dialect `json`, names with dots between for `grpc`, no others. Default: all.
    #[schemars(length(min = 1))]
    pub(super) fields: Option<Vec<String>>,
    /// What messages look like. The dialect `grpc` cannot do without, others have theirs built in.
    pub(super) schema: Option<MessageSchema>,
}

/// What gRPC messages look like, and which field of them names the model.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct MessageSchema {
    /// A descriptor set with all its imports, as `protoc --include_imports --descriptor_set_out=FILE` writes it.
    pub(super) file: String,
    /// The field of a request that names the model, such as `options.model`; several where methods have others. Default: none does.
    pub(super) model: Option<OneOrMany>,
}

/// Which requests belong to a connection.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Match {
    /// Hosts: exact, `*.example.com`, or `*`; with a port only where the port matters. Default: `*`.
    #[schemars(length(min = 1))]
    pub(super) hosts: Option<Vec<String>>,
    /// The path's beginning, in whole segments: `/v1/` takes `/v1/x`, not `/v10/x`. Default: `/`.
    pub(super) path_prefix: Option<String>,
}

/// Envoy routes and clusters a credential may be lent to: either suffices.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct LendTo {
    /// Names of Envoy routes.
    #[serde(default)]
    pub(super) routes: Vec<String>,
    /// Names of Envoy clusters.
    #[serde(default)]
    pub(super) clusters: Vec<String>,
}

/// The request header that carries the caller's token.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Token {
    Authorization,
    XApiKey,
    ApiKey,
    XGoogApiKey,
}

/// What the record holds of prompts and answers: masked text, the originals sealed to auditors, both or neither.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Payload {
    Masked,
    #[serde(rename = "masked+sealed")]
    MaskedAndSealed,
    Sealed,
    Omit,
}

/// When a record counts as safe: `disk` after fdatasync, `spool` once the operating system has it.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Durability {
    Disk,
    Spool,
    Kafka,
}

/// What becomes of prompts with parts no detector can look into: they are refused, pass, or go on without those parts.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Unscanned {
    Refuse,
    Allow,
    Strip,
}

/// A named policy.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Policy {
    /// The name, as records show it: letters, digits, `.`, `_`, `-`; at most 64.
    pub(super) name: String,
    /// A CEL condition over `principal`, `request`, `findings`, `connection`, `risk` and `time`.
    pub(super) when: String,
    /// What follows where it holds.
    pub(super) then: Then,
}

/// What follows: `allow`, or a mapping with one of `allow`, `allow_upgrade`, `deny`, `mask`, `require_approval`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum Then {
    /// Short for `{ allow: {} }`.
    Word(ThenWord),
    /// Exactly one of these.
    Full(Box<ThenFull>),
}

/// Short for `{ allow: {} }`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum ThenWord {
    Allow,
}

/// Exactly one of these.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ThenFull {
    /// The call may go on. Ends the chain.
    pub(super) allow: Option<Allow>,
    /// The connection may be switched to this protocol, behind which nothing is seen. Ends the chain of such a request, and
    /// says nothing of any other.
    pub(super) allow_upgrade: Option<Upgrade>,
    /// The call is refused. Ends the chain.
    pub(super) deny: Option<Deny>,
    /// What is found is masked, should the call be allowed further down.
    pub(super) mask: Option<Mask>,
    /// An approval is owed, should the call be allowed further down.
    pub(super) require_approval: Option<RequireApproval>,
}

/// Allows; takes nothing.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Allow {}

/// A protocol that a connection may be switched to.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Upgrade {
    /// RFC 6455.
    Websocket,
}

/// A refusal.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Deny {
    /// What the caller is told: one line of at most 200 characters.
    pub(super) reason: String,
}

/// What is masked, and for whom it is not. At least one of `request` and `response`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Mask {
    /// In the prompt.
    pub(super) request: Option<MaskSide>,
    /// In the answer.
    pub(super) response: Option<MaskSide>,
    /// Callers in any of these groups are exempt from this policy. Default: none.
    #[serde(default)]
    pub(super) exempt_groups: Vec<String>,
}

/// A list of terms: exactly one of `terms` and `file`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Dictionary {
    /// The entity it finds: capitals, digits, `_`; at most 64.
    pub(super) entity: String,
    /// The terms.
    pub(super) terms: Option<Vec<String>>,
    /// A file with a term on each line, up to 1,000,000 of them and 64 MiB.
    pub(super) file: Option<String>,
    /// Whether capital and small letters differ. Default: false.
    #[serde(default)]
    pub(super) match_case: bool,
    /// Whether a term is found inside longer words too. Default: false.
    #[serde(default)]
    pub(super) inside_words: bool,
}

/// What is masked, and how.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct MaskSide {
    /// Entities and groups of entities.
    #[schemars(length(min = 1))]
    pub(super) detectors: Vec<String>,
    /// What takes the place of a found value. Default: replace.
    pub(super) operator: Option<Operator>,
}

/// What takes the place of a found value: `replace`, `redact`, `hash`, `tokenize`, `vault`, `{ keep_last: N }` or
/// `{ vault: … }`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum Operator {
    /// An operator by its name.
    Word(OperatorWord),
    /// Asterisks but for the last characters.
    KeepLast(KeepLast),
    /// Placeholders, and where else than in plain text they are put back.
    Vault(VaultOperator),
}

/// `replace` puts `[ENTITY]`, `redact` nothing, `hash` a keyed hash, `tokenize` what `countersign unmask` can undo, and `vault`
/// a placeholder that is put back where the answer repeats it (prompts only).
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum OperatorWord {
    Replace,
    Redact,
    Hash,
    Tokenize,
    Vault,
}

/// Placeholders, and where else than in plain text they are put back.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct VaultOperator {
    /// Where they are put back.
    pub(super) vault: Vault,
}

/// Where placeholders are put back beside plain text. Whoever can steer the model can then have it carry values out.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Vault {
    /// In arguments of tool calls. Default: false.
    #[serde(default)]
    pub(super) tool_arguments: bool,
    /// In what looks like a link. Default: false.
    #[serde(default)]
    pub(super) links: bool,
}

/// Asterisks but for the last characters.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct KeepLast {
    /// How many stay: 1 to 8.
    #[schemars(range(min = 1, max = 8))]
    pub(super) keep_last: u8,
}

/// A detector of your own: exactly one of `regex` and `json_path`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Detector {
    /// The entity it finds: capitals, digits, `_`; at most 64.
    pub(super) entity: String,
    /// What it looks like, in the syntax of Rust's regex crate.
    pub(super) regex: Option<String>,
    /// Where its values stand in JSON documents, as a JSONPath (RFC 9535) without filters.
    pub(super) json_path: Option<String>,
    /// Words of which one must stand before the value. Default: none needed.
    #[serde(default)]
    pub(super) context: Vec<String>,
}

/// The ledger and where its records go.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Audit {
    /// The ledger's directory; one process at a time.
    pub(super) dir: String,
    /// Name of the deployment, in every record. Default: default.
    pub(super) deployment: Option<String>,
    /// Name of this replica, in every record. Default: the host's name.
    pub(super) replica: Option<String>,
    /// File with the key that signs checkpoints, as `countersign keygen signing` makes it. Default: made in `dir`.
    pub(super) signing_key: Option<String>,
    /// Size at which a segment of the log is closed. Default: 64MiB; 1MiB to 4GiB.
    pub(super) segment: Option<Size>,
    /// Most that the log may hold on disk; beyond it requests are refused with 503. Default: 10GiB; at least 2 segments.
    pub(super) spool_cap: Option<Size>,
    /// Kafka, which then receives every record. Default: none.
    pub(super) kafka: Option<Kafka>,
    /// A further file for checkpoints, better on another machine's disk. Default: none.
    pub(super) checkpoint_file: Option<String>,
    /// Holders outside, to whom every checkpoint is posted. Default: none.
    #[serde(default)]
    pub(super) checkpoint_webhooks: Vec<CheckpointWebhook>,
    /// What may be deleted from the disk. Default: nothing ever is.
    pub(super) retention: Option<Retention>,
}

/// A holder that checkpoints are posted to.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CheckpointWebhook {
    /// Where to: `https://`, or `http://` where no token goes with it.
    pub(super) url: String,
    /// Sent as `Authorization: Bearer`. Default: none.
    pub(super) token: Option<Source>,
}

/// What may be deleted from the disk: whole segments, oldest first, once they are published and covered outside.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Retention {
    /// Records older than this go, as in `90d`. Default: none for their age.
    pub(super) age: Option<String>,
    /// Beyond this size the oldest go. Default: none for their size; at 85 % of `spool_cap` the oldest go all the same.
    pub(super) size: Option<Size>,
    /// No record younger than this goes, whatever the reason. Default: 24h.
    pub(super) at_least: Option<String>,
    /// A directory that segments are copied to before they go, with their checkpoints. Default: none.
    pub(super) archive: Option<String>,
}

/// The Kafka cluster that receives every record.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Kafka {
    /// `HOST:PORT` of at least one broker.
    #[schemars(length(min = 1))]
    pub(super) brokers: Vec<String>,
    /// The topic. Default: countersign.audit.v1.
    pub(super) topic: Option<String>,
    /// The topic of the signed checkpoints. Default: countersign.checkpoints.v1.
    pub(super) checkpoint_topic: Option<String>,
    /// A start with an empty `dir` reads the topic for chains of this replica's name, goes on behind the newest and closes what
    /// they left open: for pods whose disk dies with them. Default: false.
    #[serde(default)]
    pub(super) take_over: bool,
    /// Further librdkafka settings, such as `security.protocol`. Those that delivery rests on cannot be set.
    #[serde(default)]
    pub(super) options: BTreeMap<String, OptionValue>,
    /// librdkafka settings that are secret, such as `sasl.password`, each from a file or the environment.
    #[serde(default)]
    pub(super) secrets: BTreeMap<String, Source>,
}

/// A librdkafka setting.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum OptionValue {
    Bool(bool),
    Number(i64),
    Text(String),
}
