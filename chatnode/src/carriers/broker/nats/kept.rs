//! What is kept at NATS: a stream of JetStream, on disk, and a durable consumer for each archive.
//!
//! What is published there is answered when the stream has it: by a majority of its servers, where it has
//! several. Each server writes it to its file, and syncs that now and then (`sync_interval`). An archive
//! acknowledges what it has stored; what all archives have is purged, by whichever of them looks next.

use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use serde_json::json;
use tokio::time::Instant;

use super::jetstream::{Answer, Line, MESSAGES_MAX, NO_RESPONDERS, answered, line, odd, stream_of};
use super::wire::Message;
use crate::carriers::broker::Me;
use crate::carriers::broker::keeper::{Connected, Consume, Held, Keep, KeepUrl, Name, channel_of};
use crate::core::links::fault::{Fault, Why};

/// Messages that are asked for at once,
const PULLED: usize = 256;
/// and for how long the server looks for them. Half a minute without them, and it is asked again.
const PULL_FOR: Duration = Duration::from_secs(20);
const PULL_AGAIN: Duration = Duration::from_secs(30);
/// No more are asked for while so many are not stored yet.
const UNSETTLED_MAX: usize = 1024;
/// What is not acknowledged in this time is brought again: also what an archive was brought that was killed.
const ACK_WAIT: Duration = Duration::from_secs(5);

/// Connects to keep.
pub(in crate::carriers::broker) async fn keep(
    url: &KeepUrl,
    me: &Me,
) -> Result<Connected<Keeper>, Fault> {
    let (mut line, mut driver, is_cluster) = line(url, me).await?;
    let counts = tokio::select! {
        fault = &mut driver => return Err(fault),
        counts = line.stream(me, is_cluster) => counts?,
    };
    let keeper = Keeper {
        line,
        stream: stream_of(me),
        subject: channel_of(me),
    };
    Ok(Connected {
        keeper,
        driver,
        counts,
        rests: Duration::ZERO,
    })
}

/// Keeps.
pub(in crate::carriers::broker) struct Keeper {
    line: Line,
    stream: String,
    subject: String,
}

impl Keep for Keeper {
    async fn keep(&mut self, messages: Vec<Bytes>) -> Result<(), Fault> {
        self.line.asks += 1;
        let answer = format!("k{}", self.line.asks);
        // Half of what may wait to be looked at, so that the server is always read.
        for some in messages.chunks(MESSAGES_MAX / 2) {
            let words = some.iter();
            let words = words.flat_map(|body| self.line.words(&self.subject, &answer, body));
            let words = words.collect();
            self.line.mouth.say(words).await;
            let subject = format!("{}.{answer}", self.line.inbox);
            let mut kept = 0;
            while kept < some.len() {
                let message = self.line.next().await;
                if message.subject != subject.as_bytes() {
                    continue;
                }
                let answer = answered(&message)?;
                match (answer.error, answer.stream) {
                    (Some(trouble), _) => return Err(trouble.fault()),
                    (None, Some(stream)) if stream == self.stream => kept += 1,
                    (None, Some(stream)) => {
                        let text = format!("another stream takes what is to be kept: {stream}");
                        return Err(Fault::new(Why::NoBroker, text));
                    }
                    (None, None) => return Err(odd()),
                }
            }
        }
        Ok(())
    }
}

/// Connects to take in what is kept.
pub(in crate::carriers::broker) async fn consume(
    url: &KeepUrl,
    me: &Me,
) -> Result<(Consumer, BoxFuture<'static, Fault>), Fault> {
    let (mut line, mut driver, is_cluster) = line(url, me).await?;
    let (stream, archive) = (stream_of(me), url.archive().to_owned());
    let config = json!({
        "stream_name": stream,
        "config": {
            "durable_name": archive,
            "ack_policy": "explicit",
            "deliver_policy": "all",
            "replay_policy": "instant",
            "ack_wait": u64::try_from(ACK_WAIT.as_nanos()).unwrap_or(u64::MAX),
            "max_ack_pending": UNSETTLED_MAX,
            "max_deliver": -1,
        },
    });
    let prepared = async {
        line.stream(me, is_cluster).await?.ok();
        let what = format!("CONSUMER.DURABLE.CREATE.{stream}.{archive}");
        let made = line.do_it(&what, &config).await?;
        Ok::<u64, Fault>(made.num_pending + made.num_ack_pending)
    };
    let waiting = tokio::select! {
        fault = &mut driver => return Err(fault),
        waiting = prepared => waiting?,
    };
    let consumer = Consumer {
        line,
        stream,
        archive,
        pulled: 0,
        pull_due: Instant::now(),
        unsettled: 0,
        waiting,
        has_settled: false,
    };
    Ok((consumer, driver))
}

/// Takes in what is kept.
pub(in crate::carriers::broker) struct Consumer {
    line: Line,
    stream: String,
    archive: String,
    /// How many are still to come of those that were asked for,
    pulled: usize,
    /// and when it is asked anew, whether they came or not.
    pull_due: Instant,
    unsettled: usize,
    waiting: u64,
    /// Whether something was stored since it was looked what may be purged.
    has_settled: bool,
}

impl Consumer {
    /// Asks for more, if it is time to.
    async fn pull(&mut self) {
        let is_due = self.pulled == 0 || Instant::now() >= self.pull_due;
        if !is_due || self.unsettled >= UNSETTLED_MAX / 2 {
            return;
        }
        let what = format!("$JS.API.CONSUMER.MSG.NEXT.{}.{}", self.stream, self.archive);
        let expires = u64::try_from(PULL_FOR.as_nanos()).unwrap_or(u64::MAX);
        let body = json!({ "batch": PULLED, "expires": expires }).to_string();
        let words = self.line.words(&what, "p", body.as_bytes());
        // Who gives up waiting here asks again, and may be brought more.
        self.line.mouth.say(words).await;
        self.pulled = PULLED;
        self.pull_due = Instant::now() + PULL_AGAIN;
    }

    /// What was asked beside is answered.
    async fn take(&mut self, message: &Message) -> Result<(), Fault> {
        let inbox = &self.line.inbox;
        let answers = |what: &str| message.subject == format!("{inbox}.{what}").as_bytes();
        if answers("i") {
            let info = answered(message)?;
            if let Some(trouble) = info.error {
                return Err(trouble.fault());
            }
            // Of those some came on this connection.
            let unsettled = u64::try_from(self.unsettled).unwrap_or_default();
            let elsewhere = info.num_ack_pending.saturating_sub(unsettled);
            self.waiting = info.num_pending + elsewhere;
        } else if answers("l") {
            let list: Answer = answered(message)?;
            let floors = list.consumers.iter().map(|it| it.ack_floor.stream_seq);
            if let Some(floor) = floors.min().filter(|floor| *floor > 0) {
                // All below this number.
                let body = json!({ "seq": floor + 1 }).to_string();
                let what = format!("$JS.API.STREAM.PURGE.{}", self.stream);
                let words = self.line.words(&what, "d", body.as_bytes());
                self.line.mouth.say(words).await;
            }
        }
        Ok(())
    }
}

/// How often a message was brought, as its acknowledgement is called:
/// `$JS.ACK.<stream>.<consumer>.<times>.<…>`, with two more words before the stream in later versions.
fn is_again(reply: &str) -> bool {
    let words: Vec<&str> = reply.split('.').collect();
    let at = if words.len() > 9 { 6 } else { 4 };
    words.get(at).is_some_and(|times| *times != "1")
}

impl Consume for Consumer {
    async fn next(&mut self) -> Result<Held, Fault> {
        loop {
            self.pull().await;
            let message = self.line.next().await;
            let is_pulled = message.subject == format!("{}.p", self.line.inbox).as_bytes();
            let reply = message.reply.as_ref();
            let reply = reply.and_then(|reply| std::str::from_utf8(reply).ok());
            let reply = reply.filter(|reply| reply.starts_with("$JS.ACK."));
            match (reply, message.status()) {
                (Some(reply), _) => {
                    self.pulled = self.pulled.saturating_sub(1);
                    self.waiting = self.waiting.saturating_sub(1);
                    self.unsettled += 1;
                    return Ok(Held {
                        again: is_again(reply),
                        name: Name::Text(reply.to_owned()),
                        body: message.body,
                    });
                }
                // It found no more in that time, or ends; or there is nobody.
                (None, Some(NO_RESPONDERS)) => {
                    return Err(answered(&message).err().unwrap_or_else(odd));
                }
                (None, Some(_)) if is_pulled => self.pulled = 0,
                (None, _) => self.take(&message).await?,
            }
        }
    }

    async fn settle(&mut self, names: &[Name]) -> Result<(), Fault> {
        let mut words = Vec::new();
        for name in names {
            if let Name::Text(reply) = name {
                words.extend_from_slice(format!("PUB {reply} 4\r\n+ACK\r\n").as_bytes());
            }
        }
        self.unsettled = self.unsettled.saturating_sub(names.len());
        self.has_settled = true;
        self.line.mouth.say(words).await;
        Ok(())
    }

    async fn look(&mut self) -> Result<(), Fault> {
        let Self {
            stream, archive, ..
        } = self;
        let info = format!("$JS.API.CONSUMER.INFO.{stream}.{archive}");
        let list = format!("$JS.API.CONSUMER.LIST.{stream}");
        let mut words = self.line.words(&info, "i", b"");
        if std::mem::take(&mut self.has_settled) {
            words.extend(self.line.words(&list, "l", b""));
        }
        self.line.mouth.say(words).await;
        Ok(())
    }

    fn waiting(&self) -> u64 {
        self.waiting
    }
}
