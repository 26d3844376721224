//! What Neutron's rules mean.

use alcor_dataplane::{
    Dataplane, DropReason,
    DropReason::{EgressDenied, IngressDenied},
    Ingress, Row, RowChange, Verdict,
    security::{
        Family::{Ipv4, Ipv6},
        Remote, Rule, Service,
    },
    testing::wire,
};

use crate::rules::*;

/// A client (11) that may send anything, and a server under these ingress rules: on the same host (13) and on the
/// other one (12).
fn rig(ingress: Vec<Rule>) -> Rig {
    let mut rig = Rig::new(&[11, 12, 13]);
    rig.policy(policy(1, vec![], anything()));
    rig.policy(policy(2, ingress, vec![]));
    rig.label(1, &[1]);
    rig.label(2, &[2]);
    rig.set_label(11, Some(1));
    rig.set_label(12, Some(2));
    rig.set_label(13, Some(2));
    rig
}

/// Whether a fresh server lets the frame in, the same on one host and on two.
fn lets_in(ingress: &[Rule], frame: impl Fn(u128) -> Vec<u8>) -> bool {
    let here = rig(ingress.to_vec()).send(11, &frame(13));
    let there = rig(ingress.to_vec()).send(11, &frame(12));
    assert_eq!(here.is_ok(), there.is_ok(), "{here:?} {there:?}");
    here.is_ok()
}

#[test]
fn nothing_is_allowed_unless_a_rule_says_so() {
    for frame in [Talk::v4(11, 12).udp((1, 2)), Talk::v6(11, 12).tcp((1, 2), 2)] {
        let mut rig = rig(vec![]);
        assert_eq!(rig.send(11, &frame), Err(IngressDenied));
        assert_eq!(rig.models[1].drop_count(Some(id(12)), IngressDenied), 1);
        // Without any group: neither out nor in.
        rig.set_label(11, Some(0));
        assert_eq!(rig.send(11, &frame), Err(EgressDenied));
        assert_eq!(rig.models[0].drop_count(Some(id(11)), EgressDenied), 1);
    }
}

#[test]
fn without_label_or_port_security_nothing_is_filtered() {
    let mut rig = rig(vec![]);
    rig.set_label(12, None);
    assert_eq!(rig.send(11, &Talk::v4(11, 12).udp((1, 2))), Ok(12));
    let mut open = port(13, RED, &[(1, "10.0.0.13")]);
    open.label = Some(2);
    open.port_security_enabled = false;
    rig.put_on(0, Row::Port(open));
    assert_eq!(rig.send(11, &Talk::v4(11, 13).udp((1, 2))), Ok(13));
    assert_eq!(rig.send(13, &Talk::v4(13, 12).udp((1, 2))), Ok(12));
}

#[test]
fn protocols_ports_types_and_codes() {
    let any = |family, service| vec![rule(family, Some(service), Remote::Any)];
    let web = any(Ipv4, Service::ports(TCP, 80, 90));
    for (point, allowed) in [(79, false), (80, true), (85, true), (90, true), (91, false)] {
        assert_eq!(
            lets_in(&web, |to| Talk::v4(11, to).tcp((80, point), 2)),
            allowed,
            "{point}"
        );
    }
    assert!(!lets_in(&web, |to| Talk::v4(11, to).udp((80, 80))));
    assert!(!lets_in(&web, |to| Talk::v6(11, to).tcp((80, 80), 2)));

    let ping = any(Ipv4, Service::icmp(1, 8, None));
    assert!(lets_in(&ping, |to| Talk::v4(11, to).echo(true, 7)));
    assert!(!lets_in(&ping, |to| Talk::v4(11, to).icmp(13, 0, &[0; 16])));
    let exact = any(Ipv6, Service::icmp(58, 1, Some(4)));
    assert!(lets_in(&exact, |to| Talk::v6(11, to).icmp(1, 4, &[0; 8])));
    assert!(!lets_in(&exact, |to| Talk::v6(11, to).icmp(1, 3, &[0; 8])));
    assert!(lets_in(&any(Ipv6, Service::all(58)), |to| Talk::v6(11, to).echo(true, 1)));

    let sctp = any(Ipv6, Service::ports(132, 5000, 5000));
    assert!(lets_in(&sctp, |to| Talk::v6(11, to)
        .other(132, &[0, 9, 0x13, 0x88, 0, 0, 0, 0])));
    assert!(!lets_in(&sctp, |to| Talk::v6(11, to)
        .other(132, &[0x13, 0x88, 0, 9, 0, 0, 0, 0])));
    let gre = any(Ipv4, Service::all(47));
    assert!(lets_in(&gre, |to| Talk::v4(11, to).other(47, b"anything")));
    assert!(!lets_in(&gre, |to| Talk::v4(11, to).other(50, b"anything")));
    assert!(lets_in(&[rule(Ipv4, None, Remote::Any)], |to| Talk::v4(11, to)
        .other(253, b"")));
}

#[test]
fn rules_add_up() {
    let mut rig = rig(vec![rule(Ipv4, Some(Service::all(UDP)), Remote::Any)]);
    let web = rule(Ipv4, Some(Service::ports(TCP, 80, 80)), Remote::Any);
    rig.policy(policy(3, vec![web.clone(), web], vec![]));
    rig.label(3, &[2, 3]);
    rig.set_label(12, Some(3));
    assert_eq!(rig.send(11, &Talk::v4(11, 12).tcp((5, 80), 2)), Ok(12));
    assert_eq!(rig.send(11, &Talk::v4(11, 12).udp((5, 80))), Ok(12));
    assert_eq!(
        rig.send(11, &Talk::v4(11, 12).tcp((5, 81), 2)),
        Err(IngressDenied)
    );
}

#[test]
fn remotes_by_address() {
    let from = |blocks: &[&str]| {
        let blocks = blocks.iter().map(|block| block.parse().unwrap()).collect();
        vec![rule(Ipv4, None, Remote::Prefixes(blocks))]
    };
    let talk = |to| Talk::v4(11, to).udp((1, 2));
    assert!(lets_in(&from(&["10.0.0.8/29"]), talk));
    assert!(!lets_in(&from(&["10.0.0.12/30"]), talk));
    // An address group; host bits do not count; a block of the other family matches nothing.
    assert!(lets_in(&from(&["10.0.0.12/30", "10.0.0.11/24"]), talk));
    assert!(!lets_in(&from(&["::/0"]), talk));
    assert!(!lets_in(&from(&[]), talk));
    let narrow = Remote::Prefixes(vec!["10.0.0.11/32".parse().unwrap()]);
    let wide = Remote::Prefixes(vec!["10.0.0.0/8".parse().unwrap()]);
    let overlapping = [
        rule(Ipv4, Some(Service::ports(UDP, 5, 5)), narrow),
        rule(Ipv4, Some(Service::ports(UDP, 2, 2)), wide),
    ];
    assert!(
        lets_in(&overlapping, talk),
        "a narrow prefix does not hide a wide one"
    );
}

#[test]
fn remotes_by_group_in_both_directions() {
    let mut rig = rig(vec![rule(Ipv4, None, Remote::Group(group(1)))]);
    assert_eq!(rig.send(11, &Talk::v4(11, 12).udp((1, 2))), Ok(12));
    assert_eq!(rig.send(11, &Talk::v4(11, 13).udp((1, 2))), Ok(13));
    // 13 is in group 2: no member of group 1, and not allowed to send to others than members of group 1.
    let egress = vec![rule(Ipv4, None, Remote::Group(group(1)))];
    rig.policy(policy(2, vec![rule(Ipv4, None, Remote::Group(group(1)))], egress));
    assert_eq!(rig.send(13, &Talk::v4(13, 12).udp((1, 2))), Err(EgressDenied));
    assert_eq!(
        rig.send(12, &Talk::v4(12, 11).udp((7, 8))),
        Err(IngressDenied),
        "11 lets nobody in"
    );
    // A member of both groups.
    rig.label(3, &[1, 2]);
    rig.set_label(13, Some(3));
    assert_eq!(rig.send(13, &Talk::v4(13, 12).udp((1, 2))), Ok(12));
}

#[test]
fn a_label_out_of_the_tunnel_is_believed_from_hosts_only() {
    let mut rig = rig(vec![rule(Ipv4, None, Remote::Group(group(1)))]);
    let frame = Talk::v4(11, 12).udp((1, 2));
    let mut from = |source: &str, label| {
        let ingress = Ingress::Tunnel {
            source: ip(source),
            vni: RED_VNI,
            label,
            forwarded: false,
        };
        rig.models[1].process(ingress, &frame)
    };
    assert_eq!(
        from("198.51.100.1", 1),
        Verdict::Drop(DropReason::UnknownUnderlay)
    );
    assert_eq!(from(HOSTS[0], 0), Verdict::Drop(IngressDenied));
    assert_eq!(
        from(HOSTS[0], 99),
        Verdict::Drop(IngressDenied),
        "nobody knows this label"
    );
    assert!(matches!(from(HOSTS[0], 1), Verdict::Deliver { .. }));
    assert_eq!(rig.models[1].drop_count(None, DropReason::UnknownUnderlay), 1);
}

#[test]
fn the_sender_s_label_goes_into_the_tunnel() {
    let mut rig = rig(vec![]);
    let verdict = rig.models[0].process(Ingress::Port(id(11)), &Talk::v4(11, 12).udp((1, 2)));
    assert!(matches!(verdict, Verdict::Tunnel { label: 1, .. }), "{verdict:?}");
}

#[test]
fn what_the_platform_answers_is_never_filtered() {
    let mut rig = Rig::new(&[11, 12]);
    rig.set_label(11, Some(0));
    let station = Station(11).mac();
    let arp = wire::arp(
        (station, BROADCAST),
        1,
        (station, v4("10.0.0.11")),
        (BROADCAST, v4("10.0.0.1")),
    );
    let mut header = wire::Ip::new(ip("0.0.0.0"), ip("255.255.255.255"), 64);
    let dhcp = header.frame(station, BROADCAST, UDP, &header.udp((68, 67), &[0; 300]));
    header = wire::Ip::new(ip("fe80::f816:3eff:fe00:b"), ip("ff02::2"), 255);
    let (protocol, message) = header.icmp(133, 0, &[0; 4]);
    let solicitation = header.frame(station, BROADCAST, protocol, &message);
    header = wire::Ip::new(ip("fd00:a::b"), ip("ff02::1:ff00:1"), 255);
    let (protocol, message) = header.icmp(135, 0, &[&[0; 4][..], &v6("fd00:a::1").octets()].concat());
    let neighbour = header.frame(station, BROADCAST, protocol, &message);
    for (frame, punted) in [
        (arp, false),
        (dhcp, true),
        (solicitation, true),
        (neighbour, false),
    ] {
        let verdict = rig.models[0].process(Ingress::Port(id(11)), &frame);
        let as_wanted = match punted {
            true => matches!(verdict, Verdict::Punt(_)),
            false => matches!(verdict, Verdict::Reply { .. }),
        };
        assert!(as_wanted, "{verdict:?}");
    }
    // A ping to the gateway is a packet as any other.
    let ping = header_ping();
    assert_eq!(
        rig.models[0].process(Ingress::Port(id(11)), &ping),
        Verdict::Drop(EgressDenied)
    );
    rig.policy(policy(1, vec![], anything()));
    rig.label(1, &[1]);
    rig.set_label(11, Some(1));
    let verdict = rig.models[0].process(Ingress::Port(id(11)), &ping);
    assert!(matches!(verdict, Verdict::Reply { .. }), "{verdict:?}");
}

fn header_ping() -> Vec<u8> {
    let header = wire::Ip::new(ip("10.0.0.11"), ip("10.0.0.1"), 64);
    let (protocol, message) = header.icmp(8, 0, &[0, 1, 0, 1]);
    header.frame(Station(11).mac(), GATEWAY, protocol, &message)
}

#[test]
fn discovery_and_strange_ethertypes_never_come_in_from_the_network() {
    let mut rig = rig(anything());
    let tunnel = Ingress::Tunnel {
        source: ip(HOSTS[0]),
        vni: RED_VNI,
        label: 1,
        forwarded: false,
    };
    for kind in 133..=137 {
        let frame = Talk::v6(11, 12).icmp(kind, 0, &[0; 20]);
        let verdict = rig.models[1].process(tunnel.clone(), &frame);
        assert_eq!(verdict, Verdict::Drop(DropReason::SpoofedNd));
    }
    let arp = wire::arp(
        (Station(11).mac(), Station(12).mac()),
        2,
        (Station(11).mac(), v4("10.0.0.1")),
        (Station(12).mac(), v4("10.0.0.12")),
    );
    let verdict = rig.models[1].process(tunnel, &arp);
    assert_eq!(verdict, Verdict::Drop(DropReason::UnsupportedEtherType));
}

#[test]
fn allowed_pairs_talk_under_the_same_rules() {
    let mut rig = rig(vec![rule(Ipv4, None, Remote::Group(group(1)))]);
    let mut row = port(11, RED, &[(1, "10.0.0.11")]);
    row.label = Some(1);
    row.allowed_address_pairs = vec![alcor_model::resource::AddressPair {
        ip_address: "172.16.0.0/16".parse().unwrap(),
        mac_address: Station(11).mac(),
    }];
    rig.put_on(0, Row::Port(row));
    let header = wire::Ip::new(ip("172.16.3.4"), ip("10.0.0.12"), 64);
    let frame = header.frame(
        Station(11).mac(),
        Station(12).mac(),
        UDP,
        &header.udp((1, 2), b""),
    );
    assert_eq!(
        rig.send(11, &frame),
        Ok(12),
        "the member's label counts, whatever its address"
    );
    let header = wire::Ip::new(ip("172.17.3.4"), ip("10.0.0.12"), 64);
    let frame = header.frame(
        Station(11).mac(),
        Station(12).mac(),
        UDP,
        &header.udp((1, 2), b""),
    );
    assert_eq!(rig.send(11, &frame), Err(DropReason::SpoofedIp));
}

#[test]
fn a_stateless_group_needs_rules_for_answers() {
    let web = rule(Ipv4, Some(Service::ports(TCP, 80, 80)), Remote::Any);
    let mut rig = rig(vec![web.clone()]);
    let mut server = policy(2, vec![web], vec![]);
    server.stateful = false;
    rig.policy(server.clone());
    let ask = Talk::v4(11, 12).tcp((5000, 80), 2);
    let answer = Talk::v4(12, 11).tcp((80, 5000), 0x12);
    assert_eq!(rig.send(11, &ask), Ok(12));
    assert_eq!(rig.send(12, &answer), Err(EgressDenied));
    assert_eq!(rig.connections(12), 0);
    server.egress = anything();
    rig.policy(server);
    assert_eq!(rig.send(12, &answer), Ok(11));
}

#[test]
fn removing_rows_allows_less() {
    let mut rig = rig(anything());
    let frame = Talk::v4(11, 12).udp((1, 2));
    assert_eq!(rig.send(11, &frame), Ok(12));
    for key in [
        Row::Label(label(2, &[2])).key(),
        Row::Policy(policy(1, vec![], vec![])).key(),
    ] {
        for model in &mut rig.models {
            assert!(model.apply(&[RowChange::Remove(key)]).iter().all(Result::is_ok));
        }
    }
    assert_eq!(rig.send(11, &frame), Err(EgressDenied));
    rig.policy(policy(1, vec![], anything()));
    assert_eq!(rig.send(11, &frame), Err(IngressDenied));
}
