//! Connections, and the policies they are made of.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{
    Connection, Known, Payload, TokenHeader, approvals,
    credential::credential,
    detectors::{self, Groups},
    raw, schema,
    understand::{At, NAME_RULE, Notes, is_name},
};
use crate::{
    approval::MAX_SEATS,
    audit::Durability,
    detect::Entity,
    dialect::{Dialect, Endpoint, JsonPath, Selection, SignedAnswers},
    exchange::{HostPattern, Route, Territory, Unscanned},
    mask::{Operator, Restore},
    policy::{Chain, Effect, Expression, Masking, Policy, Vocabulary},
};

/// What the file says of connections and policies.
pub(super) struct Written {
    pub(super) connections: Vec<raw::Connection>,
    pub(super) policies: Vec<raw::Policy>,
    pub(super) groups: BTreeMap<String, Vec<String>>,
    /// Entities, and the fields their values stand in.
    pub(super) named: Vec<(Entity, JsonPath)>,
    /// Whether there is a masking key.
    pub(super) keyed: bool,
    /// Whether records go to Kafka.
    pub(super) kafka: bool,
    /// Whether it is said where approvals are kept.
    pub(super) approvals: bool,
}

/// What may follow from a policy.
const EFFECTS: &str = "`allow`, `allow_upgrade`, `deny`, `mask` or `require_approval`";

/// What policies may name.
struct Words<'w> {
    vocabulary: &'w Vocabulary,
    groups: &'w Groups,
    keyed: bool,
}

/// The connections in order; what is faulty is noted and left out.
pub(super) fn connections(
    written: Written,
    vocabulary: Vocabulary,
    known: &Known<'_>,
    notes: &mut Notes<'_>,
) -> Vec<Connection> {
    let groups = detectors::groups(written.groups, &vocabulary, notes);
    let words = Words {
        vocabulary: &vocabulary,
        groups: &groups,
        keyed: written.keyed,
    };
    let policies = Policies::read(written.policies, &words, notes);
    let mut used = BTreeSet::new();
    let mut names: BTreeMap<String, usize> = BTreeMap::new();
    let mut territories: Vec<(usize, String, Territory)> =
        Vec::with_capacity(written.connections.len());
    let mut connections = Vec::with_capacity(written.connections.len());
    for (i, raw) in written.connections.into_iter().enumerate() {
        let at = At::root().key("connections").index(i);
        if !is_name(&raw.name) {
            notes.fault(&at.key("name"), NAME_RULE);
        } else if let Some(first) = names.insert(raw.name.clone(), i) {
            notes.fault(
                &at.key("name"),
                format!("`{}` is already the name of connections[{first}]", raw.name),
            );
        }
        if matches!(raw.durability, Some(raw::Durability::Kafka)) && !written.kafka {
            let message = "`kafka` needs brokers: say where they are under `audit.kafka`";
            notes.fault(&at.key("durability"), message);
        }
        used.extend(raw.policies.iter().cloned());
        let territory = territory(&raw.matches, &at.key("match"), notes);
        let chain = chain(&raw.policies, &policies, &at.key("policies"), notes);
        owed(&chain, written.approvals, &at.key("policies"), notes);
        connections.extend(connection(
            &raw,
            territory.as_ref(),
            chain,
            &written.named,
            known,
            &at,
            notes,
        ));
        if let Some(territory) = territory {
            reachable(&territory, &territories, &at.key("match"), notes);
            territories.push((i, raw.name, territory));
        }
    }
    policies.warn_unused(&used, notes);
    connections
}

/// Policies by name, the faulty ones with nothing behind their name, so that naming one is no second fault.
struct Policies {
    by_name: BTreeMap<String, (usize, Option<Arc<Policy>>)>,
}

impl Policies {
    fn read(raw: Vec<raw::Policy>, words: &Words<'_>, notes: &mut Notes<'_>) -> Self {
        let mut by_name: BTreeMap<String, (usize, Option<Arc<Policy>>)> = BTreeMap::new();
        for (i, raw) in raw.into_iter().enumerate() {
            let at = At::root().key("policies").index(i);
            if !is_name(&raw.name) {
                notes.fault(&at.key("name"), NAME_RULE);
            }
            if let Some((first, _)) = by_name.get(&raw.name) {
                notes.fault(
                    &at.key("name"),
                    format!("`{}` is already the name of policies[{first}]", raw.name),
                );
            }
            let name = raw.name.clone();
            let policy = policy(raw, words, &at, notes).map(Arc::new);
            by_name.entry(name).or_insert((i, policy));
        }
        Self { by_name }
    }

    fn warn_unused(&self, used: &BTreeSet<String>, notes: &mut Notes<'_>) {
        for (name, (i, _)) in &self.by_name {
            if !used.contains(name) {
                let at = At::root().key("policies").index(*i).key("name");
                notes.warn(&at, format!("policy `{name}` is in no connection's chain"));
            }
        }
    }
}

fn policy(raw: raw::Policy, words: &Words<'_>, at: &At, notes: &mut Notes<'_>) -> Option<Policy> {
    let when = match Expression::compile(&raw.when, words.vocabulary) {
        Ok(when) => Some(when),
        Err(faults) => {
            notes.condition(&at.key("when"), &raw.when, faults);
            None
        }
    };
    let then = effect(raw.then, &raw.name, words, &at.key("then"), notes);
    let when = when?;
    if when.constant() == Some(false) {
        notes.warn(&at.key("when"), "the condition never holds");
    }
    if let Some(claim) = when.unguarded() {
        let message =
            format!("a caller without `{claim}` is denied here; ask `has({claim})` first");
        notes.warn(&at.key("when"), message);
    }
    Some(Policy {
        name: raw.name,
        when,
        then: then?,
    })
}

fn effect(
    raw: raw::Then,
    name: &str,
    words: &Words<'_>,
    at: &At,
    notes: &mut Notes<'_>,
) -> Option<Effect> {
    let full = match raw {
        raw::Then::Word(raw::ThenWord::Allow) => return Some(Effect::Allow),
        raw::Then::Full(full) => full,
    };
    let raw::ThenFull {
        allow,
        allow_upgrade,
        deny,
        mask,
        require_approval,
    } = *full;
    match (allow, allow_upgrade, deny, mask, require_approval) {
        (Some(raw::Allow {}), None, None, None, None) => Some(Effect::Allow),
        (None, Some(raw::Upgrade::Websocket), None, None, None) => Some(Effect::AllowUpgrade),
        (None, None, Some(deny), None, None) => {
            approvals::one_line(&deny.reason, &at.key("deny").key("reason"), notes);
            Some(Effect::Deny(deny.reason.trim().to_owned()))
        }
        (None, None, None, Some(mask), None) => {
            masking(mask, words, &at.key("mask"), notes).map(Effect::Mask)
        }
        (None, None, None, None, Some(rule)) => {
            let at = at.key("require_approval");
            approvals::rule(rule, name, &at, notes).map(Effect::RequireApproval)
        }
        (None, None, None, None, None) => {
            notes.fault(at, format!("say what follows: {EFFECTS}"));
            None
        }
        _ => {
            notes.fault(
                at,
                format!("one policy has one effect: {EFFECTS}; make it two policies"),
            );
            None
        }
    }
}

fn masking(raw: raw::Mask, words: &Words<'_>, at: &At, notes: &mut Notes<'_>) -> Option<Masking> {
    if raw.request.is_none() && raw.response.is_none() {
        notes.fault(at, "say where to mask: `request`, `response` or both");
        return None;
    }
    let mut side = |raw: Option<raw::MaskSide>, key: &str| {
        raw.map(|raw| masked(raw, words, key == "request", &at.key(key), notes))
            .unwrap_or_default()
            .into()
    };
    Some(Masking {
        request: side(raw.request, "request"),
        response: side(raw.response, "response"),
        exempt_groups: raw.exempt_groups.into_iter().collect(),
    })
}

fn masked(
    raw: raw::MaskSide,
    words: &Words<'_>,
    of_request: bool,
    at: &At,
    notes: &mut Notes<'_>,
) -> BTreeMap<Entity, Operator> {
    let operator = match raw.operator {
        None | Some(raw::Operator::Word(raw::OperatorWord::Replace)) => Operator::Replace,
        Some(raw::Operator::Word(raw::OperatorWord::Redact)) => Operator::Redact,
        Some(raw::Operator::Word(raw::OperatorWord::Hash)) => Operator::Hash,
        Some(raw::Operator::Word(raw::OperatorWord::Tokenize)) => Operator::Tokenize,
        Some(raw::Operator::Word(raw::OperatorWord::Vault)) => Operator::Vault(Restore::default()),
        Some(raw::Operator::KeepLast(raw::KeepLast { keep_last })) => Operator::KeepLast(keep_last),
        Some(raw::Operator::Vault(raw::VaultOperator { vault })) => Operator::Vault(Restore {
            tool_arguments: vault.tool_arguments,
            links: vault.links,
        }),
    };
    if matches!(operator, Operator::Vault(_)) && !of_request {
        let message = "an answer has nothing to be put back from: use `vault` under `request`";
        notes.fault(&at.key("operator"), message);
    }
    if operator.is_keyed() && !words.keyed {
        let message = format!("`{operator}` needs a key: say where it is under `masking`");
        notes.fault(&at.key("operator"), message);
    }
    let mut masked = BTreeMap::new();
    for (i, name) in raw.detectors.iter().enumerate() {
        if let Some(entity) = words.vocabulary.entities.get(name.as_str()) {
            masked.insert(entity.clone(), operator);
        } else if let Some(entities) = words.groups.get(name) {
            masked.extend(entities.iter().map(|entity| (entity.clone(), operator)));
        } else {
            let known = words
                .vocabulary
                .entities
                .iter()
                .map(|entity| &**entity)
                .chain(words.groups.keys().map(String::as_str));
            let message = format!(
                "unknown detector `{name}`: neither an entity nor a group of `detector_groups`"
            );
            notes.unknown(&at.key("detectors").index(i), message, name, known);
        }
    }
    masked
}

fn territory(raw: &raw::Match, at: &At, notes: &mut Notes<'_>) -> Option<Territory> {
    let hosts = hosts(raw.hosts.as_deref(), &at.key("hosts"), notes);
    let path_prefix = path_prefix(raw.path_prefix.as_deref(), &at.key("path_prefix"), notes);
    Some(Territory {
        hosts: hosts?,
        path_prefix: path_prefix?,
    })
}

fn connection(
    raw: &raw::Connection,
    territory: Option<&Territory>,
    chain: Chain,
    named: &[(Entity, JsonPath)],
    known: &Known<'_>,
    at: &At,
    notes: &mut Notes<'_>,
) -> Option<Connection> {
    let dialect = dialect(&raw.dialect, known, &at.key("dialect"), notes);
    let endpoints = dialect.and_then(|dialect| {
        let (raw, at) = (&raw.endpoints, at.key("endpoints"));
        match dialect.name() {
            schema::DIALECT => schema::methods(raw, &at, notes),
            _ => endpoints(raw, dialect, &at, notes),
        }
    });
    let schema = schema::schema(raw, at, notes);
    let credential = raw
        .credential
        .as_ref()
        .and_then(|raw| credential(raw, &at.key("credential"), notes));
    let (lend_to_routes, lend_to_clusters) = lend_to(raw, at, notes);
    let territory = territory?;
    Some(Connection {
        name: raw.name.clone(),
        route: Route {
            territory: territory.clone(),
            endpoints: endpoints?,
            lend_to_routes,
            lend_to_clusters,
        },
        token: match raw.token {
            None | Some(raw::Token::Authorization) => TokenHeader::Authorization,
            Some(raw::Token::XApiKey) => TokenHeader::XApiKey,
            Some(raw::Token::ApiKey) => TokenHeader::ApiKey,
            Some(raw::Token::XGoogApiKey) => TokenHeader::XGoogApiKey,
        },
        certificate_alone: raw.certificate_alone,
        dialect: dialect?,
        schema,
        credential,
        chain,
        payload: match raw.payload {
            None | Some(raw::Payload::Masked) => Payload::Masked,
            Some(raw::Payload::MaskedAndSealed) => Payload::MaskedAndSealed,
            Some(raw::Payload::Sealed) => Payload::Sealed,
            Some(raw::Payload::Omit) => Payload::Omit,
        },
        durability: match raw.durability {
            None | Some(raw::Durability::Disk) => Durability::Disk,
            Some(raw::Durability::Spool) => Durability::Spool,
            Some(raw::Durability::Kafka) => Durability::Kafka,
        },
        unscanned: unscanned(raw.unscanned),
        signed: unscanned(raw.signed.or(raw.unscanned)),
        fields: Arc::new(Selection {
            named: named.to_vec(),
            only: fields(raw, at, notes),
            // What `unscanned` says is said of prompts only: whoever means answers too writes it.
            signed_answers: match raw.signed {
                None | Some(raw::Unscanned::Allow) => SignedAnswers::Pass,
                Some(raw::Unscanned::Refuse) => SignedAnswers::Refuse,
                Some(raw::Unscanned::Strip) => SignedAnswers::Strip,
            },
        }),
    })
}

/// What becomes of parts that cannot be scanned.
fn unscanned(raw: Option<raw::Unscanned>) -> Unscanned {
    match raw {
        None | Some(raw::Unscanned::Refuse) => Unscanned::Refuse,
        Some(raw::Unscanned::Allow) => Unscanned::Allow,
        Some(raw::Unscanned::Strip) => Unscanned::Strip,
    }
}

/// The fields that are looked into.
fn fields(raw: &raw::Connection, at: &At, notes: &mut Notes<'_>) -> Vec<JsonPath> {
    let at = at.key("fields");
    let Some(paths) = &raw.fields else {
        return Vec::new();
    };
    if raw.dialect == schema::DIALECT {
        return Vec::new();
    }
    if raw.dialect != "json" {
        let message = "only the dialects `json` and `grpc` have fields to choose from: the others know where text is";
        notes.fault(&at, message);
    }
    let mut fields = Vec::with_capacity(paths.len());
    for (i, path) in paths.iter().enumerate() {
        match JsonPath::parse(path) {
            Ok(path) => fields.push(path),
            Err(message) => notes.fault(&at.index(i), message),
        }
    }
    fields
}

/// Routes and clusters: none without a credential, some with one.
fn lend_to(raw: &raw::Connection, at: &At, notes: &mut Notes<'_>) -> (Vec<String>, Vec<String>) {
    let (routes, clusters): (&[String], &[String]) = raw
        .lend_to
        .as_ref()
        .map_or((&[], &[]), |lend_to| (&lend_to.routes, &lend_to.clusters));
    if raw.credential.is_some() && routes.is_empty() && clusters.is_empty() {
        let message =
            "the credential is lent to no one: name Envoy's routes or clusters under `lend_to`";
        notes.fault(
            &at.key(if raw.lend_to.is_some() {
                "lend_to"
            } else {
                "credential"
            }),
            message,
        );
    } else if raw.credential.is_none() && raw.lend_to.is_some() {
        notes.warn(&at.key("lend_to"), "there is no `credential` to lend");
    }
    for (key, names) in [("routes", routes), ("clusters", clusters)] {
        for (i, name) in names.iter().enumerate() {
            if name.is_empty() {
                notes.fault(&at.key("lend_to").key(key).index(i), "the name is empty");
            }
        }
    }
    (routes.to_vec(), clusters.to_vec())
}

fn hosts(raw: Option<&[String]>, at: &At, notes: &mut Notes<'_>) -> Option<Vec<HostPattern>> {
    let any = ["*".to_owned()];
    let raw = raw.unwrap_or(&any);
    let mut hosts = Vec::with_capacity(raw.len());
    for (i, host) in raw.iter().enumerate() {
        match HostPattern::parse(host) {
            Ok(pattern) => hosts.push(pattern),
            Err(message) => notes.fault(&at.index(i), message),
        }
    }
    (hosts.len() == raw.len()).then_some(hosts)
}

fn path_prefix(raw: Option<&str>, at: &At, notes: &mut Notes<'_>) -> Option<String> {
    let prefix = raw.unwrap_or("/");
    let message = if !prefix.starts_with('/') {
        "a path begins with `/`"
    } else if prefix.contains(['?', '#', '%', '\\'])
        || prefix.chars().any(|c| c.is_control() || c == ' ')
    {
        "a path prefix is plain text: no query, fragment, escapes or blanks"
    } else if prefix.contains("//")
        || prefix
            .split('/')
            .any(|segment| segment == "." || segment == "..")
    {
        "the path is not normal: Envoy removes `//`, `.` and `..` before it is matched"
    } else {
        return Some(prefix.strip_suffix('/').unwrap_or(prefix).to_owned());
    };
    notes.fault(at, message);
    None
}

fn dialect(
    name: &str,
    known: &Known<'_>,
    at: &At,
    notes: &mut Notes<'_>,
) -> Option<&'static dyn Dialect> {
    let found = known
        .dialects
        .iter()
        .copied()
        .find(|dialect| dialect.name() == name);
    if found.is_none() {
        let names = known.dialects.iter().map(|dialect| dialect.name());
        notes.unknown(at, format!("unknown dialect `{name}`"), name, names);
    }
    found
}

fn endpoints(
    raw: &[String],
    dialect: &dyn Dialect,
    at: &At,
    notes: &mut Notes<'_>,
) -> Option<Vec<Endpoint>> {
    let mut endpoints: Vec<Endpoint> = Vec::with_capacity(raw.len());
    for (i, name) in raw.iter().enumerate() {
        match dialect
            .endpoints()
            .iter()
            .find(|endpoint| endpoint.name == name)
        {
            Some(endpoint) if endpoints.contains(endpoint) => {
                notes.fault(&at.index(i), format!("endpoint `{name}` is listed twice"));
            }
            Some(endpoint) => endpoints.push(*endpoint),
            None => {
                let message = format!("dialect `{}` has no endpoint `{name}`", dialect.name());
                notes.unknown(
                    &at.index(i),
                    message,
                    name,
                    dialect.endpoints().iter().map(|endpoint| endpoint.name),
                );
            }
        }
    }
    (!endpoints.is_empty()).then_some(endpoints)
}

fn chain(names: &[String], policies: &Policies, at: &At, notes: &mut Notes<'_>) -> Chain {
    let mut chain = Vec::with_capacity(names.len());
    let mut whole = true;
    let mut seen = BTreeMap::new();
    for (i, name) in names.iter().enumerate() {
        let at = at.index(i);
        if let Some(first) = seen.insert(name.as_str(), i) {
            notes.fault(
                &at,
                format!("policy `{name}` is in this chain already, at position {first}"),
            );
            continue;
        }
        match policies.by_name.get(name) {
            Some((_, Some(policy))) => chain.push((i, Arc::clone(policy))),
            Some((_, None)) => whole = false,
            None => {
                whole = false;
                let known = policies.by_name.keys().map(String::as_str);
                notes.unknown(&at, format!("unknown policy `{name}`"), name, known);
            }
        }
    }
    let (positions, chain): (Vec<usize>, Vec<Arc<Policy>>) = chain.into_iter().unzip();
    let chain = Chain::new(chain);
    if let Some(end) = chain.ends_at() {
        let last = &chain.policies()[end].name;
        for (i, name) in names.iter().enumerate().skip(positions[end] + 1) {
            notes.fault(
                &at.index(i),
                format!("policy `{name}` is never reached: `{last}` always ends the chain"),
            );
        }
    }
    if whole && !chain.can_allow() {
        notes.warn(
            at,
            "no policy of this chain allows anything: every request is denied",
        );
    }
    chain
}

/// What a chain can ask for must be something that people can give, and kept somewhere.
fn owed(chain: &Chain, kept: bool, at: &At, notes: &mut Notes<'_>) {
    let Some(most) = chain.most_owed() else {
        return;
    };
    if !kept {
        let message = "a policy of this chain asks for an approval: say where they are kept under `approvals`";
        notes.fault(at, message);
    }
    let seats = most.requirement.seats().count();
    if seats > MAX_SEATS {
        notes.fault(
            at,
            format!("the policies of this chain ask for the approval of {seats} persons together; at most {MAX_SEATS}"),
        );
    }
}

/// A connection whose every host is taken by earlier ones is never reached.
fn reachable(
    territory: &Territory,
    earlier: &[(usize, String, Territory)],
    at: &At,
    notes: &mut Notes<'_>,
) {
    let mut takers = BTreeSet::new();
    for host in &territory.hosts {
        match earlier
            .iter()
            .find(|(.., earlier)| earlier.takes(territory, host))
        {
            Some((i, name, _)) => takers.insert(format!("`{name}` (connections[{i}])")),
            None => return,
        };
    }
    let takers = takers.into_iter().collect::<Vec<_>>().join(" and ");
    notes.fault(
        at,
        format!("never reached: {takers} takes all its requests first; put this one before"),
    );
}
