//! What holds for every goal state and every frame. Frames are read with an independent parser.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::{BTreeMap, BTreeSet};

use alcor_dataplane::{
    Dataplane, DropReason, Ingress, PortRow, PuntReason, Row, RowChange, RowKey, Verdict,
    testing::{Scenario, rng::Rng},
};
use alcor_model::{
    Id, Network, Port,
    net::{GATEWAY_MAC, ON_DEMAND_MAC},
};
use bytes::Bytes;
use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use proptest::prelude::*;

/// The network that an ingress belongs to.
fn network_of(scenario: &Scenario, ingress: &Ingress) -> Option<Id<Network>> {
    scenario.rows.iter().find_map(|row| match (row, ingress) {
        (Row::Port(row), Ingress::Port(port)) if row.id == *port => Some(row.network_id),
        (Row::Network(row), Ingress::Tunnel { vni, .. }) if row.vni.get() == *vni => Some(row.id),
        _ => None,
    })
}

/// The networks that a frame of this network may come into: its own, and those that its routers that are up lead to.
fn reachable(scenario: &Scenario, network: Option<Id<Network>>) -> BTreeSet<Id<Network>> {
    let mut reachable: BTreeSet<_> = network.into_iter().collect();
    for row in &scenario.rows {
        let Row::Router(row) = row else { continue };
        if Some(row.network_id) == network && row.admin_state_up {
            reachable.extend(row.interfaces.iter().map(|to| to.network_id));
            reachable.extend(row.routes.iter().map(|to| to.network_id));
        }
    }
    reachable
}

fn networks(scenario: &Scenario) -> BTreeSet<Id<Network>> {
    scenario.rows.iter().map(|row| row.key().network_id()).collect()
}

fn port(scenario: &Scenario, id: Id<Port>) -> &PortRow {
    let mut rows = scenario.rows.iter();
    rows.find_map(|row| match row {
        Row::Port(row) if row.id == id => Some(row),
        _ => None,
    })
    .expect("a verdict names a port that has a row")
}

/// Whether the checksums of an IP packet hold; `None` when there is none that can be checked.
fn checksums_hold(frame: &[u8]) -> Option<bool> {
    let packet = SlicedPacket::from_ethernet(frame).ok()?;
    let header_holds = match packet.net.as_ref()? {
        NetSlice::Ipv4(ip) => {
            let header = ip.header().to_header();
            if ip.is_payload_fragmented() {
                return Some(header.calc_header_checksum() == header.header_checksum);
            }
            header.calc_header_checksum() == header.header_checksum
        }
        NetSlice::Ipv6(ip) if ip.is_payload_fragmented() => return None,
        NetSlice::Ipv6(_) => true,
        _ => return None,
    };
    Some(header_holds && transport_holds(&packet).unwrap_or(true))
}

fn transport_holds(packet: &SlicedPacket<'_>) -> Option<bool> {
    Some(match (packet.net.as_ref()?, packet.transport.as_ref()?) {
        (NetSlice::Ipv4(ip), TransportSlice::Udp(udp)) => {
            let header = ip.header().to_header();
            udp.to_header().calc_checksum_ipv4(&header, udp.payload()).ok()? == udp.checksum()
        }
        (NetSlice::Ipv6(ip), TransportSlice::Udp(udp)) => {
            let header = ip.header().to_header();
            udp.to_header().calc_checksum_ipv6(&header, udp.payload()).ok()? == udp.checksum()
        }
        (NetSlice::Ipv4(ip), TransportSlice::Tcp(tcp)) => {
            let addresses = (ip.header().source(), ip.header().destination());
            tcp.calc_checksum_ipv4(addresses.0, addresses.1).ok()? == tcp.checksum()
        }
        (NetSlice::Ipv6(ip), TransportSlice::Tcp(tcp)) => {
            let addresses = (ip.header().source(), ip.header().destination());
            tcp.calc_checksum_ipv6(addresses.0, addresses.1).ok()? == tcp.checksum()
        }
        (NetSlice::Ipv4(_), TransportSlice::Icmpv4(icmp)) => {
            // The complement of the sum over a message that holds its own right checksum is zero.
            alcor_dataplane_abi::csum_fold(alcor_dataplane::packet::word_sum(icmp.slice())) == 0
        }
        (NetSlice::Ipv6(ip), TransportSlice::Icmpv6(icmp)) => {
            icmp.is_checksum_valid(ip.header().source(), ip.header().destination())
        }
        _ => return None,
    })
}

/// Length of an ICMP error as hosts send it to the outside.
const TOLD_LEN: usize = 14 + 20 + 8 + 28;

/// One scenario through one model: what must hold after every frame.
fn check_scenario(scenario: &Scenario) {
    let seed = scenario.seed;
    let mut model = scenario.model();
    for (index, (ingress, frame)) in scenario.frames.iter().enumerate() {
        let before = model.drops().unwrap();
        let verdict = model.process(ingress.clone(), frame);
        let at = format!("seed {seed}, frame {index}: {verdict:?}");
        let network = network_of(scenario, ingress);
        let floats = !scenario.uplinks.devices.is_empty() && !matches!(ingress, Ingress::Tunnel { .. });
        let reachable = match ingress {
            // From and to floating IPs, any network that has some.
            Ingress::Port(_) | Ingress::External { .. } if floats => networks(scenario),
            Ingress::Port(_) => reachable(scenario, network),
            Ingress::Tunnel { .. } | Ingress::External { .. } => network.into_iter().collect(),
        };
        let out = match &verdict {
            Verdict::External { packet, .. } => {
                assert!(matches!(ingress, Ingress::Port(_)), "{at}");
                &Bytes::from([&frame[..14], packet].concat())
            }
            Verdict::Pass => {
                assert!(matches!(ingress, Ingress::External { .. }), "{at}");
                assert_eq!(model.drops().unwrap(), before, "{at}");
                continue;
            }
            Verdict::Deliver {
                port: receiver,
                frame: out,
            } => {
                assert!(reachable.contains(&port(scenario, *receiver).network_id), "{at}");
                assert!(scenario.devices.contains_key(receiver), "{at}");
                out
            }
            Verdict::Tunnel {
                vni,
                forwarded,
                frame: out,
                ..
            } => {
                let owner = network_of(
                    scenario,
                    &Ingress::Tunnel {
                        source: [0; 4].into(),
                        vni: vni.get(),
                        label: 0,
                        forwarded: false,
                    },
                );
                assert!(owner.is_some_and(|owner| reachable.contains(&owner)), "{at}");
                let was_passed_on = matches!(ingress, Ingress::Tunnel { forwarded: true, .. });
                assert!(!was_passed_on, "nothing is passed on twice: {at}");
                assert_eq!(*forwarded, !matches!(ingress, Ingress::Port(_)), "{at}");
                out
            }
            Verdict::Reply { frame: out } => {
                assert!(!matches!(ingress, Ingress::Tunnel { .. }), "{at}");
                let is_told = matches!(ingress, Ingress::External { .. }) && out.len() == TOLD_LEN;
                let is_answered = matches!(out.len(), 42 | 86) || out.len() == frame.len();
                assert!(is_told || is_answered, "{at}");
                out
            }
            Verdict::Punt(_) => {
                assert!(matches!(ingress, Ingress::Port(_)), "{at}");
                assert_eq!(model.drops().unwrap(), before, "{at}");
                continue;
            }
            Verdict::Drop(reason) => {
                assert_one_counter_moved(&before, &model.drops().unwrap(), *reason, &at);
                continue;
            }
        };
        assert_eq!(model.drops().unwrap(), before, "{at}");
        if checksums_hold(frame) == Some(true) {
            assert_ne!(checksums_hold(out), Some(false), "{at}");
        }
    }
}

fn assert_one_counter_moved(
    before: &alcor_dataplane::Drops,
    after: &alcor_dataplane::Drops,
    reason: DropReason,
    at: &str,
) {
    let moved: Vec<_> = after
        .iter()
        .map(|(key, count)| (key, count - before.get(key).copied().unwrap_or_default()))
        .filter(|(_, difference)| *difference > 0)
        .collect();
    assert!(
        matches!(moved[..], [((_, r), 1)] if *r == reason),
        "{at}: {moved:?}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_scenario_keeps_tenants_apart_checksums_right_and_counters_exact(seed: u64) {
        check_scenario(&Scenario::from_seed(seed));
        check_scenario(&Scenario::secured(seed));
        check_scenario(&Scenario::learning(seed));
        check_scenario(&Scenario::routed(seed));
        check_scenario(&Scenario::with_gateways(seed));
        check_scenario(&Scenario::floating(seed));
    }

    #[test]
    fn any_bytes_give_a_verdict(seed: u64, frame in proptest::collection::vec(any::<u8>(), 0..200)) {
        let scenario = Scenario::with_frames(seed, 1);
        let mut model = scenario.model();
        for (ingress, _) in scenario.frames {
            model.process(ingress, &frame);
        }
        for port in scenario.devices.keys() {
            model.process(Ingress::Port(*port), &frame);
        }
    }

    #[test]
    fn a_snapshot_is_what_was_applied_and_applying_it_again_changes_nothing(seed: u64) {
        let scenario = Scenario::floating(seed);
        let mut model = scenario.model();
        let snapshot = model.snapshot().unwrap();
        prop_assert_eq!(&snapshot.rows, &scenario.rows);
        prop_assert_eq!(&snapshot.devices, &scenario.devices);
        prop_assert!(model.apply(&scenario.changes()).iter().all(Result::is_ok));
        prop_assert_eq!(model.snapshot().unwrap(), snapshot);
    }

    #[test]
    fn the_order_within_networks_does_not_matter(seed: u64, order: u64) {
        let scenario = Scenario::floating(seed);
        let mut changes = scenario.changes();
        shuffle(&mut changes, order);
        changes.sort_by_key(|change| !matches!(change, RowChange::Put(Row::Network(_))));
        let mut shuffled = scenario.empty_model();
        prop_assert!(shuffled.apply(&changes).iter().all(Result::is_ok));
        for (port, device) in &scenario.devices {
            shuffled.attach(*port, device).unwrap();
        }
        let mut model = scenario.model();
        prop_assert_eq!(shuffled.snapshot().unwrap(), model.snapshot().unwrap());
        for (ingress, frame) in &scenario.frames {
            prop_assert_eq!(shuffled.process(ingress.clone(), frame), model.process(ingress.clone(), frame));
        }
    }

    #[test]
    fn removing_everything_in_any_order_leaves_nothing(seed: u64, order: u64) {
        let scenario = Scenario::floating(seed);
        let mut model = scenario.model();
        let mut keys: Vec<RowKey> = scenario.rows.iter().map(Row::key).collect();
        shuffle(&mut keys, order);
        let removals: Vec<RowChange> = keys.into_iter().map(RowChange::Remove).collect();
        prop_assert!(model.apply(&removals).iter().all(Result::is_ok));
        prop_assert!(model.snapshot().unwrap().rows.is_empty());
        // Nothing of the removed rows lingers in an index: the same rows go in again.
        prop_assert!(model.apply(&scenario.changes()).iter().all(Result::is_ok));
        prop_assert_eq!(model.snapshot().unwrap().rows, scenario.rows);
    }
}

fn shuffle<T>(items: &mut [T], seed: u64) {
    let mut rng = Rng::new(seed);
    for last in (1..items.len()).rev() {
        items.swap(last, rng.below(last + 1));
    }
}

#[test]
fn scenarios_reach_every_verdict_and_reason() {
    let mut seen: BTreeMap<&str, u32> = BTreeMap::new();
    let scenarios = |seed| {
        [
            Scenario::from_seed(seed),
            Scenario::secured(seed),
            Scenario::learning(seed),
            Scenario::routed(seed),
            Scenario::with_gateways(seed),
            Scenario::floating(seed),
        ]
    };
    for scenario in (0..600).flat_map(scenarios) {
        let mut model = scenario.model();
        for (ingress, frame) in scenario.frames {
            let name = match model.process(ingress, &frame) {
                Verdict::Deliver { .. } => "deliver",
                Verdict::Tunnel { forwarded: true, .. } => "forwarded",
                Verdict::Tunnel { frame, .. } if frame.starts_with(&ON_DEMAND_MAC.0) => "by a gateway",
                Verdict::Tunnel { frame, .. } if frame.starts_with(&GATEWAY_MAC.0) => "out",
                Verdict::Tunnel { .. } => "tunnel",
                Verdict::Reply { frame } if frame[6..].starts_with(&ON_DEMAND_MAC.0) => "for a gateway",
                Verdict::Reply { .. } => "reply",
                Verdict::External { .. } => "external",
                Verdict::Pass => "pass",
                Verdict::Punt(reason) => reason.as_str(),
                Verdict::Drop(reason) => reason.as_str(),
            };
            *seen.entry(name).or_default() += 1;
        }
    }
    println!("{seen:#?}");
    // Of the kernel or of gateways only; or of a full table or meter, which takes more frames than a scenario has.
    let elsewhere = [
        DropReason::PuntLimit,
        DropReason::Internal,
        DropReason::ConnectionLimit,
        DropReason::NotOwner,
        DropReason::NatPortsExhausted,
        DropReason::NatConnectionLimit,
        DropReason::OutsideDenied,
        DropReason::IcmpLimit,
    ]
    .map(DropReason::as_str);
    let drops = DropReason::ALL.iter().map(|reason| reason.as_str());
    let punts = PuntReason::ALL.iter().map(|reason| reason.as_str());
    let wanted: BTreeSet<&str> = drops
        .chain(punts)
        .chain(["deliver", "tunnel", "forwarded", "reply"])
        .chain(["by a gateway", "for a gateway", "out", "external", "pass"])
        .filter(|name| !elsewhere.contains(name))
        .collect();
    let rare: Vec<_> = wanted
        .iter()
        .filter(|name| seen.get(*name).copied().unwrap_or(0) < 20)
        .collect();
    assert!(
        rare.is_empty(),
        "the generator reaches these too rarely: {rare:?}"
    );
}

#[test]
fn a_hundred_thousand_random_frames_give_verdicts() {
    let scenario = Scenario::with_frames(7, 100_000);
    let mut model = scenario.model();
    let mut rng = Rng::new(1);
    let mut dropped = 0;
    for (ingress, mut frame) in scenario.frames {
        if rng.chance(50) {
            let at = rng.below(frame.len());
            let noise = rng.bytes(4);
            alcor_dataplane::packet::put(&mut frame, at, &noise);
        }
        dropped += u64::from(matches!(model.process(ingress, &frame), Verdict::Drop(_)));
    }
    assert_eq!(model.drops().unwrap().values().sum::<u64>(), dropped);
}
