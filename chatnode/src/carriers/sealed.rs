//! What carries where there is a mesh secret: TLS between nodes, and ZeroMQ on loopback for foreign
//! programs, if a node is told to hear some (`--sub`).

use std::time::Duration;

use super::tls::TlsCarrier;
use super::zmq::ZmqCarrier;
use super::{Carrier, CarrierEvent, Command};
use crate::core::links::Speech;

/// Both carriers, as one.
#[derive(Debug)]
pub(crate) struct Sealed {
    /// Between nodes.
    pub(crate) tls: TlsCarrier,
    /// For foreign programs.
    pub(crate) plain: Option<ZmqCarrier>,
}

impl Carrier for Sealed {
    fn carry(&mut self, command: Command) {
        match (command, &mut self.plain) {
            (
                command @ (Command::PublishPlain(_) | Command::Dial(_, _, Speech::Plain)),
                Some(plain),
            ) => {
                plain.carry(command);
            }
            (Command::HangUp(link), Some(plain)) => {
                plain.carry(Command::HangUp(link));
                self.tls.carry(Command::HangUp(link));
            }
            (command, _) => self.tls.carry(command),
        }
    }

    async fn event(&mut self) -> CarrierEvent {
        let Some(plain) = &mut self.plain else {
            return self.tls.event().await;
        };
        // Both are cancel safe.
        tokio::select! {
            event = self.tls.event() => event,
            event = plain.event() => event,
        }
    }

    async fn close(self, grace: Duration) {
        let plain = async {
            if let Some(plain) = self.plain {
                plain.close(grace).await;
            }
        };
        tokio::join!(self.tls.close(grace), plain);
    }
}
