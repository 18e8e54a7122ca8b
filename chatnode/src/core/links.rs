//! Decides which peers this node hears, and when it dials them. What it decides is carried out by the core
//! ([`linking`](super::linking)), which also tells it the carrier's news.
//!
//! A peer is wanted because a registry lists it, because it introduced itself a moment ago, or
//! because someone gave its endpoint by hand. Each has at most one link, and so has each origin,
//! by however many ways it is known. A dial proves nothing but that something listens: the first
//! beat proves who it is. From then on only silence or the end of the socket ends the link; that
//! the registry no longer lists a peer stops nothing but the redialling, so the registry may die,
//! forget everything and come back.
//!
//! A peer that is listed but not there costs a dial every two seconds at most, and at most
//! [`DIALS_AT_ONCE_MAX`] are under way, those never tried before the others.

pub(crate) mod fault;
mod hall;
mod peer;
mod reasons;
mod types;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rand::rngs::StdRng;

use self::fault::{Fault, Why};
use super::news::Beat;
use crate::model::names::Origin;
pub(crate) use types::{
    Counters, Effect, LinkId, LinkState, LinkStatus, LinksOptions, Speech, Target, Via, heard_at,
};

use peer::{INTRODUCED_MAX, Key, Pace, Peer, State, is_loopback, place};

/// Dials under way; further ones wait their turn.
const DIALS_AT_ONCE_MAX: usize = 32;
/// Peers in the table, by whatever way they are known; further ones are refused and counted.
const PEERS_MAX: usize = 4096;
/// Peers in the table only because they said hello; further ones are refused and counted.
const STRANGERS_MAX: usize = 256;
/// Longest endpoint; a target with a longer one is refused and counted.
const ENDPOINT_LEN_MAX: usize = 255;
/// A link whose beats come so much later than its first did is given up: this node reads slower
/// than the other publishes, which would make the other's queue grow without bound. What is missed
/// is repaired, in pages.
const BEHIND_MAX: Duration = Duration::from_secs(5);

/// The links of one node.
#[derive(Debug)]
pub(crate) struct Links {
    me: Origin,
    own: BTreeSet<String>,
    /// Whether other nodes find this one on other machines too.
    beyond: bool,
    peers: BTreeMap<Key, Peer>,
    links: BTreeMap<LinkId, Key>,
    up: BTreeMap<(Origin, Via), LinkId>,
    link_next: u64,
    counters: Counters,
    rng: StdRng,
}

impl Links {
    /// Nothing is dialled before the first input.
    pub(super) fn new(options: LinksOptions, rng: StdRng) -> Self {
        let mut links = Self {
            me: options.me,
            own: options.own.iter().map(|endpoint| place(endpoint)).collect(),
            beyond: options.own.first().is_some_and(|own| !is_loopback(own)),
            peers: BTreeMap::new(),
            links: BTreeMap::new(),
            up: BTreeMap::new(),
            link_next: 1,
            counters: Counters::default(),
            rng,
        };
        for target in options.fixed {
            if links.admits(&target) {
                let mut peer = Peer::new(target, Duration::ZERO);
                peer.fixed = true;
                links
                    .peers
                    .insert(Key::Endpoint(place(&peer.endpoint)), peer);
            }
        }
        links
    }

    /// What the registries list now, in place of what they listed before.
    pub(super) fn want(&mut self, now: Duration, targets: Vec<Target>) -> Vec<Effect> {
        let mut out = Vec::new();
        let targets: BTreeMap<Key, Target> = targets
            .into_iter()
            .filter(|target| self.may_be_listed(target))
            .map(|target| (Key::of(&target), target))
            .collect();
        let claimed: BTreeSet<String> = targets.values().map(|t| place(&t.endpoint)).collect();
        let keys: Vec<Key> = self.peers.keys().cloned().collect();
        for key in keys {
            let peer = self.peers.get_mut(&key).expect("the keys are the table's");
            if !targets.contains_key(&key) {
                peer.listed = false;
                // A link that beats stays. A dial goes, and so does an unproven link to where
                // someone else is now: they would only delay the newcomer.
                let leaves = match peer.state {
                    State::Waiting { .. } | State::Up { .. } => false,
                    State::Dialing { .. } => true,
                    State::Connected { .. } => claimed.contains(&place(&peer.endpoint)),
                };
                if leaves && !peer.wanted(now) {
                    self.leave(&key, now, &mut out);
                }
            }
        }
        self.forget(now);
        for (key, target) in targets {
            self.list(key, target, now, &mut out);
        }
        self.dial_due(now, &mut out);
        out
    }

    fn list(&mut self, key: Key, target: Target, now: Duration, out: &mut Vec<Effect>) {
        match self.peers.get(&key) {
            Some(peer) if place(&peer.endpoint) != place(&target.endpoint) => {
                self.leave(&key, now, out);
            }
            Some(_) => {}
            None if self.peers.len() >= PEERS_MAX => {
                self.counters.refused += 1;
                return;
            }
            None => {}
        }
        let peer = self
            .peers
            .entry(key)
            .or_insert_with(|| Peer::new(target.clone(), now));
        if !peer.listed || peer.endpoint != target.endpoint {
            peer.dial_at_once(now);
        }
        peer.listed = true;
        peer.endpoint = target.endpoint;
        if !matches!(peer.state, State::Up { .. }) {
            peer.http = target.http;
        }
    }

    /// A peer said hello: hear it too, without waiting for the registry.
    pub(super) fn introduced(&mut self, now: Duration, target: Target) -> Vec<Effect> {
        let mut out = Vec::new();
        if target.origin.is_none() || !self.admits(&target) {
            return out;
        }
        let key = Key::of(&target);
        match self.peers.get(&key) {
            None => {
                let strangers = self
                    .peers
                    .values()
                    .filter(|peer| peer.is_stranger())
                    .count();
                if self.peers.len() >= PEERS_MAX || strangers >= STRANGERS_MAX {
                    self.counters.refused += 1;
                    return out;
                }
            }
            // The registry's word and a link that beats weigh more than a hello's.
            Some(peer) if peer.listed || matches!(peer.state, State::Up { .. }) => {}
            Some(peer) if peer.endpoint != target.endpoint => self.leave(&key, now, &mut out),
            Some(_) => {}
        }
        let peer = self
            .peers
            .entry(key)
            .or_insert_with(|| Peer::new(target.clone(), now));
        peer.introduced = Some(now + INTRODUCED_MAX);
        if !peer.listed && !matches!(peer.state, State::Up { .. }) {
            peer.endpoint = target.endpoint;
            peer.http = target.http;
        }
        peer.dial_at_once(now);
        self.dial_due(now, &mut out);
        out
    }

    /// Somebody else answers where this origin should be: a link to it that no beat has proven ends, for
    /// it would only keep whoever is there now from being dialled.
    pub(super) fn elsewhere(&mut self, now: Duration, origin: Origin) -> Vec<Effect> {
        let mut out = Vec::new();
        let key = Key::Origin(origin, Via::Nodes);
        if self.peers.get(&key).is_some_and(|peer| !peer.is_up()) {
            self.leave(&key, now, &mut out);
            self.dial_due(now, &mut out);
        }
        out
    }

    /// The carrier has connected this link.
    pub(super) fn connected(&mut self, now: Duration, link: LinkId) -> Vec<Effect> {
        let mut out = Vec::new();
        if let Some(peer) = self
            .links
            .get(&link)
            .and_then(|key| self.peers.get_mut(key))
            && matches!(peer.state, State::Dialing { .. })
        {
            peer.state = State::Connected { link, since: now };
        }
        self.dial_due(now, &mut out);
        out
    }

    /// The carrier has lost this link, or could not connect it.
    pub(super) fn closed(&mut self, now: Duration, link: LinkId, fault: Fault) -> Vec<Effect> {
        let mut out = Vec::new();
        let Some(key) = self.links.get(&link).cloned() else {
            return out;
        };
        self.end(&key, now, &mut out);
        if let Some(peer) = self.peers.get_mut(&key) {
            peer.fault = Some(fault);
        }
        self.forget(now);
        self.dial_due(now, &mut out);
        out
    }

    /// A beat came over this link.
    pub(super) fn beat(&mut self, now: Duration, link: LinkId, beat: &Beat) -> Vec<Effect> {
        let mut out = Vec::new();
        let Some(key) = self.links.get(&link).cloned() else {
            return out;
        };
        let peer = self.peers.get_mut(&key).expect("a link has its peer");
        match peer.speech {
            Speech::Mesh => {}
            Speech::Plain => return out,
            Speech::Hall => return self.beat_in_hall(now, link, &key, beat),
        }
        let via = peer.via;
        let expected = match (&key, &peer.state) {
            (Key::Origin(origin, _), _) | (_, State::Up { origin, .. }) => Some(*origin),
            (Key::Endpoint(_), _) => None,
        };
        let misdirected = expected.is_some_and(|origin| origin != beat.origin);
        let heard_elsewhere = self
            .up
            .get(&(beat.origin, via))
            .is_some_and(|other| *other != link);
        if misdirected || heard_elsewhere || beat.origin == self.me {
            if misdirected {
                self.counters.misdirected += 1;
                let text = match expected {
                    Some(expected) => format!("{} is there, not {expected}", beat.origin),
                    None => format!("{} is there", beat.origin),
                };
                peer.fault = Some(Fault::new(Why::OtherNode, text));
            } else {
                // Remembered, so that the endpoint rests while its node is heard otherwise.
                self.counters.redundant += 1;
                peer.origin = Some(beat.origin);
            }
            self.end(&key, now, &mut out);
            out.push(Effect::HangUp { link });
            self.forget(now);
            self.dial_due(now, &mut out);
            return out;
        }
        let was_heard = self.hears(beat.origin);
        let Some(was_up) = self.prove(now, link, &key, beat, &mut out) else {
            return out;
        };
        if !was_up {
            self.up.insert((beat.origin, via), link);
        }
        if !was_heard {
            out.push(Effect::Up {
                origin: beat.origin,
            });
        }
        let peer = self.peers.get_mut(&key).expect("it has just beaten");
        peer.origin = Some(beat.origin);
        peer.name.clone_from(&beat.name);
        peer.http.clone_from(&beat.http);
        out
    }

    /// A beat proves a link, if it is not ever older; whether one had before.
    fn prove(
        &mut self,
        now: Duration,
        link: LinkId,
        key: &Key,
        beat: &Beat,
        out: &mut Vec<Effect>,
    ) -> Option<bool> {
        let peer = self.peers.get_mut(key)?;
        let (since, pace) = match peer.state {
            State::Up { since, pace, .. } => (since, pace.next(now, beat.clock)),
            _ => (now, Pace::first(now, beat.clock)),
        };
        if pace.behind > BEHIND_MAX {
            let text = "what came from there was ever older, and is fetched instead";
            peer.fault = Some(Fault::new(Why::Behind, text));
            self.counters.behind += 1;
            self.end(key, now, out);
            out.push(Effect::HangUp { link });
            return None;
        }
        let was_up = peer.is_up();
        peer.state = State::Up {
            link,
            origin: beat.origin,
            since,
            pace,
            heard: now,
        };
        peer.failures = 0;
        peer.fault = None;
        peer.lacked = None;
        Some(was_up)
    }

    /// This node was itself stopped until now for so long: its peers are not to blame.
    pub(super) fn excuse(&mut self, now: Duration, stopped: Duration) {
        let peers = self.peers.values_mut();
        peers.for_each(|peer| peer.excuse(now, stopped));
    }

    /// Time has passed. Call it at each tick of the core.
    pub(super) fn tick(&mut self, now: Duration) -> Vec<Effect> {
        let mut out = Vec::new();
        let late: Vec<Key> = self
            .peers
            .iter()
            .filter(|(_, peer)| peer.is_late(now))
            .map(|(key, _)| key.clone())
            .collect();
        for key in late {
            let peer = self.peers.get_mut(&key).expect("the keys are the table's");
            let Some(link) = peer.link() else { continue };
            if matches!(peer.state, State::Dialing { .. }) {
                peer.fault = Some(Fault::new(Why::TimedOut, "timed out: no answer from there"));
            } else {
                let origin = match peer.state {
                    State::Up { origin, .. } => Some(origin),
                    _ => None,
                };
                let text = "silent: connected, and no beat for three seconds";
                peer.fault = Some(Fault::new(Why::Silent, text));
                self.counters.silent += 1;
                out.push(Effect::Silent { link, origin });
            }
            self.end(&key, now, &mut out);
            out.push(Effect::HangUp { link });
        }
        self.forget(now);
        self.dial_due(now, &mut out);
        self.tell_unlinked(now, &mut out);
        out
    }

    /// Who is on this link, once a beat has proven it.
    pub(super) fn origin_of(&self, link: LinkId) -> Option<Origin> {
        let peer = self.peers.get(self.links.get(&link)?)?;
        let origin = peer.origin?;
        (self.up.get(&(origin, peer.via)) == Some(&link)).then_some(origin)
    }

    /// Who should be on this link, proven or not.
    pub(super) fn expected_on(&self, link: LinkId) -> Option<Origin> {
        self.peers.get(self.links.get(&link)?)?.origin
    }

    /// Totals.
    pub(crate) fn counters(&self) -> Counters {
        self.counters
    }

    /// Whether this may be a peer at all.
    fn admits(&mut self, target: &Target) -> bool {
        if target.endpoint.len() > ENDPOINT_LEN_MAX {
            self.counters.refused += 1;
            return false;
        }
        target.origin != Some(self.me) && !self.is_own(&target.endpoint)
    }

    /// Whether this node itself is there.
    pub(super) fn is_own(&self, endpoint: &str) -> bool {
        self.own.contains(&place(endpoint))
    }

    /// Whether a peer without a link needs none: it is this node, or is heard by the same carrier, or
    /// someone else's link goes there, or the broker by which it would be heard is not.
    fn rests(&self, peer: &Peer, in_use: &BTreeSet<String>) -> bool {
        let heard = |origin| origin == self.me || self.up.contains_key(&(origin, peer.via));
        let waits = peer.speech != Speech::Hall && !self.has_hall(peer.via);
        waits
            || peer.origin.is_some_and(heard)
            || self.is_own(&peer.endpoint)
            || in_use.contains(&place(&peer.endpoint))
    }

    /// Whether a registry may list this: also somebody else at an endpoint of this node's own, which
    /// is never dialled, and said.
    fn may_be_listed(&mut self, target: &Target) -> bool {
        let other = target.origin.is_some_and(|origin| origin != self.me);
        let own = target.endpoint.len() <= ENDPOINT_LEN_MAX && other;
        own || self.admits(target)
    }

    fn endpoints_in_use(&self) -> BTreeSet<String> {
        let linked = self.links.values().filter_map(|key| self.peers.get(key));
        linked.map(|peer| place(&peer.endpoint)).collect()
    }

    /// Ends a peer's link and lets the carrier hang up.
    fn leave(&mut self, key: &Key, now: Duration, out: &mut Vec<Effect>) {
        if let Some(link) = self.peers.get(key).and_then(Peer::link) {
            self.end(key, now, out);
            out.push(Effect::HangUp { link });
        }
    }

    /// A peer's link is over: when is it dialled again, and who is down?
    fn end(&mut self, key: &Key, now: Duration, out: &mut Vec<Effect>) {
        let Some(peer) = self.peers.get_mut(key) else {
            return;
        };
        if let Some(link) = peer.link() {
            self.links.remove(&link);
        }
        let (via, was) = (peer.via, peer.state);
        let hall = (peer.speech == Speech::Hall).then(|| peer.endpoint.clone());
        peer.retry(now, &mut self.rng);
        if let Some(endpoint) = hall {
            self.close_hall(endpoint, via, was, now, out);
        } else if let State::Up { origin, .. } = was {
            self.up.remove(&(origin, via));
            if !self.hears(origin) {
                out.push(Effect::Down { origin });
            }
        }
    }

    /// Forgets whom nobody wants and who has no link.
    fn forget(&mut self, now: Duration) {
        self.peers
            .retain(|_, peer| peer.link().is_some() || peer.wanted(now));
    }

    /// Dials whoever is due, as far as the limit allows.
    fn dial_due(&mut self, now: Duration, out: &mut Vec<Effect>) {
        let dialing = |peer: &&Peer| matches!(peer.state, State::Dialing { .. });
        let mut room = DIALS_AT_ONCE_MAX - self.peers.values().filter(dialing).count();
        if room == 0 {
            return;
        }
        let mut due: Vec<(bool, Duration, Key)> = self
            .peers
            .iter()
            .filter_map(|(key, peer)| Some((peer.failures > 0, peer.due(now)?, key.clone())))
            .collect();
        if due.is_empty() {
            return;
        }
        due.sort();
        let mut in_use = self.endpoints_in_use();
        for (_, _, key) in due {
            if room == 0 {
                return;
            }
            if self.rests(&self.peers[&key], &in_use) {
                continue;
            }
            room -= 1;
            let link = LinkId(self.link_next);
            self.link_next += 1;
            self.counters.dials += 1;
            let peer = self.peers.get_mut(&key).expect("the keys are the table's");
            peer.state = State::Dialing { link, since: now };
            in_use.insert(place(&peer.endpoint));
            self.links.insert(link, key);
            let endpoint = peer.endpoint.clone();
            out.push(Effect::Dial {
                link,
                endpoint,
                speech: peer.speech,
            });
        }
    }
}
