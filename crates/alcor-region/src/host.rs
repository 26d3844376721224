//! Hosts: they register themselves through the NCM.

use std::sync::Arc;

use alcor_model::{Host, Resource, ResourceKey, resource::HostWord};
use alcor_store::Tx;
use uuid::Uuid;

use crate::{Env, RegionError, RegionState};

/// Registers a host, or notes what its agent says anew. Writes nothing when nothing changed.
///
/// # Errors
/// A name or an address that cannot be; a name that is a gateway's; too many external networks.
pub fn register(
    tx: &mut Tx<'_, RegionState>,
    env: &Env,
    name: &str,
    word: HostWord,
) -> Result<Arc<Host>, RegionError> {
    word.check(name)
        .map_err(|error| RegionError::InvalidInput(format!("host {name:?}: {error}")))?;
    if tx.state().gateway_named(name).is_some() {
        return Err(RegionError::InvalidInput(format!(
            "host {name}: a gateway has this name"
        )));
    }
    let known = tx.state().hosts().get(&name.to_owned());
    if let Some(host) = known.filter(|host| word.is_in(host)) {
        return Ok(Arc::clone(host));
    }
    let host = Arc::new(Host {
        name: name.to_owned(),
        revision: tx.revision(),
        tunnel_ip: word.tunnel_ip,
        created_at: known.map_or_else(|| env.source.now(), |host| host.created_at),
        admin_state_up: known.is_none_or(|host| host.admin_state_up),
        description: known.map(|host| host.description.clone()).unwrap_or_default(),
        availability_zone: word.availability_zone,
        external_networks: word.external_networks,
    });
    tx.put(Resource::Host(Arc::clone(&host)));
    Ok(host)
}

/// Refuses zones that no host is in: what is asked of them cannot be.
///
/// # Errors
/// The first zone that is not there.
pub(crate) fn check_zones(state: &RegionState, names: &[String]) -> Result<(), RegionError> {
    match names.iter().find(|name| !state.has_zone(name)) {
        None => Ok(()),
        Some(name) => Err(RegionError::NotFound {
            exception: "AvailabilityZoneNotFound",
            resource: "AvailabilityZone",
            id: name.clone(),
        }),
    }
}

/// What an operator may change of a host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostUpdate {
    /// Whether ports may be bound to it anew.
    pub admin_state_up: Option<bool>,
    /// New words.
    pub description: Option<String>,
}

fn agent(state: &RegionState, id: Uuid) -> Result<&Arc<Host>, RegionError> {
    state.host_of_agent(id).ok_or_else(|| RegionError::NotFound {
        exception: "AgentNotFound",
        resource: "Agent",
        id: id.to_string(),
    })
}

/// Changes a host, which the API knows by the id of its agent.
///
/// # Errors
/// Not found.
pub fn update(tx: &mut Tx<'_, RegionState>, id: Uuid, update: HostUpdate) -> Result<Arc<Host>, RegionError> {
    let mut host = Host::clone(agent(tx.state(), id)?);
    host.revision = tx.revision();
    host.admin_state_up = update.admin_state_up.unwrap_or(host.admin_state_up);
    host.description = update.description.unwrap_or(host.description);
    let host = Arc::new(host);
    tx.put(Resource::Host(Arc::clone(&host)));
    Ok(host)
}

/// Forgets a host that is gone for good. Whether it is, the region cannot know; its agent registers it again.
///
/// # Errors
/// Not found.
pub fn delete(tx: &mut Tx<'_, RegionState>, id: Uuid) -> Result<(), RegionError> {
    let name = agent(tx.state(), id)?.name.clone();
    tx.delete(ResourceKey::HostRuntime(name.clone()));
    tx.delete(ResourceKey::Host(name));
    Ok(())
}
