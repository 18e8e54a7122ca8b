//! What `/metrics` tells of brokers: a line for each, by its URL without secrets.

use base::metrics::MetricsText;

use crate::carriers::broker::bridge::State;
use crate::carriers::broker::gauges::Gauges;
use crate::core::links::LinkState;
use crate::shell::status::{BusStatus, Status};

/// A number of a broker, if there is one.
type Value = fn(&BusStatus) -> Option<f64>;
/// A number that its carrier counts.
type Count = fn(&Gauges) -> u64;

const VALUES: &[(&str, &str, Value)] = &[
    ("chatnode_bus_up", "1 when the own beat comes back", |row| {
        Some(f64::from(u8::from(is_up(row))))
    }),
    (
        "chatnode_bus_echo_seconds",
        "How long the last own beat took there and back",
        |row| {
            let hall = row.hall.as_ref().filter(|_| is_up(row))?;
            Some(hall.echo?.as_secs_f64())
        },
    ),
    (
        "chatnode_bus_receivers",
        "To how many the broker handed the last frame, if it says so",
        |row| Some(row.bus.gauges.receivers.get()? as f64),
    ),
];

const COUNTS: &[(&str, &str, &str, Count)] = &[
    (
        "chatnode_bus_blocked",
        "gauge",
        "1 while the broker takes nothing",
        |it| it.blocked.get(),
    ),
    (
        "chatnode_bus_queue_bytes",
        "gauge",
        "Bytes that wait to be published",
        |it| it.queue_bytes.get(),
    ),
    (
        "chatnode_bus_dials_total",
        "counter",
        "Dials of the broker",
        |it| it.dials.get(),
    ),
    (
        "chatnode_bus_sessions_total",
        "counter",
        "Dials that came through",
        |it| it.sessions.get(),
    ),
    (
        "chatnode_bus_published_frames_total",
        "counter",
        "Messages published",
        |it| it.published.get(),
    ),
    (
        "chatnode_bus_published_bytes_total",
        "counter",
        "Bytes published",
        |it| it.published_bytes.get(),
    ),
    (
        "chatnode_bus_received_frames_total",
        "counter",
        "Messages that came",
        |it| it.received.get(),
    ),
    (
        "chatnode_bus_received_bytes_total",
        "counter",
        "Bytes that came",
        |it| it.received_bytes.get(),
    ),
    (
        "chatnode_bus_refused_total",
        "counter",
        "Messages that came and are none of this mesh",
        |it| it.refused.get(),
    ),
];

/// Why frames were not published.
const DROPS: &[(&str, Count)] = &[
    ("away", |it| it.dropped_away.get()),
    ("full", |it| it.dropped_full.get()),
    ("unproven", |it| it.dropped_unproven.get()),
    ("too_long", |it| it.dropped_long.get()),
];

fn is_up(row: &BusStatus) -> bool {
    let hall = row.hall.as_ref();
    hall.is_some_and(|hall| hall.state == LinkState::Up)
}

/// How bridges are, if there is one.
fn bridges(status: &Status, text: &mut MetricsText) {
    if status.bridges.is_empty() {
        return;
    }
    let name = "chatnode_bridge_bridging";
    text.family(name, "gauge", "1 while this node is the one that bridges");
    for bridge in &status.bridges {
        let bridges = bridge.status.now().0 == State::Bridging;
        text.labelled(name, &[("bridge", &bridge.url)], u8::from(bridges));
    }
    let name = "chatnode_bridge_messages_total";
    text.family(
        name,
        "counter",
        "Messages that went over a bridge, or came and could not",
    );
    for bridge in &status.bridges {
        let counts = [
            ("in", &bridge.status.taken),
            ("out", &bridge.status.published),
            ("refused", &bridge.status.refused),
            ("dropped", &bridge.status.dropped),
        ];
        for (what, count) in counts {
            text.labelled(
                name,
                &[("bridge", &*bridge.url), ("what", what)],
                count.get(),
            );
        }
    }
}

/// Writes them, if there is a broker.
pub(super) fn write(status: &Status, text: &mut MetricsText) {
    bridges(status, text);
    if status.buses.is_empty() {
        return;
    }
    for (name, help, value) in VALUES {
        text.family(name, "gauge", help);
        for row in &status.buses {
            if let Some(value) = value(row) {
                text.labelled(name, &[("bus", &row.bus.url)], value);
            }
        }
    }
    for (name, kind, help, count) in COUNTS {
        text.family(name, kind, help);
        for row in &status.buses {
            text.labelled(name, &[("bus", &row.bus.url)], count(&row.bus.gauges));
        }
    }
    let name = "chatnode_bus_dropped_total";
    text.family(name, "counter", "Frames that were not published");
    for row in &status.buses {
        for (reason, count) in DROPS {
            let labels = [("bus", &*row.bus.url), ("reason", reason)];
            text.labelled(name, &labels, count(&row.bus.gauges));
        }
    }
}
