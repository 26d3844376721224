//! Hosts: where they are, which ports they have, and what they have learned.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    net::IpAddr,
    sync::Arc,
};

use alcor_model::{Id, Network, Port, Revision};
use parking_lot::{Mutex, RwLock};

use super::{HostIndex, Key, Moment, NetworkIndex, meter::Meter};
use crate::core::SessionId;

/// Tables that tunnel addresses are spread over, so that the writer waits for few readers.
const TUNNEL_SHARDS: usize = 64;

/// The tunnel address of a host, and the revision that last changed the host.
pub(super) type Tunnel = (IpAddr, Revision);

#[derive(Debug)]
pub(super) struct Hosts {
    pub(super) by_name: RwLock<HashMap<Arc<str>, Arc<Host>>>,
    tunnels: [RwLock<Vec<Option<Tunnel>>>; TUNNEL_SHARDS],
}

impl Default for Hosts {
    fn default() -> Self {
        Self {
            by_name: RwLock::default(),
            tunnels: std::array::from_fn(|_| RwLock::default()),
        }
    }
}

impl Hosts {
    fn place(&self, host: HostIndex) -> (&RwLock<Vec<Option<Tunnel>>>, usize) {
        let number = host.0 as usize;
        (&self.tunnels[number % TUNNEL_SHARDS], number / TUNNEL_SHARDS)
    }

    pub(super) fn tunnel(&self, host: HostIndex) -> Option<Tunnel> {
        let (shard, position) = self.place(host);
        shard.read().get(position).copied().flatten()
    }

    pub(super) fn set_tunnel(&self, host: HostIndex, tunnel: Option<Tunnel>) {
        let (shard, position) = self.place(host);
        let mut shard = shard.write();
        if shard.len() <= position {
            shard.resize(position + 1, None);
        }
        shard[position] = tunnel;
    }
}

/// One host.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) index: HostIndex,
    pub(super) name: Arc<str>,
    pub(super) state: Mutex<HostState>,
}

/// A network in which a host may ask, and the ports that it has there.
#[derive(Debug)]
pub(super) struct Own {
    network: Id<Network>,
    pub(super) index: NetworkIndex,
    /// In order.
    ports: Vec<Id<Port>>,
    /// Ports that the host has in other networks may ask, too.
    is_guest: bool,
}

impl Own {
    fn has(&self, port: Id<Port>) -> bool {
        self.ports.binary_search(&port).is_ok()
    }
}

/// What a port may ask.
#[derive(Debug, Default)]
pub(super) struct PortMeters {
    pub(super) questions: Meter,
    /// Questions about what its host has not learned.
    pub(super) new: Meter,
}

#[derive(Debug, Default)]
pub(super) struct HostState {
    /// What was learned belongs to it; nobody else may ask.
    pub(super) session: Option<SessionId>,
    /// In the order of their ids.
    networks: Vec<Own>,
    /// What the host has learned, and until when it is told of it.
    pub(super) learned: HashMap<Key, Moment>,
    /// Each of them once, network by network, with when to look whether its time is over. No network is without any.
    pub(super) due: BTreeMap<NetworkIndex, VecDeque<(Moment, Key)>>,
    /// The network that is looked at first in the next sweep.
    sweep_from: NetworkIndex,
    pub(super) meter: Meter,
    /// Of the ports that ask.
    pub(super) port_meters: BTreeMap<Id<Port>, PortMeters>,
}

impl HostState {
    pub(super) fn own(&self, network: Id<Network>) -> Option<&Own> {
        let position = self.networks.binary_search_by_key(&network, |own| own.network);
        position.ok().map(|position| &self.networks[position])
    }

    /// Whether a port of the host may ask in a network.
    pub(super) fn may_ask(&self, own: &Own, port: Id<Port>) -> bool {
        own.has(port) || own.is_guest && self.networks.iter().any(|other| other.has(port))
    }

    fn place(&mut self, network: Id<Network>, index: NetworkIndex) -> usize {
        let position = self.networks.binary_search_by_key(&network, |own| own.network);
        position.unwrap_or_else(|position| {
            let own = Own {
                network,
                index,
                ports: Vec::new(),
                is_guest: false,
            };
            self.networks.insert(position, own);
            position
        })
    }

    pub(super) fn visit(&mut self, network: Id<Network>, index: NetworkIndex, comes: bool) {
        let position = self.place(network, index);
        self.networks[position].is_guest = comes;
        self.drop_if_nothing(position);
    }

    fn drop_if_nothing(&mut self, position: usize) {
        let own = &self.networks[position];
        if own.ports.is_empty() && !own.is_guest {
            self.networks.remove(position);
        }
    }

    pub(super) fn enter(&mut self, network: Id<Network>, index: NetworkIndex, port: Id<Port>) {
        let position = self.place(network, index);
        let ports = &mut self.networks[position].ports;
        if let Err(position) = ports.binary_search(&port) {
            ports.insert(position, port);
        }
    }

    pub(super) fn leave(&mut self, network: Id<Network>, port: Id<Port>) {
        let Ok(position) = self.networks.binary_search_by_key(&network, |own| own.network) else {
            return;
        };
        self.port_meters.remove(&port);
        let ports = &mut self.networks[position].ports;
        if let Ok(at) = ports.binary_search(&port) {
            ports.remove(at);
        }
        self.drop_if_nothing(position);
    }

    pub(super) fn leave_all(&mut self) {
        self.networks.clear();
        self.port_meters.clear();
    }

    /// The host may use what it asked for until then. Later than what is known, never earlier.
    pub(super) fn learn(&mut self, key: Key, until: Moment) {
        let due = &mut self.due;
        let known = self.learned.entry(key).or_insert_with(|| {
            due.entry(key.network()).or_default().push_back((until, key));
            until
        });
        *known = until.max(*known);
    }

    /// What the host has learned in a network.
    pub(super) fn learned_in(&self, network: NetworkIndex) -> impl ExactSizeIterator<Item = Key> + '_ {
        static NONE: VecDeque<(Moment, Key)> = VecDeque::new();
        let keys = self.due.get(&network).unwrap_or(&NONE).iter();
        keys.map(|(_, key)| looked_at(*key))
    }

    /// Takes out what the host has learned in a network.
    pub(super) fn take_network(&mut self, network: NetworkIndex) -> Vec<Key> {
        let keys = self.due.remove(&network).unwrap_or_default();
        let keys: Vec<Key> = keys.into_iter().map(|(_, key)| looked_at(key)).collect();
        for key in &keys {
            self.learned.remove(key);
        }
        keys
    }

    /// Takes out all that the host has learned.
    pub(super) fn take_all(&mut self) -> impl Iterator<Item = Key> + use<> {
        self.due.clear();
        std::mem::take(&mut self.learned).into_keys()
    }

    /// Takes out what was learned and whose time is over, of at most `budget` that are looked at. Networks take turns to be the first.
    pub(super) fn expired(&mut self, now: Moment, mut budget: usize) -> Vec<Key> {
        let from = self.sweep_from;
        let after = self.due.range(from..).map(|(network, _)| *network);
        let networks: Vec<NetworkIndex> = after
            .chain(self.due.range(..from).map(|(network, _)| *network))
            .collect();
        let mut expired = Vec::new();
        for network in networks {
            let Some(due) = self.due.get_mut(&network) else {
                continue;
            };
            while budget > 0 && due.front().is_some_and(|(at, _)| *at <= now) {
                budget -= 1;
                let Some((_, key)) = due.pop_front() else {
                    break;
                };
                match self.learned.get(&key) {
                    Some(until) if *until > now => due.push_back((*until, key)),
                    known => expired.extend(known.is_some().then_some(key)),
                }
            }
            if due.is_empty() {
                self.due.remove(&network);
            }
            self.sweep_from = NetworkIndex(network.0.saturating_add(1));
            if budget == 0 {
                break;
            }
        }
        for key in &expired {
            self.learned.remove(key);
        }
        expired
    }
}

#[cfg(test)]
thread_local! {
    /// Learned addresses that this thread has looked at for one network.
    pub(super) static LOOKED_AT: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

fn looked_at(key: Key) -> Key {
    #[cfg(test)]
    LOOKED_AT.set(LOOKED_AT.get() + 1);
    key
}
