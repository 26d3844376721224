//! What the API may do with a kind of rows: create, change, delete, see. One implementation a resource, beside its
//! deciders; [`crate::Region`] runs them and nobody else calls them from outside.

use std::sync::Arc;

use alcor_store::Tx;

use crate::{Env, RegionError, RegionState, command::Caller, state::Stored};

/// A resource that clients make, change and delete.
///
/// Deciders are pure: they see the state, and either write rows or refuse and leave nothing. They check that the
/// caller sees what it refers to, and the rules that hold for everybody; which roles may do what is the API's policy.
pub trait Managed: Stored {
    /// What a creation says.
    type Create: Send + 'static;
    /// What a change says.
    type Update: Send + 'static;

    /// The name of the quota that bounds how many of them a project has; none for what is not bounded by a quota.
    const QUOTA: Option<&'static str>;

    /// Rules for what one request makes together; called before the first is made.
    ///
    /// # Errors
    /// The refusal, in Neutron's terms.
    fn check_together(_: &[Self::Create]) -> Result<(), RegionError> {
        Ok(())
    }

    /// Makes one.
    ///
    /// # Errors
    /// The refusal, in Neutron's terms.
    fn create(
        tx: &mut Tx<'_, RegionState>,
        env: &Env,
        caller: &Caller,
        create: Self::Create,
    ) -> Result<Arc<Self>, RegionError>;

    /// Changes one. `if_match` is the revision number that the client wants it to have.
    ///
    /// # Errors
    /// The refusal, in Neutron's terms.
    fn update(
        tx: &mut Tx<'_, RegionState>,
        env: &Env,
        caller: &Caller,
        key: &Self::Key,
        update: Self::Update,
        if_match: Option<u64>,
    ) -> Result<Arc<Self>, RegionError>;

    /// Deletes one. `if_match` is the revision number that the client wants it to have.
    ///
    /// # Errors
    /// The refusal, in Neutron's terms.
    fn delete(
        tx: &mut Tx<'_, RegionState>,
        env: &Env,
        caller: &Caller,
        key: &Self::Key,
        if_match: Option<u64>,
    ) -> Result<(), RegionError>;

    /// Whether the caller sees a row.
    fn visible(&self, caller: &Caller, state: &RegionState) -> bool;
}
