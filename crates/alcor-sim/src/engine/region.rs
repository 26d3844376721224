//! The controller's process: commands run deciders, commits make them durable and answer, the feed goes out; and the
//! ledger of what was answered, which must be there after whatever happens.

use std::collections::BTreeMap;

use alcor_model::{Change, Id, Network, Port, PortRuntime, Resource, Revision, resource::PortStatus};
use alcor_proto::v1;
use alcor_region::{command, host, host_runtime, label, port_runtime};
use alcor_southbound::convert::decode_id;

use super::{Event, Sim, churn::Done, ncm::Waiting};
use crate::{clock::Us, host as hosts};

/// What the API answered and what hosts said.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// Ports that somebody was told of: there since that revision, or gone.
    answered: BTreeMap<Id<Port>, Option<Revision>>,
    /// What waits for the next commit.
    unanswered: Vec<Done>,
    /// The newest revision at which a host said that a port is wired.
    said: BTreeMap<(Id<Port>, u32), Revision>,
    /// The same of what liars said in a host's name: the region may believe it.
    lied: BTreeMap<(Id<Port>, u32), Revision>,
    /// What is waited for: port, its revision, when the command came, size of its network.
    watched: BTreeMap<Id<Port>, Watched>,
    /// When a port last left a host, for each network.
    left: BTreeMap<(u32, Id<Network>), Us>,
    /// Counts the controller's starts.
    life: u32,
    is_commit_arranged: bool,
}

#[derive(Debug)]
struct Watched {
    revision: Revision,
    host: u32,
    since: Us,
    size: u64,
    is_programmed: bool,
}

impl Ledger {
    /// The newest revision at which a host said that a port is wired there.
    pub(super) fn said(&self, port: Id<Port>, host: u32) -> Option<Revision> {
        self.said.get(&(port, host)).copied()
    }

    /// When a port of a network last left a host.
    pub(super) fn left(&self, host: u32, network: Id<Network>) -> Option<Us> {
        self.left.get(&(host, network)).copied()
    }

    pub(super) fn promise(&mut self, done: Done) {
        self.unanswered.push(done);
    }

    pub(super) const fn answered(&self) -> &BTreeMap<Id<Port>, Option<Revision>> {
        &self.answered
    }
}

impl Sim {
    /// Something was decided: it becomes durable soon.
    pub(super) fn commit_soon(&mut self) {
        if self.ledger.is_commit_arranged || !self.cloud.has_waiting() {
            return;
        }
        self.ledger.is_commit_arranged = true;
        let delay = self.rng.between(self.scenario.delays.commit_us);
        let life = self.ledger.life;
        self.after(delay, Event::Commit { life });
    }

    pub(super) fn commit(&mut self, life: u32) {
        if life != self.ledger.life {
            return;
        }
        self.ledger.is_commit_arranged = false;
        let after = self.cloud.durable();
        let changes = self.cloud.commit();
        self.figures.add("commits", 1);
        self.figures.add("changes", changes.len() as u64);
        for change in &changes {
            if let Change::Put(Resource::PortRuntime(runtime)) = change {
                self.check_status(runtime);
            }
        }
        for done in std::mem::take(&mut self.ledger.unanswered) {
            self.answer(done);
        }
        self.publish(after, changes);
    }

    /// The API answers.
    fn answer(&mut self, done: Done) {
        match done {
            Done::Put(put) => {
                self.ledger.answered.insert(put.port, Some(put.revision));
                if let Some(from) = put.from.filter(|from| Some(*from) != put.host) {
                    let network = self.people.networks[put.network].id;
                    self.ledger.left.insert((from, network), self.now);
                }
                // What comes at the beginning waits for NCM and hosts to start: nothing to be measured.
                let is_measured = put.is_new_place && !self.people.is_loading();
                if let Some(host) = put.host.filter(|_| is_measured) {
                    self.ledger.watched.insert(
                        put.port,
                        Watched {
                            revision: put.revision,
                            host,
                            since: put.asked_at,
                            size: put.size,
                            is_programmed: false,
                        },
                    );
                }
                self.people_hear(&put);
            }
            Done::Gone { port, host, .. } => {
                self.ledger.answered.insert(port, None);
                self.ledger.watched.remove(&port);
                if let Some(host) = host {
                    self.unplug_soon(port, host);
                }
            }
        }
    }

    /// ACTIVE needs the host's own word for that revision.
    fn check_status(&mut self, runtime: &PortRuntime) {
        if runtime.status != PortStatus::Active {
            return;
        }
        let Some(host) = hosts::number(&runtime.host_id) else {
            return;
        };
        let key = (runtime.port_id, host);
        let said = self.ledger.said.get(&key).copied();
        let said = said.max(self.ledger.lied.get(&key).copied());
        if said.is_none_or(|said| said < runtime.applied_revision) {
            self.violate(format!(
                "port {} is ACTIVE at {} on {}, which said {said:?}",
                runtime.port_id, runtime.applied_revision.0, runtime.host_id
            ));
        }
        if let Some(watched) = self.ledger.watched.get(&runtime.port_id)
            && watched.host == host
            && watched.revision <= runtime.applied_revision
        {
            let (took, size) = (self.now - watched.since, watched.size);
            self.ledger.watched.remove(&runtime.port_id);
            self.figures.active(size, took);
        }
    }

    /// A liar reports a port in a host's name.
    pub(super) fn liar_says(&mut self, host: u32, report: &v1::PortReport) {
        let Ok(port) = decode_id::<Port>("the port", &report.port_id) else {
            return;
        };
        let lied = self.ledger.lied.entry((port, host)).or_default();
        *lied = Revision(report.revision).max(*lied);
    }

    /// A host reports a port; whether the NCM hears it is another matter.
    pub(super) fn host_says(&mut self, actor: u32, report: &v1::PortReport) {
        let Ok(port) = decode_id::<Port>("the port", &report.port_id) else {
            return;
        };
        let revision = Revision(report.revision);
        if report.condition() == v1::PortCondition::Wired {
            let said = self.ledger.said.entry((port, actor)).or_default();
            *said = revision.max(*said);
        }
        let now = self.now;
        if let Some(watched) = self.ledger.watched.get_mut(&port)
            && !watched.is_programmed
            && watched.host == actor
            && watched.revision <= revision
        {
            watched.is_programmed = true;
            let (took, size) = (now.saturating_sub(watched.since), watched.size);
            self.figures.programmed(size, took);
        }
    }

    /// The region takes what the NCM has for it.
    pub(super) fn region_hears(&mut self, said: Waiting) {
        for (name, word) in said.hosts {
            let registered = self.cloud.write(|tx, env| host::register(tx, env, &name, word));
            if registered.is_err() {
                self.figures.add("registrations_refused", 1);
            }
        }
        self.region_hears_gateways(said.gateways);
        let reports = said.reports.into_values().map(|report| command::PortReport {
            port_id: report.port_id,
            host_id: report.host,
            applied_revision: report.applied_revision,
            status: report.status,
            reason: report.reason,
        });
        let (reports, known) = (reports.collect(), said.known.into_values().collect());
        let labels: Vec<_> = said.labels.into_iter().collect();
        let told = self.cloud.write(|tx, env| {
            let Ok(reports) = port_runtime::report(tx, env, reports);
            let Ok(hosts) = host_runtime::note(tx, known);
            Ok((reports, hosts, label::release(tx, &labels)))
        });
        let (reports, hosts, labels) = told.unwrap_or_default();
        self.figures.add("reports_taken", reports as u64);
        self.figures.add("host_words_taken", hosts as u64);
        self.figures.add("labels_released", labels as u64);
        self.commit_soon();
    }

    /// The controller dies; it comes back after a while.
    pub(super) fn controller_dies(&mut self, away: Us) {
        if !self.cloud.is_up() {
            return;
        }
        self.cloud.crash();
        self.ledger.life += 1;
        self.ledger.is_commit_arranged = false;
        self.feed_breaks();
        self.after(away, Event::ControllerReturns);
    }

    /// It reads its rows; what it answered before is there, and the NCM begins anew.
    pub(super) fn controller_returns(&mut self) {
        self.cloud.recover();
        let lost = std::mem::take(&mut self.ledger.unanswered);
        self.people_forget(lost);
        self.check_answered("after the controller's return");
        self.lose_feed();
    }
}
