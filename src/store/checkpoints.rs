//! A chain's signed checkpoints in a file, one after the other.

use std::{
    fs,
    io::{self, Write},
    path::Path,
};

use super::disk::{Disk, LogFile};
use crate::audit::checkpoint::{Checkpoint, notes};

/// The file being appended to.
pub(crate) struct CheckpointFile {
    file: Box<dyn LogFile>,
    length: u64,
}

impl CheckpointFile {
    /// Creates the file.
    pub(crate) fn create(disk: &dyn Disk, path: &Path) -> io::Result<Self> {
        Ok(Self {
            file: disk.create(path)?,
            length: 0,
        })
    }

    /// Appends a note, durable on return; returns its bytes. A failed one is cut off again with the next.
    pub(crate) fn append(&mut self, note: &str) -> io::Result<u64> {
        let text = format!("{note}\n");
        self.file.cut(self.length)?;
        self.file.write_at(text.as_bytes(), self.length)?;
        self.file.sync()?;
        self.length += text.len() as u64;
        Ok(text.len() as u64)
    }
}

/// Appends a note to a file kept outside the log's directory, durable on return. Created with mode 0644: it holds nothing
/// secret, and whoever verifies must be able to read it.
///
/// # Errors
/// Those of the file system.
pub(crate) fn append_outside(path: &Path, note: &str) -> io::Result<()> {
    let mut file = fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)?;
    file.write_all(format!("{note}\n").as_bytes())?;
    file.sync_data()
}

/// The file's text; empty where there is none. Bytes that are no text end it, as a torn write would.
///
/// # Errors
/// Those of reading the file.
pub fn read(path: &Path) -> io::Result<String> {
    match fs::read(path) {
        Ok(bytes) => {
            let valid =
                std::str::from_utf8(&bytes).map_or_else(|error| error.valid_up_to(), str::len);
            Ok(String::from_utf8_lossy(&bytes[..valid]).into_owned())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(error),
    }
}

/// The last whole note of a file, and the size it attests; signatures are not looked at.
///
/// # Errors
/// Those of reading the file.
pub fn last(path: &Path) -> io::Result<Option<(u64, String)>> {
    let text = read(path)?;
    let last = notes(&text)
        .filter_map(|note| Some((Checkpoint::read_unchecked(note).ok()?.size, note.to_owned())))
        .last();
    Ok(last)
}
