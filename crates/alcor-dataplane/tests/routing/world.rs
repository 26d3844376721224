//! Random worlds: networks with subnets of their own, routers, two hosts, ports under groups. A packet arrives exactly where
//! a router that is up leads and rules allow.

use std::{collections::BTreeSet, num::NonZeroU16};

use alcor_dataplane::{
    Dataplane, Ingress, InterfaceRow, LabelRow, Model, NeighbourRow, NetworkRow, PolicyRow, PortRow,
    RouterRow, Row, RowChange, Verdict,
    packet::mac_at,
    security::{Family, Remote, Rule},
    testing::rng::Rng,
};
use alcor_model::{Id, MacAddr, Network, Port, resource::FixedIp};
use proptest::prelude::*;

use crate::common::{GATEWAY, id, ip, network, subnet, udp_ttl};

const HOSTS: [&str; 2] = ["192.0.2.1", "192.0.2.2"];
const NETWORKS: usize = 4;
const GROUPS: usize = 3;

/// A port, and what its rules see of it.
#[derive(Clone, Debug)]
struct Station {
    number: u128,
    network: usize,
    subnet: usize,
    host: usize,
    groups: BTreeSet<u128>,
}

impl Station {
    fn id(&self) -> Id<Port> {
        id(self.number)
    }

    fn mac(&self) -> MacAddr {
        MacAddr([0xfa, 0x16, 0x3e, 0, 1, self.number as u8])
    }

    fn address(&self, family: Family) -> String {
        address(self.network, self.subnet, self.number, family)
    }
}

#[derive(Debug)]
struct Router {
    up: bool,
    /// Network and subnet.
    interfaces: BTreeSet<(usize, usize)>,
}

/// Which groups a group lets in and out.
#[derive(Debug)]
struct Group {
    from: BTreeSet<u128>,
    to: BTreeSet<u128>,
}

#[derive(Debug)]
struct World {
    stations: Vec<Station>,
    routers: Vec<Router>,
    groups: Vec<Group>,
    /// By network: the set of each label, from 1.
    labels: Vec<Vec<BTreeSet<u128>>>,
}

fn address(network: usize, subnet: usize, last: u128, family: Family) -> String {
    match family {
        Family::Ipv4 => format!("10.{network}.{subnet}.{last}"),
        Family::Ipv6 => format!("fd00:{network}:{subnet}::{last:x}"),
    }
}

fn cidr(network: usize, subnet: usize, family: Family) -> String {
    match family {
        Family::Ipv4 => format!("10.{network}.{subnet}.0/24"),
        Family::Ipv6 => format!("fd00:{network}:{subnet}::/64"),
    }
}

fn some_groups(rng: &mut Rng) -> BTreeSet<u128> {
    (1..=GROUPS as u128).filter(|_| rng.chance(50)).collect()
}

impl World {
    fn new(rng: &mut Rng) -> Self {
        let station = |rng: &mut Rng, number| Station {
            number,
            network: rng.below(NETWORKS),
            subnet: rng.below(2),
            host: rng.below(2),
            groups: some_groups(rng),
        };
        let stations: Vec<Station> = (10..18).map(|number| station(rng, number)).collect();
        let place = |rng: &mut Rng| (rng.below(NETWORKS), rng.below(2));
        let router = |rng: &mut Rng| Router {
            up: rng.chance(75),
            interfaces: (0..rng.below(5)).map(|_| place(rng)).collect(),
        };
        let mut world = Self {
            routers: (0..1 + rng.below(4)).map(|_| router(rng)).collect(),
            groups: (0..GROUPS)
                .map(|_| Group {
                    from: some_groups(rng),
                    to: some_groups(rng),
                })
                .collect(),
            labels: Vec::new(),
            stations,
        };
        // As the region gives them: each network has labels for the sets of its ports and of its routers' other networks.
        for network in 0..NETWORKS {
            let mut near: BTreeSet<usize> = [network].into();
            for router in &world.routers {
                let networks = router.interfaces.iter().map(|(network, _)| *network);
                if networks.clone().any(|other| other == network) {
                    near.extend(networks);
                }
            }
            let of_peers = world
                .stations
                .iter()
                .filter(|station| near.contains(&station.network));
            let mut sets: Vec<_> = of_peers.map(|station| station.groups.clone()).collect();
            sets.retain(|set| !set.is_empty());
            sets.sort_by_key(|set| (rng.below(100), set.len()));
            let mut seen = BTreeSet::new();
            sets.retain(|set| seen.insert(set.clone()));
            world.labels.push(sets);
        }
        world
    }

    fn label(&self, network: usize, groups: &BTreeSet<u128>) -> u16 {
        let place = self.labels[network].iter().position(|set| set == groups);
        place.map_or(0, |place| place as u16 + 1)
    }

    fn rows(&self, host: usize) -> Vec<Row> {
        let mut rows: Vec<Row> = (0..NETWORKS)
            .flat_map(|network| self.rows_of_network(network))
            .collect();
        for station in &self.stations {
            let label = self.label(station.network, &station.groups);
            if station.host == host {
                rows.push(Row::Port(port_row(station, label)));
                continue;
            }
            for family in [Family::Ipv4, Family::Ipv6] {
                rows.push(Row::Neighbour(NeighbourRow {
                    network_id: id(station.network as u128),
                    ip: ip(&station.address(family)),
                    mac: station.mac(),
                    host: ip(HOSTS[station.host]),
                    label,
                    forward: false,
                }));
            }
        }
        rows
    }

    fn rows_of_network(&self, number: usize) -> Vec<Row> {
        let key = number as u128;
        let row = NetworkRow {
            admin_state_up: true,
            ..network(key, vni(number))
        };
        let mut rows = vec![Row::Network(row)];
        for place in 0..2 {
            for (offset, family) in [(0, Family::Ipv4), (2, Family::Ipv6)] {
                let gateway = address(number, place, 1, family);
                let id = 100 + 4 * key + place as u128 + offset;
                let cidr = cidr(number, place, family);
                rows.push(Row::Subnet(subnet(id, key, &cidr, Some(&gateway), false)));
            }
        }
        for (index, router) in (0..).zip(&self.routers) {
            if router.interfaces.iter().any(|(network, _)| *network == number) {
                rows.push(Row::Router(router_row(router, id(200 + index), id(key))));
            }
        }
        for (label, set) in (1..).zip(&self.labels[number]) {
            rows.push(Row::Label(LabelRow {
                network_id: id(key),
                label: NonZeroU16::new(label).unwrap(),
                groups: set.iter().map(|group| id(*group)).collect(),
            }));
        }
        for (group_id, group) in (1..).zip(&self.groups) {
            rows.push(Row::Policy(PolicyRow {
                network_id: id(key),
                group_id: id(group_id),
                stateful: true,
                ingress: rules(&group.from),
                egress: rules(&group.to),
            }));
        }
        rows
    }

    /// What the API promises.
    fn arrives(&self, from: &Station, to: &Station) -> bool {
        let leads = |router: &Router| {
            let here = router
                .interfaces
                .iter()
                .any(|(network, _)| *network == from.network);
            router.up && here && router.interfaces.contains(&(to.network, to.subnet))
        };
        let connected = from.network == to.network || self.routers.iter().any(leads);
        let group = |number: &u128| &self.groups[*number as usize - 1];
        let lets = |own: &BTreeSet<u128>, other: &BTreeSet<u128>, side: fn(&Group) -> &BTreeSet<u128>| {
            own.iter()
                .any(|number| side(group(number)).intersection(other).next().is_some())
        };
        connected
            && lets(&from.groups, &to.groups, |group| &group.to)
            && lets(&to.groups, &from.groups, |group| &group.from)
    }
}

const fn vni(network: usize) -> u32 {
    1000 + network as u32
}

fn rules(groups: &BTreeSet<u128>) -> Vec<Rule> {
    let rule = |group: &u128, family| Rule {
        family,
        service: None,
        remote: Remote::Group(id(*group)),
    };
    let both = |group| [Family::Ipv4, Family::Ipv6].map(|family| rule(group, family));
    groups.iter().flat_map(both).collect()
}

fn port_row(station: &Station, label: u16) -> PortRow {
    let fixed = |family| FixedIp {
        subnet_id: id(1),
        ip_address: ip(&station.address(family)),
    };
    PortRow {
        id: station.id(),
        network_id: id(station.network as u128),
        mac: station.mac(),
        fixed_ips: [Family::Ipv4, Family::Ipv6].map(fixed).into(),
        allowed_address_pairs: Vec::new(),
        admin_state_up: true,
        port_security_enabled: true,
        dns_name: String::new(),
        label: Some(label),
    }
}

fn router_row(router: &Router, router_id: Id<alcor_model::Router>, network_id: Id<Network>) -> RouterRow {
    let interface = |(network, subnet): &(usize, usize), family| InterfaceRow {
        network_id: id(*network as u128),
        cidr: cidr(*network, *subnet, family).parse().unwrap(),
        address: ip(&address(*network, *subnet, 1, family)),
    };
    let both = |place| [Family::Ipv4, Family::Ipv6].map(|family| interface(place, family));
    RouterRow {
        id: router_id,
        network_id,
        admin_state_up: router.up,
        interfaces: router.interfaces.iter().flat_map(both).collect(),
        routes: Vec::new(),
        external: None,
    }
}

/// The port that a packet of one station to another comes out at.
fn follow(
    models: &mut [Model; 2],
    from: &Station,
    to: &Station,
    family: Family,
    sport: u16,
) -> Option<Id<Port>> {
    let near = from.network == to.network && from.subnet == to.subnet;
    let mac = if near { to.mac() } else { GATEWAY };
    let (source, destination) = (from.address(family), to.address(family));
    let frame = udp_ttl(
        (from.mac(), mac, &source, &destination),
        64,
        (sport, 53),
        b"hello",
    );
    let mut verdict = models[from.host].process(Ingress::Port(from.id()), &frame);
    if let Verdict::Tunnel {
        host,
        vni,
        label,
        forwarded,
        frame,
    } = verdict
    {
        let place = HOSTS.iter().position(|name| ip(name) == host).unwrap();
        let source = ip(HOSTS[from.host]);
        let ingress = Ingress::Tunnel {
            source,
            vni: vni.get(),
            label,
            forwarded,
        };
        verdict = models[place].process(ingress, &frame);
    }
    match verdict {
        Verdict::Deliver { port, frame } => {
            assert_eq!(mac_at(&frame, 0), Some(to.mac()));
            Some(port)
        }
        Verdict::Drop(_) => None,
        other => panic!("{other:?}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_packet_arrives_exactly_where_routers_and_rules_let_it(seed: u64) {
        let world = World::new(&mut Rng::new(seed));
        let mut models = [Model::default(), Model::default()];
        for (host, model) in models.iter_mut().enumerate() {
            for row in world.rows(host) {
                let applied = model.apply(&[RowChange::Put(row)]);
                prop_assert!(applied[0].is_ok(), "{:?}", applied[0]);
            }
            for station in world.stations.iter().filter(|station| station.host == host) {
                model.attach(station.id(), &format!("tap{}", station.number)).unwrap();
            }
        }
        let pairs = world.stations.iter().flat_map(|from| world.stations.iter().map(move |to| (from, to)));
        for (sport, (from, to)) in (1000..).zip(pairs.filter(|(from, to)| from.number != to.number)) {
            for family in [Family::Ipv4, Family::Ipv6] {
                let reached = follow(&mut models, from, to, family, sport);
                let wanted = world.arrives(from, to).then(|| to.id());
                prop_assert_eq!(reached, wanted, "{:?} to {:?}, {:?} in {:?}", from, to, family, world);
            }
        }
    }
}
