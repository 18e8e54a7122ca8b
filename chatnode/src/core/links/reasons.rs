//! Why a peer is not heard: what ended its link, what its HTTP said, who else is where it should be.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Links;
use super::fault::{Fault, Why};
use super::peer::{Peer, State, is_loopback, place};
use super::types::{Effect, LinkId, LinkStatus, Speech, Via};
use crate::model::mesh_name::MeshName;
use crate::model::names::Origin;

/// Someone who is wanted and not heard for so long is told to the log: longer than the dead stay listed.
pub(super) const UNLINKED_AFTER: Duration = Duration::from_secs(10);

/// Who is heard where.
type Holders = BTreeMap<String, Origin>;

impl Links {
    /// Where the HTTP of this link's peer is, as far as known.
    pub(in crate::core) fn http_of(&self, link: LinkId) -> Option<&str> {
        Some(self.peers.get(self.links.get(&link)?)?.http.as_str())
    }

    /// A beat of another mesh came over this link: that node is none of ours.
    pub(in crate::core) fn stranger(
        &mut self,
        now: Duration,
        link: LinkId,
        mesh: &MeshName,
    ) -> Vec<Effect> {
        let mut out = Vec::new();
        let Some(key) = self.links.get(&link).cloned() else {
            return out;
        };
        self.counters.strangers += 1;
        self.end(&key, now, &mut out);
        out.push(Effect::HangUp { link });
        if let Some(peer) = self.peers.get_mut(&key) {
            let text = format!("a node of another mesh is there, of {mesh}");
            peer.fault = Some(Fault::new(Why::OtherMesh, text));
        }
        self.forget(now);
        self.dial_due(now, &mut out);
        out
    }

    /// A peer was said hello to, and took it, or why not.
    pub(in crate::core) fn greeted(&mut self, origin: Origin, outcome: Option<&Fault>) {
        let greeted = |peer: &&mut Peer| peer.origin == Some(origin);
        for peer in self.peers.values_mut().filter(greeted) {
            peer.hello = outcome.cloned();
        }
    }

    /// All peers, for people; without those that are heard by another way.
    pub(crate) fn status(&self, now: Duration) -> Vec<LinkStatus> {
        let in_use = self.endpoints_in_use();
        let holders = self.holders();
        let shown = |peer: &&Peer| {
            let clashes = self.clash(peer, &holders).is_some();
            peer.link().is_some() || clashes || !self.rests(peer, &in_use)
        };
        self.peers
            .values()
            .filter(shown)
            .map(|peer| peer.status(now, self.fault(peer, &holders)))
            .collect()
    }

    /// Tells of whom is wanted, and not heard for long: once, and again when the reason is another.
    pub(super) fn tell_unlinked(&mut self, now: Duration, out: &mut Vec<Effect>) {
        let mut long = Vec::new();
        for (key, peer) in &mut self.peers {
            if peer.is_up() || peer.speech == Speech::Plain || !peer.wanted(now) {
                peer.lacked = None;
                continue;
            }
            let (since, _) = *peer.lacked.get_or_insert((now, None));
            if now.saturating_sub(since) >= UNLINKED_AFTER {
                long.push(key.clone());
            }
        }
        if long.is_empty() {
            return;
        }
        let holders = self.holders();
        let in_use = self.endpoints_in_use();
        for key in long {
            let peer = &self.peers[&key];
            let rests = peer.link().is_none() && self.rests(peer, &in_use);
            let fault = self.fault(peer, &holders);
            let fault = fault.filter(|fault| !rests || fault.why == Why::SameEndpoint);
            let Some(fault) = fault else { continue };
            if let Some(peer) = self.peers.get_mut(&key)
                && let Some((_, said)) = &mut peer.lacked
                && said.replace(fault.why) != Some(fault.why)
            {
                out.push(Effect::Unlinked {
                    origin: peer.origin,
                    endpoint: peer.endpoint.clone(),
                    fault,
                });
            }
        }
    }

    fn holders(&self) -> Holders {
        let heard = self.up.iter().filter_map(|((origin, _), link)| {
            let peer = self.peers.get(self.links.get(link)?)?;
            Some((place(&peer.endpoint), *origin))
        });
        heard.collect()
    }

    /// Somebody else has the endpoint that this peer tells.
    fn clash(&self, peer: &Peer, holders: &Holders) -> Option<Fault> {
        // At an endpoint that was given by hand the origin is who was there last.
        let origin = peer.origin.filter(|origin| {
            !peer.fixed && *origin != self.me && !self.hears(*origin) && peer.link().is_none()
        })?;
        let at = place(&peer.endpoint);
        let holder = match holders.get(&at) {
            Some(holder) if *holder != origin => *holder,
            None if self.own.contains(&at) => self.me,
            _ => return None,
        };
        let text = format!(
            "{origin} and {holder} both tell {}, where {holder} is: each needs a port of its own, or \
             an address of its own by --advertise",
            peer.endpoint
        );
        Some(Fault::new(Why::SameEndpoint, text))
    }

    /// Why this peer is not heard, as far as is known. What says who is there weighs more than that
    /// somebody did not answer.
    fn fault(&self, peer: &Peer, holders: &Holders) -> Option<Fault> {
        if let State::Up { .. } = peer.state {
            return peer.hello.clone();
        }
        let says_who = |fault: &&Fault| matches!(fault.why, Why::OtherNode | Why::OtherMesh);
        let link = peer.fault.as_ref();
        let who = link
            .filter(says_who)
            .or(peer.hello.as_ref().filter(says_who));
        if let Some(fault) = self.clash(peer, holders).or(who.cloned()) {
            return Some(fault);
        }
        let fault = link.or(peer.hello.as_ref())?;
        if self.beyond && peer.via == Via::Nodes && is_loopback(&peer.endpoint) {
            let text = format!(
                "{} leads here, and its node is on another machine perhaps: it tells an address on \
                 loopback ({})",
                peer.endpoint, fault.text
            );
            return Some(Fault::new(Why::Loopback, text));
        }
        Some(fault.clone())
    }
}
