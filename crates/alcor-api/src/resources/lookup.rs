//! How rows are found in the region's state: the only place that knows its tables and indexes.

use std::sync::Arc;

use alcor_model::{
    Id, Port, Segment, Subnet,
    resource::{Access, SharedType},
};
use alcor_region::{RegionState, command::Caller};
use alcor_store::Table;
use uuid::Uuid;

use super::{Resource, View};
use crate::{field::FixedIpFilter, query::ListQuery};

/// Rows, by whatever way was cheapest.
pub type Rows<'a, R> = Box<dyn Iterator<Item = Arc<R>> + 'a>;

/// The order and the beginning of a walk over ids.
#[derive(Clone, Copy)]
pub struct Walk {
    /// The walk begins beyond this id.
    pub from: Option<Uuid>,
    /// From the last to the first.
    pub reverse: bool,
}

impl Walk {
    /// Puts rows that an index gave in the order of the walk.
    pub fn sorted<'a, R: Resource>(self, mut rows: Vec<Arc<R>>) -> Rows<'a, R> {
        rows.sort_unstable_by_key(|row| row.uuid());
        rows.dedup_by_key(|row| row.uuid());
        if self.reverse {
            Box::new(rows.into_iter().rev())
        } else {
            Box::new(rows.into_iter())
        }
    }

    /// Walks over a whole table.
    pub fn table<R>(self, table: &Table<Id<R>, R>) -> Rows<'_, R> {
        match (self.from.map(Id::from_uuid), self.reverse) {
            (None, false) => Box::new(table.iter().cloned()),
            (None, true) => Box::new(table.iter().rev().cloned()),
            (Some(from), false) => Box::new(table.after(&from).cloned()),
            (Some(from), true) => Box::new(table.before(&from).cloned()),
        }
    }
}

/// The rows that a caller sees, by an index of its project; none when it sees them all.
pub(super) fn seen<'a, R: Resource, I: Iterator<Item = Id<R>>>(
    caller: &Caller,
    walk: Walk,
    table: &'a Table<Id<R>, R>,
    of_project: impl FnOnce(&str) -> I,
) -> Option<Rows<'a, R>> {
    let ids = (!caller.is_admin).then(|| of_project(&caller.project_id))?;
    Some(walk.sorted(ids.filter_map(|id| table.get(&id)).cloned().collect()))
}

/// The subnets that a caller sees, unless it sees them all: its own, and those of networks that it was given.
pub(super) fn seen_subnets<'a>(
    state: &'a RegionState,
    caller: &Caller,
    walk: Walk,
) -> Option<Rows<'a, Subnet>> {
    let project = (!caller.is_admin).then_some(&caller.project_id)?;
    let own = state
        .subnets_owned_by(project)
        .filter_map(|id| state.subnets().get(&id));
    let given = state
        .given_to(SharedType::Network, Access::AccessAsShared, project)
        .flat_map(|id| state.subnets_of(Id::from_uuid(id)));
    Some(walk.sorted(own.chain(given).cloned().collect()))
}

/// The subnets of the networks that a query names.
pub(super) fn subnets<'a>(
    state: &'a RegionState,
    query: &ListQuery<View<Subnet>>,
    walk: Walk,
) -> Option<Rows<'a, Subnet>> {
    let networks = query.uuids("network_id")?;
    Some(
        walk.sorted(
            networks
                .into_iter()
                .flat_map(|id| state.subnets_of(Id::from_uuid(id)))
                .cloned()
                .collect(),
        ),
    )
}

/// The segments of the networks that a query names.
pub(super) fn segments<'a>(
    state: &'a RegionState,
    query: &ListQuery<View<Segment>>,
    walk: Walk,
) -> Option<Rows<'a, Segment>> {
    let networks = query.uuids("network_id")?.into_iter().map(Id::from_uuid);
    let ids = networks.filter_map(|network| state.segment_of(network));
    Some(walk.sorted(ids.filter_map(|id| state.segments().get(&id)).cloned().collect()))
}

/// Ports from the index that leaves the fewest: addresses, then devices, then hosts, then networks.
pub(super) fn ports<'a>(
    state: &'a RegionState,
    query: &ListQuery<View<Port>>,
    walk: Walk,
) -> Option<Rows<'a, Port>> {
    // A part of an address is in no index.
    if let Some(filter) = query
        .fixed_ip()
        .filter(|filter| filter.addresses.is_some() || filter.subnets.is_some())
    {
        return Some(walk.sorted(ports_by_address(state, filter)));
    }
    if let Some(groups) = query.texts("security_groups") {
        let ids = groups.into_iter().filter_map(|text| text.parse().ok());
        return Some(walk.sorted(ids.flat_map(|id| state.ports_under(id)).cloned().collect()));
    }
    // The empty text is no device and no host: such ports are many and in no index.
    let named = |name| {
        query
            .texts(name)
            .filter(|texts| texts.iter().all(|text| !text.is_empty()))
    };
    if let Some(devices) = named("device_id") {
        return Some(
            walk.sorted(
                devices
                    .into_iter()
                    .flat_map(|device| state.ports_of_device(device))
                    .cloned()
                    .collect(),
            ),
        );
    }
    if let Some(hosts) = named("binding:host_id") {
        return Some(
            walk.sorted(
                hosts
                    .into_iter()
                    .flat_map(|host| state.ports_on(host))
                    .cloned()
                    .collect(),
            ),
        );
    }
    match (query.uuids("network_id")?.as_slice(), walk.reverse) {
        // The index of one network is in the order of ids: a page of a large network needs no copy of it all.
        ([network], false) => Some(Box::new(state.ports_of(Id::from_uuid(*network)).cloned())),
        (networks, _) => Some(
            walk.sorted(
                networks
                    .iter()
                    .flat_map(|id| state.ports_of(Id::from_uuid(*id)))
                    .cloned()
                    .collect(),
            ),
        ),
    }
}

fn ports_by_address(state: &RegionState, filter: &FixedIpFilter) -> Vec<Arc<Port>> {
    let subnets: Vec<Id<Subnet>> = match (&filter.subnets, &filter.addresses) {
        (Some(subnets), _) => subnets.iter().copied().map(Id::from_uuid).collect(),
        (None, Some(addresses)) => state
            .subnets()
            .iter()
            .filter(|subnet| addresses.iter().any(|address| subnet.cidr.contains(address)))
            .map(|subnet| subnet.id)
            .collect(),
        (None, None) => Vec::new(),
    };
    let ids: Vec<Id<Port>> = match &filter.addresses {
        Some(addresses) => subnets
            .iter()
            .flat_map(|subnet| {
                addresses
                    .iter()
                    .filter_map(|address| state.port_with_ip(*subnet, *address))
            })
            .collect(),
        None => subnets
            .iter()
            .flat_map(|subnet| state.addresses_of(*subnet))
            .map(|(_, port)| port)
            .collect(),
    };
    ids.iter()
        .filter_map(|id| state.ports().get(id))
        .cloned()
        .collect()
}
