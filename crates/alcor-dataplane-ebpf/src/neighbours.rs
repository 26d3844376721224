//! Neighbours: the only table that can be large. The kernel's map is the table; this side keeps only how many
//! addresses share a MAC, and which use of a row was told already.
//!
//! **Use.** Programs write the *time of use*, a number that only grows, into the row that a packet uses, by address or by
//! MAC. Whoever asks about rows is told those whose number is newer than the one of the last answer, and the number grows.

mod bulk;
mod filter;

use std::{io, net::IpAddr};

use alcor_dataplane::{DataplaneError, NeighbourRow};
use alcor_dataplane_abi::layout::{IpKey, MacKey, NEIGHBOUR_FORWARD, NeighbourValue, RemoteMac};
use alcor_model::{Id, MacAddr, Network};
use aya::{
    Ebpf,
    maps::{Array, MapData, MapError},
};
use foldhash::HashMap;

use self::filter::Filter;
use crate::{
    error,
    kernel::take,
    layout::{Plain, address, ip, ip_key, mac_key},
    syscall::Table,
};

type ByIp = Table<Plain<IpKey>, Plain<NeighbourValue>>;
type ByMac = Table<Plain<MacKey>, Plain<RemoteMac>>;

const BY_IP: &str = "neighbours";
const BY_MAC: &str = "remote_macs";
/// The maps that have room for all neighbours.
pub(crate) const MAPS: [&str; 2] = [BY_IP, BY_MAC];

pub(crate) struct Neighbours {
    by_ip: ByIp,
    by_mac: ByMac,
    /// Addresses of each (network, MAC).
    uses: HashMap<(u32, [u8; 6]), u32>,
    count: usize,
    /// Every address of the table, and perhaps others.
    known: Filter,
    /// The time of use.
    now: Array<MapData, u32>,
    /// Uses until then were told already, or were not of this row.
    told: HashMap<IpKey, u32>,
}

fn refused_time(source: MapError) -> DataplaneError {
    error::kernel("changing the time of use", source)
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

impl Neighbours {
    /// Takes the maps; drops what belongs to no network and puts right what a crash left half done.
    pub(crate) fn take(object: &mut Ebpf, is_network: impl Fn(u32) -> bool) -> Result<Self, DataplaneError> {
        let by_ip: ByIp = take(object, BY_IP)?;
        let mut table = Self {
            known: Filter::new(by_ip.limit()),
            by_ip,
            by_mac: take(object, BY_MAC)?,
            uses: HashMap::default(),
            count: 0,
            now: take(object, "use_time")?,
            told: HashMap::default(),
        };
        if table.time()? == 0 {
            // 0 is never.
            table.set_time(1)?;
        }
        let (mut stale, mut lost) = (Vec::new(), Vec::new());
        let (uses, count, by_mac) = (&mut table.uses, &mut table.count, &table.by_mac);
        let known_ips = &mut table.known;
        let read = table.by_ip.read(|key, Plain(value)| {
            if !is_network(key.0.scope) {
                stale.push(*key);
                return;
            }
            *count += 1;
            known_ips.insert(&key.0);
            *uses.entry((key.0.scope, value.mac)).or_default() += 1;
            // A question that fails is one for `put_mac`, which tells why.
            let mac = mac_key(key.0.scope, value.mac);
            let known = by_mac.get(&Plain(mac)).ok().flatten();
            if known.is_none_or(|Plain(known)| known != remote_mac(value, known.used)) {
                lost.push((mac, *value));
            }
        });
        read.map_err(|source| table.refused(source))?;
        for (mac, value) in lost {
            table.put_mac(&mac, &value)?;
        }
        let removed = table.by_ip.remove_all(&stale);
        removed.map_err(|stopped| table.refused(stopped.error))?;
        let mut unused = Vec::new();
        let read = table.by_mac.read(|key, _| {
            if !table.uses.contains_key(&(key.0.scope, key.0.mac)) {
                unused.push(*key);
            }
        });
        read.map_err(|source| table.refused(source))?;
        let removed = table.by_mac.remove_all(&unused);
        removed.map_err(|stopped| table.refused(stopped.error))?;
        Ok(table)
    }

    fn refused(&self, source: io::Error) -> DataplaneError {
        error::table("neighbour", self.by_ip.limit(), source)
    }

    /// Puts one row.
    pub(crate) fn put(&mut self, network: u32, row: &NeighbourRow) -> Result<(), DataplaneError> {
        let key = ip_key(network, row.ip);
        let old = self.find(&key)?;
        self.put_over(key, row, old)
    }

    /// Puts one row over the one that is there.
    fn put_over(
        &mut self,
        key: IpKey,
        row: &NeighbourRow,
        old: Option<NeighbourValue>,
    ) -> Result<(), DataplaneError> {
        let mut value = neighbour(row);
        if old.is_some_and(|old| NeighbourValue { used: 0, ..old } == value) {
            return Ok(());
        }
        if old.is_none() {
            self.room(0)?;
        }
        let was_used = match old {
            Some(old) => self.is_used(&key, &old)?,
            None => false,
        };
        let mac_used = self.put_mac(&mac_key(key.scope, value.mac), &value)?;
        let mut told = None;
        if was_used || mac_used > 0 {
            // What used the MAC until now did not use this row; what used the row did.
            let now = self.tick()?;
            told = Some(now);
            value.used = if was_used { now.wrapping_add(1) } else { 0 };
        }
        *self.uses.entry((key.scope, value.mac)).or_default() += 1;
        self.known.insert(&key);
        if let Err(source) = self.by_ip.put(&Plain(key), &Plain(value)) {
            self.release(key.scope, value.mac)?;
            return Err(self.refused(source));
        }
        self.told.extend(told.map(|now| (key, now)));
        match old {
            Some(old) => self.release(key.scope, old.mac),
            None => {
                self.count += 1;
                Ok(())
            }
        }
    }

    /// Says no when there is no room for one row beside those that are there and `more`.
    fn room(&self, more: usize) -> Result<(), DataplaneError> {
        let limit = self.by_ip.limit() as usize;
        if self.count + more < limit {
            return Ok(());
        }
        Err(DataplaneError::Full {
            what: "neighbour",
            limit,
        })
    }

    /// Removes one row.
    pub(crate) fn remove(&mut self, network: u32, ip: IpAddr) -> Result<(), DataplaneError> {
        let key = ip_key(network, ip);
        let taken = self.by_ip.take(&Plain(key));
        let Some(Plain(old)) = taken.map_err(|source| self.refused(source))? else {
            return Ok(());
        };
        self.told.remove(&key);
        self.count -= 1;
        self.forget_if_empty();
        self.release(network, old.mac)
    }

    /// All rows of the networks that `id` knows.
    pub(crate) fn rows(
        &self,
        id: impl Fn(u32) -> Option<Id<Network>>,
    ) -> Result<Vec<NeighbourRow>, DataplaneError> {
        let mut rows = Vec::with_capacity(self.count);
        let read = self.by_ip.read(|Plain(key), Plain(value)| {
            rows.extend(id(key.scope).map(|network_id| NeighbourRow {
                network_id,
                ip: ip(key.family, key.ip),
                mac: MacAddr(value.mac),
                host: ip(u32::from(value.family), value.host),
                label: value.label,
                forward: value.flags & NEIGHBOUR_FORWARD != 0,
            }));
        });
        read.map_err(|source| self.refused(source))?;
        Ok(rows)
    }

    /// For each address of a network, whether it was used since it was asked about last.
    pub(crate) fn take_used(
        &mut self,
        keys: impl Iterator<Item = Option<IpKey>>,
    ) -> Result<Vec<bool>, DataplaneError> {
        // What is used from here on counts for the next time; at worst it is told twice.
        let now = self.tick()?;
        keys.map(|key| {
            let Some(key) = key else { return Ok(false) };
            let Some(value) = self.get(&key)? else {
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
        let mac = self.get_mac(&mac_key(key.scope, value.mac))?;
        Ok(mac.is_some_and(|mac| mac.used > told))
    }

    fn time(&self) -> Result<u32, DataplaneError> {
        self.now.get(&0, 0).map_err(refused_time)
    }

    fn set_time(&mut self, time: u32) -> Result<(), DataplaneError> {
        self.now.set(0, time, 0).map_err(refused_time)
    }

    /// The time of use, which is over now.
    fn tick(&mut self) -> Result<u32, DataplaneError> {
        let now = self.time()?;
        self.set_time(now.wrapping_add(1))?;
        Ok(now)
    }

    /// Makes a MAC's entry agree with a row's; returns when it was used last.
    fn put_mac(&self, key: &MacKey, value: &NeighbourValue) -> Result<u32, DataplaneError> {
        let old = self.get_mac(key)?;
        let used = old.map_or(0, |old| old.used);
        let new = remote_mac(value, used);
        if old != Some(new) {
            let put = self.by_mac.put(&Plain(*key), &Plain(new));
            put.map_err(|source| self.refused(source))?;
        }
        Ok(used)
    }

    fn get_mac(&self, key: &MacKey) -> Result<Option<RemoteMac>, DataplaneError> {
        let found = self.by_mac.get(&Plain(*key));
        let found = found.map_err(|source| self.refused(source))?;
        Ok(found.map(|Plain(value)| value))
    }

    /// The entry of an address. The kernel is not asked about one that was never put.
    fn find(&self, key: &IpKey) -> Result<Option<NeighbourValue>, DataplaneError> {
        match self.known.may_have(key) {
            true => self.get(key),
            false => Ok(None),
        }
    }

    fn forget_if_empty(&mut self) {
        if self.count == 0 {
            self.known.clear();
        }
    }

    fn get(&self, key: &IpKey) -> Result<Option<NeighbourValue>, DataplaneError> {
        let found = self.by_ip.get(&Plain(*key));
        let found = found.map_err(|source| self.refused(source))?;
        Ok(found.map(|Plain(value)| value))
    }

    /// One address less uses the MAC.
    fn release(&mut self, network: u32, mac: [u8; 6]) -> Result<(), DataplaneError> {
        if !self.forget_use(network, mac) {
            return Ok(());
        }
        let removed = self.by_mac.remove(&Plain(mac_key(network, mac)));
        removed.map(drop).map_err(|source| self.refused(source))
    }

    /// Counts one address less; true when it was the last.
    fn forget_use(&mut self, network: u32, mac: [u8; 6]) -> bool {
        let Some(uses) = self.uses.get_mut(&(network, mac)) else {
            return false;
        };
        *uses -= 1;
        if *uses == 0 {
            self.uses.remove(&(network, mac));
            return true;
        }
        false
    }
}
