//! Stage 5.

use alcor_dataplane::{
    DropReason::{DhcpServer, Malformed, NoFlood, SpoofedIp},
    PuntReason::Dhcp4,
};

use crate::{Case, Want, alice_to, case, common::*, drop};

const DHCP: (u16, u16) = (68, 67);

pub(crate) fn cases() -> Vec<Case> {
    [malformed(), dhcp(), sources()].into_iter().flatten().collect()
}

fn malformed() -> Vec<Case> {
    let good = || udp(alice_to(mac(BOB), "10.0.0.11", "10.0.0.12"), (5000, 53), b"hello");
    let options = || edit(good(), 14, &[0x46]);
    vec![
        drop("no IP header", ALICE, good()[..14].to_vec(), Malformed),
        drop("19 bytes of it", ALICE, good()[..33].to_vec(), Malformed),
        drop("version 6", ALICE, edit(good(), 14, &[0x65]), Malformed),
        drop("header length 16", ALICE, edit(good(), 14, &[0x44]), Malformed),
        drop(
            "header longer than the packet",
            ALICE,
            edit(good(), 14, &[0x4f]),
            Malformed,
        ),
        drop(
            "total length shorter than the header",
            ALICE,
            edit(options(), 16, &[0, 20]),
            Malformed,
        ),
        drop(
            "total length longer than the frame",
            ALICE,
            edit(good(), 16, &[0, 34]),
            Malformed,
        ),
        drop("cut off", ALICE, good()[..46].to_vec(), Malformed),
        drop("7 bytes of UDP", ALICE, edit(good(), 16, &[0, 27]), Malformed),
        case(
            "7 bytes of UDP in a later fragment",
            ALICE,
            edit(edit(good(), 16, &[0, 27]), 20, &[0, 1]),
            Want::Deliver(BOB, edit(edit(good(), 16, &[0, 27]), 20, &[0, 1])),
        ),
        case(
            "padding behind the packet",
            ALICE,
            [good(), vec![0; 9]].concat(),
            Want::Deliver(BOB, [good(), vec![0; 9]].concat()),
        ),
    ]
}

fn dhcp() -> Vec<Case> {
    let discover = || {
        udp(
            alice_to(BROADCAST, "0.0.0.0", "255.255.255.255"),
            DHCP,
            b"discover",
        )
    };
    let carol = mac(CAROL);
    let own_server = || udp((mac(FRANK), mac(BOB), "0.0.0.0", "10.0.0.12"), DHCP, b"");
    let server = || udp(alice_to(mac(BOB), "10.0.0.11", "10.0.0.12"), (67, 68), b"offer");
    let open_server = udp(
        (mac(OPEN), mac(BOB), "10.0.0.16", "10.0.0.12"),
        (67, 68),
        b"offer",
    );
    let in_fragment = |field: [u8; 2]| edit(discover(), 20, &field);
    vec![
        case("discover", ALICE, discover(), Want::Punt(Dhcp4)),
        case(
            "discover in a first fragment",
            ALICE,
            in_fragment([0x20, 0]),
            Want::Punt(Dhcp4),
        ),
        drop(
            "no ports in a later fragment",
            ALICE,
            in_fragment([0, 1]),
            SpoofedIp,
        ),
        case(
            "renewal, to the gateway",
            ALICE,
            udp(alice_to(GATEWAY, "10.0.0.11", "10.0.0.1"), DHCP, b"request"),
            Want::Punt(Dhcp4),
        ),
        case(
            "from any address",
            ALICE,
            udp(alice_to(mac(BOB), "9.9.9.9", "10.0.0.12"), DHCP, b"request"),
            Want::Punt(Dhcp4),
        ),
        drop(
            "no subnet with DHCP",
            FRANK,
            udp((mac(FRANK), BROADCAST, "0.0.0.0", "255.255.255.255"), DHCP, b""),
            NoFlood,
        ),
        case(
            "to a server of the tenant's own",
            FRANK,
            own_server(),
            Want::Deliver(BOB, own_server()),
        ),
        drop(
            "to the tenant's own server with another's address",
            FRANK,
            udp((mac(FRANK), mac(BOB), "10.0.1.13", "10.0.0.12"), DHCP, b""),
            SpoofedIp,
        ),
        case(
            "one of the subnets has DHCP",
            CAROL,
            udp((carol, BROADCAST, "0.0.0.0", "255.255.255.255"), DHCP, b""),
            Want::Punt(Dhcp4),
        ),
        drop("a rogue server", ALICE, server(), DhcpServer),
        case(
            "a server where ports are not secured",
            OPEN,
            open_server.clone(),
            Want::Deliver(BOB, open_server),
        ),
    ]
}

fn sources() -> Vec<Case> {
    let send = |port: u128, from: &str| udp((mac(port), mac(BOB), from, "10.0.0.12"), (5000, 53), b"x");
    let pair = |from: &str| {
        udp(
            (VIRTUAL_ROUTER_MAC, mac(BOB), from, "10.0.0.12"),
            (5000, 53),
            b"x",
        )
    };
    vec![
        drop("another's address", ALICE, send(ALICE, "10.0.0.16"), SpoofedIp),
        drop("no address", ALICE, send(ALICE, "0.0.0.0"), SpoofedIp),
        drop("the gateway's address", ALICE, send(ALICE, "10.0.0.1"), SpoofedIp),
        drop(
            "a pair's address without its MAC",
            PAIRS,
            send(PAIRS, "10.0.0.100"),
            SpoofedIp,
        ),
        drop(
            "a pair's MAC without its address",
            PAIRS,
            pair("172.16.0.1"),
            SpoofedIp,
        ),
        case(
            "a pair",
            PAIRS,
            pair("10.0.0.100"),
            Want::Deliver(BOB, pair("10.0.0.100")),
        ),
        case(
            "the fixed address with a pair's MAC",
            PAIRS,
            pair("10.0.0.17"),
            Want::Deliver(BOB, pair("10.0.0.17")),
        ),
        case(
            "a pair's prefix",
            PAIRS,
            send(PAIRS, "172.16.255.1"),
            Want::Deliver(BOB, send(PAIRS, "172.16.255.1")),
        ),
        case(
            "any, not secured",
            OPEN,
            send(OPEN, "9.9.9.9"),
            Want::Deliver(BOB, send(OPEN, "9.9.9.9")),
        ),
    ]
}
