//! WebSocket on the wire, as little of it as a measuring client or server needs.

/// The key of all handshakes here, and what a server says to it (the example of RFC 6455).
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// The mask of all frames from here: any will do, as nothing is between that might be deceived.
const MASK: [u8; 4] = [0x5a, 0xc3, 0x96, 0x0f];

/// First byte of an unfragmented frame.
pub(crate) const TEXT: u8 = 0x81;
/// The same, of bytes.
pub(crate) const BINARY: u8 = 0x82;
/// The same, of a close, a ping and a pong.
pub(crate) const CLOSE: u8 = 0x88;
/// A ping.
pub(crate) const PING: u8 = 0x89;
/// A pong.
pub(crate) const PONG: u8 = 0x8a;

/// The request of a client.
pub(crate) fn request(host: &str, path: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
}

/// Where the head of an HTTP message ends.
pub(crate) fn head_end(bytes: &[u8]) -> Option<usize> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
    Some(end + 4)
}

/// A frame that was found: its first byte, and where its payload stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) first: u8,
    pub(crate) masked: bool,
    pub(crate) start: usize,
    pub(crate) end: usize,
}

/// The frame at `from`, if it is there to its end.
#[inline]
pub(crate) fn frame(bytes: &[u8], from: usize) -> Option<Frame> {
    let head = bytes.get(from..from + 2)?;
    let masked = head[1] & 0x80 != 0;
    let (length, mut start) = match head[1] & 0x7f {
        126 => {
            let length: [u8; 2] = bytes.get(from + 2..from + 4)?.try_into().ok()?;
            (usize::from(u16::from_be_bytes(length)), from + 4)
        }
        127 => {
            let length: [u8; 8] = bytes.get(from + 2..from + 10)?.try_into().ok()?;
            (usize::try_from(u64::from_be_bytes(length)).ok()?, from + 10)
        }
        length => (usize::from(length), from + 2),
    };
    if masked {
        start += 4;
    }
    let end = start.checked_add(length)?;
    (end <= bytes.len()).then_some(Frame {
        first: head[0],
        masked,
        start,
        end,
    })
}

/// The head of a frame of so many bytes.
pub(crate) fn put_head(out: &mut Vec<u8>, first: u8, length: usize, masked: bool) {
    let mask = if masked { 0x80 } else { 0 };
    out.push(first);
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(length), _) if length < 126 => out.push(mask | length),
        (_, Ok(length)) => {
            out.push(mask | 126);
            out.extend_from_slice(&length.to_be_bytes());
        }
        _ => {
            out.push(mask | 127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    if masked {
        out.extend_from_slice(&MASK);
    }
}

/// A client's frame.
pub(crate) fn put(out: &mut Vec<u8>, first: u8, payload: &[u8]) {
    put_head(out, first, payload.len(), true);
    let start = out.len();
    out.extend_from_slice(payload);
    mask(&mut out[start..]);
}

/// Masks or unmasks a payload, in place.
pub(crate) fn mask(payload: &mut [u8]) {
    for (byte, mask) in payload.iter_mut().zip(MASK.iter().cycle()) {
        *byte ^= mask;
    }
}

/// The `ADDR:PORT` and path of `ws://ADDR:PORT/…` or `http://…`.
pub(crate) fn host(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.split('/').next().unwrap_or(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: what is written is found again, and never before it is whole. Method: all three
    /// forms of length, masked and not, each cut at every place near its ends.
    #[test]
    fn a_frame_is_found_when_it_is_whole() {
        for length in [0, 1, 125, 126, 65_535, 65_536] {
            for masked in [true, false] {
                let mut bytes = vec![7; 3];
                put_head(&mut bytes, TEXT, length, masked);
                let start = bytes.len();
                bytes.resize(start + length, b'x');
                let end = bytes.len();
                let found = Frame {
                    first: TEXT,
                    masked,
                    start,
                    end,
                };
                assert_eq!(frame(&bytes, 3), Some(found));
                let cuts = (3..start).chain(end.saturating_sub(3).max(start)..end);
                for cut in cuts {
                    assert_eq!(frame(&bytes[..cut], 3), None, "{length} cut at {cut}");
                }
            }
        }
    }
}
