//! Templates: what rules new groups begin with. A region begins with Neutron's four; an admin may add and remove.

use std::sync::Arc;

use alcor_model::{
    DefaultSecurityGroupRule, Id, Resource, ResourceKey, SecurityGroup,
    resource::{Direction, Ethertype, Remote, RuleMatch, TemplateRemote},
};
use alcor_store::Tx;
use uuid::Uuid;

use super::{
    RuleKey, SecurityGroupError,
    rule::{RuleRequest, check_remote},
    standard,
};
use crate::{
    Env, RegionError, RegionState,
    command::{Caller, StandardCreate, StandardUpdate},
    env::check_if_match,
    managed::Managed,
};

/// Limit of templates: each new group gets a rule of each.
const MAX_TEMPLATES: usize = 100;
/// The name by which the limit is refused.
const LIMIT_NAME: &str = "default_security_group_rule";

/// A template that every region begins with.
struct BuiltIn {
    id: Uuid,
    direction: Direction,
    ethertype: Ethertype,
}

const fn built_in(number: u128, direction: Direction, ethertype: Ethertype) -> BuiltIn {
    BuiltIn {
        // A UUID of version 8: a random or time-ordered id cannot be the same.
        id: Uuid::from_u128(0xa1c0_5ec6_0000_8000_8000_0000_0000_0000 + number),
        direction,
        ethertype,
    }
}

/// Everything out, from every group; everything in from the group itself, for default groups.
const BUILT_IN: [BuiltIn; 4] = [
    built_in(1, Direction::Egress, Ethertype::Ipv4),
    built_in(2, Direction::Egress, Ethertype::Ipv6),
    built_in(3, Direction::Ingress, Ethertype::Ipv4),
    built_in(4, Direction::Ingress, Ethertype::Ipv6),
];

impl BuiltIn {
    fn id(&self) -> Id<DefaultSecurityGroupRule> {
        Id::from_uuid(self.id)
    }

    fn row(&self, tx: &Tx<'_, RegionState>, env: &Env) -> DefaultSecurityGroupRule {
        let egress = self.direction == Direction::Egress;
        let description = format!("Legacy default SG rule for {} traffic", self.direction);
        DefaultSecurityGroupRule {
            id: self.id(),
            revision: tx.revision(),
            standard: standard(env, "", "", &description),
            matches: RuleMatch {
                direction: self.direction,
                ethertype: self.ethertype,
                protocol: None,
                port_range_min: None,
                port_range_max: None,
                remote: if egress {
                    TemplateRemote::Fixed(Remote::Any)
                } else {
                    TemplateRemote::Parent
                },
            },
            used_in_default_sg: true,
            used_in_non_default_sg: egress,
            removed: false,
        }
    }
}

/// Whether the region has the templates that it begins with, or had them.
pub fn has_templates(state: &RegionState) -> bool {
    BUILT_IN
        .iter()
        .all(|template| state.default_security_group_rules().contains(&template.id()))
}

/// Makes the templates that the region begins with, unless they are or were there.
pub fn ensure_templates(tx: &mut Tx<'_, RegionState>, env: &Env) {
    for template in &BUILT_IN {
        if !tx.state().default_security_group_rules().contains(&template.id()) {
            let row = template.row(tx, env);
            tx.put(Resource::DefaultSecurityGroupRule(Arc::new(row)));
        }
    }
}

/// What the first rules of a new group match. A template about a group that is gone gives none: a rule that allows
/// nobody.
pub(super) fn first_rules(
    tx: &mut Tx<'_, RegionState>,
    env: &Env,
    group: Id<SecurityGroup>,
    is_default: bool,
) -> Vec<RuleMatch<Remote>> {
    ensure_templates(tx, env);
    let state = tx.state();
    templates(state)
        .filter(|template| {
            if is_default {
                template.used_in_default_sg
            } else {
                template.used_in_non_default_sg
            }
        })
        .map(|template| with_remote(&template.matches, group))
        .filter(|matches| match matches.remote {
            Remote::Group(id) => state.security_groups().contains(&id),
            Remote::AddressGroup(id) => state.address_groups().contains(&id),
            Remote::Any | Remote::Prefix(_) => true,
        })
        .collect()
}

fn templates(state: &RegionState) -> impl Iterator<Item = &Arc<DefaultSecurityGroupRule>> {
    state
        .default_security_group_rules()
        .iter()
        .filter(|template| !template.removed)
}

fn with_remote(matches: &RuleMatch<TemplateRemote>, parent: Id<SecurityGroup>) -> RuleMatch<Remote> {
    RuleMatch {
        direction: matches.direction,
        ethertype: matches.ethertype,
        protocol: matches.protocol.clone(),
        port_range_min: matches.port_range_min,
        port_range_max: matches.port_range_max,
        remote: match matches.remote {
            TemplateRemote::Parent => Remote::Group(parent),
            TemplateRemote::Fixed(remote) => remote,
        },
    }
}

/// `POST /v2.0/default-security-group-rules`. Of the group, `None` is the one that the rule is made for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemplateCreate {
    /// Standard attributes; a template belongs to nobody, whatever is given as the owner.
    pub standard: StandardCreate,
    /// What it matches.
    pub request: RuleRequest<Option<Id<SecurityGroup>>>,
    /// Whether projects' default groups get it.
    pub used_in_default_sg: bool,
    /// Whether other groups get it.
    pub used_in_non_default_sg: bool,
}

impl Managed for DefaultSecurityGroupRule {
    type Create = TemplateCreate;
    type Update = StandardUpdate;
    const QUOTA: Option<&'static str> = None;

    fn create(
        tx: &mut Tx<'_, RegionState>,
        env: &Env,
        caller: &Caller,
        create: Self::Create,
    ) -> Result<Arc<Self>, RegionError> {
        ensure_templates(tx, env);
        let matches = create
            .request
            .normalised(TemplateRemote::Fixed, |group| match group {
                None => TemplateRemote::Parent,
                Some(id) => TemplateRemote::Fixed(Remote::Group(id)),
            })?;
        if let TemplateRemote::Fixed(remote) = matches.remote {
            check_remote(tx.state(), caller, remote)?;
        }
        let template = Self {
            id: env.new_id(),
            revision: tx.revision(),
            standard: standard(env, "", "", &create.standard.description),
            matches,
            used_in_default_sg: create.used_in_default_sg,
            used_in_non_default_sg: create.used_in_non_default_sg,
            removed: false,
        };
        check_different(tx.state(), &template)?;
        if templates(tx.state()).count() >= MAX_TEMPLATES {
            return Err(RegionError::OverQuota(LIMIT_NAME));
        }
        let id = template.id;
        tx.put(Resource::DefaultSecurityGroupRule(Arc::new(template)));
        Ok(Arc::clone(existing(tx.state(), id)?))
    }

    /// Only the description changes.
    fn update(
        tx: &mut Tx<'_, RegionState>,
        env: &Env,
        _: &Caller,
        id: &Id<Self>,
        update: Self::Update,
        if_match: Option<u64>,
    ) -> Result<Arc<Self>, RegionError> {
        let mut template = Self::clone(existing(tx.state(), *id)?);
        env.update_standard(&mut template.standard, update, if_match)?;
        tx.put(Resource::DefaultSecurityGroupRule(Arc::new(template)));
        Ok(Arc::clone(existing(tx.state(), *id)?))
    }

    fn delete(
        tx: &mut Tx<'_, RegionState>,
        _: &Env,
        _: &Caller,
        id: &Id<Self>,
        if_match: Option<u64>,
    ) -> Result<(), RegionError> {
        let mut template = Self::clone(existing(tx.state(), *id)?);
        check_if_match(&template.standard, if_match)?;
        if BUILT_IN.iter().any(|built_in| built_in.id() == *id) {
            template.removed = true;
            tx.put(Resource::DefaultSecurityGroupRule(Arc::new(template)));
        } else {
            tx.delete(ResourceKey::DefaultSecurityGroupRule(*id));
        }
        Ok(())
    }

    fn visible(&self, _: &Caller, _: &RegionState) -> bool {
        !self.removed
    }
}

/// No group may get the same rule from two templates.
fn check_different(
    state: &RegionState,
    template: &DefaultSecurityGroupRule,
) -> Result<(), SecurityGroupError> {
    // What no group is called stands for the group that the rule is made for.
    let parent = Id::from_uuid(Uuid::nil());
    let key = |template: &DefaultSecurityGroupRule| RuleKey::of(&with_remote(&template.matches, parent));
    let together = |other: &DefaultSecurityGroupRule| {
        (other.used_in_default_sg && template.used_in_default_sg)
            || (other.used_in_non_default_sg && template.used_in_non_default_sg)
    };
    match templates(state).find(|other| together(other) && key(other) == key(template)) {
        Some(other) => Err(SecurityGroupError::TemplateExists(other.id)),
        None => Ok(()),
    }
}

fn existing(
    state: &RegionState,
    id: Id<DefaultSecurityGroupRule>,
) -> Result<&Arc<DefaultSecurityGroupRule>, SecurityGroupError> {
    state
        .default_security_group_rules()
        .get(&id)
        .filter(|template| !template.removed)
        .ok_or(SecurityGroupError::TemplateNotFound(id))
}
