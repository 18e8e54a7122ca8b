//! Questions: what clients and peers want of a node's history, and what its disk reads for that.

use std::time::Duration;

use super::clients::Entering;
use super::nodes::Comes;
use super::world::{Event, NodeId, World};
use crate::core::answering::TRIES_MAX;
use crate::core::copies::Ticket;
use crate::core::question::{Found, Question, Read, ReadError, Unread};
use crate::core::repair::Fetch;
use crate::core::{Input, Output};
use crate::disk::BEYOND_TIME_MAX;
use crate::model::names::{EntryId, RoomName};
use crate::model::page::Page;

/// Who waits for an answer.
#[derive(Debug)]
pub(super) enum Waits {
    /// A client that enters its room, on a connection.
    Client(usize, u64, Box<Entering>),
    /// A peer that lacks a part of a log.
    Peer(PeerAsks),
}

/// A request of a peer.
#[derive(Debug)]
pub(super) struct PeerAsks {
    pub(super) by: NodeId,
    pub(super) request: u64,
    pub(super) fetch: Fetch,
    pub(super) at: Duration,
}

impl World {
    /// Somebody asks a node.
    pub(super) fn asks(&mut self, id: NodeId, waits: Waits, question: Question) {
        self.serial += 1;
        let ticket = Ticket(self.serial);
        self.nodes[id].waiting.insert(ticket, waits);
        self.give(id, Input::Ask(ticket, question));
    }

    /// A node has something read for a question. What there is half way through is what is read.
    pub(super) fn reads(&mut self, id: NodeId, ticket: Ticket, read: Box<Read>) {
        if self.disk_of(id).is_none() {
            self.broken(format!("n{id} reads {read:?} and has no disk"));
        }
        let takes = self.disk_takes(id);
        let slow = takes > BEYOND_TIME_MAX && matches!(*read, Read::Beyond(..));
        if let Some(Waits::Client(_, _, entering)) = self.nodes[id].waiting.get_mut(&ticket) {
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

    /// A node answers.
    pub(super) fn found(&mut self, id: NodeId, ticket: Ticket, found: Result<Found, Unread>) {
        match (self.nodes[id].waiting.remove(&ticket), found) {
            (Some(Waits::Client(client, conn, entering)), Ok(Found::Resumed(resumed, _))) => {
                self.lets_in(id, (client, conn), &entering, *resumed);
            }
            (Some(Waits::Peer(asks)), Ok(Found::Log(page))) => self.answers_log(id, &asks, page),
            (waits, found) => self.broken(format!("n{id} answers {waits:?} with {found:?}")),
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
        self.serial += 1;
        let page = Question::Page {
            room: room.clone(),
            before,
            limit,
        };
        self.give(id, Input::Ask(Ticket(self.serial), page));
        while self.nodes[id].core.has_outputs() {
            for output in self.nodes[id].core.take_outputs() {
                match output {
                    Output::Read(ticket, read) => {
                        let got = self.disk_of(id).ok_or(ReadError::Closed);
                        let got = got.map(|disk| disk.read(*read));
                        self.give(id, Input::Read(ticket, got));
                    }
                    Output::Answer(_, found) => match *found {
                        Ok(Found::Page(page)) => return Some(page),
                        Ok(Found::Unknown) => return None,
                        other => self.broken(format!("n{id} gives {other:?} for a page")),
                    },
                    other => self.effect(id, other),
                }
            }
        }
        self.broken(format!("n{id} gives no page"))
    }
}
