//! Gateways: which set serves a network or a router's way out, and which members are in use. Values only: what follows for
//! hosts and gateways is in [`serving`], what a session of a gateway is told in [`rows`].
//!
//! A gateway is a member of its set as long as the region has its row, whether it lives or not: what sets serve does not move
//! because somebody is away for a moment. It is *in use* while it is heard, answers its fellows' probes and is not being drained.
//! In the rows of a network are those in use that have applied all of it.

mod judge;
mod load;
mod mend;
mod rows;
mod serving;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use alcor_dataplane::choice;
use alcor_dataplane_abi::gateway::{self, MAX_GATEWAYS};
use alcor_model::{GatewayNode, Id, Network, Router};

use self::judge::Falls;
pub use self::{
    judge::{HOLD_DOWN_MAX, HOLD_DOWN_MIN},
    load::LOAD_FRESH,
    mend::{MEND_MAX, MEND_MIN},
};
pub(super) use self::{
    mend::Mends,
    rows::has_use_of,
    serving::{Leaving, Service},
};

/// How often gateways say that they are there.
pub const HEARTBEAT_INTERVAL: Duration = Duration::from_millis(200);
/// A gateway that was not heard for longer is not in use.
pub const SILENCE_MAX: Duration = Duration::from_millis(600);
/// How often it is to be looked who is there.
pub const PULSE: Duration = Duration::from_millis(100);
/// When it was looked longer ago, the NCM was busy: what gateways said meanwhile still waits for it, and nobody is found silent because
/// of that.
const PULSE_LATE: Duration = Duration::from_millis(300);
/// How long gateways that were known before this NCM started count as in use until they say hello: longer than they wait at most
/// between two tries to connect. Counted from when it is first looked who is there, as nobody is heard while a state is loaded.
pub const GRACE: Duration = Duration::from_secs(3);
/// After how long the region is asked again to register a gateway.
const REGISTER_AGAIN: Duration = Duration::from_secs(5);
/// The set of gateways that name none.
pub(super) const DEFAULT_SET: &str = "default";

/// Why a gateway is in use, or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fitness {
    InUse,
    /// Not heard for longer than [`SILENCE_MAX`].
    Silent,
    /// An operator takes it out of use.
    Draining,
    /// More than half of its living fellows cannot reach it.
    Unreachable,
    /// It has fallen out of use again and again, and is not well for long enough yet.
    HeldDown,
    /// The region has no row of it, or one with another address or set than it says.
    Unregistered,
}

#[derive(Debug)]
struct Member {
    /// The region's row, once there is one.
    row: Option<Arc<GatewayNode>>,
    /// What it is to have, and what it is soon to forget.
    networks: BTreeSet<Id<Network>>,
    heard_at: Option<Duration>,
    /// Not heard yet: until then it counts as if it were. Without end until it is first looked who is there.
    expected_until: Duration,
    /// Its set and address, as it said in its hello.
    said: Option<(String, IpAddr)>,
    /// When the region was last asked to register it.
    asked_at: Duration,
    /// Fellows that it cannot reach, as it said last.
    unreachable: BTreeSet<IpAddr>,
    /// As it was last decided.
    fitness: Fitness,
    falls: Falls,
    /// Its load, as it said in its present session.
    load: Option<load::Heard>,
}

impl Member {
    /// Whether the region has it as it said.
    fn is_registered(&self) -> bool {
        let row = self.row.as_ref().map(|row| (&row.set, row.tunnel_ip));
        let said = self.said.as_ref();
        said.is_none_or(|(set, tunnel_ip)| row == Some((set, *tunnel_ip)))
    }

    /// The fellows that it says it cannot reach.
    fn accused(&self) -> impl Iterator<Item = IpAddr> {
        let own = self.row.as_ref().map(|row| row.tunnel_ip);
        let unreachable = self.unreachable.iter().copied();
        unreachable.filter(move |ip| Some(*ip) != own)
    }

    fn is_heard(&self, now: Duration) -> bool {
        match self.heard_at {
            Some(at) => now.saturating_sub(at) <= SILENCE_MAX,
            None => now < self.expected_until,
        }
    }
}

/// All gateways that are registered or have been here.
#[derive(Debug, Default)]
pub(super) struct Fleet {
    members: BTreeMap<String, Member>,
    names: BTreeMap<Id<GatewayNode>, String>,
    by_address: BTreeMap<IpAddr, String>,
    /// The registered members of each set; none without.
    sets: BTreeMap<String, BTreeSet<String>>,
    /// The NCM has had a state of the region: who is not heard from now on is not expected either.
    is_loaded: bool,
    /// It was looked since: those that are expected have a time until when.
    has_grace: bool,
    /// When it was looked last who is there.
    pulsed_at: Duration,
    /// The same, when it was not late: silence is judged as of then.
    looked_at: Duration,
}

/// How a change of a row changes who serves what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct FleetChange {
    /// A set has another member, or one less.
    pub members: bool,
    /// Its tunnel address is another one.
    pub address: bool,
}

fn address_key(ip: IpAddr) -> u64 {
    gateway::key(&choice::bytes(ip))
}

fn id_key<T>(id: Id<T>) -> u64 {
    gateway::key(id.uuid().as_bytes())
}

/// The key of a set: of all bytes of its name, and its length.
fn name_key(name: &str) -> u64 {
    let chunk = |part: &[u8]| {
        let mut bytes = [0; 16];
        bytes[..part.len()].copy_from_slice(part);
        gateway::key(&bytes)
    };
    let parts = name.as_bytes().chunks(16).map(chunk);
    parts.fold(name.len() as u64, gateway::weight)
}

impl Fleet {
    fn set_with(&self, key: u64) -> Option<&str> {
        let at = gateway::choose(key, self.sets.keys().map(|name| name_key(name)))?;
        self.sets.keys().nth(at).map(String::as_str)
    }

    /// The set that serves a network on demand, if there is any set.
    pub(super) fn set_of_network(&self, id: Id<Network>) -> Option<&str> {
        self.set_with(id_key(id))
    }

    /// The set that serves a router's way out.
    pub(super) fn set_of_router(&self, id: Id<Router>) -> Option<&str> {
        self.set_with(id_key(id))
    }

    /// The registered members of a set.
    pub(super) fn members_of(&self, set: &str) -> impl Iterator<Item = &String> {
        self.sets.get(set).into_iter().flatten()
    }

    /// Whether a name is that of a gateway.
    pub(super) fn has(&self, name: &str) -> bool {
        self.members.contains_key(name)
    }

    /// Whether a gateway is registered.
    pub(super) fn row(&self, name: &str) -> Option<&Arc<GatewayNode>> {
        self.members.get(name)?.row.as_ref()
    }

    /// The name of a registered gateway.
    pub(super) fn name_of(&self, id: Id<GatewayNode>) -> Option<&str> {
        self.names.get(&id).map(String::as_str)
    }

    /// The registered gateway with a tunnel address.
    pub(super) fn at(&self, address: IpAddr) -> Option<&String> {
        self.by_address.get(&address)
    }

    /// Whether there is any gateway to look after.
    pub(super) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    pub(super) fn networks(&self, name: &str) -> BTreeSet<Id<Network>> {
        let member = self.members.get(name);
        member.map(|member| member.networks.clone()).unwrap_or_default()
    }

    /// A gateway is to have a network, or has nothing to do with it any more.
    fn serves(&mut self, name: &str, network: Id<Network>, serves: bool) {
        if let Some(member) = self.members.get_mut(name) {
            match serves {
                true => member.networks.insert(network),
                false => member.networks.remove(&network),
            };
        }
    }

    fn member(&mut self, name: &str) -> &mut Member {
        self.members.entry(name.to_owned()).or_insert_with(|| Member {
            row: None,
            networks: BTreeSet::new(),
            heard_at: None,
            expected_until: Duration::ZERO,
            said: None,
            asked_at: Duration::ZERO,
            unreachable: BTreeSet::new(),
            fitness: Fitness::Unregistered,
            falls: Falls::default(),
            load: None,
        })
    }

    /// A row of the region, alone or with all others. Gateways of whom the region knows when the NCM starts are expected to be
    /// there.
    pub(super) fn put(&mut self, row: Arc<GatewayNode>, is_loading: bool) -> FleetChange {
        let old = self.take_row(row.id);
        let change = FleetChange {
            members: old.as_ref().is_none_or(|old| old.set != row.set),
            address: old.as_ref().is_none_or(|old| old.tunnel_ip != row.tunnel_ip),
        };
        self.names.insert(row.id, row.name.clone());
        self.by_address.insert(row.tunnel_ip, row.name.clone());
        let set = self.sets.entry(row.set.clone()).or_default();
        set.insert(row.name.clone());
        let expected_until = match is_loading && !self.is_loaded {
            true => Duration::MAX,
            false => Duration::ZERO,
        };
        let member = self.member(&row.name);
        member.expected_until = member.expected_until.max(expected_until);
        member.row = Some(row);
        change
    }

    /// Forgets a row; gives it.
    pub(super) fn take_row(&mut self, id: Id<GatewayNode>) -> Option<Arc<GatewayNode>> {
        let name = self.names.remove(&id)?;
        let row = self.members.get_mut(&name)?.row.take()?;
        self.by_address.remove(&row.tunnel_ip);
        if let Some(set) = self.sets.get_mut(&row.set) {
            set.remove(&name);
            if set.is_empty() {
                self.sets.remove(&row.set);
            }
        }
        Some(row)
    }

    /// All rows of a state of the region are there.
    pub(super) fn loaded(&mut self) {
        self.is_loaded = true;
    }

    /// A gateway that has no session and of which the region has no row is nobody.
    pub(super) fn drop_stranger(&mut self, name: &str) {
        if self.row(name).is_none() {
            self.members.remove(name);
        }
    }

    /// Forgets the region's rows, not who was heard.
    pub(super) fn clear(&mut self) {
        (self.names, self.by_address, self.sets) = Default::default();
        for member in self.members.values_mut() {
            (member.row, member.networks) = (None, BTreeSet::new());
        }
    }

    /// A gateway was heard; gives whether anything about who is in use may follow from it.
    pub(super) fn heard(&mut self, name: &str, now: Duration) -> bool {
        let member = self.member(name);
        member.heard_at = Some(now);
        !matches!(member.fitness, Fitness::InUse | Fitness::Draining)
    }

    /// A gateway says hello; gives whether the region knows it otherwise.
    pub(super) fn said(&mut self, name: &str, now: Duration, set: &str, tunnel_ip: IpAddr) -> bool {
        let member = self.member(name);
        (member.heard_at, member.asked_at) = (Some(now), now);
        member.unreachable.clear();
        member.load = None;
        member.said = Some((set.to_owned(), tunnel_ip));
        !member.is_registered()
    }

    /// Those that were here lately and that the region should have registered some time ago.
    pub(super) fn unregistered(&mut self, now: Duration) -> Vec<(String, String, IpAddr)> {
        let is_due = |member: &Member| {
            let asked = now.saturating_sub(member.asked_at);
            !member.is_registered() && member.is_heard(now) && asked >= REGISTER_AGAIN
        };
        let due = self.members.iter_mut().filter(|(_, member)| is_due(member));
        due.filter_map(|(name, member)| {
            member.asked_at = now;
            let (set, tunnel_ip) = member.said.clone()?;
            Some((name.clone(), set, tunnel_ip))
        })
        .collect()
    }

    /// A gateway says which fellows it cannot reach; gives whether it said otherwise before. What is no gateway's address is
    /// not kept, so that this is bounded by the gateways there are.
    pub(super) fn cannot_reach(&mut self, name: &str, addresses: impl Iterator<Item = IpAddr>) -> bool {
        let unreachable = addresses.filter(|ip| self.by_address.contains_key(ip)).collect();
        let member = self.member(name);
        let changed = member.unreachable != unreachable;
        member.unreachable = unreachable;
        changed
    }

    /// Whether a gateway is in use, or would be.
    pub(super) fn in_use(&self, name: &str) -> bool {
        let member = self.members.get(name);
        member.is_some_and(|member| member.fitness == Fitness::InUse)
    }

    /// Whether a gateway has not been heard since the NCM started, and counts all the same.
    pub(super) fn is_expected(&self, name: &str, now: Duration) -> bool {
        let member = self.members.get(name);
        member.is_some_and(|member| member.heard_at.is_none() && now < member.expected_until)
    }

    /// It is looked who is there. When that is late the NCM was busy, and silence does not count until the next time.
    pub(super) fn pulse(&mut self, now: Duration) {
        if now.saturating_sub(self.pulsed_at) <= PULSE_LATE {
            self.looked_at = now;
        }
        if self.is_loaded && !self.has_grace {
            self.has_grace = true;
            for member in self.members.values_mut() {
                member.expected_until = member.expected_until.min(now + GRACE);
            }
        }
        self.pulsed_at = now;
    }

    /// The tunnel addresses of members, sorted; of more than rows may name those that want `key` most.
    fn addresses<'a>(&self, key: u64, members: impl Iterator<Item = &'a String>) -> Vec<IpAddr> {
        let rows = members.filter_map(|name| self.row(name));
        let mut addresses: Vec<_> = rows.map(|row| row.tunnel_ip).collect();
        if addresses.len() > MAX_GATEWAYS {
            addresses.sort_unstable_by_key(|ip| std::cmp::Reverse(gateway::weight(key, address_key(*ip))));
            addresses.truncate(MAX_GATEWAYS);
        }
        addresses.sort_unstable();
        addresses
    }

    /// Why hosts do not send by a gateway, if so; and whom it cannot reach.
    pub(super) fn why_not(&self, name: &str) -> (Option<&'static str>, Vec<IpAddr>) {
        let Some(member) = self.members.get(name) else {
            return (Some("it is not here"), Vec::new());
        };
        let reason = match member.fitness {
            Fitness::InUse => None,
            Fitness::Silent => Some("it is silent"),
            Fitness::Draining => Some("it is being drained"),
            Fitness::Unreachable => Some("gateways of its set cannot reach it"),
            Fitness::HeldDown => {
                Some("it has fallen out of use again and again, and is well for a short time only")
            }
            Fitness::Unregistered => Some("it is not registered as it says it is"),
        };
        (reason, member.unreachable.iter().copied().collect())
    }

    /// Whether a gateway was heard lately enough.
    pub(super) fn is_alive(&self, name: &str) -> bool {
        let member = self.members.get(name);
        member.is_some_and(|member| member.heard_at.is_some() && member.is_heard(self.looked_at))
    }

    /// How many gateways there are, and how many of them are in use.
    pub(super) fn counts(&self) -> (usize, usize) {
        let registered = self.names.len();
        let in_use = self.members.values();
        let in_use = in_use.filter(|member| member.fitness == Fitness::InUse);
        (registered, in_use.count())
    }
}
