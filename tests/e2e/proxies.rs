//! Nodes behind a load balancer: HAProxy and nginx, with the files of `docs/proxies/`.

use std::collections::BTreeSet;

use anyhow::ensure;

use crate::harness::balancer::{Balancer, Make, SILENCE};
use crate::harness::bots::{Listener, Poster};
use crate::harness::browser::{Browser, CONNECTED};
use crate::harness::load::spread;
use crate::harness::roamer::{Move, Ways};
use crate::harness::tools::free_port;
use crate::harness::{
    Client, Cluster, Duration, Habits, Instant, NOISE, Node, Outcome, PATIENCE, Pace, Plain,
    Recorder, Roamer, eventually, histories, ms, say, secs,
};

/// How soon after its node was killed a client is in its room at another one.
const BACK_WITHIN: Duration = secs(2);
/// How soon an event comes through: no buffer has to fill first, and no timer to run out.
const PROMPT: Duration = ms(100);
/// Of the people the first so many talk.
const TALKERS: usize = 3;

/// Goal: behind HAProxy a client that knows one address loses nothing and is shown nothing twice,
/// whatever happens to nodes and to the balancer, wherever it comes back.
/// Method: `comes_and_goes`.
#[tokio::test]
async fn three_nodes_behind_haproxy_come_and_go_and_nothing_is_lost_or_doubled() -> Outcome {
    comes_and_goes(Make::HaProxy).await
}

/// Goal and method as for HAProxy, with nginx.
#[tokio::test]
async fn three_nodes_behind_nginx_come_and_go_and_nothing_is_lost_or_doubled() -> Outcome {
    comes_and_goes(Make::Nginx).await
}

/// Goal: the same of nodes with disks that are restarted one by one, which is how they are updated.
/// Method: each has a folder of its own, and is drained and started again in it.
#[tokio::test]
async fn nodes_with_disks_behind_nginx_are_restarted_one_by_one_and_nothing_is_lost() -> Outcome {
    let folder = tempfile::tempdir()?;
    let mut cluster = Cluster::with(0, &[]).await?;
    for name in ["a", "b", "c"] {
        let data = folder.path().join(name).display().to_string();
        let registry = cluster.registry.url.clone();
        let flags = [
            "--rate-limit",
            "0",
            "--registry",
            &registry,
            "--data",
            &data,
        ];
        cluster.nodes.push(Node::start(flags).await?);
    }
    cluster.linked(PATIENCE).await?;
    let mut stage = Stage::set(Make::Nginx, cluster).await?;
    stage.rolling().await?;
    let checked = stage.judged(&[]).await?;
    say!("with disks: {checked}");
    Ok(())
}

/// Goal: a page that came from a balancer goes on through it, and never dials a node, which browsers
/// may not reach. Method: drain the node where its socket is, kill the next; read what the
/// browser asked for of the network.
#[tokio::test]
async fn a_page_behind_a_balancer_goes_on_through_it() -> Outcome {
    let port = free_port()?;
    let own = format!("http://127.0.0.1:{port}");
    let mut cluster = Cluster::with(3, &["--allow-origin", &own]).await?;
    let balancer = Balancer::with(Make::HaProxy, &cluster.nodes, port, SILENCE).await?;
    let browser = Browser::open(&balancer.http).await?;
    browser.status(CONNECTED, PATIENCE).await?;
    let mut quickest = PATIENCE;
    for round in 0..2 {
        let mut place = 0;
        for (at, node) in cluster.nodes.iter().enumerate() {
            if node.mesh().await?.clients > 0 {
                place = at;
            }
        }
        let node = &mut cluster.nodes[place];
        let begun = Instant::now();
        if round == 0 {
            node.process.stop(secs(5) + NOISE).await?;
        } else {
            node.process.kill().await?;
        }
        cluster.nodes.remove(place);
        let left = &cluster.nodes;
        eventually(PATIENCE, "the page is at a node that is left", async || {
            let mut clients = 0;
            for node in left {
                clients += node.mesh().await?.clients;
            }
            ensure!(clients == 1, "{clients} clients");
            Ok(())
        })
        .await?;
        browser.status(&["resumed"], PATIENCE).await?;
        let took = begun.elapsed();
        say!("the page was elsewhere after {took:?}");
        quickest = quickest.min(took);
    }
    // A busy machine may hold a browser back, but not each time.
    assert!(quickest <= BACK_WITHIN + NOISE);
    let mut asked = browser.asked().await?;
    // Pages of the browser itself.
    asked.retain(|host| !host.starts_with("chrome"));
    assert_eq!(asked, [own.replace("http", "ws"), own].into());
    Ok(())
}

/// A node is killed and started again, one is drained, all are restarted one by one, the balancer is
/// told to read its file again, and is restarted: see [`Stage`]. Then all is judged.
async fn comes_and_goes(make: Make) -> Outcome {
    let cluster = Cluster::with(3, &["--rate-limit", "0"]).await?;
    let mut stage = Stage::set(make, cluster).await?;
    let killed = stage.cluster.nodes[0].origin.clone();
    let back = stage.killed(0).await?;
    let away = stage.rolling().await?;

    let before = stage.connections();
    for _ in 0..2 {
        stage.balancer.reload().await?;
        plain_text_passes(&stage.url).await?;
        stage.are_answered(10).await?;
    }
    assert_eq!(before, stage.connections(), "a reload ends none");
    let restarted = Instant::now();
    stage.balancer.stop().await?;
    stage.balancer.start_again().await?;
    stage.are_answered(10).await?;
    let restarted = restarted.elapsed();

    let checked = stage.judged(&[killed]).await?;
    let (back, _, longest) = spread(back);
    say!(
        "{make:?}: killed: back after {back:?} (median), {longest:?} (longest); drained: away for \
         {away:?} (longest); the balancer restarted: all were answered after {restarted:?}; {checked}"
    );
    assert!(back <= BACK_WITHIN && longest <= BACK_WITHIN + NOISE);
    Ok(())
}

/// Three people talk and twelve read, a program posts and two listen to events, all through the one
/// address of a balancer.
struct Stage {
    cluster: Cluster,
    balancer: Balancer,
    url: String,
    recorder: Recorder,
    people: Vec<Roamer>,
    listeners: [Listener; 2],
    poster: Poster,
}

impl Stage {
    /// Waits until all are there, no node is left out, and messages flow.
    async fn set(make: Make, cluster: Cluster) -> anyhow::Result<Self> {
        let balancer = Balancer::start(make, &cluster.nodes).await?;
        let url = balancer.http.clone();
        let recorder = Recorder::new();
        let mut people = Vec::new();
        for count in 0..15 {
            let talks = count < TALKERS;
            let habits = Habits {
                room: "tea".to_owned(),
                watches: None,
                pace: if talks {
                    Pace::Steady(10)
                } else {
                    Pace::Silent
                },
                copies: 1,
                bytes: 0,
            };
            let (name, way) = (format!("person{count}"), Ways::Balancer(url.clone()));
            people.push(Roamer::start_at(&recorder, way, &name, habits).await?);
        }
        let everywhere: BTreeSet<_> = people.iter().filter_map(Roamer::at).collect();
        ensure!(everywhere.len() == 3, "all are at {everywhere:?}");
        let listeners = [
            Listener::start(&url, "bots").await?,
            Listener::start(&url, "bots").await?,
        ];
        let poster = Poster::start(&url, "bots", ms(50));
        plain_text_passes(&url).await?;
        let mut stage = Self {
            cluster,
            balancer,
            url,
            recorder,
            people,
            listeners,
            poster,
        };
        stage.are_answered(10).await?;
        Ok(stage)
    }

    /// `kill -9`, and a start on the same ports. How soon each of its clients was back.
    async fn killed(&mut self, place: usize) -> anyhow::Result<Vec<Duration>> {
        let node = &mut self.cluster.nodes[place];
        let origin = node.origin.clone();
        let before: Vec<_> = self.people.iter().map(|it| it.moves().len()).collect();
        self.recorder.kill(node).await?;
        let killed = Instant::now();
        let moves = self.have_left(&origin, &before).await?;
        self.cluster.nodes[place].again_on_its_ports().await?;
        self.is_back(place).await?;
        ensure!(!moves.is_empty(), "nobody was there");
        Ok(moves.iter().map(|it| it.back_at - killed).collect())
    }

    /// SIGTERM and a start on the same ports, of one node after the other, each when the one before is
    /// back. For how long any client was away at the most.
    async fn rolling(&mut self) -> anyhow::Result<Duration> {
        let mut away = Duration::ZERO;
        for place in 0..3 {
            let node = &mut self.cluster.nodes[place];
            let origin = node.origin.clone();
            let before: Vec<_> = self.people.iter().map(|it| it.moves().len()).collect();
            node.process.stop(secs(5) + NOISE).await?;
            let moves = self.have_left(&origin, &before).await?;
            let longest = moves.iter().map(|it| it.back_at - it.lost_at).max();
            away = away.max(longest.unwrap_or_default());
            self.cluster.nodes[place].again_on_its_ports().await?;
            self.is_back(place).await?;
        }
        self.are_answered(10).await?;
        Ok(away)
    }

    /// Waits until each talker has so many more answers.
    async fn are_answered(&mut self, more: usize) -> anyhow::Result<()> {
        for talker in &mut self.people[..TALKERS] {
            let due = talker.answered() + more;
            talker.has_said(due, PATIENCE).await?;
        }
        Ok(())
    }

    /// Waits until nobody is at this node any more: how all have moved since they had moved so often.
    async fn have_left(&mut self, origin: &str, before: &[usize]) -> anyhow::Result<Vec<Move>> {
        let mut moves = Vec::new();
        for (person, &before) in self.people.iter_mut().zip(before) {
            person.is_away_from(origin, PATIENCE).await?;
            moves.extend(person.moves().split_off(before));
        }
        Ok(moves)
    }

    /// Waits until a node takes clients, is linked again, and gets one through the balancer.
    async fn is_back(&self, place: usize) -> anyhow::Result<()> {
        let node = &self.cluster.nodes[place];
        node.takes_clients(PATIENCE).await?;
        self.cluster.linked(PATIENCE).await?;
        eventually(PATIENCE, "a client comes to the node", async || {
            let client = Client::hello_at(&self.url, "newcomer").await?;
            let at = client.origin();
            ensure!(at == node.origin, "it came to {at}");
            Ok(())
        })
        .await
    }

    /// How often clients have lost a connection, and listeners opened one.
    fn connections(&self) -> (usize, usize) {
        let moves = self.people.iter().map(|it| it.moves().len());
        (
            moves.sum(),
            self.listeners.iter().map(Listener::opened).sum(),
        )
    }

    /// All fall silent, and what was said, shown and answered is judged. What it found, in words.
    async fn judged(mut self, killed: &[String]) -> anyhow::Result<String> {
        let (_, streams) = self.connections();
        let (posted, tries) = self.poster.stop().await?;
        let (people, here) = (&mut self.people, &self.cluster.nodes[0].http);
        Roamer::rest(people, &self.recorder, here, "tea", PATIENCE).await?;
        let nodes: Vec<_> = self.cluster.nodes.iter().collect();
        let checked = self.recorder.check(&nodes, "tea").await?;
        let readers = checked.verdict.to_the_end;
        ensure!(readers == self.people.len(), "{readers} read to the end");
        let history = histories(&nodes, "bots", PATIENCE).await?;
        for (mid, answer) in posted.iter().filter(|(_, answer)| answer.copies > 0) {
            let kept = history.iter().filter(|it| it.mid.as_ref() == Some(mid));
            let count = kept.count();
            ensure!(
                count == 1,
                "{mid}, answered with {answer:?}, is there {count} times"
            );
        }
        for listener in &self.listeners {
            listener.was_shown(&history, killed).await?;
        }
        let shown = self.listeners.iter().flat_map(Listener::shown);
        let took = shown.filter_map(|(at, message)| Some(at - posted.get(&message.mid?)?.at));
        let (prompt, _, _) = spread(took);
        ensure!(prompt <= PROMPT, "events came after {prompt:?} (median)");
        Ok(format!(
            "{} posts in {tries} tries, two listeners on {streams} streams, events after {prompt:?} \
             (median); {checked}",
            posted.len()
        ))
    }
}

/// The plain form goes through, from one client to another.
async fn plain_text_passes(url: &str) -> anyhow::Result<()> {
    let room = format!("?room=plain{}", rand::random::<u32>());
    let [here, there] = [
        Plain::connect_at(url, &room).await?,
        Plain::connect_at(url, &room).await?,
    ];
    here.say("bare text");
    here.line(PATIENCE, "bare text").await?;
    there.line(PATIENCE, "bare text").await
}
