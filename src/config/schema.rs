//! What a user's own gRPC messages look like: methods, a descriptor set, fields.

use std::path::PathBuf;

use super::{
    Fault, raw,
    understand::{At, Notes},
};
use crate::{
    dialect::{self, AskedOfSchema, Endpoint, SchemaFault, SchemaPart, Spoken},
    policy::nearest,
};

/// The dialect that needs a schema.
pub(super) const DIALECT: &str = "grpc";

/// A descriptor set, and what is asked of it. That it is there, and has what is asked for, is seen when it is read.
#[derive(Clone, Debug)]
pub struct MessageSchema {
    /// The file.
    pub file: PathBuf,
    /// Paths of fields that name the model in requests.
    pub model: Vec<String>,
    /// Paths of fields that are looked into; all where there are none.
    pub fields: Vec<String>,
    pub(super) places: Places,
}

/// Lines and paths in the configuration.
#[derive(Clone, Debug)]
pub(super) struct Places {
    pub(super) file: (usize, String),
    endpoints: Vec<(usize, String)>,
    model: Vec<(usize, String)>,
    fields: Vec<(usize, String)>,
}

impl MessageSchema {
    /// The dialect by `set`, the file's contents.
    pub(super) fn spoken(&self, set: &[u8], endpoints: &[Endpoint]) -> Result<Spoken, Vec<Fault>> {
        let asked = AskedOfSchema {
            endpoints,
            model: &self.model,
            fields: &self.fields,
        };
        dialect::by_schema(set, &asked).map_err(|faults| {
            let faults = faults.into_iter();
            faults.map(|fault| self.placed(fault, endpoints)).collect()
        })
    }

    fn placed(&self, fault: SchemaFault, asked: &[Endpoint]) -> Fault {
        let Places {
            file,
            endpoints,
            model,
            fields,
        } = &self.places;
        let (place, written) = match fault.part {
            SchemaPart::Set => (None, None),
            SchemaPart::Endpoint(i) => (endpoints.get(i), asked.get(i).map(|asked| asked.name)),
            SchemaPart::Model(i) => (model.get(i), self.model.get(i).map(String::as_str)),
            SchemaPart::Field(i) => (fields.get(i), self.fields.get(i).map(String::as_str)),
        };
        let (line, path) = place.unwrap_or(file);
        let known = fault.known.iter().map(String::as_str);
        let meant = written.and_then(|written| nearest(written, known));
        Fault::new(*line, path, fault.message).suggest(meant)
    }
}

/// The endpoints of a connection whose dialect needs a schema: methods by their full names.
pub(super) fn methods(raw: &[String], at: &At, notes: &mut Notes<'_>) -> Option<Vec<Endpoint>> {
    let mut endpoints: Vec<Endpoint> = Vec::with_capacity(raw.len());
    for (i, name) in raw.iter().enumerate() {
        match dialect::grpc_method(name) {
            Ok(endpoint) if endpoints.contains(&endpoint) => {
                notes.fault(&at.index(i), format!("endpoint `{name}` is listed twice"));
            }
            Ok(endpoint) => endpoints.push(endpoint),
            Err(message) => notes.fault(&at.index(i), message),
        }
    }
    (!endpoints.is_empty()).then_some(endpoints)
}

/// The schema of a connection: there where its dialect needs one, and only there.
pub(super) fn schema(
    raw: &raw::Connection,
    at: &At,
    notes: &mut Notes<'_>,
) -> Option<MessageSchema> {
    let key = at.key("schema");
    let written = match (&raw.schema, raw.dialect == DIALECT) {
        (Some(written), true) => written,
        (None, false) => return None,
        (Some(_), false) => {
            let message =
                "only the dialect `grpc` has a schema to read: the others have theirs built in";
            notes.fault(&key, message);
            return None;
        }
        (None, true) => {
            let message =
                "the dialect `grpc` needs a descriptor set: say where it is under `schema`";
            notes.fault(&at.key("dialect"), message);
            return None;
        }
    };
    let (model, several) = match &written.model {
        None => (Vec::new(), false),
        Some(raw::OneOrMany::One(path)) => (vec![path.clone()], false),
        Some(raw::OneOrMany::Many(paths)) => (paths.clone(), true),
    };
    let fields = raw.fields.clone().unwrap_or_default();
    let model_at = |i| match several {
        true => key.key("model").index(i),
        false => key.key("model"),
    };
    let field_at = |i| at.key("fields").index(i);
    let model_at: Vec<At> = (0..model.len()).map(model_at).collect();
    let field_at: Vec<At> = (0..fields.len()).map(field_at).collect();
    for (path, at) in model
        .iter()
        .zip(&model_at)
        .chain(fields.iter().zip(&field_at))
    {
        if !dialect::is_field_path(path) {
            let message =
                "not a path of fields: write names with dots between, such as `options.model`";
            notes.fault(at, message);
        }
    }
    let endpoints: Vec<At> = (0..raw.endpoints.len())
        .map(|i| at.key("endpoints").index(i))
        .collect();
    let file_at = key.key("file");
    let file = notes.path(&written.file, &file_at);
    let places = |all: &[At]| all.iter().map(|at| notes.written(at)).collect();
    let places = Places {
        endpoints: places(&endpoints),
        model: places(&model_at),
        fields: places(&field_at),
        file: notes.written(&file_at),
    };
    Some(MessageSchema {
        file,
        model,
        fields,
        places,
    })
}
