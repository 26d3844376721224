//! Address groups: their prefixes, and who holds them.

use std::{collections::BTreeSet, sync::Arc};

use alcor_model::{AddressGroup, Id, Resource, ResourceKey, resource::SharedType};
use alcor_store::Tx;
use ipnet::IpNet;
use thiserror::Error;

use crate::{
    Env, ErrorClass, Refusal, RegionError, RegionState,
    command::{Caller, StandardCreate, StandardUpdate},
    env::check_if_match,
    managed::Managed,
    rbac::{self, Shareable},
};

/// Why the region refuses what concerns address groups.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum AddressGroupError {
    /// No such group, or the caller may not see it.
    #[error("Address group {0} could not be found.")]
    NotFound(Id<AddressGroup>),
    /// Rules are about it.
    #[error("Address group {0} is in use on one or more security group rules.")]
    InUse(Id<AddressGroup>),
    /// To be removed, but not there.
    #[error("Addresses {addresses} not found in the address group {group}.")]
    AddressesNotFound {
        /// The prefixes, as a list in words.
        addresses: String,
        /// The group.
        group: Id<AddressGroup>,
    },
    /// To be added, but there.
    #[error("Addresses {addresses} already exist in the address group {group}.")]
    AddressesAlreadyExist {
        /// The prefixes, as a list in words.
        addresses: String,
        /// The group.
        group: Id<AddressGroup>,
    },
    /// More prefixes than the limit.
    #[error("Invalid input for operation: an address group has at most {0} addresses.")]
    TooMany(usize),
}

impl Refusal for AddressGroupError {
    fn neutron_type(&self) -> &'static str {
        match self {
            Self::NotFound(_) => "AddressGroupNotFound",
            Self::InUse(_) => "AddressGroupInUse",
            Self::AddressesNotFound { .. } => "AddressesNotFound",
            Self::AddressesAlreadyExist { .. } => "AddressesAlreadyExist",
            Self::TooMany(_) => "InvalidInput",
        }
    }

    fn class(&self) -> ErrorClass {
        match self {
            Self::NotFound(_) | Self::AddressesNotFound { .. } => ErrorClass::NotFound,
            Self::InUse(_) => ErrorClass::Conflict,
            Self::AddressesAlreadyExist { .. } | Self::TooMany(_) => ErrorClass::BadRequest,
        }
    }
}

/// `POST /v2.0/address-groups`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddressGroupCreate {
    /// Standard attributes.
    pub standard: StandardCreate,
    /// Prefixes; host bits are cleared.
    pub addresses: Vec<IpNet>,
}

/// `PUT /v2.0/address-groups/{id}`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddressGroupUpdate {
    /// Standard attributes.
    pub standard: StandardUpdate,
}

impl Managed for AddressGroup {
    type Create = AddressGroupCreate;
    type Update = AddressGroupUpdate;
    const QUOTA: Option<&'static str> = Some("address_group");

    fn create(
        tx: &mut Tx<'_, RegionState>,
        env: &Env,
        caller: &Caller,
        create: Self::Create,
    ) -> Result<Arc<Self>, RegionError> {
        let group = Self {
            id: env.new_id(),
            revision: tx.revision(),
            standard: env.standard(caller, create.standard)?,
            addresses: bounded(normalised(&create.addresses))?,
        };
        put(tx, group)
    }

    fn update(
        tx: &mut Tx<'_, RegionState>,
        env: &Env,
        caller: &Caller,
        id: &Id<Self>,
        update: Self::Update,
        if_match: Option<u64>,
    ) -> Result<Arc<Self>, RegionError> {
        let mut group = Self::clone(visible(tx.state(), caller, *id)?);
        env.update_standard(&mut group.standard, update.standard, if_match)?;
        put(tx, group)
    }

    fn delete(
        tx: &mut Tx<'_, RegionState>,
        _: &Env,
        caller: &Caller,
        id: &Id<Self>,
        if_match: Option<u64>,
    ) -> Result<(), RegionError> {
        let group = visible(tx.state(), caller, *id)?;
        check_if_match(&group.standard, if_match)?;
        if tx.state().rules_with_addresses(*id).next().is_some() {
            return Err(AddressGroupError::InUse(*id).into());
        }
        rbac::forget(tx, *id);
        tx.delete(ResourceKey::AddressGroup(*id));
        Ok(())
    }

    fn visible(&self, caller: &Caller, state: &RegionState) -> bool {
        state.sees_address_group(caller, self)
    }
}

impl Shareable for AddressGroup {
    const TYPE: SharedType = SharedType::AddressGroup;

    fn users(state: &RegionState, id: Id<Self>) -> BTreeSet<String> {
        state
            .rules_with_addresses(id)
            .map(|rule| rule.standard.project_id.clone())
            .collect()
    }

    fn not_found(id: Id<Self>) -> RegionError {
        AddressGroupError::NotFound(id).into()
    }
}

/// Adds prefixes to a group.
///
/// # Errors
/// Not found, prefixes that are there, more than the limit.
pub fn add_addresses(
    tx: &mut Tx<'_, RegionState>,
    env: &Env,
    caller: &Caller,
    id: Id<AddressGroup>,
    addresses: &[IpNet],
) -> Result<Arc<AddressGroup>, RegionError> {
    let mut group = AddressGroup::clone(visible(tx.state(), caller, id)?);
    let mut kept: BTreeSet<IpNet> = group.addresses.iter().copied().collect();
    let added = normalised(addresses);
    let there: Vec<_> = added.intersection(&kept).copied().collect();
    if !there.is_empty() {
        return Err(AddressGroupError::AddressesAlreadyExist {
            addresses: in_words(&there),
            group: id,
        }
        .into());
    }
    kept.extend(added);
    group.addresses = bounded(kept)?;
    env.touch(&mut group.standard);
    put(tx, group)
}

/// Removes prefixes from a group.
///
/// # Errors
/// Not found, prefixes that are not there.
pub fn remove_addresses(
    tx: &mut Tx<'_, RegionState>,
    env: &Env,
    caller: &Caller,
    id: Id<AddressGroup>,
    addresses: &[IpNet],
) -> Result<Arc<AddressGroup>, RegionError> {
    let mut group = AddressGroup::clone(visible(tx.state(), caller, id)?);
    let kept: BTreeSet<IpNet> = group.addresses.iter().copied().collect();
    let removed = normalised(addresses);
    let missing: Vec<_> = removed.difference(&kept).copied().collect();
    if !missing.is_empty() {
        return Err(AddressGroupError::AddressesNotFound {
            addresses: in_words(&missing),
            group: id,
        }
        .into());
    }
    group.addresses = kept.difference(&removed).copied().collect();
    env.touch(&mut group.standard);
    put(tx, group)
}

/// Sorted, without duplicates, host bits cleared.
fn normalised(addresses: &[IpNet]) -> BTreeSet<IpNet> {
    addresses.iter().map(IpNet::trunc).collect()
}

fn bounded(addresses: BTreeSet<IpNet>) -> Result<Vec<IpNet>, AddressGroupError> {
    if addresses.len() > AddressGroup::MAX_ADDRESSES {
        return Err(AddressGroupError::TooMany(AddressGroup::MAX_ADDRESSES));
    }
    Ok(addresses.into_iter().collect())
}

fn in_words(addresses: &[IpNet]) -> String {
    let quoted: Vec<String> = addresses.iter().map(|address| format!("'{address}'")).collect();
    format!("[{}]", quoted.join(", "))
}

fn visible<'a>(
    state: &'a RegionState,
    caller: &Caller,
    id: Id<AddressGroup>,
) -> Result<&'a Arc<AddressGroup>, AddressGroupError> {
    state
        .visible_address_group(caller, id)
        .ok_or(AddressGroupError::NotFound(id))
}

fn put(tx: &mut Tx<'_, RegionState>, group: AddressGroup) -> Result<Arc<AddressGroup>, RegionError> {
    let id = group.id;
    tx.put(Resource::AddressGroup(Arc::new(group)));
    tx.state()
        .address_groups()
        .get(&id)
        .cloned()
        .ok_or_else(|| AddressGroupError::NotFound(id).into())
}
