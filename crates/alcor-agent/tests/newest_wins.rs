//! Whatever the order of deltas, repeats, cuts, restarts and lags of the data plane: what is in force is what a naive
//! oracle says, the newest revision of each key.
#![allow(clippy::unwrap_used, reason = "a panic is how a test says no")]

mod common;

use std::collections::BTreeMap;

use alcor_agent::{core::Event, delta::FromNcm, delta::Phase};
use alcor_dataplane::{Row, RowKey, model::Model};
use common::{Key, Rig, network_id, row};
use proptest::prelude::*;

fn key() -> impl Strategy<Value = Key> {
    prop_oneof![
        2 => (0u8..2).prop_map(Key::Network),
        1 => (0u8..2).prop_map(Key::Subnet),
        3 => (0u8..2, 1u8..4).prop_map(|(n, p)| Key::Port(n, p)),
        3 => (0u8..2, 1u8..5).prop_map(|(n, p)| Key::Neighbour(n, p)),
    ]
}

fn live_row(entry: Option<&(Option<u64>, bool)>) -> bool {
    entry.is_some_and(|(_, live)| *live)
}

/// Newest revision per key, as simply as it can be said.
#[derive(Default)]
struct Oracle {
    rows: BTreeMap<Key, (Option<u64>, bool)>,
}

impl Oracle {
    fn take(&mut self, key: Key, revision: u64, live: bool) {
        if self
            .rows
            .get(&key)
            .is_some_and(|(known, _)| known.is_some_and(|known| known >= revision))
        {
            return;
        }
        self.rows.insert(key, (Some(revision), live));
        if let (Key::Network(n), false) = (key, live) {
            self.expire(n, revision, &[]);
        }
    }

    fn expire(&mut self, network: u8, revision: u64, named: &[Key]) {
        for (key, entry) in &mut self.rows {
            let not_newer = entry.0.is_none_or(|known| known <= revision);
            if key.network() == network && entry.1 && not_newer && !named.contains(key) {
                *entry = (Some(revision), false);
            }
        }
    }

    fn expected(&self) -> Vec<Row> {
        let mut rows: Vec<(RowKey, Row)> = self
            .rows
            .iter()
            .filter(|(key, (_, live))| *live && live_row(self.rows.get(&Key::Network(key.network()))))
            .map(|(key, (revision, _))| (key.row_key(), row(*key, revision.unwrap_or_default())))
            .collect();
        rows.sort_by_key(|(key, _)| *key);
        rows.into_iter().map(|(_, row)| row).collect()
    }
}

#[derive(Clone, Debug)]
enum Op {
    Rows {
        network: u8,
        phase: usize,
        revision: u64,
        rows: Vec<(Key, u64, bool)>,
    },
    Snapshot {
        network: u8,
        revision: u64,
        parts: Vec<Vec<(Key, u64, bool)>>,
    },
    Forget(u8),
    RepeatLast,
    Skip,
    Cut,
    Restart,
    Work(usize),
}

fn rows(max: usize) -> impl Strategy<Value = Vec<(Key, u64, bool)>> {
    prop::collection::vec((key(), 1u64..40, prop::bool::weighted(0.7)), 0..max)
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => (0u8..2, 0usize..2, 1u64..40, rows(6))
            .prop_map(|(network, phase, revision, rows)| Op::Rows { network, phase, revision, rows }),
        2 => (0u8..2, 1u64..40, prop::collection::vec(rows(4), 2..4))
            .prop_map(|(network, revision, parts)| Op::Snapshot { network, revision, parts }),
        1 => (0u8..2).prop_map(Op::Forget),
        2 => Just(Op::RepeatLast),
        1 => Just(Op::Skip),
        1 => Just(Op::Cut),
        1 => Just(Op::Restart),
        4 => (1usize..4).prop_map(Op::Work),
    ]
}

type Rows = Vec<(Key, u64, bool)>;

fn changes(rows: &Rows) -> Vec<Result<(alcor_model::Revision, alcor_dataplane::RowChange), String>> {
    rows.iter()
        .map(|(key, revision, live)| key.change(*revision, *live))
        .collect()
}

struct Run {
    rig: Rig,
    oracle: Oracle,
    last: Option<FromNcm>,
}

impl Run {
    fn send(&mut self, network: u8, phase: Phase, revision: u64, rows: &mut Rows) {
        rows.retain(|(key, ..)| key.network() == network);
        if self.rig.session.is_none() {
            self.rig.connect();
        }
        self.last = Some(FromNcm::Delta(self.rig.delta(
            network,
            phase,
            revision,
            changes(rows),
        )));
        for (key, revision, live) in rows {
            self.oracle.take(*key, *revision, *live);
        }
    }

    fn op(&mut self, op: Op) {
        match op {
            Op::Rows {
                network,
                phase,
                revision,
                mut rows,
            } => {
                let phase = [Phase::Delta, Phase::Whole][phase];
                self.send(network, phase, revision, &mut rows);
                if phase == Phase::Whole {
                    let named: Vec<Key> = rows.iter().map(|(key, ..)| *key).collect();
                    self.oracle.expire(network, revision, &named);
                }
            }
            Op::Snapshot {
                network,
                revision,
                mut parts,
            } => {
                let last = parts.len() - 1;
                let mut named = Vec::new();
                for (number, rows) in parts.iter_mut().enumerate() {
                    let phase = match number {
                        0 => Phase::Begin,
                        n if n == last => Phase::End,
                        _ => Phase::Part,
                    };
                    self.send(network, phase, if number == last { revision } else { 0 }, rows);
                    named.extend(rows.iter().map(|(key, ..)| *key));
                }
                self.oracle.expire(network, revision, &named);
            }
            Op::Forget(network) => {
                self.send(network, Phase::Forget, 0, &mut Vec::new());
                self.oracle.rows.retain(|key, _| key.network() != network);
            }
            // The same message once more: nothing changes.
            Op::RepeatLast => {
                if let Some(message) = self.last.clone() {
                    self.rig.hear(message);
                }
            }
            // A message is lost: the next one must not be taken.
            Op::Skip => {
                if self.rig.session.is_some() {
                    self.rig.sequence += 1;
                    let every = changes(&vec![(Key::Neighbour(0, 1), 1_000, true)]);
                    self.rig.delta(0, Phase::Delta, 1_000, every);
                    assert_eq!(self.rig.session, None, "a gap ends the session");
                    self.last = None;
                }
            }
            Op::Cut => {
                let old = self.rig.session;
                self.rig.cut();
                // What is still on the wire of an old session changes nothing.
                if let (Some(session), Some(message)) = (old, self.last.take()) {
                    self.rig.step(Event::Message { session, message });
                }
            }
            Op::Restart => self.restart(),
            Op::Work(times) => {
                for _ in 0..times {
                    self.rig.work();
                }
            }
        }
    }

    /// A new agent knows rows but not their revisions, and tombstones not at all.
    fn restart(&mut self) {
        self.rig.settle();
        self.rig.pass(std::time::Duration::from_secs(20));
        let rig = std::mem::replace(&mut self.rig, Rig::new(Model::default()));
        self.rig = rig.restart();
        self.last = None;
        // The oracle forgets what is not in force, and how old the rest is: a snapshot says it again.
        let live: Vec<(Key, u64)> = self
            .oracle
            .rows
            .iter()
            .filter(|(key, (_, live))| *live && live_row(self.oracle.rows.get(&Key::Network(key.network()))))
            .map(|(key, (revision, _))| (*key, revision.unwrap_or_default()))
            .collect();
        self.oracle.rows.clear();
        for network in 0..2 {
            let rows = live.iter().filter(|(key, _)| key.network() == network);
            let mut rows: Rows = rows.map(|(key, revision)| (*key, *revision, true)).collect();
            self.send(network, Phase::Whole, 40, &mut rows);
        }
        assert!(self.rig.applied.is_empty());
        self.rig.settle();
        assert_eq!(
            self.rig.applied,
            [],
            "what is in force is not touched after a restart"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_in_force_is_the_newest_of_each_key(ops in prop::collection::vec(op(), 1..40)) {
        let mut run = Run { rig: Rig::new(Model::default()), oracle: Oracle::default(), last: None };
        for op in ops {
            run.op(op);
            prop_assert_eq!(run.rig.agent.batches_in_flight(),
                run.rig.backlog.iter().filter(|w| matches!(w, alcor_agent::core::Action::Apply { .. })).count());
        }
        run.rig.settle();
        // Refused rows are tried again.
        run.rig.pass(std::time::Duration::from_secs(20));
        prop_assert_eq!(run.rig.rows(), run.oracle.expected());
        // A session that stays: every delta got its receipt.
        let delta = |run: &mut Run| run.send(0, Phase::Delta, 40, &mut Vec::new());
        run.rig.cut();
        run.rig.receipts.clear();
        for _ in 0..3 {
            delta(&mut run);
        }
        run.rig.settle();
        let sequences: Vec<u64> = run.rig.receipts.iter().map(|receipt| receipt.sequence).collect();
        prop_assert_eq!(sequences, vec![1, 2, 3]);
    }
}

#[test]
fn held_revisions_are_said_in_hello() {
    let mut rig = Rig::new(Model::default());
    rig.connect();
    assert_eq!(rig.hellos[0].held, []);
    rig.delta(0, Phase::Whole, 7, vec![Key::Network(0).change(3, true)]);
    rig.delta(0, Phase::Delta, 9, vec![Key::Subnet(0).change(9, true)]);
    rig.delta(1, Phase::Begin, 0, vec![Key::Network(1).change(4, true)]);
    rig.settle();
    rig.cut();
    rig.connect();
    let held: Vec<(Vec<u8>, u64)> = rig.hellos[1]
        .held
        .iter()
        .map(|held| (held.network_id.to_vec(), held.revision))
        .collect();
    let id = |n| network_id(n).uuid().as_bytes().to_vec();
    assert_eq!(
        held,
        [(id(0), 9), (id(1), 0)],
        "a cut snapshot is not complete to any revision"
    );
    let mut rig = rig.restart();
    rig.connect();
    assert!(rig.hellos[0].held.iter().all(|held| held.revision == 0));
    assert_eq!(rig.hellos[0].held.len(), 2);
}

/// Which gateways are alive is no change of the region: the later word counts, but only there, and not of what is gone.
#[test]
fn gateways_change_between_revisions() {
    let mut rig = Rig::new(Model::default());
    rig.connect();
    let put = |gateways: &[u8]| {
        let Row::Network(mut network) = row(Key::Network(0), 5) else {
            unreachable!()
        };
        network.gateways = gateways.iter().map(|last| [192, 0, 2, *last].into()).collect();
        vec![Ok((
            alcor_model::Revision(5),
            alcor_dataplane::RowChange::Put(Row::Network(network)),
        ))]
    };
    let in_force = |rig: &mut Rig| match &rig.rows()[..] {
        [Row::Network(network)] => network.gateways.len(),
        [] => 99,
        other => panic!("{other:?}"),
    };
    for (gateways, count) in [(&[1, 2][..], 2), (&[2], 1), (&[2], 1), (&[], 0)] {
        rig.delta(0, Phase::Delta, 5, put(gateways));
        rig.settle();
        assert_eq!(in_force(&mut rig), count);
    }
    rig.delta(0, Phase::Delta, 5, vec![Key::Network(0).change(6, false)]);
    rig.delta(0, Phase::Delta, 5, put(&[1]));
    rig.settle();
    assert_eq!(in_force(&mut rig), 99);
}

#[test]
fn refused_rows_are_in_the_receipt_and_tried_again() {
    let mut rig = Rig::new(Model::default());
    rig.connect();
    rig.delta(
        0,
        Phase::Delta,
        5,
        vec![
            Key::Subnet(0).change(5, true),
            Err("not readable".to_owned()),
            Key::Port(0, 1).change(5, true),
        ],
    );
    rig.settle();
    let refused: Vec<u32> = rig.receipts[0].refused.iter().map(|error| error.row).collect();
    assert_eq!(refused, [0, 1, 2]);
    assert_eq!(rig.receipts[0].refused[1].reason, "not readable");
    assert!(rig.receipts[0].refused[2].reason.contains("is not on this host"));
    assert!(rig.receipts[0].received_us <= rig.receipts[0].visible_us);
    rig.delta(0, Phase::Delta, 6, vec![Key::Network(0).change(6, true)]);
    rig.settle();
    assert_eq!(rig.receipts[1].refused, []);
    rig.pass(std::time::Duration::from_secs(10));
    assert_eq!(rig.rows().len(), 3);
    let report = rig.reports.last().unwrap();
    assert_eq!(
        report.condition,
        i32::from(alcor_proto::v1::PortCondition::NoDevice)
    );
}

#[test]
fn a_failing_ncm_is_asked_less_and_less_often() {
    let mut rig = Rig::new(Model::default());
    let mut pauses = Vec::new();
    rig.step(Event::Tick);
    for _ in 0..14 {
        let before = rig.now.since_start;
        rig.cut();
        while rig.session.is_none() {
            rig.now.since_start = rig.agent.deadline().unwrap();
            rig.step(Event::Tick);
        }
        pauses.push((rig.now.since_start - before).as_millis());
    }
    assert!((50..=110).contains(&pauses[0]), "{pauses:?}");
    assert!(
        pauses.windows(2).take(7).all(|pair| pair[1] * 10 >= pair[0] * 9),
        "{pauses:?}"
    );
    assert!(pauses.iter().all(|pause| *pause <= 30_001), "{pauses:?}");
    assert!(*pauses.last().unwrap() >= 15_000, "{pauses:?}");
}
