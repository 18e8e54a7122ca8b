//! The node among its peers: what carrier, registries and hellos bring is told to the core.

#[cfg(test)]
mod tests;

use std::time::Duration;

use tokio::sync::mpsc;

use super::{CarrierCommand, Hub, Node, hello};
use crate::carriers::{Carrier, CarrierEvent};
use crate::core::input::Listed;
use crate::core::links::{LinkState, LinkStatus, Speech, Target};
use crate::core::{Input, Now};
use crate::discovery::View;
use crate::model::names::Origin;
use crate::wire::frame;
use crate::wire::protocol::check_text;

/// After so many frames the others have their turn, clients and the turn task: a full frame has some
/// hundred messages, and a node that lags has hundreds of frames to take.
const EVENTS_TOGETHER: usize = 8;
/// A hello takes so long at the most: as long as a node that hardly gets the processor may need.
const HELLO_MAX: Duration = Duration::from_secs(2);

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
        self.with(|node, now| node.core.handle(Input::Greeted(origin, outcome), now));
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
        let input = match event {
            CarrierEvent::Connected(link) => Input::Connected(link),
            CarrierEvent::Closed(link, fault) => Input::Closed(link, fault),
            CarrierEvent::Stranger(link, mesh) => Input::Stranger(link, mesh),
            CarrierEvent::Frame(link, topic, body) => match frame::decode(topic, &body) {
                Ok(news) => Input::News(link, news),
                Err(why) => {
                    self.counters.frames_bad += 1;
                    tracing::debug!(link = link.0, "a frame is dropped: {why}");
                    return;
                }
            },
            CarrierEvent::Plain(_, text) => return self.plain_said(&text, now),
        };
        self.core.handle(input, now);
    }

    /// A foreign publisher said something.
    fn plain_said(&mut self, text: &str, now: Now) {
        match check_text(text) {
            Ok(()) => self.core.handle(Input::Foreign(text), now),
            Err(_) => self.counters.refused += 1,
        }
    }

    /// The registries list other nodes, or another state of theirs is known.
    fn take_view(&mut self, view: View, now: Now) {
        let members = view.members.iter().map(|(origin, listed)| Target {
            origin: Some(*origin),
            endpoint: listed.publisher.clone(),
            http: listed.http.clone(),
            speech: Speech::Mesh,
        });
        let listed = Listed {
            members: members.collect(),
            answering: view.listed.clone(),
            is_settled: view.is_settled(),
        };
        self.view = view;
        self.core.handle(Input::Listed(listed), now);
    }

    /// A peer said hello.
    pub(crate) fn introduced(&mut self, origin: Origin, publisher: String, http: String, now: Now) {
        let target = Target {
            origin: Some(origin),
            endpoint: publisher,
            http,
            speech: Speech::Mesh,
        };
        self.core.handle(Input::Introduced(target), now);
    }

    /// Peers that should be heard and are not, or do not hear this node, each with where it should be
    /// and why not; some of them, if they are many.
    pub(crate) fn lacking(&self, now: Now) -> Vec<String> {
        const NAMED_MAX: usize = 20;
        let lacks = |link: &LinkStatus| {
            let up = link.state == LinkState::Up;
            if link.speech != Speech::Mesh || (up && self.core.hears_us(link)) {
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
        let links = self.core.links().status(now.mono);
        links.iter().filter_map(lacks).take(NAMED_MAX).collect()
    }
}
