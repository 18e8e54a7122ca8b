//! Links without a registry: `--peer`.

use crate::harness::tools::free_port;
use crate::harness::{Client, NOISE, Node, Outcome, PATIENCE, histories, linked, ms, say};

/// Goal: `--peer` on one side links both ways: the hello introduces the newcomer.
/// Method: no registry at all; measure from the ready line of the second.
#[tokio::test]
async fn a_peer_named_on_one_side_links_both_ways() -> Outcome {
    let first = Node::start(["--registry", "none"]).await?;
    let second = Node::start(["--registry", "none", "--peer", &first.publishes]).await?;
    linked(&[&first, &second], PATIENCE).await?;
    let took = second.process.ready_at.elapsed();
    say!("linked by --peer {took:?} after the ready line");
    assert!(took <= ms(500) + NOISE, "linked only after {took:?}");
    let ada = Client::joined(&first, "ada", "tea").await?;
    let bob = Client::joined(&second, "bob", "tea").await?;
    ada.send("tea", "from ada").await?;
    bob.send("tea", "from bob").await?;
    ada.message(PATIENCE, "from bob").await?;
    bob.message(PATIENCE, "from ada").await?;
    assert_eq!(
        histories(&[&first, &second], "tea", PATIENCE).await?.len(),
        2
    );
    Ok(())
}

/// Goal: a peer that starts later, on the named port, is linked when it comes, and again after a
/// kill -9. Method: name a port where nobody listens yet.
#[tokio::test]
async fn a_peer_that_starts_later_is_linked_when_it_comes() -> Outcome {
    let port = free_port()?;
    let peer = format!("tcp://127.0.0.1:{port}");
    let first = Node::start(["--registry", "none", "--peer", &peer]).await?;
    let args = ["--registry", "none", "--pub", &port.to_string()].map(str::to_owned);
    let mut second = Node::start(args).await?;
    linked(&[&first, &second], PATIENCE).await?;
    second.process.kill().await?;
    second.again().await?;
    linked(&[&first, &second], PATIENCE).await?;
    let took = second.process.ready_at.elapsed();
    say!("a killed --peer was linked again {took:?} after its ready line");
    Ok(())
}

/// Goal: a node that names itself as peer does not link to itself, and still works.
#[tokio::test]
async fn a_node_that_names_itself_links_to_nobody() -> Outcome {
    let port = free_port()?;
    let own = format!("tcp://127.0.0.1:{port}");
    let args = [
        "--registry",
        "none",
        "--pub",
        &port.to_string(),
        "--peer",
        &own,
    ];
    let node = Node::start(args.map(str::to_owned)).await?;
    node.takes_clients(PATIENCE).await?;
    let ada = Client::joined(&node, "ada", "tea").await?;
    ada.send("tea", "once").await?;
    ada.message(PATIENCE, "once").await?;
    ada.send("tea", "fence").await?;
    ada.message(PATIENCE, "fence").await?;
    assert_eq!(ada.messages().len(), 2);
    let mesh = node.mesh().await?;
    assert!(!mesh.hears(&node.origin), "{mesh:?}");
    Ok(())
}
