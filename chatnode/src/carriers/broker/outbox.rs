//! What waits to be published, within a bound.
//!
//! Whatever a broker or its client library holds back ends up here, so this is where memory is bounded.
//! Logs and live events are dropped first, the oldest before others, since repair brings them; beats are
//! not dropped, since all hangs by them. What was sent and never came back is bounded too: some engines
//! give no other sign that they took anything.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;

use super::channels::{Channel, to_message};
use super::gauges::Gauges;
use crate::model::names::Origin;
use crate::wire::frame::Topic;

/// Bytes that wait for one broker at the most.
pub(crate) const WAITING_BYTES_MAX: usize = 8 << 20;
/// Bytes that may be sent after the last own beat that came back.
pub(crate) const UNPROVEN_BYTES_MAX: usize = 16 << 20;
/// Beats of which it is remembered how much was sent before them: of half a minute.
const BEATS_KEPT_MAX: usize = 32;
/// How often a carrier that closes looks whether all has been taken.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// A message, and where it goes.
pub(super) type Message = (Channel, Bytes);

#[derive(Debug)]
enum Waiting {
    Frame(Topic, Bytes),
    /// A question to another session, or an answer.
    Message(Channel, Bytes),
}

impl Waiting {
    fn len(&self) -> usize {
        let (Self::Frame(_, bytes) | Self::Message(_, bytes)) = self;
        bytes.len()
    }

    fn is_beat(&self) -> bool {
        matches!(self, Self::Frame(Topic::Beat, _))
    }
}

/// What one carrier has to publish.
#[derive(Debug)]
pub(super) struct Outbox {
    me: Origin,
    gauges: Arc<Gauges>,
    state: Mutex<State>,
    pushed: Notify,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Waiting>,
    bytes: usize,
    /// Bytes taken since the session began.
    sent: u64,
    /// Of these what was sent before the last beat that came back.
    proven: u64,
    /// The last beats, and how much was sent when each was.
    beats: VecDeque<(Bytes, u64)>,
    /// Taken, and not yet with the broker's connection.
    under_way: bool,
}

impl State {
    /// A beat was sent.
    fn went(&mut self, beat: Bytes) {
        if self.beats.len() >= BEATS_KEPT_MAX {
            self.beats.pop_front();
        }
        self.beats.push_back((beat, self.sent));
    }
}

impl Outbox {
    pub(super) fn new(me: Origin, gauges: Arc<Gauges>) -> Self {
        Self {
            me,
            gauges,
            state: Mutex::default(),
            pushed: Notify::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins anew: nothing waits, nothing was sent.
    pub(super) fn clear(&self) {
        let mut state = self.state();
        let dropped = std::mem::take(&mut *state).waiting.len();
        self.gauges.dropped_away.add(dropped as u64);
        self.gauges.queue_bytes.set(0);
    }

    pub(super) fn push(&self, topic: Topic, frame: Bytes) {
        self.add(Waiting::Frame(topic, frame));
    }

    /// A question to another session, or an answer.
    pub(super) fn push_message(&self, channel: Channel, message: Bytes) {
        self.add(Waiting::Message(channel, message));
    }

    fn add(&self, waiting: Waiting) {
        let mut state = self.state();
        state.bytes += waiting.len();
        state.waiting.push_back(waiting);
        while state.bytes > WAITING_BYTES_MAX {
            let mut waiting = state.waiting.iter();
            let Some(oldest) = waiting.position(|it| !it.is_beat()) else {
                break;
            };
            let dropped = state.waiting.remove(oldest).map(|it| it.len());
            state.bytes -= dropped.unwrap_or_default();
            self.gauges.dropped_full.add(1);
        }
        self.gauges.queue_bytes.set(state.bytes as u64);
        drop(state);
        self.pushed.notify_one();
    }

    /// The next messages, in order, so many frames and bytes at the most, but one at the least. Cancel safe.
    pub(super) async fn take(&self, frames: usize, bytes: usize) -> Vec<Message> {
        loop {
            let messages = self.take_now(frames, bytes);
            if !messages.is_empty() {
                return messages;
            }
            self.pushed.notified().await;
        }
    }

    fn take_now(&self, frames: usize, bytes: usize) -> Vec<Message> {
        let mut messages = Vec::new();
        let mut taken = 0;
        let mut state = self.state();
        while messages.len() < frames
            && taken < bytes
            && let Some(waiting) = state.waiting.pop_front()
        {
            let (len, is_beat) = (waiting.len(), waiting.is_beat());
            state.bytes -= len;
            let unproven = state.sent + len as u64 - state.proven;
            if !is_beat && unproven > UNPROVEN_BYTES_MAX as u64 {
                self.gauges.dropped_unproven.add(1);
                continue;
            }
            taken += len;
            state.sent += len as u64;
            messages.extend(
                match waiting {
                    Waiting::Message(channel, message) => [None, Some((channel, message))],
                    Waiting::Frame(topic, frame) => {
                        let message = to_message(topic, &frame);
                        let hall = is_beat.then(|| (Channel::Hall, message.clone()));
                        if is_beat {
                            state.went(frame);
                        }
                        [hall, Some((Channel::of(topic, self.me), message))]
                    }
                }
                .into_iter()
                .flatten(),
            );
        }
        state.under_way = !messages.is_empty();
        self.gauges.queue_bytes.set(state.bytes as u64);
        messages
    }

    /// What was taken last is with the broker's connection.
    pub(super) fn said(&self) {
        self.state().under_way = false;
    }

    /// An own beat came back: whether it is one of the last.
    pub(super) fn came_back(&self, beat: &Bytes) -> bool {
        let mut state = self.state();
        let Some(at) = state.beats.iter().position(|(sent, _)| sent == beat) else {
            return false;
        };
        let (_, sent) = state.beats[at];
        state.proven = state.proven.max(sent);
        state.beats.drain(..=at);
        true
    }

    /// Waits until all has been handed on.
    pub(super) async fn is_taken(&self) {
        loop {
            if self.is_empty() {
                return;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    fn is_empty(&self) -> bool {
        let state = self.state();
        state.waiting.is_empty() && !state.under_way
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outbox() -> (Outbox, Arc<Gauges>) {
        let gauges = Arc::new(Gauges::default());
        let me = "k3f7q2m7xa".parse().unwrap();
        (Outbox::new(me, Arc::clone(&gauges)), gauges)
    }

    fn frame(first: u8, len: usize) -> Bytes {
        let mut bytes = vec![0; len];
        bytes[0] = first;
        bytes.into()
    }

    #[test]
    fn what_waits_is_bounded_and_beats_are_never_dropped() {
        const LEN: usize = 1 << 20;
        let (outbox, gauges) = outbox();
        outbox.push(Topic::Log, frame(0, LEN));
        outbox.push(Topic::Beat, frame(1, LEN));
        for nth in 2..12 {
            outbox.push(Topic::Log, frame(nth, LEN));
        }
        assert!(gauges.queue_bytes.get() <= WAITING_BYTES_MAX as u64);
        assert_eq!(gauges.dropped_full.get(), 4);
        let taken = outbox.take_now(usize::MAX, usize::MAX);
        let firsts: Vec<u8> = taken.iter().map(|(_, message)| message[1]).collect();
        assert_eq!(firsts, [1, 1, 5, 6, 7, 8, 9, 10, 11], "a beat goes twice");
        assert_eq!(taken[0].0, Channel::Hall);
        assert_eq!(gauges.queue_bytes.get(), 0);
    }

    #[test]
    fn without_a_beat_that_comes_back_only_beats_go_on() {
        const LEN: usize = 1 << 20;
        let (outbox, gauges) = outbox();
        let all = || outbox.take_now(usize::MAX, usize::MAX).len();
        outbox.push(Topic::Beat, frame(7, 10));
        assert_eq!(all(), 2);
        for _ in 0..40 {
            outbox.push(Topic::Log, frame(0, LEN));
            all();
        }
        assert_eq!(gauges.dropped_unproven.get(), 40 - 15);
        outbox.push(Topic::Beat, frame(8, 10));
        assert_eq!(all(), 2);
        assert!(!outbox.came_back(&frame(9, 10)), "none of mine");
        assert!(outbox.came_back(&frame(7, 10)), "an old one proves little");
        outbox.push(Topic::Log, frame(0, LEN));
        assert_eq!(all(), 0);
        assert!(outbox.came_back(&frame(8, 10)));
        assert!(!outbox.came_back(&frame(7, 10)), "once");
        outbox.push(Topic::Log, frame(0, LEN));
        assert_eq!(all(), 1);
    }
}
