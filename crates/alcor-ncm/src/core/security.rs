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
    LabelRow, PolicyRow, Row, RowKey,
    security::{Family, Remote, Rule, Service},
};
use alcor_model::{
    AddressGroup, Id, Label, Network, Port, Revision, SecurityGroup, SecurityGroupRule,
    resource::{self, Direction, Ethertype},
};

use super::{
    Ncm,
    view::{KeyedRow, NetworkView},
};

/// One group.
#[derive(Debug, Default)]
struct Group {
    row: Option<Arc<SecurityGroup>>,
    rules: BTreeMap<Id<SecurityGroupRule>, Arc<SecurityGroupRule>>,
    /// The newest change of what the group allows.
    revision: Revision,
}

/// All groups, their rules and address groups.
#[derive(Debug, Default)]
pub(super) struct SecurityView {
    groups: BTreeMap<Id<SecurityGroup>, Group>,
    rule_groups: BTreeMap<Id<SecurityGroupRule>, Id<SecurityGroup>>,
    address_groups: BTreeMap<Id<AddressGroup>, Arc<AddressGroup>>,
    label_networks: BTreeMap<Id<Label>, (Id<Network>, NonZeroU16)>,
}

impl SecurityView {
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
        Some(KeyedRow::put(
            group.revision.max(since),
            &Row::Policy(PolicyRow {
                network_id: network,
                group_id: id,
                stateful: row.stateful,
                ingress: rules(Direction::Ingress),
                egress: rules(Direction::Egress),
            }),
        ))
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

    /// The groups with a rule about an address group.
    fn groups_about(&self, id: Id<AddressGroup>) -> Vec<Id<SecurityGroup>> {
        let about = |rule: &Arc<SecurityGroupRule>| rule.matches.remote == resource::Remote::AddressGroup(id);
        let groups = self.groups.iter();
        groups
            .filter(|(_, group)| group.rules.values().any(about))
            .map(|(id, _)| *id)
            .collect()
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

fn label_row(label: &Label) -> Row {
    Row::Label(LabelRow {
        network_id: label.network_id,
        label: label.number,
        groups: label.security_groups.clone(),
    })
}

impl NetworkView {
    /// What a port's label means.
    fn groups_of(&self, port: &Port) -> &[Id<SecurityGroup>] {
        let number = port.label.and_then(NonZeroU16::new);
        let label = number.and_then(|number| self.labels.get(&number));
        label.map_or(&[], |label| &label.security_groups)
    }

    /// The groups that ports of a host are under, with the revision since when.
    fn groups_on(&self, host: &str) -> Vec<(Id<SecurityGroup>, Revision)> {
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

    /// The labels as rows.
    pub(super) fn label_rows(&self) -> impl Iterator<Item = KeyedRow> {
        self.labels
            .values()
            .map(|label| KeyedRow::put(label.revision, &label_row(label)))
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
        if let Some(group) = self.security.groups.remove(&id) {
            for rule in group.rules.keys() {
                self.security.rule_groups.remove(rule);
            }
        }
    }

    pub(super) fn put_rule(&mut self, row: Arc<SecurityGroupRule>) {
        let (id, group, revision) = (row.id, row.security_group_id, row.revision);
        self.security.rule_groups.insert(id, group);
        let rules = &mut self.security.groups.entry(group).or_default().rules;
        let changed = rules.get(&id).map(|known| &known.matches) != Some(&row.matches);
        rules.insert(id, row);
        if changed {
            self.policy_changed(group, revision);
        }
    }

    pub(super) fn delete_rule(&mut self, id: Id<SecurityGroupRule>, revision: Revision) {
        let Some(group) = self.security.rule_groups.remove(&id) else {
            return;
        };
        if let Some(known) = self.security.groups.get_mut(&group) {
            known.rules.remove(&id);
            self.policy_changed(group, revision);
        }
    }

    pub(super) fn put_address_group(&mut self, row: Arc<AddressGroup>) {
        let (id, revision) = (row.id, row.revision);
        let known = self.security.address_groups.insert(id, Arc::clone(&row));
        if known.is_some_and(|known| known.addresses == row.addresses) {
            return;
        }
        for group in self.security.groups_about(id) {
            self.policy_changed(group, revision);
        }
    }

    pub(super) fn delete_address_group(&mut self, id: Id<AddressGroup>) {
        // No rule is about it any more.
        self.security.address_groups.remove(&id);
    }

    /// Hosts with ports under the group get its rules, network by network.
    fn policy_changed(&mut self, group: Id<SecurityGroup>, revision: Revision) {
        if let Some(known) = self.security.groups.get_mut(&group) {
            known.revision = known.revision.max(revision);
        }
        let networks: Vec<_> = self
            .networks
            .iter()
            .filter(|(_, view)| view.group_hosts.contains_key(&group))
            .map(|(id, view)| {
                let hosts = view.group_hosts.get(&group);
                (
                    *id,
                    hosts
                        .into_iter()
                        .flat_map(BTreeMap::keys)
                        .cloned()
                        .collect::<Vec<_>>(),
                )
            })
            .collect();
        for (network, hosts) in networks {
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

    /// A set has a number, or a number rests: every host in the network learns it.
    pub(super) fn put_label(&mut self, row: Arc<Label>) {
        let (network, number, revision) = (row.network_id, row.number, row.revision);
        self.security.label_networks.insert(row.id, (network, number));
        if row.retired {
            return self.drop_label(network, number, revision, Some(row.id));
        }
        let rows = [KeyedRow::put(revision, &label_row(&row))];
        let view = self.touch(network, revision);
        view.retired.remove(&row.id);
        view.labels.insert(number, row);
        for host in self.interested(network) {
            self.pend_rows(&host, network, &rows);
        }
    }

    pub(super) fn delete_label(&mut self, id: Id<Label>, revision: Revision) {
        if let Some((network, number)) = self.security.label_networks.remove(&id) {
            if let Some(view) = self.networks.get_mut(&network) {
                view.retired.remove(&id);
            }
            self.drop_label(network, number, revision, None);
        }
    }

    fn drop_label(
        &mut self,
        network: Id<Network>,
        number: NonZeroU16,
        revision: Revision,
        retired: Option<Id<Label>>,
    ) {
        let (limit, key) = (self.options.tombstones, RowKey::Label(network, number));
        let view = self.touch(network, revision);
        if let Some(id) = retired {
            view.retired.insert(id, revision);
        }
        if view.labels.remove(&number).is_none() {
            return;
        }
        view.bury(limit, revision, key);
        let rows = [KeyedRow::gone(revision, &key)];
        for host in self.interested(network) {
            self.pend_rows(&host, network, &rows);
        }
    }
}
