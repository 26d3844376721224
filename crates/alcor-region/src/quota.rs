//! Quotas: how many rows of a kind a project may own. Checked inside the transaction that makes them.
//!
//! A limit is the project's own when an admin set one, else the region's default; -1 is no limit.

use std::collections::BTreeMap;

use alcor_model::{
    AddressGroup, AddressScope, FloatingIp, Network, Port, Quota, RbacPolicy, ResourceKey, Router,
    SecurityGroup, SecurityGroupRule, Subnet, SubnetPool,
};
use alcor_store::Tx;
use thiserror::Error;

use crate::{Env, ErrorClass, Refusal, RegionConfig, RegionError, RegionState, managed::Managed};

/// No limit.
pub const UNLIMITED: i64 = -1;

/// The largest limit that an admin can set (Neutron's).
pub const MAX_LIMIT: i64 = 0x7fff_ffff;

/// Most projects that have limits of their own: a row each, and `GET /quotas` lists them all.
pub const MAX_PROJECTS: usize = 100_000;

/// One quota.
#[derive(Clone, Copy, Debug)]
pub struct QuotaKind {
    /// Neutron's name.
    pub name: &'static str,
    /// Neutron's default.
    pub neutron: i64,
    /// How many a project owns.
    used: fn(&RegionState, &str) -> u64,
}

/// The quotas: name, Neutron's default, and the rows that count. A row that [`Managed::QUOTA`] names must be here.
macro_rules! quotas {
    ($($name:literal = $neutron:expr, $row:ident;)*) => {
        /// Every quota, in the order of Neutron's replies.
        pub const QUOTAS: &[QuotaKind] = &[
            $(QuotaKind { name: $name, neutron: $neutron, used: |state, project| state.count::<$row>(project) },)*
        ];
    };
}

quotas! {
    "network" = 100, Network;
    "subnet" = 100, Subnet;
    "port" = 500, Port;
    "router" = 10, Router;
    "floatingip" = 50, FloatingIp;
    "rbac_policy" = 10, RbacPolicy;
    "subnetpool" = -1, SubnetPool;
    "security_group" = 10, SecurityGroup;
    "security_group_rule" = 100, SecurityGroupRule;
    "address_scope" = -1, AddressScope;
    "address_group" = -1, AddressGroup;
}

/// One quota of one project.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Its name.
    pub name: &'static str,
    /// -1 is no limit.
    pub limit: i64,
    /// How many rows there are.
    pub used: u64,
}

/// Why a change of quotas is refused.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum QuotaError {
    /// The project has no limits of its own.
    #[error("Quota for project {0} could not be found.")]
    NotFound(String),
    /// Less than there is.
    #[error("Quota limit {limit} for {name} must be greater than or equal to already used {used}")]
    BelowUsage {
        /// The quota.
        name: &'static str,
        /// What was asked for.
        limit: i64,
        /// What there is.
        used: u64,
    },
    /// Too many projects have limits of their own.
    #[error("More than {MAX_PROJECTS} projects cannot have quotas of their own")]
    TooManyProjects,
}

impl Refusal for QuotaError {
    fn neutron_type(&self) -> &'static str {
        match self {
            Self::NotFound(_) => "TenantQuotaNotFound",
            Self::BelowUsage { .. } => "HTTPBadRequest",
            Self::TooManyProjects => "Conflict",
        }
    }

    fn class(&self) -> ErrorClass {
        match self {
            Self::NotFound(_) => ErrorClass::NotFound,
            Self::BelowUsage { .. } => ErrorClass::BadRequest,
            Self::TooManyProjects => ErrorClass::Conflict,
        }
    }
}

/// Neutron's default limits, by name.
pub fn neutron_defaults() -> BTreeMap<&'static str, u64> {
    QUOTAS
        .iter()
        .filter_map(|quota| Some((quota.name, u64::try_from(quota.neutron).ok()?)))
        .collect()
}

/// The quota of this name.
pub fn find(name: &str) -> Option<&'static QuotaKind> {
    QUOTAS.iter().find(|quota| quota.name == name)
}

/// The region's default limits.
pub fn defaults(config: &RegionConfig) -> impl Iterator<Item = (&'static str, i64)> + '_ {
    QUOTAS
        .iter()
        .map(|quota| (quota.name, default_limit(config, quota.name)))
}

/// A project's limits and what it owns.
pub fn usages<'a>(
    state: &'a RegionState,
    config: &'a RegionConfig,
    project_id: &'a str,
) -> impl Iterator<Item = Usage> + 'a {
    QUOTAS.iter().map(move |quota| Usage {
        name: quota.name,
        limit: limit(state, config, project_id, quota.name),
        used: (quota.used)(state, project_id),
    })
}

fn default_limit(config: &RegionConfig, name: &str) -> i64 {
    config
        .quotas
        .get(name)
        .map_or(UNLIMITED, |limit| (*limit).try_into().unwrap_or(MAX_LIMIT))
}

/// A project's limit; -1 when there is none.
pub fn limit(state: &RegionState, config: &RegionConfig, project_id: &str, name: &str) -> i64 {
    state
        .quotas()
        .get(&project_id.to_owned())
        .and_then(|quota| quota.limits.get(name).copied())
        .unwrap_or_else(|| default_limit(config, name))
}

/// Refuses when a project owns more of a kind than it may, with what this transaction has made so far.
///
/// # Errors
/// [`RegionError::OverQuota`] with the quota's name.
pub(crate) fn check<R: Managed>(
    tx: &Tx<'_, RegionState>,
    env: &Env,
    project_id: &str,
) -> Result<(), RegionError> {
    check_without::<R>(tx, env, project_id, 0)
}

/// Refuses a new row when its project owns more than it may, with what this transaction has made so far. Rows of the same
/// kind that came along since the mark, without being asked for (a project's default group), do not stand in its way.
///
/// # Errors
/// [`RegionError::OverQuota`] with the quota's name.
pub(crate) fn check_new<R: Managed>(
    tx: &Tx<'_, RegionState>,
    env: &Env,
    row: &R,
    mark: usize,
) -> Result<(), RegionError> {
    let own = R::resource_key(row.key());
    let unasked = tx
        .made_since(mark)
        .filter(|key| key.kind() == R::KIND && **key != own)
        .count();
    check_without::<R>(tx, env, row.project_id(), unasked as u64)
}

fn check_without<R: Managed>(
    tx: &Tx<'_, RegionState>,
    env: &Env,
    project_id: &str,
    unasked: u64,
) -> Result<(), RegionError> {
    let Some(name) = R::QUOTA else {
        return Ok(());
    };
    let owned = || tx.state().count::<R>(project_id).saturating_sub(unasked);
    match u64::try_from(limit(tx.state(), &env.config, project_id, name)) {
        Ok(limit) if owned() > limit => Err(RegionError::OverQuota(name)),
        // Below the limit, or negative: there is none.
        _ => Ok(()),
    }
}

/// Sets limits of a project and leaves its others. `force` allows less than there is.
///
/// # Errors
/// When there is more already, or too many projects have limits of their own.
pub fn update(
    tx: &mut Tx<'_, RegionState>,
    project_id: &str,
    limits: Vec<(&'static str, i64)>,
    force: bool,
) -> Result<(), RegionError> {
    if limits.is_empty() {
        return Ok(());
    }
    for (name, limit) in limits.iter().filter(|(_, limit)| !force && *limit != UNLIMITED) {
        let used = find(name).map_or(0, |quota| (quota.used)(tx.state(), project_id));
        if u64::try_from(*limit).is_ok_and(|limit| used > limit) {
            return Err(QuotaError::BelowUsage {
                name,
                limit: *limit,
                used,
            }
            .into());
        }
    }
    let mut row = match tx.state().quotas().get(&project_id.to_owned()) {
        Some(row) => Quota::clone(row),
        None if tx.state().quotas().len() >= MAX_PROJECTS => return Err(QuotaError::TooManyProjects.into()),
        None => Quota {
            project_id: project_id.to_owned(),
            revision: tx.revision(),
            limits: BTreeMap::new(),
        },
    };
    row.limits
        .extend(limits.into_iter().map(|(name, limit)| (name.to_owned(), limit)));
    tx.write(row);
    Ok(())
}

/// Gives a project the region's defaults again.
///
/// # Errors
/// When it has no limits of its own.
pub fn reset(tx: &mut Tx<'_, RegionState>, project_id: &str) -> Result<(), RegionError> {
    if tx.state().quotas().get(&project_id.to_owned()).is_none() {
        return Err(QuotaError::NotFound(project_id.to_owned()).into());
    }
    tx.delete(ResourceKey::Quota(project_id.to_owned()));
    Ok(())
}
