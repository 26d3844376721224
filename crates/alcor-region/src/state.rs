//! The tables of a region and their indexes. Knows how rows hang together, not which changes are allowed.
//!
//! A kind of rows is one line in the table at the end; what is derived from its rows is in the module of its group.

mod counts;
mod gateways;
mod hosts;
mod l2;
mod l3;
mod labels;
mod pools;
mod replies;
mod security;
mod sharing;

use std::sync::Arc;

use alcor_model::{
    AddressGroup, AddressScope, AutoAllocatedTopology, DefaultSecurityGroupRule, FloatingIp, GatewayNode,
    Host, HostRuntime, KeptReply, Label, Network, NetworkSegmentRange, Port, PortForwarding, PortRuntime,
    Quota, RbacPolicy, Resource, ResourceKey, Router, Row, SecurityGroup, SecurityGroupRule, Segment, Subnet,
    SubnetPool,
};
use alcor_store::{State, Table};
use counts::Counts;
use gateways::GatewayIndexes;
use hosts::HostIndexes;
pub use hosts::Zone;
use l2::L2Indexes;
use l3::L3Indexes;
use labels::LabelIndexes;
use pools::PoolIndexes;
use replies::ReplyIndexes;
use security::SecurityIndexes;
use sharing::SharingIndexes;

/// A kind of rows with a table of its own.
pub trait Stored: Row + Indexed {
    /// Its table.
    fn table(state: &RegionState) -> &Table<Self::Key, Self>;
    /// Its table, for [`RegionState`] only.
    fn table_mut(state: &mut RegionState) -> &mut Table<Self::Key, Self>;
}

/// What is derived from the rows of a kind. `index` and `unindex` must be exact inverses.
pub trait Indexed {
    /// A row is there now; its table does not have it yet.
    fn index(&self, _: &mut RegionState) {}
    /// A row is replaced or goes; its table still has it.
    fn unindex(&self, _: &mut RegionState) {}
    /// A row is gone for good.
    fn removed(&self, _: &mut RegionState) {}
}

impl RegionState {
    fn put_row<R: Stored>(&mut self, row: Arc<R>) -> Option<Arc<R>> {
        let key = row.key();
        let previous = R::table(self).get(&key).cloned();
        if let Some(previous) = &previous {
            previous.unindex(self);
            self.counts.remove(R::KIND, previous.project_id());
        }
        row.index(self);
        self.counts.add(R::KIND, row.project_id());
        R::table_mut(self).insert(key, row);
        previous
    }

    fn remove_row<R: Stored>(&mut self, key: &R::Key) -> Option<Arc<R>> {
        let row = R::table(self).get(key).cloned()?;
        row.unindex(self);
        self.counts.remove(R::KIND, row.project_id());
        R::table_mut(self).remove(key);
        row.removed(self);
        Some(row)
    }

    /// How many rows of a kind a project owns.
    pub fn count<R: Row>(&self, project_id: &str) -> u64 {
        self.counts.get(R::KIND, project_id)
    }
}

impl Indexed for Quota {}

impl Indexed for AutoAllocatedTopology {}

/// `table: Row` for each kind, then `group: Indexes` for each group of indexes.
macro_rules! tables {
    (tables { $($(#[$doc:meta])* $table:ident: $row:ident,)* } indexes { $($group:ident: $indexes:ty,)* }) => {
        /// Everything that a region holds, as one cheap value.
        #[derive(Clone, Default)]
        pub struct RegionState {
            $($table: Table<<$row as Row>::Key, $row>,)*
            $(pub(crate) $group: $indexes,)*
        }

        impl RegionState {
            $(
                $(#[$doc])*
                pub fn $table(&self) -> &Table<<$row as Row>::Key, $row> {
                    &self.$table
                }
            )*
        }

        $(
            impl Stored for $row {
                fn table(state: &RegionState) -> &Table<Self::Key, Self> {
                    &state.$table
                }
                fn table_mut(state: &mut RegionState) -> &mut Table<Self::Key, Self> {
                    &mut state.$table
                }
            }
        )*

        impl State for RegionState {
            fn put(&mut self, row: Resource) -> Option<Resource> {
                match row {
                    $(Resource::$row(row) => self.put_row(row).map(Resource::$row),)*
                }
            }

            fn get(&self, key: &ResourceKey) -> Option<Resource> {
                match key {
                    $(ResourceKey::$row(key) => self.$table.get(key).cloned().map(Resource::$row),)*
                }
            }

            fn remove(&mut self, key: &ResourceKey) -> Option<Resource> {
                match key {
                    $(ResourceKey::$row(key) => self.remove_row::<$row>(key).map(Resource::$row),)*
                }
            }
        }

        #[cfg(test)]
        impl RegionState {
            /// How many rows of a kind each project owns.
            pub(crate) fn counts_of(&self, kind: alcor_model::Kind) -> std::collections::BTreeMap<String, u64> {
                self.counts.of(kind)
            }

            /// Everything that is derived from rows.
            pub(crate) fn indexes(&self) -> impl PartialEq + use<'_> {
                ($(&self.$group,)*)
            }

        }

        impl RegionState {
            /// All rows of a kind.
            pub fn rows(&self, kind: alcor_model::Kind) -> Box<dyn Iterator<Item = Resource> + Send + '_> {
                match kind {
                    $(alcor_model::Kind::$row => Box::new(self.$table.iter().cloned().map(Resource::$row)),)*
                }
            }
        }
    };
}

tables! {
    tables {
        /// All hosts, by name.
        hosts: Host,
        /// What was last known of hosts.
        host_runtimes: HostRuntime,
        /// All gateways, by id.
        gateway_nodes: GatewayNode,
        /// All networks.
        networks: Network,
        /// All segments: each network has one.
        segments: Segment,
        /// All subnets.
        subnets: Subnet,
        /// All address groups.
        address_groups: AddressGroup,
        /// All security groups.
        security_groups: SecurityGroup,
        /// All rules of security groups.
        security_group_rules: SecurityGroupRule,
        /// All templates of rules, also those that were removed.
        default_security_group_rules: DefaultSecurityGroupRule,
        /// Which identifiers of networks are whose.
        network_segment_ranges: NetworkSegmentRange,
        /// What numbers mean in networks.
        labels: Label,
        /// All ports.
        ports: Port,
        /// What hosts last reported.
        runtimes: PortRuntime,
        /// All routers.
        routers: Router,
        /// All floating IPs.
        floating_ips: FloatingIp,
        /// All port forwardings.
        port_forwardings: PortForwarding,
        /// The limits of projects that have limits of their own.
        quotas: Quota,
        /// Replies that are kept for repeats of their requests.
        kept_replies: KeptReply,
        /// Networks that projects were given without saying how.
        auto_allocated_topologies: AutoAllocatedTopology,
        /// What is shared with whom.
        rbac_policies: RbacPolicy,
        /// All address scopes.
        address_scopes: AddressScope,
        /// All subnet pools.
        subnet_pools: SubnetPool,
    }
    indexes {
        counts: Counts,
        host_indexes: HostIndexes,
        gateway_indexes: GatewayIndexes,
        l2: L2Indexes,
        l3: L3Indexes,
        label_indexes: LabelIndexes,
        replies: ReplyIndexes,
        pools: PoolIndexes,
        sharing: SharingIndexes,
        security: SecurityIndexes,
    }
}
