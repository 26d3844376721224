//! How long it takes to bring the neighbours of a network into force, and what they cost this process: `apply_1m_s` (rows through
//! `Dataplane::apply`, as an agent calls it), the same again when nothing changes, removal with the network, and a restart
//! that finds them. A table for people on stderr; the last line of stdout is one JSON object.
//!
//! Works in a network namespace of its own; needs root and the kernel programs.
//!
//! `cargo run --release -p alcor-dataplane-ebpf --example apply_neighbours [-- ROWS]`

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a benchmark that cannot run says so by a panic"
)]

use std::time::{Duration, Instant};

use alcor_dataplane::{Dataplane, NeighbourRow, NetworkRow, Row, RowChange, RowKey};
use alcor_dataplane_ebpf::{EbpfConfig, EbpfDataplane};
use alcor_model::{Id, MacAddr, Network};
use nix::{
    sched::{CloneFlags, unshare},
    time::{ClockId, clock_gettime},
};
use uuid::Uuid;

/// Rows of one call: what an agent has in hand when a message has come.
const MESSAGE: usize = 4096;
const DEFAULT_ROWS: u32 = 1_000_000;

fn network() -> Id<Network> {
    Id::from_uuid(Uuid::from_u128(1))
}

fn neighbour(number: u32) -> RowChange {
    let [_, a, b, c] = number.to_be_bytes();
    RowChange::Put(Row::Neighbour(NeighbourRow {
        network_id: network(),
        ip: [10, a, b, c].into(),
        mac: MacAddr([0xfa, 0x16, 0x3e, a, b, c]),
        host: [192, 0, b, 1].into(),
        label: 1,
        forward: false,
    }))
}

/// What a part took.
struct Cost {
    wall: Duration,
    /// On this process's account, the kernel's work for it included.
    cpu: Duration,
}

fn measure(what: impl FnOnce()) -> Cost {
    let cpu = || Duration::from(clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).unwrap());
    let (started, cpu_before) = (Instant::now(), cpu());
    what();
    Cost {
        wall: started.elapsed(),
        cpu: cpu() - cpu_before,
    }
}

fn apply(dataplane: &mut EbpfDataplane, changes: &[RowChange]) {
    for outcome in dataplane.apply(changes) {
        outcome.unwrap();
    }
}

/// Resident memory of this process, in MiB.
fn rss_mb() -> f64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
}

fn main() {
    let rows = std::env::args()
        .nth(1)
        .map_or(DEFAULT_ROWS, |arg| arg.parse().expect("a number of rows"));
    unshare(CloneFlags::CLONE_NEWNET).expect("needs root: a network namespace of its own");
    let config = EbpfConfig::new("apply-neighbours");
    EbpfDataplane::purge(&config).unwrap();
    let mut dataplane = EbpfDataplane::open(&config).unwrap();
    let row = NetworkRow {
        id: network(),
        vni: 1.try_into().unwrap(),
        mtu: 1450,
        admin_state_up: true,
        underlay: None,
        on_demand: false,
        gateways: Vec::new(),
    };
    apply(&mut dataplane, &[RowChange::Put(Row::Network(row))]);
    let rss_before = rss_mb();
    let mut all = |changes: fn(u32) -> RowChange| {
        let mut message = Vec::with_capacity(MESSAGE);
        measure(|| {
            for number in 0..rows {
                message.push(changes(number));
                if message.len() == MESSAGE || number + 1 == rows {
                    apply(&mut dataplane, &message);
                    message.clear();
                }
            }
        })
    };
    let first = all(neighbour);
    let again = all(neighbour);
    let rss = rss_mb();
    drop(dataplane);
    let mut found = None;
    let restart = measure(|| found = Some(EbpfDataplane::open(&config).unwrap()));
    let mut dataplane = found.unwrap();
    let removal = measure(|| apply(&mut dataplane, &[RowChange::Remove(RowKey::Network(network()))]));
    drop(dataplane);
    EbpfDataplane::purge(&config).unwrap();
    for (name, cost) in [
        ("apply", &first),
        ("again", &again),
        ("restart", &restart),
        ("remove", &removal),
    ] {
        eprintln!(
            "{name:>8} {:>7.2} s {:>7.2} s of CPU",
            cost.wall.as_secs_f64(),
            cost.cpu.as_secs_f64()
        );
    }
    eprintln!(
        "{:>8} {rss:>7.1} MiB, {:.1} of it for {rows} rows",
        "RSS",
        rss - rss_before
    );
    let seconds = |cost: &Cost| (cost.wall.as_secs_f64() * 1000.0).round() / 1000.0;
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let name = if rows == DEFAULT_ROWS {
        "apply_1m_s"
    } else {
        "apply_s"
    };
    let figures = serde_json::json!({
        "apply_rows": rows,
        name: seconds(&first),
        "apply_cpu_s": (first.cpu.as_secs_f64() * 1000.0).round() / 1000.0,
        "apply_again_s": seconds(&again),
        "apply_restart_s": seconds(&restart),
        "apply_remove_s": seconds(&removal),
        "apply_rss_mb": rss.round(),
        "cores": cores,
    });
    println!("{figures}");
}
