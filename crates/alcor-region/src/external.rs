//! External networks: which network may become one, and which must stay one. Routers and floating IPs are elsewhere.

use alcor_model::{Id, Network, resource};
use thiserror::Error;

use crate::{ErrorClass, Refusal, RegionError, RegionState};

/// Why an external network cannot be changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ExternalNetworkError {
    /// Routers have their way out through it.
    #[error(
        "External network {0} cannot be updated to be made non-external, since it has existing gateway ports."
    )]
    InUse(Id<Network>),
    /// There can be one default.
    #[error("A default external network already exists: {0}.")]
    DefaultExists(Id<Network>),
}

impl Refusal for ExternalNetworkError {
    fn neutron_type(&self) -> &'static str {
        match self {
            Self::InUse(_) => "ExternalNetworkInUse",
            Self::DefaultExists(_) => "DefaultExternalNetworkExists",
        }
    }

    fn class(&self) -> ErrorClass {
        ErrorClass::Conflict
    }
}

/// Refuses a second default.
pub(crate) fn check_default(state: &RegionState, network: &Network) -> Result<(), RegionError> {
    if !network.is_default {
        return Ok(());
    }
    if !network.external {
        return Err(RegionError::InvalidInput(format!(
            "network {} is not external and cannot be the default external network",
            network.id
        )));
    }
    match state
        .networks()
        .iter()
        .find(|other| other.is_default && other.id != network.id)
    {
        Some(other) => Err(ExternalNetworkError::DefaultExists(other.id).into()),
        None => Ok(()),
    }
}

/// Makes a network external, or no longer external; `None` leaves it.
pub(crate) fn change(
    state: &RegionState,
    network: &mut Network,
    external: Option<bool>,
    is_default: Option<bool>,
) -> Result<(), RegionError> {
    let is_l3 = |owner: &str| [resource::ROUTER_GATEWAY, resource::FLOATING_IP].contains(&owner);
    if network.external
        && external == Some(false)
        && state.ports_of(network.id).any(|port| is_l3(&port.device_owner))
    {
        return Err(ExternalNetworkError::InUse(network.id).into());
    }
    network.external = external.unwrap_or(network.external);
    network.is_default = is_default.unwrap_or(network.is_default) && network.external;
    check_default(state, network)
}
