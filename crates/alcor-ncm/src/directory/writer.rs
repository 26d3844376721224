//! The writing end, which only the core has.

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use alcor_model::{Id, MacAddr, Network, Port, Revision};

use super::{
    Directory, HostIndex, Key, Moment, NetworkIndex, Stored,
    hosts::{Host, HostState, Tunnel},
};
use crate::core::SessionId;

/// What is looked at of one host's learned addresses in one sweep.
const SWEEP: usize = 1_024;

/// Numbers of hosts that are forgotten before any of them is used again.
const FREED_AT_ONCE: usize = 1_024;

/// An address's row, as it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The MAC of its port.
    pub mac: MacAddr,
    /// The host that the port is on.
    pub host: HostIndex,
    /// The port's label; 0 is none.
    pub label: u16,
    /// When it was last changed; a later change of the host counts too.
    pub revision: Revision,
}

/// An address's row, as hosts are told it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// The host that the port is on.
    pub owner: HostIndex,
    /// Its tunnel address.
    pub tunnel: IpAddr,
    /// The MAC of the port.
    pub mac: MacAddr,
    /// The port's label; 0 is none.
    pub label: u16,
    /// When any of it was last changed.
    pub revision: Revision,
}

/// Writes a [`Directory`]. There is one of them.
#[derive(Debug)]
pub struct Writer {
    directory: Arc<Directory>,
    /// By their numbers.
    hosts: Vec<Option<Arc<Host>>>,
    by_name: HashMap<Arc<str>, HostIndex>,
    /// Numbers that are nobody's, and that somebody who was answering when they became so may still have read.
    freed: Vec<HostIndex>,
    /// Numbers that are nobody's.
    free: Vec<HostIndex>,
    networks: HashMap<Id<Network>, NetworkIndex>,
    next_network: u32,
}

impl Writer {
    pub(super) fn new(directory: Arc<Directory>) -> Self {
        Self {
            directory,
            hosts: Vec::new(),
            by_name: HashMap::new(),
            freed: Vec::new(),
            free: Vec::new(),
            networks: HashMap::new(),
            next_network: 0,
        }
    }

    /// What it writes.
    pub fn directory(&self) -> &Arc<Directory> {
        &self.directory
    }

    /// The number of a network.
    pub fn network(&mut self, id: Id<Network>) -> NetworkIndex {
        let next = &mut self.next_network;
        *self.networks.entry(id).or_insert_with(|| {
            let index = NetworkIndex(*next);
            // Two thousand million networks later the last ones share a number, and only ids tell who may ask.
            *next = next.saturating_add(1).min(NetworkIndex::MAX);
            index
        })
    }

    /// A network's number, if it has one.
    pub fn known_network(&self, id: Id<Network>) -> Option<NetworkIndex> {
        self.networks.get(&id).copied()
    }

    /// A network is gone for good.
    pub fn forget_network(&mut self, id: Id<Network>) {
        self.networks.remove(&id);
    }

    /// The number of a host.
    pub fn host(&mut self, name: &str) -> HostIndex {
        if let Some(index) = self.by_name.get(name) {
            return *index;
        }
        let index = self.free.pop().unwrap_or_else(|| {
            // With four thousand million hosts the last ones share a number.
            let index = u32::try_from(self.hosts.len()).unwrap_or(u32::MAX);
            self.hosts.push(None);
            HostIndex(index.min(HostIndex::MAX))
        });
        let name: Arc<str> = Arc::from(name);
        let host = Arc::new(Host {
            index,
            name: Arc::clone(&name),
            state: parking_lot::Mutex::default(),
        });
        if let Some(place) = self.hosts.get_mut(index.0 as usize) {
            *place = Some(Arc::clone(&host));
        }
        self.by_name.insert(Arc::clone(&name), index);
        self.directory.hosts.by_name.write().insert(name, host);
        index
    }

    /// Forgets a host that no port is bound to: no row names it.
    pub fn forget_host(&mut self, name: &str) {
        let Some(index) = self.by_name.remove(name) else {
            return;
        };
        // With its session it is no learner of anything any more.
        self.close(index);
        self.directory.hosts.by_name.write().remove(name);
        self.directory.hosts.set_tunnel(index, None);
        if let Some(place) = self.hosts.get_mut(index.0 as usize) {
            *place = None;
        }
        self.freed.push(index);
        if self.freed.len() >= FREED_AT_ONCE {
            self.reuse();
        }
    }

    /// Freed numbers are used again. An answer is made under the lock of who asks, and one that was being made when a number became
    /// free may have read a row with it: that its new owner's tunnel address is not what such an answer says, each lock was free once
    /// since then.
    fn reuse(&mut self) {
        for host in self.hosts.iter().flatten() {
            drop(host.state.lock());
        }
        self.free.append(&mut self.freed);
    }

    /// The names of hosts that have a number.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.by_name.keys().map(|name| &**name)
    }

    /// The number of a host that has one.
    pub fn known(&self, name: &str) -> Option<HostIndex> {
        self.by_name.get(name).copied()
    }

    /// Numbers that there are; some may be nobody's.
    pub fn numbers(&self) -> usize {
        self.hosts.len()
    }

    /// The host with this number, counted from 0.
    pub fn numbered(&self, number: usize) -> Option<HostIndex> {
        self.hosts.get(number)?.as_ref().map(|host| host.index)
    }

    /// The name of a host.
    pub fn name(&self, host: HostIndex) -> Option<&Arc<str>> {
        self.at(host).map(|host| &host.name)
    }

    fn at(&self, host: HostIndex) -> Option<&Arc<Host>> {
        self.hosts.get(host.0 as usize)?.as_ref()
    }

    fn with<T: Default>(&self, host: HostIndex, f: impl FnOnce(&mut HostState) -> T) -> T {
        let host = self.at(host);
        host.map(|host| f(&mut host.state.lock())).unwrap_or_default()
    }

    /// Where a host is.
    pub fn set_tunnel(&self, host: HostIndex, tunnel: Option<Tunnel>) {
        self.directory.hosts.set_tunnel(host, tunnel);
    }

    /// A host has a port in a network: it may ask there.
    pub fn enter(&self, host: HostIndex, network: (Id<Network>, NetworkIndex), port: Id<Port>) {
        self.with(host, |state| state.enter(network.0, network.1, port));
    }

    /// A host does not have a port any more.
    pub fn leave(&self, host: HostIndex, network: Id<Network>, port: Id<Port>) {
        self.with(host, |state| state.leave(network, port));
    }

    /// A host has a port in a network that shares a router with this one, so it may ask here, or it has none any more.
    pub fn visit(&self, host: HostIndex, network: (Id<Network>, NetworkIndex), comes: bool) {
        self.with(host, |state| state.visit(network.0, network.1, comes));
    }

    /// An address has this row now; gives who has learned it.
    pub fn put(&self, network: NetworkIndex, ip: IpAddr, entry: Entry) -> Vec<HostIndex> {
        let key = Key::new(network, ip);
        let revision = entry.revision.0;
        let stored = Stored {
            host: entry.host,
            revision: [(revision >> 32) as u32, revision as u32],
            mac: entry.mac,
            label: entry.label,
        };
        let mut place = self.directory.place(key);
        place.put(stored);
        place.learners()
    }

    /// Nobody has an address any more; gives who had learned it. They are not learners any more.
    pub fn remove(&self, network: NetworkIndex, ip: IpAddr) -> Vec<HostIndex> {
        self.directory.place(Key::new(network, ip)).take()
    }

    /// An address's row, when its host is registered.
    pub fn row(&self, network: NetworkIndex, ip: IpAddr) -> Option<Known> {
        let stored = *self.directory.place(Key::new(network, ip)).row()?;
        let (tunnel, host_revision) = self.directory.hosts.tunnel(stored.host)?;
        Some(Known {
            owner: stored.host,
            tunnel,
            mac: stored.mac,
            label: stored.label,
            revision: stored.revision().max(host_revision),
        })
    }

    /// The host that an address is on, registered or not.
    pub fn owner(&self, network: NetworkIndex, ip: IpAddr) -> Option<HostIndex> {
        let place = self.directory.place(Key::new(network, ip));
        place.row().map(|stored| stored.host)
    }

    /// Who has learned an address.
    pub fn learners(&self, network: NetworkIndex, ip: IpAddr) -> Vec<HostIndex> {
        self.directory.place(Key::new(network, ip)).learners()
    }

    /// Whether a host has learned an address.
    pub fn has_learned(&self, host: HostIndex, network: NetworkIndex, ip: IpAddr) -> bool {
        self.directory.place(Key::new(network, ip)).has_learned(host)
    }

    /// A host with a session has an address's row without having asked, or is told of it: it is told of its changes for at
    /// least so long.
    pub fn learn(&self, host: HostIndex, network: NetworkIndex, ip: IpAddr, until: Duration) {
        let key = Key::new(network, ip);
        self.with(host, |state| {
            if state.session.is_some() {
                state.learn(key, Moment::of(until));
                self.directory.place(key).learn(host);
            }
        });
    }

    /// A host has an address's row no more.
    pub fn unlearn(&self, host: HostIndex, network: NetworkIndex, ip: IpAddr) {
        self.directory.place(Key::new(network, ip)).unlearn(host);
    }

    /// What a host may have learned in a network. What is gone is part of it until its lease is over.
    pub fn learned_in(&self, host: HostIndex, network: NetworkIndex) -> BTreeSet<IpAddr> {
        self.with(host, |state| {
            state.learned_in(network).map(|key| key.ip()).collect()
        })
    }

    /// How much a host may have learned in a network.
    pub fn learned_count(&self, host: HostIndex, network: NetworkIndex) -> usize {
        self.with(host, |state| state.learned_in(network).len())
    }

    /// A host has a new session, which has learned nothing.
    pub fn open(&self, host: HostIndex, session: SessionId) {
        self.close(host);
        self.with(host, |state| state.session = Some(session));
    }

    /// A host has no session any more: what it learned is forgotten.
    pub fn close(&self, host: HostIndex) {
        let learned = self.with(host, |state| {
            state.session = None;
            Some(state.take_all())
        });
        // Nobody asks for it until it has a new session, which the writer gives it.
        for key in learned.into_iter().flatten() {
            self.directory.place(key).unlearn(host);
        }
    }

    /// A host forgets what it has learned in a network.
    pub fn unlearn_all(&self, host: HostIndex, network: NetworkIndex) {
        self.with(host, |state| {
            for key in state.take_network(network) {
                self.directory.place(key).unlearn(host);
            }
        });
    }

    /// Forgets what a host has learned and not asked for again in time, or a part of it when that is much.
    pub fn sweep(&self, now: Duration, host: HostIndex) {
        let now = Moment::of(now);
        self.with(host, |state| {
            for key in state.expired(now, SWEEP) {
                self.directory.place(key).unlearn(host);
            }
        });
    }

    /// All rows and places are to be written anew. Until [`Self::loaded`] nobody gets an answer; what hosts have learned stays.
    pub fn load(&mut self) {
        self.directory.loading.store(true, Ordering::Release);
        for shard in &self.directory.shards {
            shard.lock().clear_rows();
        }
        for host in self.hosts.iter().flatten() {
            host.state.lock().leave_all();
            self.directory.hosts.set_tunnel(host.index, None);
        }
    }

    /// Everything is there.
    pub fn loaded(&self) {
        self.directory.loading.store(false, Ordering::Release);
    }
}
