//! `alcor show` and `alcor host`: tables for people, JSON for programs, on standard output.

mod local;

use alcor_model::effective::{HostState, HostSummary, Timing};
use anyhow::Context as _;
use jiff::Timestamp;
use serde_json::Value;
use tabled::builder::Builder;

use crate::{
    cli::{HostShown, OutputFlags, Shown},
    client::{Client, path_segment},
    stdout,
};

/// `alcor show ...`
///
/// # Errors
/// When the API does not answer or refuses.
pub async fn show(what: Shown, output: &OutputFlags) -> anyhow::Result<()> {
    let client = Client::new(&output.api)?;
    match what {
        Shown::Connections { port, agent } => local::connections(port, &agent.socket, output.json),
        Shown::Gateway { agent } => local::gateway(&agent.socket, output.json),
        Shown::Drops { port, agent } => local::drops(port, &agent.socket, output.json),
        Shown::Networks => {
            let rows = client.list("networks").await?;
            let columns: [(&str, Column); 6] = [
                ("id", |row| text(&row["id"])),
                ("name", |row| text(&row["name"])),
                ("status", |row| text(&row["status"])),
                ("vni", |row| text(&row["provider:segmentation_id"])),
                ("mtu", |row| text(&row["mtu"])),
                ("subnets", |row| {
                    row["subnets"].as_array().map_or(0, Vec::len).to_string()
                }),
            ];
            print_rows(output, &rows, &columns)
        }
        Shown::Ports => {
            let rows = client.list("ports").await?;
            let columns: [(&str, Column); 6] = [
                ("id", |row| text(&row["id"])),
                ("name", |row| text(&row["name"])),
                ("mac", |row| text(&row["mac_address"])),
                ("addresses", addresses),
                ("host", |row| text(&row["binding:host_id"])),
                ("status", |row| text(&row["status"])),
            ];
            print_rows(output, &rows, &columns)
        }
        Shown::Hosts => {
            let body = client.get("/alcor/v1/hosts").await?;
            if output.json {
                return stdout::json(&body["hosts"]);
            }
            let hosts: Vec<HostSummary> =
                serde_json::from_value(body["hosts"].clone()).context("the list of hosts is not readable")?;
            print_hosts(&hosts)?;
            Ok(())
        }
        Shown::Host { id } => host_state(&client, &id, output).await,
    }
}

/// `alcor host ...`
///
/// # Errors
/// When the API does not answer or refuses.
pub async fn host(what: HostShown, output: &OutputFlags) -> anyhow::Result<()> {
    let HostShown::State { id } = what;
    host_state(&Client::new(&output.api)?, &id, output).await
}

type Column = fn(&Value) -> String;

fn print_rows(output: &OutputFlags, rows: &[Value], columns: &[(&str, Column)]) -> anyhow::Result<()> {
    if output.json {
        return stdout::json(&rows);
    }
    let mut table = Builder::default();
    table.push_record(columns.iter().map(|(title, _)| *title));
    for row in rows {
        table.push_record(columns.iter().map(|(_, column)| column(row)));
    }
    stdout::table(table)
}

pub(crate) fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".into(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn addresses(port: &Value) -> String {
    let list: Vec<&str> = port["fixed_ips"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|ip| ip["ip_address"].as_str())
        .collect();
    list.join(" ")
}

fn print_hosts(hosts: &[HostSummary]) -> anyhow::Result<()> {
    let now = Timestamp::now();
    let mut table = Builder::default();
    table.push_record([
        "host",
        "tunnel address",
        "alive",
        "last seen",
        "ports",
        "pending",
        "errors",
    ]);
    for host in hosts {
        table.push_record(summary_cells(host, now));
    }
    stdout::table(table)
}

fn summary_cells(host: &HostSummary, now: Timestamp) -> [String; 7] {
    [
        host.name.clone(),
        or_dash(host.tunnel_ip),
        match host.stale {
            true => "not known",
            false => yes(host.alive),
        }
        .into(),
        ago(host.last_seen_at, now),
        host.ports.to_string(),
        host.pending.to_string(),
        host.errors.to_string(),
    ]
}

/// `yes` or `no`.
pub(crate) const fn yes(is: bool) -> &'static str {
    match is {
        true => "yes",
        false => "no",
    }
}

/// How long before now something was.
pub(crate) fn ago(at: Option<Timestamp>, now: Timestamp) -> String {
    at.map_or_else(
        || "never".into(),
        |at| format!("{} s ago", (now.as_second() - at.as_second()).max(0)),
    )
}

/// A cell of a table: what is not known is a dash.
pub(crate) fn or_dash(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".into(), |value| value.to_string())
}

/// From the commit to packets seeing it.
pub(crate) fn took(timing: Option<Timing>) -> String {
    let took = timing.map(|timing| timing.visible_us.saturating_sub(timing.committed_us));
    or_dash(took.map(|us| format!("{}.{} ms", us / 1_000, us % 1_000 / 100)))
}

async fn host_state(client: &Client, id: &str, output: &OutputFlags) -> anyhow::Result<()> {
    let body = client
        .get(&format!("/alcor/v1/hosts/{}", path_segment(id)))
        .await?;
    if output.json {
        return stdout::json(&body);
    }
    let state: HostState = serde_json::from_value(body).context("the host's state is not readable")?;
    print_hosts(std::slice::from_ref(&state.summary))?;
    stdout::line(format_args!(
        "data plane {}, incarnation {}, {} deltas queued, {} resyncs",
        state.summary.dataplane.as_deref().unwrap_or("unknown"),
        state
            .incarnation
            .map_or_else(|| "unknown".into(), |n| n.to_string()),
        state.queued,
        state.resyncs
    ))?;
    let mut table = Builder::default();
    table.push_record(["kind", "id", "intended", "applied", "took", "state"]);
    for row in &state.resources {
        let condition = match (&row.error, row.applied_revision) {
            (Some(error), _) => format!("refused: {error}"),
            (None, Some(applied)) if applied >= row.intended_revision => "in force".into(),
            (None, _) => "pending".into(),
        };
        table.push_record([
            row.kind.clone(),
            row.id.clone(),
            row.intended_revision.to_string(),
            or_dash(row.applied_revision),
            took(row.timing),
            condition,
        ]);
    }
    for row in &state.neighbours {
        let current = row.applied_revision >= Some(row.intended_revision);
        table.push_record([
            format!("{} neighbours", row.intended),
            row.network_id.to_string(),
            row.intended_revision.to_string(),
            or_dash(row.applied_revision),
            took(row.timing),
            if current { "in force" } else { "pending" }.into(),
        ]);
    }
    stdout::table(table)
}
