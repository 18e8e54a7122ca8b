//! What is kept at Redis: a stream, and a consumer group for each archive.
//!
//! What is added there is answered when the server has it in memory; that is a copy that lasts only where it
//! also appends each command to its file, and syncs that (`appendonly yes`, `appendfsync always`), and never
//! makes room by forgetting. An archive acknowledges what it has stored; what all groups have is trimmed, by
//! whichever archive looks next.

use std::collections::HashMap;
use std::collections::VecDeque;
use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::{RedisResult, Value, cmd, pipe};
use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;

use super::{check_role, commands, dial, fault, sentinels};
use crate::carriers::broker::Me;
use crate::carriers::broker::keeper::{Connected, Consume, Held, Keep, KeepUrl, Name};
use crate::carriers::broker::url::Place;
use crate::core::links::fault::{Fault, Why};

/// Messages that are read at once,
const READ_TOGETHER: usize = 128;
/// and for how long the server waits for some, in milliseconds.
const READ_FOR_MS: usize = 1000;
/// The one consumer of each group: what it was brought before it was killed, it is brought again.
const CONSUMER: &str = "node";
/// The one field of an entry.
const FIELD: &str = "m";
/// Nothing is read while so many are not stored yet.
const UNSETTLED_MAX: usize = 1024;

/// The stream of a mesh.
fn key_of(me: &Me) -> String {
    format!("chatmesh:{{{}}}:kept", me.mesh)
}

/// A connection to the primary.
async fn connected(
    url: &KeepUrl,
    me: &Me,
) -> Result<(MultiplexedConnection, BoxFuture<'static, Fault>), Fault> {
    let url = url.broker();
    let primary;
    let place = match &url.place {
        Place::Sentinels(watch) => {
            primary = Place::Servers(vec![sentinels::primary(watch, me).await?]);
            &primary
        }
        place => place,
    };
    let (connection, mut driver) = commands(dial(place, url.tls, &url.login, me).await?).await?;
    tokio::select! {
        checked = check_role(connection.clone()) => checked?,
        fault = &mut driver => return Err(fault),
    }
    let driver = match (&url.place, place) {
        (Place::Sentinels(watch), Place::Servers(primary)) => {
            let moves = sentinels::moves(watch.clone(), me.clone(), primary.clone());
            async move {
                tokio::select! {
                    fault = driver => fault,
                    fault = moves => fault,
                }
            }
            .boxed()
        }
        _ => driver,
    };
    Ok((connection, driver))
}

/// Whether what this server takes lasts; else why not.
async fn lasts(mut connection: MultiplexedConnection) -> Result<(), String> {
    let mut all = pipe();
    let names = ["appendonly", "appendfsync", "maxmemory", "maxmemory-policy"];
    for name in names {
        all.cmd("CONFIG").arg("GET").arg(name);
    }
    let told: RedisResult<Vec<HashMap<String, String>>> = all.query_async(&mut connection).await;
    let told = told.map_err(|_| {
        "it does not tell whether it syncs what it takes (allow this user +config|get)".to_owned()
    })?;
    let of = |name: &str| {
        let value = told.iter().find_map(|pairs| pairs.get(name));
        value.map(String::as_str).unwrap_or_default()
    };
    if of("appendonly") != "yes" || of("appendfsync") != "always" {
        return Err(format!(
            "it may forget what it has taken when it is killed: it has appendonly {} and appendfsync \
             {}; set yes and always",
            of("appendonly"),
            of("appendfsync")
        ));
    }
    if of("maxmemory") != "0" && of("maxmemory-policy").starts_with("allkeys") {
        return Err(format!(
            "it may throw away what it has taken to make room: its maxmemory-policy is {}; set noeviction",
            of("maxmemory-policy")
        ));
    }
    Ok(())
}

/// Connects to keep.
pub(in crate::carriers::broker) async fn keep(
    url: &KeepUrl,
    me: &Me,
) -> Result<Connected<Keeper>, Fault> {
    let (connection, mut driver) = connected(url, me).await?;
    let counts = tokio::select! {
        fault = &mut driver => return Err(fault),
        counts = lasts(connection.clone()) => counts,
    };
    let keeper = Keeper {
        connection,
        key: key_of(me),
    };
    Ok(Connected {
        keeper,
        driver,
        counts,
        rests: Duration::ZERO,
    })
}

/// Keeps.
pub(in crate::carriers::broker) struct Keeper {
    connection: MultiplexedConnection,
    key: String,
}

impl Keep for Keeper {
    async fn keep(&mut self, messages: Vec<Bytes>) -> Result<(), Fault> {
        let mut all = pipe();
        for message in &messages {
            let add = all.cmd("XADD").arg(&self.key).arg("*");
            add.arg(FIELD).arg(&message[..]).ignore();
        }
        let added: RedisResult<()> = all.query_async(&mut self.connection).await;
        added.map_err(|why| fault(&why))
    }
}

/// Connects to take in what is kept.
pub(in crate::carriers::broker) async fn consume(
    url: &KeepUrl,
    me: &Me,
) -> Result<(Consumer, BoxFuture<'static, Fault>), Fault> {
    // What waits for messages holds up all that is asked behind it.
    let ((reading, one), (mut asking, other)) =
        futures::try_join!(connected(url, me), connected(url, me))?;
    let mut driver = async move {
        tokio::select! {
            fault = one => fault,
            fault = other => fault,
        }
    }
    .boxed();
    let (key, group) = (key_of(me), url.archive().to_owned());
    let prepared = async {
        let mut create = cmd("XGROUP");
        create.arg("CREATE").arg(&key).arg(&group);
        create.arg("0").arg("MKSTREAM");
        let created: RedisResult<()> = create.query_async(&mut asking).await;
        match created {
            Err(why) if why.code() != Some("BUSYGROUP") => Err(fault(&why)),
            _ => Ok(()),
        }
    };
    tokio::select! {
        fault = &mut driver => return Err(fault),
        prepared = prepared => prepared?,
    }
    let mut consumer = Consumer {
        reading,
        asking,
        key,
        group,
        after: Some("0".to_owned()),
        brought: VecDeque::new(),
        read: None,
        unsettled: 0,
        waiting: 0,
        has_settled: false,
    };
    tokio::select! {
        fault = &mut driver => return Err(fault),
        looked = consumer.look() => looked?,
    }
    Ok((consumer, driver))
}

/// Entries of a stream, as the server gives them.
type Entries = Vec<(String, HashMap<String, Bytes>)>;

/// Takes in what is kept.
pub(in crate::carriers::broker) struct Consumer {
    reading: MultiplexedConnection,
    asking: MultiplexedConnection,
    key: String,
    group: String,
    /// While it reads again what it was brought before: behind which it goes on.
    after: Option<String>,
    brought: VecDeque<Held>,
    /// What is being read: whoever gives up waiting for it finds it here.
    read: Option<BoxFuture<'static, RedisResult<Value>>>,
    unsettled: usize,
    waiting: u64,
    /// Whether something was stored since it was looked what may be trimmed.
    has_settled: bool,
}

impl Consumer {
    fn begin(&self) -> BoxFuture<'static, RedisResult<Value>> {
        let mut read = cmd("XREADGROUP");
        read.arg("GROUP").arg(&self.group).arg(CONSUMER);
        read.arg("COUNT").arg(READ_TOGETHER);
        read.arg("BLOCK").arg(READ_FOR_MS);
        let after = self.after.as_deref().unwrap_or(">");
        read.arg("STREAMS").arg(&self.key).arg(after);
        let mut connection = self.reading.clone();
        async move { read.query_async(&mut connection).await }.boxed()
    }

    fn take(&mut self, read: Value) -> Result<(), Fault> {
        let streams: Option<Vec<(String, Entries)>> =
            ::redis::from_redis_value(read).map_err(|_| odd())?;
        let entries = streams
            .into_iter()
            .flatten()
            .flat_map(|(_, entries)| entries);
        let entries: Entries = entries.collect();
        let again = self.after.is_some();
        match entries.last() {
            Some((last, _)) if again => self.after = Some(last.clone()),
            None if again => self.after = None,
            _ => {}
        }
        for (id, mut fields) in entries {
            self.unsettled += 1;
            self.waiting = self.waiting.saturating_sub(1);
            self.brought.push_back(Held {
                name: Name::Text(id),
                again,
                body: fields.remove(FIELD).unwrap_or_default(),
            });
        }
        Ok(())
    }

    /// Removes what all groups have.
    async fn trim(&mut self, groups: &[HashMap<String, Value>]) -> Result<(), Fault> {
        let mut least: Option<(u64, u64)> = None;
        for group in groups {
            let text = |name: &str| {
                let value = group.get(name).cloned();
                value.and_then(|value| ::redis::from_redis_value::<String>(value).ok())
            };
            let (Some(name), Some(last)) = (text("name"), text("last-delivered-id")) else {
                return Ok(());
            };
            let pending = cmd("XPENDING")
                .arg(&self.key)
                .arg(&name)
                .query_async::<(u64, Option<String>, Option<String>, Value)>(&mut self.asking)
                .await;
            let (count, first, ..) = pending.map_err(|why| fault(&why))?;
            let from = match (count, first) {
                // Of what was brought nothing is left: behind the last.
                (0, _) => id_of(&last).map(|(ms, nth)| (ms, nth + 1)),
                (_, first) => first.and_then(|first| id_of(&first)),
            };
            let Some(from) = from else {
                return Ok(());
            };
            least = Some(least.map_or(from, |least| least.min(from)));
        }
        if let Some((ms, nth)) = least {
            let trimmed: RedisResult<()> = cmd("XTRIM")
                .arg(&self.key)
                .arg("MINID")
                .arg(format!("{ms}-{nth}"))
                .query_async(&mut self.asking)
                .await;
            trimmed.map_err(|why| fault(&why))?;
        }
        Ok(())
    }
}

fn odd() -> Fault {
    Fault::new(Why::NoBroker, "Redis answers something else")
}

/// The id of an entry: milliseconds, and which of those.
fn id_of(text: &str) -> Option<(u64, u64)> {
    let (ms, nth) = text.split_once('-')?;
    Some((ms.parse().ok()?, nth.parse().ok()?))
}

impl Consume for Consumer {
    async fn next(&mut self) -> Result<Held, Fault> {
        loop {
            if let Some(held) = self.brought.pop_front() {
                return Ok(held);
            }
            if self.read.is_none() && self.unsettled >= UNSETTLED_MAX {
                return std::future::pending().await;
            }
            if self.read.is_none() {
                self.read = Some(self.begin());
            }
            if let Some(read) = &mut self.read {
                let value = read.await;
                self.read = None;
                self.take(value.map_err(|why| fault(&why))?)?;
            }
        }
    }

    async fn settle(&mut self, names: &[Name]) -> Result<(), Fault> {
        let ids: Vec<&str> = names
            .iter()
            .filter_map(|name| match name {
                Name::Text(id) => Some(id.as_str()),
                Name::Tag(_) => None,
            })
            .collect();
        if ids.is_empty() {
            return Ok(());
        }
        self.unsettled = self.unsettled.saturating_sub(ids.len());
        self.has_settled = true;
        let acked: RedisResult<()> = cmd("XACK")
            .arg(&self.key)
            .arg(&self.group)
            .arg(&ids)
            .query_async(&mut self.asking)
            .await;
        acked.map_err(|why| fault(&why))
    }

    async fn look(&mut self) -> Result<(), Fault> {
        let groups = cmd("XINFO")
            .arg("GROUPS")
            .arg(&self.key)
            .query_async::<Vec<HashMap<String, Value>>>(&mut self.asking)
            .await;
        let groups = groups.map_err(|why| fault(&why))?;
        let number = |group: &HashMap<String, Value>, name: &str| {
            let value = group.get(name).cloned();
            value.and_then(|value| ::redis::from_redis_value::<u64>(value).ok())
        };
        let is_own = |group: &&HashMap<String, Value>| {
            let name = group.get("name").cloned();
            name.and_then(|name| ::redis::from_redis_value::<String>(name).ok())
                .is_some_and(|name| name == self.group)
        };
        if let Some(own) = groups.iter().find(is_own) {
            let pending = number(own, "pending").unwrap_or_default();
            let held = u64::try_from(self.unsettled).unwrap_or_default();
            // What it was brought before it began anew comes once more.
            let again = pending.saturating_sub(held);
            // Before Redis 7 no number tells what it has not been brought.
            self.waiting = again + number(own, "lag").unwrap_or_default();
        }
        if std::mem::take(&mut self.has_settled) {
            self.trim(&groups).await?;
        }
        Ok(())
    }

    fn waiting(&self) -> u64 {
        self.waiting
    }
}
