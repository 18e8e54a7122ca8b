//! Dialling by address: names are looked up before, by the resolver that is bounded.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use base::resolver::Resolver;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

/// A dial gives up after this time, handshake included.
pub(crate) const DIAL_TIMEOUT: Duration = Duration::from_secs(2);
/// What is kept of the time of a dial for the connection itself, when a name has several addresses
/// and it is not known which of them answers.
const CONNECT_MIN: Duration = Duration::from_millis(300);

/// The endpoint with an address instead of a name, and how much of [`DIAL_TIMEOUT`] is left. What
/// is no endpoint with a name is left as it is: the dial says what is wrong with it.
pub(super) async fn by_address(endpoint: &str) -> Result<(String, Duration), String> {
    let Some((scheme, host, port)) = parts(endpoint) else {
        return Ok((endpoint.to_owned(), DIAL_TIMEOUT));
    };
    if host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok() {
        return Ok((endpoint.to_owned(), DIAL_TIMEOUT));
    }
    let begun = Instant::now();
    let addrs = Resolver::system().addresses(host).await;
    let addrs = addrs.map_err(|why| why.to_string())?;
    let addrs: Vec<SocketAddr> = addrs.iter().map(|ip| (*ip, port).into()).collect();
    let until = begun + DIAL_TIMEOUT - CONNECT_MIN;
    let addr = match addrs[..] {
        [] => return Err(format!("{host} has no address")),
        [only] => only,
        [first, ..] => match timeout_at(until, answering(&addrs)).await {
            Ok(Some(addr)) => addr,
            // None does now; the dial tries for a while.
            Ok(None) | Err(_) => first,
        },
    };
    let left = DIAL_TIMEOUT.saturating_sub(begun.elapsed());
    Ok((format!("{scheme}://{addr}"), left.max(CONNECT_MIN)))
}

/// The first address, in their order, where somebody listens.
async fn answering(addrs: &[SocketAddr]) -> Option<SocketAddr> {
    let tried = TcpStream::connect(addrs).await.ok()?;
    let remote = tried.peer_addr().ok()?;
    // A dial to a free port of this machine can connect to itself.
    (tried.local_addr().ok()? != remote).then_some(remote)
}

fn parts(endpoint: &str) -> Option<(&str, &str, u16)> {
    let (scheme, place) = endpoint.split_once("://")?;
    let (host, port) = place.rsplit_once(':')?;
    Some((scheme, host, port.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_name_becomes_an_address_and_all_else_is_left() {
        for as_it_is in [
            "tcp://127.0.0.1:9",
            "tcp://[::1]:9",
            "ipc://x",
            "tcp://x",
            "tcp://x:y",
        ] {
            let dialled = by_address(as_it_is).await;
            assert_eq!(dialled, Ok((as_it_is.to_owned(), DIAL_TIMEOUT)));
        }
        let (endpoint, left) = by_address("tcp://localhost:9").await.unwrap();
        assert!(
            ["tcp://127.0.0.1:9", "tcp://[::1]:9"].contains(&&*endpoint),
            "{endpoint}"
        );
        assert!(left >= CONNECT_MIN && left <= DIAL_TIMEOUT);
    }

    #[tokio::test]
    async fn of_several_addresses_the_one_that_answers_is_dialled() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let dead: SocketAddr = ([127, 9, 9, 9], addr.port()).into();
        assert_eq!(answering(&[dead, addr]).await, Some(addr));
        drop(listener);
        assert_eq!(answering(&[dead, addr]).await, None);
    }
}
