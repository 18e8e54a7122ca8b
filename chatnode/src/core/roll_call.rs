//! How a roll call is begun, answered, and over: see [`rolls`](super::rolls).

use std::collections::BTreeMap;
use std::time::Duration;

use super::bounds::{JOIN_MAX, ORIGINS_MAX};
use super::clock::Now;
use super::log::Log;
use super::news::Beat;
use super::output::Output;
use super::pace::Request;
use super::rolls::{Asked, Roll};
use super::state::Core;
use crate::model::names::Origin;

/// A roll call takes so long at the most; then it is over, whatever is still lacking.
const ROLL_MAX: Duration = Duration::from_secs(2);
/// Roll calls begin so far apart at the least: whoever joins with a position that is ahead, a forged one
/// too, asks for one, and it costs a request to each peer.
const ROLL_EVERY: Duration = Duration::from_millis(50);
/// A node catches up for so long at the most, then it takes clients again.
const CATCH_UP_MAX: Duration = JOIN_MAX;
/// A peer that did not answer and is linked still is asked again after this.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(200);

impl Core {
    /// The number of a roll call that begins now. It is over within twice [`ROLL_MAX`] and a moment.
    pub(super) fn next_roll(&self) -> u64 {
        self.rolls.last + 1
    }

    /// Asks all who are heard how far they are: the roll call of [`Core::next_roll`] tells what they hold
    /// now.
    pub(super) fn call_roll(&mut self, now: Now) {
        self.rolls.again = true;
        if self.rolls.running.is_none() {
            self.check_roll(now);
        }
    }

    /// This node was stopped: it takes no send and no join before it holds what its peers
    /// hold now. [`Output::CaughtUp`] tells when, [`CATCH_UP_MAX`] later at the most.
    pub(super) fn catch_up(&mut self, now: Now) {
        // A roll call that runs was asked before the stop.
        let number = self.next_roll();
        self.rolls.catching_up = Some((number, now.mono + CATCH_UP_MAX));
        self.call_roll(now);
    }

    /// The number of the last roll call that is over.
    pub(super) fn rolls_over(&self) -> u64 {
        self.rolls.last - u64::from(self.rolls.running.is_some())
    }

    /// Whether sends and joins have to wait.
    pub(crate) fn is_catching_up(&self) -> bool {
        self.rolls.catching_up.is_some()
    }

    /// A peer was asked for its position, and answered or did not.
    pub(super) fn position_told(&mut self, now: Now, from: Origin, told: Option<&Beat>) {
        let told = told.filter(|beat| beat.origin == from);
        if let Some(beat) = told {
            self.peers.told(beat, now.mono);
            self.claim_position(beat, now);
        }
        let Some(roll) = &mut self.rolls.running else {
            return;
        };
        if let Some(asked) = roll.asked.get_mut(&from)
            && *asked == Asked::UnderWay
        {
            match told {
                None => *asked = Asked::Failed(now.mono + ASK_AGAIN_AFTER),
                Some(beat) => {
                    *asked = Asked::Answered;
                    for (origin, seq) in beat.reaches() {
                        let most = roll.lacking.entry(origin).or_default();
                        *most = (*most).max(seq);
                    }
                }
            }
        }
        self.check_roll(now);
    }

    fn begin_roll(&mut self, now: Now) {
        self.rolls.last += 1;
        self.rolls.begun = Some(now.mono);
        self.rolls.again = false;
        let linked = self.peers.iter().filter(|(_, peer)| peer.linked);
        let asked: BTreeMap<Origin, Asked> = linked
            .map(|(origin, _)| (origin, Asked::UnderWay))
            .collect();
        let asks = asked.keys().map(|origin| Request::Position(*origin));
        self.requests.extend(asks);
        let most = self.rolls.catching_up.map(|(_, until)| until);
        let until = now.mono + ROLL_MAX;
        self.rolls.running = Some(Roll {
            until: most.map_or(until, |most| until.min(most.max(now.mono))),
            asked,
            lacking: BTreeMap::new(),
        });
    }

    /// Looks whether the roll call is over.
    pub(super) fn check_roll(&mut self, now: Now) {
        // One that follows may be over at once, if nobody is heard.
        loop {
            let Some(roll) = &mut self.rolls.running else {
                if !self.rolls.again {
                    return;
                }
                let due = self.rolls.begun.map_or(now.mono, |at| at + ROLL_EVERY);
                if now.mono < due {
                    self.tick_due = self.tick_due.min(due);
                    return;
                }
                self.begin_roll(now);
                continue;
            };
            let (logs, peers, me) = (&self.logs, &self.peers, self.me.origin);
            let full = logs.len() >= ORIGINS_MAX;
            roll.lacking.retain(|origin, seq| {
                let log = logs.get(origin);
                let ignored = *origin == me || (log.is_none() && full);
                !ignored && log.map_or(0, Log::held) < *seq
            });
            let mut open = false;
            for (origin, asked) in &mut roll.asked {
                let linked = peers.hears(*origin);
                match *asked {
                    Asked::Answered => {}
                    Asked::UnderWay => open = true,
                    Asked::Failed(_) if !linked => {}
                    Asked::Failed(at) if at <= now.mono => {
                        *asked = Asked::UnderWay;
                        self.requests.push(Request::Position(*origin));
                        open = true;
                    }
                    Asked::Failed(at) => {
                        self.tick_due = self.tick_due.min(at);
                        open = true;
                    }
                }
            }
            let complete = !open && roll.lacking.is_empty();
            if !complete && now.mono < roll.until {
                self.tick_due = self.tick_due.min(roll.until);
                return;
            }
            self.rolls.running = None;
            if let Some((number, until)) = self.rolls.catching_up {
                if now.mono >= until || (complete && self.rolls.last >= number) {
                    self.rolls.catching_up = None;
                    self.outputs.push(Output::CaughtUp);
                } else {
                    self.rolls.again = true;
                }
            }
        }
    }
}
