//! Work that has to wait: each has a task of its own, and what comes of it is told to the core.

use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Handle;
use crate::core::Input;
use crate::core::copies::Ticket;
use crate::core::question::{Got, LogPart, Read, ReadError};
use crate::core::repair::FetchId;
use crate::disk::Disk;
use crate::model::entry::Entry;
use crate::model::page::{PAGE_BYTES_MAX, Page};
use crate::model::query::Query;
use crate::peers::At;

/// One errand.
#[derive(Debug)]
pub(super) enum Errand {
    /// Ask a peer for entries.
    Fetch(FetchId, At, LogPart),
    /// Ask a peer for its members.
    FetchMembers(At),
    /// Ask a peer how far it is.
    AskPosition(At),
    /// Say hello to a peer: it is to dial back, or turns out not to be there.
    Hello(At),
    /// Read of the disk, as long as whoever asked has not gone.
    Disk(Disk, Ticket, Read, CancellationToken),
    /// Search through memory.
    Scan(Ticket, Vec<Arc<Entry>>, Query, usize),
}

impl Errand {
    /// Whether it waits for another node. Those that read for who asked here are waited for, since they
    /// end soon and somebody waits for the answer.
    pub(super) fn asks_a_peer(&self) -> bool {
        match self {
            Self::Fetch(..) | Self::FetchMembers(_) | Self::AskPosition(_) | Self::Hello(_) => true,
            Self::Disk(..) | Self::Scan(..) => false,
        }
    }
}

impl Handle {
    /// Runs an errand.
    pub(super) async fn run(self, errand: Errand) {
        let asker = self.asker();
        match errand {
            Errand::Fetch(id, at, part) => {
                let asked = Instant::now();
                let page = asker.log(&at, part).await;
                let took = asked.elapsed();
                self.with(|shell, now| {
                    shell.totals.fetches_failed += u64::from(page.is_none());
                    shell.core.handle(Input::Fetched(id, page, took), now);
                });
            }
            Errand::FetchMembers(at) => {
                let members = asker.members(&at).await;
                self.send(Input::MembersFetched(at.origin, members));
            }
            Errand::AskPosition(at) => {
                let told = asker.position(&at).await;
                self.send(Input::PositionTold(at.origin, told.as_ref()));
            }
            Errand::Hello(at) => {
                let fault = asker.hello(&at, self.identity()).await;
                self.send(Input::Greeted(at.origin, fault));
            }
            Errand::Disk(disk, ticket, read, gone) => {
                let got = tokio::select! {
                    biased;
                    got = disk.read(read) => got,
                    () = gone.cancelled() => Err(ReadError::Closed),
                };
                self.send(Input::Read(ticket, got));
            }
            Errand::Scan(ticket, entries, query, limit) => {
                let got = scan(entries, query, limit).await;
                self.send(Input::Read(ticket, got));
            }
        }
    }
}

async fn scan(entries: Vec<Arc<Entry>>, query: Query, limit: usize) -> Result<Got, ReadError> {
    let (tell, found) = oneshot::channel();
    // A thread of its own: those of the runtime may all hang in files of `--www`.
    let thread = std::thread::Builder::new().name("search".into());
    let started = thread.spawn(move || {
        // Fails if who asked has gone.
        let _ = tell.send(matching(&entries, &query, limit));
    });
    started.map_err(|_| ReadError::Busy)?;
    found.await.map(Got::Page).map_err(|_| ReadError::Busy)
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
