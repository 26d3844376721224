//! Routers with a way out, floating IPs, and what tenants and the outside send each other.

use std::{net::Ipv4Addr, time::Duration};

use alcor_dataplane_abi::flow::{PROTO_ICMP, PROTO_SCTP, PROTO_TCP, PROTO_UDP, PROTO_UDPLITE, has_ports};
use alcor_model::{FloatingIp, Id, MacAddr, Router, Vni, net::GATEWAY_MAC};
use ipnet::{IpNet, Ipv4Net};
use uuid::Uuid;

use super::{
    BOTH, DEVICE_MAC, GatewayScenario, NETWORKS, NEXT_HOP, OUTSIDE, Step, TUNNEL_IP, UNDERLAY, host,
    in_tunnel, network_id, spoil, tenant_mac, vni,
};
use crate::{
    ExternalRow, FloatingIpRow, InterfaceRow, NeighbourRow, NetworkRow, RouterRow, Row, RowChange, RowKey,
    gateway::{GatewayVerdict, Side},
    packet::{ETH_LEN, array, put, replace_word, u8_at, u16_at},
    testing::{
        rng::Rng,
        wire::{Ip, arp},
    },
};

const ROUTERS: usize = 3;
const FLOATING_IPS: usize = 4;
/// Neither has ports nor asks.
const PROTO_GRE: u8 = 47;
/// More is to come.
const FIRST_FRAGMENT: u16 = 0x2000;
/// Where VXLAN's inner packet starts in an outer packet.
const INNER: usize = 20 + 8 + 8 + ETH_LEN;

/// An address outside that rows may name.
fn external(rng: &mut Rng) -> Ipv4Addr {
    Ipv4Addr::new(203, 0, 113, rng.below(6) as u8 + 1)
}

/// Somebody outside.
fn remote(rng: &mut Rng) -> Ipv4Addr {
    Ipv4Addr::new(198, 51, 100, rng.below(3) as u8 + 1)
}

fn tenant(rng: &mut Rng, network: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, network as u8, 0, rng.below(5) as u8 + 1)
}

fn router_id(router: usize) -> Id<Router> {
    Id::from_uuid(Uuid::from_u128(router as u128 + 100))
}

fn floating_id(floating: usize) -> Id<FloatingIp> {
    Id::from_uuid(Uuid::from_u128(floating as u128 + 200))
}

fn network_row(rng: &mut Rng, network: usize) -> Option<Row> {
    let underlay = ["192.0.2.0/23"].iter().filter_map(|block| block.parse().ok());
    Some(Row::Network(NetworkRow {
        id: network_id(network),
        vni: Vni::try_from(vni(network)).ok()?,
        mtu: if rng.chance(60) { 1450 } else { 100 },
        admin_state_up: rng.chance(95),
        underlay: rng.chance(80).then(|| underlay.collect()),
        on_demand: true,
        gateways: vec![TUNNEL_IP.into()],
    }))
}

fn up(row: Row) -> Row {
    match row {
        Row::Network(network) => Row::Network(NetworkRow {
            admin_state_up: true,
            ..network
        }),
        other => other,
    }
}

fn router_row(rng: &mut Rng) -> Option<Row> {
    let (router, network) = (rng.below(ROUTERS), rng.below(NETWORKS));
    let blocks = ["0/24", "0/29", "4/30"];
    let mut interfaces = Vec::new();
    for to in [network, rng.below(NETWORKS)] {
        let block = rng.one(blocks);
        interfaces.push(InterfaceRow {
            network_id: network_id(to),
            cidr: format!("10.{to}.0.{block}").parse().ok()?,
            address: [10, to as u8, 0, 254].into(),
        });
    }
    let others = [Ipv4Addr::new(192, 0, 2, 199), TUNNEL_IP];
    let gateways = match rng.below(10) {
        0 => Vec::new(),
        1..=3 => others.map(Into::into).to_vec(),
        _ => vec![TUNNEL_IP.into()],
    };
    let external = rng.chance(90).then(|| ExternalRow {
        network_id: network_id(99),
        address: rng.chance(90).then(|| external(rng)),
        enable_snat: rng.chance(85),
        gateways,
    });
    Some(Row::Router(RouterRow {
        id: router_id(router),
        network_id: network_id(network),
        admin_state_up: rng.chance(90),
        interfaces,
        routes: Vec::new(),
        external,
    }))
}

fn floating_row(rng: &mut Rng) -> Row {
    let network = rng.below(NETWORKS);
    Row::FloatingIp(FloatingIpRow {
        id: floating_id(rng.below(FLOATING_IPS)),
        network_id: network_id(network),
        router_id: router_id(rng.below(ROUTERS)),
        floating_ip: external(rng),
        fixed_ip: tenant(rng, network),
        external_network_id: network_id(99),
        host: rng.chance(15).then(|| host(rng).into()),
        cidr: None,
        nexthop: None,
    })
}

fn neighbour_row(network: usize, ip: Ipv4Addr, host: Ipv4Addr) -> Row {
    Row::Neighbour(NeighbourRow {
        network_id: network_id(network),
        ip: ip.into(),
        mac: tenant_mac(ip.into()),
        host: host.into(),
        label: 0,
        forward: false,
    })
}

fn change(rng: &mut Rng) -> Option<RowChange> {
    let network = rng.below(NETWORKS);
    let router = router_id(rng.below(ROUTERS));
    Some(match rng.below(12) {
        0 => RowChange::Remove(RowKey::Network(network_id(network))),
        1 => RowChange::Remove(RowKey::Router(network_id(network), router)),
        2 => {
            let floating = floating_id(rng.below(FLOATING_IPS));
            RowChange::Remove(RowKey::FloatingIp(network_id(network), floating))
        }
        3 | 4 => RowChange::Put(network_row(rng, network)?),
        5 | 6 => RowChange::Put(floating_row(rng)),
        7 | 8 => {
            let ip = tenant(rng, network);
            let host = host(rng);
            RowChange::Put(neighbour_row(network, ip, host))
        }
        _ => RowChange::Put(router_row(rng)?),
    })
}

/// An upper layer between two addresses.
fn upper(rng: &mut Rng, ip: &Ip) -> (u8, Vec<u8>) {
    let ports = (
        rng.one([80, 2000, 2001, 50_000]),
        rng.one([80, 443, 2000, 50_000]),
    );
    let len = if rng.chance(15) { 150 } else { rng.below(30) };
    let payload = rng.bytes(len);
    match rng.below(10) {
        0..=2 => {
            let mut segment = ip.tcp(ports, &payload);
            let flags = rng.one([0x02, 0x02, 0x10, 0x12, 0x11, 0x04, 0x18]);
            replace_word(&mut segment, 12, 16, 0x5000 | flags);
            (PROTO_TCP, segment)
        }
        3..=5 => {
            let mut datagram = ip.udp(ports, &payload);
            if rng.chance(20) {
                put(&mut datagram, 6, &[0, 0]);
            }
            (PROTO_UDP, datagram)
        }
        6 | 7 => {
            let kind = rng.one([8, 8, 8, 0, 13, 14, 5, 3]);
            let id = rng.one([1u16, 2, 5000]).to_be_bytes();
            ip.icmp(kind, 0, &[&id[..], &[0, 1], &payload].concat())
        }
        8 => (PROTO_UDPLITE, ip.udp(ports, &payload)),
        _ => (rng.one([PROTO_SCTP, PROTO_GRE]), rng.bytes(20)),
    }
}

pub(in crate::testing) fn packet(
    rng: &mut Rng,
    source: Ipv4Addr,
    destination: Ipv4Addr,
) -> (u8, Ip, Vec<u8>) {
    let ttl = rng.one([1, 2, 63, 64, 255]);
    let mut ip = Ip::new(source.into(), destination.into(), ttl);
    if rng.chance(30) {
        ip.fragment = 0x4000;
    }
    if rng.chance(10) {
        ip.fragment = rng.one([FIRST_FRAGMENT, FIRST_FRAGMENT, 0x2010, 0x0010]);
    }
    if rng.chance(3) {
        ip.options = vec![1; 4];
    }
    let (protocol, upper) = upper(rng, &ip);
    if upper.len() > 80 && rng.chance(60) {
        ip.fragment |= 0x4000;
    }
    (protocol, ip, upper)
}

/// Later fragments of the packet in a frame, if that is a first one.
fn later(rng: &mut Rng, frame: &[u8]) -> Vec<Vec<u8>> {
    let is_tunnel = array::<4>(frame, ETH_LEN + 16) == Some(TUNNEL_IP.octets());
    let at = ETH_LEN + if is_tunnel { INNER } else { 0 };
    if u16_at(frame, at + 6) != Some(FIRST_FRAGMENT) {
        return Vec::new();
    }
    let fragments = [0x2010u16, 0x0020].into_iter().take(rng.below(3));
    let of = |fragment| {
        let mut later = frame.to_vec();
        replace_word(&mut later, at + 6, at + 10, fragment);
        later
    };
    fragments.map(of).collect()
}

/// From a tenant, in the tunnel.
fn from_tenant(rng: &mut Rng) -> Vec<u8> {
    let network = rng.below(NETWORKS);
    let source = tenant(rng, network);
    let destination = match rng.below(12) {
        0 => TUNNEL_IP,
        1 => host(rng),
        2..=4 => external(rng),
        _ => remote(rng),
    };
    let (protocol, ip, upper) = packet(rng, source, destination);
    let inner = ip.frame(tenant_mac(source.into()), GATEWAY_MAC, protocol, &upper);
    let host = Ipv4Addr::new(192, 0, 2, 1 + network as u8);
    in_tunnel(host, vni(network), &inner)
}

/// From the outside, to somebody who is not the gateway's: with the gateway's own word for it, or behind a VLAN tag.
fn past(rng: &mut Rng) -> Vec<u8> {
    let source = if rng.chance(50) { TUNNEL_IP } else { host(rng) };
    let destination = if rng.chance(80) { host(rng) } else { external(rng) };
    let (protocol, ip, upper) = packet(rng, source, destination);
    let mut frame = ip.frame(NEXT_HOP, DEVICE_MAC, protocol, &upper);
    if rng.chance(40) {
        let tag = [rng.one([0x81, 0x88]), 0, rng.one([0, 0x20]), rng.one([0, 0, 5])];
        let tag = if tag[0] == 0x88 {
            [0x88, 0xa8, tag[2], tag[3]]
        } else {
            tag
        };
        frame.splice(12..12, tag);
    }
    frame
}

/// From the outside.
fn from_outside(rng: &mut Rng) -> Vec<u8> {
    if rng.chance(15) {
        return past(rng);
    }
    let (source, destination) = (remote(rng), external(rng));
    if rng.chance(10) {
        let operation = if rng.chance(90) { 1 } else { 2 };
        return arp(
            (NEXT_HOP, MacAddr::BROADCAST),
            operation,
            (NEXT_HOP, source),
            (MacAddr([0; 6]), destination),
        );
    }
    let source = if rng.chance(95) {
        source
    } else {
        rng.one([[0, 0, 0, 0], [224, 0, 0, 1], [127, 0, 0, 1]]).into()
    };
    let (protocol, ip, upper) = packet(rng, source, destination);
    let mac = if rng.chance(97) {
        DEVICE_MAC
    } else {
        MacAddr::BROADCAST
    };
    ip.frame(NEXT_HOP, mac, protocol, &upper)
}

/// What comes back on a packet that the gateway sent, if anything: an answer, or an error that quotes it.
pub fn answer(seed: u64, verdict: &GatewayVerdict) -> Option<(Side, Vec<u8>)> {
    let rng = &mut Rng::new(seed);
    let (mut frame, is_outside) = match verdict {
        GatewayVerdict::Outside(packet) => {
            let (protocol, ip, upper) = back(rng, packet)?;
            (ip.frame(NEXT_HOP, DEVICE_MAC, protocol, &upper), true)
        }
        GatewayVerdict::Underlay(packet) => {
            let inner = packet.get(INNER..)?;
            let (protocol, ip, upper) = back(rng, inner)?;
            let mac = MacAddr(array::<6>(packet, INNER - ETH_LEN)?);
            let inner = ip.frame(mac, GATEWAY_MAC, protocol, &upper);
            let [_, a, b, c] = array::<4>(packet, 20 + 8 + 3)?;
            let host = array::<4>(packet, 16)?.into();
            (in_tunnel(host, u32::from_be_bytes([0, a, b, c]), &inner), false)
        }
        _ => return None,
    };
    if rng.chance(5) {
        spoil(rng, &mut frame);
    }
    let side = if is_outside { OUTSIDE } else { UNDERLAY };
    Some((if rng.chance(10) { BOTH } else { side }, frame))
}

pub(in crate::testing) fn back(rng: &mut Rng, packet: &[u8]) -> Option<(u8, Ip, Vec<u8>)> {
    let source = Ipv4Addr::from(array::<4>(packet, 12)?);
    let destination = Ipv4Addr::from(array::<4>(packet, 16)?);
    let protocol = u8_at(packet, 9)?;
    let total_len = usize::from(u16_at(packet, 2)?);
    let layer = packet.get(20..total_len)?;
    if rng.chance(25) {
        // Somebody on the way cannot carry it.
        let from = if rng.chance(50) { destination } else { remote(rng) };
        let ip = Ip::new(from.into(), source.into(), 60);
        let mut body = vec![0, 0, 5, 0];
        let quoted = rng.one([28, 28, 40, 20]);
        body.extend(packet.get(..quoted.min(total_len))?);
        let (protocol, error) = ip.icmp(rng.one([3, 11, 12]), rng.one([0, 4]), &body);
        return Some((protocol, ip, error));
    }
    let mut ip = Ip::new(destination.into(), source.into(), 60);
    if rng.chance(30) {
        ip.fragment = rng.one([FIRST_FRAGMENT, FIRST_FRAGMENT, 0x2010, 0x0010]);
    }
    let ports = (u16_at(layer, 2)?, u16_at(layer, 0)?);
    let upper = match protocol {
        PROTO_TCP => {
            let mut segment = ip.tcp(ports, b"back");
            let flags = rng.one([0x12, 0x10, 0x11, 0x04, 0x02]);
            replace_word(&mut segment, 12, 16, 0x5000 | flags);
            segment
        }
        PROTO_ICMP => {
            let kind = u8_at(layer, 0)?;
            ip.icmp(if kind == 8 { 0 } else { kind + 1 }, 0, layer.get(4..)?)
                .1
        }
        _ if has_ports(protocol) => ip.udp(ports, b"back"),
        _ => return None,
    };
    Some((protocol, ip, upper))
}

/// A network whose tenants hide behind a router.
fn hidden_network(number: u8) -> Vec<RowChange> {
    let network = usize::from(number);
    let external = ExternalRow {
        network_id: network_id(99),
        address: Some([203, 0, 113, number + 1].into()),
        enable_snat: true,
        gateways: vec![TUNNEL_IP.into()],
    };
    let interface = InterfaceRow {
        network_id: network_id(network),
        cidr: IpNet::from(Ipv4Net::new_assert([10, number, 0, 0].into(), 24)),
        address: [10, number, 0, 254].into(),
    };
    let router = RouterRow {
        id: router_id(network),
        network_id: network_id(network),
        admin_state_up: true,
        interfaces: vec![interface],
        routes: Vec::new(),
        external: Some(external),
    };
    let rows = network_row(&mut Rng::new(0), network).into_iter().map(up);
    rows.chain([Row::Router(router)]).map(RowChange::Put).collect()
}

impl GatewayScenario {
    /// A tenant of one router begins so many connections, then one of another router so many.
    pub fn crowd(first: u16, second: u16) -> Self {
        let mut steps = Vec::new();
        for (number, connections) in [(0u8, first), (1, second)] {
            let network = usize::from(number);
            steps.push(Step::Apply(hidden_network(number)));
            let source = Ipv4Addr::new(10, number, 0, 1);
            let ip = Ip::new(source.into(), [198, 51, 100, 1].into(), 63);
            for port in 0..connections {
                let datagram = ip.udp((2000 + port, 53), b"?");
                let inner = ip.frame(tenant_mac(source.into()), GATEWAY_MAC, PROTO_UDP, &datagram);
                let host = Ipv4Addr::new(192, 0, 2, 1);
                steps.push(Step::Frame(UNDERLAY, in_tunnel(host, vni(network), &inner)));
            }
        }
        Self { steps }
    }

    /// So many packets from outside whose time ends at the gateway, and after half a second as many again.
    pub fn expiring(packets: u64) -> Self {
        let mut steps = vec![Step::Apply(hidden_network(0))];
        let ip = Ip::new([198, 51, 100, 1].into(), [203, 0, 113, 1].into(), 1);
        let datagram = ip.udp((2000, 53), b"?");
        let frame = ip.frame(NEXT_HOP, DEVICE_MAC, PROTO_UDP, &datagram);
        for _ in 0..2 {
            steps.extend((0..packets).map(|_| Step::Frame(OUTSIDE, frame.clone())));
            steps.push(Step::Advance(Duration::from_millis(500)));
        }
        Self { steps }
    }

    /// Routers with a way out, floating IPs, tenants and the outside.
    pub fn north_south(seed: u64) -> Self {
        let rng = &mut Rng::new(seed ^ 0x5eed);
        let mut first: Vec<RowChange> = (0..NETWORKS)
            .filter_map(|network| network_row(rng, network).map(RowChange::Put))
            .collect();
        for network in 0..NETWORKS {
            for last in 1..5u8 {
                let ip = Ipv4Addr::new(10, network as u8, 0, last);
                let host = Ipv4Addr::new(192, 0, 2, 1 + last % 2);
                first.push(RowChange::Put(neighbour_row(network, ip, host)));
            }
        }
        first.extend((0..5).filter_map(|_| router_row(rng).map(RowChange::Put)));
        first.extend((0..2).map(|_| RowChange::Put(floating_row(rng))));
        let mut steps = vec![Step::Apply(first), Step::WayMtu(rng.one([100, u16::MAX]))];
        for _ in 0..120 {
            let mut frame = match rng.below(20) {
                0 => {
                    steps.push(Step::Apply((0..2).filter_map(|_| change(rng)).collect()));
                    continue;
                }
                1 => {
                    steps.push(Step::Advance(Duration::from_secs(rng.one([1, 20, 40, 200]))));
                    continue;
                }
                2 => {
                    steps.push(match rng.chance(50) {
                        true => Step::Sweep,
                        false => Step::WayMtu(rng.one([68, 100, 100, 120, 1500, u16::MAX])),
                    });
                    continue;
                }
                3..=9 => {
                    steps.push(Step::Answer(rng.next()));
                    continue;
                }
                10..=14 => from_outside(rng),
                _ => from_tenant(rng),
            };
            if rng.chance(8) {
                spoil(rng, &mut frame);
            }
            // Where it came from shows in where it goes.
            let is_tunnel = array::<4>(&frame, ETH_LEN + 16) == Some(TUNNEL_IP.octets());
            let side = if is_tunnel { UNDERLAY } else { OUTSIDE };
            let later = later(rng, &frame);
            steps.push(Step::Frame(if rng.chance(10) { BOTH } else { side }, frame));
            steps.extend(later.into_iter().map(|frame| Step::Frame(side, frame)));
        }
        Self { steps }
    }
}
