//! A node with a disk: what it says waits for it, what others say does not.

use super::*;
use crate::core::archive::{Archive, Beyond, Need};
use crate::core::journal::{Loaded, LoadedLog, LoadedMid, RETRIES_MAX};
use crate::model::page::{PAGE_BYTES_MAX, Page};

/// A ready node with a disk that had this, linked both ways with `b`.
fn rig(loaded: Loaded) -> Rig {
    rig_with(Retention::default(), loaded)
}

pub(super) fn rig_with(retention: Retention, loaded: Loaded) -> Rig {
    let mut rig = Rig::with(retention);
    rig.does(|r, now| r.restore(now, loaded));
    rig.is_alone();
    rig.link('b', "a", "");
    rig.passes(20);
    rig
}

impl Rig {
    /// The next batch: `a.1 b.2- | a.1-`, a minus for what is not shown.
    pub(super) fn batch(&mut self) -> Option<String> {
        let now = self.now();
        self.core.handle(Input::TurnOver, now);
        let mut outputs = self.core.take_outputs(Vec::new()).into_iter();
        let write = |output| match output {
            Output::Write(batch) => Some(batch),
            _ => None,
        };
        let batch = outputs.find_map(write)?;
        let name = |id: EntryId, shown: bool| {
            format!(
                "{}.{}{}",
                short(id.origin),
                id.seq,
                if shown { "" } else { "-" }
            )
        };
        let entries = batch.entries.iter().map(|(e, shown)| name(e.id(), *shown));
        let shows = batch.shows.iter().map(|(id, shown)| name(*id, *shown));
        let bar = (!batch.shows.is_empty()).then(|| "|".to_owned());
        Some(
            entries
                .chain(bar)
                .chain(shows)
                .collect::<Vec<_>>()
                .join(" "),
        )
    }

    fn stored(&mut self) -> Vec<String> {
        self.takes(Input::Stored)
    }

    /// An entry of `b` comes and is written.
    pub(super) fn comes_and_is_stored(&mut self, seq: u64) {
        self.come(vec![entry(&format!("b.{seq}"), seq, None)], false);
        self.batch();
        self.stored();
    }
}

pub(super) fn kept(entries: &[(Arc<Entry>, bool)], logs: &[(char, u64, u64)]) -> Loaded {
    Loaded {
        logs: logs
            .iter()
            .map(|&(letter, floor, held)| LoadedLog {
                origin: origin(letter),
                held,
                floor,
                holes: Vec::new(),
                last_ts: WALL_US,
            })
            .collect(),
        entries: entries.to_vec(),
        ..Loaded::default()
    }
}

#[test]
fn nobody_sees_what_is_not_on_the_disk() {
    let mut rig = rig(Loaded::default());
    assert!(rig.says(1, None, 0).is_empty());
    assert_eq!(rig.transcript(), "");
    assert_eq!(rig.batch().unwrap(), "a.1");
    assert_eq!(
        rig.stored(),
        ["append a.1", "deliver a.1", "said 1 a.1 copies 0"]
    );
    assert_eq!(rig.transcript(), "a.1");
}

#[test]
fn what_comes_while_the_disk_is_busy_is_the_next_batch() {
    let mut rig = rig(Loaded::default());
    rig.says(1, None, 0);
    assert_eq!(rig.batch().unwrap(), "a.1");
    rig.says(2, None, 0);
    rig.says(3, None, 0);
    let told = rig.come(vec![entry("b.1", 0, None)], false);
    assert_eq!(told, ["deliver b.1"], "others' entries do not wait");
    assert_eq!(rig.batch(), None, "one at a time");
    rig.stored();
    assert_eq!(rig.batch().unwrap(), "a.2 a.3 b.1");
    let told = rig.stored();
    assert_eq!(told[..2], ["append a.2", "append a.3"]);
    assert_eq!(rig.batch(), None, "nothing is left");
}

#[test]
fn a_retry_waits_for_the_disk_like_the_first() {
    let mut rig = rig(Loaded::default());
    rig.says(1, Some("m"), 0);
    rig.batch();
    assert!(rig.says(2, Some("m"), 0).is_empty());
    let told = rig.stored();
    assert_eq!(told[2..], ["said 1 a.1 copies 0", "said 2 a.1 copies 0"]);
    assert_eq!(rig.says(3, Some("m"), 0), ["said 3 a.1 copies 0"]);
    assert_eq!(rig.batch(), None, "and made no second entry");
}

#[test]
fn retries_that_wait_for_the_disk_are_bounded_and_room_for_them_comes_back() {
    let mut rig = rig(Loaded::default());
    let most = u64::try_from(RETRIES_MAX).unwrap();
    for _ in 0..2 {
        let mid = format!("m{}", rig.ms);
        rig.says(0, Some(&mid), 0);
        rig.batch();
        for ticket in 1..=most {
            assert!(rig.says(ticket, Some(&mid), 0).is_empty());
        }
        assert_eq!(rig.says(most + 1, Some(&mid), 0), ["refused 1025 Busy"]);
        let answered = rig
            .stored()
            .into_iter()
            .filter(|told| told.starts_with("said"));
        assert_eq!(answered.count(), RETRIES_MAX + 1);
        rig.passes(100);
    }
}

#[test]
fn a_retry_that_came_from_elsewhere_meanwhile_is_shown_once() {
    for (elsewhere_ms, shown, batch) in [(0, "b.1", "b.1 | a.1-"), (90_000, "a.1", "b.1 | a.1-")] {
        let mut rig = rig(Loaded::default());
        rig.ms = 10;
        rig.says(1, Some("m"), 0);
        assert_eq!(rig.batch().unwrap(), "a.1");
        let delivered = rig.come(vec![entry("b.1", elsewhere_ms, Some("m"))], false);
        assert_eq!(delivered, ["deliver b.1"]);
        let told = rig.stored();
        assert_eq!(
            told,
            ["append a.1", "said 1 a.1 copies 0"],
            "delivered once"
        );
        assert_eq!(rig.transcript(), shown);
        let batch = if shown == "a.1" { "b.1 | b.1-" } else { batch };
        assert_eq!(rig.batch().unwrap(), batch);
    }
}

#[test]
fn a_full_disk_refuses_gives_numbers_again_and_recovers() {
    let mut rig = rig(Loaded::default());
    rig.says(1, Some("m"), 0);
    rig.batch();
    rig.says(2, None, 0);
    rig.come(vec![entry("b.1", 0, None)], false);
    let told = rig.takes(Input::DiskFull("no room".to_owned()));
    let notice = "DiskFull(\"no room\")";
    assert_eq!(told, [notice, "refused 1 Full", "refused 2 Full"]);
    assert_eq!(rig.says(3, None, 0), ["refused 3 Full"], "at the door");
    let live = rig.come(vec![entry("b.2", 0, None)], false);
    assert_eq!(live, ["deliver b.2"], "the others go on");
    assert_eq!(rig.batch(), None);
    rig.passes(1000);
    assert_eq!(rig.batch().unwrap(), "b.1 b.2", "it is asked again");
    rig.stored();
    assert!(rig.says(4, Some("m"), 0).is_empty());
    assert_eq!(rig.batch().unwrap(), "a.1", "the number was never seen");
    assert_eq!(rig.stored()[2], "said 4 a.1 copies 0");
}

#[test]
fn a_full_disk_is_asked_again_though_nothing_waits() {
    let mut rig = rig(Loaded::default());
    rig.says(1, None, 0);
    rig.batch();
    rig.takes(Input::DiskFull("no room".to_owned()));
    rig.passes(1000);
    assert_eq!(rig.batch().unwrap(), "");
    rig.stored();
    assert!(rig.says(2, None, 0).is_empty(), "it is taken");
}

#[test]
fn a_disk_that_hangs_refuses_what_is_new_and_a_broken_one_everything() {
    let mut rig = rig(Loaded::default());
    rig.says(1, None, 0);
    rig.batch();
    rig.passes(4900);
    assert!(rig.says(2, None, 0).is_empty());
    rig.passes(200);
    assert_eq!(rig.says(3, None, 0), ["refused 3 Busy"]);
    rig.takes(Input::DiskBroken);
    assert_eq!(rig.says(4, None, 0), ["refused 4 Broken"]);
    assert_eq!(rig.batch(), None);
}

#[test]
fn a_restarted_node_shows_its_past_and_is_a_new_origin() {
    let entries = [
        (entry("c.1", 1, Some("m")), true),
        (entry("b.1", 2, None), true),
        (entry("b.2", 3, Some("m")), false),
    ];
    let mut rig = rig(kept(&entries, &[('b', 0, 2), ('c', 0, 1)]));
    assert_eq!(rig.transcript(), "c.1 b.1");
    let beat = rig.core.beat(rig.now());
    assert_eq!(beat.position, ids("b.2 c.1"), "others can have it");
    assert_eq!(rig.says(1, Some("m"), 0), ["said 1 c.1 copies 0"]);
    assert_eq!(rig.batch(), None, "nothing is written again");
    assert_eq!(
        rig.come(vec![entry("b.3", 4, None)], false),
        ["deliver b.3"]
    );
}

#[test]
fn of_two_shown_with_one_mid_the_later_is_hidden_at_the_start() {
    let entries = [
        (entry("b.1", 1, Some("m")), true),
        (entry("c.1", 2, Some("m")), true),
    ];
    let mut rig = rig(kept(&entries, &[('b', 0, 1), ('c', 0, 1)]));
    assert_eq!(rig.transcript(), "b.1");
    assert_eq!(rig.batch().unwrap(), "| c.1-");
}

#[test]
fn holes_on_the_disk_are_asked_for() {
    let entries = [(entry("c.1", 1, None), true), (entry("c.4", 4, None), true)];
    let mut loaded = kept(&entries, &[('c', 0, 4)]);
    loaded.logs[0].holes = vec![Span {
        after: 1,
        through: 3,
    }];
    let mut rig = Rig::with(Retention::default());
    rig.does(|r, now| r.restore(now, loaded));
    rig.is_alone();
    rig.link('b', "a", "c.4");
    let told = rig.passes(200);
    assert!(
        told.iter().any(|told| told == "fetch c.2-3 of b"),
        "{told:?}"
    );
}

#[test]
fn what_memory_lets_go_is_read_from_the_disk() {
    let small = Retention {
        messages: 2,
        bytes: 1 << 20,
    };
    let mut rig = rig_with(small, Loaded::default());
    for seq in 1..=5 {
        rig.comes_and_is_stored(seq);
    }
    assert_eq!(rig.transcript(), "b.4 b.5", "memory alone");
    let room = lobby();
    let nothing = Archive::default();
    let newest = rig.core.page_with(&room, None, 1, &nothing).unwrap();
    let newest = newest.unwrap();
    assert_eq!(
        (newest.entries.len(), newest.more),
        (1, true),
        "from memory"
    );
    let last = rig.core.page_with(&room, None, 2, &nothing);
    assert!(last.is_err(), "only the disk knows whether there is more");
    let need = rig.core.page_with(&room, None, 4, &nothing).unwrap_err();
    let Need::Page { before, trims, .. } = need else {
        panic!("{need:?}");
    };
    let entries = (1..=4).map(|seq| entry(&format!("b.{seq}"), seq, None));
    let read = Page {
        entries: entries.collect(),
        more: false,
    };
    assert_eq!(before, None);
    let archive = Archive {
        page: Some((read, trims)),
        ..Archive::default()
    };
    let page = rig.core.page_with(&room, None, 4, &archive).unwrap();
    let page = page.unwrap();
    let seqs: Vec<u64> = page.entries.iter().map(|entry| entry.seq).collect();
    assert_eq!((seqs, page.more), (vec![2, 3, 4, 5], true), "both, once");
    assert!(page.entries.iter().map(|e| e.json.len()).sum::<usize>() < PAGE_BYTES_MAX);
    rig.comes_and_is_stored(6);
    let again = rig.core.page_with(&room, None, 4, &archive);
    assert!(again.is_err(), "memory let something go since it was read");
}

#[test]
fn a_resume_from_before_memory_reads_the_disk() {
    let small = Retention {
        messages: 2,
        bytes: 1 << 20,
    };
    let mut rig = rig_with(small, Loaded::default());
    for seq in 1..=5 {
        rig.comes_and_is_stored(seq);
    }
    let room = lobby();
    let since = ids("b.1");
    let resume = |rig: &Rig, archive: &Archive| {
        let named = &mut Named::default();
        rig.core
            .resume(&room.clone().into(), Some(&since), named, 9, archive)
    };
    let Err(Need::Beyond(spans)) = resume(&rig, &Archive::default()) else {
        panic!("memory begins at b.4");
    };
    let through = 3;
    assert_eq!(spans, [(origin('b'), Span { after: 1, through })]);
    let entries = [2, 3].map(|seq| entry(&format!("b.{seq}"), seq, None));
    let archive = Archive {
        beyond: Some(Beyond {
            spans: spans.clone(),
            entries: Some(entries.to_vec()),
        }),
        ..Archive::default()
    };
    let resumed = resume(&rig, &archive).unwrap();
    let seqs: Vec<u64> = resumed.entries.iter().map(|entry| entry.seq).collect();
    assert_eq!((resumed.recovered, seqs), (true, vec![2, 3, 4, 5]));
    // Memory lets something go while the disk is read: only that is asked for.
    rig.comes_and_is_stored(6);
    let Err(Need::Beyond(more)) = resume(&rig, &archive) else {
        panic!("memory begins at b.5");
    };
    assert_eq!(
        more,
        [(
            origin('b'),
            Span {
                after: 3,
                through: 4
            }
        )]
    );
    let mut archive = archive;
    archive.read_beyond(Beyond {
        spans: more,
        entries: Some(vec![entry("b.4", 4, None)]),
    });
    let resumed = resume(&rig, &archive).unwrap();
    let seqs: Vec<u64> = resumed.entries.iter().map(|entry| entry.seq).collect();
    assert_eq!((resumed.recovered, seqs), (true, vec![2, 3, 4, 5, 6]));
    let too_much = Archive {
        beyond: Some(Beyond {
            spans,
            entries: None,
        }),
        is_last: true,
        ..Archive::default()
    };
    assert!(
        !resume(&rig, &too_much).unwrap().recovered,
        "said, not hidden"
    );
}

#[test]
fn a_mid_that_memory_let_go_makes_no_second_message() {
    let small = Retention {
        messages: 1,
        bytes: 1 << 20,
    };
    let mut rig = rig_with(small, Loaded::default());
    rig.come(vec![entry("b.1", 1, Some("m"))], false);
    rig.come(vec![entry("b.2", 2, None)], false);
    assert_eq!(rig.batch().unwrap(), "b.1 b.2");
    rig.stored();
    let late = rig.come(vec![entry("b.3", 3, Some("m"))], false);
    assert!(late.is_empty(), "clients have had it");
    assert_eq!(rig.batch().unwrap(), "b.3-", "and the disk shows the first");
}

/// Goal: a message that a browser kept over night is said once, also by a node that was started again
/// meanwhile. Method: it is said, and others after it, until memory has let it go; hours pass; a retry.
#[test]
fn a_mid_is_known_as_long_as_its_entry_is_on_the_disk() {
    let small = Retention {
        messages: 2,
        bytes: 1 << 20,
    };
    let mut rig = rig_with(small, Loaded::default());
    for (ticket, mid) in [(1, Some("m")), (2, None), (3, None), (4, None)] {
        rig.says(ticket, mid, 0);
        rig.batch();
        rig.stored();
    }
    assert_eq!(rig.transcript(), "a.3 a.4");
    rig.ms += 8 * 3_600_000;
    rig.passes(1000);
    assert_eq!(rig.says(5, Some("m"), 0), ["said 5 a.1 copies 0"]);
    assert_eq!(rig.batch(), None);

    let said = entry("b.1", 0, Some("m"));
    let loaded = Loaded {
        mids: LoadedMid::of(&said, true).into_iter().collect(),
        ..kept(&[(entry("b.2", 1, None), true)], &[('b', 0, 2)])
    };
    let mut rig = rig_with(small, loaded);
    rig.ms += 8 * 3_600_000;
    rig.passes(1000);
    assert_eq!(rig.says(1, Some("m"), 0), ["said 1 b.1 copies 0"]);
}

#[test]
fn memory_keeps_what_the_disk_has_not_got_yet() {
    let small = Retention {
        messages: 2,
        bytes: 1 << 20,
    };
    let mut rig = rig_with(small, Loaded::default());
    for seq in 1..=4 {
        rig.come(vec![entry(&format!("b.{seq}"), seq, None)], false);
    }
    assert_eq!(rig.transcript(), "b.1 b.2 b.3 b.4");
    rig.batch();
    assert_eq!(rig.transcript(), "b.1 b.2 b.3 b.4", "under way");
    rig.stored();
    assert_eq!(rig.transcript(), "b.3 b.4");
}

/// A say waits for the disk, and with it where it came from: a foreign publisher's words must not
/// go out in plain form when they are stored, or each node of static mode says them again.
#[test]
fn where_a_say_comes_from_outlives_the_wait_for_the_disk() {
    let mut rig = rig(Loaded::default());
    rig.core.publish_plain = true;
    assert!(rig.says_from(Source::Foreign, 1, None, 0).is_empty());
    assert!(rig.says(2, None, 1).is_empty());
    rig.batch();
    let appended: Vec<_> = rig.stored().into_iter().take(3).collect();
    assert_eq!(appended, ["append a.1", "plain hello", "append a.2 ack"]);
}

/// What a node finds on its disk when it starts is history: it is appended to no log again.
#[test]
fn what_is_restored_is_not_published_again() {
    let mut rig = Rig::with(Retention::default());
    let loaded = kept(&[(entry("b.1", 0, None), true)], &[('b', 1, 0)]);
    let effects = rig.does(|r, now| r.restore(now, loaded));
    assert!(
        !effects.iter().any(|it| it.starts_with("append")),
        "{effects:?}"
    );
}

/// Goal: an entry that repeats an earlier one is not shown though the disk has not learnt it yet, and one
/// whose mid was said again long after is. Method: the disk shows one of two, memory knows the other.
#[test]
fn of_two_with_one_mid_on_the_disk_the_later_is_hidden_and_the_earlier_never() {
    for (known, read, shown) in [("b.9", "b.1", "b.1 b.9"), ("b.1", "b.9", "b.1")] {
        let [known, read] = [known, read].map(|name| entry(name, id(name).seq, Some("m")));
        let rig = rig(kept(&[(known, true)], &[('b', 0, 9)]));
        let archive = Archive {
            page: Some((
                Page {
                    entries: vec![read],
                    more: false,
                },
                0,
            )),
            is_last: true,
            ..Archive::default()
        };
        let page = rig.core.page_with(&lobby(), None, 9, &archive);
        let page = page.unwrap().unwrap();
        let ids = page.entries.iter().map(|entry| entry.id());
        assert_eq!(tell_ids(ids), shown);
    }
}
