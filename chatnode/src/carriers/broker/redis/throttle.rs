//! A connection that is read no faster than what came on it is taken.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use futures::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::carriers::broker::channels::MESSAGE_LEN_MAX;

/// Bytes that may have been read and not been taken.
const UNTAKEN_BYTES_MAX: usize = 4 << 20;
/// Bytes of one message: the longest of ours, what stands around it, and a part of the next. A longer one
/// is a stranger's, and the library would hold it whole.
const UNFINISHED_BYTES_MAX: usize = UNTAKEN_BYTES_MAX + 2 * MESSAGE_LEN_MAX;

/// What was read, as far as it was not taken.
#[derive(Debug, Default)]
pub(super) struct Gate {
    untaken: AtomicUsize,
    /// Bytes read since the last message was taken.
    unfinished: AtomicUsize,
    waits: AtomicWaker,
}

impl Gate {
    /// Nothing waits any more that has come whole.
    pub(super) fn all_is_taken(&self) {
        if self.untaken.swap(0, Ordering::Relaxed) > UNTAKEN_BYTES_MAX {
            self.waits.wake();
        }
    }

    /// A message was taken.
    pub(super) fn one_is_taken(&self) {
        self.unfinished.store(0, Ordering::Relaxed);
    }

    fn is_full(&self) -> bool {
        self.untaken.load(Ordering::Relaxed) > UNTAKEN_BYTES_MAX
    }

    fn came(&self, bytes: usize) -> io::Result<()> {
        self.untaken.fetch_add(bytes, Ordering::Relaxed);
        if self.unfinished.fetch_add(bytes, Ordering::Relaxed) > UNFINISHED_BYTES_MAX {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "a message there is longer than any of ours",
            ));
        }
        Ok(())
    }
}

/// The connection.
#[derive(Debug)]
pub(super) struct Throttled<S> {
    stream: S,
    gate: Arc<Gate>,
}

impl<S> Throttled<S> {
    pub(super) fn new(stream: S, gate: Arc<Gate>) -> Self {
        Self { stream, gate }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Throttled<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.gate.is_full() {
            self.gate.waits.register(cx.waker());
            if self.gate.is_full() {
                return Poll::Pending;
            }
        }
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if let Poll::Ready(Ok(())) = read {
            self.gate.came(buf.filled().len() - before)?;
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Throttled<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use tokio::io::AsyncReadExt as _;
    use tokio::task::unconstrained;

    use super::*;

    const PIECE: usize = 64 << 10;

    /// Reads until nothing comes; how much it was.
    async fn read_on(stream: &mut Throttled<tokio::io::Repeat>) -> io::Result<usize> {
        let mut buf = vec![0; PIECE];
        let mut sum = 0;
        while let Some(read) = unconstrained(stream.read(&mut buf)).now_or_never() {
            sum += read?;
        }
        Ok(sum)
    }

    #[tokio::test]
    async fn no_more_is_read_than_is_taken_and_no_endless_message() {
        let gate = Arc::new(Gate::default());
        let mut stream = Throttled::new(tokio::io::repeat(0), Arc::clone(&gate));
        let first = read_on(&mut stream).await.unwrap();
        assert!((UNTAKEN_BYTES_MAX..UNTAKEN_BYTES_MAX + 2 * PIECE).contains(&first));
        assert_eq!(read_on(&mut stream).await.unwrap(), 0);
        gate.one_is_taken();
        gate.all_is_taken();
        assert!(read_on(&mut stream).await.unwrap() >= UNTAKEN_BYTES_MAX);
        // All that came is taken, and yet no message was whole.
        gate.all_is_taken();
        let why = read_on(&mut stream).await.unwrap_err();
        assert_eq!(why.kind(), io::ErrorKind::InvalidData);
    }
}
