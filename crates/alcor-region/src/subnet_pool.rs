//! Subnet pools: prefixes that subnets are taken from, within an address scope or on their own.

mod allocation;
mod error;

use std::{collections::BTreeSet, sync::Arc};

use alcor_model::{
    Id, Network, Resource, ResourceKey, Subnet,
    resource::{Access, AddressScope, RbacPolicy, SharedType, SubnetPool},
};
use alcor_store::Tx;
pub(crate) use allocation::{Wanted, allocate, check_affinity};
pub use error::SubnetPoolError;
use ipnet::IpNet;

use crate::{
    Env, RegionError, RegionState, address_scope,
    command::{Caller, StandardCreate, StandardUpdate},
    env::check_if_match,
    managed::Managed,
    network,
    prefixes::AddressSet,
    rbac::{self, RbacError, Shareable},
};

/// The shortest prefix of subnets of an IPv4 pool, unless the client says another (Neutron's default).
const MIN_PREFIXLEN_V4: u8 = 8;
/// The shortest prefix of subnets of an IPv6 pool, unless the client says another (Neutron's default).
const MIN_PREFIXLEN_V6: u8 = 64;

/// `POST /v2.0/subnetpools`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SubnetPoolCreate {
    /// Standard attributes.
    pub standard: StandardCreate,
    /// The prefixes.
    pub prefixes: Vec<IpNet>,
    /// Default: `min_prefixlen`.
    pub default_prefixlen: Option<u64>,
    /// Default: 8 for IPv4, 64 for IPv6.
    pub min_prefixlen: Option<u64>,
    /// Default: 32 for IPv4, 128 for IPv6.
    pub max_prefixlen: Option<u64>,
    /// Default: no limit.
    pub default_quota: Option<u64>,
    /// Whether it is the family's default.
    pub is_default: bool,
    /// Its scope.
    pub address_scope_id: Option<Id<AddressScope>>,
    /// Whether everybody sees it.
    pub shared: bool,
}

/// `PUT /v2.0/subnetpools/{id}`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SubnetPoolUpdate {
    /// Standard attributes.
    pub standard: StandardUpdate,
    /// All prefixes; none of those that there are may be missing.
    pub prefixes: Option<Vec<IpNet>>,
    /// New default length.
    pub default_prefixlen: Option<u64>,
    /// New shortest prefix.
    pub min_prefixlen: Option<u64>,
    /// New longest prefix.
    pub max_prefixlen: Option<u64>,
    /// New quota.
    pub default_quota: Option<u64>,
    /// Whether it is the family's default.
    pub is_default: Option<bool>,
    /// New scope, or none.
    pub address_scope_id: Option<Option<Id<AddressScope>>>,
}

impl Shareable for SubnetPool {
    const TYPE: SharedType = SharedType::SubnetPool;

    fn users(state: &RegionState, id: Id<Self>) -> BTreeSet<String> {
        state
            .subnets_from(id)
            .map(|subnet| subnet.standard.project_id.clone())
            .collect()
    }

    /// Whoever gets a pool must have its address scope.
    fn may_share(&self, state: &RegionState, target: &str) -> Result<(), RbacError> {
        let Some(scope) = self.address_scope_id else {
            return Ok(());
        };
        let has = |target| {
            state
                .grant(
                    SharedType::AddressScope,
                    scope.uuid(),
                    Access::AccessAsShared,
                    target,
                )
                .is_some()
        };
        if has(RbacPolicy::EVERYBODY) || has(target) {
            Ok(())
        } else {
            Err(RbacError::ScopeNotShared(self.id.uuid()))
        }
    }

    fn not_found(id: Id<Self>) -> RegionError {
        SubnetPoolError::NotFound(id).into()
    }
}

impl Managed for SubnetPool {
    type Create = SubnetPoolCreate;
    type Update = SubnetPoolUpdate;
    const QUOTA: Option<&'static str> = Some("subnetpool");

    fn create(
        tx: &mut Tx<'_, RegionState>,
        env: &Env,
        caller: &Caller,
        create: Self::Create,
    ) -> Result<Arc<Self>, RegionError> {
        let prefixes = check_prefixes(&create.prefixes)?;
        let bits = prefixes.first().map_or(32, IpNet::max_prefix_len);
        let shortest = if bits == 32 {
            MIN_PREFIXLEN_V4
        } else {
            MIN_PREFIXLEN_V6
        };
        let lengths = Lengths {
            min: create.min_prefixlen.unwrap_or(shortest.into()),
            max: create.max_prefixlen.unwrap_or(bits.into()),
            default: create.default_prefixlen,
        };
        let (min_prefixlen, max_prefixlen, default_prefixlen) = lengths.check(bits)?;
        let pool = Self {
            id: env.new_id(),
            revision: tx.revision(),
            standard: env.standard(caller, create.standard)?,
            prefixes,
            default_prefixlen,
            min_prefixlen,
            max_prefixlen,
            default_quota: create.default_quota,
            is_default: create.is_default,
            address_scope_id: create.address_scope_id,
        };
        check_default(tx.state(), &pool)?;
        check_scope(tx.state(), caller, &pool)?;
        if create.shared {
            pool.may_share(tx.state(), RbacPolicy::EVERYBODY)?;
        }
        let (id, owner) = (pool.id, pool.standard.project_id.clone());
        tx.put(Resource::SubnetPool(Arc::new(pool)));
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
        let mut pool = Self::clone(seen(tx.state(), caller, *id)?);
        env.update_standard(&mut pool.standard, update.standard, if_match)?;
        check_own_scope(tx.state(), caller, &pool)?;
        if let Some(prefixes) = update.prefixes {
            let before: AddressSet = pool.prefixes.iter().copied().collect();
            pool.prefixes = check_prefixes(&prefixes)?;
            if !pool
                .prefixes
                .iter()
                .copied()
                .collect::<AddressSet>()
                .contains_all(&before)
            {
                let reason = "Existing prefixes must be a subset of the new prefixes";
                return Err(SubnetPoolError::PrefixUpdate(reason).into());
            }
        }
        let lengths = Lengths {
            min: update.min_prefixlen.unwrap_or(pool.min_prefixlen.into()),
            max: update.max_prefixlen.unwrap_or(pool.max_prefixlen.into()),
            default: update.default_prefixlen.or(Some(pool.default_prefixlen.into())),
        };
        let bits = pool.prefixes.first().map_or(32, IpNet::max_prefix_len);
        (pool.min_prefixlen, pool.max_prefixlen, pool.default_prefixlen) = lengths.check(bits)?;
        pool.default_quota = update.default_quota.or(pool.default_quota);
        pool.is_default = update.is_default.unwrap_or(pool.is_default);
        pool.address_scope_id = update.address_scope_id.unwrap_or(pool.address_scope_id);
        check_default(tx.state(), &pool)?;
        check_scope(tx.state(), caller, &pool)?;
        tx.put(Resource::SubnetPool(Arc::new(pool)));
        written(tx, *id)
    }

    fn delete(
        tx: &mut Tx<'_, RegionState>,
        _: &Env,
        caller: &Caller,
        id: &Id<Self>,
        if_match: Option<u64>,
    ) -> Result<(), RegionError> {
        let pool = seen(tx.state(), caller, *id)?;
        check_if_match(&pool.standard, if_match)?;
        if tx.state().subnets_from(*id).next().is_some() {
            return Err(SubnetPoolError::InUse.into());
        }
        rbac::forget(tx, *id);
        tx.delete(ResourceKey::SubnetPool(*id));
        Ok(())
    }

    fn visible(&self, caller: &Caller, state: &RegionState) -> bool {
        state.sees_pool(caller, self)
    }
}

/// Adds prefixes to a pool (`PUT /v2.0/subnetpools/{id}/add_prefixes`).
///
/// # Errors
/// As a change of the pool.
pub fn add_prefixes(
    tx: &mut Tx<'_, RegionState>,
    env: &Env,
    caller: &Caller,
    id: Id<SubnetPool>,
    added: Vec<IpNet>,
) -> Result<Arc<SubnetPool>, RegionError> {
    let mut prefixes = seen(tx.state(), caller, id)?.prefixes.clone();
    prefixes.extend(added);
    let update = SubnetPoolUpdate {
        prefixes: Some(prefixes),
        ..SubnetPoolUpdate::default()
    };
    SubnetPool::update(tx, env, caller, &id, update, None)
}

/// Takes prefixes out of a pool (`PUT /v2.0/subnetpools/{id}/remove_prefixes`). What the pool does not have is passed
/// over.
///
/// # Errors
/// When a subnet has addresses of them, and when nothing would be left.
pub fn remove_prefixes(
    tx: &mut Tx<'_, RegionState>,
    env: &Env,
    caller: &Caller,
    id: Id<SubnetPool>,
    removed: Vec<IpNet>,
) -> Result<Arc<SubnetPool>, RegionError> {
    let mut pool = SubnetPool::clone(seen(tx.state(), caller, id)?);
    let all: AddressSet = pool.prefixes.iter().copied().collect();
    let same_family = |block: &IpNet| block.addr().is_ipv6() == (pool.ip_version() == 6);
    let removed: AddressSet = removed.into_iter().filter(same_family).collect();
    if !all.meets(&removed) {
        return written(tx, id);
    }
    let used: AddressSet = tx.state().subnets_from(id).map(|subnet| subnet.cidr).collect();
    if used.meets(&removed) {
        let reason = "One or more the prefixes to be removed is in use by a subnet.";
        return Err(SubnetPoolError::PrefixUpdate(reason).into());
    }
    let Some(family) = pool.prefixes.first().copied() else {
        return Err(SubnetPoolError::NoPrefixes.into());
    };
    pool.prefixes = check_prefixes(&all.without(&removed).blocks(family))?;
    env.touch(&mut pool.standard);
    tx.put(Resource::SubnetPool(Arc::new(pool)));
    written(tx, id)
}

/// Puts the subnets of a network into a pool, with their blocks (`PUT
/// /v2.0/subnetpools/{id}/onboard_network_subnets`). Gives the subnets.
///
/// # Errors
/// Not found, a network of somebody else, blocks that the pool has given to others.
pub fn onboard(
    tx: &mut Tx<'_, RegionState>,
    env: &Env,
    caller: &Caller,
    id: Id<SubnetPool>,
    network: Id<Network>,
) -> Result<Vec<Arc<Subnet>>, RegionError> {
    network::owned(tx.state(), caller, network, "onboard_network_subnets")?;
    let pool = Arc::clone(seen(tx.state(), caller, id)?);
    let is_ipv6 = pool.ip_version() == 6;
    let used: AddressSet = tx.state().subnets_from(id).map(|subnet| subnet.cidr).collect();
    let subnets: Vec<_> = tx
        .state()
        .subnets_of(network)
        .filter(|subnet| subnet.cidr.addr().is_ipv6() == is_ipv6)
        .cloned()
        .collect();
    if let Some(subnet) = subnets
        .iter()
        .find(|subnet| used.meets(&AddressSet::from_iter([subnet.cidr])))
    {
        return Err(SubnetPoolError::Onboarding {
            subnet: subnet.id,
            cidr: subnet.cidr,
            pool: id,
        }
        .into());
    }
    add_prefixes(
        tx,
        env,
        caller,
        id,
        subnets.iter().map(|subnet| subnet.cidr).collect(),
    )?;
    for subnet in &subnets {
        let mut subnet = Subnet::clone(subnet);
        subnet.subnetpool_id = Some(id);
        env.touch(&mut subnet.standard);
        tx.put(Resource::Subnet(Arc::new(subnet)));
    }
    Ok(subnets)
}

/// The lengths of prefixes as the client gives them.
struct Lengths {
    min: u64,
    max: u64,
    default: Option<u64>,
}

impl Lengths {
    /// Shortest, longest, default; in a family of so many bits.
    fn check(self, bits: u8) -> Result<(u8, u8, u8), SubnetPoolError> {
        let bounds = |what, length, base, base_length| {
            Err(SubnetPoolError::PrefixBounds {
                what,
                length,
                base,
                base_length,
            })
        };
        let Self { min, max, default } = self;
        let default = default.unwrap_or(min);
        if min > max {
            return bounds("min_prefixlen", min, "max_prefixlen", max);
        }
        if max > bits.into() {
            return bounds("max_prefixlen", max, "ip_version_max", bits.into());
        }
        if default < min {
            return bounds("default_prefixlen", default, "min_prefixlen", min);
        }
        if default > max {
            return bounds("default_prefixlen", default, "max_prefixlen", max);
        }
        // All of them are at most `bits` now.
        let small = |length| u8::try_from(length).unwrap_or(bits);
        Ok((small(min), small(max), small(default)))
    }
}

/// Sorted, disjoint, as few as possible, of one family.
fn check_prefixes(prefixes: &[IpNet]) -> Result<Vec<IpNet>, RegionError> {
    let Some(family) = prefixes.first().copied() else {
        return Err(SubnetPoolError::NoPrefixes.into());
    };
    let is_ipv6 = family.addr().is_ipv6();
    if prefixes.iter().any(|prefix| prefix.addr().is_ipv6() != is_ipv6) {
        return Err(SubnetPoolError::MixedFamilies.into());
    }
    let blocks = prefixes.iter().copied().collect::<AddressSet>().blocks(family);
    if blocks.len() > SubnetPool::MAX_PREFIXES {
        return Err(RegionError::InvalidInput(format!(
            "a subnet pool has at most {} prefixes",
            SubnetPool::MAX_PREFIXES
        )));
    }
    Ok(blocks)
}

fn check_default(state: &RegionState, pool: &SubnetPool) -> Result<(), SubnetPoolError> {
    match state.default_pool(pool.ip_version()) {
        Some(other) if pool.is_default && other != pool.id => Err(SubnetPoolError::DefaultExists),
        _ => Ok(()),
    }
}

/// A pool in a scope of somebody else stays as it is.
fn check_own_scope(state: &RegionState, caller: &Caller, pool: &SubnetPool) -> Result<(), RegionError> {
    let Some(scope) = pool.address_scope_id else {
        return Ok(());
    };
    let owner = &address_scope::seen(state, caller, scope)?.standard.project_id;
    if caller.is_admin || *owner == caller.project_id {
        Ok(())
    } else {
        Err(SubnetPoolError::ForeignScope { pool: pool.id, scope }.into())
    }
}

/// Whether a pool can be in the scope that it says it is in.
fn check_scope(state: &RegionState, caller: &Caller, pool: &SubnetPool) -> Result<(), RegionError> {
    let Some(id) = pool.address_scope_id else {
        return Ok(());
    };
    let scope = address_scope::seen(state, caller, id)?;
    if scope.ip_version != pool.ip_version() {
        return Err(SubnetPoolError::ScopeFamily {
            pool: pool.id,
            scope: id,
            ip_version: scope.ip_version,
        }
        .into());
    }
    check_networks_follow(state, pool)?;
    let mine: AddressSet = pool.prefixes.iter().copied().collect();
    let meets = |other: &Arc<SubnetPool>| mine.meets(&other.prefixes.iter().copied().collect());
    if state
        .pools_of(id)
        .any(|other| other.id != pool.id && meets(other))
    {
        return Err(SubnetPoolError::ScopeConflict.into());
    }
    Ok(())
}

/// A pool's scope is that of all networks with subnets of the pool: none of them may have a subnet from elsewhere.
fn check_networks_follow(state: &RegionState, pool: &SubnetPool) -> Result<(), SubnetPoolError> {
    let is_ipv6 = pool.ip_version() == 6;
    let networks: BTreeSet<Id<Network>> = state
        .subnets_from(pool.id)
        .map(|subnet| subnet.network_id)
        .collect();
    let elsewhere = networks
        .into_iter()
        .flat_map(|network| state.subnets_of(network))
        .any(|subnet| subnet.cidr.addr().is_ipv6() == is_ipv6 && subnet.subnetpool_id != Some(pool.id));
    if elsewhere {
        Err(SubnetPoolError::ScopeAffinity)
    } else {
        Ok(())
    }
}

/// The pool, if the caller sees it.
pub(crate) fn seen<'a>(
    state: &'a RegionState,
    caller: &Caller,
    id: Id<SubnetPool>,
) -> Result<&'a Arc<SubnetPool>, SubnetPoolError> {
    state
        .subnet_pools()
        .get(&id)
        .filter(|pool| state.sees_pool(caller, pool))
        .ok_or(SubnetPoolError::NotFound(id))
}

fn written(tx: &Tx<'_, RegionState>, id: Id<SubnetPool>) -> Result<Arc<SubnetPool>, RegionError> {
    let pool = tx.state().subnet_pools().get(&id).cloned();
    Ok(pool.ok_or(SubnetPoolError::NotFound(id))?)
}
