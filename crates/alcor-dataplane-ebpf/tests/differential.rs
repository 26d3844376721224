//! Random goal states and frames through the model and through the kernel programs: same verdicts, bytes,
//! counters and rows. Needs root and the kernel programs.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{collections::BTreeMap, process::Command, thread};

use alcor_dataplane::{
    Dataplane, DataplaneError, DropReason, Ingress, Row, RowChange, RowKey, Verdict, testing::Scenario,
};
use alcor_dataplane_ebpf::{EbpfConfig, EbpfDataplane};
use alcor_model::{Id, Port};
use nix::sched::{CloneFlags, unshare};

const SEEDS: u64 = 300;

fn ip(args: &[&str]) {
    let output = Command::new("ip").args(args).output().unwrap();
    assert!(
        output.status.success(),
        "ip {args:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Runs a test on a thread with a network namespace of its own, which goes with the thread.
fn in_namespace(instance: &str, test: impl FnOnce(&EbpfConfig) + Send) {
    let mut config = EbpfConfig::new(instance);
    config.trace = true;
    let body = || {
        unshare(CloneFlags::CLONE_NEWNET).expect("needs root: a network namespace of its own");
        EbpfDataplane::purge(&config).unwrap();
        test(&config);
        EbpfDataplane::purge(&config).unwrap();
    };
    thread::scope(|scope| scope.spawn(body).join().unwrap());
}

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

/// One scenario through both; leaves the kernel's tables empty again.
fn compare(ebpf: &mut EbpfDataplane, scenario: &Scenario) -> usize {
    let seed = scenario.seed;
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
    let mut drops = ebpf.drops().unwrap();
    for (key, count) in before {
        if let Some(now) = drops.get_mut(&key) {
            *now -= count;
        }
    }
    drops.retain(|_, count| *count > 0);
    assert_eq!(drops, model.drops().unwrap(), "seed {seed}: drop counters");

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
    compared
}

fn hex(frame: &[u8]) -> String {
    frame.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn kernel_programs_do_what_the_model_does() {
    in_namespace("test-differential", |config| {
        let mut ebpf = EbpfDataplane::open(config).unwrap();
        let compared: usize = (0..SEEDS)
            .map(|seed| compare(&mut ebpf, &Scenario::from_seed(seed)))
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
fn rows_that_ask_for_a_filter_are_refused() {
    in_namespace("test-no-filter", |config| {
        let mut ebpf = EbpfDataplane::open(config).unwrap();
        let rows = (0..20).flat_map(|seed| Scenario::secured(seed).rows);
        let mut refused = 0;
        for row in rows {
            let asks = match &row {
                Row::Policy(_) | Row::Label(_) => true,
                Row::Port(row) => row.filter().is_some(),
                Row::Network(row) => row.underlay.is_some(),
                Row::Subnet(_) | Row::Neighbour(_) => false,
            };
            let outcome = ebpf.apply(&[RowChange::Put(row)]).remove(0);
            let says_so = matches!(outcome, Err(DataplaneError::Unsupported { .. }));
            assert_eq!(says_so, asks, "{outcome:?}");
            refused += usize::from(asks);
        }
        assert!(refused > 20, "{refused}");
        let snapshot = ebpf.snapshot().unwrap();
        let filtered = |row: &Row| matches!(row, Row::Port(row) if row.filter().is_some());
        assert!(!snapshot.rows.iter().any(filtered));
    });
}
