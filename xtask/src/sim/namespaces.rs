//! A scenario with real packets: hosts are namespaces with an agent and the eBPF data plane, virtual machines are
//! namespaces behind their ports, the controller is the real process. What may reach what is computed from the
//! scenario, and checked by pings and TCP connections between sampled pairs after each round of changes.
//!
//! Not here: virtual time and a million of anything (`alcor-sim run`), agents without data planes (`alcor-sim sockets`).

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    thread,
    time::Duration,
};

use alcor_lab::{Namespace, eventually, plug, run};
use alcor_scenario::{Rng, Scenario};
use serde_json::{Value, json};

use super::probe::{Answer, Probe};
use crate::cloud::{Build, Cloud, Host, clean_hosts, device, text};

const LAB: &str = "sim";
/// Hosts of one machine: each has an agent, a wire and pinned maps.
const HOSTS_MAX: u8 = 32;
/// Virtual machines: each is a namespace.
const GUESTS_MAX: u32 = 256;
/// Probes that wait at the same time.
const AT_ONCE: usize = 32;
/// Where the first of them listens; the others behind it.
const FIRST_PORT: u16 = 10_000;
/// What is done here of what not every level does.
const DONE: [&str; 6] = [
    "churn.create_per_s",
    "churn.delete_per_s",
    "churn.update_per_s",
    "churn.migrate_per_s",
    "faults.agent_restart_per_s",
    "faults.controller_restart_per_s",
];
/// How long hosts may take to have everything in force after a round.
const SETTLE: Duration = Duration::from_secs(60);

/// What a run has found.
#[derive(Debug, Default)]
pub struct Findings {
    /// Pairs that were tried.
    pub probes: u64,
    /// Those that reached each other, as they should.
    pub reached: u64,
    /// Those that did not, as they should not.
    pub refused: u64,
    /// Changes made, by what they were.
    pub changes: BTreeMap<Change, u64>,
    /// What was not as it should be, for people.
    pub wrong: Vec<String>,
}

/// A kind of change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// A port and its virtual machine come.
    Created,
    /// They go.
    Deleted,
    /// They move to another host.
    Migrated,
    /// The port gets another security group.
    Regrouped,
    /// An agent is killed and starts again.
    AgentKilled,
    /// The controller is killed and starts again.
    ControllerKilled,
}

impl Change {
    const ALL: [Self; 6] = [
        Self::Created,
        Self::Deleted,
        Self::Migrated,
        Self::Regrouped,
        Self::AgentKilled,
        Self::ControllerKilled,
    ];

    /// As in findings and thresholds.
    const fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Deleted => "deleted",
            Self::Migrated => "migrated",
            Self::Regrouped => "regrouped",
            Self::AgentKilled => "agents_killed",
            Self::ControllerKilled => "controllers_killed",
        }
    }

    const fn per_s(self, scenario: &Scenario) -> f64 {
        let (churn, faults) = (&scenario.churn, &scenario.faults);
        match self {
            Self::Created => churn.create_per_s,
            Self::Deleted => churn.delete_per_s,
            Self::Migrated => churn.migrate_per_s,
            Self::Regrouped => churn.update_per_s,
            Self::AgentKilled => faults.agent_restart_per_s,
            Self::ControllerKilled => faults.controller_restart_per_s,
        }
    }
}

impl Findings {
    fn made(&mut self, change: Change) {
        *self.changes.entry(change).or_default() += 1;
    }

    /// All kinds of changes, with how many there were.
    fn counts(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let count = |change: Change| self.changes.get(&change).copied().unwrap_or_default();
        Change::ALL
            .into_iter()
            .map(move |change| (change.name(), count(change)))
    }

    /// What the scenario's thresholds ask for and was not found. Without a probe nothing was shown.
    pub fn missed(&self, scenario: &Scenario) -> Vec<String> {
        let figures = [
            ("probes", self.probes),
            ("reached", self.reached),
            ("refused", self.refused),
            ("wrong", self.wrong.len() as u64),
        ];
        let figures: BTreeMap<_, _> = figures.into_iter().chain(self.counts()).collect();
        let missed = scenario.thresholds.iter().filter_map(|(name, threshold)| {
            let count = figures.get(name.as_str()).copied();
            // Counts of one run are small.
            let value = count.map(|count| f64::from(u32::try_from(count).unwrap_or(u32::MAX)));
            (!threshold.keeps(value)).then(|| format!("{name} is {count:?}, and must keep to {threshold:?}"))
        });
        let nothing = (self.probes == 0).then(|| "nothing was probed".to_owned());
        missed.chain(nothing).collect()
    }

    /// For programs.
    pub fn json(&self, seed: u64) -> Value {
        let changes = self.counts().map(|(name, count)| (name.to_owned(), json!(count)));
        let changes: serde_json::Map<_, _> = changes.collect();
        json!({"seed": seed, "probes": self.probes, "reached": self.reached, "refused": self.refused, "changes": changes, "wrong": self.wrong})
    }
}

/// A virtual machine with its port.
struct Guest {
    port: String,
    ip: String,
    network: usize,
    host: usize,
    vm: Namespace,
    /// It is under its project's default group; else under none, which lets nothing through.
    grouped: bool,
}

struct Network {
    id: String,
    project: String,
    gateway: String,
}

struct World<'a> {
    scenario: &'a Scenario,
    rng: Rng,
    cloud: Cloud,
    hosts: Vec<Host>,
    networks: Vec<Network>,
    guests: Vec<Guest>,
    made: u64,
    findings: Findings,
}

/// Runs a scenario: its hosts, networks and ports; then as many changes as its rates say for its duration, followed by
/// probes, as many times as it has rounds.
///
/// # Errors
/// When the scenario is too large for namespaces or asks for what they cannot do, or something cannot be made. What is found wrong is no error here.
pub fn simulate(scenario: &Scenario, seed: u64, build: Build) -> anyhow::Result<Findings> {
    let ports: u32 = scenario.network_sizes().iter().sum();
    anyhow::ensure!(
        scenario.hosts.count <= u32::from(HOSTS_MAX) && ports <= GUESTS_MAX,
        "namespaces are good for {HOSTS_MAX} hosts and {GUESTS_MAX} ports; this scenario has {} and {ports}",
        scenario.hosts.count
    );
    let undone = undone(scenario);
    anyhow::ensure!(
        undone.is_empty(),
        "namespaces cannot do what this scenario asks for: {}",
        undone.join(", ")
    );
    clean_hosts(LAB, HOSTS_MAX)?;
    let eager = scenario.ncm.eager_rows_max;
    let configuration = eager.map(|rows| format!("[ncm]\neager_rows_max = {rows}\n"));
    let cloud = Cloud::start_with(LAB, build, &configuration.unwrap_or_default())?;
    let mut world = World {
        scenario,
        rng: Rng::new(seed),
        cloud,
        hosts: Vec::new(),
        networks: Vec::new(),
        guests: Vec::new(),
        made: 0,
        findings: Findings::default(),
    };
    let outcome = world.play();
    let findings = std::mem::take(&mut world.findings);
    for host in &mut world.hosts {
        host.agent.stop();
    }
    drop(world);
    clean_hosts(LAB, HOSTS_MAX)?;
    outcome.map(|()| findings)
}

/// What a scenario asks for and other levels do.
fn undone(scenario: &Scenario) -> Vec<&'static str> {
    let asked = scenario.asked_for().into_iter();
    asked.filter(|key| !DONE.contains(key)).collect()
}

impl World<'_> {
    fn play(&mut self) -> anyhow::Result<()> {
        let rounds = self.scenario.rounds;
        let bar = indicatif::ProgressBar::new(rounds + 1).with_style(
            indicatif::ProgressStyle::with_template("{prefix:>14} {bar:40} {pos}/{len} {msg}")?,
        );
        bar.set_prefix("namespaces");
        bar.set_message("hosts and ports");
        self.build()?;
        self.probe()?;
        for round in 1..=rounds {
            bar.inc(1);
            bar.set_message(format!("round {round}: changes"));
            self.churn()?;
            bar.set_message(format!("round {round}: probes"));
            self.settle()?;
            self.probe()?;
        }
        bar.finish_with_message(format!("{} probes", self.findings.probes));
        Ok(())
    }

    fn build(&mut self) -> anyhow::Result<()> {
        for number in 1..=self.scenario.hosts.count {
            self.hosts.push(self.cloud.host(u8::try_from(number)?)?);
        }
        for (number, size) in self.scenario.network_sizes().into_iter().enumerate() {
            let project = format!("sim-{}", number as u64 % self.scenario.networks.projects);
            let network = json!({"network": {"name": format!("n{number}"), "project_id": project}});
            let id = text(&self.cloud.api.post("/v2.0/networks", &network)?["network"]["id"])?.to_owned();
            // The same block in every network: nothing but the network may keep them apart.
            let subnet = json!({"subnet": {"network_id": id, "ip_version": 4, "cidr": "10.0.0.0/16", "project_id": project}});
            let subnet = self.cloud.api.post("/v2.0/subnets", &subnet)?;
            let gateway = text(&subnet["subnet"]["gateway_ip"])?.to_owned();
            self.networks.push(Network { id, project, gateway });
            for _ in 0..size {
                self.create(number)?;
            }
        }
        self.settle()
    }

    fn create(&mut self, network: usize) -> anyhow::Result<()> {
        let host = self.rng.place(self.hosts.len());
        let there = &self.networks[network];
        let body = json!({"port": {"network_id": there.id, "project_id": there.project, "binding:host_id": self.hosts[host].name}});
        let port = self.cloud.api.post("/v2.0/ports", &body)?["port"].take();
        let ip = text(&port["fixed_ips"][0]["ip_address"])?.to_owned();
        self.made += 1;
        let vm = self
            .cloud
            .plug(&self.hosts[host], &format!("g{}", self.made), &port)?;
        let guest = Guest {
            port: text(&port["id"])?.to_owned(),
            ip,
            network,
            host,
            vm,
            grouped: true,
        };
        configure(&guest, &there.gateway)?;
        self.guests.push(guest);
        self.findings.made(Change::Created);
        Ok(())
    }

    fn delete(&mut self, which: usize) -> anyhow::Result<()> {
        let guest = self.guests.swap_remove(which);
        self.cloud.api.delete(&format!("/v2.0/ports/{}", guest.port))?;
        run("ip", &["netns", "del", guest.vm.name()])?;
        self.findings.made(Change::Deleted);
        Ok(())
    }

    /// As a live migration ends: the port is bound to the other host, and its device appears there.
    fn migrate(&mut self, which: usize) -> anyhow::Result<()> {
        let guest = &mut self.guests[which];
        guest.host = (guest.host + 1 + self.rng.place(self.hosts.len().saturating_sub(1))) % self.hosts.len();
        let (host, path) = (&self.hosts[guest.host], format!("/v2.0/ports/{}", guest.port));
        let body = json!({"port": {"binding:host_id": host.name}});
        let port = self.cloud.api.put(&path, &body)?["port"].take();
        guest.vm.ip(&["link", "del", "eth0"])?;
        plug(
            &guest.vm,
            &host.namespace,
            &device(&guest.port),
            text(&port["mac_address"])?,
        )?;
        configure(guest, &self.networks[guest.network].gateway)?;
        self.findings.made(Change::Migrated);
        Ok(())
    }

    fn regroup(&mut self, which: usize) -> anyhow::Result<()> {
        let guest = &mut self.guests[which];
        let project = &self.networks[guest.network].project;
        guest.grouped = !guest.grouped;
        let groups = match guest.grouped {
            true => {
                let path = format!("/v2.0/security-groups?name=default&project_id={project}");
                let found = self.cloud.api.get(&path)?;
                json!([text(&found["security_groups"][0]["id"])?])
            }
            false => json!([]),
        };
        let body = json!({"port": {"security_groups": groups}});
        self.cloud
            .api
            .put(&format!("/v2.0/ports/{}", guest.port), &body)?;
        self.findings.made(Change::Regrouped);
        Ok(())
    }

    /// As many of each kind as the rates say for the scenario's duration, in random order.
    fn churn(&mut self) -> anyhow::Result<()> {
        let mut steps = Vec::new();
        for change in Change::ALL {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "rates are small and not negative"
            )]
            let count = (change.per_s(self.scenario) * self.scenario.duration_s).round() as usize;
            steps.extend(std::iter::repeat_n(change, count));
        }
        while !steps.is_empty() {
            let change = steps.swap_remove(self.rng.place(steps.len()));
            self.change(change)?;
        }
        Ok(())
    }

    fn change(&mut self, change: Change) -> anyhow::Result<()> {
        let which = self.rng.place(self.guests.len());
        let full = self.guests.len() >= GUESTS_MAX as usize;
        match change {
            Change::Created if full => Ok(()),
            Change::Created => {
                let network = self.rng.place(self.networks.len());
                self.create(network)
            }
            Change::AgentKilled => {
                let host = self.rng.place(self.hosts.len());
                self.findings.made(Change::AgentKilled);
                self.cloud.restart_agent(&mut self.hosts[host])
            }
            Change::ControllerKilled => {
                self.findings.made(Change::ControllerKilled);
                self.cloud.restart_controller()
            }
            Change::Deleted | Change::Migrated | Change::Regrouped if self.guests.is_empty() => Ok(()),
            Change::Deleted => self.delete(which),
            Change::Migrated => self.migrate(which),
            Change::Regrouped => self.regroup(which),
        }
    }

    /// Until every host is there and has everything that it must have.
    fn settle(&self) -> anyhow::Result<()> {
        for guest in &self.guests {
            self.cloud.wait_active(&guest.port)?;
        }
        for host in &self.hosts {
            eventually(&format!("{} to be in step", host.name), SETTLE, || {
                let state = self.cloud.api.get(&format!("/alcor/v1/hosts/{}", host.name));
                let state = state.map_err(|error| format!("{error:#}"))?;
                match state["alive"] == true && state["pending"] == 0 && state["errors"] == 0 {
                    true => Ok(()),
                    false => Err(state.to_string()),
                }
            })?;
        }
        Ok(())
    }

    /// Whether packets of one may reach the other: both under the default group of one project, in one network.
    fn may_reach(&self, from: usize, to: usize) -> bool {
        let (from, to) = (&self.guests[from], &self.guests[to]);
        from.network == to.network && from.grouped && to.grouped
    }

    fn probe(&mut self) -> anyhow::Result<()> {
        let mut pairs = BTreeSet::new();
        for _ in 0..self.scenario.traffic.probes {
            let (from, to) = (
                self.rng.place(self.guests.len()),
                self.rng.place(self.guests.len()),
            );
            let address = |which: usize| self.guests.get(which).map(|guest| &guest.ip);
            // An own address is never sent to.
            if address(from) != address(to) {
                pairs.insert((from, to));
            }
        }
        let pairs: Vec<_> = pairs.into_iter().collect();
        for batch in pairs.chunks(AT_ONCE) {
            let asked: Vec<_> = (FIRST_PORT..)
                .zip(batch)
                .map(|(port, (from, to))| self.asked(*from, *to, port))
                .collect::<anyhow::Result<_>>()?;
            let answers: Vec<anyhow::Result<Answer>> = thread::scope(|scope| {
                let running: Vec<_> = asked.iter().map(|probe| scope.spawn(|| probe.run())).collect();
                let ended = running.into_iter().map(thread::ScopedJoinHandle::join);
                ended
                    .map(|ended| ended.unwrap_or_else(|_| Err(anyhow::anyhow!("a probe panicked"))))
                    .collect()
            });
            for ((from, to), answer) in batch.iter().zip(answers) {
                self.note(*from, *to, answer?);
            }
        }
        Ok(())
    }

    fn asked(&self, from: usize, to: usize, port: u16) -> anyhow::Result<Probe> {
        let (sender, receiver) = (&self.guests[from], &self.guests[to]);
        let may = self.may_reach(from, to);
        Ok(Probe {
            from: sender.vm.clone(),
            to: receiver.vm.clone(),
            address: SocketAddr::new(receiver.ip.parse()?, port),
            patience: Duration::from_secs(if may { 5 } else { 1 }),
            ping: may,
        })
    }

    fn note(&mut self, from: usize, to: usize, answer: Answer) {
        let may = self.may_reach(from, to);
        self.findings.probes += 1;
        match (answer, may) {
            (Answer::Reached, true) => self.findings.reached += 1,
            (Answer::NoConnection, false) => self.findings.refused += 1,
            (answer, _) => {
                let must = if may { "must reach" } else { "must not reach" };
                let (from, to) = (self.name(from), self.name(to));
                self.findings
                    .wrong
                    .push(format!("{from} {must} {to}: {answer:?}"));
            }
        }
    }

    fn name(&self, which: usize) -> String {
        let guest = &self.guests[which];
        let group = if guest.grouped { "default" } else { "no group" };
        let host = &self.hosts[guest.host].name;
        format!(
            "{} ({} on {host} in network {}, {group})",
            guest.ip, guest.port, guest.network
        )
    }
}

fn configure(guest: &Guest, gateway: &str) -> anyhow::Result<()> {
    guest
        .vm
        .ip(&["addr", "add", &format!("{}/16", guest.ip), "dev", "eth0"])?;
    guest.vm.ip(&["link", "set", "eth0", "mtu", "1450"])?;
    guest.vm.ip(&["route", "add", "default", "via", gateway])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scenario(name: &str) -> Scenario {
        let path = crate::shell::root().join("scenarios").join(name);
        Scenario::read(&path).unwrap()
    }

    #[test]
    fn a_scenario_is_refused_for_what_namespaces_cannot_do() {
        assert_eq!(undone(&scenario("namespaces.toml")), [""; 0]);
        let undone = undone(&scenario("faults.toml"));
        for key in [
            "faults.cut_per_s",
            "faults.liars",
            "traffic.pairs_per_s",
            "churn.rules_per_s",
            "ncm.queue_rows",
        ] {
            assert!(undone.contains(&key), "{key} in {undone:?}");
        }
        assert!(!undone.contains(&"churn.migrate_per_s"));
    }

    #[test]
    fn a_run_without_probes_does_not_pass() {
        let mut scenario = scenario("namespaces.toml");
        let mut findings = Findings::default();
        let missed = findings.missed(&scenario);
        assert!(
            missed
                .iter()
                .any(|missed| missed.starts_with("reached is Some(0)")),
            "{missed:?}"
        );
        scenario.thresholds.clear();
        assert_eq!(findings.missed(&scenario), ["nothing was probed"]);
        findings.probes = 1;
        assert_eq!(findings.missed(&scenario), [""; 0]);
    }
}
