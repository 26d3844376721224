//! Connections.

use std::time::Duration;

use alcor_dataplane::{
    DropReason::{EgressDenied, IngressDenied, Malformed, UnknownFragment},
    Row,
    security::{
        Family::{Ipv4, Ipv6},
        Remote, Rule, Service,
    },
};

use crate::rules::*;

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

const MINUTE: Duration = Duration::from_secs(60);

/// Clients 11 and 21, servers 13 and 12, all under group 1 with these ingress rules; everything may go out.
fn rig(ingress: Vec<Rule>) -> Rig {
    let mut rig = Rig::new(&[11, 21, 12, 13]);
    rig.policy(policy(1, ingress, anything()));
    rig.label(1, &[1]);
    for number in [11, 21, 12, 13] {
        rig.set_label(number, Some(1));
    }
    rig
}

/// TCP 80 and UDP 53 from anybody to the servers, pings too. Clients get in nothing.
fn served() -> Rig {
    let mut rig = rig(vec![]);
    rig.policy(policy(2, service_rules(), anything()));
    rig.label(2, &[2]);
    rig.set_label(12, Some(2));
    rig.set_label(13, Some(2));
    rig
}

fn service_rules() -> Vec<Rule> {
    let mut rules = Vec::new();
    for (family, icmp) in [
        (Ipv4, Service::icmp(1, 8, None)),
        (Ipv6, Service::icmp(58, 128, None)),
    ] {
        for service in [Service::ports(TCP, 80, 80), Service::ports(UDP, 53, 53), icmp] {
            rules.push(rule(family, Some(service), Remote::Any));
        }
    }
    rules
}

/// Every way from the client to a server: one host and two, both families.
fn ways() -> [Talk; 4] {
    [
        Talk::v4(11, 13),
        Talk::v4(11, 12),
        Talk::v6(11, 13),
        Talk::v6(11, 12),
    ]
}

fn open(rig: &mut Rig, talk: Talk) {
    let (there, back) = ((5000, 80), (80, 5000));
    assert_eq!(rig.send(11, &talk.tcp(there, SYN)), Ok(talk.to.0));
    assert_eq!(rig.send(talk.to.0, &talk.back().tcp(back, SYN | ACK)), Ok(11));
    assert_eq!(rig.send(11, &talk.tcp(there, ACK)), Ok(talk.to.0));
}

#[test]
fn answers_come_back_and_nothing_else_does() {
    for talk in ways() {
        let mut rig = served();
        open(&mut rig, talk);
        assert_eq!((rig.connections(11), rig.connections(talk.to.0)), (1, 1));
        let back = talk.back();
        for frame in [
            back.tcp((80, 5001), ACK),
            back.tcp((81, 5000), ACK),
            back.udp((80, 5000)),
        ] {
            assert_eq!(rig.send(talk.to.0, &frame), Err(IngressDenied));
        }
        assert_eq!(rig.send(11, &talk.udp((4000, 53))), Ok(talk.to.0));
        assert_eq!(rig.send(talk.to.0, &back.udp((53, 4000))), Ok(11));
        assert_eq!(rig.send(11, &talk.echo(true, 77)), Ok(talk.to.0));
        assert_eq!(rig.send(talk.to.0, &back.echo(false, 77)), Ok(11));
        assert_eq!(rig.send(talk.to.0, &back.echo(false, 78)), Err(IngressDenied));
        assert_eq!(rig.send(talk.to.0, &back.echo(true, 77)), Err(IngressDenied));
    }
}

#[test]
fn times_out_by_state() {
    let talk = Talk::v4(11, 12);
    let back = talk.back();
    let denied_after = |prepare: &dyn Fn(&mut Rig), wait: Duration, frame: Vec<u8>| {
        let mut rig = served();
        prepare(&mut rig);
        rig.advance(wait - Duration::from_secs(1));
        let mut early = served();
        prepare(&mut early);
        early.advance(wait - Duration::from_secs(1));
        assert_eq!(early.send(12, &frame), Ok(11), "{wait:?}");
        rig.advance(Duration::from_secs(1));
        assert_eq!(rig.send(12, &frame), Err(IngressDenied), "{wait:?}");
    };
    let syn = |rig: &mut Rig| _ = rig.send(11, &talk.tcp((5000, 80), SYN));
    denied_after(&syn, MINUTE, back.tcp((80, 5000), SYN | ACK));
    let closing = |rig: &mut Rig| {
        open(rig, talk);
        assert_eq!(rig.send(11, &talk.tcp((5000, 80), FIN | ACK)), Ok(12));
    };
    denied_after(&closing, 2 * MINUTE, back.tcp((80, 5000), ACK));
    let closed = |rig: &mut Rig| {
        closing(rig);
        assert_eq!(rig.send(12, &back.tcp((80, 5000), FIN | ACK)), Ok(11));
    };
    denied_after(&closed, MINUTE, back.tcp((80, 5000), ACK));
    let reset = |rig: &mut Rig| {
        open(rig, talk);
        assert_eq!(rig.send(11, &talk.tcp((5000, 80), RST)), Ok(12));
    };
    denied_after(&reset, Duration::from_secs(10), back.tcp((80, 5000), ACK));
    let datagram = |rig: &mut Rig| _ = rig.send(11, &talk.udp((4000, 53)));
    denied_after(&datagram, MINUTE / 2, back.udp((53, 4000)));
    let answered = |rig: &mut Rig| {
        datagram(rig);
        assert_eq!(rig.send(12, &back.udp((53, 4000))), Ok(11));
    };
    denied_after(&answered, 3 * MINUTE, back.udp((53, 4000)));
    let ping = |rig: &mut Rig| _ = rig.send(11, &talk.echo(true, 5));
    denied_after(&ping, MINUTE / 2, back.echo(false, 5));
    let established = |rig: &mut Rig| open(rig, talk);
    denied_after(&established, 5 * 24 * 60 * MINUTE, back.tcp((80, 5000), ACK));
}

#[test]
fn use_keeps_a_connection() {
    let talk = Talk::v4(11, 12);
    let mut rig = served();
    assert_eq!(rig.send(11, &talk.udp((4000, 53))), Ok(12));
    for _ in 0..10 {
        rig.advance(MINUTE / 3);
        assert_eq!(rig.send(12, &talk.back().udp((53, 4000))), Ok(11));
    }
}

#[test]
fn a_port_number_is_used_again_after_close() {
    let talk = Talk::v4(11, 12);
    let mut rig = served();
    open(&mut rig, talk);
    assert_eq!(rig.send(11, &talk.tcp((5000, 80), FIN | ACK)), Ok(12));
    assert_eq!(rig.send(12, &talk.back().tcp((80, 5000), FIN | ACK)), Ok(11));
    // The server may not begin one on the ports of the old one.
    assert_eq!(
        rig.send(12, &talk.back().tcp((80, 5000), SYN)),
        Err(IngressDenied)
    );
    open(&mut rig, talk);
    rig.advance(60 * MINUTE);
    assert_eq!(rig.send(12, &talk.back().tcp((80, 5000), ACK)), Ok(11));
}

#[test]
fn a_connection_without_memory_is_picked_up_where_rules_allow_its_beginning() {
    let talk = Talk::v4(11, 12);
    let mut rig = served();
    // As after a move to another host: nobody has seen the SYN.
    assert_eq!(rig.send(11, &talk.tcp((5000, 80), ACK)), Ok(12));
    assert_eq!(rig.send(12, &talk.back().tcp((80, 5000), ACK)), Ok(11));
    assert_eq!(
        rig.send(12, &talk.back().tcp((81, 5000), ACK)),
        Err(IngressDenied)
    );
}

#[test]
fn a_revoked_connection_stops_at_once_in_both_directions() {
    for talk in ways() {
        let (mut rig, server, back) = (served(), talk.to.0, talk.back());
        open(&mut rig, talk);
        assert_eq!(rig.send(11, &talk.udp((4000, 53))), Ok(server));
        rig.policy(policy(2, vec![], anything()));
        assert_eq!(rig.send(11, &talk.tcp((5000, 80), ACK)), Err(IngressDenied));
        assert_eq!(rig.send(11, &talk.udp((4000, 53))), Err(IngressDenied));
        // What goes out is allowed to begin, but this did not begin here.
        assert_eq!(rig.send(server, &back.tcp((80, 5000), ACK)), Err(EgressDenied));
        assert_eq!(rig.send(server, &back.udp((53, 4000))), Err(EgressDenied));
        // Allowed again, it goes on.
        rig.policy(policy(2, service_rules(), anything()));
        assert_eq!(rig.send(server, &back.tcp((80, 5000), ACK)), Ok(11));
        assert_eq!(rig.send(11, &talk.tcp((5000, 80), ACK)), Ok(server));
        assert_eq!(rig.send(11, &talk.udp((4000, 53))), Ok(server));
    }
}

#[test]
fn a_change_of_other_rules_stalls_nothing() {
    for talk in ways() {
        let (mut rig, server, back) = (served(), talk.to.0, talk.back());
        open(&mut rig, talk);
        for last in 1..20 {
            let mut rules = service_rules();
            rules.push(rule(Ipv4, Some(Service::ports(TCP, 1, last)), Remote::Any));
            rig.policy(policy(2, rules, anything()));
            assert_eq!(rig.send(server, &back.tcp((80, 5000), ACK)), Ok(11));
            assert_eq!(rig.send(11, &talk.tcp((5000, 80), ACK)), Ok(server));
        }
    }
}

#[test]
fn a_member_that_leaves_loses_its_connections() {
    for talk in ways() {
        let (mut rig, server) = (served(), talk.to.0);
        let members = [Ipv4, Ipv6].map(|family| rule(family, None, Remote::Group(group(1))));
        rig.policy(policy(2, members.into(), anything()));
        open(&mut rig, talk);
        rig.policy(policy(3, vec![], anything()));
        rig.label(3, &[3]);
        rig.label(4, &[1, 3]);
        rig.set_label(11, Some(4));
        assert_eq!(
            rig.send(11, &talk.tcp((5000, 80), ACK)),
            Ok(server),
            "still a member"
        );
        rig.set_label(11, Some(3));
        assert_eq!(rig.send(11, &talk.tcp((5000, 80), ACK)), Err(IngressDenied));
        assert_eq!(
            rig.send(server, &talk.back().tcp((80, 5000), ACK)),
            Err(EgressDenied)
        );
    }
}

#[test]
fn a_syn_begins_anew_after_a_revocation() {
    let talk = Talk::v4(11, 12);
    let mut rig = rig(vec![]);
    // The client begins; that is revoked; then the server may begin on the same ports.
    let udp_only = vec![rule(Ipv4, Some(Service::all(UDP)), Remote::Any)];
    rig.policy(policy(2, service_rules(), anything()));
    rig.label(2, &[2]);
    rig.set_label(12, Some(2));
    open(&mut rig, talk);
    rig.policy(policy(1, anything(), udp_only));
    assert_eq!(rig.send(11, &talk.tcp((5000, 80), ACK)), Err(EgressDenied));
    rig.policy(policy(2, vec![], anything()));
    let back = talk.back();
    assert_eq!(
        rig.send(12, &back.tcp((80, 5000), ACK)),
        Err(EgressDenied),
        "no SYN"
    );
    assert_eq!(rig.send(12, &back.tcp((80, 5000), SYN)), Ok(11));
    assert_eq!(rig.send(11, &talk.tcp((5000, 80), SYN | ACK)), Ok(12));
}

/// The error message about a packet, from whoever got it.
fn unreachable(talk: Talk, about: &[u8]) -> Vec<u8> {
    let kind = if talk.family == Ipv4 { 3 } else { 1 };
    let quoted = &about[14..about.len().min(14 + 64)];
    talk.icmp(kind, 3, &[&[0; 4], quoted].concat())
}

#[test]
fn errors_about_a_connection_come_through_and_others_do_not() {
    for talk in ways() {
        let (mut rig, server, back) = (served(), talk.to.0, talk.back());
        let (asked, pinged, opened) = (
            talk.udp((4000, 53)),
            talk.echo(true, 3),
            talk.tcp((5000, 80), SYN),
        );
        for frame in [&asked, &pinged, &opened] {
            assert_eq!(rig.send(11, frame), Ok(server));
            assert_eq!(rig.send(server, &unreachable(back, frame)), Ok(11));
        }
        let never_sent = talk.udp((4001, 53));
        assert_eq!(
            rig.send(server, &unreachable(back, &never_sent)),
            Err(IngressDenied)
        );
        // A quotation cut short, and a packet that the receiver did not send.
        assert_eq!(
            rig.send(server, &unreachable(back, &asked[..14 + 21])),
            Err(IngressDenied)
        );
        assert_eq!(
            rig.send(server, &unreachable(back, &back.udp((53, 4000)))),
            Err(IngressDenied)
        );
        // An error keeps nothing alive and nothing revoked comes back.
        rig.policy(policy(2, vec![], vec![]));
        assert_eq!(rig.send(server, &unreachable(back, &asked)), Err(EgressDenied));
    }
}

#[test]
fn later_fragments_follow_the_first() {
    for talk in [Talk::v4(11, 12), Talk::v4(11, 13)] {
        let (mut rig, server) = (served(), talk.to.0);
        let fragment = |offset: u16, more: bool, upper: &[u8]| {
            let mut header = talk.header();
            header.fragment = (offset / 8) | if more { 0x2000 } else { 0 };
            talk.frame(&header, UDP, upper)
        };
        let datagram = talk.header().udp((4000, 53), &[7; 24]);
        let refused = talk.header().udp((4000, 54), &[7; 24]);
        assert_eq!(rig.send(11, &fragment(16, false, &[1; 16])), Err(UnknownFragment));
        assert_eq!(
            rig.send(11, &fragment(0, true, &refused[..16])),
            Err(IngressDenied)
        );
        assert_eq!(rig.send(11, &fragment(16, false, &[1; 16])), Err(UnknownFragment));
        assert_eq!(rig.send(11, &fragment(0, true, &datagram[..16])), Ok(server));
        assert_eq!(rig.send(11, &fragment(24, false, &[1; 8])), Ok(server));
        assert_eq!(rig.send(11, &fragment(16, true, &[1; 8])), Ok(server));
        rig.policy(policy(2, vec![], anything()));
        assert_eq!(rig.send(11, &fragment(16, true, &[1; 8])), Err(IngressDenied));
        rig.policy(policy(2, service_rules(), anything()));
        assert_eq!(rig.send(11, &fragment(16, true, &[1; 8])), Ok(server));
        rig.advance(MINUTE / 2);
        assert_eq!(rig.send(11, &fragment(16, true, &[1; 8])), Err(UnknownFragment));
    }
}

#[test]
fn fragments_of_ipv6_and_headers_hidden_in_fragments() {
    for talk in [Talk::v6(11, 12), Talk::v6(11, 13)] {
        let (mut rig, server) = (served(), talk.to.0);
        let fragment = |id: u8, field: u16, upper: &[u8]| {
            let mut header = talk.header();
            let field = field.to_be_bytes();
            header.extensions = vec![(44, vec![0, 0, field[0], field[1], 0, 0, 0, id])];
            talk.frame(&header, TCP, upper)
        };
        let segment = talk.header().tcp((5000, 80), &[7; 32]);
        assert_eq!(rig.send(11, &fragment(1, 1, &segment[..24])), Ok(server));
        assert_eq!(rig.send(11, &fragment(1, 24, &[1; 8])), Ok(server));
        assert_eq!(rig.send(11, &fragment(2, 24, &[1; 8])), Err(UnknownFragment));
        // Over the flags of the header, and a header that is not whole.
        assert_eq!(rig.send(11, &fragment(1, 8 | 1, &[1; 8])), Err(UnknownFragment));
        assert_eq!(rig.send(11, &fragment(3, 1, &segment[..16])), Err(Malformed));
        // A whole packet with a fragment header lets nothing follow.
        assert_eq!(rig.send(11, &fragment(4, 0, &segment)), Ok(server));
        assert_eq!(rig.send(11, &fragment(4, 24, &[1; 8])), Err(UnknownFragment));
    }
}

#[test]
fn a_port_that_goes_takes_its_connections_along() {
    let mut rig = served();
    open(&mut rig, Talk::v4(11, 12));
    assert_eq!(rig.connections(12), 1);
    let key = Row::Port(port(12, RED, &[])).key();
    let gone = alcor_dataplane::RowChange::Remove(key);
    assert!(alcor_dataplane::Dataplane::apply(&mut rig.models[1], &[gone])[0].is_ok());
    assert_eq!(rig.connections(12), 0);
}
