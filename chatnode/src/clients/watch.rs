//! Clients that ask to watch rooms: what they had missed of them, and that they are told from then on.

use serde::Serialize;
use serde_json::value::RawValue;

use super::request::Watch;
use super::session::RequestId;
use super::slot::{ConnId, Heard};
use super::waiting::Waiting;
use super::{Clients, tell};
use crate::core::named::Named;
use crate::core::question::{Question, Resume};
use crate::core::resumed::Resumed;
use crate::core::{Core, Now};
use crate::model::pattern::{Pattern, Scope};
use crate::wire::protocol::{self, PATTERNS_MAX, Refusal};
use crate::wire::refusals::mids_wanted;

/// What `watch` is answered.
#[derive(Debug, Serialize)]
struct Watched<'a> {
    rooms: &'a Pattern,
    recovered: bool,
    at: Box<RawValue>,
    messages: Box<RawValue>,
}

impl Clients {
    /// A client asks to watch.
    pub(super) fn watch(
        &mut self,
        core: &mut Core,
        id: ConnId,
        rid: RequestId,
        watch: Watch,
        now: Now,
    ) {
        let Watch {
            rooms,
            since,
            named,
        } = watch;
        let others = self.table.watched_by(id).filter(|it| **it != rooms);
        if others.count() >= PATTERNS_MAX {
            let message = format!("at most {PATTERNS_MAX} patterns a connection");
            return self.refuse(id, &rid, &Refusal::new("pattern_limit", message));
        }
        let resume = Resume {
            scope: self.scope(id, &Heard::Pattern(rooms.clone())),
            since,
            named: Named {
                mids: self.take_named(id, &rooms),
                behind: named,
            },
            history: 0,
        };
        let waiting = Waiting::Watch(id, rid, rooms);
        self.ask_for(core, id, waiting, Question::Resume(resume), now);
    }

    /// What a client has to be brought of what it wants to hear, besides what it hears already.
    pub(super) fn scope(&self, id: ConnId, wanted: &Heard) -> Scope {
        Scope {
            rooms: wanted.rooms(),
            except: self.table.had_by(id, wanted),
        }
    }

    /// A client watches from now on, and is told what it had missed.
    pub(super) fn watched(
        &mut self,
        id: ConnId,
        rid: &RequestId,
        rooms: &Pattern,
        resumed: Resumed,
        named: Named,
    ) {
        if !resumed.unnamed.is_empty() {
            self.put_named(id, rooms, named.mids);
            return self.refuse(id, rid, &mids_wanted(&resumed.unnamed));
        }
        // First, since what a turn has for it already comes before the reply.
        self.table
            .watch(id, rooms, resumed.ahead, resumed.recovered);
        let watched = Watched {
            rooms,
            recovered: resumed.recovered,
            at: protocol::position(&resumed.at),
            messages: protocol::entries(resumed.entries.iter().map(|entry| &**entry)),
        };
        self.reply_asked(id, rid, "watch", &watched);
        let heard = Heard::Pattern(rooms.clone());
        for (origin, span) in &resumed.gaps {
            let gap = tell::gap_of(&heard, origin, span);
            self.table.send_asked(id, &protocol::push("gap", &gap));
        }
    }

    /// A client asks to watch no more.
    pub(super) fn unwatch(&mut self, id: ConnId, rid: &RequestId, rooms: &Pattern) {
        if self.table.unwatch(id, rooms) {
            let rooms = serde_json::json!({ "rooms": rooms });
            return self.reply(id, rid, "unwatch", &rooms);
        }
        let refusal = Refusal::new("not_watched", "this pattern is not watched");
        self.refuse(id, rid, &refusal);
    }
}
