//! The replicated log, pure: input and time in, outputs out. No socket, no clock, no runtime.
//!
//! Each node keeps one append-only log of what its own clients said, numbered 1, 2, 3, …, and a
//! copy of every other node's. Order, duplicates, gaps, repair, resume and acknowledgement are
//! statements about positions in logs:
//!
//! - an entry whose number is the next is **accepted**: kept, shown in its room's transcript at its
//!   place `(ts, origin)`, and delivered to the room's clients here;
//! - one below is a **duplicate**; one above is **held back**, and what is between is **repaired**
//!   ([`repair`]);
//! - a **beat** says how far a node's log reaches and what it holds of all others, so a lost tail
//!   is noticed without another entry, and what a dead node said is found at whoever has it;
//! - a client that comes back names the position it has seen, and gets what is beyond ([`resume`]).
//!
//! All that can happen to a node is an [`Input`], and all that it can do is an [`Output`]. The caller reads
//! the clocks, moves the bytes, and carries the outputs out in order.

pub(crate) mod rules;

// All that comes, and all that is done.
pub(crate) mod input;
pub(crate) mod output;

// What a node is made of.
mod archive;
mod awaited;
mod bounds;
pub(crate) mod clock;
pub(crate) mod copies;
mod greetings;
pub(crate) mod journal;
pub(crate) mod keeper;
pub(crate) mod links;
pub(crate) mod log;
pub(crate) mod members;
pub(crate) mod memory;
pub(crate) mod mids;
pub(crate) mod named;
pub(crate) mod news;
mod nodes;
mod notices;
pub(crate) mod pace;
mod peers;
pub(crate) mod position;
pub(crate) mod presence;
pub(crate) mod question;
mod reads;
pub(crate) mod repair;
pub(crate) mod resumed;
mod rolls;
mod state;
pub(crate) mod stops;
mod time;

// What becomes of what comes.
mod accepting;
mod answering;
mod asking;
#[cfg(test)]
mod by_hand;
mod clocks;
pub(crate) mod from_keeper;
mod hearing;
mod joining;
mod journaling;
mod keeping;
mod linking;
mod mending;
mod naming;
mod neighbours;
mod paging;
pub(crate) mod resume;
mod roll_call;
pub(crate) mod saying;
mod ticking;
mod views;

#[cfg(test)]
mod properties;
#[cfg(test)]
mod sim;
#[cfg(test)]
mod tests;

pub(crate) use self::bounds::{ORIGINS_MAX, SILENCE_MAX};
pub(crate) use self::clock::Now;
pub(crate) use self::input::{Foreign, Input, Say, Source};
pub(crate) use self::output::Output;
pub(crate) use self::question::LogPage;
pub(crate) use self::state::{Core, CoreOptions, Identity};

impl Core {
    /// The one way in. What it brings is in [`Core::take_outputs`]. The time is that of [`Core::time`].
    pub(crate) fn handle(&mut self, input: Input<'_>, now: Now) {
        self.look(now);
        match input {
            Input::Say(say) => self.say(now, say),
            Input::Enter(room, name) => self.enter(room, name),
            Input::Leave(room, name) => self.leave(room, name),
            Input::Typing(room, name) => self.typing(room, name),
            Input::Foreign(said) => self.foreign(said, now),

            Input::Connected(link) => self.connected(link, now),
            Input::Closed(link, fault) => self.closed(link, fault, now),
            Input::Stranger(link, mesh) => self.stranger(link, &mesh, now),
            Input::News(link, news) => self.news_on(link, news, now),

            Input::Listed(listed) => self.listed(listed, now),
            Input::BeatAsked => self.ask_beat(now),
            Input::Introduced(target) => self.introduced(target, now),
            Input::Greeted(peer, outcome) => self.greeted(peer, outcome.as_ref(), now),
            Input::Fetched(id, page, took) => self.fetched(id, page, took, now),
            Input::MembersFetched(peer, members) => self.members_fetched(peer, members),
            Input::PositionTold(peer, told) => self.position_told(now, peer, told),

            Input::Stored => self.stored(now),
            Input::DiskFull(why) => self.disk_full(why, now),
            Input::DiskBroken => self.disk_broken(),
            Input::DiskTrimmed(floors) => self.disk_trimmed(now, floors),

            Input::KeeperUp(counts) => self.keeper_up(counts),
            Input::KeeperDown => self.keeper_down(),
            Input::Kept(number) => self.keeper_kept(number, now),
            Input::FromKeeper(origin, entries) => self.take_from_keeper(origin, entries, now),
            Input::KeeperEmpty => self.keeper_empty(now),

            Input::Ask(ticket, question) => self.ask(now, ticket, question),
            Input::Read(ticket, got) => self.was_read(now, ticket, got),

            Input::AskAcks => self.ask_acks(now),
            Input::TurnOver => {
                self.feed_disk(now);
                self.feed_keeper();
            }
            Input::Tick => self.tick(now),
        }
        loop {
            self.send_requests(now);
            // Last of all, so that whoever is answered gets one cut of what is brought to it.
            self.go_on_answering(now);
            if self.requests.is_empty() {
                return;
            }
        }
    }
}
