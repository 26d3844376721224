//! The change feed: every committed change once, in commit order, from any retained revision.
//!
//! A bounded ring in memory, shared by all readers; a reader that falls behind it is told so and goes on from a
//! snapshot. Nothing here decides who needs a change.

use std::{collections::VecDeque, sync::Arc};

use alcor_model::{Change, Revision};
use parking_lot::RwLock;
use thiserror::Error;
use tokio::sync::watch;

/// Changes kept in memory for readers.
pub const FEED_RING: usize = 65_536;
/// Changes that one read gives at most, a command's changes never cut.
pub const FEED_BATCH: usize = 4_096;

/// Changes in commit order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FeedBatch {
    /// The changes.
    pub changes: Vec<Change>,
    /// The reader has everything up to this revision now.
    pub revision: Revision,
    /// When the last of them became durable, in microseconds since the Unix epoch.
    pub committed_us: u64,
}

/// The reader is behind what is retained; it must take a snapshot and go on from its revision.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("revision {from} is no longer in the feed (oldest is {oldest}); take a snapshot")]
pub struct Lagged {
    /// Where the reader was.
    pub from: Revision,
    /// What there is.
    pub oldest: Revision,
}

#[derive(Debug)]
struct Entry {
    change: Change,
    committed_us: u64,
}

#[derive(Debug, Default)]
struct Ring {
    entries: VecDeque<Entry>,
    /// Everything after this revision is in `entries`.
    complete_after: Revision,
    newest: Revision,
}

/// The writer's side.
#[derive(Debug)]
pub(crate) struct Feed {
    ring: Arc<RwLock<Ring>>,
    newest: watch::Sender<Revision>,
}

impl Feed {
    /// A feed that has `changes` and is complete after `complete_after`.
    pub(crate) fn new(changes: Vec<Change>, complete_after: Revision, newest: Revision) -> Self {
        let mut ring = Ring {
            entries: changes
                .into_iter()
                .map(|change| Entry {
                    change,
                    committed_us: 0,
                })
                .collect(),
            complete_after,
            newest,
        };
        ring.trim();
        Self {
            ring: Arc::new(RwLock::new(ring)),
            newest: watch::Sender::new(newest),
        }
    }

    pub(crate) fn append(&self, changes: Vec<Change>, revision: Revision, committed_us: u64) {
        {
            let mut ring = self.ring.write();
            ring.entries
                .extend(changes.into_iter().map(|change| Entry { change, committed_us }));
            ring.newest = revision;
            ring.trim();
        }
        self.newest.send_replace(revision);
    }

    /// Makes every reader take a snapshot: used when it is not known what they missed.
    pub(crate) fn reset(&self, revision: Revision) {
        {
            let mut ring = self.ring.write();
            ring.entries.clear();
            ring.complete_after = revision;
            ring.newest = revision;
        }
        self.newest.send_replace(revision);
    }

    pub(crate) fn reader(&self, from: Revision) -> FeedReader {
        FeedReader {
            ring: Arc::clone(&self.ring),
            newest: self.newest.subscribe(),
            from,
        }
    }
}

impl Ring {
    fn trim(&mut self) {
        while self.entries.len() > FEED_RING {
            if let Some(oldest) = self.entries.pop_front() {
                self.complete_after = oldest.change.revision();
            }
        }
        // Half a command at the front is of no use: it counts as not retained.
        while self
            .entries
            .front()
            .is_some_and(|entry| entry.change.revision() <= self.complete_after)
        {
            self.entries.pop_front();
        }
    }
}

/// Reads the feed from a revision on.
#[derive(Debug)]
pub struct FeedReader {
    ring: Arc<RwLock<Ring>>,
    newest: watch::Receiver<Revision>,
    from: Revision,
}

impl FeedReader {
    /// What the reader has seen so far.
    pub fn revision(&self) -> Revision {
        self.from
    }

    /// Waits until there is something new and gives it. `None` when the shard is gone. Cancel-safe.
    ///
    /// # Errors
    /// [`Lagged`] when what comes next is not retained; use [`Self::restart_from`] after taking a snapshot.
    pub async fn next(&mut self) -> Option<Result<FeedBatch, Lagged>> {
        loop {
            self.newest.mark_unchanged();
            if let Some(batch) = self.take() {
                return Some(batch);
            }
            self.newest.changed().await.ok()?;
        }
    }

    /// Goes on from the revision of a snapshot.
    pub fn restart_from(&mut self, revision: Revision) {
        self.from = revision;
    }

    fn take(&mut self) -> Option<Result<FeedBatch, Lagged>> {
        let ring = self.ring.read();
        if self.from >= ring.newest {
            return None;
        }
        if self.from < ring.complete_after {
            return Some(Err(Lagged {
                from: self.from,
                oldest: ring.complete_after,
            }));
        }
        let start = ring
            .entries
            .partition_point(|entry| entry.change.revision() <= self.from);
        let mut batch = FeedBatch::default();
        for entry in ring.entries.iter().skip(start) {
            let revision = entry.change.revision();
            if batch.changes.len() >= FEED_BATCH && revision != batch.revision {
                break;
            }
            batch.changes.push(entry.change.clone());
            batch.revision = revision;
            batch.committed_us = entry.committed_us;
        }
        if start + batch.changes.len() == ring.entries.len() {
            batch.revision = ring.newest;
        }
        self.from = batch.revision;
        Some(Ok(batch))
    }
}
