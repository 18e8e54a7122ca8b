//! What stands in a flag or a variable, parsed.

use std::net::IpAddr;

use base::endpoint::{Endpoint, Host, InvalidEndpoint};
use base::process::Failure;

use super::refuse;
use crate::http::hosts;

/// `tcp://HOST:PORT`, or, where `bare_port` says so, a port alone.
pub(super) fn endpoint(flag: &str, text: &str, bare_port: bool) -> Result<Endpoint, Failure> {
    let full = match text.parse::<u16>() {
        Ok(port) if bare_port => format!("tcp://127.0.0.1:{port}"),
        _ => text.to_owned(),
    };
    let hint = if bare_port {
        "a port or tcp://HOST:PORT"
    } else {
        "tcp://HOST:PORT"
    };
    match full.parse::<Endpoint>() {
        Ok(endpoint) if full.starts_with("tcp://") => Ok(endpoint),
        Ok(_) => refuse(format!("{flag} {text:?}: expected {hint}")),
        Err(InvalidEndpoint(why)) => refuse(format!("{flag} {text:?}: {why}; expected {hint}")),
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

/// The URL of a registry: `http://HOST[:PORT]`.
pub(super) fn registry(text: &str) -> Result<Endpoint, Failure> {
    if text.starts_with("https://") {
        return refuse(format!(
            "--registry {text:?}: a registry speaks no TLS; write http://HOST:PORT, as in \
             http://127.0.0.1:7171"
        ));
    }
    let origin = web_origin("--registry", text)?;
    match origin.parse::<Endpoint>() {
        Ok(endpoint) => Ok(endpoint),
        Err(InvalidEndpoint(why)) => refuse(format!(
            "--registry {text:?}: {why}; expected a URL such as http://127.0.0.1:7171"
        )),
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
