//! Several machines: the natural command on each is a mesh.

use crate::harness::engines::dns::NameServer;
use crate::harness::netns::{FAR_CONTROL, NEAR_CONTROL, Namespaces};
use crate::harness::process::Launch;
use crate::harness::sealed::Seal;
use crate::harness::sources::{POLLED_WITHIN, flags, source_is};
use crate::harness::{Client, Node, Outcome, PATIENCE, Registry, histories, linked};

/// Goal: `chatnode --http 0.0.0.0:8080 --registry http://ADDRESS:7171 --insecure-mesh`, the same on
/// each machine, is a mesh: each tells where others reach it, also on the registry's own machine and
/// with a registry of its own beside. Method: two network namespaces; two nodes near, one far; all
/// link both ways, chat, and have one history.
#[tokio::test]
async fn the_same_command_on_each_machine_is_a_mesh() -> Outcome {
    let instead = "the addresses that are told, by the table of refusals";
    let Some(wire) = Namespaces::enter(instead)? else {
        return Ok(());
    };
    let registry = Registry::on(&format!("{NEAR_CONTROL}:7171")).await?;
    let own = Registry::on("127.0.0.1:7172").await?;
    let command = |port: u16, more: &[&str]| {
        let http = format!("0.0.0.0:{port}");
        let args = [
            "--http",
            &http,
            "--registry",
            &registry.url,
            "--insecure-mesh",
        ];
        Launch::new("chatnode", args.iter().chain(more).copied())
    };
    let first = Node::launch(command(8080, &[])).await?;
    // The one on loopback is named first, and tells nothing of the way to the others.
    let two = format!("{},{}", own.url, registry.url);
    let mut launch = command(8081, &[]);
    launch
        .args
        .retain(|arg| *arg != registry.url && arg != "--registry");
    launch.variables.push(("CHATNODE_REGISTRY".to_owned(), two));
    let second = Node::launch(launch).await?;
    let mut launch = command(8080, &[]);
    launch.prefix = wire.far();
    let third = Node::launch(launch).await?;
    assert_eq!(first.http, format!("http://{NEAR_CONTROL}:8080"));
    assert_eq!(second.http, format!("http://{NEAR_CONTROL}:8081"));
    assert_eq!(third.http, format!("http://{FAR_CONTROL}:8080"));
    for node in [&first, &second, &third] {
        let host = node.http.trim_start_matches("http://");
        let host = host.split(':').next().unwrap_or_default();
        assert!(
            node.publishes.starts_with(&format!("tcp://{host}:")),
            "{node:?}"
        );
    }
    let nodes = [&first, &second, &third];
    linked(&nodes, PATIENCE).await?;
    for (place, node) in nodes.iter().enumerate() {
        node.takes_clients(PATIENCE).await?;
        let ready = node.get("/readyz").await?.text().await?;
        assert_eq!(ready, "ready\n", "all are linked");
        let client = Client::joined(node, "ada", "tea").await?;
        client.send("tea", &format!("from {place}")).await?;
    }
    assert_eq!(histories(&nodes, "tea", PATIENCE).await?.len(), 3);
    Ok(())
}

/// Goal: with a name of DNS and a mesh secret the same command on each machine is a mesh, as in containers: each
/// tells the address by which the others reach it. Method: two network namespaces, and a name server that
/// lists both; a node in each, bound to all addresses.
#[tokio::test]
async fn by_a_name_the_same_command_on_each_machine_is_a_mesh() -> Outcome {
    let instead = "nodes on addresses of loopback, in discovery_dns.rs";
    let Some(wire) = Namespaces::enter(instead)? else {
        return Ok(());
    };
    let seal = Seal::new().await?;
    let dns = NameServer::on(NEAR_CONTROL).await?;
    dns.host("chat.test", &[NEAR_CONTROL.parse()?, FAR_CONTROL.parse()?]);
    let mut args = flags(&[&dns.url("chat.test", 8080)], Some(&seal));
    args.extend(["--http", "0.0.0.0:8080"].map(str::to_owned));
    let near = Node::launch(Launch::new("chatnode", args.clone())).await?;
    let far = Node::launch(Launch::new("chatnode", args).by(wire.far())).await?;
    assert_eq!(near.publishes, format!("tls://{NEAR_CONTROL}:8080"));
    assert_eq!(far.publishes, format!("tls://{FAR_CONTROL}:8080"));
    let both = [near, far];
    linked(&both, POLLED_WITHIN).await?;
    for node in &both {
        source_is(node, "up", "").await?;
    }
    Ok(())
}
