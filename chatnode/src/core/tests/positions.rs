//! Positions stay short, however many nodes have come and gone, and still say what was missed.

use super::position::{FRESH_MAX, NAMED_DEAD_MAX, NAMED_SPENT_MAX};
use super::resumed::Resumed;
use super::*;
use crate::wire::protocol::{FRAME_BYTES_MAX, SINCE_MAX};

/// Nodes that come, say one thing, and go.
const MANY: usize = 5000;

/// The origin of this number.
fn nth(n: usize) -> Origin {
    let letter = |at: usize| b"abcdefghijklmnopqrstuvwxyz234567"[(n >> (5 * at)) & 31];
    let mut bytes = *b"manyorigin";
    bytes[6..].copy_from_slice(&[letter(3), letter(2), letter(1), letter(0)]);
    Origin::from_bytes(bytes).unwrap()
}

fn said_by(n: usize, said_ms: u64) -> Arc<Entry> {
    let id = EntryId {
        origin: nth(n),
        seq: 1,
    };
    let name = "bob".parse().unwrap();
    let ts = WALL_US + said_ms * 1000;
    Arc::new(Entry::new(id, ts, lobby(), None, &name, "hello"))
}

/// These come one after the other, each says one thing, a millisecond later than the one before it, and
/// goes.
fn come_and_go(rig: &mut Rig, origins: std::ops::Range<usize>) {
    for n in origins {
        let said_ms = rig.ms;
        comes_late(rig, n, said_ms);
        rig.ms += 1;
    }
}

/// One comes that said something then, and goes.
fn comes_late(rig: &mut Rig, n: usize, said_ms: u64) {
    let origin = nth(n);
    let log = Entries {
        origin,
        ack_wanted: false,
        entries: vec![said_by(n, said_ms)],
    };
    rig.core.look(rig.now());
    rig.core.linked(rig.now(), origin);
    rig.core.news(rig.now(), origin, News::Entries(log));
    rig.core.unlinked(rig.now(), origin);
    rig.core.take_outputs(Vec::new());
}

fn resume(rig: &Rig, since: &[EntryId]) -> Resumed {
    let archive = Archive {
        others_asked: true,
        ..Archive::default()
    };
    rig.core
        .resume(
            &lobby().into(),
            Some(since),
            &mut Named::default(),
            2,
            &archive,
        )
        .unwrap()
}

fn small(messages: usize) -> Rig {
    let mut rig = Rig::with(Retention {
        messages,
        bytes: 64 << 20,
    });
    rig.is_alone();
    rig
}

fn bytes_of(position: &[EntryId]) -> usize {
    position.iter().map(|id| id.to_string().len() + 1).sum()
}

/// Goal: what a node gives out is short, and is taken back by it and by others, and all that came
/// since is replayed, once. Method: thousands of origins with one message each, all kept.
#[test]
fn a_position_stays_short_and_is_taken_back() {
    let mut rig = small(100_000);
    come_and_go(&mut rig, 0..MANY);
    rig.passes(3000);
    let at = rig.resumes(None).at;
    assert!(
        at.len() <= NAMED_DEAD_MAX + NAMED_SPENT_MAX + 2,
        "{}",
        at.len()
    );
    assert!(bytes_of(&at) < 4096, "{}", bytes_of(&at));
    let again = resume(&rig, &at);
    assert!(again.recovered && again.entries.is_empty() && again.ahead.is_empty());

    come_and_go(&mut rig, MANY..MANY + 10);
    let later = resume(&rig, &at);
    assert!(later.recovered);
    assert_eq!(later.entries.len(), 10, "what came since, and nothing else");

    // Another node, which met them in another order.
    let mut other = small(100_000);
    for n in (0..MANY).rev() {
        comes_late(&mut other, n, n as u64);
    }
    other.ms = rig.ms;
    other.passes(3000);
    let elsewhere = resume(&other, &at);
    assert!(elsewhere.recovered && elsewhere.entries.is_empty());
    let back = resume(&rig, &resume(&other, &later.at).at);
    assert!(back.recovered && back.entries.is_empty());
    assert!(back.at.len() <= NAMED_DEAD_MAX + NAMED_SPENT_MAX + 12);
}

/// Goal: the same where nothing of most of them is kept any more, at a node that never heard of them
/// too, and where so many were that their logs were forgotten.
#[test]
fn a_position_stays_short_when_most_was_trimmed() {
    let mut rig = small(20);
    come_and_go(&mut rig, 0..ORIGINS_MAX + 100);
    rig.passes(3000);
    assert!(rig.core.position().len() < ORIGINS_MAX);
    let at = rig.resumes(None).at;
    assert!(
        at.len() <= NAMED_DEAD_MAX + NAMED_SPENT_MAX + 2,
        "{}",
        at.len()
    );
    let again = resume(&rig, &at);
    assert!(again.recovered && again.entries.is_empty());
    let mut fresh = small(20);
    fresh.ms = rig.ms;
    fresh.passes(200);
    let elsewhere = resume(&fresh, &at);
    assert!(elsewhere.recovered, "what it does not know is ahead of it");
    let back = resume(&rig, &elsewhere.at);
    assert!(back.recovered && back.entries.is_empty());
    // A position from before all that.
    let made = EntryId {
        origin: Origin::MADE,
        seq: WALL_US,
    };
    assert!(!resume(&rig, &[made]).recovered);
}

/// Goal: of an origin that spoke, died and was trimmed a client that does not name it is told that it
/// missed something, if its position is older; if it was made later, by whomever, nothing is missing.
#[test]
fn an_origin_that_came_and_was_trimmed_since_is_a_loss_and_one_from_before_is_none() {
    let mut rig = small(2);
    rig.link('c', "a", "");
    rig.comes("c.1");
    let before = rig.resumes(None).at;
    rig.ms += 10;
    let mut fresh = small(2);
    fresh.ms = rig.ms;
    fresh.link('c', "a", "");
    let fresh_before = fresh.resumes(Some("")).at;
    rig.ms += 10;
    comes_late(&mut rig, 1, 0);
    rig.ms += 10;
    rig.comes("c.2 c.3");
    rig.passes(3000);
    assert!(rig.core.log(nth(1)).is_some_and(|log| log.floor() == 1));
    let named: Vec<EntryId> = before.iter().copied().chain(ids("c.3")).collect();
    assert!(!resume(&rig, &named).recovered);
    let after = rig.resumes(None).at;
    assert!(resume(&rig, &after).recovered);
    // Of the others, which never heard of it.
    let with = |at: &[EntryId]| at.iter().copied().chain(ids("c.3")).collect::<Vec<_>>();
    assert!(!resume(&rig, &with(&fresh_before)).recovered);
    fresh.ms = rig.ms;
    fresh.passes(200);
    let later = with(&fresh.resumes(None).at);
    assert!(!later.iter().any(|id| id.origin == nth(1)));
    for _ in 0..2 {
        assert!(resume(&rig, &later).recovered);
    }
    assert!(
        !resume(&rig, &ids("c.3")).recovered,
        "who says no time may have missed it"
    );
}

/// Goal: what comes late is no silent hole. Method: after so many have come and gone that positions do
/// not name the first any more, one comes that spoke before them; a position from before it does not
/// stand for it, one from after it does.
#[test]
fn who_comes_late_is_named_and_no_older_position_stands_for_it() {
    let mut rig = small(100_000);
    come_and_go(&mut rig, 0..MANY);
    rig.passes(3000);
    let before = rig.resumes(None).at;
    assert!(before.iter().any(|id| id.origin == Origin::REST));
    comes_late(&mut rig, MANY, 0);
    rig.passes(3000);
    assert!(!resume(&rig, &before).recovered);
    let after = rig.resumes(None).at;
    assert!(after.iter().any(|id| id.origin == nth(MANY)));
    let resumed = resume(&rig, &after);
    assert!(resumed.recovered && resumed.entries.is_empty());
}

/// Goal: what nodes give out fits through every door of a node. Method: the bounds, side by side.
#[test]
fn the_bounds_of_positions_fit_into_those_of_frames_and_heads() {
    let id = EntryId {
        origin: nth(0),
        seq: u64::MAX,
    };
    let id = id.to_string().len();
    let marks = 2;
    let given = NAMED_DEAD_MAX + NAMED_SPENT_MAX + FRESH_MAX + resume::AHEAD_ORIGINS_MAX + marks;
    assert!(2 * given < SINCE_MAX);
    assert!(given * (id + 3) < FRAME_BYTES_MAX / 2, "as JSON");
    let streamed = crate::clients::streams::ORIGINS_NAMED_MAX + marks;
    let head = base::serve::Limits::default().head_bytes_max;
    assert!(streamed * (id + 1) < head * 3 / 4, "beside other headers");
    const { assert!(NAMED_DEAD_MAX + NAMED_SPENT_MAX + FRESH_MAX <= resume::AHEAD_ORIGINS_MAX) };
    // With a hole each.
    const { assert!(ORIGINS_MAX * 2 <= crate::wire::frame::BEAT_ORIGINS_MAX) };
}

/// Goal: a position is bounded at once when many come, not a second later. Method: as many logs begin
/// between two beats.
#[test]
fn many_that_come_together_make_no_long_position() {
    let mut rig = small(100_000);
    rig.passes(100);
    for n in 0..MANY {
        let said_ms = rig.ms;
        comes_late(&mut rig, n, said_ms);
    }
    rig.passes(GONE_MS);
    assert!(rig.resumes(None).at.len() <= NAMED_DEAD_MAX + NAMED_SPENT_MAX + 2);
}

/// Somebody whose link has ended is gone after this, and a tick later that is seen.
const GONE_MS: u64 = 2600;
