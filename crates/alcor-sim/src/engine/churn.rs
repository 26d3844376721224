//! What people do through the API: networks and ports at the beginning, then ports that come, go, change and move, and
//! rules that change. The region's real deciders run; what they refuse is counted.

use std::{collections::BTreeMap, net::Ipv4Addr};

use alcor_model::{
    Id, Network, Port, Revision, Router, SecurityGroup, SecurityGroupRule, Subnet,
    resource::{Direction, Ethertype, Protocol},
};
use alcor_region::{
    Managed as _, RegionError,
    command::{NetworkCreate, PortCreate, PortUpdate, StandardUpdate, SubnetCreate},
    security_group::{RuleCreate, RuleRequest, SecurityGroupCreate},
};
use ipnet::{IpNet, Ipv4Net};

use super::{Event, Sim};
use crate::{
    clock::Us,
    cloud::Cloud,
    host,
    rng::{Rng, to_us},
    scenario::Scenario,
};

/// Where the blocks of networks begin.
const FIRST_ADDRESS: Ipv4Addr = Ipv4Addr::new(11, 0, 0, 0);
/// UDP ports that rules and packets of a simulation are about.
pub(super) const SERVICES: (u16, u16) = (7_000, 7_003);

/// What somebody does again and again.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Create,
    Delete,
    Update,
    Migrate,
    Rule,
    Router,
}

impl Kind {
    const ALL: [Self; 6] = [
        Self::Create,
        Self::Delete,
        Self::Update,
        Self::Migrate,
        Self::Rule,
        Self::Router,
    ];

    fn per_s(self, scenario: &Scenario) -> f64 {
        let churn = &scenario.churn;
        match self {
            Self::Create => churn.create_per_s,
            Self::Delete => churn.delete_per_s,
            Self::Update => churn.update_per_s,
            Self::Migrate => churn.migrate_per_s,
            Self::Rule => churn.rules_per_s,
            Self::Router => churn.routers_per_s,
        }
    }
}

/// What will be answered with the next commit.
#[derive(Debug)]
pub(super) enum Done {
    Put(Put),
    Gone {
        network: usize,
        port: Id<Port>,
        host: Option<u32>,
    },
}

/// A port was made or changed.
#[derive(Debug)]
pub(super) struct Put {
    pub(super) network: usize,
    pub(super) port: Id<Port>,
    pub(super) revision: Revision,
    pub(super) host: Option<u32>,
    /// Where it was before.
    pub(super) from: Option<u32>,
    pub(super) is_new: bool,
    pub(super) is_new_place: bool,
    pub(super) asked_at: Us,
    /// Ports of its network.
    pub(super) size: u64,
}

/// A network as people know it.
#[derive(Debug)]
pub(super) struct KnownNetwork {
    pub(super) id: Id<Network>,
    pub(super) project: u64,
    pub(super) subnet: Id<Subnet>,
    pub(super) ports: Vec<Id<Port>>,
    /// Ports that it is to have at the beginning and does not have yet.
    missing: u32,
    wanted: u32,
}

/// The people.
pub(super) struct People {
    pub(super) networks: Vec<KnownNetwork>,
    by_id: BTreeMap<Id<Network>, usize>,
    groups: BTreeMap<u64, Vec<Id<SecurityGroup>>>,
    sizes: Vec<u32>,
    /// Routers with their projects.
    pub(super) routers: Vec<(Id<Router>, u64)>,
    /// Addresses given to networks of each project.
    blocks: BTreeMap<u64, u64>,
    loading: usize,
    is_loading: bool,
}

impl People {
    pub(super) fn new(scenario: &Scenario) -> Self {
        Self {
            networks: Vec::new(),
            by_id: BTreeMap::new(),
            groups: BTreeMap::new(),
            sizes: scenario.network_sizes(),
            routers: Vec::new(),
            blocks: BTreeMap::new(),
            loading: 0,
            is_loading: true,
        }
    }

    pub(super) const fn is_loading(&self) -> bool {
        self.is_loading
    }

    pub(super) fn size_of(&self, network: Id<Network>) -> Option<u64> {
        let place = self.by_id.get(&network)?;
        self.networks
            .get(*place)
            .map(|network| network.ports.len() as u64)
    }

    /// One of all ports, each as likely as any other: its network and its place there.
    fn any_port(&self, rng: &mut Rng) -> Option<(usize, usize)> {
        let all: usize = self.networks.iter().map(|network| network.ports.len()).sum();
        let mut place = rng.place(all);
        for (network, known) in self.networks.iter().enumerate() {
            match place.checked_sub(known.ports.len()) {
                Some(rest) => place = rest,
                None => return Some((network, place)),
            }
        }
        None
    }
}

impl Sim {
    /// Projects with their groups, and networks with a subnet each, before anything else happens.
    pub(super) fn make_projects(&mut self) {
        let projects = self.scenario.networks.projects;
        for project in 0..projects {
            let caller = Cloud::caller(project);
            let made = (0..self.scenario.networks.groups).filter_map(|_| {
                let create = SecurityGroupCreate::default();
                let made = self
                    .cloud
                    .write(|tx, env| SecurityGroup::create(tx, env, &caller, create));
                made.ok().map(|group| group.id)
            });
            let groups = made.collect();
            self.people.groups.insert(project, groups);
        }
        for (place, size) in std::mem::take(&mut self.people.sizes).into_iter().enumerate() {
            let project = place as u64 % projects;
            match self.make_network(project, size) {
                Ok(network) => {
                    self.people.by_id.insert(network.id, place);
                    self.people.networks.push(network);
                }
                Err(error) => self.violate(format!("a network cannot be made: {error}")),
            }
        }
        self.make_routers();
        self.commit_soon();
    }

    fn make_network(&mut self, project: u64, size: u32) -> Result<KnownNetwork, RegionError> {
        let caller = Cloud::caller(project);
        let cidr = self.block(project, size);
        let (id, subnet) = self.cloud.write(|tx, env| {
            let network = Network::create(tx, env, &caller, NetworkCreate::default())?;
            let create = SubnetCreate {
                cidr,
                ..SubnetCreate::new(network.id, 4)
            };
            let subnet = Subnet::create(tx, env, &caller, create)?;
            Ok((network.id, subnet.id))
        })?;
        Ok(KnownNetwork {
            id,
            project,
            subnet,
            ports: Vec::new(),
            missing: size,
            wanted: size,
        })
    }

    /// A block with room for twice the ports: churn may make a network grow. All networks begin at one address unless
    /// routers join those of a project; none when there are no addresses left.
    fn block(&mut self, project: u64, size: u32) -> Option<IpNet> {
        let bits = (u64::from(size) * 2 + 16).next_power_of_two().trailing_zeros();
        let prefix = 32u8.saturating_sub(u8::try_from(bits).unwrap_or(24)).max(8);
        let used = self.people.blocks.entry(project).or_default();
        let offset = match self.scenario.routers.count {
            0 => 0,
            _ => used.next_multiple_of(1 << (32 - prefix)),
        };
        *used = offset + (1 << (32 - prefix));
        let first = u32::try_from(offset).ok().filter(|offset| *offset < 1 << 24)?;
        let first = u32::from(FIRST_ADDRESS) + first;
        Ipv4Net::new(first.into(), prefix).ok().map(Into::into)
    }

    /// Makes some of the ports that there are at the beginning, in one commit.
    pub(super) fn load(&mut self) {
        let mut left = self.scenario.networks.load_batch;
        while left > 0 && self.people.loading < self.people.networks.len() {
            let network = self.people.loading;
            let known = &mut self.people.networks[network];
            if known.missing == 0 {
                self.people.loading += 1;
                continue;
            }
            known.missing -= 1;
            // Neighbours in the list are not neighbours on hosts, but each host gets its share.
            let number = known.wanted - known.missing;
            let host = (u64::from(number) * 7_919 + network as u64) % u64::from(self.scenario.hosts.count);
            self.create_port(network, u32::try_from(host).ok());
            left -= 1;
        }
        self.commit_soon();
        self.people.is_loading = self.people.loading < self.people.networks.len();
        if self.people.is_loading {
            let pause = f64::from(self.scenario.networks.load_batch) / self.scenario.networks.load_per_s;
            self.after(to_us(pause), Event::Load);
        }
    }

    pub(super) fn arrange_churn(&mut self) {
        for kind in Kind::ALL {
            self.next_churn(kind);
        }
    }

    fn next_churn(&mut self, kind: Kind) {
        if let Some(wait) = self.rng.wait_us(kind.per_s(&self.scenario))
            && self.now + wait < self.busy_until
        {
            self.after(wait, Event::Churn(kind));
        }
    }

    pub(super) fn churn(&mut self, kind: Kind) {
        self.next_churn(kind);
        if !self.cloud.is_up() {
            return self.figures.add("commands_failed", 1);
        }
        self.figures.add("commands", 1);
        match kind {
            Kind::Create => {
                let network = self.rng.place(self.people.networks.len());
                let unbound = self.scenario.churn.unbound_share;
                let host = match unbound > 0.0 && self.rng.chance(unbound) {
                    true => None,
                    false => Some(self.any_host()),
                };
                self.create_port(network, host);
            }
            Kind::Delete => self.delete_port(),
            Kind::Update => self.update_port(),
            Kind::Migrate => self.migrate_port(),
            Kind::Rule => self.change_rule(),
            Kind::Router => self.change_router(),
        }
        self.commit_soon();
    }

    fn any_host(&mut self) -> u32 {
        u32::try_from(self.rng.below(u64::from(self.scenario.hosts.count))).unwrap_or_default()
    }

    pub(super) fn refused(&mut self, error: &RegionError) {
        self.figures.add("commands_refused", 1);
        if matches!(error, RegionError::StoreUnavailable { .. }) {
            self.violate(format!("a decider says that the store is not there: {error}"));
        }
    }

    /// None: the project's default group. Some: a choice of its other groups, perhaps none.
    fn some_groups(&mut self, project: u64) -> Option<Vec<Id<SecurityGroup>>> {
        let all = self.people.groups.get(&project)?;
        let bits = self.rng.next();
        let chosen = all
            .iter()
            .enumerate()
            .filter(|(place, _)| bits >> (place % 60) & 1 == 1);
        let chosen: Vec<_> = chosen.map(|(_, group)| *group).collect();
        (bits >> 62 != 0).then_some(chosen)
    }

    fn create_port(&mut self, network: usize, host: Option<u32>) {
        let Some(known) = self.people.networks.get(network) else {
            return;
        };
        let (id, caller, project) = (known.id, Cloud::caller(known.project), known.project);
        let few = !self.people.is_loading && self.rng.chance(0.3);
        let create = PortCreate {
            binding_host_id: host.map(host::name).unwrap_or_default(),
            device_owner: "compute:sim".to_owned(),
            security_groups: if few { self.some_groups(project) } else { None },
            ..PortCreate::new(id)
        };
        match self.cloud.write(|tx, env| Port::create(tx, env, &caller, create)) {
            Ok(port) => {
                self.people.networks[network].ports.push(port.id);
                self.promise_put(network, &port, None, true);
            }
            Err(error) => self.refused(&error),
        }
    }

    fn promise_put(&mut self, network: usize, port: &Port, from: Option<u32>, is_new: bool) {
        let host = port.binding.host().and_then(host::number);
        let size = self.people.networks[network].ports.len() as u64;
        self.ledger.promise(Done::Put(Put {
            network,
            port: port.id,
            revision: port.revision,
            host,
            from,
            is_new,
            is_new_place: is_new || host != from,
            asked_at: self.now,
            size,
        }));
    }

    fn delete_port(&mut self) {
        let Some((network, place)) = self.people.any_port(&mut self.rng) else {
            return;
        };
        let known = &self.people.networks[network];
        let (port, caller) = (known.ports[place], Cloud::caller(known.project));
        let host = self.host_of(port);
        match self
            .cloud
            .write(|tx, env| Port::delete(tx, env, &caller, &port, None))
        {
            Ok(()) => {
                self.people.networks[network].ports.swap_remove(place);
                self.ledger.promise(Done::Gone { network, port, host });
            }
            Err(error) => self.refused(&error),
        }
    }

    fn host_of(&self, port: Id<Port>) -> Option<u32> {
        let port = self.cloud.state().ports().get(&port)?;
        port.binding.host().and_then(host::number)
    }

    fn change_port(&mut self, update: impl FnOnce(&mut Self, u64) -> PortUpdate) {
        let Some((network, place)) = self.people.any_port(&mut self.rng) else {
            return;
        };
        let known = &self.people.networks[network];
        let (id, project) = (known.ports[place], known.project);
        let (from, caller, update) = (self.host_of(id), Cloud::caller(project), update(self, project));
        let changed = self
            .cloud
            .write(|tx, env| Port::update(tx, env, &caller, &id, update, None));
        match changed {
            Ok(port) => self.promise_put(network, &port, from, false),
            Err(error) => self.refused(&error),
        }
    }

    fn update_port(&mut self) {
        self.change_port(|sim, project| match sim.rng.below(4) {
            0 => PortUpdate {
                standard: StandardUpdate {
                    name: Some("renamed".to_owned()),
                    ..StandardUpdate::default()
                },
                ..PortUpdate::default()
            },
            1 => PortUpdate {
                admin_state_up: Some(sim.rng.chance(0.7)),
                ..PortUpdate::default()
            },
            2 => PortUpdate {
                dns_name: Some(format!("vm-{}", sim.rng.below(100))),
                ..PortUpdate::default()
            },
            _ => PortUpdate {
                security_groups: sim.some_groups(project),
                ..PortUpdate::default()
            },
        });
    }

    fn migrate_port(&mut self) {
        self.change_port(|sim, _| PortUpdate {
            binding_host_id: Some(host::name(sim.any_host())),
            ..PortUpdate::default()
        });
    }

    /// Makes a rule, or deletes one, of one of the groups that are not a project's default.
    fn change_rule(&mut self) {
        let project = self.rng.below(self.scenario.networks.projects);
        let groups = self.people.groups.get(&project).cloned().unwrap_or_default();
        let (Some(group), Some(remote)) = (self.rng.pick(&groups), self.rng.pick(&groups)) else {
            return;
        };
        let caller = Cloud::caller(project);
        let rules: Vec<_> = self.cloud.state().rules_of(group).map(|rule| rule.id).collect();
        let done = if rules.len() > 4 {
            let rule = rules[self.rng.place(rules.len())];
            self.cloud
                .write(|tx, env| SecurityGroupRule::delete(tx, env, &caller, &rule, None))
        } else {
            let create = self.some_rule(group, remote);
            let made = self
                .cloud
                .write(|tx, env| SecurityGroupRule::create(tx, env, &caller, create));
            made.map(drop)
        };
        if let Err(error) = done {
            self.refused(&error);
        }
    }

    fn some_rule(&mut self, group: Id<SecurityGroup>, remote: Id<SecurityGroup>) -> RuleCreate {
        let first = self.rng.between((SERVICES.0.into(), SERVICES.1.into()));
        let last = self.rng.between((first, SERVICES.1.into()));
        let port = |number: u64| u16::try_from(number).ok();
        RuleCreate {
            standard: Default::default(),
            security_group_id: group,
            request: RuleRequest {
                direction: match self.rng.chance(0.7) {
                    true => Direction::Ingress,
                    false => Direction::Egress,
                },
                ethertype: Ethertype::Ipv4,
                protocol: Protocol::parse("udp"),
                port_range_min: port(first),
                port_range_max: port(last),
                remote_ip_prefix: None,
                remote_group_id: self.rng.chance(0.5).then_some(remote),
                remote_address_group_id: None,
            },
        }
    }

    /// The API has answered: virtual machines are started, moved.
    pub(super) fn people_hear(&mut self, put: &Put) {
        if !put.is_new_place {
            return;
        }
        if let Some(host) = put.from {
            self.unplug_soon(put.port, host);
        }
        if let Some(host) = put.host {
            let delay = self.rng.between(self.scenario.delays.plug_us);
            self.after(delay, Event::Plug { port: put.port, host });
        }
    }

    pub(super) fn unplug_soon(&mut self, port: Id<Port>, host: u32) {
        let delay = self.rng.between(self.scenario.delays.plug_us);
        self.after(delay, Event::Unplug { port, host });
    }

    /// What was not answered and is lost never was.
    pub(super) fn people_forget(&mut self, lost: Vec<Done>) {
        for done in lost.into_iter().rev() {
            match done {
                Done::Put(put) if put.is_new => {
                    self.people.networks[put.network]
                        .ports
                        .retain(|port| *port != put.port);
                }
                Done::Put(_) => {}
                Done::Gone { network, port, .. } => {
                    if self.cloud.state().ports().get(&port).is_some() {
                        self.people.networks[network].ports.push(port);
                    }
                }
            }
        }
    }
}
