//! The kernel's small tables of a gateway: entries in and out.

use std::collections::BTreeSet;

use alcor_dataplane::DataplaneError;
use alcor_dataplane_abi::{
    gateway_layout::{Ipv4Key, MAX_GATEWAY_NETWORKS, MAX_GATEWAY_UNDERLAY, VniValue},
    layout::NetworkValue,
};
use aya::{
    Ebpf,
    maps::{LpmTrie, MapData, MapError, lpm_trie::Key as TrieKey},
};

use super::derived::{Key, Value};
use crate::{
    error,
    kernel::{Hash, take},
    layout::Plain,
};

/// The present value of entries that have none.
const PRESENT: u32 = 1;

pub(super) struct Tables {
    vnis: Hash<u32, Plain<VniValue>>,
    networks: Hash<u32, Plain<NetworkValue>>,
    underlay: LpmTrie<MapData, Plain<Ipv4Key>, u32>,
}

impl Tables {
    pub(super) fn take(object: &mut Ebpf) -> Result<Self, DataplaneError> {
        Ok(Self {
            vnis: take(object, "gw_vnis")?,
            networks: take(object, "gw_networks")?,
            underlay: take(object, "gw_underlay")?,
        })
    }

    /// All entries that are there.
    pub(super) fn keys(&self) -> Result<BTreeSet<Key>, DataplaneError> {
        let mut keys = BTreeSet::new();
        let failed = |source| error::kernel("reading the gateway's tables", source);
        for key in self.vnis.keys() {
            keys.insert(Key::Vni(key.map_err(failed)?));
        }
        for key in self.networks.keys() {
            keys.insert(Key::Network(key.map_err(failed)?));
        }
        for key in self.underlay.keys() {
            let key = key.map_err(failed)?;
            keys.insert(Key::Underlay(key.prefix_len(), key.data().0));
        }
        Ok(keys)
    }

    pub(super) fn put(&mut self, key: &Key, value: &Value) -> Result<(), DataplaneError> {
        let done = match (*key, *value) {
            (Key::Network(handle), Value::Network(value)) => self.networks.insert(handle, Plain(value), 0),
            (Key::Underlay(bits, key), _) => {
                self.underlay.insert(&TrieKey::new(bits, Plain(key)), PRESENT, 0)
            }
            (Key::Vni(vni), Value::Vni(value)) => self.vnis.insert(vni, Plain(value), 0),
            // Keys and values are made in pairs; a pair that does not match has nothing to put.
            _ => Ok(()),
        };
        done.map_err(|source| refused(key, source))
    }

    pub(super) fn remove(&mut self, key: &Key) -> Result<(), DataplaneError> {
        let done = match *key {
            Key::Network(handle) => self.networks.remove(&handle),
            Key::Underlay(bits, key) => self.underlay.remove(&TrieKey::new(bits, Plain(key))),
            Key::Vni(vni) => self.vnis.remove(&vni),
        };
        match done {
            Err(source) if !error::is_missing(&source) => Err(refused(key, source)),
            _ => Ok(()),
        }
    }
}

fn refused(key: &Key, source: MapError) -> DataplaneError {
    let (what, limit) = match key {
        Key::Network(_) | Key::Vni(_) => ("network", MAX_GATEWAY_NETWORKS),
        Key::Underlay(..) => ("block of tunnel addresses", MAX_GATEWAY_UNDERLAY),
    };
    error::map(what, limit, source)
}
