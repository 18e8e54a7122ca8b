//! The node among its peers: frames that come, links that come and go, and the requests that
//! repair what the carrier lost.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::effects::PLAIN_ROOM;
use super::{Answer, CarrierCommand, Errand, Hub, Node, hello};
use crate::carriers::{Carrier, CarrierEvent};
use crate::core::clock::AHEAD_MAX_US;
use crate::core::links::fault::{Fault, Why};
use crate::core::links::{self, LinkState, LinkStatus, Target};
use crate::core::links::{LinkId, Speech};
use crate::core::news::{Beat, News};
use crate::core::presence::AWAITED_MAX;
use crate::core::{Now, Source};
use crate::discovery::View;
use crate::model::names::Origin;
use crate::wire::frame::Topic;
use crate::wire::frame::{self};
use crate::wire::protocol::check_text;

/// After so many frames the others have their turn, clients and the turn task: a full frame has some
/// hundred messages, and a node that lags has hundreds of frames to take.
const EVENTS_TOGETHER: usize = 8;
/// A hello takes so long at the most: as long as a node that hardly gets the processor may need.
const HELLO_MAX: Duration = Duration::from_secs(2);
/// A hello is said again after this, doubling, while the peer has not beaten or hears not us,
pub(crate) const GREET_FIRST: Duration = Duration::from_millis(50);
/// up to this,
pub(crate) const GREET_MAX: Duration = Duration::from_secs(2);
/// and for so long after a dial, or the end of the link.
pub(crate) const GREETED_FOR: Duration = AWAITED_MAX;

/// What `POST /mesh/hello` carries: who comes, and where it is to be heard.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub(crate) struct Introduction {
    /// Who.
    pub(crate) origin: String,
    /// Its PUB endpoint.
    #[serde(rename = "pub")]
    pub(crate) publisher: String,
    /// Its HTTP endpoint.
    pub(crate) http: String,
    /// Whom it means: the origin that it expects here. An address is not an identity.
    pub(crate) to: Option<String>,
    /// Of which mesh it is.
    pub(crate) mesh: Option<String>,
}

/// Peers to whom hello is said until they beat and hear us, or nobody is there.
pub(super) type Greetings = BTreeMap<Origin, Greeting>;

/// Where one of them is.
#[derive(Debug)]
pub(crate) struct Greeting {
    http: String,
    due: Duration,
    wait: Duration,
    until: Duration,
    /// One is not answered yet. None is said meanwhile: who is slow to answer would be slower still.
    under_way: bool,
}

impl Hub {
    /// Moves frames between the node and the carrier until the process stops, then closes the carrier.
    ///
    /// # Errors
    /// None.
    pub(crate) async fn run_carrier<B: Carrier>(
        self,
        mut carrier: B,
        mut commands: mpsc::Receiver<CarrierCommand>,
        grace: Duration,
    ) -> anyhow::Result<()> {
        let stopped = self.tasks().stopping();
        let mut together = 0;
        loop {
            // Each branch is cancel safe: a command or an event that is not taken stays.
            tokio::select! {
                biased;
                Some(command) = commands.recv() => carry(&mut carrier, command),
                () = stopped.cancelled() => break,
                event = carrier.event() => {
                    self.with(|node, now| node.carrier_event(event, now));
                    together += 1;
                }
            }
            if together >= EVENTS_TOGETHER {
                together = 0;
                tokio::task::yield_now().await;
            }
        }
        while let Ok(command) = commands.try_recv() {
            carry(&mut carrier, command);
        }
        carrier.close(grace).await;
        Ok(())
    }

    /// Follows what the registries list until the process stops.
    ///
    /// # Errors
    /// None.
    pub(crate) async fn run_views(
        self,
        mut views: tokio::sync::watch::Receiver<View>,
    ) -> anyhow::Result<()> {
        let stopped = self.tasks().stopping();
        loop {
            let view = views.borrow_and_update().clone();
            self.with(|node, now| node.take_view(view, now));
            tokio::select! {
                biased;
                () = stopped.cancelled() => return Ok(()),
                changed = views.changed() => if changed.is_err() {
                    stopped.cancelled().await;
                    return Ok(());
                },
            }
        }
    }

    pub(super) async fn hello(self, origin: Origin, url: String) {
        let introduction = self.look(|node| {
            let me = node.core.identity();
            Introduction {
                origin: me.origin.as_str().to_owned(),
                publisher: me.publisher.clone(),
                http: me.http.clone(),
                to: Some(origin.as_str().to_owned()),
                mesh: Some(node.settings.mesh.to_string()),
            }
        });
        let url = format!("{url}/mesh/hello");
        let request = self.shared.http.post(&url).timeout(HELLO_MAX);
        let outcome = hello::said(&url, request.json(&introduction)).await;
        if let Some(fault) = &outcome {
            tracing::debug!(peer = %origin, "hello failed: {}", fault.text);
        }
        self.with(|node, now| node.greeted(origin, outcome.as_ref(), now));
    }
}

fn carry(carrier: &mut impl Carrier, command: CarrierCommand) {
    match command {
        CarrierCommand::Publish(topic, body) => carrier.publish(topic, body),
        CarrierCommand::PublishPlain(text) => carrier.publish_plain(&text),
        CarrierCommand::Dial(link, endpoint, speech) => carrier.dial(link, &endpoint, speech),
        CarrierCommand::HangUp(link) => carrier.hang_up(link),
    }
}

impl Node {
    fn carrier_event(&mut self, event: CarrierEvent, now: Now) {
        match event {
            CarrierEvent::Connected(link) => {
                let effects = self.links.connected(now.mono, link);
                self.link_effects(effects, now);
                // Once more: now the beat that it asks for will be heard.
                self.introduce(link, now);
            }
            CarrierEvent::Closed(link, fault) => {
                let effects = self.links.closed(now.mono, link, fault);
                self.link_effects(effects, now);
            }
            CarrierEvent::Stranger(link, mesh) => {
                let effects = self.links.stranger(now.mono, link, &mesh);
                self.link_effects(effects, now);
            }
            CarrierEvent::Frame(link, topic, body) => self.frame(link, topic, &body, now),
            CarrierEvent::Plain(_, text) => self.plain_said(&text, now),
        }
    }

    fn frame(&mut self, link: LinkId, topic: Topic, body: &Bytes, now: Now) {
        let decoded = match frame::decode(topic, body) {
            Ok(decoded) => decoded,
            Err(why) => {
                self.counters.frames_bad += 1;
                tracing::debug!(link = link.0, "a frame is dropped: {why}");
                return;
            }
        };
        if let News::Beat(beat) = &decoded {
            let effects = self.links.beat(now.mono, link, beat);
            self.link_effects(effects, now);
            self.beat(link, beat, now);
        }
        // Only a link that has proved whose it is may speak, and only for that origin.
        if let Some(origin) = self.links.origin_of(link) {
            let told = match &decoded {
                News::Beat(beat) => Some(beat.ts),
                _ => None,
            };
            self.core.news(now, origin, decoded);
            if let Some(ts) = told {
                self.expect(now);
                self.update_nodes();
                self.tell_wrong_clocks(origin, ts);
            }
        }
    }

    /// Begins to say hello to a peer: it dials back, and beats at once.
    fn introduce(&mut self, link: LinkId, now: Now) {
        let http = self.links.http_of(link).unwrap_or_default().to_owned();
        if let Some(origin) = self.links.expected_on(link) {
            self.begin_to_greet(origin, http, now);
        }
    }

    /// Says hello to a peer at once, and goes on with that.
    fn begin_to_greet(&mut self, origin: Origin, http: String, now: Now) {
        if !http.is_empty() {
            let before = self.greetings.get(&origin);
            let greeting = Greeting {
                http,
                due: now.mono,
                wait: before.map_or(GREET_FIRST, |it| it.wait),
                until: now.mono + GREETED_FOR,
                under_way: before.is_some_and(|it| it.under_way),
            };
            self.greetings.insert(origin, greeting);
            self.greet(now);
        }
    }

    /// A peer was said hello to. One where nobody listens, or somebody else does, is dead, and is neither
    /// waited for nor greeted. That there is no way to it proves nothing, but joining does not wait.
    fn greeted(&mut self, origin: Origin, outcome: Option<&Fault>, now: Now) {
        let why = outcome.map(|fault| fault.why);
        self.links.greeted(origin, outcome);
        if let Some(greeting) = self.greetings.get_mut(&origin) {
            greeting.under_way = false;
        }
        match why {
            Some(Why::Refused | Why::OtherNode | Why::OtherMesh) => {
                self.greetings.remove(&origin);
                self.core.greeted(now, origin, false);
                if why != Some(Why::Refused) {
                    let effects = self.links.elsewhere(now.mono, origin);
                    self.link_effects(effects, now);
                }
            }
            None | Some(Why::NotLetIn) => self.core.greeted(now, origin, true),
            _ => {}
        }
        if self.core.is_ready() {
            self.absent.clear();
        } else if why == Some(Why::Unreachable) {
            self.absent.insert(origin);
            self.expect(now);
        } else if self.absent.remove(&origin) {
            self.expect(now);
        }
    }

    /// Says hello until the peer hears us, and remembers where it was seen alive.
    fn beat(&mut self, link: LinkId, beat: &Beat, now: Now) {
        if self.links.origin_of(link) != Some(beat.origin) {
            return;
        }
        self.remember([beat.http.clone()]);
        if beat.hears.contains(&self.core.identity().origin) {
            self.greetings.remove(&beat.origin);
        } else if let Some(greeting) = self.greetings.get_mut(&beat.origin) {
            greeting.http.clone_from(&beat.http);
            greeting.until = now.mono + GREETED_FOR;
        } else {
            self.begin_to_greet(beat.origin, beat.http.clone(), now);
        }
    }

    /// Says once that this node's wall clock is too far from those of the others to be followed, and once
    /// that a peer's time is too far from this node's for stamps to follow it: what the one that is
    /// ahead says will stand behind what others say after it.
    fn tell_wrong_clocks(&mut self, origin: Origin, ts: u64) {
        // By the beat this node's own time may be another.
        let now = self.now();
        let wrong_s = self.core.correction_us() / -1_000_000;
        let told = std::mem::replace(&mut self.goes_by_others, wrong_s != 0);
        if wrong_s != 0 && !told {
            tracing::warn!(
                wrong_s,
                "this node's clock is more than a minute from the others': it goes by theirs"
            );
        }
        let apart = Duration::from_micros(ts.abs_diff(now.wall_us));
        if apart <= Duration::from_micros(AHEAD_MAX_US) {
            self.skewed.remove(&origin);
        } else if self.skewed.insert(origin) {
            let (peer, apart_s) = (origin.as_str(), apart.as_secs());
            let way = if ts > now.wall_us { "ahead" } else { "behind" };
            tracing::warn!(
                peer,
                apart_s,
                "the peer's clock is {way} by more than a minute"
            );
        }
    }

    pub(super) fn greet(&mut self, now: Now) {
        self.greetings.retain(|_, it| now.mono < it.until);
        for (origin, greeting) in &mut self.greetings {
            let due = now.mono >= greeting.due && !greeting.under_way;
            if due && !greeting.http.is_empty() {
                greeting.due = now.mono + greeting.wait;
                greeting.wait = (greeting.wait * 2).min(GREET_MAX);
                greeting.under_way = true;
                self.errands
                    .push(Errand::Hello(*origin, greeting.http.clone()));
            }
        }
    }

    pub(crate) fn link_effects(&mut self, effects: Vec<links::Effect>, now: Now) {
        for effect in effects {
            match effect {
                links::Effect::Dial {
                    link,
                    endpoint,
                    speech,
                } => {
                    self.carrier(CarrierCommand::Dial(link, endpoint, speech));
                    if speech == Speech::Mesh {
                        self.introduce(link, now);
                    }
                }
                links::Effect::HangUp { link } => self.carrier(CarrierCommand::HangUp(link)),
                links::Effect::Up { origin } => {
                    tracing::info!(peer = %origin, "link up");
                    self.core.linked(now, origin);
                }
                links::Effect::Down { origin } => {
                    tracing::info!(peer = %origin, "link down");
                    self.skewed.remove(&origin);
                    self.core.unlinked(now, origin);
                    // Whether it is dead, or only not heard, is seen where its HTTP is.
                    let http = self.http_of(origin).unwrap_or_default();
                    self.begin_to_greet(origin, http, now);
                    self.update_nodes();
                }
                links::Effect::Unlinked {
                    origin,
                    endpoint,
                    fault,
                } => {
                    let peer = origin.map(|origin| origin.to_string()).unwrap_or_default();
                    let reason = fault.why.as_str();
                    tracing::warn!(peer, endpoint, reason, "not linked: {}", fault.text);
                }
                links::Effect::Silent { link, origin } => {
                    let peer = origin.map(|origin| origin.to_string()).unwrap_or_default();
                    tracing::warn!(
                        link = link.0,
                        peer,
                        "no beat for 3 s: the link is torn down"
                    );
                }
            }
        }
    }

    /// Peers that should be heard and are not, or do not hear this node, each with where it should be
    /// and why not; some of them, if they are many.
    pub(crate) fn lacking(&self, now: Now) -> Vec<String> {
        const NAMED_MAX: usize = 20;
        let lacks = |link: &LinkStatus| {
            let up = link.state == LinkState::Up;
            if link.speech != Speech::Mesh || (up && self.hears_us(link)) {
                return None;
            }
            let at = &link.publisher;
            let who = link
                .origin
                .map_or_else(|| at.clone(), |origin| format!("{origin} at {at}"));
            let why = match &link.fault {
                Some(fault) if up => format!("does not hear this node; {}", fault.text),
                Some(fault) => fault.text.clone(),
                None if up => "does not hear this node yet".to_owned(),
                None => "not heard yet".to_owned(),
            };
            Some(format!("{who} ({why})"))
        };
        let links = self.links.status(now.mono);
        links.iter().filter_map(lacks).take(NAMED_MAX).collect()
    }

    /// Whether the peer of this link says that it hears this node.
    pub(crate) fn hears_us(&self, link: &LinkStatus) -> bool {
        let me = self.core.identity().origin;
        let peer = link.origin.and_then(|origin| self.core.peers().get(origin));
        peer.is_some_and(|peer| peer.hears.contains(&me))
    }

    /// The registries list other nodes, or another state of theirs is known.
    fn take_view(&mut self, view: View, now: Now) {
        let me = self.core.identity().origin;
        let targets = view
            .members
            .iter()
            .filter(|(origin, _)| **origin != me)
            .map(|(origin, listed)| Target {
                origin: Some(*origin),
                endpoint: listed.publisher.clone(),
                http: listed.http.clone(),
                speech: Speech::Mesh,
            })
            .collect();
        self.view = view;
        self.core.listed(now, self.view.listed.as_ref());
        let effects = self.links.want(now.mono, targets);
        self.link_effects(effects, now);
        self.expect(now);
    }

    /// Tells the core whom joining waits for, once that is known.
    fn expect(&mut self, now: Now) {
        if self.core.is_ready() || !self.view.is_settled() {
            return;
        }
        let mut waiting = self.settings.peers.clone();
        for status in self.links.status(now.mono) {
            if status.state == LinkState::Up {
                waiting.retain(|peer| *peer != status.publisher);
            }
        }
        if waiting.is_empty() {
            let me = self.core.identity().origin;
            let members = self.view.members.keys().copied();
            let expected: BTreeSet<Origin> = members
                .filter(|origin| *origin != me && !self.absent.contains(origin))
                .collect();
            self.core.expect(now, expected);
        }
    }

    /// A peer said hello: it is heard from now on, and hears a beat at once.
    pub(crate) fn introduced(&mut self, origin: Origin, publisher: String, http: String, now: Now) {
        let target = Target {
            origin: Some(origin),
            endpoint: publisher,
            http,
            speech: Speech::Mesh,
        };
        let effects = self.links.introduced(now.mono, target);
        self.link_effects(effects, now);
        self.core.ask_beat(now);
    }

    /// A foreign publisher said something: it becomes this node's own message.
    fn plain_said(&mut self, text: &str, now: Now) {
        if check_text(text).is_err() {
            self.counters.refused += 1;
            return;
        }
        let room = PLAIN_ROOM.parse().expect("a valid room name");
        let name = "static".parse().expect("a valid user name");
        let (answer, source) = (Answer::Nobody, Source::Foreign);
        self.say(&room, &name, None, text, 0, answer, source, now);
    }
}
