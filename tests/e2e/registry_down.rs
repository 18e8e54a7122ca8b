//! The registry dies, stays away, comes back empty, or there are two.

use registry::client::Listed;

use crate::harness::load::spread;
use crate::harness::process::{Launch, Process};
use crate::harness::sealed::{Over, over_each};
use crate::harness::{
    Cluster, Duration, Instant, Load, NOISE, Node, Outcome, PATIENCE, Recorder, Registry,
    eventually, linked, long, ms, say, secs,
};

over_each!(
    while_the_registry_is_away_nothing_is_lost_and_no_link_closes,
    a_node_joins_right_after_each_restart_of_the_registry,
);

/// The registry may die: a registry that is back empty knows every live node again within this time.
const LISTED_WITHIN: Duration = secs(3);
/// Joining is lossless: as in `start.rs`.
const LINKED_WITHIN: Duration = ms(500);

/// Goal: while the registry is away nothing is lost and no link closes, for 60 s (12 s unless
/// `CHATMESH_LONG=1`: longer than lease, silence and every back-off of a link); back empty, it
/// lists all nodes within 3 s; and a node that starts right after is linked as ever.
/// Method: three nodes under load; kill -9 the registry; watch every link all the time; start it
/// again on its port and a fourth node at once.
async fn while_the_registry_is_away_nothing_is_lost_and_no_link_closes(over: Over) -> Outcome {
    let away = if long() { secs(60) } else { secs(12) };
    if !long() {
        say!("the registry stays away {away:?}; 60 s with CHATMESH_LONG=1");
    }
    let mut cluster = Cluster::over(over, 3, &["--rate-limit", "0"]).await?;
    let recorder = Recorder::new();
    let mut readers = Vec::new();
    let mut load = Load::new();
    for (place, name) in ["ada", "bob", "eve"].into_iter().enumerate() {
        let reads = format!("{name}-reads");
        let node = &cluster.nodes[place];
        readers.push(recorder.reader(node, &reads, "tea").await?);
    }
    for (place, name) in ["ada", "bob", "eve"].into_iter().enumerate() {
        let sender = recorder.client(&cluster.nodes[place], name).await?;
        load.add(sender, "tea", 67);
    }
    cluster.registry.process.kill().await?;
    let until = Instant::now() + away;
    let mut ticks = tokio::time::interval(ms(200));
    while Instant::now() < until {
        ticks.tick().await;
        for node in &cluster.nodes {
            let mesh = node.mesh().await?;
            assert_eq!(
                mesh.up(),
                2,
                "a link closed while the registry was away: {mesh:?}"
            );
        }
    }
    cluster.registry.again().await?;
    let fourth = cluster.add().await?.origin.clone();
    cluster.linked(PATIENCE).await?;
    let newcomer = &cluster.nodes[3];
    let linked_after = newcomer.process.ready_at.elapsed();
    let listed_after = cluster.registry.lists(4, LISTED_WITHIN + NOISE).await?;
    say!(
        "registry back empty: all listed after {listed_after:?}; the newcomer linked after \
         {linked_after:?}"
    );
    assert!(cluster.registry.listed().await?.contains(&fourth));
    // The others may have to be told by their next renewal, so the bound is that of a registry that is back.
    assert!(
        linked_after <= LISTED_WITHIN + LINKED_WITHIN + NOISE,
        "{linked_after:?}"
    );
    newcomer.takes_clients(PATIENCE).await?;

    load.stop().await?;
    let checked = recorder.check(&cluster.nodes, "tea").await?;
    assert_eq!(checked.verdict.shown, 3 * checked.history.len());
    let (_, _, worst) = recorder.replies("tea");
    say!("{checked}; slowest reply {worst:?}");
    Ok(())
}

/// Goal: a registry killed and restarted under load, with a node joining right after each time.
/// Method: five rounds; the newcomer of each is linked and stays.
async fn a_node_joins_right_after_each_restart_of_the_registry(over: Over) -> Outcome {
    let mut cluster = Cluster::over(over, 2, &["--rate-limit", "0"]).await?;
    let recorder = Recorder::new();
    let _reader = recorder.reader(&cluster.nodes[1], "reader", "tea").await?;
    let sender = recorder.client(&cluster.nodes[0], "ada").await?;
    let load = Load::start([sender], "tea", 200);
    let mut times = (Vec::new(), Vec::new());
    for round in 0..5 {
        cluster.registry.process.kill().await?;
        cluster.registry.again().await?;
        cluster.add().await?;
        let listed = cluster
            .registry
            .lists(round + 3, LISTED_WITHIN + NOISE)
            .await?;
        cluster.linked(PATIENCE).await?;
        let newcomer = &cluster.nodes[round + 2];
        let took = newcomer.process.ready_at.elapsed();
        say!("round {round}: all listed after {listed:?}, linked after {took:?}");
        assert!(
            took <= LISTED_WITHIN + LINKED_WITHIN + NOISE,
            "linked only after {took:?}"
        );
        times.0.push(listed);
        times.1.push(took);
    }
    let (listed, linked) = (spread(times.0).0, spread(times.1).0);
    assert!(
        listed <= LISTED_WITHIN,
        "half of the lists took longer than {listed:?}"
    );
    assert!(
        linked <= LISTED_WITHIN + LINKED_WITHIN,
        "half of the links took {linked:?}"
    );
    load.stop().await?;
    recorder.check(&cluster.nodes, "tea").await?;
    Ok(())
}

/// Goal: with two registries each may die in turn: newcomers are found through the other.
/// Method: kill the first, add a node; bring the first back empty, kill the second, add another.
#[tokio::test]
async fn with_two_registries_each_may_die_in_turn() -> Outcome {
    let mut one = Registry::start().await?;
    let mut two = Registry::start().await?;
    let args = [
        "--registry",
        &one.url.clone(),
        "--registry",
        &two.url.clone(),
    ]
    .map(str::to_owned);
    let mut nodes = vec![
        Node::start(args.clone()).await?,
        Node::start(args.clone()).await?,
    ];
    linked(&nodes, PATIENCE).await?;
    let recorder = Recorder::new();
    let _reader = recorder.reader(&nodes[0], "reader", "tea").await?;
    nodes[1].takes_clients(PATIENCE).await?;
    let sender = recorder.client(&nodes[1], "ada").await?;
    let load = Load::start([sender], "tea", 20);

    one.process.kill().await?;
    nodes.push(Node::start(args.clone()).await?);
    linked(&nodes, PATIENCE).await?;
    let without_one = nodes[2].process.ready_at.elapsed();
    let one = Registry::on(one.address()).await?;
    one.lists(3, LISTED_WITHIN + NOISE).await?;

    two.process.kill().await?;
    nodes.push(Node::start(args).await?);
    linked(&nodes, PATIENCE).await?;
    let without_two = nodes[3].process.ready_at.elapsed();
    let states = nodes[3].mesh().await?.registries;
    assert_eq!(states.len(), 2, "{states:?}");
    assert_ne!(states[0].state, states[1].state, "one is down: {states:?}");
    say!("one of two registries down: linked after {without_one:?}, {without_two:?}");
    for took in [without_one, without_two] {
        assert!(took <= LINKED_WITHIN + NOISE, "linked only after {took:?}");
    }
    load.stop().await?;
    recorder.check(&nodes, "tea").await?;
    Ok(())
}

/// Goal: a killed node is unlisted within 7 s; one that stops by itself, at once.
#[tokio::test]
async fn a_killed_node_is_unlisted_within_7_s_and_a_stopped_one_at_once() -> Outcome {
    let mut cluster = Cluster::start(3).await?;
    cluster.nodes[2].process.stop(secs(5) + NOISE).await?;
    assert_eq!(
        cluster.registry.listed().await?.len(),
        2,
        "a node that stops leaves the list"
    );
    cluster.nodes[1].process.kill().await?;
    let killed = Instant::now();
    let took = eventually(secs(7) + NOISE, "the killed node is unlisted", async || {
        let listed = cluster.registry.listed().await?;
        anyhow::ensure!(listed == [cluster.nodes[0].origin.clone()], "{listed:?}");
        Ok(killed.elapsed())
    })
    .await?;
    assert!(
        took >= secs(3),
        "a lease of 6 s, renewed every 2 s, ended after {took:?}"
    );
    Ok(())
}

/// Goal: a registry that was stopped for longer than a lease drops nobody when it goes on: its time
/// stood still for the lease too. Who does not renew then goes. Method: a lease of a second, SIGSTOP.
#[tokio::test]
async fn a_stopped_registry_drops_nobody_when_it_goes_on() -> Outcome {
    let launch = Launch::new("registry", ["--http", "0", "--lease", "1"]);
    let process = Process::start(&launch).await?;
    let client = registry::client::Client::new(&process.ready_text("http")?)?;
    let said = registry::api::Registration {
        name: "ada".to_owned(),
        endpoints: [("pub".to_owned(), "tcp://127.0.0.1:9".to_owned())].into(),
        meta: Default::default(),
    };
    client.put("a", &said).await?;
    process.freeze()?;
    // Nothing can be observed of a stopped process but time.
    tokio::time::sleep(ms(1500)).await;
    process.thaw()?;
    let Listed::Changed(first) = client.list(None, None).await? else {
        panic!("no list")
    };
    assert_eq!(first.nodes.len(), 1);
    let next = client.list(Some(&first.token), Some(secs(10))).await?;
    let Listed::Changed(next) = next else {
        panic!("a silent node must go")
    };
    assert!(next.nodes.is_empty());
    Ok(())
}
