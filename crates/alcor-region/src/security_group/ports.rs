//! A port's security groups: which it gets, and which it may have.

use alcor_model::{Id, Port, SecurityGroup};
use alcor_store::Tx;

use super::{SecurityGroupError, ensure_default};
use crate::{Env, RegionError, RegionState, command::Caller};

/// What decides the groups of a new port.
pub(crate) struct NewPort<'a> {
    pub(crate) project_id: &'a str,
    pub(crate) device_owner: &'a str,
    pub(crate) port_security_enabled: bool,
}

/// The groups of a new port: what the client names, else its project's default group. Ports of the platform and ports
/// without port security have none.
pub(crate) fn on_create(
    tx: &mut Tx<'_, RegionState>,
    env: &Env,
    caller: &Caller,
    port: &NewPort<'_>,
    asked: Option<Vec<Id<SecurityGroup>>>,
) -> Result<Vec<Id<SecurityGroup>>, RegionError> {
    let applies = port.port_security_enabled && !port.device_owner.starts_with(Port::PLATFORM_OWNER);
    match asked {
        Some(asked) if applies || asked.is_empty() => Ok(checked(tx.state(), caller, asked)?),
        Some(_) => Err(SecurityGroupError::PortSecurityRequired.into()),
        // A port that belongs to no project has no default group to be under.
        None if applies && !port.project_id.is_empty() => Ok(vec![ensure_default(tx, env, port.project_id)?]),
        None => Ok(Vec::new()),
    }
}

/// The groups of a changed port; `port` has everything of the change but them.
pub(crate) fn on_update(
    state: &RegionState,
    caller: &Caller,
    port: &Port,
    asked: Option<Vec<Id<SecurityGroup>>>,
) -> Result<Vec<Id<SecurityGroup>>, SecurityGroupError> {
    let applies = port.port_security_enabled;
    match asked {
        Some(asked) if applies || asked.is_empty() => checked(state, caller, asked),
        Some(_) => Err(SecurityGroupError::PortSecurityRequired),
        None if !applies && !port.security_groups.is_empty() => Err(SecurityGroupError::PortHasSecurityGroup),
        None => Ok(port.security_groups.clone()),
    }
}

fn checked(
    state: &RegionState,
    caller: &Caller,
    mut asked: Vec<Id<SecurityGroup>>,
) -> Result<Vec<Id<SecurityGroup>>, SecurityGroupError> {
    asked.sort_unstable();
    asked.dedup();
    if asked.len() > Port::MAX_SECURITY_GROUPS {
        return Err(SecurityGroupError::TooManyOnPort(Port::MAX_SECURITY_GROUPS));
    }
    let mut missing = Vec::new();
    let (mut stateful, mut stateless) = (false, false);
    for id in &asked {
        match state.visible_security_group(caller, *id) {
            Some(group) if group.stateful => stateful = true,
            Some(_) => stateless = true,
            None => missing.push(id.to_string()),
        }
    }
    if !missing.is_empty() {
        return Err(SecurityGroupError::NotFound(missing.join(", ")));
    }
    if stateful && stateless {
        return Err(SecurityGroupError::Conflict(
            "Cannot apply both stateful and stateless security groups on the same port at the same time",
        ));
    }
    Ok(asked)
}
