//! A small world: nodes start, die, move and fall silent; registries list and forget them; dials
//! take time and fail. Whatever happened, no rule is broken on the way, and soon after it is quiet
//! every listed live node is heard over exactly one link.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Event {
    /// A node starts at this port, in place of whoever was there.
    Start(u16),
    /// Whoever is at this port dies; its links end, or only fall silent.
    Die(u16, bool),
    /// The registry lists all that live, and perhaps the dead too, or nobody.
    List { dead_too: bool, nobody: bool },
    /// Whoever is at this port says hello.
    Hello(u16),
    /// Time passes.
    Wait(u64),
}

fn event() -> impl Strategy<Value = Event> {
    let port = 2..7_u16;
    prop_oneof![
        port.clone().prop_map(Event::Start),
        (port.clone(), any::<bool>()).prop_map(|(port, silent)| Event::Die(port, silent)),
        (any::<bool>(), any::<bool>())
            .prop_map(|(dead_too, nobody)| Event::List { dead_too, nobody }),
        port.prop_map(Event::Hello),
        (1..4000_u64).prop_map(Event::Wait),
    ]
}

struct World {
    now: Duration,
    links: Links,
    rng: StdRng,
    /// Who listens where; port 1 is this node.
    nodes: BTreeMap<u16, Origin>,
    dead: Vec<(Origin, u16)>,
    /// Dials under way: where to, and when the carrier will know more.
    dials: BTreeMap<LinkId, (u16, Duration)>,
    /// Sockets: whose, or nobody's if that node fell silent.
    sockets: BTreeMap<LinkId, Option<Origin>>,
    up: BTreeSet<Origin>,
    used: BTreeSet<LinkId>,
}

impl World {
    fn endpoint(port: u16) -> String {
        format!("tcp://h:{port}")
    }

    fn apply(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Dial { link, endpoint, .. } => {
                    assert!(self.used.insert(link), "{link:?} is used twice");
                    let port: u16 = endpoint.rsplit(':').next().unwrap().parse().unwrap();
                    assert_ne!(port, 1, "it dials itself");
                    let took = self.rng.random_range(1..300);
                    self.dials.insert(link, (port, self.now + ms(took)));
                }
                Effect::HangUp { link } => {
                    let known = self.dials.remove(&link).is_some();
                    assert!(
                        known | self.sockets.remove(&link).is_some(),
                        "{link:?} is not there"
                    );
                }
                Effect::Up { origin } => assert!(self.up.insert(origin), "up twice: {origin}"),
                Effect::Down { origin } => assert!(self.up.remove(&origin), "not up: {origin}"),
                Effect::HallUp { .. } | Effect::HallDown { .. } => unreachable!("no broker"),
                Effect::Unlinked { fault, .. } => assert_ne!(fault.text, ""),
                Effect::Silent { link, .. } => assert!(self.sockets.contains_key(&link)),
            }
        }
        assert!(self.dials.len() <= DIALS_AT_ONCE_MAX);
        assert_eq!(
            self.up,
            self.links.up.keys().map(|(origin, _)| *origin).collect()
        );
    }

    fn die(&mut self, port: u16, silent: bool) {
        let Some(origin) = self.nodes.remove(&port) else {
            return;
        };
        self.dead.push((origin, port));
        let theirs = |socket: &&LinkId| self.sockets[*socket] == Some(origin);
        let cut: Vec<LinkId> = self.sockets.keys().filter(theirs).copied().collect();
        for link in cut {
            if silent {
                self.sockets.insert(link, None);
            } else {
                self.sockets.remove(&link);
                let effects = self.links.closed(self.now, link, Fault::ended());
                self.apply(effects);
            }
        }
    }

    fn list(&mut self, dead_too: bool) {
        let dead = self
            .dead
            .iter()
            .filter(|_| dead_too)
            .map(|(origin, port)| (*port, *origin));
        let live = self.nodes.iter().map(|(port, origin)| (*port, *origin));
        let targets = dead
            .chain(live)
            .map(|(port, origin)| target(origin.as_str(), &Self::endpoint(port)))
            .collect();
        let effects = self.links.want(self.now, targets);
        self.apply(effects);
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now += TICK;
            let ripe = |(_, at): &(u16, Duration)| *at <= self.now;
            let done: Vec<_> = self
                .dials
                .iter()
                .filter(|(_, dial)| ripe(dial))
                .map(|(l, d)| (*l, d.0))
                .collect();
            for (link, port) in done {
                if self.dials.remove(&link).is_none() {
                    continue;
                }
                let effects = match self.nodes.get(&port) {
                    Some(origin) => {
                        self.sockets.insert(link, Some(*origin));
                        self.links.connected(self.now, link)
                    }
                    None => self.links.closed(self.now, link, Fault::ended()),
                };
                self.apply(effects);
            }
            if self.now.as_millis().is_multiple_of(1000) {
                for (link, origin) in self.sockets.clone() {
                    if let Some(origin) = origin
                        && self.sockets.contains_key(&link)
                    {
                        let effects = self.links.beat(self.now, link, &beat(origin.as_str()));
                        self.apply(effects);
                    }
                }
            }
            let effects = self.links.tick(self.now);
            self.apply(effects);
        }
    }
}

proptest! {
    #[test]
    fn whatever_happened_every_listed_live_node_is_heard_once(
        events in prop::collection::vec(event(), 0..40), by_hand: bool, seed: u64,
    ) {
        let fixed = if by_hand { vec![target("", "tcp://h:2"), target("", "tcp://h:1")] } else { vec![] };
        let options =
            LinksOptions { me: ME.parse().unwrap(), own: vec!["tcp://h:1".into()], fixed };
        let mut world = World {
            now: ms(0),
            links: Links::new(options, StdRng::seed_from_u64(seed)),
            rng: StdRng::seed_from_u64(seed ^ 1),
            nodes: BTreeMap::new(),
            dead: Vec::new(),
            dials: BTreeMap::new(),
            sockets: BTreeMap::new(),
            up: BTreeSet::new(),
            used: BTreeSet::new(),
        };
        for event in events {
            match event {
                Event::Start(port) => {
                    world.die(port, false);
                    let origin = Origin::generate(&mut world.rng);
                    world.nodes.insert(port, origin);
                }
                Event::Die(port, silent) => world.die(port, silent),
                Event::List { nobody: true, .. } => {
                    let effects = world.links.want(world.now, Vec::new());
                    world.apply(effects);
                }
                Event::List { dead_too, .. } => world.list(dead_too),
                Event::Hello(port) => {
                    if let Some(origin) = world.nodes.get(&port) {
                        let target = target(origin.as_str(), &World::endpoint(port));
                        let effects = world.links.introduced(world.now, target);
                        world.apply(effects);
                    }
                }
                Event::Wait(time) => world.pass(ms(time)),
            }
        }
        world.list(false);
        // Long enough for a hello of the dead to be forgotten.
        world.pass(INTRODUCED_MAX + ms(1000));
        prop_assert_eq!(&world.up, &world.nodes.values().copied().collect());
        let live = world.sockets.len();
        prop_assert!(live >= world.up.len() && live <= world.up.len() + 1);
        // The registry forgets everyone: nothing closes.
        let dials = world.links.counters().dials;
        let effects = world.links.want(world.now, Vec::new());
        world.apply(effects);
        world.pass(ms(5000));
        prop_assert_eq!(&world.up, &world.nodes.values().copied().collect());
        if !by_hand {
            prop_assert_eq!(world.links.counters().dials, dials);
        }
    }
}
