//! Eager and learned networks. In an *eager* one every host with a port has the rows of all neighbours. That grows with hosts
//! times neighbours, so beyond [`super::Options::eager_rows_max`] a network is *learned*: hosts ask the directory for what
//! they use and are told of changes of that only.
//!
//! **The switch to learned leaves no gap.** A connected host has the rows of all neighbours; it becomes a learner of each of
//! them, and only then its network row says that unknown addresses are to be asked for. A host that is away, or whose queue
//! is waiting for a snapshot, may have missed changes: it gets a snapshot with the new network row, and asks for whatever
//! it still has from before (as every agent does after its hello). **The switch back** is a snapshot with all
//! neighbours; what was learned is forgotten. Between the two lies a factor of two, so that a network at the threshold
//! does not go to and fro.
//!
//! **What moved away.** The host that a port left gets the port's rows with the word to pass on what still comes for it. It is
//! told of that port's changes for a lease, which is how long another host may go by an older row, even if it has
//! no port in the network any more: it *lingers*, and forgets the network after that.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use alcor_dataplane::{NeighbourRow, Row, RowKey};
use alcor_model::{Id, Network, Port, Revision};
use alcor_southbound::convert::resolve::LEASE_UNASKED;

use super::{
    Ncm,
    view::{KeyedRow, NetworkView},
};
use crate::directory::HostIndex;

/// Hosts whose learned addresses are looked at for leases that are over, in one tick.
const SWEPT_HOSTS: usize = 4_096;

/// Which hosts ports have left lately, until when they are told.
#[derive(Debug, Default)]
pub(super) struct Left {
    by_port: BTreeMap<Id<Port>, BTreeMap<String, Duration>>,
    by_host: BTreeMap<String, BTreeSet<Id<Port>>>,
}

impl Left {
    fn note(&mut self, port: Id<Port>, host: &str, until: Duration) {
        self.by_port
            .entry(port)
            .or_default()
            .insert(host.to_owned(), until);
        self.by_host.entry(host.to_owned()).or_default().insert(port);
    }

    /// A port is on a host again.
    pub(super) fn returned(&mut self, port: Id<Port>, host: &str) {
        if let Some(hosts) = self.by_port.get_mut(&port) {
            hosts.remove(host);
            if hosts.is_empty() {
                self.by_port.remove(&port);
            }
        }
        if let Some(ports) = self.by_host.get_mut(host) {
            ports.remove(&port);
            if ports.is_empty() {
                self.by_host.remove(host);
            }
        }
    }

    /// The hosts that a port has left.
    pub(super) fn hosts_of(&self, port: Id<Port>) -> BTreeSet<String> {
        let hosts = self.by_port.get(&port).into_iter().flatten();
        hosts.map(|(host, _)| host.clone()).collect()
    }

    /// The ports that have left a host.
    fn ports_of(&self, host: &str) -> impl Iterator<Item = &Id<Port>> {
        self.by_host.get(host).into_iter().flatten()
    }

    /// Whether a port has left a host.
    pub(super) fn has(&self, port: Id<Port>, host: &str) -> bool {
        let hosts = self.by_port.get(&port);
        hosts.is_some_and(|hosts| hosts.contains_key(host))
    }

    /// Whether any port has left a host lately.
    pub(super) fn lingers(&self, host: &str) -> bool {
        self.by_host.contains_key(host)
    }

    /// All such hosts.
    pub(super) fn hosts(&self) -> impl Iterator<Item = &String> {
        self.by_host.keys()
    }

    fn is_over(&self, port: Id<Port>, host: &str, now: Duration) -> bool {
        let until = self.by_port.get(&port).and_then(|hosts| hosts.get(host));
        until.is_some_and(|until| *until <= now)
    }
}

/// One host that a port left.
#[derive(Debug)]
pub(super) struct Lingering {
    until: Duration,
    network: Id<Network>,
    host: String,
    port: Id<Port>,
}

impl Ncm {
    /// How long a host that was told of an address without having asked is told of its changes: its lease begins when it
    /// takes the row, which may be later than now.
    fn told_until(&self) -> Duration {
        self.clock + 2 * self.options.limits.lease.max(LEASE_UNASKED)
    }

    /// A learner is told of a change.
    pub(super) fn tell_learner(&mut self, host: HostIndex, name: &str, network: Id<Network>, row: &KeyedRow) {
        if let Some(ip) = row.neighbour().filter(|_| !row.gone)
            && let Some(view) = self.networks.get(&network)
        {
            self.directory.learn(host, view.index, ip, self.told_until());
        }
        self.pend_rows(name, network, std::slice::from_ref(row));
    }

    /// A host is sent neighbours in a learned network that it did not ask for, in a snapshot or because it comes back: it is
    /// told of their changes as long as it may go by them, whoever it was told by before.
    pub(super) fn sends_unasked(&self, host: &str, network: Id<Network>, rows: &[KeyedRow]) {
        let (Some(host), Some(view)) = (self.directory.known(host), self.networks.get(&network)) else {
            return;
        };
        for ip in rows
            .iter()
            .filter(|row| !row.gone)
            .filter_map(KeyedRow::neighbour)
        {
            self.directory.learn(host, view.index, ip, self.told_until());
        }
    }

    /// The number of hosts or neighbours of a network has changed: is it eager or learned now?
    pub(super) fn weigh(&mut self, network: Id<Network>, revision: Revision) {
        let max = self.options.eager_rows_max;
        let Some(view) = self.networks.get_mut(&network).filter(|_| !self.is_loading) else {
            return;
        };
        let learned = view.is_to_be_learned(max);
        if learned == view.learned {
            return;
        }
        view.learned = learned;
        view.mode_since = view.mode_since.max(revision);
        self.work.switches += 1;
        match learned {
            true => self.begin_to_learn(network),
            false => self.end_to_learn(network),
        }
        self.assign(network, revision);
        self.refresh([network]);
    }

    /// The hosts of a network that have a session.
    fn connected(&self, network: Id<Network>) -> Vec<HostIndex> {
        let hosts = self.interested(network);
        let connected = hosts.iter().filter_map(|host| {
            let entry = self.hosts.get(host)?;
            entry.session.as_ref()?;
            self.directory.known(host)
        });
        connected.collect()
    }

    /// A network that was eager until a state of the region was loaded: if it is learned now, its hosts keep the neighbours that they
    /// were told of. They are told of them once more with their snapshots, before the rules that ask for labels.
    pub(super) fn keep_told(&self, network: Id<Network>, addresses: &[IpAddr]) {
        let Some(view) = self.networks.get(&network).filter(|view| view.learned) else {
            return;
        };
        let until = self.told_until();
        let connected = self.connected(network);
        for address in addresses {
            let owner = self.directory.owner(view.index, *address);
            for host in connected.iter().filter(|host| Some(**host) != owner) {
                self.directory.learn(*host, view.index, *address, until);
            }
        }
    }

    /// The product of hosts and neighbours is small, at most twice the bound, when this is called.
    fn begin_to_learn(&mut self, network: Id<Network>) {
        let until = self.told_until();
        let connected = self.connected(network);
        let Some(view) = self.networks.get(&network) else {
            return;
        };
        for port in view.ports.values() {
            let Some(owner) = port.binding.host().and_then(|host| self.directory.known(host)) else {
                continue;
            };
            for host in connected.iter().filter(|host| **host != owner) {
                for fixed in &port.fixed_ips {
                    self.directory.learn(*host, view.index, fixed.ip_address, until);
                }
            }
        }
        self.pend_network(network);
    }

    fn end_to_learn(&mut self, network: Id<Network>) {
        // What they have learned is forgotten when their snapshots are made: until then the network may be learned again.
        for host in self.interested(network) {
            if let Some(pending) = self.pend(&host, network) {
                pending.snapshot = !pending.forget;
            }
        }
    }

    /// A host does not have what it learned in a network any more, or is told all of it.
    pub(super) fn forget_learned(&self, host: &str, network: Id<Network>) {
        let host = self.directory.known(host);
        // A network that is gone has no number, and nobody has learned anything there.
        if let Some((host, index)) = host.zip(self.directory.known_network(network)) {
            self.directory.unlearn_all(host, index);
        }
    }

    /// A port has left a host for another one.
    pub(super) fn linger(&mut self, host: &str, network: Id<Network>, port: &Port) {
        let until = self.clock + self.options.limits.lease;
        let Some(view) = self.networks.get_mut(&network) else {
            return;
        };
        view.left.note(port.id, host, until);
        let index = view.index;
        self.lingering.push_back(Lingering {
            until,
            network,
            host: host.to_owned(),
            port: port.id,
        });
        // A host that goes on in the network has these rows longer than it is told to pass on.
        if let Some(host) = self.directory.known(host) {
            for fixed in &port.fixed_ips {
                self.directory
                    .learn(host, index, fixed.ip_address, self.told_until());
            }
        }
    }

    /// A host is told of what has left it, in a session or place in which it was not yet a learner of that.
    pub(super) fn learn_left(&self, host: &str, view: &NetworkView) {
        let Some(index) = self.directory.known(host) else {
            return;
        };
        for port in view.left.ports_of(host).filter_map(|port| view.ports.get(port)) {
            for fixed in &port.fixed_ips {
                self.directory
                    .learn(index, view.index, fixed.ip_address, self.told_until());
            }
        }
    }

    /// Hosts that have lingered long enough forget.
    pub(super) fn end_of_lingering(&mut self) {
        while self
            .lingering
            .front()
            .is_some_and(|lingering| lingering.until <= self.clock)
        {
            let Some(Lingering {
                network, host, port, ..
            }) = self.lingering.pop_front()
            else {
                return;
            };
            let Some(view) = self.networks.get_mut(&network) else {
                continue;
            };
            if !view.left.is_over(port, &host, self.clock) {
                // It came back, or has left again since.
                continue;
            }
            view.left.returned(port, &host);
            if view.left.lingers(&host) || view.interested.contains_key(&host) {
                continue;
            }
            view.passed_on.insert(host.clone());
            if let Some(pending) = self.pend(&host, network) {
                pending.forget = true;
            }
        }
    }

    /// How many ports hosts pass packets on for, because these have left them lately.
    pub fn lingering(&self) -> usize {
        self.lingering.len()
    }

    /// Forgets what hosts have learned and not used for a lease. Looks at a bounded number of hosts, one after the other.
    pub(super) fn sweep_learned(&mut self) {
        let hosts = self.directory.numbers();
        for _ in 0..hosts.min(SWEPT_HOSTS) {
            self.swept = (self.swept + 1) % hosts;
            if let Some(host) = self.directory.numbered(self.swept) {
                self.directory.sweep(self.clock, host);
            }
        }
    }

    /// The rows of ports that have left a host, to be passed on.
    pub(super) fn left_rows(&self, host: &str, view: &NetworkView) -> Vec<KeyedRow> {
        let ports = view.left.ports_of(host).filter_map(|port| view.ports.get(port));
        let rows = ports.flat_map(|port| {
            let owner = port.binding.host().filter(|owner| *owner != host);
            view.neighbour_rows(port, owner.and_then(|owner| self.tunnel(owner)), true)
        });
        rows.collect()
    }

    /// What a host that has no ports in a network any more but passes on what comes for them must have: where they are, and the end of
    /// all ports since it was complete to `held`. Where that is not known any more it has to forget first, and is told again what it
    /// passes packets on by.
    pub(super) fn lingering_rows(
        &self,
        host: &str,
        view: &NetworkView,
        held: Revision,
    ) -> (bool, Vec<KeyedRow>) {
        let forgets = held <= view.loaded || held < view.tombstones_from || held > view.revision;
        let mut rows = self.left_rows(host, view);
        if forgets {
            rows.extend(view.network_row(self.filters(host)));
            return (true, rows);
        }
        let ports = view.left.ports_of(host).filter_map(|port| view.ports.get(port));
        rows.extend(ports.map(|port| KeyedRow::gone(port.revision, &RowKey::Port(port.network_id, port.id))));
        let since = view.tombstones.partition_point(|(revision, _)| *revision <= held);
        let gone = view.tombstones.iter().skip(since);
        let gone = gone.filter(|(_, key)| matches!(key, RowKey::Port(..)));
        rows.extend(gone.map(|(revision, key)| KeyedRow::gone(*revision, key)));
        (false, rows)
    }

    /// Rows of all that a host may have learned in a network, as they are now: for when it may have missed changes.
    pub(super) fn learned_rows(&self, host: &str, network: Id<Network>, view: &NetworkView) -> Vec<KeyedRow> {
        let Some(index) = self.directory.known(host) else {
            return Vec::new();
        };
        let learned = self.directory.learned_in(index, view.index).into_iter();
        let row = |ip| match self
            .directory
            .row(view.index, ip)
            .filter(|row| row.owner != index)
        {
            Some(row) => KeyedRow::put(
                row.revision,
                Row::Neighbour(NeighbourRow {
                    network_id: network,
                    ip,
                    mac: row.mac,
                    host: row.tunnel,
                    label: row.label,
                    forward: false,
                }),
            ),
            None => KeyedRow::gone(view.revision, &RowKey::Neighbour(network, ip)),
        };
        learned.map(row).collect()
    }
}
