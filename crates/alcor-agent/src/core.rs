//! The agent's state machine: everything it decides, without I/O.
//!
//! [`Agent::step`] takes one event and the time and says what to do. Sockets, the data plane, netlink and clocks
//! are in [`crate::run`]; which row is newer is in [`crate::table`]; what answers look like is in
//! [`crate::responder`].

mod gateway;
mod learn;
mod ports;
mod punts;
mod show;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::IpAddr,
    time::Duration,
};

use alcor_dataplane::{RowChange, RowKey, Snapshot};
use alcor_model::{Id, Network, Port};
use alcor_proto::v1;
use bytes::Bytes;
pub use gateway::{LOAD_EVERY, LoadRead};
pub use learn::{ASK_AGAIN_AFTER, Counts, NEGATIVE_LEASE, QUESTION_BURST, QUESTIONS_PER_S, Sizes};
use ports::{PortState, Waiter};
use serde_json::{Value, json};

use crate::{
    asking::Asking,
    delta::{Delta, FromNcm, Phase},
    devices::Link,
    held::{Held, Key},
    learned::Learned,
    probe::{Probe, Prober},
    readout::{Reading, Readout},
    request::Request,
    responder::Refusal,
    table::{Planned, Table},
};
pub use crate::{
    asking::{ANSWER_WITHIN, ASKED_MAX, BUSY_MAX, BUSY_MIN, MESSAGES_MAX, NEGATIVE_LEASE_MAX, NEGATIVE_MAX},
    held::{Dropped, HELD_BYTES_MAX, HELD_MAX, HELD_PER_PORT, HELD_SHARE, HOLD_FOR},
    learned::{CHECK_BATCH, LEARNED_MAX, LEASE_MAX, LEASE_MIN},
};

/// First pause after a session ended; doubles with each failure.
pub const BACKOFF_MIN: Duration = Duration::from_millis(100);
/// Longest pause between two tries to connect.
pub const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// The same for a gateway: an NCM that starts again expects those that it knows within 3 s, and they are few.
pub const BACKOFF_MAX_GATEWAY: Duration = Duration::from_secs(1);
/// A session that lasted this long was a success: the pause starts small again.
pub const SESSION_STABLE: Duration = Duration::from_secs(10);
/// How often refused rows and devices are tried again.
pub const RETRY_EVERY: Duration = Duration::from_secs(5);
/// Largest number of refused rows that are tried again at once.
pub const RETRY_BATCH: usize = 1024;
/// Most ports that may have state here: bound ports, and ports attached before their row came.
pub const MAX_PORTS: usize = 4096;

/// Both clocks at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Time since the agent started, never backwards.
    pub since_start: Duration,
    /// Microseconds since the Unix epoch.
    pub unix_us: u64,
}

/// What the state machine must be told once.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The host's name, as in `binding:host_id`.
    pub host: String,
    /// Larger with each start: see [`crate::incarnation`].
    pub incarnation: u64,
    /// Where other hosts send tunnel packets.
    pub tunnel_ip: IpAddr,
    /// The availability zone that the host is in.
    pub availability_zone: String,
    /// Name of the data plane.
    pub dataplane: String,
    /// Whether it filters by security groups.
    pub filters: bool,
    /// DHCP lease time.
    pub lease: Duration,
    /// The set that this gateway is in; none on a host.
    pub gateway_set: Option<String>,
    /// The external networks that the data plane has devices for.
    pub external_networks: BTreeSet<Id<Network>>,
}

/// What happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// Time has passed.
    Tick,
    /// A message came on a session.
    Message {
        /// As in [`Action::Connect`].
        session: u64,
        /// The message.
        message: FromNcm,
    },
    /// A session could not be opened, or ended.
    Closed {
        /// As in [`Action::Connect`].
        session: u64,
        /// Why, for people.
        reason: String,
    },
    /// The data plane has done a batch.
    Applied {
        /// As in [`Action::Apply`].
        batch: u64,
        /// When the last change was visible, microseconds since the Unix epoch.
        visible_us: u64,
        /// One outcome per change.
        outcomes: Vec<Result<(), String>>,
    },
    /// The data plane has tied a device to a port, or not.
    Attached {
        /// The port.
        port: Id<Port>,
        /// As in [`Action::Attach`].
        token: u64,
        /// When, microseconds since the Unix epoch.
        visible_us: u64,
        /// What it said.
        outcome: Result<(), String>,
    },
    /// The data plane has untied a port's device, or not.
    Detached {
        /// The port.
        port: Id<Port>,
        /// As in [`Action::Detach`].
        token: u64,
        /// What it said.
        outcome: Result<(), String>,
    },
    /// A frame could not be given to a port's device.
    InjectRefused,
    /// The data plane has done [`Action::Release`].
    Released {
        /// Packets that went on.
        sent: u64,
        /// Packets that could not be sent on.
        refused: u64,
    },
    /// The data plane has said which neighbours were used, or not.
    Used {
        /// As in [`Action::TakeUsed`].
        keys: Vec<Key>,
        /// One answer per key, or why there is none.
        outcome: Result<Vec<bool>, String>,
    },
    /// A packet came from another gateway: the answer to a probe, perhaps.
    ProbeAnswer {
        /// From whom.
        from: IpAddr,
        /// What it says.
        bytes: Bytes,
    },
    /// The data plane has read what a client wants to see, or not.
    Read {
        /// As in [`Action::Read`].
        client: u64,
        /// What it said.
        outcome: Result<Readout, String>,
    },
    /// The data plane has done [`Action::ReadLoad`], or not.
    Load(Result<LoadRead, String>),
    /// The data plane handed something up.
    Dataplane(alcor_dataplane::Event),
    /// All links there are: at start, and after messages of the kernel were lost.
    Links(Vec<Link>),
    /// A link came or changed.
    Link(Link),
    /// A link went.
    LinkGone(String),
    /// A link could not be set up: its name, and why.
    LinkRefused(String, String),
    /// A client of the local socket wants something.
    Request {
        /// Number of the request.
        client: u64,
        /// What.
        request: Request,
    },
}

/// What to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Open a session.
    Connect {
        /// Its number, in all events about it.
        session: u64,
        /// The first message.
        hello: v1::Hello,
    },
    /// End a session; no event about it is wanted any more.
    Close {
        /// Its number.
        session: u64,
    },
    /// Send a message on a session.
    Send {
        /// The session.
        session: u64,
        /// The message.
        message: v1::AgentMessage,
    },
    /// Have the data plane do these changes, in this order.
    Apply {
        /// Comes back in [`Event::Applied`].
        batch: u64,
        /// The changes.
        changes: Vec<RowChange>,
    },
    /// Tie a device to a port.
    Attach {
        /// The port.
        port: Id<Port>,
        /// Comes back in [`Event::Attached`].
        token: u64,
        /// The device's name.
        device: String,
    },
    /// Untie a port's device.
    Detach {
        /// The port.
        port: Id<Port>,
        /// Comes back in [`Event::Detached`].
        token: u64,
    },
    /// Give a frame to a port.
    Inject {
        /// The port.
        port: Id<Port>,
        /// The frame.
        frame: Bytes,
    },
    /// Have the data plane send packets that were held on their way, in this order.
    Release {
        /// The port that sent each, and the frame.
        frames: Vec<(Id<Port>, Bytes)>,
    },
    /// Ask the data plane which neighbours were used since it was last asked.
    TakeUsed {
        /// Network and address of each.
        keys: Vec<Key>,
    },
    /// Read from the data plane for a client of the local socket.
    Read {
        /// Number of the request; comes back in [`Event::Read`].
        client: u64,
        /// What.
        reading: Reading,
    },
    /// Read a gateway's load from the data plane.
    ReadLoad,
    /// Probe another gateway.
    Probe(Probe),
    /// Set a link up.
    LinkUp {
        /// Interface index.
        index: u32,
        /// Name.
        name: String,
    },
    /// Answer a client of the local socket.
    Answer {
        /// Number of the request.
        client: u64,
        /// The answer, one JSON object.
        body: Value,
    },
}

#[derive(Debug)]
enum Session {
    /// None; the next try is at this time.
    Waiting { at: Duration },
    /// Opened, no welcome yet.
    Opening { session: u64, since: Duration },
    /// Welcomed.
    Open {
        session: u64,
        since: Duration,
        sequence: u64,
        heartbeat: Duration,
        next_heartbeat: Duration,
    },
}

/// What a batch is for.
#[derive(Debug)]
struct Batch {
    number: u64,
    changes: Vec<Planned>,
    ports: Vec<Id<Port>>,
    receipt: Option<Receipt>,
}

#[derive(Debug)]
struct Receipt {
    session: u64,
    sequence: u64,
    received_us: u64,
    refused: Vec<v1::RowError>,
}

/// The state machine of one host.
#[derive(Debug)]
pub struct Agent {
    settings: Settings,
    table: Table,
    session: Session,
    sessions: u64,
    failures: u32,
    random: u64,
    batches: u64,
    in_flight: VecDeque<Batch>,
    retry_at: Option<Duration>,
    ports: BTreeMap<Id<Port>, PortState>,
    links: Option<BTreeMap<String, Link>>,
    tokens: u64,
    waiters: BTreeMap<u64, Waiter>,
    refusals: BTreeMap<Refusal, u64>,
    answered: u64,
    held: Held,
    asking: Asking,
    learned: Learned,
    /// The data plane is being asked which neighbours are used.
    checking: bool,
    learning: Counts,
    waits: Vec<Duration>,
    /// Of a gateway.
    prober: Option<Prober>,
    telling: gateway::Telling,
}

impl Agent {
    /// Starts from what the data plane has in force. Nothing is sent before the first step.
    pub fn new(settings: Settings, snapshot: Snapshot) -> Self {
        let random = settings.host.bytes().fold(settings.incarnation, |seed, byte| {
            seed.rotate_left(7).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ u64::from(byte)
        });
        let mut agent = Self {
            prober: Self::prober(&settings, &snapshot.rows),
            settings,
            table: Table::adopt(snapshot.rows),
            session: Session::Waiting { at: Duration::ZERO },
            sessions: 0,
            failures: 0,
            random,
            batches: 0,
            in_flight: VecDeque::new(),
            retry_at: None,
            ports: BTreeMap::new(),
            links: None,
            tokens: 0,
            waiters: BTreeMap::new(),
            refusals: BTreeMap::new(),
            answered: 0,
            held: Held::default(),
            asking: Asking::default(),
            learned: Learned::default(),
            checking: false,
            learning: Counts::default(),
            waits: Vec::new(),
            telling: gateway::Telling::default(),
        };
        agent.adopt_ports(snapshot.devices);
        agent.adopt_neighbours();
        agent
    }

    /// Takes one event and says what to do, in this order.
    pub fn step(&mut self, now: Now, event: Event) -> Vec<Action> {
        let mut out = Vec::new();
        match event {
            Event::Tick => self.tick(now, &mut out),
            Event::Message { session, message } => self.message(now, session, message, &mut out),
            Event::Closed { session, reason } => self.closed(now, session, &reason),
            Event::Applied {
                batch,
                visible_us,
                outcomes,
            } => {
                self.applied(now, batch, visible_us, &outcomes, &mut out);
            }
            Event::Attached {
                port,
                token,
                visible_us,
                outcome,
            } => {
                self.attached(now, port, token, visible_us, outcome, &mut out);
            }
            Event::Detached { port, token, outcome } => self.detached(now, port, token, outcome, &mut out),
            Event::InjectRefused => self.refuse(Refusal::NoDevice),
            Event::Released { sent, refused } => self.released(sent, refused),
            Event::Used { keys, outcome } => self.used(now, keys, outcome, &mut out),
            Event::ProbeAnswer { from, bytes } => self.probe_answered(from, &bytes),
            Event::Read { client, outcome } => {
                let body = outcome.map_or_else(|reason| json!({"error": reason}), |readout| readout.body());
                out.push(Action::Answer { client, body });
            }
            Event::Load(outcome) => self.load_read(outcome),
            Event::Dataplane(event) => self.punt(now, event, &mut out),
            Event::Links(links) => self.all_links(now, links, &mut out),
            Event::Link(link) => self.link(now, link, &mut out),
            Event::LinkGone(name) => self.link_gone(now, &name, &mut out),
            Event::LinkRefused(name, reason) => self.link_refused(now, &name, &reason, &mut out),
            Event::Request { client, request } => self.request(now, client, request, &mut out),
        }
        self.ask_ncm(now, &mut out);
        self.connect_if_due(now, &mut out);
        out
    }

    /// When the next [`Event::Tick`] is needed, as time since start; it may come earlier or later.
    pub fn deadline(&self) -> Option<Duration> {
        let session = match &self.session {
            Session::Waiting { at } => self.in_flight.is_empty().then_some(*at),
            Session::Opening { .. } => None,
            Session::Open { next_heartbeat, .. } => Some(*next_heartbeat),
        };
        let ports = self.ports.values().filter_map(|port| port.advertise_at);
        let waiters = self.waiters.values().map(|waiter| waiter.deadline);
        session
            .into_iter()
            .chain(self.retry_at)
            .chain(ports)
            .chain(waiters)
            .chain(self.learn_deadline())
            .chain(self.probe_deadline())
            .min()
    }

    /// How many batches the data plane has not answered yet.
    pub fn batches_in_flight(&self) -> usize {
        self.in_flight.len()
    }

    fn tick(&mut self, now: Now, out: &mut Vec<Action>) {
        if let Session::Open {
            session,
            heartbeat,
            next_heartbeat,
            ..
        } = &mut self.session
            && *next_heartbeat <= now.since_start
        {
            *next_heartbeat = now.since_start + *heartbeat;
            let session = *session;
            let message = self.heartbeat();
            out.push(Action::Send { session, message });
            self.read_load(now, out);
        }
        if self.retry_at.is_some_and(|at| at <= now.since_start) {
            self.retry(now, out);
        }
        self.advertise_due(now, out);
        self.waiters_due(now, out);
        self.learn_tick(now, out);
        self.send_probes(now, out);
    }

    /// Tries again what was refused. The answer sets the next try, if one is needed.
    fn retry(&mut self, now: Now, out: &mut Vec<Action>) {
        self.retry_at = None;
        self.retry_devices(now, out);
        let changes = self.table.retries(RETRY_BATCH);
        if !changes.is_empty() {
            self.apply(changes, Vec::new(), None, out);
        }
    }

    fn retry_later(&mut self, now: Now) {
        let at = now.since_start + RETRY_EVERY;
        self.retry_at = Some(self.retry_at.map_or(at, |earlier| earlier.min(at)));
    }

    /// Opens a session when it is time and every batch is done, so that what is said to be held is in force.
    fn connect_if_due(&mut self, now: Now, out: &mut Vec<Action>) {
        let Session::Waiting { at } = self.session else {
            return;
        };
        if at > now.since_start || !self.in_flight.is_empty() {
            return;
        }
        self.sessions += 1;
        let session = self.sessions;
        self.session = Session::Opening {
            session,
            since: now.since_start,
        };
        let held = self.table.held().into_iter().map(|(network, revision)| v1::Held {
            network_id: network.uuid().as_bytes().to_vec().into(),
            revision: revision.0,
        });
        let external = self.settings.external_networks.iter();
        let hello = v1::Hello {
            host: self.settings.host.clone(),
            incarnation: self.settings.incarnation,
            tunnel_ip: ip_bytes(self.settings.tunnel_ip).into(),
            held: held.collect(),
            dataplane: self.settings.dataplane.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            filters: self.settings.filters,
            availability_zone: self.settings.availability_zone.clone(),
            gateway: self.settings.gateway_set.is_some(),
            gateway_set: self.settings.gateway_set.clone().unwrap_or_default(),
            session,
            external_networks: external.map(|id| id.uuid().as_bytes().to_vec().into()).collect(),
        };
        out.push(Action::Connect { session, hello });
    }

    /// The session is over: wait, longer with each failure, never the same time on two hosts.
    fn closed(&mut self, now: Now, ended: u64, reason: &str) {
        let (Session::Opening { session, since } | Session::Open { session, since, .. }) = self.session
        else {
            return;
        };
        if session != ended {
            return;
        }
        if now.since_start.saturating_sub(since) >= SESSION_STABLE
            && matches!(self.session, Session::Open { .. })
        {
            self.failures = 0;
        }
        let longest = match self.settings.gateway_set {
            Some(_) => BACKOFF_MAX_GATEWAY,
            None => BACKOFF_MAX,
        };
        let pause = (BACKOFF_MIN * 2u32.saturating_pow(self.failures.min(16))).min(longest);
        let pause = self.jitter(pause / 2, pause);
        self.failures = self.failures.saturating_add(1);
        tracing::info!(
            reason,
            pause_ms = pause.as_millis(),
            "session with the NCM ended; connecting again"
        );
        self.session = Session::Waiting {
            at: now.since_start + pause,
        };
        self.table.cut();
        self.questions_lost();
        for port in self.ports.values_mut() {
            port.reported = None;
        }
    }

    /// A time between the two, by the agent's own random numbers (splitmix64).
    fn jitter(&mut self, low: Duration, high: Duration) -> Duration {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        let span_us = u64::try_from(high.saturating_sub(low).as_micros()).unwrap_or(u64::MAX);
        low + Duration::from_micros(z % span_us.saturating_add(1).max(1))
    }

    fn message(&mut self, now: Now, from: u64, message: FromNcm, out: &mut Vec<Action>) {
        match (&self.session, message) {
            (Session::Opening { session, since }, FromNcm::Welcome { heartbeat_interval })
                if *session == from =>
            {
                let heartbeat = heartbeat_interval.clamp(Duration::from_millis(100), Duration::from_secs(60));
                let next_heartbeat = now.since_start + heartbeat;
                let (session, since) = (*session, *since);
                self.session = Session::Open {
                    session,
                    since,
                    sequence: 0,
                    heartbeat,
                    next_heartbeat,
                };
                tracing::info!(session, "session with the NCM open");
                for port in self.ports.keys().copied().collect::<Vec<_>>() {
                    self.refresh(now, port, true, out);
                }
                self.learn_again(now);
            }
            (
                Session::Open {
                    session, sequence, ..
                },
                FromNcm::Delta(delta),
            ) if *session == from => {
                let expected = *sequence + 1;
                if delta.sequence < expected {
                    tracing::debug!(sequence = delta.sequence, "repeated delta ignored");
                } else if delta.sequence > expected {
                    let reason = format!("delta {} came where {expected} was due", delta.sequence);
                    self.give_up(now, from, &reason, out);
                } else {
                    self.delta(now, from, delta, out);
                }
            }
            (Session::Open { session, .. }, FromNcm::Resolved(answers)) if *session == from => {
                self.resolved(now, from, &answers, out);
            }
            (Session::Opening { session, .. } | Session::Open { session, .. }, _) if *session == from => {
                self.give_up(now, from, "the NCM's messages are out of order", out);
            }
            // A session that is over.
            _ => {}
        }
    }

    fn give_up(&mut self, now: Now, session: u64, reason: &str, out: &mut Vec<Action>) {
        out.push(Action::Close { session });
        self.closed(now, session, reason);
    }

    fn delta(&mut self, now: Now, from: u64, delta: Delta, out: &mut Vec<Action>) {
        let (sequence, network) = (delta.sequence, delta.network);
        let ends_snapshot = matches!(delta.phase, Phase::End | Phase::Whole);
        let neighbours = delta.rows.iter().flatten();
        let neighbours = neighbours.filter_map(|(_, change)| match change.key() {
            RowKey::Neighbour(_, ip) => Some(ip),
            _ => None,
        });
        let neighbours = neighbours.collect();
        let was_on_demand = self.table.is_on_demand(network);
        let plan = match self.table.plan(delta) {
            Ok(plan) => plan,
            Err(reason) => return self.give_up(now, from, reason, out),
        };
        if let Session::Open { sequence: last, .. } = &mut self.session {
            *last = sequence;
        }
        if plan.retry {
            self.retry_later(now);
        }
        self.neighbours_told(now, network, was_on_demand, neighbours);
        if ends_snapshot {
            self.doubt_neighbours(now, network, plan.unnamed, out);
        }
        let refused = plan
            .refused
            .into_iter()
            .map(|(row, reason)| v1::RowError { row, reason });
        let receipt = Receipt {
            session: from,
            sequence,
            received_us: now.unix_us,
            refused: refused.collect(),
        };
        // Also without changes: the receipt must not overtake earlier batches that it relies on.
        self.apply(plan.changes, plan.ports.clone(), Some(receipt), out);
        self.evict(out);
        for port in plan.removed_ports {
            self.port_removed(now, port, out);
        }
        for port in plan.ports {
            self.port_wanted(now, port, out);
        }
    }

    fn apply(
        &mut self,
        changes: Vec<Planned>,
        ports: Vec<Id<Port>>,
        receipt: Option<Receipt>,
        out: &mut Vec<Action>,
    ) {
        self.note_members(&changes);
        self.batches += 1;
        let number = self.batches;
        let rows = changes.iter().map(|planned| planned.change.clone()).collect();
        self.in_flight.push_back(Batch {
            number,
            changes,
            ports,
            receipt,
        });
        out.push(Action::Apply {
            batch: number,
            changes: rows,
        });
    }

    fn applied(
        &mut self,
        now: Now,
        number: u64,
        visible_us: u64,
        outcomes: &[Result<(), String>],
        out: &mut Vec<Action>,
    ) {
        // The data plane works in order, so this is the oldest batch; anything else is not an answer to us.
        let Some(batch) = self.in_flight.pop_front_if(|batch| batch.number == number) else {
            return;
        };
        let mut refused = Vec::new();
        let mut touched = BTreeMap::new();
        let mut neighbours = Vec::new();
        let missing = Err("the data plane gave no answer for this row".to_owned());
        for (position, planned) in batch.changes.iter().enumerate() {
            let outcome = outcomes.get(position).unwrap_or(&missing);
            self.table.outcome(planned, outcome);
            if let Err(reason) = outcome {
                self.retry_later(now);
                let key = planned.change.key();
                tracing::warn!(?key, reason, "the data plane refused a row");
                match planned.row {
                    Some(row) => refused.push(v1::RowError {
                        row,
                        reason: reason.clone(),
                    }),
                    None => tracing::debug!(?key, "not a row of the message; not in the receipt"),
                }
            }
            match planned.change.key() {
                RowKey::Port(_, port) => _ = touched.insert(port, false),
                RowKey::Subnet(network, _) | RowKey::Network(network) => {
                    self.advertise_soon(now, network);
                }
                RowKey::Neighbour(network, ip) => neighbours.push((network, ip)),
                RowKey::Router(..) | RowKey::FloatingIp(..) | RowKey::Policy(..) | RowKey::Label(..) => {}
            }
        }
        // Ports that the delta named are reported whether anything changed or not.
        touched.extend(batch.ports.iter().map(|port| (*port, true)));
        // The receipt first: with it the NCM knows how long the rows took that the reports are about.
        if let Some(receipt) = batch.receipt {
            self.send_receipt(receipt, refused, visible_us, out);
        }
        self.neighbours_applied(now, neighbours, out);
        for (port, force) in touched {
            if let Some(state) = self.ports.get_mut(&port) {
                state.visible_us = visible_us;
            }
            self.refresh(now, port, force, out);
        }
    }

    fn send_receipt(
        &self,
        receipt: Receipt,
        refused: Vec<v1::RowError>,
        visible_us: u64,
        out: &mut Vec<Action>,
    ) {
        let mut all = receipt.refused;
        all.extend(refused);
        all.sort_by_key(|error| error.row);
        let body = v1::agent_message::Body::Receipt(v1::Receipt {
            sequence: receipt.sequence,
            received_us: receipt.received_us,
            visible_us,
            refused: all,
        });
        if self.open_session() == Some(receipt.session) {
            let message = v1::AgentMessage { body: Some(body) };
            out.push(Action::Send {
                session: receipt.session,
                message,
            });
        }
    }

    /// Whether an NCM has welcomed the agent and the session lasts.
    pub fn has_session(&self) -> bool {
        self.open_session().is_some()
    }

    fn open_session(&self) -> Option<u64> {
        match self.session {
            Session::Open { session, .. } => Some(session),
            _ => None,
        }
    }

    fn refuse(&mut self, refusal: Refusal) {
        *self.refusals.entry(refusal).or_default() += 1;
    }

    /// Punted packets that were not answered, by reason.
    pub fn refusals(&self) -> &BTreeMap<Refusal, u64> {
        &self.refusals
    }
}

fn ip_bytes(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}
