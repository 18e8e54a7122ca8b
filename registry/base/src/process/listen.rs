//! Addresses to listen on, as people write them.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Where to listen: `PORT` (on 127.0.0.1) or `ADDR:PORT`, IPv6 in brackets. Port 0 is any free one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListenAddr(SocketAddr);

impl ListenAddr {
    /// The address to bind.
    pub fn socket_addr(&self) -> SocketAddr {
        self.0
    }
}

impl std::str::FromStr for ListenAddr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(port) = text.parse::<u16>() {
            return Ok(Self((Ipv4Addr::LOCALHOST, port).into()));
        }
        if let Ok(addr) = text.parse() {
            return Ok(Self(addr));
        }
        if let Some(Ok(port)) = text.strip_prefix("localhost:").map(str::parse::<u16>) {
            return Ok(Self((Ipv4Addr::LOCALHOST, port).into()));
        }
        let bare = text.trim_start_matches('[').trim_end_matches(']');
        Err(match bare.parse::<IpAddr>() {
            Ok(IpAddr::V4(ip)) => format!("the port is missing, write {ip}:7171 or {ip}:0"),
            Ok(IpAddr::V6(ip)) => format!("the port is missing, write [{ip}]:7171 or [{ip}]:0"),
            Err(_) => "write a port (0 to 65535), or an IP address and a port, as in 8080, \
                       0.0.0.0:8080 or [::1]:0"
                .to_owned(),
        })
    }
}

impl std::fmt::Display for ListenAddr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}
