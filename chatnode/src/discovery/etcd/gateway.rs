//! The JSON of etcd's gateway, as far as it is needed: numbers of 64 bits are strings, keys and values are
//! in base64, and what is zero or empty is left out.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use registry::api::{NODES_MAX, Registration};
use serde::{Deserialize, Deserializer};

use crate::discovery::web::{Trouble, shown};

/// What one node says of itself is at most so long.
const VALUE_BYTES_MAX: usize = 8 << 10;

/// A number, written as a string or not.
fn number<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        Text(String),
        Number(u64),
    }
    match Either::deserialize(from)? {
        Either::Number(number) => Ok(number),
        Either::Text(text) => text.parse().map_err(serde::de::Error::custom),
    }
}

/// What each answer says of etcd itself.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Header {
    #[serde(default, deserialize_with = "number")]
    pub(super) revision: u64,
}

/// A new lease. Its id is passed on as it is.
#[derive(Debug, Deserialize)]
pub(super) struct Granted {
    #[serde(rename = "ID")]
    pub(super) id: String,
}

/// Somebody was let in.
#[derive(Debug, Deserialize)]
pub(super) struct Login {
    pub(super) token: String,
}

/// One answer of many on a stream.
#[derive(Debug, Deserialize)]
pub(super) struct Told<T> {
    result: Option<T>,
    error: Option<serde_json::Value>,
}

impl<T> Told<T> {
    pub(super) fn of_stream(self) -> Result<T, Trouble> {
        match (self.result, self.error) {
            (Some(result), _) => Ok(result),
            (None, Some(error)) => {
                let text = error
                    .get("message")
                    .and_then(|it| it.as_str().map(str::to_owned));
                Err(Trouble::Refused {
                    status: 200,
                    text: shown(&text.unwrap_or_else(|| error.to_string())),
                })
            }
            (None, None) => Err(Trouble::nonsense("neither a result nor an error")),
        }
    }
}

/// A renewed lease; without a time if it is gone.
#[derive(Debug, Deserialize)]
pub(super) struct KeptAlive {
    #[serde(rename = "TTL", default, deserialize_with = "number")]
    ttl: u64,
}

impl KeptAlive {
    pub(super) fn is_there(&self) -> bool {
        self.ttl > 0
    }
}

/// All keys of a range.
#[derive(Debug, Deserialize)]
pub(super) struct Ranged {
    pub(super) header: Header,
    #[serde(default)]
    pub(super) kvs: Vec<KeyValue>,
}

/// A key, and what stands under it.
#[derive(Debug, Deserialize)]
pub(super) struct KeyValue {
    key: String,
    #[serde(default)]
    value: String,
    #[serde(default, deserialize_with = "number")]
    create_revision: u64,
}

/// What a watch tells.
#[derive(Debug, Deserialize)]
pub(super) struct Happened {
    #[serde(default)]
    pub(super) canceled: bool,
    #[serde(default)]
    pub(super) cancel_reason: String,
    /// Changes before this are forgotten.
    #[serde(default, deserialize_with = "number")]
    pub(super) compact_revision: u64,
    #[serde(default)]
    pub(super) events: Vec<Event>,
}

/// One change; of which kind is left out when something was put.
#[derive(Debug, Deserialize)]
pub(super) struct Event {
    #[serde(default, rename = "type")]
    kind: String,
    kv: KeyValue,
}

/// The nodes of a mesh, as etcd has them.
#[derive(Debug, Default)]
pub(super) struct Rows {
    /// By id; at most as many as a registry lists.
    pub(super) nodes: BTreeMap<String, Row>,
}

/// One of them.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) said: Registration,
    pub(super) created: u64,
}

impl Rows {
    /// Those of all keys with this prefix.
    pub(super) fn new(prefix: &str, all: Vec<KeyValue>) -> Self {
        let mut rows = Self::default();
        for kv in all {
            rows.put(prefix, &kv);
        }
        rows
    }

    /// What changed since; whether that was anything.
    pub(super) fn apply(&mut self, prefix: &str, events: Vec<Event>) -> bool {
        let mut changed = false;
        for Event { kind, kv } in events {
            if kind == "DELETE" {
                let id = id(prefix, &kv);
                changed |= id.is_some_and(|id| self.nodes.remove(&id).is_some());
            } else {
                changed |= self.put(prefix, &kv);
            }
        }
        changed
    }

    /// Others may have keys there too: what is no node's is left out.
    fn put(&mut self, prefix: &str, kv: &KeyValue) -> bool {
        let Some(id) = id(prefix, kv) else {
            return false;
        };
        let Some(said) = said(kv) else {
            return self.nodes.remove(&id).is_some();
        };
        if self.nodes.len() >= NODES_MAX && !self.nodes.contains_key(&id) {
            return false;
        }
        let created = kv.create_revision;
        self.nodes.insert(id, Row { said, created });
        true
    }
}

fn id(prefix: &str, kv: &KeyValue) -> Option<String> {
    let key = String::from_utf8(STANDARD.decode(&kv.key).ok()?).ok()?;
    Some(key.strip_prefix(prefix)?.to_owned())
}

fn said(kv: &KeyValue) -> Option<Registration> {
    if kv.value.len() > VALUE_BYTES_MAX {
        return None;
    }
    let said: Registration = serde_json::from_slice(&STANDARD.decode(&kv.value).ok()?).ok()?;
    said.check().ok()?;
    Some(said)
}
