//! Many rows at once: new ones go into the kernel in batches, without a question about each. What changes goes one by one.

use alcor_dataplane::{DataplaneError, NeighbourRow};
use alcor_dataplane_abi::layout::{IpKey, MacKey, NeighbourValue, RemoteMac};
use foldhash::{HashMap, HashSet};

use super::{Neighbours, neighbour, remote_mac};
use crate::{
    layout::{Plain, ip_key, mac_key},
    syscall::{BATCH, Stopped},
};

/// Rows that are not in the kernel yet.
#[derive(Default)]
struct Fresh {
    keys: Vec<Plain<IpKey>>,
    values: Vec<Plain<NeighbourValue>>,
    /// Which of the rows they are.
    places: Vec<usize>,
    seen: HashSet<IpKey>,
    macs: HashMap<MacKey, RemoteMac>,
    /// Some have a MAC that packets have used before the row came.
    used: Vec<IpKey>,
}

/// What became of each row.
type Outcomes = Vec<Result<(), DataplaneError>>;

impl Neighbours {
    /// Puts rows, each with the handle of its network, in this order.
    pub(crate) fn put_all(&mut self, rows: &[(u32, &NeighbourRow)]) -> Outcomes {
        let mut outcomes: Outcomes = rows.iter().map(|_| Ok(())).collect();
        for (number, some) in rows.chunks(BATCH).enumerate() {
            let mut fresh = Fresh::default();
            for (at, (network, row)) in (number * BATCH..).zip(some) {
                let outcome = self.add(&mut fresh, at, *network, row, &mut outcomes);
                if let (Some(place), Err(error)) = (outcomes.get_mut(at), outcome) {
                    *place = Err(error);
                }
            }
            self.flush(&mut fresh, &mut outcomes);
        }
        outcomes
    }

    /// Takes a row up among the fresh ones if it is, else puts it.
    fn add(
        &mut self,
        fresh: &mut Fresh,
        at: usize,
        network: u32,
        row: &NeighbourRow,
        outcomes: &mut Outcomes,
    ) -> Result<(), DataplaneError> {
        let key = ip_key(network, row.ip);
        let value = neighbour(row);
        if fresh.seen.contains(&key) {
            self.flush(fresh, outcomes);
            return self.put(network, row);
        }
        if let Some(old) = self.find(&key)? {
            if (NeighbourValue { used: 0, ..old }) == value {
                return Ok(());
            }
            self.flush(fresh, outcomes);
            return self.put_over(key, row, Some(old));
        }
        self.room(fresh.keys.len())?;
        let mac = mac_key(network, value.mac);
        let is_shared = self.uses.contains_key(&(network, value.mac));
        if is_shared && !fresh.macs.contains_key(&mac) {
            if self.put_mac(&mac, &value)? > 0 {
                fresh.used.push(key);
            }
        } else {
            fresh.macs.insert(mac, remote_mac(&value, 0));
        }
        *self.uses.entry((network, value.mac)).or_default() += 1;
        fresh.seen.insert(key);
        self.known.insert(&key);
        fresh.keys.push(Plain(key));
        fresh.values.push(Plain(value));
        fresh.places.push(at);
        Ok(())
    }

    /// Puts what is fresh: MACs first, as packets for an address need both.
    fn flush(&mut self, fresh: &mut Fresh, outcomes: &mut Outcomes) {
        let fresh = std::mem::take(fresh);
        let (macs, values): (Vec<_>, Vec<_>) = fresh
            .macs
            .iter()
            .map(|(key, value)| (Plain(*key), Plain(*value)))
            .unzip();
        // What a refusal leaves out is put with its row, or refused again there.
        let has_macs = self.by_mac.put_all(&macs, &values).is_ok();
        let is_timed = fresh.used.is_empty() || self.tell(&fresh.used).is_ok();
        let mut begin = 0;
        if has_macs && is_timed {
            begin = match self.by_ip.put_all(&fresh.keys, &fresh.values) {
                Ok(()) => fresh.keys.len(),
                Err(Stopped { done, .. }) => done,
            };
        }
        self.count += begin;
        let rest = fresh.keys.iter().zip(&fresh.values).zip(&fresh.places);
        for ((Plain(key), Plain(value)), place) in rest.skip(begin) {
            let outcome = self.put_one(*key, *value);
            if let Some(place) = outcomes.get_mut(*place) {
                *place = outcome;
            }
        }
    }

    /// Uses of the MACs until now were not of these rows.
    fn tell(&mut self, keys: &[IpKey]) -> Result<(), DataplaneError> {
        let now = self.tick()?;
        self.told.extend(keys.iter().map(|key| (*key, now)));
        Ok(())
    }

    /// Puts a fresh row by itself, after a batch was refused.
    fn put_one(&mut self, key: IpKey, value: NeighbourValue) -> Result<(), DataplaneError> {
        let put = self
            .put_mac(&mac_key(key.scope, value.mac), &value)
            .and_then(|_| {
                let put = self.by_ip.put(&Plain(key), &Plain(value));
                put.map_err(|source| self.refused(source))
            });
        match put {
            Ok(()) => {
                self.count += 1;
                Ok(())
            }
            Err(refusal) => {
                self.told.remove(&key);
                self.release(key.scope, value.mac)?;
                Err(refusal)
            }
        }
    }

    /// Removes all of a network. Walks the whole table: networks go rarely.
    pub(crate) fn remove_network(&mut self, network: u32) -> Result<(), DataplaneError> {
        let (mut keys, mut macs) = (Vec::new(), Vec::new());
        let read = self.by_ip.read(|key, Plain(value)| {
            if key.0.scope == network {
                keys.push(*key);
                macs.push(value.mac);
            }
        });
        read.map_err(|source| self.refused(source))?;
        for (keys, macs) in keys.chunks(BATCH).zip(macs.chunks(BATCH)) {
            let removed = self.by_ip.remove_all(keys);
            removed.map_err(|stopped| self.refused(stopped.error))?;
            self.count -= keys.len();
            let mut unused = Vec::new();
            for (Plain(key), mac) in keys.iter().zip(macs) {
                self.told.remove(key);
                if self.forget_use(network, *mac) {
                    unused.push(Plain(mac_key(network, *mac)));
                }
            }
            let removed = self.by_mac.remove_all(&unused);
            removed.map_err(|stopped| self.refused(stopped.error))?;
        }
        self.forget_if_empty();
        Ok(())
    }
}
