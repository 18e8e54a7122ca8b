//! Questions that wait for something to be read, or for other nodes.

use std::collections::BTreeMap;

use super::archive::{Archive, Need};
use super::copies::Ticket;
use super::question::Question;

/// Questions that wait. Each client has one at the most, and so has each request over HTTP.
#[derive(Debug, Default)]
pub(super) struct Reads {
    pub(super) waiting: BTreeMap<Ticket, Asked>,
}

/// One of them.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) question: Question,
    /// What was read for it.
    pub(super) archive: Archive,
    pub(super) tries: usize,
    pub(super) waits: Waits,
}

/// What a question waits for.
#[derive(Debug)]
pub(super) enum Waits {
    /// Something of the disk.
    Read(Option<Need>),
    /// The end of this roll call.
    Roll(u64),
    /// The node does not take clients now.
    Clients,
}
