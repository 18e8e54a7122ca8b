//! Halls: links to brokers, where all who are on one beat, this node too.
//!
//! That a broker took a subscription proves nothing: every broker, and most clients of them, lose in
//! silence. The only proof is that what this node itself says there comes back. So its own beat is to a
//! hall what a peer's beat is to his link: silence, lag and redialling go by the same rules. Anybody
//! else's beat introduces him; he is then dialled by the hall's carrier, and his beat on that link proves
//! it. Where the hall goes, all links by it go.

use std::time::Duration;

use super::Links;
use super::peer::{Key, Peer, State};
use super::types::{AT, Effect, LinkId, Speech, Target, Via};
use crate::core::news::Beat;
use crate::core::rules;
use crate::model::names::Origin;

/// Whoever is in a hall has beaten there after so long: the time between two beats, and a moment.
const MET_AFTER: Duration = Duration::from_millis(1200);

impl Links {
    /// A beat came in a hall.
    pub(super) fn beat_in_hall(
        &mut self,
        now: Duration,
        link: LinkId,
        key: &Key,
        beat: &Beat,
    ) -> Vec<Effect> {
        let mut out = Vec::new();
        let Some(peer) = self.peers.get(key) else {
            return out;
        };
        let endpoint = peer.endpoint.clone();
        let is_own = beat.origin == self.me;
        let via = peer.via;
        if rules::proves_hall(is_own) && self.prove(now, link, key, beat, &mut out) == Some(false) {
            out.push(Effect::HallUp {
                endpoint: endpoint.clone(),
            });
        }
        if is_own {
            self.dial_due(now, &mut out);
        } else {
            let target = Target {
                origin: Some(beat.origin),
                endpoint: format!("{endpoint}{AT}{}", beat.origin),
                http: beat.http.clone(),
                speech: Speech::Mesh,
                via,
            };
            out.extend(self.introduced(now, target));
        }
        out
    }

    /// Whether what goes by this carrier can be heard: from node to node always, by a broker while its
    /// hall is proven.
    pub(super) fn has_hall(&self, via: Via) -> bool {
        let proves = |peer: &Peer| peer.speech == Speech::Hall && peer.via == via && peer.is_up();
        via == Via::Nodes || self.peers.values().any(proves)
    }

    /// Whether a broker is not heard by which others are.
    pub(in crate::core) fn lacks_hall(&self) -> bool {
        let mut halls = self.peers.values().filter(|it| it.speech == Speech::Hall);
        halls.any(|hall| !hall.is_up())
    }

    /// Whether it is known who is in each hall: all had the time to beat there, or it cannot be had.
    pub(in crate::core) fn are_halls_met(&self, now: Duration) -> bool {
        let mut halls = self.peers.values().filter(|it| it.speech == Speech::Hall);
        halls.all(|hall| match hall.state {
            State::Up { since, .. } => now >= since + MET_AFTER,
            _ => hall.failures > 0,
        })
    }

    /// Who has beaten in a hall lately.
    pub(in crate::core) fn met(&self) -> impl Iterator<Item = Origin> {
        self.peers.keys().filter_map(|key| match key {
            Key::Origin(origin, Via::Broker(_)) => Some(*origin),
            Key::Origin(..) | Key::Endpoint(_) => None,
        })
    }

    /// Whether this link is the one by which its origin's beats count. What comes later by another
    /// carrier is older, and proves that link only.
    pub(in crate::core) fn leads(&self, link: LinkId) -> bool {
        let origin = self.origin_of(link);
        origin.is_some_and(|origin| self.ways(origin).next() == Some(link))
    }

    /// The links by which an origin is heard.
    pub(super) fn ways(&self, origin: Origin) -> impl Iterator<Item = LinkId> {
        let ways = (origin, Via::Nodes)..=(origin, Via::Broker(u8::MAX));
        self.up.range(ways).map(|(_, link)| *link)
    }

    /// How many links beats have proven, by whatever carrier.
    pub(in crate::core) fn up_count(&self) -> usize {
        self.up.len()
    }

    /// Whether an origin is heard by any way.
    pub(crate) fn hears(&self, origin: Origin) -> bool {
        self.ways(origin).next().is_some()
    }

    /// The own beat came back in a hall after this time.
    pub(in crate::core) fn echoed(&mut self, link: LinkId, echo: Duration) {
        if let Some(peer) = self
            .links
            .get(&link)
            .and_then(|key| self.peers.get_mut(key))
            && peer.speech == Speech::Hall
        {
            peer.echo = Some(echo);
        }
    }

    /// Whether a broker brings what comes on this link.
    pub(in crate::core) fn is_by_broker(&self, link: LinkId) -> bool {
        let peer = self.links.get(&link).and_then(|key| self.peers.get(key));
        peer.is_some_and(|peer| peer.via != Via::Nodes)
    }

    /// Whether this link is a hall.
    pub(in crate::core) fn is_hall(&self, link: LinkId) -> bool {
        let peer = self.links.get(&link).and_then(|key| self.peers.get(key));
        peer.is_some_and(|peer| peer.speech == Speech::Hall)
    }

    /// A hall is over, which was in this state: so are all links by it.
    pub(super) fn close_hall(
        &mut self,
        endpoint: String,
        via: Via,
        was: State,
        now: Duration,
        out: &mut Vec<Effect>,
    ) {
        let by_it = |(key, peer): (&Key, &Peer)| {
            let goes = peer.via == via && peer.speech != Speech::Hall && peer.link().is_some();
            goes.then(|| key.clone())
        };
        let keys: Vec<Key> = self.peers.iter().filter_map(by_it).collect();
        for key in keys {
            self.leave(&key, now, out);
        }
        if let State::Up { .. } = was {
            out.push(Effect::HallDown { endpoint });
        }
    }
}
