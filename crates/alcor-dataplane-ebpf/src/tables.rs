//! Networks, subnets and ports of the host, and what they amount to as kernel entries. Pure: no kernel here.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
};

use alcor_dataplane::{
    DataplaneError, NetworkRow, PortRow, RouterRow, Row, RowKey, SubnetRow, choice,
    row::{Way, ways_out},
    rules::{Groups, InForce, Rules, Sets, groups},
};
use alcor_dataplane_abi::layout::{
    FILTER_STATEFUL, FilterValue, IPV4, IPV6, LocalIp, LocalMac, MAX_FLOATING_IPS, MAX_NETWORKS, MAX_PORTS,
    MAX_SUBNETS, NETWORK_ON_DEMAND, NETWORK_UNDERLAY, NETWORK_UP, NetworkValue, PORT_DHCP4, PORT_PAIRS,
    PORT_PEER, PORT_RA, PORT_SECURITY, PORT_UP, PairKey, PortValue, RouteValue, WayOut,
};
use alcor_model::{Id, MacAddr, Network, Port, Router, Subnet, net::GATEWAY_MAC};
use ipnet::IpNet;

use crate::{
    device::Device,
    entry::{Entries, IP_SCOPE_BITS, Key, PAIR_SCOPE_BITS, Value},
    layout::{address, ip_key, mac_key},
    lists::{self, List, Lists},
};

mod floating;
mod translations;

/// Devices of ports.
pub(crate) type Devices = BTreeMap<Id<Port>, Device>;

struct NetworkTable {
    row: NetworkRow,
    handle: u32,
    subnets: BTreeMap<Id<Subnet>, SubnetRow>,
    routers: BTreeMap<Id<Router>, RouterRow>,
    ports: BTreeMap<Id<Port>, (u32, PortRow)>,
    macs: HashMap<MacAddr, Id<Port>>,
    /// Ports that have a fixed IP; the first one answers for it.
    ips: BTreeMap<IpAddr, BTreeSet<Id<Port>>>,
    rules: Rules,
}

#[derive(Default)]
pub(crate) struct Tables {
    networks: BTreeMap<Id<Network>, NetworkTable>,
    vnis: HashMap<u32, Id<Network>>,
    homes: HashMap<Id<Port>, Id<Network>>,
    port_handles: BTreeMap<u32, Id<Port>>,
    network_handles: BTreeMap<u32, Id<Network>>,
    subnet_homes: HashMap<Id<Subnet>, Id<Network>>,
    floating: floating::Floating,
    /// Lists of gateways that networks have.
    lists: Lists,
    /// Networks with a router, up or down, that leads to a network.
    leading: BTreeMap<Id<Network>, BTreeSet<Id<Network>>>,
    /// The last epoch that was given out.
    epochs: u32,
}

/// Whose entries a change may touch.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scope {
    network: Option<Id<Network>>,
    /// Networks whose gateways and routes are part of it.
    routes: BTreeSet<Id<Network>>,
    /// Networks whose labels' translations are part of it: into one other network and back, or (`None`) all that it leads to.
    translations: BTreeSet<(Id<Network>, Option<Id<Network>>)>,
    /// Of these, those of some sets of groups only.
    sets: Option<BTreeSet<Groups>>,
    /// Lists of gateways that may come or go.
    lists: BTreeSet<List>,
    ports: BTreeSet<Id<Port>>,
    floating: floating::Touched,
}

impl Scope {
    /// The network.
    pub(crate) const fn network(&self) -> Option<Id<Network>> {
        self.network
    }
}

impl Tables {
    /// All networks.
    pub(crate) fn networks(&self) -> Vec<Id<Network>> {
        self.networks.keys().copied().collect()
    }

    /// Says no to a row that cannot be. A row that is accepted can be put, unless its rules do not fit.
    pub(crate) fn check(&self, row: &Row) -> Result<(), DataplaneError> {
        match row {
            Row::Router(row) => self.network(row.network_id).map(drop).and_then(|()| row.fits()),
            Row::FloatingIp(row) => {
                self.network(row.network_id)?;
                match self.floating.get((row.network_id, row.id)) {
                    Some(_) => Ok(()),
                    None => room("floating IP", self.floating.count(), MAX_FLOATING_IPS),
                }
            }
            Row::Policy(row) => self.network(row.network_id).map(drop),
            Row::Label(row) => self.network(row.network_id).map(drop),
            Row::Network(row) => row.fits().and_then(|()| match self.vnis.get(&row.vni.get()) {
                Some(&owner) if owner != row.id => Err(DataplaneError::VniInUse { vni: row.vni, owner }),
                _ if self.networks.contains_key(&row.id) => Ok(()),
                _ => room("network", self.networks.len(), MAX_NETWORKS),
            }),
            Row::Subnet(row) => {
                self.network(row.network_id)?;
                match self.subnet_homes.contains_key(&row.id) {
                    true => Ok(()),
                    false => room("subnet", self.subnet_homes.len(), MAX_SUBNETS),
                }
            }
            Row::Port(row) => {
                let network = self.network(row.network_id)?;
                match network.macs.get(&row.mac) {
                    Some(&owner) if owner != row.id => Err(DataplaneError::MacInUse { mac: row.mac, owner }),
                    _ if self.homes.contains_key(&row.id) => Ok(()),
                    _ => room("port", self.homes.len(), MAX_PORTS),
                }
            }
            Row::Neighbour(row) => self.network(row.network_id).map(drop),
        }
    }

    fn network(&self, id: Id<Network>) -> Result<&NetworkTable, DataplaneError> {
        self.networks.get(&id).ok_or(DataplaneError::UnknownNetwork(id))
    }

    /// Handle of a network.
    pub(crate) fn network_handle(&self, id: Id<Network>) -> Option<u32> {
        self.networks.get(&id).map(|network| network.handle)
    }

    /// Network of a handle.
    pub(crate) fn network_of_handle(&self, handle: u32) -> Option<Id<Network>> {
        self.network_handles.get(&handle).copied()
    }

    /// Ports by handle.
    pub(crate) const fn port_handles(&self) -> &BTreeMap<u32, Id<Port>> {
        &self.port_handles
    }

    /// The network that the port's row lies in.
    pub(crate) fn home(&self, port: Id<Port>) -> Option<Id<Network>> {
        self.homes.get(&port).copied()
    }

    /// The network that the subnet's row lies in.
    pub(crate) fn subnet_home(&self, subnet: Id<Subnet>) -> Option<Id<Network>> {
        self.subnet_homes.get(&subnet).copied()
    }

    /// The row in force.
    pub(crate) fn row(&self, key: &RowKey) -> Option<Row> {
        let network = self.networks.get(&key.network_id())?;
        match key {
            RowKey::Network(_) => Some(Row::Network(network.row.clone())),
            RowKey::Subnet(_, id) => network.subnets.get(id).cloned().map(Row::Subnet),
            RowKey::Router(_, id) => network.routers.get(id).cloned().map(Row::Router),
            RowKey::Port(_, id) => network.ports.get(id).map(|(_, row)| Row::Port(row.clone())),
            RowKey::Policy(_, id) => network.rules.policies().get(id).cloned().map(Row::Policy),
            RowKey::Label(_, label) => network.rules.labels().get(label).cloned().map(Row::Label),
            RowKey::FloatingIp(network, id) => {
                self.floating.get((*network, *id)).copied().map(Row::FloatingIp)
            }
            RowKey::Neighbour(..) => None,
        }
    }

    /// The sets of rules in force in a network.
    pub(crate) fn sets(&self, network: Id<Network>) -> Sets {
        let network = self.networks.get(&network);
        network
            .map(|network| network.rules.sets().clone())
            .unwrap_or_default()
    }

    /// The last epoch that was given out.
    pub(crate) const fn last_epoch(&self) -> u32 {
        self.epochs
    }

    /// The next epoch is later than this one.
    pub(crate) fn set_last_epoch(&mut self, epoch: u32) {
        self.epochs = self.epochs.max(epoch);
    }

    /// Gives each set the epoch under which it is in force already, if it is; `known` says that of a port's handle and
    /// label.
    pub(crate) fn adopt_epochs(&mut self, known: impl Fn(u32, u16, &InForce) -> Option<u32>) {
        for network in self.networks.values_mut() {
            let ports = network.ports.values();
            let labels: Vec<(u32, u16)> = ports
                .filter_map(|(handle, row)| Some((*handle, row.filter()?)))
                .collect();
            for (handle, label) in labels {
                let set = network.rules.of(label);
                if let Some(epoch) = set.and_then(|set| known(handle, label, set)) {
                    network.rules.adopt(label, epoch);
                }
            }
        }
    }

    /// The lists of gateways.
    pub(crate) const fn lists_mut(&mut self) -> &mut Lists {
        &mut self.lists
    }

    /// All rows but neighbours.
    pub(crate) fn rows(&self) -> Vec<Row> {
        let mut rows = Vec::new();
        for network in self.networks.values() {
            rows.push(Row::Network(network.row.clone()));
            rows.extend(network.subnets.values().cloned().map(Row::Subnet));
            rows.extend(network.routers.values().cloned().map(Row::Router));
            let floating = self.floating.of_network(network.row.id);
            rows.extend(floating.copied().map(Row::FloatingIp));
            rows.extend(network.rules.policies().values().cloned().map(Row::Policy));
            rows.extend(network.rules.labels().values().cloned().map(Row::Label));
            rows.extend(network.ports.values().map(|(_, row)| Row::Port(row.clone())));
        }
        rows
    }

    /// What lies in a network, in an order in which it can be removed; the network last.
    pub(crate) fn contents(&self, id: Id<Network>) -> Vec<RowKey> {
        let Some(network) = self.networks.get(&id) else {
            return Vec::new();
        };
        let ports = network.ports.keys().map(|port| RowKey::Port(id, *port));
        let subnets = network.subnets.keys().map(|subnet| RowKey::Subnet(id, *subnet));
        let labels = network.rules.labels().keys();
        let labels = labels.map(|label| RowKey::Label(id, *label));
        let policies = network.rules.policies().keys();
        let policies = policies.map(|group| RowKey::Policy(id, *group));
        let routers = network.routers.keys().map(|router| RowKey::Router(id, *router));
        let floating = self.floating.of_network(id);
        let floating = floating.map(|row| RowKey::FloatingIp(id, row.id));
        let within = ports
            .chain(floating)
            .chain(routers)
            .chain(subnets)
            .chain(labels)
            .chain(policies);
        within.chain([RowKey::Network(id)]).collect()
    }

    /// The handle that the row has or would get.
    pub(crate) fn handle_for(&self, key: &RowKey) -> u32 {
        match key {
            RowKey::Network(id) => self
                .network_handle(*id)
                .unwrap_or_else(|| first_free(&self.network_handles)),
            RowKey::Port(_, id) => {
                let known = self.port_handles.iter().find(|(_, port)| *port == id);
                known.map_or_else(|| first_free(&self.port_handles), |(handle, _)| *handle)
            }
            RowKey::Subnet(..)
            | RowKey::Router(..)
            | RowKey::FloatingIp(..)
            | RowKey::Neighbour(..)
            | RowKey::Policy(..)
            | RowKey::Label(..) => 0,
        }
    }

    /// What the change to (or from) `row` may touch; to be asked before it.
    pub(crate) fn scope(&self, key: &RowKey, row: Option<&Row>) -> Scope {
        let network_id = key.network_id();
        let mut scope = Scope {
            network: Some(network_id),
            ..Scope::default()
        };
        let known = self.networks.get(&network_id);
        if let RowKey::Network(id) = key
            && (known.is_none() || row.is_none())
        {
            // What leads there leads somewhere now, or nowhere.
            scope.routes = self.leading_to(*id).collect();
        }
        if let Some(Row::Network(row)) = row {
            scope.lists.insert(row.gateways.clone());
        }
        let Some(network) = known else {
            return scope;
        };
        if matches!(key, RowKey::Network(_)) {
            scope.lists.insert(network.row.gateways.clone());
        }
        if matches!(key, RowKey::Subnet(..) | RowKey::Router(..)) {
            scope.routes.insert(network_id);
        }
        match key {
            RowKey::Router(_, id) => {
                scope.translations.insert((network_id, None));
                scope.floating = self.floating.touched_by_router(network_id, Some(*id));
            }
            RowKey::FloatingIp(_, id) => {
                let new = row.and_then(|row| {
                    if let Row::FloatingIp(row) = row {
                        Some(row)
                    } else {
                        None
                    }
                });
                scope.floating = self.floating.touched((network_id, *id), new);
            }
            RowKey::Subnet(_, id) => {
                let lies_in = |row: &PortRow| row.fixed_ips.iter().any(|fixed| fixed.subnet_id == *id);
                let ports = network.ports.iter().filter(|(_, (_, row))| lies_in(row));
                scope.ports.extend(ports.map(|(port, _)| *port));
            }
            RowKey::Port(_, id) => {
                scope.ports.insert(*id);
                let old = network.ports.get(id).map(|(_, row)| row);
                let new = row.and_then(|row| if let Row::Port(row) = row { Some(row) } else { None });
                for fixed in old.into_iter().chain(new).flat_map(|row| &row.fixed_ips) {
                    scope
                        .ports
                        .extend(network.ips.get(&fixed.ip_address).into_iter().flatten());
                }
            }
            RowKey::Policy(..) | RowKey::Label(..) => {
                if let RowKey::Label(id, label) = key {
                    let old = network.rules.labels().get(label).map(groups);
                    let new = match row {
                        Some(Row::Label(row)) => Some(groups(row)),
                        _ => None,
                    };
                    let others = self.leading_to(*id).filter(|other| other != id);
                    scope.translations = others.map(|other| (other, Some(*id))).collect();
                    scope.translations.insert((*id, None));
                    scope.sets = Some(old.into_iter().chain(new).collect());
                }
                let filtered = network
                    .ports
                    .iter()
                    .filter(|(_, (_, row))| row.filter().is_some());
                scope.ports.extend(filtered.map(|(port, _)| *port));
            }
            RowKey::Network(_) | RowKey::Neighbour(..) => {}
        }
        scope
    }

    /// The scope of a port's device.
    pub(crate) fn port_scope(&self, port: Id<Port>) -> Scope {
        Scope {
            network: self.home(port),
            ports: BTreeSet::from([port]),
            ..Scope::default()
        }
    }

    /// Everything.
    pub(crate) fn all_scopes(&self) -> Vec<Scope> {
        let scope = |(id, network): (&Id<Network>, &NetworkTable)| Scope {
            network: Some(*id),
            routes: BTreeSet::from([*id]),
            translations: BTreeSet::from([(*id, None)]),
            sets: None,
            lists: BTreeSet::from([network.row.gateways.clone()]),
            ports: network.ports.keys().copied().collect(),
            floating: self.floating.touched_by_router(*id, None),
        };
        self.networks.iter().map(scope).collect()
    }

    /// Puts an accepted row; `handle` as [`Self::handle_for`] told.
    ///
    /// # Errors
    /// [`DataplaneError::Full`] when rules do not fit; nothing changes then.
    pub(crate) fn put(&mut self, row: Row, handle: u32) -> Result<(), DataplaneError> {
        match row {
            Row::Network(row) => self.put_network(row, handle),
            Row::Policy(row) => {
                if let Some(network) = self.networks.get_mut(&row.network_id) {
                    let used = network.used_labels();
                    return network.rules.put_policy(row, &used, &mut self.epochs);
                }
            }
            Row::Label(row) => {
                if let Some(network) = self.networks.get_mut(&row.network_id) {
                    let used = network.used_labels();
                    return network.rules.put_label(row, &used, &mut self.epochs);
                }
            }
            Row::Subnet(row) => {
                if let Some(network) = self.networks.get_mut(&row.network_id) {
                    self.subnet_homes.insert(row.id, row.network_id);
                    network.subnets.insert(row.id, row);
                }
            }
            Row::Router(row) => {
                self.set_router(row.network_id, row.id, Some(row));
            }
            Row::Port(row) => return self.put_port(row, handle),
            Row::FloatingIp(row) => self.floating.put(row),
            Row::Neighbour(_) => {}
        }
        Ok(())
    }

    fn put_network(&mut self, row: NetworkRow, handle: u32) {
        self.network_handles.insert(handle, row.id);
        self.lists.take(&row.gateways);
        if let Some(network) = self.networks.get_mut(&row.id) {
            self.vnis.remove(&network.row.vni.get());
            self.vnis.insert(row.vni.get(), row.id);
            let old = std::mem::replace(&mut network.row, row);
            self.lists.release(&old.gateways);
            return;
        }
        self.vnis.insert(row.vni.get(), row.id);
        let table = NetworkTable {
            handle,
            subnets: BTreeMap::new(),
            routers: BTreeMap::new(),
            ports: BTreeMap::new(),
            macs: HashMap::new(),
            ips: BTreeMap::new(),
            rules: Rules::default(),
            row,
        };
        self.networks.insert(table.row.id, table);
    }

    fn put_port(&mut self, row: PortRow, handle: u32) -> Result<(), DataplaneError> {
        let Some(network) = self.networks.get_mut(&row.network_id) else {
            return Ok(());
        };
        if let Some(label) = row.filter() {
            network.rules.ensure(label, &mut self.epochs)?;
        }
        self.take_port(row.network_id, row.id);
        let Some(network) = self.networks.get_mut(&row.network_id) else {
            return Ok(());
        };
        network.macs.insert(row.mac, row.id);
        for fixed in &row.fixed_ips {
            network.ips.entry(fixed.ip_address).or_default().insert(row.id);
        }
        self.homes.insert(row.id, row.network_id);
        self.port_handles.insert(handle, row.id);
        network.ports.insert(row.id, (handle, row));
        network.rules.retain(&network.used_labels());
        Ok(())
    }

    fn take_port(&mut self, network: Id<Network>, id: Id<Port>) {
        let Some(network) = self.networks.get_mut(&network) else {
            return;
        };
        let Some((handle, row)) = network.ports.remove(&id) else {
            return;
        };
        network.macs.remove(&row.mac);
        for fixed in &row.fixed_ips {
            if let Some(owners) = network.ips.get_mut(&fixed.ip_address) {
                owners.remove(&id);
                if owners.is_empty() {
                    network.ips.remove(&fixed.ip_address);
                }
            }
        }
        self.homes.remove(&id);
        self.port_handles.remove(&handle);
    }

    /// After rules went: fewer of them always fit.
    fn recompile(&mut self, network: Id<Network>) {
        if let Some(network) = self.networks.get_mut(&network)
            && let Err(error) = network.rules.compile(&network.used_labels(), &mut self.epochs)
        {
            tracing::error!(%error, "fewer rules do not fit");
        }
    }

    /// Removes a row; a network must be empty.
    pub(crate) fn remove(&mut self, key: &RowKey) {
        let Some(network) = self.networks.get_mut(&key.network_id()) else {
            return;
        };
        match key {
            RowKey::Network(id) => {
                self.vnis.remove(&network.row.vni.get());
                self.network_handles.remove(&network.handle);
                self.lists.release(&network.row.gateways);
                self.networks.remove(id);
            }
            RowKey::Subnet(_, id) => {
                if network.subnets.remove(id).is_some() {
                    self.subnet_homes.remove(id);
                }
            }
            RowKey::Router(network, id) => self.set_router(*network, *id, None),
            RowKey::Port(id, port) => {
                self.take_port(*id, *port);
                if let Some(network) = self.networks.get_mut(id) {
                    network.rules.retain(&network.used_labels());
                }
            }
            RowKey::Policy(id, group) => {
                if network.rules.remove_policy(*group) {
                    self.recompile(*id);
                }
            }
            RowKey::Label(id, label) => {
                if network.rules.remove_label(*label) {
                    self.recompile(*id);
                }
            }
            RowKey::FloatingIp(network, id) => self.floating.remove((*network, *id)),
            RowKey::Neighbour(..) => {}
        }
    }

    /// The kernel entries in a scope, with these devices.
    pub(crate) fn entries(&self, scope: &Scope, devices: &Devices) -> Entries {
        let mut entries = Entries::new();
        let networks = |ids: &BTreeSet<Id<Network>>| {
            ids.iter()
                .filter_map(|id| self.networks.get(id))
                .collect::<Vec<_>>()
        };
        for network in networks(&scope.routes) {
            self.route_entries(network, &mut entries);
        }
        for (network, peer) in &scope.translations {
            if let Some(network) = self.networks.get(network) {
                let peers = peer.map_or_else(|| network.led_to(), |peer| BTreeSet::from([peer]));
                self.translations(network, &peers, scope.sets.as_ref(), &mut entries);
            }
        }
        self.floating_entries(&scope.floating, &mut entries);
        for list in &scope.lists {
            let number = self.lists.number(list);
            if number != 0 {
                let set = Value::Gateways(Box::new(lists::encode(list)));
                entries.insert(Key::Gateways(number), set);
            }
        }
        let Some(network) = scope.network.and_then(|id| self.networks.get(&id)) else {
            return entries;
        };
        network.own_entries(self.lists.number(&network.row.gateways), &mut entries);
        for id in &scope.ports {
            if let Some((handle, row)) = network.ports.get(id) {
                network.port_entries(*handle, row, devices.get(id), &mut entries);
            }
        }
        entries
    }
}

impl Tables {
    /// Subnets, gateways, and where packets to them go. A trie finds the longest match, so what lies in an own subnet is left out.
    fn route_entries(&self, network: &NetworkTable, entries: &mut Entries) {
        let mut route = |block: IpNet, value| {
            let bits = IP_SCOPE_BITS + u32::from(block.prefix_len());
            let key = Key::Routed(bits, ip_key(network.handle, block.network()));
            entries.insert(key, Value::Route(value));
        };
        let own: Vec<_> = network
            .subnets
            .values()
            .filter(|row| row.gateway_ip.is_some())
            .collect();
        for row in &own {
            let here = RouteValue {
                network: network.handle,
                family: 0,
                hop: [0; 16],
            };
            route(row.cidr, here);
        }
        for (block, way) in network.ways() {
            if own.iter().any(|row| row.cidr.contains(&block)) {
                continue;
            }
            let (family, hop) = way.nexthop.map_or((0, [0; 16]), address);
            let there = RouteValue {
                network: self.network_handle(way.network_id).unwrap_or_default(),
                family,
                hop,
            };
            route(block, there);
        }
        for (block, router) in ways_out(network.routers.values()) {
            let external = router.external.as_ref();
            let owner = external.and_then(|external| choice::owner(router.id, &external.gateways));
            let (family, owner) = owner.map_or((0, [0; 16]), address);
            let bits = IP_SCOPE_BITS + u32::from(block.prefix_len());
            let key = Key::WayOut(bits, ip_key(network.handle, block.network().into()));
            entries.insert(key, Value::WayOut(WayOut { owner, family }));
        }
        let live = network.routers.values().filter(|row| row.admin_state_up);
        let of_routers = live.flat_map(|row| row.interfaces.iter().map(|to| to.address));
        let of_subnets = own.iter().filter_map(|row| row.gateway_ip);
        let link_local = own.iter().any(|row| row.cidr.addr().is_ipv6());
        let link_local = link_local.then(|| IpAddr::from(GATEWAY_MAC.link_local()));
        for row in network.subnets.values() {
            let bits = IP_SCOPE_BITS + u32::from(row.cidr.prefix_len());
            let key = Key::Subnet(bits, ip_key(network.handle, row.cidr.network()));
            entries.insert(key, Value::Present);
        }
        for gateway in of_subnets.chain(of_routers).chain(link_local) {
            entries.insert(Key::Gateway(ip_key(network.handle, gateway)), Value::Present);
        }
    }
}

impl NetworkTable {
    /// Where the routers that are up lead: the best way to each block.
    fn ways(&self) -> BTreeMap<IpNet, Way> {
        let mut ways = BTreeMap::new();
        for (block, way) in self
            .routers
            .values()
            .filter(|row| row.admin_state_up)
            .flat_map(RouterRow::ways)
        {
            let best = ways.entry(block.trunc()).or_insert(way);
            *best = way.min(*best);
        }
        ways
    }

    /// The labels that ports have.
    fn used_labels(&self) -> BTreeSet<u16> {
        self.ports.values().filter_map(|(_, row)| row.filter()).collect()
    }

    fn own_entries(&self, gateways: u32, entries: &mut Entries) {
        let flag = |set, flag| if set { flag } else { 0 };
        let value = NetworkValue {
            vni: self.row.vni.get(),
            mtu: u32::from(self.row.mtu),
            flags: flag(self.row.admin_state_up, NETWORK_UP)
                | flag(self.row.underlay.is_some(), NETWORK_UNDERLAY)
                | flag(self.row.on_demand, NETWORK_ON_DEMAND),
            gateways,
        };
        for block in self.row.underlay.iter().flatten() {
            let bits = IP_SCOPE_BITS + u32::from(block.prefix_len());
            let key = Key::Underlay(bits, ip_key(self.handle, block.network()));
            entries.insert(key, Value::Present);
        }
        entries.insert(Key::Network(self.handle), Value::Network(value));
        entries.insert(Key::Vni(value.vni), Value::Vni(self.handle));
    }

    fn port_entries(&self, handle: u32, row: &PortRow, device: Option<&Device>, entries: &mut Entries) {
        for fixed in &row.fixed_ips {
            entries.insert(Key::FixedIp(ip_key(handle, fixed.ip_address)), Value::Present);
            let first = self.ips.get(&fixed.ip_address).and_then(BTreeSet::first);
            if first == Some(&row.id) {
                let value = LocalIp {
                    mac: row.mac.0,
                    pad: [0; 2],
                };
                let key = Key::LocalIp(ip_key(self.handle, fixed.ip_address));
                entries.insert(key, Value::LocalIp(value));
            }
        }
        for pair in &row.allowed_address_pairs {
            let mac = pair.mac_address.0;
            let (family, ip) = address(pair.ip_address.network());
            let key = PairKey {
                port: handle,
                mac,
                family: family as u16,
                ip,
            };
            let bits = PAIR_SCOPE_BITS + u32::from(pair.ip_address.prefix_len());
            entries.insert(Key::Pair(bits, key), Value::Present);
            entries.insert(Key::PairMac(mac_key(handle, mac)), Value::Present);
        }
        if let Some(filter) = row.filter().and_then(|label| self.filter(label)) {
            entries.insert(Key::Filter(handle), Value::Filter(filter));
        }
        let flags = self.port_flags(row, device);
        let value = LocalMac {
            ifindex: device.map_or(0, |device| device.ifindex),
            port: handle,
            flags: u32::from(flags & (PORT_UP | PORT_PEER)),
        };
        entries.insert(
            Key::LocalMac(mac_key(self.handle, row.mac.0)),
            Value::LocalMac(value),
        );
        if let Some(device) = device {
            let value = PortValue {
                id: row.id.uuid().into_bytes(),
                network: self.handle,
                port: handle,
                mac: row.mac.0,
                flags,
                ipv4: first_ip(row, IPV4).map_or([0; 4], |[a, b, c, d, ..]| [a, b, c, d]),
                ipv6: first_ip(row, IPV6).unwrap_or_default(),
            };
            entries.insert(Key::Port(device.ifindex), Value::Port(value));
        }
    }

    fn filter(&self, label: u16) -> Option<FilterValue> {
        let in_force = self.rules.of(label)?;
        Some(FilterValue {
            epoch: in_force.epoch,
            label,
            flags: if in_force.set.stateful { FILTER_STATEFUL } else { 0 },
        })
    }

    fn port_flags(&self, row: &PortRow, device: Option<&Device>) -> u16 {
        let flag = |set, flag| if set { flag } else { 0 };
        flag(row.admin_state_up, PORT_UP)
            | flag(row.port_security_enabled, PORT_SECURITY)
            | flag(self.serves(row, true), PORT_DHCP4)
            | flag(self.serves(row, false), PORT_RA)
            | flag(!row.allowed_address_pairs.is_empty(), PORT_PAIRS)
            | flag(device.is_some_and(|device| device.peer_elsewhere), PORT_PEER)
    }

    /// True when the port has an address of the family in a subnet that the agent serves.
    fn serves(&self, row: &PortRow, ipv4: bool) -> bool {
        let served = |id: &Id<Subnet>| self.subnets.get(id).is_some_and(|subnet| subnet.enable_dhcp);
        let mut fixed_ips = row.fixed_ips.iter();
        fixed_ips.any(|fixed| fixed.ip_address.is_ipv4() == ipv4 && served(&fixed.subnet_id))
    }
}

/// The port's first address of a family.
fn first_ip(row: &PortRow, family: u32) -> Option<[u8; 16]> {
    let mut addresses = row.fixed_ips.iter().map(|fixed| address(fixed.ip_address));
    addresses.find(|(of, _)| *of == family).map(|(_, ip)| ip)
}

/// The smallest handle that is free; 0 means none.
fn first_free<T>(taken: &BTreeMap<u32, T>) -> u32 {
    let gap = (1..)
        .zip(taken.keys())
        .find(|(expected, handle)| expected != *handle);
    gap.map_or_else(|| taken.len() as u32 + 1, |(expected, _)| expected)
}

fn room(what: &'static str, count: usize, limit: u32) -> Result<(), DataplaneError> {
    if count < limit as usize {
        Ok(())
    } else {
        Err(DataplaneError::Full {
            what,
            limit: limit as usize,
        })
    }
}
