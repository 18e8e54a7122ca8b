//! The fan-out on real sockets: who is written what, and in which order.

use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

use std::collections::BTreeMap;

use std::time::Duration;

use base::serve::Admission;

use super::seats::Seats;
use super::slot::{ConnId, SLOW, Style};
use super::spool::SPOOL_BYTES_MAX;
use super::table::Table;
use super::websocket::{Close, append_close, append_text};
use crate::core::resumed::Ahead;
use crate::model::entry::Entry;
use crate::model::names::{EntryId, RoomName};

const SECOND: Duration = Duration::from_secs(1);

fn room() -> RoomName {
    "lobby".parse().unwrap()
}

fn entry(origin: &str, seq: u64) -> Entry {
    let id = EntryId {
        origin: origin.parse().unwrap(),
        seq,
    };
    Entry::new(
        id,
        seq,
        room(),
        None,
        &"ada".parse().unwrap(),
        &format!("{origin}.{seq}"),
    )
}

/// A fan-out, and the poll that tells of its sockets.
pub(super) fn clients() -> (Table<()>, mio::Poll) {
    let poll = mio::Poll::new().unwrap();
    (Table::new(poll.registry().try_clone().unwrap()), poll)
}

/// A connection of the fan-out, and the client's end of it.
pub(super) async fn client(clients: &mut Table<()>, style: Style) -> (ConnId, TcpStream) {
    let listener = crate::http::listen("127.0.0.1:0".parse().unwrap()).unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap())
        .await
        .unwrap();
    let (served, _) = listener.accept().await.unwrap();
    let socket = mio::net::TcpStream::from_std(served.into_std().unwrap());
    let admission = Admission::default();
    let seat = Seats::new(1).take().expect("one is free");
    (
        clients.adopt(socket, (admission, seat), style, ()).unwrap(),
        client,
    )
}

/// The payloads of the frames that a client gets, until `count` have come.
pub(super) async fn frames(client: &mut TcpStream, count: usize) -> Vec<String> {
    let mut payloads = Vec::new();
    while payloads.len() < count {
        let mut head = [0; 2];
        client.read_exact(&mut head).await.unwrap();
        let length = match head[1] {
            126 => usize::from(client.read_u16().await.unwrap()),
            127 => usize::try_from(client.read_u64().await.unwrap()).unwrap(),
            length => usize::from(length),
        };
        let mut payload = vec![0; length];
        client.read_exact(&mut payload).await.unwrap();
        payloads.push(String::from_utf8_lossy(&payload).into_owned());
    }
    payloads
}

#[tokio::test]
async fn who_enters_in_the_middle_of_a_turn_gets_what_comes_after() {
    let (mut clients, _poll) = clients();
    let (early, mut early_end) = client(&mut clients, Style::Plain).await;
    let (late, mut late_end) = client(&mut clients, Style::Plain).await;
    clients.subscribe(early, &room(), Ahead::default());
    clients.deliver(&entry("aaaaaaaaaa", 1), 0, |_| String::new());
    clients.subscribe(late, &room(), Ahead::default());
    clients.deliver(&entry("aaaaaaaaaa", 2), 0, |_| String::new());
    clients.flush(SECOND);
    clients.deliver(&entry("aaaaaaaaaa", 3), 0, |_| String::new());
    clients.flush(SECOND);
    assert_eq!(
        frames(&mut early_end, 3).await,
        ["aaaaaaaaaa.1", "aaaaaaaaaa.2", "aaaaaaaaaa.3"]
    );
    assert_eq!(
        frames(&mut late_end, 2).await,
        ["aaaaaaaaaa.2", "aaaaaaaaaa.3"]
    );
}

#[tokio::test]
async fn a_reply_precedes_the_messages_of_its_turn() {
    let (mut clients, _poll) = clients();
    let (id, mut end) = client(&mut clients, Style::Chat).await;
    clients.subscribe(id, &room(), Ahead::default());
    clients.deliver(&entry("aaaaaaaaaa", 1), 0, |_| String::new());
    clients.push(&room(), "{\"members\":1}");
    clients.send(id, "{\"id\":1}");
    clients.flush(SECOND);
    let got = frames(&mut end, 3).await;
    assert_eq!(got[0], "{\"id\":1}");
    assert!(
        got[1].starts_with("{\"msg\":{\"room\":\"lobby\""),
        "{}",
        got[1]
    );
    assert_eq!(got[2], "{\"members\":1}");
}

#[tokio::test]
async fn what_a_client_has_seen_ahead_of_this_node_is_not_brought_again() {
    let (mut clients, _poll) = clients();
    let (id, mut end) = client(&mut clients, Style::Plain).await;
    let ahead = Ahead {
        origins: BTreeMap::from([("aaaaaaaaaa".parse().unwrap(), 2)]),
        ..Ahead::default()
    };
    clients.subscribe(id, &room(), ahead);
    // The node has passed the first number when the third comes, and fills the hole after it.
    for (origin, seq, whole) in [
        ("bbbbbbbbbb", 1, 1),
        ("aaaaaaaaaa", 2, 0),
        ("aaaaaaaaaa", 3, 0),
        ("aaaaaaaaaa", 1, 3),
        ("aaaaaaaaaa", 4, 4),
    ] {
        clients.deliver(&entry(origin, seq), whole, |_| String::new());
        clients.flush(SECOND);
    }
    assert_eq!(
        frames(&mut end, 3).await,
        ["bbbbbbbbbb.1", "aaaaaaaaaa.3", "aaaaaaaaaa.4"]
    );
}

#[tokio::test]
async fn a_client_in_two_rooms_is_written_once_and_whoever_left_nothing() {
    let (mut clients, _poll) = clients();
    let (id, mut end) = client(&mut clients, Style::Chat).await;
    let (gone, mut gone_end) = client(&mut clients, Style::Chat).await;
    let other: RoomName = "other".parse().unwrap();
    for id in [id, gone] {
        clients.subscribe(id, &room(), Ahead::default());
        clients.subscribe(id, &other, Ahead::default());
    }
    clients.push(&room(), "1");
    clients.push(&other, "2");
    clients.unsubscribe(gone, &room());
    clients.unsubscribe(gone, &other);
    clients.flush(SECOND);
    let mut got = frames(&mut end, 2).await;
    got.sort();
    assert_eq!(got, ["1", "2"]);
    clients.close(gone, &Close::new(1000, ""), SECOND);
    clients.flush(SECOND);
    let mut bytes = Vec::new();
    gone_end.read_to_end(&mut bytes).await.unwrap();
    assert_eq!(bytes, [0x88, 2, 3, 232], "a close frame, and the end");
}

#[tokio::test]
async fn a_client_that_does_not_read_is_closed_as_slow_and_told_so_when_it_reads() {
    let (mut clients, mut poll) = clients();
    let (id, mut end) = client(&mut clients, Style::Plain).await;
    clients.subscribe(id, &room(), Ahead::default());
    let text = "x".repeat(4000);
    let long = Entry::new(
        EntryId {
            origin: "aaaaaaaaaa".parse().unwrap(),
            seq: 1,
        },
        1,
        room(),
        None,
        &"ada".parse().unwrap(),
        &text,
    );
    let mut now = SECOND;
    // Until the kernel takes no more, and then more than may wait.
    while clients.take_ended().is_empty() {
        for _ in 0..50 {
            clients.deliver(&long, 0, |_| String::new());
        }
        now += Duration::from_millis(100);
        clients.flush(now);
        assert!(now < 1000 * SECOND, "it is never closed");
    }
    assert!(!clients.is_open(id));
    assert_eq!(clients.slow, 1);
    let mut reading = std::pin::pin!(async {
        let mut bytes = Vec::new();
        end.read_to_end(&mut bytes).await.unwrap();
        bytes
    });
    let mut events = mio::Events::with_capacity(8);
    let bytes = loop {
        tokio::select! {
            biased;
            bytes = &mut reading => break bytes,
            () = tokio::task::yield_now() => {}
        }
        poll.poll(&mut events, Some(Duration::ZERO)).unwrap();
        if events.iter().any(|event| event.is_writable()) {
            clients.drain(id).unwrap();
        }
    };
    let mut close = Vec::new();
    append_close(&mut close, &SLOW);
    assert!(bytes.ends_with(&close), "the close frame comes last");
    let mut message = Vec::new();
    append_text(&mut message, &[text.as_bytes()]);
    assert_eq!(
        (bytes.len() - close.len()) % message.len(),
        0,
        "behind whole frames"
    );
}

/// Rooms' deliveries until so many clients were closed as slow.
fn deliver_until_slow(clients: &mut Table<()>, text: &str, count: u64, kept_most: usize) -> usize {
    let id = EntryId {
        origin: "aaaaaaaaaa".parse().unwrap(),
        seq: 1,
    };
    let ada = "ada".parse().unwrap();
    let long = Entry::new(id, 1, room(), None, &ada, text);
    let (mut now, mut most) = (SECOND, 0);
    while clients.slow < count {
        for _ in 0..20 {
            clients.deliver(&long, 0, |_| String::new());
        }
        now += Duration::from_millis(100);
        clients.flush(now);
        most = most.max(clients.spooled());
        assert!(most <= kept_most, "{most} bytes are kept");
        assert!(now < 1000 * SECOND, "they are never closed");
    }
    most
}

/// Goal: what many do not read is kept once. Method: one client that reads nothing, then fifty.
#[tokio::test]
async fn what_many_do_not_read_is_kept_once() {
    let text = "x".repeat(4000);
    let mut kept = Vec::new();
    for count in [1, 50] {
        let (mut clients, _poll) = clients();
        let mut ends = Vec::new();
        for _ in 0..count {
            let (id, end) = client(&mut clients, Style::Plain).await;
            clients.subscribe(id, &room(), Ahead::default());
            ends.push(end);
        }
        kept.push(deliver_until_slow(
            &mut clients,
            &text,
            count,
            SPOOL_BYTES_MAX,
        ));
        assert_eq!(clients.spooled(), 0, "all were given up");
    }
    assert!(kept[1] < 2 * kept[0], "{kept:?}");
}

/// Goal: all that waits has one bound, and when it is reached only those furthest behind are closed.
/// Method: rooms with a client each that reads nothing, none of which has much to read.
#[tokio::test]
async fn when_too_much_waits_those_furthest_behind_are_closed() {
    let (mut clients, _poll) = clients();
    let mut ends = Vec::new();
    let rooms: Vec<RoomName> = (0..80)
        .map(|n| format!("room{n}").parse().unwrap())
        .collect();
    for room in &rooms {
        let (id, end) = client(&mut clients, Style::Chat).await;
        clients.subscribe(id, room, Ahead::default());
        ends.push((id, end));
    }
    let push = "x".repeat(60_000);
    let mut now = SECOND;
    // As fast as nobody is closed for what it alone has not read.
    while clients.slow == 0 {
        for room in &rooms {
            clients.push(room, &push);
            clients.flush(now);
        }
        now += Duration::from_millis(1);
        assert!(clients.spooled() <= SPOOL_BYTES_MAX + push.len() + 1000);
        assert!(now < 3 * SECOND, "the bound is never reached");
    }
    assert!(clients.spooled() <= SPOOL_BYTES_MAX / 4 * 3 + push.len() + 1000);
    let open = ends.iter().filter(|(id, _)| clients.is_open(*id)).count();
    assert!(open > rooms.len() / 2, "only {open} are left");
    for (id, _) in &ends {
        if clients.is_open(*id) {
            clients.remove(*id);
        }
    }
    assert_eq!(clients.spooled(), 0, "who goes takes what it held with it");
}
