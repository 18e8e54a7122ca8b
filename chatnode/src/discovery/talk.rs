//! The talk with one registry: renewals, and the watch on its list.
//!
//! Two requests are under way at the most: a registration, and a list, which is a long poll as a
//! rule. Each has its own schedule; what one learns moves the other's. That the registry started
//! anew shows in either, and makes both happen at once.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use registry::api::{Listing, Node, Registered, Registration, check_endpoint};
use registry::client::Listed as Answer;
use tokio::time::Instant;

use super::{
    Board, CancellationToken, Client, ClientError, LEAVE_MAX, MeshName, Origin, Seen, State, peers,
};

/// How long a long poll asks to wait: proxies end requests at half a minute and more.
const WAIT: Duration = Duration::from_secs(25);
/// Long polls cut in a row after which lists are asked for plainly,
const CUTS_MAX: u32 = 3;
/// this often,
const PLAIN_EVERY: Duration = Duration::from_secs(1);
/// for this long, until a long poll is tried again.
const PLAIN_FOR: Duration = Duration::from_secs(60);
/// Lists are asked for no more often than this, whatever the registry answers.
const LIST_EVERY_MIN: Duration = Duration::from_millis(50);
/// After a failure a request is tried again after this, doubling,
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
/// up to this, less up to a quarter of it.
pub(crate) const BACKOFF_MAX: Duration = Duration::from_secs(2);
/// Bounds of the renewal interval that a registry may ask for.
const RENEW: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_secs(20);
/// The renewal interval as long as a registry has not named one.
pub(crate) const RENEW_DEFAULT: Duration = Duration::from_secs(2);
/// A list without this node makes it register again, but no sooner than this after the last time:
/// two nodes that claim one endpoint would throw each other out without end.
const REGISTER_AGAIN_MIN: Duration = Duration::from_millis(500);
/// How often an absence is logged while it lasts.
const SAY_EVERY: Duration = Duration::from_secs(30);

type Pending<T> = Option<Pin<Box<dyn Future<Output = Result<T, ClientError>> + Send>>>;

/// The state of one talk.
pub(super) struct Talk {
    client: Client,
    me: Origin,
    mesh: MeshName,
    said: Registration,
    board: Arc<Board>,
    index: usize,
    seen: Seen,
    has_listed: bool,
    said_down: Option<Instant>,

    put: Pending<Registered>,
    put_at: Instant,
    put_sent: Instant,
    put_failures: u32,
    registered: Option<Registered>,
    refusal: Option<String>,
    /// A newer node that is listed with an endpoint of this one. While it is, this node stays away: the
    /// registry would put each in the other's place without end.
    rival: Option<Origin>,

    list: Pending<Answer>,
    list_at: Instant,
    list_sent: Instant,
    list_failures: u32,
    list_is_long: bool,
    known: Option<Known>,
    cuts: u32,
    probe: bool,
    long_again: Instant,
}

/// The list last seen.
struct Known {
    epoch: String,
    token: String,
}

impl Talk {
    pub(super) fn new(
        client: Client,
        me: Origin,
        mesh: MeshName,
        said: Registration,
        board: Arc<Board>,
        index: usize,
    ) -> Self {
        let now = Instant::now();
        Self {
            client,
            me,
            mesh,
            said,
            board,
            index,
            seen: Seen::default(),
            has_listed: false,
            said_down: None,
            put: None,
            put_at: now,
            put_sent: now,
            put_failures: 0,
            registered: None,
            refusal: None,
            rival: None,
            list: None,
            list_at: now,
            list_sent: now,
            list_failures: 0,
            list_is_long: false,
            known: None,
            cuts: 0,
            probe: false,
            long_again: now,
        }
    }

    /// Talks until it is time to leave, then leaves.
    pub(super) async fn run(mut self, leaving: CancellationToken) {
        loop {
            // Cancel safe: a request that is not done stays where it is.
            tokio::select! {
                biased;
                () = leaving.cancelled() => break,
                outcome = done(&mut self.put) => self.put_done(outcome),
                outcome = done(&mut self.list) => self.list_done(outcome),
                () = tokio::time::sleep_until(self.put_at), if self.put.is_none() && self.rival.is_none() => self.send_put(),
                () = tokio::time::sleep_until(self.list_at), if self.list.is_none() => self.send_list(),
            }
        }
        let leave = async {
            // A registration that is under way must not overtake the leave.
            if self.put.is_some() {
                let _ = done(&mut self.put).await;
            }
            self.client.delete(self.me.as_str()).await
        };
        match tokio::time::timeout(LEAVE_MAX, leave).await {
            Ok(Ok(())) => tracing::debug!(registry = self.client.url(), "left"),
            Ok(Err(error)) => {
                tracing::debug!(registry = self.client.url(), "cannot leave: {error}")
            }
            Err(_) => tracing::debug!(registry = self.client.url(), "cannot leave in time"),
        }
    }

    fn send_put(&mut self) {
        let (client, me, said) = (self.client.clone(), self.me, self.said.clone());
        self.put_sent = Instant::now();
        self.put = Some(Box::pin(
            async move { client.put(me.as_str(), &said).await },
        ));
    }

    fn put_done(&mut self, outcome: Result<Registered, ClientError>) {
        let now = Instant::now();
        match outcome {
            Ok(registered) => {
                let renew = Duration::from_millis(registered.renew_ms);
                let renew = if renew.is_zero() {
                    RENEW_DEFAULT
                } else {
                    renew
                };
                self.put_at = self.put_sent + renew.clamp(*RENEW.start(), *RENEW.end());
                // A poll that is parked at a former start of the registry, or behind the fault that
                // just ended, may never come back.
                let known = self.known.as_ref();
                let is_new = known.is_some_and(|known| known.epoch != registered.epoch);
                if is_new || self.put_failures > 0 {
                    self.list = None;
                    self.list_at = now;
                }
                if self.refusal.take().is_some() || self.registered.is_none() {
                    tracing::info!(registry = self.client.url(), "registered");
                    self.seen.error.clear();
                    self.tell();
                }
                self.put_failures = 0;
                self.registered = Some(registered);
                if self.has_listed {
                    self.up();
                }
            }
            Err(error) => {
                self.put_failures += 1;
                self.put_at = now + backoff(self.put_failures).max(retry_after(&error));
                if let ClientError::Refused { problem, .. } = &error {
                    let said = Some(problem.code.clone());
                    if self.refusal != said {
                        tracing::warn!(registry = self.client.url(), "not registered: {error}");
                        self.seen.error = format!("not registered: {error}");
                        self.refusal = said;
                        self.tell();
                    }
                } else {
                    self.down(&error);
                }
            }
        }
    }

    fn send_list(&mut self) {
        let now = Instant::now();
        let since = self.known.as_ref().map(|known| known.token.clone());
        let may_be_long = self.cuts < CUTS_MAX || now >= self.long_again;
        self.list_is_long = since.is_some() && may_be_long && !self.probe;
        self.probe = false;
        self.list_sent = now;
        let wait = self.list_is_long.then_some(WAIT);
        let client = self.client.clone();
        self.list = Some(Box::pin(async move {
            client.list(since.as_deref(), wait).await
        }));
    }

    fn list_done(&mut self, outcome: Result<Answer, ClientError>) {
        let now = Instant::now();
        let took = now - self.list_sent;
        match outcome {
            Ok(Answer::Changed(listing)) => {
                self.list_failures = 0;
                let known = self.known.replace(Known {
                    epoch: listing.epoch.clone(),
                    token: listing.token.clone(),
                });
                let was_parked = known
                    .as_ref()
                    .is_some_and(|known| known.epoch == listing.epoch);
                if self.list_is_long && was_parked {
                    self.cuts = 0;
                }
                // A registry that repeats itself does not understand `since`.
                let is_repeated = known.is_some_and(|known| known.token == listing.token);
                let pause = if is_repeated {
                    PLAIN_EVERY
                } else {
                    LIST_EVERY_MIN
                };
                self.list_at = self.list_sent + self.pause().max(pause);
                if !self.gives_way(&listing) {
                    self.register_again(&listing);
                }
                self.seen.members = peers(&listing.nodes, self.me, &self.mesh);
                self.has_listed = true;
                self.up();
                self.tell();
            }
            Ok(Answer::Unchanged) => {
                self.list_failures = 0;
                self.list_at = self.list_sent + self.pause();
                // Less than half of the wait: someone in between, or a registry that is stopping.
                if self.list_is_long && took < WAIT / 2 {
                    self.cut();
                } else if self.list_is_long {
                    self.cuts = 0;
                }
                if self.has_listed {
                    self.up();
                }
            }
            Err(error) if self.list_is_long && is_cut(&error) => {
                tracing::debug!(
                    registry = self.client.url(),
                    ?took,
                    "long poll cut: {error}"
                );
                self.cut();
            }
            Err(error) => {
                self.list_failures += 1;
                self.list_at = now + backoff(self.list_failures).max(retry_after(&error));
                self.down(&error);
            }
        }
    }

    /// How far lists are apart in the present mode.
    fn pause(&self) -> Duration {
        if self.cuts < CUTS_MAX {
            LIST_EVERY_MIN
        } else {
            PLAIN_EVERY
        }
    }

    /// A long poll did not run its time. A plain request then shows whether the registry is there.
    fn cut(&mut self) {
        let now = Instant::now();
        self.cuts += 1;
        self.probe = true;
        self.list_at = now + backoff(1);
        if self.cuts >= CUTS_MAX {
            if self.cuts == CUTS_MAX {
                tracing::info!(
                    registry = self.client.url(),
                    "long polls are cut on the way; asking each second instead"
                );
            }
            self.long_again = now + PLAIN_FOR;
        }
    }

    /// Whether another node is listed in this one's place, with an endpoint of it. Says so once, with
    /// both ids.
    fn gives_way(&mut self, listing: &Listing) -> bool {
        let (me, said) = (self.me, &self.said);
        let is_me = |node: &Node| node.id == me.as_str();
        let registered = self.registered.as_ref();
        let is_old = registered
            .is_none_or(|mine| mine.epoch != listing.epoch || listing.version < mine.version);
        if self.rival.is_none() && (is_old || self.put.is_some()) {
            return false;
        }
        let shared = |node: &Node| {
            let same = |(name, mine): (&String, &String)| {
                let theirs = check_endpoint(name, node.endpoints.get(name)?).ok()?;
                (check_endpoint(name, mine).ok()? == theirs).then(|| mine.clone())
            };
            let endpoint = said.endpoints.iter().find_map(same)?;
            Some((node.id.parse::<Origin>().ok()?, endpoint))
        };
        let absent = !listing.nodes.iter().any(is_me);
        let rival = listing.nodes.iter().filter(|_| absent).find_map(shared);
        let Some((rival, endpoint)) = rival else {
            if self.rival.take().is_some() {
                self.seen.error.clear();
                self.put_at = Instant::now();
            }
            return false;
        };
        if self.rival.replace(rival) != Some(rival) {
            let error = format!(
                "{rival} and this node, {me}, both tell {endpoint}: the newer one is listed, and this \
                 one stays out of the list as long; each needs a port of its own, or an address of \
                 its own by --advertise"
            );
            tracing::error!(registry = self.client.url(), %rival, endpoint, "{error}");
            self.seen.error = error;
        }
        true
    }

    /// Brings the next registration forward if the registry does not know this node.
    fn register_again(&mut self, listing: &Listing) {
        let Some(registered) = &self.registered else {
            return;
        };
        let is_new = registered.epoch != listing.epoch;
        let is_absent = listing.version >= registered.version
            && listing.nodes.iter().all(|node| node.id != self.me.as_str());
        let pause = if is_new {
            BACKOFF_FIRST
        } else if is_absent {
            REGISTER_AGAIN_MIN
        } else {
            return;
        };
        if is_absent && !is_new && self.put.is_none() {
            tracing::warn!(
                registry = self.client.url(),
                "this node was dropped; registering again"
            );
        }
        let at = (self.put_sent + pause).max(Instant::now());
        self.put_at = self.put_at.min(at);
        // Whatever is still on its way to the former start is lost.
        if is_new && at <= Instant::now() {
            self.put = None;
        }
    }

    fn up(&mut self) {
        if self.seen.state != State::Up {
            tracing::info!(
                registry = self.client.url(),
                count = self.seen.members.len(),
                "the registry answers"
            );
            self.seen.state = State::Up;
            self.seen.has_other_secret = false;
            if self.rival.is_none() {
                self.seen.error.clear();
            }
            self.said_down = None;
            self.tell();
        }
    }

    fn down(&mut self, error: &ClientError) {
        let now = Instant::now();
        if self.said_down.is_none_or(|said| now - said >= SAY_EVERY) {
            self.said_down = Some(now);
            let url = self.client.url();
            if self.has_listed {
                tracing::warn!(registry = url, "going on with what it last listed: {error}");
            } else {
                tracing::warn!(
                    registry = url,
                    "not there yet, joining when it appears: {error}"
                );
            }
        }
        // It may be down for another reason than before.
        let text = error.to_string();
        if self.seen.state != State::Down || self.seen.error != text {
            self.seen.state = State::Down;
            self.seen.error = text;
            self.seen.has_other_secret = error.is_of_secret();
            self.tell();
        }
    }

    fn tell(&self) {
        self.board.tell(self.index, self.seen.clone());
    }
}

/// The outcome of a request; never, if there is none. Cancel safe.
async fn done<T>(pending: &mut Pending<T>) -> Result<T, ClientError> {
    let Some(request) = pending else {
        return std::future::pending().await;
    };
    let outcome = request.await;
    *pending = None;
    outcome
}

/// Errors with which something between here and the registry ends a request that takes long, and
/// the registry's own that it holds no more of them.
fn is_cut(error: &ClientError) -> bool {
    match error {
        ClientError::Interrupted(_) => true,
        ClientError::Refused { problem, .. } => matches!(problem.status, 408 | 429 | 502..=504),
        ClientError::Url { .. }
        | ClientError::Id(_)
        | ClientError::NotOurs(_)
        | ClientError::Unreachable(_)
        | ClientError::Nonsense(_) => false,
    }
}

fn retry_after(error: &ClientError) -> Duration {
    match error {
        ClientError::Refused { retry_after, .. } => {
            retry_after.unwrap_or_default().min(RENEW_DEFAULT)
        }
        _ => Duration::ZERO,
    }
}

fn backoff(failures: u32) -> Duration {
    let doubled = BACKOFF_FIRST.saturating_mul(1 << failures.saturating_sub(1).min(10));
    doubled
        .min(BACKOFF_MAX)
        .mul_f64(rand::random_range(0.75..=1.0))
}
