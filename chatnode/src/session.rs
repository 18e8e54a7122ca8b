//! One client's session: what it may say, how fast, and when its silence is death.
//!
//! A session is a few words beside its connection; the verbs of `chat.v1` are in [`chat`]
//! and [`pages`], the chapter's bare text is in [`plain`].

pub mod chat;
pub mod pages;
pub mod plain;

use std::time::Duration;

use crate::replica::names::UserName;
use crate::websocket::Close;

/// A client says hello within this time.
pub const HELLO_MAX: Duration = Duration::from_secs(10);
/// A connection on which nothing came for so long is pinged.
pub const QUIET_MAX: Duration = Duration::from_secs(25);
/// Nothing came for so long: the client is dead.
pub const SILENT_MAX: Duration = Duration::from_secs(35);
/// Frames and lines a second that any client may send over time,
const FRAMES_PER_SECOND: f32 = 200.0;
/// and at once.
const FRAMES_AT_ONCE: f32 = 1000.0;
/// Joins, leaves, names changed (once a room), pages and lists a second over time,
const ASKS_PER_SECOND: f32 = 50.0;
/// and at once.
const ASKS_AT_ONCE: f32 = 200.0;
/// An empty object that comes so soon after this node's ping is the answer to it.
const PONG_WITHIN: Duration = Duration::from_secs(10);
/// An empty object is answered by one so often at the most: two ends that answer answers stop.
const PONG_EVERY: Duration = Duration::from_millis(100);
/// Others are told so often at the most that a client types; more is ignored.
const TYPING_EVERY: Duration = Duration::from_millis(300);

/// It did not say hello.
pub const NO_HELLO: Close = Close::new(4001, "hello_timeout: the first request is hello");
/// It was silent.
pub const SILENT: Close = Close::new(4002, "silent: nothing came for 35 s");
/// It sent too much.
pub const FLOODING: Close = Close::new(4004, "flooding: too many requests");
/// This node is stopping.
pub const GOING_AWAY: Close = Close::new(1012, "restart: this node is going away");

/// A token bucket, `per_second` over time and `at_once` at most, kept as the one number that it
/// needs: when it would be full again (the generic cell rate algorithm, ITU-T I.371).
#[derive(Debug, Clone, Copy, Default)]
pub struct Bucket {
    /// In nanoseconds.
    full_at: u64,
}

impl Bucket {
    /// Takes a token, or says how long until there is one.
    ///
    /// # Errors
    /// The time to wait.
    pub fn take(&mut self, per_second: f32, at_once: f32, now: Duration) -> Result<(), Duration> {
        let before = *self;
        let wait = self.borrow(per_second, at_once, now);
        if wait.is_zero() {
            return Ok(());
        }
        *self = before;
        Err(wait)
    }

    /// Takes a token that may not be there yet; how long until the debt is paid.
    pub fn borrow(&mut self, per_second: f32, at_once: f32, now: Duration) -> Duration {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a positive number of nanoseconds, at most days"
        )]
        let nanos = |seconds: f64| (seconds * 1e9) as u64;
        let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        let each = 1.0 / f64::from(per_second);
        self.full_at = self.full_at.max(now) + nanos(each);
        let owed = self.full_at - now;
        Duration::from_nanos(owed.saturating_sub(nanos(each * f64::from(at_once))))
    }
}

/// What the protocol keeps of a connection.
#[derive(Debug)]
pub struct Session {
    /// The name that messages of this connection carry; `None` before hello.
    pub name: Option<UserName>,
    /// Lines of its last frame that wait until it has read what it was answered.
    pub rest: Option<Box<str>>,
    /// A request of it is being read from the disk; those behind it wait.
    pub reads_disk: bool,
    opened: Duration,
    heard: Duration,
    pinged: Option<Duration>,
    ponged: Option<Duration>,
    typed: Option<Duration>,
    says: Bucket,
    asks: Bucket,
    frames: Bucket,
}

/// What silence asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum Watch {
    /// Nothing.
    Fine,
    /// Ask whether it is there.
    Ping,
    /// Close it.
    Close(Close),
}

impl Session {
    /// A session that begins now.
    pub fn new(name: Option<UserName>, now: Duration) -> Self {
        Self {
            name,
            rest: None,
            reads_disk: false,
            opened: now,
            heard: now,
            pinged: None,
            ponged: None,
            typed: None,
            says: Bucket::default(),
            asks: Bucket::default(),
            frames: Bucket::default(),
        }
    }

    /// Something came.
    pub fn heard(&mut self, now: Duration) {
        self.heard = now;
    }

    /// Counts a frame or line. With a rate limit of 0 nothing is.
    ///
    /// # Errors
    /// The close for a client that floods.
    pub fn count_frame(&mut self, rate_limit: u32, now: Duration) -> Result<(), Close> {
        if rate_limit == 0 {
            return Ok(());
        }
        self.frames
            .take(FRAMES_PER_SECOND, FRAMES_AT_ONCE, now)
            .map_err(|_| FLOODING)
    }

    /// Counts a message.
    ///
    /// # Errors
    /// The time until the next is allowed.
    pub fn count_say(&mut self, rate_limit: u32, now: Duration) -> Result<(), Duration> {
        if rate_limit == 0 {
            return Ok(());
        }
        #[expect(clippy::cast_precision_loss, reason = "rates that matter are small")]
        self.says.take(rate_limit as f32, at_once(rate_limit), now)
    }

    /// Counts requests that cost more than a message: pages of history, and changes of members,
    /// which all in a room see.
    ///
    /// # Errors
    /// The time until the next is allowed.
    pub fn count_asks(
        &mut self,
        count: usize,
        rate_limit: u32,
        now: Duration,
    ) -> Result<(), Duration> {
        if rate_limit == 0 {
            return Ok(());
        }
        (0..count).try_for_each(|_| self.asks.take(ASKS_PER_SECOND, ASKS_AT_ONCE, now))
    }

    /// Counts a message of a client that cannot be told no; how long not to read from it.
    pub fn pace_say(&mut self, rate_limit: u32, now: Duration) -> Duration {
        if rate_limit == 0 {
            return Duration::ZERO;
        }
        #[expect(clippy::cast_precision_loss, reason = "rates that matter are small")]
        self.says
            .borrow(rate_limit as f32, at_once(rate_limit), now)
    }

    /// Whether to tell others that it types now.
    pub fn may_type(&mut self, now: Duration) -> bool {
        let may = self.typed.is_none_or(|at| now >= at + TYPING_EVERY);
        if may {
            self.typed = Some(now);
        }
        may
    }

    /// An empty object came; whether to answer it. One that answers this node's own is not.
    pub fn answer_ping(&mut self, now: Duration) -> bool {
        if self.pinged.take().is_some_and(|at| now < at + PONG_WITHIN) {
            return false;
        }
        let answer = self.ponged.is_none_or(|at| now >= at + PONG_EVERY);
        if answer {
            self.ponged = Some(now);
        }
        answer
    }

    /// Looks at the time.
    pub fn watch(&mut self, now: Duration) -> Watch {
        if self.name.is_none() && now >= self.opened + HELLO_MAX {
            return Watch::Close(NO_HELLO);
        }
        if now >= self.heard + SILENT_MAX {
            return Watch::Close(SILENT);
        }
        if now >= self.heard + QUIET_MAX && self.pinged.is_none_or(|at| at <= self.heard) {
            self.pinged = Some(now);
            return Watch::Ping;
        }
        Watch::Fine
    }
}

/// Twice the messages of a second may come at once.
fn at_once(rate_limit: u32) -> f32 {
    #[expect(clippy::cast_precision_loss, reason = "rates that matter are small")]
    {
        2.0 * rate_limit as f32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_may_say_twice_the_rate_at_once_and_then_the_rate() {
        let mut session = Session::new(None, Duration::ZERO);
        let said = (0..100)
            .filter(|_| session.count_say(20, Duration::ZERO).is_ok())
            .count();
        assert_eq!(said, 40);
        let wait = session.count_say(20, Duration::ZERO).unwrap_err();
        assert!(wait.as_millis() <= 50, "{wait:?}");
        let second = Duration::from_secs(1);
        let said = (0..100)
            .filter(|_| session.count_say(20, second).is_ok())
            .count();
        assert_eq!(said, 20);
    }

    #[test]
    fn two_ends_that_answer_answers_stop() {
        let mut session = Session::new(None, Duration::ZERO);
        assert!(session.answer_ping(Duration::from_secs(1)));
        assert!(!session.answer_ping(Duration::from_millis(1001)));
        assert!(session.answer_ping(Duration::from_millis(1200)));
    }

    #[test]
    fn a_client_that_answers_pings_lives_whatever_it_answers_with() {
        let seconds = Duration::from_secs;
        let mut session = Session::new(Some("ada".parse().unwrap()), Duration::ZERO);
        for period in 1..5 {
            let quiet = 26 * period;
            assert_eq!(session.watch(seconds(quiet - 1)), Watch::Ping, "{period}");
            // A WebSocket pong, or a request: not an empty object.
            session.heard(seconds(quiet));
        }
        assert!(
            session.answer_ping(seconds(200)),
            "its own ping is answered"
        );
    }

    #[test]
    fn silence_is_asked_about_once_and_then_is_death() {
        let name = Some("ada".parse().unwrap());
        let mut session = Session::new(name, Duration::ZERO);
        assert_eq!(session.watch(Duration::from_secs(24)), Watch::Fine);
        assert_eq!(session.watch(Duration::from_secs(25)), Watch::Ping);
        assert_eq!(session.watch(Duration::from_secs(26)), Watch::Fine);
        assert!(
            !session.answer_ping(Duration::from_secs(26)),
            "it answers ours"
        );
        assert_eq!(session.watch(Duration::from_secs(35)), Watch::Close(SILENT));
        let mut mute = Session::new(None, Duration::ZERO);
        assert_eq!(mute.watch(HELLO_MAX), Watch::Close(NO_HELLO));
    }
}
