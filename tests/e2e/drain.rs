//! SIGTERM under load: clients are told, nothing acknowledged is lost, exit 0.

use crate::harness::load::spread;
use crate::harness::roamer::Move;
use crate::harness::{
    Cluster, Habits, Instant, Load, NOISE, Outcome, PATIENCE, Pace, Plain, Recorder, Roamer, ms,
    say, secs,
};

/// Goal: SIGTERM drains: clients get `goaway` with the other nodes, then close 1001 or 1012; the
/// node ends with 0 within 5 s; all that it acknowledged is in the history of the others; a
/// client goes on at a node that was named, recovered.
/// Method: senders and readers on the node that is stopped; it is the only one with senders.
#[tokio::test]
async fn sigterm_under_load_loses_nothing_and_tells_the_clients_where_to_go() -> Outcome {
    let mut cluster = Cluster::with(3, &["--rate-limit", "0"]).await?;
    let mut going = cluster.nodes.remove(1);
    let recorder = Recorder::new();
    let mut moved = recorder.reader(&going, "moved", "tea").await?;
    let mut stayed = recorder.reader(&cluster.nodes[0], "stayed", "tea").await?;
    let plain = Plain::connect(&going, "?room=tea").await?;
    let senders = recorder.clients([(&going, "ada"), (&going, "bob")]).await?;
    let load = Load::start(senders, "tea", 200);
    stayed.shown(200, PATIENCE).await?;
    going.process.signal(rustix::process::Signal::TERM)?;
    let start = Instant::now();
    let goaway = moved.client().push(PATIENCE, "goaway", |_| true).await?;
    let named: Vec<String> = serde_json::from_value(goaway["nodes"].clone())?;
    assert!(
        !named.is_empty() && !named.contains(&going.http),
        "{goaway}"
    );
    assert!(goaway["after_ms"].is_u64(), "{goaway}");
    let closed = moved.client().closed(PATIENCE).await?;
    assert!([1001, 1012].contains(&closed.code), "{closed:?}");
    let closed = plain.closed(PATIENCE).await?;
    assert!([1001, 1012].contains(&closed.code), "{closed:?}");
    let (code, lines) = going.process.wait(secs(5) + NOISE).await?;
    let took = start.elapsed();
    assert_eq!(
        (code, lines),
        (0, 0),
        "exit code, lines on stdout after the ready line"
    );

    let target = cluster.nodes.iter().find(|node| node.http == named[0]);
    moved
        .resume(target.expect("goaway names a live node"))
        .await?;
    load.stop().await?;
    let checked = recorder.check(&cluster.nodes, "tea").await?;
    say!("drained in {took:?}; {checked}");
    Ok(())
}

/// Goal: a rolling restart under load loses and doubles nothing, with no copies asked for;
/// clients go where `goaway` sends them, and not all in one instant.
/// Method: SIGTERM each of four nodes in turn, and start it again; three talkers and forty readers
/// follow.
#[tokio::test]
async fn a_rolling_restart_loses_nothing_and_spreads_the_clients() -> Outcome {
    let mut cluster = Cluster::with(4, &["--rate-limit", "0"]).await?;
    let recorder = Recorder::new();
    let habits = |pace| Habits::new("tea", pace, 0);
    let mut people = Vec::new();
    for count in 0..43 {
        let pace = if count < 3 {
            Pace::Steady(50)
        } else {
            Pace::Silent
        };
        let name = format!("person{count}");
        people.push(Roamer::start(&recorder, &cluster.nodes, &name, habits(pace)).await?);
    }
    let mut returns = Vec::new();
    for place in 0..4 {
        let node = &mut cluster.nodes[place];
        let origin = node.origin.clone();
        let there: Vec<_> = people
            .iter()
            .map(|person| person.at().as_ref() == Some(&origin))
            .collect();
        node.process.stop(secs(5) + NOISE).await?;
        let mut back = Vec::new();
        for (person, was_there) in people.iter_mut().zip(there) {
            person.is_away_from(&origin, PATIENCE).await?;
            if was_there {
                let moved = person.moves();
                back.extend(moved.last().cloned());
            }
        }
        returns.push(back);
        node.again().await?;
        node.takes_clients(PATIENCE).await?;
        cluster.linked(PATIENCE).await?;
    }
    for talker in &mut people[..3] {
        talker.hush(PATIENCE).await?;
    }
    let checked = recorder.check(&cluster.nodes, "tea").await?;
    say!("{checked}");
    assert_eq!(checked.verdict.to_the_end, people.len());
    let good = returns.iter().filter(|back| follows_and_spreads(back));
    // A busy machine may hold all clients back for longer than they are spread, but not each time.
    let good = good.count();
    assert!(good >= 2, "only the clients of {good} of 4 nodes did so");
    Ok(())
}

/// Whether most of these clients, who lost one node, went where they were sent, and they came back
/// in no one instant.
fn follows_and_spreads(back: &[Move]) -> bool {
    let sent = |moved: &&Move| moved.named.contains(&moved.to);
    let followed = back.iter().filter(sent).count();
    let mut times: Vec<_> = back.iter().map(|moved| moved.back_at).collect();
    times.sort();
    let within = ms(10);
    let at_once = times.iter().map(|&from| {
        let same = |at: &&Instant| (from..from + within).contains(*at);
        times.iter().filter(same).count()
    });
    let at_once = at_once.max().unwrap_or_default();
    let span = times[times.len() - 1] - times[0];
    let away = back.iter().map(|moved| moved.back_at - moved.lost_at);
    let (median, _, longest) = spread(away);
    say!(
        "{} clients were sent away, {followed} went where they were sent, over {span:?}, {at_once} \
         at most within {within:?}; away for {median:?} (median), {longest:?} (longest)",
        back.len()
    );
    followed * 2 > back.len() && span >= within * 2 && at_once < back.len()
}
