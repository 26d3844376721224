//! Floating IPs that hosts answer for.

use alcor_dataplane::{Row, RowKey};
use alcor_model::FloatingIp;
use alcor_proto::v1;
use alcor_southbound::convert::encode_id;

use super::{
    super::*,
    say,
    sim::{HOSTS, Sim},
    world::{GATEWAYS, World, id, name, outside, tunnel_ip},
};

/// Gateways, hosts 1 and 2 with the external network and 3 without; floating IP 1 leads through a router to port 0, which is on host 1,
/// and another port is on each host.
fn sim() -> Sim {
    let mut sim = Sim::with_gateways(Options::default());
    sim.watch = Some(super::watch::Watch::since(sim.now.since_start));
    for host in 1..=2 {
        sim.agents.get_mut(&host).unwrap().outside = true;
    }
    let out = sim.world.router_out(1, 0b11, true, true);
    sim.untold.extend(out);
    for (number, host) in [(0, 1), (10, 1), (12, 2), (14, 3)] {
        let change = sim.world.port(number, 0, Some(host), 1);
        sim.untold.push(change);
    }
    let change = sim.world.floating_ip(1, 1, Some(0));
    sim.untold.push(change);
    sim.arrive();
    sim
}

fn key() -> RowKey {
    RowKey::FloatingIp(id(1000), id(50_001))
}

/// Who answers, as an agent was told; none when it was told of no such floating IP.
fn told(sim: &Sim, number: u8) -> Option<Option<IpAddr>> {
    match sim.agents[&number].rows.get(&key()) {
        Some((_, Some(Row::FloatingIp(row)))) => Some(row.host),
        _ => None,
    }
}

/// The gateways that have the network.
fn serving(sim: &Sim) -> Vec<u8> {
    let names = sim.ncm.networks[&id(1000)].service.names();
    let gateways = sim.agents.range(GATEWAYS..).map(|(number, _)| *number);
    gateways.filter(|number| names.contains(&name(*number))).collect()
}

/// Everybody's word is that this host answers, or that gateways do.
fn assert_answered_by(sim: &Sim, host: Option<u8>) {
    for number in 1..=HOSTS {
        let expected = (Some(number) == host).then(|| Some(tunnel_ip(number)));
        assert_eq!(told(sim, number), expected, "{}", name(number));
    }
    let gateways = serving(sim);
    assert!(!gateways.is_empty());
    for number in gateways {
        assert_eq!(told(sim, number), Some(host.map(tunnel_ip)), "{}", name(number));
    }
}

/// Port 0 goes to a host.
fn moves_to(sim: &mut Sim, host: u8) -> Work {
    let change = sim.world.port(0, 0, Some(host), 1);
    sim.untold.push(change);
    sim.tell()
}

#[test]
fn the_host_of_the_port_answers_where_it_has_the_network() {
    let mut sim = sim();
    assert_answered_by(&sim, Some(1));
    for (host, answers) in [(2, Some(2)), (3, None), (1, Some(1))] {
        moves_to(&mut sim, host);
        sim.arrive();
        assert_answered_by(&sim, answers);
    }
    let Some((_, Some(Row::FloatingIp(row)))) = sim.agents[&1].rows.get(&key()) else {
        panic!("it has the row");
    };
    assert_eq!(row.cidr, Some("203.0.113.0/24".parse().unwrap()));
    assert_eq!(row.nexthop, Some([203, 0, 113, 1].into()));
    // Without a subnet it cannot know what is beside it.
    let change = sim.world.outside(None);
    sim.untold.push(change);
    sim.arrive();
    assert_answered_by(&sim, None);
}

/// The change of a floating IP is told to its host and to the gateways, and to nobody else.
#[test]
fn a_floating_ip_costs_its_host_and_the_gateways_a_row() {
    let mut sim = sim();
    let gateways = serving(&sim).len() as u64;
    // Gone, associated anew, and with another address inside.
    for port in [None, Some(0), Some(10)] {
        let before = sim.world.floating_ips[&id(50_001)].association.is_some();
        let change = sim.world.floating_ip(1, 1, port);
        sim.untold.push(change);
        let work = sim.tell();
        let rows = (before && port.is_none()) || port.is_some();
        assert_eq!(
            (
                work.hosts_touched,
                work.rows_sent,
                work.resyncs,
                work.rows_looked_at
            ),
            (gateways + 1, gateways + u64::from(rows), 0, 0),
            "{work:?}"
        );
        sim.arrive();
    }
    // One that leads to a port elsewhere costs hosts nothing.
    let change = sim.world.floating_ip(2, 1, Some(14));
    sim.untold.push(change);
    let work = sim.tell();
    assert_eq!(
        (work.hosts_touched, work.rows_sent),
        (gateways, gateways),
        "{work:?}"
    );
    // The outside's gateway is another one.
    let change = sim.world.outside(Some(2));
    sim.untold.push(change);
    let work = sim.tell();
    assert_eq!(
        (work.hosts_touched, work.rows_sent),
        (gateways + 1, gateways * 2 + 1)
    );
    sim.arrive();
}

/// The host that is to answer is told before the one that is to do so no more, and gateways last.
#[test]
fn who_answers_next_is_told_first() {
    let mut sim = sim();
    for (host, old) in [(2, 1), (1, 2)] {
        let change = sim.world.port(0, 0, Some(host), 1);
        let event = Event::Changes {
            changes: vec![change],
            committed_us: 1,
        };
        let actions = sim.ncm.step(sim.now, event).0;
        let told = actions.iter().filter_map(|action| match action {
            Action::Send { session, .. } => {
                let agent = sim
                    .agents
                    .iter()
                    .find(|(_, agent)| agent.session == Some(*session));
                agent.map(|(number, _)| *number)
            }
            _ => None,
        });
        let told: Vec<u8> = told.collect();
        let at = |number| told.iter().position(|told| *told == number).unwrap();
        assert!(at(host) < at(old), "{told:?}");
        for gateway in serving(&sim) {
            assert!(at(old) < at(gateway), "{told:?}");
        }
        sim.untold.clear();
        sim.restart_ncm();
        sim.arrive();
    }
}

/// What a host said of its networks is a row of the region: it counts while the host is away, and after the NCM was started again.
#[test]
fn who_answers_stays_while_anybody_is_away() {
    let mut sim = sim();
    sim.disconnect(1);
    sim.quiet();
    let gateway = serving(&sim)[0];
    assert_eq!(told(&sim, gateway), Some(Some(tunnel_ip(1))));
    sim.restart_ncm();
    sim.connect(gateway);
    sim.quiet();
    assert_eq!(
        told(&sim, gateway),
        Some(Some(tunnel_ip(1))),
        "before the host said hello"
    );
    let state = sim.ncm.host_state("h1").unwrap();
    assert!(state.resources.iter().any(|row| row.kind == "floating_ip"));
    sim.arrive();
    assert_answered_by(&sim, Some(1));
    let state = sim.ncm.host_state("h1").unwrap();
    let row = state
        .resources
        .iter()
        .find(|row| row.kind == "floating_ip")
        .unwrap();
    assert_eq!(row.applied_revision, Some(row.intended_revision));
}

/// An operator takes the device away, or gives one: the agent's next hello says so.
#[test]
fn a_host_that_has_the_network_no_more_gives_its_floating_ips_up() {
    let mut sim = sim();
    for (outside, answers) in [(false, None), (true, Some(1))] {
        sim.disconnect(1);
        let agent = sim.agents.get_mut(&1).unwrap();
        (agent.incarnation, agent.outside) = (agent.incarnation + 1, outside);
        sim.arrive();
        assert_answered_by(&sim, answers);
    }
    // The host is deleted while it lives, and registers anew.
    sim.world.hosts.remove("h1");
    sim.world.revision = sim.world.revision.next();
    sim.untold.push(Change::Delete {
        key: ResourceKey::Host("h1".into()),
        revision: sim.world.revision,
    });
    sim.tell();
    for gateway in serving(&sim) {
        while sim.deliver(gateway) {}
        assert_eq!(told(&sim, gateway), Some(None));
    }
    sim.arrive();
    assert_answered_by(&sim, Some(1));
}

/// A host that a port has left keeps the network for a while to pass on what comes for the port. When it has missed something, it
/// must not go on answering for a floating IP.
#[test]
fn a_host_that_was_away_when_its_port_left_answers_no_more() {
    let mut sim = sim();
    let change = sim.world.delete_port(10);
    sim.untold.extend(change);
    sim.arrive();
    sim.disconnect(1);
    let change = sim.world.floating_ip(1, 1, None);
    sim.untold.push(change);
    moves_to(&mut sim, 2);
    assert!(told(&sim, 1).is_some(), "it is away");
    sim.arrive();
    assert_eq!(told(&sim, 1), None);
}

/// A host that goes on where it was is told to forget what it answers for no more.
#[test]
fn a_host_that_comes_back_is_told_what_it_answers_for_no_more() {
    let mut sim = sim();
    sim.disconnect(1);
    let change = sim.world.floating_ip(1, 1, None);
    sim.untold.push(change);
    sim.tell();
    sim.connect(1);
    let resyncs = sim.ncm.host_state("h1").unwrap().resyncs;
    sim.quiet();
    assert_eq!(told(&sim, 1), None);
    assert_eq!(
        sim.ncm.host_state("h1").unwrap().resyncs,
        resyncs,
        "from where it was"
    );
    let change = sim.world.floating_ip(1, 1, Some(0));
    sim.untold.push(change);
    sim.arrive();
    assert_answered_by(&sim, Some(1));
}

/// The region is told that a floating IP is in force when who translates it has said so, and not before.
#[test]
fn a_floating_ip_is_in_force_when_who_translates_it_has_said_so() {
    let mut sim = sim();
    let in_force = |sim: &Sim| sim.world.floating_ips[&id(50_001)].in_force;
    assert!(in_force(&sim));
    let ticks = |sim: &mut Sim| {
        for _ in 0..3 {
            sim.step(Event::Tick);
            sim.tell();
        }
    };
    // On its way to another host that takes nothing, and taken there.
    moves_to(&mut sim, 2);
    ticks(&mut sim);
    assert!(!in_force(&sim));
    while sim.deliver(2) {}
    ticks(&mut sim);
    assert!(in_force(&sim));
    // Refused.
    sim.arrive();
    let change = sim.world.outside(Some(3));
    sim.untold.push(change);
    sim.tell();
    sim.deliver_and_refuse(2, vec![0]);
    ticks(&mut sim);
    assert!(!in_force(&sim));
    // With gateways: all that may translate it have it.
    moves_to(&mut sim, 3);
    let gateways = serving(&sim);
    for gateway in &gateways {
        ticks(&mut sim);
        assert!(!in_force(&sim), "{} has it not", name(*gateway));
        while sim.deliver(*gateway) {}
    }
    ticks(&mut sim);
    assert!(in_force(&sim));
    // Nobody is there who says so, and an NCM that starts does not say otherwise.
    sim.arrive();
    sim.restart_ncm();
    let work = sim.step(Event::Tick);
    assert!(sim.untold.is_empty(), "{work:?}");
    assert!(in_force(&sim));
    sim.arrive();
    assert!(in_force(&sim));
    // It leads nowhere.
    let change = sim.world.floating_ip(1, 1, None);
    sim.untold.push(change);
    sim.arrive();
    assert!(!in_force(&sim));
}

/// The region may refuse a word for ever; those about other floating IPs come to it all the same.
#[test]
fn words_that_the_region_does_not_take_hold_up_no_others() {
    let (mut ncm, mut world) = (Ncm::new(Options::default()), World::default());
    let rows = in_force::WORDS_AT_ONCE + 10;
    let changes = (0..rows).map(|number| {
        let Change::Put(Resource::FloatingIp(row)) = world.floating_ip(1, 1, None) else {
            unreachable!("it makes a floating IP")
        };
        let row = FloatingIp {
            id: id(50_000 + number as u128),
            in_force: true,
            ..FloatingIp::clone(&row)
        };
        Change::Put(Resource::FloatingIp(Arc::new(row)))
    });
    let now = Now {
        since_start: Duration::ZERO,
        unix_us: 1,
    };
    let changes = changes.collect();
    ncm.step(
        now,
        Event::Changes {
            changes,
            committed_us: 1,
        },
    );
    let mut told = BTreeSet::new();
    for _ in 0..2 {
        for action in ncm.step(now, Event::Tick).0 {
            if let Action::NoteFloatingIps(words) = action {
                told.extend(words.into_iter().map(|word| word.id));
            }
        }
    }
    assert_eq!(told.len(), rows);
    // And what was told is told again.
    let (actions, _) = ncm.step(now, Event::Tick);
    assert!(
        actions
            .iter()
            .any(|action| matches!(action, Action::NoteFloatingIps(_)))
    );
}

#[test]
fn a_hello_names_external_networks_within_bounds() {
    let mut ncm = Ncm::new(Options::default());
    let hello = |external_networks| v1::Hello {
        host: "h1".into(),
        incarnation: 1,
        tunnel_ip: alcor_southbound::convert::encode_ip(tunnel_ip(1)),
        external_networks,
        ..v1::Hello::default()
    };
    let mut said = |session, external_networks| {
        let hello = hello(external_networks);
        ncm.step(Now::default(), Event::Hello { session, hello }).0
    };
    let ids = |count: u128| {
        (0..count)
            .map(|number| encode_id(id::<Network>(number)))
            .collect::<Vec<_>>()
    };
    assert!(matches!(&said(1, ids(65))[..], [Action::Close { .. }]));
    assert!(matches!(
        &said(2, vec![vec![1, 2, 3].into()])[..],
        [Action::Close { .. }]
    ));
    let actions = said(3, ids(64));
    let registers = |action: &Action| match action {
        Action::RegisterHost { word, .. } => word.external_networks.len() == 64,
        _ => false,
    };
    assert!(actions.iter().any(registers), "{actions:?}");
    // As a region keeps it, nothing is to be registered.
    let mut world = World::default();
    let word = alcor_model::resource::HostWord {
        external_networks: [outside()].into(),
        ..alcor_model::resource::HostWord::new(tunnel_ip(1), "nova")
    };
    let change = world.register(1, word);
    let event = Event::Changes {
        changes: vec![change],
        committed_us: 1,
    };
    ncm.step(Now::default(), event);
    let registers = |actions: &[Action]| {
        actions
            .iter()
            .any(|action| matches!(action, Action::RegisterHost { .. }))
    };
    let hello = hello(vec![encode_id(outside())]);
    assert!(!registers(
        &ncm.step(Now::default(), Event::Hello { session: 4, hello }).0
    ));
    assert!(
        registers(&say(&mut ncm, 5, (2, 1), tunnel_ip(1))),
        "it has none any more"
    );
}
