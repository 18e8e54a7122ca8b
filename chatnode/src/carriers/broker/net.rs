//! Connections to brokers: by address, with an end, in TLS where the URL says so.

use std::io;
use std::path::Path;
use std::time::Duration;

use base::endpoint::{Endpoint, Host};
use base::resolver::Resolver;
use base::tls::by_authorities;
use rustls::CertificateError;
use rustls::pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use crate::core::links::fault::{Fault, Why};

/// A broker that has taken nothing for so long, though there is something, is cut off.
const SEND_TIMEOUT: Duration = Duration::from_secs(5);
/// An idle connection is probed after this time.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(5);
/// Time between probes.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(1);
/// Probes without an answer that end a connection.
const KEEPALIVE_COUNT: u32 = 3;

/// A connection of whatever kind.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// Connects to a server, in TLS if so wanted. The caller bounds the time.
pub(super) async fn tcp(server: &Endpoint, tls: bool) -> Result<Box<dyn Stream>, Fault> {
    let stream = connected(server).await?;
    if tls {
        in_tls(server, stream).await
    } else {
        Ok(Box::new(stream))
    }
}

/// Connects to a server. The caller bounds the time.
pub(super) async fn connected(server: &Endpoint) -> Result<TcpStream, Fault> {
    let Endpoint { host, port, .. } = server;
    let addrs = match host {
        Host::Ip(ip) => vec![*ip],
        Host::Name(name) => {
            let found = Resolver::system().addresses(name).await;
            found.map_err(|why| no_way(server, &why))?.to_vec()
        }
    };
    let addrs: Vec<_> = addrs.into_iter().map(|ip| (ip, *port).into()).collect();
    let stream = TcpStream::connect(&addrs[..]).await;
    let stream = stream.map_err(|why| not_connected(server, &why))?;
    if stream.local_addr().ok() == stream.peer_addr().ok() {
        // A dial to a free port of this machine can connect to itself.
        return Err(not_connected(
            server,
            &io::ErrorKind::ConnectionRefused.into(),
        ));
    }
    bound(&stream).map_err(|why| no_way(server, &why))?;
    Ok(stream)
}

/// Connects to a socket of this machine.
pub(super) async fn unix(path: &Path) -> Result<Box<dyn Stream>, Fault> {
    match UnixStream::connect(path).await {
        Ok(stream) => Ok(Box::new(stream)),
        Err(why) => Err(Fault::new(
            Why::Refused,
            format!("no way to {}: {why}", path.display()),
        )),
    }
}

/// What a broker does not take is given up after a time, and so is one that is not there any more.
fn bound(stream: &TcpStream) -> io::Result<()> {
    let socket = SockRef::from(stream);
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_user_timeout(Some(SEND_TIMEOUT))?;
    socket.set_tcp_keepalive(
        &TcpKeepalive::new()
            .with_time(KEEPALIVE_IDLE)
            .with_interval(KEEPALIVE_INTERVAL)
            .with_retries(KEEPALIVE_COUNT),
    )
}

fn not_connected(server: &Endpoint, why: &io::Error) -> Fault {
    match why.kind() {
        io::ErrorKind::ConnectionRefused => Fault::refused(),
        _ => no_way(server, why),
    }
}

fn no_way(server: &Endpoint, why: &dyn std::fmt::Display) -> Fault {
    let Endpoint { host, port, .. } = server;
    Fault::new(Why::Unreachable, format!("no way to {host}:{port}: {why}"))
}

/// Goes on in TLS 1.2 or 1.3, by the authorities that this machine trusts: a broker is not of this mesh.
pub(super) async fn in_tls(server: &Endpoint, stream: TcpStream) -> Result<Box<dyn Stream>, Fault> {
    let failed = |why: &dyn std::fmt::Display| {
        let text = format!("no TLS with the broker: {why}");
        Fault::new(Why::NotSealed, text)
    };
    let config = by_authorities().map_err(|why| failed(&why))?;
    let name = match &server.host {
        Host::Ip(ip) => ServerName::from(*ip),
        Host::Name(name) => ServerName::try_from(name.clone()).map_err(|why| failed(&why))?,
    };
    let connected = TlsConnector::from(config).connect(name, stream).await;
    Ok(Box::new(connected.map_err(|why| match is_untrusted(&why) {
        true => failed(
            &"its certificate is of no authority that this machine trusts; SSL_CERT_FILE names others",
        ),
        false => failed(&why),
    })?))
}

/// Whether nobody who is trusted has signed the certificate; the library says that in words of its own.
fn is_untrusted(why: &io::Error) -> bool {
    let inner = why.get_ref().and_then(|inner| inner.downcast_ref());
    matches!(
        inner,
        Some(rustls::Error::InvalidCertificate(
            CertificateError::UnknownIssuer
        ))
    )
}
