//! "Get me a network": a network with subnets of the default pools and a router to the default external network, made all
//! at once or not at all for a project that has none of it.

use std::sync::Arc;

use alcor_model::{AutoAllocatedTopology, Id, Network, Resource, ResourceKey, Router, Subnet, SubnetPool};
use alcor_store::Tx;
use thiserror::Error;

use crate::{
    Env, ErrorClass, Refusal, RegionError, RegionState,
    command::{Caller, NetworkCreate, StandardCreate, SubnetCreate},
    managed::Managed,
    quota,
    router::{self, GatewayRequest, InterfaceRequest, RouterCreate},
};

/// Most projects that have such a network: a row each.
pub const MAX_PROJECTS: usize = 100_000;

/// Why there can be no such network.
#[derive(Debug, Error)]
pub enum AutoTopologyError {
    /// What an operator has to do first.
    #[error("Deployment error: {0}.")]
    Missing(&'static str),
    /// What does not work; why, is for operators.
    #[error("Deployment error: {what}.")]
    Failed {
        /// In Neutron's words.
        what: &'static str,
        /// The refusal of a part.
        #[source]
        cause: RegionError,
    },
}

impl Refusal for AutoTopologyError {
    fn neutron_type(&self) -> &'static str {
        "AutoAllocationFailure"
    }

    fn class(&self) -> ErrorClass {
        ErrorClass::Conflict
    }
}

/// What such a network is made of.
struct Parts {
    external: Id<Network>,
    pools: Vec<Arc<SubnetPool>>,
}

fn external(state: &RegionState, caller: &Caller) -> Result<Id<Network>, AutoTopologyError> {
    let default = state
        .networks()
        .iter()
        .find(|network| network.is_default && network.external && state.sees_network(caller, network));
    default
        .map(|network| network.id)
        .ok_or(AutoTopologyError::Missing("No default router:external network"))
}

fn parts(state: &RegionState, caller: &Caller) -> Result<Parts, AutoTopologyError> {
    let external = external(state, caller)?;
    let pools: Vec<Arc<SubnetPool>> = [4, 6]
        .into_iter()
        .filter_map(|version| state.subnet_pools().get(&state.default_pool(version)?))
        .filter(|pool| state.sees_pool(caller, pool))
        .cloned()
        .collect();
    if pools.is_empty() {
        return Err(AutoTopologyError::Missing("No default subnetpools defined"));
    }
    Ok(Parts { external, pools })
}

/// Whether a project could be given a network.
///
/// # Errors
/// What an operator has to do first.
pub fn check(state: &RegionState, caller: &Caller) -> Result<(), AutoTopologyError> {
    parts(state, caller).map(drop)
}

/// The network that a project was given, as long as it is there.
pub fn network_of(state: &RegionState, project: &str) -> Option<Id<Network>> {
    let known = state.auto_allocated_topologies().get(&project.to_owned())?;
    state.networks().get(&known.network_id).map(|network| network.id)
}

/// A project's network, which is made when it has none.
///
/// # Errors
/// What an operator has to do first, or [`RegionError::OverQuota`]; nothing is left then.
pub fn get(
    tx: &mut Tx<'_, RegionState>,
    env: &Env,
    caller: &Caller,
    project: &str,
) -> Result<Id<Network>, RegionError> {
    if let Some(network) = network_of(tx.state(), project) {
        return Ok(network);
    }
    let known = tx.state().auto_allocated_topologies();
    if known.len() >= MAX_PROJECTS && !known.contains(&project.to_owned()) {
        return Err(RegionError::OverQuota("auto_allocated_topology"));
    }
    let caller = Caller {
        project_id: project.to_owned(),
        is_admin: caller.is_admin,
    };
    let parts = parts(tx.state(), &caller)?;
    let (network_id, subnets) = make_network(tx, env, &caller, &parts.pools)
        .map_err(|error| in_words(error, "Unable to provide project private network"))?;
    let router_id = make_router(tx, env, &caller, parts.external, &subnets)
        .map_err(|error| in_words(error, "Unable to provide external connectivity"))?;
    tx.put(Resource::AutoAllocatedTopology(Arc::new(AutoAllocatedTopology {
        project_id: project.to_owned(),
        revision: tx.revision(),
        network_id,
        router_id,
    })));
    Ok(network_id)
}

/// What a project cannot mend is told as the operator's matter; its own quotas are its own.
fn in_words(error: RegionError, what: &'static str) -> RegionError {
    match error {
        RegionError::OverQuota(_) | RegionError::StoreUnavailable { .. } => error,
        cause => AutoTopologyError::Failed { what, cause }.into(),
    }
}

fn named(name: impl Into<String>) -> StandardCreate {
    StandardCreate {
        name: name.into(),
        ..StandardCreate::default()
    }
}

fn make_network(
    tx: &mut Tx<'_, RegionState>,
    env: &Env,
    caller: &Caller,
    pools: &[Arc<SubnetPool>],
) -> Result<(Id<Network>, Vec<Id<Subnet>>), RegionError> {
    let project = &caller.project_id;
    let create = NetworkCreate {
        standard: named("auto_allocated_network"),
        ..NetworkCreate::default()
    };
    let network = Network::create(tx, env, caller, create)?.id;
    quota::check::<Network>(tx, env, project)?;
    let mut subnets = Vec::with_capacity(pools.len());
    for pool in pools {
        let version = pool.ip_version();
        let create = SubnetCreate {
            standard: named(format!("auto_allocated_subnet_v{version}")),
            subnetpool_id: Some(pool.id),
            ..SubnetCreate::new(network, version)
        };
        subnets.push(Subnet::create(tx, env, caller, create)?.id);
        quota::check::<Subnet>(tx, env, project)?;
    }
    Ok((network, subnets))
}

fn make_router(
    tx: &mut Tx<'_, RegionState>,
    env: &Env,
    caller: &Caller,
    external: Id<Network>,
    subnets: &[Id<Subnet>],
) -> Result<Id<Router>, RegionError> {
    let create = RouterCreate {
        standard: named("auto_allocated_router"),
        gateway: Some(GatewayRequest {
            network_id: external,
            enable_snat: None,
            external_fixed_ips: Vec::new(),
        }),
        ..RouterCreate::default()
    };
    let router = Router::create(tx, env, caller, create)?.id;
    quota::check::<Router>(tx, env, &caller.project_id)?;
    for subnet in subnets {
        router::add_interface(tx, env, caller, router, interface(*subnet))?;
    }
    Ok(router)
}

fn interface(subnet: Id<Subnet>) -> InterfaceRequest {
    InterfaceRequest {
        subnet_id: Some(subnet),
        ..InterfaceRequest::default()
    }
}

/// Takes a project's network away again, with its router; what of it is gone already is no matter.
///
/// # Errors
/// Ports of somebody are in the network, or the router is in use; nothing is taken away then.
pub fn delete(
    tx: &mut Tx<'_, RegionState>,
    env: &Env,
    caller: &Caller,
    project: &str,
) -> Result<(), RegionError> {
    let key = project.to_owned();
    let Some(known) = tx.state().auto_allocated_topologies().get(&key).cloned() else {
        return Ok(());
    };
    let caller = Caller {
        project_id: key.clone(),
        is_admin: caller.is_admin,
    };
    if let Some(router) = tx.state().routers().get(&known.router_id).cloned() {
        let subnets: Vec<Id<Subnet>> = tx
            .state()
            .subnets_of(known.network_id)
            .map(|subnet| subnet.id)
            .collect();
        for subnet in subnets {
            match router::remove_interface(tx, env, &caller, router.id, interface(subnet)) {
                Err(error) if error.class() != ErrorClass::NotFound => return Err(error),
                _ => {}
            }
        }
        Router::delete(tx, env, &caller, &router.id, None)?;
    }
    if tx.state().networks().contains(&known.network_id) {
        Network::delete(tx, env, &caller, &known.network_id, None)?;
    }
    tx.delete(ResourceKey::AutoAllocatedTopology(key));
    Ok(())
}
