//! Random goal states with floating IPs that the host itself translates, and packets to and from them.

use std::net::{IpAddr, Ipv4Addr};

use alcor_dataplane_abi::flow::PROTO_UDP;
use alcor_model::{Id, MacAddr, Network, Router, net::GATEWAY_MAC};
use ipnet::Ipv4Net;
use uuid::Uuid;

use super::{
    gateway::{
        north_south::{back, packet},
        spoil,
    },
    rng::Rng,
    state::{self, State},
    wire::{Ip, arp},
};
use crate::{FloatingIpRow, Ingress, PortRow, Row, RowChange, Uplinks, Verdict, packet::ETH_LEN};

/// The host's tunnel address.
const TUNNEL_IP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 77);
/// Devices that lead to external networks, and their MACs.
pub const EXTERNAL_DEVICES: [(&str, MacAddr); 2] = [
    ("ext-a", MacAddr([2, 0, 0, 0, 0xe0, 0x0a])),
    ("ext-b", MacAddr([2, 0, 0, 0, 0xe0, 0x0b])),
];
/// Their MTUs: some networks take more.
pub const EXTERNAL_MTUS: [u16; 2] = [600, 1500];
/// Who sends from outside.
const NEXT_HOP: MacAddr = MacAddr([2, 0, 0, 0, 0xe0, 0xff]);

/// The external network of a device; there is one more than devices.
const fn external(number: usize) -> Id<Network> {
    Id::from_uuid(Uuid::from_u128(0xe000 + number as u128))
}

/// The devices of the host.
pub(super) fn uplinks() -> Uplinks {
    let devices = EXTERNAL_DEVICES.iter().enumerate();
    Uplinks {
        tunnel_ip: Some(TUNNEL_IP.into()),
        devices: devices
            .map(|(number, (name, _))| (external(number), (*name).to_owned()))
            .collect(),
    }
}

/// Few, so that they meet.
fn address(rng: &mut Rng) -> Ipv4Addr {
    Ipv4Addr::new(203, 0, 113, 20 + rng.below(6) as u8)
}

fn row(rng: &mut Rng, network_id: Id<Network>, fixed_ip: Ipv4Addr, routers: &[Id<Router>]) -> FloatingIpRow {
    let router = rng.pick(routers).filter(|_| rng.chance(95));
    let host: Option<IpAddr> = match rng.below(12) {
        0 => None,
        1 => Some(Ipv4Addr::new(192, 0, 2, 78).into()),
        _ => Some(TUNNEL_IP.into()),
    };
    FloatingIpRow {
        id: state::id(rng),
        network_id,
        router_id: router.unwrap_or_else(|| state::id(rng)),
        floating_ip: address(rng),
        fixed_ip,
        external_network_id: external(rng.one([0, 0, 0, 0, 0, 1, 1, 2])),
        host,
        cidr: rng
            .chance(85)
            .then_some(Ipv4Net::new_assert(Ipv4Addr::new(203, 0, 113, 0), 24)),
        nexthop: rng.chance(85).then_some(Ipv4Addr::new(203, 0, 113, 254)),
    }
}

fn ipv4_of(port: &PortRow) -> Vec<Ipv4Addr> {
    let fixed = port.fixed_ips.iter();
    fixed
        .filter_map(|fixed| match fixed.ip_address {
            IpAddr::V4(ip) => Some(ip),
            IpAddr::V6(_) => None,
        })
        .collect()
}

fn routers_of(rows: &[Row], network: Id<Network>) -> Vec<Id<Router>> {
    let rows = rows.iter().filter_map(|row| match row {
        Row::Router(row) if row.network_id == network => Some(row.id),
        _ => None,
    });
    rows.collect()
}

/// Gives most addresses of ports a floating IP, and some addresses that no port has.
pub(super) fn add(rng: &mut Rng, state: &mut State) {
    let mut rows = Vec::new();
    for port in state.all_ports() {
        let routers = routers_of(&state.rows, port.network_id);
        for ip in ipv4_of(port) {
            let nobody = Ipv4Addr::from(u32::from(ip) ^ 0x40);
            for (ip, chance) in [(ip, 75), (ip, 10), (nobody, 10)] {
                if rng.chance(chance) {
                    rows.push(Row::FloatingIp(row(rng, port.network_id, ip, &routers)));
                }
            }
        }
    }
    for row in &mut state.rows {
        if let Row::Network(row) = row
            && rng.chance(20)
        {
            row.underlay = Some(vec![Ipv4Net::new_assert(Ipv4Addr::new(192, 0, 2, 0), 24).into()]);
        }
    }
    state.rows.extend(rows);
    state.rows.sort_by_key(Row::key);
}

/// A floating IP goes, or becomes another one.
pub(super) fn change(rng: &mut Rng, rows: &[Row]) -> Option<RowChange> {
    let about: Vec<&FloatingIpRow> = rows
        .iter()
        .filter_map(|row| match row {
            Row::FloatingIp(row) => Some(row),
            _ => None,
        })
        .collect();
    let old = rng.pick(&about)?;
    if rng.chance(25) {
        return Some(RowChange::Remove(Row::FloatingIp(*old).key()));
    }
    let other = rng.pick(&about)?;
    let fixed_ip = if rng.chance(80) {
        old.fixed_ip
    } else {
        other.fixed_ip
    };
    let routers = [old.router_id, other.router_id];
    let new = row(rng, old.network_id, fixed_ip, &routers);
    Some(RowChange::Put(Row::FloatingIp(FloatingIpRow {
        id: old.id,
        ..new
    })))
}

/// A packet's way out, or one from outside.
pub(super) fn frame(rng: &mut Rng, state: &State) -> Option<(Ingress, Vec<u8>)> {
    let (ingress, mut frame) = if rng.chance(55) {
        from_port(rng, state)?
    } else {
        from_outside(rng, state)
    };
    if rng.chance(8) {
        spoil(rng, &mut frame);
    }
    Some((ingress, frame))
}

fn remote(rng: &mut Rng) -> Ipv4Addr {
    Ipv4Addr::new(198, 51, 100, 1 + rng.below(3) as u8)
}

fn from_port(rng: &mut Rng, state: &State) -> Option<(Ingress, Vec<u8>)> {
    let all = state.all_ports().into_iter();
    let attached: Vec<_> = all.filter(|row| state.devices.contains_key(&row.id)).collect();
    let port = rng.pick(&attached)?;
    let source = rng.pick(&ipv4_of(port))?;
    let destination = match rng.below(10) {
        0..4 => target(rng, state).0,
        4 => Ipv4Addr::new(203, 0, 113, 99),
        5 => Ipv4Addr::new(192, 0, 2, 9),
        _ => remote(rng),
    };
    let (mut protocol, mut ip, mut upper) = packet(rng, source, destination);
    if rng.chance(25) {
        (protocol, upper) = long(rng, &mut ip);
    }
    Some((
        Ingress::Port(port.id),
        ip.frame(port.mac, GATEWAY_MAC, protocol, &upper),
    ))
}

/// More than some networks and devices take.
fn long(rng: &mut Rng, ip: &mut Ip) -> (u8, Vec<u8>) {
    let len = 550 + rng.below(950);
    let payload = rng.bytes(len);
    ip.fragment = rng.one([0x4000, 0x4000, 0x4000, 0x4000, 0, 0x6000, 0x4010]);
    (PROTO_UDP, ip.udp((53, 5000), &payload))
}

/// A floating IP of the host, mostly, and the device that it is met by.
fn target(rng: &mut Rng, state: &State) -> (Ipv4Addr, (&'static str, MacAddr)) {
    let mut rows = Vec::new();
    for row in &state.rows {
        let Row::FloatingIp(row) = row else { continue };
        for (number, device) in EXTERNAL_DEVICES.into_iter().enumerate() {
            if row.external_network_id == external(number) && row.host == Some(TUNNEL_IP.into()) {
                rows.push((row.floating_ip, device));
            }
        }
    }
    let known = rng.pick(&rows).filter(|_| rng.chance(90));
    known.unwrap_or_else(|| (address(rng), rng.one(EXTERNAL_DEVICES)))
}

fn from_outside(rng: &mut Rng, state: &State) -> (Ingress, Vec<u8>) {
    let (destination, (device, mac)) = target(rng, state);
    let ingress = Ingress::External {
        device: device.to_owned(),
        mac,
    };
    let source = remote(rng);
    let to = if rng.chance(94) {
        mac
    } else {
        rng.one([MacAddr::BROADCAST, NEXT_HOP])
    };
    if rng.chance(12) {
        let operation = if rng.chance(85) { 1 } else { 2 };
        let (sender, target) = ((NEXT_HOP, source), (MacAddr([0; 6]), destination));
        let mut question = arp((NEXT_HOP, MacAddr::BROADCAST), operation, sender, target);
        if rng.chance(30) {
            question.extend([0; 18]);
        }
        return (ingress, question);
    }
    let source = if rng.chance(96) {
        source
    } else {
        rng.one([[0, 0, 0, 0], [127, 0, 0, 1], [224, 0, 0, 1], [255; 4]])
            .into()
    };
    let (mut protocol, mut ip, mut upper) = packet(rng, source, destination);
    if rng.chance(25) {
        (protocol, upper) = long(rng, &mut ip);
    }
    (ingress, ip.frame(NEXT_HOP, to, protocol, &upper))
}

/// What comes back on a packet that went out, or came in from outside.
pub(super) fn answer(rng: &mut Rng, rows: &[Row], verdict: &Verdict) -> Option<(Ingress, Vec<u8>)> {
    match verdict {
        Verdict::External { device, packet, .. } => {
            let (device, mac) = EXTERNAL_DEVICES.into_iter().find(|(name, _)| name == device)?;
            let (protocol, ip, upper) = back(rng, packet)?;
            let ingress = Ingress::External {
                device: device.to_owned(),
                mac,
            };
            Some((ingress, ip.frame(NEXT_HOP, mac, protocol, &upper)))
        }
        Verdict::Deliver { port, frame } => {
            let mac = rows.iter().find_map(|row| match row {
                Row::Port(row) if row.id == *port => Some(row.mac),
                _ => None,
            });
            let (protocol, ip, upper) = back(rng, frame.get(ETH_LEN..)?)?;
            Some((
                Ingress::Port(*port),
                ip.frame(mac?, GATEWAY_MAC, protocol, &upper),
            ))
        }
        _ => None,
    }
}
