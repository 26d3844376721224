//! What a host does by gateways: what no row knows goes at once, between hosts; what leads out goes to the owner of the way.
#![allow(clippy::unwrap_used, reason = "a panic is how a test says no")]

mod common;

use std::{collections::BTreeMap, net::IpAddr, num::NonZeroU16, time::Duration};

use alcor_dataplane::{
    Dataplane, DataplaneError, DropReason, Event, ExternalRow, Ingress, InterfaceRow, LabelRow, Model,
    NetworkRow, PolicyRow, PortRow, PuntReason, RouteRow, RouterRow, Row, RowChange, RowKey, Verdict, choice,
    packet::mac_at,
    probe::Payload,
    row::MAX_GATEWAYS,
    security::{Family, Remote, Rule},
    testing::wire,
    trace::{Probe, trace},
};
use alcor_model::{MacAddr, Vni, net::ON_DEMAND_MAC, resource::AddressPair};
use bytes::Bytes;
use common::*;
use tokio::sync::mpsc::Receiver;

const GATEWAYS: [&str; 3] = ["192.0.2.101", "192.0.2.102", "192.0.2.103"];
const ROUTER: u128 = 77;
const OUTSIDE: &str = "203.0.113.9";

fn gateways() -> Vec<IpAddr> {
    GATEWAYS.iter().map(|text| ip(text)).collect()
}

fn put(model: &mut Model, row: Row) {
    let outcome = model.apply(&[RowChange::Put(row)]).remove(0);
    assert!(outcome.is_ok(), "{outcome:?}");
}

/// The red network, on demand.
fn red(gateways: Vec<IpAddr>) -> Row {
    Row::Network(NetworkRow {
        on_demand: true,
        gateways,
        ..network(RED, RED_VNI)
    })
}

fn with_gateways() -> (Model, Receiver<Event>) {
    let mut model = model();
    put(&mut model, red(gateways()));
    let events = model.events().unwrap();
    (model, events)
}

fn from_alice(model: &mut Model, frame: &[u8]) -> Verdict {
    model.process(Ingress::Port(id(ALICE)), frame)
}

fn datagram(to_mac: MacAddr, from: &str, to: &str) -> Vec<u8> {
    udp((mac(ALICE), to_mac, from, to), (5000, 53), b"hello")
}

fn tunnel(host: IpAddr, label: u16, frame: Vec<u8>) -> Verdict {
    Verdict::Tunnel {
        host,
        vni: Vni::try_from(RED_VNI).unwrap(),
        label,
        forwarded: false,
        frame: frame.into(),
    }
}

/// "Alice looks for this address", with what is to be held.
fn looks_for(network: u128, address: &str, frame: &[u8]) -> Event {
    Event::Unresolved {
        port: id(ALICE),
        network: id(network),
        address: ip(address),
        frame: Bytes::copy_from_slice(frame),
    }
}

fn ask(from: &str, target: &str) -> Vec<u8> {
    let me = mac(ALICE);
    if target.contains(':') {
        let rest = [&[0; 4], &v6(target).octets()[..], &[1, 1], &me.0[..]].concat();
        let to = MacAddr([0x33, 0x33, 0xff, 0, 0, 1]);
        return icmp6((me, to, from, "ff02::1:ff00:1"), 135, &rest);
    }
    wire::arp(
        (me, BROADCAST),
        1,
        (me, v4(from)),
        (MacAddr::default(), v4(target)),
    )
}

const OWN: [&str; 2] = ["10.0.0.11", "fd00:a::11"];

#[test]
fn what_no_row_knows_goes_by_a_gateway_at_once() {
    for (from, near, far) in [
        (OWN[0], "10.0.0.77", "10.0.1.77"),
        (OWN[1], "fd00:a::77", "fd00:b::77"),
    ] {
        let (mut model, mut events) = with_gateways();
        for mac_of_nobody in [ON_DEMAND_MAC, STRANGER] {
            let verdict = from_alice(&mut model, &datagram(mac_of_nobody, from, near));
            let host = choice::of_flow(ip(from), ip(near), &gateways()).unwrap();
            assert_eq!(verdict, tunnel(host, 0, datagram(ON_DEMAND_MAC, from, near)));
            assert_eq!(events.try_recv().unwrap(), looks_for(RED, near, b""));
        }
        // Routed: as any routed packet, but for the MAC.
        let verdict = from_alice(&mut model, &datagram(GATEWAY, from, far));
        let host = choice::of_flow(ip(from), ip(far), &gateways()).unwrap();
        let frame = udp_ttl((GATEWAY, ON_DEMAND_MAC, from, far), 63, (5000, 53), b"hello");
        assert_eq!(verdict, tunnel(host, 0, frame));
        assert_eq!(events.try_recv().unwrap(), looks_for(RED, far, b""));
        assert!(model.drops().unwrap().is_empty());
        // Known: the direct way, whatever MAC the station has learned.
        let row = neighbour(RED, near, EVE_MAC, EVE_HOST, 0);
        put(&mut model, Row::Neighbour(row));
        let verdict = from_alice(&mut model, &datagram(ON_DEMAND_MAC, from, near));
        assert_eq!(verdict, tunnel(ip(EVE_HOST), 0, datagram(EVE_MAC, from, near)));
        assert_eq!(model.take_used(&[(id(RED), ip(near))]).unwrap(), [true]);
        assert!(events.try_recv().is_err(), "nothing is to be asked");
    }
}

#[test]
fn without_gateways_and_after_it_was_held_it_is_as_it_was() {
    let frame = datagram(ON_DEMAND_MAC, OWN[0], "10.0.0.77");
    let unknown = Verdict::Drop(DropReason::UnknownDestination);
    let (mut model, mut events) = with_gateways();
    model.release(id(ALICE), &frame).unwrap();
    assert_eq!(model.take_released(), [(id(ALICE), unknown.clone())]);
    put(&mut model, red(Vec::new()));
    let held = Verdict::Punt(PuntReason::Unresolved);
    assert_eq!(from_alice(&mut model, &frame), held);
    assert_eq!(events.try_recv().unwrap(), looks_for(RED, "10.0.0.77", &frame));
    // Not on demand: nobody has what no row knows, and gateways are for nothing.
    let eager = NetworkRow {
        gateways: gateways(),
        ..network(RED, RED_VNI)
    };
    put(&mut model, Row::Network(eager));
    for frame in [frame, ask(OWN[0], "10.0.0.77")] {
        assert_eq!(from_alice(&mut model, &frame), unknown);
    }
    // An address of a subnet's gateway is nobody else's.
    put(&mut model, red(gateways()));
    let to_gateway = datagram(ON_DEMAND_MAC, OWN[0], "10.0.0.1");
    assert_eq!(from_alice(&mut model, &to_gateway), unknown);
    assert!(events.try_recv().is_err());
}

#[test]
fn questions_are_answered_for_addresses_of_subnets_only() {
    let (mut model, mut events) = with_gateways();
    let me = mac(ALICE);
    let reply = wire::arp(
        (ON_DEMAND_MAC, me),
        2,
        (ON_DEMAND_MAC, v4("10.0.2.77")),
        (me, v4(OWN[0])),
    );
    // In a subnet that has no gateway of its own, too.
    let verdict = from_alice(&mut model, &ask(OWN[0], "10.0.2.77"));
    assert_eq!(verdict, Verdict::Reply { frame: reply.into() });
    assert_eq!(events.try_recv().unwrap(), looks_for(RED, "10.0.2.77", b""));

    let target = "fd00:b::77";
    let Verdict::Reply { frame } = from_alice(&mut model, &ask(OWN[1], target)) else {
        panic!("no advertisement");
    };
    let rest = [
        &[0x60, 0, 0, 0],
        &v6(target).octets()[..],
        &[2, 1],
        &ON_DEMAND_MAC.0[..],
    ]
    .concat();
    // Solicited, override; no router.
    assert_eq!(
        frame[..],
        icmp6((ON_DEMAND_MAC, me, target, OWN[1]), 136, &rest)[..]
    );
    assert_eq!(events.try_recv().unwrap(), looks_for(RED, target, b""));

    // Whether anybody has it, and what no subnet has: held.
    let link_local = me.link_local().to_string();
    for (from, target) in [
        ("0.0.0.0", "10.0.0.77"),
        ("::", "fd00:a::77"),
        (OWN[0], "10.9.9.9"),
        (OWN[1], "fd00:c::1"),
        (link_local.as_str(), "fe80::77"),
    ] {
        let question = ask(from, target);
        let verdict = from_alice(&mut model, &question);
        assert_eq!(verdict, Verdict::Punt(PuntReason::Unresolved), "{target}");
        assert_eq!(events.try_recv().unwrap(), looks_for(RED, target, &question));
        model.release(id(ALICE), &question).unwrap();
        let unknown = Verdict::Drop(DropReason::UnknownDestination);
        assert_eq!(model.take_released(), [(id(ALICE), unknown)]);
    }
    // So is the announcement of a further address of one's own: an answer would be a conflict.
    let further = [("10.0.0.77", "10.0.0.77/32"), ("fd00:a::77", "fd00:a::77/128")];
    let pair = |(_, address): &(&str, &str)| AddressPair {
        ip_address: address.parse().unwrap(),
        mac_address: me,
    };
    let alice = PortRow {
        allowed_address_pairs: further.iter().map(pair).collect(),
        ..port(ALICE, RED, &[(1, OWN[0]), (4, OWN[1])])
    };
    put(&mut model, Row::Port(alice));
    for (address, _) in further {
        let question = ask(address, address);
        let verdict = from_alice(&mut model, &question);
        assert_eq!(verdict, Verdict::Punt(PuntReason::Unresolved), "{address}");
        assert_eq!(events.try_recv().unwrap(), looks_for(RED, address, &question));
    }
    // What somebody has is answered as ever, the gateway too.
    for (target, answer) in [
        ("10.0.0.50", DAVE_MAC),
        ("10.0.0.12", mac(BOB)),
        ("10.0.0.1", GATEWAY),
    ] {
        let Verdict::Reply { frame } = from_alice(&mut model, &ask(OWN[0], target)) else {
            panic!("no reply for {target}");
        };
        assert_eq!(mac_at(&frame, 6), Some(answer));
    }
    assert!(events.try_recv().is_err());
}

const SET: u16 = 1;
const GROUP: u128 = 1;
const FRIENDS: u128 = 2;

/// Alice under a group with these egress rules.
fn filtered(remotes: &[Remote]) -> (Model, Receiver<Event>) {
    let (mut model, events) = with_gateways();
    let rules = remotes.iter().map(|remote| Rule {
        family: Family::Ipv4,
        service: None,
        remote: remote.clone(),
    });
    for (number, groups) in [(SET, vec![id(GROUP)]), (2, vec![id(FRIENDS)])] {
        put(
            &mut model,
            Row::Label(LabelRow {
                network_id: id(RED),
                label: NonZeroU16::new(number).unwrap(),
                groups,
            }),
        );
    }
    put(
        &mut model,
        Row::Policy(PolicyRow {
            network_id: id(RED),
            group_id: id(GROUP),
            stateful: true,
            ingress: Vec::new(),
            egress: rules.collect(),
        }),
    );
    let alice = PortRow {
        label: Some(SET),
        ..port(ALICE, RED, &[(1, OWN[0])])
    };
    put(&mut model, Row::Port(alice));
    (model, events)
}

fn block(text: &str) -> Remote {
    Remote::Prefixes(vec![text.parse().unwrap()])
}

#[test]
fn rules_about_addresses_decide_at_once_and_the_label_goes_along() {
    let (mut model, mut events) = filtered(&[block("10.0.0.64/26")]);
    let verdict = from_alice(&mut model, &datagram(ON_DEMAND_MAC, OWN[0], "10.0.0.77"));
    let host = choice::of_flow(ip(OWN[0]), ip("10.0.0.77"), &gateways()).unwrap();
    let sent = datagram(ON_DEMAND_MAC, OWN[0], "10.0.0.77");
    assert_eq!(verdict, tunnel(host, SET, sent));
    assert_eq!(events.try_recv().unwrap(), looks_for(RED, "10.0.0.77", b""));
    assert_eq!(model.connections(id(ALICE)).unwrap().len(), 1);
    // Beyond the block: as without gateways, whoever asks finds out.
    let refused = datagram(ON_DEMAND_MAC, OWN[0], "10.0.0.33");
    assert_eq!(
        from_alice(&mut model, &refused),
        Verdict::Punt(PuntReason::Unresolved)
    );
    assert_eq!(events.try_recv().unwrap(), looks_for(RED, "10.0.0.33", &refused));
    assert_eq!(model.connections(id(ALICE)).unwrap().len(), 1);
}

#[test]
fn what_only_a_group_may_allow_is_held_and_nothing_is_forgotten_meanwhile() {
    let (mut model, mut events) = filtered(&[Remote::Group(id(FRIENDS))]);
    let frame = datagram(ON_DEMAND_MAC, OWN[0], "10.0.0.77");
    let known = || Row::Neighbour(neighbour(RED, "10.0.0.77", EVE_MAC, EVE_HOST, 2));
    let direct = tunnel(ip(EVE_HOST), SET, datagram(EVE_MAC, OWN[0], "10.0.0.77"));
    assert_eq!(
        from_alice(&mut model, &frame),
        Verdict::Punt(PuntReason::Unresolved)
    );
    assert_eq!(events.try_recv().unwrap(), looks_for(RED, "10.0.0.77", &frame));
    assert!(model.connections(id(ALICE)).unwrap().is_empty());
    put(&mut model, known());
    model.release(id(ALICE), &frame).unwrap();
    assert_eq!(model.take_released(), [(id(ALICE), direct.clone())]);
    let before = model.connections(id(ALICE)).unwrap();
    assert_eq!(before.len(), 1);
    // The row lapses under a connection: it is held again, and the connection is what it was.
    model.apply(&[RowChange::Remove(RowKey::Neighbour(id(RED), ip("10.0.0.77")))]);
    assert_eq!(
        from_alice(&mut model, &frame),
        Verdict::Punt(PuntReason::Unresolved)
    );
    assert_eq!(model.connections(id(ALICE)).unwrap(), before);
    put(&mut model, known());
    assert_eq!(from_alice(&mut model, &frame), direct);
    // Refused for the rules' sake, in the end.
    put(
        &mut model,
        Row::Neighbour(neighbour(RED, "10.0.0.77", EVE_MAC, EVE_HOST, SET)),
    );
    model.advance(Duration::from_secs(1_000));
    model.release(id(ALICE), &frame).unwrap();
    let refused = Verdict::Drop(DropReason::EgressDenied);
    assert_eq!(model.take_released(), [(id(ALICE), refused)]);
}

fn interface(network: u128, cidr: &str, address: &str) -> InterfaceRow {
    InterfaceRow {
        network_id: id(network),
        cidr: cidr.parse().unwrap(),
        address: ip(address),
    }
}

fn external(gateways: Vec<IpAddr>) -> ExternalRow {
    ExternalRow {
        network_id: id(999),
        address: Some(v4("203.0.113.1")),
        enable_snat: true,
        gateways,
    }
}

/// A router between red and blue, with a route by a station of blue, and a way out.
fn router(number: u128, external: Option<ExternalRow>) -> RouterRow {
    RouterRow {
        id: id(number),
        network_id: id(RED),
        admin_state_up: true,
        interfaces: vec![
            interface(RED, "10.0.0.0/24", "10.0.0.1"),
            interface(BLUE, "10.7.0.0/24", "10.7.0.1"),
        ],
        routes: vec![RouteRow {
            destination: "172.16.0.0/12".parse().unwrap(),
            nexthop: ip("10.7.0.40"),
            network_id: id(BLUE),
        }],
        external,
    }
}

#[test]
fn in_another_network_its_gateways_know_but_not_whom_a_route_leads_to() {
    let (mut model, mut events) = with_gateways();
    put(&mut model, Row::Router(router(ROUTER, None)));
    let blue_gateway = vec![ip("192.0.2.111")];
    put(
        &mut model,
        Row::Network(NetworkRow {
            on_demand: true,
            gateways: blue_gateway.clone(),
            ..network(BLUE, BLUE_VNI)
        }),
    );
    let verdict = from_alice(&mut model, &datagram(GATEWAY, OWN[0], "10.7.0.40"));
    let frame = udp_ttl(
        (GATEWAY, ON_DEMAND_MAC, OWN[0], "10.7.0.40"),
        63,
        (5000, 53),
        b"hello",
    );
    let sent = Verdict::Tunnel {
        host: blue_gateway[0],
        vni: Vni::try_from(BLUE_VNI).unwrap(),
        label: 0,
        forwarded: false,
        frame: frame.into(),
    };
    assert_eq!(verdict, sent);
    assert_eq!(events.try_recv().unwrap(), looks_for(BLUE, "10.7.0.40", b""));
    // The gateway would look for 172.16.0.9, which nobody has.
    let routed = datagram(GATEWAY, OWN[0], "172.16.0.9");
    assert_eq!(
        from_alice(&mut model, &routed),
        Verdict::Punt(PuntReason::Unresolved)
    );
    assert_eq!(events.try_recv().unwrap(), looks_for(BLUE, "10.7.0.40", &routed));
}

#[test]
fn what_leads_out_goes_to_the_owner_of_the_way() {
    let (mut model, mut events) = with_gateways();
    let out = datagram(GATEWAY, OWN[0], OUTSIDE);
    let no_route = Verdict::Drop(DropReason::NoRoute);
    assert_eq!(from_alice(&mut model, &out), no_route);
    put(
        &mut model,
        Row::Router(router(ROUTER, Some(external(Vec::new())))),
    );
    assert_eq!(from_alice(&mut model, &out), Verdict::Drop(DropReason::NoGateway));
    put(
        &mut model,
        Row::Router(router(ROUTER, Some(external(gateways())))),
    );
    let frame = udp_ttl((GATEWAY, GATEWAY, OWN[0], OUTSIDE), 63, (5000, 53), b"hello");
    let by = |router, gateways: &[IpAddr]| {
        let owner = choice::owner(id(router), gateways).unwrap();
        tunnel(owner, 0, frame.clone())
    };
    assert_eq!(from_alice(&mut model, &out), by(ROUTER, &gateways()));
    // The network needs no gateways of its own for that, and need not be on demand.
    put(&mut model, Row::Network(network(RED, RED_VNI)));
    assert_eq!(from_alice(&mut model, &out), by(ROUTER, &gateways()));
    // Of two ways the one of the lower id, as long as that router is up.
    let other = vec![ip("192.0.2.120")];
    let second = router(ROUTER - 1, Some(external(other.clone())));
    put(&mut model, Row::Router(second.clone()));
    assert_eq!(from_alice(&mut model, &out), by(ROUTER - 1, &other));
    put(
        &mut model,
        Row::Router(RouterRow {
            admin_state_up: false,
            ..second
        }),
    );
    assert_eq!(from_alice(&mut model, &out), by(ROUTER, &gateways()));
    // The source chooses: a longer block, another block, none.
    let within = |number, cidr, address| RouterRow {
        interfaces: vec![interface(RED, cidr, address)],
        ..router(number, Some(external(other.clone())))
    };
    put(
        &mut model,
        Row::Router(within(ROUTER + 1, "10.0.0.8/29", "10.0.0.9")),
    );
    assert_eq!(from_alice(&mut model, &out), by(ROUTER + 1, &other));
    put(
        &mut model,
        Row::Router(within(ROUTER + 1, "10.0.1.0/24", "10.0.1.1")),
    );
    assert_eq!(from_alice(&mut model, &out), by(ROUTER, &gateways()));
    put(&mut model, Row::Router(within(ROUTER, "10.0.2.0/24", "10.0.2.1")));
    assert_eq!(from_alice(&mut model, &out), no_route);
    // A router without an address outside hides nobody.
    let mut nameless = router(ROUTER, Some(external(gateways())));
    nameless.external.as_mut().unwrap().address = None;
    put(&mut model, Row::Router(nameless));
    assert_eq!(from_alice(&mut model, &out), no_route);
    // A route is nearer than the way out, however wide.
    let mut nearer = router(ROUTER, Some(external(gateways())));
    nearer.routes[0].destination = "0.0.0.0/0".parse().unwrap();
    nearer.routes[0].network_id = id(RED);
    nearer.routes[0].nexthop = ip("10.0.0.12");
    put(&mut model, Row::Router(nearer));
    assert!(matches!(from_alice(&mut model, &out), Verdict::Deliver { port, .. } if port == id(BOB)));
    put(
        &mut model,
        Row::Router(router(ROUTER, Some(external(gateways())))),
    );
    // What is not IPv4, what has lived long enough, what is too long.
    let six = udp((mac(ALICE), GATEWAY, OWN[1], "2001:db8::9"), (5000, 53), b"");
    assert_eq!(from_alice(&mut model, &six), no_route);
    let last = udp_ttl((mac(ALICE), GATEWAY, OWN[0], OUTSIDE), 1, (5000, 53), b"");
    assert_eq!(
        from_alice(&mut model, &last),
        Verdict::Punt(PuntReason::TtlExceeded)
    );
    let long = udp((mac(ALICE), GATEWAY, OWN[0], OUTSIDE), (5000, 53), &[0; MTU]);
    assert_eq!(from_alice(&mut model, &long), Verdict::Punt(PuntReason::TooBig));
    assert!(
        !matches!(events.try_recv(), Ok(Event::Unresolved { .. })),
        "nobody is asked for"
    );
}

#[test]
fn what_leads_out_is_judged_by_address_and_never_held() {
    for (rules, passes) in [
        (vec![block("203.0.113.0/24")], true),
        (vec![Remote::Group(id(FRIENDS))], false),
    ] {
        let (mut model, mut events) = filtered(&rules);
        put(
            &mut model,
            Row::Router(router(ROUTER, Some(external(gateways())))),
        );
        let verdict = from_alice(&mut model, &datagram(GATEWAY, OWN[0], OUTSIDE));
        match passes {
            // Whoever is outside has no use for labels.
            true => assert!(matches!(verdict, Verdict::Tunnel { label: 0, .. }), "{verdict:?}"),
            false => assert_eq!(verdict, Verdict::Drop(DropReason::EgressDenied)),
        }
        assert!(events.try_recv().is_err());
    }
}

#[test]
fn more_gateways_than_there_may_be_are_refused() {
    let mut model = model();
    let many: Vec<IpAddr> = (0..=MAX_GATEWAYS)
        .map(|last| ip(&format!("192.0.2.{last}")))
        .collect();
    let rows = [
        red(many.clone()),
        Row::Router(router(ROUTER, Some(external(many)))),
    ];
    for row in rows {
        let refused = model.apply(&[RowChange::Put(row)]).remove(0);
        assert!(
            matches!(
                refused,
                Err(DataplaneError::Full {
                    limit: MAX_GATEWAYS,
                    ..
                })
            ),
            "{refused:?}"
        );
    }
}

/// Which gateway has each of a thousand flows.
fn spread(model: &mut Model) -> BTreeMap<u16, IpAddr> {
    let flows = (0..1_000u16).map(|flow| {
        let to = format!("10.0.{}.{}", 100 + flow / 200, flow % 200 + 1);
        match from_alice(model, &datagram(ON_DEMAND_MAC, OWN[0], &to)) {
            Verdict::Tunnel { host, .. } => (flow, host),
            other => panic!("{to}: {other:?}"),
        }
    });
    flows.collect()
}

#[test]
fn a_gateway_that_goes_or_comes_moves_its_own_flows_only() {
    let (mut model, events) = with_gateways();
    drop(events);
    let ten: Vec<IpAddr> = (1..=10)
        .map(|last| ip(&format!("192.0.2.{}", 100 + last)))
        .collect();
    put(&mut model, red(ten.clone()));
    let before = spread(&mut model);
    for gone in &ten {
        let rest: Vec<IpAddr> = ten.iter().copied().filter(|member| member != gone).collect();
        put(&mut model, red(rest));
        let after = spread(&mut model);
        let moved = before.iter().filter(|(flow, host)| after[flow] != **host);
        let moved: Vec<_> = moved.map(|(_, host)| *host).collect();
        assert!(moved.iter().all(|host| host == gone), "{gone}: only its own");
        assert!(
            (50..200).contains(&moved.len()),
            "{gone}: {} of 1000",
            moved.len()
        );
        put(&mut model, red(ten.clone()));
        assert_eq!(spread(&mut model), before, "it comes back to its own");
    }
}

#[test]
fn a_trace_tells_of_the_gateway() {
    let probe = |to: &str| Probe {
        from: id(ALICE),
        to: ip(to),
        payload: Payload {
            protocol: 17,
            source_port: 5000,
            point: 53,
        },
    };
    let red = |gateways| {
        let mut rows = rows();
        rows.retain(|row| !matches!(row, Row::Network(row) if row.id == id(RED)));
        rows.push(self::red(gateways));
        rows
    };
    let mut near = red(gateways());
    near.push(Row::Router(router(ROUTER, Some(external(gateways())))));
    // On another host: Zoe, who has 10.0.0.77.
    let zoe = PortRow {
        mac: EVE_MAC,
        ..port(FRANK, RED, &[(1, "10.0.0.77")])
    };
    let mut far = red(gateways());
    far.retain(|row| !matches!(row, Row::Port(_) | Row::Neighbour(_)));
    far.push(Row::Port(zoe));
    let way = trace(&near, Some(&far), &probe("10.0.0.77"));
    assert_eq!(
        (way.delivered_to, way.dropped),
        (Some(id(FRANK)), None),
        "{way:?}"
    );
    let names: Vec<_> = way.stages.iter().map(|stage| stage.name).collect();
    assert!(names.contains(&"gateway"), "{names:?}");
    let host = choice::of_flow(ip(OWN[0]), ip("10.0.0.77"), &gateways()).unwrap();
    let told = |text: &str| way.stages.iter().any(|stage| stage.detail.contains(text));
    assert!(
        told(&format!("by gateway {host}")) && told(&format!("from {host}")),
        "{way:?}"
    );

    let way = trace(&near, None, &probe(OUTSIDE));
    let owner = choice::owner(id(ROUTER), &gateways()).unwrap();
    assert!(
        way.stages.last().unwrap().detail.contains(&owner.to_string()),
        "{way:?}"
    );
    assert_eq!((way.delivered_to, way.dropped), (None, None));
}
