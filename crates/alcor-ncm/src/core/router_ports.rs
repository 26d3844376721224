//! What the ports of routers are: whether packets get through them. Not here: rows of routers, and what the region makes of a word.
//!
//! A router's port is on no host alone, so nobody reports it: the NCM says what follows from what hosts have in force.
//! - The router, or the port, is down: `DOWN`.
//! - An interface: `ACTIVE` once every host that is interested in its network and has a session has all of that network in force, at least to the last
//!   change of the router's rows; also when there is no such host. It stays `ACTIVE` then, as other ports keep their last known state: a host
//!   that comes later has the router before its ports become `ACTIVE`. Hosts that have not been heard since this NCM began count as having
//!   a session for [`RETURN`].
//! - The gateway's port: `ACTIVE` while gateways are in use that lead the router out, one of which owns it, else `DOWN`.
//!
//! A router is looked at, at a tick, from its change until all of its ports are settled: that costs the hosts of its networks.

use std::{ops::Bound, time::Duration};

use alcor_model::{Id, Network, Port, Revision, Router, resource::PortStatus};

use super::{Action, Ncm, PortReport};

/// Routers that are looked at in one tick.
const ROUTERS_PER_TICK: usize = 256;
/// How long hosts may take to come back after this NCM has begun: the longest pause of an agent between two tries.
const RETURN: Duration = Duration::from_secs(30);

/// What a port in a network is; none while that cannot be said.
type Word = (Id<Network>, Id<Port>, Option<PortStatus>);

impl Ncm {
    /// Says what is new about the ports of routers that changed.
    pub(super) fn report_router_ports(&mut self, actions: &mut Vec<Action>) {
        for id in self.routing.next_due(ROUTERS_PER_TICK) {
            let Some(words) = self.router_port_words(id) else {
                self.routing.settle(id);
                continue;
            };
            let is_settled = words.iter().all(|(_, _, status)| status.is_some());
            for (network, port, status) in words {
                let Some(status) = status.filter(|status| self.routing.is_news(id, port, *status)) else {
                    continue;
                };
                if let Some(report) = self.router_port_report(network, port, status) {
                    self.routing.said(id, port, status);
                    actions.push(Action::ReportPort(report));
                }
            }
            if is_settled {
                self.routing.settle(id);
            }
        }
    }

    /// What each port of a router is.
    fn router_port_words(&self, id: Id<Router>) -> Option<Vec<Word>> {
        let (row, revision, has_ways) = self.routing.known(id)?;
        let is_up = |network: &Id<Network>, port: &Id<Port>| {
            let known = self.networks.get(network).and_then(|view| view.ports.get(port));
            row.admin_state_up && known.is_some_and(|port| port.admin_state_up)
        };
        let interfaces = row.interfaces.iter().map(|place| {
            let (network, port) = (place.network_id, place.port_id);
            let status = match (is_up(&network, &port), self.is_everywhere(network, revision)) {
                (false, _) => Some(PortStatus::Down),
                (true, true) => Some(PortStatus::Active),
                (true, false) => None,
            };
            (network, port, status)
        });
        let gateway = row.gateway.iter().map(|gateway| {
            let works = has_ways && is_up(&gateway.network_id, &gateway.port_id);
            let status = if works {
                PortStatus::Active
            } else {
                PortStatus::Down
            };
            (gateway.network_id, gateway.port_id, Some(status))
        });
        Some(interfaces.chain(gateway).collect())
    }

    /// Whether all hosts of a network that are there have it in force, at least to this revision.
    fn is_everywhere(&self, network: Id<Network>, revision: Revision) -> bool {
        let Some(view) = self.networks.get(&network) else {
            return false;
        };
        view.interested.keys().all(|host| {
            let Some(entry) = self.hosts.get(host) else {
                return true;
            };
            let may_return = self.clock < RETURN && self.unheard.contains(host);
            let has_it = entry.status.has_all(network) && entry.status.complete_to(network) >= Some(revision);
            has_it || (entry.session.is_none() && !may_return)
        })
    }

    fn router_port_report(
        &self,
        network: Id<Network>,
        id: Id<Port>,
        status: PortStatus,
    ) -> Option<PortReport> {
        let port = self.networks.get(&network)?.ports.get(&id)?;
        Some(PortReport {
            port_id: id,
            host: String::new(),
            applied_revision: port.revision,
            status,
            reason: None,
        })
    }
}

impl super::routing::RoutingView {
    /// Some of the routers that are to be looked at, in turn.
    fn next_due(&mut self, limit: usize) -> Vec<Id<Router>> {
        let after = self.looked_at.map_or(Bound::Unbounded, Bound::Excluded);
        let mut due: Vec<_> = self.due.range((after, Bound::Unbounded)).copied().collect();
        due.extend(self.due.iter().take(self.due.len() - due.len()));
        due.truncate(limit);
        self.looked_at = due.last().copied();
        due
    }
}
