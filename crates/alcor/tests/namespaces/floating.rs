//! Floating IPs that the hosts of their ports answer for, and that change hands when the ports move.

use std::path::Path;

use alcor_lab::{Namespace, eventually};
use serde_json::{Value, json};

use crate::{
    gateways::{
        Cloud, FAR, OUTSIDE, assert_none_missing,
        north::{North, reached},
    },
    region::{PATIENCE, Vm, interrupt, more_answers},
};

/// A cloud whose first host has the external network; and the MAC of its device there.
fn start(cloud: Cloud) -> (North, String) {
    let mut north = North::start(cloud);
    let beyond = north.cloud.beyond.clone();
    let mac = north
        .cloud
        .region
        .outfit(0, &north.external, &beyond, "203.0.113.220");
    (north, mac)
}

/// Lets a VM be pinged.
fn may_be_pinged(north: &North, vm: &Vm) -> Value {
    let group = vm.port["security_groups"][0].clone();
    let rule =
        json!({"security_group_id": group, "direction": "ingress", "ethertype": "IPv4", "protocol": "icmp"});
    north.cloud.region.post("security_group_rule", rule)
}

/// Whose MAC the outside has for an address.
fn mac_outside(north: &North, ip: &str) -> String {
    let line = north.cloud.outside.ip(&["neigh", "show", ip]).unwrap();
    let mac = line.split_once("lladdr ").map_or("", |(_, rest)| rest);
    mac.split(' ').next().unwrap_or_default().to_owned()
}

fn is_refused(north: &North, to: &str) -> bool {
    north
        .cloud
        .outside
        .run(&["ping", "-n", "-c2", "-i0.2", "-W1", to])
        .is_err()
}

/// Bytes over TCP to a server in the outside, which sees the floating IP.
fn bytes_out(north: &North, from: &Vm, floating: &str) {
    let arguments = ["-s", "-1", "-B", FAR, "--forceflush"];
    let lab = &north.cloud.region.lab;
    let mut server = lab
        .spawn(
            Some(&north.cloud.outside),
            "server",
            Path::new("iperf3"),
            &arguments,
        )
        .unwrap();
    eventually("iperf3 to listen", PATIENCE, || {
        match server.output().contains("listening") {
            true => Ok(()),
            false => Err(server.output()),
        }
    })
    .unwrap();
    let printed = from.namespace.run(&["iperf3", "-c", FAR, "-n", "20M"]).unwrap();
    assert!(printed.contains("iperf Done"), "{printed}");
    server.wait(PATIENCE).unwrap();
    let peer = format!("Accepted connection from {floating}");
    assert!(
        server.output().contains(&peer),
        "not '{peer}': {}",
        server.output()
    );
}

#[test]
fn the_host_of_the_port_answers_without_any_gateway() {
    let (mut north, mac) = start(Cloud::bare("tfloat", None));
    let [one, two] = ["one", "two"].map(|name| north.cloud.region.vm(name, 0, &[&north.subnet]));
    let [first, second] = [&one, &two].map(|vm| north.floating_ip(vm));
    // Outwards, from the floating IP; nobody outside may begin.
    one.reaches(OUTSIDE);
    one.reaches(FAR);
    bytes_out(&north, &one, &first);
    assert!(is_refused(&north, &first));
    let rule = may_be_pinged(&north, &one);
    for to in [&first, &second] {
        reached(&north.cloud.outside, to);
        let five = ["ping", "-n", "-c5", "-i0.05", "-W2", to];
        let printed = north.cloud.outside.run(&five).unwrap();
        assert!(printed.contains(" 0% packet loss"), "{printed}");
        assert_eq!(mac_outside(&north, to), mac, "the host answers");
    }
    // From one floating IP to another of the host, and to its own.
    one.reaches(&second);
    one.reaches(&first);
    // What is the node's own passes, and nobody answers for an address that is nobody's.
    let node = ["ping", "-n", "-c1", "-W2", "203.0.113.220"];
    north.cloud.outside.run(&node).unwrap();
    assert!(is_refused(&north, "203.0.113.199"));

    // The agent's start again is not noticed.
    let ping = ["-n", "-i", "0.01", &first];
    let lab = &north.cloud.region.lab;
    let outside = Some(&north.cloud.outside);
    let mut ping = lab.spawn(outside, "again", Path::new("ping"), &ping).unwrap();
    more_answers(&mut ping, 20);
    let before = north.cloud.region.host_in_step(0, 0);
    north.cloud.region.crash_agent(0);
    north.cloud.region.host_in_step(0, before);
    more_answers(&mut ping, 50);
    interrupt(&mut ping);
    assert_none_missing(&ping);

    // A rule that goes, goes for the outside too.
    north.cloud.region.delete("security_group_rule", &rule["id"]);
    eventually("the outside to be refused", PATIENCE, || {
        match is_refused(&north, &second) {
            true => Ok(()),
            false => Err("answered".to_owned()),
        }
    })
    .unwrap();
}

/// What is longer than the tenant's network takes, or the device to the outside, is told so; the time that packets live shows the host.
#[test]
fn long_packets_and_short_lives_are_told_both_ways() {
    let (north, _) = start(Cloud::bare("tflong", None));
    let vm = north.cloud.region.vm("vm", 0, &[&north.subnet]);
    let floating = north.floating_ip(&vm);
    vm.reaches(FAR);
    may_be_pinged(&north, &vm);
    reached(&north.cloud.outside, &floating);
    let ping = |from: &Namespace, arguments: &[&str], to: &str| {
        let command = [&["ping", "-n", "-c1", "-W2"][..], arguments, &[to]].concat();
        from.run(&command).map_err(|error| error.to_string())
    };
    let (outside, inside) = (&north.cloud.outside, &vm.namespace);
    let told = ping(outside, &["-M", "do", "-s", "1472"], &floating).unwrap_err();
    let frag_needed =
        |from: &str, mtu: u16| format!("From {from} icmp_seq=1 Frag needed and DF set (mtu = {mtu})");
    assert!(told.contains(&frag_needed(&floating, 1450)), "{told}");
    ping(outside, &["-M", "do", "-s", "1422"], &floating).unwrap();
    let expired = ping(outside, &["-t", "1"], &floating).unwrap_err();
    let exceeded = format!("From {floating} icmp_seq=1 Time to live exceeded");
    assert!(expired.contains(&exceeded), "{expired}");

    let host = &north.cloud.region.hosts[0].namespace;
    host.ip(&["link", "set", "eth1", "mtu", "1300"]).unwrap();
    let told = ping(inside, &["-M", "do", "-s", "1372"], FAR).unwrap_err();
    assert!(told.contains(&frag_needed("10.0.0.1", 1300)), "{told}");
    ping(inside, &["-M", "do", "-s", "1200"], FAR).unwrap();
    let way = inside.ip(&["route", "get", FAR]).unwrap();
    assert!(way.contains("mtu 1300"), "{way}");
}

#[test]
fn a_floating_ip_goes_with_its_port_from_a_host_to_gateways_and_back() {
    let mut cloud = Cloud::bare("tfmove", None);
    cloud.add_gateways("tfmove");
    let (north, mac) = start(cloud);
    let region = &north.cloud.region;
    let mut vm = region.vm("vm", 0, &[&north.subnet]);
    may_be_pinged(&north, &vm);
    let floating = north.floating_ip(&vm);
    reached(&north.cloud.outside, &floating);
    assert_eq!(mac_outside(&north, &floating), mac, "the host answers");
    let arguments = ["-n", "-i", "0.05", &floating];
    let outside = Some(&north.cloud.outside);
    let mut ping = region
        .lab
        .spawn(outside, "ping", Path::new("ping"), &arguments)
        .unwrap();
    more_answers(&mut ping, 20);
    for (host, answers_itself) in [(1, false), (0, true)] {
        vm.unplug();
        let binding = json!({"binding:host_id": region.hosts[host].name});
        region.put("port", &vm.port["id"], binding);
        region.moved(&mut vm, host);
        vm.plug();
        vm.configure(&north.subnet);
        region.status_becomes(&vm, "ACTIVE");
        more_answers(&mut ping, 20);
        eventually("who answers", PATIENCE, || match mac_outside(&north, &floating) {
            known if (known == mac) == answers_itself => Ok(()),
            known => Err(known),
        })
        .unwrap_or_else(|error| panic!("{error}\n{}", north.cloud.logs()));
        vm.reaches(FAR);
        more_answers(&mut ping, 20);
    }
    interrupt(&mut ping);
}
