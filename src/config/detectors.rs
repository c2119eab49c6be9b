//! Detectors of the user's own: expressions, fields, lists of terms, and groups of entities.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    CustomDetector, Dictionary, Known, TermSource, raw,
    understand::{At, NAME_RULE, Notes, is_name},
};
use crate::{detect::Entity, dialect::JsonPath, policy::Vocabulary};

const ENTITY_RULE: &str =
    "an entity is named by capitals, digits and `_`, a capital first, at most 64 in all";

/// Entities by the name of their group.
pub(super) type Groups = BTreeMap<String, Vec<Entity>>;

/// The detectors of the user's own: those that say what values look like, and those that say where they stand.
#[derive(Default)]
pub(super) struct Own {
    /// What they find; the faulty ones too, so that naming one is no second fault.
    pub(super) entities: Vec<Entity>,
    pub(super) custom: Vec<CustomDetector>,
    pub(super) named: Vec<(Entity, JsonPath)>,
}

pub(super) fn detectors(
    raw: Vec<raw::Detector>,
    known: &Known<'_>,
    at: &At,
    notes: &mut Notes<'_>,
) -> Own {
    let mut seen = BTreeMap::new();
    let mut own = Own::default();
    for (i, raw) in raw.into_iter().enumerate() {
        let at = at.index(i);
        let entity = raw.entity.as_str();
        if !is_entity(entity) {
            notes.fault(&at.key("entity"), ENTITY_RULE);
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
        own.entities.push(entity.into());
        match (raw.regex, raw.json_path) {
            (Some(regex), None) => {
                let detector = CustomDetector {
                    entity: entity.into(),
                    regex,
                    context: raw.context,
                };
                if let Err(message) = (known.detector)(&detector) {
                    notes.fault(&at.key("regex"), message);
                }
                own.custom.push(detector);
            }
            (None, Some(path)) => {
                if !raw.context.is_empty() {
                    let message =
                        "where a value stands tells what it is: `context` goes with `regex`";
                    notes.fault(&at.key("context"), message);
                }
                match JsonPath::parse(&path) {
                    Ok(path) => own.named.push((entity.into(), path)),
                    Err(message) => notes.fault(&at.key("json_path"), message),
                }
            }
            (Some(_), Some(_)) => notes.fault(&at, "name `regex` or `json_path`, not both"),
            (None, None) => notes.fault(
                &at,
                "say what its values look like, `regex`, or where they stand, `json_path`",
            ),
        }
    }
    own
}

/// Lists of terms, behind `detectors`.
pub(super) fn dictionaries(
    raw: Vec<raw::Dictionary>,
    own: &Own,
    known: &Known<'_>,
    at: &At,
    notes: &mut Notes<'_>,
) -> Vec<Dictionary> {
    let mut taken: BTreeSet<Entity> = known.entities.iter().cloned().collect();
    taken.extend(own.entities.iter().cloned());
    let mut dictionaries = Vec::with_capacity(raw.len());
    for (i, raw) in raw.into_iter().enumerate() {
        let at = at.index(i);
        let entity = Entity::from(raw.entity.as_str());
        if !is_entity(&entity) {
            notes.fault(&at.key("entity"), ENTITY_RULE);
        } else if !taken.insert(entity.clone()) {
            let message = format!("`{entity}` is another detector's name; choose another");
            notes.fault(&at.key("entity"), message);
        }
        let terms = match (raw.terms, raw.file) {
            (Some(terms), None) => {
                for (n, term) in terms.iter().enumerate() {
                    if term.trim().is_empty() {
                        notes.fault(&at.key("terms").index(n), "the term is empty");
                    }
                }
                if terms.is_empty() {
                    notes.fault(&at.key("terms"), "there are no terms");
                }
                TermSource::Here(terms)
            }
            (None, Some(file)) => TermSource::File(notes.existing(&file, &at.key("file"))),
            (Some(_), Some(_)) => {
                notes.fault(&at, "name `terms` or `file`, not both");
                continue;
            }
            (None, None) => {
                notes.fault(&at, "say what the terms are: `terms` or `file`");
                continue;
            }
        };
        dictionaries.push(Dictionary {
            entity,
            terms,
            match_case: raw.match_case,
            inside_words: raw.inside_words,
        });
    }
    dictionaries
}

pub(super) fn groups(
    raw: BTreeMap<String, Vec<String>>,
    vocabulary: &Vocabulary,
    notes: &mut Notes<'_>,
) -> Groups {
    let at = At::root().key("detector_groups");
    let mut groups = Groups::new();
    for (name, members) in raw {
        let at = at.key(&name);
        if !is_name(&name) {
            notes.fault(&at, NAME_RULE);
        } else if vocabulary.entities.contains(name.as_str()) {
            notes.fault(
                &at,
                format!("`{name}` is an entity; choose another name for the group"),
            );
        }
        if members.is_empty() {
            notes.fault(&at, "the group is empty");
        }
        let mut entities = Vec::new();
        for (i, member) in members.iter().enumerate() {
            match vocabulary.entities.get(member.as_str()) {
                Some(entity) => entities.push(entity.clone()),
                None => {
                    let known = vocabulary.entities.iter().map(|entity| &**entity);
                    let message = format!("unknown entity `{member}`: no detector finds it");
                    notes.unknown(&at.index(i), message, member, known);
                }
            }
        }
        groups.insert(name, entities);
    }
    groups
}

fn is_entity(name: &str) -> bool {
    name.len() <= 64
        && name.starts_with(|c: char| c.is_ascii_uppercase())
        && name
            .chars()
            .all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')
}
