//! Nodes behind a load balancer: HAProxy and nginx, with the files of `docs/proxies/`.

use std::collections::BTreeSet;

use anyhow::ensure;
use serde_json::json;

use crate::harness::balancer::{Balancer, Make, SILENCE};
use crate::harness::bots::{Listener, Poster};
use crate::harness::browser::{Browser, CONNECTED};
use crate::harness::load::spread;
use crate::harness::raw::Raw;
use crate::harness::roamer::Ways;
use crate::harness::tools::{Events, free_port};
use crate::harness::{
    Client, Cluster, Duration, Expect, Habits, Instant, NOISE, Node, Outcome, PATIENCE, Pace,
    Plain, Recorder, Roamer, eventually, histories, linked, long, ms, say, secs,
};

/// How soon after its node was killed a client is in its room at another one.
const BACK_WITHIN: Duration = secs(2);
/// How soon an event is passed on: no buffer has to fill first.
const PROMPT: Duration = secs(1);
/// The node speaks to who is silent after this, and calls dead who is silent for longer.
const NODE_PINGS: Duration = secs(25);
const NODE_WAITS: Duration = secs(35);

/// Goal: behind HAProxy a client that knows one address loses nothing and is shown nothing twice,
/// whatever happens to nodes and to the balancer, wherever it comes back.
/// Method: `comes_and_goes`.
#[tokio::test]
async fn three_nodes_behind_haproxy_come_and_go_and_nothing_is_lost_or_doubled() -> Outcome {
    comes_and_goes(Make::HaProxy, &[]).await
}

/// Goal and method as for HAProxy, with nginx.
#[tokio::test]
async fn three_nodes_behind_nginx_come_and_go_and_nothing_is_lost_or_doubled() -> Outcome {
    comes_and_goes(Make::Nginx, &[]).await
}

/// Goal: silence of more than a minute ends nothing behind HAProxy. Method: `is_silent`.
#[tokio::test]
async fn silence_behind_haproxy_ends_no_connection() -> Outcome {
    is_silent(Make::HaProxy).await
}

/// Goal: silence of more than a minute ends nothing behind nginx. Method: `is_silent`.
#[tokio::test]
async fn silence_behind_nginx_ends_no_connection() -> Outcome {
    is_silent(Make::Nginx).await
}

/// Goal: through HAProxy nobody reaches what is for nodes only, and pages of strangers no node.
/// Method: `keeps_out`.
#[tokio::test]
async fn strangers_stay_out_behind_haproxy() -> Outcome {
    keeps_out(Make::HaProxy).await
}

/// Goal: through nginx nobody reaches what is for nodes only, and pages of strangers no node.
/// Method: `keeps_out`.
#[tokio::test]
async fn strangers_stay_out_behind_nginx() -> Outcome {
    keeps_out(Make::Nginx).await
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
        say(format_args!("the page was elsewhere after {took:?}"));
        assert!(took <= BACK_WITHIN + NOISE);
    }
    let mut asked = browser.asked().await?;
    // Pages of the browser itself.
    asked.retain(|host| !host.starts_with("chrome"));
    assert_eq!(asked, [own.replace("http", "ws"), own].into());
    Ok(())
}

/// Three people talk and twelve read, a program posts and two listen to events, all through the one
/// address. A node is killed and started again, one is drained, all are restarted one by one, the
/// balancer is told to read its file again, and is restarted. Then all is judged.
async fn comes_and_goes(make: Make, flags: &[&str]) -> Outcome {
    let flags = [&["--rate-limit", "0"], flags].concat();
    let mut cluster = Cluster::with(3, &flags).await?;
    let mut balancer = Balancer::start(make, &cluster.nodes).await?;
    let url = balancer.http.clone();
    let recorder = Recorder::new();
    let mut people = Vec::new();
    for count in 0..15 {
        let habits = Habits {
            room: "tea".to_owned(),
            pace: if count < 3 {
                Pace::Steady(30)
            } else {
                Pace::Silent
            },
            copies: 1,
            bytes: 0,
        };
        let (name, way) = (format!("person{count}"), Ways::Balancer(url.clone()));
        people.push(Roamer::start_at(&recorder, way, &name, habits).await?);
    }
    let listeners = [
        Listener::start(&url, "bots").await?,
        Listener::start(&url, "bots").await?,
    ];
    let poster = Poster::start(&url, "bots", ms(20));
    plain_text_passes(&url).await?;
    let everywhere: BTreeSet<_> = people.iter().filter_map(Roamer::at).collect();
    assert_eq!(everywhere.len(), 3, "no node is left out");
    are_answered(&mut people, 20).await?;

    let killed = cluster.nodes[0].origin.clone();
    recorder.kill(&mut cluster.nodes[0]).await?;
    let killed_at = Instant::now();
    let back = leave(&mut people, &killed).await?;
    let (back, _, longest) = spread(back.iter().map(|&at| at - killed_at));
    cluster.nodes[0].again_on_its_ports().await?;
    rejoins(&cluster, 0, &url).await?;

    let away = drained(&mut cluster, 1, &mut people).await?;
    rejoins(&cluster, 1, &url).await?;
    for place in 0..3 {
        drained(&mut cluster, place, &mut people).await?;
        rejoins(&cluster, place, &url).await?;
    }

    are_answered(&mut people, 20).await?;
    let moves = |people: &[Roamer]| people.iter().map(|it| it.moves().len()).sum::<usize>();
    let streams = |listeners: &[Listener]| listeners.iter().map(Listener::opened).sum::<usize>();
    let before = (moves(&people), streams(&listeners));
    for _ in 0..2 {
        balancer.reload().await?;
        plain_text_passes(&url).await?;
        are_answered(&mut people, 20).await?;
    }
    let after = (moves(&people), streams(&listeners));
    assert_eq!(before, after, "connections that a reload ended");
    let restarted_at = Instant::now();
    balancer.stop().await?;
    balancer.start_again().await?;
    are_answered(&mut people, 20).await?;
    let restarted = restarted_at.elapsed();

    let (posted, tries) = poster.stop().await?;
    for talker in &mut people {
        talker.hush(PATIENCE).await?;
    }
    let nodes: Vec<_> = cluster.nodes.iter().collect();
    let checked = recorder.check(&nodes, "tea", Expect::default()).await?;
    assert_eq!(checked.verdict.to_the_end, people.len());
    let history = histories(&nodes, "bots", PATIENCE).await?;
    for (mid, answer) in posted.iter().filter(|(_, answer)| answer.copies > 0) {
        let kept = history.iter().filter(|it| it.mid.as_ref() == Some(mid));
        assert_eq!(kept.count(), 1, "{mid} was answered with {answer:?}");
    }
    for listener in &listeners {
        listener.was_shown(&history, &[killed.clone()]).await?;
    }
    let shown = listeners.iter().flat_map(Listener::shown);
    let took = shown.filter_map(|(at, message)| Some(at - posted.get(&message.mid?)?.at));
    let (prompt, _, _) = spread(took);
    say(format_args!(
        "{make:?}: killed: back after {back:?} (median), {longest:?} (longest); drained: away for \
         {away:?} (longest); the balancer restarted: all were answered after {restarted:?}; {} \
         posts in {tries} tries, two listeners on {} streams, events after {prompt:?} (median); \
         {checked}",
        posted.len(),
        streams(&listeners),
    ));
    assert!(back <= BACK_WITHIN && longest <= BACK_WITHIN + NOISE);
    assert!(prompt <= PROMPT);
    Ok(())
}

/// Waits until each talker has so many more answers.
async fn are_answered(people: &mut [Roamer], more: usize) -> anyhow::Result<()> {
    for talker in &mut people[..3] {
        let due = talker.answered() + more;
        talker.has_said(due, PATIENCE).await?;
    }
    Ok(())
}

/// Waits until all who were at this node are elsewhere: when each was.
async fn leave(people: &mut [Roamer], origin: &str) -> anyhow::Result<Vec<Instant>> {
    let mut back = Vec::new();
    for person in people.iter_mut() {
        let before = person.moves().len();
        person.is_away_from(origin, PATIENCE).await?;
        back.extend(
            person
                .moves()
                .get(before..)
                .unwrap_or_default()
                .iter()
                .map(|it| it.back_at),
        );
    }
    Ok(back)
}

/// SIGTERM, and a start on the same ports; for how long its clients were away at the most.
async fn drained(
    cluster: &mut Cluster,
    place: usize,
    people: &mut [Roamer],
) -> anyhow::Result<Duration> {
    let node = &mut cluster.nodes[place];
    let origin = node.origin.clone();
    let before: Vec<_> = people.iter().map(|it| it.moves().len()).collect();
    node.process.stop(secs(5) + NOISE).await?;
    leave(people, &origin).await?;
    let mut away = Duration::ZERO;
    for (person, before) in people.iter().zip(before) {
        for moved in &person.moves()[before..] {
            away = away.max(moved.back_at - moved.lost_at);
        }
    }
    node.again_on_its_ports().await?;
    Ok(away)
}

/// Waits until a node takes clients, is linked again, and gets some through the balancer.
async fn rejoins(cluster: &Cluster, place: usize, url: &str) -> anyhow::Result<()> {
    let node = &cluster.nodes[place];
    node.takes_clients(PATIENCE).await?;
    linked(&cluster.nodes.iter().collect::<Vec<_>>(), PATIENCE).await?;
    eventually(PATIENCE, "a client comes to the node", async || {
        let client = Client::hello_at(url, "newcomer").await?;
        ensure!(
            client.origin() == node.origin,
            "it came to {}",
            client.origin()
        );
        Ok(())
    })
    .await
}

/// The chapter's bare text goes through, from one client to another.
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

/// A client that says nothing and hears nothing, one of bare text and one of events keep their
/// connections for longer than the balancer's time for silence, since the node breaks the silence
/// before. That time is shortened, to a little more than the node's; with `CHATMESH_LONG=1` it is
/// as in the file. The same three lose theirs where it is shorter than the node's: so it is this
/// time that counts. And events are passed on promptly.
async fn is_silent(make: Make) -> Outcome {
    let given: u64 = SILENCE.trim_end_matches('s').parse()?;
    assert!(NODE_PINGS < NODE_WAITS && NODE_WAITS < secs(given));
    let (silence, waits) = if long() {
        (SILENCE, secs(70))
    } else {
        ("27s", secs(31))
    };
    let cluster = Cluster::start(1).await?;
    let balancer = Balancer::with(make, &cluster.nodes, free_port()?, silence).await?;
    let hasty = Balancer::with(make, &cluster.nodes, free_port()?, "2s").await?;
    let mut kept = Quiet::start(&balancer.http).await?;
    let until = Instant::now() + waits;
    Quiet::start(&hasty.http).await?.is_cut().await?;
    // Silence is what is tested.
    tokio::time::sleep_until(until).await;
    kept.hears(&cluster.nodes[0]).await
}

/// Three that keep silent in a room.
struct Quiet {
    chat: Client,
    plain: Plain,
    events: Events,
}

impl Quiet {
    async fn start(url: &str) -> anyhow::Result<Self> {
        let chat = Client::hello_at(url, "quiet").await?;
        chat.join("tea").await?;
        Ok(Self {
            chat,
            plain: Plain::connect_at(url, "?room=tea").await?,
            events: Events::open_at(url, "/api/rooms/tea/events", None).await?,
        })
    }

    async fn is_cut(mut self) -> Outcome {
        self.chat.closed(PATIENCE).await?;
        self.plain.closed(PATIENCE).await?;
        let ended = self
            .events
            .next(PATIENCE)
            .await
            .map_err(|it| it.to_string());
        assert!(
            ended
                .as_ref()
                .is_err_and(|why| !why.starts_with("no event")),
            "{ended:?}"
        );
        Ok(())
    }

    async fn hears(&mut self, node: &Node) -> Outcome {
        assert_eq!(self.chat.is_closed(), None);
        let begun = Instant::now();
        let body = json!({ "from": "bot", "text": "at last" });
        let (status, answer) = node.post("/api/rooms/tea/messages", &body).await?;
        assert_eq!(status, 201, "{answer}");
        let event = self.events.next(PATIENCE).await?;
        let prompt = begun.elapsed();
        assert!(event.data.contains("at last"), "{event:?}");
        self.chat.message(PATIENCE, "at last").await?;
        self.plain.line(PATIENCE, "at last").await?;
        say(format_args!("an event was passed on after {prompt:?}"));
        assert!(prompt <= PROMPT + NOISE);
        Ok(())
    }
}

/// The nodes behind the balancer let whoever reaches them into the mesh (`--insecure-mesh`), and
/// know the balancer's name by `--allow-origin`. What PROTOCOL.md calls internal is asked for in
/// many spellings, and handshakes come under right and wrong names.
async fn keeps_out(make: Make) -> Outcome {
    let port = free_port()?;
    let own = format!("http://127.0.0.1:{port}");
    let flags = [
        "--insecure-mesh",
        "--allow-origin",
        "https://chat.example.org",
        "--allow-origin",
        &own,
    ];
    let cluster = Cluster::with(2, &flags).await?;
    let balancer = Balancer::with(make, &cluster.nodes, port, SILENCE).await?;
    let address = balancer.http.trim_start_matches("http://");
    let node = &cluster.nodes[0];
    let log = format!("log/{}?after=0&through=1", node.origin);
    for internal in ["members", &log] {
        let direct = node.get(&format!("/mesh/{internal}")).await?;
        assert_eq!(
            direct.status(),
            200,
            "/mesh/{internal} is there at the node"
        );
    }
    for internal in [
        "members",
        "members?",
        "members/",
        "hello",
        "hello/x.js",
        &log,
        "log",
        "",
    ] {
        for mesh in [
            "/mesh/",
            "//mesh/",
            "/mesh//",
            "/%6desh/",
            "/x/../mesh/",
            "/mesh%2f",
            "/./mesh/",
        ] {
            for method in ["GET", "POST"] {
                let path = format!("{mesh}{internal}");
                let answer = asked(address, method, &path, "").await?;
                assert!(
                    (400..500).contains(&answer),
                    "{method} {path} is answered {answer}"
                );
                let encoded = path.replace("mem", "%6Dem").replace("hel", "%68el");
                let answer = asked(address, method, &encoded, "").await?;
                assert!(
                    (400..500).contains(&answer),
                    "{method} {encoded} is answered {answer}"
                );
            }
        }
    }
    for page in [
        "/mesh",
        "/mesh/main.js",
        "/",
        "/main.js",
        "/api/mesh",
        "/readyz",
    ] {
        assert_eq!(asked(address, "GET", page, "").await?, 200, "GET {page}");
    }

    let by_name = "Host: chat.example.org\r\nOrigin: https://chat.example.org\r\n";
    let by_number = format!("Host: {address}\r\nOrigin: {own}\r\n");
    let of_a_stranger = format!("Host: {address}\r\nOrigin: https://evil.example\r\n");
    let no_browser = format!("Host: {address}\r\n");
    let unknown = "Host: evil.example\r\n";
    for (names, status) in [
        (by_name, 101),
        (&by_number, 101),
        (&no_browser, 101),
        (&of_a_stranger, 403),
        (unknown, 421),
    ] {
        for path in ["/ws", "/"] {
            let answer = asked(address, "GET", path, &upgrade(names)).await?;
            assert_eq!(answer, status, "{path} {names}");
        }
    }
    let untold = Cluster::start(1).await?;
    let balancer = Balancer::start(make, &untold.nodes).await?;
    let address = balancer.http.trim_start_matches("http://");
    let by_number = format!("Host: {address}\r\nOrigin: {}\r\n", balancer.http);
    for (names, status) in [(by_name, 421), (&by_number, 403)] {
        let answer = asked(address, "GET", "/ws", &upgrade(names)).await?;
        assert_eq!(answer, status, "without --allow-origin: {names}");
    }
    Ok(())
}

fn upgrade(names: &str) -> String {
    format!(
        "{names}Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    )
}

/// The status of the answer to a request with these lines in its head.
async fn asked(address: &str, method: &str, path: &str, head: &str) -> anyhow::Result<u16> {
    let host = if head.is_empty() {
        "Host: localhost\r\n"
    } else {
        ""
    };
    let request = format!("{method} {path} HTTP/1.1\r\n{host}{head}\r\n");
    Ok(Raw::ask(address, request.as_bytes(), PATIENCE)
        .await?
        .status)
}
