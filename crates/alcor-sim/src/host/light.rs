//! A host without agent and data plane: it keeps what it is sent as the protocol wants it (newest wins, snapshots,
//! forgetting), in a few bytes a row, and answers. Nothing is allocated before the first row comes.
//!
//! Of a row it keeps digests, by which it can be compared with what the host must have.

use std::{
    collections::BTreeSet,
    hash::{DefaultHasher, Hash, Hasher},
};

use alcor_dataplane::{Row, RowChange, RowKey};
use alcor_model::{Id, Network, Port, Revision};
use alcor_proto::v1;
use alcor_southbound::convert::{decode_id, decode_row, encode_id};

/// A digest that is the same in every run.
fn digest(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// The digest of a key.
pub(crate) fn key_digest(key: &RowKey) -> u64 {
    digest(key)
}

/// The digest of a row without what only some hosts must know (a neighbour's label) or what is not exact (underlay
/// blocks), and the label.
pub(crate) fn row_digest(row: &Row) -> (u64, u16) {
    let (text, label) = match row {
        Row::Neighbour(row) => (format!("{} {} {}", row.ip, row.mac, row.host), row.label),
        Row::Network(row) => (format!("{} {} {}", row.vni, row.mtu, row.admin_state_up), 0),
        Row::Policy(row) => {
            let (mut ingress, mut egress) = (row.ingress.clone(), row.egress.clone());
            ingress.sort();
            egress.sort();
            (format!("{} {ingress:?} {egress:?}", row.stateful), 0)
        }
        row => (format!("{row:?}"), 0),
    };
    (digest(&text).max(1), label)
}

/// One row, or its tombstone.
#[derive(Clone, Copy, Debug)]
struct LightRow {
    key: u64,
    revision: Revision,
    /// 0 is a tombstone.
    body: u64,
    label: u16,
}

#[derive(Debug)]
struct LightNetwork {
    id: Id<Network>,
    held: Revision,
    /// Keys that the running snapshot has named.
    named: Option<BTreeSet<u64>>,
    /// By key.
    rows: Vec<LightRow>,
    /// Its own ports, by key.
    ports: Vec<(u64, Id<Port>)>,
}

impl LightNetwork {
    fn find(&self, key: u64) -> Option<&LightRow> {
        let place = self.rows.binary_search_by_key(&key, |known| known.key);
        place.ok().and_then(|place| self.rows.get(place))
    }

    /// The ports that are there, with their revisions.
    fn ports(&self) -> impl Iterator<Item = (Id<Port>, Revision)> {
        let live = |(key, port): &(u64, Id<Port>)| {
            let row = self.find(*key).filter(|row| row.body != 0)?;
            Some((*port, row.revision))
        };
        self.ports.iter().filter_map(live)
    }

    fn take(&mut self, row: LightRow) {
        if let Some(named) = &mut self.named {
            named.insert(row.key);
        }
        match self.rows.binary_search_by_key(&row.key, |known| known.key) {
            Ok(place) if self.rows[place].revision <= row.revision => self.rows[place] = row,
            Ok(_) => {}
            Err(place) => self.rows.insert(place, row),
        }
    }
}

/// The host.
#[derive(Debug, Default)]
pub(crate) struct Light {
    /// Of the last delta of the running session.
    sequence: u32,
    pub(crate) failures: u8,
    networks: Vec<LightNetwork>,
}

/// What a delta made of a light host.
pub(crate) struct Taken {
    pub(crate) receipt: v1::Receipt,
    /// Ports whose rows were in it and that it has, with the revisions that it has.
    pub(crate) ports: Vec<(Id<Port>, Revision)>,
}

impl Light {
    /// What it says that it holds; a new session begins.
    pub(crate) fn hello(&mut self) -> Vec<v1::Held> {
        self.sequence = 0;
        for network in &mut self.networks {
            network.named = None;
        }
        let held = self.networks.iter().map(|network| v1::Held {
            network_id: encode_id(network.id),
            revision: network.held.0,
        });
        held.collect()
    }

    /// It loses all that it had.
    pub(crate) fn dies(&mut self) {
        *self = Self::default();
    }

    fn network(&mut self, id: Id<Network>) -> &mut LightNetwork {
        let place = match self.networks.binary_search_by_key(&id, |network| network.id) {
            Ok(place) => place,
            Err(place) => {
                let network = LightNetwork {
                    id,
                    held: Revision::ZERO,
                    named: None,
                    rows: Vec::new(),
                    ports: Vec::new(),
                };
                self.networks.insert(place, network);
                place
            }
        };
        &mut self.networks[place]
    }

    /// Takes a delta in.
    ///
    /// # Errors
    /// How it breaks the protocol.
    pub(crate) fn take(&mut self, delta: &v1::Delta, now_us: u64) -> Result<Taken, String> {
        if delta.sequence != u64::from(self.sequence) + 1 {
            return Err(format!(
                "delta {} came where {} was due",
                delta.sequence,
                self.sequence + 1
            ));
        }
        self.sequence += 1;
        let id: Id<Network> =
            decode_id("the network", &delta.network_id).map_err(|error| error.to_string())?;
        let mut taken = Taken {
            receipt: v1::Receipt {
                sequence: delta.sequence,
                received_us: now_us,
                visible_us: now_us,
                refused: Vec::new(),
            },
            ports: Vec::new(),
        };
        let phase = delta.snapshot();
        if phase == v1::SnapshotPhase::Forget {
            self.networks.retain(|network| network.id != id);
            return Ok(taken);
        }
        let network = self.network(id);
        if matches!(phase, v1::SnapshotPhase::Begin | v1::SnapshotPhase::Whole) {
            (network.named, network.held) = (Some(BTreeSet::new()), Revision::ZERO);
        }
        let mut named = Vec::new();
        for row in &delta.rows {
            let (revision, change) = decode_row(id, row).map_err(|error| error.to_string())?;
            let key = key_digest(&change.key());
            let (body, label) = match &change {
                RowChange::Put(row) => row_digest(row),
                RowChange::Remove(_) => (0, 0),
            };
            if let RowChange::Put(Row::Port(port)) = &change {
                named.push(port.id);
                if !network.ports.contains(&(key, port.id)) {
                    network.ports.push((key, port.id));
                }
            }
            network.take(LightRow {
                key,
                revision,
                body,
                label,
            });
        }
        if matches!(phase, v1::SnapshotPhase::End | v1::SnapshotPhase::Whole) {
            let Some(named) = network.named.take() else {
                return Err("the end of a snapshot came without its beginning".to_owned());
            };
            let newest = Revision(delta.revision);
            network
                .rows
                .retain(|row| named.contains(&row.key) || row.revision > newest);
        }
        if delta.revision > 0 {
            network.held = network.held.max(Revision(delta.revision));
        }
        let rows = &network.rows;
        network.ports.retain(|(key, _)| {
            let place = rows.binary_search_by_key(key, |row| row.key);
            place.is_ok_and(|place| rows[place].body != 0)
        });
        taken.ports = network.ports().filter(|(port, _)| named.contains(port)).collect();
        Ok(taken)
    }

    /// All of its ports, with the revisions that it has.
    pub(crate) fn ports(&self) -> Vec<(Id<Port>, Revision)> {
        self.networks.iter().flat_map(LightNetwork::ports).collect()
    }

    /// The networks that it has something of.
    pub(crate) fn networks(&self) -> impl Iterator<Item = Id<Network>> {
        let live = |network: &&LightNetwork| network.rows.iter().any(|row| row.body != 0);
        self.networks.iter().filter(live).map(|network| network.id)
    }

    /// The rows that it has of a network: digests of key and body, and label.
    pub(crate) fn rows(&self, id: Id<Network>) -> impl Iterator<Item = (u64, u64, u16)> {
        let network = self.networks.iter().find(|network| network.id == id);
        let rows = network.into_iter().flat_map(|network| &network.rows);
        rows.filter(|row| row.body != 0)
            .map(|row| (row.key, row.body, row.label))
    }
}
