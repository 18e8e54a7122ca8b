//! Discovery: this node is known to all registries, and knows what each of them lists.
//!
//! One task per registry (`talk`) keeps the registration alive and watches the list. What it sees
//! is merged here: a node is a member if any registry lists it. A registry that does not answer
//! keeps the say it had, since its silence tells nothing about nodes; only its next answer replaces
//! that. So registries may die, hang, answer nonsense or come back empty, and no node is forgotten
//! for it.
//!
//! Registries are not trusted: what they list is checked like any stranger's word, and bounded.

pub(crate) mod talk;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base::process::Tasks;
use base::tls::KeyRing;
use registry::api::{ENDPOINT_HTTP, ENDPOINT_PUB, NODES_MAX, Node, Registration, check_endpoint};
use registry::client::{Client, ClientError};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::core::Identity;
use crate::model::mesh_name::{MESH_NAME_DEFAULT, MeshName};
use crate::model::names::Origin;

/// The name under which a node says of which mesh it is.
const META_MESH: &str = "mesh";
/// How long leaving may take, all registries together.
const LEAVE_MAX: Duration = Duration::from_secs(1);

/// A node that a registry lists.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Listed {
    /// Its display name.
    name: String,
    /// Where it publishes, `tcp://HOST:PORT` or `tls://HOST:PORT`.
    pub(crate) publisher: String,
    /// Its HTTP endpoint, `http://HOST:PORT`.
    pub(crate) http: String,
}

/// How a registry does, as seen from here.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct RegistryStatus {
    /// Its URL.
    pub(crate) url: String,
    /// `up`, `down`, or `unknown` as long as it has neither listed anything nor failed.
    pub(crate) state: &'static str,
    /// What is wrong; empty if nothing is.
    pub(crate) error: String,
    /// Whether that is that only one of the two has a mesh secret, or each another.
    pub(crate) has_other_secret: bool,
}

/// What all registries together say.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct View {
    /// Every listed node but this one.
    pub(crate) members: BTreeMap<Origin, Listed>,
    /// Those that registries list which answer; `None` if none answers.
    pub(crate) listed: Option<BTreeSet<Origin>>,
    /// The registries, in the order of the configuration.
    pub(crate) registries: Vec<RegistryStatus>,
}

impl View {
    /// Whether every registry has been heard of: it has listed its nodes, or it failed.
    pub(crate) fn is_settled(&self) -> bool {
        self.registries
            .iter()
            .all(|registry| registry.state != State::Unknown.as_str())
    }
}

/// This node's discovery. Dropping it changes nothing; it ends with [`Self::leave`] or with the
/// tasks that it was started under.
#[derive(Debug)]
pub(crate) struct Discovery {
    board: Arc<Board>,
    leaving: CancellationToken,
    talks: TaskTracker,
}

impl Discovery {
    /// Starts to talk to these registries, with these keys if they have a mesh secret; none is fine
    /// too. A URL that is given twice counts once.
    ///
    /// # Errors
    /// When a URL cannot be that of a registry, or `me` cannot be registered anywhere.
    pub(crate) fn start(
        registries: &[String],
        keys: Option<&KeyRing>,
        me: &Identity,
        mesh: &MeshName,
        tasks: &Tasks,
    ) -> anyhow::Result<Self> {
        let mut clients: Vec<Client> = Vec::new();
        for url in registries {
            let client = match keys {
                Some(keys) => Client::sealed(url, keys)?,
                None => Client::new(url)?,
            };
            if clients.iter().all(|known| known.url() != client.url()) {
                clients.push(client);
            }
        }
        let said = registration(me, mesh);
        said.check()?;
        let urls = clients
            .iter()
            .map(|client| client.url().to_owned())
            .collect();
        let board = Arc::new(Board::new(urls));
        let leaving = tasks.stopping().child_token();
        let talks = TaskTracker::new();
        for (index, client) in clients.into_iter().enumerate() {
            let (said, board) = (said.clone(), Arc::clone(&board));
            let talk = talk::Talk::new(client, me.origin, mesh.clone(), said, board, index);
            tasks.spawn(talks.track_future(talk.run(leaving.clone())));
        }
        talks.close();
        Ok(Self {
            board,
            leaving,
            talks,
        })
    }

    /// What the registries say, now and from now on.
    pub(crate) fn views(&self) -> watch::Receiver<View> {
        self.board.view.subscribe()
    }

    /// Takes this node out of all registries. Returns when all have heard it, or after a second:
    /// where it was not heard, the lease ends.
    pub(crate) async fn leave(self) {
        self.leaving.cancel();
        self.talks.wait().await;
    }
}

/// What this node tells a registry.
fn registration(me: &Identity, mesh: &MeshName) -> Registration {
    let endpoints = [
        (ENDPOINT_PUB.to_owned(), me.publisher.clone()),
        (ENDPOINT_HTTP.to_owned(), me.http.clone()),
    ];
    // Who is heard by brokers only has no publisher to be dialled.
    let told = endpoints.into_iter().filter(|(_, at)| !at.is_empty());
    Registration {
        name: me.name.clone(),
        endpoints: told.collect(),
        meta: BTreeMap::from([(META_MESH.to_owned(), mesh.to_string())]),
    }
}

/// What a registry is believed to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum State {
    #[default]
    Unknown,
    Up,
    Down,
}

impl State {
    fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Up => "up",
            Self::Down => "down",
        }
    }
}

/// What one registry says.
#[derive(Debug, Clone, Default)]
struct Seen {
    state: State,
    /// What is wrong; empty if nothing is.
    error: String,
    has_other_secret: bool,
    members: BTreeMap<Origin, Listed>,
}

/// Where what all registries say comes together.
#[derive(Debug)]
struct Board {
    urls: Vec<String>,
    seen: Mutex<Vec<Seen>>,
    view: watch::Sender<View>,
}

impl Board {
    fn new(urls: Vec<String>) -> Self {
        let seen = vec![Seen::default(); urls.len()];
        let view = watch::Sender::new(merge(&urls, &seen));
        Self {
            urls,
            seen: Mutex::new(seen),
            view,
        }
    }

    /// Replaces what this registry says. Watchers hear of it if that makes a difference.
    fn tell(&self, index: usize, news: Seen) {
        let merged = {
            let mut seen = self.seen.lock().expect("merging does not panic");
            seen[index] = news;
            merge(&self.urls, &seen)
        };
        self.view.send_if_modified(|view| {
            let is_news = *view != merged;
            *view = merged;
            is_news
        });
    }
}

/// The union. Where registries differ about a node, one that answers is believed first, then the
/// one named first.
fn merge(urls: &[String], seen: &[Seen]) -> View {
    let mut members = BTreeMap::new();
    let (up, others): (Vec<&Seen>, Vec<&Seen>) =
        seen.iter().partition(|seen| seen.state == State::Up);
    let origins = up.iter().flat_map(|seen| seen.members.keys().copied());
    let listed = (!up.is_empty()).then(|| origins.collect());
    for (origin, listed) in up.into_iter().chain(others).flat_map(|seen| &seen.members) {
        members.entry(*origin).or_insert_with(|| listed.clone());
    }
    let status = |(url, seen): (&String, &Seen)| RegistryStatus {
        url: url.clone(),
        state: seen.state.as_str(),
        error: seen.error.clone(),
        has_other_secret: seen.has_other_secret,
    };
    View {
        members,
        listed,
        registries: urls.iter().zip(seen).map(status).collect(),
    }
}

/// The nodes of a list that can be peers of `me`: they are of its mesh, their ids are origins, and
/// their endpoints may be dialled. Others are left out; other programs may be registered too. One
/// that names no mesh is of the one without a name of its own.
fn peers(nodes: &[Node], me: Origin, mesh: &MeshName) -> BTreeMap<Origin, Listed> {
    let endpoint = |node: &Node, name: &str| {
        check_endpoint(name, node.endpoints.get(name)?)
            .ok()
            .map(|endpoint| endpoint.to_string())
    };
    let peer = |node: &Node| {
        let origin: Origin = node.id.parse().ok().filter(|origin| *origin != me)?;
        let its = node
            .meta
            .get(META_MESH)
            .map_or(MESH_NAME_DEFAULT, String::as_str);
        if its != mesh.as_str() {
            return None;
        }
        let listed = Listed {
            name: shown(&node.name).unwrap_or_else(|| node.id.clone()),
            publisher: match node.endpoints.contains_key(ENDPOINT_PUB) {
                true => endpoint(node, ENDPOINT_PUB)?,
                false => String::new(),
            },
            http: endpoint(node, ENDPOINT_HTTP)?,
        };
        Some((origin, listed))
    };
    nodes.iter().take(NODES_MAX).filter_map(peer).collect()
}

/// The name, if it can be shown to people.
fn shown(name: &str) -> Option<String> {
    name.parse::<crate::model::names::UserName>()
        .ok()
        .map(|name| name.to_string())
}

#[cfg(test)]
mod tests;
