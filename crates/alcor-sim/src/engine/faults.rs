//! What goes wrong: sessions, hosts, agents, the NCM, the controller, clocks, and agents that lie.

use std::net::Ipv4Addr;

use alcor_agent::core::Event as AgentEvent;
use alcor_model::{Id, Port};
use alcor_proto::v1::{self, agent_message::Body, ncm_message};
use alcor_southbound::convert::{
    encode_id, encode_ip,
    resolve::{QUESTIONS_MAX, Question, encode_questions},
};
use bytes::Bytes;
use uuid::Uuid;

use super::{Event, Kind, Sim, wires::Up};
use crate::{
    clock::Us,
    host::{self, full::Full},
};

/// Bytes of a message that no NCM should take.
const HUGE_BYTES: usize = 32 * 1024 * 1024;
/// Networks that a liar says it holds.
const HELD_LIES: u64 = 200;

/// What goes wrong again and again.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fault {
    Cut,
    HostDeath,
    AgentRestart,
    Replug,
    NcmRestart,
    NcmRestartInSnapshot,
    ControllerRestart,
    FeedLoss,
    Partition,
    ClockJump,
}

impl Fault {
    const ALL: [Self; 10] = [
        Self::Cut,
        Self::HostDeath,
        Self::AgentRestart,
        Self::Replug,
        Self::NcmRestart,
        Self::NcmRestartInSnapshot,
        Self::ControllerRestart,
        Self::FeedLoss,
        Self::Partition,
        Self::ClockJump,
    ];
}

const fn seconds(range: (u64, u64)) -> (Us, Us) {
    (range.0 * 1_000_000, range.1 * 1_000_000)
}

impl Sim {
    pub(super) fn arrange_faults(&mut self) {
        for fault in Fault::ALL {
            self.next_fault(fault);
        }
        let hosts = self.scenario.hosts.count;
        for liar in 0..self.scenario.faults.liars {
            self.next_lie(hosts + liar);
        }
    }

    fn next_fault(&mut self, fault: Fault) {
        let faults = &self.scenario.faults;
        let per_s = match fault {
            Fault::Cut => faults.cut_per_s,
            Fault::HostDeath => faults.host_death_per_s,
            Fault::AgentRestart => faults.agent_restart_per_s,
            Fault::Replug => faults.replug_per_s,
            Fault::NcmRestart => faults.ncm_restart_per_s,
            Fault::NcmRestartInSnapshot => faults.ncm_restart_in_snapshot_per_s,
            Fault::ControllerRestart => faults.controller_restart_per_s,
            Fault::FeedLoss => faults.feed_loss_per_s,
            Fault::Partition => faults.partition_per_s,
            Fault::ClockJump => faults.clock_jump_per_s,
        };
        if let Some(wait) = self.rng.wait_us(per_s)
            && self.now + wait < self.busy_until
        {
            self.after(wait, Event::Fault(fault));
        }
    }

    fn any_actor(&mut self) -> u32 {
        u32::try_from(self.rng.below(u64::from(self.scenario.hosts.count))).unwrap_or_default()
    }

    pub(super) fn fault(&mut self, fault: Fault) {
        self.next_fault(fault);
        self.figures.add("faults", 1);
        match fault {
            Fault::Cut => {
                let actor = self.any_actor();
                self.cut(actor);
            }
            Fault::HostDeath => self.host_dies(),
            Fault::AgentRestart => self.agent_dies(),
            Fault::Replug => self.replug(),
            Fault::NcmRestart => self.ncm_dies(self.ncm.epoch()),
            Fault::NcmRestartInSnapshot => self.ncm.dies_in_snapshot = true,
            Fault::ControllerRestart => {
                let away = self.rng.between(seconds(self.scenario.faults.controller_away_s));
                self.controller_dies(away);
            }
            Fault::FeedLoss => self.lose_feed(),
            Fault::Partition => {
                let until = self.now + self.rng.between(seconds(self.scenario.faults.partition_s));
                for actor in 0..self.scenario.hosts.count {
                    if self.rng.chance(self.scenario.faults.partition_share) {
                        self.partition(actor, until);
                    }
                }
            }
            Fault::ClockJump => self.clock_jumps(),
        }
    }

    /// A host loses power: nobody is told anything.
    fn host_dies(&mut self) {
        let actor = self.any_actor();
        let away = self.rng.between(seconds(self.scenario.faults.host_death_s));
        let known = self.actor(actor);
        if !known.is_on {
            return;
        }
        known.is_on = false;
        known.life += 1;
        known.wire.lose();
        if let Kind::Light(light) = &mut known.kind {
            light.dies();
        }
        self.after(away, Event::HostReturns { actor });
    }

    /// It comes back with nothing but its virtual machines' devices.
    pub(super) fn host_returns(&mut self, actor: u32) {
        let (now, unix_us) = (self.now, self.unix_us());
        let name = host::name(actor);
        let ports: Vec<_> = self.cloud.state().ports_on(&name).map(|port| port.id).collect();
        let known = self.actor(actor);
        known.is_on = true;
        known.life += 1;
        let life = known.life;
        match &mut known.kind {
            Kind::Full(full) => {
                let off = full.clock_off_us;
                **full = Full::new(actor, now, unix_us.saturating_add_signed(off));
                full.clock_off_us = off;
                for port in ports {
                    full.plug(port);
                }
                self.agent_returns(actor, life);
            }
            Kind::Light(_) => self.after(0, Event::Connect { actor }),
            Kind::Liar(_) => {}
        }
    }

    /// The agent dies; the data plane and the devices stay.
    fn agent_dies(&mut self) {
        let actor = self.any_actor();
        let delay = self.rng.between(self.scenario.delays.start_us);
        let known = self.actor(actor);
        if !known.is_on || !matches!(known.kind, Kind::Full(_)) {
            return;
        }
        known.life += 1;
        let life = known.life;
        self.drop_session(actor);
        self.after(delay, Event::AgentReturns { actor, life });
    }

    pub(super) fn agent_returns(&mut self, actor: u32, life: u32) {
        let (now, unix_us) = (self.now, self.unix_us());
        let known = self.actor(actor);
        if known.life != life || !known.is_on {
            return;
        }
        let Kind::Full(full) = &mut known.kind else { return };
        full.restart_agent(now, unix_us.saturating_add_signed(full.clock_off_us));
        let links = full.all_links();
        self.agent(actor, links);
    }

    pub(super) fn plug(&mut self, port: Id<Port>, host: u32) {
        // The port may have gone meanwhile.
        let row = self.cloud.state().ports().get(&port);
        if row.is_none_or(|row| row.binding.host() != Some(host::name(host).as_str())) {
            return;
        }
        let known = self.actor(host);
        if let Kind::Full(full) = &mut known.kind
            && known.is_on
        {
            let event = full.plug(port);
            self.agent(host, event);
        }
    }

    pub(super) fn unplug(&mut self, port: Id<Port>, at: u32) {
        // The port may have come back meanwhile.
        let row = self.cloud.state().ports().get(&port);
        if row.is_some_and(|row| row.binding.host() == Some(host::name(at).as_str())) {
            return;
        }
        let known = self.actor(at);
        if let Kind::Full(full) = &mut known.kind
            && known.is_on
            && let Some(event) = full.unplug(port)
        {
            self.agent(at, event);
        }
    }

    /// A virtual machine reboots: its device goes and comes.
    fn replug(&mut self) {
        let actor = self.any_actor();
        let name = host::name(actor);
        let ports: Vec<_> = self.cloud.state().ports_on(&name).map(|port| port.id).collect();
        let Some(port) = self.rng.pick(&ports) else { return };
        let delay = self.rng.between(self.scenario.delays.plug_us);
        let known = self.actor(actor);
        if let Kind::Full(full) = &mut known.kind
            && known.is_on
            && let Some(event) = full.unplug(port)
        {
            self.agent(actor, event);
            self.after(delay, Event::Plug { port, host: actor });
        }
    }

    /// Somebody's wall clock jumps; the time since a start does not.
    fn clock_jumps(&mut self) {
        let far = self.scenario.faults.clock_jump_s.saturating_mul(1_000_000);
        let far = i64::try_from(self.rng.below(far.saturating_mul(2).max(1))).unwrap_or_default()
            - i64::try_from(far).unwrap_or_default();
        if self.rng.chance(0.3) {
            self.ncm.clock_off_us = far;
            return;
        }
        let actor = self.any_actor();
        if let Kind::Full(full) = &mut self.actor(actor).kind {
            full.clock_off_us = far;
        }
    }

    /// Everything that can be is made whole: people and faults rest.
    pub(super) fn heal(&mut self) {
        self.ncm.dies_in_snapshot = false;
        for actor in 0..self.actors.len() {
            let known = &mut self.actors[actor];
            known.wire.partitioned_until = known.wire.partitioned_until.min(self.now);
            if let Kind::Liar(_) = known.kind
                && let Ok(actor) = u32::try_from(actor)
            {
                self.drop_session(actor);
            }
        }
    }

    fn next_lie(&mut self, actor: u32) {
        if let Some(wait) = self.rng.wait_us(self.scenario.faults.lies_per_s)
            && self.now + wait < self.busy_until
        {
            self.after(wait, Event::Lie { actor });
        }
    }

    /// An agent does what no agent should. It may have the name of a real host, with an older incarnation: an NCM that knows
    /// the real one refuses it. One that does not must believe it, for whose a name is, is not the NCM's to know; then
    /// all must be right again when the real host comes back.
    pub(super) fn lie(&mut self, actor: u32) {
        self.next_lie(actor);
        self.figures.add("lies", 1);
        if self.actor(actor).wire.session == 0 {
            return self.lying_hello(actor);
        }
        match self.rng.below(9) {
            0 => self.drop_session(actor),
            1 => self.lying_hello(actor),
            2 => self.send_up(actor, Up::Hello(v1::Hello::default())),
            3 => {
                let mut id = vec![0; HUGE_BYTES];
                id[0] = 1;
                let report = v1::PortReport {
                    port_id: Bytes::from(id),
                    ..v1::PortReport::default()
                };
                self.send_up(actor, Up::Body(Body::PortReport(report)));
            }
            4 => self.lying_receipt(actor),
            5 => self.lying_question(actor),
            _ => self.lying_report(actor),
        }
    }

    fn lying_hello(&mut self, actor: u32) {
        self.drop_session(actor);
        let foreign = self.any_actor();
        let is_foreign = self.rng.chance(self.scenario.faults.impersonating_share);
        let held = (0..self.rng.below(HELD_LIES)).map(|_| {
            let known = self.rng.place(self.people.networks.len() * 2);
            let id = self.people.networks.get(known).map(|network| network.id);
            let id = id.unwrap_or_else(|| Id::from_uuid(Uuid::from_u128(u128::from(self.rng.next()))));
            v1::Held {
                network_id: encode_id(id),
                revision: self.rng.next() >> self.rng.below(64),
            }
        });
        let held = held.collect();
        self.actor(actor).kind = Kind::Liar(is_foreign.then_some(foreign));
        let hello = v1::Hello {
            host: self.session_name(actor),
            // A real host's incarnation is never 0, so this one is older.
            incarnation: if is_foreign { 0 } else { u64::from(u32::MAX) },
            tunnel_ip: encode_ip(host::tunnel_ip(actor)),
            held,
            dataplane: "lies".to_owned(),
            version: String::new(),
            filters: self.rng.chance(0.5),
            ..v1::Hello::default()
        };
        self.open(actor, hello);
    }

    /// The name that an actor says hello with.
    pub(super) fn session_name(&self, actor: u32) -> String {
        match self.actors[actor as usize].kind {
            Kind::Liar(None) => format!("liar{actor}"),
            Kind::Liar(Some(host)) => host::name(host),
            Kind::Full(_) | Kind::Light(_) => host::name(actor),
        }
    }

    /// Asks in networks in which it has no ports, sometimes more than anybody may.
    fn lying_question(&mut self, actor: u32) {
        let network = self.rng.place(self.people.networks.len());
        let network = self.people.networks[network].id;
        let count = if self.rng.chance(0.1) {
            QUESTIONS_MAX + 1
        } else {
            3
        };
        let ip = |number: usize| Ipv4Addr::from(0x0b00_0000 + u32::try_from(number).unwrap_or_default());
        let questions = (0..count).map(|number| Question {
            network,
            ip: ip(number).into(),
            port: None,
        });
        let message = encode_questions(self.rng.next(), &questions.collect::<Vec<_>>());
        self.send_up(actor, Up::Body(Body::Resolve(message)));
    }

    fn lying_receipt(&mut self, actor: u32) {
        let receipt = v1::Receipt {
            sequence: self.rng.next() >> self.rng.below(64),
            received_us: self.rng.next(),
            visible_us: self.rng.next(),
            refused: vec![
                v1::RowError {
                    row: u32::MAX,
                    reason: "x".repeat(10_000),
                };
                3
            ],
        };
        self.send_up(actor, Up::Body(Body::Receipt(receipt)));
    }

    /// About a port that is not on this host, at a revision that is not there yet.
    fn lying_report(&mut self, actor: u32) {
        let network = self.rng.place(self.people.networks.len());
        let ports = &self.people.networks[network].ports;
        let port = self.rng.pick(ports);
        let report = v1::PortReport {
            port_id: port.map(encode_id).unwrap_or_default(),
            revision: self.rng.next() >> self.rng.below(64),
            condition: v1::PortCondition::Wired.into(),
            reason: "\u{0}lie".to_owned(),
            visible_us: u64::MAX,
        };
        if let Kind::Liar(Some(host)) = self.actor(actor).kind {
            self.host_says(host, &report);
        }
        self.send_up(actor, Up::Body(Body::PortReport(report)));
    }

    /// A liar is told something: nothing of any network, for it has no ports, unless it has the name of one that has.
    pub(super) fn liar_hears(&mut self, actor: u32, message: &v1::NcmMessage) {
        let has_none = matches!(self.actor(actor).kind, Kind::Liar(None));
        if let Some(ncm_message::Body::Resolved(resolved)) = &message.body
            && has_none
            && resolved.answers.iter().any(|answer| answer.row.is_some())
        {
            self.violate(format!("liar {actor} is told where ports of others are"));
        }
        if let Some(ncm_message::Body::Delta(delta)) = &message.body {
            if has_none && delta.snapshot() != v1::SnapshotPhase::Forget {
                self.violate(format!("liar {actor} is told rows: {} of them", delta.rows.len()));
            }
            if self.rng.chance(0.5) {
                let receipt = v1::Receipt {
                    sequence: delta.sequence,
                    ..v1::Receipt::default()
                };
                self.send_up(actor, Up::Body(Body::Receipt(receipt)));
            }
        }
    }

    /// Tells a full host what its data plane has handed up.
    pub(super) fn pass_on(&mut self, actor: u32) {
        let Kind::Full(full) = &mut self.actor(actor).kind else {
            return;
        };
        for event in full.told() {
            debug_assert!(matches!(event, AgentEvent::Dataplane(_)), "a data plane's word");
            self.agent(actor, event);
        }
    }
}
