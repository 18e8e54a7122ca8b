//! WebSocket (RFC 6455) as a server needs it: the handshake's checks, and frames read from bytes
//! that are lent.
//!
//! `tungstenite` knows the frame header and the handshake's key; what stands here beside it is what
//! its connection type would put into each connection: buffers. A [`Decoder`] owns nothing while
//! its client is idle, since whole frames are read in place, in a buffer that all clients share.

use std::io::Cursor;
use std::ops::ControlFlow;

use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use crate::wire::protocol::FRAME_BYTES_MAX;

/// Why a connection is closed: a code and a sentence that begins with a machine word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Close {
    /// RFC 6455 section 7.4, or 4000 and above as in PROTOCOL.md.
    pub(crate) code: u16,
    /// At most 123 bytes.
    pub(crate) reason: &'static str,
}

impl Close {
    /// A close with this code.
    pub(crate) const fn new(code: u16, reason: &'static str) -> Self {
        Self { code, reason }
    }
}

/// What a client sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Message<'a> {
    /// A whole text message.
    Text(&'a str),
    /// A ping, to be answered by a pong with the same bytes.
    Ping(&'a [u8]),
    /// A pong.
    Pong,
    /// A part of a text message that goes on.
    Fragment,
    /// It closes, with this code.
    Close(u16),
}

/// Not text.
pub(crate) const BINARY: Close = Close::new(1003, "binary: this protocol is text");
const NOT_UTF8: Close = Close::new(1007, "utf8: a text frame is UTF-8");
const TOO_BIG: Close = Close::new(1009, "too_big: a message is at most 65536 bytes");

const fn protocol(reason: &'static str) -> Close {
    Close::new(1002, reason)
}

/// What a connection keeps between reads, only while a frame or a message is incomplete.
#[derive(Debug, Default)]
struct Rest {
    bytes: Vec<u8>,
    message: Option<Vec<u8>>,
}

/// Turns the bytes of one client into messages.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    rest: Option<Box<Rest>>,
}

impl Decoder {
    /// Takes what was read, in place, and hands each message to `handle`. When that breaks, what is
    /// left is kept for the next call, which may bring no bytes.
    ///
    /// # Errors
    /// The close that the client must be told; the decoder must not be fed again.
    pub(crate) fn feed(
        &mut self,
        read: &mut [u8],
        mut handle: impl FnMut(Message<'_>) -> ControlFlow<()>,
    ) -> Result<(), Close> {
        let Rest { bytes, mut message } = self.rest.take().map_or_else(Rest::default, |rest| *rest);
        let mut joined;
        let buffer = if bytes.is_empty() {
            read
        } else {
            joined = bytes;
            joined.extend_from_slice(read);
            &mut joined[..]
        };
        let mut used = 0;
        while let Some((header, start, end)) = next_frame(&buffer[used..])? {
            let payload = &mut buffer[used + start..used + end];
            used += end;
            unmask(payload, header.mask.unwrap_or_default());
            if frame(&header, payload, &mut message, &mut handle)?.is_break() {
                break;
            }
        }
        if used < buffer.len() || message.is_some() {
            let bytes = buffer[used..].to_vec();
            self.rest = Some(Box::new(Rest { bytes, message }));
        }
        Ok(())
    }
}

/// The header of the first frame, and where its payload starts and ends; `None` if it is not all
/// there.
fn next_frame(buffer: &[u8]) -> Result<Option<(FrameHeader, usize, usize)>, Close> {
    let mut cursor = Cursor::new(buffer);
    let parsed = FrameHeader::parse(&mut cursor).map_err(|_| protocol("frame: bad header"))?;
    let Some((header, length)) = parsed else {
        return Ok(None);
    };
    if header.rsv1 || header.rsv2 || header.rsv3 {
        return Err(protocol("frame: no extension was agreed on"));
    }
    if let OpCode::Control(control) = header.opcode {
        if !header.is_final || length > 125 {
            return Err(protocol(
                "frame: a control frame is whole and at most 125 bytes",
            ));
        }
        if matches!(control, Control::Reserved(_)) {
            return Err(protocol("frame: reserved opcode"));
        }
    }
    if matches!(header.opcode, OpCode::Data(Data::Reserved(_))) {
        return Err(protocol("frame: reserved opcode"));
    }
    if header.mask.is_none() {
        return Err(protocol("frame: a client masks its frames"));
    }
    if length > FRAME_BYTES_MAX as u64 {
        return Err(TOO_BIG);
    }
    let start = usize::try_from(cursor.position()).expect("a header is a few bytes");
    let end = start + usize::try_from(length).expect("bounded above");
    Ok((buffer.len() >= end).then_some((header, start, end)))
}

fn frame(
    header: &FrameHeader,
    payload: &[u8],
    message: &mut Option<Vec<u8>>,
    handle: &mut impl FnMut(Message<'_>) -> ControlFlow<()>,
) -> Result<ControlFlow<()>, Close> {
    let data = match header.opcode {
        OpCode::Control(Control::Ping) => return Ok(handle(Message::Ping(payload))),
        OpCode::Control(Control::Pong) => return Ok(handle(Message::Pong)),
        OpCode::Control(_) => return close(payload).map(|code| handle(Message::Close(code))),
        OpCode::Data(data) => data,
    };
    match (data, message.as_mut()) {
        (Data::Binary, _) => Err(BINARY),
        (Data::Text, None) if header.is_final => {
            let text = std::str::from_utf8(payload).map_err(|_| NOT_UTF8)?;
            Ok(handle(Message::Text(text)))
        }
        (Data::Text, None) => {
            *message = Some(payload.to_vec());
            Ok(handle(Message::Fragment))
        }
        (Data::Continue, Some(begun)) => {
            if begun.len() + payload.len() > FRAME_BYTES_MAX {
                return Err(TOO_BIG);
            }
            begun.extend_from_slice(payload);
            if !header.is_final {
                return Ok(handle(Message::Fragment));
            }
            let whole = message.take().unwrap_or_default();
            let text = std::str::from_utf8(&whole).map_err(|_| NOT_UTF8)?;
            Ok(handle(Message::Text(text)))
        }
        (Data::Continue, None) => Err(protocol("frame: nothing to continue")),
        (Data::Text | Data::Reserved(_), _) => Err(protocol("frame: a message was not finished")),
    }
}

/// The code of a close frame (RFC 6455 section 7.4); 1005 if it has none.
fn close(payload: &[u8]) -> Result<u16, Close> {
    match payload {
        [] => Ok(1005),
        [_] => Err(protocol("close: half a code")),
        [high, low, reason @ ..] => {
            let code = u16::from_be_bytes([*high, *low]);
            let valid = matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999);
            if !valid {
                return Err(protocol("close: no such code"));
            }
            std::str::from_utf8(reason).map_err(|_| NOT_UTF8)?;
            Ok(code)
        }
    }
}

/// Removes the mask (RFC 6455 section 5.3), eight bytes at a time.
fn unmask(payload: &mut [u8], mask: [u8; 4]) {
    let [a, b, c, d] = mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let mut chunks = payload.chunks_exact_mut(8);
    for chunk in &mut chunks {
        let word = u64::from_ne_bytes(chunk.try_into().expect("chunks of eight")) ^ wide;
        chunk.copy_from_slice(&word.to_ne_bytes());
    }
    for (byte, mask) in chunks
        .into_remainder()
        .iter_mut()
        .zip(mask.into_iter().cycle())
    {
        *byte ^= mask;
    }
}

/// Appends a frame to what will be written.
fn append(output: &mut Vec<u8>, opcode: OpCode, parts: &[&[u8]]) {
    let header = FrameHeader {
        is_final: true,
        opcode,
        mask: None,
        ..FrameHeader::default()
    };
    let length: usize = parts.iter().map(|part| part.len()).sum();
    header
        .format(length as u64, output)
        .expect("a vector takes all");
    for part in parts {
        output.extend_from_slice(part);
    }
}

/// Appends a text frame of these parts.
pub(crate) fn append_text(output: &mut Vec<u8>, parts: &[&[u8]]) {
    append(output, OpCode::Data(Data::Text), parts);
}

/// Appends a ping.
pub(crate) fn append_ping(output: &mut Vec<u8>) {
    append(output, OpCode::Control(Control::Ping), &[]);
}

/// Appends the answer to a ping.
pub(crate) fn append_pong(output: &mut Vec<u8>, payload: &[u8]) {
    append(output, OpCode::Control(Control::Pong), &[payload]);
}

/// Appends a close frame.
pub(crate) fn append_close(output: &mut Vec<u8>, close: &Close) {
    let parts: [&[u8]; 2] = [&close.code.to_be_bytes(), close.reason.as_bytes()];
    append(output, OpCode::Control(Control::Close), &parts);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn masked(opcode: u8, is_final: bool, payload: &[u8]) -> Vec<u8> {
        let mask = [1, 2, 3, 4];
        let header = FrameHeader {
            is_final,
            opcode: OpCode::from(opcode),
            mask: Some(mask),
            ..FrameHeader::default()
        };
        let mut bytes = Vec::new();
        header.format(payload.len() as u64, &mut bytes).unwrap();
        let start = bytes.len();
        bytes.extend_from_slice(payload);
        unmask(&mut bytes[start..], mask);
        bytes
    }

    /// Feeds bytes in pieces of a size; the texts that come out, or the close.
    fn texts(bytes: &[u8], piece: usize) -> Result<Vec<String>, Close> {
        let mut decoder = Decoder::default();
        let mut texts = Vec::new();
        for read in bytes.chunks(piece) {
            decoder.feed(&mut read.to_vec(), |message| {
                if let Message::Text(text) = message {
                    texts.push(text.to_owned());
                }
                ControlFlow::Continue(())
            })?;
        }
        Ok(texts)
    }

    #[test]
    fn fragments_with_a_ping_between_come_out_whole_in_pieces_of_any_size() {
        let mut bytes = masked(1, false, "hé".as_bytes());
        bytes.extend(masked(9, true, b"ping"));
        bytes.extend(masked(0, true, b"llo"));
        bytes.extend(masked(1, true, b"second"));
        for piece in 1..bytes.len() {
            assert_eq!(
                texts(&bytes, piece).unwrap(),
                ["héllo", "second"],
                "{piece}"
            );
        }
    }

    #[test]
    fn a_break_keeps_the_rest_for_later() {
        let mut bytes = masked(1, true, b"one");
        bytes.extend(masked(1, true, b"two"));
        let mut decoder = Decoder::default();
        let mut seen = Vec::new();
        for mut read in [bytes, Vec::new()] {
            decoder
                .feed(&mut read, |message| {
                    if let Message::Text(text) = message {
                        seen.push(text.to_owned());
                    }
                    ControlFlow::Break(())
                })
                .unwrap();
        }
        assert_eq!(seen, ["one", "two"]);
        assert!(decoder.rest.is_none(), "an idle decoder owns nothing");
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), piece in 1usize..50) {
            let _ = texts(&bytes, piece);
        }
    }
}
