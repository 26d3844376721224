//! An agent that does as the protocol demands: keeps the newest revision per key, and asks for addresses of networks that
//! are on demand.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    num::NonZeroU16,
    time::Duration,
};

use alcor_dataplane::{Row, RowChange, RowKey};
use alcor_proto::v1;
use alcor_southbound::convert::{
    decode_id, decode_row, encode_ip,
    resolve::{Question, Verdict, decode_answer, encode_questions},
};

use super::{
    super::*,
    sim::receipt,
    world::{World, filters, name, outside, text, tunnel_ip},
};

#[derive(Default)]
pub(super) struct SimAgent {
    /// The set that it is in, of a gateway.
    pub(super) set: Option<&'static str>,
    /// It has a device in the external network.
    pub(super) outside: bool,
    /// Networks that it has had all of, and has not been told to forget since.
    pub(super) complete: BTreeSet<Id<Network>>,
    pub(super) session: Option<SessionId>,
    pub(super) incarnation: u64,
    pub(super) rows: BTreeMap<RowKey, (Revision, Option<Row>)>,
    pub(super) held: BTreeMap<Id<Network>, Revision>,
    /// Messages that are on their way to the agent.
    pub(super) inbox: VecDeque<v1::ncm_message::Body>,
    pub(super) named: BTreeMap<Id<Network>, BTreeSet<RowKey>>,
    pub(super) last_sequence: u64,
    /// Neighbours of before this session, or before a snapshot, of which it has not been told anything since.
    pub(super) doubted: BTreeSet<RowKey>,
    /// How long answers hold that do not say so.
    pub(super) lease: Duration,
    /// Until when rows of neighbours in networks on demand may be used, while there is a session.
    pub(super) leases: BTreeMap<RowKey, Duration>,
    /// Questions without an answer, with when they were asked.
    pub(super) asked: BTreeMap<u64, (Duration, Vec<Question>)>,
    pub(super) last_question: u64,
    /// Questions on their way to the NCM.
    pub(super) outbox: VecDeque<v1::Resolve>,
    /// Answers that whoever carries messages has made and not yet sent.
    pub(super) answered: VecDeque<v1::Resolved>,
}

impl SimAgent {
    pub(super) fn hello(&self, host: u8) -> v1::Hello {
        v1::Hello {
            host: name(host),
            incarnation: self.incarnation,
            tunnel_ip: encode_ip(tunnel_ip(host)),
            held: self
                .all_held()
                .iter()
                .map(|(network, revision)| v1::Held {
                    network_id: alcor_southbound::convert::encode_id(*network),
                    revision: revision.0,
                })
                .collect(),
            dataplane: "sim".into(),
            version: String::new(),
            filters: filters(&format!("h{host}")),
            gateway: self.set.is_some(),
            gateway_set: self.set.unwrap_or_default().to_owned(),
            external_networks: match self.outside {
                true => vec![alcor_southbound::convert::encode_id(outside())],
                false => Vec::new(),
            },
            ..v1::Hello::default()
        }
    }

    /// What it has, and of what it has only some rows it does not know to which revision.
    fn all_held(&self) -> BTreeMap<Id<Network>, Revision> {
        let present = self.rows.iter().filter(|(_, (_, row))| row.is_some());
        let mut held: BTreeMap<_, _> = present
            .map(|(key, _)| (key.network_id(), Revision::ZERO))
            .collect();
        held.extend(&self.held);
        held
    }

    /// A new session begins: nothing of the old one arrives any more, and what was learned is asked for again.
    pub(super) fn welcome(&mut self, session: SessionId, now: Duration) {
        self.session = Some(session);
        self.inbox.clear();
        let neighbours = self
            .rows
            .keys()
            .filter(|key| matches!(key, RowKey::Neighbour(..)));
        self.doubted = neighbours.copied().collect();
        self.named.clear();
        self.last_sequence = 0;
        self.outbox.clear();
        self.answered.clear();
        self.asked.clear();
        for until in self.leases.values_mut() {
            *until = now + self.lease;
        }
        let keys: Vec<_> = self.leases.keys().copied().collect();
        self.ask_again(now, &keys);
    }

    fn ask_again(&mut self, now: Duration, keys: &[RowKey]) {
        let questions = keys.iter().filter_map(|key| match key {
            RowKey::Neighbour(network, ip) => Some(Question {
                network: *network,
                ip: *ip,
                port: None,
            }),
            _ => None,
        });
        self.ask(now, questions.collect());
    }

    pub(super) fn ask(&mut self, now: Duration, questions: Vec<Question>) {
        if self.session.is_none() || questions.is_empty() {
            return;
        }
        self.last_question += 1;
        self.outbox
            .push_back(encode_questions(self.last_question, &questions));
        self.asked.insert(self.last_question, (now, questions));
    }

    /// Drops what was not asked for again in time. Without a session nothing runs out.
    pub(super) fn expire(&mut self, now: Duration) {
        if self.session.is_none() {
            return;
        }
        let over = self.leases.iter().filter(|(_, until)| **until <= now);
        let over: Vec<_> = over.map(|(key, _)| *key).collect();
        for key in over {
            self.leases.remove(&key);
            self.rows.remove(&key);
        }
    }

    pub(super) fn is_on_demand(&self, network: Id<Network>) -> bool {
        let row = self.rows.get(&RowKey::Network(network));
        matches!(row, Some((_, Some(Row::Network(row)))) if row.on_demand)
    }

    /// Answers to questions about a network are of no use any more.
    fn forget_questions(&mut self, network: Id<Network>) {
        for (_, questions) in self.asked.values_mut() {
            // The positions of the others stay.
            for question in questions
                .iter_mut()
                .filter(|question| question.network == network)
            {
                question.network = Id::from_uuid(uuid::Uuid::nil());
            }
        }
    }

    pub(super) fn take_answers(&mut self, resolved: &v1::Resolved) {
        let Some((asked_at, questions)) = self.asked.remove(&resolved.id) else {
            return;
        };
        for (question, answer) in questions.iter().zip(&resolved.answers) {
            if !self.is_on_demand(question.network) {
                continue;
            }
            let answer = decode_answer(question, answer).unwrap();
            let key = RowKey::Neighbour(question.network, question.ip);
            match answer.verdict {
                Verdict::Route(revision, row) => {
                    self.doubted.remove(&key);
                    let known = self.rows.get(&key);
                    if known.is_none_or(|(known, _)| *known <= revision) {
                        // Nobody but a delta says to pass on.
                        let forward = matches!(known, Some((_, Some(Row::Neighbour(row)))) if row.forward);
                        let row = Row::Neighbour(alcor_dataplane::NeighbourRow { forward, ..row });
                        self.rows.insert(key, (revision, Some(row)));
                    }
                    if matches!(self.rows.get(&key), Some((_, Some(_)))) {
                        let until = self.leases.entry(key).or_default();
                        *until = (asked_at + answer.lease).max(*until);
                    }
                }
                Verdict::Unknown | Verdict::Deny => {
                    if self.leases.remove(&key).is_some() {
                        self.rows.remove(&key);
                    }
                }
                Verdict::Busy => {}
            }
        }
    }

    pub(super) fn take(&mut self, delta: &v1::Delta, now: Duration) -> v1::Receipt {
        assert_eq!(delta.sequence, self.last_sequence + 1, "sequences have no gaps");
        self.last_sequence = delta.sequence;
        let network: Id<Network> = decode_id("network", &delta.network_id).unwrap();
        let phase = delta.snapshot();
        if phase == v1::SnapshotPhase::Forget {
            self.rows.retain(|key, _| key.network_id() != network);
            self.leases.retain(|key, _| key.network_id() != network);
            self.forget_questions(network);
            self.held.remove(&network);
            self.complete.remove(&network);
            return receipt(delta.sequence);
        }
        if matches!(phase, v1::SnapshotPhase::Begin | v1::SnapshotPhase::Whole) {
            self.named.insert(network, BTreeSet::new());
            self.held.insert(network, Revision::ZERO);
            // What it does not name stays where the network is on demand, and is asked for again.
            let here = |key: &&RowKey| matches!(key, RowKey::Neighbour(of, _) if *of == network);
            self.doubted.extend(self.rows.keys().filter(here));
        }
        let was_on_demand = self.is_on_demand(network);
        for row in &delta.rows {
            self.take_row(network, row, now);
        }
        if matches!(phase, v1::SnapshotPhase::End | v1::SnapshotPhase::Whole) {
            self.complete.insert(network);
            let named = self.named.remove(&network).unwrap();
            let newest = Revision(delta.revision);
            let on_demand = self.is_on_demand(network);
            self.rows.retain(|key, (revision, _)| {
                let stays = on_demand && matches!(key, RowKey::Neighbour(..));
                key.network_id() != network || named.contains(key) || *revision > newest || stays
            });
        }
        self.change_mode(network, was_on_demand, phase, now);
        if delta.revision > 0 {
            self.held.insert(network, Revision(delta.revision));
        }
        receipt(delta.sequence)
    }

    fn take_row(&mut self, network: Id<Network>, row: &v1::Row, now: Duration) {
        let (revision, change) = decode_row(network, row).unwrap();
        let key = change.key();
        self.doubted.remove(&key);
        if let Some(named) = self.named.get_mut(&network) {
            named.insert(key);
        }
        if self.rows.get(&key).is_some_and(|(known, _)| *known > revision) {
            return;
        }
        let value = match change {
            RowChange::Put(row) => Some(row),
            RowChange::Remove(_) => None,
        };
        if value.is_none() {
            self.leases.remove(&key);
        } else if matches!(key, RowKey::Neighbour(..)) && self.is_on_demand(network) {
            let lease = self.lease;
            self.leases.entry(key).or_insert(now + lease);
        }
        self.rows.insert(key, (revision, value));
    }

    fn change_mode(
        &mut self,
        network: Id<Network>,
        was_on_demand: bool,
        phase: v1::SnapshotPhase,
        now: Duration,
    ) {
        match (was_on_demand, self.is_on_demand(network)) {
            (false, true) => {
                let rows = self.rows.iter().filter(|(key, (_, row))| {
                    key.network_id() == network && matches!(key, RowKey::Neighbour(..)) && row.is_some()
                });
                let keys: Vec<_> = rows.map(|(key, _)| *key).collect();
                for key in &keys {
                    let spread = self.lease / 2 + self.lease / 2 * (self.leases.len() as u32 % 5) / 5;
                    self.leases.entry(*key).or_insert(now + spread);
                }
                if phase != v1::SnapshotPhase::Delta {
                    // Changes of them may have been missed.
                    self.ask_again(now, &keys);
                }
            }
            (true, false) => {
                self.leases.retain(|key, _| key.network_id() != network);
                self.forget_questions(network);
            }
            _ => {}
        }
    }

    pub(super) fn has(&self, host: &str, world: &World) -> BTreeMap<RowKey, String> {
        let rows = self.rows.iter();
        let present = rows.filter_map(|(key, (_, row))| Some((*key, row.as_ref()?)));
        present
            .map(|(key, row)| (key, text(row, world.looks(host, key.network_id()))))
            .collect()
    }

    /// Whether it has a meaning of a number in one of these networks that is older than the last time when the number was given free.
    pub(super) fn knows_old_meanings(&self, world: &World, networks: &BTreeSet<Id<Network>>) -> bool {
        let mut rows = self
            .rows
            .values()
            .filter_map(|(revision, row)| Some((*revision, row.as_ref()?)));
        rows.any(|(revision, row)| match row {
            Row::Label(row) => {
                let released = world.released.get(&(row.network_id, row.label));
                released.is_some_and(|released| revision < *released) && networks.contains(&row.network_id)
            }
            _ => false,
        })
    }

    /// Whether it would take packets or neighbours with a number for something.
    pub(super) fn knows(&self, network: Id<Network>, number: NonZeroU16) -> bool {
        let mut rows = self.rows.values().filter_map(|(_, row)| row.as_ref());
        rows.any(|row| match row {
            Row::Label(row) => (row.network_id, row.label) == (network, number),
            Row::Neighbour(row) => (row.network_id, row.label) == (network, number.get()),
            _ => false,
        })
    }
}
