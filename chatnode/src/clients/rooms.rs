//! Who hears which room, or the rooms of which pattern, and what the turn has for them.

use std::collections::HashMap;
use std::time::Duration;

use slab::Slab;

use super::patterns::Patterns;
use super::rules;
use super::slot::{Heard, Part, Style, narrow};
use super::spool::{ChunkId, Spool};
use crate::core::resumed::Ahead;
use crate::model::names::RoomName;
use crate::model::pattern::Pattern;

/// Bytes of empty batch buffers that are kept for the next turn, over all rooms: a room without
/// messages owns none.
const SPARE_BYTES_MAX: usize = 1 << 20;
/// A buffer that has grown larger is given back.
const SPARE_EACH_MAX: usize = 256 << 10;

/// Where a connection stands in a room's list.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) room: u32,
    pub(super) index: u32,
    /// Whether the client has all that was said there: what it had not seen was brought.
    pub(super) is_whole: bool,
    /// Whether it hears what is said by a pattern, and here the rest alone.
    pub(super) is_quiet: bool,
}

/// A connection in a room.
#[derive(Debug)]
pub(super) struct Subscriber {
    pub(super) key: u32,
    /// How much of this turn's batch was before it entered.
    pub(super) skip: usize,
    /// What it has seen before this node: it gets its messages one by one until that has passed.
    /// Boxed, since it is rare: a word instead of three for all others.
    pub(super) ahead: Option<Box<Ahead>>,
}

/// What goes to a room's clients of one style.
#[derive(Debug, Default)]
pub(super) struct Audience {
    pub(super) subscribers: Vec<Subscriber>,
    pub(super) batch: Vec<u8>,
    pub(super) messages: u32,
    /// What becomes of this turn's batch, if somebody does not take all of it,
    chunk: Option<ChunkId>,
    /// and what became of an earlier one.
    last: Option<ChunkId>,
    /// How many subscribers have something ahead.
    filtered: usize,
}

/// A room, or the rooms of a pattern together.
#[derive(Debug)]
pub(super) struct Room {
    heard: Heard,
    chat: Audience,
    plain: Audience,
    events: Audience,
    quiet: Audience,
    touched: bool,
}

impl Room {
    pub(super) fn audience(&self, style: Style) -> &Audience {
        match style {
            Style::Chat => &self.chat,
            Style::Plain => &self.plain,
            Style::Events => &self.events,
            Style::Quiet => &self.quiet,
        }
    }

    pub(super) fn audience_mut(&mut self, style: Style) -> &mut Audience {
        match style {
            Style::Chat => &mut self.chat,
            Style::Plain => &mut self.plain,
            Style::Events => &mut self.events,
            Style::Quiet => &mut self.quiet,
        }
    }

    fn audiences(&mut self) -> [&mut Audience; 4] {
        [
            &mut self.chat,
            &mut self.plain,
            &mut self.events,
            &mut self.quiet,
        ]
    }
}

/// Rooms that somebody hears.
#[derive(Debug, Default)]
pub(super) struct Rooms {
    rooms: Slab<Room>,
    names: HashMap<RoomName, u32>,
    pub(super) patterns: Patterns,
    touched: Vec<u32>,
    spare: Vec<Vec<u8>>,
    spare_bytes: usize,
}

impl Rooms {
    pub(super) fn index(&self, name: &RoomName) -> Option<u32> {
        self.names.get(name).copied()
    }

    pub(super) fn room(&self, index: u32) -> &Room {
        &self.rooms[index as usize]
    }

    pub(super) fn heard(&self, index: u32) -> &Heard {
        &self.rooms[index as usize].heard
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &RoomName> {
        self.names.keys()
    }

    pub(super) fn has_output(&self) -> bool {
        !self.touched.is_empty()
    }

    pub(super) fn touched(&self) -> &[u32] {
        &self.touched
    }

    /// The slot of what is heard.
    fn slot(&mut self, heard: &Heard) -> u32 {
        let slot = match heard {
            Heard::Room(room) => self.index(room),
            Heard::Pattern(pattern) => self.patterns.slot(pattern),
        };
        if let Some(slot) = slot {
            return slot;
        }
        let slot = narrow(self.rooms.insert(Room {
            heard: heard.clone(),
            chat: Audience::default(),
            plain: Audience::default(),
            events: Audience::default(),
            quiet: Audience::default(),
            touched: false,
        }));
        match heard {
            Heard::Room(room) => drop(self.names.insert(room.clone(), slot)),
            Heard::Pattern(pattern) => self.patterns.insert(pattern, slot),
        }
        slot
    }

    pub(super) fn enter(&mut self, key: u32, style: Style, heard: &Heard, ahead: Ahead) -> Place {
        let room = self.slot(heard);
        let audience = self.rooms[room as usize].audience_mut(style);
        let ahead = (!ahead.is_empty()).then(|| Box::new(ahead));
        audience.filtered += usize::from(ahead.is_some());
        let index = narrow(audience.subscribers.len());
        let skip = rules::was_before(audience.batch.len());
        audience.subscribers.push(Subscriber { key, skip, ahead });
        Place {
            room,
            index,
            is_whole: false,
            is_quiet: style == Style::Quiet,
        }
    }

    /// What a turn has for a connection at a place and is not written yet: it is, from now on. About how
    /// many messages that is.
    pub(super) fn due(&mut self, style: Style, place: Place) -> (&[u8], u32) {
        let audience = self.rooms[place.room as usize].audience_mut(style);
        let subscriber = &mut audience.subscribers[place.index as usize];
        let skip = std::mem::replace(&mut subscriber.skip, audience.batch.len());
        match subscriber.ahead {
            // It had each by itself.
            Some(_) => (&[], 0),
            None => (&audience.batch[skip..], audience.messages),
        }
    }

    /// A connection has seen something more ahead of this node, of some of what it hears at a place.
    pub(super) fn add_ahead(&mut self, style: Style, place: Place, seen: (Pattern, Ahead)) {
        let audience = self.rooms[place.room as usize].audience_mut(style);
        let subscriber = &mut audience.subscribers[place.index as usize];
        audience.filtered += usize::from(subscriber.ahead.is_none());
        subscriber.ahead.get_or_insert_default().within.push(seen);
    }

    /// Forgets what clients have named whose time is over.
    pub(super) fn expire_named(&mut self, now: Duration) {
        for (_, room) in &mut self.rooms {
            for audience in room.audiences() {
                if audience.filtered > 0 {
                    let some = audience.subscribers.iter_mut();
                    let ahead = some.filter_map(|subscriber| subscriber.ahead.as_mut());
                    ahead.for_each(|ahead| ahead.expire(now));
                }
            }
        }
    }

    /// Takes a connection out: what it had seen ahead. Another may have been moved to its place: which.
    pub(super) fn leave(&mut self, style: Style, place: Place) -> (Ahead, Option<(u32, Place)>) {
        let room = &mut self.rooms[place.room as usize];
        let audience = room.audience_mut(style);
        let left = audience.subscribers.swap_remove(place.index as usize);
        audience.filtered -= usize::from(left.ahead.is_some());
        let moved = audience.subscribers.get(place.index as usize);
        let moved = moved.map(|subscriber| (subscriber.key, place));
        if room.audiences().iter().all(|it| it.subscribers.is_empty()) {
            let mut room = self.rooms.remove(place.room as usize);
            match &room.heard {
                Heard::Room(name) => drop(self.names.remove(name)),
                Heard::Pattern(pattern) => self.patterns.remove(pattern),
            }
            if room.touched {
                self.touched.retain(|touched| *touched != place.room);
            }
            for audience in room.audiences() {
                self.keep(std::mem::take(&mut audience.batch));
            }
        }
        (left.ahead.map_or_else(Ahead::default, |it| *it), moved)
    }

    /// Adds to a room's batch. Those who do not take the batch are handed to `alone`, one by one,
    /// with what was added, unless they `have_seen` it.
    pub(super) fn append(
        &mut self,
        index: u32,
        style: Style,
        frame: impl FnOnce(&mut Vec<u8>),
        have_seen: impl FnMut(&mut Ahead) -> bool,
        alone: impl FnMut(u32, &Ahead, &[u8]),
    ) {
        let room = &mut self.rooms[index as usize];
        let audience = room.audience_mut(style);
        if audience.batch.capacity() == 0
            && let Some(spare) = self.spare.pop()
        {
            self.spare_bytes -= spare.capacity();
            audience.batch = spare;
        }
        let start = audience.batch.len();
        frame(&mut audience.batch);
        audience.messages += 1;
        if audience.filtered > 0 {
            audience.apart(start, have_seen, alone);
        }
        if !std::mem::replace(&mut room.touched, true) {
            self.touched.push(index);
        }
    }

    /// Lists who takes a room's batch; `false` if nobody does.
    pub(super) fn collect(
        &mut self,
        room: u32,
        style: Style,
        parts: &mut Vec<(u32, Part)>,
    ) -> bool {
        let before = parts.len();
        let audience = self.rooms[room as usize].audience_mut(style);
        let length = audience.batch.len();
        for subscriber in &mut audience.subscribers {
            let skip = std::mem::take(&mut subscriber.skip);
            if skip < length && subscriber.ahead.is_none() {
                parts.push((subscriber.key, Part::Batch { room, style, skip }));
            }
        }
        parts.len() > before
    }

    /// The chunk for this turn's batch of a room.
    pub(super) fn chunk(&mut self, room: u32, style: Style, spool: &mut Spool) -> ChunkId {
        let audience = self.rooms[room as usize].audience_mut(style);
        let (len, messages, last) = (audience.batch.len(), audience.messages, audience.last);
        *audience
            .chunk
            .get_or_insert_with(|| spool.add(len, messages, last))
    }

    /// The turn is over: all batches have been written, or are chunks now.
    pub(super) fn clear(&mut self, spool: &mut Spool) {
        for index in std::mem::take(&mut self.touched) {
            let room = &mut self.rooms[index as usize];
            room.touched = false;
            let mut batches = Vec::with_capacity(4);
            for audience in room.audiences() {
                audience.messages = 0;
                let batch = std::mem::take(&mut audience.batch);
                batches.push(match audience.chunk.take() {
                    Some(chunk) => {
                        audience.last = Some(chunk);
                        spool.fill(chunk, batch)
                    }
                    None => Some(batch),
                });
            }
            for batch in batches.into_iter().flatten() {
                self.keep(batch);
            }
        }
    }

    fn keep(&mut self, mut batch: Vec<u8>) {
        let bytes = batch.capacity();
        if bytes > 0 && bytes <= SPARE_EACH_MAX && self.spare_bytes + bytes <= SPARE_BYTES_MAX {
            batch.clear();
            self.spare_bytes += bytes;
            self.spare.push(batch);
        }
    }
}

impl Audience {
    /// Gives what was added to those who have something ahead, unless it is that. One that has
    /// caught up takes the batches from here on.
    fn apart(
        &mut self,
        start: usize,
        mut have_seen: impl FnMut(&mut Ahead) -> bool,
        mut alone: impl FnMut(u32, &Ahead, &[u8]),
    ) {
        for subscriber in &mut self.subscribers {
            let Some(ahead) = &mut subscriber.ahead else {
                continue;
            };
            if !have_seen(ahead) {
                alone(subscriber.key, ahead, &self.batch[start..]);
            }
            if ahead.is_empty() {
                subscriber.ahead = None;
                subscriber.skip = self.batch.len();
                self.filtered -= 1;
            }
        }
    }
}
