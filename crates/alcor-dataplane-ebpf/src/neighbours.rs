//! Neighbours: the only table that can be large. The kernel's map is the table; this side keeps only how many
//! addresses share a MAC.

use std::collections::HashMap;

use alcor_dataplane::{DataplaneError, NeighbourRow};
use alcor_dataplane_abi::layout::{IpKey, MAX_NEIGHBOURS, MacKey, NeighbourValue, RemoteMac};
use alcor_model::{Id, MacAddr, Network};
use aya::{Ebpf, maps::MapError};

use crate::{
    error,
    kernel::{Hash, take},
    layout::{Plain, address, ip, ip_key, mac_key},
};

pub(crate) struct Neighbours {
    by_ip: Hash<Plain<IpKey>, Plain<NeighbourValue>>,
    by_mac: Hash<Plain<MacKey>, Plain<RemoteMac>>,
    /// Addresses of each (network, MAC).
    uses: HashMap<(u32, [u8; 6]), u32>,
    count: usize,
}

fn refused(source: MapError) -> DataplaneError {
    error::map("neighbour", MAX_NEIGHBOURS, source)
}

const fn remote_mac(value: &NeighbourValue) -> RemoteMac {
    RemoteMac {
        host: value.host,
        family: value.family,
        label: value.label,
        pad: 0,
    }
}

fn ignore_missing(done: Result<(), MapError>) -> Result<(), DataplaneError> {
    match done {
        Err(source) if !error::is_missing(&source) => Err(refused(source)),
        _ => Ok(()),
    }
}

impl Neighbours {
    /// Takes the maps; drops what belongs to no network and puts right what a crash left half done.
    pub(crate) fn take(object: &mut Ebpf, is_network: impl Fn(u32) -> bool) -> Result<Self, DataplaneError> {
        let mut table = Self {
            by_ip: take(object, "neighbours")?,
            by_mac: take(object, "remote_macs")?,
            uses: HashMap::new(),
            count: 0,
        };
        let mut stale = Vec::new();
        for item in table.by_ip.iter() {
            let (Plain(key), Plain(value)) = item.map_err(refused)?;
            if !is_network(key.scope) {
                stale.push(Plain(key));
                continue;
            }
            table.count += 1;
            *table.uses.entry((key.scope, value.mac)).or_default() += 1;
            let remote = Plain(remote_mac(&value));
            if table.by_mac.get(&Plain(mac_key(key.scope, value.mac)), 0).ok() != Some(remote) {
                table
                    .by_mac
                    .insert(Plain(mac_key(key.scope, value.mac)), remote, 0)
                    .map_err(refused)?;
            }
        }
        for key in stale {
            ignore_missing(table.by_ip.remove(&key))?;
        }
        let unused = |key: &MacKey| !table.uses.contains_key(&(key.scope, key.mac));
        let keys: Result<Vec<Plain<MacKey>>, MapError> = table.by_mac.keys().collect();
        let stale: Vec<Plain<MacKey>> = keys
            .map_err(refused)?
            .into_iter()
            .filter(|Plain(key)| unused(key))
            .collect();
        for key in stale {
            ignore_missing(table.by_mac.remove(&key))?;
        }
        Ok(table)
    }

    pub(crate) fn put(&mut self, network: u32, row: &NeighbourRow) -> Result<(), DataplaneError> {
        let (family, host) = address(row.host);
        let value = NeighbourValue {
            host,
            family,
            mac: row.mac.0,
            label: row.label,
        };
        let key = Plain(ip_key(network, row.ip));
        let old = self.get(&key)?;
        if old == Some(value) {
            return Ok(());
        }
        if old.is_none() && self.count >= MAX_NEIGHBOURS as usize {
            return Err(DataplaneError::Full {
                what: "neighbour",
                limit: MAX_NEIGHBOURS as usize,
            });
        }
        let mac = Plain(mac_key(network, row.mac.0));
        self.by_mac
            .insert(mac, Plain(remote_mac(&value)), 0)
            .map_err(refused)?;
        *self.uses.entry((network, row.mac.0)).or_default() += 1;
        if let Err(source) = self.by_ip.insert(key, Plain(value), 0) {
            self.release(network, row.mac.0)?;
            return Err(refused(source));
        }
        match old {
            Some(old) => self.release(network, old.mac),
            None => {
                self.count += 1;
                Ok(())
            }
        }
    }

    pub(crate) fn remove(&mut self, network: u32, ip: std::net::IpAddr) -> Result<(), DataplaneError> {
        let key = Plain(ip_key(network, ip));
        let Some(old) = self.get(&key)? else {
            return Ok(());
        };
        ignore_missing(self.by_ip.remove(&key))?;
        self.count -= 1;
        self.release(network, old.mac)
    }

    /// Removes all of a network. Walks the whole table: networks go rarely.
    pub(crate) fn remove_network(&mut self, network: u32) -> Result<(), DataplaneError> {
        let keys: Result<Vec<Plain<IpKey>>, MapError> = self.by_ip.keys().collect();
        for Plain(key) in keys.map_err(refused)? {
            if key.scope == network {
                self.remove(network, ip(key.family, key.ip))?;
            }
        }
        Ok(())
    }

    /// All rows of the networks that `id` knows.
    pub(crate) fn rows(
        &self,
        id: impl Fn(u32) -> Option<Id<Network>>,
    ) -> Result<Vec<NeighbourRow>, DataplaneError> {
        let mut rows = Vec::with_capacity(self.count);
        for item in self.by_ip.iter() {
            let (Plain(key), Plain(value)) = item.map_err(refused)?;
            if let Some(network_id) = id(key.scope) {
                rows.push(NeighbourRow {
                    network_id,
                    ip: ip(key.family, key.ip),
                    mac: MacAddr(value.mac),
                    host: ip(value.family, value.host),
                    label: value.label,
                    forward: false,
                });
            }
        }
        Ok(rows)
    }

    fn get(&self, key: &Plain<IpKey>) -> Result<Option<NeighbourValue>, DataplaneError> {
        match self.by_ip.get(key, 0) {
            Ok(Plain(value)) => Ok(Some(value)),
            Err(source) if error::is_missing(&source) => Ok(None),
            Err(source) => Err(refused(source)),
        }
    }

    /// One address less uses the MAC.
    fn release(&mut self, network: u32, mac: [u8; 6]) -> Result<(), DataplaneError> {
        let Some(uses) = self.uses.get_mut(&(network, mac)) else {
            return Ok(());
        };
        *uses -= 1;
        if *uses > 0 {
            return Ok(());
        }
        self.uses.remove(&(network, mac));
        ignore_missing(self.by_mac.remove(&Plain(mac_key(network, mac))))
    }
}
