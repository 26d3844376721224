//! The `alcor` binary: one program, several roles.
//!
//! Reads the configuration, sets up logging and wires the crates together; every decision is made in them.
//! Standard output carries data (tables, JSON, configuration), standard error carries logs and errors.

mod certs;
mod cli;
mod client;
mod config;
mod gateway;
mod logging;
mod roles;
mod show;
mod stdout;
mod trace;

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser as _;

use crate::{
    cli::{Cli, Command, Role},
    config::Config,
};

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("alcor: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<()> {
    let config = Config::load(&cli)?;
    if cli.print_config {
        return stdout::line(config.to_toml()?.trim_end());
    }
    let Some(command) = cli.command else {
        anyhow::bail!(
            "say what to do: `alcor all`, `alcor controller`, `alcor agent`, `alcor show hosts`; see `alcor --help`"
        );
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("starting the runtime")?;
    match command {
        Command::Run(role) => {
            logging::init(&config.log)?;
            runtime.block_on(
                roles::Roles {
                    controller: matches!(role, Role::All(_) | Role::Controller(_)),
                    ncm: matches!(role, Role::Ncm(_)),
                    agent: matches!(role, Role::All(_) | Role::Agent(_)),
                    gateway: false,
                }
                .run(config),
            )
        }
        Command::Gateway { what: None, .. } => {
            logging::init(&config.log)?;
            runtime.block_on(roles::Roles::GATEWAY.run(config))
        }
        Command::Gateway {
            what: Some(what),
            output,
            ..
        } => runtime.block_on(gateway::ask(what, &output)),
        Command::Certs { what } => certs::make(&what),
        Command::Show { what, output } => runtime.block_on(show::show(what, &output)),
        Command::Trace { packet, output } => runtime.block_on(trace::trace(&packet, &output)),
        Command::Host { what, output } => runtime.block_on(show::host(what, &output)),
    }
}
