//! Keepers: brokers that confirm durably what nodes say, and so are one more copy of it; and archives, which
//! take that in again.
//!
//! A keeper is a queue that outlives all nodes. Each node gives it its own log; archives consume it, write
//! it to their disks, and only then acknowledge. So what was acknowledged as kept is in the queue or on the
//! disk of an archive.
//!
//! - [`session`] gives: one batch at a time, confirmed before the next.
//! - [`archive`] takes in: what came is with the node until it says that it is stored.
//! - Each engine keeps in its own way: [`super::amqp`], [`super::nats`], [`super::redis`].

mod archive;
mod session;

use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use tokio::sync::watch;

pub(crate) use self::archive::{Archive, Came, Delivery, Settled};
pub(crate) use self::session::Session;
use super::Me;
use super::gauges::{Gauge, Gauges, Known};
use super::url::{BrokerUrl, Engine, InvalidUrl};
use crate::core::keeper::KeeperBatch;
use crate::core::links::fault::Fault;

/// What an archive is called that was given no name.
const ARCHIVE: &str = "archive";
/// Longest name of an archive.
const ARCHIVE_LEN_MAX: usize = 32;

/// The channel on which what is kept is sealed; at RabbitMQ and NATS also where it goes.
pub(super) fn channel_of(me: &Me) -> String {
    format!("chatmesh.{}.kept", me.mesh)
}

/// What stands in `--keep`: a broker, and the name of the archive.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct KeepUrl {
    broker: BrokerUrl,
    archive: String,
}

impl KeepUrl {
    /// The broker.
    pub(crate) fn broker(&self) -> &BrokerUrl {
        &self.broker
    }

    /// The URL without secrets.
    pub(crate) fn shown(&self) -> &str {
        self.broker.shown()
    }

    /// What the archive is called: each has all that is kept.
    pub(crate) fn archive(&self) -> &str {
        &self.archive
    }
}

impl FromStr for KeepUrl {
    type Err = InvalidUrl;

    fn from_str(text: &str) -> Result<Self, InvalidUrl> {
        const FORMS: &str = "expected amqp://HOST[:PORT][/VHOST], nats://HOST[:PORT][,HOST...] or \
                             redis://HOST[:PORT], as for --bus, and ?archive=NAME if there are several";
        let (place, query) = text.split_once('?').unwrap_or((text, ""));
        let pairs = query.split('&').filter(|pair| !pair.is_empty());
        let (own, rest): (Vec<&str>, Vec<&str>) =
            pairs.partition(|pair| pair.starts_with("archive="));
        let archive = match own[..] {
            [] => ARCHIVE,
            [pair] => &pair["archive=".len()..],
            _ => return Err(InvalidUrl::of("archive= is there twice")),
        };
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        // `kept` is the name of what stands before the queues.
        let is_free = archive != "kept" && (1..=ARCHIVE_LEN_MAX).contains(&archive.len());
        if !is_free || !archive.chars().all(is_name) {
            return Err(InvalidUrl::of(format!(
                "archive=NAME: 1 to {ARCHIVE_LEN_MAX} letters, digits, '_' or '-', and not kept"
            )));
        }
        let mut url = place.to_owned();
        if !rest.is_empty() {
            url = format!("{url}?{}", rest.join("&"));
        }
        let broker = url.parse::<BrokerUrl>();
        let broker = broker.map_err(|why| InvalidUrl::of(format!("{why}; {FORMS}")))?;
        if broker.engine() == Engine::Proxy {
            return Err(InvalidUrl::of(format!("a proxy keeps nothing; {FORMS}")));
        }
        Ok(Self {
            broker,
            archive: archive.to_owned(),
        })
    }
}

impl fmt::Debug for KeepUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.shown())
    }
}

/// What becomes of a keeper, and of what it is given.
#[derive(Debug)]
pub(crate) enum KeeperEvent {
    /// It is there; whether what it confirms counts as a copy.
    Up(bool),
    /// It is away.
    Down,
    /// It has the batch with this number.
    Kept(u64),
}

/// How a keeper is, for people.
#[derive(Debug, Default)]
pub(crate) struct Status {
    /// What is wrong; of one that is there, why its word does not count.
    trouble: Mutex<Option<String>>,
    /// What its connection counts.
    pub(crate) gauges: Arc<Gauges>,
    /// Messages that it has confirmed.
    pub(crate) kept: Gauge,
    /// How long the last batch took, in microseconds.
    pub(crate) confirm_us: Known,
    /// Dials.
    pub(crate) dials: Gauge,
    /// How taking in goes, on an archive.
    pub(crate) archive: ArchiveStatus,
}

/// How an archive takes in.
#[derive(Debug, Default)]
pub(crate) struct ArchiveStatus {
    /// What is wrong.
    trouble: Mutex<Option<String>>,
    /// Messages of the broker that wait there, or are not stored yet; nothing while that is not known.
    pub(crate) lag: Known,
    /// When the oldest message was said of those that came and are not stored yet, in microseconds since
    /// 1970.
    pub(crate) oldest_us: Known,
    /// Messages that were stored and acknowledged,
    pub(crate) stored: Gauge,
    /// that were brought more than once,
    pub(crate) redelivered: Gauge,
    /// that were no messages, and were set aside.
    pub(crate) rejected: Gauge,
    /// When something was stored last, in microseconds since 1970.
    pub(crate) committed_us: Known,
}

impl ArchiveStatus {
    /// What is wrong.
    pub(crate) fn trouble(&self) -> Option<String> {
        lock(&self.trouble).clone()
    }
}

impl Status {
    /// What is wrong.
    pub(crate) fn trouble(&self) -> Option<String> {
        lock(&self.trouble).clone()
    }
}

fn lock<T>(it: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    it.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A keeper as the node sees it.
#[derive(Debug, Clone)]
pub(crate) struct Keeper {
    /// Its URL, without secrets.
    pub(crate) url: KeepUrl,
    /// How it is.
    pub(crate) status: Arc<Status>,
    batches: Arc<watch::Sender<KeeperBatch>>,
}

/// What is to be kept: the newest batch, since there is one at a time.
pub(crate) type Batches = watch::Receiver<KeeperBatch>;

impl Keeper {
    /// A keeper, and what it is given.
    pub(crate) fn new(url: KeepUrl) -> (Self, Batches) {
        let (batches, receiver) = watch::channel(KeeperBatch::default());
        let keeper = Self {
            url,
            status: Arc::default(),
            batches: Arc::new(batches),
        };
        (keeper, receiver)
    }

    /// Gives it a batch: one at a time, the next after the outcome of the one before. Never waits.
    pub(crate) fn give(&self, batch: KeeperBatch) {
        self.batches.send_replace(batch);
    }
}

/// A connection by which something is kept.
pub(super) struct Connected<K> {
    pub(super) keeper: K,
    /// Runs as long as it does, and says why it ended.
    pub(super) driver: BoxFuture<'static, Fault>,
    /// Whether what it confirms counts as a copy; else why not.
    pub(super) counts: Result<(), String>,
    /// How long nothing is given to it at first.
    pub(super) rests: Duration,
}

/// Keeps.
pub(super) trait Keep: Send {
    /// Returns when all of these are there for good.
    fn keep(&mut self, messages: Vec<Bytes>) -> impl Future<Output = Result<(), Fault>> + Send;
}

/// The name of something that is kept, where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Name {
    /// A number of this connection.
    Tag(u64),
    /// Something that the broker understands.
    Text(String),
}

/// Something that is kept.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) name: Name,
    /// Whether it was brought before.
    pub(super) again: bool,
    pub(super) body: Bytes,
}

/// Takes in what is kept.
pub(super) trait Consume: Send {
    /// The next one. Cancel safe.
    fn next(&mut self) -> impl Future<Output = Result<Held, Fault>> + Send;

    /// These are stored: the keeper may forget them.
    fn settle(&mut self, names: &[Name]) -> impl Future<Output = Result<(), Fault>> + Send;

    /// Asks how many wait there. Called now and then; the answer is in [`Consume::waiting`], now or later.
    fn look(&mut self) -> impl Future<Output = Result<(), Fault>> + Send;

    /// How many wait there, that did not come.
    fn waiting(&self) -> u64;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_a_broker_and_an_archive() {
        for (given, shown, archive) in [
            ("amqp://u:p@h/v", "amqp://h:5672/v", "archive"),
            (
                "amqp://h/v?archive=b-2&heartbeat=5",
                "amqp://h:5672/v",
                "b-2",
            ),
            ("nats://h,i?archive=x", "nats://h:4222,i:4222", "x"),
            ("redis://:p@h", "redis://h:6379", "archive"),
        ] {
            let url: KeepUrl = given.parse().unwrap();
            assert_eq!((url.shown(), url.archive()), (shown, archive));
            assert!(!format!("{url:?}").contains(":p"));
        }
        for bad in [
            "zmq",
            "zmq+proxy://h:1,2",
            "http://h",
            "amqp://h?archive=",
            "amqp://h?archive=kept",
            "amqp://h?archive=a.b",
            "amqp://h?archive=a&archive=b",
            "amqp://h?archive=a&other=b",
        ] {
            let why = bad.parse::<KeepUrl>().unwrap_err().to_string();
            assert!(why.len() > 10 && !why.contains('\n'), "{why}");
        }
    }
}
