//! Stage 6.

use std::net::Ipv6Addr;

use alcor_dataplane::{
    DropReason::{
        DhcpServer, Malformed, NdIgnored, NoFlood, OwnAddress, RouterAdvertisement, SpoofedIp, SpoofedNd,
    },
    PuntReason::RouterSolicitation,
};
use alcor_model::MacAddr;
use etherparse::{Icmpv6Header, Icmpv6Type, IpNumber, Ipv6Header};

use crate::{Case, Want, alice_to, case, common::*, drop};

const ALL_NODES_MAC: MacAddr = MacAddr([0x33, 0x33, 0, 0, 0, 1]);
const ALL_ROUTERS_MAC: MacAddr = MacAddr([0x33, 0x33, 0, 0, 0, 2]);
const SOLICITED_NODE_MAC: MacAddr = MacAddr([0x33, 0x33, 0xff, 0, 0, 0x12]);

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION_OPTIONS: u8 = 60;
const OPTIONS: [u8; 8] = [0, 0, 1, 4, 0, 0, 0, 0];

/// Offsets in a frame: payload length, hop limit, ICMPv6.
const PAYLOAD_LEN: usize = 18;
const HOP_LIMIT: usize = 21;
const ICMP: usize = 54;

pub(crate) fn cases() -> Vec<Case> {
    [
        malformed(),
        extension_headers(),
        fragments(),
        other_nd(),
        refused(),
        answered(),
        sources(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn to_bob() -> Vec<u8> {
    udp(
        alice_to(mac(BOB), "fd00:a::11", "fd00:a::12"),
        (5000, 53),
        b"hello",
    )
}

fn delivered(name: &'static str, frame: Vec<u8>) -> Case {
    case(name, ALICE, frame.clone(), Want::Deliver(BOB, frame))
}

fn solicit(source_mac: MacAddr, source: &str, target: &str, options: &[u8]) -> Vec<u8> {
    let rest = [&[0; 4], &v6(target).octets()[..], options].concat();
    icmp6(
        (source_mac, SOLICITED_NODE_MAC, source, "ff02::1:ff00:12"),
        135,
        &rest,
    )
}

fn source_option(mac: MacAddr) -> Vec<u8> {
    [&[1, 1], &mac.0[..]].concat()
}

/// The advertisement that must come, built by other means than the model's.
fn advertisement(target: &str, mac: MacAddr, flags: u8, to: (MacAddr, &str)) -> Want {
    let rest = [&[2, 1], &mac.0[..]].concat();
    let payload = [&v6(target).octets()[..], &rest].concat();
    let kind = Icmpv6Type::Unknown {
        type_u8: 136,
        code_u8: 0,
        bytes5to8: [flags, 0, 0, 0],
    };
    let (source, destination): (Ipv6Addr, Ipv6Addr) = (v6(target), v6(to.1));
    let icmp = Icmpv6Header::with_checksum(kind, source.octets(), destination.octets(), &payload).unwrap();
    let header = Ipv6Header {
        payload_length: 32,
        next_header: IpNumber::IPV6_ICMP,
        hop_limit: 255,
        source: source.octets(),
        destination: destination.octets(),
        ..Ipv6Header::default()
    };
    let ethernet = [&to.0.0[..], &mac.0, &[0x86, 0xdd]].concat();
    let frame = [&ethernet[..], &header.to_bytes(), &icmp.to_bytes(), &payload].concat();
    assert_eq!(frame.len(), 86);
    Want::Reply(frame)
}

fn malformed() -> Vec<Case> {
    vec![
        drop("no IP header", ALICE, to_bob()[..14].to_vec(), Malformed),
        drop("39 bytes of it", ALICE, to_bob()[..53].to_vec(), Malformed),
        drop("version 4", ALICE, edit(to_bob(), 14, &[0x45]), Malformed),
        drop(
            "payload longer than the frame",
            ALICE,
            edit(to_bob(), PAYLOAD_LEN, &[0, 14]),
            Malformed,
        ),
        drop(
            "7 bytes of UDP",
            ALICE,
            edit(to_bob(), PAYLOAD_LEN, &[0, 7]),
            Malformed,
        ),
        delivered("padding behind the packet", [to_bob(), vec![0; 9]].concat()),
        delivered(
            "no payload, no next header",
            edit(edit(to_bob(), 20, &[59]), PAYLOAD_LEN, &[0, 0]),
        ),
    ]
}

fn extension_headers() -> Vec<Case> {
    let chain = |numbers: &[u8]| {
        numbers
            .iter()
            .fold(to_bob(), |frame, number| extend(&frame, *number, &OPTIONS))
    };
    let later_fragment = extend(&to_bob(), FRAGMENT, &[0, 0, 0, 0x09, 0, 0, 0, 1]);
    let fifth_is_fragment = [DESTINATION_OPTIONS; 4]
        .iter()
        .fold(later_fragment, |frame, number| extend(&frame, *number, &OPTIONS));
    let long = extend(&to_bob(), ROUTING, &[&[0, 2], &[0; 22][..]].concat());
    let solicitation = solicit(mac(ALICE), "fd00:a::11", "fd00:a::12", &[]);
    let advertisement = icmp6(alice_to(mac(BOB), "fd00:a::11", "fd00:a::12"), 134, &[0; 12]);
    let open_advertisement = icmp6((mac(OPEN), mac(BOB), "fd00:a::16", "fd00:a::12"), 134, &[0; 12]);
    let open_na = icmp6((mac(OPEN), mac(BOB), "fd00:a::16", "fd00:a::12"), 136, &[0; 20]);
    let open_na = edit(extend(&open_na, DESTINATION_OPTIONS, &OPTIONS), HOP_LIMIT, &[64]);
    let server = udp(alice_to(mac(BOB), "fd00:a::11", "fd00:a::12"), (547, 546), b"");
    vec![
        delivered("one", chain(&[HOP_BY_HOP])),
        delivered(
            "four",
            chain(&[DESTINATION_OPTIONS, ROUTING, DESTINATION_OPTIONS, HOP_BY_HOP]),
        ),
        delivered("a long one", long.clone()),
        drop("four and a later fragment", ALICE, fifth_is_fragment, Malformed),
        drop("five", ALICE, chain(&[DESTINATION_OPTIONS; 5]), Malformed),
        drop(
            "one that is longer than the packet",
            ALICE,
            edit(long, ICMP + 1, &[5]),
            Malformed,
        ),
        drop(
            "half of one",
            ALICE,
            edit(chain(&[HOP_BY_HOP]), PAYLOAD_LEN, &[0, 4]),
            Malformed,
        ),
        drop(
            "one byte of one",
            ALICE,
            edit(chain(&[HOP_BY_HOP]), PAYLOAD_LEN, &[0, 1]),
            Malformed,
        ),
        drop(
            "hidden solicitation",
            ALICE,
            extend(&solicitation, HOP_BY_HOP, &OPTIONS),
            SpoofedNd,
        ),
        drop(
            "hidden advertisement",
            ALICE,
            extend(&advertisement, DESTINATION_OPTIONS, &OPTIONS),
            SpoofedNd,
        ),
        drop(
            "hidden advertisement, no port security",
            OPEN,
            extend(&open_advertisement, DESTINATION_OPTIONS, &OPTIONS),
            RouterAdvertisement,
        ),
        case(
            "other hidden discovery, no port security",
            OPEN,
            open_na.clone(),
            Want::Deliver(BOB, open_na),
        ),
        drop(
            "hidden DHCP server",
            ALICE,
            extend(&server, DESTINATION_OPTIONS, &OPTIONS),
            DhcpServer,
        ),
    ]
}

fn fragments() -> Vec<Case> {
    let first = [0, 0, 0, 1, 0, 0, 0, 1];
    let later = [0, 0, 0, 0x09, 0, 0, 0, 1];
    let advertisement = icmp6(alice_to(mac(BOB), "fd00:a::11", "fd00:a::12"), 134, &[0; 12]);
    // A first fragment that ends before the ICMPv6 header that it announces.
    let headless = extend(
        &extend(&advertisement, DESTINATION_OPTIONS, &OPTIONS),
        FRAGMENT,
        &first,
    );
    vec![
        delivered("first", extend(&to_bob(), FRAGMENT, &first)),
        delivered("later", extend(&to_bob(), FRAGMENT, &later)),
        drop(
            "advertisement in a first fragment",
            ALICE,
            extend(&advertisement, FRAGMENT, &first),
            SpoofedNd,
        ),
        drop(
            "headless first fragment",
            ALICE,
            edit(headless, PAYLOAD_LEN, &[0, 16]),
            Malformed,
        ),
        delivered(
            "a later fragment is not parsed",
            extend(&advertisement, FRAGMENT, &later),
        ),
        drop(
            "half a fragment header",
            ALICE,
            edit(extend(&to_bob(), FRAGMENT, &first), PAYLOAD_LEN, &[0, 7]),
            Malformed,
        ),
    ]
}

fn other_nd() -> Vec<Case> {
    let rs = |port: u128, from: &str| icmp6((mac(port), ALL_ROUTERS_MAC, from, "ff02::2"), 133, &[0; 4]);
    let local = mac(ALICE).link_local().to_string();
    let from_alice = |kind, len| {
        icmp6(
            alice_to(ALL_NODES_MAC, "fd00:a::11", "ff02::1"),
            kind,
            &vec![0; len],
        )
    };
    let from_open = icmp6((mac(OPEN), mac(BOB), "fd00:a::16", "fd00:a::12"), 134, &[0; 12]);
    vec![
        case(
            "router solicitation",
            ALICE,
            rs(ALICE, &local),
            Want::Punt(RouterSolicitation),
        ),
        case(
            "router solicitation from ::",
            ALICE,
            rs(ALICE, "::"),
            Want::Punt(RouterSolicitation),
        ),
        drop(
            "router solicitation where nothing is advertised",
            FRANK,
            rs(FRANK, "::"),
            NoFlood,
        ),
        drop("only IPv4 is served", CAROL, rs(CAROL, "::"), NoFlood),
        drop(
            "router solicitation through a router",
            ALICE,
            edit(rs(ALICE, "::"), HOP_LIMIT, &[254]),
            Malformed,
        ),
        drop(
            "router advertisement",
            ALICE,
            from_alice(134, 12),
            RouterAdvertisement,
        ),
        drop(
            "router advertisement, no port security",
            OPEN,
            from_open,
            RouterAdvertisement,
        ),
        drop("redirect", ALICE, from_alice(137, 36), RouterAdvertisement),
        drop("neighbour advertisement", ALICE, from_alice(136, 20), NdIgnored),
        drop(
            "neighbour advertisement through a router",
            ALICE,
            edit(from_alice(136, 20), HOP_LIMIT, &[64]),
            Malformed,
        ),
    ]
}

fn refused() -> Vec<Case> {
    let me = mac(ALICE);
    let own_local = me.link_local().to_string();
    let forged = source_option(mac(BOB));
    let short = solicit(me, "fd00:a::11", "fd00:a::12", &[]);
    vec![
        drop(
            "23 bytes",
            ALICE,
            edit(short.clone(), PAYLOAD_LEN, &[0, 23]),
            Malformed,
        ),
        drop(
            "through a router",
            ALICE,
            edit(short, HOP_LIMIT, &[254]),
            Malformed,
        ),
        drop(
            "from another's address",
            ALICE,
            solicit(me, "fd00:a::12", "fd00:a::50", &[]),
            SpoofedNd,
        ),
        drop(
            "from the gateway's address",
            ALICE,
            solicit(me, "fd00:a::1", "fd00:a::12", &[]),
            SpoofedNd,
        ),
        drop(
            "for another's MAC",
            ALICE,
            solicit(me, "fd00:a::11", "fd00:a::12", &forged),
            SpoofedNd,
        ),
        drop(
            "the own address",
            ALICE,
            solicit(me, "::", "fd00:a::11", &[]),
            OwnAddress,
        ),
        drop(
            "the own link-local address",
            ALICE,
            solicit(me, "::", &own_local, &[]),
            OwnAddress,
        ),
        case(
            "nobody has it",
            ALICE,
            solicit(me, "fd00:a::11", "fd00:a::77", &[]),
            Want::Unknown("fd00:a::77"),
        ),
        case(
            "nobody's link-local address",
            ALICE,
            solicit(me, "fd00:a::11", "fe80::1", &[]),
            Want::Unknown("fe80::1"),
        ),
    ]
}

fn answered() -> Vec<Case> {
    let me = mac(ALICE);
    let to_me = (me, "fd00:a::11");
    let ask = |target: &str| solicit(me, "fd00:a::11", target, &source_option(me));
    let local = |mac: MacAddr| mac.link_local().to_string();
    let asked = |name, target: &str, mac, flags| {
        case(name, ALICE, ask(target), advertisement(target, mac, flags, to_me))
    };
    let open = mac(OPEN);
    vec![
        asked("the gateway", "fd00:a::1", GATEWAY, 0xe0),
        asked("the gateway of another subnet", "fd00:b::1", GATEWAY, 0xe0),
        asked("the link-local gateway", &local(GATEWAY), GATEWAY, 0xe0),
        asked("a local port", "fd00:a::12", mac(BOB), 0x60),
        asked("a remote port", "fd00:a::50", DAVE_MAC, 0x60),
        asked(
            "the link-local address of a local port",
            &local(mac(BOB)),
            mac(BOB),
            0x60,
        ),
        asked(
            "the link-local address of a remote port",
            &local(DAVE_MAC),
            DAVE_MAC,
            0x60,
        ),
        case(
            "duplicate address detection",
            ALICE,
            solicit(me, "::", "fd00:a::12", &[]),
            advertisement("fd00:a::12", mac(BOB), 0x20, (ALL_NODES_MAC, "ff02::1")),
        ),
        case(
            "from the link-local address",
            ALICE,
            solicit(me, &local(me), "fd00:a::12", &source_option(me)),
            advertisement("fd00:a::12", mac(BOB), 0x60, (me, &local(me))),
        ),
        case(
            "any source, not secured",
            OPEN,
            solicit(open, "2001:db8::1", "fd00:a::12", &source_option(STRANGER)),
            advertisement("fd00:a::12", mac(BOB), 0x60, (open, "2001:db8::1")),
        ),
        case(
            "a half option",
            ALICE,
            solicit(me, "fd00:a::11", "fd00:a::12", &[1, 1, 9, 9]),
            advertisement("fd00:a::12", mac(BOB), 0x60, to_me),
        ),
    ]
}

fn sources() -> Vec<Case> {
    let send = |port: u128, from: &str| udp((mac(port), mac(BOB), from, "fd00:a::12"), (5000, 53), b"x");
    let own_local = send(ALICE, &mac(ALICE).link_local().to_string());
    let server = |port: u128, from: &str| udp((mac(port), mac(BOB), from, "fd00:a::12"), (547, 546), b"");
    vec![
        drop("a DHCP server", ALICE, server(ALICE, "fd00:a::11"), DhcpServer),
        case(
            "a DHCP server, not secured",
            OPEN,
            server(OPEN, "fd00:a::16"),
            Want::Deliver(BOB, server(OPEN, "fd00:a::16")),
        ),
        drop("another's address", ALICE, send(ALICE, "fd00:a::16"), SpoofedIp),
        drop("no address", ALICE, send(ALICE, "::"), SpoofedIp),
        drop(
            "another's link-local address",
            ALICE,
            send(ALICE, "fe80::1"),
            SpoofedIp,
        ),
        delivered("the own link-local address", own_local),
        case(
            "a pair's prefix",
            PAIRS,
            send(PAIRS, "fd00:9::7"),
            Want::Deliver(BOB, send(PAIRS, "fd00:9::7")),
        ),
        case(
            "any, not secured",
            OPEN,
            send(OPEN, "2001:db8::1"),
            Want::Deliver(BOB, send(OPEN, "2001:db8::1")),
        ),
    ]
}
