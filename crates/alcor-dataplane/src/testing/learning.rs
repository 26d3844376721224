//! Random goal states made on demand: networks in which addresses are asked for, ports that have left, packets that other
//! hosts have passed on.

use std::collections::BTreeMap;

use alcor_model::{Id, MacAddr, Network};

use super::{rng::Rng, state::State};
use crate::{Ingress, Row, packet::put};

/// Makes most networks on demand, and some neighbours ports that were here.
pub(super) fn add(rng: &mut Rng, state: &mut State) {
    // Rows with one MAC agree.
    let mut left: BTreeMap<(Id<Network>, MacAddr), bool> = BTreeMap::new();
    for row in &mut state.rows {
        match row {
            Row::Network(row) => row.on_demand = rng.chance(85),
            Row::Neighbour(row) => {
                let forward = left.entry((row.network_id, row.mac));
                row.forward = *forward.or_insert_with(|| rng.chance(40));
            }
            _ => {}
        }
    }
}

/// Some packets of the tunnel are for a neighbour, and some were passed on.
pub(super) fn pass_on(rng: &mut Rng, rows: &[Row], frames: &mut [(Ingress, Vec<u8>)]) {
    let neighbours: Vec<_> = rows
        .iter()
        .filter_map(|row| match row {
            Row::Neighbour(row) => Some(*row),
            _ => None,
        })
        .collect();
    let vni_of = |id| {
        rows.iter().find_map(|row| match row {
            Row::Network(row) if row.id == id => Some(row.vni.get()),
            _ => None,
        })
    };
    for (ingress, frame) in frames {
        let Ingress::Tunnel { vni, forwarded, .. } = ingress else {
            continue;
        };
        *forwarded = rng.chance(25);
        if let Some(row) = rng.pick(&neighbours).filter(|_| rng.chance(50)) {
            *vni = vni_of(row.network_id).unwrap_or(*vni);
            put(frame, 0, &row.mac.0);
        }
    }
}
