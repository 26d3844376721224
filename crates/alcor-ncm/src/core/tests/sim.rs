//! Agents that do as the protocol demands, a core between them and a region, and steps that a seed chooses.

use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroU16,
};

use alcor_dataplane::{Row, RowChange, RowKey};
use alcor_southbound::convert::{decode_id, decode_row, encode_ip};
use proptest::prelude::*;

use super::{
    super::*,
    world::{GROUPS, World, filters, text, tunnel_ip},
};

/// An agent that keeps the newest revision per key, as the protocol demands.
#[derive(Default)]
pub(super) struct SimAgent {
    pub(super) session: Option<SessionId>,
    pub(super) incarnation: u64,
    pub(super) rows: BTreeMap<RowKey, (Revision, Option<Row>)>,
    pub(super) held: BTreeMap<Id<Network>, Revision>,
    /// Messages that are on their way to the agent.
    pub(super) inbox: std::collections::VecDeque<v1::Delta>,
    pub(super) named: BTreeMap<Id<Network>, BTreeSet<RowKey>>,
    pub(super) last_sequence: u64,
}

impl SimAgent {
    pub(super) fn hello(&self, host: u8) -> v1::Hello {
        v1::Hello {
            host: format!("h{host}"),
            incarnation: self.incarnation,
            tunnel_ip: encode_ip(tunnel_ip(host)),
            held: self
                .held
                .iter()
                .map(|(network, revision)| v1::Held {
                    network_id: alcor_southbound::convert::encode_id(*network),
                    revision: revision.0,
                })
                .collect(),
            dataplane: "sim".into(),
            version: String::new(),
            filters: filters(&format!("h{host}")),
            availability_zone: String::new(),
        }
    }

    pub(super) fn take(&mut self, delta: v1::Delta) -> v1::Receipt {
        assert_eq!(delta.sequence, self.last_sequence + 1, "sequences have no gaps");
        self.last_sequence = delta.sequence;
        let network: Id<Network> = decode_id("network", &delta.network_id).unwrap();
        let phase = delta.snapshot();
        if phase == v1::SnapshotPhase::Forget {
            self.rows.retain(|key, _| key.network_id() != network);
            self.held.remove(&network);
            return receipt(delta.sequence);
        }
        if matches!(phase, v1::SnapshotPhase::Begin | v1::SnapshotPhase::Whole) {
            self.named.insert(network, BTreeSet::new());
            self.held.insert(network, Revision::ZERO);
        }
        for row in &delta.rows {
            let (revision, change) = decode_row(network, row).unwrap();
            let key = change.key();
            if let Some(named) = self.named.get_mut(&network) {
                named.insert(key);
            }
            if self.rows.get(&key).is_some_and(|(known, _)| *known > revision) {
                continue;
            }
            let value = match change {
                RowChange::Put(row) => Some(row),
                RowChange::Remove(_) => None,
            };
            self.rows.insert(key, (revision, value));
        }
        if matches!(phase, v1::SnapshotPhase::End | v1::SnapshotPhase::Whole) {
            let named = self.named.remove(&network).unwrap();
            let newest = Revision(delta.revision);
            self.rows.retain(|key, (revision, _)| {
                key.network_id() != network || named.contains(key) || *revision > newest
            });
        }
        if delta.revision > 0 {
            self.held.insert(network, Revision(delta.revision));
        }
        receipt(delta.sequence)
    }

    pub(super) fn has(&self, host: &str, world: &World) -> BTreeMap<RowKey, String> {
        let rows = self.rows.iter();
        let present = rows.filter_map(|(key, (_, row))| Some((*key, row.as_ref()?)));
        present
            .map(|(key, row)| (key, text(row, world.looks(host, key.network_id()))))
            .collect()
    }

    /// Whether it would take packets or neighbours with a number for something.
    fn knows(&self, network: Id<Network>, number: NonZeroU16) -> bool {
        let mut rows = self.rows.values().filter_map(|(_, row)| row.as_ref());
        rows.any(|row| match row {
            Row::Label(row) => (row.network_id, row.label) == (network, number),
            Row::Neighbour(row) => (row.network_id, row.label) == (network, number.get()),
            _ => false,
        })
    }
}

pub(super) fn receipt(sequence: u64) -> v1::Receipt {
    v1::Receipt {
        sequence,
        received_us: 1,
        visible_us: 2,
        refused: Vec::new(),
    }
}

pub(super) const HOSTS: u8 = 3;

pub(super) struct Sim {
    pub(super) ncm: Ncm,
    pub(super) options: Options,
    pub(super) world: World,
    pub(super) agents: BTreeMap<u8, SimAgent>,
    pub(super) next_session: SessionId,
    pub(super) now: Now,
    /// Changes that the NCM has not been told.
    pub(super) untold: Vec<Change>,
}

impl Sim {
    pub(super) fn new(options: Options) -> Self {
        let mut sim = Self {
            ncm: Ncm::new(options),
            options,
            world: World::default(),
            agents: (1..=HOSTS)
                .map(|host| {
                    (
                        host,
                        SimAgent {
                            incarnation: 1,
                            ..SimAgent::default()
                        },
                    )
                })
                .collect(),
            next_session: 1,
            now: Now::default(),
            untold: Vec::new(),
        };
        for network in 0..2 {
            let change = sim.world.network(network);
            sim.untold.push(change);
        }
        for group in 0..GROUPS {
            let group = sim.world.group(group);
            sim.untold.push(Change::Put(group));
        }
        sim
    }

    pub(super) fn step(&mut self, event: Event) -> Work {
        self.now.since_start += Duration::from_millis(1);
        self.now.unix_us += 1_000;
        let (actions, work) = self.ncm.step(self.now, event);
        for action in actions {
            match action {
                Action::Send { session, message } => {
                    let agent = self
                        .agents
                        .values_mut()
                        .find(|agent| agent.session == Some(session))
                        .unwrap();
                    if let Some(v1::ncm_message::Body::Delta(delta)) = message.body {
                        agent.inbox.push_back(delta);
                        assert!(
                            agent.inbox.len() <= self.options.window_deltas,
                            "the window bounds what is sent"
                        );
                    }
                }
                Action::Close { session, .. } => {
                    for agent in self
                        .agents
                        .values_mut()
                        .filter(|agent| agent.session == Some(session))
                    {
                        agent.session = None;
                    }
                }
                Action::RegisterHost { name, .. } => {
                    let number: u8 = name[1..].parse().unwrap();
                    let change = self.world.host(number, false);
                    self.untold.push(change);
                }
                Action::ReportPort(_) | Action::NoteHosts(_) => {}
                Action::ReleaseLabels(labels) => self.release(&labels),
            }
        }
        work
    }

    /// A number may get a new meaning only when no host with a port in the network can match it against the old one.
    pub(super) fn release(&mut self, labels: &[(Id<Label>, Revision)]) {
        for (label, _) in labels {
            let Some(label) = self.world.labels.values().find(|row| row.id == *label) else {
                continue;
            };
            let (network, number) = (label.network_id, label.number);
            for (host, agent) in &self.agents {
                let name = format!("h{host}");
                let bound = |port: &Arc<Port>| port.network_id == network && port.binding.host_id == name;
                if label.retired && self.world.ports.values().any(bound) {
                    assert!(
                        !agent.knows(network, number),
                        "{name} knows {number} of {network}"
                    );
                }
            }
        }
        let changes = self.world.release(labels);
        self.untold.extend(changes);
    }

    pub(super) fn tell(&mut self) -> Work {
        let changes = std::mem::take(&mut self.untold);
        self.step(Event::Changes {
            changes,
            committed_us: 1,
        })
    }

    pub(super) fn connect(&mut self, host: u8) {
        let session = self.next_session;
        self.next_session += 1;
        let agent = self.agents.get_mut(&host).unwrap();
        agent.session = Some(session);
        agent.inbox.clear();
        agent.named.clear();
        agent.last_sequence = 0;
        let hello = agent.hello(host);
        self.step(Event::Hello { session, hello });
    }

    pub(super) fn disconnect(&mut self, host: u8) {
        if let Some(session) = self.agents.get_mut(&host).unwrap().session.take() {
            self.step(Event::Closed { session });
        }
    }

    /// One waiting message reaches its agent and is receipted.
    pub(super) fn deliver(&mut self, host: u8) -> bool {
        self.deliver_and_refuse(host, Vec::new())
    }

    /// Delivers a message whose receipt says that rows of it, by their positions, were refused.
    pub(super) fn deliver_and_refuse(&mut self, host: u8, rows: Vec<u32>) -> bool {
        let agent = self.agents.get_mut(&host).unwrap();
        let (Some(session), Some(delta)) = (agent.session, agent.inbox.pop_front()) else {
            return false;
        };
        let mut receipt = agent.take(delta);
        receipt.refused = rows
            .into_iter()
            .map(|row| v1::RowError {
                row,
                reason: "no room".to_owned(),
            })
            .collect();
        let body = v1::agent_message::Body::Receipt(receipt);
        self.step(Event::Message { session, body });
        true
    }

    pub(super) fn restart_ncm(&mut self) {
        self.untold.clear();
        self.ncm = Ncm::new(self.options);
        for agent in self.agents.values_mut() {
            agent.session = None;
        }
        self.step(Event::Snapshot {
            revision: self.world.revision,
            rows: self.world.rows(),
        });
    }

    /// Everybody is connected, everything is told and delivered; then compares.
    pub(super) fn settle(&mut self) {
        for host in 1..=HOSTS {
            if self.agents[&host].session.is_none() {
                self.connect(host);
            }
        }
        for _ in 0..10_000 {
            self.step(Event::Tick);
            self.tell();
            let mut any = !self.untold.is_empty();
            for host in 1..=HOSTS {
                any |= self.deliver(host);
            }
            if !any {
                break;
            }
        }
        for (host, agent) in &self.agents {
            let name = format!("h{host}");
            assert_eq!(
                agent.has(&name, &self.world),
                self.world.expected(&name),
                "{name} has what it must have"
            );
            let state = self.ncm.host_state(&name).unwrap();
            assert_eq!(
                (state.summary.pending, state.queued),
                (0, 0),
                "{name}: everything receipted: {state:?}, held {:?}",
                agent.held
            );
        }
    }
}

#[derive(Clone, Debug)]
pub(super) enum Step {
    Port {
        number: u8,
        network: u8,
        host: Option<u8>,
        ip: u8,
        groups: u16,
    },
    Rule {
        group: u16,
        port: u16,
    },
    Tick,
    Delete {
        number: u8,
    },
    MoveTunnel {
        host: u8,
    },
    Tell,
    Deliver {
        host: u8,
        count: u8,
    },
    Disconnect {
        host: u8,
    },
    Connect {
        host: u8,
    },
    RestartAgent {
        host: u8,
    },
    RestartNcm,
    Lag,
}

pub(super) fn steps() -> impl Strategy<Value = Vec<Step>> {
    let host = 1..=HOSTS;
    let step = prop_oneof![
        6 => (0u8..6, prop::option::weighted(0.85, host.clone()), 1u8..3, 0u16..1 << GROUPS)
            .prop_map(|(number, host, ip, groups)| Step::Port { number, network: number % 2, host, ip, groups }),
        2 => (0..GROUPS, 1u16..4).prop_map(|(group, port)| Step::Rule { group, port }),
        1 => Just(Step::Tick),
        2 => (0u8..6).prop_map(|number| Step::Delete { number }),
        1 => host.clone().prop_map(|host| Step::MoveTunnel { host }),
        4 => Just(Step::Tell),
        4 => (host.clone(), 1u8..5).prop_map(|(host, count)| Step::Deliver { host, count }),
        1 => host.clone().prop_map(|host| Step::Disconnect { host }),
        2 => host.clone().prop_map(|host| Step::Connect { host }),
        1 => host.prop_map(|host| Step::RestartAgent { host }),
        1 => Just(Step::RestartNcm),
        1 => Just(Step::Lag),
    ];
    prop::collection::vec(step, 1..120)
}

impl Sim {
    /// Takes one step.
    pub(super) fn take(&mut self, step: Step) {
        match step {
            Step::Port {
                number,
                network,
                host,
                ip,
                groups,
            } => {
                let changes = self
                    .world
                    .port_under(u128::from(number), network, host, ip, groups);
                self.untold.extend(changes);
            }
            Step::Rule { group, port } => {
                let change = self.world.toggle_rule(group, port);
                self.untold.push(change);
            }
            Step::Tick => drop(self.step(Event::Tick)),
            Step::Delete { number } => {
                let change = self.world.delete_port(u128::from(number));
                self.untold.extend(change);
            }
            Step::MoveTunnel { host } => {
                let change = self.world.host(host, true);
                self.untold.push(change);
            }
            Step::Tell => drop(self.tell()),
            Step::Deliver { host, count } => {
                for _ in 0..count {
                    self.deliver(host);
                }
            }
            Step::Disconnect { host } => self.disconnect(host),
            Step::Connect { host } => self.connect(host),
            Step::RestartAgent { host } => {
                self.disconnect(host);
                let incarnation = self.agents[&host].incarnation + 1;
                self.agents.insert(
                    host,
                    SimAgent {
                        incarnation,
                        ..SimAgent::default()
                    },
                );
            }
            Step::RestartNcm => self.restart_ncm(),
            Step::Lag => {
                self.untold.clear();
                self.step(Event::Snapshot {
                    revision: self.world.revision,
                    rows: self.world.rows(),
                });
            }
        }
    }
}

/// Takes the steps and settles; gives what there is then.
pub(super) fn run(options: Options, steps: Vec<Step>) -> Sim {
    let mut sim = Sim::new(options);
    for step in steps {
        sim.take(step);
    }
    sim.settle();
    sim
}
