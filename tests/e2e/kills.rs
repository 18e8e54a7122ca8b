//! kill -9, again and again, while clients send what must be kept and read what must be whole.

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::harness::load::spread;
use crate::harness::sealed::{Over, over_each};
use crate::harness::{
    Cluster, Duration, Expect, Habits, Instant, NOISE, Outcome, PATIENCE, Pace, Recorder, Roamer,
    long, ms, say, secs, seed,
};

over_each!(thirty_kills_lose_and_double_nothing_that_was_acknowledged_with_a_copy,);

/// Kills in the first test,
const ROUNDS: usize = 30;
/// and over TLS, where all but the carrier is the same.
const ROUNDS_SEALED: usize = 6;
/// How soon after the last send all nodes keep the same, the restarted one too.
const SAME_WITHIN: Duration = secs(2);
/// How soon after its node was killed a reader reads again.
const READS_WITHIN: Duration = secs(1);
/// History held: several rounds of it, so that a restarted node has not to fetch all of the test.
const RETAINED: &str = "30000";

/// Goal: whatever node is killed, whatever it was doing: of what was acknowledged
/// with a copy nothing is lost, nothing is doubled in any history or on any connection, and within
/// 2 s of the last send all nodes, the restarted one too, keep the same.
/// Method: three clients send with `copies: 1` as fast as they are answered, four under way each,
/// and read; 30 times a random one of four nodes is killed at a random moment and started again;
/// whoever was there goes on elsewhere and says again, under the same mid, what was not answered.
async fn thirty_kills_lose_and_double_nothing_that_was_acknowledged_with_a_copy(
    over: Over,
) -> Outcome {
    let mut rng = StdRng::seed_from_u64(seed());
    let mut cluster = Cluster::over(
        over,
        4,
        &["--rate-limit", "0", "--retain-messages", RETAINED],
    )
    .await?;
    let mut same = Vec::new();
    let mut back = Vec::new();
    let (mut messages, mut copied, mut retries, mut excused) = (0, 0, 0, 0);
    let rounds = match over {
        Over::Zmq => ROUNDS,
        Over::Tls => ROUNDS_SEALED,
    };
    for round in 0..rounds {
        let recorder = Recorder::new();
        let room = format!("tea{round}");
        let habits = Habits::new(&room, Pace::Eager(4), 1);
        let mut talkers = Vec::new();
        for name in ["ada", "bob", "eve"] {
            talkers.push(Roamer::start(&recorder, &cluster.nodes, name, habits.clone()).await?);
        }
        for talker in &mut talkers {
            talker.has_said(50, PATIENCE).await?;
        }
        // Not a wait for anything: any moment of the flow is as good for a kill.
        tokio::time::sleep(ms(rng.random_range(0..200))).await;
        let killed = &mut cluster.nodes[rng.random_range(0..4)];
        let origin = killed.origin.clone();
        recorder.kill(killed).await?;
        let killed_at = Instant::now();
        killed.again().await?;
        for talker in &mut talkers {
            talker.is_away_from(&origin, PATIENCE).await?;
            back.extend(talker.moves().iter().map(|at| at.back_at - killed_at));
            talker.has_said(talker.answered() + 50, PATIENCE).await?;
        }
        for talker in &mut talkers {
            talker.hush(PATIENCE).await?;
        }
        let expect = Expect {
            trimmed: true,
            ..Expect::default()
        };
        let checked = recorder.check_with(&cluster.nodes, &room, expect).await?;
        say!("round {round}: {checked}");
        same.push(checked.converged);
        assert_eq!(checked.verdict.to_the_end, 3);
        messages += checked.verdict.messages;
        copied += checked.verdict.copied;
        retries += checked.verdict.retries;
        excused += checked.verdict.excused;
        cluster.linked(PATIENCE).await?;
    }
    let (median, _, worst) = spread(same);
    let (back_median, _, back_worst) = spread(back.iter().copied());
    say!(
        "{rounds} kills: {messages} messages, {copied} acknowledged with a copy, {retries} \
         retries, {excused} acknowledged without a copy and lost, nothing else lost, nothing \
         doubled; all nodes the same after {median:?} (median), {worst:?} (longest); {} clients \
         lost their node and were back after {back_median:?}, {back_worst:?}",
        back.len()
    );
    assert!(copied > rounds * 100, "only {copied} had a copy");
    assert!(retries > 0, "no kill hit a message on its way");
    assert!(median <= SAME_WITHIN && worst <= SAME_WITHIN + NOISE);
    Ok(())
}

/// Goal: a reader whose node is killed each second, wherever it goes, misses nothing, is shown
/// nothing twice, is recovered each time, and reads again within a second.
/// Method: four nodes, three talkers with `copies: 1` that lose their nodes as well; twenty times
/// (sixty with `CHATMESH_LONG=1`), once a second, the reader's node is killed and started again.
#[tokio::test]
async fn a_reader_whose_node_is_killed_each_second_misses_nothing() -> Outcome {
    let kills = if long() { 60 } else { 20 };
    let mut cluster = Cluster::with(4, &["--rate-limit", "0"]).await?;
    let recorder = Recorder::new();
    let habits = |pace| Habits::new("tea", pace, 1);
    let mut talkers = Vec::new();
    for name in ["ada", "bob", "eve"] {
        let habits = habits(Pace::Steady(67));
        talkers.push(Roamer::start(&recorder, &cluster.nodes, name, habits).await?);
    }
    let mut reader =
        Roamer::start(&recorder, &cluster.nodes, "reader", habits(Pace::Silent)).await?;
    let mut times = Vec::new();
    for _ in 0..kills {
        let next = Instant::now() + secs(1);
        let origin = reader
            .at()
            .expect("it was back before the last second ended");
        let place = cluster.nodes.iter().position(|node| node.origin == origin);
        let killed = &mut cluster.nodes[place.expect("it is at a node of the cluster")];
        recorder.kill(killed).await?;
        let killed_at = Instant::now();
        killed.again().await?;
        reader.is_away_from(&origin, PATIENCE).await?;
        let moves = reader.moves();
        let moved = moves.last().expect("it has moved");
        times.push(moved.back_at - killed_at);
        tokio::time::sleep_until(next).await;
    }
    for talker in &mut talkers {
        talker.hush(PATIENCE).await?;
    }
    cluster.linked(PATIENCE).await?;
    let checked = recorder.check(&cluster.nodes, "tea").await?;
    let (median, p99, worst) = spread(times.iter().copied());
    say!(
        "{kills} kills: reads again after {median:?} (median), {p99:?} (99 of 100), {worst:?} \
         (longest); {checked}"
    );
    assert_eq!(checked.verdict.to_the_end, 4);
    assert!(median <= READS_WITHIN && worst <= READS_WITHIN + NOISE);
    Ok(())
}
