//! The nodes as targets for Prometheus' HTTP service discovery.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::response::Response;
use serde::Serialize;

use super::json;
use crate::api::{ENDPOINT_HTTP, Node};
use crate::state::Registry;
use base::endpoint::Endpoint;

#[derive(Debug, Serialize)]
struct Target {
    targets: [String; 1],
    labels: BTreeMap<String, String>,
}

/// `GET /v1/sd/prometheus`: each node's HTTP endpoint, with id, name and meta as labels.
pub(super) async fn prometheus(State(registry): State<Registry>) -> Response {
    let snapshot = registry.watch().borrow().clone();
    let targets: Vec<Target> = snapshot.listing.nodes.iter().filter_map(target).collect();
    json(&targets)
}

fn target(node: &Node) -> Option<Target> {
    let endpoint: Endpoint = node.endpoints.get(ENDPOINT_HTTP)?.parse().ok()?;
    let meta = node
        .meta
        .iter()
        .map(|(key, value)| (format!("meta_{}", label(key)), value));
    let said = [("id".to_owned(), &node.id), ("name".to_owned(), &node.name)];
    let labels = said
        .into_iter()
        .chain(meta)
        .map(|(key, value)| (format!("__meta_registry_{key}"), value.clone()))
        .collect();
    Some(Target {
        targets: [format!("{}:{}", endpoint.host, endpoint.port)],
        labels,
    })
}

/// A label's name holds letters, digits and underscores only.
fn label(key: &str) -> String {
    key.replace(['.', '-'], "_")
}
