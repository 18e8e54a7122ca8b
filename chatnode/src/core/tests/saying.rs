//! What clients say, here and elsewhere, and who is there.

use super::*;

#[test]
fn what_is_said_is_appended_delivered_and_answered() {
    let mut rig = Rig::new();
    let said = rig.says(1, None, 0);
    assert_eq!(said, ["append a.1", "deliver a.1", "said 1 a.1 copies 0"]);
    assert_eq!(rig.transcript(), "a.1");
}

#[test]
fn a_mid_that_was_seen_makes_no_second_message() {
    let mut rig = Rig::new();
    rig.says(1, Some("m"), 0);
    assert_eq!(rig.says(2, Some("m"), 0), ["said 2 a.1 copies 0"]);
    assert_eq!(rig.transcript(), "a.1");
}

#[test]
fn a_mid_that_came_from_elsewhere_makes_no_second_message() {
    let mut rig = Rig::linked("b");
    rig.come(vec![entry("b.1", 0, Some("m"))], false);
    assert_eq!(rig.says(1, Some("m"), 1), ["said 1 b.1 copies 1"]);
}

#[test]
fn a_mid_of_another_room_is_another_mid() {
    let mut rig = Rig::linked("b");
    rig.says(1, Some("m"), 0);
    let elsewhere = Entry::new(
        id("b.1"),
        WALL_US,
        "elsewhere".parse().unwrap(),
        Some("m".parse().unwrap()),
        &"bob".parse().unwrap(),
        "hello",
    );
    assert_eq!(rig.come(vec![Arc::new(elsewhere)], false), ["deliver b.1"]);
    assert_eq!(rig.transcript(), "a.1");
}

#[test]
fn a_mid_through_two_nodes_is_shown_once_whichever_comes_first() {
    let early = || entry("b.1", 10, Some("m"));
    let late = || entry("c.1", 20, Some("m"));
    for (first, second, delivered) in [
        (early(), late(), ["deliver b.1"]),
        (late(), early(), ["deliver c.1"]),
    ] {
        let mut rig = Rig::linked("bc");
        assert_eq!(rig.come(vec![first], false), delivered);
        assert!(rig.come(vec![second], false).is_empty());
        assert_eq!(rig.transcript(), "b.1", "the earlier one, on all nodes");
    }
}

#[test]
fn when_the_shown_one_is_trimmed_the_other_is_shown() {
    // A node that comes later has never seen the first one, and shows the same.
    let mut rig = Rig::with(Retention {
        messages: 2,
        bytes: 1 << 20,
    });
    rig.is_alone();
    rig.link('b', "a", "");
    rig.link('c', "a", "");
    rig.come(vec![entry("b.1", 10, Some("m"))], false);
    rig.come(vec![entry("c.1", 20, Some("m"))], false);
    assert_eq!(rig.transcript(), "b.1");
    rig.come(vec![entry("c.2", 30, None)], false);
    assert_eq!(rig.transcript(), "c.1 c.2");
    rig.come(vec![entry("c.3", 40, None), entry("c.4", 50, None)], false);
    assert_eq!(rig.transcript(), "c.3 c.4");
    assert_eq!(
        rig.says(1, Some("m"), 0),
        ["said 1 c.1 copies 1"],
        "still known"
    );
    let late = rig.come(vec![entry("b.2", 60, Some("m"))], false);
    assert!(late.is_empty(), "clients have had it");
    assert_eq!(rig.transcript(), "c.4 b.2", "as on a node that came later");
}

#[test]
fn members_of_other_nodes_come_go_and_leave_with_their_node() {
    let mut rig = Rig::linked("b");
    let name = |name: &str| name.parse::<UserName>().unwrap();
    let enters = rig.does(|r, _| r.enter(&lobby(), &name("ada")));
    assert_eq!(enters, ["live 1", "lobby +ada = 1"]);
    let members = |version, joined: &[&str], left: &[&str]| {
        let names = |names: &[&str]| names.iter().map(|n| name(n)).collect();
        News::Live(Live {
            origin: origin('b'),
            events: vec![LiveEvent::Members {
                version,
                room: lobby(),
                joined: names(joined),
                left: names(left),
            }],
        })
    };
    assert!(
        rig.frame('b', members(1, &["ada"], &[])).is_empty(),
        "counts once"
    );
    assert_eq!(
        rig.frame('b', members(2, &["bob"], &[])),
        ["lobby +bob = 2"]
    );
    let lost = rig.frame('b', members(4, &["eve"], &[]));
    assert_eq!(lost, ["members of b"], "change 3 was lost");
    let snapshot = Snapshot {
        version: 4,
        rooms: vec![(lobby(), vec![name("ada"), name("eve")])],
    };
    let mended = rig.does(|r, _| r.members_fetched(origin('b'), Some(snapshot)));
    assert_eq!(mended, ["lobby +eve -bob = 2"]);
    assert!(rig.passes(2900).is_empty());
    assert_eq!(
        rig.passes(200),
        ["lobby -eve = 1"],
        "three seconds after the last beat"
    );
    let beat = rig.beat_of('b', "a", "", 4);
    assert_eq!(
        rig.frame('b', News::Beat(beat)),
        ["members of b"],
        "it lives"
    );
}

#[test]
fn a_beat_reveals_a_lost_change_of_members() {
    let mut rig = Rig::linked("b");
    let beat = rig.beat_of('b', "a", "", 1);
    assert_eq!(rig.frame('b', News::Beat(beat)), ["members of b"]);
    let beat = rig.beat_of('b', "a", "", 1);
    assert!(rig.frame('b', News::Beat(beat)).is_empty(), "asked already");
    assert!(
        rig.does(|r, _| r.members_fetched(origin('b'), None))
            .is_empty()
    );
    let beat = rig.beat_of('b', "a", "", 1);
    assert_eq!(
        rig.frame('b', News::Beat(beat)),
        ["members of b"],
        "asked again"
    );
}

#[test]
fn a_suspended_process_judges_nobody_before_it_has_read() {
    let mut rig = Rig::linked("b");
    let beat = rig.beat_of('b', "a", "", 1);
    rig.frame('b', News::Beat(beat));
    let snapshot = Snapshot {
        version: 1,
        rooms: vec![(lobby(), vec!["bob".parse().unwrap()])],
    };
    let told = rig.does(|r, _| r.members_fetched(origin('b'), Some(snapshot)));
    assert_eq!(told, ["lobby +bob = 1"]);
    rig.ms += 10_000;
    assert!(rig.takes(Input::Tick).is_empty());
    let beat = rig.beat_of('b', "a", "", 1);
    assert!(rig.frame('b', News::Beat(beat)).is_empty());
    assert!(rig.passes(500).is_empty());
}

/// In static mode what clients say in the plain form's room goes out in that form too; what came in it
/// does not, or two nodes would say it to each other for ever.
#[test]
fn what_comes_in_plain_form_does_not_go_out_in_it() {
    let mut rig = Rig::new();
    rig.core.publish_plain = true;
    let said = Foreign {
        by: &"static".parse().unwrap(),
        mid: &"foreign-static-1".parse().unwrap(),
        text: "hello",
    };
    let foreign = rig.does(|r, now| r.handle(Input::Foreign(said), now));
    assert_eq!(
        foreign,
        ["append a.1", "deliver a.1", "said 0 a.1 copies 0"]
    );
    assert_eq!(rig.says(2, None, 0)[..2], ["plain hello", "append a.2"]);
}
