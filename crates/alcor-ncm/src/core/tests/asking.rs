//! Rules that ask for labels of neighbours come after those labels, in whatever network these lie: whenever such a rule is at an
//! agent, no neighbour there that it may match has a label from before the rule.

use alcor_dataplane::{
    NeighbourRow, Row, RowKey,
    security::{Remote, Rule},
};

use super::{
    super::*,
    agent::SimAgent,
    learning,
    sim::{Sim, Step, run},
    world::{ASKING, World, id, name},
};

/// The port at an address: its label and host.
#[derive(Debug)]
pub(super) struct At {
    label: u16,
    host: String,
}

/// What was at addresses, each with the revision since when.
pub(super) type Labels = BTreeMap<(Id<Network>, IpAddr), Vec<(Revision, Option<At>)>>;

/// Writes down what the addresses of a port are now, when it is there, or is not any more.
pub(super) fn note(labels: &mut Labels, port: &Port, at: Revision, is_there: bool) {
    for fixed in &port.fixed_ips {
        let known = labels.entry((port.network_id, fixed.ip_address)).or_default();
        known.retain(|(since, _)| *since < at);
        let port = is_there.then(|| At {
            label: port.label.unwrap_or_default(),
            host: port.binding.host_id.clone(),
        });
        known.push((at, port));
    }
}

/// Whether a label is one that an address had at a revision or later. When no other host has had it since, the row leads nowhere, and
/// the end of a snapshot takes it away.
fn is_since(world: &World, host: &str, row: &NeighbourRow, at: Revision) -> bool {
    let known = &world.told_labels[&(row.network_id, row.ip)];
    let from = known.partition_point(|(since, _)| *since <= at).saturating_sub(1);
    let is_registered = |name: &str| world.registered.get(name).is_some_and(|since| *since <= at);
    let mut versions = known[from..].iter();
    versions.any(|(_, port)| match port {
        Some(port) if port.host != host && is_registered(&port.host) => port.label == row.label,
        _ => true,
    })
}

/// Looks at all rules that a host has, and at the neighbours that they may match: in their network, and where its routers lead.
pub(super) fn check(host: &str, agent: &SimAgent, world: &World) {
    let is_asking = |rule: &Rule| matches!(rule.remote, Remote::Group(_));
    for (key, (revision, row)) in &agent.rows {
        let Some(Row::Policy(policy)) = row else {
            continue;
        };
        if !policy.egress.iter().any(is_asking) {
            continue;
        }
        let network = key.network_id();
        // A rule that no port of the host is under any more is on its way out.
        if !world.looks(host, network) {
            continue;
        }
        let mut asked = BTreeMap::from([(network, *revision)]);
        for (key, (at, row)) in &agent.rows {
            // One that has left meanwhile, and is on its way out of here, is none that the rule was told for.
            if let (RowKey::Router(of, router), Some(Row::Router(row))) = (key, row)
                && *of == network
                && row.admin_state_up
            {
                let now: BTreeSet<_> = world.places(*router, world.revision).collect();
                let peers = world.places(*router, *at);
                asked.extend(
                    peers
                        .filter(|peer| *peer != network && now.contains(peer) && now.contains(&network))
                        .map(|peer| (peer, *revision.max(at))),
                );
            }
        }
        for (key, (_, row)) in &agent.rows {
            let (Some(Row::Neighbour(row)), Some(at)) = (row, asked.get(&key.network_id())) else {
                continue;
            };
            // What it learned in another session it asks for again.
            if agent.doubted.contains(key) && agent.is_on_demand(row.network_id) {
                continue;
            }
            assert!(
                is_since(world, host, row, *at),
                "{host}: {key:?} has label {} of before {at:?} of {policy:?}: {:?}",
                row.label,
                world.told_labels[&(row.network_id, row.ip)]
            );
        }
    }
}

/// One host with a port in each of two networks, another with neighbours in both: one that is to leave the group, and one that
/// is to stay, so that its number rests nowhere.
fn routed(options: Options) -> Sim {
    let mut sim = Sim::new(options);
    for (number, network, host) in [(0, 0, 1), (1, 1, 1), (2, 0, 2), (3, 1, 2), (4, 0, 2), (5, 1, 2)] {
        let bits = if host == 1 { 1 } else { 2 };
        let changes = sim.world.port_under(number, network, Some(host), 1, bits);
        sim.untold.extend(changes);
    }
    sim
}

fn connect_networks(sim: &mut Sim) {
    let change = sim.world.router(0, 3, true);
    sim.untold.extend(change);
}

/// Neighbours leave the group that group 0 is about to ask for, in both networks.
fn leave(sim: &mut Sim) {
    for (number, network) in [(2, 0), (3, 1)] {
        let changes = sim.world.port_under(number, network, Some(2), 1, 4);
        sim.untold.extend(changes);
    }
}

fn ask(sim: &mut Sim) {
    let change = sim.world.toggle_rule(0, ASKING);
    sim.untold.push(change);
}

/// Addresses of ports change without end, so that the first host has a backlog in a network.
fn burst(sim: &mut Sim, network: u8, count: u8) {
    for ip in 0..count {
        let number = 100 + u128::from(network);
        let changes = sim.world.port_under(number, network, Some(2), 1 + ip % 2, 2);
        sim.untold.extend(changes);
        sim.tell();
    }
}

/// The labels of the two neighbours at the first host.
fn labels(sim: &Sim) -> Vec<u16> {
    let rows = sim.agents[&1].rows.iter();
    let neighbours = rows.filter_map(|(key, (_, row))| match (key, row) {
        (RowKey::Neighbour(_, ip), Some(Row::Neighbour(row))) => Some((*ip, row.label)),
        _ => None,
    });
    let ours = neighbours.filter(|(ip, _)| [2, 3].contains(&octet(*ip)));
    ours.map(|(_, label)| label).collect()
}

fn octet(ip: IpAddr) -> u8 {
    match ip {
        IpAddr::V4(ip) => ip.octets()[2],
        IpAddr::V6(_) => 0,
    }
}

/// How many of the first host's networks have the rule.
fn rules(sim: &Sim) -> usize {
    let asks = |row: &Row| matches!(row, Row::Policy(row) if !row.egress.is_empty());
    let rows = sim.agents[&1].rows.values().filter_map(|(_, row)| row.as_ref());
    rows.filter(|row| asks(row)).count()
}

fn small_window() -> Options {
    Options {
        window_deltas: 1,
        ..Options::default()
    }
}

/// Delivers to the first host message by message, each of which is checked, until it has both rules; gives how many it took.
fn until_it_asks(sim: &mut Sim) -> usize {
    for count in 1..200 {
        assert!(sim.deliver(1), "it waits for ever");
        if rules(sim) == 2 {
            return count;
        }
    }
    panic!("the rule does not come");
}

/// The peer network's lane has a backlog: the rules wait for the labels behind it, whichever of the networks that is.
#[test]
fn a_backlog_of_one_network_delays_the_rules_of_its_peer() {
    for network in [0, 1] {
        let mut sim = routed(small_window());
        connect_networks(&mut sim);
        sim.arrive();
        leave(&mut sim);
        sim.tell();
        while sim.deliver(1) {}
        assert_eq!(labels(&sim), [2, 2], "nobody asks, so nobody is told");
        burst(&mut sim, network, 20);
        ask(&mut sim);
        sim.tell();
        let count = until_it_asks(&mut sim);
        assert_eq!(labels(&sim), [4, 4]);
        assert!(count >= 20, "{count}");
        sim.arrive();
    }
}

/// A neighbour leaves the group while the host looks already, and the next change asks for that group.
#[test]
fn what_lookers_are_told_comes_before_newer_rules() {
    for network in [0, 1] {
        let mut sim = routed(small_window());
        connect_networks(&mut sim);
        // It asks for another group, and so is told.
        let changes = sim.world.port_under(0, 0, Some(1), 1, 3);
        sim.untold.extend(changes);
        let changes = sim.world.port_under(1, 1, Some(1), 1, 3);
        sim.untold.extend(changes);
        let change = sim.world.toggle_rule(1, ASKING);
        sim.untold.push(change);
        sim.arrive();
        assert_eq!((labels(&sim), rules(&sim)), (vec![2, 2], 2));
        burst(&mut sim, network, 20);
        leave(&mut sim);
        ask(&mut sim);
        sim.tell();
        while sim.deliver(1) {}
        assert_eq!((labels(&sim), rules(&sim)), (vec![4, 4], 4));
    }
}

/// A snapshot of the one network, whose rules ask, is taken while the other one waits for its own.
#[test]
fn a_snapshot_s_rules_wait_for_the_labels_of_the_other_snapshot() {
    for message_rows in [1, 2_000] {
        let mut sim = routed(Options {
            message_rows,
            snapshots_at_once: 1,
            queue_rows: 10,
            ..small_window()
        });
        connect_networks(&mut sim);
        sim.arrive();
        sim.disconnect(2);
        sim.disconnect(3);
        leave(&mut sim);
        // More than may wait, in both networks.
        burst(&mut sim, 0, 8);
        burst(&mut sim, 1, 8);
        ask(&mut sim);
        sim.tell();
        until_it_asks(&mut sim);
        assert_eq!(labels(&sim), [4, 4]);
        // A place that one keeps while it waits for the other is no reason to wait.
        assert_eq!(sim.now.since_start.as_secs(), 0);
        sim.arrive();
    }
}

/// The host was away when it began to ask, and comes back from where it was, or from nothing.
#[test]
fn who_comes_back_gets_labels_before_rules() {
    for knows in [true, false] {
        let mut sim = routed(small_window());
        connect_networks(&mut sim);
        sim.arrive();
        sim.disconnect(1);
        leave(&mut sim);
        ask(&mut sim);
        sim.tell();
        if !knows {
            // It takes no revision of before, so both networks get snapshots.
            sim.restart_ncm();
            sim.connect(2);
            sim.connect(3);
        }
        assert_eq!((labels(&sim), rules(&sim)), (vec![2, 2], 0));
        sim.connect(1);
        until_it_asks(&mut sim);
        assert_eq!(labels(&sim), [4, 4]);
        sim.arrive();
    }
}

/// Rules that are there reach another network when a router is connected to it.
#[test]
fn a_router_comes_after_the_labels_of_where_it_leads() {
    for network in [0, 1] {
        let mut sim = routed(small_window());
        // Only the port in the other network is under the group that asks.
        let changes = sim.world.port_under(network.into(), network, Some(1), 1, 2);
        sim.untold.extend(changes);
        ask(&mut sim);
        sim.arrive();
        leave(&mut sim);
        burst(&mut sim, network, 20);
        connect_networks(&mut sim);
        sim.tell();
        let leads = |sim: &Sim| {
            let keys = sim.agents[&1].rows.keys();
            keys.filter(|key| matches!(key, RowKey::Router(..))).count()
        };
        while leads(&sim) == 0 {
            assert!(sim.deliver(1));
        }
        assert_eq!(labels(&sim), [4, 4]);
        sim.arrive();
    }
}

/// Nobody is delayed by a network that no router leads to.
#[test]
fn rules_do_not_wait_for_networks_elsewhere() {
    let mut sim = routed(small_window());
    sim.arrive();
    burst(&mut sim, 1, 20);
    ask(&mut sim);
    sim.tell();
    let mut count = 0;
    while rules(&sim) == 0 {
        assert!(sim.deliver(1));
        count += 1;
    }
    assert!(count <= 4, "{count}");
    let asks = sim.agents[&1].rows.iter().find_map(|(key, (_, row))| {
        matches!(row, Some(Row::Policy(row)) if !row.egress.is_empty()).then(|| key.network_id())
    });
    assert_eq!(asks, Some(id(1000)));
    assert!(sim.ncm.networks[&id(1001)].looks(&name(1)));
    sim.take(Step::Tick);
    sim.arrive();
}

/// While the feed was lost, a neighbour left the group, a rule asked for it, and the network grew too large to be told of it all.
#[test]
fn what_was_told_before_the_network_was_learned_is_told_again_before_the_rule() {
    let port = |number, host, ip, groups| Step::Port {
        number,
        network: 0,
        host: Some(host),
        ip,
        groups,
    };
    run(
        learning(Options::default()),
        vec![
            port(0, 1, 2, 0),
            Step::MoveTunnel { host: 1 },
            port(4, 2, 1, 0),
            Step::Tell,
            Step::Connect { host: 2 },
            Step::Rule {
                group: 0,
                port: ASKING,
            },
            port(0, 1, 2, 1),
            port(2, 2, 1, 1),
            Step::Lag,
        ],
    );
}
