//! Routers: what people do with them, and who can reach whom through them, from the region's rows alone.

use std::net::{IpAddr, Ipv4Addr};

use alcor_model::{Id, Network, Port, Router, resource::HostRoute};
use alcor_region::{
    Managed as _, RegionState,
    command::PortCreate,
    router::{InterfaceRequest, RouterCreate, RouterUpdate, add_interface, remove_interface},
};
use ipnet::{IpNet, Ipv4Net};

use super::{Sim, traffic::Pair};
use crate::cloud::Cloud;

/// Blocks behind ports begin here: each router has 256 of them, of 256 addresses.
const FIRST_BEHIND: Ipv4Addr = Ipv4Addr::new(12, 0, 0, 0);
/// Share of a router's changes that are to its interfaces.
const INTERFACES: f64 = 0.7;

impl Sim {
    /// Routers of all projects in turn, each in some networks of its own.
    pub(super) fn make_routers(&mut self) {
        for number in 0..self.scenario.routers.count {
            let project = u64::from(number) % self.scenario.networks.projects;
            let caller = Cloud::caller(project);
            let made = self
                .cloud
                .write(|tx, env| Router::create(tx, env, &caller, RouterCreate::default()));
            match made {
                Ok(router) => self.people.routers.push((router.id, project)),
                Err(error) => self.violate(format!("a router cannot be made: {error}")),
            }
            let router = self.people.routers.len() - 1;
            for _ in 0..self.scenario.routers.networks_each {
                self.add_interface(router);
            }
        }
    }

    /// Somebody changes a router.
    pub(super) fn change_router(&mut self) {
        let router = self.rng.place(self.people.routers.len());
        let Some((id, project)) = self.people.routers.get(router).copied() else {
            return;
        };
        if !self.rng.chance(INTERFACES) {
            let update = match self.rng.chance(0.4) {
                true => RouterUpdate {
                    admin_state_up: Some(self.rng.chance(0.8)),
                    ..RouterUpdate::default()
                },
                false => RouterUpdate {
                    routes: Some(self.some_routes(router, id)),
                    ..RouterUpdate::default()
                },
            };
            let caller = Cloud::caller(project);
            let done = self
                .cloud
                .write(|tx, env| Router::update(tx, env, &caller, &id, update, None));
            return match done {
                Ok(_) => self.figures.add("router_changes", 1),
                Err(error) => self.refused(&error),
            };
        }
        let all = self.people.networks.iter();
        let all = all.filter(|network| network.project == project).count();
        let row = self.cloud.state().routers().get(&id);
        let has = row.map_or(0, |row| row.interfaces.len());
        // The fewer there are, the more likely one comes.
        match self.rng.place(all + 1) < has {
            true => self.remove_interface(id, project),
            false => self.add_interface(router),
        }
    }

    /// A router gets a place in a network of its project that it is not in: with the subnet's gateway address, or, when another
    /// router has that, with a port of its own.
    fn add_interface(&mut self, router: usize) {
        let Some((id, project)) = self.people.routers.get(router).copied() else {
            return;
        };
        let state = self.cloud.state();
        let Some(row) = state.routers().get(&id) else {
            return;
        };
        let is_in = |network: Id<Network>| row.interfaces.iter().any(|place| place.network_id == network);
        let networks = self.people.networks.iter();
        let others: Vec<_> = networks
            .filter(|network| network.project == project && !is_in(network.id))
            .map(|network| (network.id, network.subnet))
            .collect();
        let Some((network, subnet)) = self.rng.pick(&others) else {
            return;
        };
        let is_taken = self.cloud.state().routers_in(network).next().is_some();
        let caller = Cloud::caller(project);
        let done = self.cloud.write(|tx, env| {
            let mut request = InterfaceRequest {
                port_id: None,
                subnet_id: Some(subnet),
            };
            if is_taken {
                let port = Port::create(tx, env, &caller, PortCreate::new(network))?;
                (request.port_id, request.subnet_id) = (Some(port.id), None);
            }
            add_interface(tx, env, &caller, id, request)
        });
        match done {
            Ok(_) => self.figures.add("router_interfaces_added", 1),
            Err(error) => self.refused(&error),
        }
    }

    /// A router loses one of its places, and its routes with it, which may need it.
    fn remove_interface(&mut self, id: Id<Router>, project: u64) {
        let row = self.cloud.state().routers().get(&id);
        let ports: Vec<_> = row.iter().flat_map(|row| row.port_ids()).collect();
        let Some(port) = self.rng.pick(&ports) else {
            return;
        };
        let caller = Cloud::caller(project);
        let done = self.cloud.write(|tx, env| {
            let update = RouterUpdate {
                routes: Some(Vec::new()),
                ..RouterUpdate::default()
            };
            Router::update(tx, env, &caller, &id, update, None)?;
            let request = InterfaceRequest {
                port_id: Some(port),
                subnet_id: None,
            };
            remove_interface(tx, env, &caller, id, request)
        });
        match done {
            Ok(_) => self.figures.add("router_interfaces_removed", 1),
            Err(error) => self.refused(&error),
        }
    }

    /// Static routes to blocks behind ports of the router's networks.
    fn some_routes(&mut self, router: usize, id: Id<Router>) -> Vec<HostRoute> {
        let most = u64::from(self.scenario.routers.routes_max);
        let count = self.rng.below(most + 1);
        let places = self.cloud.state().routers().get(&id);
        let networks: Vec<_> = places
            .iter()
            .flat_map(|row| row.interfaces.iter().map(|place| place.network_id))
            .collect();
        let mut routes = Vec::new();
        for number in 0..count {
            let Some(network) = self.rng.pick(&networks) else {
                break;
            };
            let known = self.people.networks.iter().find(|known| known.id == network);
            let ports = known.map(|known| known.ports.clone()).unwrap_or_default();
            let nexthop = self.rng.pick(&ports).and_then(|port| self.address(port));
            let (Some(nexthop), Some(destination)) = (nexthop, behind(router, number)) else {
                continue;
            };
            routes.push(HostRoute { destination, nexthop });
        }
        routes
    }

    fn address(&self, port: Id<Port>) -> Option<IpAddr> {
        let port = self.cloud.state().ports().get(&port)?;
        port.fixed_ips.first().map(|fixed| fixed.ip_address)
    }

    /// Two ports of different networks, or a port and an address behind another.
    pub(super) fn some_routed_pair(&mut self) -> Option<Pair> {
        let networks = &self.people.networks;
        let (one, other) = (self.rng.place(networks.len()), self.rng.place(networks.len()));
        let (one, other) = (networks.get(one)?, networks.get(other)?);
        let from = self.rng.pick(&one.ports)?;
        let to = self.rng.pick(&other.ports)?;
        let (one, other) = (one.id, other.id);
        match self.behind_some_port(one) {
            Some((to, ip)) if to != from && self.rng.chance(0.3) => Some(Pair {
                from,
                to,
                behind: Some(ip),
            }),
            _ => (one != other).then_some(Pair {
                from,
                to,
                behind: None,
            }),
        }
    }

    /// An address that a router of a network has a route to, with the port that it lies behind.
    fn behind_some_port(&mut self, network: Id<Network>) -> Option<(Id<Port>, IpAddr)> {
        let state = self.cloud.state();
        let routes: Vec<_> = state
            .routers_in(network)
            .flat_map(|router| {
                let places = router.interfaces.iter().map(|place| place.network_id);
                let places: Vec<_> = places.collect();
                let with = move |route: &HostRoute| (places.clone(), *route);
                router.routes.iter().map(with).collect::<Vec<_>>()
            })
            .collect();
        let (places, route) = routes.get(self.rng.place(routes.len()))?;
        let networks = self.people.networks.iter();
        let mut ports = networks
            .filter(|known| places.contains(&known.id))
            .flat_map(|known| known.ports.iter().copied());
        let port = ports.find(|port| self.address(*port) == Some(route.nexthop))?;
        let IpAddr::V4(first) = route.destination.network() else {
            return None;
        };
        Some((port, Ipv4Addr::from(u32::from(first) + 5).into()))
    }
}

/// A block behind ports: the same for the same router and number.
fn behind(router: usize, number: u64) -> Option<IpNet> {
    let (router, number) = (u32::try_from(router).ok()?, u32::try_from(number).ok()?);
    let first = u32::from(FIRST_BEHIND) + (router << 16) + (number << 8);
    Ipv4Net::new(first.into(), 24).ok().map(Into::into)
}

/// The router that takes what is sent to an address from one network into another, if one does: it is up, has a place in the one,
/// and leads to the address by a place in the other, or by a route whose next hop lies there.
pub(super) fn router_between(
    state: &RegionState,
    from: Id<Network>,
    to: Id<Network>,
    ip: IpAddr,
) -> Option<Id<Router>> {
    let leads = |router: &&std::sync::Arc<Router>| {
        let blocks: Vec<_> = router
            .interfaces
            .iter()
            .flat_map(|place| blocks(state, place.port_id).map(|block| (place.network_id, block)))
            .collect();
        let direct = blocks
            .iter()
            .any(|(network, block)| *network == to && block.contains(&ip));
        let by_route = router.routes.iter().any(|route| {
            let mut hops = blocks.iter();
            let there = hops.any(|(network, block)| *network == to && block.contains(&route.nexthop));
            route.destination.contains(&ip) && there
        });
        router.admin_state_up && (direct || by_route)
    };
    let mut routers = state.routers_in(from);
    routers.find(leads).map(|router| router.id)
}

/// The blocks that a port has addresses in.
fn blocks(state: &RegionState, port: Id<Port>) -> impl Iterator<Item = IpNet> + '_ {
    let port = state.ports().get(&port);
    let fixed = port.into_iter().flat_map(|port| &port.fixed_ips);
    fixed.filter_map(|fixed| state.subnets().get(&fixed.subnet_id).map(|subnet| subnet.cidr))
}
