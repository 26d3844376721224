//! Address scopes: sets of subnet pools in which no address is twice.

use std::{collections::BTreeSet, sync::Arc};

use alcor_model::{
    Id, Resource, ResourceKey,
    resource::{AddressScope, SharedType},
};
use alcor_store::Tx;
use thiserror::Error;

use crate::{
    Env, ErrorClass, Refusal, RegionError, RegionState,
    command::{Caller, StandardCreate, StandardUpdate},
    env::check_if_match,
    managed::Managed,
    rbac::{self, Shareable},
};

/// `POST /v2.0/address-scopes`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressScopeCreate {
    /// Standard attributes.
    pub standard: StandardCreate,
    /// 4 or 6.
    pub ip_version: u8,
    /// Whether everybody sees it.
    pub shared: bool,
}

/// `PUT /v2.0/address-scopes/{id}`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddressScopeUpdate {
    /// Standard attributes.
    pub standard: StandardUpdate,
    /// Whether everybody sees it; once it is so, it stays so.
    pub shared: Option<bool>,
}

/// What the rules of address scopes refuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum AddressScopeError {
    /// None, or none that the caller sees.
    #[error("Address scope {0} could not be found.")]
    NotFound(Id<AddressScope>),
    /// Pools are left.
    #[error(
        "Unable to complete operation on address scope {0}. There are one or more subnet pools in use on the address scope."
    )]
    InUse(Id<AddressScope>),
    /// What is shared stays shared.
    #[error("Unable to update address scope {0} : Shared address scope can't be unshared.")]
    Unshared(Id<AddressScope>),
}

impl Refusal for AddressScopeError {
    fn neutron_type(&self) -> &'static str {
        match self {
            Self::NotFound(_) => "AddressScopeNotFound",
            Self::InUse(_) => "AddressScopeInUse",
            Self::Unshared(_) => "AddressScopeUpdateError",
        }
    }

    fn class(&self) -> ErrorClass {
        match self {
            Self::NotFound(_) => ErrorClass::NotFound,
            Self::InUse(_) => ErrorClass::Conflict,
            Self::Unshared(_) => ErrorClass::BadRequest,
        }
    }
}

impl Shareable for AddressScope {
    const TYPE: SharedType = SharedType::AddressScope;

    fn users(state: &RegionState, id: Id<Self>) -> BTreeSet<String> {
        state
            .pools_of(id)
            .map(|pool| pool.standard.project_id.clone())
            .collect()
    }

    fn not_found(id: Id<Self>) -> RegionError {
        AddressScopeError::NotFound(id).into()
    }
}

impl Managed for AddressScope {
    type Create = AddressScopeCreate;
    type Update = AddressScopeUpdate;
    const QUOTA: Option<&'static str> = Some("address_scope");

    fn create(
        tx: &mut Tx<'_, RegionState>,
        env: &Env,
        caller: &Caller,
        create: Self::Create,
    ) -> Result<Arc<Self>, RegionError> {
        let scope = Self {
            id: env.new_id(),
            revision: tx.revision(),
            standard: env.standard(caller, create.standard)?,
            ip_version: create.ip_version,
        };
        let (id, owner) = (scope.id, scope.standard.project_id.clone());
        tx.put(Resource::AddressScope(Arc::new(scope)));
        rbac::set_shared(tx, env, id, &owner, create.shared);
        written(tx, id)
    }

    fn update(
        tx: &mut Tx<'_, RegionState>,
        env: &Env,
        caller: &Caller,
        id: &Id<Self>,
        update: Self::Update,
        if_match: Option<u64>,
    ) -> Result<Arc<Self>, RegionError> {
        let mut scope = Self::clone(seen(tx.state(), caller, *id)?);
        env.update_standard(&mut scope.standard, update.standard, if_match)?;
        if update.shared == Some(false) && rbac::is_shared(tx.state(), *id) {
            return Err(AddressScopeError::Unshared(*id).into());
        }
        let owner = scope.standard.project_id.clone();
        tx.put(Resource::AddressScope(Arc::new(scope)));
        if let Some(shared) = update.shared {
            rbac::set_shared(tx, env, *id, &owner, shared);
        }
        written(tx, *id)
    }

    fn delete(
        tx: &mut Tx<'_, RegionState>,
        _: &Env,
        caller: &Caller,
        id: &Id<Self>,
        if_match: Option<u64>,
    ) -> Result<(), RegionError> {
        let scope = seen(tx.state(), caller, *id)?;
        check_if_match(&scope.standard, if_match)?;
        if tx.state().pools_of(*id).next().is_some() {
            return Err(AddressScopeError::InUse(*id).into());
        }
        rbac::forget(tx, *id);
        tx.delete(ResourceKey::AddressScope(*id));
        Ok(())
    }

    fn visible(&self, caller: &Caller, state: &RegionState) -> bool {
        state.sees_scope(caller, self)
    }
}

/// The scope, if the caller sees it.
pub(crate) fn seen<'a>(
    state: &'a RegionState,
    caller: &Caller,
    id: Id<AddressScope>,
) -> Result<&'a Arc<AddressScope>, AddressScopeError> {
    state
        .address_scopes()
        .get(&id)
        .filter(|scope| state.sees_scope(caller, scope))
        .ok_or(AddressScopeError::NotFound(id))
}

fn written(tx: &Tx<'_, RegionState>, id: Id<AddressScope>) -> Result<Arc<AddressScope>, RegionError> {
    let scope = tx.state().address_scopes().get(&id).cloned();
    Ok(scope.ok_or(AddressScopeError::NotFound(id))?)
}
