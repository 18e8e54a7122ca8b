//! The alphabet of frames: numbers, strings, lists, and the sum over them.

use std::sync::Arc;

use bytes::Bytes;

use super::{
    BEAT_TEXT_LEN_MAX, FrameError, HEADER_LEN, JSON_LEN_MAX, NUMBER_MAX, SHARED_ENTRIES_MIN,
    SHARED_LEN_MAX, VERSION,
};
use crate::core::news::LiveEvent;
use crate::model::entry::{self, Entry};
use crate::model::names::{Mid, Origin, RoomName, UserName};

/// An entry without its room, mid and JSON: seq, ts, and three lengths.
pub(super) const ENTRY_LEN_MIN: usize = 8 + 8 + 2 + 2 + 4;
/// The shortest event: its tag and two strings.
pub(super) const EVENT_LEN_MIN: usize = 1 + 2 + 2;
/// The shortest room of a snapshot: a string and a list.
pub(super) const ROOM_LEN_MIN: usize = 2 + 4;

const TYPING: u8 = 1;
const MEMBERS: u8 = 2;

/// What the bytes are. Not on the wire, where the topic or the path tells, but in the sum: bytes
/// of one kind never pass for another.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    Log = 1,
    Beat = 2,
    Live = 3,
    Ack = 4,
    Entries = 5,
    Members = 6,
}

/// FNV-1a over words of eight bytes. Each step is a bijection, so that a change within one word
/// is always noticed; it is no defence against someone who means it.
fn sum(kind: Kind, named: &[u8], body: &[u8]) -> u64 {
    const PRIME: u64 = 0x0100_0000_01b3;
    let mut sum = (0xcbf2_9ce4_8422_2325 ^ kind as u64).wrapping_mul(PRIME);
    for part in [named, body] {
        let (words, rest) = part.as_chunks::<8>();
        for word in words {
            sum = (sum ^ u64::from_le_bytes(*word)).wrapping_mul(PRIME);
        }
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        sum = (sum ^ u64::from_le_bytes(last)).wrapping_mul(PRIME);
        sum = (sum ^ part.len() as u64).wrapping_mul(PRIME);
    }
    sum
}

/// Builds one frame or page.
#[derive(Debug)]
pub(super) struct Writer {
    kind: Kind,
    bytes: Vec<u8>,
}

impl Writer {
    pub(super) fn new(kind: Kind, origin: Origin, body_len: usize) -> Self {
        let mut bytes = Vec::with_capacity(HEADER_LEN + body_len);
        bytes.push(VERSION);
        bytes.extend_from_slice(origin.as_bytes());
        bytes.resize(HEADER_LEN, 0);
        Self { kind, bytes }
    }

    pub(super) fn flag(&mut self, flag: bool) {
        self.bytes.push(flag.into());
    }

    pub(super) fn number(&mut self, number: u64) {
        self.bytes.extend_from_slice(&number.to_be_bytes());
    }

    fn length(&mut self, len: usize) {
        let len = u32::try_from(len).expect("no list in memory here has four billion members");
        self.bytes.extend_from_slice(&len.to_be_bytes());
    }

    /// A string of at most 65535 bytes: names, which are bounded by their types.
    pub(super) fn text(&mut self, text: &str) {
        let len = u16::try_from(text.len()).expect("names are bounded by their types");
        self.bytes.extend_from_slice(&len.to_be_bytes());
        self.bytes.extend_from_slice(text.as_bytes());
    }

    pub(super) fn origin(&mut self, origin: Origin) {
        self.bytes.extend_from_slice(origin.as_bytes());
    }

    pub(super) fn list<T>(&mut self, items: &[T], mut each: impl FnMut(&mut Self, &T)) {
        self.length(items.len());
        for item in items {
            each(self, item);
        }
    }

    pub(super) fn entries(&mut self, entries: &[Arc<Entry>]) {
        self.list(entries, |out, entry| {
            out.number(entry.seq);
            out.number(entry.ts);
            out.text(entry.room.as_str());
            out.text(entry.mid.as_ref().map_or("", Mid::as_str));
            out.length(entry.json.len());
            out.bytes.extend_from_slice(&entry.json);
        });
    }

    pub(super) fn event(&mut self, event: &LiveEvent) {
        match event {
            LiveEvent::Typing { room, name } => {
                self.bytes.push(TYPING);
                self.text(room.as_str());
                self.text(name.as_str());
            }
            LiveEvent::Members {
                version,
                room,
                joined,
                left,
            } => {
                self.bytes.push(MEMBERS);
                self.text(room.as_str());
                self.number(*version);
                for names in [joined, left] {
                    self.list(names, |out, name| out.text(name.as_str()));
                }
            }
        }
    }

    #[cfg(test)]
    pub(super) fn byte(&mut self, byte: u8) {
        self.bytes.push(byte);
    }

    pub(super) fn finish(mut self) -> Bytes {
        let (header, body) = self.bytes.split_at_mut(HEADER_LEN);
        let (named, place) = header.split_at_mut(1 + Origin::LEN);
        place.copy_from_slice(&sum(self.kind, named, body).to_be_bytes());
        self.bytes.into()
    }
}

/// What is left to read of one frame or page.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
    /// The bytes of which JSON may be a slice; else it is copied.
    shared: Option<&'a Bytes>,
}

impl<'a> Reader<'a> {
    /// Checks length, version, sum and origin, and is then at the start of the body.
    pub(super) fn open(
        kind: Kind,
        bytes: &'a [u8],
        len_max: usize,
    ) -> Result<(Origin, Self), FrameError> {
        let version = *bytes.first().ok_or(FrameError::Truncated)?;
        if version != VERSION {
            return Err(FrameError::Version(version));
        }
        if bytes.len() > len_max {
            return Err(FrameError::TooLong(bytes.len()));
        }
        let (header, body) = bytes
            .split_at_checked(HEADER_LEN)
            .ok_or(FrameError::Truncated)?;
        let (named, stated) = header.split_at(1 + Origin::LEN);
        if stated != sum(kind, named, body).to_be_bytes() {
            return Err(FrameError::Sum);
        }
        Ok((Self::new(&named[1..]).origin()?, Self::new(body)))
    }

    fn new(rest: &'a [u8]) -> Self {
        Self { rest, shared: None }
    }

    /// Lets the JSON of entries be slices of these bytes, which are those that are read, if that is
    /// worth it: see [`super`].
    pub(super) fn share(&mut self, bytes: &'a Bytes) {
        let many = self
            .rest
            .first_chunk()
            .map(|count| u32::from_be_bytes(*count));
        let many = many.is_some_and(|count| count >= SHARED_ENTRIES_MIN);
        self.shared = (many && bytes.len() <= SHARED_LEN_MAX).then_some(bytes);
    }

    /// Nothing may be left.
    pub(super) fn end(self) -> Result<(), FrameError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(FrameError::Trailing(self.rest.len()))
        }
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], FrameError> {
        let (taken, rest) = self
            .rest
            .split_at_checked(len)
            .ok_or(FrameError::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], FrameError> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(FrameError::Truncated)?;
        self.rest = rest;
        Ok(*taken)
    }

    pub(super) fn flag(&mut self) -> Result<bool, FrameError> {
        match self.array()? {
            [0] => Ok(false),
            [1] => Ok(true),
            _ => Err(FrameError::Unknown("flag")),
        }
    }

    pub(super) fn number(&mut self, what: &'static str) -> Result<u64, FrameError> {
        let number = u64::from_be_bytes(self.array()?);
        if number > NUMBER_MAX {
            Err(FrameError::Number(what))
        } else {
            Ok(number)
        }
    }

    fn length(&mut self) -> Result<usize, FrameError> {
        usize::try_from(u32::from_be_bytes(self.array()?)).map_err(|_| FrameError::Truncated)
    }

    fn text(&mut self, what: &'static str) -> Result<&'a str, FrameError> {
        let len = u16::from_be_bytes(self.array()?).into();
        std::str::from_utf8(self.take(len)?).map_err(|_| FrameError::Text(what))
    }

    /// A name or URL of a beat: it will stand in logs and on pages.
    pub(super) fn line(&mut self, what: &'static str) -> Result<String, FrameError> {
        let text = self.text(what)?;
        if text.len() > BEAT_TEXT_LEN_MAX || text.contains(char::is_control) {
            return Err(FrameError::Text(what));
        }
        Ok(text.into())
    }

    pub(super) fn origin(&mut self) -> Result<Origin, FrameError> {
        Origin::from_bytes(self.array()?).ok_or(FrameError::Text("origin"))
    }

    pub(super) fn room(&mut self) -> Result<RoomName, FrameError> {
        Ok(RoomName::of_peer(self.text("room")?)?)
    }

    fn name(&mut self) -> Result<UserName, FrameError> {
        Ok(UserName::of_peer(self.text("name")?)?)
    }

    pub(super) fn names(&mut self) -> Result<Vec<UserName>, FrameError> {
        self.list(2, Self::name)
    }

    /// A list whose members take at least `len_min` bytes each, which bounds what is allocated.
    pub(super) fn list<T>(
        &mut self,
        len_min: usize,
        mut each: impl FnMut(&mut Self) -> Result<T, FrameError>,
    ) -> Result<Vec<T>, FrameError> {
        let count = self.length()?;
        if count > self.rest.len() / len_min {
            return Err(FrameError::Truncated);
        }
        (0..count).map(|_| each(self)).collect()
    }

    /// Entries of this origin, ascending.
    pub(super) fn entries(&mut self, origin: Origin) -> Result<Vec<Arc<Entry>>, FrameError> {
        let mut seq_before = 0;
        let mut room_before: Option<RoomName> = None;
        self.list(ENTRY_LEN_MIN, |body| {
            let seq = body.number("seq")?;
            if seq <= seq_before {
                return Err(FrameError::Order(seq));
            }
            seq_before = seq;
            let ts = body.number("ts")?;
            // Neighbours are mostly of one room: then the name is checked and allocated once.
            let spelled = body.text("room")?;
            let room = match room_before.take() {
                Some(before) if before.as_str() == spelled => before,
                _ => RoomName::of_peer(spelled)?,
            };
            room_before = Some(room.clone());
            let mid = match body.text("mid")? {
                "" => None,
                mid => Some(mid.parse()?),
            };
            let json = body.json()?;
            let json = entry::respelled(&json, spelled, &room).unwrap_or(json);
            Ok(Arc::new(Entry {
                origin,
                seq,
                ts,
                room,
                mid,
                json,
            }))
        })
    }

    fn json(&mut self) -> Result<Bytes, FrameError> {
        let len = self.length()?;
        if len == 0 || len > JSON_LEN_MAX {
            return Err(FrameError::Text("length of json"));
        }
        let json = self.take(len)?;
        if json.contains(&b'\n') || std::str::from_utf8(json).is_err() {
            return Err(FrameError::Text("json"));
        }
        Ok(match self.shared {
            Some(bytes) => bytes.slice_ref(json),
            None => Bytes::copy_from_slice(json),
        })
    }

    pub(super) fn event(&mut self) -> Result<LiveEvent, FrameError> {
        match self.array()? {
            [TYPING] => Ok(LiveEvent::Typing {
                room: self.room()?,
                name: self.name()?,
            }),
            [MEMBERS] => Ok(LiveEvent::Members {
                room: self.room()?,
                version: self.number("members version")?,
                joined: self.names()?,
                left: self.names()?,
            }),
            _ => Err(FrameError::Unknown("event")),
        }
    }
}
