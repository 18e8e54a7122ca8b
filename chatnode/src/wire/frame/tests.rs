//! What decodes is what was encoded; everything else is refused, and nothing panics.

use proptest::prelude::*;

use super::*;
use crate::carriers::parts::{Heard, Topics};
use crate::core::news::LiveEvent;
use crate::model::names::Mid;

fn origin() -> impl Strategy<Value = Origin> {
    "[a-z2-7]{10}".prop_map(|text| text.parse().unwrap())
}

fn room() -> impl Strategy<Value = RoomName> {
    "[a-zA-Z0-9_-]{1,64}".prop_map(|text| text.parse().unwrap())
}

fn user() -> impl Strategy<Value = UserName> {
    "[a-zà-ö0-9🦀]{1,32}".prop_map(|text| text.parse().unwrap())
}

fn mid() -> impl Strategy<Value = Option<Mid>> {
    proptest::option::of("[!-~é]{1,64}".prop_map(|text| text.parse().unwrap()))
}

prop_compose! {
    fn entries_of(origin: Origin, hole_max: u64)(
        first in 1..NUMBER_MAX / 2,
        rows in prop::collection::vec(
            (0..=hole_max, 0..=NUMBER_MAX, room(), mid(), "\\{[^\n]{0,200}\\}"), 0..20),
    ) -> Vec<Arc<Entry>> {
        let mut next = first;
        rows.into_iter().map(|(hole, ts, room, mid, json)| {
            let seq = next + hole;
            next = seq + 1;
            Arc::new(Entry { origin, seq, ts, room, mid, json: json.into() })
        }).collect()
    }
}

prop_compose! {
    fn beat()(
        origin in origin(),
        name in "[^\\p{Cc}]{0,20}",
        http in "http://[a-z0-9.:]{0,40}",
        publisher in "tcp://[a-z0-9.:]{0,40}",
        ts in 0..=NUMBER_MAX,
        clock in 0..=NUMBER_MAX,
        head in 0..=NUMBER_MAX,
        position in prop::collection::vec((origin(), 0..=NUMBER_MAX), 0..9),
        hears in prop::collection::vec(origin(), 0..9),
        members_version in 0..=NUMBER_MAX,
        ready: bool,
    ) -> News {
        let position =
            position.into_iter().map(|(origin, seq)| EntryId { origin, seq }).collect();
        News::Beat(Beat {
            origin, name, http, publisher, ts, clock, head, position, hears, members_version, ready,
        })
    }
}

fn event() -> impl Strategy<Value = LiveEvent> {
    let names = || prop::collection::vec(user(), 0..5);
    prop_oneof![
        (room(), user()).prop_map(|(room, name)| LiveEvent::Typing { room, name }),
        (0..=NUMBER_MAX, room(), names(), names()).prop_map(|(version, room, joined, left)| {
            LiveEvent::Members {
                version,
                room,
                joined,
                left,
            }
        }),
    ]
}

fn frame() -> impl Strategy<Value = News> {
    prop_oneof![
        (origin(), any::<bool>()).prop_flat_map(|(origin, ack_wanted)| {
            entries_of(origin, 0).prop_map(move |entries| {
                News::Entries(Entries {
                    origin,
                    ack_wanted,
                    entries,
                })
            })
        }),
        beat(),
        (origin(), prop::collection::vec(event(), 0..9))
            .prop_map(|(origin, events)| News::Live(Live { origin, events })),
        (origin(), origin(), 0..=NUMBER_MAX).prop_map(|(from, to, through)| News::Ack(Ack {
            from,
            to,
            through
        })),
    ]
}

fn page() -> impl Strategy<Value = EntriesPage> {
    (origin(), 0..=NUMBER_MAX).prop_flat_map(|(origin, floor)| {
        entries_of(origin, 7).prop_map(move |entries| EntriesPage {
            origin,
            floor,
            floor_ts: floor,
            entries,
        })
    })
}

fn members() -> impl Strategy<Value = MembersPage> {
    let rooms = prop::collection::vec((room(), prop::collection::vec(user(), 0..9)), 0..9);
    (origin(), 0..=NUMBER_MAX, rooms).prop_map(|(origin, version, rooms)| MembersPage {
        origin,
        version,
        rooms,
    })
}

/// Bytes of this kind with a right sum, so that the decoder gets past it.
fn sealed(kind: Kind, body: &[u8]) -> Bytes {
    let mut out = Writer::new(kind, "k3f7q2m7xa".parse().unwrap(), 0);
    for byte in body {
        out.byte(*byte);
    }
    out.finish()
}

proptest! {
    #[test]
    fn frames_come_back_as_they_went(frame in frame()) {
        let topic = Topic::of(&frame);
        let bytes = encode(&frame);
        prop_assert_eq!(decode(topic, &bytes), Ok(frame));
        let topics = Topics::default();
        let joined = topics.join(&topics.to_parts(topic, bytes.clone()));
        prop_assert_eq!(joined, Some(Heard::Frame(topic, bytes)));
    }

    #[test]
    fn pages_come_back_as_they_went(page in page(), members in members()) {
        prop_assert_eq!(decode_entries(&encode_entries(&page)), Ok(page));
        prop_assert_eq!(decode_members(&encode_members(&members)), Ok(members));
    }

    #[test]
    fn a_damaged_frame_is_refused(frame in frame(), at: prop::sample::Index, bit in 0..8u8) {
        let bytes = encode(&frame);
        let at = at.index(bytes.len());
        prop_assert!(decode(Topic::of(&frame), &bytes.slice(..at)).is_err());
        let mut flipped = bytes.to_vec();
        flipped[at] ^= 1 << bit;
        prop_assert!(decode(Topic::of(&frame), &flipped.into()).is_err());
        let mut longer = bytes.to_vec();
        longer.push(bit);
        prop_assert!(decode(Topic::of(&frame), &longer.into()).is_err());
    }

    #[test]
    fn a_frame_is_refused_under_another_topic(frame in frame()) {
        let bytes = encode(&frame);
        let ack = Topic::Ack("k3f7q2m7xa".parse().unwrap());
        for topic in [Topic::Log, Topic::Beat, Topic::Live, ack] {
            let right = std::mem::discriminant(&topic) == std::mem::discriminant(&Topic::of(&frame));
            prop_assert_eq!(decode(topic, &bytes).is_ok(), right);
        }
        prop_assert!(decode_entries(&bytes).is_err());
    }

    #[test]
    fn no_bytes_make_the_decoder_panic(bytes: Vec<u8>, body: Vec<u8>) {
        let ack = Topic::Ack("k3f7q2m7xa".parse().unwrap());
        let bytes = Bytes::from(bytes);
        for topic in [Topic::Log, Topic::Beat, Topic::Live, ack] {
            let _ = decode(topic, &bytes);
        }
        let _ = decode(Topic::Log, &sealed(Kind::Log, &body));
        let _ = decode(Topic::Beat, &sealed(Kind::Beat, &body));
        let _ = decode(Topic::Live, &sealed(Kind::Live, &body));
        let _ = decode(ack, &sealed(Kind::Ack, &body));
        let _ = decode_entries(&sealed(Kind::Entries, &body));
        let _ = decode_members(&sealed(Kind::Members, &body));
        let _ = Topics::default().topic_of(&bytes);
    }

    /// Damage behind a right sum: a faulty or hostile peer.
    #[test]
    fn damage_with_a_right_sum_never_passes_a_limit(
        page in page(), at: prop::sample::Index, byte: u8,
    ) {
        let bytes = encode_entries(&page);
        let mut body = bytes[HEADER_LEN..].to_vec();
        let at = at.index(body.len());
        body[at] = byte;
        if let Ok(page) = decode_entries(&sealed(Kind::Entries, &body)) {
            for entry in &page.entries {
                prop_assert!(entry.seq >= 1 && entry.seq <= NUMBER_MAX && entry.ts <= NUMBER_MAX);
                prop_assert!(!entry.json.contains(&b'\n'));
                prop_assert!(std::str::from_utf8(&entry.json).is_ok());
            }
            prop_assert!(page.entries.is_sorted_by(|a, b| a.seq < b.seq));
        }
    }
}

fn entry(seq: u64, json: &str) -> Arc<Entry> {
    let origin = "k3f7q2m7xa".parse().unwrap();
    let room = "lobby".parse().unwrap();
    Arc::new(Entry {
        origin,
        seq,
        ts: 7,
        room,
        mid: None,
        json: json.to_owned().into(),
    })
}

fn log(entries: Vec<Arc<Entry>>) -> Result<News, FrameError> {
    let origin = "k3f7q2m7xa".parse().unwrap();
    decode(
        Topic::Log,
        &encode(&News::Entries(Entries {
            origin,
            ack_wanted: false,
            entries,
        })),
    )
}

#[test]
fn entries_outside_their_limits_are_refused() {
    assert!(log(vec![entry(1, "{}"), entry(2, "{}")]).is_ok());
    assert_eq!(
        log(vec![entry(1, "{}"), entry(3, "{}")]),
        Err(FrameError::Order(3))
    );
    assert_eq!(
        log(vec![entry(2, "{}"), entry(2, "{}")]),
        Err(FrameError::Order(2))
    );
    assert_eq!(log(vec![entry(0, "{}")]), Err(FrameError::Order(0)));
    assert_eq!(
        log(vec![entry(u64::MAX, "{}")]),
        Err(FrameError::Number("seq"))
    );
    assert_eq!(log(vec![entry(1, "{\n}")]), Err(FrameError::Text("json")));
    assert_eq!(
        log(vec![entry(1, "")]),
        Err(FrameError::Text("length of json"))
    );
    let long = "x".repeat(JSON_LEN_MAX);
    assert!(log(vec![entry(1, &long)]).is_ok());
    assert_eq!(
        log(vec![entry(1, &format!("{long}x"))]),
        Err(FrameError::Text("length of json"))
    );
    let many: Vec<_> = (1..=18).map(|seq| entry(seq, &long)).collect();
    assert!(matches!(log(many), Err(FrameError::TooLong(_))));
}

#[test]
fn a_full_batch_and_one_more_entry_fit() {
    let json = "x".repeat(JSON_LEN_MAX);
    let mut entries = Vec::new();
    let mut len = 0;
    while len < BATCH_LEN_MAX {
        let next = entry(entries.len() as u64 + 1, &json);
        len += entry_len(&next);
        entries.push(next);
    }
    assert!(log(entries).is_ok());
}

#[test]
fn another_version_is_named() {
    let mut bytes = sealed(Kind::Ack, &[0; 8]).to_vec();
    bytes[0] = 2;
    let ack = Topic::Ack("k3f7q2m7xa".parse().unwrap());
    assert_eq!(decode(ack, &bytes.into()), Err(FrameError::Version(2)));
}

/// Goal: entries of a frame with many of them are not copied out of it, and none keeps a frame alive
/// that holds little else of use, or much more than a batch. Method: frames of one, of many, and of
/// many that are long; whether their bytes are free when only one entry's JSON is left.
#[test]
fn only_entries_of_a_frame_with_many_share_its_bytes() {
    let shares = |count: u64, len: usize| {
        let origin = "k3f7q2m7xa".parse().unwrap();
        let entry = |seq| {
            Arc::new(Entry {
                origin,
                seq,
                ts: seq,
                room: "lobby".parse().unwrap(),
                mid: None,
                json: vec![b'x'; len].into(),
            })
        };
        let log = Entries {
            origin,
            ack_wanted: false,
            entries: (1..=count).map(entry).collect(),
        };
        let bytes = encode(&News::Entries(log));
        let Ok(News::Entries(log)) = decode(Topic::Log, &bytes) else {
            panic!("not decoded");
        };
        let last = log.entries.last().unwrap().json.clone();
        drop(log);
        assert_eq!(last, vec![b'x'; len]);
        !bytes.is_unique()
    };
    let many = u64::from(SHARED_ENTRIES_MIN);
    assert!(!shares(many - 1, 100));
    assert!(shares(many, 100));
    assert!(!shares(many, SHARED_LEN_MAX / 8));
}

#[test]
fn a_stated_count_allocates_nothing() {
    let body = [&[0][..], &u32::MAX.to_be_bytes()].concat();
    assert_eq!(
        decode(Topic::Log, &sealed(Kind::Log, &body)),
        Err(FrameError::Truncated)
    );
}

#[test]
fn a_beat_is_cut_to_its_limits() {
    let origin: Origin = "k3f7q2m7xa".parse().unwrap();
    let beat = Beat {
        origin,
        name: "é".repeat(200),
        http: String::new(),
        publisher: String::new(),
        ts: 0,
        clock: 0,
        head: 0,
        position: vec![EntryId { origin, seq: 1 }; BEAT_ORIGINS_MAX + 1],
        hears: Vec::new(),
        members_version: 0,
        ready: true,
    };
    let Ok(News::Beat(beat)) = decode(Topic::Beat, &encode(&News::Beat(beat))) else {
        panic!("a beat is always decodable");
    };
    assert_eq!(beat.name, "é".repeat(127));
    assert_eq!(beat.position.len(), BEAT_ORIGINS_MAX);
}

/// Goal: what a node of an older version says in a room that it spells otherwise is said in the room
/// as it is spelled here, the same bytes on every node. Method: a frame as that node writes it.
#[test]
fn a_room_that_a_peer_spells_otherwise_is_respelled() {
    let json = |room: &str, id: &str| format!("{{\"room\":\"{room}\",\"id\":\"{id}\"}}");
    let spelled = ["cafe\u{301}", "caf\u{E9}", "cafe\u{301}"];
    let origin: Origin = "k3f7q2m7xa".parse().unwrap();
    let mut out = Writer::new(Kind::Log, origin, 0);
    out.flag(false);
    let mut seq = 0;
    out.list(&spelled, |out, room| {
        seq += 1;
        out.number(seq);
        out.number(seq);
        out.text(room);
        out.text("");
        out.list(json(room, "cafe\u{301}").as_bytes(), |out, byte| {
            out.byte(*byte);
        });
    });
    let Ok(News::Entries(log)) = decode(Topic::Log, &out.finish()) else {
        panic!("it is a log");
    };
    for entry in &log.entries {
        assert_eq!(entry.room, "caf\u{E9}".parse().unwrap());
        assert_eq!(entry.json, json("caf\u{E9}", "cafe\u{301}"));
    }
    assert_eq!(log.entries.len(), 3);
}
