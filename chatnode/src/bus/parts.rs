//! Messages as their parts on the wire.
//!
//! On the mesh a message has three: topic, header, body. Everywhere else header and body are one
//! string of bytes, a frame. Here it is cut for the way out, without a copy, and joined on the way
//! in, which is the copy that lets go of the transport's read buffer. The chapter's plain form has
//! one part, `chat <text>`.

use bytes::{Bytes, BytesMut};

use super::Topic;
use super::frame::{FRAME_LEN_MAX, HEADER_LEN};
use crate::replica::names::Origin;

/// What a plain message starts with; a space and the text follow.
pub const PLAIN_TOPIC: &str = "chat";
/// Longest text in the plain form, in bytes; a longer one is refused.
pub const PLAIN_LEN_MAX: usize = 4096;

impl Topic {
    /// The first part of the message on the wire.
    pub fn to_wire(self) -> Bytes {
        match self {
            Self::Log => Bytes::from_static(b"m1.log"),
            Self::Beat => Bytes::from_static(b"m1.beat"),
            Self::Live => Bytes::from_static(b"m1.live"),
            Self::Ack(origin) => [b"m1.ack.", origin.as_bytes().as_slice()].concat().into(),
        }
    }

    /// The topic with these bytes. Subscriptions match by prefix, so others can come.
    pub fn from_wire(bytes: &[u8]) -> Option<Self> {
        match bytes {
            b"m1.log" => Some(Self::Log),
            b"m1.beat" => Some(Self::Beat),
            b"m1.live" => Some(Self::Live),
            _ => {
                let origin = bytes.strip_prefix(b"m1.ack.")?.try_into().ok()?;
                Origin::from_bytes(origin).map(Self::Ack)
            }
        }
    }
}

/// Cuts a frame into the parts of a message: topic, header, body. Copies nothing.
pub fn to_parts(topic: Topic, mut frame: Bytes) -> [Bytes; 3] {
    let header = frame.split_to(HEADER_LEN.min(frame.len()));
    [topic.to_wire(), header, frame]
}

/// Joins the parts of a message into a copy of its own, if they are within limits and the topic is
/// one of ours.
pub fn from_parts(parts: &[Bytes]) -> Option<(Topic, Bytes)> {
    let [topic, header, body] = parts else {
        return None;
    };
    if header.len() != HEADER_LEN || body.len() > FRAME_LEN_MAX - HEADER_LEN {
        return None;
    }
    let topic = Topic::from_wire(topic)?;
    let mut frame = BytesMut::with_capacity(HEADER_LEN + body.len());
    frame.extend_from_slice(header);
    frame.extend_from_slice(body);
    Some((topic, frame.freeze()))
}

/// The chapter's plain form of this text.
pub fn to_plain(text: &str) -> Bytes {
    format!("{PLAIN_TOPIC} {text}").into()
}

/// The text of a message in the plain form, if it is UTF-8 and within limits.
pub fn from_plain(message: &[u8]) -> Option<String> {
    let text = message
        .strip_prefix(PLAIN_TOPIC.as_bytes())?
        .strip_prefix(b" ")?;
    if text.len() > PLAIN_LEN_MAX {
        return None;
    }
    String::from_utf8(text.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_are_exact() {
        let ack = Topic::Ack("k3f7q2m7xa".parse().unwrap());
        assert_eq!(ack.to_wire(), "m1.ack.k3f7q2m7xa");
        for topic in [Topic::Log, Topic::Beat, Topic::Live, ack] {
            assert_eq!(Topic::from_wire(&topic.to_wire()), Some(topic));
        }
        for bad in [
            "",
            "m1.logs",
            "m1.lo",
            "m1.ack.",
            "m1.ack.K3f7q2m7xa",
            "m1.ack.k3f7q2m7xaa",
        ] {
            assert_eq!(Topic::from_wire(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn a_message_has_three_parts_within_limits() {
        let frame = Bytes::from(vec![7; FRAME_LEN_MAX]);
        let [topic, header, body] = to_parts(Topic::Log, frame.clone());
        assert_eq!(
            from_parts(&[topic.clone(), header.clone(), body]),
            Some((Topic::Log, frame))
        );
        let long = Bytes::from(vec![7; FRAME_LEN_MAX]);
        assert_eq!(from_parts(&[topic.clone(), header.clone(), long]), None);
        assert_eq!(
            from_parts(&[topic.clone(), header.slice(1..), Bytes::new()]),
            None
        );
        assert_eq!(from_parts(&[topic, header]), None);
        assert_eq!(from_parts(&[]), None);
    }

    #[test]
    fn the_plain_form_is_a_word_and_the_text() {
        assert_eq!(to_plain("hello, world"), "chat hello, world");
        assert_eq!(from_plain(b"chat "), Some(String::new()));
        assert_eq!(
            from_plain(&to_plain("a\n\u{1F980}")),
            Some("a\n\u{1F980}".into())
        );
        assert!(from_plain(&to_plain(&"x".repeat(PLAIN_LEN_MAX))).is_some());
        assert!(from_plain(&to_plain(&"x".repeat(PLAIN_LEN_MAX + 1))).is_none());
        for bad in [&b"chat"[..], b"chatter on", b"", b"chat \xff"] {
            assert_eq!(from_plain(bad), None);
        }
    }
}
