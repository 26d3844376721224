//! One agent's session: a window of deltas on their way, a bounded queue behind it, and networks that need a full
//! snapshot. Overflow of the queue turns into snapshots, so a slow host costs a bounded amount and nobody else.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use alcor_dataplane::RowKey;
use alcor_model::{Id, Network, Revision, effective::Timing};
use alcor_proto::v1;
use alcor_southbound::convert::{decode_id, encode_id};

use super::{Now, Options, SessionId, view::KeyedRow};

/// After how long it is looked again whether an agent has taken its welcome.
const HELLO_PATIENCE: Duration = Duration::from_secs(1);

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
    rows: Vec<v1::Row>,
    own: Vec<OwnRow>,
    committed_us: u64,
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
        let rows = rows.into_iter().map(|row| row.row).collect();
        Self {
            network,
            revision,
            phase,
            rows,
            own,
            committed_us,
        }
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

    /// The rows of a snapshot in messages of at most `message_rows`.
    pub(super) fn snapshot(
        network: Id<Network>,
        revision: Revision,
        rows: Vec<KeyedRow>,
        message_rows: usize,
        committed_us: u64,
    ) -> Vec<Self> {
        let mut chunks = Vec::new();
        let mut rows = rows.into_iter().peekable();
        while rows.peek().is_some() {
            chunks.push(rows.by_ref().take(message_rows.max(1)).collect::<Vec<_>>());
        }
        let last = chunks.len().saturating_sub(1);
        let part = |(index, rows)| {
            let (phase, revision) = match index {
                0 if last == 0 => (v1::SnapshotPhase::Whole, revision),
                0 => (v1::SnapshotPhase::Begin, Revision::ZERO),
                index if index == last => (v1::SnapshotPhase::End, revision),
                _ => (v1::SnapshotPhase::Part, Revision::ZERO),
            };
            Self::new(network, revision, phase, rows, committed_us)
        };
        chunks.into_iter().enumerate().map(part).collect()
    }
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

#[derive(Debug)]
pub(super) struct Session {
    pub id: SessionId,
    /// When the agent was last heard, on the NCM's own clock.
    pub heard_at: Duration,
    sequence: u64,
    on_the_way: VecDeque<Sent>,
    queue: VecDeque<Outgoing>,
    /// Rows in `queue` that count against the bound: snapshots do not, they are made when there is room.
    queued_rows: usize,
    resyncs: BTreeSet<Id<Network>>,
    /// Networks of which the host may have learned rows that it has not asked for again, until when; nothing as long
    /// as it is not known that its leases run.
    settling: BTreeMap<Id<Network>, Option<Duration>>,
}

impl Session {
    pub(super) fn new(id: SessionId, heard_at: Duration, held: &[v1::Held]) -> Self {
        let held = held
            .iter()
            .filter_map(|held| decode_id("held network", &held.network_id).ok());
        Self {
            id,
            heard_at,
            sequence: 0,
            on_the_way: VecDeque::new(),
            queue: VecDeque::new(),
            queued_rows: 0,
            resyncs: BTreeSet::new(),
            settling: held.map(|network| (network, None)).collect(),
        }
    }

    /// The agent has said something, so it has taken the welcome: the leases of what it had learned before run, and are over
    /// after `kept`.
    pub(super) fn hear(&mut self, now: Duration, kept: Duration) {
        self.heard_at = now;
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

    /// Deltas that wait.
    pub(super) fn queued(&self) -> usize {
        self.queue.len() + self.resyncs.len()
    }

    /// Puts a delta behind the others. A network that waits for a snapshot needs no deltas before it.
    pub(super) fn push(&mut self, options: &Options, delta: Outgoing) {
        if delta.rows.is_empty() || self.resyncs.contains(&delta.network) {
            return;
        }
        self.queued_rows += delta.rows.len();
        self.queue.push_back(delta);
        if self.queued_rows > options.queue_rows {
            self.overflow();
        }
    }

    /// Forgets what waits: all of its networks get a snapshot later.
    fn overflow(&mut self) {
        let waiting = std::mem::take(&mut self.queue);
        self.queued_rows = 0;
        for delta in waiting {
            if delta.phase == v1::SnapshotPhase::Forget {
                self.queue.push_back(delta);
            } else {
                self.resyncs.insert(delta.network);
            }
        }
    }

    /// The network needs a full snapshot; what waits of it is of no use any more. A word to forget is in a learned network:
    /// a snapshot of that does not take away what the host has learned.
    pub(super) fn resync(&mut self, network: Id<Network>, learned: bool) {
        let forget = |delta: &Outgoing| delta.network == network && delta.phase == v1::SnapshotPhase::Forget;
        let forgets = learned && self.queue.iter().any(forget);
        self.drop_waiting(network);
        if forgets {
            self.queue.push_back(Outgoing::forget(network, 0));
        }
        self.resyncs.insert(network);
    }

    pub(super) fn forget(&mut self, network: Id<Network>, committed_us: u64) {
        self.drop_waiting(network);
        self.resyncs.remove(&network);
        self.queue.push_back(Outgoing::forget(network, committed_us));
    }

    fn drop_waiting(&mut self, network: Id<Network>) {
        let dropped: usize = self
            .queue
            .iter()
            .filter(|delta| delta.network == network)
            .map(|delta| delta.rows.len())
            .sum();
        self.queued_rows = self.queued_rows.saturating_sub(dropped);
        self.queue.retain(|delta| delta.network != network);
    }

    pub(super) fn next_resync(&mut self) -> Option<Id<Network>> {
        self.resyncs.pop_first()
    }

    pub(super) fn push_snapshot(&mut self, parts: Vec<Outgoing>) {
        let counted = parts.iter().filter(|part| part.phase == v1::SnapshotPhase::Delta);
        self.queued_rows += counted.map(|part| part.rows.len()).sum::<usize>();
        self.queue.extend(parts);
    }

    /// The next delta, with its sequence, and the network it is about.
    pub(super) fn next_queued(&mut self, now: Now) -> Option<(Id<Network>, v1::Delta)> {
        let delta = self.queue.pop_front()?;
        if delta.phase == v1::SnapshotPhase::Delta {
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
        let message = v1::Delta {
            sequence: self.sequence,
            network_id: encode_id(delta.network),
            revision: delta.revision.0,
            snapshot: delta.phase.into(),
            rows: delta.rows,
            committed_us: delta.committed_us,
            sent_us: now.unix_us,
        };
        Some((delta.network, message))
    }

    /// Whether rows of a network are on their way.
    pub(super) fn tells(&self, network: Id<Network>) -> bool {
        let tells = |sent: &Sent| sent.network == network && sent.phase != v1::SnapshotPhase::Forget;
        self.on_the_way.iter().any(tells)
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
