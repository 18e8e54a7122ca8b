//! The node among its peers: what carrier, registries and hellos bring is told to the core.

use std::sync::Arc;
use std::time::Duration;

use super::Shell;
use crate::carriers::CarrierEvent;
use crate::carriers::broker::bridge::Shown;
use crate::core::input::Listed;
use crate::core::links::{LinkState, LinkStatus, Speech, Target, Via};
use crate::core::{Foreign, Input, Now};
use crate::discovery::View;
use crate::model::entry::Entry;
use crate::model::names::{Mid, Origin};
use crate::wire::frame;
use crate::wire::protocol::check_text;

/// How the mid of a message begins that a foreign program said; the way by which it came follows.
const FOREIGN: &str = "foreign-";
/// What is shown later than this after it was said is history, and goes to no bridge.
const BRIDGED_FOR: Duration = Duration::from_secs(10);

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
        self.foreign("static", text, now);
    }

    /// A foreign program said something, by this way.
    pub(super) fn foreign(&mut self, by: &str, text: &str, now: Now) {
        if check_text(text).is_err() {
            self.totals.refused += 1;
            return;
        }
        let mid = format!("{FOREIGN}{by}-{:016x}", rand::random::<u64>());
        let mid = mid.parse().expect("a valid mid");
        let by = by.parse().expect("a valid user name");
        let said = Foreign {
            by: &by,
            mid: &mid,
            text,
        };
        self.core.handle(Input::Foreign(said), now);
    }

    /// A message of the plain form's room is shown: bridges are told.
    pub(super) fn show_bridges(&self, entry: &Entry, now: Now) {
        let age = now.wall_us.saturating_sub(entry.ts);
        let is_new = u128::from(age) < BRIDGED_FOR.as_micros();
        let Some(text) = entry.text().filter(|_| is_new) else {
            return;
        };
        let mid = entry.mid.as_ref().map(Mid::as_str).unwrap_or_default();
        let by = mid.strip_prefix(FOREIGN).and_then(|it| it.split_once('-'));
        let shown = Arc::new(Shown {
            text: text.into_owned(),
            by: by.map(|(by, _)| by.to_owned()),
        });
        for bridge in &self.bridges {
            bridge.show(&shown);
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
