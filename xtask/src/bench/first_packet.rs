//! The first packet to somebody a host has never heard of: it is held until the NCM has said where and the direct path is in place, then
//! released. A VM pings many others on another host at once, several times: round trips of the first time beside those of the others,
//! which take the direct path. Then a VM on a third host does so one peer after the other, which is how long the direct path takes when
//! nothing else waits.

use anyhow::Context as _;
use serde_json::json;

use super::{Figures, percentile, print_table, rounded};
use crate::{
    cloud::{Build, Cloud, Host, PROGRAMS, Vm, clean, text},
    setup::{For, setup},
};

const LAB: &str = "bench";
/// Peers that nobody has sent to.
const PEERS: usize = 200;
/// Milliseconds between the peers, one after the other.
const ALONE_MS: &str = "10";
/// Milliseconds between the pings to one peer; longer than the turn of all peers takes.
const PERIOD_MS: &str = "3000";
/// Pings to each peer.
const COUNT: &str = "4";

pub(super) fn bench(quick: bool) -> anyhow::Result<Figures> {
    setup(For::Demo)?;
    Build::Release.packages(PROGRAMS)?;
    clean(LAB)?;
    let cloud = Cloud::start_with(LAB, Build::Release, "[ncm]\neager_rows_max = 0\n")?;
    let hosts = [cloud.host(1)?, cloud.host(2)?, cloud.host(3)?];
    let peers = if quick { 20 } else { PEERS };
    let lab = Lab::start(&cloud, &hosts, peers)?;
    let together = ping(&lab.together, &lab.peers, "0")?;
    let alone = ping(&lab.alone, &lab.peers, ALONE_MS)?;
    let lost = 2 * peers - together.first.len() - alone.first.len();
    drop(cloud);
    clean(LAB)?;
    let mut figures = Figures::new();
    let mut rows = vec![["", "p50", "p99"].map(str::to_owned).to_vec()];
    for (key, name, mut values) in [
        (
            "first_packet_ms",
            "first round trip, all at once (ms)",
            together.first,
        ),
        ("direct_path_ms", "first round trip, one by one (ms)", alone.first),
        ("later_packet_ms", "later round trips (ms)", alone.later),
    ] {
        values.sort_by(f64::total_cmp);
        let [p50, p99] = [0.5, 0.99].map(|share| percentile(&values, share));
        rows.push(vec![name.to_owned(), format!("{p50:.3}"), format!("{p99:.3}")]);
        figures.insert(format!("{key}_p50"), rounded(p50));
        figures.insert(format!("{key}_p99"), rounded(p99));
    }
    figures.insert("first_packet_peers".into(), json!(peers));
    figures.insert("first_packet_lost".into(), json!(lost));
    print_table(rows);
    eprintln!("{peers} peers, {lost} first packets lost");
    Ok(figures)
}

/// Many peers on one host, and VMs on two others that ping them.
struct Lab {
    together: Vm,
    alone: Vm,
    /// Addresses.
    peers: Vec<String>,
}

impl Lab {
    fn start(cloud: &Cloud, [together, theirs, alone]: &[Host; 3], count: usize) -> anyhow::Result<Self> {
        let network = cloud
            .api
            .post("/v2.0/networks", &json!({"network": {"name": "bench"}}))?;
        let network = text(&network["network"]["id"])?;
        let subnet = json!({"network_id": network, "ip_version": 4, "cidr": "10.0.0.0/22"});
        cloud.api.post("/v2.0/subnets", &json!({ "subnet": subnet }))?;
        let template = indicatif::ProgressStyle::with_template("{prefix:>14} {bar:40} {pos}/{len}")?;
        let bar = indicatif::ProgressBar::new(count as u64).with_style(template);
        bar.set_prefix("peers");
        let vm = |host: &Host, name: &str| -> anyhow::Result<(Vm, String)> {
            let vm = cloud.vm(host, name, network)?;
            let ip = text(&vm.port["fixed_ips"][0]["ip_address"])?.to_owned();
            let address = format!("{ip}/22");
            vm.namespace.ip(&["addr", "add", &address, "dev", "eth0"])?;
            Ok((vm, ip))
        };
        let mut peers = Vec::with_capacity(count);
        for number in 0..count {
            peers.push(vm(theirs, &format!("p{number}"))?.1);
            bar.inc(1);
        }
        bar.finish();
        Ok(Self {
            together: vm(together, "together")?.0,
            alone: vm(alone, "alone")?.0,
            peers,
        })
    }
}

struct Times {
    /// Of the first pings that were answered.
    first: Vec<f64>,
    /// Of the others.
    later: Vec<f64>,
}

/// Pings all, so many milliseconds after each other, several times. fping prints `address : 1.23 0.45 - 0.44`, where a dash was not answered.
fn ping(client: &Vm, addresses: &[String], interval_ms: &str) -> anyhow::Result<Times> {
    let mut command = vec![
        "fping",
        "-q",
        "-i",
        interval_ms,
        "-p",
        PERIOD_MS,
        "-t",
        PERIOD_MS,
        "-C",
        COUNT,
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
