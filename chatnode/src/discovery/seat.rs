//! The place of one source on the board: what it lists, whether this node is known there, what is wrong.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand::RngExt as _;
use tokio::time::Instant;

use super::web::Trouble;
use super::{Board, Listed, Origin, Seen, State};

/// How often a trouble is logged while it lasts.
const SAY_EVERY: Duration = Duration::from_secs(30);
/// After a failure a source is asked again after this, doubling,
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
/// up to this, less up to a quarter of it.
const BACKOFF_MAX: Duration = Duration::from_secs(2);

/// The pause after so many failures in a row.
pub(super) fn backoff(failures: u32) -> Duration {
    let doubled = BACKOFF_FIRST.saturating_mul(1 << failures.saturating_sub(1).min(10));
    doubled
        .min(BACKOFF_MAX)
        .mul_f64(rand::rng().random_range(0.75..=1.0))
}

/// The place of one source.
#[derive(Debug)]
pub(super) struct Seat {
    board: Arc<Board>,
    index: usize,
    notes: Mutex<Notes>,
}

/// What is known of it.
#[derive(Debug, Default)]
struct Notes {
    /// Whether it has listed anything, ever.
    has_listed: bool,
    /// Why it does not list now.
    unlisted: Option<Trouble>,
    /// Why this node is not known there.
    untold: Option<Trouble>,
    /// What is odd about what it lists, though it answers.
    remark: String,
    has_other_secret: bool,
    members: BTreeMap<Origin, Listed>,
    /// What the log was told last, when, and in which state.
    said: Option<(Instant, String, State)>,
    was_up: bool,
}

impl Seat {
    pub(super) fn new(board: Arc<Board>, index: usize) -> Self {
        Self {
            board,
            index,
            notes: Mutex::default(),
        }
    }

    /// The source's name in logs.
    pub(super) fn url(&self) -> &str {
        &self.board.entries[self.index].url
    }

    /// It answers, and lists these.
    pub(super) fn lists(&self, members: BTreeMap<Origin, Listed>) {
        self.sees(members, Ok(()));
    }

    /// These are there, and it lists them now, or why it does not.
    pub(super) fn sees(&self, members: BTreeMap<Origin, Listed>, outcome: Result<(), Trouble>) {
        let mut notes = self.notes();
        notes.members = members;
        notes.has_listed |= outcome.is_ok();
        notes.unlisted = outcome.err();
        self.tell(&mut notes);
    }

    /// It lists nothing now; what it last listed stays.
    pub(super) fn cannot_list(&self, why: Trouble) {
        let mut notes = self.notes();
        notes.unlisted = Some(why);
        self.tell(&mut notes);
    }

    /// This node is known there, or why not.
    pub(super) fn told(&self, outcome: Result<(), Trouble>) {
        let mut notes = self.notes();
        notes.untold = outcome.err();
        self.tell(&mut notes);
    }

    /// What is odd about what it lists; empty if nothing is. Told with the next list.
    pub(super) fn remark(&self, text: String, has_other_secret: bool) {
        let mut notes = self.notes();
        notes.remark = text;
        notes.has_other_secret = has_other_secret;
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, notes: &mut Notes) {
        let away = |trouble: &Option<Trouble>| matches!(trouble, Some(Trouble::Away(_)));
        let is_down = notes.unlisted.is_some() || away(&notes.untold);
        let state = match (is_down, notes.has_listed) {
            (true, _) => State::Down,
            (false, true) => State::Up,
            (false, false) => State::Unknown,
        };
        let error = match (&notes.unlisted, &notes.untold) {
            (Some(why), _) => why.to_string(),
            (None, Some(why)) => format!("this node is not known there: {why}"),
            (None, None) => notes.remark.clone(),
        };
        self.log(notes, state, &error);
        let seen = Seen {
            state,
            error,
            has_other_secret: notes.has_other_secret && !is_down,
            members: notes.members.clone(),
        };
        self.board.tell(self.index, seen);
    }

    /// Tells people when it begins to answer, and what is wrong: when that changes, and now and then.
    fn log(&self, notes: &mut Notes, state: State, error: &str) {
        let (source, now) = (self.url(), Instant::now());
        let is_up = state == State::Up;
        if is_up && !notes.was_up {
            let count = notes.members.len();
            tracing::info!(source, count, "the source answers");
        }
        notes.was_up = is_up;
        if error.is_empty() {
            notes.said = None;
            return;
        }
        let is_known = |(at, text, then): &(Instant, String, State)| {
            // While it is away the reason may change with each try.
            let is_same = text == error || state == State::Down && *then == state;
            now - *at < SAY_EVERY && is_same
        };
        if notes.said.as_ref().is_some_and(is_known) {
            return;
        }
        notes.said = Some((now, error.to_owned(), state));
        match (state, notes.has_listed) {
            (State::Down, true) => {
                tracing::warn!(source, "going on with what it last listed: {error}")
            }
            (State::Down, false) => {
                tracing::warn!(source, "not there yet, joining when it appears: {error}");
            }
            _ => tracing::warn!(source, "{error}"),
        }
    }
}
