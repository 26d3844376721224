//! Neighbours in great numbers: what goes into the kernel in batches is what goes one by one. Needs root and the kernel programs.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "common/traced.rs"]
mod traced;

use std::net::IpAddr;

use alcor_dataplane::{
    Dataplane, DataplaneError, Model, NeighbourRow, NetworkRow, Row, RowChange, RowKey, testing::rng::Rng,
};
use alcor_dataplane_ebpf::EbpfDataplane;
use alcor_model::{Id, MacAddr, Network};
use traced::in_namespace;
use uuid::Uuid;

/// More than one batch.
const MANY: u32 = 10_000;

fn network_id(number: u32) -> Id<Network> {
    Id::from_uuid(Uuid::from_u128(u128::from(number) + 1))
}

fn network(number: u32) -> RowChange {
    RowChange::Put(Row::Network(NetworkRow {
        id: network_id(number),
        vni: (number + 1).try_into().unwrap(),
        mtu: 1450,
        admin_state_up: true,
        underlay: None,
        on_demand: true,
        gateways: Vec::new(),
    }))
}

fn neighbour(network: u32, ip: IpAddr, mac: u32, host: u8) -> RowChange {
    let [_, a, b, c] = mac.to_be_bytes();
    RowChange::Put(Row::Neighbour(NeighbourRow {
        network_id: network_id(network),
        ip,
        mac: MacAddr([2, 0, 0, a, b, c]),
        host: [192, 0, 2, host].into(),
        label: u16::from(host),
        forward: host.is_multiple_of(2),
    }))
}

fn ipv4(number: u32) -> IpAddr {
    let [_, a, b, c] = number.to_be_bytes();
    [10, a, b, c].into()
}

fn ipv6(number: u32) -> IpAddr {
    [0xfd00, 0, 0, 0, 0, 0, (number >> 16) as u16, number as u16].into()
}

/// The same to both; outcomes and rows are the same.
fn compare(ebpf: &mut EbpfDataplane, model: &mut Model, changes: &[RowChange]) {
    let (got, expected) = (ebpf.apply(changes), model.apply(changes));
    for ((got, expected), change) in got.iter().zip(&expected).zip(changes) {
        assert_eq!(got.is_ok(), expected.is_ok(), "{change:?}: {got:?}, {expected:?}");
    }
    assert_eq!(got.len(), expected.len());
    assert_eq!(ebpf.snapshot().unwrap(), model.snapshot().unwrap());
}

#[test]
fn many_rows_at_once_are_all_there_and_all_gone() {
    in_namespace("test-neighbours", |config| {
        let mut ebpf = EbpfDataplane::open(config).unwrap();
        let mut model = Model::default();
        // Two addresses of each MAC, side by side and far apart.
        let dual =
            (0..MANY).flat_map(|number| [ipv4(number), ipv6(number)].map(|ip| neighbour(0, ip, number, 1)));
        let apart = (0..MANY).map(|number| neighbour(1, ipv4(number), number % 3000, 1));
        let changes: Vec<RowChange> = [network(0), network(1)]
            .into_iter()
            .chain(dual)
            .chain(apart)
            .collect();
        compare(&mut ebpf, &mut model, &changes);
        // All of them again, and all of them changed.
        compare(&mut ebpf, &mut model, &changes);
        let moved: Vec<RowChange> = (0..MANY)
            .map(|number| neighbour(1, ipv4(number), number, 2))
            .collect();
        compare(&mut ebpf, &mut model, &moved);
        drop(ebpf);
        let mut ebpf = EbpfDataplane::open(config).unwrap();
        compare(
            &mut ebpf,
            &mut model,
            &[RowChange::Remove(RowKey::Network(network_id(0)))],
        );
        let gone: Vec<RowChange> = (0..MANY)
            .map(|number| RowChange::Remove(RowKey::Neighbour(network_id(1), ipv4(number))))
            .collect();
        compare(&mut ebpf, &mut model, &gone);
        compare(&mut ebpf, &mut model, &gone);
    });
}

#[test]
fn rows_of_one_message_that_have_to_do_with_each_other_end_as_one_by_one() {
    in_namespace("test-neighbours-mixed", |config| {
        let mut ebpf = EbpfDataplane::open(config).unwrap();
        for seed in 0..200 {
            let mut rng = Rng::new(seed);
            let mut model = Model::default();
            compare(&mut ebpf, &mut model, &[network(0), network(1)]);
            for _ in 0..10 {
                // Few addresses and MACs: most changes meet others. Network 2 is not there.
                let changes: Vec<RowChange> = (0..rng.below(30))
                    .map(|_| {
                        let network = rng.one([0, 0, 0, 1, 2]);
                        let ip = ipv4(rng.below(8) as u32);
                        if rng.chance(20) {
                            return RowChange::Remove(RowKey::Neighbour(network_id(network), ip));
                        }
                        // One MAC is on one host.
                        let mac = rng.below(6) as u32;
                        neighbour(network, ip, mac, mac as u8)
                    })
                    .collect();
                compare(&mut ebpf, &mut model, &changes);
            }
            let gone = [0, 1].map(|number| RowChange::Remove(RowKey::Network(network_id(number))));
            compare(&mut ebpf, &mut model, &gone);
        }
    });
}

#[test]
fn what_does_not_fit_is_refused_row_by_row() {
    const ROOM: u32 = 5000;
    in_namespace("test-neighbours-full", |config| {
        let mut config = config.clone();
        config.max_neighbours = ROOM;
        let mut ebpf = EbpfDataplane::open(&config).unwrap();
        ebpf.apply(&[network(0)]).remove(0).unwrap();
        let changes: Vec<RowChange> = (0..ROOM + 10)
            .map(|number| neighbour(0, ipv4(number), number, 1))
            .collect();
        let outcomes = ebpf.apply(&changes);
        for (number, outcome) in (0..).zip(&outcomes) {
            let is_full = matches!(
                outcome,
                Err(DataplaneError::Full { what: "neighbour", limit }) if *limit == ROOM as usize
            );
            assert_eq!(is_full, number >= ROOM, "{number}: {outcome:?}");
        }
        assert_eq!(ebpf.snapshot().unwrap().rows.len(), ROOM as usize + 1);
        // Those that are there can change, and one that goes makes room for another.
        let moved = neighbour(0, ipv4(0), 0, 2);
        let gone = RowChange::Remove(RowKey::Neighbour(network_id(0), ipv4(1)));
        let late = changes[ROOM as usize].clone();
        for outcome in ebpf.apply(&[moved, gone, late]) {
            outcome.unwrap();
        }
        drop(ebpf);
        // The size of what is found counts.
        config.max_neighbours = ROOM * 2;
        let mut ebpf = EbpfDataplane::open(&config).unwrap();
        let outcome = ebpf.apply(&[neighbour(0, ipv4(MANY), MANY, 1)]).remove(0);
        assert!(matches!(outcome, Err(DataplaneError::Full { .. })), "{outcome:?}");
    });
}
