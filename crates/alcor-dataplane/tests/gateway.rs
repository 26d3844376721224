//! What a gateway does, case by case, on the model; the kernel program is compared with the model elsewhere.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{net::Ipv4Addr, time::Duration};

use alcor_dataplane::{
    Dataplane, DataplaneError, DropReason, ExternalRow, FloatingIpRow, InterfaceRow, NeighbourRow,
    NetworkRow, RouterRow, Row, RowChange, RowKey,
    gateway::{GatewayModel, GatewayVerdict, NatLimits},
    packet::word_sum,
    testing::{
        gateway::{BOTH, DEVICE_MAC, OUTSIDE, TUNNEL_IP, UNDERLAY},
        wire::{Ip, arp},
    },
};
use alcor_dataplane_abi::{
    connection::{FRAGMENT, SECOND, UDP_ANSWERED, UDP_OPENING},
    csum_fold,
    gateway_layout::VXLAN_PORT,
};
use alcor_model::{
    Id, MacAddr, Network, Router, Vni,
    net::{GATEWAY_MAC, ON_DEMAND_MAC},
};
use etherparse::{SlicedPacket, TransportSlice};
use uuid::Uuid;

const VNI: u32 = 4711;
const TENANT: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const HOST: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const OTHER_HOST: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const HIDING: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
const FLOATING: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 20);
const FAR: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
const ROUTER_ON_THE_WAY: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 99);
const NEXT_HOP: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
const TCP: u8 = 6;
const UDP: u8 = 17;
/// Where the inner packet starts in an outer one.
const INNER: usize = 20 + 8 + 8 + 14;

fn network() -> Id<Network> {
    Id::from_uuid(Uuid::from_u128(1))
}

fn router() -> Id<Router> {
    Id::from_uuid(Uuid::from_u128(2))
}

fn mac(ip: Ipv4Addr) -> MacAddr {
    let [a, b, c, d] = ip.octets();
    MacAddr([0xfa, 0x16, a, b, c, d])
}

fn neighbour(ip: Ipv4Addr, host: Ipv4Addr) -> Row {
    Row::Neighbour(NeighbourRow {
        network_id: network(),
        ip: ip.into(),
        mac: mac(ip),
        host: host.into(),
        label: 7,
        forward: false,
    })
}

fn router_row(gateways: &[Ipv4Addr]) -> Row {
    Row::Router(RouterRow {
        id: router(),
        network_id: network(),
        admin_state_up: true,
        interfaces: vec![InterfaceRow {
            network_id: network(),
            cidr: "10.0.0.0/24".parse().unwrap(),
            address: [10, 0, 0, 254].into(),
        }],
        routes: Vec::new(),
        external: Some(ExternalRow {
            network_id: Id::from_uuid(Uuid::from_u128(3)),
            address: Some(HIDING),
            enable_snat: true,
            gateways: gateways.iter().map(|ip| (*ip).into()).collect(),
        }),
    })
}

/// The server's floating IP, translated by a host or by gateways.
fn floating_row(host: Option<Ipv4Addr>) -> Row {
    Row::FloatingIp(FloatingIpRow {
        id: Id::from_uuid(Uuid::from_u128(4)),
        network_id: network(),
        router_id: router(),
        floating_ip: FLOATING,
        fixed_ip: SERVER,
        external_network_id: Id::from_uuid(Uuid::from_u128(3)),
        host: host.map(Into::into),
        cidr: Some("203.0.113.0/24".parse().unwrap()),
        nexthop: Some([203, 0, 113, 254].into()),
    })
}

fn put(gateway: &mut GatewayModel, rows: impl IntoIterator<Item = Row>) {
    let changes: Vec<RowChange> = rows.into_iter().map(RowChange::Put).collect();
    for outcome in gateway.apply(&changes) {
        outcome.unwrap();
    }
}

/// Two tenants on two hosts, a router with a way out, a floating IP for the server.
fn gateway() -> GatewayModel {
    let mut gateway = GatewayModel::new(TUNNEL_IP, true);
    let network = Row::Network(NetworkRow {
        id: network(),
        vni: Vni::try_from(VNI).unwrap(),
        mtu: 1400,
        admin_state_up: true,
        underlay: Some(vec!["192.0.2.0/24".parse().unwrap()]),
        on_demand: true,
        gateways: vec![TUNNEL_IP.into()],
    });
    let rows = [
        network,
        neighbour(TENANT, HOST),
        neighbour(SERVER, OTHER_HOST),
        router_row(&[TUNNEL_IP]),
        floating_row(None),
    ];
    put(&mut gateway, rows);
    gateway
}

/// A frame from a host, with the VXLAN flags and the label given.
fn tunnelled(host: Ipv4Addr, vni: u32, header: [u8; 4], inner: &[u8]) -> Vec<u8> {
    let [_, a, b, c] = vni.to_be_bytes();
    let payload = [&header[..], &[a, b, c, 0], inner].concat();
    let outer = Ip::new(host.into(), TUNNEL_IP.into(), 9);
    let datagram = outer.udp((50_000, VXLAN_PORT), &payload);
    outer.frame(NEXT_HOP, DEVICE_MAC, UDP, &datagram)
}

fn from_tenant(tenant: Ipv4Addr, ip: &Ip, protocol: u8, upper: &[u8]) -> Vec<u8> {
    let host = if tenant == TENANT { HOST } else { OTHER_HOST };
    let inner = ip.frame(mac(tenant), GATEWAY_MAC, protocol, upper);
    tunnelled(host, VNI, [0x08, 0, 0, 0], &inner)
}

fn udp_from(tenant: Ipv4Addr, destination: Ipv4Addr, ports: (u16, u16)) -> Vec<u8> {
    let ip = Ip::new(tenant.into(), destination.into(), 63);
    from_tenant(tenant, &ip, UDP, &ip.udp(ports, b"question"))
}

fn udp_to(source: Ipv4Addr, destination: Ipv4Addr, ports: (u16, u16)) -> Vec<u8> {
    let ip = Ip::new(source.into(), destination.into(), 50);
    ip.frame(NEXT_HOP, DEVICE_MAC, UDP, &ip.udp(ports, b"answer"))
}

fn outside(verdict: GatewayVerdict) -> Vec<u8> {
    match verdict {
        GatewayVerdict::Outside(packet) => packet.to_vec(),
        other => panic!("not to the outside: {other:?}"),
    }
}

/// The outer destination, and the inner packet.
fn underlay(verdict: GatewayVerdict) -> (Ipv4Addr, Vec<u8>) {
    match verdict {
        GatewayVerdict::Underlay(packet) => {
            let host: [u8; 4] = packet[16..20].try_into().unwrap();
            (host.into(), packet[INNER..].to_vec())
        }
        other => panic!("not to a host: {other:?}"),
    }
}

/// Addresses and ports of a packet all of whose checksums are right.
fn ends(packet: &[u8]) -> ((Ipv4Addr, u16), (Ipv4Addr, u16)) {
    let sliced = SlicedPacket::from_ip(packet).unwrap();
    let header = sliced
        .net
        .as_ref()
        .unwrap()
        .ipv4_ref()
        .unwrap()
        .header()
        .to_header();
    assert_eq!(header.header_checksum, header.calc_header_checksum());
    let (source, destination) = (header.source.into(), header.destination.into());
    let ports = match sliced.transport.unwrap() {
        TransportSlice::Udp(udp) => {
            let wanted = udp
                .to_header()
                .calc_checksum_ipv4(&header, udp.payload())
                .unwrap();
            assert_eq!(udp.checksum(), wanted);
            (udp.source_port(), udp.destination_port())
        }
        TransportSlice::Tcp(tcp) => {
            let wanted = tcp.calc_checksum_ipv4(header.source, header.destination).unwrap();
            assert_eq!(tcp.checksum(), wanted);
            (tcp.source_port(), tcp.destination_port())
        }
        TransportSlice::Icmpv4(icmp) => {
            assert_eq!(csum_fold(word_sum(icmp.slice())), 0);
            (0, 0)
        }
        other => panic!("{other:?}"),
    };
    ((source, ports.0), (destination, ports.1))
}

#[test]
fn a_packet_between_hosts_keeps_label_and_flags_and_gets_the_neighbours_mac() {
    let mut gateway = gateway();
    let ip = Ip::new(TENANT.into(), SERVER.into(), 64);
    let inner = ip.frame(mac(TENANT), ON_DEMAND_MAC, UDP, &ip.udp((1, 2), b"first"));
    let header = [0x88, 0x48, 0, 9];
    let sent = tunnelled(HOST, VNI, header, &inner);
    let GatewayVerdict::Underlay(packet) = gateway.process(&UNDERLAY, &sent) else {
        panic!("it is passed on");
    };
    let sliced = SlicedPacket::from_ip(&packet).unwrap();
    let outer = sliced
        .net
        .as_ref()
        .unwrap()
        .ipv4_ref()
        .unwrap()
        .header()
        .to_header();
    assert_eq!(
        (outer.source, outer.destination),
        (TUNNEL_IP.octets(), OTHER_HOST.octets())
    );
    assert_eq!(
        (outer.time_to_live, outer.header_checksum),
        (64, outer.calc_header_checksum())
    );
    assert_eq!(packet[20..22], 50_000u16.to_be_bytes(), "the source port is kept");
    assert_eq!(packet[26..28], [0, 0]);
    assert_eq!(packet[28..32], header);
    assert_eq!(packet[36..42], mac(SERVER).0);
    assert_eq!(packet[42..], inner[6..]);
}

#[test]
fn what_would_come_back_or_is_not_ours_is_dropped() {
    let mut gateway = gateway();
    let ip = Ip::new(SERVER.into(), TENANT.into(), 64);
    let inner = ip.frame(mac(SERVER), ON_DEMAND_MAC, UDP, &ip.udp((1, 2), b""));
    for (frame, reason) in [
        (tunnelled(HOST, VNI, [8, 0, 0, 0], &inner), DropReason::Loop),
        (
            tunnelled(OTHER_HOST, VNI + 1, [8, 0, 0, 0], &inner),
            DropReason::UnknownVni,
        ),
        (
            tunnelled([192, 0, 3, 1].into(), VNI, [8, 0, 0, 0], &inner),
            DropReason::UnknownUnderlay,
        ),
        (
            tunnelled(OTHER_HOST, VNI, [0, 0, 0, 0], &inner),
            DropReason::Malformed,
        ),
        (
            tunnelled(OTHER_HOST, VNI, [8, 0, 0, 0], &inner[..30]),
            DropReason::Malformed,
        ),
    ] {
        let before = gateway.drop_count(reason);
        assert_eq!(gateway.process(&UNDERLAY, &frame), GatewayVerdict::Drop(reason));
        assert_eq!(gateway.drop_count(reason), before + 1);
    }
}

#[test]
fn a_tenant_is_hidden_and_its_answer_finds_it() {
    let mut gateway = gateway();
    let packet = outside(gateway.process(&UNDERLAY, &udp_from(TENANT, FAR, (4000, 53))));
    assert_eq!(
        ends(&packet),
        ((HIDING, 4000), (FAR, 53)),
        "the port is free, so it stays"
    );
    let answer = gateway.process(&OUTSIDE, &udp_to(FAR, HIDING, (53, 4000)));
    let (host, packet) = underlay(answer);
    assert_eq!(host, HOST);
    assert_eq!(ends(&packet), ((FAR, 53), (TENANT, 4000)));
    assert_eq!(packet[8], 49, "one hop more");
    // Nobody else may answer, and nothing begins from outside.
    for (from, ports) in [
        (FAR, (54, 4000)),
        (FAR, (53, 4001)),
        (ROUTER_ON_THE_WAY, (53, 4000)),
    ] {
        let verdict = gateway.process(&OUTSIDE, &udp_to(from, HIDING, ports));
        assert_eq!(verdict, GatewayVerdict::Drop(DropReason::NoTranslation));
    }
}

#[test]
fn a_port_that_is_taken_is_not_given_twice_and_is_free_again_in_time() {
    let mut gateway = gateway();
    put(&mut gateway, [neighbour([10, 0, 0, 3].into(), HOST)]);
    let second = Ipv4Addr::new(10, 0, 0, 3);
    let first = outside(gateway.process(&UNDERLAY, &udp_from(TENANT, FAR, (4000, 53))));
    let other = outside(gateway.process(&UNDERLAY, &udp_from(second, FAR, (4000, 53))));
    assert_eq!(ends(&first).0, (HIDING, 4000));
    let (address, port) = ends(&other).0;
    assert!(address == HIDING && port != 4000 && port >= 1024);
    // To somebody else the same port is another one.
    let elsewhere = outside(gateway.process(&UNDERLAY, &udp_from(second, ROUTER_ON_THE_WAY, (4000, 53))));
    assert_eq!(ends(&elsewhere).0, (HIDING, 4000));
    assert_eq!(gateway.nat_connections()[&router()], 3);
    gateway.advance(Duration::from_nanos(UDP_OPENING + SECOND));
    let late = gateway.process(&OUTSIDE, &udp_to(FAR, HIDING, (53, 4000)));
    assert_eq!(late, GatewayVerdict::Drop(DropReason::NoTranslation));
    gateway.sweep();
    assert!(gateway.nat_connections().is_empty());
    let again = outside(gateway.process(&UNDERLAY, &udp_from(second, FAR, (4000, 53))));
    assert_eq!(ends(&again).0, (HIDING, 4000));
}

#[test]
fn a_connection_that_was_answered_lives_longer_and_goes_with_its_router() {
    let mut gateway = gateway();
    outside(gateway.process(&UNDERLAY, &udp_from(TENANT, FAR, (4000, 53))));
    underlay(gateway.process(&OUTSIDE, &udp_to(FAR, HIDING, (53, 4000))));
    gateway.advance(Duration::from_nanos(UDP_ANSWERED - SECOND));
    underlay(gateway.process(&OUTSIDE, &udp_to(FAR, HIDING, (53, 4000))));
    let keys = [
        RowKey::Router(network(), router()),
        RowKey::FloatingIp(network(), Id::from_uuid(Uuid::from_u128(4))),
    ];
    for outcome in gateway.apply(&keys.map(RowChange::Remove)) {
        outcome.unwrap();
    }
    assert!(gateway.nat_connections().is_empty());
    let verdict = gateway.process(&OUTSIDE, &udp_to(FAR, HIDING, (53, 4000)));
    assert_eq!(verdict, GatewayVerdict::Pass, "the address is not here any more");
}

#[test]
fn room_and_ports_of_a_router_are_bounded() {
    let mut gateway = gateway();
    gateway.set_nat_limits(NatLimits {
        connections: 100,
        connections_per_router: 3,
        last_port: 1024,
    });
    outside(gateway.process(&UNDERLAY, &udp_from(TENANT, FAR, (4000, 53))));
    let verdict = gateway.process(&UNDERLAY, &udp_from(TENANT, FAR, (4001, 53)));
    assert_eq!(verdict, GatewayVerdict::Drop(DropReason::NatPortsExhausted));
    for port in [54, 55] {
        outside(gateway.process(&UNDERLAY, &udp_from(TENANT, FAR, (4000, port))));
    }
    let verdict = gateway.process(&UNDERLAY, &udp_from(TENANT, FAR, (4000, 56)));
    assert_eq!(verdict, GatewayVerdict::Drop(DropReason::NatConnectionLimit));
    // What is there goes on.
    outside(gateway.process(&UNDERLAY, &udp_from(TENANT, FAR, (4000, 55))));
}

#[test]
fn a_ping_is_translated_by_its_identifier_and_tcp_by_its_ports() {
    let mut gateway = gateway();
    let ip = Ip::new(TENANT.into(), FAR.into(), 63);
    let (protocol, echo) = ip.icmp(8, 0, &[0, 9, 0, 1, 1, 2]);
    let frame = from_tenant(TENANT, &ip, protocol, &echo);
    let packet = outside(gateway.process(&UNDERLAY, &frame));
    assert_eq!(ends(&packet), ((HIDING, 0), (FAR, 0)));
    let identifier: [u8; 2] = packet[24..26].try_into().unwrap();
    assert!(u16::from_be_bytes(identifier) >= 1024);
    let ip = Ip::new(FAR.into(), HIDING.into(), 50);
    let (protocol, reply) = ip.icmp(0, 0, &[&identifier[..], &[0, 1, 1, 2]].concat());
    let frame = ip.frame(NEXT_HOP, DEVICE_MAC, protocol, &reply);
    let (_, packet) = underlay(gateway.process(&OUTSIDE, &frame));
    assert_eq!(ends(&packet), ((FAR, 0), (TENANT, 0)));
    assert_eq!(packet[24..26], [0, 9], "its own identifier again");
    let ip = Ip::new(TENANT.into(), FAR.into(), 63);
    let frame = from_tenant(TENANT, &ip, TCP, &ip.tcp((4000, 80), b"syn"));
    let packet = outside(gateway.process(&UNDERLAY, &frame));
    assert_eq!(ends(&packet), ((HIDING, 4000), (FAR, 80)));
}

#[test]
fn a_floating_ip_is_one_to_one_in_both_directions() {
    let mut gateway = gateway();
    let (host, packet) = underlay(gateway.process(&OUTSIDE, &udp_to(FAR, FLOATING, (1, 2))));
    assert_eq!((host, ends(&packet)), (OTHER_HOST, ((FAR, 1), (SERVER, 2))));
    let packet = outside(gateway.process(&UNDERLAY, &udp_from(SERVER, FAR, (2, 1))));
    assert_eq!(ends(&packet), ((FLOATING, 2), (FAR, 1)));
    assert!(gateway.nat_connections().is_empty(), "it remembers nothing");
}

#[test]
fn a_tenant_reaches_a_floating_ip_of_the_same_gateway_and_is_hidden() {
    let mut gateway = gateway();
    let (host, packet) = underlay(gateway.process(&UNDERLAY, &udp_from(TENANT, FLOATING, (4000, 80))));
    assert_eq!(
        (host, ends(&packet)),
        (OTHER_HOST, ((HIDING, 4000), (SERVER, 80)))
    );
    let (host, packet) = underlay(gateway.process(&UNDERLAY, &udp_from(SERVER, HIDING, (80, 4000))));
    assert_eq!((host, ends(&packet)), (HOST, ((FLOATING, 80), (TENANT, 4000))));
}

#[test]
fn an_error_about_a_translated_packet_finds_its_sender_and_quotes_what_it_sent() {
    let mut gateway = gateway();
    for (tenant, own) in [(TENANT, HIDING), (SERVER, FLOATING)] {
        let sent = outside(gateway.process(&UNDERLAY, &udp_from(tenant, FAR, (4000, 53))));
        let ip = Ip::new(ROUTER_ON_THE_WAY.into(), own.into(), 50);
        let body = [&[0, 0, 5, 0][..], &sent[..28]].concat();
        let (protocol, error) = ip.icmp(3, 4, &body);
        let frame = ip.frame(NEXT_HOP, DEVICE_MAC, protocol, &error);
        let (_, packet) = underlay(gateway.process(&OUTSIDE, &frame));
        assert_eq!(ends(&packet), ((ROUTER_ON_THE_WAY, 0), (tenant, 0)));
        let quoted = &packet[28..];
        assert_eq!(quoted[12..16], tenant.octets());
        assert_eq!(quoted[20..22], 4000u16.to_be_bytes());
        assert_eq!(csum_fold(word_sum(&quoted[..20])), 0);
    }
    // One that quotes what nobody sent.
    let ip = Ip::new(ROUTER_ON_THE_WAY.into(), HIDING.into(), 50);
    let quoted = Ip::new(HIDING.into(), FAR.into(), 1);
    let (_, quoted) = quoted.packet(UDP, &quoted.udp((1234, 53), b""));
    let (protocol, error) = ip.icmp(3, 4, &[&[0; 4][..], &quoted].concat());
    let frame = ip.frame(NEXT_HOP, DEVICE_MAC, protocol, &error);
    let verdict = gateway.process(&OUTSIDE, &frame);
    assert_eq!(verdict, GatewayVerdict::Drop(DropReason::NoTranslation));
}

#[test]
fn what_is_too_long_for_the_network_is_told_so() {
    let mut gateway = gateway();
    let mut ip = Ip::new(FAR.into(), FLOATING.into(), 50);
    ip.fragment = 0x4000;
    let long = ip.frame(NEXT_HOP, DEVICE_MAC, UDP, &ip.udp((1, 2), &[0; 1400]));
    let GatewayVerdict::Reply(frame) = gateway.process(&OUTSIDE, &long) else {
        panic!("it is told");
    };
    assert_eq!((&frame[..6], frame.len()), (&NEXT_HOP.0[..], 70));
    assert_eq!(ends(&frame[14..]), ((FLOATING, 0), (FAR, 0)));
    assert_eq!(frame[34..36], [3, 4]);
    assert_eq!(frame[40..42], 1400u16.to_be_bytes(), "the network's MTU");
    ip.fragment = 0;
    let long = ip.frame(NEXT_HOP, DEVICE_MAC, UDP, &ip.udp((1, 2), &[0; 1400]));
    let verdict = gateway.process(&OUTSIDE, &long);
    assert_eq!(verdict, GatewayVerdict::Drop(DropReason::Oversize));
}

#[test]
fn a_tenant_is_told_what_the_way_out_takes() {
    let mut gateway = gateway();
    gateway.set_way_mtu(1300);
    for (tenant, host) in [(TENANT, HOST), (SERVER, OTHER_HOST)] {
        let mut ip = Ip::new(tenant.into(), FAR.into(), 63);
        let datagram = ip.udp((4000, 53), &[7; 1273]);
        ip.fragment = 0x4000;
        let frame = from_tenant(tenant, &ip, UDP, &datagram);
        let (told, packet) = underlay(gateway.process(&UNDERLAY, &frame));
        let router = Ipv4Addr::new(10, 0, 0, 254);
        assert_eq!((told, ends(&packet)), (host, ((router, 0), (tenant, 0))));
        assert_eq!((packet[8], &packet[20..22]), (64, &[3, 4][..]));
        assert_eq!(packet[26..28], 1300u16.to_be_bytes());
        // What it has sent itself, not what became of it.
        let (_, sent) = ip.packet(UDP, &datagram);
        assert_eq!(packet[28..], sent[..28]);
        // Without the mark nobody is told, and nobody fragments.
        ip.fragment = 0;
        let frame = from_tenant(tenant, &ip, UDP, &datagram);
        let verdict = gateway.process(&UNDERLAY, &frame);
        assert_eq!(verdict, GatewayVerdict::Drop(DropReason::Oversize));
        let fits = from_tenant(tenant, &ip, UDP, &ip.udp((4000, 53), &[7; 1272]));
        outside(gateway.process(&UNDERLAY, &fits));
    }
}

/// The two fragments of a packet.
fn fragments(ip: &Ip, upper: &[u8]) -> [(Ip, Vec<u8>); 2] {
    let part = |fragment, bytes: &[u8]| {
        (
            Ip {
                fragment,
                ..ip.clone()
            },
            bytes.to_vec(),
        )
    };
    [part(0x2000, &upper[..24]), part(0x0003, &upper[24..])]
}

#[test]
fn fragments_go_the_way_of_their_first_one_in_both_directions() {
    let mut gateway = gateway();
    let out = Ip::new(TENANT.into(), FAR.into(), 63);
    let question = fragments(&out, &out.udp((4000, 53), &[1; 40]))
        .map(|(ip, bytes)| from_tenant(TENANT, &ip, UDP, &bytes));
    let back = Ip::new(FAR.into(), HIDING.into(), 50);
    let answer = fragments(&back, &back.udp((53, 4000), &[2; 40]))
        .map(|(ip, bytes)| ip.frame(NEXT_HOP, DEVICE_MAC, UDP, &bytes));
    let unknown = GatewayVerdict::Drop(DropReason::UnknownFragment);
    let addresses = |packet: &[u8]| {
        let at = |at: usize| Ipv4Addr::from(<[u8; 4]>::try_from(&packet[at..at + 4]).unwrap());
        (at(12), at(16))
    };
    // A later one that comes first has no way.
    assert_eq!(gateway.process(&UNDERLAY, &question[1]), unknown);
    let whole: Vec<u8> = question
        .iter()
        .flat_map(|frame| {
            let packet = outside(gateway.process(&UNDERLAY, frame));
            assert_eq!(addresses(&packet), (HIDING, FAR));
            packet[20..].to_vec()
        })
        .collect();
    let wanted = Ip::new(HIDING.into(), FAR.into(), 63).udp((4000, 53), &[1; 40]);
    assert_eq!(whole, wanted, "also the checksum, which is over all of them");
    assert_eq!(gateway.process(&OUTSIDE, &answer[1]), unknown);
    let whole: Vec<u8> = answer
        .iter()
        .flat_map(|frame| {
            let (host, packet) = underlay(gateway.process(&OUTSIDE, frame));
            assert_eq!((host, addresses(&packet)), (HOST, (FAR, TENANT)));
            packet[20..].to_vec()
        })
        .collect();
    let wanted = Ip::new(FAR.into(), TENANT.into(), 50).udp((53, 4000), &[2; 40]);
    assert_eq!(whole, wanted);
    // They are waited for, not for ever.
    gateway.advance(Duration::from_nanos(FRAGMENT));
    assert_eq!(gateway.process(&UNDERLAY, &question[1]), unknown);
    assert_eq!(gateway.process(&OUTSIDE, &answer[1]), unknown);
}

#[test]
fn the_owner_answers_for_external_addresses_and_nobody_else() {
    let ask = |target| {
        arp(
            (NEXT_HOP, MacAddr::BROADCAST),
            1,
            (NEXT_HOP, FAR),
            (MacAddr([0; 6]), target),
        )
    };
    let ip = Ip::new(FAR.into(), HIDING.into(), 50);
    let (protocol, echo) = ip.icmp(8, 0, &[0, 1, 0, 1, 7]);
    let ping = ip.frame(NEXT_HOP, DEVICE_MAC, protocol, &echo);
    let mut gateway = gateway();
    for target in [HIDING, FLOATING] {
        let wanted = arp((DEVICE_MAC, NEXT_HOP), 2, (DEVICE_MAC, target), (NEXT_HOP, FAR));
        let verdict = gateway.process(&OUTSIDE, &ask(target));
        assert_eq!(verdict, GatewayVerdict::Reply(wanted.into()));
    }
    let GatewayVerdict::Reply(reply) = gateway.process(&OUTSIDE, &ping) else {
        panic!("the router's own address answers");
    };
    assert_eq!(ends(&reply[14..]), ((HIDING, 0), (FAR, 0)));
    assert_eq!(reply[34], 0);
    // Another member of the set has it.
    put(&mut gateway, [router_row(&[OTHER_HOST])]);
    for frame in [ask(HIDING), ask(FLOATING), ping] {
        assert_eq!(gateway.process(&OUTSIDE, &frame), GatewayVerdict::Pass);
    }
    for tenant in [TENANT, SERVER] {
        let verdict = gateway.process(&UNDERLAY, &udp_from(tenant, FAR, (1, 2)));
        assert_eq!(verdict, GatewayVerdict::Drop(DropReason::NotOwner));
    }
}

#[test]
fn a_floating_ip_of_a_host_is_the_hosts_to_answer_for() {
    let mut gateway = gateway();
    put(&mut gateway, [floating_row(Some(OTHER_HOST))]);
    let target = (MacAddr([0; 6]), FLOATING);
    let question = arp((NEXT_HOP, MacAddr::BROADCAST), 1, (NEXT_HOP, FAR), target);
    for frame in [question.clone(), udp_to(FAR, FLOATING, (1, 2))] {
        assert_eq!(gateway.process(&OUTSIDE, &frame), GatewayVerdict::Pass);
    }
    // What the host has sent before it knew is translated all the same, and what is for the address goes out.
    let packet = outside(gateway.process(&UNDERLAY, &udp_from(SERVER, FAR, (2, 1))));
    assert_eq!(ends(&packet), ((FLOATING, 2), (FAR, 1)));
    let packet = outside(gateway.process(&UNDERLAY, &udp_from(TENANT, FLOATING, (4000, 80))));
    assert_eq!(ends(&packet).1, (FLOATING, 80), "no hairpin");
    put(&mut gateway, [floating_row(None)]);
    let verdict = gateway.process(&OUTSIDE, &question);
    assert!(matches!(verdict, GatewayVerdict::Reply(_)), "{verdict:?}");
}

#[test]
fn the_outside_does_not_speak_for_the_gateway() {
    let mut gateway = gateway();
    let to_host = |source| {
        let ip = Ip::new(source, HOST.into(), 64);
        ip.frame(NEXT_HOP, DEVICE_MAC, UDP, &ip.udp((50_000, VXLAN_PORT), &[0; 60]))
    };
    let forged = to_host(TUNNEL_IP.into());
    let denied = GatewayVerdict::Drop(DropReason::OutsideDenied);
    assert_eq!(gateway.process(&OUTSIDE, &forged), denied);
    // Of others the routes are asked, by the kernel.
    let foreign = to_host(FAR.into());
    assert_eq!(gateway.process(&OUTSIDE, &foreign), GatewayVerdict::Pass);
    // Behind a tag of no VLAN the stack would find the same packet.
    let tagged = |number: u8| [&forged[..12], &[0x81, 0, 0x20, number], &forged[12..]].concat();
    let unseen = GatewayVerdict::Drop(DropReason::UnsupportedEtherType);
    assert_eq!(gateway.process(&OUTSIDE, &tagged(0)), unseen);
    assert_eq!(gateway.process(&OUTSIDE, &tagged(7)), GatewayVerdict::Pass);
    // Where the underlay is too, the network has to see to it.
    assert_eq!(gateway.process(&BOTH, &forged), GatewayVerdict::Pass);
}

#[test]
fn tenants_do_not_reach_hosts() {
    let mut gateway = gateway();
    for host in [HOST, TUNNEL_IP] {
        let verdict = gateway.process(&UNDERLAY, &udp_from(TENANT, host, (1, 4789)));
        assert_eq!(verdict, GatewayVerdict::Drop(DropReason::NoRoute));
    }
}

#[test]
fn a_gateway_takes_no_ports_and_no_hosts_over_ipv6() {
    let mut gateway = gateway();
    let Row::Neighbour(mut row) = neighbour(TENANT, HOST) else {
        unreachable!();
    };
    row.host = "2001:db8::1".parse().unwrap();
    let refused = gateway.apply(&[RowChange::Put(Row::Neighbour(row))]);
    assert!(matches!(refused[..], [Err(DataplaneError::Unsupported { .. })]));
    let verdict = gateway.attach(Id::from_uuid(Uuid::from_u128(1)), "tap0");
    assert!(matches!(verdict, Err(DataplaneError::Unsupported { .. })));
    assert!(!gateway.filters());
}
