//! One row of the table: why a peer is wanted, how its link is, when it is dialled next.

use std::net::IpAddr;
use std::time::Duration;

use rand::RngExt as _;
use rand::rngs::StdRng;

use super::fault::{Fault, Why};
use super::types::{LinkId, LinkState, LinkStatus, Speech, Target, Via};
use crate::core::bounds::SILENCE_MAX;
use crate::model::names::Origin;

/// The pause after the first failure; it doubles with each further one.
const REDIAL_MIN: Duration = Duration::from_millis(100);
/// The longest pause between dials.
const REDIAL_MAX: Duration = Duration::from_secs(2);
/// A dial that the carrier has said nothing about for so long has failed. The carrier gives up sooner.
pub(super) const DIAL_MAX: Duration = Duration::from_secs(4);
/// A peer that introduced itself is wanted for so long, within which a registry should list it.
pub(super) const INTRODUCED_MAX: Duration = Duration::from_secs(10);
/// A beat comes each second; half a second later it is overdue.
const OVERDUE: Duration = Duration::from_millis(1500);

/// By what a peer is known: its origin, or, if given by hand, where it listens.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key {
    Origin(Origin, Via),
    Endpoint(String),
}

impl Key {
    pub(super) fn of(target: &Target) -> Self {
        match target.origin {
            Some(origin) => Self::Origin(origin, target.via),
            None => Self::Endpoint(place(&target.endpoint)),
        }
    }
}

/// An endpoint in the form in which two are compared.
pub(super) fn place(endpoint: &str) -> String {
    endpoint
        .trim_end_matches('/')
        .replacen("//localhost:", "//127.0.0.1:", 1)
}

/// Whether an endpoint leads every machine to itself.
pub(super) fn is_loopback(endpoint: &str) -> bool {
    let host = endpoint
        .split_once("://")
        .map_or(endpoint, |(_, rest)| rest);
    let host = host.rsplit_once(':').map_or(host, |(host, _)| host);
    let ip = host.trim_matches(['[', ']']).parse::<IpAddr>();
    host == "localhost" || ip.is_ok_and(|ip| ip.is_loopback())
}

#[derive(Debug, Clone, Copy)]
pub(super) enum State {
    /// No link; the next dial not before this time.
    Waiting { until: Duration },
    /// The carrier is at it.
    Dialing { link: LinkId, since: Duration },
    /// A socket, and no beat yet. A foreign publisher's link stays in this state.
    Connected { link: LinkId, since: Duration },
    /// Proven by a beat.
    Up {
        link: LinkId,
        origin: Origin,
        since: Duration,
        heard: Duration,
        pace: Pace,
    },
}

/// How late a link's beats come, measured against the one that came soonest: the two clocks need
/// not agree, only run. It is the peer's wall clock that counts: the time by which it goes may be slower for
/// hours, while a mesh goes back to its clocks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    now: Duration,
    clock: u64,
    pub(super) behind: Duration,
}

impl Pace {
    pub(super) fn first(now: Duration, clock: u64) -> Self {
        Self {
            now,
            clock,
            behind: Duration::ZERO,
        }
    }

    /// The next beat came. A clock that went back tells nothing, and is begun with anew.
    pub(super) fn next(self, now: Duration, clock: u64) -> Self {
        let passed = clock.checked_sub(self.clock);
        let Some(between) = passed.filter(|passed| *passed > 0) else {
            return Self::first(now, clock);
        };
        let late = self.behind + now.saturating_sub(self.now);
        let behind = late.saturating_sub(Duration::from_micros(between));
        Self { now, clock, behind }
    }
}

#[derive(Debug)]
pub(super) struct Peer {
    pub(super) endpoint: String,
    pub(crate) http: String,
    pub(super) name: String,
    pub(super) speech: Speech,
    pub(super) via: Via,
    /// Who should be there, or, at an endpoint given by hand, who was there last.
    pub(super) origin: Option<Origin>,
    /// Given by hand: wanted for ever.
    pub(super) fixed: bool,
    /// Wanted because a registry lists it.
    pub(super) listed: bool,
    /// Wanted until then because it said hello.
    pub(super) introduced: Option<Duration>,
    pub(super) state: State,
    pub(super) failures: u32,
    /// How long the last own beat took there and back.
    pub(super) echo: Option<Duration>,
    /// Why the last link ended.
    pub(super) fault: Option<Fault>,
    /// Why its HTTP did not take the last hello.
    pub(super) hello: Option<Fault>,
    /// While it is wanted and not heard: since when, and what the log was told of it.
    pub(super) lacked: Option<(Duration, Option<Why>)>,
}

impl Peer {
    pub(super) fn new(target: Target, now: Duration) -> Self {
        Self {
            endpoint: target.endpoint,
            http: target.http,
            name: String::new(),
            speech: target.speech,
            via: target.via,
            origin: target.origin,
            fixed: false,
            listed: false,
            introduced: None,
            state: State::Waiting { until: now },
            failures: 0,
            echo: None,
            fault: None,
            hello: None,
            lacked: None,
        }
    }

    pub(super) fn wanted(&self, now: Duration) -> bool {
        self.fixed || self.listed || self.introduced.is_some_and(|until| now < until)
    }

    /// In the table for no reason but its hello.
    pub(super) fn is_stranger(&self) -> bool {
        !self.fixed && !self.listed && !matches!(self.state, State::Up { .. })
    }

    pub(super) fn link(&self) -> Option<LinkId> {
        match self.state {
            State::Waiting { .. } => None,
            State::Dialing { link, .. }
            | State::Connected { link, .. }
            | State::Up { link, .. } => Some(link),
        }
    }

    /// If it should be dialled now: since when.
    pub(super) fn due(&self, now: Duration) -> Option<Duration> {
        match self.state {
            State::Waiting { until } if until <= now && self.wanted(now) => Some(until),
            _ => None,
        }
    }

    pub(super) fn dial_at_once(&mut self, now: Duration) {
        if let State::Waiting { until } = &mut self.state {
            *until = now.min(*until);
            self.failures = 0;
        }
    }

    /// The link is over. One that was good is dialled again soon, others ever more rarely; one
    /// that fell silent has waited long enough.
    pub(super) fn retry(&mut self, now: Duration, rng: &mut StdRng) {
        let (good, silent) = match self.state {
            State::Up { heard, .. } => (true, now.saturating_sub(heard) >= SILENCE_MAX),
            State::Connected { since, .. } if self.speech == Speech::Plain => {
                (now.saturating_sub(since) >= REDIAL_MAX, false)
            }
            _ => (false, false),
        };
        if good {
            self.failures = 0;
        }
        let pause = REDIAL_MAX.min(REDIAL_MIN * 2_u32.pow(self.failures.min(5)));
        self.failures += 1;
        let pause = if silent {
            Duration::ZERO
        } else {
            pause.mul_f64(rng.random_range(0.75..=1.0))
        };
        self.state = State::Waiting { until: now + pause };
    }

    /// A dial without an outcome, or a link without a beat, for too long.
    pub(super) fn is_late(&self, now: Duration) -> bool {
        match self.state {
            State::Waiting { .. } => false,
            State::Dialing { since, .. } => now.saturating_sub(since) >= DIAL_MAX,
            State::Connected { since: heard, .. } | State::Up { heard, .. } => {
                self.speech != Speech::Plain && now.saturating_sub(heard) >= SILENCE_MAX
            }
        }
    }

    /// This node was stopped until now for so long, and could not have heard anything.
    pub(super) fn excuse(&mut self, now: Duration, stall: Duration) {
        match &mut self.state {
            State::Waiting { .. } => {}
            State::Dialing { since: at, .. }
            | State::Connected { since: at, .. }
            | State::Up { heard: at, .. } => *at = now.min(*at + stall),
        }
        if let Some(until) = &mut self.introduced {
            *until = (now + INTRODUCED_MAX).min(*until + stall);
        }
    }

    /// Heard, as far as is known now.
    pub(super) fn is_up(&self) -> bool {
        matches!(self.state, State::Up { .. })
    }

    pub(super) fn status(&self, now: Duration, fault: Option<Fault>) -> LinkStatus {
        let (state, beat_age) = match self.state {
            State::Waiting { .. } | State::Dialing { .. } => (LinkState::Dialing, None),
            State::Connected { .. } if self.speech == Speech::Plain => (LinkState::Up, None),
            State::Connected { .. } => (LinkState::Silent, None),
            State::Up { heard, .. } => {
                let age = now.saturating_sub(heard);
                (
                    if age > OVERDUE {
                        LinkState::Silent
                    } else {
                        LinkState::Up
                    },
                    Some(age),
                )
            }
        };
        LinkStatus {
            link: self.link(),
            origin: self.origin,
            name: self.name.clone(),
            publisher: self.endpoint.clone(),
            http: self.http.clone(),
            speech: self.speech,
            via: self.via,
            state,
            beat_age,
            echo: self.echo,
            fault,
        }
    }
}
