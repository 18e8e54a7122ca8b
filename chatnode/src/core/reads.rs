//! Questions that wait for something to be read, or for other nodes.

use std::collections::BTreeMap;

use super::archive::{Archive, Need};
use super::copies::Ticket;
use super::question::Question;

/// Searches through memory at the same time at the most.
pub(super) const SCANS_MAX: usize = 2;

/// Questions that wait. Each client has one at the most, and so has each request over HTTP.
#[derive(Debug, Default)]
pub(super) struct Reads {
    /// The last roll call that was over, and whether clients were taken, when it was last looked who may
    /// go on: nobody may, while that stays.
    pub(super) looked: (u64, bool),
    /// Searches through memory that are under way.
    pub(super) scans: usize,
    pub(super) waiting: BTreeMap<Ticket, Asked>,
}

/// One of them.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) question: Question,
    /// What was read for it.
    pub(super) archive: Archive,
    /// How often something was asked of the disk for it.
    pub(super) tries: usize,
    pub(super) waits: Waits,
}

/// What a question waits for.
#[derive(Debug)]
pub(super) enum Waits {
    /// Something of the disk.
    Read(Option<Need>),
    /// A search through memory.
    Scan,
    /// The end of this roll call.
    Roll(u64),
    /// The node does not take clients now.
    Clients,
}
