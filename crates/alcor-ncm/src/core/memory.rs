//! What is kept of a host across restarts of the NCM: a row of the region per host, written when something changed and at
//! most every [`STORE_EVERY`]. A host that only beats its heart costs no row. Until it says hello again the row is what is
//! known of it.

use std::time::Duration;

use alcor_dataplane::RowKey;
use alcor_model::{
    HostRuntime, Id, Network, Revision,
    effective::Timing,
    resource::{HostNetwork, KnownRow, RefusedRow},
};

use super::{HostEntry, Ncm, Now, status::HostStatus};

/// The least time between two rows about one host.
pub(super) const STORE_EVERY: Duration = Duration::from_secs(5);
/// Rows in one tick; the others follow in the next. All 10,000 hosts of an NCM have had their turn before the first is due
/// again.
const HOSTS_AT_ONCE: usize = 2_000;
/// Refused rows that are kept of one host and network.
const REFUSED_MAX: usize = 64;

impl HostStatus {
    /// What was kept of a network before this NCM started.
    fn kept(&self, network: Id<Network>) -> Option<&HostNetwork> {
        self.remembered.as_ref()?.network(network)
    }

    /// How the delta travelled that brought a network to this revision.
    pub(super) fn kept_timing(&self, network: Id<Network>, revision: Revision) -> Option<Timing> {
        self.kept(network)?.timing_at(revision)
    }

    /// What is known of one of the host's own rows: what it has said to this NCM, else what was kept.
    pub(super) fn known(&self, key: &RowKey, intended: Revision) -> KnownRow {
        if let Some(applied) = self.applied.get(key) {
            let timing = Some(applied.timing).filter(|timing| timing.visible_us != 0);
            return KnownRow {
                revision: applied.revision,
                error: applied.error.clone(),
                timing: timing.or_else(|| self.kept_timing(key.network_id(), intended)),
            };
        }
        match (&self.remembered, key_text(key)) {
            (Some(kept), Some(id)) => kept.known(key.network_id(), key.kind(), &id, intended),
            _ => KnownRow::default(),
        }
    }

    /// The revision to which the host has all of a network, and how the delta travelled that brought it there.
    pub(super) fn known_network(&self, network: Id<Network>) -> (Option<Revision>, Option<Timing>) {
        match self.complete_to(network) {
            Some(revision) => {
                let told = self.last_delta.get(&network).copied();
                (
                    Some(revision),
                    told.or_else(|| self.kept_timing(network, revision)),
                )
            }
            None => self
                .kept(network)
                .map_or((None, None), |kept| (Some(kept.applied_revision), kept.timing)),
        }
    }

    /// When the host was last heard, microseconds since the Unix epoch; 0 for never.
    pub(super) fn heard_us(&self) -> u64 {
        let kept = || self.remembered.as_ref().map_or(0, |kept| kept.last_seen_us);
        if self.last_seen_us == 0 {
            kept()
        } else {
            self.last_seen_us
        }
    }

    /// The run of its agent, and the data plane that it drives.
    pub(super) fn run(&self) -> (u64, Option<&str>) {
        match (&self.remembered, self.last_seen_us) {
            (Some(kept), 0) => (kept.incarnation, kept.dataplane.as_deref()),
            _ => (self.incarnation, self.dataplane.as_deref()),
        }
    }

    /// The row.
    fn row(&self, name: &str) -> HostRuntime {
        let network = |id: &Id<Network>| {
            Some(HostNetwork {
                network_id: *id,
                applied_revision: self.complete_to(*id)?,
                timing: self.known_network(*id).1,
                refused: self.refused(*id),
            })
        };
        HostRuntime {
            name: name.to_owned(),
            revision: Revision::ZERO,
            incarnation: self.incarnation,
            dataplane: self.dataplane.clone(),
            last_seen_us: self.last_seen_us,
            resyncs: self.resyncs,
            networks: self.complete.keys().filter_map(network).collect(),
        }
    }

    fn refused(&self, network: Id<Network>) -> Vec<RefusedRow> {
        let of_network = self.applied.iter().filter(|(key, _)| key.network_id() == network);
        let refused = of_network.filter_map(|(key, applied)| {
            Some(RefusedRow {
                kind: key.kind().to_owned(),
                id: key_text(key)?,
                reason: applied.error.clone()?,
            })
        });
        refused.take(REFUSED_MAX).collect()
    }
}

/// The id of one of a host's own rows, as the API shows it.
pub(super) fn key_text(key: &RowKey) -> Option<String> {
    match key {
        RowKey::Network(id) => Some(id.to_string()),
        RowKey::Subnet(_, id) => Some(id.to_string()),
        RowKey::Port(_, id) => Some(id.to_string()),
        RowKey::Router(_, id) => Some(id.to_string()),
        RowKey::FloatingIp(_, id) => Some(id.to_string()),
        RowKey::Policy(_, id) => Some(id.to_string()),
        RowKey::Neighbour(..) | RowKey::Label(..) => None,
    }
}

impl Ncm {
    /// A row of the region: of use for a host that has not been heard since the NCM started. Others know better.
    pub(super) fn put_host_runtime(&mut self, row: std::sync::Arc<HostRuntime>) {
        let entry = self.host_entry(&row.name);
        if entry.status.last_seen_us == 0 {
            entry.status.resyncs = row.resyncs;
            entry.status.remembered = Some(row);
        }
    }

    /// Rows about hosts of which there is news.
    pub(super) fn due_host_runtimes(&mut self, now: Now) -> Vec<HostRuntime> {
        let due = |entry: &HostEntry| {
            let since = now.since_start.saturating_sub(entry.status.stored_at);
            entry.row.is_some() && entry.status.changed && since >= STORE_EVERY
        };
        let mut rows = Vec::new();
        for (name, entry) in self
            .hosts
            .iter_mut()
            .filter(|(_, entry)| due(entry))
            .take(HOSTS_AT_ONCE)
        {
            entry.status.stored_at = now.since_start;
            entry.status.changed = false;
            rows.push(entry.status.row(name));
        }
        rows
    }
}
