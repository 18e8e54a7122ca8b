//! Starting: the two commands of the README, ready lines, help, bad usage, taken ports, stopping.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::harness::load::spread;
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
        let mut launch = Launch::new("chatnode", [""; 0]);
        launch
            .variables
            .push(("CHATNODE_REGISTRY".to_owned(), registry.url.clone()));
        (registry.process, first, Node::launch(launch).await?)
    };
    linked(&[&first, &second], PATIENCE).await?;
    let took = second.process.ready_at.elapsed();
    say(format_args!(
        "linked both ways {took:?} after the ready line"
    ));
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
    let (median, _, worst) = spread(times);
    say(format_args!(
        "newcomers were linked with all after {median:?}, at worst {worst:?}"
    ));
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
        process.signal(rustix::process::Signal::TERM)?;
        assert_eq!(
            process.wait(secs(5) + NOISE).await?,
            (0, 0),
            "exit code, lines on stdout"
        );
    }
    Ok(())
}

/// Goal: SIGINT stops as SIGTERM does: exit 0.
/// Method: send it to both programs while they are linked and serve a client.
#[tokio::test]
async fn sigint_ends_both_programs_with_0() -> Outcome {
    let mut cluster = Cluster::start(1).await?;
    let client = Client::joined(&cluster.nodes[0], "ada", "lobby").await?;
    let node = &mut cluster.nodes[0].process;
    node.signal(rustix::process::Signal::INT)?;
    assert_eq!(node.wait(secs(5) + NOISE).await?.0, 0);
    let closed = client.closed(PATIENCE).await?;
    assert!([1001, 1012].contains(&closed.code), "{closed:?}");
    let registry = &mut cluster.registry.process;
    registry.signal(rustix::process::Signal::INT)?;
    assert_eq!(registry.wait(secs(5) + NOISE).await?.0, 0);
    Ok(())
}

/// Goal: `--help` is a reference: every flag and variable of the contract, on stdout, exit 0.
#[tokio::test]
async fn help_names_every_flag_and_variable() -> Outcome {
    let flags: [(&'static str, &[&str]); 2] = [
        ("registry", &["--http", "--lease", "--log"]),
        (
            "chatnode",
            &[
                "--http",
                "--pub",
                "--registry",
                "--mesh",
                "--peer",
                "--sub",
                "--advertise",
                "--www",
                "--name",
                "--data",
                "--data-messages",
                "--data-bytes",
                "--data-days",
                "--rate-limit",
                "--retain-messages",
                "--retain-bytes",
                "--allow-origin",
                "--insecure-mesh",
                "--log",
            ],
        ),
    ];
    for (program, flags) in flags {
        let help = Launch::new(program, ["--help"]).to_end(PATIENCE).await?;
        assert_eq!(help.code, Some(0));
        for flag in flags {
            let variable = format!("{program}_{}", flag.trim_start_matches('-'))
                .to_uppercase()
                .replace('-', "_");
            assert!(
                help.stdout.contains(flag),
                "{program} --help does not name {flag}"
            );
            assert!(
                help.stdout.contains(&variable),
                "{program} --help does not name {variable}"
            );
        }
    }
    Ok(())
}

/// Goal: bad usage exits 2 with one line on stderr that names the culprit, before any port is
/// bound. Method: each bad flag is given together with a port that is taken: a program that
/// bound first would complain about the port.
#[tokio::test]
async fn bad_usage_exits_2_with_one_line_before_any_port_is_bound() -> Outcome {
    let held = std::net::TcpListener::bind("127.0.0.1:0")?;
    let port = held.local_addr()?.port().to_string();
    let bad: &[(&'static str, &[&str], &str)] = &[
        ("chatnode", &["--colour"], "--colour"),
        ("chatnode", &["--pub", "70000"], "--pub"),
        ("chatnode", &["--pub", "x"], "--pub"),
        (
            "chatnode",
            &["--registry", "ftp://127.0.0.1:1"],
            "--registry",
        ),
        ("chatnode", &["--registry", ""], "--registry"),
        ("chatnode", &["--peer", "ipc:///tmp/x"], "--peer"),
        ("chatnode", &["--peer", "tcp://127.0.0.1:0"], "--peer"),
        ("chatnode", &["--sub", "0"], "--sub"),
        ("chatnode", &["--name", "a\u{200B}b"], "--name"),
        ("chatnode", &["--rate-limit=-1"], "--rate-limit"),
        (
            "chatnode",
            &["--retain-messages", "many"],
            "--retain-messages",
        ),
        ("chatnode", &["--retain-messages", "0"], "--retain-messages"),
        ("chatnode", &["--allow-origin", "evil"], "--allow-origin"),
        ("chatnode", &["--www", "/no/such/folder"], "--www"),
        ("chatnode", &["--pub", "0.0.0.0:0"], "--insecure-mesh"),
        ("chatnode", &["--log", "xml"], "--log"),
        ("chatnode", &["--data", "/dev/null"], "--data"),
        ("registry", &["--lease", "0"], "--lease"),
        ("registry", &["--lease", "61"], "--lease"),
        ("registry", &["--lease", "soon"], "--lease"),
        ("registry", &["--log", "xml"], "--log"),
        ("registry", &["extra"], "extra"),
    ];
    for (program, flags, culprit) in bad {
        let args = ["--http", &port].into_iter().chain(flags.iter().copied());
        let ended = Launch::new(program, args).to_end(PATIENCE).await?;
        assert_eq!(ended.code, Some(2), "{program} {flags:?}: {ended:?}");
        assert_eq!(ended.stdout, "", "{program} {flags:?}");
        assert_eq!(
            ended.stderr.trim_end().lines().count(),
            1,
            "{program} {flags:?}: {ended:?}"
        );
        assert!(
            ended.stderr.contains(culprit),
            "{program} {flags:?}: {ended:?}"
        );
        assert!(
            !ended.stderr.contains("panic"),
            "{program} {flags:?}: {ended:?}"
        );
    }
    Ok(())
}

/// Goal: a bad variable is named as the variable's flag is: exit 2, one line.
#[tokio::test]
async fn a_bad_variable_exits_2_with_one_line() -> Outcome {
    for (program, variable) in [("chatnode", "CHATNODE_HTTP"), ("registry", "REGISTRY_HTTP")] {
        let mut launch = Launch::new(program, [""; 0]);
        launch
            .variables
            .push((variable.to_owned(), "nowhere".to_owned()));
        let ended = launch.to_end(PATIENCE).await?;
        assert_eq!(ended.code, Some(2), "{ended:?}");
        assert_eq!(ended.stderr.trim_end().lines().count(), 1, "{ended:?}");
        assert!(ended.stderr.contains("nowhere"), "{ended:?}");
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
    say(format_args!("linked {took:?} after the registry appeared"));
    // A hello may have linked them before the second had registered.
    crate::harness::eventually(secs(3) + NOISE, "both are listed", async || {
        let listed = registry.listed().await?;
        anyhow::ensure!(listed.len() == 2, "{listed:?}");
        Ok(())
    })
    .await?;
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
