//! What gateways say of their load: newest word, rates between two words, and what is not known.

use std::collections::BTreeMap;

use alcor_dataplane::{DropReason, gateway::GatewayLoad};
use alcor_model::effective::LoadLine;
use alcor_proto::v1;
use alcor_southbound::convert::load::{LoadWord, encode_load};

use super::{
    super::*,
    sim::Sim,
    world::{GATEWAYS, name},
};

const G: u8 = GATEWAYS;

fn word(taken_s: u64, packets: u64, drops: u64) -> LoadWord {
    LoadWord {
        taken_us: taken_s * 1_000_000,
        load: GatewayLoad {
            east_west_packets: packets,
            east_west_bytes: packets.saturating_mul(100),
            north_packets: 1,
            ..GatewayLoad::default()
        },
        drops: BTreeMap::from([(DropReason::NoGateway, drops)]),
        ..LoadWord::default()
    }
}

impl Sim {
    fn says_load(&mut self, word: &LoadWord) {
        self.says(
            G,
            v1::Heartbeat {
                unreachable: Vec::new(),
                load: Some(encode_load(word)),
            },
        );
    }

    fn line(&self) -> Option<LoadLine> {
        let mut lines = self.ncm.gateway_lines().into_iter();
        lines.find(|line| line.name == name(G)).unwrap().load
    }

    fn load(&self) -> Option<alcor_model::effective::GatewayLoad> {
        self.ncm.host_state(&name(G)).unwrap().gateway.unwrap().load
    }
}

fn rates(sim: &Sim) -> [Option<u64>; 3] {
    let line = sim.line().unwrap();
    [line.packets_per_s, line.bytes_per_s, line.drops_per_s]
}

#[test]
fn load_is_the_newest_word_and_rates_are_between_the_last_two() {
    let mut sim = Sim::with_gateways(Options::default());
    sim.settle();
    assert_eq!((sim.line(), sim.load()), (None, None), "nothing was heard");
    sim.says_load(&word(10, 1_000, 5));
    let first = sim.load().unwrap();
    assert_eq!(first.passed[0].packets, 1_000);
    assert_eq!(
        (first.interval_ms, first.passed[0].packets_per_s),
        (None, None),
        "one word has no rate"
    );
    assert_eq!(rates(&sim), [None; 3]);
    assert_eq!(sim.line().unwrap().dropped, 5);
    // Two seconds on the gateway's clock, whenever they came.
    sim.says_load(&word(12, 3_000, 9));
    assert_eq!(rates(&sim), [Some(1_000), Some(100_000), Some(2)]);
    let load = sim.load().unwrap();
    assert_eq!((load.interval_ms, load.heard_since), (Some(2_000), first.said_at));
    assert!(load.said_at > first.said_at);
    let ways: Vec<_> = load
        .passed
        .iter()
        .map(|way| (&*way.way, way.packets, way.packets_per_s))
        .collect();
    assert_eq!(
        ways,
        [
            ("east_west", 3_000, Some(1_000)),
            ("north", 1, Some(0)),
            ("south", 0, Some(0))
        ]
    );
    let drops: Vec<_> = load
        .drops
        .iter()
        .map(|drop| (&*drop.reason, drop.packets, drop.packets_per_s))
        .collect();
    assert_eq!(drops, [("no_gateway", 9, Some(2))]);
    // A plain heartbeat leaves it, and changes nothing else.
    sim.beats(G, &[]);
    assert_eq!(sim.load().unwrap(), load);
    assert_eq!(sim.ncm.gateway_lines().len(), 3, "hosts are not among them");
}

#[test]
fn rates_are_not_known_when_the_words_do_not_say_them() {
    let mut sim = Sim::with_gateways(Options::default());
    sim.settle();
    for (what, next) in [
        ("counters began anew", word(11, 999, 5)),
        ("the clock stands", word(10, 2_000, 5)),
        ("the clock goes back", word(9, 2_000, 5)),
    ] {
        sim.says_load(&word(10, 1_000, 5));
        sim.says_load(&next);
        assert_eq!(rates(&sim)[0], None, "{what}");
        assert_eq!(
            sim.load().unwrap().passed[0].packets,
            next.load.east_west_packets,
            "{what}"
        );
    }
    // Numbers that no gateway has counted do no harm.
    let mut most = word(20, u64::MAX, u64::MAX);
    most.load.south_packets = u64::MAX;
    most.other_drops = u64::MAX;
    sim.says_load(&word(19, 0, 0));
    sim.says_load(&most);
    assert_eq!(sim.line().unwrap().dropped, u64::MAX);
    // What was said long ago is no rate of now.
    sim.says_load(&word(30, 1_000, 5));
    sim.says_load(&word(31, 2_000, 5));
    assert_eq!(rates(&sim)[0], Some(1_000));
    sim.now.since_start += LOAD_FRESH;
    sim.step(Event::Pulse);
    assert_eq!(rates(&sim), [None; 3]);
    assert_eq!(
        sim.load().unwrap().passed[0].packets,
        2_000,
        "counters stay, with when they were said"
    );
}

#[test]
fn load_is_of_the_present_session() {
    let mut sim = Sim::with_gateways(Options::default());
    sim.settle();
    sim.says_load(&word(10, 1_000, 5));
    sim.says_load(&word(11, 2_000, 5));
    sim.disconnect(G);
    assert!(sim.load().is_some(), "what was said last, and when");
    sim.agents.get_mut(&G).unwrap().incarnation += 1;
    sim.connect(G);
    assert_eq!(sim.load(), None, "it may be another process now");
    sim.says_load(&word(12, 3_000, 5));
    assert_eq!(rates(&sim), [None; 3]);
    // A host has no load, whatever it says.
    let session = sim.agents[&1].session.unwrap();
    let body = v1::agent_message::Body::Heartbeat(v1::Heartbeat {
        unreachable: Vec::new(),
        load: Some(encode_load(&word(1, 1, 1))),
    });
    sim.step(Event::Message { session, body });
    assert_eq!(sim.ncm.gateway_lines().len(), 3);
    assert_eq!(sim.ncm.host_state("h1").unwrap().gateway, None);
}
