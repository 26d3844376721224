//! Routers: what one is and when it may go. Its way out is in [`gateway`], its places in networks in [`interface`], its
//! static routes in [`routes`], what its ports may not do in [`ports`].

mod error;
mod gateway;
mod interface;
pub(crate) mod ports;
mod routes;

use std::sync::Arc;

use alcor_model::{Id, Network, Resource, ResourceKey, Router, resource::HostRoute};
use alcor_store::Tx;
pub use error::RouterError;
pub use interface::{InterfaceInfo, InterfaceRequest, add_interface, remove_interface};
pub use routes::{add_routes, remove_routes};

use crate::{
    Env, RegionError, RegionState,
    command::{Caller, FixedIpRequest, StandardCreate, StandardUpdate},
    env::check_if_match,
    host,
    managed::Managed,
};

/// A way out as the client asks for it (`external_gateway_info`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayRequest {
    /// The external network.
    pub network_id: Id<Network>,
    /// Default true.
    pub enable_snat: Option<bool>,
    /// Default: what a port of the network gets.
    pub external_fixed_ips: Vec<FixedIpRequest>,
}

/// `POST /v2.0/routers`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouterCreate {
    /// Standard attributes.
    pub standard: StandardCreate,
    /// Default true.
    pub admin_state_up: Option<bool>,
    /// Default false.
    pub distributed: Option<bool>,
    /// Default false.
    pub ha: Option<bool>,
    /// Default none.
    pub gateway: Option<GatewayRequest>,
    /// Zones that there are. Default none.
    pub availability_zone_hints: Vec<String>,
}

/// `PUT /v2.0/routers/{id}`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouterUpdate {
    /// Standard attributes.
    pub standard: StandardUpdate,
    /// New state.
    pub admin_state_up: Option<bool>,
    /// New kind.
    pub distributed: Option<bool>,
    /// New kind.
    pub ha: Option<bool>,
    /// New way out, or none.
    pub gateway: Option<Option<GatewayRequest>>,
    /// New static routes, all of them.
    pub routes: Option<Vec<HostRoute>>,
}

impl Managed for Router {
    type Create = RouterCreate;
    type Update = RouterUpdate;
    const QUOTA: Option<&'static str> = Some("router");

    fn create(
        tx: &mut Tx<'_, RegionState>,
        env: &Env,
        caller: &Caller,
        create: Self::Create,
    ) -> Result<Arc<Self>, RegionError> {
        host::check_zones(tx.state(), &create.availability_zone_hints)?;
        let mut router = Self {
            id: env.new_id(),
            revision: tx.revision(),
            standard: env.standard(caller, create.standard)?,
            admin_state_up: create.admin_state_up.unwrap_or(true),
            distributed: create.distributed.unwrap_or(false),
            ha: create.ha.unwrap_or(false),
            gateway: None,
            interfaces: Vec::new(),
            routes: Vec::new(),
            availability_zone_hints: create.availability_zone_hints,
        };
        if let Some(request) = create.gateway {
            gateway::set(tx, env, caller, &mut router, Some(request))?;
        }
        Ok(put(tx, router))
    }

    fn update(
        tx: &mut Tx<'_, RegionState>,
        env: &Env,
        caller: &Caller,
        id: &Id<Self>,
        update: Self::Update,
        if_match: Option<u64>,
    ) -> Result<Arc<Self>, RegionError> {
        let mut router = Self::clone(visible(tx.state(), caller, *id)?);
        env.update_standard(&mut router.standard, update.standard, if_match)?;
        let up = update.admin_state_up.unwrap_or(router.admin_state_up);
        // A router that works stays what it is; Neutron counts one that goes down in the same request as down.
        for (name, have, wanted) in [
            ("distributed", router.distributed, update.distributed),
            ("ha", router.ha, update.ha),
        ] {
            if up && wanted.is_some_and(|wanted| wanted != have) {
                return Err(RouterError::BadRequest(format!(
                    "Cannot change the '{name}' attribute of active routers. Please set router admin_state_up to False prior to \
                     upgrade"
                ))
                .into());
            }
        }
        router.admin_state_up = up;
        router.distributed = update.distributed.unwrap_or(router.distributed);
        router.ha = update.ha.unwrap_or(router.ha);
        if let Some(wanted) = update.routes {
            routes::set(tx.state(), &mut router, wanted)?;
        }
        if let Some(request) = update.gateway {
            gateway::set(tx, env, caller, &mut router, request)?;
        }
        Ok(put(tx, router))
    }

    fn delete(
        tx: &mut Tx<'_, RegionState>,
        env: &Env,
        caller: &Caller,
        id: &Id<Self>,
        if_match: Option<u64>,
    ) -> Result<(), RegionError> {
        let mut router = Self::clone(visible(tx.state(), caller, *id)?);
        check_if_match(&router.standard, if_match)?;
        if !router.interfaces.is_empty() {
            let ports: Vec<String> = router
                .interfaces
                .iter()
                .map(|interface| interface.port_id.to_string())
                .collect();
            return Err(RouterError::InUse {
                router: *id,
                ports: ports.join(", "),
            }
            .into());
        }
        gateway::leave(tx, env, &mut router)?;
        tx.delete(ResourceKey::Router(*id));
        Ok(())
    }

    fn visible(&self, caller: &Caller, _: &RegionState) -> bool {
        sees(caller, self)
    }
}

fn sees(caller: &Caller, router: &Router) -> bool {
    caller.is_admin || router.standard.project_id == caller.project_id
}

/// The router, if the caller may see it.
pub(crate) fn visible<'a>(
    state: &'a RegionState,
    caller: &Caller,
    id: Id<Router>,
) -> Result<&'a Arc<Router>, RegionError> {
    state
        .routers()
        .get(&id)
        .filter(|router| sees(caller, router))
        .ok_or_else(|| RegionError::NotFound {
            exception: "RouterNotFound",
            resource: "Router",
            id: id.to_string(),
        })
}

fn put(tx: &mut Tx<'_, RegionState>, router: Router) -> Arc<Router> {
    let router = Arc::new(router);
    tx.put(Resource::Router(Arc::clone(&router)));
    router
}
