//! The deciding part: `step(now, event) -> actions`. Every map here is bounded by the resources of the region or by
//! [`Options`].

mod admission;
mod event;
mod external;
mod gateways;
mod hello;
mod in_force;
mod labels;
mod learned;
mod memory;
mod place;
mod readout;
mod router_ports;
mod routing;
mod security;
mod session;
mod shared;
mod status;
mod strangers;
mod trace;
mod underlay;
mod view;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use alcor_dataplane::RowKey;
use alcor_model::{Change, Host, Id, Kind, Network, Port, Resource, ResourceKey, Revision, Router, Subnet};
use alcor_southbound::frame::FromNcm;

use self::{
    admission::Admission,
    external::FloatingView,
    gateways::{Fleet, Leaving, Mends},
    learned::Lingering,
    routing::RoutingView,
    security::SecurityView,
    session::{Next, Outgoing, Session},
    shared::Shared,
    status::HostStatus,
    strangers::Strangers,
    view::NetworkView,
};

pub use self::{
    event::{Action, Depths, Event, PortReport, SessionId, Work},
    gateways::{
        GRACE, HEARTBEAT_INTERVAL, HOLD_DOWN_MAX, HOLD_DOWN_MIN, LOAD_FRESH, MEND_MAX, MEND_MIN, PULSE,
        SILENCE_MAX,
    },
    trace::TraceInputs,
    underlay::MAX_BLOCKS,
};
use crate::directory::{Directory, Limits, Writer};

/// Both clocks at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Time since the NCM started, never backwards.
    pub since_start: Duration,
    /// Microseconds since the Unix epoch.
    pub unix_us: u64,
}

/// Bounds of an NCM.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How often agents say that they are there.
    pub heartbeat_interval: Duration,
    /// A host that was not heard for so long is not alive.
    pub heartbeat_timeout: Duration,
    /// Deltas sent to one host and not yet receipted.
    pub window_deltas: usize,
    /// Rows waiting for one host; more turn into a resync.
    pub queue_rows: usize,
    /// Rows in one message.
    pub message_rows: usize,
    /// Deletions kept per network for hosts that come back; older ones make a snapshot necessary.
    pub tombstones: usize,
    /// Snapshots that are made and on their way at once, over all hosts; the others wait in the order in which they came. Those of
    /// networks that a snapshot of the same host waits for are made besides.
    pub snapshots_at_once: usize,
    /// Hosts times neighbours up to which every host of a network is told of every neighbour. Beyond it hosts ask for what they
    /// use, until it is less than half of this.
    pub eager_rows_max: usize,
    /// What hosts may ask.
    pub limits: Limits,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            heartbeat_interval: Duration::from_secs(2),
            heartbeat_timeout: Duration::from_secs(7),
            window_deltas: 32,
            queue_rows: 50_000,
            message_rows: 2_000,
            tombstones: 4_096,
            snapshots_at_once: 64,
            eager_rows_max: 65_536,
            limits: Limits::default(),
        }
    }
}

/// The kinds of rows that an NCM needs, in an order in which they can be loaded. Changes of others are of no use to it.
pub const KINDS: &[Kind] = &[
    Kind::Host,
    Kind::HostRuntime,
    Kind::Network,
    Kind::Subnet,
    Kind::AddressGroup,
    Kind::SecurityGroup,
    Kind::SecurityGroupRule,
    Kind::Label,
    Kind::Port,
    Kind::Router,
    Kind::FloatingIp,
    Kind::GatewayNode,
];

/// Rows for one host and network, collected while the changes of one step are worked through.
#[derive(Debug, Default)]
struct Pending {
    rows: Vec<view::KeyedRow>,
    /// The row of the network itself changed; made when all changes are worked through.
    network: bool,
    /// Routers whose rows changed; made then, too.
    routers: BTreeSet<Id<Router>>,
    /// The host is new in the network: a snapshot instead of rows.
    snapshot: bool,
    /// The host left the network.
    forget: bool,
    /// It may have rows of the network already, from other times. Where a snapshot would not take them away it is to forget them
    /// before.
    afresh: bool,
}

impl Pending {
    /// Of a floating IP the host that is to answer for it is told first, then the one that is to do so no more, then gateways.
    fn turn(&self, is_gateway: bool) -> u8 {
        let any = |wanted: fn(&view::KeyedRow) -> bool| self.rows.iter().any(wanted);
        let floats = |row: &view::KeyedRow| matches!(row.key, RowKey::FloatingIp(..));
        let stops = |row: &view::KeyedRow| row.gone && matches!(row.key, RowKey::FloatingIp(..));
        match is_gateway {
            true if any(floats) => 2,
            _ if self.forget || any(stops) => 1,
            _ => 0,
        }
    }
}

#[derive(Debug)]
struct HostEntry {
    /// The region's row, once there is one.
    row: Option<Arc<Host>>,
    /// It is a gateway: none of what is only of hosts is said of it.
    is_gateway: bool,
    session: Option<Session>,
    status: HostStatus,
    /// When a gateway is sent again what it refused rows of.
    mends: Mends,
}

/// The state machine.
#[derive(Debug)]
pub struct Ncm {
    options: Options,
    networks: BTreeMap<Id<Network>, NetworkView>,
    /// Where each port and subnet lies, to find the view from an id alone.
    port_networks: BTreeMap<Id<Port>, Id<Network>>,
    subnet_networks: BTreeMap<Id<Subnet>, Id<Network>>,
    security: SecurityView,
    routing: RoutingView,
    floating: FloatingView,
    fleet: Fleet,
    /// Gateways that are to forget networks, in the order in which they are.
    leaving: Leaving,
    /// Hosts and gateways, by name.
    hosts: BTreeMap<String, HostEntry>,
    /// Those of them that the region has no row of.
    strangers: Strangers,
    sessions: BTreeMap<SessionId, String>,
    /// In which networks each host is interested.
    host_networks: BTreeMap<String, BTreeSet<Id<Network>>>,
    /// What hosts may ask for; written here only.
    directory: Writer,
    /// Networks that were learned when a whole new state came.
    were_learned: BTreeSet<Id<Network>>,
    /// A whole new state is being written: nothing is sent, nothing weighed.
    is_loading: bool,
    /// Hosts that ports have left, in the order in which that is forgotten.
    lingering: VecDeque<Lingering>,
    /// The host whose learned addresses were looked at last.
    swept: usize,
    /// Networks in which hosts settle, with when to look at numbers that rest there.
    settling: BTreeSet<(Duration, Id<Network>)>,
    admission: Admission,
    /// The time of the step, since the NCM started.
    clock: Duration,
    pending: BTreeMap<(String, Id<Network>), Pending>,
    /// Networks with labels that rest, in which something has happened since the last tick.
    resting: BTreeSet<Id<Network>>,
    /// Hosts that may have rows of a network, as `HostStatus` has it host by host.
    knowers: BTreeMap<Id<Network>, BTreeSet<String>>,
    /// Registered hosts that have not said hello since the NCM started: nobody knows what they still hold.
    unheard: BTreeSet<String>,
    /// Hosts of which the region keeps something else than they say, as they are told at the next tick: not at once, so that two
    /// NCMs of one name's two agents do not chase each other.
    disputed: BTreeSet<String>,
    revision: Revision,
    work: Work,
}

impl Ncm {
    /// An NCM that knows nothing yet.
    pub fn new(options: Options) -> Self {
        Self {
            options,
            networks: BTreeMap::new(),
            port_networks: BTreeMap::new(),
            subnet_networks: BTreeMap::new(),
            security: SecurityView::default(),
            routing: RoutingView::default(),
            floating: FloatingView::default(),
            fleet: Fleet::default(),
            leaving: Leaving::new(),
            hosts: BTreeMap::new(),
            strangers: Strangers::default(),
            sessions: BTreeMap::new(),
            host_networks: BTreeMap::new(),
            directory: Directory::new(options.limits).1,
            were_learned: BTreeSet::new(),
            is_loading: false,
            lingering: VecDeque::new(),
            swept: 0,
            settling: BTreeSet::new(),
            admission: Admission::default(),
            clock: Duration::ZERO,
            pending: BTreeMap::new(),
            resting: BTreeSet::new(),
            knowers: BTreeMap::new(),
            unheard: BTreeSet::new(),
            disputed: BTreeSet::new(),
            revision: Revision::ZERO,
            work: Work::default(),
        }
    }

    /// The region's revision that the views are of.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// Whether there are gateways to look after by [`Event::Pulse`].
    pub fn has_gateways(&self) -> bool {
        !self.fleet.is_empty()
    }

    /// What hosts may ask for, from any thread.
    pub fn directory(&self) -> &Arc<Directory> {
        self.directory.directory()
    }

    /// The region is at this commit: what came after the last change that was told is none of an NCM's business.
    pub fn reached(&mut self, revision: Revision) {
        self.revision = self.revision.max(revision);
    }

    /// How full it is; looks at every host.
    pub fn depths(&self) -> Depths {
        let hosts = || self.hosts.values().filter(|entry| !entry.is_gateway);
        let sessions = self.hosts.values().filter_map(|entry| entry.session.as_ref());
        let (gateways, gateways_in_use) = self.fleet.counts();
        Depths {
            hosts: hosts().count(),
            sessions: hosts().filter(|entry| entry.session.is_some()).count(),
            queued: sessions.map(Session::queued).sum(),
            gateways,
            gateways_in_use,
        }
    }

    /// Takes an event; gives what to do, in order, and what it cost.
    pub fn step(&mut self, now: Now, event: Event) -> (Vec<Action>, Work) {
        self.work = Work::default();
        self.clock = now.since_start;
        let mut actions = Vec::new();
        match event {
            Event::Changes {
                changes,
                committed_us,
            } => {
                let committed_us = if committed_us == 0 {
                    now.unix_us
                } else {
                    committed_us
                };
                for change in changes {
                    if let Some(name) = self.deleted(&change) {
                        self.end_session_of(&name, &mut actions);
                    }
                    self.change(change);
                }
                self.flush(now, committed_us, &mut actions);
            }
            Event::Snapshot { revision, rows } => {
                let before = self.registered();
                self.load(revision, rows);
                for name in before.difference(&self.registered()) {
                    self.end_session_of(name, &mut actions);
                }
                self.strangers_after_load(&before);
                self.flush(now, now.unix_us, &mut actions);
            }
            Event::Hello { session, hello } => self.hello(now, session, hello, &mut actions),
            Event::Message { session, body } => self.message(now, session, body, &mut actions),
            Event::Closed { session } => self.closed(session),
            Event::Tick => self.tick(now, &mut actions),
            Event::Pulse => self.pulse(),
        }
        if !self.pending.is_empty() {
            // What a word of a gateway leads to for others.
            self.flush(now, now.unix_us, &mut actions);
        }
        self.admit(now, &mut actions);
        (actions, self.work)
    }

    /// The hosts that the region knows.
    fn registered(&self) -> BTreeSet<String> {
        let hosts = self.hosts.iter().filter(|(_, entry)| entry.row.is_some());
        hosts.map(|(name, _)| name.clone()).collect()
    }

    /// Whom a change deletes, when that is a host or gateway.
    fn deleted(&self, change: &Change) -> Option<String> {
        match change {
            Change::Delete {
                key: ResourceKey::Host(name),
                ..
            } => Some(name.clone()),
            Change::Delete {
                key: ResourceKey::GatewayNode(id),
                ..
            } => self.fleet.name_of(*id).map(str::to_owned),
            _ => None,
        }
    }

    /// A host or gateway that was deleted and lives after all says hello again, and is registered by that.
    fn end_session_of(&mut self, name: &str, actions: &mut Vec<Action>) {
        let session = self.hosts.get(name).and_then(|entry| entry.session.as_ref());
        if let Some(session) = session.map(|session| session.id) {
            self.closed(session);
            actions.push(Action::Close {
                session,
                reason: "it was deleted".to_owned(),
            });
        }
    }

    /// Looks who of the gateways is still there, and who has kept networks long enough.
    fn pulse(&mut self) {
        self.fleet.pulse(self.clock);
        if !self.fleet.is_empty() {
            self.judge_gateways();
            self.end_of_service();
        }
    }

    fn change(&mut self, change: Change) {
        self.revision = self.revision.max(change.revision());
        match change {
            Change::Put(Resource::Host(row)) => self.put_host(row),
            Change::Put(Resource::HostRuntime(row)) => self.put_host_runtime(row),
            Change::Put(Resource::Network(row)) => self.put_network(row),
            Change::Put(Resource::Subnet(row)) => self.put_subnet(row),
            Change::Put(Resource::Port(row)) => self.put_port(row),
            Change::Delete {
                key: ResourceKey::Host(name),
                revision,
            } => self.delete_host(&name, revision),
            Change::Delete {
                key: ResourceKey::Network(id),
                ..
            } => self.delete_network(id),
            Change::Delete {
                key: ResourceKey::Subnet(id),
                revision,
            } => self.delete_subnet(id, revision),
            Change::Delete {
                key: ResourceKey::Port(id),
                revision,
            } => self.delete_port(id, revision),
            Change::Put(Resource::SecurityGroup(row)) => self.put_security_group(row),
            Change::Put(Resource::SecurityGroupRule(row)) => self.put_rule(row),
            Change::Put(Resource::AddressGroup(row)) => self.put_address_group(row),
            Change::Put(Resource::Label(row)) => self.put_label(row),
            Change::Put(Resource::Router(row)) => self.put_router(row),
            Change::Delete {
                key: ResourceKey::Router(id),
                revision,
            } => self.delete_router(id, revision),
            Change::Delete {
                key: ResourceKey::SecurityGroup(id),
                ..
            } => self.delete_security_group(id),
            Change::Delete {
                key: ResourceKey::SecurityGroupRule(id),
                revision,
            } => self.delete_rule(id, revision),
            Change::Delete {
                key: ResourceKey::AddressGroup(id),
                ..
            } => self.delete_address_group(id),
            Change::Delete {
                key: ResourceKey::Label(id),
                revision,
            } => self.delete_label(id, revision),
            Change::Put(Resource::FloatingIp(row)) => self.put_floating_ip(row),
            Change::Delete {
                key: ResourceKey::FloatingIp(id),
                revision,
            } => self.delete_floating_ip(id, revision),
            Change::Put(Resource::GatewayNode(row)) => self.put_gateway_node(row),
            Change::Delete {
                key: ResourceKey::GatewayNode(id),
                revision,
            } => self.delete_gateway_node(id, revision),
            // What hosts reported, and what only the API knows: nothing that hosts must have follows from it.
            Change::Put(_) | Change::Delete { .. } => {}
        }
    }

    /// Starts anew from a full state. What was deleted meanwhile has left no trace and no revision, so nobody can resume
    /// from before: every connected host gets snapshots of its networks, and so does who comes with what it was told before,
    /// which may have labels of neighbours that are older than this NCM's memory.
    fn load(&mut self, revision: Revision, rows: Vec<Resource>) {
        let mut concerned = self.interests();
        let known: BTreeSet<Id<Network>> = self.networks.keys().copied().collect();
        let learned = self.networks.iter().filter(|(_, view)| view.learned);
        self.were_learned = learned.map(|(id, _)| *id).collect();
        let eager = self.networks.iter().filter(|(_, view)| !view.learned);
        let told: Vec<(Id<Network>, Vec<IpAddr>)> = eager
            .map(|(id, view)| {
                let fixed = view.ports.values().flat_map(|port| &port.fixed_ips);
                (*id, fixed.map(|fixed| fixed.ip_address).collect())
            })
            .collect();
        let lingering = self.networks.iter().flat_map(|(id, view)| {
            let left = view
                .left
                .hosts()
                .filter(|host| !view.interested.contains_key(*host));
            left.map(|host| (host.clone(), *id))
        });
        let lingering: BTreeSet<(String, Id<Network>)> = lingering.collect();
        self.clear();
        for row in rows {
            self.change(Change::Put(row));
        }
        let max = self.options.eager_rows_max;
        for (id, view) in &mut self.networks {
            (view.revision, view.tombstones_from) = (revision, revision);
            (view.loaded, view.underlay_revision) = (revision, revision);
            view.service.loaded(revision);
            (view.learned, view.mode_since) = (view.is_to_be_learned(max), revision);
            if !view.retired.is_empty() {
                self.resting.insert(*id);
            }
        }
        self.security.loaded(revision);
        // The region may have lost what it was told last.
        let lost = self
            .hosts
            .iter()
            .filter(|(_, entry)| entry.row.is_none() && entry.session.is_some());
        self.disputed.extend(lost.map(|(name, _)| name.clone()));
        self.revision = revision;
        self.floating.loaded(revision);
        self.is_loading = false;
        self.fleet.loaded();
        self.judge_gateways();
        self.assign_all(revision);
        for (network, addresses) in told {
            self.keep_told(network, &addresses);
        }
        self.pending.clear();
        concerned.extend(self.interests());
        for (host, network) in concerned {
            let view = self.networks.get(&network);
            let has = |view: &NetworkView| view.interested.contains_key(&host) || view.service.has(&host);
            let interested = view.is_some_and(has);
            if !interested {
                self.forget_learned(&host, network);
            }
            let afresh = lingering.contains(&(host.clone(), network));
            if let Some(pending) = self.pend(&host, network) {
                (pending.snapshot, pending.forget) = (interested, !interested);
                pending.afresh = afresh;
            }
        }
        for network in known.into_iter().filter(|id| !self.networks.contains_key(id)) {
            self.directory.forget_network(network);
        }
        self.were_learned.clear();
        self.directory.loaded();
    }

    /// Forgets the region, not who is connected nor what they have learned.
    fn clear(&mut self) {
        self.is_loading = true;
        self.directory.load();
        self.networks.clear();
        self.host_networks.clear();
        self.lingering.clear();
        self.port_networks.clear();
        self.subnet_networks.clear();
        self.security = SecurityView::default();
        self.routing = RoutingView::default();
        self.floating = FloatingView::default();
        self.fleet.clear();
        self.leaving.clear();
        for entry in self.hosts.values_mut() {
            entry.row = None;
        }
        self.unheard.clear();
    }

    /// Which host is interested in which network, or is to forget it soon; and which gateway has it.
    fn interests(&self) -> BTreeSet<(String, Id<Network>)> {
        let of_network = |id: &Id<Network>| {
            let hosts = self.concerned(*id).into_iter();
            hosts.map(|host| (host, *id)).collect::<Vec<_>>()
        };
        self.networks.keys().flat_map(of_network).collect()
    }

    fn host_entry(&mut self, name: &str) -> &mut HostEntry {
        self.hosts.entry(name.to_owned()).or_insert_with(|| {
            if self.fleet.row(name).is_none() {
                self.strangers.begin(name, self.clock);
            }
            HostEntry {
                row: None,
                is_gateway: false,
                session: None,
                status: HostStatus::default(),
                mends: Mends::default(),
            }
        })
    }

    /// Whether a gateway is here under a name, or was.
    fn is_gateway(&self, name: &str) -> bool {
        self.hosts.get(name).is_some_and(|entry| entry.is_gateway)
    }

    /// The tunnel address of a host, when it has registered, and the revision that last changed it.
    fn tunnel(&self, host: &str) -> Option<(IpAddr, Revision)> {
        let row = self.hosts.get(host)?.row.as_ref()?;
        Some((row.tunnel_ip, row.revision))
    }

    /// Rows for a host, unless nobody would take them: a host without a session gets a resync when it comes, and all get one when
    /// the region is loaded.
    fn pend(&mut self, host: &str, network: Id<Network>) -> Option<&mut Pending> {
        if self.is_loading {
            return None;
        }
        self.hosts.get(host)?.session.as_ref()?;
        Some(self.pending.entry((host.to_owned(), network)).or_default())
    }

    /// Turns what was collected into messages.
    fn flush(&mut self, now: Now, committed_us: u64, actions: &mut Vec<Action>) {
        // In the order in which it is their turn.
        let (mut touched, mut seen) = (Vec::new(), BTreeSet::new());
        // What asks for labels of neighbours goes after all that may say such labels, in whatever network.
        let mut asking = Vec::new();
        let mut shared = Shared::default();
        let pending = std::mem::take(&mut self.pending);
        let mut pending: Vec<_> = pending.into_iter().collect();
        pending.sort_by_cached_key(|((host, _), pending)| pending.turn(self.is_gateway(host)));
        for ((host, network), mut pending) in pending {
            self.complete_rows(&mut shared, &host, network, &mut pending);
            let is_here =
                |view: &&NetworkView| view.interested.contains_key(&host) || view.service.has(&host);
            let view = self.networks.get(&network).filter(is_here);
            // Who is not here any more is told of what has left it, and complete to nothing.
            let revision = view.map_or(Revision::ZERO, |view| view.revision);
            // Gateways have all neighbours of learned networks, too.
            let learned = self.is_learned(network) && !self.is_gateway(&host);
            // The change that brings a host in may also be the one that makes the network learned.
            let afresh = pending.afresh && learned;
            if pending.forget || afresh {
                self.forget_learned(&host, network);
            }
            if pending.forget {
                self.has_all_no_more(&host, network);
            }
            let options = self.options;
            let Some(session) = self.hosts.get_mut(&host).and_then(|entry| entry.session.as_mut()) else {
                continue;
            };
            if pending.forget {
                session.forget(network, committed_us);
            } else if pending.snapshot {
                if afresh {
                    session.forget(network, committed_us);
                }
                session.resync(network, learned);
            } else {
                let peers = || self.routing.peers(network);
                let (first, then) = Outgoing::changes(network, revision, pending.rows, peers, committed_us);
                session.push(&options, first);
                asking.extend(then.map(|delta| (host.clone(), delta)));
            }
            if seen.insert(host.clone()) {
                touched.push(host);
            }
        }
        for (host, delta) in asking {
            self.with_session(&host, |session, options| session.push(options, delta));
        }
        self.work.hosts_touched += touched.len() as u64;
        for host in touched {
            self.pump(now, &host, actions);
        }
    }

    /// Adds the rows that are made when all changes are worked through.
    fn complete_rows(&self, shared: &mut Shared, host: &str, network: Id<Network>, pending: &mut Pending) {
        let Some(view) = self.networks.get(&network) else {
            return;
        };
        if pending.network {
            pending.rows.extend(shared.network(self, network, host));
        }
        let routers = std::mem::take(&mut pending.routers);
        let asks = !routers.is_empty() && view.asks(host, network);
        let rows = routers
            .into_iter()
            .filter_map(|id| shared.router(self, network, id));
        pending.rows.extend(rows.map(|row| row.asking(asks)));
    }

    /// Sends what the host's window allows.
    fn pump(&mut self, now: Now, host: &str, actions: &mut Vec<Action>) {
        let Some(mut session) = self.hosts.get_mut(host).and_then(|entry| entry.session.take()) else {
            return;
        };
        let mut met = Vec::new();
        while session.has_room(&self.options) {
            let (id, at_once) = (session.id, self.options.snapshots_at_once);
            let may_snapshot = |network| self.admission.admits(id, network, at_once);
            match session.next(now, may_snapshot) {
                Some(Next::Delta(network, message)) => {
                    let first = session.tells(network) && self.host_entry(host).status.is_told(network);
                    met.extend(first.then_some(network));
                    self.work.deltas += 1;
                    self.work.rows_sent += message.rows.len() as u64;
                    self.work.rows_encoded += message.encode_rows() as u64;
                    self.work.bytes += message.encoded_len() as u64;
                    actions.push(Action::Send {
                        session: session.id,
                        message: FromNcm::Delta(message),
                    });
                }
                Some(Next::More(network, rest)) => {
                    let (part, rest) = self.part_of_snapshot(network, rest, Vec::new(), now.unix_us);
                    session.push_part(network, part, rest);
                }
                Some(Next::Snapshot(network)) if self.is_gateway(host) => {
                    let (part, rest) = self.snapshot_of_gateway(host, network, now.unix_us);
                    if part.is_snapshot() {
                        self.admission.begin(session.id, network, self.clock);
                    }
                    self.host_entry(host).status.resyncs += 1;
                    self.work.resyncs += 1;
                    session.push_part(network, part, rest);
                }
                Some(Next::Snapshot(network)) => {
                    let parts = self.snapshot_of(host, network, now.unix_us);
                    if parts.iter().any(Outgoing::is_snapshot) {
                        self.admission.begin(session.id, network, self.clock);
                    }
                    self.host_entry(host).status.resyncs += 1;
                    self.work.resyncs += 1;
                    session.push_snapshot(network, parts);
                }
                None => {
                    if session.waits_for_snapshot() {
                        self.admission.wait(session.id);
                    }
                    break;
                }
            }
        }
        self.admission
            .settle(session.id, |network| session.is_in_snapshot(network));
        self.host_entry(host).session = Some(session);
        for network in met {
            self.completed(host, network);
        }
    }

    /// Makes snapshots for those that wait, as many as there may be.
    fn admit(&mut self, now: Now, actions: &mut Vec<Action>) {
        while let Some(session) = self.admission.next(self.options.snapshots_at_once) {
            if let Some(host) = self.sessions.get(&session).cloned() {
                self.pump(now, &host, actions);
            }
        }
    }

    fn closed(&mut self, session: SessionId) {
        self.admission.close(session);
        if let Some(host) = self.sessions.remove(&session)
            && let Some(entry) = self.hosts.get_mut(&host)
            && entry.session.as_ref().is_some_and(|known| known.id == session)
        {
            entry.session = None;
            entry.status.changed = true;
            self.strangers.closed(&host, self.clock);
            if entry.is_gateway {
                self.fleet.drop_stranger(&host);
            }
            if let Some(index) = self.directory.known(&host) {
                self.directory.close(index);
            }
        }
    }

    /// Tells the region again what hosts say of themselves, where it keeps something else.
    fn settle_disputes(&mut self, actions: &mut Vec<Action>) {
        for name in std::mem::take(&mut self.disputed) {
            let entry = self.hosts.get(&name);
            let said = entry.and_then(|entry| Some((entry, entry.session.as_ref()?.word.as_ref()?)));
            let Some((entry, word)) = said else {
                continue;
            };
            let may_be_registered = entry.status.to_forget.is_empty();
            if may_be_registered && !entry.row.as_ref().is_some_and(|row| word.is_in(row)) {
                let word = word.clone();
                actions.push(Action::RegisterHost { name, word });
            }
        }
    }

    fn tick(&mut self, now: Now, actions: &mut Vec<Action>) {
        self.settle_disputes(actions);
        self.forget_strangers();
        self.admission.tick(self.clock);
        self.sweep_learned();
        self.end_of_lingering();
        self.pulse();
        self.mend_refusals();
        self.register_gateways(actions);
        self.flush(now, now.unix_us, actions);
        self.report_router_ports(actions);
        let forgotten = self.forgotten_labels();
        if !forgotten.is_empty() {
            actions.push(Action::ReleaseLabels(forgotten));
        }
        let words = self.floating_ip_words();
        if !words.is_empty() {
            actions.push(Action::NoteFloatingIps(words));
        }
        let due = self.due_host_runtimes(now);
        if !due.is_empty() {
            actions.push(Action::NoteHosts(due));
        }
        let timeout = self.options.heartbeat_timeout;
        let silent = |entry: &HostEntry| {
            let session = entry.session.as_ref()?;
            (now.since_start.saturating_sub(session.heard_at) > timeout).then_some(session.id)
        };
        let silent: Vec<_> = self.hosts.values().filter_map(silent).collect();
        for session in silent {
            self.closed(session);
            actions.push(Action::Close {
                session,
                reason: "no heartbeat".to_owned(),
            });
        }
    }
}

#[cfg(test)]
mod tests;
