//! Neighbours: the only table that can be large. The kernel's map is the table; this side keeps only how many
//! addresses share a MAC, and which use of a row was told already.
//!
//! **Use.** Programs write the *time of use*, a number that only grows, into the row that a packet uses, by address or by
//! MAC. Whoever asks about rows is told those whose number is newer than the one of the last answer, and the number grows.

use std::collections::HashMap;

use alcor_dataplane::{DataplaneError, NeighbourRow};
use alcor_dataplane_abi::layout::{
    IpKey, MAX_NEIGHBOURS, MacKey, NEIGHBOUR_FORWARD, NeighbourValue, RemoteMac,
};
use alcor_model::{Id, MacAddr, Network};
use aya::{
    Ebpf,
    maps::{Array, MapData, MapError},
};

use crate::{
    error,
    kernel::{Hash, take},
    layout::{Plain, address, ip, ip_key, mac_key},
};

pub(crate) struct Neighbours {
    by_ip: Hash<Plain<IpKey>, Plain<NeighbourValue>>,
    by_mac: ByMac,
    /// Addresses of each (network, MAC).
    uses: HashMap<(u32, [u8; 6]), u32>,
    count: usize,
    /// The time of use.
    now: Array<MapData, u32>,
    /// Uses until then were told already, or were not of this row.
    told: HashMap<IpKey, u32>,
}

fn refused(source: MapError) -> DataplaneError {
    error::map("neighbour", MAX_NEIGHBOURS, source)
}

const fn remote_mac(value: &NeighbourValue, used: u32) -> RemoteMac {
    RemoteMac {
        host: value.host,
        family: value.family,
        flags: value.flags,
        label: value.label,
        pad: 0,
        used,
    }
}

/// The entry of a row that was not used.
fn neighbour(row: &NeighbourRow) -> NeighbourValue {
    let (family, host) = address(row.host);
    NeighbourValue {
        host,
        // 4 or 6.
        family: family as u16,
        flags: if row.forward { NEIGHBOUR_FORWARD } else { 0 },
        mac: row.mac.0,
        label: row.label,
        used: 0,
    }
}

type ByMac = Hash<Plain<MacKey>, Plain<RemoteMac>>;

fn get_mac(by_mac: &ByMac, key: &MacKey) -> Result<Option<RemoteMac>, DataplaneError> {
    match by_mac.get(&Plain(*key), 0) {
        Ok(Plain(value)) => Ok(Some(value)),
        Err(source) if error::is_missing(&source) => Ok(None),
        Err(source) => Err(refused(source)),
    }
}

/// Makes a MAC's entry agree with a row's; returns when it was used last.
fn put_mac(by_mac: &mut ByMac, key: &MacKey, value: &NeighbourValue) -> Result<u32, DataplaneError> {
    let old = get_mac(by_mac, key)?;
    let used = old.map_or(0, |old| old.used);
    let new = remote_mac(value, used);
    if old != Some(new) {
        by_mac.insert(Plain(*key), Plain(new), 0).map_err(refused)?;
    }
    Ok(used)
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
            now: take(object, "use_time")?,
            told: HashMap::new(),
        };
        if table.time()? == 0 {
            // 0 is never.
            table.set_time(1)?;
        }
        let mut stale = Vec::new();
        for item in table.by_ip.iter() {
            let (Plain(key), Plain(value)) = item.map_err(refused)?;
            if !is_network(key.scope) {
                stale.push(Plain(key));
                continue;
            }
            table.count += 1;
            *table.uses.entry((key.scope, value.mac)).or_default() += 1;
            put_mac(&mut table.by_mac, &mac_key(key.scope, value.mac), &value)?;
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
        let mut value = neighbour(row);
        let key = Plain(ip_key(network, row.ip));
        let old = self.get(&key)?;
        if old.is_some_and(|old| NeighbourValue { used: 0, ..old } == value) {
            return Ok(());
        }
        if old.is_none() && self.count >= MAX_NEIGHBOURS as usize {
            return Err(DataplaneError::Full {
                what: "neighbour",
                limit: MAX_NEIGHBOURS as usize,
            });
        }
        let mac = mac_key(network, row.mac.0);
        let was_used = match old {
            Some(old) => self.is_used(&key.0, &old)?,
            None => false,
        };
        let mac_used = put_mac(&mut self.by_mac, &mac, &value)?;
        if was_used || mac_used > 0 {
            // What used the MAC until now did not use this row; what used the row did.
            let now = self.time()?;
            self.set_time(now.wrapping_add(1))?;
            self.told.insert(key.0, now);
            value.used = if was_used { now.wrapping_add(1) } else { 0 };
        }
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
        self.told.remove(&key.0);
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
                    host: ip(u32::from(value.family), value.host),
                    label: value.label,
                    forward: value.flags & NEIGHBOUR_FORWARD != 0,
                });
            }
        }
        Ok(rows)
    }

    /// For each address of a network, whether it was used since it was asked about last.
    pub(crate) fn take_used(
        &mut self,
        keys: impl Iterator<Item = Option<IpKey>>,
    ) -> Result<Vec<bool>, DataplaneError> {
        let now = self.time()?;
        // What is used from here on counts for the next time; at worst it is told twice.
        self.set_time(now.wrapping_add(1))?;
        keys.map(|key| {
            let Some(key) = key else { return Ok(false) };
            let Some(value) = self.get(&Plain(key))? else {
                return Ok(false);
            };
            let is_used = self.is_used(&key, &value)?;
            self.told.insert(key, now);
            Ok(is_used)
        })
        .collect()
    }

    /// Whether a row was used and nobody was told.
    fn is_used(&self, key: &IpKey, value: &NeighbourValue) -> Result<bool, DataplaneError> {
        let told = self.told.get(key).copied().unwrap_or_default();
        if value.used > told {
            return Ok(true);
        }
        let mac = get_mac(&self.by_mac, &mac_key(key.scope, value.mac))?;
        Ok(mac.is_some_and(|mac| mac.used > told))
    }

    fn time(&self) -> Result<u32, DataplaneError> {
        self.now.get(&0, 0).map_err(refused)
    }

    fn set_time(&mut self, time: u32) -> Result<(), DataplaneError> {
        self.now.set(0, time, 0).map_err(refused)
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
