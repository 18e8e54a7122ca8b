//! What is agreed between the disk and who uses it: options, outcomes and errors.

use std::path::PathBuf;
use std::time::Duration;

use crate::core::memory;
use crate::model::names::Origin;

/// How much is kept on disk. 0 and `None` are no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct DiskRetention {
    /// Entries at the most.
    pub(crate) messages: u64,
    /// Bytes of the database in use at the most.
    pub(crate) bytes: u64,
    /// Entries that were said longer ago are trimmed.
    pub(crate) age: Option<Duration>,
}

/// Where and how much.
#[derive(Debug, Clone)]
pub(crate) struct DiskOptions {
    /// The folder of `--data`; created if it is not there (its parent must exist).
    pub(crate) dir: PathBuf,
    /// How much is kept.
    pub(crate) retention: DiskRetention,
    /// How much of the newest is loaded into memory.
    pub(crate) window: memory::Retention,
    /// Microseconds since 1970 now.
    pub(crate) wall_us: u64,
}

/// What became of the batch under way; and what retention did.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The batch is on the disk, synced.
    Stored,
    /// No room: nothing of the batch was written (rolled back).
    Full(String),
    /// The disk or file is broken; whether the batch was written is not known. The writer has
    /// ended: nothing is written any more.
    Broken(String),
    /// Retention has trimmed these logs through these numbers.
    Trimmed(Vec<(Origin, u64)>),
}

/// Why a folder cannot be used: one line each, that says what, where, and how to mend it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    /// Another process holds the folder's lock.
    #[error("--data {0}: another process uses this folder; end it, or choose another folder")]
    InUse(PathBuf),
    /// There is a file of that name.
    #[error("--data {0}: this is not a folder; choose another name")]
    NotAFolder(PathBuf),
    /// The folder in which it would be is not there.
    #[error(
        "--data {0}: the folder in which this is to be does not exist; make it, or choose another name"
    )]
    NoParent(PathBuf),
    /// The folder, or a file in it, cannot be made or written.
    #[error("--data {path}: {source}; make it writable for this user, or choose another folder")]
    Unwritable {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A later program has written it.
    #[error(
        "--data {path}: written by a later version (schema {found}, this is {known}); use that version, or choose another folder"
    )]
    Newer {
        /// The folder.
        path: PathBuf,
        /// The schema version of the file.
        found: i64,
        /// The last one that this program knows.
        known: i64,
    },
    /// The disk does not do what it is asked.
    #[error("--data {path}: {message}; check the disk, or choose another folder")]
    Io {
        /// The folder.
        path: PathBuf,
        /// What failed.
        message: String,
    },
}
