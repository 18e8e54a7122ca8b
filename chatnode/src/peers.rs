//! Requests to peers, over HTTP: parts of logs, members, positions, and hellos.

mod hello;

use std::time::Duration;

use base::tls::Http;
use bytes::Bytes;

use crate::core::links::fault::Fault;
use crate::core::members::Snapshot;
use crate::core::news::{Beat, News};
use crate::core::pace::{FETCH_MAX, LOG_PAGE_BYTES};
use crate::core::question::LogPart;
use crate::core::{Identity, LogPage};
use crate::model::mesh_name::MeshName;
use crate::model::names::Origin;
use crate::wire::frame::{self, Topic};

/// A page and the one entry that may go beyond it fit into a frame.
const _: () = assert!(2 * LOG_PAGE_BYTES <= frame::BATCH_LEN_MAX);
/// A peer that is asked how far it is answers within this time.
pub(crate) const POSITION_MAX: Duration = Duration::from_secs(1);
/// A hello takes so long at the most: as long as a node that hardly gets the processor may need.
pub(crate) const HELLO_MAX: Duration = Duration::from_secs(2);

/// What `POST /mesh/hello` carries, and its answer: who is there, and where it is to be heard.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub(crate) struct Introduction {
    /// Who.
    pub(crate) origin: String,
    /// Its PUB endpoint; empty, if it is heard by brokers only.
    #[serde(rename = "pub")]
    pub(crate) publisher: String,
    /// Its HTTP endpoint.
    pub(crate) http: String,
    /// Its display name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<String>,
    /// Whom it means: the origin that it expects here. An address is not an identity. Without it a hello
    /// asks who is here, and introduces nobody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) to: Option<String>,
    /// Of which mesh it is.
    pub(crate) mesh: Option<String>,
}

impl Introduction {
    /// How a node of this mesh introduces itself, to another that it means or to whoever it is.
    pub(crate) fn of(me: &Identity, mesh: &MeshName, to: Option<Origin>) -> Self {
        Self {
            origin: me.origin.as_str().to_owned(),
            publisher: me.publisher.clone(),
            http: me.http.clone(),
            name: Some(me.name.clone()),
            to: to.map(|to| to.as_str().to_owned()),
            mesh: Some(mesh.to_string()),
        }
    }
}

/// Asks peers. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Asker {
    http: Http,
    mesh: MeshName,
    is_sealed: bool,
}

/// A peer, and where its HTTP is.
#[derive(Debug, Clone)]
pub(crate) struct At {
    /// Who is asked: whoever else is at that address by now has nothing to say.
    pub(crate) origin: Origin,
    /// Where.
    pub(crate) url: String,
}

impl Asker {
    /// Asks for nodes of this mesh, in TLS if it has a secret: then `http` has its keys.
    pub(crate) fn new(http: Http, mesh: MeshName, is_sealed: bool) -> Self {
        Self {
            http,
            mesh,
            is_sealed,
        }
    }

    /// Where a peer is asked: with a secret in TLS, at the port where clients find plain HTTP.
    fn url(&self, told: &str) -> String {
        match told.strip_prefix("http://") {
            Some(place) if self.is_sealed => format!("https://{place}"),
            _ => told.to_owned(),
        }
    }

    /// A part of a log; `None` if it did not come, within [`FETCH_MAX`].
    pub(crate) async fn log(&self, at: &At, part: LogPart) -> Option<LogPage> {
        let LogPart {
            origin,
            span,
            whole,
            bytes,
        } = part;
        let path = format!(
            "log/{origin}?after={}&through={}&bytes={bytes}&whole={whole}",
            span.after, span.through
        );
        let body = self.get(at, &path, frame::FRAME_LEN_MAX).await;
        let page =
            body.and_then(|body| frame::decode_entries(&body).map_err(|why| why.to_string()));
        match page {
            Ok(page) if page.origin == origin => Some(LogPage {
                floor: page.floor,
                floor_ts: page.floor_ts,
                entries: page.entries,
            }),
            Ok(_) => None,
            Err(why) => {
                tracing::debug!(peer = %at.origin, %origin, "repair failed: {why}");
                None
            }
        }
    }

    /// How far a peer is, if it says so soon.
    pub(crate) async fn position(&self, at: &At) -> Option<Beat> {
        let body = self.get(at, "position?", frame::FRAME_LEN_MAX);
        let body = tokio::time::timeout(POSITION_MAX, body).await.ok()?.ok()?;
        match frame::decode(Topic::Beat, &body) {
            Ok(News::Beat(beat)) => Some(beat),
            Ok(_) | Err(_) => None,
        }
    }

    /// Who is in which room at a peer.
    pub(crate) async fn members(&self, at: &At) -> Option<Snapshot> {
        let body = self
            .get(at, "members?", frame::MEMBERS_LEN_MAX)
            .await
            .ok()?;
        let page = frame::decode_members(&body).ok()?;
        (page.origin == at.origin).then_some(Snapshot {
            version: page.version,
            rooms: page.rooms,
        })
    }

    /// Says hello to a peer; why it was not taken, if it was not.
    pub(crate) async fn hello(&self, at: &At, me: &Identity) -> Option<Fault> {
        let introduction = Introduction::of(me, &self.mesh, Some(at.origin));
        let url = format!("{}/mesh/hello", self.url(&at.url));
        let request = self.http.client().post(&url).timeout(HELLO_MAX);
        let said = hello::said(&url, request.json(&introduction)).await;
        let fault = said.err();
        if let Some(fault) = &fault {
            tracing::debug!(peer = %at.origin, "hello failed: {}", fault.text);
        }
        fault
    }

    /// Asks who is at an address of HTTP: a hello to whoever it is, which introduces nobody. The one that
    /// answers is of this mesh, and what it tells may be dialled.
    ///
    /// # Errors
    /// Why nobody was met there.
    pub(crate) async fn meet(&self, address: &str, me: &Identity) -> Result<Identity, Fault> {
        let introduction = Introduction::of(me, &self.mesh, None);
        let url = format!("{}/mesh/hello", self.url(address));
        let request = self.http.client().post(&url).timeout(HELLO_MAX);
        let answer = hello::said(&url, request.json(&introduction)).await?;
        hello::met(address, answer, &self.mesh).await
    }

    /// The body of an answer, if it is a success and not too long.
    async fn get(&self, at: &At, path: &str, bytes_max: usize) -> Result<Bytes, String> {
        let joint = if path.ends_with('?') { "" } else { "&" };
        let (url, to, mesh) = (self.url(&at.url), at.origin, &self.mesh);
        let url = format!("{url}/mesh/{path}{joint}to={to}&mesh={mesh}");
        let get = async {
            let answer = self
                .http
                .client()
                .get(url)
                .send()
                .await?
                .error_for_status()?;
            base::body::of_answer(answer, bytes_max).await
        };
        match tokio::time::timeout(FETCH_MAX, get).await {
            Ok(Ok(Some(body))) => Ok(body),
            Ok(Ok(None)) => Err(format!("the answer is longer than {bytes_max} bytes")),
            Ok(Err(why)) => Err(why.to_string()),
            Err(_) => Err(format!("no answer within {FETCH_MAX:?}")),
        }
    }
}
