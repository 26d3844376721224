//! Mappings from a cold start to usable: programs loaded, tables made, all rows applied.

use std::{
    os::fd::{AsFd, AsRawFd},
    time::{Duration, Instant},
};

use alcor_dataplane_abi::gateway_layout::GATEWAY_LAYOUT;
use alcor_dataplane_ebpf::{GatewayConfig, XdpGateway};
use aya::maps::MapData;
use nix::{
    sched::{CpuSet, sched_setaffinity},
    time::{ClockId, clock_gettime},
    unistd::Pid,
};

use crate::scene::{GATEWAY, Namespace, apply, neighbour, network_row};

/// Rows of one call: what a gateway has in hand when a message has come.
const MESSAGE: usize = 4096;
const INSTANCE: &str = "gateway-cold";

pub struct Cold {
    pub wall_s: f64,
    pub cpu_s: f64,
    /// Of the kernel's memory, a mapping.
    pub bytes: f64,
}

/// Bytes of the kernel's memory that the table of neighbours takes.
fn table_bytes() -> f64 {
    let pin = format!("/sys/fs/bpf/alcor-gateway/{INSTANCE}/layout-{GATEWAY_LAYOUT}/maps/gw_peers4");
    let map = MapData::from_pin(pin).unwrap();
    let info = format!("/proc/self/fdinfo/{}", map.fd().as_fd().as_raw_fd());
    let text = std::fs::read_to_string(info).unwrap();
    let line = text.lines().find(|line| line.starts_with("memlock:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn cpu() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap().into()
}

pub fn measure(mappings: u32) -> Cold {
    let namespace = Namespace::new("gwrate-cold");
    namespace.inside(|| {
        let mut all = CpuSet::new();
        (0..CpuSet::count()).for_each(|cpu| all.set(cpu).unwrap());
        sched_setaffinity(Pid::from_raw(0), &all).unwrap();
        let config = GatewayConfig::new(INSTANCE, GATEWAY, "lo");
        XdpGateway::purge(&config).unwrap();
        let (began, began_cpu) = (Instant::now(), cpu());
        let mut gateway = XdpGateway::open(&config).unwrap();
        let empty = table_bytes();
        apply(&mut gateway, &[network_row()]);
        let mut message = Vec::with_capacity(MESSAGE);
        for number in 0..mappings {
            message.push(neighbour(number));
            if message.len() == MESSAGE || number + 1 == mappings {
                apply(&mut gateway, &message);
                message.clear();
            }
        }
        let (wall, spent) = (began.elapsed(), cpu() - began_cpu);
        let bytes = (table_bytes() - empty) / f64::from(mappings);
        drop(gateway);
        XdpGateway::purge(&config).unwrap();
        Cold {
            wall_s: wall.as_secs_f64(),
            cpu_s: spent.as_secs_f64(),
            bytes,
        }
    })
}
