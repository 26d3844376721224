//! Rows, devices, injected frames and events of the model.
#![allow(clippy::unwrap_used)]

mod common;

use alcor_dataplane::{
    Dataplane, DataplaneError, DropReason, EVENT_QUEUE, Ingress, Model, NetworkRow, PortRow, Row, RowChange,
    RowKey, Verdict,
    model::{INJECTED_FRAMES, Limits},
};
use common::*;

fn put(row: Row) -> RowChange {
    RowChange::Put(row)
}

fn apply_one(model: &mut Model, change: RowChange) -> Result<(), DataplaneError> {
    let mut outcomes = model.apply(&[change]);
    assert_eq!(outcomes.len(), 1);
    outcomes.remove(0)
}

fn ping(from: u128, to: u128) -> Vec<u8> {
    udp(
        (mac(from), mac(to), "10.0.0.11", "10.0.0.12"),
        (5000, 53),
        b"ping",
    )
}

fn is_delivered(verdict: &Verdict, to: u128) -> bool {
    matches!(verdict, Verdict::Deliver { port, .. } if *port == id(to))
}

#[test]
fn rows_in_an_unknown_network_are_refused_and_the_others_go_on() {
    let mut model = Model::default();
    let outcomes = model.apply(&[
        put(Row::Subnet(subnet(1, RED, "10.0.0.0/24", None, false))),
        put(Row::Network(network(RED, RED_VNI))),
        put(Row::Port(port(ALICE, BLUE, &[]))),
        put(Row::Neighbour(neighbour(
            BLUE, "10.0.0.1", DAVE_MAC, DAVE_HOST, 0,
        ))),
        put(Row::Port(port(ALICE, RED, &[]))),
    ]);
    let refused: Vec<bool> = outcomes
        .iter()
        .map(|outcome| matches!(outcome, Err(DataplaneError::UnknownNetwork(_))))
        .collect();
    assert_eq!(refused, [true, false, true, true, false]);
    assert_eq!(model.snapshot().unwrap().rows.len(), 2);
}

#[test]
fn a_vni_has_one_network_and_can_pass_to_another() {
    let mut model = Model::default();
    apply_one(&mut model, put(Row::Network(network(RED, RED_VNI)))).unwrap();
    let refused = apply_one(&mut model, put(Row::Network(network(BLUE, RED_VNI))));
    assert!(matches!(refused, Err(DataplaneError::VniInUse { owner, .. }) if owner == id(RED)));
    // Red takes another number: the old one is free, and leads nowhere until somebody takes it.
    apply_one(&mut model, put(Row::Network(network(RED, BLUE_VNI)))).unwrap();
    let from_tunnel = Ingress::Tunnel {
        source: ip(DAVE_HOST),
        vni: RED_VNI,
        label: 0,
        forwarded: false,
    };
    let verdict = model.process(from_tunnel, &ping(ALICE, BOB));
    assert_eq!(verdict, Verdict::Drop(DropReason::UnknownVni));
    apply_one(&mut model, put(Row::Network(network(BLUE, RED_VNI)))).unwrap();
}

#[test]
fn a_mac_has_one_local_port_in_a_network() {
    let mut model = model();
    let twin = |network| PortRow {
        mac: mac(ALICE),
        ..port(90, network, &[])
    };
    let refused = apply_one(&mut model, put(Row::Port(twin(RED))));
    assert!(matches!(refused, Err(DataplaneError::MacInUse { owner, .. }) if owner == id(ALICE)));
    assert!(matches!(
        apply_one(&mut model, put(Row::Port(twin(BLUE)))),
        Err(DataplaneError::MacInUse { owner, .. }) if owner == id(MALLORY)
    ));
    // A refused change of a row leaves the row as it was.
    let before = model.snapshot().unwrap();
    let changed = PortRow {
        mac: mac(ALICE),
        ..port(BOB, RED, &[])
    };
    assert!(apply_one(&mut model, put(Row::Port(changed))).is_err());
    assert_eq!(model.snapshot().unwrap(), before);
    // Free again once its port is gone.
    apply_one(&mut model, RowChange::Remove(RowKey::Port(id(RED), id(ALICE)))).unwrap();
    apply_one(&mut model, put(Row::Port(twin(RED)))).unwrap();
}

#[test]
fn a_port_that_changes_network_is_in_the_new_one_only() {
    let mut model = model();
    apply_one(&mut model, put(Row::Port(port(BOB, BLUE, &[(6, "10.0.0.12")])))).unwrap();
    assert!(is_delivered(
        &model.process(Ingress::Port(id(MALLORY)), &ping(MALLORY, BOB)),
        BOB
    ));
    let verdict = model.process(Ingress::Port(id(ALICE)), &ping(ALICE, BOB));
    assert_eq!(verdict, Verdict::Drop(DropReason::UnknownDestination));
    // Late news about the old place changes nothing.
    let before = model.snapshot().unwrap();
    apply_one(&mut model, RowChange::Remove(RowKey::Port(id(RED), id(BOB)))).unwrap();
    assert_eq!(model.snapshot().unwrap(), before);
}

#[test]
fn a_network_takes_with_it_what_lies_in_it() {
    let mut model = model();
    apply_one(&mut model, RowChange::Remove(RowKey::Network(id(RED)))).unwrap();
    let left = model.snapshot().unwrap();
    assert!(
        left.rows.iter().all(|row| row.key().network_id() != id(RED)),
        "{left:?}"
    );
    assert_eq!(left.rows.len(), 6);
    assert!(left.devices.contains_key(&id(ALICE)), "devices stay tied");
    let verdict = model.process(Ingress::Port(id(ALICE)), &ping(ALICE, BOB));
    assert_eq!(verdict, Verdict::Drop(DropReason::UnknownPort));
    let from_tunnel = Ingress::Tunnel {
        source: ip(DAVE_HOST),
        vni: RED_VNI,
        label: 0,
        forwarded: false,
    };
    let verdict = model.process(from_tunnel, &ping(ALICE, BOB));
    assert_eq!(verdict, Verdict::Drop(DropReason::UnknownVni));
    // It comes back empty.
    apply_one(&mut model, put(Row::Network(network(RED, RED_VNI)))).unwrap();
    assert_eq!(model.snapshot().unwrap().rows.len(), 7);
}

#[test]
fn removing_what_is_not_there_is_fine() {
    let mut model = Model::default();
    for key in [
        RowKey::Network(id(RED)),
        RowKey::Subnet(id(RED), id(1)),
        RowKey::Port(id(RED), id(ALICE)),
        RowKey::Neighbour(id(RED), ip("10.0.0.1")),
    ] {
        apply_one(&mut model, RowChange::Remove(key)).unwrap();
    }
}

#[test]
fn limits_hold_for_new_rows_and_room_comes_back() {
    let mut model = Model::new(Limits {
        networks: 2,
        subnets: 1,
        ports: 1,
        neighbours: 1,
        ..Limits::default()
    });
    let network_row = |number, vni| put(Row::Network(network(number, vni)));
    let rows = |number: u128| {
        [
            put(Row::Subnet(subnet(number, RED, "10.0.0.0/24", None, false))),
            put(Row::Port(port(number, RED, &[]))),
            put(Row::Neighbour(neighbour(
                RED,
                &format!("10.0.0.{number}"),
                DAVE_MAC,
                DAVE_HOST,
                0,
            ))),
        ]
    };
    let first = [network_row(RED, RED_VNI), network_row(BLUE, BLUE_VNI)];
    assert!(model.apply(&first).iter().all(Result::is_ok));
    let full = apply_one(&mut model, network_row(GREY, GREY_VNI));
    assert!(matches!(
        full,
        Err(DataplaneError::Full {
            what: "network",
            limit: 2
        })
    ));
    assert!(model.apply(&rows(11)).iter().all(Result::is_ok));
    assert!(
        model.apply(&rows(11)).iter().all(Result::is_ok),
        "what is there may be put again"
    );
    let outcomes = model.apply(&rows(12));
    assert!(
        outcomes
            .iter()
            .all(|outcome| matches!(outcome, Err(DataplaneError::Full { limit: 1, .. })))
    );
    apply_one(&mut model, RowChange::Remove(RowKey::Network(id(RED)))).unwrap();
    apply_one(&mut model, network_row(RED, RED_VNI)).unwrap();
    assert!(model.apply(&rows(12)).iter().all(Result::is_ok));
}

#[test]
fn a_row_that_changes_is_in_force_for_the_next_packet() {
    let mut model = model();
    let send = |model: &mut Model| model.process(Ingress::Port(id(ALICE)), &ping(ALICE, BOB));
    assert!(is_delivered(&send(&mut model), BOB));
    let down = PortRow {
        admin_state_up: false,
        ..port(BOB, RED, &[(1, "10.0.0.12")])
    };
    apply_one(&mut model, put(Row::Port(down))).unwrap();
    assert_eq!(send(&mut model), Verdict::Drop(DropReason::PortDown));
    // Bob moves to another host.
    apply_one(&mut model, RowChange::Remove(RowKey::Port(id(RED), id(BOB)))).unwrap();
    let moved = neighbour(RED, "10.0.0.12", mac(BOB), DAVE_HOST, 0);
    apply_one(&mut model, put(Row::Neighbour(moved))).unwrap();
    assert!(matches!(send(&mut model), Verdict::Tunnel { host, .. } if host == ip(DAVE_HOST)));
    let small = NetworkRow {
        mtu: 31,
        ..network(RED, RED_VNI)
    };
    apply_one(&mut model, put(Row::Network(small))).unwrap();
    assert_eq!(send(&mut model), Verdict::Drop(DropReason::Oversize));
    let down = NetworkRow {
        admin_state_up: false,
        ..network(RED, RED_VNI)
    };
    apply_one(&mut model, put(Row::Network(down))).unwrap();
    assert_eq!(send(&mut model), Verdict::Drop(DropReason::PortDown));
}

#[test]
fn of_two_addresses_with_one_mac_each_can_go() {
    let mut model = model();
    let to_dave = || udp((mac(ALICE), DAVE_MAC, "10.0.0.11", "10.0.0.50"), (5000, 53), b"");
    for address in ["10.0.0.50", "fd00:a::50"] {
        let verdict = model.process(Ingress::Port(id(ALICE)), &to_dave());
        assert!(matches!(verdict, Verdict::Tunnel { .. }), "{verdict:?}");
        apply_one(
            &mut model,
            RowChange::Remove(RowKey::Neighbour(id(RED), ip(address))),
        )
        .unwrap();
    }
    let verdict = model.process(Ingress::Port(id(ALICE)), &to_dave());
    assert_eq!(verdict, Verdict::Drop(DropReason::UnknownDestination));
}

#[test]
fn what_is_local_wins_over_late_neighbour_rows() {
    let mut model = model();
    let late = neighbour(RED, "10.0.0.12", mac(BOB), DAVE_HOST, 0);
    apply_one(&mut model, put(Row::Neighbour(late))).unwrap();
    assert!(is_delivered(
        &model.process(Ingress::Port(id(ALICE)), &ping(ALICE, BOB)),
        BOB
    ));
    let routed = udp((mac(ALICE), GATEWAY, "10.0.0.11", "10.0.0.12"), (5000, 53), b"");
    assert!(is_delivered(
        &model.process(Ingress::Port(id(ALICE)), &routed),
        BOB
    ));
}

#[test]
fn a_device_has_one_port_and_a_port_one_device() {
    let mut model = Model::default();
    model.attach(id(ALICE), "tap1").unwrap();
    model.attach(id(ALICE), "tap1").unwrap();
    model.attach(id(ALICE), "tap2").unwrap();
    assert_eq!(
        model.snapshot().unwrap().devices,
        [(id(ALICE), "tap2".to_owned())].into()
    );
    let refused = model.attach(id(BOB), "tap2");
    assert!(matches!(refused, Err(DataplaneError::Device { device, .. }) if device == "tap2"));
    model.attach(id(BOB), "tap1").unwrap();
    model.detach(id(ALICE)).unwrap();
    model.detach(id(ALICE)).unwrap();
    assert_eq!(
        model.snapshot().unwrap().devices,
        [(id(BOB), "tap1".to_owned())].into()
    );
}

#[test]
fn a_device_that_vanishes_is_untied_and_cannot_be_attached() {
    let mut model = model();
    model.set_device_present("tap12", false);
    assert!(!model.snapshot().unwrap().devices.contains_key(&id(BOB)));
    let verdict = model.process(Ingress::Port(id(ALICE)), &ping(ALICE, BOB));
    assert_eq!(verdict, Verdict::Drop(DropReason::PortDown));
    assert_eq!(model.drop_count(Some(id(ALICE)), DropReason::PortDown), 1);
    assert!(matches!(
        model.attach(id(BOB), "tap12"),
        Err(DataplaneError::Device { .. })
    ));
    // A port whose new device is not there has none, as the trait says.
    assert!(model.attach(id(ALICE), "tap12").is_err());
    assert!(!model.snapshot().unwrap().devices.contains_key(&id(ALICE)));
    model.set_device_present("tap12", true);
    model.attach(id(BOB), "tap12").unwrap();
}

#[test]
fn injected_frames_are_kept_up_to_a_bound() {
    let mut model = model();
    assert!(matches!(model.inject(id(BARE), b"x"), Err(DataplaneError::NoDevice(port)) if port == id(BARE)));
    for number in 0..=INJECTED_FRAMES {
        model.inject(id(ALICE), &number.to_be_bytes()).unwrap();
    }
    let injected = model.take_injected();
    assert_eq!(injected.len(), INJECTED_FRAMES);
    assert_eq!(
        injected[0].1,
        1usize.to_be_bytes().to_vec(),
        "the oldest goes first"
    );
    assert!(model.take_injected().is_empty());
}

#[test]
fn events_that_find_the_channel_full_are_counted() {
    let mut model = model();
    let mut events = model.events().unwrap();
    assert!(model.events().is_none());
    let on_demand = NetworkRow {
        on_demand: true,
        ..network(RED, RED_VNI)
    };
    apply_one(&mut model, put(Row::Network(on_demand))).unwrap();
    let unknown = udp((mac(ALICE), STRANGER, "10.0.0.11", "10.0.0.77"), (5000, 53), b"");
    for _ in 0..EVENT_QUEUE + 3 {
        model.process(Ingress::Port(id(ALICE)), &unknown);
    }
    assert_eq!(model.lost_events(), 3);
    let mut received = 0;
    while events.try_recv().is_ok() {
        received += 1;
    }
    assert_eq!(received, EVENT_QUEUE);
}
