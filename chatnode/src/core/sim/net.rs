//! The network: links with their faults, and the fetches.
//!
//! A listener dials a speaker; from then on the speaker's frames go to it, each with a delay, in
//! order, unless they are lost. A link that was silent for three seconds is torn down and dialled
//! again as long as its node lives. Hello is said to whom is dialled, and to whom is not heard any
//! more.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::RngExt as _;

use super::nodes::{Input, LEASE};
use super::world::{Event, NodeId, World};
use crate::core::bounds::{BEAT_SOON, SILENCE_MAX};
use crate::core::greetings::{GREET_FIRST, GREET_MAX, GREETED_FOR};
use crate::core::links::peer::{REDIAL_MAX, REDIAL_MIN};
use crate::core::news::News;
use crate::wire::frame::Topic;
use crate::wire::frame::{self};

/// What a listener knows of its link to a speaker.
#[derive(Debug)]
pub(super) struct Link {
    dial: u64,
    connected: bool,
    pub(super) up: bool,
    pub(super) heard: Duration,
}

/// What a speaker sends to one listener.
#[derive(Debug)]
struct Pipe {
    dial: u64,
    /// Frames before this are lost: the subscription has not arrived.
    from: Duration,
    last: Duration,
    /// Frames before this are dropped in silence.
    drops_until: Duration,
}

/// The state of the way from one slot to another.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Way {
    pub(super) cut_until: Option<Duration>,
    /// Whether what is sent into a cut comes after it, or is lost.
    pub(super) stalls: bool,
    /// Whether frames are lost, doubled and late here.
    pub(super) ill: bool,
}

/// The network.
#[derive(Debug)]
pub(super) struct Net {
    slots: usize,
    ways: Vec<Way>,
    pipes: BTreeMap<(NodeId, NodeId), Pipe>,
}

impl Net {
    pub(super) fn new(slots: usize) -> Self {
        Self {
            slots,
            ways: vec![Way::default(); slots * slots],
            pipes: BTreeMap::new(),
        }
    }

    pub(super) fn way(&mut self, from: usize, to: usize) -> &mut Way {
        &mut self.ways[from * self.slots + to]
    }

    pub(super) fn heal(&mut self) {
        self.ways.fill(Way::default());
    }

    pub(super) fn drop_until(&mut self, from: NodeId, listener: NodeId, until: Duration) {
        if let Some(pipe) = self.pipes.get_mut(&(from, listener)) {
            pipe.drops_until = until;
        }
    }

    pub(super) fn links(&self) -> Vec<(NodeId, NodeId, u64)> {
        let pipes = self.pipes.iter();
        pipes.map(|((s, l), pipe)| (*s, *l, pipe.dial)).collect()
    }
}

impl World {
    pub(super) fn way(&mut self, from: NodeId, to: NodeId) -> Way {
        let (from, to) = (self.nodes[from].slot, self.nodes[to].slot);
        let way = *self.net.way(from, to);
        match way.cut_until {
            Some(until) if until <= self.now => Way {
                cut_until: None,
                ..way
            },
            _ => way,
        }
    }

    pub(super) fn delay(&mut self, way: Way) -> Duration {
        let most = if way.ill {
            self.plan.delay_max
        } else {
            Duration::from_millis(2)
        };
        Duration::from_micros(100) + self.up_to(most)
    }

    /// A frame goes out to all that hear the node.
    pub(super) fn publish(&mut self, id: NodeId, news: News) {
        let frame = if self.plan.encodes {
            let decoded = frame::decode(Topic::of(&news), &frame::encode(&news));
            decoded.unwrap_or_else(|why| self.broken(format!("n{id} publishes {news:?}: {why}")))
        } else {
            news
        };
        let heard_by: Vec<NodeId> = self
            .net
            .pipes
            .range((id, 0)..(id + 1, 0))
            .map(|((_, listener), _)| *listener)
            .collect();
        for listener in heard_by {
            if let News::Ack(ack) = &frame
                && ack.to != self.nodes[listener].origin
            {
                continue;
            }
            let way = self.way(id, listener);
            let lost = way.ill && self.chance(self.plan.loss);
            let doubled = way.ill && self.chance(self.plan.doubled);
            let mut at = self.now + self.delay(way);
            if let Some(until) = way.cut_until {
                if !way.stalls {
                    continue;
                }
                at = at.max(until);
            }
            let overtakes = self.plan.reorder && way.ill;
            let counters = &mut self.outcome.counters;
            let Some(pipe) = self.net.pipes.get_mut(&(id, listener)) else {
                continue;
            };
            if self.now < pipe.from {
                counters.note("fault: slow joiner");
                continue;
            }
            if self.now < pipe.drops_until {
                counters.note("fault: frame dropped in a burst");
                continue;
            }
            if lost {
                counters.note("fault: frame lost");
                continue;
            }
            if at <= pipe.last {
                if overtakes {
                    counters.note("fault: frame overtaken");
                } else {
                    at = pipe.last + Duration::from_nanos(1);
                }
            }
            pipe.last = pipe.last.max(at);
            let dial = pipe.dial;
            let after = at - self.now;
            if doubled {
                counters.note("fault: frame doubled");
                let frame = Input::Frame(id, dial, frame.clone());
                self.at(after, Event::Input(listener, frame));
            }
            let frame = Input::Frame(id, dial, frame.clone());
            self.at(after, Event::Input(listener, frame));
        }
    }

    /// A node wants to hear another that it was told of.
    pub(super) fn dial(&mut self, id: NodeId, from: NodeId) {
        if self.nodes[id].links.contains_key(&from) {
            return;
        }
        self.begin_to_greet(id, from);
        if self.nodes[from].crashed.is_some() {
            return;
        }
        self.serial += 1;
        let dial = self.serial;
        let link = Link {
            dial,
            connected: false,
            up: false,
            heard: self.now,
        };
        self.nodes[id].links.insert(from, link);
        let there = self.way(id, from);
        let back = self.way(from, id);
        if there.cut_until.is_some() || back.cut_until.is_some() {
            self.at(
                Duration::from_millis(500),
                Event::Input(id, Input::Closed(from, dial)),
            );
            return;
        }
        let after = self.delay(there) + self.delay(back);
        self.at(after, Event::Input(id, Input::Connected(from, dial)));
    }

    /// A node says hello to another, for a while.
    fn begin_to_greet(&mut self, id: NodeId, who: NodeId) {
        let until = self.now + GREETED_FOR;
        self.at(
            BEAT_SOON,
            Event::Input(id, Input::Greet(who, GREET_FIRST, until)),
        );
    }

    /// `POST /mesh/hello`: asks for a beat, and introduces. Where nobody lives it is refused.
    pub(super) fn greet(&mut self, id: NodeId, who: NodeId, wait: Duration, until: Duration) {
        let heard = self.nodes[id].links.get(&who).is_some_and(|link| link.up);
        if heard || self.now >= until {
            return;
        }
        let (there, back) = (self.way(id, who), self.way(who, id));
        let cut = there.cut_until.is_some() || back.cut_until.is_some();
        let lost = cut || (there.ill && self.chance(self.plan.fetch_failure));
        let after = self.delay(there);
        let answered = after + self.delay(back);
        if !lost && self.nodes[who].crashed.is_some() {
            self.note("hello refused");
            return self.at(answered, Event::Input(id, Input::Greeted(who, false)));
        }
        if !lost && !self.nodes[who].frozen {
            self.at(after, Event::Input(who, Input::Hello));
            self.at(after, Event::Input(who, Input::Dial(id)));
            self.at(answered, Event::Input(id, Input::Greeted(who, true)));
        }
        let next = Input::Greet(who, (2 * wait).min(GREET_MAX), until);
        self.at(wait, Event::Input(id, next));
    }

    pub(super) fn connected(&mut self, id: NodeId, from: NodeId, dial: u64) {
        let now = self.now;
        if self.nodes[from].crashed.is_some() {
            return self.closed(id, from, dial);
        }
        let Some(link) = self.nodes[id].links.get_mut(&from) else {
            return;
        };
        if link.dial != dial {
            return;
        }
        link.connected = true;
        self.tell(|_| format!("n{id} is connected to n{from}, {dial}"));
        let Some(link) = self.nodes[id].links.get_mut(&from) else {
            return;
        };
        link.heard = now;
        let slow = self.up_to(Duration::from_millis(10));
        let pipe = Pipe {
            dial,
            from: now + slow,
            last: now,
            drops_until: Duration::ZERO,
        };
        self.net.pipes.insert((from, id), pipe);
    }

    /// A link ended.
    pub(super) fn closed(&mut self, id: NodeId, from: NodeId, dial: u64) {
        let links = &mut self.nodes[id].links;
        if links.get(&from).is_none_or(|link| link.dial != dial) {
            return;
        }
        let was = links.remove(&from);
        let up = was.as_ref().is_some_and(|link| link.up);
        let pipe = self.net.pipes.get(&(from, id));
        if pipe.is_some_and(|pipe| pipe.dial == dial) {
            self.net.pipes.remove(&(from, id));
        }
        self.tell(|_| format!("n{id} closes n{from} {was:?}"));
        if up {
            self.tell(|_| format!("n{id} hears n{from} no more"));
            let now = self.now_of(id);
            let origin = self.nodes[from].origin;
            self.clocks_changed = self.now;
            self.nodes[id].core.unlinked(now, origin);
            self.begin_to_greet(id, from);
        }
        let listed = self.nodes[from]
            .crashed
            .is_none_or(|at| self.now < at + LEASE);
        if listed {
            let again = REDIAL_MIN + self.up_to(REDIAL_MAX);
            self.at(again, Event::Input(id, Input::Dial(from)));
        }
    }

    pub(super) fn frame(&mut self, id: NodeId, from: NodeId, dial: u64, frame: News) {
        let now = self.now_of(id);
        let origin = self.nodes[from].origin;
        let lost = self.nodes[from].sent_is_lost;
        let node = &mut self.nodes[id];
        let Some(link) = node.links.get_mut(&from) else {
            return;
        };
        if link.dial != dial || lost {
            return;
        }
        if matches!(frame, News::Beat(_)) {
            link.heard = self.now;
            node.beats.insert(from, self.now);
            if !link.up {
                link.up = true;
                node.core.linked(now, origin);
            }
        }
        if !link.up {
            return;
        }
        let before = node.core.log(origin).map_or(0, |log| log.counts.gaps);
        let beat = matches!(frame, News::Beat(_));
        let lacked = |node: &super::nodes::Node| {
            let log = node.core.log(origin);
            log.is_some_and(|log| log.missing().is_some())
        };
        let lacked_before = lacked(node);
        if let News::Entries(log) = &frame {
            node.arrived(from, &log.entries, self.now);
        }
        node.core.news(now, origin, frame);
        if node.core.log(origin).map_or(0, |log| log.counts.gaps) > before {
            self.note("gap found");
        }
        if beat && !lacked_before && lacked(&self.nodes[id]) {
            self.note("tail loss noticed");
        }
    }

    /// Tears down what was silent too long.
    pub(super) fn check_links(&mut self, id: NodeId) {
        let silent: Vec<(NodeId, u64)> = self.nodes[id]
            .links
            .iter()
            .filter(|(_, link)| link.connected && self.now >= link.heard + SILENCE_MAX)
            .map(|(from, link)| (*from, link.dial))
            .collect();
        for (from, dial) in silent {
            self.note("fault: link silent");
            self.closed(id, from, dial);
        }
    }

    /// Resets a link, as a middlebox might.
    pub(super) fn reset_link(&mut self) {
        let links = self.net.links();
        if let Some((from, id, dial)) = self.pick(&links) {
            self.note("fault: link reset");
            let after = Duration::from_micros(self.rng.random_range(0..1000));
            self.at(after, Event::Input(id, Input::Closed(from, dial)));
        }
    }
}
