//! Stage 8.

use alcor_dataplane::{
    DropReason::{NoRoute, ToGateway},
    PuntReason::TtlExceeded,
};

use crate::{Case, Want, alice_to, case, common::*, drop};

const V4: (&str, &str) = ("10.0.0.11", "10.0.0.1");
const V6: (&str, &str) = ("fd00:a::11", "fd00:a::1");
const PAYLOAD: &[u8] = b"hello";

pub(crate) fn cases() -> Vec<Case> {
    [gateway(), refused(), routed()].into_iter().flatten().collect()
}

/// What comes back: an echo reply with TTL 64, built from nothing.
fn pong(from: &str) -> Want {
    let to = if from.contains(':') { V6.0 } else { V4.0 };
    Want::Reply(echo((GATEWAY, mac(ALICE), from, to), 64, false))
}

fn gateway() -> Vec<Case> {
    let link_local = GATEWAY.link_local().to_string();
    let ping = |to: &str, ttl| {
        let from = if to.contains(':') { V6.0 } else { V4.0 };
        echo((mac(ALICE), GATEWAY, from, to), ttl, true)
    };
    let mut with_options = ping(V4.1, 64);
    with_options.splice(34..34, [1, 1, 1, 0]);
    let with_options = edit(edit(with_options, 14, &[0x46]), 16, &[0, 43]);
    let fragment = edit(ping(V4.1, 64), 20, &[0x20, 0]);
    let short = edit(ping(V4.1, 64), 16, &[0, 27]);
    let reply = echo(alice_to(GATEWAY, V4.0, V4.1), 64, false);
    let broken = edit(ping(V4.1, 64), 36, &[0xde, 0xad]);
    let with_code = Want::Reply(edit(echo((GATEWAY, mac(ALICE), V4.1, V4.0), 64, false), 35, &[5]));
    let broken_pong = pong_with_checksum(0xdead);
    vec![
        case("ping", ALICE, ping(V4.1, 64), pong(V4.1)),
        case("ping with TTL 1", ALICE, ping(V4.1, 1), pong(V4.1)),
        case("ping with TTL 255", ALICE, ping(V4.1, 255), pong(V4.1)),
        case(
            "ping the gateway of another subnet",
            ALICE,
            ping("10.0.1.1", 64),
            pong("10.0.1.1"),
        ),
        case("ping IPv6", ALICE, ping(V6.1, 64), pong(V6.1)),
        case("ping IPv6 with hop limit 1", ALICE, ping(V6.1, 1), pong(V6.1)),
        case(
            "ping the link-local gateway",
            ALICE,
            ping(&link_local, 255),
            pong(&link_local),
        ),
        case(
            "a wrong checksum stays wrong by as much",
            ALICE,
            broken,
            broken_pong,
        ),
        case("the code stays", ALICE, edit(ping(V4.1, 64), 35, &[5]), with_code),
        drop("ping with options", ALICE, with_options, ToGateway),
        drop("ping in fragments", ALICE, fragment, ToGateway),
        drop("7 bytes of ICMP", ALICE, short, ToGateway),
        drop("pong", ALICE, reply, ToGateway),
        drop(
            "ping IPv6 with options",
            ALICE,
            extend(&ping(V6.1, 64), 60, &[0, 0, 1, 4, 0, 0, 0, 0]),
            ToGateway,
        ),
        drop(
            "pong IPv6",
            ALICE,
            echo(alice_to(GATEWAY, V6.0, V6.1), 64, false),
            ToGateway,
        ),
        drop(
            "UDP",
            ALICE,
            udp(alice_to(GATEWAY, V4.0, V4.1), (5000, 53), PAYLOAD),
            ToGateway,
        ),
        drop(
            "UDP IPv6",
            ALICE,
            udp(alice_to(GATEWAY, V6.0, V6.1), (5000, 53), PAYLOAD),
            ToGateway,
        ),
    ]
}

/// The reply to a ping that carried this checksum: only the type changed, from 8 to 0.
fn pong_with_checksum(checksum: u16) -> Want {
    let reply = echo((GATEWAY, mac(ALICE), V4.1, V4.0), 64, false);
    Want::Reply(edit(reply, 36, &(checksum + 0x0800).to_be_bytes()))
}

fn refused() -> Vec<Case> {
    let send = |from: &str, to: &str, ttl| udp_ttl(alice_to(GATEWAY, from, to), ttl, (5000, 53), PAYLOAD);
    let local = mac(ALICE).link_local().to_string();
    let bob_local = mac(BOB).link_local().to_string();
    vec![
        drop(
            "from a link-local address",
            ALICE,
            send(&local, "fd00:b::13", 64),
            NoRoute,
        ),
        drop(
            "to a link-local address",
            ALICE,
            send(V6.0, &bob_local, 64),
            NoRoute,
        ),
        case(
            "TTL 1",
            ALICE,
            send(V4.0, "10.0.1.13", 1),
            Want::Punt(TtlExceeded),
        ),
        case(
            "TTL 0",
            ALICE,
            send(V4.0, "10.0.1.13", 0),
            Want::Punt(TtlExceeded),
        ),
        case(
            "hop limit 1",
            ALICE,
            send(V6.0, "fd00:b::13", 1),
            Want::Punt(TtlExceeded),
        ),
        case(
            "TTL 1 to nowhere",
            ALICE,
            send(V4.0, "8.8.8.8", 1),
            Want::Punt(TtlExceeded),
        ),
        drop("outside", ALICE, send(V4.0, "8.8.8.8", 64), NoRoute),
        drop("outside, IPv6", ALICE, send(V6.0, "2001:db8::1", 64), NoRoute),
        drop(
            "a subnet without a gateway",
            ALICE,
            send(V4.0, "10.0.2.13", 64),
            NoRoute,
        ),
        case(
            "nobody",
            ALICE,
            send(V4.0, "10.0.1.77", 64),
            Want::Unknown("10.0.1.77"),
        ),
        case(
            "nobody, IPv6",
            ALICE,
            send(V6.0, "fd00:b::77", 64),
            Want::Unknown("fd00:b::77"),
        ),
        case(
            "a subnet's broadcast",
            ALICE,
            send(V4.0, "10.0.1.255", 64),
            Want::Unknown("10.0.1.255"),
        ),
    ]
}

fn routed() -> Vec<Case> {
    let send = |to: &str, ttl| {
        let from = if to.contains(':') { V6.0 } else { V4.0 };
        udp_ttl((mac(ALICE), GATEWAY, from, to), ttl, (5000, 53), PAYLOAD)
    };
    // Built from nothing with the lower TTL: the checksum of its header is a full one.
    let arrives = |receiver, to: &str, ttl| {
        let from = if to.contains(':') { V6.0 } else { V4.0 };
        udp_ttl((GATEWAY, receiver, from, to), ttl, (5000, 53), PAYLOAD)
    };
    let carol = mac(CAROL);
    vec![
        case(
            "to a local port",
            ALICE,
            send("10.0.1.13", 64),
            Want::Deliver(CAROL, arrives(carol, "10.0.1.13", 63)),
        ),
        case(
            "TTL 2",
            ALICE,
            send("10.0.1.13", 2),
            Want::Deliver(CAROL, arrives(carol, "10.0.1.13", 1)),
        ),
        case(
            "TTL 255",
            ALICE,
            send("10.0.1.13", 255),
            Want::Deliver(CAROL, arrives(carol, "10.0.1.13", 254)),
        ),
        case(
            "to a local port, IPv6",
            ALICE,
            send("fd00:b::13", 64),
            Want::Deliver(CAROL, arrives(carol, "fd00:b::13", 63)),
        ),
        case(
            "to a remote port",
            ALICE,
            send("10.0.1.51", 64),
            Want::Tunnel(EVE_HOST, arrives(EVE_MAC, "10.0.1.51", 63)),
        ),
        case(
            "to a remote port, IPv6",
            ALICE,
            send("fd00:b::51", 64),
            Want::Tunnel(EVE_HOST, arrives(EVE_MAC, "fd00:b::51", 63)),
        ),
        case(
            "into the own subnet",
            ALICE,
            send("10.0.0.12", 64),
            Want::Deliver(BOB, arrives(mac(BOB), "10.0.0.12", 63)),
        ),
        case(
            "back to the sender",
            ALICE,
            send("10.0.0.11", 64),
            Want::Deliver(ALICE, arrives(mac(ALICE), "10.0.0.11", 63)),
        ),
    ]
}
