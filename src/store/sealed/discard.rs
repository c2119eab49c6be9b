//! Takes whole files of sealed payloads off the disk, or to another place first.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::store::{
    layout::{create_private, sync_dir},
    prune::write_whole,
};

/// Copies `files` into directory `to`, which is made where it is missing. Durable on return; doing it again does the rest.
///
/// # Errors
/// Those of the file system; [`io::ErrorKind::AlreadyExists`] where `to` holds another file of such a name, which stays.
pub(crate) fn copy(files: &[PathBuf], to: &Path) -> io::Result<()> {
    create_private(to)?;
    for file in files {
        let (into, bytes) = (
            to.join(file.file_name().unwrap_or_default()),
            fs::read(file)?,
        );
        match fs::read(&into) {
            Ok(there) if there == bytes => continue,
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
