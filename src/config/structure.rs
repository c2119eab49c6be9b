//! Does the file have the shape it should? Every departure at once, each in words rather than in schema terms.

use std::sync::LazyLock;

use jsonschema::{
    JsonType, ValidationError, Validator,
    error::{TypeKind, ValidationErrorKind},
    paths::{Location, LocationSegment},
};
use serde_json::Value;

use super::{
    fault::Fault,
    mend::Mended,
    raw,
    tree::{Node, Step, spell},
};
use crate::policy::nearest;

/// Most faults of structure told at once: a file with more is not a configuration with slips in it.
const MAX_FAULTS: usize = 200;

/// The JSON Schema of the file (draft 2020-12), as `docs/schema/config.schema.json` publishes it.
#[must_use]
pub fn json_schema() -> &'static Value {
    static SCHEMA: LazyLock<Value> = LazyLock::new(|| {
        let mut schema = schemars::schema_for!(raw::File).to_value();
        without_null(&mut schema);
        schema
    });
    &SCHEMA
}

/// A key that is left out and a key without a value are not the same: the second is a slip. So `null`, which the
/// derived schema lets stand for "left out", goes.
fn without_null(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            if let Some(Value::Array(types)) = fields.get_mut("type") {
                types.retain(|of| of != "null");
                if let [single] = types.as_slice() {
                    let single = single.clone();
                    fields.insert("type".to_owned(), single);
                }
            }
            if let Some(Value::Array(branches)) = fields.get_mut("anyOf") {
                branches.retain(|branch| branch.get("type").is_none_or(|of| of != "null"));
                if let [Value::Object(single)] = branches.as_mut_slice() {
                    let single = std::mem::take(single);
                    fields.remove("anyOf");
                    fields.extend(single);
                }
            }
            if fields.get("default") == Some(&Value::Null) {
                fields.remove("default");
            }
            fields.values_mut().for_each(without_null);
        }
        Value::Array(items) => items.iter_mut().for_each(without_null),
        _ => {}
    }
}

static VALIDATOR: LazyLock<Result<Validator, String>> =
    LazyLock::new(|| jsonschema::validator_for(json_schema()).map_err(|error| error.to_string()));

/// `value` with stand-ins where its structure is wrong: then what the rest means can still be looked at, and its faults
/// told at once with these.
pub(super) fn mended(value: &Value) -> Option<Mended> {
    Mended::of(value, VALIDATOR.as_ref().ok()?)
}

/// Checks `tree` against the schema.
pub(super) fn faults(tree: &Node, value: &Value) -> Vec<Fault> {
    match &*VALIDATOR {
        Ok(validator) => validator
            .iter_errors(value)
            .flat_map(|error| worded(tree, &error))
            .take(MAX_FAULTS)
            .collect(),
        Err(error) => vec![Fault::new(
            1,
            "",
            format!("the program's own schema is at fault: {error}"),
        )],
    }
}

/// Keys that are no number without a unit.
const DURATIONS: [&str; 5] = ["clock_skew", "expires", "fresh", "max_hold", "window"];

fn worded(tree: &Node, error: &ValidationError<'_>) -> Vec<Fault> {
    let path = steps(error.instance_path());
    let here = |message: String| Fault::new(tree.place(&path).line, &spell(&path), message);
    let one = |fault: Fault| vec![fault];
    match error.kind() {
        ValidationErrorKind::AdditionalProperties { unexpected } => unexpected
            .iter()
            .take(MAX_FAULTS)
            .map(|key| unknown_key(tree, &path, key, error))
            .collect(),
        ValidationErrorKind::Required { property } => {
            let key = property.as_str().unwrap_or_default();
            one(here(format!("`{key}` is missing")))
        }
        ValidationErrorKind::Type { .. }
            if DURATIONS
                .iter()
                .any(|key| path.last() == Some(&Step::Key((*key).to_owned()))) =>
        {
            one(here(
                "not a duration; write a whole number with ms, s, m, h or d, as in `30s`"
                    .to_owned(),
            ))
        }
        ValidationErrorKind::Type { kind } => one(here(wrong_type(kind, error.instance()))),
        ValidationErrorKind::AnyOf { context } | ValidationErrorKind::OneOfNotValid { context } => {
            match meant(context, &path) {
                Some(branch) => branch
                    .iter()
                    .flat_map(|error| worded(tree, error))
                    .collect(),
                None => one(here(alternatives(context, error.instance()))),
            }
        }
        ValidationErrorKind::Enum { options } => {
            one(not_an_option(here, &path, options, error.instance()))
        }
        ValidationErrorKind::MinItems { .. } => one(here(
            "the list is empty; it needs at least one entry".to_owned(),
        )),
        ValidationErrorKind::Minimum { limit } => one(here(format!("must be at least {limit}"))),
        ValidationErrorKind::Maximum { limit } => one(here(format!("must be at most {limit}"))),
        _ => one(here(error.masked_with("the value").to_string())),
    }
}

/// The branch the author was in is the one whose shape the value at `path` has: its faults lie further in, or are about more than the value's
/// type.
fn meant<'b, 'e>(
    branches: &'b [Vec<ValidationError<'e>>],
    path: &[Step],
) -> Option<&'b Vec<ValidationError<'e>>> {
    branches.iter().find(|branch| {
        !branch.is_empty() && branch.iter().all(|error| !of_another_shape(error, path))
    })
}

/// What is wrong further in, where it is known which of several shapes was meant.
pub(super) fn further_in<'b, 'e>(
    error: &'b ValidationError<'e>,
) -> Option<&'b Vec<ValidationError<'e>>> {
    match error.kind() {
        ValidationErrorKind::AnyOf { context } | ValidationErrorKind::OneOfNotValid { context } => {
            meant(context, &steps(error.instance_path()))
        }
        _ => None,
    }
}

pub(super) fn steps(location: &Location) -> Vec<Step> {
    let step = |segment| match segment {
        LocationSegment::Property(key) => Step::Key(key.into_owned()),
        LocationSegment::Index(index) => Step::Index(index),
    };
    location.iter().map(step).collect()
}

/// Keys people look for that are left out on purpose, each with the reason.
const NOT_A_KEY: [(&str, &str, &str); 6] = [
    (
        "credential",
        "query",
        "a credential in the query ends up in access logs and histories; send it in a `header`",
    ),
    (
        "credential",
        "query_param",
        "a credential in the query ends up in access logs and histories; send it in a `header`",
    ),
    (
        "credential",
        "parameter",
        "a credential in the query ends up in access logs and histories; send it in a `header`",
    ),
    (
        "credential",
        "value",
        "a secret does not belong in this file; name a `file` or an `env` variable that holds it",
    ),
    (
        "credential",
        "secret",
        "a secret does not belong in this file; name a `file` or an `env` variable that holds it",
    ),
    (
        "",
        "groups",
        "groups of entities are named under `detector_groups`",
    ),
];

fn unknown_key(tree: &Node, path: &[Step], key: &str, error: &ValidationError<'_>) -> Fault {
    let mut at = path.to_vec();
    at.push(Step::Key(key.to_owned()));
    let line = tree.key_place(&at).line;
    let parent = match path.last() {
        Some(Step::Key(parent)) => parent.as_str(),
        _ => "",
    };
    if let Some((.., reason)) = NOT_A_KEY
        .iter()
        .find(|(of, known, _)| *of == parent && *known == key)
    {
        return Fault::new(
            line,
            &spell(path),
            format!("`{key}` is not a key here: {reason}"),
        );
    }
    let known = known_keys(error);
    Fault::new(line, &spell(path), format!("unknown key `{key}`"))
        .suggest(nearest(key, known.iter().map(String::as_str)))
}

/// The keys of the object whose `additionalProperties` the error is about.
fn known_keys(error: &ValidationError<'_>) -> Vec<String> {
    let schema = json_schema();
    let at = error.schema_path().as_str();
    let object = at
        .rsplit_once('/')
        .and_then(|(object, _)| schema.pointer(object));
    let properties = object
        .and_then(|object| object.get("properties"))
        .and_then(Value::as_object);
    properties
        .map(|properties| properties.keys().cloned().collect())
        .unwrap_or_default()
}

fn of_another_shape(error: &ValidationError<'_>, path: &[Step]) -> bool {
    let here = steps(error.instance_path()) == path;
    match error.kind() {
        ValidationErrorKind::Type { .. } => here,
        ValidationErrorKind::Enum { options } => {
            let same = |option: &Value| {
                std::mem::discriminant(option) == std::mem::discriminant(error.instance().as_ref())
            };
            here && !options
                .as_array()
                .is_some_and(|options| options.iter().any(same))
        }
        _ => false,
    }
}

fn alternatives(context: &[Vec<ValidationError<'_>>], found: &Value) -> String {
    let mut expected: Vec<String> = Vec::new();
    for error in context.iter().flatten() {
        let shape = match error.kind() {
            ValidationErrorKind::Type { kind } => type_names(kind),
            ValidationErrorKind::Enum { options } => listed(options),
            _ => continue,
        };
        if !expected.contains(&shape) {
            expected.push(shape);
        }
    }
    format!(
        "expected {}, found {}",
        expected.join(" or "),
        described(found)
    )
}

fn wrong_type(expected: &TypeKind, found: &Value) -> String {
    let names = type_names(expected);
    let hint = match (expected, found) {
        (TypeKind::Single(JsonType::String), Value::Number(_) | Value::Bool(_)) => {
            "; put it in quotes"
        }
        (TypeKind::Single(JsonType::Boolean), Value::String(text)) if is_yaml_1_1_bool(text) => {
            "; write `true` or `false`"
        }
        _ => "",
    };
    format!("expected {names}, found {}{hint}", described(found))
}

fn is_yaml_1_1_bool(text: &str) -> bool {
    matches!(
        text.to_ascii_lowercase().as_str(),
        "yes" | "no" | "on" | "off" | "y" | "n" | "true" | "false"
    )
}

fn type_names(kind: &TypeKind) -> String {
    let name = |of: JsonType| match of {
        JsonType::Array => "a list",
        JsonType::Boolean => "true or false",
        JsonType::Integer => "a whole number",
        JsonType::Null => "nothing",
        JsonType::Number => "a number",
        JsonType::Object => "a mapping",
        JsonType::String => "text",
    };
    match kind {
        TypeKind::Single(of) => name(*of).to_owned(),
        TypeKind::Multiple(set) => set.iter().map(name).collect::<Vec<_>>().join(" or "),
    }
}

/// The kind of a value, never the value: it may be a secret in the wrong place.
fn described(found: &Value) -> &'static str {
    match found {
        Value::Null => "nothing",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a mapping",
    }
}

fn listed(options: &Value) -> String {
    let options = options.as_array().map(Vec::as_slice).unwrap_or_default();
    options
        .iter()
        .filter_map(Value::as_str)
        .map(|option| format!("`{option}`"))
        .collect::<Vec<_>>()
        .join(", ")
}

fn not_an_option(
    here: impl Fn(String) -> Fault,
    path: &[Step],
    options: &Value,
    found: &Value,
) -> Fault {
    let key = match path.last() {
        Some(Step::Key(key)) => key.as_str(),
        _ => "",
    };
    let found = found.as_str().unwrap_or_default();
    match (key, found) {
        ("operator", "keep_last") => {
            return here("`keep_last` needs a number: `operator: { keep_last: 4 }`".to_owned());
        }
        ("then", "deny") => {
            return here("`deny` needs a reason: `then: { deny: { reason: … } }`".to_owned());
        }
        ("then", "mask") => {
            return here("`mask` needs to know what: `then: { mask: { request: … } }`".to_owned());
        }
        _ => {}
    }
    let words = options.as_array().map(Vec::as_slice).unwrap_or_default();
    here(format!("must be {}", listed(options)))
        .suggest(nearest(found, words.iter().filter_map(Value::as_str)))
}
