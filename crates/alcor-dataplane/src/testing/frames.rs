//! Random frames of a state: mostly what stations send, some of it forged, some of it broken.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use alcor_model::{MacAddr, net::GATEWAY_MAC};

use super::{
    gateways,
    rng::Rng,
    routing,
    state::{State, address},
    wire::{self, Ip},
};
use crate::{
    Ingress, NetworkRow, PortRow,
    packet::{
        ETH_LEN, PROTO_DESTINATION_OPTIONS, PROTO_FRAGMENT, PROTO_HOP_BY_HOP, PROTO_ROUTING, PROTO_UDP, put,
    },
};

/// IPv4: "must not be fragmented".
const DONT_FRAGMENT: u16 = 0x4000;
const PROTO_TCP: u8 = 6;
const SOLICITED_NODE_MAC: MacAddr = MacAddr([0x33, 0x33, 0xff, 0, 0, 1]);
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const STRANGER: MacAddr = MacAddr([0x02, 0x42, 0xac, 0x11, 0, 2]);

/// Who sends, and whom it could know.
struct Sender<'a> {
    network: &'a NetworkRow,
    port: &'a PortRow,
    /// Addresses with the MAC that belongs to them.
    peers: Vec<(IpAddr, MacAddr)>,
}

/// One frame and where it comes in.
pub fn generate(rng: &mut Rng, state: &State) -> (Ingress, Vec<u8>) {
    let devices: Vec<_> = state.devices.keys().copied().collect();
    let all = state.all_ports();
    let attached: Vec<&PortRow> = all
        .iter()
        .copied()
        .filter(|row| state.devices.contains_key(&row.id))
        .collect();
    let chosen = if rng.chance(97) { rng.pick(&attached) } else { None };
    let Some(row) = chosen.or_else(|| rng.pick(&all)) else {
        let ingress = rng
            .pick(&devices)
            .map_or_else(|| tunnel(rng, state, None), Ingress::Port);
        let len = rng.below(80);
        return (ingress, rng.bytes(len));
    };
    let Some(sender) = sender(state, row) else {
        return (Ingress::Port(row.id), Vec::new());
    };
    let mut frame = frame(rng, &sender);
    if rng.chance(5) {
        let padding = rng.below(40);
        frame.extend(rng.bytes(padding));
    }
    if rng.chance(15) {
        mutate(rng, &mut frame);
    }
    if rng.chance(12) {
        if rng.chance(60) {
            put(&mut frame, 0, &row.mac.0);
        }
        return (tunnel(rng, state, Some(sender.network)), frame);
    }
    let stray = rng.pick(&devices).filter(|_| rng.chance(4));
    (Ingress::Port(stray.unwrap_or(row.id)), frame)
}

fn sender<'a>(state: &'a State, port: &'a PortRow) -> Option<Sender<'a>> {
    let network = state
        .networks()
        .into_iter()
        .find(|network| network.id == port.network_id)?;
    let mut peers = Vec::new();
    for row in state.ports(network.id) {
        peers.extend(row.fixed_ips.iter().map(|fixed| (fixed.ip_address, row.mac)));
        peers.push((row.mac.link_local().into(), row.mac));
    }
    for row in state.neighbours(network.id) {
        peers.push((row.ip, row.mac));
        peers.push((row.mac.link_local().into(), row.mac));
    }
    for row in state.subnets(network.id) {
        peers.extend(row.gateway_ip.map(|ip| (ip, GATEWAY_MAC)));
        peers.push((address(row.cidr, 33), STRANGER));
    }
    peers.push((GATEWAY_MAC.link_local().into(), GATEWAY_MAC));
    peers.extend(routing::peers(state, network.id));
    peers.extend(gateways::peers(state, network.id));
    Some(Sender { network, port, peers })
}

fn tunnel(rng: &mut Rng, state: &State, network: Option<&NetworkRow>) -> Ingress {
    let any = rng.pick(&state.networks());
    let vni = network
        .filter(|_| rng.chance(85))
        .or(any)
        .map_or(1, |row| row.vni.get());
    Ingress::Tunnel {
        source: Ipv4Addr::new(192, 0, 2, 1 + rng.below(4) as u8).into(),
        vni: if rng.chance(6) {
            rng.one([0, 77, 0x00ff_ffff])
        } else {
            vni
        },
        label: rng.one([0, 0, 1, 65_535]),
        forwarded: false,
    }
}

fn frame(rng: &mut Rng, sender: &Sender<'_>) -> Vec<u8> {
    match rng.below(100) {
        0..12 => arp(rng, sender),
        12..24 => solicitation(rng, sender),
        24..30 => other_nd(rng, sender),
        30..38 => dhcp(rng, sender),
        38..40 => {
            let ethertype = rng.one([0x8100, 0x88a8, 0x88cc, 0x0842, 0x05dc, 0x86de]);
            let payload = rng.bytes(46);
            wire::ethernet(source_mac(rng, sender), GATEWAY_MAC, ethertype, &payload)
        }
        40..42 => {
            let len = rng.below(120);
            rng.bytes(len)
        }
        _ => data(rng, sender),
    }
}

fn source_mac(rng: &mut Rng, sender: &Sender<'_>) -> MacAddr {
    let pairs: Vec<MacAddr> = sender
        .port
        .allowed_address_pairs
        .iter()
        .map(|pair| pair.mac_address)
        .collect();
    match rng.below(100) {
        0..86 => sender.port.mac,
        86..93 => rng.pick(&pairs).unwrap_or(sender.port.mac),
        93..96 => STRANGER,
        96..98 => GATEWAY_MAC,
        _ => MacAddr([0x01, 0, 0x5e, 0, 0, 9]),
    }
}

fn source_ip(rng: &mut Rng, sender: &Sender<'_>, ipv4: bool) -> IpAddr {
    let port = sender.port;
    let own: Vec<IpAddr> = port
        .fixed_ips
        .iter()
        .map(|fixed| fixed.ip_address)
        .filter(|ip| ip.is_ipv4() == ipv4)
        .collect();
    let pairs: Vec<IpAddr> = port
        .allowed_address_pairs
        .iter()
        .map(|pair| pair.ip_address.addr())
        .filter(|ip| ip.is_ipv4() == ipv4)
        .collect();
    let unspecified: IpAddr = if ipv4 {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        Ipv6Addr::UNSPECIFIED.into()
    };
    let chosen = match rng.below(100) {
        0..78 => rng.pick(&own),
        78..86 => rng.pick(&pairs),
        86..91 => Some(unspecified),
        91..96 if !ipv4 => Some(port.mac.link_local().into()),
        _ => Some(peer(rng, sender, ipv4).0),
    };
    chosen.or(own.first().copied()).unwrap_or(unspecified)
}

/// Somebody to talk to, with the MAC that belongs to the address.
fn peer(rng: &mut Rng, sender: &Sender<'_>, ipv4: bool) -> (IpAddr, MacAddr) {
    let known: Vec<_> = sender
        .peers
        .iter()
        .copied()
        .filter(|(ip, _)| ip.is_ipv4() == ipv4)
        .collect();
    let strange: (IpAddr, MacAddr) = if ipv4 {
        let ip = rng.one([
            [198, 51, 100, 7],
            [255, 255, 255, 255],
            [224, 0, 0, 5],
            [10, 0, 0, 255],
            [0; 4],
        ]);
        (IpAddr::from(ip), MacAddr::BROADCAST)
    } else {
        let last = rng.below(3) as u16;
        let block = rng.one([0x2001, 0xfe80, 0xff02, 0xfd00]);
        (
            Ipv6Addr::new(block, 0, 0, 3, 0, 0, 0, last).into(),
            SOLICITED_NODE_MAC,
        )
    };
    if rng.chance(90) {
        rng.pick(&known).unwrap_or(strange)
    } else {
        strange
    }
}

fn as_v4(ip: IpAddr) -> Ipv4Addr {
    if let IpAddr::V4(ip) = ip {
        ip
    } else {
        Ipv4Addr::UNSPECIFIED
    }
}

fn arp(rng: &mut Rng, sender: &Sender<'_>) -> Vec<u8> {
    let source = source_mac(rng, sender);
    let sender_mac = if rng.chance(94) { source } else { STRANGER };
    let sender_ip = as_v4(source_ip(rng, sender, true));
    let (mut target, target_mac) = peer(rng, sender, true);
    if rng.chance(8) {
        target = sender_ip.into();
    }
    let destination = if rng.chance(85) {
        MacAddr::BROADCAST
    } else {
        target_mac
    };
    let operation = rng.one([1, 1, 1, 1, 1, 1, 1, 1, 2, 3]);
    wire::arp(
        (source, destination),
        operation,
        (sender_mac, sender_ip),
        (MacAddr::default(), as_v4(target)),
    )
}

fn solicitation(rng: &mut Rng, sender: &Sender<'_>) -> Vec<u8> {
    let source = source_mac(rng, sender);
    let (mut target, target_mac) = peer(rng, sender, false);
    let from = source_ip(rng, sender, false);
    if rng.chance(8) {
        target = from;
    }
    let mut ip = Ip::new(from, ALL_NODES.into(), 255);
    if rng.chance(4) {
        ip.ttl = 64;
    }
    if rng.chance(4) {
        ip.extensions = extensions(rng);
    }
    let mut body = vec![0; 4];
    if let IpAddr::V6(target) = target {
        body.extend(target.octets());
    }
    let claimed = if rng.chance(92) { source } else { STRANGER };
    match rng.below(10) {
        0..2 => {}
        2 => body.extend([14, 1, 1, 2, 3, 4, 5, 6]),
        3 => body.extend([1, 1, 0xfa]),
        _ => {
            body.extend([1, 1]);
            body.extend(claimed.0);
        }
    }
    let (protocol, message) = ip.icmp(135, 0, &body);
    let destination = if rng.chance(80) {
        SOLICITED_NODE_MAC
    } else {
        target_mac
    };
    ip.frame(source, destination, protocol, &message)
}

fn other_nd(rng: &mut Rng, sender: &Sender<'_>) -> Vec<u8> {
    let source = source_mac(rng, sender);
    let mut ip = Ip::new(source_ip(rng, sender, false), ALL_NODES.into(), 255);
    if rng.chance(10) {
        ip.extensions = extensions(rng);
    }
    let kind = rng.one([133, 133, 133, 134, 136, 137, 132, 143]);
    let len = rng.one([4, 4, 12, 20, 28, 0, 3]);
    let body = rng.bytes(len);
    let (protocol, message) = ip.icmp(kind, 0, &body);
    let destination = rng.one([MacAddr([0x33, 0x33, 0, 0, 0, 2]), GATEWAY_MAC, STRANGER]);
    ip.frame(source, destination, protocol, &message)
}

fn dhcp(rng: &mut Rng, sender: &Sender<'_>) -> Vec<u8> {
    let source = source_mac(rng, sender);
    let ipv4 = rng.chance(80);
    let ports = match (ipv4, rng.chance(75)) {
        (true, true) => (68, 67),
        (true, false) => (67, 68),
        (false, true) => (546, 547),
        (false, false) => (547, 546),
    };
    let (destination, mac) = if ipv4 && rng.chance(60) {
        (Ipv4Addr::BROADCAST.into(), MacAddr::BROADCAST)
    } else {
        peer(rng, sender, ipv4)
    };
    let unspecified = ipv4 && rng.chance(60);
    let from = if unspecified {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        source_ip(rng, sender, ipv4)
    };
    let mut ip = Ip::new(from, destination, 64);
    decorate(rng, &mut ip);
    let payload = rng.bytes(40);
    let datagram = ip.udp(ports, &payload);
    ip.frame(source, mac, PROTO_UDP, &datagram)
}

/// UDP, TCP and pings.
fn data(rng: &mut Rng, sender: &Sender<'_>) -> Vec<u8> {
    let source = source_mac(rng, sender);
    let ipv4 = rng.chance(55);
    let (destination, mac) = peer(rng, sender, ipv4);
    let mac = match rng.below(100) {
        0..50 => mac,
        50..88 => GATEWAY_MAC,
        88..92 => rng.pick(&sender.peers).map_or(STRANGER, |peer| peer.1),
        92..96 => STRANGER,
        96..98 => sender.port.mac,
        _ => rng.one([MacAddr::BROADCAST, SOLICITED_NODE_MAC]),
    };
    let mut ip = Ip::new(
        source_ip(rng, sender, ipv4),
        destination,
        rng.one([64, 64, 64, 64, 64, 255, 2, 1, 0]),
    );
    decorate(rng, &mut ip);
    let mtu = usize::from(sender.network.mtu);
    let len = match rng.below(100) {
        0..88 => rng.below(100),
        // Around the largest packet that fits; headers take 28 to 60 bytes and more.
        88..96 => (mtu + rng.below(70)).saturating_sub(64),
        _ => mtu,
    };
    if len + 64 >= mtu && rng.chance(50) {
        ip.fragment |= DONT_FRAGMENT;
    }
    let payload = rng.bytes(len);
    let (protocol, upper) = match rng.below(10) {
        0..3 => (
            PROTO_UDP,
            ip.udp((5000, rng.one([53, 67, 68, 546, 4789])), &payload),
        ),
        3..5 => (PROTO_TCP, ip.tcp((5000, 80), &payload)),
        5 => (rng.one([47, 50, 51, 59, 89, 132]), payload),
        6 => ip.icmp(rng.one([0, 3, 11, 13, 129, 1, 2]), 0, &payload),
        _ => {
            let kind = if ipv4 { 8 } else { 128 };
            ip.icmp(kind, 0, &[&[0x12, 0x34, 0, 1], &payload[..]].concat())
        }
    };
    ip.frame(source, mac, protocol, &upper)
}

/// Fragments, IPv4 options, IPv6 extension headers.
fn decorate(rng: &mut Rng, ip: &mut Ip) {
    if rng.chance(8) {
        ip.fragment = rng.one([0x4000, 0x2000, 0x2001, 0x0001, 0x00b9, 0x8000]);
    }
    if rng.chance(6) {
        ip.options = vec![1; rng.one([4, 8, 40])];
    }
    if rng.chance(12) {
        ip.extensions = extensions(rng);
    }
}

fn extensions(rng: &mut Rng) -> Vec<(u8, Vec<u8>)> {
    let count = rng.one([1, 1, 1, 2, 3, 4, 5]);
    (0..count)
        .map(|_| {
            let number = rng.one([
                PROTO_HOP_BY_HOP,
                PROTO_ROUTING,
                PROTO_DESTINATION_OPTIONS,
                PROTO_DESTINATION_OPTIONS,
                PROTO_FRAGMENT,
            ]);
            let units = if number == PROTO_FRAGMENT {
                1
            } else {
                rng.one([1, 1, 2])
            };
            let mut body = vec![0; units * 8];
            put(&mut body, 1, &[(units - 1) as u8]);
            if number == PROTO_FRAGMENT {
                // First of many, whole (atomic), or a later one.
                let field: u16 = rng.one([1, 1, 0, 0x0008, 0x05a9]);
                put(&mut body, 2, &field.to_be_bytes());
            }
            (number, body)
        })
        .collect()
}

fn mutate(rng: &mut Rng, frame: &mut Vec<u8>) {
    match rng.below(4) {
        0 => frame.truncate(rng.below(frame.len() + 1)),
        // Most of what the path reads lies in the first 60 bytes.
        1 => {
            let at = rng.below(frame.len().min(60));
            let value = rng.next() as u8;
            put(frame, at, &[value]);
        }
        2 => {
            let at = (ETH_LEN + rng.below(8)).min(frame.len());
            let noise = rng.bytes(2);
            put(frame, at, &noise);
        }
        _ => {
            for _ in 0..1 + rng.below(3) {
                let at = rng.below(frame.len());
                if let Some(byte) = frame.get_mut(at) {
                    *byte ^= 1 << rng.below(8);
                }
            }
        }
    }
}
