//! A forwarder of libzmq: what comes from any publisher goes to all subscribers.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use e2e::{SYSTEM_PYTHON, ZMQ_PROXY};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use zeromq::{Socket as _, SocketRecv as _, SubSocket};

use super::overheard::{Overheard, Overhears};
use super::server::{Server, folder};
use super::{Broker, here};
use crate::harness::tools::free_port;

/// The first byte of a peer that speaks ZMTP.
const GREETING: u8 = 0xff;

/// A forwarder. Keeps nothing.
#[derive(Debug)]
pub(crate) struct ZmqProxy {
    server: Server,
    /// Where publishers come, and where subscribers do.
    ports: [u16; 2],
}

impl ZmqProxy {
    pub(crate) async fn start() -> Result<Self> {
        let ports = [free_port()?, free_port()?];
        let mut args = vec!["-c".to_owned(), ZMQ_PROXY.to_owned()];
        args.extend(ports.map(|port| port.to_string()));
        let server = Server::own(SYSTEM_PYTHON, &args, folder("zmq")?);
        let mut proxy = Self { server, ports };
        let started = proxy.again().await;
        started.context("if python3-zmq is missing, run scripts/setup")?;
        Ok(proxy)
    }
}

impl Overhears for SubSocket {
    async fn next(&mut self) -> Result<Vec<u8>> {
        let message = self.recv().await?;
        Ok(message.get(1).context("one part")?.to_vec())
    }
}

impl Broker for ZmqProxy {
    fn server(&mut self) -> &mut Server {
        &mut self.server
    }

    fn addresses(&self) -> Vec<SocketAddr> {
        self.ports.map(here).to_vec()
    }

    fn url_at(&self, addresses: &[SocketAddr]) -> String {
        format!("zmq+proxy://{},{}", addresses[0], addresses[1].port())
    }

    async fn overheard(&self) -> Result<Overheard> {
        let mut hears = SubSocket::new();
        hears
            .connect(&format!("tcp://{}", here(self.ports[1])))
            .await?;
        hears.subscribe("").await?;
        Ok(Overheard::by(hears))
    }

    async fn answers(&self) -> Result<()> {
        for address in self.addresses() {
            let first = TcpStream::connect(address).await?.read_u8().await?;
            ensure!(first == GREETING, "it greets by {first}");
        }
        Ok(())
    }
}
