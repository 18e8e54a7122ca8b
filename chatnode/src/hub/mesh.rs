//! The node among its peers: frames that come, links that come and go, and the requests that
//! repair what the bus lost.

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::effects::PLAIN_ROOM;
use super::{Answer, BusCommand, Errand, Hub, Node, hello};
use crate::bus::fault::{Fault, Why};
use crate::bus::frame::{self, Beat, Frame};
use crate::bus::links::{self, LinkState, LinkStatus, Target};
use crate::bus::{Bus, BusEvent, LinkId, Speech, Topic};
use crate::membership::View;
use crate::protocol::check_text;
use crate::replica::clock::AHEAD_MAX_US;
use crate::replica::names::Origin;
use crate::replica::{Now, Source};

/// After so many frames the others have their turn, clients and the turn task: a full frame has some
/// hundred messages, and a node that lags has hundreds of frames to take.
const EVENTS_TOGETHER: usize = 8;
/// A hello takes so long at the most.
const HELLO_MAX: Duration = Duration::from_secs(1);
/// A hello is said again after this, doubling, while the peer has not beaten or hears not us,
const GREET_FIRST: Duration = Duration::from_millis(50);
/// up to this.
const GREET_MAX: Duration = Duration::from_secs(2);

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

/// A peer to whom hello is said until it beats and hears us.
#[derive(Debug)]
pub(crate) struct Greeting {
    http: String,
    due: Duration,
    wait: Duration,
}

impl Hub {
    /// Moves frames between the node and the bus until the process stops, then closes the bus.
    ///
    /// # Errors
    /// None.
    pub async fn run_bus<B: Bus>(
        self,
        mut bus: B,
        mut commands: mpsc::Receiver<BusCommand>,
        grace: Duration,
    ) -> anyhow::Result<()> {
        let stopped = self.tasks().stopping();
        let mut together = 0;
        loop {
            // Each branch is cancel safe: a command or an event that is not taken stays.
            tokio::select! {
                biased;
                Some(command) = commands.recv() => carry(&mut bus, command),
                () = stopped.cancelled() => break,
                event = bus.event() => {
                    self.with(|node, now| node.bus_event(event, now));
                    together += 1;
                }
            }
            if together >= EVENTS_TOGETHER {
                together = 0;
                tokio::task::yield_now().await;
            }
        }
        while let Ok(command) = commands.try_recv() {
            carry(&mut bus, command);
        }
        bus.close(grace).await;
        Ok(())
    }

    /// Follows what the registries list until the process stops.
    ///
    /// # Errors
    /// None.
    pub async fn run_views(
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

    pub(super) async fn hello(self, link: LinkId, url: String) {
        let introduction = self.look(|node| {
            let me = node.replica.identity();
            let to = node.links.expected_on(link)?;
            Some(Introduction {
                origin: me.origin.as_str().to_owned(),
                publisher: me.publisher.clone(),
                http: me.http.clone(),
                to: Some(to.as_str().to_owned()),
                mesh: Some(node.settings.mesh.to_string()),
            })
        });
        // Whoever is not known is not greeted: an address may have changed hands.
        let Some(introduction) = introduction else {
            return;
        };
        let request = self
            .shared
            .http
            .post(format!("{url}/mesh/hello"))
            .timeout(HELLO_MAX)
            .json(&introduction);
        let outcome = hello::said(&url, request).await;
        if let Some(fault) = &outcome {
            tracing::debug!(link = link.0, "hello failed: {}", fault.text);
        }
        self.with(|node, now| node.greeted(link, outcome, now));
    }
}

fn carry(bus: &mut impl Bus, command: BusCommand) {
    match command {
        BusCommand::Publish(topic, body) => bus.publish(topic, body),
        BusCommand::PublishPlain(text) => bus.publish_plain(&text),
        BusCommand::Dial(link, endpoint, speech) => bus.dial(link, &endpoint, speech),
        BusCommand::HangUp(link) => bus.hang_up(link),
    }
}

impl Node {
    fn bus_event(&mut self, event: BusEvent, now: Now) {
        match event {
            BusEvent::Connected(link) => {
                let effects = self.links.connected(now.mono, link);
                self.link_effects(effects, now);
                // Once more: now the beat that it asks for will be heard.
                self.introduce(link, now);
            }
            BusEvent::Closed(link, fault) => {
                self.greetings.remove(&link);
                let effects = self.links.closed(now.mono, link, fault);
                self.link_effects(effects, now);
            }
            BusEvent::Stranger(link, mesh) => {
                self.greetings.remove(&link);
                let effects = self.links.stranger(now.mono, link, &mesh);
                self.link_effects(effects, now);
            }
            BusEvent::Frame(link, topic, body) => self.frame(link, topic, &body, now),
            BusEvent::Plain(_, text) => self.plain_said(&text, now),
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
        if let Frame::Beat(beat) = &decoded {
            let effects = self.links.beat(now.mono, link, beat);
            self.link_effects(effects, now);
            self.beat(link, beat, now);
            self.compare_clocks(link, beat, now);
            self.notice_lag(now);
        }
        // Only a link that has proved whose it is may speak, and only for that origin.
        if let Some(origin) = self.links.origin_of(link) {
            let beat = matches!(decoded, Frame::Beat(_));
            self.replica.frame(now, origin, decoded);
            if beat {
                self.expect(now);
                self.update_nodes();
            }
        }
    }

    /// Begins to say hello to a peer: it dials back, and beats at once.
    fn introduce(&mut self, link: LinkId, now: Now) {
        let http = self.links.http_of(link).unwrap_or_default().to_owned();
        let (due, wait) = (now.mono, GREET_FIRST);
        self.greetings.insert(link, Greeting { http, due, wait });
        self.greet(now);
    }

    /// A peer was said hello to. One where nobody listens, or somebody else does, is dead, and is not
    /// waited for.
    fn greeted(&mut self, link: LinkId, outcome: Option<Fault>, now: Now) {
        let refused = outcome.as_ref().is_some_and(|fault| {
            matches!(
                fault.why,
                Why::Refused | Why::Unreachable | Why::OtherNode | Why::OtherMesh
            )
        });
        self.links.greeted(link, outcome);
        if self.replica.is_ready() {
            self.absent.clear();
        } else if let Some(origin) = self.links.expected_on(link) {
            if refused {
                self.absent.insert(origin);
            } else {
                self.absent.remove(&origin);
            }
            self.expect(now);
        }
    }

    /// Says hello until the peer hears us, and remembers where it was seen alive.
    fn beat(&mut self, link: LinkId, beat: &Beat, now: Now) {
        let me = self.replica.identity().origin;
        if self.links.origin_of(link) == Some(beat.origin) {
            self.remember([beat.http.clone()]);
        }
        if beat.hears.contains(&me) || self.links.origin_of(link) != Some(beat.origin) {
            self.greetings.remove(&link);
        } else {
            let fresh = || Greeting {
                http: String::new(),
                due: now.mono,
                wait: GREET_FIRST,
            };
            let greeting = self.greetings.entry(link).or_insert_with(fresh);
            greeting.http.clone_from(&beat.http);
        }
    }

    /// Says once that a peer's wall clock is too far from this node's for stamps to follow it: what
    /// the one that is ahead says will stand behind what others say after it.
    fn compare_clocks(&mut self, link: LinkId, beat: &Beat, now: Now) {
        if self.links.origin_of(link) != Some(beat.origin) {
            return;
        }
        let apart = Duration::from_micros(beat.ts.abs_diff(now.wall_us));
        if apart <= Duration::from_micros(AHEAD_MAX_US) {
            self.skewed.remove(&beat.origin);
        } else if self.skewed.insert(beat.origin) {
            let (peer, apart_s) = (beat.origin.as_str(), apart.as_secs());
            let way = if beat.ts > now.wall_us {
                "ahead"
            } else {
                "behind"
            };
            tracing::warn!(
                peer,
                apart_s,
                "the peer's clock is {way} by more than a minute"
            );
        }
    }

    pub(super) fn greet(&mut self, now: Now) {
        for (link, greeting) in &mut self.greetings {
            if now.mono >= greeting.due && !greeting.http.is_empty() {
                greeting.due = now.mono + greeting.wait;
                greeting.wait = (greeting.wait * 2).min(GREET_MAX);
                self.errands
                    .push(Errand::Hello(*link, greeting.http.clone()));
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
                    self.bus(BusCommand::Dial(link, endpoint, speech));
                    if speech == Speech::Mesh {
                        self.introduce(link, now);
                    }
                }
                links::Effect::HangUp { link } => {
                    self.greetings.remove(&link);
                    self.bus(BusCommand::HangUp(link));
                }
                links::Effect::Up { origin } => {
                    tracing::info!(peer = %origin, "link up");
                    self.replica.linked(now, origin);
                }
                links::Effect::Down { origin } => {
                    tracing::info!(peer = %origin, "link down");
                    self.skewed.remove(&origin);
                    self.replica.unlinked(now, origin);
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
        let me = self.replica.identity().origin;
        let peer = link
            .origin
            .and_then(|origin| self.replica.peers().get(origin));
        peer.is_some_and(|peer| peer.hears.contains(&me))
    }

    /// The registries list other nodes, or another state of theirs is known.
    fn take_view(&mut self, view: View, now: Now) {
        let me = self.replica.identity().origin;
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
        let effects = self.links.want(now.mono, targets);
        self.link_effects(effects, now);
        self.expect(now);
    }

    /// Tells the replica whom joining waits for, once that is known.
    fn expect(&mut self, now: Now) {
        if self.replica.is_ready() || !self.view.is_settled() {
            return;
        }
        let mut waiting = self.settings.peers.clone();
        for status in self.links.status(now.mono) {
            if status.state == LinkState::Up {
                waiting.retain(|peer| *peer != status.publisher);
            }
        }
        if waiting.is_empty() {
            let me = self.replica.identity().origin;
            let members = self.view.members.keys().copied();
            let expected: BTreeSet<Origin> = members
                .filter(|origin| *origin != me && !self.absent.contains(origin))
                .collect();
            self.replica.expect(now, expected);
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
        self.replica.ask_beat(now);
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
