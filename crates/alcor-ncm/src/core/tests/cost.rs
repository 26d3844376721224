//! What changes cost: work counters, never time.

use std::num::NonZeroU16;

use alcor_dataplane::{Row, RowChange};
use alcor_model::MacAddr;
use alcor_proto::v1;
use alcor_southbound::convert::encode_ip;

use super::{
    super::*,
    sim::{Sim, receipt},
    world::{ASKING, GROUPS, World, groups_of, id},
};

/// A network of `ports` ports on `hosts` simulated hosts, all connected and settled.
fn big(hosts: u32, ports: u32) -> (Ncm, Revision) {
    let (ncm, world) = members(hosts, ports, &[]);
    (ncm, world.revision)
}

/// The same, every port under the first group; and further ports, each with its host and its set.
fn members(hosts: u32, ports: u32, others: &[(u32, u16)]) -> (Ncm, World) {
    let mut ncm = Ncm::new(Options::default());
    let mut world = World::default();
    let mut rows = vec![world.network(0)];
    rows.extend((0..GROUPS).map(|group| Change::Put(world.group(group))));
    world.revision = world.revision.next();
    for bits in 1..1 << GROUPS {
        let number = NonZeroU16::new(bits).unwrap();
        rows.push(world.put_label(id(1000), number, false));
    }
    for host in 0..hosts {
        world.revision = world.revision.next();
        rows.push(Change::Put(Resource::Host(Arc::new(Host {
            name: format!("h{host}"),
            revision: world.revision,
            tunnel_ip: IpAddr::from((10 << 24 | host).to_be_bytes()),
            created_at: jiff::Timestamp::UNIX_EPOCH,
            admin_state_up: true,
            description: String::new(),
            availability_zone: "nova".into(),
            external_networks: BTreeSet::new(),
        }))));
    }
    for port in 0..ports {
        rows.push(big_port(&mut world, port, port % hosts, 1));
    }
    for (number, (host, bits)) in (OTHERS..).zip(others) {
        rows.push(big_port(&mut world, number, *host, *bits));
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
            tunnel_ip: encode_ip(IpAddr::from((10 << 24 | host).to_be_bytes())),
            filters: true,
            ..v1::Hello::default()
        };
        let session = u64::from(host) + 1;
        let (mut actions, _) = ncm.step(Now::default(), Event::Hello { session, hello });
        while let Some(action) = actions.pop() {
            if let Action::Send {
                message: FromNcm::Delta(delta),
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
    (ncm, world)
}

/// Where numbers of ports that are not among the many begin.
const OTHERS: u32 = 60_000;

fn big_port(world: &mut World, number: u32, host: u32, bits: u16) -> Change {
    let Change::Put(Resource::Port(port)) = world.port(u128::from(number), 0, None, 0) else {
        unreachable!()
    };
    world.ports.clear();
    let mut port = Port::clone(&port);
    (port.security_groups, port.label) = (groups_of(bits), Some(bits));
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
            let change = big_port(&mut world, OTHERS, 0, 1);
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
            rows_encoded: 2,
            deltas: 4,
            hosts_touched: 4,
            hosts_looked_at: 4,
            networks_looked_at: 0,
            bytes: work[0].bytes,
            ..Work::default()
        }
    );
    let (few, many) = (work[0].bytes, work[1].bytes);
    assert!(
        many <= few + 4 * 4,
        "{few} bytes, and {many}: only revisions may take more of them"
    );
    assert_eq!(
        work[0],
        Work {
            bytes: few,
            ..work[1]
        }
    );
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

fn told(ncm: &mut Ncm, changes: Vec<Change>) -> (Vec<Action>, Work) {
    let committed_us = 1;
    ncm.step(
        Now::default(),
        Event::Changes {
            changes,
            committed_us,
        },
    )
}

/// The rows that a step sends to a host of `big`, in the order in which they are sent.
fn rows_to(actions: &[Action], host: u64) -> Vec<RowChange> {
    let mut rows = Vec::new();
    for action in actions {
        if let Action::Send { session, message } = action
            && let FromNcm::Delta(delta) = message
            && *session == host + 1
        {
            rows.extend(delta.rows.iter().map(|row| row.change().clone()));
        }
    }
    rows
}

/// A port comes under a group that has so many members on 20 hosts, and leaves it: its own host is told, in a number of
/// rows that does not depend on how many members there are. And a rule costs one row per host with a member.
#[test]
fn a_member_that_joins_or_leaves_costs_one_host() {
    for members_count in [10, 1_000, 10_000] {
        let (mut ncm, mut world) = members(20, members_count, &[(0, 2), (19, 2)]);
        // The first host has members, so the rules are there; the last one has none when there are 10.
        for (number, host, has_rules) in [(OTHERS, 0, true), (OTHERS + 1, 19, members_count > 10)] {
            let (actions, work) = told(&mut ncm, vec![big_port(&mut world, number, host, 3)]);
            assert_eq!(work.hosts_touched, 1, "joining {members_count}");
            assert_eq!(
                work.rows_sent,
                if has_rules { 1 } else { 2 },
                "the port, and the rules"
            );
            assert_eq!(work.networks_looked_at, 0);
            assert!(matches!(
                rows_to(&actions, u64::from(host))[..],
                [.., RowChange::Put(Row::Port(_))]
            ));
            let (_, work) = told(&mut ncm, vec![big_port(&mut world, number, host, 2)]);
            assert_eq!(work.hosts_touched, 1, "leaving {members_count}");
            assert_eq!(
                work.rows_sent,
                if has_rules { 1 } else { 2 },
                "the port, and the end of the rules"
            );
        }
        let (_, work) = told(&mut ncm, vec![world.toggle_rule(0, 1)]);
        let hosts = u64::from(members_count.min(20));
        assert_eq!(
            (work.hosts_touched, work.rows_sent, work.networks_looked_at),
            (hosts, hosts, 1)
        );
    }
}

/// Hosts whose rules ask for labels of neighbours are told of a label, the others are not; and a host that begins to ask
/// gets what it was not told, before the rules.
#[test]
fn labels_of_neighbours_go_to_who_asks() {
    let (mut ncm, mut world) = members(20, 0, &[(0, 1), (1, 2), (2, 4)]);
    told(&mut ncm, vec![world.toggle_rule(0, ASKING)]);
    let (actions, work) = told(&mut ncm, vec![big_port(&mut world, OTHERS + 1, 1, 3)]);
    assert!(
        matches!(rows_to(&actions, 0)[..], [RowChange::Put(Row::Neighbour(row))] if row.label == 3),
        "the host that asks"
    );
    assert_eq!(work.hosts_touched, 2, "its own host and the one that asks");

    let (actions, work) = told(&mut ncm, vec![world.toggle_rule(2, ASKING)]);
    let rows = rows_to(&actions, 2);
    assert!(
        matches!(&rows[..], [RowChange::Put(Row::Neighbour(row)), RowChange::Put(Row::Policy(_))] if row.label == 3),
        "{rows:?}"
    );
    assert!(
        rows.is_sorted_by_key(RowChange::key),
        "hosts take rows in the order of their keys"
    );
    assert_eq!(work.hosts_touched, 1);
}

/// What changes with a host that comes into a network of very many is not the row of the network, on hosts that
/// were there before.
#[test]
fn a_host_in_a_big_network_changes_no_underlay() {
    let (mut ncm, mut world) = members(200, 200, &[]);
    let mut last = None;
    for number in 0..2u32 {
        world.revision = world.revision.next();
        let host = Host {
            name: format!("new{number}"),
            revision: world.revision,
            tunnel_ip: IpAddr::from((10 << 24 | (100 + number)).to_be_bytes()),
            created_at: jiff::Timestamp::UNIX_EPOCH,
            admin_state_up: true,
            description: String::new(),
            availability_zone: "nova".into(),
            external_networks: BTreeSet::new(),
        };
        let Change::Put(Resource::Port(port)) = big_port(&mut world, OTHERS + number, 0, 1) else {
            unreachable!()
        };
        let mut port = Port::clone(&port);
        port.binding.host_id = host.name.clone();
        let changes = vec![
            Change::Put(Resource::Host(Arc::new(host))),
            Change::Put(Resource::Port(Arc::new(port))),
        ];
        last = Some(told(&mut ncm, changes));
    }
    let (actions, work) = last.unwrap();
    assert!(matches!(
        rows_to(&actions, 0)[..],
        [RowChange::Put(Row::Neighbour(_))]
    ));
    assert_eq!((work.hosts_touched, work.rows_sent), (200, 200));
}

/// Time that passes costs nothing in networks where no number rests, nor where nothing has happened since.
#[test]
fn numbers_that_rest_are_looked_at_when_something_happens() {
    let (mut ncm, mut world) = members(4, 40, &[]);
    let tick = |ncm: &mut Ncm| ncm.step(Now::default(), Event::Tick).1.networks_looked_at;
    assert_eq!(tick(&mut ncm), 0);
    world.revision = world.revision.next();
    let rests = world.put_label(id(1000), NonZeroU16::MIN, true);
    told(&mut ncm, vec![rests]);
    assert_eq!((tick(&mut ncm), tick(&mut ncm)), (1, 0));
}

/// A row is turned into bytes once, however many hosts are told of it.
#[test]
fn what_many_hosts_are_told_is_encoded_once() {
    // Every host has every neighbour: a port that moves is a neighbour's row for all, and rows of its own for two.
    let told = [50, 250].map(|hosts| {
        let (mut ncm, mut world) = members(hosts, hosts, &[]);
        let committed_us = 1;
        let changes = vec![big_port(&mut world, 0, 1, 1)];
        let moved = Event::Changes {
            changes,
            committed_us,
        };
        let (_, work) = ncm.step(Now::default(), moved);
        assert_eq!((work.hosts_touched, work.deltas), (hosts.into(), hosts.into()));
        assert!(work.rows_sent >= hosts.into(), "{work:?}");
        work.rows_encoded
    });
    assert_eq!(told[0], told[1]);
    assert!(told[0] <= 8, "{told:?}");
}

/// So are the rows of a network and of its routers, which all hosts with ports there have.
#[test]
fn networks_and_routers_are_encoded_once_for_a_thousand_hosts() {
    const HOSTS: u32 = 1_000;
    let (mut ncm, mut world) = members(HOSTS, HOSTS, &[]);
    let router = world.router(1, 0b1, true).unwrap();
    for changes in [vec![world.network(0)], vec![router]] {
        let committed_us = 1;
        let changed = Event::Changes {
            changes,
            committed_us,
        };
        let (actions, work) = ncm.step(Now::default(), changed);
        assert_eq!(
            (work.hosts_touched, work.rows_sent),
            (HOSTS.into(), HOSTS.into()),
            "{work:?}"
        );
        assert_eq!(work.rows_encoded, 1);
        let rows: BTreeSet<_> = (0..HOSTS.into())
            .map(|host| format!("{:?}", rows_to(&actions, host)))
            .collect();
        assert_eq!(rows.len(), 1);
    }
}

/// Lines of a list are made of keys and revisions: no rule is compiled and no router worked out to be counted.
#[test]
fn a_list_of_hosts_makes_no_row() {
    let mut sim = Sim::new(Options::default());
    let change = sim.world.router(0, 3, true);
    sim.untold.extend(change);
    for group in 0..3 {
        let change = sim.world.toggle_rule(group, 1);
        sim.untold.push(change);
    }
    for number in 1..=20 {
        let changes = sim.world.port_under(number, (number % 2) as u8, Some(1), 1, 7);
        sim.untold.extend(changes);
    }
    // It takes nothing of what it is told, so its rows have to be counted.
    sim.connect(1);
    sim.tell();
    let made = view::ROWS_MADE.get();
    let summaries = sim.ncm.host_summaries();
    assert_eq!(view::ROWS_MADE.get(), made);
    let line = summaries.iter().find(|line| line.name == "h1").unwrap();
    // Twenty ports; of each of two networks itself, its router and the rules of three groups.
    assert_eq!((line.ports, line.pending), (20, 20 + 2 * 5));
}
