//! All that can come to a node: see [`Input`].

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::copies::Ticket;
use super::links::fault::Fault;
use super::links::{LinkId, Target};
use super::members::Snapshot;
use super::news::{Beat, News};
use super::question::{Got, LogPage, Question, ReadError};
use super::repair::FetchId;
use crate::model::entry::Entry;
use crate::model::mesh_name::MeshName;
use crate::model::names::{Mid, Origin, RoomName, UserName};

/// What comes to a node. Nothing else changes it, but for what its disk had when it started, and the
/// clock, by which it notices that it was stopped ([`Core::time`](super::Core::time)).
#[derive(Debug)]
pub(crate) enum Input<'a> {
    /// A client says something: [`Said`](super::output::Output::Said) answers, with a disk once it is
    /// there, or [`NotSaid`](super::output::Output::NotSaid). A mid that was seen before makes no second
    /// entry, and the answer is the first one's.
    Say(Say<'a>),
    /// A connection of this node enters a room under a name.
    Enter(&'a RoomName, &'a UserName),
    /// A connection of this node leaves a room.
    Leave(&'a RoomName, &'a UserName),
    /// A client of this node types.
    Typing(&'a RoomName, &'a UserName),
    /// A foreign program said something: it becomes this node's own message.
    Foreign(Foreign<'a>),

    /// The carrier has connected a link.
    Connected(LinkId),
    /// The carrier has lost a link, or could not connect it.
    Closed(LinkId, Fault),
    /// A beat of another mesh came on a link: who is there is none of ours.
    Stranger(LinkId, MeshName),
    /// News came on a link. Only one that has proved whose it is may bring them, and only of that node.
    News(LinkId, News),

    /// The registries list other nodes, or another state of theirs is known.
    Listed(Listed),
    /// A node said hello: it is heard from now on, and hears a beat at once.
    Introduced(Target),
    /// A node said hello that is heard by a broker: it is to hear a beat at once.
    BeatAsked,
    /// A node was said hello to, and took it, or why not.
    Greeted(Origin, Option<Fault>),
    /// A peer answered a request for entries within this time, or did not.
    Fetched(FetchId, Option<LogPage>, Duration),
    /// A peer answered a request for its members, or did not.
    MembersFetched(Origin, Option<Snapshot>),
    /// A peer answered a request for its position, or did not.
    PositionTold(Origin, Option<&'a Beat>),

    /// The batch is on the disk: its own entries are said now.
    Stored,
    /// The disk is full, as it says: what waited to be said is refused, what others said waits on.
    DiskFull(String),
    /// The disk failed, and what became of its batch is not known: nothing is acknowledged any more.
    DiskBroken,
    /// The disk's retention has trimmed these logs through these numbers.
    DiskTrimmed(Vec<(Origin, u64)>),

    /// The keeper is there: it has nothing of the batch under way, for all that is known. Whether what it
    /// confirms counts as a copy.
    KeeperUp(bool),
    /// The keeper is away.
    KeeperDown,
    /// The keeper has the batch with this number.
    Kept(u64),
    /// What a keeper held of some origin's log, in order: an archive takes it in.
    FromKeeper(Origin, Vec<Arc<Entry>>),
    /// All that the keeper held when this archive started is here.
    KeeperEmpty,

    /// Somebody asks for history: [`Answer`](super::output::Output::Answer) answers, when what that
    /// takes was read.
    Ask(Ticket, Question),
    /// What a question needed was read, or could not be.
    Read(Ticket, Result<Got, ReadError>),

    /// This node is about to go: all that hear it are asked to say what they hold of it.
    AskAcks,
    /// What one turn brought is complete: if the disk is free it is given what waits for it.
    TurnOver,
    /// Time has passed. Must come by [`Core::deadline`](super::Core::deadline).
    Tick,
}

/// Where what a node says comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// One of its own clients.
    Client,
    /// A foreign program: it does not go out to foreign programs again.
    Foreign,
}

/// What a foreign program said.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Foreign<'a> {
    /// By which way it came: who is shown to have said it.
    pub(crate) by: &'a UserName,
    /// Marks it as foreign, on all nodes.
    pub(crate) mid: &'a Mid,
    /// What.
    pub(crate) text: &'a str,
}

/// Something that is said here.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Say<'a> {
    /// Names the request; comes back in [`Output::Said`](super::output::Output::Said).
    pub(crate) ticket: Ticket,
    /// Where.
    pub(crate) room: &'a RoomName,
    /// Who.
    pub(crate) from: &'a UserName,
    /// The client's own id.
    pub(crate) mid: Option<&'a Mid>,
    /// What.
    pub(crate) text: &'a str,
    /// The reply waits for so many other nodes to hold it.
    pub(crate) copies: usize,
    /// Where it comes from.
    pub(crate) source: Source,
}

/// What the registries say, all together.
#[derive(Debug, Clone, Default)]
pub(crate) struct Listed {
    /// The nodes that they list, and that are to be heard.
    pub(crate) members: Vec<Target>,
    /// Those that registries list which answer; `None` if none answers.
    pub(crate) answering: Option<BTreeSet<Origin>>,
    /// Whether every registry has been heard of: it has listed its nodes, or it failed.
    pub(crate) is_settled: bool,
}
