//! Whether memory and descriptors of a process grow without end.

use tokio::time::{Duration, Instant};

/// A shorter life says nothing.
const WATCHED_MIN: Duration = Duration::from_secs(1200);
/// The first minutes of a life are not fitted: history fills until retention trims it, and the mids
/// of what it trimmed are kept for five minutes more.
const WARM_UP: Duration = Duration::from_secs(600);
/// How much of the scatter a line must explain to be called a slope.
const FIT_MIN: f64 = 0.5;
const DAY: f64 = 86_400.0;

/// One look at a process.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    pub(crate) at: Instant,
    /// Bytes beside the history, whose bound is the retention.
    pub(crate) memory: f64,
    pub(crate) files: f64,
}

/// The looks at one life of one process.
#[derive(Debug, Clone, Default)]
pub(crate) struct Life {
    pub(crate) origin: String,
    pub(crate) samples: Vec<Sample>,
}

/// A line through samples: growth a second, the value at its end, and how well it fits.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Line {
    pub(crate) slope: f64,
    pub(crate) last: f64,
    pub(crate) fit: f64,
}

impl Line {
    /// Whether it would double what there is within a day.
    pub(crate) fn doubles_in_a_day(&self) -> bool {
        self.fit >= FIT_MIN && self.slope * DAY > self.last
    }
}

impl Life {
    /// How long it was watched.
    pub(crate) fn length(&self) -> Duration {
        match (self.samples.first(), self.samples.last()) {
            (Some(first), Some(last)) => last.at - first.at,
            _ => Duration::ZERO,
        }
    }

    /// The lines of memory and of files, if it was watched for long enough.
    pub(crate) fn lines(&self) -> Option<(Line, Line)> {
        if self.length() < WATCHED_MIN {
            return None;
        }
        let first = self.samples.first()?.at;
        let warm = |sample: &&Sample| sample.at - first >= WARM_UP;
        let points = |value: fn(&Sample) -> f64| {
            let warm = self.samples.iter().filter(warm);
            warm.map(|sample| ((sample.at - first).as_secs_f64(), value(sample)))
                .collect::<Vec<_>>()
        };
        let memory = line(&points(|sample| sample.memory))?;
        let files = line(&points(|sample| sample.files))?;
        Some((memory, files))
    }
}

/// The line of least squares.
fn line(points: &[(f64, f64)]) -> Option<Line> {
    let count = points.len() as f64;
    let mean = |value: fn(&(f64, f64)) -> f64| points.iter().map(value).sum::<f64>() / count;
    let (x, y) = (mean(|point| point.0), mean(|point| point.1));
    let sum = |value: &dyn Fn(f64, f64) -> f64| -> f64 {
        points
            .iter()
            .map(|point| value(point.0 - x, point.1 - y))
            .sum()
    };
    let (xx, xy, yy) = (sum(&|x, _| x * x), sum(&|x, y| x * y), sum(&|_, y| y * y));
    let slope = xy / xx;
    let last = y + slope * (points.last()?.0 - x);
    let fit = if yy == 0.0 { 0.0 } else { xy * xy / (xx * yy) };
    slope.is_finite().then_some(Line { slope, last, fit })
}
