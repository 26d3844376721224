//! The outside as gateways need it: floating IPs, each in the network of the address that it leads to.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use alcor_dataplane::{ExternalRow, FloatingIpRow, Row};
use alcor_model::{FloatingIp, Id, Network, Revision, Router};

use super::{Ncm, view::KeyedRow};

/// Floating IPs that lead somewhere.
#[derive(Debug, Default)]
pub(super) struct FloatingView {
    rows: BTreeMap<Id<FloatingIp>, (FloatingIpRow, Revision)>,
    by_network: BTreeMap<Id<Network>, BTreeSet<Id<FloatingIp>>>,
}

impl FloatingView {
    /// Replaces or removes one; gives what it was.
    fn set(&mut self, id: Id<FloatingIp>, row: Option<(FloatingIpRow, Revision)>) -> Option<FloatingIpRow> {
        let old = self.rows.remove(&id).map(|(row, _)| row);
        if let Some(old) = &old
            && let Some(ids) = self.by_network.get_mut(&old.network_id)
        {
            ids.remove(&id);
            if ids.is_empty() {
                self.by_network.remove(&old.network_id);
            }
        }
        if let Some((row, revision)) = row {
            self.by_network.entry(row.network_id).or_default().insert(id);
            self.rows.insert(id, (row, revision));
        }
        old
    }
}

const fn ipv4(ip: IpAddr) -> Option<Ipv4Addr> {
    match ip {
        IpAddr::V4(ip) => Some(ip),
        IpAddr::V6(_) => None,
    }
}

impl Ncm {
    /// What gateways must have of a floating IP: nothing while it leads nowhere.
    fn floating_ip_row(&self, row: &FloatingIp) -> Option<FloatingIpRow> {
        let association = row.association?;
        Some(FloatingIpRow {
            id: row.id,
            network_id: *self.port_networks.get(&association.port_id)?,
            router_id: row.router_id?,
            floating_ip: ipv4(row.floating_ip_address)?,
            fixed_ip: ipv4(association.fixed_ip_address)?,
            external_network_id: row.floating_network_id,
            host: None,
            cidr: None,
            nexthop: None,
        })
    }

    pub(super) fn put_floating_ip(&mut self, row: &FloatingIp) {
        self.set_floating_ip(row.id, self.floating_ip_row(row), row.revision);
    }

    pub(super) fn delete_floating_ip(&mut self, id: Id<FloatingIp>, revision: Revision) {
        self.set_floating_ip(id, None, revision);
    }

    fn set_floating_ip(&mut self, id: Id<FloatingIp>, new: Option<FloatingIpRow>, revision: Revision) {
        if self.floating.rows.get(&id).map(|(row, _)| row) == new.as_ref() {
            // A name, or a revision number.
            return;
        }
        let old = self.floating.set(id, new.map(|row| (row, revision)));
        let key = |row: FloatingIpRow| Row::FloatingIp(row).key();
        if let Some(old) = old.filter(|old| new.is_none_or(|new| new.network_id != old.network_id)) {
            let (limit, key) = (self.options.tombstones, key(old));
            let view = self.touch(old.network_id, revision);
            view.service.bury(limit, revision, key);
            self.pend_gateways(old.network_id, &[KeyedRow::gone(revision, &key)]);
        }
        if let Some(new) = new {
            self.touch(new.network_id, revision);
            let rows = [KeyedRow::put(revision, &Row::FloatingIp(new))];
            self.pend_gateways(new.network_id, &rows);
        }
    }

    /// The floating IPs that lead into a network.
    pub(super) fn floating_ip_rows(&self, network: Id<Network>) -> impl Iterator<Item = KeyedRow> + '_ {
        let ids = self.floating.by_network.get(&network).into_iter().flatten();
        let rows = ids.filter_map(|id| self.floating.rows.get(id));
        rows.map(|(row, revision)| KeyedRow::put(*revision, &Row::FloatingIp(*row)))
    }

    /// A router's way out, as its rows have it.
    pub(super) fn external_row(&self, router: &Arc<Router>, ways: &[IpAddr]) -> Option<ExternalRow> {
        let gateway = router.gateway?;
        let port = self.networks.get(&gateway.network_id);
        let port = port.and_then(|view| view.ports.get(&gateway.port_id));
        let mut addresses = port
            .into_iter()
            .flat_map(|port| &port.fixed_ips)
            .map(|fixed| fixed.ip_address);
        Some(ExternalRow {
            network_id: gateway.network_id,
            address: addresses.find_map(ipv4),
            enable_snat: gateway.enable_snat,
            gateways: ways.to_vec(),
        })
    }
}
