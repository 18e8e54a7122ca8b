//! A TCP proxy with faults, for where packets cannot be dropped.
//!
//! A black hole keeps every connection open, takes what comes and passes nothing on: no FIN, no
//! reset, as a peer behind a dead switch. Connections that lived through a black hole never pass
//! anything again, since bytes of theirs are lost; connections made after it do. The same holds for
//! a single direction: what comes from there is swallowed, the other direction passes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context as _, Result};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Duration, sleep, timeout};

use super::spawn;

/// What the proxy does with bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Pass,
    /// Passes each piece after this time.
    Delay(Duration),
    /// Passes each piece after a time of its own, up to this.
    Jitter(Duration),
    /// Passes so many bytes at a time, with this pause after them.
    Trickle(usize, Duration),
    /// Passes the first half of the next long piece, and closes.
    Tear,
    Hole,
    /// Swallows what the target says.
    Deaf,
    /// Swallows what the target is told.
    Mute,
    /// Closes every connection and takes no other.
    Cut,
}

/// A piece that is torn is at least so long: no header of a frame, but entries.
const TORN_MIN: usize = 256;

/// How many black holes there were in each direction, to the target and from it: a direction of a
/// connection is doomed if one came in its life.
type Holes = Arc<[AtomicU64; 2]>;

/// The directions of those.
const TO: usize = 0;
const FROM: usize = 1;

/// A proxy to one address; ends when dropped.
#[derive(Debug)]
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    mode: watch::Sender<Mode>,
    /// How many pieces were torn.
    tears: watch::Receiver<u64>,
    holes: Holes,
    accepting: JoinHandle<()>,
}

impl Proxy {
    /// A proxy on a free port of 127.0.0.1 that passes everything on to `target`.
    pub(crate) async fn to(target: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let mode = watch::Sender::new(Mode::Pass);
        let holes = Holes::default();
        let (modes, count) = (mode.subscribe(), Arc::clone(&holes));
        let (torn, tears) = watch::channel(0);
        let accepting = spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let connection = Connection {
                    modes: modes.clone(),
                    torn: torn.clone(),
                    born: [TO, FROM].map(|direction| count[direction].load(Ordering::SeqCst)),
                    doomed: match *modes.borrow() {
                        Mode::Deaf => [false, true],
                        Mode::Mute => [true, false],
                        _ => [false, false],
                    },
                    holes: Arc::clone(&count),
                };
                spawn(connection.carry(near, target));
            }
        });
        Ok(Self {
            address,
            mode,
            tears,
            holes,
            accepting,
        })
    }

    /// Passes everything on that is connected from now.
    pub(crate) fn pass(&self) {
        self.mode.send_replace(Mode::Pass);
    }

    /// Swallows everything, and keeps the connections open.
    pub(crate) fn black_hole(&self) {
        self.dig(&[TO, FROM], Mode::Hole);
    }

    /// Swallows what the target says, and keeps the connections open.
    pub(crate) fn deafen(&self) {
        self.dig(&[FROM], Mode::Deaf);
    }

    /// Swallows what the target is told, and keeps the connections open.
    pub(crate) fn mute(&self) {
        self.dig(&[TO], Mode::Mute);
    }

    fn dig(&self, directions: &[usize], mode: Mode) {
        for &direction in directions {
            self.holes[direction].fetch_add(1, Ordering::SeqCst);
        }
        self.mode.send_replace(mode);
    }

    /// Closes all connections, and every one to come.
    pub(crate) fn cut(&self) {
        self.mode.send_replace(Mode::Cut);
    }

    /// Passes everything on, late.
    pub(crate) fn delay(&self, by: Duration) {
        self.mode.send_replace(Mode::Delay(by));
    }

    /// Passes everything on, each piece late by another time.
    pub(crate) fn jitter(&self, by_at_most: Duration) {
        self.mode.send_replace(Mode::Jitter(by_at_most));
    }

    /// Passes everything on, a few bytes at a time.
    pub(crate) fn trickle(&self, bytes: usize, pause: Duration) {
        self.mode.send_replace(Mode::Trickle(bytes, pause));
    }

    /// Waits for a piece of some length, passes its first half, closes that connection, and passes
    /// everything on that is connected after it.
    pub(crate) async fn tear(&self, within: Duration) -> Result<()> {
        let mut tears = self.tears.clone();
        let before = *tears.borrow_and_update();
        self.mode.send_replace(Mode::Tear);
        let torn = timeout(within, tears.wait_for(|&count| count > before)).await;
        self.mode.send_replace(Mode::Pass);
        torn.context("no piece long enough to be torn")??;
        Ok(())
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.mode.send_replace(Mode::Cut);
    }
}

#[derive(Clone)]
struct Connection {
    modes: watch::Receiver<Mode>,
    torn: watch::Sender<u64>,
    /// How many holes there were before it.
    born: [u64; 2],
    /// Which directions were swallowed when it was made.
    doomed: [bool; 2],
    holes: Holes,
}

impl Connection {
    async fn carry(self, near: TcpStream, target: SocketAddr) {
        if *self.modes.borrow() == Mode::Cut {
            return;
        }
        let doomed = *self.modes.borrow() == Mode::Hole;
        if doomed {
            // Accepted, and nobody there: held until it is cut.
            let mut modes = self.modes.clone();
            let _ended = modes.wait_for(|&mode| mode == Mode::Cut).await;
            drop(near);
            return;
        }
        let Ok(far) = TcpStream::connect(target).await else {
            return;
        };
        let _fast = (near.set_nodelay(true), far.set_nodelay(true));
        let (near_in, near_out) = near.into_split();
        let (far_in, far_out) = far.into_split();
        let mut modes = self.modes.clone();
        tokio::select! {
            ((), ()) = async {
                tokio::join!(
                    self.clone().pump(TO, near_in, far_out),
                    self.clone().pump(FROM, far_in, near_out)
                )
            } => {}
            _ = modes.wait_for(|&mode| mode == Mode::Cut) => {}
        }
    }

    async fn pump(self, direction: usize, mut from: OwnedReadHalf, mut to: OwnedWriteHalf) {
        let mut buffer = vec![0; 16 * 1024];
        loop {
            let count = from.read(&mut buffer).await.unwrap_or(0);
            let dug = self.holes[direction].load(Ordering::SeqCst) != self.born[direction];
            let lost = dug || self.doomed[direction];
            if count == 0 {
                if lost {
                    // The end of a connection is swallowed as well: the other side sees no FIN.
                    std::future::pending::<()>().await;
                }
                return;
            }
            if lost {
                continue;
            }
            let mode = *self.modes.borrow();
            let piece = &buffer[..count];
            let passed = match mode {
                Mode::Delay(by) => {
                    sleep(by).await;
                    to.write_all(piece).await
                }
                Mode::Jitter(by) => {
                    sleep(by.mul_f64(rand::random())).await;
                    to.write_all(piece).await
                }
                Mode::Trickle(bytes, pause) => trickle(&mut to, piece, bytes, pause).await,
                Mode::Tear if count >= TORN_MIN => {
                    // Both halves of this direction are dropped: the hearer sees the end in the
                    // middle of a frame, and ends the other direction.
                    let _gone = to.write_all(&piece[..count / 2]).await;
                    self.torn.send_modify(|count| *count += 1);
                    return;
                }
                Mode::Pass | Mode::Tear | Mode::Hole | Mode::Deaf | Mode::Mute | Mode::Cut => {
                    to.write_all(piece).await
                }
            };
            if passed.is_err() {
                return;
            }
        }
    }
}

async fn trickle(
    to: &mut OwnedWriteHalf,
    piece: &[u8],
    bytes: usize,
    pause: Duration,
) -> std::io::Result<()> {
    for few in piece.chunks(bytes) {
        to.write_all(few).await?;
        sleep(pause).await;
    }
    Ok(())
}
