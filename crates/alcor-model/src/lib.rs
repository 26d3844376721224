//! The words of Alcor: typed ids, addresses and the resources that a region holds.
//!
//! Plain values with the invariants that one value can check by itself. No I/O, no async runtime, no HTTP;
//! rules that need other resources (an address is free, a network is in use) live in `alcor-region`.

pub mod effective;
pub mod id;
pub mod net;
pub mod resource;
pub mod row;
pub mod trace;

pub use id::{Id, Revision};
pub use net::{MacAddr, Vni};
pub use resource::{
    AddressGroup, AddressScope, AutoAllocatedTopology, DefaultSecurityGroupRule, FloatingIp, GatewayNode,
    Host, HostRuntime, KeptReply, Label, Network, NetworkSegmentRange, Port, PortForwarding, PortRuntime,
    Quota, RbacPolicy, Router, SecurityGroup, SecurityGroupRule, Segment, Subnet, SubnetPool,
};
pub use row::{Change, Kind, Resource, ResourceKey, Row};
