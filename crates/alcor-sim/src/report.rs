//! What a run came to, as one JSON object, with the judgement of its thresholds. Pages with plots are made of it.

mod html;
mod plot;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    figures::{Over, Summary},
    outcome::{Level, Outcome, Progress},
    scenario::Scenario,
};

/// A distribution in networks of one size.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Series {
    /// What was measured.
    pub of: Over,
    /// Networks of so many ports up to ten times as many.
    pub network_size: u64,
    /// Percentiles.
    pub summary: Summary,
}

/// A threshold and whether its figure keeps to it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Judged {
    /// The figure.
    pub figure: String,
    /// What it is; none when nothing of that name was counted.
    pub value: Option<f64>,
    /// At most.
    pub max: Option<f64>,
    /// At least.
    pub min: Option<f64>,
    /// Whether it keeps to both.
    pub passed: bool,
}

impl Judged {
    /// What the figure must be, for people.
    pub fn bounds(&self) -> String {
        match (self.min, self.max) {
            (Some(min), Some(max)) => format!("{min} to {max}"),
            (Some(min), None) => format!("at least {min}"),
            (None, Some(max)) => format!("at most {max}"),
            (None, None) => String::new(),
        }
    }
}

/// What did not hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Violated {
    /// After this event.
    pub event: u64,
    /// Virtual microseconds.
    pub at_us: u64,
    /// What.
    pub what: String,
    /// The events before, oldest first.
    pub before: Vec<String>,
}

/// How far a run was at one time.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// Virtual seconds, or real ones where time is real.
    pub virtual_s: f64,
    /// Events, or calls of the API.
    pub events: f64,
    /// Ports.
    pub ports: f64,
    /// Hosts that have a session.
    pub sessions: f64,
    /// Resident memory of the simulation's process, or of the NCM where that is one, in MiB.
    pub rss_mib: f64,
}

impl Point {
    /// What a run tells of itself, with the memory that its process has then.
    pub fn new(progress: &Progress, rss_mib: f64) -> Self {
        Self {
            virtual_s: number(progress.at_us) / 1e6,
            events: number(progress.events),
            ports: number(progress.ports),
            sessions: number(progress.sessions),
            rss_mib,
        }
    }
}

/// The whole result.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The scenario's file.
    pub scenario: String,
    /// What was real of it.
    #[serde(default)]
    pub level: Level,
    /// What the run was random by.
    pub seed: u64,
    /// Hosts, and how many of them have a real agent.
    pub hosts: (u32, u32),
    /// Events.
    pub events: u64,
    /// Virtual seconds.
    pub virtual_s: f64,
    /// Seconds on this machine.
    pub wall_s: f64,
    /// CPUs of this machine; the simulation uses one.
    pub cpus: usize,
    /// Every figure by name: totals, and percentiles of distributions as `NAME_p50`.
    pub figures: BTreeMap<String, f64>,
    /// Distributions by size of the network.
    pub series: Vec<Series>,
    /// How it went.
    pub timeline: Vec<Point>,
    /// The scenario's thresholds.
    pub thresholds: Vec<Judged>,
    /// What did not hold.
    pub violations: Vec<Violated>,
    /// The command that repeats it.
    pub repeat: String,
}

/// What the machine says of the run.
#[derive(Clone, Debug, Default)]
pub struct Machine {
    /// Seconds that it took.
    pub wall_s: f64,
    /// The largest resident memory of the process, in MiB; none when the system does not say.
    pub peak_rss_mib: Option<f64>,
    /// CPUs.
    pub cpus: usize,
    /// How the run went.
    pub timeline: Vec<Point>,
}

#[expect(clippy::cast_precision_loss, reason = "figures are far below 2^53")]
const fn number(value: u64) -> f64 {
    value as f64
}

fn name_of(over: Over) -> &'static str {
    match over {
        Over::ProgrammedUs => "programmed_us",
        Over::ActiveUs => "active_us",
        Over::HostsPerChange => "hosts_per_change",
        Over::RowsPerChange => "rows_per_change",
        Over::LookedAtPerChange => "looked_at_per_change",
        Over::CpuNsPerChange => "cpu_ns_per_change",
        Over::LearnedPerHost => "learned_per_host",
        Over::FailoverUs => "failover_us",
        Over::ReturnedUs => "returned_us",
    }
}

fn figures(outcome: &Outcome, machine: &Machine) -> BTreeMap<String, f64> {
    let totals = outcome.figures.totals().iter();
    let mut figures: BTreeMap<_, _> = totals
        .map(|(name, total)| (name.clone(), number(*total)))
        .collect();
    for (over, summary) in outcome.figures.all() {
        let name = name_of(over);
        for (part, value) in [
            ("p50", summary.p50),
            ("p90", summary.p90),
            ("p99", summary.p99),
            ("max", summary.max),
        ] {
            figures.insert(format!("{name}_{part}"), number(value));
        }
    }
    let violations = outcome.violations.len() as u64;
    figures.insert("violations".to_owned(), number(violations));
    figures.insert("ncm_cpu_s".to_owned(), outcome.figures.cpu().as_secs_f64());
    figures.insert(
        "resolve_cpu_s".to_owned(),
        outcome.figures.asking_cpu().as_secs_f64(),
    );
    figures.insert("wall_s".to_owned(), machine.wall_s);
    if let Some(mib) = machine.peak_rss_mib {
        figures.insert("peak_rss_mib".to_owned(), mib);
    }
    figures
}

impl Report {
    /// Puts a run's outcome together. `name` is the scenario's file.
    pub fn new(name: &str, scenario: &Scenario, outcome: &Outcome, machine: &Machine) -> Self {
        let figures = figures(outcome, machine);
        let judge = |(figure, threshold): (&String, &crate::scenario::Threshold)| {
            let value = figures.get(figure).copied();
            Judged {
                figure: figure.clone(),
                value,
                max: threshold.max,
                min: threshold.min,
                passed: threshold.keeps(value),
            }
        };
        let violations = outcome.violations.iter().map(|violation| Violated {
            event: violation.event,
            at_us: violation.at_us,
            what: violation.what.clone(),
            before: violation.before.clone(),
        });
        Self {
            scenario: name.to_owned(),
            level: outcome.level,
            seed: outcome.seed,
            hosts: (scenario.hosts.count, scenario.hosts.full),
            events: outcome.events,
            virtual_s: number(outcome.virtual_us) / 1e6,
            wall_s: machine.wall_s,
            cpus: machine.cpus,
            series: outcome
                .figures
                .over_size()
                .map(|(of, network_size, summary)| Series {
                    of,
                    network_size,
                    summary,
                })
                .collect(),
            timeline: machine.timeline.clone(),
            thresholds: scenario.thresholds.iter().map(judge).collect(),
            violations: violations.collect(),
            repeat: match outcome.level {
                Level::VirtualTime => format!("alcor-sim run {name} --seed {}", outcome.seed),
                Level::Sockets => format!("cargo xtask sim --sockets {name} --seed {}", outcome.seed),
            },
            figures,
        }
    }

    /// The command that shows what led to an event.
    pub fn replay(&self, event: u64) -> String {
        format!(
            "alcor-sim replay {} --seed {} --event {event}",
            self.scenario, self.seed
        )
    }

    /// The result as one page, compared with an earlier one.
    pub fn html(&self, baseline: Option<&Self>) -> String {
        html::page(self, baseline)
    }

    /// Whether nothing was violated and every threshold is kept.
    pub fn passed(&self) -> bool {
        self.violations.is_empty() && self.thresholds.iter().all(|judged| judged.passed)
    }
}
