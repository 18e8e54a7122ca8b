//! `bench floor`: the least that a server can do, to compare with. One write for each client and
//! message, and nothing else; with `--batch`, all ready sockets are read first, and then each
//! client gets all of it with one write.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

use anyhow::Result;
use rustix::buffer::spare_capacity;
use rustix::event::epoll;
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::options::Options;
use crate::wire::{CLOSE, frame, head_end, put_head};

const LISTENER: u64 = u64::MAX;
/// Bytes that one read may bring, and events that one look may bring.
const READ_MAX: usize = 64 << 10;
const EVENTS_MAX: usize = 1024;

#[derive(Debug)]
struct Client {
    socket: TcpStream,
    upgraded: bool,
    partial: Vec<u8>,
    /// What the socket did not take yet; it is tried again with the next message.
    unsent: Vec<u8>,
}

#[derive(Debug)]
struct Floor {
    clients: Vec<Option<Client>>,
    /// Frames for everybody.
    out: Vec<u8>,
    batch: bool,
}

/// Serves until it is killed.
pub(crate) fn run(options: &Options) -> Result<()> {
    let mut files = getrlimit(Resource::Nofile);
    files.current = files.maximum;
    setrlimit(Resource::Nofile, files)?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    crate::print(format_args!(
        "{{\"ready\":\"floor\",\"http\":\"http://{}\"}}",
        listener.local_addr()?
    ))?;
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    epoll::add(
        &poll,
        &listener,
        epoll::EventData::new_u64(LISTENER),
        epoll::EventFlags::IN,
    )?;
    let mut floor = Floor {
        clients: Vec::new(),
        out: Vec::new(),
        batch: options.flag("batch"),
    };
    let mut events = Vec::with_capacity(EVENTS_MAX);
    let mut buffer = vec![0; READ_MAX];
    loop {
        events.clear();
        epoll::wait(&poll, spare_capacity(&mut events), None)?;
        for event in &events {
            let event: &epoll::Event = event;
            if event.data.u64() != LISTENER {
                floor.read(event.data.u64() as usize, &mut buffer);
                continue;
            }
            while let Ok((socket, _)) = listener.accept() {
                socket.set_nodelay(true)?;
                socket.set_nonblocking(true)?;
                let number = floor.clients.len() as u64;
                epoll::add(
                    &poll,
                    &socket,
                    epoll::EventData::new_u64(number),
                    epoll::EventFlags::IN,
                )?;
                let (partial, unsent) = (Vec::new(), Vec::new());
                floor.clients.push(Some(Client {
                    socket,
                    upgraded: false,
                    partial,
                    unsent,
                }));
            }
        }
        floor.write();
    }
}

impl Floor {
    fn read(&mut self, number: usize, buffer: &mut [u8]) {
        let Some(client) = &mut self.clients[number] else {
            return;
        };
        let got = match client.socket.read(buffer) {
            Ok(0) => return self.clients[number] = None,
            Ok(got) => got,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return,
            Err(_) => return self.clients[number] = None,
        };
        let mut bytes = std::mem::take(&mut client.partial);
        bytes.extend_from_slice(&buffer[..got]);
        if !client.upgraded {
            let Some(end) = head_end(&bytes) else {
                client.partial = bytes;
                return;
            };
            upgrade(client, &bytes[..end]);
            bytes.drain(..end);
        }
        let mut from = 0;
        while let Some(found) = frame(&bytes, from) {
            from = found.end;
            if found.first >= CLOSE || !found.masked {
                continue;
            }
            let mask = [
                bytes[found.start - 4],
                bytes[found.start - 3],
                bytes[found.start - 2],
                bytes[found.start - 1],
            ];
            let payload = &mut bytes[found.start..found.end];
            for (byte, mask) in payload.iter_mut().zip(mask.iter().cycle()) {
                *byte ^= mask;
            }
            put_head(&mut self.out, found.first, payload.len(), false);
            self.out.extend_from_slice(payload);
            if !self.batch {
                self.write();
            }
        }
        bytes.drain(..from);
        if let (Some(client), false) = (&mut self.clients[number], bytes.is_empty()) {
            client.partial = bytes;
        }
    }

    /// What there is, to everybody.
    fn write(&mut self) {
        if self.out.is_empty() {
            return;
        }
        for client in self
            .clients
            .iter_mut()
            .flatten()
            .filter(|client| client.upgraded)
        {
            if !client.unsent.is_empty() {
                client.unsent.extend_from_slice(&self.out);
                let all = std::mem::take(&mut client.unsent);
                client.write(&all);
            } else {
                client.write(&self.out);
            }
        }
        self.out.clear();
    }
}

impl Client {
    fn write(&mut self, bytes: &[u8]) {
        // A broken socket shows at its next read.
        let gone = self.socket.write(bytes).unwrap_or(0);
        self.unsent.extend_from_slice(&bytes[gone..]);
    }
}

fn upgrade(client: &mut Client, head: &[u8]) {
    let head = String::from_utf8_lossy(head);
    let key = head
        .lines()
        .find_map(|line| line.strip_prefix("Sec-WebSocket-Key: "));
    let accept = derive_accept_key(key.unwrap_or_default().as_bytes());
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n\r\n"
    );
    client.write(answer.as_bytes());
    client.upgraded = true;
}
