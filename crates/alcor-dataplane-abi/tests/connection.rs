//! The tracker's decisions, packet by packet, and what holds for all of them.

use alcor_dataplane_abi::{
    connection::{
        ANSWERED, BEGAN_LOCAL, Connection, Direction,
        Direction::{Egress, Ingress},
        IS_REVOKED, PICKED_UP, Segment, Step, TCP_ACK, TCP_CLOSED, TCP_CLOSING, TCP_ESTABLISHED, TCP_FIN,
        TCP_OPENING, TCP_PICKED_UP, TCP_RESET, TCP_REVOKED, TCP_RST, TCP_SYN, Tracking, related, step,
    },
    flow::{Identity, Upper, identify, point_of},
};

const EPOCH: u32 = 7;

fn tcp(direction: Direction, flags: u8) -> Segment {
    Segment {
        direction,
        tracking: Tracking::Tcp,
        tcp: flags,
        label: 3,
    }
}

/// The connection after the packet, when rules allow it.
fn after(known: Option<Connection>, segment: &Segment, now: u64) -> Connection {
    match step(known, segment, EPOCH, now) {
        Step::Pass(connection) => connection,
        Step::Ask(question) => question.allowed,
        Step::Deny(_) => panic!("nothing is revoked here"),
    }
}

fn established() -> Connection {
    let syn = after(None, &tcp(Egress, TCP_SYN), 0);
    let answered = after(Some(syn), &tcp(Ingress, TCP_SYN | TCP_ACK), 0);
    after(Some(answered), &tcp(Egress, TCP_ACK), 0)
}

#[test]
fn tcp_states_have_their_lifetimes() {
    let syn = after(None, &tcp(Egress, TCP_SYN), 5);
    assert_eq!((syn.expires_ns, syn.flags), (5 + TCP_OPENING, BEGAN_LOCAL));
    let open = established();
    assert_eq!(
        (open.expires_ns, open.flags),
        (TCP_ESTABLISHED, BEGAN_LOCAL | ANSWERED)
    );
    let closing = after(Some(open), &tcp(Ingress, TCP_FIN | TCP_ACK), 1);
    assert_eq!(closing.expires_ns, 1 + TCP_CLOSING);
    let closed = after(Some(closing), &tcp(Egress, TCP_FIN | TCP_ACK), 2);
    assert_eq!(closed.expires_ns, 2 + TCP_CLOSED);
    let reset = after(Some(open), &tcp(Ingress, TCP_RST), 3);
    assert_eq!(reset.expires_ns, 3 + TCP_RESET);
    let picked_up = after(None, &tcp(Ingress, TCP_ACK), 0);
    assert_eq!(
        (picked_up.expires_ns, picked_up.flags),
        (TCP_PICKED_UP, PICKED_UP)
    );
    for (connection, expendable) in [
        (syn, true),
        (open, false),
        (closing, false),
        (closed, true),
        (reset, true),
    ] {
        assert_eq!(connection.is_expendable(), expendable, "{connection:?}");
    }
}

#[test]
fn nothing_keeps_a_reset_connection() {
    let reset = after(Some(established()), &tcp(Ingress, TCP_RST), 0);
    let later = after(Some(reset), &tcp(Egress, TCP_ACK), TCP_RESET - 1);
    assert_eq!(later.expires_ns, TCP_RESET);
}

#[test]
fn an_expired_connection_is_none() {
    let open = established();
    for now in [open.expires_ns, u64::MAX] {
        let ack = tcp(Ingress, TCP_ACK);
        assert_eq!(step(Some(open), &ack, EPOCH, now), step(None, &ack, EPOCH, now));
        assert_eq!(related(Some(open), EPOCH, now), None);
    }
}

#[test]
fn rules_are_asked_again_about_the_beginning_when_they_changed() {
    let open = established();
    for direction in [Ingress, Egress] {
        let Step::Ask(question) = step(Some(open), &tcp(direction, TCP_ACK), EPOCH + 1, 1) else {
            panic!("another epoch");
        };
        assert_eq!((question.direction, question.label), (Egress, 3));
        assert_eq!(question.allowed.epoch, EPOCH + 1);
        let revoked = question.denied.unwrap();
        assert_eq!(
            (revoked.flags & IS_REVOKED, revoked.expires_ns),
            (IS_REVOKED, 1 + TCP_REVOKED)
        );
        // Judged once: no more questions until something changes, except for a SYN.
        for flags in [TCP_ACK, TCP_ACK | TCP_SYN, TCP_FIN, TCP_RST] {
            for direction in [Ingress, Egress] {
                let step = step(Some(revoked), &tcp(direction, flags), EPOCH + 1, 2);
                assert!(matches!(step, Step::Deny(_)), "{step:?}");
            }
        }
        for direction in [Ingress, Egress] {
            let Step::Ask(anew) = step(Some(revoked), &tcp(direction, TCP_SYN), EPOCH + 1, 2) else {
                panic!("a SYN begins");
            };
            assert_eq!((anew.direction, anew.denied), (direction, Some(revoked)));
        }
    }
}

#[test]
fn a_label_counts_where_it_is_news() {
    let other = |direction| Segment {
        label: 4,
        ..tcp(direction, TCP_ACK)
    };
    // This side began: rules for what goes out ask for the row's label, and the other side's word counts too.
    let began_here = established();
    assert!(matches!(
        step(Some(began_here), &other(Egress), EPOCH, 0),
        Step::Ask(_)
    ));
    assert!(matches!(
        step(Some(began_here), &other(Ingress), EPOCH, 0),
        Step::Ask(_)
    ));
    // The other side began: what goes out to it says nothing.
    let began_there = after(None, &tcp(Ingress, TCP_SYN), 0);
    assert!(matches!(
        step(Some(began_there), &other(Egress), EPOCH, 0),
        Step::Pass(_)
    ));
    assert!(matches!(
        step(Some(began_there), &other(Ingress), EPOCH, 0),
        Step::Ask(_)
    ));
}

#[test]
fn udp_that_is_revoked_is_forgotten_once_its_beginner_is_silent() {
    let udp = |direction| Segment {
        tracking: Tracking::Udp,
        tcp: 0,
        ..tcp(direction, 0)
    };
    let known = after(None, &udp(Ingress), 0);
    let Step::Ask(question) = step(Some(known), &udp(Ingress), EPOCH + 1, 0) else {
        panic!("another epoch");
    };
    let revoked = question.denied.unwrap();
    let Step::Deny(kept) = step(Some(revoked), &udp(Egress), EPOCH + 1, 1000) else {
        panic!("still revoked");
    };
    assert_eq!(
        kept.expires_ns, revoked.expires_ns,
        "the answering side keeps nothing"
    );
    let Step::Deny(kept) = step(Some(revoked), &udp(Ingress), EPOCH + 1, 1000) else {
        panic!("still revoked");
    };
    assert_eq!(kept.expires_ns, revoked.expires_ns + 1000);
}

/// Every packet that `source` sends and its answer are of one connection, at both ends.
#[test]
fn both_directions_and_both_ends_agree() {
    let protocols = [1, 6, 17, 33, 47, 58, 132, 136];
    for protocol in protocols {
        for (a, b) in [(1000, 80), (7, 7), (0, 65_535)] {
            let (ask, answer) = match protocol {
                1 => ((a, 8 << 8), (a, 0)),
                58 => ((a, 128 << 8), (a, 129 << 8)),
                47 => ((0, 0), (0, 0)),
                _ => ((a, b), (b, a)),
            };
            let upper = |(source, point): (u16, u16)| Upper {
                source,
                point,
                protocol,
                tcp: 0,
            };
            for began in [Ingress, Egress] {
                let back = if began == Ingress { Egress } else { Ingress };
                let (
                    Identity::Tracked {
                        sides: first, begins, ..
                    },
                    Identity::Tracked { sides: second, .. },
                ) = (identify(&upper(ask), began), identify(&upper(answer), back))
                else {
                    panic!("protocol {protocol} is tracked");
                };
                assert!(begins);
                assert_eq!(first, second, "protocol {protocol}");
                assert_eq!(point_of(&first, began), ask.1, "protocol {protocol}");
            }
        }
    }
}

#[test]
fn errors_and_single_messages_of_icmp_begin_nothing() {
    let kind = |protocol, kind: u16| {
        let upper = Upper {
            source: 1,
            point: kind << 8,
            protocol,
            tcp: 0,
        };
        identify(&upper, Ingress)
    };
    for error in [3, 4, 11, 12] {
        assert_eq!(kind(1, error), Identity::Error);
    }
    for error in 1..=4 {
        assert_eq!(kind(58, error), Identity::Error);
    }
    for (protocol, single) in [(1, 5), (1, 9), (58, 130), (58, 135), (58, 143)] {
        assert_eq!(kind(protocol, single), Identity::Single);
    }
    for (protocol, answer) in [(1, 0), (1, 14), (58, 129)] {
        assert!(matches!(
            kind(protocol, answer),
            Identity::Tracked { begins: false, .. }
        ));
    }
}

/// Any flags in any order: a packet never makes a connection live longer than the longest state, never passes
/// a revoked one, and a question is always about the way the connection began.
#[test]
fn any_sequence_stays_within_bounds() {
    let mut seed = 1u64;
    let mut next = |limit: u64| {
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % limit
    };
    let mut known: Option<Connection> = None;
    let (mut now, mut epoch) = (0u64, 0u32);
    for _ in 0..200_000 {
        now += next(90) * 1_000_000_000;
        epoch += u32::from(next(20) == 0);
        let segment = Segment {
            direction: if next(2) == 0 { Ingress } else { Egress },
            tracking: Tracking::Tcp,
            tcp: next(32) as u8,
            label: next(2) as u16,
        };
        let live = known.filter(|known| known.is_live(now));
        let result = step(known, &segment, epoch, now);
        known = match result {
            Step::Pass(connection) => {
                let before = live.expect("only what is known passes without a question");
                assert_eq!(before.flags & IS_REVOKED, 0);
                assert_eq!(before.epoch, epoch);
                Some(connection)
            }
            Step::Deny(connection) => {
                assert_ne!(connection.flags & IS_REVOKED, 0);
                Some(connection)
            }
            Step::Ask(question) => {
                assert_eq!(question.allowed.direction(), question.direction);
                assert_eq!(
                    (question.allowed.epoch, question.allowed.flags & IS_REVOKED),
                    (epoch, 0)
                );
                if next(4) == 0 {
                    question.denied
                } else {
                    Some(question.allowed)
                }
            }
        };
        if let Some(connection) = known {
            assert!(connection.expires_ns <= now + TCP_ESTABLISHED);
        }
    }
}
