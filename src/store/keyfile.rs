//! Keys in files of their own, mode 0600: the signing key, with its public half beside it, and the masking key.

use std::{
    fs::{self, OpenOptions},
    io::{ErrorKind, Read, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use aws_lc_rs::rand;
use secrecy::zeroize::Zeroizing;

use super::{KeyFault, StoreError, layout::sync_dir, recover::Previous};
use crate::audit::{
    checkpoint::notes,
    note::{self, SigningKey},
    seal::{AuditorKey, AuditorSecret},
    succession,
};

/// Reads the key in `path`.
///
/// # Errors
/// [`StoreError::Io`], [`StoreError::Key`].
pub fn load(path: &Path) -> Result<SigningKey, StoreError> {
    let text = read_private(path)?;
    text.parse().map_err(|error| StoreError::Key {
        path: path.to_owned(),
        fault: KeyFault::Form(error),
    })
}

/// Longest file that a key is read from, in bytes.
const MAX_KEY_FILE: u64 = 64 * 1024;

/// The text of a file that nobody else can read; it is wiped from memory when let go.
///
/// # Errors
/// [`StoreError::Io`], [`StoreError::Key`] with [`KeyFault::Mode`].
pub fn read_private(path: &Path) -> Result<Zeroizing<String>, StoreError> {
    let file = fs::File::open(path).map_err(StoreError::io(path))?;
    let mode = file
        .metadata()
        .map_err(StoreError::io(path))?
        .permissions()
        .mode()
        & 0o777;
    if mode & 0o077 != 0 {
        return Err(StoreError::Key {
            path: path.to_owned(),
            fault: KeyFault::Mode(mode),
        });
    }
    let mut text = Zeroizing::new(String::new());
    file.take(MAX_KEY_FILE)
        .read_to_string(&mut text)
        .map_err(StoreError::io(path))?;
    Ok(text)
}

/// Writes a new private key in text form to `path`, which must not exist.
///
/// # Errors
/// [`StoreError::Io`].
pub fn write_private(path: &Path, text: &str) -> Result<(), StoreError> {
    write_new(path, 0o600, false, text)?;
    sync_parent(path)
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

/// Draws a new key as [`create`] does, and lets the key in `old` introduce it: the statement, behind those by which `old` was
/// introduced itself, goes to [`introductions_path`].
///
/// # Errors
/// Those of [`load`] and [`create`].
pub fn create_successor(path: &Path, name: &str, old: &Path) -> Result<SigningKey, StoreError> {
    let (before, mut statements) = (load(old)?, introductions(old)?);
    let key = create(path, name)?;
    statements.push(succession::introduce(&before, key.verifier()));
    let text: String = statements.iter().map(|note| format!("{note}\n")).collect();
    write_new(
        &introductions_path(path),
        0o644,
        true,
        text.trim_end_matches('\n'),
    )?;
    sync_parent(path)?;
    Ok(key)
}

/// Where the statements are that introduce the key in `path`: `<path>.introductions`.
#[must_use]
pub fn introductions_path(path: &Path) -> PathBuf {
    let mut file = path.as_os_str().to_owned();
    file.push(".introductions");
    file.into()
}

/// The statements by which keys introduced one another up to the one in `path`; none where it is the first.
///
/// # Errors
/// [`StoreError::Io`].
pub fn introductions(path: &Path) -> Result<Vec<String>, StoreError> {
    let file = introductions_path(path);
    match fs::read_to_string(&file) {
        Ok(text) => Ok(notes(&text).map(str::to_owned).collect()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(StoreError::io(&file)(error)),
    }
}

/// Refuses a key that is not the one that signed the chain before, nor was introduced by it: whoever verifies could not
/// tell it from a stranger's.
///
/// # Errors
/// [`KeyFault::Stranger`].
pub(crate) fn must_follow(
    path: &Path,
    key: &SigningKey,
    introductions: &[String],
    previous: Option<&Previous>,
) -> Result<(), StoreError> {
    let Some(previous) = previous.filter(|previous| !previous.checkpoint.is_empty()) else {
        return Ok(());
    };
    let signers = note::signers(&previous.checkpoint);
    let same = note::open(&previous.checkpoint, &[key.verifier().clone()]).is_ok();
    let leads_here = introductions
        .last()
        .and_then(|last| succession::introduced(last))
        .is_some_and(|last| last == *key.verifier());
    // By name only: signatures are for whoever verifies, who has the old key's public half.
    let mut introducers = introductions.iter().flat_map(|note| note::signers(note));
    if same || (leads_here && introducers.any(|by| signers.contains(&by))) {
        return Ok(());
    }
    Err(StoreError::Key {
        path: path.to_owned(),
        fault: KeyFault::Stranger {
            signer: signers.join(", "),
        },
    })
}

/// Draws a new auditor's key of this name and writes it to `path`, which must not exist, and its public half to
/// [`public_path`].
///
/// # Errors
/// As for [`create`].
pub fn create_auditor(path: &Path, name: &str) -> Result<AuditorKey, StoreError> {
    let fault = |fault| StoreError::Key {
        path: path.to_owned(),
        fault,
    };
    let mut seed = [0; 32];
    rand::fill(&mut seed).map_err(|_| fault(KeyFault::Random))?;
    let key = AuditorSecret::from_seed(name, seed).map_err(|error| fault(error.into()))?;
    write_new(&public_path(path), 0o644, true, &key.public().to_string())?;
    write_new(path, 0o600, false, &key.encode())?;
    sync_parent(path)?;
    Ok(key.public().clone())
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

    #[test]
    fn each_key_carries_the_statements_that_lead_to_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = |n: u32| dir.path().join(format!("{n}.key"));
        let first = create(&path(0), "k").unwrap();
        let second = create_successor(&path(1), "k", &path(0)).unwrap();
        let third = create_successor(&path(2), "k", &path(1)).unwrap();
        assert_eq!(introductions(&path(0)).unwrap(), Vec::<String>::new());
        let statements = introductions(&path(2)).unwrap();
        assert_eq!(statements[..1], introductions(&path(1)).unwrap());
        let trusted = vec![first.verifier().clone()];
        let known = succession::successors(trusted, statements.iter().map(String::as_str));
        let all = [&first, &second, &third].map(|key| key.verifier().clone());
        assert_eq!(known, all);
    }
}
