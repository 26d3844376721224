//! Rows of one change arrive in any order, some of them twice, with restarts between: at no moment is more
//! allowed than before the change or after it, and in the end it is as after it.

use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroU16,
};

use alcor_dataplane::{
    Dataplane, DropReason, Ingress, Model, Row, RowChange, Verdict, security::Family, testing::rng::Rng,
};
use proptest::prelude::*;

use crate::{
    Kind,
    common::{RED, RED_VNI, id, ip, neighbour, network, port, subnet},
    naive::{Direction, Groups, Seen, allowed, random_group},
    secured::{HOSTS, Station, Talk, label},
};

const GROUPS: usize = 3;
/// The host's own port, and those of the other host.
const OWN: u128 = 11;
const OTHERS: [u128; 3] = [12, 14, 16];
const ALL: [u128; 4] = [11, 12, 14, 16];

/// Labels of sets; a label means one set for ever.
type Labels = BTreeMap<u16, BTreeSet<u128>>;

/// What one host should have.
#[derive(Clone)]
struct Goal {
    groups: Groups,
    labels: BTreeMap<u128, u16>,
}

impl Goal {
    fn rows(&self, meanings: &Labels) -> Vec<Row> {
        let mut rows = vec![
            Row::Network(network(RED, RED_VNI)),
            Row::Subnet(subnet(1, RED, "10.0.0.0/24", Some("10.0.0.1"), true)),
            Row::Subnet(subnet(4, RED, "fd00:a::/64", Some("fd00:a::1"), true)),
        ];
        rows.extend(
            self.groups
                .iter()
                .map(|(number, group)| Row::Policy(group.row(*number))),
        );
        for number in self.labels.values().copied().filter_map(NonZeroU16::new) {
            let groups: Vec<u128> = meanings[&number.get()].iter().copied().collect();
            rows.push(Row::Label(label(number.get(), &groups)));
        }
        for (number, label) in &self.labels {
            let station = Station(*number);
            let addresses = [Family::Ipv4, Family::Ipv6].map(|family| station.address(family));
            if *number == OWN {
                let mut row = port(OWN, RED, &[(1, &addresses[0]), (4, &addresses[1])]);
                row.label = Some(*label);
                rows.push(Row::Port(row));
            } else {
                let row = |ip: &String| neighbour(RED, ip, station.mac(), HOSTS[1], *label);
                rows.extend(addresses.iter().map(row).map(Row::Neighbour));
            }
        }
        rows.sort_by_key(Row::key);
        rows.dedup();
        rows
    }

    /// Whether the rules of this goal let the packet begin something at the host's own port.
    fn allows(&self, meanings: &Labels, direction: Direction, other: u128, label: u16, seen: &Seen) -> bool {
        let set = |label: u16| meanings.get(&label).cloned().unwrap_or_default();
        let address = ip(&Station(other).address(seen.family));
        allowed(
            &self.groups,
            &set(self.labels[&OWN]),
            direction,
            seen,
            address,
            &set(label),
        )
    }
}

/// What to do to get from one set of rows to another.
fn changes(old: &[Row], new: &[Row]) -> Vec<RowChange> {
    let gone = old
        .iter()
        .map(Row::key)
        .filter(|key| new.iter().all(|row| row.key() != *key));
    let put = new.iter().filter(|row| !old.contains(row)).cloned();
    gone.map(RowChange::Remove)
        .chain(put.map(RowChange::Put))
        .collect()
}

/// A goal, and what one change makes of it.
fn goals(rng: &mut Rng, meanings: &mut Labels) -> [Goal; 2] {
    let group = |rng: &mut Rng| random_group(rng, true, GROUPS, &ALL);
    let mut fresh_label = |rng: &mut Rng| {
        let set: BTreeSet<u128> = (1..=GROUPS as u128).filter(|_| rng.chance(50)).collect();
        let next = meanings.len() as u16 + 1;
        if set.is_empty() {
            return 0;
        }
        let known = meanings
            .iter()
            .find(|(_, known)| **known == set)
            .map(|(label, _)| *label);
        meanings.entry(known.unwrap_or(next)).or_insert(set);
        known.unwrap_or(next)
    };
    let before = Goal {
        groups: (1..=GROUPS as u128).map(|number| (number, group(rng))).collect(),
        labels: ALL.iter().map(|number| (*number, fresh_label(rng))).collect(),
    };
    let mut after = before.clone();
    match rng.below(3) {
        0 => _ = after.groups.insert(1 + rng.below(GROUPS) as u128, group(rng)),
        1 => _ = after.labels.insert(OWN, fresh_label(rng)),
        _ => _ = after.labels.insert(rng.one(OTHERS), fresh_label(rng)),
    }
    [before, after]
}

/// A new agent and data plane with the rows of the old one, in any order, some only later.
fn restart(rng: &mut Rng, model: &mut Model) -> (Model, Vec<RowChange>) {
    let mut rows: Vec<RowChange> = model
        .snapshot()
        .unwrap()
        .rows
        .into_iter()
        .map(RowChange::Put)
        .collect();
    let first = rows.remove(0);
    let mut fresh = Model::default();
    assert!(fresh.apply(&[first]).iter().all(Result::is_ok));
    fresh.attach(id(OWN), "tap11").unwrap();
    shuffle(rng, &mut rows);
    (fresh, rows)
}

fn shuffle<T>(rng: &mut Rng, items: &mut [T]) {
    for last in (1..items.len()).rev() {
        items.swap(last, rng.below(last + 1));
    }
}

/// Sends a packet that begins something; whether it got past the filter, or `None` if it did not get that far.
fn probe(model: &mut Model, direction: Direction, talk: Talk, label: u16, kind: Kind) -> Option<bool> {
    let verdict = match direction {
        Direction::Egress => model.process(Ingress::Port(id(OWN)), &kind.frame(talk)),
        Direction::Ingress => {
            let tunnel = Ingress::Tunnel {
                source: ip(HOSTS[1]),
                vni: RED_VNI,
                label,
                forwarded: false,
            };
            model.process(tunnel, &kind.frame(talk))
        }
    };
    match verdict {
        Verdict::Deliver { .. } | Verdict::Tunnel { .. } => Some(true),
        Verdict::Drop(DropReason::IngressDenied | DropReason::EgressDenied) => Some(false),
        _ => None,
    }
}

fn check(seed: u64) {
    let mut rng = Rng::new(seed);
    let mut meanings = Labels::new();
    let [before, after] = goals(&mut rng, &mut meanings);
    let (old, new) = (before.rows(&meanings), after.rows(&meanings));
    let mut model = Model::default();
    let put: Vec<RowChange> = old.iter().cloned().map(RowChange::Put).collect();
    assert!(model.apply(&put).iter().all(Result::is_ok));
    model.attach(id(OWN), "tap11").unwrap();
    let mut waiting = changes(&old, &new);
    let twice: Vec<RowChange> = waiting.iter().filter(|_| rng.chance(30)).cloned().collect();
    waiting.extend(twice);
    shuffle(&mut rng, &mut waiting);
    let mut restarts = 2;
    let mut ports = 1000;
    loop {
        let last = waiting.is_empty();
        for _ in 0..if last { 60 } else { 6 } {
            let other = rng.one(OTHERS);
            let direction = rng.one([Direction::Ingress, Direction::Egress]);
            let family = rng.one([Family::Ipv4, Family::Ipv6]);
            let talk = match direction {
                Direction::Egress => Talk {
                    family,
                    ..Talk::v4(OWN, other)
                },
                Direction::Ingress => Talk {
                    family,
                    ..Talk::v4(other, OWN)
                },
            };
            // Each packet begins something new: what is remembered is not what is tested here.
            ports += 1;
            let kind = match Kind::random(&mut rng) {
                Kind::Tcp(_, to, _) => Kind::Tcp(ports, to, 2),
                Kind::Udp(_, to) => Kind::Udp(ports, to),
                Kind::Sctp(_, to) => Kind::Sctp(ports, to),
                _ => Kind::Echo(true, ports),
            };
            let stamped = match last {
                true => after.labels[&other],
                false => rng.one([before.labels[&other], after.labels[&other]]),
            };
            let Some(passed) = probe(&mut model, direction, talk, stamped, kind) else {
                continue;
            };
            let seen = kind.seen(family);
            let by = |goal: &Goal| {
                let label = match direction {
                    Direction::Ingress => stamped,
                    Direction::Egress => goal.labels[&other],
                };
                goal.allows(&meanings, direction, other, label, &seen)
            };
            if last {
                assert_eq!(passed, by(&after), "seed {seed}: {direction:?} {talk:?} {kind:?}");
            } else {
                assert!(
                    !passed || by(&before) || by(&after),
                    "seed {seed}: {direction:?} {talk:?} {kind:?}"
                );
            }
        }
        let Some(change) = waiting.pop() else { return };
        // A removal may come before what it belongs to; it removes nothing then.
        let outcome = model.apply(&[change]);
        assert!(outcome.iter().all(Result::is_ok), "seed {seed}: {outcome:?}");
        if restarts > 0 && rng.chance(20) {
            restarts -= 1;
            let (fresh, again) = restart(&mut rng, &mut model);
            model = fresh;
            // What was in force comes back before what is new.
            waiting.extend(again);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_order_of_rows_allows_more(seed: u64) {
        check(seed);
    }
}
