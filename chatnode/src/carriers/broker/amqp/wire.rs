//! Frames of AMQP 0-9-1, as far as nodes need them. Pure, and no byte of a broker can make this panic or
//! keep more than is bounded: tables, which nest as deep as somebody likes, are skipped and never read.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use bytes::{Buf as _, Bytes, BytesMut};

use super::method;
use crate::carriers::broker::speech::{self, Odd};

/// Longest frame, all around it included; that of every broker is longer.
pub(super) const FRAME_LEN_MAX: usize = 16 << 10;
/// What stands around a frame: its kind, channel and length, and its end.
const AROUND_LEN: usize = 7 + 1;
const END: u8 = 0xce;

const METHOD: u8 = 1;
const HEADER: u8 = 2;
const BODY: u8 = 3;
const HEARTBEAT: u8 = 8;

/// Of what is published: it comes back if it belongs to no queue;
const MANDATORY: u8 = 1;
/// in its head stands how it is kept,
const HAS_DELIVERY_MODE: u8 = 1 << 4;
/// on the disk.
const PERSISTENT: u8 = 2;

/// A sign of life.
pub(super) const SIGN: &[u8] = &[HEARTBEAT, 0, 0, 0, 0, 0, 0, END];
/// The first words of whoever wants to speak this.
pub(super) const HELLO: &[u8] = b"AMQP\0\0\x09\x01";

/// Something that a broker says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Said {
    /// How it lets in.
    Start {
        mechanisms: String,
    },
    /// Its longest frame; 0 is any.
    Tune {
        frame_max: u32,
    },
    /// The connection, or the channel, is over.
    Close {
        code: u16,
        text: String,
    },
    /// It takes nothing for the time being, and why; or it does again.
    Blocked(String),
    Unblocked,
    /// The queue that was asked for, by its name, and how many messages wait there.
    Queue(String, u32),
    /// Whatever else was asked for is done.
    Done(method::Id),
    /// It brings nothing any more.
    Cancelled,
    /// A message: by which exchange, with which key; without its body if that is longer than any of ours.
    /// Whether it was brought before.
    Message {
        tag: u64,
        again: bool,
        exchange: Bytes,
        key: Bytes,
        body: Bytes,
    },
    /// It has taken what was published with this number, or all up to it.
    Taken {
        tag: u64,
        multiple: bool,
    },
    /// It has not.
    NotTaken,
    /// What was published belongs to no queue.
    Returned,
    /// Nothing of interest.
    Sign,
}

/// A message, as far as it has come.
#[derive(Debug)]
struct Coming {
    /// None of what comes back, since it belongs to no queue.
    tag: Option<u64>,
    again: bool,
    exchange: Bytes,
    key: Bytes,
    /// How much of its body is to come; not known at first.
    left: Option<u64>,
    is_kept: bool,
    body: Vec<u8>,
}

/// What was read and not yet understood.
#[derive(Debug)]
pub(super) struct Unread {
    bytes: BytesMut,
    coming: Option<Coming>,
    /// Longest body that is kept.
    len_max: usize,
}

impl Unread {
    pub(super) fn new(len_max: usize) -> Self {
        Self {
            bytes: BytesMut::new(),
            coming: None,
            len_max,
        }
    }

    /// A message's size, or a piece of its body: the message, when it is whole.
    fn content(&mut self, kind: u8, payload: &[u8]) -> Option<Option<Said>> {
        let mut coming = self.coming.take()?;
        match (kind, coming.left) {
            (HEADER, None) => {
                // Class, weight, size; what else is said of it is nothing to nodes.
                let size = u64::from_be_bytes(payload.get(4..12)?.try_into().ok()?);
                coming.is_kept = usize::try_from(size).is_ok_and(|size| size <= self.len_max);
                coming.left = Some(size);
            }
            (BODY, Some(left)) => {
                coming.left = Some(left.checked_sub(u64::try_from(payload.len()).ok()?)?);
                if coming.is_kept {
                    coming.body.extend_from_slice(payload);
                }
            }
            _ => return None,
        }
        if coming.left != Some(0) {
            self.coming = Some(coming);
            return Some(None);
        }
        let Some(tag) = coming.tag else {
            return Some(Some(Said::Returned));
        };
        Some(Some(Said::Message {
            tag,
            again: coming.again,
            exchange: coming.exchange,
            key: coming.key,
            body: coming.body.into_boxed_slice().into(),
        }))
    }

    fn method(&mut self, payload: &[u8]) -> Option<Option<Said>> {
        let mut args = Args(payload);
        let id = (args.u16()?, args.u16()?);
        if self.coming.is_some() {
            // Nothing comes between the parts of a message.
            return None;
        }
        let said = match id {
            method::START => {
                args.skip(2)?;
                args.long()?;
                let mechanisms = text(args.long()?);
                Said::Start { mechanisms }
            }
            method::TUNE => {
                args.u16()?;
                let frame_max = args.u32()?;
                Said::Tune { frame_max }
            }
            method::CLOSE | method::CHANNEL_CLOSE => {
                let code = args.u16()?;
                let text = text(args.short()?);
                Said::Close { code, text }
            }
            method::BLOCKED => Said::Blocked(text(args.short()?)),
            method::UNBLOCKED => Said::Unblocked,
            method::QUEUE_OK => {
                let name = text(args.short()?);
                Said::Queue(name, args.u32()?)
            }
            method::CANCEL => Said::Cancelled,
            method::DELIVER | method::RETURN => {
                let (tag, again) = if id == method::DELIVER {
                    args.short()?;
                    (Some(args.u64()?), args.u8()? & 1 == 1)
                } else {
                    args.u16()?;
                    args.short()?;
                    (None, false)
                };
                let exchange = Bytes::copy_from_slice(args.short()?);
                let key = Bytes::copy_from_slice(args.short()?);
                self.coming = Some(Coming {
                    tag,
                    again,
                    exchange,
                    key,
                    left: None,
                    is_kept: false,
                    body: Vec::new(),
                });
                return Some(None);
            }
            method::ACK => {
                let tag = args.u64()?;
                let multiple = args.u8()? & 1 == 1;
                Said::Taken { tag, multiple }
            }
            method::NACK => Said::NotTaken,
            id => Said::Done(id),
        };
        Some(Some(said))
    }
}

impl speech::Unread for Unread {
    const ENGINE: &str = "RabbitMQ";
    type Said = Said;

    fn bytes(&mut self) -> &mut BytesMut {
        &mut self.bytes
    }

    fn next(&mut self) -> Result<Option<Said>, Odd> {
        loop {
            let bytes = &self.bytes;
            // What begins otherwise is another protocol, and may never be as long as a frame.
            if let Some(kind) = bytes.first()
                && !matches!(*kind, METHOD | HEADER | BODY | HEARTBEAT)
            {
                return Err(Odd::bytes(bytes));
            }
            let Some(head) = bytes.first_chunk::<7>() else {
                return Ok(None);
            };
            let [kind, _, _, len @ ..] = *head;
            let len = usize::try_from(u32::from_be_bytes(len)).unwrap_or(usize::MAX);
            if len > FRAME_LEN_MAX - AROUND_LEN {
                return Err(Odd::bytes(bytes));
            }
            if bytes.len() < len + AROUND_LEN {
                return Ok(None);
            }
            let frame = self.bytes.split_to(len + AROUND_LEN);
            let payload = &frame[7..7 + len];
            let said = match kind {
                _ if frame[7 + len] != END => None,
                METHOD => self.method(payload),
                HEADER | BODY => self.content(kind, payload),
                _ => Some(Some(Said::Sign)),
            };
            match said {
                Some(Some(said)) => return Ok(Some(said)),
                Some(None) => {}
                None => return Err(Odd::bytes(&frame)),
            }
        }
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).replace(char::is_control, " ")
}

/// What stands in a method, one after the other.
struct Args<'a>(&'a [u8]);

impl<'a> Args<'a> {
    fn skip(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn u8(&mut self) -> Option<u8> {
        self.0.try_get_u8().ok()
    }

    fn u16(&mut self) -> Option<u16> {
        self.0.try_get_u16().ok()
    }

    fn u32(&mut self) -> Option<u32> {
        self.0.try_get_u32().ok()
    }

    fn u64(&mut self) -> Option<u64> {
        self.0.try_get_u64().ok()
    }

    fn short(&mut self) -> Option<&'a [u8]> {
        let len = self.u8()?;
        self.skip(len.into())
    }

    fn long(&mut self) -> Option<&'a [u8]> {
        let len = self.u32()?;
        self.skip(usize::try_from(len).ok()?)
    }
}

/// Which of what was published is taken: all up to a number, and some beyond.
#[derive(Debug, Default)]
pub(super) struct Taken {
    up_to: u64,
    beyond: VecDeque<u64>,
}

impl Taken {
    /// Numbers beyond the first gap, at the most: no more are published at once.
    const BEYOND_MAX: usize = 1024;

    /// The number up to which all is taken now; none if a broker takes what nobody published.
    pub(super) fn take(&mut self, tag: u64, multiple: bool) -> Option<u64> {
        if multiple {
            self.up_to = self.up_to.max(tag);
        } else if tag > self.up_to {
            if self.beyond.len() >= Self::BEYOND_MAX {
                return None;
            }
            let at = self.beyond.partition_point(|other| *other < tag);
            self.beyond.insert(at, tag);
        }
        while let Some(next) = self.beyond.front()
            && *next <= self.up_to.saturating_add(1)
        {
            self.up_to = self.up_to.max(*next);
            self.beyond.pop_front();
        }
        Some(self.up_to)
    }
}

/// Frames to be said on a channel.
#[derive(Debug, Default)]
pub(super) struct Frames(Vec<u8>);

impl Frames {
    pub(super) fn method(mut self, channel: u16, id: method::Id, args: &[Arg<'_>]) -> Self {
        self.frame(METHOD, channel, |out| {
            out.extend(id.0.to_be_bytes());
            out.extend(id.1.to_be_bytes());
            for arg in args {
                arg.write(out);
            }
        });
        self
    }

    /// A message. One that is to last is written to the broker's disk, and comes back if it belongs to no
    /// queue; of any other nothing is said.
    pub(super) fn message(
        mut self,
        channel: u16,
        (exchange, key): (&str, &str),
        body: &[u8],
        lasts: bool,
    ) -> Self {
        let place = [
            Arg::U16(0),
            Arg::Short(exchange),
            Arg::Short(key),
            Arg::U8(if lasts { MANDATORY } else { 0 }),
        ];
        self = self.method(channel, method::PUBLISH, &place);
        self.frame(HEADER, channel, |out| {
            out.extend(method::PUBLISH.0.to_be_bytes());
            out.extend([0, 0]);
            out.extend((body.len() as u64).to_be_bytes());
            match lasts {
                true => out.extend([HAS_DELIVERY_MODE, 0, PERSISTENT]),
                false => out.extend([0, 0]),
            }
        });
        for part in body.chunks(FRAME_LEN_MAX - AROUND_LEN) {
            self.frame(BODY, channel, |out| out.extend_from_slice(part));
        }
        self
    }

    fn frame(&mut self, kind: u8, channel: u16, payload: impl FnOnce(&mut Vec<u8>)) {
        let Self(out) = self;
        out.push(kind);
        out.extend(channel.to_be_bytes());
        long(out, payload);
        out.push(END);
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

/// Something in a method.
#[derive(Debug, Clone, Copy)]
pub(super) enum Arg<'a> {
    U8(u8),
    U16(u16),
    U32(u32),
    U64(u64),
    /// Text of 255 bytes at the most; what is longer is cut.
    Short(&'a str),
    Long(&'a [u8]),
    Table(&'a [(&'a str, Arg<'a>)]),
    Flag(bool),
}

impl Arg<'_> {
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::U8(number) => out.push(*number),
            Self::U16(number) => out.extend(number.to_be_bytes()),
            Self::U32(number) => out.extend(number.to_be_bytes()),
            Self::U64(number) => out.extend(number.to_be_bytes()),
            Self::Short(text) => {
                let text = &text[..text.floor_char_boundary(255)];
                out.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
                out.extend_from_slice(text.as_bytes());
            }
            Self::Long(bytes) => long(out, |out| out.extend_from_slice(bytes)),
            Self::Table(pairs) => long(out, |out| {
                for (key, value) in *pairs {
                    Self::Short(key).write(out);
                    out.push(match value {
                        Self::U8(_) => b'B',
                        Self::U16(_) => b'u',
                        Self::U32(_) => b'i',
                        Self::U64(_) => b'l',
                        Self::Short(_) | Self::Long(_) => b'S',
                        Self::Table(_) => b'F',
                        Self::Flag(_) => b't',
                    });
                    match value {
                        Self::Short(text) => Self::Long(text.as_bytes()).write(out),
                        other => other.write(out),
                    }
                }
            }),
            Self::Flag(is_so) => out.push(u8::from(*is_so)),
        }
    }
}

/// Bytes, with their length before them.
fn long(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let at = out.len();
    out.extend([0; 4]);
    write(out);
    let len = u32::try_from(out.len() - at - 4).unwrap_or(u32::MAX);
    out[at..at + 4].copy_from_slice(&len.to_be_bytes());
}
