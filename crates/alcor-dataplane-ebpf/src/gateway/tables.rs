//! The kernel's small tables of a gateway: entries in and out.

use std::collections::BTreeSet;

use alcor_dataplane::DataplaneError;
use alcor_dataplane_abi::gateway_layout::{
    BlockValue, ExternalValue, FloatingValue, Ipv4Key, MAX_EXTERNAL_ADDRESSES, MAX_GATEWAY_NETWORKS,
    MAX_GATEWAY_ROUTERS, MAX_GATEWAY_UNDERLAY, MAX_NAT_BLOCKS, RouterValue, VniValue,
};
use aya::{
    Ebpf,
    maps::{Array, LpmTrie, MapData, MapError, lpm_trie::Key as TrieKey},
};

use super::derived::{Key, Value};
use crate::{
    error,
    kernel::{Hash, take},
    layout::Plain,
};

/// The present value of entries that have none.
const PRESENT: u32 = 1;

/// The place of a router that is not there.
const NO_ROUTER: Plain<RouterValue> = Plain(RouterValue {
    address: [0; 4],
    flags: 0,
});

pub(super) struct Tables {
    vnis: Hash<u32, Plain<VniValue>>,
    routers: Array<MapData, Plain<RouterValue>>,
    externals: Hash<[u8; 4], Plain<ExternalValue>>,
    floating: Hash<Plain<Ipv4Key>, Plain<FloatingValue>>,
    blocks: LpmTrie<MapData, Plain<Ipv4Key>, Plain<BlockValue>>,
    underlay: LpmTrie<MapData, Plain<Ipv4Key>, u32>,
}

impl Tables {
    pub(super) fn take(object: &mut Ebpf) -> Result<Self, DataplaneError> {
        Ok(Self {
            vnis: take(object, "gw_vnis")?,
            routers: take(object, "gw_routers")?,
            externals: take(object, "gw_externals")?,
            floating: take(object, "gw_floating")?,
            blocks: take(object, "gw_blocks")?,
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
        for (number, value) in self.routers.iter().enumerate() {
            if value.map_err(failed)? != NO_ROUTER {
                keys.insert(Key::Router(number as u32));
            }
        }
        for key in self.externals.keys() {
            keys.insert(Key::External(key.map_err(failed)?));
        }
        for key in self.floating.keys() {
            keys.insert(Key::Floating(key.map_err(failed)?.0));
        }
        for key in self.blocks.keys() {
            let key = key.map_err(failed)?;
            keys.insert(Key::Block(key.prefix_len(), key.data().0));
        }
        for key in self.underlay.keys() {
            let key = key.map_err(failed)?;
            keys.insert(Key::Underlay(key.prefix_len(), key.data().0));
        }
        Ok(keys)
    }

    pub(super) fn put(&mut self, key: &Key, value: &Value) -> Result<(), DataplaneError> {
        let done = match (*key, *value) {
            (Key::Router(number), Value::Router(value)) => self.routers.set(number, Plain(value), 0),
            (Key::Floating(key), Value::Floating(value)) => self.floating.insert(Plain(key), Plain(value), 0),
            (Key::Block(bits, key), Value::Block(value)) => {
                self.blocks
                    .insert(&TrieKey::new(bits, Plain(key)), Plain(value), 0)
            }
            (Key::External(address), Value::External(value)) => {
                self.externals.insert(address, Plain(value), 0)
            }
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
            Key::Router(number) => self.routers.set(number, NO_ROUTER, 0),
            Key::Floating(key) => self.floating.remove(&Plain(key)),
            Key::Block(bits, key) => self.blocks.remove(&TrieKey::new(bits, Plain(key))),
            Key::External(address) => self.externals.remove(&address),
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
        Key::Router(_) => ("router", MAX_GATEWAY_ROUTERS),
        Key::Floating(_) | Key::External(_) => ("external address", MAX_EXTERNAL_ADDRESSES),
        Key::Block(..) => ("block behind a router", MAX_NAT_BLOCKS),
        Key::Vni(_) => ("network", MAX_GATEWAY_NETWORKS),
        Key::Underlay(..) => ("block of tunnel addresses", MAX_GATEWAY_UNDERLAY),
    };
    error::map(what, limit, source)
}
