//! Sessions as both ends see them: messages in order, each way with delays; cuts, partitions, and the end of a session
//! that each side hears of in its own time.

use std::collections::VecDeque;

use alcor_agent::{core::Event as AgentEvent, wire};
use alcor_model::{Id, Port, Revision};
use alcor_proto::v1::{self, agent_message::Body, ncm_message};
use alcor_southbound::{
    MESSAGE_BYTES_MAX,
    convert::{encode_id, encode_ip},
    frame::FromNcm,
};

use super::{BEAT_GROUPS, Event, Kind, Sim};
use crate::{
    clock::Us,
    host::{self, full::Wants},
};

/// How long an end waits before it takes a silent connection for broken.
const KEEPALIVE_US: Us = 20_000_000;
/// Shortest and longest pause of a host without an agent before it connects again.
const PAUSE_US: (Us, Us) = (50_000, 30_000_000);

/// A message on its way to the NCM.
#[derive(Debug)]
pub(super) enum Up {
    Hello(v1::Hello),
    Body(Body),
}

/// A message on its way to a host.
#[derive(Debug)]
pub(super) enum Down {
    Message(FromNcm),
    End,
}

/// What is on its way.
#[derive(Debug, Default)]
pub(super) struct Pipe {
    to_ncm: VecDeque<Up>,
    to_host: VecDeque<Down>,
    to_ncm_at: Us,
    to_host_at: Us,
}

/// One end's newest session.
#[derive(Debug, Default)]
pub(super) struct Wire {
    /// 0: none.
    pub(super) session: u64,
    pub(super) is_welcome: bool,
    /// The connection is gone: nothing gets through, though one end or both do not know yet.
    is_broken: bool,
    /// Nothing gets through before.
    pub(super) partitioned_until: Us,
    /// The host reads nothing before.
    pub(super) stalled_until: Us,
    pipe: Option<Box<Pipe>>,
}

impl Wire {
    /// Nothing is on its way but heartbeats, which always may be.
    pub(super) fn is_idle(&self) -> bool {
        let is_heartbeat = |up: &Up| matches!(up, Up::Body(Body::Heartbeat(_)));
        self.pipe
            .as_ref()
            .is_none_or(|pipe| pipe.to_ncm.iter().all(is_heartbeat) && pipe.to_host.is_empty())
    }

    /// The host's end is gone, without a word.
    pub(super) fn lose(&mut self) {
        (self.session, self.is_welcome, self.is_broken, self.pipe) = (0, false, false, None);
        self.stalled_until = 0;
    }

    /// Deltas that are on their way to the host, and all messages.
    pub(super) fn coming(&self) -> (usize, usize) {
        let coming = self.pipe.as_ref().map(|pipe| &pipe.to_host);
        let is_delta = |down: &&Down| match down {
            Down::Message(message) => matches!(message, FromNcm::Delta(_)),
            Down::End => false,
        };
        let deltas = coming.into_iter().flatten().filter(is_delta).count();
        (deltas, coming.map_or(0, VecDeque::len))
    }

    /// It has a session, and what the host says reaches the NCM.
    pub(super) const fn speaks(&self, now: Us) -> bool {
        self.is_welcome && !self.is_broken && self.partitioned_until <= now
    }

    /// It has a session, and both ends hear each other.
    pub(super) const fn is_heard(&self, now: Us) -> bool {
        self.speaks(now) && self.stalled_until <= now
    }

    /// Before then the host takes nothing from its session.
    fn deaf_until(&self) -> Us {
        self.partitioned_until.max(self.stalled_until)
    }
}

impl Sim {
    pub(super) fn first_hello(&mut self, actor: u32, at: Us) {
        match self.actor(actor).kind {
            Kind::Light(_) => self.at(at, Event::Connect { actor }),
            Kind::Full(_) => {
                let life = self.actor(actor).life;
                self.at(at, Event::AgentReturns { actor, life });
            }
            Kind::Liar(_) => {}
        }
    }

    /// A session is opened from the host's side.
    pub(super) fn open(&mut self, actor: u32, hello: v1::Hello) {
        let session = self.ncm.next_session();
        let wire = &mut self.actor(actor).wire;
        wire.lose();
        wire.session = session;
        self.send_up(actor, Up::Hello(hello));
    }

    pub(super) fn send_up(&mut self, actor: u32, message: Up) {
        self.overhear(actor, &message);
        let (delay, now) = (self.message_delay(), self.now);
        let wire = &mut self.actor(actor).wire;
        let session = wire.session;
        if session == 0 || wire.is_broken {
            return;
        }
        let until = wire.partitioned_until;
        let pipe = wire.pipe.get_or_insert_default();
        pipe.to_ncm_at = (now + delay).max(pipe.to_ncm_at).max(until);
        pipe.to_ncm.push_back(message);
        let at = pipe.to_ncm_at;
        self.at(at, Event::ToNcm { actor, session });
    }

    pub(super) fn send_down(&mut self, actor: u32, message: Down) {
        let (delay, now) = (self.message_delay(), self.now);
        let wire = &mut self.actor(actor).wire;
        if wire.is_broken {
            return;
        }
        let session = wire.session;
        let until = wire.deaf_until();
        let pipe = wire.pipe.get_or_insert_default();
        pipe.to_host_at = (now + delay).max(pipe.to_host_at).max(until);
        pipe.to_host.push_back(message);
        let at = pipe.to_host_at;
        self.at(at, Event::ToHost { actor, session });
    }

    pub(super) fn reaches_ncm(&mut self, actor: u32, session: u64) {
        let now = self.now;
        let wire = &mut self.actor(actor).wire;
        if wire.session != session {
            return;
        }
        if wire.partitioned_until > now {
            let at = wire.partitioned_until;
            return self.at(at, Event::ToNcm { actor, session });
        }
        let Some(message) = wire.pipe.as_mut().and_then(|pipe| pipe.to_ncm.pop_front()) else {
            return;
        };
        self.note_heard(actor);
        match message {
            Up::Hello(hello) => self.ncm_hello(actor, session, hello),
            // The shell reads no larger message: it ends the stream.
            Up::Body(body) if body.encoded_len() > MESSAGE_BYTES_MAX => self.cut(actor),
            Up::Body(body) => self.ncm_hears(session, body),
        }
    }

    pub(super) fn reaches_host(&mut self, actor: u32, session: u64) {
        let now = self.now;
        let wire = &mut self.actor(actor).wire;
        if wire.session != session {
            return;
        }
        if wire.deaf_until() > now {
            let at = wire.deaf_until();
            return self.at(at, Event::ToHost { actor, session });
        }
        let Some(message) = wire.pipe.as_mut().and_then(|pipe| pipe.to_host.pop_front()) else {
            return;
        };
        match message {
            Down::End => self.host_closed(actor, session),
            Down::Message(message) => match message.read() {
                Ok(message) => self.host_hears(actor, message),
                Err(error) => self.violate(format!("{} cannot read: {error}", host::name(actor))),
            },
        }
    }

    fn host_hears(&mut self, actor: u32, message: v1::NcmMessage) {
        let phase = match &message.body {
            Some(ncm_message::Body::Welcome(_)) => {
                self.actor(actor).wire.is_welcome = true;
                self.session_begins(actor);
                let now = self.now;
                self.host_is_told(actor, now);
                None
            }
            Some(ncm_message::Body::Delta(delta)) => {
                self.note_part(actor, delta);
                self.note_complete(actor, delta);
                Some(delta.snapshot())
            }
            _ => None,
        };
        self.host_takes(actor, message);
        if let Some(phase) = phase {
            self.perhaps_cut_in_snapshot(actor, phase);
        }
    }

    fn host_takes(&mut self, actor: u32, message: v1::NcmMessage) {
        match &self.actor(actor).kind {
            Kind::Full(full) => {
                let session = full.session;
                match wire::read(message) {
                    Ok(message) => self.agent(actor, AgentEvent::Message { session, message }),
                    Err(error) => self.violate(format!("{} cannot read: {error}", host::name(actor))),
                }
            }
            Kind::Light(_) => self.light_hears(actor, message),
            Kind::Liar(_) => self.liar_hears(actor, &message),
        }
    }

    fn light_hears(&mut self, actor: u32, message: v1::NcmMessage) {
        let (now, now_us) = (self.now, self.unix_us());
        let Kind::Light(light) = &mut self.actor(actor).kind else {
            return;
        };
        let delta = match message.body {
            Some(ncm_message::Body::Delta(delta)) => delta,
            Some(ncm_message::Body::Resolved(resolved)) => {
                return match light.answered(&resolved, now) {
                    Ok(packets) => self.send_again(packets),
                    Err(error) => self.violate(format!("{}: {error}", host::name(actor))),
                };
            }
            // The NCM may have missed what was said before.
            Some(ncm_message::Body::Welcome(_)) => {
                light.welcomed();
                let ports = light.ports();
                return self.light_reports(actor, ports);
            }
            None => return,
        };
        let taken = match light.take(&delta, now, now_us) {
            Ok(taken) => taken,
            Err(error) => return self.violate(format!("{}: {error}", host::name(actor))),
        };
        light.failures = 0;
        self.send_up(actor, Up::Body(Body::Receipt(taken.receipt)));
        self.light_reports(actor, taken.ports);
    }

    /// A host without agents has all devices.
    fn light_reports(&mut self, actor: u32, ports: Vec<(Id<Port>, Revision)>) {
        let now_us = self.unix_us();
        for (port, revision) in ports {
            let report = v1::PortReport {
                port_id: encode_id(port),
                revision: revision.0,
                condition: v1::PortCondition::Wired.into(),
                reason: String::new(),
                visible_us: now_us,
            };
            self.host_says(actor, &report);
            self.send_up(actor, Up::Body(Body::PortReport(report)));
        }
    }

    /// A real agent takes an event, and what it wants is done.
    pub(super) fn agent(&mut self, actor: u32, event: AgentEvent) {
        let (now, unix_us) = (self.now, self.unix_us());
        let Kind::Full(full) = &mut self.actor(actor).kind else {
            return;
        };
        let wants = full.step(now, unix_us, event);
        for want in wants {
            match want {
                Wants::Connect(hello) => self.open(actor, hello),
                Wants::Probe(probe) => self.probe_gateway(actor, probe),
                Wants::Send(body) => {
                    if let Body::PortReport(report) = &body {
                        self.host_says(actor, report);
                    }
                    self.send_up(actor, Up::Body(body));
                }
                // Agents do so only when the NCM breaks the protocol.
                Wants::Close => {
                    self.violate(format!("the agent of {} ended its session", host::name(actor)));
                    self.drop_session(actor);
                }
                Wants::Work => self.work_soon(actor),
            }
        }
        self.wake_when_due(actor);
    }

    fn work_soon(&mut self, actor: u32) {
        let delay = self.rng.between(self.scenario.delays.apply_us);
        let life = self.actor(actor).life;
        self.after(delay, Event::Work { actor, life });
    }

    fn wake_when_due(&mut self, actor: u32) {
        let now = self.now;
        let life = self.actor(actor).life;
        let Kind::Full(full) = &mut self.actor(actor).kind else {
            return;
        };
        let Some(due) = full.deadline() else { return };
        let due = due.max(now + 1);
        if full.wake_at.is_none_or(|at| due < at) {
            full.wake_at = Some(due);
            self.at(due, Event::Wake { actor, life });
        }
    }

    pub(super) fn wake(&mut self, actor: u32, life: u32) {
        let now = self.now;
        let known = self.actor(actor);
        if known.life != life || !known.is_on {
            return;
        }
        if let Kind::Full(full) = &mut known.kind {
            if full.wake_at.is_none_or(|at| at > now) {
                return;
            }
            full.wake_at = None;
            self.agent(actor, AgentEvent::Tick);
        }
    }

    pub(super) fn work(&mut self, actor: u32, life: u32) {
        let unix_us = self.unix_us();
        let known = self.actor(actor);
        if known.life != life || !known.is_on {
            return;
        }
        let Kind::Full(full) = &mut known.kind else { return };
        let told = full.work(unix_us);
        let (released, more) = (full.released(), full.has_work());
        if more {
            self.work_soon(actor);
        }
        for (_, verdict) in released {
            self.released(actor, verdict);
        }
        if let Some(event) = told {
            self.agent(actor, event);
        }
    }

    /// A host without an agent says hello.
    pub(super) fn connect_light(&mut self, actor: u32) {
        let known = self.actor(actor);
        if !known.is_on || known.wire.session != 0 {
            return;
        }
        let life = known.life;
        let Kind::Light(light) = &mut known.kind else {
            return;
        };
        let held = light.hello();
        let hello = v1::Hello {
            host: host::name(actor),
            incarnation: u64::from(life) + 1,
            tunnel_ip: encode_ip(host::tunnel_ip(actor)),
            held,
            dataplane: "simulated".to_owned(),
            version: String::new(),
            filters: true,
            session: u64::from(light.sessions),
            ..v1::Hello::default()
        };
        self.open(actor, hello);
    }

    /// Hosts without agents say that they are there. It costs no event each: nothing depends on when exactly it comes.
    pub(super) fn beats(&mut self, group: u64) {
        self.after(self.ncm.heartbeat_us(), Event::Beats { group });
        let (first, step) = (group as usize, BEAT_GROUPS as usize);
        for actor in (first..self.actors.len()).step_by(step) {
            let known = &self.actors[actor];
            let speaks = known.is_on && known.wire.is_welcome && known.wire.partitioned_until <= self.now;
            if speaks && matches!(known.kind, Kind::Light(_) | Kind::Liar(_)) {
                let session = known.wire.session;
                self.ncm_hears(session, Body::Heartbeat(v1::Heartbeat::default()));
            }
        }
    }

    /// A session breaks: what was on its way is lost, both ends hear of it in their own time.
    pub(super) fn cut(&mut self, actor: u32) {
        let now = self.now;
        let (to_ncm, to_host) = (self.message_delay(), self.message_delay());
        let wire = &mut self.actor(actor).wire;
        let session = wire.session;
        if session == 0 || wire.is_broken {
            return;
        }
        (wire.pipe, wire.is_broken) = (None, true);
        let silent = wire.partitioned_until > now;
        self.after(to_host, Event::HostClosed { actor, session });
        // Through a partition nothing is heard: the NCM finds out by itself.
        if !silent {
            self.after(to_ncm, Event::NcmClosed { session });
        }
    }

    /// The host's side is gone without a word to itself.
    pub(super) fn drop_session(&mut self, actor: u32) {
        let delay = self.message_delay();
        let now = self.now;
        let wire = &mut self.actor(actor).wire;
        let session = wire.session;
        wire.lose();
        if session != 0 && wire.partitioned_until <= now {
            self.after(delay, Event::NcmClosed { session });
        }
        self.session_over(actor);
    }

    /// A host cannot reach the NCM for a while.
    pub(super) fn partition(&mut self, actor: u32, until: Us) {
        let now = self.now;
        let wire = &mut self.actor(actor).wire;
        wire.partitioned_until = wire.partitioned_until.max(until);
        let session = wire.session;
        if session != 0 && until > now + KEEPALIVE_US {
            self.after(KEEPALIVE_US, Event::Silence { actor, session });
        }
    }

    /// A host has heard nothing for long: if nothing gets through even now, its session is over.
    pub(super) fn silence(&mut self, actor: u32, session: u64) {
        if self.actor(actor).wire.partitioned_until > self.now {
            self.host_closed(actor, session);
        }
    }

    /// A host hears that its session is over, and tries again later.
    pub(super) fn host_closed(&mut self, actor: u32, session: u64) {
        let known = self.actor(actor);
        if known.wire.session != session || session == 0 {
            return;
        }
        known.wire.lose();
        if !known.is_on {
            return;
        }
        self.session_over(actor);
        match &mut self.actor(actor).kind {
            Kind::Full(full) => {
                let session = full.session;
                let reason = "the session broke".to_owned();
                self.agent(actor, AgentEvent::Closed { session, reason });
            }
            Kind::Light(light) => {
                light.closed();
                light.failures = light.failures.saturating_add(1);
                let most = PAUSE_US.0 << light.failures.min(10);
                let pause = self.rng.between((PAUSE_US.0, most.min(PAUSE_US.1)));
                self.after(pause, Event::Connect { actor });
            }
            Kind::Liar(_) => {}
        }
    }
}
