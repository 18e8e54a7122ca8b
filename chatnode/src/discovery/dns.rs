//! The talk with DNS: a name is looked up again and again, and who is at each address is asked there.
//!
//! DNS knows addresses of HTTP, and nothing of nodes: it lists those that are dead, others that are none,
//! and this one. So only who answers a hello is a member. That a name has no address now, or that one
//! address is missing from an answer, tells little: resolvers fail while pods are replaced, and some give a
//! few of many. What was found is forgotten when somebody else is there, or nobody listens; or when it has
//! been in no answer for a while.

mod lookup;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use base::endpoint::{Endpoint, Host, InvalidEndpoint};
use futures::StreamExt as _;
use rand::RngExt as _;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::seat::Seat;
use super::url::DnsName;
use super::web::Trouble;
use super::{Hears, Listed, Meet, Origin};
use crate::core::Identity;
use crate::core::links::fault::{Fault, Why};

pub(crate) use lookup::addresses;

/// How often the name is looked up, less up to a tenth of it,
const POLL_EVERY: Duration = Duration::from_secs(5);
/// and while others start too,
const POLL_FIRST: Duration = Duration::from_millis(500);
/// which is for so long.
const STARTING: Duration = Duration::from_secs(5);
/// Who has answered is asked again after so long; with the next look-up, if it is not heard.
const ASK_AGAIN: Duration = Duration::from_secs(15);
/// What is in no answer any more is forgotten after so long.
const KEPT: Duration = Duration::from_secs(30);
/// Addresses of one name; more are not asked.
const ADDRESSES_MAX: usize = 512;
/// How many are asked at once.
const ASKED_AT_ONCE: usize = 32;
/// The first list waits so long for those who are slow.
const FIRST_MAX: Duration = Duration::from_millis(1500);
/// Of what is wrong, so much is told.
const FAULTS_MAX: usize = 4;

/// The talk about one name.
pub(super) struct Dns {
    name: DnsName,
    me: Origin,
    meet: Meet,
    hears: Hears,
    seat: Seat,
    places: BTreeMap<SocketAddr, Place>,
}

/// One address.
#[derive(Debug)]
struct Place {
    /// When it was in an answer last.
    seen: Instant,
    /// When it was asked last.
    asked: Option<Instant>,
    /// Who is there.
    who: Option<Identity>,
    /// Why the last hello brought nobody.
    fault: Option<Fault>,
}

impl Dns {
    pub(super) fn new(name: DnsName, me: Origin, (meet, hears): (Meet, Hears), seat: Seat) -> Self {
        Self {
            name,
            me,
            meet,
            hears,
            seat,
            places: BTreeMap::new(),
        }
    }

    /// Looks up and asks until it is time to leave. DNS is told nothing.
    pub(super) async fn run(mut self, leaving: CancellationToken) {
        let polls = async {
            let born = Instant::now();
            loop {
                let begun = Instant::now();
                let pause = match begun - born < STARTING {
                    true => POLL_FIRST,
                    false => POLL_EVERY.mul_f64(rand::rng().random_range(0.9..=1.0)),
                };
                self.poll(pause).await;
                // An answer that took long is no reason to ask without a pause.
                sleep_until((begun + pause).max(Instant::now() + POLL_FIRST / 2)).await;
            }
        };
        leaving.run_until_cancelled(polls).await;
    }

    async fn poll(&mut self, age: Duration) {
        let found = addresses(&self.name, age).await;
        let now = Instant::now();
        let failed = match found {
            Ok(found) => {
                self.note(&found, now);
                None
            }
            Err(why) => Some(why),
        };
        self.ask(now, failed.is_none()).await;
        let outcome = failed.map_or(Ok(()), |why| Err(Trouble::Away(why)));
        tell(&self.places, self.me, &self.seat, outcome);
    }

    /// These addresses are in the answer.
    fn note(&mut self, found: &BTreeSet<SocketAddr>, now: Instant) {
        self.places.retain(|_, place| now - place.seen < KEPT);
        for addr in found {
            let is_known = self.places.contains_key(addr);
            if is_known || self.places.len() < ADDRESSES_MAX {
                let new = Place {
                    seen: now,
                    asked: None,
                    who: None,
                    fault: None,
                };
                self.places.entry(*addr).or_insert(new).seen = now;
            }
        }
    }

    fn is_heard(&self, origin: Origin) -> bool {
        origin == self.me || (self.hears)(origin)
    }

    /// Asks who is where that is not known, or was asked long ago. Tells as answers come, if it answers.
    async fn ask(&mut self, now: Instant, answers: bool) {
        let is_due = |place: &Place| match (&place.who, place.asked) {
            (Some(who), Some(at)) => now - at >= ASK_AGAIN || !self.is_heard(who.origin),
            _ => true,
        };
        let due = self.places.iter().filter(|(_, place)| is_due(place));
        let due: Vec<SocketAddr> = due.map(|(addr, _)| *addr).collect();
        let meet = &self.meet;
        let asked = due.into_iter().map(|addr| async move {
            let at = format!("http://{addr}");
            let outcome = match at.parse::<Endpoint>() {
                Ok(_) => meet(at).await,
                Err(InvalidEndpoint(why)) => Err(Fault::new(
                    Why::NoPublisher,
                    format!("{addr} is not asked: {why}"),
                )),
            };
            (addr, outcome)
        });
        let mut met = futures::stream::iter(asked).buffer_unordered(ASKED_AT_ONCE);
        // The first list is complete, as far as that does not take long: who joins waits for it.
        let is_first = self.places.values().all(|place| place.asked.is_none());
        let told_from = if is_first { now + FIRST_MAX } else { now };
        let mut has_news = false;
        while let Some((addr, outcome)) = met.next().await {
            let Some(place) = self.places.get_mut(&addr) else {
                continue;
            };
            place.asked = Some(now);
            has_news |= place.who.is_none() && outcome.is_ok();
            place.met(addr, outcome);
            if has_news && answers && Instant::now() >= told_from {
                has_news = false;
                tell(&self.places, self.me, &self.seat, Ok(()));
            }
        }
    }
}

impl Place {
    /// Who answered at this address, or why nobody did.
    fn met(&mut self, addr: SocketAddr, outcome: Result<Identity, Fault>) {
        match outcome.and_then(|who| reachable(addr, who)) {
            Ok(who) => {
                self.who = Some(who);
                self.fault = None;
            }
            Err(fault) => {
                // One that does not answer may be stopped, or cut off.
                let is_unknown = matches!(fault.why, Why::TimedOut | Why::Unreachable);
                if !is_unknown {
                    self.who = None;
                }
                self.fault = Some(fault);
            }
        }
    }
}

/// Whoever is found on another machine and tells an address on loopback leads this one to itself.
fn reachable(addr: SocketAddr, who: Identity) -> Result<Identity, Fault> {
    let loops = |told: &String| {
        let host = told.parse::<Endpoint>().ok().map(|endpoint| endpoint.host);
        match host {
            Some(Host::Ip(ip)) => ip.is_loopback(),
            Some(Host::Name(name)) => name == "localhost",
            None => false,
        }
    };
    if is_beyond(addr.ip()) && [&who.http, &who.publisher].into_iter().any(loops) {
        let text = format!(
            "{} at {addr} tells an address on loopback: bind its --http to {}, or give it --advertise",
            who.origin,
            addr.ip()
        );
        return Err(Fault::new(Why::Loopback, text));
    }
    Ok(who)
}

fn is_beyond(ip: IpAddr) -> bool {
    !ip.to_canonical().is_loopback()
}

/// Tells who is there, and what is wrong at addresses of the last answers.
fn tell(
    places: &BTreeMap<SocketAddr, Place>,
    me: Origin,
    seat: &Seat,
    outcome: Result<(), Trouble>,
) {
    let who = places.values().filter_map(|place| place.who.as_ref());
    let others = who.filter(|who| who.origin != me);
    let members: BTreeMap<Origin, Listed> = others
        .map(|who| {
            let listed = Listed {
                name: who.name.clone(),
                publisher: who.publisher.clone(),
                http: who.http.clone(),
            };
            (who.origin, listed)
        })
        .collect();
    let newest = places.values().map(|place| place.seen).max();
    let is_in = |place: &&Place| Some(place.seen) == newest;
    let faults = places
        .values()
        .filter(is_in)
        .filter_map(|place| place.fault.as_ref());
    let faults: Vec<&Fault> = faults.collect();
    let of_secret = |fault: &&Fault| matches!(fault.why, Why::OtherKey | Why::NotSealed);
    let has_other_secret = faults.iter().any(of_secret);
    let mut text = faults
        .iter()
        .take(FAULTS_MAX)
        .map(|fault| fault.text.as_str())
        .collect::<Vec<_>>()
        .join("; ");
    if faults.len() > FAULTS_MAX {
        text.push_str(&format!("; and {} more", faults.len() - FAULTS_MAX));
    }
    seat.remark(text, has_other_secret);
    seat.sees(members, outcome);
}
