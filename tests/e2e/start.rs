//! Starting: the two commands of the README, ready lines, help, bad usage, taken ports, stopping.

use std::collections::BTreeSet;

use registry::client::Listed;
use rustix::process::Signal;
use serde_json::Value;

use crate::harness::metrics::told;
use crate::harness::netns::Namespaces;
use crate::harness::process::{Launch, Process};
use crate::harness::tools::{free_port, limited};
use crate::harness::{
    Client, Cluster, NOISE, Node, Outcome, PATIENCE, Plain, Registry, linked, ms, say, secs,
};

/// Joining is lossless: a started node is linked both ways within this time of registering.
const LINKED_WITHIN: std::time::Duration = ms(500);

/// Goal: the README's three commands give a mesh that chats, in both ways of speaking.
/// Method: run them exactly as written, in a network namespace of the test's own, so that the
/// default ports are free; without namespaces the same on ports named by flag and variable.
#[tokio::test]
async fn a_second_node_without_flags_links_within_500_ms_and_both_chat() -> Outcome {
    let own = Namespaces::enter("ports named by flag and variable")?;
    let (registry, first, second) = if own.is_some() {
        let process = Process::start(&Launch::new("registry", [""; 0])).await?;
        assert_eq!(process.ready_text("http")?, "http://127.0.0.1:7171");
        let first = Node::start(["--http", "8080"]).await?;
        assert_eq!(first.http, "http://127.0.0.1:8080");
        (process, first, Node::start([""; 0]).await?)
    } else {
        limited(
            "default ports",
            "flags and variables",
            "other programs may hold them",
        )?;
        let registry = Registry::start().await?;
        let first = Node::start(["--registry", &registry.url]).await?;
        let launch = Launch::new("chatnode", [""; 0]).with("CHATNODE_REGISTRY", &registry.url);
        (registry.process, first, Node::launch(launch).await?)
    };
    linked(&[&first, &second], PATIENCE).await?;
    let took = second.process.ready_at.elapsed();
    say!("linked both ways {took:?} after the ready line");
    assert!(
        took <= LINKED_WITHIN + NOISE,
        "linked only {took:?} after the ready line"
    );

    second.takes_clients(PATIENCE).await?;
    let ada = Client::joined(&first, "ada", "lobby").await?;
    let bob = Client::joined(&second, "bob", "lobby").await?;
    let here = Plain::connect(&first, "").await?;
    let there = Plain::connect(&second, "").await?;
    ada.send("lobby", "from ada").await?;
    bob.send("lobby", "from bob").await?;
    here.say("bare from here");
    there.say("bare from there");
    for text in ["from ada", "from bob", "bare from here", "bare from there"] {
        ada.message(PATIENCE, text).await?;
        bob.message(PATIENCE, text).await?;
        here.line(PATIENCE, text).await?;
        there.line(PATIENCE, text).await?;
    }
    drop(registry);
    Ok(())
}

/// Goal: a started node is linked both ways with every live node within 500 ms.
/// Method: a mesh that grows from two to nine, one node at a time; the median of the times from
/// ready line to linked, so that one hiccup of the machine proves nothing.
#[tokio::test]
async fn each_newcomer_is_linked_with_all_within_500_ms() -> Outcome {
    let mut cluster = Cluster::start(2).await?;
    let mut times = Vec::new();
    for _ in 0..7 {
        cluster.add().await?;
        cluster.linked(PATIENCE).await?;
        let newcomer = &cluster.nodes[cluster.nodes.len() - 1];
        times.push(newcomer.process.ready_at.elapsed());
    }
    let (median, _, worst) = told("newcomers until they were linked with all", times);
    assert!(
        median <= LINKED_WITHIN,
        "half of the newcomers took longer than {median:?}"
    );
    assert!(
        worst <= LINKED_WITHIN + NOISE,
        "one newcomer took {worst:?}"
    );
    Ok(())
}

/// Goal: the ready line has the form of the contract, with real addresses, and is the only line.
/// Method: start both, compare the fields, use the addresses, stop, count the lines of stdout.
#[tokio::test]
async fn the_ready_line_is_the_only_line_on_stdout() -> Outcome {
    let mut registry = Registry::start().await?;
    let fields = |value: &Value| {
        value
            .as_object()
            .map(|object| object.keys().cloned().collect::<BTreeSet<_>>())
    };
    assert_eq!(
        fields(&registry.process.ready),
        fields(&serde_json::json!({"http":0,"ready":0}))
    );
    assert!(registry.url.starts_with("http://127.0.0.1:") && !registry.url.ends_with(":0"));
    let mut node = Node::start(["--registry", &registry.url, "--name", "tea room"]).await?;
    let expected = serde_json::json!({"http":0,"origin":0,"pub":0,"ready":0});
    assert_eq!(fields(&node.process.ready), fields(&expected));
    let alphabet = |c: char| c.is_ascii_lowercase() || ('2'..='7').contains(&c);
    assert!(
        node.origin.len() == 10 && node.origin.chars().all(alphabet),
        "{}",
        node.origin
    );
    assert!(
        node.publishes.starts_with("tcp://127.0.0.1:"),
        "{}",
        node.publishes
    );
    let mesh = node.get_json("/api/mesh").await?;
    assert_eq!(
        (&mesh["origin"], &mesh["name"]),
        (&node.origin.clone().into(), &"tea room".into())
    );
    for process in [&mut node.process, &mut registry.process] {
        process.signal(Signal::TERM)?;
        assert_eq!(
            process.wait(secs(5) + NOISE).await?,
            (0, 0),
            "exit code, lines on stdout"
        );
    }
    Ok(())
}

/// Goal: SIGINT and SIGTERM alike end both programs with 0, whoever waits, and free the port.
/// Method: send each to a node that serves a client, and to the registry while a poll waits there;
/// start the next registry in its place, which does not let the poll of before wait.
#[tokio::test]
async fn sigint_and_sigterm_end_both_programs_with_0() -> Outcome {
    for signal in [Signal::INT, Signal::TERM] {
        let mut cluster = Cluster::start(1).await?;
        let client = Client::joined(&cluster.nodes[0], "ada", "lobby").await?;
        let node = &mut cluster.nodes[0].process;
        node.signal(signal)?;
        assert_eq!(node.wait(secs(5) + NOISE).await?.0, 0);
        let closed = client.closed(PATIENCE).await?;
        assert!([1001, 1012].contains(&closed.code), "{closed:?}");

        let asker = registry::client::Client::new(&cluster.registry.url)?;
        let Listed::Changed(before) = asker.list(None, None).await? else {
            panic!("no list")
        };
        let poll = asker.list(Some(&before.token), Some(secs(50)));
        let stop = async {
            // The poll's request is on its way first; whether it is parked yet does not matter.
            asker.list(None, None).await?;
            cluster.registry.process.signal(signal)
        };
        let (poll, stopped) = tokio::join!(poll, stop);
        stopped?;
        assert!(matches!(poll, Ok(Listed::Unchanged) | Err(_)), "{poll:?}");
        assert_eq!(cluster.registry.process.wait(secs(5) + NOISE).await?.0, 0);
        let _again = Registry::on(cluster.registry.address()).await?;
        let list = asker.list(Some(&before.token), Some(secs(50))).await?;
        let Listed::Changed(after) = list else {
            panic!("a foreign token must not wait")
        };
        assert_ne!(after.epoch, before.epoch);
    }
    Ok(())
}

/// Goal: a port that is taken is an error, exit 2, and one line names the address.
/// Method: hold each port and start on it.
#[tokio::test]
async fn a_taken_port_is_an_error_that_names_it() -> Outcome {
    let held = std::net::TcpListener::bind("127.0.0.1:0")?;
    let port = held.local_addr()?.port().to_string();
    for (program, flag) in [
        ("chatnode", "--http"),
        ("chatnode", "--pub"),
        ("registry", "--http"),
    ] {
        let ended = Launch::new(program, [flag, &port]).to_end(PATIENCE).await?;
        assert_eq!(ended.code, Some(2), "{program} {flag}: {ended:?}");
        assert_eq!(
            ended.stdout, "",
            "{program} {flag}: ready with a taken port"
        );
        let last = ended.stderr.trim_end().lines().last().unwrap_or_default();
        assert!(last.contains(&port), "{program} {flag}: {ended:?}");
    }
    Ok(())
}

/// Goal: the page is in the binary; `--www` serves a folder of one's own instead.
/// Method: run from an empty folder without it, then with a folder that has another page.
#[tokio::test]
async fn the_page_is_served_from_any_folder_and_www_replaces_it() -> Outcome {
    let folder = tempfile::tempdir()?;
    let mut launch = Launch::new("chatnode", ["--registry", "none"]);
    launch.folder = Some(folder.path().to_owned());
    let node = Node::launch(launch).await?;
    let page = node.get("/").await?;
    assert_eq!(page.status(), 200);
    let header = |name: &str| {
        page.headers()
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
            .to_owned()
    };
    assert!(header("content-type").starts_with("text/html"));
    let policy = header("content-security-policy");
    assert!(policy.contains("default-src 'none'") || policy.contains("default-src 'self'"));
    assert!(!policy.contains("unsafe"), "{policy}");
    assert_eq!(header("x-content-type-options"), "nosniff");
    let text = page.text().await?;
    for id in [
        "name",
        "room-input",
        "rooms",
        "transcript",
        "compose",
        "send",
        "members",
        "members-count",
        "typing",
        "status",
    ] {
        assert!(
            text.contains(&format!("id=\"{id}\"")),
            "the page has no #{id}"
        );
    }
    assert!(
        !text.contains("<script>") && !text.contains("onclick="),
        "inline script"
    );

    std::fs::write(folder.path().join("index.html"), "<p>my own page</p>")?;
    std::fs::write(folder.path().join("extra.css"), "p { color: red }")?;
    let own = folder.path().to_str().unwrap();
    let node = Node::start(["--registry", "none", "--www", own]).await?;
    let page = node.get("/").await?;
    assert!(
        page.headers().get("content-security-policy").is_none(),
        "a CSP for a foreign page"
    );
    assert_eq!(page.text().await?, "<p>my own page</p>");
    let style = node.get("/extra.css").await?;
    assert!(
        style.headers()["content-type"]
            .to_str()?
            .starts_with("text/css")
    );
    let plain = Plain::connect(&node, "").await?;
    plain.say("still a chat");
    plain.line(PATIENCE, "still a chat").await?;
    Ok(())
}

/// Goal: a node whose registry is not there starts, serves, says so, and joins when it appears.
/// Method: two nodes with the address of nobody; then the registry is started there.
#[tokio::test]
async fn nodes_start_without_their_registry_and_join_when_it_appears() -> Outcome {
    let address = format!("127.0.0.1:{}", free_port()?);
    let url = format!("http://{address}");
    let first = Node::start(["--registry", &url]).await?;
    let second = Node::start(["--registry", &url]).await?;
    first.takes_clients(secs(5) + PATIENCE).await?;
    let ada = Client::joined(&first, "ada", "lobby").await?;
    ada.send("lobby", "anybody here?").await?;
    assert_eq!(first.mesh().await?.up(), 0);
    let state = first.mesh().await?.registries;
    assert!(
        state.len() == 1 && state[0].url == url && state[0].state != "up",
        "{state:?}"
    );

    let registry = Registry::on(&address).await?;
    let took = linked(&[&first, &second], secs(3) + NOISE).await?;
    say!("linked {took:?} after the registry appeared");
    // A hello may have linked them before the second had registered.
    registry.lists(2, secs(3) + NOISE).await?;
    crate::harness::converged(&[&first, &second], PATIENCE).await?;
    let bob = Client::hello(&second, "bob").await?;
    let joined = bob
        .join_with(serde_json::json!({ "room": "lobby", "history": 10 }))
        .await?;
    assert_eq!(
        joined.messages.len(),
        1,
        "what was said before the link is there: {joined:?}"
    );
    Ok(())
}
