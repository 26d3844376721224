//! A router's places in networks: added by subnet or by port, removed by either.

use std::sync::Arc;

use alcor_model::{
    Id, Port, Resource, Router, Subnet,
    resource::{Access, ROUTER_INTERFACE, RouterInterface, SharedType},
};
use alcor_store::Tx;

use super::{RouterError, ports, put, visible};
use crate::{
    Env, RegionError, RegionState,
    command::{Caller, FixedIpRequest},
    label, port,
};

/// What a client names to add or to remove an interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InterfaceRequest {
    /// By port.
    pub port_id: Option<Id<Port>>,
    /// By subnet.
    pub subnet_id: Option<Id<Subnet>>,
}

/// What was added or removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceInfo {
    /// The router.
    pub router_id: Id<Router>,
    /// The port, which is gone when it was removed.
    pub port: Arc<Port>,
    /// The subnets that were added or removed.
    pub subnet_ids: Vec<Id<Subnet>>,
}

fn refuse<T>(words: impl Into<String>) -> Result<T, RegionError> {
    Err(RouterError::BadRequest(words.into()).into())
}

/// `PUT /v2.0/routers/{id}/add_router_interface`
///
/// # Errors
/// The router, the subnet or the port is not there, is in use, or does not fit the router's other interfaces.
pub fn add_interface(
    tx: &mut Tx<'_, RegionState>,
    env: &Env,
    caller: &Caller,
    id: Id<Router>,
    request: InterfaceRequest,
) -> Result<InterfaceInfo, RegionError> {
    let mut router = Router::clone(visible(tx.state(), caller, id)?);
    let (port, subnet_ids) = match (request.port_id, request.subnet_id) {
        (None, None) => return refuse("Either subnet_id or port_id must be specified"),
        (Some(_), Some(_)) => return refuse("Cannot specify both subnet-id and port-id"),
        (Some(port), None) => add_port(tx, env, caller, &router, port)?,
        (None, Some(subnet)) => add_subnet(tx, env, caller, &router, subnet)?,
    };
    if !router.has_interface(port.id) {
        if router.interfaces.len() >= Router::MAX_INTERFACES {
            return refuse(format!(
                "A router has at most {} interfaces",
                Router::MAX_INTERFACES
            ));
        }
        router.interfaces.push(RouterInterface {
            port_id: port.id,
            network_id: port.network_id,
        });
    }
    env.touch(&mut router.standard);
    let router = put(tx, router);
    label::connect(tx, env, &router, port.network_id)?;
    Ok(InterfaceInfo {
        router_id: id,
        port,
        subnet_ids,
    })
}

/// A new port with the subnet's gateway address; a further IPv6 prefix goes to the port that is there.
fn add_subnet(
    tx: &mut Tx<'_, RegionState>,
    env: &Env,
    caller: &Caller,
    router: &Router,
    id: Id<Subnet>,
) -> Result<(Arc<Port>, Vec<Id<Subnet>>), RegionError> {
    let state = tx.state();
    let subnet = state
        .visible_subnet(caller, id)
        .cloned()
        .ok_or(RegionError::SubnetNotFound(id))?;
    let Some(gateway) = subnet.gateway_ip else {
        return refuse("Subnet for router interface must have a gateway IP");
    };
    // Shared with everybody is not enough: somebody's router would take the gateway's address.
    let is_given = || {
        let network = subnet.network_id.uuid();
        let grant = state.grant(
            SharedType::Network,
            network,
            Access::AccessAsShared,
            &caller.project_id,
        );
        grant.is_some()
    };
    if !caller.is_admin && subnet.standard.project_id != caller.project_id && !is_given() {
        return refuse(format!(
            "Cannot add interface to router because subnet {id} is not owned by project making the request"
        ));
    }
    check_mode(&subnet)?;
    check_subnets(state, router, std::slice::from_ref(&subnet), None)?;
    let fixed_ip = FixedIpRequest {
        subnet_id: Some(id),
        ip_address: Some(gateway),
    };
    let existing = gateway
        .is_ipv6()
        .then(|| ipv6_port(state, router, &subnet))
        .flatten()
        .cloned();
    let port = match existing {
        Some(port) => {
            let mut fixed_ips = requests(&port);
            fixed_ips.push(fixed_ip);
            ports::readdress(tx, env, &port, fixed_ips)?;
            written(tx, port.id)?
        }
        None => {
            let owner = ports::Owner {
                project_id: router.standard.project_id.clone(),
                device_id: router.id.to_string(),
                device_owner: ROUTER_INTERFACE,
            };
            ports::make(tx, env, subnet.network_id, owner, Some(vec![fixed_ip]))?
        }
    };
    Ok((port, vec![id]))
}

/// A port of the client's becomes the router's.
fn add_port(
    tx: &mut Tx<'_, RegionState>,
    env: &Env,
    caller: &Caller,
    router: &Router,
    id: Id<Port>,
) -> Result<(Arc<Port>, Vec<Id<Subnet>>), RegionError> {
    let state = tx.state();
    let mut port = state
        .visible_port(caller, id)
        .map(|port| Port::clone(port))
        .ok_or(RegionError::PortNotFound(id))?;
    if !port.device_id.is_empty() {
        return Err(RouterError::PortInUse {
            port: id,
            network: port.network_id,
            device: port.device_id,
        }
        .into());
    }
    let subnets: Vec<Arc<Subnet>> = port
        .fixed_ips
        .iter()
        .filter_map(|fixed| state.subnets().get(&fixed.subnet_id))
        .cloned()
        .collect();
    if subnets.is_empty() {
        return refuse("Router port must have at least one fixed IP");
    }
    for subnet in &subnets {
        check_mode(subnet)?;
        if let Some(other) = ipv6_port(state, router, subnet).filter(|_| subnet.cidr.addr().is_ipv6()) {
            return refuse(format!(
                "Router already contains IPv6 port {} belonging to network id {}. Only one IPv6 port from the same network \
                 subnet can be connected to a router",
                other.id, other.network_id
            ));
        }
    }
    check_subnets(state, router, &subnets, Some(id))?;
    if subnets
        .iter()
        .filter(|subnet| subnet.cidr.addr().is_ipv4())
        .count()
        > 1
    {
        return refuse("Cannot have multiple IPv4 subnets on router port");
    }
    check_pools(caller, &port, &subnets)?;
    port.device_id = router.id.to_string();
    port.device_owner = ROUTER_INTERFACE.to_owned();
    env.touch(&mut port.standard);
    tx.put(Resource::Port(Arc::new(port)));
    Ok((written(tx, id)?, subnets.iter().map(|subnet| subnet.id).collect()))
}

/// Somebody else's addresses outside of the pools are for the subnet's owner to give.
fn check_pools(caller: &Caller, port: &Port, subnets: &[Arc<Subnet>]) -> Result<(), RegionError> {
    if caller.is_admin {
        return Ok(());
    }
    for (fixed, subnet) in port.fixed_ips.iter().zip(subnets) {
        let in_pool = subnet
            .allocation_pools
            .iter()
            .any(|pool| (pool.start..=pool.end).contains(&fixed.ip_address));
        if !in_pool && subnet.standard.project_id != caller.project_id {
            return refuse(format!(
                "Cannot add interface to router because specified port {} has an IP address out of the allocation pool of \
                 subnet {}, which is not owned by the project making the request",
                port.id, subnet.id
            ));
        }
    }
    Ok(())
}

/// A subnet whose advertisements come from somebody else's router.
fn check_mode(subnet: &Subnet) -> Result<(), RegionError> {
    if subnet.ipv6_address_mode.is_some() && subnet.ipv6_ra_mode.is_none() {
        return refuse(format!(
            "IPv6 subnet {} configured to receive RAs from an external router cannot be added to Neutron Router",
            subnet.id
        ));
    }
    Ok(())
}

/// Refuses subnets that a router has already, or that overlap with what it has, on its way out too. `own` is a port that
/// does not count.
pub(super) fn check_subnets(
    state: &RegionState,
    router: &Router,
    subnets: &[Arc<Subnet>],
    own: Option<Id<Port>>,
) -> Result<(), RegionError> {
    let gateway = router.gateway.map(|gateway| gateway.port_id);
    let others = router
        .port_ids()
        .filter(|id| Some(*id) != own)
        .filter_map(|id| state.ports().get(&id));
    for port in others {
        let used: Vec<Id<Subnet>> = port.fixed_ips.iter().map(|fixed| fixed.subnet_id).collect();
        if let Some(twice) = subnets.iter().find(|subnet| used.contains(&subnet.id)) {
            return refuse(format!("Router already has a port on subnet {}", twice.id));
        }
        let around: Vec<&Arc<Subnet>> = if Some(port.id) == gateway {
            state.subnets_of(port.network_id).collect()
        } else {
            used.iter().filter_map(|id| state.subnets().get(id)).collect()
        };
        for (new, have) in subnets
            .iter()
            .flat_map(|new| around.iter().map(move |have| (new, have)))
        {
            if new.cidr.contains(&have.cidr) || have.cidr.contains(&new.cidr) {
                return refuse(format!(
                    "Cidr {} of subnet {} overlaps with cidr {} of subnet {}",
                    new.cidr, new.id, have.cidr, have.id
                ));
            }
        }
    }
    Ok(())
}

/// The router's port in the subnet's network that has IPv6 addresses.
fn ipv6_port<'a>(state: &'a RegionState, router: &Router, subnet: &Subnet) -> Option<&'a Arc<Port>> {
    router
        .interfaces
        .iter()
        .filter(|interface| interface.network_id == subnet.network_id)
        .filter_map(|interface| state.ports().get(&interface.port_id))
        .find(|port| port.fixed_ips.iter().any(|fixed| fixed.ip_address.is_ipv6()))
}

fn requests(port: &Port) -> Vec<FixedIpRequest> {
    port.fixed_ips
        .iter()
        .map(|fixed| FixedIpRequest {
            subnet_id: Some(fixed.subnet_id),
            ip_address: Some(fixed.ip_address),
        })
        .collect()
}

fn written(tx: &Tx<'_, RegionState>, id: Id<Port>) -> Result<Arc<Port>, RegionError> {
    tx.state()
        .ports()
        .get(&id)
        .cloned()
        .ok_or(RegionError::PortNotFound(id))
}

/// `PUT /v2.0/routers/{id}/remove_router_interface`
///
/// # Errors
/// There is no such interface, or routes or floating IPs need it.
pub fn remove_interface(
    tx: &mut Tx<'_, RegionState>,
    env: &Env,
    caller: &Caller,
    id: Id<Router>,
    request: InterfaceRequest,
) -> Result<InterfaceInfo, RegionError> {
    let mut router = Router::clone(visible(tx.state(), caller, id)?);
    let (port, subnet_ids) = match (request.port_id, request.subnet_id) {
        (None, None) => return refuse("Either subnet_id or port_id must be specified"),
        (Some(port), subnet) => by_port(tx.state(), &router, port, subnet)?,
        (None, Some(subnet)) => by_subnet(tx.state(), caller, &router, subnet)?,
    };
    for subnet in &subnet_ids {
        check_unused(tx.state(), &router, *subnet)?;
    }
    let mut left = requests(&port);
    left.retain(|fixed| fixed.subnet_id.is_none_or(|subnet| !subnet_ids.contains(&subnet)));
    if left.is_empty() {
        port::remove(tx, env, port.id);
        router.interfaces.retain(|interface| interface.port_id != port.id);
    } else {
        ports::readdress(tx, env, &port, left)?;
    }
    env.touch(&mut router.standard);
    let router = put(tx, router);
    label::disconnect(tx, &router, port.network_id);
    Ok(InterfaceInfo {
        router_id: id,
        port,
        subnet_ids,
    })
}

/// The whole port, with all its subnets.
fn by_port(
    state: &RegionState,
    router: &Router,
    id: Id<Port>,
    subnet: Option<Id<Subnet>>,
) -> Result<(Arc<Port>, Vec<Id<Subnet>>), RegionError> {
    let port = state
        .ports()
        .get(&id)
        .filter(|_| router.has_interface(id))
        .cloned()
        .ok_or(RouterError::InterfaceNotFound {
            router: router.id,
            port: id,
        })?;
    let subnets: Vec<Id<Subnet>> = port.fixed_ips.iter().map(|fixed| fixed.subnet_id).collect();
    match subnet.filter(|subnet| !subnets.contains(subnet)) {
        Some(subnet) => Err(RouterError::SubnetMismatch { port: id, subnet }.into()),
        None => Ok((port, subnets)),
    }
}

/// One subnet of the port that has it.
fn by_subnet(
    state: &RegionState,
    caller: &Caller,
    router: &Router,
    id: Id<Subnet>,
) -> Result<(Arc<Port>, Vec<Id<Subnet>>), RegionError> {
    let subnet = state
        .visible_subnet(caller, id)
        .ok_or(RegionError::SubnetNotFound(id))?;
    let port = router
        .interfaces
        .iter()
        .filter(|interface| interface.network_id == subnet.network_id)
        .filter_map(|interface| state.ports().get(&interface.port_id))
        .find(|port| port.fixed_ips.iter().any(|fixed| fixed.subnet_id == id))
        .cloned()
        .ok_or(RouterError::InterfaceNotFoundForSubnet {
            router: router.id,
            subnet: id,
        })?;
    Ok((port, vec![id]))
}

/// Refuses to leave a subnet that routes or floating IPs reach through the router.
fn check_unused(state: &RegionState, router: &Router, id: Id<Subnet>) -> Result<(), RegionError> {
    let Some(subnet) = state.subnets().get(&id) else {
        return Ok(());
    };
    if router
        .routes
        .iter()
        .any(|route| subnet.cidr.contains(&route.nexthop))
    {
        return Err(RouterError::InterfaceInUseByRoute {
            router: router.id,
            subnet: id,
        }
        .into());
    }
    let leads_there = |port: Id<Port>, ip| state.port_with_ip(id, ip) == Some(port);
    let in_use = state.floating_ips_of_router(router.id).any(|floating_ip| {
        floating_ip
            .association
            .is_some_and(|association| leads_there(association.port_id, association.fixed_ip_address))
            || state.port_forwardings_of(floating_ip.id).any(|forwarding| {
                leads_there(forwarding.internal_port_id, forwarding.internal_ip_address.into())
            })
    });
    if in_use {
        return Err(RouterError::InterfaceInUseByFloatingIp {
            router: router.id,
            subnet: id,
        }
        .into());
    }
    Ok(())
}
