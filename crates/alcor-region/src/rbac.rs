//! RBAC policies: who besides its owner may see and use an object. A network's, subnet pool's, ... `shared` is nothing
//! but the row that shares it with everybody; `router:external` is the rows that let others take addresses of it.
//!
//! What can be shared implements [`Shareable`] and has a line in [`shareable`]; its deciders call [`set_shared`] for
//! the attribute and [`forget`] when the object goes.

use std::{collections::BTreeSet, sync::Arc};

use alcor_model::{
    AddressGroup, Id, Network, Resource, ResourceKey, SecurityGroup,
    resource::{Access, AddressScope, ROUTER_GATEWAY, RbacPolicy, SharedType, Standard, SubnetPool},
};
use alcor_store::Tx;
use thiserror::Error;
use uuid::Uuid;

use crate::{
    Env, ErrorClass, Refusal, RegionError, RegionState,
    command::{Caller, StandardCreate, StandardUpdate},
    env::check_if_match,
    managed::Managed,
    router,
};

/// `POST /v2.0/rbac-policies`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RbacPolicyCreate {
    /// Standard attributes; only the owner is used.
    pub standard: StandardCreate,
    /// What is shared.
    pub object_type: SharedType,
    /// Which one.
    pub object_id: Uuid,
    /// To do what.
    pub action: Access,
    /// With whom: a project, or [`RbacPolicy::EVERYBODY`].
    pub target_project: String,
}

/// `PUT /v2.0/rbac-policies/{id}`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RbacPolicyUpdate {
    /// With whom from now on.
    pub target_project: Option<String>,
}

/// What the rules of RBAC policies refuse.
#[derive(Debug, Error)]
pub enum RbacError {
    /// Not every object can be used in every way.
    #[error("Invalid action '{action}' for object type '{object_type}'. Valid actions: access_as_shared", action = .action.as_str(), object_type = .object_type.as_str())]
    InvalidActionForType {
        /// What was asked for.
        action: Access,
        /// Of what.
        object_type: SharedType,
    },
    /// The caller sees the object and does not own it.
    #[error("Invalid input for operation: Only admins can manipulate policies on objects they do not own.")]
    NotTheOwner,
    /// There is such a row.
    #[error("An RBAC policy already exists with those values.")]
    Duplicate,
    /// Somebody would lose what it uses.
    #[error(
        "RBAC policy on object {object_id} cannot be removed because other objects depend on it.\nDetails: {details}"
    )]
    InUse {
        /// The object.
        object_id: Uuid,
        /// Who uses it.
        details: String,
    },
    /// A pool's address scope must be shared first.
    #[error(
        "Failed to create RBAC policy on object {0} because target project doesn't have access to associated address scope.."
    )]
    ScopeNotShared(Uuid),
    /// No such row, or the caller may not see it.
    #[error("RBAC policy of type unknown with ID {0} not found")]
    NotFound(Id<RbacPolicy>),
}

impl Refusal for RbacError {
    fn neutron_type(&self) -> &'static str {
        match self {
            Self::InvalidActionForType { .. } => "InvalidActionForType",
            Self::NotTheOwner => "InvalidInput",
            Self::Duplicate => "DuplicateRbacPolicy",
            Self::InUse { .. } => "RbacPolicyInUse",
            Self::ScopeNotShared(_) => "RbacPolicyInitError",
            Self::NotFound(_) => "RbacPolicyNotFound",
        }
    }

    fn class(&self) -> ErrorClass {
        match self {
            Self::InvalidActionForType { .. } | Self::NotTheOwner | Self::ScopeNotShared(_) => {
                ErrorClass::BadRequest
            }
            Self::Duplicate | Self::InUse { .. } => ErrorClass::Conflict,
            Self::NotFound(_) => ErrorClass::NotFound,
        }
    }
}

/// What can be shared with other projects.
pub(crate) trait Shareable: Managed<Key = Id<Self>> {
    /// Its name in RBAC policies.
    const TYPE: SharedType;

    /// The projects whose objects depend on it, for whatever reason; the owner may be among them.
    fn users(state: &RegionState, id: Id<Self>) -> BTreeSet<String>;

    /// A rule of its own about whom it may be shared with.
    fn may_share(&self, _: &RegionState, _target: &str) -> Result<(), RbacError> {
        Ok(())
    }

    /// The refusal when there is none, or none that the caller sees.
    fn not_found(id: Id<Self>) -> RegionError;
}

impl Shareable for Network {
    const TYPE: SharedType = SharedType::Network;

    fn users(state: &RegionState, id: Id<Self>) -> BTreeSet<String> {
        state
            .ports_of(id)
            .map(|port| port.standard.project_id.clone())
            .collect()
    }

    fn not_found(id: Id<Self>) -> RegionError {
        RegionError::NetworkNotFound(id)
    }
}

/// What the rules need to know of an object of any type.
struct Object {
    owner: String,
    users: fn(&RegionState, Uuid) -> BTreeSet<String>,
    may_share: Result<(), RbacError>,
}

fn object_of<R: Shareable>(
    state: &RegionState,
    caller: &Caller,
    id: Uuid,
    target: &str,
) -> Result<Object, RegionError> {
    let row = R::table(state)
        .get(&Id::from_uuid(id))
        .filter(|row| row.visible(caller, state))
        .ok_or_else(|| R::not_found(Id::from_uuid(id)))?;
    Ok(Object {
        owner: row.project_id().to_owned(),
        users: |state, id| R::users(state, Id::from_uuid(id)),
        may_share: row.may_share(state, target),
    })
}

/// The object of a policy, if the caller sees it.
fn shareable(
    state: &RegionState,
    caller: &Caller,
    (object_type, id): (SharedType, Uuid),
    target: &str,
) -> Result<Object, RegionError> {
    match object_type {
        SharedType::Network => object_of::<Network>(state, caller, id, target),
        SharedType::SecurityGroup => object_of::<SecurityGroup>(state, caller, id, target),
        SharedType::AddressGroup => object_of::<AddressGroup>(state, caller, id, target),
        SharedType::SubnetPool => object_of::<SubnetPool>(state, caller, id, target),
        SharedType::AddressScope => object_of::<AddressScope>(state, caller, id, target),
    }
}

impl Managed for RbacPolicy {
    type Create = RbacPolicyCreate;
    type Update = RbacPolicyUpdate;
    const QUOTA: Option<&'static str> = Some("rbac_policy");

    fn create(
        tx: &mut Tx<'_, RegionState>,
        env: &Env,
        caller: &Caller,
        create: Self::Create,
    ) -> Result<Arc<Self>, RegionError> {
        let key = (create.object_type, create.object_id);
        let valid = create.action == Access::AccessAsShared || create.object_type == SharedType::Network;
        if !valid {
            return Err(RbacError::InvalidActionForType {
                action: create.action,
                object_type: create.object_type,
            }
            .into());
        }
        let object = shareable(tx.state(), caller, key, &create.target_project)?;
        check_owner(caller, &object)?;
        object.may_share?;
        check_new(tx.state(), key, create.action, &create.target_project)?;
        let policy = Self {
            id: env.new_id(),
            revision: tx.revision(),
            standard: env.standard(caller, create.standard)?,
            object_type: create.object_type,
            object_id: create.object_id,
            action: create.action,
            target_project: create.target_project,
        };
        let policy = Arc::new(policy);
        tx.put(Resource::RbacPolicy(Arc::clone(&policy)));
        changed(tx, env, &policy);
        written(tx, policy.id)
    }

    fn update(
        tx: &mut Tx<'_, RegionState>,
        env: &Env,
        caller: &Caller,
        id: &Id<Self>,
        update: Self::Update,
        if_match: Option<u64>,
    ) -> Result<Arc<Self>, RegionError> {
        let mut policy = Self::clone(seen(tx.state(), caller, *id)?);
        env.update_standard(&mut policy.standard, StandardUpdate::default(), if_match)?;
        if let Some(target) = update.target_project
            && target != policy.target_project
        {
            let key = (policy.object_type, policy.object_id);
            let object = shareable(tx.state(), caller, key, &target)?;
            check_owner(caller, &object)?;
            check_new(tx.state(), key, policy.action, &target)?;
            check_unused(tx.state(), &policy, &object, Some(&target))?;
            policy.target_project = target;
        }
        let policy = Arc::new(policy);
        tx.put(Resource::RbacPolicy(Arc::clone(&policy)));
        changed(tx, env, &policy);
        written(tx, *id)
    }

    fn delete(
        tx: &mut Tx<'_, RegionState>,
        env: &Env,
        caller: &Caller,
        id: &Id<Self>,
        if_match: Option<u64>,
    ) -> Result<(), RegionError> {
        let policy = Arc::clone(seen(tx.state(), caller, *id)?);
        check_if_match(&policy.standard, if_match)?;
        let key = (policy.object_type, policy.object_id);
        // Whoever granted it may take it back, also when the object is another project's.
        let object = shareable(tx.state(), &everything(caller), key, &policy.target_project)?;
        check_unused(tx.state(), &policy, &object, None)?;
        tx.delete(ResourceKey::RbacPolicy(*id));
        changed(tx, env, &policy);
        Ok(())
    }

    fn visible(&self, caller: &Caller, _: &RegionState) -> bool {
        caller.is_admin || self.standard.project_id == caller.project_id
    }
}

/// The caller with eyes for everything, to look up what a row of its own is about.
fn everything(caller: &Caller) -> Caller {
    Caller {
        is_admin: true,
        ..caller.clone()
    }
}

fn seen<'a>(
    state: &'a RegionState,
    caller: &Caller,
    id: Id<RbacPolicy>,
) -> Result<&'a Arc<RbacPolicy>, RbacError> {
    state
        .rbac_policies()
        .get(&id)
        .filter(|policy| policy.visible(caller, state))
        .ok_or(RbacError::NotFound(id))
}

fn written(tx: &Tx<'_, RegionState>, id: Id<RbacPolicy>) -> Result<Arc<RbacPolicy>, RegionError> {
    let policy = tx.state().rbac_policies().get(&id).cloned();
    Ok(policy.ok_or(RbacError::NotFound(id))?)
}

/// A policy was written or is gone: a network counts that as its own change, and is external as long as it is
/// external for somebody.
fn changed(tx: &mut Tx<'_, RegionState>, env: &Env, policy: &RbacPolicy) {
    if policy.object_type != SharedType::Network {
        return;
    }
    let Some(network) = tx.state().networks().get(&Id::from_uuid(policy.object_id)) else {
        return;
    };
    let mut network = Network::clone(network);
    env.touch(&mut network.standard);
    if policy.action == Access::AccessAsExternal {
        network.external = tx
            .state()
            .grants(policy.object_type, policy.object_id, policy.action)
            .next()
            .is_some();
        network.is_default &= network.external;
    }
    tx.put(Resource::Network(Arc::new(network)));
}

fn check_owner(caller: &Caller, object: &Object) -> Result<(), RbacError> {
    if caller.is_admin || object.owner == caller.project_id {
        Ok(())
    } else {
        Err(RbacError::NotTheOwner)
    }
}

fn check_new(
    state: &RegionState,
    (object_type, object_id): (SharedType, Uuid),
    action: Access,
    target: &str,
) -> Result<(), RbacError> {
    match state.grant(object_type, object_id, action, target) {
        Some(_) => Err(RbacError::Duplicate),
        None => Ok(()),
    }
}

/// Refuses when a project would lose what it uses: the row goes, or has another target from now on.
fn check_unused(
    state: &RegionState,
    policy: &RbacPolicy,
    object: &Object,
    new_target: Option<&str>,
) -> Result<(), RbacError> {
    let kept: BTreeSet<&str> = state
        .grants(policy.object_type, policy.object_id, policy.action)
        .filter(|(_, id)| *id != policy.id)
        .map(|(target, _)| target)
        .chain(new_target)
        .collect();
    if kept.contains(RbacPolicy::EVERYBODY) {
        return Ok(());
    }
    let is_default = || {
        let network = state.networks().get(&Id::from_uuid(policy.object_id));
        network.is_some_and(|network| network.is_default)
    };
    if policy.action == Access::AccessAsExternal && policy.is_for_everybody() && is_default() {
        return Err(RbacError::InUse {
            object_id: policy.object_id,
            details: "Default external networks must be shared to everyone.".into(),
        });
    }
    let users = match policy.action {
        Access::AccessAsShared => (object.users)(state, policy.object_id),
        Access::AccessAsExternal => gateway_users(state, Id::from_uuid(policy.object_id)),
    };
    let losing = losers(&users, &object.owner, &kept)
        .find(|project| policy.is_for_everybody() || *project == policy.target_project);
    match losing {
        Some(project) => Err(RbacError::InUse {
            object_id: policy.object_id,
            details: format!("project_id={project}"),
        }),
        None => Ok(()),
    }
}

/// The users that neither own the object nor have it granted. What belongs to no project belongs to the platform.
fn losers<'a>(
    users: &'a BTreeSet<String>,
    owner: &'a str,
    granted: &'a BTreeSet<&'a str>,
) -> impl Iterator<Item = &'a str> {
    users
        .iter()
        .map(String::as_str)
        .filter(move |project| !project.is_empty() && *project != owner && !granted.contains(project))
}

/// The projects that have a gateway in an external network.
fn gateway_users(state: &RegionState, network: Id<Network>) -> BTreeSet<String> {
    state
        .ports_of(network)
        .filter(|port| port.device_owner == ROUTER_GATEWAY)
        .filter_map(|port| router::ports::router_of(state, port))
        .map(|router| router.standard.project_id.clone())
        .collect()
}

/// Whether everybody sees an object.
pub(crate) fn is_shared<R: Shareable>(state: &RegionState, id: Id<R>) -> bool {
    state
        .grant(R::TYPE, id.uuid(), Access::AccessAsShared, RbacPolicy::EVERYBODY)
        .is_some()
}

/// Shares an object with everybody, or no longer: what its attribute `shared` says. Who may say so, and that nobody
/// depends on it, has been checked.
pub(crate) fn set_shared<R: Shareable>(
    tx: &mut Tx<'_, RegionState>,
    env: &Env,
    id: Id<R>,
    owner: &str,
    shared: bool,
) {
    let there = tx
        .state()
        .grant(R::TYPE, id.uuid(), Access::AccessAsShared, RbacPolicy::EVERYBODY);
    match (there, shared) {
        (None, true) => give_to_everybody(tx, env, (R::TYPE, id.uuid()), Access::AccessAsShared, owner),
        (Some(policy), false) => tx.delete(ResourceKey::RbacPolicy(policy)),
        (Some(_), true) | (None, false) => {}
    }
}

/// Makes a network external for everybody, or for nobody: what its attribute `router:external` says. That no gateway
/// is in it has been checked.
pub(crate) fn set_external(
    tx: &mut Tx<'_, RegionState>,
    env: &Env,
    id: Id<Network>,
    owner: &str,
    external: bool,
) {
    let object = (SharedType::Network, id.uuid());
    if !external {
        forget_action(tx, object, Access::AccessAsExternal);
    } else if tx
        .state()
        .grants(object.0, object.1, Access::AccessAsExternal)
        .next()
        .is_none()
    {
        give_to_everybody(tx, env, object, Access::AccessAsExternal, owner);
    }
}

fn give_to_everybody(
    tx: &mut Tx<'_, RegionState>,
    env: &Env,
    (object_type, object_id): (SharedType, Uuid),
    action: Access,
    owner: &str,
) {
    let now = env.source.now();
    let policy = RbacPolicy {
        id: env.new_id(),
        revision: tx.revision(),
        standard: Standard {
            project_id: owner.to_owned(),
            name: String::new(),
            description: String::new(),
            tags: Vec::new(),
            created_at: now,
            updated_at: now,
            revision_number: 0,
        },
        object_type,
        object_id,
        action,
        target_project: RbacPolicy::EVERYBODY.to_owned(),
    };
    tx.put(Resource::RbacPolicy(Arc::new(policy)));
}

/// A project of `users` that would lose an object if it was not shared with everybody any more.
pub(crate) fn would_lose<R: Shareable>(
    state: &RegionState,
    id: Id<R>,
    owner: &str,
    users: &BTreeSet<String>,
) -> Option<String> {
    let kept: BTreeSet<&str> = state
        .grants(R::TYPE, id.uuid(), Access::AccessAsShared)
        .map(|(target, _)| target)
        .filter(|target| *target != RbacPolicy::EVERYBODY)
        .collect();
    losers(users, owner, &kept).next().map(str::to_owned)
}

/// Deletes what was granted on an object that goes.
pub(crate) fn forget<R: Shareable>(tx: &mut Tx<'_, RegionState>, id: Id<R>) {
    for action in [Access::AccessAsShared, Access::AccessAsExternal] {
        forget_action(tx, (R::TYPE, id.uuid()), action);
    }
}

fn forget_action(tx: &mut Tx<'_, RegionState>, (object_type, object_id): (SharedType, Uuid), action: Access) {
    let policies: Vec<_> = tx
        .state()
        .grants(object_type, object_id, action)
        .map(|(_, id)| id)
        .collect();
    for id in policies {
        tx.delete(ResourceKey::RbacPolicy(id));
    }
}
