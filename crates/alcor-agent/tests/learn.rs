//! Networks on demand: packets are held, addresses asked for and leased; over the model data plane, without sockets.
#![allow(clippy::unwrap_used, reason = "a panic is how a test says no")]

mod common;
#[path = "common/world.rs"]
mod world;

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use alcor_agent::{
    core::{
        ANSWER_WITHIN, ASK_AGAIN_AFTER, Dropped, Event, HELD_MAX, HELD_PER_PORT, HOLD_FOR, LEARNED_MAX,
        MESSAGES_MAX, NEGATIVE_LEASE, QUESTION_BURST, QUESTIONS_PER_S,
    },
    delta::{FromNcm, Phase},
};
use alcor_dataplane::{
    Dataplane, DropReason, Ingress, InterfaceRow, NeighbourRow, NetworkRow, PuntReason, RouterRow, Row,
    RowChange, RowKey, Verdict, model::Limits,
};
use alcor_model::{Id, Revision, net::GATEWAY_MAC};
use alcor_proto::v1;
use alcor_southbound::convert::resolve::{Answer, QUESTIONS_MAX, Verdict as Answered};
use common::{Key, network_id, port_id};
use world::{LEASE, World, host, ip, mac, neighbour, network, packet};

const HELD: Verdict = Verdict::Punt(PuntReason::Unresolved);

fn dropped(world: &World, reason: Dropped) -> u64 {
    let counts = &world.rig.agent.learning().dropped;
    counts.get(&reason).copied().unwrap_or_default()
}

fn is_reply(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::Reply { .. })
}

/// Where packets to the neighbour go.
fn way(world: &mut World, n: u32) -> Option<std::net::IpAddr> {
    match world.send(1, &packet(1, mac(n), ip(n))) {
        Verdict::Tunnel { host, .. } => Some(host),
        _ => None,
    }
}

/// A world in which port 1 has learned these.
fn learned(addresses: std::ops::Range<u32>) -> World {
    let mut world = World::new(2);
    for n in addresses {
        world.directory.insert(n, (10, 7));
        world.look_for(1, n);
        world.answer_all();
    }
    world.released();
    world
}

#[test]
fn two_hundred_unknown_peers_at_once_take_few_messages_and_lose_nothing() {
    let mut world = World::new(4);
    world.directory = (0..200).map(|n| (n, (10, 7))).collect();
    for n in 0..200u32 {
        let port = 1 + (n % 4) as u8;
        assert_eq!(world.look_for(port, n), HELD);
    }
    let (messages, questions) = world.answer_all();
    assert_eq!(questions, 200, "each address is asked for once");
    assert!(messages <= MESSAGES_MAX + 1, "{messages}");
    let released = world.released();
    assert_eq!(released.len(), 200);
    assert!(
        released.iter().all(|(_, verdict)| is_reply(verdict)),
        "{released:?}"
    );
    let sizes = world.rig.agent.learning_sizes();
    assert_eq!((sizes.learned, sizes.held, sizes.asked), (200, 0, 0));
    assert_eq!(world.rig.agent.take_waits().len(), 200);
    assert_eq!(way(&mut world, 5), Some(host(7)));
}

#[test]
fn packets_to_one_address_are_one_question_and_go_in_order() {
    let mut world = World::new(2);
    world.directory.insert(9, (10, 7));
    for length in 0..10 {
        for port in [1, 2] {
            let mut frame = packet(port, mac(9), ip(9));
            frame.resize(frame.len() + length, 0);
            assert_eq!(world.send(port, &frame), HELD);
        }
    }
    assert_eq!(world.answer_all(), (1, 1));
    let released = world.released();
    let sent = released.iter().map(|(port, verdict)| match verdict {
        Verdict::Tunnel { frame, .. } => (frame.len(), *port),
        other => panic!("{other:?}"),
    });
    let expected = (0..10).flat_map(|length| [1, 2].map(|port| (34 + length, port_id(0, port))));
    assert!(sent.eq(expected), "{released:?}");
}

#[test]
fn an_address_that_is_known_by_now_is_not_asked_for() {
    let mut world = learned(1..2);
    // The data plane handed the packet up before the row was in force.
    let late = alcor_dataplane::Event::Unresolved {
        port: port_id(0, 1),
        network: network_id(0),
        address: ip(1),
        frame: world::arp(1, ip(1)).into(),
    };
    world.rig.step(Event::Dataplane(late));
    assert_eq!(world.answer_all(), (0, 0));
    assert!(matches!(&world.released()[..], [(_, verdict)] if is_reply(verdict)));
}

#[test]
fn a_scan_is_bounded_and_costs_others_nothing() {
    let mut world = World::new(2);
    world.directory.insert(1, (10, 7));
    let began = world.rig.now.since_start;
    for n in 1_000..101_000 {
        world.look_for(1, n);
    }
    let sizes = world.rig.agent.learning_sizes();
    assert_eq!((sizes.held, sizes.asked), (HELD_PER_PORT, HELD_PER_PORT));
    assert_eq!(
        dropped(&world, Dropped::PortLimit),
        100_000 - HELD_PER_PORT as u64
    );
    // Another port is asked for and answered while the scan waits.
    assert_eq!(world.look_for(2, 1), HELD);
    world.answer_all();
    assert!(
        matches!(&world.released()[..], [(port, verdict)] if *port == port_id(0, 2) && is_reply(verdict))
    );
    // The NCM answers as fast as the port scans: what it asks is metered.
    for n in 200_000..260_000 {
        world.look_for(1, n);
        world.answer_all();
    }
    let passed = (world.rig.now.since_start - began).as_secs_f64();
    let allowed = QUESTION_BURST + QUESTIONS_PER_S * passed;
    let questions = world.rig.agent.learning().questions;
    assert!(questions as f64 <= allowed + 2.0, "{questions} in {passed} s");
    assert!(dropped(&world, Dropped::AskedTooOften) > 50_000);
    assert!(world.rig.agent.learning_sizes().negative <= alcor_agent::core::NEGATIVE_MAX);
    assert_eq!(world.learned(), 1);
}

#[test]
fn no_more_is_held_on_a_host_than_there_is_room_for() {
    let ports = 80;
    let mut world = World::new(ports);
    world.rig.cut();
    for n in 0..6_000u32 {
        world.look_for(1 + (n % u32::from(ports)) as u8, n);
    }
    let held = world.rig.agent.learning_sizes().held;
    assert!((HELD_MAX * 9 / 10..=HELD_MAX).contains(&held), "{held}");
    assert_eq!(dropped(&world, Dropped::HostLimit), 6_000 - held as u64);
    world.rig.pass(HOLD_FOR);
    assert_eq!(dropped(&world, Dropped::TooLate), held as u64);
    let sizes = world.rig.agent.learning_sizes();
    assert_eq!(
        (sizes.held, sizes.asked),
        (0, 0),
        "nobody waits: nothing is asked"
    );
}

#[test]
fn however_many_ports_scan_there_is_room_for_one_that_does_not() {
    let ports = 100;
    let mut world = World::new(ports);
    world.rig.cut();
    for n in 0..60_000u32 {
        let port = 2 + (n % u32::from(ports - 1)) as u8;
        // Some send large packets, as a machine does that leaves segmentation to its host.
        let mut frame = packet(port, mac(n), ip(n));
        frame.resize(if n % 2 == 0 { 60_000 } else { 60 }, 0);
        world.send(port, &frame);
    }
    let held = world.rig.agent.learning_sizes().held;
    let mut frame = packet(1, mac(1), ip(70_000));
    frame.resize(60_000, 0);
    world.send(1, &frame);
    assert_eq!(world.rig.agent.learning_sizes().held, held + 1);
}

#[test]
fn an_address_that_nobody_has_is_asked_for_again_when_its_time_is_over() {
    let mut world = World::new(1);
    world.look_for(1, 5);
    assert_eq!(world.answer_all(), (1, 1));
    assert_eq!(dropped(&world, Dropped::Unknown), 1);
    world.directory.insert(5, (10, 7));
    world.look_for(1, 5);
    assert_eq!(world.answer_all(), (0, 0), "not again at once");
    assert_eq!(dropped(&world, Dropped::Unknown), 2);
    world.pass(world::NEGATIVE);
    world.look_for(1, 5);
    assert_eq!(world.answer_all(), (1, 1));
    assert!(matches!(&world.released()[..], [(_, verdict)] if is_reply(verdict)));
}

#[test]
fn an_address_that_is_told_of_is_no_longer_unknown() {
    let mut world = World::new(1);
    world.look_for(1, 5);
    world.answer_all();
    world.tell(20, RowChange::Put(Row::Neighbour(neighbour(5, 8))));
    assert!(is_reply(&world.look_for(1, 5)));
    world.tell_gone(5, 21);
    assert_eq!(world.look_for(1, 5), HELD);
    assert!(world.is_asked(5));
}

#[test]
fn a_host_that_may_not_ask_holds_nothing() {
    let mut world = World::new(1);
    world.look_for(1, 5);
    let deny = |_: &_| Answer {
        verdict: Answered::Deny,
        lease: Duration::from_secs(5),
    };
    world.answer_with(deny);
    assert_eq!(dropped(&world, Dropped::Unknown), 1);
    world.pass(Duration::from_secs(4));
    world.look_for(1, 5);
    assert!(!world.is_asked(5));
    assert_eq!(world.rig.agent.learning().answers["deny"], 1);
}

#[test]
fn a_busy_ncm_is_asked_again_later_while_packets_are_held() {
    let mut world = World::new(1);
    world.directory.insert(5, (10, 7));
    world.look_for(1, 5);
    let busy = |_: &_| Answer {
        verdict: Answered::Busy,
        lease: Duration::from_millis(500),
    };
    world.answer_with(busy);
    assert!(!world.is_asked(5));
    world.rig.pass(Duration::from_millis(400));
    assert!(!world.is_asked(5));
    world.rig.pass(Duration::from_millis(200));
    assert!(world.is_asked(5));
    world.answer_all();
    assert!(matches!(&world.released()[..], [(_, verdict)] if is_reply(verdict)));
    // Busy for longer than the packet may wait: nobody asks any more.
    world.look_for(1, 6);
    world.answer_with(busy);
    world.rig.pass(Duration::from_millis(501));
    world.answer_with(busy);
    world.rig.pass(HOLD_FOR);
    assert_eq!(dropped(&world, Dropped::TooLate), 1);
    world.rig.asked.clear();
    world.rig.pass(ANSWER_WITHIN);
    assert_eq!(world.rig.agent.learning_sizes().asked, 0);
    assert!(world.rig.asked.is_empty());
}

#[test]
fn what_nobody_waits_for_is_not_asked_for_again() {
    let mut world = learned(1..2);
    let first = world.rig.agent.learning().questions;
    // A port scans, and the NCM has a session and says nothing.
    for round in 0..20 {
        for n in 0..100 {
            world.look_for(1, 1_000 + round * 100 + n);
        }
        world.rig.pass(HOLD_FOR);
        let questions = u32::try_from(world.rig.agent.learning().questions - first).unwrap();
        assert_eq!(questions, (round + 1) * 100);
        // What was asked within the time for an answer, and the lease of the one neighbour.
        let most = 100 * (ANSWER_WITHIN.as_secs() / HOLD_FOR.as_secs() + 1) + 1;
        assert!(world.rig.agent.learning_sizes().asked as u64 <= most, "{round}");
    }
    world.rig.asked.clear();
    world.rig.pass(ANSWER_WITHIN);
    assert!(world.rig.agent.learning_sizes().asked <= 1, "the lease");
    let asked: usize = world
        .rig
        .asked
        .iter()
        .map(|message| message.questions.len())
        .sum();
    assert!(asked <= 1, "{asked} asked again");
}

#[test]
fn what_is_used_is_renewed_and_the_rest_goes() {
    let mut world = learned(1..4);
    let asked = world.rig.agent.learning().clone();
    assert_eq!((asked.questions, asked.renewals), (3, 0));
    // 1 is used early, 2 late, 3 never again.
    assert!(way(&mut world, 1).is_some());
    world.pass(LEASE * 5 / 6);
    assert_eq!(
        world.rig.agent.learning().renewals,
        3,
        "each was used when it was learned"
    );
    assert_eq!(world.learned(), 3);
    assert!(way(&mut world, 1).is_some());
    world.pass(LEASE * 2 / 3);
    assert_eq!(world.rig.agent.learning().renewals, 4);
    assert!(way(&mut world, 2).is_some());
    world.pass(LEASE / 2);
    assert_eq!(
        world.rig.agent.learning().renewals,
        5,
        "2 was used before its lease ended"
    );
    let left: BTreeSet<_> = world.neighbours().iter().map(|row| row.ip).collect();
    assert_eq!(left, BTreeSet::from([ip(1), ip(2)]));
    assert_eq!(world.learned(), 2);
    assert_eq!(world.look_for(1, 3), HELD, "3 is asked for again");
    world.answer_all();
    assert!(
        matches!(&world.released()[..], [(_, verdict)] if is_reply(verdict)),
        "at its old revision"
    );
    world.pass(LEASE * 3);
    assert!(world.neighbours().is_empty());
    assert_eq!(world.learned(), 0);
}

#[test]
fn without_a_session_nothing_expires() {
    let mut world = learned(1..11);
    world.rig.cut();
    let applied = world.rig.applied.len();
    for _ in 0..60 {
        world.rig.pass(Duration::from_secs(10));
        world.rig.cut();
        for n in 1..11 {
            assert_eq!(way(&mut world, n), Some(host(7)));
        }
    }
    // An address that is not known is not, and its packets do not pile up.
    assert_eq!(world.look_for(1, 77), HELD);
    world.rig.pass(HOLD_FOR);
    world.rig.cut();
    assert_eq!(dropped(&world, Dropped::TooLate), 1);
    assert_eq!(world.rig.applied.len(), applied, "the data plane was not touched");
    // 3 has moved, 4 is gone, and nobody could tell.
    world.directory.insert(3, (50, 9));
    world.directory.remove(&4);
    world.rig.connect();
    world.rig.pass(ASK_AGAIN_AFTER);
    assert_eq!(world.answer_all(), (1, 10), "all in one message");
    assert_eq!(way(&mut world, 3), Some(host(9)));
    assert_eq!(way(&mut world, 4), None);
    assert_eq!(way(&mut world, 5), Some(host(7)));
}

#[test]
fn a_new_session_asks_only_for_what_is_used() {
    let mut world = learned(1..5);
    world.pass(LEASE * 3 / 4);
    assert!(way(&mut world, 1).is_some());
    world.pass(LEASE * 3 / 4);
    assert_eq!(world.learned(), 4);
    world.rig.cut();
    assert!(way(&mut world, 2).is_some());
    world.rig.connect();
    world.pass(ASK_AGAIN_AFTER);
    let left: BTreeSet<_> = world.neighbours().iter().map(|row| row.ip).collect();
    assert_eq!(
        left,
        BTreeSet::from([ip(1), ip(2)]),
        "1 within its lease, 2 without a session"
    );
}

#[test]
fn questions_of_held_packets_outlive_a_session() {
    let mut world = World::new(1);
    world.directory.insert(5, (10, 7));
    world.look_for(1, 5);
    assert!(world.is_asked(5));
    world.rig.cut();
    assert_eq!(world.look_for(1, 5), HELD);
    world.rig.connect();
    assert_eq!(world.answer_all(), (1, 1));
    assert_eq!(world.released().len(), 2);
}

#[test]
fn a_peer_that_moves_is_followed_with_the_next_packet() {
    let mut world = learned(1..3);
    assert_eq!(way(&mut world, 1), Some(host(7)));
    world.tell(20, RowChange::Put(Row::Neighbour(neighbour(1, 8))));
    assert_eq!(way(&mut world, 1), Some(host(8)));
    // An answer from before the move comes late.
    world.directory.insert(1, (10, 7));
    world.pass(LEASE * 3 / 4);
    assert!(world.rig.agent.learning().renewals > 0);
    assert_eq!(way(&mut world, 1), Some(host(8)), "the newest wins");
    world.tell_gone(1, 30);
    assert_eq!(way(&mut world, 1), None);
    assert_eq!(world.learned(), 1);
}

/// A neighbour that was told without a question has the agent's own lease of 300 s, until the NCM says how long it is.
#[test]
fn the_lease_of_the_answer_is_what_counts() {
    for (lease, is_left) in [(10, false), (90, false), (3_000, true)] {
        let mut world = World::new(1);
        world.lease = Duration::from_secs(lease);
        world.directory.insert(5, (20, 8));
        world.tell(20, RowChange::Put(Row::Neighbour(neighbour(5, 8))));
        assert!(way(&mut world, 5).is_some());
        // It has been used when two thirds of its lease are over: the NCM is asked.
        world.pass(LEASE * 2 / 3);
        assert_eq!(world.rig.agent.learning().renewals, 1);
        // Nobody uses it again, so it goes with the lease of the answer.
        world.pass(LEASE / 3);
        assert_eq!(world.rig.agent.learning().renewals, 1);
        assert_eq!(world.neighbours().len(), usize::from(is_left), "{lease} s");
    }
}

#[test]
fn a_port_that_leaves_is_passed_on_until_its_lease_ends() {
    let mut world = World::new(2);
    let late = packet(2, common_mac(1), ip(1));
    let tunnel = || Ingress::Tunnel {
        source: host(9),
        vni: 100,
        label: 3,
        forwarded: false,
    };
    let moved = NeighbourRow {
        mac: common_mac(1),
        forward: true,
        ..neighbour(1, 8)
    };
    world.rig.delta(
        0,
        Phase::Delta,
        20,
        vec![
            Ok((Revision(20), RowChange::Put(Row::Neighbour(moved)))),
            Ok((Revision(20), RowChange::Remove(Key::Port(0, 1).row_key()))),
        ],
    );
    world.rig.settle();
    let verdict = world.rig.model.process(tunnel(), &late);
    assert!(
        matches!(verdict, Verdict::Tunnel { host: to, label: 3, forwarded: true, .. } if to == host(8)),
        "{verdict:?}"
    );
    assert_eq!(world.learned(), 1);
    world.pass(LEASE * 2);
    let verdict = world.rig.model.process(tunnel(), &late);
    assert_eq!(verdict, Verdict::Drop(DropReason::NoLocalPort));
    assert_eq!(world.learned(), 0);
}

fn common_mac(p: u8) -> alcor_model::MacAddr {
    alcor_model::MacAddr([2, 0, 0, 1, 0, p])
}

#[test]
fn snapshots_do_not_touch_what_was_asked_for_and_forgetting_does() {
    let mut world = learned(1..4);
    let rows = || {
        let ports = [1, 2].map(|p| Key::Port(0, p).change(1, true));
        std::iter::once(network(true, 1)).chain(ports).collect()
    };
    world.rig.delta(0, Phase::Whole, 100, rows());
    world.rig.settle();
    assert_eq!(world.neighbours().len(), 3);
    world.rig.delta(0, Phase::Forget, 0, Vec::new());
    world.rig.settle();
    assert!(world.rig.rows().is_empty());
    assert_eq!(world.learned(), 0);
    // An answer that comes after that changes nothing.
    world.rig.delta(0, Phase::Whole, 101, rows());
    world.rig.settle();
    world.look_for(1, 1);
    world.rig.delta(0, Phase::Forget, 0, Vec::new());
    world.answer_all();
    assert!(world.rig.rows().is_empty());
    assert_eq!(world.learned(), 0);
}

#[test]
fn a_snapshot_is_a_reason_to_ask_again() {
    let mut world = learned(1..4);
    assert!(way(&mut world, 1).is_some());
    world.look_for(2, 9);
    // The NCM had too much for this host and left out that 1 has moved; its answer about 9 is as old.
    let late = world.rig.asked.remove(0);
    world.directory.insert(1, (50, 9));
    world.directory.insert(9, (51, 9));
    let rows = [
        network(true, 1),
        Key::Port(0, 1).change(1, true),
        Key::Port(0, 2).change(1, true),
    ];
    world.rig.delta(0, Phase::Whole, 52, rows.into_iter().collect());
    world.rig.settle();
    let old = Answer {
        verdict: Answered::Route(Revision(10), neighbour(9, 7)),
        lease: LEASE,
    };
    let old = alcor_southbound::convert::resolve::encode_answers(late.id, &[old]);
    world.rig.hear(FromNcm::Resolved(old));
    world.rig.settle();
    assert_eq!(world.neighbours().len(), 3);
    assert!(world.is_asked(1) && world.is_asked(9));
    world.answer_all();
    assert_eq!(way(&mut world, 1), Some(host(9)));
    assert_eq!(way(&mut world, 9), Some(host(9)));
}

#[test]
fn a_network_goes_on_demand_and_back_without_a_gap() {
    let mut world = World::new(1);
    let eager = |n| Ok((Revision(5), RowChange::Put(Row::Neighbour(neighbour(n, 7)))));
    let port = || Key::Port(0, 1).change(1, true);
    let all = |revision| {
        let neighbours = (1..101).map(eager);
        [network(false, revision), port()]
            .into_iter()
            .chain(neighbours)
            .collect()
    };
    world.rig.delta(0, Phase::Whole, 5, all(5));
    world.rig.settle();
    assert_eq!((world.neighbours().len(), world.learned()), (100, 0));
    world.directory = (1..101).map(|n| (n, (5, 7))).collect();
    let applied = world.rig.applied.len();
    world.rig.delta(0, Phase::Delta, 6, vec![network(true, 6)]);
    world.rig.settle();
    assert_eq!(world.rig.applied.len(), applied + 1, "only the network");
    assert_eq!((world.neighbours().len(), world.learned()), (100, 100));
    // Every tenth stays in use.
    for _ in 0..20 {
        world.pass(LEASE / 10);
        for n in (10..101).step_by(10) {
            assert_eq!(way(&mut world, n), Some(host(7)));
        }
    }
    assert_eq!((world.neighbours().len(), world.learned()), (10, 10));
    let asked = world.rig.agent.learning();
    assert_eq!(asked.questions, 0, "nothing was missed");
    let applied = world.rig.applied.len();
    world.rig.delta(0, Phase::Whole, 7, all(7));
    world.rig.settle();
    assert_eq!(
        world.rig.applied.len(),
        applied + 91,
        "the network, and those that had gone"
    );
    assert_eq!((world.neighbours().len(), world.learned()), (100, 0));
    world.pass(LEASE * 2);
    assert_eq!(world.neighbours().len(), 100);
    assert_eq!(
        world.look_for(1, 500),
        Verdict::Drop(DropReason::UnknownDestination)
    );
}

#[test]
fn an_agent_that_starts_again_asks_for_what_it_finds() {
    let mut world = learned(1..4).restart();
    assert_eq!(world.learned(), 3);
    assert_eq!(way(&mut world, 1), Some(host(7)));
    world.directory.insert(2, (50, 9));
    world.directory.remove(&3);
    world.rig.connect();
    let rows = [
        network(true, 1),
        Key::Port(0, 1).change(1, true),
        Key::Port(0, 2).change(1, true),
    ];
    world.rig.delta(0, Phase::Whole, 60, rows.into_iter().collect());
    assert_eq!(world.answer_all(), (1, 3));
    assert_eq!(way(&mut world, 1), Some(host(7)));
    assert_eq!(way(&mut world, 2), Some(host(9)));
    assert_eq!(way(&mut world, 3), None);
    assert_eq!(world.learned(), 2);
}

#[test]
fn a_neighbour_that_the_data_plane_refuses_is_not_held_for() {
    let limits = Limits {
        neighbours: 2,
        ..Limits::default()
    };
    let mut world = World::with_limits(limits, 1);
    world.directory = (1..4).map(|n| (n, (10, 7))).collect();
    for n in 1..4 {
        world.look_for(1, n);
    }
    world.answer_all();
    assert_eq!(dropped(&world, Dropped::Refused), 1);
    assert_eq!(world.learned(), 2);
    world.rig.settle();
    assert_eq!(world.neighbours().len(), 2);
    world.look_for(1, 3);
    assert_eq!(world.answer_all(), (0, 0), "not at once");
    world.tell_gone(1, 20);
    world.pass(NEGATIVE_LEASE);
    world.look_for(1, 3);
    assert_eq!(world.answer_all(), (1, 1));
    assert_eq!(world.neighbours().len(), 2);
}

#[test]
fn answers_that_make_no_sense_do_no_harm() {
    let mut world = learned(1..2);
    let hear = |world: &mut World, id, answers| {
        let message = v1::Resolved { id, answers };
        world.rig.hear(FromNcm::Resolved(message));
        world.rig.settle();
    };
    hear(&mut world, 999, Vec::new());
    assert!(world.rig.agent.has_session(), "to no question");
    // No verdict, and a row of another address.
    for n in [5, 6] {
        world.look_for(1, n);
        let message = world.rig.asked.remove(0);
        let other = Answer {
            verdict: Answered::Route(Revision(10), neighbour(99, 7)),
            lease: LEASE,
        };
        let answers = match n {
            5 => vec![v1::Answer::default()],
            _ => alcor_southbound::convert::resolve::encode_answers(0, &[other]).answers,
        };
        hear(&mut world, message.id, answers);
    }
    assert_eq!(world.rig.agent.learning().answers["malformed"], 2);
    assert_eq!(dropped(&world, Dropped::Unknown), 2);
    assert_eq!(world.neighbours().len(), 1);
    // Fewer answers than questions: the NCM is broken.
    world.look_for(1, 7);
    let message = world.rig.asked.remove(0);
    hear(&mut world, message.id, Vec::new());
    assert!(!world.rig.agent.has_session());
}

#[test]
fn an_ncm_that_does_not_answer_is_asked_again() {
    let mut world = learned(1..2);
    world.rig.pass(LEASE * 3 / 4);
    assert!(world.is_asked(1), "the lease is to be renewed");
    world.rig.asked.clear();
    world.rig.pass(ANSWER_WITHIN);
    assert!(world.is_asked(1));
    world.rig.pass(LEASE);
    assert_eq!(
        way(&mut world, 1),
        Some(host(7)),
        "it stays as long as nobody says otherwise"
    );
}

#[test]
fn messages_are_full_and_few() {
    let mut world = World::new(1);
    let count = 10_000u32;
    let neighbours = (0..count).map(|n| Ok((Revision(5), RowChange::Put(Row::Neighbour(neighbour(n, 7))))));
    world.rig.delta(0, Phase::Delta, 5, neighbours.collect());
    world.directory = (0..count).map(|n| (n, (5, 7))).collect();
    world.rig.settle();
    world.rig.cut();
    world.rig.connect();
    world.rig.pass(ASK_AGAIN_AFTER);
    assert_eq!(world.rig.asked.len(), MESSAGES_MAX, "no more on their way");
    let sizes: Vec<usize> = world
        .rig
        .asked
        .iter()
        .map(|message| message.questions.len())
        .collect();
    assert!(sizes.iter().all(|size| *size <= QUESTIONS_MAX), "{sizes:?}");
    let (messages, questions) = world.answer_all();
    assert_eq!(questions, count as usize);
    assert_eq!(messages, 10);
    assert_eq!(world.learned(), count as usize);
}

#[test]
fn of_too_many_neighbours_the_least_recently_used_go() {
    let mut world = World::new(1);
    let count = u32::try_from(LEARNED_MAX).unwrap();
    let neighbours =
        (0..count + 5).map(|n| Ok((Revision(5), RowChange::Put(Row::Neighbour(neighbour(n, 7))))));
    world.rig.delta(0, Phase::Delta, 5, neighbours.collect());
    world.rig.settle();
    assert_eq!(
        (world.learned(), world.neighbours().len()),
        (LEARNED_MAX, LEARNED_MAX)
    );
    world.directory = (0..count + 100).map(|n| (n, (5, 7))).collect();
    for n in 5..15 {
        assert!(way(&mut world, n).is_some());
    }
    world.pass(LEASE * 3 / 4);
    for n in count + 50..count + 60 {
        world.look_for(1, n);
        world.answer_all();
    }
    let left: BTreeSet<_> = world.neighbours().iter().map(|row| row.ip).collect();
    assert_eq!(left.len(), LEARNED_MAX);
    let has = |n| left.contains(&ip(n));
    assert!((5..15).all(has), "used");
    assert!((count + 50..count + 60).all(has), "new");
    assert!(!(15..25).any(has), "neither");
    assert_eq!(world.rig.agent.learning().evicted, 15);
}

#[test]
fn packets_of_ports_and_networks_that_are_not_here_are_counted() {
    let mut world = World::new(1);
    let event = |port, network| {
        Event::Dataplane(alcor_dataplane::Event::Unresolved {
            port: port_id(0, port),
            network: network_id(network),
            address: ip(5),
            frame: world::arp(port, ip(5)).into(),
        })
    };
    world.rig.step(event(9, 0));
    world.rig.step(event(1, 1));
    assert_eq!(dropped(&world, Dropped::UnknownPort), 1);
    assert_eq!(dropped(&world, Dropped::NotOnDemand), 1);
    world.rig.delta(0, Phase::Delta, 5, vec![network(false, 5)]);
    world.rig.settle();
    world.rig.step(event(1, 0));
    assert_eq!(dropped(&world, Dropped::NotOnDemand), 2);
    assert!(world.rig.asked.is_empty());
    // A device that went while its packet was held.
    world.rig.delta(0, Phase::Delta, 6, vec![network(true, 6)]);
    world.rig.settle();
    world.directory.insert(5, (10, 7));
    world.look_for(1, 5);
    world.rig.model.detach(port_id(0, 1)).unwrap();
    world.answer_all();
    assert_eq!(dropped(&world, Dropped::Refused), 1);
    assert_eq!(world.rig.agent.learning().released, 0);
}

#[test]
fn an_address_behind_a_router_is_asked_for_in_its_own_network() {
    let mut world = World::new(1);
    let far = network_id(1);
    let router = |revision| {
        let row = RouterRow {
            id: Id::from_uuid(uuid::Uuid::from_u128(0x7000)),
            network_id: network_id(0),
            admin_state_up: true,
            interfaces: vec![InterfaceRow {
                network_id: far,
                cidr: "172.16.0.0/16".parse().unwrap(),
                address: IpAddr::from([172, 16, 0, 1]),
            }],
            routes: Vec::new(),
            external: None,
        };
        Ok((Revision(revision), RowChange::Put(Row::Router(row))))
    };
    let Row::Network(row) = common::row(Key::Network(1), 1) else {
        panic!("not a network");
    };
    let (vni, row) = (
        row.vni,
        NetworkRow {
            on_demand: true,
            ..row
        },
    );
    let row = Ok((Revision(1), RowChange::Put(Row::Network(row))));
    // A network without ports of this host.
    world.rig.delta(1, Phase::Whole, 1, vec![row]);
    world.rig.delta(0, Phase::Delta, 2, vec![router(2)]);
    world.rig.settle();

    let target = IpAddr::from([172, 16, 0, 9]);
    assert_eq!(world.send(1, &packet(1, GATEWAY_MAC, target)), HELD);
    world.rig.settle();
    let asked = world.questions();
    let question = (asked[0].network, asked[0].ip, asked[0].port);
    assert_eq!((asked.len(), question), (1, (far, target, Some(port_id(0, 1)))));
    world.answer_with(|_| Answer {
        verdict: Answered::Route(
            Revision(5),
            NeighbourRow {
                network_id: far,
                ip: target,
                ..neighbour(9, 7)
            },
        ),
        lease: LEASE,
    });
    world.rig.settle();
    let released = world.released();
    let [
        (
            _,
            Verdict::Tunnel {
                host: to, vni: into, ..
            },
        ),
    ] = &released[..]
    else {
        panic!("{released:?}");
    };
    assert_eq!((*to, *into), (host(7), vni));
    // The router goes, and with it the way.
    let gone = RowKey::Router(network_id(0), Id::from_uuid(uuid::Uuid::from_u128(0x7000)));
    let gone = Ok((Revision(6), RowChange::Remove(gone)));
    world.rig.delta(0, Phase::Delta, 6, vec![gone]);
    world.rig.settle();
    let verdict = world.send(1, &packet(1, GATEWAY_MAC, target));
    assert_eq!(verdict, Verdict::Drop(DropReason::NoRoute));
}
