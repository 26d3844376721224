//! What goes wrong: sessions, hosts, agents, the NCM, the controller, its feed, clocks. Not here: agents that lie, long outages.

use alcor_agent::core::Event as AgentEvent;
use alcor_model::{Id, Port};

use super::{Event, Kind, Sim};
use crate::{
    clock::Us,
    host::{self, full::Full},
};

/// What goes wrong again and again.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fault {
    Cut,
    HostDeath,
    AgentRestart,
    Replug,
    NcmRestart,
    NcmRestartInSnapshot,
    CutInSnapshot,
    ControllerRestart,
    FeedLoss,
    FeedGap,
    Stall,
    Partition,
    ClockJump,
    GatewayDeath,
    GatewayDark,
    GatewayDrain,
}

impl Fault {
    const ALL: [Self; 16] = [
        Self::Cut,
        Self::HostDeath,
        Self::AgentRestart,
        Self::Replug,
        Self::NcmRestart,
        Self::NcmRestartInSnapshot,
        Self::CutInSnapshot,
        Self::ControllerRestart,
        Self::FeedLoss,
        Self::FeedGap,
        Self::Stall,
        Self::Partition,
        Self::ClockJump,
        Self::GatewayDeath,
        Self::GatewayDark,
        Self::GatewayDrain,
    ];
}

pub(super) const fn seconds(range: (u64, u64)) -> (Us, Us) {
    (range.0 * 1_000_000, range.1 * 1_000_000)
}

impl Sim {
    pub(super) fn arrange_faults(&mut self) {
        for fault in Fault::ALL {
            self.next_fault(fault);
        }
        // One of each kind comes as soon as there is a snapshot for it, so that no run is without them.
        if self.scenario.faults.ncm_restart_in_snapshot_per_s > 0.0 {
            (self.ncm.feed.dies_in_snapshot, self.partials.kills_ncm) = (true, true);
        }
        self.partials.cuts_host = self.scenario.faults.cut_in_snapshot_per_s > 0.0;
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
            Fault::CutInSnapshot => faults.cut_in_snapshot_per_s,
            Fault::ControllerRestart => faults.controller_restart_per_s,
            Fault::FeedLoss => faults.feed_loss_per_s,
            Fault::FeedGap => faults.feed_gap_per_s,
            Fault::Stall => faults.stall_per_s,
            Fault::Partition => faults.partition_per_s,
            Fault::ClockJump => faults.clock_jump_per_s,
            Fault::GatewayDeath => faults.gateway_death_per_s,
            Fault::GatewayDark => faults.gateway_dark_per_s,
            Fault::GatewayDrain => faults.gateway_drain_per_s,
        };
        if let Some(wait) = self.rng.wait_us(per_s)
            && self.now + wait < self.busy_until
        {
            self.after(wait, Event::Fault(fault));
        }
    }

    pub(super) fn any_actor(&mut self) -> u32 {
        u32::try_from(self.rng.below(u64::from(self.scenario.hosts.count))).unwrap_or_default()
    }

    /// A host or a gateway.
    fn any_agent(&mut self) -> u32 {
        let gateways = self.gateways.actors();
        let hosts = self.scenario.hosts.count;
        let all = u64::from(hosts) + gateways.len() as u64;
        let place = u32::try_from(self.rng.below(all)).unwrap_or_default();
        let gateway = place
            .checked_sub(hosts)
            .and_then(|place| gateways.get(place as usize));
        gateway.copied().unwrap_or(place)
    }

    pub(super) fn fault(&mut self, fault: Fault) {
        self.next_fault(fault);
        self.figures.add("faults", 1);
        match fault {
            Fault::Cut => {
                let actor = self.any_agent();
                self.cut(actor);
            }
            Fault::HostDeath => self.host_dies(),
            Fault::AgentRestart => {
                let actor = self.any_agent();
                self.agent_dies(actor);
            }
            Fault::Replug => self.replug(),
            Fault::NcmRestart => self.ncm_dies(),
            Fault::NcmRestartInSnapshot => match self.rng.chance(0.5) {
                true => self.partials.kills_ncm = true,
                false => self.ncm.feed.dies_in_snapshot = true,
            },
            Fault::CutInSnapshot => self.partials.cuts_host = true,
            Fault::ControllerRestart => {
                let away = self.rng.between(seconds(self.scenario.faults.controller_away_s));
                self.controller_dies(away);
            }
            Fault::FeedLoss => self.lose_feed(),
            Fault::FeedGap => self.ncm.feed.misses_changes = true,
            Fault::Stall => {
                let until = self.now + self.rng.between(seconds(self.scenario.faults.stall_s));
                let actor = self.any_agent();
                self.actor(actor).wire.stalled_until = until;
                self.host_is_told(actor, until);
            }
            Fault::Partition => {
                let until = self.now + self.rng.between(seconds(self.scenario.faults.partition_s));
                let gateways = self.gateways.actors();
                for actor in (0..self.scenario.hosts.count).chain(gateways) {
                    if self.rng.chance(self.scenario.faults.partition_share) {
                        self.partition(actor, until);
                    }
                }
            }
            Fault::ClockJump => self.clock_jumps(),
            Fault::GatewayDeath => self.gateway_dies(),
            Fault::GatewayDark => self.gateway_goes_dark(),
            Fault::GatewayDrain => self.gateway_is_drained(),
        }
    }

    /// A host loses power: nobody is told anything.
    fn host_dies(&mut self) {
        let actor = self.any_actor();
        let away = self.rng.between(seconds(self.scenario.faults.host_death_s));
        self.host_is_off(actor, away);
    }

    pub(super) fn host_is_off(&mut self, actor: u32, away: Us) {
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
        self.partials.forget(actor);
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
                **full = Full::new(actor, full.is_gateway(), now, unix_us.saturating_add_signed(off));
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
    pub(super) fn agent_dies(&mut self, actor: u32) {
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
        self.ncm.feed.dies_in_snapshot = false;
        (self.partials.kills_ncm, self.partials.cuts_host) = (false, false);
        self.notice_gap();
        self.gateways.heal(self.now);
        self.undrain_all();
        for actor in 0..self.actors.len() {
            let known = &mut self.actors[actor];
            known.wire.partitioned_until = known.wire.partitioned_until.min(self.now);
            known.wire.stalled_until = known.wire.stalled_until.min(self.now);
            if let Kind::Liar(_) = known.kind
                && let Ok(actor) = u32::try_from(actor)
            {
                self.drop_session(actor);
            }
        }
    }

    /// Tells a full host what its data plane has handed up.
    pub(super) fn pass_on(&mut self, actor: u32) {
        let Kind::Full(full) = &mut self.actor(actor).kind else {
            return;
        };
        for event in full.told() {
            self.agent(actor, AgentEvent::Dataplane(event));
        }
    }
}
