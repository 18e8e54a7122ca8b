//! Brokers: where nodes meet in some worlds, instead of linking each to each or besides.
//!
//! A broker stands at a place of its own in the network, so that ways to it are cut and ill as others are. A
//! node has one session there, which its hall stands for; it says what it says to the broker, and the
//! broker to all whose subscriptions it has. It keeps nothing. What it loses it loses in silence.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::RngExt as _;

use super::net::{Pipe, PipeId, Way};
use super::nodes::Comes;
use super::world::{Event, NodeId, World};
use crate::carriers::dial::DIAL_TIMEOUT;
use crate::core::Input;
use crate::core::bounds::SILENCE_MAX;
use crate::core::links::fault::{Fault, Why};
use crate::core::links::{LinkId, Speech, Target, Via, heard_at};

/// One broker.
#[derive(Debug, Default)]
pub(super) struct Broker {
    /// It is dead until then.
    dead_until: Duration,
    /// It is stopped until then: what is on its way comes late.
    stopped_until: Duration,
    /// Whose session stands, by which hall.
    sessions: BTreeMap<NodeId, LinkId>,
    /// Whose subscriptions are dead, though their sessions stand and all they say is taken; since when.
    deaf: BTreeMap<NodeId, Duration>,
    /// What these say is taken and goes to nobody, though they hear all; since when.
    mute: BTreeMap<NodeId, Duration>,
}

/// A node without its own echo has left the broker after this.
const LEFT_WITHIN: Duration = SILENCE_MAX.saturating_add(Duration::from_millis(500));

fn url(nth: usize) -> String {
    format!("bus://{nth}")
}

/// The halls that a node dials in a world with so many brokers.
pub(super) fn halls(brokers: usize) -> Vec<Target> {
    let hall = |nth: usize| Target {
        origin: None,
        endpoint: url(nth),
        http: String::new(),
        speech: Speech::Hall,
        via: Via::Broker(u8::try_from(nth).expect("a few")),
    };
    (0..brokers).map(hall).collect()
}

/// At which broker an endpoint is.
fn broker_at(endpoint: &str) -> Option<usize> {
    let rest = endpoint.strip_prefix("bus://")?;
    rest.split('#').next()?.parse().ok()
}

impl World {
    /// Where a broker stands in the network.
    pub(super) fn place_of(&self, broker: usize) -> usize {
        self.plan.slots + broker
    }

    fn way_to(&mut self, id: NodeId, broker: usize) -> Way {
        let (slot, place) = (self.nodes[id].slot, self.place_of(broker));
        self.way_between(slot, place)
    }

    fn way_from(&mut self, broker: usize, id: NodeId) -> Way {
        let (slot, place) = (self.nodes[id].slot, self.place_of(broker));
        self.way_between(place, slot)
    }

    /// A node dials a broker, or whom it would hear there. Whether it is such a dial.
    pub(super) fn dials_at_broker(&mut self, id: NodeId, link: LinkId, endpoint: &str) -> bool {
        let Some(broker) = broker_at(endpoint) else {
            return false;
        };
        match heard_at(endpoint).and_then(|origin| self.ledger.node(origin)) {
            Some(other) => self.subscribe(id, link, broker, other),
            None => self.dial_broker(id, link, broker),
        }
        true
    }

    fn dial_broker(&mut self, id: NodeId, link: LinkId, broker: usize) {
        // The hall brings what this node itself says there.
        self.nodes[id].dialled.insert(link, id);
        self.nodes[id].halls.insert(link, broker);
        let (there, back) = (self.way_to(id, broker), self.way_from(broker, id));
        let it = &self.brokers[broker];
        let cut = there.cut_until.is_some() || back.cut_until.is_some();
        let silent = cut || self.now < it.stopped_until;
        let (after, input) = if silent {
            let fault = Fault::new(Why::TimedOut, "timed out");
            (DIAL_TIMEOUT, Input::Closed(link, fault))
        } else if self.now < it.dead_until {
            let refused = Input::Closed(link, Fault::refused());
            (Duration::from_millis(1), refused)
        } else {
            let after = self.delay(there) + self.delay(back);
            (after, Input::Connected(link))
        };
        self.at(after, Event::Input(id, Comes::Input(input)));
    }

    fn subscribe(&mut self, id: NodeId, link: LinkId, broker: usize, other: NodeId) {
        self.nodes[id].dialled.insert(link, other);
        let (there, back) = (self.way_to(id, broker), self.way_from(broker, id));
        let stands = self.brokers[broker].sessions.contains_key(&id);
        let (after, input) = if stands {
            let pipe = Pipe::begun(self.now, Some(broker));
            self.net.add((other, id, link), pipe);
            let after = self.delay(there) + self.delay(back);
            (after, Input::Connected(link))
        } else {
            let fault = Fault::new(Why::Unreachable, "no session");
            (Duration::ZERO, Input::Closed(link, fault))
        };
        self.at(after, Event::Input(id, Comes::Input(input)));
    }

    /// The hall of a node is connected: all who are there hear its beats, and it hears theirs, if nothing
    /// has ended that meanwhile.
    pub(super) fn meets(&mut self, id: NodeId, link: LinkId, broker: usize) -> bool {
        let it = &mut self.brokers[broker];
        if self.now < it.dead_until {
            return false;
        }
        it.sessions.insert(id, link);
        it.deaf.remove(&id);
        it.mute.remove(&id);
        let others: Vec<(NodeId, LinkId)> = it.sessions.iter().map(|(id, at)| (*id, *at)).collect();
        for (other, at) in others {
            for (from, to, hall) in [(other, id, link), (id, other, at)] {
                let mut pipe = Pipe::begun(self.now, Some(broker));
                pipe.is_hall = true;
                self.net.add((from, to, hall), pipe);
            }
        }
        true
    }

    /// A node's session at a broker is over.
    pub(super) fn parts(&mut self, id: NodeId, link: LinkId) {
        let Some(broker) = self.nodes[id].halls.remove(&link) else {
            return;
        };
        let it = &mut self.brokers[broker];
        if it.sessions.get(&id) == Some(&link) {
            it.sessions.remove(&id);
            it.deaf.remove(&id);
            it.mute.remove(&id);
            self.net.parts(id, broker);
        }
    }

    /// A node is dead: no broker has its session any more.
    pub(super) fn is_at_no_broker(&mut self, id: NodeId) {
        for nth in 0..self.brokers.len() {
            self.brokers[nth].deaf.remove(&id);
            self.brokers[nth].mute.remove(&id);
            if self.brokers[nth].sessions.remove(&id).is_some() {
                self.net.parts(id, nth);
            }
        }
    }

    /// The way of a frame that a broker brings, and when it goes on there; `None` if it brings it to nobody.
    pub(super) fn by_broker(&mut self, broker: usize, pipe: PipeId) -> Option<(Way, Duration)> {
        let (from, to, _) = pipe;
        let it = &self.brokers[broker];
        let stands = it.sessions.contains_key(&from) && it.sessions.contains_key(&to);
        let silent = it.deaf.contains_key(&to) || it.mute.contains_key(&from);
        if !stands || silent || self.now < it.dead_until {
            return None;
        }
        let late = it.stopped_until;
        let (there, back) = (self.way_to(from, broker), self.way_from(broker, to));
        let stalls = |way: Way| way.cut_until.is_none() || way.stalls;
        let way = Way {
            cut_until: there.cut_until.max(back.cut_until),
            stalls: stalls(there) && stalls(back),
            ill: there.ill || back.ill,
        };
        Some((way, late))
    }

    /// Something happens to a broker, if there is one.
    pub(super) fn broker_trouble(&mut self) {
        if self.brokers.is_empty() {
            return;
        }
        let broker = self.rng.random_range(0..self.brokers.len());
        match self.rng.random_range(0..4) {
            0 | 1 => {
                self.note("fault: broker killed");
                self.brokers[broker].dead_until = self.for_ms(50..5_000);
                self.tell(|w| {
                    format!(
                        "broker {broker} is dead until {:?}",
                        w.brokers[broker].dead_until
                    )
                });
                for (id, link) in self.brokers[broker].sessions.clone() {
                    self.closes(Duration::from_millis(1), id, link);
                }
            }
            2 => {
                self.note("fault: broker stopped");
                self.brokers[broker].stopped_until = self.for_ms(500..9_000);
                self.tell(|w| {
                    format!(
                        "broker {broker} is stopped until {:?}",
                        w.brokers[broker].stopped_until
                    )
                });
            }
            _ => {
                let there: Vec<NodeId> = self.brokers[broker].sessions.keys().copied().collect();
                if let Some(id) = self.pick(&there) {
                    self.note("fault: subscription dead in silence");
                    let deaf = self.chance(0.5);
                    self.tell(|_| format!("n{id} at broker {broker} is deaf: {deaf}, or mute"));
                    let it = &mut self.brokers[broker];
                    let which = if deaf { &mut it.deaf } else { &mut it.mute };
                    which.entry(id).or_insert(self.now);
                }
            }
        }
    }

    /// Who hears nothing of what it says itself leaves the broker, whatever else comes from there.
    pub(super) fn halls_without_echo_are_left(&self) {
        for (nth, broker) in self.brokers.iter().enumerate() {
            for (id, since) in broker.deaf.iter().chain(&broker.mute) {
                let node = &self.nodes[*id];
                // What was on its way when the broker was stopped comes late, own beats too.
                let since = (*since).max(broker.stopped_until);
                let awake = node.awake_since().map(|awake| awake.max(since));
                if awake.is_some_and(|since| self.now > since + LEFT_WITHIN) {
                    self.broken(format!("n{id} stays at broker {nth} without an echo"));
                }
            }
        }
    }

    /// The session by which a link is heard is reset, if it is heard by a broker.
    pub(super) fn reset_session(&mut self, id: NodeId, broker: usize) {
        if let Some(link) = self.brokers[broker].sessions.get(&id).copied() {
            self.note("fault: broker's connection reset");
            self.closes(Duration::from_micros(500), id, link);
        }
    }

    /// Brokers are well again, and bring all subscriptions.
    pub(super) fn heal_brokers(&mut self) {
        for broker in &mut self.brokers {
            broker.dead_until = broker.dead_until.min(self.now);
            broker.stopped_until = broker.stopped_until.min(self.now);
            broker.deaf.clear();
            broker.mute.clear();
        }
    }
}
