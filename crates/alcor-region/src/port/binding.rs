//! Where a port is plugged, and where it may move to: one active binding, and inactive ones that a live migration
//! prepares. The hosts follow the active one; a host of an inactive one gets the network, not the port.

use std::sync::Arc;

use alcor_model::{
    Id, Port, Resource, ResourceKey, Revision,
    resource::{Binding, BindingState},
};
use alcor_store::Tx;
use serde_json::{Map, Value};

use super::{
    command::{BindingCreate, BindingUpdate},
    error::PortError,
    written,
};
use crate::{Env, RegionError, RegionState, command::Caller};

/// Whether a host can plug a port of this kind: it may be unknown yet, but not administratively down.
fn state_on(state: &RegionState, host: &str, vnic_type: &str) -> BindingState {
    let up = state
        .hosts()
        .get(&host.to_owned())
        .is_none_or(|host| host.admin_state_up);
    if host.is_empty() || (up && vnic_type == Binding::VNIC_NORMAL) {
        BindingState::Bound
    } else {
        BindingState::Failed
    }
}

/// A binding as a client asks for it.
pub(super) fn bind(
    state: &RegionState,
    revision: Revision,
    host_id: String,
    vnic_type: Option<String>,
    profile: Option<Map<String, Value>>,
) -> Binding {
    let vnic_type = vnic_type.unwrap_or_else(|| Binding::VNIC_NORMAL.to_owned());
    Binding {
        state: state_on(state, &host_id, &vnic_type),
        host_id,
        vnic_type,
        profile: profile.unwrap_or_default(),
        since: revision,
    }
}

/// Changes a binding as a client asks. What failed is tried again. A binding to another host, or of another kind,
/// is a new one, which its host has not reported about; whether that is so is the answer.
pub(super) fn rebind(
    state: &RegionState,
    revision: Revision,
    binding: &mut Binding,
    host_id: Option<String>,
    vnic_type: Option<String>,
    profile: Option<Map<String, Value>>,
) -> bool {
    let before = (binding.host_id.clone(), binding.vnic_type.clone(), binding.state);
    binding.host_id = host_id.unwrap_or(std::mem::take(&mut binding.host_id));
    binding.vnic_type = vnic_type.unwrap_or(std::mem::take(&mut binding.vnic_type));
    binding.profile = profile.unwrap_or(std::mem::take(&mut binding.profile));
    let moved = (&before.0, &before.1) != (&binding.host_id, &binding.vnic_type);
    if moved || binding.state == BindingState::Failed {
        binding.state = state_on(state, &binding.host_id, &binding.vnic_type);
    }
    let anew = moved || before.2 != binding.state;
    if anew {
        binding.since = revision;
    }
    anew
}

/// Every binding of a port, the active one first, with whether it is that.
pub fn of(port: &Port) -> impl Iterator<Item = (&Binding, bool)> {
    std::iter::once((&port.binding, true)).chain(port.standby.iter().map(|binding| (binding, false)))
}

/// Only ports of those who move have several bindings.
///
/// # Errors
/// [`PortError::NotMovable`].
pub fn check_movable(port: &Port) -> Result<(), RegionError> {
    if port.is_movable() {
        Ok(())
    } else {
        Err(PortError::NotMovable(port.id).into())
    }
}

fn movable<'a>(state: &'a RegionState, caller: &Caller, id: Id<Port>) -> Result<&'a Arc<Port>, RegionError> {
    let port = state
        .visible_port(caller, id)
        .ok_or(RegionError::PortNotFound(id))?;
    check_movable(port)?;
    Ok(port)
}

/// The binding of a port to a host, with whether it is the active one.
///
/// # Errors
/// Not found.
pub fn to_host<'a>(port: &'a Port, host: &str) -> Result<(&'a Binding, bool), PortError> {
    of(port)
        .find(|(binding, _)| binding.host_id == host)
        .ok_or_else(|| PortError::BindingNotFound {
            port: port.id,
            host: host.to_owned(),
        })
}

fn failed(port: Id<Port>, binding: &Binding) -> Result<(), PortError> {
    match binding.state {
        BindingState::Failed => Err(PortError::BindingFailed {
            port,
            host: binding.host_id.clone(),
        }),
        BindingState::Bound | BindingState::Left => Ok(()),
    }
}

fn put(tx: &mut Tx<'_, RegionState>, env: &Env, mut port: Port) -> Result<Arc<Port>, RegionError> {
    let id = port.id;
    env.touch(&mut port.standard);
    tx.put(Resource::Port(Arc::new(port)));
    written(tx, id)
}

/// Prepares a port's move to a host.
///
/// # Errors
/// Not found, not movable, there is one already, too many, the host cannot plug it.
pub fn create(
    tx: &mut Tx<'_, RegionState>,
    env: &Env,
    caller: &Caller,
    id: Id<Port>,
    create: BindingCreate,
) -> Result<Arc<Port>, RegionError> {
    let mut port = Port::clone(movable(tx.state(), caller, id)?);
    if to_host(&port, &create.host).is_ok() {
        return Err(PortError::BindingAlreadyExists {
            port: id,
            host: create.host,
        }
        .into());
    }
    if port.standby.len() >= Port::MAX_STANDBY {
        return Err(RegionError::InvalidInput(format!(
            "a port has at most {} inactive bindings",
            Port::MAX_STANDBY
        )));
    }
    let binding = bind(
        tx.state(),
        tx.revision(),
        create.host,
        create.vnic_type,
        create.profile,
    );
    failed(id, &binding)?;
    port.standby.push(binding);
    put(tx, env, port)
}

/// Changes a binding.
///
/// # Errors
/// Not found, not movable, the host cannot plug it so.
pub fn update(
    tx: &mut Tx<'_, RegionState>,
    env: &Env,
    caller: &Caller,
    id: Id<Port>,
    host: &str,
    update: BindingUpdate,
) -> Result<Arc<Port>, RegionError> {
    let mut port = Port::clone(movable(tx.state(), caller, id)?);
    let (_, active) = to_host(&port, host)?;
    let binding = match port.standby.iter_mut().find(|binding| binding.host_id == host) {
        Some(binding) if !active => binding,
        _ => &mut port.binding,
    };
    let anew = rebind(
        tx.state(),
        tx.revision(),
        binding,
        None,
        update.vnic_type,
        update.profile,
    );
    failed(id, binding)?;
    if active && anew {
        tx.delete(ResourceKey::PortRuntime(id));
    }
    put(tx, env, port)
}

/// Forgets a binding; without its active one, the port is unbound.
///
/// # Errors
/// Not found, not movable.
pub fn delete(
    tx: &mut Tx<'_, RegionState>,
    env: &Env,
    caller: &Caller,
    id: Id<Port>,
    host: &str,
) -> Result<(), RegionError> {
    let mut port = Port::clone(movable(tx.state(), caller, id)?);
    let (_, active) = to_host(&port, host)?;
    if active {
        port.binding = bind(tx.state(), tx.revision(), String::new(), None, None);
        tx.delete(ResourceKey::PortRuntime(id));
    } else {
        port.standby.retain(|binding| binding.host_id != host);
    }
    put(tx, env, port).map(drop)
}

/// Moves a port to the host of one of its inactive bindings; the one that was active is inactive then.
///
/// # Errors
/// Not found, not movable, active already.
pub fn activate(
    tx: &mut Tx<'_, RegionState>,
    env: &Env,
    caller: &Caller,
    id: Id<Port>,
    host: &str,
) -> Result<Arc<Port>, RegionError> {
    let mut port = Port::clone(movable(tx.state(), caller, id)?);
    if port.binding.host_id == host {
        return Err(PortError::BindingAlreadyActive {
            port: id,
            host: host.to_owned(),
        }
        .into());
    }
    to_host(&port, host)?;
    let mut next = bind(tx.state(), tx.revision(), String::new(), None, None);
    if let Some(place) = port.standby.iter().position(|binding| binding.host_id == host) {
        next = port.standby.remove(place);
    }
    // It may have left this host before; now it is back.
    next.state = state_on(tx.state(), &next.host_id, &next.vnic_type);
    next.since = tx.revision();
    failed(id, &next)?;
    let mut last = std::mem::replace(&mut port.binding, next);
    last.state = BindingState::Left;
    if !last.host_id.is_empty() {
        port.standby.push(last);
    }
    tx.delete(ResourceKey::PortRuntime(id));
    put(tx, env, port)
}
