//! A region in a few maps, and what a naive reading of it says that each host must have.

use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroU16,
};

use alcor_dataplane::{Row, RowKey};
use alcor_model::{
    FloatingIp, GatewayNode, Label, MacAddr, SecurityGroup, SecurityGroupRule, Vni,
    resource::{
        self, Binding, BindingState, Direction, Ethertype, FixedIp, FloatingIpWord, HostWord, Protocol,
        RuleMatch, Standard,
    },
};

use super::{
    super::*,
    asking::{Labels, note},
};

pub(super) fn standard() -> Standard {
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

pub(super) fn id<T>(number: u128) -> Id<T> {
    Id::from_uuid(uuid::Uuid::from_u128(number))
}

/// The name of a host, or of a gateway: their numbers begin with [`GATEWAYS`].
pub(super) fn name(number: u8) -> String {
    match number.checked_sub(GATEWAYS) {
        None => format!("h{number}"),
        Some(gateway) => format!("g{gateway}"),
    }
}

/// Where the numbers of gateways begin.
pub(super) const GATEWAYS: u8 = 10;

pub(super) fn tunnel_ip(host: u8) -> IpAddr {
    IpAddr::from([192, 0, 2, host])
}

/// A region in a few maps, and the changes that lead to it.
#[derive(Default)]
pub(super) struct World {
    pub(super) revision: Revision,
    pub(super) hosts: BTreeMap<String, Arc<Host>>,
    pub(super) networks: BTreeMap<Id<Network>, Arc<Network>>,
    pub(super) ports: BTreeMap<Id<Port>, Arc<Port>>,
    pub(super) labels: BTreeMap<(Id<Network>, NonZeroU16), Arc<Label>>,
    /// Since when numbers may mean something else.
    pub(super) released: BTreeMap<(Id<Network>, NonZeroU16), Revision>,
    pub(super) rules: BTreeMap<Id<SecurityGroupRule>, Arc<SecurityGroupRule>>,
    pub(super) routers: BTreeMap<Id<Router>, Arc<Router>>,
    pub(super) gateways: BTreeMap<String, Arc<GatewayNode>>,
    pub(super) floating_ips: BTreeMap<Id<FloatingIp>, Arc<FloatingIp>>,
    /// Of the external network.
    pub(super) outside: Option<Arc<Subnet>>,
    /// Which labels addresses had, and where.
    pub(super) told_labels: Labels,
    /// Since when hosts are registered.
    pub(super) registered: BTreeMap<String, Revision>,
    /// In which networks routers had places, since when.
    pub(super) placed: BTreeMap<Id<Router>, Vec<Places>>,
}

/// The external network: of all floating IPs, and of the hosts that have one.
pub(super) fn outside() -> Id<Network> {
    id(2000)
}

/// Networks in which a router has places, and since when.
pub(super) type Places = (Revision, BTreeSet<Id<Network>>);

/// The number of the rule that asks for labels of neighbours.
pub(super) const ASKING: u16 = 3;

/// How many security groups there are; a set of them is a number of so many bits, which is its label too.
pub(super) const GROUPS: u16 = 3;

pub(super) fn group_id(group: u16) -> Id<SecurityGroup> {
    id(u128::from(group) + 9000)
}

/// One of the hosts does not filter: it must not be told what it would only pretend to have in force.
pub(super) fn filters(host: &str) -> bool {
    host != "h3"
}

pub(super) fn groups_of(bits: u16) -> Vec<Id<SecurityGroup>> {
    let set = (0..GROUPS).filter(|group| bits >> group & 1 == 1);
    set.map(group_id).collect()
}

impl World {
    pub(super) fn group(&self, group: u16) -> Resource {
        Resource::SecurityGroup(Arc::new(SecurityGroup {
            id: group_id(group),
            revision: Revision(1),
            standard: standard(),
            stateful: true,
            is_default: false,
        }))
    }

    /// Adds a rule for a port number to a group, or deletes it. Port [`ASKING`] means: out to the members of the next group.
    pub(super) fn toggle_rule(&mut self, group: u16, port: u16) -> Change {
        self.revision = self.revision.next();
        let rule_id = id(u128::from(group) * 100 + u128::from(port) + 20_000);
        if self.rules.remove(&rule_id).is_some() {
            return Change::Delete {
                key: ResourceKey::SecurityGroupRule(rule_id),
                revision: self.revision,
            };
        }
        let asks = port == ASKING;
        let rule = Arc::new(SecurityGroupRule {
            id: rule_id,
            revision: self.revision,
            standard: standard(),
            security_group_id: group_id(group),
            matches: RuleMatch {
                direction: if asks {
                    Direction::Egress
                } else {
                    Direction::Ingress
                },
                ethertype: Ethertype::Ipv4,
                protocol: Protocol::parse("tcp"),
                port_range_min: Some(port),
                port_range_max: Some(port),
                remote: if asks {
                    resource::Remote::Group(group_id((group + 1) % GROUPS))
                } else {
                    resource::Remote::Any
                },
            },
        });
        self.rules.insert(rule_id, Arc::clone(&rule));
        Change::Put(Resource::SecurityGroupRule(rule))
    }

    /// What a group's rules allow: points in, and how many groups out.
    fn allowed(&self, group: Id<SecurityGroup>) -> String {
        let rules = || self.rules.values().filter(|rule| rule.security_group_id == group);
        let of = |direction| rules().filter(move |rule| rule.matches.direction == direction);
        let points = of(Direction::Ingress).filter_map(|rule| rule.matches.port_range_min);
        format!(
            "{:?} {}",
            points.collect::<Vec<_>>(),
            of(Direction::Egress).count()
        )
    }

    /// A router with places in these networks, which are the bits of a number; no place is no router.
    pub(super) fn router(&mut self, number: u8, networks: u8, admin_state_up: bool) -> Option<Change> {
        self.router_out(number, networks, admin_state_up, false)
    }

    /// The same, with a way to the outside or without.
    pub(super) fn router_out(
        &mut self,
        number: u8,
        networks: u8,
        admin_state_up: bool,
        out: bool,
    ) -> Option<Change> {
        let router_id = id(u128::from(number) + 30_000);
        let revision = self.revision.next();
        if networks == 0 {
            self.routers.remove(&router_id)?;
            self.revision = revision;
            let key = ResourceKey::Router(router_id);
            return Some(Change::Delete { key, revision });
        }
        self.revision = revision;
        let places = (0..8u8).filter(|network| networks >> network & 1 == 1);
        let router = Arc::new(Router {
            id: router_id,
            revision,
            standard: standard(),
            admin_state_up,
            distributed: false,
            ha: false,
            gateway: out.then(|| resource::Gateway {
                network_id: outside(),
                port_id: id(u128::from(number) + 32_000),
                enable_snat: true,
            }),
            interfaces: places
                .map(|network| resource::RouterInterface {
                    port_id: id(u128::from(network) + 31_000),
                    network_id: id(u128::from(network) + 1000),
                })
                .collect(),
            routes: Vec::new(),
            availability_zone_hints: Vec::new(),
        });
        let places = router.interfaces.iter().map(|place| place.network_id);
        let placed = self.placed.entry(router_id).or_default();
        placed.push((revision, places.collect()));
        self.routers.insert(router_id, Arc::clone(&router));
        Some(Change::Put(Resource::Router(router)))
    }

    /// The networks that a router was in at a revision.
    pub(super) fn places(&self, router: Id<Router>, at: Revision) -> impl Iterator<Item = Id<Network>> + '_ {
        let known = self.placed[&router].iter().rev();
        let then = known
            .filter(move |(since, _)| *since <= at)
            .map(|(_, places)| places);
        then.take(1).flatten().copied()
    }

    pub(super) fn routers_in(&self, network: Id<Network>) -> impl Iterator<Item = &Arc<Router>> {
        let is_in = move |router: &&Arc<Router>| {
            let mut places = router.interfaces.iter();
            places.any(|place| place.network_id == network)
        };
        self.routers.values().filter(is_in)
    }

    /// A network, and those that share a router with it.
    fn near(&self, network: Id<Network>) -> BTreeSet<Id<Network>> {
        let places = self.routers_in(network).flat_map(|router| &router.interfaces);
        places.map(|place| place.network_id).chain([network]).collect()
    }

    /// Whether a host must know a network.
    pub(super) fn interested(&self, host: &str, network: Id<Network>) -> bool {
        let near = self.near(network);
        let mut ports = self.ports.values();
        ports.any(|port| port.binding.host_id == host && near.contains(&port.network_id))
    }

    /// Whether rules on a host ask for the labels of a network's ports.
    pub(super) fn looks(&self, host: &str, network: Id<Network>) -> bool {
        let asks = |group: &Id<SecurityGroup>| {
            let mut rules = self.rules.values();
            rules.any(|rule| rule.security_group_id == *group && rule.matches.direction == Direction::Egress)
        };
        let near = self.near(network);
        let mut ports = self.ports.values();
        ports.any(|port| {
            near.contains(&port.network_id)
                && port.binding.host_id == host
                && port.security_groups.iter().any(asks)
        })
    }

    /// The addresses that tunnel packets of a network may come from.
    pub(super) fn underlay(&self, network: Id<Network>) -> BTreeSet<String> {
        let near = self.near(network);
        let ports = self.ports.values().filter(|port| near.contains(&port.network_id));
        let hosts = ports.filter_map(|port| self.hosts.get(&port.binding.host_id));
        hosts.map(|host| format!("{}/32", host.tunnel_ip)).collect()
    }

    pub(super) fn put_label(&mut self, network: Id<Network>, number: NonZeroU16, retired: bool) -> Change {
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
    pub(super) fn left(&mut self, network: Id<Network>, label: Option<u16>) -> Option<Change> {
        let number = label.and_then(NonZeroU16::new)?;
        let used = |port: &Arc<Port>| port.network_id == network && port.label == label;
        let last = !self.ports.values().any(used);
        last.then(|| self.put_label(network, number, true))
    }

    /// A port under a set of groups, as the region writes it: its label first, and the old one rests after.
    pub(super) fn port_under(
        &mut self,
        number: u128,
        network: u8,
        host: Option<u8>,
        ip: u8,
        bits: u16,
    ) -> Vec<Change> {
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
        note(&mut self.told_labels, &port, self.revision, true);
        self.ports.insert(port.id, Arc::clone(&port));
        changes.push(Change::Put(Resource::Port(port)));
        changes.extend(self.left(network, old));
        changes
    }

    /// A gateway as it registers, or as an operator drains it.
    pub(super) fn gateway(&mut self, number: u8, set: &str, draining: bool) -> Change {
        self.revision = self.revision.next();
        let gateway = Arc::new(GatewayNode {
            id: id(u128::from(number) + 40_000),
            revision: self.revision,
            name: name(number),
            set: set.to_owned(),
            tunnel_ip: tunnel_ip(number),
            created_at: jiff::Timestamp::UNIX_EPOCH,
            draining,
        });
        self.gateways.insert(gateway.name.clone(), Arc::clone(&gateway));
        Change::Put(Resource::GatewayNode(gateway))
    }

    pub(super) fn delete_gateway(&mut self, number: u8) -> Option<Change> {
        let gateway = self.gateways.remove(&name(number))?;
        self.revision = self.revision.next();
        Some(Change::Delete {
            key: ResourceKey::GatewayNode(gateway.id),
            revision: self.revision,
        })
    }

    /// A floating IP that a router leads to a port, or that leads nowhere.
    pub(super) fn floating_ip(&mut self, number: u8, router: u8, port: Option<u128>) -> Change {
        self.revision = self.revision.next();
        let port = port.and_then(|port| self.ports.get(&id(port + 5000)));
        let row = Arc::new(FloatingIp {
            id: id(u128::from(number) + 50_000),
            revision: self.revision,
            standard: standard(),
            floating_network_id: outside(),
            floating_ip_address: IpAddr::from([203, 0, 113, number]),
            floating_port_id: id(u128::from(number) + 51_000),
            association: port.map(|port| resource::Association {
                port_id: port.id,
                fixed_ip_address: port.fixed_ips[0].ip_address,
            }),
            router_id: port.map(|_| id(u128::from(router) + 30_000)),
            in_force: false,
            dns_name: String::new(),
            dns_domain: String::new(),
        });
        self.floating_ips.insert(row.id, Arc::clone(&row));
        Change::Put(Resource::FloatingIp(row))
    }

    /// What a gateway must have of these networks.
    pub(super) fn expected_of_gateway(&self, networks: &BTreeSet<Id<Network>>) -> BTreeMap<RowKey, String> {
        let mut rows = BTreeMap::new();
        for network in networks {
            rows.insert(RowKey::Network(*network), String::new());
            for router in self.routers_in(*network) {
                let text = format!("{} [] []", router.admin_state_up);
                rows.insert(RowKey::Router(*network, router.id), text);
            }
        }
        for port in self
            .ports
            .values()
            .filter(|port| networks.contains(&port.network_id))
        {
            let Some(host) = self.hosts.get(&port.binding.host_id) else {
                continue;
            };
            for fixed in &port.fixed_ips {
                let text = format!("{} {}", port.mac_address, host.tunnel_ip);
                rows.insert(RowKey::Neighbour(port.network_id, fixed.ip_address), text);
            }
        }
        for row in self.floating_ips.values() {
            let Some(association) = row.association else {
                continue;
            };
            let network = self.ports[&association.port_id].network_id;
            if networks.contains(&network) {
                rows.insert(
                    RowKey::FloatingIp(network, row.id),
                    self.expected_floating_ip(row),
                );
            }
        }
        rows
    }

    /// The host that answers for a floating IP, if gateways do not.
    pub(super) fn answers(&self, row: &FloatingIp) -> Option<&Arc<Host>> {
        let port = self.ports.get(&row.association?.port_id)?;
        let host = self.hosts.get(&port.binding.host_id)?;
        let is_there = self.outside.is_some() && host.external_networks.contains(&outside());
        is_there.then_some(host)
    }

    fn expected_floating_ip(&self, row: &FloatingIp) -> String {
        let subnet = self.outside.as_ref();
        format!(
            "{} {} {:?} {:?} {:?}",
            row.floating_ip_address,
            row.association.unwrap().fixed_ip_address,
            self.answers(row).map(|host| host.tunnel_ip),
            subnet.map(|subnet| subnet.cidr.to_string()),
            subnet.and_then(|subnet| subnet.gateway_ip),
        )
    }

    /// The region takes what it is told of floating IPs.
    pub(super) fn note(&mut self, words: Vec<FloatingIpWord>) -> Vec<Change> {
        let mut changes = Vec::new();
        for word in words {
            let known = self.floating_ips.get(&word.id);
            let Some(known) = known.filter(|row| row.revision == word.revision) else {
                continue;
            };
            assert_ne!(known.in_force, word.in_force, "it is told what it does not know");
            self.revision = self.revision.next();
            let row = Arc::new(FloatingIp {
                in_force: word.in_force,
                revision: self.revision,
                ..FloatingIp::clone(known)
            });
            self.floating_ips.insert(row.id, Arc::clone(&row));
            changes.push(Change::Put(Resource::FloatingIp(row)));
        }
        changes
    }

    /// The external network's only subnet gets another gateway, or goes.
    pub(super) fn outside(&mut self, gateway: Option<u8>) -> Change {
        self.revision = self.revision.next();
        let subnet = Subnet {
            id: id(60_000),
            revision: self.revision,
            standard: standard(),
            network_id: outside(),
            cidr: "203.0.113.0/24".parse().unwrap(),
            gateway_ip: gateway.map(|gateway| IpAddr::from([203, 0, 113, gateway])),
            allocation_pools: Vec::new(),
            dns_nameservers: Vec::new(),
            host_routes: Vec::new(),
            enable_dhcp: false,
            ipv6_address_mode: None,
            ipv6_ra_mode: None,
            subnetpool_id: None,
            service_types: Vec::new(),
            dns_publish_fixed_ip: false,
        };
        self.outside = gateway.map(|_| Arc::new(subnet));
        match &self.outside {
            Some(subnet) => Change::Put(Resource::Subnet(Arc::clone(subnet))),
            None => Change::Delete {
                key: ResourceKey::Subnet(id(60_000)),
                revision: self.revision,
            },
        }
    }

    /// The region takes what a host says of itself.
    pub(super) fn register(&mut self, number: u8, word: HostWord) -> Change {
        let Change::Put(Resource::Host(host)) = self.host(number, false) else {
            unreachable!()
        };
        let mut host = Host::clone(&host);
        host.external_networks = word.external_networks;
        self.hosts.insert(host.name.clone(), Arc::new(host.clone()));
        Change::Put(Resource::Host(Arc::new(host)))
    }

    /// The region gives numbers free that everybody has forgotten.
    pub(super) fn release(&mut self, labels: &[(Id<Label>, Revision)]) -> Vec<Change> {
        let mut changes = Vec::new();
        for (label, at) in labels {
            let known = self.labels.iter().find(|(_, row)| row.id == *label);
            if let Some((key, _)) = known.filter(|(_, row)| row.retired && row.revision <= *at) {
                let key = *key;
                self.labels.remove(&key);
                self.revision = self.revision.next();
                self.released.insert(key, self.revision);
                changes.push(Change::Delete {
                    key: ResourceKey::Label(*label),
                    revision: self.revision,
                });
            }
        }
        changes
    }

    /// An operator deletes a host.
    pub(super) fn delete_host(&mut self, name: &str) -> Option<Change> {
        self.hosts.remove(name)?;
        self.registered.remove(name);
        self.revision = self.revision.next();
        Some(Change::Delete {
            key: ResourceKey::Host(name.to_owned()),
            revision: self.revision,
        })
    }

    /// A host with its own tunnel address or another one, and what it had of the outside.
    pub(super) fn host(&mut self, number: u8, moved: bool) -> Change {
        self.revision = self.revision.next();
        let known = self.hosts.get(&format!("h{number}"));
        let external_networks = known.map(|host| host.external_networks.clone());
        let host = Arc::new(Host {
            name: format!("h{number}"),
            revision: self.revision,
            tunnel_ip: tunnel_ip(if moved { number + 100 } else { number }),
            created_at: jiff::Timestamp::UNIX_EPOCH,
            admin_state_up: true,
            description: String::new(),
            availability_zone: "nova".into(),
            external_networks: external_networks.unwrap_or_default(),
        });
        self.registered.entry(host.name.clone()).or_insert(self.revision);
        self.hosts.insert(host.name.clone(), Arc::clone(&host));
        Change::Put(Resource::Host(host))
    }

    pub(super) fn network(&mut self, number: u8) -> Change {
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

    pub(super) fn port(&mut self, number: u128, network: u8, host: Option<u8>, ip: u8) -> Change {
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
        if let Some(old) = self.ports.insert(port.id, Arc::clone(&port)) {
            note(&mut self.told_labels, &old, self.revision, false);
        }
        note(&mut self.told_labels, &port, self.revision, true);
        Change::Put(Resource::Port(port))
    }

    pub(super) fn delete_port(&mut self, number: u128) -> Vec<Change> {
        let Some(port) = self.ports.remove(&id(number + 5000)) else {
            return Vec::new();
        };
        let leads = |row: &&Arc<FloatingIp>| row.association.is_some_and(|to| to.port_id == port.id);
        let led: Vec<_> = self
            .floating_ips
            .values()
            .filter(leads)
            .map(|row| row.id)
            .collect();
        let led = led.into_iter().map(|id| (id.uuid().as_u128() - 50_000) as u8);
        let mut changes: Vec<_> = led.map(|number| self.floating_ip(number, 0, None)).collect();
        self.revision = self.revision.next();
        note(&mut self.told_labels, &port, self.revision, false);
        changes.push(Change::Delete {
            key: ResourceKey::Port(id(number + 5000)),
            revision: self.revision,
        });
        changes.extend(self.left(port.network_id, port.label));
        changes
    }

    pub(super) fn rows(&self) -> Vec<Resource> {
        let groups: Vec<_> = (0..GROUPS).map(|group| self.group(group)).collect();
        let hosts = self.hosts.values().cloned().map(Resource::Host);
        let networks = self.networks.values().cloned().map(Resource::Network);
        hosts
            .chain(networks)
            .chain(groups)
            .chain(self.rules.values().cloned().map(Resource::SecurityGroupRule))
            .chain(self.labels.values().cloned().map(Resource::Label))
            .chain(self.ports.values().cloned().map(Resource::Port))
            .chain(self.routers.values().cloned().map(Resource::Router))
            .chain(self.outside.iter().cloned().map(Resource::Subnet))
            .chain(self.floating_ips.values().cloned().map(Resource::FloatingIp))
            .chain(self.gateways.values().cloned().map(Resource::GatewayNode))
            .collect()
    }

    /// What a host must have, from the resources alone: key to what matters of the row.
    pub(super) fn expected(&self, host: &str) -> BTreeMap<RowKey, String> {
        let mine: BTreeSet<_> = self
            .ports
            .values()
            .filter(|port| port.binding.host_id == host)
            .flat_map(|port| self.near(port.network_id))
            .collect();
        let mut rows = BTreeMap::new();
        for network in &mine {
            let underlay = filters(host).then(|| self.underlay(*network));
            rows.insert(RowKey::Network(*network), format!("{underlay:?}"));
            for router in self.routers_in(*network) {
                let text = format!("{} [] []", router.admin_state_up);
                rows.insert(RowKey::Router(*network, router.id), text);
            }
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
                    rows.insert(key, self.allowed(*group));
                }
                let floating = self.floating_ips.values();
                let floating = floating.filter(|row| row.association.is_some_and(|to| to.port_id == port.id));
                for row in floating.filter(|row| self.answers(row).is_some()) {
                    let key = RowKey::FloatingIp(port.network_id, row.id);
                    rows.insert(key, self.expected_floating_ip(row));
                }
            } else if let Some(other) = self.hosts.get(&port.binding.host_id) {
                for fixed in &port.fixed_ips {
                    let mut text = format!("{} {}", port.mac_address, other.tunnel_ip);
                    if self.looks(host, port.network_id) {
                        text += &format!(" {}", port.label.unwrap_or_default());
                    }
                    rows.insert(RowKey::Neighbour(port.network_id, fixed.ip_address), text);
                }
            }
        }
        rows
    }
}

/// What matters of a row to a host that asks for labels of neighbours or does not.
pub(super) fn text(row: &Row, looks: bool) -> String {
    match row {
        Row::Network(row) => {
            let blocks = row.underlay.as_ref();
            let blocks = blocks.map(|blocks| blocks.iter().map(ToString::to_string).collect::<BTreeSet<_>>());
            format!("{blocks:?}")
        }
        Row::Subnet(_) => "subnet".to_owned(),
        Row::FloatingIp(row) => {
            let cidr = row.cidr.map(|cidr| cidr.to_string());
            let (floating, fixed, gateway) = (row.floating_ip, row.fixed_ip, row.nexthop);
            format!("{floating} {fixed} {:?} {cidr:?} {gateway:?}", row.host)
        }
        Row::Router(row) => format!("{} {:?} {:?}", row.admin_state_up, row.interfaces, row.routes),
        Row::Policy(row) => {
            let points = row.ingress.iter().filter_map(|rule| rule.service);
            let points: Vec<_> = points.map(|service| service.first).collect();
            format!("{points:?} {}", row.egress.len())
        }
        Row::Label(row) => format!("{:?}", row.groups),
        Row::Port(port) => format!("{:?} {:?}", port.fixed_ips, port.label),
        Row::Neighbour(row) if looks => format!("{} {} {}", row.mac, row.host, row.label),
        Row::Neighbour(row) => format!("{} {}", row.mac, row.host),
    }
}
