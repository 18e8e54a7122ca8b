//! What is asked of peers by HTTP, and answered to them: parts of logs, and members.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::time::Instant;

use super::disk::unread;
use super::{Hub, Node};
use crate::core::LogPage;
use crate::core::log::{Log, Span};
use crate::core::members::Snapshot;
use crate::core::news::News;
use crate::core::repair::Fetch;
use crate::model::names::Origin;
use crate::wire::frame::Topic;
use crate::wire::frame::{self};
use crate::wire::protocol::Refusal;

/// Bytes of entries in one answer to a repair request.
pub(crate) const LOG_PAGE_BYTES: usize = frame::BATCH_LEN_MAX / 2;
/// A repair request takes so long at the most.
pub(crate) const FETCH_MAX: Duration = Duration::from_secs(5);
/// A peer that is asked how far it is answers within this time.
pub(crate) const POSITION_MAX: Duration = Duration::from_secs(1);
/// A page that came within this time may be twice as large the next time.
const FETCH_QUICK: Duration = Duration::from_secs(1);
/// However slow a peer is, a page that is asked of it is no smaller.
pub(crate) const SLOW_PAGE_BYTES_MIN: usize = 8 << 10;

impl Hub {
    pub(super) async fn fetch(self, fetch: Fetch, url: String) {
        let (after, through) = (fetch.span.after, fetch.span.through);
        let bytes = self.look(|node| node.page_bytes(fetch.from));
        let url = format!(
            "{url}/mesh/log/{}?after={after}&through={through}&bytes={bytes}&whole={}&{}",
            fetch.origin,
            self.look(|node| node.core.is_durable()),
            self.meant(fetch.from),
        );
        let asked = Instant::now();
        let body = self.get(&url, frame::FRAME_LEN_MAX).await;
        let took = asked.elapsed();
        let page =
            body.and_then(|body| frame::decode_entries(&body).map_err(|why| why.to_string()));
        let page = match page {
            Ok(page) if page.origin == fetch.origin => Some(LogPage {
                floor: page.floor,
                entries: page.entries,
            }),
            Ok(_) => None,
            Err(why) => {
                tracing::debug!(peer = %fetch.from, origin = %fetch.origin, "repair failed: {why}");
                None
            }
        };
        self.with(|node, now| {
            node.counters.fetches_failed += u64::from(page.is_none());
            node.pace(fetch.from, bytes, page.is_some(), took);
            node.core.fetched(now, fetch.id, page);
        });
    }

    /// A part of a log for a peer that lacks it, from memory or from the disk. A peer that holds
    /// nothing of it and does not want the `whole` gets what is in memory.
    ///
    /// # Errors
    /// The disk cannot be read, now or ever.
    pub(crate) async fn log_page(
        &self,
        origin: Origin,
        span: Span,
        whole: bool,
        bytes: usize,
    ) -> Result<LogPage, Refusal> {
        let (archived, disk) =
            self.look(|node| (node.core.archived(origin, span), node.disk.clone()));
        if let (Some(archived), Some(disk), true) = (archived, disk, whole || span.after > 0) {
            let (after, through) = (archived.after, archived.through);
            let (floor, entries) = disk
                .range(origin, after, through, bytes)
                .await
                .map_err(|why| unread(&why))?;
            if !entries.is_empty() {
                return Ok(LogPage { floor, entries });
            }
        }
        Ok(self.look(|node| {
            let mut page = node.core.log_page(origin, span, bytes);
            if !whole && span.after == 0 {
                let window = node.core.log(origin).map_or(0, Log::window);
                page.floor = page.floor.max(window);
            }
            page
        }))
    }

    /// Asks a peer how far it is.
    pub(super) async fn ask_position(self, origin: Origin, url: String) {
        let url = format!("{url}/mesh/position?{}", self.meant(origin));
        let body = tokio::time::timeout(POSITION_MAX, self.get(&url, frame::FRAME_LEN_MAX)).await;
        let told = body.ok().and_then(Result::ok);
        let told = told.and_then(|body| match frame::decode(Topic::Beat, &body) {
            Ok(News::Beat(beat)) => Some(beat),
            Ok(_) | Err(_) => None,
        });
        self.with(|node, now| node.core.position_told(now, origin, told.as_ref()));
    }

    /// Asks all peers what they hold, and waits until this node holds it too: bounded, as the core
    /// says. Cancel safe.
    pub(super) async fn call_roll(&self) {
        let number = self.with(|node, now| node.core.call_roll(now));
        let mut over = self.shared.roll_over.clone();
        // The sender lives in the node, so it outlives this.
        let _ = over.wait_for(|last| *last >= number).await;
    }

    pub(super) async fn fetch_members(self, origin: Origin, url: String) {
        let body = self
            .get(
                &format!("{url}/mesh/members?{}", self.meant(origin)),
                frame::MEMBERS_LEN_MAX,
            )
            .await;
        let page =
            body.and_then(|body| frame::decode_members(&body).map_err(|why| why.to_string()));
        let snapshot = page
            .ok()
            .filter(|page| page.origin == origin)
            .map(|page| Snapshot {
                version: page.version,
                rooms: page.rooms,
            });
        self.with(|node, _| node.core.members_fetched(origin, snapshot));
    }

    /// Who is asked: whoever else is at that address by now has nothing to say.
    fn meant(&self, to: Origin) -> String {
        self.look(|node| format!("to={to}&mesh={}", node.settings.mesh))
    }

    /// The body of an answer, if it is a success and not too long.
    async fn get(&self, url: &str, bytes_max: usize) -> Result<Bytes, String> {
        let get = async {
            let mut answer = self.shared.http.get(url).send().await?.error_for_status()?;
            let mut body = BytesMut::new();
            while let Some(chunk) = answer.chunk().await? {
                body.extend_from_slice(&chunk);
                if body.len() > bytes_max {
                    return Ok(None);
                }
            }
            Ok::<_, reqwest::Error>(Some(body.freeze()))
        };
        match tokio::time::timeout(FETCH_MAX, get).await {
            Ok(Ok(Some(body))) => Ok(body),
            Ok(Ok(None)) => Err(format!("the answer is longer than {bytes_max} bytes")),
            Ok(Err(why)) => Err(why.to_string()),
            Err(_) => Err(format!("no answer within {FETCH_MAX:?}")),
        }
    }
}

impl Node {
    /// How long a page is asked of a peer.
    fn page_bytes(&self, peer: Origin) -> usize {
        let slow = self.slow_pages.get(&peer).copied();
        slow.unwrap_or(LOG_PAGE_BYTES)
    }

    /// A page was asked of a peer, and came or did not. One that did not come in time would not
    /// the next time either: then a thin wire would carry the same page for ever, and never whole.
    fn pace(&mut self, peer: Origin, bytes: usize, came: bool, took: Duration) {
        let next = if came && took <= FETCH_QUICK {
            bytes * 2
        } else if !came && took >= FETCH_MAX {
            (bytes / 2).max(SLOW_PAGE_BYTES_MIN)
        } else {
            return;
        };
        if next >= LOG_PAGE_BYTES {
            self.slow_pages.remove(&peer);
        } else {
            let peers = self.core.peers();
            self.slow_pages
                .retain(|known, _| peers.get(*known).is_some());
            self.slow_pages.insert(peer, next);
        }
    }
}
