//! What nodes keep and count, read from all of them.

use std::borrow::Borrow;
use std::collections::BTreeSet;

use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::time::{Duration, Instant};

use super::cluster::{Node, each};
use super::eventually::eventually;
use super::judge::{Kind, Verdict, order_and_once_of_history};
use super::recorder::Expect;
use super::wire::{Msg, Position};

/// Messages a page, the most that the contract allows.
const PAGE: usize = 200;

#[derive(Deserialize)]
struct Page {
    messages: Vec<Box<RawValue>>,
    more: bool,
}

/// Waits until these nodes hold the same position over all origins.
pub(crate) async fn converged(nodes: &[impl Borrow<Node>], within: Duration) -> Result<()> {
    same_position(&each(nodes), within, false).await
}

/// Waits until these nodes hold the same position, over all origins or, where retention may have
/// trimmed all of a dead one's log before a node came, over those that both know.
async fn same_position(nodes: &[&Node], within: Duration, trimmed: bool) -> Result<()> {
    eventually(within, "all nodes hold the same", async || {
        let mut first: Option<Position> = None;
        for node in nodes {
            let position = Position::parse(&node.mesh().await?.position)?;
            let Some(first) = &first else {
                first = Some(position);
                continue;
            };
            let same = if trimmed {
                first.agrees_with(&position)
            } else {
                *first == position
            };
            let ids = (first.ids(), position.ids());
            ensure!(same, "{:?} and {:?} of {}", ids.0, ids.1, node.origin);
        }
        Ok(())
    })
    .await
}

/// The whole history of a room at a node: each message as its bytes, oldest first.
pub(crate) async fn history(node: &Node, room: &str) -> Result<Vec<String>> {
    let mut pages: Vec<Vec<String>> = Vec::new();
    let mut before: Option<String> = None;
    loop {
        let cursor = before.map(|id| format!("&before={id}")).unwrap_or_default();
        let path = format!("/api/rooms/{room}/messages?limit={PAGE}{cursor}");
        let body = node.get(&path).await?.error_for_status()?.bytes().await?;
        let page: Page = serde_json::from_slice(&body)
            .with_context(|| format!("not a page of history: {}", body.escape_ascii()))?;
        ensure!(
            page.messages.len() <= PAGE,
            "a page of {}",
            page.messages.len()
        );
        let texts: Vec<_> = page
            .messages
            .iter()
            .map(|raw| raw.get().to_owned())
            .collect();
        before = match texts.first() {
            Some(oldest) => Some(serde_json::from_str::<Msg>(oldest)?.id),
            None => None,
        };
        ensure!(
            !(page.more && before.is_none()),
            "an empty page says that there is more"
        );
        pages.push(texts);
        if !page.more {
            break;
        }
    }
    pages.reverse();
    Ok(pages.concat())
}

/// One transcript: waits until all nodes hold the same position and their histories of the room are
/// the same bytes; how long that took, and that history. If retention may have trimmed logs of dead
/// origins, positions need not name all of them.
pub(crate) async fn settled(
    nodes: &[&Node],
    room: &str,
    within: Duration,
    trimmed: bool,
) -> Result<(Duration, Vec<String>)> {
    let start = Instant::now();
    loop {
        let left = within.saturating_sub(start.elapsed());
        same_position(nodes, left, trimmed).await?;
        let took = start.elapsed();
        match same_history(nodes, room).await? {
            Ok(texts) => return Ok((took, texts)),
            // A hole that was passed is in the position, and may be filled later.
            Err(difference) if start.elapsed() >= within => bail!("{difference}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// The messages of a history.
pub(crate) fn parsed(texts: &[String]) -> Result<Vec<Msg>> {
    let messages = texts.iter().map(|text| serde_json::from_str(text));
    Ok(messages.collect::<Result<_, _>>()?)
}

/// The room's history, if it is the same bytes at all nodes, or how it differs.
async fn same_history(nodes: &[&Node], room: &str) -> Result<Result<Vec<String>, String>> {
    let mut first: Option<Vec<String>> = None;
    for node in nodes {
        let texts = history(node, room).await?;
        match &first {
            None => first = Some(texts),
            Some(first) if *first == texts => {}
            Some(first) => {
                let difference = difference(first, &texts);
                let text = format!("the history at {} differs: {difference}", node.origin);
                return Ok(Err(text));
            }
        }
    }
    Ok(Ok(first.unwrap_or_default()))
}

/// Waits until these nodes hold the same and their histories of a room are the same bytes, and
/// gives that history.
pub(crate) async fn same(
    nodes: &[impl Borrow<Node>],
    room: &str,
    within: Duration,
) -> Result<Vec<String>> {
    Ok(settled(&each(nodes), room, within, false).await?.1)
}

/// One transcript and more: waits until all hold the same, then reads the room's history from every node.
/// They must be the same bytes, in the order of `(ts, origin)`, no id and no mid twice.
pub(crate) async fn histories(
    nodes: &[impl Borrow<Node>],
    room: &str,
    within: Duration,
) -> Result<Vec<Msg>> {
    let history = parsed(&same(nodes, room, within).await?)?;
    let mut verdict = Verdict::default();
    order_and_once_of_history(&history, &mut verdict);
    ensure!(verdict.fault_count() == 0, "{}", verdict.faults.join("\n"));
    Ok(history)
}

fn difference(one: &[String], two: &[String]) -> String {
    let place = one.iter().zip(two).position(|(one, two)| one != two);
    let place = place.unwrap_or_else(|| one.len().min(two.len()));
    format!(
        "{} and {} messages, first difference at {place}: {:?} and {:?}",
        one.len(),
        two.len(),
        one.get(place),
        two.get(place)
    )
}

/// What the nodes count of losses, over all of them.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Losses {
    pub(crate) gaps: u64,
    pub(crate) repaired: u64,
    pub(crate) lost: u64,
}

/// Reads the counters of all nodes, and notes those that cannot be true: `/api/mesh` must account
/// for each number of a linked origin (unless retention has trimmed, or it came from the node's own
/// disk), and not differ from `/metrics`; nothing may be lost unless there may be holes.
pub(crate) async fn losses(
    nodes: &[&Node],
    expect: &Expect,
    verdict: &mut Verdict,
) -> Result<Losses> {
    let mut sum = Losses::default();
    for node in nodes {
        let mesh = node.mesh().await?;
        let metrics = node.metrics().await?;
        let position = Position::parse(&mesh.position)?;
        let mut links = Losses::default();
        let mut counted = BTreeSet::new();
        for link in &mesh.links {
            // Who is heard by two ways has a row for each, and one log.
            if !link
                .origin
                .as_ref()
                .is_none_or(|origin| counted.insert(origin))
            {
                continue;
            }
            links.gaps += link.gaps;
            links.repaired += link.repaired;
            links.lost += link.lost;
            let Some(origin) = &link.origin else { continue };
            let (held, told) = (position.of(origin), link.received + link.lost);
            // What was on its disk when it started it has not received.
            let less = expect.trimmed || node.keeps_data();
            if told > held || (told < held && !less) {
                let text = format!("{} holds {origin}.{held} and says {link:?}", node.origin);
                verdict.fault(Kind::Untruthful, text);
            }
        }
        let all = Losses {
            gaps: metrics.get("gaps_total")?,
            repaired: metrics.get("repaired_total")?,
            lost: metrics.get("lost_total")?,
        };
        if all.gaps < links.gaps || all.repaired < links.repaired || all.lost < links.lost {
            let text = format!(
                "{}: /metrics says {all:?}, /api/mesh {links:?}",
                node.origin
            );
            verdict.fault(Kind::Untruthful, text);
        }
        let spans = metrics.get("holes_total")?;
        // What all others had trimmed before a node could read it is a loss for its clients.
        let excused = expect.holes || (expect.trimmed && spans > 0);
        if !excused && (all.lost > 0 || spans > 0) {
            let text = format!("{} counts {} lost in {spans} spans", node.origin, all.lost);
            verdict.fault(Kind::Lost, text);
        }
        sum.gaps += all.gaps;
        sum.repaired += all.repaired;
        sum.lost += all.lost;
    }
    if expect.repaired && (sum.gaps == 0 || sum.repaired == 0) {
        let text = format!("loss was injected, and the nodes count {sum:?}");
        verdict.fault(Kind::Untruthful, text);
    }
    Ok(sum)
}
