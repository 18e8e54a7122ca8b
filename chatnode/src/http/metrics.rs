//! `/metrics`: Prometheus text format 0.0.4.

mod buses;

use std::collections::BTreeMap;

use axum::Router;
use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use axum::routing::get;
use base::metrics::MetricsText;

use crate::core::journal::Health;
use crate::core::links::LinkState;
use crate::discovery::SourceStatus;
use crate::shell::Handle;
use crate::shell::status::Status;

pub(super) fn routes(node: Handle) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .with_state(node)
}

async fn metrics(State(node): State<Handle>) -> impl IntoResponse {
    let status = node.status();
    let mut text = MetricsText::default();
    gauges(&status, &mut text);
    counters(&status, &mut text);
    keys(&status, &mut text);
    sources(&status, &mut text);
    buses::write(&status, &mut text);
    super::keeper::write(status.keeper.as_ref(), &mut text);
    if status.storage.health.is_some() {
        storage(&status, &mut text);
    }
    let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4")];
    (kind, text.end())
}

/// A table of what is counted: a name, its value, what it says.
macro_rules! rows {
    ($text:ident.$kind:ident: $($name:literal = $value:expr, $says:literal;)*) => {
        $($text.$kind($name, $says, $value);)*
    };
}

fn gauges(status: &Status, text: &mut MetricsText) {
    let (messages, bytes) = status.kept;
    let links = &status.links;
    let up = links.iter().filter(|row| row.link.state == LinkState::Up);
    let up = up.count();
    let clients = &status.clients;
    let websockets = clients.all - clients.streams;
    rows! { text.gauge:
        "chatnode_ready" = u64::from(status.ready), "1 when clients are taken";
        "chatnode_clients" = websockets, "WebSocket connections";
        "chatnode_spool_bytes" = clients.spooled,
            "Bytes kept for clients that have not read them yet";
        "chatnode_patterns" = clients.patterns, "Patterns of rooms that somebody watches";
        "chatnode_streams" = clients.stream_seats, "Server-sent event streams";
        "chatnode_rooms" = status.rooms, "Rooms with members";
        "chatnode_history_messages" = messages, "Messages of history held";
        "chatnode_history_bytes" = bytes, "Bytes of history held, an estimate";
        "chatnode_links_up" = up, "Peers that are heard";
        "chatnode_links_down" = links.len() - up, "Peers wanted and not heard";
    }
}

/// How the disk of `--data` is.
fn storage(status: &Status, text: &mut MetricsText) {
    let (storage, totals) = (&status.storage, &status.totals);
    let fine = u64::from(storage.health == Some(Health::Fine));
    let not_taken = status.clients.totals.not_taken;
    rows! { text.gauge:
        "chatnode_storage_ok" = fine, "1 when the disk takes messages";
        "chatnode_storage_waiting" = storage.waiting, "Messages that wait for the disk";
        "chatnode_storage_messages" = storage.messages, "Messages of history on disk";
        "chatnode_storage_bytes" = storage.bytes, "Bytes of history on disk";
    }
    rows! { text.counter:
        "chatnode_storage_batches_total" = totals.batches, "Transactions on disk";
        "chatnode_storage_refused_total" = not_taken, "Messages that the disk did not take";
        "chatnode_storage_skipped_total" = storage.skipped,
            "Messages of others that left memory before the disk had room for them";
    }
}

/// With a mesh secret: which keys of it are in use.
fn keys(status: &Status, text: &mut MetricsText) {
    let mut keys = BTreeMap::<_, u64>::new();
    for key in status.links.iter().filter_map(|row| row.key) {
        *keys.entry(key).or_default() += 1;
    }
    if !keys.is_empty() {
        let help = "Links by the key of the mesh that their peer has shown";
        text.family("chatnode_links_by_key", "gauge", help);
        for (key, count) in keys {
            text.labelled("chatnode_links_by_key", &[("key", &key.to_string())], count);
        }
    }
}

/// What tells of other nodes: registries, DNS, Consul, etcd.
fn sources(status: &Status, text: &mut MetricsText) {
    if status.sources.is_empty() {
        return;
    }
    let row = |source: &SourceStatus| {
        let listed = u64::try_from(source.listed).unwrap_or(u64::MAX);
        (u64::from(source.is_up()), listed)
    };
    for (name, help, is_up) in [
        (
            "chatnode_source_up",
            "1 when a registry, or what else lists nodes, answers",
            true,
        ),
        (
            "chatnode_source_listed",
            "Other nodes that it lists, or did last",
            false,
        ),
    ] {
        text.family(name, "gauge", help);
        for source in &status.sources {
            let (up, listed) = row(source);
            let value = if is_up { up } else { listed };
            text.labelled(name, &[("source", &source.url)], value);
        }
    }
}

fn counters(status: &Status, text: &mut MetricsText) {
    let (counts, links) = (status.counts, status.link_counts);
    let (totals, clients) = (&status.totals, &status.clients.totals);
    let refused = clients.refused + totals.refused;
    rows! { text.counter:
        "chatnode_accepted_total" = clients.accepted, "WebSocket connections accepted";
        "chatnode_said_total" = totals.said, "Messages of this node's clients";
        "chatnode_deliveries_total" = clients.deliveries, "Messages written, times clients";
        "chatnode_refused_total" = refused, "Requests refused";
        "chatnode_slow_total" = clients.slow, "Clients and streams closed as slow";
        "chatnode_gaps_total" = counts.gaps, "Times that entries were found missing";
        "chatnode_repaired_total" = counts.repaired, "Entries fetched by repair";
        "chatnode_lost_total" = counts.lost, "Entries that nobody had";
        "chatnode_holes_total" = totals.holes, "Spans of entries that nobody had";
        "chatnode_fetches_total" = totals.fetches, "Repair requests";
        "chatnode_fetches_failed_total" = totals.fetches_failed, "Repair requests that failed";
        "chatnode_frames_bad_total" = totals.frames_bad, "Frames that could not be decoded";
        "chatnode_frames_dropped_total" = totals.frames_dropped, "Frames without room to go out";
        "chatnode_dials_total" = links.dials, "Dials";
        "chatnode_misdirected_total" = links.misdirected, "Links where another node was found";
        "chatnode_behind_links_total" = links.behind, "Links given up because they lagged";
        "chatnode_silent_links_total" = links.silent, "Links torn down for silence";
        "chatnode_log_dropped_total" = base::process::log_dropped(),
            "Lines of the log that nothing took";
    }
}
