//! The node among its peers: what carrier, registries and hellos bring is told to the core.

use super::Shell;
use crate::carriers::CarrierEvent;
use crate::core::input::Listed;
use crate::core::links::{LinkState, LinkStatus, Speech, Target, Via};
use crate::core::{Input, Now};
use crate::discovery::View;
use crate::model::names::Origin;
use crate::wire::frame;
use crate::wire::protocol::check_text;

impl Shell {
    pub(super) fn carrier_event(&mut self, event: CarrierEvent, now: Now) {
        let input = match event {
            CarrierEvent::Connected(link, key) => {
                self.link_keys.extend(key.map(|key| (link, key)));
                Input::Connected(link)
            }
            CarrierEvent::Closed(link, fault) => {
                self.link_keys.remove(&link);
                Input::Closed(link, fault)
            }
            CarrierEvent::Stranger(link, mesh) => Input::Stranger(link, mesh),
            CarrierEvent::Frame(link, topic, body) => match frame::decode(topic, &body) {
                Ok(news) => Input::News(link, news),
                Err(why) => {
                    self.totals.frames_bad += 1;
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
            Err(_) => self.totals.refused += 1,
        }
    }

    /// The registries list other nodes, or another state of theirs is known.
    pub(super) fn take_view(&mut self, view: View, now: Now) {
        let direct = view.members.iter().filter(|(_, listed)| {
            // Others are met at a broker, or not at all.
            self.is_direct && !listed.publisher.is_empty()
        });
        let members = direct.map(|(origin, listed)| Target {
            origin: Some(*origin),
            endpoint: listed.publisher.clone(),
            http: listed.http.clone(),
            speech: Speech::Mesh,
            via: Via::Nodes,
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
    pub(super) fn introduced(&mut self, origin: Origin, publisher: String, http: String, now: Now) {
        if publisher.is_empty() || !self.is_direct {
            return self.core.handle(Input::BeatAsked, now);
        }
        let target = Target {
            origin: Some(origin),
            endpoint: publisher,
            http,
            speech: Speech::Mesh,
            via: Via::Nodes,
        };
        self.core.handle(Input::Introduced(target), now);
    }

    /// Peers that should be heard and are not, or do not hear this node, each with where it should be
    /// and why not; some of them, if they are many.
    pub(super) fn lacking(&self, now: Now) -> Vec<String> {
        const NAMED_MAX: usize = 20;
        let lacks = |link: &LinkStatus| {
            let up = link.state == LinkState::Up;
            let is_well = match link.speech {
                Speech::Mesh => up && self.core.hears_us(link),
                Speech::Hall => up,
                Speech::Plain => true,
            };
            if is_well {
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
