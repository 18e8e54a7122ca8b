//! The bytes that nodes exchange: frames on the mesh, pages of entries and of members over HTTP.
//!
//! A frame is a header and a body. The header is the version, the origin whose frame it is, and a
//! sum over all the rest; in the body integers are big-endian, strings and lists stand behind their
//! lengths. The topic is not in it: that is another part of the message (see [`Topic`]).
//!
//! Whatever decodes is within its limits, so that nothing behind this door checks again: numbers
//! fit a signed 64-bit integer (so that adding one cannot overflow), JSON is UTF-8 on one line, as
//! text frames for browsers need it, and a length on the wire never makes this node allocate more
//! than the bytes it has received. What entries keep is never a slice of what ZeroMQ read, which pins
//! a whole read buffer, but of the frame's own copy. They let go of it together, since neighbours in
//! a log are trimmed together; so an origin holds more than its entries by one frame at the most, and
//! only frames up to [`SHARED_LEN_MAX`] are shared so. Of a frame with few entries, and of a page,
//! which is long and may bring what is here already, each entry keeps a copy of its own. A damaged
//! frame is refused, not repaired: the numbers of the log will miss it and fetch it again.

mod wire;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use bytes::Bytes;

use crate::core::news::{Ack, Beat, Entries, Live, News};
use crate::model::entry::{Entry, TS_MAX};
use crate::model::names::{EntryId, InvalidName, Origin, RoomName, UserName};
use wire::{Kind, Reader, Writer};

/// The version of all these bytes. A node drops what another version says, and counts it.
const VERSION: u8 = 1;
/// Bytes of the header: version, origin, sum.
pub(crate) const HEADER_LEN: usize = 1 + Origin::LEN + 8;
/// Entries are gathered into one frame, or one page, up to this many bytes of [`entry_len`].
pub(crate) const BATCH_LEN_MAX: usize = 1 << 20;
/// Longest frame or page of entries: a full batch, one more entry, and slack. Longer is refused.
pub(crate) const FRAME_LEN_MAX: usize = BATCH_LEN_MAX + (128 << 10);
/// Entries keep slices of a log frame up to this length,
const SHARED_LEN_MAX: usize = 128 << 10;
/// if it has so many of them at the least: what stands between them is kept too, and costs a lone
/// one more than a copy does.
const SHARED_ENTRIES_MIN: u32 = 8;
/// Longest snapshot of members.
pub(crate) const MEMBERS_LEN_MAX: usize = 16 << 20;
/// Longest JSON of an entry.
const JSON_LEN_MAX: usize = 64 << 10;
/// Longest name or URL in a beat, in bytes; [`encode`] cuts what is longer.
const BEAT_TEXT_LEN_MAX: usize = 255;
/// Most origins in a beat's position, and in its list of those heard; [`encode`] leaves out more.
pub(crate) const BEAT_ORIGINS_MAX: usize = 16_384;
/// Greatest number on the wire; timestamps are no exception.
const NUMBER_MAX: u64 = TS_MAX;

/// What a frame is about; the first part of the message on the wire, as it is in the mesh without a
/// name of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Topic {
    /// `m1.log`: entries.
    Log,
    /// `m1.beat`: who is there and what it holds.
    Beat,
    /// `m1.live`: what may be lost: typing, changes of members.
    Live,
    /// `m1.ack.<origin>`: a position for that origin, which alone subscribes to it.
    Ack(Origin),
}

impl Topic {
    /// What this is published under.
    pub(crate) fn of(news: &News) -> Self {
        match news {
            News::Entries(_) => Self::Log,
            News::Beat(_) => Self::Beat,
            News::Live(_) => Self::Live,
            News::Ack(ack) => Self::Ack(ack.to),
        }
    }
}

/// Entries of one origin, as an answer to a request for repair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EntriesPage {
    /// Whose entries they are.
    pub(crate) origin: Origin,
    /// The `seq` through which the answering node has trimmed this log; 0 is nothing.
    pub(crate) floor: u64,
    /// The stamp of the last that it has trimmed; [`TS_MAX`] if it does not know.
    pub(crate) floor_ts: u64,
    /// Ascending, possibly with holes.
    pub(crate) entries: Vec<Arc<Entry>>,
}

/// All members of one origin, as an answer to a node that missed a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MembersPage {
    /// Whose clients they are.
    pub(crate) origin: Origin,
    /// The version of the whole.
    pub(crate) version: u64,
    /// Who is where.
    pub(crate) rooms: Vec<(RoomName, Vec<UserName>)>,
}

/// Why bytes were refused. Nothing changed; drop them and count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameError {
    /// From a node of another version.
    #[error("version {0}, this node speaks {VERSION}")]
    Version(u8),
    /// Longer than the limit for its kind.
    #[error("{0} bytes are too long")]
    TooLong(usize),
    /// It ends before it should.
    #[error("truncated")]
    Truncated,
    /// It goes on after it should have ended.
    #[error("{0} bytes too many")]
    Trailing(usize),
    /// The sum is another: damaged, or published under another topic.
    #[error("the sum does not match")]
    Sum,
    /// A name outside its alphabet or limits.
    #[error(transparent)]
    Name(#[from] InvalidName),
    /// A string that is not UTF-8, too long, or with characters that do not belong there.
    #[error("invalid {0}")]
    Text(&'static str),
    /// A number outside its limits.
    #[error("{0} out of range")]
    Number(&'static str),
    /// A flag or tag that this version does not know.
    #[error("unknown {0}")]
    Unknown(&'static str),
    /// Sequence numbers that do not ascend, or have a hole where there must be none.
    #[error("entries out of order at {0}")]
    Order(u64),
}

/// Bytes that this entry takes in a frame or page; for whoever gathers them up to
/// [`BATCH_LEN_MAX`].
pub(crate) fn entry_len(entry: &Entry) -> usize {
    wire::ENTRY_LEN_MIN
        + entry.room.as_str().len()
        + entry.mid.as_ref().map_or(0, |mid| mid.as_str().len())
        + entry.json.len()
}

/// The frame as bytes, header and body. A batch beyond the limits becomes bytes that every decoder
/// refuses.
pub(crate) fn encode(frame: &News) -> Bytes {
    match frame {
        News::Entries(log) => {
            let len = 5 + log
                .entries
                .iter()
                .map(|entry| entry_len(entry))
                .sum::<usize>();
            let mut out = Writer::new(Kind::Log, log.origin, len);
            out.flag(log.ack_wanted);
            out.entries(&log.entries);
            out.finish()
        }
        News::Beat(beat) => encode_beat(beat),
        News::Live(live) => {
            let mut out = Writer::new(Kind::Live, live.origin, 64 * (live.events.len() + 1));
            out.list(&live.events, |out, event| out.event(event));
            out.finish()
        }
        News::Ack(ack) => {
            let mut out = Writer::new(Kind::Ack, ack.from, 8);
            out.number(ack.through);
            out.finish()
        }
    }
}

fn encode_beat(beat: &Beat) -> Bytes {
    let position = &beat.position[..beat.position.len().min(BEAT_ORIGINS_MAX)];
    let hears = &beat.hears[..beat.hears.len().min(BEAT_ORIGINS_MAX)];
    let lists = position.len() * (Origin::LEN + 8) + hears.len() * Origin::LEN;
    let texts = 3 * (2 + BEAT_TEXT_LEN_MAX);
    let mut out = Writer::new(Kind::Beat, beat.origin, 41 + texts + lists);
    for text in [&beat.name, &beat.http, &beat.publisher] {
        out.text(&text[..text.floor_char_boundary(BEAT_TEXT_LEN_MAX)]);
    }
    out.number(beat.ts);
    out.number(beat.clock);
    out.number(beat.head);
    out.number(beat.members_version);
    out.flag(beat.ready);
    out.list(position, |out, id| {
        out.origin(id.origin);
        out.number(id.seq);
    });
    out.list(hears, |out, origin| out.origin(*origin));
    out.finish()
}

/// Whose frame it says to be, before anything else of it is looked at.
pub(crate) fn origin_of(bytes: &[u8]) -> Option<Origin> {
    let named = bytes.get(1..=Origin::LEN)?;
    std::str::from_utf8(named).ok()?.parse().ok()
}

/// The frame that came under this topic, header and body.
///
/// # Errors
/// [`FrameError`], whatever the bytes are; it never panics.
pub(crate) fn decode(topic: Topic, bytes: &Bytes) -> Result<News, FrameError> {
    match topic {
        Topic::Log => {
            let (origin, mut body) = Reader::open(Kind::Log, bytes, FRAME_LEN_MAX)?;
            let ack_wanted = body.flag()?;
            body.share(bytes);
            let entries = body.entries(origin)?;
            let mut pairs = entries.windows(2);
            if let Some(pair) = pairs.find(|pair| pair[0].seq + 1 != pair[1].seq) {
                return Err(FrameError::Order(pair[1].seq));
            }
            body.end()?;
            Ok(News::Entries(Entries {
                origin,
                ack_wanted,
                entries,
            }))
        }
        Topic::Beat => decode_beat(bytes),
        Topic::Live => {
            let (origin, mut body) = Reader::open(Kind::Live, bytes, FRAME_LEN_MAX)?;
            let events = body.list(wire::EVENT_LEN_MIN, Reader::event)?;
            body.end()?;
            Ok(News::Live(Live { origin, events }))
        }
        Topic::Ack(to) => {
            let (from, mut body) = Reader::open(Kind::Ack, bytes, FRAME_LEN_MAX)?;
            let through = body.number("through")?;
            body.end()?;
            Ok(News::Ack(Ack { from, to, through }))
        }
    }
}

fn decode_beat(bytes: &[u8]) -> Result<News, FrameError> {
    let (origin, mut body) = Reader::open(Kind::Beat, bytes, FRAME_LEN_MAX)?;
    let beat = Beat {
        origin,
        name: body.line("name")?,
        http: body.line("http")?,
        publisher: body.line("publisher")?,
        ts: body.number("ts")?,
        clock: body.number("clock")?,
        head: body.number("head")?,
        members_version: body.number("members version")?,
        ready: body.flag()?,
        position: body.list(Origin::LEN + 8, |body| {
            Ok(EntryId {
                origin: body.origin()?,
                seq: body.number("position")?,
            })
        })?,
        hears: body.list(Origin::LEN, Reader::origin)?,
    };
    body.end()?;
    if beat.position.len().max(beat.hears.len()) > BEAT_ORIGINS_MAX {
        return Err(FrameError::Number("origins in a beat"));
    }
    Ok(News::Beat(beat))
}

/// A page of entries as bytes.
pub(crate) fn encode_entries(page: &EntriesPage) -> Bytes {
    let len = 20
        + page
            .entries
            .iter()
            .map(|entry| entry_len(entry))
            .sum::<usize>();
    let mut out = Writer::new(Kind::Entries, page.origin, len);
    out.number(page.floor);
    out.number(page.floor_ts);
    out.entries(&page.entries);
    out.finish()
}

/// The page of entries in these bytes.
///
/// # Errors
/// [`FrameError`], whatever the bytes are; it never panics.
pub(crate) fn decode_entries(bytes: &[u8]) -> Result<EntriesPage, FrameError> {
    let (origin, mut body) = Reader::open(Kind::Entries, bytes, FRAME_LEN_MAX)?;
    let page = EntriesPage {
        origin,
        floor: body.number("floor")?,
        floor_ts: body.number("floor's stamp")?,
        entries: body.entries(origin)?,
    };
    body.end()?;
    Ok(page)
}

/// A snapshot of members as bytes.
pub(crate) fn encode_members(page: &MembersPage) -> Bytes {
    let mut out = Writer::new(Kind::Members, page.origin, 64 * (page.rooms.len() + 1));
    out.number(page.version);
    out.list(&page.rooms, |out, (room, names)| {
        out.text(room.as_str());
        out.list(names, |out, name| out.text(name.as_str()));
    });
    out.finish()
}

/// The snapshot of members in these bytes.
///
/// # Errors
/// [`FrameError`], whatever the bytes are; it never panics.
pub(crate) fn decode_members(bytes: &[u8]) -> Result<MembersPage, FrameError> {
    let (origin, mut body) = Reader::open(Kind::Members, bytes, MEMBERS_LEN_MAX)?;
    let version = body.number("members version")?;
    let rooms = body.list(wire::ROOM_LEN_MIN, |body| Ok((body.room()?, body.names()?)))?;
    body.end()?;
    Ok(MembersPage {
        origin,
        version,
        rooms,
    })
}
