//! What a gateway must have of a network: the network, its routers, its floating IPs and all neighbours. Nothing of what only
//! hosts of ports do: no ports, subnets, labels or rules.

use std::{collections::BTreeSet, ops::Bound};

use alcor_dataplane::{NetworkRow, Row, RowKey};
use alcor_model::{Id, Network, Revision};

use super::super::{
    Ncm,
    session::{Outgoing, Rest},
    view::{KeyedRow, NetworkView},
};

/// Whether gateways have rows of this kind.
pub(in crate::core) const fn has_use_of(key: &RowKey) -> bool {
    matches!(
        key,
        RowKey::Network(_) | RowKey::Router(..) | RowKey::FloatingIp(..) | RowKey::Neighbour(..)
    )
}

impl NetworkView {
    /// The revision of the network's row, for gateways.
    pub(in crate::core) fn network_revision_of_gateways(&self) -> Option<Revision> {
        Some(self.network.as_ref()?.revision.max(self.underlay_revision))
    }

    /// The row of the network, for gateways: they know all neighbours. The gateways that it names are those that they probe.
    pub(in crate::core) fn network_row_of_gateways(&self) -> Option<KeyedRow> {
        let row = self.network.as_ref()?;
        let sent = Row::Network(NetworkRow {
            id: row.id,
            vni: row.segmentation_id,
            mtu: row.mtu,
            admin_state_up: row.admin_state_up,
            underlay: Some(self.underlay.blocks()),
            on_demand: false,
            gateways: self.service.ways.clone(),
        });
        Some(KeyedRow::put(self.network_revision_of_gateways()?, sent))
    }
}

impl Ncm {
    /// All but the neighbours; nothing when the gateway is not to have the network.
    pub(in crate::core) fn rows_of_gateway(&self, name: &str, network: Id<Network>) -> Vec<KeyedRow> {
        let view = self.networks.get(&network);
        let row = view.filter(|view| view.service.has(name));
        let Some(row) = row.and_then(NetworkView::network_row_of_gateways) else {
            return Vec::new();
        };
        let mut rows = vec![row];
        rows.extend(self.router_rows(network));
        rows.extend(self.floating_ip_rows(network));
        rows
    }

    /// The beginning of a snapshot of everything. The rest is made when there is room for it: a network of a million ports is never
    /// in memory once more, and others have their turn in between.
    pub(in crate::core) fn snapshot_of_gateway(
        &mut self,
        name: &str,
        network: Id<Network>,
        now_us: u64,
    ) -> (Outgoing, Option<Rest>) {
        let rows = self.rows_of_gateway(name, network);
        let view = self.networks.get(&network).filter(|_| !rows.is_empty());
        let Some(view) = view else {
            return (Outgoing::forget(network, now_us), None);
        };
        let rest = Rest {
            has_begun: false,
            after: None,
            revision: view.revision,
        };
        self.part_of_snapshot(network, rest, rows, now_us)
    }

    /// The next part of a snapshot, after these rows: neighbours in the order of their ports, so that it can be gone on with
    /// whatever changes meanwhile. Ports that change behind it are told by deltas, which follow the last part.
    pub(in crate::core) fn part_of_snapshot(
        &mut self,
        network: Id<Network>,
        rest: Rest,
        mut rows: Vec<KeyedRow>,
        now_us: u64,
    ) -> (Outgoing, Option<Rest>) {
        let mut after = rest.after;
        let mut is_last = true;
        if let Some(view) = self.networks.get(&network) {
            let start = after.map_or(Bound::Unbounded, Bound::Excluded);
            for (id, port) in view.ports.range((start, Bound::Unbounded)) {
                if rows.len() >= self.options.message_rows.max(1) {
                    is_last = false;
                    break;
                }
                let tunnel = port.binding.host().and_then(|host| self.tunnel(host));
                rows.extend(view.neighbour_rows(port, tunnel, false));
                after = Some(*id);
            }
        }
        self.work.rows_looked_at += rows.len() as u64;
        let next = (!is_last).then_some(Rest {
            has_begun: true,
            after,
            ..rest
        });
        (Outgoing::part(network, &rest, is_last, rows, now_us), next)
    }

    /// What changed for a gateway since it was complete to `held`; none when that is not known any more.
    pub(in crate::core) fn since_of_gateway(
        &mut self,
        name: &str,
        network: Id<Network>,
        held: Revision,
    ) -> Option<Vec<KeyedRow>> {
        let view = self.networks.get(&network)?;
        if held <= view.loaded || held > view.revision {
            return None;
        }
        let gone = view.service.gone_since(held)?;
        let own = self.rows_of_gateway(name, network);
        let keys: BTreeSet<RowKey> = own.iter().map(|row| row.key).collect();
        let is_there = |key: &RowKey| match key {
            RowKey::Neighbour(_, ip) => self.directory.row(view.index, *ip).is_some(),
            _ => keys.contains(key),
        };
        let gone = gone.filter(|(_, key)| !is_there(key));
        let mut rows: Vec<_> = gone
            .map(|(revision, key)| KeyedRow::gone(*revision, key))
            .collect();
        let told = |row: &KeyedRow| row.revision > held || self.names_gateways(&row.key);
        rows.extend(own.into_iter().filter(told));
        rows.extend(self.neighbours_of(name, view, held));
        self.work.rows_looked_at += rows.len() as u64;
        Some(rows)
    }
}
