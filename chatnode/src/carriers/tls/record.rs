//! What stands on a link, behind the handshake: records, each a length, a kind and a body. Both sides
//! begin with a hello; from then on who accepted speaks, and who dialled listens.

use bytes::{Buf as _, Bytes, BytesMut};

use crate::model::mesh_name::MeshName;
use crate::model::names::Origin;
use crate::wire::frame::{FRAME_LEN_MAX, Topic};

/// Four bytes of length, of what follows them, the most significant first; one of kind.
const HEAD_LEN: usize = 5;
/// The kind of a hello. Others are topics.
const HELLO: u8 = 0;
/// Longest hello.
const HELLO_LEN_MAX: usize = 1024;
/// The version of all this.
const PROTOCOL: u32 = 1;
/// A link that is idle keeps a buffer of so many bytes,
const BUFFER_LEN_MIN: usize = 4 << 10;
/// and one that has much to read reads so much at once.
const BUFFER_LEN_MAX: usize = 64 << 10;

/// What a record is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Record {
    /// Who is there.
    Hello(Hello),
    /// A frame of the mesh; its body is a copy of its own.
    Frame(Topic, Bytes),
}

/// Who is there, and whether the two understand each other.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct Hello {
    protocol: u32,
    origin: String,
    mesh: String,
}

/// Why a link is of no use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Mismatch {
    /// It speaks another version.
    Protocol(u32),
    /// It belongs to another mesh.
    Mesh(MeshName),
    /// It is this node itself: somebody sends back what it says.
    Itself,
}

/// What came is no record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("what came is no frame of a node: {0}")]
pub(super) struct Broken(&'static str);

impl Hello {
    /// This node's.
    pub(super) fn of(me: Origin, mesh: &MeshName) -> Self {
        Self {
            protocol: PROTOCOL,
            origin: me.as_str().to_owned(),
            mesh: mesh.to_string(),
        }
    }

    /// The record of it.
    pub(super) fn to_record(&self) -> Bytes {
        let body = serde_json::to_vec(self).unwrap_or_default();
        let mut record = head(HELLO, body.len()).to_vec();
        record.extend_from_slice(&body);
        record.into()
    }

    /// Who says it, if the two understand each other.
    pub(super) fn understood(&self, me: Origin, mesh: &MeshName) -> Result<Origin, Mismatch> {
        let other = self.origin.parse::<Origin>().ok();
        let theirs = self.mesh.parse::<MeshName>().ok();
        match (other, theirs) {
            (Some(origin), Some(theirs)) if self.protocol == PROTOCOL => {
                if origin == me {
                    Err(Mismatch::Itself)
                } else if theirs != *mesh {
                    Err(Mismatch::Mesh(theirs))
                } else {
                    Ok(origin)
                }
            }
            _ => Err(Mismatch::Protocol(self.protocol)),
        }
    }
}

/// What precedes the body of a frame.
pub(super) fn head_of(topic: Topic, body: &Bytes) -> Bytes {
    let kind = match topic {
        Topic::Log => 1,
        Topic::Beat => 2,
        Topic::Live => 3,
        Topic::Ack(_) => 4,
    };
    Bytes::copy_from_slice(&head(kind, body.len()))
}

fn head(kind: u8, body_len: usize) -> [u8; HEAD_LEN] {
    let len = u32::try_from(body_len + 1).expect("a frame is short");
    let [a, b, c, d] = len.to_be_bytes();
    [a, b, c, d, kind]
}

/// Cuts what comes into records.
#[derive(Debug)]
pub(super) struct Reader {
    came: BytesMut,
    /// Of acknowledgements only those for this node are sent.
    me: Origin,
}

impl Reader {
    pub(super) fn new(me: Origin) -> Self {
        let came = BytesMut::with_capacity(BUFFER_LEN_MIN);
        Self { came, me }
    }

    /// Where what comes next is to be put, behind what is there.
    pub(super) fn space(&mut self) -> &mut BytesMut {
        if self.came.is_empty() && self.came.capacity() > BUFFER_LEN_MAX {
            self.came = BytesMut::with_capacity(BUFFER_LEN_MAX);
        } else if self.came.capacity() == self.came.len() {
            let more = self.came.len().clamp(BUFFER_LEN_MIN, BUFFER_LEN_MAX);
            self.came.reserve(more);
        }
        &mut self.came
    }

    /// The next record, if it is there.
    ///
    /// # Errors
    /// What came is none. Found before it is waited for, or room is made for it.
    pub(super) fn next(&mut self) -> Result<Option<Record>, Broken> {
        let [a, b, c, d, kind, ..] = self.came[..] else {
            return Ok(None);
        };
        let len = u32::from_be_bytes([a, b, c, d]) as usize;
        let most = if kind == HELLO {
            HELLO_LEN_MAX
        } else {
            FRAME_LEN_MAX
        };
        if len == 0 || len - 1 > most {
            return Err(Broken("its length"));
        }
        let end = HEAD_LEN + len - 1;
        if self.came.len() < end {
            return Ok(None);
        }
        let body = &self.came[HEAD_LEN..end];
        let record = match kind {
            HELLO => {
                let hello = serde_json::from_slice(body);
                Record::Hello(hello.map_err(|_| Broken("its hello"))?)
            }
            1 => Record::Frame(Topic::Log, Bytes::copy_from_slice(body)),
            2 => Record::Frame(Topic::Beat, Bytes::copy_from_slice(body)),
            3 => Record::Frame(Topic::Live, Bytes::copy_from_slice(body)),
            4 => Record::Frame(Topic::Ack(self.me), Bytes::copy_from_slice(body)),
            _ => return Err(Broken("its kind")),
        };
        self.came.advance(end);
        Ok(Some(record))
    }

    /// Whether nothing more has come.
    pub(super) fn is_empty(&self) -> bool {
        self.came.is_empty()
    }

    /// If it holds nothing, it needs no more room than an idle link.
    pub(super) fn rest(&mut self) {
        if self.came.is_empty() && self.came.capacity() > BUFFER_LEN_MIN {
            self.came = BytesMut::with_capacity(BUFFER_LEN_MIN);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn me() -> Origin {
        "aaaaaaaaaa".parse().unwrap()
    }

    fn read(bytes: &[u8]) -> Result<Vec<Record>, Broken> {
        let mut reader = Reader::new(me());
        let mut records = Vec::new();
        for byte in bytes {
            reader.space().extend_from_slice(&[*byte]);
            while let Some(record) = reader.next()? {
                records.push(record);
            }
        }
        Ok(records)
    }

    #[test]
    fn what_is_said_is_read_whatever_the_cuts() {
        let mesh = MeshName::default();
        let hello = Hello::of("bbbbbbbbbb".parse().unwrap(), &mesh);
        let body = Bytes::from_static(b"a frame");
        let mut bytes = hello.to_record().to_vec();
        for topic in [Topic::Log, Topic::Beat, Topic::Live, Topic::Ack(me())] {
            bytes.extend_from_slice(&head_of(topic, &body));
            bytes.extend_from_slice(&body);
        }
        let records = read(&bytes).unwrap();
        assert_eq!(records.len(), 5);
        assert_eq!(records[0], Record::Hello(hello.clone()));
        assert_eq!(records[4], Record::Frame(Topic::Ack(me()), body));
        assert_eq!(
            hello.understood(me(), &mesh),
            "bbbbbbbbbb".parse().map_err(|_| Mismatch::Itself)
        );
    }

    #[test]
    fn what_is_no_record_is_found_before_it_is_waited_for() {
        let long = u32::try_from(FRAME_LEN_MAX + 2).unwrap().to_be_bytes();
        for bytes in [
            &[0, 0, 0, 0, 1][..],
            &[0xff, 0xff, 0xff, 0xff, 1],
            &[long[0], long[1], long[2], long[3], 1],
            &[0, 0, 4, 2, 0],
            &[0, 0, 0, 1, 9],
            b"GET / HTTP/1.1\r\n\r\n",
            &[0, 0, 0, 3, 0, b'{', b'}'],
        ] {
            assert!(read(bytes).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn who_is_of_another_mesh_or_version_or_this_node_itself_is_not_understood() {
        let mine = MeshName::default();
        let other: MeshName = "blue".parse().unwrap();
        let them: Origin = "bbbbbbbbbb".parse().unwrap();
        assert_eq!(
            Hello::of(them, &other).understood(me(), &mine),
            Err(Mismatch::Mesh(other))
        );
        assert_eq!(
            Hello::of(me(), &mine).understood(me(), &mine),
            Err(Mismatch::Itself)
        );
        let mut hello = Hello::of(them, &mine);
        hello.protocol = 2;
        assert_eq!(hello.understood(me(), &mine), Err(Mismatch::Protocol(2)));
        hello.protocol = 1;
        hello.origin = "Not an origin".to_owned();
        assert!(hello.understood(me(), &mine).is_err());
    }
}
