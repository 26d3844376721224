//! What a simulation is of: one TOML file. Every number has its unit in its name; what is left out has a default.

use std::{collections::BTreeMap, path::Path};

use serde::Deserialize;
use thiserror::Error;

/// Most hosts of a scenario: each has a tunnel address in 10.0.0.0/8.
pub const HOSTS_MAX: u32 = 4_000_000;
/// Most ports of one network: their addresses are in one IPv4 block of at most /8.
pub const NETWORK_PORTS_MAX: u32 = 8_000_000;

/// Most routers of a scenario: each has blocks of its own behind ports.
pub const ROUTERS_MAX: u32 = 200;
/// Most static routes of a router, as in the region.
pub const ROUTES_MAX: u32 = 30;

/// Most gateways of a scenario: as many as a row names.
pub const GATEWAYS_MAX: u32 = 16;

/// Why a scenario cannot be run.
#[derive(Debug, Error)]
pub enum ScenarioError {
    /// The file cannot be read.
    #[error("{path} cannot be read")]
    Read {
        /// The file.
        path: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// It is not TOML, or not of this form.
    #[error("{path} is not a scenario")]
    Parse {
        /// The file.
        path: String,
        /// Where and why.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// A value makes no sense.
    #[error("{path}: {key} {problem}")]
    Value {
        /// The file.
        path: String,
        /// Which key.
        key: String,
        /// What it must be.
        problem: String,
    },
}

/// The whole file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// What the run is random by; `--seed` overrides it.
    #[serde(default = "one")]
    pub seed: u64,
    /// How often churn and faults are followed by a rest in which everything must become right.
    #[serde(default = "one")]
    pub rounds: u64,
    /// Virtual seconds of churn and faults in a round.
    pub duration_s: f64,
    /// Virtual seconds within which everything must be at rest after a round.
    #[serde(default = "default_settle")]
    pub settle_s: f64,
    /// Hosts.
    pub hosts: Hosts,
    /// Networks.
    pub networks: Networks,
    /// Routers between networks.
    #[serde(default)]
    pub routers: Routers,
    /// Gateways between hosts.
    #[serde(default)]
    pub gateways: Gateways,
    /// What people do.
    #[serde(default)]
    pub churn: Churn,
    /// What virtual machines do.
    #[serde(default)]
    pub traffic: Traffic,
    /// How long things take.
    #[serde(default)]
    pub delays: Delays,
    /// What goes wrong.
    #[serde(default)]
    pub faults: Faults,
    /// The NCM's bounds.
    #[serde(default)]
    pub ncm: NcmBounds,
    /// What figures must be, by name.
    #[serde(default)]
    pub thresholds: BTreeMap<String, Threshold>,
}

/// Hosts.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hosts {
    /// How many.
    pub count: u32,
    /// How many of them have a real agent and a model data plane; the others keep what they are sent and answer.
    #[serde(default)]
    pub full: u32,
    /// Virtual seconds over which they say hello at first.
    #[serde(default = "default_ramp")]
    pub ramp_s: f64,
}

/// Networks and their ports at the beginning. Either `sizes` or `zipf`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Networks {
    /// Ports of each network.
    #[serde(default)]
    pub sizes: Vec<u32>,
    /// Sizes by Zipf's law.
    #[serde(default)]
    pub zipf: Option<ZipfSizes>,
    /// Projects that the networks belong to in turn.
    #[serde(default = "one")]
    pub projects: u64,
    /// Security groups of each project besides the default one.
    #[serde(default = "default_groups")]
    pub groups: u32,
    /// Ports created by one commit at the beginning.
    #[serde(default = "default_load_batch")]
    pub load_batch: u32,
    /// Ports created a virtual second at the beginning.
    #[serde(default = "default_load_rate")]
    pub load_per_s: f64,
}

/// Routers. With any, the networks of one project have blocks of addresses that do not overlap; those of different projects
/// overlap in either case.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Routers {
    /// How many; they belong to the projects in turn.
    pub count: u32,
    /// Networks of its project that each of them joins at the beginning.
    pub networks_each: u32,
    /// Most static routes of each of them, to blocks behind ports.
    pub routes_max: u32,
    /// Share of packets that are sent to a port of another network, of the same project or another one.
    pub traffic_share: f64,
}

/// Gateways: members of one set, each with a real agent and a model data plane. They serve all networks in which hosts ask.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Gateways {
    /// How many.
    pub count: u32,
}

/// The largest network has `ports / H` ports, the n-th `1 / n^exponent` of it.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ZipfSizes {
    /// How many networks.
    pub count: u32,
    /// Ports of all together, roughly: each network has at least one.
    pub ports: u32,
    /// How unequal they are.
    pub exponent: f64,
}

/// What people do, times a virtual second.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Churn {
    /// Ports created.
    pub create_per_s: f64,
    /// Ports deleted.
    pub delete_per_s: f64,
    /// Ports changed: name, groups.
    pub update_per_s: f64,
    /// Ports moved to another host.
    pub migrate_per_s: f64,
    /// Rules of security groups made or deleted.
    pub rules_per_s: f64,
    /// Routers changed: interfaces added and removed, static routes, up and down.
    pub routers_per_s: f64,
    /// Share of created ports that are not bound to a host.
    pub unbound_share: f64,
}

/// What virtual machines do.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Traffic {
    /// Packets between pairs of ports a virtual second.
    pub pairs_per_s: f64,
    /// How unequal ports are in being sent to (Zipf); 0 is equal.
    pub exponent: f64,
    /// Pairs that are tried at each rest and must reach each other.
    pub probes: u32,
}

impl Default for Traffic {
    fn default() -> Self {
        Self {
            pairs_per_s: 0.0,
            exponent: 1.0,
            probes: 50,
        }
    }
}

/// How long things take; each is drawn evenly between two numbers.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Delays {
    /// A message's way between NCM, controller and hosts.
    pub message_us: (u64, u64),
    /// Share of messages that take `slow_us` instead.
    pub slow_share: f64,
    /// The slow ones' way.
    pub slow_us: (u64, u64),
    /// A commit to disk; what comes meanwhile is in the next one.
    pub commit_us: (u64, u64),
    /// A data plane's batch.
    pub apply_us: (u64, u64),
    /// From the API's answer to a virtual machine's device on its host.
    pub plug_us: (u64, u64),
    /// An NCM's or agent's start.
    pub start_us: (u64, u64),
}

impl Default for Delays {
    fn default() -> Self {
        Self {
            message_us: (50, 500),
            slow_share: 0.0,
            slow_us: (10_000, 500_000),
            commit_us: (500, 3_000),
            apply_us: (20, 200),
            plug_us: (1_000, 100_000),
            start_us: (100_000, 1_000_000),
        }
    }
}

/// What goes wrong, times a virtual second of a round's churn; how long it lasts in virtual seconds.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Faults {
    /// A session breaks, with what was on its way.
    pub cut_per_s: f64,
    /// A host loses power and comes back empty.
    pub host_death_per_s: f64,
    /// How long it is away.
    pub host_death_s: (u64, u64),
    /// An agent dies; its data plane stays.
    pub agent_restart_per_s: f64,
    /// A device of a virtual machine goes and comes.
    pub replug_per_s: f64,
    /// The NCM dies.
    pub ncm_restart_per_s: f64,
    /// The NCM dies when it has sent some parts of a snapshot to a host, or got some of the region's snapshot, and not all.
    /// Both happen once in each round as soon as they can, and then one of them so often.
    pub ncm_restart_in_snapshot_per_s: f64,
    /// A session breaks, or a host is cut off, when it has some parts of a snapshot, and not all: as soon as it can in
    /// each round, and then so often.
    pub cut_in_snapshot_per_s: f64,
    /// The controller dies; what it had not committed is gone.
    pub controller_restart_per_s: f64,
    /// How long it is away.
    pub controller_away_s: (u64, u64),
    /// The NCM loses the feed and must take a snapshot.
    pub feed_loss_per_s: f64,
    /// Changes are missing in the feed, and later ones come.
    pub feed_gap_per_s: f64,
    /// A host stops reading what the NCM sends, and goes on sending.
    pub stall_per_s: f64,
    /// How long.
    pub stall_s: (u64, u64),
    /// At the end of a round, at rest, the controller is away for so long, and every other time the NCM with it. What could
    /// reach each other before must do so all the time. 0: no such outage.
    pub outage_s: u64,
    /// A share of the hosts cannot reach the NCM.
    pub partition_per_s: f64,
    /// How long.
    pub partition_s: (u64, u64),
    /// Share of the hosts.
    pub partition_share: f64,
    /// Somebody's clock jumps.
    pub clock_jump_per_s: f64,
    /// How far, either way.
    pub clock_jump_s: u64,
    /// A gateway loses power and comes back empty.
    pub gateway_death_per_s: f64,
    /// How long it is away, or nobody hears its data plane.
    pub gateway_death_s: (u64, u64),
    /// Nobody hears a gateway's data plane; its agent goes on.
    pub gateway_dark_per_s: f64,
    /// An operator drains a gateway, or takes that back.
    pub gateway_drain_per_s: f64,
    /// Agents that lie.
    pub liars: u32,
    /// What each of them tries.
    pub lies_per_s: f64,
    /// Share of their hellos that are in the name of a real host, with a tunnel address of their own.
    pub impersonating_share: f64,
}

impl Faults {
    /// Nothing goes wrong by itself while people are at work.
    pub fn is_none(&self) -> bool {
        let rates = [
            self.cut_per_s,
            self.host_death_per_s,
            self.agent_restart_per_s,
            self.replug_per_s,
            self.ncm_restart_per_s,
            self.ncm_restart_in_snapshot_per_s,
            self.cut_in_snapshot_per_s,
            self.controller_restart_per_s,
            self.feed_loss_per_s,
            self.feed_gap_per_s,
            self.stall_per_s,
            self.partition_per_s,
            self.clock_jump_per_s,
            self.gateway_death_per_s,
            self.gateway_dark_per_s,
            self.gateway_drain_per_s,
        ];
        rates.iter().all(|rate| *rate <= 0.0) && self.liars == 0
    }
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            cut_per_s: 0.0,
            host_death_per_s: 0.0,
            host_death_s: (1, 20),
            agent_restart_per_s: 0.0,
            replug_per_s: 0.0,
            ncm_restart_per_s: 0.0,
            ncm_restart_in_snapshot_per_s: 0.0,
            cut_in_snapshot_per_s: 0.0,
            controller_restart_per_s: 0.0,
            controller_away_s: (1, 10),
            feed_loss_per_s: 0.0,
            feed_gap_per_s: 0.0,
            stall_per_s: 0.0,
            stall_s: (1, 20),
            outage_s: 0,
            partition_per_s: 0.0,
            partition_s: (1, 20),
            partition_share: 0.3,
            clock_jump_per_s: 0.0,
            clock_jump_s: 3_600,
            gateway_death_per_s: 0.0,
            gateway_death_s: (1, 20),
            gateway_dark_per_s: 0.0,
            gateway_drain_per_s: 0.0,
            liars: 0,
            lies_per_s: 1.0,
            impersonating_share: 0.0,
        }
    }
}

/// Bounds of the NCM; what is not given is the NCM's own default.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NcmBounds {
    /// How often agents say that they are there.
    pub heartbeat_ms: Option<u64>,
    /// When a silent host is not alive.
    pub heartbeat_timeout_ms: Option<u64>,
    /// Deltas on their way to one host.
    pub window_deltas: Option<usize>,
    /// Rows waiting for one host.
    pub queue_rows: Option<usize>,
    /// Rows in one message.
    pub message_rows: Option<usize>,
    /// Deletions remembered.
    pub tombstones: Option<usize>,
    /// Hosts times neighbours beyond which hosts ask.
    pub eager_rows_max: Option<usize>,
    /// Rows in one part of the region's feed.
    pub feed_part_rows: Option<usize>,
    /// How long hosts use an answer, and pass on what comes for a port that has left.
    pub lease_ms: Option<u64>,
}

/// What a figure must be.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Threshold {
    /// At most.
    pub max: Option<f64>,
    /// At least.
    pub min: Option<f64>,
}

impl Threshold {
    /// Whether a figure keeps to both bounds; one that was never counted does not.
    pub fn keeps(&self, value: Option<f64>) -> bool {
        value.is_some_and(|value| {
            self.max.is_none_or(|max| value <= max) && self.min.is_none_or(|min| value >= min)
        })
    }
}

const fn one() -> u64 {
    1
}

const fn default_settle() -> f64 {
    180.0
}

const fn default_ramp() -> f64 {
    1.0
}

const fn default_groups() -> u32 {
    2
}

const fn default_load_batch() -> u32 {
    100
}

const fn default_load_rate() -> f64 {
    10_000.0
}

impl Scenario {
    /// Reads a file.
    ///
    /// # Errors
    /// When it cannot be read, is no scenario, or asks for what cannot be.
    pub fn read(path: &Path) -> Result<Self, ScenarioError> {
        let name = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|source| ScenarioError::Read {
            path: name.clone(),
            source,
        })?;
        Self::parse(&name, &text)
    }

    /// Reads a text; `name` is for errors.
    ///
    /// # Errors
    /// As [`Scenario::read`].
    pub fn parse(name: &str, text: &str) -> Result<Self, ScenarioError> {
        let scenario: Self = toml::from_str(text).map_err(|source| ScenarioError::Parse {
            path: name.to_owned(),
            source: Box::new(source),
        })?;
        scenario.check().map_err(|(key, problem)| ScenarioError::Value {
            path: name.to_owned(),
            key: key.to_owned(),
            problem,
        })?;
        Ok(scenario)
    }

    fn check(&self) -> Result<(), (&'static str, String)> {
        let must = |holds: bool, key: &'static str, problem: &str| match holds {
            true => Ok(()),
            false => Err((key, problem.to_owned())),
        };
        let finite = |value: f64| value.is_finite() && value >= 0.0;
        let share = |value: f64| (0.0..=1.0).contains(&value);
        must(
            (1..=HOSTS_MAX).contains(&self.hosts.count),
            "hosts.count",
            "must be 1 to 4,000,000",
        )?;
        must(
            self.hosts.full <= self.hosts.count,
            "hosts.full",
            "must not be more than hosts.count",
        )?;
        must(
            self.duration_s.is_finite() && self.duration_s > 0.0,
            "duration_s",
            "must be more than 0",
        )?;
        must(
            self.settle_s.is_finite() && self.settle_s > 0.0,
            "settle_s",
            "must be more than 0",
        )?;
        must(self.rounds > 0, "rounds", "must be at least 1")?;
        must(finite(self.hosts.ramp_s), "hosts.ramp_s", "must be 0 or more")?;
        must(
            self.networks.sizes.is_empty() == self.networks.zipf.is_some(),
            "networks",
            "needs either sizes or zipf",
        )?;
        if let Some(zipf) = &self.networks.zipf {
            must(zipf.count > 0, "networks.zipf.count", "must be at least 1")?;
            must(
                finite(zipf.exponent),
                "networks.zipf.exponent",
                "must be 0 or more",
            )?;
        }
        must(
            self.network_sizes().iter().all(|size| *size <= NETWORK_PORTS_MAX),
            "networks",
            "may have at most 8,000,000 ports in one network",
        )?;
        must(
            self.networks.projects > 0,
            "networks.projects",
            "must be at least 1",
        )?;
        must(
            self.networks.load_batch > 0,
            "networks.load_batch",
            "must be at least 1",
        )?;
        must(
            self.networks.load_per_s > 0.0,
            "networks.load_per_s",
            "must be more than 0",
        )?;
        for (key, rate) in self.rates() {
            must(finite(rate), key, "must be a number of times a second, 0 or more")?;
        }
        must(
            share(self.churn.unbound_share),
            "churn.unbound_share",
            "must be 0 to 1",
        )?;
        must(
            share(self.routers.traffic_share),
            "routers.traffic_share",
            "must be 0 to 1",
        )?;
        must(
            self.routers.count <= ROUTERS_MAX && self.routers.routes_max <= ROUTES_MAX,
            "routers",
            "may be at most 200, with at most 30 routes each",
        )?;
        must(
            self.gateways.count <= GATEWAYS_MAX,
            "gateways.count",
            "may be at most 16",
        )?;
        must(
            share(self.delays.slow_share),
            "delays.slow_share",
            "must be 0 to 1",
        )?;
        must(
            share(self.faults.impersonating_share),
            "faults.impersonating_share",
            "must be 0 to 1",
        )?;
        must(
            share(self.faults.partition_share),
            "faults.partition_share",
            "must be 0 to 1",
        )?;
        must(
            self.thresholds
                .values()
                .all(|threshold| threshold.max.is_some() || threshold.min.is_some()),
            "thresholds",
            "need max, min or both",
        )
    }

    /// How often things happen or go wrong, times a second, by key.
    pub fn rates(&self) -> [(&'static str, f64); 24] {
        let (churn, faults) = (&self.churn, &self.faults);
        [
            ("churn.create_per_s", churn.create_per_s),
            ("churn.delete_per_s", churn.delete_per_s),
            ("churn.update_per_s", churn.update_per_s),
            ("churn.migrate_per_s", churn.migrate_per_s),
            ("churn.rules_per_s", churn.rules_per_s),
            ("churn.routers_per_s", churn.routers_per_s),
            ("traffic.pairs_per_s", self.traffic.pairs_per_s),
            ("faults.cut_per_s", faults.cut_per_s),
            ("faults.host_death_per_s", faults.host_death_per_s),
            ("faults.agent_restart_per_s", faults.agent_restart_per_s),
            ("faults.replug_per_s", faults.replug_per_s),
            ("faults.ncm_restart_per_s", faults.ncm_restart_per_s),
            (
                "faults.ncm_restart_in_snapshot_per_s",
                faults.ncm_restart_in_snapshot_per_s,
            ),
            ("faults.cut_in_snapshot_per_s", faults.cut_in_snapshot_per_s),
            ("faults.controller_restart_per_s", faults.controller_restart_per_s),
            ("faults.feed_loss_per_s", faults.feed_loss_per_s),
            ("faults.feed_gap_per_s", faults.feed_gap_per_s),
            ("faults.stall_per_s", faults.stall_per_s),
            ("faults.partition_per_s", faults.partition_per_s),
            ("faults.clock_jump_per_s", faults.clock_jump_per_s),
            ("faults.gateway_death_per_s", faults.gateway_death_per_s),
            ("faults.gateway_dark_per_s", faults.gateway_dark_per_s),
            ("faults.gateway_drain_per_s", faults.gateway_drain_per_s),
            ("faults.lies_per_s", faults.lies_per_s),
        ]
    }

    /// What the scenario asks for that not every level can do, as keys of the file. Lies are told by liars only.
    pub fn asked_for(&self) -> Vec<&'static str> {
        let (faults, ncm) = (&self.faults, &self.ncm);
        let told = |key: &str| key != "faults.lies_per_s" || faults.liars > 0;
        let rates = self.rates().into_iter();
        let rates = rates.map(|(key, rate)| (key, rate > 0.0 && told(key)));
        let others = [
            ("hosts.full", self.hosts.full > 0),
            ("routers.count", self.routers.count > 0),
            ("gateways.count", self.gateways.count > 0),
            ("churn.unbound_share", self.churn.unbound_share > 0.0),
            ("delays.slow_share", self.delays.slow_share > 0.0),
            ("faults.outage_s", faults.outage_s > 0),
            ("faults.liars", faults.liars > 0),
            ("ncm.heartbeat_ms", ncm.heartbeat_ms.is_some()),
            ("ncm.heartbeat_timeout_ms", ncm.heartbeat_timeout_ms.is_some()),
            ("ncm.window_deltas", ncm.window_deltas.is_some()),
            ("ncm.queue_rows", ncm.queue_rows.is_some()),
            ("ncm.message_rows", ncm.message_rows.is_some()),
            ("ncm.tombstones", ncm.tombstones.is_some()),
            ("ncm.feed_part_rows", ncm.feed_part_rows.is_some()),
            ("ncm.lease_ms", ncm.lease_ms.is_some()),
        ];
        let asked = rates.chain(others).filter(|(_, asked)| *asked);
        asked.map(|(key, _)| key).collect()
    }

    /// Ports of each network at the beginning.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share of a u32 is one"
    )]
    pub fn network_sizes(&self) -> Vec<u32> {
        let Some(zipf) = self.networks.zipf else {
            return self.networks.sizes.clone();
        };
        let weight = |rank: u32| f64::from(rank).powf(-zipf.exponent);
        let all: f64 = (1..=zipf.count).map(weight).sum();
        (1..=zipf.count)
            .map(|rank| ((f64::from(zipf.ports) * weight(rank) / all).round() as u32).max(1))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;

    const SMALLEST: &str = "duration_s = 1\n[hosts]\ncount = 2\n[networks]\nsizes = [3]\n";

    #[test]
    fn the_smallest_scenario_has_defaults_for_the_rest() {
        let scenario = Scenario::parse("x", SMALLEST).unwrap();
        assert_eq!((scenario.seed, scenario.rounds, scenario.hosts.full), (1, 1, 0));
        assert_eq!(scenario.network_sizes(), [3]);
    }

    #[test]
    fn a_figure_that_was_not_counted_keeps_to_no_threshold() {
        let (least, most) = (Some(2.0), Some(3.0));
        let both = Threshold {
            max: most,
            min: least,
        };
        assert!(both.keeps(Some(2.0)) && both.keeps(Some(3.0)));
        assert!(!both.keeps(Some(1.9)) && !both.keeps(Some(3.1)));
        let zero = Threshold {
            max: Some(0.0),
            min: None,
        };
        assert!(!zero.keeps(None));
    }

    #[test]
    fn sizes_by_zipf_s_law() {
        let text = "duration_s = 1\nhosts = { count = 2 }\nnetworks = { zipf = { count = 3, ports = 110, exponent = 1.0 } }";
        assert_eq!(Scenario::parse("x", text).unwrap().network_sizes(), [60, 30, 20]);
    }

    #[test]
    fn errors_say_where_and_what() {
        let error = |text: &str| {
            let error = Scenario::parse("s.toml", text).unwrap_err();
            let cause = error.source().map(ToString::to_string).unwrap_or_default();
            format!("{error} {cause}")
        };
        assert!(error(&SMALLEST.replace("count = 2", "count = 0")).contains("hosts.count must be 1 to"));
        assert!(error(&SMALLEST.replace("sizes = [3]", "")).contains("networks needs either sizes or zipf"));
        assert!(
            error(&format!("{SMALLEST}[churn]\ncreate_per_s = -1")).contains("churn.create_per_s must be")
        );
        assert!(error(&format!("sead = 3\n{SMALLEST}")).contains("unknown field `sead`"));
    }
}
