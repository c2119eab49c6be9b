//! From what was written to what it means. Every section is gone through, whatever is wrong with the others.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

#[cfg(feature = "saml")]
use super::saml;
use super::{
    Config, Connection, Known, Masking, Reference, Sealing, SecretSource, approvals, audit, chains,
    detectors,
    fault::{Fault, in_order},
    grants, issuers, listen, raw, telemetry,
    tree::{Node, Place, Step, spell},
    units,
};
use crate::{
    audit::{SEALED_TOPIC, seal::MAX_AUDITORS},
    detect::Entity,
    policy::{ExpressionFault, Vocabulary, nearest},
};

pub(super) const KIB: u64 = 1 << 10;
pub(super) const MIB: u64 = 1 << 20;
pub(super) const GIB: u64 = 1 << 30;
pub(super) const TIB: u64 = 1 << 40;

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
        text,
        base,
        faults: Vec::new(),
        warnings: Vec::new(),
        references: Vec::new(),
    };
    let root = At::root();
    let listen = listen::listen(
        raw.listen.unwrap_or_default(),
        &root.key("listen"),
        &mut notes,
    );
    let limits = listen::limits(
        &raw.limits.unwrap_or_default(),
        &root.key("limits"),
        &mut notes,
    );
    let mut issuers = issuers::issuers(
        raw.identity.issuers,
        &root.key("identity").key("issuers"),
        &mut notes,
    );
    let at = root.key("identity").key("saml");
    let has_saml = !raw.identity.saml.is_empty();
    #[cfg(feature = "saml")]
    let saml = {
        let beside = saml::Beside {
            issuers: issuers.iter().map(|i| i.rules.issuer.as_str()).collect(),
            token_endpoint: raw
                .grants
                .as_ref()
                .map(|grants| format!("{}/oauth2/token", grants.issuer)),
        };
        saml::providers(raw.identity.saml, &beside, &at, &mut notes)
    };
    #[cfg(not(feature = "saml"))]
    if !raw.identity.saml.is_empty() {
        let message =
            "this build takes no SAML assertions: it was built without the feature `saml`";
        notes.fault(&at, message);
    }
    let has_certificates = !raw.identity.mtls.is_empty();
    let sources = Sources {
        issuers: !issuers.is_empty(),
        saml: has_saml,
        certificates: has_certificates,
        grants: raw.grants.is_some(),
    };
    sources.say_who_calls(&root.key("identity"), &mut notes);
    let certificates = issuers::certificates(
        raw.identity.mtls,
        &issuers,
        &root.key("identity").key("mtls"),
        &mut notes,
    );
    let detectors = detectors::detectors(raw.detectors, known, &root.key("detectors"), &mut notes);
    let dictionaries = detectors::dictionaries(
        raw.dictionaries,
        &detectors,
        known,
        &root.key("dictionaries"),
        &mut notes,
    );
    let audit = audit::audit(raw.audit, &root.key("audit"), &mut notes);
    let claims = issuers.iter().flat_map(|issuer| &issuer.rules.claims);
    #[cfg(feature = "saml")]
    let claims = claims.chain(saml.iter().flat_map(|provider| &provider.rules.claims));
    let claims = claims.cloned().collect();
    let entities: BTreeSet<Entity> = known
        .entities
        .iter()
        .cloned()
        .chain(detectors.entities.iter().cloned())
        .chain(dictionaries.iter().map(|list| list.entity.clone()))
        .collect();
    let masking = raw
        .masking
        .map(|raw| masking(&raw, &root.key("masking"), &mut notes));
    let written = chains::Written {
        keyed: masking.is_some(),
        kafka: audit.as_ref().is_none_or(|audit| audit.kafka.is_some()),
        approvals: raw.approvals.is_some(),
        connections: raw.connections,
        policies: raw.policies,
        groups: raw.detector_groups,
        named: detectors.named.clone(),
    };
    let sealing = raw
        .sealing
        .map(|raw| sealing(&raw, &root.key("sealing"), &mut notes));
    let risk = raw.risk.unwrap_or_default();
    let risk = approvals::risk(risk, &entities, &root.key("risk"), &mut notes);
    let at = root.key("time_zone");
    let time_zone = approvals::time_zone(raw.time_zone.as_deref(), &at, &mut notes);
    let vocabulary = Vocabulary { entities, claims };
    let words = vocabulary.clone();
    let has_auditors = sealing.is_some();
    let connections = chains::connections(written, vocabulary, known, &mut notes);
    certificates_serve(&connections, has_certificates, &root, &mut notes);
    let at = root.key("approvals");
    let asked = connections.iter().any(|c| c.chain.most_owed().is_some());
    if raw.approvals.is_some() && !asked && raw.grants.is_none() {
        notes.warn(
            &at,
            "no connection's policies ask for an approval, and no grants are made",
        );
    }
    if asked && issuers.is_empty() {
        let message =
            "nobody could decide: approvers sign in at an issuer under `identity.issuers`";
        notes.warn(&at, message);
    }
    let approvals = raw
        .approvals
        .map(|raw| approvals::approvals(raw, audit.as_ref(), &at, &mut notes));
    let beside = grants::Beside {
        connections: &connections,
        vocabulary: &words,
        issuers: issuers
            .iter()
            .map(|issuer| issuer.rules.issuer.as_str())
            .collect(),
        has_approvals: approvals.is_some(),
    };
    let grants = raw
        .grants
        .and_then(|raw| grants::grants(raw, &beside, &root.key("grants"), &mut notes));
    let at = root.key("alerts");
    let alerts = raw
        .alerts
        .map(|raw| approvals::alerts(raw, audit.as_ref(), &at, &mut notes));
    let otlp = raw.telemetry.and_then(|raw| raw.otlp);
    let at = root.key("telemetry").key("otlp");
    let otlp = otlp.map(|raw| telemetry::otlp(raw, &at, &mut notes));
    let access = raw.access.unwrap_or_default();
    let at = root.key("access");
    approvals::api_audience(access.audience.clone(), &mut issuers, &at, &mut notes);
    let access = approvals::access(access, &at, &mut notes);
    let (approvals, alerts) = (approvals.flatten(), alerts.flatten());
    let sealing = sealing.flatten();
    if let Some(audit) = &audit {
        let (approvals, alerts) = (approvals.as_ref(), alerts.as_ref());
        approvals::topics_differ(
            audit,
            sealing.as_ref(),
            approvals,
            alerts,
            &root,
            &mut notes,
        );
    }
    sealed(&connections, has_auditors, &root, &mut notes);
    if masking.is_some() && !connections.iter().any(|c| c.chain.needs_key()) {
        let message = "no connection's policies use `hash`, `tokenize` or `vault`";
        notes.warn(&root.key("masking"), message);
    }
    match (listen, limits, audit) {
        (Some(listen), Some(limits), Some(audit)) if notes.faults.is_empty() => Ok(Config {
            listen,
            limits,
            issuers,
            #[cfg(feature = "saml")]
            saml,
            certificates,
            connections,
            detectors: detectors.custom,
            named: detectors.named,
            dictionaries,
            masking: masking.flatten(),
            sealing,
            risk,
            time_zone,
            approvals,
            grants,
            alerts,
            access,
            otlp: otlp.flatten(),
            audit,
            digest: Sha256::digest(text.as_bytes()).into(),
            warnings: in_order(notes.warnings),
            references: notes.references,
        }),
        _ => Err(notes.faults),
    }
}

fn masking(raw: &raw::Masking, at: &At, notes: &mut Notes<'_>) -> Option<Masking> {
    let source = secret(raw.file.as_deref(), raw.env.as_deref(), at, notes)?;
    let per_principal = !matches!(raw.scope, Some(raw::MaskingScope::Deployment));
    Some(Masking {
        source,
        per_principal,
    })
}

fn sealing(raw: &raw::Sealing, at: &At, notes: &mut Notes<'_>) -> Option<Sealing> {
    let keys = at.key("auditors");
    if raw.auditors.is_empty() || raw.auditors.len() > MAX_AUDITORS {
        notes.fault(&keys, format!("name 1 to {MAX_AUDITORS} files"));
    }
    let auditors = raw.auditors.iter().enumerate();
    let auditors = auditors
        .map(|(i, file)| notes.existing(file, &keys.index(i)))
        .collect();
    let cap = size(
        raw.cap.as_ref(),
        10 * GIB,
        MIB,
        1024 * TIB,
        &at.key("cap"),
        notes,
    )?;
    let topic = audit::topic(raw.topic.clone(), SEALED_TOPIC, &at.key("topic"), notes);
    Some(Sealing {
        auditors,
        cap,
        topic,
    })
}

/// What of `identity`, and of what makes it serve, was written.
struct Sources {
    issuers: bool,
    saml: bool,
    certificates: bool,
    grants: bool,
}

impl Sources {
    /// There is one by which somebody could be known.
    fn say_who_calls(&self, at: &At, notes: &mut Notes<'_>) {
        let idle = self.saml && !self.grants;
        let message =
            "only the token endpoint takes assertions, and there is none without `grants`";
        if self.issuers || self.certificates || self.saml && self.grants {
            if idle {
                notes.warn(&at.key("saml"), message);
            }
        } else if idle {
            notes.fault(&at.key("saml"), message);
        } else {
            let message = "nobody could call: name who says who calls, under `issuers`, `saml` (with `grants`) or `mtls`";
            notes.fault(at, message);
        }
    }
}

/// Certificates that are known serve somewhere, and where they do, some are known.
fn certificates_serve(connections: &[Connection], named: bool, root: &At, notes: &mut Notes<'_>) {
    let mut served = false;
    for (i, connection) in connections.iter().enumerate() {
        served |= connection.certificate_alone;
        if connection.certificate_alone && !named {
            let at = root.key("connections").index(i).key("certificate_alone");
            let message = "no certificate is anybody's: say whose they are under `identity.mtls`";
            notes.fault(&at, message);
        }
    }
    if named && !served {
        let message = "no connection takes a certificate alone (`certificate_alone`)";
        notes.warn(&root.key("identity").key("mtls"), message);
    }
}

/// What is sealed needs somebody who can read it, and the other way round.
fn sealed(connections: &[Connection], has_auditors: bool, root: &At, notes: &mut Notes<'_>) {
    let mut any = false;
    for (i, connection) in connections.iter().enumerate() {
        any |= connection.payload.seals();
        if connection.payload.seals() && !has_auditors {
            let at = root.key("connections").index(i).key("payload");
            let message = "nobody could read what is sealed: name auditors' keys under `sealing`";
            notes.fault(&at, message);
        }
    }
    if has_auditors && !any {
        let message = "no connection's payload is `sealed` or `masked+sealed`";
        notes.warn(&root.key("sealing"), message);
    }
}

/// What has been noticed so far, and what it takes to say where.
pub(super) struct Notes<'t> {
    tree: &'t Node,
    text: &'t str,
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

    /// The faults of a condition, each at its own place where that can be told.
    pub(super) fn condition(&mut self, at: &At, text: &str, faults: Vec<ExpressionFault>) {
        let place = self.place(at);
        for ExpressionFault {
            line,
            column,
            message,
            suggestion,
        } in faults
        {
            let fault = match place.within(self.text, text, line, column) {
                Some((line, column)) => Fault::new(line, &spell(&at.0), message).column(column),
                None => {
                    let message = format!("{message}, at line {line}, column {column} of the text");
                    Fault::new(place.line, &spell(&at.0), message)
                }
            };
            self.faults.push(fault.suggest(suggestion));
        }
    }

    pub(super) fn warn(&mut self, at: &At, message: impl Into<String>) {
        self.warnings
            .push(Fault::new(self.place(at).line, &spell(&at.0), message));
    }

    pub(super) fn place(&self, at: &At) -> Place {
        self.tree.place(&at.0)
    }

    /// Where `at` was written: its line, and its path spelled out.
    pub(super) fn written(&self, at: &At) -> (usize, String) {
        (self.place(at).line, spell(&at.0))
    }

    /// A path as it is meant: relative to the file's directory.
    pub(super) fn path(&mut self, written: &str, at: &At) -> PathBuf {
        if written.is_empty() || written.contains('\0') {
            self.fault(at, "not a path");
        }
        self.base.join(written)
    }

    /// A path to something that must be there when the program starts.
    pub(super) fn existing(&mut self, written: &str, at: &At) -> PathBuf {
        let path = self.path(written, at);
        self.refer(at, SecretSource::File(path.clone()));
        path
    }

    fn refer(&mut self, at: &At, source: SecretSource) {
        let (line, path) = self.written(at);
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

/// A size between two bounds, or its default.
pub(super) fn size(
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
