//! The core against simulated agents under seeded faults: whatever happens, each host ends with exactly what a naive
//! oracle says, and never holds a row of a network in which it has no port. And what a change costs.

use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroU16,
};

use alcor_dataplane::{Row, RowChange, RowKey};
use alcor_model::{
    MacAddr, SecurityGroup, SecurityGroupRule, Vni,
    resource::{self, Binding, BindingState, Direction, Ethertype, FixedIp, Protocol, RuleMatch, Standard},
};
use alcor_southbound::convert::{decode_id, decode_row, encode_ip};
use proptest::prelude::*;

use super::*;

fn standard() -> Standard {
    Standard {
        project_id: "p".into(),
        name: String::new(),
        description: String::new(),
        tags: Vec::new(),
        created_at: jiff::Timestamp::UNIX_EPOCH,
        updated_at: jiff::Timestamp::UNIX_EPOCH,
        revision_number: 1,
    }
}

fn id<T>(number: u128) -> Id<T> {
    Id::from_uuid(uuid::Uuid::from_u128(number))
}

fn tunnel_ip(host: u8) -> IpAddr {
    IpAddr::from([192, 0, 2, host])
}

/// A region in a few maps, and the changes that lead to it.
#[derive(Default)]
struct World {
    revision: Revision,
    hosts: BTreeMap<String, Arc<Host>>,
    networks: BTreeMap<Id<Network>, Arc<Network>>,
    ports: BTreeMap<Id<Port>, Arc<Port>>,
    labels: BTreeMap<(Id<Network>, NonZeroU16), Arc<Label>>,
    rules: BTreeMap<Id<SecurityGroupRule>, Arc<SecurityGroupRule>>,
}

/// How many security groups there are; a set of them is a number of so many bits, which is its label too.
const GROUPS: u16 = 3;

fn group_id(group: u16) -> Id<SecurityGroup> {
    id(u128::from(group) + 9000)
}

/// One of the hosts does not filter: it must not be told what it would only pretend to have in force.
fn filters(host: &str) -> bool {
    host != "h3"
}

fn groups_of(bits: u16) -> Vec<Id<SecurityGroup>> {
    let set = (0..GROUPS).filter(|group| bits >> group & 1 == 1);
    set.map(group_id).collect()
}

impl World {
    fn group(&self, group: u16) -> Resource {
        Resource::SecurityGroup(Arc::new(SecurityGroup {
            id: group_id(group),
            revision: Revision(1),
            standard: standard(),
            stateful: true,
            is_default: false,
        }))
    }

    /// Adds a rule for a port number to a group, or deletes it.
    fn toggle_rule(&mut self, group: u16, port: u16) -> Change {
        self.revision = self.revision.next();
        let rule_id = id(u128::from(group) * 100 + u128::from(port) + 20_000);
        if self.rules.remove(&rule_id).is_some() {
            return Change::Delete {
                key: ResourceKey::SecurityGroupRule(rule_id),
                revision: self.revision,
            };
        }
        let rule = Arc::new(SecurityGroupRule {
            id: rule_id,
            revision: self.revision,
            standard: standard(),
            security_group_id: group_id(group),
            matches: RuleMatch {
                direction: Direction::Ingress,
                ethertype: Ethertype::Ipv4,
                protocol: Protocol::parse("tcp"),
                port_range_min: Some(port),
                port_range_max: Some(port),
                remote: resource::Remote::Any,
            },
        });
        self.rules.insert(rule_id, Arc::clone(&rule));
        Change::Put(Resource::SecurityGroupRule(rule))
    }

    /// The points that a group's rules allow.
    fn allowed(&self, group: Id<SecurityGroup>) -> Vec<u16> {
        let rules = self.rules.values().filter(|rule| rule.security_group_id == group);
        rules.filter_map(|rule| rule.matches.port_range_min).collect()
    }

    fn put_label(&mut self, network: Id<Network>, number: NonZeroU16, retired: bool) -> Change {
        let label = Arc::new(Label {
            id: id(network.uuid().as_u128() * 1_000 + u128::from(number.get())),
            revision: self.revision,
            network_id: network,
            number,
            security_groups: groups_of(number.get()),
            retired,
        });
        self.labels.insert((network, number), Arc::clone(&label));
        Change::Put(Resource::Label(label))
    }

    /// After a port left a set, in the same commit.
    fn left(&mut self, network: Id<Network>, label: Option<u16>) -> Option<Change> {
        let number = label.and_then(NonZeroU16::new)?;
        let used = |port: &Arc<Port>| port.network_id == network && port.label == label;
        let last = !self.ports.values().any(used);
        last.then(|| self.put_label(network, number, true))
    }

    /// A port under a set of groups, as the region writes it: its label first, and the old one rests after.
    fn port_under(&mut self, number: u128, network: u8, host: Option<u8>, ip: u8, bits: u16) -> Vec<Change> {
        let old = self.ports.get(&id(number + 5000)).and_then(|port| port.label);
        let Change::Put(Resource::Port(port)) = self.port(number, network, host, ip) else {
            unreachable!()
        };
        let mut port = Port::clone(&port);
        let network = port.network_id;
        (port.security_groups, port.label) = (groups_of(bits), Some(bits));
        let mut changes = Vec::new();
        if let Some(number) = NonZeroU16::new(bits)
            && self
                .labels
                .get(&(network, number))
                .is_none_or(|label| label.retired)
        {
            changes.push(self.put_label(network, number, false));
        }
        let port = Arc::new(port);
        self.ports.insert(port.id, Arc::clone(&port));
        changes.push(Change::Put(Resource::Port(port)));
        changes.extend(self.left(network, old));
        changes
    }

    /// The region gives numbers free that everybody has forgotten.
    fn release(&mut self, labels: &[(Id<Label>, Revision)]) -> Vec<Change> {
        let mut changes = Vec::new();
        for (label, at) in labels {
            let known = self.labels.iter().find(|(_, row)| row.id == *label);
            if let Some((key, _)) = known.filter(|(_, row)| row.retired && row.revision <= *at) {
                let key = *key;
                self.labels.remove(&key);
                self.revision = self.revision.next();
                changes.push(Change::Delete {
                    key: ResourceKey::Label(*label),
                    revision: self.revision,
                });
            }
        }
        changes
    }
    fn host(&mut self, number: u8, moved: bool) -> Change {
        self.revision = self.revision.next();
        let host = Arc::new(Host {
            name: format!("h{number}"),
            revision: self.revision,
            tunnel_ip: tunnel_ip(if moved { number + 100 } else { number }),
            created_at: jiff::Timestamp::UNIX_EPOCH,
            admin_state_up: true,
            description: String::new(),
            availability_zone: "nova".into(),
        });
        self.hosts.insert(host.name.clone(), Arc::clone(&host));
        Change::Put(Resource::Host(host))
    }

    fn network(&mut self, number: u8) -> Change {
        self.revision = self.revision.next();
        let network = Arc::new(Network {
            id: id(u128::from(number) + 1000),
            revision: self.revision,
            standard: standard(),
            admin_state_up: true,
            mtu: 1450,
            external: false,
            is_default: false,
            availability_zone_hints: Vec::new(),
            port_security_enabled: true,
            segmentation_id: Vni::try_from(u32::from(number) + 1).unwrap(),
        });
        self.networks.insert(network.id, Arc::clone(&network));
        Change::Put(Resource::Network(network))
    }

    fn port(&mut self, number: u128, network: u8, host: Option<u8>, ip: u8) -> Change {
        self.revision = self.revision.next();
        let port = Arc::new(Port {
            id: id(number + 5000),
            revision: self.revision,
            standard: standard(),
            network_id: id(u128::from(network) + 1000),
            mac_address: MacAddr([2, 0, 0, 0, 0, number as u8]),
            fixed_ips: vec![FixedIp {
                subnet_id: id(1),
                ip_address: IpAddr::from([10, network, number as u8, ip]),
            }],
            allowed_address_pairs: Vec::new(),
            admin_state_up: true,
            device_id: String::new(),
            device_owner: String::new(),
            port_security_enabled: true,
            security_groups: Vec::new(),
            label: Some(0),
            dns_name: String::new(),
            binding: Binding {
                host_id: host.map(|host| format!("h{host}")).unwrap_or_default(),
                vnic_type: "normal".into(),
                profile: serde_json::Map::new(),
                since: Revision::ZERO,
                state: BindingState::Bound,
            },
            standby: Vec::new(),
            unaddressed: false,
            dns_domain: String::new(),
            extra_dhcp_opts: Vec::new(),
            data_plane_status: None,
        });
        self.ports.insert(port.id, Arc::clone(&port));
        Change::Put(Resource::Port(port))
    }

    fn delete_port(&mut self, number: u128) -> Vec<Change> {
        let Some(port) = self.ports.remove(&id(number + 5000)) else {
            return Vec::new();
        };
        self.revision = self.revision.next();
        let mut changes = vec![Change::Delete {
            key: ResourceKey::Port(id(number + 5000)),
            revision: self.revision,
        }];
        changes.extend(self.left(port.network_id, port.label));
        changes
    }

    fn rows(&self) -> Vec<Resource> {
        let groups: Vec<_> = (0..GROUPS).map(|group| self.group(group)).collect();
        let hosts = self.hosts.values().cloned().map(Resource::Host);
        let networks = self.networks.values().cloned().map(Resource::Network);
        hosts
            .chain(networks)
            .chain(groups)
            .chain(self.rules.values().cloned().map(Resource::SecurityGroupRule))
            .chain(self.labels.values().cloned().map(Resource::Label))
            .chain(self.ports.values().cloned().map(Resource::Port))
            .collect()
    }

    /// What a host must have, from the resources alone: key to what matters of the row.
    fn expected(&self, host: &str) -> BTreeMap<RowKey, String> {
        let mine: BTreeSet<_> = self
            .ports
            .values()
            .filter(|port| port.binding.host_id == host)
            .map(|port| port.network_id)
            .collect();
        let mut rows = BTreeMap::new();
        for network in &mine {
            rows.insert(RowKey::Network(*network), "network".to_owned());
        }
        let told = |label: &&Arc<Label>| filters(host) && !label.retired && mine.contains(&label.network_id);
        for label in self.labels.values().filter(told) {
            let key = RowKey::Label(label.network_id, label.number);
            rows.insert(key, format!("{:?}", label.security_groups));
        }
        for port in self.ports.values().filter(|port| mine.contains(&port.network_id)) {
            if port.binding.host_id == host {
                rows.insert(
                    RowKey::Port(port.network_id, port.id),
                    format!("{:?} {:?}", port.fixed_ips, port.label.filter(|_| filters(host))),
                );
                for group in port.security_groups.iter().filter(|_| filters(host)) {
                    let key = RowKey::Policy(port.network_id, *group);
                    rows.insert(key, format!("{:?}", self.allowed(*group)));
                }
            } else if let Some(other) = self.hosts.get(&port.binding.host_id) {
                for fixed in &port.fixed_ips {
                    let label = port.label.unwrap_or_default();
                    let text = format!("{} {} {label}", port.mac_address, other.tunnel_ip);
                    rows.insert(RowKey::Neighbour(port.network_id, fixed.ip_address), text);
                }
            }
        }
        rows
    }
}

fn text(row: &Row) -> String {
    match row {
        Row::Network(_) => "network".to_owned(),
        Row::Subnet(_) => "subnet".to_owned(),
        Row::Policy(row) => {
            let points = row.ingress.iter().filter_map(|rule| rule.service);
            format!("{:?}", points.map(|service| service.first).collect::<Vec<_>>())
        }
        Row::Label(row) => format!("{:?}", row.groups),
        Row::Port(port) => format!("{:?} {:?}", port.fixed_ips, port.label),
        Row::Neighbour(row) => format!("{} {} {}", row.mac, row.host, row.label),
    }
}

/// An agent that keeps the newest revision per key, as the protocol demands.
#[derive(Default)]
struct SimAgent {
    session: Option<SessionId>,
    incarnation: u64,
    rows: BTreeMap<RowKey, (Revision, Option<String>)>,
    held: BTreeMap<Id<Network>, Revision>,
    /// Messages that are on their way to the agent.
    inbox: std::collections::VecDeque<v1::Delta>,
    named: BTreeMap<Id<Network>, BTreeSet<RowKey>>,
    last_sequence: u64,
}

impl SimAgent {
    fn hello(&self, host: u8) -> v1::Hello {
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

    fn take(&mut self, delta: v1::Delta) -> v1::Receipt {
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
                RowChange::Put(row) => Some(text(&row)),
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

    fn has(&self) -> BTreeMap<RowKey, String> {
        self.rows
            .iter()
            .filter_map(|(key, (_, text))| Some((*key, text.clone()?)))
            .collect()
    }
}

fn receipt(sequence: u64) -> v1::Receipt {
    v1::Receipt {
        sequence,
        received_us: 1,
        visible_us: 2,
        refused: Vec::new(),
    }
}

const HOSTS: u8 = 3;

struct Sim {
    ncm: Ncm,
    options: Options,
    world: World,
    agents: BTreeMap<u8, SimAgent>,
    next_session: SessionId,
    now: Now,
    /// Changes that the NCM has not been told.
    untold: Vec<Change>,
}

impl Sim {
    fn new(options: Options) -> Self {
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

    fn step(&mut self, event: Event) -> Work {
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
                Action::ReportPort(_) => {}
                Action::ReleaseLabels(labels) => self.release(&labels),
            }
        }
        work
    }

    /// A number may get a new meaning only when no host with a port in the network can match it against the old one.
    fn release(&mut self, labels: &[(Id<Label>, Revision)]) {
        for (label, _) in labels {
            let Some(label) = self.world.labels.values().find(|row| row.id == *label) else {
                continue;
            };
            let (network, key) = (label.network_id, RowKey::Label(label.network_id, label.number));
            for (host, agent) in &self.agents {
                let name = format!("h{host}");
                let bound = |port: &Arc<Port>| port.network_id == network && port.binding.host_id == name;
                if label.retired && self.world.ports.values().any(bound) {
                    let knows = agent.rows.get(&key).is_some_and(|(_, text)| text.is_some());
                    assert!(!knows, "{name} knows {key:?}");
                }
            }
        }
        let changes = self.world.release(labels);
        self.untold.extend(changes);
    }

    fn tell(&mut self) -> Work {
        let changes = std::mem::take(&mut self.untold);
        self.step(Event::Changes {
            changes,
            committed_us: 1,
        })
    }

    fn connect(&mut self, host: u8) {
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

    fn disconnect(&mut self, host: u8) {
        if let Some(session) = self.agents.get_mut(&host).unwrap().session.take() {
            self.step(Event::Closed { session });
        }
    }

    /// One waiting message reaches its agent and is receipted.
    fn deliver(&mut self, host: u8) -> bool {
        let agent = self.agents.get_mut(&host).unwrap();
        let (Some(session), Some(delta)) = (agent.session, agent.inbox.pop_front()) else {
            return false;
        };
        let body = v1::agent_message::Body::Receipt(agent.take(delta));
        self.step(Event::Message { session, body });
        true
    }

    fn restart_ncm(&mut self) {
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
    fn settle(&mut self) {
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
                agent.has(),
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
enum Step {
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

fn steps() -> impl Strategy<Value = Vec<Step>> {
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

fn run(options: Options, steps: Vec<Step>) {
    let mut sim = Sim::new(options);
    for step in steps {
        match step {
            Step::Port {
                number,
                network,
                host,
                ip,
                groups,
            } => {
                let changes = sim
                    .world
                    .port_under(u128::from(number), network, host, ip, groups);
                sim.untold.extend(changes);
            }
            Step::Rule { group, port } => {
                let change = sim.world.toggle_rule(group, port);
                sim.untold.push(change);
            }
            Step::Tick => drop(sim.step(Event::Tick)),
            Step::Delete { number } => {
                let change = sim.world.delete_port(u128::from(number));
                sim.untold.extend(change);
            }
            Step::MoveTunnel { host } => {
                let change = sim.world.host(host, true);
                sim.untold.push(change);
            }
            Step::Tell => drop(sim.tell()),
            Step::Deliver { host, count } => {
                for _ in 0..count {
                    sim.deliver(host);
                }
            }
            Step::Disconnect { host } => sim.disconnect(host),
            Step::Connect { host } => sim.connect(host),
            Step::RestartAgent { host } => {
                sim.disconnect(host);
                let incarnation = sim.agents[&host].incarnation + 1;
                sim.agents.insert(
                    host,
                    SimAgent {
                        incarnation,
                        ..SimAgent::default()
                    },
                );
            }
            Step::RestartNcm => sim.restart_ncm(),
            Step::Lag => {
                sim.untold.clear();
                sim.step(Event::Snapshot {
                    revision: sim.world.revision,
                    rows: sim.world.rows(),
                });
            }
        }
    }
    sim.settle();
}

proptest! {
    #[test]
    fn every_host_ends_with_what_it_must_have(steps in steps()) {
        run(Options::default(), steps);
    }

    /// With tiny windows, queues and tombstone lists, everything overflows all the time.
    #[test]
    fn overflow_becomes_a_resync(steps in steps()) {
        let options =
            Options { window_deltas: 2, queue_rows: 3, message_rows: 2, tombstones: 3, ..Options::default() };
        run(options, steps);
    }
}

/// A network of `ports` ports on `hosts` simulated hosts, all connected and settled.
fn big(hosts: u32, ports: u32) -> (Ncm, Revision) {
    let mut ncm = Ncm::new(Options::default());
    let mut world = World::default();
    let mut rows = vec![world.network(0)];
    for host in 0..hosts {
        world.revision = world.revision.next();
        rows.push(Change::Put(Resource::Host(Arc::new(Host {
            name: format!("h{host}"),
            revision: world.revision,
            tunnel_ip: IpAddr::from(host.to_be_bytes()),
            created_at: jiff::Timestamp::UNIX_EPOCH,
            admin_state_up: true,
            description: String::new(),
            availability_zone: "nova".into(),
        }))));
    }
    for port in 0..ports {
        rows.push(big_port(&mut world, port, port % hosts));
    }
    ncm.step(
        Now::default(),
        Event::Changes {
            changes: rows,
            committed_us: 1,
        },
    );
    for host in 0..hosts {
        let hello = v1::Hello {
            host: format!("h{host}"),
            incarnation: 1,
            tunnel_ip: encode_ip(IpAddr::from(host.to_be_bytes())),
            filters: true,
            ..v1::Hello::default()
        };
        let session = u64::from(host) + 1;
        let (mut actions, _) = ncm.step(Now::default(), Event::Hello { session, hello });
        while let Some(action) = actions.pop() {
            if let Action::Send {
                message:
                    v1::NcmMessage {
                        body: Some(v1::ncm_message::Body::Delta(delta)),
                    },
                ..
            } = action
            {
                actions.retain(|other| !matches!(other, Action::Send { .. }));
                for sequence in 1..=delta.sequence {
                    let body = v1::agent_message::Body::Receipt(receipt(sequence));
                    ncm.step(Now::default(), Event::Message { session, body });
                }
            }
        }
    }
    (ncm, world.revision)
}

fn big_port(world: &mut World, number: u32, host: u32) -> Change {
    let Change::Put(Resource::Port(port)) = world.port(u128::from(number), 0, None, 0) else {
        unreachable!()
    };
    world.ports.clear();
    let mut port = Port::clone(&port);
    port.binding.host_id = format!("h{host}");
    port.mac_address = MacAddr([2, 1, 0, 0, (number >> 8) as u8, number as u8]);
    port.fixed_ips[0].ip_address = IpAddr::from((0x0a00_0000 + number).to_be_bytes());
    Change::Put(Resource::Port(Arc::new(port)))
}

/// Work of a port's creation: one row for its host, one neighbour row for every other host with ports there, whatever
/// the number of ports.
#[test]
fn a_new_port_costs_rows_by_hosts_not_by_ports() {
    let work: Vec<Work> = [40, 4_000]
        .into_iter()
        .map(|ports| {
            let (mut ncm, revision) = big(4, ports);
            let mut world = World {
                revision,
                ..World::default()
            };
            let change = big_port(&mut world, 60_000, 0);
            ncm.step(
                Now::default(),
                Event::Changes {
                    changes: vec![change],
                    committed_us: 1,
                },
            )
            .1
        })
        .collect();
    assert_eq!(
        work[0],
        Work {
            rows_looked_at: 0,
            rows_sent: 4,
            deltas: 4,
            hosts_touched: 4
        }
    );
    assert_eq!(work[0], work[1]);
}

#[test]
fn a_change_elsewhere_touches_nobody_else() {
    let (mut ncm, revision) = big(4, 40);
    let mut world = World {
        revision,
        ..World::default()
    };
    let network = world.network(1);
    let port = world.port(70, 1, Some(1), 1);
    let (_, work) = ncm.step(
        Now::default(),
        Event::Changes {
            changes: vec![network, port],
            committed_us: 1,
        },
    );
    assert_eq!((work.hosts_touched, work.deltas), (1, 1));
}

#[test]
fn status_needs_the_host_s_word() {
    let mut sim = Sim::new(Options::default());
    let change = sim.world.port(1, 0, Some(1), 1);
    sim.untold.push(change);
    sim.settle();
    let port: Id<Port> = id(5001);
    assert_eq!(sim.ncm.port_state(port).unwrap().status, PortStatus::Build);
    let report = |host: u8, sim: &mut Sim| {
        let session = sim.agents[&host].session.unwrap();
        let body = v1::agent_message::Body::PortReport(v1::PortReport {
            port_id: alcor_southbound::convert::encode_id(port),
            revision: sim.world.ports[&port].revision.0,
            condition: v1::PortCondition::Wired.into(),
            ..v1::PortReport::default()
        });
        sim.ncm.step(sim.now, Event::Message { session, body }).0
    };
    assert!(report(2, &mut sim).is_empty(), "another host's word is nothing");
    assert!(
        matches!(&report(1, &mut sim)[..], [Action::ReportPort(report)] if report.status == PortStatus::Active)
    );
    assert_eq!(sim.ncm.port_state(port).unwrap().status, PortStatus::Active);
}

#[test]
fn a_host_says_its_zone_and_registers_anew_when_it_is_deleted_while_it_lives() {
    let mut ncm = Ncm::new(Options::default());
    let hello = |zone: &str| v1::Hello {
        host: "h1".into(),
        incarnation: 1,
        tunnel_ip: encode_ip(tunnel_ip(1)),
        availability_zone: zone.into(),
        ..v1::Hello::default()
    };
    let registered = |actions: &[Action]| {
        actions.iter().find_map(|action| match action {
            Action::RegisterHost { zone, .. } => Some(zone.clone()),
            _ => None,
        })
    };
    let mut session = 0;
    let mut say = |ncm: &mut Ncm, zone| {
        session += 1;
        let hello = hello(zone);
        ncm.step(Now::default(), Event::Hello { session, hello }).0
    };
    assert_eq!(registered(&say(&mut ncm, "")), Some("nova".to_owned()));
    let tell = |ncm: &mut Ncm, change| {
        let changes = vec![change];
        let event = Event::Changes {
            changes,
            committed_us: 1,
        };
        ncm.step(Now::default(), event).0
    };
    tell(&mut ncm, World::default().host(1, false));
    assert_eq!(registered(&say(&mut ncm, "")), None, "it is registered so");
    assert_eq!(registered(&say(&mut ncm, "west")), Some("west".to_owned()));
    let refused = say(&mut ncm, "we\nst");
    assert!(matches!(&refused[..], [Action::Close { session: 4, .. }]));
    let gone = Change::Delete {
        key: ResourceKey::Host("h1".into()),
        revision: Revision(9),
    };
    let ended = tell(&mut ncm, gone);
    assert!(
        matches!(&ended[..], [Action::Close { session: 3, .. }]),
        "{ended:?}"
    );
    assert!(!ncm.host_state("h1").unwrap().summary.alive);
    assert_eq!(registered(&say(&mut ncm, "")), Some("nova".to_owned()));
}

#[test]
fn an_older_incarnation_is_refused_and_repeats_change_nothing() {
    let mut sim = Sim::new(Options::default());
    let change = sim.world.port(1, 0, Some(1), 1);
    sim.untold.push(change);
    sim.agents.get_mut(&1).unwrap().incarnation = 5;
    sim.settle();
    let session = sim.agents[&1].session.unwrap();
    let mut hello = sim.agents[&1].hello(1);
    hello.incarnation = 4;
    let (actions, _) = sim.ncm.step(sim.now, Event::Hello { session: 99, hello });
    assert!(matches!(&actions[..], [Action::Close { session: 99, .. }]));
    let before = sim.ncm.host_state("h1").unwrap();
    for sequence in [0, 1, 7, u64::MAX] {
        let body = v1::agent_message::Body::Receipt(receipt(sequence));
        assert!(
            sim.ncm
                .step(sim.now, Event::Message { session, body })
                .0
                .is_empty()
        );
    }
    let after = sim.ncm.host_state("h1").unwrap();
    assert_eq!(before.resources, after.resources);
}

#[test]
fn a_silent_host_is_not_alive_and_its_ports_keep_their_state() {
    let mut sim = Sim::new(Options::default());
    let change = sim.world.port(1, 0, Some(1), 1);
    sim.untold.push(change);
    sim.settle();
    sim.now.since_start += Duration::from_secs(60);
    let (actions, _) = sim.ncm.step(sim.now, Event::Tick);
    assert_eq!(actions.len(), usize::from(HOSTS));
    let state = sim.ncm.host_state("h1").unwrap();
    assert!(!state.summary.alive);
    assert_eq!(state.summary.pending, 0);
}

#[test]
fn a_restarted_ncm_knows_what_a_host_holds() {
    let port = Step::Port {
        number: 0,
        network: 0,
        host: Some(2),
        ip: 1,
        groups: 5,
    };
    let steps = vec![
        Step::Connect { host: 2 },
        port,
        Step::Tell,
        Step::Deliver { host: 2, count: 1 },
        Step::RestartNcm,
    ];
    run(Options::default(), steps);
}

/// A host registers after a port left it, and the NCM learns both from one snapshot: the neighbour must go.
#[test]
fn a_snapshot_knows_no_order_between_its_rows() {
    let port = |number, host| Step::Port {
        number,
        network: 0,
        host,
        ip: 1,
        groups: 0,
    };
    run(
        Options::default(),
        vec![
            port(0, Some(1)),
            port(4, Some(2)),
            Step::Tell,
            Step::Connect { host: 1 },
            port(4, None),
            Step::Connect { host: 2 },
            Step::Lag,
        ],
    );
}

/// A member that joins a set that the network has costs its own host a port row and the others a neighbour row, as any
/// port does; a rule costs one row per host that has a port of the group, however many members it has.
#[test]
fn security_costs_rows_by_hosts() {
    let mut sim = Sim::new(Options::default());
    for (number, host) in [(0, 1), (2, 2), (4, 1)] {
        let changes = sim.world.port_under(number, 0, Some(host), 1, 1);
        sim.untold.extend(changes);
    }
    let changes = sim.world.port_under(6, 0, Some(3), 1, 2);
    sim.untold.extend(changes);
    sim.settle();

    let joins = sim.world.port_under(8, 0, Some(1), 1, 1);
    assert_eq!(joins.len(), 1, "a known set");
    sim.untold.extend(joins);
    let work = sim.tell();
    assert_eq!((work.rows_sent, work.hosts_touched), (3, 3));
    sim.settle();

    let change = sim.world.toggle_rule(0, 2);
    sim.untold.push(change);
    let work = sim.tell();
    assert_eq!((work.rows_sent, work.hosts_touched), (2, 2));
}

/// The last port under a group leaves a host and another comes, in one step: the rules must be newer than the word that
/// they are not needed.
#[test]
fn rules_that_are_needed_again_are_newer_than_their_end() {
    let port = |number, host, groups| Step::Port {
        number,
        network: 0,
        host,
        ip: 1,
        groups,
    };
    run(
        Options::default(),
        vec![
            port(2, Some(1), 4),
            Step::Connect { host: 1 },
            port(0, Some(1), 0),
            Step::Tell,
            Step::Deliver { host: 1, count: 1 },
            port(2, None, 0),
            port(0, Some(1), 4),
        ],
    );
}
