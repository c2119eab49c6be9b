//! The part of the configuration that touches files and the environment.

use std::{fs::File, io::Read, path::Path};

use super::{
    Config, Connection, CustomDetector, Fault, Faults, Known, Reference, SecretSource,
    fault::in_order, tree::MAX_BYTES,
};
use crate::{
    detect::{Catalog, Custom, DetectorError, Entity},
    dialect::{self, MAX_SCHEMA_BYTES, Spoken},
};

/// Why a file could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// It could not be read.
    #[error("cannot read `{path}`: {error}")]
    Unreadable {
        /// The file's name.
        path: String,
        /// What the system said.
        error: std::io::Error,
    },
    /// It was read, and is faulty.
    #[error(transparent)]
    Faulty(#[from] Faults),
}

/// Reads and understands the file at `path`.
///
/// # Errors
/// [`LoadError`] where it cannot be read as UTF-8 text, or is faulty.
pub fn load(path: &Path, known: &Known<'_>) -> Result<Config, LoadError> {
    let name = path.display().to_string();
    let unreadable = |error| LoadError::Unreadable {
        path: name.clone(),
        error,
    };
    let mut text = String::new();
    let file = File::open(path).map_err(unreadable)?;
    // One byte more than is allowed, so that the bound is seen and told rather than the file silently cut.
    file.take(MAX_BYTES as u64 + 1)
        .read_to_string(&mut text)
        .map_err(unreadable)?;
    Ok(Config::parse(&text, &name, known)?)
}

/// As [`load`], with the program's own dialects and detectors.
///
/// # Errors
/// As for [`load`].
pub fn load_with_builtins(path: &Path) -> Result<Config, LoadError> {
    with_builtins(|known| load(path, known))
}

/// Lends `f` what the program itself knows.
pub fn with_builtins<T>(f: impl FnOnce(&Known<'_>) -> T) -> T {
    let entities: Vec<Entity> = match Catalog::builtin() {
        Ok(catalog) => catalog.entities().iter().cloned().collect(),
        Err(_) => Vec::new(),
    };
    let detector = |custom: &CustomDetector| {
        let custom = Custom {
            entity: custom.entity.to_string(),
            regex: custom.regex.clone(),
            context: custom.context.clone(),
        };
        let built = Catalog::with_custom(&[custom]);
        let said = |faults: Vec<(usize, DetectorError)>| {
            let faults: Vec<_> = faults.iter().map(|(_, fault)| fault.to_string()).collect();
            faults.join("; ")
        };
        built.map(drop).map_err(said)
    };
    f(&Known {
        dialects: dialect::all(),
        entities: &entities,
        detector: &detector,
    })
}

impl Connection {
    /// The dialect it speaks: where that needs a schema, by the file as it is now.
    ///
    /// # Errors
    /// Every fault of the schema; blocks on the disk.
    pub fn spoken(&self) -> Result<Spoken, Vec<Fault>> {
        let Some(schema) = &self.schema else {
            return Ok(Spoken::BuiltIn(self.dialect));
        };
        let set = bytes(&schema.file).map_err(|error| {
            let (line, path) = &schema.places.file;
            let message = format!("cannot read `{}`: {error}", schema.file.display());
            vec![Fault::new(*line, path, message)]
        })?;
        schema.spoken(&set, &self.route.endpoints)
    }
}

/// A descriptor set, and one byte more than it may have, so that a longer one is refused rather than cut.
fn bytes(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = File::open(path)?;
    file.take(MAX_SCHEMA_BYTES as u64 + 1)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

impl Config {
    /// Files and environment variables the file names that are not there now, as faults with their lines.
    /// A secret's value is never looked at: a file is opened and closed, a variable is asked for by name. What messages look
    /// like is read, and what is wrong with that are faults too.
    #[must_use]
    #[allow(
        clippy::disallowed_methods,
        reason = "this is the configuration asking whether a variable it names is there"
    )]
    pub fn missing(&self) -> Vec<Fault> {
        let missing = |reference: &Reference| {
            let message = match &reference.source {
                SecretSource::File(path) => match File::open(path) {
                    Ok(_) => return None,
                    Err(error) => format!("cannot open `{}`: {error}", path.display()),
                },
                SecretSource::Env(name) if std::env::var_os(name).is_some() => return None,
                SecretSource::Env(name) => format!("the environment variable `{name}` is not set"),
            };
            Some(Fault::new(reference.line, &reference.path, message))
        };
        let mut missing: Vec<_> = self.references.iter().filter_map(missing).collect();
        let schemas = self.connections.iter().map(Connection::spoken);
        missing.extend(schemas.filter_map(Result::err).flatten());
        in_order(missing)
    }
}
