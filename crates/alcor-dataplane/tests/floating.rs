//! Floating IPs that the host itself translates: whose they are, both directions, hairpins, and what is refused.
#![allow(clippy::unwrap_used)]

mod common;

use std::{net::Ipv4Addr, time::Duration};

use alcor_dataplane::{
    Dataplane, DropReason, Event, FloatingIpRow, Ingress, InterfaceRow, Model, PuntReason, RouterRow, Row,
    RowChange, RowKey, Uplinks, Verdict,
    packet::{ETH_LEN, word_sum},
    testing::wire::{self, Ip},
};
use alcor_dataplane_abi::{csum_fold, flow::PROTO_UDP, gateway_layout::ICMP_ERROR_BURST};
use alcor_model::MacAddr;
use common::{ALICE, BLUE, BOB, CAROL, DOWN, GATEWAY, MTU, RED, echo, edit, id, ip, mac, model, udp, v4};

const DEVICE: &str = "ext0";
const DEVICE_MAC: MacAddr = MacAddr([2, 0, 0, 0, 1, 1]);
const NEXT_HOP: MacAddr = MacAddr([2, 0, 0, 0, 1, 2]);
const TUNNEL_IP: &str = "192.0.2.1";
const EXTERNAL: u128 = 900;
const ROUTER: u128 = 800;
const OUTSIDE: &str = "198.51.100.7";

fn router(up: bool) -> Row {
    Row::Router(RouterRow {
        id: id(ROUTER),
        network_id: id(RED),
        admin_state_up: up,
        interfaces: vec![InterfaceRow {
            network_id: id(RED),
            cidr: "10.0.0.0/24".parse().unwrap(),
            address: ip("10.0.0.1"),
        }],
        routes: Vec::new(),
        external: None,
    })
}

fn row(number: u128, floating: &str, fixed: &str) -> FloatingIpRow {
    FloatingIpRow {
        id: id(number),
        network_id: id(RED),
        router_id: id(ROUTER),
        floating_ip: v4(floating),
        fixed_ip: v4(fixed),
        external_network_id: id(EXTERNAL),
        host: Some(ip(TUNNEL_IP)),
        cidr: Some("203.0.113.0/24".parse().unwrap()),
        nexthop: Some(v4("203.0.113.254")),
    }
}

fn put(model: &mut Model, row: Row) {
    model.apply(&[RowChange::Put(row)]).remove(0).unwrap();
}

/// Alice has 203.0.113.11, Bob 203.0.113.12, Down 203.0.113.14; 203.0.113.40 leads to an address that nobody has.
fn floating() -> Model {
    let mut model = model().with_uplinks(Uplinks {
        tunnel_ip: Some(ip(TUNNEL_IP)),
        devices: [(id(EXTERNAL), DEVICE.to_owned())].into(),
    });
    put(&mut model, router(true));
    for (number, floating, fixed) in [
        (11, "203.0.113.11", "10.0.0.11"),
        (12, "203.0.113.12", "10.0.0.12"),
        (14, "203.0.113.14", "10.0.0.14"),
        (40, "203.0.113.40", "10.0.0.40"),
    ] {
        put(&mut model, Row::FloatingIp(row(number, floating, fixed)));
    }
    model
}

fn out(model: &mut Model, port: u128, frame: &[u8]) -> Verdict {
    model.process(Ingress::Port(id(port)), frame)
}

fn arrive(model: &mut Model, frame: &[u8]) -> Verdict {
    let device = DEVICE.to_owned();
    model.process(
        Ingress::External {
            device,
            mac: DEVICE_MAC,
        },
        frame,
    )
}

fn from_alice(to: &str) -> Vec<u8> {
    udp((mac(ALICE), GATEWAY, "10.0.0.11", to), (5000, 53), b"question")
}

fn to_floating(address: &str) -> Vec<u8> {
    udp((NEXT_HOP, DEVICE_MAC, OUTSIDE, address), (53, 5000), b"answer")
}

/// The same packet with another TTL, source and destination, as it would have been built.
fn rebuilt(source: &str, destination: &str, ttl: u8, ports: (u16, u16), payload: &[u8]) -> Vec<u8> {
    let between = (MacAddr([0; 6]), MacAddr([0; 6]), source, destination);
    common::udp_ttl(between, ttl, ports, payload)[ETH_LEN..].to_vec()
}

/// Where a frame left by the device, and as what.
fn left(verdict: Verdict) -> (Ipv4Addr, Vec<u8>) {
    match verdict {
        Verdict::External {
            device,
            nexthop,
            packet,
        } => {
            assert_eq!(device, DEVICE);
            (nexthop, packet.to_vec())
        }
        other => panic!("does not leave by the device: {other:?}"),
    }
}

#[test]
fn a_packet_leaves_from_its_floating_ip() {
    let mut model = floating();
    let (nexthop, packet) = left(out(&mut model, ALICE, &from_alice(OUTSIDE)));
    assert_eq!(nexthop, v4("203.0.113.254"));
    assert_eq!(
        without_id(&packet),
        without_id(&rebuilt("203.0.113.11", OUTSIDE, 63, (5000, 53), b"question"))
    );
    let (nexthop, _) = left(out(&mut model, ALICE, &from_alice("203.0.113.77")));
    assert_eq!(nexthop, v4("203.0.113.77"), "what is in the block is a neighbour");
}

/// Frames are built with one identification and "must not be fragmented"; both sides of a comparison are.
fn without_id(packet: &[u8]) -> Vec<u8> {
    assert_eq!(
        csum_fold(word_sum(&packet[..20])),
        0,
        "the header's checksum is right"
    );
    packet.to_vec()
}

#[test]
fn a_packet_to_a_floating_ip_reaches_its_port() {
    let mut model = floating();
    let Verdict::Deliver { port, frame } = arrive(&mut model, &to_floating("203.0.113.11")) else {
        panic!("not delivered");
    };
    assert_eq!(port, id(ALICE));
    assert_eq!(frame[..6], mac(ALICE).0);
    assert_eq!(frame[6..12], GATEWAY.0);
    assert_eq!(
        frame[ETH_LEN..],
        rebuilt(OUTSIDE, "10.0.0.11", 63, (53, 5000), b"answer")
    );
}

#[test]
fn only_rows_of_this_host_count() {
    let base = row(11, "203.0.113.11", "10.0.0.11");
    let others = [
        Row::FloatingIp(FloatingIpRow { host: None, ..base }),
        Row::FloatingIp(FloatingIpRow {
            host: Some(ip("192.0.2.2")),
            ..base
        }),
        Row::FloatingIp(FloatingIpRow {
            external_network_id: id(901),
            ..base
        }),
        Row::FloatingIp(FloatingIpRow {
            router_id: id(801),
            ..base
        }),
        router(false),
    ];
    for other in others {
        let mut model = floating();
        put(&mut model, other.clone());
        let verdict = out(&mut model, ALICE, &from_alice(OUTSIDE));
        assert_eq!(verdict, Verdict::Drop(DropReason::NoRoute), "{other:?}");
        assert_eq!(
            arrive(&mut model, &to_floating("203.0.113.11")),
            Verdict::Pass,
            "{other:?}"
        );
    }
    let mut model = floating();
    let key = RowKey::FloatingIp(id(RED), id(11));
    model.apply(&[RowChange::Remove(key)]).remove(0).unwrap();
    assert_eq!(arrive(&mut model, &to_floating("203.0.113.11")), Verdict::Pass);
    assert_eq!(
        arrive(&mut model, &to_floating("203.0.113.12")),
        arrive(&mut floating(), &to_floating("203.0.113.12"))
    );
}

#[test]
fn a_hairpin_comes_in_at_once() {
    let mut model = floating();
    let Verdict::Deliver { port, frame } = out(&mut model, ALICE, &from_alice("203.0.113.12")) else {
        panic!("not delivered");
    };
    assert_eq!(port, id(BOB));
    assert_eq!(
        frame[ETH_LEN..],
        rebuilt("203.0.113.11", "10.0.0.12", 62, (5000, 53), b"question")
    );
    let own = out(&mut model, ALICE, &from_alice("203.0.113.11"));
    assert!(
        matches!(own, Verdict::Deliver { port, .. } if port == id(ALICE)),
        "{own:?}"
    );
    let down = out(&mut model, ALICE, &from_alice("203.0.113.14"));
    assert_eq!(down, Verdict::Drop(DropReason::PortDown));
    assert_eq!(model.drop_count(Some(id(DOWN)), DropReason::PortDown), 1);
    let nobody = out(&mut model, ALICE, &from_alice("203.0.113.40"));
    assert_eq!(nobody, Verdict::Drop(DropReason::UnknownDestination));
    assert_eq!(
        model.drop_count(Some(id(ALICE)), DropReason::UnknownDestination),
        1
    );
}

#[test]
fn an_address_of_this_host_is_answered_for() {
    let mut model = floating();
    let ask = |target: &str, sender: &str| {
        let sender = (NEXT_HOP, v4(sender));
        let target = (MacAddr([0; 6]), v4(target));
        wire::arp((NEXT_HOP, MacAddr::BROADCAST), 1, sender, target)
    };
    let reply = wire::arp(
        (DEVICE_MAC, NEXT_HOP),
        2,
        (DEVICE_MAC, v4("203.0.113.11")),
        (NEXT_HOP, v4("203.0.113.254")),
    );
    let question = ask("203.0.113.11", "203.0.113.254");
    assert_eq!(
        arrive(&mut model, &question),
        Verdict::Reply { frame: reply.into() }
    );
    for probe in ["0.0.0.0", "203.0.113.11"] {
        let verdict = arrive(&mut model, &ask("203.0.113.11", probe));
        assert!(matches!(verdict, Verdict::Reply { .. }), "{verdict:?}");
    }
    for passed in [ask("203.0.113.99", "203.0.113.254"), edit(question, 21, &[2])] {
        assert_eq!(arrive(&mut model, &passed), Verdict::Pass);
    }
}

#[test]
fn what_is_not_this_hosts_passes() {
    let mut model = floating();
    let frame = to_floating("203.0.113.11");
    let tagged = [&frame[..12], &[0x81, 0, 0, 5], &frame[12..]].concat();
    for passed in [
        to_floating("203.0.113.99"),
        edit(frame.clone(), 0, &NEXT_HOP.0),
        edit(frame.clone(), 0, &MacAddr::BROADCAST.0),
        edit(frame.clone(), 12, &[0x86, 0xdd]),
        tagged,
        frame[..30].to_vec(),
        Vec::new(),
    ] {
        assert_eq!(arrive(&mut model, &passed), Verdict::Pass);
    }
    let other_device = Ingress::External {
        device: "ext1".to_owned(),
        mac: DEVICE_MAC,
    };
    assert_eq!(model.process(other_device, &frame), Verdict::Pass);
    assert!(model.drops().unwrap().is_empty());
}

#[test]
fn what_comes_in_is_checked() {
    let frame = to_floating("203.0.113.11");
    let with = |ip: Ip, upper: &[u8]| ip.frame(NEXT_HOP, DEVICE_MAC, PROTO_UDP, upper);
    let plain = Ip::new(ip(OUTSIDE), ip("203.0.113.11"), 64);
    let optional = Ip {
        options: vec![1; 4],
        ..plain.clone()
    };
    let old = Ip {
        ttl: 1,
        source: ip("127.0.0.1"),
        ..plain.clone()
    };
    let datagram = plain.udp((53, 5000), &[0; MTU]);
    for (frame, reason) in [
        (edit(frame.clone(), 24, &[0]), DropReason::Malformed),
        (edit(frame.clone(), 16, &[9]), DropReason::Malformed),
        (with(optional, &datagram[..60]), DropReason::Malformed),
        (with(plain.clone(), &datagram[..7]), DropReason::Malformed),
        (with(old, &datagram[..60]), DropReason::Loop),
        (with(plain, &datagram), DropReason::Oversize),
        (to_floating("203.0.113.40"), DropReason::UnknownDestination),
    ] {
        let mut model = floating();
        assert_eq!(arrive(&mut model, &frame), Verdict::Drop(reason));
        assert_eq!(model.drop_count(None, reason), 1);
    }
    let mut model = floating();
    let down = arrive(&mut model, &to_floating("203.0.113.14"));
    assert_eq!(down, Verdict::Drop(DropReason::PortDown));
    assert_eq!(model.drop_count(Some(id(DOWN)), DropReason::PortDown), 1);
}

/// The ICMP error that a frame from outside is answered with: type, code and MTU.
fn told(verdict: &Verdict, frame: &[u8]) -> [u8; 4] {
    let Verdict::Reply { frame: reply } = verdict else {
        panic!("it is told, not {verdict:?}");
    };
    let macs = [&frame[6..12], &frame[..6], &[8, 0]].concat();
    assert_eq!(reply[..ETH_LEN], macs, "back to who sent it");
    let (header, message) = reply[ETH_LEN..].split_at(20);
    assert_eq!(
        (csum_fold(word_sum(header)), csum_fold(word_sum(message))),
        (0, 0)
    );
    assert_eq!(header[..10], [0x45, 0, 0, 56, 0, 0, 0x40, 0, 64, 1]);
    let (source, destination) = (&frame[26..30], &frame[30..34]);
    assert_eq!(header[12..], [destination, source].concat());
    assert_eq!(message[8..], frame[14..42], "it quotes what came");
    [message[0], message[1], message[6], message[7]]
}

#[test]
fn who_sends_from_outside_what_cannot_go_on_is_told() {
    let plain = Ip {
        fragment: 0x4000,
        ..Ip::new(ip(OUTSIDE), ip("203.0.113.11"), 64)
    };
    let frame = |ip: Ip, payload: &[u8]| {
        let datagram = ip.udp((53, 5000), payload);
        ip.frame(NEXT_HOP, DEVICE_MAC, PROTO_UDP, &datagram)
    };
    let too_long = frame(plain.clone(), &[0; MTU]);
    let fits = frame(plain.clone(), &[0; MTU - 28]);
    let mut model = floating();
    let [high, low] = (MTU as u16).to_be_bytes();
    assert_eq!(told(&arrive(&mut model, &too_long), &too_long), [3, 4, high, low]);
    let old = Ip {
        ttl: 1,
        ..plain.clone()
    };
    let expired = frame(old.clone(), b"anybody?");
    assert_eq!(told(&arrive(&mut model, &expired), &expired), [11, 0, 0, 0]);
    assert!(matches!(arrive(&mut model, &fits), Verdict::Deliver { .. }));

    // Who may not be told: behind an error, a later fragment, no single station.
    let unreachable = old.icmp(3, 1, &[&[0; 4], &expired[14..42]].concat());
    let about_error = old.frame(NEXT_HOP, DEVICE_MAC, unreachable.0, &unreachable.1);
    let later = Ip {
        fragment: 0x0010,
        ..old.clone()
    };
    let mut quiet = vec![about_error, frame(later, b"the rest")];
    for source in ["0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255"] {
        let source = ip(source);
        quiet.push(frame(
            Ip {
                source,
                ..old.clone()
            },
            b"?",
        ));
    }
    for frame in quiet {
        let verdict = arrive(&mut model, &frame);
        assert_eq!(verdict, Verdict::Drop(DropReason::Loop), "{frame:?}");
    }
}

#[test]
fn no_more_is_told_than_the_limit_allows() {
    let old = Ip::new(ip(OUTSIDE), ip("203.0.113.11"), 1);
    let datagram = old.udp((53, 5000), b"anybody?");
    let frame = old.frame(NEXT_HOP, DEVICE_MAC, PROTO_UDP, &datagram);
    let mut model = floating();
    for _ in 0..ICMP_ERROR_BURST {
        told(&arrive(&mut model, &frame), &frame);
    }
    let limited = Verdict::Drop(DropReason::IcmpLimit);
    assert_eq!(arrive(&mut model, &frame), limited);
    assert_eq!(model.drop_count(None, DropReason::IcmpLimit), 1);
    model.advance(Duration::from_millis(2));
    for _ in 0..2 {
        told(&arrive(&mut model, &frame), &frame);
    }
    assert_eq!(arrive(&mut model, &frame), limited, "time gives no more back");
}

#[test]
fn an_error_quotes_what_its_receiver_sent() {
    let mut model = floating();
    let (_, sent) = left(out(&mut model, ALICE, &from_alice(OUTSIDE)));
    let error = |quoted: &[u8]| {
        let header = Ip::new(ip("192.0.2.250"), ip("203.0.113.11"), 60);
        let (protocol, message) = header.icmp(3, 1, &[&[0; 4], &quoted[..28]].concat());
        header.frame(NEXT_HOP, DEVICE_MAC, protocol, &message)
    };
    let Verdict::Deliver { frame, .. } = arrive(&mut model, &error(&sent)) else {
        panic!("not delivered");
    };
    let icmp = &frame[ETH_LEN + 20..];
    assert_eq!(csum_fold(word_sum(icmp)), 0, "the message's checksum is right");
    assert_eq!(icmp[8 + 12..8 + 16], v4("10.0.0.11").octets());
    assert_eq!(
        csum_fold(word_sum(&icmp[8..28])),
        0,
        "and that of the quoted header"
    );
    let foreign = edit(sent, 12, &v4("203.0.113.12").octets());
    assert_eq!(
        arrive(&mut model, &error(&foreign)),
        Verdict::Drop(DropReason::NoTranslation)
    );
}

#[test]
fn the_way_out_needs_a_next_hop_and_leads_to_no_host() {
    let mut model = floating();
    let lost = FloatingIpRow {
        cidr: None,
        nexthop: None,
        ..row(11, "203.0.113.11", "10.0.0.11")
    };
    put(&mut model, Row::FloatingIp(lost));
    let verdict = out(&mut model, ALICE, &from_alice(OUTSIDE));
    assert_eq!(verdict, Verdict::Drop(DropReason::NoRoute));
    let mut model = floating();
    let mut red = common::network(RED, common::RED_VNI);
    red.underlay = Some(vec!["192.0.2.0/24".parse().unwrap()]);
    put(&mut model, Row::Network(red));
    let verdict = out(&mut model, ALICE, &from_alice("192.0.2.9"));
    assert_eq!(
        verdict,
        Verdict::Drop(DropReason::NoRoute),
        "tenants do not reach hosts"
    );
    left(out(&mut model, ALICE, &from_alice(OUTSIDE)));
}

#[test]
fn who_sends_more_than_the_network_takes_is_told() {
    let mut model = floating();
    let long = udp((mac(ALICE), GATEWAY, "10.0.0.11", OUTSIDE), (5000, 53), &[0; MTU]);
    assert_eq!(out(&mut model, ALICE, &long), Verdict::Punt(PuntReason::TooBig));
    let may_be_fragmented = edit(long, 20, &[0]);
    let verdict = out(&mut model, ALICE, &may_be_fragmented);
    assert_eq!(verdict, Verdict::Drop(DropReason::Oversize));
}

#[test]
fn who_sends_more_than_the_device_takes_is_told() {
    let mut model = floating();
    let mut events = model.events().unwrap();
    model.set_uplink_mtu(DEVICE, 1000);
    let of = |len: usize| {
        udp(
            (mac(ALICE), GATEWAY, "10.0.0.11", OUTSIDE),
            (5000, 53),
            &vec![0; len - 28],
        )
    };
    left(out(&mut model, ALICE, &of(1000)));
    let long = of(1001);
    assert_eq!(out(&mut model, ALICE, &long), Verdict::Punt(PuntReason::TooBig));
    let event = Event::TooBig {
        port: id(ALICE),
        mtu: 1000,
        frame: long.clone().into(),
    };
    assert_eq!(events.try_recv().unwrap(), event);
    let verdict = out(&mut model, ALICE, &edit(long, 20, &[0]));
    assert_eq!(verdict, Verdict::Drop(DropReason::Oversize));
    // To another port of the host the device is not in the way.
    let hairpin = udp(
        (mac(ALICE), GATEWAY, "10.0.0.11", "203.0.113.12"),
        (5000, 53),
        &[0; 1000],
    );
    assert!(matches!(
        out(&mut model, ALICE, &hairpin),
        Verdict::Deliver { .. }
    ));
}

#[test]
fn a_frame_that_was_held_goes_by_gateways() {
    let mut model = floating();
    let device = model.snapshot().unwrap().devices;
    assert!(device.contains_key(&id(ALICE)));
    model.release(id(ALICE), &from_alice(OUTSIDE)).unwrap();
    let released = model.take_released();
    assert_eq!(
        released,
        [(id(ALICE), Verdict::Drop(DropReason::NoRoute))],
        "there are none"
    );
}

#[test]
fn others_keep_their_ways() {
    let mut model = floating();
    // Carol has no floating IP, and her network no way out.
    let frame = echo((mac(CAROL), GATEWAY, "10.0.1.13", OUTSIDE), 64, true);
    assert_eq!(out(&mut model, CAROL, &frame), Verdict::Drop(DropReason::NoRoute));
    // A floating IP of another network has the same fixed IP.
    let blue = FloatingIpRow {
        network_id: id(BLUE),
        ..row(18, "203.0.113.18", "10.0.0.11")
    };
    put(&mut model, Row::FloatingIp(blue));
    assert_eq!(
        arrive(&mut model, &to_floating("203.0.113.18")),
        Verdict::Pass,
        "no router there"
    );
    assert!(
        model.snapshot().unwrap().rows.contains(&Row::FloatingIp(blue)),
        "kept all the same"
    );
}
