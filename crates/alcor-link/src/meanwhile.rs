//! What changes while a snapshot is being sent. A snapshot of a large region takes minutes over a slow link, and meanwhile more may be
//! committed than the region's feed keeps; without this it would have to be sent again when it is there, and again.
//!
//! Only the newest change of each row is kept, so this is bounded by the rows of the region. That is not what happened, but where it led
//! to: it goes into the snapshot, which is then one of a later commit, and not after it as a history.

use std::collections::BTreeMap;

use alcor_model::{Change, ResourceKey, Revision};
use alcor_ncm::core::KINDS;
use alcor_store::{FeedBatch, Lagged};

use crate::source::Changes;

/// See the module.
pub(crate) struct Meanwhile<'a> {
    changes: &'a mut dyn Changes,
    newest: BTreeMap<ResourceKey, Change>,
    revision: Revision,
    committed_us: u64,
    /// The feed does not reach back to where this is.
    lagged: Option<Lagged>,
}

impl<'a> Meanwhile<'a> {
    /// Collects what comes after a commit.
    pub(crate) fn since(changes: &'a mut dyn Changes, revision: Revision) -> Self {
        changes.restart_from(revision);
        Self {
            changes,
            newest: BTreeMap::new(),
            revision,
            committed_us: 0,
            lagged: None,
        }
    }

    /// Takes changes as they come. Ends only when no more come, because the region is gone.
    pub(crate) async fn collect(&mut self) {
        while self.lagged.is_none() {
            match self.changes.next().await {
                Some(Ok(batch)) => self.note(batch),
                Some(Err(lagged)) => self.lagged = Some(lagged),
                None => return,
            }
        }
        std::future::pending().await
    }

    fn note(&mut self, batch: FeedBatch) {
        (self.revision, self.committed_us) = (batch.revision, batch.committed_us);
        for change in batch.changes {
            let key = change.key();
            if KINDS.contains(&key.kind()) {
                self.newest.insert(key, change);
            }
        }
    }

    /// How many rows have changed.
    pub(crate) fn rows(&self) -> usize {
        self.newest.len()
    }

    /// What has changed since the last time.
    ///
    /// # Errors
    /// When the feed did not reach back.
    pub(crate) fn take(&mut self) -> Result<FeedBatch, Lagged> {
        match self.lagged {
            Some(lagged) => Err(lagged),
            None => Ok(FeedBatch {
                changes: std::mem::take(&mut self.newest).into_values().collect(),
                revision: self.revision,
                committed_us: self.committed_us,
            }),
        }
    }
}
