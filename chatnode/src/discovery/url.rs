//! What stands in `--discover`: where other nodes are found, beside a registry or in its place.

#[cfg(test)]
mod tests;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use ::url::Url;
use ::url::form_urlencoded;
use base::endpoint::{Endpoint, InvalidEndpoint};

/// Longest URL.
const URL_LEN_MAX: usize = 512;
/// Servers of one source.
const SERVERS_MAX: usize = 16;
/// Longest name of a service.
const SERVICE_LEN_MAX: usize = 63;
/// Longest prefix of keys.
const PREFIX_LEN_MAX: usize = 128;
/// Where Consul and etcd listen.
const CONSUL_PORT: u16 = 8500;
const ETCD_PORT: u16 = 2379;
/// Where DNS does.
const DNS_PORT: u16 = 53;

/// The forms, for people.
pub(crate) const FORMS: &str = "dns+HOST:PORT, dnssrv+_http._tcp.HOST, consul://HOST:8500/NAME, \
                                etcd://HOST:2379/PREFIX or registry+http://HOST:PORT";

/// Where nodes are found, but for registries.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum DiscoverUrl {
    /// A name of DNS.
    Dns(DnsName),
    /// Consul.
    Consul(Service),
    /// etcd.
    Etcd(Keys),
}

/// A name of DNS under which nodes are.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct DnsName {
    /// The name, as it is looked up.
    pub(crate) name: String,
    /// Where HTTP is at each address; unknown where service records tell it.
    pub(crate) port: Option<u16>,
    /// Who is asked; else whom the system asks.
    pub(crate) server: Option<SocketAddr>,
    shown: String,
}

/// A service of Consul.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Service {
    /// Where.
    pub(super) servers: Servers,
    /// What it is called.
    pub(super) name: String,
    /// What Consul is shown.
    pub(super) token: Option<String>,
}

/// Keys of etcd.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Keys {
    /// Where.
    pub(super) servers: Servers,
    /// How they begin.
    pub(super) prefix: String,
    /// Whom this node says to be there, and the password.
    pub(super) login: Option<(String, String)>,
}

/// Servers that know the same.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Servers {
    /// Each `http://HOST:PORT`, spoken to in TLS if so wanted.
    pub(super) all: Vec<Endpoint>,
    pub(super) tls: bool,
    /// The source's name in logs and views: its URL without secrets.
    pub(super) shown: String,
}

/// Why a URL was refused, without what was in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct InvalidUrl(String);

fn invalid<T>(why: impl Into<String>) -> Result<T, InvalidUrl> {
    Err(InvalidUrl(why.into()))
}

impl DiscoverUrl {
    /// The URL without secrets: the source's name in logs and views.
    pub(crate) fn shown(&self) -> &str {
        match self {
            Self::Dns(name) => &name.shown,
            Self::Consul(service) => &service.servers.shown,
            Self::Etcd(keys) => &keys.servers.shown,
        }
    }

    /// Whether nodes are listed there while they live. DNS knows addresses.
    pub(super) fn knows_who_lives(&self) -> bool {
        !matches!(self, Self::Dns(_))
    }

    /// Whether it is spoken to in TLS.
    pub(super) fn is_in_tls(&self) -> bool {
        match self {
            Self::Dns(_) => false,
            Self::Consul(service) => service.servers.tls,
            Self::Etcd(keys) => keys.servers.tls,
        }
    }

    /// The servers that are spoken to; of DNS it is the system's business.
    pub(crate) fn servers(&self) -> &[Endpoint] {
        match self {
            Self::Dns(_) => &[],
            Self::Consul(service) => &service.servers.all,
            Self::Etcd(keys) => &keys.servers.all,
        }
    }
}

impl FromStr for DiscoverUrl {
    type Err = InvalidUrl;

    fn from_str(text: &str) -> Result<Self, InvalidUrl> {
        if text.len() > URL_LEN_MAX {
            return invalid(format!("longer than {URL_LEN_MAX} bytes"));
        }
        let odd = |c: char| c.is_control() || c.is_whitespace() || matches!(c, '"' | '\\' | '#');
        if text.chars().any(odd) {
            return invalid("no space, control character, quotation mark, backslash or '#' in it");
        }
        for (scheme, has_port) in [("dns+", true), ("dnssrv+", false)] {
            if let Some(rest) = text.strip_prefix(scheme) {
                return dns(scheme, rest, has_port).map(Self::Dns);
            }
        }
        let Some((scheme, rest)) = text.split_once("://") else {
            return invalid(format!("expected {FORMS}"));
        };
        match scheme {
            "consul" | "consul+https" => consul(scheme, rest).map(Self::Consul),
            "etcd" | "etcd+https" => etcd(scheme, rest).map(Self::Etcd),
            _ => invalid(format!("expected {FORMS}")),
        }
    }
}

fn dns(scheme: &str, rest: &str, has_port: bool) -> Result<DnsName, InvalidUrl> {
    let (at, query) = match rest.split_once('?') {
        Some((at, query)) => (at, Some(query)),
        None => (rest, None),
    };
    let server = query.map(name_server).transpose()?;
    let expected = match has_port {
        true => "expected dns+HOST:PORT, where PORT is that of HTTP",
        false => "expected dnssrv+_PORT._tcp.HOST, where PORT is the name of HTTP's",
    };
    let (name, checked) = match at.rsplit_once(':') {
        Some((name, _)) if has_port => (name, format!("http://{at}")),
        None if !has_port => (at, format!("http://{at}:1")),
        _ => return invalid(expected),
    };
    let checked: Endpoint = checked
        .parse()
        .map_err(|InvalidEndpoint(why)| InvalidUrl(format!("{why}; {expected}")))?;
    let shown = match server {
        Some(server) => format!("{scheme}{at}?server={server}"),
        None => format!("{scheme}{at}"),
    };
    Ok(DnsName {
        name: name.to_owned(),
        port: has_port.then_some(checked.port),
        server,
        shown,
    })
}

/// `server=IP` or `server=IP:PORT`.
fn name_server(query: &str) -> Result<SocketAddr, InvalidUrl> {
    let at = query.strip_prefix("server=");
    let parsed = at.and_then(|at| match at.parse::<SocketAddr>() {
        Ok(addr) => Some(addr),
        Err(_) => {
            let ip = at.trim_matches(['[', ']']).parse::<IpAddr>().ok()?;
            Some(SocketAddr::new(ip, DNS_PORT))
        }
    });
    match parsed {
        Some(addr) if addr.port() > 0 => Ok(addr),
        _ => invalid("behind '?' only server=IP:PORT is meant, the name server that is asked"),
    }
}

fn consul(scheme: &str, rest: &str) -> Result<Service, InvalidUrl> {
    let parts = Parts::of(scheme, rest, CONSUL_PORT)?;
    if parts.servers.all.len() > 1 {
        return invalid("one agent; of several each has a --discover of its own");
    }
    let is_good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let name = parts.tail;
    if !(1..=SERVICE_LEN_MAX).contains(&name.len()) || !name.chars().all(is_good) {
        return invalid(
            "expected consul://HOST:8500/NAME, the name of a service: 1 to 63 letters, digits, '-', '_' \
             or '.'",
        );
    }
    let token = match parts.login {
        Some((token, password)) if password.is_empty() => Some(token),
        Some(_) => {
            return invalid("a token stands alone before '@', as in consul://TOKEN@HOST/NAME");
        }
        None => None,
    };
    if token.as_ref().is_some_and(|token| !is_header(token)) {
        return invalid("a token has no control characters, and is ASCII");
    }
    Ok(Service {
        servers: parts.servers,
        name: name.to_owned(),
        token,
    })
}

/// Whether a text can stand in a header of HTTP.
fn is_header(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_graphic() || b == b' ')
}

fn etcd(scheme: &str, rest: &str) -> Result<Keys, InvalidUrl> {
    let parts = Parts::of(scheme, rest, ETCD_PORT)?;
    let prefix = parts.tail.trim_end_matches('/');
    if !(1..=PREFIX_LEN_MAX).contains(&prefix.len()) {
        return invalid(
            "expected etcd://HOST:2379/PREFIX, how the keys of nodes begin: 1 to 128 bytes",
        );
    }
    if let Some((user, password)) = &parts.login
        && (user.is_empty() || password.is_empty())
    {
        return invalid("a user has a password, as in etcd://USER:PASSWORD@HOST/PREFIX");
    }
    Ok(Keys {
        prefix: prefix.to_owned(),
        servers: parts.servers,
        login: parts.login,
    })
}

/// A URL, taken apart.
struct Parts<'a> {
    servers: Servers,
    login: Option<(String, String)>,
    /// What stands behind the slash.
    tail: &'a str,
}

impl<'a> Parts<'a> {
    fn of(scheme: &str, rest: &'a str, port: u16) -> Result<Self, InvalidUrl> {
        if rest.contains('?') {
            return invalid("nothing is meant by what stands behind '?'");
        }
        let (authority, tail) = rest.split_once('/').unwrap_or((rest, ""));
        if tail.contains('%') {
            return invalid("no '%' may stand behind the slash");
        }
        let (login, hosts) = match authority.rsplit_once('@') {
            Some((login, hosts)) => (Some(login), hosts),
            None => (None, authority),
        };
        let login = login.map(self::login).transpose()?;
        let hosts: Vec<&str> = hosts.split(',').collect();
        if hosts.len() > SERVERS_MAX {
            return invalid(format!("at most {SERVERS_MAX} servers"));
        }
        let all: Vec<Endpoint> = hosts
            .iter()
            .map(|host| server(host, port))
            .collect::<Result<_, _>>()?;
        let listed: Vec<String> = all
            .iter()
            .map(|Endpoint { host, port, .. }| format!("{host}:{port}"))
            .collect();
        Ok(Self {
            servers: Servers {
                all,
                tls: scheme.ends_with("+https"),
                shown: format!("{scheme}://{}/{tail}", listed.join(",")),
            },
            login,
            tail,
        })
    }
}

/// What stands before '@': a name, and behind a colon a password.
fn login(text: &str) -> Result<(String, String), InvalidUrl> {
    // The parser of URLs finds where the one ends and the other begins, and writes odd characters as %XX.
    let unreadable = || InvalidUrl("what stands before '@' cannot be read".to_owned());
    let url = Url::parse(&format!("http://{text}@h/")).map_err(|_| unreadable())?;
    let decoded = |text: &str| {
        let text = text.replace('+', "%2B");
        let mut pairs = form_urlencoded::parse(text.as_bytes());
        match (pairs.next(), pairs.next()) {
            (Some((key, value)), None) if value.is_empty() => Ok(key.into_owned()),
            (None, None) => Ok(String::new()),
            _ => invalid("write '&' and '=' in a password as %26 and %3D"),
        }
    };
    Ok((
        decoded(url.username())?,
        decoded(url.password().unwrap_or_default())?,
    ))
}

fn server(host: &str, port: u16) -> Result<Endpoint, InvalidUrl> {
    let has_port = host
        .rsplit_once(':')
        .is_some_and(|(_, port)| !port.ends_with(']'));
    let whole = match has_port {
        true => format!("http://{host}"),
        false => format!("http://{host}:{port}"),
    };
    whole
        .parse()
        .map_err(|InvalidEndpoint(why)| InvalidUrl(format!("{host:?}: {why}")))
}

impl fmt::Debug for DiscoverUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.shown())
    }
}

impl fmt::Debug for Servers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.servers.shown)
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.servers.shown)
    }
}

impl fmt::Display for DiscoverUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.shown())
    }
}
