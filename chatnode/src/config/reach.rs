//! What this node tells others of where it is, and whether that leads them here.
//!
//! An address on loopback leads each machine to itself. So a node that tells one to a registry or a
//! peer that other machines reach splits the mesh without a word: it is refused, before any port is
//! bound, with the ways out.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use base::endpoint::{Endpoint, Host};
use base::process::Failure;
use base::resolver::Resolver;
use registry::api::{ENDPOINT_HTTP, ENDPOINT_PUB, check_endpoint};

use super::{Checked, refuse};

/// The hosts that others are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Told {
    /// Where HTTP is.
    pub(crate) http: Host,
    /// Where PUB is.
    pub(crate) publisher: Host,
}

/// Where somebody is whom this node speaks to.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    /// On loopback: on this machine, and seen by nobody else.
    Here,
    /// On an address that other machines reach too.
    Beyond(SocketAddr),
    /// The name cannot be resolved.
    Unknown,
}

/// Somebody whom this node tells where it is.
#[derive(Debug)]
struct Other<'a> {
    flag: &'static str,
    endpoint: &'a Endpoint,
    place: Place,
}

impl Checked {
    /// What others are to be told.
    ///
    /// # Errors
    /// What would be told leads nobody here, or only those who are not asked. One line that says
    /// what, where, and how to mend it.
    pub(crate) async fn told(&self) -> Result<Told, Failure> {
        if !self.insecure_mesh {
            self.check_subs().await?;
        }
        let registries = self.registries.iter().map(|url| ("--registry", url));
        let peers = self.peers.iter().map(|endpoint| ("--peer", endpoint));
        let brokers = self.buses.brokers.iter().flat_map(|url| url.servers());
        let brokers = brokers.map(|endpoint| ("--bus", endpoint));
        let others = registries
            .chain(peers)
            .chain(brokers)
            .map(|(flag, endpoint)| async move {
                Other {
                    flag,
                    endpoint,
                    place: place(endpoint).await,
                }
            });
        let others = futures::future::join_all(others).await;
        self.check_brokers(&others)?;
        let host = self.host(&others).await?;
        let http = told_of(self.http, &host, self.advertise.is_some());
        let publisher = match self.is_published() {
            true => told_of(self.publisher, &host, self.advertise.is_some()),
            false => http.clone(),
        };
        let told = Told { http, publisher };
        for other in others.iter().filter(|other| other.place != Place::Here) {
            self.check_told(&told, other)?;
        }
        self.check_form(&told)?;
        Ok(told)
    }

    /// Whether others are told of a PUB socket: nodes meet without a broker, and in plain ZeroMQ.
    fn is_published(&self) -> bool {
        self.buses.direct && !self.is_sealed
    }

    /// On a broker that others reach, whoever may publish there can forge what a node says.
    fn check_brokers(&self, others: &[Other<'_>]) -> Result<(), Failure> {
        if self.is_sealed || self.insecure_mesh {
            return Ok(());
        }
        let mut brokers = others.iter().filter(|other| other.flag == "--bus");
        let Some(Other { endpoint, .. }) = brokers.find(|it| it.place != Place::Here) else {
            return Ok(());
        };
        let Endpoint { host, port, .. } = endpoint;
        refuse(format!(
            "--bus: {host}:{port} is not on this machine, and whoever may publish or subscribe there \
             could read and forge what nodes say: make a mesh secret (`chatnode secret > FILE`) and \
             give it to all nodes by --mesh-secret FILE; or add --insecure-mesh if all who reach that \
             broker are trusted"
        ))
    }

    /// Without `--insecure-mesh` nothing beyond loopback is heard.
    async fn check_subs(&self) -> Result<(), Failure> {
        for endpoint in &self.subs {
            if place(endpoint).await == Place::Here {
                continue;
            }
            let mend = if self.is_sealed {
                "with --mesh-secret foreign programs are heard on this machine only; hear it by a node \
                 without --mesh-secret"
            } else {
                "add --insecure-mesh if every program on that network is trusted"
            };
            return refuse(format!(
                "--sub {endpoint}: what comes from beyond this machine is neither encrypted nor \
                 authenticated, and can stop this node; {mend}"
            ));
        }
        Ok(())
    }

    /// The host that is told of what is bound to all addresses.
    async fn host(&self, others: &[Other<'_>]) -> Result<Host, Failure> {
        if let Some(host) = &self.advertise {
            return Ok(host.clone());
        }
        let publisher = if self.is_published() {
            self.publisher
        } else {
            self.http
        };
        let specific = [self.http, publisher].map(|bound| bound.ip());
        let any_wild = specific.iter().any(|ip| ip.is_unspecified());
        if !any_wild {
            return Ok(Host::Ip(self.http.ip()));
        }
        if let Some(ip) = specific.into_iter().find(is_beyond) {
            return Ok(Host::Ip(ip));
        }
        for other in others {
            if let Place::Beyond(remote) = other.place
                && let Some(ip) = local_address_towards(remote).await
                && !ip.is_loopback()
            {
                return Ok(Host::Ip(ip));
            }
        }
        match others.iter().find(|other| other.place != Place::Here) {
            Some(other) if other.place == Place::Unknown => refuse(other.unknown()),
            Some(Other { flag, endpoint, .. }) => refuse(format!(
                "{flag} {endpoint}: there is no way from this machine to there, so that it is not \
                 known by which address others find this node; say it with --advertise HOST"
            )),
            None if self.http.is_ipv6() => Ok(Host::Ip(Ipv6Addr::LOCALHOST.into())),
            None => Ok(Host::Ip(Ipv4Addr::LOCALHOST.into())),
        }
    }

    /// Whoever is not on loopback is told nothing that is.
    fn check_told(&self, told: &Told, other: &Other<'_>) -> Result<(), Failure> {
        let Other { flag, endpoint, .. } = other;
        let http = (&told.http, self.http);
        let publisher = match self.is_published() {
            true => (&told.publisher, self.publisher),
            false => http,
        };
        let Some((host, bound)) = [publisher, http]
            .into_iter()
            .find(|(host, _)| is_loopback(host))
        else {
            return Ok(());
        };
        if other.place == Place::Unknown && (self.insecure_mesh || self.is_sealed) {
            // Whoever trusts the network, or does not have to, vouches for its names too: a resolver may be
            // down at the start.
            tracing::warn!("{}", other.unknown());
            return Ok(());
        }
        if other.place == Place::Unknown {
            return refuse(other.unknown());
        }
        let what = format!(
            "{flag} {endpoint} is reached by other machines, and this node would tell them that it \
             is at {host}, where each finds itself"
        );
        let mend = if !self.insecure_mesh && !self.is_sealed {
            let port = self.http.port();
            let http = if self.http.ip().is_loopback() {
                format!(" and bind --http to an address that they reach, as in 0.0.0.0:{port},")
            } else {
                String::new()
            };
            format!(
                "make a mesh secret (`chatnode secret > FILE`), give it to all nodes and registries by \
                 --mesh-secret FILE{http} and write --registry tls://HOST:PORT; or add \
                 --insecure-mesh{http} if every program on that network is trusted (nothing between \
                 nodes is encrypted or authenticated then)"
            )
        } else if !bound.ip().is_loopback() {
            "give --advertise a host by which others find it".to_owned()
        } else if self.is_published() && bound == self.publisher && self.publisher != self.http {
            format!(
                "bind --pub to an address that they reach, as in 0.0.0.0:{}",
                bound.port()
            )
        } else {
            format!(
                "bind --http to an address that they reach, as in 0.0.0.0:{}",
                bound.port()
            )
        };
        refuse(format!("{what}: {mend}"))
    }

    /// What is told can be told: a registry takes it, and a peer dials it.
    fn check_form(&self, told: &Told) -> Result<(), Failure> {
        // The longest port: the real ones are known when they are bound.
        for (name, flag, bound, told) in [
            (
                ENDPOINT_HTTP,
                "--http",
                self.http,
                format!("http://{}:65535", told.http),
            ),
            (
                ENDPOINT_PUB,
                "--pub",
                if self.is_published() {
                    self.publisher
                } else {
                    self.http
                },
                format!("tcp://{}:65535", told.publisher),
            ),
        ] {
            if let Err(why) = check_endpoint(name, &told) {
                let (flag, text) = match &self.advertise {
                    Some(host) => ("--advertise", host.to_string()),
                    None => (flag, bound.to_string()),
                };
                return refuse(format!(
                    "{flag} {text}: others cannot be told {told}: {}; give --advertise a host by \
                     which they find this node",
                    why.0
                ));
            }
        }
        Ok(())
    }
}

impl Other<'_> {
    fn unknown(&self) -> String {
        let Self { flag, endpoint, .. } = self;
        format!(
            "{flag} {endpoint}: the name cannot be resolved now, so that it is not known whether \
             others there find this node by what it tells; write an address, or mend the name, or \
             say with --advertise HOST where others find this node (bound to what they reach)"
        )
    }
}

/// The host that is told of one port: the common one, unless it is bound to loopback. Who reaches
/// it there is on this machine, and what peers ask by HTTP must not go round by a proxy.
fn told_of(bound: SocketAddr, host: &Host, advertised: bool) -> Host {
    let ip = bound.ip();
    let own = ip.is_loopback() || !(advertised || ip.is_unspecified());
    if own { Host::Ip(ip) } else { host.clone() }
}

fn is_beyond(ip: &IpAddr) -> bool {
    !ip.is_loopback() && !ip.is_unspecified()
}

fn is_local_name(name: &str) -> bool {
    name == "localhost" || name.ends_with(".localhost")
}

fn is_loopback(host: &Host) -> bool {
    match host {
        Host::Ip(ip) => ip.is_loopback(),
        Host::Name(name) => is_local_name(name),
    }
}

async fn place(endpoint: &Endpoint) -> Place {
    let of = |ip: IpAddr| {
        if ip.to_canonical().is_loopback() {
            Place::Here
        } else {
            Place::Beyond(SocketAddr::new(ip, endpoint.port))
        }
    };
    let name = match &endpoint.host {
        Host::Ip(ip) => return of(*ip),
        Host::Name(name) if is_local_name(name) => return Place::Here,
        Host::Name(name) => name.as_str(),
    };
    let Ok(found) = Resolver::system().addresses(name).await else {
        return Place::Unknown;
    };
    let mut places = found.iter().map(|ip| of(*ip));
    match places.next() {
        None => Place::Unknown,
        Some(first) => places.find(|place| *place != Place::Here).unwrap_or(first),
    }
}

/// The local address of connections to there, which is where others on that network reach this
/// host. Sends nothing. `None` when there is no way there.
async fn local_address_towards(remote: SocketAddr) -> Option<IpAddr> {
    let any: IpAddr = match remote.ip() {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = tokio::net::UdpSocket::bind((any, 0)).await.ok()?;
    socket.connect(remote).await.ok()?;
    let local = socket.local_addr().ok()?.ip();
    (!local.is_unspecified()).then_some(local)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::config::Config;

    /// What a node tells that is started with these words.
    async fn told(args: &str) -> Result<(String, String), String> {
        let words = std::iter::once("chatnode").chain(args.split_whitespace());
        let config = Config::try_parse_from(words).map_err(|why| why.to_string())?;
        let checked = config.check().map_err(|why| why.to_string())?;
        let told = checked.told().await.map_err(|why| why.to_string())?;
        Ok((told.http.to_string(), told.publisher.to_string()))
    }

    #[tokio::test]
    async fn one_address_is_told_of_http_and_publisher() {
        let far = "--insecure-mesh --http 0.0.0.0:80 --advertise 192.0.2.7";
        for (args, host) in [
            // On one machine it is loopback.
            ("", "127.0.0.1"),
            ("--http 0.0.0.0:8080", "127.0.0.1"),
            ("--registry none", "127.0.0.1"),
            (
                "--registry http://localhost:7171 --peer tcp://127.0.0.9:1",
                "127.0.0.1",
            ),
            ("--sub 5001", "127.0.0.1"),
            ("--insecure-mesh", "127.0.0.1"),
            ("--http [::1]:0", "[::1]"),
            // An open mesh tells where it is.
            (
                &*format!("{far} --registry http://192.0.2.1:7171"),
                "192.0.2.7",
            ),
            (
                &*format!("{far} --registry http://no.such.host.invalid:1"),
                "192.0.2.7",
            ),
            (
                "--insecure-mesh --http 0.0.0.0:80 --pub 192.0.2.8:5000",
                "192.0.2.8",
            ),
        ] {
            let both = (host.to_owned(), host.to_owned());
            assert_eq!(told(args).await, Ok(both), "{args}");
        }
    }

    #[tokio::test]
    async fn a_name_that_nobody_knows_excuses_no_other() {
        let (unknown, far) = ("http://reg.invalid:7171", "http://192.0.2.1:7171");
        for [one, other] in [[unknown, far], [far, unknown]] {
            let args = format!("--insecure-mesh --registry {one} --registry {other}");
            let why = told(&args).await.unwrap_err();
            assert!(why.contains("192.0.2.1"), "{why}");
        }
    }

    /// 192.0.2.0/24 is nobody's: for documents.
    #[tokio::test]
    async fn what_leads_nobody_here_is_refused_with_the_way_out() {
        for (args, words) in [
            (
                "--registry http://192.0.2.1:7171",
                &["--registry", "192.0.2.1", "--insecure-mesh", "--http"][..],
            ),
            (
                "--http 0.0.0.0:8080 --registry http://192.0.2.1:7171",
                &["--registry", "--insecure-mesh"],
            ),
            (
                "--http 0.0.0.0:0 --registry http://127.0.0.1:1 --registry http://192.0.2.1:7171",
                &["192.0.2.1", "--insecure-mesh"],
            ),
            (
                "--http 0.0.0.0:0 --registry http://192.0.2.1:7171 --advertise 192.0.2.7",
                &["--insecure-mesh"],
            ),
            (
                "--registry none --peer tcp://192.0.2.1:5000",
                &["--peer", "--insecure-mesh"],
            ),
            ("--sub tcp://192.0.2.1:5000", &["--sub", "--insecure-mesh"]),
            (
                "--insecure-mesh --registry http://192.0.2.1:7171",
                &["--http", "0.0.0.0"],
            ),
            (
                "--insecure-mesh --http 0.0.0.0:80 --pub 127.0.0.1:5000 \
                 --registry http://192.0.2.1:7171 --advertise 192.0.2.7",
                &["bind --pub", "0.0.0.0:5000"],
            ),
            (
                "--insecure-mesh --http 0.0.0.0:80 --registry http://192.0.2.1:7171 \
                 --advertise localhost",
                &["--advertise"],
            ),
            (
                "--registry http://no.such.host.invalid:7171",
                &["--registry", "resolved", "--advertise"],
            ),
            (
                "--http 169.254.1.1:80 --insecure-mesh",
                &["--http", "link-local"],
            ),
        ] {
            let why = told(args).await.unwrap_err();
            for word in words {
                assert!(why.contains(word), "{args}: {word} is not in: {why}");
            }
            assert!(!why.contains('\n'), "{why}");
        }
    }

    #[tokio::test]
    async fn the_way_to_this_machine_is_from_here() {
        let here = SocketAddr::from(([127, 0, 0, 1], 7171));
        assert_eq!(local_address_towards(here).await, Some(here.ip()));
    }
}
