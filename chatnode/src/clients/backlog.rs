//! What a socket did not take: where its client is in what was said, and what is for it alone.

use std::collections::VecDeque;
use std::fmt;
use std::io::IoSlice;
use std::time::Duration;

use bytes::Bytes;

use super::spool::{ChunkId, Spool};

/// Bytes that may wait for one client; over it for [`SLOW_FOR`], the client is closed as slow.
pub(crate) const QUEUE_BYTES_MAX: usize = 1 << 20;
/// Messages that may wait for one client, alike.
pub(crate) const QUEUE_MESSAGES_MAX: u32 = 512;
/// How long a client may be over a bound.
pub(crate) const SLOW_FOR: Duration = Duration::from_secs(2);
/// Bytes at which a client is closed as slow at once.
pub(crate) const QUEUE_BYTES_HARD_MAX: usize = 8 << 20;

/// A client whose socket took nothing for so long while something waits is closed as slow.
pub(crate) const STALLED_MAX: Duration = Duration::from_secs(10);

/// Small replies are put together up to this many bytes.
const TOGETHER_BYTES: usize = 4096;
/// Slices that are written at once.
const SLICES: usize = 16;

/// What is made for one client as it takes it: what it missed, which may be much.
pub(crate) struct Replay(Box<dyn Iterator<Item = Bytes> + Send>);

impl Replay {
    /// Of these parts.
    pub(crate) fn new(parts: impl Iterator<Item = Bytes> + Send + 'static) -> Self {
        Self(Box::new(parts))
    }
}

impl fmt::Debug for Replay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Replay")
    }
}

/// A part of what waits, in the order in which it is written. Each begins at a frame, but for what
/// was written already.
#[derive(Debug)]
enum Piece {
    /// What is for this client alone: replies, mostly.
    Own {
        frames: Vec<u8>,
        written: usize,
        messages: u32,
    },
    /// What is made as it is taken.
    Replay { replay: Replay, part: Bytes },
    /// A room's chunks.
    Run {
        at: ChunkId,
        written: usize,
        last: ChunkId,
    },
}

/// What waits for a socket.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    pieces: VecDeque<Piece>,
    bytes: usize,
    messages: u32,
    drained: u64,
    granted: usize,
    over_since: Option<Duration>,
    /// How far it had drained when it was looked at, and when that was.
    progress: Option<(u64, Duration)>,
}

impl Backlog {
    /// Bytes of a reply that the client asked for do not make it slow.
    pub(super) fn grant(&mut self, bytes: usize) {
        self.granted += bytes;
    }

    pub(super) fn len(&self) -> usize {
        self.bytes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Queues whole frames for this client alone, of which so much was written.
    pub(super) fn queue_own(&mut self, frames: Vec<u8>, written: usize, messages: u32) {
        self.bytes += frames.len() - written;
        self.messages += messages;
        if let Some(Piece::Own {
            frames: before,
            messages: count,
            ..
        }) = self.pieces.back_mut()
            && written == 0
            && before.len() + frames.len() <= TOGETHER_BYTES
        {
            before.extend_from_slice(&frames);
            *count += messages;
            return;
        }
        self.pieces.push_back(Piece::Own {
            frames,
            written,
            messages,
        });
    }

    /// Queues what is made as it is taken.
    pub(super) fn queue_replay(&mut self, replay: Replay) {
        let part = Bytes::new();
        self.pieces.push_back(Piece::Replay { replay, part });
    }

    /// Makes the next part of a replay that is at the front.
    fn make_next(&mut self) {
        while let Some(Piece::Replay { replay, part }) = self.pieces.front_mut()
            && part.is_empty()
        {
            match replay.0.next() {
                Some(next) => {
                    self.bytes += next.len();
                    *part = next;
                }
                None => drop(self.pieces.pop_front()),
            }
        }
    }

    /// Queues a room's chunk, of which so much was written, or is not for it.
    pub(super) fn queue_chunk(&mut self, spool: &mut Spool, chunk: ChunkId, written: usize) {
        self.bytes += spool.len(chunk) - written;
        self.messages += spool.messages(chunk);
        spool.hold(chunk);
        if let Some(Piece::Run { last, .. }) = self.pieces.back_mut()
            && written == 0
            && spool.next(*last) == Some(chunk)
        {
            *last = chunk;
            return;
        }
        self.pieces.push_back(Piece::Run {
            at: chunk,
            written,
            last: chunk,
        });
    }

    /// Has some of what is next written; how much of it there was, and how much of that the socket
    /// took.
    ///
    /// # Errors
    /// Those of `write`.
    pub(super) fn write<E>(
        &mut self,
        spool: &mut Spool,
        write: impl FnOnce(&[IoSlice<'_>]) -> Result<usize, E>,
    ) -> Result<(usize, usize), E> {
        self.make_next();
        let mut slices = [IoSlice::new(&[]); SLICES];
        let mut count = 0;
        for piece in &self.pieces {
            match piece {
                Piece::Own {
                    frames, written, ..
                } => {
                    slices[count] = IoSlice::new(&frames[*written..]);
                    count += 1;
                }
                Piece::Replay { part, .. } => {
                    slices[count] = IoSlice::new(part);
                    count += 1;
                    // What comes behind it is not known yet.
                    break;
                }
                Piece::Run { at, written, last } => {
                    let (mut at, mut skip) = (Some(*at), *written);
                    while let Some(chunk) = at.filter(|_| count < SLICES) {
                        slices[count] = IoSlice::new(&spool.bytes(chunk)[skip..]);
                        count += 1;
                        skip = 0;
                        at = spool.next(chunk).filter(|_| chunk != *last);
                    }
                }
            }
            if count == SLICES {
                break;
            }
        }
        let offered = slices[..count].iter().map(|slice| slice.len()).sum();
        let taken = write(&slices[..count])?;
        self.pass(spool, taken);
        Ok((offered, taken))
    }

    /// The socket took so many bytes.
    fn pass(&mut self, spool: &mut Spool, count: usize) {
        self.bytes -= count;
        self.drained += count as u64;
        self.granted = self.granted.saturating_sub(count);
        let mut left = count;
        while let Some(piece) = self.pieces.front_mut() {
            let (len, written) = match piece {
                Piece::Replay { part, .. } => return drop(part.split_to(left)),
                Piece::Own {
                    frames, written, ..
                } => (frames.len(), written),
                Piece::Run { at, written, .. } => (spool.len(*at), written),
            };
            if left < len - *written {
                *written += left;
                return;
            }
            left -= len - *written;
            self.pass_front(spool);
            if left == 0 {
                return;
            }
        }
    }

    /// The first chunk of what waits, or all of it that is no chunk, is through.
    fn pass_front(&mut self, spool: &mut Spool) {
        match self.pieces.front_mut() {
            Some(Piece::Run { at, written, last }) => {
                let passed = *at;
                self.messages -= spool.messages(passed);
                let next = spool.next(passed).filter(|_| passed != *last);
                spool.release(passed);
                if let Some(next) = next {
                    (*at, *written) = (next, 0);
                    return;
                }
            }
            Some(Piece::Own { messages, .. }) => self.messages -= *messages,
            Some(Piece::Replay { .. }) | None => {}
        }
        self.pieces.pop_front();
    }

    /// Gives up all but the frame that is partly written, and ends with this one.
    pub(super) fn give_up(&mut self, spool: &mut Spool, end: &[u8]) {
        let rest = match self.pieces.front() {
            Some(Piece::Own {
                frames, written, ..
            }) => frame_rest(frames, *written),
            Some(Piece::Run { at, written, .. }) => frame_rest(spool.bytes(*at), *written),
            Some(Piece::Replay { .. }) | None => &[],
        };
        let frames = [rest, end].concat();
        self.clear(spool);
        if !frames.is_empty() {
            self.queue_own(frames, 0, 0);
        }
    }

    /// Nothing waits any more.
    pub(super) fn clear(&mut self, spool: &mut Spool) {
        while !self.pieces.is_empty() {
            self.pass_front(spool);
        }
        self.bytes = 0;
    }

    /// Bytes that wait and are this client's own.
    pub(super) fn own(&self) -> usize {
        let own = |piece: &Piece| match piece {
            Piece::Own {
                frames, written, ..
            } => frames.len() - written,
            Piece::Run { .. } | Piece::Replay { .. } => 0,
        };
        self.pieces.iter().map(own).sum()
    }

    /// The oldest chunk that waits.
    pub(super) fn oldest(&self) -> Option<u64> {
        let serial = |piece: &Piece| match piece {
            Piece::Run { at, .. } => Some(at.serial),
            Piece::Own { .. } | Piece::Replay { .. } => None,
        };
        self.pieces.iter().filter_map(serial).min()
    }

    /// Whether the client is to be closed.
    pub(super) fn is_slow(&mut self, now: Duration) -> bool {
        if self.is_empty() {
            return false;
        }
        let (drained, at) = *self.progress.get_or_insert((self.drained, now));
        if drained != self.drained {
            self.progress = Some((self.drained, now));
        } else if now >= at + STALLED_MAX {
            return true;
        }
        let owed = self.bytes.saturating_sub(self.granted);
        if owed <= QUEUE_BYTES_MAX && self.messages <= QUEUE_MESSAGES_MAX {
            self.over_since = None;
            return false;
        }
        let since = *self.over_since.get_or_insert(now);
        self.bytes > QUEUE_BYTES_HARD_MAX || now >= since + SLOW_FOR
    }
}

/// What is left of the frame of which something was written before this place; nothing if the place
/// is where one begins.
fn frame_rest(frames: &[u8], written: usize) -> &[u8] {
    let mut end = 0;
    while end < written {
        end += frame_length(frames[end..].iter().copied()).max(1);
    }
    &frames[written..end]
}

/// The length of the server's frame that starts here (RFC 6455 section 5.2, never masked); 0 if
/// nothing does.
fn frame_length(mut bytes: impl Iterator<Item = u8>) -> usize {
    let Some(length) = bytes.nth(1) else { return 0 };
    let wide = |bytes: &mut dyn Iterator<Item = u8>, count| {
        bytes
            .take(count)
            .fold(0, |length, byte| length << 8 | usize::from(byte))
    };
    match length {
        126 => 4 + wide(&mut bytes, 2),
        127 => 10 + wide(&mut bytes, 8),
        length => 2 + usize::from(length),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clients::websocket::append_text;
    use proptest::prelude::*;

    fn frames(lengths: &[usize]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for length in lengths {
            append_text(&mut bytes, &[&vec![b'x'; *length]]);
        }
        bytes
    }

    /// Lets a socket take so many bytes; which.
    fn take(backlog: &mut Backlog, spool: &mut Spool, most: usize) -> Vec<u8> {
        let mut taken = Vec::new();
        while taken.len() < most && !backlog.is_empty() {
            let written = backlog.write(spool, |slices| {
                let all: Vec<u8> = slices
                    .iter()
                    .flat_map(|slice| slice.iter().copied())
                    .collect();
                let count = all.len().min(most - taken.len());
                taken.extend_from_slice(&all[..count]);
                Ok::<_, ()>(count)
            });
            written.unwrap();
        }
        taken
    }

    /// What is queued in one turn: for a client alone, or for its room.
    #[derive(Debug, Clone)]
    enum Turn {
        Own(Vec<usize>),
        Room(Vec<usize>),
    }

    fn turns() -> impl Strategy<Value = Vec<Turn>> {
        let length = || prop_oneof![0usize..200, Just(126), 65_000usize..66_000];
        let lengths = || prop::collection::vec(length(), 1..4);
        let turn = prop_oneof![
            lengths().prop_map(Turn::Own),
            lengths().prop_map(Turn::Room),
            lengths().prop_map(Turn::Room),
        ];
        prop::collection::vec(turn, 1..12)
    }

    proptest! {
        /// However the socket took its bytes, they are what was queued, in order, and when it is given up
        /// the close frame stands behind a whole frame, and nothing is kept.
        #[test]
        fn what_is_taken_is_what_was_queued(
            turns in turns(),
            written in 0usize..1000,
            taken in 0usize..1000,
        ) {
            let (mut backlog, mut spool) = (Backlog::default(), Spool::default());
            let part = |of: usize, thousandths: usize| of * thousandths / 1000;
            let (mut all, mut ends, mut last) = (Vec::new(), vec![0], None);
            let mut sent = Vec::new();
            for (turn, lengths) in turns.iter().enumerate() {
                let (is_own, lengths) = match lengths {
                    Turn::Own(lengths) => (true, lengths),
                    Turn::Room(lengths) => (false, lengths),
                };
                let bytes = frames(lengths);
                // Of the first, the socket took a part at once.
                let written = if turn == 0 { part(bytes.len() - 1, written) } else { 0 };
                sent.extend_from_slice(&bytes[..written]);
                let start = all.len();
                ends.extend((1..=lengths.len()).map(|count| start + frames(&lengths[..count]).len()));
                all.extend_from_slice(&bytes);
                if is_own {
                    backlog.queue_own(bytes, written, 1);
                } else {
                    let chunk = spool.add(bytes.len(), 1, last);
                    last = Some(chunk);
                    backlog.queue_chunk(&mut spool, chunk, written);
                    prop_assert_eq!(spool.fill(chunk, bytes), None);
                }
            }
            let most = part(backlog.len(), taken);
            sent.extend(take(&mut backlog, &mut spool, most));
            prop_assert_eq!(&sent[..], &all[..sent.len()]);
            prop_assert_eq!(backlog.len(), all.len() - sent.len());
            backlog.give_up(&mut spool, b"CLOSE");
            prop_assert_eq!(spool.size(), 0);
            sent.extend(take(&mut backlog, &mut spool, usize::MAX));
            let sent = sent.strip_suffix(b"CLOSE").unwrap();
            prop_assert!(ends.contains(&sent.len()), "{} of {:?}", sent.len(), ends);
            prop_assert_eq!(sent, &all[..sent.len()]);
        }
    }

    #[test]
    fn a_client_is_slow_when_too_much_waits_for_two_seconds() {
        let mut backlog = Backlog::default();
        backlog.queue_own(vec![0; QUEUE_BYTES_MAX + 1], 0, 1);
        assert!(!backlog.is_slow(Duration::ZERO));
        assert!(!backlog.is_slow(Duration::from_millis(1999)));
        assert!(backlog.is_slow(SLOW_FOR));
        let mut asked = Backlog::default();
        asked.grant(QUEUE_BYTES_MAX + 1);
        asked.queue_own(vec![0; QUEUE_BYTES_MAX + 1], 0, 1);
        assert!(
            !asked.is_slow(Duration::ZERO) && !asked.is_slow(SLOW_FOR),
            "it asked for it"
        );
        assert!(asked.is_slow(STALLED_MAX), "and does not read it");
    }

    #[test]
    fn a_client_is_slow_when_too_many_messages_wait() {
        let (mut backlog, mut spool) = (Backlog::default(), Spool::default());
        let one = frames(&[1]);
        let mut last = None;
        let mut queue = |backlog: &mut Backlog, spool: &mut Spool| {
            let chunk = spool.add(one.len(), 1, last);
            backlog.queue_chunk(spool, chunk, 0);
            spool.fill(chunk, one.clone());
            last = Some(chunk);
        };
        for _ in 0..=QUEUE_MESSAGES_MAX {
            queue(&mut backlog, &mut spool);
        }
        assert!(!backlog.is_slow(Duration::ZERO));
        take(&mut backlog, &mut spool, one.len());
        assert!(!backlog.is_slow(SLOW_FOR), "it has read one");
        queue(&mut backlog, &mut spool);
        assert!(!backlog.is_slow(SLOW_FOR) && backlog.is_slow(2 * SLOW_FOR));
        assert_eq!(
            backlog.pieces.len(),
            1,
            "however much waits, it is one place"
        );
    }

    #[test]
    fn eight_mebibytes_are_too_much_at_once() {
        let mut backlog = Backlog::default();
        backlog.queue_own(vec![0; QUEUE_BYTES_HARD_MAX + 1], 0, 1);
        assert!(backlog.is_slow(Duration::ZERO));
    }
}
