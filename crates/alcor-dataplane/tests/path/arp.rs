//! Stage 4.

use alcor_dataplane::DropReason::{ArpIgnored, Malformed, OwnAddress, SpoofedArp};
use alcor_model::MacAddr;
use etherparse::{ArpHardwareId, ArpOperation, ArpPacket, EtherType, PacketBuilder};

use crate::{Case, Want, case, common::*, drop};

fn arp(ethernet: (MacAddr, MacAddr), op: u16, sender: (MacAddr, &str), target: (MacAddr, &str)) -> Vec<u8> {
    let packet = ArpPacket::new(
        ArpHardwareId::ETHERNET,
        EtherType::IPV4,
        ArpOperation(op),
        &sender.0.0,
        &v4(sender.1).octets(),
        &target.0.0,
        &v4(target.1).octets(),
    )
    .unwrap();
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(ethernet.0.0, ethernet.1.0)
        .arp(packet)
        .write(&mut frame)
        .unwrap();
    frame
}

fn request(from: MacAddr, sender_ip: &str, target: &str) -> Vec<u8> {
    arp(
        (from, BROADCAST),
        1,
        (from, sender_ip),
        (MacAddr::default(), target),
    )
}

fn reply(from: MacAddr, from_ip: &str, to: MacAddr, to_ip: &str) -> Want {
    let frame = arp((from, to), 2, (from, from_ip), (to, to_ip));
    assert_eq!(frame.len(), 42);
    Want::Reply(frame)
}

pub(crate) fn cases() -> Vec<Case> {
    [refused(), answered()].into_iter().flatten().collect()
}

fn refused() -> Vec<Case> {
    let me = mac(ALICE);
    let good = || request(me, "10.0.0.11", "10.0.0.12");
    vec![
        drop("41 bytes", ALICE, good()[..41].to_vec(), Malformed),
        drop("not Ethernet", ALICE, edit(good(), 14, &[0, 6]), Malformed),
        drop("not IPv4", ALICE, edit(good(), 16, &[0x86, 0xdd]), Malformed),
        drop("MAC length 8", ALICE, edit(good(), 18, &[8]), Malformed),
        drop("address length 16", ALICE, edit(good(), 19, &[16]), Malformed),
        drop("a reply", ALICE, edit(good(), 20, &[0, 2]), ArpIgnored),
        drop(
            "an announcement by reply",
            ALICE,
            arp((me, BROADCAST), 2, (me, "10.0.0.11"), (me, "10.0.0.11")),
            ArpIgnored,
        ),
        drop("RARP", ALICE, edit(good(), 20, &[0, 3]), ArpIgnored),
        drop(
            "another sender MAC",
            ALICE,
            arp(
                (me, BROADCAST),
                1,
                (mac(BOB), "10.0.0.11"),
                (MacAddr::default(), "10.0.0.12"),
            ),
            SpoofedArp,
        ),
        drop(
            "another's sender address",
            ALICE,
            request(me, "10.0.0.1", "10.0.0.12"),
            SpoofedArp,
        ),
        drop(
            "a pair's address without its MAC",
            PAIRS,
            request(mac(PAIRS), "10.0.0.100", "10.0.0.12"),
            SpoofedArp,
        ),
        drop(
            "announcement",
            ALICE,
            request(me, "10.0.0.11", "10.0.0.11"),
            OwnAddress,
        ),
        drop(
            "probe of the own address",
            ALICE,
            request(me, "0.0.0.0", "10.0.0.11"),
            OwnAddress,
        ),
        case(
            "nobody has it",
            ALICE,
            request(me, "10.0.0.11", "10.0.0.77"),
            Want::Unknown("10.0.0.77"),
        ),
    ]
}

fn answered() -> Vec<Case> {
    let me = mac(ALICE);
    let open = mac(OPEN);
    let unicast = arp((me, GATEWAY), 1, (me, "10.0.0.11"), (GATEWAY, "10.0.0.1"));
    let padded = [request(me, "10.0.0.11", "10.0.0.12"), vec![0; 18]].concat();
    vec![
        case(
            "the gateway",
            ALICE,
            request(me, "10.0.0.11", "10.0.0.1"),
            reply(GATEWAY, "10.0.0.1", me, "10.0.0.11"),
        ),
        case(
            "the gateway, asked again by unicast",
            ALICE,
            unicast,
            reply(GATEWAY, "10.0.0.1", me, "10.0.0.11"),
        ),
        case(
            "the gateway of another subnet",
            ALICE,
            request(me, "10.0.0.11", "10.0.1.1"),
            reply(GATEWAY, "10.0.1.1", me, "10.0.0.11"),
        ),
        case(
            "a local port",
            ALICE,
            request(me, "10.0.0.11", "10.0.0.12"),
            reply(mac(BOB), "10.0.0.12", me, "10.0.0.11"),
        ),
        case(
            "padded to 60 bytes",
            ALICE,
            padded,
            reply(mac(BOB), "10.0.0.12", me, "10.0.0.11"),
        ),
        case(
            "a remote port",
            ALICE,
            request(me, "10.0.0.11", "10.0.0.50"),
            reply(DAVE_MAC, "10.0.0.50", me, "10.0.0.11"),
        ),
        case(
            "duplicate address detection",
            ALICE,
            request(me, "0.0.0.0", "10.0.0.12"),
            reply(mac(BOB), "10.0.0.12", me, "0.0.0.0"),
        ),
        case(
            "from an allowed pair",
            PAIRS,
            request(VIRTUAL_ROUTER_MAC, "10.0.0.100", "10.0.0.1"),
            reply(GATEWAY, "10.0.0.1", VIRTUAL_ROUTER_MAC, "10.0.0.100"),
        ),
        case(
            "anything without port security",
            OPEN,
            arp(
                (open, BROADCAST),
                1,
                (STRANGER, "9.9.9.9"),
                (MacAddr::default(), "10.0.0.1"),
            ),
            Want::Reply(arp(
                (GATEWAY, open),
                2,
                (GATEWAY, "10.0.0.1"),
                (STRANGER, "9.9.9.9"),
            )),
        ),
    ]
}
