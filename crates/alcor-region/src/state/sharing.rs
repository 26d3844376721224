//! What is shared with whom: the indexes of [`RbacPolicy`] rows. Each question is O(log n) in the number of rows, and
//! what a project was given is listed without a look at anything else.

use alcor_model::{
    Id, Network,
    resource::{Access, RbacPolicy, SharedType},
};
use alcor_store::{MultiIndex, UniqueIndex};
use uuid::Uuid;

use super::{Indexed, RegionState};

/// One object and what may be done with it.
type Granted = (SharedType, Uuid, Access);

/// Greater than any project's name in the order of bytes.
const LAST_TARGET: &str = "\u{10ffff}";

/// What is derived from the rows of RBAC policies.
#[derive(Clone, Default, PartialEq)]
pub(crate) struct SharingIndexes {
    by_grant: UniqueIndex<(Granted, String), Id<RbacPolicy>>,
    by_target: MultiIndex<(SharedType, Access, String), Uuid>,
}

impl RegionState {
    /// The row that grants this to exactly this target.
    pub fn grant(
        &self,
        object_type: SharedType,
        object_id: Uuid,
        action: Access,
        target: &str,
    ) -> Option<Id<RbacPolicy>> {
        self.sharing
            .by_grant
            .get(&((object_type, object_id, action), target.to_owned()))
            .copied()
    }

    /// Who has been granted this on an object, with the row: projects, and [`RbacPolicy::EVERYBODY`].
    pub fn grants(
        &self,
        object_type: SharedType,
        object_id: Uuid,
        action: Access,
    ) -> impl Iterator<Item = (&str, Id<RbacPolicy>)> {
        let granted = (object_type, object_id, action);
        self.sharing
            .by_grant
            .range((granted, String::new())..=(granted, LAST_TARGET.to_owned()))
            .map(|((_, target), id)| (target.as_str(), *id))
    }

    fn granted(&self, object_type: SharedType, object_id: Uuid, action: Access, project: &str) -> bool {
        let has = |target| self.grant(object_type, object_id, action, target).is_some();
        has(RbacPolicy::EVERYBODY) || has(project)
    }

    /// Whether an object is shared with a project, by name or with everybody. Its owner is not looked at.
    pub fn shared_with(&self, object_type: SharedType, object_id: Uuid, project: &str) -> bool {
        self.granted(object_type, object_id, Access::AccessAsShared, project)
    }

    /// Whether a project may take gateways and floating IPs from a network of another one.
    pub fn external_for(&self, network: Id<Network>, project: &str) -> bool {
        self.granted(
            SharedType::Network,
            network.uuid(),
            Access::AccessAsExternal,
            project,
        )
    }

    /// The objects of a type that a project was given, by name or with everybody; in no order, some perhaps twice.
    pub fn given_to(
        &self,
        object_type: SharedType,
        action: Access,
        project: &str,
    ) -> impl Iterator<Item = Uuid> + use<'_> {
        let of = |target: &str| {
            self.sharing
                .by_target
                .get(&(object_type, action, target.to_owned()))
                .copied()
        };
        of(RbacPolicy::EVERYBODY).chain(of(project))
    }

    /// The networks that a project sees: its own, those shared with it, external ones. In no order, some perhaps
    /// twice.
    pub fn networks_seen_by(&self, project: &str) -> impl Iterator<Item = Id<Network>> + use<'_> {
        self.networks_owned_by(project)
            .chain(
                self.given_to(SharedType::Network, Access::AccessAsShared, project)
                    .map(Id::from_uuid),
            )
            .chain(
                self.given_to(SharedType::Network, Access::AccessAsExternal, project)
                    .map(Id::from_uuid),
            )
    }
}

impl Indexed for RbacPolicy {
    fn index(&self, state: &mut RegionState) {
        let granted = (self.object_type, self.object_id, self.action);
        let sharing = &mut state.sharing;
        sharing
            .by_grant
            .insert((granted, self.target_project.clone()), self.id);
        sharing.by_target.insert(
            (self.object_type, self.action, self.target_project.clone()),
            self.object_id,
        );
    }

    fn unindex(&self, state: &mut RegionState) {
        let granted = (self.object_type, self.object_id, self.action);
        let sharing = &mut state.sharing;
        sharing
            .by_grant
            .remove(&(granted, self.target_project.clone()), &self.id);
        sharing.by_target.remove(
            (self.object_type, self.action, self.target_project.clone()),
            self.object_id,
        );
    }
}
