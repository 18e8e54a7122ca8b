//! Who is gone, and who is only not there yet.

use super::*;

/// A ready node that is linked with `b`, `c` and `d`, all listed, and lacks `b.2` and `b.3`.
fn rig() -> Rig {
    let mut rig = Rig::linked("bcd");
    rig.list("bcd");
    rig.comes("b.1 b.4");
    rig
}

const OTHERS: [(char, &str, &str); 2] = [('c', "ad", ""), ('d', "ac", "")];

/// Answers all that is asked, that nobody has it; what else happens.
fn nobody_has_it(rig: &mut Rig, mut news: Vec<String>) -> Vec<String> {
    let mut told = Vec::new();
    while !news.is_empty() {
        let one = news.remove(0);
        if one.starts_with("fetch") {
            news.extend(rig.answer(Some("")));
        } else {
            told.push(one);
        }
    }
    told
}

/// Half seconds that pass until clients are told something, and what that is.
fn told_after(rig: &mut Rig, peers: &[(char, &str, &str)]) -> (u64, Vec<String>) {
    for halves in 1..=80 {
        let news = rig.passes_with(500, peers);
        let told = nobody_has_it(rig, news);
        if !told.is_empty() {
            return (halves * 500, told);
        }
    }
    panic!("nothing was told in 40 s");
}

const LOST: [&str; 2] = ["gap b.2-3", "deliver b.4"];

/// Found by a wire that lost three packets in ten: a link was down for some seconds, and what its node
/// had said was told to be lost, and came.
#[test]
fn a_listed_node_that_nobody_hears_is_waited_for_for_half_a_minute() {
    let mut rig = rig();
    rig.unlink('b');
    assert_eq!(rig.passes_with(29_500, &OTHERS), Vec::<String>::new());
    let (_, told) = told_after(&mut rig, &OTHERS);
    assert_eq!(told, LOST);
    assert!(rig.ms < 32_000, "after {} ms", rig.ms);
}

#[test]
fn one_that_comes_back_brings_what_was_missing_and_nobody_hears_of_a_gap() {
    let mut rig = rig();
    rig.unlink('b');
    assert_eq!(rig.passes_with(20_000, &OTHERS), Vec::<String>::new());
    assert_eq!(rig.link('b', "acd", "b.4"), ["fetch b.2-3 of b"]);
    let all = rig.answer(Some("b.2 b.3"));
    assert_eq!(all, ["deliver b.2", "deliver b.3", "deliver b.4"]);
}

#[test]
fn one_where_nobody_listens_is_gone_as_soon_as_what_was_under_way_has_come() {
    let mut rig = rig();
    rig.dies('b');
    let (ms, told) = told_after(&mut rig, &OTHERS);
    assert_eq!((ms, &told[..]), (2000, &LOST.map(str::to_owned)[..]));
}

#[test]
fn one_that_no_registry_lists_is_gone_after_a_lease() {
    let mut rig = rig();
    rig.unlink('b');
    rig.passes_with(4_000, &OTHERS);
    rig.list("cd");
    let (ms, told) = told_after(&mut rig, &OTHERS);
    assert_eq!(told, LOST);
    assert!(
        (2_500..=3_500).contains(&ms),
        "{ms} ms after it was dropped"
    );
}

#[test]
fn one_that_no_registry_lists_is_not_gone_while_somebody_hears_it() {
    let mut rig = rig();
    rig.unlink('b');
    rig.list("cd");
    let hears = [('c', "abd", ""), ('d', "ac", "")];
    assert_eq!(rig.passes_with(35_000, &hears), Vec::<String>::new());
}

#[test]
fn registries_that_do_not_answer_prove_nothing() {
    let mut rig = rig();
    rig.unlink('b');
    rig.takes(Input::Listed(Listed::default()));
    assert_eq!(rig.passes_with(29_500, &OTHERS), Vec::<String>::new());
}

#[test]
fn a_registry_that_comes_back_empty_is_given_time_to_list_all_again() {
    let mut rig = rig();
    rig.unlink('b');
    rig.takes(Input::Listed(Listed::default()));
    rig.passes_with(8_000, &OTHERS);
    rig.list("");
    assert_eq!(rig.passes_with(2_500, &OTHERS), Vec::<String>::new());
    rig.list("bcd");
    assert_eq!(rig.passes_with(18_000, &OTHERS), Vec::<String>::new());
}

#[test]
fn without_registries_only_a_refusal_or_half_a_minute_tells() {
    let mut rig = Rig::linked("bc");
    rig.comes("b.1 b.4");
    rig.unlink('b');
    let others = [('c', "a", "")];
    assert_eq!(rig.passes_with(20_000, &others), Vec::<String>::new());
    rig.greeted('b', None);
    assert_eq!(rig.passes_with(2_000, &others), Vec::<String>::new());
    rig.greeted('b', Some(Why::Refused));
    let (ms, told) = told_after(&mut rig, &others);
    assert_eq!((ms, &told[..]), (500, &LOST.map(str::to_owned)[..]));
}

#[test]
fn what_a_dead_node_said_may_come_from_one_that_is_not_there_yet() {
    let mut rig = rig();
    rig.unlink('d');
    rig.dies('b');
    let others = [('c', "a", "")];
    let news = rig.passes_with(20_000, &others);
    assert!(nobody_has_it(&mut rig, news).is_empty());
    assert_eq!(rig.link('d', "a", "b.4"), ["fetch b.2-3 of d"]);
    assert_eq!(
        rig.answer(Some("b.2 b.3"))[..2],
        ["deliver b.2", "deliver b.3"]
    );
}

#[test]
fn one_that_may_have_it_is_waited_for_no_longer_than_an_origin() {
    let mut rig = rig();
    rig.dies('b');
    rig.unlink('d');
    let (ms, told) = told_after(&mut rig, &[('c', "a", "")]);
    assert_eq!(told, LOST);
    assert!((29_500..=31_000).contains(&ms), "{ms} ms");
    let mut rig = self::rig();
    rig.dies('b');
    rig.dies('d');
    let (ms, told) = told_after(&mut rig, &[('c', "a", "")]);
    assert_eq!((ms, &told[..]), (2000, &LOST.map(str::to_owned)[..]));
}

/// One that hears the origin and has passed the numbers itself is better placed; but only when this node
/// has had its time, since the other may just be filling its hole.
#[test]
fn what_those_who_hear_the_origin_have_given_up_is_not_waited_for_for_ever() {
    let mut rig = rig();
    rig.unlink('b');
    let passed = [('c', "abd", "b.1 b.4"), ('d', "ac", "")];
    let news = rig.passes_with(29_000, &passed);
    assert!(nobody_has_it(&mut rig, news).is_empty());
    let (_, told) = told_after(&mut rig, &passed);
    assert_eq!(told, LOST);
}

#[test]
fn who_was_stopped_itself_holds_nobody_for_gone() {
    let mut rig = rig();
    rig.unlink('b');
    rig.passes_with(1_000, &OTHERS);
    rig.ms += 60_000;
    assert_eq!(rig.passes_with(25_000, &OTHERS), Vec::<String>::new());
}

/// Goal: however many origins have a hole at the same time, what waits behind the holes is bounded.
/// Method: many origins, each with a hole and 3 MiB behind it.
#[test]
fn what_waits_behind_all_holes_together_is_bounded() {
    let mut rig = Rig::new();
    let text = "x".repeat(4000);
    let name = "bob".parse().unwrap();
    let mut origins = Vec::new();
    for number in 0..40 {
        let letters = "abcdefghijklmnopqrstuvwxyz234567".as_bytes();
        let origin: Origin = format!(
            "zzzzzzzz{}{}",
            letters[number / 32] as char,
            letters[number % 32] as char
        )
        .parse()
        .unwrap();
        origins.push(origin);
        rig.does(|r, now| r.linked(now, origin));
        for from in 0..15 {
            let entries = (0..50).map(|seq| {
                let id = EntryId {
                    origin,
                    seq: 2 + from * 50 + seq,
                };
                Arc::new(Entry::new(id, WALL_US, lobby(), None, &name, &text))
            });
            let log = Entries {
                origin,
                ack_wanted: false,
                entries: entries.collect(),
            };
            rig.core.news(rig.now(), origin, News::Entries(log));
        }
    }
    rig.core.take_outputs(Vec::new());
    let logs = origins.iter().map(|origin| rig.core.log(*origin).unwrap());
    let bytes: usize = logs.clone().map(Log::held_back_bytes).sum();
    let most = AHEAD_ALL_BYTES_MAX;
    assert!((most..most + (1 << 20)).contains(&bytes), "{bytes} bytes");
    for log in logs {
        assert!(
            log.missing().is_some(),
            "what was dropped is known to be missing"
        );
    }
}

/// Found by the simulator: a newcomer was refused where a dead node had been, and forgot it when the
/// registries, which had come back empty, did not list that one.
#[test]
fn a_refusal_is_remembered_though_no_registry_lists_the_node() {
    let mut rig = Rig::linked("c");
    rig.greeted('b', Some(Why::Refused));
    rig.list("c");
    let claims = [('c', "a", "b.1 b.4")];
    rig.beat('c', "a", "b.1 b.4");
    assert_eq!(rig.passes(20), ["fetch b.1-4 of c"]);
    assert_eq!(
        rig.answer(Some("b.1 b.4")),
        ["deliver b.1", "fetch b.2-3 of c"]
    );
    assert_eq!(rig.answer(Some("")), ["gap b.2-3", "deliver b.4"]);
    assert!(rig.passes_with(400, &claims).is_empty());
}
