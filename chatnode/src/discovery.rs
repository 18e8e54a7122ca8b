//! Discovery: this node is known to all its sources, and knows what each of them lists.
//!
//! A source is a registry (`talk`), or what people run already: `etcd`, `consul`, `dns`. One task for
//! each keeps this node known there and watches the list; of DNS, which knows addresses only, it asks
//! who is at each. What it sees is merged here: a node is a member if any source lists it. A source
//! that does not answer keeps the say it had, since its silence tells nothing about nodes; only its
//! next answer replaces that. So sources may die, hang, answer nonsense or come back empty, and no node
//! is forgotten for it.
//!
//! Sources are not trusted: what they list is checked like any stranger's word, and bounded.

mod consul;
pub(crate) mod dns;
mod etcd;
mod seat;
pub(crate) mod talk;
pub(crate) mod url;
mod web;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base::process::Tasks;
use base::tls::KeyRing;
use futures::future::BoxFuture;
use registry::api::{ENDPOINT_HTTP, ENDPOINT_PUB, NODES_MAX, Node, Registration, check_endpoint};
use registry::client::{Client, ClientError};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::seat::Seat;
use self::url::DiscoverUrl;
use crate::core::Identity;
use crate::core::links::fault::Fault;
use crate::model::mesh_name::{MESH_NAME_DEFAULT, MeshName};
use crate::model::names::Origin;

/// The name under which a node says of which mesh it is.
const META_MESH: &str = "mesh";
/// How long leaving may take, all sources together.
const LEAVE_MAX: Duration = Duration::from_secs(1);

/// A node that a source lists.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Listed {
    /// Its display name.
    name: String,
    /// Where it publishes, `tcp://HOST:PORT` or `tls://HOST:PORT`.
    pub(crate) publisher: String,
    /// Its HTTP endpoint, `http://HOST:PORT`.
    pub(crate) http: String,
}

/// How a source does, as seen from here.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct SourceStatus {
    /// Its URL, without secrets.
    pub(crate) url: String,
    /// `up`, `down`, or `unknown` as long as it has neither listed anything nor failed.
    pub(crate) state: &'static str,
    /// What is wrong; empty if nothing is.
    pub(crate) error: String,
    /// Whether that is that only one of the two has a mesh secret, or each another.
    pub(crate) has_other_secret: bool,
    /// How many other nodes it lists, or did last.
    pub(crate) listed: usize,
}

impl SourceStatus {
    /// Whether it answers.
    pub(crate) fn is_up(&self) -> bool {
        self.state == State::Up.as_str()
    }

    /// Whether it was asked, and did not answer.
    pub(crate) fn is_down(&self) -> bool {
        self.state == State::Down.as_str()
    }
}

/// What all sources together say.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct View {
    /// Every listed node but this one.
    pub(crate) members: BTreeMap<Origin, Listed>,
    /// Those that are listed, by sources that answer and know who is alive; `None` if there is none.
    pub(crate) listed: Option<BTreeSet<Origin>>,
    /// The sources, in the order of the configuration, registries first.
    pub(crate) sources: Vec<SourceStatus>,
}

impl View {
    /// Whether every source has been heard of: it has listed its nodes, or it failed.
    pub(crate) fn is_settled(&self) -> bool {
        self.sources
            .iter()
            .all(|source| source.state != State::Unknown.as_str())
    }
}

/// Asks who is at an address of HTTP: the node there introduces itself.
pub(crate) type Meet =
    Arc<dyn Fn(String) -> BoxFuture<'static, Result<Identity, Fault>> + Send + Sync>;

/// Whether this node hears another.
pub(crate) type Hears = Arc<dyn Fn(Origin) -> bool + Send + Sync>;

/// Where a node looks for others.
pub(crate) struct Sources<'a> {
    /// URLs of registries; one that is given twice counts once.
    pub(crate) registries: &'a [String],
    /// Their keys, if they have a mesh secret.
    pub(crate) keys: Option<&'a KeyRing>,
    /// What else there is.
    pub(crate) discover: &'a [DiscoverUrl],
    /// How a node is asked who it is, of which only the address is known.
    pub(crate) meet: Meet,
    /// Whom this node hears.
    pub(crate) hears: Hears,
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
    /// Starts to talk to these sources; none is fine too.
    ///
    /// # Errors
    /// When a URL cannot be that of a registry, or `me` cannot be registered anywhere.
    pub(crate) fn start(
        sources: &Sources<'_>,
        me: &Identity,
        mesh: &MeshName,
        tasks: &Tasks,
    ) -> anyhow::Result<Self> {
        let mut clients: Vec<Client> = Vec::new();
        for url in sources.registries {
            let client = match sources.keys {
                Some(keys) => Client::sealed(url, keys)?,
                None => Client::new(url)?,
            };
            if clients.iter().all(|known| known.url() != client.url()) {
                clients.push(client);
            }
        }
        let said = registration(me, mesh);
        said.check()?;
        let registries = clients.iter().map(|client| Entry {
            url: client.url().to_owned(),
            knows_who_lives: true,
        });
        let others = sources.discover.iter().map(|url| Entry {
            url: url.shown().to_owned(),
            // With a mesh secret what nobody has proven to say is a hint where to dial, and no more.
            knows_who_lives: url.knows_who_lives() && (sources.keys.is_none() || url.is_in_tls()),
        });
        let entries = registries.chain(others).collect();
        let board = Arc::new(Board::new(entries));
        let leaving = tasks.stopping().child_token();
        let talks = TaskTracker::new();
        let first = clients.len();
        for (index, client) in clients.into_iter().enumerate() {
            let (said, board) = (said.clone(), Arc::clone(&board));
            let talk = talk::Talk::new(client, me.origin, mesh.clone(), said, board, index);
            tasks.spawn(talks.track_future(talk.run(leaving.clone())));
        }
        for (url, index) in sources.discover.iter().zip(first..) {
            let seat = Seat::new(Arc::clone(&board), index);
            let me = Me {
                origin: me.origin,
                mesh: mesh.clone(),
                said: said.clone(),
            };
            let leaving = leaving.clone();
            match url {
                DiscoverUrl::Dns(name) => {
                    let (meet, hears) = (Arc::clone(&sources.meet), Arc::clone(&sources.hears));
                    let dns = dns::Dns::new(name.clone(), me.origin, (meet, hears), seat);
                    tasks.spawn(talks.track_future(dns.run(leaving)))
                }
                DiscoverUrl::Consul(service) => {
                    let consul = consul::Consul::new(service.clone(), me, seat);
                    tasks.spawn(talks.track_future(consul.run(leaving)))
                }
                DiscoverUrl::Etcd(keys) => {
                    let etcd = etcd::Etcd::new(keys.clone(), me, seat);
                    tasks.spawn(talks.track_future(etcd.run(leaving)))
                }
            };
        }
        talks.close();
        Ok(Self {
            board,
            leaving,
            talks,
        })
    }

    /// What the sources say, now and from now on.
    pub(crate) fn views(&self) -> watch::Receiver<View> {
        self.board.view.subscribe()
    }

    /// Takes this node out of all sources. Returns when all have heard it, or after a second:
    /// where it was not heard, the lease ends.
    pub(crate) async fn leave(self) {
        self.leaving.cancel();
        self.talks.wait().await;
    }
}

/// This node, as it is told to sources.
#[derive(Debug, Clone)]
struct Me {
    origin: Origin,
    mesh: MeshName,
    said: Registration,
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

/// What a source is believed to be.
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

/// What one source says.
#[derive(Debug, Clone, Default)]
struct Seen {
    state: State,
    /// What is wrong; empty if nothing is.
    error: String,
    has_other_secret: bool,
    members: BTreeMap<Origin, Listed>,
}

/// One source on the board.
#[derive(Debug)]
struct Entry {
    url: String,
    /// Whether nodes that live are listed there, and no others for long, and it is believed in that.
    knows_who_lives: bool,
}

/// Where what all sources say comes together.
#[derive(Debug)]
struct Board {
    entries: Vec<Entry>,
    seen: Mutex<Vec<Seen>>,
    view: watch::Sender<View>,
}

impl Board {
    fn new(entries: Vec<Entry>) -> Self {
        let seen = vec![Seen::default(); entries.len()];
        let view = watch::Sender::new(merge(&entries, &seen));
        Self {
            entries,
            seen: Mutex::new(seen),
            view,
        }
    }

    /// Replaces what this source says. Watchers hear of it if that makes a difference.
    fn tell(&self, index: usize, news: Seen) {
        let merged = {
            let mut seen = self.seen.lock().expect("merging does not panic");
            seen[index] = news;
            merge(&self.entries, &seen)
        };
        self.view.send_if_modified(|view| {
            let is_news = *view != merged;
            *view = merged;
            is_news
        });
    }
}

/// The union. Where sources differ about a node, one that answers is believed first, then the one named
/// first.
fn merge(entries: &[Entry], seen: &[Seen]) -> View {
    let both = || entries.iter().zip(seen);
    let is_up = |seen: &Seen| seen.state == State::Up;
    let knows = both().any(|(entry, seen)| entry.knows_who_lives && is_up(seen));
    // Who is listed only where that is not believed is on no other list, which proves nothing about it.
    let counts = both().filter(|(entry, seen)| is_up(seen) || !entry.knows_who_lives);
    let listed = counts.flat_map(|(_, seen)| seen.members.keys().copied());
    let listed = knows.then(|| listed.collect());
    let (up, others): (Vec<&Seen>, Vec<&Seen>) = seen.iter().partition(|seen| is_up(seen));
    let mut members = BTreeMap::new();
    for (origin, listed) in up.into_iter().chain(others).flat_map(|seen| &seen.members) {
        members.entry(*origin).or_insert_with(|| listed.clone());
    }
    let status = |(entry, seen): (&Entry, &Seen)| SourceStatus {
        url: entry.url.clone(),
        state: seen.state.as_str(),
        error: seen.error.clone(),
        has_other_secret: seen.has_other_secret,
        listed: seen.members.len(),
    };
    View {
        members,
        listed,
        sources: both().map(status).collect(),
    }
}

/// The nodes of a registry's list that can be peers of `me`; others are left out.
fn peers(nodes: &[Node], me: Origin, mesh: &MeshName) -> BTreeMap<Origin, Listed> {
    let peer = |node: &Node| peer(&node.id, &node.name, &node.endpoints, &node.meta, mesh);
    let peers = nodes.iter().take(NODES_MAX).filter_map(peer);
    peers.filter(|(origin, _)| *origin != me).collect()
}

/// A node that is listed, if it can be a peer: it is of this mesh, its id is an origin, and its
/// endpoints may be dialled. Other programs may be registered too. One that names no mesh is of the one
/// without a name of its own.
fn peer(
    id: &str,
    name: &str,
    endpoints: &BTreeMap<String, String>,
    meta: &BTreeMap<String, String>,
    mesh: &MeshName,
) -> Option<(Origin, Listed)> {
    let endpoint = |name: &str| {
        check_endpoint(name, endpoints.get(name)?)
            .ok()
            .map(|endpoint| endpoint.to_string())
    };
    let origin: Origin = id.parse().ok()?;
    let its = meta
        .get(META_MESH)
        .map_or(MESH_NAME_DEFAULT, String::as_str);
    if its != mesh.as_str() {
        return None;
    }
    let listed = Listed {
        name: shown(name).unwrap_or_else(|| id.to_owned()),
        publisher: match endpoints.contains_key(ENDPOINT_PUB) {
            true => endpoint(ENDPOINT_PUB)?,
            false => String::new(),
        },
        http: endpoint(ENDPOINT_HTTP)?,
    };
    Some((origin, listed))
}

/// A node as etcd and Consul list it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Candidate {
    id: String,
    said: Registration,
    /// When it was listed, by a number that grows.
    since: u64,
}

/// The candidates that can be peers of this node. An endpoint belongs to the newest that tells it: a
/// node that was killed is listed until its lease ends, and its successor may be where it was.
fn peers_of(mut candidates: Vec<Candidate>, me: &Me) -> BTreeMap<Origin, Listed> {
    candidates.sort_by_key(|candidate| std::cmp::Reverse(candidate.since));
    let mut taken = BTreeSet::new();
    let mut peers = BTreeMap::new();
    for Candidate { id, said, .. } in candidates.into_iter().take(NODES_MAX) {
        let Some((origin, listed)) = peer(&id, &said.name, &said.endpoints, &said.meta, &me.mesh)
        else {
            continue;
        };
        let told = [listed.http.clone(), listed.publisher.clone()];
        let mut told = told.into_iter().filter(|endpoint| !endpoint.is_empty());
        if told.all(|endpoint| taken.insert(endpoint)) && origin != me.origin {
            peers.insert(origin, listed);
        }
    }
    peers
}

/// The name, if it can be shown to people.
fn shown(name: &str) -> Option<String> {
    name.parse::<crate::model::names::UserName>()
        .ok()
        .map(|name| name.to_string())
}

#[cfg(test)]
mod tests;
