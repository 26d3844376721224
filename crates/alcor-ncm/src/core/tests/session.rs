//! Many sessions at once, and many networks in one.

use alcor_proto::v1;
use alcor_southbound::convert::{decode_id, encode_ip};

use super::{
    super::*,
    sim::{Sim, receipt},
    world::{World, id, tunnel_ip},
};

const HOSTS: u8 = 20;

/// Hosts with a port in each of two networks, none of them connected.
fn place(options: Options) -> (Ncm, World) {
    let mut world = World::default();
    let mut changes = vec![world.network(0), world.network(1)];
    changes.extend((0..HOSTS).map(|host| world.host(host, false)));
    for network in 0..2 {
        for host in 0..HOSTS {
            let number = u128::from(network) * 100 + u128::from(host);
            changes.push(world.port(number, network, Some(host), 1));
        }
    }
    let mut ncm = Ncm::new(options);
    tell(&mut ncm, changes);
    (ncm, world)
}

fn tell(ncm: &mut Ncm, changes: Vec<Change>) -> Vec<Action> {
    let committed_us = 1;
    let event = Event::Changes {
        changes,
        committed_us,
    };
    ncm.step(Now::default(), event).0
}

fn hello(ncm: &mut Ncm, host: u8) -> Vec<Action> {
    let hello = v1::Hello {
        host: format!("h{host}"),
        incarnation: 1,
        tunnel_ip: encode_ip(tunnel_ip(host)),
        filters: true,
        ..v1::Hello::default()
    };
    let session = host.into();
    ncm.step(Now::default(), Event::Hello { session, hello }).0
}

fn deltas(actions: Vec<Action>) -> Vec<(SessionId, v1::Delta)> {
    let deltas = actions.into_iter().filter_map(|action| match action {
        Action::Send { session, message } => match message.read().unwrap().body {
            Some(v1::ncm_message::Body::Delta(delta)) => Some((session, delta)),
            _ => None,
        },
        _ => None,
    });
    deltas.collect()
}

fn take(ncm: &mut Ncm, session: SessionId, sequence: u64) -> Vec<(SessionId, v1::Delta)> {
    let body = v1::agent_message::Body::Receipt(receipt(sequence));
    deltas(ncm.step(Now::default(), Event::Message { session, body }).0)
}

/// All hosts come back at once: three snapshots are on their way at any time, whoever takes one lets the next in, in order,
/// and one that takes nothing does not keep its place.
#[test]
fn hosts_that_come_back_together_are_admitted_in_waves() {
    let options = Options {
        snapshots_at_once: 3,
        ..Options::default()
    };
    let (mut ncm, mut world) = place(options);
    let mut sent: VecDeque<(SessionId, v1::Delta)> = VecDeque::new();
    for host in 0..HOSTS {
        sent.extend(deltas(hello(&mut ncm, host)));
    }
    let sessions = |sent: &VecDeque<(SessionId, v1::Delta)>| {
        let sessions = sent.iter().map(|(session, _)| *session);
        sessions.collect::<Vec<_>>()
    };
    assert_eq!(sessions(&sent), [0, 0, 1]);
    // What changes meanwhile reaches those who have their snapshots, and is part of those that come.
    let changed = world.port(3, 0, Some(3), 2);
    sent.extend(deltas(tell(&mut ncm, vec![changed])));
    assert_eq!(sessions(&sent), [0, 0, 1, 0, 1]);
    let mut served = BTreeMap::new();
    while let Some((session, delta)) = sent.pop_front() {
        if delta.snapshot() == v1::SnapshotPhase::Whole {
            *served.entry(session).or_insert(0) += 1;
        }
        sent.extend(take(&mut ncm, session, delta.sequence));
        let on_their_way = sent
            .iter()
            .filter(|(_, delta)| delta.snapshot() == v1::SnapshotPhase::Whole);
        assert!(on_their_way.count() <= 3);
    }
    assert_eq!(
        served,
        (0..u64::from(HOSTS)).map(|session| (session, 2)).collect()
    );
}

/// A host goes on passing on what comes for a port that has left it, and was away when its last port was deleted. Whatever is still known of
/// what happened meanwhile, it must not go on serving that.
#[test]
fn a_host_that_lingers_has_no_deleted_port() {
    let few = Options {
        tombstones: 1,
        ..Options::default()
    };
    for (options, others) in [(Options::default(), 0), (few, 3)] {
        let mut sim = Sim::new(options);
        for (number, host) in [(0, 1), (1, 1), (2, 2), (3, 2), (4, 2), (5, 2)] {
            let change = sim.world.port(number, 0, Some(host), 1);
            sim.untold.push(change);
        }
        sim.arrive();
        let change = sim.world.port(0, 0, Some(2), 1);
        sim.untold.push(change);
        sim.arrive();
        sim.disconnect(1);
        for number in std::iter::once(1).chain(3..3 + others) {
            let change = sim.world.delete_port(number);
            sim.untold.extend(change);
        }
        sim.tell();
        sim.arrive();
        let has = sim.agents[&1].has("h1", &sim.world);
        assert!(!has.keys().any(|key| matches!(key, RowKey::Port(..))), "{has:?}");
        // And it still passes on.
        let left = sim.world.ports[&id(5000)].fixed_ips[0].ip_address;
        assert!(has.contains_key(&RowKey::Neighbour(id(1000), left)), "{has:?}");
        assert!(has.contains_key(&RowKey::Network(id(1000))), "{has:?}");
    }
}

#[test]
fn a_host_that_takes_nothing_keeps_no_place() {
    let options = Options {
        snapshots_at_once: 1,
        ..Options::default()
    };
    let (mut ncm, _) = place(options);
    assert_eq!(deltas(hello(&mut ncm, 0)).len(), 1);
    assert_eq!(deltas(hello(&mut ncm, 1)).len(), 0);
    let mut let_in = |seconds: u64| {
        let now = Now {
            since_start: Duration::from_secs(seconds),
            unix_us: seconds * 1_000_000,
        };
        for session in 0..2 {
            let body = v1::agent_message::Body::Heartbeat(v1::Heartbeat::default());
            ncm.step(now, Event::Message { session, body });
        }
        let sent = deltas(ncm.step(now, Event::Tick).0).into_iter();
        sent.map(|(session, _)| session).collect::<Vec<_>>()
    };
    assert!(let_in(4).is_empty());
    assert_eq!(let_in(5), [0], "its other network, which waits longer");
    assert_eq!(let_in(10), [1]);
}

/// A burst in one network does not delay the other: they take turns.
#[test]
fn networks_of_a_host_take_turns() {
    let options = Options {
        window_deltas: 2,
        ..Options::default()
    };
    let (mut ncm, mut world) = place(options);
    let mut sent: VecDeque<_> = deltas(hello(&mut ncm, 0)).into();
    while let Some((session, delta)) = sent.pop_front() {
        sent.extend(take(&mut ncm, session, delta.sequence));
    }
    for number in 0..50 {
        let change = world.port(1, 0, Some(1), number % 2 + 1);
        sent.extend(deltas(tell(&mut ncm, vec![change])));
    }
    let change = world.port(101, 1, Some(1), 2);
    sent.extend(deltas(tell(&mut ncm, vec![change])));
    assert_eq!(sent.len(), 2, "the window");
    let mut order = Vec::new();
    while let Some((session, delta)) = sent.pop_front() {
        order.push(decode_id::<Network>("network", &delta.network_id).unwrap());
        sent.extend(take(&mut ncm, session, delta.sequence));
    }
    assert_eq!(order.len(), 50, "the first change says nothing new");
    let other = order.iter().position(|network| *network == id(1001));
    assert!(other <= Some(3), "{other:?}");
}

/// All rows of a region, as a feed that was lost brings them.
fn load(ncm: &mut Ncm, rows: Vec<Change>) -> (Vec<Action>, Work) {
    let rows: Vec<Resource> = rows
        .into_iter()
        .filter_map(|change| match change {
            Change::Put(row) => Some(row),
            Change::Delete { .. } => None,
        })
        .collect();
    let revision = rows.iter().map(Resource::revision).max().unwrap_or_default();
    ncm.step(Now::default(), Event::Snapshot { revision, rows })
}

/// Connected hosts get snapshots when a region is loaded anew; no host is looked at for each of its ports.
#[test]
fn loading_a_region_looks_at_hosts_once() {
    let (mut ncm, mut world) = place(Options::default());
    for host in 0..HOSTS {
        hello(&mut ncm, host);
    }
    let mut rows: Vec<Change> = (0..HOSTS).map(|host| world.host(host, false)).collect();
    rows.extend([world.network(0), world.network(1)]);
    for number in 0..500 {
        rows.push(world.port(number, (number % 2) as u8, Some((number % 20) as u8), 1));
    }
    let (_, work) = load(&mut ncm, rows);
    assert_eq!(work.hosts_looked_at, 0, "{work:?}");
    assert_eq!(work.hosts_touched, u64::from(HOSTS), "{work:?}");
}

/// A host that was deleted while the feed was lost has to say hello again: only that registers it.
#[test]
fn a_host_that_the_loaded_region_does_not_know_loses_its_session() {
    let (mut ncm, mut world) = place(Options::default());
    for host in 0..HOSTS {
        hello(&mut ncm, host);
    }
    let rows = (0..HOSTS - 1).map(|host| world.host(host, false)).collect();
    let (actions, _) = load(&mut ncm, rows);
    let closed = actions.into_iter().filter_map(|action| match action {
        Action::Close { session, .. } => Some(session),
        _ => None,
    });
    assert_eq!(closed.collect::<Vec<_>>(), [SessionId::from(HOSTS - 1)]);
    let again = hello(&mut ncm, HOSTS - 1);
    let registers = |action: &Action| matches!(action, Action::RegisterHost { .. });
    assert!(again.iter().any(registers), "{again:?}");
}
