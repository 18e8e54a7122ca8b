//! How a client of each server joins, says something, and finds messages in what it gets.

use crate::marks::{MARK, Tag, mark, read};
use crate::wire::{BINARY, TEXT, mask as mask_payload, put, put_head};

/// Which language the clients speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// Bare text, the room `lobby`.
    Plain,
    /// chat.v1.
    Chat,
    /// NATS over its WebSocket port.
    Nats,
    /// Engine.IO 4 and Socket.IO 5, WebSocket only.
    SocketIo,
}

/// What a client is to do next, while it joins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Joining {
    /// Wait for so many more answers.
    Waits(u32),
    /// It takes part.
    Joined,
}

/// What a message looks like.
#[derive(Debug, Clone)]
pub(crate) struct Shape {
    pub(crate) protocol: Protocol,
    pub(crate) tag: Tag,
    /// Length of a message's text.
    pub(crate) bytes: usize,
    /// `copies` of chat.v1.
    pub(crate) copies: u32,
    /// Where in a line or frame the last mark was found: the next is mostly there too.
    guess: usize,
}

impl Protocol {
    /// By its name on the command line.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "plain" => Self::Plain,
            "chat" => Self::Chat,
            "nats" => Self::Nats,
            "socketio" => Self::SocketIo,
            _ => return None,
        })
    }

    /// What to ask for in the handshake.
    pub(crate) fn path(self) -> &'static str {
        match self {
            Self::Plain | Self::Nats => "/",
            Self::Chat => "/ws",
            Self::SocketIo => "/socket.io/?EIO=4&transport=websocket",
        }
    }

    /// What a client says first, and how many answers it then awaits.
    pub(crate) fn begin(self, client: usize, rooms: &[usize], out: &mut Vec<u8>) -> Joining {
        match self {
            Self::Plain => Joining::Joined,
            Self::Chat => {
                let mut lines = format!("{{\"id\":1,\"hello\":{{\"name\":\"u{client:05}\"}}}}");
                for (place, room) in rooms.iter().enumerate() {
                    let id = place + 2;
                    let join = format!(
                        "\n{{\"id\":{id},\"join\":{{\"room\":\"r{room}\",\"history\":0}}}}"
                    );
                    lines.push_str(&join);
                }
                put(out, TEXT, lines.as_bytes());
                Joining::Waits(rooms.len() as u32 + 1)
            }
            Self::Nats => {
                put(
                    out,
                    BINARY,
                    b"CONNECT {\"verbose\":false,\"pedantic\":false}\r\nSUB bench 1\r\nPING\r\n",
                );
                Joining::Waits(1)
            }
            Self::SocketIo => Joining::Waits(2),
        }
    }

    /// A frame came while the client joins; what it answers goes to `out`.
    pub(crate) fn step(self, payload: &[u8], waits: u32, out: &mut Vec<u8>) -> Joining {
        let answers = match self {
            Self::Plain => waits,
            Self::Chat => lines(payload)
                .filter(|line| line.starts_with(b"{\"id\":"))
                .count() as u32,
            Self::Nats => u32::from(has(payload, b"PONG")),
            Self::SocketIo => {
                if payload.starts_with(b"0") {
                    put(out, TEXT, b"40");
                }
                u32::from(payload.starts_with(b"0") || payload.starts_with(b"40"))
            }
        };
        match waits.saturating_sub(answers) {
            0 => Joining::Joined,
            left => Joining::Waits(left),
        }
    }
}

impl Shape {
    /// Messages of so many bytes (a mark's at least) in this protocol.
    pub(crate) fn new(protocol: Protocol, tag: Tag, bytes: usize, copies: u32) -> Self {
        Self {
            protocol,
            tag,
            bytes: bytes.max(MARK),
            copies,
            guess: 0,
        }
    }

    /// The frame by which a sender says its message of this number.
    pub(crate) fn say(&self, sender: u32, number: u32, room: usize, out: &mut Vec<u8>) {
        let mark = mark(self.tag, sender, number);
        let (first, before, after) = match self.protocol {
            Protocol::Plain => (TEXT, String::new(), String::new()),
            Protocol::Chat => {
                // The mid has the mark's digits without its `~`, so that only the text has a mark.
                let mid = str::from_utf8(&mark[1..]).unwrap_or_default();
                let before = format!(
                    "{{\"id\":{},\"send\":{{\"room\":\"r{room}\",\"mid\":\"{mid}\",\"text\":\"",
                    number + 100
                );
                (TEXT, before, format!("\",\"copies\":{}}}}}", self.copies))
            }
            Protocol::Nats => (
                BINARY,
                format!("PUB bench {}\r\n", self.bytes),
                "\r\n".to_owned(),
            ),
            Protocol::SocketIo => (TEXT, "42[\"chat\",\"".to_owned(), "\"]".to_owned()),
        };
        put_head(out, first, before.len() + self.bytes + after.len(), true);
        let start = out.len();
        out.extend_from_slice(before.as_bytes());
        out.extend_from_slice(&mark);
        out.resize(out.len() + self.bytes - MARK, b'a');
        out.extend_from_slice(after.as_bytes());
        mask_payload(&mut out[start..]);
    }

    /// Finds all messages in the payload of a frame, and tells `found` sender and number of each.
    /// What must be answered is answered in `out`.
    #[inline]
    pub(crate) fn scan(
        &mut self,
        payload: &[u8],
        out: &mut Vec<u8>,
        mut found: impl FnMut(u32, u32),
    ) {
        // After the text: `"}}` and a line break; a line break; `"]`.
        let after = match self.protocol {
            Protocol::Plain => {
                if let Some((sender, number)) = read(self.tag, payload) {
                    found(sender, number);
                }
                return;
            }
            Protocol::Chat => 4,
            Protocol::Nats | Protocol::SocketIo => 2,
        };
        let mut from = 0;
        while from < payload.len() {
            let guessed = payload
                .get(from + self.guess..)
                .and_then(|rest| read(self.tag, rest));
            let (sender, number) = match guessed {
                Some(both) => both,
                None => match self.search(&payload[from..]) {
                    Some((place, both)) => {
                        self.guess = place;
                        both
                    }
                    None => break,
                },
            };
            found(sender, number);
            from += self.guess + self.bytes + after;
        }
        if from < payload.len() && payload.len() - from < 64 {
            self.answer(&payload[from..], out);
        }
    }

    #[cold]
    fn search(&self, bytes: &[u8]) -> Option<(usize, (u32, u32))> {
        let mut from = 0;
        loop {
            let place = from + bytes[from..].iter().position(|byte| *byte == b'~')?;
            if let Some(both) = read(self.tag, &bytes[place..]) {
                return Some((place, both));
            }
            from = place + 1;
        }
    }

    /// A short rest without a message: a ping, perhaps.
    #[cold]
    fn answer(&self, rest: &[u8], out: &mut Vec<u8>) {
        match self.protocol {
            Protocol::Plain => {}
            Protocol::Chat if lines(rest).any(|line| line == b"{}") => put(out, TEXT, b"{}"),
            Protocol::Nats if has(rest, b"PING") => put(out, BINARY, b"PONG\r\n"),
            Protocol::SocketIo if rest == b"2" => put(out, TEXT, b"3"),
            Protocol::Chat | Protocol::Nats | Protocol::SocketIo => {}
        }
    }
}

fn lines(payload: &[u8]) -> impl Iterator<Item = &[u8]> {
    payload.split(|byte| *byte == b'\n')
}

fn has(bytes: &[u8], what: &[u8]) -> bool {
    bytes.windows(what.len()).any(|window| window == what)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::marks::tag;
    use crate::wire::frame;

    fn found(shape: &mut Shape, payload: &[u8]) -> (Vec<(u32, u32)>, Vec<u8>) {
        let (mut all, mut out) = (Vec::new(), Vec::new());
        shape.scan(payload, &mut out, |sender, number| {
            all.push((sender, number))
        });
        (all, out)
    }

    /// Goal: each protocol finds the messages that it says. Method: its own frames, scanned.
    #[test]
    fn what_is_said_is_found() {
        for protocol in [
            Protocol::Plain,
            Protocol::Chat,
            Protocol::Nats,
            Protocol::SocketIo,
        ] {
            for bytes in [MARK, 100, 4096] {
                let mut shape = Shape::new(protocol, tag(3), bytes, 0);
                let mut out = Vec::new();
                shape.say(5, 9, 0, &mut out);
                let said = frame(&out, 0).expect("a whole frame");
                mask_payload(&mut out[said.start..]);
                assert_eq!(found(&mut shape, &out[said.start..said.end]).0, [(5, 9)]);
            }
        }
    }

    /// Goal: a frame of many lines, of which some are no messages, gives each message once.
    /// Method: pushes of unlike lengths, replies between them, and a ping at the end.
    #[test]
    fn a_frame_of_many_lines_gives_each_message_once() {
        let run = tag(8);
        let mut shape = Shape::new(Protocol::Chat, run, 12, 0);
        let push = |number: u32| {
            let mark = mark(run, 1, number);
            let (text, mid) = (
                str::from_utf8(&mark).unwrap(),
                str::from_utf8(&mark[1..]).unwrap(),
            );
            let id = 10u32.pow(number);
            format!(
                "{{\"msg\":{{\"room\":\"r0\",\"id\":\"o.{id}\",\"mid\":\"{mid}\",\"text\":\"{text}aa\"}}}}"
            )
        };
        let reply = "{\"id\":104,\"send\":{\"id\":\"o.1\",\"ts\":1,\"copies\":0}}".to_owned();
        let all = [
            push(0),
            push(1),
            reply.clone(),
            push(2),
            push(3),
            "{}".to_owned(),
        ]
        .join("\n");
        let (messages, mut out) = found(&mut shape, all.as_bytes());
        assert_eq!(messages, [(1, 0), (1, 1), (1, 2), (1, 3)]);
        let pong = frame(&out, 0).expect("an answer");
        mask_payload(&mut out[pong.start..]);
        assert_eq!(
            frame(&out, 0).map(|pong| &out[pong.start..pong.end]),
            Some(&b"{}"[..])
        );
        assert_eq!(found(&mut shape, reply.as_bytes()).0, []);
    }
}
