//! What hosts say after their hello: receipts, port reports; and what is known of each host because of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use alcor_dataplane::RowKey;
use alcor_model::{
    HostRuntime, Id, Network, Port, Revision,
    effective::Timing,
    resource::{PortStatus, kept_reason},
};
use alcor_proto::v1;
use alcor_southbound::convert::{decode_id, decode_ip, load::decode_load};

use super::{
    Action, Ncm, Now, PortReport, SessionId,
    session::{Sent, Session},
    view::NetworkView,
};

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
    /// Networks that it has to forget before it is registered: what it had of them when it came may be of any time.
    pub(super) to_forget: BTreeSet<Id<Network>>,
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
    pub(super) ports: BTreeMap<Id<Port>, PortWord>,
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
pub(super) struct PortWord {
    pub(super) revision: Revision,
    pub(super) status: PortStatus,
    pub(super) reason: Option<String>,
    pub(super) visible_us: u64,
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
        if entry.status.has_forgotten(&sent) {
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
            reason: kept_reason(&report.reason),
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

    /// The host has taken what was sent; gives whether it is to be registered now. A snapshot takes the place of a word to forget.
    fn has_forgotten(&mut self, sent: &Sent) -> bool {
        let forgets = sent.phase == v1::SnapshotPhase::Forget || sent.ends_snapshot();
        forgets && self.to_forget.remove(&sent.network) && self.to_forget.is_empty()
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
                .map(|reason| kept_reason(reason).unwrap_or_default());
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
