//! What the carrier tells of links, and what [`links`](super::links) make of it.

use std::time::Duration;

use super::clock::Now;
use super::links::fault::Fault;
use super::links::{Effect, LinkId, Speech, heard_at};
use super::news::{Beat, News};
use super::output::{Notice, Output};
use super::state::Core;
use crate::model::mesh_name::MeshName;

impl Core {
    /// The carrier has connected a link.
    pub(super) fn connected(&mut self, link: LinkId, now: Now) {
        let effects = self.links.connected(now.mono, link);
        self.link_effects(effects, now);
        // Once more: now the beat that it asks for will be heard.
        self.introduce(link, now);
        if self.links.is_hall(link) {
            self.beat_soon(now);
        }
    }

    /// The carrier has lost a link, or could not connect it.
    pub(super) fn closed(&mut self, link: LinkId, fault: Fault, now: Now) {
        let effects = self.links.closed(now.mono, link, fault);
        self.link_effects(effects, now);
    }

    /// A beat of another mesh came on a link.
    pub(super) fn stranger(&mut self, link: LinkId, mesh: &MeshName, now: Now) {
        let effects = self.links.stranger(now.mono, link, mesh);
        self.link_effects(effects, now);
    }

    /// News came on a link. Only one that has proved whose it is may speak, and only for that origin.
    pub(super) fn news_on(&mut self, link: LinkId, news: News, now: Now) {
        let clock = self.time.clock(now);
        let mut told = None;
        if let News::Beat(beat) = &news {
            let effects = self.links.beat(now.mono, link, beat);
            self.link_effects(effects, now);
            if beat.origin == self.me.origin {
                // One clock says when it went and when it came.
                let echo = Duration::from_micros(now.wall_us.saturating_sub(beat.clock));
                return self.links.echoed(link, echo);
            }
            self.beat_on(link, beat, now);
            told = Some(beat.ts);
        }
        let Some(origin) = self.links.origin_of(link) else {
            return;
        };
        if told.is_some() && !self.links.leads(link) {
            return;
        }
        self.news(now, origin, news);
        if let Some(ts) = told {
            self.expect_listed(now);
            self.update_nodes();
            self.tell_wrong_clocks(origin, ts, clock);
        }
    }

    /// Says hello until the peer hears us, and remembers where it was seen alive.
    fn beat_on(&mut self, link: LinkId, beat: &Beat, now: Now) {
        if self.links.origin_of(link) != Some(beat.origin) {
            return;
        }
        self.nodes.remember(&beat.http);
        if beat.hears.contains(&self.me.origin) {
            self.greetings.end(beat.origin);
            return;
        }
        let is_by_broker = self.links.is_by_broker(link);
        if is_by_broker {
            // It has subscribed meanwhile, and waits for a beat.
            self.beat_soon(now);
        }
        if self.greetings.go_on(beat.origin, &beat.http, now.mono) {
            return;
        }
        if is_by_broker {
            self.greetings
                .begin_late(beat.origin, beat.http.clone(), now.mono);
        } else {
            self.begin_to_greet(beat.origin, beat.http.clone(), now);
        }
    }

    /// Begins to say hello to who should be on a link: it dials back, and beats at once.
    fn introduce(&mut self, link: LinkId, now: Now) {
        let http = self.links.http_of(link).unwrap_or_default().to_owned();
        match self.links.expected_on(link) {
            Some(origin) if self.links.is_by_broker(link) => {
                self.greetings.begin_late(origin, http, now.mono);
            }
            Some(origin) => self.begin_to_greet(origin, http, now),
            None => {}
        }
    }

    /// Does what the links decided.
    pub(super) fn link_effects(&mut self, effects: Vec<Effect>, now: Now) {
        for effect in effects {
            match effect {
                Effect::Dial {
                    link,
                    endpoint,
                    speech,
                } => {
                    let is_by_broker = heard_at(&endpoint).is_some();
                    self.outputs.push(Output::Dial {
                        link,
                        endpoint,
                        speech,
                    });
                    if speech == Speech::Mesh {
                        self.introduce(link, now);
                    }
                    if is_by_broker {
                        // Who comes there learns of others by their beats.
                        self.beat_soon(now);
                    }
                }
                Effect::HangUp { link } => self.outputs.push(Output::HangUp(link)),
                Effect::Up { origin } => {
                    self.notice(Notice::LinkUp(origin));
                    self.linked(now, origin);
                }
                Effect::Down { origin } => {
                    self.notice(Notice::LinkDown(origin));
                    self.notices.forget(origin);
                    self.unlinked(now, origin);
                    // Whether it is dead, or only not heard, is seen where its HTTP is.
                    let http = self.http_of(origin).unwrap_or_default();
                    self.begin_to_greet(origin, http, now);
                    self.update_nodes();
                }
                Effect::HallUp { endpoint } => {
                    self.notice(Notice::HallUp(endpoint));
                    self.update_nodes();
                }
                Effect::HallDown { endpoint } => self.notice(Notice::HallDown(endpoint)),
                Effect::Unlinked {
                    origin,
                    endpoint,
                    fault,
                } => self.notice(Notice::NotLinked {
                    origin,
                    endpoint,
                    fault,
                }),
                Effect::Silent { link, origin } => self.notice(Notice::Silent { link, origin }),
            }
        }
    }

    fn notice(&mut self, notice: Notice) {
        self.outputs.push(Output::Notice(notice));
    }
}
