//! The promises, checked on what clients were shown and on what nodes keep.

use std::collections::{BTreeMap, HashMap, HashSet};

use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::time::Duration;

use super::cluster::Node;
use super::eventually::eventually;
use super::load::{Attempt, Fate};
use super::reader::Reader;
use super::wire::Msg;

/// Messages a page, the most that the contract allows.
const PAGE: usize = 200;

#[derive(Deserialize)]
struct Page {
    messages: Vec<Box<RawValue>>,
    more: bool,
}

/// Waits until these nodes hold the same position over all origins.
///
/// # Errors
/// They do not in time.
pub(crate) async fn converged(nodes: &[&Node], within: Duration) -> Result<()> {
    eventually(within, "all nodes hold the same", async || {
        let mut first: Option<Vec<String>> = None;
        for node in nodes {
            let position = node.mesh().await?.sorted_position();
            match &first {
                None => first = Some(position),
                Some(first) => {
                    ensure!(
                        *first == position,
                        "{first:?} and {position:?} of {}",
                        node.origin
                    );
                }
            }
        }
        Ok(())
    })
    .await
}

/// The whole history of a room at a node: each message as its bytes, oldest first.
///
/// # Errors
/// The node does not answer as the contract says.
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

/// P2 and more: waits until all hold the same, then reads the room's history from every node.
/// They must be the same bytes, in the order of `(ts, origin)`, no id and no mid twice.
///
/// # Errors
/// One of these does not hold.
pub(crate) async fn histories(nodes: &[&Node], room: &str, within: Duration) -> Result<Vec<Msg>> {
    converged(nodes, within).await?;
    let mut first: Option<Vec<String>> = None;
    for node in nodes {
        let texts = history(node, room).await?;
        match &first {
            None => first = Some(texts),
            Some(first) => ensure!(
                *first == texts,
                "the history at {} differs: {}",
                node.origin,
                difference(first, &texts)
            ),
        }
    }
    let messages: Vec<Msg> = first
        .unwrap_or_default()
        .iter()
        .map(|text| serde_json::from_str(text))
        .collect::<Result<_, _>>()?;
    for pair in messages.windows(2) {
        ensure!(
            pair[0].place() < pair[1].place(),
            "history out of order: {pair:?}"
        );
    }
    once(&messages, "the history")?;
    Ok(messages)
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

fn once(messages: &[Msg], whose: &str) -> Result<()> {
    let mut ids = HashSet::new();
    let mut mids = HashSet::new();
    for message in messages {
        ensure!(
            ids.insert(&message.id),
            "{whose}: twice the id of {message:?}"
        );
        if let Some(mid) = &message.mid {
            ensure!(mids.insert(mid), "{whose}: twice the mid of {message:?}");
        }
    }
    Ok(())
}

/// Acknowledged ⊆ history ⊆ attempted, each with its own text and name. `kept` says of which
/// origins every acknowledged message must be there: not of a node that was killed without copies.
///
/// # Errors
/// One of these does not hold.
pub(crate) fn check_histories(
    history: &[Msg],
    attempts: &[Attempt],
    kept: impl Fn(&str) -> bool,
) -> Result<()> {
    let by_mid: HashMap<_, _> = attempts
        .iter()
        .map(|attempt| (attempt.mid.as_str(), attempt))
        .collect();
    let mut there = HashSet::new();
    for message in history {
        there.insert(message.id.as_str());
        let Some(attempt) = message.mid.as_deref().and_then(|mid| by_mid.get(mid)) else {
            bail!("nobody sent {message:?}");
        };
        ensure!(
            attempt.text == message.text && attempt.from == message.from,
            "{message:?} is not what was sent: {attempt:?}"
        );
        match &attempt.fate {
            Fate::Accepted(sent) => ensure!(
                (&sent.id, sent.ts) == (&message.id, message.ts),
                "{message:?} was acknowledged as {sent:?}"
            ),
            Fate::Refused(code) => bail!("{message:?} was refused with {code}"),
            Fate::Unknown => {}
        }
    }
    for attempt in attempts.iter().filter(|attempt| kept(&attempt.origin)) {
        if let Some(id) = attempt.id() {
            ensure!(
                there.contains(id),
                "acknowledged and not in the history: {attempt:?}"
            );
        }
    }
    Ok(())
}

/// P1 and P4 for one reader: from where it began, it was shown exactly what the final history
/// has, each message once by id and by mid, each origin's in order, and no gap was announced.
///
/// # Errors
/// One of these does not hold.
pub(crate) async fn check_chain(
    reader: &mut Reader,
    history: &[Msg],
    within: Duration,
) -> Result<usize> {
    let base = reader.base().clone();
    let due: Vec<_> = history
        .iter()
        .filter(|message| !base.covers(message))
        .collect();
    let ids: Vec<_> = due.iter().map(|message| message.id.as_str()).collect();
    reader.has_all(&ids, within).await?;
    let name = reader.name.clone();
    let gaps = reader.client().pushed("gap");
    ensure!(gaps.is_empty(), "{name} was told of gaps: {gaps:?}");
    ensure!(
        reader
            .recoveries
            .iter()
            .all(|&recovered| recovered == Some(true)),
        "{name} was not recovered: {:?}",
        reader.recoveries
    );
    let stream = reader.stream();
    once(stream, &name)?;
    let kept: HashMap<_, _> = due
        .iter()
        .map(|message| (message.id.as_str(), *message))
        .collect();
    let mut last: BTreeMap<&str, u64> = BTreeMap::new();
    for message in stream {
        let held = kept.get(message.id.as_str());
        ensure!(
            held == Some(&message),
            "{name} was shown {message:?}, the history has {held:?}"
        );
        let before = last.insert(message.origin(), message.seq());
        ensure!(
            before < Some(message.seq()),
            "{name}: {message:?} came after {before:?}"
        );
    }
    Ok(stream.len())
}
