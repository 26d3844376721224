//! Routers between networks: who is connected, under which rules, and since when no longer.

use alcor_lab::eventually;
use serde_json::{Value, json};

use crate::region::{PATIENCE, Region, Vm};

struct Cloud {
    region: Region,
    router: Value,
    networks: [Value; 2],
    /// IPv4 and IPv6 of each network.
    subnets: [[Value; 2]; 2],
}

/// Two networks that a router connects.
fn cloud(name: &'static str) -> Cloud {
    let region = Region::start(name);
    let networks = [region.network(), region.network()];
    let subnets = [
        ["10.0.0.0/24", "fd00:a::/64"].map(|cidr| region.subnet(&networks[0], cidr)),
        ["10.0.1.0/24", "fd00:b::/64"].map(|cidr| region.subnet(&networks[1], cidr)),
    ];
    let router = region.post("router", json!({"name": "r"}));
    for subnet in subnets.iter().flatten() {
        let path = format!("{}/add_router_interface", router["id"].as_str().unwrap());
        region.act("router", &path, json!({"subnet_id": subnet["id"]}));
    }
    Cloud {
        region,
        router,
        networks,
        subnets,
    }
}

impl Cloud {
    fn vm(&self, name: &str, host: usize, network: usize) -> Vm {
        let [v4, v6] = &self.subnets[network];
        self.region.vm(name, host, &[v4, v6])
    }

    fn addresses(&self, vm: &Vm, network: usize) -> [String; 2] {
        self.subnets[network].each_ref().map(|subnet| vm.ip(subnet))
    }
}

fn stops(from: &Vm, to: &str) {
    eventually(&format!("no answer of {to}"), PATIENCE, || match from.pings(to) {
        true => Err("it answers".to_owned()),
        false => Ok(()),
    })
    .unwrap();
}

#[test]
fn a_router_connects_networks_until_it_is_down_or_an_interface_goes() {
    let cloud = cloud("troute");
    let here = cloud.vm("here", 0, 0);
    let beside = cloud.vm("beside", 0, 1);
    let there = cloud.vm("there", 1, 1);
    let stranger_network = cloud.region.network();
    let stranger_subnet = cloud.region.subnet(&stranger_network, "10.0.2.0/24");
    let stranger = cloud.region.vm("stranger", 1, &[&stranger_subnet]);
    for to in [&beside, &there] {
        for ip in cloud.addresses(to, 1) {
            here.reaches(&ip);
        }
    }
    for ip in cloud.addresses(&here, 0) {
        there.reaches(&ip);
        let ping = there.namespace.run(&["ping", "-n", "-c1", "-W2", &ip]).unwrap();
        assert!(ping.contains("ttl=63"), "one hop: {ping}");
    }
    assert!(
        !here.pings(&stranger.ip(&stranger_subnet)),
        "no router leads there"
    );
    assert!(!stranger.pings(&cloud.addresses(&here, 0)[0]));

    let [v4, v6] = cloud.addresses(&there, 1);
    let up = |up: bool| {
        let router = json!({"admin_state_up": up});
        cloud.region.put("router", &cloud.router["id"], router)
    };
    up(false);
    stops(&here, &v4);
    stops(&here, &v6);
    up(true);
    here.reaches(&v4);
    here.reaches(&v6);
    let path = format!("{}/remove_router_interface", cloud.router["id"].as_str().unwrap());
    let interface = json!({"subnet_id": cloud.subnets[1][0]["id"]});
    cloud.region.act("router", &path, interface);
    stops(&here, &v4);
    here.reaches(&v6);
}

/// The rule names a group, and the one who is in it sends from the other network: its label there is what the receiver
/// knows.
#[test]
fn a_rule_for_a_group_is_for_its_members_in_the_other_network_too() {
    let cloud = cloud("troutesg");
    let group = |name: &str| cloud.region.post("security_group", json!({"name": name}))["id"].take();
    let (clients, servers) = (group("clients"), group("servers"));
    let rule = json!({"security_group_id": servers, "direction": "ingress", "ethertype": "IPv4", "protocol": "icmp", "remote_group_id": clients});
    cloud.region.post("security_group_rule", rule);
    let under = |name: &str, host: usize, network: usize, group: &Value| {
        let [v4, v6] = &cloud.subnets[network];
        let fixed_ips = json!([{"subnet_id": v4["id"]}, {"subnet_id": v6["id"]}]);
        let port = cloud.region.port(host, &cloud.networks[network], fixed_ips);
        let port = cloud
            .region
            .put("port", &port["id"], json!({"security_groups": [group]}));
        let vm = cloud.region.vm_of(name, host, port);
        vm.configure(v4);
        vm
    };
    let client = under("client", 0, 0, &clients);
    let other = under("other", 0, 0, &servers);
    for (name, host) in [("near", 0), ("far", 1)] {
        let server = under(name, host, 1, &servers);
        let [v4, _] = cloud.addresses(&server, 1);
        client.reaches(&v4);
        assert!(!other.pings(&v4), "it is not in the group");
    }
}

/// The other network takes shorter packets: who must not be fragmented is told so, keeps to it, and gets through.
#[test]
fn a_sender_learns_what_the_other_network_takes() {
    let cloud = cloud("troumtu");
    let smaller = json!({"mtu": 1300});
    cloud.region.put("network", &cloud.networks[1], smaller);
    let here = cloud.vm("here", 0, 0);
    let near = cloud.vm("near", 0, 1);
    let far = cloud.vm("far", 1, 1);
    for (to, gateways) in [
        (&near, ["10.0.0.1", "fd00:a::"]),
        (&far, ["10.0.0.1", "fd00:a::"]),
    ] {
        for (ip, gateway) in cloud.addresses(to, 1).iter().zip(gateways) {
            here.reaches(ip);
            let ping = |size: &str| {
                let arguments = ["-n", "-c1", "-W2", "-M", "do", "-s", size, ip];
                let command = [&["ping"][..], &arguments].concat();
                here.namespace.run(&command)
            };
            let told = format!("From {gateway} icmp_seq=1");
            let refused = ping("1372").unwrap_err().to_string();
            assert!(refused.contains(&told) && refused.contains("1300"), "{refused}");
            // The kernel of the sender keeps it.
            let way = here.namespace.ip(&["route", "get", ip]).unwrap();
            assert!(way.contains("mtu 1300"), "{way}");
            ping("1200").unwrap();
        }
    }
}
