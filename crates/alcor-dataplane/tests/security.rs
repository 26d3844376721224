//! The model against a naive reading of Neutron's rules: random groups, ports and packets on two hosts, while
//! rules and memberships change.
#![allow(clippy::unwrap_used)]

mod common;
#[path = "common/naive.rs"]
mod naive;
#[path = "security/order.rs"]
mod order;
#[path = "common/secured.rs"]
mod secured;

use std::collections::{BTreeMap, BTreeSet};

use alcor_dataplane::{DropReason, Row, security::Family, testing::rng::Rng};
use naive::{Direction, GRE, Groups, ICMP, ICMPV6, SCTP, Seen, allowed, random_group};
use proptest::prelude::*;
use secured::{Rig, Station, TCP, Talk, UDP};

const STATIONS: [u128; 5] = [11, 12, 13, 14, 15];
const GROUPS: usize = 4;
const EVENTS: usize = 150;

/// What a packet is, apart from who sends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Tcp(u16, u16, u8),
    Udp(u16, u16),
    Echo(bool, u16),
    Timestamp(bool),
    Sctp(u16, u16),
    Gre,
}

const SYN: u8 = 2;
const ACK: u8 = 16;

impl Kind {
    fn random(rng: &mut Rng) -> Self {
        let (a, b) = (80 + rng.below(3) as u16, 80 + rng.below(3) as u16);
        match rng.below(10) {
            0..4 => Self::Tcp(a, b, rng.one([SYN, SYN, SYN | ACK, ACK, ACK, ACK, ACK | 1, 4])),
            4..6 => Self::Udp(a, b),
            6..8 => Self::Echo(rng.chance(50), rng.below(2) as u16),
            8 => Self::Sctp(a, b),
            _ => rng.one([Self::Gre, Self::Timestamp(true), Self::Timestamp(false)]),
        }
    }

    fn frame(self, talk: Talk) -> Vec<u8> {
        match self {
            Self::Tcp(from, to, flags) => talk.tcp((from, to), flags),
            Self::Udp(from, to) => talk.udp((from, to)),
            Self::Echo(request, identifier) => talk.echo(request, identifier),
            Self::Timestamp(request) => talk.icmp(if request { 13 } else { 14 }, 0, &[0; 16]),
            Self::Sctp(from, to) => {
                let ports = [from.to_be_bytes(), to.to_be_bytes()].concat();
                talk.other(SCTP, &[&ports[..], &[0; 8]].concat())
            }
            Self::Gre => talk.other(GRE, b"tunnelled"),
        }
    }

    fn seen(self, family: Family) -> Seen {
        let icmp = |v4, v6| {
            let (protocol, kind) = if family == Family::Ipv4 {
                (ICMP, v4)
            } else {
                (ICMPV6, v6)
            };
            (protocol, 0, (kind, 0))
        };
        let (protocol, port, icmp) = match self {
            Self::Tcp(_, to, _) => (TCP, to, (0, 0)),
            Self::Udp(_, to) => (UDP, to, (0, 0)),
            Self::Sctp(_, to) => (SCTP, to, (0, 0)),
            Self::Echo(true, _) => icmp(8, 128),
            Self::Echo(false, _) => icmp(0, 129),
            Self::Timestamp(true) => icmp(13, 13),
            Self::Timestamp(false) => icmp(14, 14),
            Self::Gre => (GRE, 0, (0, 0)),
        };
        Seen {
            family,
            protocol,
            port,
            icmp,
        }
    }

    /// The packet that this one would answer.
    fn turned(self) -> Self {
        match self {
            Self::Tcp(from, to, flags) => Self::Tcp(to, from, flags),
            Self::Udp(from, to) => Self::Udp(to, from),
            Self::Echo(request, identifier) => Self::Echo(!request, identifier),
            Self::Sctp(from, to) => Self::Sctp(to, from),
            Self::Timestamp(request) => Self::Timestamp(!request),
            Self::Gre => self,
        }
    }

    fn without_flags(self) -> Self {
        if let Self::Tcp(from, to, _) = self {
            Self::Tcp(from, to, 0)
        } else {
            self
        }
    }

    /// ICMPv6 has no timestamps.
    fn is_tracked(self, family: Family) -> bool {
        !matches!(self, Self::Timestamp(_)) || family == Family::Ipv4
    }

    fn has(self, flag: u8) -> bool {
        matches!(self, Self::Tcp(_, _, flags) if flags & flag != 0)
    }
}

/// A connection as one port sees it: who it is with, and the packet that began it, as sent by its beginner.
type Key = (Station, Family, Kind, Began);
/// Whether the port's side began.
type Began = bool;

/// What a port remembers.
#[derive(Clone, Debug, Default)]
struct Memory {
    revoked: bool,
    /// Groups of the other side, when it was judged last.
    other_set: BTreeSet<u128>,
    /// FIN of the beginner, of the other one, RST.
    ends: (bool, bool, bool),
}

#[derive(Default)]
struct Naive {
    groups: Groups,
    /// Groups of each port; `None`: not filtered.
    sets: BTreeMap<Station, Option<BTreeSet<u128>>>,
    memory: BTreeMap<(Station, Key), Memory>,
}

impl Naive {
    fn set(&self, station: Station) -> BTreeSet<u128> {
        self.sets[&station].clone().unwrap_or_default()
    }

    fn rules_allow(
        &self,
        (at, other, other_set): (Station, Station, &BTreeSet<u128>),
        direction: Direction,
        family: Family,
        kind: Kind,
    ) -> bool {
        let address = other.address(family).parse().unwrap();
        let set = self.set(at);
        allowed(
            &self.groups,
            &set,
            direction,
            &kind.seen(family),
            address,
            other_set,
        )
    }

    /// One packet at one port.
    fn judge(
        &mut self,
        at: Station,
        other: Station,
        direction: Direction,
        family: Family,
        kind: Kind,
    ) -> bool {
        let Some(set) = self.sets[&at].clone() else {
            return true;
        };
        let other_set = self.set(other);
        let plain = self.rules_allow((at, other, &other_set), direction, family, kind);
        let mut known = set.iter().filter_map(|group| self.groups.get(group));
        if !known.all(|group| group.stateful) || !kind.is_tracked(family) {
            return plain;
        }
        let out = direction == Direction::Egress;
        let bare = kind.without_flags();
        let as_beginner = (at, (other, family, bare, out));
        let as_answer = (at, (other, family, bare.turned(), !out));
        // GRE and equal ports look the same both ways: whoever began, began.
        let (key, began) = match (
            self.memory.contains_key(&as_beginner),
            self.memory.contains_key(&as_answer),
        ) {
            (false, true) => (as_answer, false),
            _ => (as_beginner, true),
        };
        let is_syn = kind.has(SYN) && !kind.has(ACK) && !kind.has(4);
        let known = self.memory.get(&key).cloned();
        let is_over = known
            .as_ref()
            .is_some_and(|memory| memory.ends.2 || (memory.ends.0 && memory.ends.1));
        if known.is_none() || (is_syn && (is_over || known.as_ref().is_some_and(|memory| memory.revoked))) {
            if matches!(kind, Kind::Echo(false, _) | Kind::Timestamp(false)) {
                return plain;
            }
            if plain {
                self.memory.remove(&key);
                let memory = Memory {
                    other_set,
                    ..Memory::default()
                };
                self.memory.insert(as_beginner, memory.after(kind, true));
            } else if !known.as_ref().is_some_and(|memory| memory.revoked) {
                self.memory.remove(&key);
            }
            return plain;
        }
        let (beginner_kind, way) = (
            (key.1).2,
            if (key.1).3 {
                Direction::Egress
            } else {
                Direction::Ingress
            },
        );
        // An answer that goes out says nothing new about the other side.
        let other_set = match known {
            Some(memory) if out && !began => memory.other_set,
            _ => other_set,
        };
        let allowed = self.rules_allow((at, other, &other_set), way, family, beginner_kind);
        if let Some(memory) = self.memory.get_mut(&key) {
            memory.other_set = other_set;
            memory.revoked = !allowed;
            if allowed {
                *memory = memory.clone().after(kind, began);
            }
        }
        allowed
    }

    fn packet(&mut self, talk: Talk, kind: Kind) -> Result<u128, DropReason> {
        if !self.judge(talk.from, talk.to, Direction::Egress, talk.family, kind) {
            return Err(DropReason::EgressDenied);
        }
        if !self.judge(talk.to, talk.from, Direction::Ingress, talk.family, kind) {
            return Err(DropReason::IngressDenied);
        }
        Ok(talk.to.0)
    }
}

impl Memory {
    fn after(mut self, kind: Kind, began: bool) -> Self {
        let fin = kind.has(1);
        self.ends.0 |= fin && began;
        self.ends.1 |= fin && !began;
        self.ends.2 |= kind.has(4);
        self
    }
}

fn random_set(rng: &mut Rng) -> Option<BTreeSet<u128>> {
    // Never stateful and stateless ones together, as Neutron has it: group 4 is the stateless one.
    match rng.below(10) {
        0 => None,
        1 => Some(BTreeSet::from([4])),
        _ => Some((1..4).filter(|_| rng.chance(50)).collect()),
    }
}

/// The label of a set: made when it is first needed, never used for another one.
fn label_of(rig: &mut Rig, labels: &mut BTreeMap<BTreeSet<u128>, u16>, set: &BTreeSet<u128>) -> u16 {
    if set.is_empty() {
        return 0;
    }
    let next = labels.len() as u16 + 1;
    *labels.entry(set.clone()).or_insert_with(|| {
        rig.label(next, &set.iter().copied().collect::<Vec<_>>());
        next
    })
}

fn check(seed: u64) {
    let mut rng = Rng::new(seed);
    let mut rig = Rig::new(&STATIONS);
    let mut naive = Naive::default();
    let mut labels = BTreeMap::new();
    for number in 1..=GROUPS as u128 {
        let group = random_group(&mut rng, number != 4, GROUPS, &STATIONS);
        rig.policy(group.row(number));
        naive.groups.insert(number, group);
    }
    for number in STATIONS {
        let set = random_set(&mut rng);
        let label = set.as_ref().map(|set| label_of(&mut rig, &mut labels, set));
        rig.set_label(number, label);
        naive.sets.insert(Station(number), set);
    }
    let mut sent: Vec<(Talk, Kind)> = Vec::new();
    for event in 0..EVENTS {
        match rng.below(100) {
            0..4 => {
                let number = 1 + rng.below(GROUPS) as u128;
                let group = random_group(&mut rng, number != 4, GROUPS, &STATIONS);
                rig.put(Row::Policy(group.row(number)));
                naive.groups.insert(number, group);
            }
            4..7 => {
                let number = rng.one(STATIONS);
                let set = random_set(&mut rng);
                let label = set.as_ref().map(|set| label_of(&mut rig, &mut labels, set));
                rig.set_label(number, label);
                naive.sets.insert(Station(number), set);
            }
            _ => {}
        }
        let (from, to) = (rng.one(STATIONS), rng.one(STATIONS));
        if from == to {
            continue;
        }
        let family = rng.one([Family::Ipv4, Family::Ipv6]);
        let fresh = (
            Talk {
                family,
                ..Talk::v4(from, to)
            },
            Kind::random(&mut rng),
        );
        // Mostly what was said before, or the answer to it.
        let (talk, kind) = match (rng.below(10), rng.pick(&sent)) {
            (0..4, Some((talk, kind))) => (talk.back(), answer(&mut rng, kind)),
            (4..7, Some(again)) => again,
            _ => fresh,
        };
        sent.push((talk, kind));
        let got = rig.send(talk.from.0, &kind.frame(talk));
        let want = naive.packet(talk, kind);
        assert_eq!(got, want, "seed {seed}, event {event}: {talk:?} {kind:?}");
    }
}

fn answer(rng: &mut Rng, kind: Kind) -> Kind {
    match kind.turned() {
        Kind::Tcp(from, to, _) => Kind::Tcp(from, to, rng.one([SYN | ACK, ACK, ACK, ACK | 1])),
        other => other,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_model_does_what_neutron_s_rules_say(seed: u64) {
        check(seed);
    }
}
