//! Goal states of a gateway and frames for it, from seeds.

pub(super) mod north_south;

use std::{
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use alcor_dataplane_abi::gateway_layout::{PROBE_PORT, VXLAN_PORT};
use alcor_model::{
    Id, MacAddr, Network, Vni,
    net::{GATEWAY_MAC, ON_DEMAND_MAC},
};
use ipnet::IpNet;
pub use north_south::answer;
use uuid::Uuid;

use super::{
    rng::Rng,
    wire::{Ip, arp, ethernet},
};
use crate::{
    NeighbourRow, NetworkRow, Row, RowChange, RowKey,
    gateway::Side,
    packet::{ETHERTYPE_IPV4, PROTO_ICMP, PROTO_UDP, put},
};

/// The tunnel address of the gateway in scenarios.
pub const TUNNEL_IP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 200);
/// MAC of the gateway's device.
pub const DEVICE_MAC: MacAddr = MacAddr([0x02, 0, 0, 0, 0, 0xaa]);
const NEXT_HOP: MacAddr = MacAddr([0x02, 0, 0, 0, 0, 0xbb]);
const NETWORKS: usize = 4;
const PROTO_TCP: u8 = 6;

/// The underlay's device.
pub const UNDERLAY: Side = Side {
    underlay: true,
    external: false,
    mac: DEVICE_MAC,
};
/// The outside's device.
pub const OUTSIDE: Side = Side {
    underlay: false,
    external: true,
    mac: DEVICE_MAC,
};
/// A device that leads to both.
pub const BOTH: Side = Side {
    underlay: true,
    external: true,
    mac: DEVICE_MAC,
};

/// What is done with a gateway.
#[derive(Clone, Debug)]
pub enum Step {
    /// Changes of rows.
    Apply(Vec<RowChange>),
    /// A frame comes.
    Frame(Side, Vec<u8>),
    /// What comes back, by this seed, on a packet that the gateway sent lately ([`answer`]).
    Answer(u64),
    /// Time passes.
    Advance(Duration),
    /// What expired is forgotten.
    Sweep,
    /// The way to the outside takes packets of so many bytes.
    WayMtu(u16),
}

/// A way to exercise a gateway, the same for the same seed.
#[derive(Clone, Debug)]
pub struct GatewayScenario {
    /// What is done, in this order.
    pub steps: Vec<Step>,
}

/// Who a network of scenarios is.
pub fn network_id(network: usize) -> Id<Network> {
    Id::from_uuid(Uuid::from_u128(network as u128 + 1))
}

/// A host's tunnel address: 3 and above are in another block.
fn host(rng: &mut Rng) -> Ipv4Addr {
    let host = rng.below(6) as u8;
    match host {
        5 if rng.chance(20) => TUNNEL_IP,
        0..=2 => Ipv4Addr::new(192, 0, 2, 1 + host),
        host => Ipv4Addr::new(192, 0, 3, 1 + host),
    }
}

/// A tenant's address; few, so that packets meet rows.
fn tenant(rng: &mut Rng, network: usize) -> IpAddr {
    let last = rng.below(6) as u8 + 1;
    match rng.below(4) {
        0 => [0xfd00, network as u16, 0, 0, 0, 0, 0, u16::from(last)].into(),
        _ => [10, network as u8, 0, last].into(),
    }
}

fn tenant_mac(ip: IpAddr) -> MacAddr {
    match ip {
        IpAddr::V4(ip) => {
            let [_, b, c, d] = ip.octets();
            MacAddr([0xfa, 0x16, 4, b, c, d])
        }
        IpAddr::V6(ip) => {
            let [.., b, c, d] = ip.octets();
            MacAddr([0xfa, 0x16, 6, b, c, d])
        }
    }
}

fn vni(network: usize) -> u32 {
    4000 + network as u32
}

fn network_row(rng: &mut Rng, network: usize) -> Option<NetworkRow> {
    let blocks: [&[&str]; 4] = [
        &["192.0.2.0/24"],
        &["192.0.2.0/24", "192.0.3.4/32"],
        &[],
        &["192.0.0.0/16", "2001:db8::/32"],
    ];
    let blocks = rng.one(blocks);
    let parsed = blocks.iter().filter_map(|block| block.parse::<IpNet>().ok());
    let underlay = rng.chance(70).then(|| parsed.collect());
    Some(NetworkRow {
        id: network_id(network),
        vni: Vni::try_from(vni(network)).ok()?,
        mtu: 1450,
        admin_state_up: rng.chance(90),
        underlay,
        on_demand: true,
        gateways: vec![TUNNEL_IP.into()],
    })
}

/// A change that makes it so; none for a network that cannot be.
fn put_network(rng: &mut Rng, network: usize) -> Option<RowChange> {
    network_row(rng, network).map(Row::Network).map(RowChange::Put)
}

fn neighbour_row(rng: &mut Rng, network: usize) -> NeighbourRow {
    let ip = tenant(rng, network);
    NeighbourRow {
        network_id: network_id(network),
        ip,
        mac: tenant_mac(ip),
        host: host(rng).into(),
        label: rng.below(3) as u16,
        forward: rng.chance(10),
    }
}

fn change(rng: &mut Rng) -> RowChange {
    let network = rng.below(NETWORKS);
    let gone = RowChange::Remove(RowKey::Network(network_id(network)));
    match rng.below(10) {
        0 => gone,
        1..=3 => put_network(rng, network).unwrap_or(gone),
        4 => RowChange::Remove(RowKey::Neighbour(network_id(network), tenant(rng, network))),
        _ => RowChange::Put(Row::Neighbour(neighbour_row(rng, network))),
    }
}

/// A packet of a tenant, as the Ethernet frame in the tunnel.
fn inner(rng: &mut Rng, network: usize) -> Vec<u8> {
    let source = tenant(rng, network);
    let mut destination = tenant(rng, network);
    while destination.is_ipv4() != source.is_ipv4() {
        destination = tenant(rng, network);
    }
    if rng.chance(5) {
        destination = match source {
            IpAddr::V4(_) => rng.one([[224, 0, 0, 1], [255, 255, 255, 255]]).into(),
            IpAddr::V6(_) => [0xff02, 0, 0, 0, 0, 0, 0, 1].into(),
        };
    }
    let mac = match rng.below(8) {
        0 => MacAddr::BROADCAST,
        1 => GATEWAY_MAC,
        2 => tenant_mac(destination),
        _ => ON_DEMAND_MAC,
    };
    let mut ip = Ip::new(source, destination, 63);
    if rng.chance(10) {
        ip.options = vec![1; 4];
    }
    if rng.chance(10) {
        ip.fragment = rng.one([0x2000, 0x2010, 0x0010]);
    }
    let ports = (1000 + rng.below(3) as u16, 80);
    let (protocol, upper) = match rng.below(4) {
        0 => (PROTO_TCP, ip.tcp(ports, b"tcp")),
        1 => ip.icmp(8, 0, &[0, 7, 0, 1, 9, 9]),
        2 if rng.chance(30) => {
            // A tunnel in the tunnel.
            let nested = vxlan_header(rng, vni(network));
            (PROTO_UDP, ip.udp((5000, VXLAN_PORT), &nested))
        }
        _ => (PROTO_UDP, ip.udp(ports, b"payload")),
    };
    if rng.chance(4) {
        let address = Ipv4Addr::new(10, 0, 0, 1);
        return arp(
            (tenant_mac(source), mac),
            1,
            (mac, address),
            (MacAddr([0; 6]), address),
        );
    }
    ip.frame(tenant_mac(source), mac, protocol, &upper)
}

fn vxlan_header(rng: &mut Rng, vni: u32) -> Vec<u8> {
    let [_, a, b, c] = vni.to_be_bytes();
    let flags = if rng.chance(95) {
        rng.one([0x08, 0x88, 0x88])
    } else {
        0
    };
    let label = rng.below(5) as u8;
    vec![flags, rng.one([0, 0x48]), 0, label, a, b, c, 0]
}

/// A frame that a host sends in the tunnel, with nothing wrong.
fn in_tunnel(host: Ipv4Addr, vni: u32, inner: &[u8]) -> Vec<u8> {
    let [_, a, b, c] = vni.to_be_bytes();
    let mut payload = vec![0x08, 0, 0, 0, a, b, c, 0];
    payload.extend(inner);
    let ip = Ip::new(host.into(), TUNNEL_IP.into(), 64);
    let datagram = ip.udp((50_000, VXLAN_PORT), &payload);
    ip.frame(NEXT_HOP, DEVICE_MAC, PROTO_UDP, &datagram)
}

/// A frame from a host.
fn from_host(rng: &mut Rng) -> Vec<u8> {
    let network = rng.below(NETWORKS + 1);
    let mut payload = vxlan_header(rng, vni(network));
    payload.extend(inner(rng, network));
    let mut ip = Ip::new(host(rng).into(), TUNNEL_IP.into(), rng.one([1, 17, 64]));
    if rng.chance(3) {
        ip.fragment = rng.one([0x2000, 0x0100]);
    }
    if rng.chance(3) {
        ip.options = vec![1; 4];
    }
    let destination = if rng.chance(95) {
        VXLAN_PORT
    } else {
        rng.one([80, 4790])
    };
    let mut datagram = ip.udp((49_152 + rng.below(99) as u16, destination), &payload);
    if rng.chance(60) {
        put(&mut datagram, 6, &[0, 0]);
    }
    ip.frame(NEXT_HOP, DEVICE_MAC, PROTO_UDP, &datagram)
}

fn probe(rng: &mut Rng) -> Vec<u8> {
    let source = host(rng);
    let ip = Ip::new(source.into(), TUNNEL_IP.into(), 255);
    let from = rng.one([50_000, 50_001, PROBE_PORT, VXLAN_PORT]);
    let datagram = ip.udp((from, PROBE_PORT), &[7; 16]);
    ip.frame(NEXT_HOP, DEVICE_MAC, PROTO_UDP, &datagram)
}

/// Anything else that comes by.
fn foreign(rng: &mut Rng) -> Vec<u8> {
    let other = Ipv4Addr::new(198, 51, 100, 7);
    match rng.below(3) {
        0 => arp(
            (NEXT_HOP, MacAddr::BROADCAST),
            1,
            (NEXT_HOP, other),
            (MacAddr([0; 6]), TUNNEL_IP),
        ),
        1 => ethernet(
            NEXT_HOP,
            DEVICE_MAC,
            rng.one([0x86dd, 0x8100, ETHERTYPE_IPV4]),
            &rng.bytes(40),
        ),
        _ => {
            let ip = Ip::new(other.into(), TUNNEL_IP.into(), 9);
            let (protocol, upper) = ip.icmp(8, 0, &[0, 1, 0, 1]);
            debug_assert_eq!(protocol, PROTO_ICMP);
            ip.frame(NEXT_HOP, DEVICE_MAC, protocol, &upper)
        }
    }
}

/// Breaks a frame a little.
pub fn spoil(rng: &mut Rng, frame: &mut Vec<u8>) {
    match rng.below(4) {
        0 => frame.truncate(14 + rng.below(frame.len().saturating_sub(14))),
        1 => {
            let at = rng.below(frame.len());
            let byte = rng.next() as u8;
            put(frame, at, &[byte]);
        }
        2 => {
            // Headers are the more interesting part.
            let at = rng.below(frame.len().min(90));
            let bit = 1u8 << rng.below(8);
            let old = frame.get(at).copied().unwrap_or_default();
            put(frame, at, &[old ^ bit]);
        }
        _ => frame.extend(std::iter::repeat_n(0, rng.below(20))),
    }
}

impl GatewayScenario {
    /// Networks, neighbours, and what hosts send.
    pub fn east_west(seed: u64) -> Self {
        let rng = &mut Rng::new(seed);
        let mut steps = Vec::new();
        let mut first: Vec<RowChange> = (0..NETWORKS)
            .filter_map(|network| put_network(rng, network))
            .collect();
        first.extend((0..30).map(|_| {
            let network = rng.below(NETWORKS);
            RowChange::Put(Row::Neighbour(neighbour_row(rng, network)))
        }));
        steps.push(Step::Apply(first));
        for _ in 0..60 {
            if rng.chance(15) {
                steps.push(Step::Apply((0..=rng.below(4)).map(|_| change(rng)).collect()));
            }
            let mut frame = match rng.below(10) {
                0 => probe(rng),
                1 => foreign(rng),
                _ => from_host(rng),
            };
            if rng.chance(25) {
                spoil(rng, &mut frame);
            }
            let side = rng.one([UNDERLAY, UNDERLAY, BOTH]);
            steps.push(Step::Frame(side, frame));
        }
        Self { steps }
    }
}
