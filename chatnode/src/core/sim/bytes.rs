//! What clients write and read: frames of WebSocket, and in them the lines of `chat.v1`. They are
//! read strictly: what a node writes beyond that is a fault.

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Data, OpCode};

use crate::wire::protocol::FRAME_BYTES_MAX;

/// With what clients mask. A mask that repeats is as good as another here.
const MASK: [u8; 4] = [0x17, 0xc8, 0x35, 0xa2];

/// A line that a node writes, unless it is a message.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Line<'a> {
    pub(super) id: Option<u64>,
    #[serde(borrow)]
    pub(super) join: Option<Joined<'a>>,
    #[serde(borrow)]
    pub(super) watch: Option<Watched<'a>>,
    pub(super) send: Option<Sent>,
    pub(super) error: Option<Refused>,
    pub(super) gap: Option<Gap>,
    pub(super) members: Option<Members>,
    #[serde(rename = "hello")]
    _hello: Option<IgnoredAny>,
    #[serde(rename = "seen")]
    _seen: Option<IgnoredAny>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Joined<'a> {
    pub(super) room: String,
    pub(super) recovered: bool,
    pub(super) at: Vec<String>,
    #[serde(borrow)]
    pub(super) messages: Vec<&'a RawValue>,
    pub(super) members: Vec<String>,
    pub(super) count: usize,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Watched<'a> {
    pub(super) rooms: String,
    pub(super) recovered: bool,
    pub(super) at: Vec<String>,
    #[serde(borrow)]
    pub(super) messages: Vec<&'a RawValue>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Sent {
    pub(super) id: String,
    pub(super) ts: u64,
    pub(super) copies: usize,
}

#[derive(Debug, Deserialize)]
pub(super) struct Refused {
    pub(super) code: String,
    #[serde(default)]
    pub(super) behind: Vec<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Gap {
    pub(super) room: Option<String>,
    pub(super) rooms: Option<String>,
    pub(super) origin: String,
    pub(super) after: u64,
    pub(super) through: u64,
}

#[derive(Debug, Deserialize)]
pub(super) struct Members {
    pub(super) room: String,
    pub(super) joined: Vec<String>,
    pub(super) left: Vec<String>,
    pub(super) count: usize,
}

/// What most lines are that are no messages, read at less cost than others: to which request it replies, and
/// what.
pub(super) fn sent(text: &str) -> Option<(u64, Sent)> {
    let (number, rest) = text
        .strip_prefix("{\"id\":")?
        .split_once(",\"send\":{\"id\":\"")?;
    let (id, rest) = rest.split_once("\",\"ts\":")?;
    let (ts, copies) = rest.strip_suffix("}}")?.split_once(",\"copies\":")?;
    let sent = Sent {
        id: id.to_owned(),
        ts: ts.parse().ok()?,
        copies: copies.parse().ok()?,
    };
    Some((number.parse().ok()?, sent))
}

/// Lines as a client sends them: as many in one frame as a node takes.
pub(super) fn framed(mut lines: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    while lines.len() > FRAME_BYTES_MAX {
        let end = lines[..FRAME_BYTES_MAX].rfind('\n');
        let (first, rest) = lines.split_at(end.expect("a line is short"));
        bytes.extend(masked(first));
        lines = &rest[1..];
    }
    bytes.extend(masked(lines));
    bytes
}

/// A text as a client sends it: one frame.
fn masked(text: &str) -> Vec<u8> {
    let header = FrameHeader {
        is_final: true,
        opcode: OpCode::Data(Data::Text),
        mask: Some(MASK),
        ..FrameHeader::default()
    };
    let mut bytes = Vec::new();
    let formatted = header.format(text.len() as u64, &mut bytes);
    formatted.expect("a vector takes all");
    let start = bytes.len();
    bytes.extend_from_slice(text.as_bytes());
    // Many at a time: a simulated client should cost little.
    let (wide, rest) = bytes[start..].as_chunks_mut::<16>();
    let mask = u128::from_ne_bytes(std::array::from_fn(|at| MASK[at % MASK.len()]));
    for chunk in wide {
        *chunk = (u128::from_ne_bytes(*chunk) ^ mask).to_ne_bytes();
    }
    for (at, byte) in rest.iter_mut().enumerate() {
        *byte ^= MASK[at % MASK.len()];
    }
    bytes
}

/// Takes the next whole frame: its first byte, and what is in it.
pub(super) fn next_frame(buffer: &mut Vec<u8>) -> Option<(u8, Vec<u8>)> {
    let (start, length) = match *buffer.get(..2)? {
        [_, 126] => {
            let length = buffer.get(2..4)?.try_into().expect("two bytes");
            (4, usize::from(u16::from_be_bytes(length)))
        }
        [_, 127] => {
            let length = buffer.get(2..10)?.try_into().expect("eight bytes");
            let length = usize::try_from(u64::from_be_bytes(length));
            (10, length.expect("it is in memory"))
        }
        [_, length] => (2, usize::from(length)),
        _ => return None,
    };
    let payload = buffer.get(start..start + length)?.to_vec();
    let first = buffer[0];
    buffer.drain(..start + length);
    Some((first, payload))
}
