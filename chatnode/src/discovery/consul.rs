//! The talk with Consul, by the agent's HTTP: a service with a check that this node passes says that it
//! lives, and blocking queries tell of the others.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use base::bucket::{Bucket, Rate};
use base::endpoint::{Endpoint, Host};
use registry::api::{ENDPOINT_HTTP, ENDPOINT_PUB, NODES_MAX, Registration};
use reqwest::{Method, RequestBuilder};
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::seat::{Seat, backoff};
use super::url::Service;
use super::web::{self, ANSWER_TIMEOUT, Trouble, Web};
use super::{Candidate, LEAVE_MAX, META_MESH, Me, peers_of};

/// The check fails when it was not passed for so long,
const CHECK_TTL: &str = "6s";
/// and with a check that fails for so long, the least that Consul takes, the service is removed.
const REMOVED_AFTER: &str = "1m";
/// How often the check is passed.
const PASS_EVERY: Duration = Duration::from_secs(2);
/// How long a query waits for a change.
const WAIT: Duration = Duration::from_secs(55);
/// Consul adds up to a sixteenth of that, so that not all come back at once.
const WAIT_JITTER: Duration = Duration::from_secs(4);
/// Queries that return at once, whatever is the reason, are not sent faster than this.
const QUERIES: Rate = Rate::new(2.0, 4.0);
/// What a node says of itself, as `Meta` of the service.
const META_NAME: &str = "name";
/// What Consul tells the next query to wait behind.
const INDEX: &str = "x-consul-index";
/// What it is shown.
const TOKEN: &str = "x-consul-token";

/// The talk with one agent.
#[derive(Debug)]
pub(super) struct Consul {
    service: Service,
    me: Me,
    seat: Seat,
    web: Web,
    /// Renewals go on after a failure: a query may hang where that was.
    recovered: Notify,
}

/// One healthy instance of a service.
#[derive(Debug, Deserialize)]
struct Instance {
    #[serde(rename = "Service")]
    service: Listed,
}

#[derive(Debug, Deserialize)]
struct Listed {
    #[serde(rename = "ID")]
    id: String,
    #[serde(rename = "Meta", default, deserialize_with = "or_none")]
    meta: BTreeMap<String, String>,
    #[serde(rename = "CreateIndex", default)]
    since: u64,
}

/// Consul writes what is empty as null.
fn or_none<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<String, String>, D::Error> {
    Option::deserialize(from).map(Option::unwrap_or_default)
}

impl Consul {
    pub(super) fn new(service: Service, me: Me, seat: Seat) -> Self {
        Self {
            web: Web::new(service.servers.clone()),
            service,
            me,
            seat,
            recovered: Notify::new(),
        }
    }

    /// Talks until it is time to leave, then leaves.
    pub(super) async fn run(self, leaving: CancellationToken) {
        tokio::select! {
            biased;
            () = leaving.cancelled() => {}
            () = self.renew() => {}
            () = self.follow() => {}
        }
        let path = format!("/v1/agent/service/deregister/{}", self.me.origin);
        match timeout(LEAVE_MAX, self.change(&path, None)).await {
            Ok(Ok(())) => tracing::debug!(source = self.seat.url(), "left"),
            Ok(Err(why)) => tracing::debug!(source = self.seat.url(), "cannot leave: {why}"),
            Err(_) => tracing::debug!(source = self.seat.url(), "cannot leave in time"),
        }
    }

    /// Keeps this node known there.
    async fn renew(&self) {
        let (mut failures, mut is_registered) = (0, false);
        loop {
            let begun = Instant::now();
            let outcome = self.renewed(&mut is_registered).await;
            let pause = match &outcome {
                Ok(()) => {
                    if failures > 0 {
                        self.recovered.notify_one();
                    }
                    failures = 0;
                    PASS_EVERY
                }
                Err(_) => {
                    failures += 1;
                    backoff(failures)
                }
            };
            self.seat.told(outcome);
            sleep_until(begun + pause).await;
        }
    }

    /// Passes the check; registers if Consul does not know it.
    async fn renewed(&self, is_registered: &mut bool) -> Result<(), Trouble> {
        if *is_registered {
            let path = format!("/v1/agent/check/pass/{}", self.check());
            match self.change(&path, None).await {
                Err(Trouble::Refused {
                    status: 404 | 500,
                    text,
                }) => {
                    tracing::warn!(
                        source = self.seat.url(),
                        "the check is not known; registering again: {text}"
                    );
                    *is_registered = false;
                }
                outcome => return outcome,
            }
        }
        let body = self.registration()?;
        let path = "/v1/agent/service/register?replace-existing-checks=true";
        self.change(path, Some(&body)).await?;
        *is_registered = true;
        tracing::info!(source = self.seat.url(), "registered");
        Ok(())
    }

    fn check(&self) -> String {
        format!("service:{}", self.me.origin)
    }

    /// This node as a service: where its HTTP is, for whoever looks; the rest is for nodes.
    fn registration(&self) -> Result<Value, Trouble> {
        let Registration {
            name,
            endpoints,
            meta,
        } = &self.me.said;
        let http = endpoints
            .get(ENDPOINT_HTTP)
            .map(String::as_str)
            .unwrap_or_default();
        let http: Endpoint = http.parse().map_err(Trouble::nonsense)?;
        let address = match &http.host {
            Host::Ip(ip) => ip.to_string(),
            Host::Name(name) => name.clone(),
        };
        let mut said = endpoints.clone();
        said.insert(META_NAME.to_owned(), name.clone());
        said.extend(meta.clone());
        Ok(json!({
            "ID": self.me.origin.as_str(), "Name": self.service.name, "Meta": said,
            "Address": address, "Port": http.port,
            "Check": {
                "CheckID": self.check(), "Name": "chatmesh", "TTL": CHECK_TTL, "Status": "passing",
                "DeregisterCriticalServiceAfter": REMOVED_AFTER,
            },
        }))
    }

    async fn change(&self, path: &str, body: Option<&Value>) -> Result<(), Trouble> {
        let request = self.request(Method::PUT, path)?.timeout(ANSWER_TIMEOUT);
        let request = match body {
            Some(body) => request.json(body),
            None => request,
        };
        web::body(request).await.map(drop)
    }

    fn request(&self, method: Method, path: &str) -> Result<RequestBuilder, Trouble> {
        let request = self.web.request(method, path)?;
        Ok(match &self.service.token {
            Some(token) => request.header(TOKEN, token),
            None => request,
        })
    }

    /// Follows who else is there.
    async fn follow(&self) {
        let (mut failures, mut index) = (0, 0);
        let (mut queries, born) = (Bucket::default(), Instant::now());
        loop {
            if let Err(wait) = queries.take(1, QUERIES, born.elapsed()) {
                sleep_until(Instant::now() + wait).await;
                continue;
            }
            let listed = tokio::select! {
                () = self.recovered.notified() => {
                    index = 0;
                    continue;
                }
                listed = self.listed(index) => listed,
            };
            match listed {
                Ok((next, candidates)) => {
                    failures = 0;
                    index = next_index(index, next);
                    self.seat.lists(peers_of(candidates, &self.me));
                }
                Err(why) => {
                    failures += 1;
                    index = 0;
                    self.seat.cannot_list(why);
                    sleep_until(Instant::now() + backoff(failures)).await;
                }
            }
        }
    }

    /// The healthy instances, and the index of that. With one that was told before, when there is
    /// another, or after the wait.
    async fn listed(&self, index: u64) -> Result<(u64, Vec<Candidate>), Trouble> {
        let name = &self.service.name;
        let wait = WAIT.as_secs();
        let (path, patience) = match index {
            0 => (format!("/v1/health/service/{name}?passing"), ANSWER_TIMEOUT),
            index => (
                format!("/v1/health/service/{name}?passing&index={index}&wait={wait}s"),
                WAIT + WAIT_JITTER + ANSWER_TIMEOUT,
            ),
        };
        let request = self.request(Method::GET, &path)?.timeout(patience);
        let answer = web::send(request).await?;
        let index = answer
            .headers()
            .get(INDEX)
            .and_then(|it| it.to_str().ok()?.parse().ok());
        let body = web::read(answer).await?;
        let instances: Vec<Instance> = serde_json::from_slice(&body).map_err(Trouble::nonsense)?;
        let candidates = instances.into_iter().take(NODES_MAX).filter_map(candidate);
        Ok((index.unwrap_or(0), candidates.collect()))
    }
}

/// Behind which index the next query waits: one that went back begins anew, and none waits behind 0.
fn next_index(before: u64, told: u64) -> u64 {
    if told < before { 0 } else { told.max(1) }
}

/// An instance that says of itself what nodes say. Only one that names its mesh is a node at all.
fn candidate(instance: Instance) -> Option<Candidate> {
    let Listed {
        id,
        mut meta,
        since,
    } = instance.service;
    let mesh = meta.remove(META_MESH)?;
    let name = meta.remove(META_NAME)?;
    meta.retain(|key, _| key == ENDPOINT_HTTP || key == ENDPOINT_PUB);
    let said = Registration {
        name,
        endpoints: meta,
        meta: BTreeMap::from([(META_MESH.to_owned(), mesh)]),
    };
    said.check().ok()?;
    Some(Candidate { id, said, since })
}
