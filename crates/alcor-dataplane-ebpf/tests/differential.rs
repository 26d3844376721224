//! Random goal states and frames through the model and through the kernel programs: same verdicts, bytes,
//! counters and rows. Needs root and the kernel programs.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "common/traced.rs"]
mod traced;

use std::{collections::BTreeMap, time::Duration};

use alcor_dataplane::{
    ConnectionEntry, Dataplane, DropReason, Ingress, Model, RowChange, RowKey, Verdict,
    testing::{Scenario, rng::Rng},
};
use alcor_dataplane_ebpf::EbpfDataplane;
use alcor_model::{Id, Port};
use traced::{in_namespace, ip};

const SEEDS: u64 = 300;

/// Frames that can be put through `BPF_PROG_TEST_RUN`: it wants a device, and a whole IP header where the
/// EtherType promises one.
fn can_run(devices: &BTreeMap<Id<Port>, String>, ingress: &Ingress, frame: &[u8]) -> bool {
    let has_device = match ingress {
        Ingress::Port(port) => devices.contains_key(port),
        Ingress::Tunnel { .. } => true,
    };
    let least = match frame.get(12..14) {
        Some([0x08, 0x00]) => 14 + 20,
        Some([0x86, 0xdd]) => 14 + 40,
        _ => 15,
    };
    has_device && frame.len() >= least
}

/// One scenario through both; leaves the kernel's tables empty again. With `news`, time goes on and security rows change
/// between frames.
fn compare(ebpf: &mut EbpfDataplane, scenario: &Scenario, news: bool) -> usize {
    let seed = scenario.seed;
    let mut rng = Rng::new(seed);
    let mut model = scenario.model();
    for outcome in ebpf.apply(&scenario.changes()) {
        outcome.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    }
    for (port, device) in &scenario.devices {
        ip(&["link", "add", "dev", device, "type", "veth"]);
        ebpf.attach(*port, device).unwrap();
    }
    let expected = model.snapshot().unwrap();
    assert_eq!(ebpf.snapshot().unwrap(), expected, "seed {seed}: snapshot");

    let before = ebpf.drops().unwrap();
    let mut compared = 0;
    for (number, (ingress, frame)) in scenario.frames.iter().enumerate() {
        if news {
            tell_news(ebpf, &mut model, scenario, &mut rng);
        }
        if !can_run(&scenario.devices, ingress, frame) {
            continue;
        }
        let expected = model.process(ingress.clone(), frame);
        let got = ebpf
            .trace(ingress, frame)
            .unwrap_or_else(|error| panic!("seed {seed}, frame {number} ({} bytes): {error:?}", frame.len()));
        assert_eq!(
            got,
            expected,
            "seed {seed}, frame {number}, {ingress:?}: {}",
            hex(frame)
        );
        compared += 1;
    }
    for port in scenario.devices.keys() {
        let (got, expected) = (connections(ebpf, *port), connections(&mut model, *port));
        assert_eq!(got, expected, "seed {seed}: connections of {port}");
    }
    let mut drops = ebpf.drops().unwrap();
    for (key, count) in before {
        if let Some(now) = drops.get_mut(&key) {
            *now -= count;
        }
    }
    drops.retain(|_, count| *count > 0);
    assert_eq!(drops, model.drops().unwrap(), "seed {seed}: drop counters");
    clear(ebpf, scenario);
    compared
}

/// Takes all rows and devices away.
fn clear(ebpf: &mut EbpfDataplane, scenario: &Scenario) {
    let seed = scenario.seed;
    let networks = scenario
        .rows
        .iter()
        .map(|row| RowKey::Network(row.key().network_id()));
    let removals: Vec<RowChange> = networks.map(RowChange::Remove).collect();
    for outcome in ebpf.apply(&removals) {
        outcome.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    }
    for (port, device) in &scenario.devices {
        ebpf.detach(*port).unwrap();
        ip(&["link", "delete", "dev", device]);
    }
    assert_eq!(
        ebpf.snapshot().unwrap(),
        Default::default(),
        "seed {seed}: nothing is left"
    );
}

/// What is tracked, without the numbers of the sets of rules: each data plane has its own.
fn connections(dataplane: &mut dyn Dataplane, port: Id<Port>) -> Vec<ConnectionEntry> {
    let mut entries = dataplane.connections(port).unwrap();
    for entry in &mut entries {
        entry.epoch = 0;
    }
    entries
}

fn tell_news(ebpf: &mut EbpfDataplane, model: &mut Model, scenario: &Scenario, rng: &mut Rng) {
    if rng.chance(20) {
        let by = Duration::from_secs(rng.one([1, 11, 31, 61, 181, 601]));
        model.advance(by);
        ebpf.advance(by);
    }
    if let Some(change) = scenario.security_change(rng).filter(|_| rng.chance(15)) {
        model.apply(std::slice::from_ref(&change)).remove(0).unwrap();
        ebpf.apply(&[change]).remove(0).unwrap();
        assert_eq!(ebpf.snapshot().unwrap(), model.snapshot().unwrap());
    }
}

fn hex(frame: &[u8]) -> String {
    frame.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn kernel_programs_do_what_the_model_does() {
    in_namespace("test-differential", |config| {
        let mut ebpf = EbpfDataplane::open(config).unwrap();
        let compared: usize = (0..SEEDS)
            .map(|seed| compare(&mut ebpf, &Scenario::from_seed(seed), false))
            .sum();
        println!("{compared} frames compared");
        assert!(compared > SEEDS as usize * 10, "most frames can be run");
    });
}

#[test]
fn an_unknown_vni_is_dropped_and_counted_for_no_port() {
    in_namespace("test-unknown-vni", |config| {
        let mut ebpf = EbpfDataplane::open(config).unwrap();
        let ingress = Ingress::Tunnel {
            source: [192, 0, 2, 1].into(),
            vni: 77,
            label: 0,
            forwarded: false,
        };
        let verdict = ebpf.trace(&ingress, &[2; 60]).unwrap();
        assert_eq!(verdict, Verdict::Drop(DropReason::UnknownVni));
        assert_eq!(
            ebpf.drops().unwrap(),
            BTreeMap::from([((None, DropReason::UnknownVni), 1)])
        );
    });
}

#[test]
fn filters_do_what_the_model_does() {
    in_namespace("test-filters", |config| {
        let mut ebpf = EbpfDataplane::open(config).unwrap();
        let compared: usize = (0..SEEDS)
            .map(|seed| compare(&mut ebpf, &Scenario::secured(seed), seed % 2 == 0))
            .sum();
        println!("{compared} frames compared");
        assert!(compared > SEEDS as usize * 10, "most frames can be run");
    });
}
