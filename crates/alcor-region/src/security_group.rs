//! Security groups: the groups themselves, a project's default group, and what a port's groups must be. Rules and
//! templates have modules of their own. What rules do to packets is not here.

mod error;
mod ports;
mod rule;
mod template;

use std::{collections::BTreeSet, sync::Arc};

use alcor_model::{
    Id, Resource, ResourceKey, SecurityGroup, SecurityGroupRule,
    resource::{Remote, RuleMatch, SharedType, Standard},
};
use alcor_store::Tx;

pub use error::SecurityGroupError;
pub(crate) use ports::{NewPort, on_create, on_update};
pub use rule::{RuleCreate, RuleKey, RuleRequest};
pub use template::{TemplateCreate, ensure_templates, has_templates};

use crate::{
    Env, RegionError, RegionState,
    command::{Caller, StandardCreate, StandardUpdate},
    env::check_if_match,
    managed::Managed,
    quota,
    rbac::{self, Shareable},
};

/// What Neutron writes on a default group.
const DEFAULT_DESCRIPTION: &str = "Default security group";

/// `POST /v2.0/security-groups`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SecurityGroupCreate {
    /// Standard attributes.
    pub standard: StandardCreate,
    /// Default true.
    pub stateful: Option<bool>,
}

/// `PUT /v2.0/security-groups/{id}`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SecurityGroupUpdate {
    /// Standard attributes.
    pub standard: StandardUpdate,
    /// New state.
    pub stateful: Option<bool>,
}

impl Managed for SecurityGroup {
    type Create = SecurityGroupCreate;
    type Update = SecurityGroupUpdate;
    const QUOTA: Option<&'static str> = Some("security_group");

    /// Makes a group with the rules of the templates; the project's default group comes first.
    fn create(
        tx: &mut Tx<'_, RegionState>,
        env: &Env,
        caller: &Caller,
        create: Self::Create,
    ) -> Result<Arc<Self>, RegionError> {
        check_name(&create.standard.name)?;
        let standard = env.standard(caller, create.standard)?;
        ensure_default(tx, env, &standard.project_id)?;
        make(tx, env, standard, create.stateful.unwrap_or(true), false)
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
        if let Some(name) = &update.standard.name {
            check_name(name)?;
            if group.is_default {
                return Err(SecurityGroupError::CannotUpdateDefault.into());
            }
        }
        env.update_standard(&mut group.standard, update.standard, if_match)?;
        if let Some(stateful) = update.stateful
            && stateful != group.stateful
        {
            if tx.state().has_ports_under(*id) {
                return Err(SecurityGroupError::InUse(*id).into());
            }
            group.stateful = stateful;
        }
        let group = Arc::new(group);
        tx.put(Resource::SecurityGroup(group));
        written(tx, *id)
    }

    /// Deletes a group with its rules, and the rules of other groups that are about it.
    fn delete(
        tx: &mut Tx<'_, RegionState>,
        env: &Env,
        caller: &Caller,
        id: &Id<Self>,
        if_match: Option<u64>,
    ) -> Result<(), RegionError> {
        let group = Arc::clone(visible(tx.state(), caller, *id)?);
        check_if_match(&group.standard, if_match)?;
        if tx.state().has_ports_under(*id) {
            return Err(SecurityGroupError::InUse(*id).into());
        }
        if group.is_default && !caller.is_admin {
            return Err(SecurityGroupError::CannotRemoveDefault.into());
        }
        let own: Vec<_> = tx.state().rules_of(*id).map(|rule| rule.id).collect();
        for rule in own {
            tx.delete(ResourceKey::SecurityGroupRule(rule));
        }
        let about: Vec<_> = tx.state().rules_about(*id).cloned().collect();
        for rule in about {
            tx.delete(ResourceKey::SecurityGroupRule(rule.id));
            rules_changed(tx, env, rule.security_group_id);
        }
        rbac::forget(tx, *id);
        tx.delete(ResourceKey::SecurityGroup(*id));
        Ok(())
    }

    fn visible(&self, caller: &Caller, state: &RegionState) -> bool {
        state.sees_security_group(caller, self)
    }
}

impl Shareable for SecurityGroup {
    const TYPE: SharedType = SharedType::SecurityGroup;

    fn users(state: &RegionState, id: Id<Self>) -> BTreeSet<String> {
        state
            .ports_under(id)
            .map(|port| port.standard.project_id.clone())
            .collect()
    }

    fn not_found(id: Id<Self>) -> RegionError {
        SecurityGroupError::NotFound(id.to_string()).into()
    }
}

/// The default group of a project; makes it when it is not there yet.
///
/// # Errors
/// When the project may not have so many rules.
pub fn ensure_default(
    tx: &mut Tx<'_, RegionState>,
    env: &Env,
    project_id: &str,
) -> Result<Id<SecurityGroup>, RegionError> {
    if let Some(id) = tx.state().default_security_group(project_id) {
        return Ok(id);
    }
    let standard = standard(env, project_id, SecurityGroup::DEFAULT_NAME, DEFAULT_DESCRIPTION);
    Ok(make(tx, env, standard, true, true)?.id)
}

/// Standard attributes of what the platform makes by itself.
fn standard(env: &Env, project_id: &str, name: &str, description: &str) -> Standard {
    let now = env.source.now();
    Standard {
        project_id: project_id.to_owned(),
        name: name.to_owned(),
        description: description.to_owned(),
        tags: Vec::new(),
        created_at: now,
        updated_at: now,
        revision_number: 1,
    }
}

fn make(
    tx: &mut Tx<'_, RegionState>,
    env: &Env,
    standard: Standard,
    stateful: bool,
    is_default: bool,
) -> Result<Arc<SecurityGroup>, RegionError> {
    let project_id = standard.project_id.clone();
    let group = SecurityGroup {
        id: env.new_id(),
        revision: tx.revision(),
        standard,
        stateful,
        is_default,
    };
    let id = group.id;
    tx.put(Resource::SecurityGroup(Arc::new(group)));
    for matches in template::first_rules(tx, env, id, is_default) {
        put_rule(tx, env, id, matches, self::standard(env, &project_id, "", ""));
    }
    quota::check::<SecurityGroupRule>(tx, env, &project_id)?;
    written(tx, id)
}

fn put_rule(
    tx: &mut Tx<'_, RegionState>,
    env: &Env,
    group: Id<SecurityGroup>,
    matches: RuleMatch<Remote>,
    standard: Standard,
) -> Id<SecurityGroupRule> {
    let rule = SecurityGroupRule {
        id: env.new_id(),
        revision: tx.revision(),
        standard,
        security_group_id: group,
        matches,
    };
    let id = rule.id;
    tx.put(Resource::SecurityGroupRule(Arc::new(rule)));
    id
}

/// A group changes with its rules: its revision number says so.
fn rules_changed(tx: &mut Tx<'_, RegionState>, env: &Env, id: Id<SecurityGroup>) {
    if let Some(group) = tx.state().security_groups().get(&id) {
        let mut group = SecurityGroup::clone(group);
        env.touch(&mut group.standard);
        tx.put(Resource::SecurityGroup(Arc::new(group)));
    }
}

/// Only the platform makes a group with the name of the default group.
fn check_name(name: &str) -> Result<(), SecurityGroupError> {
    if name.eq_ignore_ascii_case(SecurityGroup::DEFAULT_NAME) {
        Err(SecurityGroupError::DefaultAlreadyExists)
    } else {
        Ok(())
    }
}

fn visible<'a>(
    state: &'a RegionState,
    caller: &Caller,
    id: Id<SecurityGroup>,
) -> Result<&'a Arc<SecurityGroup>, SecurityGroupError> {
    state
        .visible_security_group(caller, id)
        .ok_or_else(|| SecurityGroupError::NotFound(id.to_string()))
}

fn written(tx: &Tx<'_, RegionState>, id: Id<SecurityGroup>) -> Result<Arc<SecurityGroup>, RegionError> {
    tx.state()
        .security_groups()
        .get(&id)
        .cloned()
        .ok_or_else(|| SecurityGroupError::NotFound(id.to_string()).into())
}
