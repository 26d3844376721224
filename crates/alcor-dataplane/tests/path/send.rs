//! Stages 9 and 10.

use alcor_dataplane::{
    DropReason::{Loop, Oversize, PortDown, UnknownDestination},
    PuntReason::TooBig,
};
use alcor_model::MacAddr;

use crate::{Case, Want, alice_to, case, common::*, drop};

pub(crate) fn cases() -> Vec<Case> {
    let send = |to: MacAddr, ip: &str| udp(alice_to(to, "10.0.0.11", ip), (5000, 53), b"hello");
    let sized = |to: MacAddr, ip: &str, len: usize| {
        udp(alice_to(to, "10.0.0.11", ip), (5000, 53), &vec![7; len - 28])
    };
    let to_bob = send(mac(BOB), "10.0.0.12");
    let to_dave = send(DAVE_MAC, "10.0.0.50");
    let to_dave_6 = udp(
        alice_to(DAVE_MAC, "fd00:a::11", "fd00:a::50"),
        (5000, 53),
        b"hello",
    );
    let any_address = send(mac(BOB), "8.8.8.8");
    let padded = [to_bob.clone(), vec![0; MTU]].concat();
    let largest = sized(mac(BOB), "10.0.0.12", MTU);
    let ttl_0 = udp_ttl(alice_to(mac(BOB), "10.0.0.11", "10.0.0.12"), 0, (5000, 53), b"");
    vec![
        case(
            "to a local port",
            ALICE,
            to_bob.clone(),
            Want::Deliver(BOB, to_bob),
        ),
        case(
            "to a remote port",
            ALICE,
            to_dave.clone(),
            Want::Tunnel(DAVE_HOST, to_dave),
        ),
        case(
            "to a remote port, IPv6",
            ALICE,
            to_dave_6.clone(),
            Want::Tunnel(DAVE_HOST, to_dave_6),
        ),
        case(
            "by MAC, whatever the address",
            ALICE,
            any_address.clone(),
            Want::Deliver(BOB, any_address),
        ),
        case(
            "a switch does not look at the TTL",
            ALICE,
            ttl_0.clone(),
            Want::Deliver(BOB, ttl_0),
        ),
        case(
            "nobody's MAC, nobody's address",
            ALICE,
            send(STRANGER, "10.0.0.77"),
            Want::Unknown("10.0.0.77"),
        ),
        case(
            "nobody's MAC for an address that another has now",
            ALICE,
            send(STRANGER, "10.0.0.12"),
            Want::Deliver(BOB, send(mac(BOB), "10.0.0.12")),
        ),
        case(
            "nobody's MAC for an address that another has now, elsewhere",
            ALICE,
            send(STRANGER, "10.0.0.50"),
            Want::Tunnel(DAVE_HOST, send(DAVE_MAC, "10.0.0.50")),
        ),
        drop(
            "nobody's MAC for the own address",
            ALICE,
            send(STRANGER, "10.0.0.11"),
            Loop,
        ),
        drop(
            "nobody's MAC for the gateway",
            ALICE,
            send(STRANGER, "10.0.0.1"),
            UnknownDestination,
        ),
        drop("to itself", ALICE, send(mac(ALICE), "10.0.0.11"), Loop),
        case(
            "as long as the MTU",
            ALICE,
            largest.clone(),
            Want::Deliver(BOB, largest),
        ),
        drop(
            "longer than the MTU",
            ALICE,
            sized(mac(BOB), "10.0.0.12", MTU + 1),
            Oversize,
        ),
        drop(
            "longer than the MTU, to another host",
            ALICE,
            sized(DAVE_MAC, "10.0.0.50", MTU + 1),
            Oversize,
        ),
        drop("longer than the MTU by padding", ALICE, padded, Oversize),
        case(
            "longer than the MTU, routed",
            ALICE,
            sized(GATEWAY, "10.0.1.13", MTU + 1),
            Want::Punt(TooBig),
        ),
        case(
            "longer than the MTU, routed, IPv6",
            ALICE,
            udp(
                alice_to(GATEWAY, "fd00:a::11", "fd00:b::13"),
                (5000, 53),
                &vec![7; MTU + 1 - 48],
            ),
            Want::Punt(TooBig),
        ),
        drop(
            "longer than the MTU, routed, may be fragmented",
            ALICE,
            edit(sized(GATEWAY, "10.0.1.13", MTU + 1), 20, &[0, 0]),
            Oversize,
        ),
        drop(
            "too long before the receiver is down",
            ALICE,
            sized(mac(DOWN), "10.0.0.14", MTU + 1),
            Oversize,
        ),
        drop(
            "the receiver is down",
            ALICE,
            send(mac(DOWN), "10.0.0.14"),
            PortDown,
        ),
        drop(
            "the receiver has no device",
            ALICE,
            send(mac(BARE), "10.0.0.15"),
            PortDown,
        ),
        drop(
            "the receiver of a routed packet is down",
            ALICE,
            send(GATEWAY, "10.0.0.14"),
            PortDown,
        ),
    ]
}
