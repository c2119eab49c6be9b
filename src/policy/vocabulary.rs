//! What an expression may name: the variables, their fields and types, and the values they have for one request.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    sync::Arc,
};

use cel::{
    Context, Value,
    objects::{Key, Map},
};

use super::Request;
use crate::{
    detect::Entity,
    identity::{AuthMethod, Grant, Principal},
};

/// The names that depend on the configuration rather than on the language: entities and allow-listed claims.
#[derive(Clone, Debug, Default)]
pub struct Vocabulary {
    /// Every entity a detector of the catalog can find: the keys of `findings`.
    pub entities: BTreeSet<Entity>,
    /// Every claim that some issuer's `claims` lists: the keys of `principal.claims`.
    pub claims: BTreeSet<String>,
}

/// The type of an expression. `Dyn` is what only the request can tell, such as the value of a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Type {
    Bool,
    Int,
    Uint,
    Double,
    String,
    Bytes,
    Null,
    Dyn,
    List(Box<Type>),
    Record(Record),
    /// `principal.claims`: keys from the configuration, values of any type.
    Claims,
    /// `findings`: entity to count; what was not found counts 0.
    Findings,
}

/// A variable with a fixed set of fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Record {
    Principal,
    Request,
    Connection,
    Time,
    /// `principal.grant`: there only where the caller came with one.
    Grant,
}

/// The variables an expression starts from.
pub(super) const VARIABLES: [&str; 6] = [
    "principal",
    "request",
    "findings",
    "connection",
    "risk",
    "time",
];

/// What some conditions name of the variables: a field, or (by an empty name) the whole.
#[derive(Clone, Debug, Default)]
pub(super) struct Named(BTreeSet<(&'static str, &'static str)>);

impl Named {
    pub(super) fn add(&mut self, name: &str, field: Option<&str>) {
        let Some(known) = VARIABLES.iter().find(|known| **known == name) else {
            return;
        };
        let fields = match variable(known) {
            Some(Type::Record(record)) => record.fields(),
            _ => &[],
        };
        let field = fields.iter().find(|known| Some(**known) == field);
        self.0.insert((known, field.copied().unwrap_or_default()));
    }

    pub(super) fn extend(&mut self, others: &Self) {
        self.0.extend(&others.0);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The variables, each once.
    pub(super) fn variables(&self) -> impl Iterator<Item = &'static str> {
        let names = |name: &&str| self.0.iter().any(|(variable, _)| variable == name);
        VARIABLES.into_iter().filter(names)
    }

    /// The fields of a variable that are named, with their values.
    fn record(&self, variable: &str, fields: &[(&str, &dyn Fn() -> Value)]) -> Value {
        let named = |field: &str| {
            let mut of = self.0.iter().filter(|(name, _)| *name == variable);
            of.any(|(_, named)| named.is_empty() || *named == field)
        };
        let named = fields.iter().filter(|(field, _)| named(field));
        map(named.map(|(field, value)| (*field, value())))
    }
}

/// The type of the variable `name`.
pub(super) fn variable(name: &str) -> Option<Type> {
    Some(match name {
        "principal" => Type::Record(Record::Principal),
        "request" => Type::Record(Record::Request),
        "findings" => Type::Findings,
        "connection" => Type::Record(Record::Connection),
        "risk" => Type::Int,
        "time" => Type::Record(Record::Time),
        _ => return None,
    })
}

impl Record {
    pub(super) fn name(self) -> &'static str {
        match self {
            Record::Principal => "principal",
            Record::Request => "request",
            Record::Connection => "connection",
            Record::Time => "time",
            Record::Grant => "principal.grant",
        }
    }

    pub(super) fn fields(self) -> &'static [&'static str] {
        match self {
            Record::Principal => &["issuer", "subject", "groups", "claims", "grant"],
            Record::Request => &[
                "method",
                "authority",
                "path",
                "endpoint",
                "model",
                "stream",
                "tools",
                "body_bytes",
            ],
            Record::Connection => &["name", "dialect"],
            Record::Time => &["hour", "minute", "weekday"],
            Record::Grant => &["id", "max_uses", "approved"],
        }
    }

    pub(super) fn field(self, name: &str) -> Option<Type> {
        Some(match (self, name) {
            (Record::Principal, "groups") => Type::List(Box::new(Type::String)),
            (Record::Principal, "claims") => Type::Claims,
            (Record::Principal, "grant") => Type::Record(Record::Grant),
            (Record::Grant, "max_uses") => Type::Int,
            (Record::Grant, "approved") => Type::Bool,
            (Record::Request, "stream" | "tools") => Type::Bool,
            (Record::Request, "body_bytes") => Type::Int,
            (Record::Time, "hour" | "minute" | "weekday") => Type::Int,
            (record, name) if record.fields().contains(&name) => Type::String,
            _ => return None,
        })
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Type::Bool => "bool",
            Type::Int => "int",
            Type::Uint => "uint",
            Type::Double => "double",
            Type::String => "string",
            Type::Bytes => "bytes",
            Type::Null => "null",
            Type::Dyn => "a value known only from the request",
            Type::List(of) => return write!(f, "list of {of}"),
            Type::Record(_) | Type::Claims | Type::Findings => "map",
        })
    }
}

/// Puts what is `named` of the variables for `request` into `context`; what no condition names costs nothing. `findings` holds
/// what was found at least once. Where the time is not known, there is no `time`: a condition that asks for it denies.
pub(super) fn bind(context: &mut Context<'_, '_>, request: &Request<'_>, named: &Named) {
    for variable in named.variables() {
        if let Some(value) = value(variable, request, named) {
            context.add_variable_from_value(variable, value);
        }
    }
}

fn value(variable: &str, request: &Request<'_>, named: &Named) -> Option<Value> {
    let record = |fields: &[(&str, &dyn Fn() -> Value)]| named.record(variable, fields);
    Some(match variable {
        "principal" => principal(request.principal, named),
        "request" => {
            let call = request.call;
            let body_bytes = i64::try_from(call.body_bytes).unwrap_or(i64::MAX);
            record(&[
                ("method", &|| text(&call.method)),
                ("authority", &|| text(&call.authority)),
                ("path", &|| text(&call.path)),
                ("endpoint", &|| text(&call.endpoint)),
                ("model", &|| text(&call.model)),
                ("stream", &|| Value::Bool(call.stream)),
                ("tools", &|| Value::Bool(call.tools)),
                ("body_bytes", &|| Value::Int(body_bytes)),
            ])
        }
        "findings" => {
            let found = request.findings.iter().filter(|(_, count)| **count > 0);
            let count = |count: u64| Value::Int(i64::try_from(count).unwrap_or(i64::MAX));
            map(found.map(|(entity, found)| (&**entity, count(*found))))
        }
        "connection" => record(&[
            ("name", &|| text(request.connection)),
            ("dialect", &|| text(request.dialect)),
        ]),
        "risk" => Value::Int(request.risk),
        "time" => {
            let time = request.time?;
            record(&[
                ("hour", &|| Value::Int(time.hour.into())),
                ("minute", &|| Value::Int(time.minute.into())),
                ("weekday", &|| Value::Int(time.weekday.into())),
            ])
        }
        _ => return None,
    })
}

fn principal(principal: &Principal, named: &Named) -> Value {
    let groups = || Value::List(Arc::new(principal.groups.iter().map(text).collect()));
    let claims = || {
        let claims = principal.claims.iter();
        map(claims.map(|(name, value)| (name.as_str(), json(value))))
    };
    let (issuer, subject) = (|| text(&principal.issuer), || text(&principal.subject));
    let mut fields: Vec<(&str, &dyn Fn() -> Value)> = vec![
        ("issuer", &issuer),
        ("subject", &subject),
        ("groups", &groups),
        ("claims", &claims),
    ];
    let held = principal.grant.as_deref();
    let grant = || held.map_or(Value::Null, grant_held);
    // There only where the caller came with one.
    if held.is_some() {
        fields.push(("grant", &grant));
    }
    named.record("principal", &fields)
}

fn grant_held(grant: &Grant) -> Value {
    map([
        ("id", text(&grant.id)),
        // 0 where they are not counted.
        (
            "max_uses",
            Value::Int(grant.scope.max_uses.unwrap_or(0).into()),
        ),
        ("approved", Value::Bool(grant.approval.is_some())),
    ])
}

fn text(text: impl AsRef<str>) -> Value {
    Value::String(Arc::new(text.as_ref().to_owned()))
}

fn map<'a>(entries: impl IntoIterator<Item = (&'a str, Value)>) -> Value {
    let entries = entries
        .into_iter()
        .map(|(name, value)| (Key::String(Arc::new(name.to_owned())), value));
    Value::Map(Map {
        map: Arc::new(entries.collect::<HashMap<_, _>>()),
    })
}

/// A claim as the language sees it. An integer beyond 64 bits was a float to the JSON parser already.
fn json(value: &serde_json::Value) -> Value {
    match value {
        serde_json::Value::Null => Value::Null,
        serde_json::Value::Bool(value) => Value::Bool(*value),
        serde_json::Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(int), _) => Value::Int(int),
            (None, Some(uint)) => Value::UInt(uint),
            (None, None) => number.as_f64().map_or(Value::Null, Value::Float),
        },
        serde_json::Value::String(value) => text(value),
        serde_json::Value::Array(values) => {
            Value::List(Arc::new(values.iter().map(json).collect()))
        }
        serde_json::Value::Object(fields) => map(fields
            .iter()
            .map(|(name, value)| (name.as_str(), json(value)))),
    }
}

/// A caller of whom nothing is claimed.
pub(super) fn stranger() -> Principal {
    Principal {
        issuer: String::new(),
        subject: String::new(),
        audiences: Vec::new(),
        groups: vec![String::new()],
        claims: BTreeMap::new(),
        auth_method: AuthMethod::OidcJwt,
        token_hash: [0; 32],
        expires_at: jiff::Timestamp::UNIX_EPOCH,
        authenticated_at: None,
        issued_at: None,
        also: BTreeSet::new(),
        person_missing: false,
        grant: None,
        bound: crate::identity::Bound::default(),
    }
}
