//! Secrets in a file or the environment.
//!
//! Promises: what is read can stand in a header as it is; a secret is in memory that is wiped when let go, and neither
//! [`Debug`] nor an error shows any of it.
//! Can miss: copies that the operating system keeps of the process's environment.

use std::{
    fs::File,
    io::{self, Read as _},
    path::PathBuf,
};

use secrecy::{SecretString, zeroize::Zeroizing};

/// The largest secret that is read: 64 KiB.
pub const MAX_SECRET_BYTES: usize = 64 * 1024;

/// Where a secret is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SecretSource {
    /// A regular file (or a link to one, as Kubernetes mounts them).
    File(PathBuf),
    /// An environment variable, as it was when the process started.
    Env(String),
}

/// Why a secret cannot be used. Names the source, never the value.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file cannot be read.
    #[error("cannot read the secret file `{path}`: {cause}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// The path is a directory, a pipe or a device.
    #[error("the secret file `{0}` is not a regular file")]
    NotAFile(PathBuf),
    /// The variable is not set.
    #[error("the environment variable `{0}` for a secret is not set")]
    NotSet(String),
    /// Nothing but a line's end.
    #[error("the secret in {0} is empty")]
    Empty(SecretSource),
    /// Over [`MAX_SECRET_BYTES`].
    #[error("the secret in {0} is larger than 64 KiB")]
    TooLarge(SecretSource),
    /// Not fit for a header: a control character (a line's end inside), a character outside ASCII, or a space at an end.
    #[error("the secret in {0} has characters that cannot stand in a header")]
    NotHeaderSafe(SecretSource),
}

impl std::fmt::Display for SecretSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => write!(f, "the file `{}`", path.display()),
            Self::Env(name) => write!(f, "the environment variable `{name}`"),
        }
    }
}

impl SecretSource {
    /// Reads the secret, without the one line's end that editors leave behind it. Blocks for as long as the disk does.
    ///
    /// # Errors
    /// [`SecretError`], one variant per cause.
    pub fn read(&self) -> Result<SecretString, SecretError> {
        let raw = match self {
            Self::File(path) => read_file(path)?,
            Self::Env(name) => read_env(name)?,
        };
        if raw.len() > MAX_SECRET_BYTES {
            return Err(SecretError::TooLarge(self.clone()));
        }
        let value = raw
            .strip_suffix(b"\r\n")
            .or_else(|| raw.strip_suffix(b"\n"))
            .unwrap_or(&raw);
        if value.is_empty() {
            return Err(SecretError::Empty(self.clone()));
        }
        header_safe(value).ok_or_else(|| SecretError::NotHeaderSafe(self.clone()))
    }
}

/// `value` where it can stand in a header as it is, and is not empty.
pub(super) fn header_safe(value: &[u8]) -> Option<SecretString> {
    // RFC 9110, 5.5, without obs-text: spaces inside are fine, at the ends they would be trimmed by the receiver.
    let ends = [value.first()?, value.last()?];
    if ends.contains(&&b' ') || !value.iter().all(|byte| matches!(byte, b' '..=b'~')) {
        return None;
    }
    Some(SecretString::from(std::str::from_utf8(value).ok()?))
}

fn read_file(path: &PathBuf) -> Result<Zeroizing<Vec<u8>>, SecretError> {
    let unreadable = |cause| SecretError::Unreadable {
        path: path.clone(),
        cause,
    };
    // Asked before opening: opening a pipe would wait for a writer.
    if !std::fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err(SecretError::NotAFile(path.clone()));
    }
    // The room is there from the start: a vector that grows leaves unwiped copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_SECRET_BYTES + 64));
    let file = File::open(path).map_err(unreadable)?;
    file.take(MAX_SECRET_BYTES as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    Ok(bytes)
}

#[allow(
    clippy::disallowed_methods,
    reason = "the operator named this variable in the configuration"
)]
fn read_env(name: &str) -> Result<Zeroizing<Vec<u8>>, SecretError> {
    let value = std::env::var_os(name).ok_or_else(|| SecretError::NotSet(name.to_owned()))?;
    Ok(Zeroizing::new(value.into_encoded_bytes()))
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::*;

    fn file(contents: &[u8]) -> (tempfile::TempDir, SecretSource) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        std::fs::write(&path, contents).unwrap();
        (dir, SecretSource::File(path))
    }

    #[test]
    fn one_line_end_is_trimmed_and_nothing_else() {
        for (contents, expected) in [
            (&b"sk-1"[..], "sk-1"),
            (b"sk-1\n", "sk-1"),
            (b"sk-1\r\n", "sk-1"),
            (b"Token a b", "Token a b"),
        ] {
            let (_dir, source) = file(contents);
            assert_eq!(source.read().unwrap().expose_secret(), expected);
        }
    }

    #[test]
    fn what_cannot_stand_in_a_header_is_refused() {
        let bad: [&[u8]; 8] = [
            b"a\n\n",
            b"a\nx-evil: 1",
            b"a\r",
            b"a\0b",
            b" a",
            b"a ",
            b"caf\xc3\xa9",
            b"\xff",
        ];
        for contents in bad {
            let (_dir, source) = file(contents);
            assert!(
                matches!(source.read(), Err(SecretError::NotHeaderSafe(_))),
                "{contents:?}"
            );
        }
    }

    #[test]
    fn empty_large_missing_and_odd_sources_are_told_apart() {
        for contents in [&b""[..], b"\n", b"\r\n"] {
            let (_dir, source) = file(contents);
            assert!(matches!(source.read(), Err(SecretError::Empty(_))));
        }
        let (_dir, source) = file(&vec![b'a'; MAX_SECRET_BYTES]);
        assert!(source.read().is_ok());
        let (_dir, source) = file(&vec![b'a'; MAX_SECRET_BYTES + 1]);
        assert!(matches!(source.read(), Err(SecretError::TooLarge(_))));
        let directory = tempfile::tempdir().unwrap();
        let source = SecretSource::File(directory.path().to_owned());
        assert!(matches!(source.read(), Err(SecretError::NotAFile(_))));
        let source = SecretSource::File(directory.path().join("none"));
        assert!(matches!(source.read(), Err(SecretError::Unreadable { .. })));
        let source = SecretSource::Env("COUNTERSIGN_TEST_NO_SUCH_VARIABLE".to_owned());
        assert!(matches!(source.read(), Err(SecretError::NotSet(_))));
        assert!(SecretSource::Env("PATH".to_owned()).read().is_ok());
    }

    #[test]
    fn nothing_printed_shows_the_value() {
        let (_dir, source) = file(b"sk-canary-\x01");
        let error = source.read().unwrap_err();
        let (_dir, source) = file(b"sk-canary-2");
        let printed = format!("{error} {error:?} {:?}", source.read().unwrap());
        assert!(!printed.contains("canary"), "{printed}");
    }
}
