//! Labels on their way: what numbers mean, who has forgotten it, and who must know which label a neighbour has.
//!
//! A neighbour row has a label because rules about what goes *out* may ask for the group of the other side; what comes in
//! has the sender's label with it. Most groups have no such rule. So a port that only changes its label is told to the
//! *lookers*, the hosts with a port under such a group, and the others keep an old label that nothing there asks for.
//! Which rows are old is remembered here. They are told when a host begins to look, before the rule that asks, also where the
//! rule lies in another network (see [`super::session`]); and when the number rests, before it can mean another set.
//!
//! **In a learned network** only learners have rows of neighbours, so only they are told. Why no host can match an old
//! meaning of a number there, once it is released:
//! - A host that was given a row with the number was a learner before the row was read (see [`crate::directory`]). When the
//!   number rests no port has it any more, so the row has changed since: the end of the number finds the learner and tells it
//!   the newer row. An answer that is still on its way then is older than that row, and the newest revision wins.
//! - The newer row is part of a delta of a revision not before the end of the number, so a host that is complete to that has it.
//! - Who is no learner any more because its lease is over, has dropped the row before (the NCM keeps learners
//!   longer than hosts use answers).
//! - Who begins a session has rows of which this NCM knows no learner. Within a lease it has asked again for each of them, or dropped
//!   it; as long (and a quarter more) it counts as a host that knows old numbers: it is *settling*. So does one that
//!   took a snapshot of a learned network, which may have had rows of before that the snapshot did not name.
//! - Whoever has been told to forget a network counts until it has said that it has.

use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroU16,
    sync::Arc,
    time::Duration,
};

use alcor_dataplane::RowKey;
use alcor_model::{Id, Label, Network, Port, Revision};

use super::{
    Ncm,
    security::label_row,
    view::{GroupIn, KeyedRow, NetworkView},
};

/// Old labels of one network that are remembered; beyond that everybody is told every change.
const MAX_UNTOLD: usize = 65_536;

/// Which ports have been told with which labels that they do not have any more.
#[derive(Debug, Default)]
pub(super) struct Untold {
    by_port: BTreeMap<Id<Port>, BTreeSet<u16>>,
    by_label: BTreeMap<u16, BTreeSet<Id<Port>>>,
    count: usize,
}

impl Untold {
    /// A port had this label, and not everybody is told that it has another. False when there is no room: then
    /// everybody must be told.
    fn remember(&mut self, port: Id<Port>, label: u16) -> bool {
        if self.count >= MAX_UNTOLD {
            return false;
        }
        if self.by_port.entry(port).or_default().insert(label) {
            self.by_label.entry(label).or_default().insert(port);
            self.count += 1;
        }
        true
    }

    /// Everybody is told of a port.
    fn told(&mut self, port: Id<Port>) {
        for label in self.by_port.remove(&port).into_iter().flatten() {
            self.count -= 1;
            if let Some(ports) = self.by_label.get_mut(&label) {
                ports.remove(&port);
                if ports.is_empty() {
                    self.by_label.remove(&label);
                }
            }
        }
    }
}

impl NetworkView {
    /// A port changed nothing but its label; gives whether it is enough to tell the lookers.
    pub(super) fn relabelled(&mut self, port: Id<Port>, old: Option<u16>, revision: Revision) -> bool {
        let enough = self.untold.remember(port, old.unwrap_or_default());
        if enough {
            self.told_lookers = self.told_lookers.max(revision);
        }
        enough
    }

    /// Everybody is told what a port is now.
    pub(super) fn told_all(&mut self, port: Id<Port>, revision: Revision) {
        self.untold.told(port);
        self.retold.remove(&port);
        self.told = self.told.max(revision);
    }

    /// Whether rules on this host ask for labels of neighbours.
    pub(super) fn looks(&self, host: &str) -> bool {
        self.lookers.contains_key(host)
    }

    /// Whether groups of its own ports in this network, whose id this is, ask for them: then they ask in its peers, too.
    pub(super) fn asks(&self, host: &str, network: Id<Network>) -> bool {
        let groups = self.lookers.get(host).into_iter().flatten();
        groups.into_iter().any(|(of, _)| *of == network)
    }

    /// A group of a host's ports, in this network or a peer, asks for labels of neighbours, or does not any more; gives whether
    /// the host begins to look.
    pub(super) fn look(&mut self, host: &str, group: GroupIn, looks: bool) -> bool {
        if looks {
            let groups = self.lookers.entry(host.to_owned()).or_default();
            let begins = groups.is_empty();
            groups.insert(group);
            return begins;
        }
        if let Some(groups) = self.lookers.get_mut(host) {
            groups.remove(&group);
            if groups.is_empty() {
                self.lookers.remove(host);
            }
        }
        false
    }

    /// The labels as rows.
    pub(super) fn label_rows(&self) -> impl Iterator<Item = KeyedRow> {
        self.labels
            .values()
            .map(|label| KeyedRow::put(label.revision, label_row(label)))
    }
}

impl Ncm {
    /// The neighbour rows of ports, each with the host that the port is on and that needs none. They are told again at
    /// a revision, so that who misses them now gets them when it comes back.
    fn retell(
        &mut self,
        network: Id<Network>,
        ports: &[Id<Port>],
        revision: Revision,
    ) -> Vec<(String, Vec<KeyedRow>)> {
        let view = self.touch(network, revision);
        view.retold.extend(ports.iter().map(|port| (*port, revision)));
        let Some(view) = self.networks.get(&network) else {
            return Vec::new();
        };
        let rows = |port: &Id<Port>| {
            let port = view.ports.get(port)?;
            let host = &port.binding.host_id;
            Some((host.clone(), view.neighbour_rows(port, self.tunnel(host), false)))
        };
        ports.iter().filter_map(rows).collect()
    }

    pub(super) fn is_learned(&self, network: Id<Network>) -> bool {
        self.networks.get(&network).is_some_and(|view| view.learned)
    }

    /// Tells learners, or one of them, what ports of a learned network are now. They have rows of before a change that they
    /// were not told, so the rows need no new revision; and hosts that are away ask again.
    fn retell_learned(&mut self, network: Id<Network>, ports: &[Id<Port>], only: Option<&str>) {
        let Some(view) = self.networks.get(&network) else {
            return;
        };
        let rows = ports.iter().filter_map(|port| {
            let port = view.ports.get(port)?;
            Some(view.neighbour_rows(port, self.tunnel(&port.binding.host_id), false))
        });
        let (index, rows): (_, Vec<KeyedRow>) = (view.index, rows.flatten().collect());
        let only_host = only.and_then(|host| self.directory.known(host));
        for row in rows {
            let Some(ip) = row.neighbour() else {
                continue;
            };
            let learners = match (only, only_host) {
                (None, _) => self.directory.learners(index, ip),
                (Some(_), Some(host)) if self.directory.has_learned(host, index, ip) => vec![host],
                (Some(_), _) => Vec::new(),
            };
            for host in learners {
                if let Some(name) = self.directory.name(host).cloned() {
                    self.work.learners_told += 1;
                    self.tell_learner(host, &name, network, &row);
                }
            }
        }
    }

    /// A host begins to look: it gets the labels that it was not told. Its session sees to it that they come before the rules that ask.
    pub(super) fn begins_to_look(&mut self, host: &str, network: Id<Network>, revision: Revision) {
        let ports: Vec<_> = self
            .touch(network, revision)
            .untold
            .by_port
            .keys()
            .copied()
            .collect();
        if self.is_learned(network) {
            self.retell_learned(network, &ports, Some(host));
        } else {
            for (owner, rows) in self.retell(network, &ports, revision) {
                if owner != host {
                    self.pend_rows(host, network, &rows);
                }
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
        let rows = [KeyedRow::put(revision, label_row(&row))];
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
            self.resting.insert(network);
        }
        self.end_of_number(network, number, revision);
        let view = self.touch(network, revision);
        if view.labels.remove(&number).is_none() {
            return;
        }
        view.bury(limit, revision, key);
        let rows = [KeyedRow::gone(revision, &key)];
        for host in self.interested(network) {
            self.pend_rows(&host, network, &rows);
        }
    }

    /// Whoever still has this number in rows of neighbours is told what they have now.
    fn end_of_number(&mut self, network: Id<Network>, number: NonZeroU16, revision: Revision) {
        let view = self.touch(network, revision);
        let ports = view.untold.by_label.get(&number.get()).into_iter().flatten();
        let ports: Vec<_> = ports.copied().collect();
        if ports.is_empty() {
            return;
        }
        for port in &ports {
            view.told_all(*port, revision);
        }
        if self.is_learned(network) {
            return self.retell_learned(network, &ports, None);
        }
        let told = self.retell(network, &ports, revision);
        for host in self.interested(network) {
            for (_, rows) in told.iter().filter(|(owner, _)| *owner != host) {
                self.pend_rows(&host, network, rows);
            }
        }
    }

    /// Labels that no host knows any more, of networks in which something has happened since the last time.
    pub(super) fn forgotten_labels(&mut self) -> Vec<(Id<Label>, Revision)> {
        let mut forgotten = Vec::new();
        if !self.unheard.is_empty() {
            // They may hold rows of any network. One that is gone for good is deleted.
            return forgotten;
        }
        while let Some((at, id)) = self.settling.pop_first() {
            if at > self.clock {
                self.settling.insert((at, id));
                break;
            }
            self.resting.insert(id);
        }
        for id in std::mem::take(&mut self.resting) {
            let Some(view) = self.networks.get(&id).filter(|view| !view.retired.is_empty()) else {
                continue;
            };
            self.work.networks_looked_at += 1;
            let (least, settles) = self.known_to_all(id, view);
            let before = forgotten.len();
            let retired = view.retired.iter().map(|(id, revision)| (*id, *revision));
            forgotten.extend(retired.filter(|(_, revision)| *revision <= least));
            if forgotten.len() > before {
                // Said again until the region has let them go.
                self.resting.insert(id);
            }
            if let Some(at) = settles {
                self.settling.insert((at, id));
            }
        }
        forgotten
    }

    /// The revision beyond which no host may know old labels of a network; and when the first one that settles has done so.
    fn known_to_all(&self, id: Id<Network>, view: &NetworkView) -> (Revision, Option<Duration>) {
        let mut settles: Option<Duration> = None;
        let mut complete = |host: &String| {
            let entry = self.hosts.get(host)?;
            let settling = entry
                .session
                .as_ref()
                .and_then(|session| session.settling(id, self.clock));
            match settling {
                Some(at) => {
                    settles = Some(settles.map_or(at, |first| first.min(at)));
                    Some(Revision::ZERO)
                }
                None => entry.status.knows_to(id),
            }
        };
        // A host without interest in the network matches no label of it; one with interest that is silent may still.
        let here = view.interested.keys();
        let here = here.map(|host| complete(host).unwrap_or(Revision::ZERO)).min();
        // Who has left, or is only about to be told, and has not yet said that it has forgotten.
        let leaving = self.knowers.get(&id).into_iter().flatten();
        let leaving = leaving
            .filter(|host| !view.interested.contains_key(*host))
            .filter_map(complete)
            .min();
        let least = here.into_iter().chain(leaving).min().unwrap_or(self.revision);
        (least, settles)
    }

    /// What a host knows of a network is new: it is told the first of it, is complete to a revision, or has forgotten it.
    pub(super) fn completed(&mut self, host: &str, network: Id<Network>) {
        if self.is_gateway(host) {
            // It matches no labels; but hosts may send by it from now on, or no longer.
            return self.refresh([network]);
        }
        let complete = self
            .hosts
            .get(host)
            .and_then(|entry| entry.status.knows_to(network));
        if complete.is_some() {
            self.knowers.entry(network).or_default().insert(host.to_owned());
        } else if let Some(knowers) = self.knowers.get_mut(&network) {
            knowers.remove(host);
            if knowers.is_empty() {
                self.knowers.remove(&network);
            }
        }
        self.rests(network);
    }

    /// Something has happened that may let labels of the network be forgotten.
    pub(super) fn rests(&mut self, network: Id<Network>) {
        let resting = |view: &NetworkView| !view.retired.is_empty();
        if self.networks.get(&network).is_some_and(resting) {
            self.resting.insert(network);
        }
    }
}
