//! `/metrics`: Prometheus text format 0.0.4.

use std::fmt::Write as _;

use axum::Router;
use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use axum::routing::get;

use crate::bus::links::LinkState;
use crate::hub::Hub;

pub(super) fn routes(hub: Hub) -> Router {
    Router::new().route("/metrics", get(metrics)).with_state(hub)
}

async fn metrics(State(hub): State<Hub>) -> impl IntoResponse {
    let text = hub.with(|node, now| {
        let mut text = String::new();
        let mut metric = |name: &str, kind: &str, help: &str, value: u64| {
            writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}")
                .expect("a string takes all");
        };
        let mut gauge = |name, help, value: usize| metric(name, "gauge", help, value as u64);
        gauge("chatnode_ready", "1 when clients are taken", usize::from(node.replica.is_ready()));
        gauge("chatnode_clients", "WebSocket connections", node.fanout.len());
        gauge("chatnode_streams", "Server-sent event streams", node.events.count());
        gauge("chatnode_rooms", "Rooms with members", node.replica.members().rooms().count());
        let (messages, bytes) = node.replica.kept();
        gauge("chatnode_history_messages", "Messages of history held", messages);
        gauge("chatnode_history_bytes", "Bytes of history held, an estimate", bytes);
        let status = node.links.status(now.mono);
        let up = status.iter().filter(|link| link.state == LinkState::Up).count();
        gauge("chatnode_links_up", "Peers that are heard", up);
        gauge("chatnode_links_down", "Peers that are wanted and not heard", status.len() - up);
        let (mut gaps, mut repaired, mut lost) = (0, 0, 0);
        for (origin, _) in node.replica.peers().iter() {
            if let Some(log) = node.replica.log(origin) {
                gaps += log.counts.gaps;
                repaired += log.counts.repaired;
                lost += log.counts.lost;
            }
        }
        let links = node.links.counters();
        let counters = &node.counters;
        for (name, help, value) in [
            ("chatnode_accepted_total", "WebSocket connections accepted", counters.accepted),
            ("chatnode_said_total", "Messages of this node's clients", counters.said),
            ("chatnode_deliveries_total", "Messages written, times clients", node.fanout.deliveries),
            ("chatnode_refused_total", "Requests refused", counters.refused),
            ("chatnode_slow_total", "Clients closed as slow", node.fanout.slow),
            ("chatnode_gaps_total", "Times that a peer's entries were found missing", gaps),
            ("chatnode_repaired_total", "Entries fetched by repair", repaired),
            ("chatnode_lost_total", "Entries that nobody had", lost),
            ("chatnode_holes_total", "Spans of entries that nobody had", counters.gaps),
            ("chatnode_fetches_total", "Repair requests", counters.fetches),
            ("chatnode_fetches_failed_total", "Repair requests that failed", counters.fetches_failed),
            ("chatnode_frames_bad_total", "Frames that could not be decoded", counters.frames_bad),
            ("chatnode_frames_dropped_total", "Frames without room to go out", counters.frames_dropped),
            ("chatnode_dials_total", "Dials", links.dials),
            ("chatnode_misdirected_total", "Links where another node was found", links.misdirected),
            ("chatnode_silent_links_total", "Links torn down for silence", links.silent),
        ] {
            metric(name, "counter", help, value);
        }
        text
    });
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text)
}
