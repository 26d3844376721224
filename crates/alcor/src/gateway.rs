//! `alcor gateway list|sets|drain|undrain|state`: gateways as the API knows them.

use alcor_model::effective::{GatewayLoad, GatewayState};
use anyhow::Context as _;
use jiff::Timestamp;
use serde_json::{Value, json};
use tabled::builder::Builder;

use crate::{
    cli::{GatewayAsked, OutputFlags},
    client::{Client, path_segment},
    show::{ago, or_dash, text, took, yes},
    stdout,
};

const PATH: &str = "/alcor/v1/gateways";
const SETS: &str = "/alcor/v1/gateway-sets";

/// Asks.
///
/// # Errors
/// When the API does not answer or refuses, and for a name that no gateway has.
pub async fn ask(what: GatewayAsked, output: &OutputFlags) -> anyhow::Result<()> {
    let client = Client::new(&output.api)?;
    match what {
        GatewayAsked::List => {
            let body = client.get(PATH).await?;
            print_gateways(output, body["gateways"].as_array().map_or(&[], Vec::as_slice))
        }
        GatewayAsked::Sets => {
            let body = client.get(SETS).await?;
            print_sets(output, body["gateway_sets"].as_array().map_or(&[], Vec::as_slice))
        }
        GatewayAsked::Drain { gateway } => drain(&client, &gateway, true, output).await,
        GatewayAsked::Undrain { gateway } => drain(&client, &gateway, false, output).await,
        GatewayAsked::State { gateway } => state(&client, &gateway, output).await,
    }
}

/// The path of a gateway, by its name or id.
async fn path_of(client: &Client, gateway: &str) -> anyhow::Result<String> {
    let body = client.get(PATH).await?;
    let mut all = body["gateways"].as_array().into_iter().flatten();
    let found = all.find(|row| row["name"] == gateway || row["id"] == gateway);
    let id = found
        .and_then(|row| row["id"].as_str())
        .with_context(|| format!("there is no gateway '{gateway}'; `alcor gateway list` shows all"))?;
    Ok(format!("{PATH}/{}", path_segment(id)))
}

async fn drain(client: &Client, gateway: &str, draining: bool, output: &OutputFlags) -> anyhow::Result<()> {
    let path = path_of(client, gateway).await?;
    let change = json!({"gateway": {"draining": draining}});
    let body = client.put(&path, &change).await?;
    match output.json {
        true => stdout::json(&body["gateway"]),
        false => print_gateways(output, std::slice::from_ref(&body["gateway"])),
    }
}

fn print_gateways(output: &OutputFlags, gateways: &[Value]) -> anyhow::Result<()> {
    if output.json {
        return stdout::json(&gateways);
    }
    let now = Timestamp::now();
    let mut table = Builder::default();
    table.push_record([
        "gateway",
        "set",
        "tunnel address",
        "alive",
        "last seen",
        "in use",
        "packets/s",
        "dropped",
    ]);
    for row in gateways {
        let seen = row["last_seen_at"].as_str().and_then(|at| at.parse().ok());
        let known = |word: &'static str| if row["stale"] == true { "not known" } else { word };
        let use_word = match row["draining"] == true {
            true => "draining",
            false => known(yes(row["in_use"] == true)),
        };
        let seen = match row["stale"] == true {
            true => "not known".to_owned(),
            false => ago(seen, now),
        };
        table.push_record([
            text(&row["name"]),
            text(&row["set"]),
            text(&row["tunnel_ip"]),
            known(yes(row["alive"] == true)).into(),
            seen,
            use_word.into(),
            text(&row["packets_per_s"]),
            text(&row["dropped"]),
        ]);
    }
    stdout::table(table)
}

fn print_sets(output: &OutputFlags, sets: &[Value]) -> anyhow::Result<()> {
    if output.json {
        return stdout::json(&sets);
    }
    let mut table = Builder::default();
    table.push_record(["set", "members", "in use", "networks"]);
    for set in sets {
        let members = set["members"].as_array().into_iter().flatten();
        let names: Vec<String> = members.map(|member| text(&member["name"])).collect();
        let cells = [
            text(&set["name"]),
            names.join(", "),
            text(&set["in_use"]),
            text(&set["networks"]),
        ];
        table.push_record(cells);
    }
    stdout::table(table)
}

async fn state(client: &Client, gateway: &str, output: &OutputFlags) -> anyhow::Result<()> {
    let path = path_of(client, gateway).await?;
    let body = client.get(&format!("{path}/state")).await?;
    if output.json {
        return stdout::json(&body);
    }
    let state: GatewayState = serde_json::from_value(body).context("the gateway's state is not readable")?;
    let alive = match (state.stale, state.alive) {
        (true, _) => "not known whether it is alive",
        (false, true) => "alive",
        (false, false) => "not alive",
    };
    stdout::line(format_args!(
        "{} of set {} at {}: {alive}{}, heard {}",
        state.name,
        state.set,
        state.tunnel_ip,
        if state.draining { ", draining" } else { "" },
        ago(state.last_seen_at, Timestamp::now()),
    ))?;
    match (&state.usage.reason, state.usage.in_use) {
        (Some(reason), _) => stdout::line(format_args!("not in use: {reason}"))?,
        (None, true) => stdout::line(format_args!(
            "in use: it has all of {} of {} networks",
            state.usage.complete,
            state.networks.len()
        ))?,
        (None, false) => {}
    }
    for ip in &state.usage.unreachable {
        stdout::line(format_args!("it cannot reach {ip}"))?;
    }
    stdout::line(format_args!(
        "data plane {}, {} pending, {} refused, {} deltas queued, {} resyncs",
        state.dataplane.as_deref().unwrap_or("unknown"),
        state.pending,
        state.errors,
        state.queued,
        state.resyncs
    ))?;
    let mut table = Builder::default();
    table.push_record(["network", "neighbours", "intended", "applied", "took", "state"]);
    for row in &state.networks {
        let current = row.applied_revision >= Some(row.intended_revision);
        table.push_record([
            row.network_id.to_string(),
            row.intended.to_string(),
            row.intended_revision.to_string(),
            or_dash(row.applied_revision),
            took(row.timing),
            if current { "in force" } else { "pending" }.into(),
        ]);
    }
    stdout::table(table)?;
    match &state.usage.load {
        Some(load) => print_load(load),
        None => stdout::line(format_args!("how much goes through it is not known")),
    }
}

fn print_load(load: &GatewayLoad) -> anyhow::Result<()> {
    let now = Timestamp::now();
    let rates = load.interval_ms.map_or_else(
        || "rates are not known".to_owned(),
        |ms| format!("rates of {}.{} s", ms / 1_000, ms % 1_000 / 100),
    );
    stdout::line(format_args!(
        "load as it said {}, {rates}; counted since its tables were made",
        ago(Some(load.said_at), now)
    ))?;
    let mut table = Builder::default();
    table.push_record(["through", "packets", "bytes", "packets/s", "bytes/s"]);
    for way in &load.passed {
        table.push_record([
            way.way.clone(),
            way.packets.to_string(),
            way.bytes.to_string(),
            or_dash(way.packets_per_s),
            or_dash(way.bytes_per_s),
        ]);
    }
    stdout::table(table)?;
    let mut table = Builder::default();
    table.push_record(["dropped", "packets", "packets/s"]);
    for drop in &load.drops {
        table.push_record([
            drop.reason.clone(),
            drop.packets.to_string(),
            or_dash(drop.packets_per_s),
        ]);
    }
    stdout::table(table)?;
    print_node(load)
}

/// Source NAT, room and devices.
fn print_node(load: &GatewayLoad) -> anyhow::Result<()> {
    let nat = &load.nat;
    stdout::line(format_args!(
        "source NAT: {} routers, {} connections, {} refused",
        nat.routers, nat.connections, nat.refused
    ))?;
    if !nat.busiest.is_empty() {
        let mut table = Builder::default();
        table.push_record(["router", "connections", "limit", "refused"]);
        for router in &nat.busiest {
            table.push_record([
                router.router_id.to_string(),
                router.connections.to_string(),
                router.limit.to_string(),
                router.refused.to_string(),
            ]);
        }
        stdout::table(table)?;
    }
    stdout::line(format_args!(
        "{} neighbours, room for {} of each address family; layout {} of the tables",
        load.neighbours,
        or_dash(load.neighbours_room),
        or_dash(load.layout)
    ))?;
    for device in &load.devices {
        stdout::line(format_args!("XDP on {}: {}", device.device, device.mode))?;
    }
    Ok(())
}
