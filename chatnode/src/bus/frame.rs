//! Temporary types.
use crate::replica::entry::Entry;
use crate::replica::names::*;
use std::sync::Arc;
#[derive(Debug, Clone, PartialEq)]
pub enum Frame {
    Log(LogFrame),
    Beat(Beat),
    Live(LiveFrame),
    Ack(AckFrame),
}
#[derive(Debug, Clone, PartialEq)]
pub struct LogFrame {
    pub origin: Origin,
    pub ack_wanted: bool,
    pub entries: Vec<Arc<Entry>>,
}
#[derive(Debug, Clone, PartialEq)]
pub struct Beat {
    pub origin: Origin,
    pub name: String,
    pub http: String,
    pub publisher: String,
    pub ts: u64,
    pub head: u64,
    pub position: Vec<EntryId>,
    pub hears: Vec<Origin>,
    pub members_version: u64,
    pub ready: bool,
}
#[derive(Debug, Clone, PartialEq)]
pub struct LiveFrame {
    pub origin: Origin,
    pub events: Vec<LiveEvent>,
}
#[derive(Debug, Clone, PartialEq)]
pub enum LiveEvent {
    Typing {
        room: RoomName,
        name: UserName,
    },
    Members {
        version: u64,
        room: RoomName,
        joined: Vec<UserName>,
        left: Vec<UserName>,
    },
}
#[derive(Debug, Clone, PartialEq)]
pub struct AckFrame {
    pub from: Origin,
    pub through: u64,
}
