//! An agent's state machine tied to the model data plane, without threads: what the shell does, by hand.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "every test file uses a part of it"
)]

use std::{
    collections::{BTreeSet, VecDeque},
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use alcor_agent::{
    core::{Action, Agent, Event, Now, Settings},
    delta::{Delta, FromNcm, Phase},
};
use alcor_dataplane::{
    Dataplane, NeighbourRow, NetworkRow, PortRow, Row, RowChange, RowKey, SubnetRow, model::Model,
};
use alcor_model::{Id, MacAddr, Network, Port, Revision, Subnet, Vni, net::GATEWAY_MAC, resource::FixedIp};
use alcor_proto::v1::{self, agent_message::Body};
use uuid::Uuid;

pub fn network_id(n: u8) -> Id<Network> {
    Id::from_uuid(Uuid::from_u128(
        0x1000_0000_0000_0000_0000_0000_0000_0000 + u128::from(n),
    ))
}

pub fn subnet_id(network: u8) -> Id<Subnet> {
    Id::from_uuid(Uuid::from_u128(
        0x2000_0000_0000_0000_0000_0000_0000_0000 + u128::from(network),
    ))
}

/// Ports whose device names differ.
pub fn port_id(network: u8, n: u8) -> Id<Port> {
    let number = u128::from(network) << 8 | u128::from(n);
    Id::from_uuid(Uuid::from_u128((0x3000_0000 + number) << 96 | number))
}

/// The row of a key as it is at a revision: another one at each.
pub fn row(key: Key, revision: u64) -> Row {
    let flag = revision.is_multiple_of(2);
    match key {
        Key::Network(n) => Row::Network(NetworkRow {
            id: network_id(n),
            vni: Vni::try_from(100 + u32::from(n)).unwrap(),
            mtu: 1400 + u16::try_from(revision % 50).unwrap(),
            admin_state_up: true,
            underlay: None,
            on_demand: false,
            gateways: Vec::new(),
        }),
        Key::Subnet(n) => Row::Subnet(SubnetRow {
            id: subnet_id(n),
            network_id: network_id(n),
            cidr: "fd00::/64".parse().unwrap(),
            gateway_ip: Some("fd00::1".parse().unwrap()),
            gateway_mac: GATEWAY_MAC,
            enable_dhcp: true,
            slaac: flag,
            dns_nameservers: Vec::new(),
            host_routes: Vec::new(),
        }),
        Key::Port(n, p) => Row::Port(PortRow {
            id: port_id(n, p),
            network_id: network_id(n),
            mac: MacAddr([2, 0, 0, 1, n, p]),
            fixed_ips: vec![FixedIp {
                subnet_id: subnet_id(n),
                ip_address: format!("fd00::{p:x}:1").parse().unwrap(),
            }],
            allowed_address_pairs: Vec::new(),
            admin_state_up: true,
            port_security_enabled: flag,
            dns_name: format!("r{revision}"),
            label: None,
        }),
        Key::Neighbour(n, p) => Row::Neighbour(NeighbourRow {
            network_id: network_id(n),
            ip: neighbour_ip(p),
            mac: MacAddr([2, 0, 0, 2, n, p]),
            host: IpAddr::V4(Ipv4Addr::new(192, 0, 2, u8::try_from(revision % 250).unwrap())),
            label: 0,
            forward: false,
        }),
    }
}

fn neighbour_ip(p: u8) -> IpAddr {
    Ipv4Addr::new(10, 0, 1, p).into()
}

/// A key in small numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    Network(u8),
    Subnet(u8),
    Port(u8, u8),
    Neighbour(u8, u8),
}

impl Key {
    pub fn row_key(self) -> RowKey {
        match self {
            Self::Network(n) => RowKey::Network(network_id(n)),
            Self::Subnet(n) => RowKey::Subnet(network_id(n), subnet_id(n)),
            Self::Port(n, p) => RowKey::Port(network_id(n), port_id(n, p)),
            Self::Neighbour(n, p) => RowKey::Neighbour(network_id(n), neighbour_ip(p)),
        }
    }

    pub fn network(self) -> u8 {
        match self {
            Self::Network(n) | Self::Subnet(n) | Self::Port(n, _) | Self::Neighbour(n, _) => n,
        }
    }

    /// The row at a revision, or its tombstone.
    pub fn change(self, revision: u64, live: bool) -> Result<(Revision, RowChange), String> {
        let change = if live {
            RowChange::Put(row(self, revision))
        } else {
            RowChange::Remove(self.row_key())
        };
        Ok((Revision(revision), change))
    }
}

pub fn settings() -> Settings {
    Settings {
        availability_zone: "nova".into(),
        host: "host-1".to_owned(),
        incarnation: 1,
        tunnel_ip: "192.0.2.1".parse().unwrap(),
        dataplane: "model".to_owned(),
        filters: true,
        lease: Duration::from_secs(86_400),
        gateway_set: None,
        external_networks: BTreeSet::new(),
    }
}

/// The agent, its data plane, and everything it said.
pub struct Rig {
    pub agent: Agent,
    pub model: Model,
    pub now: Now,
    /// Work that the data plane has not done yet, in order.
    pub backlog: VecDeque<Action>,
    /// Every change that the data plane was asked for.
    pub applied: Vec<RowChange>,
    pub hellos: Vec<v1::Hello>,
    pub session: Option<u64>,
    pub sequence: u64,
    pub receipts: Vec<v1::Receipt>,
    pub reports: Vec<v1::PortReport>,
    pub answers: Vec<(u64, serde_json::Value)>,
    pub links_up: Vec<String>,
    /// Messages with questions, unanswered.
    pub asked: Vec<v1::Resolve>,
}

impl Rig {
    pub fn new(mut model: Model) -> Self {
        let snapshot = model.snapshot().unwrap();
        Self {
            agent: Agent::new(settings(), snapshot),
            model,
            now: Now {
                since_start: Duration::ZERO,
                unix_us: 1_000_000,
            },
            backlog: VecDeque::new(),
            applied: Vec::new(),
            hellos: Vec::new(),
            session: None,
            sequence: 0,
            receipts: Vec::new(),
            reports: Vec::new(),
            answers: Vec::new(),
            links_up: Vec::new(),
            asked: Vec::new(),
        }
    }

    /// The agent dies; the data plane stays; a new one starts.
    pub fn restart(self) -> Self {
        Self::new(self.model)
    }

    pub fn step(&mut self, event: Event) {
        self.now.since_start += Duration::from_micros(10);
        self.now.unix_us += 10;
        for action in self.agent.step(self.now, event) {
            match action {
                Action::Connect { session, hello } => {
                    self.hellos.push(hello);
                    (self.session, self.sequence) = (Some(session), 0);
                }
                Action::Close { session } => {
                    if self.session == Some(session) {
                        self.session = None;
                    }
                }
                Action::Send { session, message } => {
                    assert_eq!(Some(session), self.session);
                    match message.body.unwrap() {
                        Body::Receipt(receipt) => self.receipts.push(receipt),
                        Body::PortReport(report) => self.reports.push(report),
                        Body::Resolve(resolve) => self.asked.push(resolve),
                        Body::Hello(_) | Body::Heartbeat(_) => {}
                    }
                }
                Action::Answer { client, body } => self.answers.push((client, body)),
                Action::LinkUp { name, .. } => self.links_up.push(name),
                work => self.backlog.push_back(work),
            }
        }
    }

    /// Has the data plane do one piece of work.
    pub fn work(&mut self) -> bool {
        let Some(work) = self.backlog.pop_front() else {
            return false;
        };
        let visible_us = self.now.unix_us;
        let text = |outcome: Result<(), alcor_dataplane::DataplaneError>| outcome.map_err(|e| e.to_string());
        match work {
            Action::Apply { batch, changes } => {
                let outcomes = self.model.apply(&changes).into_iter().map(text).collect();
                self.applied.extend(changes);
                self.step(Event::Applied {
                    batch,
                    visible_us,
                    outcomes,
                });
            }
            Action::Attach { port, token, device } => {
                let outcome = text(self.model.attach(port, &device));
                self.step(Event::Attached {
                    port,
                    token,
                    visible_us,
                    outcome,
                });
            }
            Action::Detach { port, token } => {
                let outcome = text(self.model.detach(port));
                self.step(Event::Detached { port, token, outcome });
            }
            Action::Inject { port, frame } => {
                if self.model.inject(port, &frame).is_err() {
                    self.step(Event::InjectRefused);
                }
            }
            Action::Release { frames } => {
                for (port, frame) in frames {
                    let sent = u64::from(self.model.release(port, &frame).is_ok());
                    self.step(Event::Released {
                        sent,
                        refused: 1 - sent,
                    });
                }
            }
            Action::TakeUsed { keys } => {
                let outcome = self.model.take_used(&keys).map_err(|error| error.to_string());
                self.step(Event::Used { keys, outcome });
            }
            other => panic!("not the data plane's: {other:?}"),
        }
        true
    }

    pub fn settle(&mut self) {
        while self.work() {}
    }

    /// Lets time pass, ticking when the agent wants it.
    pub fn pass(&mut self, time: Duration) {
        let end = self.now.since_start + time;
        while let Some(at) = self.agent.deadline().filter(|at| *at <= end) {
            self.now.since_start = self.now.since_start.max(at);
            self.step(Event::Tick);
            self.settle();
        }
        self.now.since_start = self.now.since_start.max(end);
        self.step(Event::Tick);
        self.settle();
    }

    /// Waits until the agent has opened a session, and welcomes it.
    pub fn connect(&mut self) {
        self.settle();
        while self.session.is_none() {
            let at = self.agent.deadline().unwrap();
            self.now.since_start = self.now.since_start.max(at);
            self.step(Event::Tick);
            self.settle();
        }
        self.hear(FromNcm::Welcome {
            heartbeat_interval: Duration::from_secs(5),
        });
    }

    pub fn cut(&mut self) {
        self.asked.clear();
        if let Some(session) = self.session.take() {
            self.step(Event::Closed {
                session,
                reason: "test".to_owned(),
            });
        }
    }

    pub fn hear(&mut self, message: FromNcm) {
        if let Some(session) = self.session {
            self.step(Event::Message { session, message });
        }
    }

    /// The next delta of the session.
    pub fn delta(
        &mut self,
        network: u8,
        phase: Phase,
        revision: u64,
        rows: Vec<Result<(Revision, RowChange), String>>,
    ) -> Delta {
        self.sequence += 1;
        let (sequence, network, revision) = (self.sequence, network_id(network), Revision(revision));
        let delta = Delta {
            sequence,
            network,
            revision,
            phase,
            rows,
        };
        self.hear(FromNcm::Delta(delta.clone()));
        delta
    }

    pub fn rows(&mut self) -> Vec<Row> {
        self.model.snapshot().unwrap().rows
    }
}
