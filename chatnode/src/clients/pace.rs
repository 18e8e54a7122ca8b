//! How fast one client may say what, and when its silence is death.

use std::time::Duration;

use base::bucket::{Bucket, Rate};

use super::websocket::Close;

/// A client says hello within this time.
pub(crate) const HELLO_MAX: Duration = Duration::from_secs(10);
/// A connection on which nothing came for so long is pinged.
pub(crate) const QUIET_MAX: Duration = Duration::from_secs(25);
/// Nothing came for so long: the client is dead.
pub(crate) const SILENT_MAX: Duration = Duration::from_secs(35);
/// How often something is said on an event stream at the least.
pub(super) const STREAM_QUIET: Duration = Duration::from_secs(15);
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

/// The pace of one client.
#[derive(Debug)]
pub(crate) struct Pace {
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

impl Pace {
    /// A client that comes now.
    pub(crate) fn new(now: Duration) -> Self {
        Self {
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

    /// Looks at the time. `greeted`: it has said hello, or need not.
    pub(crate) fn watch(&mut self, greeted: bool, now: Duration) -> Watch {
        if !greeted && now >= self.opened + HELLO_MAX {
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
        let mut pace = Pace::new(Duration::ZERO);
        let said = (0..100)
            .filter(|_| pace.count_say(20, Duration::ZERO).is_ok())
            .count();
        assert_eq!(said, 40);
        let wait = pace.count_say(20, Duration::ZERO).unwrap_err();
        assert!(wait.as_millis() <= 50, "{wait:?}");
        let second = Duration::from_secs(1);
        let said = (0..100)
            .filter(|_| pace.count_say(20, second).is_ok())
            .count();
        assert_eq!(said, 20);
    }

    #[test]
    fn a_budget_is_taken_whole_or_not_at_all() {
        let mut pace = Pace::new(Duration::ZERO);
        let asks = |pace: &mut Pace, count, now| pace.count_asks(count, 20, now);
        assert!(asks(&mut pace, 180, Duration::ZERO).is_ok());
        let wait = asks(&mut pace, 51, Duration::ZERO).unwrap_err();
        assert_eq!(wait, Duration::from_millis(620), "for 31 more");
        assert!(
            asks(&mut pace, 20, Duration::ZERO).is_ok(),
            "what was there is there still"
        );
        let more_than_it_holds = asks(&mut pace, 300, wait).unwrap_err();
        let full = wait + more_than_it_holds;
        assert!(asks(&mut pace, 300, full).is_ok(), "when it is full");
        let debt = asks(&mut pace, 1, full).unwrap_err();
        assert_eq!(debt, Duration::from_millis(2020));
    }

    #[test]
    fn who_says_as_much_as_it_may_is_not_closed_for_it() {
        for rate_limit in [1, 20, 500, 100_000] {
            let mut pace = Pace::new(Duration::ZERO);
            let mut now = Duration::ZERO;
            for _ in 0..3 * rate_limit {
                while let Err(wait) = pace.count_say(rate_limit, now) {
                    assert!(pace.count_frames(1, rate_limit, now).is_ok());
                    now += wait;
                }
                let counted = pace.count_frames(1, rate_limit, now);
                assert!(counted.is_ok(), "{rate_limit} a second, after {now:?}");
            }
        }
    }

    #[test]
    fn two_ends_that_answer_answers_stop() {
        let mut pace = Pace::new(Duration::ZERO);
        assert!(pace.answer_ping(Duration::from_secs(1)));
        assert!(!pace.answer_ping(Duration::from_millis(1001)));
        assert!(pace.answer_ping(Duration::from_millis(1200)));
    }

    #[test]
    fn a_client_that_answers_pings_lives_whatever_it_answers_with() {
        let seconds = Duration::from_secs;
        let mut pace = Pace::new(Duration::ZERO);
        for period in 1..5 {
            let quiet = 26 * period;
            assert_eq!(
                pace.watch(true, seconds(quiet - 1)),
                Watch::Ping,
                "{period}"
            );
            // A WebSocket pong, or a request: not an empty object.
            pace.heard(seconds(quiet));
        }
        assert!(pace.answer_ping(seconds(200)), "its own ping is answered");
    }

    #[test]
    fn silence_is_asked_about_once_and_then_is_death() {
        let mut pace = Pace::new(Duration::ZERO);
        assert_eq!(pace.watch(true, Duration::from_secs(24)), Watch::Fine);
        assert_eq!(pace.watch(true, Duration::from_secs(25)), Watch::Ping);
        assert_eq!(pace.watch(true, Duration::from_secs(26)), Watch::Fine);
        assert!(
            !pace.answer_ping(Duration::from_secs(26)),
            "it answers ours"
        );
        assert_eq!(
            pace.watch(true, Duration::from_secs(35)),
            Watch::Close(SILENT)
        );
        let mut mute = Pace::new(Duration::ZERO);
        assert_eq!(mute.watch(false, HELLO_MAX), Watch::Close(NO_HELLO));
    }
}
