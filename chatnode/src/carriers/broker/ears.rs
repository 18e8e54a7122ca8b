//! Whom a session hears, and what it believes of what comes.
//!
//! With a mesh secret nobody else can make a message, but whoever sees one can say it again: later, in
//! another order, for as long as he likes. So a node that is to be heard is asked first, by a number that
//! nobody has seen before, whether it is there; its answer is sealed as all that it says, and counted. What
//! it said before is not taken, and nothing is taken twice.

use std::collections::HashMap;

use base::tls::KeyId;

use super::channels::Channel;
use crate::core::links::LinkId;
use crate::model::names::Origin;

/// A node is asked so often; then it is not there.
const ASKS_MAX: u32 = 4;

/// A link that is connected now, with the key of its node.
pub(super) type Connection = (LinkId, Option<KeyId>);

/// A number that nobody has seen before.
pub(super) type Nonce = [u8; 16];

/// What a seal says of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seal {
    pub(super) author: Origin,
    pub(super) count: u64,
    pub(super) key: KeyId,
}

#[derive(Debug)]
struct Ear {
    link: LinkId,
    is_subscribed: bool,
    /// What it was asked, while it has not answered, and how often.
    asked: Option<(Nonce, u32)>,
    /// The counts of its last messages to all, and to this node.
    last_of: u64,
    last_to: u64,
    key: Option<KeyId>,
}

/// Whom a session hears.
#[derive(Debug, Default)]
pub(super) struct Ears(HashMap<Origin, Ear>);

impl Ears {
    /// A node is to be heard; with a mesh secret it is asked this first.
    pub(super) fn hear(&mut self, origin: Origin, link: LinkId, ask: Option<Nonce>) {
        let ear = Ear {
            link,
            is_subscribed: false,
            asked: ask.map(|nonce| (nonce, 1)),
            last_of: 0,
            last_to: 0,
            key: None,
        };
        self.0.insert(origin, ear);
    }

    /// It is heard no more on this link: whether it was.
    pub(super) fn leave(&mut self, origin: Origin, link: LinkId) -> bool {
        let was = self.0.get(&origin).is_some_and(|ear| ear.link == link);
        if was {
            self.0.remove(&origin);
        }
        was
    }

    /// The broker has confirmed its channel. The link that is connected by that.
    pub(super) fn subscribed(&mut self, origin: Origin, link: LinkId) -> Option<Connection> {
        let ear = self.0.get_mut(&origin).filter(|ear| ear.link == link)?;
        let was_subscribed = std::mem::replace(&mut ear.is_subscribed, true);
        (ear.asked.is_none() && !was_subscribed).then_some((link, ear.key))
    }

    /// A node answers. The link that is connected by that.
    pub(super) fn answered(&mut self, seal: Seal, nonce: Nonce) -> Option<Connection> {
        let ear = self.0.get_mut(&seal.author)?;
        ear.asked.filter(|(asked, _)| *asked == nonce)?;
        ear.asked = None;
        ear.last_of = seal.count;
        ear.last_to = seal.count;
        ear.key = Some(seal.key);
        ear.is_subscribed.then_some((ear.link, ear.key))
    }

    /// The link to which this belongs that came there, if it is to be believed. Without a secret all is.
    /// What comes on a node's channel may overtake the broker's word that it is subscribed to: then that
    /// link is connected by it.
    pub(super) fn takes(
        &mut self,
        channel: Channel,
        author: Origin,
        seal: Option<Seal>,
    ) -> Option<(LinkId, Option<Connection>)> {
        let ear = self.0.get_mut(&author)?;
        let of_all = !matches!(channel, Channel::To(_));
        if !ear.is_subscribed && !of_all {
            return None;
        }
        if let Some(seal) = seal {
            let last = match of_all {
                true => &mut ear.last_of,
                false => &mut ear.last_to,
            };
            if ear.asked.is_some() || seal.count <= *last {
                return None;
            }
            *last = seal.count;
        }
        let was_subscribed = std::mem::replace(&mut ear.is_subscribed, true);
        let connection = (!was_subscribed).then_some((ear.link, ear.key));
        Some((ear.link, connection))
    }

    /// Whether a node is heard on its own channel.
    pub(super) fn hears(&self, origin: Origin) -> bool {
        let ear = self.0.get(&origin);
        ear.is_some_and(|ear| ear.is_subscribed && ear.asked.is_none())
    }

    /// Who has not answered yet, to be asked once more.
    pub(super) fn ask_again(&mut self) -> Vec<(Origin, Nonce)> {
        let mut again = Vec::new();
        for (origin, ear) in &mut self.0 {
            if let Some((nonce, asks)) = &mut ear.asked {
                *asks += 1;
                again.push((*origin, *nonce));
            }
        }
        again
    }

    /// The links of those who were asked often and never answered.
    pub(super) fn silent(&self) -> Vec<LinkId> {
        let silent = |ear: &&Ear| ear.asked.is_some_and(|(_, asks)| asks >= ASKS_MAX);
        self.0.values().filter(silent).map(|ear| ear.link).collect()
    }

    /// The links of those whose key is accepted no more.
    pub(super) fn without_key(&self, accepts: impl Fn(KeyId) -> bool) -> Vec<LinkId> {
        let removed = |ear: &&Ear| ear.key.is_some_and(|key| !accepts(key));
        let ears = self.0.values().filter(removed);
        ears.map(|ear| ear.link).collect()
    }
}

#[cfg(test)]
mod tests {
    use base::seal::{Opener, SealRing, Sealer};

    use super::*;

    const NONCE: Nonce = [7; 16];

    fn origin(letter: char) -> Origin {
        letter.to_string().repeat(10).parse().unwrap()
    }

    fn seal(count: u64) -> Seal {
        let author = origin('b');
        Seal {
            author,
            count,
            key: key(),
        }
    }

    fn key() -> KeyId {
        let seeds = crate::carriers::tests::secrets(&[1]).of_brokers();
        let ring = SealRing::new(&seeds);
        let sealed = Sealer::new(ring.clone(), *b"bbbbbbbbbb").seal(b"", b"");
        Opener::new(ring).open(b"", &sealed).unwrap().key
    }

    #[test]
    fn nothing_is_taken_before_the_answer_nor_from_before_it_nor_twice() {
        let (me, b) = (origin('a'), origin('b'));
        let mut ears = Ears::default();
        ears.hear(b, LinkId(1), Some(NONCE));
        let of = Channel::Of(b);
        assert_eq!(ears.takes(of, b, Some(seal(4))), None);
        assert_eq!(ears.subscribed(b, LinkId(1)), None);
        assert_eq!(ears.answered(seal(5), [8; 16]), None, "to another question");
        let connected = ears.answered(seal(6), NONCE);
        assert_eq!(connected, Some((LinkId(1), Some(key()))));
        assert_eq!(ears.answered(seal(7), NONCE), None, "once");
        assert_eq!(ears.takes(of, b, Some(seal(5))), None, "from before");
        let taken = Some((LinkId(1), None));
        assert_eq!(ears.takes(of, b, Some(seal(7))), taken);
        assert_eq!(ears.takes(of, b, Some(seal(7))), None, "twice");
        let to = Channel::To(me);
        assert_eq!(ears.takes(to, b, Some(seal(7))), taken);
        assert_eq!(ears.takes(of, origin('c'), Some(seal(9))), None);
        assert_eq!(ears.without_key(|_| false), [LinkId(1)]);
        assert_eq!(ears.without_key(|_| true), []);
        assert!(!ears.leave(b, LinkId(2)) && ears.leave(b, LinkId(1)));
    }

    #[test]
    fn the_answer_may_come_before_the_subscription_is_confirmed() {
        let b = origin('b');
        let mut ears = Ears::default();
        ears.hear(b, LinkId(1), Some(NONCE));
        assert_eq!(ears.answered(seal(1), NONCE), None);
        assert_eq!(ears.subscribed(b, LinkId(9)), None, "of another link");
        assert!(ears.subscribed(b, LinkId(1)).is_some());
    }

    #[test]
    fn what_overtakes_the_word_that_it_is_subscribed_to_connects_once() {
        let (me, b) = (origin('a'), origin('b'));
        for ask in [None, Some(NONCE)] {
            let mut ears = Ears::default();
            ears.hear(b, LinkId(1), ask);
            let seal = |count| ask.map(|_| seal(count));
            if let Some(seal) = seal(1) {
                assert_eq!(ears.answered(seal, NONCE), None);
            }
            assert_eq!(ears.takes(Channel::To(me), b, seal(2)), None);
            let connection = (LinkId(1), ask.map(|_| key()));
            let taken = ears.takes(Channel::Of(b), b, seal(3));
            assert_eq!(taken, Some((LinkId(1), Some(connection))));
            assert_eq!(ears.subscribed(b, LinkId(1)), None, "it is already");
            let taken = ears.takes(Channel::Of(b), b, seal(4));
            assert_eq!(taken, Some((LinkId(1), None)));
        }
    }

    #[test]
    fn who_never_answers_is_given_up() {
        let b = origin('b');
        let mut ears = Ears::default();
        ears.hear(b, LinkId(1), Some(NONCE));
        for _ in 1..ASKS_MAX {
            assert_eq!(ears.silent(), []);
            assert_eq!(ears.ask_again(), [(b, NONCE)]);
        }
        assert_eq!(ears.silent(), [LinkId(1)]);
    }

    #[test]
    fn without_a_secret_all_is_taken() {
        let b = origin('b');
        let mut ears = Ears::default();
        ears.hear(b, LinkId(1), None);
        assert_eq!(ears.subscribed(b, LinkId(1)), Some((LinkId(1), None)));
        for _ in 0..2 {
            let taken = Some((LinkId(1), None));
            assert_eq!(ears.takes(Channel::Of(b), b, None), taken);
        }
        assert_eq!((ears.ask_again(), ears.silent()), (vec![], vec![]));
    }
}
