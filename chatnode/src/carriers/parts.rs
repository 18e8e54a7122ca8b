//! Messages as their parts on the wire.
//!
//! On the mesh a message has three: topic, header, body. Everywhere else header and body are one
//! string of bytes, a frame. Here it is cut for the way out, without a copy, and joined on the way
//! in, which is the copy that lets go of the transport's read buffer. The plain form has one part,
//! `chat <text>`, or two, `chat_messages` and the text.

use bytes::{Bytes, BytesMut};

use super::Topic;
use crate::model::mesh_name::MeshName;
use crate::model::names::Origin;
use crate::wire::frame::{FRAME_LEN_MAX, HEADER_LEN};

/// What a plain message of one part starts with; a space and the text follow. It is what is subscribed to,
/// and begins the topic of two parts as well.
pub(super) const PLAIN_TOPIC: &str = "chat";
/// The first of two parts.
const PLAIN_TOPIC_OF_TWO: &str = "chat_messages";
/// Longest text in the plain form, in bytes; a longer one is refused.
const PLAIN_LEN_MAX: usize = 4096;

/// How the topic of every mesh's beats begins.
const BEATS: &[u8] = b"m1.beat";

/// The topics of one mesh, as they stand on the wire. The mesh without a name of its own has the bare
/// ones. Beats begin alike in all, and every node subscribes to that, so that a stranger is known by
/// its first beat; of all else that another mesh publishes nothing is even sent here.
#[derive(Debug, Clone)]
pub(crate) struct Topics {
    mesh: MeshName,
    log: Bytes,
    beat: Bytes,
    live: Bytes,
    ack: Bytes,
}

/// What a message of a chatnode is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Heard {
    /// A frame of this mesh.
    Frame(Topic, Bytes),
    /// A beat of another mesh.
    Stranger(MeshName),
}

impl Topics {
    /// Those of this mesh.
    pub(super) fn of(mesh: &MeshName) -> Self {
        let (root, beat) = if mesh.is_default() {
            ("m1".to_owned(), "m1.beat".to_owned())
        } else {
            (format!("m1@{mesh}"), format!("m1.beat@{mesh}"))
        };
        Self {
            mesh: mesh.clone(),
            log: format!("{root}.log").into(),
            beat: beat.into(),
            live: format!("{root}.live").into(),
            ack: format!("{root}.ack.").into(),
        }
    }

    /// The first part of the message on the wire.
    fn to_wire(&self, topic: Topic) -> Bytes {
        match topic {
            Topic::Log => self.log.clone(),
            Topic::Beat => self.beat.clone(),
            Topic::Live => self.live.clone(),
            Topic::Ack(origin) => [&self.ack[..], origin.as_bytes().as_slice()]
                .concat()
                .into(),
        }
    }

    /// What this origin subscribes to.
    pub(super) fn wanted_by(&self, me: Origin) -> [Bytes; 4] {
        let ack = self.to_wire(Topic::Ack(me));
        [
            self.log.clone(),
            Bytes::from_static(BEATS),
            self.live.clone(),
            ack,
        ]
    }

    /// The topic with these bytes. Subscriptions match by prefix, so others can come.
    pub(crate) fn topic_of(&self, bytes: &[u8]) -> Option<Topic> {
        if bytes == self.log {
            Some(Topic::Log)
        } else if bytes == self.beat {
            Some(Topic::Beat)
        } else if bytes == self.live {
            Some(Topic::Live)
        } else {
            let origin = bytes.strip_prefix(&self.ack[..])?.try_into().ok()?;
            Origin::from_bytes(origin).map(Topic::Ack)
        }
    }

    /// The other mesh whose beats have this topic.
    fn stranger(&self, bytes: &[u8]) -> Option<MeshName> {
        let mesh = match bytes.strip_prefix(BEATS)? {
            [] => MeshName::default(),
            [b'@', name @ ..] => str::from_utf8(name).ok()?.parse().ok()?,
            _ => return None,
        };
        (mesh != self.mesh).then_some(mesh)
    }

    /// Cuts a frame into the parts of a message: topic, header, body. Copies nothing.
    pub(crate) fn to_parts(&self, topic: Topic, mut frame: Bytes) -> [Bytes; 3] {
        let header = frame.split_to(HEADER_LEN.min(frame.len()));
        [self.to_wire(topic), header, frame]
    }

    /// Joins the parts of a message into a copy of its own, if they are within limits and the topic
    /// is one of ours; of another mesh's beat only whose it is.
    pub(crate) fn join(&self, parts: &[Bytes]) -> Option<Heard> {
        let [topic, header, body] = parts else {
            return None;
        };
        if header.len() != HEADER_LEN || body.len() > FRAME_LEN_MAX - HEADER_LEN {
            return None;
        }
        let Some(topic) = self.topic_of(topic) else {
            return self.stranger(topic).map(Heard::Stranger);
        };
        let mut frame = BytesMut::with_capacity(HEADER_LEN + body.len());
        frame.extend_from_slice(header);
        frame.extend_from_slice(body);
        Some(Heard::Frame(topic, frame.freeze()))
    }
}

impl Default for Topics {
    fn default() -> Self {
        Self::of(&MeshName::default())
    }
}

/// How many parts a plain message has that is published. Of what comes, both forms are taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum PlainForm {
    /// `chat <text>`, as the textbook's third edition has it.
    #[default]
    One,
    /// `chat_messages` and the text, as its fourth has it.
    Two,
}

/// The plain form of this text: its parts.
pub(super) fn to_plain(form: PlainForm, text: &str) -> Vec<Bytes> {
    match form {
        PlainForm::One => vec![format!("{PLAIN_TOPIC} {text}").into()],
        PlainForm::Two => vec![
            Bytes::from_static(PLAIN_TOPIC_OF_TWO.as_bytes()),
            text.to_owned().into(),
        ],
    }
}

/// The text of a message in the plain form, if it is UTF-8 and within limits.
pub(super) fn from_plain(parts: &[Bytes]) -> Option<String> {
    let text = match parts {
        [one] => one
            .strip_prefix(PLAIN_TOPIC.as_bytes())?
            .strip_prefix(b" ")?,
        [topic, text] if topic == PLAIN_TOPIC_OF_TWO => text,
        _ => return None,
    };
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
        let topics = Topics::default();
        let ack = Topic::Ack("k3f7q2m7xa".parse().unwrap());
        assert_eq!(topics.to_wire(ack), "m1.ack.k3f7q2m7xa");
        let all = [Topic::Log, Topic::Beat, Topic::Live, ack];
        let bare = ["m1.log", "m1.beat", "m1.live", "m1.ack.k3f7q2m7xa"];
        for (topic, bare) in all.into_iter().zip(bare) {
            assert_eq!(topics.to_wire(topic), bare);
            assert_eq!(topics.topic_of(bare.as_bytes()), Some(topic));
        }
        for bad in [
            "",
            "m1.logs",
            "m1.lo",
            "m1.ack.",
            "m1.ack.K3f7q2m7xa",
            "m1.ack.k3f7q2m7xaa",
        ] {
            assert_eq!(topics.topic_of(bad.as_bytes()), None, "{bad}");
        }
    }

    /// What one mesh subscribes to is no prefix of what another publishes, but for beats.
    #[test]
    fn meshes_hear_nothing_of_each_other_but_who_they_are() {
        let me: Origin = "k3f7q2m7xa".parse().unwrap();
        let meshes = ["main", "blue", "blue-2", "b"].map(|name| name.parse::<MeshName>().unwrap());
        let all = [Topic::Log, Topic::Beat, Topic::Live, Topic::Ack(me)];
        for (mine, other) in meshes
            .iter()
            .flat_map(|a| meshes.iter().map(move |b| (a, b)))
        {
            let (here, there) = (Topics::of(mine), Topics::of(other));
            for topic in all {
                let wire = there.to_wire(topic);
                let sent = here.wanted_by(me).iter().any(|it| wire.starts_with(it));
                let same = mine == other;
                assert_eq!(
                    sent,
                    same || topic == Topic::Beat,
                    "{mine} {other} {topic:?}"
                );
                let frame = Bytes::from(vec![7; HEADER_LEN]);
                let heard = here.join(&there.to_parts(topic, frame.clone()));
                let expected = match topic {
                    _ if same => Some(Heard::Frame(topic, frame)),
                    Topic::Beat => Some(Heard::Stranger(other.clone())),
                    _ => None,
                };
                assert_eq!(heard, expected);
            }
        }
    }

    #[test]
    fn a_message_has_three_parts_within_limits() {
        let topics = Topics::default();
        let (to_parts, join) = (
            |topic, frame| topics.to_parts(topic, frame),
            |parts: &[Bytes]| topics.join(parts),
        );
        let frame = Bytes::from(vec![7; FRAME_LEN_MAX]);
        let [topic, header, body] = to_parts(Topic::Log, frame.clone());
        assert_eq!(
            join(&[topic.clone(), header.clone(), body]),
            Some(Heard::Frame(Topic::Log, frame))
        );
        let long = Bytes::from(vec![7; FRAME_LEN_MAX]);
        assert_eq!(join(&[topic.clone(), header.clone(), long]), None);
        assert_eq!(
            join(&[topic.clone(), header.slice(1..), Bytes::new()]),
            None
        );
        assert_eq!(join(&[topic, header]), None);
        assert_eq!(join(&[]), None);
    }

    #[test]
    fn the_plain_form_is_a_word_and_the_text_or_a_topic_and_the_text() {
        assert_eq!(
            to_plain(PlainForm::One, "hello, world"),
            ["chat hello, world"]
        );
        let two = to_plain(PlainForm::Two, "hello, world");
        assert_eq!(two, ["chat_messages", "hello, world"]);
        let one = |bytes: &[u8]| from_plain(&[Bytes::copy_from_slice(bytes)]);
        assert_eq!(one(b"chat "), Some(String::new()));
        for form in [PlainForm::One, PlainForm::Two] {
            let read = |text: &str| from_plain(&to_plain(form, text));
            assert_eq!(read("a\n\u{1F980}"), Some("a\n\u{1F980}".into()));
            assert!(read(&"x".repeat(PLAIN_LEN_MAX)).is_some());
            assert!(read(&"x".repeat(PLAIN_LEN_MAX + 1)).is_none());
        }
        for bad in [
            &b"chat"[..],
            b"chatter on",
            b"chat_messages",
            b"",
            b"chat \xff",
        ] {
            assert_eq!(one(bad), None);
        }
        for bad in [
            ["chat", "a"],
            ["chat_messages ", "a"],
            ["chat_message", "a"],
        ] {
            assert_eq!(from_plain(&bad.map(Bytes::from)), None);
        }
        assert_eq!(
            from_plain(&["chat_messages", "a", "b"].map(Bytes::from)),
            None
        );
        assert_eq!(from_plain(&[]), None);
    }
}
