//! Messages that go by somebody else's server, sealed with keys that come of the mesh secret: nobody else
//! reads one, or makes one that is taken.
//!
//! Each author has a key of its own (HKDF of a seed and its name) and counts its messages; the count is
//! the nonce, so a name is for one life only. What a message says of itself stands before it, and is
//! sealed with it, as is where it was said: on another channel it is none.
//!
//! A seal does not tell when something was said. Who must know it compares counts: see [`Opened`].

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, Prk};
use tokio::sync::watch;

use crate::secret::Seed;
use crate::tls::KeyId;

/// Bytes of an author's name.
pub const AUTHOR_LEN: usize = 10;
/// The form of all that stands here.
const VERSION: u8 = 1;
/// What stands before the sealed bytes: version, key, author, count.
const HEAD_LEN: usize = 1 + 4 + AUTHOR_LEN + 8;
/// What a seal adds to a message: what stands before it, and its tag.
pub const SEAL_LEN: usize = HEAD_LEN + 16;

/// An author's name.
pub type Author = [u8; AUTHOR_LEN];

/// The keys as they are now: with which messages are sealed, which are accepted. Clones are the same
/// keys.
#[derive(Clone)]
pub struct SealRing {
    keys: Arc<RwLock<Arc<[Key]>>>,
    changed: watch::Sender<()>,
}

#[derive(Clone)]
struct Key {
    id: KeyId,
    prk: Prk,
}

impl Key {
    fn of(seed: &Seed) -> Self {
        Self {
            id: KeyId::of(&seed.0),
            prk: Prk::new_less_safe(HKDF_SHA256, &seed.0),
        }
    }

    fn for_author(&self, author: &Author) -> LessSafeKey {
        let info = [author.as_slice()];
        let key = self.prk.expand(&info, &AES_256_GCM);
        let key = key.expect("a key is shorter than HKDF's longest output");
        LessSafeKey::new(UnboundKey::from(key))
    }
}

impl fmt::Debug for SealRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ids = self.now().iter().map(|key| key.id).collect::<Vec<_>>();
        f.debug_list().entries(ids).finish()
    }
}

impl SealRing {
    /// Keys of these seeds; the first seals.
    ///
    /// # Panics
    /// If there is no seed.
    pub fn new(seeds: &[Seed]) -> Self {
        Self {
            keys: Arc::new(RwLock::new(keys(seeds))),
            changed: watch::Sender::new(()),
        }
    }

    /// From now on the keys of these seeds; as [`Self::new`].
    pub fn replace(&self, seeds: &[Seed]) {
        let keys = keys(seeds);
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = keys;
        self.changed.send_replace(());
    }

    /// Tells of each [`Self::replace`].
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Whether a key is accepted still.
    pub fn accepts(&self, id: KeyId) -> bool {
        self.now().iter().any(|key| key.id == id)
    }

    fn now(&self) -> Arc<[Key]> {
        Arc::clone(&self.keys.read().unwrap_or_else(PoisonError::into_inner))
    }
}

fn keys(seeds: &[Seed]) -> Arc<[Key]> {
    assert!(!seeds.is_empty(), "a mesh has a key");
    seeds.iter().map(Key::of).collect()
}

/// Seals what one author says. There is one for each life of an author, or nonces would be used twice.
pub struct Sealer {
    ring: SealRing,
    author: Author,
    count: u64,
    key: Option<(KeyId, LessSafeKey)>,
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealer")
            .field("count", &self.count)
            .finish_non_exhaustive()
    }
}

impl Sealer {
    /// For this author, who has said nothing yet.
    pub fn new(ring: SealRing, author: Author) -> Self {
        Self {
            ring,
            author,
            count: 0,
            key: None,
        }
    }

    /// How many were sealed: the count of the last.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The message, for this channel only.
    pub fn seal(&mut self, channel: &[u8], message: &[u8]) -> Vec<u8> {
        let keys = self.ring.now();
        let first = &keys[0];
        if self.key.as_ref().is_none_or(|(id, _)| *id != first.id) {
            self.key = Some((first.id, first.for_author(&self.author)));
        }
        let (id, key) = self.key.as_ref().expect("it was made above");
        self.count += 1;
        let mut sealed = Vec::with_capacity(SEAL_LEN + message.len());
        sealed.push(VERSION);
        sealed.extend_from_slice(&id.0);
        sealed.extend_from_slice(&self.author);
        sealed.extend_from_slice(&self.count.to_be_bytes());
        let aad = aad(channel, &sealed);
        sealed.extend_from_slice(message);
        let tag = key.seal_in_place_separate_tag(
            nonce(self.count),
            Aad::from(aad),
            &mut sealed[HEAD_LEN..],
        );
        let tag = tag.expect("a message is shorter than the cipher's longest");
        sealed.extend_from_slice(tag.as_ref());
        sealed
    }
}

/// The key with which this was sealed, as it says itself, if it has the form of something that is sealed.
pub fn key_of(sealed: &[u8]) -> Option<KeyId> {
    let (version, rest) = sealed.split_first()?;
    let has_form = *version == VERSION && sealed.len() >= SEAL_LEN;
    let id = rest.first_chunk::<4>().filter(|_| has_form)?;
    Some(KeyId(*id))
}

/// A message, and what its seal says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    /// Who said it.
    pub author: Author,
    /// The author's how-manieth message it is, from 1. Whoever keeps a message, and says it again, cannot
    /// change that.
    pub count: u64,
    /// The key.
    pub key: KeyId,
    /// What was said.
    pub message: Vec<u8>,
}

/// Opens what others sealed.
pub struct Opener {
    ring: SealRing,
    /// The key of whoever spoke last; most messages come in runs.
    last: Option<(KeyId, Author, LessSafeKey)>,
}

impl fmt::Debug for Opener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opener").finish_non_exhaustive()
    }
}

impl Opener {
    /// With these keys.
    pub fn new(ring: SealRing) -> Self {
        Self { ring, last: None }
    }

    /// What was said on this channel; `None` for what nobody with an accepted key sealed for it.
    pub fn open(&mut self, channel: &[u8], sealed: &[u8]) -> Option<Opened> {
        let (head, body) = sealed.split_at_checked(HEAD_LEN)?;
        let (version, rest) = head.split_first()?;
        let (id, rest) = rest.split_first_chunk::<4>()?;
        let (author, rest) = rest.split_first_chunk::<AUTHOR_LEN>()?;
        let count = u64::from_be_bytes(rest.try_into().ok()?);
        let id = KeyId(*id);
        if *version != VERSION || !self.ring.accepts(id) {
            return None;
        }
        let key = self.key(id, author)?;
        let mut message = body.to_vec();
        let aad = Aad::from(aad(channel, head));
        let opened = key.open_in_place(nonce(count), aad, &mut message).ok()?;
        let len = opened.len();
        message.truncate(len);
        Some(Opened {
            author: *author,
            count,
            key: id,
            message,
        })
    }

    fn key(&mut self, id: KeyId, author: &Author) -> Option<&LessSafeKey> {
        let is_last = |(last, of, _): &(KeyId, Author, LessSafeKey)| *last == id && of == author;
        if !self.last.as_ref().is_some_and(is_last) {
            let keys = self.ring.now();
            let key = keys.iter().find(|key| key.id == id)?;
            self.last = Some((id, *author, key.for_author(author)));
        }
        self.last.as_ref().map(|(_, _, key)| key)
    }
}

/// The channel's length too: no two pairs of channel and head are alike.
fn aad(channel: &[u8], head: &[u8]) -> Vec<u8> {
    let len = channel.len() as u64;
    [&len.to_be_bytes(), channel, head].concat()
}

fn nonce(count: u64) -> Nonce {
    let mut nonce = [0; NONCE_LEN];
    nonce[NONCE_LEN - 8..].copy_from_slice(&count.to_be_bytes());
    Nonce::assume_unique_for_key(nonce)
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Author = *b"aaaaaaaaaa";
    const B: Author = *b"bbbbbbbbbb";

    fn ring(seeds: &[u8]) -> SealRing {
        let seeds: Vec<Seed> = seeds.iter().map(|seed| Seed([*seed; 32])).collect();
        SealRing::new(&seeds)
    }

    #[test]
    fn what_was_sealed_is_opened_by_who_has_the_key_and_on_that_channel_only() {
        let mut sealer = Sealer::new(ring(&[1]), A);
        let sealed = sealer.seal(b"c", b"hello");
        assert!(!sealed.windows(5).any(|it| it == b"hello"));
        assert_eq!(sealed.len(), 5 + SEAL_LEN);
        let mut opener = Opener::new(ring(&[2, 1]));
        let opened = opener.open(b"c", &sealed).unwrap();
        assert_eq!(
            (opened.author, opened.count, &*opened.message),
            (A, 1, &b"hello"[..])
        );
        assert_eq!(opener.open(b"d", &sealed), None);
        assert_eq!(Opener::new(ring(&[2])).open(b"c", &sealed), None);
        let again = sealer.seal(b"c", b"hello");
        assert_ne!(again, sealed);
        assert_eq!(opener.open(b"c", &again).unwrap().count, 2);
    }

    #[test]
    fn no_byte_of_it_can_be_another() {
        let mut sealer = Sealer::new(ring(&[1]), A);
        let sealed = sealer.seal(b"c", b"hello");
        let mut opener = Opener::new(ring(&[1]));
        for at in 0..sealed.len() {
            let mut other = sealed.clone();
            other[at] ^= 1;
            assert_eq!(opener.open(b"c", &other), None, "{at}");
            assert_eq!(opener.open(b"c", &sealed[..at]), None, "{at}");
        }
        // Nor can another say that it said it.
        let mut other = sealed.clone();
        other[5..5 + AUTHOR_LEN].copy_from_slice(&B);
        assert_eq!(opener.open(b"c", &other), None);
        assert!(opener.open(b"c", &sealed).is_some());
    }

    #[test]
    fn keys_are_changed_while_messages_come() {
        let ring = ring(&[1]);
        let (mut sealer, mut opener) = (Sealer::new(ring.clone(), A), Opener::new(ring.clone()));
        let old = sealer.seal(b"c", b"1");
        let first = opener.open(b"c", &old).unwrap().key;
        ring.replace(&[Seed([2; 32]), Seed([1; 32])]);
        assert!(opener.open(b"c", &old).is_some());
        let new = sealer.seal(b"c", b"2");
        assert_ne!(opener.open(b"c", &new).unwrap().key, first);
        ring.replace(&[Seed([2; 32])]);
        assert_eq!(opener.open(b"c", &old), None, "its key was removed");
        assert!(opener.open(b"c", &new).is_some() && !ring.accepts(first));
    }
}
