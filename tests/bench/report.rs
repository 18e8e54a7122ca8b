//! The report: verdicts and tables.

use crate::runner::Row;
use crate::scenarios::{self, Bar, Scenario};
use crate::sweeps::sweeps;

/// Median, least and most.
pub(crate) fn spread(values: &[f64]) -> Option<(f64, f64, f64)> {
    let mut sorted: Vec<f64> = values
        .iter()
        .copied()
        .filter(|value| value.is_finite())
        .collect();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let (least, most) = (*sorted.first()?, *sorted.last()?);
    let median = if sorted.len() % 2 == 1 {
        sorted[middle]
    } else {
        f64::midpoint(sorted[middle - 1], sorted[middle])
    };
    Some((median, least, most))
}

/// A number of three digits or so.
pub(crate) fn short(value: f64) -> String {
    let size = value.abs();
    match size {
        _ if size >= 1e6 => format!("{} M", digits(value / 1e6)),
        _ if size >= 1e4 => format!("{} k", digits(value / 1e3)),
        _ => digits(value),
    }
}

fn digits(value: f64) -> String {
    let size = value.abs();
    let places = match size {
        _ if size >= 100.0 || size == 0.0 => 0,
        _ if size >= 10.0 => 1,
        _ if size >= 1.0 => 2,
        _ if size >= 0.1 => 3,
        _ => 4,
    };
    let text = format!("{value:.places$}");
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    }
}

/// A figure with its unit.
pub(crate) fn shown(field: &str, value: f64) -> String {
    let unit = match field {
        "p50_us" | "p99_us" | "max_us" => return format!("{} ms", short(value / 1e3)),
        _ if field.ends_with("rss_bytes") => {
            return format!("{} MiB", short(value / 1_048_576.0));
        }
        _ if field.contains("_us_") || field.ends_with("_us") => " µs",
        _ if field.contains("_ns_") => " ns",
        _ if field.contains("bytes") => " B",
        _ if field.ends_with("_ms") => " ms",
        _ => "",
    };
    format!("{}{unit}", short(value))
}

/// A cell: median and range of a figure.
pub(crate) fn cell(rows: &[&Row], field: &str) -> String {
    let values: Vec<f64> = rows.iter().filter_map(|row| row.figure(field)).collect();
    match spread(&values) {
        None => "–".to_owned(),
        Some((median, least, most)) if values.len() > 1 => {
            let range = |value| {
                shown(field, value)
                    .split(' ')
                    .next()
                    .unwrap_or_default()
                    .to_owned()
            };
            let alike = shown(field, least).ends_with(|end: char| !end.is_ascii_digit());
            let least = if alike && unit(field, least) == unit(field, median) {
                range(least)
            } else {
                shown(field, least)
            };
            format!("{} ({least}–{})", shown(field, median), shown(field, most))
        }
        Some((median, ..)) => shown(field, median),
    }
}

fn unit(field: &str, value: f64) -> String {
    shown(field, value)
        .split_once(' ')
        .map_or_else(String::new, |(_, unit)| unit.to_owned())
}

/// What chatnode is held to, as far as it was measured.
pub(crate) fn verdicts(rows: &[Row]) -> String {
    let of_scenarios = scenarios::scenarios().flat_map(|scenario| {
        let bars = scenario.bars.iter();
        bars.map(|bar| (scenario.name.to_owned(), bar))
    });
    let of_sweeps = sweeps().flat_map(|sweep| {
        let bars = sweep.bars.iter();
        bars.map(|(point, bar)| (format!("{} {point}", sweep.name), bar))
    });
    let mut text = String::new();
    for (name, bar) in of_scenarios.chain(of_sweeps) {
        let of: Vec<&Row> = rows.iter().filter(|row| row.scenario == name).collect();
        verdict(&mut text, &name, bar, &of);
    }
    if text.is_empty() {
        return text;
    }
    format!(
        "\n## What chatnode is held to\n\n| scenario | figure | measured | bar | aim | |\n\
         | --- | --- | --- | --- | --- | --- |\n{text}"
    )
}

/// Tables of all scenarios that were run.
pub(crate) fn scenarios(rows: &[Row]) -> String {
    let mut text = String::new();
    for scenario in scenarios::scenarios() {
        let of: Vec<&Row> = rows
            .iter()
            .filter(|row| row.scenario == scenario.name)
            .collect();
        if !of.is_empty() {
            table(&mut text, scenario, &of);
        }
    }
    text
}

/// Nearer than this to its bar, something is measured more often.
const CLOSE: f64 = 0.2;

/// What a bar is about, once for each repetition.
fn judged(bar: &Bar, rows: &[&Row]) -> Vec<f64> {
    let field = bar.metric.0;
    let own = rows.iter().filter(|row| row.peer == bar.whose);
    own.filter_map(|row| {
        let value = row.figure(field)?;
        let Some(against) = bar.against else {
            return Some(value);
        };
        let other = rows
            .iter()
            .find(|other| other.peer == against && other.rep == row.rep)?;
        Some(value / other.figure(field)?)
    })
    .collect()
}

/// Whether something measured is so near to its bar, on either side, that noise may decide.
pub(crate) fn is_close(scenario: &Scenario, rows: &[Row]) -> bool {
    let rows: Vec<&Row> = rows
        .iter()
        .filter(|row| row.scenario == scenario.name)
        .collect();
    scenario.bars.iter().any(|bar| {
        let median = spread(&judged(bar, &rows)).map(|(median, ..)| median);
        let limit = bar.bar.zip(median);
        limit.is_some_and(|(bar, median)| (median / bar - 1.0).abs() <= CLOSE)
    })
}

fn verdict(text: &mut String, scenario: &str, bar: &Bar, rows: &[&Row]) {
    let field = bar.metric.0;
    let values = judged(bar, rows);
    let Some((median, least, most)) = spread(&values) else {
        return;
    };
    let say = |value: f64| {
        if bar.against.is_some() {
            format!("{value:.2}")
        } else {
            shown(field, value)
        }
    };
    let sign = if bar.at_least { '≥' } else { '≤' };
    let limit = |limit: Option<f64>| {
        limit.map_or("–".to_owned(), |limit| format!("{sign} {}", say(limit)))
    };
    let passes = |limit: Option<f64>| {
        limit.is_none_or(|limit| median == limit || (median > limit) == bar.at_least)
    };
    let judged = match (passes(bar.bar), passes(bar.aim)) {
        _ if bar.bar.or(bar.aim).is_none() => "",
        (true, true) => "reached",
        (true, false) if bar.bar.is_some() => "within the bar",
        (true, false) => "not reached",
        (false, _) if bar.at_least => "**below the bar**",
        (false, _) => "**over the bar**",
    };
    let range = if values.len() > 1 {
        format!(" ({}–{})", say(least), say(most))
    } else {
        String::new()
    };
    let against = bar
        .against
        .map_or(String::new(), |against| format!(" ÷ {against}"));
    *text += &format!(
        "| {scenario} | {}, {}{against} | {}{range} | {} | {} | {judged} |\n",
        bar.metric.1,
        bar.whose,
        say(median),
        limit(bar.bar),
        limit(bar.aim)
    );
}

const TALK: &[(&str, &str)] = &[
    ("CPU a delivery", "cpu_us_per_delivery"),
    ("a byte", "cpu_ns_per_byte"),
    ("deliveries a second", "deliveries_per_s"),
    ("p50", "p50_us"),
    ("p99", "p99_us"),
    ("longest", "max_us"),
    ("generator", "own_cores"),
    ("others", "others_cores"),
];
const IDLE: &[(&str, &str)] = &[
    ("memory a connection", "rss_bytes_per_conn"),
    ("CPU an accept", "cpu_us_per_accept"),
    ("accepts a second", "accepts_per_s"),
    ("cores while idle", "idle_cores"),
    ("generator", "own_cores"),
    ("others", "others_cores"),
];

fn table(text: &mut String, scenario: &Scenario, rows: &[&Row]) {
    let idle = scenario.load.starts_with("idle");
    let columns = if idle { IDLE } else { TALK };
    *text += &format!(
        "\n## {}\n\n{}.\n`bench load {}`\n\n| peer |",
        scenario.name, scenario.about, scenario.load
    );
    for (name, _) in columns {
        *text += &format!(" {name} |");
    }
    text.push_str(if idle {
        "\n| --- |"
    } else {
        " faults |\n| --- | --- |"
    });
    text.push_str(&" --- |".repeat(columns.len()));
    for peer in scenario.peers {
        let of: Vec<&Row> = rows
            .iter()
            .copied()
            .filter(|row| row.peer == *peer)
            .collect();
        if of.is_empty() {
            continue;
        }
        *text += &format!("\n| {peer} |");
        for (_, field) in columns {
            *text += &format!(" {} |", cell(&of, field));
        }
        if !idle {
            *text += &format!(" {} |", faults(&of));
        }
    }
    text.push('\n');
}

/// Messages that did not arrive once and in order.
pub(crate) fn faults(rows: &[&Row]) -> String {
    let mut told = Vec::new();
    for fault in ["lost", "doubled", "reordered", "astray"] {
        let count: f64 = rows.iter().filter_map(|row| row.figure(fault)).sum();
        if count > 0.0 {
            told.push(format!("{count} {fault}"));
        }
    }
    if told.is_empty() {
        "none".to_owned()
    } else {
        told.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Goal: a ratio is one of the same repetition. Method: two repetitions on a machine that is
    /// ten times slower in the second; the ratio is 2 in both.
    #[test]
    fn a_ratio_is_taken_within_a_repetition() {
        let row = |peer: &str, rep, value: f64| Row {
            scenario: "fanout-1".to_owned(),
            peer: peer.to_owned(),
            rep,
            quick: false,
            commit: String::new(),
            figures: json!({ "cpu_us_per_delivery": value }),
        };
        let rows = [
            row("chatnode", 1, 2.0),
            row("floor", 1, 1.0),
            row("chatnode", 2, 20.0),
            row("floor", 2, 10.0),
        ];
        let text = verdicts(&rows);
        assert!(
            text.contains("÷ floor | 2.00 (2.00–2.00) | ≤ 1.15 | ≤ 1.05 | **over the bar** |"),
            "{text}"
        );
    }

    /// Goal: where more is better, less is below the bar. Method: a throughput on either side of it.
    #[test]
    fn a_bar_may_be_the_least() {
        for (value, told) in [(80.0, "**below the bar**"), (95.0, "reached")] {
            let row = |peer: &str, value: f64| Row {
                scenario: "mesh 3".to_owned(),
                peer: peer.to_owned(),
                rep: 1,
                quick: false,
                commit: String::new(),
                figures: json!({ "messages_per_s": value }),
            };
            let text = verdicts(&[row("chatnode", 100.0), row("chatnode-tls", value)]);
            assert!(text.contains("| ≥ 0.90 | – |"), "{text}");
            assert!(text.contains(told), "{text}");
        }
    }

    /// Goal: numbers are short and keep what counts. Method: some of each size.
    #[test]
    fn numbers_are_short() {
        let all: Vec<_> = [
            0.0,
            0.0123,
            0.5,
            3.14999,
            42.0,
            1234.0,
            50_000.0,
            3_723_570.0,
        ]
        .map(short)
        .to_vec();
        assert_eq!(
            all,
            ["0", "0.0123", "0.5", "3.15", "42", "1234", "50 k", "3.72 M"]
        );
    }
}
