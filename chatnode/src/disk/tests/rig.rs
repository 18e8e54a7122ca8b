//! A store in a folder of its own, and entries to put into it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tokio::sync::mpsc;

use crate::core::memory;
use crate::disk::time::wall_us;
use crate::disk::{Batch, Disk, DiskOptions, DiskRetention, Loaded, OpenError, Outcome};
use crate::model::entry::Entry;
use crate::model::names::{EntryId, Mid, Origin, RoomName};
use crate::model::page::Page;

/// Longer than anything takes that is not stuck.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

pub(super) fn lobby() -> RoomName {
    room("lobby")
}

pub(super) fn room(name: &str) -> RoomName {
    name.parse().unwrap()
}

pub(super) fn origin(letter: char) -> Origin {
    letter.to_string().repeat(Origin::LEN).parse().unwrap()
}

pub(super) fn id(letter: char, seq: u64) -> EntryId {
    EntryId {
        origin: origin(letter),
        seq,
    }
}

/// An entry in the lobby.
pub(super) fn entry(letter: char, seq: u64, ts: u64) -> Arc<Entry> {
    said(
        letter,
        seq,
        ts,
        "lobby",
        &format!("number {seq} of {letter}"),
    )
}

pub(super) fn said(letter: char, seq: u64, ts: u64, room: &str, text: &str) -> Arc<Entry> {
    with_mid(letter, seq, ts, room, text, None)
}

pub(super) fn with_mid(
    letter: char,
    seq: u64,
    ts: u64,
    at: &str,
    text: &str,
    mid: Option<Mid>,
) -> Arc<Entry> {
    let ada = "ada".parse().unwrap();
    Arc::new(Entry::new(id(letter, seq), ts, room(at), mid, &ada, text))
}

/// Shown, all of them.
pub(super) fn shown(entries: impl IntoIterator<Item = Arc<Entry>>) -> Batch {
    Batch {
        entries: entries.into_iter().map(|entry| (entry, true)).collect(),
        shows: Vec::new(),
    }
}

/// How many entries were found damaged when they were read, and left out.
pub(super) fn damaged(disk: &Disk) -> usize {
    disk.0.shared.rows().len()
}

/// Numbers of a page, in its order.
pub(super) fn seqs(page: &Page) -> Vec<u64> {
    page.entries.iter().map(|entry| entry.seq).collect()
}

pub(super) fn options(dir: &Path) -> DiskOptions {
    DiskOptions {
        dir: dir.to_owned(),
        retention: DiskRetention::default(),
        window: memory::Retention::default(),
        wall_us: wall_us(),
    }
}

/// A store that is open.
pub(super) struct Rig {
    pub(super) dir: TempDir,
    pub(super) disk: Disk,
    pub(super) loaded: Loaded,
    pub(super) outcomes: mpsc::Receiver<Outcome>,
    /// What was trimmed while something else was waited for.
    pub(super) trimmed: Vec<(Origin, u64)>,
}

impl Rig {
    /// In a new folder.
    pub(super) fn new() -> Self {
        Self::with(DiskRetention::default())
    }

    pub(super) fn with(retention: DiskRetention) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let options = DiskOptions {
            retention,
            ..options(dir.path())
        };
        Self::open(dir, options).unwrap()
    }

    pub(super) fn open(dir: TempDir, options: DiskOptions) -> Result<Self, OpenError> {
        let (disk, loaded, outcomes) = crate::disk::open(options)?;
        Ok(Self {
            dir,
            disk,
            loaded,
            outcomes,
            trimmed: Vec::new(),
        })
    }

    /// Closes it; the folder is left.
    pub(super) async fn close(self) -> TempDir {
        self.disk.close(PATIENCE).await;
        self.dir
    }

    /// Closes and opens it again.
    pub(super) async fn reopen(self) -> Self {
        let dir = self.close().await;
        let options = options(dir.path());
        Self::open(dir, options).unwrap()
    }

    /// What comes next.
    pub(super) async fn outcome(&mut self) -> Outcome {
        let outcome = tokio::time::timeout(PATIENCE, self.outcomes.recv()).await;
        outcome
            .expect("an outcome comes")
            .expect("the writer lives")
    }

    /// Writes a batch; what became of it.
    pub(super) async fn write(&mut self, batch: Batch) -> Outcome {
        self.disk.write(batch);
        loop {
            match self.outcome().await {
                Outcome::Trimmed(logs) => self.trimmed.extend(logs),
                outcome => return outcome,
            }
        }
    }

    /// Writes a batch, which must be stored.
    pub(super) async fn store(&mut self, batch: Batch) {
        assert_eq!(self.write(batch).await, Outcome::Stored);
    }

    /// The newest of the lobby.
    pub(super) async fn lobby(&self) -> Page {
        self.disk.page(&lobby(), None, 1000).await.unwrap()
    }

    /// Waits until so many entries are left.
    pub(super) async fn left(&mut self, entries: u64) {
        while self.disk.size().0 != entries {
            match self.outcome().await {
                Outcome::Trimmed(logs) => self.trimmed.extend(logs),
                other => panic!("{other:?}"),
            }
        }
    }
}
