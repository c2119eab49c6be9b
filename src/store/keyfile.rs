//! Keys in files of their own, mode 0600: the signing key, with its public half beside it, and the masking key.

use std::{
    fs::{self, OpenOptions},
    io::{ErrorKind, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use aws_lc_rs::rand;

use super::{KeyFault, StoreError, layout::sync_dir};
use crate::audit::note::SigningKey;

/// Reads the key in `path`.
///
/// # Errors
/// [`StoreError::Io`], [`StoreError::Key`].
pub fn load(path: &Path) -> Result<SigningKey, StoreError> {
    let key = |fault| StoreError::Key {
        path: path.to_owned(),
        fault,
    };
    let mode = fs::metadata(path)
        .map_err(StoreError::io(path))?
        .permissions()
        .mode()
        & 0o777;
    if mode & 0o077 != 0 {
        return Err(key(KeyFault::Mode(mode)));
    }
    let text = fs::read_to_string(path).map_err(StoreError::io(path))?;
    text.parse().map_err(|error| key(KeyFault::Form(error)))
}

/// Draws a new key of this name and writes it to `path`, which must not exist, and its public half to
/// [`public_path`].
///
/// # Errors
/// [`StoreError::Io`] where the file exists or cannot be written; [`StoreError::Key`] for a bad name.
pub fn create(path: &Path, name: &str) -> Result<SigningKey, StoreError> {
    let fault = |fault| StoreError::Key {
        path: path.to_owned(),
        fault,
    };
    let mut seed = [0; 32];
    rand::fill(&mut seed).map_err(|_| fault(KeyFault::Random))?;
    let text = SigningKey::encode(name, &seed).map_err(|error| fault(KeyFault::Form(error)))?;
    let key = SigningKey::from_seed(name, &seed).map_err(|error| fault(KeyFault::Form(error)))?;
    // The public half first: a crash between the two leaves no key that nobody can check.
    write_new(&public_path(path), 0o644, true, &key.verifier().to_string())?;
    write_new(path, 0o600, false, &text)?;
    sync_parent(path)?;
    Ok(key)
}

fn sync_parent(path: &Path) -> Result<(), StoreError> {
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    sync_dir(parent).map_err(StoreError::io(parent))
}

/// Draws 256 random bits and writes them to `path`, which must not exist, as 64 hexadecimal digits.
///
/// # Errors
/// As for [`create`].
pub fn create_secret(path: &Path) -> Result<(), StoreError> {
    let mut seed = [0; 32];
    rand::fill(&mut seed).map_err(|_| StoreError::Key {
        path: path.to_owned(),
        fault: KeyFault::Random,
    })?;
    write_new(path, 0o600, false, &hex::encode(seed))?;
    sync_parent(path)
}

/// The key in `path`, drawn anew where there is none.
///
/// # Errors
/// Those of [`load`] and [`create`].
pub fn load_or_create(path: &Path, name: &str) -> Result<SigningKey, StoreError> {
    match load(path) {
        Err(StoreError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {
            create(path, name)
        }
        other => other,
    }
}

/// Where the public half of the key in `path` is written: `<path>.pub`.
#[must_use]
pub fn public_path(path: &Path) -> PathBuf {
    let mut public = path.as_os_str().to_owned();
    public.push(".pub");
    public.into()
}

fn write_new(path: &Path, mode: u32, replace: bool, text: &str) -> Result<(), StoreError> {
    let mut options = OpenOptions::new();
    options.write(true).mode(mode);
    if replace {
        options.create(true).truncate(true);
    } else {
        options.create_new(true);
    }
    let mut file = options.open(path).map_err(StoreError::io(path))?;
    writeln!(file, "{text}")
        .and_then(|()| file.sync_all())
        .map_err(StoreError::io(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_key_is_private_reads_back_and_is_never_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("signing.key");
        let key = load_or_create(&path, "countersign/demo/a").unwrap();
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert_eq!(
            load_or_create(&path, "another/name").unwrap().verifier(),
            key.verifier()
        );
        assert_eq!(
            fs::read_to_string(public_path(&path)).unwrap().trim(),
            key.verifier().to_string()
        );
        assert!(matches!(create(&path, "x"), Err(StoreError::Io { .. })));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(
            load(&path),
            Err(StoreError::Key {
                fault: KeyFault::Mode(0o640),
                ..
            })
        ));
    }
}
