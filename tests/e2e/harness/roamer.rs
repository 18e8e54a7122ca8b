//! A person who reads and talks for as long as a test lasts and finds a node alone, as the
//! contract asks of a client: it goes where nodes told it that nodes are, at once where a `goaway`
//! sends it and else with full jitter, brings its position, and says again under the same mid
//! what was not answered.

use std::borrow::Borrow;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Result, bail, ensure};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Duration, Instant, sleep, timeout};

use self::walk::Walk;
use super::cluster::{Node, each};
use super::recorder::Recorder;
use super::wire::Shown;
use super::{PATIENCE, spawn};

mod walk;

/// How fast it talks.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Pace {
    /// It only reads.
    Silent,
    /// So many messages a second, evenly.
    Steady(u32),
    /// As fast as it is answered, with so many under way.
    Eager(usize),
}

/// What it does.
#[derive(Debug, Clone)]
pub(crate) struct Habits {
    pub(crate) room: String,
    /// It hears these rooms by a pattern, and joins none.
    pub(crate) watches: Option<String>,
    pub(crate) pace: Pace,
    /// Copies that it asks for.
    pub(crate) copies: u32,
    /// The least length of a text.
    pub(crate) bytes: usize,
}

impl Habits {
    /// In this room, with texts as short as they come.
    pub(crate) fn new(room: impl Into<String>, pace: Pace, copies: u32) -> Self {
        let (room, bytes) = (room.into(), 0);
        Self {
            room,
            watches: None,
            pace,
            copies,
            bytes,
        }
    }
}

/// The addresses that it knows: nodes', until a node tells of others, or a balancer's for good.
#[derive(Debug, Clone)]
pub(crate) enum Ways {
    Nodes(Vec<String>),
    Balancer(String),
}

/// One loss of its node.
#[derive(Debug, Clone)]
pub(crate) struct Move {
    /// When it noticed, or left because it was sent away.
    pub(crate) lost_at: Instant,
    /// When it was in the room again.
    pub(crate) back_at: Instant,
    /// The nodes that a `goaway` named; none if there was no such word.
    pub(crate) named: Vec<String>,
    /// The HTTP endpoint of the node where it is now.
    pub(crate) to: String,
}

/// Such a person; leaves when dropped.
#[derive(Debug)]
pub(crate) struct Roamer {
    pub(crate) name: String,
    talks: watch::Sender<bool>,
    state: watch::Receiver<State>,
    moves: Arc<Mutex<Vec<Move>>>,
    shoves: watch::Sender<usize>,
    task: JoinHandle<Result<()>>,
}

/// What others may know of it at any time.
#[derive(Debug, Clone, Default)]
struct State {
    /// The origin of its node, while it is in the room there.
    at: Option<String>,
    /// How many nodes it has lost.
    left: usize,
    /// Messages without an answer.
    pending: usize,
    /// Messages that were answered.
    answered: usize,
}

impl Roamer {
    /// Enters the room at one of these nodes and begins.
    pub(crate) async fn start(
        recorder: &Recorder,
        nodes: &[impl Borrow<Node>],
        name: &str,
        habits: Habits,
    ) -> Result<Self> {
        let known = each(nodes)
            .into_iter()
            .map(|node| node.http.clone())
            .collect();
        Self::start_at(recorder, Ways::Nodes(known), name, habits).await
    }

    /// Like [`Roamer::start`], with HTTP endpoints.
    pub(crate) async fn start_at(
        recorder: &Recorder,
        ways: Ways,
        name: &str,
        habits: Habits,
    ) -> Result<Self> {
        let (talks, hears) = watch::channel(!matches!(habits.pace, Pace::Silent));
        let (told, state) = watch::channel(State::default());
        let moves = Arc::default();
        let (shoves, shoved) = watch::channel(0);
        let walk = Walk {
            name: name.to_owned(),
            recorder: recorder.clone(),
            habits,
            ways,
            queue: VecDeque::new(),
            current: String::new(),
            attempt: 0,
            position: None,
            shown: Shown::default(),
            pending: BTreeMap::new(),
            next: 0,
            talks: hears,
            told,
            moves: Arc::clone(&moves),
            shoved,
        };
        let mut roamer = Self {
            name: name.to_owned(),
            talks,
            state,
            moves,
            shoves,
            task: spawn(walk.run()),
        };
        roamer
            .until("enters", PATIENCE, |state| state.at.is_some())
            .await?;
        Ok(roamer)
    }

    /// The origin of the node at which it is in the room now.
    pub(crate) fn at(&self) -> Option<String> {
        self.state.borrow().at.clone()
    }

    /// How many messages of its were answered.
    pub(crate) fn answered(&self) -> usize {
        self.state.borrow().answered
    }

    /// Makes it leave its node, as if its network had, and go on at another. When this returns, it
    /// has left; who is between two nodes is not disturbed.
    pub(crate) async fn shove(&self) {
        let mut state = self.state.clone();
        let left = state.borrow().left;
        self.shoves.send_modify(|count| *count += 1);
        let has_left = |state: &State| state.at.is_none() || state.left > left;
        // If its task has ended by an error, whoever waits for it next is told.
        let _ended = state.wait_for(has_left).await;
    }

    /// All its losses so far.
    pub(crate) fn moves(&self) -> Vec<Move> {
        let moves = self.moves.lock();
        moves.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until it is in the room at another node than this.
    pub(crate) async fn is_away_from(&mut self, origin: &str, within: Duration) -> Result<()> {
        let elsewhere = |state: &State| state.at.as_ref().is_some_and(|at| at != origin);
        self.until("goes on elsewhere", within, elsewhere).await
    }

    /// Waits until so many messages of its were answered in all.
    pub(crate) async fn has_said(&mut self, count: usize, within: Duration) -> Result<()> {
        let what = format!("has {count} answers");
        self.until(&what, within, |state| state.answered >= count)
            .await
    }

    /// Says nothing new, and waits until all that it said was answered. It reads on.
    pub(crate) async fn hush(&mut self, within: Duration) -> Result<()> {
        self.talks.send_replace(false);
        self.until("is answered", within, |state| {
            state.pending == 0 && state.at.is_some()
        })
        .await
    }

    /// All of them fall silent and come to rest: each is answered and then shown a mark, said in
    /// their room at this HTTP endpoint, on a connection that stands. When no fault comes after
    /// this, whoever judges them finds them there. A person that seems to be at a node may have
    /// lost it and not have noticed yet: the mark is what knows.
    pub(crate) async fn rest(
        people: &mut [Self],
        recorder: &Recorder,
        http: &str,
        room: &str,
        within: Duration,
    ) -> Result<()> {
        for person in people.iter_mut() {
            person.hush(within).await?;
        }
        let mark = recorder.client_at(http, "mark").await?;
        let mark = mark.send(room, "All fell silent.").await?;
        let until = Instant::now() + within;
        for person in people {
            while !recorder.reads(&person.name, &mark.id) {
                ensure!(
                    Instant::now() < until,
                    "{} was not shown the mark",
                    person.name
                );
                sleep(Duration::from_millis(10)).await;
            }
        }
        Ok(())
    }

    async fn until(
        &mut self,
        what: &str,
        within: Duration,
        mut holds: impl FnMut(&State) -> bool,
    ) -> Result<()> {
        let waiting = timeout(within, self.state.wait_for(|state| holds(state)));
        match waiting.await.map(|seen| seen.is_ok()) {
            Ok(true) => return Ok(()),
            // Its task has ended, which it never does but by an error.
            Ok(false) => (&mut self.task).await??,
            Err(_) => {}
        }
        let state = self.state.borrow().clone();
        bail!("after {within:?} {} still not {what}: {state:?}", self.name)
    }
}

impl Drop for Roamer {
    fn drop(&mut self) {
        self.task.abort();
    }
}
