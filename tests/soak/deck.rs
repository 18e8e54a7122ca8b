//! Which faults come, in which order: all of it follows from the seed.
//!
//! There are five lanes, which go on beside each other; in each one fault follows another. A lane
//! deals its kinds from a shuffled deck, so that also a short run meets most of them.

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::time::Duration;

use crate::harness::ms;

/// A kind of fault; its name stands in the tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Kill,
    Restart,
    Freeze,
    RegistryKill,
    RegistryFreeze,
    BrokerKill,
    BrokerFreeze,
    Move,
    Burst,
    Slow,
}

impl Kind {
    /// For people.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Kill => "node killed",
            Self::Restart => "node restarted by SIGTERM",
            Self::Freeze => "node stopped",
            Self::RegistryKill => "registry killed",
            Self::RegistryFreeze => "registry stopped",
            Self::BrokerKill => "broker killed",
            Self::BrokerFreeze => "broker stopped",
            Self::Move => "client moved",
            Self::Burst => "burst",
            Self::Slow => "slow client",
        }
    }
}

/// A fault to come.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fault {
    /// After the one before it in its lane.
    pub(crate) pause: Duration,
    pub(crate) kind: Kind,
    /// The node, or the person, that it is for, if that can be.
    pub(crate) victim: usize,
    /// How long it lasts.
    pub(crate) lasts: Duration,
    /// Whether a restarted node is on the ports that it had.
    pub(crate) same_ports: bool,
}

/// One lane's faults.
#[derive(Debug)]
pub(crate) struct Lane {
    rng: StdRng,
    kinds: &'static [Kind],
    deck: Vec<Kind>,
    pause_ms: std::ops::Range<u64>,
    lasts_ms: std::ops::Range<u64>,
}

impl Lane {
    /// The next fault.
    pub(crate) fn next(&mut self) -> Fault {
        if self.deck.is_empty() {
            self.deck = self.kinds.to_vec();
            for place in (1..self.deck.len()).rev() {
                self.deck.swap(place, self.rng.random_range(0..=place));
            }
        }
        Fault {
            pause: ms(self.rng.random_range(self.pause_ms.clone())),
            kind: self.deck.pop().unwrap_or(Kind::Move),
            victim: self.rng.random_range(0..1000),
            lasts: ms(self.rng.random_range(self.lasts_ms.clone())),
            same_ports: self.rng.random(),
        }
    }
}

/// All lanes.
#[derive(Debug)]
pub(crate) struct Plan {
    /// Nodes that end and come back.
    pub(crate) ends: Lane,
    /// Nodes that are stopped for a while.
    pub(crate) stops: Lane,
    pub(crate) registry: Lane,
    /// Of the brokers, if there are some.
    pub(crate) brokers: Lane,
    pub(crate) clients: Lane,
}

impl Plan {
    /// What follows from a seed.
    pub(crate) fn new(seed: u64) -> Self {
        let lane = |number, kinds, pause_ms, lasts_ms| Lane {
            rng: StdRng::seed_from_u64(seed.wrapping_mul(4).wrapping_add(number)),
            kinds,
            deck: Vec::new(),
            pause_ms,
            lasts_ms,
        };
        let ends = &[Kind::Kill, Kind::Kill, Kind::Restart];
        let registry = &[Kind::RegistryKill, Kind::RegistryFreeze];
        let brokers = &[Kind::BrokerKill, Kind::BrokerFreeze];
        let clients = &[Kind::Move, Kind::Move, Kind::Move, Kind::Burst, Kind::Slow];
        Self {
            ends: lane(0, ends, 500..3000, 0..4000),
            stops: lane(1, &[Kind::Freeze], 1000..4000, 300..8000),
            registry: lane(2, registry, 2000..6000, 500..8000),
            brokers: lane(u64::MAX, brokers, 4000..9000, 300..8000),
            clients: lane(3, clients, 200..2000, 2000..6000),
        }
    }
}
