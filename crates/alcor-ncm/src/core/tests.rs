//! The core against simulated agents under seeded faults: whatever happens, each host ends with exactly what a naive
//! oracle says, and never holds a row of a network in which it has no port. And what a change costs.

mod agent;
mod asking;
mod cost;
mod floating;
mod gateways;
mod learned;
mod load;
mod memory;
mod routing;
mod session;
mod sim;
mod strangers;
mod trace;
mod watch;
mod world;

use alcor_model::resource::PortStatus;
use alcor_proto::v1;
use alcor_southbound::convert::encode_ip;
use proptest::prelude::*;

use self::{
    sim::{HOSTS, Sim, Step, receipt, run, run_with_gateways, steps, steps_with_gateways},
    world::{World, id, tunnel_ip},
};
use super::*;

proptest! {
    #[test]
    fn every_host_ends_with_what_it_must_have(steps in steps()) {
        run(Options::default(), steps);
    }

    /// With tiny windows, queues and tombstone lists, everything overflows all the time.
    #[test]
    fn overflow_becomes_a_resync(steps in steps()) {
        let options =
            Options { window_deltas: 2, queue_rows: 3, message_rows: 2, tombstones: 3, snapshots_at_once: 1, ..Options::default() };
        run(options, steps);
    }

    /// Networks become learned and eager again all the time, and leases are short.
    #[test]
    fn every_host_learns_what_is_right(steps in steps()) {
        run(learning(Options::default()), steps);
    }

    #[test]
    fn every_host_learns_what_is_right_when_everything_overflows(steps in steps()) {
        let options =
            Options { window_deltas: 2, queue_rows: 3, message_rows: 2, tombstones: 3, snapshots_at_once: 1, ..Options::default() };
        run(learning(options), steps);
    }
}

proptest! {
    /// Gateways come, go, fall silent and accuse each other; networks become learned and eager again.
    #[test]
    fn gateways_have_what_they_must_and_are_named_when_they_do(steps in steps_with_gateways()) {
        run_with_gateways(learning(Options::default()), steps);
    }

    #[test]
    fn gateways_have_what_they_must_when_everything_overflows(steps in steps_with_gateways()) {
        let options =
            Options { window_deltas: 2, queue_rows: 3, message_rows: 2, tombstones: 3, snapshots_at_once: 1, ..Options::default() };
        run_with_gateways(learning(options), steps);
    }
}

/// Two neighbours are few, five are many.
fn learning(options: Options) -> Options {
    Options {
        eager_rows_max: 4,
        limits: Limits {
            lease: Duration::from_secs(8),
            ..Limits::default()
        },
        ..options
    }
}

#[test]
fn status_needs_the_host_s_word() {
    let mut sim = Sim::new(Options::default());
    let change = sim.world.port(1, 0, Some(1), 1);
    sim.untold.push(change);
    sim.settle();
    let port: Id<Port> = id(5001);
    assert_eq!(sim.ncm.port_state(port).unwrap().status, PortStatus::Build);
    let report = |host: u8, sim: &mut Sim| {
        let session = sim.agents[&host].session.unwrap();
        let body = v1::agent_message::Body::PortReport(v1::PortReport {
            port_id: alcor_southbound::convert::encode_id(port),
            revision: sim.world.ports[&port].revision.0,
            condition: v1::PortCondition::Wired.into(),
            ..v1::PortReport::default()
        });
        sim.ncm.step(sim.now, Event::Message { session, body }).0
    };
    assert!(report(2, &mut sim).is_empty(), "another host's word is nothing");
    assert!(
        matches!(&report(1, &mut sim)[..], [Action::ReportPort(report)] if report.status == PortStatus::Active)
    );
    assert_eq!(sim.ncm.port_state(port).unwrap().status, PortStatus::Active);
}

#[test]
fn a_host_says_its_zone_and_registers_anew_when_it_is_deleted_while_it_lives() {
    let mut ncm = Ncm::new(Options::default());
    let hello = |zone: &str| v1::Hello {
        host: "h1".into(),
        incarnation: 1,
        tunnel_ip: encode_ip(tunnel_ip(1)),
        availability_zone: zone.into(),
        ..v1::Hello::default()
    };
    let registered = |actions: &[Action]| {
        actions.iter().find_map(|action| match action {
            Action::RegisterHost { word, .. } => Some(word.availability_zone.clone()),
            _ => None,
        })
    };
    let mut session = 0;
    let mut say = |ncm: &mut Ncm, zone| {
        session += 1;
        let hello = hello(zone);
        ncm.step(Now::default(), Event::Hello { session, hello }).0
    };
    assert_eq!(registered(&say(&mut ncm, "")), Some("nova".to_owned()));
    let tell = |ncm: &mut Ncm, change| {
        let changes = vec![change];
        let event = Event::Changes {
            changes,
            committed_us: 1,
        };
        ncm.step(Now::default(), event).0
    };
    tell(&mut ncm, World::default().host(1, false));
    assert_eq!(registered(&say(&mut ncm, "")), None, "it is registered so");
    assert_eq!(registered(&say(&mut ncm, "west")), Some("west".to_owned()));
    let refused = say(&mut ncm, "we\nst");
    assert!(matches!(&refused[..], [Action::Close { session: 4, .. }]));
    // What the region would refuse for ever is refused at once.
    for (host, tunnel_ip) in [
        ("h\n1", tunnel_ip(1)),
        ("h9", [0, 0, 0, 0].into()),
        ("h9", [224, 0, 0, 1].into()),
    ] {
        let hello = v1::Hello {
            host: host.to_owned(),
            tunnel_ip: encode_ip(tunnel_ip),
            ..hello("")
        };
        let refused = ncm.step(Now::default(), Event::Hello { session: 9, hello }).0;
        assert!(
            matches!(&refused[..], [Action::Close { session: 9, .. }]),
            "{refused:?}"
        );
    }
    let gone = Change::Delete {
        key: ResourceKey::Host("h1".into()),
        revision: Revision(9),
    };
    let ended = tell(&mut ncm, gone);
    assert!(
        matches!(&ended[..], [Action::Close { session: 3, .. }]),
        "{ended:?}"
    );
    assert!(!ncm.host_state("h1").unwrap().summary.alive);
    assert_eq!(registered(&say(&mut ncm, "")), Some("nova".to_owned()));
}

/// A network that goes with all that is in it leaves nothing behind at its hosts.
#[test]
fn a_deleted_network_is_in_no_host_s_list() {
    let mut sim = Sim::new(Options::default());
    let change = sim.world.port(1, 0, Some(1), 1);
    sim.untold.push(change);
    sim.tell();
    assert_eq!(sim.ncm.host_networks.len(), 1);
    let deleted = Change::Delete {
        key: ResourceKey::Network(id(1000)),
        revision: sim.world.revision.next(),
    };
    sim.step(Event::Changes {
        changes: vec![deleted],
        committed_us: 1,
    });
    assert!(sim.ncm.host_networks.is_empty(), "{:?}", sim.ncm.host_networks);
}

/// Says hello under the name of a host that is not there otherwise; gives whether it is welcome, and the session's number.
fn say(ncm: &mut Ncm, session: SessionId, opened: (u64, u64), at: IpAddr) -> Vec<Action> {
    let hello = v1::Hello {
        host: "h1".into(),
        incarnation: opened.0,
        session: opened.1,
        tunnel_ip: encode_ip(at),
        ..v1::Hello::default()
    };
    ncm.step(Now::default(), Event::Hello { session, hello }).0
}

/// A host's clock was set back, its agent started again, and the NCM refused it as long as it lived.
#[test]
fn which_hello_is_older_matters_only_as_long_as_a_session_lives() {
    let mut ncm = Ncm::new(Options::default());
    let mut last = 0;
    let mut welcome = |ncm: &mut Ncm, opened| {
        last += 1;
        let actions = say(ncm, last, opened, tunnel_ip(1));
        let is_welcome = matches!(
            actions[..],
            [Action::Send { .. }, ..] | [_, Action::Send { .. }, ..]
        );
        assert_eq!(is_welcome, ncm.sessions.contains_key(&last), "{actions:?}");
        (is_welcome, last)
    };
    assert!(welcome(&mut ncm, (9, 1)).0);
    assert!(!welcome(&mut ncm, (8, 7)).0, "an older incarnation");
    assert!(!welcome(&mut ncm, (9, 1)).0, "a copy");
    let (taken, session) = welcome(&mut ncm, (9, 3));
    assert!(taken, "the next session");
    assert!(!welcome(&mut ncm, (9, 2)).0, "one that comes late");
    ncm.step(Now::default(), Event::Closed { session });
    let (taken, session) = welcome(&mut ncm, (4, 1));
    assert!(taken, "nobody else is here");
    assert!(!welcome(&mut ncm, (3, 1)).0, "now somebody is");
    let silent = Now {
        since_start: Options::default().heartbeat_timeout + Duration::from_secs(1),
        unix_us: 0,
    };
    let ended = ncm.step(silent, Event::Tick).0;
    assert!(matches!(ended[..], [Action::Close { session: closed, .. }] if closed == session));
    assert!(welcome(&mut ncm, (3, 1)).0);
    assert!(welcome(&mut ncm, (3, 0)).0, "one that does not count comes later");
}

/// Two said hello under one name before the region knew of either, and the row of the one that had gone was left.
#[test]
fn the_region_is_told_again_when_it_keeps_another_address_than_the_host_has() {
    let mut ncm = Ncm::new(Options::default());
    let registered = |actions: &[Action]| -> Vec<IpAddr> {
        let of = |action: &Action| match action {
            Action::RegisterHost { word, .. } => Some(word.tunnel_ip),
            _ => None,
        };
        actions.iter().filter_map(of).collect()
    };
    let (here, gone) = (tunnel_ip(1), tunnel_ip(101));
    let mut world = World::default();
    let mut put = |ncm: &mut Ncm, is_gone| {
        let changes = vec![world.host(1, is_gone)];
        let event = Event::Changes {
            changes,
            committed_us: 1,
        };
        ncm.step(Now::default(), event)
    };
    let tick = |ncm: &mut Ncm| registered(&ncm.step(Now::default(), Event::Tick).0);
    put(&mut ncm, false);
    assert_eq!(registered(&say(&mut ncm, 1, (5, 1), gone)), [gone]);
    assert_eq!(
        registered(&say(&mut ncm, 2, (6, 1), here)),
        [] as [IpAddr; 0],
        "as it is known"
    );
    put(&mut ncm, true);
    assert_eq!(tick(&mut ncm), [here]);
    assert_eq!(
        tick(&mut ncm),
        [] as [IpAddr; 0],
        "once for each word of the region"
    );
    put(&mut ncm, false);
    assert_eq!(tick(&mut ncm), [] as [IpAddr; 0]);
    // A region that has lost what it was told: the host says hello again.
    let rows = Vec::new();
    let revision = Revision(3);
    let (actions, _) = ncm.step(Now::default(), Event::Snapshot { revision, rows });
    assert!(matches!(actions[..], [Action::Close { session: 2, .. }]));
    assert_eq!(registered(&say(&mut ncm, 3, (6, 2), here)), [here]);
}

#[test]
fn an_older_incarnation_is_refused_and_repeats_change_nothing() {
    let mut sim = Sim::new(Options::default());
    let change = sim.world.port(1, 0, Some(1), 1);
    sim.untold.push(change);
    sim.agents.get_mut(&1).unwrap().incarnation = 5;
    sim.settle();
    let session = sim.agents[&1].session.unwrap();
    let mut hello = sim.agents[&1].hello(1);
    hello.incarnation = 4;
    let (actions, _) = sim.ncm.step(sim.now, Event::Hello { session: 99, hello });
    assert!(matches!(&actions[..], [Action::Close { session: 99, .. }]));
    let before = sim.ncm.host_state("h1").unwrap();
    for sequence in [0, 1, 7, u64::MAX] {
        let body = v1::agent_message::Body::Receipt(receipt(sequence));
        assert!(
            sim.ncm
                .step(sim.now, Event::Message { session, body })
                .0
                .is_empty()
        );
    }
    let after = sim.ncm.host_state("h1").unwrap();
    assert_eq!(before.resources, after.resources);
}

#[test]
fn a_silent_host_is_not_alive_and_its_ports_keep_their_state() {
    let mut sim = Sim::new(Options::default());
    let change = sim.world.port(1, 0, Some(1), 1);
    sim.untold.push(change);
    sim.settle();
    sim.now.since_start += Duration::from_secs(60);
    let (mut actions, _) = sim.ncm.step(sim.now, Event::Tick);
    actions.retain(|action| matches!(action, Action::Close { .. }));
    assert_eq!(actions.len(), usize::from(HOSTS));
    let state = sim.ncm.host_state("h1").unwrap();
    assert!(!state.summary.alive);
    assert_eq!(state.summary.pending, 0);
}

#[test]
fn a_restarted_ncm_knows_what_a_host_holds() {
    let port = Step::Port {
        number: 0,
        network: 0,
        host: Some(2),
        ip: 1,
        groups: 5,
    };
    let steps = vec![
        Step::Connect { host: 2 },
        port,
        Step::Tell,
        Step::Deliver { host: 2, count: 1 },
        Step::RestartNcm,
    ];
    run(Options::default(), steps);
}

/// A host registers after a port left it, and the NCM learns both from one snapshot: the neighbour must go.
#[test]
fn a_snapshot_knows_no_order_between_its_rows() {
    let port = |number, host| Step::Port {
        number,
        network: 0,
        host,
        ip: 1,
        groups: 0,
    };
    run(
        Options::default(),
        vec![
            port(0, Some(1)),
            port(4, Some(2)),
            Step::Tell,
            Step::Connect { host: 1 },
            port(4, None),
            Step::Connect { host: 2 },
            Step::Lag,
        ],
    );
}

/// The last port under a group leaves a host and another comes, in one step: the rules must be newer than the word that
/// they are not needed.
#[test]
fn rules_that_are_needed_again_are_newer_than_their_end() {
    let port = |number, host, groups| Step::Port {
        number,
        network: 0,
        host,
        ip: 1,
        groups,
    };
    run(
        Options::default(),
        vec![
            port(2, Some(1), 4),
            Step::Connect { host: 1 },
            port(0, Some(1), 0),
            Step::Tell,
            Step::Deliver { host: 1, count: 1 },
            port(2, None, 0),
            port(0, Some(1), 4),
        ],
    );
}

/// A rule is deleted while the NCM is behind: the snapshot does not have it, and hosts must lose it all the same.
#[test]
fn a_rule_that_went_unseen_goes() {
    let port = Step::Port {
        number: 0,
        network: 0,
        host: Some(2),
        ip: 1,
        groups: 5,
    };
    let rule = Step::Rule { group: 0, port: 2 };
    let steps = vec![
        port,
        Step::Connect { host: 2 },
        rule.clone(),
        Step::Lag,
        rule,
        Step::Lag,
    ];
    run(Options::default(), steps);
}

/// A host lost its last port in a network and took another there, around a restart of its NCM that it was not told: the
/// NCM must not take it for one that is new to the network.
#[test]
fn a_host_that_came_back_to_a_network_still_knows_its_labels() {
    let port = |number, host, groups| Step::Port {
        number,
        network: 1,
        host,
        ip: 1,
        groups,
    };
    run(
        Options::default(),
        vec![
            Step::Connect { host: 2 },
            port(3, Some(2), 4),
            Step::Lag,
            port(3, None, 0),
            Step::Deliver { host: 2, count: 1 },
            Step::RestartNcm,
            port(1, Some(2), 0),
        ],
    );
}

/// A host says that it holds a network, and its last port leaves before it has taken the snapshot: until it has said that
/// it has forgotten, it may match labels against what they meant before the NCM's restart.
#[test]
fn a_host_that_leaves_before_its_snapshot_came_still_knows_labels() {
    let port = |host, groups| Step::Port {
        number: 3,
        network: 1,
        host,
        ip: 1,
        groups,
    };
    run(
        Options::default(),
        vec![
            Step::Connect { host: 1 },
            Step::Connect { host: 2 },
            Step::Connect { host: 3 },
            port(Some(2), 4),
            Step::Tell,
            Step::Deliver { host: 2, count: 1 },
            port(Some(2), 0),
            Step::RestartNcm,
            Step::Connect { host: 1 },
            Step::Connect { host: 2 },
            Step::Connect { host: 3 },
            port(None, 0),
            Step::Tell,
            port(Some(2), 0),
            Step::Tick,
        ],
    );
}

/// A host that lost all it had by its own restart, and its last port in a network meanwhile, keeps no number from being
/// given free.
#[test]
fn a_host_that_says_it_holds_nothing_knows_nothing() {
    let port = |number, host, groups| Step::Port {
        number,
        network: 0,
        host: Some(host),
        ip: 1,
        groups,
    };
    let sim = run(
        Options::default(),
        vec![
            Step::Connect { host: 1 },
            Step::Connect { host: 2 },
            Step::Connect { host: 3 },
            port(0, 1, 0),
            port(2, 2, 4),
            Step::Tell,
            Step::Deliver { host: 1, count: 2 },
            Step::Deliver { host: 2, count: 2 },
            Step::RestartAgent { host: 2 },
            port(2, 1, 1),
            Step::Tell,
        ],
    );
    assert!(!sim.world.labels.values().any(|label| label.retired));
}

/// A word to forget and a new snapshot are on their way together: the host has not forgotten for good when it has taken
/// the first of them.
#[test]
fn a_host_that_forgets_and_is_told_again_knows_labels() {
    let port = |number, host, groups| Step::Port {
        number,
        network: 0,
        host,
        ip: 1,
        groups,
    };
    let mut sim = run(Options::default(), Vec::new());
    sim.take(port(0, Some(1), 4));
    sim.tell();
    let network = sim.world.ports[&id(5000)].network_id;
    let knows = |sim: &Sim| sim.ncm.hosts["h1"].status.knows_to(network);
    assert_eq!(knows(&sim), Some(Revision::ZERO), "from the first row on its way");
    sim.settle();
    for step in [port(0, None, 4), port(0, Some(1), 4), port(0, None, 0)] {
        sim.take(step);
        sim.tell();
    }
    for _ in 0..2 {
        assert!(sim.deliver(1));
        assert!(knows(&sim).is_some());
    }
    assert!(sim.deliver(1));
    assert_eq!(knows(&sim), None);
    assert!(!sim.deliver(1));
}

/// A host that refused rows may still have what they were to replace, and taking later ones says nothing of that.
#[test]
fn a_host_that_refused_rows_may_know_old_labels_until_a_whole_snapshot() {
    let port = |number, groups| Step::Port {
        number,
        network: 0,
        host: Some(1),
        ip: number,
        groups,
    };
    let mut sim = run(Options::default(), Vec::new());
    sim.take(port(1, 4));
    sim.settle();
    let network = sim.world.ports[&id(5001)].network_id;
    let knows = |sim: &Sim| sim.ncm.hosts["h1"].status.knows_to(network);
    assert!(knows(&sim) > Some(Revision::ZERO));
    sim.take(port(1, 1));
    sim.tell();
    assert!(sim.deliver_and_refuse(1, vec![0]));
    assert_eq!(knows(&sim), Some(Revision::ZERO));
    while sim.deliver(1) {}
    sim.take(port(2, 1));
    sim.settle();
    assert_eq!(knows(&sim), Some(Revision::ZERO), "it takes what comes later");
    sim.take(Step::RestartAgent { host: 1 });
    sim.settle();
    assert!(knows(&sim) > Some(Revision::ZERO), "it took a snapshot");
}

/// A host that a port has left gets the port's rows again when it comes back; it must be told of them from then on as the
/// learners are, also when the NCM has forgotten which ports have left.
#[test]
fn a_host_that_comes_back_is_told_of_what_has_left_it() {
    let port = |number, host| Step::Port {
        number,
        network: 1,
        host,
        ip: 1,
        groups: 0,
    };
    run(
        learning(Options::default()),
        vec![
            port(1, Some(3)),
            port(5, Some(3)),
            Step::Connect { host: 3 },
            port(3, Some(1)),
            Step::Tell,
            port(1, Some(2)),
            Step::Connect { host: 2 },
            Step::Tell,
            Step::Connect { host: 3 },
            port(1, None),
            Step::Lag,
        ],
    );
}

/// A network becomes eager and learned again within one step: what hosts have learned must not be forgotten in between, for
/// the snapshot is one of a learned network.
#[test]
fn a_network_that_is_eager_for_a_moment_forgets_nothing() {
    let port = |number, host, ip| Step::Port {
        number,
        network: 0,
        host: Some(host),
        ip,
        groups: 0,
    };
    run(
        learning(Options::default()),
        vec![
            Step::Connect { host: 2 },
            port(0, 1, 1),
            port(4, 2, 2),
            Step::Connect { host: 1 },
            Step::Tell,
            port(2, 1, 1),
            Step::Tell,
            Step::Delete { number: 4 },
            port(4, 2, 1),
        ],
    );
}
