//! What stands in a flag or a variable, parsed.

use std::net::IpAddr;

use base::endpoint::{Endpoint, Host, InvalidEndpoint, Scheme};
use base::process::Failure;

use super::refuse;
use crate::http::hosts;

/// A chatnode: `tls://HOST:PORT` with a mesh secret, `tcp://HOST:PORT` without.
pub(super) fn peer(text: &str, is_sealed: bool) -> Result<Endpoint, Failure> {
    let (scheme, other, hint) = if is_sealed {
        let hint = "tls://HOST:PORT, as nodes with --mesh-secret say in their ready line";
        (Scheme::Tls, Scheme::Tcp, hint)
    } else {
        (Scheme::Tcp, Scheme::Tls, "tcp://HOST:PORT")
    };
    match text.parse::<Endpoint>() {
        Ok(endpoint) if endpoint.scheme == scheme => Ok(endpoint),
        Ok(endpoint) if endpoint.scheme == other && !is_sealed => refuse(format!(
            "--peer {text:?}: that node has a mesh secret; give this one the same --mesh-secret file"
        )),
        Ok(_) => refuse(format!("--peer {text:?}: expected {hint}")),
        Err(InvalidEndpoint(why)) => refuse(format!("--peer {text:?}: {why}; expected {hint}")),
    }
}

/// A foreign publisher: `tcp://HOST:PORT`, or a port on this machine.
pub(super) fn sub(text: &str) -> Result<Endpoint, Failure> {
    let full = match text.parse::<u16>() {
        Ok(port) => format!("tcp://127.0.0.1:{port}"),
        Err(_) => text.to_owned(),
    };
    let hint = "a port or tcp://HOST:PORT";
    match full.parse::<Endpoint>() {
        Ok(endpoint) if endpoint.scheme == Scheme::Tcp => Ok(endpoint),
        Ok(_) => refuse(format!("--sub {text:?}: expected {hint}")),
        Err(InvalidEndpoint(why)) => refuse(format!("--sub {text:?}: {why}; expected {hint}")),
    }
}

/// A host that others can be told.
pub(super) fn advertised(text: &str) -> Result<Host, Failure> {
    let ip = text.trim_matches(['[', ']']).parse::<IpAddr>();
    let endpoint = match ip {
        Ok(IpAddr::V6(ip)) => format!("tcp://[{ip}]:1"),
        _ => format!("tcp://{text}:1"),
    };
    match endpoint.parse::<Endpoint>() {
        Ok(endpoint) => Ok(endpoint.host),
        // Only of an address is the rule that it breaks the whole truth.
        Err(InvalidEndpoint(why)) if ip.is_ok() => refuse(format!("--advertise {text:?}: {why}")),
        Err(_) => refuse(format!(
            "--advertise {text:?}: expected a host name or an IP address that others can reach, \
             without scheme, port or path"
        )),
    }
}

/// The URL of a registry: `tls://HOST:PORT` with a mesh secret, `http://HOST[:PORT]` without.
pub(super) fn registry(flag: &str, text: &str, is_sealed: bool) -> Result<Endpoint, Failure> {
    let refused = |why: &str| refuse(format!("{flag} {text:?}: {why}"));
    match (text.split_once("://").map(|(scheme, _)| scheme), is_sealed) {
        (Some("tls"), true) => match text.trim_end_matches('/').parse::<Endpoint>() {
            Ok(endpoint) => Ok(endpoint),
            Err(InvalidEndpoint(why)) => refused(&format!(
                "{why}; expected a URL such as tls://127.0.0.1:7171"
            )),
        },
        (Some("http" | "https"), true) => refused(
            "with --mesh-secret a registry is tls://HOST:PORT, and is started with --mesh-secret too",
        ),
        (_, true) => refused("expected a URL such as tls://127.0.0.1:7171"),
        (Some("tls"), false) => refused(
            "that registry has a mesh secret; give this node the same file with --mesh-secret",
        ),
        (Some("https"), false) => refused(
            "a registry is http://HOST:PORT, as in http://127.0.0.1:7171; with --mesh-secret FILE on \
             it and on all nodes it is tls://HOST:PORT",
        ),
        (_, false) => {
            let origin = web_origin(flag, text)?;
            match origin.parse::<Endpoint>() {
                Ok(endpoint) => Ok(endpoint),
                Err(InvalidEndpoint(why)) => refused(&format!(
                    "{why}; expected a URL such as http://127.0.0.1:7171"
                )),
            }
        }
    }
}

/// A web origin, as browsers write it.
pub(super) fn web_origin(flag: &str, text: &str) -> Result<String, Failure> {
    match hosts::parse_web_origin(text) {
        Some(origin) => Ok(origin),
        None => refuse(format!(
            "{flag} {text:?}: expected a URL such as http://127.0.0.1:7171, without user, path or \
             query"
        )),
    }
}
