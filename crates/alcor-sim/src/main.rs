//! `alcor-sim`: simulated hosts as a process. Not here: what they do, which is in the library.

mod commands;

use std::{
    net::Ipv4Addr,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use alcor_sim::sockets;
use anyhow::Context as _;
use bytes::Bytes;
use clap::{Args, Parser, Subcommand};
use uuid::Uuid;

/// How often the agents' state is printed, when it changed.
const REPORT_EVERY: Duration = Duration::from_millis(100);

/// Simulated hosts, for measuring and for trying a controller without hosts.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "Examples:\n  alcor-sim run scenarios/small.toml\n  alcor-sim run scenarios/faults.toml --seed 7 --json result.json\n  alcor-sim replay scenarios/faults.toml --seed 7 --event 1234\n  alcor-sim region scenarios/sockets.toml --alcor target/release/alcor\n  alcor-sim sockets --ncm http://127.0.0.1:9697 --hosts 100 --prefix sim"
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
    /// Run a scenario with a controller and an NCM as processes, and agents over real sockets; checks what each agent has.
    Region(commands::Region),
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
    /// Ask for random addresses of this network, as often as the NCM answers.
    #[arg(long, value_name = "ID")]
    ask_network: Option<Uuid>,
    /// The port that asks; without it the hosts themselves, as when leases are renewed.
    #[arg(long, value_name = "ID", requires = "ask_network")]
    ask_port: Option<Uuid>,
    /// The first of the addresses.
    #[arg(
        long,
        value_name = "ADDRESS",
        default_value = "10.0.0.2",
        requires = "ask_network"
    )]
    ask_first: Ipv4Addr,
    /// How many addresses there are.
    #[arg(long, value_name = "N", default_value_t = 1, requires = "ask_network")]
    ask_addresses: u32,
    /// How many of the hosts ask; all when nothing is said.
    #[arg(long, value_name = "N", requires = "ask_network")]
    ask_hosts: Option<u32>,
}

impl Sockets {
    fn asking(&self) -> Option<sockets::Asking> {
        let bytes = |id: Uuid| Bytes::copy_from_slice(id.as_bytes());
        Some(sockets::Asking {
            network: bytes(self.ask_network?),
            port: self.ask_port.map(bytes).unwrap_or_default(),
            first: self.ask_first,
            addresses: self.ask_addresses,
            hosts: self.ask_hosts.unwrap_or(self.hosts),
        })
    }
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Run(arguments) => commands::run(&arguments),
        Command::Replay(arguments) => commands::replay(&arguments),
        Command::Region(arguments) => commands::run_region(&arguments),
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
        asking: arguments.asking(),
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
                let answers = (of(&seen.answers.all), of(&seen.answers.routes), of(&seen.answers.busy));
                let now = (now, answers);
                if last != Some(now) {
                    let ((welcomed, complete, sessions, deltas, rows), (answers, routes, busy)) = now;
                    println!(
                        "{welcomed} agents welcomed, {complete} complete, {sessions} sessions, {deltas} deltas, {rows} rows, \
                         {answers} answers, {routes} routes, {busy} busy"
                    );
                    last = Some(now);
                }
            }
        }
    }
}
