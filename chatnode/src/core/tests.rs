//! Scripts: inputs, and the outputs that they must have.
//!
//! The node under test is `a`; the others are `b`, `c`, `d`. Outputs are compared as short texts,
//! one for each output, such as `deliver b.2` or `fetch b.1-2 of b`; beats are left out.

mod copies;
mod gone;
mod halls;
mod joining;
mod journal;
mod keeping;
mod linking;
mod positions;
mod questions;
mod repairing;
mod resuming;
mod rolls;
mod saying;

use std::sync::Arc;
use std::time::Duration;

use rand::SeedableRng as _;
use rand::rngs::StdRng;

use super::archive::Archive;
use super::copies::Ticket;
use super::input::Listed;
use super::links::fault::{Fault, Why};
use super::log::{AHEAD_ALL_BYTES_MAX, Log, Span};
use super::members::Snapshot;
use super::memory::{MemoryStore, Retention};
use super::named::Named;
use super::news::{Ack, Beat, Entries, Live, LiveEvent, News};
use super::output::Notice;
use super::repair::FetchId;
use super::*;
use crate::model::entry::{Entry, TS_MAX};
use crate::model::names::{EntryId, Mid, Origin, RoomName, UserName};

const WALL_US: u64 = 1_760_000_000_000_000;

/// `b` is the origin `bbbbbbbbbb`.
fn origin(letter: char) -> Origin {
    letter.to_string().repeat(10).parse().unwrap()
}

fn short(origin: Origin) -> &'static str {
    let at = "abcdefgh".find(origin.as_str().chars().next().unwrap());
    let at = at.expect("an origin of these tests");
    &"abcdefgh"[at..=at]
}

fn lobby() -> RoomName {
    "lobby".parse().unwrap()
}

/// The entry `text`, such as `b.2`, said so many milliseconds after the start.
fn entry(text: &str, said_ms: u64, mid: Option<&str>) -> Arc<Entry> {
    let id = id(text);
    let mid = mid.map(|mid| mid.parse().unwrap());
    let name = "bob".parse().unwrap();
    let ts = (WALL_US + said_ms * 1000).saturating_add(id.seq);
    Arc::new(Entry::new(id, ts, lobby(), mid, &name, text))
}

fn id(text: &str) -> EntryId {
    let (letter, seq) = text.split_once('.').unwrap();
    EntryId {
        origin: origin(letter.chars().next().unwrap()),
        seq: seq.parse().unwrap(),
    }
}

fn ids(text: &str) -> Vec<EntryId> {
    text.split_whitespace().map(id).collect()
}

/// The same of news; beats are left out.
fn tell_news(news: &News) -> Option<String> {
    Some(match news {
        News::Beat(_) => return None,
        News::Ack(ack) => {
            format!("ack {} to {}", ack.through, short(ack.to))
        }
        News::Live(live) => format!("live {}", live.events.len()),
        News::Entries(_) => panic!("{news:?}"),
    })
}

fn tell(output: &Output) -> Option<String> {
    let of = |id: &EntryId| format!("{}.{}", short(id.origin), id.seq);
    Some(match output {
        Output::Append { entry, ack_wanted } => {
            let ack = if *ack_wanted { " ack" } else { "" };
            format!("append {}{ack}", of(&entry.id()))
        }
        Output::PublishPlain(text) => format!("plain {text}"),
        Output::Publish(news) => return tell_news(news),
        Output::Deliver(entry, _) => format!("deliver {}", of(&entry.id())),
        Output::Said {
            ticket, id, held, ..
        } => {
            let kept = ["", " not kept", " kept"][held.keeper.map_or(0, |it| 1 + usize::from(it))];
            format!("said {} {} copies {}{kept}", ticket.0, of(id), held.copies)
        }
        Output::NotSaid { ticket, why } => format!("refused {} {why:?}", ticket.0),
        Output::Fetch { fetch, .. } => format!(
            "fetch {}.{}-{} of {}",
            short(fetch.origin),
            fetch.span.after + 1,
            fetch.span.through,
            short(fetch.from)
        ),
        Output::FetchMembers { from, .. } => format!("members of {}", short(*from)),
        Output::Gap(origin, span) => {
            format!("gap {}.{}-{}", short(*origin), span.after + 1, span.through)
        }
        Output::Members(change, count) => {
            let names = |sign: char, names: &[UserName]| {
                let names = names.iter().map(|name| format!("{sign}{name} "));
                names.collect::<String>()
            };
            let (joined, left) = (names('+', &change.joined), names('-', &change.left));
            format!("{} {joined}{left}= {count}", change.room)
        }
        Output::Typing(room, name) => format!("{name} types in {room}"),
        Output::AskPosition { from, .. } => format!("position of {}", short(*from)),
        Output::CaughtUp => "caught up".to_owned(),
        Output::Answer(ticket, _) => format!("answer {}", ticket.0),
        Output::Read(ticket, _) => format!("read {}", ticket.0),
        Output::Ready { unlinked, lacking } if lacking.is_empty() => {
            let unlinked: String = unlinked.iter().map(|o| short(*o)).collect();
            format!("ready [{unlinked}]")
        }
        Output::Ready { unlinked, lacking } => {
            format!(
                "ready without {} nor {} logs",
                unlinked.len(),
                lacking.len()
            )
        }
        Output::Whole => "whole".to_owned(),
        Output::CatchingUp => "catching up".to_owned(),
        Output::NodesChanged => return None,
        Output::Dial { link, endpoint, .. } => format!("dial {} {endpoint}", link.0),
        Output::HangUp(link) => format!("hang up {}", link.0),
        Output::Hello { to, .. } => format!("hello {}", short(*to)),
        Output::Write(batch) => format!("write {}", batch.entries.len()),
        Output::Keep(batch) => format!("keep {}", batch.entries.len()),
        Output::Notice(notice) => match notice {
            Notice::LinkUp(peer) => format!("{} is heard", short(*peer)),
            Notice::LinkDown(peer) => format!("{} is not heard", short(*peer)),
            Notice::PeerSkewed { peer, .. } => format!("{} has a wrong clock", short(*peer)),
            other => format!("{other:?}"),
        },
    })
}

/// The node under test and its time.
struct Rig {
    core: Core,
    ms: u64,
    fetches: Vec<FetchId>,
}

impl Rig {
    fn with(retention: Retention) -> Self {
        let me = Identity {
            origin: origin('a'),
            name: "a".to_owned(),
            http: "http://a".to_owned(),
            publisher: "tcp://a".to_owned(),
        };
        let store = MemoryStore::new(retention);
        let now = Now {
            mono: Duration::ZERO,
            wall_us: WALL_US,
        };
        Self {
            core: Core::new(CoreOptions::of(me), store, StdRng::seed_from_u64(1), now),
            ms: 0,
            fetches: Vec::new(),
        }
    }

    /// A node that was alone and is ready.
    fn new() -> Self {
        let mut rig = Self::with(Retention::default());
        assert_eq!(rig.is_alone(), ["ready []"]);
        rig
    }

    /// The registries list nobody.
    fn is_alone(&mut self) -> Vec<String> {
        self.takes(Input::Listed(Listed {
            is_settled: true,
            ..Listed::default()
        }))
    }

    /// A ready node that is linked both ways with these.
    fn linked(letters: &str) -> Self {
        let mut rig = Self::new();
        for letter in letters.chars() {
            rig.link(letter, "a", "");
        }
        rig.passes(20);
        rig
    }

    fn now(&self) -> Now {
        Now {
            mono: Duration::from_millis(self.ms),
            wall_us: WALL_US + self.ms * 1000,
        }
    }

    /// What an input does.
    fn does(&mut self, input: impl FnOnce(&mut Core, Now)) -> Vec<String> {
        let now = self.now();
        self.core.look(now);
        input(&mut self.core, now);
        self.core.send_requests(now);
        let outputs = self.core.take_outputs(Vec::new());
        for output in &outputs {
            if let Output::Fetch { fetch, .. } = output {
                self.fetches.push(fetch.id);
            }
        }
        outputs.iter().filter_map(tell).collect()
    }

    fn takes(&mut self, input: Input<'_>) -> Vec<String> {
        self.does(|core, now| core.handle(input, now))
    }

    /// What happens while only time passes.
    fn passes(&mut self, ms: u64) -> Vec<String> {
        let mut told = Vec::new();
        let end = self.ms + ms;
        loop {
            let due = self.core.deadline().as_nanos().div_ceil(1_000_000);
            let due = u64::try_from(due).unwrap().max(self.ms);
            if due > end {
                break;
            }
            self.ms = due;
            told.extend(self.takes(Input::Tick));
        }
        self.ms = end;
        told
    }

    /// As [`Rig::passes`], while these beat and say that they hear those.
    fn passes_with(&mut self, ms: u64, peers: &[(char, &str, &str)]) -> Vec<String> {
        let mut told = Vec::new();
        for _ in 0..ms.div_ceil(500) {
            for (letter, hears, position) in peers {
                told.extend(self.beat(*letter, hears, position));
            }
            told.extend(self.passes(500));
        }
        told
    }

    fn frame(&mut self, from: char, frame: News) -> Vec<String> {
        self.does(|r, now| r.news(now, origin(from), frame))
    }

    /// A beat. Its head is what the position says of the node itself.
    fn beat(&mut self, from: char, hears: &str, position: &str) -> Vec<String> {
        let beat = self.beat_of(from, hears, position, 0);
        self.frame(from, News::Beat(beat))
    }

    fn beat_of(&self, from: char, hears: &str, position: &str, members_version: u64) -> Beat {
        let position = ids(position);
        let own = position.iter().filter(|id| id.origin == origin(from));
        Beat {
            origin: origin(from),
            name: from.to_string(),
            http: format!("http://{from}"),
            publisher: format!("tcp://{from}"),
            ts: self.now().wall_us,
            clock: self.now().wall_us,
            head: own.map(|id| id.seq).max().unwrap_or_default(),
            position,
            hears: hears.chars().map(origin).collect(),
            members_version,
            ready: true,
        }
    }

    fn link(&mut self, letter: char, hears: &str, position: &str) -> Vec<String> {
        let mut told = self.does(|r, now| r.linked(now, origin(letter)));
        told.extend(self.beat(letter, hears, position));
        told
    }

    fn unlink(&mut self, letter: char) -> Vec<String> {
        self.does(|r, now| r.unlinked(now, origin(letter)))
    }

    /// A node is killed: its link ends, and nobody listens where it was.
    fn dies(&mut self, letter: char) -> Vec<String> {
        let mut told = self.unlink(letter);
        told.extend(self.greeted(letter, Some(Why::Refused)));
        told
    }

    /// A hello is answered.
    fn greeted(&mut self, letter: char, why: Option<Why>) -> Vec<String> {
        let outcome = why.map(|why| Fault::new(why, "it is so"));
        self.takes(Input::Greeted(origin(letter), outcome))
    }

    /// Registries answer, and list these, of whom nobody knows where they are.
    fn list(&mut self, letters: &str) -> Vec<String> {
        let answering = Some(letters.chars().map(origin).collect());
        self.takes(Input::Listed(Listed {
            answering,
            ..Listed::default()
        }))
    }

    /// Entries such as `b.1 b.2` come on the link to their origin.
    fn comes(&mut self, texts: &str) -> Vec<String> {
        let entries: Vec<_> = texts
            .split_whitespace()
            .map(|text| entry(text, 0, None))
            .collect();
        self.come(entries, false)
    }

    fn come(&mut self, entries: Vec<Arc<Entry>>, ack_wanted: bool) -> Vec<String> {
        let from = entries[0].origin;
        let frame = Entries {
            origin: from,
            ack_wanted,
            entries,
        };
        self.does(|r, now| r.news(now, from, News::Entries(frame)))
    }

    /// The answer to the oldest open fetch: these entries, or none, or a failure.
    fn answer(&mut self, texts: Option<&str>) -> Vec<String> {
        self.answer_behind(0, texts)
    }

    fn answer_behind(&mut self, floor: u64, texts: Option<&str>) -> Vec<String> {
        let fetch = self.fetches.remove(0);
        let page = texts.map(|texts| LogPage {
            floor,
            floor_ts: TS_MAX,
            entries: texts
                .split_whitespace()
                .map(|text| entry(text, 0, None))
                .collect(),
        });
        self.takes(Input::Fetched(fetch, page, Duration::ZERO))
    }

    fn says(&mut self, ticket: u64, mid: Option<&str>, copies: usize) -> Vec<String> {
        self.says_from(Source::Client, ticket, mid, copies)
    }

    fn says_from(
        &mut self,
        source: Source,
        ticket: u64,
        mid: Option<&str>,
        copies: usize,
    ) -> Vec<String> {
        let mid = mid.map(|mid| mid.parse().unwrap());
        self.takes(Input::Say(Say {
            ticket: Ticket(ticket),
            room: &lobby(),
            from: &"ada".parse().unwrap(),
            mid: mid.as_ref(),
            text: "hello",
            copies,
            source,
        }))
    }

    /// The transcript of the lobby.
    fn transcript(&self) -> String {
        let page = self.core.store.page(&lobby(), None, usize::MAX);
        tell_ids(page.entries.iter().map(|entry| entry.id()))
    }

    fn resumes(&self, since: Option<&str>) -> resumed::Resumed {
        let since = since.map(ids);
        let archive = Archive {
            others_asked: true,
            ..Archive::default()
        };
        let named = &mut Named::default();
        self.core
            .resume(&lobby().into(), since.as_deref(), named, 2, &archive)
            .unwrap()
    }
}

fn tell_ids(ids: impl IntoIterator<Item = EntryId>) -> String {
    let ids = ids.into_iter().filter(|id| !id.origin.is_mark());
    let ids: Vec<_> = ids
        .map(|id| format!("{}.{}", short(id.origin), id.seq))
        .collect();
    ids.join(" ")
}

#[test]
fn frames_of_another_origin_than_the_links_are_dropped() {
    let mut rig = Rig::linked("bc");
    let log = |origin| {
        News::Entries(Entries {
            origin,
            ack_wanted: false,
            entries: vec![entry("b.1", 0, None)],
        })
    };
    assert!(rig.frame('c', log(origin('b'))).is_empty());
    assert!(rig.frame('a', log(origin('a'))).is_empty(), "of oneself");
    let beat = rig.beat_of('b', "", "b.9", 0);
    assert!(rig.frame('c', News::Beat(beat)).is_empty());
    let ack = News::Ack(Ack {
        to: origin('a'),
        from: origin('b'),
        through: 9,
    });
    assert!(rig.frame('c', ack).is_empty());
    assert!(rig.core.log(origin('b')).is_none_or(|log| log.held() == 0));
}

#[test]
fn a_wild_clock_elsewhere_pulls_this_one_by_a_minute_at_the_most() {
    let mut rig = Rig::linked("b");
    rig.come(vec![entry("b.1", 1_000_000_000, None)], false);
    rig.says(1, None, 0);
    let page = rig.core.store.page(&lobby(), None, 9);
    let own = page
        .entries
        .iter()
        .find(|e| e.origin == origin('a'))
        .unwrap();
    assert!(own.ts <= rig.now().wall_us + clock::AHEAD_MAX_US + 1);
    assert!(own.ts > rig.now().wall_us + clock::AHEAD_MAX_US - 1);
}

#[test]
fn numbers_out_of_all_bounds_do_no_harm() {
    let mut rig = Rig::linked("bc");
    let wild = format!("b.{} c.{} d.{}", u64::MAX, u64::MAX, u64::MAX);
    rig.beat('b', "a", &wild);
    rig.come(vec![entry(&format!("b.{}", u64::MAX), 0, None)], true);
    rig.come(vec![entry("b.0", 0, None)], true);
    rig.frame(
        'b',
        News::Ack(Ack {
            to: origin('a'),
            from: origin('b'),
            through: u64::MAX,
        }),
    );
    let members = LiveEvent::Members {
        version: u64::MAX,
        room: lobby(),
        joined: vec!["eve".parse().unwrap()],
        left: Vec::new(),
    };
    for _ in 0..2 {
        let live = Live {
            origin: origin('b'),
            events: vec![members.clone()],
        };
        rig.frame('b', News::Live(live));
        let snapshot = Snapshot {
            version: u64::MAX,
            rooms: Vec::new(),
        };
        rig.does(|r, _| r.members_fetched(origin('b'), Some(snapshot)));
    }
    rig.passes(3000);
    let all = Span {
        after: u64::MAX,
        through: u64::MAX,
    };
    assert!(rig.core.log_page(origin('b'), all, 1).entries.is_empty());
    assert!(rig.core.log_page(origin('d'), all, 1).entries.is_empty());
    rig.says(1, None, 0);
    assert_eq!(
        rig.core.copies(id("a.1")),
        0,
        "nobody acknowledged what was not yet said"
    );
    assert_eq!(rig.comes("b.1 b.2"), ["deliver b.1", "deliver b.2"]);
}
