//! Questions to the NCM: which addresses are asked for, which questions are on their way, which addresses nobody has. One
//! question an address at a time, many in one message. Values only: what is asked when, and what answers do, is decided in
//! [`crate::core`].

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use alcor_model::{Id, Network, Port};
pub use alcor_southbound::convert::resolve::MESSAGES_MAX;
use alcor_southbound::convert::resolve::{QUESTIONS_MAX, Question};

use crate::held::{Key, pop_due};

/// Most first questions of a host that are not answered. Packets that wait are bounded, and withdraw theirs; what went by a
/// gateway does not wait.
pub const ASKED_MAX: usize = 4_096;
/// Questions of a message that is not answered within this time are asked again, if anything waits for the answer still.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// Most addresses that are remembered because nobody has them; beyond that, the one whose time is over first goes.
pub const NEGATIVE_MAX: usize = 16_384;
/// Longest time that an address is remembered because nobody has it.
pub const NEGATIVE_LEASE_MAX: Duration = Duration::from_secs(60);
/// An NCM that is busy is asked again no earlier and no later than this.
pub const BUSY_MIN: Duration = Duration::from_millis(10);
/// See [`BUSY_MIN`].
pub const BUSY_MAX: Duration = Duration::from_secs(10);

/// Where a question is.
#[derive(Clone, Copy, Debug)]
enum State {
    /// In the queue at this place.
    Queued(Place),
    /// In this message.
    Sent(u64),
    /// The NCM was busy.
    Later(Duration),
}

/// First questions before renewals: a packet waits for the answer. Then in the order in which they came.
type Place = (bool, u64);

#[derive(Debug)]
struct Ask {
    port: Option<Id<Port>>,
    state: State,
}

#[derive(Debug)]
struct Message {
    questions: Vec<Question>,
    overdue_at: Duration,
}

/// All questions of the host.
#[derive(Debug, Default)]
pub(crate) struct Asking {
    asks: BTreeMap<Key, Ask>,
    /// Of these, how many are for a port's packet.
    first: usize,
    queue: BTreeMap<Place, Key>,
    later: BTreeSet<(Duration, Key)>,
    sent: BTreeMap<u64, Message>,
    /// Places and messages are numbered.
    numbers: u64,
    negative: BTreeMap<Key, Duration>,
    negative_until: BTreeSet<(Duration, Key)>,
}

impl Asking {
    fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    /// Whether the address is being asked for.
    pub(crate) fn asks(&self, key: &Key) -> bool {
        self.asks.contains_key(key)
    }

    /// Whether one more first question may be asked.
    pub(crate) const fn has_room(&self) -> bool {
        self.first < ASKED_MAX
    }

    fn put(&mut self, key: Key, ask: Ask) {
        self.first += usize::from(ask.port.is_some());
        if let Some(old) = self.asks.insert(key, ask) {
            self.first -= usize::from(old.port.is_some());
        }
    }

    fn take(&mut self, key: &Key) {
        if let Some(ask) = self.asks.remove(key) {
            self.first -= usize::from(ask.port.is_some());
        }
    }

    /// Asks for an address, for a packet of the port or to renew a lease. Nothing happens when it is being asked for.
    pub(crate) fn ask(&mut self, key: Key, port: Option<Id<Port>>) {
        if !self.asks.contains_key(&key) {
            self.enqueue(key, port);
        }
    }

    fn enqueue(&mut self, key: Key, port: Option<Id<Port>>) {
        let place = (port.is_none(), self.number());
        self.queue.insert(place, key);
        let state = State::Queued(place);
        self.put(key, Ask { port, state });
    }

    /// Nobody wants to know any more. What is on its way stays until it is answered or overdue.
    pub(crate) fn withdraw(&mut self, key: &Key) {
        match self.asks.get(key).map(|ask| ask.state) {
            Some(State::Queued(place)) => _ = self.queue.remove(&place),
            Some(State::Later(at)) => _ = self.later.remove(&(at, *key)),
            Some(State::Sent(_)) | None => return,
        }
        self.take(key);
    }

    /// Nothing of a network is to be asked for any more, and what is on its way is of no use: it was asked of a network that
    /// was another one, or on demand.
    pub(crate) fn abandon(&mut self, network: Id<Network>) {
        for key in self.of(network) {
            self.withdraw(&key);
            self.take(&key);
        }
    }

    /// What is on its way for a network is asked again, and its answers are of no use: they may be older than what the NCM
    /// has left out.
    pub(crate) fn ask_again(&mut self, network: Id<Network>) {
        for key in self.of(network) {
            if let Some(Ask {
                port,
                state: State::Sent(_),
            }) = self.asks.get(&key)
            {
                self.enqueue(key, *port);
            }
        }
    }

    fn of(&self, network: Id<Network>) -> Vec<Key> {
        let range = self.asks.range((network, [0, 0, 0, 0].into())..);
        let keys = range.map(|(key, _)| *key);
        keys.take_while(|key| key.0 == network).collect()
    }

    /// The next message, if there is anything to ask and not too much on its way.
    pub(crate) fn next_message(&mut self, now: Duration) -> Option<(u64, Vec<Question>)> {
        if self.queue.is_empty() || self.sent.len() >= MESSAGES_MAX {
            return None;
        }
        let id = self.number();
        let mut questions = Vec::new();
        while questions.len() < QUESTIONS_MAX
            && let Some((_, key)) = self.queue.pop_first()
        {
            if let Some(ask) = self.asks.get_mut(&key) {
                ask.state = State::Sent(id);
                questions.push(Question {
                    network: key.0,
                    ip: key.1,
                    port: ask.port,
                });
            }
        }
        let message = Message {
            questions: questions.clone(),
            overdue_at: now + ANSWER_WITHIN,
        };
        self.sent.insert(id, message);
        Some((id, questions))
    }

    /// A message is answered: its questions, and whether each is still asked, which it is not any more after this. `None` when
    /// the message was not asked, or too long ago.
    pub(crate) fn answered(&mut self, id: u64) -> Option<Vec<(Question, bool)>> {
        let message = self.sent.remove(&id)?;
        let questions = message.questions.into_iter().map(|question| {
            let key = (question.network, question.ip);
            let state = self.asks.get(&key).map(|ask| ask.state);
            let is_asked = matches!(state, Some(State::Sent(message)) if message == id);
            if is_asked {
                self.take(&key);
            }
            (question, is_asked)
        });
        Some(questions.collect())
    }

    /// The NCM was busy: asks again after this time.
    pub(crate) fn again(&mut self, now: Duration, question: &Question, pause: Duration) {
        let key = (question.network, question.ip);
        let at = now + pause.clamp(BUSY_MIN, BUSY_MAX);
        self.later.insert((at, key));
        let state = State::Later(at);
        let port = question.port;
        self.put(key, Ask { port, state });
    }

    /// Time has passed: queues what waited for an NCM that was busy, and of what was not answered what is still wanted.
    pub(crate) fn tick(&mut self, now: Duration, wanted: impl Fn(&Key) -> bool) {
        while let Some(key) = pop_due(&mut self.later, now) {
            let port = self.asks.get(&key).and_then(|ask| ask.port);
            self.enqueue(key, port);
        }
        let overdue: Vec<u64> = self
            .sent
            .iter()
            .filter(|(_, message)| message.overdue_at <= now)
            .map(|(id, _)| *id)
            .collect();
        for id in overdue {
            for (question, is_asked) in self.answered(id).unwrap_or_default() {
                let key = (question.network, question.ip);
                if is_asked && wanted(&key) {
                    self.enqueue(key, question.port);
                }
            }
        }
    }

    /// The session ended, and with it all questions.
    pub(crate) fn clear(&mut self) {
        self.asks.clear();
        self.first = 0;
        self.queue.clear();
        self.later.clear();
        self.sent.clear();
    }

    /// Nobody has the address, and is not to be asked for so long.
    pub(crate) fn deny(&mut self, now: Duration, key: Key, lease: Duration) {
        self.tell(&key);
        if self.negative.len() >= NEGATIVE_MAX
            && let Some((_, first)) = self.negative_until.pop_first()
        {
            self.negative.remove(&first);
        }
        let until = now + lease.min(NEGATIVE_LEASE_MAX);
        self.negative.insert(key, until);
        self.negative_until.insert((until, key));
    }

    /// Somebody has the address, or it is worth asking again.
    pub(crate) fn tell(&mut self, key: &Key) {
        if let Some(until) = self.negative.remove(key) {
            self.negative_until.remove(&(until, *key));
        }
    }

    /// Whether the address is not to be asked for.
    pub(crate) fn is_denied(&mut self, now: Duration, key: &Key) -> bool {
        while let Some(over) = pop_due(&mut self.negative_until, now) {
            self.negative.remove(&over);
        }
        self.negative.contains_key(key)
    }

    /// When something has to be asked again.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        let later = self.later.first().map(|(at, _)| *at);
        let overdue = self.sent.values().map(|message| message.overdue_at);
        later.into_iter().chain(overdue).min()
    }

    /// Questions that are not answered, and addresses that nobody has.
    pub(crate) fn len(&self) -> (usize, usize) {
        (self.asks.len(), self.negative.len())
    }
}
