//! What a broker must not be, what others may publish on it, and what a URL must not tell.

use anyhow::{Result, ensure};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

use crate::harness::buses::{bus_of, flags, nodes_at, nodes_with};
use crate::harness::engines::Broker;
use crate::harness::engines::redis::{Redis, Reply, Resp};
use crate::harness::process::Launch;
use crate::harness::sealed::Seal;
use crate::harness::tools::free_port;
use crate::harness::{
    Client, Node, Outcome, PATIENCE, Recorder, eventually, linked, ms, say, secs, spawn,
};

/// Waits until a node says this of its broker.
async fn says(node: &Node, reason: &str, words: &str) -> Result<()> {
    eventually(PATIENCE, words, async || {
        let bus = bus_of(node).await?;
        ensure!(bus.state != "up" && bus.reason == reason, "{bus:?}");
        ensure!(
            bus.error.contains(words) && !bus.error.contains('\n'),
            "{bus:?}"
        );
        Ok(())
    })
    .await
}

/// Goal: whatever listens where a broker should be, the node starts, serves, says in one line what is wrong,
/// and tries again. Method: nobody; the node itself, over HTTP; a server that wants a password, given none
/// and another; one that lets the node in and lets it hear nothing; a replica.
#[tokio::test]
async fn what_is_no_broker_is_named_in_one_line() -> Outcome {
    let redis = Redis::start().await?;
    let port = redis.address().port().to_string();
    for words in [
        [
            "ACL", "SETUSER", "chat", "on", ">right", "~*", "&*", "+@all",
        ]
        .as_slice(),
        &[
            "ACL",
            "SETUSER",
            "deaf",
            "on",
            ">right",
            "~*",
            "resetchannels",
            "+@all",
        ],
        &[
            "ACL", "SETUSER", "mute", "on", ">right", "~*", "&*", "+@all", "-publish",
        ],
    ] {
        redis.command(words).await?;
    }
    let replica = Redis::with(&["--replicaof", "127.0.0.1", &port]).await?;
    let nobody = format!("redis://127.0.0.1:{}", free_port()?);
    let http = free_port()?.to_string();
    let itself = format!("redis://127.0.0.1:{http}");
    let all = [
        (nobody, "refused", "nobody listens there"),
        (itself, "no_broker", "no Redis"),
        (redis.url_as("chat", "wrong"), "not_let_in", "WRONGPASS"),
        (redis.url_as("nobody", "right"), "not_let_in", "WRONGPASS"),
        (redis.url_as("deaf", "right"), "not_let_in", "NOPERM"),
        (redis.url_as("mute", "right"), "not_let_in", "NOPERM"),
        (replica.url(), "no_broker", "it is a replica"),
    ];
    let mut nodes = Vec::new();
    for (url, ..) in &all {
        let mut flags = flags(&[url], None);
        if url.ends_with(&http) {
            flags.extend(["--http".to_owned(), http.clone()]);
        }
        nodes.push(Node::start(flags).await?);
    }
    for (node, (_, reason, words)) in nodes.iter().zip(all) {
        says(node, reason, words).await?;
        node.takes_clients(PATIENCE).await?;
        let client = Client::joined(node, "ada", "tea").await?;
        client.send("tea", "its own clients are served").await?;
        // It goes on trying, and not too often: the pauses double from a tenth of a second.
        let since = node.process.ready_at.elapsed().as_secs_f64();
        let dials = bus_of(node).await?.dials;
        assert!(
            dials as f64 <= 8.0 + 10.0 * since,
            "{dials} dials in {since} s"
        );
    }
    let stops = nodes.iter_mut().map(|node| node.process.stop(secs(3)));
    futures::future::try_join_all(stops).await?;
    // Who may come in later is let in.
    redis.command(&["ACL", "SETUSER", "chat", "off"]).await?;
    let node = Node::start(flags(&[&redis.url_as("chat", "right")], None)).await?;
    says(&node, "not_let_in", "WRONGPASS").await?;
    redis.command(&["ACL", "SETUSER", "chat", "on"]).await?;
    crate::harness::buses::bus_is(&node, "up", PATIENCE).await?;
    Ok(())
}

/// A server that speaks Redis' protocol, confirms all, and never delivers anything.
async fn never_delivers(stream: TcpStream) -> Result<()> {
    let (reading, mut writing) = stream.into_split();
    let mut lines = BufReader::new(reading);
    let mut line = String::new();
    loop {
        line.clear();
        if lines.read_line(&mut line).await? == 0 {
            return Ok(());
        }
        let count: usize = line.trim().trim_start_matches('*').parse()?;
        let mut words = Vec::new();
        for _ in 0..count {
            line.clear();
            lines.read_line(&mut line).await?;
            let mut word = vec![0; line.trim().trim_start_matches('$').parse::<usize>()? + 2];
            lines.read_exact(&mut word).await?;
            words.push(String::from_utf8_lossy(&word[..word.len() - 2]).into_owned());
        }
        let answer = match words[0].as_str() {
            "PUBLISH" => ":1\r\n".to_owned(),
            "SUBSCRIBE" => {
                let each = words[1..].iter().zip(1..);
                let confirmed = each.map(|(name, nth)| {
                    format!(
                        "*3\r\n$9\r\nsubscribe\r\n${}\r\n{name}\r\n:{nth}\r\n",
                        name.len()
                    )
                });
                confirmed.collect()
            }
            "ROLE" => "*1\r\n$6\r\nmaster\r\n".to_owned(),
            _ => "+PONG\r\n".to_owned(),
        };
        writing.write_all(answer.as_bytes()).await?;
    }
}

/// Goal: a subscription that is confirmed and brings nothing is none, though all that is published is taken:
/// it is left after three seconds, and dialled again. Method: a server that does so.
#[tokio::test]
async fn a_subscription_that_is_dead_in_silence_is_left() -> Outcome {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("redis://{}", listener.local_addr()?);
    let serving = spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            drop(spawn(never_delivers(stream)));
        }
    });
    let node = Node::start(flags(&[&url], None)).await?;
    says(&node, "silent", "no beat for three seconds").await?;
    eventually(PATIENCE, "it is dialled again", async || {
        let bus = bus_of(&node).await?;
        ensure!(bus.dials >= 2, "{bus:?}");
        Ok(())
    })
    .await?;
    node.takes_clients(PATIENCE).await?;
    serving.abort();
    Ok(())
}

/// Goal: two meshes with different names share a server and know nothing of each other. Method: two nodes of
/// each; all four are listed as connected there, by names that an operator recognises.
#[tokio::test]
async fn meshes_of_other_names_on_one_server_are_strangers() -> Outcome {
    let redis = Redis::start().await?;
    let url = redis.url();
    let mut named = flags(&[&url], None);
    named.extend(["--mesh", "team-7", "--name", "blue node"].map(str::to_owned));
    let ours = nodes_at(&redis, None, 2).await?;
    let theirs = nodes_with(&named, 2).await?;
    for (node, other) in [(&ours[0], &ours[1]), (&theirs[0], &theirs[1])] {
        let mesh = node.mesh().await?;
        assert_eq!(mesh.links.len(), 1, "{mesh:?}");
        assert!(mesh.hears(&other.origin));
    }
    let clients = redis.command(&["CLIENT", "LIST"]).await?;
    let clients = clients.text()?;
    for node in &ours {
        let name = format!("name=chatmesh/main/{}/{} ", &node.origin[..4], node.origin);
        assert_eq!(clients.matches(&name).count(), 2, "{name}: {clients}");
    }
    let name = format!("name=chatmesh/team-7/blue_node/{} ", theirs[0].origin);
    assert_eq!(clients.matches(&name).count(), 2, "{name}: {clients}");
    // To how many its last message went, Redis has said.
    let heard_by = ours[0].metrics().await?;
    let heard_by = heard_by.get(&format!("bus_receivers{{bus=\"{url}\"}}"))?;
    assert!((1..=2).contains(&heard_by), "{heard_by}");
    Ok(())
}

/// Goal: whoever may publish on the server stops no node, and with a mesh secret forges nothing, makes
/// nobody live again, and says nothing twice. Method: bytes of many kinds on every channel of the mesh; with
/// a secret, all that was said there is recorded and said again, also to a node that comes later, when one
/// that said it is dead.
#[tokio::test]
async fn a_hostile_publisher_harms_nobody() -> Outcome {
    let redis = Redis::start().await?;
    for seal in [None, Some(Seal::new().await?)] {
        let mut nodes = nodes_at(&redis, seal.as_ref(), 3).await?;
        let mut spy = Resp::connect(redis.address()).await?;
        spy.ask(&["PSUBSCRIBE", "chatmesh:*"]).await?;
        let recorder = Recorder::new();
        let ada = recorder.client(&nodes[0], "ada").await?;
        let eve = recorder.client(&nodes[1], "eve").await?;
        for client in [&ada, &eve] {
            client.join("tea").await?;
        }
        for count in 0..20 {
            ada.send("tea", &format!("word {count}")).await?;
            eve.send("tea", &format!("other word {count}")).await?;
        }
        let [origin, other] = [&nodes[0].origin, &nodes[1].origin];
        let long = "x".repeat(2 << 20);
        for channel in [
            "chatmesh:{main}:beat".to_owned(),
            format!("chatmesh:{{main}}:o:{origin}"),
            format!("chatmesh:{{main}}:to:{origin}"),
        ] {
            let frame = format!("l\u{1}{origin}01234567rest");
            let beat = format!("b\u{1}{other}01234567rest");
            for bytes in [
                "",
                "l",
                "?0123456789abcdef",
                "!0123456789abcdef",
                &frame,
                &beat,
                &long,
            ] {
                redis.command(&["PUBLISH", &channel, bytes]).await?;
            }
        }
        if seal.is_some() {
            let mut killed = nodes.remove(1);
            recorder.kill(&mut killed).await?;
            let mut said = Vec::new();
            while let Ok(Ok(reply)) = tokio::time::timeout(ms(300), spy.next()).await {
                said.push(reply);
                if said.len() > 400 {
                    break;
                }
            }
            let late = nodes_at(&redis, seal.as_ref(), 1).await?;
            nodes.extend(late);
            for reply in &said {
                say_again(&redis, reply).await?;
            }
            linked(&nodes, PATIENCE).await?;
            let mesh = nodes[2].mesh().await?;
            assert_eq!(mesh.up(), 2, "the dead do not live again: {mesh:?}");
            say!("{} messages were said again", said.len());
        }
        for node in &nodes {
            let bus = bus_of(node).await?;
            assert_eq!(bus.state, "up", "{bus:?}");
        }
        ada.send("tea", "still here").await?;
        let checked = recorder.check(&nodes, "tea").await?;
        say!("{checked}");
    }
    Ok(())
}

/// Publishes what was heard, where it was heard.
async fn say_again(redis: &Redis, heard: &Reply) -> Result<()> {
    let Reply::Many(parts) = heard else {
        return Ok(());
    };
    let [_, _, channel, body] = &parts[..] else {
        return Ok(());
    };
    let body = match body {
        Reply::Bytes(bytes) => bytes,
        other => other.text()?.as_bytes(),
    };
    redis
        .command(&[b"PUBLISH", channel.text()?.as_bytes(), body])
        .await?;
    Ok(())
}

/// Goal: a password in a URL stands in no log, view, metric or error. Method: three ways to give it, one to
/// each of three nodes, and all that they say is looked through.
#[tokio::test]
async fn a_password_is_shown_nowhere() -> Outcome {
    let redis = Redis::start().await?;
    let rule = [
        "ACL",
        "SETUSER",
        "chat",
        "on",
        ">hush-hush",
        "~*",
        "&*",
        "+@all",
    ];
    redis.command(&rule).await?;
    let url = redis.url_as("chat", "hush-hush");
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("buses");
    std::fs::write(&file, format!("# by which nodes meet\n{url}\n"))?;
    let file = file.display().to_string();
    let launches = [
        Launch::new("chatnode", ["--bus", &url]),
        Launch::new("chatnode", [""; 0]).with("CHATNODE_BUS", &url),
        Launch::new("chatnode", ["--bus-file", &file]),
    ];
    let mut nodes = Vec::new();
    for launch in launches {
        nodes.push(Node::launch(launch.with("RUST_LOG", "trace")).await?);
    }
    linked(&nodes, PATIENCE).await?;
    for node in &mut nodes {
        for path in ["/api/mesh", "/metrics", "/readyz", "/mesh"] {
            let text = node.get(path).await?.text().await?;
            assert!(!text.contains("hush"), "{path}: {text}");
        }
        let said = node.process.log_text();
        assert!(
            said.contains("broker heard") && !said.contains("hush-hush"),
            "{said}"
        );
    }
    let wrong = Launch::new("chatnode", [""; 0]).with("CHATNODE_BUS", format!("{url}/7"));
    let ended = wrong.to_end(secs(5)).await?;
    assert_eq!(ended.code, Some(2));
    assert!(
        ended.stderr.contains("numbered databases"),
        "{}",
        ended.stderr
    );
    assert!(!ended.stderr.contains("hush"), "{}", ended.stderr);
    let help = Launch::new("chatnode", ["--help"]).with("CHATNODE_BUS", &url);
    let help = help.to_end(secs(5)).await?;
    assert!(!help.stdout.contains("hush"), "{}", help.stdout);
    Ok(())
}

/// Goal: what cannot work is refused at the start, in one line. Method: a broker beyond this machine without
/// a secret, one twice, flags of links without a broker, words that mean nothing.
#[tokio::test]
async fn buses_that_cannot_work_are_refused_at_the_start() -> Outcome {
    for (args, words) in [
        ("--bus redis://192.0.2.1", "--mesh-secret FILE"),
        (
            "--bus redis://127.0.0.1 --bus redis://127.0.0.1:6379/",
            "twice",
        ),
        ("--bus redis://127.0.0.1 --pub 5000", "--bus zmq"),
        (
            "--bus redis://127.0.0.1 --peer tcp://127.0.0.1:5",
            "--bus zmq",
        ),
        ("--bus redis://127.0.0.1 --sub 5000", "--bus zmq"),
        ("--bus tls", "--mesh-secret"),
        ("--bus kafka://127.0.0.1", "expected zmq"),
        ("--bus-file /nowhere", "/nowhere"),
        (
            "--bus redis://192.0.2.1 --insecure-mesh --http 127.0.0.1:0",
            "where each finds itself",
        ),
    ] {
        let launch = Launch::new("chatnode", args.split(' '));
        let ended = launch.to_end(secs(5)).await?;
        assert_eq!(ended.code, Some(2), "{args}: {}", ended.stderr);
        assert!(ended.stderr.contains(words), "{args}: {}", ended.stderr);
        assert_eq!(ended.stderr.trim().lines().count(), 1, "{}", ended.stderr);
    }
    Ok(())
}
