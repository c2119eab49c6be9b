//! What messages look like: a schema of the user's own, from a descriptor set.
//!
//! ```text
//! descriptor set -> services -> methods that are open, or what is wrong with them
//!                -> messages -> the field that names the model, the fields that hold text
//! ```
//!
//! Promises: a schema is there whole, or not at all and with every fault at once; a path that is no field is a fault, so that none
//! is left unread, or unnamed, by a slip of the pen. Where no fields are chosen, all that may hold text does.
//!
//! Can miss: what a string means. Ids and roles are text like any other, and what looks like a value in them is masked.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
};

use prost_reflect::{DescriptorPool, FieldDescriptor, Kind, MessageDescriptor, MethodDescriptor};

use super::super::Endpoint;

/// The longest descriptor set in bytes.
pub const MAX_SCHEMA_BYTES: usize = 16 << 20;
/// Most methods that may have been named by configurations since the start.
const MOST_METHODS: usize = 65_536;
/// Longest name of a method, as it stands in a path, in bytes.
const LONGEST_METHOD: usize = 512;
/// How deep fields are looked for to be suggested, and how many.
const SUGGESTED: (usize, usize) = (4, 1024);

/// A method.
#[derive(Clone, Debug)]
pub(super) struct Method {
    pub(super) input: MessageDescriptor,
    pub(super) output: MessageDescriptor,
    /// The path of the field that names the model in a request; empty where the method is about none.
    pub(super) model: String,
    /// Whether a request may have several messages.
    pub(super) asks_often: bool,
    /// Whether an answer may have several messages.
    pub(super) answers_often: bool,
    pub(super) meaning: Meaning,
}

/// What fields mean.
#[derive(Clone, Debug)]
pub(super) enum Meaning {
    /// As the Open Inference Protocol says.
    Kserve,
    /// Those at or below these paths hold text; all do where there are none.
    Own(Arc<[String]>),
}

impl Method {
    pub(super) fn new(method: &MethodDescriptor, model: String, meaning: Meaning) -> Self {
        Self {
            input: method.input(),
            output: method.output(),
            model,
            asks_often: method.is_client_streaming(),
            answers_often: method.is_server_streaming(),
            meaning,
        }
    }
}

impl Meaning {
    /// What the name of a field tells of the text in it: nothing where names of tensors and keys do, or a map's key does.
    pub(super) fn label<'f>(&self, field: &'f FieldDescriptor) -> &'f str {
        match self {
            Self::Own(_) if !field.parent_message().is_map_entry() => field.name(),
            _ => "",
        }
    }
}

/// Whether `path`, a field's with its places in lists, is at or below one of `chosen`; all are where there are none.
pub(super) fn is_chosen(chosen: &[String], path: &str) -> bool {
    let is_under = |above: &String| {
        // Names do not begin with digits, places do.
        let mut names = path
            .split('.')
            .filter(|step| !step.starts_with(|c: char| c.is_ascii_digit()));
        above.split('.').all(|name| names.next() == Some(name))
    };
    chosen.is_empty() || chosen.iter().any(is_under)
}

/// The endpoint that is the method `name`, written `package.Service/Method`. Endpoints are copied for every request, so their
/// names stay in memory to the end of the program, each once.
///
/// # Errors
/// What is wrong with the name, or that there were too many.
pub fn method(name: &str) -> Result<Endpoint, String> {
    // INVARIANT: bounded by `MOST_METHODS`.
    static NAMES: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());
    let well_formed = name
        .split_once('/')
        .is_some_and(|(service, method)| is_path(service) && is_name(method));
    if !well_formed || name.len() > LONGEST_METHOD {
        return Err(format!(
            "`{name}` is no method: write `package.Service/Method`"
        ));
    }
    let path = format!("/{name}");
    let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
    let path = match names.get(&*path) {
        Some(path) => *path,
        None if names.len() >= MOST_METHODS => {
            return Err("too many methods were named since the start: restart".to_owned());
        }
        None => {
            let path: &'static str = path.leak();
            names.insert(path);
            path
        }
    };
    Ok(Endpoint {
        name: path.strip_prefix('/').unwrap_or(path),
        method: "POST",
        path,
    })
}

/// Whether `text` is names of fields with dots between.
#[must_use]
pub fn is_path(text: &str) -> bool {
    text.split('.').all(is_name)
}

fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// What is asked of a descriptor set.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// The methods that are open, as [`method`] makes them.
    pub endpoints: &'a [Endpoint],
    /// Paths of fields that name the model. A method whose request has none of them is about no model.
    pub model: &'a [String],
    /// Paths of fields that are looked into, in requests and answers; all are where there are none.
    pub fields: &'a [String],
}

/// What is wrong with a descriptor set, or with what is asked of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// With which part of it.
    pub part: Part,
    /// One sentence, lower case.
    pub message: String,
    /// What could have been meant; empty where nothing can be said.
    pub known: Vec<String>,
}

/// Which part of what is asked is at fault; a place in its list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The descriptor set itself.
    Set,
    /// A method.
    Endpoint(usize),
    /// A path of a model.
    Model(usize),
    /// A field.
    Field(usize),
}

/// The methods that are open, by their paths.
#[derive(Clone, Debug)]
pub(in crate::dialect) struct Schema(BTreeMap<&'static str, Method>);

impl Schema {
    pub(super) fn method(&self, endpoint: &Endpoint) -> Option<Method> {
        self.0.get(endpoint.path).cloned()
    }

    /// # Errors
    /// Every fault.
    pub(super) fn read(set: &[u8], asked: &Asked<'_>) -> Result<Self, Vec<Fault>> {
        let pool = pool(set).map_err(|message| {
            let (part, known) = (Part::Set, Vec::new());
            vec![Fault {
                part,
                message,
                known,
            }]
        })?;
        let mut faults = Vec::new();
        let mut found = Vec::new();
        for (i, endpoint) in asked.endpoints.iter().enumerate() {
            match find(&pool, endpoint.name) {
                Some(method) => found.push((*endpoint, method)),
                None => faults.push(Fault {
                    part: Part::Endpoint(i),
                    message: format!("the descriptor set has no method `{}`", endpoint.name),
                    known: methods(&pool),
                }),
            }
        }
        // Without all methods a path may be wrong for want of the one that has it.
        if faults.is_empty() {
            faults.extend(strange_models(asked.model, &found));
            faults.extend(strange_fields(asked.fields, &found));
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        let chosen: Arc<[String]> = asked.fields.into();
        let method = |(endpoint, method): (Endpoint, MethodDescriptor)| {
            let mut model = asked.model.iter();
            let model = model.find(|path| names_model(&method, path) == Some(true));
            let model = model.cloned().unwrap_or_default();
            let meaning = Meaning::Own(chosen.clone());
            (endpoint.path, Method::new(&method, model, meaning))
        };
        Ok(Self(found.into_iter().map(method).collect()))
    }
}

fn pool(set: &[u8]) -> Result<DescriptorPool, String> {
    const HOW: &str = "make it with `protoc --include_imports --descriptor_set_out=FILE`";
    if set.len() > MAX_SCHEMA_BYTES {
        return Err("the descriptor set has more than 16 MiB".to_owned());
    }
    let pool = DescriptorPool::decode(set)
        .map_err(|error| format!("not a descriptor set with all its imports ({error}): {HOW}"))?;
    if pool.services().len() == 0 {
        return Err(format!("there is no service in the descriptor set: {HOW}"));
    }
    Ok(pool)
}

fn find(pool: &DescriptorPool, name: &str) -> Option<MethodDescriptor> {
    let (service, name) = name.split_once('/')?;
    let service = pool.get_service_by_name(service)?;
    service.methods().find(|method| method.name() == name)
}

fn methods(pool: &DescriptorPool) -> Vec<String> {
    let services = pool.services();
    let methods = services.flat_map(|service| service.methods().collect::<Vec<_>>());
    let full = |method: MethodDescriptor| {
        let service = method.parent_service().full_name().to_owned();
        format!("{service}/{}", method.name())
    };
    methods.map(full).collect()
}

/// The fields along `path` in `message`.
fn along(message: &MessageDescriptor, path: &str) -> Option<Vec<FieldDescriptor>> {
    let mut fields = Vec::new();
    let mut inside = Some(message.clone());
    for name in path.split('.') {
        let field = inside?.get_field_by_name(name)?;
        inside = field.kind().as_message().cloned();
        fields.push(field);
    }
    Some(fields)
}

/// Whether the field at `path` of the method's request can name a model; `None` where there is none.
fn names_model(method: &MethodDescriptor, path: &str) -> Option<bool> {
    let fields = along(&method.input(), path)?;
    let once = fields
        .iter()
        .all(|field| !field.is_list() && !field.is_map());
    let string = fields.last().map(FieldDescriptor::kind) == Some(Kind::String);
    Some(once && string)
}

fn strange_models(paths: &[String], methods: &[(Endpoint, MethodDescriptor)]) -> Vec<Fault> {
    let mut faults = Vec::new();
    let mut named: BTreeMap<&str, &str> = BTreeMap::new();
    for (i, path) in paths.iter().enumerate() {
        let part = Part::Model(i);
        let mut fault = |message: String, known| {
            faults.push(Fault {
                part,
                message,
                known,
            });
        };
        let mut anywhere = false;
        for (endpoint, method) in methods {
            let Some(can) = names_model(method, path) else {
                continue;
            };
            anywhere = true;
            if !can {
                let what = "must be a string that there is one of";
                let message = format!(
                    "`{path}` of `{}` cannot name a model: it {what}",
                    endpoint.name
                );
                fault(message, Vec::new());
            } else if let Some(other) = named.insert(endpoint.name, path) {
                let message = format!("`{}` has its model in `{other}` already", endpoint.name);
                fault(message, Vec::new());
            }
        }
        if !anywhere {
            let inputs = methods.iter().map(|(_, method)| method.input());
            fault(
                format!("no request of these endpoints has a field `{path}`"),
                fields_of(inputs),
            );
        }
    }
    faults
}

fn strange_fields(paths: &[String], methods: &[(Endpoint, MethodDescriptor)]) -> Vec<Fault> {
    let messages = || {
        methods
            .iter()
            .flat_map(|(_, method)| [method.input(), method.output()])
    };
    let mut faults = Vec::new();
    for (i, path) in paths.iter().enumerate() {
        let found = messages().filter_map(|message| along(&message, path)?.pop());
        let found: Vec<_> = found.collect();
        let message = match found.is_empty() {
            true => format!("no message of these endpoints has a field `{path}`"),
            false if found.iter().any(may_hold_text) => continue,
            false => format!("`{path}` holds no text"),
        };
        faults.push(Fault {
            part: Part::Field(i),
            message,
            known: fields_of(messages()),
        });
    }
    faults
}

fn may_hold_text(field: &FieldDescriptor) -> bool {
    matches!(field.kind(), Kind::String | Kind::Bytes | Kind::Message(_))
}

/// Paths of the fields that may hold text, as far as they are looked for.
fn fields_of(messages: impl Iterator<Item = MessageDescriptor>) -> Vec<String> {
    let mut paths = BTreeSet::new();
    messages.for_each(|message| collect(&message, "", SUGGESTED.0, &mut paths));
    paths.into_iter().collect()
}

fn collect(message: &MessageDescriptor, path: &str, depth: usize, paths: &mut BTreeSet<String>) {
    for field in message.fields().filter(may_hold_text) {
        if paths.len() >= SUGGESTED.1 {
            return;
        }
        let dot = if path.is_empty() { "" } else { "." };
        let own = format!("{path}{dot}{}", field.name());
        if let Some(inside) = field.kind().as_message()
            && depth > 1
        {
            collect(inside, &own, depth - 1, paths);
        }
        paths.insert(own);
    }
}
