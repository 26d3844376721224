//! From the tunnel.

use alcor_dataplane::{
    DropReason::{self, Malformed, NoFlood, NoLocalPort, PortDown, UnknownVni},
    Ingress,
};
use alcor_model::MacAddr;

use crate::{Case, Want, common::*};

fn tunnelled(name: &'static str, vni: u32, frame: Vec<u8>, want: Want) -> Case {
    Case {
        name,
        ingress: Ingress::Tunnel {
            source: ip(DAVE_HOST),
            vni,
            label: 9,
            forwarded: false,
        },
        frame,
        want,
    }
}

fn dropped(name: &'static str, vni: u32, frame: Vec<u8>, port: Option<u128>, reason: DropReason) -> Case {
    tunnelled(name, vni, frame, Want::DropFor(port, reason))
}

pub(crate) fn cases() -> Vec<Case> {
    let to = |mac: MacAddr| udp((DAVE_MAC, mac, "10.0.0.50", "10.0.0.11"), (53, 5000), b"answer");
    let alice = mac(ALICE);
    let odd = edit(to(alice), 12, &[0x12, 0x34]);
    vec![
        tunnelled(
            "to a local port",
            RED_VNI,
            to(alice),
            Want::Deliver(ALICE, to(alice)),
        ),
        tunnelled(
            "the same addresses in another network",
            BLUE_VNI,
            to(alice),
            Want::Deliver(MALLORY, to(alice)),
        ),
        tunnelled(
            "unchanged, whatever it is",
            RED_VNI,
            odd.clone(),
            Want::Deliver(ALICE, odd),
        ),
        tunnelled(
            "14 bytes",
            RED_VNI,
            to(alice)[..14].to_vec(),
            Want::Deliver(ALICE, to(alice)[..14].to_vec()),
        ),
        dropped("unknown network", 77, to(alice), None, UnknownVni),
        dropped("network 0", 0, to(alice), None, UnknownVni),
        dropped(
            "more than 24 bits",
            RED_VNI | 1 << 24,
            to(alice),
            None,
            UnknownVni,
        ),
        dropped("the network is down", GREY_VNI, to(alice), None, PortDown),
        dropped("13 bytes", RED_VNI, to(alice)[..13].to_vec(), None, Malformed),
        dropped("broadcast", RED_VNI, to(BROADCAST), None, NoFlood),
        dropped(
            "multicast",
            RED_VNI,
            to(MacAddr([0x33, 0x33, 0, 0, 0, 1])),
            None,
            NoFlood,
        ),
        dropped(
            "a port of another network only",
            BLUE_VNI,
            to(mac(BOB)),
            None,
            NoLocalPort,
        ),
        dropped("back into the tunnel", RED_VNI, to(DAVE_MAC), None, NoLocalPort),
        dropped("to the gateway", RED_VNI, to(GATEWAY), None, NoLocalPort),
        dropped(
            "the receiver is down",
            RED_VNI,
            to(mac(DOWN)),
            Some(DOWN),
            PortDown,
        ),
        dropped(
            "the receiver has no device",
            RED_VNI,
            to(mac(BARE)),
            Some(BARE),
            PortDown,
        ),
    ]
}
