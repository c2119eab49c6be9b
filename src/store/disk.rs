//! The few operations the write-ahead log needs of a file system, so that tests can make each of them fail.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::Path,
};

/// Mode of the log's files: masked prompts are nobody's but the operator's, and the group's whom they open the directory to.
pub(crate) const FILE_MODE: u32 = 0o640;

/// A file system.
pub(crate) trait Disk: Send {
    /// Creates a file, or empties the one that is there.
    fn create(&self, path: &Path) -> io::Result<Box<dyn LogFile>>;
    /// Makes a directory's entries durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
}

/// A file that is appended to.
pub(crate) trait LogFile: Send {
    /// Writes all of `bytes` at `offset`; after an error any part of them may be there.
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Makes what was written durable.
    fn sync(&mut self) -> io::Result<()>;
    /// Cuts the file to `length`.
    fn cut(&mut self, length: u64) -> io::Result<()>;
}

/// The operating system's.
#[derive(Debug)]
pub(crate) struct RealDisk;

impl Disk for RealDisk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn LogFile>> {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(FILE_MODE)
            .open(path)?;
        Ok(Box::new(file))
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        super::layout::sync_dir(path)
    }
}

impl LogFile for File {
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }

    fn cut(&mut self, length: u64) -> io::Result<()> {
        self.set_len(length)
    }
}

/// A disk whose operations fail when told to.
#[cfg(test)]
pub(crate) mod faulty {
    use std::{
        fs::File,
        io,
        path::Path,
        sync::{Arc, Mutex, mpsc},
    };

    use super::{Disk, LogFile, RealDisk};

    /// What fails, until told otherwise. Clones share it.
    #[derive(Clone, Default)]
    pub(crate) struct Faults(Arc<Mutex<Script>>);

    #[derive(Default)]
    struct Script {
        create: Option<io::ErrorKind>,
        /// After this many bytes were written all the same.
        write: Option<(io::ErrorKind, usize)>,
        sync: Option<io::ErrorKind>,
        cut: Option<io::ErrorKind>,
        /// The next sync tells the first that it has begun, and returns once the second speaks.
        hang: Option<(mpsc::Sender<()>, mpsc::Receiver<()>)>,
    }

    impl Faults {
        pub(crate) fn disk(&self) -> Box<dyn Disk> {
            Box::new(FaultyDisk(self.clone()))
        }

        pub(crate) fn create(&self, kind: Option<io::ErrorKind>) {
            self.0.lock().unwrap().create = kind;
        }

        pub(crate) fn write(&self, fault: Option<(io::ErrorKind, usize)>) {
            self.0.lock().unwrap().write = fault;
        }

        pub(crate) fn sync(&self, kind: Option<io::ErrorKind>) {
            self.0.lock().unwrap().sync = kind;
        }

        pub(crate) fn cut(&self, kind: Option<io::ErrorKind>) {
            self.0.lock().unwrap().cut = kind;
        }

        /// The next sync hangs: the first of these hears that it does, the second lets it go.
        pub(crate) fn hang(&self) -> (mpsc::Receiver<()>, mpsc::Sender<()>) {
            let (begun, hangs) = mpsc::channel();
            let (release, released) = mpsc::channel();
            self.0.lock().unwrap().hang = Some((begun, released));
            (hangs, release)
        }
    }

    struct FaultyDisk(Faults);

    struct FaultyFile {
        faults: Faults,
        file: File,
        synced: u64,
    }

    impl Disk for FaultyDisk {
        fn create(&self, path: &Path) -> io::Result<Box<dyn LogFile>> {
            fail(self.0.0.lock().unwrap().create)?;
            let file = File::options()
                .write(true)
                .create(true)
                .truncate(true)
                .open(path)?;
            Ok(Box::new(FaultyFile {
                faults: self.0.clone(),
                file,
                synced: 0,
            }))
        }

        fn sync_dir(&self, path: &Path) -> io::Result<()> {
            RealDisk.sync_dir(path)
        }
    }

    impl LogFile for FaultyFile {
        fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
            let fault = self.faults.0.lock().unwrap().write;
            if let Some((kind, partly)) = fault {
                self.file
                    .write_at(&bytes[..partly.min(bytes.len())], offset)?;
                return Err(kind.into());
            }
            self.file.write_at(bytes, offset)
        }

        fn sync(&mut self) -> io::Result<()> {
            let (hang, fault) = {
                let mut script = self.faults.0.lock().unwrap();
                (script.hang.take(), script.sync)
            };
            if let Some((begun, released)) = hang {
                let _ = begun.send(());
                let _ = released.recv();
            }
            let length = self.file.metadata()?.len();
            if fault.is_some() {
                // As Linux may after a failed write-back: what was not on disk is gone, and the next sync says all is well.
                self.file.set_len(self.synced.min(length))?;
                self.file.set_len(length)?;
                return fail(fault);
            }
            self.synced = length;
            self.file.sync_data()
        }

        fn cut(&mut self, length: u64) -> io::Result<()> {
            fail(self.faults.0.lock().unwrap().cut)?;
            self.file.set_len(length)
        }
    }

    fn fail(kind: Option<io::ErrorKind>) -> io::Result<()> {
        kind.map_or(Ok(()), |kind| Err(kind.into()))
    }
}
