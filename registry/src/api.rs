//! The wire types of `/v1` and their limits, shared by the registry, its client and other
//! programs. PUT sends a [`Registration`] and gets a [`Registered`]; GET gets a [`Listing`].

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use base::endpoint::{Endpoint, InvalidEndpoint, Scheme};

/// Largest body of a request, in bytes.
pub(crate) const BODY_BYTES_MAX: usize = 8 * 1024;
/// Most nodes that a registry lists. A new one then gets 503 `full`; renewals still work.
pub const NODES_MAX: usize = 4096;
/// Longest id, in bytes.
const ID_BYTES_MAX: usize = 64;
/// Longest name, in characters.
const NAME_CHARS_MAX: usize = 64;
/// Most endpoints of a node.
const ENDPOINTS_MAX: usize = 8;
/// Longest name of an endpoint, in bytes.
const ENDPOINT_NAME_BYTES_MAX: usize = 32;
/// Most keys in `meta`.
const META_KEYS_MAX: usize = 16;
/// Longest key in `meta`, in bytes.
const META_KEY_BYTES_MAX: usize = 64;
/// Longest value in `meta`, in bytes.
const META_VALUE_BYTES_MAX: usize = 256;
/// Longest wait of a long poll. A longer one is cut to this: proxies end requests at a minute.
pub(crate) const WAIT_MAX: Duration = Duration::from_secs(55);
/// Most long polls and event streams held at once. One more gets 429 `too_many_watchers`.
pub(crate) const WATCHERS_MAX: usize = 2 * NODES_MAX;
/// Largest answer that a client needs to take: a full list of the largest nodes.
pub(crate) const LISTING_BYTES_MAX: usize = NODES_MAX * (BODY_BYTES_MAX + 1024);

/// The code of the refusal to tell, or to change, the list of a registry that has a mesh secret.
pub const SECRET_NEEDED: &str = "secret_needed";

/// The endpoint by which a chatnode publishes, `tcp://…`, or `tls://…` with a mesh secret.
pub const ENDPOINT_PUB: &str = "pub";
/// The endpoint of a node's HTTP, `http://…`.
pub const ENDPOINT_HTTP: &str = "http";

/// What a node says of itself. Fields that this version does not know are ignored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registration {
    /// The name to show, 1 to 64 characters.
    pub name: String,
    /// Where it is, by purpose: `pub` is `tcp://…` or `tls://…`, `http` is `http://…`, others are any.
    /// At least one; an endpoint belongs to one node at a time.
    pub endpoints: BTreeMap<String, String>,
    /// Anything else that others should know.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub meta: BTreeMap<String, String>,
}

/// The answer to a registration or a renewal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registered {
    /// Which start of the registry. Another one than before knows nothing: register again.
    pub epoch: String,
    /// The list's version, this registration included.
    pub version: u64,
    /// How long the node stays listed without a renewal, in milliseconds.
    pub(crate) lease_ms: u64,
    /// How often to renew, in milliseconds.
    pub renew_ms: u64,
    /// The IP address that the request came from, as the registry sees it.
    pub(crate) observed: String,
}

/// One listed node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Where it is.
    pub endpoints: BTreeMap<String, String>,
    /// Anything else it said of itself.
    #[serde(default)]
    pub meta: BTreeMap<String, String>,
    /// How long it had been listed when this version of the list was made, in milliseconds. It
    /// does not tick within a version, so that one body serves all: the header `Age` of the answer
    /// tells how many seconds ago that was.
    pub(crate) age_ms: u64,
}

/// All live nodes, ordered by id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listing {
    /// Random for each start of the registry.
    pub epoch: String,
    /// Grows with each change of the list.
    pub version: u64,
    /// `<epoch>.<version>`: what to send as `since`. Compare for equality only.
    pub token: String,
    /// The nodes.
    pub nodes: Vec<Node>,
}

/// Why a registration was refused. Nothing changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRegistration {
    /// An endpoint that nobody should dial: 422 `invalid_endpoint`.
    #[error("endpoint {name:?}: {rule}")]
    Endpoint {
        /// Which of the endpoints.
        name: String,
        /// The rule that it breaks.
        #[source]
        rule: InvalidEndpoint,
    },
    /// Another field is outside its limits: 400 `bad_request`.
    #[error("{0}")]
    Field(&'static str),
}

impl Registration {
    /// Checks all limits, and gives the endpoints in their one form.
    ///
    /// # Errors
    /// When anything is outside its limits.
    pub fn check(&self) -> Result<Vec<Endpoint>, InvalidRegistration> {
        let field = |is_good: bool, rule| {
            if is_good {
                Ok(())
            } else {
                Err(InvalidRegistration::Field(rule))
            }
        };
        let printable = |text: &str| !text.chars().any(char::is_control);
        field(
            (1..=NAME_CHARS_MAX).contains(&self.name.chars().count()) && printable(&self.name),
            "name: 1 to 64 characters, no control characters",
        )?;
        field(
            (1..=ENDPOINTS_MAX).contains(&self.endpoints.len()),
            "endpoints: 1 to 8",
        )?;
        field(self.meta.len() <= META_KEYS_MAX, "meta: at most 16 keys")?;
        for (key, value) in &self.meta {
            field(
                is_word(key, META_KEY_BYTES_MAX),
                "meta: a key is 1 to 64 letters, digits, '.', '_' or '-'",
            )?;
            field(
                value.len() <= META_VALUE_BYTES_MAX && printable(value),
                "meta: a value is at most 256 bytes, no control characters",
            )?;
        }
        let mut endpoints = Vec::with_capacity(self.endpoints.len());
        for (name, text) in &self.endpoints {
            field(
                is_word(name, ENDPOINT_NAME_BYTES_MAX),
                "endpoints: a name is 1 to 32 letters, digits, '.', '_' or '-'",
            )?;
            endpoints.push(check_endpoint(name, text).map_err(|rule| {
                InvalidRegistration::Endpoint {
                    name: name.clone(),
                    rule,
                }
            })?);
        }
        Ok(endpoints)
    }
}

/// Checks an endpoint under the name that it goes by.
///
/// # Errors
/// When it breaks a rule, among them: `pub` is tcp or tls, `http` is http.
pub fn check_endpoint(name: &str, text: &str) -> Result<Endpoint, InvalidEndpoint> {
    let endpoint: Endpoint = text.parse()?;
    match (name, endpoint.scheme) {
        (ENDPOINT_PUB, Scheme::Http) => Err(InvalidEndpoint("pub begins with tcp:// or tls://")),
        (ENDPOINT_HTTP, Scheme::Tcp | Scheme::Tls) => {
            Err(InvalidEndpoint("http begins with http://"))
        }
        _ => Ok(endpoint),
    }
}

/// Whether this can be the id of a node: 1 to 64 of `[A-Za-z0-9._-]`, and not `.` or `..`, which
/// are words of paths.
pub(crate) fn is_id(text: &str) -> bool {
    is_word(text, ID_BYTES_MAX) && text != "." && text != ".."
}

fn is_word(text: &str, bytes_max: usize) -> bool {
    (1..=bytes_max).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registration(json: serde_json::Value) -> Registration {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn a_registration_keeps_its_limits() {
        use serde_json::json;
        let good = json!({"name":"a","endpoints":{"pub":"tcp://h:1","http":"http://h:2"},"new":1});
        assert_eq!(registration(good).check().unwrap().len(), 2);
        for bad in [
            json!({"name":"","endpoints":{"pub":"tcp://h:1"}}),
            json!({"name":"a\nb","endpoints":{"pub":"tcp://h:1"}}),
            json!({"name":"x".repeat(65),"endpoints":{"pub":"tcp://h:1"}}),
            json!({"name":"a","endpoints":{}}),
            json!({"name":"a","endpoints":{"":"tcp://h:1"}}),
            json!({"name":"a","endpoints":{"pub":"http://h:1"}}),
            json!({"name":"a","endpoints":{"http":"tcp://h:1"}}),
            json!({"name":"a","endpoints":{"pub":"tcp://h:1"},"meta":{"a b":""}}),
            json!({"name":"a","endpoints":{"pub":"tcp://h:1"},"meta":{"a":"x".repeat(257)}}),
        ] {
            assert!(registration(bad.clone()).check().is_err(), "{bad}");
        }
    }
}
