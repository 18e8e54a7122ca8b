//! What this node tells others of where it is, and whether that leads them here.
//!
//! An address on loopback leads each machine to itself. So a node that tells one to a registry or a
//! peer that other machines reach splits the mesh without a word: it is refused, before any port is
//! bound, with the ways out.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use base::endpoint::{Endpoint, Host};
use base::process::Failure;
use base::resolver::{LOOKUP_WAIT_MAX, Resolver};
use registry::api::{ENDPOINT_HTTP, ENDPOINT_PUB, check_endpoint};

use super::{Checked, refuse};
use crate::discovery::dns;
use crate::discovery::url::{DiscoverUrl, DnsName};

/// Nobody is there (RFC 5737): the way to it is the way out of this machine.
const ELSEWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 9);

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
struct Other {
    flag: &'static str,
    /// What stands behind the flag, without secrets.
    url: String,
    place: Place,
    /// Its name has an address when the first node runs, and may have none before.
    comes_late: bool,
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
        let others = registries.chain(peers).chain(brokers);
        let others = others.map(|(flag, endpoint)| (flag, endpoint.to_string(), endpoint));
        let sources = self.discover.iter().flat_map(|url| {
            let servers = url.servers().iter();
            servers.map(|endpoint| ("--discover", url.shown().to_owned(), endpoint))
        });
        let others = others
            .chain(sources)
            .map(|(flag, url, endpoint)| async move {
                Other {
                    flag,
                    url,
                    place: place(endpoint).await,
                    comes_late: false,
                }
            });
        let names = self.discover.iter().filter_map(|url| match url {
            DiscoverUrl::Dns(name) => Some((url.shown(), name)),
            DiscoverUrl::Consul(_) | DiscoverUrl::Etcd(_) => None,
        });
        let names = names.map(|(url, name)| async move {
            Other {
                flag: "--discover",
                url: url.to_owned(),
                place: place_of_all(name).await,
                comes_late: true,
            }
        });
        let others = futures::future::join_all(others);
        let (mut others, names) =
            futures::future::join(others, futures::future::join_all(names)).await;
        others.extend(names);
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
    fn check_brokers(&self, others: &[Other]) -> Result<(), Failure> {
        if self.is_sealed || self.insecure_mesh {
            return Ok(());
        }
        let mut brokers = others.iter().filter(|other| other.flag == "--bus");
        let Some(Other { url, .. }) = brokers.find(|it| it.place != Place::Here) else {
            return Ok(());
        };
        let at = url.split_once("://").map_or(url.as_str(), |(_, at)| at);
        refuse(format!(
            "--bus: {at} is not on this machine, and whoever may publish or subscribe there \
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
    async fn host(&self, others: &[Other]) -> Result<Host, Failure> {
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
        let far = others.iter().find(|other| other.place != Place::Here);
        if far.is_some_and(Other::is_late)
            && let Some(ip) = local_address_towards(ELSEWHERE).await
        {
            return Ok(Host::Ip(ip));
        }
        match far {
            Some(other) if other.place == Place::Unknown => refuse(other.unknown()),
            Some(Other { flag, url, .. }) => refuse(format!(
                "{flag} {url}: there is no way from this machine to there, so that it is not \
                 known by which address others find this node; say it with --advertise HOST"
            )),
            None if self.http.is_ipv6() => Ok(Host::Ip(Ipv6Addr::LOCALHOST.into())),
            None => Ok(Host::Ip(Ipv4Addr::LOCALHOST.into())),
        }
    }

    /// Whoever is not on loopback is told nothing that is.
    fn check_told(&self, told: &Told, other: &Other) -> Result<(), Failure> {
        let Other { flag, url, .. } = other;
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
        let is_trusted = self.insecure_mesh || self.is_sealed;
        let is_inside = other.is_late() && self.http.ip().is_loopback();
        if other.place == Place::Unknown && (is_trusted || is_inside) {
            // Whoever trusts the network, or does not have to, vouches for its names too: a resolver may be
            // down at the start. A name that leads to nodes may have no address before they run; whoever is
            // there and cannot reach this one refuses it, and that is shown.
            tracing::warn!("{}", other.unknown());
            return Ok(());
        }
        if other.place == Place::Unknown && !other.comes_late {
            return refuse(other.unknown());
        }
        let what = format!(
            "{flag} {url} is reached by other machines, and this node would tell them that it \
             is at {host}, where each finds itself"
        );
        let mend = if !self.insecure_mesh && !self.is_sealed {
            let port = self.http.port();
            let http = if self.http.ip().is_loopback() {
                format!(" and bind --http to an address that they reach, as in 0.0.0.0:{port},")
            } else {
                String::new()
            };
            let tls = match other.flag {
                "--discover" => "",
                _ => " and write --registry tls://HOST:PORT",
            };
            format!(
                "make a mesh secret (`chatnode secret > FILE`), give it to all nodes and registries by \
                 --mesh-secret FILE{http}{tls}; or add --insecure-mesh{http} if every program on that network is trusted (nothing between \
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

impl Other {
    /// Whether there is no address yet, and that is as it may be.
    fn is_late(&self) -> bool {
        self.comes_late && self.place == Place::Unknown
    }

    fn unknown(&self) -> String {
        let Self { flag, url, .. } = self;
        format!(
            "{flag} {url}: the name cannot be resolved now, so that it is not known whether \
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

/// Where the nodes are to which a name leads.
async fn place_of_all(name: &DnsName) -> Place {
    let found = dns::addresses(name, LOOKUP_WAIT_MAX);
    let Ok(Ok(found)) = tokio::time::timeout(LOOKUP_WAIT_MAX, found).await else {
        return Place::Unknown;
    };
    let beyond = found
        .into_iter()
        .find(|addr| is_beyond(&addr.ip().to_canonical()));
    beyond.map_or(Place::Here, Place::Beyond)
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
mod tests;
