//! `bench load`: the load generator. It brings a crowd in, has it talk, and prints one line of JSON.

use std::num::NonZeroU64;

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Resource, getpid, getrlimit, setrlimit};
use rustix::thread::set_current_timer_slack;
use serde_json::{Value, json};

use crate::clock::{SECOND, now};
use crate::marks::{SENDERS_MAX, tag};
use crate::options::Options;
use crate::procs::{Cores, TICK_NANOS, alive, cores, cpu, resident};
use crate::proto::{Protocol, Shape};
use crate::swarm::{Counts, Crowd, Swarm};

/// How long the crowd may take to come in.
const ENTERS_WITHIN: u64 = 90 * SECOND;
/// After the last delivery, how long what is still out is waited for.
const STRAGGLES: u64 = 3 * SECOND;
/// And in all.
const DRAINS_WITHIN: u64 = 60 * SECOND;
/// Messages that are said at once to fill a history.
const FILL: u32 = 200;
/// Above this share of a core the generator is the limit.
const SATURATED: f64 = 0.9;

/// Counters at one end of a window.
struct Reading {
    time: u64,
    server: u64,
    own: u64,
    cores: Cores,
    counts: Counts,
}

struct Load {
    swarm: Swarm,
    pids: Vec<u32>,
    own: u32,
    options: Options,
}

/// Runs the mode that the options name.
pub(crate) fn run(mut options: Options) -> Result<Value> {
    let mode = options.free("which: fanout, saturate, idle or fill")?;
    if let Some(core) = options.number("core")? {
        crate::pin(core)?;
    }
    set_current_timer_slack(NonZeroU64::new(1))?;
    let mut files = getrlimit(Resource::Nofile);
    files.current = files.maximum;
    setrlimit(Resource::Nofile, files)?;
    let urls = options.all("url");
    ensure!(!urls.is_empty(), "--url is missing");
    let pids = options
        .all("pid")
        .iter()
        .map(|pid| pid.parse())
        .collect::<Result<Vec<u32>, _>>()?;
    ensure!(alive(&pids), "a --pid is no running process");
    let protocol = options.text("proto").unwrap_or_else(|| "plain".to_owned());
    let protocol = Protocol::named(&protocol).context("--proto: plain, chat, nats or socketio")?;
    let clients = options.number("clients")?.unwrap_or(1000);
    let mut crowd = Crowd {
        senders: Vec::new(),
        clients,
        rooms: options.number("rooms")?.unwrap_or(1).max(1),
        rooms_each: options.number("rooms-each")?.unwrap_or(1).max(1),
        urls,
    };
    let senders = options.number("senders")?.unwrap_or(10);
    crowd.senders = senders_of(&crowd, senders, options.number("sender-node")?)?;
    let bytes = options.number("bytes")?.unwrap_or(100);
    let copies = options.number("copies")?.unwrap_or(0) as u32;
    let shape = Shape::new(protocol, tag(rand::random()), bytes, copies);
    let own = u32::try_from(getpid().as_raw_nonzero().get())?;
    let mut load = Load {
        swarm: Swarm::new(crowd, shape)?,
        pids,
        own,
        options,
    };
    match mode.as_str() {
        "idle" => load.idle(),
        "fanout" => load.talk(false),
        "saturate" => load.talk(true),
        "fill" => load.fill(),
        other => bail!("{other}: fanout, saturate, idle or fill"),
    }
}

/// Senders evenly over the clients, or over those of one node (numbered from 1).
fn senders_of(crowd: &Crowd, senders: usize, node: Option<usize>) -> Result<Vec<usize>> {
    let of_node = |client: &usize| node.is_none_or(|node| client % crowd.urls.len() == node - 1);
    let able: Vec<usize> = (0..crowd.clients).filter(of_node).collect();
    ensure!(
        senders <= able.len(),
        "{senders} senders, but {} clients that may send",
        able.len()
    );
    ensure!(senders <= SENDERS_MAX, "at most {SENDERS_MAX} senders");
    Ok((0..senders)
        .map(|place| able[place * able.len() / senders])
        .collect())
}

impl Load {
    fn reading(&self) -> Reading {
        Reading {
            time: now(),
            server: cpu(&self.pids),
            own: cpu(&[self.own]),
            cores: cores(),
            counts: self.swarm.counts,
        }
    }

    fn seconds(&self, name: &str, default: f64) -> Result<u64> {
        Ok((self.options.number_f64(name)?.unwrap_or(default) * SECOND as f64) as u64)
    }

    /// Memory and time of connections that do nothing.
    fn idle(&mut self) -> Result<Value> {
        let base = resident(&self.pids);
        let before = self.reading();
        self.swarm.enter(ENTERS_WITHIN)?;
        let after = self.reading();
        self.swarm.pump(now() + self.seconds("hold", 3.0)?, false)?;
        let held = self.reading();
        ensure!(alive(&self.pids), "a server died");
        let clients = self.swarm.crowd.clients as f64;
        let mut result = self.usage(&before, &after);
        result["mode"] = json!("idle");
        result["rss_bytes_per_conn"] = json!((resident(&self.pids) as f64 - base as f64) / clients);
        result["base_rss_bytes"] = json!(base);
        result["cpu_us_per_accept"] = json!((after.server - before.server) as f64 / 1e3 / clients);
        result["accepts_per_s"] =
            json!(clients * SECOND as f64 / (after.time - before.time) as f64);
        result["idle_cores"] =
            json!((held.server - after.server) as f64 / (held.time - after.time) as f64);
        Ok(result)
    }

    /// The crowd talks: on a schedule, or as fast as its own words come back.
    fn talk(&mut self, closed_loop: bool) -> Result<Value> {
        let base = resident(&self.pids);
        self.swarm.enter(ENTERS_WITHIN)?;
        // Joins are told around, in a crowd once a second: that is not what is measured.
        self.swarm
            .pump(now() + self.seconds("settle", 1.0)?, false)?;
        let rss = resident(&self.pids) as f64 - base as f64;
        let start = now();
        let begin = start + self.seconds("warmup", 2.0)?;
        let end = begin + self.seconds("secs", 10.0)?;
        self.swarm.timed_from = begin;
        let (before, after) = if closed_loop {
            self.saturate(begin, end)?
        } else {
            self.schedule(start, begin, end)?
        };
        self.swarm.closed_loop = false;
        let stop = now() + DRAINS_WITHIN;
        while self.swarm.lost() > 0
            && now() < stop
            && now() < self.swarm.last_delivery.max(after.time) + STRAGGLES
        {
            self.swarm.pump(now() + SECOND / 50, false)?;
        }
        ensure!(alive(&self.pids), "a server died");
        let mut result = self.usage(&before, &after);
        result["mode"] = json!(if closed_loop { "saturate" } else { "fanout" });
        result["rss_bytes_per_conn"] = json!(rss / self.swarm.crowd.clients as f64);
        result["rss_bytes"] = json!(resident(&self.pids));
        self.add_deliveries(&mut result, &before, &after);
        Ok(result)
    }

    /// Has `--count` messages said by the first sender, some at a time.
    fn fill(&mut self) -> Result<Value> {
        self.swarm.enter(ENTERS_WITHIN)?;
        let mut left = self.options.number("count")?.unwrap_or(1000) as u32;
        while left > 0 {
            let some = left.min(FILL);
            self.swarm.say(0, some, now())?;
            left -= some;
            let stop = now() + STRAGGLES;
            while self.swarm.lost() > 0 && now() < stop {
                self.swarm.pump(stop, true)?;
            }
        }
        Ok(json!({ "mode": "fill", "lost": self.swarm.lost() }))
    }

    fn schedule(&mut self, start: u64, begin: u64, end: u64) -> Result<(Reading, Reading)> {
        let rate = self.options.number_f64("rate")?.unwrap_or(50.0);
        let burst = self.options.number("burst")?.unwrap_or(1).max(1) as u64;
        let senders = self.swarm.crowd.senders.len() as u64;
        let gap = burst as f64 * SECOND as f64 / rate;
        let mut before = None;
        for turn in 0u64.. {
            let due = start + (turn as f64 * gap) as u64;
            if before.is_none() && due >= begin {
                self.swarm.pump(begin, false)?;
                before = Some(self.reading());
            }
            if due >= end {
                break;
            }
            // A schedule that is behind goes on at once: the delay is in the latencies.
            self.swarm.pump(due, false)?;
            for place in turn * burst..(turn + 1) * burst {
                self.swarm.say((place % senders) as u32, 1, due)?;
            }
        }
        self.swarm.pump(end, false)?;
        let after = self.reading();
        Ok((before.context("--secs is too short for this rate")?, after))
    }

    fn saturate(&mut self, begin: u64, end: u64) -> Result<(Reading, Reading)> {
        let senders = self.swarm.crowd.senders.len();
        let inflight = self.options.number("inflight")?.unwrap_or(32);
        self.swarm.closed_loop = true;
        for sender in 0..senders {
            let share = (sender + 1) * inflight / senders - sender * inflight / senders;
            self.swarm.say(sender as u32, share as u32, now())?;
        }
        self.swarm.pump(begin, false)?;
        let before = self.reading();
        self.swarm.pump(end, false)?;
        Ok((before, self.reading()))
    }

    /// Cores used in a window: by the servers, by this process, by others, by the host.
    fn usage(&self, before: &Reading, after: &Reading) -> Value {
        let lasted = (after.time - before.time) as f64;
        let server = (after.server - before.server) as f64 / lasted;
        let own = (after.own - before.own) as f64 / lasted;
        let ticks = TICK_NANOS as f64 / lasted;
        let busy = (after.cores.busy - before.cores.busy) as f64 * ticks;
        json!({
            "clients": self.swarm.crowd.clients,
            "seconds": lasted / 1e9,
            "server_cores": server,
            "own_cores": own,
            "saturated": own > SATURATED,
            "others_cores": (busy - server - own).max(0.0),
            "steal_cores": (after.cores.stolen - before.cores.stolen) as f64 * ticks,
        })
    }

    fn add_deliveries(&self, result: &mut Value, before: &Reading, after: &Reading) {
        let deliveries = (after.counts.deliveries - before.counts.deliveries) as f64;
        let bytes = (after.counts.bytes - before.counts.bytes) as f64;
        let sent = (after.counts.sent - before.counts.sent) as f64;
        let micros = (after.server - before.server) as f64 / 1e3;
        let lasted = (after.time - before.time) as f64 / 1e9;
        let latency = &self.swarm.latency;
        let figures = json!({
            "deliveries": deliveries,
            "deliveries_per_s": deliveries / lasted,
            "messages_per_s": sent / lasted,
            "cpu_us_per_delivery": micros / deliveries,
            "cpu_us_per_message": micros / sent,
            "cpu_ns_per_byte": micros * 1e3 / bytes,
            "bytes_per_delivery": bytes / deliveries,
            "reads_per_delivery": (after.counts.reads - before.counts.reads) as f64 / deliveries,
            "p50_us": latency.quantile(0.5) as f64 / 1e3,
            "p99_us": latency.quantile(0.99) as f64 / 1e3,
            "max_us": latency.longest as f64 / 1e3,
            "lost": self.swarm.lost(),
            "doubled": self.swarm.ledger.doubled,
            "reordered": self.swarm.ledger.reordered,
            "astray": self.swarm.ledger.astray,
        });
        if let (Value::Object(result), Value::Object(figures)) = (result, figures) {
            result.extend(figures);
        }
    }
}
