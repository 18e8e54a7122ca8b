//! What is said of a mesh secret that does not fit: at the start in one line, and later wherever one
//! looks.

use std::os::unix::fs::PermissionsExt as _;

use anyhow::ensure;

use crate::harness::browser::Browser;
use crate::harness::process::Launch;
use crate::harness::sealed::{Over, SecretFiles, sealed_node, sealed_registry, secret};
use crate::harness::{Node, Outcome, PATIENCE, Registry, eventually};
use crate::strangers::says;

/// Which program, with what, and the mend that it names; `@NAME` is a file of secrets, and 192.0.2.0/24 is
/// nobody's.
const REFUSED: [(&str, &str, &str); 23] = [
    (
        "chatnode",
        "--registry http://192.0.2.1:7171",
        "`chatnode secret > FILE`",
    ),
    (
        "chatnode",
        "--registry tls://192.0.2.1:7171 --mesh-secret @good",
        "bind --http",
    ),
    (
        "chatnode",
        "--mesh-secret @good --insecure-mesh",
        "leave --insecure-mesh out",
    ),
    (
        "chatnode",
        "--mesh-secret @good --registry http://127.0.0.1:1",
        "is tls://HOST:PORT",
    ),
    (
        "chatnode",
        "--registry tls://127.0.0.1:1",
        "with --mesh-secret",
    ),
    (
        "chatnode",
        "--peer tls://127.0.0.1:1",
        "same --mesh-secret file",
    ),
    (
        "chatnode",
        "--mesh-secret @good --peer tcp://127.0.0.1:1",
        "expected tls://HOST:PORT",
    ),
    (
        "chatnode",
        "--mesh-secret @good --peer http://127.0.0.1:1",
        "expected tls://HOST:PORT",
    ),
    (
        "chatnode",
        "--mesh-secret @good --pub 5000",
        "leave --pub out",
    ),
    (
        "chatnode",
        "--mesh-secret @good --sub tcp://192.0.2.1:1",
        "node without --mesh-secret",
    ),
    ("chatnode", "--sub tcp://192.0.2.1:1", "add --insecure-mesh"),
    ("chatnode", "--mesh-secret @short", "line 1 is not"),
    (
        "chatnode",
        "--mesh-secret @empty",
        "`chatnode secret` prints one",
    ),
    ("chatnode", "--mesh-secret @twice", "line 2 is there twice"),
    ("chatnode", "--mesh-secret @open", "chmod 600 it"),
    ("chatnode", "--mesh-secret @weak", "begins with `cm1_`"),
    ("chatnode", "--mesh-secret @.", "it is no file"),
    ("chatnode", "--mesh-secret @none", "`chatnode secret` makes"),
    ("chatnode", "secret --registry @weak", "begins with `cm1_`"),
    ("registry", "--http 0 --mesh-secret @short", "line 1 is not"),
    (
        "registry",
        "--http 0 --mesh-secret @empty",
        "`chatnode secret` prints one",
    ),
    ("registry", "--http 0 --mesh-secret @open", "chmod 600 it"),
    (
        "registry",
        "--http 0 --mesh-secret @none",
        "`chatnode secret` makes",
    ),
];

/// Goal: what cannot work is said in one line before anything is bound, which names the mend and shows
/// no secret. Method: both programs, by hand; a line for each.
#[tokio::test]
async fn flags_that_do_not_go_with_a_secret_are_refused_with_one_line() -> Outcome {
    let files = SecretFiles::new()?;
    let line = secret(&[]).await?;
    let good = files.write("good", &line)?.display().to_string();
    files.write("short", "cm1_c2hvcnQ\n")?;
    files.write("empty", "\n")?;
    files.write("twice", &format!("{line}{line}"))?;
    let open = files.write("open", &line)?;
    std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o640))?;
    files.write("weak", &secret(&["--registry", &good]).await?)?;
    for (program, words, mend) in REFUSED {
        let args = words.split(' ').map(|word| match word.strip_prefix('@') {
            Some(name) => files.path(name).display().to_string(),
            None => word.to_owned(),
        });
        let ended = Launch::new(program, args).to_end(PATIENCE).await?;
        assert_eq!(ended.code, Some(2), "{words}: {ended:?}");
        let said: Vec<_> = ended.stderr.lines().collect();
        assert!(
            said.len() == 1 && said[0].contains(mend) && ended.stdout.is_empty(),
            "{words}: no {mend:?} in {ended:?}"
        );
        for shown in [line.trim(), "c2hvcnQ"] {
            assert!(!ended.stderr.contains(shown), "a secret is shown: {said:?}");
        }
    }
    Ok(())
}

/// Goal: a peer or a registry that speaks plain, or has another secret, is named with the reason in
/// `/api/mesh`, in `/readyz` and in the log, and the node serves all the same. Method: a node with a
/// registry and a peer of each kind; one without a secret at a registry that has one, and by hand at a
/// peer that has one.
#[tokio::test]
async fn who_has_no_secret_or_another_is_named_with_the_reason() -> Outcome {
    let files = SecretFiles::new()?;
    let mine = files.write("mine", &secret(&[]).await?)?;
    let other = files.write("other", &secret(&[]).await?)?;
    let plain_registry = Registry::start().await?;
    let (_sealed, other_registry) = sealed_registry("127.0.0.1:0", &other).await?;
    let plain = Node::start(["--registry", "none"]).await?;
    let others = Node::launch(sealed_node("none", &other, &[])).await?;
    let plain_at = plain.http.replace("http://", "tls://");
    let plain_registry = plain_registry.url.replace("http://", "tls://");
    let peers = ["--peer", &plain_at, "--peer", &others.publishes];
    let more = [&["--registry", &other_registry][..], &peers].concat();
    let node = Node::launch(sealed_node(&plain_registry, &mine, &more)).await?;
    says(&node, &plain_at, "not_sealed").await?;
    says(&node, &others.publishes, "other_key").await?;
    registry_is_named(&node, &plain_registry, "speaks no TLS").await?;
    registry_is_named(&node, &other_registry, "another mesh secret").await?;
    is_logged(&node, &[&plain_at, "not_sealed", "--mesh-secret"]).await?;
    is_logged(&node, &[&others.publishes, "other_key", "--mesh-secret"]).await?;
    node.takes_clients(PATIENCE).await?;

    let door = others.publishes.replace("tls://", "tcp://");
    let asked = other_registry.replace("tls://", "http://");
    let stranger = Node::start(["--registry", &asked, "--peer", &door]).await?;
    registry_is_named(&stranger, &asked, "secret_needed").await?;
    says(&stranger, &door, "no_publisher").await?;
    stranger.takes_clients(PATIENCE).await?;
    Ok(())
}

/// Waits until a node says this of a registry wherever one looks.
async fn registry_is_named(node: &Node, url: &str, error: &str) -> anyhow::Result<()> {
    eventually(PATIENCE, "the registry is named", async || {
        let mesh = node.get_json("/api/mesh").await?;
        let registries = mesh["registries"].as_array().cloned().unwrap_or_default();
        let found = registries.iter().find(|it| it["url"] == url);
        let said = found
            .and_then(|it| it["error"].as_str())
            .unwrap_or_default();
        ensure!(said.contains(error), "{mesh}");
        let ready = node.get("/readyz").await?.text().await?;
        ensure!(ready.contains(url) && ready.contains(error), "{ready}");
        Ok(())
    })
    .await?;
    is_logged(node, &[url, error]).await
}

/// Waits until one line of a node's log has all of these words.
async fn is_logged(node: &Node, words: &[&str]) -> anyhow::Result<()> {
    eventually(PATIENCE, "the log says so", async || {
        let log = node.process.log_text();
        let found = log
            .lines()
            .any(|line| words.iter().all(|word| line.contains(word)));
        ensure!(found, "{words:?} in {log}");
        Ok(())
    })
    .await
}

/// Goal: the page of a registry with a mesh secret says that its list is not for browsers, and where to
/// look. Method: a real browser.
#[tokio::test]
async fn the_page_of_a_sealed_registry_says_where_to_look() -> Outcome {
    let registry = Registry::over(Over::Tls, "127.0.0.1:0").await?;
    let browser = Browser::open(&format!("http://{}/", registry.address())).await?;
    let shown = "document.getElementById('sealed').checkVisibility()";
    browser.holds(shown).await?;
    let text = browser.element("sealed").await?.text().await?;
    assert!(
        text.contains("mesh secret") && text.contains("/mesh"),
        "{text}"
    );
    for id in ["listing", "lists"] {
        assert!(!browser.element(id).await?.is_displayed().await?, "{id}");
    }
    Ok(())
}
