//! What a gateway costs: packets per second that one core re-encapsulates, against the kernel's own forwarding of the same packets
//! through vxlan and a bridge, and a million mappings from a cold start. A table for people on stderr; the last line of stdout is one
//! JSON object.
//!
//! Works in network namespaces of its own; needs root, the kernel programs, iproute2 and ethtool.
//!
//! `cargo run --release -p alcor-dataplane-ebpf --example gateway_rate [-- PACKETS [MAPPINGS]]`

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a benchmark that cannot run says so by a panic"
)]

mod cold;
mod forward;
mod scene;

use serde_json::json;

const DEFAULT_PACKETS: u32 = 1 << 20;
const DEFAULT_MAPPINGS: u32 = 1_000_000;

fn argument(number: usize, default: u32) -> u32 {
    let argument = std::env::args().nth(number);
    argument.map_or(default, |argument| argument.parse().expect("a number"))
}

fn main() {
    let (packets, mappings) = (argument(1, DEFAULT_PACKETS), argument(2, DEFAULT_MAPPINGS));
    let rates = forward::measure(packets);
    for (name, rate) in [
        ("source and drop", &rates.dropped),
        ("gateway (native XDP)", &rates.gateway),
        ("kernel (vxlan, bridge)", &rates.kernel),
    ] {
        eprintln!(
            "{name:>24} {:>7.0} ns a packet, {:>5.2} % lost",
            rate.ns,
            rate.lost * 100.0
        );
    }
    let cold = cold::measure(mappings);
    eprintln!(
        "{:>24} {:.2} s, {:.2} s of CPU, {:.0} bytes a mapping",
        format!("{mappings} mappings"),
        cold.wall_s,
        cold.cpu_s,
        cold.bytes
    );
    let (gateway_ns, kernel_ns) = (
        rates.gateway.ns - rates.dropped.ns,
        rates.kernel.ns - rates.dropped.ns,
    );
    let name = if mappings == DEFAULT_MAPPINGS {
        "cold_1m_s"
    } else {
        "cold_s"
    };
    let round = |value: f64| (value * 1000.0).round() / 1000.0;
    let figures = json!({
        "pps_ratio": round(kernel_ns / gateway_ns),
        "gateway_pps": (1e9 / gateway_ns).round(),
        "kernel_pps": (1e9 / kernel_ns).round(),
        "pps_ratio_with_source": round(rates.kernel.ns / rates.gateway.ns),
        "gateway_ns": round(gateway_ns),
        "kernel_ns": round(kernel_ns),
        "source_ns": round(rates.dropped.ns),
        "mappings": mappings,
        name: round(cold.wall_s),
        "cold_cpu_s": round(cold.cpu_s),
        "bytes_a_mapping": cold.bytes.round(),
        "cores": std::thread::available_parallelism().map_or(0, usize::from),
    });
    println!("{figures}");
}
