//! Stage 8 between networks: routers, extra routes, labels of other networks; case by case, and for random worlds.
#![allow(clippy::unwrap_used)]

mod common;
#[path = "routing/world.rs"]
mod world;

use std::num::NonZeroU16;

use alcor_dataplane::{
    Dataplane,
    DropReason::{self, EgressDenied, IngressDenied, NoRoute, Oversize, ToGateway, UnknownDestination},
    Event, Ingress, InterfaceRow, LabelRow, Model, NetworkRow, PolicyRow, PortRow, PuntReason, RouteRow,
    RouterRow, Row, RowChange, RowKey, Verdict,
    probe::Payload,
    security::{Family, Remote, Rule},
    trace::{Probe, trace},
};
use bytes::Bytes;
use common::{
    ALICE, BOB, BROADCAST, CAROL, GATEWAY, RED, RED_VNI, echo, edit, id, ip, mac, neighbour, network, port,
    subnet, udp_ttl,
};

const GREEN: u128 = 4;
const GREEN_VNI: u32 = 400;
const ROUTER: u128 = 77;
/// In green, on this host and on another one.
const ZOE: u128 = CAROL;
const DAN: u128 = 30;
const DAN_HOST: &str = "192.0.2.9";

fn interface(network: u128, cidr: &str, address: &str) -> InterfaceRow {
    InterfaceRow {
        network_id: id(network),
        cidr: cidr.parse().unwrap(),
        address: ip(address),
    }
}

fn route(destination: &str, nexthop: &str, network: u128) -> RouteRow {
    RouteRow {
        destination: destination.parse().unwrap(),
        nexthop: ip(nexthop),
        network_id: id(network),
    }
}

fn router(network: u128) -> RouterRow {
    RouterRow {
        id: id(ROUTER),
        network_id: id(network),
        admin_state_up: true,
        interfaces: vec![
            interface(RED, "10.0.0.0/24", "10.0.0.1"),
            interface(RED, "fd00:a::/64", "fd00:a::1"),
            interface(GREEN, "10.9.0.0/24", "10.9.0.1"),
            interface(GREEN, "fd00:9::/64", "fd00:9::1"),
        ],
        routes: vec![
            route("172.16.0.0/12", "10.9.0.30", GREEN),
            route("10.9.0.64/26", "10.0.0.12", RED),
            route("10.0.0.128/25", "10.9.0.30", GREEN),
        ],
        external: None,
    }
}

fn rows() -> Vec<Row> {
    vec![
        Row::Network(network(RED, RED_VNI)),
        Row::Network(NetworkRow {
            mtu: 1000,
            ..network(GREEN, GREEN_VNI)
        }),
        Row::Subnet(subnet(1, RED, "10.0.0.0/24", Some("10.0.0.1"), true)),
        Row::Subnet(subnet(2, RED, "fd00:a::/64", Some("fd00:a::1"), true)),
        Row::Subnet(subnet(3, GREEN, "10.9.0.0/24", Some("10.9.0.1"), true)),
        Row::Subnet(subnet(4, GREEN, "fd00:9::/64", Some("fd00:9::1"), true)),
        Row::Router(router(RED)),
        Row::Router(router(GREEN)),
        Row::Neighbour(neighbour(GREEN, "10.9.0.30", mac(DAN), DAN_HOST, 0)),
        Row::Neighbour(neighbour(GREEN, "fd00:9::30", mac(DAN), DAN_HOST, 0)),
        Row::Port(port(ALICE, RED, &[(1, "10.0.0.11"), (2, "fd00:a::11")])),
        Row::Port(port(BOB, RED, &[(1, "10.0.0.12"), (2, "fd00:a::12")])),
        Row::Port(port(ZOE, GREEN, &[(3, "10.9.0.13"), (4, "fd00:9::13")])),
    ]
}

fn put(model: &mut Model, row: Row) {
    assert!(model.apply(&[RowChange::Put(row)])[0].is_ok());
}

fn model() -> Model {
    let mut model = Model::default();
    for row in rows() {
        put(&mut model, row);
    }
    for port in [ALICE, BOB, ZOE] {
        model.attach(id(port), &format!("tap{port}")).unwrap();
    }
    model
}

/// A datagram with this TTL.
fn datagram(from: (u128, &str), to: (alcor_model::MacAddr, &str), ttl: u8) -> Vec<u8> {
    udp_ttl((mac(from.0), to.0, from.1, to.1), ttl, (5000, 53), b"hello")
}

fn routed(to: u128, from_ip: &str, to_ip: &str) -> Bytes {
    udp_ttl((GATEWAY, mac(to), from_ip, to_ip), 63, (5000, 53), b"hello").into()
}

fn send(model: &mut Model, from: (u128, &str), to: &str) -> Verdict {
    model.process(Ingress::Port(id(from.0)), &datagram(from, (GATEWAY, to), 64))
}

fn into_tunnel(vni: u32, host: &str, label: u16, frame: Bytes) -> Verdict {
    Verdict::Tunnel {
        host: ip(host),
        vni: alcor_model::Vni::try_from(vni).unwrap(),
        label,
        forwarded: false,
        frame,
    }
}

const ALICE_IPS: [&str; 2] = ["10.0.0.11", "fd00:a::11"];

#[test]
fn a_router_leads_to_stations_of_its_other_networks() {
    let mut model = model();
    for (from, zoe, dan) in [
        (ALICE_IPS[0], "10.9.0.13", "10.9.0.30"),
        (ALICE_IPS[1], "fd00:9::13", "fd00:9::30"),
    ] {
        let delivered = Verdict::Deliver {
            port: id(ZOE),
            frame: routed(ZOE, from, zoe),
        };
        assert_eq!(send(&mut model, (ALICE, from), zoe), delivered);
        let sent = into_tunnel(GREEN_VNI, DAN_HOST, 0, routed(DAN, from, dan));
        assert_eq!(send(&mut model, (ALICE, from), dan), sent);
        // The way back, by the row that lies in the other network.
        let back = Verdict::Deliver {
            port: id(ALICE),
            frame: routed(ALICE, zoe, from),
        };
        assert_eq!(send(&mut model, (ZOE, zoe), from), back);
    }
    let used = [(id(GREEN), ip("10.9.0.30")), (id(RED), ip("10.9.0.30"))];
    assert_eq!(model.take_used(&used).unwrap(), [true, false]);
}

#[test]
fn every_address_of_a_router_answers_and_nothing_else_of_it() {
    let mut model = model();
    for (from, to) in [(ALICE_IPS[0], "10.9.0.1"), (ALICE_IPS[1], "fd00:9::1")] {
        let ping = echo((mac(ALICE), GATEWAY, from, to), 64, true);
        let pong = echo((GATEWAY, mac(ALICE), to, from), 64, false);
        let verdict = model.process(Ingress::Port(id(ALICE)), &ping);
        assert_eq!(verdict, Verdict::Reply { frame: pong.into() });
        assert_eq!(send(&mut model, (ALICE, from), to), Verdict::Drop(ToGateway));
    }
    put(
        &mut model,
        Row::Router(RouterRow {
            admin_state_up: false,
            ..router(RED)
        }),
    );
    let ping = echo((mac(ALICE), GATEWAY, ALICE_IPS[0], "10.9.0.1"), 64, true);
    let verdict = model.process(Ingress::Port(id(ALICE)), &ping);
    assert_eq!(verdict, Verdict::Drop(NoRoute));
}

#[test]
fn without_a_router_that_is_up_there_is_no_route() {
    let to_zoe = |model: &mut Model| send(model, (ALICE, ALICE_IPS[0]), "10.9.0.13");
    let mut down = model();
    put(
        &mut down,
        Row::Router(RouterRow {
            admin_state_up: false,
            ..router(RED)
        }),
    );
    assert_eq!(to_zoe(&mut down), Verdict::Drop(NoRoute));
    let mut less = model();
    let mut row = router(RED);
    row.interfaces.retain(|to| to.network_id == id(RED));
    put(&mut less, Row::Router(row));
    assert_eq!(to_zoe(&mut less), Verdict::Drop(NoRoute));
    let mut none = model();
    none.apply(&[RowChange::Remove(RowKey::Router(id(RED), id(ROUTER)))]);
    assert_eq!(to_zoe(&mut none), Verdict::Drop(NoRoute));
    // The router's row has come before the network's.
    let mut early = model();
    early.apply(&[RowChange::Remove(RowKey::Network(id(GREEN)))]);
    assert_eq!(to_zoe(&mut early), Verdict::Drop(NoRoute));
    let mut switched_off = model();
    put(
        &mut switched_off,
        Row::Network(NetworkRow {
            admin_state_up: false,
            ..network(GREEN, GREEN_VNI)
        }),
    );
    assert_eq!(to_zoe(&mut switched_off), Verdict::Drop(DropReason::PortDown));
    // Without a router nobody comes by its MAC either.
    let mut model = model();
    let to_mac = datagram((ALICE, ALICE_IPS[0]), (mac(ZOE), "10.9.0.13"), 64);
    let verdict = model.process(Ingress::Port(id(ALICE)), &to_mac);
    assert_eq!(verdict, Verdict::Drop(UnknownDestination));
    assert_eq!(model.drop_count(Some(id(ALICE)), UnknownDestination), 1);
}

#[test]
fn the_longest_match_wins_and_the_networks_own_subnets_before_all() {
    let mut model = model();
    let from = ALICE_IPS[0];
    let to_dan = |to| into_tunnel(GREEN_VNI, DAN_HOST, 0, routed(DAN, from, to));
    assert_eq!(
        send(&mut model, (ALICE, from), "172.16.3.4"),
        to_dan("172.16.3.4")
    );
    // A next hop in the own network.
    let to_bob = Verdict::Deliver {
        port: id(BOB),
        frame: routed(BOB, from, "10.9.0.70"),
    };
    assert_eq!(send(&mut model, (ALICE, from), "10.9.0.70"), to_bob);
    // Red's own subnet, not the longer route; the other way round in green.
    assert_eq!(
        send(&mut model, (ALICE, from), "10.0.0.200"),
        Verdict::Drop(UnknownDestination)
    );
    let hop = into_tunnel(GREEN_VNI, DAN_HOST, 0, routed(DAN, "10.9.0.13", "10.0.0.200"));
    assert_eq!(send(&mut model, (ZOE, "10.9.0.13"), "10.0.0.200"), hop);
    // Of two routers with the same block the smaller id.
    let second = RouterRow {
        id: id(ROUTER - 1),
        interfaces: Vec::new(),
        routes: vec![route("172.16.0.0/12", "10.9.0.30", RED)],
        ..router(RED)
    };
    put(&mut model, Row::Router(second));
    assert_eq!(
        send(&mut model, (ALICE, from), "172.16.3.4"),
        Verdict::Drop(UnknownDestination)
    );
}

#[test]
fn what_is_unknown_is_looked_for_in_the_network_that_the_route_tells() {
    let mut model = model();
    let mut events = model.events().unwrap();
    let from = ALICE_IPS[0];
    assert_eq!(
        send(&mut model, (ALICE, from), "10.9.0.40"),
        Verdict::Drop(UnknownDestination)
    );
    put(
        &mut model,
        Row::Network(NetworkRow {
            on_demand: true,
            ..network(GREEN, GREEN_VNI)
        }),
    );
    for (to, address) in [("10.9.0.40", "10.9.0.40"), ("172.16.0.1", "10.9.0.31")] {
        let mut row = router(RED);
        row.routes[0].nexthop = ip("10.9.0.31");
        put(&mut model, Row::Router(row));
        assert_eq!(
            send(&mut model, (ALICE, from), to),
            Verdict::Punt(PuntReason::Unresolved)
        );
        let held = Event::Unresolved {
            port: id(ALICE),
            network: id(GREEN),
            address: ip(address),
            frame: datagram((ALICE, from), (GATEWAY, to), 64).into(),
        };
        assert_eq!(events.try_recv().unwrap(), held);
    }
}

#[test]
fn size_and_time_to_live_are_the_other_networks() {
    let mut model = model();
    let between = |to| (mac(ALICE), GATEWAY, ALICE_IPS[0], to);
    let mut events = model.events().unwrap();
    let long = udp_ttl(between("10.9.0.13"), 64, (5000, 53), &[0; 1000 - 28 + 1]);
    let verdict = model.process(Ingress::Port(id(ALICE)), &long);
    assert_eq!(verdict, Verdict::Punt(PuntReason::TooBig));
    let told = Event::TooBig {
        port: id(ALICE),
        mtu: 1000,
        frame: long.clone().into(),
    };
    assert_eq!(events.try_recv().unwrap(), told);
    // Nobody fragments what may be fragmented.
    let long = edit(long, 20, &[0, 0]);
    assert_eq!(
        model.process(Ingress::Port(id(ALICE)), &long),
        Verdict::Drop(Oversize)
    );
    let fits = udp_ttl(between("10.9.0.13"), 64, (5000, 53), &[0; 1000 - 28]);
    assert!(matches!(
        model.process(Ingress::Port(id(ALICE)), &fits),
        Verdict::Deliver { .. }
    ));
    let last = udp_ttl(between("10.9.0.13"), 1, (5000, 53), b"hello");
    let verdict = model.process(Ingress::Port(id(ALICE)), &last);
    assert_eq!(verdict, Verdict::Punt(PuntReason::TtlExceeded));
    let flood = udp_ttl(
        (mac(ALICE), BROADCAST, ALICE_IPS[0], "10.9.0.255"),
        64,
        (1, 2),
        b"",
    );
    assert_eq!(
        model.process(Ingress::Port(id(ALICE)), &flood),
        Verdict::Drop(DropReason::NoFlood)
    );
}

fn policy(network: u128, group: u128, ingress: &[u128], egress: &[u128]) -> PolicyRow {
    let rules = |groups: &[u128]| {
        let rule = |group: &u128| Rule {
            family: Family::Ipv4,
            service: None,
            remote: Remote::Group(id(*group)),
        };
        groups.iter().map(rule).collect()
    };
    PolicyRow {
        network_id: id(network),
        group_id: id(group),
        stateful: true,
        ingress: rules(ingress),
        egress: rules(egress),
    }
}

fn label(network: u128, number: u16, groups: &[u128]) -> Row {
    Row::Label(LabelRow {
        network_id: id(network),
        label: NonZeroU16::new(number).unwrap(),
        groups: groups.iter().map(|group| id(*group)).collect(),
    })
}

/// Alice under group 1, Zoe and Dan under group 2, which have other numbers in each network.
fn filtered(alice: PolicyRow, zoe: PolicyRow) -> Model {
    let mut model = model();
    for row in [
        label(RED, 1, &[1]),
        label(RED, 2, &[2]),
        label(GREEN, 5, &[1]),
        label(GREEN, 1, &[2]),
    ] {
        put(&mut model, row);
    }
    put(&mut model, Row::Policy(alice));
    put(&mut model, Row::Policy(zoe));
    let labelled = |row: PortRow, label| {
        Row::Port(PortRow {
            label: Some(label),
            ..row
        })
    };
    put(&mut model, labelled(port(ALICE, RED, &[(1, "10.0.0.11")]), 1));
    put(&mut model, labelled(port(ZOE, GREEN, &[(3, "10.9.0.13")]), 1));
    put(
        &mut model,
        Row::Neighbour(neighbour(GREEN, "10.9.0.30", mac(DAN), DAN_HOST, 1)),
    );
    model
}

#[test]
fn rules_see_the_groups_of_other_networks() {
    let from = (ALICE, ALICE_IPS[0]);
    let mut both = filtered(policy(RED, 1, &[], &[2]), policy(GREEN, 2, &[1], &[]));
    assert!(matches!(
        send(&mut both, from, "10.9.0.13"),
        Verdict::Deliver { .. }
    ));
    // Dan's label 1 means in green what 2 means in red; Alice's 1 is 5 there.
    let sent = into_tunnel(GREEN_VNI, DAN_HOST, 5, routed(DAN, ALICE_IPS[0], "10.9.0.30"));
    assert_eq!(send(&mut both, from, "10.9.0.30"), sent);
    // Answers, from here and from elsewhere.
    let answer = |from: &str| udp_ttl((mac(ZOE), GATEWAY, from, ALICE_IPS[0]), 64, (53, 5000), b"hi");
    let verdict = both.process(Ingress::Port(id(ZOE)), &answer("10.9.0.13"));
    assert!(matches!(verdict, Verdict::Deliver { .. }), "{verdict:?}");
    let arrived = udp_ttl(
        (GATEWAY, mac(ALICE), "10.9.0.30", ALICE_IPS[0]),
        63,
        (53, 5000),
        b"hi",
    );
    let tunnel = |label| Ingress::Tunnel {
        source: ip(DAN_HOST),
        vni: RED_VNI,
        label,
        forwarded: false,
    };
    assert!(matches!(
        both.process(tunnel(2), &arrived),
        Verdict::Deliver { .. }
    ));
    assert_eq!(both.connections(id(ALICE)).unwrap().len(), 2);

    let mut wrong_group = filtered(policy(RED, 1, &[], &[1]), policy(GREEN, 2, &[1], &[]));
    assert_eq!(
        send(&mut wrong_group, from, "10.9.0.13"),
        Verdict::Drop(EgressDenied)
    );
    let mut refused = filtered(policy(RED, 1, &[], &[2]), policy(GREEN, 2, &[2], &[]));
    assert_eq!(
        send(&mut refused, from, "10.9.0.13"),
        Verdict::Drop(IngressDenied)
    );
    assert_eq!(refused.drop_count(Some(id(ZOE)), IngressDenied), 1);
    // A set that the other network has no label of is nobody's there.
    let mut unknown = filtered(policy(RED, 1, &[], &[2]), policy(GREEN, 2, &[1], &[]));
    unknown.apply(&[RowChange::Remove(RowKey::Label(
        id(GREEN),
        NonZeroU16::new(5).unwrap(),
    ))]);
    assert_eq!(
        send(&mut unknown, from, "10.9.0.13"),
        Verdict::Drop(IngressDenied)
    );
    let sent = into_tunnel(GREEN_VNI, DAN_HOST, 0, routed(DAN, ALICE_IPS[0], "10.9.0.30"));
    assert_eq!(send(&mut unknown, from, "10.9.0.30"), sent);
}

#[test]
fn a_trace_follows_the_packet_into_the_other_network() {
    let probe = |to| Probe {
        from: id(ALICE),
        to: ip(to),
        payload: Payload {
            protocol: 17,
            source_port: 5000,
            point: 53,
        },
    };
    let way = trace(&rows(), None, &probe("10.9.0.13"));
    assert_eq!(way.delivered_to, Some(id(ZOE)), "{way:?}");
    let router = way.stages.iter().find(|stage| stage.name == "router").unwrap();
    let green = id::<alcor_model::Network>(GREEN);
    assert_eq!(router.detail, format!("into network {green}, next hop 10.9.0.13"));
    // To the other host, which has Dan and knows Alice.
    let mut there = rows();
    there.retain(|row| !matches!(row, Row::Port(_) | Row::Neighbour(_)));
    there.push(Row::Port(port(DAN, GREEN, &[(3, "10.9.0.30")])));
    there.push(Row::Neighbour(neighbour(
        RED,
        ALICE_IPS[0],
        mac(ALICE),
        "192.0.2.1",
        0,
    )));
    for to in ["10.9.0.30", "172.16.0.1"] {
        let way = trace(&rows(), Some(&there), &probe(to));
        assert_eq!(way.delivered_to, Some(id(DAN)), "{way:?}");
    }
    let mut down = rows();
    down.retain(|row| !matches!(row, Row::Router(_)));
    let way = trace(&down, None, &probe("10.9.0.13"));
    assert_eq!(way.dropped, Some(NoRoute), "{way:?}");
}
