//! What is told of a keeper, and of an archive: to programs, and in `/metrics`.

use base::metrics::MetricsText;
use serde_json::json;

use crate::carriers::broker::keeper::ArchiveStatus;
use crate::shell::status::KeeperRow;

/// As `/api/mesh` tells it.
pub(super) fn row(row: &KeeperRow) -> serde_json::Value {
    let (keeper, is) = (&row.keeper, row.is);
    let status = &keeper.status;
    json!({
        "url": keeper.url.shown(),
        "engine": keeper.url.broker().engine().as_str(),
        "state": if is.is_up { "up" } else { "away" },
        "counts": is.is_up && is.counts,
        "behind": is.behind,
        "skipped": is.skipped,
        "kept": status.kept.get(),
        "confirm_ms": status.confirm_us.get().map(|us| us as f64 / 1000.0),
        "blocked": status.gauges.blocked.get() > 0,
        "error": status.trouble(),
        "archive": row.is_archive.then(|| archive_row(&status.archive, keeper.url.archive(), row.now_us)),
    })
}

fn archive_row(archive: &ArchiveStatus, name: &str, now_us: u64) -> serde_json::Value {
    json!({
        "name": name,
        "lag": archive.lag.get(),
        "lag_seconds": lag_seconds(archive, now_us),
        "stored": archive.stored.get(),
        "redelivered": archive.redelivered.get(),
        "rejected": archive.rejected.get(),
        "committed_ts": archive.committed_us.get(),
        "error": archive.trouble(),
    })
}

/// How old the oldest message is that came and is not stored; 0 if there is none and none waits. Nothing
/// while it is not known: the broker is away, or has not brought what waits.
fn lag_seconds(archive: &ArchiveStatus, now_us: u64) -> Option<f64> {
    match (archive.lag.get(), archive.oldest_us.get()) {
        (None, _) => None,
        (Some(0), _) => Some(0.0),
        (Some(_), oldest) => oldest.map(|us| now_us.saturating_sub(us) as f64 / 1e6),
    }
}

/// What is wrong with it, in one sentence; nothing while all is well.
pub(super) fn trouble(row: &KeeperRow) -> Option<String> {
    let (url, status) = (row.keeper.url.shown(), &row.keeper.status);
    if row.is.is_up && row.is.counts {
        let why = status.archive.trouble().filter(|_| row.is_archive)?;
        return Some(format!("not archived from {url}: {why}"));
    }
    let why = status
        .trouble()
        .unwrap_or_else(|| "not there yet".to_owned());
    let how = if row.is.is_up {
        "not counted"
    } else {
        "not kept"
    };
    Some(format!("{how} by {url}: {why}"))
}

/// As `/metrics` tells it, if there is one.
pub(super) fn write(row: Option<&KeeperRow>, text: &mut MetricsText) {
    let Some(row) = row else {
        return;
    };
    let (is, status) = (row.is, &row.keeper.status);
    let labels = [("keeper", row.keeper.url.shown())];
    let seconds = |us: u64| us as f64 / 1e6;
    let gauges = [
        (
            "chatnode_keeper_up",
            "1 while it is there",
            Some(f64::from(u8::from(is.is_up))),
        ),
        (
            "chatnode_keeper_counts",
            "1 while what it confirms counts as a copy",
            Some(f64::from(u8::from(is.is_up && is.counts))),
        ),
        (
            "chatnode_keeper_lag",
            "Messages of this node that it has not confirmed",
            Some(is.behind as f64),
        ),
        (
            "chatnode_keeper_blocked",
            "1 while it takes nothing",
            Some(status.gauges.blocked.get() as f64),
        ),
        (
            "chatnode_keeper_confirm_seconds",
            "How long it took to confirm the last batch",
            status.confirm_us.get().map(seconds),
        ),
    ];
    for (name, help, value) in gauges {
        text.family(name, "gauge", help);
        if let Some(value) = value {
            text.labelled(name, &labels, value);
        }
    }
    let counters = [
        (
            "chatnode_keeper_kept_total",
            "Messages that it has confirmed",
            status.kept.get(),
        ),
        (
            "chatnode_keeper_skipped_total",
            "Messages that it never got, since they had left memory when it came back",
            is.skipped,
        ),
        (
            "chatnode_keeper_dials_total",
            "Dials of it",
            status.dials.get(),
        ),
    ];
    for (name, help, value) in counters {
        text.family(name, "counter", help);
        text.labelled(name, &labels, value);
    }
    if row.is_archive {
        archive(row, &labels, text);
    }
}

fn archive(row: &KeeperRow, labels: &[(&str, &str)], text: &mut MetricsText) {
    let archive = &row.keeper.status.archive;
    let gauges = [
        (
            "chatnode_archive_lag_messages",
            "Messages of the broker that wait there, or are not stored yet",
            archive.lag.get().map(|lag| lag as f64),
        ),
        (
            "chatnode_archive_lag_seconds",
            "How long ago the oldest of those that came was said",
            lag_seconds(archive, row.now_us),
        ),
        (
            "chatnode_archive_commit_timestamp_seconds",
            "When something was stored last, since 1970",
            archive.committed_us.get().map(|us| us as f64 / 1e6),
        ),
    ];
    for (name, help, value) in gauges {
        text.family(name, "gauge", help);
        if let Some(value) = value {
            text.labelled(name, labels, value);
        }
    }
    let counters = [
        (
            "chatnode_archive_stored_total",
            "Messages of the broker that were stored and acknowledged",
            archive.stored.get(),
        ),
        (
            "chatnode_archive_redelivered_total",
            "Messages of the broker that were brought once more",
            archive.redelivered.get(),
        ),
        (
            "chatnode_archive_rejected_total",
            "What the broker brought and is no message",
            archive.rejected.get(),
        ),
    ];
    for (name, help, value) in counters {
        text.family(name, "counter", help);
        text.labelled(name, labels, value);
    }
}
