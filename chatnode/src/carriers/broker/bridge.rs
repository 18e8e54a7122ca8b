//! Bridges: what is said in the room of the plain form goes to foreign programs by a broker of theirs, and
//! what they say comes in.
//!
//! They are the textbook's: at Redis a channel of bare texts, at RabbitMQ a fanout exchange of JSON with a
//! text and a time. [`plan`] decides who of a mesh bridges and what goes where; [`session`] has the
//! connections.

mod plan;
mod session;

use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::gauges::Gauge;
use super::url::{BrokerUrl, Engine, InvalidUrl};
pub(crate) use session::Session;

/// Messages that a bridge was shown and has not looked at; of more it is told nothing, which is counted.
const SHOWN_MAX: usize = 1024;
/// What bridges took in and the node has not. When full they wait.
pub(crate) const TAKEN_MAX: usize = 256;

/// Where foreign programs are: a broker, and what they publish on there. Secrets in it are never printed.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct BridgeUrl {
    broker: BrokerUrl,
    channel: String,
    shown: String,
}

impl BridgeUrl {
    /// The URL without secrets.
    pub(crate) fn shown(&self) -> &str {
        &self.shown
    }

    /// What speaks there.
    pub(crate) fn engine(&self) -> Engine {
        self.broker.engine()
    }

    /// The broker.
    pub(crate) fn broker(&self) -> &BrokerUrl {
        &self.broker
    }
}

impl FromStr for BridgeUrl {
    type Err = InvalidUrl;

    fn from_str(text: &str) -> Result<Self, InvalidUrl> {
        const FORMS: &str = "expected redis://HOST[:PORT]/CHANNEL or amqp://HOST[:PORT][/VHOST]/EXCHANGE, \
                             as in redis://127.0.0.1/chat_messages; rediss, valkey and amqps go too";
        let refused = || InvalidUrl::of(FORMS);
        let (scheme, rest) = text.split_once("://").ok_or_else(refused)?;
        if !matches!(
            scheme,
            "redis" | "rediss" | "valkey" | "valkeys" | "amqp" | "amqps"
        ) {
            return Err(refused());
        }
        let end = rest.find(['?', '#']).unwrap_or(rest.len());
        let (place, query) = rest.split_at(end);
        let (broker, channel) = place.rsplit_once('/').ok_or_else(refused)?;
        let channel = super::url::decoded(channel)?;
        if broker.contains('/') && !scheme.starts_with("amqp") {
            return Err(refused());
        }
        if channel.is_empty() || channel.len() > 255 || channel.contains(char::is_control) {
            return Err(refused());
        }
        let broker: BrokerUrl = format!("{scheme}://{broker}{query}").parse()?;
        let shown = format!("{}/{channel}", broker.shown());
        Ok(Self {
            broker,
            channel,
            shown,
        })
    }
}

impl fmt::Debug for BridgeUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

/// A message that is shown in the room.
#[derive(Debug)]
pub(crate) struct Shown {
    /// What it says.
    pub(crate) text: String,
    /// By which engine's bridge it came in, if by one.
    pub(crate) by: Option<String>,
}

/// What a bridge takes in.
#[derive(Debug)]
pub(crate) struct Taken {
    /// The engine's name.
    pub(crate) by: &'static str,
    /// What is said.
    pub(crate) text: String,
}

/// How a bridge is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    /// This node bridges.
    Bridging,
    /// Another does, and this one would.
    Standby,
    /// The broker is not there.
    #[default]
    Away,
}

/// How a bridge is, for people.
#[derive(Debug, Default)]
pub(crate) struct Status {
    now: Mutex<(State, Option<String>)>,
    /// Texts that were taken in, and that were published.
    pub(crate) taken: Gauge,
    pub(crate) published: Gauge,
    /// What came and is no text, and what found no room.
    pub(crate) refused: Gauge,
    pub(crate) dropped: Gauge,
}

impl Status {
    /// Its state, and why the broker is not there.
    pub(crate) fn now(&self) -> (State, Option<String>) {
        self.now
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn set(&self, state: State, why: Option<String>) {
        *self.now.lock().unwrap_or_else(PoisonError::into_inner) = (state, why);
    }
}

/// A bridge as the node sees it.
#[derive(Debug, Clone)]
pub(crate) struct Bridge {
    /// Its URL, without secrets.
    pub(crate) url: String,
    /// How it is.
    pub(crate) status: Arc<Status>,
    shown: mpsc::Sender<Arc<Shown>>,
}

impl Bridge {
    /// A bridge, and what it is shown.
    pub(crate) fn new(url: &BridgeUrl) -> (Self, mpsc::Receiver<Arc<Shown>>) {
        let (shown, receiver) = mpsc::channel(SHOWN_MAX);
        let bridge = Self {
            url: url.shown().to_owned(),
            status: Arc::default(),
            shown,
        };
        (bridge, receiver)
    }

    /// A message is shown. Never waits.
    pub(crate) fn show(&self, shown: &Arc<Shown>) {
        if self.shown.try_send(Arc::clone(shown)).is_err() {
            self.status.dropped.add(1);
        }
    }
}

/// What the textbook's program says at RabbitMQ.
#[derive(Debug, Serialize, Deserialize)]
struct Message<'a> {
    #[serde(borrow)]
    text: std::borrow::Cow<'a, str>,
    /// Milliseconds since 1970.
    #[serde(default)]
    timestamp: serde_json::Value,
}

/// A text as foreign programs read it there; `now` is milliseconds since 1970.
fn to_foreign(engine: Engine, text: &str, now: u64) -> Bytes {
    match engine {
        Engine::Amqp => {
            let message = Message {
                text: text.into(),
                timestamp: now.into(),
            };
            serde_json::to_vec(&message).unwrap_or_default().into()
        }
        _ => text.to_owned().into(),
    }
}

/// The text that a foreign program said.
fn from_foreign(engine: Engine, body: &[u8]) -> Option<String> {
    match engine {
        Engine::Amqp => {
            let message: Message<'_> = serde_json::from_slice(body).ok()?;
            Some(message.text.into_owned())
        }
        _ => Some(std::str::from_utf8(body).ok()?.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_a_broker_and_what_is_published_on_there() {
        for (given, shown) in [
            (
                "redis://u:p@h/chat_messages",
                "redis://h:6379/chat_messages",
            ),
            ("amqp://guest:guest@h:1/chat", "amqp://h:1/chat"),
            ("amqps://h/v/chat?heartbeat=5", "amqps://h:5671/v/chat"),
            ("amqp://h/%2f/chat", "amqp://h:5672/chat"),
            ("valkey://[::1]:2/a%20b", "valkey://[::1]:2/a b"),
        ] {
            let url: BridgeUrl = given.parse().unwrap();
            assert_eq!(url.shown(), shown);
            assert!(!format!("{url:?}").contains("guest"));
        }
        for bad in [
            "redis://h",
            "redis://h/",
            "redis://h/0/chat",
            "redis://h/1/chat",
            "amqp://h",
            "amqp://h/a/b/chat",
            "nats://h/chat",
            "chat",
            "redis:///chat",
        ] {
            assert!(bad.parse::<BridgeUrl>().is_err(), "{bad}");
        }
    }

    #[test]
    fn texts_are_bare_at_redis_and_json_at_rabbitmq() {
        for engine in [Engine::Redis, Engine::Amqp] {
            let said = to_foreign(engine, "a \"b\" ü", 17);
            assert_eq!(from_foreign(engine, &said).as_deref(), Some("a \"b\" ü"));
        }
        let amqp = to_foreign(Engine::Amqp, "hello", 17);
        assert_eq!(amqp, r#"{"text":"hello","timestamp":17}"#);
        assert_eq!(to_foreign(Engine::Redis, "hello", 17), "hello");
        assert_eq!(from_foreign(Engine::Redis, b"\xff"), None);
        for bad in ["", "{}", "hello", "[]", r#"{"text":1}"#] {
            assert_eq!(from_foreign(Engine::Amqp, bad.as_bytes()), None, "{bad}");
        }
        let bare = from_foreign(Engine::Amqp, br#"{"text":"no time"}"#);
        assert_eq!(bare.as_deref(), Some("no time"));
    }
}
