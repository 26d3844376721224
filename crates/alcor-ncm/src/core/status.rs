//! What hosts say: hellos, receipts, port reports; and what is known of each host because of it.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use alcor_dataplane::RowKey;
use alcor_model::{
    HostRuntime, Id, Network, Port, Revision,
    effective::{HostState, HostSummary, NeighbourState, PortState, ResourceState, Timing},
    resource::{DEFAULT_ZONE, PortStatus},
};
use alcor_proto::v1;
use alcor_southbound::convert::{decode_id, decode_ip};
use jiff::Timestamp;

use super::{
    Action, HostEntry, Ncm, Now, PortReport, SessionId,
    session::{HostWord, Opened, Sent, Session},
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
    pub last_seen_us: u64,
    pub resyncs: u64,
    /// The host's own rows: what it has applied, or why not.
    pub(super) applied: BTreeMap<RowKey, Applied>,
    /// Networks that the host may know something of: complete to this revision, zero when it is not known to be complete.
    pub(super) complete: BTreeMap<Id<Network>, Revision>,
    /// Networks of which the host refused rows; true when it did so since the last snapshot began. What it has instead of
    /// them is not known until it has taken a whole snapshot, whatever it takes besides.
    refusing: BTreeMap<Id<Network>, bool>,
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

/// The availability zone that a host says it is in.
fn read_zone(zone: String) -> Result<String, &'static str> {
    match zone {
        zone if zone.is_empty() => Ok(DEFAULT_ZONE.to_owned()),
        zone if zone.len() > 255 || zone.chars().any(char::is_control) => {
            Err("an availability zone has at most 255 bytes, all of them printable")
        }
        zone => Ok(zone),
    }
}

impl Ncm {
    pub(super) fn hello(&mut self, now: Now, id: SessionId, hello: v1::Hello, actions: &mut Vec<Action>) {
        let refuse = |reason: String| Action::Close { session: id, reason };
        if hello.host.is_empty() || hello.host.len() > 255 {
            return actions.push(refuse("a host name has 1 to 255 bytes".to_owned()));
        }
        let tunnel_ip = match decode_ip("the tunnel address", &hello.tunnel_ip) {
            Ok(ip) => ip,
            Err(error) => return actions.push(refuse(error.to_string())),
        };
        let zone = match read_zone(hello.availability_zone) {
            Ok(zone) => zone,
            Err(reason) => return actions.push(refuse(reason.to_owned())),
        };
        let name = hello.host;
        let opened = Opened {
            incarnation: hello.incarnation,
            session: hello.session,
        };
        let word = HostWord { tunnel_ip, zone };
        let entry = self.host_entry(&name);
        // Only what lives is worth being kept: without a session any hello is better than none, whatever the host's clock showed
        // when its agent started.
        let lives = entry.session.as_ref().map(|session| session.opened);
        if let Some(lives) = lives.filter(|lives| !opened.follows(*lives)) {
            return actions.push(refuse(format!(
                "session {} of incarnation {} of {name} is older than session {} of {}, which is here; is another agent running \
                 under this name?",
                opened.session, opened.incarnation, lives.session, lives.incarnation
            )));
        }
        entry.status.incarnation = hello.incarnation;
        entry.status.dataplane = Some(hello.dataplane);
        entry.status.filters = hello.filters;
        entry.status.last_seen_us = now.unix_us;
        entry.status.changed = true;
        let registered = entry.row.as_ref().is_some_and(|row| word.is_in(row));
        let session = Session::new(id, now.since_start, opened, word.clone(), &hello.held);
        let previous = entry.session.replace(session).map(|session| session.id);
        if let Some(previous) = previous {
            self.admission.close(previous);
            self.sessions.remove(&previous);
            actions.push(Action::Close {
                session: previous,
                reason: "a newer session took over".to_owned(),
            });
        }
        self.unheard.remove(&name);
        self.sessions.insert(id, name.clone());
        let index = self.directory.host(&name);
        self.directory.open(index, id);
        actions.push(Action::Send {
            session: id,
            message: v1::NcmMessage {
                body: Some(v1::ncm_message::Body::Welcome(v1::Welcome {
                    session_id: id,
                    heartbeat_interval_ms: u32::try_from(self.options.heartbeat_interval.as_millis())
                        .unwrap_or(u32::MAX),
                })),
            },
        });
        if !registered {
            actions.push(word.register(&name));
        }
        self.catch_up(now, &name, &hello.held);
        // From now on the host's own words count.
        if let Some(entry) = self.hosts.get_mut(&name) {
            entry.status.remembered = None;
        }
        self.pump(now, &name, actions);
    }

    /// Queues what the host misses of each network: from what it holds where that is possible, else a snapshot; and
    /// what it holds and has no business with, to forget.
    fn catch_up(&mut self, now: Now, host: &str, held: &[v1::Held]) {
        let held: BTreeMap<Id<Network>, Revision> = held
            .iter()
            .filter_map(|held| {
                Some((
                    decode_id("held network", &held.network_id).ok()?,
                    Revision(held.revision),
                ))
            })
            .collect();
        let interest = self.networks_of(host);
        self.note_known(host, &held);
        for view in held.keys().filter_map(|id| self.networks.get(id)) {
            self.learn_left(host, view);
        }
        for network in held.keys().filter(|id| !interest.contains(id)) {
            let view = self.networks.get(network).filter(|view| view.left.lingers(host));
            let lingering = view.map(|view| self.lingering_rows(host, view));
            self.sends_unasked(host, *network, lingering.as_deref().unwrap_or_default());
            self.with_session(host, |session, options| match lingering {
                // It is not complete to anything by that.
                Some(rows) => session.push(
                    options,
                    super::Outgoing::delta(*network, Revision::ZERO, rows, now.unix_us),
                ),
                None => session.forget(*network, now.unix_us),
            });
        }
        for network in interest {
            let complete = held
                .get(&network)
                .copied()
                .filter(|revision| *revision > Revision::ZERO);
            let rows = complete.and_then(|revision| self.since(host, network, revision));
            let newest = self
                .networks
                .get(&network)
                .map_or(Revision::ZERO, |view| view.revision);
            if let Some(revision) = complete.filter(|_| rows.is_some()) {
                self.note_held(host, network, revision);
            }
            let learned = self.is_learned(network);
            if learned {
                self.sends_unasked(host, network, rows.as_deref().unwrap_or_default());
            }
            self.with_session(host, |session, options| match rows {
                Some(rows) => {
                    if !learned {
                        session.settled(network);
                    }
                    session.push(
                        options,
                        super::Outgoing::delta(network, newest, rows, now.unix_us),
                    );
                }
                None => session.resync(network, learned),
            });
        }
    }

    /// A host knows labels of exactly the networks that it holds something of, whether or not it can go on from there: its
    /// hello comes after all that it took before, and what was sent to an earlier session and is not held never came.
    fn note_known(&mut self, host: &str, held: &BTreeMap<Id<Network>, Revision>) {
        let Some(entry) = self.hosts.get_mut(host) else {
            return;
        };
        let known = held.keys().map(|network| (*network, Revision::ZERO)).collect();
        let before = std::mem::replace(&mut entry.status.complete, known);
        entry
            .status
            .refusing
            .retain(|network, _| held.contains_key(network));
        let forgotten = before.keys().filter(|network| !held.contains_key(network));
        for network in held.keys().chain(forgotten) {
            self.completed(host, *network);
        }
    }

    /// What a host holds is in force there, though this NCM may not have seen it applied.
    fn note_held(&mut self, host: &str, network: Id<Network>, held: Revision) {
        // Neighbours and labels are not among what is known of a host row by row.
        let view = self.networks.get(&network);
        let rows = view.map(|view| self.intended_with(host, network, view, Vec::new()));
        let rows = rows.unwrap_or_default();
        let Some(entry) = self.hosts.get_mut(host) else {
            return;
        };
        entry.status.complete.insert(network, held);
        if let Some(timing) = entry.status.kept_timing(network, held) {
            entry.status.last_delta.insert(network, timing);
        }
        for row in rows.into_iter().filter(|row| {
            row.revision <= held && !matches!(row.key, RowKey::Neighbour(..) | RowKey::Label(..))
        }) {
            let timing = entry
                .status
                .kept_timing(network, row.revision)
                .unwrap_or_default();
            entry.status.applied.entry(row.key).or_insert(Applied {
                revision: Some(row.revision),
                error: None,
                timing,
            });
        }
        self.completed(host, network);
    }

    fn with_session(&mut self, host: &str, f: impl FnOnce(&mut Session, &super::Options)) {
        let options = self.options;
        if let Some(session) = self.hosts.get_mut(host).and_then(|entry| entry.session.as_mut()) {
            f(session, &options);
        }
    }

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
        match body {
            v1::agent_message::Body::Hello(_) => {
                self.closed(session);
                actions.push(Action::Close {
                    session,
                    reason: "a session has one hello".to_owned(),
                });
            }
            // Questions are answered from the directory, by whoever carries the session's messages.
            v1::agent_message::Body::Heartbeat(_) | v1::agent_message::Body::Resolve(_) => {}
            v1::agent_message::Body::Receipt(receipt) => self.receipt(now, &host, receipt, actions),
            v1::agent_message::Body::PortReport(report) => self.port_report(&host, report, actions),
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
        if let Some(session) = entry.session.as_mut().filter(|_| sent.ends_snapshot()) {
            // Only a snapshot with all neighbours takes away what it does not name.
            let eager = |view: &NetworkView| !view.learned && sent.revision >= view.mode_since;
            match self.networks.get(&network).is_some_and(eager) {
                true => session.settled(network),
                false => session.settle(network, now.since_start + self.options.limits.kept()),
            }
        }
        let reports = entry.status.receipted(host, sent, receipt);
        // It has forgotten what it knew, and gets to know the network again by what follows the word to forget.
        if entry
            .session
            .as_ref()
            .is_some_and(|session| session.tells(network))
        {
            entry.status.is_told(network);
        }
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

    /// All hosts that ever registered, said hello or have ports, by name.
    pub fn host_summaries(&self) -> Vec<HostSummary> {
        self.hosts
            .iter()
            .map(|(name, entry)| self.summary(name, entry))
            .collect()
    }

    fn summary(&self, name: &str, entry: &HostEntry) -> HostSummary {
        let resources = self.resources(name, entry);
        let ports = resources.iter().filter(|row| row.kind == "port").count();
        let behind =
            |row: &&ResourceState| row.error.is_none() && row.applied_revision < Some(row.intended_revision);
        HostSummary {
            name: name.to_owned(),
            tunnel_ip: entry.row.as_ref().map(|row| row.tunnel_ip),
            alive: entry.session.is_some(),
            last_seen_at: timestamp(entry.status.heard_us()),
            // An incarnation is the time at which the agent's run began.
            started_at: timestamp(entry.status.run().0),
            dataplane: entry.status.run().1.map(str::to_owned),
            ports,
            pending: resources.iter().filter(behind).count(),
            errors: resources.iter().filter(|row| row.error.is_some()).count(),
            stale: false,
        }
    }

    /// Everything known of one host.
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
        })
    }

    pub(super) fn views_of<'a>(
        &'a self,
        host: &str,
    ) -> impl Iterator<Item = (&'a Id<Network>, &'a NetworkView)> {
        let networks = self.host_networks.get(host).into_iter().flatten();
        networks.filter_map(|id| self.networks.get_key_value(id))
    }

    fn resources(&self, name: &str, entry: &HostEntry) -> Vec<ResourceState> {
        let mut rows = Vec::new();
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
            let rows_of_network = network.chain(subnets).chain(routers).chain(policies).chain(ports);
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

    fn neighbours(
        &self,
        id: Id<Network>,
        view: &NetworkView,
        name: &str,
        entry: &HostEntry,
    ) -> NeighbourState {
        let (complete, timing) = entry.status.known_network(id);
        if view.learned {
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
            (None, None) => (PortStatus::Down, None),
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

impl HostStatus {
    /// The revision to which the host has all of a network, where that is known.
    pub(super) fn complete_to(&self, network: Id<Network>) -> Option<Revision> {
        let complete = self.complete.get(&network).copied();
        complete.filter(|revision| *revision > Revision::ZERO)
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

fn timestamp(us: u64) -> Option<Timestamp> {
    if us == 0 {
        None
    } else {
        Timestamp::from_microsecond(i64::try_from(us).ok()?).ok()
    }
}
