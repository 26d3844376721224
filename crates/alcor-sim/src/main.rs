//! `alcor-sim`: simulated hosts as a process. Not here: what they do, which is in the library.

mod commands;

use std::{
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use alcor_sim::sockets;
use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};

/// How often the agents' state is printed, when it changed.
const REPORT_EVERY: Duration = Duration::from_millis(100);

/// Simulated hosts, for measuring and for trying a controller without hosts.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "Examples:\n  alcor-sim run scenarios/small.toml\n  alcor-sim run scenarios/faults.toml --seed 7 --json result.json\n  alcor-sim replay scenarios/faults.toml --seed 7 --event 1234\n  alcor-sim sockets --ncm http://127.0.0.1:9697 --hosts 100 --prefix sim"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a scenario in virtual time: the real deciders, no sockets; checks what must always hold.
    Run(commands::Run),
    /// Run a scenario up to an event, and show the events before it.
    Replay(commands::Replay),
    /// Agents over real sockets: they take every delta and answer receipts, and program nothing.
    Sockets(Sockets),
}

#[derive(Debug, Args)]
struct Sockets {
    /// The NCM to connect to.
    #[arg(long, default_value = "http://127.0.0.1:9697", value_name = "URL")]
    ncm: String,
    /// How many agents, at most 65,536.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    hosts: u32,
    /// Hosts are named PREFIX-0, PREFIX-1, ...
    #[arg(long, default_value = "sim")]
    prefix: String,
    /// Say hello again when a session ends, with what is held, instead of stopping.
    #[arg(long)]
    again: bool,
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Run(arguments) => commands::run(&arguments),
        Command::Replay(arguments) => commands::replay(&arguments),
        Command::Sockets(arguments) => run_sockets(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("alcor-sim: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn run_sockets(arguments: &Sockets) -> anyhow::Result<()> {
    let seen = Arc::new(sockets::Seen::default());
    let fleet = sockets::Fleet {
        ncm: arguments.ncm.clone(),
        prefix: arguments.prefix.clone(),
        hosts: arguments.hosts,
        again: arguments.again,
    };
    let agents = sockets::run(&fleet, Arc::clone(&seen));
    tokio::pin!(agents);
    let mut report = tokio::time::interval(REPORT_EVERY);
    let mut last = None;
    loop {
        tokio::select! {
            ended = &mut agents => return ended.context("a simulated agent stopped"),
            _ = tokio::signal::ctrl_c() => return Ok(()),
            _ = report.tick() => {
                let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
                let now = (of(&seen.welcomed), of(&seen.complete), of(&seen.sessions), of(&seen.deltas), of(&seen.rows));
                if last != Some(now) {
                    println!(
                        "{} agents welcomed, {} complete, {} sessions, {} deltas, {} rows",
                        now.0, now.1, now.2, now.3, now.4
                    );
                    last = Some(now);
                }
            }
        }
    }
}
