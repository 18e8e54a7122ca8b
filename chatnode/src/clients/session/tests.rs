//! A session without a socket: bytes in, commands out.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

/// Takes down what a session wants, and is busy while it owes so many answers.
#[derive(Default)]
struct Notes {
    wanted: Vec<String>,
    rooms: BTreeSet<RoomName>,
    busy_after: Option<usize>,
}

impl Desk for Notes {
    fn rooms(&self) -> usize {
        self.rooms.len()
    }

    fn is_in(&self, room: &RoomName) -> bool {
        self.rooms.contains(room)
    }

    fn is_busy(&self) -> bool {
        self.busy_after
            .is_some_and(|most| self.wanted.len() >= most)
    }

    fn take(&mut self, command: Command<'_>) {
        self.wanted.push(match command {
            Command::Serve(_, Request::Say(say)) => format!("say {}", say.text),
            Command::Serve(_, Request::Hello(name)) => format!("hello {name:?}"),
            Command::Serve(_, Request::Typing(room, tell)) => format!("typing {room} {tell}"),
            Command::Serve(_, Request::Join(join)) => {
                let said = format!("join {}", join.room);
                self.rooms.insert(join.room);
                said
            }
            Command::Serve(_, request) => format!("{request:?}"),
            Command::Refuse(_, refusal) => refusal.code.to_owned(),
            Command::Echo => "{}".to_owned(),
            Command::Pong(payload) => format!("pong {payload:?}"),
        });
    }
}

const RULES: Rules = Rules {
    rate_limit: 20,
    now: Duration::ZERO,
};

/// A text frame of a client whose mask changes nothing.
fn frame(text: &str) -> Vec<u8> {
    let mut bytes = vec![0x81];
    match u8::try_from(text.len()) {
        Ok(length @ ..126) => bytes.push(0x80 | length),
        _ => {
            let length = u16::try_from(text.len()).expect("a short text");
            bytes.push(0x80 | 126);
            bytes.extend(length.to_be_bytes());
        }
    }
    bytes.extend([0; 4]);
    bytes.extend(text.as_bytes());
    bytes
}

fn send(text: &str) -> String {
    format!(r#"{{"send":{{"room":"tea","text":"{text}"}}}}"#)
}

#[test]
fn what_waits_for_a_busy_desk_comes_in_its_order_and_nothing_is_lost() {
    let mut session = Session::new(Form::Chat, Duration::ZERO);
    let mut desk = Notes {
        busy_after: Some(2),
        ..Notes::default()
    };
    let lines = [
        r#"{"hello":{}}"#.to_owned(),
        send("1"),
        send("2"),
        send("3"),
    ];
    let mut bytes = frame(&lines.join("\n"));
    bytes.extend(frame(&send("4")));
    let next = session.feed(&mut bytes, RULES, &mut desk);
    assert_eq!(next, Next::Pause(BUSY_PAUSE));
    assert_eq!(desk.wanted, ["hello None", "say 1"]);
    desk.busy_after = Some(3);
    let next = session.feed(&mut [], RULES, &mut desk);
    assert_eq!(next, Next::Pause(BUSY_PAUSE), "busy again after one");
    desk.busy_after = None;
    assert_eq!(session.feed(&mut [], RULES, &mut desk), Next::Read);
    let said = ["hello None", "say 1", "say 2", "say 3", "say 4"];
    assert_eq!(desk.wanted, said);
}

#[test]
fn what_is_refused_takes_nothing_of_what_one_may_say() {
    let mut session = Session::new(Form::Chat, Duration::ZERO);
    let mut desk = Notes::default();
    let hello = r#"{"hello":{"name":"ada"}}"#;
    session.feed(&mut frame(hello), RULES, &mut desk);
    let bad = r#"{"send":{"room":"tea","text":" "}}"#;
    for line in std::iter::repeat_n(bad, 100).chain([r#"{"typing":{"room":"tea"}}"#]) {
        session.feed(&mut frame(line), RULES, &mut desk);
    }
    assert!(desk.wanted[1..101].iter().all(|it| it == "text_empty"));
    assert_eq!(desk.wanted[101], "not_joined");
    desk.wanted.clear();
    for line in [r#"{"join":{"room":"tea"}}"#, r#"{"typing":{"room":"tea"}}"#] {
        session.feed(&mut frame(line), RULES, &mut desk);
    }
    assert_eq!(desk.wanted, ["join tea", "typing tea true"]);
    desk.wanted.clear();
    for number in 0..41 {
        session.feed(&mut frame(&send(&number.to_string())), RULES, &mut desk);
    }
    assert!(desk.wanted[..40].iter().all(|it| it.starts_with("say ")));
    assert_eq!(desk.wanted[40], "rate_limited");
}

#[test]
fn nothing_is_served_before_hello() {
    let mut session = Session::new(Form::Chat, Duration::ZERO);
    let mut desk = Notes::default();
    session.feed(&mut frame(&send("early")), RULES, &mut desk);
    assert_eq!(desk.wanted, ["hello_required"]);
}

#[test]
fn a_plain_client_that_is_too_fast_is_not_read_for_a_while() {
    let mut session = Session::new(Form::Plain, Duration::ZERO);
    let mut desk = Notes::default();
    let mut nexts = Vec::new();
    for number in 0..42 {
        nexts.push(session.feed(&mut frame(&number.to_string()), RULES, &mut desk));
    }
    assert_eq!(desk.wanted.len(), 42, "what came is said all the same");
    assert!(nexts[..40].iter().all(|next| *next == Next::Read));
    assert!(matches!(nexts[41], Next::Pause(_)), "{:?}", nexts[41]);
    let long = "x".repeat(TEXT_BYTES_MAX + 1);
    let next = session.feed(&mut frame(&long), RULES, &mut desk);
    assert_eq!(next, Next::Close(TOO_LONG));
}

proptest! {
    /// However the bytes are cut, the same commands come out.
    #[test]
    fn pieces_of_any_size_say_the_same(
        texts in proptest::collection::vec("[a-z]{0,200}", 1..10),
        piece in 1usize..400,
    ) {
        let lines = std::iter::once(r#"{"hello":{}}"#.to_owned());
        let lines: Vec<String> = lines.chain(texts.iter().map(|text| send(text))).collect();
        let bytes: Vec<u8> = lines.iter().flat_map(|line| frame(line)).collect();
        let said = |piece: usize| {
            let mut session = Session::new(Form::Chat, Duration::ZERO);
            let mut desk = Notes::default();
            for bytes in bytes.chunks(piece) {
                session.feed(&mut bytes.to_vec(), RULES, &mut desk);
            }
            desk.wanted
        };
        prop_assert_eq!(said(piece), said(bytes.len()));
    }
}
