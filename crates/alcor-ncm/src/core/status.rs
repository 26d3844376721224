//! What hosts say: hellos, receipts, port reports; and what is known of each host because of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use alcor_dataplane::RowKey;
use alcor_model::{
    HostRuntime, Id, Network, Port, Revision,
    effective::{GatewayUse, HostState, HostSummary, NeighbourState, PortState, ResourceState, Timing},
    resource::PortStatus,
};
use alcor_proto::v1;
use alcor_southbound::convert::{decode_id, decode_ip, load::decode_load};
use jiff::Timestamp;

use super::{
    Action, HostEntry, Ncm, Now, PortReport, SessionId,
    memory::key_text,
    session::{Sent, Session},
    view::{KeyedRow, NetworkView},
};

/// Longest reason that is kept of what a host says, in characters.
const REASON_CHARS_MAX: usize = 500;

/// What is known of a host because it said so. Kept when its session ends.
#[derive(Debug, Default)]
pub(super) struct HostStatus {
    pub incarnation: u64,
    pub dataplane: Option<String>,
    /// Its data plane filters by security groups.
    pub filters: bool,
    /// It has a device in an external network.
    pub has_outside: bool,
    pub last_seen_us: u64,
    pub resyncs: u64,
    /// The host's own rows: what it has applied, or why not.
    pub(super) applied: BTreeMap<RowKey, Applied>,
    /// Networks that the host may know something of: complete to this revision, zero when it is not known to be complete.
    pub(super) complete: BTreeMap<Id<Network>, Revision>,
    /// Networks of which the host refused rows; true when it did so since the last snapshot began. What it has instead of
    /// them is not known until it has taken a whole snapshot, whatever it takes besides.
    pub(super) refusing: BTreeMap<Id<Network>, bool>,
    /// Per network: how the delta travelled that brought it there.
    pub(super) last_delta: BTreeMap<Id<Network>, Timing>,
    /// What was kept before this NCM started, until the host says hello.
    pub(super) remembered: Option<Arc<HostRuntime>>,
    /// There is news since it was last kept.
    pub(super) changed: bool,
    /// When it was last kept, on the NCM's own clock.
    pub(super) stored_at: Duration,
    ports: BTreeMap<Id<Port>, PortWord>,
}

#[derive(Clone, Debug)]
pub(super) struct Applied {
    /// The newest revision that is in force.
    pub revision: Option<Revision>,
    /// Why a newer one is not.
    pub error: Option<String>,
    pub timing: Timing,
}

/// What the host last said of a port's device.
#[derive(Clone, Debug)]
struct PortWord {
    revision: Revision,
    status: PortStatus,
    reason: Option<String>,
    visible_us: u64,
}

fn shortened(reason: &str) -> Option<String> {
    (!reason.is_empty()).then(|| reason.chars().take(REASON_CHARS_MAX).collect())
}

impl Ncm {
    pub(super) fn message(
        &mut self,
        now: Now,
        session: SessionId,
        body: v1::agent_message::Body,
        actions: &mut Vec<Action>,
    ) {
        let Some(host) = self.sessions.get(&session).cloned() else {
            return;
        };
        if let Some(entry) = self.hosts.get_mut(&host) {
            entry.status.last_seen_us = now.unix_us;
            if let Some(session) = &mut entry.session {
                session.hear(now.since_start, self.options.limits.kept());
            }
        }
        if self.is_gateway(&host) && self.fleet.heard(&host, self.clock) {
            self.judge_gateways();
        }
        match body {
            v1::agent_message::Body::Hello(_) => {
                self.closed(session);
                actions.push(Action::Close {
                    session,
                    reason: "a session has one hello".to_owned(),
                });
            }
            // Questions are answered from the directory, by whoever carries the session's messages.
            v1::agent_message::Body::Resolve(_) => {}
            v1::agent_message::Body::Heartbeat(word) => self.heartbeat(now, &host, &word),
            v1::agent_message::Body::Receipt(receipt) => self.receipt(now, &host, receipt, actions),
            v1::agent_message::Body::PortReport(report) => self.port_report(&host, report, actions),
        }
    }

    fn heartbeat(&mut self, now: Now, name: &str, word: &v1::Heartbeat) {
        if !self.is_gateway(name) {
            return;
        }
        if let Some(load) = &word.load {
            self.fleet.hears_load(name, now, decode_load(load));
        }
        let fellows = word.unreachable.iter();
        let fellows: Vec<IpAddr> = fellows
            .filter_map(|ip| decode_ip("a gateway's address", ip).ok())
            .collect();
        if self.fleet.cannot_reach(name, fellows.into_iter()) {
            self.judge_gateways();
        }
    }

    fn receipt(&mut self, now: Now, host: &str, receipt: v1::Receipt, actions: &mut Vec<Action>) {
        let Some(entry) = self.hosts.get_mut(host) else {
            return;
        };
        let Some(sent) = entry
            .session
            .as_mut()
            .and_then(|session| session.receipted(receipt.sequence))
        else {
            return;
        };
        self.work.receipts += 1;
        self.work.refused += receipt.refused.len() as u64;
        if sent.phase == v1::SnapshotPhase::Delta {
            self.work.timing = Some(sent.timing(&receipt));
        }
        let network = sent.network;
        if entry
            .session
            .as_mut()
            .is_some_and(|session| session.has_taken(&sent))
        {
            self.disputed.insert(host.to_owned());
        }
        if let Some(session) = entry.session.as_mut().filter(|_| sent.ends_snapshot()) {
            // Only a snapshot with all neighbours takes away what it does not name.
            let eager = |view: &NetworkView| !view.learned && sent.revision >= view.mode_since;
            match self.networks.get(&network).is_some_and(eager) {
                true => session.settled(network),
                false => session.settle(network, now.since_start + self.options.limits.kept()),
            }
        }
        let keys: Vec<RowKey> = sent.own.iter().map(|own| own.key).collect();
        let reports = entry.status.receipted(host, sent, receipt);
        let forgets = |session: &Session| session.forgets(network);
        if entry.is_gateway && entry.session.as_ref().is_some_and(forgets) {
            entry.status.complete.remove(&network);
        }
        // It has forgotten what it knew, and gets to know the network again by what follows the word to forget.
        if entry
            .session
            .as_ref()
            .is_some_and(|session| session.tells(network))
        {
            entry.status.is_told(network);
        }
        self.heard_of_floating_ips(keys.into_iter());
        self.completed(host, network);
        actions.extend(reports.into_iter().map(Action::ReportPort));
        self.pump(now, host, actions);
    }

    fn port_report(&mut self, host: &str, report: v1::PortReport, actions: &mut Vec<Action>) {
        let Ok(port_id) = decode_id::<Port>("port id", &report.port_id) else {
            return;
        };
        let status = match report.condition() {
            v1::PortCondition::Wired => PortStatus::Active,
            v1::PortCondition::NoDevice => PortStatus::Down,
            v1::PortCondition::Failed => PortStatus::Error,
            v1::PortCondition::Unspecified => return,
        };
        let here = self
            .port_networks
            .get(&port_id)
            .and_then(|network| self.networks.get(network));
        let here = here
            .and_then(|view| view.by_host.get(host))
            .is_some_and(|ports| ports.contains(&port_id));
        if !here {
            return;
        }
        let word = PortWord {
            revision: Revision(report.revision),
            status,
            reason: shortened(&report.reason),
            visible_us: report.visible_us,
        };
        let Some(entry) = self.hosts.get_mut(host) else {
            return;
        };
        actions.push(Action::ReportPort(PortReport {
            port_id,
            host: host.to_owned(),
            applied_revision: word.revision,
            status,
            reason: word.reason.clone(),
        }));
        entry.status.ports.insert(port_id, word);
    }

    /// All hosts that ever registered, said hello or have ports, by name. Gateways are not among them.
    pub fn host_summaries(&self) -> Vec<HostSummary> {
        let hosts = self.hosts.iter().filter(|(_, entry)| !entry.is_gateway);
        hosts.map(|(name, entry)| self.summary(name, entry)).collect()
    }

    fn summary(&self, name: &str, entry: &HostEntry) -> HostSummary {
        let gateway = self.fleet.row(name).map(|row| row.tunnel_ip);
        let of_network =
            |(_, view): (&Id<Network>, &NetworkView)| view.by_host.get(name).map_or(0, BTreeSet::len);
        // Nearly all hosts of a list have all: their rows need not be looked at one by one.
        let (pending, errors) = match entry.is_settled() {
            true => (0, 0),
            false => behind(&self.resources(name, entry)),
        };
        HostSummary {
            name: name.to_owned(),
            tunnel_ip: entry.row.as_ref().map(|row| row.tunnel_ip).or(gateway),
            alive: match entry.is_gateway {
                true => self.fleet.is_alive(name),
                false => entry.session.is_some(),
            },
            last_seen_at: timestamp(entry.status.heard_us()),
            // An incarnation is the time at which the agent's run began.
            started_at: timestamp(entry.status.run().0),
            dataplane: entry.status.run().1.map(str::to_owned),
            ports: self.views_of(name).map(of_network).sum(),
            pending: pending + self.networks_behind(name, entry),
            errors,
            stale: false,
        }
    }

    /// Everything known of one host or gateway.
    pub fn host_state(&self, name: &str) -> Option<HostState> {
        let entry = self.hosts.get(name)?;
        let said = entry.status.heard_us() != 0;
        Some(HostState {
            summary: self.summary(name, entry),
            incarnation: said.then_some(entry.status.run().0),
            queued: entry.session.as_ref().map_or(0, Session::queued),
            resyncs: entry.status.resyncs,
            resources: self.resources(name, entry),
            neighbours: self
                .views_of(name)
                .map(|(id, view)| self.neighbours(*id, view, name, entry))
                .collect(),
            gateway: entry.is_gateway.then(|| self.usage(name, entry)),
        })
    }

    pub(super) fn views_of<'a>(
        &'a self,
        host: &str,
    ) -> impl Iterator<Item = (&'a Id<Network>, &'a NetworkView)> {
        let networks = self.networks_of(host).into_iter();
        networks.filter_map(|id| self.networks.get_key_value(&id))
    }

    fn resources(&self, name: &str, entry: &HostEntry) -> Vec<ResourceState> {
        let mut rows = Vec::new();
        if entry.is_gateway {
            return self.resources_of_gateway(name, entry);
        }
        for (id, view) in self.views_of(name) {
            let network = view.network_row(entry.status.filters).into_iter();
            // What a host that has not said hello yet is known to have is compared with the region's row: that hosts are to
            // be told it again since this NCM started says nothing of it.
            let own = view.network.as_ref().filter(|_| entry.status.last_seen_us == 0);
            let revision = |row: &KeyedRow| own.map_or(row.revision, |own| own.revision);
            let network = network.map(|row| (row.key, id.to_string(), revision(&row)));
            let subnets = view
                .subnets
                .values()
                .map(|row| (RowKey::Subnet(*id, row.id), row.id.to_string(), row.revision));
            let ports = view
                .by_host
                .get(name)
                .into_iter()
                .flatten()
                .filter_map(|port| view.ports.get(port));
            let ports = ports.map(|row| (RowKey::Port(*id, row.id), row.id.to_string(), row.revision));
            let policies = match entry.status.filters {
                true => self.policies(name, *id, view),
                false => Vec::new(),
            };
            let policies = policies.into_iter().filter_map(|row| match row.key {
                RowKey::Policy(_, group) => Some((row.key, group.to_string(), row.revision)),
                _ => None,
            });
            let routers = self.router_rows(*id).filter_map(|row| match row.key {
                RowKey::Router(_, router) => Some((row.key, router.to_string(), row.revision)),
                _ => None,
            });
            let floating = self.floating_ips_on(name, view, entry.status.last_seen_us != 0);
            let floating = floating.map(|(key, id, revision)| (key, id.to_string(), revision));
            let rows_of_network = network.chain(subnets).chain(routers).chain(policies);
            let rows_of_network = rows_of_network.chain(ports).chain(floating);
            for (key, id, intended_revision) in rows_of_network {
                let known = entry.status.known(&key, intended_revision);
                rows.push(ResourceState {
                    kind: key.kind().to_owned(),
                    id,
                    intended_revision,
                    applied_revision: known.revision,
                    error: known.error,
                    timing: known.timing,
                });
            }
        }
        rows
    }

    /// Networks of a gateway whose neighbours are not all in force.
    fn networks_behind(&self, name: &str, entry: &HostEntry) -> usize {
        let views = self.views_of(name).filter(|_| entry.is_gateway);
        let behind = views.filter(|(id, view)| entry.status.known_network(**id).0 < Some(view.told));
        behind.count()
    }

    /// Whether hosts send by a gateway.
    fn usage(&self, name: &str, entry: &HostEntry) -> GatewayUse {
        let (reason, unreachable) = self.fleet.why_not(name);
        let networks = self.fleet.networks(name).into_iter();
        GatewayUse {
            in_use: reason.is_none(),
            reason: reason.map(str::to_owned),
            complete: networks.filter(|id| entry.status.has_all(*id)).count(),
            unreachable,
            load: self.fleet.load(name, self.clock),
        }
    }

    /// When a host or gateway was heard last.
    pub(super) fn last_seen(&self, name: &str) -> Option<Timestamp> {
        timestamp(self.hosts.get(name)?.status.heard_us())
    }

    fn resources_of_gateway(&self, name: &str, entry: &HostEntry) -> Vec<ResourceState> {
        let networks = self.networks_of(name).into_iter();
        let rows = networks.flat_map(|network| self.rows_of_gateway(name, network));
        let state = |row: KeyedRow| {
            let known = entry.status.known(&row.key, row.revision);
            Some(ResourceState {
                kind: row.key.kind().to_owned(),
                id: key_text(&row.key)?,
                intended_revision: row.revision,
                applied_revision: known.revision,
                error: known.error,
                timing: known.timing,
            })
        };
        rows.filter_map(state).collect()
    }

    fn neighbours(
        &self,
        id: Id<Network>,
        view: &NetworkView,
        name: &str,
        entry: &HostEntry,
    ) -> NeighbourState {
        let (complete, timing) = entry.status.known_network(id);
        if view.learned && !entry.is_gateway {
            let host = self.directory.known(name);
            let learned = host.map(|host| self.directory.learned_in(host, view.index).len());
            return NeighbourState {
                network_id: id,
                intended: learned.unwrap_or_default(),
                // It is told of what it has learned only, so there is no revision that it must be complete to.
                intended_revision: complete.unwrap_or_default(),
                applied_revision: complete,
                timing,
            };
        }
        let mut intended = 0;
        let newest = match view.looks(name) {
            true => view.told.max(view.told_lookers),
            false => view.told,
        };
        if entry.is_gateway {
            // All that there are; they are not looked at one by one.
            return NeighbourState {
                network_id: id,
                intended: view.addresses,
                intended_revision: view.told,
                applied_revision: complete,
                timing,
            };
        }
        for (other, ports) in view.by_host.iter().filter(|(other, _)| *other != name) {
            let registered = self.hosts.get(other).and_then(|entry| entry.row.as_ref());
            for port in ports
                .iter()
                .filter_map(|port| view.ports.get(port))
                .filter(|_| registered.is_some())
            {
                intended += port.fixed_ips.len();
            }
        }
        NeighbourState {
            network_id: id,
            intended,
            intended_revision: newest,
            applied_revision: complete,
            timing,
        }
    }

    /// How a port's last change travelled.
    pub fn port_state(&self, id: Id<Port>) -> Option<PortState> {
        let network = self.port_networks.get(&id)?;
        let port = self.networks.get(network)?.ports.get(&id)?;
        let host = port.is_bound().then(|| port.binding.host_id.clone());
        let entry = host.as_ref().and_then(|host| self.hosts.get(host));
        let known = entry.map(|entry| entry.status.known(&RowKey::Port(*network, id), port.revision));
        let known = known.unwrap_or_default();
        let word = entry.and_then(|entry| entry.status.ports.get(&id));
        let (status, reason) = match (word, &host) {
            (Some(word), _) => (word.status, word.reason.clone()),
            (None, Some(_)) => (PortStatus::Build, None),
            (None, None) => (self.routing.said_of(id).unwrap_or(PortStatus::Down), None),
        };
        let timing = known.timing.map(|timing| {
            let wired = word.filter(|word| Some(word.revision) == known.revision);
            let visible_us = wired.map_or(0, |word| word.visible_us).max(timing.visible_us);
            Timing { visible_us, ..timing }
        });
        Some(PortState {
            port_id: id,
            host,
            status,
            reason,
            host_alive: entry.is_some_and(|entry| entry.session.is_some()),
            intended_revision: port.revision,
            applied_revision: known.revision,
            timing,
            stale: false,
        })
    }
}

impl HostEntry {
    /// Whether all rows that the host must have are in force. False may only mean that they have to be looked at.
    fn is_settled(&self) -> bool {
        let is_told = self.session.as_ref().is_some_and(Session::is_idle);
        let kept = self.status.remembered.iter().flat_map(|kept| &kept.networks);
        is_told
            && self.status.refusing.is_empty()
            && kept.into_iter().all(|network| network.refused.is_empty())
    }
}

/// How many of a host's rows are not in force yet, and how many it refused.
pub(super) fn behind(rows: &[ResourceState]) -> (usize, usize) {
    let errors = rows.iter().filter(|row| row.error.is_some()).count();
    let behind =
        |row: &&ResourceState| row.error.is_none() && row.applied_revision < Some(row.intended_revision);
    (rows.iter().filter(behind).count(), errors)
}

impl HostStatus {
    /// The revision to which the host has all of a network, where that is known.
    pub(super) fn complete_to(&self, network: Id<Network>) -> Option<Revision> {
        let complete = self.complete.get(&network).copied();
        complete.filter(|revision| *revision > Revision::ZERO)
    }

    /// Whether all of a network is in force.
    pub(super) fn has_all(&self, network: Id<Network>) -> bool {
        self.complete_to(network).is_some() && !self.refusing.contains_key(&network)
    }

    /// Beyond which revision the host may match old meanings of labels: zero when it may have anything of the network,
    /// as when it refused to let go of something; none only when it has nothing.
    pub(super) fn knows_to(&self, network: Id<Network>) -> Option<Revision> {
        let complete = self.complete.get(&network).copied();
        complete.map(|revision| match self.refusing.contains_key(&network) {
            true => Revision::ZERO,
            false => revision,
        })
    }

    /// Whether the host refused rows is noted by what was sent, and forgotten with the end of a snapshot that it took.
    fn note_refusals(&mut self, network: Id<Network>, phase: v1::SnapshotPhase, any: bool) {
        match phase {
            v1::SnapshotPhase::Forget => {
                self.refusing.remove(&network);
            }
            // An older refusal is over with a snapshot, one since its beginning is not.
            _ if any => {
                self.refusing.insert(network, true);
            }
            v1::SnapshotPhase::Begin => {
                if let Some(since) = self.refusing.get_mut(&network) {
                    *since = false;
                }
            }
            v1::SnapshotPhase::Whole => {
                self.refusing.remove(&network);
            }
            v1::SnapshotPhase::End if self.refusing.get(&network) == Some(&false) => {
                self.refusing.remove(&network);
            }
            _ => {}
        }
    }

    /// The host is told something of a network; gives whether it knew nothing of it until now.
    pub(super) fn is_told(&mut self, network: Id<Network>) -> bool {
        let news = !self.complete.contains_key(&network);
        self.complete.entry(network).or_insert(Revision::ZERO);
        news
    }

    /// Why the host refused a row, if it did.
    pub(super) fn refusal(&self, key: &RowKey) -> Option<String> {
        let reason = self.applied.get(key)?.error.as_ref()?;
        Some(format!("{}: {reason}", key.kind()))
    }

    /// Notes what a receipt says; gives reports about ports that were refused.
    fn receipted(&mut self, host: &str, sent: Sent, receipt: v1::Receipt) -> Vec<PortReport> {
        let refused: BTreeMap<u32, &str> = receipt
            .refused
            .iter()
            .map(|error| (error.row, error.reason.as_str()))
            .collect();
        let timing = sent.timing(&receipt);
        self.note_refusals(sent.network, sent.phase, !refused.is_empty());
        self.changed = true;
        if sent.phase == v1::SnapshotPhase::Forget {
            let (applied, ports) = (&mut self.applied, &mut self.ports);
            applied.retain(|key, _| {
                let stays = key.network_id() != sent.network;
                if let (false, RowKey::Port(_, port)) = (stays, key) {
                    ports.remove(port);
                }
                stays
            });
            self.complete.remove(&sent.network);
            self.last_delta.remove(&sent.network);
            return Vec::new();
        }
        if sent.revision > Revision::ZERO && refused.is_empty() {
            self.complete.insert(sent.network, sent.revision);
            self.last_delta.insert(sent.network, timing);
        }
        let mut reports = Vec::new();
        for own in sent.own {
            let error = refused
                .get(&own.position)
                .map(|reason| shortened(reason).unwrap_or_default());
            if own.gone && error.is_none() {
                self.applied.remove(&own.key);
                if let RowKey::Port(_, port) = own.key {
                    self.ports.remove(&port);
                }
                continue;
            }
            let revision = match &error {
                None => Some(own.revision),
                Some(_) => self.applied.get(&own.key).and_then(|applied| applied.revision),
            };
            if let (RowKey::Port(_, port_id), Some(reason)) = (own.key, &error) {
                reports.push(PortReport {
                    port_id,
                    host: host.to_owned(),
                    applied_revision: own.revision,
                    status: PortStatus::Error,
                    reason: Some(reason.clone()),
                });
            }
            self.applied.insert(
                own.key,
                Applied {
                    revision,
                    error,
                    timing,
                },
            );
        }
        reports
    }
}

pub(super) fn timestamp(us: u64) -> Option<Timestamp> {
    if us == 0 {
        None
    } else {
        Timestamp::from_microsecond(i64::try_from(us).ok()?).ok()
    }
}
