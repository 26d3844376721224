//! Quotas: how many rows of a kind a project may own. Checked inside the transaction that makes them.

use alcor_store::Tx;

use crate::{Env, RegionError, RegionState, managed::Managed};

/// Refuses when the project owns more than it may, with what this transaction has made so far.
///
/// # Errors
/// [`RegionError::OverQuota`] with the quota's name.
pub(crate) fn check<R: Managed>(
    tx: &Tx<'_, RegionState>,
    env: &Env,
    project_id: &str,
) -> Result<(), RegionError> {
    match R::QUOTA.and_then(|name| Some((name, env.config.quotas.get(name)?))) {
        Some((name, limit)) if tx.state().count::<R>(project_id) > *limit => {
            Err(RegionError::OverQuota(name))
        }
        _ => Ok(()),
    }
}
