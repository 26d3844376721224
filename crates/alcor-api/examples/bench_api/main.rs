//! `cargo xtask bench api`: durable port creations a second over HTTP with 1, 8, 16 and 64 clients and in bulk; a list
//! of 1,000 ports among 100,000 by a filter; show and update. With `--beside ADDRESS` the same load drives another
//! server of the Neutron API in the same run, and the figures are put side by side.
//!
//! The API with a region on an SQLite file on disk runs in a process of its own (this program started again); the
//! clients share one thread in this one. Talk goes to standard error; the last line of standard output is one JSON
//! object. A ratio says how many times faster Alcor is.

mod http;
mod load;
mod phases;
mod server;

use std::{net::SocketAddr, path::Path, time::Duration};

use serde_json::{Map, Value};

use self::{
    load::Figures,
    phases::{BULK, Bench},
    server::Server,
};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// How much is done.
struct Size {
    /// How long each phase takes.
    time: Duration,
    /// The same for the server beside, which may be slower: fewer answers would say little of it.
    time_beside: Duration,
    /// Ports that the list shows.
    listed: usize,
    /// Ports there are when it does, in Alcor.
    among: usize,
}

const WHOLE: Size = Size {
    time: Duration::from_secs(5),
    time_beside: Duration::from_secs(20),
    listed: 1_000,
    among: 100_000,
};

const QUICK: Size = Size {
    time: Duration::from_secs(1),
    time_beside: Duration::from_secs(5),
    listed: 100,
    among: 5_000,
};

/// What both servers are measured by.
struct Common {
    create_1: Figures,
    create_8: Figures,
    bulk: Figures,
    list: Figures,
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == "--serve") {
        return server::run(Path::new(arguments.get(1).ok_or("--serve wants a folder")?));
    }
    let size = if arguments.iter().any(|argument| argument == "--quick") {
        &QUICK
    } else {
        &WHOLE
    };
    let beside = arguments.iter().position(|argument| argument == "--beside");
    let beside = beside.map(|at| arguments.get(at + 1).ok_or("--beside wants an address"));
    let beside: Option<SocketAddr> = beside.transpose()?.map(|address| address.parse()).transpose()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(bench(size, beside))
}

async fn bench(size: &Size, beside: Option<SocketAddr>) -> Result<()> {
    eprintln!("Alcor: in its own process (2 threads), durable on SQLite on disk; clients in 1 thread");
    eprintln!(
        "{:<10}{:<28}{:>8}{:>12}{:>12}{:>12}",
        "", "", "clients", "per second", "p50 ms", "p99 ms"
    );
    let mut figures = Map::new();
    let alcor = alcor(size, &mut figures).await?;
    if let Some(address) = beside {
        let bench = Bench::begin("Neutron", address, size.time_beside).await?;
        let neutron = common(&bench, size.listed, size.listed).await?.0;
        side_by_side(&alcor, &neutron, &mut figures);
    }
    println!("{}", Value::Object(figures));
    Ok(())
}

async fn alcor(size: &Size, figures: &mut Map<String, Value>) -> Result<Common> {
    let server = Server::start()?;
    let bench = Bench::begin("Alcor", server.address, size.time).await?;
    let (common, ids) = common(&bench, size.listed, size.among).await?;
    let many = [bench.create(16).await?, bench.create(64).await?];
    let bulk_8 = bench.bulk(8).await?;
    let (show, update) = (bench.show(&ids).await?, bench.update(&ids).await?);
    let mut note = |key: &str, value: f64| figures.insert(key.to_owned(), rounded(value));
    note("single_1", common.create_1.requests_per_s);
    note("single_8", common.create_8.requests_per_s);
    note("single_16", many[0].requests_per_s);
    note("single_64", many[1].requests_per_s);
    note("p50_ms", many[1].p50_ms);
    note("p99_ms", many[1].p99_ms);
    note("bulk_1", common.bulk.requests_per_s * BULK as f64);
    note("bulk_8", bulk_8.requests_per_s * BULK as f64);
    note("list_p50_ms", common.list.p50_ms);
    note("list_p99_ms", common.list.p99_ms);
    note("show_per_s", show.requests_per_s);
    note("show_p50_ms", show.p50_ms);
    note("update_per_s", update.requests_per_s);
    note("update_p50_ms", update.p50_ms);
    Ok(common)
}

/// The phases that both servers go through; also gives ids of ports that are there.
async fn common(bench: &Bench, listed: usize, among: usize) -> Result<(Common, Vec<String>)> {
    let create_1 = bench.create(1).await?;
    let create_8 = bench.create(8).await?;
    let bulk = bench.bulk(1).await?;
    let ids = bench.fill(listed, among).await?;
    let list = bench.list(listed).await?;
    let common = Common {
        create_1,
        create_8,
        bulk,
        list,
    };
    Ok((common, ids))
}

fn side_by_side(alcor: &Common, neutron: &Common, figures: &mut Map<String, Value>) {
    let pairs = [
        ("create_1", alcor.create_1, neutron.create_1, 1),
        ("create_8", alcor.create_8, neutron.create_8, 1),
        ("bulk", alcor.bulk, neutron.bulk, BULK),
        ("list", alcor.list, neutron.list, 1),
    ];
    for (key, ours, theirs, per) in pairs {
        let ratio = ours.requests_per_s / theirs.requests_per_s;
        eprintln!("{key:<10} Alcor is {ratio:.1} times as fast");
        figures.insert(format!("{key}_ratio"), rounded(ratio));
        figures.insert(
            format!("neutron_{key}_per_s"),
            rounded(theirs.requests_per_s * per as f64),
        );
        figures.insert(format!("neutron_{key}_p50_ms"), rounded(theirs.p50_ms));
        figures.insert(format!("neutron_{key}_p99_ms"), rounded(theirs.p99_ms));
        figures.insert(format!("{key}_p50_ms"), rounded(ours.p50_ms));
        figures.insert(format!("{key}_p99_ms"), rounded(ours.p99_ms));
    }
}

/// Two digits behind the point are more than any of these measurements is good for.
fn rounded(value: f64) -> Value {
    Value::from((value * 100.0).round() / 100.0)
}
