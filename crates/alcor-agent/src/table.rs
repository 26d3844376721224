//! What the host must have, row by row: the newest revision wins per key.
//!
//! Turns deltas into changes for the data plane and keeps what became of each. It does not talk to anybody:
//! changes go out as values, outcomes come in as values. Which session a delta came from, and its sequence,
//! are checked before ([`crate::core`]).

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use alcor_dataplane::{NeighbourRow, NetworkRow, PortRow, Row, RowChange, RowKey, SubnetRow};
use alcor_model::{Id, MacAddr, Network, Port, Revision};

use crate::delta::{Delta, Phase};

/// How many tombstones are remembered, over all networks; beyond that the one with the lowest revision goes.
pub const MAX_TOMBSTONES: usize = 65_536;

/// What is known about one row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Revision that last changed it; `None`: found in the data plane at start, older than anything.
    pub(crate) revision: Option<Revision>,
    /// The row wanted; `None` is a tombstone.
    pub(crate) row: Option<Row>,
    /// What the data plane said.
    pub(crate) state: State,
    /// Which decision the data plane's answer must be about.
    token: u64,
}

impl Entry {
    /// Whether news of this revision replaces it.
    fn yields_to(&self, revision: Revision) -> bool {
        self.revision.is_none_or(|known| revision > known)
    }
}

/// What the data plane said about a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Nothing yet.
    Pending,
    /// Visible to packets (or gone, for a tombstone).
    InForce,
    /// No, and why.
    Refused(String),
}

/// One change on its way to the data plane.
#[derive(Clone, Debug)]
pub(crate) struct Planned {
    /// The change.
    pub(crate) change: RowChange,
    /// Position in the delta's rows, when the change comes from one.
    pub(crate) row: Option<u32>,
    token: u64,
}

/// What one delta leads to.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// In the order in which the data plane must do it.
    pub(crate) changes: Vec<Planned>,
    /// Rows of the message that the data plane is not even asked about: position and reason.
    pub(crate) refused: Vec<(u32, String)>,
    /// Local ports that the delta named and that are still wanted.
    pub(crate) ports: Vec<Id<Port>>,
    /// Rows are left that have to be tried again.
    pub(crate) retry: bool,
    /// Local ports that went.
    pub(crate) removed_ports: Vec<Id<Port>>,
    /// Neighbours that stay although the snapshot that ends did not name them: their network is on demand.
    pub(crate) unnamed: Vec<IpAddr>,
}

#[derive(Debug, Default)]
struct NetworkTable {
    /// Complete to this revision; `None`: not known.
    held: Option<Revision>,
    /// Keys that the running snapshot has named.
    named: Option<BTreeSet<RowKey>>,
    /// A row could not be read since the last snapshot began.
    unreadable: bool,
    rows: BTreeMap<RowKey, Entry>,
}

/// All rows of this host.
#[derive(Debug, Default)]
pub(crate) struct Table {
    networks: BTreeMap<Id<Network>, NetworkTable>,
    ports: BTreeMap<Id<Port>, Id<Network>>,
    tombstones: BTreeSet<(Option<Revision>, RowKey)>,
    /// Neighbours that are wanted.
    neighbours: usize,
    tokens: u64,
}

/// One delta while it is worked on.
#[derive(Default)]
struct Draft {
    /// Changes for the data plane, one per key, with the position of their row in the message.
    changes: BTreeMap<RowKey, (RowChange, Option<u32>)>,
    /// Rows that were wanted before.
    gone: Vec<Row>,
    plan: Plan,
}

impl Table {
    /// Starts from what a data plane has in force.
    pub(crate) fn adopt(rows: Vec<Row>) -> Self {
        let mut table = Self::default();
        for row in rows {
            let key = row.key();
            match key {
                RowKey::Port(network, port) => _ = table.ports.insert(port, network),
                RowKey::Neighbour(..) => table.neighbours += 1,
                _ => {}
            }
            let entry = Entry {
                revision: None,
                row: Some(row),
                state: State::InForce,
                token: 0,
            };
            table
                .networks
                .entry(key.network_id())
                .or_default()
                .rows
                .insert(key, entry);
        }
        table
    }

    /// Every network there are rows of, with the revision they are complete to; zero when that is not known.
    pub(crate) fn held(&self) -> Vec<(Id<Network>, Revision)> {
        self.networks
            .iter()
            .filter(|(_, network)| network.held.is_some() || network.rows.values().any(|e| e.row.is_some()))
            .map(|(id, network)| {
                let complete = !network.unreadable
                    && !network
                        .rows
                        .values()
                        .any(|entry| matches!(entry.state, State::Refused(_)));
                (*id, network.held.filter(|_| complete).unwrap_or(Revision::ZERO))
            })
            .collect()
    }

    /// Forgets half-received snapshots: their session is over.
    pub(crate) fn cut(&mut self) {
        for network in self.networks.values_mut() {
            network.named = None;
        }
    }

    /// Takes a delta in. `Err` says how it breaks the protocol; nothing has changed then.
    pub(crate) fn plan(&mut self, delta: Delta) -> Result<Plan, &'static str> {
        let id = delta.network;
        let running = self
            .networks
            .get(&id)
            .is_some_and(|network| network.named.is_some());
        if matches!(delta.phase, Phase::Part | Phase::End) && !running {
            return Err("a part of a snapshot came without its beginning");
        }
        let network = self.networks.entry(id).or_default();
        if matches!(delta.phase, Phase::Begin | Phase::Whole) {
            (network.named, network.held, network.unreadable) = (Some(BTreeSet::new()), None, false);
        }
        let mut draft = Draft::default();
        for (position, row) in (0u32..).zip(delta.rows) {
            match row {
                Ok((revision, change)) => self.take(revision, change, position, &mut draft),
                Err(reason) => {
                    draft.plan.refused.push((position, reason));
                    self.networks.entry(id).or_default().unreadable = true;
                }
            }
        }
        match delta.phase {
            Phase::End | Phase::Whole => self.end_snapshot(id, delta.revision, &mut draft),
            Phase::Forget => self.forget(id, &mut draft),
            Phase::Delta => {
                let network = self.networks.entry(id).or_default();
                network.held = network.held.map(|held| held.max(delta.revision));
            }
            Phase::Begin | Phase::Part => {}
        }
        if matches!(
            draft.changes.get(&RowKey::Network(id)),
            Some((RowChange::Remove(_), _))
        ) {
            self.strand(id, &mut draft);
        }
        Ok(self.finish(draft))
    }

    fn finish(&mut self, draft: Draft) -> Plan {
        let Draft {
            changes,
            gone,
            mut plan,
        } = draft;
        plan.ports.retain(|port| self.port(*port).is_some());
        plan.removed_ports = gone
            .iter()
            .filter_map(|row| match row {
                Row::Port(port) if self.port(port.id).is_none() => Some(port.id),
                _ => None,
            })
            .collect();
        plan.changes = self.order(changes, &gone);
        self.bound_tombstones();
        plan
    }

    /// One row of a delta: newest wins, what is in force already is not touched.
    fn take(&mut self, revision: Revision, change: RowChange, position: u32, draft: &mut Draft) {
        let key = change.key();
        let id = key.network_id();
        let network = self.networks.entry(id).or_default();
        if let Some(named) = &mut network.named {
            named.insert(key);
        }
        let removed = matches!(change, RowChange::Remove(_));
        if let (RowKey::Port(_, port), false) = (key, removed) {
            draft.plan.ports.push(port);
        }
        if let Some(entry) = network.rows.get(&key) {
            let again = entry.revision == Some(revision)
                && entry.row.is_none() == removed
                && matches!(entry.state, State::Refused(_));
            // Who of the gateways is alive is no change of the region: of two words at one revision the later one counts.
            let turned = entry.revision == Some(revision)
                && key.names_gateways()
                && matches!((&entry.row, &change), (Some(old), RowChange::Put(new)) if old != new);
            if !entry.yields_to(revision) && !again && !turned {
                return;
            }
        }
        if key == RowKey::Network(id) && removed {
            // It takes along what lies in it and is not newer.
            for key in self.live(id, |_, entry| {
                entry.revision.is_none_or(|known| known <= revision)
            }) {
                self.set(key, Some(revision), RowChange::Remove(key), Some(position), draft);
            }
        }
        self.set(key, Some(revision), change, Some(position), draft);
    }

    /// Takes neighbours that the NCM has answered with: newest wins, as with deltas. A network that is not here, or not on
    /// demand any more, gets none.
    pub(crate) fn learn(&mut self, rows: Vec<(Revision, NeighbourRow)>) -> Vec<Planned> {
        let mut draft = Draft::default();
        for (revision, row) in rows {
            let key = RowKey::Neighbour(row.network_id, row.ip);
            let yields = self.entry(&key).is_none_or(|entry| entry.yields_to(revision));
            if yields && self.is_on_demand(row.network_id) {
                let change = RowChange::Put(Row::Neighbour(row));
                self.set(key, Some(revision), change, None, &mut draft);
            }
        }
        self.finish(draft).changes
    }

    /// Gives neighbours up that nobody said are gone, with their revisions: whatever is said of them next counts. An NCM that was started
    /// again may know a row by an older revision than it told before, and deltas that are on their way end with the newest.
    pub(crate) fn lapse(&mut self, keys: impl IntoIterator<Item = RowKey>) -> Vec<Planned> {
        let mut draft = Draft::default();
        for key in keys {
            if self.entry(&key).is_some_and(|entry| entry.row.is_some()) {
                self.set(key, None, RowChange::Remove(key), None, &mut draft);
            }
        }
        self.finish(draft).changes
    }

    /// Rows that stay wanted while their network goes: the data plane drops them with it. They are refused, and
    /// tried again until a network row comes.
    fn strand(&mut self, id: Id<Network>, draft: &mut Draft) {
        let reason = "its network was removed";
        let Some(network) = self.networks.get_mut(&id) else {
            return;
        };
        for (key, entry) in network.rows.iter_mut().filter(|(_, entry)| entry.row.is_some()) {
            entry.state = State::Refused(reason.to_owned());
            // What the data plane is still to say about it was true before.
            self.tokens += 1;
            entry.token = self.tokens;
            draft.plan.retry = true;
            if let Some((_, Some(row))) = draft.changes.remove(key) {
                draft.plan.refused.push((row, reason.to_owned()));
            }
        }
    }

    /// The end of a snapshot: what it did not name and that is not newer goes.
    fn end_snapshot(&mut self, id: Id<Network>, revision: Revision, draft: &mut Draft) {
        let network = self.networks.entry(id).or_default();
        network.held = Some(revision);
        let named = network.named.take().unwrap_or_default();
        let not_newer = |entry: &Entry| entry.revision.is_none_or(|known| known <= revision);
        // Neighbours that were asked for are in no snapshot: they have leases.
        let leased = self.is_on_demand(id);
        for key in self.live(id, |key, _| !named.contains(key)) {
            if let (RowKey::Neighbour(_, ip), true) = (key, leased) {
                draft.plan.unnamed.push(ip);
                continue;
            }
            if !self.entry(&key).is_some_and(not_newer) {
                continue;
            }
            self.set(key, Some(revision), RowChange::Remove(key), None, draft);
        }
    }

    /// All of a network goes, with its memory: whatever comes later is new.
    fn forget(&mut self, id: Id<Network>, draft: &mut Draft) {
        for key in self.live(id, |_, _| true) {
            self.set(key, None, RowChange::Remove(key), None, draft);
        }
        if let Some(network) = self.networks.get_mut(&id) {
            (network.held, network.named, network.unreadable) = (None, None, false);
            let tombstones = &mut self.tombstones;
            network.rows.retain(|key, entry| {
                tombstones.remove(&(entry.revision, *key));
                entry.revision = None;
                // The others wait for the data plane.
                entry.state != State::InForce
            });
        }
        self.drop_if_empty(id);
    }

    fn live(&self, id: Id<Network>, test: impl Fn(&RowKey, &Entry) -> bool) -> Vec<RowKey> {
        let rows = self
            .networks
            .get(&id)
            .into_iter()
            .flat_map(|network| &network.rows);
        rows.filter(|(key, entry)| entry.row.is_some() && test(key, entry))
            .map(|(key, _)| *key)
            .collect()
    }

    /// Writes the decision into the table, and into the draft when the data plane has to do something.
    fn set(
        &mut self,
        key: RowKey,
        revision: Option<Revision>,
        change: RowChange,
        position: Option<u32>,
        draft: &mut Draft,
    ) {
        self.tokens += 1;
        let row = match &change {
            RowChange::Put(row) => Some(row.clone()),
            RowChange::Remove(_) => None,
        };
        match (key, &row) {
            (RowKey::Port(network, port), Some(_)) => _ = self.ports.insert(port, network),
            (RowKey::Port(_, port), None) => _ = self.ports.remove(&port),
            _ => {}
        }
        let rows = &mut self.networks.entry(key.network_id()).or_default().rows;
        let old = rows.get(&key);
        // In force already, and nothing of this delta says otherwise: not touched.
        let unchanged = !draft.changes.contains_key(&key)
            && match old {
                Some(old) => old.state == State::InForce && old.row == row,
                None => row.is_none(),
            };
        if matches!(key, RowKey::Neighbour(..)) {
            let was = old.is_some_and(|old| old.row.is_some());
            self.neighbours = self.neighbours - usize::from(was) + usize::from(row.is_some());
        }
        if let Some(old) = old.filter(|old| old.row.is_none()) {
            self.tombstones.remove(&(old.revision, key));
        }
        if row.is_none() {
            draft.gone.extend(old.and_then(|old| old.row.clone()));
            self.tombstones.insert((revision, key));
        }
        let state = if unchanged { State::InForce } else { State::Pending };
        rows.insert(
            key,
            Entry {
                revision,
                row,
                state,
                token: self.tokens,
            },
        );
        if !unchanged {
            draft.changes.insert(key, (change, position));
        }
    }

    /// Puts in the order of their keys, then removes in reverse: a port that moves to another host is never
    /// without an entry. Removes whose MAC a put takes over come first, because a MAC has one owner.
    fn order(&self, changes: BTreeMap<RowKey, (RowChange, Option<u32>)>, gone: &[Row]) -> Vec<Planned> {
        let taken: BTreeSet<MacAddr> = changes
            .values()
            .filter_map(|(change, _)| match change {
                RowChange::Put(Row::Port(port)) => Some(port.mac),
                _ => None,
            })
            .collect();
        let blocking: BTreeSet<RowKey> = gone
            .iter()
            .filter(|row| matches!(row, Row::Port(port) if taken.contains(&port.mac)))
            .map(Row::key)
            .collect();
        let (mut first, mut puts, mut removes) = (Vec::new(), Vec::new(), Vec::new());
        for (key, (change, row)) in changes {
            let token = self.entry(&key).map_or(0, |entry| entry.token);
            let into = match &change {
                RowChange::Put(_) => &mut puts,
                RowChange::Remove(_) if blocking.contains(&key) => &mut first,
                RowChange::Remove(_) => &mut removes,
            };
            into.push(Planned { change, row, token });
        }
        removes.reverse();
        first.into_iter().chain(puts).chain(removes).collect()
    }

    /// Keeps what the data plane said; an answer about a decision that has been replaced is ignored.
    pub(crate) fn outcome(&mut self, planned: &Planned, outcome: &Result<(), String>) {
        let key = planned.change.key();
        let Some(network) = self.networks.get_mut(&key.network_id()) else {
            return;
        };
        let Some(entry) = network.rows.get_mut(&key) else {
            return;
        };
        if entry.token != planned.token {
            return;
        }
        entry.state = match outcome {
            Ok(()) => State::InForce,
            Err(reason) => State::Refused(reason.clone()),
        };
        // A row that was forgotten leaves no tombstone.
        if entry.row.is_none() && entry.revision.is_none() && outcome.is_ok() {
            network.rows.remove(&key);
            self.tombstones.remove(&(None, key));
        }
        self.drop_if_empty(key.network_id());
    }

    /// What was refused, to try it again; at most `limit` changes.
    pub(crate) fn retries(&self, limit: usize) -> Vec<Planned> {
        let refused = || {
            let rows = self.networks.values().flat_map(|network| &network.rows);
            rows.filter(|(_, entry)| matches!(entry.state, State::Refused(_)))
                .map(|(key, entry)| Planned {
                    change: entry.row.clone().map_or(RowChange::Remove(*key), RowChange::Put),
                    row: None,
                    token: entry.token,
                })
        };
        let removes = refused().filter(|planned| matches!(planned.change, RowChange::Remove(_)));
        let puts = refused().filter(|planned| matches!(planned.change, RowChange::Put(_)));
        removes.chain(puts).take(limit).collect()
    }

    fn bound_tombstones(&mut self) {
        while self.tombstones.len() > MAX_TOMBSTONES {
            let Some((_, key)) = self.tombstones.pop_first() else {
                return;
            };
            if let Some(network) = self.networks.get_mut(&key.network_id())
                && network
                    .rows
                    .get(&key)
                    .is_some_and(|entry| entry.state == State::InForce)
            {
                network.rows.remove(&key);
                self.drop_if_empty(key.network_id());
            }
        }
    }

    fn drop_if_empty(&mut self, id: Id<Network>) {
        let empty = |network: &NetworkTable| {
            network.rows.is_empty() && network.held.is_none() && network.named.is_none()
        };
        if self.networks.get(&id).is_some_and(empty) {
            self.networks.remove(&id);
        }
    }

    /// The entry of a key, tombstones too.
    pub(crate) fn entry(&self, key: &RowKey) -> Option<&Entry> {
        self.networks.get(&key.network_id())?.rows.get(key)
    }

    /// The entry of a wanted local port.
    pub(crate) fn port_entry(&self, port: Id<Port>) -> Option<&Entry> {
        self.entry(&RowKey::Port(*self.ports.get(&port)?, port))
    }

    /// The row of a wanted local port.
    pub(crate) fn port(&self, port: Id<Port>) -> Option<&PortRow> {
        match self.port_entry(port)?.row.as_ref()? {
            Row::Port(row) => Some(row),
            _ => None,
        }
    }

    /// All wanted local ports.
    pub(crate) fn ports(&self) -> impl Iterator<Item = Id<Port>> {
        self.ports.keys().copied()
    }

    /// The row of a network.
    pub(crate) fn network(&self, id: Id<Network>) -> Option<&NetworkRow> {
        match self.entry(&RowKey::Network(id))?.row.as_ref()? {
            Row::Network(row) => Some(row),
            _ => None,
        }
    }

    /// Whether addresses of a network are asked for.
    pub(crate) fn is_on_demand(&self, id: Id<Network>) -> bool {
        self.network(id).is_some_and(|row| row.on_demand)
    }

    /// What the data plane has said about a neighbour that is wanted.
    pub(crate) fn neighbour(&self, (network, ip): &(Id<Network>, IpAddr)) -> Option<&State> {
        let entry = self.entry(&RowKey::Neighbour(*network, *ip))?;
        entry.row.as_ref().map(|_| &entry.state)
    }

    /// The neighbours wanted in a network.
    pub(crate) fn neighbours(&self, id: Id<Network>) -> Vec<IpAddr> {
        let keys = self.live(id, |key, _| matches!(key, RowKey::Neighbour(..)));
        let ip = |key| match key {
            RowKey::Neighbour(_, ip) => Some(ip),
            _ => None,
        };
        keys.into_iter().filter_map(ip).collect()
    }

    /// Every network that is on demand.
    pub(crate) fn on_demand(&self) -> Vec<Id<Network>> {
        let networks = self.networks.keys().copied();
        networks.filter(|id| self.is_on_demand(*id)).collect()
    }

    /// The subnets of a network.
    pub(crate) fn subnets(&self, id: Id<Network>) -> Vec<&SubnetRow> {
        let rows = self
            .networks
            .get(&id)
            .into_iter()
            .flat_map(|network| network.rows.values());
        rows.filter_map(|entry| match entry.row.as_ref()? {
            Row::Subnet(row) => Some(row),
            _ => None,
        })
        .collect()
    }

    /// How many neighbours are wanted, all networks together.
    pub(crate) const fn count_neighbours(&self) -> usize {
        self.neighbours
    }

    /// For each network: the revision it is complete to, rows wanted, rows refused.
    pub(crate) fn summary(&self) -> Vec<(Id<Network>, Option<Revision>, usize, usize)> {
        let count = |network: &NetworkTable, test: fn(&Entry) -> bool| {
            network.rows.values().filter(|entry| test(entry)).count()
        };
        self.networks
            .iter()
            .map(|(id, network)| {
                let rows = count(network, |entry| entry.row.is_some());
                (
                    *id,
                    network.held,
                    rows,
                    count(network, |e| matches!(e.state, State::Refused(_))),
                )
            })
            .collect()
    }
}
