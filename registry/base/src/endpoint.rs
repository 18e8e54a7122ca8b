//! Addresses that nodes tell each other: `tcp://HOST:PORT`, `tls://HOST:PORT` and
//! `http://HOST[:PORT]`, checked.
//!
//! A registry passes on what strangers say, and every node dials it. So an endpoint that could
//! mean "whatever is on your own machine" or "the cloud's metadata service", or nothing at all, is
//! refused at the door, here and again by the nodes that read a list.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// Longest endpoint, in bytes.
pub const ENDPOINT_BYTES_MAX: usize = 255;

/// What an endpoint speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scheme {
    /// `tcp://`, a ZeroMQ socket.
    Tcp,
    /// `tls://`, what programs with the mesh secret speak.
    Tls,
    /// `http://`.
    Http,
}

impl Scheme {
    fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Http => "http",
        }
    }
}

/// Where an endpoint is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Host {
    /// An IP address.
    Ip(IpAddr),
    /// A name, in lower case, to be resolved at every dial.
    Name(String),
}

/// A checked endpoint. Two that mean the same are equal and print alike.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    /// What it speaks.
    pub scheme: Scheme,
    /// Where it is.
    pub host: Host,
    /// Its port, never 0.
    pub port: u16,
}

/// Why an endpoint was refused: the rule that it breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("endpoint not allowed: {0}")]
pub struct InvalidEndpoint(pub &'static str);

impl FromStr for Endpoint {
    type Err = InvalidEndpoint;

    fn from_str(text: &str) -> Result<Self, InvalidEndpoint> {
        if text.len() > ENDPOINT_BYTES_MAX {
            return Err(InvalidEndpoint("at most 255 bytes"));
        }
        let schemes = [Scheme::Tcp, Scheme::Tls, Scheme::Http];
        let (scheme, rest) = schemes
            .into_iter()
            .find_map(|it| Some((it, text.strip_prefix(it.as_str())?.strip_prefix("://")?)))
            .ok_or(InvalidEndpoint("it begins with tcp://, tls:// or http://"))?;
        let authority = match scheme {
            Scheme::Tcp | Scheme::Tls => rest,
            Scheme::Http => rest.strip_suffix('/').unwrap_or(rest),
        };
        let (host, port) = split(authority)?;
        let port = match (port, scheme) {
            (Some(port), _) => port,
            (None, Scheme::Http) => 80,
            (None, Scheme::Tcp | Scheme::Tls) => return Err(InvalidEndpoint("it needs a port")),
        };
        if port == 0 {
            return Err(InvalidEndpoint("the port is 1 to 65535"));
        }
        if let Host::Ip(ip) = host {
            check_ip(ip)?;
        }
        Ok(Self { scheme, host, port })
    }
}

fn split(authority: &str) -> Result<(Host, Option<u16>), InvalidEndpoint> {
    let (host, port) = if let Some(rest) = authority.strip_prefix('[') {
        let (ip, port) = rest
            .split_once(']')
            .ok_or(InvalidEndpoint("'[' without ']'"))?;
        let ip: Ipv6Addr = ip
            .parse()
            .map_err(|_| InvalidEndpoint("not an IPv6 address"))?;
        let port = match port {
            "" => None,
            port => Some(
                port.strip_prefix(':')
                    .ok_or(InvalidEndpoint("no ':' after ']'"))?,
            ),
        };
        (Host::Ip(ip.into()), port)
    } else {
        let (host, port) = match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        };
        (parse_host(host)?, port)
    };
    // Only digits: "+80" parses as a number too.
    let digits = |port: &str| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
    let port = match port {
        None => None,
        Some(port) if digits(port) => Some(
            port.parse()
                .map_err(|_| InvalidEndpoint("the port is 1 to 65535"))?,
        ),
        Some(_) => return Err(InvalidEndpoint("the port is 1 to 65535")),
    };
    Ok((host, port))
}

fn parse_host(host: &str) -> Result<Host, InvalidEndpoint> {
    if let Ok(ip) = host.parse::<Ipv4Addr>() {
        return Ok(Host::Ip(ip.into()));
    }
    let label_is_good = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let name = host.strip_suffix('.').unwrap_or(host);
    if name.is_empty() || !name.split('.').all(label_is_good) {
        return Err(InvalidEndpoint("the host is an IP address or a host name"));
    }
    // Resolvers read "127.1", "0x7f.1" and "2130706433" as IPv4 addresses: such a name could be
    // any of those refused below.
    let last = name.rsplit('.').next().unwrap_or(name);
    if last.starts_with(|c: char| c.is_ascii_digit()) {
        return Err(InvalidEndpoint("an IPv4 address has four decimal parts"));
    }
    Ok(Host::Name(name.to_ascii_lowercase()))
}

fn check_ip(ip: IpAddr) -> Result<(), InvalidEndpoint> {
    let (link_local, mapped) = match ip {
        IpAddr::V4(v4) => (v4.is_link_local() || v4.is_broadcast(), false),
        IpAddr::V6(v6) => (
            v6.is_unicast_link_local(),
            v6.to_ipv4().is_some() && !v6.is_loopback(),
        ),
    };
    if ip.is_unspecified() {
        Err(InvalidEndpoint("an unspecified address cannot be dialled"))
    } else if ip.is_multicast() {
        Err(InvalidEndpoint("a multicast address cannot be dialled"))
    } else if mapped {
        Err(InvalidEndpoint("write an IPv4 address as such"))
    } else if link_local {
        Err(InvalidEndpoint(
            "link-local and broadcast addresses mean another host to each reader",
        ))
    } else {
        Ok(())
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(IpAddr::V6(ip)) => write!(f, "[{ip}]"),
            Self::Ip(IpAddr::V4(ip)) => ip.fmt(f),
            Self::Name(name) => f.write_str(name),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = self.scheme.as_str();
        write!(f, "{scheme}://{}:{}", self.host, self.port)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn good_endpoints_have_one_form() {
        for (text, form) in [
            ("tcp://127.0.0.1:5000", "tcp://127.0.0.1:5000"),
            ("tcp://[::1]:1", "tcp://[::1]:1"),
            ("tls://Node-1:7171", "tls://node-1:7171"),
            ("tcp://[2001:DB8::0:1]:65535", "tcp://[2001:db8::1]:65535"),
            ("http://10.0.0.7:8080/", "http://10.0.0.7:8080"),
            ("http://Node-1.Example.", "http://node-1.example:80"),
            ("tcp://chat_1:9", "tcp://chat_1:9"),
        ] {
            assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), form);
        }
    }

    #[test]
    fn endpoints_that_nobody_should_dial_are_refused() {
        let long = format!("tcp://{}:1", "a".repeat(255));
        for text in [
            "",
            "tcp",
            "tcp://",
            "http://",
            "http:///",
            "ipc:///etc/x",
            "https://a:1",
            "TCP://a:1",
            "tcp://a",
            "tls://a",
            "tls:a:1",
            "tcp://a:",
            "tcp://a:0",
            "tcp://a:99999",
            "tcp://a:+80",
            "tcp://a:8O",
            "tcp://:80",
            "tcp://*:80",
            "tcp://a:1/x",
            "tcp://a:1;tcp://b:2",
            "http://u:p@a:80",
            "http://u@a:80",
            "http://a:80/x",
            "http://a:80?x",
            "http://a#x",
            "tcp://a b:1",
            "tcp://-a:1",
            "tcp://a..b:1",
            "tcp://ä:1",
            "tcp://a\n:1",
            "tcp://0.0.0.0:1",
            "tcp://[::]:1",
            "tcp://224.0.0.1:1",
            "tcp://[ff02::1]:1",
            "tcp://255.255.255.255:1",
            "tcp://169.254.169.254:80",
            "tcp://[fe80::1]:1",
            "tcp://[fe80::1%eth0]:1",
            "tcp://[::ffff:127.0.0.1]:22",
            "tcp://[::127.0.0.1]:22",
            "tcp://::1:80",
            "tcp://127.1:1",
            "tcp://2130706433:1",
            "tcp://0x7f.0.0.0x1:1",
            "tcp://1.2.3.4.5:1",
            "tcp://[::1:1",
            &long,
        ] {
            assert!(text.parse::<Endpoint>().is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics_and_what_parses_prints_to_itself(text in "(tcp|tls|http)?(://)?\\PC{0,40}") {
            if let Ok(endpoint) = text.parse::<Endpoint>() {
                prop_assert_eq!(endpoint.to_string().parse::<Endpoint>(), Ok(endpoint));
            }
        }
    }
}
