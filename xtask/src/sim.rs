//! `cargo xtask sim`: a scenario in virtual time, with its reports. What a scenario is, is `alcor-sim`'s.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context as _;
use clap::Args;

use crate::{
    cloud::Build,
    shell::{root, run},
};

/// `cargo xtask sim`
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  cargo xtask sim scenarios/small.toml\n  cargo xtask sim scenarios/faults.toml --seed 7"
)]
pub struct Flags {
    /// The scenario.
    #[arg(value_name = "FILE")]
    scenario: PathBuf,
    /// What the run is random by, instead of the scenario's own seed.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
}

/// Builds the simulator, runs a scenario, leaves its result in `target/sim`.
///
/// # Errors
/// When the build fails, the scenario cannot be read, something was violated or a threshold is not kept.
pub fn sim(flags: &Flags) -> anyhow::Result<()> {
    Build::Release.packages(&["alcor-sim"])?;
    let folder = root().join("target/sim");
    std::fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    let name = flags.scenario.file_stem().unwrap_or_default();
    let result = |extension: &str| folder.join(Path::new(name).with_extension(extension));
    let mut command = Command::new(Build::Release.program("alcor-sim"));
    command.arg("run").arg(&flags.scenario);
    command.arg("--json").arg(result("json"));
    if let Some(seed) = flags.seed {
        command.args(["--seed", &seed.to_string()]);
    }
    run(&mut command)
}
