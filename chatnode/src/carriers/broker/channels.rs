//! The channels of a mesh on a broker, and what a message there is.
//!
//! A node speaks on its own channel: log, live events, and its beats, so that none overtakes the log that
//! it tells of. Its beats go to the hall's channel too, where all hear all. What is for one node alone,
//! acknowledgements, goes to a channel that only it hears.
//!
//! A message is one byte for the topic, and the frame; or, between two sessions of nodes with a mesh secret,
//! a question whether somebody is there, and the answer.

use bytes::{BufMut as _, Bytes, BytesMut};

use super::ears::Nonce;
use super::url::Engine;
use crate::model::mesh_name::MeshName;
use crate::model::names::Origin;
use crate::wire::frame::{FRAME_LEN_MAX, HEADER_LEN, Topic};

/// Longest message: the topic's byte and the longest frame; what seals it comes on top.
pub(super) const MESSAGE_LEN_MAX: usize = 1 + FRAME_LEN_MAX;

const LOG: u8 = b'l';
const BEAT: u8 = b'b';
const LIVE: u8 = b'v';
const ACK: u8 = b'a';
const ASK: u8 = b'?';
const ANSWER: u8 = b'!';

/// Where something is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Channel {
    /// Where all beat.
    Hall,
    /// What this node says to all.
    Of(Origin),
    /// What is for this node alone.
    To(Origin),
}

impl Channel {
    /// Where frames about this are published, beats besides in the hall.
    pub(super) fn of(topic: Topic, me: Origin) -> Self {
        match topic {
            Topic::Ack(to) => Self::To(to),
            Topic::Log | Topic::Beat | Topic::Live => Self::Of(me),
        }
    }
}

/// How an engine writes the channels of one mesh.
#[derive(Debug)]
pub(super) struct Channels {
    /// What stands before each.
    root: String,
    /// What stands between the words.
    dot: char,
}

impl Channels {
    pub(super) fn of(engine: Engine, mesh: &MeshName) -> Self {
        let (root, dot) = match engine {
            // Braces keep all of a mesh on one shard of a cluster.
            Engine::Redis => (format!("chatmesh:{{{mesh}}}:"), ':'),
            Engine::Proxy => (format!("m1.{mesh}."), '.'),
            // Of AMQP, the exchange is what stands before the last dot of this.
            Engine::Nats | Engine::Amqp => (format!("chatmesh.{mesh}."), '.'),
        };
        Self { root, dot }
    }

    /// The name of a channel.
    pub(super) fn name(&self, channel: Channel) -> String {
        let Self { root, dot } = self;
        match channel {
            Channel::Hall => format!("{root}beat"),
            Channel::Of(origin) => format!("{root}o{dot}{origin}"),
            Channel::To(origin) => format!("{root}to{dot}{origin}"),
        }
    }

    /// Where nodes meet that bridge to the foreign programs of this channel.
    pub(super) fn of_bridge(&self, foreign: &str) -> String {
        format!("{}bridge{}{foreign}", self.root, self.dot)
    }

    /// The channel with this name.
    pub(super) fn channel(&self, name: &[u8]) -> Option<Channel> {
        let rest = name.strip_prefix(self.root.as_bytes())?;
        if rest == b"beat" {
            return Some(Channel::Hall);
        }
        let at = rest.iter().position(|byte| *byte == self.dot as u8)?;
        let (kind, origin) = (&rest[..at], &rest[at + 1..]);
        let origin = Origin::from_bytes(origin.try_into().ok()?)?;
        match kind {
            b"o" => Some(Channel::Of(origin)),
            b"to" => Some(Channel::To(origin)),
            _ => None,
        }
    }
}

/// What a message says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Said {
    /// Something to the node.
    Frame(Topic, Bytes),
    /// Are you there? With a number that nobody has seen before.
    Ask(Nonce),
    /// Here. With the number of the question.
    Answer(Nonce),
}

/// A question as a message.
pub(super) fn to_ask(nonce: Nonce) -> Bytes {
    [&[ASK], nonce.as_slice()].concat().into()
}

/// An answer as a message.
pub(super) fn to_answer(nonce: Nonce) -> Bytes {
    [&[ANSWER], nonce.as_slice()].concat().into()
}

/// A frame as a message.
pub(super) fn to_message(topic: Topic, frame: &Bytes) -> Bytes {
    let mut message = BytesMut::with_capacity(1 + frame.len());
    message.put_u8(match topic {
        Topic::Log => LOG,
        Topic::Beat => BEAT,
        Topic::Live => LIVE,
        Topic::Ack(_) => ACK,
    });
    message.put_slice(frame);
    message.freeze()
}

/// What a message says that came there, if one like it belongs there.
pub(super) fn from_message(channel: Channel, message: &Bytes) -> Option<Said> {
    let (kind, rest) = message.split_first()?;
    if let (ASK | ANSWER, Channel::To(_)) = (*kind, channel) {
        let nonce = rest.try_into().ok()?;
        return Some(match *kind {
            ASK => Said::Ask(nonce),
            _ => Said::Answer(nonce),
        });
    }
    if !(1 + HEADER_LEN..=MESSAGE_LEN_MAX).contains(&message.len()) {
        return None;
    }
    let topic = match (*kind, channel) {
        (BEAT, Channel::Hall | Channel::Of(_)) => Topic::Beat,
        (LOG, Channel::Of(_)) => Topic::Log,
        (LIVE, Channel::Of(_)) => Topic::Live,
        (ACK, Channel::To(me)) => Topic::Ack(me),
        _ => return None,
    };
    Some(Said::Frame(topic, message.slice(1..)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_channel_is_read_as_it_was_written_and_all_else_is_none() {
        let origin: Origin = "k3f7q2m7xa".parse().unwrap();
        for (engine, root, dot) in [
            (Engine::Redis, "chatmesh:{team-7}:", ":"),
            (Engine::Nats, "chatmesh.team-7.", "."),
            (Engine::Amqp, "chatmesh.team-7.", "."),
            (Engine::Proxy, "m1.team-7.", "."),
        ] {
            let channels = Channels::of(engine, &"team-7".parse().unwrap());
            let main = Channels::of(engine, &"main".parse().unwrap());
            for (channel, name) in [
                (Channel::Hall, format!("{root}beat")),
                (Channel::Of(origin), format!("{root}o{dot}{origin}")),
                (Channel::To(origin), format!("{root}to{dot}{origin}")),
            ] {
                assert_eq!(channels.name(channel), name);
                assert_eq!(channels.channel(name.as_bytes()), Some(channel));
                assert_eq!(main.channel(name.as_bytes()), None);
            }
            for other in [
                "",
                "beats",
                &format!("o{dot}"),
                &format!("o{dot}K3F7Q2M7XA"),
                &format!("x{dot}k3f7q2m7xa"),
                &format!("o{dot}k3f7q2m7xab"),
            ] {
                let name = format!("{root}{other}");
                assert_eq!(channels.channel(name.as_bytes()), None, "{name}");
            }
        }
    }

    #[test]
    fn a_message_is_taken_only_where_one_like_it_belongs() {
        let me: Origin = "k3f7q2m7xa".parse().unwrap();
        let frame = Bytes::from(vec![7; HEADER_LEN]);
        let places = [Channel::Hall, Channel::Of(me), Channel::To(me)];
        for (topic, at) in [
            (Topic::Beat, &[0, 1][..]),
            (Topic::Log, &[1]),
            (Topic::Live, &[1]),
            (Topic::Ack(me), &[2]),
        ] {
            let message = to_message(topic, &frame);
            for (nth, place) in places.into_iter().enumerate() {
                let taken = at.contains(&nth).then(|| Said::Frame(topic, frame.clone()));
                assert_eq!(from_message(place, &message), taken, "{topic:?} {place:?}");
            }
        }
        for odd in [vec![], vec![LOG; HEADER_LEN], vec![b'?'; HEADER_LEN + 1]] {
            assert_eq!(from_message(Channel::Of(me), &odd.into()), None);
        }
        let nonce = [9; 16];
        assert_eq!(
            from_message(places[2], &to_ask(nonce)),
            Some(Said::Ask(nonce))
        );
        assert_eq!(
            from_message(places[2], &to_answer(nonce)),
            Some(Said::Answer(nonce))
        );
        assert_eq!(from_message(places[1], &to_ask(nonce)), None);
        let long = Bytes::from(vec![LOG; MESSAGE_LEN_MAX + 1]);
        assert_eq!(from_message(Channel::Of(me), &long), None);
    }
}
