//! What a run counts: totals, and distributions over the size of the network that a change was in. Everything but CPU
//! time is the same in every run of a seed.

use std::{collections::BTreeMap, time::Duration};

use alcor_ncm::Work;
use alcor_southbound::convert::resolve::{Answer, Verdict};
use serde::Serialize;

use crate::clock::Us;

/// Values that are kept of each distribution; later ones take the place of earlier ones in turn.
const SAMPLES_MAX: usize = 100_000;

/// Values of one kind.
#[derive(Clone, Debug, Default)]
pub struct Samples {
    values: Vec<u64>,
    count: u64,
    max: u64,
}

impl Samples {
    fn add(&mut self, value: u64) {
        let place = usize::try_from(self.count).unwrap_or_default() % SAMPLES_MAX;
        match self.values.get_mut(place) {
            Some(old) => *old = value,
            None => self.values.push(value),
        }
        self.count += 1;
        self.max = self.max.max(value);
    }

    /// Percentiles.
    pub fn summary(&self) -> Summary {
        let mut sorted = self.values.clone();
        sorted.sort_unstable();
        Summary {
            count: self.count,
            p50: quantile(&sorted, 0.5),
            p90: quantile(&sorted, 0.9),
            p99: quantile(&sorted, 0.99),
            max: self.max,
        }
    }
}

/// The value that this share of the others are not above; 0 when there are none.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "there are at most SAMPLES_MAX values"
)]
fn quantile(sorted: &[u64], share: f64) -> u64 {
    let last = sorted.len().saturating_sub(1);
    let place = (last as f64 * share).round() as usize;
    sorted.get(place).copied().unwrap_or_default()
}

/// Percentiles of a distribution.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, serde::Deserialize)]
pub struct Summary {
    /// How many values.
    pub count: u64,
    /// Half of them are not above.
    pub p50: u64,
    /// Nine of ten are not above.
    pub p90: u64,
    /// 99 of 100 are not above.
    pub p99: u64,
    /// The largest.
    pub max: u64,
}

/// What is measured over the size of networks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Over {
    /// Virtual microseconds from a command to its port's row in force on its host.
    ProgrammedUs,
    /// Virtual microseconds from a command to its port being ACTIVE.
    ActiveUs,
    /// Hosts that were told of one change of a port.
    HostsPerChange,
    /// Rows that were sent for one change of a port.
    RowsPerChange,
    /// Rows that were looked at for one change of a port.
    LookedAtPerChange,
    /// CPU nanoseconds of the NCM for one change of a port, on this machine.
    CpuNsPerChange,
    /// Learned entries on a host.
    LearnedPerHost,
    /// Virtual microseconds from a gateway's failure until no host sends to it.
    FailoverUs,
    /// Microseconds from the death of an NCM, which was started again, until all hosts had a session again; over the number of hosts.
    ReturnedUs,
}

/// Everything that is counted.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    totals: BTreeMap<String, u64>,
    over_size: BTreeMap<(Over, u64), Samples>,
    all: BTreeMap<Over, Samples>,
    cpu: Duration,
    asking: Duration,
}

/// Sizes are told apart by their power of ten.
fn bucket(size: u64) -> u64 {
    10u64.pow(size.max(1).ilog10())
}

impl Figures {
    pub(crate) fn add(&mut self, name: &str, count: u64) {
        match self.totals.get_mut(name) {
            Some(total) => *total += count,
            None => drop(self.totals.insert(name.to_owned(), count)),
        }
    }

    pub(crate) fn set(&mut self, name: &str, value: u64) {
        self.totals.insert(name.to_owned(), value);
    }

    pub(crate) fn sample(&mut self, over: Over, size: u64, value: u64) {
        self.over_size.entry((over, bucket(size))).or_default().add(value);
        self.all.entry(over).or_default().add(value);
    }

    /// A step of the NCM; `change` is the size of the network if it was about one port.
    pub(crate) fn step(&mut self, work: &Work, cpu: Duration, change: Option<u64>) {
        self.cpu += cpu;
        self.add("ncm_steps", 1);
        self.add("rows_looked_at", work.rows_looked_at);
        self.add("rows_sent", work.rows_sent);
        self.add("bytes_sent", work.bytes);
        self.add("resyncs", work.resyncs);
        self.add("receipts", work.receipts);
        self.add("learners_told", work.learners_told);
        self.add("network_switches", work.switches);
        self.add("rows_refused", work.refused);
        let Some(size) = change else { return };
        self.sample(Over::HostsPerChange, size, work.hosts_touched);
        self.sample(Over::RowsPerChange, size, work.rows_sent);
        self.sample(Over::LookedAtPerChange, size, work.rows_looked_at);
        let ns = u64::try_from(cpu.as_nanos()).unwrap_or(u64::MAX);
        self.sample(Over::CpuNsPerChange, size, ns);
    }

    /// The NCM has used so much of a processor, besides its steps that were told.
    pub(crate) fn add_cpu(&mut self, cpu: Duration) {
        self.cpu += cpu;
    }

    /// Questions were answered.
    pub(crate) fn asked(&mut self, answers: &[Answer], cpu: Duration) {
        self.asking += cpu;
        for answer in answers {
            let name = match answer.verdict {
                Verdict::Route(..) => "answers_route",
                Verdict::Unknown => "answers_unknown",
                Verdict::Deny => "answers_deny",
                Verdict::Busy => "answers_busy",
            };
            self.add(name, 1);
        }
    }

    pub(crate) fn active(&mut self, size: u64, us: Us) {
        self.sample(Over::ActiveUs, size, us);
    }

    pub(crate) fn programmed(&mut self, size: u64, us: Us) {
        self.sample(Over::ProgrammedUs, size, us);
    }

    /// CPU time of all steps of the NCM.
    pub const fn cpu(&self) -> Duration {
        self.cpu
    }

    /// CPU time of all answers.
    pub const fn asking_cpu(&self) -> Duration {
        self.asking
    }

    /// Totals by name.
    pub const fn totals(&self) -> &BTreeMap<String, u64> {
        &self.totals
    }

    /// Distributions over all sizes.
    pub fn all(&self) -> impl Iterator<Item = (Over, Summary)> {
        self.all.iter().map(|(over, samples)| (*over, samples.summary()))
    }

    /// Distributions by size of the network, which is a power of ten.
    pub fn over_size(&self) -> impl Iterator<Item = (Over, u64, Summary)> {
        let each = self.over_size.iter();
        each.map(|((over, size), samples)| (*over, *size, samples.summary()))
    }
}
