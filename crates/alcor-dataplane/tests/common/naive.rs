//! Neutron's rules as its API has them, judged one by one: nothing compiled, nothing remembered but which packet
//! began a connection. What it says is what the model must do.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use alcor_dataplane::{
    PolicyRow,
    security::{Family, Remote, Rule, Service},
    testing::rng::Rng,
};
use ipnet::IpNet;

use crate::{
    common::{RED, id},
    secured::{Station, TCP, UDP, group},
};

pub const ICMP: u8 = 1;
pub const ICMPV6: u8 = 58;
pub const SCTP: u8 = 132;
pub const GRE: u8 = 47;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    Ingress,
    Egress,
}

#[derive(Clone, Debug)]
pub enum NaiveRemote {
    Prefix(IpNet),
    Group(u128),
    AddressGroup(Vec<IpNet>),
}

/// A rule as `POST /v2.0/security-group-rules` takes it, names already numbers.
#[derive(Clone, Debug)]
pub struct NaiveRule {
    pub direction: Direction,
    pub ethertype: Family,
    pub protocol: Option<u8>,
    /// First port, or ICMP type.
    pub min: Option<u16>,
    /// Last port, or ICMP code.
    pub max: Option<u16>,
    pub remote: Option<NaiveRemote>,
}

#[derive(Clone, Debug)]
pub struct NaiveGroup {
    pub stateful: bool,
    pub rules: Vec<NaiveRule>,
}

/// What rules can see of a packet.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    pub family: Family,
    pub protocol: u8,
    /// Destination port, or ICMP type and code.
    pub port: u16,
    pub icmp: (u8, u8),
}

impl NaiveRule {
    fn matches(&self, direction: Direction, seen: &Seen, other: IpAddr, groups: &BTreeSet<u128>) -> bool {
        if self.direction != direction || self.ethertype != seen.family {
            return false;
        }
        if let Some(protocol) = self.protocol {
            if protocol != seen.protocol {
                return false;
            }
            if matches!(protocol, ICMP | ICMPV6) {
                let kind = self.min.is_none_or(|kind| kind == u16::from(seen.icmp.0));
                let code = self.max.is_none_or(|code| code == u16::from(seen.icmp.1));
                if !kind || !code {
                    return false;
                }
            } else if let (Some(min), Some(max)) = (self.min, self.max)
                && (seen.port < min || seen.port > max)
            {
                return false;
            }
        }
        match &self.remote {
            None => true,
            Some(NaiveRemote::Prefix(block)) => block.contains(&other),
            Some(NaiveRemote::AddressGroup(blocks)) => blocks.iter().any(|block| block.contains(&other)),
            Some(NaiveRemote::Group(group)) => groups.contains(group),
        }
    }

    fn compiled(&self) -> Rule {
        let service = self
            .protocol
            .map(|protocol| match (protocol, self.min, self.max) {
                (ICMP | ICMPV6, Some(kind), code) => {
                    Service::icmp(protocol, kind as u8, code.map(|code| code as u8))
                }
                (_, Some(min), Some(max)) => Service::ports(protocol, min, max),
                _ => Service::all(protocol),
            });
        Rule {
            family: self.ethertype,
            service,
            remote: match &self.remote {
                None => Remote::Any,
                Some(NaiveRemote::Prefix(block)) => Remote::Prefixes(vec![*block]),
                Some(NaiveRemote::AddressGroup(blocks)) => Remote::Prefixes(blocks.clone()),
                Some(NaiveRemote::Group(number)) => Remote::Group(group(*number)),
            },
        }
    }
}

impl NaiveGroup {
    /// The row that a control plane would make of it.
    pub fn row(&self, number: u128) -> PolicyRow {
        let of = |direction| {
            let rules = self.rules.iter().filter(|rule| rule.direction == direction);
            rules.map(NaiveRule::compiled).collect()
        };
        PolicyRow {
            network_id: id(RED),
            group_id: group(number),
            stateful: self.stateful,
            ingress: of(Direction::Ingress),
            egress: of(Direction::Egress),
        }
    }
}

pub type Groups = BTreeMap<u128, NaiveGroup>;

/// Whether rules allow a packet that begins something.
pub fn allowed(
    groups: &Groups,
    set: &BTreeSet<u128>,
    direction: Direction,
    seen: &Seen,
    other: IpAddr,
    other_set: &BTreeSet<u128>,
) -> bool {
    let rules = set
        .iter()
        .filter_map(|group| groups.get(group))
        .flat_map(|group| &group.rules);
    rules
        .into_iter()
        .any(|rule| rule.matches(direction, seen, other, other_set))
}

fn block(rng: &mut Rng, family: Family, stations: &[u128]) -> IpNet {
    let station = Station(rng.pick(stations).unwrap_or_default());
    let ip: IpAddr = station.address(family).parse().unwrap();
    let len = match family {
        Family::Ipv4 => rng.one([0, 8, 24, 28, 29, 30, 31, 32]),
        Family::Ipv6 => rng.one([0, 64, 124, 125, 126, 127, 128]),
    };
    IpNet::new(ip, len).unwrap()
}

/// Any rule that Neutron would take.
pub fn random_rule(rng: &mut Rng, groups: usize, stations: &[u128]) -> NaiveRule {
    let ethertype = rng.one([Family::Ipv4, Family::Ipv6]);
    let icmp = if ethertype == Family::Ipv4 { ICMP } else { ICMPV6 };
    let protocol = rng.one([
        None,
        Some(TCP),
        Some(TCP),
        Some(UDP),
        Some(icmp),
        Some(SCTP),
        Some(GRE),
    ]);
    let (min, max) = match protocol {
        Some(TCP | UDP | SCTP) if rng.chance(75) => {
            let first = 78 + rng.below(6) as u16;
            let last = if rng.chance(10) {
                u16::MAX
            } else {
                first + rng.below(4) as u16
            };
            (Some(if rng.chance(5) { 0 } else { first }), Some(last))
        }
        Some(ICMP | ICMPV6) if rng.chance(75) => {
            let kind = if ethertype == Family::Ipv4 { 8 } else { 128 };
            let kind = rng.one([kind, kind, 3, 13]);
            (Some(kind), rng.chance(50).then(|| rng.below(2) as u16))
        }
        _ => (None, None),
    };
    let blocks = |rng: &mut Rng| {
        (0..rng.below(3))
            .map(|_| block(rng, ethertype, stations))
            .collect()
    };
    NaiveRule {
        direction: rng.one([Direction::Ingress, Direction::Egress]),
        ethertype,
        protocol,
        min,
        max,
        remote: match rng.below(8) {
            0..3 => None,
            3..5 => Some(NaiveRemote::Prefix(block(rng, ethertype, stations))),
            5..7 => Some(NaiveRemote::Group(1 + rng.below(groups) as u128)),
            _ => Some(NaiveRemote::AddressGroup(blocks(rng))),
        },
    }
}

pub fn random_group(rng: &mut Rng, stateful: bool, groups: usize, stations: &[u128]) -> NaiveGroup {
    let count = rng.one([0, 1, 2, 4, 8, 16]);
    NaiveGroup {
        stateful,
        rules: (0..count).map(|_| random_rule(rng, groups, stations)).collect(),
    }
}
