//! A host without agent and data plane: it keeps what it is sent as the protocol wants it (newest wins, snapshots,
//! forgetting, leases), in a few bytes a row, and answers. Nothing is allocated before the first row comes.
//!
//! Of a row it keeps digests, by which it can be compared with what the host must have.

use std::{
    collections::BTreeSet,
    hash::{DefaultHasher, Hash, Hasher},
    net::IpAddr,
};

use alcor_dataplane::{Row, RowChange, RowKey};
use alcor_model::{Id, Network, Port, Revision};
use alcor_proto::v1;
use alcor_southbound::convert::{
    decode_id, decode_row, encode_id,
    resolve::{Question, Verdict, decode_answer},
};

use crate::clock::Us;

/// Packets that wait for an answer.
const WAITING_MAX: usize = 64;
/// How long a row of a network that begins to be asked for may be used without asking.
const TOLD_LEASE_US: Us = 150_000_000;

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

/// The digest of a row without what only some hosts must know (a neighbour's label, whether to pass on what comes for it)
/// or what is not exact (underlay blocks), and the label.
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

/// The digests of a row's key and of the row, without labels.
pub(crate) fn digests(row: &Row) -> (u64, u64) {
    (key_digest(&row.key()), row_digest(row).0)
}

/// One row, or its tombstone.
#[derive(Clone, Copy, Debug)]
struct LightRow {
    key: u64,
    revision: Revision,
    /// 0 is a tombstone.
    body: u64,
    /// A neighbour's lease; for ever in an eager network.
    until: Us,
    /// A neighbour's tunnel address.
    host: Option<IpAddr>,
    label: u16,
    /// What comes out of the tunnel for it is passed on.
    forward: bool,
}

impl LightRow {
    fn of(key: u64, revision: Revision, row: Option<&Row>, until: Us) -> Self {
        let (body, label) = row.map_or((0, 0), row_digest);
        let (host, forward) = match row {
            Some(Row::Neighbour(row)) => (Some(row.host), row.forward),
            _ => (None, false),
        };
        Self {
            key,
            revision,
            body,
            until,
            host,
            label,
            forward,
        }
    }

    /// A neighbour whose lease is over, though nobody said that it is gone: any word about it counts.
    const fn is_over(&self, now: Us) -> bool {
        self.body != 0 && self.until <= now
    }

    const fn is_live(&self, now: Us) -> bool {
        self.body != 0 && self.until > now
    }
}

#[derive(Debug)]
struct LightNetwork {
    id: Id<Network>,
    held: Revision,
    on_demand: bool,
    /// Keys that the running snapshot has named.
    named: Option<BTreeSet<u64>>,
    /// By key.
    rows: Vec<LightRow>,
    /// Its own ports, by key.
    ports: Vec<(u64, Id<Port>)>,
}

impl LightNetwork {
    const fn new(id: Id<Network>) -> Self {
        Self {
            id,
            held: Revision::ZERO,
            on_demand: false,
            named: None,
            rows: Vec::new(),
            ports: Vec::new(),
        }
    }

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

    fn take(&mut self, row: LightRow, now: Us) {
        if let Some(named) = &mut self.named {
            named.insert(row.key);
        }
        match self.rows.binary_search_by_key(&row.key, |known| known.key) {
            Ok(place) if self.rows[place].revision <= row.revision || self.rows[place].is_over(now) => {
                self.rows[place] = row;
            }
            Ok(_) => {}
            Err(place) => self.rows.insert(place, row),
        }
    }

    /// The network is to be asked about from now on, or not any more: leases begin, or end.
    fn switch(&mut self, on_demand: bool, now: Us) {
        if self.on_demand == on_demand {
            return;
        }
        self.on_demand = on_demand;
        for row in self.rows.iter_mut().filter(|row| row.host.is_some()) {
            row.until = if on_demand { now + TOLD_LEASE_US } else { Us::MAX };
        }
    }

    fn end_snapshot(&mut self, named: &BTreeSet<u64>, newest: Revision) {
        let on_demand = self.on_demand;
        self.rows.retain(|row| {
            // What it learned before it asks for again when it uses it.
            let leased = on_demand && row.host.is_some();
            named.contains(&row.key) || (row.revision > newest && !leased)
        });
    }

    fn drop_gone_ports(&mut self) {
        let rows = &self.rows;
        self.ports.retain(|(key, _)| {
            let place = rows.binary_search_by_key(key, |row| row.key);
            place.is_ok_and(|place| rows[place].body != 0)
        });
    }
}

/// The host.
#[derive(Debug, Default)]
pub(crate) struct Light {
    /// Of the last delta of the running session.
    sequence: u32,
    pub(crate) failures: u8,
    /// Counts the sessions since it was switched on.
    pub(crate) sessions: u16,
    /// An NCM has welcomed it: what it has learned before it asks for again. Without one nothing expires.
    is_welcome: bool,
    networks: Vec<LightNetwork>,
    asking: Option<Box<Asking>>,
}

/// Questions that are on their way, and the packets that wait for them.
#[derive(Debug, Default)]
struct Asking {
    asked: u64,
    waiting: Vec<Waiting>,
}

#[derive(Clone, Copy, Debug)]
struct Waiting {
    /// The number of the message that asks.
    message: u64,
    question: Question,
    packet: u64,
    /// A snapshot has begun since: the answer may be older than what the NCM remembers that it was.
    is_stale: bool,
}

/// What a delta made of a light host.
pub(crate) struct Taken {
    pub(crate) receipt: v1::Receipt,
    /// Ports whose rows were in it and that it has, with the revisions that it has.
    pub(crate) ports: Vec<(Id<Port>, Revision)>,
}

/// Where a light host would send a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// Into a tunnel.
    To(IpAddr),
    /// It must ask first.
    Ask,
    /// It does not know.
    Unknown,
}

impl Light {
    /// What it says that it holds; a new session is opened.
    pub(crate) fn hello(&mut self) -> Vec<v1::Held> {
        self.sequence = 0;
        self.sessions = self.sessions.saturating_add(1);
        self.asking = None;
        for network in &mut self.networks {
            network.named = None;
        }
        let held = self.networks.iter().map(|network| v1::Held {
            network_id: encode_id(network.id),
            revision: network.held.0,
        });
        held.collect()
    }

    /// The session is open. What it had learned it asks for again when it uses it.
    pub(crate) fn welcomed(&mut self) {
        self.is_welcome = true;
        for network in self.networks.iter_mut().filter(|network| network.on_demand) {
            network.rows.retain(|row| row.host.is_none());
        }
    }

    /// The session is over.
    pub(crate) const fn closed(&mut self) {
        self.is_welcome = false;
    }

    /// The time by which leases are judged.
    const fn lease_time(&self, now: Us) -> Us {
        if self.is_welcome { now } else { 0 }
    }

    /// It loses all that it had.
    pub(crate) fn dies(&mut self) {
        *self = Self::default();
    }

    fn find(&self, id: Id<Network>) -> Option<&LightNetwork> {
        let place = self.networks.binary_search_by_key(&id, |network| network.id);
        place.ok().and_then(|place| self.networks.get(place))
    }

    fn network(&mut self, id: Id<Network>) -> &mut LightNetwork {
        let place = match self.networks.binary_search_by_key(&id, |network| network.id) {
            Ok(place) => place,
            Err(place) => {
                self.networks.insert(place, LightNetwork::new(id));
                place
            }
        };
        &mut self.networks[place]
    }

    /// Takes a delta in. `unix_us` is what the receipt says of the time.
    ///
    /// # Errors
    /// How it breaks the protocol.
    pub(crate) fn take(&mut self, delta: &v1::Delta, now: Us, unix_us: u64) -> Result<Taken, String> {
        if delta.sequence != u64::from(self.sequence) + 1 {
            let due = self.sequence + 1;
            return Err(format!("delta {} came where {due} was due", delta.sequence));
        }
        self.sequence += 1;
        let id: Id<Network> =
            decode_id("the network", &delta.network_id).map_err(|error| error.to_string())?;
        let mut taken = Taken {
            receipt: v1::Receipt {
                sequence: delta.sequence,
                received_us: unix_us,
                visible_us: unix_us,
                refused: Vec::new(),
            },
            ports: Vec::new(),
        };
        let phase = delta.snapshot();
        if !matches!(
            phase,
            v1::SnapshotPhase::Delta | v1::SnapshotPhase::Part | v1::SnapshotPhase::End
        ) {
            self.doubt_answers(id);
        }
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
            named.extend(network.take_change(revision, &change, now));
        }
        if matches!(phase, v1::SnapshotPhase::End | v1::SnapshotPhase::Whole) {
            let Some(named) = network.named.take() else {
                return Err("the end of a snapshot came without its beginning".to_owned());
            };
            network.end_snapshot(&named, Revision(delta.revision));
        }
        if delta.revision > 0 {
            network.held = network.held.max(Revision(delta.revision));
        }
        network.drop_gone_ports();
        taken.ports = network.ports().filter(|(port, _)| named.contains(port)).collect();
        Ok(taken)
    }

    /// Answers that are on their way are about what was before.
    fn doubt_answers(&mut self, id: Id<Network>) {
        let waiting = self.asking.iter_mut().flat_map(|asking| &mut asking.waiting);
        for waiting in waiting.filter(|waiting| waiting.question.network == id) {
            waiting.is_stale = true;
        }
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

    /// The rows that it goes by in a network: digests of key and body, and label.
    pub(crate) fn rows(&self, id: Id<Network>, now: Us) -> impl Iterator<Item = (u64, u64, u16)> {
        let now = self.lease_time(now);
        let rows = self.find(id).into_iter().flat_map(|network| &network.rows);
        rows.filter(move |row| row.is_live(now))
            .map(|row| (row.key, row.body, row.label))
    }

    /// Whether it asks for neighbours in a network.
    pub(crate) fn asks(&self, id: Id<Network>) -> bool {
        self.find(id).is_some_and(|network| network.on_demand)
    }

    /// Whether it has a row.
    pub(crate) fn has(&self, key: &RowKey) -> bool {
        let network = self.find(key.network_id());
        let row = network.and_then(|network| network.find(key_digest(key)));
        row.is_some_and(|row| row.body != 0)
    }

    /// Where it would send a packet now.
    pub(crate) fn route(&self, id: Id<Network>, ip: IpAddr, now: Us) -> Route {
        let now = self.lease_time(now);
        let Some(network) = self.find(id) else {
            return Route::Unknown;
        };
        let row = network.find(key_digest(&RowKey::Neighbour(id, ip)));
        match row.filter(|row| row.is_live(now)).and_then(|row| row.host) {
            Some(host) => Route::To(host),
            None if network.on_demand => Route::Ask,
            None => Route::Unknown,
        }
    }

    /// Where it passes on what comes for an address.
    pub(crate) fn forwards(&self, id: Id<Network>, ip: IpAddr) -> Option<IpAddr> {
        let network = self.find(id)?;
        let row = network.find(key_digest(&RowKey::Neighbour(id, ip)))?;
        row.host.filter(|_| row.forward && row.body != 0)
    }

    /// How many neighbours it goes by in a network.
    pub(crate) fn neighbours(&self, id: Id<Network>, now: Us) -> usize {
        let now = self.lease_time(now);
        let rows = self.find(id).into_iter().flat_map(|network| &network.rows);
        rows.filter(|row| row.host.is_some() && row.is_live(now)).count()
    }

    /// A packet waits for an answer; the message that asks, unless too many wait or the same was asked.
    pub(crate) fn ask(&mut self, question: Question, packet: u64) -> Option<v1::Resolve> {
        let asking = self.asking.get_or_insert_default();
        if asking.waiting.len() >= WAITING_MAX {
            return None;
        }
        let same = |waiting: &&Waiting| {
            let asked = waiting.question;
            (asked.network, asked.ip) == (question.network, question.ip) && !waiting.is_stale
        };
        if let Some(same) = asking.waiting.iter().find(same).copied() {
            asking.waiting.push(Waiting { packet, ..same });
            return None;
        }
        asking.asked += 1;
        asking.waiting.push(Waiting {
            message: asking.asked,
            question,
            packet,
            is_stale: false,
        });
        let questions = &[question];
        Some(alcor_southbound::convert::resolve::encode_questions(
            asking.asked,
            questions,
        ))
    }

    /// Takes an answer; gives the packets that waited for it.
    ///
    /// # Errors
    /// How it breaks the protocol.
    pub(crate) fn answered(&mut self, message: &v1::Resolved, now: Us) -> Result<Vec<u64>, String> {
        let Some(asking) = &mut self.asking else {
            return Ok(Vec::new());
        };
        let waiting = std::mem::take(&mut asking.waiting);
        let (mine, others): (Vec<_>, Vec<_>) = waiting
            .into_iter()
            .partition(|waiting| waiting.message == message.id);
        asking.waiting = others;
        let (Some(first), [answer]) = (mine.first(), &message.answers[..]) else {
            return Err(format!("{} answers to one question", message.answers.len()));
        };
        let (question, is_stale) = (&first.question, first.is_stale);
        let packets = mine.iter().map(|waiting| waiting.packet).collect();
        if is_stale {
            return Ok(packets);
        }
        let answer = decode_answer(question, answer).map_err(|error| error.to_string())?;
        let Verdict::Route(revision, row) = answer.verdict else {
            return Ok(Vec::new());
        };
        let lease = u64::try_from(answer.lease.as_micros()).unwrap_or(Us::MAX / 2);
        let row = Row::Neighbour(row);
        let network = self.network(question.network);
        if network.on_demand {
            let key = key_digest(&row.key());
            network.take(LightRow::of(key, revision, Some(&row), now + lease), now);
        }
        Ok(packets)
    }
}

impl LightNetwork {
    /// Takes one row of a delta; gives its port when it is one.
    fn take_change(&mut self, revision: Revision, change: &RowChange, now: Us) -> Option<Id<Port>> {
        let key = key_digest(&change.key());
        let row = match change {
            RowChange::Put(row) => Some(row),
            RowChange::Remove(_) => None,
        };
        if let Some(Row::Network(row)) = row {
            self.switch(row.on_demand, now);
        }
        // What it is told without having asked is good for a lease too.
        let leased = self.on_demand && matches!(row, Some(Row::Neighbour(_)));
        let until = if leased { now + TOLD_LEASE_US } else { Us::MAX };
        self.take(LightRow::of(key, revision, row, until), now);
        let Some(Row::Port(port)) = row else { return None };
        if !self.ports.contains(&(key, port.id)) {
            self.ports.push((key, port.id));
        }
        Some(port.id)
    }
}
