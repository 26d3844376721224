//! Who is not of the region: what is left of him, how many there may be, and what a deleted host still counts for.

use super::*;
use crate::core::strangers::{STRANGER_KEPT, STRANGERS_MAX};

fn hello(name: &str, session: SessionId, held: Vec<v1::Held>) -> Event {
    let hello = v1::Hello {
        host: name.to_owned(),
        incarnation: 1,
        tunnel_ip: encode_ip(tunnel_ip(9)),
        held,
        ..v1::Hello::default()
    };
    Event::Hello { session, hello }
}

fn at(seconds: u64) -> Now {
    Now {
        since_start: Duration::from_secs(seconds),
        unix_us: 1_000_000 * (1 + seconds),
    }
}

/// Somebody says hello and goes at once; gives whether he was let in.
fn visit(ncm: &mut Ncm, now: Now, name: &str, session: SessionId) -> bool {
    let (actions, _) = ncm.step(now, hello(name, session, Vec::new()));
    let refused = actions
        .iter()
        .any(|action| matches!(action, Action::Close { .. }));
    ncm.step(now, Event::Closed { session });
    !refused
}

#[test]
fn who_says_hello_and_goes_leaves_nothing() {
    let mut ncm = Ncm::new(Options::default());
    let mut session = 0;
    for round in 0..4u64 {
        let begin = at(round * (STRANGER_KEPT.as_secs() + 1));
        for host in 0..2_000 {
            session += 1;
            assert!(visit(
                &mut ncm,
                begin,
                &format!("round{round}host{host}"),
                session
            ));
        }
        assert_eq!(ncm.host_summaries().len(), 2_000);
        ncm.step(at((round + 1) * (STRANGER_KEPT.as_secs() + 1)), Event::Tick);
        assert_eq!(ncm.known_names(), BTreeSet::new());
    }
    // Numbers of hosts are used again, too: all but those that have not rested yet.
    assert!(ncm.directory.numbers() < 4_000, "{}", ncm.directory.numbers());
}

#[test]
fn strangers_are_bounded_and_keep_nobody_out_whom_the_region_knows() {
    let mut ncm = Ncm::new(Options::default());
    let mut world = World::default();
    let registered = world.host(1, false);
    ncm.step(
        at(0),
        Event::Changes {
            changes: vec![registered],
            committed_us: 1,
        },
    );
    for host in 0..STRANGERS_MAX as u64 {
        assert!(visit(&mut ncm, at(0), &format!("s{host}"), host + 1));
    }
    let next = STRANGERS_MAX as u64 + 1;
    assert!(!visit(&mut ncm, at(1), "one-more", next), "there is no room");
    assert!(visit(&mut ncm, at(1), "s7", next + 1), "who is known comes back");
    assert!(
        visit(&mut ncm, at(1), "h1", next + 2),
        "who is registered comes in"
    );
    ncm.step(at(STRANGER_KEPT.as_secs()), Event::Tick);
    assert!(visit(&mut ncm, at(STRANGER_KEPT.as_secs()), "one-more", next + 3));
}

#[test]
fn a_number_of_a_forgotten_host_is_somebody_elses_only_when_nobody_can_have_read_it() {
    let (directory, mut writer) = Directory::new(Limits::default());
    let old = writer.host("old");
    writer.open(old, 1);
    let asker = directory.asker("old", 1).unwrap();
    writer.set_tunnel(old, Some((tunnel_ip(1), Revision(1))));
    writer.forget_host("old");
    assert_eq!((writer.known("old"), writer.name(old)), (None, None));
    assert_ne!(writer.host("new"), old);
    let mut reused = 0;
    for host in 0..3_000 {
        let name = format!("h{host}");
        reused += usize::from(writer.host(&name) == old);
        writer.forget_host(&name);
    }
    assert!(reused > 0 && writer.numbers() < 1_100, "{}", writer.numbers());
    // Whoever was old asks nothing any more, whosever number it is now.
    let question = alcor_southbound::convert::resolve::Question {
        network: id(1000),
        ip: tunnel_ip(1),
        port: None,
    };
    let (_, asked) = directory.resolve(Duration::ZERO, &asker, &[question]);
    assert_eq!((asked.busy, asked.rows_looked_at), (1, 0));
}

/// A port under a group has left a host that has not been told so; its number rests.
fn cut_off() -> Sim {
    let mut sim = Sim::new(Options::default());
    for (number, host) in [(1, 1), (2, 2)] {
        let changes = sim.world.port_under(number, 0, Some(host), 1, 1);
        sim.untold.extend(changes);
    }
    sim.arrive();
    sim.disconnect(1);
    for number in [1, 2] {
        let host = if number == 1 { None } else { Some(2) };
        let changes = sim.world.port_under(number, 0, host, 1, 2);
        sim.untold.extend(changes);
    }
    sim.quiet();
    sim
}

/// What follows is told, and what follows from that.
fn quiet(sim: &mut Sim) {
    sim.quiet();
    sim.quiet();
}

fn number_rests(sim: &Sim) -> bool {
    sim.world.labels.values().any(|label| label.retired)
}

#[test]
fn numbers_rest_until_a_host_has_forgotten_them_or_is_deleted() {
    let mut sim = cut_off();
    assert!(number_rests(&sim), "a host that is away may match it");
    let change = sim.world.delete_host("h1").unwrap();
    sim.untold.push(change);
    quiet(&mut sim);
    assert!(!number_rests(&sim), "it is gone for good");
}

#[test]
fn numbers_rest_as_long_as_ports_are_bound_to_a_deleted_host() {
    let mut sim = cut_off();
    let changes = sim.world.port_under(1, 0, Some(1), 1, 2);
    sim.untold.extend(changes);
    quiet(&mut sim);
    let change = sim.world.delete_host("h1").unwrap();
    sim.untold.push(change);
    quiet(&mut sim);
    assert!(number_rests(&sim));
    let change = sim.world.delete_port(1);
    sim.untold.extend(change);
    quiet(&mut sim);
    assert!(!number_rests(&sim));
}

#[test]
fn a_deleted_host_that_lives_forgets_all_that_it_had_before_it_is_registered() {
    let mut sim = cut_off();
    let change = sim.world.delete_host("h1").unwrap();
    sim.untold.push(change);
    quiet(&mut sim);
    // It has the old meaning of a number that may mean something else by now, and others will send to it.
    let changes = sim.world.port_under(3, 0, Some(1), 1, 2);
    sim.untold.extend(changes);
    quiet(&mut sim);
    assert!(sim.agents[&1].knows_old_meanings(&sim.world, &[id(1000)].into()));
    sim.connect(1);
    sim.step(Event::Tick);
    // A session that breaks does not make it known what the host holds.
    sim.disconnect(1);
    sim.connect(1);
    sim.step(Event::Tick);
    assert!(!sim.world.hosts.contains_key("h1"), "it has not forgotten yet");
    quiet(&mut sim);
    let agent = &sim.agents[&1];
    assert!(!agent.knows_old_meanings(&sim.world, &[id(1000)].into()) && sim.world.hosts.contains_key("h1"));
    sim.settle();
}

#[test]
fn a_host_that_a_loaded_state_does_not_know_counts_as_deleted() {
    let mut sim = cut_off();
    sim.world.delete_host("h1").unwrap();
    sim.take(Step::Lag);
    quiet(&mut sim);
    assert!(!number_rests(&sim));
    sim.connect(1);
    sim.settle();
}

#[test]
fn a_host_keeps_what_it_was_told_while_it_is_being_registered() {
    let mut sim = Sim::new(Options::default());
    let change = sim.world.port(1, 0, Some(1), 1);
    sim.untold.push(change);
    sim.tell();
    sim.connect(1);
    while sim.deliver(1) {}
    let has = sim.agents[&1].rows.len();
    sim.disconnect(1);
    sim.connect(1);
    while sim.deliver(1) {}
    assert_eq!(
        (sim.agents[&1].rows.len(), sim.ncm.is_registered("h1")),
        (has, false)
    );
    assert_eq!(
        sim.ncm.host_state("h1").unwrap().resyncs,
        1,
        "it went on from what it had"
    );
    sim.settle();
}

#[test]
fn packets_are_taken_nowhere_from_a_deleted_host_or_an_old_address() {
    let mut sim = Sim::new(Options::default());
    for (number, host) in [(1, 1), (2, 2), (3, 3)] {
        let change = sim.world.port(number, 0, Some(host), 1);
        sim.untold.push(change);
    }
    sim.arrive();
    // What has left a host goes on through it for a while.
    let change = sim.world.port(1, 0, Some(2), 1);
    sim.untold.push(change);
    sim.quiet();
    let of_h1 = |sim: &Sim| sim.ncm.networks[&id(1000)].underlay.has("h1");
    assert!(of_h1(&sim));
    let blocks = |sim: &Sim| sim.ncm.networks[&id(1000)].underlay.blocks();
    let [old, new] = [tunnel_ip(1), tunnel_ip(101)].map(ipnet::IpNet::from);
    assert!(blocks(&sim).contains(&old));
    let change = sim.world.host(1, true);
    sim.untold.push(change);
    sim.tell();
    assert!(
        !blocks(&sim).contains(&old) && blocks(&sim).contains(&new),
        "{:?}",
        blocks(&sim)
    );
    let change = sim.world.delete_host("h1").unwrap();
    sim.untold.push(change);
    sim.tell();
    assert!(!of_h1(&sim));
}
