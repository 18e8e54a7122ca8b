//! A TCP proxy before a publisher that loses whole frames, or keeps them back, while the
//! connection stands.
//!
//! A publisher writes its frames whole and they are small, so what one read brings are whole
//! frames: dropping it leaves a stream that is sound and has a hole. What is kept back here is safe
//! when the publisher is stopped or dies.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Result, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::eventually::eventually;
use super::{PATIENCE, spawn};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gate {
    Open,
    /// Drops what comes.
    Waste,
    /// Keeps what comes until it is open.
    Shut,
}

/// What came through one connection while the gate was not open: for looking at.
type Caught = Arc<Mutex<Vec<u8>>>;

/// Such a proxy; ends when dropped.
#[derive(Debug)]
pub(crate) struct Sluice {
    pub(crate) address: SocketAddr,
    gate: watch::Sender<Gate>,
    caught: Arc<Mutex<Vec<Caught>>>,
    accepting: JoinHandle<()>,
}

impl Sluice {
    /// An open one before this publisher, on a free port of 127.0.0.1.
    pub(crate) async fn before(publisher: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let gate = watch::Sender::new(Gate::Open);
        let caught: Arc<Mutex<Vec<Caught>>> = Arc::default();
        let (gates, all) = (gate.subscribe(), Arc::clone(&caught));
        let accepting = spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let kept = Caught::default();
                let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
                all.push(Arc::clone(&kept));
                drop(all);
                spawn(carry(near, publisher, gates.clone(), kept));
            }
        });
        Ok(Self {
            address,
            gate,
            caught,
            accepting,
        })
    }

    /// From now on, and what was kept back, passes.
    pub(crate) fn open(&self) {
        self.gate.send_replace(Gate::Open);
    }

    /// Loses what comes from now on.
    pub(crate) fn waste(&self) {
        self.gate.send_replace(Gate::Waste);
    }

    /// Keeps back what comes from now on.
    pub(crate) fn shut(&self) {
        self.gate.send_replace(Gate::Shut);
    }

    /// Waits until so many connections have lost, or keep back, a frame with this text.
    pub(crate) async fn has_caught(&self, text: &str, connections: usize) -> Result<()> {
        let what = format!("{connections} connections caught {text:?}");
        eventually(PATIENCE, &what, async || {
            let all = self.caught.lock().unwrap_or_else(PoisonError::into_inner);
            let has = |caught: &&Caught| {
                let bytes = caught.lock().unwrap_or_else(PoisonError::into_inner);
                bytes
                    .windows(text.len())
                    .any(|part| part == text.as_bytes())
            };
            let count = all.iter().filter(has).count();
            ensure!(count == connections, "{count} of {}", all.len());
            Ok(())
        })
        .await
    }
}

impl Drop for Sluice {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn carry(near: TcpStream, far: SocketAddr, mut gate: watch::Receiver<Gate>, kept: Caught) {
    let Ok(far) = TcpStream::connect(far).await else {
        return;
    };
    let _fast = (near.set_nodelay(true), far.set_nodelay(true));
    let (mut near_in, mut near_out) = near.into_split();
    let (mut far_in, mut far_out) = far.into_split();
    // The subscriber's end is the connection's.
    let asks = copy(&mut near_in, &mut far_out);
    let tells = async {
        let mut buffer = vec![0; 64 << 10];
        let mut waiting: Vec<u8> = Vec::new();
        loop {
            tokio::select! {
                read = far_in.read(&mut buffer) => {
                    let count = read.unwrap_or(0);
                    let state = *gate.borrow();
                    if state != Gate::Open {
                        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                        kept.extend_from_slice(&buffer[..count]);
                    }
                    match state {
                        Gate::Waste => {}
                        Gate::Open | Gate::Shut => waiting.extend_from_slice(&buffer[..count]),
                    }
                    if count == 0 {
                        break;
                    }
                }
                changed = gate.changed() => if changed.is_err() {
                    break;
                },
            }
            if *gate.borrow() == Gate::Open {
                let sent = near_out.write_all(&std::mem::take(&mut waiting)).await;
                if sent.is_err() {
                    break;
                }
            }
        }
    };
    tokio::select! {
        _ = asks => {}
        () = tells => {}
    }
}
