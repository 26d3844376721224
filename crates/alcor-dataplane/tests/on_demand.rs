//! Networks in which addresses are asked for: frames that were held and are released, which neighbours are used, and ports
//! that have left.
#![allow(clippy::unwrap_used, reason = "a panic is how a test says no")]

mod common;

use std::net::IpAddr;

use alcor_dataplane::{
    Dataplane, DataplaneError, DropReason, Ingress, Model, NeighbourRow, NetworkRow, PuntReason, Row,
    RowChange, RowKey, Verdict,
};
use alcor_model::{Id, MacAddr, Network};
use common::*;

fn put(row: Row) -> RowChange {
    RowChange::Put(row)
}

fn apply(model: &mut Model, changes: &[RowChange]) {
    assert!(model.apply(changes).iter().all(Result::is_ok));
}

fn on_demand() -> Model {
    let mut model = model();
    let row = NetworkRow {
        on_demand: true,
        ..network(RED, RED_VNI)
    };
    apply(&mut model, &[put(Row::Network(row))]);
    model
}

fn from_alice(to: MacAddr, address: &str) -> Vec<u8> {
    udp((mac(ALICE), to, "10.0.0.11", address), (5000, 53), b"hello")
}

#[test]
fn a_frame_goes_on_its_way_when_the_neighbour_is_known() {
    let mut model = on_demand();
    let frame = from_alice(STRANGER, "10.0.0.77");
    let held = model.process(Ingress::Port(id(ALICE)), &frame);
    assert_eq!(held, Verdict::Punt(PuntReason::Unresolved));
    let row = neighbour(RED, "10.0.0.77", STRANGER, EVE_HOST, 0);
    apply(&mut model, &[put(Row::Neighbour(row))]);
    model.release(id(ALICE), &frame).unwrap();
    let released = model.take_released();
    assert!(
        matches!(released[..], [(port, Verdict::Tunnel { host, .. })] if port == id(ALICE) && host == ip(EVE_HOST)),
        "{released:?}"
    );
    assert!(model.take_released().is_empty());
    let refused = model.release(id(BARE), &frame);
    assert!(matches!(refused, Err(DataplaneError::NoDevice(port)) if port == id(BARE)));
}

#[test]
fn a_released_frame_is_checked_as_any_other() {
    let mut model = on_demand();
    let spoofed = udp((mac(ALICE), DAVE_MAC, "10.0.0.12", "10.0.0.50"), (5000, 53), b"");
    model.release(id(ALICE), &spoofed).unwrap();
    assert_eq!(
        model.take_released(),
        [(id(ALICE), Verdict::Drop(DropReason::SpoofedIp))]
    );
}

/// "Who has this address?" of Alice.
fn arp_request(target: &str) -> Vec<u8> {
    let kind = [0, 1, 8, 0, 6, 4, 0, 1];
    let (own, asked) = (v4("10.0.0.11").octets(), v4(target).octets());
    let ethernet = [&BROADCAST.0[..], &mac(ALICE).0, &[8, 6]].concat();
    [&ethernet[..], &kind, &mac(ALICE).0, &own, &[0; 6], &asked].concat()
}

/// Which of Dave's and Eve's addresses were used since the last call.
fn used(model: &mut Model) -> Vec<&'static str> {
    let addresses = [
        "10.0.0.50",
        "fd00:a::50",
        "10.0.1.51",
        "fd00:b::51",
        "10.0.0.12",
        "10.0.0.77",
    ];
    let keys: Vec<(Id<Network>, IpAddr)> = addresses.iter().map(|text| (id(RED), ip(text))).collect();
    let used = model.take_used(&keys).unwrap();
    assert_eq!(model.take_used(&keys).unwrap(), [false; 6], "taken is taken");
    let used = addresses.into_iter().zip(used).filter(|(_, used)| *used);
    used.map(|(address, _)| address).collect()
}

#[test]
fn rows_that_carry_packets_are_used() {
    let mut model = model();
    assert!(used(&mut model).is_empty());
    let send = |model: &mut Model, frame: &[u8]| model.process(Ingress::Port(id(ALICE)), frame);
    send(&mut model, &arp_request("10.0.0.50"));
    assert_eq!(used(&mut model), ["10.0.0.50"], "an answer");
    send(&mut model, &from_alice(DAVE_MAC, "10.0.0.50"));
    assert_eq!(
        used(&mut model),
        ["10.0.0.50", "fd00:a::50"],
        "every address of the MAC"
    );
    send(&mut model, &from_alice(GATEWAY, "10.0.1.51"));
    assert_eq!(used(&mut model), ["10.0.1.51"], "routed");
    send(&mut model, &from_alice(mac(BOB), "10.0.0.12"));
    assert!(used(&mut model).is_empty(), "a local port has no row");
    let back = Ingress::Tunnel {
        source: ip(DAVE_HOST),
        vni: RED_VNI,
        label: 0,
        forwarded: false,
    };
    model.process(
        back,
        &udp((DAVE_MAC, mac(ALICE), "10.0.0.50", "10.0.0.11"), (53, 5000), b""),
    );
    assert!(used(&mut model).is_empty(), "what comes in uses nothing");
    send(&mut model, &from_alice(DAVE_MAC, "10.0.0.50"));
    let gone =
        ["10.0.0.50", "fd00:a::50"].map(|address| RowChange::Remove(RowKey::Neighbour(id(RED), ip(address))));
    apply(&mut model, &gone);
    apply(
        &mut model,
        &[put(Row::Neighbour(neighbour(
            RED,
            "10.0.0.50",
            DAVE_MAC,
            DAVE_HOST,
            0,
        )))],
    );
    assert!(used(&mut model).is_empty(), "a row that is new was not used");
}

#[test]
fn what_comes_for_a_port_that_has_left_is_passed_on_once() {
    let mut model = model();
    let frame = udp(
        (DAVE_MAC, mac(BOB), "10.0.0.50", "10.0.0.12"),
        (53, 5000),
        b"late",
    );
    let ingress = |forwarded| Ingress::Tunnel {
        source: ip(DAVE_HOST),
        vni: RED_VNI,
        label: 9,
        forwarded,
    };
    let moved = NeighbourRow {
        forward: true,
        ..neighbour(RED, "10.0.0.12", mac(BOB), EVE_HOST, 3)
    };
    apply(&mut model, &[put(Row::Neighbour(moved))]);
    let delivered = |verdict: &Verdict| matches!(verdict, Verdict::Deliver { port, .. } if *port == id(BOB));
    assert!(delivered(&model.process(ingress(false), &frame)), "still here");
    apply(&mut model, &[RowChange::Remove(RowKey::Port(id(RED), id(BOB)))]);
    let passed_on = Verdict::Tunnel {
        host: ip(EVE_HOST),
        vni: network(RED, RED_VNI).vni,
        label: 9,
        forwarded: true,
        frame: frame.clone().into(),
    };
    assert_eq!(model.process(ingress(false), &frame), passed_on);
    let dropped = Verdict::Drop(DropReason::NoLocalPort);
    assert_eq!(model.process(ingress(true), &frame), dropped);
    assert!(used(&mut model).is_empty());
    let plain = NeighbourRow {
        forward: false,
        ..moved
    };
    apply(&mut model, &[put(Row::Neighbour(plain))]);
    assert_eq!(model.process(ingress(false), &frame), dropped);
    // It comes back: local wins, also over what is passed on.
    apply(&mut model, &[put(Row::Neighbour(moved))]);
    apply(&mut model, &[put(Row::Port(port(BOB, RED, &[(1, "10.0.0.12")])))]);
    assert!(delivered(&model.process(ingress(true), &frame)));
}
