//! Agents, a core between them and a region, and steps that a seed chooses.

use std::collections::{BTreeMap, BTreeSet};

use alcor_dataplane::{Row, RowKey};
use alcor_model::Label;
use alcor_proto::v1;
use alcor_southbound::convert::resolve::{Question, decode_questions, encode_answers};
use proptest::prelude::*;

use super::{
    super::*,
    agent::SimAgent,
    asking,
    watch::Watch,
    world::{GATEWAYS, GROUPS, World, filters, id, name},
};

pub(super) fn receipt(sequence: u64) -> v1::Receipt {
    v1::Receipt {
        sequence,
        received_us: 1,
        visible_us: 2,
        refused: Vec::new(),
    }
}

pub(super) const HOSTS: u8 = 3;

/// The numbers of hosts that stay for a moment and go for ever.
const VISITORS: std::ops::Range<u8> = 4..7;

pub(super) struct Sim {
    pub(super) ncm: Ncm,
    pub(super) options: Options,
    pub(super) world: World,
    pub(super) agents: BTreeMap<u8, SimAgent>,
    pub(super) next_session: SessionId,
    pub(super) now: Now,
    /// Changes that the NCM has not been told.
    pub(super) untold: Vec<Change>,
    /// What is said of gateways, when there are some.
    pub(super) watch: Option<Watch>,
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
                            lease: options.limits.lease,
                            ..SimAgent::default()
                        },
                    )
                })
                .collect(),
            next_session: 1,
            now: Now::default(),
            untold: Vec::new(),
            watch: None,
        };
        for network in 0..2 {
            let change = sim.world.network(network);
            sim.untold.push(change);
        }
        let change = sim.world.outside(Some(1));
        sim.untold.push(change);
        for group in 0..GROUPS {
            let group = sim.world.group(group);
            sim.untold.push(Change::Put(group));
        }
        sim
    }

    /// Two sets of gateways, the first of two members.
    pub(super) fn with_gateways(options: Options) -> Self {
        let mut sim = Self::new(options);
        for (number, set) in [(GATEWAYS, "a"), (GATEWAYS + 1, "a"), (GATEWAYS + 2, "g")] {
            let agent = SimAgent {
                set: Some(set),
                incarnation: 1,
                lease: options.limits.lease,
                ..SimAgent::default()
            };
            sim.agents.insert(number, agent);
        }
        sim.restart_ncm();
        sim
    }

    /// The numbers of all agents.
    pub(super) fn everybody(&self) -> Vec<u8> {
        self.agents.keys().copied().collect()
    }

    pub(super) fn step(&mut self, event: Event) -> Work {
        self.now.since_start += Duration::from_millis(1);
        self.now.unix_us += 1_000;
        if let Some(watch) = &mut self.watch {
            watch.hears(self.now.since_start, &self.agents, &event);
        }
        let (actions, work) = self.ncm.step(self.now, event);
        for action in actions {
            match action {
                Action::Send { session, message } => {
                    let agent = self
                        .agents
                        .values_mut()
                        .find(|agent| agent.session == Some(session))
                        .unwrap();
                    if let Some(body @ v1::ncm_message::Body::Delta(_)) = message.read().unwrap().body {
                        agent.inbox.push_back(body);
                        let deltas = agent.inbox.iter();
                        let deltas = deltas.filter(|body| matches!(body, v1::ncm_message::Body::Delta(_)));
                        assert!(
                            deltas.count() <= self.options.window_deltas,
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
                Action::RegisterHost { name, word } => {
                    let number: u8 = name[1..].parse().unwrap();
                    if let (Some(agent), false) =
                        (self.agents.get(&number), self.world.hosts.contains_key(&name))
                    {
                        assert!(
                            !agent.knows_old_meanings(&self.world, &self.ncm.networks_of(&name)),
                            "{name} can be reached now"
                        );
                    }
                    let change = self.world.register(number, word);
                    self.untold.push(change);
                }
                Action::RegisterGateway { name, set, .. } => {
                    let number = name[1..].parse::<u8>().unwrap() + GATEWAYS;
                    let draining = self.world.gateways.get(&name).is_some_and(|row| row.draining);
                    let change = self.world.gateway(number, &set, draining);
                    self.untold.push(change);
                }
                Action::ReportPort(_) | Action::NoteHosts(_) => {}
                Action::NoteFloatingIps(words) => {
                    let changes = self.world.note(words);
                    self.untold.extend(changes);
                }
                Action::ReleaseLabels(labels) => self.release(&labels),
            }
        }
        if let Some(watch) = &self.watch {
            watch.check(self);
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
            for (host, agent) in self.agents.range(..GATEWAYS) {
                let name = name(*host);
                if label.retired && self.world.interested(&name, network) {
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
        agent.welcome(session, self.now.since_start);
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
        let (Some(session), Some(message)) = (agent.session, agent.inbox.pop_front()) else {
            return false;
        };
        let delta = match message {
            v1::ncm_message::Body::Delta(delta) => delta,
            v1::ncm_message::Body::Resolved(resolved) => {
                agent.take_answers(&resolved);
                asking::check(&name(host), agent, &self.world);
                return true;
            }
            v1::ncm_message::Body::Welcome(_) => return true,
        };
        let mut receipt = agent.take(&delta, self.now.since_start);
        asking::check(&name(host), agent, &self.world);
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
        if let Some(watch) = &mut self.watch {
            *watch = Watch::since(self.now.since_start);
        }
        self.step(Event::Snapshot {
            revision: self.world.revision,
            rows: self.world.rows(),
        });
    }

    /// The NCM answers a message of questions; gives whether there was one. The answers are not on their way yet.
    pub(super) fn answer(&mut self, host: u8) -> bool {
        let now = self.now.since_start;
        let agent = self.agents.get_mut(&host).unwrap();
        let (Some(session), Some(message)) = (agent.session, agent.outbox.pop_front()) else {
            return false;
        };
        let directory = self.ncm.directory();
        let asker = directory.asker(&name(host), session).unwrap();
        let questions = decode_questions(&message).unwrap();
        let (answers, asked) = directory.resolve(now, &asker, &questions);
        assert!(asked.rows_looked_at <= asked.questions);
        agent.answered.push_back(encode_answers(message.id, &answers));
        true
    }

    /// Answers that were made are on their way now; gives whether there were any.
    pub(super) fn relay(&mut self, host: u8) -> bool {
        let agent = self.agents.get_mut(&host).unwrap();
        let resolved = agent.answered.pop_front();
        let any = resolved.is_some();
        agent.inbox.extend(resolved.map(v1::ncm_message::Body::Resolved));
        any
    }

    /// Time passes for those that are there. What is on its way arrives in less time than a lease takes.
    pub(super) fn pass(&mut self, time: Duration) {
        self.quiet();
        let step = Duration::from_secs(1);
        let until = self.now.since_start + time;
        while self.now.since_start < until {
            self.now.since_start += step;
            self.now.unix_us += 1_000_000;
            self.beat();
            self.step(Event::Tick);
            for agent in self.agents.values_mut() {
                agent.expire(self.now.since_start);
            }
        }
    }

    /// Everybody who is there says so.
    pub(super) fn beat(&mut self) {
        for number in self.everybody() {
            if let Some(session) = self.agents[&number].session {
                let body = v1::agent_message::Body::Heartbeat(v1::Heartbeat::default());
                self.step(Event::Message { session, body });
            }
        }
    }

    /// Until nothing is left to be told, answered or delivered to those that are there.
    pub(super) fn quiet(&mut self) {
        for _ in 0..10_000 {
            self.step(Event::Tick);
            self.tell();
            self.beat_in_time();
            let mut any = !self.untold.is_empty();
            for host in self.everybody() {
                any |= self.answer(host) | self.relay(host);
                any |= self.deliver(host);
            }
            if !any {
                return;
            }
        }
        panic!("it goes on and on");
    }

    /// Everybody is connected, everything is told and delivered; then compares.
    pub(super) fn arrive(&mut self) {
        // One that was deleted is there again after that.
        for _ in 0..2 {
            for host in self.everybody() {
                if self.agents[&host].session.is_none() {
                    self.connect(host);
                }
            }
            self.quiet();
        }
        self.compare(false);
    }

    /// The same, and once more when nobody lingers any more, and when every host has asked for all that there is.
    pub(super) fn settle(&mut self) {
        self.arrive();
        self.pass(self.options.limits.lease * 3);
        if self.watch.is_some() {
            // A gateway that had to be registered again has taken networks from others.
            self.pass(self.options.limits.lease * 3);
        }
        self.quiet();
        self.compare(true);
        self.ask_everything();
        self.quiet();
        self.compare(true);
    }

    /// Each host asks for every address of its networks on demand, and one of a network in which it has nothing.
    fn ask_everything(&mut self) {
        let now = self.now.since_start;
        let ports: Vec<_> = self.world.ports.values().cloned().collect();
        for agent in self.agents.values_mut() {
            let asked = ports.iter().filter(|port| agent.is_on_demand(port.network_id));
            let asked = asked.map(|port| Question {
                network: port.network_id,
                ip: port.fixed_ips[0].ip_address,
                port: None,
            });
            let asked: Vec<_> = asked.collect();
            agent.ask(now, asked);
        }
    }

    /// Packets are taken from the hosts of a network, and from those that pass packets on or did lately.
    fn compare_underlay(&self, host: &str, network: Id<Network>, expected: &mut BTreeMap<RowKey, String>) {
        let view = &self.ncm.networks[&network];
        let blocks: BTreeSet<String> = view.underlay.blocks().iter().map(ToString::to_string).collect();
        let hosts = self.world.underlay(network);
        assert!(blocks.is_superset(&hosts), "{blocks:?} of {hosts:?}");
        let gateways = view.service.names();
        let lately: BTreeSet<_> = view
            .left
            .hosts()
            .chain(&view.passed_on)
            .chain(&gateways)
            .collect();
        assert!(
            blocks.len() <= hosts.len() + lately.len(),
            "{blocks:?} of {hosts:?}, {lately:?}"
        );
        let row = expected
            .get_mut(&RowKey::Network(network))
            .filter(|_| filters(host));
        if let Some(row) = row {
            *row = format!("{:?}", Some(blocks));
        }
    }

    /// Everything is told: each floating IP is answered by one host or by gateways, never by both.
    fn compare_floating_ips(&self) {
        for row in self.world.floating_ips.values() {
            let of_agent = |agent: &SimAgent| {
                let rows = agent
                    .rows
                    .iter()
                    .filter(|(key, _)| matches!(key, RowKey::FloatingIp(_, id) if *id == row.id));
                let rows = rows.filter_map(|(_, (_, row))| match row {
                    Some(Row::FloatingIp(row)) => Some(row.host),
                    _ => None,
                });
                rows.collect::<Vec<_>>()
            };
            let expected = self.world.answers(row);
            if expected.is_some() || row.association.is_none() {
                assert_eq!(row.in_force, expected.is_some(), "{row:?}");
            }
            let expected = (
                expected.map(|host| host.tunnel_ip),
                expected.map(|host| &host.name),
            );
            for (number, agent) in &self.agents {
                // Without a device there such a row means nothing; a host that lost its device may keep one.
                let is_host = *number < GATEWAYS;
                let said = if is_host && !agent.outside {
                    Vec::new()
                } else {
                    of_agent(agent)
                };
                assert!(
                    said.iter().all(|host| *host == expected.0),
                    "{}: {row:?}",
                    name(*number)
                );
                let answers = is_host && !said.is_empty();
                assert_eq!(
                    answers,
                    Some(&name(*number)) == expected.1,
                    "{}: {row:?}",
                    name(*number)
                );
            }
        }
    }

    /// Each host has exactly what it must have: of networks on demand its own rows, and of neighbours nothing that is
    /// wrong. While hosts linger that is said of networks in which they have ports, and of ports.
    fn compare(&self, is_over: bool) {
        for (host, agent) in self.agents.range(..GATEWAYS) {
            let name = name(*host);
            let mut expected = self.world.expected(&name);
            let mine: BTreeSet<_> = expected.keys().map(RowKey::network_id).collect();
            let mut has = agent.has(&name, &self.world);
            let is_port = |key: &RowKey| matches!(key, RowKey::Port(..));
            has.retain(|key, _| is_over || is_port(key) || mine.contains(&key.network_id()));
            for network in mine {
                self.compare_underlay(&name, network, &mut expected);
                assert_eq!(
                    agent.is_on_demand(network),
                    self.ncm.networks[&network].learned,
                    "{name}"
                );
            }
            let learned =
                |key: &RowKey| matches!(key, RowKey::Neighbour(..)) && agent.is_on_demand(key.network_id());
            expected.retain(|key, _| !learned(key) || has.contains_key(key));
            assert_eq!(has, expected, "{name} has what it must have");
            let state = self.ncm.host_state(&name).unwrap();
            assert_eq!(
                (state.summary.pending, state.queued),
                (0, 0),
                "{name}: everything receipted: {state:?}, held {:?}",
                agent.held
            );
        }
        self.compare_floating_ips();
        if self.watch.is_some() {
            self.compare_gateways(is_over);
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
    Router {
        number: u8,
        networks: u8,
        up: bool,
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
    /// An operator deletes a host, whether it is gone or not.
    DeleteHost {
        host: u8,
    },
    /// Somebody says hello under a name that nobody has, and is gone again; or an operator deletes him.
    Visitor {
        number: u8,
    },
    Ask {
        host: u8,
        number: u8,
        ip: u8,
    },
    Answer {
        host: u8,
    },
    Relay {
        host: u8,
    },
    Pass {
        seconds: u8,
    },
    WayOut {
        number: u8,
        networks: u8,
        up: bool,
    },
    FloatingIp {
        number: u8,
        router: u8,
        port: Option<u8>,
    },
    /// The agent starts again, with a device in the external network or without; what is in the kernel stays.
    Outfit {
        host: u8,
        outside: bool,
    },
    /// The external network's subnet gets this gateway, or goes.
    Outside {
        gateway: Option<u8>,
    },
    Drain {
        gateway: u8,
        draining: bool,
    },
    RemoveGateway {
        gateway: u8,
    },
    /// The process starts again; the maps in the kernel stay.
    RestartGateway {
        gateway: u8,
    },
    Beat {
        gateway: u8,
        unreachable: Option<u8>,
    },
    Pulse {
        tenths: u8,
    },
}

/// Steps without gateways.
pub(super) fn steps() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(step(), 1..120)
}

/// Steps in which gateways come, go, fall silent and accuse each other.
pub(super) fn steps_with_gateways() -> impl Strategy<Value = Vec<Step>> {
    let gateway = GATEWAYS..GATEWAYS + 3;
    let out = prop_oneof![
        2 => (0u8..2, 0u8..4, any::<bool>()).prop_map(|(number, networks, up)| Step::WayOut { number, networks, up }),
        4 => (0u8..2, 0u8..2, prop::option::weighted(0.8, 0u8..6))
            .prop_map(|(number, router, port)| Step::FloatingIp { number, router, port }),
        3 => (1..=HOSTS, prop::bool::weighted(0.7)).prop_map(|(host, outside)| Step::Outfit { host, outside }),
        1 => prop::option::weighted(0.8, 1u8..3).prop_map(|gateway| Step::Outside { gateway }),
        1 => (gateway.clone(), any::<bool>()).prop_map(|(gateway, draining)| Step::Drain { gateway, draining }),
        1 => gateway.clone().prop_map(|gateway| Step::RemoveGateway { gateway }),
        1 => gateway.clone().prop_map(|gateway| Step::RestartGateway { gateway }),
        3 => (gateway.clone(), prop::option::weighted(0.3, gateway.clone()))
            .prop_map(|(gateway, unreachable)| Step::Beat { gateway, unreachable }),
        4 => (1u8..8).prop_map(|tenths| Step::Pulse { tenths }),
        4 => (gateway.clone(), 1u8..5).prop_map(|(host, count)| Step::Deliver { host, count }),
        1 => gateway.clone().prop_map(|host| Step::Disconnect { host }),
        3 => gateway.clone().prop_map(|host| Step::Connect { host }),
        1 => gateway.prop_map(|host| Step::RestartAgent { host }),
    ];
    prop::collection::vec(prop_oneof![1 => step(), 1 => out], 1..120)
}

fn step() -> impl Strategy<Value = Step> {
    let host = 1..=HOSTS;
    prop_oneof![
        6 => (0u8..6, prop::option::weighted(0.85, host.clone()), 1u8..3, 0u16..1 << GROUPS)
            .prop_map(|(number, host, ip, groups)| Step::Port { number, network: number % 2, host, ip, groups }),
        2 => (0..GROUPS, 1u16..4).prop_map(|(group, port)| Step::Rule { group, port }),
        2 => (0u8..2, 0u8..4, any::<bool>()).prop_map(|(number, networks, up)| Step::Router { number, networks, up }),
        1 => Just(Step::Tick),
        2 => (0u8..6).prop_map(|number| Step::Delete { number }),
        1 => host.clone().prop_map(|host| Step::MoveTunnel { host }),
        4 => Just(Step::Tell),
        4 => (host.clone(), 1u8..5).prop_map(|(host, count)| Step::Deliver { host, count }),
        1 => host.clone().prop_map(|host| Step::Disconnect { host }),
        2 => host.clone().prop_map(|host| Step::Connect { host }),
        1 => host.clone().prop_map(|host| Step::RestartAgent { host }),
        1 => Just(Step::RestartNcm),
        1 => Just(Step::Lag),
        1 => host.clone().prop_map(|host| Step::DeleteHost { host }),
        1 => VISITORS.prop_map(|number| Step::Visitor { number }),
        6 => (host.clone(), 0u8..6, 1u8..3).prop_map(|(host, number, ip)| Step::Ask { host, number, ip }),
        4 => host.clone().prop_map(|host| Step::Answer { host }),
        4 => host.clone().prop_map(|host| Step::Relay { host }),
        1 => (1u8..12).prop_map(|seconds| Step::Pass { seconds }),
    ]
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
            Step::Router { number, networks, up } => {
                let change = self.world.router(number, networks, up);
                self.untold.extend(change);
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
                        set: self.agents[&host].set,
                        outside: self.agents[&host].outside,
                        incarnation,
                        lease: self.options.limits.lease,
                        ..SimAgent::default()
                    },
                );
            }
            Step::RestartNcm => self.restart_ncm(),
            Step::Ask { host, number, ip } => {
                let network = number % 2;
                let question = Question {
                    network: id(u128::from(network) + 1000),
                    ip: IpAddr::from([10, network, number, ip]),
                    port: None,
                };
                let now = self.now.since_start;
                self.agents.get_mut(&host).unwrap().ask(now, vec![question]);
            }
            Step::Answer { host } => drop(self.answer(host)),
            Step::Relay { host } => drop(self.relay(host)),
            Step::Pass { seconds } => self.pass(Duration::from_secs(seconds.into())),
            Step::WayOut { number, networks, up } => {
                let change = self.world.router_out(number, networks, up, true);
                self.untold.extend(change);
            }
            Step::FloatingIp { number, router, port } => {
                let change = self.world.floating_ip(number, router, port.map(u128::from));
                self.untold.push(change);
            }
            Step::Outfit { host, outside } => {
                self.disconnect(host);
                let agent = self.agents.get_mut(&host).unwrap();
                (agent.incarnation, agent.outside) = (agent.incarnation + 1, outside);
                for held in agent.held.values_mut() {
                    *held = Revision::ZERO;
                }
            }
            Step::Outside { gateway } => {
                let change = self.world.outside(gateway);
                self.untold.push(change);
            }
            Step::Drain { gateway, draining } => {
                if let Some(known) = self.world.gateways.get(&name(gateway)) {
                    let set = known.set.clone();
                    let change = self.world.gateway(gateway, &set, draining);
                    self.untold.push(change);
                }
            }
            Step::RemoveGateway { gateway } => {
                let change = self.world.delete_gateway(gateway);
                self.untold.extend(change);
            }
            Step::RestartGateway { gateway } => {
                self.disconnect(gateway);
                let agent = self.agents.get_mut(&gateway).unwrap();
                agent.incarnation += 1;
                agent.held.clear();
            }
            Step::Beat { gateway, unreachable } => {
                let unreachable: Vec<u8> = unreachable.into_iter().collect();
                self.beats(gateway, &unreachable);
            }
            Step::Pulse { tenths } => {
                for _ in 0..tenths {
                    self.now.since_start += PULSE;
                    self.step(Event::Pulse);
                }
            }
            Step::DeleteHost { host } => {
                let change = self.world.delete_host(&name(host));
                self.untold.extend(change);
            }
            Step::Visitor { number } => self.visit(number),
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

impl Sim {
    fn visit(&mut self, number: u8) {
        if let Some(change) = self.world.delete_host(&name(number)) {
            return self.untold.push(change);
        }
        let session = self.next_session;
        self.next_session += 1;
        let hello = SimAgent::default().hello(number);
        let event = Event::Hello { session, hello };
        let (actions, _) = self.ncm.step(self.now, event);
        for action in actions {
            if let Action::RegisterHost { word, .. } = action {
                let change = self.world.register(number, word);
                self.untold.push(change);
            }
        }
        self.step(Event::Closed { session });
    }

    /// Hosts that are gone for ever leave nothing behind.
    fn compare_names(&mut self) {
        for number in VISITORS {
            let change = self.world.delete_host(&name(number));
            self.untold.extend(change);
        }
        self.tell();
        self.pass(strangers::STRANGER_KEPT + Duration::from_secs(2));
        let here: BTreeSet<String> = self.agents.keys().map(|number| name(*number)).collect();
        assert_eq!(self.ncm.known_names(), here);
    }

    /// The lines of the list say what follows from the rows, also where these were not looked at.
    fn compare_summaries(&self) {
        let made = view::ROWS_MADE.get();
        let summaries = self.ncm.host_summaries();
        assert_eq!(view::ROWS_MADE.get(), made, "no row is made to be counted");
        for summary in summaries {
            let state = self.ncm.host_state(&summary.name).unwrap();
            let ports = state.resources.iter().filter(|row| row.kind == "port").count();
            let (refused, others): (Vec<_>, Vec<_>) =
                state.resources.iter().partition(|row| row.error.is_some());
            let behind = others
                .iter()
                .filter(|row| row.applied_revision < Some(row.intended_revision));
            let (pending, errors) = (behind.count(), refused.len());
            assert_eq!(
                (summary.ports, summary.pending, summary.errors),
                (ports, pending, errors),
                "{state:?}"
            );
        }
    }
}

/// Takes the steps and settles; gives what there is then.
pub(super) fn run(options: Options, steps: Vec<Step>) -> Sim {
    take_all(Sim::new(options), steps)
}

/// The same with gateways, which are watched all the time.
pub(super) fn run_with_gateways(options: Options, steps: Vec<Step>) -> Sim {
    let mut sim = Sim::with_gateways(options);
    sim.watch = Some(Watch::since(Duration::ZERO));
    take_all(sim, steps)
}

fn take_all(mut sim: Sim, steps: Vec<Step>) -> Sim {
    for step in steps {
        sim.take(step);
        sim.compare_summaries();
    }
    sim.settle();
    sim.compare_names();
    sim
}
