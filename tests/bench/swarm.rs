//! The swarm: thousands of clients in one thread.
//!
//! Readiness comes from one level-triggered epoll. A client that has something is read once, into
//! one large buffer that all share; of each frame only the mark is looked at. Looks at the sockets
//! stand at least `TICK` apart: what came meanwhile is taken together, and the server's writes wake
//! nobody. A latency is therefore up to that much longer than it would be for a lone client.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;

use anyhow::{Context as _, Result, bail, ensure};
use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::fd::OwnedFd;

use crate::clock::{MILLI, SECOND, now, rest};
use crate::hist::Histogram;
use crate::marks::{Ledger, NUMBERS_MAX};
use crate::proto::{Joining, Shape};
use crate::wire::{CLOSE, PING, PONG, frame, head_end, host, put, request};

/// Shortest time between two looks at the sockets, in nanoseconds.
const TICK: u64 = 100_000;
/// Bytes that one read may bring.
const READ_MAX: usize = 256 << 10;
/// Events that one look may bring.
const EVENTS_MAX: usize = 4096;
/// Clients that are on their way in at the same time.
const ENTERING_MAX: usize = 128;

/// Who is who.
#[derive(Debug, Clone)]
pub(crate) struct Crowd {
    pub(crate) urls: Vec<String>,
    pub(crate) clients: usize,
    /// The clients that send, by the sender's number.
    pub(crate) senders: Vec<usize>,
    pub(crate) rooms: usize,
    /// Rooms that each client is in; it says things in the first of them.
    pub(crate) rooms_each: usize,
}

impl Crowd {
    /// The rooms of a client.
    pub(crate) fn rooms_of(&self, client: usize) -> Vec<usize> {
        let first = client * self.rooms_each;
        (first..first + self.rooms_each)
            .map(|room| room % self.rooms)
            .collect()
    }

    /// Whether what a sender says is for a client.
    pub(crate) fn hears(&self, client: usize, sender: usize) -> bool {
        let room = self.senders[sender] * self.rooms_each % self.rooms;
        let first = client * self.rooms_each % self.rooms;
        (room + self.rooms - first) % self.rooms < self.rooms_each
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Handshake,
    Waits(u32),
    Joined,
}

#[derive(Debug)]
struct Client {
    socket: TcpStream,
    stage: Stage,
    /// The beginning of a frame whose end has not come.
    partial: Vec<u8>,
    /// What the socket did not take yet.
    unsent: Vec<u8>,
    /// Whether epoll is to tell when the socket takes more.
    waits: bool,
    /// Its number as a sender.
    sender: Option<u32>,
}

/// What was counted so far; a window is the difference of two.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counts {
    pub(crate) deliveries: u64,
    pub(crate) bytes: u64,
    pub(crate) reads: u64,
    pub(crate) sent: u64,
}

/// The clients and what they have seen.
pub(crate) struct Swarm {
    pub(crate) crowd: Crowd,
    shape: Shape,
    epoll: OwnedFd,
    events: Vec<epoll::Event>,
    buffer: Vec<u8>,
    out: Vec<u8>,
    clients: Vec<Client>,
    pub(crate) joined: usize,
    looked: u64,
    /// When each message was due, by sender and number.
    due: Vec<Vec<u64>>,
    /// Own messages that came back and are to be followed by new ones, by sender.
    owed: Vec<u32>,
    owing: Vec<u32>,
    /// Whether a sender says the next when its own has come back.
    pub(crate) closed_loop: bool,
    pub(crate) ledger: Ledger,
    pub(crate) counts: Counts,
    /// Latencies of messages that were due at or after `timed_from`.
    pub(crate) latency: Histogram,
    pub(crate) timed_from: u64,
    pub(crate) last_delivery: u64,
}

impl Swarm {
    /// Nobody yet.
    pub(crate) fn new(crowd: Crowd, shape: Shape) -> Result<Self> {
        let senders = crowd.senders.len();
        Ok(Self {
            ledger: Ledger::new(crowd.clients, senders),
            due: vec![Vec::new(); senders],
            owed: vec![0; senders],
            owing: Vec::new(),
            crowd,
            shape,
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            events: Vec::with_capacity(EVENTS_MAX),
            buffer: vec![0; READ_MAX],
            out: Vec::new(),
            clients: Vec::new(),
            joined: 0,
            looked: 0,
            closed_loop: false,
            counts: Counts::default(),
            latency: Histogram::new(),
            timed_from: u64::MAX,
            last_delivery: 0,
        })
    }

    /// Brings all clients in.
    pub(crate) fn enter(&mut self, within: u64) -> Result<()> {
        let end = now() + within;
        while self.joined < self.crowd.clients {
            while self.clients.len() < self.crowd.clients
                && self.clients.len() - self.joined < ENTERING_MAX
            {
                self.open()?;
            }
            self.pump(now() + 5 * MILLI, true)?;
            ensure!(
                now() < end,
                "only {} of {} clients came in",
                self.joined,
                self.crowd.clients
            );
        }
        Ok(())
    }

    fn open(&mut self) -> Result<()> {
        let number = self.clients.len();
        let url = &self.crowd.urls[number % self.crowd.urls.len()];
        let mut socket =
            TcpStream::connect(host(url)).with_context(|| format!("client {number} to {url}"))?;
        socket.set_nodelay(true)?;
        socket.write_all(request(host(url), self.shape.protocol.path()).as_bytes())?;
        socket.set_nonblocking(true)?;
        epoll::add(
            &self.epoll,
            &socket,
            epoll::EventData::new_u64(number as u64),
            epoll::EventFlags::IN,
        )?;
        let sender = self
            .crowd
            .senders
            .iter()
            .position(|client| *client == number);
        self.clients.push(Client {
            socket,
            stage: Stage::Handshake,
            partial: Vec::new(),
            unsent: Vec::new(),
            waits: false,
            sender: sender.map(|sender| sender as u32),
        });
        Ok(())
    }

    /// Reads what comes until `until`, or, if `once`, until something came.
    pub(crate) fn pump(&mut self, until: u64, once: bool) -> Result<()> {
        loop {
            let mut time = now();
            let next = (self.looked + TICK).min(until);
            if time < next {
                rest(next - time);
                time = now();
            }
            // Epoll waits in whole milliseconds: the last one is passed by looking each tick.
            let left = until.saturating_sub(time);
            let wait = if left > 2 * MILLI {
                (left - MILLI).min(SECOND / 2)
            } else {
                0
            };
            let wait = Timespec {
                tv_sec: 0,
                tv_nsec: i64::try_from(wait).unwrap_or(0),
            };
            self.events.clear();
            let came = epoll::wait(&self.epoll, spare_capacity(&mut self.events), Some(&wait));
            if !matches!(came, Err(rustix::io::Errno::INTR)) {
                came?;
            }
            let events = std::mem::take(&mut self.events);
            let result = events.iter().try_for_each(|event| self.ready(event));
            let any = !events.is_empty();
            self.events = events;
            result?;
            // From here, so that a busy swarm too lets messages come together.
            self.looked = now();
            self.follow_up()?;
            if self.looked >= until || (once && any) {
                return Ok(());
            }
        }
    }

    fn ready(&mut self, event: &epoll::Event) -> Result<()> {
        let number = event.data.u64() as usize;
        let flags = event.flags;
        if flags.contains(epoll::EventFlags::OUT) {
            self.flush(number)?;
        }
        if flags.intersects(epoll::EventFlags::IN | epoll::EventFlags::HUP | epoll::EventFlags::ERR)
        {
            self.read(number)
                .with_context(|| format!("client {number}"))?;
        }
        Ok(())
    }

    fn read(&mut self, number: usize) -> Result<()> {
        let client = &mut self.clients[number];
        let held = client.partial.len();
        if held + READ_MAX / 2 > self.buffer.len() {
            self.buffer.resize(held + READ_MAX, 0);
        }
        self.buffer[..held].copy_from_slice(&client.partial);
        client.partial.clear();
        let got = match client.socket.read(&mut self.buffer[held..]) {
            Ok(0) => bail!("the server closed the connection"),
            Ok(got) => got,
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) =>
            {
                0
            }
            Err(error) => return Err(error.into()),
        };
        self.counts.reads += 1;
        self.counts.bytes += got as u64;
        let buffer = std::mem::take(&mut self.buffer);
        let parsed = self.parse(number, &buffer[..held + got]);
        if let Ok(from) = parsed {
            self.clients[number]
                .partial
                .extend_from_slice(&buffer[from..held + got]);
        }
        self.buffer = buffer;
        parsed.map(drop)
    }

    /// Handles what is whole, and says where the rest begins.
    fn parse(&mut self, number: usize, bytes: &[u8]) -> Result<usize> {
        let mut from = 0;
        if self.clients[number].stage == Stage::Handshake {
            let Some(end) = head_end(bytes) else {
                return Ok(0);
            };
            ensure!(
                bytes.starts_with(b"HTTP/1.1 101"),
                "refused: {}",
                String::from_utf8_lossy(&bytes[..end.min(80)])
            );
            let rooms = self.crowd.rooms_of(number);
            let mut out = Vec::new();
            let joining = self.shape.protocol.begin(number, &rooms, &mut out);
            self.send(number, &out)?;
            self.step(number, joining);
            from = end;
        }
        let time = now();
        while let Some(found) = frame(bytes, from) {
            let payload = &bytes[found.start..found.end];
            from = found.end;
            if found.first < CLOSE && self.clients[number].stage == Stage::Joined {
                self.take(number, payload, time);
            } else {
                self.other(number, found.first, payload)?;
            }
        }
        if !self.out.is_empty() {
            let out = std::mem::take(&mut self.out);
            self.send(number, &out)?;
        }
        Ok(from)
    }

    #[inline]
    fn take(&mut self, number: usize, payload: &[u8], time: u64) {
        let own = self.clients[number].sender;
        let Self {
            shape,
            out,
            ledger,
            counts,
            latency,
            due,
            owed,
            owing,
            ..
        } = self;
        let (timed_from, closed_loop) = (self.timed_from, self.closed_loop);
        let mut any = false;
        shape.scan(payload, out, |sender, message| {
            if !ledger.take(number, sender, message) {
                return;
            }
            any = true;
            counts.deliveries += 1;
            let due = due[sender as usize]
                .get(message as usize)
                .copied()
                .unwrap_or(time);
            if due >= timed_from {
                latency.add(time.saturating_sub(due));
            }
            if closed_loop && own == Some(sender) {
                if owed[sender as usize] == 0 {
                    owing.push(sender);
                }
                owed[sender as usize] += 1;
            }
        });
        if any {
            self.last_delivery = time;
        }
    }

    /// A frame that is no message: a control frame, or an answer on the way in.
    #[cold]
    fn other(&mut self, number: usize, first: u8, payload: &[u8]) -> Result<()> {
        match (first, self.clients[number].stage) {
            (PING, _) => put(&mut self.out, PONG, payload),
            (PONG, _) => {}
            (CLOSE, _) => {
                let code = payload
                    .get(..2)
                    .map_or(0, |two| u16::from_be_bytes([two[0], two[1]]));
                bail!("the server closed with {code}");
            }
            (_, Stage::Waits(left)) => {
                let joining = self.shape.protocol.step(payload, left, &mut self.out);
                self.step(number, joining);
            }
            (first, _) => ensure!(first & 0x80 != 0 && first & 0x0f != 0, "a fragment came"),
        }
        Ok(())
    }

    fn step(&mut self, number: usize, joining: Joining) {
        self.clients[number].stage = match joining {
            Joining::Waits(left) => Stage::Waits(left),
            Joining::Joined => {
                self.joined += 1;
                Stage::Joined
            }
        };
    }

    /// Says this sender's next `count` messages, all due at `due`.
    pub(crate) fn say(&mut self, sender: u32, count: u32, due: u64) -> Result<()> {
        let client = self.crowd.senders[sender as usize];
        let room = client * self.crowd.rooms_each % self.crowd.rooms;
        let mut out = std::mem::take(&mut self.out);
        for _ in 0..count {
            let number = self.due[sender as usize].len() as u32;
            ensure!(
                number < NUMBERS_MAX,
                "sender {sender} has said all that it can"
            );
            self.due[sender as usize].push(due);
            self.shape.say(sender, number, room, &mut out);
        }
        self.counts.sent += u64::from(count);
        self.send(client, &out)?;
        out.clear();
        self.out = out;
        Ok(())
    }

    /// The next message of each sender whose own has come back.
    fn follow_up(&mut self) -> Result<()> {
        let mut owing = std::mem::take(&mut self.owing);
        for sender in owing.drain(..) {
            let count = std::mem::take(&mut self.owed[sender as usize]);
            if self.closed_loop {
                self.say(sender, count, now())?;
            }
        }
        self.owing = owing;
        Ok(())
    }

    /// How much each sender has said.
    pub(crate) fn said(&self) -> Vec<u32> {
        self.due.iter().map(|due| due.len() as u32).collect()
    }

    fn send(&mut self, number: usize, bytes: &[u8]) -> Result<()> {
        let client = &mut self.clients[number];
        client.unsent.extend_from_slice(bytes);
        if client.waits {
            Ok(())
        } else {
            self.flush(number)
        }
    }

    fn flush(&mut self, number: usize) -> Result<()> {
        let client = &mut self.clients[number];
        let had = client.unsent.len();
        let mut gone = 0;
        while gone < had {
            match client.socket.write(&client.unsent[gone..]) {
                Ok(count) => gone += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error).with_context(|| format!("client {number} sends")),
            }
        }
        client.unsent.drain(..gone);
        let waits = gone < had;
        if waits != client.waits {
            client.waits = waits;
            let data = epoll::EventData::new_u64(number as u64);
            let mut wants = epoll::EventFlags::IN;
            wants.set(epoll::EventFlags::OUT, waits);
            epoll::modify(&self.epoll, &client.socket, data, wants)?;
        }
        Ok(())
    }

    /// Whether every message reached everybody that it is for.
    pub(crate) fn lost(&self) -> u64 {
        self.ledger.lost(&self.said(), |client, sender| {
            self.crowd.hears(client, sender)
        })
    }
}
