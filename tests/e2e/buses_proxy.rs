//! A ZeroMQ proxy: what it must not be.

use crate::harness::buses::{bus_says, flags};
use crate::harness::engines::Broker;
use crate::harness::engines::zmq_proxy::ZmqProxy;
use crate::harness::tools::free_port;
use crate::harness::{Node, Outcome, PATIENCE, Registry};

/// Goal: whatever is wrong with a proxy or its ports is said in one line. Method: a node for each: the ports the
/// wrong way round, HTTP, and nobody at the second port.
#[tokio::test]
async fn what_is_no_proxy_to_meet_at_is_named_in_one_line() -> Outcome {
    let proxy = ZmqProxy::start().await?;
    let [first, second] = proxy.addresses()[..] else {
        panic!("a proxy has two ports");
    };
    let registry = Registry::start().await?;
    let http = registry.url.trim_start_matches("http://");
    for (url, reason, words) in [
        (
            format!("zmq+proxy://{second},{}", first.port()),
            "no_broker",
            "is no such socket of a proxy",
        ),
        (
            format!("zmq+proxy://{http},{}", second.port()),
            "no_broker",
            "is no such socket of a proxy",
        ),
        (
            format!("zmq+proxy://{first},{}", free_port()?),
            "refused",
            "nobody listens there",
        ),
    ] {
        let node = Node::start(flags(&[&url], None)).await?;
        bus_says(&node, reason, words).await?;
        node.takes_clients(PATIENCE).await?;
    }
    Ok(())
}
