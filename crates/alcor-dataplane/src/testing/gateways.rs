//! Random goal states with gateways: networks whose unknown addresses gateways know, and routers with a way out.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use alcor_model::{
    Id, MacAddr, Network, Router,
    net::{GATEWAY_MAC, ON_DEMAND_MAC},
};

use super::{
    rng::Rng,
    state::{self, State, address},
};
use crate::{ExternalRow, Row, RowChange, row::MAX_GATEWAYS};

/// An address that nothing but a way out leads to.
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 9);

/// Gives most networks gateways, and most routers a way out.
pub(super) fn add(rng: &mut Rng, state: &mut State) {
    let mut ways: BTreeMap<Id<Router>, Option<ExternalRow>> = BTreeMap::new();
    for row in &mut state.rows {
        match row {
            Row::Network(row) => row.gateways = gateways(rng),
            Row::Router(row) => {
                let way = ways.entry(row.id).or_insert_with(|| external(rng));
                row.external = way.clone();
            }
            _ => {}
        }
    }
}

/// Some gateways, sorted. Most sets are drawn from a few: equal ones are shared.
fn gateways(rng: &mut Rng) -> Vec<IpAddr> {
    let members = rng.one([0, 0, 1, 2, 2, 3, 3, MAX_GATEWAYS]);
    let mut gateways: Vec<IpAddr> = (0..members)
        .map(|member| match rng.chance(80) {
            true => Ipv4Addr::new(192, 0, 2, 100 + member as u8).into(),
            false => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 1, member as u16).into(),
        })
        .collect();
    gateways.sort();
    gateways
}

fn external(rng: &mut Rng) -> Option<ExternalRow> {
    rng.chance(70).then(|| ExternalRow {
        network_id: state::id(rng),
        address: rng.chance(90).then_some(Ipv4Addr::new(203, 0, 113, 1)),
        enable_snat: rng.chance(70),
        gateways: gateways(rng),
    })
}

/// News of gateways: others for a network, or another way out of a router's row.
pub(super) fn change(rng: &mut Rng, rows: &[Row]) -> Option<RowChange> {
    let about = rows
        .iter()
        .filter(|row| matches!(row, Row::Network(_) | Row::Router(_)));
    let mut row = rng.pick(&about.collect::<Vec<_>>())?.clone();
    match &mut row {
        Row::Network(row) => row.gateways = gateways(rng),
        Row::Router(row) => row.external = external(rng),
        _ => {}
    }
    Some(RowChange::Put(row))
}

/// Whom a network's ports find by gateways: what nobody knows, what they were told to send to [`ON_DEMAND_MAC`], and what is outside.
pub(super) fn peers(state: &State, network: Id<Network>) -> Vec<(IpAddr, MacAddr)> {
    let mut peers = Vec::new();
    let mut rows = state.networks().into_iter();
    if rows.any(|row| row.id == network && !row.gateways.is_empty()) {
        for row in state.subnets(network) {
            peers.push((address(row.cidr, 34), ON_DEMAND_MAC));
            peers.push((address(row.cidr, 35), ON_DEMAND_MAC));
        }
        let learned = state.neighbours(network).into_iter();
        peers.extend(learned.map(|row| (row.ip, ON_DEMAND_MAC)));
    }
    let leads_out =
        |row: &Row| matches!(row, Row::Router(row) if row.network_id == network && row.external.is_some());
    if state.rows.iter().any(leads_out) {
        peers.extend([(OUTSIDE.into(), GATEWAY_MAC); 10]);
    }
    peers
}
