//! From what was written to what it means. Every section is gone through, whatever is wrong with the others.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use sha2::{Digest, Sha256};

use super::{
    Audit, ClaimPath, Config, CustomDetector, ExtProc, Issuer, JwksSource, Kafka, Known, Limits,
    Listen, Reference, SecretSource, TlsFiles, chains,
    fault::{Fault, in_order},
    raw,
    tree::{Node, Place, Step, spell},
    units,
};
use crate::policy::nearest;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;

pub(super) fn understand(
    raw: raw::File,
    tree: &Node,
    text: &str,
    file: &str,
    known: &Known<'_>,
) -> Result<Config, Vec<Fault>> {
    let base = Path::new(file).parent().unwrap_or(Path::new("")).to_owned();
    let mut notes = Notes {
        tree,
        base,
        faults: Vec::new(),
        warnings: Vec::new(),
        references: Vec::new(),
    };
    let root = At::root();
    let listen = listen(
        raw.listen.unwrap_or_default(),
        &root.key("listen"),
        &mut notes,
    );
    let marker = raw.envoy.and_then(|envoy| envoy.marker).and_then(|source| {
        secret(
            source.file.as_deref(),
            source.env.as_deref(),
            &root.key("envoy").key("marker"),
            &mut notes,
        )
    });
    let limits = limits(
        &raw.limits.unwrap_or_default(),
        &root.key("limits"),
        &mut notes,
    );
    let issuers = issuers(
        raw.identity.issuers,
        &root.key("identity").key("issuers"),
        &mut notes,
    );
    let detectors = detectors(raw.detectors, known, &root.key("detectors"), &mut notes);
    let audit = audit(raw.audit, &root.key("audit"), &mut notes);
    let claims = issuers
        .iter()
        .flat_map(|issuer| issuer.claims.iter().cloned())
        .collect();
    let entities = known
        .entities
        .iter()
        .cloned()
        .chain(detectors.iter().map(|custom| custom.entity.clone()))
        .collect();
    let written = chains::Written {
        connections: raw.connections,
        policies: raw.policies,
        groups: raw.detector_groups,
    };
    let connections = chains::connections(written, entities, claims, known, &mut notes);
    match (listen, limits, audit) {
        (Some(listen), Some(limits), Some(audit)) if notes.faults.is_empty() => Ok(Config {
            listen,
            marker,
            limits,
            issuers,
            connections,
            detectors,
            audit,
            digest: Sha256::digest(text.as_bytes()).into(),
            warnings: in_order(notes.warnings),
            references: notes.references,
        }),
        _ => Err(notes.faults),
    }
}

/// What has been noticed so far, and what it takes to say where.
pub(super) struct Notes<'t> {
    tree: &'t Node,
    base: PathBuf,
    faults: Vec<Fault>,
    warnings: Vec<Fault>,
    references: Vec<Reference>,
}

impl Notes<'_> {
    pub(super) fn fault(&mut self, at: &At, message: impl Into<String>) {
        self.faults
            .push(Fault::new(self.place(at).line, &spell(&at.0), message));
    }

    pub(super) fn unknown<'n>(
        &mut self,
        at: &At,
        message: impl Into<String>,
        name: &str,
        known: impl IntoIterator<Item = &'n str>,
    ) {
        let fault =
            Fault::new(self.place(at).line, &spell(&at.0), message).suggest(nearest(name, known));
        self.faults.push(fault);
    }

    /// A fault whose place within a text is known: the text's own, from 1.
    pub(super) fn fault_within(
        &mut self,
        at: &At,
        line: usize,
        column: usize,
        message: String,
        meant: Option<String>,
    ) {
        let place = self.place(at);
        let fault = match place.within(line, column) {
            Some((line, column)) => Fault::new(line, &spell(&at.0), message).column(column),
            None => {
                let message = format!("{message}, at line {line}, column {column} of the text");
                Fault::new(place.line, &spell(&at.0), message)
            }
        };
        self.faults.push(fault.suggest(meant));
    }

    pub(super) fn warn(&mut self, at: &At, message: impl Into<String>) {
        self.warnings
            .push(Fault::new(self.place(at).line, &spell(&at.0), message));
    }

    pub(super) fn place(&self, at: &At) -> Place {
        self.tree.place(&at.0)
    }

    /// A path as it is meant: relative to the file's directory.
    fn path(&mut self, written: &str, at: &At) -> PathBuf {
        if written.is_empty() || written.contains('\0') {
            self.fault(at, "not a path");
        }
        self.base.join(written)
    }

    /// A path to something that must be there when the program starts.
    fn existing(&mut self, written: &str, at: &At) -> PathBuf {
        let path = self.path(written, at);
        self.refer(at, SecretSource::File(path.clone()));
        path
    }

    fn refer(&mut self, at: &At, source: SecretSource) {
        let (line, path) = (self.place(at).line, spell(&at.0));
        self.references.push(Reference { line, path, source });
    }
}

/// A place in the structure.
#[derive(Clone, Debug)]
pub(super) struct At(Vec<Step>);

impl At {
    pub(super) fn root() -> Self {
        Self(Vec::new())
    }

    pub(super) fn key(&self, key: &str) -> Self {
        let mut at = self.clone();
        at.0.push(Step::Key(key.to_owned()));
        at
    }

    pub(super) fn index(&self, index: usize) -> Self {
        let mut at = self.clone();
        at.0.push(Step::Index(index));
        at
    }
}

/// Exactly one of a file and a variable.
pub(super) fn secret(
    file: Option<&str>,
    env: Option<&str>,
    at: &At,
    notes: &mut Notes<'_>,
) -> Option<SecretSource> {
    let source = match (file, env) {
        (Some(file), None) => {
            let path = notes.existing(file, &at.key("file"));
            return Some(SecretSource::File(path));
        }
        (None, Some(env)) => SecretSource::Env(env.to_owned()),
        (Some(_), Some(_)) => {
            notes.fault(at, "name `file` or `env`, not both");
            return None;
        }
        (None, None) => {
            notes.fault(at, "say where the secret is: `file` or `env`");
            return None;
        }
    };
    if let SecretSource::Env(name) = &source
        && (name.is_empty() || name.contains(['=', '\0', ' ']))
    {
        notes.fault(&at.key("env"), "not the name of an environment variable");
        return None;
    }
    notes.refer(&at.key("env"), source.clone());
    Some(source)
}

fn listen(raw: raw::Listen, at: &At, notes: &mut Notes<'_>) -> Option<Listen> {
    let ext_proc = match raw.ext_proc {
        None => Some(ExtProc::Unix(PathBuf::from(
            "/run/countersign/ext_proc.sock",
        ))),
        Some(raw::ExtProc::Address(address)) => {
            ext_proc(&address, None, false, &at.key("ext_proc"), notes)
        }
        Some(raw::ExtProc::Full(full)) => ext_proc(
            &full.address,
            full.tls,
            full.insecure,
            &at.key("ext_proc"),
            notes,
        ),
    };
    let http = match raw.http {
        None => Some(SocketAddr::from(([127, 0, 0, 1], 8480))),
        Some(raw::Http::Address(address)) => http(&address, false, &at.key("http"), notes),
        Some(raw::Http::Full(full)) => http(&full.address, full.insecure, &at.key("http"), notes),
    };
    let (ext_proc, http) = (ext_proc?, http?);
    if let ExtProc::Tls(address, _) | ExtProc::Insecure(address) = &ext_proc
        && overlap(*address, http)
    {
        notes.fault(&at.key("http"), "the address is already that of `ext_proc`");
    }
    Some(Listen { ext_proc, http })
}

/// Port 0 is whatever is free, so it never collides.
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let same_host =
        one.ip() == other.ip() || one.ip().is_unspecified() || other.ip().is_unspecified();
    one.port() != 0 && one.port() == other.port() && same_host
}

fn ext_proc(
    address: &str,
    tls: Option<raw::Tls>,
    insecure: bool,
    at: &At,
    notes: &mut Notes<'_>,
) -> Option<ExtProc> {
    if let Some(path) = address.strip_prefix("unix:") {
        if tls.is_some() || insecure {
            notes.fault(at, "`tls` and `insecure` are for `tcp:` addresses; a Unix socket is guarded by its mode");
        }
        let path = notes.path(path, at);
        // sockaddr_un holds 108 bytes, the last of them NUL.
        if path.as_os_str().len() > 107 {
            notes.fault(at, "the path of a Unix socket has at most 107 bytes");
        }
        return Some(ExtProc::Unix(path));
    }
    let Some(address) = address.strip_prefix("tcp:") else {
        notes.fault(
            at,
            "write `unix:/run/countersign/ext_proc.sock` or `tcp:127.0.0.1:9000`",
        );
        return None;
    };
    let address = socket_address(address, at, notes)?;
    match (tls, insecure) {
        (Some(tls), false) => {
            let at = at.key("tls");
            Some(ExtProc::Tls(
                address,
                TlsFiles {
                    cert: notes.existing(&tls.cert, &at.key("cert")),
                    key: notes.existing(&tls.key, &at.key("key")),
                    client_ca: notes.existing(&tls.client_ca, &at.key("client_ca")),
                },
            ))
        }
        (Some(_), true) => {
            notes.fault(at, "`tls` and `insecure: true` contradict each other");
            None
        }
        (None, true) => {
            notes.warn(at, "insecure: whoever reaches this port with a valid token can read the lent credentials");
            Some(ExtProc::Insecure(address))
        }
        (None, false) => {
            notes.fault(
                at,
                "a `tcp:` address needs `tls: { cert, key, client_ca }`, or `insecure: true`",
            );
            None
        }
    }
}

fn http(address: &str, insecure: bool, at: &At, notes: &mut Notes<'_>) -> Option<SocketAddr> {
    let address = socket_address(address, at, notes)?;
    if !address.ip().is_loopback() {
        if insecure {
            notes.warn(
                at,
                "insecure: the API, without TLS, is reachable from other machines",
            );
        } else {
            notes.fault(
                at,
                "listens beyond loopback without TLS; use 127.0.0.1, or say `insecure: true`",
            );
        }
    }
    Some(address)
}

fn socket_address(text: &str, at: &At, notes: &mut Notes<'_>) -> Option<SocketAddr> {
    let parsed = text.parse().ok();
    if parsed.is_none() {
        notes.fault(
            at,
            "not an address; write an IP and a port, as in `127.0.0.1:8480` or `[::1]:8480`",
        );
    }
    parsed
}

/// A size between two bounds, or its default.
fn size(
    raw: Option<&raw::Size>,
    default: u64,
    least: u64,
    most: u64,
    at: &At,
    notes: &mut Notes<'_>,
) -> Option<u64> {
    let Some(raw) = raw else { return Some(default) };
    match units::bytes(raw) {
        Ok(bytes) if (least..=most).contains(&bytes) => Some(bytes),
        Ok(_) => {
            let (least, most) = (units::spelled(least), units::spelled(most));
            notes.fault(at, format!("must be between {least} and {most}"));
            None
        }
        Err(message) => {
            notes.fault(at, message);
            None
        }
    }
}

fn limits(raw: &raw::Limits, at: &At, notes: &mut Notes<'_>) -> Option<Limits> {
    let request_body = size(
        raw.request_body.as_ref(),
        10 * MIB,
        KIB,
        GIB,
        &at.key("request_body"),
        notes,
    );
    let response_body = size(
        raw.response_body.as_ref(),
        32 * MIB,
        KIB,
        GIB,
        &at.key("response_body"),
        notes,
    );
    let memory = size(
        raw.memory.as_ref(),
        512 * MIB,
        MIB,
        TIB,
        &at.key("memory"),
        notes,
    );
    let streams = raw.streams.unwrap_or(4096);
    let streams_per_principal = match raw.streams_per_principal {
        Some(written) if written > streams => {
            notes.fault(
                &at.key("streams_per_principal"),
                format!("must be at most `streams`, which is {streams}"),
            );
            written
        }
        Some(written) => written,
        None => streams.min(64),
    };
    let (request_body, response_body, memory) = (request_body?, response_body?, memory?);
    if memory < request_body.max(response_body) {
        let least = units::spelled(request_body.max(response_body));
        notes.fault(
            &at.key("memory"),
            format!("must hold at least one body: {least} or more"),
        );
    }
    Some(Limits {
        request_body,
        response_body,
        memory,
        streams,
        streams_per_principal,
    })
}

const ALGORITHMS: [&str; 9] = [
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA",
];

fn issuers(raw: Vec<raw::Issuer>, at: &At, notes: &mut Notes<'_>) -> Vec<Issuer> {
    let mut seen = BTreeMap::new();
    let mut issuers = Vec::with_capacity(raw.len());
    for (i, issuer) in raw.into_iter().enumerate() {
        let at = at.index(i);
        if let Some(first) = seen.insert(issuer.issuer.clone(), i) {
            notes.fault(
                &at.key("issuer"),
                format!("the issuer is already defined as identity.issuers[{first}]"),
            );
        }
        issuers.push(self::issuer(issuer, &at, notes));
    }
    issuers
}

fn issuer(raw: raw::Issuer, at: &At, notes: &mut Notes<'_>) -> Issuer {
    https(&raw.issuer, &at.key("issuer"), notes);
    let audiences = match raw.audience {
        raw::OneOrMany::One(audience) => vec![audience],
        raw::OneOrMany::Many(audiences) => audiences,
    };
    if audiences.is_empty() || audiences.iter().any(String::is_empty) {
        notes.fault(
            &at.key("audience"),
            "the audience is mandatory: tokens made for others must not count here",
        );
    }
    for (i, algorithm) in raw.algorithms.iter().enumerate() {
        let at = at.key("algorithms").index(i);
        if algorithm.starts_with("HS") || algorithm.eq_ignore_ascii_case("none") {
            let message = "is not accepted: only asymmetric signatures prove who signed";
            notes.fault(
                &at,
                format!("`{algorithm}` {message}; use RS256, PS256, ES256 or EdDSA"),
            );
        } else if !ALGORITHMS.contains(&algorithm.as_str()) {
            notes.unknown(
                &at,
                format!("unknown algorithm `{algorithm}`"),
                algorithm,
                ALGORITHMS,
            );
        }
    }
    let jwks = match raw.jwks {
        None => JwksSource::Discovery,
        Some(raw::Jwks {
            file: Some(file),
            url: None,
        }) => JwksSource::File(notes.existing(&file, &at.key("jwks").key("file"))),
        Some(raw::Jwks {
            file: None,
            url: Some(url),
        }) => {
            https(&url, &at.key("jwks").key("url"), notes);
            JwksSource::Url(url)
        }
        Some(_) => {
            notes.fault(
                &at.key("jwks"),
                "say where the keys are: exactly one of `file` and `url`",
            );
            JwksSource::Discovery
        }
    };
    let groups_claim = raw.groups_claim.unwrap_or_else(|| "groups".to_owned());
    if groups_claim.is_empty() || groups_claim == "/" {
        notes.fault(
            &at.key("groups_claim"),
            "name a claim, or write a JSON pointer such as `/realm_access/roles`",
        );
    }
    let mut listed = BTreeSet::new();
    for (i, claim) in raw.claims.iter().enumerate() {
        if claim.is_empty() {
            notes.fault(&at.key("claims").index(i), "a claim needs a name");
        } else if !listed.insert(claim) {
            notes.fault(
                &at.key("claims").index(i),
                format!("claim `{claim}` is listed twice"),
            );
        }
    }
    let clock_skew = clock_skew(raw.clock_skew.as_deref(), &at.key("clock_skew"), notes);
    if raw.allow_id_tokens {
        let message = "ID tokens prove a login to a client, not leave to call this gateway; prefer access tokens";
        notes.warn(&at.key("allow_id_tokens"), message);
    }
    Issuer {
        issuer: raw.issuer,
        audiences,
        algorithms: raw.algorithms,
        jwks,
        groups_claim: match groups_claim.starts_with('/') {
            true => ClaimPath::Pointer(groups_claim),
            false => ClaimPath::Name(groups_claim),
        },
        claims: raw.claims,
        clock_skew,
        allow_id_tokens: raw.allow_id_tokens,
    }
}

fn clock_skew(raw: Option<&str>, at: &At, notes: &mut Notes<'_>) -> Duration {
    const DEFAULT: Duration = Duration::from_secs(30);
    let Some(text) = raw else { return DEFAULT };
    match units::duration(text) {
        Ok(skew) if skew <= Duration::from_secs(300) => return skew,
        Ok(_) => notes.fault(at, "must be at most 5m"),
        Err(message) => notes.fault(at, message),
    }
    DEFAULT
}

/// An https URL; http only where nothing leaves the machine.
fn https(text: &str, at: &At, notes: &mut Notes<'_>) {
    let Ok(url) = url::Url::parse(text) else {
        return notes.fault(at, "not a URL; write it as in `https://idp.example`");
    };
    let loopback = match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
        Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    };
    if url.scheme() != "https" && !(url.scheme() == "http" && loopback) {
        notes.fault(
            at,
            "must be an https URL; http is accepted on loopback only",
        );
    }
    if !url.username().is_empty() || url.password().is_some() {
        notes.fault(at, "must not carry a user name or password");
    }
    if url.query().is_some() || url.fragment().is_some() {
        notes.fault(at, "must not carry a query or fragment");
    }
}

fn detectors(
    raw: Vec<raw::Detector>,
    known: &Known<'_>,
    at: &At,
    notes: &mut Notes<'_>,
) -> Vec<CustomDetector> {
    let mut seen = BTreeMap::new();
    let mut detectors = Vec::with_capacity(raw.len());
    for (i, raw) in raw.into_iter().enumerate() {
        let at = at.index(i);
        let entity = raw.entity.as_str();
        if !is_entity(entity) {
            let message = "an entity is named by capitals, digits and `_`, a capital first, at most 64 in all";
            notes.fault(&at.key("entity"), message);
        } else if known.entities.iter().any(|builtin| &**builtin == entity) {
            notes.fault(
                &at.key("entity"),
                format!("`{entity}` is built in; choose another name"),
            );
        } else if let Some(first) = seen.insert(entity.to_owned(), i) {
            notes.fault(
                &at.key("entity"),
                format!("`{entity}` is already defined as detectors[{first}]"),
            );
        }
        let detector = CustomDetector {
            entity: entity.into(),
            regex: raw.regex,
            context: raw.context,
        };
        if let Err(message) = (known.detector)(&detector) {
            notes.fault(&at.key("regex"), message);
        }
        detectors.push(detector);
    }
    detectors
}

pub(super) fn is_entity(name: &str) -> bool {
    name.len() <= 64
        && name.starts_with(|c: char| c.is_ascii_uppercase())
        && name
            .chars()
            .all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')
}

/// A name of a connection, policy, group, deployment or replica.
pub(super) fn is_name(name: &str) -> bool {
    name.len() <= 64
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
}

pub(super) const NAME_RULE: &str =
    "a name has letters, digits, `.`, `_`, `-`, a letter or digit first, at most 64 in all";

fn audit(raw: raw::Audit, at: &At, notes: &mut Notes<'_>) -> Option<Audit> {
    let dir = notes.path(&raw.dir, &at.key("dir"));
    let deployment = raw.deployment.unwrap_or_else(|| "default".to_owned());
    if !is_name(&deployment) {
        notes.fault(&at.key("deployment"), NAME_RULE);
    }
    if raw
        .replica
        .as_deref()
        .is_some_and(|replica| !is_name(replica))
    {
        notes.fault(&at.key("replica"), NAME_RULE);
    }
    let segment = size(
        raw.segment.as_ref(),
        64 * MIB,
        MIB,
        4 * GIB,
        &at.key("segment"),
        notes,
    );
    let spool_cap = size(
        raw.spool_cap.as_ref(),
        10 * GIB,
        2 * MIB,
        1024 * TIB,
        &at.key("spool_cap"),
        notes,
    );
    let kafka = raw.kafka.map(|raw| kafka(raw, &at.key("kafka"), notes));
    let signing_key = raw
        .signing_key
        .map(|path| notes.existing(&path, &at.key("signing_key")));
    let checkpoint_file = raw
        .checkpoint_file
        .map(|path| notes.path(&path, &at.key("checkpoint_file")));
    let (segment, spool_cap) = (segment?, spool_cap?);
    if spool_cap < 2 * segment {
        let least = units::spelled(2 * segment);
        notes.fault(
            &at.key("spool_cap"),
            format!("must hold at least two segments: {least} or more"),
        );
    }
    Some(Audit {
        dir,
        deployment,
        replica: raw.replica,
        signing_key,
        segment,
        spool_cap,
        kafka,
        checkpoint_file,
    })
}

/// Settings that the promise of delivery rests on, or that are set elsewhere.
const RESERVED: [&str; 17] = [
    "acks",
    "bootstrap.servers",
    "client.id",
    "compression.codec",
    "compression.type",
    "delivery.timeout.ms",
    "enable.gapless.guarantee",
    "enable.idempotence",
    "linger.ms",
    "max.in.flight",
    "max.in.flight.requests.per.connection",
    "message.timeout.ms",
    "metadata.broker.list",
    "partitioner",
    "queue.buffering.max.messages",
    "request.required.acks",
    "transactional.id",
];
const SECRET: [&str; 5] = [
    "sasl.password",
    "ssl.key.password",
    "ssl.keystore.password",
    "ssl.key.pem",
    "sasl.oauthbearer.client.secret",
];

fn kafka(raw: raw::Kafka, at: &At, notes: &mut Notes<'_>) -> Kafka {
    for (i, broker) in raw.brokers.iter().enumerate() {
        let good = broker.rsplit_once(':').is_some_and(|(host, port)| {
            !host.is_empty()
                && !host.contains(['/', ',', ' '])
                && port.parse::<u16>().is_ok_and(|port| port != 0)
        });
        if !good {
            notes.fault(
                &at.key("brokers").index(i),
                "not a broker; write `host:port`",
            );
        }
    }
    let topic = raw
        .topic
        .unwrap_or_else(|| "countersign.audit.v1".to_owned());
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if topic.is_empty()
        || topic.len() > 249
        || topic == "."
        || topic == ".."
        || !topic.chars().all(legal)
    {
        notes.fault(
            &at.key("topic"),
            "not a topic: letters, digits, `.`, `_`, `-`, at most 249",
        );
    }
    let mut options = BTreeMap::new();
    for (name, value) in raw.options {
        let at = at.key("options").key(&name);
        if RESERVED.contains(&name.as_str()) {
            notes.fault(
                &at,
                format!("`{name}` is set by the program, because delivery rests on it"),
            );
        } else if SECRET.contains(&name.as_str()) {
            notes.fault(&at, format!("`{name}` is a secret; put it under `secrets`, from a `file` or an `env` variable"));
        }
        let value = match value {
            raw::OptionValue::Bool(value) => value.to_string(),
            raw::OptionValue::Number(value) => value.to_string(),
            raw::OptionValue::Text(value) => value,
        };
        options.insert(name, value);
    }
    let mut secrets = BTreeMap::new();
    for (name, source) in raw.secrets {
        let at = at.key("secrets").key(&name);
        if RESERVED.contains(&name.as_str()) {
            notes.fault(
                &at,
                format!("`{name}` is set by the program, because delivery rests on it"),
            );
        }
        if options.contains_key(&name) {
            notes.fault(&at, format!("`{name}` is also set under `options`"));
        }
        if let Some(source) = secret(source.file.as_deref(), source.env.as_deref(), &at, notes) {
            secrets.insert(name, source);
        }
    }
    Kafka {
        brokers: raw.brokers,
        topic,
        options,
        secrets,
    }
}
