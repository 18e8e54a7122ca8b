//! What a program counts, in the Prometheus text format 0.0.4.

use std::fmt::{Display, Write as _};

/// The text for `/metrics`, written from the top. Names and helps are the program's own: nothing is
/// escaped.
#[derive(Debug, Default)]
pub struct MetricsText(String);

impl MetricsText {
    /// Something that goes up and down.
    pub fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.family(name, "gauge", help);
        self.line(format_args!("{name} {value}"));
    }

    /// Something that is counted since the start.
    pub fn counter(&mut self, name: &str, help: &str, value: impl Display) {
        self.family(name, "counter", help);
        self.line(format_args!("{name} {value}"));
    }

    /// The head of several lines, one for each value of a label.
    pub fn family(&mut self, name: &str, kind: &str, help: &str) {
        self.line(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}"));
    }

    /// One of those lines.
    pub fn labelled(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        let labels = labels.iter().map(|(label, of)| format!("{label}=\"{of}\""));
        let labels: Vec<String> = labels.collect();
        self.line(format_args!("{name}{{{}}} {value}", labels.join(",")));
    }

    /// All of it.
    pub fn end(self) -> String {
        self.0
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        writeln!(self.0, "{line}").expect("a string takes all");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_is_written_as_prometheus_reads_it() {
        let mut text = MetricsText::default();
        text.gauge("nodes", "Nodes listed.", 3);
        text.counter("said_total", "Messages.", u64::MAX);
        text.family("puts_total", "counter", "Registrations.");
        text.labelled("puts_total", &[("result", "created")], 1);
        text.labelled("puts_total", &[("result", "renewed")], 2);
        let lines = [
            "# HELP nodes Nodes listed.",
            "# TYPE nodes gauge",
            "nodes 3",
            "# HELP said_total Messages.",
            "# TYPE said_total counter",
            "said_total 18446744073709551615",
            "# HELP puts_total Registrations.",
            "# TYPE puts_total counter",
            "puts_total{result=\"created\"} 1",
            "puts_total{result=\"renewed\"} 2",
        ];
        assert_eq!(
            text.end(),
            lines.map(|line| line.to_owned() + "\n").concat()
        );
    }
}
