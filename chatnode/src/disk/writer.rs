//! The writer: a thread that owns the one connection that writes.
//!
//! A batch is one transaction, on the disk when it is told as stored. What is not urgent is done
//! between batches, in small transactions: retention, the index of words, checkpoints of the
//! write-ahead log.
//!
//! A disk that is full is told and the writer lives on. Anything else that goes wrong ends it: after
//! a sync that failed, the same call may succeed though the data are gone.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::Duration;

use rusqlite::Connection;
use rusqlite::config::DbConfig;
use rusqlite::hooks::Wal;
use rusqlite::wal::CheckpointMode;
use tokio::sync::mpsc;

use super::schema::{self, Trouble};
use super::shared::Shared;
use super::state::State;
use super::terms::{DiskRetention, Outcome};
use super::time::Stopwatch;
use super::trim::{self, Floors};
use super::whereabouts::{Moved, Whereabouts};
use super::{index, write};
use crate::core::journal::Batch;

/// Without a batch for so long, the writer has time for the rest.
const IDLE_AFTER: Duration = Duration::from_millis(20);
/// While batches come without a pause, retention is looked at so often.
const TRIM_EVERY: Duration = Duration::from_millis(100);
/// Retention is looked at so often at least: entries get old though none come.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// That the files are where they were is looked at so often at least, and after each batch.
const LOOK_FOR_FILES_EVERY: Duration = Duration::from_secs(1);
/// Pages in the write-ahead log that make it worth while to copy them into the file.
const WAL_PAGES: u32 = 4000;
/// Pages in the write-ahead log from which on readers are waited for, so that it can begin anew.
const WAL_PAGES_MAX: u32 = 16_000;
/// Trimming that takes longer is told.
const TRIM_TOLD_AFTER: Duration = Duration::from_secs(1);
/// And again so often.
const TRIM_TOLD_EVERY: Duration = Duration::from_secs(5);
/// While the index of words is made anew, it is told so often how much is missing.
const INDEX_TOLD_EVERY: Duration = Duration::from_secs(5);
/// A lock that another program holds on the file is told so often.
const BUSY_TOLD_EVERY: Duration = Duration::from_secs(5);
/// What cannot be tidied for want of room is left alone for so long.
const POSTPONED: Duration = Duration::from_secs(1);

/// Why the writer ends without being asked.
#[derive(Debug)]
struct Broken(String);

/// The thread's own.
#[derive(Debug)]
pub(super) struct Writer {
    db: Connection,
    inbox: Receiver<Batch>,
    outcomes: mpsc::Sender<Outcome>,
    shared: Arc<Shared>,
    state: State,
    retention: DiskRetention,
    /// Pages in the write-ahead log after the last commit.
    wal_pages: Arc<AtomicU32>,
    /// What was trimmed and not told yet.
    floors: Floors,
    trimming: Option<Trimming>,
    /// The index of words is made anew: since when, and when that was told.
    reindexing: Option<(Stopwatch, Stopwatch)>,
    looked: Stopwatch,
    /// When something could not be tidied.
    postponed: Option<Stopwatch>,
    /// Pages in the write-ahead log at which readers are waited for next.
    restart_at: u32,
    /// Whether something was written since all was tidy.
    untidy: bool,
}

/// Trimming that takes several steps.
#[derive(Debug)]
struct Trimming {
    begun: Stopwatch,
    told: Option<Stopwatch>,
    count: u64,
}

impl Writer {
    /// A writer of a file that was checked.
    pub(super) fn new(
        mut db: Connection,
        state: State,
        shared: Arc<Shared>,
        inbox: Receiver<Batch>,
        outcomes: mpsc::Sender<Outcome>,
        retention: DiskRetention,
    ) -> rusqlite::Result<Self> {
        let wal_pages = Arc::new(AtomicU32::new(0));
        let pages = Arc::clone(&wal_pages);
        db.wal_hook(Some(move |_: &mut Wal, count| {
            pages.store(u32::try_from(count).unwrap_or(0), Ordering::Relaxed);
            Ok(())
        }))?;
        shared.set_size(state.entries, state.unindexed());
        let is_behind = state.unindexed() > 2 * index::UNINDEXED_MAX;
        Ok(Self {
            db,
            inbox,
            outcomes,
            shared,
            state,
            retention,
            wal_pages,
            floors: Floors::new(),
            trimming: None,
            reindexing: is_behind.then(|| (Stopwatch::start(), Stopwatch::start())),
            looked: Stopwatch::start(),
            postponed: None,
            restart_at: WAL_PAGES_MAX,
            untidy: true,
        })
    }

    /// The thread's work, until it is closed or broken.
    pub(super) fn run(mut self) {
        if let Err(Broken(why)) = self.work() {
            let file = self.shared.folder.file();
            tracing::error!(
                file = %file.display(), error = why,
                "history is not written to disk any more; check the disk and restart"
            );
            // Closing would copy what may be wrong, and remove a log by its name, whoever's it is.
            let keep = DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE;
            if let Err(error) = self.db.set_db_config(keep, true) {
                tracing::warn!(%error, "the history is closed as it is");
            }
            drop(self.inbox);
            // Nobody may listen any more.
            drop(self.outcomes.blocking_send(Outcome::Broken(why)));
        }
    }

    fn work(&mut self) -> Result<(), Broken> {
        self.mark_open(true)?;
        let files = Whereabouts::of(&self.shared.folder);
        let mut files = files.map_err(|why| Broken(format!("its files cannot be found: {why}")))?;
        let mut wait = Duration::ZERO;
        loop {
            let look = wait.min(LOOK_FOR_FILES_EVERY);
            let received = self.inbox.recv_timeout(look);
            // Before a write as well: it would make a log that was overwritten as long as it was.
            self.in_place(&mut files)?;
            let idle = match received {
                Ok(batch) => {
                    let outcome = self.store(&batch)?;
                    drop(batch);
                    self.untidy = true;
                    self.in_place(&mut files)?;
                    self.shared
                        .set_size(self.state.entries, self.state.unindexed());
                    drop(self.outcomes.blocking_send(outcome));
                    false
                }
                Err(RecvTimeoutError::Timeout) => {
                    wait -= look;
                    if !wait.is_zero() {
                        continue;
                    }
                    true
                }
                Err(RecvTimeoutError::Disconnected) => return self.finish(),
            };
            wait = self.tidy(idle)?;
        }
    }

    /// What is written must be where the next start finds it.
    fn in_place(&self, files: &mut Whereabouts) -> Result<(), Broken> {
        let pages = self.wal_pages.load(Ordering::Relaxed);
        let folder = &self.shared.folder;
        let looked = match files.look(folder, pages) {
            // Another program may have copied the log into the file, as SQLite lets it.
            Err(Moved::Cut(_)) => files.look(folder, self.pages_in_log()?),
            looked => looked,
        };
        looked.map_err(|moved| Broken(moved.text()))
    }

    /// Pages that the write-ahead log has, as SQLite knows it.
    fn pages_in_log(&self) -> Result<u32, Broken> {
        let pages = self
            .db
            .query_row("PRAGMA wal_checkpoint(NOOP)", [], |row| {
                row.get::<_, i64>(1)
            })
            .map_err(|error| Broken(error.to_string()))?;
        Ok(u32::try_from(pages).unwrap_or(0))
    }

    /// Writes a batch.
    fn store(&mut self, batch: &Batch) -> Result<Outcome, Broken> {
        #[cfg(test)]
        self.limit_pages();
        let mut waiting: Option<Stopwatch> = None;
        loop {
            let stored = schema::transact(&self.db, |db| {
                write::apply(db, &self.state, &self.shared, batch)
            });
            match stored {
                Ok(changes) => {
                    self.state.take(changes);
                    return Ok(Outcome::Stored);
                }
                Err(error) => match self.trouble(&error)? {
                    Trouble::Busy => self.wait_for_lock(&mut waiting)?,
                    _ => return Ok(Outcome::Full(error.to_string())),
                },
            }
        }
    }

    /// Full and busy can be lived with; what was begun was rolled back. All else cannot.
    fn trouble(&self, error: &rusqlite::Error) -> Result<Trouble, Broken> {
        match schema::trouble(error, self.shared.folder.dir()) {
            trouble @ (Trouble::Full | Trouble::Busy) if self.db.is_autocommit() => Ok(trouble),
            _ => Err(Broken(error.to_string())),
        }
    }

    /// Another program, such as `sqlite3`, holds the file: nothing was done, so it can be tried
    /// again as long as anybody waits for it.
    fn wait_for_lock(&self, waiting: &mut Option<Stopwatch>) -> Result<(), Broken> {
        match self.inbox.try_recv() {
            Err(TryRecvError::Empty) => {}
            Err(TryRecvError::Disconnected) => {
                return Err(Broken("another program holds a lock on the file".into()));
            }
            Ok(_) => unreachable!("batches are handed over one at a time"),
        }
        if waiting.is_none_or(|since| since.elapsed() > BUSY_TOLD_EVERY) {
            *waiting = Some(Stopwatch::start());
            let file = self.shared.folder.file();
            tracing::warn!(
                file = %file.display(),
                "another program holds a lock on the file; history waits for it"
            );
        }
        Ok(())
    }

    /// What is done between batches. Returns how long to wait for the next one.
    fn tidy(&mut self, idle: bool) -> Result<Duration, Broken> {
        if self
            .postponed
            .is_some_and(|since| since.elapsed() > POSTPONED)
        {
            self.postponed = None;
        }
        let due = idle || self.trimming.is_some() || self.looked.elapsed() > TRIM_EVERY;
        if due && self.postponed.is_none() {
            self.looked = Stopwatch::start();
            self.trim()?;
        }
        if self.postponed.is_none() {
            self.index(idle)?;
        }
        self.checkpoint()?;
        if idle || !self.floors.is_empty() {
            self.shared
                .set_size(self.state.entries, self.state.unindexed());
        }
        self.tell_floors();
        let has_more = self.trimming.is_some() || self.state.unindexed() >= index::INDEX_ROWS;
        self.untidy &= !idle;
        Ok(match (has_more, idle) {
            _ if self.postponed.is_some() => POSTPONED,
            (true, true) => Duration::ZERO,
            _ if self.untidy => IDLE_AFTER,
            _ if !self.floors.is_empty() => TRIM_EVERY,
            _ => LOOK_EVERY,
        })
    }

    /// One step of retention, if there is too much.
    fn trim(&mut self) -> Result<(), Broken> {
        let rows = trim::excess(
            &self.db,
            &self.state,
            &self.retention,
            self.shared.time_us(),
        );
        let rows = rows.map_err(|error| Broken(error.to_string()))?;
        if rows == 0 {
            self.trimmed_all();
            return Ok(());
        }
        let now = self.shared.time_us().cast_signed();
        let trimmed = self.unsynced(|db, state| {
            // So that a node that starts again can tell what was gone before a client came.
            schema::set_meta(db, "trimmed", now)?;
            trim::step(db, state, rows)
        })?;
        let Some((changes, floors)) = trimmed else {
            // No room for the removal, or a lock: later.
            self.trimmed_all();
            return Ok(());
        };
        if floors.is_empty() {
            return Err(Broken("the oldest entries cannot be removed".into()));
        }
        let count = changes.entries_trimmed;
        self.state.take(changes);
        self.floors.extend(floors);
        let first = trim::first_row(&self.db).map_err(|error| Broken(error.to_string()))?;
        let first = first.unwrap_or(self.state.id_next);
        self.shared.blocks().trimmed(first);
        let trimming = self.trimming.get_or_insert_with(|| Trimming {
            begun: Stopwatch::start(),
            told: None,
            count: 0,
        });
        trimming.count += count;
        trimming.tell(self.state.entries);
        Ok(())
    }

    fn trimmed_all(&mut self) {
        if let Some(trimming) = self.trimming.take()
            && trimming.told.is_some()
        {
            let elapsed_ms = trimming.begun.elapsed().as_millis();
            tracing::info!(
                count = trimming.count,
                left = self.state.entries,
                elapsed_ms,
                "trimmed history on disk"
            );
        }
    }

    /// Goes on with the index of words, if there is time for it or much is missing.
    fn index(&mut self, idle: bool) -> Result<(), Broken> {
        let missing = self.state.unindexed();
        let enough = if idle {
            index::INDEX_ROWS
        } else {
            index::UNINDEXED_MAX
        };
        if missing < enough {
            return Ok(());
        }
        let rows = if idle { index::INDEX_ROWS } else { missing };
        let rows = rows.min(2 * index::UNINDEXED_MAX);
        if let Some(changes) = self.unsynced(|db, state| index::step(db, state, rows))? {
            self.state.take(changes);
            self.tell_index();
        }
        Ok(())
    }

    /// Says how far the index of words is, while it is made anew.
    fn tell_index(&mut self) {
        let Some((begun, told)) = &mut self.reindexing else {
            return;
        };
        let missing = self.state.unindexed();
        if missing < index::INDEX_ROWS {
            let elapsed_ms = begun.elapsed().as_millis();
            tracing::info!(elapsed_ms, "the index of words is complete");
            self.reindexing = None;
        } else if told.elapsed() > INDEX_TOLD_EVERY {
            *told = Stopwatch::start();
            tracing::info!(missing, "making the index of words anew");
        }
    }

    /// A transaction that need not be on the disk before the next batch is: if the power fails
    /// before, it is done again. Nothing if there is no room for it now.
    fn unsynced<T>(
        &mut self,
        work: impl FnOnce(&Connection, &State) -> rusqlite::Result<T>,
    ) -> Result<Option<T>, Broken> {
        let sync = |how| self.db.pragma_update(None, "synchronous", how);
        let broken = |error: rusqlite::Error| Broken(error.to_string());
        sync("NORMAL").map_err(broken)?;
        let done = schema::transact(&self.db, |db| work(db, &self.state));
        sync("FULL").map_err(broken)?;
        match done {
            Ok(value) => Ok(Some(value)),
            Err(error) => {
                self.trouble(&error)?;
                tracing::warn!(%error, "history on disk cannot be tidied now");
                self.postponed = Some(Stopwatch::start());
                Ok(None)
            }
        }
    }

    /// Copies the write-ahead log into the file, if it has become long. It begins anew when nobody
    /// reads from it; if it has become very long, that is waited for.
    fn checkpoint(&mut self) -> Result<(), Broken> {
        let pages = self.wal_pages.load(Ordering::Relaxed);
        if pages < WAL_PAGES {
            return Ok(());
        }
        // Until the next commit tells how long it really is.
        self.wal_pages.store(0, Ordering::Relaxed);
        if pages < self.restart_at {
            self.restart_at = self.restart_at.min(pages + WAL_PAGES_MAX);
            self.checkpoint_as(CheckpointMode::PASSIVE)?;
        } else {
            // Another program may read for long: it is not waited for with each batch.
            self.restart_at = pages + WAL_PAGES_MAX;
            self.checkpoint_as(CheckpointMode::RESTART)?;
        }
        Ok(())
    }

    fn checkpoint_as(&self, mode: CheckpointMode) -> Result<(), Broken> {
        match self.db.wal_checkpoint_v2(Some(c"main"), mode) {
            Ok(_) => Ok(()),
            Err(error) => {
                self.trouble(&error)?;
                tracing::warn!(%error, "the write-ahead log cannot be copied into the file now");
                Ok(())
            }
        }
    }

    /// Tells what was trimmed, unless outcomes wait: then with what is trimmed meanwhile.
    fn tell_floors(&mut self) {
        if self.floors.is_empty() {
            return;
        }
        if let Ok(permit) = self.outcomes.try_reserve() {
            let floors = std::mem::take(&mut self.floors);
            permit.send(Outcome::Trimmed(floors.into_iter().collect()));
        } else if self.outcomes.is_closed() {
            self.floors.clear();
        }
    }

    /// The last words of a writer that was closed.
    fn finish(&mut self) -> Result<(), Broken> {
        self.tell_floors();
        self.mark_open(false)?;
        self.checkpoint_as(CheckpointMode::TRUNCATE)?;
        self.shared
            .set_size(self.state.entries, self.state.unindexed());
        Ok(())
    }

    /// Marks the file as in use, or as closed well, for people.
    fn mark_open(&mut self, open: bool) -> Result<(), Broken> {
        self.unsynced(|db, _| schema::set_meta(db, "open", i64::from(open)))?;
        Ok(())
    }

    #[cfg(test)]
    fn limit_pages(&self) {
        let pages = self.shared.pages_max.load(Ordering::Relaxed);
        let pages = if pages == 0 { u32::MAX.into() } else { pages };
        let set = self.db.pragma_update_and_check(
            None,
            "max_page_count",
            pages.cast_signed(),
            |_| Ok(()),
        );
        set.expect("a limit of pages can be set");
    }
}

impl Trimming {
    /// Says how it goes, if it takes long.
    fn tell(&mut self, left: u64) {
        let (is_first, is_due) = match &self.told {
            None => (true, self.begun.elapsed() > TRIM_TOLD_AFTER),
            Some(told) => (false, told.elapsed() > TRIM_TOLD_EVERY),
        };
        if !is_due {
            return;
        }
        self.told = Some(Stopwatch::start());
        let count = self.count;
        if is_first {
            tracing::info!(count, left, "trimming history on disk, which takes a while");
        } else {
            tracing::info!(count, left, "trimming history on disk");
        }
    }
}
