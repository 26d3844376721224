//! Neighbours of a gateway: the only large tables. The kernel's maps are the tables; this side keeps nothing of them.

use std::{hash::Hash, io, net::IpAddr};

use alcor_dataplane::{DataplaneError, NeighbourRow};
use alcor_dataplane_abi::{
    gateway_layout::{Ipv4Key, Ipv6Key, PeerValue},
    layout::NEIGHBOUR_FORWARD,
};
use alcor_model::{Id, MacAddr, Network};
use aya::{Ebpf, Pod};
use foldhash::HashSet;

use crate::{
    error,
    kernel::take,
    layout::Plain,
    syscall::{BATCH, Stopped, Table},
};

type V4 = Table<Plain<Ipv4Key>, Plain<PeerValue>>;
type V6 = Table<Plain<Ipv6Key>, Plain<PeerValue>>;

pub(super) struct Peers {
    v4: V4,
    v6: V6,
}

/// What shall become of one neighbour: `None` removes it.
pub(super) type Change = Option<PeerValue>;

/// What a row is in the kernel, with the handle of its network. Hosts are known to be IPv4.
pub(super) fn value(row: &NeighbourRow) -> Option<PeerValue> {
    let IpAddr::V4(host) = row.host else {
        return None;
    };
    Some(PeerValue {
        host: host.octets(),
        mac: row.mac.0,
        label: row.label,
        flags: if row.forward { NEIGHBOUR_FORWARD } else { 0 },
        pad: 0,
    })
}

fn refused<K: Pod, V: Pod>(table: &Table<K, V>, source: io::Error) -> DataplaneError {
    error::table("neighbour", table.limit(), source)
}

impl Peers {
    pub(super) fn take(object: &mut Ebpf) -> Result<Self, DataplaneError> {
        Ok(Self {
            v4: take(object, "gw_peers4")?,
            v6: take(object, "gw_peers6")?,
        })
    }

    /// Neighbours that there is room for, of each address family.
    pub(super) fn room(&self) -> u32 {
        self.v4.limit().min(self.v6.limit())
    }

    /// Brings changes into force, those of one address in this order; each with its place in `outcomes`.
    pub(super) fn change(
        &self,
        changes: impl Iterator<Item = (usize, u32, IpAddr, Change)>,
        outcomes: &mut [Result<(), DataplaneError>],
    ) {
        let (mut v4, mut v6) = (Run::default(), Run::default());
        for (place, network, ip, change) in changes {
            match ip {
                IpAddr::V4(ip) => {
                    let key = Ipv4Key {
                        network,
                        ip: ip.octets(),
                    };
                    v4.add(&self.v4, place, key, change, outcomes);
                }
                IpAddr::V6(ip) => {
                    let key = Ipv6Key {
                        network,
                        ip: ip.octets(),
                    };
                    v6.add(&self.v6, place, key, change, outcomes);
                }
            }
        }
        v4.flush(&self.v4, outcomes);
        v6.flush(&self.v6, outcomes);
    }

    /// All rows of the networks that `id` knows.
    pub(super) fn rows(
        &self,
        id: impl Fn(u32) -> Option<Id<Network>>,
    ) -> Result<Vec<NeighbourRow>, DataplaneError> {
        let mut rows = Vec::new();
        let row = |network_id, ip, value: &PeerValue| NeighbourRow {
            network_id,
            ip,
            mac: MacAddr(value.mac),
            host: value.host.into(),
            label: value.label,
            forward: value.flags & NEIGHBOUR_FORWARD != 0,
        };
        let read = self.v4.read(|Plain(key), Plain(value)| {
            rows.extend(id(key.network).map(|network| row(network, key.ip.into(), value)));
        });
        read.map_err(|source| refused(&self.v4, source))?;
        let read = self.v6.read(|Plain(key), Plain(value)| {
            rows.extend(id(key.network).map(|network| row(network, key.ip.into(), value)));
        });
        read.map_err(|source| refused(&self.v6, source))?;
        Ok(rows)
    }

    /// Removes all whose network `keep` does not want. Walks the whole tables: networks go rarely.
    pub(super) fn retain(&self, keep: impl Fn(u32) -> bool) -> Result<(), DataplaneError> {
        remove_if(&self.v4, |key| !keep(key.network))?;
        remove_if(&self.v6, |key| !keep(key.network))
    }
}

fn remove_if<K>(
    table: &Table<Plain<K>, Plain<PeerValue>>,
    is_gone: impl Fn(&K) -> bool,
) -> Result<(), DataplaneError>
where
    Plain<K>: Pod,
{
    let mut gone = Vec::new();
    let read = table.read(|key, _| {
        if is_gone(&key.0) {
            gone.push(*key);
        }
    });
    read.map_err(|source| refused(table, source))?;
    for keys in gone.chunks(BATCH) {
        let removed = table.remove_all(keys);
        removed.map_err(|stopped| refused(table, stopped.error))?;
    }
    Ok(())
}

/// Changes of one kind that go into the kernel together.
struct Run<K> {
    places: Vec<usize>,
    keys: Vec<Plain<K>>,
    values: Vec<Plain<PeerValue>>,
    /// Each key stands once.
    seen: HashSet<K>,
}

impl<K> Default for Run<K> {
    fn default() -> Self {
        Self {
            places: Vec::new(),
            keys: Vec::new(),
            values: Vec::new(),
            seen: HashSet::default(),
        }
    }
}

impl<K: Copy + Eq + Hash + Sync> Run<K>
where
    Plain<K>: Pod,
{
    fn add(
        &mut self,
        table: &Table<Plain<K>, Plain<PeerValue>>,
        place: usize,
        key: K,
        change: Change,
        outcomes: &mut [Result<(), DataplaneError>],
    ) {
        let is_removal = change.is_none();
        // A run puts, or removes.
        let fits = self.keys.is_empty() || self.values.is_empty() == is_removal;
        if !fits || self.keys.len() == BATCH || self.seen.contains(&key) {
            self.flush(table, outcomes);
        }
        self.seen.insert(key);
        self.places.push(place);
        self.keys.push(Plain(key));
        self.values.extend(change.map(Plain));
    }

    fn flush(
        &mut self,
        table: &Table<Plain<K>, Plain<PeerValue>>,
        outcomes: &mut [Result<(), DataplaneError>],
    ) {
        let is_removal = self.values.is_empty();
        let done = if is_removal {
            table.remove_all(&self.keys)
        } else {
            table.put_all(&self.keys, &self.values)
        };
        if let Err(Stopped { done, .. }) = done {
            // One by one, so that each has an outcome of its own.
            for (at, place) in self.places.iter().enumerate().skip(done) {
                let one = match (self.keys.get(at), self.values.get(at)) {
                    (Some(key), Some(value)) => table.put(key, value),
                    (Some(key), None) => table.remove(key).map(drop),
                    (None, _) => Ok(()),
                };
                if let (Err(source), Some(outcome)) = (one, outcomes.get_mut(*place)) {
                    *outcome = Err(refused(table, source));
                }
            }
        }
        *self = Self::default();
    }
}
