//! Subnet pools and address scopes: their indexes, and who sees them.

use std::sync::Arc;

use alcor_model::{
    Id, Subnet,
    resource::{Access, AddressScope, SharedType, SubnetPool},
};
use alcor_store::{MultiIndex, UniqueIndex};

use super::{Indexed, RegionState};
use crate::command::Caller;

/// What is derived from the rows of subnet pools and address scopes, and which subnets are of which pool.
#[derive(Clone, Default, PartialEq)]
pub(crate) struct PoolIndexes {
    pools_by_scope: MultiIndex<Id<AddressScope>, Id<SubnetPool>>,
    pools_by_project: MultiIndex<String, Id<SubnetPool>>,
    scopes_by_project: MultiIndex<String, Id<AddressScope>>,
    subnets_by_pool: MultiIndex<Id<SubnetPool>, Id<Subnet>>,
    default_pool: UniqueIndex<u8, Id<SubnetPool>>,
}

impl RegionState {
    /// The pools of an address scope.
    pub fn pools_of(&self, scope: Id<AddressScope>) -> impl Iterator<Item = &Arc<SubnetPool>> {
        self.pools
            .pools_by_scope
            .get(&scope)
            .filter_map(|id| self.subnet_pools.get(id))
    }

    /// The subnets that were taken from a pool.
    pub fn subnets_from(&self, pool: Id<SubnetPool>) -> impl Iterator<Item = &Arc<Subnet>> {
        self.pools
            .subnets_by_pool
            .get(&pool)
            .filter_map(|id| self.subnets.get(id))
    }

    /// The pool that is meant when nobody names one.
    pub fn default_pool(&self, ip_version: u8) -> Option<Id<SubnetPool>> {
        self.pools.default_pool.get(&ip_version).copied()
    }

    /// Whether the caller may see a pool: its own, or one that was shared with it.
    pub fn sees_pool(&self, caller: &Caller, pool: &SubnetPool) -> bool {
        caller.is_admin
            || pool.standard.project_id == caller.project_id
            || self.shared_with(SharedType::SubnetPool, pool.id.uuid(), &caller.project_id)
    }

    /// Whether the caller may see an address scope: its own, or one that was shared with it.
    pub fn sees_scope(&self, caller: &Caller, scope: &AddressScope) -> bool {
        caller.is_admin
            || scope.standard.project_id == caller.project_id
            || self.shared_with(SharedType::AddressScope, scope.id.uuid(), &caller.project_id)
    }

    /// The pools that a project sees; in no order, some perhaps twice.
    pub fn pools_seen_by(&self, project: &str) -> impl Iterator<Item = Id<SubnetPool>> + use<'_> {
        let own = self.pools.pools_by_project.get(&project.to_owned()).copied();
        let given = self.given_to(SharedType::SubnetPool, Access::AccessAsShared, project);
        own.chain(given.map(Id::from_uuid))
    }

    /// The address scopes that a project sees; in no order, some perhaps twice.
    pub fn scopes_seen_by(&self, project: &str) -> impl Iterator<Item = Id<AddressScope>> + use<'_> {
        let own = self.pools.scopes_by_project.get(&project.to_owned()).copied();
        let given = self.given_to(SharedType::AddressScope, Access::AccessAsShared, project);
        own.chain(given.map(Id::from_uuid))
    }

    pub(super) fn index_pool_of(&mut self, subnet: &Subnet) {
        if let Some(pool) = subnet.subnetpool_id {
            self.pools.subnets_by_pool.insert(pool, subnet.id);
        }
    }

    pub(super) fn unindex_pool_of(&mut self, subnet: &Subnet) {
        if let Some(pool) = subnet.subnetpool_id {
            self.pools.subnets_by_pool.remove(pool, subnet.id);
        }
    }
}

impl Indexed for AddressScope {
    fn index(&self, state: &mut RegionState) {
        let project = self.standard.project_id.clone();
        state.pools.scopes_by_project.insert(project, self.id);
    }

    fn unindex(&self, state: &mut RegionState) {
        let project = self.standard.project_id.clone();
        state.pools.scopes_by_project.remove(project, self.id);
    }
}

impl Indexed for SubnetPool {
    fn index(&self, state: &mut RegionState) {
        let pools = &mut state.pools;
        pools
            .pools_by_project
            .insert(self.standard.project_id.clone(), self.id);
        if let Some(scope) = self.address_scope_id {
            pools.pools_by_scope.insert(scope, self.id);
        }
        if self.is_default {
            pools.default_pool.insert(self.ip_version(), self.id);
        }
    }

    fn unindex(&self, state: &mut RegionState) {
        let pools = &mut state.pools;
        pools
            .pools_by_project
            .remove(self.standard.project_id.clone(), self.id);
        if let Some(scope) = self.address_scope_id {
            pools.pools_by_scope.remove(scope, self.id);
        }
        if self.is_default {
            pools.default_pool.remove(&self.ip_version(), &self.id);
        }
    }
}
