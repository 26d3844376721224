//! Security rows for a random goal state, and answers to random frames.

use std::{collections::BTreeMap, net::IpAddr, num::NonZeroU16};

use alcor_model::{Id, Network, net::GATEWAY_MAC};
use ipnet::IpNet;

use super::{
    rng::Rng,
    routing,
    state::{self, State, address},
};
use crate::{
    Ingress, LabelRow, PolicyRow, PortRow, Row, RowChange,
    packet::{
        ETH_LEN, ETHERTYPE_IPV4, ETHERTYPE_IPV6, Ethernet, IPV4_LEN, IPV6_LEN, PROTO_ICMP, PROTO_ICMPV6,
        PROTO_UDP, array, ipv4_at, ipv6_at, mac_at, put, u8_at, u16_at,
    },
    security::{Family, Remote, Rule, SecurityGroup, Service},
};

const PROTO_TCP: u8 = 6;
const MAX_GROUPS: usize = 4;
const MAX_LABELS: u16 = 5;
const MAX_RULES: usize = 12;

/// Puts most ports of the state under security groups.
pub(super) fn add(rng: &mut Rng, state: &mut State) {
    let networks: Vec<Id<Network>> = state.networks().iter().map(|row| row.id).collect();
    let mut rows = Vec::new();
    for network in networks {
        let groups: Vec<Id<SecurityGroup>> = (0..1 + rng.below(MAX_GROUPS)).map(|_| state::id(rng)).collect();
        // One group without rules yet, one label without a meaning: news that is on its way.
        for group in &groups {
            if rng.chance(92) {
                rows.push(Row::Policy(policy(rng, network, *group, &groups)));
            }
        }
        for label in (1..=MAX_LABELS).filter_map(NonZeroU16::new) {
            if rng.chance(92) {
                let groups = groups.iter().copied().filter(|_| rng.chance(45)).collect();
                rows.push(Row::Label(LabelRow {
                    network_id: network,
                    label,
                    groups,
                }));
            }
        }
    }
    // Addresses of one station have one label.
    let mut of_macs = BTreeMap::new();
    for row in &mut state.rows {
        match row {
            Row::Network(row) => row.underlay = rng.chance(80).then(underlay),
            Row::Port(row) => {
                row.label = rng
                    .chance(85)
                    .then(|| rng.below(usize::from(MAX_LABELS) + 1) as u16)
            }
            Row::Neighbour(row) => {
                let label = rng.below(usize::from(MAX_LABELS) + 1) as u16;
                row.label = *of_macs.entry((row.network_id, row.mac)).or_insert(label);
            }
            _ => {}
        }
    }
    state.rows.extend(rows);
    state.rows.sort_by_key(Row::key);
}

/// News about security: other rules of a group, another meaning of a label, another label of a port, or one row less.
pub(super) fn change(rng: &mut Rng, rows: &[Row]) -> Option<RowChange> {
    let groups: Vec<Id<SecurityGroup>> = rows
        .iter()
        .filter_map(|row| match row {
            Row::Policy(row) => Some(row.group_id),
            _ => None,
        })
        .collect();
    let about: Vec<&Row> = rows
        .iter()
        .filter(|row| matches!(row, Row::Policy(_) | Row::Label(_) | Row::Port(_)))
        .collect();
    let row = rng.pick(&about)?;
    if row.key().is_security() && rng.chance(15) {
        return Some(RowChange::Remove(row.key()));
    }
    let row = match row {
        Row::Policy(row) => Row::Policy(policy(rng, row.network_id, row.group_id, &groups)),
        Row::Label(row) => Row::Label(LabelRow {
            groups: groups.iter().copied().filter(|_| rng.chance(45)).collect(),
            ..row.clone()
        }),
        Row::Port(row) => Row::Port(PortRow {
            label: rng
                .chance(85)
                .then(|| rng.below(usize::from(MAX_LABELS) + 1) as u16),
            ..row.clone()
        }),
        other => (*other).clone(),
    };
    Some(RowChange::Put(row))
}

/// Some of the hosts that frames of the tunnel say to come from.
fn underlay() -> Vec<IpNet> {
    let block = |ip: [u8; 4], len| IpNet::new(IpAddr::from(ip), len);
    [block([192, 0, 2, 0], 31), block([192, 0, 2, 2], 31)]
        .into_iter()
        .flatten()
        .collect()
}

fn policy(
    rng: &mut Rng,
    network_id: Id<Network>,
    group_id: Id<SecurityGroup>,
    groups: &[Id<SecurityGroup>],
) -> PolicyRow {
    let rules = |rng: &mut Rng| {
        let count = rng.below(MAX_RULES + 1);
        (0..count).map(|_| rule(rng, groups)).collect::<Vec<_>>()
    };
    PolicyRow {
        network_id,
        group_id,
        stateful: rng.chance(90),
        ingress: rules(rng),
        egress: rules(rng),
    }
}

fn rule(rng: &mut Rng, groups: &[Id<SecurityGroup>]) -> Rule {
    let family = rng.one([Family::Ipv4, Family::Ipv6]);
    let icmp = match family {
        Family::Ipv4 => Service::icmp(PROTO_ICMP, rng.one([8, 8, 3, 13]), None),
        Family::Ipv6 => Service::icmp(PROTO_ICMPV6, rng.one([128, 128, 1, 2]), Some(0)),
    };
    let first: u16 = rng.one([0, 53, 67, 80, 81, 5000, 65_535]);
    let last = first.saturating_add(rng.one([0, 0, 0, 30, 5000]));
    let service = match rng.below(10) {
        0..3 => None,
        3..5 => Some(icmp),
        5..7 => Some(Service::ports(PROTO_UDP, first, last)),
        7..9 => Some(Service::ports(PROTO_TCP, first, last)),
        _ => Some(Service::all(rng.one([PROTO_TCP, PROTO_UDP, 47, 132]))),
    };
    let remote = match rng.below(10) {
        0..4 => Remote::Any,
        4..8 => {
            let count = rng.below(3);
            Remote::Prefixes((0..count).filter_map(|_| prefix(rng, family)).collect())
        }
        _ => rng.pick(groups).map_or(Remote::Any, Remote::Group),
    };
    Rule {
        family,
        service,
        remote,
    }
}

/// A block around some station's address.
fn prefix(rng: &mut Rng, family: Family) -> Option<IpNet> {
    let blocks: Vec<IpNet> = state::blocks()
        .into_iter()
        .filter(|block| Family::of(block.addr()) == family)
        .collect();
    let ip = address(rng.pick(&blocks)?, 8 + rng.below(12) as u8);
    let most = if ip.is_ipv4() { 32 } else { 128 };
    let less = rng.one([0, 0, 1, 2, 3, 8, most]);
    IpNet::new(ip, most - less).ok()
}

/// The answer to a frame, from whoever it was for, if that is a station that the state knows.
pub(super) fn answer(
    rng: &mut Rng,
    state: &State,
    (ingress, frame): &(Ingress, Vec<u8>),
) -> Option<(Ingress, Vec<u8>)> {
    let network = network_of(state, ingress)?;
    let (ethernet, to_ip) = (Ethernet::read(frame)?, destination(frame)?);
    let mut turned = turn(frame)?;
    let asker = ethernet.source;
    let through_router = ethernet.destination == GATEWAY_MAC && routing::is_routed(state, network);
    let has_ip = |row: &PortRow| row.fixed_ips.iter().any(|fixed| fixed.ip_address == to_ip);
    let mut near = state.ports(network).into_iter();
    let near = near.find(|row| row.mac == ethernet.destination || has_ip(row));
    let far = || state.all_ports().into_iter().find(|row| has_ip(row));
    let local = near.or_else(|| far().filter(|_| through_router));
    if let Some(row) = local {
        let through = if ethernet.destination == GATEWAY_MAC {
            GATEWAY_MAC
        } else {
            asker
        };
        put(&mut turned, 0, &through.0);
        put(&mut turned, 6, &row.mac.0);
        return Some((Ingress::Port(row.id), turned));
    }
    let mut near = state.neighbours(network).into_iter();
    let near = near.find(|row| row.ip == to_ip);
    let far = || state.neighbour_of(to_ip).filter(|_| through_router);
    let remote = near.or_else(far)?;
    let from = if remote.network_id == network {
        remote.mac
    } else {
        GATEWAY_MAC
    };
    put(&mut turned, 0, &asker.0);
    put(&mut turned, 6, &from.0);
    let vni = state.networks().into_iter().find(|row| row.id == network)?.vni;
    let ingress = Ingress::Tunnel {
        source: remote.host,
        vni: vni.get(),
        label: if rng.chance(90) { remote.label } else { 1 },
        forwarded: false,
    };
    Some((ingress, turned))
}

fn network_of(state: &State, ingress: &Ingress) -> Option<Id<Network>> {
    match ingress {
        Ingress::Port(port) => state
            .all_ports()
            .into_iter()
            .find(|row| row.id == *port)
            .map(|row| row.network_id),
        Ingress::Tunnel { vni, .. } => state
            .networks()
            .into_iter()
            .find(|row| row.vni.get() == *vni)
            .map(|row| row.id),
        Ingress::External { .. } => None,
    }
}

fn destination(frame: &[u8]) -> Option<IpAddr> {
    match u16_at(frame, 12)? {
        ETHERTYPE_IPV4 => ipv4_at(frame, ETH_LEN + 16),
        ETHERTYPE_IPV6 => ipv6_at(frame, ETH_LEN + 24),
        _ => None,
    }
}

/// Exchanges addresses and ports, makes an echo request its answer and a SYN a SYN-ACK. Checksums: a swap leaves them
/// right, what else changes does not matter to any filter, and broken ones are part of what is tested.
fn turn(frame: &[u8]) -> Option<Vec<u8>> {
    let mut turned = frame.to_vec();
    mac_at(frame, 6)?;
    let (protocol, upper) = if u16_at(frame, 12)? == ETHERTYPE_IPV4 {
        swap::<4>(&mut turned, ETH_LEN + 12)?;
        let header_len = usize::from(u8_at(frame, ETH_LEN)? & 0x0f) * 4;
        (u8_at(frame, ETH_LEN + 9)?, ETH_LEN + header_len.max(IPV4_LEN))
    } else {
        swap::<16>(&mut turned, ETH_LEN + 8)?;
        (u8_at(frame, ETH_LEN + 6)?, ETH_LEN + IPV6_LEN)
    };
    match (protocol, u8_at(frame, upper)) {
        (PROTO_ICMP, Some(8)) => put(&mut turned, upper, &[0]),
        (PROTO_ICMPV6, Some(128)) => put(&mut turned, upper, &[129]),
        (PROTO_TCP | PROTO_UDP, _) => swap::<2>(&mut turned, upper)?,
        _ => {}
    }
    if protocol == PROTO_TCP {
        put(&mut turned, upper + 13, &[0x12]);
    }
    Some(turned)
}

/// Exchanges two neighbouring fields of `N` bytes.
fn swap<const N: usize>(frame: &mut [u8], at: usize) -> Option<()> {
    let (first, second) = (array::<N>(frame, at)?, array::<N>(frame, at + N)?);
    put(frame, at, &second);
    put(frame, at + N, &first);
    Some(())
}
