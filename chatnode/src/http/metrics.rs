//! `/metrics`: Prometheus text format 0.0.4.

use std::fmt::Write as _;

use axum::Router;
use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use axum::routing::get;

use crate::core::Now;
use crate::core::journal::Health;
use crate::core::links::LinkState;
use crate::disk::Disk;
use crate::shell::{Hub, Node};

pub(super) fn routes(hub: Hub) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .with_state(hub)
}

async fn metrics(State(hub): State<Hub>) -> impl IntoResponse {
    let text = hub.with(|node, now| {
        let mut text = String::new();
        gauges(node, now, &mut text);
        counters(node, &mut text);
        log(&mut text);
        if let Some(disk) = &node.disk {
            storage(node, disk, &mut text);
        }
        text
    });
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text)
}

type Rows<'a> = &'a [(&'static str, &'static str, u64)];

fn write(text: &mut String, kind: &str, rows: Rows<'_>) {
    for (name, help, value) in rows {
        writeln!(
            text,
            "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}"
        )
        .expect("a string takes all");
    }
}

fn gauges(node: &Node, now: Now, text: &mut String) {
    let (messages, bytes) = node.core.kept();
    let status = node.core.links().status(now.mono);
    let up = status
        .iter()
        .filter(|link| link.state == LinkState::Up)
        .count();
    let rooms = node.core.members().rooms().count();
    let rows = [
        (
            "chatnode_ready",
            "1 when clients are taken",
            u64::from(node.core.is_ready()),
        ),
        (
            "chatnode_clients",
            "WebSocket connections",
            (node.clients.len() - node.clients.streams()) as u64,
        ),
        (
            "chatnode_spool_bytes",
            "Bytes kept for clients that have not read them yet",
            node.clients.spooled() as u64,
        ),
        (
            "chatnode_streams",
            "Server-sent event streams",
            node.seats.streams() as u64,
        ),
        ("chatnode_rooms", "Rooms with members", rooms as u64),
        (
            "chatnode_history_messages",
            "Messages of history held",
            messages as u64,
        ),
        (
            "chatnode_history_bytes",
            "Bytes of history held, an estimate",
            bytes as u64,
        ),
        ("chatnode_links_up", "Peers that are heard", up as u64),
        (
            "chatnode_links_down",
            "Peers wanted and not heard",
            (status.len() - up) as u64,
        ),
    ];
    write(text, "gauge", &rows);
}

fn log(text: &mut String) {
    let rows = [(
        "chatnode_log_dropped_total",
        "Lines of the log that nothing took",
        base::process::log_dropped(),
    )];
    write(text, "counter", &rows);
}

/// How the disk of `--data` is.
fn storage(node: &Node, disk: &Disk, text: &mut String) {
    let (own, others) = node.core.disk_waiting();
    let fine = node.core.disk_health() == Some(Health::Fine);
    let (messages, bytes) = disk.size();
    let rows = [
        (
            "chatnode_storage_ok",
            "1 when the disk takes messages",
            u64::from(fine),
        ),
        (
            "chatnode_storage_waiting",
            "Messages that wait for the disk",
            (own + others) as u64,
        ),
        (
            "chatnode_storage_messages",
            "Messages of history on disk",
            messages,
        ),
        ("chatnode_storage_bytes", "Bytes of history on disk", bytes),
    ];
    write(text, "gauge", &rows);
    let rows = [
        (
            "chatnode_storage_batches_total",
            "Transactions on disk",
            node.counters.batches,
        ),
        (
            "chatnode_storage_refused_total",
            "Messages that the disk did not take",
            node.counters.not_taken,
        ),
        (
            "chatnode_storage_skipped_total",
            "Messages of others that left memory before the disk had room for them",
            node.core.disk_skipped(),
        ),
    ];
    write(text, "counter", &rows);
}

fn counters(node: &Node, text: &mut String) {
    let counts = node.core.counts();
    let (gaps, repaired, lost) = (counts.gaps, counts.repaired, counts.lost);
    let links = node.core.links().counters();
    let totals = &node.counters;
    let deliveries = node.clients.deliveries;
    let rows = [
        (
            "chatnode_accepted_total",
            "WebSocket connections accepted",
            totals.accepted,
        ),
        (
            "chatnode_said_total",
            "Messages of this node's clients",
            totals.said,
        ),
        (
            "chatnode_deliveries_total",
            "Messages written, times clients",
            deliveries,
        ),
        ("chatnode_refused_total", "Requests refused", totals.refused),
        (
            "chatnode_slow_total",
            "Clients and streams closed as slow",
            node.clients.slow,
        ),
        (
            "chatnode_gaps_total",
            "Times that entries were found missing",
            gaps,
        ),
        (
            "chatnode_repaired_total",
            "Entries fetched by repair",
            repaired,
        ),
        ("chatnode_lost_total", "Entries that nobody had", lost),
        (
            "chatnode_holes_total",
            "Spans of entries that nobody had",
            totals.gaps,
        ),
        ("chatnode_fetches_total", "Repair requests", totals.fetches),
        (
            "chatnode_fetches_failed_total",
            "Repair requests that failed",
            totals.fetches_failed,
        ),
        (
            "chatnode_frames_bad_total",
            "Frames that could not be decoded",
            totals.frames_bad,
        ),
        (
            "chatnode_frames_dropped_total",
            "Frames without room to go out",
            totals.frames_dropped,
        ),
        ("chatnode_dials_total", "Dials", links.dials),
        (
            "chatnode_misdirected_total",
            "Links where another node was found",
            links.misdirected,
        ),
        (
            "chatnode_behind_links_total",
            "Links given up because they lagged",
            links.behind,
        ),
        (
            "chatnode_silent_links_total",
            "Links torn down for silence",
            links.silent,
        ),
    ];
    write(text, "counter", &rows);
}
