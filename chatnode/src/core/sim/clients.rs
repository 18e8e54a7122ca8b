//! Clients: they say things, retry, move between nodes, and judge what they get.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use rand::RngExt as _;

use super::bytes::framed;
use super::conns::{Call, Leaves, Request};
use super::judge::Asked;
use super::nodes::Comes;
use super::phases::Phase;
use super::wants::{Want, Wants};
use super::witness::{Push, Trimmed};
use super::world::{Event, NodeId, World};
use crate::core::log::Span;
use crate::model::names::{EntryId, Mid, Origin, RoomName, UserName};

/// A client without an answer goes elsewhere after this.
const PATIENCE: Duration = Duration::from_secs(3);

/// A client that is slow reads nothing for so long at the most: some are closed for that.
const SLOW_MAX: Duration = Duration::from_secs(14);

/// What a client does of itself.
#[derive(Debug)]
pub(super) enum Doing {
    Act,
    Got(u64, Vec<Push>),
    Lost(u64),
}

/// What a client that enters has seen.
#[derive(Debug)]
pub(super) struct Entering {
    /// What it wants, by its number.
    pub(super) want: usize,
    /// The position that it has.
    pub(super) since: Option<Vec<EntryId>>,
    /// The mids of what it has seen behind those that it was asked for.
    pub(super) mids: Vec<Mid>,
    /// What nodes had let go of when that position was made.
    pub(super) trimmed: Arc<Trimmed>,
    /// How often its node has read for it, and whether that took too long.
    pub(super) reads: usize,
    pub(super) slow: bool,
}

/// A connection, as the client sees it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Home {
    pub(super) node: NodeId,
    pub(super) conn: u64,
    /// What of all that it wants it was let into,
    pub(super) inside: Wants,
    /// and of what of that it has all, since nothing that it missed was left out.
    pub(super) whole: Wants,
    /// Since when it hears all that it wants, if it does.
    pub(super) joined: Option<Duration>,
    since: Duration,
    /// When what it wrote last comes there.
    wrote: Duration,
    /// How many of its messages have no reply.
    pub(super) awaits: u32,
}

/// A client.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) name: UserName,
    pub(super) room: RoomName,
    /// What it wants to hear.
    pub(super) wants: Vec<Want>,
    pub(super) home: Option<Home>,
    /// It lost its node and never came back.
    pub(super) gone: bool,
    /// The position it resumes from; `None` before it entered for the first time, or if that ended half way.
    pub(super) position: Option<BTreeMap<Origin, u64>>,
    /// Where its node was when it let it into some of what it wants: its position when it has all.
    pub(super) ats: Vec<EntryId>,
    /// What it need not have seen: said before it came, or told to be beyond recovery.
    pub(super) base: BTreeMap<Origin, u64>,
    /// What nodes had let go of when its position was made.
    pub(super) trimmed: Arc<Trimmed>,
    pub(super) seen: BTreeSet<EntryId>,
    pub(super) mids: BTreeMap<Mid, EntryId>,
    pub(super) gaps: Vec<(Origin, Span)>,
    /// What it had seen and the node that it came to last had not.
    pub(super) ahead: BTreeMap<Origin, u64>,
    /// Whether it names the mids of what it has seen when it is asked for them.
    pub(super) names_mids: bool,
    pub(super) pending: BTreeMap<Mid, (String, usize, Duration)>,
    /// Who is in its room, as it was told.
    pub(super) members: BTreeSet<UserName>,
    said: u64,
    index: usize,
}

impl Client {
    pub(super) fn new(index: usize, room: usize) -> Self {
        let room = format!("room{room}").parse().unwrap();
        Self {
            // Some share a name: it counts once.
            name: format!("user{}", index % 9).parse().unwrap(),
            wants: Want::all(index, &room),
            room,
            ats: Vec::new(),
            home: None,
            gone: false,
            position: None,
            base: BTreeMap::new(),
            trimmed: Arc::default(),
            seen: BTreeSet::new(),
            mids: BTreeMap::new(),
            gaps: Vec::new(),
            ahead: BTreeMap::new(),
            index,
            names_mids: index % 2 == 1,
            pending: BTreeMap::new(),
            members: BTreeSet::new(),
            said: 0,
        }
    }

    /// How all that it says begins.
    pub(super) fn says(&self) -> String {
        format!("{} says ", self.index)
    }

    pub(super) fn was_told_of(&self, id: EntryId) -> bool {
        let inside = |(origin, span): &(Origin, Span)| {
            *origin == id.origin && span.after < id.seq && id.seq <= span.through
        };
        self.gaps.iter().any(inside)
    }

    pub(super) fn advance(&mut self, id: EntryId) {
        let position = self.position.get_or_insert_default();
        let seq = position.entry(id.origin).or_default();
        *seq = (*seq).max(id.seq);
    }
}

impl World {
    pub(super) fn client(&mut self, index: usize, doing: Doing) {
        match doing {
            Doing::Act => {
                self.act(index);
                let next = self.plan.act_every.mul_f64(self.rng.random_range(0.2..2.0));
                self.at(next, Event::Client(index, Doing::Act));
            }
            Doing::Got(conn, pushes) => {
                for push in pushes {
                    self.got(index, conn, push);
                }
            }
            Doing::Lost(conn) => {
                let client = &mut self.clients[index];
                if client.home.is_some_and(|home| home.conn == conn) {
                    client.loses_home();
                    self.note("fault: client lost its node");
                    // Some never come back: their names must go with their node.
                    let leaves = self.chance(0.2);
                    self.clients[index].gone = leaves;
                }
            }
        }
    }

    fn act(&mut self, index: usize) {
        if self.clients[index].gone {
            return;
        }
        let Some(home) = self.clients[index].home else {
            return self.connect(index);
        };
        if home.joined.is_none() {
            if self.now > home.since + PATIENCE {
                self.leaves(index, home);
            }
            return;
        }
        if self.is_slow(index, home) {
            return;
        }
        if self.phase == Phase::Faults && self.chance(0.05) {
            return self.leaves(index, home);
        }
        if self.phase != Phase::Rest {
            self.say_again(index, home);
        }
        if self.clients_talk() && self.chance(0.6) {
            self.say(index, home);
        }
    }

    /// A client closes its connection, behind all that it has written.
    pub(super) fn leaves(&mut self, index: usize, home: Home) {
        let after = self.up_to(Duration::from_millis(20));
        let how = if self.chance(0.5) {
            Leaves::Reading
        } else {
            Leaves::AtOnce
        };
        self.calls(index, home, after, Call::Leave(how));
        self.clients[index].loses_home();
    }

    /// Whether a client reads nothing for now. It waits for no reply then.
    fn is_slow(&mut self, index: usize, home: Home) -> bool {
        let begins = self.plan.slow_clients && self.phase == Phase::Faults;
        let begins = begins && home.awaits == 0 && self.chance(0.03);
        let Some(conn) = self.nodes[home.node].conns.get_mut(&home.conn) else {
            return false;
        };
        if begins && conn.slow.is_none() {
            conn.slow = Some(self.now);
            self.note("fault: slow client");
            let lasts = if self.chance(0.3) {
                SLOW_MAX
            } else {
                self.up_to(SLOW_MAX)
            };
            let reads_on = Comes::Client(index, home.conn, Call::ReadsOn);
            self.at(lasts, Event::Input(home.node, reads_on));
            return true;
        }
        conn.slow.is_some()
    }

    /// What a client does comes to its node, in order.
    fn calls(&mut self, index: usize, home: Home, after: Duration, call: Call) {
        let at = (self.now + after).max(home.wrote + Duration::from_nanos(1));
        if let Some(home) = &mut self.clients[index].home {
            home.wrote = at;
        }
        let call = Comes::Client(index, home.conn, call);
        self.at(at - self.now, Event::Input(home.node, call));
    }

    /// A client writes lines, which may come in two parts.
    pub(super) fn says_line(&mut self, index: usize, line: &str, requests: Vec<Request>) {
        let Some(home) = self.clients[index].home else {
            return;
        };
        let mut first = framed(line);
        let after = self.up_to(Duration::from_millis(5));
        if !self.chance(0.1) {
            return self.calls(index, home, after, Call::Bytes(first, requests));
        }
        let second = first.split_off(self.rng.random_range(0..first.len()));
        self.calls(index, home, after, Call::Bytes(first, Vec::new()));
        let home = self.clients[index].home.unwrap_or(home);
        let after = after + self.up_to(Duration::from_millis(1));
        self.calls(index, home, after, Call::Bytes(second, requests));
    }

    fn say(&mut self, index: usize, home: Home) {
        let copies = self.rng.random_range(0..3);
        let with_mid = self.chance(0.8);
        let client = &mut self.clients[index];
        client.said += 1;
        let text = format!("{}{}", client.says(), client.said);
        let mid: Option<Mid> =
            with_mid.then(|| format!("m{index}-{}", client.said).parse().unwrap());
        if let Some(mid) = &mid {
            let pending = (text.clone(), copies, self.now);
            client.pending.insert(mid.clone(), pending);
        }
        self.sends(index, home, mid.clone(), &text, copies);
        if mid.is_some() && self.chance(0.1) {
            // The same through another node, over HTTP: a retry that was too hasty.
            let live = self.live();
            if let Some(node) = self.pick(&live) {
                let after = self.up_to(Duration::from_millis(300));
                let call = Call::Post(mid, text, copies);
                self.at(after, Event::Input(node, Comes::Client(index, 0, call)));
            }
        }
    }

    fn say_again(&mut self, index: usize, home: Home) {
        let now = self.now;
        let old = |(_, (_, _, at)): &(&Mid, &(String, usize, Duration))| now > *at + PATIENCE;
        let client = &mut self.clients[index];
        let again = client.pending.iter().find(old);
        let again = again.map(|(mid, (text, copies, _))| (mid.clone(), text.clone(), *copies));
        if let Some((mid, text, copies)) = again {
            let pending = (text.clone(), copies, now);
            client.pending.insert(mid.clone(), pending);
            self.sends(index, home, Some(mid), &text, copies);
        }
    }

    /// A client writes that it says something.
    fn sends(&mut self, index: usize, home: Home, mid: Option<Mid>, text: &str, copies: usize) {
        self.serial += 1;
        let number = self.serial;
        let room = &self.clients[index].room;
        let named = mid.as_ref().map(|mid| format!("\"mid\":\"{mid}\","));
        let line = format!(
            "{{\"id\":{number},\"send\":{{\"room\":\"{room}\",{}\"text\":\"{text}\",\"copies\":{copies}}}}}",
            named.unwrap_or_default()
        );
        let asked = Asked {
            node: home.node,
            at: self.now,
            stood_still: Duration::ZERO,
            client: index,
            conn: Some(home.conn),
            mid,
            copies,
        };
        self.says_line(index, &line, vec![Request::Say(number, asked)]);
        if let Some(home) = &mut self.clients[index].home {
            home.awaits += 1;
        }
    }

    fn connect(&mut self, index: usize) {
        let mut ready = self.live();
        ready.retain(|id| self.nodes[*id].core.is_ready());
        let Some(node) = self.pick(&ready) else {
            return;
        };
        self.serial += 1;
        let home = Home {
            node,
            conn: self.serial,
            inside: 0,
            whole: 0,
            joined: None,
            since: self.now,
            wrote: self.now,
            awaits: 0,
        };
        self.clients[index].home = Some(home);
        let hello = format!(
            "{{\"hello\":{{\"name\":\"{}\"}}}}",
            self.clients[index].name
        );
        let (lines, requests) = self.wants_in(index, None);
        let begun = if self.chance(0.5) {
            framed(&format!("{hello}\n{lines}"))
        } else {
            [framed(&hello), framed(&lines)].concat()
        };
        let after = self.up_to(Duration::from_millis(20));
        let with_handshake = self.chance(0.5);
        let call = Call::Connect(begun, requests, with_handshake);
        self.calls(index, home, after, call);
    }

    /// A node is gone: its clients notice at once, or when they hear nothing.
    pub(super) fn clients_lose(&mut self, id: NodeId, at_once: bool) {
        for index in 0..self.clients.len() {
            let Some(home) = self.clients[index].home else {
                continue;
            };
            if home.node == id {
                let most = if at_once { 50 } else { 4000 };
                let after = self.up_to(Duration::from_millis(most));
                self.at(after, Event::Client(index, Doing::Lost(home.conn)));
            }
        }
    }
}
