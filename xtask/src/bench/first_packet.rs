//! The first packet to somebody a host has never heard of: it is held until the NCM has said where, then released. One VM
//! pings many others on another host at once, twice: round trips of the first time beside those of the second, which take
//! the direct path.

use anyhow::Context as _;
use serde_json::json;

use super::{Figures, percentile, print_table, rounded};
use crate::{
    cloud::{Build, Cloud, Host, Vm, clean, text},
    setup::{For, setup},
};

const LAB: &str = "bench";
/// Peers that nobody has sent to.
const PEERS: usize = 200;
/// Milliseconds between the pings to one peer.
const PERIOD_MS: &str = "1000";
/// Pings to each peer.
const COUNT: &str = "4";

pub(super) fn bench(quick: bool) -> anyhow::Result<Figures> {
    setup(For::Demo)?;
    Build::Release.packages(&["alcor"])?;
    clean(LAB)?;
    let cloud = Cloud::start_with(LAB, Build::Release, "[ncm]\neager_rows_max = 0\n")?;
    let hosts = [cloud.host(1)?, cloud.host(2)?];
    let peers = if quick { 20 } else { PEERS };
    let (client, addresses) = network(&cloud, &hosts, peers)?;
    let times = ping(&client, &addresses)?;
    let lost = addresses.len() - times.first.len();
    let [mut first, mut later] = [times.first, times.later];
    first.sort_by(f64::total_cmp);
    later.sort_by(f64::total_cmp);
    drop(cloud);
    clean(LAB)?;
    let mut figures = Figures::new();
    let mut rows = vec![["", "p50", "p99"].map(str::to_owned).to_vec()];
    for (key, name, values) in [
        ("first_packet_ms", "first round trip (ms)", &first),
        ("later_packet_ms", "later round trips (ms)", &later),
    ] {
        let [p50, p99] = [0.5, 0.99].map(|share| percentile(values, share));
        rows.push(vec![name.to_owned(), format!("{p50:.3}"), format!("{p99:.3}")]);
        figures.insert(format!("{key}_p50"), rounded(p50));
        figures.insert(format!("{key}_p99"), rounded(p99));
    }
    figures.insert("first_packet_peers".into(), json!(addresses.len()));
    figures.insert("first_packet_lost".into(), json!(lost));
    print_table(rows);
    eprintln!("{} peers at once, {lost} first packets lost", addresses.len());
    Ok(figures)
}

/// A VM on one host, and many on the other with their addresses.
fn network(cloud: &Cloud, hosts: &[Host; 2], peers: usize) -> anyhow::Result<(Vm, Vec<String>)> {
    let network = cloud
        .api
        .post("/v2.0/networks", &json!({"network": {"name": "bench"}}))?;
    let network = text(&network["network"]["id"])?;
    let subnet = json!({"network_id": network, "ip_version": 4, "cidr": "10.0.0.0/22"});
    cloud.api.post("/v2.0/subnets", &json!({ "subnet": subnet }))?;
    let bar = indicatif::ProgressBar::new(peers as u64).with_style(indicatif::ProgressStyle::with_template(
        "{prefix:>14} {bar:40} {pos}/{len}",
    )?);
    bar.set_prefix("peers");
    let mut addresses = Vec::with_capacity(peers);
    for number in 0..peers {
        addresses.push(address_of(&cloud.vm(
            &hosts[1],
            &format!("p{number}"),
            network,
        )?)?);
        bar.inc(1);
    }
    bar.finish();
    let client = cloud.vm(&hosts[0], "client", network)?;
    address_of(&client)?;
    Ok((client, addresses))
}

/// Sets the address that the API gave.
fn address_of(vm: &Vm) -> anyhow::Result<String> {
    let ip = text(&vm.port["fixed_ips"][0]["ip_address"])?;
    vm.namespace
        .ip(&["addr", "add", &format!("{ip}/22"), "dev", "eth0"])?;
    Ok(ip.to_owned())
}

struct Times {
    /// Of the first pings that were answered.
    first: Vec<f64>,
    /// Of the others.
    later: Vec<f64>,
}

/// Pings all at once, several times. fping prints `address : 1.23 0.45 - 0.44`, where a dash was not answered.
fn ping(client: &Vm, addresses: &[String]) -> anyhow::Result<Times> {
    let mut command = vec![
        "fping", "-q", "-i", "0", "-p", PERIOD_MS, "-t", PERIOD_MS, "-C", COUNT,
    ];
    command.extend(addresses.iter().map(String::as_str));
    let net = format!("--net=/run/netns/{}", client.namespace.name());
    // It ends with 1 when an answer is missing, which is a figure here.
    let done = std::process::Command::new("nsenter")
        .args([net.as_str(), "--"])
        .args(&command)
        .output()
        .context("running fping")?;
    let printed = String::from_utf8_lossy(&done.stderr);
    let mut times = Times {
        first: Vec::new(),
        later: Vec::new(),
    };
    for line in printed.lines() {
        let (_, values) = line
            .split_once(" : ")
            .with_context(|| format!("fping printed {line}"))?;
        for (turn, value) in values.split_whitespace().enumerate() {
            let into = if turn == 0 {
                &mut times.first
            } else {
                &mut times.later
            };
            into.extend(value.parse::<f64>().ok());
        }
    }
    anyhow::ensure!(!times.later.is_empty(), "nobody answered: {printed}");
    Ok(times)
}
