//! Gaps: found, repaired, passed, filled.

use super::*;

#[test]
fn an_entry_that_came_too_early_waits_for_those_before_it() {
    let mut rig = Rig::linked("b");
    assert_eq!(rig.comes("b.1"), ["deliver b.1"]);
    assert!(rig.comes("b.1").is_empty(), "a duplicate");
    assert!(rig.comes("b.4").is_empty());
    assert_eq!(rig.passes(20), ["fetch b.2-3 of b"]);
    let mended = rig.answer(Some("b.2 b.3"));
    assert_eq!(mended, ["deliver b.2", "deliver b.3", "deliver b.4"]);
}

#[test]
fn a_beat_reveals_a_lost_tail() {
    let mut rig = Rig::linked("b");
    rig.comes("b.1");
    assert!(rig.beat('b', "a", "b.3").is_empty());
    assert_eq!(rig.passes(20), ["fetch b.2-3 of b"]);
    let mended = rig.answer(Some("b.2 b.3"));
    assert_eq!(mended, ["deliver b.2", "deliver b.3"]);
}

#[test]
fn when_the_origin_does_not_answer_another_node_is_asked() {
    let mut rig = Rig::linked("bc");
    rig.beat('c', "ab", "b.2");
    rig.beat('b', "ac", "b.2");
    assert_eq!(rig.passes(20), ["fetch b.1-2 of b"]);
    assert_eq!(rig.answer(None), ["fetch b.1-2 of c"]);
    assert_eq!(rig.answer(Some("b.1 b.2")), ["deliver b.1", "deliver b.2"]);
}

#[test]
fn what_another_node_already_has_is_given_time_to_come_by_itself() {
    let mut rig = Rig::linked("bc");
    assert!(rig.beat('c', "ab", "b.1").is_empty());
    assert!(rig.passes(150).is_empty());
    assert_eq!(rig.passes(60), ["fetch b.1-1 of c"]);
}

#[test]
fn what_a_dead_node_said_is_fetched_from_one_that_has_it() {
    let mut rig = Rig::linked("b");
    assert!(rig.beat('b', "a", "d.2").is_empty());
    assert_eq!(rig.passes(20), ["fetch d.1-2 of b"]);
    assert_eq!(rig.answer(Some("d.1")), ["deliver d.1", "fetch d.2-2 of b"]);
    assert_eq!(rig.answer(Some("d.2")), ["deliver d.2"]);
}

#[test]
fn a_hole_that_nobody_has_is_announced_passed_and_filled_when_it_turns_up() {
    let mut rig = Rig::linked("bc");
    rig.comes("b.1 b.4");
    rig.dies('b');
    assert!(
        rig.passes_with(1000, &[('c', "a", "")]).is_empty(),
        "not gone yet"
    );
    let gone = rig.passes_with(1000, &[('c', "a", "")]);
    assert_eq!(gone, ["fetch b.2-3 of c"], "it may hold them back");
    assert_eq!(rig.answer(Some("")), ["gap b.2-3", "deliver b.4"]);
    let log = rig.core.log(origin('b')).unwrap();
    assert_eq!((log.counts.lost, log.held(), log.solid()), (2, 4, 1));
    let beat = rig.core.beat(rig.now());
    assert_eq!(tell_ids(beat.position), "b.1 b.4");

    let again = rig.passes_with(1000, &[('c', "a", "")]);
    assert_eq!(again, ["fetch b.2-3 of c"], "it may have got them since");
    assert!(rig.answer(Some("")).is_empty());

    assert_eq!(rig.link('d', "a", "b.4"), Vec::<String>::new());
    assert_eq!(rig.passes(100), ["fetch b.2-3 of d"]);
    assert_eq!(rig.answer(Some("b.2 b.3")), ["deliver b.2", "deliver b.3"]);
    assert_eq!(rig.core.log(origin('b')).unwrap().counts.lost, 0);
    assert_eq!(rig.transcript(), "b.1 b.2 b.3 b.4");
}

#[test]
fn a_hole_at_the_very_front_is_announced_too() {
    let mut rig = Rig::linked("bc");
    rig.comes("b.2");
    rig.dies('b');
    let gone = rig.passes_with(2000, &[('c', "a", "")]);
    assert_eq!(gone, ["fetch b.1-1 of c"]);
    assert_eq!(rig.answer(Some("")), ["gap b.1-1", "deliver b.2"]);
}

#[test]
fn an_answer_is_judged_by_what_its_peer_had_shown_when_it_was_asked() {
    let mut rig = Rig::linked("bc");
    rig.comes("b.1");
    rig.beat('c', "a", "b.1");
    rig.beat('b', "a", "b.2");
    rig.dies('b');
    let gone = rig.passes_with(2000, &[('c', "a", "b.1")]);
    assert_eq!(gone, ["fetch b.2-2 of c"]);
    rig.beat('c', "a", "b.2");
    assert_eq!(
        rig.answer(Some("")),
        ["fetch b.2-2 of c"],
        "it has it by now"
    );
    assert_eq!(rig.answer(Some("b.2")), ["deliver b.2"]);
}

#[test]
fn while_one_hears_the_origin_nothing_of_it_is_given_up() {
    let mut rig = Rig::linked("bc");
    rig.comes("b.1 b.3");
    rig.unlink('b');
    assert!(rig.passes_with(5000, &[('c', "ab", "b.1")]).is_empty());
    assert_eq!(rig.beat('c', "ab", "b.3"), ["fetch b.2-2 of c"]);
}

#[test]
fn what_the_origin_has_trimmed_is_passed_though_it_lives() {
    let mut rig = Rig::linked("b");
    rig.comes("b.1 b.9");
    assert_eq!(rig.passes(20), ["fetch b.2-8 of b"]);
    let passed = rig.answer_behind(7, Some("b.8"));
    assert_eq!(passed, ["gap b.2-7", "deliver b.8", "deliver b.9"]);
    let log = rig.core.log(origin('b')).unwrap();
    assert_eq!(log.solid(), 9, "nobody waits for what the origin has not");
}

#[test]
fn a_peer_that_does_not_answer_does_not_keep_the_turn_of_others() {
    let mut rig = Rig::linked("bc");
    let of_dead = "d.1 e.1 f.1 g.1 h.1";
    let asked = rig.passes_with(500, &[('b', "a", of_dead)]);
    assert_eq!(asked.len(), repair::FETCHES_OF_PEER_MAX);
    rig.comes("c.1 c.3");
    assert_eq!(rig.passes(20), ["fetch c.2-2 of c"]);
}

#[test]
fn only_what_was_asked_for_is_given_up() {
    let mut rig = Rig::linked("b");
    rig.comes("b.1");
    rig.beat('b', "a", "b.5");
    assert_eq!(rig.passes(20), ["fetch b.2-5 of b"]);
    rig.beat('b', "a", "b.7");
    let asked = rig.answer_behind(5, Some(""));
    assert_eq!(
        asked,
        ["fetch b.2-7 of b"],
        "6 and 7 were not asked for yet"
    );
    let passed = rig.answer_behind(5, Some("b.6 b.7"));
    assert_eq!(passed, ["gap b.2-5", "deliver b.6", "deliver b.7"]);
}

#[test]
fn repair_waits_when_it_has_brought_more_than_its_budget() {
    let mut rig = Rig::linked("b");
    let text = "x".repeat(4000);
    let name = "bob".parse().unwrap();
    rig.frame('b', News::Beat(rig.beat_of('b', "a", "", 0)));
    let mut beat = rig.beat_of('b', "a", "", 0);
    beat.head = 20_000;
    rig.frame('b', News::Beat(beat));
    let mut asked = rig.passes(20);
    let mut pages = 0;
    while asked.iter().any(|told| told.starts_with("fetch")) {
        let from = pages * 500;
        let entries = (from + 1..=from + 500).map(|seq| {
            let entry = Entry::new(
                id(&format!("b.{seq}")),
                WALL_US + seq,
                lobby(),
                None,
                &name,
                &text,
            );
            Arc::new(entry)
        });
        let page = LogPage {
            floor: 0,
            floor_ts: 0,
            entries: entries.collect(),
        };
        pages += 1;
        let fetch = *rig.fetches.last().unwrap();
        asked = rig.takes(Input::Fetched(fetch, Some(page), Duration::ZERO));
    }
    assert!((2..10).contains(&pages), "{pages} pages of 2 MB at once");
    assert!(
        rig.passes(100).iter().any(|told| told.starts_with("fetch")),
        "and goes on"
    );
}

/// Found with false peers: one that claimed a dead node's numbers, and answered every request
/// for them with an error, kept all that came behind them from being shown, for ever.
#[test]
fn a_hole_is_passed_though_a_peer_that_always_fails_claims_it() {
    let mut rig = Rig::linked("bc");
    rig.comes("b.1 b.4");
    rig.dies('b');
    let claims = [('c', "a", "b.4")];
    let mut asked = 0;
    let mut told = rig.passes_with(2000, &claims);
    while told == ["fetch b.2-3 of c"] {
        asked += 1;
        told = rig.answer(None);
        if told.is_empty() {
            told = rig.passes_with(2500, &claims);
        }
    }
    assert_eq!(asked, repair::FAILURES_MAX);
    assert_eq!(told, ["gap b.2-3", "deliver b.4"]);
    let mut times = 0;
    for _ in 0..120 {
        let asks = rig.passes_with(500, &claims);
        if asks == ["fetch b.2-3 of c"] {
            times += 1;
            assert!(rig.answer(None).is_empty());
        }
    }
    assert!((14..=18).contains(&times), "every 4 s, not {times} times");
    while rig.passes_with(500, &claims).is_empty() {}
    let mended = rig.answer(Some("b.2"));
    assert_eq!(mended, ["deliver b.2", "fetch b.3-3 of c"]);
    assert_eq!(rig.answer(Some("b.3")), ["deliver b.3"]);
}

/// Goal: while one peer fails, another that comes to have what was passed is found. Method: b is gone,
/// c claims its numbers and never answers; d had them not, and has them later, which no beat tells.
#[test]
fn while_one_peer_fails_others_are_asked_for_holes_too() {
    let mut rig = Rig::linked("bcd");
    rig.comes("b.1 b.4");
    rig.dies('b');
    let beats = [('c', "a", "b.4"), ('d', "a", "b.1")];
    // Half a second, and answers to all that is asked in it.
    let mut step = || {
        let mut news = rig.passes_with(500, &beats);
        let mut all = Vec::new();
        while !news.is_empty() {
            let told = news.remove(0);
            if told.starts_with("fetch") {
                let of_c = told.ends_with("of c");
                news.extend(rig.answer((!of_c).then_some("")));
            }
            all.push(told);
        }
        all
    };
    let passed = (0..40).find(|_| step().contains(&"gap b.2-3".to_owned()));
    assert!(passed.is_some(), "c is not waited for any longer");
    let asked: Vec<String> = (0..60).flat_map(|_| step()).collect();
    for peer in ["c", "d"] {
        let of = format!("fetch b.2-3 of {peer}");
        let times = asked.iter().filter(|asked| **asked == of).count();
        assert!((3..=5).contains(&times), "{peer} every 8 s: {asked:?}");
    }
}

#[test]
fn a_peer_that_answers_now_and_then_is_waited_for() {
    let mut rig = Rig::linked("bc");
    rig.comes("b.1 b.99");
    rig.dies('b');
    let claims = [('c', "a", "b.99")];
    let mut told = rig.passes_with(2000, &claims);
    for seq in 2..=4 {
        for _ in 1..repair::FAILURES_MAX {
            assert_eq!(told, [format!("fetch b.{seq}-98 of c")]);
            assert!(rig.answer(None).is_empty());
            told = rig.passes_with(2500, &claims);
        }
        told = rig.answer(Some(&format!("b.{seq}")));
        assert_eq!(told.remove(0), format!("deliver b.{seq}"));
    }
}

#[test]
fn a_node_that_is_heard_but_whose_log_cannot_be_read_does_not_hold_back_what_it_says() {
    let mut rig = Rig::linked("b");
    rig.comes("b.1 b.4");
    let beats = [('b', "a", "b.4")];
    let mut told = rig.passes_with(500, &beats);
    while told == ["fetch b.2-3 of b"] {
        assert!(rig.fetches.len() == 1);
        told = rig.answer(None);
        if told.is_empty() {
            told = rig.passes_with(2500, &beats);
        }
    }
    assert_eq!(told, ["gap b.2-3", "deliver b.4"]);
}

/// Goal: a log of which the front is trimmed everywhere is begun behind that without a word if that was said
/// before anybody here was owed it, and else it is told. Method: a node that takes clients hears three others
/// for the first time: before and after somebody came with an old position, and one that spoke just now.
#[test]
fn the_trimmed_front_of_a_log_is_told_to_those_who_may_have_missed_it() {
    let mut rig = Rig::with(Retention::default());
    rig.ms = 10_000;
    rig.is_alone();
    let begins = |rig: &mut Rig, of: char, said_ms: u64| {
        rig.link(of, "a", &format!("{of}.4"));
        rig.passes(300);
        let fetch = rig.fetches.remove(0);
        let page = LogPage {
            floor: 3,
            floor_ts: TS_MAX,
            entries: vec![entry(&format!("{of}.4"), said_ms, None)],
        };
        let told = rig.takes(Input::Fetched(fetch, Some(page), Duration::ZERO));
        told.iter().any(|it| *it == format!("gap {of}.1-3"))
    };
    assert!(!begins(&mut rig, 'b', 9_000), "history");
    assert!(begins(&mut rig, 'c', 11_000), "some of it may be newer");
    let mut since = ids("b.4");
    let (origin, seq) = (Origin::MADE, WALL_US + 8_000_000);
    since.push(EntryId { origin, seq });
    rig.core.has_resumed(Some(&since));
    assert!(begins(&mut rig, 'd', 9_000), "somebody is owed it");
}

/// Found by the soak: a node that took clients before it heard of anybody learnt of a dead node's log when
/// all others had just trimmed it, and told everybody of a gap in what was said long before it started.
/// Goal: what is trimmed whole is told if it may be newer than what clients here are owed, and else not.
#[test]
fn a_log_that_is_trimmed_whole_is_told_by_when_it_was_said() {
    for (said_ms, is_told) in [(9_000, false), (11_000, true)] {
        let mut rig = Rig::with(Retention::default());
        rig.ms = 10_000;
        rig.is_alone();
        rig.link('b', "a", "d.9");
        rig.passes(300);
        let fetch = rig.fetches.remove(0);
        let page = LogPage {
            floor: 9,
            floor_ts: WALL_US + said_ms * 1000,
            entries: Vec::new(),
        };
        let told = rig.takes(Input::Fetched(fetch, Some(page), Duration::ZERO));
        assert_eq!(told.contains(&"gap d.1-9".to_owned()), is_told, "{told:?}");
    }
}
