//! The rows of a gateway and the lookups that its path makes in them; also what a row must be to be taken, for every
//! gateway data plane.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
};

use alcor_model::{Id, Network, Router};
use ipnet::{IpNet, Ipv4Net};
use uuid::Uuid;

use crate::{
    DataplaneError, ExternalRow, FloatingIpRow, NeighbourRow, NetworkRow, RouterRow, Row, RowChange, RowKey,
    choice,
    row::{way_out, ways_out},
};

/// Rows by key.
#[derive(Clone, Debug, Default)]
pub struct Rows {
    rows: BTreeMap<RowKey, Row>,
    vnis: BTreeMap<u32, Id<Network>>,
    /// The networks that a router has rows in.
    routers: BTreeMap<Id<Router>, BTreeSet<Id<Network>>>,
    /// Rows that name a router: its own, and floating IPs.
    named: BTreeMap<Id<Router>, BTreeSet<RowKey>>,
    /// Who names an external address.
    externals: BTreeMap<Ipv4Addr, BTreeSet<RowKey>>,
    /// The floating IPs of a fixed IP.
    fixed: BTreeMap<(Id<Network>, Ipv4Addr), BTreeSet<RowKey>>,
}

/// What an external address leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum External {
    /// A router's own address.
    Router(Id<Router>),
    /// A floating IP.
    Floating(FloatingIpRow),
}

impl External {
    /// The router that translates.
    pub const fn router(&self) -> Id<Router> {
        match self {
            Self::Router(router) => *router,
            Self::Floating(row) => row.router_id,
        }
    }
}

/// Takes a value out of a set of an index, and the set when it was the last.
fn take<K: Ord, V: Ord>(index: &mut BTreeMap<K, BTreeSet<V>>, key: &K, value: &V) {
    if let Some(values) = index.get_mut(key) {
        values.remove(value);
        if values.is_empty() {
            index.remove(key);
        }
    }
}

impl Rows {
    /// Whether a gateway takes this row now. `dataplane` is the name in a refusal.
    ///
    /// # Errors
    /// What refers to a network that is not there; a VNI that another network has; what is not a gateway's business.
    pub fn check(&self, dataplane: &'static str, row: &Row) -> Result<(), DataplaneError> {
        let unsupported = |what| Err(DataplaneError::Unsupported { dataplane, what });
        match row {
            Row::Network(row) => {
                let vni = row.vni.get();
                return match self.vnis.get(&vni) {
                    Some(owner) if *owner != row.id => Err(DataplaneError::VniInUse {
                        vni: row.vni,
                        owner: *owner,
                    }),
                    _ => Ok(()),
                };
            }
            Row::Router(row) => row.fits()?,
            Row::Neighbour(row) if row.host.is_ipv6() => {
                return unsupported("way to hosts over IPv6");
            }
            Row::Subnet(_) | Row::Neighbour(_) | Row::FloatingIp(_) => {}
            Row::Policy(_) | Row::Label(_) => return unsupported("filter"),
            Row::Port(_) => return unsupported("ports"),
        }
        let network = row.key().network_id();
        if self.network(network).is_none() {
            return Err(DataplaneError::UnknownNetwork(network));
        }
        Ok(())
    }

    /// Brings a change into force; see [`crate::Dataplane::apply`].
    ///
    /// # Errors
    /// As [`Self::check`].
    pub fn apply(&mut self, dataplane: &'static str, change: &RowChange) -> Result<(), DataplaneError> {
        match change {
            RowChange::Put(row) => {
                self.check(dataplane, row)?;
                self.put(row.clone());
            }
            RowChange::Remove(RowKey::Network(id)) => {
                for key in self.contents(*id) {
                    self.remove(&key);
                }
            }
            RowChange::Remove(key) => {
                self.remove(key);
            }
        }
        Ok(())
    }

    /// Takes a row in, whatever it says; returns the one before.
    pub fn put(&mut self, row: Row) -> Option<Row> {
        let key = row.key();
        let old = self.remove(&key);
        match &row {
            Row::Network(row) => {
                self.vnis.insert(row.vni.get(), row.id);
            }
            Row::Router(row) => {
                self.routers.entry(row.id).or_default().insert(row.network_id);
                self.named.entry(row.id).or_default().insert(key);
                if let Some(address) = row.external.as_ref().and_then(|external| external.address) {
                    self.externals.entry(address).or_default().insert(key);
                }
            }
            Row::FloatingIp(row) => {
                self.named.entry(row.router_id).or_default().insert(key);
                if row.host.is_none() {
                    self.externals.entry(row.floating_ip).or_default().insert(key);
                }
                let fixed = self.fixed.entry((row.network_id, row.fixed_ip)).or_default();
                fixed.insert(key);
            }
            _ => {}
        }
        self.rows.insert(key, row);
        old
    }

    /// Takes a row out; of a network that row only.
    pub fn remove(&mut self, key: &RowKey) -> Option<Row> {
        let row = self.rows.remove(key)?;
        match &row {
            Row::Network(row) => {
                self.vnis.remove(&row.vni.get());
            }
            Row::Router(row) => {
                take(&mut self.routers, &row.id, &row.network_id);
                take(&mut self.named, &row.id, key);
                if let Some(address) = row.external.as_ref().and_then(|external| external.address) {
                    take(&mut self.externals, &address, key);
                }
            }
            Row::FloatingIp(row) => {
                take(&mut self.named, &row.router_id, key);
                take(&mut self.externals, &row.floating_ip, key);
                take(&mut self.fixed, &(row.network_id, row.fixed_ip), key);
            }
            _ => {}
        }
        Some(row)
    }

    /// A row.
    pub fn get(&self, key: &RowKey) -> Option<&Row> {
        self.rows.get(key)
    }

    /// All rows, by key.
    pub fn all(&self) -> impl Iterator<Item = &Row> {
        self.rows.values()
    }

    /// The keys of a network and of what lies in it, what lies in it first.
    pub fn contents(&self, network: Id<Network>) -> Vec<RowKey> {
        let of_network = self.rows.keys().filter(|key| key.network_id() == network);
        let mut keys: Vec<RowKey> = of_network.copied().collect();
        keys.reverse();
        keys
    }

    /// A network.
    pub fn network(&self, id: Id<Network>) -> Option<&NetworkRow> {
        match self.rows.get(&RowKey::Network(id))? {
            Row::Network(row) => Some(row),
            _ => None,
        }
    }

    /// The network with this VNI.
    pub fn network_of_vni(&self, vni: u32) -> Option<&NetworkRow> {
        self.network(*self.vnis.get(&vni)?)
    }

    /// The `peer` of the path.
    pub fn peer(&self, network: Id<Network>, ip: IpAddr) -> Option<&NeighbourRow> {
        match self.rows.get(&RowKey::Neighbour(network, ip))? {
            Row::Neighbour(row) => Some(row),
            _ => None,
        }
    }

    /// The way out of a router: that of the first of its rows, by network, that is up and has one.
    pub fn way_out(&self, router: Id<Router>) -> Option<&ExternalRow> {
        let networks = self.routers.get(&router)?.iter();
        networks
            .filter_map(|network| self.router_row(*network, router))
            .filter(|row| row.admin_state_up)
            .find_map(|row| row.external.as_ref())
    }

    /// The row of a router in a network.
    pub fn router_row(&self, network: Id<Network>, router: Id<Router>) -> Option<&RouterRow> {
        match self.rows.get(&RowKey::Router(network, router))? {
            Row::Router(row) => Some(row),
            _ => None,
        }
    }

    /// The `owned` of the path, for the gateway with this tunnel address.
    pub fn is_owned(&self, router: Id<Router>, tunnel_ip: Ipv4Addr) -> bool {
        let way_out = self.way_out(router);
        let chosen = way_out.and_then(|way_out| choice::owner(router, &way_out.gateways));
        chosen == Some(IpAddr::V4(tunnel_ip))
    }

    /// Whether any row names this router.
    pub fn is_named(&self, router: Id<Router>) -> bool {
        self.named.contains_key(&router)
    }

    /// The router rows of a network, by the router's id.
    pub fn routers_of(&self, network: Id<Network>) -> impl Iterator<Item = &RouterRow> {
        let first = RowKey::Router(network, Id::from_uuid(Uuid::nil()));
        let last = RowKey::Router(network, Id::from_uuid(Uuid::max()));
        self.rows.range(first..=last).filter_map(|(_, row)| match row {
            Row::Router(row) => Some(row),
            _ => None,
        })
    }

    /// The floating IPs that lead into a network.
    pub fn floating_of(&self, network: Id<Network>) -> impl Iterator<Item = &FloatingIpRow> {
        let first = RowKey::FloatingIp(network, Id::from_uuid(Uuid::nil()));
        let last = RowKey::FloatingIp(network, Id::from_uuid(Uuid::max()));
        self.rows.range(first..=last).filter_map(|(_, row)| match row {
            Row::FloatingIp(row) => Some(row),
            _ => None,
        })
    }

    /// The networks that a router has rows in.
    pub fn networks_of(&self, router: Id<Router>) -> impl Iterator<Item = Id<Network>> + '_ {
        self.routers.get(&router).into_iter().flatten().copied()
    }

    /// The IPv4 blocks of a network that have a `router`, each with the one it has and its address in that block.
    pub fn blocks(&self, network: Id<Network>) -> BTreeMap<Ipv4Net, (Id<Router>, Ipv4Addr)> {
        let ways = ways_out(self.routers_of(network)).into_iter();
        ways.map(|(block, router)| {
            let mut here = router.interfaces.iter().filter(|at| at.network_id == network);
            let address = here.find_map(|at| match (at.cidr, at.address) {
                (IpNet::V4(cidr), IpAddr::V4(address)) if cidr.trunc() == block => Some(address),
                _ => None,
            });
            (block, (router.id, address.unwrap_or(Ipv4Addr::UNSPECIFIED)))
        })
        .collect()
    }

    /// The address that the `router` of the path has in the block.
    pub fn router_address(&self, network: Id<Network>, ip: Ipv4Addr) -> Option<Ipv4Addr> {
        let blocks = self.blocks(network).into_iter();
        let longest = blocks
            .filter(|(block, _)| block.contains(&ip))
            .max_by_key(|(block, _)| block.prefix_len());
        longest.map(|(_, (_, address))| address)
    }

    /// The `router` of the path.
    pub fn router(&self, network: Id<Network>, ip: Ipv4Addr) -> Option<Id<Router>> {
        way_out(self.routers_of(network), ip).map(|router| router.id)
    }

    fn floating_row(&self, key: &RowKey) -> Option<&FloatingIpRow> {
        match self.rows.get(key)? {
            Row::FloatingIp(row) => Some(row),
            _ => None,
        }
    }

    /// The `floating` of the path; of several rows the first.
    pub fn floating(&self, network: Id<Network>, ip: Ipv4Addr) -> Option<&FloatingIpRow> {
        self.floating_row(self.fixed.get(&(network, ip))?.first()?)
    }

    /// The `external` of the path: floating IPs before routers, the first of several.
    pub fn external(&self, ip: Ipv4Addr) -> Option<External> {
        let keys = self.externals.get(&ip)?;
        if let Some(row) = keys.iter().find_map(|key| self.floating_row(key)) {
            return Some(External::Floating(*row));
        }
        let mut routers = keys.iter().filter_map(|key| match key {
            RowKey::Router(_, router) => Some(*router),
            _ => None,
        });
        let has_it = |router: &Id<Router>| {
            let way_out = self.way_out(*router);
            way_out.is_some_and(|way_out| way_out.address == Some(ip))
        };
        routers.find(has_it).map(External::Router)
    }

    /// All addresses that rows name outside.
    pub fn external_addresses(&self) -> impl Iterator<Item = Ipv4Addr> + '_ {
        self.externals.keys().copied()
    }
}
