//! The talk with etcd, by its JSON gateway: a key under a lease says that this node lives, and a watch tells
//! of the others'.
//!
//! Two loops run beside each other. One renews the lease, and puts the key anew when the lease, or the key,
//! is gone. The other reads all keys and then watches what changes from there on. A watch may die in
//! silence, so one that said nothing for a while is left, and all keys are read again; so it is when etcd
//! has forgotten the changes from which the watch was to go on.

mod gateway;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use registry::api::NODES_MAX;
use reqwest::{Method, RequestBuilder, header};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use self::gateway::{Granted, Happened, KeptAlive, Login, Ranged, Row, Rows, Told};
use super::seat::{Seat, backoff};
use super::url::Keys;
use super::web::{self, ANSWER_BYTES_MAX, ANSWER_TIMEOUT, Trouble, Web};
use super::{Candidate, LEAVE_MAX, Me, peers_of};

/// How long this node stays listed without a renewal, in seconds; etcd may make it longer.
const LEASE_S: u64 = 6;
/// How often the lease is renewed.
const RENEW_EVERY: Duration = Duration::from_secs(2);
/// The key is put again no sooner than this after the last time, whatever the watch says.
const PUT_AGAIN_MIN: Duration = Duration::from_millis(500);
/// A watch that said nothing for so long is left.
const SILENCE_MAX: Duration = Duration::from_secs(15);
/// Changes are told no more often than this: those that come meanwhile are told together.
const SHOW_EVERY_MIN: Duration = Duration::from_millis(50);
/// All keys are read no more often than this.
const READ_EVERY_MIN: Duration = Duration::from_millis(500);

/// The talk with one etcd.
#[derive(Debug)]
pub(super) struct Etcd {
    keys: Keys,
    me: Me,
    seat: Seat,
    /// How the keys of this mesh begin.
    prefix: String,
    renews: Talk,
    follows: Talk,
    lease: Mutex<Option<String>>,
    /// The key is not there, says the watch.
    is_missing: AtomicBool,
    missing: Notify,
    /// The renewals go on after a failure: a watch may hang where that was.
    recovered: Notify,
    /// A watch that said nothing for so long is left.
    silence_max: Duration,
}

/// Requests to one of the servers, and what they are shown.
#[derive(Debug)]
struct Talk {
    web: Web,
    token: Mutex<Option<String>>,
}

impl Talk {
    fn token(&self) -> MutexGuard<'_, Option<String>> {
        self.token.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Etcd {
    pub(super) fn new(keys: Keys, me: Me, seat: Seat) -> Self {
        let talk = || Talk {
            web: Web::new(keys.servers.clone()),
            token: Mutex::default(),
        };
        Self {
            prefix: format!("{}/{}/", keys.prefix, me.mesh),
            renews: talk(),
            follows: talk(),
            keys,
            me,
            seat,
            lease: Mutex::default(),
            is_missing: AtomicBool::new(false),
            missing: Notify::new(),
            recovered: Notify::new(),
            silence_max: SILENCE_MAX,
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
        let Some(lease) = self.held() else { return };
        let revoked = self.ask::<Value>(&self.renews, "lease/revoke", json!({ "ID": lease }));
        match timeout(LEAVE_MAX, revoked).await {
            Ok(Ok(_)) => tracing::debug!(source = self.seat.url(), "left"),
            Ok(Err(why)) => tracing::debug!(source = self.seat.url(), "cannot leave: {why}"),
            Err(_) => tracing::debug!(source = self.seat.url(), "cannot leave in time"),
        }
    }

    /// Keeps this node known there.
    async fn renew(&self) {
        let mut failures = 0;
        loop {
            let begun = Instant::now();
            let outcome = self.renewed().await;
            let pause = match &outcome {
                Ok(()) => {
                    if failures > 0 {
                        self.recovered.notify_one();
                    }
                    failures = 0;
                    RENEW_EVERY
                }
                Err(_) => {
                    failures += 1;
                    self.renews.web.next_server();
                    backoff(failures)
                }
            };
            self.seat.told(outcome);
            tokio::select! {
                () = sleep_until(begun + pause) => {}
                () = self.missing.notified() => sleep_until(begun + PUT_AGAIN_MIN).await,
            }
        }
    }

    /// Renews the lease; takes a new one if it is gone; puts the key if it is not there.
    async fn renewed(&self) -> Result<(), Trouble> {
        if let Some(lease) = self.held() {
            let body = json!({ "ID": lease });
            let kept: Told<KeptAlive> = self.ask(&self.renews, "lease/keepalive", body).await?;
            if kept.of_stream()?.is_there() {
                if !self.is_missing.swap(false, Ordering::Relaxed) {
                    return Ok(());
                }
                let put = self.put(&lease).await;
                if put.is_err() {
                    self.is_missing.store(true, Ordering::Relaxed);
                }
                return put;
            }
            tracing::warn!(
                source = self.seat.url(),
                "the lease of this node was gone; taking another"
            );
            self.hold(None);
        }
        let body = json!({ "TTL": LEASE_S.to_string() });
        let granted: Granted = self.ask(&self.renews, "lease/grant", body).await?;
        self.hold(Some(granted.id.clone()));
        let put = self.put(&granted.id).await;
        if put.is_err() {
            // A lease without a key would be renewed as if all were well.
            self.hold(None);
        }
        put
    }

    async fn put(&self, lease: &str) -> Result<(), Trouble> {
        let said = serde_json::to_vec(&self.me.said).map_err(Trouble::nonsense)?;
        let key = format!("{}{}", self.prefix, self.me.origin);
        let body = json!({
            "key": STANDARD.encode(key), "value": STANDARD.encode(said), "lease": lease,
        });
        self.ask::<Value>(&self.renews, "kv/put", body).await?;
        tracing::info!(source = self.seat.url(), "registered");
        Ok(())
    }

    fn held(&self) -> Option<String> {
        self.lease
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn hold(&self, lease: Option<String>) {
        *self.lease.lock().unwrap_or_else(PoisonError::into_inner) = lease;
    }

    /// Follows who else is there.
    async fn follow(&self) {
        let mut failures = 0;
        loop {
            let begun = Instant::now();
            match self.read_and_watch().await {
                Ok(()) => {
                    failures = 0;
                    sleep_until(begun + READ_EVERY_MIN).await;
                }
                Err(why) => {
                    failures += 1;
                    self.seat.cannot_list(why);
                    self.follows.web.next_server();
                    sleep_until(Instant::now() + backoff(failures)).await;
                }
            }
        }
    }

    /// Reads all keys, and follows what changes. Ends when all are to be read again.
    async fn read_and_watch(&self) -> Result<(), Trouble> {
        let (start, end) = self.range();
        let body = json!({ "key": start, "range_end": end, "limit": NODES_MAX.to_string() });
        let ranged: Ranged = self.ask(&self.follows, "kv/range", body).await?;
        let revision = ranged.header.revision;
        let mut rows = Rows::new(&self.prefix, ranged.kvs);
        self.show(&rows);
        let request = json!({ "create_request": {
            "key": start, "range_end": end, "start_revision": (revision + 1).to_string(),
            "progress_notify": true,
        } });
        let watch = self.request(&self.follows, "watch", &request).await?;
        let watch = timeout(self.silence_max, web::send(watch));
        let mut answer = tokio::select! {
            () = self.recovered.notified() => return Ok(()),
            answer = watch => match answer {
                Ok(answer) => self.let_in(&self.follows, answer)?,
                Err(_) => return Ok(()),
            },
        };
        let mut line = Vec::new();
        loop {
            let chunk = tokio::select! {
                () = self.recovered.notified() => return Ok(()),
                chunk = timeout(self.silence_max, answer.chunk()) => chunk,
            };
            let chunk = match chunk {
                Ok(Ok(Some(chunk))) => chunk,
                // It said nothing, or the connection ended: what reads all keys tells whether etcd is there.
                Err(_) | Ok(Ok(None) | Err(_)) => return Ok(()),
            };
            let searched = line.len();
            line.extend_from_slice(&chunk);
            if line.len() > ANSWER_BYTES_MAX {
                return Err(Trouble::nonsense("a change that is too long"));
            }
            if !line[searched..].contains(&b'\n') {
                continue;
            }
            let mut changed = false;
            while let Some(end) = line.iter().position(|b| *b == b'\n') {
                let rest = line.split_off(end + 1);
                let told = serde_json::from_slice::<Told<Happened>>(&line);
                line = rest;
                let happened = told.map_err(Trouble::nonsense)?.of_stream()?;
                if happened.canceled {
                    return self.canceled(&happened);
                }
                changed |= rows.apply(&self.prefix, happened.events);
            }
            if changed {
                self.show(&rows);
                sleep_until(Instant::now() + SHOW_EVERY_MIN).await;
            }
        }
    }

    /// A watch that etcd ended: because it has forgotten the changes that were to come, or for good.
    fn canceled(&self, happened: &Happened) -> Result<(), Trouble> {
        if happened.compact_revision > 0 {
            let compacted = happened.compact_revision;
            tracing::info!(
                source = self.seat.url(),
                compacted,
                "changes were forgotten; reading all again"
            );
            return Ok(());
        }
        Err(Trouble::Refused {
            status: 200,
            text: format!(
                "the watch was ended: {}",
                web::shown(&happened.cancel_reason)
            ),
        })
    }

    /// Tells who is there; sees whether this node is.
    fn show(&self, rows: &Rows) {
        let candidate = |(id, row): (&String, &Row)| Candidate {
            id: id.clone(),
            said: row.said.clone(),
            since: row.created,
        };
        let candidates = rows.nodes.iter().map(candidate).collect();
        self.seat.lists(peers_of(candidates, &self.me));
        let is_missing = !rows.nodes.contains_key(self.me.origin.as_str());
        if is_missing && self.held().is_some() {
            self.is_missing.store(true, Ordering::Relaxed);
            self.missing.notify_one();
        } else if !is_missing {
            self.is_missing.store(false, Ordering::Relaxed);
        }
    }

    /// All keys that begin as those of this mesh do.
    fn range(&self) -> (String, String) {
        let mut end = self.prefix.clone().into_bytes();
        if let Some(last) = end.last_mut() {
            // It is a slash.
            *last += 1;
        }
        (STANDARD.encode(&self.prefix), STANDARD.encode(end))
    }

    /// Asks for something that is answered at once.
    async fn ask<T: DeserializeOwned>(
        &self,
        talk: &Talk,
        what: &str,
        body: Value,
    ) -> Result<T, Trouble> {
        let has_token = talk.token().is_some();
        match self.ask_once(talk, what, &body).await {
            // Tokens end.
            Err(Trouble::Refused { .. }) if has_token => self.ask_once(talk, what, &body).await,
            outcome => outcome,
        }
    }

    async fn ask_once<T: DeserializeOwned>(
        &self,
        talk: &Talk,
        what: &str,
        body: &Value,
    ) -> Result<T, Trouble> {
        let request = self.request(talk, what, body).await?;
        self.let_in(talk, web::json(request.timeout(ANSWER_TIMEOUT)).await)
    }

    /// A request, with what etcd wants to be shown.
    async fn request(
        &self,
        talk: &Talk,
        what: &str,
        body: &Value,
    ) -> Result<RequestBuilder, Trouble> {
        let request = talk
            .web
            .request(Method::POST, &format!("/v3/{what}"))?
            .json(body);
        let Some((user, password)) = &self.keys.login else {
            return Ok(request);
        };
        let known = talk.token().clone();
        let token = match known {
            Some(token) => token,
            None => {
                let who = talk.web.request(Method::POST, "/v3/auth/authenticate")?;
                let who = who.json(&json!({ "name": user, "password": password }));
                let login: Login = web::json(who.timeout(ANSWER_TIMEOUT)).await?;
                *talk.token() = Some(login.token.clone());
                login.token
            }
        };
        Ok(request.header(header::AUTHORIZATION, token))
    }

    /// What was refused may have been refused for the token: the next request takes another.
    fn let_in<T>(&self, talk: &Talk, outcome: Result<T, Trouble>) -> Result<T, Trouble> {
        if let Err(Trouble::Refused { .. }) = &outcome {
            *talk.token() = None;
        }
        outcome
    }
}
