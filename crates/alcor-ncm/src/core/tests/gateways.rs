//! Gateways: who has which network, whom hosts are told to send to, and how soon not any more.

use std::collections::BTreeSet;

use alcor_dataplane::{Row, RowKey};
use alcor_model::GatewayNode;

use alcor_proto::v1;
use alcor_southbound::convert::encode_ip;

use super::{
    super::*,
    sim::{HOSTS, Sim},
    world::{GATEWAYS, id, name, tunnel_ip},
};

/// Every network with a neighbour is learned.
fn learned() -> Options {
    Options {
        eager_rows_max: 0,
        ..Options::default()
    }
}

/// The first gateways of a set of two, and the only one of the other.
const G: [u8; 3] = [GATEWAYS, GATEWAYS + 1, GATEWAYS + 2];

/// Ports in both networks on all hosts, and everybody there.
fn served(options: Options) -> Sim {
    let mut sim = Sim::with_gateways(options);
    for number in 0..6u8 {
        let change = sim
            .world
            .port(number.into(), number % 2, Some(number % HOSTS + 1), 1);
        sim.untold.push(change);
    }
    sim.settle();
    sim
}

/// The gateways in a host's row of a network.
fn ways(sim: &Sim, host: u8, network: u8) -> Vec<IpAddr> {
    let key = RowKey::Network(id(u128::from(network) + 1000));
    match sim.agents[&host].rows.get(&key) {
        Some((_, Some(Row::Network(row)))) => row.gateways.clone(),
        other => panic!("{other:?}"),
    }
}

/// The gateways that are to serve a learned network, as numbers.
fn members(sim: &Sim, network: u8) -> Vec<u8> {
    let set = sim
        .ncm
        .fleet
        .set_of_network(id(u128::from(network) + 1000))
        .unwrap()
        .to_owned();
    G.into_iter()
        .filter(|number| sim.agents[number].set == Some(&*set))
        .collect()
}

fn addresses(numbers: &[u8]) -> Vec<IpAddr> {
    numbers.iter().map(|number| tunnel_ip(*number)).collect()
}

#[test]
fn hosts_are_told_of_gateways_that_have_all_of_the_network() {
    let sim = served(learned());
    for network in 0..2 {
        let serving = members(&sim, network);
        for host in 1..=HOSTS {
            assert_eq!(
                ways(&sim, host, network),
                addresses(&serving),
                "h{host}, {network}"
            );
        }
        for gateway in G {
            let has = sim.agents[&gateway].has(&name(gateway), &sim.world);
            let has: BTreeSet<RowKey> = has.into_keys().collect();
            let mut expected = BTreeSet::new();
            if serving.contains(&gateway) {
                let network = id(u128::from(network) + 1000);
                expected = sim
                    .world
                    .expected_of_gateway(&BTreeSet::from([network]))
                    .into_keys()
                    .collect();
            }
            let here = |key: &&RowKey| key.network_id() == id(u128::from(network) + 1000);
            assert_eq!(
                has.iter().filter(here).copied().collect::<BTreeSet<_>>(),
                expected
            );
        }
    }
}

/// A network that the set of two serves.
fn served_by_two(sim: &Sim) -> u8 {
    let two = |network: &u8| members(sim, *network).len() == 2;
    (0..2)
        .find(two)
        .expect("the sets of the networks follow from their ids")
}

impl Sim {
    /// Hosts take what they are told; gateways take nothing and are not heard by it.
    fn tell_hosts(&mut self) {
        while (1..=HOSTS).any(|host| self.deliver(host)) {}
    }

    /// Time passes in which everybody but one gateway says that he is there.
    fn silent(&mut self, gateway: u8, time: Duration) {
        let until = self.now.since_start + time;
        while self.now.since_start < until {
            self.now.since_start += PULSE;
            for number in self.everybody().into_iter().filter(|number| *number != gateway) {
                self.beats(number, &[]);
            }
            self.step(Event::Pulse);
        }
    }
}

#[test]
fn a_silent_gateway_is_out_at_once_and_back_when_it_is_heard() {
    let mut sim = served(learned());
    let network = served_by_two(&sim);
    sim.silent(G[1], SILENCE_MAX - Duration::from_millis(200));
    sim.quiet();
    assert_eq!(ways(&sim, 1, network), addresses(&G[..2]));
    sim.silent(G[1], Duration::from_millis(300));
    sim.tell_hosts();
    for host in 1..=HOSTS {
        assert_eq!(ways(&sim, host, network), addresses(&G[..1]));
    }
    // It has had everything all the time.
    let work = {
        sim.beats(G[1], &[]);
        sim.step(Event::Pulse)
    };
    sim.quiet();
    assert_eq!(ways(&sim, 1, network), addresses(&G[..2]), "{work:?}");
}

/// The end of a session alone says nothing: the gateway starts again, and what is in its kernel forwards meanwhile.
#[test]
fn a_gateway_that_starts_again_in_time_is_never_out() {
    let mut sim = served(learned());
    let network = served_by_two(&sim);
    sim.disconnect(G[1]);
    sim.now.since_start += SILENCE_MAX / 2;
    let work = sim.step(Event::Pulse);
    assert_eq!((work.gateways_turned, work.deltas), (0, 0));
    // It has its rows, and does not know of which revision they are.
    let agent = sim.agents.get_mut(&G[1]).unwrap();
    agent.incarnation += 1;
    agent.held.clear();
    sim.connect(G[1]);
    for host in 1..=HOSTS {
        assert!(sim.agents[&host].inbox.is_empty());
    }
    sim.quiet();
    assert_eq!(ways(&sim, 1, network), addresses(&G[..2]));
    // One that has lost everything is out until it has it again.
    sim.disconnect(G[1]);
    let agent = sim.agents.get_mut(&G[1]).unwrap();
    agent.incarnation += 1;
    (agent.rows, agent.held) = Default::default();
    sim.connect(G[1]);
    while sim.deliver(1) {}
    assert_eq!(ways(&sim, 1, network), addresses(&G[..1]));
    sim.quiet();
    assert_eq!(ways(&sim, 1, network), addresses(&G[..2]));
}

/// An NCM that was busy has not heard anybody: what they said waits for it, and it looks again before it finds anybody silent.
#[test]
fn nobody_is_silent_because_the_ncm_was_busy() {
    let mut sim = served(learned());
    let network = served_by_two(&sim);
    sim.silent(99, PULSE);
    sim.now.since_start += SILENCE_MAX * 5;
    let work = sim.step(Event::Pulse);
    assert_eq!(work.gateways_turned, 0);
    // What one says is taken before what the others say.
    sim.beats(G[0], &[G[2]]);
    sim.beats(G[0], &[]);
    sim.beats(G[1], &[]);
    sim.now.since_start += PULSE;
    let work = sim.step(Event::Pulse);
    assert_eq!(work.gateways_turned, 1, "the one that has said nothing");
    // For hosts that filter, for those that do not, and for gateways.
    assert!(work.rows_encoded <= 3 && work.rows_sent > 3, "{work:?}");
    sim.tell_hosts();
    assert_eq!(ways(&sim, 1, network), addresses(&G[..2]));
}

/// A snapshot of a big network is made part by part, and what changes meanwhile follows it.
#[test]
fn a_big_network_is_told_part_by_part_while_it_changes() {
    let options = Options {
        message_rows: 10,
        window_deltas: 2,
        ..learned()
    };
    let mut sim = Sim::with_gateways(options);
    sim.watch = Some(super::watch::Watch::since(sim.now.since_start));
    for number in 0..200u8 {
        let change = sim.world.port(number.into(), 0, Some(number % HOSTS + 1), 1);
        sim.untold.push(change);
    }
    sim.tell();
    for host in 1..=HOSTS {
        sim.connect(host);
    }
    for gateway in G {
        sim.connect(gateway);
    }
    sim.tell();
    let gateway = members(&sim, 0)[0];
    let queued = |sim: &Sim| sim.ncm.host_state(&name(gateway)).unwrap().queued;
    let mut deliveries = 0;
    for number in (0..200u8).step_by(3) {
        let changes = usize::from(number) / 3;
        assert!(
            queued(&sim) <= changes + 2,
            "what has changed waits, a part, and the rest"
        );
        let host = (number + 1) % HOSTS + 1;
        let changes = match number % 2 {
            0 => vec![sim.world.port(number.into(), 0, Some(host), 2)],
            _ => sim.world.delete_port(number.into()),
        };
        sim.untold.extend(changes);
        let work = sim.tell();
        assert!(work.rows_looked_at <= 10, "{work:?}");
        if deliveries < 15 {
            deliveries += usize::from(sim.deliver(gateway));
        }
    }
    assert!(
        !sim.agents[&gateway].complete.contains(&id(1000)),
        "it is on its way"
    );
    sim.settle();
}

/// A gateway that is told to forget a network and gets it again has nothing until it has taken it again, whatever it still says
/// of what it had.
#[test]
fn what_is_to_be_forgotten_does_not_count() {
    let mut sim = served(Options::default());
    let change = sim.world.router_out(1, 0b01, true, true);
    sim.untold.extend(change);
    sim.settle();
    let out = |sim: &Sim| sim.ncm.routing.ways(id(30_001)).to_vec();
    let all = out(&sim);
    assert_eq!(all, addresses(&G[..2]));
    // A change that they have not taken, the word to forget, and the network again.
    let port = sim.world.port(0, 0, Some(2), 1);
    sim.untold.push(port);
    let change = sim.world.router_out(1, 0b01, true, false);
    sim.untold.extend(change);
    sim.tell();
    sim.silent(99, Duration::from_secs(11));
    let change = sim.world.router_out(1, 0b01, true, true);
    sim.untold.extend(change);
    sim.tell();
    let phase = |body: &v1::ncm_message::Body| match body {
        v1::ncm_message::Body::Delta(delta) => delta.snapshot(),
        other => panic!("{other:?}"),
    };
    let phases: Vec<_> = sim.agents[&G[0]].inbox.iter().map(phase).collect();
    let Some((before, last)) = phases.split_last_chunk::<2>() else {
        panic!("{phases:?}")
    };
    assert_eq!(*last, [v1::SnapshotPhase::Forget, v1::SnapshotPhase::Whole]);
    assert!(!before.is_empty() && before.iter().all(|phase| *phase == v1::SnapshotPhase::Delta));
    for _ in 0..before.len() + 1 {
        assert_eq!(out(&sim), [] as [IpAddr; 0]);
        sim.deliver(G[0]);
    }
    assert_eq!(out(&sim), [] as [IpAddr; 0]);
    sim.deliver(G[0]);
    assert_eq!(out(&sim), addresses(&G[..1]));
    sim.quiet();
    assert_eq!(out(&sim), all);
}

#[test]
fn fellows_vote_a_gateway_out() {
    let mut sim = Sim::with_gateways(learned());
    // A set of three.
    sim.agents.get_mut(&G[2]).unwrap().set = Some("a");
    for number in 0..6u8 {
        let change = sim
            .world
            .port(number.into(), number % 2, Some(number % HOSTS + 1), 1);
        sim.untold.push(change);
    }
    sim.settle();
    assert_eq!(ways(&sim, 1, 0), addresses(&G));
    sim.beats(G[0], &[G[2]]);
    sim.quiet();
    assert_eq!(
        ways(&sim, 1, 0),
        addresses(&G),
        "one of two is not more than half"
    );
    sim.beats(G[1], &[G[2], 99]);
    sim.quiet();
    assert_eq!(ways(&sim, 1, 0), addresses(&G[..2]));
    // What the excluded one says of the others does not count.
    sim.beats(G[2], &[G[0], G[2]]);
    sim.quiet();
    assert_eq!(ways(&sim, 1, 0), addresses(&G[..2]));
    sim.beats(G[1], &[]);
    sim.quiet();
    assert_eq!(ways(&sim, 1, 0), addresses(&G));
    // A voice that is silent has none.
    sim.beats(G[1], &[G[2]]);
    sim.beats(G[0], &[G[2]]);
    for _ in 0..8 {
        sim.now.since_start += PULSE;
        sim.beats(G[2], &[]);
        sim.step(Event::Pulse);
    }
    sim.tell_hosts();
    assert_eq!(ways(&sim, 1, 0), addresses(&G[2..]));
}

/// A path that is broken between gateways only takes no set away from hosts that reach all of it.
#[test]
fn votes_never_take_out_the_last() {
    let mut sim = served(learned());
    let network = served_by_two(&sim);
    sim.beats(G[0], &[G[1]]);
    sim.beats(G[1], &[G[0]]);
    sim.quiet();
    assert_eq!(
        ways(&sim, 1, network),
        addresses(&G[..1]),
        "two accuse each other"
    );
    // The one that stays is drained: the other one is used, whatever is said of it.
    let drained = sim.world.gateway(G[0], "a", true);
    sim.untold.push(drained);
    sim.quiet();
    assert_eq!(ways(&sim, 1, network), addresses(&G[1..2]));
}

/// A gateway that comes and goes is not in every row again and again, unless there is nobody else.
#[test]
fn who_falls_out_of_use_again_and_again_is_held_down() {
    let mut sim = served(learned());
    let network = served_by_two(&sim);
    let in_use = |sim: &Sim| sim.ncm.fleet.in_use(&name(G[1]));
    let mut turns = 0;
    for number in 0..40 {
        let was = in_use(&sim);
        let accused = &[G[1]][..usize::from(number % 2 == 0)];
        sim.beats(G[0], accused);
        turns += u32::from(was != in_use(&sim));
    }
    assert_eq!(turns, 3, "out, back at once, and out");
    let comes_back_after = |sim: &mut Sim| {
        let start = sim.now.since_start;
        while !in_use(sim) {
            sim.silent(99, PULSE);
        }
        sim.now.since_start - start
    };
    let about = |time: Duration| time..time + PULSE * 3;
    assert!(about(HOLD_DOWN_MIN).contains(&comes_back_after(&mut sim)));
    for doublings in 1..10 {
        sim.beats(G[0], &[G[1]]);
        assert!(!in_use(&sim));
        sim.beats(G[0], &[]);
        let expected = (HOLD_DOWN_MIN * (1 << doublings)).min(HOLD_DOWN_MAX);
        let after = comes_back_after(&mut sim);
        assert!(about(expected).contains(&after), "{after:?}, not {expected:?}");
    }
    // Nobody else is there.
    sim.beats(G[0], &[G[1]]);
    sim.beats(G[0], &[]);
    assert!(!in_use(&sim));
    sim.silent(G[0], SILENCE_MAX + PULSE);
    sim.tell_hosts();
    assert_eq!(ways(&sim, 1, network), addresses(&G[1..2]));
    // It has been well for long.
    sim.silent(99, HOLD_DOWN_MAX * 2);
    sim.beats(G[0], &[G[1]]);
    assert!(!in_use(&sim));
    sim.beats(G[0], &[]);
    assert!(in_use(&sim));
}

/// Rows name the address that the region has; a gateway that forwards at another one gets nothing there.
#[test]
fn a_gateway_is_used_at_its_registered_address_only() {
    let mut sim = served(learned());
    let network = served_by_two(&sim);
    sim.disconnect(G[1]);
    let agent = sim.agents.get_mut(&G[1]).unwrap();
    agent.incarnation += 1;
    agent.welcome(1_000, sim.now.since_start);
    let elsewhere = tunnel_ip(G[1] + 50);
    let hello = v1::Hello {
        tunnel_ip: encode_ip(elsewhere),
        ..agent.hello(G[1])
    };
    let session = 1_000;
    sim.step(Event::Hello { session, hello });
    // The region has not answered yet, or never will.
    let registered = std::mem::take(&mut sim.untold);
    assert_eq!(registered.len(), 1);
    sim.silent(99, PULSE * 3);
    sim.tell_hosts();
    assert_eq!(ways(&sim, 1, network), addresses(&G[..1]));
    let Change::Put(Resource::GatewayNode(row)) = &registered[0] else {
        panic!("{registered:?}")
    };
    let mut row = GatewayNode::clone(row);
    row.tunnel_ip = elsewhere;
    sim.untold.push(Change::Put(Resource::GatewayNode(Arc::new(row))));
    sim.quiet();
    assert_eq!(ways(&sim, 1, network), [tunnel_ip(G[0]), elsewhere]);
}

/// A gateway that refused a row is sent the network again, and again, until it takes all of it.
#[test]
fn a_gateway_that_refused_a_row_is_back_without_a_new_session() {
    let mut sim = served(learned());
    let network = served_by_two(&sim);
    let change = sim.world.port(30, network, Some(1), 1);
    sim.untold.push(change);
    sim.tell();
    assert!(sim.deliver_and_refuse(G[1], vec![0]));
    sim.quiet();
    assert_eq!(ways(&sim, 1, network), addresses(&G[..1]));
    // It refuses it once more.
    sim.silent(99, MEND_MIN);
    sim.step(Event::Tick);
    sim.step(Event::Tick);
    assert!(sim.deliver_and_refuse(G[1], vec![0]));
    sim.quiet();
    assert_eq!(ways(&sim, 1, network), addresses(&G[..1]));
    sim.silent(99, MEND_MIN);
    sim.quiet();
    assert_eq!(
        ways(&sim, 1, network),
        addresses(&G[..1]),
        "the pause is longer now"
    );
    sim.silent(99, MEND_MIN * 2);
    sim.quiet();
    assert_eq!(ways(&sim, 1, network), addresses(&G[..2]));
    sim.silent(99, MEND_MAX);
    assert_eq!(sim.step(Event::Tick).resyncs, 0);
}

#[test]
fn a_gateway_that_is_drained_keeps_its_rows_and_is_in_none() {
    let mut sim = served(learned());
    let network = served_by_two(&sim);
    let drained = sim.world.gateway(G[0], "a", true);
    sim.untold.push(drained);
    sim.quiet();
    assert_eq!(ways(&sim, 1, network), addresses(&G[1..2]));
    let port = sim.world.port(20, network, Some(2), 1);
    sim.untold.push(port);
    sim.quiet();
    let key = RowKey::Neighbour(id(u128::from(network) + 1000), [10, network, 20, 1].into());
    assert!(matches!(sim.agents[&G[0]].rows.get(&key), Some((_, Some(_)))));
    let used = sim.world.gateway(G[0], "a", false);
    sim.untold.push(used);
    sim.quiet();
    assert_eq!(ways(&sim, 1, network), addresses(&G[..2]));
}

#[test]
fn known_gateways_are_in_use_for_a_while_after_the_ncm_has_started_again() {
    let mut sim = served(learned());
    let network = served_by_two(&sim);
    sim.restart_ncm();
    for host in 1..=HOSTS {
        sim.connect(host);
    }
    sim.connect(G[0]);
    // A load takes long; nobody is heard meanwhile.
    sim.now.since_start += GRACE * 2;
    sim.silent(G[1], GRACE - PULSE * 2);
    sim.quiet();
    assert_eq!(ways(&sim, 1, network), addresses(&G[..2]));
    sim.silent(G[1], PULSE * 4);
    sim.tell_hosts();
    assert_eq!(ways(&sim, 1, network), addresses(&G[..1]));
    sim.connect(G[1]);
    sim.quiet();
    assert_eq!(ways(&sim, 1, network), addresses(&G[..2]));
}

#[test]
fn a_name_and_an_address_are_those_of_one() {
    let mut sim = served(learned());
    let refused = |sim: &mut Sim, hello: v1::Hello| {
        let (actions, _) = sim.ncm.step(sim.now, Event::Hello { session: 99, hello });
        matches!(actions[..], [Action::Close { session: 99, .. }])
    };
    let host = sim.agents[&1].hello(1);
    let gateway = sim.agents[&G[0]].hello(G[0]);
    assert!(
        refused(
            &mut sim,
            v1::Hello {
                gateway: true,
                ..host.clone()
            }
        ),
        "a host's name"
    );
    assert!(
        refused(
            &mut sim,
            v1::Hello {
                gateway: false,
                ..gateway.clone()
            }
        ),
        "a gateway's name"
    );
    let (of_host, of_gateway) = (host.tunnel_ip.clone(), gateway.tunnel_ip.clone());
    assert!(refused(
        &mut sim,
        v1::Hello {
            tunnel_ip: of_gateway.clone(),
            ..host
        }
    ));
    assert!(refused(
        &mut sim,
        v1::Hello {
            tunnel_ip: of_host,
            ..gateway.clone()
        }
    ));
    let other = sim.agents[&G[1]].hello(G[1]);
    assert!(refused(
        &mut sim,
        v1::Hello {
            tunnel_ip: of_gateway,
            ..other
        }
    ));
    assert!(refused(
        &mut sim,
        v1::Hello {
            gateway_set: "a\nb".into(),
            ..gateway
        }
    ));
}

/// A gateway that the region has not registered is asked for again and again, and is told nothing.
#[test]
fn the_region_is_asked_again_to_register_a_gateway() {
    let mut ncm = Ncm::new(learned());
    let hello = v1::Hello {
        host: "g".into(),
        tunnel_ip: encode_ip(tunnel_ip(1)),
        gateway: true,
        ..v1::Hello::default()
    };
    let asks = |actions: &[Action]| {
        let mut actions = actions.iter();
        actions.any(|action| matches!(action, Action::RegisterGateway { set, .. } if set == "default"))
    };
    let mut now = Now::default();
    assert!(asks(&ncm.step(now, Event::Hello { session: 1, hello }).0));
    let mut asked = 0;
    for _ in 0..40 {
        now.since_start += Duration::from_millis(250);
        let body = v1::agent_message::Body::Heartbeat(v1::Heartbeat::default());
        ncm.step(now, Event::Message { session: 1, body });
        asked += usize::from(asks(&ncm.step(now, Event::Tick).0));
    }
    assert_eq!(asked, 2, "every five seconds");
}

/// A router's way out: both networks have the gateways of its set, the rows of the router say which, and its floating IPs go to
/// them only.
#[test]
fn floating_ips_and_ways_out_are_for_the_gateways_of_one_set() {
    let mut sim = served(Options::default());
    for gateway in G {
        assert!(
            sim.agents[&gateway].rows.is_empty(),
            "nothing is learned, nothing leads out"
        );
    }
    let change = sim.world.router_out(1, 0b11, true, true);
    sim.untold.extend(change);
    sim.quiet();
    let set = sim.ncm.fleet.set_of_router(id(30_001)).unwrap().to_owned();
    let serving: Vec<u8> = G
        .into_iter()
        .filter(|g| sim.agents[g].set == Some(&*set))
        .collect();
    let external = |sim: &Sim, number: u8, network: u128| {
        let row = sim.agents[&number]
            .rows
            .get(&RowKey::Router(id(network + 1000), id(30_001)));
        match row {
            Some((_, Some(Row::Router(row)))) => row.external.clone(),
            _ => None,
        }
    };
    let everybody: Vec<u8> = (1..=HOSTS).chain(serving.iter().copied()).collect();
    for number in &everybody {
        for network in 0..2 {
            let external = external(&sim, *number, network).unwrap();
            assert_eq!(external.gateways, addresses(&serving), "{}", name(*number));
            assert!(external.enable_snat);
        }
        assert!(ways(&sim, *number, 0).is_empty(), "the networks are eager");
    }
    // Associated, moved to a port elsewhere, and gone.
    let count = serving.len() as u64;
    for (port, rows) in [(Some(0), 1), (Some(1), 2), (None, 1)] {
        let change = sim.world.floating_ip(1, 1, port);
        sim.untold.push(change);
        let work = sim.tell();
        assert_eq!(
            (work.hosts_touched, work.rows_sent),
            (count, count * rows),
            "{work:?}"
        );
        assert_eq!((work.resyncs, work.rows_looked_at), (0, 0));
        sim.arrive();
    }
    // The router's address.
    let Change::Put(Resource::Port(port)) = sim.world.port(32_001 - 5_000, 0, None, 7) else {
        unreachable!()
    };
    sim.world.ports.remove(&port.id);
    let mut port = Port::clone(&port);
    port.network_id = id(2000);
    port.fixed_ips[0].ip_address = [203, 0, 113, 9].into();
    sim.untold.push(Change::Put(Resource::Port(Arc::new(port))));
    sim.quiet();
    for number in everybody {
        let external = external(&sim, number, 1).unwrap();
        assert_eq!(external.address, Some([203, 0, 113, 9].into()));
    }
    // No way out: nobody has anything to do with it any more.
    let change = sim.world.router_out(1, 0b11, true, false);
    sim.untold.extend(change);
    sim.settle();
    assert_eq!(external(&sim, 1, 0), None);
    for gateway in G {
        assert!(sim.agents[&gateway].rows.is_empty());
    }
}

/// A port that comes or moves costs each gateway of its network a row, whatever there is besides.
#[test]
fn a_port_costs_each_gateway_a_row() {
    let mut sim = served(learned());
    let network = served_by_two(&sim);
    let change = sim.world.port(30, network, Some(1), 1);
    sim.untold.push(change);
    let work = sim.tell();
    assert_eq!(
        (work.hosts_touched, work.rows_sent, work.resyncs),
        (3, 3, 0),
        "its host, two gateways"
    );
    sim.arrive();
    let change = sim.world.port_under(30, network, Some(1), 1, 1);
    sim.untold.extend(change);
    sim.tell();
    for gateway in G {
        assert!(
            sim.agents[&gateway].inbox.is_empty(),
            "labels are nothing to gateways"
        );
    }
}

/// Who comes back is told what it missed, also of a network on demand, and which gateways there are now.
#[test]
fn a_gateway_and_a_host_go_on_where_they_were() {
    let mut sim = served(learned());
    let network = served_by_two(&sim);
    sim.disconnect(G[1]);
    sim.disconnect(1);
    let gone = sim.world.delete_port(u128::from(network));
    sim.untold.extend(gone);
    let moved = sim.world.port(u128::from(network) + 2, network, Some(1), 1);
    sim.untold.push(moved);
    sim.tell();
    sim.silent(G[1], SILENCE_MAX * 2);
    let session = sim.next_session;
    sim.connect(G[1]);
    assert!(sim.agents[&G[1]].session == Some(session));
    let deltas = sim.agents[&G[1]].inbox.iter();
    let rows: usize = deltas
        .map(|body| match body {
            v1::ncm_message::Body::Delta(delta) => {
                assert_eq!(delta.snapshot(), v1::SnapshotPhase::Delta);
                delta.rows.len()
            }
            other => panic!("{other:?}"),
        })
        .sum();
    assert_eq!(
        rows, 4,
        "a port that is gone, another one, and the network: a host has left it, and this gateway is back"
    );
    // The region has not changed since the host's last revision, but the gateways have.
    sim.quiet();
    sim.silent(G[0], SILENCE_MAX * 2);
    sim.connect(1);
    sim.tell_hosts();
    assert_eq!(ways(&sim, 1, network), addresses(&G[1..2]));
}

/// A set that comes takes networks over; until its gateway has all of them, and a while longer, those who had them keep them.
#[test]
fn networks_move_to_a_new_set_without_a_gap() {
    let mut sim = Sim::with_gateways(learned());
    let newcomer = sim.agents.remove(&G[2]).unwrap();
    for number in 0..6u8 {
        let change = sim
            .world
            .port(number.into(), number % 2, Some(number % HOSTS + 1), 1);
        sim.untold.push(change);
    }
    sim.settle();
    assert_eq!(
        (ways(&sim, 1, 0), ways(&sim, 1, 1)),
        (addresses(&G[..2]), addresses(&G[..2]))
    );
    sim.agents.insert(G[2], newcomer);
    sim.connect(G[2]);
    sim.tell();
    let moved = (0..2).find(|network| members(&sim, *network) == G[2..]).unwrap();
    while sim.deliver(1) {}
    assert_eq!(ways(&sim, 1, moved), addresses(&G[..2]), "it has nothing yet");
    while sim.deliver(G[2]) {}
    sim.quiet();
    assert_eq!(ways(&sim, 1, moved), addresses(&G[2..]));
    assert_eq!(
        ways(&sim, 1, 1 - moved),
        addresses(&G[..2]),
        "what does not move stays"
    );
    // What is still sent to them they forward, as it is now.
    let port = sim.world.port(40, moved, Some(3), 1);
    sim.untold.push(port);
    sim.quiet();
    let key = RowKey::Neighbour(id(u128::from(moved) + 1000), [10, moved, 40, 1].into());
    let has = |sim: &Sim, number: u8| matches!(sim.agents[&number].rows.get(&key), Some((_, Some(_))));
    assert!(G.iter().all(|gateway| has(&sim, *gateway)));
    sim.pass(Duration::from_secs(20));
    sim.quiet();
    assert!(!has(&sim, G[0]) && !has(&sim, G[1]) && has(&sim, G[2]));
    // Without its only member the set is none.
    let gone = sim.world.delete_gateway(G[2]);
    sim.untold.extend(gone);
    sim.settle();
    assert_eq!(
        ways(&sim, 1, moved),
        addresses(&G[2..]),
        "it has said hello again"
    );
}

/// A host that is deleted takes its neighbours along, also from those who are away.
#[test]
fn who_was_away_forgets_the_neighbours_on_a_host_that_is_gone() {
    for options in [Options::default(), learned()] {
        let mut sim = served(options);
        let change = sim.world.router_out(1, 0b11, true, true);
        sim.untold.extend(change);
        sim.settle();
        let away = [1, G[0]];
        away.iter().for_each(|number| sim.disconnect(*number));
        sim.disconnect(2);
        let host = sim.world.hosts.remove(&name(2)).unwrap();
        sim.world.revision = sim.world.revision.next();
        sim.untold.push(Change::Delete {
            key: ResourceKey::Host(host.name.clone()),
            revision: sim.world.revision,
        });
        sim.quiet();
        away.iter().for_each(|number| sim.connect(*number));
        sim.quiet();
        for number in away {
            let there = sim.agents[&number]
                .rows
                .values()
                .filter_map(|(_, row)| match row {
                    Some(Row::Neighbour(row)) => Some(row.host),
                    _ => None,
                });
            assert!(
                !there.collect::<Vec<_>>().contains(&host.tunnel_ip),
                "{}",
                name(number)
            );
        }
    }
}

#[test]
fn operators_are_told_whether_a_gateway_is_in_use_and_why_not() {
    let mut sim = served(learned());
    let network = served_by_two(&sim);
    let state = |sim: &Sim| sim.ncm.host_state(&name(G[0])).unwrap();
    let said = state(&sim);
    assert!(said.summary.alive);
    assert_eq!(
        (said.summary.pending, said.summary.errors, said.queued),
        (0, 0, 0)
    );
    assert_eq!(said.summary.tunnel_ip, Some(tunnel_ip(G[0])));
    let usage = said.gateway.unwrap();
    assert_eq!((usage.in_use, usage.reason, usage.complete), (true, None, 1));
    let [neighbours] = &said.neighbours[..] else {
        panic!("{:?}", said.neighbours)
    };
    assert_eq!(neighbours.network_id, id(u128::from(network) + 1000));
    assert_eq!(neighbours.intended, 3);
    assert!(neighbours.applied_revision >= Some(neighbours.intended_revision));
    let names = sim.ncm.host_summaries().into_iter().map(|host| host.name);
    assert_eq!(
        names.collect::<Vec<_>>(),
        ["h1", "h2", "h3"],
        "gateways are no hosts"
    );
    let depths = sim.ncm.depths();
    assert_eq!((depths.hosts, depths.sessions), (3, 3));
    assert_eq!((depths.gateways, depths.gateways_in_use), (3, 3));

    let port = sim.world.port(40, network, Some(3), 1);
    sim.untold.push(port);
    sim.tell();
    assert_eq!(
        state(&sim).summary.pending,
        1,
        "its neighbours are not all in force"
    );
    sim.beats(G[0], &[G[1]]);
    assert_eq!(state(&sim).gateway.unwrap().unreachable, addresses(&G[1..2]));
    sim.silent(G[0], SILENCE_MAX * 2);
    let said = state(&sim);
    assert!(!said.summary.alive);
    let usage = said.gateway.unwrap();
    assert_eq!(
        (usage.in_use, usage.reason.as_deref()),
        (false, Some("it is silent"))
    );
}
