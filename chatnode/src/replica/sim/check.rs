//! What must hold when the faults are over and everything had its time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::world::{NodeId, World};
use crate::replica::entry::Entry;
use crate::replica::log::Span;
use crate::replica::names::{EntryId, Origin, RoomName};

const ALL: Span = Span {
    after: 0,
    through: u64::MAX,
};

/// Judges the end of a run.
pub(super) fn all(world: &mut World) {
    let live = world.live();
    everybody_is_ready_and_linked(world, &live);
    positions_agree(world, &live);
    what_the_living_said_is_everywhere(world, &live);
    logs_agree(world, &live);
    lost_numbers_were_announced(world, &live);
    transcripts_agree(world, &live);
    members_agree(world, &live);
    acknowledged_is_kept(world, &live);
    clients_saw_everything(world);
    count(world);
}

fn everybody_is_ready_and_linked(world: &World, live: &[NodeId]) {
    for &id in live {
        let replica = &world.nodes[id].replica;
        if !replica.is_ready() {
            world.broken(format!("n{id} is not ready"));
        }
        for &other in live {
            let origin = world.nodes[other].origin;
            if other != id && !replica.peers().hears(origin) {
                world.broken(format!("n{id} does not hear n{other}"));
            }
        }
    }
}

fn positions_agree(world: &World, live: &[NodeId]) {
    let position = |id: &NodeId| world.nodes[*id].replica.position();
    for pair in live.windows(2) {
        // What was forgotten whole is no part of the comparison where retention is small.
        if position(&pair[0]) != position(&pair[1]) && !world.plan.trims {
            world.broken(format!(
                "positions differ: n{} {:?}, n{} {:?}",
                pair[0],
                position(&pair[0]),
                pair[1],
                position(&pair[1])
            ));
        }
    }
}

fn what_the_living_said_is_everywhere(world: &World, live: &[NodeId]) {
    if world.plan.trims {
        return;
    }
    let origins: BTreeSet<Origin> = live.iter().map(|id| world.nodes[*id].origin).collect();
    for id in world.ledger.keys() {
        if !origins.contains(&id.origin) {
            continue;
        }
        for &node in live {
            if !world.holds(node, *id) {
                world.broken(format!("n{node} lacks {id:?}, whose origin lives"));
            }
        }
    }
}

fn logs_agree(world: &World, live: &[NodeId]) {
    if world.plan.trims {
        return;
    }
    for origin in world.nodes.iter().map(|node| node.origin) {
        let seqs = |id: NodeId| {
            let page = world.nodes[id].replica.log_page(origin, ALL, usize::MAX);
            page.entries.iter().map(|e| e.seq).collect::<BTreeSet<_>>()
        };
        for pair in live.windows(2) {
            let (a, b) = (seqs(pair[0]), seqs(pair[1]));
            if a != b {
                let differ: Vec<_> = a.symmetric_difference(&b).collect();
                world.broken(format!(
                    "n{} and n{} hold {origin} differently: {differ:?}",
                    pair[0], pair[1]
                ));
            }
        }
    }
}

fn lost_numbers_were_announced(world: &World, live: &[NodeId]) {
    for &id in live {
        let node = &world.nodes[id];
        for (origin, hole) in world.holes(id) {
            let within = |(o, span): &(Origin, Span)| {
                *o == origin && span.after <= hole.after && hole.through <= span.through
            };
            let announced = node.gaps.iter().chain(&node.holes_before_ready).any(within);
            if !announced {
                world.broken(format!("n{id} passed {origin} {hole:?} in silence"));
            }
        }
    }
}

fn transcript(world: &World, id: NodeId, room: &RoomName) -> Vec<Arc<Entry>> {
    let page = world.nodes[id].replica.page(room, None, usize::MAX);
    page.map(|page| page.entries).unwrap_or_default()
}

fn transcripts_agree(world: &World, live: &[NodeId]) {
    let rooms: BTreeSet<RoomName> = world.ledger.values().map(|e| e.room.clone()).collect();
    for room in rooms {
        for pair in live.windows(2) {
            let a = transcript(world, pair[0], &room);
            let b = transcript(world, pair[1], &room);
            let json = |t: &[Arc<Entry>]| t.iter().map(|e| e.json.clone()).collect::<Vec<_>>();
            if json(&a) != json(&b) && !world.plan.trims {
                world.broken(format!(
                    "n{} and n{} show {room} differently",
                    pair[0], pair[1]
                ));
            }
        }
        let Some(first) = live.first() else { return };
        let shown = transcript(world, *first, &room);
        let mut mids = BTreeSet::new();
        for entry in &shown {
            if let Some(mid) = &entry.mid
                && !mids.insert(mid.clone())
            {
                world.broken(format!("{room} shows {mid:?} twice"));
            }
        }
        if !shown.is_sorted_by_key(|entry| entry.place()) {
            world.broken(format!("{room} is not in order"));
        }
    }
}

fn members_agree(world: &World, live: &[NodeId]) {
    let mut truth: BTreeMap<RoomName, BTreeSet<_>> = BTreeMap::new();
    for client in world.clients.iter().filter(|client| !client.gone) {
        let Some(home) = client.home.filter(|home| home.joined) else {
            world.broken(format!("{} could not connect", client.name));
        };
        assert!(world.nodes[home.node].alive);
        let names = truth.entry(client.room.clone()).or_default();
        names.insert(client.name.clone());
    }
    for &id in live {
        let replica = &world.nodes[id].replica;
        for room in (0..world.plan.rooms).map(|n| format!("room{n}").parse().unwrap()) {
            let expected = truth.get(&room).cloned().unwrap_or_default();
            let listed: BTreeSet<_> = replica.members().list(&room).into_iter().collect();
            let told = world.nodes[id].told_members.get(&room);
            let told = told.cloned().unwrap_or_default();
            if listed != expected || told != expected {
                world.broken(format!(
                    "n{id} lists {listed:?} in {room}, told {told:?}; there are {expected:?}"
                ));
            }
        }
    }
}

/// P3: what was said to be held by others is everywhere as long as one who held it lives.
fn acknowledged_is_kept(world: &World, live: &[NodeId]) {
    if world.plan.trims {
        return;
    }
    for reply in &world.replies {
        let mut holders = reply.holders.iter().chain([&reply.node]);
        if !holders.any(|id| world.nodes[*id].alive) {
            continue;
        }
        for &id in live {
            if !world.holds(id, reply.id) {
                world.broken(format!("n{id} lacks {:?}: {reply:?}", reply.id));
            }
        }
    }
}

/// P1 and P4: all that is shown was seen, or was there before, or was told to be lost.
fn clients_saw_everything(world: &World) {
    if world.plan.trims {
        return;
    }
    for (index, client) in world.clients.iter().enumerate() {
        let Some(home) = client.home else { continue };
        for entry in transcript(world, home.node, &client.room) {
            let id = entry.id();
            let by_mid = entry
                .mid
                .as_ref()
                .is_some_and(|mid| client.mids.contains_key(mid));
            let before = |id: EntryId| client.base.get(&id.origin).is_some_and(|s| *s >= id.seq);
            let excused = |id| before(id) || client.was_told_of(id);
            // Said twice, the other may be what was there before the client, or in a gap.
            let said_so = entry.mid.is_some()
                && world
                    .ledger
                    .values()
                    .any(|e| e.mid == entry.mid && excused(e.id()));
            let excused = excused(id) || said_so;
            if !client.seen.contains(&id) && !by_mid && !excused {
                world.broken(format!(
                    "client {index} at n{} never saw {id:?} {:?}",
                    home.node, entry.mid
                ));
            }
        }
    }
}

fn count(world: &mut World) {
    let entries = world.ledger.len() as u64;
    world.counters.add("entries", entries);
    let mut mids = BTreeSet::new();
    let repeats = world.ledger.values().filter(|e| e.mid.is_some());
    let repeats = repeats.filter(|e| !mids.insert(e.mid.clone())).count() as u64;
    world.counters.add("mid repeated elsewhere", repeats);
    let trimmed = world.nodes.iter().filter(|node| {
        let log = node.replica.log(node.origin);
        log.is_some_and(|log| log.floor() > 0)
    });
    let trimmed = trimmed.count() as u64;
    world.counters.add("log trimmed", trimmed);
    for what in ["mid repeated elsewhere", "log trimmed"] {
        if world.counters.0.get(what) == Some(&0) {
            world.counters.0.remove(what);
        }
    }
}
