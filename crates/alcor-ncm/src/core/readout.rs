//! What people read of hosts: lists, and everything about one host or port. Nothing here changes anything, and no row is made or
//! encoded to be counted.

use std::{collections::BTreeSet, ops::Bound};

use alcor_dataplane::RowKey;
use alcor_model::{
    Id, Network, Port, Revision,
    effective::{GatewayUse, HostState, HostSummary, NeighbourState, PortState, ResourceState, Timing},
    resource::PortStatus,
};
use jiff::Timestamp;

use super::{HostEntry, Ncm, memory::key_text, session::Session, view::NetworkView};

impl Ncm {
    /// All hosts that ever registered, said hello or have ports, by name. Gateways are not among them.
    pub fn host_summaries(&self) -> Vec<HostSummary> {
        self.host_summaries_after(None, usize::MAX)
    }

    /// The first so many of them after a name.
    pub fn host_summaries_after(&self, after: Option<&str>, limit: usize) -> Vec<HostSummary> {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let hosts = self.hosts.range::<str, _>((start, Bound::Unbounded));
        let hosts = hosts.filter(|(_, entry)| !entry.is_gateway).take(limit);
        hosts.map(|(name, entry)| self.summary(name, entry)).collect()
    }

    fn summary(&self, name: &str, entry: &HostEntry) -> HostSummary {
        let gateway = self.fleet.row(name).map(|row| row.tunnel_ip);
        let of_network =
            |(_, view): (&Id<Network>, &NetworkView)| view.by_host.get(name).map_or(0, BTreeSet::len);
        // Nearly all hosts of a list have all: their rows need not be looked at one by one.
        let (pending, errors) = match entry.is_settled() {
            true => (0, 0),
            false => self.behind(name, entry),
        };
        HostSummary {
            name: name.to_owned(),
            tunnel_ip: entry.row.as_ref().map(|row| row.tunnel_ip).or(gateway),
            alive: match entry.is_gateway {
                true => self.fleet.is_alive(name),
                false => entry.session.is_some(),
            },
            last_seen_at: timestamp(entry.status.heard_us()),
            // An incarnation is the time at which the agent's run began.
            started_at: timestamp(entry.status.run().0),
            dataplane: entry.status.run().1.map(str::to_owned),
            ports: self.views_of(name).map(of_network).sum(),
            pending: pending + self.networks_behind(name, entry),
            errors,
            stale: false,
        }
    }

    /// Everything known of one host or gateway.
    pub fn host_state(&self, name: &str) -> Option<HostState> {
        let entry = self.hosts.get(name)?;
        let said = entry.status.heard_us() != 0;
        Some(HostState {
            summary: self.summary(name, entry),
            incarnation: said.then_some(entry.status.run().0),
            queued: entry.session.as_ref().map_or(0, Session::queued),
            resyncs: entry.status.resyncs,
            resources: self.resources(name, entry),
            neighbours: self
                .views_of(name)
                .map(|(id, view)| self.neighbours(*id, view, name, entry))
                .collect(),
            gateway: entry.is_gateway.then(|| self.usage(name, entry)),
        })
    }

    pub(super) fn views_of<'a>(
        &'a self,
        host: &str,
    ) -> impl Iterator<Item = (&'a Id<Network>, &'a NetworkView)> {
        let networks = self.networks_of(host).into_iter();
        networks.filter_map(|id| self.networks.get_key_value(&id))
    }

    /// The rows of its own that a host or gateway must have, with their revisions.
    fn own_rows<'a>(
        &'a self,
        name: &'a str,
        entry: &'a HostEntry,
    ) -> impl Iterator<Item = (RowKey, Revision)> + 'a {
        self.views_of(name)
            .flat_map(move |(id, view)| match entry.is_gateway {
                true => self.revisions_of_gateway(name, *id, view),
                false => self.revisions_of_host(name, entry, *id, view),
            })
    }

    fn revisions_of_host(
        &self,
        name: &str,
        entry: &HostEntry,
        id: Id<Network>,
        view: &NetworkView,
    ) -> Vec<(RowKey, Revision)> {
        let is_heard = entry.status.last_seen_us != 0;
        // What a host that has not said hello yet is known to have is compared with the region's row: that hosts are to
        // be told it again since this NCM started says nothing of it.
        let network = match &view.network {
            Some(row) if !is_heard => Some(row.revision),
            _ => view.network_revision(entry.status.filters),
        };
        let network = network.map(|revision| (RowKey::Network(id), revision));
        let subnets = view
            .subnets
            .values()
            .map(|row| (RowKey::Subnet(id, row.id), row.revision));
        let groups = match entry.status.filters {
            true => view.groups_on(name),
            false => Vec::new(),
        };
        let policies = groups.into_iter().filter_map(|(group, since)| {
            let revision = self.security.policy_revision(group, since)?;
            Some((RowKey::Policy(id, group), revision))
        });
        let ports = view.by_host.get(name).into_iter().flatten();
        let ports = ports.filter_map(|port| view.ports.get(port));
        let ports = ports.map(|row| (RowKey::Port(id, row.id), row.revision));
        let floating = self.floating_ips_on(name, view, is_heard);
        let rows = network
            .into_iter()
            .chain(subnets)
            .chain(self.router_revisions(id));
        rows.chain(policies).chain(ports).chain(floating).collect()
    }

    fn revisions_of_gateway(
        &self,
        name: &str,
        id: Id<Network>,
        view: &NetworkView,
    ) -> Vec<(RowKey, Revision)> {
        let revision = view
            .network_revision_of_gateways()
            .filter(|_| view.service.has(name));
        let Some(revision) = revision else {
            return Vec::new();
        };
        let network = [(RowKey::Network(id), revision)].into_iter();
        let rows = network.chain(self.router_revisions(id));
        rows.chain(self.floating_ip_revisions(id)).collect()
    }

    fn resources(&self, name: &str, entry: &HostEntry) -> Vec<ResourceState> {
        let state = |(key, intended_revision): (RowKey, Revision)| {
            let known = entry.status.known(&key, intended_revision);
            Some(ResourceState {
                kind: key.kind().to_owned(),
                id: key_text(&key)?,
                intended_revision,
                applied_revision: known.revision,
                error: known.error,
                timing: known.timing,
            })
        };
        self.own_rows(name, entry).filter_map(state).collect()
    }

    /// How many of a host's own rows are not in force yet, and how many it refused.
    fn behind(&self, name: &str, entry: &HostEntry) -> (usize, usize) {
        let (mut pending, mut errors) = (0, 0);
        for (key, intended) in self.own_rows(name, entry) {
            let known = entry.status.known(&key, intended);
            match known.error {
                Some(_) => errors += 1,
                None => pending += usize::from(known.revision < Some(intended)),
            }
        }
        (pending, errors)
    }

    /// Networks of a gateway whose neighbours are not all in force.
    fn networks_behind(&self, name: &str, entry: &HostEntry) -> usize {
        let views = self.views_of(name).filter(|_| entry.is_gateway);
        let behind = views.filter(|(id, view)| entry.status.known_network(**id).0 < Some(view.told));
        behind.count()
    }

    /// Whether hosts send by a gateway.
    fn usage(&self, name: &str, entry: &HostEntry) -> GatewayUse {
        let (reason, unreachable) = self.fleet.why_not(name);
        let networks = self.fleet.networks(name).into_iter();
        GatewayUse {
            in_use: reason.is_none(),
            reason: reason.map(str::to_owned),
            complete: networks.filter(|id| entry.status.has_all(*id)).count(),
            unreachable,
            load: self.fleet.load(name, self.clock),
        }
    }

    /// When a host or gateway was heard last.
    pub(super) fn last_seen(&self, name: &str) -> Option<Timestamp> {
        timestamp(self.hosts.get(name)?.status.heard_us())
    }

    fn neighbours(
        &self,
        id: Id<Network>,
        view: &NetworkView,
        name: &str,
        entry: &HostEntry,
    ) -> NeighbourState {
        let (complete, timing) = entry.status.known_network(id);
        if view.learned && !entry.is_gateway {
            let host = self.directory.known(name);
            let learned = host.map(|host| self.directory.learned_count(host, view.index));
            return NeighbourState {
                network_id: id,
                intended: learned.unwrap_or_default(),
                // It is told of what it has learned only, so there is no revision that it must be complete to.
                intended_revision: complete.unwrap_or_default(),
                applied_revision: complete,
                timing,
            };
        }
        let mut intended = 0;
        let newest = match view.looks(name) {
            true => view.told.max(view.told_lookers),
            false => view.told,
        };
        if entry.is_gateway {
            // All that there are; they are not looked at one by one.
            return NeighbourState {
                network_id: id,
                intended: view.addresses,
                intended_revision: view.told,
                applied_revision: complete,
                timing,
            };
        }
        for (other, ports) in view.by_host.iter().filter(|(other, _)| *other != name) {
            let registered = self.hosts.get(other).and_then(|entry| entry.row.as_ref());
            for port in ports
                .iter()
                .filter_map(|port| view.ports.get(port))
                .filter(|_| registered.is_some())
            {
                intended += port.fixed_ips.len();
            }
        }
        NeighbourState {
            network_id: id,
            intended,
            intended_revision: newest,
            applied_revision: complete,
            timing,
        }
    }

    /// How a port's last change travelled.
    pub fn port_state(&self, id: Id<Port>) -> Option<PortState> {
        let network = self.port_networks.get(&id)?;
        let port = self.networks.get(network)?.ports.get(&id)?;
        let host = port.is_bound().then(|| port.binding.host_id.clone());
        let entry = host.as_ref().and_then(|host| self.hosts.get(host));
        let known = entry.map(|entry| entry.status.known(&RowKey::Port(*network, id), port.revision));
        let known = known.unwrap_or_default();
        let word = entry.and_then(|entry| entry.status.ports.get(&id));
        let (status, reason) = match (word, &host) {
            (Some(word), _) => (word.status, word.reason.clone()),
            (None, Some(_)) => (PortStatus::Build, None),
            (None, None) => (self.routing.said_of(id).unwrap_or(PortStatus::Down), None),
        };
        let timing = known.timing.map(|timing| {
            let wired = word.filter(|word| Some(word.revision) == known.revision);
            let visible_us = wired.map_or(0, |word| word.visible_us).max(timing.visible_us);
            Timing { visible_us, ..timing }
        });
        Some(PortState {
            port_id: id,
            host,
            status,
            reason,
            host_alive: entry.is_some_and(|entry| entry.session.is_some()),
            intended_revision: port.revision,
            applied_revision: known.revision,
            timing,
            stale: false,
        })
    }
}

impl HostEntry {
    /// Whether all rows that the host must have are in force. False may only mean that they have to be looked at.
    fn is_settled(&self) -> bool {
        let is_told = self.session.as_ref().is_some_and(Session::is_idle);
        let kept = self.status.remembered.iter().flat_map(|kept| &kept.networks);
        is_told
            && self.status.refusing.is_empty()
            && kept.into_iter().all(|network| network.refused.is_empty())
    }
}

pub(super) fn timestamp(us: u64) -> Option<Timestamp> {
    if us == 0 {
        None
    } else {
        Timestamp::from_microsecond(i64::try_from(us).ok()?).ok()
    }
}
