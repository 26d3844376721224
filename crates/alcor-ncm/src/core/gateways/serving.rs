//! Which gateways have which network, and whom hosts are told to send to.
//!
//! A network's gateways are all members of the set that serves it while it is learned, and of the sets that serve the ways out of
//! its routers. Gateways that are not to have it any more keep it for [`LINGER`]: hosts send to them until they are told otherwise,
//! and as long as nobody else has all of it, they are told to.
//!
//! The lists of gateways in rows follow from who lives, which is no change of the region: they change between revisions. Hosts
//! take the later word of a session at the same revision, and a host that comes back is told these rows again whatever it holds.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use alcor_dataplane::RowKey;
use alcor_model::{GatewayNode, Id, Network, Revision, Router};

use super::{
    super::{Action, Ncm, view::KeyedRow},
    id_key,
};

/// How long a gateway keeps a network that others serve from now on.
const LINGER: Duration = Duration::from_secs(10);

/// The gateways of a network.
#[derive(Debug, Default)]
pub(in crate::core) struct Service {
    /// Those that have it, with until when those keep it that are not to have it any more.
    gateways: BTreeMap<String, Option<Duration>>,
    /// Whom hosts send to what goes to addresses that they do not know.
    pub ways: Vec<IpAddr>,
    /// Keys that gateways which are away have to forget, oldest first, with the revision since when.
    tombstones: VecDeque<(Revision, RowKey)>,
    /// Deletions up to this revision are no longer all in `tombstones`.
    tombstones_from: Revision,
}

impl Service {
    /// Whether a gateway has the network.
    pub(in crate::core) fn has(&self, name: &str) -> bool {
        self.gateways.contains_key(name)
    }

    /// All gateways that have it.
    pub(in crate::core) fn names(&self) -> Vec<String> {
        self.gateways.keys().cloned().collect()
    }

    fn lingers(&self, name: &str) -> bool {
        matches!(self.gateways.get(name), Some(Some(_)))
    }

    /// Something is gone that gateways have rows of.
    pub(in crate::core) fn bury(&mut self, limit: usize, revision: Revision, key: RowKey) {
        if self.gateways.is_empty() {
            self.tombstones_from = self.tombstones_from.max(revision);
            return;
        }
        self.tombstones.push_back((revision, key));
        while self.tombstones.len() > limit {
            if let Some((revision, _)) = self.tombstones.pop_front() {
                self.tombstones_from = revision;
            }
        }
    }

    /// What is gone since a revision; none when that is not known any more.
    pub(super) fn gone_since(&self, held: Revision) -> Option<impl Iterator<Item = &(Revision, RowKey)>> {
        let start = self.tombstones.partition_point(|(revision, _)| *revision <= held);
        (held >= self.tombstones_from).then(|| self.tombstones.range(start..))
    }

    /// A state of the region was loaded: what was gone before is not known.
    pub(in crate::core) fn loaded(&mut self, revision: Revision) {
        self.tombstones.clear();
        self.tombstones_from = revision;
    }
}

/// Gateways that are to forget networks, in the order in which they are.
pub(in crate::core) type Leaving = BTreeSet<(Duration, Id<Network>, String)>;

impl Ncm {
    pub(in crate::core) fn put_gateway_node(&mut self, row: Arc<GatewayNode>) {
        let (name, revision) = (row.name.clone(), row.revision);
        let change = self.fleet.put(row, self.is_loading);
        self.strangers.end(&name);
        if self.is_loading {
            return;
        }
        self.judge_gateways();
        if change.members {
            self.assign_all(revision);
        }
        if change.address {
            for network in self.fleet.networks(&name) {
                self.reach(&name, network, revision);
            }
            self.refresh(self.fleet.networks(&name));
        }
    }

    pub(in crate::core) fn delete_gateway_node(&mut self, id: Id<GatewayNode>, revision: Revision) {
        let Some(row) = self.fleet.take_row(id) else {
            return;
        };
        self.judge_gateways();
        for network in self.fleet.networks(&row.name) {
            self.release(&row.name, network);
        }
        self.reach_anew(&row.name, revision);
        if self
            .hosts
            .get(&row.name)
            .is_none_or(|entry| entry.session.is_none())
        {
            self.fleet.drop_stranger(&row.name);
        }
        self.becomes_a_stranger(&row.name);
        self.assign_all(revision);
    }

    /// Sets are others now. Looks at every network: that is as rare as new gateways.
    pub(in crate::core) fn assign_all(&mut self, revision: Revision) {
        let networks: Vec<_> = self.networks.keys().copied().collect();
        for network in &networks {
            self.assign(*network, revision);
        }
        self.refresh(networks);
    }

    /// The gateways that are to have a network.
    fn wanted(&self, network: Id<Network>) -> BTreeSet<String> {
        let view = self.networks.get(&network).filter(|view| view.network.is_some());
        let Some(view) = view else {
            return BTreeSet::new();
        };
        let here = view.learned.then(|| self.fleet.set_of_network(network)).flatten();
        let out = self.routing.with_ways_out(network);
        let out = out.filter_map(|router| self.fleet.set_of_router(router));
        let sets: BTreeSet<&str> = here.into_iter().chain(out).collect();
        let names = sets.into_iter().flat_map(|set| self.fleet.members_of(set));
        names.cloned().collect()
    }

    /// Who is to have a network may be others now; the lists in rows are not looked at.
    pub(in crate::core) fn assign(&mut self, network: Id<Network>, revision: Revision) {
        if self.is_loading {
            return;
        }
        let wanted = self.wanted(network);
        let Some(view) = self.networks.get_mut(&network) else {
            return;
        };
        if view.service.gateways.is_empty() {
            view.service.loaded(view.revision.max(revision));
        }
        let before = view.service.names();
        for name in before.iter().filter(|name| !wanted.contains(*name)) {
            self.leave(name, network);
        }
        for name in wanted {
            let view = self.touch(network, revision);
            let known = view.service.gateways.insert(name.clone(), None);
            if known.is_some() {
                continue;
            }
            self.fleet.serves(&name, network, true);
            self.reach(&name, network, revision);
            if let Some(pending) = self.pend(&name, network) {
                (pending.snapshot, pending.forget) = (true, false);
            }
        }
    }

    /// A gateway is not to have a network any more: it keeps it for a while if it has all of it.
    fn leave(&mut self, name: &str, network: Id<Network>) {
        if !self.has_all(name, network) {
            return self.release(name, network);
        }
        let until = self.clock + LINGER;
        let view = self.networks.get_mut(&network);
        let kept = view.and_then(|view| view.service.gateways.get_mut(name));
        if let Some(kept) = kept.filter(|kept| kept.is_none()) {
            *kept = Some(until);
            self.leaving.insert((until, network, name.to_owned()));
        }
    }

    /// A gateway forgets a network. Its address goes out of those that packets come from with their next change.
    fn release(&mut self, name: &str, network: Id<Network>) {
        self.fleet.serves(name, network, false);
        if let Some(view) = self.networks.get_mut(&network) {
            view.service.gateways.remove(name);
            view.passed_on.insert(name.to_owned());
            if view.service.gateways.is_empty() {
                view.service.loaded(view.revision);
            }
        }
        if let Some(pending) = self.pend(name, network) {
            (pending.snapshot, pending.forget) = (false, true);
        }
    }

    /// Gateways that have kept networks long enough forget them.
    pub(in crate::core) fn end_of_service(&mut self) {
        let mut networks = BTreeSet::new();
        while self
            .leaving
            .first()
            .is_some_and(|(until, ..)| *until <= self.clock)
        {
            let Some((until, network, name)) = self.leaving.pop_first() else {
                break;
            };
            let view = self.networks.get(&network);
            // It may have been given the network again since.
            if view.is_some_and(|view| view.service.gateways.get(&name) == Some(&Some(until))) {
                self.release(&name, network);
                networks.insert(network);
            }
        }
        self.refresh(networks);
    }

    /// A network is gone: its gateways forget it.
    pub(in crate::core) fn unserve(&mut self, network: Id<Network>, gateways: &[String]) {
        for name in gateways {
            self.fleet.serves(name, network, false);
        }
    }

    /// A gateway is told to forget a network. What it still says of it is of before.
    pub(in crate::core) fn has_all_no_more(&mut self, name: &str, network: Id<Network>) {
        if let Some(entry) = self.hosts.get_mut(name).filter(|entry| entry.is_gateway) {
            entry.status.complete.remove(&network);
        }
    }

    /// Asks again for gateways that are here and that the region does not know as they are.
    pub(in crate::core) fn register_gateways(&mut self, actions: &mut Vec<Action>) {
        let due = self.fleet.unregistered(self.clock).into_iter();
        actions.extend(due.map(|(name, set, tunnel_ip)| Action::RegisterGateway { name, set, tunnel_ip }));
    }

    /// Whether a gateway has applied all of a network, or is believed to.
    fn has_all(&self, name: &str, network: Id<Network>) -> bool {
        let entry = self.hosts.get(name).filter(|entry| entry.is_gateway);
        self.fleet.is_expected(name, self.clock) || entry.is_some_and(|entry| entry.status.has_all(network))
    }

    fn is_usable(&self, name: &str, network: Id<Network>) -> bool {
        self.fleet.in_use(name) && self.has_all(name, network)
    }

    /// Who is alive, or who has all of a network, may be others now.
    pub(in crate::core) fn judge_gateways(&mut self) {
        let changed = self.fleet.judge();
        self.work.gateways_turned += changed.len() as u64;
        let networks: BTreeSet<_> = changed
            .iter()
            .flat_map(|name| self.fleet.networks(name))
            .collect();
        self.refresh(networks);
    }

    /// Works the lists of gateways out anew, and tells those whom they concern.
    pub(in crate::core) fn refresh(&mut self, networks: impl IntoIterator<Item = Id<Network>>) {
        let mut routers = BTreeSet::new();
        for network in networks {
            routers.extend(self.routing.with_ways_out(network));
            let ways = self.ways_between(network);
            let Some(view) = self.networks.get_mut(&network) else {
                continue;
            };
            if view.service.ways == ways {
                continue;
            }
            view.service.ways = ways;
            self.pend_network(network);
        }
        for router in routers {
            let ways = self.ways_out(router);
            if self.routing.set_ways(router, ways) {
                self.tell_router(router);
                self.judge_floating_ips_of(router);
            }
        }
    }

    /// The gateways that forward between the hosts of a learned network.
    fn ways_between(&self, network: Id<Network>) -> Vec<IpAddr> {
        let Some(view) = self.networks.get(&network).filter(|view| view.learned) else {
            return Vec::new();
        };
        let usable = |name: &&String| view.service.has(name) && self.is_usable(name, network);
        let set = self.fleet.set_of_network(network).into_iter();
        let members = set.flat_map(|set| self.fleet.members_of(set)).filter(usable);
        let ways = self.fleet.addresses(id_key(network), members);
        if !ways.is_empty() {
            return ways;
        }
        let leaving = view.service.gateways.keys();
        let leaving = leaving.filter(|name| view.service.lingers(name)).filter(usable);
        self.fleet.addresses(id_key(network), leaving)
    }

    /// The gateways that lead a router's networks to the outside: they have all of all these networks.
    fn ways_out(&self, router: Id<Router>) -> Vec<IpAddr> {
        let networks = self.routing.networks(router);
        let services = || {
            networks
                .iter()
                .filter_map(|id| Some((*id, &self.networks.get(id)?.service)))
        };
        let usable = |name: &&String| {
            services().all(|(network, service)| service.has(name) && self.is_usable(name, network))
        };
        let set = self.fleet.set_of_router(router).into_iter();
        let members = set.flat_map(|set| self.fleet.members_of(set)).filter(usable);
        let ways = self.fleet.addresses(id_key(router), members);
        if !ways.is_empty() {
            return ways;
        }
        let leaving = services().flat_map(|(_, service)| {
            let names = service.gateways.keys();
            names.filter(|name| service.lingers(name))
        });
        let leaving: BTreeSet<&String> = leaving.filter(usable).collect();
        self.fleet.addresses(id_key(router), leaving.into_iter())
    }

    /// Rows for the gateways of a network.
    pub(in crate::core) fn pend_gateways(&mut self, network: Id<Network>, rows: &[KeyedRow]) {
        let view = self.networks.get(&network);
        let names = view.map(|view| view.service.names()).unwrap_or_default();
        for name in names {
            self.pend_rows(&name, network, rows);
        }
    }
}
