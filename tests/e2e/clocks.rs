//! Clocks that are set while everything runs, machines that sleep and wake.

use std::collections::HashMap;

use rustls::pki_types::UnixTime;

use crate::harness::clocks::{Clock, Shifted};
use crate::harness::cluster::http;
use crate::harness::process::{Launch, Process};
use crate::harness::reader::Reader;
use crate::harness::recorder::Checked;
use crate::harness::sealed::Over;
use crate::harness::tools::run;
use crate::harness::wire::Msg;
use crate::harness::{
    Attempt, Client, Instant, Load, NOISE, Node, Outcome, PATIENCE, Recorder, Registry, eventually,
    linked, ms, say, secs,
};

/// An hour, in the unit of the clock.
const HOUR: i64 = 3600;
/// The contract: a `ts` is at most 60 s ahead of the time by which the mesh goes. A second is for
/// the way from the node's clock to the test's.
const AHEAD_MAX_US: u64 = 60_000_000 + 1_000_000;

async fn registry(clock: &Clock) -> anyhow::Result<Registry> {
    let mut launch = Launch::new("registry", ["--http", "127.0.0.1:0"]);
    clock.give(&mut launch);
    let process = Process::start(&launch).await?;
    let url = process.ready_text("http")?;
    Ok(Registry {
        process,
        url,
        seal: None,
    })
}

async fn node(registry: &Registry, clock: Option<&Clock>) -> anyhow::Result<Node> {
    let mut launch = Launch::new("chatnode", registry.flags());
    launch.args.extend(["--rate-limit", "0"].map(str::to_owned));
    if let Some(clock) = clock {
        clock.give(&mut launch);
    }
    Node::launch(launch).await
}

/// Goal: the wall clocks of a node and of the registry set forward and back by an
/// hour: no link, lease or client ends for it; stamps go on increasing, and stay within a minute of
/// the right time, on that node too, which goes by the other's; one order, the same everywhere.
/// Method: libfaketime on one of two nodes and on the registry, under load; +1 h, right, -1 h, right.
#[tokio::test]
async fn a_wall_clock_set_by_an_hour_ends_nothing_and_breaks_no_order() -> Outcome {
    let clock = Clock::new(Shifted::Wall)?;
    let registry = registry(&clock).await?;
    let shifted = node(&registry, Some(&clock)).await?;
    let right = node(&registry, None).await?;
    linked(&[&shifted, &right], PATIENCE).await?;
    let recorder = Recorder::new();
    let _readers = [
        recorder.reader(&shifted, "one-reads", "tea").await?,
        recorder.reader(&right, "two-reads", "tea").await?,
    ];
    let senders = recorder
        .clients([(&shifted, "ada"), (&right, "bob")])
        .await?;
    let load = Load::start(senders, "tea", 50);
    let mut spans = Vec::new();
    let mut ticks = tokio::time::interval(ms(200));
    for shift in [0, HOUR, 0, -HOUR, 0] {
        clock.shift(shift)?;
        let from = Instant::now();
        while from.elapsed() < secs(3) {
            ticks.tick().await;
            for (node, other) in [(&shifted, &right), (&right, &shifted)] {
                let mesh = node.mesh().await?;
                assert!(mesh.hears(&other.origin), "shift {shift}: {mesh:?}");
                assert_eq!(mesh.registries[0].state, "up", "shift {shift}");
            }
            let listed = registry.listed().await?;
            assert_eq!(listed.len(), 2, "shift {shift}: listed are {listed:?}");
        }
        spans.push((shift, from..Instant::now()));
    }
    let attempts = load.stop().await?;
    let checked = recorder.check(&[&shifted, &right], "tea").await?;
    assert_eq!(checked.verdict.shown, 2 * checked.history.len());
    say!("{checked}");
    check_stamps(&checked.history, &attempts, &shifted, &spans);
    assert_eq!(counted(&registry, "registry_expirations_total").await?, 0);
    for (node, told) in [(&shifted, 2), (&right, 0)] {
        let log = node.process.log_text();
        let flagged = log.matches("clock is").count();
        assert_eq!(flagged, told, "each of two shifts is flagged once: {log}");
        let metrics = node.metrics().await?;
        assert_eq!(metrics.get("dials_total")?, 1, "a link was dialled again");
        for name in ["silent_links_total", "behind_links_total", "lost_total"] {
            assert_eq!(metrics.get(name)?, 0, "{name}");
        }
    }
    Ok(())
}

/// Stamps increase with the numbers of each origin, and stay within a minute of the right time.
fn check_stamps(
    history: &[Msg],
    attempts: &[Attempt],
    shifted: &Node,
    spans: &[(i64, std::ops::Range<Instant>)],
) {
    let mut last: HashMap<&str, (u64, u64)> = HashMap::new();
    for message in history {
        // The history is in the order of ts: then numbers ascend too, if both do.
        let before = last.insert(message.origin(), (message.seq(), message.ts));
        let (seq, ts) = before.unwrap_or_default();
        assert!(
            seq < message.seq() && ts < message.ts,
            "{message:?} after {before:?}"
        );
    }
    let stamps: HashMap<&str, u64> = history
        .iter()
        .filter_map(|message| Some((message.mid.as_deref()?, message.ts)))
        .collect();
    // The right time of an instant, from the first message that a right clock has stamped.
    let first = attempts.iter().min_by_key(|attempt| attempt.sent_at);
    let first = first.expect("the load sent something");
    let (start, start_us) = (first.sent_at, stamps[first.mid.as_str()]);
    for (shift, span) in spans {
        let mut ahead: HashMap<bool, Vec<u64>> = HashMap::new();
        let sent = attempts.iter().filter(|it| span.contains(&it.sent_at));
        for attempt in sent {
            let passed = u64::try_from((attempt.replied_at - start).as_micros());
            let right = start_us + passed.expect("a test is shorter than a century");
            let ahead_us = stamps[attempt.mid.as_str()].saturating_sub(right);
            let own = attempt.origin == shifted.origin;
            ahead.entry(own).or_default().push(ahead_us);
        }
        let most = |own| ahead[&own].iter().copied().max().unwrap_or_default();
        let (own, other) = (most(true), most(false));
        say!(
            "clock at {shift:+} s: its node's stamps up to {} s ahead of the time, the other's {} s",
            own / 1_000_000,
            other / 1_000_000
        );
        assert!(own <= AHEAD_MAX_US, "{own} us ahead of the others");
        assert!(
            other <= AHEAD_MAX_US,
            "dragged along: {other} us ahead of its clock"
        );
    }
}

/// Goal: what a node says whose clock is hours wrong stands where it was said: what others say after it
/// stands behind it, and who comes new finds that. Method: libfaketime on a node that comes to one that
/// is right, two hours ahead and two behind; it says more than a page, and is killed.
#[tokio::test]
async fn who_comes_with_a_clock_hours_wrong_speaks_in_the_time_of_the_others() -> Outcome {
    for shift in [2 * HOUR, -2 * HOUR] {
        let registry = Registry::start().await?;
        let right = node(&registry, None).await?;
        let clock = Clock::new(Shifted::Wall)?;
        clock.shift(shift)?;
        let wrong = node(&registry, Some(&clock)).await?;
        linked(&[&right, &wrong], PATIENCE).await?;
        let bob = Client::joined(&right, "bob", "tea").await?;
        let ada = Client::joined(&wrong, "ada", "tea").await?;
        let mut said = vec!["before".to_owned()];
        bob.send("tea", "before").await?;
        for count in 0..60 {
            let text = format!("wrong {count}");
            ada.send("tea", &text).await?;
            said.push(text);
        }
        bob.message(PATIENCE, "wrong 59").await?;
        let log = wrong.process.log_text();
        assert!(log.contains("it goes by theirs"), "{shift}: {log}");
        drop(wrong);
        bob.send("tea", "after").await?;
        said.push("after".to_owned());
        let eve = Client::hello(&right, "eve").await?;
        let page = eve.join("tea").await?.messages;
        let texts: Vec<String> = page.into_iter().map(|message| message.text).collect();
        assert_eq!(texts, said[said.len() - 50..], "{shift}");
    }
    Ok(())
}

/// What a sleep may cost: each link dialled again once, and each node registered again once.
const DIALS_MAX: u64 = 2;
/// Registrations in the seconds after a sleep: one for each node in two seconds as ever, and two
/// more for each at the moment of waking.
const RENEWALS_MAX: u64 = 30;
/// All links stand again, and all nodes are listed, within this time.
const AWAKE_WITHIN: std::time::Duration = secs(5);

/// Three nodes and a registry, who read in them, and what they have counted.
struct Sleepers {
    registry: Registry,
    nodes: Vec<Node>,
    recorder: Recorder,
    readers: Vec<Reader>,
    dials: Vec<u64>,
    renewals: u64,
}

impl Sleepers {
    async fn start(registry: Registry, clock: Option<&Clock>) -> anyhow::Result<Self> {
        let mut nodes = Vec::new();
        for _ in 0..3 {
            nodes.push(node(&registry, clock).await?);
        }
        linked(&nodes, PATIENCE).await?;
        let recorder = Recorder::new();
        let readers = recorder.readers(&nodes, "tea").await?;
        let mut all = Self {
            registry,
            nodes,
            recorder,
            readers,
            dials: Vec::new(),
            renewals: 0,
        };
        all.count().await?;
        Ok(all)
    }

    fn nodes(&self) -> Vec<&Node> {
        self.nodes.iter().collect()
    }

    async fn count(&mut self) -> anyhow::Result<()> {
        self.dials.clear();
        for node in &self.nodes {
            self.dials.push(node.metrics().await?.get("dials_total")?);
        }
        self.renewals = counted(&self.registry, "registry_puts_total").await?;
        Ok(())
    }

    /// They all know that they stood still: the fault was there.
    async fn slept(&self) -> anyhow::Result<()> {
        eventually(PATIENCE, "all know that they stood still", async || {
            for node in &self.nodes {
                let log = node.process.log_text();
                let knows = log.contains("this process was stopped for a while");
                anyhow::ensure!(knows, "{} does not", node.origin);
            }
            let late = counted(&self.registry, "registry_late_ticks_total").await?;
            anyhow::ensure!(late > 0, "the registry does not");
            Ok(())
        })
        .await
    }

    /// They have just woken: within seconds all is as it was, and no storm made it so.
    async fn wake(&mut self, what: &str) -> anyhow::Result<()> {
        let woken = Instant::now();
        self.slept().await?;
        linked(&self.nodes(), AWAKE_WITHIN + NOISE).await?;
        let took = woken.elapsed();
        // Whatever waking sets off has come by then: the longest pause between two dials or
        // registrations is 2 s, and silence takes 3 s.
        tokio::time::sleep_until(woken + AWAKE_WITHIN).await;
        self.registry.lists(3, NOISE).await?;
        linked(&self.nodes(), NOISE).await?;
        let (before, renewed) = (self.dials.clone(), self.renewals);
        self.count().await?;
        let dialled: Vec<_> = self.dials.iter().zip(&before).map(|(n, b)| n - b).collect();
        let renewed = self.renewals - renewed;
        say!(
            "{what}: linked {took:?} after it; dials {dialled:?}, {renewed} registrations in \
             {AWAKE_WITHIN:?}"
        );
        assert!(
            dialled.iter().all(|&count| count <= DIALS_MAX),
            "{dialled:?}"
        );
        assert!(renewed <= RENEWALS_MAX, "{renewed} registrations");
        let expired = counted(&self.registry, "registry_expirations_total").await?;
        assert_eq!(expired, 0, "{what}: leases ended");
        for reader in &self.readers {
            let closed = reader.client().is_closed();
            assert_eq!(closed, None, "{what}: {} was closed", reader.name);
            let left = reader.client().pushed("members");
            let left = left
                .iter()
                .find(|change| change["left"] != serde_json::json!([]));
            assert_eq!(left, None, "{what}: somebody left");
        }
        Ok(())
    }

    /// All converge, and every reader was shown all.
    async fn finish(&self) -> anyhow::Result<Checked> {
        let checked = self.recorder.check(&self.nodes(), "tea").await?;
        let all = self.readers.len() * checked.history.len();
        assert_eq!(checked.verdict.shown, all, "{checked}");
        say!("{checked}");
        Ok(checked)
    }
}

/// The sum over all labels of a number that the registry counts.
async fn counted(registry: &Registry, name: &str) -> anyhow::Result<u64> {
    let url = format!("{}/metrics", registry.url);
    let text = http()?.get(url).send().await?.text().await?;
    let rows = text.lines().filter(|line| line.starts_with(name));
    let values: Vec<u64> = rows
        .filter_map(|line| line.rsplit_once(' ')?.1.parse().ok())
        .collect();
    anyhow::ensure!(!values.is_empty(), "the registry does not count {name}");
    Ok(values.iter().sum())
}

/// Goal: a machine that sleeps for an hour and wakes: nobody judges anybody by the time
/// that nobody lived; at most one dial a link, no storm at the registry, no client closed, no
/// member gone, nothing lost. Method: libfaketime shifts all clocks, the monotonic ones included,
/// of three nodes and a registry at once, twice, under load.
#[tokio::test]
async fn an_hour_asleep_ends_no_client_and_no_lease() -> Outcome {
    let clock = Clock::new(Shifted::All)?;
    let registry = registry(&clock).await?;
    let mut all = Sleepers::start(registry, Some(&clock)).await?;
    let mut senders = Vec::new();
    for (place, node) in all.nodes.iter().enumerate() {
        let name = format!("sender{place}");
        senders.push(all.recorder.client(node, &name).await?);
    }
    let load = Load::start(senders, "tea", 20);
    for round in 1..=2 {
        clock.shift(round * HOUR)?;
        all.wake(&format!("sleep {round} of an hour")).await?;
    }
    load.stop().await?;
    all.finish().await?;
    Ok(())
}

/// Goal: the same where time passes for the network and not for the processes: all nodes
/// and the registry stopped at once for 10 s, clients waiting for replies. Method: SIGSTOP,
/// messages into the stopped nodes' sockets, SIGCONT.
#[tokio::test]
async fn all_stopped_at_once_for_10_s_go_on_as_if_nothing_was() -> Outcome {
    let mut all = Sleepers::start(Registry::start().await?, None).await?;
    for process in all.nodes.iter().map(|node| &node.process) {
        process.freeze()?;
    }
    all.registry.process.freeze()?;
    let stopped = Instant::now();
    let mut waiting = Vec::new();
    for reader in &all.readers {
        for count in 0..20 {
            let (client, text) = (reader.client(), format!("asleep {count}"));
            let mid = client.new_mid();
            let body = serde_json::json!({ "room": "tea", "mid": mid, "text": text });
            waiting.push((client, client.start("send", body)));
        }
    }
    tokio::time::sleep_until(stopped + secs(10)).await;
    for process in all.nodes.iter().map(|node| &node.process) {
        process.thaw()?;
    }
    all.registry.process.thaw()?;
    let mut sent = 0;
    for (client, reply) in waiting {
        client.reply("send", reply).await?;
        sent += 1;
    }
    all.wake("stopped for 10 s").await?;
    assert_eq!(all.finish().await?.history.len(), sent);
    Ok(())
}

/// Goal: no clock ends a program: not one before 1970, not one after 9999, not the last that there
/// is; nor a file of such a date that is served.
/// Method: both programs with such clocks, answering, talking and stopping.
#[tokio::test]
async fn no_clock_ends_a_program() -> Outcome {
    const YEAR: i64 = 31_556_952;
    let www = tempfile::tempdir()?;
    for (name, year) in [("old.txt", "1901-12-14"), ("new.txt", "2400-01-01")] {
        let file = www.path().join(name);
        std::fs::write(&file, "text")?;
        run("touch", &["-d", year, &file.display().to_string()])?;
    }
    let folder = www.path().display().to_string();
    for years in [-100, -56, 7_972, 7_973, 7_974, 250_000, 290_000_000_000] {
        let clock = Clock::new(Shifted::Wall)?;
        clock.shift(years * YEAR)?;
        let registry = registry(&clock).await?;
        let args = ["--registry", &registry.url, "--www", &folder];
        let mut launch = Launch::new("chatnode", args);
        clock.give(&mut launch);
        let mut one = Node::launch(launch).await?;
        let mut other = node(&registry, Some(&clock)).await?;
        linked(&[&one, &other], PATIENCE).await?;
        let ada = Client::joined(&one, "ada", "tea").await?;
        ada.send("tea", "what time is it").await?;
        for path in ["/api/mesh", "/metrics", "/old.txt", "/new.txt", "/nothing"] {
            let answer = one.get(path).await?;
            say!(
                "{years}: {path} {} {:?}",
                answer.status(),
                answer.headers().get("date")
            );
            assert!(!answer.status().is_server_error(), "{path}");
        }
        one.process.stop(secs(3) + NOISE).await?;
        other.process.stop(secs(3) + NOISE).await?;
        let Registry { mut process, .. } = registry;
        process.stop(secs(3) + NOISE).await?;
    }
    Ok(())
}

/// Goal: keys of a mesh have no dates: a clock of 1970 or of 2038 ends no link, and keeps nobody out who
/// comes with it. Method: libfaketime on one of two nodes with a mesh secret, under load, and on a
/// newcomer at either time.
#[tokio::test]
async fn a_clock_of_1970_or_2038_ends_no_link_and_keeps_nobody_out() -> Outcome {
    const DAY: i64 = 24 * HOUR;
    let now = i64::try_from(UnixTime::now().as_secs())?;
    let clock = Clock::new(Shifted::Wall)?;
    let registry = Registry::over(Over::Tls, "127.0.0.1:0").await?;
    let shifted = node(&registry, Some(&clock)).await?;
    let right = node(&registry, None).await?;
    linked(&[&shifted, &right], PATIENCE).await?;
    let recorder = Recorder::new();
    let senders = recorder
        .clients([(&shifted, "ada"), (&right, "bob")])
        .await?;
    let load = Load::start(senders, "tea", 20);
    for (year, at) in [(1970, DAY), (2038, i64::from(i32::MAX) + DAY)] {
        clock.shift(at - now)?;
        let from = Instant::now();
        let newcomer = node(&registry, Some(&clock)).await?;
        linked(&[&shifted, &right, &newcomer], PATIENCE).await?;
        say!(
            "{year}: a newcomer linked {:?} after its start",
            from.elapsed()
        );
        let bob = Client::joined(&right, "bob", &format!("{year}")).await?;
        let eve = Client::joined(&newcomer, "eve", &format!("{year}")).await?;
        eve.send(&format!("{year}"), "what year is it").await?;
        bob.message(PATIENCE, "what year is it").await?;
        // Longer than a link may be silent.
        let mut ticks = tokio::time::interval(ms(200));
        while from.elapsed() < secs(4) {
            ticks.tick().await;
            for (one, other) in [(&shifted, &right), (&right, &shifted)] {
                let mesh = one.mesh().await?;
                assert!(mesh.hears(&other.origin), "{year}: {mesh:?}");
                assert_eq!(mesh.registries[0].state, "up", "{year}");
            }
        }
    }
    load.stop().await?;
    recorder.check(&[&shifted, &right], "tea").await?;
    for node in [&shifted, &right] {
        for name in ["silent_links_total", "behind_links_total", "lost_total"] {
            assert_eq!(node.metrics().await?.get(name)?, 0, "{name}");
        }
    }
    Ok(())
}
