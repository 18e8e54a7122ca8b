//! `/metrics`: Prometheus text format 0.0.4.

use axum::Router;
use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use axum::routing::get;
use base::metrics::MetricsText;

use crate::core::journal::Health;
use crate::core::links::LinkState;
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
    links(&status, &mut text);
    log(&mut text);
    if status.storage.health.is_some() {
        storage(&status, &mut text);
    }
    let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4")];
    (kind, text.end())
}

fn gauges(status: &Status, text: &mut MetricsText) {
    let (messages, bytes) = status.kept;
    let links = &status.links;
    let up = links.iter().filter(|row| row.link.state == LinkState::Up);
    let up = up.count();
    let clients = &status.clients;
    let rows = [
        (
            "chatnode_ready",
            "1 when clients are taken",
            u64::from(status.ready),
        ),
        (
            "chatnode_clients",
            "WebSocket connections",
            (clients.all - clients.streams) as u64,
        ),
        (
            "chatnode_spool_bytes",
            "Bytes kept for clients that have not read them yet",
            clients.spooled as u64,
        ),
        (
            "chatnode_streams",
            "Server-sent event streams",
            clients.stream_seats as u64,
        ),
        ("chatnode_rooms", "Rooms with members", status.rooms as u64),
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
            (links.len() - up) as u64,
        ),
    ];
    for (name, help, value) in rows {
        text.gauge(name, help, value);
    }
}

fn log(text: &mut MetricsText) {
    text.counter(
        "chatnode_log_dropped_total",
        "Lines of the log that nothing took",
        base::process::log_dropped(),
    );
}

/// How the disk of `--data` is.
fn storage(status: &Status, text: &mut MetricsText) {
    let storage = &status.storage;
    let fine = storage.health == Some(Health::Fine);
    let rows = [
        (
            "chatnode_storage_ok",
            "1 when the disk takes messages",
            u64::from(fine),
        ),
        (
            "chatnode_storage_waiting",
            "Messages that wait for the disk",
            storage.waiting as u64,
        ),
        (
            "chatnode_storage_messages",
            "Messages of history on disk",
            storage.messages,
        ),
        (
            "chatnode_storage_bytes",
            "Bytes of history on disk",
            storage.bytes,
        ),
    ];
    for (name, help, value) in rows {
        text.gauge(name, help, value);
    }
    let rows = [
        (
            "chatnode_storage_batches_total",
            "Transactions on disk",
            status.totals.batches,
        ),
        (
            "chatnode_storage_refused_total",
            "Messages that the disk did not take",
            status.clients.totals.not_taken,
        ),
        (
            "chatnode_storage_skipped_total",
            "Messages of others that left memory before the disk had room for them",
            storage.skipped,
        ),
    ];
    for (name, help, value) in rows {
        text.counter(name, help, value);
    }
}

fn counters(status: &Status, text: &mut MetricsText) {
    let counts = status.counts;
    let (gaps, repaired, lost) = (counts.gaps, counts.repaired, counts.lost);
    let (totals, clients) = (&status.totals, &status.clients.totals);
    let rows = [
        (
            "chatnode_accepted_total",
            "WebSocket connections accepted",
            clients.accepted,
        ),
        (
            "chatnode_said_total",
            "Messages of this node's clients",
            totals.said,
        ),
        (
            "chatnode_deliveries_total",
            "Messages written, times clients",
            clients.deliveries,
        ),
        (
            "chatnode_refused_total",
            "Requests refused",
            clients.refused + totals.refused,
        ),
        (
            "chatnode_slow_total",
            "Clients and streams closed as slow",
            clients.slow,
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
            totals.holes,
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
    ];
    for (name, help, value) in rows {
        text.counter(name, help, value);
    }
}

fn links(status: &Status, text: &mut MetricsText) {
    let links = status.link_counts;
    let rows = [
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
    for (name, help, value) in rows {
        text.counter(name, help, value);
    }
}
