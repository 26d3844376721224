//! A gateway between namespaces, with real packets: two hosts and the gateway on one Ethernet. Needs root and the kernel programs.

#![allow(clippy::unwrap_used, clippy::expect_used)]
#![allow(dead_code, reason = "the common module has more than one test needs")]

#[path = "common/mod.rs"]
mod common;

use std::{
    net::{Ipv4Addr, SocketAddrV4, UdpSocket},
    time::Duration,
};

use alcor_dataplane::{
    Dataplane, DropReason, ExternalRow, FloatingIpRow, InterfaceRow, NeighbourRow, NetworkRow, RouterRow,
    Row, RowChange,
    gateway::AttachMode,
    testing::wire::{Ip, ethernet},
};
use alcor_dataplane_abi::gateway_layout::{GATEWAY_LAYOUT, PROBE_PORT, VXLAN_PORT};
use alcor_dataplane_ebpf::{Attachment, GatewayConfig, XdpGateway};
use alcor_model::{
    Id, MacAddr, Vni,
    net::{GATEWAY_MAC, ON_DEMAND_MAC},
};
use common::{Namespace, network_id, run};
use uuid::Uuid;

const GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 200);
const VNI: u32 = 4711;
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
/// The router's own address, behind which tenants hide.
const HIDING: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
const FLOATING: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 20);
const TENANT: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
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
    outside: Namespace,
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
            // A wire has whole checksums on it.
            namespace.run(&["ethtool", "-K", "under0", "tx", "off"]);
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
        let outside = Namespace::new(format!("{name}-out"));
        run(&[
            "ip", "link", "add", "ext0", "netns", &gateway.0, "type", "veth", "peer", "name", "out0",
            "netns", &outside.0,
        ]);
        gateway.run(&["ip", "address", "add", "203.0.113.250/24", "dev", "ext0"]);
        gateway.run(&["ip", "link", "set", "ext0", "up"]);
        outside.run(&["ip", "address", "add", &format!("{OUTSIDE}/24"), "dev", "out0"]);
        outside.run(&["ip", "link", "set", "out0", "up"]);
        outside.run(&["ethtool", "-K", "out0", "tx", "off"]);
        let mut config = GatewayConfig::new(name, GATEWAY, "under0");
        config.external_devices.push("ext0".to_owned());
        gateway.inside(|| XdpGateway::purge(&config).unwrap());
        Self {
            hosts,
            gateway,
            outside,
            _switch: switch,
            config,
        }
    }

    fn open(&self) -> XdpGateway {
        self.gateway.inside(|| XdpGateway::open(&self.config).unwrap())
    }

    /// Applies changes where the gateway is; all are accepted.
    fn apply(&self, gateway: &mut XdpGateway, changes: &[RowChange]) {
        let outcomes = self.gateway.inside(|| gateway.apply(changes));
        assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
    }

    fn socket(&self, host: usize, port: u16) -> UdpSocket {
        Self::socket_in(&self.hosts[host], port)
    }

    fn socket_in(namespace: &Namespace, port: u16) -> UdpSocket {
        let socket = namespace.inside(|| UdpSocket::bind(("0.0.0.0", port)).unwrap());
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
    let ip = Ip::new(TENANT.into(), PEER.into(), 64);
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
    let generic = ["under0", "ext0"].map(|device| (device.to_owned(), Attachment::Generic));
    assert_eq!(gateway.attachments(), generic);
    scene.apply(&mut gateway, &rows());
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

/// A router with a way out, a tenant of host 1 that hides behind it, and one of host 2 with a floating IP.
fn ways_out() -> Vec<RowChange> {
    let router_id = Id::from_uuid(Uuid::from_u128(7));
    let router = RouterRow {
        id: router_id,
        network_id: network_id(),
        admin_state_up: true,
        interfaces: vec![InterfaceRow {
            network_id: network_id(),
            cidr: "10.0.0.0/24".parse().unwrap(),
            address: [10, 0, 0, 254].into(),
        }],
        routes: Vec::new(),
        external: Some(ExternalRow {
            network_id: Id::from_uuid(Uuid::from_u128(8)),
            address: Some(HIDING),
            enable_snat: true,
            gateways: vec![GATEWAY.into()],
        }),
    };
    let floating = FloatingIpRow {
        id: Id::from_uuid(Uuid::from_u128(9)),
        network_id: network_id(),
        router_id,
        floating_ip: FLOATING,
        fixed_ip: PEER,
        external_network_id: Id::from_uuid(Uuid::from_u128(8)),
        host: None,
        cidr: None,
        nexthop: None,
    };
    let tenant = NeighbourRow {
        network_id: network_id(),
        ip: TENANT.into(),
        mac: OWN_MAC,
        host: host_ip(1).into(),
        label: 0,
        forward: false,
    };
    let mut changes = rows();
    changes.extend(
        [
            Row::Router(router),
            Row::FloatingIp(floating),
            Row::Neighbour(tenant),
        ]
        .map(RowChange::Put),
    );
    changes
}

/// What a host sends, or gets, for a tenant: UDP between two ends.
fn tunnelled(
    (source, source_mac): (SocketAddrV4, MacAddr),
    (destination, destination_mac): (SocketAddrV4, MacAddr),
    ttl: u8,
    text: &[u8],
) -> Vec<u8> {
    let [_, a, b, c] = VNI.to_be_bytes();
    let mut payload = vec![0x08, 0, 0, 0, a, b, c, 0];
    let ip = Ip::new((*source.ip()).into(), (*destination.ip()).into(), ttl);
    let datagram = ip.udp((source.port(), destination.port()), text);
    payload.extend(ip.frame(source_mac, destination_mac, 17, &datagram));
    payload
}

/// The UDP source port, checksum and payload of the inner packet; identification and flags are the sender's.
fn inner(payload: &[u8]) -> (&[u8], &[u8]) {
    (&payload[..22], &payload[8 + 14 + 20..])
}

#[test]
fn a_tenant_reaches_the_outside_and_is_answered_and_a_floating_ip_is_reached() {
    let scene = Scene::new("gwnat");
    let mut gateway = scene.open();
    scene.apply(&mut gateway, &ways_out());
    let routes = || {
        scene
            .gateway
            .run(&["ip", "route", "show", "type", "blackhole", "proto", "172"])
    };
    for address in [HIDING, FLOATING] {
        assert!(routes().contains(&address.to_string()), "{}", routes());
    }
    // The router's own address answers.
    scene.outside.run(&[
        "ping",
        "-n",
        "-c",
        "3",
        "-i",
        "0.01",
        "-W",
        "2",
        &HIDING.to_string(),
    ]);

    // To the outside, hidden; the first packet finds no MAC: the node's own stack asks for it.
    let outside = Scene::socket_in(&scene.outside, 7);
    let host = scene.socket(0, VXLAN_PORT);
    let mut buffer = [0; 2000];
    let tenant = (SocketAddrV4::new(TENANT, 4000), OWN_MAC);
    for number in 0..20u8 {
        if number == 10 {
            drop(gateway);
            gateway = scene.open();
        }
        let far = SocketAddrV4::new(OUTSIDE, 7);
        let sent = tunnelled(tenant, (far, GATEWAY_MAC), 63, &[number]);
        host.send_to(&sent, (GATEWAY, VXLAN_PORT)).unwrap();
        let (len, from) = outside.recv_from(&mut buffer).unwrap();
        assert_eq!(
            (&buffer[..len], from.to_string()),
            (&[number][..], format!("{HIDING}:4000"))
        );
        outside.send_to(b"answer", from).unwrap();
        let (len, _) = host.recv_from(&mut buffer).unwrap();
        let wanted = tunnelled((far, GATEWAY_MAC), tenant, 63, b"answer");
        assert_eq!(inner(&buffer[..len]), inner(&wanted));
    }
    let report = Dataplane::gateway(&mut gateway).unwrap().unwrap();
    let nat = report.nat[0];
    assert_eq!((report.nat.len(), nat.connections, nat.refused), (1, 1, 0));
    assert_eq!((report.load.north_packets, report.load.south_packets), (20, 20));
    let modes: Vec<AttachMode> = report.devices.iter().map(|device| device.mode).collect();
    assert_eq!(modes, [AttachMode::Generic; 2]);
    assert_eq!(report.layout, Some(GATEWAY_LAYOUT));
    assert!(report.neighbours_room > Some(0));

    // What has no way on is not counted as forwarded. Packets of one sender stay in order: the probe comes back after it.
    let nowhere = SocketAddrV4::new(Ipv4Addr::new(198, 51, 100, 9), 7);
    let lost = tunnelled(tenant, (nowhere, GATEWAY_MAC), 63, b"lost");
    let prober = scene.socket(0, 50_001);
    prober.send_to(&lost, (GATEWAY, VXLAN_PORT)).unwrap();
    prober.send_to(b"?", (GATEWAY, PROBE_PORT)).unwrap();
    prober.recv_from(&mut buffer).unwrap();
    let drops = gateway.drops().unwrap();
    assert_eq!(drops.get(&(None, DropReason::NoRoute)), Some(&1));
    assert_eq!(gateway.load().unwrap().north_packets, 20);

    // From the outside, to a floating IP.
    let peer_host = scene.socket(1, VXLAN_PORT);
    outside.send_to(b"hello", (FLOATING, 5000)).unwrap();
    let (len, _) = peer_host.recv_from(&mut buffer).unwrap();
    let wanted = tunnelled(
        (SocketAddrV4::new(OUTSIDE, 7), GATEWAY_MAC),
        (SocketAddrV4::new(PEER, 5000), PEER_MAC),
        63,
        b"hello",
    );
    assert_eq!(inner(&buffer[..len]), inner(&wanted));

    let gone = RowChange::Remove(alcor_dataplane::RowKey::Network(network_id()));
    scene.apply(&mut gateway, &[gone]);
    assert_eq!(routes(), "", "nobody says any more that the addresses are here");
}

#[test]
fn fragments_get_through_and_who_is_too_long_for_the_way_out_is_told() {
    let scene = Scene::new("gwfrag");
    let mut gateway = scene.open();
    scene.apply(&mut gateway, &ways_out());
    let outside = Scene::socket_in(&scene.outside, 7);
    let host = scene.socket(0, VXLAN_PORT);
    let mut buffer = [0; 4000];
    let far = SocketAddrV4::new(OUTSIDE, 7);
    let header = Ip::new(TENANT.into(), OUTSIDE.into(), 63);
    let send = |fragment: u16, bytes: &[u8]| {
        let ip = Ip {
            fragment,
            ..header.clone()
        };
        let [_, a, b, c] = VNI.to_be_bytes();
        let mut payload = vec![0x08, 0, 0, 0, a, b, c, 0];
        payload.extend(ip.frame(OWN_MAC, GATEWAY_MAC, 17, bytes));
        host.send_to(&payload, (GATEWAY, VXLAN_PORT)).unwrap();
    };
    // The station outside puts them together, and finds the checksum right. The first packet finds no MAC: the node's own stack asks.
    let text: Vec<u8> = (0..2000u32).map(|at| at as u8).collect();
    let datagram = header.udp((4000, 7), &text);
    send(0x2000, &datagram[..1000]);
    send(1000 / 8, &datagram[1000..]);
    let (len, from) = outside.recv_from(&mut buffer).unwrap();
    assert_eq!(
        (&buffer[..len], from.to_string()),
        (&text[..], format!("{HIDING}:4000"))
    );
    // Its answer comes in fragments too.
    scene.outside.run(&["ip", "link", "set", "out0", "mtu", "1000"]);
    outside.send_to(&text, from).unwrap();
    let tenant = SocketAddrV4::new(TENANT, 4000);
    let mut answer: Vec<u8> = Vec::new();
    while answer.len() < 8 + text.len() {
        let (len, _) = host.recv_from(&mut buffer).unwrap();
        let packet = &buffer[8 + 14..len];
        assert_eq!(packet[16..20], TENANT.octets());
        answer.extend(&packet[20..]);
    }
    let wanted = Ip::new((*far.ip()).into(), TENANT.into(), 63).udp((7, tenant.port()), &text);
    assert_eq!(answer, wanted);

    // The way out is narrower than the tenant's network.
    scene.gateway.run(&["ip", "link", "set", "ext0", "mtu", "1300"]);
    let before = gateway.load().unwrap().replies;
    send(0x4000, &header.udp((4000, 7), &[7; 1300]));
    let (len, _) = host.recv_from(&mut buffer).unwrap();
    let packet = &buffer[8 + 14..len];
    assert_eq!(
        (&packet[12..16], &packet[16..20]),
        (&[10, 0, 0, 254][..], &TENANT.octets()[..])
    );
    assert_eq!(
        (&packet[20..22], &packet[26..28]),
        (&[3, 4][..], &1300u16.to_be_bytes()[..])
    );
    assert_eq!((&packet[40..44], packet.len()), (&TENANT.octets()[..], 56));
    let load = gateway.load().unwrap();
    assert_eq!((load.replies - before, load.north_packets), (1, 2));
}

/// VXLAN to a host, from an address that is another's.
fn forge(outside: &Namespace, source: Ipv4Addr) {
    outside.run(&["ip", "address", "add", &format!("{source}/32"), "dev", "lo"]);
    let socket = outside.inside(|| UdpSocket::bind((source, 0)).unwrap());
    socket
        .send_to(&payload(OWN_MAC, 1), (host_ip(1), VXLAN_PORT))
        .unwrap();
}

#[test]
fn nobody_outside_gets_by_the_nodes_own_stack_into_the_underlay() {
    let scene = Scene::new("gwforge");
    let mut gateway = scene.open();
    scene.apply(&mut gateway, &ways_out());
    scene
        .outside
        .run(&["ip", "route", "add", "192.0.2.0/24", "via", "203.0.113.250"]);
    // The hosts and the gateway know each other's MACs: nothing is lost for want of one.
    scene
        .gateway
        .run(&["ping", "-n", "-c", "1", "-W", "2", &host_ip(1).to_string()]);
    let victim = scene.socket(0, VXLAN_PORT);
    let other_gateway = Ipv4Addr::new(192, 0, 2, 201);
    for source in [GATEWAY, other_gateway, OUTSIDE] {
        if source == OUTSIDE {
            let socket = Scene::socket_in(&scene.outside, 7);
            socket
                .send_to(&payload(OWN_MAC, 1), (host_ip(1), VXLAN_PORT))
                .unwrap();
        } else {
            forge(&scene.outside, source);
        }
    }
    // What is the node's own still passes, and came after them.
    let ping = ["ping", "-n", "-c", "2", "-i", "0.2", "-W", "2", "203.0.113.250"];
    scene.outside.run(&ping);
    let drops = gateway.drops().unwrap();
    assert_eq!(
        drops.get(&(None, DropReason::OutsideDenied)),
        Some(&3),
        "{drops:?}"
    );
    victim.set_nonblocking(true).unwrap();
    let got = victim.recv_from(&mut [0; 2000]).map_err(|error| error.kind());
    assert_eq!(got, Err(std::io::ErrorKind::WouldBlock));
    let setting = |path: &str| {
        scene
            .gateway
            .run(&["cat", &format!("/proc/sys/net/ipv4/conf/{path}")])
    };
    assert_eq!(
        (setting("ext0/rp_filter"), setting("under0/rp_filter")),
        ("2\n".into(), "0\n".into())
    );
}
