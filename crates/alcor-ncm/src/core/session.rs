//! One agent's session: a window of deltas on their way, a bounded queue behind it, and networks that need a full
//! snapshot. Overflow of the queue turns into snapshots, so a slow host costs a bounded amount and nobody else.
//! Networks take turns, so that a burst in one does not delay the others of a host.
//!
//! **Labels of neighbours come before what asks for them**, also between networks: rules of one network match labels of ports in
//! its peers. So a delta with such a rule, or with a router by which rules reach other networks, names the peers, and is
//! held back until the host was sent all that was given for those before it. What is not given yet counts as well: as long as a
//! peer waits for a snapshot the delta waits, and what a snapshot has before its own rules is as old as can be. The rest of
//! the network waits behind the delta, so what is told of one network stays in order.
//!
//! Nobody waits for ever: what is held back waits only for what was given before it, and what a snapshot begins with waits for
//! nothing but room.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use alcor_dataplane::RowKey;
use alcor_model::{Id, Network, Port, Revision, effective::Timing, resource::HostWord};
use alcor_proto::v1;
use alcor_southbound::{
    convert::decode_id,
    frame::{Delta, SharedRow},
};

use super::{Now, Options, SessionId, view::KeyedRow};

/// After how long it is looked again whether an agent has taken its welcome.
const HELLO_PATIENCE: Duration = Duration::from_secs(1);

/// Which of an agent's sessions it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Opened {
    pub incarnation: u64,
    /// The number within the incarnation; 0 when the agent does not say.
    pub session: u64,
}

impl Opened {
    /// Whether it is newer than another one. Of sessions that do not say it, the one that comes later is.
    pub(super) fn follows(self, other: Self) -> bool {
        match self.incarnation.cmp(&other.incarnation) {
            Ordering::Equal => self.session == 0 || self.session > other.session,
            order => order.is_gt(),
        }
    }
}

/// One of the host's own rows in a delta: position, key, whether it is a tombstone, revision.
#[derive(Clone, Copy, Debug)]
pub(super) struct OwnRow {
    pub position: u32,
    pub key: RowKey,
    pub gone: bool,
    pub revision: Revision,
}

/// A delta before it has a sequence.
#[derive(Debug)]
pub(super) struct Outgoing {
    network: Id<Network>,
    revision: Revision,
    phase: v1::SnapshotPhase,
    rows: Vec<SharedRow>,
    own: Vec<OwnRow>,
    committed_us: u64,
    /// Whether a row of it asks for labels of neighbours.
    asks: bool,
    /// The networks that it asks in, besides its own.
    after: Vec<Id<Network>>,
    /// When it was given to the session, in the order of all networks.
    given: u64,
}

impl Outgoing {
    fn new(
        network: Id<Network>,
        revision: Revision,
        phase: v1::SnapshotPhase,
        rows: Vec<KeyedRow>,
        committed_us: u64,
    ) -> Self {
        let own = |(position, row): (usize, &KeyedRow)| {
            let position = u32::try_from(position).unwrap_or(u32::MAX);
            (!matches!(row.key, RowKey::Neighbour(..) | RowKey::Label(..))).then_some(OwnRow {
                position,
                key: row.key,
                gone: row.gone,
                revision: row.revision,
            })
        };
        let own = rows.iter().enumerate().filter_map(own).collect();
        let asks = rows.iter().any(|row| row.asks);
        let rows = rows.into_iter().map(|row| row.row).collect();
        Self {
            network,
            revision,
            phase,
            rows,
            own,
            committed_us,
            asks,
            after: Vec::new(),
            given: 0,
        }
    }

    /// Whether a row of it asks for labels of neighbours.
    pub(super) fn asks(&self) -> bool {
        self.asks
    }

    /// If it asks, it does so in these networks, too.
    pub(super) fn after(mut self, peers: &[Id<Network>]) -> Self {
        if self.asks {
            self.after = peers.to_vec();
        }
        self
    }

    pub(super) fn delta(
        network: Id<Network>,
        revision: Revision,
        rows: Vec<KeyedRow>,
        committed_us: u64,
    ) -> Self {
        Self::new(network, revision, v1::SnapshotPhase::Delta, rows, committed_us)
    }

    pub(super) fn forget(network: Id<Network>, committed_us: u64) -> Self {
        Self::new(
            network,
            Revision::ZERO,
            v1::SnapshotPhase::Forget,
            Vec::new(),
            committed_us,
        )
    }

    /// What changed, in no order: one delta, or when it asks in peers two. The first has what may say labels of neighbours and
    /// completes nothing; the second is to be given after the first ones of all networks.
    pub(super) fn changes(
        network: Id<Network>,
        revision: Revision,
        rows: Vec<KeyedRow>,
        peers: impl FnOnce() -> Vec<Id<Network>>,
        committed_us: u64,
    ) -> (Self, Option<Self>) {
        let asks = rows.iter().any(|row| row.asks);
        let peers = if asks { peers() } else { Vec::new() };
        if peers.is_empty() {
            // Within the network the order of keys does it.
            return (Self::delta(network, revision, rows, committed_us), None);
        }
        // What goes, goes with what takes its place.
        let is_first = |row: &KeyedRow| row.neighbour().is_some() && !row.gone;
        let (first, then) = rows.into_iter().partition(is_first);
        (
            Self::delta(network, Revision::ZERO, first, committed_us),
            Some(Self::delta(network, revision, then, committed_us).after(&peers)),
        )
    }

    /// Many rows in deltas of at most `message_rows`: the last one says what the host is complete to.
    pub(super) fn deltas(
        network: Id<Network>,
        revision: Revision,
        rows: Vec<KeyedRow>,
        peers: &[Id<Network>],
        message_rows: usize,
        committed_us: u64,
    ) -> Vec<Self> {
        let parts = cut(rows, peers, message_rows);
        let last = parts.len().saturating_sub(1);
        let part = |(index, rows)| {
            let revision = if index == last { revision } else { Revision::ZERO };
            Self::delta(network, revision, rows, committed_us).after(peers)
        };
        parts.into_iter().enumerate().map(part).collect()
    }

    /// One part of a snapshot; the revision is said by the last one.
    pub(super) fn part(
        network: Id<Network>,
        rest: &Rest,
        is_last: bool,
        rows: Vec<KeyedRow>,
        committed_us: u64,
    ) -> Self {
        let phase = match (!rest.has_begun, is_last) {
            (true, true) => v1::SnapshotPhase::Whole,
            (true, false) => v1::SnapshotPhase::Begin,
            (false, true) => v1::SnapshotPhase::End,
            (false, false) => v1::SnapshotPhase::Part,
        };
        let revision = if is_last { rest.revision } else { Revision::ZERO };
        Self::new(network, revision, phase, rows, committed_us)
    }

    fn is_forget(&self) -> bool {
        self.phase == v1::SnapshotPhase::Forget
    }

    /// Whether its rows count against the bound of what waits.
    fn is_counted(&self) -> bool {
        self.phase == v1::SnapshotPhase::Delta
    }

    /// Whether it is part of a snapshot.
    pub(super) fn is_snapshot(&self) -> bool {
        is_snapshot(self.phase)
    }

    /// The rows of a snapshot in messages of at most `message_rows`.
    pub(super) fn snapshot(
        network: Id<Network>,
        revision: Revision,
        rows: Vec<KeyedRow>,
        peers: &[Id<Network>],
        message_rows: usize,
        committed_us: u64,
    ) -> Vec<Self> {
        let chunks = cut(rows, peers, message_rows);
        let last = chunks.len().saturating_sub(1);
        let part = |(index, rows)| {
            let (phase, revision) = match index {
                0 if last == 0 => (v1::SnapshotPhase::Whole, revision),
                0 => (v1::SnapshotPhase::Begin, Revision::ZERO),
                index if index == last => (v1::SnapshotPhase::End, revision),
                _ => (v1::SnapshotPhase::Part, Revision::ZERO),
            };
            Self::new(network, revision, phase, rows, committed_us).after(peers)
        };
        chunks.into_iter().enumerate().map(part).collect()
    }
}

/// Rows in the order in which they can be applied, in parts of at most `message_rows`. If they may ask in peers, what does begins a
/// new part: the labels before it wait for nobody.
fn cut(mut rows: Vec<KeyedRow>, peers: &[Id<Network>], message_rows: usize) -> Vec<Vec<KeyedRow>> {
    let asks = rows.iter().position(|row| row.asks && !peers.is_empty());
    let then = rows.split_off(asks.unwrap_or(rows.len()));
    let mut parts = Vec::new();
    for rows in [rows, then] {
        let mut rows = rows.into_iter().peekable();
        while rows.peek().is_some() {
            parts.push(rows.by_ref().take(message_rows.max(1)).collect());
        }
    }
    parts
}

fn is_snapshot(phase: v1::SnapshotPhase) -> bool {
    !matches!(phase, v1::SnapshotPhase::Delta | v1::SnapshotPhase::Forget)
}

/// A delta on its way.
#[derive(Debug)]
pub(super) struct Sent {
    pub sequence: u64,
    pub network: Id<Network>,
    pub revision: Revision,
    pub phase: v1::SnapshotPhase,
    pub own: Vec<OwnRow>,
    pub timing: Timing,
}

impl Sent {
    pub(super) fn ends_snapshot(&self) -> bool {
        matches!(self.phase, v1::SnapshotPhase::Whole | v1::SnapshotPhase::End)
    }

    /// All four times, once its receipt is there.
    pub(super) fn timing(&self, receipt: &v1::Receipt) -> Timing {
        Timing {
            received_us: receipt.received_us,
            visible_us: receipt.visible_us,
            ..self.timing
        }
    }
}

/// What is left of a snapshot that is made part by part.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rest {
    /// A part of it has been made.
    pub has_begun: bool,
    /// The last port that was in it.
    pub after: Option<Id<Port>>,
    /// What it is complete to: what came since it began follows it.
    pub revision: Revision,
}

/// What waits for a host of one network.
#[derive(Debug, Default)]
struct Lane {
    /// Before that, what is left of a snapshot.
    rest: Option<Rest>,
    queue: VecDeque<Outgoing>,
    /// After that, a full snapshot.
    resync: bool,
}

impl Lane {
    /// Whether something waits that was given before another delta, or stands for what was.
    fn precedes(&self, delta: &Outgoing) -> bool {
        let waits = self.queue.front();
        self.resync || self.rest.is_some() || waits.is_some_and(|waits| waits.given < delta.given)
    }
}

/// What is next for a host.
#[derive(Debug)]
pub(super) enum Next {
    /// This delta of this network.
    Delta(Id<Network>, Delta),
    /// To make a snapshot of this network.
    Snapshot(Id<Network>),
    /// To go on with a snapshot of this network.
    More(Id<Network>, Rest),
}

#[derive(Debug)]
pub(super) struct Session {
    pub id: SessionId,
    /// When the agent was last heard, on the NCM's own clock.
    pub heard_at: Duration,
    pub opened: Opened,
    /// What the host said of itself; a gateway says other things.
    pub word: Option<HostWord>,
    sequence: u64,
    on_the_way: VecDeque<Sent>,
    /// What waits, network by network.
    lanes: BTreeMap<Id<Network>, Lane>,
    /// Those networks, in the order in which it is their turn.
    turns: VecDeque<Id<Network>>,
    /// Rows that wait and count against the bound: those of snapshots do not, they are made when there is room.
    queued_rows: usize,
    /// How many deltas were given to it.
    given: u64,
    /// Networks of which the host may have learned rows that it has not asked for again, until when; nothing as long
    /// as it is not known that its leases run.
    settling: BTreeMap<Id<Network>, Option<Duration>>,
    /// The agent has said something since its hello.
    is_heard: bool,
}

impl Session {
    pub(super) fn new(
        id: SessionId,
        heard_at: Duration,
        opened: Opened,
        word: Option<HostWord>,
        held: &[v1::Held],
    ) -> Self {
        let held = held
            .iter()
            .filter_map(|held| decode_id("held network", &held.network_id).ok());
        Self {
            id,
            heard_at,
            opened,
            word,
            sequence: 0,
            on_the_way: VecDeque::new(),
            lanes: BTreeMap::new(),
            turns: VecDeque::new(),
            queued_rows: 0,
            given: 0,
            settling: held.map(|network| (network, None)).collect(),
            is_heard: false,
        }
    }

    /// The agent has said something, so it has taken the welcome: the leases of what it had learned before run, and are over
    /// after `kept`.
    pub(super) fn hear(&mut self, now: Duration, kept: Duration) {
        self.heard_at = now;
        if std::mem::replace(&mut self.is_heard, true) {
            return;
        }
        for until in self.settling.values_mut() {
            until.get_or_insert(now + kept);
        }
    }

    /// The host has taken a snapshot, and may have learned rows that the snapshot did not name.
    pub(super) fn settle(&mut self, network: Id<Network>, until: Duration) {
        self.settling.insert(network, Some(until));
    }

    /// The host has nothing of a network that it was not told in this session, or would be told.
    pub(super) fn settled(&mut self, network: Id<Network>) {
        self.settling.remove(&network);
    }

    /// When to look again whether the host has asked again for all that it had learned; nothing when it has.
    pub(super) fn settling(&self, network: Id<Network>, now: Duration) -> Option<Duration> {
        match self.settling.get(&network)? {
            Some(until) => Some(*until).filter(|until| *until > now),
            None => Some(now + HELLO_PATIENCE),
        }
    }

    pub(super) fn has_room(&self, options: &Options) -> bool {
        self.on_the_way.len() < options.window_deltas
    }

    /// Whether all that was to be told is told and received.
    pub(super) fn is_idle(&self) -> bool {
        self.lanes.is_empty() && self.on_the_way.is_empty()
    }

    /// Deltas and snapshots that wait.
    pub(super) fn queued(&self) -> usize {
        let lanes = self.lanes.values();
        lanes
            .map(|lane| lane.queue.len() + usize::from(lane.resync) + usize::from(lane.rest.is_some()))
            .sum()
    }

    fn lane(&mut self, network: Id<Network>) -> &mut Lane {
        let turns = &mut self.turns;
        self.lanes.entry(network).or_insert_with(|| {
            turns.push_back(network);
            Lane::default()
        })
    }

    /// Puts a delta behind the others. A network that waits for a snapshot needs no deltas before it.
    pub(super) fn push(&mut self, options: &Options, mut delta: Outgoing) {
        let waits = |lane: &Lane| lane.resync;
        if delta.rows.is_empty() || self.lanes.get(&delta.network).is_some_and(waits) {
            return;
        }
        self.queued_rows += delta.rows.len();
        delta.given = self.give();
        self.lane(delta.network).queue.push_back(delta);
        if self.queued_rows > options.queue_rows {
            self.overflow();
        }
    }

    fn give(&mut self) -> u64 {
        self.given += 1;
        self.given
    }

    /// Forgets what waits: all of its networks get a snapshot later.
    fn overflow(&mut self) {
        self.queued_rows = 0;
        for lane in self.lanes.values_mut() {
            let waiting = lane.queue.len();
            lane.queue.retain(Outgoing::is_forget);
            let cut = lane.rest.take().is_some();
            lane.resync |= cut || lane.queue.len() < waiting;
        }
    }

    /// The network needs a full snapshot; what waits of it is of no use any more. A word to forget is in a learned network:
    /// a snapshot of that does not take away what the host has learned.
    pub(super) fn resync(&mut self, network: Id<Network>, learned: bool) {
        let lane = self.drop_waiting(network, |delta| learned && delta.is_forget());
        lane.resync = true;
    }

    pub(super) fn forget(&mut self, network: Id<Network>, committed_us: u64) {
        let lane = self.drop_waiting(network, |_| false);
        lane.resync = false;
        // It stands for all that it takes the place of: nothing is older.
        lane.queue.push_back(Outgoing::forget(network, committed_us));
    }

    fn drop_waiting(&mut self, network: Id<Network>, keep: impl Fn(&Outgoing) -> bool) -> &mut Lane {
        let lane = self.lanes.get(&network).map(|lane| &lane.queue);
        let counted = lane.into_iter().flatten().filter(|delta| delta.is_counted());
        let dropped: usize = counted.map(|delta| delta.rows.len()).sum();
        self.queued_rows = self.queued_rows.saturating_sub(dropped);
        let lane = self.lane(network);
        lane.queue.retain(keep);
        lane.rest = None;
        lane
    }

    /// Rows of a network, in place of the snapshot that was to be made. Up to where it asks for labels it stands for all that it
    /// takes the place of, and has the labels that others wait for.
    pub(super) fn push_snapshot(&mut self, network: Id<Network>, mut parts: Vec<Outgoing>) {
        let given = self.give();
        for part in parts.iter_mut().skip_while(|part| !part.asks) {
            part.given = given;
        }
        let counted = parts.iter().filter(|part| part.is_counted());
        self.queued_rows += counted.map(|part| part.rows.len()).sum::<usize>();
        self.lane(network).queue.extend(parts);
    }

    /// The next part of a snapshot, before all else that waits of the network.
    pub(super) fn push_part(&mut self, network: Id<Network>, part: Outgoing, rest: Option<Rest>) {
        let lane = self.lane(network);
        lane.queue.push_front(part);
        lane.rest = rest;
    }

    /// What is next. Snapshots are made only of networks of which they may be.
    pub(super) fn next(&mut self, now: Now, may_snapshot: impl Fn(Id<Network>) -> bool) -> Option<Next> {
        let awaited = self.awaited();
        for _ in 0..self.turns.len() {
            let network = self.turns.pop_front()?;
            if self.is_held_back(network) {
                self.turns.push_back(network);
                continue;
            }
            let Some(lane) = self.lanes.get_mut(&network) else {
                continue;
            };
            let is_part = lane.queue.front().is_some_and(Outgoing::is_snapshot);
            if let Some(rest) = lane.rest.take_if(|_| !is_part) {
                self.turns.push_back(network);
                return Some(Next::More(network, rest));
            }
            let delta = lane.queue.pop_front();
            if delta.is_none() && lane.resync && (may_snapshot(network) || awaited.contains(&network)) {
                // Its parts come into this lane.
                lane.resync = false;
                self.turns.push_back(network);
                return Some(Next::Snapshot(network));
            }
            match lane.queue.is_empty() && !lane.resync && lane.rest.is_none() {
                true => drop(self.lanes.remove(&network)),
                false => self.turns.push_back(network),
            }
            if let Some(delta) = delta {
                return Some(Next::Delta(network, self.send(now, delta)));
            }
        }
        None
    }

    /// Whether what is next of a network has to wait for other networks.
    fn is_held_back(&self, network: Id<Network>) -> bool {
        let front = self.lanes.get(&network).and_then(|lane| lane.queue.front());
        front.is_some_and(|delta| self.precede(delta).next().is_some())
    }

    /// The networks that a delta has to wait for.
    fn precede<'a>(&'a self, delta: &'a Outgoing) -> impl Iterator<Item = Id<Network>> + 'a {
        let lane = |network: &Id<Network>| Some((*network, self.lanes.get(network)?));
        let lanes = delta.after.iter().filter_map(lane);
        lanes
            .filter(|(_, lane)| lane.precedes(delta))
            .map(|(network, _)| network)
    }

    /// The networks that parts of snapshots wait for. These have places already, which they keep until then, so the others get
    /// theirs whoever else waits: of one session never more than the networks of its routers.
    fn awaited(&self) -> BTreeSet<Id<Network>> {
        let fronts = self.lanes.values().filter_map(|lane| lane.queue.front());
        let parts = fronts.filter(|delta| delta.is_snapshot());
        parts.flat_map(|delta| self.precede(delta)).collect()
    }

    /// Whether a part of a snapshot of a network waits or is on its way.
    pub(super) fn is_in_snapshot(&self, network: Id<Network>) -> bool {
        let lane = self.lanes.get(&network);
        let waits = lane.into_iter().flat_map(|lane| &lane.queue);
        let sent = |sent: &Sent| sent.network == network && is_snapshot(sent.phase);
        lane.is_some_and(|lane| lane.rest.is_some())
            || waits.into_iter().any(Outgoing::is_snapshot)
            || self.on_the_way.iter().any(sent)
    }

    /// Whether a snapshot waits to be made.
    pub(super) fn waits_for_snapshot(&self) -> bool {
        self.lanes.values().any(|lane| lane.resync)
    }

    fn send(&mut self, now: Now, delta: Outgoing) -> Delta {
        if delta.is_counted() {
            self.queued_rows = self.queued_rows.saturating_sub(delta.rows.len());
        }
        self.sequence += 1;
        self.on_the_way.push_back(Sent {
            sequence: self.sequence,
            network: delta.network,
            revision: delta.revision,
            phase: delta.phase,
            own: delta.own,
            timing: Timing {
                committed_us: delta.committed_us,
                sent_us: now.unix_us,
                ..Timing::default()
            },
        });
        Delta {
            sequence: self.sequence,
            network: delta.network,
            revision: delta.revision,
            phase: delta.phase,
            rows: delta.rows,
            committed_us: delta.committed_us,
            sent_us: now.unix_us,
        }
    }

    /// Whether rows of a network are on their way.
    pub(super) fn tells(&self, network: Id<Network>) -> bool {
        let tells = |sent: &Sent| sent.network == network && sent.phase != v1::SnapshotPhase::Forget;
        self.on_the_way.iter().any(tells)
    }

    /// Whether rows of a network wait or are on their way.
    pub(super) fn is_to_tell(&self, network: Id<Network>) -> bool {
        let mut waits = self.lanes.get(&network).into_iter().flat_map(|lane| &lane.queue);
        waits.any(|delta| !delta.is_forget()) || self.tells(network)
    }

    /// Whether the host is told to forget a network, and has not said that it has.
    pub(super) fn forgets(&self, network: Id<Network>) -> bool {
        let mut waits = self.lanes.get(&network).into_iter().flat_map(|lane| &lane.queue);
        let sent = |sent: &Sent| sent.network == network && sent.phase == v1::SnapshotPhase::Forget;
        waits.any(Outgoing::is_forget) || self.on_the_way.iter().any(sent)
    }

    /// The delta that a receipt is about. Receipts come in order; anything else is about nothing.
    pub(super) fn receipted(&mut self, sequence: u64) -> Option<Sent> {
        let front = self.on_the_way.front()?;
        if front.sequence == sequence {
            self.on_the_way.pop_front()
        } else {
            None
        }
    }
}
