//! Takes whole files of sealed payloads off the disk, or to another place first.

use std::{
    fs::{self, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use super::{HEAD, MAGIC, head};
use crate::{
    audit::seal::FrameKind,
    store::{
        layout::{create_private, sync_dir},
        prune::write_whole,
    },
};

/// Copies `files` into directory `to`, which is made where it is missing. Durable on return; doing it again does the rest. Where
/// `to` has a copy from before an erasure, its keys are destroyed too.
///
/// # Errors
/// Those of the file system; [`io::ErrorKind::AlreadyExists`] where `to` holds another file of such a name, which stays.
pub(crate) fn copy(files: &[PathBuf], to: &Path) -> io::Result<()> {
    create_durably(to, sync_dir)?;
    for file in files {
        let (into, bytes) = (
            to.join(file.file_name().unwrap_or_default()),
            fs::read(file)?,
        );
        match fs::read(&into) {
            Ok(there) if there == bytes => continue,
            Ok(there) if is_before_erasures(&there, &bytes)? => {
                // In its place: a fresh file would leave the keys where the old one was.
                let copy = OpenOptions::new().write(true).open(&into)?;
                copy.write_all_at(&bytes, 0)?;
                copy.sync_all()?;
                continue;
            }
            Ok(_) => {
                let what = format!("`{}` is there already and is another", into.display());
                return Err(io::Error::new(io::ErrorKind::AlreadyExists, what));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        write_whole(&into, &bytes)?;
    }
    sync_dir(to)
}

/// Makes a directory and what is missing above it, all on disk on return.
fn create_durably(dir: &Path, mut sync: impl FnMut(&Path) -> io::Result<()>) -> io::Result<()> {
    let fresh = dir.ancestors().take_while(|above| !above.exists()).count();
    create_private(dir)?;
    for above in dir.ancestors().skip(1).take(fresh) {
        let above = match above.as_os_str().is_empty() {
            true => Path::new("."),
            false => above,
        };
        sync(above)?;
    }
    Ok(())
}

/// Whether a file was as `there` is before the erasures in it: same length, and different only in keys that are destroyed now.
fn is_before_erasures(there: &[u8], now: &[u8]) -> io::Result<bool> {
    if there.len() != now.len() {
        return Ok(false);
    }
    let (end, mut at, mut same) = (now.len() as u64, 0, 0);
    let rest = |at: usize| now.get(at..).unwrap_or_default();
    at += MAGIC.len();
    while let Some(seen) = head(&mut rest(at), at as u64, end)? {
        let past = at + HEAD + seen.session.len() + seen.length + 4;
        if seen.kind == FrameKind::Erased {
            let before = head(&mut there.get(at..).unwrap_or_default(), at as u64, end)?;
            let kept = before.is_some_and(|before| {
                (&before.session, before.length) == (&seen.session, seen.length)
                    && matches!(before.kind, FrameKind::Keys | FrameKind::Erased)
            });
            if !kept || there.get(same..at) != now.get(same..at) {
                return Ok(false);
            }
            same = past;
        }
        at = past;
    }
    Ok(there.get(same..) == now.get(same..))
}

/// Deletes `files` of directory `dir`, durably.
///
/// # Errors
/// Those of the file system; doing it again does the rest.
pub(crate) fn remove(files: &[PathBuf], dir: &Path) -> io::Result<()> {
    for file in files {
        fs::remove_file(file)?;
    }
    sync_dir(dir)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testing;

    #[test]
    fn a_directory_that_is_made_is_on_disk_in_every_one_above_that_was_changed_by_it() {
        let outer = testing::dir();
        let (a, b) = (outer.path().join("a"), outer.path().join("a/b"));
        let made = |dir: &Path| {
            let mut synced = Vec::new();
            let noted = create_durably(dir, |dir| {
                synced.push(dir.to_owned());
                Ok(())
            });
            noted.unwrap();
            synced
        };
        assert_eq!(
            made(&b.join("c")),
            [b.clone(), a.clone(), outer.path().to_owned()]
        );
        assert_eq!(made(&a.join("d")), [a]);
        assert!(made(&b).is_empty());
        let failed = create_durably(&b.join("e"), |_| Err(io::ErrorKind::StorageFull.into()));
        assert!(failed.is_err());
    }
}
