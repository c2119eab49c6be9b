//! The configuration: from text to a value that can be used as it is, or to every fault at once.
//!
//! ```text
//! text ── tree (places) ── structure (schema) ── raw (what was written) ── understand (what it means) ── Config
//!            faults?           faults?                                          faults?
//! ```
//! Promises: a [`Config`] is valid by construction, so nobody checks it again; faults carry the file's line and, where
//! a name is close to a known one, that name; unknown keys are faults; parsing reads nothing but the text it is given
//! and the system's list of time zones.
//! Never: holds a secret, only where it is ([`SecretSource`]); follows aliases; reads a file of more than 1 MiB.
//! Can miss: whether a host, route, topic or issuer exists; [`Config::missing`] looks at files and variables only.

mod approvals;
mod audit;
mod chains;
mod credential;
mod detectors;
mod fault;
mod grants;
mod issuers;
mod listen;
mod load;
mod mend;
mod raw;
#[cfg(feature = "saml")]
mod saml;
mod schema;
mod structure;
mod telemetry;
mod tree;
mod understand;
mod units;

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use jiff::tz::TimeZone;
use url::Url;

pub(crate) use approvals::LONGEST_HOLD;
pub use approvals::{ALERTS_TOPIC, CONTROL_TOPIC};
pub use fault::Fault;
pub use load::{LoadError, load, load_with_builtins, with_builtins};
pub use schema::MessageSchema;
pub use structure::json_schema;
pub use tree::MAX_BYTES;
pub use units::duration;

use crate::{
    approval::Freshness,
    audit::{Durability, note::VerifierKey},
    detect::Entity,
    dialect::{Dialect, JsonPath, Selection},
    exchange::{Route, Unscanned},
    grant,
    identity::{CertificateRules, IssuerRules},
    keys::{
        introspect::IntrospectionSource, jwks::KeySource, secret::SecretSource,
        source::CredentialSource,
    },
    policy::{Chain, ModelPattern, Risk},
};

/// Any YAML document read with the strictness of ours, up to [`MAX_BYTES`]: no aliases, no key written twice.
///
/// # Errors
/// Every fault of the text.
pub fn yaml(text: &str) -> Result<serde_json::Value, Vec<Fault>> {
    tree::read(text).map(|top| top.value())
}

/// What the configuration may refer to: the program's own dialects and detectors.
#[derive(Clone, Copy)]
pub struct Known<'a> {
    /// Every dialect.
    pub dialects: &'a [&'static dyn Dialect],
    /// Entities of the built-in detectors.
    pub entities: &'a [Entity],
    /// Whether a custom detector can be built; the error says what is wrong with it.
    pub detector: &'a dyn Fn(&CustomDetector) -> Result<(), String>,
}

/// A configuration that can be used as it is.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the services listen.
    pub listen: Listen,
    /// Bounds on memory and concurrency.
    pub limits: Limits,
    /// Who may vouch for callers, `iss` unique. Empty only where `saml` or `certificates` says who calls.
    pub issuers: Vec<Issuer>,
    /// Who may vouch for callers by SAML assertions; entity ids unique and no issuer's `iss`.
    #[cfg(feature = "saml")]
    pub saml: Vec<SamlProvider>,
    /// Who is known by a certificate alone, on connections that say so.
    pub certificates: CertificateRules,
    /// Connections in matching order: the first that matches is taken. Never empty, names unique.
    pub connections: Vec<Connection>,
    /// Custom detectors, entities unique and none of them built in.
    pub detectors: Vec<CustomDetector>,
    /// Entities whose values are told by where they stand.
    pub named: Vec<(Entity, JsonPath)>,
    /// Lists of terms, entities unique and none of them another detector's.
    pub dictionaries: Vec<Dictionary>,
    /// The key of keyed operators; there where a policy uses one.
    pub masking: Option<Masking>,
    /// Whom originals are sealed to; there where a connection's payload is.
    pub sealing: Option<Sealing>,
    /// What a request's risk is made of.
    pub risk: Risk,
    /// Where the time of conditions is taken.
    pub time_zone: TimeZone,
    /// Where approvals are kept; there where a connection's chain can ask for one.
    pub approvals: Option<Approvals>,
    /// Grants that are made; only where there are `approvals`.
    pub grants: Option<Grants>,
    /// Who is told of what should not have happened.
    pub alerts: Option<Alerts>,
    /// Who may do what over our API.
    pub access: Access,
    /// Where traces go; `None` where none are sent.
    pub otlp: Option<Otlp>,
    /// The ledger and where its records go.
    pub audit: Audit,
    /// SHA-256 of the file's text as it was read, byte for byte.
    pub digest: [u8; 32],
    /// What is allowed but probably not meant, in the order of the file.
    pub warnings: Vec<Fault>,
    references: Vec<Reference>,
}

/// Where approvals are kept, how many may wait, who may decide and who is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Approvals {
    /// Directory of the control log where there is no Kafka.
    pub dir: PathBuf,
    /// Requests held at one time; beyond it callers get a ticket.
    pub max_holds: u32,
    /// Requests of one principal held at one time; at most `max_holds`.
    pub max_holds_per_principal: u32,
    /// Approvals of one principal that are pending.
    pub max_pending_per_principal: u32,
    /// How long ago an approver may have signed in.
    pub freshness: Freshness,
    /// Where our API is reached from outside: `https`, or `http` on loopback; without credentials, query and fragment. Links
    /// are left out where it is `None`.
    pub public_url: Option<Url>,
    /// The control log in Kafka; only where `audit.kafka` is, whose brokers and settings it shares.
    pub kafka: Option<ControlKafka>,
    /// Who is told of approvals.
    pub webhooks: Vec<Webhook>,
}

/// Grants that are made.
#[derive(Clone, Debug)]
pub struct Grants {
    /// Files of our own keys: the first signs. Never empty.
    pub keys: Vec<PathBuf>,
    /// Who may have which, and in whose name.
    pub rules: grant::Rules,
}

impl Grants {
    /// What tokens are believed by: the rest can change without forgetting any.
    #[must_use]
    pub fn identity(&self) -> (&str, &[PathBuf]) {
        (&self.rules.issuer, &self.keys)
    }
}

/// The control log in Kafka.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlKafka {
    /// The topic; none of the others.
    pub topic: String,
    /// Whose certificates count.
    pub root: VerifierKey,
    /// This replica's signing key.
    pub key: PathBuf,
    /// The root's certificate of that key.
    pub certificate: PathBuf,
    /// Whether a topic that could lose events is accepted.
    pub dev: bool,
}

/// An address that is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Webhook {
    /// `https`, or `http` on loopback; without credentials and fragment. May have a query, and may itself be all that it takes
    /// to post there: not for logs.
    pub url: Url,
    /// What the message looks like.
    pub format: WebhookFormat,
}

/// What a message looks like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WebhookFormat {
    /// JSON, signed with this secret as Standard Webhooks say.
    Standard(SecretSource),
    /// What Slack's incoming webhooks take; without a signature.
    Slack,
}

/// Who is told of what should not have happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alerts {
    /// The topic, none of the others; there where `audit.kafka` is.
    pub topic: Option<String>,
    /// Who is told.
    pub webhooks: Vec<Webhook>,
    /// When to alert of what is masked.
    pub masked_per_principal: Option<MaskedAlert>,
}

/// So many masked values of one principal within some time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MaskedAlert {
    /// How many; at least 1.
    pub count: u32,
    /// Within what time.
    pub window: Duration,
}

/// Who may do what over our API, by the groups of their token. Whoever is in none of them sees only their own requests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// May look at sessions and records.
    pub auditor: BTreeSet<String>,
    /// May look at pending approvals. Deciding takes a group that the approval asks for.
    pub approver: BTreeSet<String>,
    /// May cancel approvals.
    pub admin: BTreeSet<String>,
    /// Issuers whose groups count at our API; all where it is empty.
    pub issuers: BTreeSet<String>,
}

/// A collector of traces. What is `None` is as the environment says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Otlp {
    /// Its address, to which `/v1/traces` is added; without credentials, query and fragment, and `https` where there are `headers`.
    pub endpoint: Option<Url>,
    /// Sent along, by name in lower case.
    pub headers: BTreeMap<String, SecretSource>,
    /// How many of the traces that begin here are kept, 0 to 1.
    pub sample_ratio: Option<f64>,
    /// Whether spans name callers.
    pub principals: bool,
}

/// Whom originals are sealed to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealing {
    /// Files with their public keys, one a line; never empty.
    pub auditors: Vec<PathBuf>,
    /// Most that sealed payloads may take on disk, in bytes.
    pub cap: u64,
    /// The topic they are sent to where there is Kafka.
    pub topic: String,
}

/// The key of the operators `hash`, `tokenize` and `vault`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Masking {
    /// Where it is.
    pub source: SecretSource,
    /// Whether each principal has stand-ins of their own.
    pub per_principal: bool,
}

/// A file or variable that the file names, and where it does.
#[derive(Clone, Debug)]
struct Reference {
    line: usize,
    path: String,
    source: SecretSource,
}

/// Where the services listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// The service Envoy calls.
    pub ext_proc: ExtProc,
    /// API, health and metrics.
    pub http: SocketAddr,
    /// The certificates of that; plain HTTP where there are none.
    pub http_tls: Option<TlsFiles>,
}

/// How Envoy reaches the service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExtProc {
    /// A Unix socket and its mode: access is a matter of file permissions.
    Unix(PathBuf, u32),
    /// TCP with mutual TLS.
    Tls(SocketAddr, TlsFiles),
    /// TCP that anyone who reaches the port can use; the file says `insecure: true`.
    Insecure(SocketAddr),
}

/// PEM files of a listener with TLS, and who may connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The listener's certificate chain.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The authorities that sign client certificates; with `None` no client is asked for one.
    pub client_ca: Option<PathBuf>,
    /// Subject alternative names (DNS names and URIs, letter for letter) of which a client certificate must have one; any will do
    /// where there are none.
    pub client_names: BTreeSet<String>,
}

/// Bounds on memory and concurrency.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Largest request body, in bytes.
    pub request_body: u64,
    /// Largest answer that is not a stream, in bytes.
    pub response_body: u64,
    /// All bodies held at one time together with their copies, in bytes; at least [`COPIES`](crate::exchange::COPIES) times
    /// either of the above.
    pub memory: u64,
    /// Those of one principal, in bytes; with the same least, and at most `memory`.
    pub memory_per_principal: u64,
    /// Requests in flight.
    pub streams: u32,
    /// Requests in flight of one principal; at most `streams`.
    pub streams_per_principal: u32,
}

/// An issuer of access tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issuer {
    /// What is demanded of its tokens.
    pub rules: IssuerRules,
    /// Where its keys are; `None` where nothing is verified by keys and it is asked about every token.
    pub keys: Option<KeySource>,
    /// Where it is asked about opaque tokens; at most one issuer is. There where `keys` is `None`.
    pub introspection: Option<IntrospectionSource>,
}

/// A SAML identity provider.
#[cfg(feature = "saml")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SamlProvider {
    /// What is demanded of its assertions.
    pub rules: crate::identity::saml::Rules,
    /// Where its keys are: in its metadata.
    pub keys: KeySource,
}

/// What callers may reach, and under which rules.
#[derive(Clone, Debug)]
pub struct Connection {
    /// The name, as records show it.
    pub name: String,
    /// Where it is and where its credential may go.
    pub route: Route,
    /// The request header that carries the caller's token.
    pub token: TokenHeader,
    /// Whether a certificate alone may say who calls, where no token came.
    pub certificate_alone: bool,
    /// The provider's wire format.
    pub dialect: &'static dyn Dialect,
    /// What messages look like; there where the dialect is `grpc`.
    pub schema: Option<MessageSchema>,
    /// The upstream's credential; none is lent where it is `None`.
    pub credential: Option<Credential>,
    /// The policy chain.
    pub chain: Chain,
    /// What the record holds of prompts and answers.
    pub payload: Payload,
    /// When a record counts as safe.
    pub durability: Durability,
    /// Whether prompts with parts no detector can look into may go on.
    pub unscanned: Unscanned,
    /// Whether those may whose parts are signed or encrypted.
    pub signed: Unscanned,
    /// Which fields of documents are what.
    pub fields: Arc<Selection>,
}

/// A request header callers send their token in. All four are always stripped before forwarding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenHeader {
    /// `Authorization: Bearer`.
    Authorization,
    /// `x-api-key`, as Anthropic's SDK sends it.
    XApiKey,
    /// `api-key`, as Azure's SDK sends it.
    ApiKey,
    /// `x-goog-api-key`, as Google's SDK sends it.
    XGoogApiKey,
}

impl TokenHeader {
    /// Every header a caller's credential may be in.
    pub const ALL: [TokenHeader; 4] = [
        Self::Authorization,
        Self::XApiKey,
        Self::ApiKey,
        Self::XGoogApiKey,
    ];

    /// The header's name, lower case.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Authorization => "authorization",
            Self::XApiKey => "x-api-key",
            Self::ApiKey => "api-key",
            Self::XGoogApiKey => "x-goog-api-key",
        }
    }
}

/// An upstream's credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credential {
    /// The request header it is sent in, lower case.
    pub header: String,
    /// What stands before the secret in the header's value.
    pub prefix: String,
    /// What stands behind it.
    pub suffix: String,
    /// Where the secret comes from.
    pub source: CredentialSource,
    /// Those of some models; the first that matches counts.
    pub models: Vec<ForModels>,
}

/// The credential of some models.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForModels {
    /// The models; never empty.
    pub models: Vec<ModelPattern>,
    /// Where the secret comes from.
    pub source: CredentialSource,
}

impl Credential {
    /// Every source: those of some models in order, then the connection's own.
    pub fn sources(&self) -> impl Iterator<Item = &CredentialSource> {
        let models = self.models.iter().map(|for_some| &for_some.source);
        models.chain([&self.source])
    }
}

/// What the record holds of prompts and answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payload {
    /// Masked text, readable.
    Masked,
    /// Masked text, and the originals sealed.
    MaskedAndSealed,
    /// The originals sealed, nothing readable.
    Sealed,
    /// Nothing.
    Omit,
}

impl Payload {
    /// Whether records show the masked text.
    #[must_use]
    pub fn shows_text(self) -> bool {
        matches!(self, Self::Masked | Self::MaskedAndSealed)
    }

    /// Whether originals are sealed.
    #[must_use]
    pub fn seals(self) -> bool {
        matches!(self, Self::MaskedAndSealed | Self::Sealed)
    }
}

/// A detector of the user's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CustomDetector {
    /// The entity it finds.
    pub entity: Entity,
    /// What it looks like.
    pub regex: String,
    /// Words of which one must stand before the value; none needed where empty.
    pub context: Vec<String>,
}

/// A list of terms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dictionary {
    /// The entity it finds.
    pub entity: Entity,
    /// The terms.
    pub terms: TermSource,
    /// Whether capital and small letters differ.
    pub match_case: bool,
    /// Whether a term is found inside longer words too.
    pub inside_words: bool,
}

/// Where terms are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TermSource {
    /// In the configuration.
    Here(Vec<String>),
    /// In a file, a term on each line.
    File(PathBuf),
}

/// The ledger and where its records go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Audit {
    /// The ledger's directory.
    pub dir: PathBuf,
    /// Name of the deployment.
    pub deployment: String,
    /// Name of this replica; the host's name where `None`.
    pub replica: Option<String>,
    /// The key that signs checkpoints; made in `dir` where `None`.
    pub signing_key: Option<PathBuf>,
    /// Size at which a segment of the log is closed, in bytes.
    pub segment: u64,
    /// Most that the log may hold on disk, in bytes; at least two segments.
    pub spool_cap: u64,
    /// The Kafka cluster that receives every record.
    pub kafka: Option<Kafka>,
    /// A further file for checkpoints.
    pub checkpoint_file: Option<PathBuf>,
    /// Holders outside, to whom every checkpoint is posted.
    pub checkpoint_webhooks: Vec<CheckpointWebhook>,
    /// What may be deleted from the disk; nothing where `None`.
    pub retention: Option<Retention>,
}

/// A holder that checkpoints are posted to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckpointWebhook {
    /// `https`, or `http` where no token goes with it; without credentials in it.
    pub url: Url,
    /// Sent as `Authorization: Bearer`.
    pub token: Option<SecretSource>,
}

/// What may be deleted from the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Records older than this go.
    pub age: Option<Duration>,
    /// Beyond this many bytes the oldest go.
    pub size: Option<u64>,
    /// No record younger than this goes.
    pub at_least: Duration,
    /// Where segments are copied to before they go.
    pub archive: Option<PathBuf>,
}

/// The Kafka cluster that receives every record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kafka {
    /// `host:port` of each broker; never empty.
    pub brokers: Vec<String>,
    /// The topic.
    pub topic: String,
    /// The topic of the signed checkpoints.
    pub checkpoint_topic: String,
    /// Whether a start with an empty directory goes on behind what the topic has of this replica.
    pub take_over: bool,
    /// Further librdkafka settings, none of which weakens delivery.
    pub options: BTreeMap<String, String>,
    /// librdkafka settings that are secret.
    pub secrets: BTreeMap<String, SecretSource>,
}

/// Every fault of a file, in its order; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Faults {
    /// The file's name as given, to stand before each fault.
    pub file: String,
    /// The faults.
    pub faults: Vec<Fault>,
}

impl fmt::Display for Faults {
    /// One line per fault: `file:line: path: message`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, fault) in self.faults.iter().enumerate() {
            let line_break = if i == 0 { "" } else { "\n" };
            write!(f, "{line_break}{}:{fault}", self.file)?;
        }
        Ok(())
    }
}

impl std::error::Error for Faults {}

impl Config {
    /// Understands `text`. Relative paths in it count from the directory of `file`, which is otherwise only a name.
    ///
    /// # Errors
    /// Every fault at once, as far as they can be told: text that is not YAML hides the structure, and what is not there
    /// or of the wrong shape hides what it means, nothing else.
    pub fn parse(text: &str, file: &str, known: &Known<'_>) -> Result<Self, Faults> {
        let faulty = |faults| Faults {
            file: file.to_owned(),
            faults: fault::in_order(faults),
        };
        let tree = tree::read(text).map_err(faulty)?;
        let mut value = tree.value();
        let mut faults = structure::faults(&tree, &value);
        let mut mended = None;
        if !faults.is_empty() {
            let Some(sound) = structure::mended(&value) else {
                return Err(faulty(faults));
            };
            value = sound.value.clone();
            mended = Some(sound);
        }
        let raw: raw::File = serde_json::from_value(value).map_err(|error| {
            // The schema is derived from the same types, so this is our own slip; still no reason to go on.
            faulty(vec![Fault::new(
                1,
                "",
                format!("the file does not have the expected shape: {error}"),
            )])
        })?;
        match understand::understand(raw, &tree, text, file, known) {
            Ok(config) if faults.is_empty() => Ok(config),
            Ok(_) => Err(faulty(faults)),
            Err(more) => {
                let known = |fault: &Fault| mended.as_ref().is_none_or(|m| m.is_known(fault));
                faults.extend(more.into_iter().filter(known));
                Err(faulty(faults))
            }
        }
    }
}
