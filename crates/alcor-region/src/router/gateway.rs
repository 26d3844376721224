//! A router's way out: its port in an external network.

use std::{net::IpAddr, sync::Arc};

use alcor_model::{
    Network, Port, Router, Subnet,
    resource::{FixedIp, Gateway, ROUTER_GATEWAY},
};
use alcor_store::Tx;
use ipnet::IpNet;

use super::{GatewayRequest, RouterError, interface, ports, routes};
use crate::{
    Env, RegionError, RegionState,
    command::{Caller, FixedIpRequest},
    port,
};

/// Gives a router a way out, another one, or none. The row is written by the caller.
pub(super) fn set(
    tx: &mut Tx<'_, RegionState>,
    env: &Env,
    caller: &Caller,
    router: &mut Router,
    request: Option<GatewayRequest>,
) -> Result<(), RegionError> {
    let Some(request) = request else {
        let (prefixes, addresses) = inside(tx.state(), router);
        routes::check(&router.routes, &prefixes, &addresses)?;
        return leave(tx, env, router);
    };
    let network = check(tx.state(), caller, router, &request)?;
    let enable_snat = request.enable_snat.unwrap_or(true);
    match router.gateway {
        Some(mut gateway) if gateway.network_id == network.id => {
            gateway.enable_snat = enable_snat;
            router.gateway = Some(gateway);
            let port = port_of(tx.state(), gateway)?;
            if request.external_fixed_ips.is_empty() || same(&port.fixed_ips, &request.external_fixed_ips) {
                return Ok(());
            }
            ports::readdress(tx, env, &port, request.external_fixed_ips)
        }
        _ => {
            leave(tx, env, router)?;
            let subnets: Vec<Arc<Subnet>> = tx.state().subnets_of(network.id).cloned().collect();
            interface::check_subnets(tx.state(), router, &subnets, None)?;
            let fixed_ips = (!request.external_fixed_ips.is_empty()).then_some(request.external_fixed_ips);
            let owner = ports::Owner {
                // Nobody's, as Neutron's: the router's project sees the router, not this port.
                project_id: String::new(),
                device_id: router.id.to_string(),
                device_owner: ROUTER_GATEWAY,
            };
            let port = ports::make(tx, env, network.id, owner, fixed_ips)?;
            router.gateway = Some(Gateway {
                network_id: network.id,
                port_id: port.id,
                enable_snat,
            });
            Ok(())
        }
    }
}

/// Takes the way out away, if there is one.
pub(super) fn leave(tx: &mut Tx<'_, RegionState>, env: &Env, router: &mut Router) -> Result<(), RegionError> {
    let Some(gateway) = router.gateway else {
        return Ok(());
    };
    if tx.state().floating_ips_of_router(router.id).next().is_some() {
        return Err(RouterError::GatewayInUseByFloatingIp {
            router: router.id,
            network: gateway.network_id,
        }
        .into());
    }
    port::remove(tx, env, gateway.port_id);
    router.gateway = None;
    Ok(())
}

fn port_of(state: &RegionState, gateway: Gateway) -> Result<Arc<Port>, RegionError> {
    state
        .ports()
        .get(&gateway.port_id)
        .cloned()
        .ok_or(RegionError::PortNotFound(gateway.port_id))
}

fn check(
    state: &RegionState,
    caller: &Caller,
    router: &Router,
    request: &GatewayRequest,
) -> Result<Arc<Network>, RegionError> {
    let id = request.network_id;
    let network = state
        .visible_network(caller, id)
        .cloned()
        .ok_or(RegionError::NetworkNotFound(id))?;
    if !state.is_external(&network) {
        return Err(RouterError::BadRequest(format!("Network {id} is not an external network")).into());
    }
    let asked = &request.external_fixed_ips;
    for subnet in asked.iter().filter_map(|fixed| fixed.subnet_id) {
        if state.visible_subnet(caller, subnet).is_none() {
            return Err(RegionError::SubnetNotFound(subnet));
        }
    }
    for ip in asked.iter().filter_map(|fixed| fixed.ip_address) {
        if state.subnets_of(id).any(|subnet| subnet.gateway_ip == Some(ip)) {
            return Err(
                RouterError::BadRequest(format!("External IP {ip} is the same as the gateway IP")).into(),
            );
        }
    }
    let (mut prefixes, addresses) = inside(state, router);
    prefixes.extend(state.subnets_of(id).map(|subnet| subnet.cidr));
    routes::check(&router.routes, &prefixes, &addresses)?;
    Ok(network)
}

/// The prefixes and the addresses of a router's interfaces, without its way out.
fn inside(state: &RegionState, router: &Router) -> (Vec<IpNet>, Vec<IpAddr>) {
    router
        .interfaces
        .iter()
        .filter_map(|interface| state.ports().get(&interface.port_id))
        .flat_map(|port| &port.fixed_ips)
        .filter_map(|fixed| Some((state.subnets().get(&fixed.subnet_id)?.cidr, fixed.ip_address)))
        .unzip()
}

/// Whether the addresses asked for are those that are there.
fn same(have: &[FixedIp], asked: &[FixedIpRequest]) -> bool {
    let fits = |fixed: &FixedIp, request: &FixedIpRequest| {
        request.subnet_id.is_none_or(|subnet| subnet == fixed.subnet_id)
            && request.ip_address.is_none_or(|ip| ip == fixed.ip_address)
    };
    have.len() == asked.len()
        && have
            .iter()
            .all(|fixed| asked.iter().any(|request| fits(fixed, request)))
}
