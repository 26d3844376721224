//! How subnets are taken from a pool, and which subnets may share a network.

use alcor_model::{Id, Network, resource::SubnetPool};
use ipnet::IpNet;

use super::SubnetPoolError;
use crate::{RegionState, prefixes::AddressSet};

/// What is counted against a pool's quota: IPv4 addresses, or IPv6 prefixes of 64 bits.
const QUOTA_UNIT_V4: u8 = 32;
const QUOTA_UNIT_V6: u8 = 64;

/// Which block is wanted from a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// Any of this length; the pool's default when `None`.
    Any(Option<u64>),
    /// This one.
    Block(IpNet),
}

/// Chooses a block of a pool for a project: the one that is wanted, or the first in the smallest gap that is large
/// enough.
pub(crate) fn allocate(
    state: &RegionState,
    pool: &SubnetPool,
    project: &str,
    wanted: Wanted,
) -> Result<IpNet, SubnetPoolError> {
    let length = match wanted {
        Wanted::Any(length) => {
            let length = length.unwrap_or(pool.default_prefixlen.into());
            u8::try_from(length).unwrap_or(u8::MAX)
        }
        Wanted::Block(block) => block.prefix_len(),
    };
    check_length(pool, length)?;
    check_quota(state, pool, project, length)?;
    let used: AddressSet = state.subnets_from(pool.id).map(|subnet| subnet.cidr).collect();
    let free = pool
        .prefixes
        .iter()
        .copied()
        .collect::<AddressSet>()
        .without(&used);
    match wanted {
        Wanted::Block(block) if free.contains(block) => Ok(block),
        Wanted::Block(_) => Err(SubnetPoolError::Allocation(
            "Cannot allocate requested subnet from the available set of prefixes".into(),
        )),
        Wanted::Any(_) => pool
            .prefixes
            .first()
            .into_iter()
            .flat_map(|family| free.blocks(*family))
            .filter(|gap| gap.prefix_len() <= length)
            // The first of those with the longest prefix.
            .min_by_key(|gap| std::cmp::Reverse(gap.prefix_len()))
            .and_then(|gap| IpNet::new(gap.network(), length).ok())
            .ok_or_else(|| {
                SubnetPoolError::Allocation(format!(
                    "Insufficient prefix space to allocate subnet size /{length}"
                ))
            }),
    }
}

fn check_length(pool: &SubnetPool, length: u8) -> Result<(), SubnetPoolError> {
    if length > pool.max_prefixlen {
        Err(SubnetPoolError::TooLong {
            length,
            bound: pool.max_prefixlen,
        })
    } else if length < pool.min_prefixlen {
        Err(SubnetPoolError::TooShort {
            length,
            bound: pool.min_prefixlen,
        })
    } else {
        Ok(())
    }
}

/// As Neutron, a quota of zero is none.
fn check_quota(
    state: &RegionState,
    pool: &SubnetPool,
    project: &str,
    length: u8,
) -> Result<(), SubnetPoolError> {
    let Some(quota) = pool.default_quota.filter(|quota| *quota > 0) else {
        return Ok(());
    };
    let unit = if pool.ip_version() == 6 {
        QUOTA_UNIT_V6
    } else {
        QUOTA_UNIT_V4
    };
    // Whatever is smaller than a unit counts as one.
    let units = |length: u8| 1u128 << unit.saturating_sub(length);
    let used: u128 = state
        .subnets_from(pool.id)
        .filter(|subnet| subnet.standard.project_id == project)
        .map(|subnet| units(subnet.cidr.prefix_len()))
        .sum();
    if used + units(length) > quota.into() {
        Err(SubnetPoolError::QuotaExceeded)
    } else {
        Ok(())
    }
}

/// Refuses a subnet from a pool (or from none) where the network's subnets of its family come from elsewhere: within one
/// address scope, pools may mix; without, there is one pool or none.
pub(crate) fn check_affinity(
    state: &RegionState,
    network: Id<Network>,
    is_ipv6: bool,
    pool: Option<&SubnetPool>,
) -> Result<(), SubnetPoolError> {
    for subnet in state
        .subnets_of(network)
        .filter(|subnet| subnet.cidr.addr().is_ipv6() == is_ipv6)
    {
        if subnet.subnetpool_id == pool.map(|pool| pool.id) {
            continue;
        }
        let scope_of_there = subnet
            .subnetpool_id
            .and_then(|id| state.subnet_pools().get(&id))
            .and_then(|pool| pool.address_scope_id);
        match (scope_of_there, pool) {
            (Some(scope), Some(pool)) if pool.address_scope_id == Some(scope) => {}
            (Some(_), Some(_)) => return Err(SubnetPoolError::ScopeAffinity),
            (None, _) | (Some(_), None) => return Err(SubnetPoolError::PoolAffinity),
        }
    }
    Ok(())
}
