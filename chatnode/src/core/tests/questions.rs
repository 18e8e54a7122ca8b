//! Questions: asked once, answered once, whatever they have to wait for.

use super::*;
use crate::core::journal::{Loaded, LoadedLog};
use crate::core::named::NamedBudget;
use crate::core::question::{Found, Got, Question, ReadError, Resume, Search, Unread};
use crate::model::page::Page;

impl Rig {
    fn asks(&mut self, ticket: u64, question: Question) -> Vec<String> {
        self.takes(Input::Ask(Ticket(ticket), question))
    }
}

fn search() -> Question {
    Question::Search(Search {
        room: lobby(),
        query: "hello".parse().unwrap(),
        before: None,
        limit: 9,
    })
}

fn resume(since: &str, named: Named) -> Question {
    Question::Resume(Resume {
        scope: lobby().into(),
        since: Some(ids(since)),
        named,
        history: 2,
    })
}

fn page() -> Question {
    Question::Page {
        room: lobby(),
        before: None,
        limit: 9,
    }
}

#[test]
fn two_search_through_memory_and_the_next_is_told_to_come_later() {
    let mut rig = Rig::new();
    rig.says(9, None, 0);
    assert_eq!(rig.asks(1, search()), ["read 1"]);
    assert_eq!(rig.asks(2, search()), ["read 2"]);
    assert_eq!(rig.asks(3, search()), ["answer 3"], "refused");
    let found = || Ok(Got::Page(Page::default()));
    assert_eq!(rig.takes(Input::Read(Ticket(1), found())), ["answer 1"]);
    assert_eq!(rig.takes(Input::Read(Ticket(1), found())), [""; 0], "once");
    assert_eq!(rig.asks(4, search()), ["read 4"]);
    let failed = Err(ReadError::Busy);
    assert_eq!(rig.takes(Input::Read(Ticket(2), failed)), ["answer 2"]);
    assert_eq!(rig.asks(5, search()), ["read 5"], "its turn came back too");
}

#[test]
fn who_asks_before_clients_are_taken_is_answered_then() {
    let mut rig = Rig::with(Retention::default());
    assert_eq!(rig.asks(1, page()), [""; 0]);
    assert_eq!(rig.is_alone(), ["ready []", "answer 1"]);
}

#[test]
fn who_is_ahead_is_answered_when_all_were_asked() {
    let mut rig = Rig::linked("bc");
    let asked = rig.asks(1, resume("c.5", Named::default()));
    assert_eq!(asked, ["position of b", "position of c"]);
    // Another that comes a moment later needs a roll call of its own, and others none.
    assert_eq!(rig.asks(2, resume("b.1", Named::default())), [""; 0]);
    assert_eq!(rig.asks(3, page()), ["answer 3"]);
    let told = |rig: &mut Rig, letter| {
        let beat = rig.beat_of(letter, "a", "", 0);
        rig.takes(Input::PositionTold(origin(letter), Some(&beat)))
    };
    assert_eq!(told(&mut rig, 'b'), [""; 0]);
    assert_eq!(told(&mut rig, 'c'), ["answer 1"]);
    assert_eq!(rig.takes(Input::Tick), [""; 0]);
    rig.ms += 50;
    assert_eq!(rig.takes(Input::Tick), ["position of b", "position of c"]);
    told(&mut rig, 'b');
    assert_eq!(told(&mut rig, 'c'), ["answer 2"]);
}

/// What a client named counts until it has joined: it names it only once.
#[test]
fn what_was_named_comes_back_when_the_disk_cannot_be_read() {
    let mut rig = Rig::with(Retention {
        messages: 1,
        ..Retention::default()
    });
    let log = LoadedLog {
        origin: origin('b'),
        held: 3,
        floor: 0,
        holes: Vec::new(),
        last_ts: WALL_US,
    };
    let loaded = Loaded {
        logs: vec![log],
        entries: vec![(entry("b.3", 3, None), true)],
        ..Loaded::default()
    };
    rig.does(|r, now| r.restore(now, loaded));
    rig.is_alone();
    let mut named = Named::default();
    let mids = ["m".parse().unwrap()];
    let until = Duration::from_secs(300);
    named
        .mids
        .add(&lobby(), mids, &NamedBudget::default(), until)
        .unwrap();
    assert_eq!(rig.asks(1, resume("b.1", named)), ["read 1"]);
    let now = rig.now();
    rig.core
        .handle(Input::Read(Ticket(1), Err(ReadError::Busy)), now);
    let outputs = rig.core.take_outputs(Vec::new());
    let [Output::Answer(Ticket(1), answer)] = &outputs[..] else {
        panic!("{outputs:?}");
    };
    let Err(Unread { why, named }) = &**answer else {
        panic!("{answer:?}");
    };
    assert_eq!(*why, ReadError::Busy);
    assert!(!named.mids.is_empty());
}

/// An input costs nothing for questions that go on waiting, however many they are.
#[test]
fn nothing_is_looked_at_again_before_somebody_may_go_on() {
    let mut rig = Rig::linked("b");
    for ticket in 1..100 {
        rig.asks(ticket, resume("c.5", Named::default()));
    }
    let looked = rig.core.reads.looked;
    rig.comes("b.1");
    assert_eq!(rig.core.reads.looked, looked);
    assert_eq!(rig.core.reads.waiting.len(), 99);
    let answers = |told: &[String]| told.iter().filter(|it| it.starts_with("answer")).count();
    let mut told = Vec::new();
    for _ in 0..3 {
        let beat = rig.beat_of('b', "a", "", 0);
        told.extend(rig.takes(Input::PositionTold(origin('b'), Some(&beat))));
        rig.ms += 60;
        told.extend(rig.takes(Input::Tick));
    }
    assert_eq!(answers(&told), 99, "each once");
    assert!(matches!(rig.core.reads.waiting.len(), 0));
}

#[test]
fn a_page_that_nobody_has_is_unknown() {
    let mut rig = Rig::new();
    let now = rig.now();
    let before = Question::Page {
        room: lobby(),
        before: Some(id("b.7")),
        limit: 9,
    };
    rig.core.handle(Input::Ask(Ticket(1), before), now);
    let outputs = rig.core.take_outputs(Vec::new());
    let [Output::Answer(_, answer)] = &outputs[..] else {
        panic!("{outputs:?}");
    };
    assert!(matches!(**answer, Ok(Found::Unknown)));
}
