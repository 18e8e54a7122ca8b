//! What registries and hellos tell of the other nodes: whom to hear, to greet, to wait for.

use std::collections::BTreeSet;

use super::clock::Now;
use super::input::Listed;
use super::links::fault::{Fault, Why};
use super::links::{LinkState, LinkStatus, Target};
use super::output::Output;
use super::state::Core;
use crate::model::names::Origin;

impl Core {
    /// The link to a node came up: its first beat has proved who it is.
    pub(super) fn linked(&mut self, now: Now, origin: Origin) {
        self.peers.link(origin, true, now.mono);
        self.beat_soon(now);
    }

    /// The link to a node went down.
    pub(super) fn unlinked(&mut self, now: Now, origin: Origin) {
        self.peers.link(origin, false, now.mono);
        self.beat_soon(now);
        self.check_ready(now);
        self.check_roll(now);
    }

    /// The registries list other nodes, or another state of theirs is known.
    pub(super) fn listed(&mut self, listed: Listed, now: Now) {
        let me = self.me.origin;
        let mut members = listed.members;
        members.retain(|target| target.origin != Some(me));
        if !self.ready {
            let taken: BTreeSet<&str> = members.iter().map(|it| it.endpoint.as_str()).collect();
            let known = &mut self.awaited.listed;
            // One that registries forget, because they came back empty, is waited for all the same, unless
            // another is where it was, or its own door shows that it is dead.
            known.retain(|_, at| !taken.contains(at.as_str()) && !self.links.is_own(at));
            let listed = members.iter();
            known.extend(listed.filter_map(|it| Some((it.origin?, it.endpoint.clone()))));
        }
        self.awaited.is_settled = listed.is_settled;
        let answering = listed.answering.as_ref();
        self.peers.presence.list(answering, now.mono);
        let effects = self.links.want(now.mono, members);
        self.link_effects(effects, now);
        self.expect_listed(now);
    }

    /// Decides whom joining waits for, once that is known.
    pub(super) fn expect_listed(&mut self, now: Now) {
        if self.ready || !self.awaited.is_settled || !self.links.are_halls_met(now.mono) {
            return;
        }
        let status = match self.awaited.by_hand.is_empty() {
            true => Vec::new(),
            false => self.links.status(now.mono),
        };
        let is_up = |endpoint: &String| {
            let up = |link: &LinkStatus| link.state == LinkState::Up && link.publisher == *endpoint;
            status.iter().any(up)
        };
        if self.awaited.by_hand.iter().all(is_up) {
            let listed = self.awaited.listed.keys().copied().chain(self.links.met());
            let there = listed.filter(|origin| !self.awaited.absent.contains(origin));
            self.awaited.expected = Some(there.collect());
            self.check_ready(now);
        }
    }

    /// A node said hello: it is heard from now on, and hears a beat at once.
    pub(super) fn introduced(&mut self, target: Target, now: Now) {
        let effects = self.links.introduced(now.mono, target);
        self.link_effects(effects, now);
        self.ask_beat(now);
    }

    /// A peer was said hello to. One where nobody listens, or somebody else does, is dead, and is neither
    /// waited for nor greeted. That there is no way to it proves nothing, but joining does not wait.
    pub(super) fn greeted(&mut self, origin: Origin, outcome: Option<&Fault>, now: Now) {
        let why = outcome.map(|fault| fault.why);
        self.links.greeted(origin, outcome);
        self.greetings.answered(origin);
        match why {
            Some(Why::Refused | Why::OtherNode | Why::OtherMesh) => {
                self.greetings.end(origin);
                self.peers.presence.greeted(origin, false);
                self.check_ready(now);
                if why != Some(Why::Refused) {
                    let effects = self.links.elsewhere(now.mono, origin);
                    self.link_effects(effects, now);
                }
            }
            None | Some(Why::NotLetIn) => {
                self.peers.presence.greeted(origin, true);
                self.check_ready(now);
            }
            _ => {}
        }
        if self.ready {
            self.awaited.absent.clear();
        } else if why == Some(Why::Unreachable) {
            self.awaited.absent.insert(origin);
            self.expect_listed(now);
        } else if self.awaited.absent.remove(&origin) {
            self.expect_listed(now);
        }
    }

    /// Begins to say hello to a peer: at once, and until it is heard and hears this node.
    pub(super) fn begin_to_greet(&mut self, origin: Origin, http: String, now: Now) {
        if !http.is_empty() {
            self.greetings.begin(origin, http, now.mono);
            self.greet(now);
        }
    }

    /// Says hello to whom it is time to say it.
    pub(super) fn greet(&mut self, now: Now) {
        let due = self.greetings.due(now.mono).into_iter();
        let hellos = due.map(|(to, url)| Output::Hello { to, url });
        self.outputs.extend(hellos);
    }

    /// Tells clients which nodes there are, if that changed.
    pub(super) fn update_nodes(&mut self) {
        // Without a broker those that were heard by it go on serving their clients, as this node does.
        let adrift = self.links.lacks_hall();
        let others = self.peers.iter().filter(|(origin, peer)| {
            let heard = peer.linked && peer.beat_at.is_some();
            peer.ready && (heard || adrift && !self.peers.presence.is_absent(*origin))
        });
        let others = others.map(|(_, peer)| peer.http.clone());
        let others = others.filter(|http| !http.is_empty()).collect();
        if self.nodes.update(others) {
            self.outputs.push(Output::NodesChanged);
        }
    }
}
