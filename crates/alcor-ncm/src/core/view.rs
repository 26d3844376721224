//! What there is, network by network, and what a host must have of it: its own ports, their subnets and network, and
//! one neighbour row per address of the ports on other hosts.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::IpAddr,
    num::NonZeroU16,
    sync::Arc,
};

use alcor_dataplane::{NeighbourRow, NetworkRow, PortRow, Row, RowKey, SubnetRow};
use alcor_model::{
    Host, Id, Label, MacAddr, Network, Port, Revision, SecurityGroup, Subnet, net::GATEWAY_MAC,
    resource::FixedIp,
};
use alcor_southbound::convert::{encode_row, encode_tombstone};

use super::{Ncm, labels::Untold, session::Outgoing, underlay::Underlay};

/// A row as it goes into a delta, with its key.
#[derive(Clone, Debug)]
pub(super) struct KeyedRow {
    pub key: RowKey,
    /// A tombstone.
    pub gone: bool,
    pub revision: Revision,
    pub row: alcor_proto::v1::Row,
}

impl KeyedRow {
    pub(super) fn put(revision: Revision, row: &Row) -> Self {
        Self {
            key: row.key(),
            gone: false,
            revision,
            row: encode_row(revision, row),
        }
    }

    pub(super) fn gone(revision: Revision, key: &RowKey) -> Self {
        Self {
            key: *key,
            gone: true,
            revision,
            row: encode_tombstone(revision, key),
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

/// One network.
#[derive(Debug, Default)]
pub(super) struct NetworkView {
    pub network: Option<Arc<Network>>,
    pub subnets: BTreeMap<Id<Subnet>, Arc<Subnet>>,
    pub ports: BTreeMap<Id<Port>, Arc<Port>>,
    /// The bound ports by host: who is here is interested in the network.
    pub by_host: BTreeMap<String, BTreeSet<Id<Port>>>,
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
    pub underlay_revision: Revision,
    /// Hosts whose rules ask for labels of neighbours, with the groups that do.
    pub lookers: BTreeMap<String, BTreeSet<Id<SecurityGroup>>>,
    /// Labels of neighbours that the others may still have.
    pub untold: Untold,
    /// Ports whose neighbour rows were told again after their last change.
    pub retold: BTreeMap<Id<Port>, Revision>,
    /// The newest revision of neighbours that every host was told.
    pub told: Revision,
    /// The newest revision of labels of neighbours that lookers were told.
    pub told_lookers: Revision,
}

impl NetworkView {
    /// The row of the network, for a host that filters or not.
    pub(super) fn network_row(&self, filters: bool) -> Option<KeyedRow> {
        let row = self.network.as_ref()?;
        let (revision, underlay) = match filters {
            true => (
                row.revision.max(self.underlay_revision),
                Some(self.underlay.blocks()),
            ),
            false => (row.revision, None),
        };
        let sent = Row::Network(NetworkRow {
            id: row.id,
            vni: row.segmentation_id,
            mtu: row.mtu,
            admin_state_up: row.admin_state_up,
            underlay,
            on_demand: false,
        });
        Some(KeyedRow::put(revision, &sent))
    }

    pub(super) fn subnet_rows(&self) -> impl Iterator<Item = KeyedRow> {
        let rows = self.subnets.values();
        rows.map(|row| KeyedRow::put(row.revision, &subnet_row(row)))
    }

    /// The neighbour rows of a port, for hosts other than its own.
    pub(super) fn neighbour_rows(&self, port: &Port, tunnel: Option<(IpAddr, Revision)>) -> Vec<KeyedRow> {
        let Some((host, host_revision)) = tunnel else {
            return Vec::new();
        };
        let retold = self.retold.get(&port.id).copied().unwrap_or_default();
        let revision = port.revision.max(host_revision).max(retold);
        let row = |ip| {
            Row::Neighbour(NeighbourRow {
                network_id: port.network_id,
                ip,
                mac: port.mac_address,
                host,
                label: port.label.unwrap_or_default(),
                forward: false,
            })
        };
        port.fixed_ips
            .iter()
            .map(|fixed| KeyedRow::put(revision, &row(fixed.ip_address)))
            .collect()
    }

    pub(super) fn bury(&mut self, limit: usize, revision: Revision, key: RowKey) {
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
    KeyedRow::put(row.revision, &sent)
}

/// How a port's place changed.
struct Moved {
    old: Option<Arc<Port>>,
    from: Option<String>,
    to: Option<String>,
    /// `from` has no other port in the network.
    left: bool,
    /// `to` had no other port in the network.
    entered: bool,
    /// Groups that `to` had no port under.
    needed: Vec<Id<SecurityGroup>>,
    /// Groups that `from` has no port under any more.
    dropped: Vec<Id<SecurityGroup>>,
    /// `to` begins to ask for labels of neighbours.
    begins_to_look: bool,
}

impl Moved {
    /// What of the port's change others must be told.
    fn news(&self, new: &Port) -> News {
        match self.old.as_deref() {
            Some(old) if seen_by_others(old) != seen_by_others(new) => News::All,
            Some(old) if old.label.unwrap_or_default() != new.label.unwrap_or_default() => News::Label,
            Some(_) => News::Nothing,
            None => News::All,
        }
    }
}

/// What others must be told about a port.
#[derive(Clone, Copy, PartialEq, Eq)]
enum News {
    Nothing,
    Label,
    All,
}

fn neighbour_keys(port: &Port) -> impl Iterator<Item = RowKey> {
    port.fixed_ips
        .iter()
        .map(|fixed| RowKey::Neighbour(port.network_id, fixed.ip_address))
}

/// What all others must know about a port; its label is of use only to some.
fn seen_by_others(port: &Port) -> (MacAddr, &[FixedIp], Option<&str>) {
    (port.mac_address, &port.fixed_ips, port.binding.host())
}

impl Ncm {
    pub(super) fn interested(&self, network: Id<Network>) -> Vec<String> {
        self.networks
            .get(&network)
            .map(|view| view.by_host.keys().cloned().collect())
            .unwrap_or_default()
    }

    pub(super) fn pend_rows(&mut self, host: &str, network: Id<Network>, rows: &[KeyedRow]) {
        if rows.is_empty() {
            return;
        }
        let filters = self.filters(host);
        if let Some(pending) = self.pend(host, network) {
            let rows = rows.iter().filter(|row| filters || !row.key.is_security());
            pending.rows.extend(rows.cloned());
        }
    }

    pub(super) fn touch(&mut self, network: Id<Network>, revision: Revision) -> &mut NetworkView {
        let view = self.networks.entry(network).or_default();
        view.revision = view.revision.max(revision);
        view
    }

    pub(super) fn put_network(&mut self, row: Arc<Network>) {
        let (id, revision) = (row.id, row.revision);
        self.touch(id, revision).network = Some(row);
        self.pend_network(id);
    }

    /// Every host in the network gets its row.
    fn pend_network(&mut self, id: Id<Network>) {
        for host in self.interested(id) {
            if let Some(pending) = self.pend(&host, id) {
                pending.network = true;
            }
        }
    }

    /// A host has come into the network, has left it, or has another tunnel address.
    fn reach(&mut self, host: &str, network: Id<Network>, revision: Revision) {
        let tunnel = self.tunnel(host).map(|(ip, _)| ip);
        let view = self.touch(network, revision);
        let here = view.by_host.contains_key(host);
        if view.underlay.set(host, tunnel.filter(|_| here)) {
            view.underlay_revision = view.underlay_revision.max(revision);
            self.pend_network(network);
        }
    }

    pub(super) fn delete_network(&mut self, id: Id<Network>) {
        // The region deletes ports first; whoever is left is told to forget all the same.
        for host in self.interested(id) {
            if let Some(pending) = self.pend(&host, id) {
                pending.forget = true;
            }
        }
        if let Some(view) = self.networks.remove(&id) {
            for port in view.ports.keys() {
                self.port_networks.remove(port);
            }
            for subnet in view.subnets.keys() {
                self.subnet_networks.remove(subnet);
            }
            for group in view.group_hosts.keys() {
                self.security.left(*group, id);
            }
        }
    }

    pub(super) fn put_subnet(&mut self, row: Arc<Subnet>) {
        let (id, rows) = (row.network_id, [KeyedRow::put(row.revision, &subnet_row(&row))]);
        self.subnet_networks.insert(row.id, id);
        self.touch(id, row.revision).subnets.insert(row.id, row);
        for host in self.interested(id) {
            self.pend_rows(&host, id, &rows);
        }
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
    }

    pub(super) fn put_port(&mut self, row: Arc<Port>) {
        self.port_networks.insert(row.id, row.network_id);
        self.replace_port(row);
    }

    pub(super) fn delete_port(&mut self, id: Id<Port>, revision: Revision) {
        let Some(network) = self.port_networks.remove(&id) else {
            return;
        };
        let Some(known) = self.networks.get(&network).and_then(|view| view.ports.get(&id)) else {
            return;
        };
        // A port that is nowhere and has no address: everybody who knew it is told so.
        let mut gone = Port::clone(known);
        gone.revision = revision;
        gone.fixed_ips.clear();
        gone.binding.host_id.clear();
        self.replace_port(Arc::new(gone));
        if let Some(view) = self.networks.get_mut(&network) {
            view.ports.remove(&id);
        }
    }

    /// A port is now `new`: its own host, the host it left, and everybody else in the network learn what concerns
    /// them.
    fn replace_port(&mut self, new: Arc<Port>) {
        let (network, revision) = (new.network_id, new.revision);
        let moved = self.place(&new);
        let news = self.note_news(&moved, &new);
        let tunnel = moved.to.as_deref().and_then(|host| self.tunnel(host));
        let neighbours = self.touch(network, revision).neighbour_rows(&new, tunnel);
        let had: Vec<RowKey> = moved.old.iter().flat_map(|old| neighbour_keys(old)).collect();
        let gone = |key: &RowKey| KeyedRow::gone(revision, key);
        let unneeded: Vec<_> = moved
            .dropped
            .iter()
            .map(|group| RowKey::Policy(network, *group))
            .collect();

        if let Some(host) = &moved.to {
            if moved.entered {
                if let Some(pending) = self.pend(host, network) {
                    (pending.snapshot, pending.forget) = (true, false);
                }
            } else {
                if moved.begins_to_look {
                    self.begins_to_look(host, network, revision);
                }
                // What was a neighbour until now is a port of the host itself.
                let mut rows: Vec<_> = if moved.from == moved.to {
                    Vec::new()
                } else {
                    had.iter().map(gone).collect()
                };
                // Rules before the port that is under them, and away after it: never a moment without.
                let needed = moved.needed.iter();
                rows.extend(needed.filter_map(|group| self.security.policy(network, *group, revision)));
                rows.push(port_row(&new, self.filters(host)));
                if moved.from == moved.to {
                    rows.extend(unneeded.iter().map(gone));
                }
                self.pend_rows(host, network, &rows);
            }
        }
        if let Some(host) = moved
            .from
            .as_ref()
            .filter(|from| Some(*from) != moved.to.as_ref())
        {
            if moved.left {
                if let Some(pending) = self.pend(host, network) {
                    (pending.snapshot, pending.forget) = (false, true);
                }
            } else {
                let mut rows = vec![gone(&RowKey::Port(network, new.id))];
                rows.extend(unneeded.iter().map(gone));
                rows.extend(neighbours.iter().cloned());
                self.pend_rows(host, network, &rows);
            }
        }
        if news == News::Nothing {
            return;
        }
        let still: BTreeSet<RowKey> = neighbours.iter().map(|row| row.key).collect();
        let mut rows: Vec<_> = had.iter().filter(|key| !still.contains(key)).map(gone).collect();
        rows.extend(neighbours);
        let told = match news {
            News::Label => self.lookers(network),
            News::Nothing | News::All => self.interested(network),
        };
        for host in told {
            if Some(&host) != moved.to.as_ref() && Some(&host) != moved.from.as_ref() {
                self.pend_rows(&host, network, &rows);
            }
        }
    }

    /// Finds out who must be told of a port's change, and remembers it.
    fn note_news(&mut self, moved: &Moved, new: &Port) -> News {
        let news = moved.news(new);
        let old = moved.old.as_ref().and_then(|old| old.label);
        let view = self.touch(new.network_id, new.revision);
        match news {
            News::Nothing => News::Nothing,
            News::Label if view.relabelled(new.id, old, new.revision) => News::Label,
            News::Label | News::All => {
                view.told_all(new.id, new.revision);
                News::All
            }
        }
    }

    fn lookers(&self, network: Id<Network>) -> Vec<String> {
        let view = self.networks.get(&network);
        view.map(|view| view.lookers.keys().cloned().collect())
            .unwrap_or_default()
    }

    /// Writes a port into its view; tells how its place changed.
    fn place(&mut self, new: &Arc<Port>) -> Moved {
        let limit = self.options.tombstones;
        let view = self.networks.entry(new.network_id).or_default();
        view.revision = view.revision.max(new.revision);
        let old = view.ports.insert(new.id, Arc::clone(new));
        let host_of = |port: &Port| port.is_bound().then(|| port.binding.host_id.clone());
        let (from, to) = (old.as_deref().and_then(host_of), host_of(new));
        let mut moved = Moved {
            old,
            from,
            to,
            left: false,
            entered: false,
            needed: Vec::new(),
            dropped: Vec::new(),
            begins_to_look: false,
        };
        // In this order: a group that the port keeps is neither needed nor dropped.
        if let Some(host) = &moved.to {
            moved.needed = view.joins(host, new);
        }
        if let (Some(host), Some(old)) = (&moved.from, &moved.old) {
            moved.dropped = view.parts(host, old);
        }
        for group in &moved.dropped {
            view.bury(limit, new.revision, RowKey::Policy(new.network_id, *group));
            if !view.group_hosts.contains_key(group) {
                self.security.left(*group, new.network_id);
            }
            if let Some(host) = &moved.from {
                view.look(host, *group, false);
            }
        }
        for group in &moved.needed {
            self.security.entered(*group, new.network_id);
            if let Some(host) = moved.to.as_ref().filter(|_| self.security.looks(*group)) {
                moved.begins_to_look |= view.look(host, *group, true);
            }
        }
        if let Some(old) = moved.old.clone()
            && seen_by_others(&old) != seen_by_others(new)
        {
            for key in neighbour_keys(&old) {
                view.bury(limit, new.revision, key);
            }
        }
        if moved.from == moved.to {
            return moved;
        }
        if let Some(host) = &moved.from {
            view.bury(limit, new.revision, RowKey::Port(new.network_id, new.id));
            let ports = view.by_host.entry(host.clone()).or_default();
            ports.remove(&new.id);
            moved.left = ports.is_empty();
            if moved.left {
                view.by_host.remove(host);
            }
        }
        if let Some(host) = &moved.to {
            let ports = view.by_host.entry(host.clone()).or_default();
            moved.entered = ports.is_empty();
            ports.insert(new.id);
        }
        for host in moved.from.iter().filter(|_| moved.left) {
            self.rests(new.network_id);
            self.reach(host, new.network_id, new.revision);
        }
        for host in moved.to.iter().filter(|_| moved.entered) {
            self.reach(host, new.network_id, new.revision);
        }
        moved
    }

    pub(super) fn put_host(&mut self, row: Arc<Host>) {
        let (name, revision) = (row.name.clone(), row.revision);
        let entry = self.host_entry(&name);
        let moved = entry.row.as_ref().map(|known| known.tunnel_ip) != Some(row.tunnel_ip);
        entry.row = Some(row);
        if entry.status.last_seen_us == 0 {
            self.unheard.insert(name.clone());
        }
        if moved {
            self.tell_neighbours_of(&name);
            for network in self.networks_of(&name) {
                self.reach(&name, network, revision);
            }
        }
    }

    pub(super) fn delete_host(&mut self, name: &str, revision: Revision) {
        let Some(entry) = self.hosts.get_mut(name) else {
            return;
        };
        entry.row = None;
        self.unheard.remove(name);
        for (network, port) in self.ports_on(name) {
            let keys = port
                .fixed_ips
                .iter()
                .map(|fixed| RowKey::Neighbour(network, fixed.ip_address));
            let rows: Vec<_> = keys.map(|key| KeyedRow::gone(revision, &key)).collect();
            self.tell_others(network, name, &rows);
        }
        for network in self.networks_of(name) {
            self.reach(name, network, revision);
        }
    }

    fn networks_of(&self, host: &str) -> BTreeSet<Id<Network>> {
        let ports = self.ports_on(host).into_iter();
        ports.map(|(network, _)| network).collect()
    }

    /// A host's tunnel address is new: everybody who has neighbours there learns it.
    fn tell_neighbours_of(&mut self, name: &str) {
        let tunnel = self.tunnel(name);
        for (network, port) in self.ports_on(name) {
            let revision = tunnel.map_or(Revision::ZERO, |(_, revision)| revision);
            let view = self.touch(network, revision);
            view.told = view.told.max(revision);
            let rows = view.neighbour_rows(&port, tunnel);
            self.tell_others(network, name, &rows);
        }
    }

    fn tell_others(&mut self, network: Id<Network>, name: &str, rows: &[KeyedRow]) {
        for host in self.interested(network) {
            if host != name {
                self.pend_rows(&host, network, rows);
            }
        }
    }

    fn ports_on(&self, host: &str) -> Vec<(Id<Network>, Arc<Port>)> {
        let of_view = |(id, view): (&Id<Network>, &NetworkView)| {
            let ports = view.by_host.get(host).into_iter().flatten();
            ports
                .filter_map(|port| Some((*id, Arc::clone(view.ports.get(port)?))))
                .collect::<Vec<_>>()
        };
        self.networks.iter().flat_map(of_view).collect()
    }

    /// Everything that a host must have of a network, in an order in which it can be applied; nothing when it has no
    /// port there.
    pub(super) fn intended(&self, host: &str, network: Id<Network>) -> Vec<KeyedRow> {
        let Some(view) = self.networks.get(&network) else {
            return Vec::new();
        };
        let filters = self.filters(host);
        let (Some(own), Some(row)) = (view.by_host.get(host), view.network_row(filters)) else {
            return Vec::new();
        };
        let mut rows = vec![row];
        rows.extend(view.subnet_rows());
        // Labels of neighbours before rules that ask for them; else what the host's own ports need comes first.
        let looks = view.looks(host);
        if looks {
            rows.extend(self.neighbours_of(host, view));
        }
        if filters {
            rows.extend(self.policies(host, network, view));
            rows.extend(view.label_rows());
        }
        let own = own.iter().filter_map(|id| view.ports.get(id));
        rows.extend(own.map(|port| port_row(port, filters)));
        if !looks {
            rows.extend(self.neighbours_of(host, view));
        }
        rows
    }

    /// The ports of a network on other hosts.
    fn neighbours_of(&self, host: &str, view: &NetworkView) -> Vec<KeyedRow> {
        let others = view.by_host.iter().filter(|(other, _)| *other != host);
        let rows = |(other, ports): (&String, &BTreeSet<Id<Port>>)| {
            let tunnel = self.tunnel(other);
            let ports = ports.iter().filter_map(|id| view.ports.get(id));
            ports
                .flat_map(|port| view.neighbour_rows(port, tunnel))
                .collect::<Vec<_>>()
        };
        others.flat_map(rows).collect()
    }

    /// A full snapshot in parts.
    pub(super) fn snapshot_of(&mut self, host: &str, network: Id<Network>, now_us: u64) -> Vec<Outgoing> {
        let rows = self.intended(host, network);
        self.work.rows_looked_at += rows.len() as u64;
        match self.networks.get(&network) {
            Some(view) if !rows.is_empty() => {
                Outgoing::snapshot(network, view.revision, rows, self.options.message_rows, now_us)
            }
            _ => vec![Outgoing::forget(network, now_us)],
        }
    }

    /// What changed for a host in a network since it was complete to `held`; `None` when that is not known any more.
    pub(super) fn since(
        &mut self,
        host: &str,
        network: Id<Network>,
        held: Revision,
    ) -> Option<Vec<KeyedRow>> {
        let view = self.networks.get(&network)?;
        if held <= view.loaded || held < view.tombstones_from || held > view.revision {
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
        rows.extend(intended.into_iter().filter(|row| row.revision > held));
        Some(rows)
    }
}
