//! What there is, network by network, and what a host must have of it: its own ports, their subnets and network, and
//! one neighbour row per address of the ports on other hosts.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::IpAddr,
    num::NonZeroU16,
    sync::Arc,
};

use alcor_dataplane::{NeighbourRow, NetworkRow, PortRow, Row, RowKey, SubnetRow};
use alcor_model::{Id, Label, Network, Port, Revision, SecurityGroup, Subnet, net::GATEWAY_MAC};
use alcor_southbound::frame::SharedRow;

use super::{
    Ncm,
    gateways::{Service, has_use_of},
    labels::Untold,
    learned::Left,
    routing::Interest,
    session::Outgoing,
    underlay::Underlay,
};
use crate::directory::NetworkIndex;

#[cfg(test)]
thread_local! {
    /// Rows made by this thread.
    pub(super) static ROWS_MADE: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

/// A row as it goes into a delta, with its key.
#[derive(Clone, Debug)]
pub(super) struct KeyedRow {
    pub key: RowKey,
    /// A tombstone.
    pub gone: bool,
    pub revision: Revision,
    /// With it a host asks for labels of neighbours in the peers of the network: it must not be there before those labels.
    pub asks: bool,
    /// Shared by all hosts that are told of it, and encoded for the first of them.
    pub row: SharedRow,
}

impl KeyedRow {
    pub(super) fn put(revision: Revision, row: Row) -> Self {
        #[cfg(test)]
        ROWS_MADE.set(ROWS_MADE.get() + 1);
        Self {
            key: row.key(),
            gone: false,
            revision,
            asks: false,
            row: SharedRow::put(revision, row),
        }
    }

    pub(super) fn gone(revision: Revision, key: &RowKey) -> Self {
        Self {
            key: *key,
            gone: true,
            revision,
            asks: false,
            row: SharedRow::gone(revision, *key),
        }
    }

    pub(super) fn asking(self, asks: bool) -> Self {
        Self { asks, ..self }
    }

    /// The address of a neighbour's row.
    pub(super) const fn neighbour(&self) -> Option<IpAddr> {
        match self.key {
            RowKey::Neighbour(_, ip) => Some(ip),
            _ => None,
        }
    }
}

/// A host's ports under one group.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Membership {
    pub ports: u32,
    /// Since when there is one. The rules must be newer than the word that they are not needed any more, which the host
    /// may have had before.
    pub since: Revision,
}

/// A group, and a network with ports under it.
pub(super) type GroupIn = (Id<Network>, Id<SecurityGroup>);

/// One network.
#[derive(Debug)]
pub(super) struct NetworkView {
    /// Its number in the directory.
    pub index: NetworkIndex,
    /// Whether hosts ask for neighbours, and the change that it is so since.
    pub learned: bool,
    pub mode_since: Revision,
    /// Addresses of bound ports.
    pub addresses: usize,
    /// Ports that have left hosts lately.
    pub left: Left,
    pub network: Option<Arc<Network>>,
    pub subnets: BTreeMap<Id<Subnet>, Arc<Subnet>>,
    pub ports: BTreeMap<Id<Port>, Arc<Port>>,
    /// The bound ports by host.
    pub by_host: BTreeMap<String, BTreeSet<Id<Port>>>,
    /// Who must know the network: these hosts, and those with ports in its peers.
    pub interested: BTreeMap<String, Interest>,
    /// The newest revision of anything here.
    pub revision: Revision,
    /// Keys that somebody may have to forget, oldest first, with the revision since when.
    pub tombstones: VecDeque<(Revision, RowKey)>,
    /// Deletions up to this revision are no longer all in `tombstones`.
    pub tombstones_from: Revision,
    /// What numbers mean.
    pub labels: BTreeMap<NonZeroU16, Arc<Label>>,
    /// Numbers that rest until every host has forgotten them, with the revision since when.
    pub retired: BTreeMap<Id<Label>, Revision>,
    /// Which host has ports under which group.
    pub group_hosts: BTreeMap<Id<SecurityGroup>, BTreeMap<String, Membership>>,
    /// The state of the region that this was loaded from; zero for a network that came later.
    pub loaded: Revision,
    /// Where tunnel packets may come from, and since when.
    pub underlay: Underlay,
    /// Hosts that pass nothing on any more. Their addresses go out of `underlay` with its next change: there is no
    /// revision for one of their own.
    pub passed_on: BTreeSet<String>,
    pub underlay_revision: Revision,
    /// Hosts whose rules ask for labels of neighbours, with the groups that do and the network whose ports are under them:
    /// this one, or a peer.
    pub lookers: BTreeMap<String, BTreeSet<GroupIn>>,
    /// Labels of neighbours that the others may still have.
    pub untold: Untold,
    /// Ports whose neighbour rows were told again after their last change.
    pub retold: BTreeMap<Id<Port>, Revision>,
    /// The newest revision of neighbours that every host was told.
    pub told: Revision,
    /// The newest revision of labels of neighbours that lookers were told.
    pub told_lookers: Revision,
    /// Its gateways.
    pub service: Service,
}

impl NetworkView {
    pub(super) fn new(index: NetworkIndex, learned: bool) -> Self {
        Self {
            index,
            learned,
            mode_since: Revision::ZERO,
            addresses: 0,
            left: Left::default(),
            network: None,
            subnets: BTreeMap::new(),
            ports: BTreeMap::new(),
            by_host: BTreeMap::new(),
            interested: BTreeMap::new(),
            revision: Revision::ZERO,
            tombstones: VecDeque::new(),
            tombstones_from: Revision::ZERO,
            labels: BTreeMap::new(),
            retired: BTreeMap::new(),
            group_hosts: BTreeMap::new(),
            loaded: Revision::ZERO,
            underlay: Underlay::default(),
            passed_on: BTreeSet::new(),
            underlay_revision: Revision::ZERO,
            lookers: BTreeMap::new(),
            untold: Untold::default(),
            retold: BTreeMap::new(),
            told: Revision::ZERO,
            told_lookers: Revision::ZERO,
            service: Service::default(),
        }
    }

    /// Whether there are too many neighbours for every host to have them all; of a learned network, whether there are
    /// still more than half of that.
    pub(super) fn is_to_be_learned(&self, max: usize) -> bool {
        let rows = self.interested.len().saturating_mul(self.addresses);
        match self.learned {
            true => rows > max / 2,
            false => rows > max,
        }
    }

    /// The revision of the network's row, for a host that filters or not.
    pub(super) fn network_revision(&self, filters: bool) -> Option<Revision> {
        let revision = self.network.as_ref()?.revision.max(self.mode_since);
        Some(match filters {
            true => revision.max(self.underlay_revision),
            false => revision,
        })
    }

    /// The row of the network, for a host that filters or not.
    pub(super) fn network_row(&self, filters: bool) -> Option<KeyedRow> {
        let row = self.network.as_ref()?;
        let underlay = filters.then(|| self.underlay.blocks());
        let sent = Row::Network(NetworkRow {
            id: row.id,
            vni: row.segmentation_id,
            mtu: row.mtu,
            admin_state_up: row.admin_state_up,
            underlay,
            on_demand: self.learned,
            gateways: self.service.ways.clone(),
        });
        Some(KeyedRow::put(self.network_revision(filters)?, sent))
    }

    pub(super) fn subnet_rows(&self) -> impl Iterator<Item = KeyedRow> {
        let rows = self.subnets.values();
        rows.map(|row| KeyedRow::put(row.revision, subnet_row(row)))
    }

    /// When what others know of a port was last told, apart from where its host is.
    pub(super) fn revision_of(&self, port: &Port) -> Revision {
        let retold = self.retold.get(&port.id).copied().unwrap_or_default();
        port.revision.max(retold)
    }

    /// The neighbour rows of a port, for hosts other than its own; for one that it has left with the word to pass on what
    /// comes for it.
    pub(super) fn neighbour_rows(
        &self,
        port: &Port,
        tunnel: Option<(IpAddr, Revision)>,
        forward: bool,
    ) -> Vec<KeyedRow> {
        let Some((host, host_revision)) = tunnel else {
            return Vec::new();
        };
        let revision = self.revision_of(port).max(host_revision);
        let row = |ip| {
            Row::Neighbour(NeighbourRow {
                network_id: port.network_id,
                ip,
                mac: port.mac_address,
                host,
                label: port.label.unwrap_or_default(),
                forward,
            })
        };
        port.fixed_ips
            .iter()
            .map(|fixed| KeyedRow::put(revision, row(fixed.ip_address)))
            .collect()
    }

    pub(super) fn bury(&mut self, limit: usize, revision: Revision, key: RowKey) {
        if has_use_of(&key) {
            self.service.bury(limit, revision, key);
        }
        self.bury_on_hosts(limit, revision, key);
    }

    /// Something is gone from a host that gateways may still have.
    pub(super) fn bury_on_hosts(&mut self, limit: usize, revision: Revision, key: RowKey) {
        self.tombstones.push_back((revision, key));
        while self.tombstones.len() > limit {
            if let Some((revision, _)) = self.tombstones.pop_front() {
                self.tombstones_from = revision;
            }
        }
    }
}

fn subnet_row(row: &Subnet) -> Row {
    // An IPv6 subnet without a mode is configured by its users: nothing is announced (as in Neutron).
    let announced = row.cidr.addr().is_ipv4() || row.ipv6_ra_mode.is_some();
    Row::Subnet(SubnetRow {
        id: row.id,
        network_id: row.network_id,
        cidr: row.cidr,
        gateway_ip: row.gateway_ip,
        gateway_mac: GATEWAY_MAC,
        enable_dhcp: row.enable_dhcp && announced,
        slaac: row.is_auto_address(),
        dns_nameservers: row.dns_nameservers.clone(),
        host_routes: row.host_routes.clone(),
    })
}

/// A port for its own host. A host that does not filter is not told a label.
pub(super) fn port_row(row: &Port, filters: bool) -> KeyedRow {
    let sent = Row::Port(PortRow {
        id: row.id,
        network_id: row.network_id,
        mac: row.mac_address,
        fixed_ips: row.fixed_ips.clone(),
        allowed_address_pairs: row.allowed_address_pairs.clone(),
        admin_state_up: row.admin_state_up,
        port_security_enabled: row.port_security_enabled,
        dns_name: row.dns_name.clone(),
        label: row.label.filter(|_| filters),
    });
    KeyedRow::put(row.revision, sent)
}

impl Ncm {
    pub(super) fn interested(&self, network: Id<Network>) -> Vec<String> {
        self.networks
            .get(&network)
            .map(|view| view.interested.keys().cloned().collect())
            .unwrap_or_default()
    }

    /// The hosts of a network, and its gateways.
    pub(super) fn interested_or_serving(&self, network: Id<Network>) -> Vec<String> {
        let view = self.networks.get(&network);
        let gateways = view.map(|view| view.service.names()).unwrap_or_default();
        self.interested(network).into_iter().chain(gateways).collect()
    }

    /// The hosts of a network, those that are to forget it soon, and its gateways.
    pub(super) fn concerned(&self, network: Id<Network>) -> BTreeSet<String> {
        let view = self.networks.get(&network).into_iter();
        let of_view = |view: &NetworkView| {
            let hosts = view.interested.keys().chain(view.left.hosts());
            hosts.cloned().chain(view.service.names()).collect::<Vec<_>>()
        };
        view.flat_map(of_view).collect()
    }

    pub(super) fn pend_rows(&mut self, host: &str, network: Id<Network>, rows: &[KeyedRow]) {
        if rows.is_empty() {
            return;
        }
        let (filters, is_gateway) = (self.filters(host), self.is_gateway(host));
        let takes = |row: &&KeyedRow| match is_gateway {
            true => has_use_of(&row.key),
            false => filters || !row.key.is_security(),
        };
        if let Some(pending) = self.pend(host, network) {
            pending.rows.extend(rows.iter().filter(takes).cloned());
        }
    }

    pub(super) fn touch(&mut self, network: Id<Network>, revision: Revision) -> &mut NetworkView {
        let view = self.networks.entry(network).or_insert_with(|| {
            let learned = self.were_learned.contains(&network);
            NetworkView::new(self.directory.network(network), learned)
        });
        view.revision = view.revision.max(revision);
        view
    }

    pub(super) fn put_network(&mut self, row: Arc<Network>) {
        let (id, revision) = (row.id, row.revision);
        let known = self.touch(id, revision).network.replace(row);
        self.pend_network(id);
        if known.is_none() {
            self.assign(id, revision);
            self.refresh([id]);
        }
    }

    /// Every host in the network gets its row, and so do its gateways.
    pub(super) fn pend_network(&mut self, id: Id<Network>) {
        for host in self.interested_or_serving(id) {
            if let Some(pending) = self.pend(&host, id) {
                pending.network = true;
            }
        }
    }

    /// A host or gateway has come into the network, has left it, or has another tunnel address. One that a port has left lately
    /// may pass packets on, and is among those that packets come from.
    pub(super) fn reach(&mut self, host: &str, network: Id<Network>, revision: Revision) {
        let gateway = self.fleet.row(host).map(|row| row.tunnel_ip);
        let tunnel = gateway.or(self.tunnel(host).map(|(ip, _)| ip));
        let view = self.touch(network, revision);
        let sends = |view: &NetworkView, host: &str| {
            view.interested.contains_key(host) || view.left.lingers(host) || view.service.has(host)
        };
        let here = sends(view, host);
        let mut changes = view.underlay.set(host, tunnel.filter(|_| here));
        for host in std::mem::take(&mut view.passed_on) {
            changes |= !sends(view, &host) && view.underlay.set(&host, None);
        }
        if changes {
            view.underlay_revision = view.underlay_revision.max(revision);
            self.pend_network(network);
        }
    }

    pub(super) fn delete_network(&mut self, id: Id<Network>) {
        // The region deletes ports first; whoever is left is told to forget all the same.
        for host in self.concerned(id) {
            self.forget_learned(&host, id);
            if let Some(pending) = self.pend(&host, id) {
                pending.forget = true;
            }
        }
        for host in self.hosts_with_ports(id) {
            self.visit(&host, id, false, self.revision);
        }
        let Some(view) = self.networks.remove(&id) else {
            return;
        };
        for host in view.interested.keys() {
            if let Some(networks) = self.host_networks.get_mut(host) {
                networks.remove(&id);
                if networks.is_empty() {
                    self.host_networks.remove(host);
                    self.strangers.unplaced(host);
                }
            }
            if let Some(host) = self.directory.known(host) {
                self.directory.visit(host, (id, view.index), false);
            }
        }
        self.unserve(id, &view.service.names());
        for (port, row) in &view.ports {
            self.port_networks.remove(port);
            if let Some(host) = row.binding.host().and_then(|host| self.directory.known(host)) {
                self.directory.leave(host, id, *port);
            }
            for fixed in &row.fixed_ips {
                self.directory.remove(view.index, fixed.ip_address);
            }
        }
        for subnet in view.subnets.keys() {
            self.subnet_networks.remove(subnet);
        }
        for group in view.group_hosts.keys() {
            self.security.left(*group, id);
        }
        self.directory.forget_network(id);
    }

    pub(super) fn put_subnet(&mut self, row: Arc<Subnet>) {
        let (id, revision) = (row.network_id, row.revision);
        let rows = [KeyedRow::put(revision, subnet_row(&row))];
        self.subnet_networks.insert(row.id, id);
        self.touch(id, row.revision).subnets.insert(row.id, row);
        for host in self.interested(id) {
            self.pend_rows(&host, id, &rows);
        }
        self.review_floating_ips_out(id, revision);
    }

    pub(super) fn delete_subnet(&mut self, id: Id<Subnet>, revision: Revision) {
        let Some(network) = self.subnet_networks.remove(&id) else {
            return;
        };
        let (limit, key) = (self.options.tombstones, RowKey::Subnet(network, id));
        let view = self.touch(network, revision);
        view.subnets.remove(&id);
        view.bury(limit, revision, key);
        let rows = [KeyedRow::gone(revision, &key)];
        for host in self.interested(network) {
            self.pend_rows(&host, network, &rows);
        }
        self.review_floating_ips_out(network, revision);
    }

    /// Everything that a host must have of a network, in an order in which it can be applied; nothing when it is not
    /// interested. Of a gateway, all but the neighbours.
    pub(super) fn intended(&self, host: &str, network: Id<Network>) -> Vec<KeyedRow> {
        if self.is_gateway(host) {
            return self.rows_of_gateway(host, network);
        }
        let view = self.networks.get(&network);
        let neighbours = |view: &NetworkView| match view.learned {
            true => self.left_rows(host, view),
            false => self.neighbours_of(host, view, Revision::ZERO),
        };
        view.map(|view| self.intended_with(host, network, view, neighbours(view)))
            .unwrap_or_default()
    }

    pub(super) fn intended_with(
        &self,
        host: &str,
        network: Id<Network>,
        view: &NetworkView,
        mut neighbours: Vec<KeyedRow>,
    ) -> Vec<KeyedRow> {
        let filters = self.filters(host);
        let row = view.network_row(filters);
        let Some(row) = row.filter(|_| view.interested.contains_key(host)) else {
            return Vec::new();
        };
        let own = view.by_host.get(host).into_iter().flatten();
        let mut rows = vec![row];
        rows.extend(view.subnet_rows());
        // Labels of neighbours before what asks for them; else what the host's own ports need comes first.
        if view.looks(host) {
            rows.append(&mut neighbours);
        }
        let asks = view.asks(host, network);
        rows.extend(self.router_rows(network).map(|row| row.asking(asks)));
        if filters {
            rows.extend(self.policies(host, network, view));
            rows.extend(view.label_rows());
        }
        let own = own.filter_map(|id| view.ports.get(id));
        rows.extend(own.map(|port| port_row(port, filters)));
        rows.extend(self.floating_ip_rows_on(host, view));
        rows.append(&mut neighbours);
        rows
    }

    /// The ports of a network on other hosts, as far as they are newer than a revision.
    pub(super) fn neighbours_of(&self, host: &str, view: &NetworkView, held: Revision) -> Vec<KeyedRow> {
        let others = view.by_host.iter().filter(|(other, _)| *other != host);
        let rows = |(other, ports): (&String, &BTreeSet<Id<Port>>)| {
            let tunnel = self.tunnel(other);
            let moved = tunnel.is_some_and(|(_, revision)| revision > held);
            let ports = ports.iter().filter_map(|id| view.ports.get(id));
            let ports = ports.filter(|port| moved || view.revision_of(port) > held);
            let rows = ports.flat_map(|port| {
                let forward = view.left.has(port.id, host);
                view.neighbour_rows(port, tunnel, forward)
            });
            rows.collect::<Vec<_>>()
        };
        others.flat_map(rows).collect()
    }

    /// A full snapshot in parts. In a learned network the host may have missed changes of what it has learned in this
    /// session, so that is part of it.
    pub(super) fn snapshot_of(&mut self, host: &str, network: Id<Network>, now_us: u64) -> Vec<Outgoing> {
        let Some(view) = self.networks.get(&network) else {
            return vec![Outgoing::forget(network, now_us)];
        };
        self.learn_left(host, view);
        if !view.interested.contains_key(host) && view.left.lingers(host) && !self.has_outside(host) {
            // What it has missed is not known.
            let (_, rows) = self.lingering_rows(host, view, Revision::ZERO);
            self.sends_unasked(host, network, &rows);
            return vec![
                Outgoing::forget(network, now_us),
                Outgoing::delta(network, Revision::ZERO, rows, now_us),
            ];
        }
        let neighbours = match view.learned {
            true => {
                let left = self.left_rows(host, view);
                let keys: BTreeSet<RowKey> = left.iter().map(|row| row.key).collect();
                let learned = self.learned_rows(host, network, view).into_iter();
                learned
                    .filter(|row| !keys.contains(&row.key))
                    .chain(left)
                    .collect()
            }
            false => {
                // It is told of all neighbours from now on, and this takes away what it does not name.
                if let Some(host) = self.directory.known(host) {
                    self.directory.unlearn_all(host, view.index);
                }
                self.neighbours_of(host, view, Revision::ZERO)
            }
        };
        let rows = self.intended_with(host, network, view, neighbours);
        if view.learned {
            self.sends_unasked(host, network, &rows);
        }
        self.work.rows_looked_at += rows.len() as u64;
        match rows.is_empty() {
            true => vec![Outgoing::forget(network, now_us)],
            false => {
                let after = self.routing.peers(network);
                Outgoing::snapshot(
                    network,
                    view.revision,
                    rows,
                    &after,
                    self.options.message_rows,
                    now_us,
                )
            }
        }
    }

    /// Whether the list of gateways of a row may be another one at the same revision.
    pub(super) fn names_gateways(&self, key: &RowKey) -> bool {
        match key {
            RowKey::Network(id) => self.is_learned(*id),
            RowKey::Router(_, id) => self.routing.leads_out(*id),
            _ => false,
        }
    }

    /// What changed for a host in a network since it was complete to `held`; `None` when that is not known any more.
    pub(super) fn since(
        &mut self,
        host: &str,
        network: Id<Network>,
        held: Revision,
    ) -> Option<Vec<KeyedRow>> {
        if self.is_gateway(host) {
            return self.since_of_gateway(host, network, held);
        }
        let view = self.networks.get(&network)?;
        let oldest = view.tombstones_from.max(view.mode_since);
        if held <= view.loaded || held < oldest || held > view.revision {
            return None;
        }
        let intended = self.intended(host, network);
        self.work.rows_looked_at += intended.len() as u64;
        let keys: BTreeSet<RowKey> = intended.iter().map(|row| row.key).collect();
        let start = view.tombstones.partition_point(|(revision, _)| *revision <= held);
        let gone = view
            .tombstones
            .iter()
            .skip(start)
            .map(|(revision, key)| KeyedRow::gone(*revision, key));
        let gone = gone.filter(|row| !keys.contains(&row.key));
        let mut rows: Vec<_> = gone.collect();
        let told = |row: &KeyedRow| row.revision > held || self.names_gateways(&row.key);
        rows.extend(intended.into_iter().filter(told));
        Some(rows)
    }
}
