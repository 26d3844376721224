//! The `store` benchmark: durable commits and rows per second through the region's deciders on SQLite (WAL, an
//! fsync a commit), the time to load the rows, and the memory that a port takes. A table for people on stderr; the
//! last line of stdout is one JSON object.
//!
//! `cargo run --release -p alcor-region --example bench_store [-- --quick] [--dir DIR]`. The directory must lie on a
//! disk; the default is `/var/tmp`, because `/tmp` is memory on many machines.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a benchmark that cannot run says so by a panic"
)]

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use alcor_model::{Id, Network, Port, Subnet};
use alcor_region::{
    Region, RegionConfig,
    command::{Caller, NetworkCreate, PortCreate, StandardCreate, SubnetCreate},
};
use alcor_store::SqliteEngine;
use serde_json::{Value, json};

/// Ports of one network in the bulk phases.
const PORTS_PER_NETWORK: usize = 4_000;
/// Ports of one bulk request.
const PORTS_PER_REQUEST: usize = 1_000;
/// Bulk clients.
const BULK_CLIENTS: usize = 2;

struct Options {
    quick: bool,
    dir: PathBuf,
    load: Option<PathBuf>,
}

fn options() -> Options {
    let mut options = Options {
        quick: false,
        dir: "/var/tmp".into(),
        load: None,
    };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--quick" => options.quick = true,
            "--dir" => options.dir = args.next().expect("--dir needs a directory").into(),
            "--load" => options.load = args.next().map(PathBuf::from),
            other => panic!("unknown argument {other}; there are --quick and --dir DIR"),
        }
    }
    options
}

fn caller() -> Caller {
    Caller {
        project_id: "5f0c3d7a8b9e4f6aa1b2c3d4e5f60718".into(),
        is_admin: true,
    }
}

fn open(path: &Path) -> Region {
    Region::open(
        Box::new(SqliteEngine::open(path).unwrap()),
        RegionConfig::default(),
    )
    .unwrap()
}

/// A network with one IPv4 subnet of 65,534 addresses.
async fn network(region: &Region) -> Id<Network> {
    let networks = region
        .create::<Network>(&caller(), vec![NetworkCreate::default()])
        .await
        .unwrap();
    let subnet = SubnetCreate {
        standard: StandardCreate::default(),
        network_id: networks[0].id,
        ip_version: 4,
        cidr: Some("10.0.0.0/16".parse().unwrap()),
        prefixlen: None,
        subnetpool_id: None,
        use_default_subnetpool: false,
        service_types: Vec::new(),
        dns_publish_fixed_ip: None,
        gateway_ip: None,
        allocation_pools: None,
        dns_nameservers: Vec::new(),
        host_routes: Vec::new(),
        enable_dhcp: None,
        ipv6_address_mode: None,
        ipv6_ra_mode: None,
    };
    region.create::<Subnet>(&caller(), vec![subnet]).await.unwrap();
    networks[0].id
}

fn port(network_id: Id<Network>) -> PortCreate {
    PortCreate {
        standard: StandardCreate {
            name: "server-0123".into(),
            ..StandardCreate::default()
        },
        device_id: "0191a4c0-5f3e-7c1d-8a2b-3c4d5e6f7081".into(),
        device_owner: "compute:nova".into(),
        binding_host_id: "host-0001.example".into(),
        ..PortCreate::new(network_id)
    }
}

/// `clients` clients that each make `each` ports, one a request. Requests per second.
async fn singles(region: &Region, clients: usize, each: usize) -> f64 {
    let network = network(region).await;
    let start = Instant::now();
    let tasks: Vec<_> = (0..clients)
        .map(|_| {
            let region = region.clone();
            tokio::spawn(async move {
                for _ in 0..each {
                    region
                        .create::<Port>(&caller(), vec![port(network)])
                        .await
                        .unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    (clients * each) as f64 / start.elapsed().as_secs_f64()
}

/// Makes `total` ports in bulk requests; ports per second.
async fn bulk(region: &Region, total: usize) -> f64 {
    let networks = total.div_ceil(PORTS_PER_NETWORK);
    let mut ids = Vec::with_capacity(networks);
    for _ in 0..networks {
        ids.push(network(region).await);
    }
    let ids = Arc::new(ids);
    let requests = total.div_ceil(PORTS_PER_REQUEST);
    let start = Instant::now();
    let tasks: Vec<_> = (0..BULK_CLIENTS)
        .map(|client| {
            let (region, ids) = (region.clone(), Arc::clone(&ids));
            tokio::spawn(async move {
                for request in (client..requests).step_by(BULK_CLIENTS) {
                    let id = ids[request * PORTS_PER_REQUEST / PORTS_PER_NETWORK];
                    region
                        .create::<Port>(&caller(), vec![port(id); PORTS_PER_REQUEST])
                        .await
                        .unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    (requests * PORTS_PER_REQUEST) as f64 / start.elapsed().as_secs_f64()
}

/// Resident memory of this process, in bytes.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}

/// The child: loads a database in a fresh process and prints what that took.
fn load(path: &Path) {
    let engine = Box::new(SqliteEngine::open(path).unwrap());
    let before = resident();
    let start = Instant::now();
    let region = Region::open(engine, RegionConfig::default()).unwrap();
    let took = start.elapsed();
    let ports = region.snapshot().state.ports().len();
    let bytes = resident().saturating_sub(before);
    println!(
        "{}",
        json!({"ports": ports, "seconds": took.as_secs_f64(), "bytes": bytes})
    );
}

fn load_in_child(path: &Path) -> Value {
    let output = Command::new(std::env::current_exe().unwrap())
        .arg("--load")
        .arg(path)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).unwrap()
}

fn main() {
    let options = options();
    if let Some(path) = options.load {
        return load(&path);
    }
    let (single, concurrent, total) = if options.quick {
        (300, 50, 50_000)
    } else {
        (3_000, 500, 1_000_000)
    };
    let dir = tempfile::tempdir_in(&options.dir).unwrap();
    let path = dir.path().join("shard.sqlite");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .build()
        .unwrap();
    let region = open(&path);
    let commits_per_s = runtime.block_on(singles(&region, 1, single));
    let single_64 = runtime.block_on(singles(&region, 64, concurrent));
    let rows_per_s = runtime.block_on(bulk(&region, total));
    drop(region);
    runtime.shutdown_timeout(Duration::from_secs(5));

    let loaded = load_in_child(&path);
    let ports = loaded["ports"].as_f64().unwrap();
    let load_1m_s = loaded["seconds"].as_f64().unwrap() * 1e6 / ports;
    let bytes_per_port = loaded["bytes"].as_f64().unwrap() / ports;
    eprintln!(
        "alcor store benchmark: SQLite in {}, an fsync a commit",
        dir.path().display()
    );
    eprintln!("  one client, one port a commit     {commits_per_s:>12.0} commits/s");
    eprintln!("  64 clients, one port a request    {single_64:>12.0} ports/s");
    eprintln!("  bulk, {PORTS_PER_REQUEST} ports a request       {rows_per_s:>12.0} ports/s");
    eprintln!("  load of 1,000,000 ports           {load_1m_s:>12.1} s   ({ports:.0} loaded, scaled)");
    eprintln!("  memory                            {bytes_per_port:>12.0} bytes/port, indexes included");
    println!(
        "{}",
        json!({
            "commits_per_s": commits_per_s.round(),
            "single_64": single_64.round(),
            "rows_per_s": rows_per_s.round(),
            "load_1m_s": (load_1m_s * 100.0).round() / 100.0,
            "bytes_per_port": bytes_per_port.round(),
            "ports": ports,
        })
    );
}
