//! What a feed is made of: a region's snapshots and its changes, behind traits, so that tests can have any region they need.

use alcor_model::{Resource, Revision};
use alcor_ncm::service::BoxFuture;
use alcor_store::{FeedBatch, FeedReader, Lagged};

/// A region.
pub trait Source: Send + Sync + 'static {
    /// The region's number: revisions of two regions cannot be compared.
    fn region(&self) -> u64;
    /// The newest durable state. Cheap: rows are read when they are asked for.
    fn snapshot(&self) -> Box<dyn Rows>;
    /// The changes after a commit.
    fn changes(&self, from: Revision) -> Box<dyn Changes>;
}

/// All rows of one commit.
pub trait Rows: Send + Sync {
    /// The commit.
    fn revision(&self) -> Revision;
    /// The rows that an NCM needs ([`alcor_ncm::core::KINDS`]), in an order in which they can be loaded.
    fn rows(&self) -> Box<dyn Iterator<Item = Resource> + Send + '_>;
}

/// Changes in commit order.
pub trait Changes: Send {
    /// Waits for the next ones; none when the region is gone. Cancel-safe.
    fn next(&mut self) -> BoxFuture<'_, Option<Result<FeedBatch, Lagged>>>;
    /// Goes on from a snapshot.
    fn restart_from(&mut self, revision: Revision);
}

impl Changes for FeedReader {
    fn next(&mut self) -> BoxFuture<'_, Option<Result<FeedBatch, Lagged>>> {
        Box::pin(FeedReader::next(self))
    }

    fn restart_from(&mut self, revision: Revision) {
        FeedReader::restart_from(self, revision);
    }
}
