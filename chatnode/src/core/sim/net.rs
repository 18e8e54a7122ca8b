//! The network: what a carrier does, and what befalls it.
//!
//! The program decides whom it dials and when it hangs up. A dial connects when both ways are open and
//! somebody is there, and fails when that takes too long. From then on the speaker's frames go down a
//! pipe, each with a delay, in order, unless they are lost.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::RngExt as _;

use super::nodes::Comes;
use super::world::{Event, NodeId, World};
use crate::carriers::dial::DIAL_TIMEOUT;
use crate::core::Input;
use crate::core::links::fault::{Fault, Why};
use crate::core::links::{LinkId, Speech, Target, Via};
use crate::core::news::News;
use crate::wire::frame::Topic;
use crate::wire::frame::{self};

/// A dial that does not get through is tried again after this: what a kernel does with what asks for a
/// connection, and the carrier with a port that is refused.
const TRIED_AGAIN: Duration = Duration::from_millis(500);

/// What a speaker sends to one listener.
#[derive(Debug)]
pub(super) struct Pipe {
    /// Frames before this are lost: the subscription has not arrived.
    from: Duration,
    last: Duration,
    /// Frames before this are dropped in silence.
    drops_until: Duration,
    /// By which broker, if by one.
    pub(super) broker: Option<usize>,
    /// Whether it is of a hall, where only beats are said.
    pub(super) is_hall: bool,
}

impl Pipe {
    pub(super) fn begun(now: Duration, broker: Option<usize>) -> Self {
        Self {
            from: now,
            last: now,
            drops_until: Duration::ZERO,
            broker,
            is_hall: false,
        }
    }
}

/// Who speaks, who listens, and which of the listener's links that is.
pub(super) type PipeId = (NodeId, NodeId, LinkId);

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
    pipes: BTreeMap<PipeId, Pipe>,
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

    /// Places: machines, and behind them brokers.
    pub(super) fn slots(&self) -> usize {
        self.slots
    }

    pub(super) fn heal(&mut self) {
        self.ways.fill(Way::default());
    }

    pub(super) fn drop_until(&mut self, pipe: PipeId, until: Duration) {
        if let Some(pipe) = self.pipes.get_mut(&pipe) {
            pipe.drops_until = until;
        }
    }

    pub(super) fn pipes(&self) -> Vec<PipeId> {
        self.pipes.keys().copied().collect()
    }

    pub(super) fn add(&mut self, id: PipeId, pipe: Pipe) {
        self.pipes.insert(id, pipe);
    }

    /// By which broker a pipe goes, if by one.
    pub(super) fn broker_of(&self, pipe: &PipeId) -> Option<usize> {
        self.pipes.get(pipe)?.broker
    }

    /// Whether a node hears another by a broker on its own channel.
    pub(super) fn is_heard_at(&self, broker: usize, from: NodeId, to: NodeId) -> bool {
        let links = (from, to, LinkId(0))..=(from, to, LinkId(u64::MAX));
        let mut pipes = self.pipes.range(links);
        pipes.any(|(_, pipe)| pipe.broker == Some(broker) && !pipe.is_hall)
    }

    /// A node's session at a broker is over, and with it all that it heard there; others hear it again by
    /// the next.
    pub(super) fn parts(&mut self, id: NodeId, broker: usize) {
        self.pipes.retain(|(from, listener, _), pipe| {
            let heard = *listener == id || (*from == id && pipe.is_hall);
            pipe.broker != Some(broker) || !heard
        });
    }

    /// A node is dead: it takes nothing any more.
    pub(super) fn listens_no_more(&mut self, id: NodeId) {
        self.pipes.retain(|(_, listener, _), _| *listener != id);
    }
}

impl World {
    pub(super) fn way(&mut self, from: NodeId, to: NodeId) -> Way {
        let (from, to) = (self.nodes[from].slot, self.nodes[to].slot);
        self.way_between(from, to)
    }

    pub(super) fn way_between(&mut self, from: usize, to: usize) -> Way {
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

    /// Who is where an endpoint leads, or was last: the node of which it was told, or one that has its
    /// ports by now.
    pub(super) fn node_at(&self, endpoint: &str) -> NodeId {
        let here = |id: &NodeId| {
            let me = self.nodes[*id].core.identity();
            me.publisher == endpoint || me.http == endpoint
        };
        let last = (0..self.nodes.len()).rev().find(here);
        last.unwrap_or_else(|| self.broken(format!("nobody ever was at {endpoint}")))
    }

    /// A node, as others are told of it.
    pub(super) fn target(&self, id: NodeId) -> Target {
        let me = self.nodes[id].core.identity();
        Target {
            origin: Some(me.origin),
            endpoint: me.publisher.clone(),
            http: me.http.clone(),
            speech: Speech::Mesh,
            via: Via::Nodes,
        }
    }

    /// A frame goes out to all that hear the node.
    pub(super) fn publish(&mut self, id: NodeId, news: News) {
        let frame = if self.plan.encodes {
            let decoded = frame::decode(Topic::of(&news), &frame::encode(&news));
            decoded.unwrap_or_else(|why| self.broken(format!("n{id} publishes {news:?}: {why}")))
        } else {
            news
        };
        let from = |id| (id, 0, LinkId(0));
        let heard_by = self.net.pipes.range(from(id)..from(id + 1));
        let heard_by: Vec<PipeId> = heard_by.map(|(pipe, _)| *pipe).collect();
        for pipe_id in heard_by {
            let (_, listener, link) = pipe_id;
            if let News::Ack(ack) = &frame
                && ack.to != self.nodes[listener].origin
            {
                continue;
            }
            let (broker, is_hall) = match self.net.pipes.get(&pipe_id) {
                Some(pipe) => (pipe.broker, pipe.is_hall),
                None => continue,
            };
            if is_hall && !matches!(frame, News::Beat(_)) {
                continue;
            }
            let heard_at = |broker| self.net.is_heard_at(broker, id, listener);
            if is_hall && broker.is_some_and(heard_at) {
                continue;
            }
            let (way, late) = match broker {
                None => (self.way(id, listener), Duration::ZERO),
                Some(broker) => match self.by_broker(broker, pipe_id) {
                    Some(way) => way,
                    None => continue,
                },
            };
            let lost = way.ill && self.chance(self.plan.loss);
            let doubled = way.ill && self.chance(self.plan.doubled);
            let mut at = self.now.max(late) + self.delay(way);
            if let Some(until) = way.cut_until {
                if !way.stalls {
                    continue;
                }
                at = at.max(until);
            }
            let overtakes = self.plan.reorder && way.ill;
            let counters = &mut self.outcome.counters;
            let Some(pipe) = self.net.pipes.get_mut(&pipe_id) else {
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
            let after = at - self.now;
            if doubled {
                counters.note("fault: frame doubled");
            }
            for _ in 0..=usize::from(doubled) {
                let news = Comes::Input(Input::News(link, frame.clone()));
                self.at(after, Event::Input(listener, news));
            }
        }
    }

    /// A node's carrier dials.
    pub(super) fn dial(&mut self, id: NodeId, link: LinkId, endpoint: String) {
        if self.dials_at_broker(id, link, &endpoint) {
            return;
        }
        let to = self.node_at(&endpoint);
        self.tell(|_| format!("n{id} dials n{to} at {endpoint}, {link:?}"));
        self.nodes[id].dialled.insert(link, to);
        self.tries(id, link, endpoint, self.now + DIAL_TIMEOUT);
    }

    /// Looks whether a dial gets through, which is given up then.
    pub(super) fn tries(&mut self, id: NodeId, link: LinkId, endpoint: String, until: Duration) {
        let to = self.node_at(&endpoint);
        match self.nodes[id].dialled.get_mut(&link) {
            Some(dialled) => *dialled = to,
            None => return,
        }
        let (there, back) = (self.way(id, to), self.way(to, id));
        let cut = there.cut_until.is_some() || back.cut_until.is_some();
        let node = &self.nodes[to];
        let input = if !cut && node.alive && !node.frozen {
            Input::Connected(link)
        } else if self.now >= until {
            let refused = !cut && !node.alive;
            let fault = if refused {
                Fault::refused()
            } else {
                Fault::new(Why::TimedOut, "timed out")
            };
            Input::Closed(link, fault)
        } else {
            let again = TRIED_AGAIN.min(until - self.now);
            return self.at(again, Event::Dials(id, link, endpoint, until));
        };
        let after = self.delay(there) + self.delay(back);
        self.at(after, Event::Input(id, Comes::Input(input)));
    }

    /// A node hangs up, or its carrier has lost a link.
    pub(super) fn hang_up(&mut self, id: NodeId, link: LinkId) {
        self.parts(id, link);
        if let Some(from) = self.nodes[id].dialled.remove(&link) {
            self.net.pipes.remove(&(from, id, link));
        }
    }

    /// A node's carrier tells of a link. Of one that was hung up it tells nothing.
    pub(super) fn of_a_link(&mut self, id: NodeId, input: Input<'static>) {
        let (Input::Connected(link) | Input::Closed(link, _) | Input::News(link, _)) = &input
        else {
            return self.give(id, input);
        };
        let link = *link;
        let Some(&from) = self.nodes[id].dialled.get(&link) else {
            return;
        };
        match input {
            Input::News(_, news) => self.news(id, (from, link), news),
            Input::Connected(_) if self.nodes[id].halls.contains_key(&link) => {
                let broker = self.nodes[id].halls[&link];
                if self.meets(id, link, broker) {
                    self.give(id, input);
                } else {
                    self.hang_up(id, link);
                    self.give(id, Input::Closed(link, Fault::ended()));
                }
            }
            // Subscribed to at a broker; whether anybody speaks there its beats tell.
            Input::Connected(_) if self.net.pipes.contains_key(&(from, id, link)) => {
                self.give(id, input);
            }
            Input::Connected(_) if self.nodes[from].alive => {
                let pipe = Pipe {
                    from: self.now + self.up_to(Duration::from_millis(10)),
                    ..Pipe::begun(self.now, None)
                };
                self.net.pipes.insert((from, id, link), pipe);
                self.give(id, input);
            }
            input => {
                self.hang_up(id, link);
                let fault = match input {
                    Input::Closed(_, fault) => fault,
                    _ => Fault::ended(),
                };
                self.give(id, Input::Closed(link, fault));
            }
        }
    }

    fn news(&mut self, id: NodeId, (from, link): (NodeId, LinkId), news: News) {
        let origin = self.nodes[from].origin;
        if self.nodes[from].sent_is_lost {
            return;
        }
        let hears = |world: &Self| world.nodes[id].core.links().origin_of(link) == Some(origin);
        let log = |world: &Self| {
            let log = world.nodes[id].core.log(origin);
            log.map_or((0, false), |log| (log.counts.gaps, log.missing().is_some()))
        };
        let is_beat = matches!(news, News::Beat(_));
        if let News::Entries(log) = &news
            && hears(self)
        {
            self.nodes[id].arrived(from, &log.entries, self.now);
        }
        let (gaps, lacked) = log(self);
        self.give(id, Input::News(link, news));
        let (gaps_now, lacks) = log(self);
        if gaps_now > gaps {
            self.note("gap found");
        }
        if is_beat && !lacked && lacks {
            self.note("tail loss noticed");
        }
        if is_beat && hears(self) {
            self.nodes[id].beats.insert(from, self.now);
        }
    }

    /// Resets a link, as a middlebox might.
    pub(super) fn reset_link(&mut self) {
        let pipes = self.net.pipes();
        if let Some(pipe) = self.pick(&pipes) {
            let (_, id, link) = pipe;
            if let Some(broker) = self.net.broker_of(&pipe) {
                return self.reset_session(id, broker);
            }
            self.note("fault: link reset");
            let after = Duration::from_micros(self.rng.random_range(0..1000));
            self.closes(after, id, link);
        }
    }

    /// A link ends by itself, as its listener's carrier will tell.
    pub(super) fn closes(&mut self, after: Duration, id: NodeId, link: LinkId) {
        let closed = Input::Closed(link, Fault::ended());
        self.at(after, Event::Input(id, Comes::Input(closed)));
    }
}
