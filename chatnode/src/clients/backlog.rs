//! What a socket did not take: the one buffer that a connection may own, and its bounds.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::time::Duration;

/// Bytes that may wait for one client; over it for [`SLOW_FOR`], the client is closed as slow.
pub const QUEUE_BYTES_MAX: usize = 1 << 20;
/// Messages that may wait for one client, alike.
pub const QUEUE_MESSAGES_MAX: u32 = 512;
/// How long a client may be over a bound.
pub const SLOW_FOR: Duration = Duration::from_secs(2);
/// Bytes at which a client is closed as slow at once: what one client can make this node hold.
pub const QUEUE_BYTES_HARD_MAX: usize = 8 << 20;

/// A client whose socket took nothing for so long while something waits is closed as slow.
pub const STALLED_MAX: Duration = Duration::from_secs(10);

/// Frames that wait for a socket. It begins wherever the socket stopped taking, and knows where
/// that frame ends, so that everything behind it can be given up and a close frame put there.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    bytes: VecDeque<u8>,
    /// Where, in bytes ever queued, so many messages end.
    marks: VecDeque<(u64, u32)>,
    messages: u32,
    queued: u64,
    drained: u64,
    granted: usize,
    over_since: Option<Duration>,
    /// How far it had drained when it was looked at, and when that was.
    progress: Option<(u64, Duration)>,
    /// Bytes up to the end of the frame that is partly written.
    frame_left: usize,
}

impl Backlog {
    /// Bytes of a reply that the client asked for do not make it slow.
    pub(super) fn grant(&mut self, bytes: usize) {
        self.granted += bytes;
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// What to write next.
    pub(super) fn front(&self) -> &[u8] {
        self.bytes.as_slices().0
    }

    /// Queues slices of whole frames, of which the socket took `written` bytes.
    pub(super) fn queue(&mut self, slices: &[IoSlice<'_>], written: usize, messages: u32) {
        let mut skip = written;
        for slice in slices {
            let taken = skip.min(slice.len());
            if self.bytes.is_empty() && taken < slice.len() {
                self.frame_left = frame_end(slice, taken) - taken;
            }
            self.push(&slice[taken..]);
            skip -= taken;
        }
        self.marks.push_back((self.queued, messages));
        self.messages += messages;
    }

    fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend(bytes);
        self.queued += bytes.len() as u64;
    }

    /// The socket took so many bytes.
    pub(super) fn drain(&mut self, count: usize) {
        let mut left = count;
        while left > 0 && left >= self.frame_left {
            left -= self.frame_left;
            self.bytes.drain(..self.frame_left);
            self.frame_left = frame_length(self.bytes.iter().copied());
        }
        self.bytes.drain(..left);
        self.frame_left -= left;
        self.drained += count as u64;
        self.granted = self.granted.saturating_sub(count);
        while let Some((end, messages)) = self.marks.front().copied()
            && end <= self.drained
        {
            self.messages -= messages;
            self.marks.pop_front();
        }
    }

    /// Gives up all but the frame that is partly written, and ends with this one.
    pub(super) fn give_up(&mut self, frame: &[u8]) {
        self.bytes.truncate(self.frame_left);
        self.bytes.shrink_to_fit();
        self.marks.clear();
        self.messages = 0;
        self.push(frame);
    }

    /// Whether the client is to be closed.
    pub(super) fn is_slow(&mut self, now: Duration) -> bool {
        if self.bytes.is_empty() {
            return false;
        }
        let (drained, at) = *self.progress.get_or_insert((self.drained, now));
        if drained != self.drained {
            self.progress = Some((self.drained, now));
        } else if now >= at + STALLED_MAX {
            return true;
        }
        let owed = self.bytes.len().saturating_sub(self.granted);
        if owed <= QUEUE_BYTES_MAX && self.messages <= QUEUE_MESSAGES_MAX {
            self.over_since = None;
            return false;
        }
        let since = *self.over_since.get_or_insert(now);
        self.bytes.len() > QUEUE_BYTES_HARD_MAX || now >= since + SLOW_FOR
    }
}

/// Where the frame ends that holds this place, in a slice of whole frames.
fn frame_end(frames: &[u8], place: usize) -> usize {
    let mut end = 0;
    while end <= place {
        end += frame_length(frames[end..].iter().copied()).max(1);
    }
    end
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

    proptest! {
        /// However the socket took its bytes, the close frame stands behind a whole frame.
        #[test]
        fn what_is_given_up_ends_at_a_frame(
            lengths in proptest::collection::vec(prop_oneof![0usize..200, Just(126), 65_000usize..66_000], 1..6),
            written in 0usize..1000,
            drained in 0usize..1000,
        ) {
            let bytes = frames(&lengths);
            let part = |of: usize, thousandths: usize| of * thousandths / 1000;
            let written = part(bytes.len(), written);
            let mut backlog = Backlog::default();
            let cut = frames(&lengths[..lengths.len() / 2]).len();
            let slices = [IoSlice::new(&bytes[..cut]), IoSlice::new(&bytes[cut..])];
            backlog.queue(&slices, written, 1);
            let drained = part(bytes.len() - written, drained);
            backlog.drain(drained);
            let mut sent = bytes[..written + drained].to_vec();
            backlog.give_up(b"CLOSE");
            sent.extend(&backlog.bytes);
            let sent = sent.strip_suffix(b"CLOSE").unwrap();
            let ends = (0..=lengths.len()).map(|count| frames(&lengths[..count]).len());
            prop_assert!(ends.into_iter().any(|end| end == sent.len()), "{} of {}", sent.len(), bytes.len());
        }
    }

    #[test]
    fn a_client_is_slow_when_too_much_waits_for_two_seconds() {
        let mut backlog = Backlog::default();
        let bytes = vec![0; QUEUE_BYTES_MAX + 1];
        backlog.queue(&[IoSlice::new(&bytes)], 0, 1);
        assert!(!backlog.is_slow(Duration::ZERO));
        assert!(!backlog.is_slow(Duration::from_millis(1999)));
        assert!(backlog.is_slow(SLOW_FOR));
        let mut asked = Backlog::default();
        asked.grant(bytes.len());
        asked.queue(&[IoSlice::new(&bytes)], 0, 1);
        assert!(
            !asked.is_slow(Duration::ZERO) && !asked.is_slow(SLOW_FOR),
            "it asked for it"
        );
        assert!(asked.is_slow(STALLED_MAX), "and does not read it");
    }

    #[test]
    fn a_client_is_slow_when_too_many_messages_wait() {
        let mut backlog = Backlog::default();
        let one = frames(&[1]);
        for _ in 0..=QUEUE_MESSAGES_MAX {
            backlog.queue(&[IoSlice::new(&one)], 0, 1);
        }
        assert!(!backlog.is_slow(Duration::ZERO));
        backlog.drain(one.len());
        assert!(!backlog.is_slow(SLOW_FOR), "it has read one");
        backlog.queue(&[IoSlice::new(&one)], 0, 1);
        assert!(!backlog.is_slow(SLOW_FOR) && backlog.is_slow(2 * SLOW_FOR));
    }

    #[test]
    fn eight_mebibytes_are_too_much_at_once() {
        let mut backlog = Backlog::default();
        let bytes = vec![0; QUEUE_BYTES_HARD_MAX + 1];
        backlog.queue(&[IoSlice::new(&bytes)], 0, 1);
        assert!(backlog.is_slow(Duration::ZERO));
    }
}
