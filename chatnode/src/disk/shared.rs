//! What the threads of a store and its handles have in common.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::folder::Folder;
use super::state::Blocks;
use super::time::wall_us;

/// Rotten rows that are named in the log, and counted, at the most.
const ROTTEN_NAMED_MAX: usize = 4096;

/// Shared by all threads of a store. The locks are held for a few instructions.
#[derive(Debug)]
pub(super) struct Shared {
    /// The folder, locked as long as anybody uses it.
    pub(super) folder: Folder,
    /// Entries kept.
    pub(super) entries: AtomicU64,
    /// Bytes of the files.
    pub(super) bytes: AtomicU64,
    /// Entries that are not in the index of words yet.
    pub(super) unindexed: AtomicU64,
    /// How far the node's time is from the wall clock, in microseconds.
    correction_us: AtomicI64,
    rotten: Mutex<HashSet<i64>>,
    blocks: Mutex<Blocks>,
    /// How many pages the file may have, 0 for any number: a disk that is full.
    #[cfg(test)]
    pub(super) pages_max: AtomicU64,
}

impl Shared {
    /// From now on the node's time is so far from the wall clock.
    pub(super) fn correct_clock(&self, correction_us: i64) {
        self.correction_us.store(correction_us, Ordering::Relaxed);
    }

    /// The time by which the node goes, and by which entries are stamped.
    pub(super) fn time_us(&self) -> u64 {
        wall_us().saturating_add_signed(self.correction_us.load(Ordering::Relaxed))
    }

    /// Of a folder that was read.
    pub(super) fn new(folder: Folder, blocks: Blocks) -> Self {
        Self {
            folder,
            correction_us: AtomicI64::new(0),
            entries: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            unindexed: AtomicU64::new(0),
            rotten: Mutex::default(),
            blocks: Mutex::new(blocks),
            #[cfg(test)]
            pages_max: AtomicU64::new(0),
        }
    }

    pub(super) fn rows(&self) -> MutexGuard<'_, HashSet<i64>> {
        self.rotten.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The ranges of timestamps of rows.
    pub(super) fn blocks(&self) -> MutexGuard<'_, Blocks> {
        self.blocks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes rows that are about to be written.
    pub(super) fn note_rows(&self, rows: &[(i64, u64)]) {
        let mut blocks = self.blocks();
        for (id, ts) in rows {
            blocks.note(*id, *ts);
        }
    }

    /// A row was read that is not what was written: it is named once.
    pub(super) fn rotten(&self, row: i64) {
        let mut rows = self.rows();
        if rows.len() < ROTTEN_NAMED_MAX && rows.insert(row) {
            drop(rows);
            let file = self.folder.file();
            tracing::error!(
                file = %file.display(), row,
                "an entry on disk is damaged and is left out; check the disk: a restart sets the \
                 file aside and saves what can be read"
            );
        }
    }

    /// Publishes what `size()` says.
    pub(super) fn set_size(&self, entries: u64, unindexed: u64) {
        self.entries.store(entries, Ordering::Relaxed);
        self.unindexed.store(unindexed, Ordering::Relaxed);
        let length = |path: PathBuf| std::fs::metadata(path).map_or(0, |meta| meta.len());
        let [file, log, _] = self.folder.files();
        self.bytes
            .store(length(file) + length(log), Ordering::Relaxed);
    }
}
