//! Routers: which networks they connect, which hosts are interested in a network because of them, and their rows.
//!
//! A host is interested in a network when it has a port there, or when it is its *guest*: it has a port in a *peer*, a network that
//! shares a router with it, up or down. So a change costs the networks of one router and the hosts with ports in them,
//! whatever else there is.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use alcor_dataplane::{InterfaceRow, RouteRow, RouterRow, Row, RowKey, row::way};
use alcor_model::{
    Id, Network, Port, Revision, Router, SecurityGroup,
    resource::{PortStatus, RouterInterface},
};

use super::{
    Ncm,
    view::{GroupIn, KeyedRow},
};

/// One router.
#[derive(Debug)]
struct Known {
    row: Arc<Router>,
    networks: BTreeSet<Id<Network>>,
    /// The newest change of its rows.
    revision: Revision,
    /// The gateways that lead to the outside; they change between revisions.
    ways: Vec<IpAddr>,
    /// What was said of its ports.
    said: BTreeMap<Id<Port>, PortStatus>,
}

/// All routers.
#[derive(Debug, Default)]
pub(super) struct RoutingView {
    routers: BTreeMap<Id<Router>, Known>,
    by_network: BTreeMap<Id<Network>, BTreeSet<Id<Router>>>,
    by_port: BTreeMap<Id<Port>, Id<Router>>,
    /// How many routers two networks share, from both sides.
    peers: BTreeMap<Id<Network>, BTreeMap<Id<Network>, u32>>,
    /// Routers that have changed since all was said of their ports, and the one that was looked at last.
    pub(super) due: BTreeSet<Id<Router>>,
    pub(super) looked_at: Option<Id<Router>>,
}

/// Why a host is interested in a network.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Interest {
    /// It has ports there.
    pub own: bool,
    /// In how many peers it has ports.
    pub guest: u32,
}

impl Interest {
    const fn is_any(self) -> bool {
        self.own || self.guest > 0
    }
}

/// Both networks of each pair, in both orders.
fn pairs(networks: &BTreeSet<Id<Network>>) -> BTreeSet<(Id<Network>, Id<Network>)> {
    let with = |one: &Id<Network>| {
        let one = *one;
        let others = networks.iter().filter(move |other| **other != one);
        others.map(move |other| (one, *other))
    };
    networks.iter().flat_map(with).collect()
}

impl RoutingView {
    /// The networks that share a router with this one.
    pub(super) fn peers(&self, network: Id<Network>) -> Vec<Id<Network>> {
        let peers = self.peers.get(&network).into_iter();
        peers.flat_map(|peers| peers.keys().copied()).collect()
    }

    /// The routers with a place in a network.
    fn routers(&self, network: Id<Network>) -> impl Iterator<Item = Id<Router>> + '_ {
        self.by_network.get(&network).into_iter().flatten().copied()
    }

    /// Those of them with a way to the outside.
    pub(super) fn with_ways_out(&self, network: Id<Network>) -> impl Iterator<Item = Id<Router>> + '_ {
        self.routers(network).filter(|id| self.leads_out(*id))
    }

    /// Whether a router has a way to the outside.
    pub(super) fn leads_out(&self, id: Id<Router>) -> bool {
        let known = self.routers.get(&id);
        known.is_some_and(|known| known.row.gateway.is_some())
    }

    /// The gateways that lead a router to the outside.
    pub(super) fn ways(&self, id: Id<Router>) -> &[IpAddr] {
        self.routers.get(&id).map_or(&[], |known| &known.ways)
    }

    /// The networks that a router has places in.
    pub(super) fn networks(&self, id: Id<Router>) -> BTreeSet<Id<Network>> {
        let known = self.routers.get(&id);
        known.map(|known| known.networks.clone()).unwrap_or_default()
    }

    /// Writes down which gateways lead to the outside; gives whether they are others.
    pub(super) fn set_ways(&mut self, id: Id<Router>, ways: Vec<IpAddr>) -> bool {
        let Some(known) = self.routers.get_mut(&id).filter(|known| known.ways != ways) else {
            return false;
        };
        known.ways = ways;
        self.due.insert(id);
        true
    }

    /// A router, the newest change of its rows, and whether gateways lead it to the outside.
    pub(super) fn known(&self, id: Id<Router>) -> Option<(&Router, Revision, bool)> {
        let known = self.routers.get(&id)?;
        Some((&known.row, known.revision, !known.ways.is_empty()))
    }

    /// Whether something else was said of a router's port, or nothing.
    pub(super) fn is_news(&self, id: Id<Router>, port: Id<Port>, status: PortStatus) -> bool {
        let known = self.routers.get(&id);
        known.is_some_and(|known| known.said.get(&port) != Some(&status))
    }

    /// What was said last of a port, if it is a router's.
    pub(super) fn said_of(&self, port: Id<Port>) -> Option<PortStatus> {
        let known = self.routers.get(self.by_port.get(&port)?)?;
        known.said.get(&port).copied()
    }

    /// Writes down what is said of a router's port.
    pub(super) fn said(&mut self, id: Id<Router>, port: Id<Port>, status: PortStatus) {
        if let Some(known) = self.routers.get_mut(&id) {
            known.said.insert(port, status);
        }
    }

    /// All is said of a router's ports until it changes.
    pub(super) fn settle(&mut self, id: Id<Router>) {
        self.due.remove(&id);
    }

    /// Replaces or removes a router; gives the networks that it was in.
    fn set(&mut self, id: Id<Router>, known: Option<Known>) -> BTreeSet<Id<Network>> {
        let old = self.routers.remove(&id);
        for port in old.iter().flat_map(|old| old.row.port_ids()) {
            self.by_port.remove(&port);
        }
        let before = old.map(|old| old.networks).unwrap_or_default();
        for network in &before {
            if let Some(routers) = self.by_network.get_mut(network) {
                routers.remove(&id);
                if routers.is_empty() {
                    self.by_network.remove(network);
                }
            }
        }
        if let Some(known) = known {
            for network in &known.networks {
                self.by_network.entry(*network).or_default().insert(id);
            }
            self.by_port.extend(known.row.port_ids().map(|port| (port, id)));
            self.routers.insert(id, known);
        }
        before
    }

    /// One router more, or less, connects two networks; whether they were not connected before, or are not any more.
    fn count(&mut self, (one, other): (Id<Network>, Id<Network>), more: bool) -> bool {
        let peers = self.peers.entry(one).or_default();
        let count = peers.entry(other).or_default();
        *count = if more { *count + 1 } else { count.saturating_sub(1) };
        let turned = *count == u32::from(more);
        peers.retain(|_, count| *count > 0);
        if peers.is_empty() {
            self.peers.remove(&one);
        }
        turned
    }
}

impl Ncm {
    pub(super) fn put_router(&mut self, row: Arc<Router>) {
        let (id, revision) = (row.id, row.revision);
        let networks: BTreeSet<_> = row.interfaces.iter().map(|place| place.network_id).collect();
        let same = |known: &Known| {
            let (old, new) = (&known.row, &row);
            old.admin_state_up == new.admin_state_up
                && old.interfaces == new.interfaces
                && old.gateway == new.gateway
                && old.routes == new.routes
        };
        if self.routing.routers.get(&id).is_some_and(same) {
            return;
        }
        let old = self.routing.routers.get(&id);
        let mut said = old.map(|known| known.said.clone()).unwrap_or_default();
        let ports: BTreeSet<_> = row.port_ids().collect();
        said.retain(|port, _| ports.contains(port));
        let known = Known {
            row,
            networks: networks.clone(),
            revision,
            ways: old.map(|known| known.ways.clone()).unwrap_or_default(),
            said,
        };
        let before = self.routing.set(id, Some(known));
        self.reconnect(&before, &networks, revision);
        self.router_left(id, before.difference(&networks), revision);
        self.router_changed(id, revision);
        self.reassign(before.union(&networks), revision);
    }

    /// Networks may have other gateways now.
    fn reassign<'a>(&mut self, networks: impl Iterator<Item = &'a Id<Network>>, revision: Revision) {
        let networks: Vec<_> = networks.copied().collect();
        for network in &networks {
            self.assign(*network, revision);
        }
        if !self.is_loading {
            self.refresh(networks);
        }
    }

    pub(super) fn delete_router(&mut self, id: Id<Router>, revision: Revision) {
        let before = self.routing.set(id, None);
        self.reconnect(&before, &BTreeSet::new(), revision);
        self.router_left(id, before.iter(), revision);
        self.reassign(before.iter(), revision);
    }

    /// The addresses of a router's port may be others.
    pub(super) fn router_port_changed(&mut self, port: Id<Port>, revision: Revision) {
        if let Some(router) = self.routing.by_port.get(&port).copied() {
            self.router_changed(router, revision);
        }
    }

    /// Everybody in the router's networks gets its row.
    fn router_changed(&mut self, id: Id<Router>, revision: Revision) {
        let Some(known) = self.routing.routers.get_mut(&id) else {
            return;
        };
        known.revision = known.revision.max(revision);
        self.routing.due.insert(id);
        for network in known.networks.clone() {
            self.touch(network, revision);
        }
        self.tell_router(id);
    }

    /// Hosts and gateways in the router's networks get its row.
    pub(super) fn tell_router(&mut self, id: Id<Router>) {
        for network in self.routing.networks(id) {
            for host in self.interested_or_serving(network) {
                if let Some(pending) = self.pend(&host, network) {
                    pending.routers.insert(id);
                }
            }
        }
    }

    fn router_left<'a>(
        &mut self,
        id: Id<Router>,
        networks: impl Iterator<Item = &'a Id<Network>>,
        revision: Revision,
    ) {
        let limit = self.options.tombstones;
        for network in networks {
            let key = RowKey::Router(*network, id);
            self.touch(*network, revision).bury(limit, revision, key);
            let rows = [KeyedRow::gone(revision, &key)];
            for host in self.interested_or_serving(*network) {
                self.pend_rows(&host, *network, &rows);
            }
        }
    }

    /// A router was in some networks and is in others now.
    fn reconnect(
        &mut self,
        before: &BTreeSet<Id<Network>>,
        after: &BTreeSet<Id<Network>>,
        revision: Revision,
    ) {
        let (before, after) = (pairs(before), pairs(after));
        for pair in after.difference(&before) {
            if self.routing.count(*pair, true) {
                self.met(*pair, revision);
            }
        }
        for pair in before.difference(&after) {
            if self.routing.count(*pair, false) {
                self.parted(*pair, revision);
            }
        }
    }

    pub(super) fn hosts_with_ports(&self, network: Id<Network>) -> Vec<String> {
        let view = self.networks.get(&network).into_iter();
        view.flat_map(|view| view.by_host.keys().cloned()).collect()
    }

    /// Hosts with ports in the one network become guests of the other.
    fn met(&mut self, (one, other): (Id<Network>, Id<Network>), revision: Revision) {
        for host in self.hosts_with_ports(one) {
            self.guest(&host, other, true, revision);
            for group in self.looking_groups(&host, one) {
                self.look_in(&host, (one, group), other, true, revision);
            }
        }
        self.weigh(other, revision);
    }

    fn parted(&mut self, (one, other): (Id<Network>, Id<Network>), revision: Revision) {
        for host in self.hosts_with_ports(one) {
            for group in self.looking_groups(&host, one) {
                self.look_in(&host, (one, group), other, false, revision);
            }
            self.guest(&host, other, false, revision);
        }
        self.weigh(other, revision);
    }

    /// The groups of a host's ports in a network whose rules ask for labels of neighbours.
    fn looking_groups(&self, host: &str, network: Id<Network>) -> Vec<Id<SecurityGroup>> {
        let view = self.networks.get(&network);
        let groups = view.and_then(|view| view.lookers.get(host)).into_iter().flatten();
        let own = groups.filter(|(of, _)| *of == network);
        own.map(|(_, group)| *group).collect()
    }

    /// A group of ports in one network asks for labels in another, or does not any more.
    pub(super) fn look_in(
        &mut self,
        host: &str,
        group: GroupIn,
        network: Id<Network>,
        looks: bool,
        revision: Revision,
    ) {
        if self.touch(network, Revision::ZERO).look(host, group, looks) {
            self.begins_to_look(host, network, revision);
        }
    }

    /// A host has its first port in a network, or has none any more: it is a guest of the network's peers, or not.
    pub(super) fn visit(&mut self, host: &str, network: Id<Network>, comes: bool, revision: Revision) {
        for peer in self.routing.peers(network) {
            self.guest(host, peer, comes, revision);
            self.weigh(peer, revision);
        }
    }

    fn guest(&mut self, host: &str, network: Id<Network>, comes: bool, revision: Revision) {
        let lingers = self.touch(network, Revision::ZERO).left.lingers(host);
        let change = |interest: &mut Interest| {
            interest.guest = match comes {
                true => interest.guest + 1,
                false => interest.guest.saturating_sub(1),
            };
        };
        let (was, is) = self.interest(host, network, change);
        if was == is {
            return;
        }
        self.reach(host, network, revision);
        if is {
            if let Some(pending) = self.pend(host, network) {
                (pending.snapshot, pending.forget) = (true, false);
                pending.afresh |= lingers;
            }
            return;
        }
        self.rests(network);
        // One that passes on what comes for ports that have left it forgets when that is over.
        if !lingers && let Some(pending) = self.pend(host, network) {
            (pending.snapshot, pending.forget) = (false, true);
        }
    }

    /// Writes down why a host is interested in a network; gives whether it was, and is.
    pub(super) fn interest(
        &mut self,
        host: &str,
        network: Id<Network>,
        change: impl FnOnce(&mut Interest),
    ) -> (bool, bool) {
        let view = self.touch(network, Revision::ZERO);
        let index = view.index;
        let interest = view.interested.entry(host.to_owned()).or_default();
        let old = *interest;
        change(interest);
        let new = *interest;
        if !new.is_any() {
            view.interested.remove(host);
        }
        let networks = self.host_networks.entry(host.to_owned()).or_default();
        match new.is_any() {
            true => networks.insert(network),
            false => networks.remove(&network),
        };
        if networks.is_empty() {
            self.host_networks.remove(host);
            self.strangers.unplaced(host);
        }
        if (old.guest > 0) != (new.guest > 0) {
            let host = self.directory.host(host);
            self.directory.visit(host, (network, index), new.guest > 0);
        }
        (old.is_any(), new.is_any())
    }

    /// The rows of a network's routers.
    pub(super) fn router_rows(&self, network: Id<Network>) -> impl Iterator<Item = KeyedRow> + '_ {
        let routers = self.routing.routers(network);
        routers.filter_map(move |id| self.router_row(network, id))
    }

    /// The keys and revisions of the rows of a network's routers.
    pub(super) fn router_revisions(
        &self,
        network: Id<Network>,
    ) -> impl Iterator<Item = (RowKey, Revision)> + '_ {
        let routers = self.routing.routers(network);
        routers.filter_map(move |id| {
            let known = self.routing.routers.get(&id)?;
            let is_here = known.networks.contains(&network);
            is_here.then_some((RowKey::Router(network, id), known.revision))
        })
    }

    /// The row of a router in a network, if it has a place there.
    pub(super) fn router_row(&self, network: Id<Network>, id: Id<Router>) -> Option<KeyedRow> {
        let (revision, row) = self.router(network, id)?;
        Some(KeyedRow::put(revision, Row::Router(row)))
    }

    /// Where routers lead from a network with this address: a network, and the address that is looked for there.
    pub(super) fn routed(&self, network: Id<Network>, ip: IpAddr) -> Option<(Id<Network>, IpAddr)> {
        let routers = self.routing.routers(network);
        let rows: Vec<RouterRow> = routers
            .filter_map(|id| Some(self.router(network, id)?.1))
            .collect();
        let way = way(rows.iter(), ip)?;
        Some((way.network_id, way.nexthop.unwrap_or(ip)))
    }

    fn router(&self, network: Id<Network>, id: Id<Router>) -> Option<(Revision, RouterRow)> {
        let known = self.routing.routers.get(&id)?;
        known.networks.contains(&network).then_some(())?;
        let interfaces: Vec<InterfaceRow> = known
            .row
            .interfaces
            .iter()
            .flat_map(|place| self.interfaces(place))
            .collect();
        let routes = known.row.routes.iter().filter_map(|route| {
            let to = interfaces.iter().find(|to| to.cidr.contains(&route.nexthop))?;
            Some(RouteRow {
                destination: route.destination.trunc(),
                nexthop: route.nexthop,
                network_id: to.network_id,
            })
        });
        let row = RouterRow {
            id,
            network_id: network,
            admin_state_up: known.row.admin_state_up,
            routes: routes.collect(),
            interfaces,
            external: self.external_row(&known.row, &known.ways),
        };
        Some((known.revision, row))
    }

    fn interfaces(&self, place: &RouterInterface) -> Vec<InterfaceRow> {
        let view = self.networks.get(&place.network_id);
        let Some((view, port)) = view.and_then(|view| Some((view, view.ports.get(&place.port_id)?))) else {
            return Vec::new();
        };
        // A port that is down is no place of the router.
        let fixed_ips = port.fixed_ips.iter().filter(|_| port.admin_state_up);
        let interface = |fixed: &alcor_model::resource::FixedIp| {
            let subnet = view.subnets.get(&fixed.subnet_id)?;
            Some(InterfaceRow {
                network_id: place.network_id,
                cidr: subnet.cidr,
                address: fixed.ip_address,
            })
        };
        fixed_ips.filter_map(interface).collect()
    }
}
