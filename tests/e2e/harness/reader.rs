//! A person who reads one room for the whole of a test, over as many connections as it takes.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tokio::time::Duration;

use super::client::Client;
use super::cluster::Node;
use super::eventually::{eventually, holds};
use super::wire::{Joined, Msg, Position};

/// Reads a room, keeps its position as the contract asks of a client, and goes on elsewhere.
#[derive(Debug)]
pub(crate) struct Reader {
    pub(crate) name: String,
    room: String,
    client: Client,
    /// How many of the client's messages are in `stream`.
    taken: usize,
    /// All messages in the order in which they were shown, over all connections.
    stream: Vec<Msg>,
    /// Where it began: what is at or before this was history then.
    base: Position,
    position: Position,
    /// Gaps that earlier connections were told of.
    gaps: Vec<Value>,
    /// `recovered` of each resume.
    pub(crate) recoveries: Vec<Option<bool>>,
}

impl Reader {
    /// Begins to read at this node, without history.
    ///
    /// # Errors
    /// The node does not let it in.
    pub(crate) async fn start(node: &Node, name: &str, room: &str) -> Result<Self> {
        let client = Client::hello(node, name).await?;
        let joined = client
            .join_with(json!({ "room": room, "history": 0 }))
            .await?;
        ensure!(
            joined.messages.is_empty(),
            "a join with history 0 brought {:?}",
            joined.messages
        );
        let base = Position::parse(&joined.at)?;
        Ok(Self {
            name: name.to_owned(),
            room: room.to_owned(),
            client,
            taken: 0,
            stream: Vec::new(),
            position: base.clone(),
            base,
            gaps: Vec::new(),
            recoveries: Vec::new(),
        })
    }

    /// The connection of now.
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// Takes in what has come.
    fn collect(&mut self) {
        for (_, message) in self.client.messages().into_iter().skip(self.taken) {
            self.taken += 1;
            if message.room == self.room {
                self.position.advance(&message);
                self.stream.push(message);
            }
        }
    }

    /// All that was shown so far, in order.
    pub(crate) fn stream(&mut self) -> &[Msg] {
        self.collect();
        &self.stream
    }

    /// Where it began.
    pub(crate) fn base(&self) -> &Position {
        &self.base
    }

    /// All gaps that it was told of, on all its connections.
    pub(crate) fn gaps(&self) -> Vec<Value> {
        let mut gaps = self.gaps.clone();
        gaps.extend(self.client.pushed("gap"));
        gaps
    }

    /// Its position: what it sends as `since`.
    pub(crate) fn position(&mut self) -> Position {
        self.collect();
        self.position.clone()
    }

    /// Leaves its connection, if it still has one, and goes on at this node.
    ///
    /// # Errors
    /// The node does not let it in.
    pub(crate) async fn resume(&mut self, node: &Node) -> Result<Joined> {
        self.collect();
        let client = Client::hello(node, &self.name).await?;
        let since = self.position.ids();
        let joined = client
            .join_with(json!({ "room": self.room, "since": since, "history": 50 }))
            .await
            .with_context(|| format!("{} resumes from {since:?}", self.name))?;
        self.recoveries.push(joined.recovered);
        for message in &joined.messages {
            self.position.advance(message);
            self.stream.push(message.clone());
        }
        self.position.merge(&Position::parse(&joined.at)?);
        self.gaps = self.gaps();
        self.client = client;
        self.taken = 0;
        Ok(joined)
    }

    /// Waits until it has been shown all of these ids.
    ///
    /// # Errors
    /// Not in time; the text names the first that is missing.
    pub(crate) async fn has_all(&mut self, ids: &[&str], within: Duration) -> Result<()> {
        let what = format!("{} has been shown all {} messages", self.name, ids.len());
        eventually(within, &what, async || {
            self.collect();
            let shown: std::collections::HashSet<_> = self
                .stream
                .iter()
                .map(|message| message.id.as_str())
                .collect();
            let missing: Vec<_> = ids.iter().filter(|id| !shown.contains(**id)).collect();
            holds(
                missing.is_empty(),
                format_args!(
                    "{} missing, first {:?}; closed: {:?}",
                    missing.len(),
                    missing.first(),
                    self.client.is_closed()
                ),
            )
        })
        .await
    }
}
