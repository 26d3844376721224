//! Which events follow from what is seen of the ports, and when they are sent. No clock and no socket: the time
//! comes in as an argument, a batch to send goes out, the answer comes back in.

use std::{
    collections::{BTreeMap, BTreeSet, hash_map::DefaultHasher},
    hash::{Hash as _, Hasher as _},
    time::Duration,
};

use alcor_model::{Id, Port, Revision, resource::PortStatus};
use alcor_region::RegionState;
use uuid::Uuid;

use crate::event::{EventName, EventStatus, ServerEvent, Subject};

/// Events that wait for Nova at most; beyond it the oldest is given up and counted.
pub const QUEUE_MAX: usize = 10_000;
/// Most events that one request may be configured to have.
pub const BATCH_MAX: usize = 1_000;
/// The first pause after a request that failed; it doubles with each further one.
pub const BACKOFF_FIRST: Duration = Duration::from_secs(1);
/// The longest pause.
pub const BACKOFF_MAX: Duration = Duration::from_secs(60);
/// Requests that an event may fail in before it is given up. With the pauses between them that is most of an hour; Nova
/// itself stops to wait for an event after five minutes, and reads its servers' addresses anew from time to time.
pub const TRIES_MAX: u32 = 60;
/// The device owners that mean a server of Nova's.
const COMPUTE_PREFIX: &str = "compute:";

/// How events are gathered into requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Events of one request at most; 1 to [`BATCH_MAX`].
    pub batch: usize,
    /// The shortest time from the end of a request to the next one: what happens meanwhile goes together.
    pub interval: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            batch: 100,
            interval: Duration::ZERO,
        }
    }
}

/// What Nova could want to know of a port of one of its servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Observed {
    /// The server.
    pub server: Uuid,
    /// The port's status.
    pub status: PortStatus,
    /// The commit that bound the port to where it is. Another one with the same status is another plugging.
    pub bound: Revision,
    /// Changes with whatever Nova keeps a copy of.
    pub fingerprint: u64,
}

impl Observed {
    /// A port as it is now; `None` when there is no such port or it is no server's.
    pub fn of(state: &RegionState, id: Id<Port>) -> Option<Self> {
        Self::of_port(state, state.ports().get(&id)?)
    }

    /// A port as it is now; `None` when it is no server's.
    pub fn of_port(state: &RegionState, port: &Port) -> Option<Self> {
        if !port.device_owner.starts_with(COMPUTE_PREFIX) {
            return None;
        }
        let server = Uuid::try_parse(&port.device_id).ok()?;
        let mut hasher = DefaultHasher::new();
        port.mac_address.0.hash(&mut hasher);
        for fixed in &port.fixed_ips {
            fixed.ip_address.hash(&mut hasher);
        }
        port.binding.profile.hash(&mut hasher);
        Some(Self {
            server,
            status: state.port_status(port).0,
            bound: port.binding.since,
            fingerprint: hasher.finish(),
        })
    }

    fn active(&self) -> bool {
        self.status == PortStatus::Active
    }
}

/// What has been counted since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Events that Nova has taken.
    pub delivered: u64,
    /// Requests that failed and are tried again.
    pub retries: u64,
    /// Events that Nova refused for good, that failed too often, or that were too many to keep.
    pub given_up: u64,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nova has it.
    Delivered,
    /// Nova could not be reached or could not take it now.
    TryAgain,
    /// Nova will not take it: the request makes no sense to it.
    Refused,
}

/// Events of one key replace each other.
type EventKey = (Id<Port>, Uuid, Subject);

/// An event, with the requests that it failed in.
#[derive(Clone, Copy, Debug)]
struct Tried {
    event: ServerEvent,
    failures: u32,
}

/// What waits, in the order in which it is sent, with one event a key.
#[derive(Debug, Default)]
struct Waiting {
    /// By place; new ones come last.
    events: BTreeMap<i64, Tried>,
    places: BTreeMap<EventKey, i64>,
}

impl Waiting {
    fn key(event: &ServerEvent) -> EventKey {
        (event.port, event.server_uuid, event.subject())
    }

    fn remove(&mut self, key: &EventKey) {
        if let Some(place) = self.places.remove(key) {
            self.events.remove(&place);
        }
    }

    fn insert(&mut self, place: i64, tried: Tried) {
        self.places.insert(Self::key(&tried.event), place);
        self.events.insert(place, tried);
    }

    /// Puts an event last; what it makes pointless goes.
    fn push(&mut self, event: ServerEvent) {
        if event.subject() == Subject::End {
            for subject in [Subject::Plugging, Subject::Data] {
                self.remove(&(event.port, event.server_uuid, subject));
            }
        }
        self.remove(&Self::key(&event));
        let place = self.events.last_key_value().map_or(0, |(last, _)| last + 1);
        self.insert(place, Tried { event, failures: 0 });
    }

    /// Puts a batch that failed first again, without what newer events have made pointless.
    fn put_back(&mut self, batch: Vec<Tried>) {
        for tried in batch.into_iter().rev() {
            let (port, server, _) = Self::key(&tried.event);
            let outdated = self.places.contains_key(&Self::key(&tried.event))
                || self.places.contains_key(&(port, server, Subject::End));
            if !outdated {
                let place = self.events.first_key_value().map_or(0, |(first, _)| first - 1);
                self.insert(place, tried);
            }
        }
    }

    fn pop(&mut self) -> Option<Tried> {
        let (_, tried) = self.events.pop_first()?;
        self.places.remove(&Self::key(&tried.event));
        Some(tried)
    }

    fn len(&self) -> usize {
        self.events.len()
    }
}

/// The state machine.
#[derive(Debug, Default)]
pub struct Notifier {
    known: BTreeMap<Id<Port>, Observed>,
    waiting: Waiting,
    in_flight: Vec<Tried>,
    pace: Pace,
    failures: u32,
    not_before: Duration,
    counters: Counters,
}

impl Notifier {
    /// Starts from the ports as they are; nothing follows from that.
    pub fn new(ports: impl IntoIterator<Item = (Id<Port>, Observed)>) -> Self {
        Self {
            known: ports.into_iter().collect(),
            ..Self::default()
        }
    }

    /// Gathers events so.
    #[must_use]
    pub fn at(mut self, pace: Pace) -> Self {
        self.pace = pace;
        self
    }

    /// A port as it is now. What is different from before becomes events.
    pub fn observe(&mut self, port: Id<Port>, now: Option<Observed>) {
        let before = match now {
            Some(now) => self.known.insert(port, now),
            None => self.known.remove(&port),
        };
        for event in events(port, before, now) {
            self.waiting.push(event);
        }
        self.shorten();
    }

    /// All ports as they are now, after changes were missed: the difference becomes events.
    pub fn observe_all(&mut self, ports: impl IntoIterator<Item = (Id<Port>, Observed)>) {
        let mut gone: BTreeSet<Id<Port>> = self.known.keys().copied().collect();
        for (port, observed) in ports {
            gone.remove(&port);
            self.observe(port, Some(observed));
        }
        for port in gone {
            self.observe(port, None);
        }
    }

    /// The next request, if one is due: nothing is under way, something waits, and no pause is being made. The caller
    /// sends it and says how it ended with [`Self::ended`].
    pub fn next_batch(&mut self, now: Duration) -> Option<Vec<ServerEvent>> {
        if !self.in_flight.is_empty() || self.waiting.len() == 0 || now < self.not_before {
            return None;
        }
        self.in_flight = std::iter::from_fn(|| self.waiting.pop())
            .take(self.pace.batch.clamp(1, BATCH_MAX))
            .collect();
        Some(self.in_flight.iter().map(|tried| tried.event).collect())
    }

    /// When [`Self::next_batch`] is worth asking again without any news.
    pub fn wake_at(&self) -> Option<Duration> {
        (self.in_flight.is_empty() && self.waiting.len() > 0).then_some(self.not_before)
    }

    /// How the request under way ended.
    pub fn ended(&mut self, now: Duration, outcome: Outcome) {
        let batch = std::mem::take(&mut self.in_flight);
        let count = u64::try_from(batch.len()).unwrap_or(u64::MAX);
        match outcome {
            Outcome::Delivered => {
                self.counters.delivered += count;
                self.failures = 0;
                self.not_before = now + self.pace.interval;
            }
            Outcome::Refused => {
                self.counters.given_up += count;
                self.failures = 0;
                self.not_before = now + self.pace.interval;
            }
            Outcome::TryAgain => {
                self.counters.retries += 1;
                let pause = BACKOFF_FIRST.saturating_mul(1 << self.failures.min(16));
                self.not_before = now + pause.min(BACKOFF_MAX);
                self.failures += 1;
                let again: Vec<Tried> = batch
                    .into_iter()
                    .map(|tried| Tried {
                        failures: tried.failures + 1,
                        ..tried
                    })
                    .filter(|tried| tried.failures < TRIES_MAX)
                    .collect();
                self.counters.given_up += count - u64::try_from(again.len()).unwrap_or(count);
                self.waiting.put_back(again);
                self.shorten();
            }
        }
    }

    /// What has been counted.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Events that wait.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    fn shorten(&mut self) {
        while self.waiting.len() > QUEUE_MAX {
            self.waiting.pop();
            self.counters.given_up += 1;
        }
    }
}

/// What Nova must hear when a port was so and is now so.
fn events(port: Id<Port>, before: Option<Observed>, now: Option<Observed>) -> Vec<ServerEvent> {
    let event = |server_uuid, name, status| ServerEvent {
        name,
        server_uuid,
        port,
        status,
    };
    let mut events = Vec::new();
    // A server that had the port and has it no more is told so, whoever has it now.
    if let Some(before) = before
        && now.is_none_or(|now| now.server != before.server)
    {
        events.push(event(
            before.server,
            EventName::VifDeleted,
            EventStatus::Completed,
        ));
    }
    let Some(now) = now else {
        return events;
    };
    let before = before.filter(|before| before.server == now.server);
    if before.is_some_and(|before| before.fingerprint != now.fingerprint) {
        events.push(event(
            now.server,
            EventName::NetworkChanged,
            EventStatus::Completed,
        ));
    }
    let same = before.is_some_and(|before| before.status == now.status && before.bound == now.bound);
    let was_active = before.is_some_and(|before| before.active());
    match now.status {
        _ if same => {}
        PortStatus::Active => {
            events.push(event(now.server, EventName::VifPlugged, EventStatus::Completed));
        }
        PortStatus::Error => {
            events.push(event(now.server, EventName::VifPlugged, EventStatus::Failed));
        }
        PortStatus::Down | PortStatus::Build if was_active => {
            events.push(event(now.server, EventName::VifUnplugged, EventStatus::Completed));
        }
        PortStatus::Down | PortStatus::Build => {}
    }
    events
}

#[cfg(test)]
mod tests;
