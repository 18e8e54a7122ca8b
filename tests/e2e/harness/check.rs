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
    let gaps = reader.gaps();
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
    check_stream(&name, stream, &due)?;
    Ok(stream.len())
}

/// What was shown is what was due: each message once, as the history has it, each origin's in
/// order.
///
/// # Errors
/// One of these does not hold.
fn check_stream(name: &str, stream: &[Msg], due: &[&Msg]) -> Result<()> {
    once(stream, name)?;
    ensure!(
        stream.len() == due.len(),
        "{name} was shown {} of {}",
        stream.len(),
        due.len()
    );
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
    Ok(())
}

/// The checks are checked: each fault of a program that they are there for makes them fail.
#[cfg(test)]
mod tests {
    use super::{Attempt, Fate, Msg, check_histories, check_stream, once};
    use crate::harness::Instant;
    use crate::harness::wire::Sent;

    fn message(id: &str, mid: &str) -> Msg {
        Msg {
            room: "tea".to_owned(),
            id: id.to_owned(),
            mid: Some(mid.to_owned()),
            from: "ada".to_owned(),
            ts: 7,
            text: format!("text of {mid}"),
        }
    }

    fn accepted(id: &str, mid: &str) -> Attempt {
        let now = Instant::now();
        Attempt {
            mid: mid.to_owned(),
            from: "ada".to_owned(),
            text: format!("text of {mid}"),
            origin: "a".to_owned(),
            sent_at: now,
            replied_at: now,
            fate: Fate::Accepted(Sent {
                id: id.to_owned(),
                ts: 7,
                copies: 0,
            }),
        }
    }

    #[test]
    fn a_stream_with_a_fault_is_found_out() {
        let history = [
            message("a.1", "1"),
            message("a.2", "2"),
            message("b.1", "3"),
        ];
        let due: Vec<_> = history.iter().collect();
        let [one, two, three] = history.clone();
        let mut other_text = two.clone();
        "changed".clone_into(&mut other_text.text);
        let mut other_id = two.clone();
        "a.3".clone_into(&mut other_id.id);
        let good = [
            [one.clone(), two.clone(), three.clone()],
            [three.clone(), one.clone(), two.clone()],
        ];
        for stream in good {
            assert!(check_stream("reader", &stream, &due).is_ok());
        }
        for (what, stream) in [
            ("missing", vec![one.clone(), three.clone()]),
            (
                "twice",
                vec![one.clone(), two.clone(), two.clone(), three.clone()],
            ),
            (
                "twice by mid",
                vec![one.clone(), two.clone(), other_id, three.clone()],
            ),
            ("out of order", vec![two, one.clone(), three.clone()]),
            ("altered", vec![one, other_text, three]),
        ] {
            assert!(
                check_stream("reader", &stream, &due).is_err(),
                "{what} was not found"
            );
        }
    }

    #[test]
    fn a_history_with_a_fault_is_found_out() {
        let attempts = [accepted("a.1", "1"), accepted("a.2", "2")];
        let mut refused = accepted("a.3", "3");
        refused.fate = Fate::Refused("rate_limited".to_owned());
        let all = [attempts[0].clone(), attempts[1].clone(), refused];
        let (one, two) = (message("a.1", "1"), message("a.2", "2"));
        let kept = |_: &str| true;
        assert!(check_histories(&[one.clone(), two.clone()], &all, kept).is_ok());
        assert!(check_histories(std::slice::from_ref(&one), &all, |_| false).is_ok());
        for (what, history) in [
            ("lost", vec![one.clone()]),
            (
                "phantom",
                vec![one.clone(), two.clone(), message("a.9", "9")],
            ),
            ("refused", vec![one.clone(), two, message("a.3", "3")]),
            ("under another id", vec![one.clone(), message("a.7", "2")]),
        ] {
            assert!(
                check_histories(&history, &all, kept).is_err(),
                "{what} was not found"
            );
        }
        assert!(once(&[one.clone(), one], "the history").is_err());
    }
}
