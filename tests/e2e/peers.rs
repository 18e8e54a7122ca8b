//! Links without a registry: `--peer`.

use crate::harness::cluster::secret_flags;
use crate::harness::sealed::{Over, Seal, over_each};
use crate::harness::tools::free_port;
use crate::harness::{Client, NOISE, Node, Outcome, PATIENCE, histories, linked, ms, say};

over_each!(
    a_peer_named_on_one_side_links_both_ways,
    a_peer_that_starts_later_is_linked_when_it_comes,
    a_node_that_names_itself_links_to_nobody,
);

/// The flags of a node without a registry, at this port if one is given, where others dial it, and with
/// these flags more.
fn flags(seal: Option<&Seal>, port: Option<u16>, more: &[&str]) -> Vec<String> {
    let mut flags = vec!["--registry".to_owned(), "none".to_owned()];
    flags.extend(secret_flags(seal));
    if let Some(port) = port {
        let flag = seal.map_or("--pub", |_| "--http");
        flags.extend([flag.to_owned(), port.to_string()]);
    }
    flags.extend(more.iter().map(|&flag| flag.to_owned()));
    flags
}

/// Where a node at this port is dialled.
fn endpoint(over: Over, port: u16) -> String {
    match over {
        Over::Zmq => format!("tcp://127.0.0.1:{port}"),
        Over::Tls => format!("tls://localhost:{port}"),
    }
}

/// Goal: `--peer` on one side links both ways: the hello introduces the newcomer.
/// Method: no registry at all; measure from the ready line of the second.
async fn a_peer_named_on_one_side_links_both_ways(over: Over) -> Outcome {
    let seal = over.seal().await?;
    let first = Node::start(flags(seal.as_ref(), None, &[])).await?;
    let peer = ["--peer", &first.publishes];
    let second = Node::start(flags(seal.as_ref(), None, &peer)).await?;
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
async fn a_peer_that_starts_later_is_linked_when_it_comes(over: Over) -> Outcome {
    let (seal, port) = (over.seal().await?, free_port()?);
    let peer = endpoint(over, port);
    let first = Node::start(flags(seal.as_ref(), None, &["--peer", &peer])).await?;
    let mut second = Node::start(flags(seal.as_ref(), Some(port), &[])).await?;
    linked(&[&first, &second], PATIENCE).await?;
    second.process.kill().await?;
    second.again().await?;
    linked(&[&first, &second], PATIENCE).await?;
    let took = second.process.ready_at.elapsed();
    say!("a killed --peer was linked again {took:?} after its ready line");
    Ok(())
}

/// Goal: a node that names itself as peer does not link to itself, and still works.
async fn a_node_that_names_itself_links_to_nobody(over: Over) -> Outcome {
    let (seal, port) = (over.seal().await?, free_port()?);
    let own = endpoint(over, port);
    let node = Node::start(flags(seal.as_ref(), Some(port), &["--peer", &own])).await?;
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
