//! Two hosts with a VM each, over the same kind of wire, twice at once: under Alcor, and under the kernel's own vxlan and
//! bridge. Rounds alternate, so that both see the same machine; medians are compared.

use std::time::Duration;

use alcor_lab::{Lab, Namespace};
use anyhow::Context as _;
use serde_json::json;

use super::{Figures, median, print_table, rounded};
use crate::{
    cloud::{Build, Cloud, PROGRAMS, WIRE_MTU, clean, iperf, text},
    setup::{For, setup},
};

const LAB: &str = "bench";
const KERNEL_LAB: &str = "kernel";
/// The VM that others send to, in both topologies.
const SERVER: &str = "10.0.0.12";
const CLIENT: &str = "10.0.0.11";

/// What is measured, its unit, and whether more is better.
const MEASUREMENTS: [(&str, &str); 4] = [
    ("tcp_1", "Gbit/s"),
    ("tcp_4", "Gbit/s"),
    ("pps", "packets/s"),
    ("rtt", "us"),
];

struct Pair {
    client: Namespace,
    server: Namespace,
}

pub(super) fn bench(quick: bool) -> anyhow::Result<Figures> {
    setup(For::Demo)?;
    Build::Release.packages(PROGRAMS)?;
    clean(LAB)?;
    let cloud = Cloud::start(LAB, Build::Release)?;
    let hosts = [cloud.host(1)?, cloud.host(2)?];
    let alcor = alcor(&cloud, &hosts)?;
    let kernel_lab = Lab::new(KERNEL_LAB)?;
    let kernel = kernel(&kernel_lab)?;
    let (rounds, seconds) = if quick { (2, 1) } else { (7, 3) };
    let progress = indicatif::ProgressBar::new(rounds * 2).with_style(
        indicatif::ProgressStyle::with_template("{prefix:>14} {bar:40} {pos}/{len}")?,
    );
    let mut seen: [[Vec<f64>; 4]; 2] = Default::default();
    for round in 0..rounds {
        // Who goes first alternates too.
        for side in if round % 2 == 0 { [0, 1] } else { [1, 0] } {
            let pair = if side == 0 { &alcor } else { &kernel };
            for (values, value) in seen[side].iter_mut().zip(round_of(pair, seconds)?) {
                values.push(value);
            }
            progress.inc(1);
        }
    }
    progress.finish();
    let [alcor, kernel] = seen;
    let figures = figures(alcor, kernel);
    drop(kernel_lab);
    drop(cloud);
    clean(LAB)?;
    Ok(figures)
}

fn figures(alcor: [Vec<f64>; 4], kernel: [Vec<f64>; 4]) -> Figures {
    let mut figures = Figures::new();
    let mut rows = vec![vec![
        "".into(),
        "Alcor".into(),
        "kernel vxlan + bridge".into(),
        "ratio".into(),
    ]];
    for (((name, unit), ours), theirs) in MEASUREMENTS.into_iter().zip(alcor).zip(kernel) {
        let (ours, theirs) = (median(ours), median(theirs));
        let key = match name.strip_prefix("tcp_") {
            Some(streams) => format!("tcp_ratio_{streams}"),
            None => format!("{name}_ratio"),
        };
        figures.insert(format!("{name}_alcor"), rounded(ours));
        figures.insert(format!("{name}_kernel"), rounded(theirs));
        figures.insert(key, rounded(ours / theirs));
        rows.push(vec![
            format!("{name} ({unit})"),
            format!("{ours:.2}"),
            format!("{theirs:.2}"),
            format!("{:.3}", ours / theirs),
        ]);
    }
    print_table(rows);
    figures
}

/// Two VMs under Alcor, with static addresses: the ones that the API gave them.
fn alcor(cloud: &Cloud, hosts: &[crate::cloud::Host; 2]) -> anyhow::Result<Pair> {
    let network = cloud
        .api
        .post("/v2.0/networks", &json!({"network": {"name": "bench"}}))?["network"]
        .take();
    let network = text(&network["id"])?;
    let pool = json!([{"start": CLIENT, "end": SERVER}]);
    let subnet =
        json!({"network_id": network, "ip_version": 4, "cidr": "10.0.0.0/24", "allocation_pools": pool});
    cloud.api.post("/v2.0/subnets", &json!({ "subnet": subnet }))?;
    let client = cloud.vm(&hosts[0], "client", network)?;
    let server = cloud.vm(&hosts[1], "server", network)?;
    for vm in [&client, &server] {
        let ip = text(&vm.port["fixed_ips"][0]["ip_address"])?;
        configure(&vm.namespace, ip)?;
    }
    let pair = Pair {
        client: client.namespace,
        server: server.namespace,
    };
    reachable(&pair)?;
    Ok(pair)
}

fn configure(vm: &Namespace, ip: &str) -> anyhow::Result<()> {
    vm.ip(&["addr", "add", &format!("{ip}/24"), "dev", "eth0"])?;
    vm.ip(&["link", "set", "eth0", "mtu", "1450"])?;
    Ok(())
}

/// The same with what the kernel has: a bridge and a vxlan device on each host.
fn kernel(lab: &Lab) -> anyhow::Result<Pair> {
    let wire = lab.wire(WIRE_MTU)?;
    let mut vms = Vec::new();
    for (number, other, ip) in [(1u8, 2u8, CLIENT), (2, 1, SERVER)] {
        let address = |number: u8| std::net::IpAddr::from([198, 18, 1, number]);
        let host = lab.host(&wire, &format!("k{number}"), address(number), WIRE_MTU)?;
        host.ip(&["link", "add", "br0", "type", "bridge"])?;
        let (local, remote) = (address(number).to_string(), address(other).to_string());
        host.ip(&[
            "link", "add", "vx0", "type", "vxlan", "id", "1", "local", &local, "remote", &remote, "dstport",
            "4789",
        ])?;
        let tap = format!("tap{number}");
        let vm = lab.vm(
            &host,
            &format!("v{number}"),
            &tap,
            &format!("02:00:00:00:00:0{number}"),
        )?;
        for device in ["vx0", tap.as_str()] {
            host.ip(&["link", "set", device, "master", "br0", "up"])?;
        }
        host.ip(&["link", "set", "br0", "up"])?;
        configure(&vm, ip)?;
        vms.push(vm);
    }
    let [client, server] =
        <[Namespace; 2]>::try_from(vms).map_err(|_| anyhow::anyhow!("two VMs were made"))?;
    let pair = Pair { client, server };
    reachable(&pair)?;
    Ok(pair)
}

fn reachable(pair: &Pair) -> anyhow::Result<()> {
    alcor_lab::eventually("the first ping", Duration::from_secs(10), || {
        pair.client
            .run(&["ping", "-n", "-c", "1", "-W", "1", SERVER])
            .map_err(|error| error.to_string())
    })?;
    Ok(())
}

/// One round of all measurements, in the order of [`MEASUREMENTS`].
fn round_of(pair: &Pair, seconds: u32) -> anyhow::Result<[f64; 4]> {
    let seconds = seconds.to_string();
    let tcp = |streams: &str| {
        let report = iperf(
            &pair.client,
            &pair.server,
            SERVER,
            &["-t", &seconds, "-P", streams],
        )?;
        let bits = report["end"]["sum_received"]["bits_per_second"].as_f64();
        bits.map(|bits| bits / 1e9)
            .context("iperf3 reported no received bits")
    };
    let (tcp_1, tcp_4) = (tcp("1")?, tcp("4")?);
    let report = iperf(
        &pair.client,
        &pair.server,
        SERVER,
        &["-t", &seconds, "-u", "-l", "64", "-b", "0"],
    )?;
    let sum = &report["end"]["sum"];
    let count = |key: &str| {
        sum[key]
            .as_f64()
            .with_context(|| format!("iperf3 reported no {key}: {sum}"))
    };
    let pps = (count("packets")? - count("lost_packets")?) / count("seconds")?;
    let printed = pair
        .client
        .run(&["ping", "-n", "-q", "-i", "0.002", "-c", "1000", SERVER])?;
    let summary = printed
        .rsplit(" = ")
        .next()
        .and_then(|times| times.split('/').nth(1));
    let rtt_ms: f64 = summary.context("ping printed no summary")?.parse()?;
    Ok([tcp_1, tcp_4, pps, rtt_ms * 1e3])
}
