//! The connections of one bridge: one to the foreign channel, one by which nodes that bridge hear each other.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::plan::{Act, PRESENT_EVERY, Plan, Stand};
use super::{BridgeUrl, Shown, State, Status, Taken, from_foreign, to_foreign};
use crate::carriers::broker::again::Again;
use crate::carriers::broker::amqp::{self, Exchange};
use crate::carriers::broker::channels::Channels;
use crate::carriers::broker::gauges::Gauges;
use crate::carriers::broker::session::{Connected, Messages, Publish, Subscribe};
use crate::carriers::broker::url::Engine;
use crate::carriers::broker::{Me, redis};
use crate::carriers::dial::DIAL_TIMEOUT;
use crate::core::SILENCE_MAX;
use crate::core::links::fault::{Fault, Why};
use crate::wire::protocol::check_text;

/// How often it is looked who bridges.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Who has not looked for so long, because it was stopped or the broker took nothing, begins anew: another may
/// bridge by now.
const NOT_LOOKED_MAX: Duration = Duration::from_secs(2);

/// One bridge of a node, with or without its broker.
pub(crate) struct Session {
    url: BridgeUrl,
    me: Me,
    status: Arc<Status>,
    shown: mpsc::Receiver<Arc<Shown>>,
    taken: mpsc::Sender<Taken>,
    /// Whether the node takes clients.
    ready: watch::Receiver<bool>,
    stop: CancellationToken,
    /// Microseconds since 1970.
    wall_us: fn() -> u64,
    plan: Plan,
    begun: Instant,
}

/// What happens while the connections stand.
enum Comes {
    /// On the foreign channel.
    Heard(Bytes),
    /// Of a node with the same bridge.
    Word(Bytes),
    Shown(Arc<Shown>),
    /// It is time to look who bridges, or to say that this node is there.
    Look,
    Present,
}

/// What goes by one connection each.
struct Lines<P> {
    foreign: P,
    own: P,
    foreign_name: String,
    own_name: String,
}

impl Session {
    /// A bridge that is shown this and brings that.
    pub(crate) fn new(
        url: BridgeUrl,
        me: Me,
        status: Arc<Status>,
        (shown, taken): (mpsc::Receiver<Arc<Shown>>, mpsc::Sender<Taken>),
        ready: watch::Receiver<bool>,
        (stop, wall_us): (CancellationToken, fn() -> u64),
    ) -> Self {
        let plan = Plan::new(me.origin);
        Self {
            url,
            me,
            status,
            shown,
            taken,
            ready,
            stop,
            wall_us,
            plan,
            begun: Instant::now(),
        }
    }

    /// Bridges until it is stopped; dials again whatever ends it.
    pub(crate) async fn run(mut self) {
        let mut again = Again::new();
        loop {
            again.dials();
            let fault = self.dial().await;
            if self.stop.is_cancelled() {
                return;
            }
            self.plan.end();
            self.status.set(State::Away, Some(fault.text.clone()));
            let pause = again.ended(&fault);
            if pause.is_news {
                tracing::warn!(bridge = self.url.shown(), "not bridged: {}", fault.text);
            }
            let stop = self.stop.clone();
            let ended = async move { stop.run_until_cancelled(sleep(pause.wait)).await };
            if self.keep_while(ended).await.is_none() {
                return;
            }
        }
    }

    fn now(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Keeps what is shown meanwhile.
    async fn keep_while<T>(&mut self, other: impl Future<Output = T>) -> T {
        let mut other = std::pin::pin!(other);
        loop {
            tokio::select! {
                result = &mut other => return result,
                Some(shown) = self.shown.recv() => {
                    self.see(&shown);
                }
            }
        }
    }

    fn see(&mut self, shown: &Shown) -> Vec<Act> {
        let now = self.now();
        match shown.by.as_deref() {
            None => self.plan.shown(&shown.text, false, now),
            Some(by) if by == self.url.engine().as_str() => self.plan.shown(&shown.text, true, now),
            // What came in by another way does not go out by this one.
            Some(_) => Vec::new(),
        }
    }

    async fn dial(&mut self) -> Fault {
        let (url, me) = (self.url.clone(), self.me.clone());
        let channels = Channels::of(url.engine(), &me.mesh);
        match url.engine() {
            Engine::Redis => {
                let connecting = async {
                    let broker = url.broker();
                    futures::try_join!(redis::connect(broker, &me), redis::connect(broker, &me))
                };
                let own_name = channels.of_bridge(&url.channel);
                self.connect(connecting, (url.channel.clone(), own_name))
                    .await
            }
            _ => {
                let gauges = Arc::new(Gauges::default());
                let connecting = async {
                    let foreign = Exchange::fanout(&url.channel);
                    futures::try_join!(
                        amqp::connect(url.broker(), &me, &gauges, foreign),
                        amqp::connect(url.broker(), &me, &gauges, Exchange::of(&me)),
                    )
                };
                // A fanout looks at no key.
                let own_name = channels.of_bridge(&url.channel);
                self.connect(connecting, (String::new(), own_name)).await
            }
        }
    }

    async fn connect<P: Publish, S: Subscribe, M: Messages>(
        &mut self,
        connecting: impl Future<Output = Result<(Connected<P, S, M>, Connected<P, S, M>), Fault>>,
        names: (String, String),
    ) -> Fault {
        let connecting = Box::pin(timeout(DIAL_TIMEOUT, connecting));
        match self.keep_while(connecting).await {
            Ok(Ok((foreign, own))) => match self.bridge(foreign, own, names).await {
                Ok(never) => match never {},
                Err(fault) => fault,
            },
            Ok(Err(fault)) => fault,
            Err(_) => Fault::new(Why::TimedOut, "timed out: no answer from there"),
        }
    }

    async fn bridge<P: Publish, S: Subscribe, M: Messages>(
        &mut self,
        foreign: Connected<P, S, M>,
        own: Connected<P, S, M>,
        (foreign_name, own_name): (String, String),
    ) -> Result<std::convert::Infallible, Fault> {
        let (mut heard, mut others) = (foreign.messages, own.messages);
        let (one, other) = (foreign.driver, own.driver);
        let mut driver: BoxFuture<'static, Fault> = Box::pin(async move {
            tokio::select! { fault = one => fault, fault = other => fault }
        });
        let (mut hears, mut meets) = (foreign.subscriber, own.subscriber);
        let subscribing = async {
            futures::try_join!(
                hears.subscribe(std::slice::from_ref(&foreign_name)),
                meets.subscribe(std::slice::from_ref(&own_name)),
            )
        };
        let mut subscribing = Box::pin(timeout(DIAL_TIMEOUT, subscribing));
        loop {
            tokio::select! {
                fault = &mut driver => return Err(fault),
                done = &mut subscribing => match done {
                    Ok(done) => {
                        done?;
                        break;
                    }
                    Err(_) => {
                        let text = "timed out: it confirms no subscription";
                        return Err(Fault::new(Why::TimedOut, text));
                    }
                },
                // Before both stand nothing is bridged.
                message = heard.next() => drop(message?),
                message = others.next() => drop(message?),
                Some(shown) = self.shown.recv() => drop(self.see(&shown)),
            }
        }
        drop(subscribing);
        let mut lines = Lines {
            foreign: foreign.publisher,
            own: own.publisher,
            foreign_name,
            own_name,
        };
        self.plan.begin(self.now());
        let mut presence = interval(PRESENT_EVERY);
        let mut look = interval(LOOK_EVERY);
        let mut looked = Instant::now();
        loop {
            // Each is cancel safe.
            let comes = tokio::select! {
                fault = &mut driver => return Err(fault),
                () = self.stop.cancelled() => {
                    lines.say(Stand::Goes, &self.me, &mut driver).await?;
                    return Err(Fault::ended());
                }
                message = heard.next() => Comes::Heard(message?.1),
                message = others.next() => Comes::Word(message?.1),
                Some(shown) = self.shown.recv() => Comes::Shown(shown),
                _ = look.tick() => Comes::Look,
                _ = presence.tick() => Comes::Present,
            };
            // Before anything is done about what came meanwhile.
            if looked.elapsed() > NOT_LOOKED_MAX {
                return Err(Fault::new(Why::Silent, "this node was stopped for seconds"));
            }
            let acts = match comes {
                Comes::Heard(body) => self.heard(&body),
                Comes::Word(body) => {
                    if let Some((origin, stand)) = Stand::read(&body) {
                        self.plan.present(origin, stand, self.now());
                    }
                    Vec::new()
                }
                Comes::Shown(shown) => self.see(&shown),
                Comes::Look => {
                    looked = Instant::now();
                    self.look()?
                }
                Comes::Present => {
                    lines.say(self.plan.stand(), &self.me, &mut driver).await?;
                    Vec::new()
                }
            };
            self.act(acts, &mut lines, &mut driver).await?;
        }
    }

    fn heard(&mut self, body: &[u8]) -> Vec<Act> {
        let text = from_foreign(self.url.engine(), body);
        match text.filter(|text| check_text(text).is_ok()) {
            Some(text) => self.plan.heard(&text, self.now()),
            None => {
                self.status.refused.add(1);
                Vec::new()
            }
        }
    }

    fn look(&mut self) -> Result<Vec<Act>, Fault> {
        let now = self.now();
        if self.plan.is_deaf(now) {
            let text = "silent: what is published there does not come back";
            return Err(Fault::new(Why::Silent, text));
        }
        let was = self.plan.bridges();
        let can = *self.ready.borrow();
        let acts = self.plan.tick(can, now);
        let bridges = self.plan.bridges();
        if bridges != was {
            tracing::info!(bridge = self.url.shown(), bridges, "bridge");
        }
        let state = if bridges {
            State::Bridging
        } else {
            State::Standby
        };
        self.status.set(state, None);
        self.status
            .dropped
            .add(std::mem::take(&mut self.plan.dropped));
        Ok(acts)
    }

    async fn act<P: Publish>(
        &mut self,
        acts: Vec<Act>,
        lines: &mut Lines<P>,
        driver: &mut BoxFuture<'static, Fault>,
    ) -> Result<(), Fault> {
        let (engine, by) = (self.url.engine(), self.url.engine().as_str());
        let mut said = Vec::new();
        for act in acts {
            match act {
                Act::Publish(text) => {
                    let body = to_foreign(engine, &text, (self.wall_us)() / 1000);
                    said.push((lines.foreign_name.clone(), body));
                }
                Act::Take(text) => {
                    self.status.taken.add(1);
                    // An error means that the node ends.
                    let _ = self.taken.send(Taken { by, text }).await;
                }
            }
        }
        if !said.is_empty() {
            self.status.published.add(said.len() as u64);
            publish(&mut lines.foreign, &said, driver).await?;
        }
        Ok(())
    }
}

impl<P: Publish> Lines<P> {
    /// Says how this node stands.
    async fn say(
        &mut self,
        stand: Stand,
        me: &Me,
        driver: &mut BoxFuture<'static, Fault>,
    ) -> Result<(), Fault> {
        let said = stand.said_by(me.origin).into();
        publish(&mut self.own, &[(self.own_name.clone(), said)], driver).await
    }
}

/// Publishes while the connections are driven, and not for ever.
async fn publish(
    publisher: &mut impl Publish,
    messages: &[(String, Bytes)],
    driver: &mut BoxFuture<'static, Fault>,
) -> Result<(), Fault> {
    tokio::select! {
        fault = driver => Err(fault),
        published = timeout(SILENCE_MAX, publisher.publish(messages)) => match published {
            Ok(published) => published.map(drop),
            Err(_) => Err(Fault::new(Why::TimedOut, "timed out: the broker takes nothing")),
        },
    }
}
