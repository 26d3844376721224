//! The outside: floating IPs, each in the network of the address that it leads to.
//!
//! A floating IP is answered by the host of its port where that host has the external network, else by the gateways. Which networks
//! a host has is in its row, as its agent said last: that outlives the host's session and this NCM, so a floating IP does not
//! change hands because somebody was started again. Gateways have the rows of all floating IPs; of hosts only the one that answers.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use alcor_dataplane::{ExternalRow, FloatingIpRow, Row, RowKey};
use alcor_model::{FloatingIp, Host, Id, Network, Port, Revision, Router, Subnet};
use ipnet::{IpNet, Ipv4Net};

use super::{
    Ncm,
    view::{KeyedRow, NetworkView},
};

/// What is told of a floating IP.
#[derive(Clone, Debug)]
pub(super) struct Told {
    pub row: FloatingIpRow,
    /// The host that answers.
    pub host: Option<String>,
    /// Since when it is so.
    pub revision: Revision,
}

impl Told {
    pub(super) fn key(&self) -> RowKey {
        Row::FloatingIp(self.row).key()
    }
}

/// One floating IP.
#[derive(Debug)]
pub(super) struct Known {
    pub row: Arc<FloatingIp>,
    /// Nothing while it leads nowhere.
    pub told: Option<Told>,
}

/// Floating IPs, and what they depend on.
#[derive(Debug, Default)]
pub(super) struct FloatingView {
    pub known: BTreeMap<Id<FloatingIp>, Known>,
    /// Those that lead to a port.
    by_port: BTreeMap<Id<Port>, BTreeSet<Id<FloatingIp>>>,
    /// Those that are told in a network.
    pub by_network: BTreeMap<Id<Network>, BTreeSet<Id<FloatingIp>>>,
    /// Those of an external network.
    by_external: BTreeMap<Id<Network>, BTreeSet<Id<FloatingIp>>>,
    /// Those of which something has happened since it was last looked whether they are in force.
    pub unjudged: BTreeSet<Id<FloatingIp>>,
    /// Those that the region was told of: judged again when no others wait, until it keeps the same.
    pub untaken: BTreeSet<Id<FloatingIp>>,
    /// The state of the region that was loaded.
    pub loaded_at: Revision,
}

/// Puts a value under a key, or takes it away.
fn enter<K: Ord, V: Ord>(index: &mut BTreeMap<K, BTreeSet<V>>, key: K, value: V, is_in: bool) {
    if is_in {
        index.entry(key).or_default().insert(value);
    } else if let Some(values) = index.get_mut(&key) {
        values.remove(&value);
        if values.is_empty() {
            index.remove(&key);
        }
    }
}

impl FloatingView {
    fn enter(&mut self, row: &FloatingIp, is_in: bool) {
        enter(&mut self.by_external, row.floating_network_id, row.id, is_in);
        if let Some(association) = row.association {
            enter(&mut self.by_port, association.port_id, row.id, is_in);
        }
    }

    /// Replaces or removes a row; gives what was told of it.
    fn replace(&mut self, id: Id<FloatingIp>, row: Option<Arc<FloatingIp>>) -> Option<Told> {
        let old = self.known.remove(&id);
        if let Some(old) = &old {
            self.enter(&old.row, false);
        }
        let told = old.and_then(|old| old.told);
        if let Some(row) = row {
            self.enter(&row, true);
            let told = told.clone();
            self.known.insert(id, Known { row, told });
        }
        told
    }

    /// Writes down what is told from now on.
    fn tell(&mut self, id: Id<FloatingIp>, old: Option<&Told>, new: Option<Told>) {
        if let Some(old) = old {
            enter(&mut self.by_network, old.row.network_id, id, false);
        }
        if let Some(new) = &new {
            enter(&mut self.by_network, new.row.network_id, id, true);
        }
        if let Some(known) = self.known.get_mut(&id) {
            known.told = new;
        }
    }

    fn told<'a>(&'a self, ids: Option<&'a BTreeSet<Id<FloatingIp>>>) -> impl Iterator<Item = &'a Told> {
        let ids = ids.into_iter().flatten();
        ids.filter_map(|id| self.known.get(id)?.told.as_ref())
    }

    /// A whole state was loaded: what was told before may have come from rows that are gone, and was not older than this.
    pub(super) fn loaded(&mut self, revision: Revision) {
        for told in self.known.values_mut().filter_map(|known| known.told.as_mut()) {
            told.revision = revision;
        }
        self.unjudged = self.known.keys().copied().collect();
        self.untaken.clear();
        self.loaded_at = revision;
    }
}

const fn ipv4(ip: IpAddr) -> Option<Ipv4Addr> {
    match ip {
        IpAddr::V4(ip) => Some(ip),
        IpAddr::V6(_) => None,
    }
}

/// An IPv4 subnet's block and gateway.
fn ipv4_subnet(subnet: &Subnet) -> Option<(Ipv4Net, Option<Ipv4Addr>)> {
    match subnet.cidr {
        IpNet::V4(cidr) => Some((cidr, subnet.gateway_ip.and_then(ipv4))),
        IpNet::V6(_) => None,
    }
}

impl Ncm {
    /// What is to be known of a floating IP, and the host that answers: nothing while it leads nowhere.
    fn floating_ip_row(&self, row: &FloatingIp) -> Option<(FloatingIpRow, Option<String>)> {
        let association = row.association?;
        let network_id = *self.port_networks.get(&association.port_id)?;
        let floating_ip = ipv4(row.floating_ip_address)?;
        let subnets = self.networks.get(&row.floating_network_id).into_iter();
        let mut subnets = subnets.flat_map(|view| view.subnets.values().filter_map(|row| ipv4_subnet(row)));
        let subnet = subnets.find(|(cidr, _)| cidr.contains(&floating_ip));
        let host = self.answering(row.floating_network_id, network_id, association.port_id);
        // Without the block it could not tell what its neighbours are.
        let host = host.filter(|_| subnet.is_some());
        let found = FloatingIpRow {
            id: row.id,
            network_id,
            router_id: row.router_id?,
            floating_ip,
            fixed_ip: ipv4(association.fixed_ip_address)?,
            external_network_id: row.floating_network_id,
            host: host.map(|host| host.tunnel_ip),
            cidr: subnet.map(|(cidr, _)| cidr),
            nexthop: subnet.and_then(|(_, gateway)| gateway),
        };
        Some((found, host.map(|host| host.name.clone())))
    }

    /// The host of a port, if it has an external network.
    fn answering(&self, external: Id<Network>, network: Id<Network>, port: Id<Port>) -> Option<&Arc<Host>> {
        let port = self.networks.get(&network)?.ports.get(&port)?;
        let host = self.hosts.get(port.binding.host()?)?.row.as_ref()?;
        host.external_networks.contains(&external).then_some(host)
    }

    pub(super) fn put_floating_ip(&mut self, row: Arc<FloatingIp>) {
        let (id, revision) = (row.id, row.revision);
        let old = self.floating.replace(id, Some(row));
        self.review_floating_ip(id, old, revision);
    }

    pub(super) fn delete_floating_ip(&mut self, id: Id<FloatingIp>, revision: Revision) {
        let old = self.floating.replace(id, None);
        self.review_floating_ip(id, old, revision);
    }

    /// A port is on another host, or is gone.
    pub(super) fn review_floating_ips_of(&mut self, port: Id<Port>, revision: Revision) {
        let ids = self.floating.by_port.get(&port).cloned();
        self.review_floating_ips(ids, revision);
    }

    /// A host has other external networks, or another tunnel address.
    pub(super) fn review_floating_ips_on(&mut self, host: &str, revision: Revision) {
        let views = self.views_of(host);
        let ports = views.flat_map(|(_, view)| view.by_host.get(host).into_iter().flatten());
        let ports = ports.filter_map(|port| self.floating.by_port.get(port));
        let ids: BTreeSet<_> = ports.flatten().copied().collect();
        self.review_floating_ips(Some(ids), revision);
    }

    /// Subnets of an external network are others.
    pub(super) fn review_floating_ips_out(&mut self, external: Id<Network>, revision: Revision) {
        let ids = self.floating.by_external.get(&external).cloned();
        self.review_floating_ips(ids, revision);
    }

    fn review_floating_ips(&mut self, ids: Option<BTreeSet<Id<FloatingIp>>>, revision: Revision) {
        for id in ids.into_iter().flatten() {
            let known = self.floating.known.get(&id);
            let old = known.and_then(|known| known.told.clone());
            self.review_floating_ip(id, old, revision);
        }
    }

    /// Something that a floating IP depends on may have changed: tells those whom it concerns.
    fn review_floating_ip(&mut self, id: Id<FloatingIp>, old: Option<Told>, revision: Revision) {
        self.floating.unjudged.insert(id);
        let row = self.floating.known.get(&id).map(|known| Arc::clone(&known.row));
        let new = row.and_then(|row| self.floating_ip_row(&row));
        let same =
            |old: &Told, new: &(FloatingIpRow, Option<String>)| (old.row, &old.host) == (new.0, &new.1);
        match (&old, &new) {
            (None, None) => return,
            // A name, or a revision number.
            (Some(old), Some(new)) if same(old, new) => return,
            _ => {}
        }
        let told = |(row, host)| Told { row, host, revision };
        let new: Option<Told> = new.map(told);
        self.floating.tell(id, old.as_ref(), new.clone());
        if let Some(old) = old {
            self.end_floating_ip(&old, new.as_ref(), revision);
        }
        if let Some(Told { row, host, .. }) = new {
            self.touch(row.network_id, revision);
            let rows = [KeyedRow::put(revision, Row::FloatingIp(row))];
            if let Some(host) = host {
                self.pend_rows(&host, row.network_id, &rows);
            }
            self.pend_gateways(row.network_id, &rows);
        }
    }

    /// Who was told of a floating IP and is not any more forgets it.
    fn end_floating_ip(&mut self, old: &Told, new: Option<&Told>, revision: Revision) {
        let (network, key, limit) = (old.row.network_id, old.key(), self.options.tombstones);
        let new = new.filter(|new| new.row.network_id == network);
        let rows = [KeyedRow::gone(revision, &key)];
        let view = self.touch(network, revision);
        if new.is_none() {
            view.service.bury(limit, revision, key);
        }
        let left = old.host.as_ref();
        let left = left.filter(|host| new.is_none_or(|new| new.host.as_ref() != Some(*host)));
        if let Some(host) = left {
            view.bury_on_hosts(limit, revision, key);
            self.pend_rows(host, network, &rows);
        }
        if new.is_none() {
            self.pend_gateways(network, &rows);
        }
    }

    /// The floating IPs that lead into a network.
    pub(super) fn floating_ip_rows(&self, network: Id<Network>) -> impl Iterator<Item = KeyedRow> + '_ {
        let told = self.floating.told(self.floating.by_network.get(&network));
        told.map(|told| KeyedRow::put(told.revision, Row::FloatingIp(told.row)))
    }

    /// The same, only keys and revisions.
    pub(super) fn floating_ip_revisions(
        &self,
        network: Id<Network>,
    ) -> impl Iterator<Item = (RowKey, Revision)> + '_ {
        let told = self.floating.told(self.floating.by_network.get(&network));
        told.map(|told| (told.key(), told.revision))
    }

    fn told_on<'a>(&'a self, host: &'a str, view: &'a NetworkView) -> impl Iterator<Item = &'a Told> + 'a {
        let ports = view.by_host.get(host).into_iter().flatten();
        let told = ports.flat_map(|port| self.floating.told(self.floating.by_port.get(port)));
        told.filter(move |told| told.host.as_deref() == Some(host))
    }

    /// The rows of floating IPs that a host answers for in a network.
    pub(super) fn floating_ip_rows_on<'a>(
        &'a self,
        host: &'a str,
        view: &'a NetworkView,
    ) -> impl Iterator<Item = KeyedRow> + 'a {
        let told = self.told_on(host, view);
        told.map(|told| KeyedRow::put(told.revision, Row::FloatingIp(told.row)))
    }

    /// Whether a host may have to answer for floating IPs. One that has missed changes while it passed on what comes for ports that
    /// have left it must not go on answering for theirs: it forgets the network instead.
    pub(super) fn has_outside(&self, host: &str) -> bool {
        self.hosts.get(host).is_some_and(|entry| entry.status.has_outside)
    }

    /// The floating IPs that a host answers for in a network, with their revisions. What a host that has not said hello yet is known to
    /// have is compared with the region's row.
    pub(super) fn floating_ips_on<'a>(
        &'a self,
        host: &'a str,
        view: &'a NetworkView,
        is_heard: bool,
    ) -> impl Iterator<Item = (RowKey, Revision)> + 'a {
        let told = self.told_on(host, view);
        told.map(move |told| {
            let known = self.floating.known.get(&told.row.id).filter(|_| !is_heard);
            let revision = known.map_or(told.revision, |known| known.row.revision);
            (told.key(), revision)
        })
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
