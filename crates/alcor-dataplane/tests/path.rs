//! Hand-written cases for every stage of the path. Each case runs on a fresh model: the verdict, the one
//! counter that moved and the events are compared.
#![allow(clippy::unwrap_used)]

#[path = "path/arp.rs"]
mod arp;
mod common;
#[path = "path/ipv4.rs"]
mod ipv4;
#[path = "path/ipv6.rs"]
mod ipv6;
#[path = "path/ports.rs"]
mod ports;
#[path = "path/route.rs"]
mod route;
#[path = "path/send.rs"]
mod send;
#[path = "path/tunnel.rs"]
mod tunnel;

use std::collections::BTreeSet;

use alcor_dataplane::{
    Dataplane, DropReason, Drops, Event, Ingress, NetworkRow, PuntReason, Row, RowChange, Verdict,
};
use alcor_model::{Id, MacAddr, Port, Vni, net::ON_DEMAND_MAC};
use bytes::Bytes;
use common::{ALICE, ip, mac};

/// What a case expects.
#[derive(Clone, Debug)]
enum Want {
    /// Counted for the ingress port.
    Drop(DropReason),
    /// Counted for this port, or none.
    DropFor(Option<u128>, DropReason),
    /// Dropped as unknown destination, or held where that can be asked for.
    Unknown(&'static str),
    Punt(PuntReason),
    Deliver(u128, Vec<u8>),
    Tunnel(&'static str, Vec<u8>),
    Reply(Vec<u8>),
}

/// One frame and what becomes of it.
struct Case {
    name: &'static str,
    ingress: Ingress,
    frame: Vec<u8>,
    want: Want,
}

/// A case for a frame of a port.
fn case(name: &'static str, port: u128, frame: Vec<u8>, want: Want) -> Case {
    Case {
        name,
        ingress: Ingress::Port(common::id(port)),
        frame,
        want,
    }
}

fn drop(name: &'static str, port: u128, frame: Vec<u8>, reason: DropReason) -> Case {
    case(name, port, frame, Want::Drop(reason))
}

/// From Alice's MAC.
fn alice_to<'a>(to: MacAddr, from_ip: &'a str, to_ip: &'a str) -> common::Between<'a> {
    (mac(ALICE), to, from_ip, to_ip)
}

fn all() -> Vec<Case> {
    [
        ports::cases(),
        arp::cases(),
        ipv4::cases(),
        ipv6::cases(),
        route::cases(),
        send::cases(),
        tunnel::cases(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn check(case: &Case) {
    let name = case.name;
    let mut model = common::model();
    let mut events = model.events().unwrap();
    let verdict = model.process(case.ingress.clone(), &case.frame);
    let port = match &case.ingress {
        Ingress::Port(port) => Some(*port),
        Ingress::Tunnel { .. } | Ingress::External { .. } => None,
    };
    let bytes = |frame: &Vec<u8>| Bytes::from(frame.clone());
    let (want, drop_port) = match &case.want {
        Want::Drop(reason) => (Verdict::Drop(*reason), Some(port)),
        Want::DropFor(counted, reason) => (Verdict::Drop(*reason), Some(counted.map(common::id))),
        Want::Unknown(_) => (Verdict::Drop(DropReason::UnknownDestination), Some(port)),
        Want::Punt(reason) => (Verdict::Punt(*reason), None),
        Want::Deliver(receiver, frame) => (
            Verdict::Deliver {
                port: common::id(*receiver),
                frame: bytes(frame),
            },
            None,
        ),
        Want::Tunnel(host, frame) => {
            let vni = Vni::try_from(common::RED_VNI).unwrap();
            (
                Verdict::Tunnel {
                    host: ip(host),
                    vni,
                    label: 0,
                    forwarded: false,
                    frame: bytes(frame),
                },
                None,
            )
        }
        Want::Reply(frame) => (Verdict::Reply { frame: bytes(frame) }, None),
    };
    assert_eq!(verdict, want, "{name}");

    let mut drops = Drops::new();
    if let (Verdict::Drop(reason), Some(counted)) = (&verdict, drop_port) {
        drops.insert((counted, *reason), 1);
    }
    assert_eq!(
        model.drops().unwrap(),
        drops,
        "{name}: exactly the one counter moves"
    );

    let event = match (&case.want, port) {
        (Want::Punt(PuntReason::TooBig), Some(port)) => Some(Event::TooBig {
            port,
            mtu: common::MTU as u16,
            frame: bytes(&case.frame),
        }),
        (Want::Punt(reason), Some(port)) => Some(Event::Punt {
            port,
            reason: *reason,
            frame: bytes(&case.frame),
        }),
        _ => None,
    };
    assert_eq!(events.try_recv().ok(), event, "{name}");
    assert!(events.try_recv().is_err(), "{name}: one event at most");
}

/// A frame to an address that no row knows, in a network that is on demand: held, told once, and dropped if nothing is
/// known when it is released.
fn check_on_demand(case: &Case, port: Id<Port>) {
    let name = case.name;
    let mut model = common::model();
    let mut events = model.events().unwrap();
    let network = NetworkRow {
        on_demand: true,
        ..common::network(common::RED, common::RED_VNI)
    };
    assert!(model.apply(&[RowChange::Put(Row::Network(network))])[0].is_ok());
    let verdict = model.process(case.ingress.clone(), &case.frame);
    let Want::Unknown(address) = &case.want else {
        // Whatever else: as in any network.
        let told = matches!(events.try_recv(), Ok(Event::Unresolved { .. }));
        assert!(
            !told && verdict != Verdict::Punt(PuntReason::Unresolved),
            "{name}"
        );
        return;
    };
    assert_eq!(verdict, Verdict::Punt(PuntReason::Unresolved), "{name}");
    let event = Event::Unresolved {
        port,
        network: common::id(common::RED),
        address: ip(address),
        frame: Bytes::from(case.frame.clone()),
    };
    assert_eq!(events.try_recv().ok(), Some(event), "{name}");
    assert_eq!(model.drops().unwrap(), Drops::new(), "{name}");
    model.release(port, &case.frame).unwrap();
    let dropped = Verdict::Drop(DropReason::UnknownDestination);
    assert_eq!(model.take_released(), [(port, dropped)], "{name}");
    assert!(events.try_recv().is_err(), "{name}: nothing is held twice");
}

/// Reasons that only a kernel data plane has: its own failures, and limits of its channel to the agent.
const KERNEL_ONLY: [DropReason; 2] = [DropReason::PuntLimit, DropReason::Internal];

/// What a frame that is unknown becomes where gateways know more: whoever asks is told in any case, and holds what did not go on.
/// `gateways.rs` has what goes on where.
fn check_by_gateway(case: &Case, port: Id<Port>) {
    let name = case.name;
    let (mut plain, mut model) = (common::model(), common::model());
    let mut events = model.events().unwrap();
    let network = NetworkRow {
        on_demand: true,
        gateways: vec![ip("192.0.2.101"), ip("192.0.2.102")],
        ..common::network(common::RED, common::RED_VNI)
    };
    assert!(model.apply(&[RowChange::Put(Row::Network(network))])[0].is_ok());
    let verdict = model.process(case.ingress.clone(), &case.frame);
    let Want::Unknown(address) = &case.want else {
        assert_eq!(
            verdict,
            plain.process(case.ingress.clone(), &case.frame),
            "{name}"
        );
        let told = matches!(events.try_recv(), Ok(Event::Unresolved { .. }));
        return assert!(!told, "{name}");
    };
    let frame = match &verdict {
        Verdict::Punt(PuntReason::Unresolved) => Bytes::from(case.frame.clone()),
        Verdict::Tunnel { frame, .. } if frame[..6] == ON_DEMAND_MAC.0 => Bytes::new(),
        Verdict::Reply { frame } if frame[6..12] == ON_DEMAND_MAC.0 => Bytes::new(),
        other => panic!("{name}: {other:?}"),
    };
    let event = Event::Unresolved {
        port,
        network: common::id(common::RED),
        address: ip(address),
        frame,
    };
    assert_eq!(events.try_recv().ok(), Some(event), "{name}");
    assert_eq!(model.drops().unwrap(), Drops::new(), "{name}");
}

/// Reasons that need routers with a way out: `gateways.rs` has their cases.
const OUT: [DropReason; 1] = [DropReason::NoGateway];

/// Reasons that only gateways have, and hosts with floating IPs: `floating.rs` has their cases.
const GATEWAY_ONLY: [DropReason; 6] = [
    DropReason::NotOwner,
    DropReason::NoTranslation,
    DropReason::NatPortsExhausted,
    DropReason::NatConnectionLimit,
    DropReason::OutsideDenied,
    DropReason::IcmpLimit,
];

/// Reasons that need more than one frame or security rows: `filter.rs` has their cases.
const FILTER: [DropReason; 5] = [
    DropReason::EgressDenied,
    DropReason::IngressDenied,
    DropReason::UnknownFragment,
    DropReason::ConnectionLimit,
    DropReason::UnknownUnderlay,
];

#[test]
fn every_case_ends_as_the_path_says() {
    for case in all() {
        check(&case);
    }
}

#[test]
fn what_is_unknown_is_held_where_it_can_be_asked_for() {
    for case in all() {
        if let Ingress::Port(port) = &case.ingress {
            check_on_demand(&case, *port);
            check_by_gateway(&case, *port);
        }
    }
}

#[test]
fn every_reason_has_a_case() {
    let mut drops: BTreeSet<DropReason> = KERNEL_ONLY
        .into_iter()
        .chain(FILTER)
        .chain(OUT)
        .chain(GATEWAY_ONLY)
        .collect();
    // See above.
    let mut punts = BTreeSet::from([PuntReason::Unresolved]);
    for case in all() {
        match case.want {
            Want::Drop(reason) | Want::DropFor(_, reason) => drops.extend([reason]),
            Want::Unknown(_) => drops.extend([DropReason::UnknownDestination]),
            Want::Punt(reason) => punts.extend([reason]),
            Want::Deliver(..) | Want::Tunnel(..) | Want::Reply(_) => {}
        }
    }
    assert_eq!(drops, DropReason::ALL.iter().copied().collect());
    assert_eq!(punts, PuntReason::ALL.iter().copied().collect());
}
