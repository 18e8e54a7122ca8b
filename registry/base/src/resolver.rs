//! Looking names up, for all that a program asks for by name: bounded, shared, and apart.
//!
//! The system's lookup holds a thread for as long as the name server likes, half a minute if that
//! does not answer. So lookups have threads of their own, and not those that read files; one name
//! is looked up once, whoever asks; answers are kept for a moment; and nobody waits for longer than
//! it takes to be of use. Names that made trouble get a part of the threads only, so that they do
//! not stand in the way of the others.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

/// Lookups at once at the most; others wait for their turn.
pub const LOOKUPS_MAX: usize = 32;
/// Of these, those of names that failed or took long when they were looked up last.
const LOOKUPS_TROUBLED_MAX: usize = 16;
/// Names that are known or wait at the most. Beyond, those that nobody waits for are forgotten, and
/// if that is not enough new ones are refused.
pub const NAMES_MAX: usize = 4096;
/// Who asks waits so long at the most. The lookup goes on, for who asks next.
pub const LOOKUP_WAIT_MAX: Duration = Duration::from_millis(1500);
/// An answer is not asked for again for so long,
const KEPT: Duration = Duration::from_secs(10);
/// and a failure for so long.
const FAILURE_KEPT: Duration = Duration::from_secs(2);
/// While a name cannot be looked up, its last addresses are good for so long.
const OLD_KEPT: Duration = Duration::from_secs(15 * 60);
/// Memory for the stack of a thread that looks up; the system's lookup takes much of it.
const STACK_BYTES: usize = 512 << 10;

/// Why there is no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LookupError {
    /// The system says so.
    #[error("the name {0} cannot be looked up: {1}")]
    Failed(String, String),
    /// It is not known yet: the lookup goes on.
    #[error("looking up the name {0} takes too long")]
    Slow(String),
    /// As many names are looked up as may.
    #[error("too many names are looked up: {0} is not")]
    Full(String),
}

/// Whether a request failed because nobody knows yet where its host is: that tells nothing about
/// the host.
pub fn is_undecided(error: &reqwest::Error) -> bool {
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<LookupError>() {
            return !matches!(error, LookupError::Failed(..));
        }
        cause = error.source();
    }
    false
}

type Lookup = dyn Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync;
type Answer = Result<Arc<[IpAddr]>, LookupError>;

/// Looks names up. Clones are the same one.
#[derive(Clone)]
pub struct Resolver(Arc<Inner>);

struct Inner {
    lookup: Box<Lookup>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    names: HashMap<Arc<str>, Known>,
    /// What waits for a thread: those that gave an answer before come first,
    waiting: VecDeque<Arc<str>>,
    /// and those that made trouble have their own queue.
    troubled: VecDeque<Arc<str>>,
    threads: usize,
    troubled_under_way: usize,
}

/// What is known of a name.
struct Known {
    /// What came last, and when.
    last: Option<(Instant, Answer)>,
    /// The last addresses, and when they were told.
    good: Option<(Instant, Arc<[IpAddr]>)>,
    /// Somebody looks it up, or it waits for that.
    asked: bool,
    /// It failed or took long the last time.
    troubled: bool,
    /// Rings when there is an answer.
    told: watch::Sender<()>,
}

impl Known {
    fn new() -> Self {
        Self {
            last: None,
            good: None,
            asked: false,
            troubled: false,
            told: watch::Sender::new(()),
        }
    }

    /// An answer that is young enough.
    fn fresh(&self, now: Instant, kept: Duration, failure_kept: Duration) -> Option<Answer> {
        let (at, answer) = self.last.as_ref()?;
        let kept = if answer.is_ok() { kept } else { failure_kept };
        (now.saturating_duration_since(*at) < kept).then(|| answer.clone())
    }

    /// Addresses that are old, and better than none.
    fn old(&self, now: Instant) -> Option<Arc<[IpAddr]>> {
        let (at, addrs) = self.good.as_ref()?;
        (now.saturating_duration_since(*at) < OLD_KEPT).then(|| Arc::clone(addrs))
    }
}

/// The one of this process: threads are the process's.
static SYSTEM: LazyLock<Resolver> = LazyLock::new(|| {
    Resolver::new(|host| {
        let addrs = (host, 0).to_socket_addrs()?;
        Ok(addrs.map(|addr| addr.ip()).collect())
    })
});

impl Resolver {
    /// The system's lookup, one for all of the process.
    pub fn system() -> Self {
        SYSTEM.clone()
    }

    fn new(lookup: impl Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync + 'static) -> Self {
        Self(Arc::new(Inner {
            lookup: Box::new(lookup),
            state: Mutex::default(),
        }))
    }

    /// The addresses of a host, at least one, in the order in which to try them. What is an address
    /// already is not looked up. Cancel safe.
    ///
    /// # Errors
    /// Nobody knows it, or not in time; see [`LookupError`].
    pub async fn addresses(&self, host: &str) -> Result<Arc<[IpAddr]>, LookupError> {
        if let Ok(ip) = host.trim_matches(['[', ']']).parse::<IpAddr>() {
            return Ok([ip].into());
        }
        let answer = self.look_up(host, KEPT, FAILURE_KEPT).await;
        let state = self.state();
        match state
            .names
            .get(host)
            .and_then(|known| known.old(Instant::now()))
        {
            Some(old) if answer.is_err() => Ok(old),
            _ => answer,
        }
    }

    /// The same, as it is now: what was told longer ago than `age` is looked up again, and addresses that
    /// were good once are no answer. For who follows what changes. Cancel safe.
    ///
    /// # Errors
    /// Nobody knows it, or not in time; see [`LookupError`].
    pub async fn lately(&self, host: &str, age: Duration) -> Result<Arc<[IpAddr]>, LookupError> {
        if let Ok(ip) = host.trim_matches(['[', ']']).parse::<IpAddr>() {
            return Ok([ip].into());
        }
        self.look_up(host, age, age).await
    }

    /// What was told not longer ago than this, a failure than that; else has the name looked up, and waits.
    async fn look_up(&self, host: &str, kept: Duration, failure_kept: Duration) -> Answer {
        let mut told = match self.ask(host, kept, failure_kept) {
            Asked::Known(answer) => return answer,
            Asked::UnderWay(told) => told,
        };
        // The sender lives as long as the name is asked for.
        let answered = timeout(LOOKUP_WAIT_MAX, told.changed()).await;
        let state = self.state();
        let answer = match (answered, state.names.get(host)) {
            (Ok(_), Some(known)) => known.last.as_ref().map(|(_, answer)| answer.clone()),
            _ => None,
        };
        answer.unwrap_or_else(|| Err(LookupError::Slow(host.to_owned())))
    }

    /// Gives what is known, or has the name looked up.
    fn ask(&self, host: &str, kept: Duration, failure_kept: Duration) -> Asked {
        let now = Instant::now();
        let mut state = self.state();
        if !state.names.contains_key(host) && state.names.len() >= NAMES_MAX {
            state.names.retain(|_, known| known.asked);
            if state.names.len() >= NAMES_MAX {
                return Asked::Known(Err(LookupError::Full(host.to_owned())));
            }
        }
        let host: Arc<str> = host.into();
        let entry = state.names.entry(Arc::clone(&host));
        let known = entry.or_insert_with(Known::new);
        if let Some(answer) = known.fresh(now, kept, failure_kept) {
            return Asked::Known(answer);
        }
        let told = known.told.subscribe();
        if known.asked {
            return Asked::UnderWay(told);
        }
        known.asked = true;
        let (troubled, good) = (known.troubled, known.good.is_some());
        if troubled {
            state.troubled.push_back(host);
        } else if good {
            state.waiting.push_front(host);
        } else {
            state.waiting.push_back(host);
        }
        let is_let = !troubled || state.troubled_under_way < LOOKUPS_TROUBLED_MAX;
        if is_let && state.threads < LOOKUPS_MAX {
            state.threads += 1;
            drop(state);
            self.start_thread();
        }
        Asked::UnderWay(told)
    }

    fn start_thread(&self) {
        let this = self.clone();
        let thread = std::thread::Builder::new().name("lookup".into());
        let started = thread.stack_size(STACK_BYTES).spawn(move || this.work());
        if let Err(why) = started {
            tracing::warn!("no thread to look up names can be started: {why}");
            let mut state = self.state();
            state.threads -= 1;
            if state.threads == 0 {
                // Nobody else will take them.
                let State {
                    names,
                    waiting,
                    troubled,
                    ..
                } = &mut *state;
                for host in waiting.drain(..).chain(troubled.drain(..)) {
                    names.remove(&host);
                }
            }
        }
    }

    /// A thread's work, until nothing waits.
    fn work(&self) {
        while let Some((host, troubled)) = self.next() {
            let begun = Instant::now();
            let found = (self.0.lookup)(&host);
            let took = begun.elapsed();
            let failed = |why: &str| LookupError::Failed(host.to_string(), why.to_owned());
            let answer = match found {
                Ok(addrs) if addrs.is_empty() => Err(failed("it has no address")),
                Ok(addrs) => Ok(addrs.into()),
                Err(why) => Err(failed(&why.to_string())),
            };
            self.answer(&host, answer, took, troubled);
        }
    }

    fn next(&self) -> Option<(Arc<str>, bool)> {
        let mut state = self.state();
        if let Some(host) = state.waiting.pop_front() {
            return Some((host, false));
        }
        if state.troubled_under_way < LOOKUPS_TROUBLED_MAX
            && let Some(host) = state.troubled.pop_front()
        {
            state.troubled_under_way += 1;
            return Some((host, true));
        }
        state.threads -= 1;
        None
    }

    /// Notes what a lookup brought, which `took` so long by itself, and whether it was one of the `troubled`.
    fn answer(&self, host: &str, answer: Answer, took: Duration, troubled: bool) {
        let now = Instant::now();
        let mut state = self.state();
        if troubled {
            state.troubled_under_way -= 1;
        }
        let Some(known) = state.names.get_mut(host) else {
            return;
        };
        known.asked = false;
        known.troubled = answer.is_err() || took > LOOKUP_WAIT_MAX;
        if let Ok(addrs) = &answer {
            known.good = Some((now, Arc::clone(addrs)));
        }
        known.last = Some((now, answer));
        known.told.send_replace(());
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What came of asking.
enum Asked {
    Known(Answer),
    UnderWay(watch::Receiver<()>),
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state();
        f.debug_struct("Resolver")
            .field("names", &state.names.len())
            .field("threads", &state.threads)
            .finish_non_exhaustive()
    }
}

/// For HTTP clients.
impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let this = self.clone();
        Box::pin(async move {
            let addrs = this.addresses(name.as_str()).await?;
            let addrs: Vec<SocketAddr> = addrs.iter().map(|ip| (*ip, 0).into()).collect();
            Ok(Box::new(addrs.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests;
