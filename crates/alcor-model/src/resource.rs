//! The resources of a region, as they are stored: one row each, body as JSON, a file a resource.
//!
//! Field names are Neutron's where Neutron has the attribute. A field that was added later has a default, so that
//! rows that were written before it can be read. Which kinds of rows there are is said in [`crate::row`].

mod address_group;
mod auto_topology;
mod gateway_node;
mod host;
mod kept_reply;
mod label;
mod network;
mod port;
mod quota;
mod rbac;
mod router;
mod security_group;
mod segment;
mod segment_range;
mod subnet;
mod subnet_pool;

pub use address_group::AddressGroup;
pub use auto_topology::AutoAllocatedTopology;
pub use gateway_node::GatewayNode;
pub use host::{
    DEFAULT_ZONE, EXTERNAL_NETWORKS_MAX, Host, HostNetwork, HostRuntime, HostWord, KnownRow, NAME_BYTES_MAX,
    REASON_CHARS_MAX, RefusedRow, WordError, is_name, is_tunnel_ip, kept_reason,
};
use jiff::Timestamp;
pub use kept_reply::KeptReply;
pub use label::Label;
pub use network::Network;
pub use port::{
    AddressPair, Binding, BindingState, DataPlaneStatus, ExtraDhcpOption, FixedIp, Port, PortRuntime,
    PortStatus,
};
pub use quota::Quota;
pub use rbac::{Access, RbacPolicy, SharedType};
pub use router::{
    Association, FLOATING_IP, FloatingIp, FloatingIpWord, Gateway, PortForwarding, PortRange, ROUTER_GATEWAY,
    ROUTER_INTERFACE, Router, RouterInterface,
};
pub use security_group::{
    DefaultSecurityGroupRule, Direction, Ethertype, Protocol, Remote, RuleMatch, SecurityGroup,
    SecurityGroupRule, TemplateRemote,
};
pub use segment::Segment;
pub use segment_range::NetworkSegmentRange;
use serde::{Deserialize, Serialize};
pub use subnet::{AllocationPool, HostRoute, Ipv6Mode, Subnet};
pub use subnet_pool::{AddressScope, SubnetPool};

/// What every API resource carries besides its own attributes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standard {
    /// Owner.
    pub project_id: String,
    /// Free text for people, at most 255 characters.
    pub name: String,
    /// Free text for people, at most 255 characters.
    pub description: String,
    /// Sorted, without duplicates, each at most 255 characters.
    pub tags: Vec<String>,
    /// When the resource was created.
    pub created_at: Timestamp,
    /// When the resource last changed.
    pub updated_at: Timestamp,
    /// Counts the changes of this resource, for clients (`If-Match`); not the shard's revision.
    pub revision_number: u64,
}
