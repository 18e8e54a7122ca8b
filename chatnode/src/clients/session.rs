//! One client's session: what it may say, how fast, and when its silence is death.
//!
//! A session is a few words beside its connection.

use std::time::Duration;

use base::bucket::{Bucket, Rate};

use crate::clients::websocket::Close;
use crate::core::named::Mids;
use crate::model::names::{RoomName, UserName};

/// A client says hello within this time.
pub(crate) const HELLO_MAX: Duration = Duration::from_secs(10);
/// A connection on which nothing came for so long is pinged.
pub(crate) const QUIET_MAX: Duration = Duration::from_secs(25);
/// Nothing came for so long: the client is dead.
pub(crate) const SILENT_MAX: Duration = Duration::from_secs(35);
/// How often something is said on an event stream at the least.
const STREAM_QUIET: Duration = Duration::from_secs(15);
/// Frames and lines that any client may send; more where more messages are allowed.
const FRAMES: Rate = Rate::new(200.0, 1000.0);
/// Joins, leaves, names changed (once a room), pages and lists.
const ASKS: Rate = Rate::new(50.0, 200.0);
/// An empty object that comes so soon after this node's ping is the answer to it.
const PONG_WITHIN: Duration = Duration::from_secs(10);
/// An empty object is answered by one so often at the most: two ends that answer answers stop.
const PONG_EVERY: Duration = Duration::from_millis(100);
/// Others are told so often at the most that a client types; more is ignored.
const TYPING_EVERY: Duration = Duration::from_millis(300);

/// It did not say hello.
pub(crate) const NO_HELLO: Close = Close::new(4001, "hello_timeout: the first request is hello");
/// It was silent.
pub(crate) const SILENT: Close = Close::new(4002, "silent: nothing came for 35 s");
/// It sent too much.
pub(crate) const FLOODING: Close = Close::new(4004, "flooding: too many requests");
/// It has ended its side of the connection, and was answered all.
pub(crate) const ENDED: Close = Close::new(1000, "ended: the client has said all");
/// This node is stopping.
pub(crate) const GOING_AWAY: Close = Close::new(1012, "restart: this node is going away");

/// What the protocol keeps of a connection.
#[derive(Debug)]
pub(crate) struct Session {
    /// The name that messages of this connection carry; `None` before hello.
    pub(crate) name: Option<UserName>,
    /// Lines of its last frame that wait until it has read what it was answered.
    pub(crate) rest: Option<Box<str>>,
    /// A request of it waits for the disk or for other nodes; those behind it wait.
    pub(crate) waits: bool,
    /// What it has named of a room, for the join that follows.
    pub(crate) seen: Option<Box<(RoomName, Mids)>>,
    /// Messages of it whose outcome is not known yet: they wait for the disk, or for copies.
    pub(crate) awaits: u32,
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
pub(crate) enum Watch {
    /// Nothing.
    Fine,
    /// Ask whether it is there.
    Ping,
    /// Close it.
    Close(Close),
}

impl Session {
    /// A session that begins now.
    pub(crate) fn new(name: Option<UserName>, now: Duration) -> Self {
        Self {
            name,
            rest: None,
            waits: false,
            seen: None,
            awaits: 0,
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

    /// Whether something that it asked for has no answer yet.
    pub(crate) fn is_owed(&self) -> bool {
        self.waits || self.awaits > 0
    }

    /// Of an event stream: whether something has to be said, so that nobody between takes it for
    /// dead. It says nothing itself.
    pub(crate) fn is_quiet(&mut self, now: Duration) -> bool {
        let quiet = now >= self.heard + STREAM_QUIET;
        if quiet {
            self.heard = now;
        }
        quiet
    }

    /// Something came.
    pub(crate) fn heard(&mut self, now: Duration) {
        self.heard = now;
    }

    /// Counts frames or lines. With a rate limit of 0 nothing is.
    ///
    /// # Errors
    /// The close for a client that floods.
    pub(crate) fn count_frames(
        &mut self,
        count: usize,
        rate_limit: u32,
        now: Duration,
    ) -> Result<(), Close> {
        if rate_limit == 0 {
            return Ok(());
        }
        // Whoever says as much as it may is not closed for it.
        let rate = FRAMES.or_faster(Rate::messages(rate_limit).twice());
        self.frames.take(count, rate, now).map_err(|_| FLOODING)
    }

    /// Counts a message.
    ///
    /// # Errors
    /// The time until the next is allowed.
    pub(crate) fn count_say(&mut self, rate_limit: u32, now: Duration) -> Result<(), Duration> {
        if rate_limit == 0 {
            return Ok(());
        }
        self.says.take(1, Rate::messages(rate_limit), now)
    }

    /// Counts requests that cost more than a message: pages of history, and changes of members,
    /// which all in a room see. All of them or none.
    ///
    /// # Errors
    /// The time until the next is allowed.
    pub(crate) fn count_asks(
        &mut self,
        count: usize,
        rate_limit: u32,
        now: Duration,
    ) -> Result<(), Duration> {
        if rate_limit == 0 {
            return Ok(());
        }
        self.asks.take(count, ASKS, now)
    }

    /// Counts a message of a client that cannot be told no; how long not to read from it.
    pub(crate) fn pace_say(&mut self, rate_limit: u32, now: Duration) -> Duration {
        if rate_limit == 0 {
            return Duration::ZERO;
        }
        self.says.borrow(Rate::messages(rate_limit), now)
    }

    /// Whether to tell others that it types now.
    pub(crate) fn may_type(&mut self, now: Duration) -> bool {
        let may = self.typed.is_none_or(|at| now >= at + TYPING_EVERY);
        if may {
            self.typed = Some(now);
        }
        may
    }

    /// An empty object came; whether to answer it. One that answers this node's own is not.
    pub(crate) fn answer_ping(&mut self, now: Duration) -> bool {
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
    pub(crate) fn watch(&mut self, now: Duration) -> Watch {
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
    fn a_budget_is_taken_whole_or_not_at_all() {
        let mut session = Session::new(None, Duration::ZERO);
        let asks = |session: &mut Session, count, now| session.count_asks(count, 20, now);
        assert!(asks(&mut session, 180, Duration::ZERO).is_ok());
        let wait = asks(&mut session, 51, Duration::ZERO).unwrap_err();
        assert_eq!(wait, Duration::from_millis(620), "for 31 more");
        assert!(
            asks(&mut session, 20, Duration::ZERO).is_ok(),
            "what was there is there still"
        );
        let more_than_it_holds = asks(&mut session, 300, wait).unwrap_err();
        let full = wait + more_than_it_holds;
        assert!(asks(&mut session, 300, full).is_ok(), "when it is full");
        let debt = asks(&mut session, 1, full).unwrap_err();
        assert_eq!(debt, Duration::from_millis(2020));
    }

    #[test]
    fn who_says_as_much_as_it_may_is_not_closed_for_it() {
        for rate_limit in [1, 20, 500, 100_000] {
            let mut session = Session::new(None, Duration::ZERO);
            let mut now = Duration::ZERO;
            for _ in 0..3 * rate_limit {
                while let Err(wait) = session.count_say(rate_limit, now) {
                    assert!(session.count_frames(1, rate_limit, now).is_ok());
                    now += wait;
                }
                let counted = session.count_frames(1, rate_limit, now);
                assert!(counted.is_ok(), "{rate_limit} a second, after {now:?}");
            }
        }
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
