//! What a NATS server says: lines, some with bytes behind them. Pure, and no byte of it can make this panic
//! or keep more than is bounded.

use bytes::{Buf as _, Bytes, BytesMut};
use serde::Deserialize;

use crate::carriers::broker::speech::{self, Odd};

/// Longest line; in a large cluster the server's account of itself names many others.
const LINE_LEN_MAX: usize = 64 << 10;
/// What no server takes for one message, whatever it is told.
const PAYLOAD_LEN_MAX: usize = 64 << 20;

/// What a server says of itself.
#[derive(Debug, Default, Clone, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct Info {
    /// The longest message that it takes.
    pub(super) max_payload: usize,
    /// Whether it speaks on in TLS only.
    pub(super) tls_required: bool,
    /// Whether it can.
    pub(super) tls_available: bool,
    /// Whether it ends soon.
    pub(super) ldm: bool,
    /// What its cluster is called, if it is in one.
    pub(super) cluster: Option<String>,
}

/// Something that a server says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Said {
    Info(Info),
    /// A message; without its body if that is longer than any of ours.
    Message(Message),
    Ping,
    Pong,
    /// All went well, which nobody asked.
    Ok,
    /// Something is refused, or over.
    Refused(String),
}

/// A message.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) subject: Bytes,
    /// Where an answer is expected, if one is.
    pub(super) reply: Option<Bytes>,
    /// What stands before its body; empty in most.
    pub(super) head: Bytes,
    pub(super) body: Bytes,
}

impl Message {
    /// Of a server that says something of its own instead: the number that says what.
    pub(super) fn status(&self) -> Option<u16> {
        let line = self.head.strip_prefix(b"NATS/1.0 ")?;
        let number = std::str::from_utf8(line.get(..3)?).ok()?;
        number.parse().ok()
    }
}

/// How a message begins, and how long its parts are.
struct Begun {
    message: Message,
    head_len: usize,
    /// Of head and body.
    len: usize,
}

/// What was read and not yet understood.
#[derive(Debug)]
pub(super) struct Unread {
    bytes: BytesMut,
    /// Bytes to come of a message that is too long.
    skip: usize,
    /// Longest message that is kept.
    len_max: usize,
}

impl Unread {
    pub(super) fn new(len_max: usize) -> Self {
        Self {
            bytes: BytesMut::new(),
            skip: 0,
            len_max,
        }
    }

    /// The message whose first line ends here, if it is whole.
    fn message(&mut self, line_len: usize, begun: Begun) -> Option<Said> {
        let Begun {
            mut message,
            head_len,
            len,
        } = begun;
        // A line's end stands behind it.
        let end = line_len + len + 2;
        if len > self.len_max {
            self.bytes.advance(line_len);
            self.skip = len + 2;
            return Some(Said::Message(message));
        }
        if self.bytes.len() < end {
            self.bytes.reserve(end - self.bytes.len());
            return None;
        }
        // A copy: what is read is a piece of something larger.
        let mut body = Bytes::copy_from_slice(&self.bytes[line_len..line_len + len]);
        self.bytes.advance(end);
        message.head = body.split_to(head_len);
        message.body = body;
        Some(Said::Message(message))
    }
}

impl speech::Unread for Unread {
    const ENGINE: &str = "NATS";
    type Said = Said;

    fn bytes(&mut self) -> &mut BytesMut {
        &mut self.bytes
    }

    fn next(&mut self) -> Result<Option<Said>, Odd> {
        let skipped = self.skip.min(self.bytes.len());
        self.bytes.advance(skipped);
        self.skip -= skipped;
        if self.skip > 0 {
            return Ok(None);
        }
        let Some(end) = self.bytes.iter().position(|byte| *byte == b'\n') else {
            return match self.bytes.len() > LINE_LEN_MAX {
                true => Err(Odd::bytes(&self.bytes)),
                false => Ok(None),
            };
        };
        let line = self.bytes[..end].trim_ascii_end();
        let (verb, rest) = match line.iter().position(u8::is_ascii_whitespace) {
            Some(at) => (&line[..at], line[at..].trim_ascii()),
            None => (line, &line[line.len()..]),
        };
        let said = match verb {
            b"INFO" => match serde_json::from_slice(rest) {
                Ok(info) => Said::Info(info),
                Err(_) => return Err(Odd::bytes(line)),
            },
            b"MSG" | b"HMSG" => {
                let Some(begun) = message(rest, verb == b"HMSG") else {
                    return Err(Odd::bytes(line));
                };
                return Ok(self.message(end + 1, begun));
            }
            b"PING" => Said::Ping,
            b"PONG" => Said::Pong,
            b"+OK" => Said::Ok,
            b"-ERR" => {
                let text = String::from_utf8_lossy(rest);
                Said::Refused(text.trim_matches('\'').replace(char::is_control, " "))
            }
            _ => return Err(Odd::bytes(line)),
        };
        self.bytes.advance(end + 1);
        Ok(Some(said))
    }
}

/// How a message begins: `SUBJECT SID [REPLY] [HEAD_LENGTH] LENGTH`.
fn message(line: &[u8], has_head: bool) -> Option<Begun> {
    let line = std::str::from_utf8(line).ok()?;
    let mut words: Vec<&str> = line.split_ascii_whitespace().take(6).collect();
    let len = words.pop()?.parse().ok();
    let len = len.filter(|len| *len <= PAYLOAD_LEN_MAX)?;
    let head_len = match has_head {
        true => words.pop()?.parse().ok().filter(|head| *head <= len)?,
        false => 0,
    };
    let (subject, reply) = match words[..] {
        [subject, _] => (subject, None),
        [subject, _, reply] => (subject, Some(reply)),
        _ => return None,
    };
    let copied = |text: &str| Bytes::copy_from_slice(text.as_bytes());
    let message = Message {
        subject: copied(subject),
        reply: reply.map(copied),
        ..Message::default()
    };
    Some(Begun {
        message,
        head_len,
        len,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LEN_MAX: usize = 8;

    /// All that is understood of what comes in such pieces, and how it ends.
    fn read(pieces: &[&[u8]]) -> (Vec<Said>, Option<Odd>) {
        speech::understood(Unread::new(LEN_MAX), pieces.iter().copied())
    }

    fn said(subject: &'static str, body: &'static [u8]) -> Said {
        Said::Message(Message {
            subject: subject.into(),
            body: Bytes::from_static(body),
            ..Message::default()
        })
    }

    #[test]
    fn what_a_server_says_is_understood_in_whatever_pieces_it_comes() {
        let words: &[u8] =
            b"INFO {\"max_payload\":77,\"ldm\":true,\"new\":[1]} \r\nPING\r\nPONG\r\n+OK\r\n\
            MSG a.b 1 3\r\nx\r\n\r\nMSG a.c 2 _R.x 0\r\n\r\nMSG long 1 9\r\n123456789\r\n\
            -ERR 'Slow Consumer'\r\n-ERR\r\nMSG a 1 8\r\n12345678\r\n\
            HMSG a 1 r 7 8\r\n1234567x\r\n";
        let info = Info {
            max_payload: 77,
            ldm: true,
            ..Info::default()
        };
        let all = [
            Said::Info(info),
            Said::Ping,
            Said::Pong,
            Said::Ok,
            said("a.b", b"x\r\n"),
            Said::Message(Message {
                subject: "a.c".into(),
                reply: Some("_R.x".into()),
                ..Message::default()
            }),
            said("long", b""),
            Said::Refused("Slow Consumer".to_owned()),
            Said::Refused(String::new()),
            said("a", b"12345678"),
            Said::Message(Message {
                subject: "a".into(),
                reply: Some("r".into()),
                head: "1234567".into(),
                body: "x".into(),
            }),
        ];
        for len in 1..words.len() {
            let pieces: Vec<&[u8]> = words.chunks(len).collect();
            let (read, odd) = read(&pieces);
            assert_eq!((&read[..], odd), (&all[..], None));
        }
    }

    #[test]
    fn what_is_no_nats_is_shown() {
        for odd in [
            "HTTP/1.1 400 Bad Request\r\n",
            "INFO {\r\n",
            "MSG a 1\r\n",
            "MSG a 1 -1\r\n",
            "MSG a 1 18446744073709551615\r\n",
            "MSG a 1 67108865\r\n",
            "MSG a b c d e\r\n",
            "HMSG a 1 3\r\n",
            "HMSG a 1 4 3\r\n",
            "HMSG a b c 1 2 3\r\n",
            "\r\n",
        ] {
            let (all, why) = read(&[odd.as_bytes()]);
            assert_eq!(why, Some(Odd(odd.trim_end().to_owned())), "{all:?}");
        }
        let long = [b'x'; LINE_LEN_MAX + 1];
        assert_eq!(read(&[&long]).1, Some(Odd("x".repeat(100))));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(
            pieces in prop::collection::vec(
                prop_oneof![
                    prop::collection::vec(any::<u8>(), 0..30),
                    "(INFO|MSG|PING|PONG|-ERR|[+]OK|HMSG)[ a-z0-9'{}]{0,20}(\r\n)?".prop_map(String::into_bytes),
                ],
                0..20,
            )
        ) {
            let pieces: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
            read(&pieces);
        }
    }
}
