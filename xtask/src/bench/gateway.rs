//! What gateways do: packets per second of the XDP program beside the kernel's own forwarding and mappings from a cold start
//! (the example `gateway_rate`); and on a small cloud with two of them: what the hop costs a round trip, packets lost when a
//! process starts again, source NAT connections per second, and how soon a dead one is in no host's rows any more.

use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use alcor_dataplane_abi::gateway::{choose, flow_key, key};
use alcor_lab::{Process, eventually};
use anyhow::Context as _;
use serde_json::{Value, json};

use super::{Figures, connections, example, percentile, print_table, rounded};
use crate::{
    cloud::{Build, Cloud, FAR_HOST, Gateway, Host, Outside, PROGRAMS, Vm, clean, text},
    setup::{For, setup},
};

const LAB: &str = "bench";
/// How long anything may take to come about.
const READY: Duration = Duration::from_secs(30);
/// Flows whose member is looked at.
const FLOWS: u32 = 1_000_000;
/// Members of the set that one leaves.
const MEMBERS: u8 = 10;
/// Where connections are made to.
const PORT: u16 = 9000;
/// The interval of the pings that a restart must not lose, in seconds.
const INTERVAL: &str = "0.01";

/// Measures.
///
/// # Errors
/// When the cloud does not come up or nothing passes.
pub(super) fn bench(quick: bool) -> anyhow::Result<Figures> {
    setup(For::Demo)?;
    Build::Release.packages(PROGRAMS)?;
    let small: &[&str] = if quick { &["65536", "100000"] } else { &[] };
    let rate = example("alcor-dataplane-ebpf", "gateway_rate", false, small)?;
    let mut figures: Figures = serde_json::from_str(&rate).context("what gateway_rate printed")?;
    figures.insert("moved_fraction".into(), rounded(moved_fraction()));
    clean(LAB)?;
    let mut lab = Lab::start()?;
    lab.hop(if quick { "100" } else { "2000" }, &mut figures)?;
    lab.restart(&mut figures)?;
    lab.snat(quick, &mut figures)?;
    lab.failover(&mut figures)?;
    drop(lab);
    clean(LAB)?;
    let shown = figures
        .iter()
        .map(|(key, value)| vec![key.clone(), value.to_string()]);
    print_table(shown.collect());
    Ok(figures)
}

fn four_bytes(number: u32) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    bytes
}

fn address(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(ip) => four_bytes(ip.to_bits()),
        IpAddr::V6(ip) => ip.octets(),
    }
}

/// The share of flows that another member takes when one of ten leaves.
fn moved_fraction() -> f64 {
    let members: Vec<u64> = (1..=MEMBERS)
        .map(|last| key(&address([192, 0, 2, last].into())))
        .collect();
    let moved = (0..FLOWS).filter(|flow| {
        let flow = flow_key(&four_bytes(0x0a00_0001), &four_bytes(0x0a01_0000 + flow));
        let taker = |members: &[u64]| choose(flow, members.iter().copied()).map(|at| members[at]);
        taker(&members) != taker(&members[1..])
    });
    moved.count() as f64 / f64::from(FLOWS)
}

/// Two hosts with a VM each, two gateways, an outside.
struct Lab {
    cloud: Cloud,
    hosts: [Host; 2],
    gateways: Vec<Gateway>,
    outside: Outside,
    vms: [Vm; 2],
    network: String,
    router: Value,
}

impl Lab {
    fn start() -> anyhow::Result<Self> {
        let cloud = Cloud::start_with(LAB, Build::Release, "[ncm]\neager_rows_max = 0\n")?;
        let hosts = [cloud.host(1)?, cloud.host(2)?];
        let outside = cloud.outside()?;
        let gateways = vec![cloud.gateway(1, &outside)?, cloud.gateway(2, &outside)?];
        let (network, router) = way_out(&cloud)?;
        let vms = [
            cloud.vm(&hosts[0], "client", &network)?,
            cloud.vm(&hosts[1], "server", &network)?,
        ];
        for vm in &vms {
            let ip = format!("{}/24", ip_of(vm)?);
            vm.namespace.ip(&["address", "add", &ip, "dev", "eth0"])?;
            vm.namespace.ip(&["link", "set", "eth0", "mtu", "1450"])?;
            vm.namespace.ip(&["route", "add", "default", "via", "10.0.0.1"])?;
        }
        let lab = Self {
            cloud,
            hosts,
            gateways,
            outside,
            vms,
            network,
            router,
        };
        lab.in_force(2)?;
        Ok(lab)
    }

    /// Waits until every host has so many gateways in force.
    fn in_force(&self, count: usize) -> anyhow::Result<()> {
        for host in &self.hosts {
            eventually("the gateways in a host's rows", READY, || {
                let gateways = self.cloud.gateways_in_force(&host.name, &self.network);
                match gateways.map_err(|error| format!("{error:#}"))? {
                    gateways if gateways.len() == count => Ok(()),
                    gateways => Err(format!("{gateways:?}")),
                }
            })?;
        }
        Ok(())
    }

    /// The member that has the router's addresses.
    fn owner(&self) -> anyhow::Result<usize> {
        let id = text(&self.router["id"])?.replace('-', "");
        let id = u128::from_str_radix(&id, 16)?.to_be_bytes();
        let members = self
            .gateways
            .iter()
            .map(|gateway| key(&address(gateway.tunnel_ip)));
        choose(key(&id), members).context("there are no gateways")
    }

    /// Round trips while neither host can ask, so that every packet goes by a gateway; then directly.
    fn hop(&mut self, count: &str, figures: &mut Figures) -> anyhow::Result<()> {
        let to = ip_of(&self.vms[1])?;
        self.cloud.kill_controller();
        let by_gateway = round_trips(&self.vms[0], &to, count)?;
        self.cloud.restart_controller()?;
        eventually("the direct paths", READY, || {
            // A packet each way makes both hosts ask.
            let _ = self.vms[0].namespace.run(&["ping", "-n", "-c1", "-W1", &to]);
            for host in &self.hosts {
                let state = self
                    .cloud
                    .agent_state(&host.name)
                    .map_err(|error| format!("{error:#}"))?;
                if state["learning"]["learned"] != 1 {
                    return Err(state["learning"].to_string());
                }
            }
            Ok(())
        })?;
        let direct = round_trips(&self.vms[0], &to, count)?;
        for (name, share) in [("p50", 0.5), ("p99", 0.99)] {
            let [slow, fast] = [&by_gateway, &direct].map(|times| percentile(times, share));
            // A round trip meets two gateways.
            figures.insert(format!("gateway_hop_{name}_us"), rounded((slow - fast) / 2.0));
            figures.insert(format!("rtt_by_gateway_{name}_us"), rounded(slow));
            figures.insert(format!("rtt_direct_{name}_us"), rounded(fast));
        }
        self.in_force(2)
    }

    fn ping_outside(&self, label: &str) -> anyhow::Result<Process> {
        let namespace = &self.vms[0].namespace;
        eventually("an answer from outside", READY, || {
            namespace
                .run(&["ping", "-n", "-c1", "-W1", FAR_HOST])
                .map_err(|error| error.to_string())
        })?;
        let arguments = ["-n", "-D", "-i", INTERVAL, FAR_HOST];
        let program = std::path::Path::new("ping");
        Ok(self
            .cloud
            .lab
            .spawn(Some(namespace), label, program, &arguments)?)
    }

    /// Answers that are missing when the process of the gateway that everything goes by is killed and started again.
    fn restart(&mut self, figures: &mut Figures) -> anyhow::Result<()> {
        let owner = self.owner()?;
        let mut ping = self.ping_outside("ping")?;
        answers(&ping, 50)?;
        self.cloud.restart_gateway(&mut self.gateways[owner])?;
        answers(&ping, numbers(&ping).len() + 100)?;
        ping.stop();
        let numbers = numbers(&ping);
        let sent = numbers.iter().copied().max().unwrap_or_default();
        figures.insert(
            "restart_lost".into(),
            json!(sent.saturating_sub(numbers.len() as u64)),
        );
        self.in_force(2)
    }

    fn snat(&self, quick: bool, figures: &mut Figures) -> anyhow::Result<()> {
        let time = Duration::from_secs(if quick { 1 } else { 3 });
        let clients = [&self.vms[0].namespace, &self.vms[1].namespace];
        let far = SocketAddr::new(FAR_HOST.parse()?, PORT);
        let rate = connections::per_second(&clients, &self.outside.router, far, time)?;
        figures.insert("snat_per_s".into(), rounded(rate));
        Ok(())
    }

    /// From the loss of a gateway's power until no host has it in its rows any more; and for how long pings to the outside, which
    /// it translated, get no answer.
    fn failover(&mut self, figures: &mut Figures) -> anyhow::Result<()> {
        let mut ping = self.ping_outside("outage")?;
        answers(&ping, 50)?;
        figures.insert("failover_ms".into(), rounded(self.is_left()?));
        answers(&ping, numbers(&ping).len() + 50)?;
        ping.stop();
        figures.insert("outage_ms".into(), rounded(longest_gap_ms(&ping)));
        Ok(())
    }

    /// Milliseconds.
    fn is_left(&mut self) -> anyhow::Result<f64> {
        let owner = self.owner()?;
        let gateway = &mut self.gateways[owner];
        let began = Instant::now();
        gateway.power_off()?;
        while began.elapsed() < READY {
            let mut left = false;
            for host in &self.hosts {
                let gateways = self.cloud.gateways_in_force(&host.name, &self.network)?;
                left |= gateways.contains(&gateway.tunnel_ip);
            }
            if !left {
                return Ok(began.elapsed().as_secs_f64() * 1e3);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        anyhow::bail!("a dead gateway is still used after {} s", READY.as_secs())
    }
}

/// A network and a router that leads out of it.
fn way_out(cloud: &Cloud) -> anyhow::Result<(String, Value)> {
    let make = |path: &str, kind: &str, body: Value| -> anyhow::Result<Value> {
        Ok(cloud.api.post(&format!("/v2.0/{path}"), &json!({ kind: body }))?[kind].take())
    };
    let external = make(
        "networks",
        "network",
        json!({"name": "outside", "router:external": true}),
    )?;
    let pools = json!([{"start": "203.0.113.100", "end": "203.0.113.199"}]);
    let subnet = json!({"network_id": external["id"], "ip_version": 4, "cidr": "203.0.113.0/24",
        "gateway_ip": crate::cloud::OUTSIDE_ROUTER, "allocation_pools": pools, "enable_dhcp": false});
    make("subnets", "subnet", subnet)?;
    let network = make("networks", "network", json!({"name": "bench"}))?;
    let subnet = json!({"network_id": network["id"], "ip_version": 4, "cidr": "10.0.0.0/24"});
    let subnet = make("subnets", "subnet", subnet)?;
    let info = json!({"external_gateway_info": {"network_id": external["id"]}});
    let router = make("routers", "router", info)?;
    let path = format!("/v2.0/routers/{}/add_router_interface", text(&router["id"])?);
    cloud.api.put(&path, &json!({"subnet_id": subnet["id"]}))?;
    Ok((text(&network["id"])?.to_owned(), router))
}

fn ip_of(vm: &Vm) -> anyhow::Result<String> {
    Ok(text(&vm.port["fixed_ips"][0]["ip_address"])?.to_owned())
}

/// Sorted, in microseconds.
fn round_trips(from: &Vm, to: &str, count: &str) -> anyhow::Result<Vec<f64>> {
    let printed = from
        .namespace
        .run(&["ping", "-n", "-c", count, "-i", "0.002", "-W", "2", to])?;
    let mut times: Vec<f64> = printed
        .lines()
        .filter_map(|line| {
            line.split_once(" time=")?
                .1
                .split(' ')
                .next()?
                .parse::<f64>()
                .ok()
        })
        .map(|ms| ms * 1e3)
        .collect();
    anyhow::ensure!(!times.is_empty(), "nobody answered: {printed}");
    times.sort_by(f64::total_cmp);
    Ok(times)
}

/// The numbers of the answers that a ping has printed.
fn numbers(ping: &Process) -> Vec<u64> {
    let printed = ping.output();
    let lines = printed.lines().filter(|line| line.contains(" time="));
    lines
        .filter_map(|line| line.split_once("icmp_seq=")?.1.split(' ').next()?.parse().ok())
        .collect()
}

/// The longest time between two answers, in milliseconds: lines begin with `[seconds.microseconds]`.
fn longest_gap_ms(ping: &Process) -> f64 {
    let printed = ping.output();
    let times = printed.lines().filter(|line| line.contains(" time="));
    let times = times.filter_map(|line| line.strip_prefix('[')?.split(']').next()?.parse::<f64>().ok());
    let times: Vec<f64> = times.collect();
    let gaps = times.windows(2).map(|pair| (pair[1] - pair[0]) * 1e3);
    gaps.fold(0.0, f64::max)
}

/// Waits until a ping has so many answers.
fn answers(ping: &Process, count: usize) -> anyhow::Result<()> {
    eventually("more answers", READY, || match numbers(ping).len() {
        now if now >= count => Ok(()),
        now => Err(format!("{now} answers")),
    })?;
    Ok(())
}
