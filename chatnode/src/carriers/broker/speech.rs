//! Speaking and listening on a connection whose protocol is spoken here.

use std::sync::Arc;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, WriteHalf};
use tokio::sync::{Notify, mpsc, oneshot};

use super::net::Stream;
use crate::core::links::fault::{Fault, Why};

/// What is read at once.
const READ_LEN: usize = 16 << 10;
/// What waits to be written: who speaks waits until he was heard.
const SAYS_MAX: usize = 4;
/// So much is shown of what is not understood.
const SHOWN_LEN_MAX: usize = 100;

/// What is not understood: a part of it, for people.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Odd(pub(super) String);

impl Odd {
    pub(super) fn bytes(bytes: &[u8]) -> Self {
        let part = &bytes[..bytes.len().min(SHOWN_LEN_MAX)];
        let part = String::from_utf8_lossy(part);
        Self(part.trim_end().replace(char::is_control, " "))
    }
}

/// What was read and not yet understood.
pub(super) trait Unread {
    /// What servers of this kind are called.
    const ENGINE: &str;
    /// Something that such a server says.
    type Said;

    /// Where what is read goes.
    fn bytes(&mut self) -> &mut BytesMut;

    /// The next thing that was said, if it is here whole.
    fn next(&mut self) -> Result<Option<Self::Said>, Odd>;
}

/// What was read and is understood now, if there is something.
pub(super) fn said_already<U: Unread>(unread: &mut U) -> Result<Option<U::Said>, Fault> {
    unread.next().map_err(|Odd(what)| {
        let text = format!("what listens there is no {}; it says {what:?}", U::ENGINE);
        Fault::new(Why::NoBroker, text)
    })
}

/// All that is understood of what comes in such pieces, and what ends it.
#[cfg(test)]
pub(super) fn understood<'a, U: Unread>(
    mut unread: U,
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> (Vec<U::Said>, Option<Odd>) {
    let mut all = Vec::new();
    for piece in pieces {
        unread.bytes().extend_from_slice(piece);
        loop {
            match unread.next() {
                Ok(Some(said)) => all.push(said),
                Ok(None) => break,
                Err(odd) => return (all, Some(odd)),
            }
        }
    }
    (all, None)
}

/// The next thing that is said. Cancel safe.
pub(super) async fn said<U: Unread>(
    stream: &mut (impl AsyncRead + Unpin),
    unread: &mut U,
) -> Result<U::Said, Fault> {
    loop {
        if let Some(said) = said_already(unread)? {
            return Ok(said);
        }
        let bytes = unread.bytes();
        bytes.reserve(READ_LEN);
        if stream.read_buf(bytes).await.map_err(|why| cut(&why))? == 0 {
            return Err(Fault::new(Why::Ended, "the broker closed the connection"));
        }
    }
}

/// Says something.
pub(super) async fn write(
    stream: &mut (impl AsyncWrite + Unpin),
    bytes: &[u8],
) -> Result<(), Fault> {
    let written = async {
        stream.write_all(bytes).await?;
        stream.flush().await
    };
    written.await.map_err(|why| cut(&why))
}

fn cut(why: &std::io::Error) -> Fault {
    Fault::new(Why::Ended, format!("the connection ended: {why}"))
}

/// Bytes to be said, and who waits for it.
type Say = (Vec<u8>, oneshot::Sender<()>);

/// By which several say something on one connection, one after the other.
#[derive(Debug, Clone)]
pub(super) struct Mouth(mpsc::Sender<Say>);

impl Mouth {
    /// Waits until it is with the connection. When that has ended [`speak`] says why, and nothing goes on
    /// here.
    pub(super) async fn say(&self, bytes: Vec<u8>) {
        let (done, is_done) = oneshot::channel();
        if self.0.send((bytes, done)).await.is_err() || is_done.await.is_err() {
            std::future::pending().await
        }
    }
}

/// What several say on a connection: for whom it is to be said, and what says it until that fails. When it
/// is asked to, it gives a sign of life.
pub(super) fn speak(
    mut stream: WriteHalf<Box<dyn Stream>>,
    asked: Arc<Notify>,
    sign: &'static [u8],
) -> (Mouth, impl Future<Output = Fault> + Send + 'static) {
    let (mouth, mut says) = mpsc::channel::<Say>(SAYS_MAX);
    let speaking = async move {
        loop {
            // Both are cancel safe.
            let (bytes, done) = tokio::select! {
                () = asked.notified() => (sign.to_vec(), None),
                say = says.recv() => match say {
                    Some((bytes, done)) => (bytes, Some(done)),
                    None => return Fault::ended(),
                },
            };
            if let Err(fault) = write(&mut stream, &bytes).await {
                return fault;
            }
            if let Some(done) = done {
                // Who does not wait any more does not mind.
                let _ = done.send(());
            }
        }
    };
    (Mouth(mouth), speaking)
}
