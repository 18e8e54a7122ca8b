//! A message on the mesh: topic, header, body, three parts.
//!
//! Everywhere else header and body are one string of bytes, a frame. Here it is cut for the way
//! out, without a copy, and joined on the way in, which is the copy that lets go of the
//! transport's read buffer.

use bytes::{Bytes, BytesMut};

use super::Topic;
use super::frame::{FRAME_LEN_MAX, HEADER_LEN};
use crate::replica::names::Origin;

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
}
