//! `alcor trace`: a table for people, JSON for programs, of what the controller says would become of a packet.

use std::fmt::Write as _;

use alcor_model::trace::{Trace, TraceStage, TracedHost};
use anyhow::Context as _;
use tabled::{builder::Builder, settings::Style};

use crate::{
    cli::{OutputFlags, TraceFlags},
    client::{Client, path_segment},
    stdout,
};

/// Asks and prints.
///
/// # Errors
/// When the API does not answer or refuses.
pub async fn trace(packet: &TraceFlags, output: &OutputFlags) -> anyhow::Result<()> {
    let body = Client::new(&output.api)?.get(&path(packet)).await?;
    if output.json {
        return stdout::json(&body);
    }
    let trace: Trace = serde_json::from_value(body).context("the trace is not readable")?;
    stdout::line(shown(&trace).trim_end())
}

fn path(packet: &TraceFlags) -> String {
    let mut path = format!(
        "/alcor/v1/trace?from={}&to={}&protocol={}",
        path_segment(&packet.from),
        packet.to,
        path_segment(&packet.proto)
    );
    let numbers = [
        ("destination_port", packet.dport),
        ("source_port", packet.sport),
        ("icmp_type", packet.icmp_type.map(u16::from)),
        ("icmp_code", packet.icmp_code.map(u16::from)),
    ];
    for (name, value) in numbers {
        if let Some(value) = value {
            // Writing into a text does not fail.
            let _ = write!(path, "&{name}={value}");
        }
    }
    path
}

fn shown(trace: &Trace) -> String {
    let mut table = Builder::default();
    table.push_record(["host", "stage", "", "what happens", "rule"]);
    for stage in &trace.stages {
        table.push_record(cells(stage));
    }
    let mut text = format!("{}\n", table.build().with(Style::sharp()));
    let end = match (&trace.delivered_to, &trace.dropped) {
        (Some(port), _) => format!("It would reach port {port}."),
        (None, Some(reason)) => format!("It would be dropped, and counted as {reason}."),
        (None, None) => "It would reach no port.".to_owned(),
    };
    text += &format!(
        "{end}\nComputed from the goal state of network {}.\n",
        trace.network_id
    );
    for host in &trace.hosts {
        text += &format!("  {}\n", progress(host));
    }
    text
}

fn cells(stage: &TraceStage) -> [String; 5] {
    [
        stage.host.clone(),
        stage.stage.clone(),
        if stage.passes { "passes" } else { "ends" }.to_owned(),
        stage.detail.clone(),
        stage.rule_id.map_or_else(String::new, |rule| rule.to_string()),
    ]
}

/// How far a host is with what the answer was computed from.
fn progress(host: &TracedHost) -> String {
    let TracedHost {
        name,
        intended_revision,
        ..
    } = host;
    let applied = host
        .applied_revision
        .map_or_else(|| "nothing".to_owned(), |revision| format!("revision {revision}"));
    let mut text = if host.in_force {
        format!("{name} has it in force (revision {intended_revision})")
    } else {
        format!(
            "{name} does NOT have it in force: it needs revision {intended_revision} and has applied {applied}"
        )
    };
    if !host.alive {
        text += ", and does not answer";
    }
    if !host.filters {
        text += ", and its data plane does not filter by security groups";
    }
    for refused in &host.refused {
        text += &format!("; it refused a {refused}");
    }
    text
}

#[cfg(test)]
mod tests {
    use alcor_model::{Id, Revision, trace::TraceQuestion};

    use super::*;

    fn id<T>(number: u128) -> Id<T> {
        format!("00000000-0000-0000-0000-{number:012}").parse().unwrap()
    }

    #[test]
    fn a_trace_says_how_it_ends_and_how_far_hosts_are() {
        let host = TracedHost {
            name: "node-1".into(),
            alive: false,
            filters: true,
            intended_revision: Revision(9),
            applied_revision: Some(Revision(7)),
            in_force: false,
            refused: vec!["policy: no room".into()],
        };
        let stage = TraceStage {
            host: "node-1".into(),
            stage: "egress rules".into(),
            passes: true,
            detail: "allowed".into(),
            security_group_id: Some(id(4)),
            rule_id: Some(id(5)),
        };
        let trace = Trace {
            question: TraceQuestion {
                from: id(1),
                to: "10.0.0.9".parse().unwrap(),
                protocol: 6,
                source_port: 1,
                point: 22,
            },
            source: None,
            network_id: id(2),
            stages: vec![stage],
            delivered_to: None,
            dropped: Some("ingress_denied".into()),
            hosts: vec![host],
        };
        let text = shown(&trace);
        for part in [
            "egress rules",
            "000000000005",
            "counted as ingress_denied",
            "NOT have it in force: it needs revision 9 and has applied revision 7, and does not answer; it refused a policy: no room",
        ] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
    }
}
