//! Questions: what clients and peers want of a node's history, and what its disk reads for that.

use std::time::Duration;

use tokio::sync::oneshot::error::TryRecvError;

use super::nodes::Comes;
use super::world::{Event, NodeId, World};
use crate::core::answering::TRIES_MAX;
use crate::core::copies::Ticket;
use crate::core::question::{Found, Question, Read, ReadError};
use crate::core::repair::Fetch;
use crate::core::{Input, Output};
use crate::disk::BEYOND_TIME_MAX;
use crate::model::names::{EntryId, RoomName};
use crate::model::page::Page;

/// A request of a peer.
#[derive(Debug)]
pub(super) struct PeerAsks {
    pub(super) by: NodeId,
    pub(super) request: u64,
    pub(super) fetch: Fetch,
    pub(super) at: Duration,
}

impl World {
    /// A node has something read for a question. What there is half way through is what is read.
    pub(super) fn reads(&mut self, id: NodeId, ticket: Ticket, read: Box<Read>) {
        if self.disk_of(id).is_none() {
            self.broken(format!("n{id} reads {read:?} and has no disk"));
        }
        let takes = self.disk_takes(id);
        let slow = takes > BEYOND_TIME_MAX && matches!(*read, Read::Beyond(..));
        let node = &mut self.nodes[id];
        if let Some(token) = node.core.enters(ticket)
            && let Some(conn) = node.conns.values_mut().find(|conn| conn.is(token))
            && let Some((_, entering)) = conn.entering.first_mut()
        {
            entering.reads += 1;
            entering.slow |= slow || entering.reads >= TRIES_MAX;
            self.note("read for a client");
        }
        if slow {
            let slow = Input::Read(ticket, Err(ReadError::Slow));
            return self.at(BEYOND_TIME_MAX, Event::Input(id, Comes::Input(slow)));
        }
        self.at(takes / 2, Event::Read(id, ticket, read, takes / 2));
    }

    /// A disk reads, which takes so much longer still.
    pub(super) fn read(&mut self, id: NodeId, ticket: Ticket, read: Read, rest: Duration) {
        let got = self.disk_of(id).ok_or(ReadError::Closed);
        let read = Input::Read(ticket, got.map(|disk| disk.read(read)));
        self.at(rest, Event::Input(id, Comes::Input(read)));
    }

    /// Takes what a node has answered to peers, and to who said something over HTTP.
    pub(super) fn take_answers(&mut self, id: NodeId) {
        let node = &self.nodes[id];
        if node.owes.is_empty() && node.posted.is_empty() {
            return;
        }
        for (mut found, asks) in std::mem::take(&mut self.nodes[id].owes) {
            match found.try_recv() {
                Ok(Ok(Found::Log(page))) => self.answers_log(id, &asks, page),
                Err(TryRecvError::Empty) => self.nodes[id].owes.push((found, asks)),
                other => self.broken(format!("n{id} answers {asks:?} with {other:?}")),
            }
        }
        for (mut outcome, request) in std::mem::take(&mut self.nodes[id].posted) {
            match outcome.try_recv() {
                Ok(Ok(said)) => {
                    let asked = self.said(id, request, (said.id, said.ts), said.held.copies);
                    if let Some(mid) = asked.mid {
                        self.clients[asked.client].pending.remove(&mid);
                    }
                }
                Ok(Err(_)) => self.refused(id, request),
                Err(TryRecvError::Empty) => self.nodes[id].posted.push((outcome, request)),
                Err(TryRecvError::Closed) => self.broken(format!("n{id} forgets {request}")),
            }
        }
    }

    /// A page of a room, read at once; `None` if what it stands before is not known.
    pub(super) fn page_of(
        &mut self,
        id: NodeId,
        room: &RoomName,
        before: Option<EntryId>,
        limit: usize,
    ) -> Option<Page> {
        let page = Question::Page {
            room: room.clone(),
            before,
            limit,
        };
        let now = self.now_of(id);
        let mut answer = self.nodes[id].core.ask(page, now);
        loop {
            for output in self.nodes[id].core.settle(now) {
                match output {
                    Output::Read(ticket, read) => {
                        let got = self.disk_of(id).ok_or(ReadError::Closed);
                        let got = got.map(|disk| disk.read(*read));
                        self.give(id, Input::Read(ticket, got));
                    }
                    other => self.effect(id, other),
                }
            }
            match answer.try_recv() {
                Ok(Ok(Found::Page(page))) => return Some(page),
                Ok(Ok(Found::Unknown)) => return None,
                Err(TryRecvError::Empty) if self.nodes[id].core.has_outputs() => {}
                other => self.broken(format!("n{id} gives {other:?} for a page")),
            }
        }
    }
}
