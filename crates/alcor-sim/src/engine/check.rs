//! What must hold when all is at rest: each host has exactly what it needs, from the region's rows alone; what was answered
//! is there; the region shows what is so.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
};

use alcor_dataplane::{
    InterfaceRow, LabelRow, NeighbourRow, NetworkRow, PolicyRow, PortRow, RouteRow, RouterRow, Row, RowKey,
    SubnetRow,
    security::{Family, Remote, Rule, Service},
};
use alcor_model::{
    Id, Network, Port, SecurityGroup,
    net::GATEWAY_MAC,
    resource::{self, Direction, Ethertype, PortStatus, Protocol},
};
use alcor_ncm::core::MAX_BLOCKS;
use alcor_region::RegionState;
use ipnet::IpNet;

use super::{Kind, Sim};
use crate::{
    figures::Over,
    host::{self, light},
};

/// Differences of one host that are told.
const TOLD: usize = 5;

/// The rows of a host and network: digest of key to digest of body, label, and the key for people.
type Digests = BTreeMap<u64, (u64, u16, Option<RowKey>)>;

/// What a host goes by in a network.
#[derive(Default)]
struct Has {
    rows: Digests,
    /// It asks for neighbours.
    asks: bool,
    neighbours: u64,
}

/// A port as other hosts see it.
struct Neighbour {
    host: u32,
    body: u64,
    label: u16,
    key: RowKey,
}

/// What of a network is the same for all of its hosts.
struct Base {
    rows: Digests,
    /// By digest of the key.
    neighbours: HashMap<u64, Neighbour>,
    /// Where tunnel packets come from.
    tunnels: BTreeSet<IpAddr>,
    /// Of ports that are bound to a host.
    addresses: usize,
    /// Hosts that need to know of the network: those with ports there, or in a network that shares a router with it.
    hosts: BTreeSet<u32>,
    /// Networks that share a router with it.
    peers: BTreeSet<Id<Network>>,
}

/// The ports of one network, by host.
type Bound = BTreeMap<u32, Vec<Id<Port>>>;

impl Sim {
    /// Why all is not at rest, if it is not.
    pub(super) fn restless(&mut self) -> Option<String> {
        if !self.cloud.is_up() || self.cloud.has_waiting() {
            return Some("the controller has more to commit".to_owned());
        }
        if let Some(why) = self.ncm.restless() {
            return Some(why.to_owned());
        }
        for (number, actor) in self.actors.iter().enumerate() {
            let name = || format!("h{number}");
            let busy = match &actor.kind {
                Kind::Liar(_) => continue,
                Kind::Full(full) if full.has_work() => Some("has work for its data plane"),
                Kind::Full(full) if !full.is_welcome() => Some("has no session"),
                _ if !actor.is_on => Some("is off"),
                _ if !actor.wire.is_welcome => Some("has no session"),
                _ if !actor.wire.is_idle() => Some("has messages on their way"),
                _ => None,
            };
            if let Some(busy) = busy {
                return Some(format!("{} {busy}", name()));
            }
        }
        None
    }

    pub(super) fn check_at_rest(&mut self, when: &str) {
        self.check_answered(when);
        let mut needed: BTreeMap<u32, BTreeSet<Id<Network>>> = BTreeMap::new();
        let networks: Vec<_> = self.people.networks.iter().map(|network| network.id).collect();
        let bound = |network: &Id<Network>| (*network, bound(self.cloud.state(), *network));
        let bound: BTreeMap<_, _> = networks.iter().map(bound).collect();
        for network in networks {
            let base = Base::new(self.cloud.state(), network, &bound);
            let asking = self.asking(network, &base.hosts);
            self.check_gateways(when, network, &base.of_gateways(), &asking);
            for actor in &base.hosts {
                needed.entry(*actor).or_default().insert(network);
                self.check_host(when, *actor, network, &base, &bound);
                if self.is_over() {
                    return;
                }
            }
        }
        self.check_nothing_else(when, &needed);
        self.check_statuses(when);
    }

    /// What was answered is there.
    pub(super) fn check_answered(&mut self, when: &str) {
        let ports = self.cloud.state().ports();
        let wrong = self.ledger.answered().iter().find(|(id, answered)| {
            let there = ports.get(id).map(|port| port.revision);
            match answered {
                Some(revision) => there.is_none_or(|there| there < *revision),
                None => there.is_some(),
            }
        });
        if let Some((id, answered)) = wrong {
            let there = ports.get(id).map(|port| port.revision.0);
            let what = format!("{when}: port {id} was answered at {answered:?} and is at {there:?}");
            self.violate(what);
        }
    }

    /// A host has exactly what it needs of a network.
    fn check_host(
        &mut self,
        when: &str,
        actor: u32,
        network: Id<Network>,
        base: &Base,
        bound: &BTreeMap<Id<Network>, Bound>,
    ) {
        let state = self.cloud.state();
        let ports_in = |network: &Id<Network>| {
            let ports = bound.get(network).and_then(|bound| bound.get(&actor));
            ports.map_or(&[][..], Vec::as_slice)
        };
        let looks =
            looks(state, ports_in(&network)) || base.peers.iter().any(|peer| looks(state, ports_in(peer)));
        let mut expected = base.rows.clone();
        for row in own_rows(state, network, ports_in(&network)) {
            put(&mut expected, &row);
        }
        let mut has = self.has(actor, network);
        let mut expect = |digest: &u64, row: &Neighbour| {
            if row.host != actor {
                let label = if looks { row.label } else { 0 };
                expected.insert(*digest, (row.body, label, Some(row.key)));
            }
        };
        if has.asks {
            // It has what it uses; of that, all must be true.
            let known = has.rows.keys();
            known.for_each(|digest| {
                if let Some(row) = base.neighbours.get(digest) {
                    expect(digest, row);
                }
            });
            let size = self.people.size_of(network).unwrap_or_default();
            self.figures.sample(Over::LearnedPerHost, size, has.neighbours);
        } else {
            base.neighbours
                .iter()
                .for_each(|(digest, row)| expect(digest, row));
        }
        if !looks {
            for (_, label, _) in has.rows.values_mut() {
                *label = 0;
            }
        }
        self.compare(when, actor, network, &expected, &has.rows);
        self.check_asks(when, actor, network, base, has.asks);
        self.check_underlay(when, actor, network, base);
    }

    /// Hosts of a network ask when there are too many neighbours for each of them to have them all, and do not when there are
    /// at most half as many; between the two, what was so stays.
    fn check_asks(&mut self, when: &str, actor: u32, network: Id<Network>, base: &Base, asks: bool) {
        let (rows, max) = (base.hosts.len() * base.addresses, self.ncm.eager_rows_max());
        let must = match rows {
            rows if rows > max => true,
            rows if rows <= max / 2 => false,
            _ => return,
        };
        if asks != must {
            let (name, does) = (host::name(actor), if asks { "asks" } else { "does not ask" });
            self.violate(format!(
                "{when}: {name} {does} in network {network}, which has {rows} rows of neighbours on all hosts for {max}"
            ));
        }
    }

    /// Hosts with an agent that ask in a network.
    fn asking(&mut self, network: Id<Network>, hosts: &BTreeSet<u32>) -> Vec<u32> {
        if self.gateways.are_none() {
            return Vec::new();
        }
        let full = self.scenario.hosts.full;
        let asks = |actor: &u32| self.has(*actor, network).asks;
        hosts
            .iter()
            .copied()
            .filter(|actor| *actor < full)
            .filter(asks)
            .collect()
    }

    /// What a host goes by in a network.
    fn has(&mut self, actor: u32, network: Id<Network>) -> Has {
        let (mut has, now) = (Has::default(), self.now);
        match &mut self.actor(actor).kind {
            Kind::Full(full) => {
                for row in full.rows().iter().filter(|row| row.key().network_id() == network) {
                    has.asks |= matches!(row, Row::Network(row) if row.on_demand);
                    has.neighbours += u64::from(matches!(row, Row::Neighbour(_)));
                    put(&mut has.rows, row);
                }
            }
            Kind::Light(light) => {
                has.asks = light.asks(network);
                has.neighbours = light.neighbours(network, now) as u64;
                let rows = light.rows(network, now);
                has.rows
                    .extend(rows.map(|(key, body, label)| (key, (body, label, None))));
            }
            Kind::Liar(_) => {}
        }
        has
    }

    fn compare(&mut self, when: &str, actor: u32, network: Id<Network>, expected: &Digests, has: &Digests) {
        let mut wrong = Vec::new();
        for (key, (body, label, row)) in expected {
            match has.get(key) {
                None => wrong.push(format!("does not have {row:?}")),
                Some((other, ..)) if other != body => wrong.push(format!("has another {row:?}")),
                Some((_, other, _)) if other != label => {
                    wrong.push(format!("has {row:?} with label {other} for {label}"));
                }
                Some(_) => {}
            }
        }
        let more = has.iter().filter(|(key, _)| !expected.contains_key(*key));
        wrong.extend(more.map(|(_, (_, _, row))| format!("has {row:?} and should not")));
        if !wrong.is_empty() {
            let count = wrong.len();
            wrong.truncate(TOLD);
            let name = host::name(actor);
            self.violate(format!(
                "{when}: {name} in network {network}: {count} rows: {}",
                wrong.join("; ")
            ));
        }
    }

    /// Every host of the network is among those that tunnel packets are taken from, and while there are few hosts, nobody
    /// is who is no host of the region. The simulated agents say that they filter, so to believe everybody is wrong.
    fn check_underlay(&mut self, when: &str, actor: u32, network: Id<Network>, base: &Base) {
        let Kind::Full(full) = &mut self.actor(actor).kind else {
            return;
        };
        let blocks = full.rows().into_iter().find_map(|row| match row {
            Row::Network(row) if row.id == network => row.underlay,
            _ => None,
        });
        let problem = match blocks {
            None => Some("everybody".to_owned()),
            Some(blocks) => {
                let missing = base.tunnels.iter();
                let mut missing = missing.filter(|ip| !blocks.iter().any(|block| block.contains(*ip)));
                let missing = missing.next().map(|ip| format!("not from {ip}, its host"));
                missing.or_else(|| self.stranger(&blocks))
            }
        };
        if let Some(problem) = problem {
            let name = host::name(actor);
            self.violate(format!(
                "{when}: {name} takes packets of network {network} from {problem}"
            ));
        }
    }

    /// The first of the blocks that lets in more than a host of the region. Of many hosts, blocks are wider than they are.
    fn stranger(&self, blocks: &[IpNet]) -> Option<String> {
        let hosts = self.cloud.state().hosts();
        if hosts.len() > MAX_BLOCKS {
            return None;
        }
        let gateways = self.cloud.state().gateway_nodes().iter();
        let gateways = gateways.map(|gateway| IpNet::from(gateway.tunnel_ip));
        let hosts = hosts.iter().map(|host| IpNet::from(host.tunnel_ip));
        let known: BTreeSet<_> = hosts.chain(gateways).collect();
        let stranger = blocks.iter().find(|block| !known.contains(block));
        stranger.map(|block| format!("{block}, which is no host"))
    }

    /// Nobody serves a port that is not his, or has anything of a network in which he has no ports, and had none for as long as what still comes for them may
    /// have to be passed on.
    fn check_nothing_else(&mut self, when: &str, needed: &BTreeMap<u32, BTreeSet<Id<Network>>>) {
        for actor in 0..self.scenario.hosts.count {
            let (has, ports): (BTreeSet<Id<Network>>, Vec<Id<Port>>) = match &mut self.actor(actor).kind {
                Kind::Full(full) => {
                    let rows = full.rows();
                    let ports = rows.iter().filter_map(|row| match row {
                        Row::Port(row) => Some(row.id),
                        _ => None,
                    });
                    let ports = ports.collect();
                    (rows.iter().map(|row| row.key().network_id()).collect(), ports)
                }
                Kind::Light(light) => {
                    let ports = light.ports().into_iter().map(|(port, _)| port);
                    (light.networks().collect(), ports.collect())
                }
                Kind::Liar(_) => Default::default(),
            };
            let (state, name) = (self.cloud.state(), host::name(actor));
            let is_here = |port: &&Id<Port>| {
                let port = state.ports().get(port);
                port.is_some_and(|port| port.binding.host() == Some(name.as_str()))
            };
            if let Some(port) = ports.iter().find(|port| !is_here(port)) {
                self.violate(format!("{when}: {name} serves port {port}, which is not there"));
            }
            let may = needed.get(&actor);
            let lingers = |id: &Id<Network>| {
                let left = self.ledger.left(actor, *id);
                left.is_some_and(|left| self.now < left + 2 * self.ncm.kept_us())
            };
            let may = |id: &Id<Network>| may.is_some_and(|may| may.contains(id)) || lingers(id);
            let more = has.iter().find(|id| !may(id)).copied();
            if let Some(network) = more {
                self.violate(format!(
                    "{when}: {name} has rows of network {network} and no port there, nor in one that shares a router with it"
                ));
            }
        }
    }

    /// The API shows of each port what is so on its host.
    fn check_statuses(&mut self, when: &str) {
        let ports: Vec<_> = self.cloud.state().ports().iter().cloned().collect();
        for port in ports {
            let (status, reason) = self.cloud.state().port_status(&port);
            let Some(actor) = port.binding.host().and_then(host::number) else {
                continue;
            };
            let wired = match &self.actor(actor).kind {
                Kind::Full(full) => full.has_device(port.id),
                Kind::Light(_) => true,
                Kind::Liar(_) => continue,
            };
            let expected = if wired {
                PortStatus::Active
            } else {
                PortStatus::Down
            };
            if status != expected {
                let name = host::name(actor);
                self.violate(format!(
                    "{when}: port {} on {name} is {status:?} ({reason:?}) and should be {expected:?}",
                    port.id
                ));
            }
            if self.is_over() {
                return;
            }
        }
    }
}

fn put(rows: &mut Digests, row: &Row) {
    let key = row.key();
    let (body, label) = light::row_digest(row);
    rows.insert(light::key_digest(&key), (body, label, Some(key)));
}

/// Whether rules on a host with these ports ask for labels of neighbours.
fn looks(state: &RegionState, ports: &[Id<Port>]) -> bool {
    let ports = ports.iter().filter_map(|id| state.ports().get(id));
    let mut groups = ports.flat_map(|port| &port.security_groups);
    groups.any(|group| {
        state.rules_of(*group).any(|rule| {
            rule.matches.direction == Direction::Egress
                && matches!(rule.matches.remote, resource::Remote::Group(_))
        })
    })
}

/// The ports of a network that are bound to hosts.
fn bound(state: &RegionState, network: Id<Network>) -> Bound {
    let mut bound = Bound::new();
    for port in state.ports_of(network) {
        if let Some(number) = port.binding.host().and_then(host::number) {
            bound.entry(number).or_default().push(port.id);
        }
    }
    bound
}

/// The rows of a network's routers.
fn router_rows(state: &RegionState, network: Id<Network>) -> impl Iterator<Item = Row> + '_ {
    state.routers_in(network).map(move |router| {
        let places = router.interfaces.iter();
        let interfaces: Vec<InterfaceRow> = places
            .flat_map(|place| {
                let port = state.ports().get(&place.port_id);
                let fixed_ips = port.into_iter().flat_map(|port| &port.fixed_ips);
                fixed_ips.filter_map(|fixed| {
                    Some(InterfaceRow {
                        network_id: place.network_id,
                        cidr: state.subnets().get(&fixed.subnet_id)?.cidr,
                        address: fixed.ip_address,
                    })
                })
            })
            .collect();
        let routes = router.routes.iter().filter_map(|route| {
            let to = interfaces.iter().find(|to| to.cidr.contains(&route.nexthop))?;
            Some(RouteRow {
                destination: route.destination,
                nexthop: route.nexthop,
                network_id: to.network_id,
            })
        });
        Row::Router(RouterRow {
            id: router.id,
            network_id: network,
            admin_state_up: router.admin_state_up,
            routes: routes.collect(),
            interfaces,
            external: None,
        })
    })
}

impl Base {
    fn new(state: &RegionState, id: Id<Network>, bound: &BTreeMap<Id<Network>, Bound>) -> Self {
        let routers = state.routers_in(id);
        let places = routers.flat_map(|router| router.interfaces.iter().map(|place| place.network_id));
        let peers: BTreeSet<_> = places.filter(|peer| *peer != id).collect();
        let known = peers.iter().chain([&id]).filter_map(|network| bound.get(network));
        let hosts: BTreeSet<u32> = known.flat_map(|bound| bound.keys().copied()).collect();
        let tunnel_ip = |host: &u32| Some(state.hosts().get(&host::name(*host))?.tunnel_ip);
        let mut base = Self {
            rows: Digests::new(),
            neighbours: HashMap::new(),
            tunnels: hosts.iter().filter_map(tunnel_ip).collect(),
            addresses: 0,
            hosts,
            peers,
        };
        let Some(network) = state.networks().get(&id) else {
            return base;
        };
        put(
            &mut base.rows,
            &Row::Network(NetworkRow {
                id,
                vni: network.segmentation_id,
                mtu: network.mtu,
                admin_state_up: network.admin_state_up,
                underlay: None,
                on_demand: false,
                gateways: Vec::new(),
            }),
        );
        for subnet in state.subnets_of(id) {
            put(
                &mut base.rows,
                &Row::Subnet(SubnetRow {
                    id: subnet.id,
                    network_id: id,
                    cidr: subnet.cidr,
                    gateway_ip: subnet.gateway_ip,
                    gateway_mac: GATEWAY_MAC,
                    enable_dhcp: subnet.enable_dhcp,
                    slaac: subnet.is_auto_address(),
                    dns_nameservers: subnet.dns_nameservers.clone(),
                    host_routes: subnet.host_routes.clone(),
                }),
            );
        }
        for row in router_rows(state, id) {
            put(&mut base.rows, &row);
        }
        for label in state.labels_of(id).filter(|label| !label.retired) {
            put(
                &mut base.rows,
                &Row::Label(LabelRow {
                    network_id: id,
                    label: label.number,
                    groups: label.security_groups.clone(),
                }),
            );
        }
        for port in state.ports_of(id) {
            base.add_port(state, port);
        }
        base
    }

    /// The rows that gateways have, without labels.
    fn of_gateways(&self) -> BTreeSet<(u64, u64)> {
        let has_use = |key: &RowKey| matches!(key, RowKey::Network(_) | RowKey::Router(..));
        let rows = self.rows.iter();
        let rows = rows.filter(|(_, (_, _, key))| key.as_ref().is_some_and(has_use));
        let neighbours = self.neighbours.iter().map(|(key, row)| (*key, row.body));
        rows.map(|(key, (body, ..))| (*key, *body))
            .chain(neighbours)
            .collect()
    }

    fn add_port(&mut self, state: &RegionState, port: &Port) {
        let Some(name) = port.binding.host() else { return };
        let Some(number) = host::number(name) else { return };
        self.addresses += port.fixed_ips.len();
        let Some(registered) = state.hosts().get(&name.to_owned()) else {
            return;
        };
        for fixed in &port.fixed_ips {
            let row = Row::Neighbour(NeighbourRow {
                network_id: port.network_id,
                ip: fixed.ip_address,
                mac: port.mac_address,
                host: registered.tunnel_ip,
                label: port.label.unwrap_or_default(),
                forward: false,
            });
            let (body, label) = light::row_digest(&row);
            let key = row.key();
            let row = Neighbour {
                host: number,
                body,
                label,
                key,
            };
            self.neighbours.insert(light::key_digest(&key), row);
        }
    }
}

/// A host's ports, and the rules that they are under.
fn own_rows(state: &RegionState, network: Id<Network>, ports: &[Id<Port>]) -> Vec<Row> {
    let ports: Vec<_> = ports.iter().filter_map(|id| state.ports().get(id)).collect();
    let groups: BTreeSet<_> = ports.iter().flat_map(|port| &port.security_groups).collect();
    let policies = groups
        .into_iter()
        .filter_map(|group| policy(state, network, *group));
    let ports = ports.iter().map(|port| {
        Row::Port(PortRow {
            id: port.id,
            network_id: network,
            mac: port.mac_address,
            fixed_ips: port.fixed_ips.clone(),
            allowed_address_pairs: port.allowed_address_pairs.clone(),
            admin_state_up: port.admin_state_up,
            port_security_enabled: port.port_security_enabled,
            dns_name: port.dns_name.clone(),
            label: port.label,
        })
    });
    policies.chain(ports).collect()
}

/// What a group allows. A simulation's rules are about nothing or UDP.
fn policy(state: &RegionState, network: Id<Network>, group: Id<SecurityGroup>) -> Option<Row> {
    let stateful = state.security_groups().get(&group)?.stateful;
    let rules = |direction: Direction| -> Vec<Rule> {
        let of_direction = state
            .rules_of(group)
            .filter(|rule| rule.matches.direction == direction);
        let rule = |rule: &resource::RuleMatch<resource::Remote>| Rule {
            family: match rule.ethertype {
                Ethertype::Ipv4 => Family::Ipv4,
                Ethertype::Ipv6 => Family::Ipv6,
            },
            service: rule.protocol.as_ref().map(|_| {
                let (first, last) = (rule.port_range_min, rule.port_range_max);
                Service::ports(Protocol::UDP, first.unwrap_or(0), last.unwrap_or(u16::MAX))
            }),
            remote: match rule.remote {
                resource::Remote::Group(group) => Remote::Group(group),
                resource::Remote::Prefix(prefix) => Remote::Prefixes(vec![prefix.trunc()]),
                _ => Remote::Any,
            },
        };
        of_direction.map(|row| rule(&row.matches)).collect()
    };
    Some(Row::Policy(PolicyRow {
        network_id: network,
        group_id: group,
        stateful,
        ingress: rules(Direction::Ingress),
        egress: rules(Direction::Egress),
    }))
}
