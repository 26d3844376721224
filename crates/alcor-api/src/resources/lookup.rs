//! How rows are found in the region's state: the only place that knows its tables and indexes.

use std::sync::Arc;

use alcor_model::{Id, Network, Port, Subnet};
use alcor_region::RegionState;
use uuid::Uuid;

/// Rows, by whatever way was cheapest.
pub type Rows<'a, R> = Box<dyn Iterator<Item = Arc<R>> + 'a>;

/// The order and the beginning of a walk over ids.
#[derive(Clone, Copy)]
pub struct Walk {
    /// The first id that matters.
    pub from: Option<Uuid>,
    /// From the last to the first.
    pub reverse: bool,
}

impl Walk {
    /// Puts rows that an index gave in the order of the walk.
    pub(super) fn sorted<'a, R: super::Resource>(self, mut rows: Vec<Arc<R>>) -> Rows<'a, R> {
        rows.sort_unstable_by_key(|row| row.uuid());
        rows.dedup_by_key(|row| row.uuid());
        if self.reverse {
            Box::new(rows.into_iter().rev())
        } else {
            Box::new(rows.into_iter())
        }
    }
}

macro_rules! table_walk {
    ($name:ident, $table:ident, $row:ty) => {
        pub(super) fn $name(state: &RegionState, walk: Walk) -> Rows<'_, $row> {
            let table = &state.$table;
            match (walk.from.map(Id::<$row>::from_uuid), walk.reverse) {
                (None, false) => Box::new(table.values().cloned()),
                (None, true) => Box::new(table.values().rev().cloned()),
                (Some(from), false) => Box::new(table.range(from..).map(|(_, row)| Arc::clone(row))),
                (Some(from), true) => Box::new(table.range(..=from).rev().map(|(_, row)| Arc::clone(row))),
            }
        }
    };
}

table_walk!(networks, networks, Network);
table_walk!(subnets, subnets, Subnet);
table_walk!(ports, ports, Port);

pub(super) fn network(state: &RegionState, id: Uuid) -> Option<Arc<Network>> {
    state.networks.get(&Id::from_uuid(id)).cloned()
}
pub(super) fn subnet(state: &RegionState, id: Uuid) -> Option<Arc<Subnet>> {
    state.subnets.get(&Id::from_uuid(id)).cloned()
}
pub(super) fn port(state: &RegionState, id: Uuid) -> Option<Arc<Port>> {
    state.ports.get(&Id::from_uuid(id)).cloned()
}
pub(super) fn subnets_of_network(state: &RegionState, network: Uuid) -> Vec<Arc<Subnet>> {
    state
        .subnets
        .values()
        .filter(|subnet| subnet.network_id.uuid() == network)
        .cloned()
        .collect()
}
pub(super) fn ports_of_network(state: &RegionState, network: Uuid) -> Vec<Arc<Port>> {
    state
        .ports
        .values()
        .filter(|port| port.network_id.uuid() == network)
        .cloned()
        .collect()
}
pub(super) fn ports_of_device(state: &RegionState, device: &str) -> Vec<Arc<Port>> {
    state
        .ports
        .values()
        .filter(|port| port.device_id == device)
        .cloned()
        .collect()
}
