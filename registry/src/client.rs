//! A typed client of a registry, for chatnode, for tests, and for other programs.
//!
//! ```no_run
//! # async fn example() -> Result<(), registry::client::ClientError> {
//! use std::time::Duration;
//! use registry::client::{Client, Listed};
//!
//! let client = Client::new("http://127.0.0.1:7171")?;
//! let mut token = None;
//! loop {
//!     // Returns at once with the list, then each time that it changes.
//!     match client.list(token.as_deref(), Some(Duration::from_secs(25))).await? {
//!         Listed::Changed(listing) => token = Some(listing.token),
//!         Listed::Unchanged => {}
//!     }
//! }
//! # }
//! ```
//!
//! It follows no redirect, asks no proxy, and reads no answer beyond a limit: a registry is dialled
//! where the configuration says, and what it sends is not trusted. Beyond a connection
//! that was kept too long it does not retry; an error says whether that makes sense.

use std::time::Duration;

use reqwest::{Method, RequestBuilder, Response, StatusCode, Url, header};
use serde::de::DeserializeOwned;

use crate::api::{
    BODY_BYTES_MAX, LISTING_BYTES_MAX, Listing, Registered, Registration, SECRET_NEEDED, is_id,
};
use base::body::of_answer;
use base::problem::ProblemBody;
use base::resolver::Resolver;
use base::tls::{self, Http, KeyRing};

/// Time for a connection to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Time for the answer to a change. A renewal that takes longer is better sent again.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(2);
/// Time for a whole list, on top of the wait of a long poll.
const LIST_TIMEOUT: Duration = Duration::from_secs(5);
/// Idle connections go before the registry ends them, which it does after 10 s.
const IDLE_TIMEOUT: Duration = Duration::from_secs(5);

/// A client of one registry. Clones share their connections.
#[derive(Debug, Clone)]
pub struct Client {
    http: Http,
    url: String,
    /// The URL as HTTP has it.
    asked: String,
}

/// The answer to a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listed {
    /// The list is another than the one known.
    Changed(Listing),
    /// The list is the one known, also after the wait.
    Unchanged,
}

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The URL cannot be that of a registry. Nothing was sent; mend the configuration.
    #[error("{url:?} is no registry: {why}")]
    Url {
        /// What was given.
        url: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The id is not one. Nothing was sent; the caller has a bug.
    #[error("{0:?} cannot be the id of a node")]
    Id(String),
    /// What is there speaks no TLS, or has another secret. Nothing changed; mend the configuration.
    #[error("the registry {0}")]
    NotOurs(&'static str),
    /// No connection could be made: nothing is there now. Nothing changed; try again later.
    #[error("the registry does not answer")]
    Unreachable(#[source] reqwest::Error),
    /// The connection broke, or the answer did not come in time. A change may have been made; all
    /// requests may be repeated.
    #[error("the registry did not finish its answer")]
    Interrupted(#[source] reqwest::Error),
    /// The registry refused. Nothing changed.
    #[error("the registry refused: {} ({} {})", .problem.detail, .problem.status, .problem.code)]
    Refused {
        /// What it said.
        problem: Box<ProblemBody>,
        /// When it said to come back.
        retry_after: Option<Duration>,
    },
    /// What answered does not speak as a registry does, or too much.
    #[error("what answered is no registry: {0}")]
    Nonsense(String),
}

impl ClientError {
    /// Whether of this client and the registry only one has a mesh secret, or each another: no time
    /// mends that.
    pub fn is_of_secret(&self) -> bool {
        match self {
            Self::NotOurs(_) => true,
            Self::Refused { problem, .. } => problem.code == SECRET_NEEDED,
            _ => false,
        }
    }
}

impl Client {
    /// A client of the registry at this URL, `http://HOST[:PORT]`, below a path if it must be.
    ///
    /// # Errors
    /// [`ClientError::Url`] when this cannot be the URL of a registry.
    pub fn new(url: &str) -> Result<Self, ClientError> {
        Self::with(url, "http", "http", None)
    }

    /// A client of the registry at this URL, `tls://HOST:PORT`, which has the same mesh secret: these
    /// are the keys of its registries.
    ///
    /// # Errors
    /// [`ClientError::Url`] when this cannot be the URL of a registry.
    pub fn sealed(url: &str, keys: &KeyRing) -> Result<Self, ClientError> {
        Self::with(url, "tls", "https", Some(keys))
    }

    fn with(
        url: &str,
        scheme: &str,
        spoken: &str,
        keys: Option<&KeyRing>,
    ) -> Result<Self, ClientError> {
        let invalid = |why| ClientError::Url {
            url: url.to_owned(),
            why,
        };
        let rest = url
            .strip_prefix(scheme)
            .filter(|rest| rest.starts_with("://"));
        let rest = rest.ok_or_else(|| {
            invalid(match keys {
                None => "it begins with http://, as in http://127.0.0.1:7171",
                Some(_) => "it begins with tls://, as in tls://127.0.0.1:7171",
            })
        })?;
        let parsed = Url::parse(&format!("{spoken}{rest}"));
        let parsed = parsed.map_err(|_| invalid("write http://HOST:PORT or tls://HOST:PORT"))?;
        if parsed.host_str().is_none_or(str::is_empty) || parsed.port() == Some(0) {
            return Err(invalid("it names a host, and a port that is not 0"));
        }
        if parsed.query().is_some() || parsed.fragment().is_some() || !parsed.username().is_empty()
        {
            return Err(invalid("it has no user, query or fragment"));
        }
        let http = Http::new(keys, |http| {
            http.no_proxy()
                .dns_resolver(Resolver::system())
                .redirect(reqwest::redirect::Policy::none())
                .connect_timeout(CONNECT_TIMEOUT)
                .pool_idle_timeout(IDLE_TIMEOUT)
                .tcp_nodelay(true)
        });
        let http = http.map_err(|_| invalid("no HTTP client could be made for it"))?;
        let asked = parsed.as_str().trim_end_matches('/').to_owned();
        Ok(Self {
            http,
            url: asked.replacen(spoken, scheme, 1),
            asked,
        })
    }

    /// The registry's URL, without a slash at its end.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Registers or renews: one verb for both, so there is nothing to remember after a failure.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn put(&self, id: &str, said: &Registration) -> Result<Registered, ClientError> {
        let request = self.node(Method::PUT, id)?.json(said);
        answer(request, BODY_BYTES_MAX).await
    }

    /// Takes a node out. That it was not there is no error.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn delete(&self, id: &str) -> Result<(), ClientError> {
        send(self.node(Method::DELETE, id)?).await.map(drop)
    }

    /// The list. With the token of a known one as `since`: at once if it is another now, else
    /// after `wait`, or at the first change within it.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn list(
        &self,
        since: Option<&str>,
        wait: Option<Duration>,
    ) -> Result<Listed, ClientError> {
        let mut query = Vec::new();
        query.extend(since.map(|token| ("since", token.to_owned())));
        query.extend(wait.map(|wait| ("wait", wait.as_secs_f64().to_string())));
        let url = Url::parse_with_params(&format!("{}/v1/nodes", self.asked), query)
            .map_err(|error| ClientError::Nonsense(error.to_string()))?;
        let timeout = LIST_TIMEOUT + wait.unwrap_or_default();
        let response = send(self.http.client().get(url).timeout(timeout)).await?;
        if response.status() == StatusCode::NOT_MODIFIED {
            return Ok(Listed::Unchanged);
        }
        read(response, LISTING_BYTES_MAX).await.map(Listed::Changed)
    }

    fn node(&self, method: Method, id: &str) -> Result<RequestBuilder, ClientError> {
        if !is_id(id) {
            return Err(ClientError::Id(id.to_owned()));
        }
        let url = format!("{}/v1/nodes/{id}", self.asked);
        Ok(self
            .http
            .client()
            .request(method, url)
            .timeout(CHANGE_TIMEOUT))
    }
}

async fn answer<T: DeserializeOwned>(
    request: RequestBuilder,
    bytes_max: usize,
) -> Result<T, ClientError> {
    read(send(request).await?, bytes_max).await
}

/// Sends, and makes an error of every status that is not a success or 304.
///
/// A kept connection may have been closed by the registry, at a restart for one, just before it is
/// used: all requests may be repeated, so this one is, once and at once.
async fn send(request: RequestBuilder) -> Result<Response, ClientError> {
    let again = request.try_clone();
    let response = match (request.send().await.map_err(broken), again) {
        (Err(ClientError::Interrupted(error)), Some(again)) if !error.is_timeout() => {
            again.send().await.map_err(broken)?
        }
        (outcome, _) => outcome?,
    };
    let status = response.status();
    if status.is_success() || status == StatusCode::NOT_MODIFIED {
        return Ok(response);
    }
    if !(status.is_client_error() || status.is_server_error()) {
        return Err(ClientError::Nonsense(format!("status {status}")));
    }
    let retry_after = response
        .headers()
        .get(header::RETRY_AFTER)
        .and_then(|value| value.to_str().ok()?.parse().ok())
        .map(Duration::from_secs);
    let mut problem = read(response, BODY_BYTES_MAX)
        .await
        .unwrap_or_else(|_| ProblemBody {
            kind: String::new(),
            title: String::new(),
            status: 0,
            code: String::new(),
            detail: "no reason given".to_owned(),
            retry_ms: None,
        });
    problem.status = status.as_u16();
    Err(ClientError::Refused {
        problem: Box::new(problem),
        retry_after,
    })
}

async fn read<T: DeserializeOwned>(response: Response, bytes_max: usize) -> Result<T, ClientError> {
    let body = of_answer(response, bytes_max).await.map_err(broken)?;
    let too_long = || ClientError::Nonsense(format!("its answer is over {bytes_max} bytes"));
    serde_json::from_slice(&body.ok_or_else(too_long)?)
        .map_err(|error| ClientError::Nonsense(error.to_string()))
}

fn broken(error: reqwest::Error) -> ClientError {
    // The URL is the configuration's: whoever logs the error names it once.
    let error = error.without_url();
    if let Some(why) = tls::refusal(&error) {
        ClientError::NotOurs(why.what())
    } else if error.is_connect() {
        ClientError::Unreachable(error)
    } else {
        ClientError::Interrupted(error)
    }
}

#[cfg(test)]
mod tests;
