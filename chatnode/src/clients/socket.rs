//! What carries a client's bytes: the kernel's socket. The simulator has a pipe in memory in its place, and
//! so has what is built for tests; the program has no choice, and pays for none.

use mio::Token;
use mio::event::Event;
#[cfg(not(test))]
pub(crate) use mio::net::TcpStream as Socket;

#[cfg(test)]
pub(crate) use self::pipe::{Pipe, Socket};

/// What is told of a socket.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Told {
    /// Of which, as it was registered.
    pub(crate) token: Token,
    /// It may have something.
    pub(crate) readable: bool,
    /// It may have room.
    pub(crate) writable: bool,
    /// Nothing more will come.
    pub(crate) ended: bool,
}

impl From<&Event> for Told {
    fn from(event: &Event) -> Self {
        Self {
            token: event.token(),
            readable: event.is_readable(),
            writable: event.is_writable(),
            ended: event.is_read_closed() || event.is_error(),
        }
    }
}

#[cfg(test)]
mod pipe {
    use std::io::{self, ErrorKind, IoSlice, Read, Write};
    use std::net::Shutdown;
    use std::sync::{Arc, Mutex, MutexGuard};

    use mio::event::Source;
    use mio::net::TcpStream;
    use mio::{Interest, Registry, Token};

    /// One or the other.
    #[derive(Debug)]
    pub(crate) enum Socket {
        Kernel(TcpStream),
        Pipe(Pipe),
    }

    impl From<TcpStream> for Socket {
        fn from(socket: TcpStream) -> Self {
            Self::Kernel(socket)
        }
    }

    impl From<Pipe> for Socket {
        fn from(pipe: Pipe) -> Self {
            Self::Pipe(pipe)
        }
    }

    /// A pipe in memory, in both directions. Both ends hold it; nobody tells when it is ready.
    #[derive(Debug, Clone, Default)]
    pub(crate) struct Pipe(Arc<Mutex<Ways>>);

    /// What is in it.
    #[derive(Debug, Default)]
    pub(crate) struct Ways {
        /// On its way to the node.
        pub(crate) said: Vec<u8>,
        /// The client writes no more,
        pub(crate) left: bool,
        /// and reads no more.
        pub(crate) broken: bool,
        /// On its way to the client,
        pub(crate) told: Vec<u8>,
        /// so many bytes at the most.
        pub(crate) room: usize,
        /// The node writes no more.
        pub(crate) ended: bool,
        /// As what the node has registered it.
        pub(crate) token: Option<Token>,
    }

    impl Pipe {
        /// Looks into it.
        pub(crate) fn ways(&self) -> MutexGuard<'_, Ways> {
            self.0.lock().expect("nobody panics with it")
        }

        /// Whether the node has dropped its end.
        pub(crate) fn is_dropped(&self) -> bool {
            Arc::strong_count(&self.0) == 1
        }
    }

    impl Socket {
        pub(crate) fn shutdown(&self, how: Shutdown) -> io::Result<()> {
            match self {
                Self::Kernel(socket) => socket.shutdown(how),
                Self::Pipe(pipe) => {
                    pipe.ways().ended = true;
                    Ok(())
                }
            }
        }
    }

    impl Read for Socket {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let pipe = match self {
                Self::Kernel(socket) => return socket.read(buffer),
                Self::Pipe(pipe) => pipe,
            };
            let mut ways = pipe.ways();
            if ways.said.is_empty() && !ways.left {
                return Err(ErrorKind::WouldBlock.into());
            }
            let count = ways.said.len().min(buffer.len());
            buffer[..count].copy_from_slice(&ways.said[..count]);
            ways.said.drain(..count);
            Ok(count)
        }
    }

    impl Write for Socket {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.write_vectored(&[IoSlice::new(bytes)])
        }

        fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
            let pipe = match self {
                Self::Kernel(socket) => return socket.write_vectored(slices),
                Self::Pipe(pipe) => pipe,
            };
            let mut ways = pipe.ways();
            if ways.broken {
                return Err(ErrorKind::BrokenPipe.into());
            }
            let before = ways.told.len();
            for slice in slices {
                let count = slice.len().min(ways.room - ways.told.len());
                ways.told.extend_from_slice(&slice[..count]);
            }
            match ways.told.len() - before {
                0 => Err(ErrorKind::WouldBlock.into()),
                count => Ok(count),
            }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Source for Socket {
        fn register(&mut self, by: &Registry, token: Token, what: Interest) -> io::Result<()> {
            match self {
                Self::Kernel(socket) => socket.register(by, token, what),
                Self::Pipe(pipe) => {
                    pipe.ways().token = Some(token);
                    Ok(())
                }
            }
        }

        fn reregister(&mut self, by: &Registry, token: Token, what: Interest) -> io::Result<()> {
            self.register(by, token, what)
        }

        fn deregister(&mut self, _: &Registry) -> io::Result<()> {
            Ok(())
        }
    }
}
