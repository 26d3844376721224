//! A router's static routes (Neutron's extra routes).

use std::{net::IpAddr, sync::Arc};

use alcor_model::{Id, Router, resource::HostRoute};
use alcor_store::Tx;
use ipnet::IpNet;

use super::{RouterError, put, visible};
use crate::{Env, RegionError, RegionState, command::Caller};

/// The name that Neutron has for the limit of static routes in one router.
const QUOTA: &str = "router_route";

/// `PUT /v2.0/routers/{id}/add_extraroutes`: routes that are there already stay as they are.
///
/// # Errors
/// The router is not there, or a route leads nowhere.
pub fn add_routes(
    tx: &mut Tx<'_, RegionState>,
    env: &Env,
    caller: &Caller,
    id: Id<Router>,
    routes: &[HostRoute],
) -> Result<Arc<Router>, RegionError> {
    change(tx, env, caller, id, |have| {
        have.iter().chain(routes).copied().collect()
    })
}

/// `PUT /v2.0/routers/{id}/remove_extraroutes`: routes that are not there are no mistake.
///
/// # Errors
/// The router is not there.
pub fn remove_routes(
    tx: &mut Tx<'_, RegionState>,
    env: &Env,
    caller: &Caller,
    id: Id<Router>,
    routes: &[HostRoute],
) -> Result<Arc<Router>, RegionError> {
    change(tx, env, caller, id, |have| {
        have.iter()
            .filter(|route| !routes.contains(route))
            .copied()
            .collect()
    })
}

fn change(
    tx: &mut Tx<'_, RegionState>,
    env: &Env,
    caller: &Caller,
    id: Id<Router>,
    change: impl FnOnce(&[HostRoute]) -> Vec<HostRoute>,
) -> Result<Arc<Router>, RegionError> {
    let mut router = Router::clone(visible(tx.state(), caller, id)?);
    let routes = change(&router.routes);
    set(tx.state(), &mut router, routes)?;
    env.touch(&mut router.standard);
    Ok(put(tx, router))
}

/// Replaces all routes.
pub(super) fn set(
    state: &RegionState,
    router: &mut Router,
    mut routes: Vec<HostRoute>,
) -> Result<(), RegionError> {
    routes.sort_by_key(|route| (route.destination, route.nexthop));
    routes.dedup();
    if routes.len() > Router::MAX_ROUTES {
        return Err(RegionError::OverQuota(QUOTA));
    }
    let (mut prefixes, mut addresses) = (Vec::new(), Vec::new());
    for port in router.port_ids().filter_map(|id| state.ports().get(&id)) {
        for fixed in &port.fixed_ips {
            addresses.push(fixed.ip_address);
            prefixes.extend(state.subnets().get(&fixed.subnet_id).map(|subnet| subnet.cidr));
        }
    }
    check(&routes, &prefixes, &addresses)?;
    router.routes = routes;
    Ok(())
}

/// Every next hop lies in one of the prefixes and is none of the addresses.
pub(super) fn check(
    routes: &[HostRoute],
    prefixes: &[IpNet],
    addresses: &[IpAddr],
) -> Result<(), RouterError> {
    for route in routes {
        if !prefixes.iter().any(|prefix| prefix.contains(&route.nexthop)) {
            return Err(RouterError::routes(
                routes,
                "the nexthop is not connected with router",
            ));
        }
        if addresses.contains(&route.nexthop) {
            return Err(RouterError::routes(routes, "the nexthop is used by router"));
        }
    }
    Ok(())
}
