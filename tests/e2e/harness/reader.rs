//! A person who reads one room for the whole of a test, over as many connections as it takes.

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use tokio::time::Duration;

use super::client::Client;
use super::cluster::Node;
use super::eventually::{eventually, holds};
use super::recorder::Recorder;
use super::wire::{Joined, Msg, Position, Shown};

/// Reads a room, keeps its position as the contract asks of a client, and goes on elsewhere. All
/// of its connections are on the record of the test, by its name.
#[derive(Debug)]
pub(crate) struct Reader {
    pub(crate) name: String,
    room: String,
    recorder: Recorder,
    client: Client,
    /// How many of the client's messages are in `stream`.
    taken: usize,
    /// All messages in the order in which they were shown, over all connections.
    stream: Vec<Msg>,
    position: Position,
}

impl Reader {
    /// Begins to read at this node, without history.
    pub(super) async fn start(
        recorder: &Recorder,
        node: &Node,
        name: &str,
        room: &str,
    ) -> Result<Self> {
        let client = recorder.client(node, name).await?;
        let joined = client
            .join_with(json!({ "room": room, "history": 0 }))
            .await?;
        ensure!(
            joined.messages.is_empty(),
            "a join with history 0 brought {:?}",
            joined.messages
        );
        Ok(Self {
            name: name.to_owned(),
            room: room.to_owned(),
            recorder: recorder.clone(),
            client,
            taken: 0,
            stream: Vec::new(),
            position: Position::parse(&joined.at)?,
        })
    }

    /// What it has seen.
    pub(crate) fn position(&mut self) -> &Position {
        self.collect();
        &self.position
    }

    /// The connection of now.
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// Takes in what has come.
    fn collect(&mut self) {
        let record = self.client.socket.inbox.record();
        for (_, message) in &record.messages[self.taken..] {
            if message.room == self.room {
                self.position.advance(message);
                self.stream.push(message.clone());
            }
        }
        self.taken = record.messages.len();
    }

    /// All that was shown so far, in order.
    pub(crate) fn stream(&mut self) -> &[Msg] {
        self.collect();
        &self.stream
    }

    /// Leaves its connection, if it still has one, and goes on at this node.
    pub(crate) async fn resume(&mut self, node: &Node) -> Result<Joined> {
        self.resume_naming(node, true).await
    }

    /// As [`Reader::resume`], as a client does that knows only of positions.
    pub(crate) async fn resume_without_mids(&mut self, node: &Node) -> Result<Joined> {
        self.resume_naming(node, false).await
    }

    async fn resume_naming(&mut self, node: &Node, names_mids: bool) -> Result<Joined> {
        self.client.vanish();
        self.collect();
        let client = self.recorder.client(node, &self.name).await?;
        let since = self.position.ids();
        let mut shown = Shown::default();
        self.stream.iter().for_each(|message| shown.note(message));
        let join = json!({ "room": self.room, "since": since, "history": 50 });
        let joined = if names_mids {
            client.enter_naming("join", join, &shown).await
        } else {
            client.join_with(join).await
        };
        let joined = joined.with_context(|| format!("{} resumes from {since:?}", self.name))?;
        for message in &joined.messages {
            self.position.advance(message);
            self.stream.push(message.clone());
        }
        self.position.merge(&Position::parse(&joined.at)?);
        self.client = client;
        self.taken = 0;
        Ok(joined)
    }

    /// Waits until it was shown so many messages in all.
    pub(crate) async fn shown(&mut self, count: usize, within: Duration) -> Result<()> {
        let what = format!("{} is shown {count} messages", self.name);
        eventually(within, &what, async || {
            let seen = self.stream().len();
            holds(seen >= count, format_args!("shown {seen}"))
        })
        .await
    }
}
