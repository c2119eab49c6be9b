//! Grants: who may have which.

use std::{collections::BTreeSet, time::Duration};

use super::{
    Connection, Grants, approvals,
    issuers::web,
    raw,
    understand::{At, NAME_RULE, Notes, is_name},
};
use crate::{
    approval::LONGEST_GRANT,
    grant::{Rule, Rules},
    policy::{Expression, ModelPattern, Vocabulary},
};

/// What grants are understood beside.
pub(super) struct Beside<'a> {
    pub(super) connections: &'a [Connection],
    pub(super) vocabulary: &'a Vocabulary,
    /// `iss` of every issuer.
    pub(super) issuers: BTreeSet<&'a str>,
    pub(super) has_approvals: bool,
}

pub(super) fn grants(
    raw: raw::Grants,
    beside: &Beside<'_>,
    at: &At,
    notes: &mut Notes<'_>,
) -> Option<Grants> {
    if !beside.has_approvals {
        let message = "grants need the control log, which counts their uses: add `approvals`, if only as `approvals: {}`";
        notes.fault(at, message);
    }
    let at_issuer = at.key("issuer");
    if let Some(url) = web(&raw.issuer, false, &at_issuer, notes)
        && (url.path() != "/" || raw.issuer.ends_with('/'))
    {
        let message = "must be scheme and host alone, without a path or a slash at its end";
        notes.fault(&at_issuer, message);
    }
    if beside.issuers.contains(raw.issuer.as_str()) {
        let message =
            "the same as an issuer's under `identity`: whose tokens are whose could not be told";
        notes.fault(&at_issuer, message);
    }
    let at_keys = at.key("keys");
    if raw.keys.is_empty() || raw.keys.len() > 16 {
        notes.fault(
            &at_keys,
            "list 1 to 16 files; `countersign keygen grants` makes one",
        );
    }
    let mut keys = Vec::with_capacity(raw.keys.len());
    for (i, path) in raw.keys.iter().enumerate() {
        keys.push(notes.existing(path, &at_keys.index(i)));
    }
    let at_rules = at.key("rules");
    if raw.rules.is_empty() {
        notes.fault(&at_rules, "without a rule there is no grant");
    }
    let mut rules: Vec<Rule> = Vec::with_capacity(raw.rules.len());
    for (i, from) in raw.rules.into_iter().enumerate() {
        let at = at_rules.index(i);
        if rules.iter().any(|known| known.name == from.name) {
            notes.fault(&at.key("name"), "another rule has this name");
        }
        rules.extend(rule(from, beside, &at, notes));
    }
    Some(Grants {
        keys,
        rules: Rules {
            issuer: raw.issuer,
            rules,
        },
    })
}

fn rule(raw: raw::GrantRule, beside: &Beside<'_>, at: &At, notes: &mut Notes<'_>) -> Option<Rule> {
    if !is_name(&raw.name) {
        notes.fault(&at.key("name"), NAME_RULE);
    }
    let at_when = at.key("when");
    let when = match Expression::compile(&raw.when, beside.vocabulary) {
        Ok(when) => Some(when),
        Err(faults) => {
            notes.condition(&at_when, &raw.when, faults);
            None
        }
    };
    if let Some(asked) = when.as_ref().and_then(Expression::asks_for_a_call) {
        let message =
            format!("`{asked}` is not known when a grant is made; ask for `principal` and `time`");
        notes.fault(&at_when, message);
    }
    for (i, name) in raw.connections.iter().enumerate() {
        let known = beside
            .connections
            .iter()
            .map(|connection| connection.name.as_str());
        if !known.clone().any(|known| known == name) {
            let at = at.key("connections").index(i);
            notes.unknown(&at, format!("there is no connection `{name}`"), name, known);
        }
    }
    for (i, model) in raw.models.iter().enumerate() {
        if ModelPattern::new(model).is_none() {
            let message = "a model's name has 1 to 200 characters on one line";
            notes.fault(&at.key("models").index(i), message);
        }
    }
    for (i, method) in raw.methods.iter().enumerate() {
        let of = beside
            .connections
            .iter()
            .filter(|connection| raw.connections.contains(&connection.name));
        let known: BTreeSet<&str> = of
            .flat_map(|connection| {
                connection
                    .route
                    .endpoints
                    .iter()
                    .map(|endpoint| endpoint.name)
            })
            .collect();
        if !known.contains(method.as_str()) {
            let at = at.key("methods").index(i);
            let message = format!("none of these connections has the endpoint `{method}`");
            notes.unknown(&at, message, method, known.iter().copied());
        }
    }
    let usual = Duration::from_secs(15 * 60);
    let bounds = approvals::Bounds(usual.as_secs(), Duration::from_secs(1), LONGEST_GRANT);
    let lifetime = bounds.read(raw.lifetime.as_deref(), at, "lifetime", notes);
    let approval = raw.require_approval.map(|from| {
        let from = raw::RequireApproval {
            approvers: from.approvers,
            expires: from.expires,
            wait: None,
            max_hold: None,
            reasons: from.reasons,
            break_glass: from.break_glass,
            mutable: None,
        };
        approvals::rule(from, &raw.name, &at.key("require_approval"), notes)
    });
    Some(Rule {
        name: raw.name,
        when: when?,
        connections: raw.connections,
        models: raw.models,
        methods: raw.methods,
        lifetime: lifetime?,
        max_uses: raw.max_uses,
        approval: approvals::written(approval)?.map(|rule| rule.requirement),
    })
}
