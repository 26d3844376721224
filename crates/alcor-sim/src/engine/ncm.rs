//! The NCM's process: its core, what its shell keeps for the region, its starts and its feed.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    time::Duration,
};

use alcor_model::{Change, HostRuntime, Id, Label, Network, Port, ResourceKey, Revision, resource::HostWord};
use alcor_ncm::{
    core::{Action, Event as NcmEvent, Ncm, Now, Options, PortReport},
    service::TO_AGENT_SPARE,
};
use alcor_proto::v1::{self, agent_message::Body};
use alcor_southbound::{
    convert::resolve::{MESSAGES_MAX, decode_questions, encode_answers},
    frame::FromNcm,
};

use super::{Event, Kind, Sim, feed::Feed, wires::Down};
use crate::{
    clock::{Us, cpu_time},
    host,
    scenario::NcmBounds,
};

/// How often the core is told that time has passed, as in the shell.
const TICK_US: Us = 1_000_000;
/// When something that the region did not take is tried again, as in the shell.
const RETRY_US: Us = 1_000_000;
/// Reports written by one command, as in the shell.
const REPORTS_AT_ONCE: usize = 1_000;

/// What waits for the region, as in the shell: the newest of each.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    pub(super) hosts: BTreeMap<String, HostWord>,
    pub(super) gateways: BTreeMap<String, (String, IpAddr)>,
    pub(super) known: BTreeMap<String, HostRuntime>,
    pub(super) reports: BTreeMap<Id<Port>, PortReport>,
    pub(super) labels: BTreeMap<Id<Label>, Revision>,
    is_arranged: bool,
}

impl Waiting {
    fn is_empty(&self) -> bool {
        self.hosts.is_empty()
            && self.gateways.is_empty()
            && self.known.is_empty()
            && self.reports.is_empty()
            && self.labels.is_empty()
    }
}

/// The process.
pub(super) struct NcmActor {
    options: Options,
    core: Option<Ncm>,
    /// Counts starts.
    epoch: u32,
    started_at: Us,
    /// The session's actor, for those that the NCM has not ended.
    sessions: HashMap<u64, u32>,
    last_session: u64,
    pub(super) feed: Feed,
    waiting: Waiting,
    pub(super) clock_off_us: i64,
}

impl NcmActor {
    pub(super) fn new(bounds: &NcmBounds) -> Self {
        let mut options = Options::default();
        let ms = |value: Option<u64>, usual: Duration| value.map_or(usual, Duration::from_millis);
        options.heartbeat_interval = ms(bounds.heartbeat_ms, options.heartbeat_interval);
        options.heartbeat_timeout = ms(bounds.heartbeat_timeout_ms, options.heartbeat_timeout);
        options.window_deltas = bounds.window_deltas.unwrap_or(options.window_deltas);
        options.queue_rows = bounds.queue_rows.unwrap_or(options.queue_rows);
        options.message_rows = bounds.message_rows.unwrap_or(options.message_rows);
        options.tombstones = bounds.tombstones.unwrap_or(options.tombstones);
        options.eager_rows_max = bounds.eager_rows_max.unwrap_or(options.eager_rows_max);
        options.limits.lease = ms(bounds.lease_ms, options.limits.lease);
        Self {
            options,
            core: None,
            epoch: 0,
            started_at: 0,
            sessions: HashMap::new(),
            last_session: 0,
            feed: Feed::new(bounds.feed_part_rows),
            waiting: Waiting::default(),
            clock_off_us: 0,
        }
    }

    pub(super) const fn next_session(&mut self) -> u64 {
        self.last_session += 1;
        self.last_session
    }

    /// How long hosts keep what they have learned, or have of a port that left them, at most.
    pub(super) fn kept_us(&self) -> Us {
        u64::try_from(self.options.limits.kept().as_micros()).unwrap_or(Us::MAX / 2)
    }

    /// How long the host that a port has left passes on what comes for it, at least.
    pub(super) fn lease_us(&self) -> Us {
        u64::try_from(self.options.limits.lease.as_micros()).unwrap_or(Us::MAX / 2)
    }

    /// Hosts times neighbours of a network beyond which its hosts ask.
    pub(super) const fn eager_rows_max(&self) -> usize {
        self.options.eager_rows_max
    }

    pub(super) fn sessions(&self) -> usize {
        self.sessions.len()
    }

    pub(super) fn heartbeat_us(&self) -> Us {
        u64::try_from(self.options.heartbeat_interval.as_micros()).unwrap_or(Us::MAX / 2)
    }

    pub(super) const fn epoch(&self) -> u32 {
        self.epoch
    }

    /// The region's revision that it is at, while its process runs.
    pub(super) fn revision(&self) -> Option<Revision> {
        self.core.as_ref().map(Ncm::revision)
    }

    /// It has been told of everything up to a commit.
    pub(super) fn reached(&mut self, revision: Revision) {
        if let Some(core) = &mut self.core {
            core.reached(revision);
        }
    }

    /// Its process runs.
    pub(super) const fn is_there(&self) -> bool {
        self.core.is_some()
    }

    /// Why it is not at rest, if it is not.
    pub(super) fn restless(&self) -> Option<&'static str> {
        let Some(core) = &self.core else {
            return Some("the NCM is not there");
        };
        if !self.feed.is_idle() {
            return Some("the feed has more for the NCM");
        }
        if !self.waiting.is_empty() {
            return Some("the NCM has more for the region");
        }
        (core.depths().queued > 0).then_some("deltas wait in the NCM")
    }
}

impl Sim {
    pub(super) fn ncm_starts_soon(&mut self) {
        let delay = self.rng.between(self.scenario.delays.start_us);
        self.ncm.epoch += 1;
        let epoch = self.ncm.epoch;
        self.after(delay, Event::NcmStarts { epoch });
    }

    /// Its memory, its sessions and its outbox are gone.
    pub(super) fn ncm_dies(&mut self) {
        if self.ncm.core.is_none() {
            return;
        }
        self.ncm.core = None;
        self.feed_breaks();
        self.ncm.feed.dies();
        self.ncm.waiting = Waiting::default();
        let mut sessions: Vec<_> = self.ncm.sessions.drain().collect();
        sessions.sort_unstable();
        for (session, actor) in sessions {
            let delay = self.message_delay();
            self.after(delay, Event::HostClosed { actor, session });
        }
        self.ncm_starts_soon();
    }

    pub(super) fn ncm_starts(&mut self, epoch: u32) {
        if epoch != self.ncm.epoch {
            return;
        }
        self.ncm.core = Some(Ncm::new(self.ncm.options));
        self.ncm.started_at = self.now;
        self.after(0, Event::Subscribe { epoch });
        self.after(TICK_US, Event::Tick { epoch });
        if !self.gateways.are_none() {
            self.after(0, Event::Pulse { epoch });
        }
    }

    pub(super) fn tick(&mut self, epoch: u32) {
        if epoch == self.ncm.epoch {
            self.after(TICK_US, Event::Tick { epoch });
            self.step_ncm(NcmEvent::Tick);
        }
    }

    pub(super) fn ncm_hello(&mut self, actor: u32, session: u64, hello: v1::Hello) {
        if !self.ncm.feed.is_loaded {
            let delay = self.message_delay();
            return self.after(delay, Event::HostClosed { actor, session });
        }
        self.ncm.sessions.insert(session, actor);
        self.note_held(actor, &hello);
        self.step_ncm(NcmEvent::Hello { session, hello });
    }

    pub(super) fn ncm_hears(&mut self, session: u64, body: Body) {
        let Some(actor) = self.ncm.sessions.get(&session).copied() else {
            return;
        };
        match body {
            Body::Resolve(questions) => self.ncm_is_asked(actor, session, &questions),
            body => self.step_ncm(NcmEvent::Message { session, body }),
        }
    }

    /// The shell answers from the directory, beside the core; who asks what cannot be read loses his session.
    fn ncm_is_asked(&mut self, actor: u32, session: u64, message: &v1::Resolve) {
        self.figures.add("resolve_messages", 1);
        let name = self.session_name(actor);
        let now = self.ncm_now().since_start;
        let Some(core) = &self.ncm.core else { return };
        let asker = core.directory().asker(&name, session);
        let (Ok(questions), Some(asker)) = (decode_questions(message), asker) else {
            return self.cut(actor);
        };
        let before = cpu_time();
        let (answers, _) = core.directory().resolve(now, &asker, &questions);
        let cpu = cpu_time().saturating_sub(before);
        self.figures.asked(&answers, cpu);
        let resolved = encode_answers(message.id, &answers);
        self.ncm_sends(session, FromNcm::Resolved(resolved));
    }

    pub(super) fn ncm_closed(&mut self, session: u64) {
        if self.ncm.sessions.remove(&session).is_some() {
            self.step_ncm(NcmEvent::Closed { session });
        }
    }

    fn ncm_now(&self) -> Now {
        Now {
            since_start: Duration::from_micros(self.now - self.ncm.started_at),
            unix_us: self.unix_us().saturating_add_signed(self.ncm.clock_off_us),
        }
    }

    pub(super) fn step_ncm(&mut self, event: NcmEvent) {
        let now = self.ncm_now();
        let change = match &event {
            NcmEvent::Changes { changes, .. } => self.one_port_of(changes),
            _ => None,
        };
        let Some(core) = &mut self.ncm.core else { return };
        let before = cpu_time();
        let (actions, work) = core.step(now, event);
        let cpu = cpu_time().saturating_sub(before);
        self.figures.step(&work, cpu, change);
        for action in actions {
            self.ncm_wants(action);
        }
    }

    /// The size of the network in which a batch changes one port and nothing else does.
    fn one_port_of(&self, changes: &[Change]) -> Option<u64> {
        let mut ports = changes.iter().filter_map(|change| match change.key() {
            ResourceKey::Port(id) => Some(id),
            _ => None,
        });
        let port = ports.next()?;
        if ports.next().is_some() {
            return None;
        }
        let port = self.cloud.state().ports().get(&port)?;
        self.people.size_of(port.network_id)
    }

    fn ncm_wants(&mut self, action: Action) {
        match action {
            Action::Send { session, message } => self.ncm_sends(session, message),
            Action::Close { session, .. } => {
                self.figures.add("sessions_closed_by_ncm", 1);
                if let Some(actor) = self.ncm.sessions.remove(&session)
                    && self.actor(actor).wire.session == session
                {
                    self.send_down(actor, Down::End);
                }
            }
            Action::RegisterHost { name, word } => {
                self.ncm.waiting.hosts.insert(name, word);
                self.outbox_soon();
            }
            Action::RegisterGateway { name, set, tunnel_ip } => {
                self.ncm.waiting.gateways.insert(name, (set, tunnel_ip));
                self.outbox_soon();
            }
            Action::ReportPort(report) => {
                self.ncm.waiting.reports.insert(report.port_id, report);
                self.outbox_soon();
            }
            Action::NoteHosts(hosts) => {
                let hosts = hosts.into_iter().map(|host| (host.name.clone(), host));
                self.ncm.waiting.known.extend(hosts);
                self.outbox_soon();
            }
            Action::NoteFloatingIps(words) => self.violate(format!("nobody has floating IPs: {words:?}")),
            Action::ReleaseLabels(labels) => {
                self.ncm.waiting.labels.extend(labels);
                self.outbox_soon();
            }
        }
    }

    fn ncm_sends(&mut self, session: u64, message: FromNcm) {
        let Some(actor) = self.ncm.sessions.get(&session).copied() else {
            return;
        };
        if self.actor(actor).wire.session != session {
            return;
        }
        if let FromNcm::Delta(delta) = &message {
            self.figures.add("deltas_sent", 1);
            if delta.phase == v1::SnapshotPhase::Forget {
                self.check_forget(actor, delta.network);
            }
            self.check_named(actor, delta);
        }
        self.send_down(actor, Down::Message(message));
        let (deltas, all) = self.actor(actor).wire.coming();
        let window = self.ncm.options.window_deltas;
        // Who says that he has what he did not read, gets more, until the queue of the shell is full.
        let is_real = !matches!(self.actor(actor).kind, Kind::Liar(_));
        if is_real && deltas > window {
            self.violate(format!(
                "{deltas} deltas are on their way to {}",
                host::name(actor)
            ));
        }
        // As in the shell: who does not read loses the session. What the connection has of it comes on top.
        if all > window + TO_AGENT_SPARE + MESSAGES_MAX {
            self.figures.add("sessions_closed_by_ncm", 1);
            self.cut(actor);
        }
    }

    /// Nobody is told to forget a network of which he has a port in force that is still his.
    fn check_forget(&mut self, actor: u32, network: Id<Network>) {
        let name = host::name(actor);
        let is_his = |port: &Port| {
            let said = self.ledger.said(port.id, actor);
            port.network_id == network
                && port.is_bound()
                && said.is_some_and(|said| said >= port.binding.since)
        };
        let port = self.cloud.state().ports_on(&name).find(|port| is_his(port));
        if let Some(port) = port {
            let what = format!(
                "{name} is told to forget network {network}, in which it has port {} in force since {}",
                port.id, port.binding.since.0
            );
            self.violate(what);
        }
    }

    fn outbox_soon(&mut self) {
        if !self.ncm.waiting.is_arranged {
            self.ncm.waiting.is_arranged = true;
            let epoch = self.ncm.epoch;
            let delay = self.message_delay();
            self.after(delay, Event::Outbox { epoch });
        }
    }

    /// What the NCM has for the region reaches it, or is tried again.
    pub(super) fn outbox(&mut self, epoch: u32) {
        if epoch != self.ncm.epoch {
            return;
        }
        if !self.cloud.is_up() {
            return self.after(RETRY_US, Event::Outbox { epoch });
        }
        let mut taken = std::mem::take(&mut self.ncm.waiting);
        if let Some(key) = taken.reports.keys().nth(REPORTS_AT_ONCE).copied() {
            self.ncm.waiting.reports = taken.reports.split_off(&key);
            self.outbox_soon();
        }
        self.region_hears(taken);
    }
}
