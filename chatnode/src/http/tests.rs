//! The door over real HTTP on a free port, with a hub behind it and no bus: server-sent events in
//! `events`.

mod events;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use axum::http::Method;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use registry::process::Tasks;
use registry::serve::{self, Limits};
use serde_json::Value;

use super::{Doors, Front, assets};
use crate::bus::links::{Links, LinksOptions};
use crate::hub::{Hub, Parts, Settings};
use crate::replica::names::Origin;
use crate::replica::{Identity, Now, Replica};
use crate::store::memory::{MemoryStore, Retention};

const PATIENCE: Duration = Duration::from_secs(10);

/// What of a node matters here.
struct Options {
    listen: &'static str,
    rate_limit: u32,
    messages: usize,
    www: Option<&'static str>,
    ready: bool,
}

const PLAIN: Options = Options {
    listen: "127.0.0.1:0",
    rate_limit: 0,
    messages: 1000,
    www: None,
    ready: true,
};

struct Fixture {
    hub: Hub,
    origin: Origin,
    addr: SocketAddr,
    http: reqwest::Client,
}

impl Fixture {
    fn new(options: &Options) -> Self {
        let tasks = Tasks::new();
        let mut rng = StdRng::seed_from_u64(7);
        let origin = Origin::generate(&mut rng);
        let listener = serve::listen(options.listen.parse().unwrap()).unwrap();
        let port = listener.local_addr().unwrap().port();
        let me = Identity {
            origin,
            name: "test".to_owned(),
            http: format!("http://127.0.0.1:{port}"),
            publisher: "tcp://127.0.0.1:1".to_owned(),
        };
        let store = Box::new(MemoryStore::new(Retention {
            messages: options.messages,
            bytes: 64 << 20,
        }));
        let start = Now {
            mono: Duration::ZERO,
            wall_us: 0,
        };
        let links = LinksOptions {
            me: origin,
            own: Vec::new(),
            fixed: Vec::new(),
        };
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let parts = Parts {
            settings: Settings {
                rate_limit: options.rate_limit,
                publish_plain: false,
                peers: Vec::new(),
            },
            replica: Replica::new(me.clone(), store, StdRng::seed_from_u64(8), start),
            links: Links::new(links, rng),
            http: http.clone(),
        };
        // Nobody carries the commands out: frames are dropped, as by a bus without subscribers.
        let (hub, _) = Hub::new(parts, tasks.clone());
        if options.ready {
            hub.with(|node, now| node.replica.expect(now, BTreeSet::new()));
        }
        let doors = Doors {
            advertised: format!("http://chat.example:{port}"),
            allow_origins: vec!["https://allowed.example".to_owned()],
            insecure_mesh: false,
        };
        let page = match options.www {
            Some(dir) => assets::folder(dir.as_ref()),
            None => assets::embedded(),
        };
        let front = Front::new(hub.clone(), doors, page);
        let serving = serve::serve(listener, front, tasks.clone(), Limits::default());
        tasks.spawn_critical("http", serving);
        Self {
            hub,
            origin,
            addr: SocketAddr::from(([127, 0, 0, 1], port)),
            http,
        }
    }

    fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let url = format!("http://{}{path}", self.addr);
        self.http.request(method, url).timeout(PATIENCE)
    }

    /// Messages said without HTTP.
    async fn say(&self, room: &str, texts: impl IntoIterator<Item = String>) {
        let (room, from) = (room.parse().unwrap(), "ada".parse().unwrap());
        for text in texts {
            let said = self.hub.publish(&room, &from, None, &text, 0).await;
            said.unwrap();
        }
    }
}
