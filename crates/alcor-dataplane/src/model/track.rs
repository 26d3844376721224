//! The filter of one port: its connections, and the fragments that may follow.

use std::{collections::BTreeMap, net::IpAddr};

use alcor_dataplane_abi::{
    connection::{self, Connection, Direction, FRAGMENT, Segment, Step},
    flow::{Identity, Sides, Upper, identify, point_of},
};

use super::{
    flow::{Flow, FragmentKey, Part, is_discovery, overlaps_header, quoted_packet},
    tables::Limits,
};
use crate::{DropReason, rules::InForce, security::Family};

/// A connection of a port: own address, other address, and the rest.
pub(super) type Key = (IpAddr, IpAddr, Sides);

/// A packet whose first fragment passed.
#[derive(Clone, Copy, Debug)]
struct Begun {
    expires_ns: u64,
    upper: Upper,
}

/// What a port's filter remembers.
#[derive(Clone, Debug, Default)]
pub(super) struct Tracker {
    connections: BTreeMap<Key, Connection>,
    fragments: BTreeMap<FragmentKey, Begun>,
}

/// Label of the other side.
#[derive(Clone, Copy)]
pub(super) enum Label {
    /// As a row or the tunnel header says.
    Known(u16),
    /// Nobody knows whom the packet goes to: the rules are asked about label 0, and a refusal is not remembered.
    Unknown,
}

impl Label {
    const fn number(self) -> u16 {
        match self {
            Self::Known(label) => label,
            Self::Unknown => 0,
        }
    }
}

/// One packet at one port, and all that the filter needs to know.
pub(super) struct Passing<'a> {
    pub(super) direction: Direction,
    pub(super) label: Label,
    pub(super) flow: Flow<'a>,
    pub(super) rules: &'a InForce,
    pub(super) now: u64,
    pub(super) limits: Limits,
}

impl Passing<'_> {
    const fn denied(&self) -> DropReason {
        match self.direction {
            Direction::Ingress => DropReason::IngressDenied,
            Direction::Egress => DropReason::EgressDenied,
        }
    }

    /// Own address and the other one.
    const fn addresses(&self) -> (IpAddr, IpAddr) {
        match self.direction {
            Direction::Ingress => (self.flow.destination, self.flow.source),
            Direction::Egress => (self.flow.source, self.flow.destination),
        }
    }

    /// Asks the rules about a connection that began in this direction.
    fn allows(&self, began: Direction, label: u16, protocol: u8, point: u16) -> bool {
        let table = self.rules.set.table(began, self.flow.family());
        table.allows(self.addresses().1, label, protocol, point)
    }
}

impl Tracker {
    /// The connections that are not forgotten yet.
    pub(super) fn live(&self, now: u64) -> impl Iterator<Item = (&Key, &Connection)> {
        self.connections
            .iter()
            .filter(move |(_, connection)| connection.is_live(now))
    }

    /// Whether the packet passes.
    pub(super) fn judge(&mut self, passing: &Passing<'_>) -> Result<(), DropReason> {
        let upper = match passing.flow.part {
            Part::Whole(upper) | Part::First(_, upper) => upper,
            Part::Later(key, offset) => self.begun(&key, offset, passing.now)?,
        };
        if passing.flow.family() == Family::Ipv6 && is_discovery(&upper) {
            return Err(DropReason::SpoofedNd);
        }
        self.decide(passing, &upper)?;
        if let Part::First(key, upper) = passing.flow.part {
            self.expect(key, upper, passing);
        }
        Ok(())
    }

    /// The upper layer of the packet that a later fragment belongs to.
    fn begun(&self, key: &FragmentKey, offset: u16, now: u64) -> Result<Upper, DropReason> {
        let begun = self.fragments.get(key).filter(|begun| begun.expires_ns > now);
        let upper = begun.ok_or(DropReason::UnknownFragment)?.upper;
        if overlaps_header(&upper, offset) {
            return Err(DropReason::UnknownFragment);
        }
        // A later fragment opens and closes nothing.
        Ok(Upper { tcp: 0, ..upper })
    }

    /// Lets later fragments follow. When there is no room, the packet that began first is forgotten.
    fn expect(&mut self, key: FragmentKey, upper: Upper, passing: &Passing<'_>) {
        if !self.fragments.contains_key(&key) && self.fragments.len() >= passing.limits.fragments_per_port {
            let oldest = self.fragments.iter().min_by_key(|(_, begun)| begun.expires_ns);
            if let Some(oldest) = oldest.map(|(key, _)| *key) {
                self.fragments.remove(&oldest);
            }
        }
        let expires_ns = passing.now.saturating_add(FRAGMENT);
        self.fragments.insert(key, Begun { expires_ns, upper });
    }

    fn decide(&mut self, passing: &Passing<'_>, upper: &Upper) -> Result<(), DropReason> {
        let direction = passing.direction;
        if passing.rules.set.stateful {
            match identify(upper, direction) {
                Identity::Tracked {
                    sides,
                    tracking,
                    begins,
                } => {
                    let (own, other) = passing.addresses();
                    let key = (own, other, sides);
                    let known = self.connections.get(&key).copied();
                    if begins || known.is_some_and(|known| known.is_live(passing.now)) {
                        let segment = Segment {
                            direction,
                            tracking,
                            tcp: upper.tcp,
                            label: passing.label.number(),
                        };
                        let step = connection::step(known, &segment, passing.rules.epoch, passing.now);
                        return self.follow(passing, key, step);
                    }
                }
                Identity::Error => {
                    if let Some((key, step)) = self.related(passing) {
                        return self.follow(passing, key, step);
                    }
                }
                Identity::Single => {}
            }
        }
        match passing.allows(direction, passing.label.number(), upper.protocol, upper.point) {
            true => Ok(()),
            false => Err(passing.denied()),
        }
    }

    /// The connection that an ICMP error is about.
    fn related(&self, passing: &Passing<'_>) -> Option<(Key, Step)> {
        let (source, destination, upper) = quoted_packet(passing.flow.family(), passing.flow.bytes)?;
        // The quoted packet went the other way.
        let (way, own, other) = match passing.direction {
            Direction::Ingress => (Direction::Egress, source, destination),
            Direction::Egress => (Direction::Ingress, destination, source),
        };
        let Identity::Tracked { sides, .. } = identify(&upper, way) else {
            return None;
        };
        // An error goes to whoever sent the packet.
        if passing.flow.destination != source {
            return None;
        }
        let key = (own, other, sides);
        let known = self.connections.get(&key).copied();
        Some((key, connection::related(known, passing.rules.epoch, passing.now)?))
    }

    /// Does what a step says.
    fn follow(&mut self, passing: &Passing<'_>, key: Key, step: Step) -> Result<(), DropReason> {
        match step {
            Step::Pass(connection) => {
                self.connections.insert(key, connection);
                Ok(())
            }
            Step::Deny(connection) => {
                self.refuse(passing, key, Some(connection));
                Err(passing.denied())
            }
            Step::Ask(question) => {
                let (_, other, sides) = key;
                let point = point_of(&sides, question.direction);
                let table = passing.rules.set.table(question.direction, passing.flow.family());
                if table.allows(other, question.label, sides.protocol, point) {
                    self.make_room(&key, passing)?;
                    self.connections.insert(key, question.allowed);
                    return Ok(());
                }
                self.refuse(passing, key, question.denied);
                Err(passing.denied())
            }
        }
    }

    /// Remembers what became of a connection that is refused.
    fn refuse(&mut self, passing: &Passing<'_>, key: Key, connection: Option<Connection>) {
        match (passing.label, connection) {
            (Label::Unknown, _) => {}
            (Label::Known(_), Some(connection)) => _ = self.connections.insert(key, connection),
            (Label::Known(_), None) => _ = self.connections.remove(&key),
        }
    }

    /// Room for one more connection: what is forgotten goes, then what is expendable, first what ends first.
    fn make_room(&mut self, key: &Key, passing: &Passing<'_>) -> Result<(), DropReason> {
        let limit = passing.limits.connections_per_port;
        if self.connections.contains_key(key) || self.connections.len() < limit {
            return Ok(());
        }
        self.connections
            .retain(|_, connection| connection.is_live(passing.now));
        if self.connections.len() < limit {
            return Ok(());
        }
        let expendable = self
            .connections
            .iter()
            .filter(|(_, connection)| connection.is_expendable());
        let first = expendable.min_by_key(|(_, connection)| connection.expires_ns);
        let first = first.map(|(key, _)| *key).ok_or(DropReason::ConnectionLimit)?;
        self.connections.remove(&first);
        Ok(())
    }
}
