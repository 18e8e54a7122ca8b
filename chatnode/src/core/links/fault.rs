//! Why a peer is not linked: a word for programs, a sentence for people.

/// Why, as a word that does not change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    /// Nobody listens there.
    Refused,
    /// There was no answer in time.
    TimedOut,
    /// There is no way there: no such name, no route.
    Unreachable,
    /// What listens there is no publisher.
    NoPublisher,
    /// What listens there is no broker, or not the one that nodes can meet at.
    NoBroker,
    /// The connection ended.
    Ended,
    /// It is connected, and no beat comes.
    Silent,
    /// What came was ever older.
    Behind,
    /// Another node is there than the one that was expected.
    OtherNode,
    /// A node of another mesh is there.
    OtherMesh,
    /// Somebody else is heard, or this node is, at the same endpoint.
    SameEndpoint,
    /// It is told to be on loopback, and other machines are in this mesh.
    Loopback,
    /// Of the two one has a mesh secret, and the other has none.
    NotSealed,
    /// It has another mesh secret, or one that was removed.
    OtherKey,
    /// It did not let this node in, so that it does not hear it.
    NotLetIn,
}

impl Why {
    /// The word.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::TimedOut => "timed_out",
            Self::Unreachable => "unreachable",
            Self::NoPublisher => "no_publisher",
            Self::NoBroker => "no_broker",
            Self::Ended => "ended",
            Self::Silent => "silent",
            Self::Behind => "behind",
            Self::OtherNode => "other_node",
            Self::OtherMesh => "other_mesh",
            Self::SameEndpoint => "same_endpoint",
            Self::Loopback => "loopback",
            Self::NotSealed => "not_sealed",
            Self::OtherKey => "other_key",
            Self::NotLetIn => "not_let_in",
        }
    }
}

/// Longest sentence; what is longer is cut.
const TEXT_LEN_MAX: usize = 255;

/// Why a peer is not linked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    /// In a word.
    pub(crate) why: Why,
    /// In a sentence, one line.
    pub(crate) text: String,
}

impl Fault {
    /// A fault; of the sentence so much is kept as fits.
    pub(crate) fn new(why: Why, text: impl Into<String>) -> Self {
        let mut text: String = text.into();
        text.truncate(text.floor_char_boundary(TEXT_LEN_MAX));
        Self { why, text }
    }

    /// The connection ended.
    pub(crate) fn ended() -> Self {
        Self::new(Why::Ended, "the connection ended")
    }

    /// Nobody listens there.
    pub(crate) fn refused() -> Self {
        Self::new(Why::Refused, "refused: nobody listens there")
    }
}
