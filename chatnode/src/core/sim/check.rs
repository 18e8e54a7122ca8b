//! What must hold when the faults are over and everything had its time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::clients::Client;
use super::exempt::Exempt;
use super::phases::LOOK_EVERY;
use super::world::{NodeId, World};
use crate::core::clock::AHEAD_MAX_US;
use crate::core::copies::COPIES_WAIT_MAX;
use crate::core::log::Span;
use crate::model::entry::Entry;
use crate::model::names::{EntryId, Origin, RoomName};
use crate::wire::protocol::PAGE_DEFAULT;

/// Messages of a page when a transcript is read.
const PAGE: usize = PAGE_DEFAULT;

/// What each node shows of each room.
type Transcripts = BTreeMap<(NodeId, RoomName), Vec<Arc<Entry>>>;

/// Judges the end of a run.
pub(super) fn all(world: &mut World) {
    let live = world.live();
    if let Some(why) = world.unsettled() {
        world.broken(format!("all had converged, but now {why}"));
    }
    what_the_living_said_is_everywhere(world, &live);
    logs_agree(world, &live);
    nothing_was_skipped_in_silence(world, &live);
    what_is_held_is_on_the_disk(world, &live);
    counts_are_true(world, &live);
    let transcripts = transcripts(world, &live);
    transcripts_show_what_is_held(world, &transcripts);
    transcripts_agree(world, &live, &transcripts);
    acknowledged_is_kept(world, &live);
    clients_saw_everything(world, &transcripts);
    clients_saw_what_was_said_last(world);
    nobody_waits(world);
    count(world);
}

/// What a node holds of an origin.
fn log(world: &World, id: NodeId, origin: Origin) -> Vec<Arc<Entry>> {
    let all = Span {
        after: 0,
        through: u64::MAX,
    };
    let page = world.nodes[id].core.log_page(origin, all, usize::MAX);
    let mut entries = page.entries;
    if let Some(disk) = world.disk_of(id) {
        entries.extend(disk.range(origin, all));
        entries.sort_by_key(|entry| entry.seq);
        entries.dedup_by_key(|entry| entry.seq);
    }
    entries
}

fn what_the_living_said_is_everywhere(world: &World, live: &[NodeId]) {
    for &origin in live {
        for said in world.ledger.of(origin) {
            let id = said.entry.id();
            let lacks = |node: &&NodeId| !world.keeps(**node, id) && !world.has_let_go(**node, id);
            let Some(node) = live.iter().find(lacks) else {
                continue;
            };
            // Whether it was told is judged elsewhere.
            let gone = world.is_kept_nowhere(id) && world.has_been_let_go(id);
            if !gone || !world.passes(Exempt::TrimmedElsewhere) {
                world.broken(format!("n{node} lacks {id:?}, whose origin lives"));
            }
        }
    }
}

/// All hold the same, and it is what was said.
fn logs_agree(world: &World, live: &[NodeId]) {
    for origin in world.nodes.iter().map(|node| node.origin) {
        let mut first: Option<(NodeId, BTreeSet<u64>)> = None;
        for &id in live {
            let log = log(world, id, origin);
            let true_one = |entry: &&Arc<Entry>| {
                let said = world.ledger.get(entry.id());
                said.is_some_and(|said| said.entry == **entry)
            };
            if let Some(entry) = log.iter().find(|entry| !true_one(entry)) {
                world.broken(format!("n{id} holds {entry:?}, which nobody said"));
            }
            let seqs: BTreeSet<u64> = log.iter().map(|entry| entry.seq).collect();
            match &first {
                Some((other, others)) if *others != seqs => {
                    let lacks = |id: NodeId, of: NodeId, seq: u64| {
                        let name = EntryId { origin, seq };
                        let has = world.keeps(id, name) || world.has_let_go(id, name);
                        !has && world.keeps(of, name)
                    };
                    let differ = others.symmetric_difference(&seqs);
                    let differ =
                        differ.filter(|seq| lacks(*other, id, **seq) || lacks(id, *other, **seq));
                    let differ: Vec<_> = differ.collect();
                    if !differ.is_empty() {
                        world.broken(format!(
                            "n{other} and n{id} hold {origin} differently: {differ:?}"
                        ));
                    }
                }
                _ => first = Some((id, seqs)),
            }
        }
    }
}

/// No silent hole: each number came, or was said to be lost, or was trimmed before the node had any.
fn nothing_was_skipped_in_silence(world: &World, live: &[NodeId]) {
    for &id in live {
        let node = &world.nodes[id];
        for (of, other) in world.nodes.iter().enumerate() {
            let Some(log) = node.core.log(other.origin) else {
                continue;
            };
            let began = node.began_behind.get(&other.origin).copied();
            let began = began.unwrap_or_default();
            for (seq, said) in (1..=log.held()).zip(world.ledger.of(of)) {
                // What was trimmed before it took clients is history that these need not have.
                let is_old = node.ready_at.is_none_or(|ready| said.at < ready);
                let is_old = is_old && world.passes(Exempt::LetGo);
                // Nor what seems to be.
                let wrong_us = node.time_wrong_us.1;
                let far = said.entry.ts + AHEAD_MAX_US < world.wall_us(said.at, wrong_us);
                let ready = node.ready_at.map(|ready| world.wall_us(ready, wrong_us));
                let looks_old = far || ready.is_some_and(|ready| said.entry.ts < ready);
                let looks_old = looks_old && world.passes(Exempt::ClocksApart);
                if seq <= began && (is_old || looks_old) {
                    continue;
                }
                let inside = |hole: &Span| hole.after < seq && seq <= hole.through;
                let came = node.arrivals.at(of, seq).is_some();
                let lost = !came || log.holes().iter().any(inside);
                if lost && !node.announced(other.origin, seq) {
                    world.broken(format!("n{id} passed {}.{seq} in silence", other.origin));
                }
            }
        }
    }
}

/// When a disk has nothing to do, it has all that its node holds, but for what retention has removed.
fn what_is_held_is_on_the_disk(world: &World, live: &[NodeId]) {
    for &id in live {
        let Some(disk) = world.disk_of(id) else {
            continue;
        };
        for origin in world.nodes.iter().map(|node| node.origin) {
            let written =
                |entry: &&Arc<Entry>| disk.has(entry.id()) || entry.seq <= disk.floor(entry.origin);
            if let Some(entry) = log(world, id, origin).iter().find(|e| !written(e)) {
                world.broken(format!("the disk of n{id} lacks {:?}", entry.id()));
            }
        }
    }
}

/// What is counted for people is so.
fn counts_are_true(world: &World, live: &[NodeId]) {
    for &id in live {
        for other in &world.nodes {
            let Some(log) = world.nodes[id].core.log(other.origin) else {
                continue;
            };
            let holes = log.holes().iter();
            let lost: u64 = holes.map(|hole| hole.through - hole.after).sum();
            let counts = log.counts;
            let restored = world.nodes[id].restored.get(&other.origin);
            let restored = restored.copied().unwrap_or_default();
            let began = world.nodes[id].began_behind.get(&other.origin).copied();
            let began = began.unwrap_or_default().max(log.started_behind());
            // A hole that is trimmed is no hole any more, and was lost all the same.
            let trimmed = log.floor() > began && counts.lost >= lost;
            let lost = if trimmed { counts.lost } else { lost };
            let counted = counts.received + restored + lost;
            // One that had some already may have begun anew behind what others had trimmed.
            let fits = (log.held() - began..=log.held()).contains(&counted);
            let exact = log.started_behind() > 0 || counted + began == log.held();
            if counts.lost != lost || !fits || !exact {
                world.broken(format!(
                    "n{id} counts {counts:?} of {}, lacks {lost} of {}",
                    other.origin,
                    log.held()
                ));
            }
        }
    }
}

/// Reads a room from a node, page by page, as clients do.
fn transcript(world: &mut World, id: NodeId, room: &RoomName) -> Vec<Arc<Entry>> {
    let mut pages = Vec::new();
    let mut before = None;
    loop {
        let Some(page) = world.page_of(id, room, before, PAGE) else {
            world.broken(format!("n{id} does not know {before:?} that it has shown"));
        };
        before = page.entries.first().map(|entry| entry.id());
        pages.push(page.entries);
        if !page.more {
            pages.reverse();
            return pages.concat();
        }
    }
}

fn transcripts(world: &mut World, live: &[NodeId]) -> Transcripts {
    let rooms: BTreeSet<RoomName> = world.clients.iter().map(|c| c.room.clone()).collect();
    let each = live
        .iter()
        .flat_map(|id| rooms.iter().map(|room| (*id, room.clone())));
    each.map(|(id, room)| {
        let shown = transcript(world, id, &room);
        ((id, room), shown)
    })
    .collect()
}

/// A room is what the node holds of it, in the one order, and of those with one mid the first.
fn transcripts_show_what_is_held(world: &World, transcripts: &Transcripts) {
    for ((id, room), shown) in transcripts {
        let origins = world.nodes.iter().map(|node| node.origin);
        let held = origins.flat_map(|origin| log(world, *id, origin));
        let mut held: Vec<_> = held.filter(|entry| entry.room == *room).collect();
        held.sort_by_key(|entry| entry.place());
        let mut mids = BTreeSet::new();
        held.retain(|entry| entry.mid.is_none() || mids.insert(entry.mid.clone()));
        held.retain(|entry| !is_hidden_by_what_is_trimmed(world, *id, entry, shown));
        if held != *shown {
            let ids = |entries: &[Arc<Entry>]| entries.iter().map(|e| e.id()).collect();
            let (held, shown): (Vec<_>, Vec<_>) = (ids(&held), ids(shown));
            let first = held.iter().zip(&shown).position(|(a, b)| a != b);
            world.broken(format!(
                "n{id} shows {} in {room}, holds {}, the first other is {first:?}",
                shown.len(),
                held.len()
            ));
        }
    }
}

/// Whether a disk does not show an entry because of one with its mid that it has trimmed since.
fn is_hidden_by_what_is_trimmed(
    world: &World,
    id: NodeId,
    entry: &Arc<Entry>,
    shown: &[Arc<Entry>],
) -> bool {
    let Some(disk) = world.disk_of(id).filter(|_| !shown.contains(entry)) else {
        return false;
    };
    let mut before = world.ledger.alike(entry).iter();
    before.any(|other| {
        let said = world.ledger.get(*other);
        let earlier = said.is_some_and(|said| said.entry.place() < entry.place());
        let trimmed = other.seq <= disk.floor(other.origin);
        earlier && trimmed && world.passes(Exempt::HidesRepeats)
    })
}

/// One transcript: the same bytes from every node.
fn transcripts_agree(world: &World, live: &[NodeId], transcripts: &Transcripts) {
    let Some(first) = live.first() else { return };
    for ((id, room), shown) in transcripts {
        let others = &transcripts[&(*first, room.clone())];
        if shown == others {
            continue;
        }
        let json = |entries: &[Arc<Entry>]| {
            let both = entries.iter().filter(|entry| {
                // What one has let go of, or what another was said in place of.
                let mut alike = vec![entry.id()];
                alike.extend(world.ledger.alike(entry));
                let mut gone = alike.into_iter();
                !gone.any(|name| world.has_let_go(*id, name) || world.has_let_go(*first, name))
            });
            let json = both.map(|entry| entry.json.clone());
            json.collect::<Vec<_>>()
        };
        if json(shown) != json(others) {
            world.broken(format!("n{id} and n{first} show {room} differently"));
        }
    }
}

/// Acknowledged is kept: what was said to be held by others is everywhere as long as one who held it lives.
fn acknowledged_is_kept(world: &World, live: &[NodeId]) {
    for reply in &world.replies {
        let mut holders = reply.holders.iter().chain([&reply.node]);
        // A machine that was started again gives back what its disk has.
        let slot = world.nodes[reply.node].slot;
        let own = world.nodes[reply.node].origin == reply.id.origin;
        // What is lost with a disk is lost.
        let disk = world.machines[slot].disk.as_ref();
        let lost = disk.is_some_and(|disk| disk.lost.contains(&reply.id));
        let lost = lost && world.passes(Exempt::LostWithDisk);
        let kept = own && disk.is_some() && !lost;
        let back = kept && live.iter().any(|id| world.nodes[*id].slot == slot);
        let left = back || holders.any(|id| world.nodes[*id].alive);
        if !left && world.passes(Exempt::NobodyLeft) {
            continue;
        }
        for &id in live {
            let gone = || world.is_kept_nowhere(reply.id) && world.has_been_let_go(reply.id);
            if !world.keeps(id, reply.id) && !world.has_let_go(id, reply.id) && !gone() {
                world.broken(format!("n{id} lacks {:?}: {reply:?}", reply.id));
            }
        }
    }
}

/// Whether a client need not have seen an entry: it, or what was said with its mid, was there before the
/// client, or is in a gap that the client was told of. What its node has brought to all since must be seen.
fn is_excused(world: &World, client: &Client, entry: &Entry) -> bool {
    let id = entry.id();
    let is_ahead = client.ahead.get(&id.origin).is_some_and(|s| *s >= id.seq);
    let brought = client.home.is_some_and(|home| {
        let of = world.ledger.node(id.origin).unwrap_or(home.node);
        let at = world.nodes[home.node].delivered.at(of, id.seq);
        home.joined.is_some_and(|joined| at > Some(joined))
    });
    if brought && !is_ahead {
        return false;
    }
    let before = |id: EntryId| client.base.get(&id.origin).is_some_and(|s| *s >= id.seq);
    let excused = |id: EntryId| {
        (before(id) && world.passes(Exempt::SaidBefore))
            || (client.was_told_of(id) && world.passes(Exempt::ToldOfGap))
    };
    let mut alike = world.ledger.alike(entry).iter();
    excused(id) || alike.any(|other| excused(*other))
}

/// Once, and resume anywhere: all that is shown was seen, or was there before, or was told to be lost.
fn clients_saw_everything(world: &World, transcripts: &Transcripts) {
    for (index, client) in world.clients.iter().enumerate() {
        let Some(home) = client.home else { continue };
        let all = transcripts.iter().filter(|((id, _), _)| *id == home.node);
        let heard = all.filter(|((_, room), _)| client.hears(room));
        for entry in heard.flat_map(|(_, shown)| shown) {
            let id = entry.id();
            let mid = entry.mid.as_ref();
            let by_mid = mid.is_some_and(|mid| client.mids.contains_key(mid));
            let seen = client.seen.contains(&id) || by_mid;
            if !seen && !is_excused(world, client, entry) {
                world.broken(format!(
                    "client {index} at n{} never saw {id:?} {mid:?}",
                    home.node
                ));
            }
        }
    }
}

/// When nothing is wrong everybody in a room sees what is said there, whatever is trimmed.
fn clients_saw_what_was_said_last(world: &World) {
    let Some(since) = world.talk_since else {
        world.broken("nobody talked at the end");
    };
    for (index, client) in world.clients.iter().enumerate() {
        let joined = client.home.and_then(|home| home.joined);
        if joined.is_none_or(|joined| joined > since) {
            continue;
        }
        for said in world.ledger.iter().filter(|said| said.at >= since) {
            let entry = &said.entry;
            let mid = entry.mid.as_ref();
            let by_mid = mid.is_some_and(|mid| client.mids.contains_key(mid));
            let seen = client.seen.contains(&entry.id()) || by_mid;
            // A retry of what was said, and trimmed, before this client came is not said again to all.
            let alike = world.ledger.alike(entry).iter();
            let mut alike = alike.filter_map(|id| world.ledger.get(*id));
            let again = alike.any(|first| first.at < since) && world.passes(Exempt::SaidAgain);
            let seen = seen || again;
            if client.hears(&entry.room) && !seen && !is_excused(world, client, entry) {
                world.broken(format!("client {index} did not see {:?}", entry.id()));
            }
        }
    }
}

fn nobody_waits(world: &World) {
    // What was read late from a client that had said it before may wait for its copies still.
    let due = |asked: &&super::judge::Asked| {
        let waits = world.now < asked.at + COPIES_WAIT_MAX + LOOK_EVERY;
        world.nodes[asked.node].alive && !waits
    };
    if let Some(asked) = world.tickets.values().find(due) {
        world.broken(format!("{asked:?} was never answered"));
    }
}

fn count(world: &mut World) {
    let entries = world.ledger.len() as u64;
    let repeats = world.ledger.repeats() as u64;
    let trimmed = world.nodes.iter().filter(|node| {
        let log = node.core.log(node.origin);
        log.is_some_and(|log| log.floor() > 0)
    });
    let trimmed = trimmed.count() as u64;
    let counters = &mut world.outcome.counters;
    counters.add("entries", entries);
    counters.add("mid repeated elsewhere", repeats);
    counters.add("log trimmed", trimmed);
}
