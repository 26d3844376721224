//! What documents say of metrics is true: the dashboard asks for metrics and labels that there are, and the page for
//! operators names each of them.
#![allow(clippy::unwrap_used, reason = "a panic is how a test says no")]

use std::collections::{BTreeMap, BTreeSet};

use alcor_metrics::{ALL, Info, Type};
use regex::Regex;
use serde_json::Value;

const DASHBOARD: &str = include_str!("../../../docs/grafana/alcor.json");
const OPERATIONS: &str = include_str!("../../../docs/operations.md");
/// Labels that Prometheus adds.
const ADDED: [&str; 2] = ["instance", "job"];

/// The series that a scrape has, and the labels of each.
fn series() -> BTreeMap<String, Vec<&'static str>> {
    let of = |info: &&'static Info| {
        let labels = info.labels.to_vec();
        match info.kind {
            Type::Counter | Type::Gauge => vec![(info.name.to_owned(), labels)],
            Type::Histogram(_) => {
                let bucket = [labels.clone(), vec!["le"]].concat();
                vec![
                    (format!("{}_bucket", info.name), bucket),
                    (format!("{}_sum", info.name), labels.clone()),
                    (format!("{}_count", info.name), labels),
                ]
            }
        }
    };
    ALL.iter().flat_map(of).collect()
}

/// Every query of a panel or a variable.
fn queries(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(object) => {
            for (key, value) in object {
                match (key.as_str(), value) {
                    ("expr", Value::String(query)) => found.push(query.clone()),
                    ("query", Value::String(query)) if query.contains('(') => found.push(query.clone()),
                    _ => queries(value, found),
                }
            }
        }
        Value::Array(list) => list.iter().for_each(|value| queries(value, found)),
        _ => {}
    }
}

#[test]
fn every_query_names_metrics_and_labels_that_there_are() {
    let series = series();
    let mut found = Vec::new();
    queries(&serde_json::from_str(DASHBOARD).unwrap(), &mut found);
    assert!(found.len() > 30, "{found:?}");
    let metric = Regex::new(r"\balcor_[a-z0-9_]+").unwrap();
    let by = Regex::new(r"by \(([^)]*)\)").unwrap();
    let selector = Regex::new(r"([a-z_]+)\s*=~?").unwrap();
    for query in &found {
        let names: Vec<&str> = metric.find_iter(query).map(|name| name.as_str()).collect();
        assert!(!names.is_empty(), "{query} asks for nothing of Alcor");
        let mut labels: BTreeSet<&str> = ADDED.into();
        for name in &names {
            let known = series.get(*name);
            labels.extend(known.unwrap_or_else(|| panic!("{query}: there is no {name}")));
        }
        let grouped = by
            .captures_iter(query)
            .flat_map(|by| by.get(1).unwrap().as_str().split(", "));
        let selected = selector
            .captures_iter(query)
            .map(|label| label.get(1).unwrap().as_str());
        for label in grouped.chain(selected) {
            assert!(labels.contains(label), "{query}: there is no label {label}");
        }
    }
}

#[test]
fn every_metric_is_on_the_dashboard_and_on_the_page_for_operators() {
    for info in ALL {
        assert!(DASHBOARD.contains(info.name), "{} is on no panel", info.name);
        let labels = info.labels.join(", ");
        let line = format!("| `{}` | {labels} | {} |", info.name, info.help);
        assert!(
            OPERATIONS.contains(&line),
            "docs/operations.md lacks this line:\n{line}"
        );
    }
}

#[test]
fn names_say_what_they_are() {
    let mut names = BTreeSet::new();
    for info in ALL {
        assert!(names.insert(info.name), "{} twice", info.name);
        assert!(info.help.ends_with('.'), "{}", info.name);
        assert_eq!(
            matches!(info.kind, Type::Counter),
            info.name.ends_with("_total"),
            "{}: counters, and only they, end in _total",
            info.name
        );
        for label in info.labels {
            assert!(
                !["id", "host", "project", "network", "port"].contains(label),
                "{}: {label} has no bound",
                info.name
            );
        }
    }
}
