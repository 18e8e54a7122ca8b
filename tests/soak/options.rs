//! What a person may choose.

use std::str::FromStr;

use tokio::time::Duration;

use crate::brokers::Bus;

/// How to call it.
const USAGE: &str = "usage: scripts/soak MINUTES [--nodes N] [--rate MESSAGES_A_SECOND] [--data] \
    [--bus redis|nats|amqp|proxy|two] [--release]; MINUTES may be a fraction; SEED=n in the environment replays the faults of a run";

/// What the run is like.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) lasts: Duration,
    pub(crate) nodes: usize,
    /// Messages a second; another rate in each round if absent.
    pub(crate) rate: Option<u32>,
    /// Whether each second node has a data directory.
    pub(crate) data: bool,
    /// At what brokers nodes meet, instead of directly.
    pub(crate) bus: Option<Bus>,
}

impl Options {
    /// From the command line.
    ///
    /// # Errors
    /// It is not of the form; the text says which.
    pub(crate) fn of(args: impl IntoIterator<Item = String>) -> Result<Self, String> {
        let mut args = args.into_iter();
        let mut options = Self {
            lasts: Duration::ZERO,
            nodes: 5,
            rate: None,
            data: false,
            bus: None,
        };
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--data" => options.data = true,
                "--bus" => {
                    let bus = args.next().and_then(|name| Bus::named(&name));
                    options.bus = Some(bus.ok_or_else(|| USAGE.to_owned())?);
                }
                "--nodes" => options.nodes = number(args.next())?,
                "--rate" => options.rate = Some(number(args.next())?),
                minutes => options.lasts = lasts(minutes)?,
            }
        }
        let sound = !options.lasts.is_zero() && (3..=20).contains(&options.nodes);
        sound.then_some(options).ok_or_else(|| USAGE.to_owned())
    }
}

fn number<T: FromStr>(arg: Option<String>) -> Result<T, String> {
    let number = arg.and_then(|arg| arg.parse().ok());
    number.ok_or_else(|| USAGE.to_owned())
}

fn lasts(minutes: &str) -> Result<Duration, String> {
    let minutes: Option<f64> = minutes.parse().ok();
    let seconds = minutes.map(|minutes| minutes * 60.0);
    let lasts = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    lasts.ok_or_else(|| USAGE.to_owned())
}
