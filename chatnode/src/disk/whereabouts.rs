//! Whether the files that are written are those that the next start will find.
//!
//! An open file lives on when its name is removed, or leads to another: all writes and syncs of it
//! succeed, and what was written is gone with the process. So the writer looks, before it tells of
//! anything as stored, where the names lead.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use super::folder::Folder;

/// Bytes of the write-ahead log before its first page, and of each page in it.
const WAL_HEAD: u64 = 32;
const WAL_PAGE: u64 = 24 + super::schema::PAGE_BYTES as u64;

/// The files in use, as they were when they were opened.
#[derive(Debug)]
pub(super) struct Whereabouts {
    files: Vec<(PathBuf, Id)>,
    /// The least that the database may have: it only grows, since no page of it is given back.
    bytes: u64,
}

/// A file whatever it is called: its device and number. No other has them as long as it is open.
type Id = (u64, u64);

fn id(data: &Metadata) -> Id {
    (data.dev(), data.ino())
}

/// What is not as it was.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Moved {
    /// A name leads to another file, or to none.
    Gone(PathBuf),
    /// A file is shorter than what was written to it.
    Cut(PathBuf),
}

impl Moved {
    /// For people.
    pub(super) fn text(&self) -> String {
        match self {
            Self::Gone(path) => format!("{} was removed, renamed or replaced", path.display()),
            Self::Cut(path) => format!("{} was overwritten", path.display()),
        }
    }
}

impl Whereabouts {
    /// Of a folder whose files are open.
    pub(super) fn of(folder: &Folder) -> io::Result<Self> {
        let mut files = vec![(folder.lock_file(), id(&folder.lock().metadata()?))];
        for path in folder.files() {
            let data = path.metadata()?;
            files.push((path, id(&data)));
        }
        let bytes = folder.file().metadata()?.len();
        Ok(Self { files, bytes })
    }

    /// Looks at all names. `pages`: how many pages are in the write-ahead log at least.
    pub(super) fn look(&mut self, folder: &Folder, pages: u32) -> Result<(), Moved> {
        let [database, log, _] = folder.files();
        for (path, was) in &self.files {
            let Some(data) = path.metadata().ok().filter(|data| id(data) == *was) else {
                return Err(Moved::Gone(path.clone()));
            };
            if *path == database {
                if data.len() < self.bytes {
                    return Err(Moved::Cut(database));
                }
                self.bytes = data.len();
            }
            let written = WAL_HEAD + u64::from(pages) * WAL_PAGE;
            if *path == log && pages > 0 && data.len() < written {
                return Err(Moved::Cut(log));
            }
        }
        Ok(())
    }
}
