//! What security groups cost packets: pairs of VMs on two hosts, not filtered, and under groups with 0, 10 and 1,000 rules
//! more than those that let the traffic through. Slices are short and cases alternate; each is compared with the
//! unfiltered one of its own round, and the median of these ratios is told: whoever else uses the machine slows all of a
//! round.

use std::{net::SocketAddr, time::Duration};

use alcor_lab::{Namespace, eventually};
use anyhow::Context as _;
use serde_json::{Value, json};

use super::{Figures, connections, median, print_table, rounded};
use crate::cloud::{Build, Cloud, Host, clean, iperf, text};

const LAB: &str = "bench";
/// Rules of each group that is measured, besides the ones that let the traffic through. None of them matches it.
const RULES: [u32; 3] = [0, 10, 1000];
/// Rules of one request.
const BULK: usize = 100;
/// The TCP port that connections are made to.
const PORT: u16 = 9000;
/// How long the first ping may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Two VMs, and what was measured between them.
struct Pair {
    /// `None`: not filtered.
    rules: Option<u32>,
    client: Namespace,
    server: Namespace,
    ip: String,
    tcp: Vec<f64>,
    cps: Vec<f64>,
}

/// Measures; the figures are `tcp_*` (Gbit/s), `cps_*` (connections made and closed per second, one after the other) and
/// their ratios: `*_ratio_rules_N` to the pair that is not filtered, `*_more_rules_N` to the filtered one with 0 rules more.
///
/// # Errors
/// When the cloud does not come up or nothing passes.
pub fn bench(quick: bool) -> anyhow::Result<Figures> {
    // Packets meet only what is in the kernel; how the agent was built does not matter to them.
    Build::Debug.packages(&["alcor"])?;
    clean(LAB)?;
    let cloud = Cloud::start(LAB, Build::Debug)?;
    let hosts = [cloud.host(1)?, cloud.host(2)?];
    let mut pairs = pairs(&cloud, &hosts)?;
    let (rounds, time) = match quick {
        true => (5, Duration::from_secs(1)),
        false => (21, Duration::from_secs(1)),
    };
    let progress = indicatif::ProgressBar::new(rounds * pairs.len() as u64).with_style(
        indicatif::ProgressStyle::with_template("{prefix:>14} {bar:40} {pos}/{len}")?,
    );
    for round in 0..rounds {
        // Who goes first alternates too.
        let (first, count) = (round as usize % pairs.len(), pairs.len());
        for turn in 0..count {
            let Some(pair) = pairs.get_mut((first + turn) % count) else {
                continue;
            };
            pair.measure(time)?;
            progress.inc(1);
        }
    }
    progress.finish();
    let figures = figures(pairs);
    drop(cloud);
    clean(LAB)?;
    Ok(figures)
}

fn figures(pairs: Vec<Pair>) -> Figures {
    let mut figures = Figures::new();
    let header = [
        "",
        "TCP (Gbit/s)",
        "to unfiltered",
        "to 0 rules",
        "connections/s",
        "to unfiltered",
        "to 0 rules",
    ];
    let mut rows = vec![header.map(str::to_owned).to_vec()];
    let rounds_of = |rules: Option<u32>| {
        let pair = pairs.iter().find(|pair| pair.rules == rules);
        pair.map(|pair| (pair.tcp.clone(), pair.cps.clone()))
            .unwrap_or_default()
    };
    let (unfiltered, bare) = (rounds_of(None), rounds_of(Some(0)));
    for pair in pairs {
        let to = |base: &(Vec<f64>, Vec<f64>)| (ratio(&pair.tcp, &base.0), ratio(&pair.cps, &base.1));
        let ((tcp_ratio, cps_ratio), (tcp_more, cps_more)) = (to(&unfiltered), to(&bare));
        let (tcp, cps) = (median(pair.tcp), median(pair.cps));
        let name = match pair.rules {
            None => "unfiltered".to_owned(),
            Some(rules) => format!("rules_{rules}"),
        };
        figures.insert(format!("tcp_{name}"), rounded(tcp));
        figures.insert(format!("cps_{name}"), rounded(cps));
        if pair.rules.is_some() {
            figures.insert(format!("tcp_ratio_{name}"), rounded(tcp_ratio));
            figures.insert(format!("cps_ratio_{name}"), rounded(cps_ratio));
            figures.insert(format!("tcp_more_{name}"), rounded(tcp_more));
            figures.insert(format!("cps_more_{name}"), rounded(cps_more));
        }
        rows.push(vec![
            name,
            format!("{tcp:.2}"),
            format!("{tcp_ratio:.3}"),
            format!("{tcp_more:.3}"),
            format!("{cps:.0}"),
            format!("{cps_ratio:.3}"),
            format!("{cps_more:.3}"),
        ]);
    }
    print_table(rows);
    figures
}

/// The median of the rounds' ratios.
fn ratio(values: &[f64], plain: &[f64]) -> f64 {
    let rounds = values.iter().zip(plain);
    median(rounds.map(|(value, plain)| value / plain).collect())
}

/// A client on one host and a server on the other, for each case.
fn pairs(cloud: &Cloud, hosts: &[Host; 2]) -> anyhow::Result<Vec<Pair>> {
    let network = json!({"network": {"name": "security"}});
    let network = cloud.api.post("/v2.0/networks", &network)?["network"]["id"].take();
    let subnet = json!({"network_id": network, "ip_version": 4, "cidr": "10.0.0.0/24"});
    cloud.api.post("/v2.0/subnets", &json!({ "subnet": subnet }))?;
    let mut pairs = Vec::new();
    for (number, rules) in [None].into_iter().chain(RULES.map(Some)).enumerate() {
        let security = match rules {
            None => json!({"port_security_enabled": false, "security_groups": []}),
            Some(rules) => json!({"security_groups": [group(cloud, rules)?]}),
        };
        let vm = |side: &str, host: &Host| -> anyhow::Result<(Namespace, String)> {
            let mut port = json!({"network_id": network, "binding:host_id": host.name});
            if let (Some(port), Some(security)) = (port.as_object_mut(), security.as_object()) {
                port.extend(security.clone());
            }
            let port = cloud.api.post("/v2.0/ports", &json!({ "port": port }))?["port"].take();
            let namespace = cloud.plug(host, &format!("{side}{number}"), &port)?;
            let ip = text(&port["fixed_ips"][0]["ip_address"])?.to_owned();
            namespace.ip(&["addr", "add", &format!("{ip}/24"), "dev", "eth0"])?;
            namespace.ip(&["link", "set", "eth0", "mtu", "1450"])?;
            Ok((namespace, ip))
        };
        let ((client, _), (server, ip)) = (vm("c", &hosts[0])?, vm("s", &hosts[1])?);
        eventually("the first ping", PATIENCE, || {
            client
                .run(&["ping", "-n", "-c", "1", "-W", "1", &ip])
                .map_err(|error| error.to_string())
        })?;
        pairs.push(Pair {
            rules,
            client,
            server,
            ip,
            tcp: Vec::new(),
            cps: Vec::new(),
        });
    }
    Ok(pairs)
}

/// A group that lets the traffic in by its last rules, and has so many others.
fn group(cloud: &Cloud, rules: u32) -> anyhow::Result<Value> {
    let body = json!({"security_group": {"name": format!("{rules} rules")}});
    let group = cloud.api.post("/v2.0/security-groups", &body)?["security_group"]["id"].take();
    let other = |number: u32| {
        let (high, low) = (number / 250, number % 250);
        json!({
            "security_group_id": group,
            "direction": if number.is_multiple_of(2) { "ingress" } else { "egress" },
            "protocol": if number.is_multiple_of(3) { "udp" } else { "tcp" },
            "port_range_min": 10_000 + number * 7,
            "port_range_max": 10_000 + number * 7 + number % 5,
            "remote_ip_prefix": format!("172.{}.{low}.0/24", 16 + high),
        })
    };
    let allowed = ["tcp", "icmp"]
        .map(|protocol| json!({"security_group_id": group, "direction": "ingress", "protocol": protocol}));
    let all: Vec<Value> = (0..rules).map(other).chain(allowed).collect();
    for some in all.chunks(BULK) {
        let body = json!({ "security_group_rules": some });
        cloud.api.post("/v2.0/security-group-rules", &body)?;
    }
    Ok(group)
}

impl Pair {
    fn measure(&mut self, time: Duration) -> anyhow::Result<()> {
        let seconds = time.as_secs().to_string();
        let report = iperf(&self.client, &self.server, &self.ip, &["-t", &seconds])?;
        let bits = report["end"]["sum_received"]["bits_per_second"].as_f64();
        self.tcp
            .push(bits.context("iperf3 reported no received bits")? / 1e9);
        let address = SocketAddr::new(self.ip.parse()?, PORT);
        self.cps.push(connections::per_second(
            &[&self.client],
            &self.server,
            address,
            time,
        )?);
        Ok(())
    }
}
