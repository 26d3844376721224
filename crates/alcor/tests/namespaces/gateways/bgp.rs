//! Addresses that only BGP leads to: gateways' routes, announced by FRR with the configuration that `docs/gateways.md` tells to use.

use std::path::Path;

use alcor_lab::{Namespace, Process, eventually};
use serde_json::{Value, json};

use super::{
    Cloud, FAR, MTU, assert_none_missing,
    north::{North, reached},
    words,
};
use crate::{
    frr::Frr,
    region::{PATIENCE, Vm, interrupt, more_answers},
};

const DOCUMENTATION: &str = include_str!("../../../../../docs/gateways.md");
/// The upstream router: in the small network that it shares with gateways, and where the far host is.
const UPSTREAM: &str = "192.0.2.1";
const UPSTREAM_FAR: &str = "198.51.100.254";
/// A gateway and the upstream router in the documentation.
const DOCUMENTED_GATEWAY: &str = "198.51.100.21";
const DOCUMENTED_UPSTREAM: &str = "198.51.100.1";
/// A route of the gateways' nodes that is nobody's business.
const PRIVATE: &str = "10.99.0.0/16";

/// Gateways behind a router that knows floating IPs by BGP only.
struct Scene {
    north: North,
    /// The router.
    frr: Frr,
    /// A host behind it.
    far: Namespace,
    /// What changes in the router's routes.
    changes: Process,
}

/// `frr.conf` of the documentation, with this gateway's addresses.
fn documented(gateway: &str) -> String {
    let (_, rest) = DOCUMENTATION.split_once("```frr\n").unwrap();
    let (text, _) = rest.split_once("```").unwrap();
    let text = text.replace(DOCUMENTED_GATEWAY, gateway);
    text.replace(DOCUMENTED_UPSTREAM, UPSTREAM)
}

/// `frr.conf` of the router.
fn upstream(gateways: &[String]) -> String {
    let mut text = format!("router bgp 65000\n bgp router-id {UPSTREAM}\n no bgp ebgp-requires-policy\n");
    for gateway in gateways {
        let neighbour = format!(" neighbor {gateway}");
        text += &format!("{neighbour} remote-as 65001\n{neighbour} timers connect 1\n{neighbour} bfd\n");
        text +=
            &format!(" address-family ipv4 unicast\n {neighbour} default-originate\n exit-address-family\n");
    }
    text
}

impl Scene {
    fn start(name: &'static str) -> Self {
        let mut cloud = Cloud::behind(name, None, UPSTREAM);
        cloud.add_gateways(name);
        let lab = &cloud.region.lab;
        let wire = lab.wire_called("fwire", MTU).unwrap();
        let far = lab.host(&wire, "far", FAR.parse().unwrap(), MTU).unwrap();
        words(&far, &format!("route add default via {UPSTREAM_FAR}"));
        let router = &cloud.outside;
        lab.uplink(router, &wire, UPSTREAM_FAR.parse().unwrap(), MTU)
            .unwrap();
        router.run(&["sysctl", "-qw", "net.ipv4.ip_forward=1"]).unwrap();
        // What nobody announces is nowhere.
        words(router, "route add unreachable 203.0.113.0/24");
        let monitor = ["monitor", "route"];
        let changes = lab
            .spawn(Some(router), "changes", Path::new("ip"), &monitor)
            .unwrap();

        let tunnel_ips = cloud.gateways.iter().map(|gateway| gateway.tunnel_ip);
        let addresses: Vec<String> = tunnel_ips.map(|ip| cloud.external_ip(ip).to_string()).collect();
        for (gateway, address) in cloud.gateways.iter().zip(&addresses) {
            // The way out is told by BGP too.
            words(&gateway.namespace, "route del default");
            words(&gateway.namespace, &format!("route add {PRIVATE} dev eth0"));
            Frr::start(lab, &gateway.namespace, &gateway.name, &documented(address));
        }
        let frr = Frr::start(lab, router, "upstream", &upstream(&addresses));
        Self {
            north: North::start(cloud),
            frr,
            far,
            changes,
        }
    }

    fn external_ip(&self, gateway: usize) -> String {
        let cloud = &self.north.cloud;
        cloud.external_ip(cloud.gateways[gateway].tunnel_ip).to_string()
    }

    /// Waits until the router sends what is for an address to this gateway, or nowhere.
    fn leads_to(&self, address: &str, gateway: Option<usize>) {
        let wanted = gateway.map(|gateway| format!("via {} ", self.external_ip(gateway)));
        eventually(&format!("{address} to be at {gateway:?}"), PATIENCE, || {
            let route = words(
                &self.north.cloud.outside,
                &format!("route show {address} proto bgp"),
            );
            match &wanted {
                Some(via) if route.contains(via) => Ok(()),
                None if route.is_empty() => Ok(()),
                _ => Err(format!("the route is '{route}'")),
            }
        })
        .unwrap_or_else(|error| panic!("{error}\n{}", self.north.cloud.logs()));
    }

    /// Who announces what to the router: prefixes with next hops.
    fn announced(&self) -> Vec<(String, Vec<String>)> {
        let table = self.frr.show("bgp ipv4 unicast");
        let routes = table["routes"].as_object().unwrap().iter();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let hops = |paths: &Value| {
            let paths = paths.as_array().unwrap().iter();
            paths.map(|path| text(&path["nexthops"][0]["ip"])).collect()
        };
        routes
            .map(|(prefix, paths)| (prefix.clone(), hops(paths)))
            .collect()
    }

    /// How often the router's route to an address has changed.
    fn changed(&self, address: &str) -> usize {
        let printed = self.changes.output();
        printed.lines().filter(|line| line.contains(address)).count()
    }

    fn ping(&self, label: &str, to: &str) -> Process {
        let arguments = ["-n", "-D", "-i", "0.02", to];
        let lab = &self.north.cloud.region.lab;
        let mut ping = lab
            .spawn(Some(&self.far), label, Path::new("ping"), &arguments)
            .unwrap();
        more_answers(&mut ping, 20);
        ping
    }

    /// A gateway's process starts again, and the router does not notice. The controller is away meanwhile: on a machine that has more to
    /// do it might take a gateway out of use before that has started.
    fn starts_again(&mut self, owner: usize, address: &str) {
        let before = self.changed(address);
        assert!(before > 0, "what changes is seen");
        let mut ping = self.ping("again", address);
        self.north.cloud.region.controller.kill();
        self.north.cloud.restart(owner);
        more_answers(&mut ping, 50);
        interrupt(&mut ping);
        assert_none_missing(&ping);
        assert_eq!(self.changed(address), before, "{}", self.changes.output());
        // The routes of a node whose process does not come back are taken away by hand; the next start puts them back.
        let node = self.north.cloud.gateways[owner].namespace.clone();
        words(&node, "route flush table main proto 172");
        self.leads_to(address, None);
        self.north.cloud.restart(owner);
        self.leads_to(address, Some(owner));
        self.north.cloud.region.restart_controller();
        for gateway in 0..2 {
            self.north.cloud.gateway_lives(gateway);
        }
        // The VM's host, too: it must hear where its answers shall go.
        self.north.cloud.region.host_in_step(0, 0);
        self.leads_to(address, Some(owner));
    }

    /// The gateway that owns the addresses becomes another one without those who use them having to do anything.
    fn moves(&mut self, label: &str, address: &str, to: usize, how: impl FnOnce(&mut Cloud)) {
        let mut ping = self.ping(label, address);
        how(&mut self.north.cloud);
        self.leads_to(address, Some(to));
        more_answers(&mut ping, 20);
        interrupt(&mut ping);
        let silence = silence_s(&ping.output()) * 1e3;
        println!("{label}: no answer for {silence:.0} ms");
    }
}

/// The longest time between two answers that a ping has printed with their times, in seconds.
fn silence_s(printed: &str) -> f64 {
    let lines = printed.lines().filter(|line| line.contains(" time="));
    let times = lines.filter_map(|line| line.strip_prefix('[')?.split_once(']')?.0.parse().ok());
    let times: Vec<f64> = times.collect();
    let pairs = times.iter().zip(times.iter().skip(1));
    pairs.map(|(one, next)| next - one).fold(0.0, f64::max)
}

/// Lets a VM be reached by ping and TCP.
fn may_be_reached(north: &North, vm: &Vm) {
    for protocol in ["icmp", "tcp"] {
        let rule = json!({"security_group_id": vm.port["security_groups"][0], "direction": "ingress",
            "ethertype": "IPv4", "protocol": protocol});
        north.cloud.region.post("security_group_rule", rule);
    }
}

/// Bytes over TCP from the far host to a VM. `label`: of the log, which has nothing in it before.
fn bytes_in(scene: &Scene, vm: &Vm, address: &str, label: &str) {
    let region = &scene.north.cloud.region;
    let mut server = region.spawn(vm, label, "iperf3", &["-s", "-1", "--forceflush"]);
    eventually("iperf3 to listen", PATIENCE, || {
        match server.output().contains("listening") {
            true => Ok(()),
            false => Err(server.output()),
        }
    })
    .unwrap();
    let printed = scene.far.run(&["iperf3", "-c", address, "-n", "2M"]).unwrap();
    assert!(printed.contains("iperf Done"), "{printed}");
    server.wait(PATIENCE).unwrap();
}

#[test]
fn a_router_learns_by_bgp_where_addresses_are_and_where_they_move() {
    let mut scene = Scene::start("tbgp");
    let vm = scene.north.cloud.region.vm("vm", 0, &[&scene.north.subnet]);
    may_be_reached(&scene.north, &vm);
    let made = scene.north.floating_ip_of(&vm);
    let address = made["floating_ip_address"].as_str().unwrap();
    let owner = scene.north.owner();
    let other = 1 - owner;

    // Both external addresses of the router, from their owner, and nothing else.
    scene.leads_to(address, Some(owner));
    let snat = scene.north.snat_address();
    scene.leads_to(&snat, Some(owner));
    let mut wanted = [address, &snat].map(|ip| (format!("{ip}/32"), vec![scene.external_ip(owner)]));
    wanted.sort();
    assert_eq!(scene.announced(), wanted);
    reached(&scene.far, address);
    bytes_in(&scene, &vm, address, "first");
    vm.reaches(FAR);

    scene.starts_again(owner, address);

    // Maintenance, its end, and a machine that is gone.
    for (word, to) in [("drain", other), ("undrain", owner)] {
        scene.moves(word, address, to, |cloud| {
            let name = &cloud.gateways[owner].name;
            cloud.region.alcor(&["gateway", word, name, "--json"]);
        });
        vm.reaches(FAR);
    }
    scene.moves("power_off", address, other, |cloud| cloud.power_off(owner));
    bytes_in(&scene, &vm, address, "last");

    // Nobody's address any more.
    scene.north.cloud.region.delete("floatingip", &made["id"]);
    scene.leads_to(address, None);
    let refused = scene.far.run(&["ping", "-n", "-c1", "-W1", address]);
    assert!(refused.is_err(), "{refused:?}");
    scene.leads_to(&snat, Some(other));
}
