//! Networks on demand: packets to addresses that no row tells are held, the NCM is asked, and what it answers is leased. Where
//! gateways know the addresses, they have the packet already, and what is asked for is the direct way.
//!
//! One table has all rows, whoever told of them ([`crate::table`]); leases ([`crate::learned`]), questions
//! ([`crate::asking`]) and packets ([`crate::held`]) are kept beside it. Without a session nothing expires.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use alcor_dataplane::RowKey;
use alcor_model::{Id, Network, Port};
use alcor_proto::v1;
use alcor_southbound::convert::resolve::{
    Answer, LEASE_UNASKED, Question, Verdict, decode_answer, encode_questions,
};
use bytes::Bytes;
use serde_json::{Value, json};

use super::{Action, Agent, Now};
use crate::{
    held::{Dropped, Held, Key},
    learned::{Learned, Next},
    table::State,
};

/// New questions that a port may cause per second in the long run.
pub const QUESTIONS_PER_S: f64 = 1_000.0;
/// New questions that a port may cause at once.
pub const QUESTION_BURST: f64 = 2_000.0;
/// How long after a session began what the host has learned is asked for again. A snapshot has come by then, if there is
/// one, and asking before it would be asking twice.
pub const ASK_AGAIN_AFTER: Duration = Duration::from_millis(500);
/// How long an address is not asked for after an answer that makes no sense, or a neighbour that the data plane refused.
pub const NEGATIVE_LEASE: Duration = Duration::from_secs(1);

/// What was done since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Questions for a packet.
    pub questions: u64,
    /// Questions about leases.
    pub renewals: u64,
    /// Messages with questions.
    pub messages: u64,
    /// Answers by kind: `route`, `unknown`, `deny`, `busy`, `malformed`.
    pub answers: BTreeMap<&'static str, u64>,
    /// Packets that were held and went on.
    pub released: u64,
    /// Packets that the data plane told of without handing them up, as a gateway has them.
    pub by_gateway: u64,
    /// Of these, those whose address was not asked for, though nobody was asking: without a session, or because too much was
    /// asked.
    pub unasked: u64,
    /// Packets that were not held, or not until the end.
    pub dropped: BTreeMap<Dropped, u64>,
    /// Neighbours that went because there were too many.
    pub evicted: u64,
}

/// How much there is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Neighbours with a lease.
    pub learned: usize,
    /// Packets that are held.
    pub held: usize,
    /// Addresses that are asked for.
    pub asked: usize,
    /// Addresses that nobody has.
    pub negative: usize,
}

impl Agent {
    /// What learning has done so far.
    pub const fn learning(&self) -> &Counts {
        &self.learning
    }

    /// How much of it there is.
    pub fn learning_sizes(&self) -> Sizes {
        let (asked, negative) = self.asking.len();
        Sizes {
            learned: self.learned.len(),
            held: self.held.len(),
            asked,
            negative,
        }
    }

    /// How long packets that were released since the last call had waited, from the first packet to an address on.
    pub fn take_waits(&mut self) -> Vec<Duration> {
        std::mem::take(&mut self.waits)
    }

    /// The neighbours that the data plane had in force when the agent started.
    pub(super) fn adopt_neighbours(&mut self) {
        for network in self.table.on_demand() {
            for ip in self.table.neighbours(network) {
                self.learned.adopt((network, ip));
            }
        }
    }

    fn drop_packets(&mut self, reason: Dropped, count: u64) {
        if count > 0 {
            *self.learning.dropped.entry(reason).or_default() += count;
        }
    }

    /// A port sent to an address that no row told when it did.
    pub(super) fn unresolved(
        &mut self,
        now: Now,
        port: Id<Port>,
        key: Key,
        frame: Bytes,
        out: &mut Vec<Action>,
    ) {
        if frame.is_empty() {
            return self.went_by_gateway(now.since_start, port, key);
        }
        match self.admit(now.since_start, port, key, &frame) {
            Ok(true) => {
                let frames = vec![(port, frame)];
                out.push(Action::Release { frames });
            }
            Ok(false) => self.held.hold(now.since_start, key, port, frame),
            Err(reason) => self.drop_packets(reason, 1),
        }
    }

    /// A packet went by a gateway. The direct way to its address is asked for.
    fn went_by_gateway(&mut self, now: Duration, port: Id<Port>, key: Key) {
        self.learning.by_gateway += 1;
        let asked = self.ask_for_later(now, port, key);
        self.learning.unasked += u64::from(asked == Err(Dropped::AskedTooOften));
    }

    /// A packet is lost, as it is too long to be handed up. Its address is asked for: the next one may find the way.
    pub(super) fn too_long(&mut self, now: Duration, port: Id<Port>, key: Key) {
        self.drop_packets(Dropped::TooLong, 1);
        if let Err(reason) = self.ask_for_later(now, port, key) {
            tracing::debug!(%port, reason = reason.as_str(), "the address of a packet that is too long is not asked for");
        }
    }

    /// Asks for an address though no packet waits for the answer.
    fn ask_for_later(&mut self, now: Duration, port: Id<Port>, key: Key) -> Result<(), Dropped> {
        self.known(now, port, key).and_then(|known| match known {
            true => Ok(()),
            // Without a session nobody answers, and nothing would withdraw the question.
            false if !self.has_session() || !(self.asking.asks(&key) || self.asking.has_room()) => {
                Err(Dropped::AskedTooOften)
            }
            false => self.ask_for(now, port, key),
        })
    }

    /// Whether gateways know the network's addresses.
    fn has_gateways(&self, network: Id<Network>) -> bool {
        self.table
            .network(network)
            .is_some_and(|row| !row.gateways.is_empty())
    }

    /// Whether the packet can go on at once (true) or is held, and asks if nobody has yet.
    fn admit(&mut self, now: Duration, port: Id<Port>, key: Key, frame: &Bytes) -> Result<bool, Dropped> {
        if self.known(now, port, key)? {
            return Ok(true);
        }
        self.held.room(port, frame)?;
        self.ask_for(now, port, key)?;
        Ok(false)
    }

    /// Whether the data plane has the address by now; an error when it is not to be asked for.
    fn known(&mut self, now: Duration, port: Id<Port>, key: Key) -> Result<bool, Dropped> {
        if self.table.port(port).is_none() {
            return Err(Dropped::UnknownPort);
        }
        if !self.table.is_on_demand(key.0) {
            return Err(Dropped::NotOnDemand);
        }
        if self.table.neighbour(&key) == Some(&State::InForce) {
            return Ok(true);
        }
        if self.asking.is_denied(now, &key) {
            return Err(Dropped::Unknown);
        }
        Ok(false)
    }

    /// Asks for an address, unless it is asked for, or told of and not yet in force.
    fn ask_for(&mut self, now: Duration, port: Id<Port>, key: Key) -> Result<(), Dropped> {
        if self.table.neighbour(&key).is_none() && !self.asking.asks(&key) {
            let state = self.ports.get_mut(&port).ok_or(Dropped::UnknownPort)?;
            if !state.questions.take(now) {
                return Err(Dropped::AskedTooOften);
            }
            self.learning.questions += 1;
            self.asking.ask(key, Some(port));
        }
        Ok(())
    }

    /// Answers of the NCM.
    pub(super) fn resolved(&mut self, now: Now, session: u64, message: &v1::Resolved, out: &mut Vec<Action>) {
        let Some(questions) = self.asking.answered(message.id) else {
            return tracing::debug!(id = message.id, "answers that nobody waits for");
        };
        if questions.len() != message.answers.len() {
            return self.give_up(now, session, "there are not as many answers as questions", out);
        }
        let (mut rows, mut leases, mut gone) = (Vec::new(), Vec::new(), Vec::new());
        let asked = questions.iter().zip(&message.answers);
        for ((question, _), answer) in asked.filter(|((_, is_asked), _)| *is_asked) {
            let key = (question.network, question.ip);
            let (kind, answer) = read(question, answer);
            *self.learning.answers.entry(kind).or_default() += 1;
            match answer.verdict {
                Verdict::Route(revision, row) => {
                    rows.push((revision, row));
                    leases.push((key, answer.lease));
                }
                Verdict::Unknown | Verdict::Deny => {
                    self.asking.deny(now.since_start, key, answer.lease);
                    gone.push(key);
                }
                Verdict::Busy if is_wanted(&self.held, &self.learned, &key) || self.has_gateways(key.0) => {
                    self.asking.again(now.since_start, question, answer.lease);
                }
                Verdict::Busy => {}
            }
        }
        let changes = self.table.learn(rows);
        if !changes.is_empty() {
            self.apply(changes, Vec::new(), None, out);
        }
        for (key, lease) in leases {
            if self.table.neighbour(&key).is_some() && self.table.is_on_demand(key.0) {
                self.learned.grant(now.since_start, key, lease);
            }
            self.release_held(now, key, out);
        }
        for key in &gone {
            self.drop_held(key, Dropped::Unknown);
        }
        self.remove_neighbours(gone, out);
        self.evict(out);
    }

    /// Sends on what waits for an address, once it is known what the data plane has of it.
    fn release_held(&mut self, now: Now, key: Key, out: &mut Vec<Action>) {
        match self.table.neighbour(&key) {
            Some(State::Pending) => {}
            Some(State::InForce) => {
                if let Some((since, frames)) = self.held.take(&key) {
                    self.waits.push(now.since_start.saturating_sub(since));
                    out.push(Action::Release { frames });
                }
            }
            Some(State::Refused(_)) => self.drop_held(&key, Dropped::Refused),
            // The answer was older than what is known: the address is gone.
            None => self.drop_held(&key, Dropped::Unknown),
        }
    }

    /// The data plane has sent packets that were held on, or not.
    pub(super) fn released(&mut self, sent: u64, refused: u64) {
        self.learning.released += sent;
        self.drop_packets(Dropped::Refused, refused);
    }

    fn drop_held(&mut self, key: &Key, reason: Dropped) {
        if let Some((_, frames)) = self.held.take(key) {
            self.drop_packets(reason, frames.len() as u64);
        }
    }

    /// The data plane has taken neighbours, or refused or removed them.
    pub(super) fn neighbours_applied(&mut self, now: Now, keys: Vec<Key>, out: &mut Vec<Action>) {
        let mut refused = Vec::new();
        for key in keys {
            match self.table.neighbour(&key) {
                None => {}
                Some(State::Refused(_)) if self.learned.contains(&key) => {
                    self.asking.deny(now.since_start, key, NEGATIVE_LEASE);
                    self.drop_held(&key, Dropped::Refused);
                    refused.push(key);
                }
                Some(_) => self.release_held(now, key, out),
            }
        }
        self.remove_neighbours(refused, out);
    }

    /// Takes neighbours out of force that have a lease no more.
    fn remove_neighbours(&mut self, keys: Vec<Key>, out: &mut Vec<Action>) {
        for key in &keys {
            self.learned.remove(key);
        }
        let leased = keys.into_iter().filter(|key| self.table.is_on_demand(key.0));
        let rows: Vec<RowKey> = leased
            .map(|(network, ip)| RowKey::Neighbour(network, ip))
            .collect();
        let changes = self.table.lapse(rows);
        if !changes.is_empty() {
            self.apply(changes, Vec::new(), None, out);
        }
    }

    /// Gives up what is too much. Not before the changes of the same event: they may bring it.
    pub(super) fn evict(&mut self, out: &mut Vec<Action>) {
        let mut surplus = Vec::new();
        while let Some(key) = self.learned.surplus() {
            self.learned.remove(&key);
            surplus.push(key);
        }
        self.learning.evicted += surplus.len() as u64;
        self.remove_neighbours(surplus, out);
    }

    /// A delta of a network came, which was on demand before or not, and named these neighbours.
    pub(super) fn neighbours_told(&mut self, now: Now, network: Id<Network>, was: bool, named: Vec<IpAddr>) {
        let is = self.table.is_on_demand(network);
        match (was, is) {
            // What the host has gets leases that do not end all at once.
            (false, true) => {
                for ip in self.table.neighbours(network) {
                    let length = self.jitter(LEASE_UNASKED / 2, LEASE_UNASKED);
                    self.learned.tell(now.since_start, (network, ip), length);
                }
            }
            (true, false) => {
                self.learned.remove_network(network);
                self.asking.abandon(network);
            }
            (true, true) | (false, false) => {}
        }
        for key in named.into_iter().map(|ip| (network, ip)).filter(|_| is) {
            self.asking.tell(&key);
            match self.table.neighbour(&key) {
                Some(_) => self.learned.tell(now.since_start, key, LEASE_UNASKED),
                None => self.learned.remove(&key),
            }
        }
    }

    /// A snapshot ended, which may stand for changes that were left out, and did not name these.
    pub(super) fn doubt_neighbours(
        &mut self,
        now: Now,
        network: Id<Network>,
        unnamed: Vec<IpAddr>,
        out: &mut Vec<Action>,
    ) {
        for ip in unnamed {
            self.learned.doubt(now.since_start, (network, ip));
        }
        self.asking.ask_again(network);
        self.check_leases(now, out);
    }

    /// Time has passed.
    pub(super) fn learn_tick(&mut self, now: Now, out: &mut Vec<Action>) {
        let (late, idle) = self.held.expire(now.since_start);
        self.drop_packets(Dropped::TooLate, late);
        for key in idle.iter().filter(|key| !self.learned.contains(key)) {
            self.asking.withdraw(key);
        }
        self.evict(out);
        if self.has_session() {
            // What went by a gateway is asked for by the next packet that does.
            let wanted = |key: &Key| is_wanted(&self.held, &self.learned, key);
            self.asking.tick(now.since_start, wanted);
            self.check_leases(now, out);
        }
    }

    fn check_leases(&mut self, now: Now, out: &mut Vec<Action>) {
        if self.checking {
            return;
        }
        let keys = self.learned.checks(now.since_start);
        if !keys.is_empty() {
            self.checking = true;
            out.push(Action::TakeUsed { keys });
        }
    }

    /// The data plane said which neighbours were used, or that it cannot say: then all of them count as used.
    pub(super) fn used(
        &mut self,
        now: Now,
        keys: Vec<Key>,
        outcome: Result<Vec<bool>, String>,
        out: &mut Vec<Action>,
    ) {
        self.checking = false;
        let used = outcome.unwrap_or_else(|reason| {
            tracing::debug!(reason, "the data plane cannot say which neighbours are used");
            vec![true; keys.len()]
        });
        let mut idle = Vec::new();
        for (key, used) in keys.into_iter().zip(used) {
            match self.learned.looked_at(now.since_start, key, used) {
                Next::Keep => {}
                Next::Ask => {
                    self.learning.renewals += 1;
                    self.asking.ask(key, None);
                }
                Next::Remove => idle.push(key),
            }
        }
        // Without a session nobody could be asked again.
        if self.has_session() {
            self.remove_neighbours(idle, out);
            self.check_leases(now, out);
        }
    }

    /// The NCM of a new session does not know what the host has learned.
    pub(super) fn learn_again(&mut self, now: Now) {
        self.learned.doubt_all(now.since_start + ASK_AGAIN_AFTER);
    }

    /// Questions went with the session; packets that are held ask again in the next one.
    pub(super) fn questions_lost(&mut self) {
        self.asking.clear();
        for (key, port) in self.held.waiting() {
            self.asking.ask(key, Some(port));
        }
    }

    /// Sends what is to be asked.
    pub(super) fn ask_ncm(&mut self, now: Now, out: &mut Vec<Action>) {
        let Some(session) = self.open_session() else {
            return;
        };
        while let Some((id, questions)) = self.asking.next_message(now.since_start) {
            self.learning.messages += 1;
            let body = v1::agent_message::Body::Resolve(encode_questions(id, &questions));
            out.push(Action::Send {
                session,
                message: v1::AgentMessage { body: Some(body) },
            });
        }
    }

    /// When learning needs the next tick.
    pub(super) fn learn_deadline(&self) -> Option<Duration> {
        let asked = self.has_session().then(|| {
            let check = self.learned.deadline().filter(|_| !self.checking);
            self.asking.deadline().into_iter().chain(check).min()
        });
        self.held.deadline().into_iter().chain(asked.flatten()).min()
    }

    /// For people.
    pub(super) fn learn_state(&self) -> Value {
        let sizes = self.learning_sizes();
        let counts = &self.learning;
        let dropped = counts.dropped.iter();
        let dropped = dropped.map(|(reason, count)| (reason.as_str().to_owned(), json!(count)));
        json!({
            "learned": sizes.learned,
            "held": sizes.held,
            "asked": sizes.asked,
            "negative": sizes.negative,
            "questions": counts.questions,
            "renewals": counts.renewals,
            "messages": counts.messages,
            "answers": counts.answers,
            "released": counts.released,
            "by_gateway": counts.by_gateway,
            "unasked": counts.unasked,
            "evicted": counts.evicted,
            "dropped": dropped.collect::<serde_json::Map<_, _>>(),
        })
    }
}

/// Whether anything waits for an answer about this address: a packet that is held, or a lease.
fn is_wanted(held: &Held, learned: &Learned, key: &Key) -> bool {
    held.waits(key) || learned.contains(key)
}

/// The answer and its kind. One that makes no sense counts as "nobody has it", for a short time.
fn read(question: &Question, answer: &v1::Answer) -> (&'static str, Answer) {
    let answer = match decode_answer(question, answer) {
        Ok(answer) => answer,
        Err(error) => {
            tracing::warn!(%error, ip = %question.ip, network = %question.network, "an answer of the NCM cannot be read");
            let verdict = Verdict::Unknown;
            let lease = NEGATIVE_LEASE;
            return ("malformed", Answer { verdict, lease });
        }
    };
    let kind = match answer.verdict {
        Verdict::Route(..) => "route",
        Verdict::Unknown => "unknown",
        Verdict::Deny => "deny",
        Verdict::Busy => "busy",
    };
    (kind, answer)
}
