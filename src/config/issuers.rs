//! Who may vouch for callers.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use url::Url;

use super::{
    Issuer, raw,
    understand::{At, Notes, secret},
    units,
};
use crate::{
    identity::{
        Algorithm, CertificateName, CertificateRule, CertificateRules, IssuerRules, MAX_NAME_BYTES,
    },
    keys::{introspect::IntrospectionSource, jwks::KeySource},
};

pub(super) fn issuers(raw: Vec<raw::Issuer>, at: &At, notes: &mut Notes<'_>) -> Vec<Issuer> {
    let mut seen = BTreeMap::new();
    let mut opaque = None;
    let mut issuers = Vec::with_capacity(raw.len());
    for (i, issuer) in raw.into_iter().enumerate() {
        let at = at.index(i);
        if let Some(first) = seen.insert(issuer.issuer.clone(), i) {
            notes.fault(
                &at.key("issuer"),
                format!("the issuer is already defined as identity.issuers[{first}]"),
            );
        }
        if issuer.introspection.is_some()
            && let Some(first) = opaque.replace(i)
        {
            notes.fault(
                &at.key("introspection"),
                format!("an opaque token does not say whose it is, so one issuer can be asked about them: identity.issuers[{first}] is"),
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
    let mut algorithms = Vec::with_capacity(raw.algorithms.len());
    for (i, algorithm) in raw.algorithms.iter().enumerate() {
        let at = at.key("algorithms").index(i);
        if let Ok(known) = algorithm.parse() {
            algorithms.push(known);
        } else if algorithm.starts_with("HS") || algorithm.eq_ignore_ascii_case("none") {
            let message = "is not accepted: only asymmetric signatures prove who signed";
            notes.fault(
                &at,
                format!("`{algorithm}` {message}; use RS256, PS256, ES256 or EdDSA"),
            );
        } else {
            notes.unknown(
                &at,
                format!("unknown algorithm `{algorithm}`"),
                algorithm,
                Algorithm::ALL.map(Algorithm::name),
            );
        }
    }
    let at_algorithms = at.key("algorithms");
    let keys = match (raw.algorithms.is_empty(), raw.jwks) {
        (false, jwks) => Some(key_source(jwks, &at.key("jwks"), notes)),
        (true, None) => None,
        (true, Some(_)) => {
            let message = "keys verify nothing without `algorithms`";
            notes.fault(&at.key("jwks"), message);
            None
        }
    };
    if keys.is_none() && raw.introspection.is_none() {
        let message = "say what its tokens may be signed with, or how it is asked about them (`introspection`)";
        notes.fault(&at_algorithms, message);
    }
    let introspection = raw
        .introspection
        .and_then(|raw| introspection(raw, &at.key("introspection"), notes));
    let groups_claim = raw.groups_claim.unwrap_or_else(|| "groups".to_owned());
    if groups_claim.is_empty() || groups_claim == "/" {
        notes.fault(
            &at.key("groups_claim"),
            "name a claim, or write a JSON pointer such as `/realm_access/roles`",
        );
    }
    for (key, claim) in [
        ("person_claim", &raw.person_claim),
        ("owner_claim", &raw.owner_claim),
    ] {
        if claim
            .as_ref()
            .is_some_and(|name| name.is_empty() || name == "/")
        {
            notes.fault(
                &at.key(key),
                "name a claim, or write a JSON pointer such as `/ext/employee`",
            );
        }
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
    let rules = IssuerRules {
        issuer: raw.issuer,
        audiences,
        api_audience: None,
        algorithms,
        groups_claim: Some(groups_claim),
        claims: raw.claims,
        person_claim: raw.person_claim,
        owner_claim: raw.owner_claim,
        clock_skew,
        allow_id_tokens: raw.allow_id_tokens,
        require_bound_tokens: raw.require_bound_tokens,
    };
    Issuer {
        rules,
        keys,
        introspection,
    }
}

fn key_source(raw: Option<raw::Jwks>, at: &At, notes: &mut Notes<'_>) -> KeySource {
    let insecure = false;
    match raw {
        None => KeySource::Discovery { insecure },
        Some(raw::Jwks {
            file: Some(file),
            url: None,
        }) => KeySource::File(notes.existing(&file, &at.key("file"))),
        Some(raw::Jwks {
            file: None,
            url: Some(url),
        }) => {
            https(&url, &at.key("url"), notes);
            KeySource::Url { url, insecure }
        }
        Some(_) => {
            let message = "say where the keys are: exactly one of `file` and `url`";
            notes.fault(at, message);
            KeySource::Discovery { insecure }
        }
    }
}

fn introspection(
    raw: raw::Introspection,
    at: &At,
    notes: &mut Notes<'_>,
) -> Option<IntrospectionSource> {
    if let Some(url) = &raw.url {
        web(url, true, &at.key("url"), notes);
    }
    if raw.client_id.is_empty() {
        notes.fault(&at.key("client_id"), "name the client that asks");
    }
    let (file, env) = (
        raw.client_secret.file.as_deref(),
        raw.client_secret.env.as_deref(),
    );
    let client_secret = secret(file, env, &at.key("client_secret"), notes)?;
    Some(IntrospectionSource {
        url: raw.url,
        client_id: raw.client_id,
        client_secret,
    })
}

/// Who is known by a certificate alone.
pub(super) fn certificates(
    raw: Vec<raw::ClientCertificate>,
    issuers: &[Issuer],
    at: &At,
    notes: &mut Notes<'_>,
) -> CertificateRules {
    let mut known = Vec::with_capacity(raw.len());
    for (i, raw) in raw.into_iter().enumerate() {
        let at = at.index(i);
        let (key, name) = match (&raw.spiffe, &raw.dns, &raw.subject) {
            (Some(id), None, None) => ("spiffe", CertificateName::spiffe(id)),
            (None, Some(name), None) => ("dns", CertificateName::dns(name)),
            (None, None, Some(name)) => ("subject", CertificateName::subject(name)),
            _ => {
                let message = "say whose certificate: exactly one of `spiffe`, `dns` and `subject`";
                notes.fault(&at, message);
                continue;
            }
        };
        if raw.groups.iter().any(String::is_empty) {
            notes.fault(&at.key("groups"), "a group needs a name");
        }
        let owner = raw.owner.as_deref().map(str::trim);
        if owner.is_some_and(|name| name.is_empty() || name.len() > MAX_NAME_BYTES) {
            notes.fault(&at.key("owner"), "name somebody, in at most 256 bytes");
        }
        match name {
            Ok(name) => known.push(CertificateRule {
                name,
                groups: raw.groups,
                owner: raw.owner,
            }),
            Err(error) => notes.fault(&at.key(key), error.to_string()),
        }
    }
    let names_humans = |issuer: &Issuer| {
        let rules = &issuer.rules;
        rules.person_claim.is_some() || rules.owner_claim.is_some()
    };
    CertificateRules {
        known,
        ask_for_owners: issuers.iter().any(names_humans),
    }
}

pub(super) fn clock_skew(raw: Option<&str>, at: &At, notes: &mut Notes<'_>) -> Duration {
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
    web(text, false, at, notes);
}

/// As [`https`], with a query only where it may have one; `None` where it is no URL at all.
pub(super) fn web(text: &str, query: bool, at: &At, notes: &mut Notes<'_>) -> Option<Url> {
    let Ok(url) = Url::parse(text) else {
        notes.fault(at, "not a URL; write it as in `https://idp.example`");
        return None;
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
    if url.fragment().is_some() || url.query().is_some() && !query {
        notes.fault(at, "must not carry a query or fragment");
    }
    Some(url)
}
