//! Source NAT's memory.

use std::{collections::BTreeMap, net::Ipv4Addr};

use alcor_dataplane_abi::{
    connection::{Connection, FRAGMENT, Segment, Step, step},
    gateway_layout::{
        FragmentKey, MAX_NAT_CONNECTIONS, MAX_NAT_FRAGMENTS, NAT_CONNECTIONS_PER_ROUTER, NAT_PORT_TRIES,
        NatBack, NatKey, nat_limit, nat_port,
    },
};
use alcor_model::{Id, Router};

use crate::DropReason;

/// How much source NAT may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NatLimits {
    /// Connections of all routers together.
    pub connections: u32,
    /// Most connections of one router; fewer where little is free ([`nat_limit`]).
    pub connections_per_router: u64,
    /// The last outside port that is given.
    pub last_port: u16,
}

impl Default for NatLimits {
    fn default() -> Self {
        Self {
            connections: MAX_NAT_CONNECTIONS,
            connections_per_router: NAT_CONNECTIONS_PER_ROUTER,
            last_port: u16::MAX,
        }
    }
}

/// A connection.
#[derive(Clone, Copy, Debug)]
struct Entry {
    connection: Connection,
    address: Ipv4Addr,
    router: Id<Router>,
    port: u16,
}

/// How later fragments of a packet are translated.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fragment {
    pub(super) router: Id<Router>,
    /// As in [`FragmentValue`](alcor_dataplane_abi::gateway_layout::FragmentValue).
    pub(super) address: Ipv4Addr,
    /// Likewise.
    pub(super) vni: u32,
}

/// All connections, by their inside, and whose each outside is.
#[derive(Debug, Default)]
pub(super) struct Nat {
    pub(super) limits: NatLimits,
    entries: BTreeMap<NatKey, Entry>,
    backs: BTreeMap<NatKey, NatBack>,
    /// Each with the time when it is forgotten.
    fragments: BTreeMap<FragmentKey, (u64, Fragment)>,
}

/// The connection after a packet, and whether the packet begins it.
const fn after(known: Option<Connection>, segment: &Segment, now: u64) -> (Connection, bool) {
    match step(known, segment, 0, now) {
        Step::Pass(connection) | Step::Deny(connection) => (connection, false),
        Step::Ask(question) => (question.allowed, true),
    }
}

impl Nat {
    /// A packet from inside: the outside port of its connection.
    pub(super) fn north(
        &mut self,
        key: NatKey,
        (router, address): (Id<Router>, Ipv4Addr),
        segment: &Segment,
        may_begin: bool,
        now: u64,
    ) -> Result<u16, DropReason> {
        let known = self.entries.get(&key).copied();
        let present = known.filter(|entry| entry.address == address);
        let (connection, begins) = after(present.map(|entry| entry.connection), segment, now);
        if begins && !may_begin {
            return Err(DropReason::NoTranslation);
        }
        if let Some(entry) = present {
            self.entries.insert(key, Entry { connection, ..entry });
            return Ok(entry.port);
        }
        if let Some(old) = known {
            self.backs.remove(&key.outside(old.address.octets(), old.port));
            self.entries.remove(&key);
        }
        let own = self
            .entries
            .values()
            .filter(|entry| entry.router == router)
            .count();
        let free = u64::from(self.limits.connections).saturating_sub(self.entries.len() as u64);
        if own as u64 >= nat_limit(self.limits.connections_per_router, free) {
            return Err(DropReason::NatConnectionLimit);
        }
        let seed = key.port_seed();
        let mut ports =
            (0..NAT_PORT_TRIES).map(|turn| nat_port(key.local, seed, turn, self.limits.last_port));
        let port = ports.find(|port| !self.backs.contains_key(&key.outside(address.octets(), *port)));
        let port = port.ok_or(DropReason::NatPortsExhausted)?;
        let back = NatBack {
            vni: key.vni,
            own: key.own,
            local: key.local,
            pad: 0,
        };
        self.backs.insert(key.outside(address.octets(), port), back);
        let entry = Entry {
            connection,
            address,
            router,
            port,
        };
        self.entries.insert(key, entry);
        Ok(port)
    }

    /// A packet from outside: the inside of its connection.
    pub(super) fn south(&mut self, outside: NatKey, segment: &Segment, now: u64) -> Option<NatBack> {
        let (back, inside) = self.live(&outside, now)?;
        let entry = self.entries.get_mut(&inside)?;
        let (connection, begins) = after(Some(entry.connection), segment, now);
        if begins {
            return None;
        }
        entry.connection = connection;
        Some(back)
    }

    /// The inside of a connection that lives.
    pub(super) fn live(&self, outside: &NatKey, now: u64) -> Option<(NatBack, NatKey)> {
        let back = *self.backs.get(outside)?;
        let inside = outside.inside(&back);
        let entry = self.entries.get(&inside)?;
        let is_it = entry.address.octets() == outside.own && entry.port == outside.local;
        (is_it && entry.connection.is_live(now)).then_some((back, inside))
    }

    /// The outside port of a connection that lives and has this address.
    pub(super) fn port(&self, inside: &NatKey, address: Ipv4Addr, now: u64) -> Option<u16> {
        let entry = self.entries.get(inside)?;
        let is_it = entry.address == address && entry.connection.is_live(now);
        is_it.then_some(entry.port)
    }

    /// Later fragments may follow this one.
    pub(super) fn expect(&mut self, key: FragmentKey, fragment: Fragment, now: u64) {
        if !self.fragments.contains_key(&key) && self.fragments.len() >= MAX_NAT_FRAGMENTS as usize {
            let oldest = self.fragments.iter().min_by_key(|(_, (expires, _))| *expires);
            if let Some(oldest) = oldest.map(|(key, _)| *key) {
                self.fragments.remove(&oldest);
            }
        }
        self.fragments
            .insert(key, (now.saturating_add(FRAGMENT), fragment));
    }

    /// How a later fragment is translated.
    pub(super) fn expected(&self, key: &FragmentKey, now: u64) -> Option<Fragment> {
        let (expires, fragment) = self.fragments.get(key)?;
        (*expires > now).then_some(*fragment)
    }

    /// Forgets connections and fragments that expired.
    pub(super) fn sweep(&mut self, now: u64) {
        self.fragments.retain(|_, (expires, _)| *expires > now);
        self.retain(|_, entry| entry.connection.is_live(now));
    }

    /// Forgets connections of networks and routers that are gone.
    pub(super) fn forget(
        &mut self,
        is_network: impl Fn(u32) -> bool,
        is_router: impl Fn(Id<Router>) -> bool,
    ) {
        let is_there = |vni| vni == 0 || is_network(vni);
        self.fragments.retain(|key, (_, fragment)| {
            is_there(key.vni) && is_there(fragment.vni) && is_router(fragment.router)
        });
        self.retain(|key, entry| is_network(key.vni) && is_router(entry.router));
    }

    fn retain(&mut self, keep: impl Fn(&NatKey, &Entry) -> bool) {
        let backs = &mut self.backs;
        self.entries.retain(|key, entry| {
            let stays = keep(key, entry);
            if !stays {
                backs.remove(&key.outside(entry.address.octets(), entry.port));
            }
            stays
        });
    }

    /// Connections of each router that has any.
    pub(super) fn counts(&self) -> BTreeMap<Id<Router>, u64> {
        let mut counts = BTreeMap::new();
        for entry in self.entries.values() {
            *counts.entry(entry.router).or_default() += 1;
        }
        counts
    }
}
