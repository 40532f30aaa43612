//! What the master counts of itself, and its text for Prometheus. It decides nothing.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Counts one more.
    pub fn inc(&self) {
        self.add(1);
    }

    /// Counts `by` more.
    pub fn add(&self, by: u64) {
        self.0.fetch_add(by, Ordering::Relaxed);
    }

    /// How many so far.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Counters that no part of the master keeps for itself. The next one goes here and into
/// [`Metrics::render`].
#[derive(Debug, Default)]
pub struct Metrics {
    /// Events that are new in the table.
    pub events_stored_total: Counter,
    /// Events that were refused: of a decky that is not the sender's.
    pub events_refused_total: Counter,
    /// Transactions that wrote.
    pub db_writes_total: Counter,
    /// Statements that were sent to the database, besides those that begin and end transactions.
    pub db_statements_total: Counter,
    /// Requests that were answered.
    pub http_requests_total: Counter,
}

/// What is read elsewhere at the moment of asking.
#[derive(Debug, Default)]
pub struct Readings {
    /// Hosts by state.
    pub hosts: BTreeMap<&'static str, u64>,
    /// Topologies by status.
    pub topologies: BTreeMap<&'static str, u64>,
    /// Rows of the table of events, as the newest row tells.
    pub events_newest_row: u64,
    /// Heartbeats handled since the start.
    pub heartbeats: u64,
    /// Assignments sent to hosts since the start.
    pub assignments_pushed: u64,
    /// Passes of the reconciler since the start.
    pub reconcile_passes: u64,
    /// Open event streams.
    pub event_streams: u64,
}

impl Metrics {
    /// The text form of Prometheus, version 0.0.4.
    pub fn render(&self, readings: &Readings) -> String {
        let Self {
            events_stored_total,
            events_refused_total,
            db_writes_total,
            db_statements_total,
            http_requests_total,
        } = self;
        let mut text = String::new();
        family(
            &mut text,
            "hosts",
            "gauge",
            "Hosts by state.",
            "state",
            &readings.hosts,
        );
        let by_status = &readings.topologies;
        family(
            &mut text,
            "topologies",
            "gauge",
            "Topologies by status.",
            "status",
            by_status,
        );
        for (name, kind, help, value) in [
            (
                "events_newest_row",
                "gauge",
                "Newest row of events.",
                readings.events_newest_row,
            ),
            (
                "event_streams",
                "gauge",
                "Open event streams.",
                readings.event_streams,
            ),
            (
                "heartbeats_total",
                "counter",
                "Heartbeats handled.",
                readings.heartbeats,
            ),
            (
                "assignments_pushed_total",
                "counter",
                "Assignments sent to hosts.",
                readings.assignments_pushed,
            ),
            (
                "reconcile_passes_total",
                "counter",
                "Passes of the reconciler.",
                readings.reconcile_passes,
            ),
            (
                "events_stored_total",
                "counter",
                "Events stored.",
                events_stored_total.get(),
            ),
            (
                "events_refused_total",
                "counter",
                "Events refused.",
                events_refused_total.get(),
            ),
            (
                "db_writes_total",
                "counter",
                "Transactions that wrote.",
                db_writes_total.get(),
            ),
            (
                "db_statements_total",
                "counter",
                "Statements sent to the database.",
                db_statements_total.get(),
            ),
            (
                "http_requests_total",
                "counter",
                "Requests answered.",
                http_requests_total.get(),
            ),
        ] {
            head(&mut text, name, kind, help);
            line(&mut text, format_args!("decnet_{name} {value}"));
        }
        text
    }
}

fn head(text: &mut String, name: &str, kind: &str, help: &str) {
    line(text, format_args!("# HELP decnet_{name} {help}"));
    line(text, format_args!("# TYPE decnet_{name} {kind}"));
}

fn family(
    text: &mut String,
    name: &str,
    kind: &str,
    help: &str,
    label: &str,
    values: &BTreeMap<&'static str, u64>,
) {
    head(text, name, kind, help);
    for (value, count) in values {
        line(
            text,
            format_args!("decnet_{name}{{{label}=\"{value}\"}} {count}"),
        );
    }
}

fn line(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    writeln!(text, "{arguments}").expect("a String takes everything that is written to it");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sample_has_a_type_and_the_prefix() {
        let metrics = Metrics::default();
        metrics.events_stored_total.add(3);
        let readings = Readings {
            hosts: BTreeMap::from([("lost", 0), ("ready", 2)]),
            ..Readings::default()
        };
        let text = metrics.render(&readings);
        assert!(text.contains("# TYPE decnet_hosts gauge\ndecnet_hosts{state=\"lost\"} 0\n"));
        assert!(text.contains("\ndecnet_events_stored_total 3\n"));
        assert!(
            text.lines()
                .all(|line| line.starts_with("# ") || line.starts_with("decnet_"))
        );
    }
}
