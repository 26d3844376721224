//! Random goal states that a region could have sent: several networks with the same addresses.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use alcor_model::{
    Id, MacAddr, Network, Port, Subnet, Vni,
    net::GATEWAY_MAC,
    resource::{AddressPair, FixedIp},
};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use uuid::Uuid;

use super::rng::Rng;
use crate::{NeighbourRow, NetworkRow, PortRow, Row, SubnetRow};

const MAX_NETWORKS: usize = 4;
const MAX_PORTS: usize = 6;
const MAX_STATIONS: usize = 8;

/// A virtual router's MAC (RFC 5798), as allowed address pairs have it.
const VIRTUAL_ROUTER_MAC: MacAddr = MacAddr([0x00, 0x00, 0x5e, 0x00, 0x01, 0x05]);

/// Rows and devices.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// In an order in which they can be applied.
    pub rows: Vec<Row>,
    /// Device of each port that has one; also of a port without a row.
    pub devices: BTreeMap<Id<Port>, String>,
}

impl State {
    /// The networks' rows.
    pub fn networks(&self) -> Vec<&NetworkRow> {
        self.select(|row| {
            if let Row::Network(row) = row {
                Some(row)
            } else {
                None
            }
        })
    }

    /// The subnets of a network.
    pub fn subnets(&self, network: Id<Network>) -> Vec<&SubnetRow> {
        self.select(|row| match row {
            Row::Subnet(row) if row.network_id == network => Some(row),
            _ => None,
        })
    }

    /// The ports of a network.
    pub fn ports(&self, network: Id<Network>) -> Vec<&PortRow> {
        self.select(|row| match row {
            Row::Port(row) if row.network_id == network => Some(row),
            _ => None,
        })
    }

    /// The ports of all networks.
    pub fn all_ports(&self) -> Vec<&PortRow> {
        self.select(|row| if let Row::Port(row) = row { Some(row) } else { None })
    }

    /// The neighbours of a network.
    pub fn neighbours(&self, network: Id<Network>) -> Vec<&NeighbourRow> {
        self.select(|row| match row {
            Row::Neighbour(row) if row.network_id == network => Some(row),
            _ => None,
        })
    }

    /// The neighbour of any network that has this address.
    pub(super) fn neighbour_of(&self, ip: IpAddr) -> Option<&NeighbourRow> {
        self.rows.iter().find_map(|row| match row {
            Row::Neighbour(row) if row.ip == ip => Some(row),
            _ => None,
        })
    }

    fn select<'a, T>(&'a self, choose: impl Fn(&'a Row) -> Option<&'a T>) -> Vec<&'a T> {
        self.rows.iter().filter_map(choose).collect()
    }
}

/// The blocks that every network picks from, so that networks overlap.
pub(super) fn blocks() -> [IpNet; 5] {
    let v4 = |a, b, c, len| IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, 0), len));
    let v6 = |block| {
        IpNet::V6(Ipv6Net::new_assert(
            Ipv6Addr::new(0xfd00, 0, 0, block, 0, 0, 0, 0),
            64,
        ))
    };
    [
        v4(10, 0, 0, 24),
        v4(10, 0, 1, 24),
        v4(192, 168, 7, 26),
        v6(1),
        v6(2),
    ]
}

/// The address at an offset of a block.
pub(super) fn address(block: IpNet, offset: u8) -> IpAddr {
    match block.network() {
        IpAddr::V4(ip) => Ipv4Addr::from(u32::from(ip) + u32::from(offset)).into(),
        IpAddr::V6(ip) => Ipv6Addr::from(u128::from(ip) + u128::from(offset)).into(),
    }
}

pub(super) fn id<T>(rng: &mut Rng) -> Id<T> {
    let bits = (u128::from(rng.next()) << 64) | u128::from(rng.next());
    Id::from_uuid(uuid::Builder::from_random_bytes(bits.to_be_bytes()).into_uuid())
}

/// A state; the same for the same numbers.
pub fn generate(rng: &mut Rng) -> State {
    let mut state = State::default();
    let networks: Vec<Id<Network>> = (0..1 + rng.below(MAX_NETWORKS)).map(|_| id(rng)).collect();
    // Stations of one network are numbered: the number makes MAC and addresses, in every network the same.
    let mut stations: BTreeMap<Id<Network>, u8> = networks.iter().map(|network| (*network, 0)).collect();
    for (index, network) in networks.iter().enumerate() {
        state.rows.extend(network_row(rng, *network, index));
        for block in blocks() {
            if rng.chance(70) {
                state.rows.push(Row::Subnet(subnet(rng, *network, block)));
            }
        }
    }
    for _ in 0..rng.below(MAX_PORTS + 1) {
        if let Some((network, station)) = next_station(rng, &networks, &mut stations) {
            let row = port(rng, &state, network, station);
            if rng.chance(90) {
                state.devices.insert(row.id, Port::device_name(row.id));
            }
            state.rows.push(Row::Port(row));
        }
    }
    for _ in 0..rng.below(MAX_STATIONS + 1) {
        if let Some((network, station)) = next_station(rng, &networks, &mut stations) {
            neighbours(rng, &mut state, network, station);
        }
    }
    if rng.chance(15) {
        let port: Id<Port> = Id::from_uuid(Uuid::from_u128(u128::from(rng.next())));
        state.devices.insert(port, Port::device_name(port));
    }
    state.rows.sort_by_key(Row::key);
    state.rows.dedup_by_key(|row| row.key());
    state
}

fn next_station(
    rng: &mut Rng,
    networks: &[Id<Network>],
    stations: &mut BTreeMap<Id<Network>, u8>,
) -> Option<(Id<Network>, u8)> {
    let network = rng.pick(networks)?;
    let count = stations.entry(network).or_default();
    *count += 1;
    Some((network, *count))
}

fn station_mac(station: u8) -> MacAddr {
    MacAddr([0xfa, 0x16, 0x3e, 0, 0, station])
}

fn station_address(block: IpNet, station: u8) -> IpAddr {
    address(block, 9 + station)
}

fn network_row(rng: &mut Rng, id: Id<Network>, index: usize) -> Option<Row> {
    let vni = Vni::try_from(1000 + index as u32).ok()?;
    let mtu = rng.one([1450, 1450, 1450, 1280, 576]);
    Some(Row::Network(NetworkRow {
        id,
        vni,
        mtu,
        admin_state_up: rng.chance(94),
        underlay: None,
        on_demand: false,
        gateways: Vec::new(),
    }))
}

fn subnet(rng: &mut Rng, network_id: Id<Network>, cidr: IpNet) -> SubnetRow {
    SubnetRow {
        id: id(rng),
        network_id,
        cidr,
        gateway_ip: rng.chance(75).then(|| address(cidr, 1)),
        gateway_mac: GATEWAY_MAC,
        enable_dhcp: rng.chance(70),
        slaac: matches!(cidr, IpNet::V6(_)) && rng.chance(50),
        dns_nameservers: Vec::new(),
        host_routes: Vec::new(),
    }
}

fn port(rng: &mut Rng, state: &State, network_id: Id<Network>, station: u8) -> PortRow {
    let subnets: Vec<(Id<Subnet>, IpNet)> = state
        .subnets(network_id)
        .into_iter()
        .map(|row| (row.id, row.cidr))
        .collect();
    let mac = station_mac(station);
    let mut fixed_ips = Vec::new();
    for (subnet_id, cidr) in subnets {
        if rng.chance(65) {
            fixed_ips.push(FixedIp {
                subnet_id,
                ip_address: station_address(cidr, station),
            });
        }
        if rng.chance(8) {
            fixed_ips.push(FixedIp {
                subnet_id,
                ip_address: address(cidr, 40 + station),
            });
        }
    }
    PortRow {
        id: id(rng),
        network_id,
        mac,
        fixed_ips,
        allowed_address_pairs: if rng.chance(35) {
            pairs(rng, mac)
        } else {
            Vec::new()
        },
        admin_state_up: rng.chance(92),
        port_security_enabled: rng.chance(75),
        dns_name: String::new(),
        label: None,
    }
}

fn pairs(rng: &mut Rng, mac: MacAddr) -> Vec<AddressPair> {
    let host = |ip| IpNet::from(IpAddr::from(ip));
    let block = |ip, len| IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::from(ip), len));
    let choices = [
        AddressPair {
            ip_address: host([10, 0, 0, 60]),
            mac_address: mac,
        },
        AddressPair {
            ip_address: host([10, 0, 0, 61]),
            mac_address: VIRTUAL_ROUTER_MAC,
        },
        AddressPair {
            ip_address: block([172, 16, 0, 0], 20),
            mac_address: mac,
        },
        AddressPair {
            ip_address: block([0, 0, 0, 0], 0),
            mac_address: VIRTUAL_ROUTER_MAC,
        },
        AddressPair {
            ip_address: IpNet::V6(Ipv6Net::new_assert(
                Ipv6Addr::new(0xfd00, 0, 0, 9, 0, 0, 0, 0),
                61,
            )),
            mac_address: mac,
        },
    ];
    choices.into_iter().filter(|_| rng.chance(40)).collect()
}

/// A station on another host: one MAC, one host, an address in some of the subnets.
fn neighbours(rng: &mut Rng, state: &mut State, network_id: Id<Network>, station: u8) {
    let host: IpAddr = if rng.chance(88) {
        Ipv4Addr::new(192, 0, 2, 1 + rng.below(3) as u8).into()
    } else {
        Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into()
    };
    let label = if rng.chance(50) {
        0
    } else {
        1 + rng.below(65_535) as u16
    };
    let cidrs: Vec<IpNet> = state
        .subnets(network_id)
        .into_iter()
        .map(|row| row.cidr)
        .collect();
    // Late news: a neighbour row for what a local port has by now. The local port wins.
    let moved = rng.chance(10).then(|| 1 + rng.below(usize::from(station)) as u8);
    let is_local = moved.is_some_and(|moved| {
        state
            .ports(network_id)
            .iter()
            .any(|port| port.mac == station_mac(moved))
    });
    let mac = station_mac(if is_local && rng.chance(50) {
        moved.unwrap_or(station)
    } else {
        station
    });
    for cidr in cidrs {
        if rng.chance(65) {
            let ip = station_address(cidr, moved.unwrap_or(station));
            state.rows.push(Row::Neighbour(NeighbourRow {
                network_id,
                ip,
                mac,
                host,
                label,
                forward: false,
            }));
        }
    }
}
