//! Security groups as hosts need them: the rules of each group compiled into one policy row, for each network in which
//! a host has a port under the group; and what the labels of a network mean.
//!
//! A rule costs one row per host that has a port of its group. A port under a known set costs nothing here: what is told
//! follows from the sets that the host's ports have, never from who else is in a group.

use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroU16,
    sync::Arc,
};

use alcor_dataplane::{
    LabelRow, PolicyRow, Row,
    security::{Family, Remote, Rule, Service},
};
use alcor_dataplane_abi::connection;
use alcor_model::{
    AddressGroup, Id, Label, Network, Port, Revision, SecurityGroup, SecurityGroupRule,
    resource::{self, Direction, Ethertype},
};

use super::{
    Ncm,
    trace::direction,
    view::{KeyedRow, NetworkView},
};

/// One group.
#[derive(Debug, Default)]
struct Group {
    row: Option<Arc<SecurityGroup>>,
    rules: BTreeMap<Id<SecurityGroupRule>, Arc<SecurityGroupRule>>,
    /// The newest change of what the group allows.
    revision: Revision,
    /// Networks in which a host has a port under it.
    networks: BTreeSet<Id<Network>>,
    /// How many of the rules ask for the label of a neighbour.
    asking: usize,
}

/// Whether a rule asks for the label of a neighbour: what comes in has its label with it.
fn asks(rule: &SecurityGroupRule) -> bool {
    rule.matches.direction == Direction::Egress && matches!(rule.matches.remote, resource::Remote::Group(_))
}

/// All groups, their rules and address groups.
#[derive(Debug, Default)]
pub(super) struct SecurityView {
    groups: BTreeMap<Id<SecurityGroup>, Group>,
    rule_groups: BTreeMap<Id<SecurityGroupRule>, Id<SecurityGroup>>,
    address_groups: BTreeMap<Id<AddressGroup>, Arc<AddressGroup>>,
    /// Groups with rules about an address group, with how many.
    about: BTreeMap<Id<AddressGroup>, BTreeMap<Id<SecurityGroup>, usize>>,
    pub(super) label_networks: BTreeMap<Id<Label>, (Id<Network>, NonZeroU16)>,
}

impl SecurityView {
    /// The revision of what a group allows, for a host that has had ports of the network under it since that revision; nothing for a
    /// group that is not there.
    pub(super) fn policy_revision(&self, id: Id<SecurityGroup>, since: Revision) -> Option<Revision> {
        let group = self.groups.get(&id)?;
        group.row.as_ref()?;
        Some(group.revision.max(since))
    }

    /// What a group allows, for a host that has had ports of the network under it since that revision; nothing for a
    /// group that is not there.
    pub(super) fn policy(
        &self,
        network: Id<Network>,
        id: Id<SecurityGroup>,
        since: Revision,
    ) -> Option<KeyedRow> {
        let group = self.groups.get(&id)?;
        let row = group.row.as_ref()?;
        let rules = |direction| -> Vec<Rule> {
            let of_direction = group
                .rules
                .values()
                .filter(|rule| rule.matches.direction == direction);
            of_direction.map(|rule| self.compiled(rule)).collect()
        };
        let sent = Row::Policy(PolicyRow {
            network_id: network,
            group_id: id,
            stateful: row.stateful,
            ingress: rules(Direction::Ingress),
            egress: rules(Direction::Egress),
        });
        Some(KeyedRow::put(self.policy_revision(id, since)?, sent).asking(group.asking > 0))
    }

    /// The rules of a group in the order in which its policy row has them, by direction.
    pub(super) fn rule_ids(
        &self,
        id: Id<SecurityGroup>,
    ) -> BTreeMap<(Id<SecurityGroup>, connection::Direction), Vec<Id<SecurityGroupRule>>> {
        let mut ids: BTreeMap<_, Vec<_>> = BTreeMap::new();
        let rules = self.groups.get(&id).into_iter().flat_map(|group| &group.rules);
        for (rule, row) in rules {
            let direction = direction(row.matches.direction);
            ids.entry((id, direction)).or_default().push(*rule);
        }
        ids
    }

    fn compiled(&self, rule: &SecurityGroupRule) -> Rule {
        let matches = &rule.matches;
        Rule {
            family: match matches.ethertype {
                Ethertype::Ipv4 => Family::Ipv4,
                Ethertype::Ipv6 => Family::Ipv6,
            },
            service: service(matches),
            remote: match matches.remote {
                resource::Remote::Any => Remote::Any,
                resource::Remote::Prefix(prefix) => Remote::Prefixes(vec![prefix.trunc()]),
                resource::Remote::Group(group) => Remote::Group(group),
                resource::Remote::AddressGroup(id) => Remote::Prefixes(
                    self.address_groups
                        .get(&id)
                        .map(|group| group.addresses.clone())
                        .unwrap_or_default(),
                ),
            },
        }
    }

    /// All of this is of one state of the region: a rule that was deleted before it has left no revision, so what groups
    /// allow is as new as the state.
    pub(super) fn loaded(&mut self, revision: Revision) {
        for group in self.groups.values_mut() {
            group.revision = revision;
        }
    }

    /// Whether rules of a group ask for labels of neighbours.
    pub(super) fn looks(&self, group: Id<SecurityGroup>) -> bool {
        self.groups.get(&group).is_some_and(|group| group.asking > 0)
    }

    /// A host in this network has its first port under the group.
    pub(super) fn entered(&mut self, group: Id<SecurityGroup>, network: Id<Network>) {
        self.groups.entry(group).or_default().networks.insert(network);
    }

    /// No host in this network has a port under the group any more.
    pub(super) fn left(&mut self, group: Id<SecurityGroup>, network: Id<Network>) {
        if let Some(group) = self.groups.get_mut(&group) {
            group.networks.remove(&network);
        }
    }

    /// Writes a rule into the indexes of its group, or out of them.
    fn index(&mut self, rule: &SecurityGroupRule, is_there: bool) {
        let change = |count: &mut usize| match is_there {
            true => *count += 1,
            false => *count = count.saturating_sub(1),
        };
        let id = rule.security_group_id;
        if asks(rule) {
            change(&mut self.groups.entry(id).or_default().asking);
        }
        if let resource::Remote::AddressGroup(address_group) = rule.matches.remote {
            let groups = self.about.entry(address_group).or_default();
            change(groups.entry(id).or_default());
            groups.retain(|_, count| *count > 0);
            if groups.is_empty() {
                self.about.remove(&address_group);
            }
        }
    }

    /// Replaces or removes a rule; gives the one that was there.
    fn set_rule(
        &mut self,
        group: Id<SecurityGroup>,
        id: Id<SecurityGroupRule>,
        row: Option<Arc<SecurityGroupRule>>,
    ) -> Option<Arc<SecurityGroupRule>> {
        if let Some(row) = &row {
            self.index(row, true);
        }
        let rules = &mut self.groups.entry(group).or_default().rules;
        let old = match row {
            Some(row) => rules.insert(id, row),
            None => rules.remove(&id),
        };
        if let Some(old) = &old {
            self.index(old, false);
        }
        old
    }
}

/// What packets of a rule carry. Protocol 0 is Neutron's `ip`: any.
fn service(matches: &resource::RuleMatch<resource::Remote>) -> Option<Service> {
    let protocol = matches
        .protocol
        .as_ref()
        .filter(|protocol| protocol.number != 0)?;
    let number = protocol.number;
    let (min, max) = (matches.port_range_min, matches.port_range_max);
    Some(if protocol.is_icmp() {
        match min.and_then(|kind| u8::try_from(kind).ok()) {
            None => Service::all(number),
            Some(kind) => Service::icmp(number, kind, max.and_then(|code| u8::try_from(code).ok())),
        }
    } else if protocol.has_ports() {
        Service::ports(number, min.unwrap_or(0), max.unwrap_or(u16::MAX))
    } else {
        Service::all(number)
    })
}

pub(super) fn label_row(label: &Label) -> Row {
    Row::Label(LabelRow {
        network_id: label.network_id,
        label: label.number,
        groups: label.security_groups.clone(),
    })
}

impl NetworkView {
    /// What a port's label means.
    pub(super) fn groups_of(&self, port: &Port) -> &[Id<SecurityGroup>] {
        let number = port.label.and_then(NonZeroU16::new);
        let label = number.and_then(|number| self.labels.get(&number));
        label.map_or(&[], |label| &label.security_groups)
    }

    /// The groups that ports of a host are under, with the revision since when.
    pub(super) fn groups_on(&self, host: &str) -> Vec<(Id<SecurityGroup>, Revision)> {
        let ports = self.by_host.get(host).into_iter().flatten();
        let rows = ports.filter_map(|id| self.ports.get(id));
        let groups: BTreeSet<_> = rows.flat_map(|port| self.groups_of(port)).collect();
        let since = |group: &Id<SecurityGroup>| Some((*group, self.group_hosts.get(group)?.get(host)?.since));
        groups.into_iter().filter_map(since).collect()
    }

    /// A host has a port now; gives the groups that it had no port under.
    pub(super) fn joins(&mut self, host: &str, port: &Port) -> Vec<Id<SecurityGroup>> {
        let mut groups = self.groups_of(port).to_vec();
        groups.retain(|group| {
            let hosts = self.group_hosts.entry(*group).or_default();
            let member = hosts.entry(host.to_owned()).or_default();
            member.ports += 1;
            if member.ports == 1 {
                member.since = port.revision;
            }
            member.ports == 1
        });
        groups
    }

    /// A host does not have a port any more; gives the groups that it has no other port under.
    pub(super) fn parts(&mut self, host: &str, port: &Port) -> Vec<Id<SecurityGroup>> {
        let mut groups = self.groups_of(port).to_vec();
        groups.retain(|group| {
            let Some(hosts) = self.group_hosts.get_mut(group) else {
                return false;
            };
            match hosts.get_mut(host) {
                Some(member) if member.ports > 1 => {
                    member.ports -= 1;
                    return false;
                }
                _ => hosts.remove(host),
            };
            if hosts.is_empty() {
                self.group_hosts.remove(group);
            }
            true
        });
        groups
    }
}

impl Ncm {
    /// Whether the data plane of a host filters by security groups, as its agent said. What does not is not sent what
    /// it would only pretend to have in force.
    pub(super) fn filters(&self, host: &str) -> bool {
        self.hosts.get(host).is_some_and(|entry| entry.status.filters)
    }

    /// The rules of all groups that ports of a host are under.
    pub(super) fn policies(&self, host: &str, network: Id<Network>, view: &NetworkView) -> Vec<KeyedRow> {
        let groups = view.groups_on(host).into_iter();
        groups
            .filter_map(|(group, since)| self.security.policy(network, group, since))
            .collect()
    }

    pub(super) fn put_security_group(&mut self, row: Arc<SecurityGroup>) {
        let (id, revision) = (row.id, row.revision);
        let group = self.security.groups.entry(id).or_default();
        // Names and the like are nothing to hosts.
        let changed = group.row.as_ref().map(|known| known.stateful) != Some(row.stateful);
        group.row = Some(row);
        if changed {
            self.policy_changed(id, revision);
        }
    }

    pub(super) fn delete_security_group(&mut self, id: Id<SecurityGroup>) {
        // No port is under it any more, so no host has it.
        let rules = self
            .security
            .groups
            .get(&id)
            .into_iter()
            .flat_map(|group| group.rules.keys());
        let rules: Vec<_> = rules.copied().collect();
        for rule in rules {
            self.security.rule_groups.remove(&rule);
            self.security.set_rule(id, rule, None);
        }
        self.security.groups.remove(&id);
    }

    pub(super) fn put_rule(&mut self, row: Arc<SecurityGroupRule>) {
        let (id, group, revision) = (row.id, row.security_group_id, row.revision);
        self.security.rule_groups.insert(id, group);
        let looked = self.security.looks(group);
        let old = self.security.set_rule(group, id, Some(Arc::clone(&row)));
        if old.is_none_or(|known| known.matches != row.matches) {
            self.rules_changed(group, looked, revision);
        }
    }

    pub(super) fn delete_rule(&mut self, id: Id<SecurityGroupRule>, revision: Revision) {
        let Some(group) = self.security.rule_groups.remove(&id) else {
            return;
        };
        let looked = self.security.looks(group);
        self.security.set_rule(group, id, None);
        self.rules_changed(group, looked, revision);
    }

    /// After a rule came or went; `looked`: whether the group's rules asked for labels of neighbours before.
    fn rules_changed(&mut self, group: Id<SecurityGroup>, looked: bool, revision: Revision) {
        let looks = self.security.looks(group);
        if looks != looked {
            for (network, hosts) in self.hosts_under(group) {
                self.touch(network, revision);
                let peers = self.routing.peers(network);
                for host in hosts {
                    for near in peers.iter().chain([&network]) {
                        self.look_in(&host, (network, group), *near, looks, revision);
                    }
                }
            }
        }
        self.policy_changed(group, revision);
    }

    pub(super) fn put_address_group(&mut self, row: Arc<AddressGroup>) {
        let (id, revision) = (row.id, row.revision);
        let known = self.security.address_groups.insert(id, Arc::clone(&row));
        if known.is_some_and(|known| known.addresses == row.addresses) {
            return;
        }
        let groups = self.security.about.get(&id).into_iter().flat_map(BTreeMap::keys);
        let groups: Vec<_> = groups.copied().collect();
        for group in groups {
            self.policy_changed(group, revision);
        }
    }

    pub(super) fn delete_address_group(&mut self, id: Id<AddressGroup>) {
        // No rule is about it any more.
        self.security.address_groups.remove(&id);
    }

    /// The hosts with ports under a group, network by network.
    fn hosts_under(&mut self, group: Id<SecurityGroup>) -> Vec<(Id<Network>, Vec<String>)> {
        let networks = self.security.groups.get(&group).map(|group| &group.networks);
        let networks = networks.into_iter().flatten();
        let hosts = |id: &Id<Network>| {
            let hosts = self.networks.get(id)?.group_hosts.get(&group)?;
            Some((*id, hosts.keys().cloned().collect()))
        };
        let found: Vec<_> = networks.filter_map(hosts).collect();
        self.work.networks_looked_at += found.len() as u64;
        found
    }

    /// Hosts with ports under the group get its rules, network by network.
    fn policy_changed(&mut self, group: Id<SecurityGroup>, revision: Revision) {
        if let Some(known) = self.security.groups.get_mut(&group) {
            known.revision = known.revision.max(revision);
        }
        for (network, hosts) in self.hosts_under(group) {
            // The change is newer than any of these hosts' need of it.
            let Some(row) = self.security.policy(network, group, revision) else {
                continue;
            };
            self.touch(network, revision);
            for host in hosts {
                self.pend_rows(&host, network, std::slice::from_ref(&row));
            }
        }
    }
}
