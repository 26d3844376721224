//! Stages 1 to 3, and 7.

use alcor_dataplane::DropReason::{
    Malformed, NoFlood, PortDown, SpoofedMac, UnknownPort, UnsupportedEtherType,
};
use alcor_model::MacAddr;

use crate::{Case, Want, alice_to, case, common::*, drop};

pub(crate) fn cases() -> Vec<Case> {
    let ping = |from: u128| echo((mac(from), mac(BOB), "10.0.0.11", "10.0.0.12"), 64, true);
    let ethertype = |ethertype: [u8; 2]| edit(ping(ALICE), 12, &ethertype);
    let group_source = edit(ping(ALICE), 6, &[0x01, 0, 0x5e, 0, 0, 1]);
    vec![
        case(
            "a device without a port row",
            GHOST,
            ping(GHOST),
            Want::DropFor(None, UnknownPort),
        ),
        case(
            "a port without a device",
            BARE,
            ping(BARE),
            Want::DropFor(None, UnknownPort),
        ),
        case(
            "nothing known at all",
            999,
            ping(ALICE),
            Want::DropFor(None, UnknownPort),
        ),
        drop("the port is down", DOWN, ping(DOWN), PortDown),
        drop("the network is down", GRACE, ping(GRACE), PortDown),
        drop("nothing", ALICE, Vec::new(), Malformed),
        drop("13 bytes", ALICE, ping(ALICE)[..13].to_vec(), Malformed),
        drop("another's MAC", ALICE, ping(BOB), SpoofedMac),
        drop(
            "a group address as source",
            ALICE,
            group_source.clone(),
            SpoofedMac,
        ),
        drop(
            "a group address as source, no port security",
            OPEN,
            group_source,
            SpoofedMac,
        ),
        drop("VLAN tag", ALICE, ethertype([0x81, 0]), UnsupportedEtherType),
        drop(
            "provider tag",
            ALICE,
            ethertype([0x88, 0xa8]),
            UnsupportedEtherType,
        ),
        drop("LLDP", ALICE, ethertype([0x88, 0xcc]), UnsupportedEtherType),
        drop("802.3 length", ALICE, ethertype([0, 46]), UnsupportedEtherType),
        drop(
            "Ethernet broadcast",
            ALICE,
            udp(alice_to(BROADCAST, "10.0.0.11", "10.0.0.12"), (5000, 53), b""),
            NoFlood,
        ),
        drop(
            "limited broadcast to a unicast MAC",
            ALICE,
            udp(
                alice_to(mac(BOB), "10.0.0.11", "255.255.255.255"),
                (5000, 53),
                b"",
            ),
            NoFlood,
        ),
        drop(
            "multicast to a unicast MAC",
            ALICE,
            udp(alice_to(GATEWAY, "10.0.0.11", "224.0.0.251"), (5353, 5353), b""),
            NoFlood,
        ),
        drop(
            "IPv6 multicast",
            ALICE,
            udp(
                alice_to(MacAddr([0x33, 0x33, 0, 0, 0, 0xfb]), "fd00:a::11", "ff02::fb"),
                (5353, 5353),
                b"",
            ),
            NoFlood,
        ),
    ]
}
