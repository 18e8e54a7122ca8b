//! The URL of a broker: what engine it is, where, and what it is shown to be let in.

mod engines;
#[cfg(test)]
mod tests;

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use ::url::Url;
use ::url::form_urlencoded;
use base::endpoint::{Endpoint, Host, InvalidEndpoint};

/// Longest URL as it is shown: with a node's origin behind it, it is an endpoint of the mesh.
const SHOWN_LEN_MAX: usize = 200;
/// Servers of one broker.
const SERVERS_MAX: usize = 16;

/// What speaks there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Engine {
    /// Redis, Valkey, and what else speaks their protocol.
    Redis,
    /// NATS.
    Nats,
    /// RabbitMQ, and what else speaks AMQP 0-9-1.
    Amqp,
    /// A proxy of ZeroMQ.
    Proxy,
}

impl Engine {
    /// Its name among the carriers.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Redis => "redis",
            Self::Nats => "nats",
            Self::Amqp => "amqp",
            Self::Proxy => "zmq+proxy",
        }
    }
}

/// Where it is.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// One of these servers.
    Servers(Vec<Endpoint>),
    /// A socket in the file system.
    Socket(PathBuf),
    /// Where sentinels say.
    Sentinels(Watch),
    /// A part of a server.
    Vhost(Vhost),
}

/// A part of a server, as if it were one of its own.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Vhost {
    pub(super) servers: Vec<Endpoint>,
    pub(super) name: String,
    /// Seconds after which a silent node is taken to be gone; 0 is never.
    pub(super) heartbeat: u16,
}

/// A primary, and who knows where it is.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Watch {
    pub(super) sentinels: Vec<Endpoint>,
    /// What they call it.
    pub(super) name: String,
    /// What they are shown.
    pub(super) login: Login,
}

impl Place {
    pub(super) fn servers(&self) -> &[Endpoint] {
        match self {
            Self::Servers(servers) => servers,
            Self::Sentinels(watch) => &watch.sentinels,
            Self::Vhost(vhost) => &vhost.servers,
            Self::Socket(_) => &[],
        }
    }
}

/// Who this node says to be.
#[derive(Clone, PartialEq, Eq, Default)]
pub(super) struct Login {
    pub(super) user: Option<String>,
    pub(super) password: Option<String>,
}

/// A broker's URL. Secrets in it are never printed.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct BrokerUrl {
    engine: Engine,
    pub(super) place: Place,
    pub(super) tls: bool,
    pub(super) login: Login,
    shown: String,
}

/// Why a URL was refused, without what was in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct InvalidUrl(String);

impl InvalidUrl {
    /// With this line.
    pub(super) fn of(why: impl Into<String>) -> Self {
        Self(why.into())
    }
}

fn invalid<T>(why: impl Into<String>) -> Result<T, InvalidUrl> {
    Err(InvalidUrl(why.into()))
}

/// How a scheme is written, what it means.
struct Form {
    scheme: &'static str,
    engine: Engine,
    port: u16,
    tls: bool,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Server,
    Socket,
    Sentinels,
    Cluster,
    Vhost,
    Proxy,
}

const FORMS: &[Form] = &[
    Form::of(Engine::Redis, "redis", 6379, Kind::Server),
    Form::of(Engine::Redis, "rediss", 6379, Kind::Server).in_tls(),
    Form::of(Engine::Redis, "valkey", 6379, Kind::Server),
    Form::of(Engine::Redis, "valkeys", 6379, Kind::Server).in_tls(),
    Form::of(Engine::Redis, "redis+unix", 0, Kind::Socket),
    Form::of(Engine::Redis, "redis+sentinel", 26_379, Kind::Sentinels),
    Form::of(Engine::Nats, "nats", 4222, Kind::Cluster),
    Form::of(Engine::Nats, "tls+nats", 4222, Kind::Cluster).in_tls(),
    Form::of(Engine::Amqp, "amqp", 5672, Kind::Vhost),
    Form::of(Engine::Amqp, "amqps", 5671, Kind::Vhost).in_tls(),
    Form::of(Engine::Proxy, "zmq+proxy", 0, Kind::Proxy),
];

impl Form {
    const fn of(engine: Engine, scheme: &'static str, port: u16, kind: Kind) -> Self {
        Self {
            scheme,
            engine,
            port,
            tls: false,
            kind,
        }
    }

    const fn in_tls(self) -> Self {
        Self { tls: true, ..self }
    }
}

/// The schemes of brokers, for people.
pub(crate) const SCHEMES: &str = "redis://HOST[:PORT], rediss://HOST[:PORT], valkey://HOST[:PORT], \
                                  redis+unix:///PATH, redis+sentinel://HOST[:PORT]/NAME, \
                                  nats://HOST[:PORT][,HOST...], amqp://HOST[:PORT][/VHOST] or \
                                  zmq+proxy://HOST:PORT,PORT";

impl BrokerUrl {
    /// What speaks there.
    pub(crate) fn engine(&self) -> Engine {
        self.engine
    }

    /// The URL without secrets: the broker's name in links, logs and views.
    pub(crate) fn shown(&self) -> &str {
        &self.shown
    }

    /// Whether it is on this machine, as far as the URL tells.
    pub(crate) fn is_here(&self) -> bool {
        self.servers().iter().all(|server| match &server.host {
            Host::Ip(ip) => ip.is_loopback(),
            Host::Name(name) => name == "localhost",
        })
    }

    /// Whether what goes there is encrypted.
    pub(crate) fn is_in_tls(&self) -> bool {
        self.tls
    }

    /// The servers that are dialled; none for a socket of this machine.
    pub(crate) fn servers(&self) -> &[Endpoint] {
        self.place.servers()
    }
}

impl FromStr for BrokerUrl {
    type Err = InvalidUrl;

    fn from_str(text: &str) -> Result<Self, InvalidUrl> {
        let known = text.split_once("://").and_then(|(scheme, rest)| {
            let form = FORMS.iter().find(|form| form.scheme == scheme)?;
            Some((form, rest))
        });
        let Some((form, rest)) = known else {
            return invalid(format!("expected zmq, {SCHEMES}"));
        };
        if rest.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return invalid("it holds a space or a control character");
        }
        // Several servers stand between commas, which no URL has in its host.
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, tail) = rest.split_at(end);
        let (login, hosts) = authority.rsplit_once('@').map_or(("", authority), |it| it);
        let hosts: Vec<&str> = hosts.split(',').collect();
        let at = if login.is_empty() { "" } else { "@" };
        let url = format!("{}://{login}{at}{}{tail}", form.scheme, hosts[0]);
        let url = Url::parse(&url).map_err(|why| InvalidUrl(format!("no URL: {why}")))?;
        if url.fragment().is_some() {
            return invalid("nothing is meant by what stands behind '#'");
        }
        let mut parts = Parts {
            form,
            login: Login::of(&url)?,
            query: Query::of(&url),
            path: url.path(),
            hosts,
        };
        let (place, shown) = match form.kind {
            Kind::Server => parts.server()?,
            Kind::Socket => parts.socket()?,
            Kind::Sentinels => parts.sentinels()?,
            Kind::Cluster => parts.cluster()?,
            Kind::Vhost => parts.vhost()?,
            Kind::Proxy => parts.proxy()?,
        };
        parts.query.is_used_up()?;
        let login = parts.login;
        if shown.contains(['"', '\\']) {
            return invalid("no quotation mark or backslash may be in it");
        }
        if shown.len() > SHOWN_LEN_MAX {
            return invalid(format!("longer than {SHOWN_LEN_MAX} bytes"));
        }
        Ok(Self {
            engine: form.engine,
            place,
            tls: form.tls,
            login,
            shown,
        })
    }
}

/// A URL, taken apart.
struct Parts<'a> {
    form: &'static Form,
    login: Login,
    hosts: Vec<&'a str>,
    path: &'a str,
    query: Query,
}

impl Parts<'_> {
    /// Where one server is, and how that is shown.
    fn server(&self) -> Result<(Place, String), InvalidUrl> {
        if self.hosts.len() > 1 {
            return invalid(
                "one server; of several independent ones each has a --bus of its own, and what \
                 Sentinel watches is redis+sentinel://",
            );
        }
        if !matches!(self.path, "" | "/" | "/0") {
            return invalid(
                "publish and subscribe know no numbered databases: leave out what stands behind the \
                 port (--mesh NAME keeps meshes apart)",
            );
        }
        let servers = servers(&self.hosts, self.form.port)?;
        let shown = format!("{}://{}", self.form.scheme, listed(&servers));
        Ok((Place::Servers(servers), shown))
    }

    fn socket(&mut self) -> Result<(Place, String), InvalidUrl> {
        if self.hosts.concat() != "" {
            return invalid("expected redis+unix:///PATH, with three slashes");
        }
        let Self { login, query, .. } = self;
        login.user = query.take("user").or(login.user.take());
        login.password = query.take("pass").or(login.password.take());
        let path = decoded(self.path)?;
        let shown = format!("{}://{path}", self.form.scheme);
        Ok((Place::Socket(path.into()), shown))
    }

    fn sentinels(&mut self) -> Result<(Place, String), InvalidUrl> {
        let more = self.query.take_all("addr");
        let more = more.iter().map(String::as_str);
        let hosts: Vec<&str> = self.hosts.iter().copied().chain(more).collect();
        let path = decoded(self.path.trim_start_matches('/'))?;
        let name = self.query.take("sentinel_master_name");
        let Some(name) = name.or_else(|| (!path.is_empty()).then_some(path)) else {
            return invalid("which primary? As in redis+sentinel://HOST:26379/mymaster");
        };
        let sentinels = servers(&hosts, self.form.port)?;
        let shown = format!("{}://{}/{name}", self.form.scheme, listed(&sentinels));
        let login = Login {
            user: self.query.take("sentinel_user"),
            password: self.query.take("sentinel_password"),
        };
        let watch = Watch {
            sentinels,
            name,
            login,
        };
        Ok((Place::Sentinels(watch), shown))
    }
}

impl Login {
    fn of(url: &Url) -> Result<Self, InvalidUrl> {
        let given = |text: &str| (!text.is_empty()).then(|| decoded(text)).transpose();
        Ok(Self {
            user: given(url.username())?,
            password: given(url.password().unwrap_or_default())?,
        })
    }
}

/// What stands behind the question mark; whatever is not meant is refused.
struct Query(Vec<(String, String)>);

impl Query {
    fn of(url: &Url) -> Self {
        let pairs = url.query_pairs();
        Self(
            pairs
                .map(|(key, value)| (key.into_owned(), value.into_owned()))
                .collect(),
        )
    }

    fn take_all(&mut self, wanted: &str) -> Vec<String> {
        let (taken, left) = std::mem::take(&mut self.0)
            .into_iter()
            .partition(|(key, _)| key == wanted);
        self.0 = left;
        let taken: Vec<(String, String)> = taken;
        taken.into_iter().map(|(_, value)| value).collect()
    }

    fn take(&mut self, wanted: &str) -> Option<String> {
        self.take_all(wanted).pop()
    }

    fn is_used_up(&self) -> Result<(), InvalidUrl> {
        match self.0.first() {
            None => Ok(()),
            Some((key, _)) => invalid(format!("nothing is meant by {key:?} behind '?'")),
        }
    }
}

pub(super) fn decoded(text: &str) -> Result<String, InvalidUrl> {
    // A plus is a plus outside of a query.
    let text = text.replace('+', "%2B");
    let mut pairs = form_urlencoded::parse(text.as_bytes());
    // What has '&' or '=' in it is no single key.
    match (pairs.next(), pairs.next()) {
        (Some((key, value)), None) if value.is_empty() => Ok(key.into_owned()),
        (None, None) => Ok(String::new()),
        _ => invalid("write '&' and '=' in it as %26 and %3D"),
    }
}

fn servers(hosts: &[&str], port: u16) -> Result<Vec<Endpoint>, InvalidUrl> {
    if hosts.len() > SERVERS_MAX {
        return invalid(format!("at most {SERVERS_MAX} servers"));
    }
    hosts.iter().map(|host| server(host, port)).collect()
}

fn server(host: &str, port: u16) -> Result<Endpoint, InvalidUrl> {
    let has_port = host
        .rsplit_once(':')
        .is_some_and(|(_, port)| !port.ends_with(']'));
    let whole = match has_port {
        true => format!("tcp://{host}"),
        false => format!("tcp://{host}:{port}"),
    };
    whole
        .parse()
        .map_err(|InvalidEndpoint(why)| InvalidUrl(format!("{host:?}: {why}")))
}

fn listed(servers: &[Endpoint]) -> String {
    let each: Vec<String> = servers
        .iter()
        .map(|Endpoint { host, port, .. }| format!("{host}:{port}"))
        .collect();
    each.join(",")
}

impl fmt::Debug for BrokerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl fmt::Display for BrokerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}
