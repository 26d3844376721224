//! What both hosts would do with a packet: collects the rows that they have been sent, and how far they are with them.
//!
//! The core only collects; [`TraceInputs::run`] computes, and whoever asked may do that elsewhere. Finding the receiver looks at
//! the ports of one host in one network.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use alcor_dataplane::{
    Row, RowChange,
    probe::Payload,
    trace::{Allowing, Probe, Side, trace},
};
use alcor_dataplane_abi::connection::Direction;
use alcor_model::{
    Id, Network, Port, Revision, SecurityGroup, SecurityGroupRule, resource,
    trace::{Trace, TraceError, TraceQuestion, TraceStage, TracedHost},
};

use super::{
    Ncm,
    security::label_row,
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
        let receiver = self.receiver(network, view, question.to);
        let ports: Vec<&Arc<Port>> = [Some(sender), receiver].into_iter().flatten().collect();
        let other = receiver
            .and_then(|port| bound(port))
            .filter(|other| *other != host);
        let groups: BTreeSet<_> = ports.iter().flat_map(|port| self.groups(port)).copied().collect();
        Ok(TraceInputs {
            question: *question,
            network_id: network,
            source: self.traced(&host, &ports),
            destination: other.map(|other| self.traced(&other, &ports)),
            rules: groups
                .into_iter()
                .flat_map(|group| self.security.rule_ids(group))
                .collect(),
        })
    }

    /// Who gets what is sent to an address: a port of the network, or one that routers lead to.
    fn receiver<'a>(
        &'a self,
        network: Id<Network>,
        view: &'a NetworkView,
        to: IpAddr,
    ) -> Option<&'a Arc<Port>> {
        // A port that is bound to no host receives nothing.
        let find = |view: &'a NetworkView, ip| {
            let owner = self.directory.name(self.directory.owner(view.index, ip)?)?;
            let mut there = view.by_host.get(&**owner)?.iter();
            there.find_map(|port| {
                let port = view.ports.get(port)?;
                port.fixed_ips
                    .iter()
                    .any(|fixed| fixed.ip_address == ip)
                    .then_some(port)
            })
        };
        find(view, to).or_else(|| {
            let (network, hop) = self.routed(network, to)?;
            find(self.networks.get(&network)?, hop)
        })
    }

    fn groups(&self, port: &Port) -> &[Id<SecurityGroup>] {
        let view = self.networks.get(&port.network_id);
        view.map_or(&[], |view| view.groups_of(port))
    }

    /// What a host has been sent, as far as these ports are concerned, and how far it is with it.
    fn traced(&self, host: &str, ports: &[&Arc<Port>]) -> (TracedHost, Vec<Row>) {
        let entry = self.hosts.get(host);
        let networks: BTreeSet<_> = ports.iter().map(|port| port.network_id).collect();
        let mut traced = TracedHost {
            name: host.to_owned(),
            alive: entry.is_some_and(|entry| entry.session.is_some()),
            filters: self.filters(host),
            intended_revision: Revision::ZERO,
            applied_revision: None,
            in_force: true,
            refused: Vec::new(),
        };
        let mut decoded = Vec::new();
        for network in networks {
            let rows = self.rows_about(host, network, ports);
            let complete = entry.and_then(|entry| entry.status.complete_to(network));
            let newest = rows.iter().map(|row| row.revision).max();
            let Some(newest) = newest else { continue };
            let refused = entry.into_iter();
            let refused =
                refused.flat_map(|entry| rows.iter().filter_map(|row| entry.status.refusal(&row.key)));
            traced.refused.extend(refused);
            // Of several networks the one that the host is furthest behind with.
            if traced.in_force {
                traced.in_force = complete >= Some(newest);
                (traced.intended_revision, traced.applied_revision) = (newest, complete);
            }
            decoded.extend(rows.iter().filter_map(|row| match row.row.change() {
                RowChange::Put(row) => Some(row.clone()),
                RowChange::Remove(_) => None,
            }));
        }
        traced.in_force &= traced.refused.is_empty();
        (traced, decoded)
    }

    fn rows_about(&self, host: &str, network: Id<Network>, ports: &[&Arc<Port>]) -> Vec<KeyedRow> {
        let filters = self.filters(host);
        let view = self.networks.get(&network);
        let Some(view) = view.filter(|view| view.interested.contains_key(host)) else {
            return Vec::new();
        };
        let mut rows: Vec<KeyedRow> = view.network_row(filters).into_iter().collect();
        rows.extend(view.subnet_rows());
        rows.extend(self.router_rows(network));
        if filters {
            rows.extend(self.policies(host, network, view));
            // Those of ports in other networks, too: labels are translated.
            let sets: BTreeSet<_> = ports.iter().map(|port| self.groups(port)).collect();
            let labels = view.labels.values();
            let of_ports = labels.filter(|label| sets.contains(&label.security_groups[..]));
            rows.extend(of_ports.map(|label| KeyedRow::put(label.revision, label_row(label))));
        }
        for port in ports.iter().filter(|port| port.network_id == network) {
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
