//! Hellos: a node says hello to a peer over HTTP until it beats and hears this node, or is not there.

use std::collections::BTreeMap;
use std::time::Duration;

use super::presence::AWAITED_MAX;
use crate::model::names::Origin;

/// Who is met at a broker beats there as this node does. Hello is said to it only if that is not enough.
const GREET_MET: Duration = Duration::from_millis(250);
/// A hello is said again after this, doubling, while the peer has not beaten or hears not us,
const GREET_FIRST: Duration = Duration::from_millis(50);
/// up to this,
const GREET_MAX: Duration = Duration::from_secs(2);
/// and for so long after a dial, or the end of the link.
const GREETED_FOR: Duration = AWAITED_MAX;

/// Peers to whom hello is said until they beat and hear us, or nobody is there.
#[derive(Debug, Default)]
pub(super) struct Greetings(BTreeMap<Origin, Greeting>);

/// Where one of them is.
#[derive(Debug)]
struct Greeting {
    http: String,
    due: Duration,
    wait: Duration,
    until: Duration,
    /// One is not answered yet. None is said meanwhile: who is slow to answer would be slower still.
    under_way: bool,
}

impl Greetings {
    /// Hello is to be said to a peer at once, and again and again.
    pub(super) fn begin(&mut self, origin: Origin, http: String, now: Duration) {
        let before = self.0.get(&origin);
        let greeting = Greeting {
            http,
            due: now,
            wait: before.map_or(GREET_FIRST, |it| it.wait),
            until: now + GREETED_FOR,
            under_way: before.is_some_and(|it| it.under_way),
        };
        self.0.insert(origin, greeting);
    }

    /// A peer was met at a broker: hello is to be said to it if it does not hear this node soon.
    pub(super) fn begin_late(&mut self, origin: Origin, http: String, now: Duration) {
        if !self.0.contains_key(&origin) {
            self.begin(origin, http, now + GREET_MET);
        }
    }

    /// A peer that does not hear this node has beaten: it is there. Whether hello is being said to it.
    pub(super) fn go_on(&mut self, origin: Origin, http: &str, now: Duration) -> bool {
        let Some(greeting) = self.0.get_mut(&origin) else {
            return false;
        };
        http.clone_into(&mut greeting.http);
        greeting.until = now + GREETED_FOR;
        true
    }

    /// A hello was answered, or will not be.
    pub(super) fn answered(&mut self, origin: Origin) {
        if let Some(greeting) = self.0.get_mut(&origin) {
            greeting.under_way = false;
        }
    }

    /// A peer hears this node, or is dead: no hello is said any more.
    pub(super) fn end(&mut self, origin: Origin) {
        self.0.remove(&origin);
    }

    /// The hellos that are to be said now, each to whom and where.
    pub(super) fn due(&mut self, now: Duration) -> Vec<(Origin, String)> {
        self.0.retain(|_, it| now < it.until);
        let mut due = Vec::new();
        for (origin, greeting) in &mut self.0 {
            let is_due = now >= greeting.due && !greeting.under_way;
            if is_due && !greeting.http.is_empty() {
                greeting.due = now + greeting.wait;
                greeting.wait = (greeting.wait * 2).min(GREET_MAX);
                greeting.under_way = true;
                due.push((*origin, greeting.http.clone()));
            }
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a peer that does not answer is not asked more often than it can bear, nor for ever. Method:
    /// hellos that fail after a moment, and one that is never answered.
    #[test]
    fn hellos_come_ever_more_rarely_one_at_a_time_and_not_for_ever() {
        let ms = Duration::from_millis;
        let peer = "bbbbbbbbbb".parse().unwrap();
        let mut greetings = Greetings::default();
        greetings.begin(peer, "http://b".to_owned(), ms(0));
        let mut said = Vec::new();
        for now in (0..40_000).step_by(10) {
            if !greetings.due(ms(now)).is_empty() {
                said.push(now);
                greetings.answered(peer);
            }
        }
        assert_eq!(said[..6], [0, 50, 150, 350, 750, 1550]);
        assert!(said.windows(2).all(|two| two[1] - two[0] <= 2000));
        assert!(said.last() < Some(&30_000));
        greetings.begin(peer, "http://b".to_owned(), ms(40_000));
        assert_eq!(greetings.due(ms(40_000)).len(), 1);
        assert!(greetings.due(ms(50_000)).is_empty(), "it is not answered");
    }
}
