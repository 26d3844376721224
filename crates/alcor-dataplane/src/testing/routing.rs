//! Random goal states with routers between networks, and security groups that these networks share.

use std::{collections::BTreeMap, net::IpAddr};

use alcor_model::{Id, MacAddr, Network, Router, net::GATEWAY_MAC};
use ipnet::IpNet;

use super::{
    rng::Rng,
    state::{self, State, address},
    wire::Ip,
};
use crate::{
    Ingress, InterfaceRow, RouteRow, RouterRow, Row,
    packet::PROTO_UDP,
    security::{Remote, SecurityGroup},
};

const MAX_ROUTERS: usize = 3;
const MAX_ROUTES: usize = 3;

/// Connects networks, and gives them the same groups.
pub(super) fn add(rng: &mut Rng, state: &mut State) {
    share_groups(state);
    for _ in 0..1 + rng.below(MAX_ROUTERS) {
        let router = router(rng, state);
        state.rows.extend(router.into_iter().map(Row::Router));
    }
    state.rows.sort_by_key(Row::key);
}

/// Addresses of other networks that a network's routers lead to.
pub(super) fn peers(state: &State, network: Id<Network>) -> Vec<(IpAddr, MacAddr)> {
    let mut peers = Vec::new();
    for row in &state.rows {
        let Row::Router(row) = row else { continue };
        if row.network_id != network {
            continue;
        }
        for to in &row.interfaces {
            peers.push(to.address);
            peers.extend(stations(state, to.network_id));
        }
        peers.extend(row.routes.iter().map(|to| address(to.destination, 7)));
    }
    peers.into_iter().map(|ip| (ip, GATEWAY_MAC)).collect()
}

/// Some frames become datagrams to stations of networks that routers lead to, which no subnet of the sender's network has.
pub(super) fn cross(rng: &mut Rng, state: &State, frames: &mut [(Ingress, Vec<u8>)]) {
    let all = state.all_ports().into_iter();
    let attached: Vec<_> = all.filter(|row| state.devices.contains_key(&row.id)).collect();
    for (ingress, frame) in frames
        .iter_mut()
        .filter(|(ingress, _)| matches!(ingress, Ingress::Port(_)))
    {
        let Some(row) = rng.pick(&attached).filter(|_| rng.chance(20)) else {
            continue;
        };
        let own = state.subnets(row.network_id);
        let ips = row
            .fixed_ips
            .iter()
            .map(|fixed| fixed.ip_address)
            .collect::<Vec<_>>();
        let Some(from) = rng.pick(&ips) else { continue };
        let mut far = peers(state, row.network_id);
        far.retain(|(to, _)| {
            to.is_ipv4() == from.is_ipv4() && !own.iter().any(|subnet| subnet.cidr.contains(to))
        });
        if let Some((to, mac)) = rng.pick(&far) {
            let ip = Ip::new(from, to, 64);
            let datagram = ip.udp((5000, rng.one([53, 80, 5000])), b"far away");
            *ingress = Ingress::Port(row.id);
            *frame = ip.frame(row.mac, mac, PROTO_UDP, &datagram);
        }
    }
}

/// True when a router, up or down, has a place in the network.
pub(super) fn is_routed(state: &State, network: Id<Network>) -> bool {
    let mut rows = state.rows.iter();
    rows.any(|row| matches!(row, Row::Router(row) if row.network_id == network))
}

fn stations(state: &State, network: Id<Network>) -> Vec<IpAddr> {
    let ports = state.ports(network).into_iter();
    let fixed = ports.flat_map(|row| row.fixed_ips.iter().map(|fixed| fixed.ip_address));
    let neighbours = state.neighbours(network).into_iter().map(|row| row.ip);
    fixed.chain(neighbours).collect()
}

/// The rows of one router.
fn router(rng: &mut Rng, state: &State) -> Vec<RouterRow> {
    let id: Id<Router> = state::id(rng);
    let mut interfaces = Vec::new();
    let mut routes = Vec::new();
    for network in state.networks() {
        if rng.chance(25) {
            continue;
        }
        for subnet in state.subnets(network.id) {
            if rng.chance(70) {
                let address = subnet.gateway_ip.filter(|_| rng.chance(80));
                interfaces.push(InterfaceRow {
                    network_id: network.id,
                    cidr: subnet.cidr,
                    address: address.unwrap_or_else(|| state::address(subnet.cidr, 2)),
                });
            }
        }
        for _ in 0..rng.below(MAX_ROUTES) {
            routes.extend(route(rng, state, network.id));
        }
    }
    let admin_state_up = rng.chance(88);
    let mut networks: Vec<Id<Network>> = interfaces.iter().map(|to| to.network_id).collect();
    networks.dedup();
    // One network is not on this host: what leads there leads nowhere.
    if rng.chance(20)
        && let Some(cidr) = rng.pick(&state::blocks())
    {
        interfaces.push(InterfaceRow {
            network_id: state::id(rng),
            cidr,
            address: state::address(cidr, 1),
        });
    }
    let row = |network_id| RouterRow {
        id,
        network_id,
        admin_state_up,
        interfaces: interfaces.clone(),
        routes: routes.clone(),
        external: None,
    };
    networks.into_iter().map(row).collect()
}

fn route(rng: &mut Rng, state: &State, network_id: Id<Network>) -> Option<RouteRow> {
    let nexthop = rng.pick(&stations(state, network_id))?;
    let mut blocks: Vec<IpNet> = state::blocks().into();
    let further = ["0.0.0.0/0", "::/0", "198.51.100.0/24", "10.0.1.8/29"];
    blocks.extend(further.iter().filter_map(|text| text.parse::<IpNet>().ok()));
    blocks.retain(|block| block.addr().is_ipv4() == nexthop.is_ipv4());
    Some(RouteRow {
        destination: rng.pick(&blocks)?,
        nexthop,
        network_id,
    })
}

/// The groups of each network become those of the first one, as far as it has as many.
fn share_groups(state: &mut State) {
    let mut of_networks: BTreeMap<Id<Network>, Vec<Id<SecurityGroup>>> = BTreeMap::new();
    for row in &state.rows {
        if let Row::Policy(row) = row {
            of_networks.entry(row.network_id).or_default().push(row.group_id);
        }
    }
    let first = of_networks.values().next().cloned().unwrap_or_default();
    let others = of_networks.values().skip(1);
    let same: BTreeMap<_, _> = others
        .flat_map(|groups| groups.iter().copied().zip(first.iter().copied()))
        .collect();
    let rename = |group: &mut Id<SecurityGroup>| *group = same.get(group).copied().unwrap_or(*group);
    for row in &mut state.rows {
        match row {
            Row::Policy(row) => {
                rename(&mut row.group_id);
                for rule in row.ingress.iter_mut().chain(&mut row.egress) {
                    if let Remote::Group(group) = &mut rule.remote {
                        rename(group);
                    }
                }
            }
            Row::Label(row) => row.groups.iter_mut().for_each(rename),
            _ => {}
        }
    }
}
