//! What is asked of peers by HTTP, and answered to them: parts of logs, and members.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::time::Instant;

use super::Hub;
use super::disk::unread;
use crate::core::log::{Log, Span};
use crate::core::members::Snapshot;
use crate::core::news::News;
use crate::core::pace::{FETCH_MAX, LOG_PAGE_BYTES};
use crate::core::repair::Fetch;
use crate::core::{Input, LogPage};
use crate::model::names::Origin;
use crate::wire::frame::{self, Topic};
use crate::wire::protocol::Refusal;

// What a peer is asked for fits into a frame.
const _: () = assert!(LOG_PAGE_BYTES <= frame::BATCH_LEN_MAX / 2);
/// A peer that is asked how far it is answers within this time.
const POSITION_MAX: Duration = Duration::from_secs(1);

impl Hub {
    pub(super) async fn fetch(self, fetch: Fetch, url: String, bytes: usize) {
        let (after, through) = (fetch.span.after, fetch.span.through);
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
            node.core.handle(Input::Fetched(fetch.id, page, took), now);
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
        let told = told.as_ref();
        self.with(|node, now| node.core.handle(Input::PositionTold(origin, told), now));
    }

    /// Asks all peers what they hold, and waits until this node holds it too: bounded, as the core
    /// says. Cancel safe.
    pub(super) async fn call_roll(&self) {
        let number = self.with(|node, now| {
            let number = node.core.next_roll();
            node.core.handle(Input::CallRoll, now);
            number
        });
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
        self.with(|node, now| {
            node.core
                .handle(Input::MembersFetched(origin, snapshot), now)
        });
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
