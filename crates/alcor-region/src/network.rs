//! Networks: VXLAN network identifiers, MTU, and what a deletion takes along.

use std::sync::Arc;

use alcor_model::{Id, Network, Resource, ResourceKey, Vni};
use alcor_store::Tx;
use thiserror::Error;

use crate::{
    Env, ErrorClass, Refusal, RegionError, RegionState,
    command::{Caller, NetworkCreate, NetworkUpdate},
    env::check_if_match,
    external, floating_ip, host, label,
    managed::Managed,
    rbac, segment, segment_range,
};

/// Smallest MTU of a network: what IPv4 demands of every link (RFC 791).
pub const MTU_MIN: u16 = 68;
/// Smallest MTU of a network with an IPv6 subnet (RFC 8200, section 5).
pub const MTU_MIN_IPV6: u16 = 1280;

/// What the rules of networks refuse beyond [`RegionError`]'s own words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NetworkError {
    /// Subnets want a larger MTU than the network has or is to have.
    #[error("MTU of {network} is not valid, subnet requires a minimum of {least}")]
    MtuTooSmall {
        /// The network.
        network: Id<Network>,
        /// What the family wants.
        least: u16,
    },
}

impl Refusal for NetworkError {
    fn neutron_type(&self) -> &'static str {
        match self {
            Self::MtuTooSmall { .. } => "NetworkMTUSubnetConflict",
        }
    }

    fn class(&self) -> ErrorClass {
        ErrorClass::Conflict
    }
}

/// Refuses subnets of a family in a network whose MTU is less than every link of that family has.
pub(crate) fn check_mtu_for(network: Id<Network>, mtu: u16, ipv6: bool) -> Result<(), NetworkError> {
    let least = if ipv6 && mtu >= MTU_MIN {
        MTU_MIN_IPV6
    } else {
        MTU_MIN
    };
    if mtu >= least {
        Ok(())
    } else {
        Err(NetworkError::MtuTooSmall { network, least })
    }
}

impl Managed for Network {
    type Create = NetworkCreate;
    type Update = NetworkUpdate;
    const QUOTA: Option<&'static str> = Some("network");

    /// Makes a network.
    ///
    /// # Errors
    /// A taken or exhausted identifier, an MTU that does not fit, attributes that only an admin may set.
    fn create(
        tx: &mut Tx<'_, RegionState>,
        env: &Env,
        caller: &Caller,
        create: Self::Create,
    ) -> Result<Arc<Self>, RegionError> {
        let mtu = match create.mtu {
            // Neutron's 0 stands for the default.
            None | Some(0) => env.config.network_mtu_max(),
            Some(mtu) => check_mtu(env, mtu)?,
        };
        host::check_zones(tx.state(), &create.availability_zone_hints)?;
        let id = env.new_id();
        let standard = env.standard(caller, create.standard)?;
        let network = Network {
            id,
            revision: tx.revision(),
            segmentation_id: vni_for(tx.state(), env, &standard.project_id, create.segmentation_id)?,
            standard,
            admin_state_up: create.admin_state_up.unwrap_or(true),
            mtu,
            port_security_enabled: create.port_security_enabled.unwrap_or(true),
            external: create.external.unwrap_or(false),
            is_default: create.is_default.unwrap_or(false),
            availability_zone_hints: create.availability_zone_hints,
        };
        external::check_default(tx.state(), &network)?;
        let (owner, external) = (network.standard.project_id.clone(), network.external);
        tx.put(Resource::Network(Arc::new(network)));
        segment::make_for(tx, env, id)?;
        rbac::set_shared(tx, env, id, &owner, create.shared.unwrap_or(false));
        rbac::set_external(tx, env, id, &owner, external);
        written(tx, id)
    }

    /// Changes a network.
    ///
    /// # Errors
    /// Not found, not the caller's, `If-Match`, an MTU that does not fit.
    fn update(
        tx: &mut Tx<'_, RegionState>,
        env: &Env,
        caller: &Caller,
        id: &Id<Self>,
        update: Self::Update,
        if_match: Option<u64>,
    ) -> Result<Arc<Self>, RegionError> {
        let id = *id;
        let mut network = Network::clone(visible(tx.state(), caller, id)?);
        let was_shared = rbac::is_shared(tx.state(), id);
        env.update_standard(&mut network.standard, update.standard, if_match)?;
        let owner = network.standard.project_id.clone();
        if was_shared && update.shared == Some(false) {
            check_nobody_loses(tx.state(), id, &owner)?;
        }
        if let Some(mtu) = update.mtu {
            let has_ipv6 = tx
                .state()
                .subnets_of(id)
                .any(|subnet| subnet.cidr.addr().is_ipv6());
            network.mtu = check_mtu(env, mtu)?;
            if tx.state().subnets_of(id).next().is_some() {
                check_mtu_for(id, mtu, has_ipv6)?;
            }
        }
        network.admin_state_up = update.admin_state_up.unwrap_or(network.admin_state_up);
        network.port_security_enabled = update
            .port_security_enabled
            .unwrap_or(network.port_security_enabled);
        external::change(tx.state(), &mut network, update.external, update.is_default)?;
        tx.put(Resource::Network(Arc::new(network)));
        if let Some(external) = update.external {
            rbac::set_external(tx, env, id, &owner, external);
        }
        if let Some(shared) = update.shared {
            rbac::set_shared(tx, env, id, &owner, shared);
        }
        written(tx, id)
    }

    /// Deletes a network, its subnets and floating IPs of it that lead nowhere.
    ///
    /// # Errors
    /// Not found, not the caller's, `If-Match`, ports left.
    fn delete(
        tx: &mut Tx<'_, RegionState>,
        env: &Env,
        caller: &Caller,
        id: &Id<Self>,
        if_match: Option<u64>,
    ) -> Result<(), RegionError> {
        let id = *id;
        let network = visible(tx.state(), caller, id)?;
        check_if_match(&network.standard, if_match)?;
        floating_ip::remove_unused(tx, env, id)?;
        if tx.state().has_ports(id) {
            return Err(RegionError::NetworkInUse(id));
        }
        let subnets: Vec<_> = tx.state().subnets_of(id).map(|subnet| subnet.id).collect();
        for subnet in subnets {
            tx.delete(ResourceKey::Subnet(subnet));
        }
        rbac::forget(tx, id);
        label::forget_network(tx, id);
        segment::forget(tx, id);
        tx.delete(ResourceKey::Network(id));
        Ok(())
    }

    fn visible(&self, caller: &Caller, state: &RegionState) -> bool {
        state.sees_network(caller, self)
    }
}

/// Refuses to take a network from everybody while a project that was not given it by name has ports or subnets there.
fn check_nobody_loses(state: &RegionState, id: Id<Network>, owner: &str) -> Result<(), RegionError> {
    let ports = state
        .ports_of(id)
        .filter(|port| !port.device_owner.starts_with("network:"))
        .map(|port| port.standard.project_id.clone());
    let subnets = state
        .subnets_of(id)
        .map(|subnet| subnet.standard.project_id.clone());
    let users = ports.chain(subnets).collect();
    match rbac::would_lose(state, id, owner, &users) {
        Some(_) => Err(RegionError::InvalidSharedSetting(id)),
        None => Ok(()),
    }
}

/// Notes in a network that one of its subnets changed: clients see by the network's revision number that something did.
pub(crate) fn revise(tx: &mut Tx<'_, RegionState>, env: &Env, id: Id<Network>) {
    if let Some(network) = tx.state().networks().get(&id) {
        let mut network = Network::clone(network);
        env.touch(&mut network.standard);
        tx.put(Resource::Network(Arc::new(network)));
    }
}

/// A network that the caller sees.
pub(crate) fn visible<'a>(
    state: &'a RegionState,
    caller: &Caller,
    id: Id<Network>,
) -> Result<&'a Arc<Network>, RegionError> {
    state
        .visible_network(caller, id)
        .ok_or(RegionError::NetworkNotFound(id))
}

/// A network that the caller owns: one that it merely sees is refused, one that it does not see is not
/// there.
pub(crate) fn owned<'a>(
    state: &'a RegionState,
    caller: &Caller,
    id: Id<Network>,
    action: &str,
) -> Result<&'a Arc<Network>, RegionError> {
    let network = visible(state, caller, id)?;
    if caller.is_admin || network.standard.project_id == caller.project_id {
        Ok(network)
    } else {
        Err(RegionError::Forbidden {
            action: action.to_owned(),
        })
    }
}

fn written(tx: &Tx<'_, RegionState>, id: Id<Network>) -> Result<Arc<Network>, RegionError> {
    tx.state()
        .networks()
        .get(&id)
        .cloned()
        .ok_or(RegionError::NetworkNotFound(id))
}

fn check_mtu(env: &Env, mtu: u16) -> Result<u16, RegionError> {
    let most = env.config.network_mtu_max();
    if mtu <= most {
        Ok(mtu)
    } else {
        Err(RegionError::InvalidInput(format!(
            "Requested MTU {mtu} is larger than {most}, which is what the underlay's MTU of {} leaves",
            env.config.underlay_mtu
        )))
    }
}

fn vni_for(state: &RegionState, env: &Env, project: &str, asked: Option<Vni>) -> Result<Vni, RegionError> {
    match asked {
        Some(vni) if state.network_with_vni(vni).is_some() => Err(RegionError::TunnelIdInUse(vni.get())),
        Some(vni) => Ok(vni),
        None => segment_range::allocate(state, &env.config, project),
    }
}
