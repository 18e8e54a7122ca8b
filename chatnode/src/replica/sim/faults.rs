//! Faults, and their ends.

use std::time::Duration;

use rand::RngExt as _;

use super::net::Way;
use super::nodes::Input;
use super::world::{Event, NodeId, World};

/// A fault that ends by itself.
#[derive(Debug)]
pub(super) enum Fault {
    /// The ways of these slots to those are ill.
    Ill(Vec<(usize, usize)>),
}

impl World {
    /// Something breaks, and the next fault is planned.
    pub(super) fn fault(&mut self) {
        if self.healed {
            return;
        }
        match self.rng.random_range(0..20) {
            0..=3 => self.partition(),
            4..=6 => self.one_way_cut(),
            7..=10 => self.illness(),
            11..=13 => self.crash(),
            14..=15 => self.freeze(),
            16 => self.wall_jump(),
            _ => self.reset_link(),
        }
        let after = self
            .plan
            .fault_every
            .mul_f64(self.rng.random_range(0.1..2.0));
        self.at(after, Event::Fault);
    }

    pub(super) fn mend(&mut self, fault: &Fault) {
        match fault {
            Fault::Ill(ways) => {
                for (from, to) in ways {
                    self.net.way(*from, *to).ill = false;
                }
            }
        }
    }

    /// The last fault is over.
    pub(super) fn heal(&mut self) {
        self.tell(|_| "all is mended".to_owned());
        self.healed = true;
        self.net.heal();
        for id in self.live() {
            self.thaw_soon(id, Duration::ZERO);
        }
    }

    fn slots_apart(&mut self) -> (Vec<usize>, Vec<usize>) {
        (0..self.plan.slots).partition(|_| self.rng.random_bool(0.5))
    }

    fn cut(&mut self, from: usize, to: usize, way: Way) {
        let ill = self.net.way(from, to).ill;
        *self.net.way(from, to) = Way { ill, ..way };
    }

    fn cut_for(&mut self) -> Way {
        let lasts = Duration::from_millis(self.rng.random_range(200..9_000));
        Way {
            cut_until: Some((self.now + lasts).min(self.plan.faults_end)),
            stalls: self.chance(0.5),
            ill: false,
        }
    }

    fn partition(&mut self) {
        let (here, there) = self.slots_apart();
        let way = self.cut_for();
        self.counters.note("fault: partition");
        self.tell(|_| format!("cut {here:?} | {there:?} {way:?}"));
        for &a in &here {
            for &b in &there {
                self.cut(a, b, way);
                self.cut(b, a, way);
            }
        }
    }

    fn one_way_cut(&mut self) {
        let from = self.rng.random_range(0..self.plan.slots);
        let all: Vec<usize> = (0..self.plan.slots).filter(|to| *to != from).collect();
        let to = if self.chance(0.5) {
            self.pick(&all).into_iter().collect()
        } else {
            all
        };
        let way = self.cut_for();
        self.counters.note("fault: one-way cut");
        self.tell(|_| format!("cut {from} -> {to:?} {way:?}"));
        for to in to {
            self.cut(from, to, way);
        }
    }

    fn illness(&mut self) {
        let share = self.rng.random_range(0.2..1.0);
        let mut ways = Vec::new();
        for from in 0..self.plan.slots {
            for to in 0..self.plan.slots {
                if from != to && self.chance(share) {
                    self.net.way(from, to).ill = true;
                    ways.push((from, to));
                }
            }
        }
        self.tell(|_| format!("ill {ways:?}"));
        let lasts = Duration::from_millis(self.rng.random_range(500..8_000));
        self.at(lasts, Event::Mend(Fault::Ill(ways)));
    }

    fn crash(&mut self) {
        let live = self.live();
        if !self.plan.crashes || live.len() < 2 {
            return;
        }
        let Some(id) = self.pick(&live) else { return };
        self.counters.note("fault: crash");
        let at_once = self.chance(0.7);
        let sent_is_lost = self.chance(0.5);
        self.tell(|_| format!("n{id} crashes, seen at once: {at_once}"));
        let now = self.now;
        let slot = self.nodes[id].slot;
        let node = &mut self.nodes[id];
        node.alive = false;
        node.crashed = Some(now);
        node.sent_is_lost = sent_is_lost;
        node.inbox.clear();
        for (from, listener, dial) in self.net.links() {
            if from != id {
                continue;
            }
            if at_once {
                let after = Duration::from_millis(1) + self.up_to(self.plan.delay_max);
                self.at(after, Event::Input(listener, Input::Closed(from, dial)));
            }
        }
        self.clients_lose(id, at_once);
        if self.chance(0.8) {
            self.counters.note("fault: restart");
            let after = Duration::from_millis(self.rng.random_range(50..5_000));
            self.at(after, Event::Start(slot));
        }
    }

    fn freeze(&mut self) {
        let live = self.live();
        let Some(id) = self.pick(&live) else { return };
        if self.nodes[id].frozen {
            return;
        }
        self.counters.note("fault: freeze");
        let lasts = Duration::from_millis(self.rng.random_range(100..9_000));
        let deaf = self.chance(0.5);
        self.tell(|_| format!("n{id} freezes for {lasts:?}"));
        let node = &mut self.nodes[id];
        node.frozen = true;
        node.deaf_after = deaf.then_some(self.now + Duration::from_secs(3));
        let lasts = lasts.min(self.plan.faults_end.saturating_sub(self.now));
        self.thaw_soon(id, lasts);
    }

    fn thaw_soon(&mut self, id: NodeId, after: Duration) {
        self.at(after, Event::Thaw(id));
    }

    fn wall_jump(&mut self) {
        let live = self.live();
        let Some(id) = self.pick(&live) else { return };
        self.counters.note("fault: clock jump");
        let seconds: i64 = if self.chance(0.3) { 3600 } else { 5 };
        let jump = self
            .rng
            .random_range(-seconds * 1_000_000..seconds * 1_000_000);
        self.tell(|_| format!("n{id}'s wall clock jumps by {jump} us"));
        self.nodes[id].wall_offset_us += jump;
    }
}
