//! The node and its disk: batches go out, outcomes come back, and requests for what is older than
//! memory wait for a reader without holding anybody up.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::sync::oneshot;

use super::{Errand, Hub, Node};
use crate::clients::ConnId;
use crate::core::Now;
use crate::core::archive::{Archive, Beyond, Need};
use crate::core::durable::{Health, NotTaken};
use crate::disk::{Outcome, ReadError};
use crate::model::entry::{Entry, Place};
use crate::model::names::{EntryId, RoomName};
use crate::model::page::{PAGE_BYTES_MAX, Page, RoomSummary};
use crate::model::query::Query;
use crate::shell::pages::{HistoryPage, id_unknown};
use crate::wire::protocol::{self, Refusal};

/// A request is answered with what there is when it was made so often.
pub(crate) const READS_OF_REQUEST_MAX: usize = 5;
/// Searches through memory at the same time at the most.
pub(super) const SEARCHES_MAX: usize = 2;
/// When to try again what the disk had no room or no time for.
const RETRY_MS: u64 = 1000;

/// A request of a client that waits for the disk: it is made again with what was read.
#[derive(Debug)]
pub(crate) struct Late {
    /// Whose.
    pub(crate) conn: ConnId,
    /// The request, as it came.
    pub(crate) line: Box<str>,
    /// Of this room
    pub(crate) room: RoomName,
    /// this is needed.
    pub(crate) need: Need,
}

/// A search, its values checked.
#[derive(Debug)]
pub(crate) struct Search {
    /// Where.
    pub(crate) room: RoomName,
    /// For what.
    pub(crate) query: Query,
    /// Before this entry.
    pub(crate) before: Option<EntryId>,
    /// How many.
    pub(crate) limit: usize,
}

impl Hub {
    /// Follows what becomes of the batches until the process stops, or the disk fails.
    ///
    /// # Errors
    /// The disk failed: what it was given may be lost, and the process must end.
    pub(crate) async fn run_disk(
        self,
        mut outcomes: mpsc::Receiver<Outcome>,
    ) -> anyhow::Result<()> {
        let stopped = self.tasks().stopping();
        loop {
            let outcome = tokio::select! {
                biased;
                outcome = outcomes.recv() => outcome,
                () = stopped.cancelled() => return Ok(()),
            };
            match outcome {
                Some(Outcome::Broken(why)) => {
                    self.with(|node, _| node.disk_broken());
                    anyhow::bail!(
                        "the disk failed: {why}; nothing is acknowledged any more. The next start \
                         checks what is there"
                    );
                }
                Some(outcome) => self.with(|node, now| node.disk_outcome(outcome, now)),
                None => anyhow::bail!("the thread that writes to the disk has ended"),
            }
        }
    }

    /// Asks the node, and reads from its disk what that needs, until it answers.
    ///
    /// # Errors
    /// The disk cannot be read, now or ever.
    pub(crate) async fn with_archive<T>(
        &self,
        room: &RoomName,
        mut ask: impl FnMut(&mut Node, Now, &Archive) -> Result<T, Need>,
    ) -> Result<T, Refusal> {
        let mut archive = Archive::default();
        let mut reads = 0;
        loop {
            self.ready().await;
            let asked = self.with(|node, now| {
                let takes = node.takes_clients();
                takes.then(|| ask(node, now, &archive))
            });
            match asked {
                // The node was stopped between the two.
                None => continue,
                Some(Ok(answer)) => return Ok(answer),
                Some(Err(need)) => self.fetch_archive(room, need, &mut archive).await?,
            }
            reads += 1;
            archive.is_last = reads >= READS_OF_REQUEST_MAX;
        }
    }

    async fn fetch_archive(
        &self,
        room: &RoomName,
        need: Need,
        archive: &mut Archive,
    ) -> Result<(), Refusal> {
        use crate::core::resume::{RESUME_BYTES_MAX, RESUME_MESSAGES_MAX};
        if need == Need::Others {
            self.call_roll().await;
            archive.others_asked = true;
            return Ok(());
        }
        let Some(disk) = self.look(|node| node.disk.clone()) else {
            archive.is_last = true;
            return Ok(());
        };
        match need {
            Need::Others => {}
            Need::Place(id) => {
                archive.place = Some(disk.place(id).await.map_err(|why| unread(&why))?)
            }
            Need::Page {
                before,
                limit,
                trims,
            } => {
                let page = disk
                    .page(room, before, limit)
                    .await
                    .map_err(|why| unread(&why))?;
                archive.page = Some((page, trims));
            }
            Need::Beyond(spans) => {
                let (messages, bytes) = (RESUME_MESSAGES_MAX, RESUME_BYTES_MAX);
                let entries = match disk.beyond(room, spans.clone(), messages, bytes).await {
                    // What cannot be replayed is said, and is no error: the client goes on.
                    Err(ReadError::Slow) => None,
                    read => read.map_err(|why| unread(&why))?,
                };
                archive.read_beyond(Beyond { spans, entries });
            }
        }
        Ok(())
    }

    /// Reads what a client's request needs, and makes it again.
    pub(super) async fn late(self, late: Late) {
        let outcome = self
            .with_archive_first(&late.room, late.need, |node, now, archive| {
                node.chat_again(late.conn, &late.line, archive, now)
            })
            .await;
        self.with(|node, _| {
            if let Err(refusal) = outcome {
                node.chat_refused(late.conn, &late.line, &refusal);
            }
            node.disk_answered(late.conn);
        });
    }

    async fn with_archive_first(
        &self,
        room: &RoomName,
        need: Need,
        mut ask: impl FnMut(&mut Node, Now, &Archive) -> Result<(), Need>,
    ) -> Result<(), Refusal> {
        let mut first = Some(need);
        self.with_archive(room, |node, now, archive| match first.take() {
            Some(need) => Err(need),
            None => ask(node, now, archive),
        })
        .await
    }

    /// Searches a client's room, and answers.
    pub(super) async fn late_search(
        self,
        conn: ConnId,
        request: Option<serde_json::Number>,
        search: Search,
    ) {
        let found = self.search(&search).await;
        self.with(|node, _| {
            node.answer_search(conn, request, &search.room, found);
            node.disk_answered(conn);
        });
    }

    /// Searches a room: on the disk by its index, in memory by reading all of the room.
    ///
    /// # Errors
    /// `overloaded`, `search_slow`, `id_unknown`.
    pub(crate) async fn search(&self, search: &Search) -> Result<HistoryPage, Refusal> {
        let place = match search.before {
            None => None,
            Some(id) => Some(self.place_of(&search.room, id).await?),
        };
        let disk = self.look(|node| node.disk.clone());
        let page = match disk {
            Some(disk) => disk
                .search(&search.room, &search.query, place, search.limit)
                .await
                .map_err(|why| unread(&why))?,
            None => self.search_memory(search, place).await?,
        };
        Ok(HistoryPage::of(&page))
    }

    /// Rooms on the disk and how many messages each has there; none without a disk.
    ///
    /// # Errors
    /// The disk cannot be read, now or ever.
    pub(crate) async fn rooms_on_disk(&self) -> Result<Vec<RoomSummary>, Refusal> {
        match self.look(|node| node.disk.clone()) {
            Some(disk) => disk.rooms().await.map_err(|why| unread(&why)),
            None => Ok(Vec::new()),
        }
    }

    async fn place_of(&self, room: &RoomName, id: EntryId) -> Result<Place, Refusal> {
        self.with_archive(room, |node, _, archive| node.core.place_of(id, archive))
            .await?
            .ok_or_else(id_unknown)
    }

    async fn search_memory(&self, search: &Search, before: Option<Place>) -> Result<Page, Refusal> {
        let busy = || Refusal::new("overloaded", "this node searches for others already");
        let turn = self.look(|node| Arc::clone(&node.searches).try_acquire_owned());
        let turn = turn.map_err(|_| busy())?;
        let entries = self.look(|node| node.core.transcript(&search.room, before));
        let (query, limit) = (search.query.clone(), search.limit);
        let (tell, found) = oneshot::channel();
        // A thread of its own: those of the runtime may all hang in files of `--www`.
        let thread = std::thread::Builder::new().name("search".into());
        let started = thread.spawn(move || {
            let _turn = turn;
            // Fails if who asked has gone.
            let _ = tell.send(matching(&entries, &query, limit));
        });
        started.map_err(|_| busy())?;
        found.await.map_err(|_| busy())
    }
}

/// The newest entries whose text has what is looked for; `entries` is the newest first.
fn matching(entries: &[Arc<Entry>], query: &Query, limit: usize) -> Page {
    let mut page = Page::default();
    let mut bytes = 0;
    for entry in entries {
        if !entry.text().is_some_and(|text| query.matches(&text)) {
            continue;
        }
        if page.entries.len() >= limit || bytes >= PAGE_BYTES_MAX {
            page.more = true;
            break;
        }
        bytes += entry.json.len();
        page.entries.push(Arc::clone(entry));
    }
    page.entries.reverse();
    page
}

pub(super) fn unread(why: &ReadError) -> Refusal {
    let code = match why {
        ReadError::Busy => "overloaded",
        ReadError::Slow => "search_slow",
        ReadError::Broken(_) | ReadError::Closed => "storage_broken",
    };
    Refusal::new(code, why.to_string())
}

/// What a client is told whose message was not taken.
pub(super) fn not_taken(why: NotTaken) -> Refusal {
    let (code, message) = match why {
        NotTaken::Full => (
            "storage_full",
            "this node's disk is full: the message was not taken",
        ),
        NotTaken::Busy => (
            "overloaded",
            "this node's disk does not keep up: the message was not taken",
        ),
        NotTaken::Broken => (
            "storage_broken",
            "this node's disk failed, and the node stops: go to another",
        ),
    };
    Refusal {
        retry_ms: Some(RETRY_MS),
        ..Refusal::new(code, message)
    }
}

impl Node {
    /// Gives the disk what waits for it, if it is free.
    pub(super) fn feed_disk(&mut self, now: Now) {
        if let Some(disk) = &self.disk
            && let Some(batch) = self.core.next_batch(now)
        {
            self.counters.batches += 1;
            disk.write(batch);
        }
    }

    fn disk_outcome(&mut self, outcome: Outcome, now: Now) {
        let before = self.core.disk_health();
        match outcome {
            Outcome::Stored => {
                self.core.stored(now);
                if matches!(before, Some(Health::Full(_))) {
                    tracing::info!("the disk has room again: messages are taken");
                }
            }
            Outcome::Full(why) => {
                self.core.disk_full(now);
                if before == Some(Health::Fine) {
                    tracing::error!(
                        "the disk is full ({why}): messages are refused until there is room; \
                         reading goes on"
                    );
                }
            }
            Outcome::Trimmed(floors) => self.core.disk_trimmed(now, floors),
            Outcome::Broken(_) => self.disk_broken(),
        }
    }

    fn disk_broken(&mut self) {
        self.core.disk_broken();
        self.ready.send_replace(false);
    }

    /// A client's request was answered that had waited for the disk: its next ones are looked at.
    fn disk_answered(&mut self, conn: ConnId) {
        let Some(of) = self.clients.get_mut(conn) else {
            return;
        };
        // What waits behind it is looked at by the client's own task, which comes back soon.
        of.session.waits = false;
        self.if_said_all(conn);
    }

    fn answer_search(
        &mut self,
        conn: ConnId,
        request: Option<serde_json::Number>,
        room: &RoomName,
        found: Result<HistoryPage, Refusal>,
    ) {
        let Some(request) = request else { return };
        let reply = match found {
            Ok(page) => {
                let found = serde_json::json!({
                    "room": room, "messages": page.messages, "more": page.more,
                });
                protocol::reply(&request, "search", &found)
            }
            Err(refusal) => protocol::error(Some(&request), &refusal),
        };
        self.clients.send_asked(conn, &reply);
    }

    /// Lets a client's request wait for the disk.
    pub(crate) fn wait_for_disk(&mut self, conn: ConnId, errand: Errand) {
        if let Some(of) = self.clients.get_mut(conn) {
            of.session.waits = true;
            self.errands.push(errand);
        }
    }
}
