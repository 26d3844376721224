//! The subcommands that run scenarios: files in, progress on standard error, the judgement on standard output.

use std::{
    path::{Path, PathBuf},
    time::Instant,
};

use alcor_sim::{
    engine::Sim,
    outcome::{Level, Outcome, Progress},
    region::{self, Places},
    report::{Machine, Point, Report},
    scenario::Scenario,
};
use anyhow::{Context as _, bail};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

/// Most points of time that are kept of a run; even, so that every other one of them and those to come are equally far apart.
const POINTS_MAX: usize = 400;

/// What a run is of, and where its result goes.
#[derive(Debug, Args)]
pub struct Files {
    /// The scenario.
    #[arg(value_name = "FILE")]
    scenario: PathBuf,
    /// What the run is random by, instead of the scenario's own seed.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Write the result as JSON.
    #[arg(long, value_name = "PATH")]
    json: Option<PathBuf>,
    /// Write the result as a page with plots.
    #[arg(long, value_name = "PATH")]
    html: Option<PathBuf>,
    /// Compare with the JSON of an earlier run.
    #[arg(long, value_name = "PATH", requires = "html")]
    baseline: Option<PathBuf>,
}

/// `alcor-sim run`
#[derive(Debug, Args)]
pub struct Run {
    #[command(flatten)]
    files: Files,
}

/// `alcor-sim region`
#[derive(Debug, Args)]
pub struct Region {
    #[command(flatten)]
    files: Files,
    /// The program that controller and NCM are; without it the one beside this program.
    #[arg(long, value_name = "PATH")]
    alcor: Option<PathBuf>,
    /// A folder for the processes' data and logs, which stays; without it one that goes if the run passes.
    #[arg(long, value_name = "PATH")]
    folder: Option<PathBuf>,
}

/// `alcor-sim replay`
#[derive(Debug, Args)]
pub struct Replay {
    /// The scenario.
    #[arg(value_name = "FILE")]
    scenario: PathBuf,
    /// The seed.
    #[arg(long, value_name = "N")]
    seed: u64,
    /// Stop after this event and show those before it.
    #[arg(long, value_name = "N")]
    event: u64,
}

/// Runs a scenario in virtual time; an error when something was violated or a threshold is not kept.
pub fn run(arguments: &Run) -> anyhow::Result<()> {
    let judging = Judging::begin(&arguments.files)?;
    let mut timeline = Timeline::default();
    let outcome = Sim::new(judging.scenario.clone()).run(&mut |progress| {
        show(&judging.bar, &progress, "virtual s");
        timeline.note(|| Point::new(&progress, rss_mib("VmRSS:").unwrap_or_default()));
    });
    judging.end(&arguments.files, &outcome, timeline.points, rss_mib("VmHWM:"))
}

/// Runs a scenario with real processes and sockets; an error as of [`run`], and when the region cannot be built.
pub fn run_region(arguments: &Region) -> anyhow::Result<()> {
    let judging = Judging::begin(&arguments.files)?;
    let beside = || -> anyhow::Result<PathBuf> { Ok(std::env::current_exe()?.with_file_name("alcor")) };
    let passing = std::env::temp_dir().join(format!("alcor-sim-{}", std::process::id()));
    let places = Places {
        alcor: arguments.alcor.clone().map_or_else(beside, Ok)?,
        folder: arguments.folder.clone().unwrap_or_else(|| passing.clone()),
    };
    let (mut timeline, mut peak_mib) = (Timeline::default(), 0.0_f64);
    let mut told = |progress: &Progress, ncm_mib: f64| {
        show(&judging.bar, progress, "s");
        peak_mib = peak_mib.max(ncm_mib);
        timeline.note(|| Point::new(progress, ncm_mib));
    };
    let runtime = tokio::runtime::Runtime::new()?;
    let outcome = runtime.block_on(region::run(&judging.scenario, &places, &mut told))?;
    runtime.shutdown_background();
    judging.end(&arguments.files, &outcome, timeline.points, Some(peak_mib))?;
    // What a run that failed leaves is for people to look at.
    match &arguments.folder {
        Some(_) => Ok(()),
        None => std::fs::remove_dir_all(&passing).with_context(|| format!("removing {}", passing.display())),
    }
}

/// What all levels have in common: a scenario is read, progress shown, the result written and judged.
struct Judging {
    scenario: Scenario,
    name: String,
    baseline: Option<Report>,
    bar: ProgressBar,
    began: Instant,
}

impl Judging {
    fn begin(files: &Files) -> anyhow::Result<Self> {
        let (scenario, name) = read(&files.scenario, files.seed)?;
        Ok(Self {
            baseline: files.baseline.as_deref().map(read_report).transpose()?,
            bar: bar(&scenario)?,
            scenario,
            name,
            began: Instant::now(),
        })
    }

    fn end(
        &self,
        files: &Files,
        outcome: &Outcome,
        timeline: Vec<Point>,
        peak_rss_mib: Option<f64>,
    ) -> anyhow::Result<()> {
        self.bar.finish_and_clear();
        let machine = Machine {
            wall_s: self.began.elapsed().as_secs_f64(),
            peak_rss_mib,
            timeline,
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
        };
        let report = Report::new(&self.name, &self.scenario, outcome, &machine);
        if let Some(path) = &files.json {
            let text = serde_json::to_string_pretty(&report)?;
            write(path, &text)?;
        }
        if let Some(path) = &files.html {
            write(path, &report.html(self.baseline.as_ref()))?;
        }
        print(&report);
        if !report.passed() {
            bail!("the run did not pass; repeat it with: {}", report.repeat);
        }
        Ok(())
    }
}

/// Runs a scenario up to an event and shows what came before it.
pub fn replay(arguments: &Replay) -> anyhow::Result<()> {
    let (scenario, _) = read(&arguments.scenario, Some(arguments.seed))?;
    let bar = bar(&scenario)?;
    let mut sim = Sim::new(scenario);
    sim.stop_after(arguments.event);
    let outcome = sim.run(&mut |progress| show(&bar, &progress, "virtual s"));
    bar.finish_and_clear();
    for line in &outcome.last_events {
        println!("{line}");
    }
    for violation in &outcome.violations {
        println!("VIOLATED after event {}: {}", violation.event, violation.what);
    }
    Ok(())
}

fn read(path: &Path, seed: Option<u64>) -> anyhow::Result<(Scenario, String)> {
    let mut scenario = Scenario::read(path)?;
    scenario.seed = seed.unwrap_or(scenario.seed);
    Ok((scenario, path.display().to_string()))
}

fn read_report(path: &Path) -> anyhow::Result<Report> {
    let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| {
        format!(
            "{} is not a result of `alcor-sim run` or `region`",
            path.display()
        )
    })
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(path, text).with_context(|| format!("writing {}", path.display()))
}

fn bar(scenario: &Scenario) -> anyhow::Result<ProgressBar> {
    let style = "{elapsed_precise} {bar:30} {percent:>3}% {msg}";
    let busy_ms = scenario.duration_s * 1e3;
    // Rests end early, mostly; a bar that jumps is better than one that stands.
    let whole = to_ms(busy_ms) * scenario.rounds + 1_000;
    Ok(ProgressBar::new(whole).with_style(ProgressStyle::with_template(style)?))
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "`as` keeps to the range of a u64"
)]
const fn to_ms(ms: f64) -> u64 {
    ms as u64
}

fn show(bar: &ProgressBar, progress: &Progress, unit: &str) {
    let at_ms = progress.at_us / 1_000;
    let known = bar.length().unwrap_or_default();
    bar.set_position(at_ms.min(known));
    bar.set_message(format!(
        "{} {unit}, {} events, {} sessions, {} ports",
        at_ms / 1_000,
        progress.events,
        progress.sessions,
        progress.ports
    ));
}

/// How a run went: every n-th point that is told, n growing with the run, so that what is kept is evenly far apart.
#[derive(Debug)]
struct Timeline<T> {
    points: Vec<T>,
    /// Every so many-th is kept; a power of two.
    every: u64,
    told: u64,
}

impl<T> Default for Timeline<T> {
    fn default() -> Self {
        Self {
            points: Vec::new(),
            every: 1,
            told: 0,
        }
    }
}

impl<T> Timeline<T> {
    /// Makes a point and keeps it, if it is one of those that are kept.
    fn note(&mut self, point: impl FnOnce() -> T) {
        if self.told.is_multiple_of(self.every) {
            if self.points.len() == POINTS_MAX {
                let mut is_kept = false;
                self.points.retain(|_| {
                    is_kept = !is_kept;
                    is_kept
                });
                self.every *= 2;
            }
            self.points.push(point());
        }
        self.told += 1;
    }
}

/// Resident memory of this process, from the kernel.
fn rss_mib(which: &str) -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with(which))?;
    let kib: f64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib / 1024.0)
}

fn print(report: &Report) {
    let (name, seed, (hosts, full), events) = (&report.scenario, report.seed, report.hosts, report.events);
    match report.level {
        Level::VirtualTime => println!(
            "{name}: seed {seed}, {hosts} hosts ({full} with an agent), {events} events, {:.0} virtual s in {:.1} s",
            report.virtual_s, report.wall_s
        ),
        Level::Sockets => println!(
            "{name}: seed {seed}, {hosts} hosts over sockets, {events} API calls, {:.1} s",
            report.wall_s
        ),
    }
    for judged in &report.thresholds {
        let value = judged
            .value
            .map_or("nothing".to_owned(), |value| format!("{value:.1}"));
        let word = if judged.passed { "pass" } else { "FAIL" };
        println!("  {word}  {} {value} ({})", judged.figure, judged.bounds());
    }
    for violation in &report.violations {
        println!("  VIOLATED after event {}: {}", violation.event, violation.what);
        for line in &violation.before {
            println!("      {line}");
        }
        if report.level == Level::VirtualTime {
            println!("    {}", report.replay(violation.event));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_run_s_points_are_evenly_far_apart() {
        let mut timeline = Timeline::default();
        (0..10_000_u64).for_each(|told| timeline.note(|| told));
        let gaps = timeline.points.windows(2).map(|pair| pair[1] - pair[0]);
        let (least, most) = (gaps.clone().min().unwrap(), gaps.max().unwrap());
        assert_eq!((least, most), (timeline.every, timeline.every));
        assert!((POINTS_MAX / 2..=POINTS_MAX).contains(&timeline.points.len()));
        assert_eq!(timeline.points[0], 0);
    }
}
