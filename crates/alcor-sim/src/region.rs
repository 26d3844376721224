//! A scenario against real processes (level b): a controller and an NCM as in production, each a process of its own; as many agents as the
//! scenario has hosts, with sessions over real sockets and no data plane. Ports are made and changed through the HTTP API, sessions break,
//! processes are killed. At rest each host must have what it needs, computed from the API's replies alone, and the API must say so.
//!
//! Not here: virtual time (`engine`), packets (`cargo xtask sim --namespaces`).

mod api;
mod check;
mod people;
mod processes;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use alcor_model::{Id, Network, Port};
use thiserror::Error;
use tokio::{
    sync::mpsc,
    task::JoinHandle,
    time::{Instant, sleep, sleep_until},
};

use self::{
    api::Api,
    people::{People, What},
    processes::Processes,
};
use crate::{
    clock::Us,
    figures::{Figures, Over},
    outcome::{Level, Outcome, Progress, Violation},
    rng::Rng,
    scenario::Scenario,
    sockets::{self, Fleet, Keeper, Kept, Order, Seen, SimError},
};

/// Hosts are named so, with a number behind.
const PREFIX: &str = "sim";
/// Most hosts: each has a tunnel address of its own.
pub const HOSTS_MAX: u32 = 65_535;
/// What is done here of what not every level does.
const DONE: [&str; 8] = [
    "churn.create_per_s",
    "churn.delete_per_s",
    "churn.update_per_s",
    "churn.migrate_per_s",
    "faults.cut_per_s",
    "faults.ncm_restart_per_s",
    "faults.controller_restart_per_s",
    "faults.outage_s",
];
/// How often it is looked whether all is at rest.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Orders that may wait for one agent.
const ORDERS: usize = 64;
/// Violations that are kept.
const VIOLATIONS_MAX: usize = 50;

/// Where things are.
#[derive(Clone, Debug)]
pub struct Places {
    /// The `alcor` program.
    pub alcor: PathBuf,
    /// Where the processes write their data and logs; it is made, and stays.
    pub folder: PathBuf,
}

/// Why a run could not go on. What is found wrong is no error.
#[derive(Debug, Error)]
pub enum RegionError {
    /// The scenario asks for what only virtual time can do, or for too many hosts.
    #[error("real sockets cannot do what this scenario asks for: {0}")]
    Undone(String),
    /// A process cannot be started.
    #[error("{program} cannot be started; build it first, or say where it is with --alcor")]
    Start {
        /// Which.
        program: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A file or folder cannot be made, or read.
    #[error("{path}")]
    File {
        /// Which.
        path: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The API refused what must be possible.
    #[error("{0} was refused: {1}")]
    Refused(String, String),
    /// Nobody answers at the API.
    #[error("nobody answers {0}")]
    Away(String, #[source] reqwest::Error),
    /// The API's answer is not what it must be.
    #[error("the answer to {0} has no {1}")]
    Answer(String, &'static str),
    /// Something did not come about.
    #[error("waited {0} s in vain until {1}; the logs of the processes are in {2}")]
    Late(u64, String, String),
    /// The hosts stopped.
    #[error("the simulated hosts stopped")]
    Hosts(#[source] SimError),
}

/// Runs a scenario. `told` hears now and then how far it is, and how much memory the NCM has, in MiB.
///
/// # Errors
/// When the scenario asks for what is not done here, or the region cannot be built.
pub async fn run(
    scenario: &Scenario,
    places: &Places,
    told: &mut dyn FnMut(&Progress, f64),
) -> Result<Outcome, RegionError> {
    let mut undone = scenario.asked_for();
    undone.retain(|key| !DONE.contains(key));
    if scenario.hosts.count > HOSTS_MAX {
        undone.push("hosts.count");
    }
    if !undone.is_empty() {
        return Err(RegionError::Undone(undone.join(", ")));
    }
    let mut region = Region::start(scenario, places, told).await?;
    region.build().await?;
    region.rest("at the beginning").await?;
    for round in 1..=scenario.rounds {
        region.churn().await?;
        region.rest(&format!("after round {round}")).await?;
        region.probe(&format!("after round {round}")).await;
        if scenario.faults.outage_s > 0 {
            region.outage(round).await?;
        }
    }
    region.outcome()
}

/// All agents: they end when one cannot go on.
type Agents = JoinHandle<Result<(), SimError>>;

struct Region<'a> {
    scenario: &'a Scenario,
    told: &'a mut dyn FnMut(&Progress, f64),
    rng: Rng,
    began: Instant,
    processes: Processes,
    api: Api,
    people: People,
    kept: Arc<Kept>,
    seen: Arc<Seen>,
    orders: Vec<mpsc::Sender<Order>>,
    agents: Agents,
    /// Networks that a host has had ports in: it may still know of them.
    visited: BTreeMap<u32, BTreeSet<Id<Network>>>,
    /// Ports that are to come to a host, since when, and how large their networks are.
    awaited: Vec<(Id<Port>, u32, Us, u64)>,
    /// The NCM's processor time of its lives that are over, in seconds.
    ncm_cpu_s: f64,
    /// When the NCM died, and how many sessions there will have been when all hosts have one again.
    returning: Option<(Instant, u64)>,
    figures: Figures,
    violations: Vec<Violation>,
}

impl Drop for Region<'_> {
    fn drop(&mut self) {
        self.agents.abort();
    }
}

impl<'a> Region<'a> {
    async fn start(
        scenario: &'a Scenario,
        places: &Places,
        told: &'a mut dyn FnMut(&Progress, f64),
    ) -> Result<Self, RegionError> {
        let mut processes = Processes::new(places, scenario.ncm.eager_rows_max)?;
        processes.start_controller()?;
        let api = Api::new(processes.api())?;
        processes.until_answered(&api, settle(scenario)).await?;
        processes.start_ncm()?;
        let (kept, seen) = (
            Arc::new(Kept::new(scenario.hosts.count)),
            Arc::new(Seen::default()),
        );
        let (orders, agents) = agents(scenario.hosts.count, processes.ncm_url(), &kept, &seen);
        let mut region = Self {
            scenario,
            told,
            rng: Rng::new(scenario.seed),
            began: Instant::now(),
            processes,
            api,
            people: People::default(),
            kept,
            seen,
            orders,
            agents,
            visited: BTreeMap::new(),
            awaited: Vec::new(),
            ncm_cpu_s: 0.0,
            returning: None,
            figures: Figures::default(),
            violations: Vec::new(),
        };
        let hosts = u64::from(scenario.hosts.count);
        let until = Instant::now() + settle(scenario);
        while region.sessions() < hosts {
            region.late(until, "all hosts have a session")?;
            region.look().await?;
        }
        Ok(region)
    }

    fn sessions(&self) -> u64 {
        self.seen.welcomed.load(Ordering::Relaxed)
    }

    fn late(&self, until: Instant, what: &str) -> Result<(), RegionError> {
        if Instant::now() < until {
            return Ok(());
        }
        let waited = settle(self.scenario).as_secs();
        Err(RegionError::Late(
            waited,
            what.to_owned(),
            self.processes.folder(),
        ))
    }

    /// Waits a moment; says how far it is.
    async fn look(&mut self) -> Result<(), RegionError> {
        sleep(LOOK_EVERY).await;
        self.note_returned();
        self.tell();
        if self.agents.is_finished() {
            let ended = (&mut self.agents).await;
            if let Ok(Err(error)) = ended {
                return Err(RegionError::Hosts(error));
            }
        }
        Ok(())
    }

    fn tell(&mut self) {
        let progress = Progress {
            at_us: micros(self.began.elapsed()),
            events: self.api.calls(),
            ports: self.people.ports.len() as u64,
            sessions: self.sessions(),
        };
        (self.told)(&progress, self.processes.ncm_rss_mib().unwrap_or_default());
    }

    fn violate(&mut self, what: String) {
        if self.violations.len() < VIOLATIONS_MAX {
            self.violations.push(Violation {
                event: self.api.calls(),
                at_us: micros(self.began.elapsed()),
                what,
                before: Vec::new(),
            });
        }
    }

    /// Networks and their ports, spread over the hosts.
    async fn build(&mut self) -> Result<(), RegionError> {
        let sizes = self.scenario.network_sizes();
        let projects = self.scenario.networks.projects;
        for (number, size) in sizes.into_iter().enumerate() {
            let project = format!("project-{}", number as u64 % projects);
            let network = self.people.network(&self.api, number, project).await?;
            let batch = self.scenario.networks.load_batch.max(1);
            let mut left = size;
            while left > 0 {
                let count = left.min(batch);
                left -= count;
                let hosts: Vec<u32> = (0..count).map(|_| self.some_host()).collect();
                self.people.ports(&self.api, network, &hosts).await?;
                let id = self.people.networks[network].id;
                hosts.into_iter().for_each(|host| self.visits(host, id));
                self.tell();
            }
        }
        Ok(())
    }

    fn visits(&mut self, host: u32, network: Id<Network>) {
        self.visited.entry(host).or_default().insert(network);
    }

    fn some_host(&mut self) -> u32 {
        let host = self.rng.below(self.scenario.hosts.count.into());
        u32::try_from(host).unwrap_or_default()
    }

    /// What people do and what goes wrong, as often as the scenario says, each at a random time of the round.
    async fn churn(&mut self) -> Result<(), RegionError> {
        let (churn, faults) = (&self.scenario.churn, &self.scenario.faults);
        let rates = [
            (What::Create, churn.create_per_s),
            (What::Delete, churn.delete_per_s),
            (What::Update, churn.update_per_s),
            (What::Migrate, churn.migrate_per_s),
            (What::Cut, faults.cut_per_s),
            (What::KillNcm, faults.ncm_restart_per_s),
            (What::KillController, faults.controller_restart_per_s),
        ];
        let mut arranged = Vec::new();
        for (what, per_s) in rates {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "`as` keeps to the range of a u64"
            )]
            let count = (per_s * self.scenario.duration_s).round() as u64;
            let time = |_| (self.scenario.duration_s * self.rng.unit(), what);
            arranged.extend((0..count).map(time));
        }
        arranged.sort_by(|a, b| a.0.total_cmp(&b.0));
        let began = Instant::now();
        for (at_s, what) in arranged {
            let at = began + Duration::from_secs_f64(at_s);
            while Instant::now() + LOOK_EVERY < at {
                self.look().await?;
            }
            sleep_until(at).await;
            self.note_returned();
            self.one(what).await?;
        }
        Ok(())
    }

    async fn one(&mut self, what: What) -> Result<(), RegionError> {
        self.figures.add(what.name(), 1);
        match what {
            What::Create => {
                let (network, host) = (self.people.some_network(&mut self.rng), self.some_host());
                let began = sockets::now_us();
                let made = self.people.ports(&self.api, network, &[host]).await?;
                self.comes(made, host, began);
            }
            What::Delete => self.people.delete(&self.api, &mut self.rng).await?,
            What::Update => self.people.update(&self.api, &mut self.rng).await?,
            What::Migrate => {
                let (host, began) = (self.some_host(), sockets::now_us());
                let kept = Arc::clone(&self.kept);
                let forget = |port| {
                    let _ = kept.take_arrival(port, host);
                };
                let moved = self
                    .people
                    .migrate(&self.api, &mut self.rng, host, forget)
                    .await?;
                self.comes(moved.into_iter().collect(), host, began);
            }
            What::Cut => {
                let host = self.some_host();
                if let Some(orders) = self.orders.get(host as usize) {
                    // One that is busy with orders is cut another time.
                    let _ = orders.try_send(Order::Cut);
                }
            }
            What::KillNcm => {
                self.kill_ncm().await;
                self.processes.start_ncm()?;
            }
            What::KillController => {
                self.processes.kill_controller().await;
                self.processes.start_controller()?;
                let within = settle(self.scenario);
                self.processes.until_answered(&self.api, within).await?;
            }
        }
        Ok(())
    }

    /// Ports are on their way to a host.
    fn comes(&mut self, ports: Vec<usize>, host: u32, began: Us) {
        for place in ports {
            let port = &self.people.ports[place];
            let network = &self.people.networks[port.network];
            let (id, network, size) = (port.id, network.id, network.size);
            self.awaited.push((id, host, began, size));
            self.visits(host, network);
        }
    }

    async fn kill_ncm(&mut self) {
        self.ncm_cpu_s += self.processes.ncm_cpu_s().unwrap_or_default();
        self.processes.kill_ncm().await;
        let sessions = self.seen.sessions.load(Ordering::Relaxed);
        self.returning = Some((Instant::now(), sessions + u64::from(self.scenario.hosts.count)));
    }

    /// All hosts have a session with an NCM that was started again. Whether they are complete is not asked here: one that passes on what
    /// comes for a port that has left it never is.
    fn note_returned(&mut self) {
        let Some((since, sessions)) = self.returning else {
            return;
        };
        let hosts = u64::from(self.scenario.hosts.count);
        if self.seen.sessions.load(Ordering::Relaxed) >= sessions && self.sessions() >= hosts {
            self.returning = None;
            self.figures.sample(
                Over::ReturnedUs,
                self.scenario.hosts.count.into(),
                micros(since.elapsed()),
            );
        }
    }

    /// Waits until the NCM says that all hosts have what they must have, they do have it, and the API shows all as it is.
    async fn rest(&mut self, when: &str) -> Result<(), RegionError> {
        let until = Instant::now() + settle(self.scenario);
        loop {
            self.look().await?;
            let restless = check::restless(&self.api, self.scenario.hosts.count).await;
            let mut wrong = match restless {
                None => self.compare(),
                Some(why) => vec![why],
            };
            if wrong.is_empty() {
                // What hosts report comes to the API a moment later.
                wrong = self.people.compare_with_api(&self.api).await?;
            }
            if wrong.is_empty() && self.returning.is_none() {
                break;
            }
            if Instant::now() >= until {
                wrong
                    .into_iter()
                    .for_each(|what| self.violate(format!("{when}: {what}")));
                break;
            }
        }
        for what in self.kept.take_broken() {
            self.violate(format!("{when}: {what}"));
        }
        for (port, host, began, size) in std::mem::take(&mut self.awaited) {
            if let Some(at) = self.kept.take_arrival(port, host) {
                self.figures
                    .sample(Over::ProgrammedUs, size, at.saturating_sub(began));
            }
        }
        Ok(())
    }

    /// The controller is away for some time, and every other time the NCM with it: hosts go by what they have.
    async fn outage(&mut self, round: u64) -> Result<(), RegionError> {
        let with_ncm = round.is_multiple_of(2);
        self.processes.kill_controller().await;
        if with_ncm {
            self.kill_ncm().await;
        }
        let until = Instant::now() + Duration::from_secs(self.scenario.faults.outage_s);
        while Instant::now() < until {
            self.look().await?;
            for what in self.compare() {
                self.violate(format!("without a controller: {what}"));
            }
        }
        self.figures.add("outages", 1);
        self.processes.start_controller()?;
        let within = settle(self.scenario);
        self.processes.until_answered(&self.api, within).await?;
        if with_ncm {
            self.processes.start_ncm()?;
        }
        self.rest(&format!("after the outage of round {round}")).await
    }

    fn outcome(mut self) -> Result<Outcome, RegionError> {
        let cpu_s = self.ncm_cpu_s + self.processes.ncm_cpu_s().unwrap_or_default();
        let of = |count: &std::sync::atomic::AtomicU64| count.load(Ordering::Relaxed);
        let totals = [
            ("api_calls", self.api.calls()),
            ("ports", self.people.ports.len() as u64),
            ("sessions", of(&self.seen.sessions)),
            ("deltas", of(&self.seen.deltas)),
            ("rows", of(&self.seen.rows)),
            ("answers", of(&self.seen.answers.all)),
            ("answers_route", of(&self.seen.answers.routes)),
        ];
        totals
            .into_iter()
            .for_each(|(name, total)| self.figures.set(name, total));
        self.figures.add_cpu(Duration::from_secs_f64(cpu_s));
        Ok(Outcome {
            level: Level::Sockets,
            seed: self.scenario.seed,
            events: self.api.calls(),
            virtual_us: micros(self.began.elapsed()),
            last_events: Vec::new(),
            figures: std::mem::take(&mut self.figures),
            violations: std::mem::take(&mut self.violations),
        })
    }
}

/// Agents that keep what they are sent, and where each takes orders.
fn agents(hosts: u32, ncm: String, kept: &Arc<Kept>, seen: &Arc<Seen>) -> (Vec<mpsc::Sender<Order>>, Agents) {
    let (mut orders, mut keepers) = (Vec::new(), Vec::new());
    for host in 0..hosts {
        let (sender, receiver) = mpsc::channel(ORDERS);
        orders.push(sender);
        keepers.push(Some(Keeper {
            kept: Arc::clone(kept),
            host,
            orders: receiver,
        }));
    }
    let fleet = Fleet {
        ncm,
        prefix: PREFIX.to_owned(),
        hosts,
        again: true,
        asking: None,
    };
    let seen = Arc::clone(seen);
    let agents = tokio::spawn(async move {
        let keeper = |host| keepers.get_mut(usize::try_from(host).ok()?)?.take();
        sockets::run_with(&fleet, seen, keeper).await
    });
    (orders, agents)
}

fn settle(scenario: &Scenario) -> Duration {
    Duration::from_secs_f64(scenario.settle_s)
}

fn micros(time: Duration) -> Us {
    Us::try_from(time.as_micros()).unwrap_or(Us::MAX)
}
