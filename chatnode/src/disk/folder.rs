//! The folder: its lock, the names of files in it, and how a file takes another's place.
//!
//! A file called `history.db` is always whole: it is made under another name and renamed. If it is
//! damaged, what can be read of it is first copied into a new one; only when that is on the disk is
//! the damaged one renamed, with its write-ahead log, and the new one put in its place. A crash
//! between any two of these steps is mended at the next start.

use std::fs::{DirBuilder, File, TryLockError};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::terms::OpenError;

/// A folder that this process alone uses. Cheap to clone; unlocked when the last clone is dropped.
#[derive(Debug, Clone)]
pub(super) struct Folder {
    dir: PathBuf,
    lock: Arc<File>,
}

impl Folder {
    /// Makes it if it is not there, and locks it.
    pub(super) fn open(dir: PathBuf) -> Result<Self, OpenError> {
        let lock = lock(&dir)?;
        Ok(Self {
            dir,
            lock: Arc::new(lock),
        })
    }

    /// The folder itself.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The lock, which is held,
    pub(super) fn lock(&self) -> &File {
        &self.lock
    }

    /// and the file that it is on.
    pub(super) fn lock_file(&self) -> PathBuf {
        lock_file(&self.dir)
    }

    /// The file in use.
    pub(super) fn file(&self) -> PathBuf {
        self.dir.join("history.db")
    }

    /// The file in use, its write-ahead log, and the index of that.
    pub(super) fn files(&self) -> [PathBuf; 3] {
        with_logs(&self.file())
    }

    /// A file that is being made.
    pub(super) fn draft(&self) -> PathBuf {
        self.dir.join("history.new.db")
    }

    /// A file that is made, on the disk, and about to take the place of a damaged one.
    fn successor(&self) -> PathBuf {
        self.dir.join("history.salvaged.db")
    }

    /// Whether there is a file in use.
    pub(super) fn has_file(&self) -> io::Result<bool> {
        self.file().try_exists()
    }

    /// Removes what a start that was killed has left of a draft.
    pub(super) fn clear_draft(&self) -> io::Result<()> {
        for path in with_logs(&self.draft()) {
            match std::fs::remove_file(path) {
                Err(why) if why.kind() != ErrorKind::NotFound => return Err(why),
                Ok(()) | Err(_) => {}
            }
        }
        Ok(())
    }

    /// The draft, closed and without a log of its own, becomes the file in use. One that is there is
    /// set aside under the name that is returned.
    pub(super) fn adopt_draft(&self, seconds: u64) -> io::Result<Option<PathBuf>> {
        File::open(self.draft())?.sync_all()?;
        std::fs::rename(self.draft(), self.successor())?;
        sync(&self.dir)?;
        self.finish(seconds)
    }

    /// Puts a successor that is there in its place. A log without its file, or before its file was
    /// made, belongs to the damaged one too: SQLite would read it into the new one.
    pub(super) fn finish(&self, seconds: u64) -> io::Result<Option<PathBuf>> {
        let is_stray = !self.has_file()? && self.files()[1].try_exists()?;
        let has_successor = self.successor().try_exists()?;
        if !has_successor && !is_stray {
            return Ok(None);
        }
        let aside = self.free_name(seconds)?;
        let mut moved = None;
        for (from, to) in self.files().into_iter().zip(with_logs(&aside)) {
            match std::fs::rename(&from, &to) {
                Ok(()) => moved = moved.or(Some(to)),
                Err(why) if why.kind() == ErrorKind::NotFound => {}
                Err(why) => return Err(why),
            }
        }
        sync(&self.dir)?;
        if has_successor {
            std::fs::rename(self.successor(), self.file())?;
            sync(&self.dir)?;
        }
        Ok(moved)
    }

    /// A name that no damaged file has yet.
    fn free_name(&self, seconds: u64) -> io::Result<PathBuf> {
        let mut seconds = seconds;
        loop {
            let name = self.dir.join(format!("history.damaged-{seconds}.db"));
            let mut taken = false;
            for path in with_logs(&name) {
                taken |= path.try_exists()?;
            }
            if !taken {
                return Ok(name);
            }
            seconds += 1;
        }
    }

    /// An error of the system at this folder.
    pub(super) fn fault(&self, source: io::Error) -> OpenError {
        fault(&self.dir, source)
    }
}

fn fault(dir: &Path, source: io::Error) -> OpenError {
    let path = dir.to_owned();
    match source.kind() {
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            OpenError::Unwritable { path, source }
        }
        ErrorKind::NotFound => OpenError::NoParent(path),
        _ => OpenError::Io {
            path,
            message: source.to_string(),
        },
    }
}

fn lock_file(dir: &Path) -> PathBuf {
    dir.join("history.lock")
}

/// Makes a folder that is not there, and locks it.
fn lock(dir: &Path) -> Result<File, OpenError> {
    let fault = |source| fault(dir, source);
    match builder().create(dir) {
        Ok(()) => sync(dir.parent().unwrap_or(dir)).map_err(fault)?,
        Err(why) if why.kind() == ErrorKind::AlreadyExists && dir.is_dir() => {}
        Err(why) if why.kind() == ErrorKind::AlreadyExists => {
            return Err(OpenError::NotAFolder(dir.to_owned()));
        }
        Err(why) => return Err(fault(why)),
    }
    let lock = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(lock_file(dir))
        .map_err(fault)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse(dir.to_owned())),
        Err(TryLockError::Error(why)) => Err(OpenError::Io {
            path: dir.to_owned(),
            message: format!("it cannot be locked: {why}"),
        }),
    }
}

/// What people said is for the user of the process only.
fn builder() -> DirBuilder {
    let mut builder = DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder
}

/// A database and the files that SQLite puts beside it.
fn with_logs(file: &Path) -> [PathBuf; 3] {
    ["", "-wal", "-shm"].map(|ending| {
        let mut name = file.as_os_str().to_owned();
        name.push(ending);
        PathBuf::from(name)
    })
}

/// What was made or renamed in a folder is on the disk when this returns.
fn sync(dir: &Path) -> io::Result<()> {
    // A relative path of one part has an empty parent: here.
    let dir = if dir.as_os_str().is_empty() {
        Path::new(".")
    } else {
        dir
    };
    File::open(dir)?.sync_all()
}
