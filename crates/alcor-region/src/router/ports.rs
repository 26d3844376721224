//! The ports that routers and floating IPs own: how they are made and removed, and what clients may not do with them. A
//! port that goes takes associations and port forwardings along.

use std::sync::Arc;

use alcor_model::{
    Id, Network, Port, Router, Row as _,
    resource::{FLOATING_IP, ROUTER_GATEWAY, ROUTER_INTERFACE},
};
use alcor_store::Tx;

use super::RouterError;
use crate::{
    Env, RegionError, RegionState,
    command::{Caller, FixedIpRequest, PortCreate, PortUpdate, StandardCreate},
    floating_ip,
    managed::Managed,
    quota,
};

/// Whose port it is.
pub(crate) struct Owner {
    /// The owning project, or empty.
    pub(crate) project_id: String,
    /// The id of the router or the floating IP.
    pub(crate) device_id: String,
    /// [`ROUTER_INTERFACE`], [`ROUTER_GATEWAY`] or [`FLOATING_IP`].
    pub(crate) device_owner: &'static str,
}

/// The platform itself, which sees every network. What a client names was checked with the client's own eyes before.
fn platform() -> Caller {
    Caller {
        project_id: String::new(),
        is_admin: true,
    }
}

/// Makes a port.
pub(crate) fn make(
    tx: &mut Tx<'_, RegionState>,
    env: &Env,
    network_id: Id<Network>,
    owner: Owner,
    fixed_ips: Option<Vec<FixedIpRequest>>,
) -> Result<Arc<Port>, RegionError> {
    let create = PortCreate {
        standard: StandardCreate {
            project_id: Some(owner.project_id),
            ..StandardCreate::default()
        },
        fixed_ips,
        device_id: owner.device_id,
        device_owner: owner.device_owner.to_owned(),
        // A router sends packets of others.
        port_security_enabled: Some(false),
        ..PortCreate::new(network_id)
    };
    let port = Port::create(tx, env, &platform(), create)?;
    quota::check::<Port>(tx, env, port.project_id())?;
    Ok(port)
}

/// Gives a port other addresses.
pub(crate) fn readdress(
    tx: &mut Tx<'_, RegionState>,
    env: &Env,
    port: &Port,
    fixed_ips: Vec<FixedIpRequest>,
) -> Result<(), RegionError> {
    let update = PortUpdate {
        fixed_ips: Some(fixed_ips),
        ..PortUpdate::default()
    };
    Port::update(tx, env, &platform(), &port.id, update, None).map(|_| ())
}

/// The router that a port belongs to.
pub(crate) fn router_of<'a>(state: &'a RegionState, port: &Port) -> Option<&'a Arc<Router>> {
    let id = port.device_id.parse().ok()?;
    state.routers().get(&id).filter(|router| router.has_port(port.id))
}

/// Whether a router or a floating IP owns a port.
fn is_owned(state: &RegionState, port: &Port) -> bool {
    match port.device_owner.as_str() {
        ROUTER_INTERFACE | ROUTER_GATEWAY => router_of(state, port).is_some(),
        FLOATING_IP => {
            let owner = port
                .device_id
                .parse()
                .ok()
                .and_then(|id| state.floating_ips().get(&id));
            owner.is_some_and(|floating_ip| floating_ip.floating_port_id == port.id)
        }
        _ => false,
    }
}

/// Refuses to delete a port that is part of something else.
pub(crate) fn check_delete(state: &RegionState, port: &Port) -> Result<(), RouterError> {
    if is_owned(state, port) {
        return Err(RouterError::ServicePortInUse {
            port: port.id,
            owner: port.device_owner.clone(),
        });
    }
    Ok(())
}

/// Refuses changes that would take a port from its router or floating IP, or an address from a floating IP that leads to
/// it.
pub(crate) fn check_update(state: &RegionState, before: &Port, after: &Port) -> Result<(), RouterError> {
    let other_user = before.device_id != after.device_id || before.device_owner != after.device_owner;
    if other_user && is_owned(state, before) {
        return Err(RouterError::PortInUse {
            port: before.id,
            network: before.network_id,
            device: before.device_id.clone(),
        });
    }
    let lost = state.floating_ips_to(before.id).any(|floating_ip| {
        floating_ip.association.is_some_and(|association| {
            !after
                .fixed_ips
                .iter()
                .any(|fixed| fixed.ip_address == association.fixed_ip_address)
        })
    });
    if lost {
        return Err(RouterError::BadPortRequest(format!(
            "Cannot update the fixed_ips of the port {}, because its original fixed_ip has been associated to a floating ip",
            before.id
        )));
    }
    Ok(())
}

/// After a port changed: port forwardings to addresses that it no longer has go.
pub(crate) fn changed(tx: &mut Tx<'_, RegionState>, env: &Env, port: &Port) {
    let lost = tx
        .state()
        .port_forwardings_to(port.id)
        .filter(|forwarding| {
            !port
                .fixed_ips
                .iter()
                .any(|fixed| fixed.ip_address == forwarding.internal_ip_address)
        })
        .map(|forwarding| forwarding.id)
        .collect();
    floating_ip::forwarding::remove_all(tx, env, lost);
}

/// Before a port goes: floating IPs no longer lead to it, and port forwardings to it go.
pub(crate) fn gone(tx: &mut Tx<'_, RegionState>, env: &Env, id: Id<Port>) {
    let lost = tx
        .state()
        .port_forwardings_to(id)
        .map(|forwarding| forwarding.id)
        .collect();
    floating_ip::forwarding::remove_all(tx, env, lost);
    floating_ip::disassociate_all(tx, env, id);
}
