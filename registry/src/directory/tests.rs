//! The list by examples, then by properties over random histories.

use std::collections::HashSet;

use proptest::prelude::*;

use super::*;

const LEASE: Duration = Duration::from_secs(6);

fn node(port: usize) -> Registration {
    Registration {
        name: format!("node {port}"),
        endpoints: [("pub".to_owned(), format!("tcp://10.0.0.1:{port}"))].into(),
        meta: BTreeMap::new(),
    }
}

fn directory() -> (Directory, Instant) {
    let start = tokio::time::Instant::now().into_std();
    (Directory::new("epoch".to_owned(), LEASE, start), start)
}

fn ids(directory: &Directory, now: Instant) -> Vec<String> {
    directory
        .listing(now)
        .nodes
        .into_iter()
        .map(|node| node.id)
        .collect()
}

/// Ticks on time until `end`, and returns who expired on the way.
fn tick_until(directory: &mut Directory, from: Instant, end: Instant) -> Vec<String> {
    let mut now = from;
    let mut out = Vec::new();
    while now < end {
        now += TICK;
        out.extend(directory.expire(now).ids);
    }
    out
}

#[test]
fn one_verb_registers_and_renews() {
    let (mut directory, now) = directory();
    assert_eq!(
        directory.put("a", node(1), now),
        Ok(Put::Created { replaced: vec![] })
    );
    assert_eq!(directory.publish(now).unwrap().version, 2);
    assert_eq!(directory.put("a", node(1), now), Ok(Put::Renewed));
    assert!(directory.publish(now).is_none(), "a renewal is no change");
    assert_eq!(
        directory.put("a", node(2), now),
        Ok(Put::Changed { replaced: vec![] })
    );
    assert_eq!(directory.publish(now).unwrap().token, "epoch.3");
}

#[test]
fn changes_between_two_publications_are_one_version() {
    let (mut directory, now) = directory();
    for port in 1..=5 {
        directory.put(&format!("n{port}"), node(port), now).unwrap();
        assert_eq!(directory.version(), 2);
    }
    directory.leave("n1");
    assert_eq!(directory.publish(now).unwrap().nodes.len(), 4);
    assert!(directory.publish(now).is_none());
}

#[test]
fn a_restarted_node_replaces_its_former_self_in_one_version() {
    let (mut directory, now) = directory();
    directory.put("old", node(1), now).unwrap();
    directory.publish(now);
    let put = directory.put("new", node(1), now);
    assert_eq!(
        put,
        Ok(Put::Created {
            replaced: vec!["old".to_owned()]
        })
    );
    let listing = directory.publish(now).unwrap();
    assert_eq!((listing.version, listing.nodes.len()), (3, 1));
    assert_eq!(listing.nodes[0].id, "new");
}

#[test]
fn the_same_endpoint_in_another_form_is_the_same_endpoint() {
    let (mut directory, now) = directory();
    let with = |url: &str| Registration {
        endpoints: [("http".to_owned(), url.to_owned())].into(),
        ..node(1)
    };
    directory.put("a", with("http://Host:80/"), now).unwrap();
    directory.put("b", with("http://host"), now).unwrap();
    assert_eq!(ids(&directory, now), ["b"]);
}

#[test]
fn a_refused_registration_changes_nothing() {
    let (mut directory, now) = directory();
    directory.put("a", node(1), now).unwrap();
    directory.publish(now);
    for said in [
        node(0),
        node(65536),
        Registration {
            name: String::new(),
            ..node(1)
        },
    ] {
        assert!(matches!(
            directory.put("b", said.clone(), now),
            Err(Refused::Invalid(_))
        ));
        assert!(matches!(
            directory.put("a", said, now),
            Err(Refused::Invalid(_))
        ));
    }
    assert!(directory.publish(now).is_none());
}

#[test]
fn a_full_list_renews_and_replaces_but_takes_no_more() {
    let (mut directory, now) = directory();
    for port in 1..=NODES_MAX {
        directory.put(&format!("n{port}"), node(port), now).unwrap();
    }
    assert_eq!(directory.put("more", node(9999), now), Err(Refused::Full));
    assert_eq!(directory.put("n7", node(7), now), Ok(Put::Renewed));
    assert_eq!(
        directory.put("n7", node(9999), now),
        Ok(Put::Changed { replaced: vec![] })
    );
    let replaced = vec!["n8".to_owned()];
    assert_eq!(
        directory.put("more", node(8), now),
        Ok(Put::Created { replaced })
    );
    assert_eq!(directory.nodes.len(), NODES_MAX);
    directory.leave("n1");
    assert!(directory.put("last", node(1), now).is_ok());
}

#[test]
fn a_silent_node_is_out_after_its_lease_and_a_tick() {
    let (mut directory, start) = directory();
    directory.put("a", node(1), start).unwrap();
    assert!(tick_until(&mut directory, start, start + LEASE - TICK).is_empty());
    let out = tick_until(&mut directory, start + LEASE - TICK, start + LEASE + TICK);
    assert_eq!(out, ["a"]);
}

#[test]
fn a_late_tick_extends_all_leases_instead_of_ending_them() {
    let (mut directory, start) = directory();
    directory.put("a", node(1), start).unwrap();
    directory.expire(start);
    let resumed = start + Duration::from_secs(3600);
    let expired = directory.expire(resumed);
    assert!(expired.ids.is_empty());
    assert_eq!(expired.extended, Some(Duration::from_secs(3600) - TICK));
    assert!(tick_until(&mut directory, resumed, resumed + LEASE - TICK * 2).is_empty());
    assert_eq!(
        tick_until(
            &mut directory,
            resumed + LEASE - TICK * 2,
            resumed + LEASE + TICK
        ),
        ["a"]
    );
}

#[derive(Debug, Clone)]
enum Step {
    Put(usize, usize),
    Leave(usize),
    Tick,
    Stall(u64),
    Publish,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..8usize, 0..6usize).prop_map(|(id, port)| Step::Put(id, port)),
        1 => (0..8usize).prop_map(Step::Leave),
        8 => Just(Step::Tick),
        1 => (0..20_000u64).prop_map(Step::Stall),
        2 => Just(Step::Publish),
    ];
    proptest::collection::vec(step, 0..200)
}

proptest! {
    #[test]
    fn versions_grow_endpoints_are_unique_and_equal_tokens_mean_equal_lists(steps in steps()) {
        let (mut directory, mut now) = directory();
        let mut shown = directory.listing(now);
        for step in steps {
            match step {
                Step::Put(id, port) => {
                    let refused = directory.put(&format!("n{id}"), node(port), now).is_err();
                    prop_assert_eq!(refused, port == 0);
                }
                Step::Leave(id) => { directory.leave(&format!("n{id}")); }
                Step::Tick => { now += TICK; directory.expire(now); }
                Step::Stall(ms) => { now += Duration::from_millis(ms); directory.expire(now); }
                Step::Publish => {
                    let before = ids(&directory, now);
                    if let Some(next) = directory.publish(now) {
                        prop_assert_eq!(next.version, shown.version + 1);
                        prop_assert_ne!(&next.token, &shown.token);
                        shown = next;
                    }
                    let listed: Vec<_> = shown.nodes.iter().map(|n| n.id.clone()).collect();
                    prop_assert_eq!(listed, before);
                }
            }
            let mut seen = HashSet::new();
            for node in directory.listing(now).nodes {
                prop_assert!(node.endpoints.into_values().all(|endpoint| seen.insert(endpoint)));
            }
            prop_assert_eq!(directory.holders.len(), seen.len());
            prop_assert!(directory.nodes.len() <= 8);
        }
    }

    /// Whoever renews at gaps shorter than the lease stays, however long this process stalls:
    /// a renewal that falls into a stall is handled right after it, and after the late tick.
    #[test]
    fn a_node_that_renews_in_time_is_never_dropped(
        gaps in proptest::collection::vec((1u64..59, 0u64..300), 1..20),
    ) {
        let (mut directory, mut now) = directory();
        directory.put("a", node(1), now).unwrap();
        directory.expire(now);
        for (ticks, stall) in gaps {
            for _ in 0..ticks {
                now += TICK;
                prop_assert!(directory.expire(now).ids.is_empty());
            }
            now += TICK * u32::try_from(stall).unwrap();
            prop_assert!(directory.expire(now).ids.is_empty());
            prop_assert_eq!(directory.put("a", node(1), now), Ok(Put::Renewed));
        }
    }

    /// A node that stops renewing is out within a lease and two ticks of undisturbed time.
    #[test]
    fn a_silent_node_is_always_dropped(stall in 0u64..100_000, ticks in 0u32..50) {
        let (mut directory, mut now) = directory();
        directory.put("a", node(1), now).unwrap();
        tick_until(&mut directory, now, now + TICK * ticks);
        now += TICK * ticks + Duration::from_millis(stall);
        directory.expire(now);
        tick_until(&mut directory, now, now + LEASE + TICK * 2);
        prop_assert!(directory.nodes.is_empty());
    }
}
