//! Frames within one process: several nodes in one test, without sockets or waiting.
//!
//! It behaves as the ZeroMQ transport does where a node could tell: the same bytes in the same
//! parts, subscriptions, a link that closes when its peer goes, loss in silence. And it can be
//! broken at will: [`Network::cut`] lets nothing through from one node to another, in one
//! direction, while both still believe in the link.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;

use super::parts::{Heard, Topics, from_plain, to_plain};
use crate::carriers::{Carrier, CarrierEvent};
use crate::core::links::fault::{Fault, Why};
use crate::core::links::{LinkId, Speech};
use crate::model::names::Origin;
use crate::wire::frame::Topic;

/// Frames that wait for one node. When full, further ones are lost, as PUB loses them.
pub(super) const INBOX_MAX: usize = 65_536;

/// What connects the nodes of one process. Cheap to clone: all clones are one network.
#[derive(Debug, Clone, Default)]
pub(super) struct Network(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    nodes: BTreeMap<String, Node>,
    /// From, to.
    cuts: BTreeSet<(String, String)>,
}

#[derive(Debug)]
struct Node {
    me: Origin,
    /// Whom it hears: where, and what.
    links: BTreeMap<LinkId, (String, Speech)>,
    inbox: VecDeque<CarrierEvent>,
    news: Arc<Notify>,
}

impl Node {
    fn push(&mut self, event: CarrierEvent) {
        let may_be_lost = matches!(event, CarrierEvent::Frame(..) | CarrierEvent::Plain(..));
        if !may_be_lost || self.inbox.len() < INBOX_MAX {
            self.inbox.push_back(event);
            self.news.notify_one();
        }
    }
}

impl Network {
    /// A node at this endpoint, or `None` if another one is there.
    pub(super) fn bind(&self, endpoint: &str, me: Origin) -> Option<MemoryCarrier> {
        let mut state = self.lock();
        if state.nodes.contains_key(endpoint) {
            return None;
        }
        let news = Arc::new(Notify::new());
        let inbox = VecDeque::new();
        let node = Node {
            me,
            links: BTreeMap::new(),
            inbox,
            news: Arc::clone(&news),
        };
        state.nodes.insert(endpoint.into(), node);
        Some(MemoryCarrier {
            network: self.clone(),
            endpoint: endpoint.into(),
            news,
        })
    }

    /// From now on what is published at `from` does not reach `to`, and neither can dial the
    /// other. Links stay.
    pub(super) fn cut(&self, from: &str, to: &str) {
        self.lock().cuts.insert((from.into(), to.into()));
    }

    /// Undoes [`Network::cut`]. What was published meanwhile is lost.
    pub(super) fn heal(&self, from: &str, to: &str) {
        self.lock().cuts.remove(&(from.into(), to.into()));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("nothing panics under this lock")
    }
}

/// One node's carrier.
#[derive(Debug)]
pub(super) struct MemoryCarrier {
    network: Network,
    endpoint: String,
    news: Arc<Notify>,
}

impl MemoryCarrier {
    fn take(&self) -> Option<CarrierEvent> {
        self.network
            .lock()
            .nodes
            .get_mut(&self.endpoint)?
            .inbox
            .pop_front()
    }

    /// Gives every link that hears this node, and is not cut off, the event that `make` makes.
    fn send(&self, speech: Speech, make: impl Fn(LinkId, Origin) -> Option<CarrierEvent>) {
        let State { nodes, cuts } = &mut *self.network.lock();
        for (to, node) in nodes {
            if cuts.contains(&(self.endpoint.clone(), to.clone())) {
                continue;
            }
            let hears = |(_, link): &(&LinkId, &(String, Speech))| {
                link.0 == self.endpoint && link.1 == speech
            };
            let links: Vec<LinkId> = node.links.iter().filter(hears).map(|(id, _)| *id).collect();
            let me = node.me;
            for event in links.into_iter().filter_map(|link| make(link, me)) {
                node.push(event);
            }
        }
    }
}

impl Carrier for MemoryCarrier {
    fn publish(&mut self, topic: Topic, body: Bytes) {
        let topics = Topics::default();
        let parts = topics.to_parts(topic, body);
        self.send(Speech::Mesh, |link, me| match topics.join(&parts)? {
            Heard::Frame(Topic::Ack(origin), _) if origin != me => None,
            Heard::Frame(topic, frame) => Some(CarrierEvent::Frame(link, topic, frame)),
            Heard::Stranger(mesh) => Some(CarrierEvent::Stranger(link, mesh)),
        });
    }

    fn publish_plain(&mut self, text: &str) {
        let message = to_plain(text);
        self.send(Speech::Plain, |link, _| {
            Some(CarrierEvent::Plain(link, from_plain(&message)?))
        });
    }

    fn dial(&mut self, link: LinkId, endpoint: &str, speech: Speech) {
        let mut state = self.network.lock();
        let way = |from: &str, to: &str| !state.cuts.contains(&(from.into(), to.into()));
        let open = state.nodes.contains_key(endpoint)
            && way(&self.endpoint, endpoint)
            && way(endpoint, &self.endpoint);
        let Some(node) = state.nodes.get_mut(&self.endpoint) else {
            return;
        };
        if open {
            node.links.insert(link, (endpoint.into(), speech));
            node.push(CarrierEvent::Connected(link));
        } else {
            let fault = Fault::new(Why::Refused, "nobody can be reached there");
            node.push(CarrierEvent::Closed(link, fault));
        }
    }

    fn hang_up(&mut self, link: LinkId) {
        if let Some(node) = self.network.lock().nodes.get_mut(&self.endpoint) {
            node.links.remove(&link);
            node.inbox.retain(|event| event.link() != link);
        }
    }

    async fn event(&mut self) -> CarrierEvent {
        loop {
            match self.take() {
                Some(event) => return event,
                None => self.news.notified().await,
            }
        }
    }

    /// What was published is with its readers already.
    async fn close(self, _grace: Duration) {}
}

impl Drop for MemoryCarrier {
    /// The node is gone: whoever heard it learns so.
    fn drop(&mut self) {
        let mut state = self.network.lock();
        state.nodes.remove(&self.endpoint);
        for node in state.nodes.values_mut() {
            let theirs = |_: &LinkId, (to, _): &mut (String, Speech)| *to == self.endpoint;
            let ended: Vec<LinkId> = node
                .links
                .extract_if(.., theirs)
                .map(|(id, _)| id)
                .collect();
            for link in ended {
                node.push(CarrierEvent::Closed(link, Fault::ended()));
            }
        }
    }
}
