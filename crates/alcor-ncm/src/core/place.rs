//! Where ports are: writes each change of a port or a host into its view and into the directory, and tells whom it
//! concerns.
//!
//! Whom a change concerns: the port's host, the host that it left, and of the others all in an eager network, the learners
//! of its addresses in a learned one. A row is in the directory before its learners are looked for (see
//! [`crate::directory`]).

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use alcor_dataplane::RowKey;
use alcor_model::{Host, Id, MacAddr, Network, Port, Revision, SecurityGroup, resource::FixedIp};

use super::{
    HostEntry, Ncm,
    view::{KeyedRow, NetworkView, port_row},
};
use crate::directory::{Entry, HostIndex};

/// How a port's place changed.
struct Moved {
    old: Option<Arc<Port>>,
    from: Option<String>,
    to: Option<String>,
    /// `from` is not interested in the network any more.
    left: bool,
    /// `to` was not interested in the network.
    entered: bool,
    /// Other ports had left `to` lately, so it may still have rows of the network.
    lingered: bool,
    /// Groups that `to` had no port under.
    needed: Vec<Id<SecurityGroup>>,
    /// Groups that `from` has no port under any more.
    dropped: Vec<Id<SecurityGroup>>,
    /// `to` begins to ask for labels of neighbours.
    begins_to_look: bool,
    /// Who had learned the addresses that it had or has.
    learners: BTreeMap<IpAddr, Vec<HostIndex>>,
}

impl Moved {
    /// What of the port's change others must be told.
    fn news(&self, new: &Port) -> News {
        match self.old.as_deref() {
            Some(old) if seen_by_others(old) != seen_by_others(new) => News::All,
            Some(old) if old.label.unwrap_or_default() != new.label.unwrap_or_default() => News::Label,
            Some(_) => News::Nothing,
            None => News::All,
        }
    }

    /// The host that the port left, when it was on one and is not there any more.
    fn old_host(&self) -> Option<&String> {
        self.from.as_ref().filter(|from| Some(*from) != self.to.as_ref())
    }

    fn is_party(&self, host: &str) -> bool {
        self.to.as_deref() == Some(host) || self.from.as_deref() == Some(host)
    }
}

/// What others must be told about a port.
#[derive(Clone, Copy, PartialEq, Eq)]
enum News {
    Nothing,
    Label,
    All,
}

/// What is told about a port's addresses, to hosts that it is not on.
struct Tidings {
    port: Id<Port>,
    rows: Vec<KeyedRow>,
    /// The same for hosts that it left lately.
    forwarding: Vec<KeyedRow>,
    /// Only for hosts whose rules ask for labels of neighbours.
    for_lookers: bool,
}

fn neighbour_keys(port: &Port) -> impl Iterator<Item = RowKey> {
    addresses(port).map(|ip| RowKey::Neighbour(port.network_id, ip))
}

fn addresses(port: &Port) -> impl Iterator<Item = IpAddr> {
    port.fixed_ips.iter().map(|fixed| fixed.ip_address)
}

/// What all others must know about a port; its label is of use only to some.
fn seen_by_others(port: &Port) -> (MacAddr, &[FixedIp], Option<&str>) {
    (port.mac_address, &port.fixed_ips, port.binding.host())
}

fn host_of(port: &Port) -> Option<String> {
    port.binding.host().map(ToOwned::to_owned)
}

impl Ncm {
    pub(super) fn put_port(&mut self, row: Arc<Port>) {
        let (id, revision) = (row.id, row.revision);
        self.port_networks.insert(id, row.network_id);
        let view = self.networks.get(&row.network_id);
        let known = view.and_then(|view| view.ports.get(&id));
        let same = known.is_some_and(|known| {
            known.fixed_ips == row.fixed_ips && known.admin_state_up == row.admin_state_up
        });
        self.replace_port(row);
        self.review_floating_ips_of(id, revision);
        if !same {
            self.router_port_changed(id, revision);
        }
    }

    pub(super) fn delete_port(&mut self, id: Id<Port>, revision: Revision) {
        let Some(network) = self.port_networks.remove(&id) else {
            return;
        };
        let Some(known) = self.networks.get(&network).and_then(|view| view.ports.get(&id)) else {
            return;
        };
        // A port that is nowhere and has no address: everybody who knew it is told so.
        let mut gone = Port::clone(known);
        gone.revision = revision;
        gone.fixed_ips.clear();
        gone.binding.host_id.clear();
        self.replace_port(Arc::new(gone));
        if let Some(view) = self.networks.get_mut(&network) {
            view.ports.remove(&id);
        }
        self.review_floating_ips_of(id, revision);
        self.router_port_changed(id, revision);
    }

    /// A port is now `new`: its own host, the host it left, and whoever else it concerns learn of it.
    fn replace_port(&mut self, new: Arc<Port>) {
        let (network, revision) = (new.network_id, new.revision);
        let moved = self.place(&new);
        let news = self.note_news(&moved, &new);
        let had: Vec<RowKey> = moved.old.iter().flat_map(|old| neighbour_keys(old)).collect();
        self.tell_new_host(&moved, &new, &had);
        let tunnel = moved.to.as_deref().and_then(|host| self.tunnel(host));
        let view = self.touch(network, revision);
        let plain = view.neighbour_rows(&new, tunnel, false);
        let forwarding = match moved.old_host().is_some() || !view.left.hosts_of(new.id).is_empty() {
            true => view.neighbour_rows(&new, tunnel, true),
            false => Vec::new(),
        };
        self.tell_old_host(&moved, &new, &forwarding);
        if let Some(host) = moved.from.as_ref().filter(|_| moved.left) {
            self.reach(host, network, revision);
        }
        if news != News::Nothing {
            let still: BTreeSet<RowKey> = plain.iter().map(|row| row.key).collect();
            let gone = had.iter().filter(|key| !still.contains(key));
            let gone: Vec<_> = gone.map(|key| KeyedRow::gone(revision, key)).collect();
            let tidings = Tidings {
                port: new.id,
                rows: gone.iter().cloned().chain(plain).collect(),
                forwarding: gone.into_iter().chain(forwarding).collect(),
                for_lookers: news == News::Label,
            };
            self.tell_of_port(network, &tidings, &moved.learners, |host| moved.is_party(host));
        }
        self.weigh(network, revision);
    }

    fn tell_new_host(&mut self, moved: &Moved, new: &Port, had: &[RowKey]) {
        let (network, revision) = (new.network_id, new.revision);
        let Some(host) = &moved.to else {
            return;
        };
        if moved.entered {
            if let Some(pending) = self.pend(host, network) {
                (pending.snapshot, pending.forget) = (true, false);
                pending.afresh |= moved.lingered;
            }
            return;
        }
        if moved.begins_to_look {
            self.begins_to_look(host, network, revision);
        }
        let gone = |key: &RowKey| KeyedRow::gone(revision, key);
        // What was a neighbour until now is a port of the host itself.
        let mut rows: Vec<_> = match moved.from == moved.to {
            true => Vec::new(),
            false => had.iter().map(gone).collect(),
        };
        // Rules before the port that is under them, and away after it: never a moment without.
        let needed = moved.needed.iter();
        rows.extend(needed.filter_map(|group| self.security.policy(network, *group, revision)));
        rows.push(port_row(new, self.filters(host)));
        if moved.from == moved.to {
            let dropped = moved.dropped.iter();
            rows.extend(dropped.map(|group| gone(&RowKey::Policy(network, *group))));
        }
        self.pend_rows(host, network, &rows);
    }

    /// The host that a port left passes on what still comes for it, until no host sends there any more.
    fn tell_old_host(&mut self, moved: &Moved, new: &Port, forwarding: &[KeyedRow]) {
        let (network, revision) = (new.network_id, new.revision);
        let Some(host) = moved.old_host() else {
            return;
        };
        let knows = self.has_rows(host, network);
        if knows && moved.to.is_some() {
            self.linger(host, network, new);
        }
        let view = self.networks.get(&network);
        let lingers = view.is_some_and(|view| view.left.lingers(host));
        if moved.left && !(knows && lingers) {
            if let Some(pending) = self.pend(host, network) {
                (pending.snapshot, pending.forget) = (false, true);
            }
            return;
        }
        let gone = |key: &RowKey| KeyedRow::gone(revision, key);
        let mut rows = vec![gone(&RowKey::Port(network, new.id))];
        let dropped = moved.dropped.iter();
        rows.extend(dropped.map(|group| gone(&RowKey::Policy(network, *group))));
        rows.extend(forwarding.iter().cloned());
        self.pend_rows(host, network, &rows);
    }

    /// Whether a host may have rows of a network, or will soon: what waits for it was made when they were so.
    fn has_rows(&self, host: &str, network: Id<Network>) -> bool {
        let entry = self.hosts.get(host);
        let is_told = |entry: &HostEntry| {
            let session = entry.session.as_ref();
            session.is_some_and(|session| session.is_to_tell(network))
        };
        entry.is_some_and(|entry| entry.status.knows_to(network).is_some() || is_told(entry))
    }

    /// Tells those who must know of a port's addresses, without those to `skip`.
    fn tell_of_port(
        &mut self,
        network: Id<Network>,
        tidings: &Tidings,
        learners: &BTreeMap<IpAddr, Vec<HostIndex>>,
        skip: impl Fn(&str) -> bool,
    ) {
        // Who is there gets snapshots when all is loaded.
        if self.is_loading {
            return;
        }
        let Some(view) = self.networks.get(&network) else {
            return;
        };
        let left = view.left.hosts_of(tidings.port);
        let gateways = match tidings.for_lookers {
            // They match no labels.
            true => Vec::new(),
            false => view.service.names(),
        };
        if view.learned {
            let mut told = Vec::new();
            for (position, row) in tidings.rows.iter().enumerate() {
                let learners = row
                    .neighbour()
                    .and_then(|ip| learners.get(&ip))
                    .into_iter()
                    .flatten();
                let names =
                    learners.filter_map(|host| Some((*host, Arc::clone(self.directory.name(*host)?))));
                let names = names.filter(|(_, name)| !tidings.for_lookers || view.looks(name));
                told.extend(names.map(|(host, name)| (position, host, name)));
            }
            for (position, host, name) in told {
                if skip(&name) || left.contains(&*name) {
                    continue;
                }
                self.work.learners_told += 1;
                self.tell_learner(host, &name, network, &tidings.rows[position]);
            }
        } else {
            let told = match tidings.for_lookers {
                true => view.lookers.keys().cloned().collect(),
                false => self.interested(network),
            };
            self.work.hosts_looked_at += told.len() as u64;
            for host in told {
                if !skip(&host) && !left.contains(&*host) {
                    self.pend_rows(&host, network, &tidings.rows);
                }
            }
        }
        for name in gateways {
            self.pend_rows(&name, network, &tidings.rows);
        }
        for name in left.into_iter().filter(|host| !skip(host)) {
            // One that has lost all it had since then does not pass on anything.
            let Some(host) = self
                .directory
                .known(&name)
                .filter(|_| self.has_rows(&name, network))
            else {
                continue;
            };
            for row in &tidings.forwarding {
                self.tell_learner(host, &name, network, row);
            }
        }
    }

    /// Finds out who must be told of a port's change, and remembers it.
    fn note_news(&mut self, moved: &Moved, new: &Port) -> News {
        let news = moved.news(new);
        let old = moved.old.as_ref().and_then(|old| old.label);
        let view = self.touch(new.network_id, new.revision);
        match news {
            News::Nothing => News::Nothing,
            News::Label if view.relabelled(new.id, old, new.revision) => News::Label,
            News::Label | News::All => {
                view.told_all(new.id, new.revision);
                News::All
            }
        }
    }

    /// Writes a port into its view and the directory; tells how its place changed.
    fn place(&mut self, new: &Arc<Port>) -> Moved {
        let view = self.touch(new.network_id, new.revision);
        let old = view.ports.insert(new.id, Arc::clone(new));
        let (from, to) = (old.as_deref().and_then(host_of), host_of(new));
        let mut moved = Moved {
            old,
            from,
            to,
            left: false,
            entered: false,
            lingered: false,
            needed: Vec::new(),
            dropped: Vec::new(),
            begins_to_look: false,
            learners: BTreeMap::new(),
        };
        self.change_groups(&mut moved, new);
        self.bury_old(&moved, new);
        self.change_hosts(&mut moved, new);
        self.write_addresses(&mut moved, new);
        if let Some(host) = moved.to.as_ref().filter(|_| moved.entered) {
            self.reach(host, new.network_id, new.revision);
        }
        if moved.left {
            self.rests(new.network_id);
        }
        moved
    }

    /// Which hosts have ports under which groups.
    fn change_groups(&mut self, moved: &mut Moved, new: &Port) {
        let (limit, network) = (self.options.tombstones, new.network_id);
        let Some(view) = self.networks.get_mut(&network) else {
            return;
        };
        let mut looks = Vec::new();
        // In this order: a group that the port keeps is neither needed nor dropped.
        if let Some(host) = &moved.to {
            moved.needed = view.joins(host, new);
        }
        if let (Some(host), Some(old)) = (&moved.from, &moved.old) {
            moved.dropped = view.parts(host, old);
        }
        for group in &moved.dropped {
            view.bury(limit, new.revision, RowKey::Policy(network, *group));
            if !view.group_hosts.contains_key(group) {
                self.security.left(*group, network);
            }
            if let Some(host) = &moved.from {
                looks.push((host.clone(), *group, false));
            }
        }
        for group in &moved.needed {
            self.security.entered(*group, network);
            if let Some(host) = moved.to.as_ref().filter(|_| self.security.looks(*group)) {
                looks.push((host.clone(), *group, true));
            }
        }
        for (host, group, looks) in &looks {
            moved.begins_to_look |= view.look(host, (network, *group), *looks);
        }
        if looks.is_empty() {
            return;
        }
        // Who can be reached through routers is looked at, too.
        for peer in self.routing.peers(network) {
            for (host, group, looks) in &looks {
                self.look_in(host, (network, *group), peer, *looks, new.revision);
            }
        }
    }

    /// What hosts that are away must forget when they come back. In a learned network they ask again for what neighbours
    /// they have.
    fn bury_old(&mut self, moved: &Moved, new: &Port) {
        let (limit, network) = (self.options.tombstones, new.network_id);
        let Some(view) = self.networks.get_mut(&network) else {
            return;
        };
        if let Some(old) = &moved.old
            && seen_by_others(old) != seen_by_others(new)
        {
            for key in neighbour_keys(old) {
                match view.learned {
                    true => view.service.bury(limit, new.revision, key),
                    false => view.bury(limit, new.revision, key),
                }
            }
        }
        if moved.old_host().is_some() {
            view.bury(limit, new.revision, RowKey::Port(network, new.id));
        }
    }

    /// Which host has which ports.
    fn change_hosts(&mut self, moved: &mut Moved, new: &Port) {
        if moved.from == moved.to {
            return;
        }
        let network = new.network_id;
        let Some(view) = self.networks.get_mut(&network) else {
            return;
        };
        if let Some(host) = &moved.from {
            let ports = view.by_host.entry(host.clone()).or_default();
            ports.remove(&new.id);
            let was_last = ports.is_empty();
            if was_last {
                view.by_host.remove(host);
            }
            if let Some(index) = self.directory.known(host) {
                self.directory.leave(index, network, new.id);
            }
            if was_last {
                let (_, is) = self.interest(host, network, |interest| interest.own = false);
                moved.left = !is;
                self.visit(host, network, false, new.revision);
            }
        }
        let Some(view) = self.networks.get_mut(&network) else {
            return;
        };
        if let Some(host) = &moved.to {
            let ports = view.by_host.entry(host.clone()).or_default();
            let is_first = ports.is_empty();
            ports.insert(new.id);
            moved.lingered = view.left.lingers(host);
            view.left.returned(new.id, host);
            let index = self.directory.host(host);
            self.directory.enter(index, (network, view.index), new.id);
            if is_first {
                let (was, _) = self.interest(host, network, |interest| interest.own = true);
                moved.entered = !was;
                self.visit(host, network, true, new.revision);
            }
        }
    }

    /// Writes a port's addresses into the directory, and finds their learners.
    fn write_addresses(&mut self, moved: &mut Moved, new: &Port) {
        let Some(view) = self.networks.get_mut(&new.network_id) else {
            return;
        };
        let old: BTreeSet<IpAddr> = match &moved.old {
            Some(old) if moved.from.is_some() => addresses(old).collect(),
            _ => BTreeSet::new(),
        };
        let now: BTreeSet<IpAddr> = match &moved.to {
            Some(_) => addresses(new).collect(),
            None => BTreeSet::new(),
        };
        view.addresses = (view.addresses + now.len()).saturating_sub(old.len());
        for ip in old.difference(&now) {
            moved.learners.insert(*ip, self.directory.remove(view.index, *ip));
        }
        let Some(host) = moved.to.as_ref().and_then(|host| self.directory.known(host)) else {
            return;
        };
        let entry = Entry {
            mac: new.mac_address,
            host,
            label: new.label.unwrap_or_default(),
            revision: view.revision_of(new),
        };
        for ip in now {
            let mut learners = self.directory.put(view.index, ip, entry);
            if learners.contains(&host) {
                // Its own port is told to it as that.
                self.directory.unlearn(host, view.index, ip);
                learners.retain(|learner| *learner != host);
            }
            moved.learners.insert(ip, learners);
        }
    }

    pub(super) fn put_host(&mut self, row: Arc<Host>) {
        let (name, revision) = (row.name.clone(), row.revision);
        let index = self.directory.host(&name);
        self.directory.set_tunnel(index, Some((row.tunnel_ip, revision)));
        let entry = self.host_entry(&name);
        let is_new = entry.row.is_none();
        let moved = entry.row.as_ref().map(|known| known.tunnel_ip) != Some(row.tunnel_ip);
        // Two may have said hello under this name, and the row that comes last need not be of the one who is here.
        let says = entry.session.as_ref().and_then(|session| session.word.as_ref());
        if says.is_some_and(|says| !says.is_in(&row)) {
            self.disputed.insert(name.clone());
        }
        let entry = self.host_entry(&name);
        let others = entry.row.as_ref().map(|known| &known.external_networks) != Some(&row.external_networks);
        entry.row = Some(row);
        if entry.status.last_seen_us == 0 {
            self.unheard.insert(name.clone());
        }
        if is_new {
            self.strangers.end(&name);
        }
        if moved {
            self.tell_neighbours_of(&name, revision);
            for network in self.networks_of(&name) {
                self.reach(&name, network, revision);
            }
            if !is_new {
                // Also where it only passes packets on, or did.
                self.reach_anew(&name, revision);
            }
        }
        if moved || others {
            self.review_floating_ips_on(&name, revision);
        }
    }

    pub(super) fn delete_host(&mut self, name: &str, revision: Revision) {
        let Some(entry) = self.hosts.get_mut(name) else {
            return;
        };
        entry.row = None;
        self.becomes_a_stranger(name);
        if let Some(index) = self.directory.known(name) {
            self.directory.set_tunnel(index, None);
        }
        self.tell_neighbours_of(name, revision);
        self.reach_anew(name, revision);
        self.review_floating_ips_on(name, revision);
    }

    /// A host or gateway has another address or none: nowhere are packets taken from the old one, not even where it passed some on. Looks at
    /// every network; that is as rare as such changes.
    pub(super) fn reach_anew(&mut self, name: &str, revision: Revision) {
        let networks = self.networks.iter().filter(|(_, view)| view.underlay.has(name));
        let networks: Vec<_> = networks.map(|(id, _)| *id).collect();
        for network in networks {
            self.reach(name, network, revision);
        }
    }

    /// The networks that a host is interested in, or a gateway has.
    pub(super) fn networks_of(&self, host: &str) -> BTreeSet<Id<Network>> {
        if self.is_gateway(host) {
            return self.fleet.networks(host);
        }
        self.host_networks.get(host).cloned().unwrap_or_default()
    }

    /// A host's tunnel address is new, or it has none any more: everybody who has neighbours there learns it.
    fn tell_neighbours_of(&mut self, name: &str, revision: Revision) {
        let (tunnel, limit) = (self.tunnel(name), self.options.tombstones);
        for (network, port) in self.ports_on(name) {
            let view = self.touch(network, revision);
            view.told = view.told.max(revision);
            let mut rows = [false, true].map(|forward| view.neighbour_rows(&port, tunnel, forward));
            let index = view.index;
            if tunnel.is_none() {
                // Who is away must forget them, too.
                for key in neighbour_keys(&port) {
                    match view.learned {
                        true => view.service.bury(limit, revision, key),
                        false => view.bury(limit, revision, key),
                    }
                }
                rows = rows.map(|_| {
                    neighbour_keys(&port)
                        .map(|key| KeyedRow::gone(revision, &key))
                        .collect()
                });
            }
            let learners = |ip| (ip, self.directory.learners(index, ip));
            let learners = addresses(&port).map(learners).collect();
            let [rows, forwarding] = rows;
            let tidings = Tidings {
                port: port.id,
                rows,
                forwarding,
                for_lookers: false,
            };
            self.tell_of_port(network, &tidings, &learners, |host| host == name);
        }
    }

    fn ports_on(&self, host: &str) -> Vec<(Id<Network>, Arc<Port>)> {
        let of_view = |(id, view): (&Id<Network>, &NetworkView)| {
            let ports = view.by_host.get(host).into_iter().flatten();
            let rows = ports.filter_map(|port| Some((*id, Arc::clone(view.ports.get(port)?))));
            rows.collect::<Vec<_>>()
        };
        self.views_of(host).flat_map(of_view).collect()
    }
}
