//! `cargo xtask bench`: figures, side by side with what a user would use instead. Tables on standard error, one JSON
//! object as the last line of standard output with `--json`.

use clap::{Args, ValueEnum};

use crate::shell::{cargo, output};

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
    /// Durable port creations per second over HTTP.
    Api,
}

/// Runs a benchmark.
///
/// # Errors
/// When it cannot run or one of its parts fails.
pub fn bench(flags: &Flags) -> anyhow::Result<()> {
    let json = match flags.name {
        Name::Store => example("alcor-region", "bench_store", flags.quick)?,
        Name::Api => example("alcor-api", "bench_api", flags.quick)?,
    };
    if flags.json {
        println!("{json}");
    }
    Ok(())
}

/// Runs an example of a package that prints its table on standard error and its JSON as the last line of standard output.
fn example(package: &str, name: &str, quick: bool) -> anyhow::Result<String> {
    let mut args = vec!["run", "--release", "--package", package, "--example", name];
    if quick {
        args.extend(["--", "--quick"]);
    }
    let printed = output(&mut cargo(&args))?;
    let last = printed.lines().next_back().unwrap_or_default();
    anyhow::ensure!(last.starts_with('{'), "{name} printed no JSON: {printed}");
    Ok(last.to_owned())
}
