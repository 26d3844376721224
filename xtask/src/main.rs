//! `cargo xtask`: what people do with this repository: prepare a machine, watch the demo, run all tests, measure.
//!
//! Standard output carries results, standard error what is being done.

mod bench;
mod cloud;
mod demo;
mod openstack;
mod setup;
mod shell;
mod sim;
mod test;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Tasks of the Alcor repository.
#[derive(Debug, Parser)]
#[command(
    name = "cargo xtask",
    after_help = "Examples:\n  cargo xtask demo --keep\n  cargo xtask test\n  cargo xtask sim scenarios/million.toml\n  cargo xtask bench api --json"
)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Install what is missing on this machine to build, watch and test; says what and why.
    Setup,
    /// Two hosts, three VMs, real packets: watch Alcor work (root).
    Demo(demo::Flags),
    /// Run every test (root).
    Test,
    /// Test the API, and that some test exercises each of its endpoints.
    Endpoints,
    /// Run OpenStack's own programs against Alcor with a real Keystone: clients, a short run of tempest, schemathesis.
    Openstack(openstack::Flags),
    /// Run OpenStack's own tests of the network API against Alcor with a real Keystone.
    Tempest(openstack::tempest::Flags),
    /// Simulate a region from a scenario file, with faults; reports with plots (see `scenarios/`).
    Sim(sim::Flags),
    /// Measure; prints a table, and one JSON object with --json.
    Bench(bench::Flags),
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().task {
        Task::Setup => setup::setup(setup::For::Everything),
        Task::Demo(flags) => demo::demo(&flags),
        Task::Test => test::test(),
        Task::Endpoints => test::endpoints(),
        Task::Openstack(flags) => openstack::test(&flags),
        Task::Tempest(flags) => openstack::tempest::tempest(&flags),
        Task::Sim(flags) => sim::sim(&flags),
        Task::Bench(flags) => bench::bench(&flags),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
