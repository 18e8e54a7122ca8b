//! Requests to Consul and etcd: HTTP, in TLS if so wanted, to one of several servers, with bounded answers.

use std::error::Error;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use base::body::of_answer;
use base::endpoint::Endpoint;
use base::resolver::Resolver;
use base::tls::{Refusal, http_by_authorities, http_client, refusal};
use bytes::Bytes;
use reqwest::{Client, Method, RequestBuilder, Response};
use serde::de::DeserializeOwned;

use super::url::Servers;

/// Time for a connection to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Time for an answer that is not waited for on purpose.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// Idle connections are left after this.
const IDLE_TIMEOUT: Duration = Duration::from_secs(20);
/// An answer is at most so long: a full list of nodes, each with much that others said of it.
pub(super) const ANSWER_BYTES_MAX: usize = 8 << 20;
/// Of an error so much is shown.
const ERROR_CHARS_MAX: usize = 160;

/// Why a source did not do what it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Trouble {
    /// It does not answer, or what answers is something else. Try again.
    #[error("{0}")]
    Away(String),
    /// It said no. Nothing changed.
    #[error("it refuses: {text} ({status})")]
    Refused {
        /// The status of the answer.
        status: u16,
        /// What it said.
        text: String,
    },
}

impl Trouble {
    /// What answers is something else, or a later version of it.
    pub(super) fn nonsense(why: impl std::fmt::Display) -> Self {
        Self::Away(format!(
            "what answers there says nothing that is understood: {why}"
        ))
    }
}

/// Asks one of several servers that know the same.
#[derive(Debug)]
pub(super) struct Web {
    servers: Servers,
    at: AtomicUsize,
    client: Mutex<Option<Client>>,
}

impl Web {
    pub(super) fn new(servers: Servers) -> Self {
        Self {
            servers,
            at: AtomicUsize::new(0),
            client: Mutex::default(),
        }
    }

    /// From now on another server is asked, if there is one.
    pub(super) fn next_server(&self) {
        self.at.fetch_add(1, Ordering::Relaxed);
    }

    /// A request for this path of the server that is asked now.
    pub(super) fn request(&self, method: Method, path: &str) -> Result<RequestBuilder, Trouble> {
        let at = self.at.load(Ordering::Relaxed) % self.servers.all.len();
        let Endpoint { host, port, .. } = &self.servers.all[at];
        let scheme = if self.servers.tls { "https" } else { "http" };
        let url = format!("{scheme}://{host}:{port}{path}");
        Ok(self.client()?.request(method, url))
    }

    /// Made when it is first needed: the authorities of this machine may not be there yet.
    fn client(&self) -> Result<Client, Trouble> {
        let mut client = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = &*client {
            return Ok(client.clone());
        }
        let builder = match self.servers.tls {
            true => http_by_authorities().map_err(Trouble::Away)?,
            false => http_client(None),
        };
        let made = builder
            .no_proxy()
            .dns_resolver(Resolver::system())
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_idle_timeout(IDLE_TIMEOUT)
            .tcp_nodelay(true)
            .build()
            .map_err(away)?;
        Ok(client.insert(made).clone())
    }
}

/// Sends; whatever is no success is an error.
pub(super) async fn send(request: RequestBuilder) -> Result<Response, Trouble> {
    let answer = request.send().await.map_err(away)?;
    let status = answer.status();
    if status.is_success() {
        return Ok(answer);
    }
    let body = of_answer(answer, ANSWER_BYTES_MAX).await;
    let body = body.ok().flatten().unwrap_or_default();
    Err(Trouble::Refused {
        status: status.as_u16(),
        text: reason(&body),
    })
}

/// Sends, and reads all of the answer.
pub(super) async fn body(request: RequestBuilder) -> Result<Bytes, Trouble> {
    read(send(request).await?).await
}

/// Reads all of an answer.
pub(super) async fn read(answer: Response) -> Result<Bytes, Trouble> {
    let body = of_answer(answer, ANSWER_BYTES_MAX).await.map_err(away)?;
    body.ok_or_else(|| Trouble::nonsense(format!("more than {ANSWER_BYTES_MAX} bytes")))
}

/// Sends, and reads the answer's JSON.
pub(super) async fn json<T: DeserializeOwned>(request: RequestBuilder) -> Result<T, Trouble> {
    serde_json::from_slice(&body(request).await?).map_err(Trouble::nonsense)
}

/// The reason that stands in the answer: in JSON under `message` or `error`, else as text.
fn reason(body: &[u8]) -> String {
    #[derive(serde::Deserialize)]
    struct Said {
        message: Option<String>,
        error: Option<String>,
    }
    let said = serde_json::from_slice::<Said>(body).ok();
    let said = said.and_then(|said| said.message.or(said.error));
    let text = said.unwrap_or_else(|| String::from_utf8_lossy(body).into_owned());
    match text.trim() {
        "" => "no reason given".to_owned(),
        text => shown(text),
    }
}

/// What a server says, fit for one line.
pub(super) fn shown(text: &str) -> String {
    let printable = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    printable.take(ERROR_CHARS_MAX).collect()
}

/// What a request failed of, in one line. The URL is the source's name, or near it: it is said already.
pub(super) fn away(why: reqwest::Error) -> Trouble {
    let why = why.without_url();
    if why.is_timeout() {
        return Trouble::Away("it does not answer".to_owned());
    }
    let mut cause: &dyn Error = &why;
    while let Some(next) = cause.source() {
        cause = next;
    }
    if refusal(&why) == Some(Refusal::OtherKey) {
        return Trouble::Away(format!(
            "its certificate is not trusted: {}; SSL_CERT_FILE names other authorities",
            shown(&cause.to_string())
        ));
    }
    Trouble::Away(match why.is_connect() {
        true => format!("there is no way to it: {}", shown(&cause.to_string())),
        false => format!(
            "it did not finish its answer: {}",
            shown(&cause.to_string())
        ),
    })
}
