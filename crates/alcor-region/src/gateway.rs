//! Gateways: they register themselves through the NCM; operators drain them and forget those that are gone.
//!
//! Which of them forward for which network is not decided here: that follows from who is alive, which the NCM knows.

use std::{net::IpAddr, sync::Arc};

use alcor_model::{
    GatewayNode, Id, Resource, ResourceKey,
    resource::{NAME_BYTES_MAX, is_name, is_tunnel_ip},
};
use alcor_store::Tx;

use crate::{Env, RegionError, RegionState};

/// Most gateways of a region: every NCM keeps all of them, and every network looks at the names of their sets.
pub const MAX_GATEWAYS_OF_REGION: usize = 1_024;

/// What a gateway says of itself when it registers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayRegistration {
    /// Its name, by which it is known for ever; no host may have it.
    pub name: String,
    /// The set that it belongs to.
    pub set: String,
    /// Where hosts send packets to it.
    pub tunnel_ip: IpAddr,
}

/// What an operator may change of a gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GatewayUpdate {
    /// Whether no host shall send to it any more.
    pub draining: Option<bool>,
}

fn invalid(reason: impl Into<String>) -> RegionError {
    RegionError::InvalidInput(reason.into())
}

fn check_text(what: &str, text: &str) -> Result<(), RegionError> {
    match is_name(text) {
        true => Ok(()),
        false => Err(invalid(format!(
            "{what} of a gateway has 1 to {NAME_BYTES_MAX} printable characters"
        ))),
    }
}

/// Registers a gateway, or notes its new set or tunnel address. Writes nothing when nothing changed; whether it is
/// being drained stays as an operator said.
///
/// # Errors
/// A name, a set or an address that cannot be; a name that is a host's; an address that is another's; too many gateways.
pub fn register(
    tx: &mut Tx<'_, RegionState>,
    env: &Env,
    said: GatewayRegistration,
) -> Result<Arc<GatewayNode>, RegionError> {
    check_text("the name", &said.name)?;
    check_text("the set", &said.set)?;
    if !is_tunnel_ip(said.tunnel_ip) {
        return Err(invalid(format!(
            "gateway {}: {} cannot be a tunnel address",
            said.name, said.tunnel_ip
        )));
    }
    let state = tx.state();
    if state.hosts().contains(&said.name) {
        return Err(invalid(format!("gateway {}: a host has this name", said.name)));
    }
    let owner = state.gateway_at(said.tunnel_ip);
    if let Some(owner) = owner.filter(|owner| owner.name != said.name) {
        return Err(invalid(format!(
            "gateway {}: {} is the tunnel address of gateway {}",
            said.name, said.tunnel_ip, owner.name
        )));
    }
    let known = state.gateway_named(&said.name);
    if let Some(known) = known
        && known.set == said.set
        && known.tunnel_ip == said.tunnel_ip
    {
        return Ok(Arc::clone(known));
    }
    if known.is_none() && state.gateway_nodes().len() >= MAX_GATEWAYS_OF_REGION {
        return Err(invalid(format!(
            "a region has at most {MAX_GATEWAYS_OF_REGION} gateways"
        )));
    }
    let GatewayRegistration { name, set, tunnel_ip } = said;
    let gateway = Arc::new(GatewayNode {
        id: known.map_or_else(|| env.new_id(), |known| known.id),
        revision: tx.revision(),
        name,
        set,
        tunnel_ip,
        draining: known.is_some_and(|known| known.draining),
        created_at: known.map_or_else(|| env.source.now(), |known| known.created_at),
    });
    tx.put(Resource::GatewayNode(Arc::clone(&gateway)));
    Ok(gateway)
}

fn find(state: &RegionState, id: Id<GatewayNode>) -> Result<&Arc<GatewayNode>, RegionError> {
    state
        .gateway_nodes()
        .get(&id)
        .ok_or_else(|| RegionError::NotFound {
            exception: "GatewayNotFound",
            resource: "Gateway",
            id: id.to_string(),
        })
}

/// Changes a gateway. Writes nothing when nothing changed.
///
/// # Errors
/// Not found.
pub fn update(
    tx: &mut Tx<'_, RegionState>,
    id: Id<GatewayNode>,
    update: &GatewayUpdate,
) -> Result<Arc<GatewayNode>, RegionError> {
    let known = find(tx.state(), id)?;
    let draining = update.draining.unwrap_or(known.draining);
    if draining == known.draining {
        return Ok(Arc::clone(known));
    }
    let gateway = Arc::new(GatewayNode {
        revision: tx.revision(),
        draining,
        ..GatewayNode::clone(known)
    });
    tx.put(Resource::GatewayNode(Arc::clone(&gateway)));
    Ok(gateway)
}

/// Forgets a gateway that is gone for good. Whether it is, the region cannot know; one that lives registers again.
///
/// # Errors
/// Not found.
pub fn delete(tx: &mut Tx<'_, RegionState>, id: Id<GatewayNode>) -> Result<(), RegionError> {
    find(tx.state(), id)?;
    tx.delete(ResourceKey::GatewayNode(id));
    Ok(())
}
