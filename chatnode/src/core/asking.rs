//! Sending what is to be asked of peers. A peer of which nobody knows where its HTTP is has failed to
//! answer at once.

use std::time::Duration;

use super::clock::Now;
use super::output::Output;
use super::pace::Request;
use super::state::Core;
use crate::model::names::Origin;

impl Core {
    /// Sends what an input made this node ask.
    pub(super) fn send_requests(&mut self, now: Now) {
        // One that fails at once may be followed by another.
        while !self.requests.is_empty() {
            for request in std::mem::take(&mut self.requests) {
                self.send(request, now);
            }
        }
    }

    fn send(&mut self, request: Request, now: Now) {
        match request {
            Request::Entries(fetch) => match self.http_of(fetch.from) {
                Some(url) => {
                    let bytes = self.paces.ask(fetch.id, fetch.from);
                    self.outputs.push(Output::Fetch { fetch, url, bytes });
                }
                None => self.fetched(fetch.id, None, Duration::ZERO, now),
            },
            Request::Members(from) => match self.http_of(from) {
                Some(url) => self.outputs.push(Output::FetchMembers { from, url }),
                None => self.members_fetched(from, None),
            },
            Request::Position(from) => match self.http_of(from) {
                Some(url) => self.outputs.push(Output::AskPosition { from, url }),
                None => self.position_told(now, from, None),
            },
        }
    }

    /// Where a peer's HTTP is, if it has told.
    pub(super) fn http_of(&self, peer: Origin) -> Option<String> {
        let http = &self.peers.get(peer)?.http;
        (!http.is_empty()).then(|| http.clone())
    }
}
