//! `cargo xtask bench`: figures, side by side with what a user would use instead. Tables on standard error, one JSON
//! object as the last line of standard output with `--json`.

mod connections;
mod dataplane;
mod first_packet;
mod gateway;
mod ovn;
mod programming;
mod scale;
mod security;
mod security_dataplane;

use clap::{Args, ValueEnum};
use serde_json::{Map, Value};
use tabled::{builder::Builder, settings::Style};

use crate::{
    openstack::neutron::Neutron,
    shell::{cargo, output, run},
};

/// Flags of benchmarks.
#[derive(Debug, Args)]
pub struct Flags {
    /// Which.
    name: Name,
    /// Print one JSON object on the last line.
    #[arg(long)]
    json: bool,
    /// Fewer rounds, to see that it works; figures are rough.
    #[arg(long)]
    quick: bool,
}

/// The benchmarks there are.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Name {
    /// Commits and rows per second, loading a million ports, memory of a port.
    Store,
    /// Durable port creations, lists and updates per second over HTTP, beside a real Neutron (root).
    Api,
    /// API call to "visible to packets" on a real host, in networks of 10, 1,000 and 100,000 ports (root).
    Programming,
    /// 10,000 simulated hosts over real sockets: memory, all of them coming back, API call to "visible" in networks of up to
    /// 1,000,000 ports, a burst; first packets; a million neighbours into the kernel; an agent's memory (root).
    Scale,
    /// One member more or less in groups of 10 to 100,000, one rule more; the same in OVN; and what rules cost packets
    /// (root).
    Security,
    /// The last part of `security`: throughput and connections per second with 0 to 1,000 rules a port (root).
    SecurityDataplane,
    /// Round trips of the first packets to 200 peers that a host has to ask for, all at once and one by one, beside later ones (root).
    FirstPacket,
    /// Gateways: packets per second beside the kernel's forwarding, a million mappings, the cost of the hop, a dead one, source NAT
    /// (root).
    Gateway,
    /// TCP, small packets and round trips beside the kernel's own vxlan and bridge (root).
    Dataplane,
}

/// Figures by their key.
pub type Figures = Map<String, Value>;

/// Runs a benchmark.
///
/// # Errors
/// When it cannot run or one of its parts fails.
pub fn bench(flags: &Flags) -> anyhow::Result<()> {
    let json = match flags.name {
        Name::Store => example("alcor-region", "bench_store", flags.quick, &[])?,
        Name::Api => api(flags.quick)?,
        Name::Programming => Value::Object(programming::bench(flags.quick)?).to_string(),
        Name::Scale => {
            let mut figures = scale::bench(flags.quick)?;
            figures.extend(first_packet::bench(flags.quick)?);
            figures.extend(alone(flags.quick)?);
            Value::Object(figures).to_string()
        }
        Name::Security => {
            let mut figures = security::bench(flags.quick)?;
            figures.extend(security_dataplane::bench(flags.quick)?);
            Value::Object(figures).to_string()
        }
        Name::SecurityDataplane => Value::Object(security_dataplane::bench(flags.quick)?).to_string(),
        Name::FirstPacket => Value::Object(first_packet::bench(flags.quick)?).to_string(),
        Name::Gateway => Value::Object(gateway::bench(flags.quick)?).to_string(),
        Name::Dataplane => Value::Object(dataplane::bench(flags.quick)?).to_string(),
    };
    if flags.json {
        println!("{json}");
    }
    Ok(())
}

/// The API's benchmark, with the reference Neutron running for it.
fn api(quick: bool) -> anyhow::Result<String> {
    // Built first: compiling takes the cores that Neutron needs to start.
    let example_args = [
        "build",
        "--release",
        "--package",
        "alcor-api",
        "--example",
        "bench_api",
    ];
    run(&mut cargo(&example_args))?;
    let neutron = Neutron::start()?;
    example("alcor-api", "bench_api", quick, &["--beside", &neutron.address])
}

/// What `scale` tells of parts that run alone: bytes of a neighbour in an NCM, a million neighbours into the kernel, an agent's memory.
fn alone(quick: bool) -> anyhow::Result<Figures> {
    let rows: &[&str] = if quick { &["100000"] } else { &[] };
    let ebpf = ["--dataplane", "ebpf", "--devices"];
    let resolve = example("alcor-ncm", "bench_resolve", quick, &[])?;
    let apply = example("alcor-dataplane-ebpf", "apply_neighbours", false, rows)?;
    let memory = example("alcor-agent", "bench_memory", false, &ebpf)?;
    let mut figures = Figures::new();
    let parts = [(resolve, "_bytes"), (apply, "apply_"), (memory, "_rss_mb")];
    for (printed, wanted) in parts {
        let printed: Figures = serde_json::from_str(&printed)?;
        figures.extend(printed.into_iter().filter(|(key, _)| key.contains(wanted)));
    }
    Ok(figures)
}

/// Runs an example of a package that prints its table on standard error and its JSON as the last line of standard output.
fn example(package: &str, name: &str, quick: bool, more: &[&str]) -> anyhow::Result<String> {
    let mut args = vec!["run", "--release", "--package", package, "--example", name, "--"];
    args.extend(quick.then_some("--quick"));
    args.extend(more);
    let printed = output(&mut cargo(&args))?;
    let last = printed.lines().next_back().unwrap_or_default();
    anyhow::ensure!(last.starts_with('{'), "{name} printed no JSON: {printed}");
    Ok(last.to_owned())
}

/// Prints a table for people.
fn print_table(rows: Vec<Vec<String>>) {
    let mut table = Builder::default();
    for row in rows {
        table.push_record(row);
    }
    eprintln!("{}", table.build().with(Style::sharp()));
}

/// The value below which this share of the sorted values lies.
fn percentile(sorted: &[f64], share: f64) -> f64 {
    let last = sorted.len().saturating_sub(1);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "an index into a short list"
    )]
    let index = (last as f64 * share).round() as usize;
    sorted.get(index).copied().unwrap_or(f64::NAN)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    percentile(&values, 0.5)
}

/// Three digits behind the point are more than any of these measurements is good for.
fn rounded(value: f64) -> Value {
    Value::from((value * 1e3).round() / 1e3)
}
