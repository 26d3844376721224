//! Hosts: by the id of their agent, and the availability zones that they make up.

use std::sync::Arc;

use alcor_model::{Host, HostRuntime};
use alcor_store::UniqueIndex;
use imbl::OrdMap;
use uuid::Uuid;

use super::{Indexed, RegionState};

/// What is derived from the rows of hosts.
#[derive(Clone, Default, PartialEq)]
pub(crate) struct HostIndexes {
    by_agent: UniqueIndex<Uuid, String>,
    zones: OrdMap<String, ZoneCount>,
}

/// How many hosts a zone has.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct ZoneCount {
    all: usize,
    /// Those that ports may be bound to anew.
    up: usize,
}

/// An availability zone: it is there as long as a host is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Zone<'a> {
    /// Its name.
    pub name: &'a str,
    /// Whether one of its hosts takes ports.
    pub available: bool,
}

impl RegionState {
    /// The host of an agent.
    pub fn host_of_agent(&self, id: Uuid) -> Option<&Arc<Host>> {
        self.hosts.get(self.host_indexes.by_agent.get(&id)?)
    }

    /// The availability zones, by name.
    pub fn zones(&self) -> impl Iterator<Item = Zone<'_>> {
        self.host_indexes.zones.iter().map(|(name, count)| Zone {
            name,
            available: count.up > 0,
        })
    }

    /// Whether a host is in a zone.
    pub fn has_zone(&self, name: &str) -> bool {
        self.host_indexes.zones.contains_key(name)
    }
}

impl Indexed for HostRuntime {}

impl Indexed for Host {
    fn index(&self, state: &mut RegionState) {
        let indexes = &mut state.host_indexes;
        indexes
            .by_agent
            .insert(Self::agent_id(&self.name), self.name.clone());
        let zone = indexes.zones.entry(self.availability_zone.clone()).or_default();
        zone.all += 1;
        zone.up += usize::from(self.admin_state_up);
    }

    fn unindex(&self, state: &mut RegionState) {
        let indexes = &mut state.host_indexes;
        indexes.by_agent.remove(&Self::agent_id(&self.name), &self.name);
        if let Some(zone) = indexes.zones.get_mut(&self.availability_zone) {
            zone.all = zone.all.saturating_sub(1);
            zone.up = zone.up.saturating_sub(usize::from(self.admin_state_up));
            if zone.all == 0 {
                indexes.zones.remove(&self.availability_zone);
            }
        }
    }
}
