//! A gateway between namespaces, with real packets: two hosts and the gateway on one Ethernet. Needs root and the kernel programs.

#![allow(clippy::unwrap_used, clippy::expect_used)]
#![allow(dead_code, reason = "the common module has more than one test needs")]

#[path = "common/mod.rs"]
mod common;

use std::{
    net::{Ipv4Addr, UdpSocket},
    time::Duration,
};

use alcor_dataplane::{
    Dataplane, DropReason, NeighbourRow, NetworkRow, Row, RowChange,
    testing::wire::{Ip, ethernet},
};
use alcor_dataplane_abi::gateway_layout::{PROBE_PORT, VXLAN_PORT};
use alcor_dataplane_ebpf::{Attachment, GatewayConfig, XdpGateway};
use alcor_model::{MacAddr, Vni, net::ON_DEMAND_MAC};
use common::{Namespace, network_id, run};

const GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 200);
const VNI: u32 = 4711;
const PEER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const PEER_MAC: MacAddr = MacAddr([0xfa, 0x16, 0x3e, 0, 0, 2]);
const OWN_MAC: MacAddr = MacAddr([0xfa, 0x16, 0x3e, 0, 0, 1]);
/// Long enough for any packet that comes.
const PATIENCE: Duration = Duration::from_secs(5);

fn host_ip(host: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 0, 2, host)
}

/// A switch, two hosts and a gateway.
struct Scene {
    hosts: Vec<Namespace>,
    gateway: Namespace,
    _switch: Namespace,
    config: GatewayConfig,
}

impl Scene {
    fn new(name: &str) -> Self {
        let switch = Namespace::new(format!("{name}-sw"));
        switch.run(&["ip", "link", "add", "br0", "type", "bridge"]);
        switch.run(&["ip", "link", "set", "br0", "up"]);
        let plug = |namespace: &Namespace, port: &str, address: Ipv4Addr| {
            let (inside, outside) = (namespace.0.as_str(), switch.0.as_str());
            run(&[
                "ip", "link", "add", "under0", "netns", inside, "type", "veth", "peer", "name", port,
                "netns", outside,
            ]);
            switch.run(&["ip", "link", "set", port, "master", "br0", "up"]);
            namespace.run(&["ip", "address", "add", &format!("{address}/24"), "dev", "under0"]);
            namespace.run(&["ip", "link", "set", "under0", "up"]);
        };
        let hosts: Vec<_> = [1u8, 2]
            .into_iter()
            .map(|host| {
                let namespace = Namespace::new(format!("{name}-h{host}"));
                plug(&namespace, &format!("p{host}"), host_ip(host));
                namespace
            })
            .collect();
        let gateway = Namespace::new(format!("{name}-gw"));
        plug(&gateway, "pgw", GATEWAY);
        let config = GatewayConfig::new(name, GATEWAY, "under0");
        gateway.inside(|| XdpGateway::purge(&config).unwrap());
        Self {
            hosts,
            gateway,
            _switch: switch,
            config,
        }
    }

    fn open(&self) -> XdpGateway {
        self.gateway.inside(|| XdpGateway::open(&self.config).unwrap())
    }

    fn socket(&self, host: usize, port: u16) -> UdpSocket {
        let socket = self.hosts[host].inside(|| UdpSocket::bind(("0.0.0.0", port)).unwrap());
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.gateway.inside(|| XdpGateway::purge(&self.config).unwrap());
    }
}

fn rows() -> Vec<RowChange> {
    let network = NetworkRow {
        id: network_id(),
        vni: Vni::try_from(VNI).unwrap(),
        mtu: 1450,
        admin_state_up: true,
        underlay: Some(vec!["192.0.2.0/24".parse().unwrap()]),
        on_demand: true,
        gateways: vec![GATEWAY.into()],
    };
    let peer = NeighbourRow {
        network_id: network_id(),
        ip: PEER.into(),
        mac: PEER_MAC,
        host: host_ip(2).into(),
        label: 7,
        forward: false,
    };
    [Row::Network(network), Row::Neighbour(peer)]
        .map(RowChange::Put)
        .to_vec()
}

/// What a host sends for a tenant: VXLAN with label 9, and the number in the payload.
fn payload(destination: MacAddr, number: u32) -> Vec<u8> {
    let [_, a, b, c] = VNI.to_be_bytes();
    let mut payload = vec![0x88, 0, 0, 9, a, b, c, 0];
    let ip = Ip::new(Ipv4Addr::new(10, 0, 0, 1).into(), PEER.into(), 64);
    let datagram = ip.udp((1000, 2000), &number.to_be_bytes());
    let (ethertype, packet) = ip.packet(17, &datagram);
    payload.extend(ethernet(OWN_MAC, destination, ethertype, &packet));
    payload
}

#[test]
fn packets_go_through_to_the_other_host_and_a_restart_loses_none() {
    const PACKETS: u32 = 2000;
    let scene = Scene::new("gwtraffic");
    let mut gateway = scene.open();
    assert_eq!(
        gateway.attachments(),
        [("under0".to_owned(), Attachment::Generic)]
    );
    assert!(gateway.apply(&rows()).iter().all(Result::is_ok));
    let sender = scene.socket(0, 50_000);
    let receiver = scene.socket(1, VXLAN_PORT);
    let mut buffer = [0; 2000];
    // The first finds no MAC of the host: the node's own stack asks for it.
    for number in 0..PACKETS {
        if number % 500 == 250 {
            drop(gateway);
            gateway = scene.open();
        }
        let sent = payload(ON_DEMAND_MAC, number);
        sender.send_to(&sent, (GATEWAY, VXLAN_PORT)).unwrap();
        let (len, from) = receiver.recv_from(&mut buffer).unwrap();
        assert_eq!(
            from.to_string(),
            format!("{GATEWAY}:50000"),
            "the source port is kept"
        );
        assert_eq!(buffer[..len], payload(PEER_MAC, number), "packet {number}");
    }
    let load = gateway.load().unwrap();
    assert_eq!(load.east_west_packets, u64::from(PACKETS));
    assert_eq!(load.east_west_bytes, u64::from(PACKETS) * 96);
}

#[test]
fn probes_come_back_and_what_nobody_knows_is_dropped() {
    let scene = Scene::new("gwprobe");
    let mut gateway = scene.open();
    let sender = scene.socket(0, 50_000);
    sender.send_to(b"are you there?", (GATEWAY, PROBE_PORT)).unwrap();
    let mut buffer = [0; 2000];
    let (len, from) = sender.recv_from(&mut buffer).unwrap();
    assert_eq!(from.to_string(), format!("{GATEWAY}:{PROBE_PORT}"));
    assert_eq!(&buffer[..len], b"are you there?");
    // Packets of one sender stay in order: the probe comes back after the other was looked at.
    sender
        .send_to(&payload(ON_DEMAND_MAC, 1), (GATEWAY, VXLAN_PORT))
        .unwrap();
    sender.send_to(b"again", (GATEWAY, PROBE_PORT)).unwrap();
    sender.recv_from(&mut buffer).unwrap();
    let drops = gateway.drops().unwrap();
    assert_eq!(drops.get(&(None, DropReason::UnknownVni)), Some(&1));
    assert_eq!(gateway.load().unwrap().probes, 2);
}
