//! Clients that watch rooms by patterns.
//!
//! A pattern is a slot of the table of rooms: those who watch it are its audience, and what is said in any
//! of its rooms is framed into its batch, in the order in which it came. So a position that goes on with
//! each message says what was seen of all its rooms.
//!
//! A client hears each message once. Of two patterns that share a room one has all rooms of the other, so
//! the client hears by the wider one alone, and by the narrower one when the wider goes. In a room that it
//! has joined, and watches, it is in the audience of those who get what is no message: who is there, who
//! types.

#[cfg(test)]
mod tests;

use std::time::Duration;

use super::rooms::Place;
use super::rules;
use super::slot::{ConnId, Heard, Style};
use super::table::Table;
use crate::core::resumed::Ahead;
use crate::model::names::RoomName;
use crate::model::pattern::Pattern;

/// A pattern that a client watches.
#[derive(Debug)]
pub(super) struct Watch {
    pattern: Pattern,
    /// Whether the client has all that was said in these rooms: what it had not seen was brought.
    is_whole: bool,
    /// `None`: it hears these rooms by a wider pattern.
    pub(super) place: Option<Place>,
}

/// What a client has seen ahead of this node, by the rooms in which it was.
type Seen = Vec<(Pattern, Ahead)>;

impl<S> Table<S> {
    /// The patterns that a client watches.
    pub(crate) fn watched_by(&self, id: ConnId) -> impl Iterator<Item = &Pattern> {
        let watches = self.get(id).and_then(|conn| conn.watches.as_deref());
        watches.into_iter().flatten().map(|watch| &watch.pattern)
    }

    /// Of what a client wants to hear: rooms of which it has all by what it hears already.
    pub(crate) fn had_by(&self, id: ConnId, wanted: &Heard) -> Vec<Pattern> {
        let Some(conn) = self.get(id) else {
            return Vec::new();
        };
        let rooms = wanted.rooms();
        let by_itself = |heard: &Heard| heard == wanted;
        let watches = conn.watches.as_deref().into_iter().flatten();
        let watched = watches.filter(|watch| watch.is_whole);
        let watched = watched.map(|watch| Heard::Pattern(watch.pattern.clone()));
        let joined = conn.places.iter().filter(|place| place.is_whole);
        let joined = joined.map(|place| self.rooms.heard(place.room).clone());
        let others = watched.chain(joined).filter(|heard| !by_itself(heard));
        let others = others.map(|heard| heard.rooms());
        others
            .filter(|other| other.holds(&rooms) || rooms.holds(other))
            .collect()
    }

    /// Lets a client watch rooms from now on, but for what it has seen ahead of this node. If it watches
    /// them already it begins anew. `is_whole`: what it had missed is in the answer.
    pub(crate) fn watch(&mut self, id: ConnId, pattern: &Pattern, ahead: Ahead, is_whole: bool) {
        if self.get(id).is_none() {
            return;
        }
        let mut seen = self.stop_watching(id, pattern, is_whole);
        self.bring_watched(id);
        seen.push((pattern.clone(), ahead));
        let watches = self.conns[id.key as usize].watches.get_or_insert_default();
        watches.push(Watch {
            pattern: pattern.clone(),
            is_whole,
            place: None,
        });
        self.arrange(id, seen);
    }

    /// Stops a client's watching; whether it did.
    pub(crate) fn unwatch(&mut self, id: ConnId, pattern: &Pattern) -> bool {
        let did = self.watched_by(id).any(|other| other == pattern);
        if did {
            let seen = self.stop_watching(id, pattern, false);
            self.arrange(id, seen);
        }
        did
    }

    /// Stops a client's watching at all.
    pub(crate) fn unwatch_all(&mut self, id: ConnId) {
        let Some(watches) = self.get_mut(id).and_then(|conn| conn.watches.take()) else {
            return;
        };
        for place in watches.iter().filter_map(|watch| watch.place) {
            self.leave(id, place);
        }
    }

    /// Takes a pattern out of those that a client watches; what the client has seen ahead of this node of
    /// rooms that it hears still. `is_told`: what waits for it is in an answer.
    fn stop_watching(&mut self, id: ConnId, pattern: &Pattern, is_told: bool) -> Seen {
        let conn = &mut self.conns[id.key as usize];
        let Some(watches) = &mut conn.watches else {
            return Seen::new();
        };
        let Some(at) = watches.iter().position(|it| it.pattern == *pattern) else {
            return Seen::new();
        };
        let watch = watches.swap_remove(at);
        if watches.is_empty() {
            conn.watches = None;
        }
        let Some(place) = watch.place else {
            return Seen::new();
        };
        if !is_told {
            self.bring(id, place);
        }
        self.leave(id, place).within
    }

    /// Has a client hear each room by the widest pattern that it watches, or by having joined it.
    fn arrange(&mut self, id: ConnId, mut seen: Seen) {
        let widest: Vec<Pattern> = {
            let watched: Vec<&Pattern> = self.watched_by(id).collect();
            let is_widest = |pattern: &&&Pattern| {
                let mut others = watched.iter();
                let wider = others.any(|other| *other != **pattern && other.holds(pattern));
                !rules::is_heard_by_wider(wider)
            };
            watched
                .iter()
                .filter(is_widest)
                .map(|it| (*it).clone())
                .collect()
        };
        self.hear_by_wider(id, &widest, &mut seen);
        self.hear_joined(id, &widest, &mut seen);
        let conn = &self.conns[id.key as usize];
        let style = conn.style;
        for at in 0..conn.watches.as_ref().map_or(0, |watches| watches.len()) {
            let Some(watches) = self.conns[id.key as usize].watches.as_deref_mut() else {
                return;
            };
            let watch = &mut watches[at];
            if watch.place.is_some() || !widest.contains(&watch.pattern) {
                continue;
            }
            let ahead = taken(&mut seen, &watch.pattern);
            let heard = Heard::Pattern(watch.pattern.clone());
            let place = self.rooms.enter(id.key, style, &heard, ahead);
            watch.place = Some(Place {
                is_whole: watch.is_whole,
                ..place
            });
        }
        for (rooms, ahead) in seen {
            self.set_ahead(id, rooms, ahead);
        }
    }

    /// Patterns that are not the widest any more are heard by others.
    fn hear_by_wider(&mut self, id: ConnId, widest: &[Pattern], seen: &mut Seen) {
        let conn = &mut self.conns[id.key as usize];
        let watches = conn
            .watches
            .iter_mut()
            .flat_map(|watches| watches.iter_mut());
        let narrower = watches.filter(|watch| !widest.contains(&watch.pattern));
        let left: Vec<_> = narrower
            .filter_map(|watch| Some((watch.pattern.clone(), watch.place.take()?)))
            .collect();
        for (pattern, place) in left {
            self.bring(id, place);
            let mut ahead = self.leave(id, place);
            seen.append(&mut ahead.within);
            seen.push((pattern, ahead));
        }
    }

    /// Rooms that a client has joined are heard by a pattern, or by that.
    fn hear_joined(&mut self, id: ConnId, widest: &[Pattern], seen: &mut Seen) {
        for at in 0..self.conns[id.key as usize].places.len() {
            let place = self.conns[id.key as usize].places[at];
            let heard = self.rooms.heard(place.room).clone();
            let pattern = heard.rooms();
            let by_pattern = widest.iter().any(|it| it.holds(&pattern));
            let by_pattern = rules::is_heard_by_pattern(by_pattern);
            if place.is_quiet == by_pattern {
                continue;
            }
            // The client enters before it leaves, so that the room stays what it is.
            let style = self.conns[id.key as usize].style;
            let style = if by_pattern { Style::Quiet } else { style };
            let ahead = taken(seen, &pattern);
            let entered = self.rooms.enter(id.key, style, &heard, ahead);
            self.bring(id, place);
            let ahead = self.leave(id, place);
            if by_pattern {
                seen.push((pattern, ahead));
            }
            self.conns[id.key as usize].places[at] = Place {
                is_whole: place.is_whole,
                is_quiet: by_pattern,
                ..entered
            };
        }
    }

    /// Lets a client hear a room that it joins: by a pattern if it watches one of that room.
    pub(crate) fn join(&mut self, id: ConnId, room: &RoomName, ahead: Ahead, is_whole: bool) {
        self.subscribe(id, room, ahead);
        let Some(conn) = self.get_mut(id) else { return };
        if let Some(place) = conn.places.last_mut() {
            place.is_whole = is_whole;
        }
        if conn.watches.is_some() {
            self.arrange(id, Seen::new());
        }
    }

    /// What a client has seen of rooms that it hears by a pattern, ahead of this node.
    fn set_ahead(&mut self, id: ConnId, rooms: Pattern, ahead: Ahead) {
        if ahead.is_empty() {
            return;
        }
        let watches = self.get(id).and_then(|conn| conn.watches.as_deref());
        let mut heard = watches.into_iter().flatten();
        let heard = heard.find(|it| it.place.is_some() && it.pattern.holds(&rooms));
        let Some(place) = heard.and_then(|watch| watch.place) else {
            return;
        };
        // From here on it gets messages one by one.
        self.bring(id, place);
        let style = self.conns[id.key as usize].style;
        self.rooms.add_ahead(style, place, (rooms, ahead));
    }

    /// What a turn has for a client by what it watches goes to it now: before a reply whose position has it.
    pub(crate) fn bring_watched(&mut self, id: ConnId) {
        let watches = self.get(id).and_then(|conn| conn.watches.as_deref());
        let watches = watches.into_iter().flatten();
        let places: Vec<Place> = watches.filter_map(|watch| watch.place).collect();
        for place in places {
            self.bring(id, place);
        }
    }

    /// What a turn has for a client at a place goes to it now.
    fn bring(&mut self, id: ConnId, place: Place) {
        let style = self.style_at(id, place);
        let (batch, messages) = self.rooms.due(style, place);
        if batch.is_empty() {
            return;
        }
        let conn = &mut self.conns[id.key as usize];
        conn.private.extend_from_slice(batch);
        conn.private_messages += messages;
        if !std::mem::replace(&mut conn.touched, true) {
            self.touched.push(id.key);
        }
    }

    /// In which audience of a slot a client is.
    fn style_at(&self, id: ConnId, place: Place) -> Style {
        match place.is_quiet {
            true => Style::Quiet,
            false => self.conns[id.key as usize].style,
        }
    }

    /// Takes a client out of an audience; what it had seen ahead.
    pub(super) fn leave(&mut self, id: ConnId, place: Place) -> Ahead {
        let style = self.style_at(id, place);
        let (ahead, moved) = self.rooms.leave(style, place);
        if let Some((key, to)) = moved
            && let Some(conn) = self.conns.get_mut(key as usize)
            && let Some(old) = conn.place_in(to.room, to.is_quiet)
        {
            old.index = to.index;
        }
        ahead
    }

    /// How many patterns are watched.
    pub(crate) fn patterns(&self) -> usize {
        self.rooms.patterns.len()
    }

    /// Brings something to all who watch: a push, or an event for streams, made of their pattern.
    pub(crate) fn tell_watchers(&mut self, told: impl Fn(&Heard) -> [String; 2]) {
        let slots: Vec<u32> = self.rooms.patterns.slots().collect();
        for slot in slots {
            let [push, event] = told(self.rooms.heard(slot));
            self.push_at(slot, &push);
            self.push_event_at(slot, &event);
        }
    }

    /// Forgets what clients have named whose time is over.
    pub(crate) fn expire_named(&mut self, now: Duration) {
        self.rooms.expire_named(now);
    }
}

/// What is known of exactly these rooms.
fn taken(seen: &mut Seen, rooms: &Pattern) -> Ahead {
    let at = seen.iter().position(|(of, _)| of == rooms);
    at.map_or_else(Ahead::default, |at| seen.swap_remove(at).1)
}
