//! Which SAML providers may vouch for callers.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    SamlProvider,
    issuers::{clock_skew, web},
    raw,
    understand::{At, Notes},
};
use crate::{
    identity::saml::{NameFormat, Rules},
    keys::jwks::{KeySource, Place},
};

/// What providers are understood beside.
pub(super) struct Beside<'a> {
    /// `iss` of every issuer.
    pub(super) issuers: BTreeSet<&'a str>,
    /// The URL of our token endpoint, where there is one.
    pub(super) token_endpoint: Option<String>,
}

pub(super) fn providers(
    raw: Vec<raw::Saml>,
    beside: &Beside<'_>,
    at: &At,
    notes: &mut Notes<'_>,
) -> Vec<SamlProvider> {
    let mut seen = BTreeMap::new();
    let mut providers = Vec::with_capacity(raw.len());
    for (i, from) in raw.into_iter().enumerate() {
        let at = at.index(i);
        let at_id = at.key("entity_id");
        if let Some(first) = seen.insert(from.entity_id.clone(), i) {
            let message = format!("the provider is already defined as identity.saml[{first}]");
            notes.fault(&at_id, message);
        }
        if from.entity_id.is_empty() || from.entity_id.len() > 1024 {
            notes.fault(&at_id, "an entity id has 1 to 1024 bytes");
        }
        if beside.issuers.contains(from.entity_id.as_str()) {
            let message = "the same as an issuer's under `issuers`: whose subjects are whose could not be told";
            notes.fault(&at_id, message);
        }
        providers.extend(provider(from, beside, &at, notes));
    }
    providers
}

fn provider(
    raw: raw::Saml,
    beside: &Beside<'_>,
    at: &At,
    notes: &mut Notes<'_>,
) -> Option<SamlProvider> {
    let audiences = texts(raw.audience, &at.key("audience"), notes);
    let at_recipient = at.key("recipient");
    let recipients = match (raw.recipient, &beside.token_endpoint) {
        (Some(recipient), _) => texts(recipient, &at_recipient, notes),
        (None, Some(token_endpoint)) => vec![token_endpoint.clone()],
        (None, None) => {
            let message =
                "say which recipient assertions are for; it is known only where `grants` is";
            notes.fault(&at_recipient, message);
            Vec::new()
        }
    };
    let at_formats = at.key("name_id_formats");
    let name_formats = match &raw.name_id_formats {
        None => vec![NameFormat::Persistent, NameFormat::Email],
        Some(named) => name_formats(named, &at_formats, notes),
    };
    for (key, name) in [
        ("groups_attribute", &raw.groups_attribute),
        ("person_attribute", &raw.person_attribute),
    ] {
        if name.as_ref().is_some_and(String::is_empty) {
            notes.fault(&at.key(key), "name an attribute");
        }
    }
    let mut listed = BTreeSet::new();
    for (i, claim) in raw.claims.iter().enumerate() {
        if claim.is_empty() || !listed.insert(claim) {
            let message = "name each attribute, and each once";
            notes.fault(&at.key("claims").index(i), message);
        }
    }
    let clock_skew = clock_skew(raw.clock_skew.as_deref(), &at.key("clock_skew"), notes);
    let keys = metadata(&raw.metadata, &at.key("metadata"), notes)?;
    let groups = raw.groups_attribute.unwrap_or_else(|| "groups".to_owned());
    Some(SamlProvider {
        rules: Rules {
            entity_id: raw.entity_id,
            audiences,
            recipients,
            name_formats,
            groups_attribute: Some(groups),
            person_attribute: raw.person_attribute,
            claims: raw.claims,
            clock_skew,
        },
        keys,
    })
}

fn texts(raw: raw::OneOrMany, at: &At, notes: &mut Notes<'_>) -> Vec<String> {
    let texts = match raw {
        raw::OneOrMany::One(text) => vec![text],
        raw::OneOrMany::Many(texts) => texts,
    };
    if texts.is_empty() || texts.iter().any(String::is_empty) {
        let message = "is mandatory: assertions made for others must not count here";
        notes.fault(at, message);
    }
    texts
}

fn name_formats(named: &[String], at: &At, notes: &mut Notes<'_>) -> Vec<NameFormat> {
    let mut formats = Vec::with_capacity(named.len());
    for (i, name) in named.iter().enumerate() {
        let at = at.index(i);
        match name.parse() {
            Ok(format) => formats.push(format),
            Err(_) if name == "transient" => {
                notes.fault(&at, "a transient name names a session and not a caller");
            }
            Err(_) => notes.unknown(
                &at,
                format!("unknown name format `{name}`"),
                name,
                NameFormat::ALL.map(NameFormat::name),
            ),
        }
    }
    formats
}

fn metadata(raw: &raw::Metadata, at: &At, notes: &mut Notes<'_>) -> Option<KeySource> {
    let place = match (&raw.file, &raw.url) {
        (Some(file), None) => Place::File(notes.existing(file, &at.key("file"))),
        (None, Some(url)) => {
            web(url, true, &at.key("url"), notes);
            Place::Url(url.clone())
        }
        _ => {
            let message = "say where the metadata is: exactly one of `file` and `url`";
            notes.fault(at, message);
            return None;
        }
    };
    let signed_by = raw.signed_by.as_ref();
    let signed_by = signed_by.map(|file| notes.existing(file, &at.key("signed_by")));
    Some(KeySource::Metadata {
        at: place,
        signed_by,
    })
}
