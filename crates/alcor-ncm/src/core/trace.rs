//! What both hosts would do with a packet: collects the rows that they have been sent, and how far they are with them.
//!
//! The core only collects; [`TraceInputs::run`] computes, and whoever asked may do that elsewhere. Finding the receiver looks at
//! the ports of one host in one network.

use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroU16,
    sync::Arc,
};

use alcor_dataplane::{
    Row, RowChange, RowKey,
    probe::Payload,
    trace::{Allowing, Probe, Side, trace},
};
use alcor_dataplane_abi::connection::Direction;
use alcor_model::{
    Id, Network, Port, Revision, SecurityGroup, SecurityGroupRule, resource,
    trace::{Trace, TraceError, TraceQuestion, TraceStage, TracedHost},
};
use alcor_southbound::convert::decode_row;

use super::{
    Ncm,
    view::{KeyedRow, NetworkView, port_row},
};

/// The rules of a group in the order of its policy row.
type RuleIds = BTreeMap<(Id<SecurityGroup>, Direction), Vec<Id<SecurityGroupRule>>>;

/// All that an answer needs.
#[derive(Clone, Debug)]
pub struct TraceInputs {
    question: TraceQuestion,
    network_id: Id<Network>,
    source: (TracedHost, Vec<Row>),
    destination: Option<(TracedHost, Vec<Row>)>,
    rules: RuleIds,
}

impl TraceInputs {
    /// What would become of the packet.
    pub fn run(self) -> Trace {
        let TraceQuestion {
            from,
            to,
            protocol,
            source_port,
            point,
        } = self.question;
        let payload = Payload {
            protocol,
            source_port,
            point,
        };
        let destination = self.destination.as_ref().map(|(_, rows)| &rows[..]);
        let way = trace(&self.source.1, destination, &Probe { from, to, payload });
        let receiver = self.destination.as_ref().map_or("-", |(host, _)| &host.name);
        let rule_id = |rule: &Allowing| {
            let rules = self.rules.get(&(rule.group, rule.direction))?;
            rules.get(rule.position).copied()
        };
        let stages = way.stages.into_iter().map(|stage| TraceStage {
            host: match stage.side {
                Side::Source => self.source.0.name.clone(),
                Side::Destination => receiver.to_owned(),
            },
            stage: stage.name.to_owned(),
            passes: stage.passes,
            detail: stage.detail,
            security_group_id: stage.rule.map(|rule| rule.group),
            rule_id: stage.rule.as_ref().and_then(rule_id),
        });
        Trace {
            question: self.question,
            source: way.source,
            network_id: self.network_id,
            stages: stages.collect(),
            delivered_to: way.delivered_to,
            dropped: way.dropped.map(|reason| reason.as_str().to_owned()),
            hosts: [Some(self.source.0), self.destination.map(|(host, _)| host)]
                .into_iter()
                .flatten()
                .collect(),
        }
    }
}

impl Ncm {
    /// What a trace needs: rows of the sender's host, and of the receiver's if it is another one.
    ///
    /// # Errors
    /// When there is no such port, or it is bound to no host.
    pub fn trace_inputs(&self, question: &TraceQuestion) -> Result<TraceInputs, TraceError> {
        let unknown = TraceError::UnknownPort(question.from);
        let network = *self.port_networks.get(&question.from).ok_or(unknown)?;
        let view = self.networks.get(&network).ok_or(unknown)?;
        let sender = view.ports.get(&question.from).ok_or(unknown)?;
        let bound = |port: &Port| port.is_bound().then(|| port.binding.host_id.clone());
        let host = bound(sender).ok_or(TraceError::NotBound(question.from))?;
        // A port that is bound to no host receives nothing.
        let owner = self.directory.owner(view.index, question.to);
        let owner = owner.and_then(|owner| self.directory.name(owner));
        let there = owner
            .and_then(|owner| view.by_host.get(&**owner))
            .into_iter()
            .flatten();
        let has = |port: &&Arc<Port>| port.fixed_ips.iter().any(|fixed| fixed.ip_address == question.to);
        let receiver = there.filter_map(|port| view.ports.get(port)).find(has);
        let ports: Vec<&Arc<Port>> = [Some(sender), receiver].into_iter().flatten().collect();
        let other = receiver
            .and_then(|port| bound(port))
            .filter(|other| *other != host);
        let groups: BTreeSet<_> = ports
            .iter()
            .flat_map(|port| view.groups_of(port))
            .copied()
            .collect();
        Ok(TraceInputs {
            question: *question,
            network_id: network,
            source: self.traced(&host, network, view, &ports),
            destination: other.map(|other| self.traced(&other, network, view, &ports)),
            rules: groups
                .into_iter()
                .flat_map(|group| self.security.rule_ids(group))
                .collect(),
        })
    }

    /// What a host has been sent, as far as these ports are concerned, and how far it is with it.
    fn traced(
        &self,
        host: &str,
        network: Id<Network>,
        view: &NetworkView,
        ports: &[&Arc<Port>],
    ) -> (TracedHost, Vec<Row>) {
        let filters = self.filters(host);
        let labels = ports
            .iter()
            .filter_map(|port| NonZeroU16::new(port.label?))
            .collect();
        let rows = self.rows_about(host, network, view, ports, &labels);
        let entry = self.hosts.get(host);
        let complete = entry.and_then(|entry| entry.status.complete_to(network));
        let newest = rows
            .iter()
            .map(|row| row.revision)
            .max()
            .unwrap_or(Revision::ZERO);
        let refused: Vec<String> = entry
            .into_iter()
            .flat_map(|entry| rows.iter().filter_map(|row| entry.status.refusal(&row.key)))
            .collect();
        let decoded = rows.iter().filter_map(|row| match decode_row(network, &row.row) {
            Ok((_, RowChange::Put(row))) => Some(row),
            _ => None,
        });
        let traced = TracedHost {
            name: host.to_owned(),
            alive: entry.is_some_and(|entry| entry.session.is_some()),
            filters,
            intended_revision: newest,
            applied_revision: complete,
            in_force: complete >= Some(newest) && refused.is_empty(),
            refused,
        };
        (traced, decoded.collect())
    }

    fn rows_about(
        &self,
        host: &str,
        network: Id<Network>,
        view: &NetworkView,
        ports: &[&Arc<Port>],
        labels: &BTreeSet<NonZeroU16>,
    ) -> Vec<KeyedRow> {
        let filters = self.filters(host);
        let mut rows: Vec<KeyedRow> = view.network_row(filters).into_iter().collect();
        rows.extend(view.subnet_rows());
        if filters {
            rows.extend(self.policies(host, network, view));
            let of_ports = |row: &KeyedRow| match row.key {
                RowKey::Label(_, number) => labels.contains(&number),
                _ => false,
            };
            rows.extend(view.label_rows().filter(of_ports));
        }
        for port in ports {
            if port.binding.host_id == host {
                rows.push(port_row(port, filters));
            } else {
                rows.extend(view.neighbour_rows(port, self.tunnel(&port.binding.host_id), false));
            }
        }
        rows
    }
}

/// Neutron's direction of rules as data planes say it.
pub(super) const fn direction(of: resource::Direction) -> Direction {
    match of {
        resource::Direction::Ingress => Direction::Ingress,
        resource::Direction::Egress => Direction::Egress,
    }
}
