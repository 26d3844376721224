//! Whatever the order of answers, deltas, snapshots, packets, cuts, restarts, and of time: what a host has learned is never
//! older than what it had, and in the end nothing that it has is older than the truth.
#![allow(clippy::unwrap_used, reason = "a panic is how a test says no")]

mod common;
#[path = "common/world.rs"]
mod world;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use alcor_agent::{
    core::HOLD_FOR,
    delta::{FromNcm, Phase},
};
use alcor_dataplane::{Dataplane, NeighbourRow, NetworkRow, PuntReason, Row, RowChange, RowKey, Verdict};
use alcor_model::{Revision, net::ON_DEMAND_MAC};
use alcor_proto::v1;
use alcor_southbound::convert::resolve::{Answer, Verdict as Answered, decode_questions, encode_answers};
use common::{Key, network_id, port_id};
use proptest::prelude::*;
use world::{LEASE, NEGATIVE, World, ip, neighbour, network, packet};

/// Addresses that there are.
const ADDRESSES: u32 = 6;
const PORTS: u8 = 2;
/// The gateway that the network has, when it has one.
const GATEWAY: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 101));

type RowOf = Result<(Revision, RowChange), String>;

/// An NCM with one network, as simply as it can be said. Answers and deltas wait in queues of their own, and either may come
/// first.
struct Ncm {
    revision: u64,
    /// When each address last changed, and who has it.
    truth: BTreeMap<u32, (u64, bool)>,
    on_demand: bool,
    has_gateways: bool,
    /// The network row's revision.
    switched_at: u64,
    learners: BTreeSet<u32>,
    deltas: VecDeque<(Phase, u64, Vec<RowOf>)>,
    answers: VecDeque<v1::Resolved>,
}

/// The row of an address at a revision: its label says which one it is.
fn row_at(n: u32, revision: u64) -> NeighbourRow {
    NeighbourRow {
        label: u16::try_from(revision).unwrap(),
        ..neighbour(n, 7)
    }
}

impl Ncm {
    fn change_of(&self, n: u32) -> RowOf {
        let (revision, live) = self.truth[&n];
        let change = match live {
            true => RowChange::Put(Row::Neighbour(row_at(n, revision))),
            false => RowChange::Remove(RowKey::Neighbour(network_id(0), ip(n))),
        };
        Ok((Revision(revision), change))
    }

    fn change(&mut self, n: u32, live: bool) {
        self.revision += 1;
        self.truth.insert(n, (self.revision, live));
        if !self.on_demand || self.learners.contains(&n) {
            let rows = vec![self.change_of(n)];
            self.deltas.push_back((Phase::Delta, self.revision, rows));
        }
    }

    /// The network's row.
    fn network(&self) -> RowOf {
        let (revision, change) = network(self.on_demand, self.switched_at)?;
        let RowChange::Put(Row::Network(row)) = change else {
            panic!("not a network");
        };
        let gateways = if self.has_gateways {
            vec![GATEWAY]
        } else {
            Vec::new()
        };
        let row = NetworkRow { gateways, ..row };
        Ok((revision, RowChange::Put(Row::Network(row))))
    }

    fn snapshot(&mut self) {
        let ports = (1..=PORTS).map(|p| Key::Port(0, p).change(1, true));
        let mut rows = vec![self.network()];
        rows.extend(ports);
        if !self.on_demand {
            let live = self.truth.iter().filter(|(_, (_, live))| *live);
            rows.extend(live.map(|(n, _)| self.change_of(*n)));
        }
        let rest = rows.split_off(rows.len() / 2);
        self.deltas.push_back((Phase::Begin, 0, rows));
        self.deltas.push_back((Phase::End, self.revision, rest));
    }

    fn switch(&mut self) {
        self.revision += 1;
        self.switched_at = self.revision;
        self.on_demand = !self.on_demand;
        if self.on_demand {
            // The host has them all, and is told of what changes.
            self.learners = self.truth.keys().copied().collect();
            let row = self.network();
            self.deltas.push_back((Phase::Delta, self.revision, vec![row]));
        } else {
            self.snapshot();
        }
    }

    /// All gateways go, or they come.
    fn switch_gateways(&mut self) {
        self.revision += 1;
        self.switched_at = self.revision;
        self.has_gateways = !self.has_gateways;
        let row = self.network();
        self.deltas.push_back((Phase::Delta, self.revision, vec![row]));
    }

    fn forget(&mut self) {
        self.learners.clear();
        self.deltas.push_back((Phase::Forget, 0, Vec::new()));
        self.snapshot();
    }

    fn begin_session(&mut self) {
        self.learners.clear();
        self.deltas.clear();
        self.answers.clear();
        self.snapshot();
    }

    fn ask(&mut self, message: &v1::Resolve, is_busy: bool) {
        let answers: Vec<Answer> = decode_questions(message)
            .unwrap()
            .iter()
            .map(|question| {
                let n = number(question.ip);
                match self.truth.get(&n) {
                    _ if is_busy => Answer {
                        verdict: Answered::Busy,
                        lease: NEGATIVE / 4,
                    },
                    _ if !self.on_demand => Answer {
                        verdict: Answered::Unknown,
                        lease: NEGATIVE,
                    },
                    Some((revision, true)) => {
                        self.learners.insert(n);
                        Answer {
                            verdict: Answered::Route(Revision(*revision), row_at(n, *revision)),
                            lease: LEASE,
                        }
                    }
                    _ => Answer {
                        verdict: Answered::Unknown,
                        lease: NEGATIVE,
                    },
                }
            })
            .collect();
        self.answers.push_back(encode_answers(message.id, &answers));
    }
}

fn number(ip: IpAddr) -> u32 {
    let IpAddr::V4(ip) = ip else {
        panic!("IPv4 only");
    };
    u32::from(ip) & 0x00ff_ffff
}

#[derive(Clone, Debug)]
enum Op {
    Change(u32, bool),
    Packet(u8, u32),
    NcmTakes(bool),
    Answers,
    Delta,
    Work(usize),
    Pass(u64),
    Switch,
    Gateways,
    Forget,
    Snapshot,
    Cut,
    Restart,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (0..ADDRESSES, prop::bool::weighted(0.7)).prop_map(|(n, live)| Op::Change(n, live)),
        12 => (1..=PORTS, 0..ADDRESSES).prop_map(|(port, n)| Op::Packet(port, n)),
        8 => prop::bool::weighted(0.1).prop_map(Op::NcmTakes),
        8 => Just(Op::Answers),
        8 => Just(Op::Delta),
        8 => (1usize..4).prop_map(Op::Work),
        4 => prop_oneof![1u64..3_000, 50_000u64..310_000].prop_map(Op::Pass),
        1 => Just(Op::Switch),
        2 => Just(Op::Gateways),
        1 => Just(Op::Forget),
        1 => Just(Op::Snapshot),
        1 => Just(Op::Cut),
        1 => Just(Op::Restart),
    ]
}

struct Run {
    world: World,
    ncm: Ncm,
    /// The newest revision of each address that was in force, since the network was last forgotten.
    seen: BTreeMap<IpAddr, u16>,
    held: u64,
    by_gateway: u64,
    released: u64,
    /// Held by agents that are no more.
    lost: u64,
    /// Heard by agents that are no more.
    told_before: u64,
}

impl Run {
    fn new() -> Self {
        let mut run = Self {
            world: World::new(PORTS),
            ncm: Ncm {
                revision: 1,
                truth: BTreeMap::new(),
                on_demand: true,
                has_gateways: false,
                switched_at: 1,
                learners: BTreeSet::new(),
                deltas: VecDeque::new(),
                answers: VecDeque::new(),
            },
            seen: BTreeMap::new(),
            held: 0,
            by_gateway: 0,
            released: 0,
            lost: 0,
            told_before: 0,
        };
        for n in 0..ADDRESSES / 2 {
            run.ncm.change(n, true);
        }
        run
    }

    fn op(&mut self, op: Op) {
        match op {
            Op::Change(n, live) => self.ncm.change(n, live),
            Op::Packet(port, n) => {
                let verdict = self.look_for(port, n);
                self.held += u64::from(verdict == Verdict::Punt(PuntReason::Unresolved));
            }
            Op::NcmTakes(is_busy) => self.ncm_takes(is_busy),
            Op::Answers => {
                if let Some(answers) = self.ncm.answers.pop_front() {
                    self.world.rig.hear(FromNcm::Resolved(answers));
                }
            }
            Op::Delta => self.delta(),
            Op::Work(times) => {
                for _ in 0..times {
                    self.world.rig.work();
                }
            }
            Op::Pass(ms) => self.world.rig.pass(Duration::from_millis(ms)),
            Op::Switch => self.ncm.switch(),
            Op::Gateways => self.ncm.switch_gateways(),
            Op::Forget => self.ncm.forget(),
            Op::Snapshot => {
                // Too much was waiting for the host: it is left out.
                self.ncm.deltas.clear();
                self.ncm.learners.clear();
                self.ncm.snapshot();
            }
            Op::Cut => self.cut(),
            Op::Restart => self.restart(),
        }
        self.check();
    }

    fn look_for(&mut self, port: u8, n: u32) -> Verdict {
        // A network that was forgotten took the devices of its ports along.
        let device = format!("veth{port}");
        self.world.rig.model.attach(port_id(0, port), &device).unwrap();
        let verdict = self.world.send(port, &packet(port, ON_DEMAND_MAC, ip(n)));
        if matches!(verdict, Verdict::Tunnel { host, .. } if host == GATEWAY) {
            self.by_gateway += 1;
        }
        verdict
    }

    fn ncm_takes(&mut self, is_busy: bool) {
        if !self.world.rig.asked.is_empty() {
            let message = self.world.rig.asked.remove(0);
            self.ncm.ask(&message, is_busy);
        }
    }

    fn delta(&mut self) {
        if !self.world.rig.agent.has_session() {
            self.connect();
        }
        if let Some((phase, revision, rows)) = self.ncm.deltas.pop_front() {
            self.world.rig.delta(0, phase, revision, rows);
            if phase == Phase::Forget {
                // How new rows were is forgotten with them, once they are gone.
                self.world.rig.settle();
                self.seen.clear();
            }
        }
    }

    fn connect(&mut self) {
        self.world.rig.connect();
        self.ncm.begin_session();
    }

    fn cut(&mut self) {
        self.world.rig.cut();
        self.ncm.deltas.clear();
        self.ncm.answers.clear();
    }

    fn restart(&mut self) {
        self.world.rig.settle();
        self.count();
        let (counts, sizes) = (
            self.world.rig.agent.learning(),
            self.world.rig.agent.learning_sizes(),
        );
        self.lost += sizes.held as u64 + counts.dropped.values().sum::<u64>();
        self.told_before += counts.by_gateway;
        let world = std::mem::replace(&mut self.world, World::new(1));
        self.world = world.restart();
        self.cut();
        // A new agent knows rows, but not how new they are.
        self.seen.clear();
    }

    fn count(&mut self) {
        self.released += self.world.rig.model.take_released().len() as u64;
    }

    /// What must hold after every step.
    fn check(&mut self) {
        let rows = self.world.neighbours();
        for row in &rows {
            let seen = self.seen.entry(row.ip).or_default();
            assert!(row.label >= *seen, "{} was at {seen} already: {row:?}", row.ip);
            *seen = row.label;
        }
        self.count();
    }

    /// Everything that is on its way arrives.
    fn drain(&mut self) {
        let mut quiet = 0;
        loop {
            self.delta();
            self.ncm_takes(false);
            self.op(Op::Answers);
            self.world.rig.settle();
            let rig = &self.world.rig;
            let is_quiet = self.ncm.deltas.is_empty() && self.ncm.answers.is_empty() && rig.asked.is_empty();
            quiet = if is_quiet { quiet + 1 } else { 0 };
            match quiet {
                0 => {}
                20 => return,
                _ => self.world.rig.pass(HOLD_FOR / 10),
            }
        }
    }

    fn end(mut self) {
        self.drain();
        let rows = self.world.neighbours();
        let live = self.ncm.truth.iter().filter(|(_, (_, live))| *live);
        let truth: Vec<NeighbourRow> = live.map(|(n, (revision, _))| row_at(*n, *revision)).collect();
        let sizes = self.world.rig.agent.learning_sizes();
        if self.ncm.on_demand {
            assert!(
                rows.iter().all(|row| truth.contains(row)),
                "{rows:?} of {truth:?}"
            );
            assert_eq!(sizes.learned, rows.len(), "each has a lease");
        } else {
            assert_eq!(rows, truth);
            assert_eq!(sizes.learned, 0);
        }
        assert_eq!((sizes.held, sizes.asked), (0, 0));
        self.count();
        let counts = self.world.rig.agent.learning();
        let dropped: u64 = counts.dropped.values().sum();
        assert_eq!(self.released + dropped + self.lost, self.held, "{counts:?}");
        assert_eq!(
            counts.by_gateway,
            self.by_gateway - self.told_before,
            "{counts:?}"
        );
        // And everybody is reached in the end.
        if self.ncm.on_demand {
            self.world.rig.pass(NEGATIVE);
            for row in &truth {
                self.look_for(1, number(row.ip));
            }
            self.drain();
            assert_eq!(self.world.neighbours(), truth);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_learned_is_the_newest_of_each_address(ops in prop::collection::vec(op(), 1..120)) {
        let mut run = Run::new();
        for op in ops {
            run.op(op);
        }
        run.end();
    }
}
