//! A file of the wrong shape made one of the right shape, so that what the rest of it means can be looked at too.
//!
//! Promises: what is put in place of a departure is never taken for the author's: faults at its place, and those that
//! may only follow from it, are not told. Never: makes a configuration that is used; there is a fault already.
//! Can miss: departures behind more than [`ROUNDS`] others on the same way; then only the structure's faults are told.

use jsonschema::{ValidationError, Validator, error::ValidationErrorKind};
use serde_json::{Map, Value};

use super::{
    fault::Fault,
    structure::{further_in, json_schema, steps},
    tree::{Step, spell},
};

/// How often what came out is looked at again.
const ROUNDS: usize = 8;
/// Text that no file holds, as YAML has no such character.
const NOBODY: &str = "\0";
/// Sections whose names conditions and masks use.
const VOCABULARY: [&str; 4] = ["identity", "detectors", "dictionaries", "detector_groups"];

/// A value of the right shape, and where it was mended.
pub(super) struct Mended {
    pub(super) value: Value,
    places: Vec<Vec<Step>>,
}

impl Mended {
    /// `value` with stand-ins for all that does not fit the schema, if that can be done.
    pub(super) fn of(value: &Value, validator: &Validator) -> Option<Self> {
        let (mut value, mut places) = (value.clone(), Vec::new());
        for _ in 0..ROUNDS {
            let mut next = value.clone();
            for error in validator.iter_errors(&value) {
                mend(&mut next, &error, &mut places)?;
            }
            if next == value {
                return Some(Self { value, places });
            }
            value = next;
        }
        None
    }

    /// Whether a fault of meaning is the author's.
    pub(super) fn is_known(&self, fault: &Fault) -> bool {
        let path = fault.path.as_str();
        let uses_words = is_within(path, "policies") || is_within(path, "detector_groups");
        let names_policy = path.starts_with("connections[") && path.contains(".policies[");
        !self.places.iter().any(|place| {
            let words = place.first().is_some_and(
                |step| matches!(step, Step::Key(section) if VOCABULARY.contains(&section.as_str())),
            );
            let policies =
                matches!(place.first(), Some(Step::Key(section)) if section == "policies");
            is_within(path, &spell(place)) || (words && uses_words) || (policies && names_policy)
        })
    }
}

/// Whether a spelled path is at this place or inside it.
fn is_within(path: &str, place: &str) -> bool {
    path.strip_prefix(place)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

/// Takes out what the error is about, or puts a stand-in there.
fn mend(value: &mut Value, error: &ValidationError<'_>, places: &mut Vec<Vec<Step>>) -> Option<()> {
    if let Some(faults) = further_in(error) {
        return faults
            .iter()
            .try_for_each(|error| mend(value, error, places));
    }
    let mut path = steps(error.instance_path());
    match error.kind() {
        ValidationErrorKind::AdditionalProperties { unexpected } => {
            let fields = at(value, &path)?.as_object_mut()?;
            unexpected.iter().for_each(|key| drop(fields.remove(key)));
            return Some(());
        }
        ValidationErrorKind::Required { property } => {
            path.push(Step::Key(property.as_str()?.to_owned()));
        }
        _ => {}
    }
    let (last, parent) = path.split_last()?;
    let schema = schema_at(&path)?;
    let optional = matches!(last, Step::Key(key) if !is_required(schema_at(parent)?, key));
    match (at(value, parent)?, last) {
        (Value::Object(fields), Step::Key(key)) if optional && is_scalar(schema) => {
            fields.remove(key);
        }
        (Value::Object(fields), Step::Key(key)) => {
            fields.insert(key.clone(), stand_in(schema));
        }
        (Value::Array(items), Step::Index(index)) => *items.get_mut(*index)? = stand_in(schema),
        // What is around it is mended first.
        _ => {}
    }
    places.push(path);
    Some(())
}

fn at<'v>(value: &'v mut Value, path: &[Step]) -> Option<&'v mut Value> {
    path.iter().try_fold(value, |value, step| match step {
        Step::Key(key) => value.get_mut(key),
        Step::Index(index) => value.get_mut(index),
    })
}

/// The schema of what is at a path.
fn schema_at(path: &[Step]) -> Option<&'static Value> {
    path.iter()
        .try_fold(resolved(json_schema()), |schema, step| {
            let of = |schema: &'static Value| match step {
                Step::Key(key) => schema
                    .get("properties")
                    .and_then(|properties| properties.get(key))
                    .or_else(|| {
                        schema
                            .get("additionalProperties")
                            .filter(|of| of.is_object())
                    }),
                Step::Index(_) => schema.get("items"),
            };
            let branches = schema.get("anyOf").and_then(Value::as_array);
            let mut branches = branches.into_iter().flatten().map(resolved);
            of(schema).or_else(|| branches.find_map(of)).map(resolved)
        })
}

fn resolved(mut schema: &'static Value) -> &'static Value {
    while let Some(name) = schema.get("$ref").and_then(Value::as_str)
        && let Some(named) = json_schema().pointer(name.trim_start_matches('#'))
    {
        schema = named;
    }
    schema
}

/// Whether the shape of `schema` that has `key` must have it.
fn is_required(schema: &'static Value, key: &str) -> bool {
    let branches = schema.get("anyOf").and_then(Value::as_array);
    let mut shapes = branches.into_iter().flatten().map(resolved).chain([schema]);
    let of_key = shapes.find(|shape| {
        let properties = shape.get("properties");
        properties.is_some_and(|properties| properties.get(key).is_some())
    });
    let required = of_key.and_then(|shape| shape.get("required"));
    required
        .and_then(Value::as_array)
        .is_some_and(|keys| keys.iter().any(|required| required == key))
}

/// A number, a switch or a choice: where it may be left out its default does.
fn is_scalar(schema: &'static Value) -> bool {
    let first = first(schema);
    let of = |name| first.get("type").is_some_and(|of| of == name);
    first.get("enum").is_some() || of("integer") || of("number") || of("boolean")
}

/// The first of the shapes that are possible.
fn first(schema: &'static Value) -> &'static Value {
    let branch = schema.get("anyOf").and_then(|branches| branches.get(0));
    branch.map_or(schema, |branch| first(resolved(branch)))
}

/// The smallest value of the right shape.
fn stand_in(schema: &'static Value) -> Value {
    let schema = first(resolved(schema));
    if let Some(option) = schema.get("enum").and_then(|options| options.get(0)) {
        return option.clone();
    }
    let field = |key: &str| schema.get(key);
    match field("type").and_then(Value::as_str) {
        Some("object") => {
            let required = field("required").and_then(Value::as_array);
            let keys = required.into_iter().flatten().filter_map(Value::as_str);
            let fields: Map<String, Value> = keys
                .filter_map(|key| Some((key.to_owned(), stand_in(field("properties")?.get(key)?))))
                .collect();
            // A mapping with nothing in it may mean everything, such as all hosts.
            let hosts = field("properties").and_then(|properties| properties.get("hosts"));
            match hosts {
                Some(_) => serde_json::json!({ "hosts": [NOBODY] }),
                None => fields.into(),
            }
        }
        Some("array") => match (field("minItems"), field("items")) {
            (Some(_), Some(items)) => vec![stand_in(items)].into(),
            _ => Value::Array(Vec::new()),
        },
        Some("integer" | "number") => field("minimum").cloned().unwrap_or_else(|| 0.into()),
        Some("boolean") => false.into(),
        _ => NOBODY.into(),
    }
}
