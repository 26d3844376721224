//! `cargo xtask demo`: a person watches Alcor create a network, program two hosts and a gateway, and carry real packets.

mod gateway;

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use alcor_lab::{Process, eventually};
use anyhow::Context as _;
use clap::Args;
use serde_json::json;
use tabled::{builder::Builder, settings::Style};

use crate::{
    cloud::{Build, Cloud, Host, Vm, clean, iperf, text},
    setup::{For, setup},
    shell::root,
};

/// Name of the demo's lab.
const LAB: &str = "demo";
/// Bytes that each TCP test carries.
const TCP_BYTES: &str = "20M";
/// The DNS server that the VMs are told of.
const DNS: &str = "10.0.0.53";
/// How long an address may take to be there: duplicate address detection alone is a second.
const ADDRESS: Duration = Duration::from_secs(15);

/// How long nothing may arrive to be called silence: ten pings.
const SILENCE: Duration = Duration::from_millis(500);

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Flags of the demo.
#[derive(Debug, Args)]
pub struct Flags {
    /// Leave it running, and print how to look around.
    #[arg(long)]
    keep: bool,
    /// Remove what a demo with --keep, or a crashed one, left; and stop.
    #[arg(long)]
    clean: bool,
}

/// Runs the demo. Ok only when every packet arrived.
///
/// # Errors
/// What did not work, after everything is cleaned up.
pub fn demo(flags: &Flags) -> anyhow::Result<()> {
    if flags.clean {
        return clean(LAB);
    }
    setup(For::Demo)?;
    step("building alcor");
    Build::Debug.packages(&["alcor"])?;
    clean(LAB)?;
    ctrlc::set_handler(|| INTERRUPTED.store(true, Ordering::SeqCst)).context("watching for Ctrl-C")?;
    let outcome = show(flags.keep);
    if flags.keep && outcome.is_ok() {
        return Ok(());
    }
    if INTERRUPTED.load(Ordering::SeqCst) {
        step("interrupted");
    } else if outcome.is_err() {
        print_logs();
    }
    step("cleaning up");
    clean(LAB)?;
    outcome.map(drop)
}

/// Builds and runs the demo, has `look` look at it while it is kept, and cleans up.
///
/// # Errors
/// What did not work, in the demo or in `look`, which is given the API's endpoint.
pub fn look_at_kept(look: impl FnOnce(&str) -> anyhow::Result<()>) -> anyhow::Result<()> {
    Build::Debug.packages(&["alcor"])?;
    clean(LAB)?;
    let outcome = show(true).and_then(|endpoint| look(&endpoint));
    if outcome.is_err() {
        print_logs();
    }
    clean(LAB)?;
    outcome
}

/// Says what happens next; a demo that was interrupted goes no further.
fn step(text: &str) {
    println!("\n==> {text}");
}

fn go_on() -> anyhow::Result<()> {
    anyhow::ensure!(!INTERRUPTED.load(Ordering::SeqCst), "interrupted");
    Ok(())
}

/// Shows everything and gives the API's endpoint; what it started runs on.
fn show(keep: bool) -> anyhow::Result<String> {
    step("starting the controller (API on loopback, SQLite), two hosts with an agent each, a gateway");
    let mut cloud = Cloud::start_with(LAB, Build::Debug, gateway::CONFIGURATION)?;
    // Whatever happens below, `demo` cleans up after it has looked at the logs.
    cloud.lab.keep();
    go_on()?;
    let hosts = [cloud.host(1)?, cloud.host(2)?];
    go_on()?;
    let edge = gateway::start(&cloud)?;
    go_on()?;
    let network = create_network(&cloud)?;
    go_on()?;
    let vms = create_vms(&cloud, &hosts, &network)?;
    go_on()?;
    picture(&cloud, &hosts, &vms)?;
    step("addresses: DHCP (IPv4) and router advertisements (IPv6), both from Alcor");
    for vm in &vms {
        configure(vm)?;
        go_on()?;
    }
    edge.is_in_force(&cloud, &hosts, &network)?;
    step("packets");
    let mut first_pings = Vec::new();
    for (from, to, place) in [(0, 1, "same host"), (0, 2, "other host")] {
        for version in [4, 6] {
            go_on()?;
            first_pings.push(packets(&vms[from], &vms[to], version, place)?);
        }
    }
    latencies(&vms, &first_pings);
    go_on()?;
    step("a security group is tightened while a connection is open");
    tighten(&cloud, &vms)?;
    go_on()?;
    edge.show(&cloud, &hosts, &vms, &network)?;
    if keep {
        print_looking_around(&cloud);
    } else {
        println!("\nAll packets arrived.");
    }
    Ok(cloud.api.endpoint.clone())
}

fn create_network(cloud: &Cloud) -> anyhow::Result<String> {
    step("through the Neutron API: a network, an IPv4 and an IPv6 subnet");
    let network = cloud
        .api
        .post("/v2.0/networks", &json!({"network": {"name": "demo"}}))?["network"]
        .take();
    let id = text(&network["id"])?.to_owned();
    println!(
        "network {id}: VXLAN {}, MTU {}",
        network["provider:segmentation_id"], network["mtu"]
    );
    for subnet in [
        json!({"name": "v4", "ip_version": 4, "cidr": "10.0.0.0/24", "dns_nameservers": [DNS]}),
        json!({"name": "v6", "ip_version": 6, "cidr": "fd00:a1c0::/64", "ipv6_ra_mode": "slaac", "ipv6_address_mode": "slaac"}),
    ] {
        let mut subnet = subnet;
        subnet["network_id"] = json!(id);
        let subnet = cloud.api.post("/v2.0/subnets", &json!({ "subnet": subnet }))?["subnet"].take();
        println!(
            "subnet {} {}, gateway {}",
            subnet["id"], subnet["cidr"], subnet["gateway_ip"]
        );
    }
    Ok(id)
}

fn create_vms(cloud: &Cloud, hosts: &[Host; 2], network: &str) -> anyhow::Result<Vec<Vm>> {
    step("three ports, two on h1 and one on h2, each with a device that plays a VM");
    let mut vms = Vec::new();
    for (name, host) in [("vm1", &hosts[0]), ("vm2", &hosts[0]), ("vm3", &hosts[1])] {
        go_on()?;
        let vm = cloud.vm(host, name, network)?;
        println!(
            "{name} on {}: port {} is ACTIVE (the host said so)",
            host.name, vm.port["id"]
        );
        vms.push(vm);
    }
    Ok(vms)
}

fn ip_of(vm: &Vm, version: u8) -> anyhow::Result<String> {
    let fixed = vm.port["fixed_ips"].as_array().into_iter().flatten();
    let addresses = fixed.filter_map(|fixed| fixed["ip_address"].as_str());
    let wanted = |address: &&str| address.contains(':') == (version == 6);
    addresses
        .into_iter()
        .find(wanted)
        .map(str::to_owned)
        .with_context(|| {
            format!(
                "{} has no IPv{version} address: {}",
                vm.name, vm.port["fixed_ips"]
            )
        })
}

fn picture(cloud: &Cloud, hosts: &[Host; 2], vms: &[Vm]) -> anyhow::Result<()> {
    let ip = |vm: usize| ip_of(&vms[vm], 4);
    println!(
        "\n        controller {}\n             |              |          gRPC\n   +---------+--------+   +-+----------------+   +------------------+\n   | {} 198.18.0.11   |   | {} 198.18.0.12   |   | g1 198.18.0.21   |\n   |  tap      tap    |   |  tap             |   | gateway      eth1|--- outside\n   +---|--------|-----+   +---|--------------+   +------------------+\n      vm1      vm2           vm3              <-- VXLAN between them\n   {:<10}{:<10}   {}\n",
        cloud.api.endpoint,
        hosts[0].name,
        hosts[1].name,
        ip(0)?,
        ip(1)?,
        ip(2)?
    );
    Ok(())
}

/// Gets a VM its addresses as any VM does: a DHCP client, and the kernel's own SLAAC.
fn configure(vm: &Vm) -> anyhow::Result<()> {
    let script = root().join("xtask/src/dhcp.sh").display().to_string();
    let said = vm.namespace.run(&[
        "udhcpc",
        "-i",
        "eth0",
        "-f",
        "-n",
        "-q",
        "-t",
        "8",
        "-T",
        "1",
        "-O",
        "mtu",
        "-O",
        "staticroutes",
        "-s",
        &script,
    ])?;
    println!("{}: DHCP {}", vm.name, said.trim());
    anyhow::ensure!(
        said.contains(&format!(" dns={DNS} ")),
        "{} should have been told of the DNS server {DNS}: {said}",
        vm.name
    );
    let want = ip_of(vm, 4)?;
    let have = vm.namespace.ip(&["-4", "-o", "address", "show", "dev", "eth0"])?;
    anyhow::ensure!(
        have.contains(&format!(" {want}/")),
        "{} should have {want} and has: {have}",
        vm.name
    );
    let want = ip_of(vm, 6)?;
    eventually(&format!("{} to have {want}", vm.name), ADDRESS, || {
        let have = vm
            .namespace
            .ip(&["-6", "-o", "address", "show", "dev", "eth0"])
            .map_err(|e| e.to_string())?;
        let there = have
            .lines()
            .any(|line| line.contains(&format!(" {want}/")) && !line.contains("tentative"));
        if there { Ok(()) } else { Err(have) }
    })?;
    println!("{}: SLAAC {want}", vm.name);
    let link = vm.namespace.ip(&["link", "show", "dev", "eth0"])?;
    anyhow::ensure!(
        link.contains("mtu 1450"),
        "{} should have an MTU of 1450: {link}",
        vm.name
    );
    Ok(())
}

/// One line of the latency table.
struct FirstPing {
    way: String,
    first_ms: f64,
    gbit_per_s: f64,
}

fn packets(from: &Vm, to: &Vm, version: u8, place: &str) -> anyhow::Result<FirstPing> {
    let ip = ip_of(to, version)?;
    let printed = from
        .namespace
        .run(&["ping", "-n", "-c", "5", "-i", "0.1", "-W", "2", &ip])
        .with_context(|| format!("{} cannot ping {} ({ip})", from.name, to.name))?;
    anyhow::ensure!(
        printed.contains(" 0% packet loss"),
        "pings from {} to {ip} were lost: {printed}",
        from.name
    );
    let first = printed
        .split("time=")
        .nth(1)
        .and_then(|rest| rest.split_whitespace().next());
    let first_ms: f64 = first.context("ping printed no time")?.parse()?;
    let gbit_per_s = tcp(from, to, &ip)?;
    let way = format!("{} -> {} IPv{version}, {place}", from.name, to.name);
    println!("{way}: 5 of 5 pings, first {first_ms} ms; TCP {TCP_BYTES}B at {gbit_per_s:.1} Gbit/s");
    Ok(FirstPing {
        way,
        first_ms,
        gbit_per_s,
    })
}

fn tcp(from: &Vm, to: &Vm, ip: &str) -> anyhow::Result<f64> {
    let report = iperf(&from.namespace, &to.namespace, ip, &["-n", TCP_BYTES])?;
    let bits = report["end"]["sum_received"]["bits_per_second"].as_f64();
    Ok(bits.context("iperf3 reported no received bits")? / 1e9)
}

/// A ping that goes on, to a VM on another host: once its rule is gone no answer comes, and when it is back they do.
fn tighten(cloud: &Cloud, vms: &[Vm]) -> anyhow::Result<()> {
    let (client, server) = (&vms[0], &vms[2]);
    let body = json!({"security_group": {"name": "servers"}});
    let group = cloud.api.post("/v2.0/security-groups", &body)?["security_group"]["id"].take();
    let rule = json!({"security_group_rule": {"security_group_id": group, "direction": "ingress", "protocol": "icmp"}});
    let allow = || -> anyhow::Result<String> {
        let rule = cloud.api.post("/v2.0/security-group-rules", &rule)?;
        Ok(text(&rule["security_group_rule"]["id"])?.to_owned())
    };
    let allowed = allow()?;
    let port = format!("/v2.0/ports/{}", text(&server.port["id"])?);
    let groups = server.port["security_groups"].clone();
    cloud
        .api
        .put(&port, &json!({"port": {"security_groups": [group]}}))?;
    println!(
        "{} is under a group whose only rule for what comes in is ICMP",
        server.name
    );
    let ip = ip_of(server, 4)?;
    // One ping with one identifier is one connection.
    let mut ping = cloud.lab.spawn(
        Some(&client.namespace),
        "ping",
        std::path::Path::new("ping"),
        &["-n", "-i", "0.05", "-W", "1", &ip],
    )?;
    let answers = |ping: &Process| ping.output().matches(" time=").count();
    let more = |ping: &Process| {
        let before = answers(ping);
        eventually("answers to a ping", ADDRESS, || match answers(ping) {
            now if now >= before + 5 => Ok(()),
            now => Err(format!("{} since", now - before)),
        })
    };
    let silent = |ping: &Process| {
        eventually("silence", ADDRESS, || {
            let before = answers(ping);
            std::thread::sleep(SILENCE);
            match answers(ping) {
                now if now == before => Ok(()),
                now => Err(format!("{} more answers", now - before)),
            }
        })
    };
    more(&ping)?;
    println!("{} pings {ip}: answers come", client.name);
    cloud
        .api
        .delete(&format!("/v2.0/security-group-rules/{allowed}"))?;
    silent(&ping)?;
    println!("the rule is deleted: the same ping gets no answer any more");
    allow()?;
    more(&ping)?;
    println!("the rule is back: answers come again, {} in all", answers(&ping));
    ping.stop();
    cloud
        .api
        .put(&port, &json!({"port": {"security_groups": groups}}))?;
    Ok(())
}

fn latencies(vms: &[Vm], pings: &[FirstPing]) {
    let ms = |duration: Duration| format!("{:.1} ms", duration.as_secs_f64() * 1e3);
    let mut table = Builder::default();
    table.push_record(["port", "API answered", "host programmed"]);
    for vm in vms {
        let programmed = vm.programmed.map_or_else(|| "unknown".to_owned(), ms);
        table.push_record([vm.name.clone(), ms(vm.answered), programmed]);
    }
    println!("\n{}", table.build().with(Style::sharp()));
    println!("(programmed: from the API call until packets see it, with the VM's device plugged in between)");
    let mut table = Builder::default();
    table.push_record(["way", "first ping", "TCP"]);
    for ping in pings {
        table.push_record([
            ping.way.clone(),
            format!("{:.2} ms", ping.first_ms),
            format!("{:.1} Gbit/s", ping.gbit_per_s),
        ]);
    }
    println!("{}", table.build().with(Style::sharp()));
}

fn print_looking_around(cloud: &Cloud) {
    let alcor = Build::Debug.program("alcor");
    let (alcor, api) = (alcor.display(), &cloud.api.endpoint);
    println!(
        "\nIt keeps running. Look around:\n  openstack --os-auth-type none --os-endpoint {api} port list\n  {alcor} show ports --api {api}\n  {alcor} show hosts --api {api}\n  {alcor} host state h1 --api {api}\n  {alcor} gateway list --api {api}\n  ip netns exec alc-{LAB}-vm1 ping 10.0.0.1\n  tail -f {}/*.log\nRemove it:\n  cargo xtask demo --clean",
        cloud.lab.dir().display()
    );
}

fn print_logs() {
    for name in ["controller", "h1", "h2", "g1"] {
        let path = format!("/run/alcor-lab/{LAB}/{name}.log");
        if let Ok(log) = std::fs::read_to_string(&path) {
            let lines: Vec<_> = log.lines().collect();
            eprintln!("--- the end of {path}");
            for line in lines.iter().skip(lines.len().saturating_sub(15)) {
                eprintln!("{line}");
            }
        }
    }
}
