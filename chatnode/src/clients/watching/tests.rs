//! Who watches what, on real sockets: once, in order, whatever else is heard, and nothing is left behind.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::net::TcpStream;

use super::super::slot::{ConnId, Heard, Style};
use super::super::table::Table;
use super::super::tests::{client, clients, frames};
use crate::core::resumed::Ahead;
use crate::model::entry::Entry;
use crate::model::names::{EntryId, RoomName};
use crate::model::pattern::Pattern;

const SECOND: Duration = Duration::from_secs(1);

fn pattern(text: &str) -> Pattern {
    text.parse().unwrap()
}

fn room(name: &str) -> RoomName {
    name.parse().unwrap()
}

fn entry(at: &str, seq: u64) -> Entry {
    let id = EntryId {
        origin: "aaaaaaaaaa".parse().unwrap(),
        seq,
    };
    let ada = "ada".parse().unwrap();
    Entry::new(id, seq, room(at), None, &ada, &format!("{seq}"))
}

/// Something is said in a room.
fn say(table: &mut Table<()>, at: &str, seq: u64) {
    table.deliver(&entry(at, seq), 0, |_| format!("aaaaaaaaaa.{seq}"));
}

fn ahead(through: u64) -> Ahead {
    Ahead {
        origins: BTreeMap::from([("aaaaaaaaaa".parse().unwrap(), through)]),
        ..Ahead::default()
    }
}

/// What a client gets until this push: numbers of messages, and of pushes all.
async fn got(table: &mut Table<()>, (id, end): (ConnId, &mut TcpStream)) -> Vec<String> {
    table.flush(SECOND);
    table.send(id, "END");
    table.flush(SECOND);
    let mut got = Vec::new();
    loop {
        let frame = frames(end, 1).await.remove(0);
        match frame.split_once("\"id\":\"aaaaaaaaaa.") {
            Some((_, rest)) => got.push(rest.split('"').next().unwrap_or_default().to_owned()),
            None if frame == "END" => return got,
            None => got.push(frame),
        }
    }
}

#[tokio::test]
async fn who_watches_hears_all_rooms_of_the_pattern_in_the_order_in_which_it_was_said() {
    let (mut table, _poll) = clients();
    let (id, mut end) = client(&mut table, Style::Chat).await;
    say(&mut table, "chat.a", 1);
    table.watch(id, &pattern("chat.*"), Ahead::default(), false);
    for (seq, at) in (2..).zip(["chat.b", "chat.a", "other", "chat.b", "chat.", "chat"]) {
        say(&mut table, at, seq);
    }
    assert_eq!(got(&mut table, (id, &mut end)).await, ["2", "3", "5", "6"]);
    // Each of two turns is one write, and what was there before stays heard.
    say(&mut table, "chat.a", 8);
    say(&mut table, "chat.new", 9);
    assert_eq!(got(&mut table, (id, &mut end)).await, ["8", "9"]);
    assert!(table.unwatch(id, &pattern("chat.*")) && !table.unwatch(id, &pattern("chat.*")));
    say(&mut table, "chat.a", 10);
    assert!(got(&mut table, (id, &mut end)).await.is_empty());
    assert_eq!(table.patterns(), 0);
}

#[tokio::test]
async fn who_joins_and_watches_and_watches_twice_hears_each_message_once() {
    let (mut table, _poll) = clients();
    let (id, mut end) = client(&mut table, Style::Chat).await;
    let end = &mut end;
    // Whatever is added or taken away in the middle of a turn: nothing is lost, doubled or overtaken.
    table.join(id, &room("chat.a"), Ahead::default(), false);
    say(&mut table, "chat.a", 1);
    table.watch(id, &pattern("chat.*"), Ahead::default(), false);
    say(&mut table, "chat.a", 2);
    table.push(&room("chat.a"), "members");
    table.watch(id, &pattern("*"), Ahead::default(), false);
    say(&mut table, "chat.b", 3);
    say(&mut table, "chat.a", 4);
    table.watch(id, &pattern("chat.b"), Ahead::default(), false);
    table.join(id, &room("chat.b"), Ahead::default(), false);
    say(&mut table, "chat.b", 5);
    let all = got(&mut table, (id, end)).await;
    let pushes = |all: &[String]| all.iter().filter(|it| *it == "members").count();
    assert_eq!(pushes(&all), 1, "{all:?}");
    let said: Vec<_> = all.iter().filter(|it| *it != "members").collect();
    assert_eq!(said, ["1", "2", "3", "4", "5"]);
    say(&mut table, "other", 6);
    table.unwatch(id, &pattern("*"));
    say(&mut table, "other", 7);
    say(&mut table, "chat.c", 8);
    table.unwatch(id, &pattern("chat.*"));
    say(&mut table, "chat.c", 9);
    say(&mut table, "chat.a", 10);
    table.unsubscribe(id, &room("chat.b"));
    say(&mut table, "chat.b", 11);
    let mut said = got(&mut table, (id, end)).await;
    // What comes by two of what it hears has an order in each.
    said.sort_by_key(|seq| seq.parse::<u64>().unwrap());
    assert_eq!(said, ["6", "8", "10", "11"]);
    table.unwatch_all(id);
    table.unsubscribe(id, &room("chat.a"));
    assert_eq!((table.patterns(), table.rooms().len()), (0, 0));
}

#[tokio::test]
async fn a_gap_is_told_once_by_the_widest_pattern() {
    let (mut table, _poll) = clients();
    let (id, mut end) = client(&mut table, Style::Chat).await;
    for rooms in ["a*", "ab*", "*", "b*"] {
        table.watch(id, &pattern(rooms), Ahead::default(), false);
    }
    let told = |heard: &Heard| [heard.rooms().to_string(), String::new()];
    table.tell_watchers(told);
    assert_eq!(got(&mut table, (id, &mut end)).await, ["*"]);
    table.unwatch(id, &pattern("*"));
    table.tell_watchers(told);
    let mut gaps = got(&mut table, (id, &mut end)).await;
    gaps.sort();
    assert_eq!(gaps, ["a*", "b*"]);
}

#[tokio::test]
async fn what_a_client_has_seen_of_one_thing_it_hears_is_not_brought_by_another() {
    let (mut table, _poll) = clients();
    let (id, mut end) = client(&mut table, Style::Chat).await;
    let end = &mut end;
    // It had seen more of the room than of the rest, and of that more than this node.
    table.join(id, &room("chat.a"), ahead(4), true);
    table.watch(id, &pattern("chat.*"), ahead(2), true);
    for (seq, at) in (1..).zip(["chat.a", "chat.b", "chat.b", "chat.a", "chat.a", "chat.b"]) {
        say(&mut table, at, seq);
    }
    assert_eq!(got(&mut table, (id, end)).await, ["3", "5", "6"]);
    table.unwatch(id, &pattern("chat.*"));
    // What is left goes by its own: 4 has not been whole here.
    for (seq, at) in [(4, "chat.a"), (7, "chat.b"), (8, "chat.a")] {
        say(&mut table, at, seq);
    }
    assert_eq!(got(&mut table, (id, end)).await, ["8"]);
}

#[tokio::test]
async fn what_a_client_has_all_of_need_not_be_brought() {
    let (mut table, _poll) = clients();
    let (id, _end) = client(&mut table, Style::Chat).await;
    table.join(id, &room("chat.a"), Ahead::default(), true);
    table.join(id, &room("chat.b"), Ahead::default(), false);
    table.join(id, &room("other"), Ahead::default(), true);
    let had = |table: &Table<()>, heard: &Heard| -> Vec<String> {
        let had = table.had_by(id, heard).into_iter();
        had.map(|rooms| rooms.to_string()).collect()
    };
    let watch = |rooms: &str| Heard::Pattern(pattern(rooms));
    assert_eq!(had(&table, &watch("chat.*")), ["chat.a"]);
    assert_eq!(had(&table, &watch("chat.a")), ["chat.a"]);
    assert!(had(&table, &Heard::Room(room("chat.a"))).is_empty());
    table.watch(id, &pattern("chat.*"), Ahead::default(), true);
    assert_eq!(had(&table, &Heard::Room(room("chat.a"))), ["chat.*"]);
    assert_eq!(had(&table, &watch("chat.a")), ["chat.*", "chat.a"]);
    assert_eq!(had(&table, &watch("chat.*")), ["chat.a"], "it begins anew");
    assert_eq!(had(&table, &watch("*")), ["chat.*", "chat.a", "other"]);
}

/// Goal: who does not read what it joined and watches is closed as others are, and gives all back. Method:
/// such clients, a lot that is said in many rooms, until they are closed.
#[tokio::test]
async fn who_watches_and_does_not_read_is_closed_as_slow() {
    let (mut table, _poll) = clients();
    let mut ends = Vec::new();
    for _ in 0..3 {
        let (id, end) = client(&mut table, Style::Chat).await;
        table.join(id, &room("room0"), Ahead::default(), false);
        table.watch(id, &pattern("room*"), Ahead::default(), false);
        ends.push((id, end));
    }
    let text = "x".repeat(4000);
    let (mut now, mut most) = (SECOND, 0);
    for seq in 1.. {
        let id = entry("room0", seq).id();
        let at = room(&format!("room{}", seq % 100));
        let ada = "ada".parse().unwrap();
        let long = Entry::new(id, seq, at, None, &ada, &text);
        table.deliver(&long, 0, |_| String::new());
        now += Duration::from_millis(1);
        table.flush(now);
        most = most.max(table.spooled());
        if table.slow == 3 {
            break;
        }
        assert!(now < 100 * SECOND, "they are never closed");
    }
    assert!(most < 10 << 20, "kept once for all: {most}");
    assert_eq!(table.spooled(), 0);
    for (id, _) in ends {
        table.unwatch_all(id);
        table.unsubscribe(id, &room("room0"));
    }
    assert_eq!((table.patterns(), table.rooms().len()), (0, 0));
}
