//! Security groups, their rules and address groups: their indexes, and who sees them.

use std::sync::Arc;

use alcor_model::{
    AddressGroup, DefaultSecurityGroupRule, Id, Port, SecurityGroup, SecurityGroupRule,
    resource::{Access, Remote, RuleMatch, SharedType},
};
use alcor_store::{MultiIndex, UniqueIndex};

use super::{Indexed, RegionState};
use crate::{command::Caller, security_group::RuleKey};

/// What is derived from the rows of security groups and their rules.
#[derive(Clone, Default, PartialEq)]
pub(crate) struct SecurityIndexes {
    default_by_project: UniqueIndex<String, Id<SecurityGroup>>,
    groups_by_project: MultiIndex<String, Id<SecurityGroup>>,
    rules_by_project: MultiIndex<String, Id<SecurityGroupRule>>,
    rules_by_group: MultiIndex<Id<SecurityGroup>, Id<SecurityGroupRule>>,
    rules_by_remote_group: MultiIndex<Id<SecurityGroup>, Id<SecurityGroupRule>>,
    rules_by_address_group: MultiIndex<Id<AddressGroup>, Id<SecurityGroupRule>>,
    rule_by_key: UniqueIndex<(Id<SecurityGroup>, RuleKey), Id<SecurityGroupRule>>,
    ports_by_group: MultiIndex<Id<SecurityGroup>, Id<Port>>,
}

impl SecurityIndexes {
    /// Called with the port's row by the index of ports.
    pub(super) fn port_added(&mut self, port: &Port) {
        for group in &port.security_groups {
            self.ports_by_group.insert(*group, port.id);
        }
    }

    /// Called with the port's row by the index of ports.
    pub(super) fn port_removed(&mut self, port: &Port) {
        for group in &port.security_groups {
            self.ports_by_group.remove(*group, port.id);
        }
    }
}

impl RegionState {
    /// The default group of a project.
    pub fn default_security_group(&self, project_id: &str) -> Option<Id<SecurityGroup>> {
        self.security
            .default_by_project
            .get(&project_id.to_owned())
            .copied()
    }

    /// The groups that a project sees: its own, and those shared with it. In no order, some perhaps twice.
    pub fn security_groups_seen_by(
        &self,
        project: &str,
    ) -> impl Iterator<Item = &Arc<SecurityGroup>> + use<'_> {
        self.security
            .groups_by_project
            .get(&project.to_owned())
            .copied()
            .chain(
                self.given_to(SharedType::SecurityGroup, Access::AccessAsShared, project)
                    .map(Id::from_uuid),
            )
            .filter_map(|id| self.security_groups.get(&id))
    }

    /// The rules that a project sees: its own, and those of its own groups. In no order, some perhaps twice.
    pub fn rules_seen_by(&self, project: &str) -> impl Iterator<Item = &Arc<SecurityGroupRule>> + use<'_> {
        let own = self.security.rules_by_project.get(&project.to_owned());
        let groups = self.security.groups_by_project.get(&project.to_owned());
        own.filter_map(|id| self.security_group_rules.get(id))
            .chain(groups.flat_map(|group| self.rules_of(*group)))
    }

    /// The rules of a group.
    pub fn rules_of(&self, group: Id<SecurityGroup>) -> impl Iterator<Item = &Arc<SecurityGroupRule>> {
        self.security
            .rules_by_group
            .get(&group)
            .filter_map(|id| self.security_group_rules.get(id))
    }

    /// The rules, of whatever group, whose remote is this group.
    pub fn rules_about(&self, group: Id<SecurityGroup>) -> impl Iterator<Item = &Arc<SecurityGroupRule>> {
        self.security
            .rules_by_remote_group
            .get(&group)
            .filter_map(|id| self.security_group_rules.get(id))
    }

    /// The rules whose remote is this address group.
    pub fn rules_with_addresses(
        &self,
        group: Id<AddressGroup>,
    ) -> impl Iterator<Item = &Arc<SecurityGroupRule>> {
        self.security
            .rules_by_address_group
            .get(&group)
            .filter_map(|id| self.security_group_rules.get(id))
    }

    /// The rule of a group that matches the same packets, if there is one.
    pub fn rule_like(
        &self,
        group: Id<SecurityGroup>,
        matches: &RuleMatch<Remote>,
    ) -> Option<Id<SecurityGroupRule>> {
        self.security
            .rule_by_key
            .get(&(group, RuleKey::of(matches)))
            .copied()
    }

    /// The ports under a group.
    pub fn ports_under(&self, group: Id<SecurityGroup>) -> impl Iterator<Item = &Arc<Port>> {
        self.security
            .ports_by_group
            .get(&group)
            .filter_map(|id| self.ports.get(id))
    }

    /// Whether ports are under a group.
    pub fn has_ports_under(&self, group: Id<SecurityGroup>) -> bool {
        self.security.ports_by_group.contains_entry(&group)
    }

    /// The group, if the caller may see it.
    pub fn visible_security_group(
        &self,
        caller: &Caller,
        id: Id<SecurityGroup>,
    ) -> Option<&Arc<SecurityGroup>> {
        self.security_groups
            .get(&id)
            .filter(|group| self.sees_security_group(caller, group))
    }

    /// Whether the caller may see a group.
    pub fn sees_security_group(&self, caller: &Caller, group: &SecurityGroup) -> bool {
        caller.is_admin
            || group.standard.project_id == caller.project_id
            || self.shared_with(SharedType::SecurityGroup, group.id.uuid(), &caller.project_id)
    }

    /// Whether the caller may see a rule: its own, or one of its own groups'.
    pub fn sees_rule(&self, caller: &Caller, rule: &SecurityGroupRule) -> bool {
        caller.is_admin
            || rule.standard.project_id == caller.project_id
            || self
                .security_groups
                .get(&rule.security_group_id)
                .is_some_and(|group| group.standard.project_id == caller.project_id)
    }

    /// The address group, if the caller may see it.
    pub fn visible_address_group(&self, caller: &Caller, id: Id<AddressGroup>) -> Option<&Arc<AddressGroup>> {
        self.address_groups
            .get(&id)
            .filter(|group| self.sees_address_group(caller, group))
    }

    /// Whether the caller may see an address group.
    pub fn sees_address_group(&self, caller: &Caller, group: &AddressGroup) -> bool {
        caller.is_admin
            || group.standard.project_id == caller.project_id
            || self.shared_with(SharedType::AddressGroup, group.id.uuid(), &caller.project_id)
    }
}

impl Indexed for AddressGroup {}

impl Indexed for DefaultSecurityGroupRule {}

impl Indexed for SecurityGroup {
    fn index(&self, state: &mut RegionState) {
        state
            .security
            .groups_by_project
            .insert(self.standard.project_id.clone(), self.id);
        if self.is_default {
            state
                .security
                .default_by_project
                .insert(self.standard.project_id.clone(), self.id);
        }
    }

    fn unindex(&self, state: &mut RegionState) {
        state
            .security
            .groups_by_project
            .remove(self.standard.project_id.clone(), self.id);
        if self.is_default {
            state
                .security
                .default_by_project
                .remove(&self.standard.project_id, &self.id);
        }
    }
}

impl Indexed for SecurityGroupRule {
    fn index(&self, state: &mut RegionState) {
        let group = self.security_group_id;
        let indexes = &mut state.security;
        indexes.rules_by_group.insert(group, self.id);
        indexes
            .rules_by_project
            .insert(self.standard.project_id.clone(), self.id);
        indexes
            .rule_by_key
            .insert((group, RuleKey::of(&self.matches)), self.id);
        match self.matches.remote {
            Remote::Group(remote) => indexes.rules_by_remote_group.insert(remote, self.id),
            Remote::AddressGroup(remote) => indexes.rules_by_address_group.insert(remote, self.id),
            Remote::Any | Remote::Prefix(_) => {}
        }
    }

    fn unindex(&self, state: &mut RegionState) {
        let group = self.security_group_id;
        let indexes = &mut state.security;
        indexes.rules_by_group.remove(group, self.id);
        indexes
            .rules_by_project
            .remove(self.standard.project_id.clone(), self.id);
        indexes
            .rule_by_key
            .remove(&(group, RuleKey::of(&self.matches)), &self.id);
        match self.matches.remote {
            Remote::Group(remote) => indexes.rules_by_remote_group.remove(remote, self.id),
            Remote::AddressGroup(remote) => indexes.rules_by_address_group.remove(remote, self.id),
            Remote::Any | Remote::Prefix(_) => {}
        }
    }
}
