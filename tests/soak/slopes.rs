//! Whether memory and descriptors of a process grow without end.

use tokio::time::{Duration, Instant};

/// A shorter life says nothing.
const WATCHED_MIN: Duration = Duration::from_secs(1200);
/// The first minutes of a life are not fitted: history fills until retention trims it, and the mids
/// of what it trimmed are kept for five minutes more.
const WARM_UP: Duration = Duration::from_secs(600);
/// The peak of the second half of what is fitted may exceed that of the first by so much. The rate is
/// another in each round, and mids are kept by time, so that a line alone would tell of the dice.
const PEAK_GROWTH_MAX: f64 = 1.1;
/// And by so many descriptors, of which a node alone has few.
const FILES_SLACK: f64 = 16.0;

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

impl Life {
    /// How long it was watched.
    pub(crate) fn length(&self) -> Duration {
        match (self.samples.first(), self.samples.last()) {
            (Some(first), Some(last)) => last.at - first.at,
            _ => Duration::ZERO,
        }
    }

    /// Whether the peak goes on rising when all is warm.
    pub(crate) fn grows(&self) -> bool {
        let (Some(first), Some(last)) = (self.samples.first(), self.samples.last()) else {
            return false;
        };
        let begin = first.at + WARM_UP;
        let Some(half) = (last.at.checked_duration_since(begin)).map(|warm| begin + warm / 2)
        else {
            return false;
        };
        let peak = |value: fn(&Sample) -> f64, late: bool| {
            let part = self.samples.iter().filter(|sample| sample.at >= begin);
            let part = part.filter(|sample| (sample.at >= half) == late);
            part.map(value).fold(0.0, f64::max)
        };
        let memory = |late| peak(|sample| sample.memory, late);
        let files = |late| peak(|sample| sample.files, late);
        memory(true) > memory(false) * PEAK_GROWTH_MAX || files(true) > files(false) + FILES_SLACK
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
