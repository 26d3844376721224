//! Which packets arrive, and which do not.

use std::path::Path;

use alcor_lab::eventually;
use serde_json::json;

use crate::region::{PATIENCE, Region, Vm};

/// Carries bytes over TCP; more than the segments of one offloaded packet.
fn tcp(region: &Region, from: &Vm, to: &Vm, ip: &str, label: &str) {
    let mut server = region.spawn(
        to,
        &format!("server-{label}"),
        "iperf3",
        &["-s", "-1", "--forceflush"],
    );
    eventually("iperf3 to listen", PATIENCE, || {
        match server.output().contains("listening") {
            true => Ok(()),
            false => Err(server.output()),
        }
    })
    .unwrap();
    let printed = from.namespace.run(&["iperf3", "-c", ip, "-n", "20M"]).unwrap();
    assert!(printed.contains("iperf Done"), "{printed}");
    assert!(server.wait(PATIENCE).unwrap().success());
}

#[test]
fn vms_reach_each_other_on_a_host_across_hosts_and_across_subnets() {
    let region = Region::start("tpacket");
    let network = region.network();
    let [a4, a6] = ["10.0.0.0/24", "fd00:a::/64"].map(|cidr| region.subnet(&network, cidr));
    let [b4, b6] = ["10.0.1.0/24", "fd00:b::/64"].map(|cidr| region.subnet(&network, cidr));
    let vm1 = region.vm("vm1", 0, &[&a4, &a6]);
    let vm2 = region.vm("vm2", 0, &[&a4, &a6]);
    let vm3 = region.vm("vm3", 1, &[&a4, &a6]);
    let vm4 = region.vm("vm4", 1, &[&b4, &b6]);
    let vm5 = region.vm("vm5", 0, &[&b4, &b6]);

    for (to, v4, v6) in [
        (&vm2, &a4, &a6),
        (&vm3, &a4, &a6),
        (&vm4, &b4, &b6),
        (&vm5, &b4, &b6),
    ] {
        for (version, subnet) in [(4, v4), (6, v6)] {
            let ip = to.ip(subnet);
            vm1.reaches(&ip);
            tcp(
                &region,
                &vm1,
                to,
                &ip,
                &format!("{}-{version}", to.namespace.name()),
            );
        }
    }
    for subnet in [&a4, &a6] {
        vm1.reaches(subnet["gateway_ip"].as_str().unwrap());
    }
    // A routed packet has one hop less to live, and its sender learns when there is none left.
    let routed = vm1
        .namespace
        .run(&["ping", "-n", "-c1", "-W2", &vm4.ip(&b4)])
        .unwrap();
    assert!(routed.contains("ttl=63"), "{routed}");
    let switched = vm1
        .namespace
        .run(&["ping", "-n", "-c1", "-W2", &vm3.ip(&a4)])
        .unwrap();
    assert!(switched.contains("ttl=64"), "{switched}");
    for (to, says) in [(vm4.ip(&b4), "Time to live exceeded"), (vm4.ip(&b6), "Hop limit")] {
        let expired = vm1
            .namespace
            .run(&["ping", "-n", "-c1", "-W2", "-t1", &to])
            .unwrap_err();
        assert!(expired.to_string().contains(says), "{expired}");
    }
    // The largest packet of the network passes whole, a larger one does not.
    let (fits, to) = (format!("{}", 1450 - 28), vm3.ip(&a4));
    vm1.namespace
        .run(&["ping", "-n", "-c1", "-W2", "-Mdo", "-s", &fits, &to])
        .unwrap();
    vm1.namespace.ip(&["link", "set", "eth0", "mtu", "1500"]).unwrap();
    let larger = format!("{}", 1451 - 28);
    vm1.namespace
        .run(&["ping", "-n", "-c1", "-W1", "-Mdo", "-s", &larger, &to])
        .unwrap_err();
    assert!(region.drops(0, &vm1, "oversize") >= 1);
}

#[test]
fn networks_with_the_same_addresses_are_apart() {
    let region = Region::start("ttenant");
    let vms: Vec<[Vm; 2]> = (0..2)
        .map(|tenant| {
            let network = region.network();
            let subnet = region.subnet(&network, "10.0.0.0/24");
            [("10.0.0.11", 0), ("10.0.0.12", 1)].map(|(address, host)| {
                let fixed_ips = json!([{"subnet_id": subnet["id"], "ip_address": address}]);
                let port = region.port(host, &network, fixed_ips);
                let vm = region.vm_of(&format!("t{tenant}h{host}"), host, port);
                vm.configure(&subnet);
                vm
            })
        })
        .collect();
    for [one, other] in &vms {
        one.reaches("10.0.0.12");
        let neighbour = one.namespace.ip(&["neigh", "show", "10.0.0.12"]).unwrap();
        let mac = other.port["mac_address"].as_str().unwrap();
        assert!(neighbour.contains(mac), "{neighbour} should have {mac}");
    }
    // With its own peer gone, the other tenant's VM of the same address does not answer in its place.
    vms[1][1].unplug();
    region.status_becomes(&vms[1][1], "DOWN");
    assert!(!vms[1][0].pings("10.0.0.12"));
    vms[0][0].reaches("10.0.0.12");
}

#[test]
fn spoofed_packets_are_dropped_and_counted() {
    let region = Region::start("tspoof");
    let network = region.network();
    let subnet = region.subnet(&network, "10.0.0.0/24");
    let [liar, victim] = [("liar", 0), ("victim", 1)].map(|(name, host)| region.vm(name, host, &[&subnet]));
    let to = victim.ip(&subnet);
    liar.reaches(&to);
    let ip = |arguments: &str| {
        liar.namespace
            .ip(&arguments.split(' ').collect::<Vec<_>>())
            .unwrap();
    };
    // An address of somebody else, while the peer's MAC is known: the packet itself is a lie.
    ip("address add 10.0.0.99/24 dev eth0");
    let forged = ["ping", "-n", "-c3", "-i0.1", "-W1", "-I", "10.0.0.99", &to];
    liar.namespace.run(&forged).unwrap_err();
    assert!(region.drops(0, &liar, "spoofed_ip") >= 3);
    // Without the MAC, the question for it is a lie.
    ip("neigh flush dev eth0");
    liar.namespace.run(&forged).unwrap_err();
    assert!(region.drops(0, &liar, "spoofed_arp") >= 1);
    ip("address del 10.0.0.99/24 dev eth0");
    ip("link set eth0 address 02:00:00:00:00:01");
    assert!(!liar.pings(&to));
    assert!(region.drops(0, &liar, "spoofed_mac") >= 1);
    let mac = liar.port["mac_address"].as_str().unwrap();
    ip(&format!("link set eth0 address {mac}"));
    liar.configure(&subnet);
    liar.reaches(&to);
}

#[test]
fn a_vm_gets_its_addresses_by_dhcp_and_router_advertisement() {
    let region = Region::start("tdhcp");
    let network = region.network();
    let attributes = json!({"network_id": network, "ip_version": 4, "cidr": "10.0.0.0/24", "dns_nameservers": ["9.9.9.9"]});
    let v4 = region.post("subnet", attributes);
    let attributes = json!({"network_id": network, "ip_version": 6, "cidr": "fd00:a::/64", "ipv6_ra_mode": "slaac", "ipv6_address_mode": "slaac"});
    let v6 = region.post("subnet", attributes);
    let port = region.post(
        "port",
        json!({"network_id": network, "binding:host_id": region.hosts[0].name}),
    );
    let vm = region.vm_of("vm1", 0, port);
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../xtask/src/dhcp.sh");
    assert!(Path::new(script).is_file());
    let client = [
        "udhcpc", "-i", "eth0", "-f", "-n", "-q", "-t", "10", "-T", "1", "-O", "mtu", "-O", "121", "-s",
    ];
    let said = vm.namespace.run(&[&client[..], &[script]].concat()).unwrap();
    assert!(said.contains("dns=9.9.9.9"), "{said}");
    let have = |arguments: &[&str]| vm.namespace.ip(arguments).unwrap();
    assert!(have(&["-4", "address", "show", "eth0"]).contains(&format!(" {}/24 ", vm.ip(&v4))));
    assert!(have(&["link", "show", "eth0"]).contains(" mtu 1450 "));
    assert!(have(&["route"]).contains("default via 10.0.0.1 "));
    let ip = vm.ip(&v6);
    eventually("the address of the advertised prefix", PATIENCE, || {
        match have(&["-6", "address", "show", "eth0", "-tentative"]) {
            found if found.contains(&format!(" {ip}/64 ")) => Ok(()),
            found => Err(found),
        }
    })
    .unwrap();
    assert!(have(&["-6", "route"]).contains("default via fe80::"));
    for subnet in [&v4, &v6] {
        vm.reaches(subnet["gateway_ip"].as_str().unwrap());
    }
}
