//! Entries on disk: SQLite, one writer thread with group commit, readers apart.
//!
//! What is told as stored is synced: it survives the end of the process and of the power. The file
//! is verified whole when it is opened, and each row again when it is read; a damaged one is set
//! aside, never deleted, and what can be read of it is saved.
//!
//! ```text
//!   Disk ── one batch ──── writer ── outcomes ──▶
//!     └──── reads ──┬───── reader    answers, each to who asked
//!                   └───── reader
//! ```
//!
//! - `folder` has the lock and the names of files; `schema` the tables and what errors mean.
//! - `check` verifies a file, `salvage` saves what is left of a damaged one (`leaves`, without
//!   SQLite), `load` reads what is to be in memory, `upgrade` an older file.
//! - `writer` is the thread that writes: `write` a batch, `trim` retention, `index` the words;
//!   `whereabouts` knows whether the files are still where they were.
//! - `reader` and `search` answer. `row` and `sums` know when a row is what was written.
//! - `aside` has what came and is no message.
//! - `terms` is what all of these and their callers name: options, outcomes, errors.

mod aside;
mod check;
mod folder;
mod index;
mod leaves;
mod load;
mod reader;
mod row;
mod salvage;
mod schema;
mod search;
mod shared;
mod state;
mod sums;
mod terms;
#[cfg(test)]
mod tests;
mod time;
mod trim;
mod upgrade;
mod whereabouts;
mod write;
mod writer;

use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot, watch};

use self::folder::Folder;
use self::reader::{Job, Reader};
use self::shared::Shared;
use self::state::State;
pub(crate) use self::terms::OpenError;
pub(crate) use self::terms::{DiskOptions, DiskRetention, Outcome};
use self::writer::Writer;
use crate::core::LogPage;
use crate::core::journal::{Batch, Loaded};
use crate::core::log::Span;
use crate::core::memory;
use crate::core::question::{Got, Read, ReadError, Search};
use crate::core::resume::{RESUME_BYTES_MAX, RESUME_MESSAGES_MAX};
use crate::model::entry::{Entry, Place, TS_MAX};
use crate::model::names::{EntryId, Origin, RoomName};
use crate::model::page::{Page, RoomSummary};
use crate::model::pattern::Scope;
use crate::model::query::Query;

/// Opens the store, or makes it. Blocking; reads the whole file once, and says how far it is.
///
/// # Errors
/// If the folder cannot be used. Damage is no error: see `Loaded::set_aside`.
pub(crate) fn open(
    options: DiskOptions,
) -> Result<(Disk, Loaded, mpsc::Receiver<Outcome>), OpenError> {
    let folder = Folder::open(options.dir)?;
    let seconds = options.wall_us / 1_000_000;
    let fault = |why| folder.fault(why);
    let mut set_aside = folder.finish(seconds).map_err(fault)?;
    if !folder.has_file().map_err(fault)? {
        salvage::create(&folder, seconds)?;
    }
    let sound = match check::check(&folder)? {
        Ok(sound) => sound,
        Err(damage) => {
            set_aside = Some(salvage::replace(&folder, &damage.0, seconds)?);
            check::check(&folder)?.map_err(|damage| OpenError::Io {
                path: folder.dir().to_owned(),
                message: format!("a new file is damaged at once: {}", damage.0),
            })?
        }
    };
    let (shared, db, state, mut loaded) = take(&folder, sound, options.window)?;
    loaded.set_aside = set_aside;
    let (disk, outcomes) = start(shared, db, state, options.retention)?;
    Ok((disk, loaded, outcomes))
}

/// Reads what is to be in memory of a store that was verified.
fn take(
    folder: &Folder,
    mut sound: check::Sound,
    window: memory::Retention,
) -> Result<(Shared, Connection, State, Loaded), OpenError> {
    let shared = Shared::new(folder.clone(), std::mem::take(&mut sound.blocks));
    let loaded = load::load(sound, &shared, window);
    let (db, state, loaded) = loaded.map_err(|error| check::sql_fault(folder, &error))?;
    Ok((shared, db, state, loaded))
}

/// Starts the threads.
fn start(
    shared: Shared,
    db: Connection,
    state: State,
    retention: DiskRetention,
) -> Result<(Disk, mpsc::Receiver<Outcome>), OpenError> {
    let shared = Arc::new(shared);
    let folder = shared.folder.clone();
    let sql_fault = |error: rusqlite::Error| check::sql_fault(&folder, &error);
    let (batches, inbox) = sync_channel(BATCHES_MAX);
    let (reads, jobs) = sync_channel(READS_MAX);
    let jobs = Arc::new(Mutex::new(jobs));
    let (outcomes, told) = mpsc::channel(OUTCOMES_MAX);
    let (ends, end) = watch::channel(());
    // From here on the threads end when the handle is dropped, also on an error.
    let disk = Disk(Arc::new(Handle {
        batches: Inlet::new(batches),
        reads: Inlet::new(reads),
        jobs: Arc::clone(&jobs),
        shared: Arc::clone(&shared),
        ends,
    }));
    let spawn = |name: String, work: Box<dyn FnOnce() + Send>| {
        let end = end.clone();
        let thread = std::thread::Builder::new().name(name).spawn(move || {
            work();
            drop(end);
        });
        thread.map(drop).map_err(|why| folder.fault(why))
    };
    for number in 1..=READERS {
        let reader = Reader::new(Arc::clone(&shared)).map_err(sql_fault)?;
        let jobs = Arc::clone(&jobs);
        let work = Box::new(move || reader.run(&jobs));
        spawn(format!("disk-reader-{number}"), work)?;
    }
    let writer = Writer::new(db, state, shared, inbox, outcomes, retention);
    let writer = writer.map_err(sql_fault)?;
    spawn("disk-writer".into(), Box::new(move || writer.run()))?;
    Ok((disk, told))
}

/// Threads that read.
const READERS: usize = 2;
/// Reads that wait at the most; beyond, they are refused as [`ReadError::Busy`].
const READS_MAX: usize = 256;
/// Batches that wait at the most: the one that is handed over.
const BATCHES_MAX: usize = 1;
/// Outcomes that wait at the most. Beyond, the writer waits; what was trimmed meanwhile is told at
/// once.
const OUTCOMES_MAX: usize = 4;
/// How long a search may take.
#[cfg(not(test))]
const SEARCH_TIME_MAX: Duration = Duration::from_millis(250);
/// In tests a reader may wait so long for a processor.
#[cfg(test)]
const SEARCH_TIME_MAX: Duration = Duration::from_secs(20);
/// How long reading what lies beyond a position may take. More than a search: it is bounded by what
/// it brings, and who is refused it does not come back to where it was.
pub(crate) const BEYOND_TIME_MAX: Duration = Duration::from_secs(2);

/// A handle on the disk; cheap to clone. The threads end when the last one is dropped.
#[derive(Debug, Clone)]
pub(crate) struct Disk(Arc<Handle>);

#[derive(Debug)]
struct Handle {
    batches: Inlet<Batch>,
    reads: Inlet<Job>,
    /// The other end of `reads`, which the readers share.
    jobs: Arc<Mutex<Receiver<Job>>>,
    shared: Arc<Shared>,
    /// Each thread has a receiver: when there is none, all have ended.
    ends: watch::Sender<()>,
}

impl Handle {
    /// Ends the threads: a batch that was handed over is still written, reads that wait are dropped.
    fn close(&self) {
        self.reads.close();
        // The readers may hang; if one holds the lock, it waits for a read, and there is no more.
        let jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        jobs.try_iter().for_each(drop);
        drop(jobs);
        self.batches.close();
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.close();
    }
}

/// The way into a channel of a thread, until it is closed. Whoever puts something in never waits.
struct Inlet<T>(Mutex<Option<SyncSender<T>>>);

impl<T> Inlet<T> {
    fn new(sender: SyncSender<T>) -> Self {
        Self(Mutex::new(Some(sender)))
    }

    fn lock(&self) -> MutexGuard<'_, Option<SyncSender<T>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, item: T) -> Result<(), TrySendError<T>> {
        match &*self.lock() {
            Some(sender) => sender.try_send(item),
            None => Err(TrySendError::Disconnected(item)),
        }
    }

    fn close(&self) {
        *self.lock() = None;
    }
}

impl<T> fmt::Debug for Inlet<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Inlet")
    }
}

impl Disk {
    /// Hands a batch to the writer. One at a time: the next after the outcome (`Stored`, `Full` or
    /// `Broken`) of the one before. Never waits. Once the writer has ended nothing is written, and
    /// nothing is told.
    ///
    /// # Panics
    /// If a batch is handed over while another still waits to be taken.
    pub(crate) fn write(&self, batch: Batch) {
        match self.0.batches.push(batch) {
            Ok(()) | Err(TrySendError::Disconnected(_)) => {}
            Err(TrySendError::Full(_)) => unreachable!("batches are handed over one at a time"),
        }
    }

    /// The newest `limit` shown entries of a room before a place, oldest first; fewer, but one at
    /// least, if they hold more than `PAGE_BYTES_MAX`. As `MemoryStore::page`.
    ///
    /// # Errors
    /// `Busy`, `Broken` or `Closed`.
    pub(crate) async fn page(
        &self,
        room: &RoomName,
        before: Option<Place>,
        limit: usize,
    ) -> Result<Page, ReadError> {
        let room = room.clone();
        self.ask(move |reader| reader.read(|reader| reader.page(&room, before, limit)))
            .await
    }

    /// The place of an entry, if it is kept.
    ///
    /// # Errors
    /// `Busy`, `Broken` or `Closed`.
    pub(crate) async fn place(&self, id: EntryId) -> Result<Option<Place>, ReadError> {
        self.ask(move |reader| reader.read(|reader| reader.place(id)))
            .await
    }

    /// Entries of one origin with `after < seq <= through`, ascending, until `bytes_max` of JSON
    /// (at least one), and the floor: the number through which this log was trimmed on disk (0 for a
    /// log that is not known). Numbers that are not kept are passed over.
    ///
    /// # Errors
    /// `Busy`, `Broken` or `Closed`.
    pub(crate) async fn range(
        &self,
        origin: Origin,
        after: u64,
        through: u64,
        bytes_max: usize,
    ) -> Result<(u64, Vec<Arc<Entry>>), ReadError> {
        self.ask(move |reader| {
            reader.read(|reader| reader.range(origin, after, through, bytes_max))
        })
        .await
    }

    /// Shown entries of some rooms, of each of these spans of an origin's log, in no order. `None` if
    /// they are more than `entries_max` or `bytes_max`, or some span begins below the floor of its
    /// log on disk, or is of a log of which nothing is known here.
    ///
    /// # Errors
    /// `Busy`, `Broken` or `Closed`; `Slow` if it would take longer than [`BEYOND_TIME_MAX`].
    pub(crate) async fn beyond(
        &self,
        scope: Scope,
        spans: Vec<(Origin, Span)>,
        entries_max: usize,
        bytes_max: usize,
    ) -> Result<Option<Vec<Arc<Entry>>>, ReadError> {
        self.ask(move |reader| {
            reader.read_in_time(BEYOND_TIME_MAX, |reader| {
                reader.beyond(&scope, &spans, entries_max, bytes_max)
            })
        })
        .await
    }

    /// Shown entries of a room that have all of a query, newest `limit` before a place, oldest
    /// first; bounded as [`Disk::page`] is.
    ///
    /// # Errors
    /// `Busy`, `Broken` or `Closed`; `Slow` if it would take longer than `SEARCH_TIME_MAX`.
    pub(crate) async fn search(
        &self,
        room: &RoomName,
        query: &Query,
        before: Option<Place>,
        limit: usize,
    ) -> Result<Page, ReadError> {
        let (room, query) = (room.clone(), query.clone());
        self.ask(move |reader| {
            reader.read_in_time(SEARCH_TIME_MAX, |reader| {
                reader.search(&room, &query, before, limit)
            })
        })
        .await
    }

    /// Rooms that show something, and how many entries each shows, by name.
    ///
    /// # Errors
    /// `Busy`, `Broken` or `Closed`.
    pub(crate) async fn rooms(&self) -> Result<Vec<RoomSummary>, ReadError> {
        self.ask(|reader| reader.read(|reader| reader.rooms()))
            .await
    }

    /// Reads what the core asks for.
    ///
    /// # Errors
    /// As each of the reads; `Busy` if it asks for what is none of the disk's.
    pub(crate) async fn read(&self, read: Read) -> Result<Got, ReadError> {
        let (messages, bytes) = (RESUME_MESSAGES_MAX, RESUME_BYTES_MAX);
        Ok(match read {
            Read::Place(id) => Got::Place(self.place(id).await?),
            Read::Page(room, before, limit) => Got::Page(self.page(&room, before, limit).await?),
            Read::Beyond(scope, spans) => {
                Got::Beyond(self.beyond(scope, spans, messages, bytes).await?)
            }
            Read::Search(
                Search {
                    room, query, limit, ..
                },
                before,
            ) => Got::Page(self.search(&room, &query, before, limit).await?),
            Read::Log(origin, span, bytes) => {
                let range = self.range(origin, span.after, span.through, bytes);
                let (floor, entries) = range.await?;
                Got::Log(LogPage {
                    floor,
                    floor_ts: TS_MAX,
                    entries,
                })
            }
            Read::Rooms => Got::Rooms(self.rooms().await?),
            Read::Scan(..) => return Err(ReadError::Busy),
        })
    }

    /// Sets aside what is no message, and why; `wall_us` is microseconds since 1970.
    ///
    /// # Errors
    /// It cannot be written.
    pub(crate) async fn set_aside(
        &self,
        body: bytes::Bytes,
        why: String,
        wall_us: u64,
    ) -> std::io::Result<()> {
        let folder = self.0.shared.folder.clone();
        let put = move || aside::put(&folder, &body, &why, wall_us);
        let put = tokio::task::spawn_blocking(put).await;
        put.unwrap_or_else(|why| Err(std::io::Error::other(why)))
    }

    /// Has a reader do something. Cancel safe: if nobody waits for the answer any more when its turn
    /// comes, it is skipped.
    async fn ask<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Reader) -> Result<T, ReadError> + Send + 'static,
    ) -> Result<T, ReadError> {
        let (answer, answered) = oneshot::channel();
        let job = Job::new(move |reader| {
            if !answer.is_closed() {
                // Who asked may have gone meanwhile.
                drop(answer.send(work(reader)));
            }
        });
        self.0.reads.push(job).map_err(|refused| match refused {
            TrySendError::Full(_) => ReadError::Busy,
            TrySendError::Disconnected(_) => ReadError::Closed,
        })?;
        answered.await.unwrap_or(Err(ReadError::Closed))
    }

    /// Holds the readers up until what this gives is dropped.
    #[cfg(test)]
    pub(crate) fn hold_readers(&self) -> std::sync::mpsc::Sender<()> {
        let (held, gate) = std::sync::mpsc::channel::<()>();
        let gate = Arc::new(Mutex::new(gate));
        for _ in 0..READERS {
            let gate = Arc::clone(&gate);
            // Nothing ever comes through.
            let wait = move |_: &mut Reader| drop(gate.lock().map(|gate| gate.recv()));
            assert!(self.0.reads.push(Job::new(wait)).is_ok(), "there is room");
        }
        held
    }

    /// Entries on disk and bytes of the files, for /metrics: no wait, from atomics.
    pub(crate) fn size(&self) -> (u64, u64) {
        let shared = &self.0.shared;
        let read = |number: &std::sync::atomic::AtomicU64| number.load(Ordering::Relaxed);
        (read(&shared.entries), read(&shared.bytes))
    }

    /// Entries that are not in the index of words yet. They are found all the same, but slower.
    #[cfg(test)]
    pub(crate) fn unindexed(&self) -> u64 {
        self.0.shared.unindexed.load(Ordering::Relaxed)
    }

    /// The time by which the node goes is so far from the wall clock from now on: ages are by that time.
    pub(crate) fn correct_clock(&self, correction_us: i64) {
        self.0.shared.correct_clock(correction_us);
    }

    /// Writes what was handed over, checkpoints, marks the file as closed well, ends the threads.
    /// Waits for that at most `grace`, and says whether it was enough. Other handles can do nothing
    /// any more; reads that wait are answered with `ReadError::Closed`.
    pub(crate) async fn close(self, grace: Duration) -> bool {
        self.0.close();
        let ended = tokio::time::timeout(grace, self.0.ends.closed());
        let ended = ended.await;
        if ended.is_err() {
            let file = self.0.shared.folder.file();
            tracing::warn!(
                file = %file.display(),
                "history on disk could not be closed in time; the next start checks it"
            );
        }
        ended.is_ok()
    }
}
