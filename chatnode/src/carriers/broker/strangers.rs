//! Others on a broker that this node cannot hear, since the one has a mesh secret and the other has none, or
//! another. Nobody else could tell either of them: by the broker they never meet.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use base::seal::key_of;
use bytes::Bytes;
use tokio::time::Instant;

use super::Seals;
use super::channels::{Channel, from_message};
use crate::core::links::fault::{Fault, Why};

/// How long after the last beat of such a node it is told of: nodes beat each second.
const TOLD_FOR: Duration = Duration::from_secs(5);
/// The log tells of them no more often: anybody may say anything on a broker.
const LOGGED_EVERY: Duration = Duration::from_secs(60);

/// What such a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stranger {
    /// It has a mesh secret, this node has none.
    Sealed,
    /// It has none, this node has one.
    Bare,
    /// It has another.
    OtherKey,
}

impl Stranger {
    /// What beat there that could not be read, if it is a node's.
    pub(super) fn of(seals: Option<&Seals>, message: &Bytes) -> Option<Self> {
        match (seals, key_of(message)) {
            (None, Some(_)) => Some(Self::Sealed),
            (Some(seals), Some(key)) => (!seals.ring.accepts(key)).then_some(Self::OtherKey),
            (Some(_), None) => from_message(Channel::Hall, message).map(|_| Self::Bare),
            (None, None) => None,
        }
    }

    fn fault(self) -> Fault {
        let (why, text) = match self {
            Self::Sealed => (
                Why::NotSealed,
                "others on this broker have a mesh secret, and this node has none: --mesh-secret FILE",
            ),
            Self::Bare => (
                Why::NotSealed,
                "others on this broker have no mesh secret, and are not heard",
            ),
            Self::OtherKey => (
                Why::OtherKey,
                "others on this broker have another mesh secret, and are not heard",
            ),
        };
        Fault::new(why, text)
    }
}

/// The last of them.
#[derive(Debug, Default)]
pub(crate) struct Strangers(Mutex<Option<Last>>);

#[derive(Debug, Clone, Copy)]
struct Last {
    stranger: Stranger,
    came: Instant,
    logged: Instant,
}

impl Strangers {
    /// One beats.
    pub(super) fn came(&self, stranger: Stranger) {
        if self.is_news(stranger, Instant::now()) {
            tracing::warn!("{}", stranger.fault().text);
        }
    }

    /// Takes note of it: whether the log is to tell.
    fn is_news(&self, stranger: Stranger, now: Instant) -> bool {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_news = last.is_none_or(|last| {
            let lasts = last.stranger == stranger && now < last.came + TOLD_FOR;
            !lasts && now >= last.logged + LOGGED_EVERY
        });
        let logged = match *last {
            Some(last) if !is_news => last.logged,
            _ => now,
        };
        *last = Some(Last {
            stranger,
            came: now,
            logged,
        });
        is_news
    }

    /// What is wrong with them, if one beat a moment ago.
    pub(crate) fn now(&self) -> Option<Fault> {
        self.at(Instant::now())
    }

    fn at(&self, now: Instant) -> Option<Fault> {
        let last = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let last = last.filter(|last| now < last.came + TOLD_FOR)?;
        Some(last.stranger.fault())
    }
}

#[cfg(test)]
mod tests {
    use base::seal::SealRing;

    use super::*;
    use crate::carriers::broker::channels::to_message;
    use crate::carriers::tests::{secrets, some_beat};
    use crate::wire::frame::{Topic, encode};

    #[test]
    fn whose_beat_it_is_that_cannot_be_read_is_known() {
        let me = "k3f7q2m7xa".parse().unwrap();
        let seals = |number| Seals::new(SealRing::new(&secrets(&[number]).of_brokers()), me);
        let (ours, theirs) = (seals(1), seals(2));
        let bare = to_message(Topic::Beat, &encode(&some_beat(me)));
        let of = |message: &Bytes| {
            [None, Some(&ours)].map(|seals: Option<&Seals>| Stranger::of(seals, message))
        };
        // To a node without a secret, and to one that has the first.
        assert_eq!(of(&bare), [None, Some(Stranger::Bare)]);
        let sealed = of(&theirs.seal("beat", &bare));
        assert_eq!(sealed, [Some(Stranger::Sealed), Some(Stranger::OtherKey)]);
        // Its own secret, and yet not to be read: somebody has changed it.
        let sealed = of(&ours.seal("beat", &bare));
        assert_eq!(sealed, [Some(Stranger::Sealed), None]);
        assert_eq!(of(&Bytes::from_static(b"noise")), [None, None]);
    }

    #[test]
    fn one_is_told_of_while_it_beats_and_logged_once_a_minute_at_most() {
        let strangers = Strangers::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(strangers.at(at(0)), None);
        assert!(strangers.is_news(Stranger::Bare, at(0)));
        for seconds in 1..100 {
            assert!(!strangers.is_news(Stranger::Bare, at(seconds)), "it lasts");
        }
        let why = |seconds| strangers.at(at(seconds)).map(|fault| fault.why);
        assert_eq!(why(103), Some(Why::NotSealed));
        assert_eq!(why(104), None);
        assert!(strangers.is_news(Stranger::OtherKey, at(104)));
        assert!(!strangers.is_news(Stranger::Bare, at(105)), "too soon");
        assert_eq!(why(105), Some(Why::NotSealed));
    }
}
