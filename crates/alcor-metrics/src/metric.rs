//! The three types of metrics. The number of labels is part of the type, so that a value without its labels does not
//! compile.

use std::time::Duration;

use metrics::{Label, counter, gauge, histogram};

/// What a metric is, for the exporter, for documents and tests.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Info {
    /// Its name, with its unit at the end.
    pub name: &'static str,
    /// Its type.
    pub kind: Type,
    /// Names of its labels.
    pub labels: &'static [&'static str],
    /// What it says, for people.
    pub help: &'static str,
}

/// The type of a metric.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Type {
    /// Counts up.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts values up to each of these bounds.
    Histogram(&'static [f64]),
}

fn labels<const N: usize>(info: &Info, values: [&str; N]) -> Vec<Label> {
    let pairs = info.labels.iter().zip(values);
    pairs
        .map(|(name, value)| Label::new(*name, value.to_owned()))
        .collect()
}

/// Counts up, for each combination of its `N` labels.
#[derive(Debug)]
pub struct Counter<const N: usize>(pub Info);

impl<const N: usize> Counter<N> {
    /// Counts `n` more.
    pub fn add(&self, values: [&str; N], n: u64) {
        counter!(self.0.name, labels(&self.0, values)).increment(n);
    }

    /// Takes over a count that is kept elsewhere; it never goes back.
    pub fn at_least(&self, values: [&str; N], total: u64) {
        counter!(self.0.name, labels(&self.0, values)).absolute(total);
    }
}

/// A number that goes up and down, for each combination of its `N` labels.
#[derive(Debug)]
pub struct Gauge<const N: usize>(pub Info);

impl<const N: usize> Gauge<N> {
    /// It is so many now. Numbers above 2^53 lose their last digits.
    #[allow(clippy::cast_precision_loss, reason = "Prometheus has no other numbers")]
    pub fn set(&self, values: [&str; N], value: u64) {
        gauge!(self.0.name, labels(&self.0, values)).set(value as f64);
    }

    /// One more, until the guard is dropped.
    pub fn hold(&self, values: [&str; N]) -> Held {
        let gauge = gauge!(self.0.name, labels(&self.0, values));
        gauge.increment(1.0);
        Held(gauge)
    }
}

/// One of what a gauge counts.
#[must_use]
pub struct Held(metrics::Gauge);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}

/// How values are distributed, for each combination of its `N` labels.
#[derive(Debug)]
pub struct Histogram<const N: usize>(pub Info);

impl<const N: usize> Histogram<N> {
    /// Seconds.
    pub fn seconds(&self, values: [&str; N], value: Duration) {
        histogram!(self.0.name, labels(&self.0, values)).record(value.as_secs_f64());
    }

    /// From one time to a later one, both in microseconds since the Unix epoch. Clocks of two machines may differ: what
    /// would be negative counts as 0. Nothing is counted when one of the times is unknown (0).
    pub fn between_us(&self, values: [&str; N], from_us: u64, to_us: u64) {
        if from_us != 0 && to_us != 0 {
            self.seconds(values, Duration::from_micros(to_us.saturating_sub(from_us)));
        }
    }

    /// So many things.
    #[allow(clippy::cast_precision_loss, reason = "Prometheus has no other numbers")]
    pub fn count(&self, values: [&str; N], value: usize) {
        histogram!(self.0.name, labels(&self.0, values)).record(value as f64);
    }
}
