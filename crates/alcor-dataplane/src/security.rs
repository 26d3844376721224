//! Rows of security: which groups a label means, and what a group allows.
//!
//! A label is a set of groups; a port has one label. What a port is allowed is the union of what its groups
//! allow, so nothing here has an order. Names, defaults and who may use which group are decided before.

use std::num::NonZeroU16;

pub use alcor_model::SecurityGroup;
use alcor_model::{Id, Network, Port};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// Rules that one policy row may have, both directions together.
pub const MAX_RULES: usize = 16_384;
/// Groups that one label may mean: as many as a port may be under.
pub const MAX_GROUPS_PER_LABEL: usize = Port::MAX_SECURITY_GROUPS;

/// What a label of a network means; labels of other networks are other labels. Label 0 is the empty set and has
/// no row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabelRow {
    /// The network.
    pub network_id: Id<Network>,
    /// With the network, the key.
    pub label: NonZeroU16,
    /// The groups of the set.
    pub groups: Vec<Id<SecurityGroup>>,
}

/// The rules of one group, for the ports of one network that are under it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyRow {
    /// The network.
    pub network_id: Id<Network>,
    /// With the network, the key.
    pub group_id: Id<SecurityGroup>,
    /// Answers to what is allowed are allowed too. A port with one group that is not stateful has no state.
    pub stateful: bool,
    /// What may come to the ports.
    pub ingress: Vec<Rule>,
    /// What the ports may send.
    pub egress: Vec<Rule>,
}

/// One rule: packets that it matches are allowed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Rule {
    /// Which packets.
    pub family: Family,
    /// What they carry; `None` is anything.
    pub service: Option<Service>,
    /// With whom.
    pub remote: Remote,
}

/// An IP version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Family {
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
}

impl Family {
    /// The family of an address.
    pub const fn of(ip: std::net::IpAddr) -> Self {
        if ip.is_ipv4() { Self::Ipv4 } else { Self::Ipv6 }
    }
}

/// A protocol and a range of its *points*: destination ports, or ICMP type * 256 + code; 0 in protocols that
/// have neither.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Service {
    /// IP protocol number.
    pub protocol: u8,
    /// First point.
    pub first: u16,
    /// Last point.
    pub last: u16,
}

impl Service {
    /// All of a protocol.
    pub const fn all(protocol: u8) -> Self {
        Self::ports(protocol, 0, u16::MAX)
    }

    /// A range of destination ports.
    pub const fn ports(protocol: u8, first: u16, last: u16) -> Self {
        Self {
            protocol,
            first,
            last,
        }
    }

    /// An ICMP or ICMPv6 type, with one code or all.
    pub const fn icmp(protocol: u8, kind: u8, code: Option<u8>) -> Self {
        let first = (kind as u16) << 8;
        match code {
            Some(code) => Self::ports(protocol, first | code as u16, first | code as u16),
            None => Self::ports(protocol, first, first | 0xff),
        }
    }
}

/// The other side of a rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Remote {
    /// Anybody.
    Any,
    /// Addresses in one of these blocks; blocks of another family than the rule's match nothing.
    Prefixes(Vec<IpNet>),
    /// Ports of the network whose label's set has this group.
    Group(Id<SecurityGroup>),
}
