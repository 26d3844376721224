//! The way out and in: source NAT and floating IPs, when gateways start again and when they die.

use std::path::Path;

use alcor_dataplane_abi::gateway::key;
use alcor_lab::{Namespace, eventually};
use serde_json::{Value, json};

use super::{Cloud, FAR, OUTSIDE, assert_none_missing, words};
use crate::region::{PATIENCE, Vm, interrupt, more_answers};

/// A network with a way out, and what is needed to be reached from there.
pub(crate) struct North {
    pub(crate) cloud: Cloud,
    pub(crate) external: Value,
    pub(super) router: Value,
    network: Value,
    pub(crate) subnet: Value,
}

impl North {
    pub(crate) fn start(cloud: Cloud) -> Self {
        let region = &cloud.region;
        let external =
            region.post("network", json!({"name": "outside", "router:external": true}))["id"].take();
        let pools = json!([{"start": "203.0.113.100", "end": "203.0.113.199"}]);
        let outside = json!({"network_id": external, "ip_version": 4, "cidr": "203.0.113.0/24",
            "gateway_ip": OUTSIDE, "allocation_pools": pools, "enable_dhcp": false});
        region.post("subnet", outside);
        let network = region.network();
        let subnet = region.subnet(&network, "10.0.0.0/24");
        let router = region.post(
            "router",
            json!({"name": "r", "external_gateway_info": {"network_id": external}}),
        );
        let path = format!("{}/add_router_interface", router["id"].as_str().unwrap());
        region.act("router", &path, json!({"subnet_id": subnet["id"]}));
        Self {
            cloud,
            external,
            router,
            network,
            subnet,
        }
    }

    pub(crate) fn floating_ip(&self, vm: &Vm) -> String {
        let made = self.floating_ip_of(vm);
        made["floating_ip_address"].as_str().unwrap().to_owned()
    }

    /// The same as the API shows it.
    pub(super) fn floating_ip_of(&self, vm: &Vm) -> Value {
        let attributes = json!({"floating_network_id": self.external, "port_id": vm.port["id"]});
        self.cloud.region.post("floatingip", attributes)
    }

    /// The address that the router sends from.
    pub(super) fn snat_address(&self) -> String {
        let info = &self.router["external_gateway_info"]["external_fixed_ips"][0];
        info["ip_address"].as_str().unwrap().to_owned()
    }

    /// The gateway that the router's addresses are on.
    pub(super) fn owner(&self) -> usize {
        let id: uuid::Uuid = self.router["id"].as_str().unwrap().parse().unwrap();
        self.cloud.chosen(key(id.as_bytes()))
    }
}

/// Waits until one ping from outside is answered.
pub(crate) fn reached(outside: &Namespace, to: &str) {
    eventually(&format!("an answer of {to}"), PATIENCE, || {
        outside
            .run(&["ping", "-n", "-c1", "-W1", to])
            .map_err(|error| error.to_string())
    })
    .unwrap();
}

#[test]
fn vms_reach_the_outside_and_are_reached_by_a_floating_ip() {
    // The way out needs gateways also where hosts are told of all neighbours.
    let north = North::start(Cloud::start_with("tgwnorth", None));
    let region = &north.cloud.region;
    let [hidden, public] =
        [("hidden", 0), ("public", 1)].map(|(name, host)| region.vm(name, host, &[&north.subnet]));
    // Through source NAT: the outside sees the router.
    hidden.reaches(OUTSIDE);
    hidden.reaches(FAR);
    let mut seen = region
        .lab
        .spawn(
            Some(&north.cloud.outside),
            "server",
            Path::new("iperf3"),
            &["-s", "-1", "-B", FAR, "--forceflush"],
        )
        .unwrap();
    eventually("iperf3 to listen", PATIENCE, || {
        match seen.output().contains("listening") {
            true => Ok(()),
            false => Err(seen.output()),
        }
    })
    .unwrap();
    let printed = hidden.namespace.run(&["iperf3", "-c", FAR, "-n", "2M"]).unwrap();
    assert!(printed.contains("iperf Done"), "{printed}");
    seen.wait(PATIENCE).unwrap();
    let peer = format!("Accepted connection from {}", north.snat_address());
    assert!(seen.output().contains(&peer), "not '{peer}': {}", seen.output());
    // Nobody outside gets to who is hidden, nor to an address that is nobody's.
    let refused = |to: &str| {
        north
            .cloud
            .outside
            .run(&["ping", "-n", "-c1", "-W1", to])
            .is_err()
    };
    assert!(refused("203.0.113.199"));

    let floating = north.floating_ip(&public);
    let group = public.port["security_groups"][0].clone();
    let rule =
        json!({"security_group_id": group, "direction": "ingress", "ethertype": "IPv4", "protocol": "icmp"});
    region.post("security_group_rule", rule);
    reached(&north.cloud.outside, &floating);
    let five = ["ping", "-n", "-c5", "-i0.05", "-W2", &floating];
    let printed = north.cloud.outside.run(&five).unwrap();
    assert!(printed.contains(" 0% packet loss"), "{printed}");
    // It goes out with it too, and who is hidden reaches it by it.
    public.reaches(FAR);
    hidden.reaches(&floating);
}

#[test]
fn a_gateway_that_starts_again_loses_no_packet_and_one_that_dies_is_replaced() {
    let mut north = North::start(Cloud::start("tgwnagn"));
    let vm = north.cloud.region.vm("vm", 0, &[&north.subnet]);
    north.cloud.forwarded_by(0, &north.network, &[0, 1]);
    let owner = north.owner();
    vm.reaches(FAR);
    let mut ping = north
        .cloud
        .region
        .spawn(&vm, "ping", "ping", &["-n", "-i", "0.01", FAR]);
    more_answers(&mut ping, 20);
    north.cloud.restart(owner);
    more_answers(&mut ping, 100);
    interrupt(&mut ping);
    assert_none_missing(&ping);

    let mut ping = north
        .cloud
        .region
        .spawn(&vm, "after", "ping", &["-n", "-i", "0.05", FAR]);
    more_answers(&mut ping, 10);
    north.cloud.power_off(owner);
    more_answers(&mut ping, 20);
    interrupt(&mut ping);
}

/// What is longer than a link takes comes in fragments, or is told so; the time that packets live shows who is on the way.
#[test]
fn long_packets_and_short_lives_are_as_behind_any_router() {
    let north = North::start(Cloud::start("tgwlong"));
    let vm = north.cloud.region.vm("vm", 0, &[&north.subnet]);
    vm.reaches(FAR);
    let ping = |arguments: &[&str]| {
        let command = [&["ping", "-n", "-c1", "-W2"][..], arguments, &[FAR]].concat();
        vm.namespace.run(&command).map_err(|error| error.to_string())
    };
    // The outside answers in fragments that the network takes.
    let narrow = format!("route replace 203.0.113.0/24 dev eth0 src {OUTSIDE} mtu lock 1400");
    words(&north.cloud.outside, &narrow);
    ping(&["-s", "4000"]).unwrap();
    for gateway in &north.cloud.gateways {
        words(&gateway.namespace, "link set eth1 mtu 1300");
    }
    let told = ping(&["-M", "do", "-s", "1372"]).unwrap_err();
    assert!(
        told.contains("From 10.0.0.1 icmp_seq=1 Frag needed and DF set (mtu = 1300)"),
        "{told}"
    );
    let way = words(&vm.namespace, &format!("route get {FAR}"));
    assert!(way.contains("mtu 1300"), "{way}");
    ping(&["-M", "do", "-s", "1200"]).unwrap();
    // One hop is the router, which the host speaks for; the next one is outside.
    let first = ping(&["-t", "1"]).unwrap_err();
    assert!(
        first.contains("From 10.0.0.1 icmp_seq=1 Time to live exceeded"),
        "{first}"
    );
    ping(&["-t", "2"]).unwrap();
}
