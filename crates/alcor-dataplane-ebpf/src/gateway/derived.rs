//! What rows amount to in the kernel's small tables: for each entry that a row may touch, what it must be now.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use alcor_dataplane::{
    DataplaneError, FloatingIpRow, RouterRow, Row,
    gateway::{External, Rows},
};
use alcor_dataplane_abi::{
    gateway_layout::{
        BlockValue, EXTERNAL_FLOATING, EXTERNAL_ROUTER, ExternalValue, FloatingValue, Ipv4Key,
        MAX_GATEWAY_NETWORKS, MAX_GATEWAY_ROUTERS, ROUTER_OWNED, ROUTER_SNAT, RouterValue, VniValue,
    },
    layout::{NETWORK_UNDERLAY, NETWORK_UP},
};
use alcor_model::{Id, Network, Router};
use ipnet::{IpNet, Ipv4Net};

/// Bits of an [`Ipv4Key`] before the address.
const SCOPE_BITS: u32 = 32;

/// An entry. Entries are put in this order and removed in the opposite one: what packets find first comes last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key {
    /// By number.
    Router(u32),
    /// Fixed IP in its network.
    Floating(Ipv4Key),
    /// Prefix length in bits of the whole key.
    Block(u32, Ipv4Key),
    /// By address.
    External([u8; 4]),
    /// Prefix length in bits of the whole key.
    Underlay(u32, Ipv4Key),
    /// By VNI.
    Vni(u32),
}

/// What is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Present,
    Router(RouterValue),
    Floating(FloatingValue),
    Block(BlockValue),
    External(ExternalValue),
    Vni(VniValue),
}

/// Numbers of networks and routers in the kernel's tables, and who this gateway is.
pub(super) struct Handles {
    tunnel_ip: Ipv4Addr,
    networks: Numbers<Id<Network>>,
    routers: Numbers<Id<Router>>,
}

/// Numbers from 1, each of one owner.
struct Numbers<T> {
    by_owner: BTreeMap<T, u32>,
    owners: BTreeMap<u32, T>,
}

impl<T> Default for Numbers<T> {
    fn default() -> Self {
        Self {
            by_owner: BTreeMap::new(),
            owners: BTreeMap::new(),
        }
    }
}

impl<T: Copy + Ord> Numbers<T> {
    fn set(&mut self, owner: T, number: u32) {
        self.by_owner.insert(owner, number);
        self.owners.insert(number, owner);
    }

    /// The owner's number, which may be new: the lowest that is free, up to a limit.
    fn give(&mut self, owner: T, what: &'static str, limit: u32) -> Result<u32, DataplaneError> {
        if let Some(number) = self.by_owner.get(&owner) {
            return Ok(*number);
        }
        let mut free = 1;
        for number in self.owners.keys() {
            if *number > free {
                break;
            }
            free = number + 1;
        }
        if free > limit {
            return Err(DataplaneError::Full {
                what,
                limit: limit as usize,
            });
        }
        self.set(owner, free);
        Ok(free)
    }

    fn free(&mut self, owner: &T) -> Option<u32> {
        let number = self.by_owner.remove(owner)?;
        self.owners.remove(&number);
        Some(number)
    }
}

impl Handles {
    /// No numbers, for the gateway with this tunnel address.
    pub(super) fn new(tunnel_ip: Ipv4Addr) -> Self {
        Self {
            tunnel_ip,
            networks: Numbers::default(),
            routers: Numbers::default(),
        }
    }

    /// The handle of a network that has one.
    pub(super) fn network(&self, id: Id<Network>) -> Option<u32> {
        self.networks.by_owner.get(&id).copied()
    }

    /// The network of a handle.
    pub(super) fn id(&self, handle: u32) -> Option<Id<Network>> {
        self.networks.owners.get(&handle).copied()
    }

    /// The number of a router that rows name.
    pub(super) fn router(&self, id: Id<Router>) -> Option<u32> {
        self.routers.by_owner.get(&id).copied()
    }

    /// All routers that rows name, with their numbers.
    pub(super) fn routers(&self) -> impl Iterator<Item = (Id<Router>, u32)> + '_ {
        self.routers.by_owner.iter().map(|(id, number)| (*id, *number))
    }

    /// The number that is kept with a row was this one.
    pub(super) fn restore(&mut self, row: &Row, number: u32) {
        match row {
            Row::Network(row) => self.networks.set(row.id, number),
            Row::Router(row) => self.routers.set(row.id, number),
            Row::FloatingIp(row) => self.routers.set(row.router_id, number),
            _ => {}
        }
    }

    /// The number that is kept with a row: of its network or router; it may be new.
    pub(super) fn give(&mut self, row: &Row) -> Result<u32, DataplaneError> {
        let router = match row {
            Row::Network(row) => {
                return self.networks.give(row.id, "network", MAX_GATEWAY_NETWORKS);
            }
            Row::Router(row) => row.id,
            Row::FloatingIp(row) => row.router_id,
            _ => return Ok(0),
        };
        self.routers.give(router, "router", MAX_GATEWAY_ROUTERS)
    }

    /// The network is gone.
    pub(super) fn free_network(&mut self, id: Id<Network>) {
        self.networks.free(&id);
    }

    /// No row names the router any more; its number, if it had one.
    pub(super) fn free_router(&mut self, id: Id<Router>) -> Option<u32> {
        self.routers.free(&id)
    }
}

/// The router that a row names.
pub(super) const fn named_router(row: &Row) -> Option<Id<Router>> {
    match row {
        Row::Router(row) => Some(row.id),
        Row::FloatingIp(row) => Some(row.router_id),
        _ => None,
    }
}

/// The entries that this row touches, as it is and as the others are now.
pub(super) fn touched(row: &Row, rows: &Rows, handles: &Handles) -> BTreeSet<Key> {
    let mut keys = BTreeSet::new();
    let Some(network) = handles.network(row.key().network_id()) else {
        return keys;
    };
    keys.extend(
        named_router(row)
            .and_then(|id| handles.router(id))
            .map(Key::Router),
    );
    match row {
        Row::Network(row) => {
            keys.insert(Key::Vni(row.vni.get()));
            let blocks = row.underlay.iter().flatten();
            keys.extend(blocks.filter_map(|block| match block {
                IpNet::V4(block) => {
                    Some(block_key(network, block)).map(|(bits, key)| Key::Underlay(bits, key))
                }
                IpNet::V6(_) => None,
            }));
            let floating = rows.floating_of(row.id);
            keys.extend(floating.map(|row| Key::External(row.floating_ip.octets())));
        }
        Row::Router(row) => touched_by_router(network, row, rows, &mut keys),
        Row::FloatingIp(row) => keys.extend([
            Key::Floating(ipv4_key(network, row.fixed_ip)),
            Key::External(row.floating_ip.octets()),
        ]),
        _ => {}
    }
    keys
}

/// Its rows in other networks may say another address.
fn touched_by_router(network: u32, row: &RouterRow, rows: &Rows, keys: &mut BTreeSet<Key>) {
    let others = rows
        .networks_of(row.id)
        .filter_map(|network| rows.router_row(network, row.id));
    let addresses = others
        .chain([row])
        .filter_map(|row| row.external.as_ref()?.address);
    keys.extend(addresses.map(|address| Key::External(address.octets())));
    let here = row
        .interfaces
        .iter()
        .filter(|interface| interface.network_id == row.network_id);
    keys.extend(here.filter_map(|interface| match interface.cidr {
        IpNet::V4(block) => {
            let (bits, key) = block_key(network, &block);
            Some(Key::Block(bits, key))
        }
        IpNet::V6(_) => None,
    }));
}

/// What an entry must be; `None`: it must not be there.
pub(super) fn value(key: &Key, rows: &Rows, handles: &Handles) -> Option<Value> {
    match key {
        Key::Router(number) => router(*number, rows, handles).map(Value::Router),
        Key::Floating(key) => {
            let row = rows.floating(handles.id(key.network)?, key.ip.into())?;
            Some(Value::Floating(FloatingValue {
                address: row.floating_ip.octets(),
                router: handles.router(row.router_id)?,
            }))
        }
        Key::Block(bits, key) => {
            let block = Ipv4Net::new(key.ip.into(), bits.checked_sub(SCOPE_BITS)?.try_into().ok()?);
            let blocks = rows.blocks(handles.id(key.network)?);
            let (router, address) = blocks.get(&block.ok()?)?;
            Some(Value::Block(BlockValue {
                router: handles.router(*router)?,
                address: address.octets(),
            }))
        }
        Key::External(address) => external((*address).into(), rows, handles).map(Value::External),
        Key::Underlay(bits, key) => {
            let network = rows.network(handles.id(key.network)?)?;
            let mut blocks = network.underlay.iter().flatten();
            let is_it = |block: &IpNet| match block {
                IpNet::V4(block) => block_key(key.network, block) == (*bits, *key),
                IpNet::V6(_) => false,
            };
            blocks.any(is_it).then_some(Value::Present)
        }
        Key::Vni(vni) => {
            let row = rows.network_of_vni(*vni)?;
            let mut flags = 0;
            if row.admin_state_up {
                flags |= NETWORK_UP;
            }
            if row.underlay.is_some() {
                flags |= NETWORK_UNDERLAY;
            }
            Some(Value::Vni(VniValue {
                network: handles.network(row.id)?,
                flags,
                mtu: u32::from(row.mtu),
            }))
        }
    }
}

fn router(number: u32, rows: &Rows, handles: &Handles) -> Option<RouterValue> {
    let id = *handles.routers.owners.get(&number)?;
    let way_out = rows.way_out(id)?;
    let mut flags = 0;
    if rows.is_owned(id, handles.tunnel_ip) {
        flags |= ROUTER_OWNED;
    }
    if way_out.enable_snat && way_out.address.is_some() {
        flags |= ROUTER_SNAT;
    }
    Some(RouterValue {
        address: way_out.address.map(|ip| ip.octets()).unwrap_or_default(),
        flags,
    })
}

fn external(address: Ipv4Addr, rows: &Rows, handles: &Handles) -> Option<ExternalValue> {
    let floating = |row: FloatingIpRow| {
        Some(ExternalValue {
            kind: EXTERNAL_FLOATING,
            router: handles.router(row.router_id)?,
            vni: rows.network(row.network_id)?.vni.get(),
            fixed_ip: row.fixed_ip.octets(),
        })
    };
    match rows.external(address)? {
        External::Floating(row) => floating(row),
        External::Router(id) => Some(ExternalValue {
            kind: EXTERNAL_ROUTER,
            router: handles.router(id)?,
            vni: 0,
            fixed_ip: [0; 4],
        }),
    }
}

const fn ipv4_key(network: u32, ip: Ipv4Addr) -> Ipv4Key {
    Ipv4Key {
        network,
        ip: ip.octets(),
    }
}

/// Prefix length in bits of the whole key, and the key.
fn block_key(network: u32, block: &Ipv4Net) -> (u32, Ipv4Key) {
    let bits = SCOPE_BITS + u32::from(block.prefix_len());
    (bits, ipv4_key(network, block.network()))
}

/// All entries of all rows.
pub(super) fn all(rows: &Rows, handles: &Handles) -> BTreeMap<Key, Value> {
    let keys: BTreeSet<Key> = rows.all().flat_map(|row| touched(row, rows, handles)).collect();
    keys.into_iter()
        .filter_map(|key| Some((key, value(&key, rows, handles)?)))
        .collect()
}
