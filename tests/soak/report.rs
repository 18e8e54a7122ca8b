//! What is told meanwhile and at the end.

use std::cell::RefCell;
use std::collections::BTreeMap;

use tokio::time::{Duration, Instant, timeout};

use crate::deck::Kind;
use crate::fleet::Fleet;
use crate::harness::judge::Kind as Broken;
use crate::harness::load::spread;
use crate::harness::metrics::Metrics;
use crate::harness::recorder::Checked;
use crate::harness::roamer::Move;
use crate::harness::{say, secs};
use crate::slopes::{Life, Line, Sample};

/// A node that does not tell its counters by then is not asked any longer for this sample.
const TOLD_WITHIN: Duration = secs(1);

/// Ways to break a promise, as the table has them.
const PROMISES: [Broken; 8] = [
    Broken::Lost,
    Broken::Doubled,
    Broken::Misordered,
    Broken::Phantom,
    Broken::Altered,
    Broken::Unrecovered,
    Broken::Diverged,
    Broken::Untruthful,
];

/// All figures of a run.
#[derive(Debug)]
pub(crate) struct Report {
    begun: Instant,
    sums: RefCell<Sums>,
}

#[derive(Debug, Default)]
struct Sums {
    rounds: usize,
    messages: usize,
    acknowledged: usize,
    copied: usize,
    retries: usize,
    excused: usize,
    vanished: usize,
    shown: usize,
    too_far: usize,
    moves: usize,
    broken: BTreeMap<Broken, usize>,
    faults: BTreeMap<Kind, usize>,
    mended: BTreeMap<Kind, Vec<Duration>>,
    sent_away: Vec<Duration>,
    lost_nodes: Vec<Duration>,
    converged: Vec<Duration>,
    replies: Vec<Duration>,
    texts: Vec<String>,
    /// Of each place the life that is watched, and the longest before it.
    lives: Vec<(Life, Life)>,
}

impl Report {
    /// Nothing yet, of so many nodes.
    pub(crate) fn new(nodes: usize) -> Self {
        let sums = Sums {
            lives: vec![Default::default(); nodes],
            ..Sums::default()
        };
        Self {
            begun: Instant::now(),
            sums: RefCell::new(sums),
        }
    }

    /// Rounds that were checked.
    pub(crate) fn rounds(&self) -> usize {
        self.sums.borrow().rounds
    }

    /// Whether no promise was broken.
    pub(crate) fn is_good(&self) -> bool {
        self.sums.borrow().texts.is_empty()
    }

    /// A promise was broken that no check of a round tells.
    pub(crate) fn broken(&self, text: String) {
        self.sums.borrow_mut().texts.push(text);
    }

    /// A fault begins.
    pub(crate) fn begins(&self, kind: Kind) {
        *self.sums.borrow_mut().faults.entry(kind).or_default() += 1;
    }

    /// How many faults of a kind there were.
    pub(crate) fn count(&self, kind: Kind) -> usize {
        let count = self.sums.borrow().faults.get(&kind).copied();
        count.unwrap_or_default()
    }

    /// Nothing is left of a fault.
    pub(crate) fn mended(&self, kind: Kind, took: Duration) {
        let mut sums = self.sums.borrow_mut();
        sums.mended.entry(kind).or_default().push(took);
    }

    /// What a person went through in a round.
    pub(crate) fn moved(&self, moves: &[Move]) {
        let mut sums = self.sums.borrow_mut();
        for moved in moves {
            let took = moved.back_at - moved.lost_at;
            if moved.named.is_empty() {
                sums.lost_nodes.push(took);
            } else {
                sums.sent_away.push(took);
            }
        }
    }

    /// A round was checked.
    pub(crate) fn checked(&self, checked: &Checked, replies: impl IntoIterator<Item = Duration>) {
        let verdict = &checked.verdict;
        let mut sums = self.sums.borrow_mut();
        say!("round {}: {checked}", sums.rounds);
        sums.rounds += 1;
        sums.messages += verdict.messages;
        sums.acknowledged += verdict.acknowledged;
        sums.copied += verdict.copied;
        sums.retries += verdict.retries;
        sums.excused += verdict.excused;
        sums.vanished += verdict.vanished;
        sums.shown += verdict.shown;
        sums.too_far += verdict.too_far;
        sums.moves += verdict.moves;
        for kind in PROMISES {
            *sums.broken.entry(kind).or_default() += verdict.count(kind);
        }
        sums.converged.push(checked.converged);
        sums.replies.extend(replies);
        sums.texts.extend(verdict.faults.iter().cloned());
    }

    /// One line of how it goes.
    pub(crate) fn tell(&self, answered: usize, fleet: &Fleet) {
        let sums = self.sums.borrow();
        let faults: usize = sums.faults.values().sum();
        let broken = |kind| sums.broken.get(&kind).copied().unwrap_or_default();
        let memory = fleet.usages().into_iter().map(|(.., usage)| usage.rss);
        say!(
            "{:>5} s, round {}: {} messages, {faults} faults, {} of {} nodes run, lost {}, doubled \
             {}, out of order {}, at most {} MiB a node",
            self.begun.elapsed().as_secs(),
            sums.rounds,
            sums.messages + answered,
            fleet.running(),
            sums.lives.len(),
            broken(Broken::Lost),
            broken(Broken::Doubled),
            broken(Broken::Misordered),
            memory.max().unwrap_or_default() >> 20
        );
    }

    /// Looks at memory and descriptors of all nodes that run.
    pub(crate) async fn sample(&self, fleet: &Fleet) {
        for (place, origin, http, usage) in fleet.usages() {
            let metrics = timeout(TOLD_WITHIN, Metrics::at(&http)).await;
            // One that was stopped or killed in this moment is not looked at.
            let Ok(Ok(metrics)) = metrics else { continue };
            let history = metrics.get("history_bytes").unwrap_or_default();
            let sample = Sample {
                at: Instant::now(),
                memory: usage.rss as f64 - history as f64,
                files: usage.files as f64,
            };
            let (now, longest) = &mut self.sums.borrow_mut().lives[place];
            if now.origin != origin {
                let fresh = Life {
                    origin,
                    samples: Vec::new(),
                };
                let ended = std::mem::replace(now, fresh);
                if ended.length() > longest.length() {
                    *longest = ended;
                }
            }
            now.samples.push(sample);
        }
    }

    /// The table at the end. What grows without end is broken as well.
    pub(crate) fn print(&self) {
        let slopes = self.slopes();
        let sums = self.sums.borrow();
        say!(
            "\n{} rounds in {} s",
            sums.rounds,
            self.begun.elapsed().as_secs()
        );
        for (what, count) in [
            ("messages", sums.messages),
            ("acknowledged", sums.acknowledged),
            ("  with a copy elsewhere", sums.copied),
            ("said again, unanswered before", sums.retries),
            ("shown to people", sums.shown),
            ("people went on elsewhere", sums.moves),
            ("too far behind to be recovered", sums.too_far),
            ("acknowledged without a copy, lost", sums.excused),
            ("shown by a node killed before others", sums.vanished),
        ] {
            say!("  {what:<38}{count:>12}");
        }
        say!("broken promises");
        for kind in PROMISES {
            let count = sums.broken.get(&kind).copied().unwrap_or_default();
            say!("  {:<38}{count:>12}", format!("{kind:?}"));
        }
        say!("faults, and until nothing was left of them");
        for (kind, count) in &sums.faults {
            let times = sums.mended.get(kind).cloned().unwrap_or_default();
            row(kind.name(), Some(*count), times);
        }
        say!("other times");
        row(
            "client lost its node, is back",
            None,
            sums.lost_nodes.clone(),
        );
        row(
            "client was sent away, is back",
            None,
            sums.sent_away.clone(),
        );
        row("all nodes keep the same", None, sums.converged.clone());
        row("replies", None, sums.replies.clone());
        say!("memory beside the history, and descriptors, of the longest life at each place");
        for line in slopes {
            say!("{}", line);
        }
        if sums.texts.is_empty() {
            say!("\nall promises held");
        } else {
            say!("\nBROKEN:\n{}", sums.texts.join("\n"));
        }
    }

    /// A line for each place; a peak that goes on rising is a fault.
    fn slopes(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let mut sums = self.sums.borrow_mut();
        let mut grows = Vec::new();
        for (place, (now, longest)) in sums.lives.iter().enumerate() {
            let life = if now.length() > longest.length() {
                now
            } else {
                longest
            };
            let seconds = life.length().as_secs();
            let Some((memory, files)) = life.lines() else {
                lines.push(format!("  node {place}: {seconds} s, too short to tell"));
                continue;
            };
            let grown = |line: &Line, unit: f64| {
                let (last, hourly) = (line.last / unit, line.slope * 3600.0 / unit);
                format!("{last:.1} {hourly:+.2} an hour (fit {:.2})", line.fit)
            };
            let text = format!(
                "  node {place}: {seconds} s, {} MiB, {} files",
                grown(&memory, f64::from(1 << 20)),
                grown(&files, 1.0)
            );
            if life.grows() {
                grows.push(format!("its peak goes on rising:{text}"));
            }
            lines.push(text);
        }
        sums.texts.extend(grows);
        lines
    }
}

/// Says a row of a table: how many, and middle, 99th of a hundred and longest of the times.
fn row(what: &str, count: Option<usize>, times: Vec<Duration>) {
    let count = count.unwrap_or(times.len());
    if times.is_empty() {
        return say!("  {what:<38}{count:>12}");
    }
    let (median, p99, longest) = spread(times);
    say!(
        "  {what:<38}{count:>12}   median {median:>10.1?}   p99 {p99:>10.1?}   max {longest:>10.1?}"
    );
}
