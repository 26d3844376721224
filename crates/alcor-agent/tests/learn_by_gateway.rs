//! Networks on demand with gateways: nothing is held, the direct way is asked for; over the model data plane, without sockets.
#![allow(clippy::unwrap_used, reason = "a panic is how a test says no")]

mod common;
#[path = "common/world.rs"]
mod world;

use std::{net::IpAddr, time::Duration};

use alcor_agent::{
    core::{
        ANSWER_WITHIN, ASKED_MAX, Dropped, Event, HOLD_FOR, MESSAGES_MAX, QUESTION_BURST, QUESTIONS_PER_S,
    },
    delta::Phase,
};
use alcor_dataplane::{NetworkRow, Row, RowChange, Verdict, choice};
use alcor_model::{Revision, net::ON_DEMAND_MAC};
use alcor_southbound::convert::resolve::{Answer, Verdict as Answered};
use common::{network_id, port_id};
use world::{World, host, ip, mac, network, packet};

fn gateways() -> Vec<IpAddr> {
    vec![host(101), host(102), host(103)]
}

/// A row of the network that names these gateways.
fn row(gateways: Vec<IpAddr>, revision: u64) -> Result<(Revision, RowChange), String> {
    let Ok((revision, RowChange::Put(Row::Network(row)))) = network(true, revision) else {
        panic!("not a network");
    };
    let row = NetworkRow { gateways, ..row };
    Ok((revision, RowChange::Put(Row::Network(row))))
}

fn by_gateways(ports: u8) -> World {
    let mut world = World::new(ports);
    world.rig.delta(0, Phase::Delta, 2, vec![row(gateways(), 2)]);
    world.rig.settle();
    world
}

/// Where a packet of the port to an address goes that its station has learned nothing better of than the gateways' MAC.
fn way(world: &mut World, port: u8, n: u32) -> IpAddr {
    match world.send(port, &packet(port, ON_DEMAND_MAC, ip(n))) {
        Verdict::Tunnel { host, .. } => host,
        other => panic!("{other:?}"),
    }
}

fn gateway_of(port: u8, n: u32) -> IpAddr {
    choice::of_flow(IpAddr::from([10, 255, 0, port]), ip(n), &gateways()).unwrap()
}

/// By a gateway, unasked, questions.
fn counts(world: &World) -> (u64, u64, u64) {
    let counts = world.rig.agent.learning();
    assert!(counts.dropped.is_empty(), "{counts:?}");
    (counts.by_gateway, counts.unasked, counts.questions)
}

#[test]
fn the_first_packets_go_by_a_gateway_and_the_answer_is_the_direct_way() {
    let mut world = by_gateways(2);
    world.directory.insert(9, (10, 7));
    for port in [1, 2, 1] {
        assert_eq!(way(&mut world, port, 9), gateway_of(port, 9));
    }
    assert_eq!(world.rig.agent.learning_sizes().held, 0);
    assert_eq!(world.answer_all(), (1, 1), "one question, whoever sends how much");
    assert!(world.released().is_empty());
    for port in [1, 2] {
        assert_eq!(way(&mut world, port, 9), host(7));
    }
    assert_eq!(counts(&world), (3, 0, 1));
    assert_eq!(world.learned(), 1);
    assert!(world.rig.agent.take_waits().is_empty(), "nothing has waited");
    // Unused, it goes again, and the gateways know it still.
    world.pass(world::LEASE * 3);
    assert_eq!(world.learned(), 0);
    assert_eq!(way(&mut world, 1, 9), gateway_of(1, 9));
}

#[test]
fn two_hundred_peers_at_once_take_few_messages() {
    let mut world = by_gateways(4);
    world.directory = (0..200).map(|n| (n, (10, 7))).collect();
    for n in 0..200u32 {
        let port = 1 + (n % 4) as u8;
        assert_eq!(way(&mut world, port, n), gateway_of(port, n));
    }
    let (messages, questions) = world.answer_all();
    assert_eq!(questions, 200);
    assert!(messages <= MESSAGES_MAX + 1, "{messages}");
    assert_eq!(world.learned(), 200);
}

#[test]
fn an_address_that_nobody_has_is_not_asked_for_with_each_packet() {
    let mut world = by_gateways(1);
    way(&mut world, 1, 5);
    assert_eq!(world.answer_all(), (1, 1));
    for _ in 0..10 {
        assert_eq!(
            way(&mut world, 1, 5),
            gateway_of(1, 5),
            "gateways may know by now"
        );
    }
    assert_eq!(world.answer_all(), (0, 0));
    world.directory.insert(5, (10, 7));
    world.pass(world::NEGATIVE);
    way(&mut world, 1, 5);
    assert_eq!(world.answer_all(), (1, 1));
    assert_eq!(way(&mut world, 1, 5), host(7));
    assert_eq!(counts(&world), (12, 0, 2));
}

#[test]
fn a_scan_loses_nothing_and_its_questions_are_bounded() {
    let mut world = by_gateways(8);
    let began = world.rig.now.since_start;
    for n in 0..40_000u32 {
        way(&mut world, 1 + (n % 8) as u8, 1_000 + n);
    }
    let sizes = world.rig.agent.learning_sizes();
    assert_eq!((sizes.held, sizes.asked), (0, ASKED_MAX));
    let (by_gateway, unasked, questions) = counts(&world);
    assert_eq!((by_gateway, unasked + questions), (40_000, 40_000));
    // Answered as fast as it goes, one port may ask no more than any.
    world.answer_all();
    for n in 100_000..120_000u32 {
        way(&mut world, 1, n);
        world.answer_all();
    }
    let passed = (world.rig.now.since_start - began).as_secs_f64();
    let allowed = 8.0 * QUESTION_BURST + QUESTIONS_PER_S * passed;
    let (_, _, questions) = counts(&world);
    assert!(questions as f64 <= allowed + 8.0, "{questions} in {passed} s");
    assert!(world.rig.agent.learning_sizes().asked <= 1);
}

#[test]
fn without_a_session_nothing_is_asked_and_all_goes_by_gateways() {
    let mut world = by_gateways(1);
    world.directory = (0..20).map(|n| (n, (10, 7))).collect();
    way(&mut world, 1, 1);
    world.rig.cut();
    for n in 1..20 {
        assert_eq!(way(&mut world, 1, n), gateway_of(1, n));
    }
    assert_eq!(world.rig.agent.learning_sizes().asked, 0);
    assert_eq!(counts(&world), (20, 19, 1));
    world.rig.asked.clear();
    world.rig.connect();
    assert_eq!(world.answer_all(), (0, 0), "nobody waits");
    way(&mut world, 1, 1);
    assert_eq!(world.answer_all(), (1, 1));
    assert_eq!(way(&mut world, 1, 1), host(7));
}

#[test]
fn a_busy_ncm_is_asked_again_when_it_says_and_not_by_each_packet() {
    let mut world = by_gateways(1);
    world.directory.insert(5, (10, 7));
    way(&mut world, 1, 5);
    world.answer_with(|_| Answer {
        verdict: Answered::Busy,
        lease: Duration::from_millis(500),
    });
    for _ in 0..10 {
        way(&mut world, 1, 5);
    }
    assert!(!world.is_asked(5));
    world.rig.pass(Duration::from_millis(501));
    assert!(world.is_asked(5));
    world.answer_all();
    assert_eq!(way(&mut world, 1, 5), host(7));
}

#[test]
fn what_is_not_answered_is_asked_again_by_the_next_packet() {
    let mut world = by_gateways(1);
    world.directory.insert(5, (10, 7));
    way(&mut world, 1, 5);
    world.rig.asked.clear();
    world.rig.pass(HOLD_FOR);
    assert_eq!(world.rig.agent.learning_sizes().asked, 1);
    world.rig.pass(ANSWER_WITHIN);
    assert_eq!(world.rig.agent.learning_sizes().asked, 0, "nothing waits for it");
    way(&mut world, 1, 5);
    assert_eq!(world.answer_all(), (1, 1));
    assert_eq!(way(&mut world, 1, 5), host(7));
}

#[test]
fn without_gateways_the_way_of_a_packet_that_is_too_long_to_be_held_is_asked_for() {
    let mut world = World::new(1);
    world.directory.insert(5, (10, 7));
    let long = alcor_dataplane::Event::TooLong {
        port: port_id(0, 1),
        network: network_id(0),
        address: ip(5),
    };
    world.rig.step(Event::Dataplane(long));
    assert_eq!(world.answer_all(), (1, 1));
    let counts = world.rig.agent.learning();
    assert_eq!((counts.by_gateway, counts.unasked, counts.questions), (0, 0, 1));
    assert_eq!((counts.dropped[&Dropped::TooLong], counts.released), (1, 0));
    assert!(world.released().is_empty());
    let sent = world.send(1, &packet(1, mac(5), ip(5)));
    assert!(matches!(sent, Verdict::Tunnel { .. }), "{sent:?}");
}
