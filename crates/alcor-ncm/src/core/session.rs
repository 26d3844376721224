//! One agent's session: a window of deltas on their way, a bounded queue behind it, and networks that need a full
//! snapshot. Overflow of the queue turns into snapshots, so a slow host costs a bounded amount and nobody else.

use std::{
    collections::{BTreeSet, VecDeque},
    time::Duration,
};

use alcor_dataplane::RowKey;
use alcor_model::{Id, Network, Revision, effective::Timing};
use alcor_proto::v1;
use alcor_southbound::convert::encode_id;

use super::{Now, Options, SessionId, view::KeyedRow};

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
}

impl Session {
    pub(super) fn new(id: SessionId, heard_at: Duration) -> Self {
        Self {
            id,
            heard_at,
            sequence: 0,
            on_the_way: VecDeque::new(),
            queue: VecDeque::new(),
            queued_rows: 0,
            resyncs: BTreeSet::new(),
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

    /// The network needs a full snapshot; what waits of it is of no use any more.
    pub(super) fn resync(&mut self, network: Id<Network>) {
        self.drop_waiting(network);
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
