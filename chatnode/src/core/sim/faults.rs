//! Faults, and their ends.

use std::time::Duration;

use rand::RngExt as _;

use super::aged::TALKED;
use super::net::{PipeId, Way};
use super::nodes::Node;
use super::phases::Phase;
use super::plan::Kind;
use super::stopped::STOPPED_AT;
use super::world::{Event, NodeId, World};
use crate::core::bounds::SILENCE_MAX;

/// A fault that ends by itself.
#[derive(Debug)]
pub(super) enum Fault {
    /// The ways of these slots to those are ill.
    Ill(Vec<(usize, usize)>),
}

impl World {
    pub(super) fn plan_faults(&mut self) {
        let first = match self.plan.long_partition {
            Some(lasts) => self.plan.faults_end.saturating_sub(lasts),
            None if self.plan.stopped => STOPPED_AT,
            None if self.plan.aged => TALKED,
            None => Duration::from_secs(1),
        };
        self.at(first, Event::Fault);
    }

    /// Something breaks, and the next fault is planned.
    pub(super) fn fault(&mut self) {
        if self.phase != Phase::Faults {
            return;
        }
        if self.plan.long_partition.is_some() {
            return self.divide();
        }
        if self.plan.aged {
            return self.plan_old_retries();
        }
        if self.plan.stopped {
            return self.stop_one();
        }
        let refuses = |node: &Node| node.alive && self.now < node.refuses_until;
        if self.plan.refuses && !self.nodes.iter().any(refuses) {
            self.refuse();
        }
        let kinds = self.plan.faults.clone();
        match self.pick(&kinds) {
            Some(Kind::Partition) => self.partition(),
            Some(Kind::OneWayCut) => self.one_way_cut(),
            Some(Kind::Illness) => self.illness(),
            Some(Kind::Crash) => self.crash(),
            Some(Kind::Freeze) => self.freeze(),
            Some(Kind::ClockJump) => self.wall_jump(),
            Some(Kind::Burst) => self.burst(),
            Some(Kind::Disk) => self.disk_trouble(),
            Some(Kind::Stuck) => self.stick(),
            Some(Kind::Refuse) => self.refuse(),
            Some(Kind::Overload) => self.overload(),
            Some(Kind::Reset) => self.reset_link(),
            Some(Kind::Registries) => self.registries_away(),
            Some(Kind::Broker) => self.broker_trouble(),
            None => {}
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

    fn slots_apart(&mut self) -> (Vec<usize>, Vec<usize>) {
        (0..self.net.slots()).partition(|_| self.rng.random_bool(0.5))
    }

    fn cut(&mut self, from: usize, to: usize, way: Way) {
        let ill = self.net.way(from, to).ill;
        *self.net.way(from, to) = Way { ill, ..way };
    }

    fn cut_for(&mut self) -> Way {
        Way {
            cut_until: Some(self.for_ms(200..9_000)),
            stalls: self.chance(0.5),
            ill: false,
        }
    }

    fn partition(&mut self) {
        let (here, there) = self.slots_apart();
        let way = self.cut_for();
        self.note("fault: partition");
        self.tell(|_| format!("cut {here:?} | {there:?} {way:?}"));
        self.cut_apart(&here, &there, way);
    }

    fn cut_apart(&mut self, here: &[usize], there: &[usize], way: Way) {
        for &a in here {
            for &b in there {
                self.cut(a, b, way);
                self.cut(b, a, way);
            }
        }
    }

    /// Two halves hear nothing of each other until the faults end.
    fn divide(&mut self) {
        self.note("fault: long partition");
        let slots: Vec<usize> = (0..self.plan.slots).collect();
        let (here, there) = slots.split_at(self.plan.slots / 2);
        let way = Way {
            cut_until: Some(self.plan.faults_end),
            ..Way::default()
        };
        self.tell(|_| format!("cut {here:?} | {there:?}"));
        self.cut_apart(here, there, way);
    }

    /// A publisher drops all that it has for one listener, in silence, though their link is well.
    fn burst(&mut self) {
        let pipes = self.net.pipes();
        let Some(pipe) = self.pick(&pipes) else {
            return;
        };
        let until = self.for_ms(50..1_500);
        let (from, listener, _) = pipe;
        self.tell(|_| format!("n{from} drops what is for n{listener} until {until:?}"));
        self.net.drop_until(pipe, until);
    }

    /// When a fault that lasts so many milliseconds ends.
    pub(super) fn for_ms(&mut self, lasts: std::ops::Range<u64>) -> Duration {
        let lasts = Duration::from_millis(self.rng.random_range(lasts));
        (self.now + lasts).min(self.plan.faults_end)
    }

    /// A node has too much to do: for a while it drops what it publishes, answers no fetch, and
    /// some of its links end and cannot be had again.
    fn overload(&mut self) {
        let live = self.live();
        let Some(id) = self.pick(&live) else { return };
        self.note("fault: overload");
        let drops_until = self.for_ms(100..1_500);
        let stuck_until = self.for_ms(2_000..8_000);
        self.tell(|_| format!("n{id} is overloaded until {stuck_until:?}"));
        self.nodes[id].stuck_until = stuck_until;
        let pipes = self.net.pipes().into_iter();
        for pipe in pipes.filter(|(from, ..)| *from == id) {
            self.net.drop_until(pipe, drops_until);
            if self.net.broker_of(&pipe).is_none() && self.chance(0.4) {
                let (_, listener, link) = pipe;
                let after = self.for_ms(1..1_000) - self.now;
                self.closes(after, listener, link);
                let (from, to) = (self.nodes[id].slot, self.nodes[listener].slot);
                let way = Way {
                    cut_until: Some(self.for_ms(2_000..6_000)),
                    ..Way::default()
                };
                self.cut(from, to, way);
            }
        }
    }

    /// A node answers nothing by HTTP for a while, though it speaks and hears.
    fn stick(&mut self) {
        let live = self.live();
        let Some(id) = self.pick(&live) else { return };
        let until = self.for_ms(500..6_000);
        self.tell(|_| format!("n{id} answers no fetch until {until:?}"));
        self.nodes[id].stuck_until = until;
    }

    /// A node answers each fetch with an error, in some worlds for so long that others wait for it
    /// no more.
    fn refuse(&mut self) {
        let live = self.live();
        let Some(id) = self.pick(&live) else { return };
        let until = if self.plan.refuses {
            self.plan.faults_end
        } else {
            self.for_ms(500..9_000)
        };
        self.tell(|_| format!("n{id} refuses each fetch until {until:?}"));
        self.nodes[id].refuses_until = until;
    }

    fn one_way_cut(&mut self) {
        let from = self.rng.random_range(0..self.net.slots());
        let all: Vec<usize> = (0..self.net.slots()).filter(|to| *to != from).collect();
        let to = if self.chance(0.5) {
            self.pick(&all).into_iter().collect()
        } else {
            all
        };
        let way = self.cut_for();
        self.note("fault: one-way cut");
        self.tell(|_| format!("cut {from} -> {to:?} {way:?}"));
        for to in to {
            self.cut(from, to, way);
        }
    }

    fn illness(&mut self) {
        let share = self.rng.random_range(0.2..1.0);
        let mut ways = Vec::new();
        for from in 0..self.net.slots() {
            for to in 0..self.net.slots() {
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
        if live.len() < 2 {
            return;
        }
        let Some(id) = self.pick(&live) else { return };
        let at_once = self.chance(0.7);
        let sent_is_lost = self.chance(0.5);
        self.crash_node(id, at_once, sent_is_lost);
    }

    /// A node dies. Its peers and clients see it at once, or by its silence.
    pub(super) fn crash_node(&mut self, id: NodeId, at_once: bool, sent_is_lost: bool) {
        if !self.nodes[id].alive {
            return;
        }
        self.note("fault: crash");
        self.tell(|_| format!("n{id} crashes, seen at once: {at_once}"));
        let now = self.now;
        let slot = self.nodes[id].slot;
        let node = &mut self.nodes[id];
        node.alive = false;
        node.crashed = Some(now);
        node.sent_is_lost = sent_is_lost;
        node.inbox.clear();
        self.die_writing(id);
        self.net.listens_no_more(id);
        self.is_at_no_broker(id);
        let pipes = self.net.pipes();
        // A broker tells nobody of another's end.
        let direct = |pipe: &&PipeId| pipe.0 == id && self.net.broker_of(pipe).is_none();
        let direct: Vec<PipeId> = pipes.iter().filter(direct).copied().collect();
        for (_, listener, link) in direct.into_iter().filter(|_| at_once) {
            let after = Duration::from_millis(1) + self.up_to(self.plan.delay_max);
            self.closes(after, listener, link);
        }
        self.clients_lose(id, at_once);
        // Somebody is there in the end.
        let last = self.live().is_empty() && self.starting == 0;
        if self.chance(0.8) || last {
            self.note("fault: restart");
            let after = Duration::from_millis(self.rng.random_range(50..5_000));
            self.start_in(after, slot);
        }
    }

    fn freeze(&mut self) {
        let live = self.live();
        let Some(id) = self.pick(&live) else { return };
        if self.nodes[id].frozen {
            return;
        }
        let lasts = Duration::from_millis(self.rng.random_range(100..9_000));
        let deaf = self.chance(0.5);
        self.freeze_node(id, lasts, deaf);
    }

    /// A node stops for a while. One that is deaf loses what comes later than its peers are patient.
    pub(super) fn freeze_node(&mut self, id: NodeId, lasts: Duration, deaf: bool) {
        self.note("fault: freeze");
        self.tell(|_| format!("n{id} freezes for {lasts:?}"));
        let node = &mut self.nodes[id];
        node.frozen = true;
        node.frozen_at = self.now;
        node.deaf_after = deaf.then_some(self.now + SILENCE_MAX);
        let lasts = lasts.min(self.plan.faults_end.saturating_sub(self.now));
        self.at(lasts, Event::Thaw(id));
    }

    fn wall_jump(&mut self) {
        let live = self.live();
        let Some(id) = self.pick(&live) else { return };
        self.note("fault: clock jump");
        let seconds: i64 = if self.chance(0.3) { 3600 } else { 5 };
        let jump = self
            .rng
            .random_range(-seconds * 1_000_000..seconds * 1_000_000);
        self.tell(|_| format!("n{id}'s wall clock jumps by {jump} us"));
        self.clocks_changed = self.now;
        let slot = self.nodes[id].slot;
        self.machines[slot].wall_offset_us += jump;
    }
}
