//! Segments: each network has one, from its first moment to its last. Operators name and describe it; nobody makes a
//! second one or deletes the only one, because a network is the same VXLAN segment on every host.

use std::sync::Arc;

use alcor_model::{Id, Network, Resource, ResourceKey, Segment};
use alcor_store::Tx;
use thiserror::Error;

use crate::{
    Env, ErrorClass, Refusal, RegionError, RegionState,
    command::{Caller, StandardCreate, StandardUpdate},
    managed::Managed,
    network,
};

/// `POST /v2.0/segments`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentCreate {
    /// Standard attributes.
    pub standard: StandardCreate,
    /// The network that shall have it.
    pub network_id: Id<Network>,
}

/// `PUT /v2.0/segments/{id}`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SegmentUpdate {
    /// Standard attributes.
    pub standard: StandardUpdate,
}

/// What the rules of segments refuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SegmentError {
    /// None, or none that the caller sees.
    #[error("Segment {0} could not be found.")]
    NotFound(Id<Segment>),
    /// A second one.
    #[error("Network {0} has a segment: a network is one VXLAN segment, the same on every host.")]
    Second(Id<Network>),
    /// It goes with its network.
    #[error(
        "Segment '{segment}' cannot be deleted: it is the only one of network {network} and goes with it."
    )]
    Only {
        /// The segment.
        segment: Id<Segment>,
        /// Its network.
        network: Id<Network>,
    },
}

impl Refusal for SegmentError {
    fn neutron_type(&self) -> &'static str {
        match self {
            Self::NotFound(_) => "SegmentNotFound",
            Self::Second(_) => "InvalidInput",
            Self::Only { .. } => "SegmentInUse",
        }
    }

    fn class(&self) -> ErrorClass {
        match self {
            Self::NotFound(_) => ErrorClass::NotFound,
            Self::Second(_) => ErrorClass::BadRequest,
            Self::Only { .. } => ErrorClass::Conflict,
        }
    }
}

/// Makes the segment of a new network.
pub(crate) fn make_for(
    tx: &mut Tx<'_, RegionState>,
    env: &Env,
    network: Id<Network>,
) -> Result<(), RegionError> {
    let platform = Caller {
        project_id: String::new(),
        is_admin: true,
    };
    let segment = Segment {
        id: env.new_id(),
        revision: tx.revision(),
        standard: env.standard(&platform, StandardCreate::default())?,
        network_id: network,
    };
    tx.put(Resource::Segment(Arc::new(segment)));
    Ok(())
}

/// Deletes the segment of a network that goes.
pub(crate) fn forget(tx: &mut Tx<'_, RegionState>, network: Id<Network>) {
    if let Some(segment) = tx.state().segment_of(network) {
        tx.delete(ResourceKey::Segment(segment));
    }
}

fn seen<'a>(
    state: &'a RegionState,
    caller: &Caller,
    id: Id<Segment>,
) -> Result<&'a Arc<Segment>, SegmentError> {
    state
        .segments()
        .get(&id)
        .filter(|segment| segment.visible(caller, state))
        .ok_or(SegmentError::NotFound(id))
}

impl Managed for Segment {
    type Create = SegmentCreate;
    type Update = SegmentUpdate;
    const QUOTA: Option<&'static str> = None;

    fn create(
        tx: &mut Tx<'_, RegionState>,
        _: &Env,
        caller: &Caller,
        create: Self::Create,
    ) -> Result<Arc<Self>, RegionError> {
        let network = network::visible(tx.state(), caller, create.network_id)?;
        Err(SegmentError::Second(network.id).into())
    }

    fn update(
        tx: &mut Tx<'_, RegionState>,
        env: &Env,
        caller: &Caller,
        id: &Id<Self>,
        update: Self::Update,
        if_match: Option<u64>,
    ) -> Result<Arc<Self>, RegionError> {
        let mut segment = Self::clone(seen(tx.state(), caller, *id)?);
        env.update_standard(&mut segment.standard, update.standard, if_match)?;
        segment.revision = tx.revision();
        let segment = Arc::new(segment);
        tx.put(Resource::Segment(Arc::clone(&segment)));
        Ok(segment)
    }

    fn delete(
        tx: &mut Tx<'_, RegionState>,
        _: &Env,
        caller: &Caller,
        id: &Id<Self>,
        _: Option<u64>,
    ) -> Result<(), RegionError> {
        let segment = seen(tx.state(), caller, *id)?;
        Err(SegmentError::Only {
            segment: segment.id,
            network: segment.network_id,
        }
        .into())
    }

    /// Segments are operators' business.
    fn visible(&self, caller: &Caller, _: &RegionState) -> bool {
        caller.is_admin
    }
}
