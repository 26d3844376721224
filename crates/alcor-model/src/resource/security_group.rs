//! Security groups, their rules, and the templates that new groups get their first rules from.
//!
//! A rule row says what matches in numbers; how the client spelled the protocol is kept beside the number, for the API
//! only.

use std::fmt;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{AddressGroup, Standard};
use crate::{Id, Revision};

/// A set of rules that ports are put under. What no rule of a port's groups allows is dropped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecurityGroup {
    /// Identity.
    pub id: Id<SecurityGroup>,
    /// Shard revision that last changed the row; set by the store.
    pub revision: Revision,
    /// Standard attributes.
    #[serde(flatten)]
    pub standard: Standard,
    /// Whether answers to allowed packets are allowed too (connection tracking).
    pub stateful: bool,
    /// The one group of its project that ports get when nothing else is said.
    pub is_default: bool,
}

impl SecurityGroup {
    /// The name of every project's default group; no other group may have it.
    pub const DEFAULT_NAME: &'static str = "default";
}

/// Which way packets go, seen from the port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// To the port.
    Ingress,
    /// From the port.
    Egress,
}

impl Direction {
    /// Neutron's spelling.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        }
    }
}

/// The address family that a rule is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Ethertype {
    /// IPv4.
    #[serde(rename = "IPv4")]
    Ipv4,
    /// IPv6.
    #[serde(rename = "IPv6")]
    Ipv6,
}

impl Ethertype {
    /// Neutron's spelling.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ipv4 => "IPv4",
            Self::Ipv6 => "IPv6",
        }
    }

    /// The family of a prefix.
    pub const fn of(prefix: &IpNet) -> Self {
        match prefix {
            IpNet::V4(_) => Self::Ipv4,
            IpNet::V6(_) => Self::Ipv6,
        }
    }
}

/// An IP protocol: its number, and how the client wrote it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Protocol {
    /// What is matched.
    pub number: u8,
    /// A name of [`Protocol::NAMES`] or the number in decimal; what the API shows.
    pub spelled: String,
}

impl Protocol {
    /// ICMP.
    pub const ICMP: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// DCCP.
    pub const DCCP: u8 = 33;
    /// ICMP for IPv6.
    pub const ICMPV6: u8 = 58;
    /// SCTP.
    pub const SCTP: u8 = 132;
    /// UDP-Lite.
    pub const UDPLITE: u8 = 136;
    /// The name of ICMP for IPv6; `icmp` and `icmpv6` of IPv6 rules become it.
    pub const NAME_ICMPV6: &'static str = "ipv6-icmp";

    /// The names that Neutron knows, with the numbers that IANA gave them.
    pub const NAMES: [(&'static str, u8); 25] = [
        ("ah", 51),
        ("dccp", Self::DCCP),
        ("egp", 8),
        ("esp", 50),
        ("gre", 47),
        ("hopopt", 0),
        ("icmp", Self::ICMP),
        ("icmpv6", Self::ICMPV6),
        ("igmp", 2),
        ("ip", 0),
        ("ipip", 4),
        ("ipv6-encap", 41),
        ("ipv6-frag", 44),
        (Self::NAME_ICMPV6, Self::ICMPV6),
        ("ipv6-nonxt", 59),
        ("ipv6-opts", 60),
        ("ipv6-route", 43),
        ("ospf", 89),
        ("pgm", 113),
        ("rsvp", 46),
        ("sctp", Self::SCTP),
        ("tcp", Self::TCP),
        ("udp", Self::UDP),
        ("udplite", Self::UDPLITE),
        ("vrrp", 112),
    ];

    /// Reads a name, in any case, or a number from 0 to 255.
    pub fn parse(text: &str) -> Option<Self> {
        if let Ok(number) = text.parse::<u8>() {
            return Some(Self {
                number,
                spelled: number.to_string(),
            });
        }
        Self::NAMES
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(text))
            .map(|(name, number)| Self {
                number: *number,
                spelled: (*name).to_owned(),
            })
    }

    /// Whether a rule of the protocol may name ports.
    pub const fn has_ports(&self) -> bool {
        matches!(
            self.number,
            Self::TCP | Self::UDP | Self::DCCP | Self::SCTP | Self::UDPLITE
        )
    }

    /// Whether a rule's range is a type and a code.
    pub const fn is_icmp(&self) -> bool {
        matches!(self.number, Self::ICMP | Self::ICMPV6)
    }

    /// Whether the protocol exists in IPv6 only: its extension headers and ICMPv6.
    pub const fn is_ipv6_only(&self) -> bool {
        matches!(self.number, 41 | 43 | 44 | Self::ICMPV6 | 59 | 60)
    }
}

/// Whom a rule is about: where packets come from (ingress) or go to (egress).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Remote {
    /// Everybody.
    #[default]
    Any,
    /// Addresses of a prefix, as the client wrote it: host bits may be set, and do not count.
    Prefix(IpNet),
    /// Ports under a security group.
    Group(Id<SecurityGroup>),
    /// Addresses of an address group.
    AddressGroup(Id<AddressGroup>),
}

/// What a rule, or a template of one, matches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleMatch<R> {
    /// Which way packets go.
    pub direction: Direction,
    /// Which family they are of.
    pub ethertype: Ethertype,
    /// Which protocol; any when none.
    pub protocol: Option<Protocol>,
    /// First destination port, or the ICMP type; any when none.
    pub port_range_min: Option<u16>,
    /// Last destination port, or the ICMP code; any when none.
    pub port_range_max: Option<u16>,
    /// With whom.
    pub remote: R,
}

/// A rule of a security group: packets that it matches are allowed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecurityGroupRule {
    /// Identity.
    pub id: Id<SecurityGroupRule>,
    /// Shard revision that last changed the row; set by the store.
    pub revision: Revision,
    /// Standard attributes. A rule has no name.
    #[serde(flatten)]
    pub standard: Standard,
    /// The group.
    pub security_group_id: Id<SecurityGroup>,
    /// What it allows.
    #[serde(rename = "match")]
    pub matches: RuleMatch<Remote>,
}

/// Whom a template is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TemplateRemote {
    /// The group that the rule is made for; Neutron writes `PARENT`.
    Parent,
    /// Always the same.
    Fixed(Remote),
}

/// A template that new security groups get a rule from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DefaultSecurityGroupRule {
    /// Identity.
    pub id: Id<DefaultSecurityGroupRule>,
    /// Shard revision that last changed the row; set by the store.
    pub revision: Revision,
    /// Standard attributes. A template belongs to the platform and has no name.
    #[serde(flatten)]
    pub standard: Standard,
    /// What the rules allow.
    #[serde(rename = "match")]
    pub matches: RuleMatch<TemplateRemote>,
    /// Whether projects' default groups get it.
    pub used_in_default_sg: bool,
    /// Whether other groups get it.
    pub used_in_non_default_sg: bool,
    /// Deleted, but one of those that every region begins with: the row stays, so that it is not made again.
    pub removed: bool,
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Ethertype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
