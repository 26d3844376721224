//! Gateways: members of one set that forward for hosts which do not know an address yet. They die, cannot be heard by anybody but the
//! NCM, lose their agents, are drained, and come back.
//!
//! Looked at again and again: hosts send to nobody who is away for longer than [`FAILOVER_US`], and to somebody while there is
//! somebody, unless the NCM or the host has been away itself. Looked at with every word of the NCM: it names nobody who has not all
//! of the network, as far as it was told.
//!
//! Not here: ways to the outside. Hosts without an agent wait for answers instead of sending by a gateway.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use alcor_agent::{core::Event as AgentEvent, probe::Probe};
use alcor_dataplane::{Row, RowChange};
use alcor_model::{GatewayNode, Id, Network};
use alcor_ncm::core::{GRACE, PULSE};
use alcor_proto::v1::{self, SnapshotPhase};
use alcor_region::gateway::{GatewayRegistration, GatewayUpdate, register, update};
use alcor_southbound::{convert::decode_id, frame::Delta};

use super::{Event, Kind, Sim};
use crate::{clock::Us, figures::Over, host};

/// How long a host may go on sending to a gateway that is away, or have none to send to while there are others: silence, probes that
/// are not answered, and messages on their way.
const FAILOVER_US: Us = 10_000_000;
/// How often it is looked.
const LOOK_US: Us = 100_000;

/// One gateway.
#[derive(Debug, Default)]
struct Member {
    /// Its data plane neither gets nor sends anything before.
    dark_until: Us,
    /// Since when it is away, or cannot be heard.
    away_since: Option<Us>,
    /// The NCM does not hear it either.
    is_mute: bool,
    /// When the NCM last heard it: words that were held up arrive when it is mute again.
    last_heard: Us,
    /// Hosts sent to it when it went away, and nobody has seen them stop yet.
    is_named_still: bool,
    /// Since when it is there, and can be heard.
    here_since: Us,
    is_draining: bool,
    /// What it has all of, as far as the NCM was told, with since when.
    complete: BTreeMap<Id<Network>, Us>,
    /// The NCM that it has said hello to, by number: before, an NCM believes for a while that it is as it was.
    heard_by: u32,
}

/// All of them, by actor.
#[derive(Debug, Default)]
pub(super) struct Gateways {
    members: BTreeMap<u32, Member>,
    /// Since when a host has had nobody to send to in a network in which it asks.
    nobody_since: BTreeMap<(u32, Id<Network>), Us>,
    /// Since when the NCM has been told everything.
    ncm_since: Option<Us>,
    /// Since when a host has been told everything.
    hosts_since: BTreeMap<u32, Us>,
}

impl Gateways {
    pub(super) fn new(actors: impl Iterator<Item = u32>) -> Self {
        Self {
            members: actors.map(|actor| (actor, Member::default())).collect(),
            ..Self::default()
        }
    }

    pub(super) fn are_none(&self) -> bool {
        self.members.is_empty()
    }

    pub(super) fn actors(&self) -> Vec<u32> {
        self.members.keys().copied().collect()
    }

    pub(super) fn is_dark(&self, actor: u32, now: Us) -> bool {
        self.members
            .get(&actor)
            .is_some_and(|member| member.dark_until > now)
    }

    /// Everybody can be heard from now on.
    pub(super) fn heal(&mut self, now: Us) {
        for member in self.members.values_mut() {
            member.dark_until = member.dark_until.min(now);
        }
    }

    /// Since when there is somebody who has all of a network.
    fn well_since(&self, network: Id<Network>) -> Option<Us> {
        let here = self.members.values();
        let here = here.filter(|member| member.away_since.is_none() && !member.is_draining);
        let since = |member: &Member| Some(member.here_since.max(*member.complete.get(&network)?));
        here.filter_map(since).min()
    }

    /// Since when two are there who can say of others that they cannot be heard.
    fn judges_since(&self) -> Option<Us> {
        let here = self.members.values();
        let here = here.filter(|member| member.away_since.is_none());
        let mut here: Vec<_> = here.map(|member| member.here_since).collect();
        here.sort_unstable();
        here.get(1).copied()
    }

    fn find(&mut self, ip: IpAddr) -> Option<&mut Member> {
        let actor = host::of_tunnel_ip(ip)?;
        self.members.get_mut(&actor)
    }

    /// The NCM knows nothing, or not all.
    pub(super) const fn ncm_is_behind(&mut self) {
        self.ncm_since = None;
    }
}

impl Sim {
    pub(super) fn is_gateway(&self, actor: u32) -> bool {
        self.gateways.members.contains_key(&actor)
    }

    /// Somebody of the gateways.
    fn any_gateway(&mut self) -> Option<u32> {
        let actors = self.gateways.actors();
        self.rng.pick(&actors)
    }

    pub(super) fn gateway_dies(&mut self) {
        let away = self
            .rng
            .between(super::faults::seconds(self.scenario.faults.gateway_death_s));
        if let Some(actor) = self.any_gateway() {
            self.host_is_off(actor, away);
        }
    }

    /// Its data plane is deaf and mute; its agent speaks to the NCM as if nothing were.
    pub(super) fn gateway_goes_dark(&mut self) {
        let until = self.now
            + self
                .rng
                .between(super::faults::seconds(self.scenario.faults.gateway_death_s));
        if let Some(actor) = self.any_gateway()
            && let Some(member) = self.gateways.members.get_mut(&actor)
        {
            member.dark_until = member.dark_until.max(until);
        }
    }

    /// An operator drains a gateway, or takes that back.
    pub(super) fn gateway_is_drained(&mut self) {
        if let Some(actor) = self.any_gateway() {
            let draining = self.rng.chance(0.5);
            self.drain(actor, draining);
        }
    }

    /// Nobody is drained any more.
    pub(super) fn undrain_all(&mut self) {
        for actor in self.gateways.actors() {
            self.drain(actor, false);
        }
    }

    fn drain(&mut self, actor: u32, draining: bool) {
        let Some(id) = self.gateway_row(actor).map(|row| row.id) else {
            return;
        };
        if !self.cloud.is_up() {
            return;
        }
        let wanted = GatewayUpdate {
            draining: Some(draining),
        };
        if let Err(error) = self.cloud.write(|tx, _| update(tx, id, &wanted)) {
            self.refused(&error);
        }
        self.commit_soon();
    }

    fn gateway_row(&self, actor: u32) -> Option<&GatewayNode> {
        let row = self.cloud.state().gateway_named(&host::name(actor));
        row.map(AsRef::as_ref)
    }

    /// The region takes the word of gateways that the NCM has heard.
    pub(super) fn region_hears_gateways(&mut self, said: BTreeMap<String, (String, IpAddr)>) {
        for (name, (set, tunnel_ip)) in said {
            let said = GatewayRegistration { name, set, tunnel_ip };
            if self.cloud.write(|tx, env| register(tx, env, said)).is_err() {
                self.figures.add("registrations_refused", 1);
            }
        }
    }

    pub(super) fn pulse(&mut self, epoch: u32) {
        if epoch == self.ncm.epoch() {
            let pulse = u64::try_from(PULSE.as_micros()).unwrap_or(Us::MAX);
            self.after(pulse, Event::Pulse { epoch });
            self.step_ncm(alcor_ncm::core::Event::Pulse);
        }
    }

    /// A gateway's agent asks another gateway's data plane, which answers whether or not there is an agent.
    pub(super) fn probe_gateway(&mut self, actor: u32, probe: Probe) {
        let Some(to) = host::of_tunnel_ip(probe.to).filter(|to| self.is_gateway(*to)) else {
            return;
        };
        let is_heard = |sim: &Self, actor: u32| {
            !sim.gateways.is_dark(actor, sim.now) && sim.actors[actor as usize].is_on
        };
        if is_heard(self, actor) && is_heard(self, to) {
            let life = self.actor(actor).life;
            let delay = self.message_delay();
            self.after(delay, Event::ProbeAnswer { actor, life, probe });
        }
    }

    pub(super) fn probe_answered(&mut self, actor: u32, life: u32, probe: Probe) {
        if self.actor(actor).life == life {
            let bytes = probe.packet.to_vec();
            self.agent(
                actor,
                AgentEvent::ProbeAnswer {
                    from: probe.to,
                    bytes: bytes.into(),
                },
            );
        }
    }

    /// The NCM hears a gateway's hello: what it says that it holds is what it has all of.
    pub(super) fn note_held(&mut self, actor: u32, hello: &v1::Hello) {
        let (epoch, now) = (self.ncm.epoch(), self.now);
        if let Some(member) = self.gateways.members.get_mut(&actor) {
            let held = hello.held.iter();
            let held = held.filter_map(|held| decode_id("the network", &held.network_id).ok());
            let since = |network| (network, member.complete.get(&network).copied().unwrap_or(now));
            member.complete = held.map(since).collect();
            member.heard_by = epoch;
        }
    }

    /// The NCM hears a word of a gateway.
    pub(super) fn note_heard(&mut self, actor: u32) {
        let now = self.now;
        if let Some(member) = self.gateways.members.get_mut(&actor) {
            member.last_heard = now;
        }
    }

    /// A gateway takes a delta: it may have all of a network then, or nothing.
    pub(super) fn note_complete(&mut self, actor: u32, delta: &v1::Delta) {
        let now = self.now;
        let Some(member) = self.gateways.members.get_mut(&actor) else {
            return;
        };
        let Ok(network) = decode_id("the network", &delta.network_id) else {
            return;
        };
        match delta.snapshot() {
            SnapshotPhase::End | SnapshotPhase::Whole => drop(member.complete.entry(network).or_insert(now)),
            SnapshotPhase::Forget => drop(member.complete.remove(&network)),
            _ => {}
        }
    }

    /// The NCM sends a delta to a host: whom it names has all of the network.
    pub(super) fn check_named(&mut self, actor: u32, delta: &Delta) {
        if self.gateways.are_none() || self.is_gateway(actor) {
            return;
        }
        let network = delta.network;
        let named = delta.rows.iter().filter_map(|row| match row.change() {
            RowChange::Put(Row::Network(row)) => Some(row.gateways.clone()),
            _ => None,
        });
        for ip in named.flatten().collect::<Vec<_>>() {
            let epoch = self.ncm.epoch();
            let member = self.gateways.find(ip);
            let is_well =
                |member: &mut Member| member.heard_by != epoch || member.complete.contains_key(&network);
            if !member.is_some_and(is_well) {
                let name = host::name(actor);
                self.violate(format!(
                    "{name} is told to send to {ip} in network {network}, which has not all of it"
                ));
            }
        }
    }

    /// A host's session begins, or the host reads again: what it did not hear before it is told now.
    pub(super) fn host_is_told(&mut self, actor: u32, from: Us) {
        if !self.gateways.are_none() {
            let since = self.gateways.hosts_since.entry(actor).or_default();
            *since = from.max(*since);
        }
    }

    /// Looks at who is there, and to whom hosts send.
    pub(super) fn look(&mut self) {
        self.after(LOOK_US, Event::Look);
        self.look_at_gateways();
        let named = self.whom_hosts_name();
        self.note_failovers(&named);
        let ncm = self.ncm_steady_since();
        let (now, grace) = (self.now, u64::try_from(GRACE.as_micros()).unwrap_or_default());
        let mut wrong = Vec::new();
        let judges_since = self.gateways.judges_since();
        for ((actor, network), named) in &named {
            let key = (*actor, *network);
            let well_since = self.gateways.well_since(*network);
            match named.is_empty() {
                true => drop(self.gateways.nobody_since.entry(key).or_insert(now)),
                false => drop(self.gateways.nobody_since.remove(&key)),
            }
            let told = self.gateways.hosts_since.get(actor).copied();
            let (Some(ncm), Some(told)) = (ncm, told) else {
                continue;
            };
            let steady = ncm.max(told) + grace;
            let is_late = |since: Us| now > since.max(steady) + FAILOVER_US;
            if let (Some(nobody), Some(well)) = (self.gateways.nobody_since.get(&key), well_since)
                && is_late(well.max(*nobody))
            {
                wrong.push(format!(
                    "{} has nobody to send to in network {network}",
                    host::name(*actor)
                ));
            }
            for ip in named {
                let Some(member) = self.gateways.find(*ip) else {
                    continue;
                };
                let Some(away) = member.away_since else {
                    continue;
                };
                // That a gateway which still speaks cannot be heard by others, they have to say, and be more than it; and somebody
                // has to be there who is not drained.
                let (away, others) = match member.is_mute {
                    true => (away.max(member.last_heard), well_since),
                    false => (
                        away,
                        judges_since
                            .zip(well_since)
                            .map(|(judges, well)| judges.max(well)),
                    ),
                };
                if others.is_some_and(|others| is_late(others.max(away))) {
                    let name = host::name(*actor);
                    wrong.push(format!(
                        "{name} sends to {ip} in network {network}, which is away"
                    ));
                }
            }
        }
        self.gateways
            .nobody_since
            .retain(|key, _| named.contains_key(key));
        wrong.into_iter().for_each(|what| self.violate(what));
    }

    /// Since when the NCM has been told all, and can tell.
    fn ncm_steady_since(&mut self) -> Option<Us> {
        let is_steady = self.ncm.is_there() && self.ncm.feed.is_live() && self.cloud.is_up();
        let since = match (is_steady, self.gateways.ncm_since) {
            (true, None) => Some(self.now),
            (true, since) => since,
            (false, _) => None,
        };
        self.gateways.ncm_since = since;
        since
    }

    fn look_at_gateways(&mut self) {
        let (now, state) = (self.now, self.cloud.state());
        for (actor, member) in &mut self.gateways.members {
            let row = state.gateway_named(&host::name(*actor));
            let is_draining = row.is_some_and(|row| row.draining);
            if std::mem::replace(&mut member.is_draining, is_draining) && !is_draining {
                member.here_since = now;
            }
            let known = &self.actors[*actor as usize];
            let wire = &known.wire;
            // Who cannot be heard by the NCM is away for it.
            let is_mute = !known.is_on || !wire.speaks(now);
            if is_mute != member.is_mute {
                (member.is_mute, member.away_since) = (is_mute, member.away_since.and(Some(now)));
            }
            let is_here = !is_mute && member.dark_until <= now;
            match (is_here, member.away_since) {
                (true, Some(_)) => (member.away_since, member.here_since) = (None, now),
                (false, None) => (member.away_since, member.is_named_still) = (Some(now), true),
                _ => {}
            }
        }
    }

    /// Whom hosts with an agent send to, in networks in which they ask, while somebody tells them.
    fn whom_hosts_name(&mut self) -> BTreeMap<(u32, Id<Network>), Vec<IpAddr>> {
        let mut named = BTreeMap::new();
        for actor in 0..self.scenario.hosts.full {
            let now = self.now;
            let known = &mut self.actors[actor as usize];
            if !known.is_on || !known.wire.is_heard(now) {
                self.gateways.hosts_since.remove(&actor);
                continue;
            }
            self.gateways.hosts_since.entry(actor).or_insert(now);
            if let Kind::Full(full) = &mut known.kind {
                let rows = full.rows();
                // One that only passes on what comes for ports that have left it is told no more.
                let ports = rows.iter().filter(|row| matches!(row, Row::Port(_)));
                let own: BTreeSet<_> = ports.map(|row| row.key().network_id()).collect();
                named.extend(rows.into_iter().filter_map(|row| match row {
                    Row::Network(row) if row.on_demand && own.contains(&row.id) => {
                        Some(((actor, row.id), row.gateways))
                    }
                    _ => None,
                }));
            }
        }
        named
    }

    /// Gateways that were sent to when they went away, and are not any more.
    fn note_failovers(&mut self, named: &BTreeMap<(u32, Id<Network>), Vec<IpAddr>>) {
        let named: BTreeSet<_> = named.values().flatten().copied().collect();
        let is_steady = self.gateways.ncm_since.is_some();
        let now = self.now;
        let mut took = Vec::new();
        for (actor, member) in &mut self.gateways.members {
            let is_named = named.contains(&host::tunnel_ip(*actor));
            let Some(away) = member.away_since.filter(|_| member.is_named_still) else {
                continue;
            };
            if !is_named || !is_steady {
                member.is_named_still = false;
                // Of one that nobody sent to there is nothing to be seen.
                took.extend((is_steady && now > away).then(|| now - away));
            }
        }
        for us in took {
            self.figures.add("failovers", 1);
            self.figures.sample(Over::FailoverUs, 1, us);
        }
    }

    /// At rest: all gateways have exactly the rows of networks that hosts ask in, and hosts send to some of them.
    pub(super) fn check_gateways(
        &mut self,
        when: &str,
        network: Id<Network>,
        expected: &BTreeSet<(u64, u64)>,
        asking: &[u32],
    ) {
        if self.gateways.are_none() || asking.is_empty() {
            return;
        }
        for actor in self.gateways.actors() {
            let Kind::Full(full) = &mut self.actor(actor).kind else {
                continue;
            };
            let rows = full.rows_of(network);
            let has: BTreeSet<_> = rows.iter().map(host::light::digests).collect();
            if has != *expected {
                let (missing, more) = (
                    expected.difference(&has).count(),
                    has.difference(expected).count(),
                );
                self.violate(format!(
                    "{when}: gateway {} misses {missing} rows of network {network} and has {more} that it should not",
                    host::name(actor)
                ));
            }
        }
        for actor in asking {
            let Kind::Full(full) = &mut self.actor(*actor).kind else {
                continue;
            };
            let rows = full.rows_of(network);
            let named = rows.iter().find_map(|row| match row {
                Row::Network(row) => Some(row.gateways.clone()),
                _ => None,
            });
            let named = named.unwrap_or_default();
            let stranger = named.iter().find(|ip| self.gateways.find(**ip).is_none());
            // Where all are drained there is nobody to send to.
            let is_wanted = self.gateways.members.values().any(|member| !member.is_draining);
            if (named.is_empty() && is_wanted) || stranger.is_some() {
                self.violate(format!(
                    "{when}: {} sends to {named:?} in network {network}",
                    host::name(*actor)
                ));
            }
        }
    }
}
