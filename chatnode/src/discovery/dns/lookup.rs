//! Looking a name up: as the system does, or at a name server that is named, or for service records.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use base::resolver::Resolver;
use futures::{FutureExt as _, StreamExt as _};
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::{RData, RecordType};

use super::ADDRESSES_MAX;
use crate::discovery::url::DnsName;

/// A name server answers within this time, or is asked once more.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);
/// All that one lookup asks takes so long at the most.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(4);
/// How many hosts of service records are looked up at once.
const HOSTS_AT_ONCE: usize = 16;

/// The addresses of HTTP under a name, at least one. What the system has looked up lately counts, if it is
/// not older than `age`.
///
/// # Errors
/// There is none, or nobody can tell; one line for people.
pub(crate) async fn addresses(
    name: &DnsName,
    age: Duration,
) -> Result<BTreeSet<SocketAddr>, String> {
    let found = async {
        match (name.port, name.server) {
            (Some(port), None) => by_system(&name.name, port, age).await,
            (Some(port), Some(server)) => {
                let resolver = asking(server).map_err(|why| said(name, &why))?;
                hosts(&resolver, &name.name, port)
                    .await
                    .map_err(|why| said(name, &why))
            }
            (None, server) => {
                let resolver = match server {
                    Some(server) => asking(server),
                    None => as_system().await,
                };
                let resolver = resolver.map_err(|why| said(name, &why))?;
                services(&resolver, name).await
            }
        }
    };
    match tokio::time::timeout(LOOKUP_TIMEOUT, found).await {
        Ok(Ok(found)) if found.is_empty() => Err(format!("{} has no address", name.name)),
        Ok(found) => found,
        Err(_) => Err(format!("no name server answers for {}", name.name)),
    }
}

/// As all that runs here looks names up: in files, with search domains, by what else is set up.
async fn by_system(name: &str, port: u16, age: Duration) -> Result<BTreeSet<SocketAddr>, String> {
    let found = Resolver::system().lately(name, age).await;
    let found = found.map_err(|why| why.to_string())?;
    Ok(found.iter().map(|ip| (*ip, port).into()).collect())
}

/// A resolver that asks this server only.
fn asking(server: SocketAddr) -> Result<TokioResolver, NetError> {
    let mut ways = vec![ConnectionConfig::udp(), ConnectionConfig::tcp()];
    for way in &mut ways {
        way.port = server.port();
    }
    let server = NameServerConfig::new(server.ip(), true, ways);
    let config = ResolverConfig::from_name_servers(vec![server]);
    let provider = TokioRuntimeProvider::default();
    let mut builder = TokioResolver::builder_with_config(config, provider);
    set(builder.options_mut());
    // A file of names is for what the system looks up.
    builder.options_mut().use_hosts_file = ResolveHosts::Never;
    builder.build()
}

/// One that asks whom the system would ask. What it reads for that may change, and a disk may hang.
async fn as_system() -> Result<TokioResolver, NetError> {
    let built = tokio::task::spawn_blocking(|| {
        let mut builder = TokioResolver::builder_tokio()?;
        set(builder.options_mut());
        builder.build()
    });
    match built.await {
        Ok(built) => built,
        Err(_) => Err(NetError::Message("this node is stopping")),
    }
}

/// Each lookup asks anew.
fn set(options: &mut ResolverOpts) {
    options.cache_size = 0;
    options.timeout = ANSWER_TIMEOUT;
    options.attempts = 2;
}

/// The addresses of a host.
async fn hosts(
    resolver: &TokioResolver,
    host: &str,
    port: u16,
) -> Result<BTreeSet<SocketAddr>, NetError> {
    let found = resolver.lookup_ip(host).await?;
    Ok(found.iter().map(|ip| (ip, port).into()).collect())
}

/// The addresses of all hosts that service records name, as far as they have any.
async fn services(
    resolver: &TokioResolver,
    name: &DnsName,
) -> Result<BTreeSet<SocketAddr>, String> {
    let found = resolver.lookup(name.name.as_str(), RecordType::SRV).await;
    let found = found.map_err(|why| said(name, &why))?;
    let target = |data: &RData| match data {
        RData::SRV(srv) => Some((srv.target.to_utf8(), srv.port)),
        _ => None,
    };
    let targets = found
        .answers()
        .iter()
        .filter_map(|record| target(&record.data));
    let targets: BTreeSet<(String, u16)> = targets.take(ADDRESSES_MAX).collect();
    let lookups = targets.into_iter().map(|(host, port)| {
        let resolver = resolver.clone();
        async move { hosts(&resolver, &host, port).await }.boxed()
    });
    let mut lookups = futures::stream::iter(lookups).buffer_unordered(HOSTS_AT_ONCE);
    let (mut all, mut failed) = (BTreeSet::new(), None);
    while let Some(found) = lookups.next().await {
        match found {
            Ok(found) => all.extend(found),
            Err(why) => failed = Some(why),
        }
    }
    match failed {
        Some(why) if all.is_empty() => Err(said(name, &why)),
        _ => Ok(all),
    }
}

/// Why there is no address, in words of this program: the library's hold its own insides.
fn said(name: &DnsName, why: &NetError) -> String {
    let name = &name.name;
    match why {
        why if why.is_nx_domain() => format!("there is no name {name}"),
        why if why.is_no_records_found() => format!("{name} has no address"),
        NetError::Timeout => format!("no name server answers for {name}"),
        why => format!(
            "{name} cannot be looked up: {}",
            super::super::web::shown(&why.to_string())
        ),
    }
}
