//! `cargo xtask sim`: a scenario in virtual time or over real sockets (both by `alcor-sim`), or with real packets in namespaces. All leave
//! their results in `target/sim`.

mod namespaces;
mod probe;

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use alcor_scenario::Scenario;
use anyhow::Context as _;
use clap::Args;

use crate::{
    cloud::{Build, PROGRAMS},
    setup::{For, setup},
    shell::{root, run},
};

/// `cargo xtask sim`
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  cargo xtask sim scenarios/small.toml\n  cargo xtask sim scenarios/faults.toml --seed 7\n  cargo xtask sim --sockets scenarios/sockets.toml\n  cargo xtask sim --namespaces scenarios/namespaces.toml"
)]
pub struct Flags {
    /// The scenario.
    #[arg(value_name = "FILE")]
    scenario: PathBuf,
    /// What the run is random by, instead of the scenario's own seed.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Compare with the JSON of an earlier run.
    #[arg(long, value_name = "PATH", conflicts_with = "namespaces")]
    baseline: Option<PathBuf>,
    /// With real processes: controller, NCM, and agents without data planes over sockets on loopback.
    #[arg(long, conflicts_with = "namespaces")]
    sockets: bool,
    /// With real packets: hosts are namespaces with agents and the eBPF data plane (root).
    #[arg(long)]
    namespaces: bool,
}

impl Flags {
    /// What `cargo xtask test` runs.
    pub fn of_test() -> Self {
        Self {
            scenario: root().join("scenarios/namespaces.toml"),
            seed: None,
            baseline: None,
            sockets: false,
            namespaces: true,
        }
    }
}

/// Builds what is needed and runs a scenario.
///
/// # Errors
/// When the build fails, the scenario cannot be read, something was violated or a threshold is not kept.
pub fn sim(flags: &Flags) -> anyhow::Result<()> {
    let folder = root().join("target/sim");
    std::fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    let name = flags.scenario.file_stem().unwrap_or_default();
    let result = |extension: &str| folder.join(Path::new(name).with_extension(extension));
    if flags.namespaces {
        return with_packets(flags, &result("namespaces.json"));
    }
    let mut command = Command::new(Build::Release.program("alcor-sim"));
    let level = match flags.sockets {
        false => {
            Build::Release.packages(&["alcor-sim"])?;
            command.arg("run");
            ""
        }
        true => {
            Build::Release.packages(PROGRAMS)?;
            let data = folder.join("sockets");
            // What an earlier run left.
            let _ = std::fs::remove_dir_all(&data);
            command.arg("region").arg("--folder").arg(data);
            "sockets."
        }
    };
    command.arg(&flags.scenario);
    command.arg("--json").arg(result(&format!("{level}json")));
    command.arg("--html").arg(result(&format!("{level}html")));
    if let Some(baseline) = &flags.baseline {
        command.arg("--baseline").arg(baseline);
    }
    if let Some(seed) = flags.seed {
        command.args(["--seed", &seed.to_string()]);
    }
    run(&mut command)
}

/// The scenario in namespaces.
fn with_packets(flags: &Flags, result: &Path) -> anyhow::Result<()> {
    let scenario = Scenario::read(&flags.scenario)?;
    setup(For::Demo)?;
    Build::Debug.packages(&["alcor"])?;
    let seed = flags.seed.unwrap_or(scenario.seed);
    let findings = namespaces::simulate(&scenario, seed, Build::Debug)?;
    let missed = findings.missed(&scenario);
    let text = findings.json(seed).to_string();
    std::fs::write(result, &text).with_context(|| format!("writing {}", result.display()))?;
    println!("{text}");
    let problems: Vec<_> = findings.wrong.iter().chain(&missed).map(String::as_str).collect();
    anyhow::ensure!(
        problems.is_empty(),
        "with seed {seed}:\n  {}",
        problems.join("\n  ")
    );
    Ok(())
}
