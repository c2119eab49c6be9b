//! The token that says who asks: from a file, the environment, or the last login.

use std::{
    fs, io,
    io::Write,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use anyhow::Context;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use url::Url;

/// What a login leaves.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Login {
    /// Origin of the gateway that the token is for. It is sent to no other.
    pub(super) gateway: String,
    /// The issuer that gave it.
    pub(super) issuer: String,
    /// The token.
    pub(super) token: String,
}

/// The token for the gateway at `url`, if there is any.
///
/// # Errors
/// Where a file cannot be read.
pub(in crate::cli) fn find(file: Option<&Path>, url: &Url) -> anyhow::Result<Option<SecretString>> {
    choose(file, variable("COUNTERSIGN_TOKEN"), &state_file(), url)
}

/// As [`find`], with what stands in the environment.
pub(super) fn choose(
    file: Option<&Path>,
    variable: Option<String>,
    state: &Path,
    url: &Url,
) -> anyhow::Result<Option<SecretString>> {
    if let Some(file) = file {
        let token = fs::read_to_string(file)
            .with_context(|| format!("`{}` cannot be read", file.display()))?;
        return Ok(Some(SecretString::from(token.trim())));
    }
    if let Some(token) = variable.filter(|token| !token.trim().is_empty()) {
        return Ok(Some(SecretString::from(token.trim())));
    }
    let text = match fs::read(state) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            return Err(error).with_context(|| format!("`{}` cannot be read", state.display()));
        }
    };
    let login: Login = serde_json::from_slice(&text)
        .with_context(|| format!("`{}` is no login: remove it and sign in", state.display()))?;
    let here = login.gateway == url.origin().ascii_serialization();
    Ok(here.then(|| SecretString::from(login.token)))
}

/// Keeps `login`, for its user alone.
///
/// # Errors
/// Where it cannot be written.
pub(super) fn keep(state: &Path, login: &Login) -> anyhow::Result<()> {
    let unwritable = || format!("`{}` cannot be written", state.display());
    let dir = state.parent().with_context(unwritable)?;
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .with_context(unwritable)?;
    // A file of its own first: the one there may be is replaced in one step, and never readable by others in between.
    let fresh = state.with_extension("new");
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(error).with_context(unwritable);
        }
        _ => {}
    }
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&fresh)
        .with_context(unwritable)?;
    let text = SecretString::from(serde_json::to_string(login)?);
    file.write_all(text.expose_secret().as_bytes())
        .and_then(|()| fs::rename(&fresh, state))
        .with_context(unwritable)
}

/// Where the last login is: `countersign/login.json` in the XDG state directory.
pub(super) fn state_file() -> PathBuf {
    let state = variable("XDG_STATE_HOME").map(PathBuf::from);
    let state = state.filter(|dir| dir.is_absolute()).or_else(|| {
        let home = std::env::home_dir()?;
        Some(home.join(".local/state"))
    });
    state.unwrap_or_default().join("countersign/login.json")
}

#[allow(
    clippy::disallowed_methods,
    reason = "a token on the command line would be seen by every process; the state directory is the environment's to say"
)]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}
