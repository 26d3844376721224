//! A small region slice for hand-written cases: network `red` with five subnets and a port for every
//! property, `blue` with the same addresses and MACs, `grey` that is down.
#![allow(dead_code, clippy::unwrap_used)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use alcor_dataplane::{Dataplane, Model, NeighbourRow, NetworkRow, PortRow, Row, RowChange, SubnetRow};
use alcor_model::{
    Id, MacAddr, Network, Port, Subnet, Vni,
    net::GATEWAY_MAC,
    resource::{AddressPair, FixedIp},
};
use etherparse::PacketBuilder;
use uuid::Uuid;

pub const RED: u128 = 1;
pub const BLUE: u128 = 2;
pub const GREY: u128 = 3;
pub const RED_VNI: u32 = 100;
pub const BLUE_VNI: u32 = 200;
pub const GREY_VNI: u32 = 300;
pub const MTU: usize = 1450;

/// Ordinary ports of red: 10.0.0.11 and 10.0.0.12, fd00:a::11 and fd00:a::12.
pub const ALICE: u128 = 11;
pub const BOB: u128 = 12;
/// In the other subnets of red: 10.0.1.13, fd00:b::13 (no DHCP), 10.0.2.13 (no gateway).
pub const CAROL: u128 = 13;
/// Administratively down, 10.0.0.14.
pub const DOWN: u128 = 14;
/// Without a device, 10.0.0.15.
pub const BARE: u128 = 15;
/// Without port security, 10.0.0.16, fd00:a::16.
pub const OPEN: u128 = 16;
/// With allowed address pairs, 10.0.0.17, fd00:a::17.
pub const PAIRS: u128 = 17;
/// In blue, with the addresses and MAC of Alice.
pub const MALLORY: u128 = 18;
/// In grey, with the addresses and MAC of Alice.
pub const GRACE: u128 = 19;
/// A device, but no row.
pub const GHOST: u128 = 20;

/// In red, in subnets without DHCP and advertisements only: 10.0.1.21, fd00:b::21.
pub const FRANK: u128 = 21;

pub const VIRTUAL_ROUTER_MAC: MacAddr = MacAddr([0, 0, 0x5e, 0, 1, 5]);
pub const BROADCAST: MacAddr = MacAddr::BROADCAST;
pub const GATEWAY: MacAddr = GATEWAY_MAC;
/// No row has it.
pub const STRANGER: MacAddr = MacAddr([2, 0, 0, 0, 0, 0x99]);
/// Remote stations of red: 10.0.0.50 and fd00:a::50, 10.0.1.51 and fd00:b::51.
pub const DAVE_MAC: MacAddr = MacAddr([0xfa, 0x16, 0x3e, 0, 0, 50]);
pub const EVE_MAC: MacAddr = MacAddr([0xfa, 0x16, 0x3e, 0, 0, 51]);
pub const DAVE_HOST: &str = "192.0.2.2";
pub const EVE_HOST: &str = "192.0.2.3";

pub fn id<T>(number: u128) -> Id<T> {
    Id::from_uuid(Uuid::from_u128(number))
}

pub fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub fn v4(text: &str) -> Ipv4Addr {
    text.parse().unwrap()
}

pub fn v6(text: &str) -> Ipv6Addr {
    text.parse().unwrap()
}

/// The MAC of a port. Mallory and Grace have Alice's.
pub fn mac(port: u128) -> MacAddr {
    let last = if matches!(port, MALLORY | GRACE) {
        ALICE
    } else {
        port
    };
    MacAddr([0xfa, 0x16, 0x3e, 0, 0, last as u8])
}

pub fn network(number: u128, vni: u32) -> NetworkRow {
    let vni = Vni::try_from(vni).unwrap();
    NetworkRow {
        id: id::<Network>(number),
        vni,
        mtu: MTU as u16,
        admin_state_up: number != GREY,
        underlay: None,
        on_demand: false,
        gateways: Vec::new(),
    }
}

pub fn subnet(number: u128, network: u128, cidr: &str, gateway: Option<&str>, dhcp: bool) -> SubnetRow {
    SubnetRow {
        id: id::<Subnet>(number),
        network_id: id(network),
        cidr: cidr.parse().unwrap(),
        gateway_ip: gateway.map(ip),
        gateway_mac: GATEWAY,
        enable_dhcp: dhcp,
        slaac: false,
        dns_nameservers: Vec::new(),
        host_routes: Vec::new(),
    }
}

pub fn port(number: u128, network: u128, addresses: &[(u128, &str)]) -> PortRow {
    let fixed = |&(subnet, address): &(u128, &str)| FixedIp {
        subnet_id: id(subnet),
        ip_address: ip(address),
    };
    PortRow {
        id: id::<Port>(number),
        network_id: id(network),
        mac: mac(number),
        fixed_ips: addresses.iter().map(fixed).collect(),
        allowed_address_pairs: Vec::new(),
        admin_state_up: number != DOWN,
        port_security_enabled: number != OPEN,
        dns_name: String::new(),
        label: None,
    }
}

pub fn neighbour(network: u128, address: &str, mac: MacAddr, host: &str, label: u16) -> NeighbourRow {
    NeighbourRow {
        network_id: id(network),
        ip: ip(address),
        mac,
        host: ip(host),
        label,
        forward: false,
    }
}

fn pairs() -> Vec<AddressPair> {
    let pair = |address: &str, mac_address| AddressPair {
        ip_address: address.parse().unwrap(),
        mac_address,
    };
    vec![
        pair("10.0.0.100/32", VIRTUAL_ROUTER_MAC),
        pair("172.16.0.0/16", mac(PAIRS)),
        pair("fd00:9::/64", mac(PAIRS)),
    ]
}

/// All rows, in the order of their keys.
pub fn rows() -> Vec<Row> {
    let with_pairs = PortRow {
        allowed_address_pairs: pairs(),
        ..port(PAIRS, RED, &[(1, "10.0.0.17"), (4, "fd00:a::17")])
    };
    let mut rows = vec![
        Row::Network(network(RED, RED_VNI)),
        Row::Network(network(BLUE, BLUE_VNI)),
        Row::Network(network(GREY, GREY_VNI)),
        Row::Subnet(subnet(1, RED, "10.0.0.0/24", Some("10.0.0.1"), true)),
        Row::Subnet(subnet(2, RED, "10.0.1.0/24", Some("10.0.1.1"), false)),
        Row::Subnet(subnet(3, RED, "10.0.2.0/24", None, true)),
        Row::Subnet(subnet(4, RED, "fd00:a::/64", Some("fd00:a::1"), true)),
        Row::Subnet(subnet(5, RED, "fd00:b::/64", Some("fd00:b::1"), false)),
        Row::Subnet(subnet(6, BLUE, "10.0.0.0/24", Some("10.0.0.1"), true)),
        Row::Subnet(subnet(7, GREY, "10.0.0.0/24", Some("10.0.0.1"), true)),
        Row::Port(port(ALICE, RED, &[(1, "10.0.0.11"), (4, "fd00:a::11")])),
        Row::Port(port(BOB, RED, &[(1, "10.0.0.12"), (4, "fd00:a::12")])),
        Row::Port(port(
            CAROL,
            RED,
            &[(2, "10.0.1.13"), (3, "10.0.2.13"), (5, "fd00:b::13")],
        )),
        Row::Port(port(FRANK, RED, &[(2, "10.0.1.21"), (5, "fd00:b::21")])),
        Row::Port(port(DOWN, RED, &[(1, "10.0.0.14")])),
        Row::Port(port(BARE, RED, &[(1, "10.0.0.15")])),
        Row::Port(port(OPEN, RED, &[(1, "10.0.0.16"), (4, "fd00:a::16")])),
        Row::Port(with_pairs),
        Row::Port(port(MALLORY, BLUE, &[(6, "10.0.0.11")])),
        Row::Port(port(GRACE, GREY, &[(7, "10.0.0.11")])),
        Row::Neighbour(neighbour(RED, "10.0.0.50", DAVE_MAC, DAVE_HOST, 0)),
        Row::Neighbour(neighbour(RED, "fd00:a::50", DAVE_MAC, DAVE_HOST, 0)),
        Row::Neighbour(neighbour(RED, "10.0.1.51", EVE_MAC, EVE_HOST, 7)),
        Row::Neighbour(neighbour(RED, "fd00:b::51", EVE_MAC, EVE_HOST, 7)),
    ];
    rows.sort_by_key(Row::key);
    rows
}

/// A model with all of it in force.
pub fn model() -> Model {
    let mut model = Model::default();
    let changes: Vec<RowChange> = rows().into_iter().map(RowChange::Put).collect();
    assert!(model.apply(&changes).iter().all(Result::is_ok));
    for port in (ALICE..=FRANK).filter(|port| *port != BARE) {
        model.attach(id(port), &format!("tap{port}")).unwrap();
    }
    model
}

/// Source and destination of one layer.
pub type Between<'a> = (MacAddr, MacAddr, &'a str, &'a str);

/// A UDP datagram of either family with TTL 64.
pub fn udp(between: Between<'_>, ports: (u16, u16), payload: &[u8]) -> Vec<u8> {
    udp_ttl(between, 64, ports, payload)
}

pub fn udp_ttl(between: Between<'_>, ttl: u8, ports: (u16, u16), payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    let ethernet = PacketBuilder::ethernet2(between.0.0, between.1.0);
    match (ip(between.2), ip(between.3)) {
        (IpAddr::V4(from), IpAddr::V4(to)) => ethernet
            .ipv4(from.octets(), to.octets(), ttl)
            .udp(ports.0, ports.1)
            .write(&mut frame, payload),
        _ => ethernet
            .ipv6(v6(between.2).octets(), v6(between.3).octets(), ttl)
            .udp(ports.0, ports.1)
            .write(&mut frame, payload),
    }
    .unwrap();
    frame
}

/// An echo request (or reply) of either family.
pub fn echo(between: Between<'_>, ttl: u8, request: bool) -> Vec<u8> {
    let payload = b"how are you";
    let mut frame = Vec::new();
    let ethernet = PacketBuilder::ethernet2(between.0.0, between.1.0);
    match (ip(between.2), ip(between.3)) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let ip = ethernet.ipv4(from.octets(), to.octets(), ttl);
            if request {
                ip.icmpv4_echo_request(0x1234, 1)
            } else {
                ip.icmpv4_echo_reply(0x1234, 1)
            }
            .write(&mut frame, payload)
        }
        _ => {
            let ip = ethernet.ipv6(v6(between.2).octets(), v6(between.3).octets(), ttl);
            if request {
                ip.icmpv6_echo_request(0x1234, 1)
            } else {
                ip.icmpv6_echo_reply(0x1234, 1)
            }
            .write(&mut frame, payload)
        }
    }
    .unwrap();
    frame
}

/// An ICMPv6 message with hop limit 255; `rest` is what follows the checksum.
pub fn icmp6(between: Between<'_>, kind: u8, rest: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    let first = rest[..4].try_into().unwrap();
    PacketBuilder::ethernet2(between.0.0, between.1.0)
        .ipv6(v6(between.2).octets(), v6(between.3).octets(), 255)
        .icmpv6_raw(kind, 0, first)
        .write(&mut frame, &rest[4..])
        .unwrap();
    frame
}

/// The frame with some bytes replaced. Checksums stay as they were.
pub fn edit(mut frame: Vec<u8>, at: usize, bytes: &[u8]) -> Vec<u8> {
    frame[at..at + bytes.len()].copy_from_slice(bytes);
    frame
}

/// The frame with an extension header (8 bytes or more; its first byte is set) before what followed.
pub fn extend(frame: &[u8], number: u8, body: &[u8]) -> Vec<u8> {
    let mut header = frame[..54].to_vec();
    let mut body = body.to_vec();
    body[0] = header[20];
    header[20] = number;
    let payload = [&body, &frame[54..]].concat();
    header[18..20].copy_from_slice(&(payload.len() as u16).to_be_bytes());
    [header, payload].concat()
}
