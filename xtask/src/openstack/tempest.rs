//! `cargo xtask tempest`: the OpenStack community's own tests of the network API (tempest and
//! neutron-tempest-plugin) against Alcor with a real Keystone. Talk on standard error; the table, or one JSON object
//! with `--json`, on standard output.

mod lists;
mod report;
mod workspace;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::Context as _;
use clap::Args;
use regex::Regex;

use self::{
    lists::Lists,
    report::{Outcome, Report},
};
use super::{
    Openstack,
    process::{Process, tail},
    venv::Venv,
};
use crate::{cloud::Build, shell::output};

/// How long a run may take.
const RUN: Duration = Duration::from_secs(90 * 60);
/// Tests at a time, unless told otherwise.
const CONCURRENCY: usize = 2;

/// Flags of `cargo xtask tempest`.
#[derive(Debug, Args)]
pub struct Flags {
    /// Of the tests on the allow-list, run those whose name matches.
    #[arg(long, value_name = "R", default_value = "")]
    regex: String,
    /// Tests at a time.
    #[arg(long, value_name = "N", default_value_t = CONCURRENCY)]
    concurrency: usize,
    /// Print the names of the tests and run none.
    #[arg(long)]
    list: bool,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    json: bool,
    /// Run the release build of Alcor.
    #[arg(long)]
    release: bool,
}

impl Flags {
    /// The short run that is part of `cargo xtask test`.
    pub fn short() -> Self {
        Self {
            regex: r"^tempest\.api\.network\.".to_owned(),
            concurrency: CONCURRENCY,
            list: false,
            json: false,
            release: false,
        }
    }
}

/// Runs tests, prints what became of them.
///
/// # Errors
/// When a test that should pass does not, or fewer pass than the committed floor says.
pub fn tempest(flags: &Flags) -> anyhow::Result<()> {
    let build = if flags.release {
        Build::Release
    } else {
        Build::Debug
    };
    if flags.list {
        let lists = Lists::read()?;
        let venv = Venv::prepare()?;
        let (dir, _lock) = super::work_dir("tempest-list")?;
        workspace::lay_out(&venv, &dir, "")?;
        for test in selected(&list(&venv, &dir)?, &lists, flags)? {
            println!("{test}");
        }
        return Ok(());
    }
    run_against(&Openstack::start("tempest", build)?, flags)
}

/// Runs tests against what already runs.
///
/// # Errors
/// As [`tempest`].
pub fn run_against(openstack: &Openstack, flags: &Flags) -> anyhow::Result<()> {
    let lists = Lists::read()?;
    let dir = workspace::make(openstack)?;
    let all = list(&openstack.venv, &dir)?;
    let selected = selected(&all, &lists, flags)?;
    anyhow::ensure!(
        !selected.is_empty(),
        "no test on the allow-list matches {:?}",
        flags.regex
    );
    let report = run(openstack, &dir, &selected, flags.concurrency)?;
    write_failures(&dir, &report)?;
    tell(&report, &lists, flags);
    judge(&report, &lists, &all, &dir)
}

/// The names of all network tests, with their attributes in brackets.
fn list(venv: &Venv, dir: &Path) -> anyhow::Result<Vec<String>> {
    let mut list = tempest_command(venv, dir);
    let printed = output(list.args([
        "--list-tests",
        "--regex",
        r"^(tempest|neutron_tempest_plugin)\.api\.",
    ]))?;
    let test = Regex::new(r"^[\w.]+\.test_\w+\S*$")?;
    Ok(printed
        .lines()
        .filter(|line| test.is_match(line))
        .map(str::to_owned)
        .collect())
}

fn tempest_command(venv: &Venv, dir: &Path) -> std::process::Command {
    let mut command = venv.command("tempest");
    command
        .arg("run")
        .current_dir(dir)
        .env("TEMPEST_CONFIG_DIR", dir.join("etc"));
    command
}

fn selected(all: &[String], lists: &Lists, flags: &Flags) -> anyhow::Result<Vec<String>> {
    let regex = Regex::new(&flags.regex).context("--regex")?;
    let allowed = |test: &str| lists.allow.iter().any(|allow| allow.is_match(test)) && regex.is_match(test);
    Ok(all.iter().filter(|test| allowed(test)).cloned().collect())
}

fn run(openstack: &Openstack, dir: &Path, selected: &[String], concurrency: usize) -> anyhow::Result<Report> {
    let list = dir.join("selected.txt");
    fs::write(&list, selected.join("\n") + "\n")?;
    let (stream, log) = (dir.join("results.subunit"), dir.join("run.log"));
    let mut tempest = tempest_command(&openstack.venv, dir);
    tempest
        .args([
            "--subunit",
            "--concurrency",
            &concurrency.to_string(),
            "--load-list",
        ])
        .arg(&list);
    tempest
        .stdout(fs::File::create(&stream)?)
        .stderr(fs::File::create(&log)?);
    eprintln!(
        "running {} tests, {concurrency} at a time; log in {}",
        selected.len(),
        dir.join("tempest.log").display()
    );
    // It ends with a failure when a test has failed: the results say which.
    Process::spawn_as_is("tempest", &mut tempest, &log)?.wait(RUN)?;
    anyhow::ensure!(
        fs::metadata(&stream)?.len() > 0,
        "tempest left no results:\n{}",
        tail(&log)
    );
    let results = read_results(&openstack.venv, &stream)?;
    Ok(Report::new(selected, &results))
}

fn read_results(venv: &Venv, stream: &Path) -> anyhow::Result<Vec<report::Result>> {
    let results = stream.with_extension("json");
    let mut read = venv.script("report.py");
    read.stdin(fs::File::open(stream)?)
        .stdout(fs::File::create(&results)?)
        .stderr(Stdio::inherit());
    anyhow::ensure!(
        read.status()?.success(),
        "the results in {} cannot be read",
        stream.display()
    );
    let text = fs::read_to_string(&results)?;
    text.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}

/// Tracebacks and requests of failed tests, for those who mend them.
fn write_failures(dir: &Path, report: &Report) -> anyhow::Result<PathBuf> {
    let path = dir.join("failures.log");
    let parts = report
        .with(Outcome::Failed)
        .map(|test| format!("==== {}\n{}\n", test.name, test.details));
    fs::write(&path, parts.collect::<String>())?;
    Ok(path)
}

fn tell(report: &Report, lists: &Lists, flags: &Flags) {
    for (word, outcome) in [("skipped", Outcome::Skipped), ("failed", Outcome::Failed)] {
        for test in report.with(outcome) {
            match lists.reason(&test.name) {
                Some(reason) => eprintln!("{word}, known: {}: {reason}", test.name),
                None => eprintln!("{word}: {}: {}", test.name, test.reason),
            }
        }
    }
    if flags.json {
        println!("{}", report.json(lists));
    } else {
        println!("{}", report.table());
    }
}

fn judge(report: &Report, lists: &Lists, all: &[String], dir: &Path) -> anyhow::Result<()> {
    for stale in report.stale(lists) {
        eprintln!("tempest-known.txt: all tests of this line pass: {stale}");
    }
    let low = report.below_floor(lists, all);
    anyhow::ensure!(low.is_empty(), "too few tests passed: {}", low.join("; "));
    let unexpected = report.unexpected(lists).count();
    anyhow::ensure!(
        unexpected == 0,
        "{unexpected} tests did not pass and have no line in tempest-known.txt; see {}",
        dir.join("failures.log").display()
    );
    Ok(())
}
